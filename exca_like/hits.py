"""How often results were taken from a cache: counted in memory, and written now and then.

A hit is one increment in `counts`. What was counted is written at the end of the process, and before that when something is
counted for the first time since the last writing and a minute has passed. Each process appends to a file of its own, in the
hidden folder ``.hits`` of the cache root; `merge` makes one file of many. The numbers are for statistics and for pruning: those
of a process that was killed may lack.
"""

import atexit
import collections
import contextlib
import fcntl
import functools
import itertools
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from exca_like import files, sources
from exca_like.errors import SettingsError
from exca_like.layout import HITS, EntryFolder

_EVERY_S = 60.0
_MOST = 10_000  # entries that are counted in memory
_AT_ONCE = 500  # files that are merged at a time, which are open meanwhile
_TRIES = 5  # of reading while others merge


class _Writing:
    """What this process does about its counts; a forked one begins anew."""

    due = 0.0  # when to write next
    is_registered = False


_writing = _Writing()
_names: dict[str, str] = {}  # of this process's file in each root
_lock = files.ForkSafeLock()


def _begin() -> int:
    """What an entry is counted from; called for each entry once between two writings."""
    if not _writing.is_registered:
        _writing.is_registered, _writing.due = True, time.monotonic() + _EVERY_S
        if "multiprocessing.util" in sys.modules:  # whose processes end without `atexit`
            from multiprocessing.util import Finalize

            Finalize(None, write, exitpriority=0)
    elif len(counts) >= _MOST or time.monotonic() > _writing.due:
        write()
    return 0


counts: "collections.defaultdict[Any, int]" = collections.defaultdict(_begin)
"""Hits since the last writing, by `EntryFolder`; of calls of memoised functions by `EntryFolder` and key."""


def _start_anew() -> None:
    """In a forked process: what its parent has counted is the parent's to write."""
    counts.clear()
    _names.clear()
    _writing.__dict__.clear()


os.register_at_fork(after_in_child=_start_anew)


# writing


def write() -> None:
    """Write what was counted since the last time; what can't be written is lost."""
    with _lock:
        _writing.due = time.monotonic() + _EVERY_S
        found = _pending(take=True)
        if found and _is_wanted():
            for root, hits in found.items():
                with contextlib.suppress(OSError):
                    _append(root, json.dumps({"hits": hits}).encode() + b"\n")


def _pending(*, take: bool = False) -> dict[str, dict[str, Any]]:
    """What was counted and not written, by root and uid; of calls of memoised functions dictionaries by key."""
    found: dict[str, dict[str, Any]] = {}
    for place in list(counts):
        number = counts.pop(place, 0) if take else counts.get(place, 0)
        entry, key = (place, None) if type(place) is EntryFolder else place or (None, None)
        if entry is None or not entry.root:  # it is kept in memory only
            continue
        hits = found.setdefault(entry.root, {})
        if key is None:
            hits[entry.uid] = number
        elif isinstance(hits.get(entry.uid), dict):
            hits[entry.uid][key] = number
        else:  # or it is of the other kind, see `_merge`
            hits[entry.uid] = {key: number}
    return found


atexit.register(write)


def _is_wanted() -> bool:
    try:
        return sources.tool_setting("count_hits") is not False
    except SettingsError:  # who needs the settings says so
        return True


def _append(root: str, line: bytes) -> None:
    mode = stat.S_IMODE(os.stat(root).st_mode)  # who may write there may count there
    folder = f"{root}/{HITS}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, mode)
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC  # network file systems ask for both rights to lock
        if root not in _names:
            _names[root] = _new_name()
            flags |= os.O_CREAT | os.O_EXCL  # a name is never used again: what was merged is known by it
        try:
            descriptor = os.open(f"{folder}/{_names[root]}", flags, mode & 0o666)
        except FileNotFoundError:
            del _names[root]
            if flags & os.O_CREAT:
                raise
            continue  # it was merged
        try:
            if _is_locked(descriptor, fcntl.LOCK_SH) is not False:
                if flags & os.O_CREAT:
                    os.fchmod(descriptor, mode & 0o666)
                if os.fstat(descriptor).st_nlink:
                    if os.write(descriptor, line) < len(line):
                        del _names[root]  # nothing may follow half a line
                    return
        finally:
            os.close(descriptor)
        del _names[root]  # it was merged, or is now


def _new_name() -> str:
    return f"{os.getpid()}-{files.token()}.jsonl"


def _is_locked(descriptor: int, kind: int) -> bool | None:
    """Lock a file; False if somebody else has a lock on it, None if there are no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


# reading


class Hits:
    """The hits of what is below a cache root, read when they are first asked for."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._numbers: dict[str, int] | None = None

    def of(self, uid: str) -> int:
        """How often an entry was taken from the cache; of a call of a memoised function, ``<uid>/<key>``."""
        if self._numbers is None:
            self._numbers = read(self._root)
        return self._numbers.get(uid, 0)

    def forget(self) -> None:
        """Read them again the next time."""
        self._numbers = None


