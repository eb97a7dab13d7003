"""Check of a folder of entries, byte by byte, and its repair."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from exca_like import files
from exca_like.cachedict import blocks
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.compact import (
    QUIET_S,
    blobs_in,
    claimed,
    compact_folder,
    data_files,
    delete_at,
    held_writers,
    tokens_of,
)
from exca_like.cachedict.context import DumpContext
from exca_like.cachedict.handlers.paths import blobs_of
from exca_like.cachedict.index import Index
from exca_like.cachedict.journal import JOURNALS, OWN_JOURNAL, WRITER, files_in, infos_in, spans_in
from exca_like.cachedict.lines import damaged_lines
from exca_like.cachedict.writer import DATA, Writer, host_name
from exca_like.errors import CorruptEntryError
from exca_like.layout import FULL_UID, UID

_ROUNDS = 4
_UNREAD = "it may be sound"
_NO_JOURNAL = "no journal is there that names it"
_COMPUTED = "somebody computes here: repeat the repair when that has ended"
_PACKED = re.compile(rf"{WRITER}\..+")  # files of no user have such names
_AT_WORK = "its writer is at work, or of another machine and was so within a day: repeat the repair when that has ended"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a folder of entries.

    ``kind`` is ``"missing"`` (an entry's data file is not there), ``"torn"`` (a file ends too early), ``"corrupt"`` (a
    checksum does not match), ``"orphaned"`` (a file that no entry needs), ``"duplicate"`` (a second entry for a key),
    ``"config"`` (a yaml file that can't be read as one, or belongs to another config than its folder) or ``"unreadable"`` (a
    folder that can't be looked into, about which nothing is known; data or a yaml file that may not be read).
    """

    kind: Literal["missing", "torn", "corrupt", "orphaned", "duplicate", "config", "unreadable"]
    path: Path
    detail: str
    key: str | None = None
    offset: int | None = None
    kept: str | None = field(default=None, compare=False)
    """Why a repair has left it as it is."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.detail}" + (f" (left as it is: {self.kept})" if self.kept else "")


def has_journals(names: Iterable[str]) -> bool:
    """Whether there are journals among the files of a folder."""
    return any(name.endswith(JOURNALS) for name in names)


def has_data_alone(folder: str, names: Collection[str]) -> bool:
    """Whether a folder with these files has no journals, but data that writers left: a user's folder may be called so, too."""
    if has_journals(names) or not os.path.isdir(f"{folder}/{DATA}"):
        return False
    if UID in names or FULL_UID in names:
        return bool(_own_data_files(folder) or blobs_in(folder))
    return bool(_packed(folder))


def _packed(folder: str) -> list[str]:
    """Names of the packed data files of a folder."""
    return [name for name in os.listdir(f"{folder}/{DATA}") if _PACKED.fullmatch(name)]


def examine(folder: str) -> tuple[int, list[Problem]]:
    """Number of entries (values and errors) of a folder, and what is wrong with it; every stored byte is read."""
    damaged = list(_check_journals(folder))
    data = _own_data_files(folder)
    busy = held_writers(folder)  # after the files were listed: a writer that ended since has written its lines
    index = Index(folder)
    index.refresh()
    suspects = list(_check_entries(index))
    if suspects:  # they may have been deleted or moved meanwhile
        index.refresh()
        suspects = [p for p in suspects if index.place(p.path.name, p.offset or 0) in index.places(p.key or "")]
    number = len(index.entries) + len(index.failures)
    return number, [*_settled(damaged), *suspects, *_duplicates(index, suspects), *_orphans(index, data, busy)]


