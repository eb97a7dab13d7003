"""Journals: the lines that say what a folder holds, and the index that is read from them.

Each writer appends to journals of its own and never touches those of others; a line is one ``write``. Our lines carry a
checksum, so that a damaged one costs itself alone, and begin with their key, so that an index is built without parsing
them. Journals of exca, known by their names, have neither.
"""

import os
import re
import threading
import time
import warnings
import weakref
from collections import deque
from typing import Any
from zlib import crc32

import orjson

from exca_like.errors import CacheFolderError, CorruptEntryWarning

INFO, DELETED, FAILED = "-info.jsonl", "-deleted.jsonl", "-failed.jsonl"

_WRITER = r".+-[0-9]+-[0-9a-f]{16}"
OWN_JOURNAL = re.compile(rf"({_WRITER})(-info|-deleted|-failed)\.jsonl")

_HEAD = b'{"#key":"'
_REPLACING_HEAD = b'{"#replaces":'
_TAIL_LENGTH = len(b',"#sum":"01234567"}')
_BLOCK = 1 << 20  # bytes read at a time for the index
_NEAR = 4096  # bytes read at a time for single lines: the next ones are often asked for next
_SHIFT = 40  # an entry's place is one int, which is much smaller than a pair: number of its journal, offset in it
_OFFSET = (1 << _SHIFT) - 1
_DELIVERY_S = 60.0  # seconds for which a network file system may show zeros in place of a page to come


def seal(body: bytes) -> bytes:
    """A line from a JSON object without its closing brace: the checksum comes last."""
    return b'%b,"#sum":"%08x"}\n' % (body, crc32(body))


def head(key: bytes, replaced: list[tuple[str, int]] | None = None) -> bytes:
    """The start of a line: its key (as JSON), and before it the places of the entries that it takes the place of."""
    if replaced:
        return b'{"#replaces":%b,"#key":%b' % (orjson.dumps(replaced), key)
    return b'{"#key":%b' % key


def is_sound(line: bytes) -> bool:
    """Whether a line (without its end) is what was written."""
    return line[:3] == b'{"#' and b"%08x" % crc32(line[:-_TAIL_LENGTH]) == line[-10:-2]


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
        "__weakref__", "cache_type", "descriptor", "inode", "is_own", "name", "near", "number", "path", "position", "seen",
    )  # fmt: skip

    def __init__(self, folder: str, name: str, number: int) -> None:
        self.name = name
        self.path = f"{folder}/{name}"
        self.number = number
        self.is_own = OWN_JOURNAL.fullmatch(name) is not None
        self.reset()

    def reset(self) -> None:
        """Forget what was read."""
        self.position = 0
        self.inode: int | None = None  # None until it is first seen
        self.seen: tuple[int, int] | None = None  # size and time of change when it was read last
        self.near: tuple[int, bytes] = (0, b"")
        self.descriptor: _Descriptor | None = None
        self.cache_type: str | None = None  # of entries that don't say it, in journals of exca < 0.5

    @property
    def writer(self) -> str:
        """Name of the writer, which the names of its data files begin with."""
        return self.name.rpartition("-")[0]

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
        """The line that starts at an offset, without its end; empty if there is none."""
        start, near = self.near
        begin = offset - start
        if 0 <= begin < len(near) and self.is_own:
            end = near.find(b"\n", begin)
            if end >= 0:
                return near[begin:end]
        length = _NEAR
        while True:
            data = self.read(offset, length)
            end = data.find(b"\n")
            if end >= 0:
                self.near = (offset, data)
                return data[:end]
            if len(data) < length:
                return b""
            length *= 16


