"""Merging the journals of writers that are gone: fewer files, and nothing that was deleted.

It is safe beside readers and writers. Journals in use are locked by their writers, and by whoever deletes an entry of
theirs, and are left alone. What is moved is appended to new journals first, so that at each moment every entry is in at
least one; a reader that finds an old file gone looks again.
"""

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from exca_like import files
from exca_like.cachedict import blocks
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.context import DumpContext
from exca_like.cachedict.index import Index
from exca_like.cachedict.journal import DELETED, FAILED, INFO, OWN_JOURNAL, infos_in, spans_in
from exca_like.cachedict.lines import REPLACING_HEAD, deletion, is_damaged, is_sound, seal
from exca_like.cachedict.writer import BLOBS, DATA, Writer, host_name
from exca_like.errors import CacheFolderError, CorruptEntryError
from exca_like.layout import FULL_UID

WRITER_TOKEN = re.compile(r"-([0-9a-f]{16})")  # in names of data files
_AT_ONCE = 100  # writers, of up to three journals each
QUIET_S = 86400.0  # seconds without a change after which a writer of another host is taken for gone
_COPIED = 64 << 20  # bytes; larger data files are copied only to get rid of a lot of garbage
_GARBAGE = 0.3


@dataclass(frozen=True)
class Compaction:
    """What `compact_folder` did: numbers of files and bytes, before and after."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    is_damaged: bool = False
    """Whether files were left as they are, as something in them is damaged, of which merging them would leave no trace."""


def compact_folder(folder: str, permissions: int | None = None, *, drops_damaged: bool = True) -> Compaction:
    """Merge what writers that are gone have left; drop deleted and duplicate lines, and their data.

    Damaged ones are dropped as well, or else all is left as it is where there are some.
    """
    before, stays = _size(folder), False
    if not _may_write(folder):
        msg = f"can't write to {folder}: check its permissions"
        raise CacheFolderError(errno.EACCES, msg)
    left = sorted(writers_of(folder))
    while left:  # not all at once: each journal that is held takes a descriptor
        some, left = left[:_AT_ONCE], left[_AT_ONCE:]
        try:
            with contextlib.ExitStack() as stack:
                with _staying(folder):
                    idle = stack.enter_context(claimed(folder, some))
                if not idle or not _is_worthwhile(folder, idle):
                    continue
                move = _Move(folder, idle, permissions)
                if not move.run(drops_damaged=drops_damaged):
                    stays = True
                    break
        except OSError as error:
            if error.errno != errno.ENOENT or writers_of(folder) & set(some):
                raise
            continue  # somebody has removed all of it just before
        if left:  # what was merged is merged with the next ones
            left.append(move.writer.name)
    after = _size(folder)
    return Compaction(before[0], after[0], before[1], after[1], stays)


def is_worth_compacting(folder: str) -> bool:
    """Whether `compact_folder` would find something to merge or to drop, as far as it looks at once."""
    with claimed(folder, sorted(writers_of(folder))[:_AT_ONCE]) as idle:
        try:
            return bool(idle) and _is_worthwhile(folder, idle)
        except FileNotFoundError:  # somebody has removed it just before
            return False


def writers_of(folder: str) -> set[str]:
    """Names of the writers that have journals in a folder."""
    return {match[1] for match in map(OWN_JOURNAL.fullmatch, _names(folder)) if match}


def held_writers(folder: str) -> set[str]:
    """Names of the writers that are at work in a folder."""
    held = set()
    for writer in writers_of(folder):
        with claimed(folder, [writer]) as idle:
            held |= {writer} - idle
    return held


def is_compacted(folder: str) -> bool:
    """Whether journals of a folder are being merged, or what was deleted from them is."""
    for writer in writers_of(folder):
        for kind in (INFO, FAILED, DELETED):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                descriptor = os.open(f"{folder}/{writer}{kind}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
                except OSError:  # a file system without locks
                    return False
                finally:
                    os.close(descriptor)
    return False


@contextlib.contextmanager
def _staying(folder: str) -> Iterator[None]:
    """A block in which nobody removes the folder of a config; who does so then sees that its journals are in use."""
    if os.path.exists(f"{folder}/{FULL_UID}"):
        with FolderClaims(folder, FULL_UID, lambda _: False).quiet():
            yield
    else:
        yield


def _may_write(folder: str) -> bool:
    """Whether files can be made in a folder, or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(folder: str) -> tuple[int, int]:
    sizes: dict[tuple[int, int], int] = {}  # a file with several names counts once
    for parent, _, names in os.walk(folder):
        if parent == folder or f"{parent}/".startswith(f"{folder}/{DATA}/"):
            for name in names:
                if parent != folder or name.endswith(".jsonl"):
                    with contextlib.suppress(FileNotFoundError):
                        status = os.lstat(f"{parent}/{name}")
                        sizes[status.st_dev, status.st_ino] = status.st_size
    return len(sizes), sum(sizes.values())


