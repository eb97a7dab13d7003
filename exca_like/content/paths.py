"""Paths that count by what they name: as arguments of memoised functions."""

import hashlib
import os
import pathlib
import time
from collections.abc import Iterator

from exca_like.content.parts import DIGEST_SIZE
from exca_like.content.values import register
from exca_like.errors import MissingFileError

_SETTLED_NS = 2_000_000_000  # a file that was changed later than this before now may change again within the same time stamp
_known: dict[str, tuple[tuple[int, ...], bytes]] = {}  # digests of files, by path

_Path = type(pathlib.Path())


class File(_Path):  # type: ignore[valid-type,misc] # the class of this system's paths
    """The path of a file that counts by the file's content, whatever its name and its place.

    Examples
    --------
    >>> import exca_like, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "numbers.txt")
    >>> _ = path.write_text("1 2 3")
    >>> @exca_like.memo(folder=path.parent / "cache")
    ... def total(file):
    ...     return sum(map(int, file.read_text().split()))
    >>> total(File(path))
    6
    >>> _ = path.write_text("1 2 4")
    >>> total(File(path))
    7
    """


class Folder(_Path):  # type: ignore[valid-type,misc] # the class of this system's paths
    """The path of a folder that counts by its files: their names below it, and their content."""


def _digest_of_file(path: str) -> bytes:
    try:
        status = os.stat(path)
        signature = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
        known = _known.get(path)
        if known is not None and known[0] == signature:
            return known[1]
        with open(path, "rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=DIGEST_SIZE)).digest()
    except FileNotFoundError as error:
        msg = f"there is no file {path}, which is to count by its content"
        raise MissingFileError(error.errno, msg) from None
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
        _known[path] = signature, found
    return found


def _files_in(path: str) -> Iterator[tuple[str, bytes]]:
    if not os.path.isdir(path):
        msg = f"there is no folder {path}, which is to count by its files"
        raise MissingFileError(2, msg)
    for folder, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(names):
            file = os.path.join(folder, name)
            yield os.path.relpath(file, path), _digest_of_file(file)


register(File, lambda file: _digest_of_file(os.path.abspath(file)))
register(Folder, lambda folder: list(_files_in(os.path.abspath(folder))))
