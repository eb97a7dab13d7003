"""What each handler of `CacheDict` costs, as a markdown table: ``python tests/benchmarks/handler_table.py [--rounds N]``.

Each round writes entries into a new folder, reads each of them for the first time, and reads each of them again; the
fastest round counts. Handlers whose library is not installed are left out. With ``TMPDIR`` on a file system in memory,
such as ``/dev/shm``, the handlers are compared and not the disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import gc
import importlib.util
import tempfile
import time
import typing as tp
import warnings
from pathlib import Path

import numpy as np

from exca_like.cachedict import CacheDict
from exca_like.errors import PickleRefusedError

COLUMNS = (
    "handler", "small: bytes", "files", "write, µs", "read, µs",
    "large: size", "write, MB/s", "first read, MB/s", "later reads, MB/s", "zero-copy", "pickle",
)  # fmt: skip
LARGE = 8_000_000  # bytes, about, of large values in memory
AT_ONCE = 100_000  # MB/s; what is faster than any memory was not read


def held(value: tp.Any) -> int:
    """Bytes of the numbers that a value holds."""
    return int(value.nbytes)


def about(_: tp.Any) -> int:
    """Bytes that a value takes, with all the objects in it."""
    return LARGE


@dataclasses.dataclass(frozen=True)
class Case:
    """A handler, and what makes a small and a large value for it."""

    handler: str
    small: tp.Callable[[], tp.Any]
    large: tp.Callable[[], tp.Any] | None
    zero_copy: str = "no"
    needs: tuple[str, ...] = ()
    read: tp.Callable[[tp.Any], tp.Any] = lambda value: value
    memory: tp.Callable[[tp.Any], int] = held
    slow: bool = False


@dataclasses.dataclass(frozen=True)
class Figures:
    """Bytes and files of an entry, and seconds to write and to read it."""

    size: float
    files: float
    write: float
    first: float
    later: float
    pickle: bool


def numbers(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=count)


def objects(count: int) -> np.ndarray:
    array = np.empty(count, object)
    array[:] = [f"word {number}" if number % 2 else number for number in range(count)]
    return array


def masked(count: int) -> tp.Any:
    return np.ma.masked_less(numbers(count), 0)


def mapping(count: int) -> dict[str, tp.Any]:
    return {"weights": numbers(count), "seen": {(number, number + 1) for number in range(10)}, "at": datetime.date(2025, 1, 1)}


def frame(count: int) -> tp.Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "number": np.arange(count),
            "value": numbers(count),
            "when": pd.date_range("2025-01-01", periods=count, freq="s"),
            "kind": pd.Categorical(["left", "right"] * (count // 2)),
            "name": [f"name {number}" for number in range(count)],
        }
    )


def series(count: int) -> tp.Any:
    import pandas as pd

    return pd.Series(numbers(count), index=np.arange(count), name="values")


def dates(count: int) -> tp.Any:
    import pandas as pd

    return pd.date_range("2025-01-01", periods=count, freq="s")


def categories(count: int) -> tp.Any:
    import pandas as pd

    return pd.Categorical(["left", "right"] * (count // 2))


def tensor(count: int) -> tp.Any:
    import torch

    return torch.from_numpy(numbers(count))


def image(side: int) -> tp.Any:
    import nibabel

    return nibabel.Nifti1Image(numbers(side**3).reshape(side, side, side).astype(np.float32), np.eye(4))


def recording(samples: int) -> tp.Any:
    import mne

    info = mne.create_info([f"EEG{number}" for number in range(10)], 100.0, "eeg")
    return mne.io.RawArray(1e-6 * numbers(10 * samples).reshape(10, samples), info, verbose="error")


def bytes_of_frame(value: tp.Any) -> int:
    return int(value.memory_usage(deep=True).sum())


def bytes_of_series(value: tp.Any) -> int:
    return int(value.memory_usage())


DOUBLES = LARGE // 8
FRAMES = (lambda: frame(10), lambda: frame(LARGE // 80))
RECORDINGS = (lambda: recording(10), lambda: recording(DOUBLES // 10))
CASES = (
    Case("MemmapArray", lambda: numbers(8), lambda: numbers(DOUBLES), "yes"),
    Case("ContiguousMemmapArray", lambda: numbers(8), lambda: numbers(DOUBLES), "no, in pieces", read=np.asarray),
    Case("NumpyArray", lambda: numbers(8), lambda: numbers(DOUBLES)),
    Case("NumpyMemmapArray", lambda: numbers(8), lambda: numbers(DOUBLES), "yes"),
    Case("NumpyScalar", lambda: np.float32(0.5), lambda: np.bytes_(b"x" * LARGE)),
    Case("ObjectArray", lambda: objects(8), lambda: objects(LARGE // 64), memory=about, slow=True),
    Case(
        "ArrayParts", lambda: masked(8), lambda: masked(DOUBLES * 8 // 9), "yes", memory=lambda v: held(v.data) + held(v.mask)
    ),
    Case("Json", lambda: {"loss": 0.25, "step": 100}, lambda: numbers(LARGE // 32).tolist(), memory=about, slow=True),
    Case("Auto", lambda: mapping(8), lambda: mapping(DOUBLES), "arrays in it", memory=about),
    Case("String", lambda: "some text " * 6, lambda: "some text " * (LARGE // 10), memory=about),
    Case("Pickle", lambda: numbers(8), lambda: numbers(DOUBLES)),
    Case("AutoPickle", lambda: [argparse.Namespace(loss=0.25)], lambda: mapping(DOUBLES), "arrays in it", memory=about),
    Case("TorchTensor", lambda: tensor(8), lambda: tensor(DOUBLES), needs=("torch",)),
    Case("ParquetPandasDataFrame", *FRAMES, needs=("pandas", "pyarrow"), memory=bytes_of_frame, slow=True),
    Case("DataFrameParts", *FRAMES, needs=("pandas",), memory=bytes_of_frame, slow=True),
    Case("PandasDataFrame", *FRAMES, needs=("pandas",), memory=bytes_of_frame, slow=True),
    Case("PandasSeries", lambda: series(10), lambda: series(DOUBLES // 2), needs=("pandas",), memory=bytes_of_series),
    Case("PandasIndex", lambda: dates(10), lambda: dates(DOUBLES), needs=("pandas",)),
    Case("PandasArray", lambda: categories(10), lambda: categories(LARGE), needs=("pandas",)),
    Case("PandasScalar", lambda: dates(1)[0], None, needs=("pandas",)),
    Case("NibabelNifti", lambda: image(4), lambda: image(126), needs=("nibabel",), memory=lambda v: held(v.dataobj), slow=True),
    Case("MneRawFif", *RECORDINGS, needs=("mne",), memory=lambda v: held(v.get_data()), slow=True),
    Case("MneRawBrainVision", *RECORDINGS, needs=("mne", "pybv"), memory=lambda v: held(v.get_data()), slow=True),
)


def measure(case: Case, value: tp.Any, count: int, rounds: int) -> Figures:
    best = [float("inf")] * 3
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            figures, times = one_round(case, value, count, folder)
            best = list(map(min, best, times))
    return Figures(*figures[:2], *best, pickle=bool(figures[2]))


def one_round(case: Case, value: tp.Any, count: int, folder: str) -> tuple[tuple[float, float, bool], list[float]]:
    cache = CacheDict[tp.Any](folder, cache_type=case.handler)
    keys = [f"key {number}" for number in range(count)]
    gc.collect()
    with cache.write():
        cache["first"] = value  # opens the writer's files
        before = sizes(folder)
        started = time.perf_counter()
        for key in keys:
            cache[key] = value
        times = [time.perf_counter() - started]
    grown = sizes(folder)
    again = CacheDict[tp.Any](folder)
    len(again)  # reads the index
    for _ in range(2):
        started = time.perf_counter()
        for key in keys:
            case.read(again[key])
        times.append(time.perf_counter() - started)
    size = (sum(grown.values()) - sum(before.values())) / count
    files = (len(grown) - len(before)) / count
    return (size, files, holds_pickle(folder)), [seconds / count for seconds in times]


def sizes(folder: str) -> dict[Path, int]:
    return {path: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}


def holds_pickle(folder: str) -> bool:
    try:
        CacheDict[tp.Any](folder, allow_pickle="never")["first"]
    except PickleRefusedError:
        return True
    return False


def row_of(case: Case, rounds: int) -> tuple[str, ...] | None:
    if any(importlib.util.find_spec(name) is None for name in case.needs):
        return None
    small = measure(case, case.small(), 20 if case.slow else 1000, rounds)
    cells = [
        f"`{case.handler}`",
        f"{small.size:,.0f}",
        f"{small.files:.0f}",
        microseconds(small.write),
        microseconds(small.later),
    ]
    if case.large is None:
        return (*cells, "-", "-", "-", "-", case.zero_copy, "yes" if small.pickle else "no")
    value = case.large()
    memory = case.memory(value)
    large = measure(case, value, 2, rounds)
    cells += [f"{large.size / memory:.2f} ×", *(speed(memory, seconds) for seconds in (large.write, large.first, large.later))]
    return (*cells, case.zero_copy, "yes" if small.pickle or large.pickle else "no")


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-5 else f"{seconds * 1e6:.1f}"


def speed(size: int, seconds: float) -> str:
    number = size / seconds / 1e6
    return "at once" if number > AT_ONCE else f"{float(f'{number:.2g}'):,.0f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="measure the handlers whose name holds this text")
    options = parser.parse_args(arguments)
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" + "|--:" * (len(COLUMNS) - 3) + "|---|---|")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what csv loses, and of units that BrainVision does not know
        for case in CASES:
            if options.only in case.handler and (cells := row_of(case, options.rounds)) is not None:
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