@contextlib.contextmanager
def claimed(folder: str, writers: Iterable[str]) -> Iterator[set[str]]:
    """Those of some writers that are gone, as far as one can tell; while the block lasts, they can't come back."""
    descriptors: list[int] = []
    idle = set()
    try:
        for writer in writers:
            if all(_claim(f"{folder}/{writer}{kind}", writer, descriptors) for kind in (INFO, FAILED, DELETED)):
                idle.add(writer)
        yield idle
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _claim(path: str, writer: str, descriptors: list[int]) -> bool:
    """Lock a journal, if there is one and nobody else uses it."""
    try:
        try:
            descriptors.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # network file systems ask for the right to write
        except PermissionError:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptors[-1])
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise CacheFolderError(error.errno, f"can't open {path}: {error.strerror}") from error
        return False  # it is in use, or on a file system without locks
    is_away = writer.rsplit("-", 2)[0] != host_name()
    return status.st_nlink > 0 and not (is_away and time.time() - status.st_mtime < QUIET_S)


def _is_worthwhile(folder: str, idle: set[str]) -> bool:
    """Whether there is anything to merge or to drop."""
    journals = [name for name in _names(folder) if (match := OWN_JOURNAL.fullmatch(name)) and match[1] in idle]
    kinds = [name.rpartition("-")[2] for name in journals]
    if len(kinds) > len(set(kinds)) or any(name.endswith(DELETED) for name in journals):
        return True
    index = Index(folder)
    index.refresh()
    places = [*index.entries.values(), *index.failures.values()]
    live = sum(index.describe(place)[0] in journals for place in places)
    lines = 0
    for name in journals:
        content = files.read_bytes(f"{folder}/{name}")
        lines += content.count(b"\n") + (not content.endswith(b"\n"))
    return lines != live


@dataclass(frozen=True)
class _Entry:
    """A live entry of a writer that is gone; ``owner`` is the writer that the short names of its data files stand for."""

    kind: str
    key: str
    place: int
    owner: str
    info: dict[str, Any]

    def packed(self) -> Iterator[list[Any]]:
        """Its spans in packed files."""
        return (span for span in spans_in(self.info) if span[0].startswith("."))


