"""Journals: the files that say what a folder holds.

Each writer appends to journals of its own and never touches those of others; a line is one ``write``. Journals of exca,
known by their names, have lines without checksums, and may be edited.
"""

import contextlib
import functools
import os
import re
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from exca_like import user_warnings
from exca_like.errors import CorruptEntryWarning

INFO, DELETED, FAILED = JOURNALS = ("-info.jsonl", "-deleted.jsonl", "-failed.jsonl")

WRITER = r".+-[0-9]+-[0-9a-f]{16}"
OWN_JOURNAL = re.compile(rf"({WRITER})(-info|-deleted|-failed)\.jsonl")

NEAR = 8192  # bytes read at a time for single lines: the next ones are often asked for next
KEPT = 32768  # bytes of a journal that are kept in memory from when it was indexed, if it has no more

_SETTLED_S = 2.0  # seconds; coarser than the time stamps of any file system in use
_TICK_NS = 10_000_000  # at most, of the clock that Linux stamps files with
_STAMPED_HERE = {b"ext4", b"xfs", b"btrfs", b"tmpfs"}  # file systems on which that clock, of this machine, does it


class Listing:
    """Names of the journals in a folder.

    It is listed unless that can't tell anything new: it has not changed since it was listed, and had not changed for a while
    then, so that a later change would show in its time stamp, coarse as it may be. The while is two ticks of the clock if
    that is this machine's, else two seconds.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        # the names, and the folder's inode and time of change if they need not be listed again; at once, for other threads
        self._known: tuple[list[str] | None, tuple[int, int] | None] = None, None
        self._state: tuple[int, int] | None = None
        self._since = 0.0

    def names(self) -> list[str]:
        """The names now; an OSError if the folder can't be read."""
        names, listed = self._known
        state, is_settled = None, False
        if names is not None:  # else it is the first look
            status = os.stat(self.folder)
            state = (status.st_ino, status.st_mtime_ns)
            if state == listed:
                return names
            is_settled = _is_settled(status)
        now = time.monotonic()
        if state != self._state:
            self._since = now  # first, as other threads may look at the same time
            self._state = state
        names = [name for name in os.listdir(self.folder) if name.endswith(JOURNALS)]
        self._known = names, state if is_settled or now - self._since > _SETTLED_S else None
        return names


def _is_settled(folder: os.stat_result) -> bool:
    """Whether each change of a folder from now on shows in its time stamp, as far as the clock that makes it is known."""
    stamp = folder.st_mtime_ns
    # a stamp of whole ticks may be a coarse one
    return time.time_ns() - stamp > 2 * _TICK_NS and stamp % _TICK_NS != 0 and _is_stamped_here(folder.st_dev)


@functools.lru_cache
def _is_stamped_here(device: int) -> bool:
    """Whether a file system is of a kind that no other machine changes or stamps; False if that is not known."""
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            rows = [line.split() for line in mounts]
    except OSError:
        return False
    name = f"{os.major(device)}:{os.minor(device)}".encode()
    kinds = {row[row.index(b"-") + 1] for row in rows if row[2] == name}
    return bool(kinds) and kinds <= _STAMPED_HERE


class _Descriptor:
    """An open file; closed when nobody uses it any more."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Any = os.close) -> None:
        if hasattr(self, "number"):
            close(self.number)


_MAX_OPEN = 128
_open_journals: "deque[weakref.ref[JournalFile]]" = deque()


class JournalFile:
    """One journal, as far as it was read."""

    __slots__ = (
        "__weakref__",
        "cache_type",
        "descriptor",
        "first_place",
        "has_failures",
        "hole_since",
        "inode",
        "is_journal",
        "is_own",
        "name",
        "near",
        "path",
        "position",
        "seen",
        "writer",
    )

    def __init__(self, folder: str, name: str, first_place: int) -> None:
        self.name = name
        self.path = f"{folder}/{name}"
        self.first_place = first_place  # what an index calls its start
        self.writer = name.rpartition("-")[0]  # which the names of its data files begin with
        self.has_failures = name.endswith(FAILED)
        self.is_own = OWN_JOURNAL.fullmatch(name) is not None
        self.position = 0
        self.hole_since: float | None = None  # when zeros were first seen in place of a line
        self.is_journal = self.is_own  # of others, once it has an entry
        self.inode: int | None = None  # None until it is first seen
        self.seen: tuple[int, int] | None = None  # size and time of change when it was read last
        self.near: tuple[int, bytes, int] = (0, b"", 0)  # where it begins, and up to where its lines were checked
        self.descriptor: _Descriptor | None = None
        self.cache_type: str | None = None  # of entries that don't say it, in journals of exca < 0.5

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        descriptor = self.descriptor
        if descriptor is None:
            descriptor = self.descriptor = _Descriptor(self.path)
            _open_journals.append(weakref.ref(self))
            if len(_open_journals) > _MAX_OPEN:
                oldest = _open_journals.popleft()()
                if oldest is not None and oldest is not self:
                    oldest.descriptor = None
        return os.pread(descriptor.number, length, offset)

    def line(self, offset: int) -> bytes:
        """The line that starts at an offset, without its end; empty if there is none, or if it is damaged.

        It is read with what is near it.
        """
        length = NEAR
        while True:
            data = self.read(offset, length)
            end = data.find(b"\n")
            if end >= 0:
                line = data[:end]
                if self.is_own:
                    if crc32(line):
                        return b""
                    self.near = (offset, data, offset + end)
                return line
            if len(data) < length:
                return b""
            length *= 16


def files_in(info: Any) -> Iterator[str]:
    """Names of the files of an entry of exca."""
    if isinstance(info, dict):
        if isinstance(info.get("filename"), str):
            yield info["filename"]
        for part in info.values():
            yield from files_in(part)


def infos_in(info: Any) -> Iterator[dict[str, Any]]:
    """What handlers returned for an entry and its parts; JSON data of users have no ``#type``, whatever they look like."""
    if isinstance(info, dict):
        if "#type" in info:
            yield info
        for name, part in info.items():
            if name not in ("#data", "#meta"):
                yield from infos_in(part)
    elif isinstance(info, list):
        for part in info:
            yield from infos_in(part)


def spans_in(info: dict[str, Any]) -> list[list[Any]]:
    """The spans of an entry: name, offset, length and checksums each."""
    spans = info.get("#data")
    return [span for span in spans if isinstance(span, list) and len(span) == 4] if isinstance(spans, list) else []


_reported: set[str] = set()
_copies: dict[str, str] = {}  # folders that are copies for a while, and what they are copies of


@contextlib.contextmanager
def copied(folder: str, name: str) -> Iterator[None]:
    """A block in which a folder is a copy of something else, of which warnings tell."""
    _copies[folder] = name
    try:
        yield
    finally:
        del _copies[folder]


def report(problem: str) -> None:
    """Warn of damage, once for each."""
    for folder, name in _copies.copy().items():
        problem = problem.replace(folder, name)
    if problem not in _reported:
        _reported.add(problem)
        more = "`exca-like verify`, or `exca_like.maintenance.verify` in Python, tells what else is damaged"
        user_warnings.warn(f"{problem}. It can be computed again; {more}.", CorruptEntryWarning)
