"""What the folders below a cache root hold, told from their files alone: no code of the user's is imported.

Each folder is looked at again only if it changed: its own time stamp tells of new and removed files, and the sizes and
times of its journals tell of what was appended.
"""

import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from zlib import crc32

import orjson

from exca_like import files, layout, pins
from exca_like.cachedict.claims import SUFFIX as CLAIM
from exca_like.cachedict.digests import Digests, digests_of, ordered
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.index import Index
from exca_like.cachedict.journal import FAILED, INFO, JOURNALS, OWN_JOURNAL
from exca_like.cachedict.lines import KEY_HEAD, is_damaged
from exca_like.cachedict.writer import DATA
from exca_like.overlapping import overlapped
from exca_like.recording import noted

Kind = Literal["task", "map", "memo", ""]
"""A task has one result; a map has one for each item, a memoised function one for each call; empty if nothing tells."""

Wanted = Callable[[str, bool], bool]
"""Whether somebody asks for entries of a folder, given its name below the root, and whether that is known to be their uid."""

_SIGNS = frozenset((layout.CONFIG, layout.UID, layout.FULL_UID, layout.JOB, layout.EXCA_JOB))
_ENDINGS = (*JOURNALS, CLAIM)
_REPLACED = frozenset((layout.PIN, layout.JOB))  # files that change, which their names don't show
_NO_ENTRIES = frozenset((layout.PROVENANCE, "logs", "code"))
_SETTLED_NS = 2_000_000_000  # coarser than the time stamps of any file system in use
_LARGEST = 1 << 16  # bytes of a journal that may have one line
_UNUSED = ("config", "fingerprint", "extra")  # of what is noted beside a result: it takes memory
_LONGEST = 300  # characters of a message


class Stored(NamedTuple):
    """A result or an error, by what its line says."""

    key: str
    is_value: bool
    meta: dict[str, Any]
    """Of what is stored beside it: ``time``, ``duration``, ``memory``, ``host``, ``job``, ``run``, ``code``, ``pin``."""
    size: int
    """Bytes on disk."""
    reason: str = ""
    """Of an error: ``"error"`` for an exception, else why the job ended."""
    message: str = ""
    """Of an error: its type and the first line of its message."""


@dataclass(slots=True)
class Content:
    """What a folder held when it was read."""

    path: str
    kind: Kind = ""
    stored: Sequence[Stored] = ()
    """Of a task the one outcome, of a memoised function all; of a map none."""
    values: int = 0
    failures: int = 0
    size: int = 0
    """Bytes of journals and data."""
    changed: float = 0.0
    """When a journal was written to last, in seconds since the epoch."""
    pinned: pins.Pinned = pins.NOTHING
    used: float = 0.0
    """When a journal was read last before this look, as far as the file system tells; else as ``changed``."""
    job: dict[str, Any] | None = None
    """What was noted when a job was submitted for the task, unless that has a result; see `job_record`."""
    is_exca: bool = False
    """Whether exca keeps a task's job and result here, in its own way."""
    is_damaged: bool = False
    """Whether nothing is stored, and a line that would say what was is damaged."""
    is_unnamed: bool = False
    """Whether there are data, but no journal that says of what."""
    claims: Sequence[str] = ()
    """Names of claims, of whoever computes something now, or did."""
    digests: Digests = ()
    """Of the keys of what is stored, sorted, if there are claims: what was claimed and is not among them is not there."""
    shown: Any = None
    """What is remembered of it by who shows it."""


@dataclass(slots=True)
class _Known:
    """A folder as it was seen last."""

    stamp: int
    """Its time of change; -1 if a change since then may not show."""
    names: list[str]
    folders: list[str]
    has_entries: bool
    journals: tuple[tuple[str, int, int], ...] = ()
    content: Content | None = field(default=None, repr=False)
    index: Index | None = field(default=None, repr=False)
    """Of a folder with claims, of which only what is written meanwhile is to be read the next time."""


