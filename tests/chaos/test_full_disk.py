"""A full disk, or a file that may not grow: a clear error, nothing lost, and writing goes on once there is room."""

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos.processes import Child, wait_for
from chaos.values import same

from exca_like.cachedict import CacheDict, DumpContext
from exca_like.errors import CacheFolderError
from exca_like.maintenance import compact, verify


@DumpContext.register
class SharedText:
    """A handler as users write it, with a file that its entries share."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: str) -> dict[str, Any]:
        stream, name = ctx.shared_file(".text")
        start = stream.tell()
        for part in value.splitlines(keepends=True):
            stream.write(part.encode())
        return {"filename": name, "offset": start, "length": stream.tell() - start}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str, offset: int, length: int) -> str:
        return bytes(ctx.view(filename, offset, length)).decode()


HANDLERS = {
    "SharedText": lambda number: f"{number} a line\n" * 300 + "x" * 1000,
    "MemmapArray": lambda number: np.arange(1000) + number,
    "ContiguousMemmapArray": lambda number: np.arange(3000) + number,
    "NumpyArray": lambda number: np.arange(1500.0) - number,
    "NumpyMemmapArray": lambda number: np.arange(700.0) - number,
    "Json": lambda number: [f"{number}-{part}" for part in range(500)],
    "Auto": lambda number: {"a": (number, np.arange(900) + number), "b": ["x" * 2000, number]},
    "Pickle": lambda number: {"number": number, "text": "é" * 3000},
    "String": lambda number: f"{number}" * 2000,
    "inline": lambda number: f"{number}" * 150,
}


def handler_of(name: str) -> str | None:
    return None if name == "inline" else name


def as_written(value: Any) -> Any:
    """A loaded value as it was before it was stored."""
    return np.asarray(value) if type(value).__name__ in ("ContiguousMemmap", "memmap") else value


def fill(cache: CacheDict[Any], make: Callable[[int], Any], start: int, names: tuple[int, ...]) -> int:
    """Write entries until that is not possible; the error must be a clear one. Returns the number of the one that failed."""
    for number in range(start, start + 5000):
        try:
            cache[f"entry {number}"] = make(number)
        except CacheFolderError as error:
            check_error(error, cache, names)
            return number
    msg = "the disk does not get full"
    raise AssertionError(msg)


def check_error(error: CacheFolderError, cache: CacheDict[Any], numbers: tuple[int, ...]) -> None:
    assert isinstance(error, OSError)
    assert error.errno in numbers, repr(error)
    assert str(cache.folder) in str(error), "the file is not named"
    assert "space" in str(error), "what to do is not said"


def check_entries(folder: Path, make: Callable[[int], Any], numbers: set[int]) -> None:
    """A folder has just these entries, each of them whole."""
    cache = CacheDict[Any](folder)
    assert set(cache) == {f"entry {number}" for number in numbers}
    for number in numbers:
        assert same(as_written(cache[f"entry {number}"]), make(number))


def write_to_a_limit_and_on(folder: Path, name: str, numbers: tuple[int, ...], limits: Iterator[Callable[[], Any]]) -> int:
    """Meet limits in one block, again and again; each time there is room again, the rest is written."""
    make = HANDLERS[name]
    cache, plain = CacheDict[Any](folder, cache_type=handler_of(name)), CacheDict[Any](folder)
    number = 0
    written: set[int] = set()
    with cache.write(), plain.write():
        for free in limits:
            failed = fill(cache, make, number, numbers)
            written |= set(range(number, failed))
            assert f"entry {failed}" not in cache
            with pytest.raises(CacheFolderError):  # nothing has changed
                cache[f"entry {failed}"] = make(failed)
            check_entries(folder, make, written)
            with contextlib.suppress(CacheFolderError):  # something small may find room
                plain["small"] = failed
            assert CacheDict[Any](folder).get("small") == plain.get("small")
            free()
            if "small" in plain:
                del plain["small"]
            for number in range(failed, failed + 3):
                cache[f"entry {number}"] = make(number)
                written.add(number)
            number += 1
            check_entries(folder, make, written)
    with cache.write():
        cache["entry -1"] = make(-1)
    check_entries(folder, make, {*written, -1})
    verify(folder, repair=True)
    assert verify(folder).is_clean
    check_entries(folder, make, {*written, -1})
    compact(folder)
    check_entries(folder, make, {*written, -1})
    return len(written)


# a limit to the size of files


@contextlib.contextmanager
def size_limit(size: int) -> Iterator[Callable[[], None]]:
    """No file of this process may be larger; what is given lifts that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def in_a_process(function: Callable[..., None], *arguments: Any) -> None:
    """The limit would be one for the files of the test's own process, too."""
    wait_for([Child(function, *arguments)])


