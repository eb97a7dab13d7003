"""The entry of a folder that holds no other, read in the shortest way: as results of tasks lie."""

import os
from typing import Any
from zlib import crc32

import orjson

from exca_like import files
from exca_like.cachedict.journal import INFO, JournalFile, Listing
from exca_like.cachedict.lines import KEY_HEAD

_LARGEST = 1 << 16  # bytes of a journal that may be only one line


class SingleEntry:
    """The only entry of a folder. Of any other folder it says nothing, and `exca_like.cachedict.CacheDict` is to be asked."""

    def __init__(self, folder: str) -> None:
        self._listing = Listing(folder)
        self._file: JournalFile | None = None
        self._last: tuple[Any, bytes] = (None, b"")  # the journal's state, and its content, when it was read; at once
        self.is_there = False
        """Whether there is a folder, as known since the last look."""

    @property
    def state(self) -> Any:
        """Changes when the journal does, as known since the last look."""
        return self._last[0]

    def look(self) -> tuple[JournalFile, dict[str, Any]] | None:
        """The entry's journal and the content of its line, as they are now; None if there is not just one, whole and sound."""
        is_there = False
        try:
            names = self._listing.names()
            is_there = True
            if len(names) != 1:
                return None
            file = self._file
            if file is None or file.name != names[0]:
                file = self._file = JournalFile(self._listing.folder, names[0], 0)
            status = os.stat(file.path)
            last = self._last
            state = (file.name, status.st_ino, status.st_size, status.st_mtime_ns)
            if state != last[0]:
                if not (file.is_own and file.name.endswith(INFO) and status.st_size <= _LARGEST):
                    return None
                last = self._last = state, files.read_bytes(file.path)
        except OSError:
            return None
        finally:
            self.is_there = is_there
        line = last[1]
        if line.find(b"\n") != len(line) - 1 or line[:9] != KEY_HEAD or crc32(line[:-1]):
            return None
        return file, orjson.loads(line)