class Scanner:
    """Reads the folders below a root, and remembers what it has read.

    Parameters
    ----------
    root:
        The folder of infras, as an absolute path.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.name = root
        """What messages call it."""
        self._known: dict[str, _Known] = {}
        self.unreadable: list[str] = []
        """Paths that could not be read at the last look."""

    def contents(self, wanted: Wanted | None = None) -> list[Content]:
        """What each folder with entries holds now, in order of the names; those that are not wanted are not read."""
        seen: dict[str, _Known] = {}
        found: list[Content] = []
        self.unreadable.clear()
        paths = [self.root]
        while paths:  # all on one level together, so that one waits for many at once
            below: list[str] = []
            for path, visit in zip(paths, overlapped(lambda path: self._visit(path, wanted), paths), strict=True):
                if visit is None:
                    continue
                known, content = visit
                seen[path] = known
                if content is not None:
                    found.append(content)
                excluded = (DATA,) if known.has_entries else _NO_ENTRIES if path == self.root else ()
                below += [f"{path}/{name}" for name in known.folders if name not in excluded]
            paths = below
        self._known = seen
        return sorted(found, key=lambda content: content.path.split("/"))

    def again(self, content: Content) -> Content | None:
        """What a folder holds now; ``content`` itself if nothing was written since that was read, None if it is gone."""
        known = self._known.get(content.path)
        before = None if known is None else (known.names, known.journals)
        visit = self._visit(content.path, None)
        if visit is None:
            return None
        fresh, found = visit
        self._known[content.path] = fresh
        return content if (fresh.names, fresh.journals) == before else found

    def _visit(self, path: str, wanted: Wanted | None) -> tuple[_Known, Content | None] | None:
        """A folder as it is now, with its content if that is wanted; None if it is gone or can't be read."""
        try:
            known = self._look(path)
        except OSError as error:
            self._note(path, error)
            return None
        if known.has_entries:
            uid = path[len(self.root) :].strip("/") or "."
            if wanted is None or wanted(uid, False):  # noqa: FBT003 - to know it, it has to be read
                return known, self._read(path, known)
        return known, None

    def _note(self, path: str, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # else it was removed meanwhile
            self.unreadable.append(path)

    def _look(self, path: str) -> _Known:
        """The names in a folder."""
        stamp = os.stat(path).st_mtime_ns
        known = self._known.get(path)
        if known is not None and known.stamp == stamp:
            return known
        names: list[str] = []
        folders: list[str] = []
        now = time.time_ns()
        with os.scandir(path) as found:
            for one in found:
                if one.name[0] != ".":
                    (folders if one.is_dir(follow_symlinks=False) else names).append(one.name)
        has_entries = not _SIGNS.isdisjoint(names) or any(name.endswith(_ENDINGS) for name in names)
        fresh = _Known(stamp if now - stamp > _SETTLED_NS else -1, names, sorted(folders), has_entries)
        if known is not None and known.names == names and _REPLACED.isdisjoint(names):
            fresh.journals, fresh.content = known.journals, known.content
        if known is not None:
            fresh.index = known.index
        return fresh

    def _read(self, path: str, known: _Known) -> Content | None:
        """The content of a folder, read again if its journals changed; None if it is gone."""
        journals = []
        used = 0.0
        for name in known.names:
            if name.endswith(".jsonl"):
                try:
                    status = os.stat(f"{path}/{name}")
                except OSError:  # it was merged with others: the next look shows it
                    known.stamp = -1
                    continue
                journals.append((name, status.st_size, status.st_mtime_ns))
                used = max(used, status.st_atime, status.st_mtime)
        state = tuple(journals)
        if known.content is None or known.journals != state:
            try:
                known.content = _content_of(path, known, state)
            except OSError as error:
                self._note(path, error)
                return None
            except Exception as error:  # lines of another version, perhaps: others can be listed
                self.unreadable.append(f"{path} ({type(error).__name__}: {error})")
                return None
            known.journals = state
            known.content.used = used  # before they were read for this
        return known.content


def _content_of(path: str, known: _Known, journals: Sequence[tuple[str, int, int]]) -> Content:
    names = known.names
    content = Content(path, is_exca=layout.EXCA_JOB in names)
    if layout.PIN in names:
        content.pinned = pins.read(path)
    content.claims = [name for name in names if name.endswith(CLAIM)]
    outcomes = []
    for name, size, changed in journals:
        content.size += size
        content.changed = max(content.changed, changed / 1e9)
        if size and name.endswith((INFO, FAILED)):
            outcomes.append(name)
    record = _single(path, outcomes[0]) if len(journals) == len(outcomes) == 1 else None
    if record is not None:
        content.kind = _kind_of(record)
        content.values = int(record.get("#type") != "Failure")
        content.failures = 1 - content.values
        if content.kind != "map":
            content.stored = (_stored(record, content.size),)
        if content.claims:
            content.digests = digests_of([record["#key"]])
    elif journals:
        index = known.index or Index(path)
        _read_index(content, index)
        known.index = index if content.claims else None
        if not (content.values or content.failures):
            content.is_damaged = any(
                is_damaged(files.read_bytes(f"{path}/{name}")) for name in outcomes if OWN_JOURNAL.fullmatch(name)
            )
    if layout.JOB in names and not content.values:
        content.job = job_record(path)
    if not content.kind and (content.job is not None or content.is_exca):
        content.kind = "task"
    if content.is_exca:
        content.size += os.stat(f"{path}/{layout.EXCA_JOB}").st_size
    if DATA in known.folders or content.kind == "map" or (outcomes and record is None):
        has_lines = content.size > 0
        content.size += sum(_sizes(f"{path}/{DATA}"))
        content.is_unnamed = content.size > 0 and not (has_lines or content.is_exca)
    return content


def job_record(folder: str) -> dict[str, Any]:
    """What was noted when the job of a folder was submitted; empty if that can't be told."""
    try:
        record = orjson.loads(files.read_bytes(f"{folder}/{layout.JOB}"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _single(folder: str, name: str) -> dict[str, Any] | None:
    """The line of a journal, if it is just one, whole and sound."""
    if not OWN_JOURNAL.fullmatch(name):
        return None
    _, line = files.read_small(f"{folder}/{name}", _LARGEST, is_noted=False)
    if line[:9] != KEY_HEAD or line.find(b"\n") != len(line) - 1 or crc32(line[:-1]):
        return None
    record: dict[str, Any] = orjson.loads(line)
    return record


def _read_index(content: Content, index: Index) -> None:
    """Take in what there is in several journals, or lines."""
    index.refresh()
    failures = [key for key in index.failures if key not in index.entries]
    content.values, content.failures = len(index.entries), len(failures)
    if content.claims:
        content.digests = ordered(digests_of([*index.entries, *failures]))
    line = content.size // max(1, len(index.entries) + len(failures))  # bytes of each, more or less
    outcomes: list[Stored] = []
    for key, place in itertools.chain(index.entries.items(), ((key, index.failures[key]) for key in failures)):
        found = index.read(place)
        if found is None:
            continue
        record = found[1] | {"#key": key}
        content.kind = content.kind or ("task" if content.is_exca else _kind_of(record))
        if content.kind == "map":  # it may have a million items
            return
        outcomes.append(_stored(record, line))
    content.stored = outcomes


def _kind_of(record: dict[str, Any]) -> Kind:
    """What the first line of a folder tells."""
    meta = record.get("#meta")
    if not isinstance(meta, dict) or "config" not in meta:
        return "map"
    return "task" if record["#key"] == layout.RESULT else "memo"


def _stored(record: dict[str, Any], line: int) -> Stored:
    meta = dict(noted(record.get("#meta")))
    for name in _UNUSED:
        meta.pop(name, None)
    size = line + sum(span[2] for span in record.get("#data", ()))
    if record.get("#type") != "Failure":
        return Stored(record["#key"], is_value=True, meta=meta, size=size)
    failure = Failure.from_info(record)
    return Stored(record["#key"], is_value=False, meta=meta, size=size, reason=failure.reason, message=summary(failure))


def summary(failure: Failure) -> str:
    """The type of an error and the first line of its message; of a job that left no result, what was said last."""
    lines = failure.message.strip().splitlines() or [""]
    if failure.reason != "error" and failure.last_words:
        return failure.last_words[:_LONGEST]
    return f"{failure.type.rpartition('.')[2]}: {lines[0]}"[:_LONGEST].rstrip(": ")


def _sizes(folder: str) -> Iterator[int]:
    """Bytes of the files below a folder."""
    try:
        with os.scandir(folder) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    yield from _sizes(one.path)
                else:
                    yield one.stat(follow_symlinks=False).st_size
    except OSError:  # it is not there, or not any more
        return
