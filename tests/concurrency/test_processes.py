"""Many processes and threads on one folder: nothing lost, nothing mixed up, and no reader that notices."""

import copy
import gc
import multiprocessing
import os
import pickle
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos.processes import Child, in_threads, killed_at_the_end, wait_for
from chaos.values import KINDS, Store, check_value, key_of, same, value_of

from exca_like.cachedict import CacheDict
from exca_like.maintenance import verify

PLAIN = ("small", "array", "json", "long", "mixed")  # kinds that one CacheDict writes


def expect(folder: Path, expected: dict[str, int]) -> None:
    """A folder has just these entries, in these versions, for whoever looks."""
    cache = CacheDict[Any](folder)
    assert {key: check_value(key, value) for key, value in cache.items()} == expected
    assert len(cache) == len(expected)
    assert cache.missing([*expected, "other"]) == ["other"]


# many writers and readers


def write_in_threads(send: Any, folder: Path, process: int, threads: int, number: int) -> None:
    store = Store(folder)

    def run(thread: int) -> None:
        rng = random.Random(100 * process + thread)
        done = 0
        while done < number:
            with store.by_handler[None].write(), store.by_handler["NumpyArray"].write(), store.by_handler["String"].write():
                for _ in range(min(rng.choice([1, 10, 100]), number - done)):
                    kind = rng.choices(list(KINDS), [6, 3, 0.3, 6, 2, 2, 1, 1])[0]
                    key = key_of(kind, process, thread, done)
                    store.put(key, 1)
                    assert check_value(key, store.of(key)[key]) == 1
                    send(key)
                    done += 1

    in_threads(run, threads)


def iterate(send: Any, folder: Path, total: int, number: int) -> None:
    cache = CacheDict[Any](folder)
    before: set[str] = set()
    rounds = 0
    while len(before) < total:
        if number % 2:
            keys = list(cache)
            assert before <= set(keys), "entries vanished"
            new = [key for key in keys if key not in before]
            for key in new:
                check_value(key, cache[key])
            before.update(keys)
            time.sleep(0.02)
        else:
            found = {key: check_value(key, value) for key, value in cache.items()}
            assert before <= found.keys(), "entries vanished"
            before = set(found)
            cache = CacheDict[Any](folder) if rounds % 3 else cache
            time.sleep(0.1)
        rounds += 1
    assert set(cache.keys()) == before
    send(rounds)


def write_and_iterate(folder: Path, total: int, processes: int, threads: int) -> None:
    start = time.monotonic()
    each = total // processes // threads
    writers = [Child(write_in_threads, folder, process, threads, each) for process in range(processes)]
    readers = [Child(iterate, folder, each * processes * threads, number) for number in range(4)]
    with killed_at_the_end([*writers, *readers]):
        wait_for([*writers, *readers], 300)
    written = [key for writer in writers for key in writer.items]
    assert len(written) == len(set(written)) == each * processes * threads
    expect(folder, dict.fromkeys(written, 1))
    assert verify(folder).is_clean
    rounds = [reader.items[0] for reader in readers]
    print(f"{len(written)} entries, {processes} processes x {threads} threads, readers looked {rounds} times: ", end="")
    print(f"{time.monotonic() - start:.1f} s")


def test_writers_and_readers(tmp_path):
    write_and_iterate(tmp_path / "cache", 4000, processes=8, threads=4)


@pytest.mark.slow
def test_many_writers_and_readers(tmp_path):
    write_and_iterate(tmp_path / "cache", 20_000, processes=8, threads=4)


# the same keys


def write_the_same(send: Any, folder: Path, process: int, go: Path) -> None:
    cache = CacheDict[Any](folder)
    with cache.write():
        while not go.exists():
            time.sleep(0.001)
        for number in range(100):
            key = key_of(PLAIN[number % len(PLAIN)], number)
            try:
                cache[key] = value_of(key, process + 1)
            except ValueError:
                continue
            send((key, process + 1))


def read_the_same(send: Any, folder: Path) -> None:
    cache = CacheDict[Any](folder)
    send({key: check_value(key, value) for key, value in cache.items()})


def test_one_value_wins(tmp_path):
    """Of several values for one key, every reader sees the same one, and deleting the key deletes all of them."""
    folder, go = tmp_path / "cache", tmp_path / "go"
    writers = [Child(write_the_same, folder, process, go) for process in range(6)]
    with killed_at_the_end(writers):
        time.sleep(0.2)
        go.touch()
        wait_for(writers)
    written: dict[str, set[int]] = {}
    for key, version in (item for writer in writers for item in writer.items):
        written.setdefault(key, set()).add(version)
    assert max(map(len, written.values())) > 1, "the writers did not meet"
    readers = [Child(read_the_same, folder) for _ in range(3)]
    wait_for(readers)
    (first, *others) = [reader.items[0] for reader in readers]
    assert all(other == first for other in others)
    assert first.keys() == written.keys()
    assert all(version in written[key] for key, version in first.items())
    keys = sorted(first)
    cache = CacheDict[Any](folder)
    with cache.write():
        for key in keys[:40]:
            del cache[key]
        for key in keys[40:60]:
            cache.put(key, value_of(key, 99), replace=True)
    expect(folder, {**{key: first[key] for key in keys[60:]}, **dict.fromkeys(keys[40:60], 99)})


