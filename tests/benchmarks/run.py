"""Benchmarks against exca, joblib and the least possible: ``python tests/benchmarks/run.py [--rounds N] [--only TEXT]``.

All libraries run in turn, in the same process, many times; the fastest times are compared. The peers come with the
extra ``bench``; those that are not installed are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import logging
import tempfile
import typing as tp
import warnings
from pathlib import Path

import bench_catalog  # noqa: F401 - adds its cases
import bench_code  # noqa: F401 - adds its cases
import bench_maps  # noqa: F401 - adds its cases
import bench_memo  # noqa: F401 - adds its cases
import bench_store  # noqa: F401 - adds its cases
from bench_cases import CASES, Case, Side, show

OURS, EXCA = "exca_like", "exca"
COLUMNS = ("operation", EXCA, "joblib", "diskcache", "scrat", "numpy", "floor", OURS, "ratio", "goal", "ok")
PEERS = (EXCA, "joblib", "diskcache", "scrat")


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run: rounds of all libraries, measurements in each, tasks of the operations on many of them."""

    rounds: int = 40
    calls: int = 10
    tasks: int = 1000


FULL = Size()


def missing_peers() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name) is None]


def measure(case: Case, folder: Path, size: Size) -> dict[str, float]:
    """The fastest time of each library that has the operation, in seconds."""
    prepares = {**({} if case.ours_only else {EXCA: case.prepare}), **case.others, OURS: case.prepare}
    samplers = {
        name: prepare(Side(name, folder / name, 1 if "process" in case.name else size.calls, size.tasks))
        for name, prepare in prepares.items()
        if name not in missing_peers()
    }
    best = dict.fromkeys(samplers, float("inf"))
    for _ in range(max(1, round(size.rounds * case.rounds))):
        for name, sampler in samplers.items():
            best[name] = min(best[name], sampler())
    return best


def row_of(case: Case, best: dict[str, float]) -> tuple[str, ...]:
    ratios = [(goal, goal.ratio(best[OURS], best[goal.peer])) for goal in case.goals if goal.peer in best]
    shown = "; ".join(goal.show(ratio) for goal, ratio in ratios)
    ok = "yes" if all(goal.is_met(ratio) for goal, ratio in ratios) else "NO"
    times = (show(best.get(name), case.unit) for name in COLUMNS[1:8])
    return case.name, *times, shown or "-", "; ".join(goal.show() for goal in case.goals), ok if ratios else "-"


def run(size: Size, only: str = "") -> tp.Iterator[tuple[str, ...]]:
    """The rows of the table, each when it is measured."""
    logging.getLogger(EXCA).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, case in enumerate(CASES):
            if only in case.name:
                yield row_of(case, measure(case, Path(folder) / str(number), size))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=FULL.rounds)
    parser.add_argument("--only", default="", help="run the operations whose name holds this text")
    options = parser.parse_args(arguments)
    widths = (38, 9, 9, 9, 9, 9, 9, 9, 36, 40, 3)
    size = dataclasses.replace(FULL, rounds=options.rounds)
    for cells in itertools.chain([COLUMNS, ("",) * len(COLUMNS)], run(size, options.only)):
        fill = " " if cells[0] else "-"
        print("| " + " | ".join(cell.ljust(width, fill) for cell, width in zip(cells, widths, strict=True)) + " |", flush=True)
    for name in missing_peers():
        print(f"{name} is not installed: pip install 'exca_like[bench]'")


if __name__ == "__main__":
    main()
