"""Data files, mapped into memory once per process, and the checksums of what is read from them.

A *span* is a piece of a file: where it starts, how long it is, and its checksums: one CRC-32 for up to 64 KiB, else
one for its first and one for its last 64 KiB, followed by one for each MiB; each as 8 hex digits, one after the other.
"""

import contextlib
import errno
import mmap
import os
import stat
import threading
from collections.abc import Callable
from typing import Any, Literal
from zlib import crc32

from exca_like.errors import CacheFolderError, CorruptEntryError

Check = Literal["full", "edges"]
Buffer = bytes | bytearray | memoryview

EDGE = 64 << 10  # bytes; spans up to this size are checked at each load
BLOCK = 1 << 20
LARGE = 1 << 30  # bytes; of larger spans, only the edges are checked before `verify`
_DIGITS = 8
_MAX_MAPS = 256
_RESIDENT = 256 << 20  # bytes that are read by mapping before their pages are let go of
_handed_out = 0
_THREADS = min(4, os.cpu_count() or 1)
_WORTH_THREADS = 16 << 20  # bytes


def sums_of(data: Buffer) -> str:
    """Checksums of a span."""
    length = len(data)
    if length <= EDGE:
        return _text([crc32(data)])
    view = memoryview(data).cast("B")
    return _text(_sums(lambda start, end: crc32(view[start:end]), length))


