"""What is measured of maps: `MapInfra` beside exca's, joblib's memoized function, and plain computation.

Annotations are no texts here, as exca looks at those of the method.
"""

import importlib
import itertools
import shutil
import subprocess
import sys
import textwrap
import time
import typing as tp

import numpy as np
import pydantic
from bench_cases import Goal, Limit, Sampler, Side, case

CLAIMED = 100_000
LIVE = 50
MILLION = 1_000_000
ITEM_S = 0.02  # CPU time of an item, for the process pool

_classes: dict[str, type[pydantic.BaseModel]] = {}


def features(item: int) -> np.ndarray:
    return np.full(16, item, dtype=np.float32)


def map_class(library: str) -> type[pydantic.BaseModel]:
    if library not in _classes:
        module = importlib.import_module(library)

        class Features(pydantic.BaseModel):
            size: int = 16
            infra: module.MapInfra = module.MapInfra(version="1")  # type: ignore[name-defined]

            @infra.apply(item_uid=str)
            def process(self, items: list[int]) -> tp.Iterator[np.ndarray]:
                for item in items:
                    yield features(item)

        _classes[library] = Features
    return _classes[library]


def a_map(side: Side, folder: tp.Any, **infra: tp.Any) -> tp.Any:
    return map_class(side.name)(infra={"folder": str(folder), "keep_in_ram": False, **infra})


def consume(results: tp.Iterable[tp.Any]) -> None:
    for _ in results:
        pass


def joblib_items(side: Side) -> Sampler:
    cached, numbers = importlib.import_module("joblib").Memory(side.folder, verbose=0).cache(features), itertools.count()

    def sample() -> float:
        started = time.perf_counter()
        for _ in range(20):
            cached(next(numbers))
        return (time.perf_counter() - started) / 20

    sample()
    return sample


def joblib_hits(side: Side) -> Sampler:
    cached = importlib.import_module("joblib").Memory(side.folder, verbose=0).cache(features)
    cached(0)
    return lambda: side.fastest(lambda: cached(0))


@case("map: compute + store, per item", Goal(8), rounds=0.5, joblib=joblib_items)
def compute_items(side: Side) -> Sampler:
    places = itertools.count()

    def sample() -> float:
        place = side.folder / str(next(places))
        config = a_map(side, place)
        started = time.perf_counter()
        consume(config.process(range(side.tasks)))
        seconds = time.perf_counter() - started
        shutil.rmtree(place)
        return seconds / side.tasks

    return sample


@case("map: hit, fresh object, disk, per item", Goal(4), rounds=0.5, joblib=joblib_hits)
def hit_items(side: Side) -> Sampler:
    consume(a_map(side, side.folder).process(range(side.tasks)))

    def sample() -> float:
        config = a_map(side, side.folder)
        started = time.perf_counter()
        consume(config.process(range(side.tasks)))
        return (time.perf_counter() - started) / side.tasks

    return sample


@case("map: single-item call, hit", Goal(4), joblib=joblib_hits)
def hit_one(side: Side) -> Sampler:
    config = a_map(side, side.folder)
    consume(config.process(range(100)))
    return lambda: side.fastest(lambda: consume(config.process([5])), 20)


def claim_all(folder: tp.Any, prefix: str) -> tp.Any:
    claims = importlib.import_module("exca_like.cachedict.claims")
    folder_claims = claims.FolderClaims(str(folder), "lock", lambda _: False)
    (claim,), _ = folder_claims.claim([f"{prefix}-{number}" for number in range(CLAIMED)], lambda free: [free])
    return claim


def claiming(side: Side) -> Sampler:
    def sample() -> float:
        started = time.perf_counter()
        claim = claim_all(side.folder, "item")
        seconds = time.perf_counter() - started
        claim.close()
        return seconds

    return sample


case("claim 100,000 items, alone", Limit(0.2), rounds=0.1, ours_only=True)(claiming)


@case("claim 100,000 items against 50 x 100,000", Limit(0.5), rounds=0.1, ours_only=True)
def claim_against(side: Side) -> Sampler:
    side.live = [claim_all(side.folder, f"other-{number}") for number in range(LIVE)]  # type: ignore[attr-defined]
    return claiming(side)


PLAN = """
import re, sys, time, typing, pydantic, exca_like
from exca_like.cachedict import CacheDict

class Numbers(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str)
    def process(self, items: typing.List[int]) -> typing.Iterator[int]:
        yield from items

config = Numbers(infra={{"folder": {folder!r}}})
number = {number}
if sys.argv[1] == "fill":
    config.infra.uid_folder(create=True)
    with config.infra.cache_dict.write() as cache:
        for item in range(number):
            if item % 10:
                cache[str(item)] = item
else:
    started = time.perf_counter()
    results = iter(config.process(range(number)))
    first = next(results)  # planned, claimed, and the first one computed
    seconds = time.perf_counter() - started
    peak = int(re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]) * 1024
    results.close()
    print(seconds, peak)
"""


def planning(side: Side) -> tp.Callable[[], tuple[float, float]]:
    number = MILLION if side.tasks >= 1000 else MILLION // 100
    path = side.folder / "plan.py"
    path.write_text(textwrap.dedent(PLAN.format(folder=str(side.folder / "cache"), number=number)))
    subprocess.run([sys.executable, path, "fill"], check=True, cwd=side.folder)

    def run() -> tuple[float, float]:
        shown = subprocess.run(
            [sys.executable, path, "plan"], check=True, cwd=side.folder, capture_output=True, text=True
        ).stdout
        seconds, peak = map(float, shown.split())
        return seconds, peak

    return run


@case("map of 1,000,000 items, 90 % cached: to the first result", Limit(10), rounds=0.05, ours_only=True)
def plan_seconds(side: Side) -> Sampler:
    run = planning(side)
    return lambda: run()[0]


@case("map of 1,000,000 items, 90 % cached: peak memory", Limit(0.7, "GB"), rounds=0.03, ours_only=True, unit="GB")
def plan_memory(side: Side) -> Sampler:
    run = planning(side)
    return lambda: run()[1] / 1e9


def busy(seconds: float) -> None:
    started = time.process_time()
    while time.process_time() - started < seconds:
        pass


def one_process(side: Side) -> Sampler:
    """The same items, one after the other, in this process."""
    number = pool_items(side)

    def sample() -> float:
        started = time.perf_counter()
        for _ in range(number):
            busy(ITEM_S)
        return time.perf_counter() - started

    return sample


def pool_items(side: Side) -> int:
    return 200 if side.tasks >= 1000 else 8


class Busy(pydantic.BaseModel):
    infra: importlib.import_module("exca_like").MapInfra = importlib.import_module("exca_like").MapInfra(cluster="processpool")  # type: ignore[valid-type]

    @infra.apply(item_uid=str)
    def process(self, items: list[int]) -> tp.Iterator[int]:
        for item in items:
            busy(ITEM_S)
            yield item


@case("processpool: 20 ms items on 2 cores", Goal(1 / 1.7, "floor", most=True), rounds=0.1, ours_only=True, floor=one_process)
def pool(side: Side) -> Sampler:
    places, number = itertools.count(), pool_items(side)

    def sample() -> float:
        config = Busy(infra={"folder": str(side.folder / str(next(places)))})
        started = time.perf_counter()
        consume(config.process(range(number)))
        return time.perf_counter() - started

    return sample
