"""Memoised functions, beside joblib.Memory, diskcache and scrat."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import typing as tp
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_cases import Goal, Sampler, Side, case, train

ARRAY = 1_250_000  # numbers, of 10 MB


def total(data: tp.Any) -> float:
    return float(data[0])


class Memoised(tp.NamedTuple):
    """A function as a library memoises it, and what has to be so while it is called."""

    train: Callable[..., tp.Any]
    total: Callable[..., tp.Any]
    place: Callable[[], contextlib.AbstractContextManager[tp.Any]] = contextlib.nullcontext


def with_exca_like(side: Side) -> Memoised:
    memo = importlib.import_module("exca_like").memo
    return Memoised(memo(folder=side.folder)(train), memo(folder=side.folder)(total))


def with_joblib(side: Side) -> Memoised:
    memory = importlib.import_module("joblib").Memory(side.folder, verbose=0)
    return Memoised(memory.cache(train), memory.cache(total))


def with_diskcache(side: Side) -> Memoised:
    cache = importlib.import_module("diskcache").Cache(str(side.folder))
    return Memoised(cache.memoize()(train), cache.memoize()(total))


def with_scrat(side: Side) -> Memoised:
    scrat = importlib.import_module("scrat")
    subprocess.run([str(Path(sys.executable).with_name("scrat")), "init"], cwd=side.folder, check=True, capture_output=True)
    with contextlib.chdir(side.folder):
        return Memoised(scrat.stash()(train), scrat.stash()(total), lambda: contextlib.chdir(side.folder))


Library = Callable[[Side], Memoised]
PEERS: dict[str, Library] = {"joblib": with_joblib, "diskcache": with_diskcache, "scrat": with_scrat}


def compare(name: str, *goals: Goal, rounds: float = 1) -> Callable[[Callable[[Side, Memoised], Sampler]], tp.Any]:
    """A case that all libraries take part in."""

    def register(prepare: Callable[[Side, Memoised], Sampler]) -> tp.Any:
        def prepared(library: Library) -> Callable[[Side], Sampler]:
            def make(side: Side) -> Sampler:
                functions = library(side)
                with functions.place():
                    sample = prepare(side, functions)

                def placed() -> float:
                    with functions.place():
                        return sample()

                return placed

            return make

        others = {peer: prepared(library) for peer, library in PEERS.items()}
        case(name, *goals, rounds=rounds, ours_only=True, **others)(prepared(with_exca_like))
        return prepare

    return register


@compare("memo: hit, small arguments", Goal(0.6, "joblib", most=True))
def hit(side: Side, functions: Memoised) -> Sampler:
    arguments = side.arguments(0)
    functions.train(**arguments)
    return lambda: side.fastest(lambda: functions.train(**arguments))


@compare("memo: miss, small arguments", Goal(1.1, "joblib", most=True))
def miss(side: Side, functions: Memoised) -> Sampler:
    functions.train(**side.arguments())
    return lambda: side.fastest(lambda: functions.train(**side.arguments()))


@compare("memo: 10 MB array, again", Goal(5, "joblib"), rounds=0.3)
def array_again(side: Side, functions: Memoised) -> Sampler:
    data = np.random.default_rng(0).random(ARRAY)
    functions.total(data)
    return lambda: side.fastest(lambda: functions.total(data))


@compare("memo: 10 MB array, first sight", Goal(1.2, "joblib", most=True), rounds=0.3)
def array_at_first_sight(side: Side, functions: Memoised) -> Sampler:
    data = np.random.default_rng(0).random(ARRAY)

    def first() -> None:
        data[0] = next(side.seeds)
        functions.total(data)

    return lambda: side.fastest(first)