# fork


def write_as_child(send: Any, cache: CacheDict[Any], child: int, mark: str) -> None:
    for number in range(20):
        key = key_of(PLAIN[number % len(PLAIN)], mark, child, number)
        cache[key] = value_of(key, 1)
        assert check_value(key, cache[key]) == 1


def test_fork_in_a_block(tmp_path):
    """Children that are forked in a ``write`` block go on in it, beside their parent and each other."""
    cache = CacheDict[Any](tmp_path / "cache")
    expected = {}

    def write(mark: str) -> None:
        for number in range(20):
            key = key_of(PLAIN[number % len(PLAIN)], mark, number)
            cache[key] = value_of(key, 1)
            expected[key] = 1

    with cache.write():
        write("before")
        children = [Child(write_as_child, cache, child, "child") for child in range(6)]
        write("meanwhile")
        wait_for(children)
        write("after")
        for child in range(6):
            for number in range(20):
                key = key_of(PLAIN[number % len(PLAIN)], "child", child, number)
                assert check_value(key, cache[key]) == 1
                expected[key] = 1
    expect(tmp_path / "cache", expected)
    journals = list((tmp_path / "cache").glob("*-info.jsonl"))
    assert len(journals) == 7, "processes share a journal"


def leave_the_block(send: Any, cache: CacheDict[Any], block: Any) -> None:
    cache["large:child"] = value_of("large:child", 1)
    block.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="write"):
        cache["small:child"] = 1
    with cache.write():
        del cache["large:before"]


def test_a_child_leaves_the_block(tmp_path):
    cache = CacheDict[Any](tmp_path / "cache")
    block = cache.write()
    block.__enter__()
    cache["large:before"] = value_of("large:before", 1)
    kept = cache["large:before"]
    wait_for([Child(leave_the_block, cache, block)])
    cache["large:after"] = value_of("large:after", 1)
    block.__exit__(None, None, None)
    assert check_value("large:before", kept) == 1
    expect(tmp_path / "cache", {"large:child": 1, "large:after": 1})


def test_fork_beside_writing_threads(tmp_path):
    """Locks that other threads held at the moment of the fork don't stop the child."""
    cache = CacheDict[Any](tmp_path / "cache")
    stop = threading.Event()
    written: dict[str, int] = {}
    errors: list[BaseException] = []

    def run(thread: int) -> None:
        number = 0
        try:
            while not stop.is_set():
                key = key_of(PLAIN[number % len(PLAIN)], thread, number)
                with cache.write():
                    cache[key] = value_of(key, 1)
                written[key] = 1
                cache.refresh()
                number += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    expected = {}
    try:
        for child in range(30):
            with cache.write():
                wait_for([Child(write_as_child, cache, child, "forked")], 20)
            for number in range(20):
                expected[key_of(PLAIN[number % len(PLAIN)], "forked", child, number)] = 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors[0]
    expect(tmp_path / "cache", {**written, **expected})


def test_readers_after_a_fork(tmp_path):
    """Parent and children read the same files at the same time: none of them moves a position of the others."""
    cache = CacheDict[Any](tmp_path / "cache")
    keys = [key_of(PLAIN[number % len(PLAIN)], number) for number in range(300)]
    with cache.write():
        for key in keys:
            cache[key] = value_of(key, 1)
    cache = CacheDict[Any](tmp_path / "cache")
    assert len(cache) == 300
    children = [Child(read_all, cache, keys, seed) for seed in range(3)]
    read_all(None, cache, keys, 5)
    wait_for(children)


def read_all(send: Any, cache: CacheDict[Any], keys: list[str], seed: int) -> None:
    for _ in range(3):
        for key in random.Random(seed).sample(keys, len(keys)):
            assert check_value(key, cache[key]) == 1


# the first ones


def open_at_once(send: Any, folders: list[Path], process: int, go: Path) -> None:
    caches = [CacheDict[Any](folder) for folder in folders]
    while not go.exists():
        time.sleep(0.0005)
    for cache in caches:
        key = key_of(PLAIN[process % len(PLAIN)], process)
        assert key not in cache
        file = CacheDict[Any](cache.folder, cache_type="NumpyArray")
        with cache.write(), file.write():
            cache[key] = value_of(key, 1)
            file[f"file:{process}"] = value_of(f"file:{process}", 1)
        assert check_value(key, cache[key]) == 1


def test_many_open_an_empty_folder_at_once(tmp_path):
    folders = [tmp_path / f"parent {number}" / "cache" for number in range(15)]
    children = [Child(open_at_once, folders, process, tmp_path / "go") for process in range(12)]
    with killed_at_the_end(children):
        time.sleep(0.2)
        (tmp_path / "go").touch()
        wait_for(children)
    expected = {key: 1 for process in range(12) for key in (key_of(PLAIN[process % len(PLAIN)], process), f"file:{process}")}
    for folder in folders:
        expect(folder, expected)