def meet_size_limits(send: Any, folder: Path, name: str, start: int) -> None:
    def limits() -> Iterator[Callable[[], Any]]:
        size = start
        for _ in range(4):
            with size_limit(size) as free:
                yield free
            files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            size = max(files) + start // 3 if name not in ("NumpyArray", "NumpyMemmapArray", "String") else start

    send(write_to_a_limit_and_on(folder, name, (errno.EFBIG,), limits()))


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize("start", [100, 4000, 30_000, 100_001])
def test_files_that_may_not_grow(tmp_path, name, start):
    if name in ("NumpyArray", "NumpyMemmapArray", "String") and start > 10_000:
        start = 1000 + start // 100  # a file of each entry reaches no larger size; its journal does, much later
    in_a_process(meet_size_limits, tmp_path / "cache", name, start)


def meet_each_byte(send: Any, folder: Path) -> None:
    """The limit is at each byte of a line, or of its data."""
    number = 0
    cache = CacheDict[Any](folder)
    written = {}
    with cache.write():
        cache["first"] = written["first"] = 1
        cache["first array"] = written["first array"] = np.arange(60)
        for value in ("a line", np.arange(50), {"a": np.arange(40)}):
            (journal,) = folder.glob("*-info.jsonl")
            (data,) = folder.glob("data/*.data")
            for above in [*range(0, 200, 3), 250, 300]:
                for size in (journal.stat().st_size, data.stat().st_size):
                    before = journal.read_bytes()
                    with size_limit(size + above):
                        try:
                            cache[f"entry {number}"] = value
                        except CacheFolderError as error:
                            check_error(error, cache, (errno.EFBIG,))
                            assert journal.read_bytes() == before, "half a line was left"
                            assert f"entry {number}" not in CacheDict[Any](folder)
                            cache_again = True
                        else:
                            cache_again = False
                    if cache_again:
                        cache[f"entry {number}"] = value
                    written[f"entry {number}"] = value
                    number += 1
    again = CacheDict[Any](folder)
    assert set(again) == set(written)
    assert all(same(again[key], value) for key, value in written.items())
    send(number)


def test_a_limit_at_each_byte(tmp_path):
    in_a_process(meet_each_byte, tmp_path / "cache")


def fail_to_delete(send: Any, folder: Path) -> None:
    cache = CacheDict[Any](folder)
    with cache.write():
        cache["a"] = np.arange(100)
        cache["b"] = np.arange(100)
        for change in (lambda: cache.__delitem__("a"), lambda: cache.put("a", 2, replace=True)):
            for size in (0, 20):
                with size_limit(size), pytest.raises(CacheFolderError) as caught:
                    change()
                check_error(caught.value, cache, (errno.EFBIG,))
                for reader in (cache, CacheDict[Any](folder)):
                    assert sorted(reader) == ["a", "b"]
                    assert same(reader["a"], np.arange(100))
        del cache["a"]
        assert list(CacheDict[Any](folder)) == ["b"]
        with size_limit(0):
            cache.clear()
        assert list(CacheDict[Any](folder)) == []
        cache["a"] = 3
    assert dict(CacheDict[Any](folder).items()) == {"a": 3}


def test_deletions_and_replacements(tmp_path):
    in_a_process(fail_to_delete, tmp_path / "cache")


def fail_in_memory_too(send: Any, folder: Path) -> None:
    cache = CacheDict[Any](folder, keep_in_ram=True)
    with cache.write(), size_limit(0) as free:
        with pytest.raises(CacheFolderError):
            cache["a"] = 1
        assert "a" not in cache
        assert cache.get("a") is None
        free()
        cache["a"] = 2
    assert cache["a"] == CacheDict[Any](folder)["a"] == 2


def test_what_is_not_written_is_not_in_memory(tmp_path):
    in_a_process(fail_in_memory_too, tmp_path / "cache")


