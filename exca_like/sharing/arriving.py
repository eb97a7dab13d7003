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
    with _locked_file(folder, ending) as stream:
        try:
            yield stream
        finally:
            files.remove(stream.name)


def appear(stream: IO[bytes], path: str) -> None:
    """Give a new file its name, when the disk has it."""
    stream.flush()
    os.fsync(stream.fileno())
    os.replace(stream.name, path)


def remove_left(paths: Iterable[str]) -> None:
    """Remove those of some files that are left over from a process that was killed."""
    for path in paths:
        with suppress(OSError):  # it is being written, there are no locks, or it is another user's
            if files.is_stale(path):
                os.unlink(path)
            elif os.path.basename(path).startswith(_prefix()):
                with open(path, "r+b") as stream:  # network file systems ask for the right to write
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)


def _locked_file(folder: str, ending: str) -> IO[bytes]:
    while True:
        stream = open(f"{folder}/{_prefix()}{files.token()}{ending}", "xb")  # noqa: SIM115 - it is returned
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()  # somebody took it for left over before it was locked


def _prefix() -> str:
    return f"{files.TEMPORARY_PREFIX}{host_name()}-"