def repair(
    folder: str,
    problems: list[Problem],
    permissions: int | None = None,
    job_is_over: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> list[Problem]:
    """Delete damaged and duplicate entries, rewrite damaged journals, and remove orphaned files.

    Returns what remains: the files of writers that are at work are left as they are, and so are data without a journal while
    somebody computes, unless the job is over.
    """
    if not has_journals(os.listdir(folder)):
        return _repair_alone(folder, problems, FolderClaims(folder, FULL_UID, job_is_over))
    for _ in range(_ROUNDS):  # what a deletion leaves behind is the next round's
        writer = Writer(folder, files.mode_in(folder) if permissions is None else permissions)
        for problem in problems:
            if problem.kind == "unreadable":
                continue
            if problem.key is not None and problem.offset is not None:
                delete_at(writer, problem.key, problem.path.name, problem.offset)
            elif problem.kind == "orphaned":
                _remove(str(problem.path), f"{folder}/{DATA}/")
        writer.end()
        compact_folder(folder, permissions)
        before, problems = problems, examine(folder)[1]
        if not problems or problems == before:
            break
    busy = held_writers(folder)
    return [replace(problem, kept=_why_kept(problem, busy)) for problem in problems]


def _repair_alone(folder: str, problems: list[Problem], claims: FolderClaims) -> list[Problem]:
    """Remove the data of a folder without journals, unless some may be about to come."""
    with claims.quiet() if os.path.exists(f"{folder}/{FULL_UID}") else contextlib.nullcontext() as owner:
        why = _COMPUTED if owner is not None else _AT_WORK if _is_arriving(folder) else None
        if why is not None:
            return [replace(problem, kept=why) for problem in problems]
        problems = examine(folder)[1]  # nobody adds to it now
        if not has_journals(os.listdir(folder)):
            for problem in problems:
                _remove(str(problem.path), f"{folder}/{DATA}/")
    return examine(folder)[1]


def _is_arriving(folder: str) -> bool:
    """Whether a push, or another machine, may be writing the data of a folder before its journal can be seen here.

    Of a file in which only one entry is, the name does not tell by whom it was written.
    """
    here = {name for name in _packed(folder) if name.partition(".")[0].rsplit("-", 2)[0] == host_name()}
    for path in data_files(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.path.basename(path) not in here and time.time() - os.stat(path).st_mtime < QUIET_S:
                return True
    return False


def _why_kept(problem: Problem, busy: set[str]) -> str | None:
    if problem.kind == "unreadable":
        return _UNREAD
    return _AT_WORK if problem.path.name.rpartition("-")[0] in busy else None


def _remove(path: str, below: str) -> None:
    """Remove a file, and the folders that it leaves empty."""
    files.remove(path)
    with contextlib.suppress(OSError):  # there is more in it
        while (path := os.path.dirname(path)).startswith(below):
            os.rmdir(path)


def _check_journals(folder: str) -> Iterator[Problem]:
    for name in sorted(os.listdir(folder)):
        if OWN_JOURNAL.fullmatch(name):
            yield from _check_journal(Path(folder, name))


def _check_journal(path: Path) -> Iterator[Problem]:
    try:
        data = files.read_bytes(str(path))
    except FileNotFoundError:
        return
    except OSError as error:
        yield Problem("unreadable", path, f"it can't be read: {error.strerror}")
        return
    for offset, _ in damaged_lines(data):
        yield Problem("corrupt", path, f"the line at byte {offset} does not match its checksum")
    end = data.rfind(b"\n") + 1
    if end < len(data):
        yield Problem("torn", path, f"the last line, at byte {end}, is not complete")


def _settled(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Problems of journals, without last lines that a writer at work may be about to complete."""
    for problem in problems:
        if problem.kind == "torn":
            with claimed(str(problem.path.parent), [problem.path.name.rpartition("-")[0]]) as idle:
                # its writer may have ended, or begun, since the look before
                yield from (now for now in _check_journal(problem.path) if idle and now.kind == "torn")
        else:
            yield problem


def _check_entries(index: Index) -> Iterator[Problem]:
    for key in sorted({*index.entries, *index.failures}):
        for place in index.places(key):
            found = index.read(place)
            if found is None:
                continue  # its line is reported already
            file, info = found
            journal, offset = index.describe(place)
            context = DumpContext.for_loading(index.folder, key, (), info.get("#writer", file.writer), "never", "full")
            kind: Literal["missing", "torn", "corrupt", "unreadable"]
            try:
                context.spans = info.get("#data", ())
                context.check_all()
                if not file.is_own:  # exca stores no checksums
                    for name in files_in(info):
                        os.stat(context.path(name))
                continue
            except FileNotFoundError as error:
                kind, detail = "missing", f"{error.filename} is not there"
            except blocks.TooShortError as error:
                kind, detail = "torn", str(error)
            except CorruptEntryError as error:
                kind, detail = "corrupt", str(error)
            except OSError as error:  # it may be sound: who may not read it, must not remove it
                kind, detail = "unreadable", error.strerror or str(error)
            yield Problem(kind, Path(index.folder, journal), f"the entry at byte {offset}: {detail}", key, offset)


def _duplicates(index: Index, damaged: list[Problem]) -> Iterator[Problem]:
    """Second entries for keys that have a sound one."""
    bad = {(problem.path.name, problem.offset) for problem in damaged}
    for key in {key for key, _ in index.duplicates()}:
        for name, offset in [place for place in map(index.describe, index.places(key)) if place not in bad][1:]:
            yield _duplicate(index, key, name, offset)


def _duplicate(index: Index, key: str, name: str, offset: int) -> Problem:
    detail = f"the entry at byte {offset} is not the only one for its key"
    return Problem("duplicate", Path(index.folder, name), detail, key, offset)


def _own_data_files(folder: str) -> list[tuple[Path, set[str]]]:
    """Data files, with what may be the tokens of their writers."""
    return [(Path(path), tokens) for path in data_files(folder) if (tokens := tokens_of(folder, path))]


def _unit(name: str) -> str:
    """What a data file is part of: itself, or the folder of an entry's that it is in."""
    return "/".join(name.split("/")[:3])


def _holds_something(path: Path) -> bool:
    """Whether a file is there, and is no packed one with nothing in it, as after a write for which there was no space."""
    try:
        return path.lstat().st_size > 0 or path.parent.name != DATA
    except FileNotFoundError:  # removed meanwhile
        return False


def _orphans(index: Index, data: list[tuple[Path, set[str]]], busy: set[str]) -> Iterator[Problem]:
    needed: set[str] = set()
    shared: set[str] = set()
    for key in {*index.entries, *index.failures}:
        for place in index.places(key):
            if (found := index.read(place)) is not None:
                file, info = found
                owner = info.get("#writer", file.writer)
                needed |= {f"{DATA}/{owner}{name}" if name[0] == "." else _unit(name) for name, *_ in spans_in(info)}
                for part in infos_in(info):
                    if part["#type"] == "Files" and "filename" in part:  # a folder may hold no file that has checksums
                        needed.add(_unit(part["filename"]))
                        shared.update(blobs_of(part))
    working = {writer.rpartition("-")[2] for writer in busy}
    names = os.listdir(index.folder)
    temporary = [Path(index.folder, name) for name in names]
    why = "no entry needs it" if has_journals(names) else _NO_JOURNAL
    for path, tokens in data:
        unit = _unit(str(path.relative_to(index.folder)))
        if os.path.basename(unit).startswith(files.TEMPORARY_PREFIX):
            temporary.append(path)  # which a push writes that is under way, or was killed
        elif unit not in needed and not tokens & working and _holds_something(path):
            yield Problem("orphaned", path, why)
    for name in blobs_in(index.folder):
        with contextlib.suppress(FileNotFoundError):
            # a copy of the folder may have files of their own in place of links
            if os.lstat(name).st_nlink == 1 and os.path.relpath(name, index.folder) not in shared:
                yield Problem("orphaned", Path(name), "no entry has a link to it")
    for path in temporary:
        if files.is_stale(str(path)) and path.is_file():
            yield Problem("orphaned", path, "a temporary file that was left behind")
