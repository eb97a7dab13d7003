"""The index of a folder: where its entries are, as its journals say.

A damaged line costs itself alone.
"""

import bisect
import itertools
import os
import stat
import time
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import orjson

from exca_like import files
from exca_like.cachedict.journal import DELETED, KEPT, JournalFile, Listing, files_in, report
from exca_like.cachedict.lines import KEY_HEAD, is_sound
from exca_like.cachedict.writer import AppendFile
from exca_like.errors import CacheFolderError

_loads = orjson.loads
_BLOCK = 1 << 20  # bytes read at a time
_SHIFT = 40  # an entry's place is one int, which is much smaller than a pair: number of its journal, offset in it
_OFFSET = (1 << _SHIFT) - 1
_PATIENCE = 20  # looks at a folder in which journals keep vanishing
_HOLE = bytes(16)  # zeros, which a network file system may show in place of a page that is still to come
_DELIVERY_S = 60.0  # seconds for which it may do so


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
        self.bad: dict[str, list[int]] = {}  # entries that failed their checks here
        self._lock = files.ForkSafeLock()
        self._listing = Listing(folder)

    def refresh(self) -> None:
        """Take notice of what was written since the last time; only what grew is read."""
        with self._lock:
            if not self._follow():
                self._start_anew()

    def _follow(self, *, patient: bool = True) -> bool:
        """Read what grew; False if anything else happened to a journal, so that all must be read anew."""
        seen = self._look()
        if (seen is None and patient) or self._is_outdated(seen or {}):
            return False
        for name, status in (seen or {}).items():
            file = self._by_name.get(name) or self.file(name)
            if file.seen != (status.st_size, status.st_mtime_ns) and not self._catch_up(file, status) and patient:
                return False
        return True

    def _start_anew(self) -> None:
        """Read everything into new dictionaries, so that other threads never see half of it."""
        numbered, fresh = self._numbered, self
        for attempt in range(_PATIENCE + 1):
            fresh = Index(self.folder)
            fresh._numbered = [JournalFile(self.folder, file.name, file.first_place) for file in numbered]
            fresh._by_name = {file.name: file for file in fresh._numbered}
            # a journal is removed after the one that replaces it appeared: the next look shows that one
            if fresh._follow(patient=attempt < _PATIENCE):
                break
            numbered = fresh._numbered
            time.sleep(0.001 * attempt)
        self._numbered, self._by_name = fresh._numbered, fresh._by_name
        self._gone, self._others = fresh._gone, fresh._others
        self.entries, self.failures, self.bad = fresh.entries, fresh.failures, {}
        self._listing = Listing(self.folder)

    def _look(self) -> dict[str, os.stat_result] | None:
        """The journals that are there; None if one was removed meanwhile."""
        try:
            names = self._listing.names()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _unreadable(self.folder, error) from error
        seen = {}
        for name in names:
            path = f"{self.folder}/{name}"
            try:
                status = os.stat(path)
            except OSError as error:
                if os.path.islink(path):  # that leads nowhere
                    continue
                if isinstance(error, FileNotFoundError):
                    return None
                raise _unreadable(path, error) from error
            if stat.S_ISREG(status.st_mode):
                seen[name] = status
        return seen

    def _is_outdated(self, seen: dict[str, os.stat_result]) -> bool:
        """Whether a journal did not just grow."""
        for file in self._numbered:
            if file.inode is not None:
                status = seen.get(file.name)
                if status is None or status.st_ino != file.inode or status.st_size < file.position:
                    return True
                if not file.is_own and file.seen != (status.st_size, status.st_mtime_ns):  # exca edits its journals
                    return True
        return False

    def _catch_up(self, file: JournalFile, status: os.stat_result) -> bool:
        """Index the whole lines behind the position up to which a journal was read; the rest is not there yet.

        False if the journal was removed meanwhile, or changed in another way.
        """
        file.inode = status.st_ino
        hole = None
        if status.st_size > file.position:
            try:
                if file.position and file.read(file.position - 1, 1) != b"\n":  # a line that was read was taken back since
                    return False
                hole = self._read(file, status)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _unreadable(file.path, error) from error
        if hole is None:
            file.seen = (status.st_size, status.st_mtime_ns)
        else:
            file.position = hole
        return True

    def _read(self, file: JournalFile, status: os.stat_result) -> int | None:
        """Index the lines of a journal from its position on; returns the offset of one that may still be on its way."""
        note = self._note_deletions
        if not file.name.endswith(DELETED):
            note = self._note_own if file.is_own else self._note_foreign
        # `add`, in another thread, may move the position on meanwhile, past lines that it has indexed itself
        start = position = file.position
        size = status.st_size
        hole = None
        data = rest = b""
        while position + len(rest) < size and (block := file.read(position + len(rest), min(size - position, _BLOCK))):
            data = rest + block if rest else block
            lines = data.split(b"\n")
            rest = lines.pop()
            for offset, line in note(file, lines, position):
                if _HOLE in line and self._may_still_come(file, status):
                    hole = offset if hole is None else hole
                    continue
                report(f"the line at byte {offset} of {file.path} is damaged; the entry that it was is ignored")
                if (begin := _last_sound(line)) is not None:  # only the end of the line before it is damaged
                    note(file, [line[begin:]], offset + begin)
            position += len(data) - len(rest)
        file.position = max(file.position, position)
        if not start and position <= KEPT:  # this one read serves the entries, too
            if file.is_own:  # others may be edited
                file.near = (0, data[:position], position)
            file.descriptor = None
        return hole

    @staticmethod
    def _may_still_come(file: JournalFile, status: os.stat_result) -> bool:
        if file.hole_since is None:
            file.hole_since = time.monotonic()
        waited = time.monotonic() - file.hole_since
        return waited < _DELIVERY_S and abs(time.time() - status.st_mtime) < _DELIVERY_S

    # each of these returns damaged lines, with their offsets

    def _note_own(self, file: JournalFile, lines: list[bytes], position: int) -> list[tuple[int, bytes]]:
        entries = self.failures if file.has_failures else self.entries
        place = file.first_place + position
        if not self._gone and self._note_plain(entries, lines, place):
            return []
        add, gone = entries.setdefault, self._gone
        damaged = []
        for line in lines:
            if line[:9] == KEY_HEAD and not crc32(line):
                raw = line[9 : line.index(b'"', 9)]
                key = orjson.loads(line)["#key"] if b"\\" in raw else raw.decode()
                if not (gone and place in gone) and add(key, place) != place:
                    self._add_other(entries, key, place)
            elif line and not (is_sound(line) and self._note_replacement(entries, place, line)):
                damaged.append((place & _OFFSET, line))
            place += len(line) + 1
        return damaged

    def _note_plain(self, entries: dict[str, int], lines: list[bytes], place: int) -> bool:
        """Take in lines if all are sound and have keys that are plain: the usual case, and the hot one."""
        if not lines:  # there is only one that is not complete
            return True
        if any(map(crc32, lines)):
            return False
        raw = [line[9 : line.index(b'"', 9)] for line in lines if line[:9] == KEY_HEAD]
        joined = b'"'.join(raw)
        if len(raw) != len(lines) or b"\\" in joined:
            return False
        keys = joined.decode().split('"')
        add = entries.setdefault
        for key, one in zip(keys, itertools.accumulate([place, *[len(line) + 1 for line in lines]]), strict=False):
            if add(key, one) != one:
                self._add_other(entries, key, one)
        return True

    def _note_replacement(self, entries: dict[str, int], place: int, line: bytes) -> bool:
        """Take in an entry that takes the place of others; False if it is no such thing."""
        try:
            record = orjson.loads(line)
            key = str.__str__(record["#key"])
            for name, offset in record["#replaces"]:
                self.drop(key, self.place(name, offset))
        except (ValueError, KeyError, TypeError):
            return False
        if place not in self._gone and entries.setdefault(key, place) != place:
            self._add_other(entries, key, place)
        return True

    def _note_foreign(self, file: JournalFile, lines: list[bytes], position: int) -> list[tuple[int, bytes]]:
        entries = self.failures if file.has_failures else self.entries
        offset = position
        damaged = []
        for line in lines:
            text = line.strip()
            place = file.first_place + offset
            if text and place not in self._gone:  # blank: exca deleted what was here
                try:
                    if not offset and text.startswith(b"metadata="):
                        file.cache_type = orjson.loads(text.removeprefix(b"metadata=")).get("cache_type")
                    else:
                        key = str.__str__(orjson.loads(text)["#key"])  # or TypeError
                        file.is_journal = True
                        if entries.setdefault(key, place) != place:
                            self._add_other(entries, key, place)
                except (ValueError, KeyError, TypeError, AttributeError):
                    damaged.append((offset, line))
            offset += len(line) + 1
        return damaged

    def _note_deletions(self, file: JournalFile, lines: list[bytes], position: int) -> list[tuple[int, bytes]]:  # noqa: ARG002
        offset = position
        damaged = []
        for line in lines:
            if line and not (is_sound(line) and self._note_deletion(line)):
                damaged.append((offset, line))
            offset += len(line) + 1
        return damaged

    def _note_deletion(self, line: bytes) -> bool:
        try:
            record = orjson.loads(line)
            self.drop(str.__str__(record["#key"]), self.place(record["#file"], record["#at"]))
        except (ValueError, KeyError, TypeError):
            return False
        return True

    def place(self, name: str, offset: int) -> int:
        """The place of what is at an offset of a journal; a TypeError for what can be none."""
        if type(name) is not str or type(offset) is not int:
            raise TypeError
        return self.file(name).first_place + offset

    def _add_other(self, entries: dict[str, int], key: str, place: int) -> None:
        """Take in a second entry for a key."""
        first, second = sorted((entries[key], place), key=self._order)
        entries[key] = first
        bisect.insort(self._others.setdefault((entries is self.failures, key), []), second, key=self._order)

    def _order(self, place: int) -> tuple[str, int]:
        return self._numbered[place >> _SHIFT].name, place & _OFFSET

    def file(self, name: str) -> JournalFile:
        """What is known of a journal."""
        file = self._by_name.get(name)
        if file is None:
            with self._lock:  # two threads must not give the same number
                file = self._by_name.get(name)
                if file is None:
                    file = JournalFile(self.folder, name, len(self._numbered) << _SHIFT)
                    self._numbered.append(file)
                    self._by_name[name] = file
        return file

    def add(self, key: str, journal: AppendFile, offset: int, length: int) -> int:
        """Take in a line that this thread wrote itself; returns its place."""
        try:
            file = self._by_name[journal.name]
        except KeyError:
            file = self.file(journal.name)
        place = file.first_place + offset
        # without the lock: only this thread appends to the journal, and a refresh at the same time reads the same
        if file.position == offset:  # else there are lines in between, which the next refresh reads
            file.position = offset + length
            entries = self.failures if file.has_failures else self.entries
            if entries.setdefault(key, place) != place:
                with self._lock:
                    self._add_other(entries, key, place)
            if not offset:
                file.inode = journal.inode()
        return place

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
            # what `JournalFile.line` does, without another call for each of many entries
            start, near, checked = file.near
            offset = place & _OFFSET
            end = near.find(b"\n", offset - start) if offset >= start else -1
            if end < 0:
                line = file.line(offset)
            else:
                line = near[offset - start : end]
                if offset >= checked and crc32(line):
                    return None
            return file, _loads(line)
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        except OSError as error:
            raise _unreadable(file.path, error) from error

    def foreign_files(self) -> set[str]:
        """Names of the journals of exca, and of the data files that their entries name."""
        names = {file.name for file in self._numbered if file.is_journal and not file.is_own}
        for place in list(self.entries.values()):
            if not self._numbered[place >> _SHIFT].is_own and (found := self.read(place)) is not None:
                names.update(files_in(found[1]))
        return {name for name in names if not name.startswith("/") and ".." not in name.split("/")}

    def others(self, key: str) -> list[int]:
        """Entries that another one wins over."""
        return list(self._others.get((False, key), ()))

    def duplicates(self) -> Iterator[tuple[str, int]]:
        """Keys and places of the entries that other entries for their keys win over."""
        return ((key, place) for (_, key), places in list(self._others.items()) for place in places)

    def describe(self, place: int) -> tuple[str, int]:
        """The name of an entry's journal and its offset in it."""
        return self._numbered[place >> _SHIFT].name, place & _OFFSET

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.__init__(self.folder)  # type: ignore[misc]


def _last_sound(line: bytes) -> int | None:
    """Where the last line begins, if the one before it lost its end."""
    begin = line.find(b'{"#', 1)
    while begin >= 0:
        if is_sound(line[begin:]):
            return begin
        begin = line.find(b'{"#', begin + 1)
    return None


def _unreadable(path: str, error: OSError) -> CacheFolderError:
    return CacheFolderError(error.errno, f"can't read {path}: {error.strerror}. Check its permissions and the file system.")