class Index:
    """Where the entries of a folder are: ``entries`` and ``failures`` map keys to places.

    Readers take no lock and write nothing. Of two entries for one key, the one counts whose journal's name sorts first,
    and within a journal the first one. A place is given to `read` and comes from nowhere else.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self._numbered: list[JournalFile] = []
        self._by_name: dict[str, JournalFile] = {}
        self._gone: set[int] = set()  # deleted, or found to be bad
        self._others: dict[tuple[bool, str], list[int]] = {}  # more entries (True: failures) of keys that have several
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Take notice of what was written since the last time; only what grew is read."""
        with self._lock:
            seen = self._list()
            if self._is_outdated(seen):
                # a journal is removed after the one that replaces it appeared: a second look shows that one
                seen = self._list()
                self._start_anew()
            for name, status in seen.items():
                self._catch_up(self._file(name), status)

    def _is_outdated(self, seen: dict[str, os.stat_result]) -> bool:
        """Whether a journal did not just grow."""
        for file in self._numbered:
            if file.inode is not None:
                status = seen.get(file.name)
                if status is None or status.st_ino != file.inode or status.st_size < file.position:
                    return True
                if not file.is_own and file.seen != _state(status):  # exca edits its journals
                    return True
        return False

    def _start_anew(self) -> None:
        for file in self._numbered:
            file.reset()
        self.entries.clear()
        self.failures.clear()
        self._gone.clear()
        self._others.clear()

    def _list(self) -> dict[str, os.stat_result]:
        seen = {}
        try:
            with os.scandir(self.folder) as found:
                for entry in found:
                    name = entry.name
                    if name.endswith((INFO, DELETED, FAILED)):
                        try:
                            seen[name] = entry.stat()
                        except FileNotFoundError:  # removed since
                            continue
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _unreadable(self.folder, error) from error
        return seen

    def _file(self, name: str) -> JournalFile:
        file = self._by_name.get(name)
        if file is None:
            file = self._by_name[name] = JournalFile(self.folder, name, len(self._numbered))
            self._numbered.append(file)
        return file

    def _catch_up(self, file: JournalFile, status: os.stat_result) -> None:
        if file.seen == _state(status):
            return
        file.inode = status.st_ino
        try:
            if status.st_size > file.position:
                self._read(file)
        except FileNotFoundError:  # removed since: the next refresh starts anew
            return
        except OSError as error:
            raise _unreadable(file.path, error) from error
        file.seen = _state(status)

    def _read(self, file: JournalFile) -> None:
        """Index the whole lines behind the position up to which a journal was read; the rest is not there yet."""
        note = self._note_deletions
        if not file.name.endswith(DELETED):
            note = self._note_own if file.is_own else self._note_foreign
        start = file.position
        rest = b""
        while block := file.read(file.position + len(rest), _BLOCK):
            data = rest + block if rest else block
            lines = data.split(b"\n")
            rest = lines.pop()
            end = file.position + len(data) - len(rest)
            file.position = note(file, lines)
            if file.position < end or len(block) < _BLOCK:
                break
        if not start and file.position <= _NEAR:  # this one read serves the entries, too
            file.near = (0, data[: file.position])
            file.descriptor = None

    def _note_own(self, file: JournalFile, lines: list[bytes]) -> int:
        entries = self._entries_of(file)
        place = (file.number << _SHIFT) + file.position
        add, gone = entries.setdefault, self._gone
        for line in lines:  # the hot loop of opening a large folder
            if line[:9] == _HEAD and b"%08x" % crc32(line[:-_TAIL_LENGTH]) == line[-10:-2]:
                raw = line[9 : line.index(b'"', 9)]
                key = orjson.loads(line)["#key"] if b"\\" in raw else raw.decode()
                if not (gone and place in gone) and add(key, place) != place:
                    self._add_other(entries, key, place)
            elif line.startswith(_REPLACING_HEAD) and is_sound(line):
                self._note_replacement(entries, place, orjson.loads(line))
            elif line:
                if b"\0" in line and time.time() - os.stat(file.path).st_mtime < _DELIVERY_S:
                    break
                self._report_line(file, place & _OFFSET)
            place += len(line) + 1
        return place & _OFFSET

    def _note_replacement(self, entries: dict[str, int], place: int, record: dict[str, Any]) -> None:
        key = record["#key"]
        for name, offset in record["#replaces"]:
            self.drop(key, self._place(name, offset))
        if place not in self._gone and entries.setdefault(key, place) != place:
            self._add_other(entries, key, place)

    def _note_foreign(self, file: JournalFile, lines: list[bytes]) -> int:
        entries = self._entries_of(file)
        offset = file.position
        for line in lines:
            text = line.strip()
            place = (file.number << _SHIFT) + offset
            if text and place not in self._gone:  # blank: exca deleted what was here
                try:
                    if not offset and text.startswith(b"metadata="):
                        file.cache_type = orjson.loads(text.removeprefix(b"metadata=")).get("cache_type")
                    else:
                        key = orjson.loads(text)["#key"]
                        if entries.setdefault(key, place) != place:
                            self._add_other(entries, key, place)
                except (ValueError, KeyError, TypeError, AttributeError):
                    self._report_line(file, offset)
            offset += len(line) + 1
        return offset

    def _note_deletions(self, file: JournalFile, lines: list[bytes]) -> int:
        offset = file.position
        for line in lines:
            if is_sound(line):
                record = orjson.loads(line)
                self.drop(record["#key"], self._place(record["#file"], record["#at"]))
            elif line:
                self._report_line(file, offset)
            offset += len(line) + 1
        return offset

    def _entries_of(self, file: JournalFile) -> dict[str, int]:
        return self.failures if file.name.endswith(FAILED) else self.entries

    def _place(self, name: str, offset: int) -> int:
        return (self._file(name).number << _SHIFT) + offset

    def _add_other(self, entries: dict[str, int], key: str, place: int) -> None:
        """Take in a second entry for a key."""
        others = self._others.setdefault((entries is self.failures, key), [])
        places = sorted({place, entries[key], *others}, key=self._order)
        entries[key], others[:] = places[0], places[1:]

    def _order(self, place: int) -> tuple[str, int]:
        return self._numbered[place >> _SHIFT].name, place & _OFFSET

    def _report_line(self, file: JournalFile, offset: int) -> None:
        report(f"the line at byte {offset} of {file.path} is damaged; the entry that it was is ignored")

    def add(self, key: str, name: str, inode: int, offset: int, end: int) -> None:
        """Take in a line that this process wrote itself."""
        with self._lock:
            file = self._file(name)
            if file.position != offset:  # there are lines in between: the next refresh reads them all
                return
            file.inode, file.position = inode, end
            place = (file.number << _SHIFT) + offset
            entries = self._entries_of(file)
            if entries.setdefault(key, place) != place:
                self._add_other(entries, key, place)

    def drop(self, key: str, place: int) -> None:
        """Let an entry count as missing; another one for its key, if there is one, takes its place."""
        with self._lock:
            self._gone.add(place)
            for entries in (self.entries, self.failures):
                others = self._others.get((entries is self.failures, key), [])
                if place in others:
                    others.remove(place)
                elif entries.get(key) == place:
                    if others:
                        entries[key] = others.pop(0)
                    else:
                        del entries[key]

    def places(self, key: str) -> list[int]:
        """All entries and failures of a key."""
        found = [entries[key] for entries in (self.entries, self.failures) if key in entries]
        return [*found, *self._others.get((False, key), ()), *self._others.get((True, key), ())]

    def read(self, place: int) -> tuple[JournalFile, dict[str, Any]] | None:
        """The journal and the content of an entry's line; None if it is not there any more, or damaged."""
        file = self._numbered[place >> _SHIFT]
        try:
            line = file.line(place & _OFFSET)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(file.path, error) from error
        if file.is_own and not is_sound(line):
            return None
        try:
            content: dict[str, Any] = orjson.loads(line)
        except ValueError:
            return None
        return file, content

    def describe(self, place: int) -> tuple[str, int]:
        """The name of an entry's journal and its offset in it."""
        return self._numbered[place >> _SHIFT].name, place & _OFFSET

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.__init__(self.folder)  # type: ignore[misc]


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


_reported: set[str] = set()


def report(problem: str) -> None:
    """Warn of damage, once for each."""
    if problem not in _reported:
        _reported.add(problem)
        msg = f"{problem}. It can be computed again; `exca_like.maintenance.verify` tells what else is damaged."
        warnings.warn(msg, CorruptEntryWarning, stacklevel=2)


def _unreadable(path: str, error: OSError) -> CacheFolderError:
    return CacheFolderError(error.errno, f"can't read {path}: {error.strerror}. Check its permissions and the file system.")
