"""Writers are killed at any moment: what they had written is there, and nobody else notices."""

import os
import random
import time
from collections import defaultdict
from typing import Any

import pytest
from chaos.processes import Child, check, killed_at_the_end, receive_for, wait_for
from chaos.values import KINDS, Store, check_value, key_of

from exca_like.cachedict import CacheDict
from exca_like.maintenance import compact, verify

WRITERS = 4
GONE = 0  # the version of an entry that is not there
WEIGHTS = {"small": 6, "array": 4, "large": 1, "json": 6, "long": 3, "mixed": 2, "file": 3, "text": 2}


class Writing:
    """What one writer may touch, as the parent knows it: no other writer touches these keys."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.generation = 0
        self.versions: dict[str, int] = {}  # key -> version that is there, or GONE
        self.doubtful: dict[str, set[int]] = {}  # keys that somebody was busy with when he was killed
        self.highest: dict[str, int] = defaultdict(int)

    def take_in(self, items: list[Any], *, killed: bool) -> None:
        """Note what a writer reported: ``(key, version)`` before it starts with a key, ``None`` when that has returned."""
        busy: tuple[str, int] | None = None
        for item in items:
            if item is not None:
                busy = item
                self.highest[item[0]] = max(self.highest[item[0]], item[1])
            elif busy is not None:
                self.versions[busy[0]] = busy[1]
                busy = None
        if busy is not None:
            assert killed, "a writer ended in the middle of a write"
            self.doubtful[busy[0]] = {self.versions.pop(busy[0], GONE), busy[1]}


def write_for_ever(send: Any, store: Store, writing: Writing, seed: int) -> None:
    rng = random.Random(seed)
    versions, highest = dict(writing.versions), defaultdict(int, writing.highest)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    number = 0
    while True:
        caches = {id(cache): cache for cache in store.by_handler.values()}.values()
        blocks = [cache.write() for cache in caches]
        for block in blocks:
            block.__enter__()
        for _ in range(rng.choice([1, 5, 40])):
            choice = rng.random()
            live = [key for key in rng.sample(sorted(versions), min(3, len(versions))) if versions[key] != GONE]
            if choice < 0.7 or not live:
                key, version = key_of(rng.choices(kinds, weights)[0], writing.slot, writing.generation, number), 1
                number += 1
            elif choice < 0.8:
                key, version = live[0], GONE
            else:
                key, version = live[0], highest[live[0]] + 1
            send((key, version))
            if version == GONE:
                del store.of(key)[key]
            elif choice >= 0.9 and key in versions:
                store.put(key, version, replace=True)
            else:
                if key in versions:
                    send((key, GONE))
                    del store.of(key)[key]
                    send(None)
                    send((key, version))
                store.put(key, version)
            send(None)
            versions[key], highest[key] = version, max(version, highest[key])
        for block in blocks:
            block.__exit__(None, None, None)


def read_for_ever(send: Any, folder: str, stop: str, seed: int) -> None:
    rng = random.Random(seed)
    cache = CacheDict[Any](folder)
    while not os.path.exists(stop):
        if rng.random() < 0.3:
            cache = CacheDict[Any](folder)
        keys = list(cache)
        for key in rng.sample(keys, min(200, len(keys))):
            value = cache.get(key)
            if value is not None:  # else it was deleted meanwhile
                check_value(key, value)
        if rng.random() < 0.1:
            for key, value in cache.items():
                check_value(key, value)
        send(len(keys))


def check_all(folder: str, writings: list[Writing]) -> int:
    """Every entry is as its writer had reported; returns their number."""
    cache = CacheDict[Any](folder)
    found = {key: check_value(key, value) for key, value in cache.items()}
    expected = {key: version for writing in writings for key, version in writing.versions.items() if version != GONE}
    doubtful = {key: allowed for writing in writings for key, allowed in writing.doubtful.items()}
    lost = [key for key in expected if key not in found]
    assert not lost, f"{len(lost)} entries are lost: {lost[:5]}"
    for key, version in found.items():
        if key in doubtful:
            assert version in doubtful[key], f"{key!r} has version {version}, but should have one of {doubtful[key]}"
        else:
            assert expected.get(key, GONE) == version, f"{key!r} has version {version}, not {expected.get(key, GONE)}"
    for key, allowed in doubtful.items():
        assert key in found or GONE in allowed, f"{key!r} is lost"
    assert len(cache) == len(found)
    return len(expected)


def kill_writers(folder: str, rounds: int, seed: int, *, compacting: bool) -> dict[str, float]:
    rng = random.Random(seed)
    start = time.monotonic()
    writings = [Writing(slot) for slot in range(WRITERS)]
    store = Store(folder)
    children: dict[int, Child] = {}
    stop = f"{folder}-stop"
    everybody: list[Child] = []

    def begin(slot: int) -> None:
        writings[slot].generation += 1
        children[slot] = Child(write_for_ever, store, writings[slot], rng.getrandbits(32))
        everybody.append(children[slot])

    with killed_at_the_end(everybody):
        for slot in range(WRITERS):
            begin(slot)
        others = [Child(read_for_ever, folder, stop, rng.getrandbits(32)) for _ in range(2)]
        if compacting:
            others.append(Child(compact_for_ever, folder, stop))
        everybody.extend(others)
        for _ in range(rounds):
            receive_for(everybody, rng.choice([0.002, 0.02, 0.06]) * rng.random())
            slot = rng.randrange(WRITERS)
            check([children[slot]])
            assert children[slot].is_running()
            children[slot].kill()
            writings[slot].take_in(children[slot].items, killed=True)
            children[slot].received.clear()
            store.refresh()  # from which the next one starts
            begin(slot)
            if compacting and rng.random() < 0.2:
                others[-1].kill()
                others[-1] = Child(compact_for_ever, folder, stop)
                everybody.append(others[-1])
        receive_for(everybody, 0.05)
        for slot, child in children.items():
            check([child])
            child.kill()
            writings[slot].take_in(child.items, killed=True)
        with open(stop, "w"):
            pass
        wait_for(others)
    number = check_all(folder, writings)
    report = verify(folder)
    unclean = not report.is_clean
    if unclean:
        verify(folder, repair=True)
        report = verify(folder)
        assert report.is_clean, f"a repair left {report}"
        assert check_all(folder, writings) == number
    compact(folder)
    assert check_all(folder, writings) == number
    assert verify(folder).is_clean
    return {"rounds": rounds, "entries": number, "unclean": unclean, "seconds": round(time.monotonic() - start, 1)}


def compact_for_ever(send: Any, folder: str, stop: str) -> None:
    while not os.path.exists(stop):
        compact(folder)
        send(1)
        time.sleep(0.005)


def test_kinds_are_all_written():
    assert WEIGHTS.keys() == KINDS.keys()


@pytest.mark.parametrize("compacting", [False, True], ids=["writers", "writers and compactions"])
@pytest.mark.parametrize("seed", [1])
def test_killing_writers(tmp_path, seed, compacting):
    print(f"seed {seed}:", kill_writers(str(tmp_path / "cache"), 25, seed, compacting=compacting))


@pytest.mark.slow
@pytest.mark.parametrize("compacting", [False, True], ids=["writers", "writers and compactions"])
@pytest.mark.parametrize("seed", [None, 2, 3, 4])
def test_killing_writers_many_times(tmp_path, seed, compacting):
    seed = random.getrandbits(32) if seed is None else seed
    print(f"seed {seed}:", kill_writers(str(tmp_path / "cache"), 100, seed, compacting=compacting))