def fail_to_compact(send: Any, folder: Path) -> None:
    expected = {}
    for writer in range(5):
        cache = CacheDict[Any](folder)
        with cache.write():
            for number in range(20):
                key = f"{writer}-{number}"
                cache[key] = expected[key] = np.arange(100) + number if number % 2 else number
    for size in (0, 1, 1000, 2000, 5000, 15_000, 30_000):
        with size_limit(size), contextlib.suppress(CacheFolderError):
            compact(folder)
        again = CacheDict[Any](folder)
        assert set(again) == set(expected)
        assert all(same(again[key], value) for key, value in expected.items())
    compact(folder)
    again = CacheDict[Any](folder)
    assert set(again) == set(expected)
    assert all(same(again[key], value) for key, value in expected.items())
    verify(folder, repair=True)
    assert verify(folder).is_clean


def test_compaction_without_room(tmp_path):
    in_a_process(fail_to_compact, tmp_path / "cache")


# a small file system


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount`; limits to the size of files are tested all the same")
    if result.returncode:
        pytest.skip(f"a small file system can't be mounted (needs root): {result.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class Filler:
    """A file that takes the room of a disk, but for some bytes."""

    def __init__(self, disk: Path) -> None:
        self.path = disk / "filler"

    def leave(self, room: int) -> None:
        status = os.statvfs(self.path.parent)
        left = max(0, status.f_bavail * status.f_frsize - room)
        with open(self.path, "ab") as stream:
            while left:
                count = min(left, 1 << 16)
                stream.write(bytes(count))
                left -= count

    def go(self) -> None:
        self.path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", HANDLERS)
def test_full_disk(tmp_path, name):
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        filler = Filler(disk)

        def limits() -> Iterator[Callable[[], Any]]:
            for room in (60_000, 0, 4096, 8192, 20_000, 12_288):
                filler.leave(room)
                yield filler.go

        number = write_to_a_limit_and_on(disk / "cache", name, (errno.ENOSPC,), limits())
        print(f"{name}: {number} entries")


def test_no_more_files(tmp_path):
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=40") as disk:
        for name in ("NumpyArray", "String"):
            folder = disk / name
            cache = CacheDict[Any](folder, cache_type=name)
            plain = CacheDict[Any](folder)
            with cache.write(), plain.write():
                plain["entry -1"] = HANDLERS[name](-1)
                failed = fill(cache, HANDLERS[name], 0, (errno.ENOSPC,))
                assert failed > 3
                plain[f"entry {failed}"] = HANDLERS[name](failed)  # needs no file of its own
                check_entries(folder, HANDLERS[name], set(range(-1, failed + 1)))
                with pytest.raises(CacheFolderError) as caught, CacheDict[Any](disk / "new").write() as new:
                    new["a"] = 1  # needs a folder
                assert caught.value.errno == errno.ENOSPC
                cache.clear()
                assert list(CacheDict[Any](folder)) == []
            assert fill_again(cache, name) > 2
            cache.clear()


def fill_again(cache: CacheDict[Any], name: str) -> int:
    with cache.write():
        return fill(cache, HANDLERS[name], 0, (errno.ENOSPC,))


def test_readers_and_removal_on_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        cache = CacheDict[Any](disk / "cache")
        with cache.write():
            failed = fill(cache, HANDLERS["MemmapArray"], 0, (errno.ENOSPC,))
            Filler(disk).leave(0)
            check_entries(disk / "cache", HANDLERS["MemmapArray"], set(range(failed)))
            with contextlib.suppress(CacheFolderError):  # a deletion takes a line
                del cache["entry 0"]
            assert set(CacheDict[Any](disk / "cache")) - {"entry 0"} == {f"entry {number}" for number in range(1, failed)}
            with contextlib.suppress(CacheFolderError):
                compact(disk / "cache")
            assert set(CacheDict[Any](disk / "cache")) - {"entry 0"} == {f"entry {number}" for number in range(1, failed)}
            cache.clear()
            Filler(disk).go()
            assert list(CacheDict[Any](disk / "cache")) == []
            cache["again"] = 1
        assert dict(CacheDict[Any](disk / "cache").items()) == {"again": 1}


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = CacheDict[Any](tmp_path / "file" / "cache")
    with cache.write(), pytest.raises(CacheFolderError, match="file/cache") as caught:
        cache["a"] = 1
    assert caught.value.errno == errno.ENOTDIR
