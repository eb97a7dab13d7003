"""How often results were taken from a cache: counted in memory, and written now and then.

A hit is one increment in `counts`. What was counted is written at the end of the process, and before that when something is
counted for the first time since the last writing and a minute has passed. Each process appends lines of JSON to a file of its
own, in the hidden folder ``.hits`` of the cache root: numbers by uid and key, which is empty but for calls of memoised
functions. `merge` makes one file of many. The numbers are for statistics and for pruning: those of a process that was killed
may lack.
"""

import atexit
import collections
import contextlib
import fcntl
import functools
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from exca_like import files, sources
from exca_like.errors import SettingsError
from exca_like.layout import HITS, EntryFolder

_EVERY_S = 60.0
_MOST = 10_000  # entries that are counted in memory

_Numbers = dict[str, dict[str, int]]
"""Hits by uid and key."""


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
        if _is_wanted():
            for root, numbers in found.items():
                with contextlib.suppress(OSError):
                    _append(root, numbers)


def _pending(*, take: bool = False) -> dict[str, _Numbers]:
    """What was counted and not written, by root."""
    found: dict[str, _Numbers] = {}
    for place in list(counts):
        number = counts.pop(place, 0) if take else counts.get(place, 0)
        entry, key = (place, "") if type(place) is EntryFolder else place or (None, "")
        if entry is not None and entry.root:  # else it is kept in memory only
            _add(found.setdefault(entry.root, {}), {entry.uid: {key: number}})
    return found


def _add(total: _Numbers, numbers: Mapping[str, Mapping[str, int]]) -> None:
    for uid, by_key in numbers.items():
        mine = total.setdefault(uid, {})
        for key, number in by_key.items():
            mine[key] = mine.get(key, 0) + number


atexit.register(write)


def _is_wanted() -> bool:
    try:
        return sources.tool_setting("count_hits") is not False
    except SettingsError:  # who needs the settings says so
        return True


def _append(root: str, numbers: _Numbers) -> None:
    folder = f"{root}/{HITS}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, stat.S_IMODE(os.stat(root).st_mode))  # who may write there may count there
    line = json.dumps(numbers).encode() + b"\n"
    while True:
        is_new = root not in _names
        name = _names.setdefault(root, f"{os.getpid()}-{files.token()}.jsonl")
        try:
            with _locked(f"{folder}/{name}", fcntl.LOCK_SH, os.O_APPEND | os.O_CREAT * is_new) as descriptor:
                if is_new:
                    files.permit(f"{folder}/{name}", files.mode_in(root))
                if os.write(descriptor, line) < len(line):
                    del _names[root]  # nothing may follow half a line
                return
        except BlockingIOError:  # it is merged now
            del _names[root]
        except FileNotFoundError:  # it was merged
            del _names[root]
            if is_new:
                raise


@contextlib.contextmanager
def _locked(path: str, kind: int, flags: int = 0) -> Iterator[int]:
    """A file that is open, and locked, if there are locks.

    Raises
    ------
    BlockingIOError
        Somebody else has a lock on it, or has just removed it.
    OSError
        It can't be opened, or not be locked for one process alone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)  # network file systems ask for both rights to lock
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            if kind == fcntl.LOCK_EX:
                raise
        if not os.fstat(descriptor).st_nlink:
            raise BlockingIOError
        yield descriptor
    finally:
        os.close(descriptor)


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
    total: _Numbers = {}
    if _is_wanted():
        _add(total, _pending().get(root, {}))
    for path in _files(root):
        with contextlib.suppress(OSError):  # it was merged just now, or is not for this user
            for numbers in _lines(path):
                _add(total, numbers)
    return {f"{uid}/{key}" if key else uid: number for uid, by_key in total.items() for key, number in by_key.items()}


def _files(root: str) -> list[str]:
    try:
        return [f"{root}/{HITS}/{name}" for name in os.listdir(f"{root}/{HITS}") if name[0] != "."]
    except OSError:  # nobody has counted here, or not for this user
        return []


def _lines(path: str) -> Iterator[_Numbers]:
    """What is in a file, but for what is not of the form that is written here."""
    for text in files.read_bytes(path).splitlines():
        with contextlib.suppress(ValueError):  # its process was killed, or the disk was full
            if _is_sound(line := json.loads(text)):
                yield line


def _is_sound(line: Any) -> bool:
    return isinstance(line, dict) and all(
        isinstance(by_key, dict) and all(type(number) is int for number in by_key.values()) for by_key in line.values()
    )


# merging


def merge(root: str) -> None:
    """Make one file of many, without what was counted of folders that are gone; safe beside readers and writers."""
    paths = _files(root)
    total: _Numbers = {}
    try:
        for path in paths if len(paths) > 1 else ():
            # its writer, if it lives, takes another one; who can't remove it does not count it again
            with contextlib.suppress(OSError), _locked(path, fcntl.LOCK_EX):
                lines = list(_lines(path))
                os.unlink(path)
                for numbers in lines:
                    _add(total, numbers)
    finally:
        kept = {uid: by_key for uid, by_key in total.items() if os.path.isdir(f"{root}/{uid}")}
        if kept:
            with contextlib.suppress(OSError), _lock:
                _append(root, kept)