class _Move:
    """One compaction."""

    def __init__(self, folder: str, idle: set[str], permissions: int | None) -> None:
        self.folder = folder
        self.idle = idle
        self.index = Index(folder)
        self.writer = Writer(folder, files.mode_in(folder) if permissions is None else permissions)
        self.chosen: set[int] = set()

    def run(self, *, drops_damaged: bool) -> bool:
        """Do it; False, and nothing is done, if it would drop something damaged that is not to be dropped."""
        self.index.refresh()
        entries = list(self._entries())
        kept = self._owners_to_keep(entries)
        moved = (entry for entry in entries if entry.owner not in kept)
        if not drops_damaged and (self._has_damaged_lines() or not all(map(self._has_data, moved))):
            return False
        newest = self._newest()
        try:
            for entry in entries:
                self._move(entry, kept)
            self._keep_deletions({entry.key for entry in entries})
            self.writer.sync()
            self._remove(INFO, FAILED)
            self._remove(DELETED)
        finally:
            self.writer.end()
        self._date_back(newest)
        gone = tuple(f"{owner}." for owner in {*self.idle, *(entry.owner for entry in entries)} - kept)
        for name in _names(f"{self.folder}/{DATA}"):
            if name.startswith(gone):
                files.remove(f"{self.folder}/{DATA}/{name}")
        blocks.forget(self.folder)
        return True

    def _journals(self, *kinds: str) -> list[str]:
        """Paths of the journals of a kind that are merged."""
        found = ((name, OWN_JOURNAL.fullmatch(name)) for name in _names(self.folder) if name.endswith(kinds))
        return [f"{self.folder}/{name}" for name, match in found if match is not None and match[1] in self.idle]

    def _newest(self) -> int:
        """When the journals that are merged were written last, in nanoseconds; 0 if there are none."""
        found = [0]
        for path in self._journals(INFO, FAILED):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.stat(path).st_mtime_ns)
        return max(found)

    def _date_back(self, newest: int) -> None:
        """Give the new journals the time of what is in them, by which maps are listed and pruned."""
        for kind in (INFO, FAILED) if newest else ():
            path = f"{self.folder}/{self.writer.name}{kind}"
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(os.stat(path).st_atime_ns, newest))

    def _has_damaged_lines(self) -> bool:
        """Whether one of the journals has a line that is not what was written, or not complete."""
        return any(map(is_damaged, map(files.read_bytes, self._journals(INFO, FAILED, DELETED))))

    def _has_data(self, entry: _Entry) -> bool:
        """Whether the packed data of an entry can be moved."""
        try:
            for suffix, offset, length, _ in entry.packed():
                self._view(entry, suffix, offset, length)
        except (FileNotFoundError, CorruptEntryError):
            return False
        return True

    def _view(self, entry: _Entry, suffix: str, offset: int, length: int) -> memoryview | bytes:
        return blocks.view_of(f"{self.folder}/{DATA}/{entry.owner}{suffix}", offset, length) if length else b""

    def _entries(self) -> Iterator[_Entry]:
        for kind, entries in ((INFO, self.index.entries), (FAILED, self.index.failures)):
            for key, first in list(entries.items()):
                place = self._best(key, first, is_failure=kind == FAILED)
                self.chosen.add(place)
                match = OWN_JOURNAL.fullmatch(self.index.describe(place)[0])
                if match is not None and match[1] in self.idle:
                    found = self.index.read(place)
                    if found is not None:
                        info = found[1]
                        yield _Entry(kind, key, place, info.pop("#writer", match[1]), info)

    def _best(self, key: str, first: int, *, is_failure: bool) -> int:
        """Of several entries for a key, the first one that is sound."""
        places = [first] if is_failure else [first, *self.index.others(key)]
        return next((place for place in places if self._is_sound(key, place)), first) if len(places) > 1 else first

    def _is_sound(self, key: str, place: int) -> bool:
        found = self.index.read(place)
        if found is None:
            return False
        file, info = found
        owner = info.get("#writer", file.writer)
        context = DumpContext.for_loading(self.folder, key, info.get("#data", ()), owner, "never", "full")
        try:
            context.check_all()
        except (FileNotFoundError, CorruptEntryError):
            return False
        return True

    def _owners_to_keep(self, entries: list[_Entry]) -> set[str]:
        """Writers whose data files stay where they are: large ones without much garbage, or not known well enough."""
        live: dict[str, int] = {}
        kept = self._owners_of_others()
        for entry in entries:
            named = set(map(_place_of, infos_in(entry.info)))
            for name, offset, length, _ in entry.packed():
                live[entry.owner] = live.get(entry.owner, 0) + length
                if (name, offset) not in named:  # the place is written down somewhere else, by a handler of a user's
                    kept.add(entry.owner)
        for owner, length in live.items():
            sizes = (_size_of(f"{self.folder}/{DATA}/{name}") for name in self._data_of(owner))
            if (size := sum(sizes)) > _COPIED and length > size * (1 - _GARBAGE):
                kept.add(owner)
        return kept

    def _owners_of_others(self) -> set[str]:
        """Writers whose data files are needed by entries in journals that stay."""
        owners = set()
        for place in [*self.index.entries.values(), *self.index.failures.values()]:
            writer = self.index.describe(place)[0].rpartition("-")[0]
            if writer not in self.idle and (found := self.index.read(place)) is not None:
                owners.add(found[1].get("#writer", writer))
        return owners

    def _data_of(self, owner: str) -> list[str]:
        return [name for name in _names(f"{self.folder}/{DATA}") if name.startswith(f"{owner}.")]

    def _move(self, entry: _Entry, kept: set[str]) -> None:
        """Append an entry to the new journal, and its data to the new files."""
        journal = self.writer.ready(entry.kind)
        info = entry.info
        if entry.owner in kept:
            info["#writer"] = entry.owner
        else:
            renamed: dict[tuple[str, int], int] = {}
            for span in entry.packed():
                suffix, offset, length, _ = span
                try:
                    view = self._view(entry, suffix, offset, length)
                except (FileNotFoundError, CorruptEntryError):  # there is nothing left of it
                    return
                span[1] = renamed[suffix, offset] = self.writer.append(suffix, view)
            _rename(info, renamed)
        for mark in ("#sum", "#key", "#replaces"):
            info.pop(mark, None)
        self.writer.append_line(journal, seal({"#key": entry.key, **info}))

    def _keep_deletions(self, moved: set[str]) -> None:
        """Carry over what idle writers deleted or replaced in journals that stay."""
        for writer in self.idle:
            for key, name, offset in _deletions_by(self.folder, writer):
                self._delete_in_others(key, name, offset)
        for key, place in self.index.duplicates():  # which must not win over the moved entry because of its new place
            if key in moved and place not in self.chosen:
                self._delete_in_others(key, *self.index.describe(place))

    def _delete_in_others(self, key: str, name: str, offset: int) -> None:
        match = OWN_JOURNAL.fullmatch(name)
        if not (match is not None and match[1] in self.idle) and os.path.exists(f"{self.folder}/{name}"):
            delete_at(self.writer, key, name, offset)

    def _remove(self, *kinds: str) -> None:
        for path in self._journals(*kinds):
            files.remove(path)