# caches that are sent to other processes


def work_on_a_copy(cache: CacheDict[Any], process: int) -> tuple[int, bytes]:
    with cache.write():
        for number in range(30):
            key = key_of(PLAIN[number % len(PLAIN)], process, number)
            cache[key] = value_of(key, 1)
    return len(cache), pickle.dumps(cache)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_start_methods(tmp_path, method):
    cache = CacheDict[Any](tmp_path / "cache", keep_in_ram=True)
    with cache.write():
        cache["small:first"] = value_of("small:first", 1)
        cache["large:first"] = value_of("large:first", 1)
    assert len(pickle.dumps(cache)) < 1000, "a cache takes its values along"
    expected = {"small:first": 1, "large:first": 1}
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        results = pool.starmap(work_on_a_copy, [(cache, process) for process in range(4)])
        pool.close()
        pool.join()
    for process, (number, copied) in enumerate(results):
        assert number >= 32
        assert len(copied) < 1000
        for part in range(30):
            expected[key_of(PLAIN[part % len(PLAIN)], process, part)] = 1
    expect(tmp_path / "cache", expected)
    assert {key: check_value(key, value) for key, value in cache.items()} == expected
    again = copy.deepcopy(cache)
    assert {key: check_value(key, value) for key, value in again.items()} == expected


# threads on one CacheDict


def test_threads_share_a_cache(tmp_path):
    cache = CacheDict[Any](tmp_path / "cache")
    errors: list[BaseException] = []
    expected: dict[str, int] = {}
    names = [f"json:{number}" for number in range(200)]

    def run(thread: int) -> None:
        rng = random.Random(thread)
        try:
            for number in range(150):
                key = key_of(PLAIN[number % len(PLAIN)], thread, number)
                with cache.write():
                    cache[key] = value_of(key, 1)
                    expected[key] = 1
                    if number % 5 == 4:
                        del cache[key]
                        del expected[key]
                    elif number % 7 == 6:
                        cache.put(key, value_of(key, 2), replace=True)
                        expected[key] = 2
                for other, value in cache.items() if number % 20 == 0 else ():
                    check_value(other, value)
                other = rng.choice(names)
                assert cache.get(other) is None
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    expect(tmp_path / "cache", expected)


def test_first_entries_of_many_threads(tmp_path):
    """Threads that begin at the same moment, each with a journal that the CacheDict does not know yet."""
    interval = sys.getswitchinterval()
    found: list[dict[str, Any]] = []
    sys.setswitchinterval(1e-6)  # threads meet at more places
    try:
        for number in range(150):
            cache = CacheDict[Any](tmp_path / str(number))
            go = threading.Barrier(8)
            values: dict[str, Any] = {}
            found.append(values)

            def run(
                thread: int, cache: CacheDict[Any] = cache, go: threading.Barrier = go, values: dict[str, Any] = values
            ) -> None:
                with cache.write():
                    go.wait()
                    cache[f"json:{thread}"] = thread
                    values[f"json:{thread}"] = cache.get(f"json:{thread}")

            threads = [threading.Thread(target=run, args=(thread,)) for thread in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            values.update((f"again:{key}", value) for key, value in cache.items())
    finally:
        sys.setswitchinterval(interval)
    expected = {f"json:{thread}": thread for thread in range(8)}
    expected |= {f"again:{key}": thread for key, thread in expected.items()}
    assert [values for values in found if values != expected] == []


def test_a_cleared_folder_is_written_on(tmp_path):
    """What is written after somebody else has cleared the folder is there, in an open block, too."""
    cache, other = CacheDict[Any](tmp_path / "cache"), CacheDict[Any](tmp_path / "cache")
    with cache.write():
        cache["a"] = 1
        cache["array"] = np.arange(100)
        other.clear()
        cache["b"] = 2
        cache["another array"] = np.arange(100)
    again = CacheDict[Any](tmp_path / "cache")
    assert again.get("b") == 2
    assert same(again.get("another array"), np.arange(100))
    assert set(again) == {"b", "another array"}


def test_many_caches_leave_no_open_files(tmp_path):
    """Journals that were read, and blocks that have ended, keep a bounded number of files open."""
    descriptors = "/proc/self/fd"
    if not os.path.isdir(descriptors):
        pytest.skip("there is no /proc")
    before = len(os.listdir(descriptors))
    caches = []
    for number in range(400):
        cache = CacheDict[Any](tmp_path / str(number))
        with cache.write():
            cache["array"] = np.arange(100) + number
            cache["b"] = "x" * 5000
        caches.append(cache)
    for number, cache in enumerate(caches):
        assert CacheDict[Any](cache.folder)["b"] == cache["b"] == "x" * 5000
        assert cache["array"][0] == number
    assert len(os.listdir(descriptors)) < before + 700
    del caches, cache
    gc.collect()
