"""Compaction beside readers and writers: nothing lost, nothing back that was deleted, and no reader that notices."""

import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos.processes import Child, check, killed_at_the_end, receive_for, wait_for
from chaos.values import KINDS, Store, check_value, key_of, same, value_of

from exca_like.cachedict import CacheDict
from exca_like.maintenance import compact, verify

WEIGHTS = {"small": 6, "array": 3, "large": 0.3, "json": 6, "long": 2, "mixed": 2, "file": 1, "text": 1}


def journals(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jsonl"))


def content(folder: Path) -> dict[str, int]:
    return {key: check_value(key, value) for key, value in CacheDict[Any](folder).items()}


def write_keys(folder: Path, keys: list[str]) -> None:
    """Write entries, with a writer of their own."""
    store = Store(folder)
    for key in keys:
        with store.of(key).write():
            store.put(key, 1)


def delete_key(folder: Path, key: str) -> None:
    cache = CacheDict[Any](folder)
    with cache.write():
        del cache[key]


# what it does


def test_fewer_files_and_the_same_entries(tmp_path):
    keys = [key_of(kind, number) for number in range(12) for kind in KINDS]
    for number in range(12):
        write_keys(tmp_path, [key for key in keys if key.endswith(f":{number}")])
    for key in keys[::5]:
        delete_key(tmp_path, key)
    store = Store(tmp_path)
    for key in keys[1::5]:
        with store.of(key).write():
            store.put(key, 2, replace=True)
    expected = dict.fromkeys(keys, 1) | dict.fromkeys(keys[1::5], 2)
    for key in keys[::5]:
        del expected[key]
    del store
    before = CacheDict[Any](tmp_path)
    assert {key: check_value(key, value) for key, value in before.items()} == expected
    arrays = {key: before[key] for key in expected if key.startswith(("array", "large"))}
    many = len(journals(tmp_path))
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    compact(tmp_path)
    assert many > 20
    assert len(journals(tmp_path)) <= 2
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < size
    assert content(tmp_path) == expected
    assert {key: check_value(key, value) for key, value in before.items()} == expected
    assert all(check_value(key, array) == expected[key] for key, array in arrays.items()), (
        "an array that was mapped has changed"
    )
    assert verify(tmp_path).is_clean
    names = journals(tmp_path)
    compact(tmp_path)
    assert journals(tmp_path) == names, "there was nothing to do"


def test_readers_that_know_the_old_places(tmp_path):
    """A reader whose index is from before the compaction, without having read any value, finds them all."""
    keys = [key_of(kind, number) for number in range(5) for kind in KINDS]
    for key in keys:
        write_keys(tmp_path, [key])
    readers = [CacheDict[Any](tmp_path) for _ in range(3)]
    for reader in readers:
        assert len(reader) == len(keys)
    with readers[0].frozen_cache_folder():
        for _ in range(3):
            compact(tmp_path)
            write_keys(tmp_path, [f"json:{random.random()}"])
        assert all(check_value(key, readers[0][key]) == 1 for key in keys)
    assert all(check_value(key, value) == 1 for key, value in readers[1].items())
    compact(tmp_path)
    assert readers[2].missing(keys) == []


def test_writers_between_their_blocks(tmp_path):
    """A writer whose journals were moved between two blocks goes on, and may delete what it had written."""
    store = Store(tmp_path)
    keys = [key_of(kind, number) for kind in KINDS for number in range(3)]
    for number in range(3):
        for kind in KINDS:
            with store.of(kind).write():
                store.put(key_of(kind, number), 1)
        compact(tmp_path)
    assert content(tmp_path) == dict.fromkeys(keys, 1)
    for kind in KINDS:
        with store.of(kind).write() as cache:
            del cache[key_of(kind, 0)]
            store.put(key_of(kind, 1), 2, replace=True)
            del cache[key_of(kind, 2)]
            store.put(key_of(kind, 2), 3)
        compact(tmp_path)
    expected = {key_of(kind, number): number + 1 for kind in KINDS for number in (1, 2)}
    assert content(tmp_path) == expected
    assert {key: check_value(key, value) for key, value in store.cache.items()} == expected


def test_open_blocks(tmp_path):
    """What an open block has written stays where it is; what others did to it counts."""
    store = Store(tmp_path)
    caches = list(store.by_handler.values())
    blocks = [cache.write() for cache in caches]
    for block in blocks:
        block.__enter__()
    for kind in KINDS:
        for number in range(5):
            store.put(key_of(kind, number), 1)
    write_keys(tmp_path, [key_of(kind, "other") for kind in KINDS])
    for kind in KINDS:
        delete_key(tmp_path, key_of(kind, 0))
    other = Store(tmp_path)
    for kind in KINDS:
        with other.of(kind).write():
            other.put(key_of(kind, 1), 2, replace=True)
            other.put(key_of(kind, 2), 2, replace=True)
    for kind in KINDS:
        store.put(key_of(kind, 2), 3, replace=True)
    expected = {
        key_of(kind, number): version for kind in KINDS for number, version in {1: 2, 2: 3, 3: 1, 4: 1, "other": 1}.items()
    }
    assert content(tmp_path) == expected
    del other
    for _ in range(2):
        compact(tmp_path)
        assert content(tmp_path) == expected
    for kind in KINDS:
        store.put(key_of(kind, "late"), 1)
        expected[key_of(kind, "late")] = 1
    for block in blocks:
        block.__exit__(None, None, None)
    assert content(tmp_path) == expected
    compact(tmp_path)
    assert content(tmp_path) == expected
    assert len(journals(tmp_path)) <= 2
    assert verify(tmp_path).is_clean


def test_failures_and_meta_are_kept(tmp_path):
    from exca_like.cachedict.failures import Failure

    for number in range(4):
        cache = CacheDict[Any](tmp_path)
        with cache.write():
            cache.put(f"value {number}", np.arange(number * 100), meta={"number": number})
            cache.put_failure(f"failure {number}", Failure.of(ValueError(str(number))), meta={"number": -number})
            cache.put_failure(f"solved {number}", Failure.of(ValueError(str(number))))
            cache.put(f"solved {number}", number, replace=True)
    compact(tmp_path)
    cache = CacheDict[Any](tmp_path)
    for number in range(4):
        assert same(cache[f"value {number}"], np.arange(number * 100))
        assert cache.meta(f"value {number}") == {"number": number}
        failure = cache.failure(f"failure {number}")
        assert failure is not None
        assert repr(failure.exception()) == f"ValueError('{number}')"
        assert cache.meta(f"failure {number}") == {"number": -number}
        assert cache.failure(f"solved {number}") is None
        assert cache[f"solved {number}"] == number
    assert len(cache) == 8


def test_a_damaged_folder(tmp_path):
    """Damaged lines and entries go with a repair; all others stay, with their damaged neighbours in the same files."""
    for number in range(6):
        write_keys(tmp_path, [key_of(kind, number, part) for kind in ("array", "json", "long") for part in range(3)])
    (first, *_) = sorted(tmp_path.glob("*-info.jsonl"))
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(lines[0] + b"garbage\n" + b"".join(lines[1:]) + b'{"#key":"torn')
    before = CacheDict[Any](tmp_path)
    with pytest.warns(match="damaged"):
        expected = content(tmp_path)
    assert len(expected) == 54
    (left,) = compact(tmp_path)
    assert left.is_damaged and content(tmp_path) == expected
    verify(tmp_path, repair=True)
    assert content(tmp_path) == expected
    assert {key: check_value(key, value) for key, value in before.items()} == expected
    assert verify(tmp_path).is_clean


# beside others


def compact_until(send: Any, folder: Path, stop: Path) -> None:
    number = 0
    while not stop.exists():
        compact(folder)
        number += 1
    send(number)


def read_until(send: Any, folder: Path, stop: Path, stable: list[str], seed: int, how: str) -> None:
    """``stable`` are there all the time; all other entries come and go."""
    rng = random.Random(seed)
    cache = CacheDict[Any](folder)
    rounds = 0
    while not stop.exists():
        if how == "fresh":
            cache = CacheDict[Any](folder)
        for key in rng.sample(stable, min(20, len(stable))):
            assert key in cache, f"{key!r} is not there"
            assert check_value(key, cache[key]) == 1
        missing = cache.missing(stable)
        assert not missing, f"{len(missing)} of {len(stable)} entries are missing"
        if how == "items":
            found = Counter()
            for key, value in cache.items():
                check_value(key, value)
                found[key] += 1
            assert max(found.values()) == 1
            assert found.keys() >= set(stable), "an iteration skipped entries"
        rounds += 1
    send(rounds)


def add_until(send: Any, folder: Path, stop: Path) -> None:
    """Write new entries, each with a writer of its own."""
    keys: list[str] = []
    while not stop.exists():
        keys += [key_of(kind, "new", len(keys)) for kind in ("array", "json", "file")]
        write_keys(folder, keys[-3:])
        time.sleep(0.01)
    send(keys)


def write_until(send: Any, folder: Path, stop: Path, slot: int) -> None:
    """Write, delete, replace and write again; at the end, report what must be there."""
    rng = random.Random(slot)
    store = Store(folder)
    expected: dict[str, int] = {}
    highest: Counter[str] = Counter()
    number = 0
    while not stop.exists():
        if rng.random() < 0.1:
            store = Store(folder)  # and the old writer is gone
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        with store.of(kind).write() as cache:
            for _ in range(rng.choice([1, 3, 20])):
                choice = rng.random()
                mine = [key for key in expected if key.startswith(f"{kind}:")]
                if choice < 0.6 or not mine:
                    key = key_of(kind, "writer", slot, number)
                    number += 1
                    store.put(key, 1)
                    expected[key] = highest[key] = 1
                    continue
                key = rng.choice(mine)
                assert check_value(key, cache[key]) == expected[key]
                if choice < 0.75:
                    del cache[key]
                    del expected[key]
                    assert key not in cache
                elif choice < 0.9:
                    highest[key] += 1
                    store.put(key, highest[key], replace=True)
                    expected[key] = highest[key]
                else:
                    highest[key] += 1
                    del cache[key]
                    store.put(key, highest[key])
                    expected[key] = highest[key]
        time.sleep(rng.choice([0, 0.001, 0.01]))
    send((expected, sum(highest.values())))


def run_all(folder: Path, seconds: float, *, writers: int, compactors: int = 1, seed: int = 0) -> None:
    stop = folder.with_name("stop")
    stable = [key_of(kind, "stable", number) for kind in KINDS for number in range(5)]
    write_keys(folder, stable)
    compacting = [Child(compact_until, folder, stop) for _ in range(compactors)]
    readers = [
        Child(read_until, folder, stop, stable, seed + n, how) for n, how in enumerate(("items", "same", "fresh", "items"))
    ]
    writing = [Child(write_until, folder, stop, seed + slot) for slot in range(writers)]
    adding = Child(add_until, folder, stop)
    everybody = [*compacting, *readers, *writing, adding]
    with killed_at_the_end(everybody):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            receive_for(everybody, 0.1)
            check(everybody)
            assert all(child.is_running() for child in everybody)
        stop.touch()
        wait_for(everybody)
    expected = dict.fromkeys(stable, 1)
    for child in writing:
        expected |= child.items[0][0]
    expected |= dict.fromkeys(adding.items[0], 1)
    assert content(folder) == expected
    verify(folder, repair=True)
    assert verify(folder).is_clean
    assert content(folder) == expected
    compact(folder)
    assert content(folder) == expected
    print(
        f"{seconds} s: {sum(c.items[0] for c in compacting)} compactions, {sum(c.items[0][1] for c in writing)} writes, "
        f"{len(expected)} entries in the end, readers looked {[c.items[0] for c in readers]} times"
    )


def test_beside_readers(tmp_path):
    """With writers that add entries and go, so that there is always something to move: every look finds every entry."""
    run_all(tmp_path / "cache", 4, writers=0)


def test_beside_readers_and_writers(tmp_path):
    run_all(tmp_path / "cache", 5, writers=3)


def test_two_compactions_at_once(tmp_path):
    run_all(tmp_path / "cache", 4, writers=2, compactors=2, seed=10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 30, 40])
