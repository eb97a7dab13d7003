"""Fingerprints of code: of a real package of some fifty modules, copied as if it were the user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import typing as tp
from pathlib import Path

from bench_cases import Limit, Sampler, Side, case

SCRIPT = """
import time
import _pytest.config  # of the copy
from exca_like.code.fingerprint import confirmed, fingerprint

root = [_pytest.config.main]
started = time.perf_counter()
found = fingerprint(root)
cold = time.perf_counter() - started
warm = sent = float("inf")
for _ in range(20):
    started = time.perf_counter()
    fingerprint(root)
    warm = min(warm, time.perf_counter() - started)
    found = type(found)(found.symbols, found.packages, found.precision, found.files)
    started = time.perf_counter()
    found_again = confirmed(found, [_pytest.config.Config])
    sent = min(sent, time.perf_counter() - started)
assert len(found.files) > 40 and found_again is found
print(cold, warm, sent)
"""


def times(side: Side) -> tp.Callable[[], list[float]]:
    import _pytest

    copy = side.folder / "_pytest"
    if not copy.exists():
        shutil.copytree(Path(_pytest.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (side.folder / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}

    def run() -> list[float]:
        command = [sys.executable, "script.py"]
        done = subprocess.run(command, cwd=side.folder, env=environment, capture_output=True, text=True, check=True)
        return list(map(float, done.stdout.split()))

    return run


def case_of(name: str, limit: float, place: int) -> None:
    @case(f"code: fingerprint of a package of 46 modules, {name}", Limit(limit), rounds=0.1, ours_only=True)
    def prepare(side: Side) -> Sampler:
        run = times(side)
        return lambda: run()[place]


case_of("first time in a process", 1.0, 0)
case_of("again", 1e-3, 1)
case_of("in a job that was sent it", 1e-3, 2)