hits_of = functools.lru_cache(16)(Hits)
"""The hits below a cache root, the same object for all who ask."""


def read(root: str) -> dict[str, int]:
    """All hits below a cache root, by uid: those that were written, and those of this process that are not yet."""
    numbers: collections.Counter[str] = collections.Counter()
    if _is_wanted():
        for uid, number in _pending().get(root, {}).items():
            _add(numbers, uid, number)
    for file in _files(f"{root}/{HITS}"):
        for uid, number in file.hits():
            _add(numbers, uid, number)
    return dict(numbers)


def _add(numbers: collections.Counter[str], uid: str, number: Any) -> None:
    numbers.update({f"{uid}/{key}": one for key, one in number.items()} if isinstance(number, dict) else {uid: number})


class _File(NamedTuple):
    """A file of counts: lines, and how many bytes of them are in another file, too."""

    name: str
    size: int
    lines: Sequence[tuple[int, dict[str, Any]]]
    """Each with the offset of its start."""
    merged: int = 0

    def hits(self) -> Iterator[tuple[str, Any]]:
        """Numbers that are in no other file, by folder; of calls a dictionary of them."""
        for start, line in self.lines:
            if start >= self.merged:
                yield from line["hits"].items()

    def replaces(self) -> dict[str, int]:
        """Other files that were merged into this one, and how many bytes of them."""
        return {name: size for _, line in self.lines for name, size in line.get("replaces", {}).items()}


def _files(folder: str) -> list[_File]:
    """The files of counts, as they are together at one moment."""
    found: list[_File] = []
    for _ in range(_TRIES):
        try:
            names = sorted(name for name in os.listdir(folder) if name[0] != ".")
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # nobody has counted here, or not for this user
            return []
        found = [file for name in names if (file := _read(folder, name)) is not None]
        if len(found) == len(names):
            break  # else some were merged meanwhile
    merged: dict[str, int] = {}
    for file in found:
        for name, size in file.replaces().items():
            merged[name] = max(size, merged.get(name, 0))
    return [file._replace(merged=merged.get(file.name, 0)) for file in found]


def _read(folder: str, name: str) -> _File | None:
    try:
        data = files.read_bytes(f"{folder}/{name}")
    except FileNotFoundError:
        return None
    except OSError:  # it is not for this user
        data = b""
    lines: list[tuple[int, dict[str, Any]]] = []
    start = 0
    for text in data.splitlines(keepends=True):
        with contextlib.suppress(ValueError):  # its process was killed, or the disk was full
            line = json.loads(text)
            if _is_sound(line):
                lines.append((start, line))
        start += len(text)
    return _File(name, len(data), lines)


def _is_sound(line: Any) -> bool:
    """Whether a line has the form of those written here."""
    hits, replaces = (line.get("hits"), line.get("replaces", {})) if isinstance(line, dict) else (None, None)
    if not isinstance(hits, dict) or not isinstance(replaces, dict):
        return False
    groups = (number.values() if isinstance(number, dict) else (number,) for number in hits.values())
    return all(type(number) is int for number in itertools.chain(replaces.values(), *groups))


# merging


def merge(root: str) -> None:
    """Make one file of many, without what was counted of folders that are gone; safe beside readers and writers."""
    folder = f"{root}/{HITS}"
    names = [file.name for file in _files(folder)]
    for first in range(0, len(names), _AT_ONCE):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            _merge(root, {name for name in names[first : first + _AT_ONCE] if _is_mine(f"{folder}/{name}", stack)})


def _is_mine(path: str, stack: contextlib.ExitStack) -> bool:
    """Whether a file could be locked, so that its writer, if it lives, takes another one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    stack.callback(os.close, descriptor)
    return bool(_is_locked(descriptor, fcntl.LOCK_EX)) and os.fstat(descriptor).st_nlink > 0


def _merge(root: str, names: set[str]) -> None:
    """Merge files that are locked."""
    folder = f"{root}/{HITS}"
    every = _files(folder)
    mine = [file for file in every if file.name in names]
    if sum(len(file.lines) for file in mine) < 2:
        return
    hits: dict[str, Any] = {}
    for file in mine:
        for uid, number in file.hits():
            if not os.path.isdir(f"{root}/{uid}"):
                continue
            before = hits.get(uid)  # of the other kind, if a memoised function took the place of a method
            if isinstance(number, dict):
                calls = collections.Counter(before if isinstance(before, dict) else {})
                calls.update(number)
                hits[uid] = dict(calls)
            else:
                hits[uid] = number + (before if isinstance(before, int) else 0)
    # a file that could not be removed, or was appended to after its merger was killed
    replaced = {file.name: file.merged for file in every if file.merged and file.name not in names}
    replaced |= {file.name: file.size for file in mine}
    line = json.dumps({"replaces": replaced, "hits": hits}).encode() + b"\n"
    path = f"{folder}/{_new_name()}"
    files.write_atomic(path, line, files.mode_in(root))
    files.sync(path)
    for file in mine:
        files.remove(f"{folder}/{file.name}")