def test_beside_readers_and_writers_for_long(tmp_path, seed):
    run_all(tmp_path / "cache", 30, writers=3, compactors=1 + seed // 40, seed=seed)


def test_beside_threads_that_share_a_cache(tmp_path):
    """A look that one thread takes never hides entries from another one."""
    stable = [key_of(kind, number) for kind in KINDS for number in range(20)]
    write_keys(tmp_path / "cache", stable)
    stop = tmp_path / "stop"
    cache = CacheDict[Any](tmp_path / "cache")
    errors: list[BaseException] = []

    def run(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not stop.exists() and not errors:
                choice = rng.randrange(4)
                if choice == 0:
                    assert set(cache) >= set(stable), "an iteration skipped entries"
                elif choice == 1:
                    assert cache.missing(stable) == []
                elif choice == 2:
                    assert len(cache) >= len(stable)
                key = rng.choice(stable)
                assert key in cache
                assert check_value(key, cache[key]) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    others = [Child(compact_until, tmp_path / "cache", stop), Child(add_until, tmp_path / "cache", stop)]
    interval = sys.getswitchinterval()
    try:
        with killed_at_the_end(others):
            sys.setswitchinterval(1e-5)  # threads meet at more places
            for thread in threads:
                thread.start()
            receive_for(others, 4)
            stop.touch()
            for thread in threads:
                thread.join()
            wait_for(others)
    finally:
        stop.touch()
        sys.setswitchinterval(interval)
    assert not errors, errors[0]


def compact_once(send: Any, folder: Path) -> None:
    compact(folder)


def kill_compactions(folder: Path, rounds: int, seed: int) -> Counter[str]:
    """Kill a compaction at any moment: what was there is there, and a later one finishes the work."""
    rng = random.Random(seed)
    outcome: Counter[str] = Counter()
    expected: dict[str, int] = {}
    longest = 0.01
    for number in range(rounds):
        keys = [key_of(rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0], number, part) for part in range(20)]
        for start in range(0, 20, 5):
            write_keys(folder, keys[start : start + 5])
        expected |= dict.fromkeys(keys, 1)
        for key in rng.sample(sorted(expected), 5):
            delete_key(folder, key)
            del expected[key]
        store = Store(folder)
        for key in rng.sample(sorted(expected), 4):
            with store.of(key).write():
                expected[key] += 1
                store.put(key, expected[key], replace=True)
        del store
        start_time = time.monotonic()
        child = Child(compact_once, folder)
        limit = 60 if number % 4 == 0 else rng.random() * longest
        while child.is_running() and time.monotonic() < start_time + limit:
            time.sleep(0.0005)
        if child.is_running():
            child.kill()
            outcome["killed"] += 1
        else:
            longest = time.monotonic() - start_time
            outcome["finished"] += 1
        check([child])
        assert content(folder) == expected, f"round {number}"
        for key in rng.sample(sorted(expected), 2):  # the copies go, too
            delete_key(folder, key)
            del expected[key]
        assert content(folder) == expected, f"round {number}, after deletions"
    compact(folder)
    assert content(folder) == expected
    verify(folder, repair=True)
    assert verify(folder).is_clean
    assert content(folder) == expected
    outcome["entries"] = len(expected)
    return outcome


def test_killing_compactions(tmp_path):
    print(kill_compactions(tmp_path / "cache", 15, 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, None])
def test_killing_compactions_many_times(tmp_path, seed):
    seed = random.getrandbits(32) if seed is None else seed
    print(f"seed {seed}:", kill_compactions(tmp_path / "cache", 150, seed))


def test_nothing_is_left_behind(tmp_path):
    """Deleting everything and compacting leaves no data, and an empty folder that can be written to."""
    keys = [key_of(kind, number) for number in range(4) for kind in KINDS]
    write_keys(tmp_path, keys)
    for key in keys:
        delete_key(tmp_path, key)
    compact(tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(os.path.getsize(path) for path in left) == 0, left
    write_keys(tmp_path, keys)
    assert content(tmp_path) == dict.fromkeys(keys, 1)
    assert all(same(CacheDict[Any](tmp_path)[key], value_of(key, 1)) for key in keys)
