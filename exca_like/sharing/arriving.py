"""Files that are written under a hidden name and appear when they are complete; and those that killed processes left so.

Who writes one holds a lock on it, which ends with the process. Locks are not seen everywhere: of what another machine writes,
or where a file system has none, only the age tells.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from exca_like import files
from exca_like.cachedict.writer import host_name


@contextmanager
def new_file(folder: str, ending: str = "") -> Iterator[IO[bytes]]:
    """A file with a hidden name; it is removed when the block ends, unless it was made to `appear`."""
    path = f"{folder}/{_prefix()}{files.token()}{ending}"
    with open(path, "xb") as stream:
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stream
        finally:
            files.remove(path)


def appear(stream: IO[bytes], path: str) -> None:
    """Give a new file its name, when the disk has it."""
    stream.flush()
    os.fsync(stream.fileno())
    os.replace(stream.name, path)


def remove_left(paths: Iterable[str]) -> None:
    """Remove those of some files that are left over from a process that was killed."""
    for path in paths:
        if os.path.basename(path).startswith(files.TEMPORARY_PREFIX) and _is_left(path):
            with suppress(OSError):  # somebody else did, or they are another user's
                os.unlink(path)


def _is_left(path: str) -> bool:
    if files.is_stale(path):
        return True
    if not os.path.basename(path).startswith(_prefix()):
        return False
    try:
        with open(path, "r+b") as stream:  # network file systems ask for the right to write
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(stream.fileno()).st_size > 0  # else it may have been made just now, and not be locked yet
    except OSError:  # it is being written, or there are no locks
        return False


def _prefix() -> str:
    return f"{files.TEMPORARY_PREFIX}{host_name()}-"