def _open(path: str) -> int:
    """Open a data file; whatever is there in place of a file, it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        if isinstance(error, FileNotFoundError):
            raise
        msg = f"can't read {path}: {error.strerror}. Check its permissions and the file system."
        raise CacheFolderError(error.errno, msg) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no file", path)
    return descriptor


def sums_of_file(path: str, offset: int = 0, length: int | None = None) -> tuple[int, str]:
    """Length and checksums of a span of a file, which is not mapped for it: that would count as memory in use."""
    descriptor = _open(path)
    try:
        size = os.fstat(descriptor).st_size
        length = size - offset if length is None else length
        if size < offset + length:
            raise TooShortError(path, size, offset, length)
        return length, _text(_sums(_crc_of(descriptor, offset), length))
    finally:
        os.close(descriptor)


def _sums(crc_of: Callable[[int, int], int], length: int, *, only_edges: bool = False) -> list[int]:
    """Checksums of a span of some length, from a function that gives those of its parts."""
    if length <= EDGE:
        return [crc_of(0, length)]
    edges = [crc_of(0, EDGE), crc_of(length - EDGE, length)]
    if only_edges:
        return edges
    starts = range(0, length, BLOCK)
    if length < _WORTH_THREADS:
        return edges + [crc_of(start, min(start + BLOCK, length)) for start in starts]
    from concurrent.futures import ThreadPoolExecutor  # crc32 and reading work without the interpreter's lock

    with ThreadPoolExecutor(_THREADS) as pool:
        return edges + list(pool.map(lambda start: crc_of(start, min(start + BLOCK, length)), starts))


def _crc_of(descriptor: int, offset: int) -> Callable[[int, int], int]:
    local = threading.local()

    def crc_of(start: int, end: int) -> int:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(BLOCK))
        crc, place, last = 0, offset + start, offset + end
        while place < last:
            count = os.preadv(descriptor, [local.buffer[: min(BLOCK, last - place)]], place)
            if not count:
                break
            crc, place = crc32(local.buffer[:count], crc), place + count
        return crc

    return crc_of


def _text(sums: list[int]) -> str:
    return "".join(f"{number:08x}" for number in sums)


class _Map:
    """A file in memory, read-only."""

    __slots__ = ("checked", "identity", "map", "owner", "size", "view")

    def __init__(self, path: str) -> None:
        descriptor = _open(path)
        try:
            status = os.fstat(descriptor)
            self.identity = (status.st_dev, status.st_ino)
            self.owner = status.st_uid
            self.size = status.st_size
            self.map: Any = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ) if self.size else b""
        finally:
            os.close(descriptor)
        self.view = memoryview(self.map)
        self.checked: set[tuple[int, int, bool]] = set()  # spans, and whether only their edges were checked

    def crc_of(self, offset: int) -> Callable[[int, int], int]:
        """A function for the checksums of parts of a span; the parts don't stay in this process's memory."""

        def crc_of(start: int, end: int) -> int:
            crc = crc32(self.view[offset + start : offset + end])
            first = (offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
            self.map.madvise(mmap.MADV_DONTNEED, first, offset + end - first)
            return crc

        return crc_of

    def is_whole(self) -> bool:
        """Whether the file is still as long as it was: reading behind its end would kill the process."""
        return not self.size or self.map.size() >= self.size


_maps: dict[str, _Map] = {}


def _mapped(path: str, end: int) -> _Map:
    """The map of a file, at least up to an offset if the file is that long."""
    known = _maps.get(path)
    if known is not None and known.size >= end and known.is_whole():
        return known
    new = _Map(path)
    if known is not None and known.identity == new.identity and known.size <= new.size:
        new.checked = known.checked
    _maps.pop(path, None)
    _maps[path] = new
    if len(_maps) > _MAX_MAPS:
        with contextlib.suppress(RuntimeError, KeyError):  # another thread does it
            del _maps[next(iter(_maps))]
    return new


def _has_changed(path: str, known: _Map) -> bool:
    """Whether there is another file under the name now."""
    try:
        status = os.stat(path)
    except OSError:
        return True
    return (status.st_dev, status.st_ino) != known.identity


def forget(folder: str) -> None:
    """Let go of the files that were removed from a folder: they take up space as long as they are mapped."""
    for path in [path for path in list(_maps) if path.startswith(f"{folder}/") and not os.path.exists(path)]:
        _maps.pop(path, None)


def renew(path: str) -> None:
    """Let go of a file if there is another one under its name by now."""
    known = _maps.get(path)
    if known is not None and _has_changed(path, known):
        _maps.pop(path, None)


def owner_of(path: str) -> int:
    """The user that owns the file which is mapped under a path."""
    return _mapped(path, 0).owner


def view_of(path: str, offset: int, length: int) -> memoryview:
    """A view of a span, not checked but for its length.

    Raises
    ------
    CorruptEntryError
        The file is too short.
    FileNotFoundError
        It is not there.
    """
    found = _mapped(path, offset + length)
    if offset < 0 or length < 0 or found.size < offset + length:
        raise TooShortError(path, found.size, offset, length)
    _let_go_of(length)
    return found.view[offset : offset + length]


def _let_go_of(length: int) -> None:
    """Keep what was read by mapping from counting as this process's memory for ever: it stays in the system's cache."""
    global _handed_out  # noqa: PLW0603 - of the process, as its memory is
    _handed_out += length
    if _handed_out > _RESIDENT:
        _handed_out = 0
        for found in list(_maps.values()):
            if found.size:
                found.map.madvise(mmap.MADV_DONTNEED)


def check(path: str, offset: int, length: int, sums: str, how: Check = "full", *, fresh: bool = False) -> None:
    """Check a span as its size asks for: up to 64 KiB always; larger ones once per process, and above 1 GiB their edges.

    ``fresh`` says that the file may have been replaced by another one, as it is not mapped but opened when it is read.

    Raises
    ------
    CorruptEntryError
        The file is too short, or a checksum does not match.
    FileNotFoundError
        The file is not there.
    """
    if length > EDGE or fresh:
        renew(path)
    view = view_of(path, offset, length)
    if length <= EDGE:
        if b"%08x" % crc32(view) != sums.encode():
            raise mismatch(path, offset, length)
        return
    known = _mapped(path, offset + length)
    only_edges = how == "edges" or length > LARGE
    if (offset, length, False) in known.checked or (offset, length, only_edges) in known.checked:
        return
    found = _text(_sums(known.crc_of(offset), length, only_edges=only_edges))
    if found != sums[: len(found)] or (not only_edges and len(found) != len(sums)):
        raise mismatch(path, offset, length)
    known.checked.add((offset, length, only_edges))


def check_all(path: str, offset: int, length: int, sums: str) -> None:
    """Check every byte of a span, read from the file now.

    Raises
    ------
    CorruptEntryError
        The file is too short, or a checksum does not match.
    """
    if sums_of_file(path, offset, length)[1] != sums:
        raise mismatch(path, offset, length)


def block_at(sums: str, length: int, start: int) -> tuple[int, int, str]:
    """Start, end and checksum of the piece of a span that begins at ``start`` and can be checked by itself."""
    if length <= EDGE:
        return 0, length, sums
    number = 2 + start // BLOCK
    return start, min(start + BLOCK, length), sums[number * _DIGITS : (number + 1) * _DIGITS]


class TooShortError(CorruptEntryError):
    """A file ends before a span does."""

    def __init__(self, path: str, size: int, offset: int, length: int) -> None:
        super().__init__(f"{path} is {size} bytes long, but bytes {offset} to {offset + length} were stored in it")


def mismatch(path: str, offset: int, length: int) -> CorruptEntryError:
    """The error of a span that is not what was stored."""
    return CorruptEntryError(f"bytes {offset} to {offset + length} of {path} do not match their checksum")
