"""Listing what is stored: 10,000 tasks (ten for each of the run's size)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

from bench_cases import Limit, Sampler, Side, case

CACHES = Path("/proc/sys/vm/drop_caches")
SCRIPT = """
import sys, time
from exca_like.catalog import Catalog

catalog = Catalog(sys.argv[1])
times = []
for _ in range(3):
    started = time.perf_counter()
    assert len(catalog) == int(sys.argv[2])
    times.append(time.perf_counter() - started)
print(times[0], min(times[1:]))
"""


def listings(side: Side, *, cold: bool = False) -> tp.Callable[[], list[float]]:
    number = 10 * side.tasks
    for seed in range(number):
        side.config(seed).run()

    def run() -> list[float]:
        if cold and side.tasks >= 1000 and os.access(CACHES, os.W_OK):  # else they are as warm as the others
            os.sync()
            CACHES.write_text("3")
            time.sleep(0.5)
        command = [sys.executable, "-c", SCRIPT, str(side.folder), str(number)]
        return list(map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))

    return run


@case("catalog of 10,000 entries, new process", Limit(1.0), rounds=0.05, ours_only=True)
def first(side: Side) -> Sampler:
    run = listings(side)
    return lambda: run()[0]


@case("catalog of 10,000 entries, same process again", Limit(0.3), rounds=0.05, ours_only=True)
def again(side: Side) -> Sampler:
    run = listings(side)
    return lambda: run()[1]


@case("catalog of 10,000 entries, nothing in the page cache", Limit(4.0), rounds=0.05, ours_only=True)
def cold(side: Side) -> Sampler:
    run = listings(side, cold=True)
    return lambda: run()[0]
