"""The entry of a folder that holds no other, written and read in the shortest way: as results of tasks lie."""

import functools
import os
from typing import Any
from zlib import crc32

import orjson

from exca_like import files
from exca_like.cachedict.context import DumpContext
from exca_like.cachedict.journal import INFO, JournalFile, Listing
from exca_like.cachedict.lines import KEY_HEAD
from exca_like.cachedict.writer import Writer
from exca_like.errors import CacheFolderError

_LARGEST = 1 << 16  # bytes of a journal that may be only one line
_META = b',"#meta":'  # no string has this in it, as its quotes would be escaped
_UNREAD: tuple[Any, bytes] = (None, b"")


class SingleEntry:
    """The only entry of a folder. Of any other folder it says nothing, and `exca_like.cachedict.CacheDict` is to be asked."""

    def __init__(self, folder: str) -> None:
        self._listing = Listing(folder)
        self._file: JournalFile | None = None
        self._last = _UNREAD  # the journal's state when it was read, and its line; at once, for other threads
        self.is_there = True
        """False if the last look has found no folder."""

    @property
    def state(self) -> Any:
        """Changes when the journal does, as known since the last look."""
        return self._last[0]

    @property
    def line(self) -> bytes | None:
        """The line, as known since the last look; None if there is not just one."""
        return self._last[1] or None

    def look(self, *, bare: bool = False) -> tuple[JournalFile, dict[str, Any]] | None:
        """The entry's journal and the content of its line, as they are now; None if there is not just one, whole and sound.

        A ``bare`` one need not have ``#meta``.
        """
        try:
            names = self._listing.names()
        except OSError as error:
            self.is_there = not isinstance(error, FileNotFoundError)
            return None
        self.is_there = True
        try:
            if len(names) != 1:
                self._last = _UNREAD  # what was there alone may have been replaced
                return None
            file, last = self._file, self._last
            if file is None or file.name != names[0]:
                file, last = self._file, self._last = JournalFile(self._listing.folder, names[0], 0), _UNREAD
            if last is _UNREAD or last[0] != _state(os.stat(file.path)):
                if not (file.is_own and file.name.endswith(INFO)):
                    return None
                last = self._last = _read(file.path)
        except OSError:
            return None
        line = last[1]
        if not line:
            return None
        return file, _without_meta(line) if bare else orjson.loads(line)

    def has_noted(self, name: str, value: Any) -> bool:
        """Whether the line of the last look has something in its ``#meta``; False, too, if it is written in another way."""
        line = self._last[1]
        return value is not None and line.find(orjson.dumps({name: value})[1:-1], max(line.find(_META), 0)) >= 0


def write_first(folder: str, key: str, value: Any, meta: dict[str, Any], permissions: int | None = None) -> None:
    """Write the first entry of a folder, as `exca_like.cachedict.CacheDict.put` does.

    Raises
    ------
    TypeError
        The value can't be stored.
    CacheFolderError
        The folder can't be written to.
    """
    writer = Writer(folder, permissions)
    context = writer.context = DumpContext(folder, writer=writer)
    try:
        line = context.dump_entry(key, value, meta=meta)
        try:
            writer.ready(INFO).write(line)
        except CacheFolderError:
            context.discard()
            raise
    finally:
        writer.end()


@functools.lru_cache(256)
def single_entry(folder: str) -> SingleEntry:
    """What is known of the entry of a folder; equal configs ask for the same folder again and again."""
    return SingleEntry(folder)


def _without_meta(line: bytes) -> Any:
    """The content of a line, without what is beside the value, which is most of it."""
    end = line.find(_META)
    if end >= 0:
        try:
            return orjson.loads(line[:end] + b"}")
        except orjson.JSONDecodeError:  # it is somewhere inside
            pass
    return orjson.loads(line)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: str) -> tuple[Any, bytes]:
    """The state of a journal, and its line if it is just one, whole and sound."""
    status, line = files.read_small(path, _LARGEST)
    is_sound = line.find(b"\n") == len(line) - 1 and line[:9] == KEY_HEAD and not crc32(line[:-1])
    return _state(status), line if is_sound else b""
