"""What is measured of the store: `CacheDict` beside exca's, diskcache, and plain files."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import textwrap
import time
import typing as tp
from pathlib import Path

import numpy as np
from bench_cases import Goal, Limit, Sampler, Side, case

SMALL = np.arange(16, dtype=np.float32)
MANY = 1_000_000
WRITERS = 1000
LARGE = 25 << 20  # float32 elements: 100 MB


def cache_dict(library: str, folder: Path) -> tp.Any:
    return importlib.import_module(f"{library}.cachedict").CacheDict(folder=folder)


def filled(library: str, folder: Path, number: int, prefix: str = "item") -> list[str]:
    """Write entries; returns their keys."""
    cache = cache_dict(library, folder)
    keys = [f"{prefix}-{index}" for index in range(number)]
    with cache.write():
        for key in keys:
            cache[key] = SMALL
    return keys


def folders(side: Side) -> tp.Iterator[Path]:
    return (side.folder / str(number) for number in itertools.count())


def timed(function: tp.Callable[[], tp.Any], number: int) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) / number


# peers and floors


def diskcache_of(side: Side) -> tp.Any:
    return importlib.import_module("diskcache").Cache(str(side.folder))


def diskcache_write(side: Side) -> Sampler:
    cache, numbers = diskcache_of(side), itertools.count()

    def write() -> None:
        for _ in range(side.tasks):
            cache[f"item-{next(numbers)}"] = SMALL

    return lambda: timed(write, side.tasks)


def diskcache_read(side: Side) -> Sampler:
    cache = diskcache_of(side)
    keys = [f"item-{number}" for number in range(side.tasks)]
    for key in keys:
        cache[key] = SMALL
    return lambda: timed(lambda: [cache[key] for key in keys], side.tasks)


def one_write(side: Side) -> Sampler:
    """A line appended to a file."""
    descriptor = os.open(side.folder / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda: side.fastest(lambda: os.write(descriptor, bytes(190)), 100)


def numpy_load(side: Side) -> Sampler:
    """`np.load` of a mapped file, and a look at every byte."""
    path = side.folder / "array.npy"
    np.save(path, np.arange(LARGE, dtype=np.float32))
    return lambda: side.fastest(lambda: np.load(path, mmap_mode="r").sum())


# operations


@case("CacheDict: write a small array", Goal(6), rounds=0.5, diskcache=diskcache_write, floor=one_write)
def write_small(side: Side) -> Sampler:
    places = folders(side)

    def sample() -> float:
        place = next(places)
        filled(side.name, place / "before", side.tasks // 10)  # what ran before was another library
        seconds = timed(lambda: filled(side.name, place / "measured", side.tasks), side.tasks)
        shutil.rmtree(place)
        return seconds

    return sample


@case("CacheDict: open, per key", Goal(2), rounds=0.5)
def open_folder(side: Side) -> Sampler:
    filled(side.name, side.folder, side.tasks * 10)

    def opened() -> None:
        assert len(list(cache_dict(side.name, side.folder).keys())) == side.tasks * 10

    return lambda: timed(opened, side.tasks * 10)


@case("CacheDict: read a small array", Goal(3), rounds=0.5, diskcache=diskcache_read)
def read_small(side: Side) -> Sampler:
    keys = filled(side.name, side.folder, side.tasks)

    def sample() -> float:
        cache = cache_dict(side.name, side.folder)
        len(list(cache.keys()))
        return timed(lambda: [cache[key] for key in keys], side.tasks)

    return sample


def large_array(folder: Path) -> Path:
    cache = cache_dict("exca_like", folder)
    with cache.write():
        cache["large"] = np.arange(LARGE, dtype=np.float32)
    return folder


@case("100 MB array by memmap, later loads", Goal(0.85, "numpy"), rounds=0.2, ours_only=True, numpy=numpy_load)
def load_again(side: Side) -> Sampler:
    folder = large_array(side.folder)
    cache_dict(side.name, folder)["large"].sum()
    return lambda: side.fastest(lambda: cache_dict(side.name, folder)["large"].sum())


@case("100 MB array by memmap, first load", Goal(0.2, "numpy"), rounds=0.2, ours_only=True, numpy=numpy_load)
def load_first(side: Side) -> Sampler:
    """The checked load: of a folder that this process has not read."""
    places = folders(side)

    def sample() -> float:
        place = large_array(next(places))
        seconds = timed(lambda: cache_dict(side.name, place)["large"].sum(), 1)
        shutil.rmtree(place)
        return seconds

    return sample


@case("index refresh after 10 new entries", Limit(1e-3), ours_only=True)
def refresh(side: Side) -> Sampler:
    filled(side.name, side.folder, side.tasks, "first")
    return refresh_sampler(side)


@case(f"the same beside {WRITERS:,} writer files", Limit(10e-3), rounds=0.5, ours_only=True)
def refresh_of_many(side: Side) -> Sampler:
    for number in range(WRITERS):
        filled(side.name, side.folder, 1, f"writer{number}")
    return refresh_sampler(side)


def refresh_sampler(side: Side) -> Sampler:
    reader, writer, numbers = cache_dict(side.name, side.folder), cache_dict(side.name, side.folder), itertools.count()

    def sample() -> float:
        before = len(reader)
        with writer.write():
            for _ in range(10):
                writer[f"new-{next(numbers)}"] = SMALL
        seconds = timed(reader.refresh, 1)
        with reader.frozen_cache_folder():
            assert len(reader) == before + 10
        return seconds

    return sample


OPEN_MANY = textwrap.dedent("""
    import re, sys, time
    import numpy  # not part of what the index takes
    from exca_like.cachedict import CacheDict

    def peak():
        return int(re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]) * 1024

    CacheDict(sys.argv[1] + "/none", keep_in_ram=True)
    before = peak()
    started = time.perf_counter()
    cache = CacheDict(sys.argv[1])
    number = len(cache)
    seconds = time.perf_counter() - started
    print(seconds, (peak() - before) / number)
""")


def open_many(side: Side, column: int) -> Sampler:
    filled(side.name, side.folder, MANY if side.tasks >= 1000 else side.tasks)

    def sample() -> float:
        command = [sys.executable, "-c", OPEN_MANY, str(side.folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[column])

    return sample


@case(f"open {MANY:,} keys", Limit(3.0), rounds=0.1, ours_only=True)
def open_many_time(side: Side) -> Sampler:
    return open_many(side, 0)


@case(f"RAM for each of {MANY:,} keys, peak", Limit(250, "B"), rounds=0.1, ours_only=True, unit="B")
def open_many_ram(side: Side) -> Sampler:
    return open_many(side, 1)