def drop_empty(folder: str) -> None:
    """Remove the files of writers that are gone and of which nothing is left."""
    writers = writers_of(folder)
    if len(writers) > _AT_ONCE:
        return  # `compact_folder` does it
    index = Index(folder)
    with claimed(folder, writers) as idle:
        index.refresh()
        places = [*index.entries.values(), *index.failures.values(), *(place for _, place in index.duplicates())]
        used = {index.describe(place)[0].rpartition("-")[0] for place in places}
        used |= {info["#writer"] for place in places if (found := index.read(place)) and "#writer" in (info := found[1])}
        empty = idle - used
        targets = {writer: {name.rpartition("-")[0] for _, name, _ in _deletions_by(folder, writer)} for writer in empty}
        present = {name.rpartition("-")[0] for name in _names(folder) if name.endswith((INFO, FAILED))}  # those of exca, too
        while needed := {writer for writer in empty if targets[writer] & present - empty}:
            empty -= needed
        _remove_writers(folder, empty)
    blocks.forget(folder)


def _remove_writers(folder: str, writers: set[str]) -> None:
    """Remove the journals and the packed data of writers."""
    for kinds in ((INFO, FAILED), (DELETED,)):  # what is deleted must not come back for a moment
        for name in [writer + kind for writer in writers for kind in kinds]:
            files.remove(f"{folder}/{name}")
    for name in _names(f"{folder}/{DATA}"):
        if name.startswith(tuple(f"{writer}." for writer in writers)):
            files.remove(f"{folder}/{DATA}/{name}")


def clear_folder(folder: str) -> bool:
    """Remove the files of all writers that are gone, and of exca; returns whether there are others."""
    index = Index(folder)
    index.refresh()
    for name in index.foreign_files():
        files.remove(f"{folder}/{name}")
    busy = set()
    for writer in sorted(writers_of(folder)):
        with claimed(folder, [writer]) as idle:
            _remove_writers(folder, idle)
            busy |= {writer} - idle
    tokens = {writer.rpartition("-")[2] for writer in busy}
    for path in data_files(folder):
        found = tokens_of(folder, path)
        if found and not found & tokens:
            files.remove(path)
    for path in blobs_in(folder):
        files.remove_last_name(path)
    for parent, folders, _ in os.walk(f"{folder}/{DATA}", topdown=False):
        for name in [*folders, ""]:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(f"{parent}/{name}")
    blocks.forget(folder)
    return bool(busy)


def data_files(folder: str) -> list[str]:
    """Paths of all files and links below the data of a folder, but those of blobs."""
    found = []
    for parent, folders, names in os.walk(f"{folder}/{DATA}"):
        if parent == f"{folder}/{DATA}":
            folders[:] = [name for name in folders if f"{DATA}/{name}" != BLOBS]
        links = [name for name in folders if os.path.islink(f"{parent}/{name}")]
        found += [f"{parent}/{name}" for name in (*names, *links)]
    return found


def tokens_of(folder: str, path: str) -> set[str]:
    """What may be the tokens of the writer of a data file; names that users gave to files say nothing of it."""
    return set(WRITER_TOKEN.findall("/".join(path.removeprefix(f"{folder}/").split("/")[:3])))


def blobs_in(folder: str) -> list[str]:
    """Paths of all files of users, by their content."""
    return [f"{parent}/{name}" for parent, _, names in os.walk(f"{folder}/{BLOBS}") for name in names]


def _deletions_by(folder: str, writer: str) -> Iterator[tuple[str, str, int]]:
    """Key, journal and offset of what a writer deleted or replaced."""
    for kind in (INFO, FAILED, DELETED):
        try:
            lines = files.read_bytes(f"{folder}/{writer}{kind}").split(b"\n")
        except FileNotFoundError:
            continue
        for line in lines:
            if (kind == DELETED or line.startswith(REPLACING_HEAD)) and is_sound(line):
                record = orjson.loads(line)
                for name, offset in record.get("#replaces") or [(record["#file"], record["#at"])]:
                    yield record["#key"], name, offset


def delete_at(writer: Writer, key: str, name: str, offset: int) -> None:
    """Record the deletion of an entry that is at an offset of a journal."""
    writer.append_line(writer.ready(DELETED), deletion(key, name, offset))


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _place_of(info: dict[str, Any]) -> tuple[str, int] | None:
    name, offset = info.get("filename"), info.get("offset")
    return (name, offset) if isinstance(name, str) and isinstance(offset, int) else None


def _rename(info: dict[str, Any], renamed: dict[tuple[str, int], int]) -> None:
    """Put new places into an entry."""
    for part in infos_in(info):
        place = _place_of(part)
        if place in renamed:
            part["offset"] = renamed[place]
