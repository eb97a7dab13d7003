"""From what folders hold to entries: what is stored, and how that stands which is not."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from exca_like import files, layout, yamltext
from exca_like.cachedict.owners import Owner, describe
from exca_like.entries import Entry, Status, claims_of, end_of, handle_of
from exca_like.errors import CacheFolderError, ExcaLikeError
from exca_like.executors.base import Ended, JobHandle
from exca_like.layout import EntryFolder
from exca_like.scanning import Content, Scanner, Stored
from exca_like.store import FolderStore
from exca_like.tables import count

_LOOKS = 3  # at a folder that changes while it is looked at
_DAMAGED = "what was stored is damaged: `exca-like verify` tells"
_UNNAMED = "data that no journal names: `exca-like verify` tells"


def look_again(entry: Entry) -> Sequence[Entry]:
    """What there is in the folder of an entry now, and below it."""
    root, scanner = str(entry.root), Scanner(entry.path)
    return [found for content in scanner.contents() for found in entries_of(content, root, scanner)]


def entries_of(content: Content, root: str, scanner: Scanner) -> Sequence[Entry]:
    """The entries of a folder, by what a scanner has found in it, or finds now if that has changed."""
    if content.shown is not None:
        return content.shown  # type: ignore[no-any-return]
    entries = tuple(_entries_of(content, root))
    for _ in range(_LOOKS):
        if not _has_ended(content, entries):
            break
        fresh = scanner.again(content)
        if fresh is content:
            break
        if fresh is None:  # it was removed
            return ()
        content, entries = fresh, tuple(_entries_of(fresh, root))
    is_open = content.claims or content.job is not None or not (content.values or content.failures)
    if not is_open:  # else it changes without a change of the folder
        content.shown = entries
    return entries


def _has_ended(content: Content, entries: Sequence[Entry]) -> bool:
    """Whether all who computed something are at an end: they may have stored it after the folder was read."""
    if any(entry.status in ("running", "queued") for entry in entries):
        return False
    has_job = content.job is not None and (not content.failures or _is_submitted_again(entries[0], content.job))
    return has_job or bool(content.claims)


def method_of(uid: str) -> tuple[str, str]:
    """Method and version of a folder, by its name below the root; empty for one with a name of the user's choice."""
    method, _, version = uid.partition("/")[0].rpartition(",")
    return (method, version) if method else ("", "")


def _entries_of(content: Content, root: str) -> Iterator[Entry]:
    uid = content.path[len(root) :].strip("/") or "."
    method, version = method_of(uid)
    if not method:  # a folder with a name of the user's choice
        method, version = _function_of(content.path) or (uid, "")
    common: dict[str, Any] = {
        "method": method,
        "version": version,
        "kind": content.kind,
        "path": content.path,
        "used": datetime.fromtimestamp(content.used, UTC) if content.used else None,
    }
    is_pinned = content.pinned.is_whole
    if content.kind == "memo":
        calls = Entry(uid=uid, status="empty", is_pinned=is_pinned, **common)
        if (found := _of_claims(calls, content)) is not calls:  # some have no result, or are computed anew
            yield found
        for one in content.stored:
            yield _of_outcome(common, f"{uid}/{one.key}", one, one.size, is_pinned or one.key in content.pinned.keys)
    elif content.kind == "task" and content.stored:
        entry = _of_outcome(common, uid, content.stored[0], content.size, is_pinned)
        again = content.job if content.job is not None and _is_submitted_again(entry, content.job) else None
        yield _of_claims(entry, content) if again is None else _of_job(entry, again)
    else:
        reason = _DAMAGED if content.is_damaged else _UNNAMED if content.is_unnamed else ""
        empty = Entry(uid=uid, status="empty", reason=reason, size=content.size, is_pinned=is_pinned, **common)
        if content.kind == "map":
            yield _of_map(empty, content)
        elif content.is_exca:
            yield _of_exca(replace(empty, key=layout.RESULT))
        else:
            entry = replace(empty, key=layout.RESULT if content.kind else "")
            yield _of_claims(entry, content) if content.job is None else _of_job(entry, content.job)


def _of_outcome(common: Mapping[str, Any], uid: str, one: Stored, size: int, is_pinned: bool) -> Entry:
    """A task, or a call of a memoised function, of which something is stored; made in one step, as there may be many."""
    meta = one.meta
    when, duration, job = meta.get("time"), meta.get("duration"), meta.get("job")
    return Entry(
        uid=uid,
        status="completed" if one.is_value else "failed",
        key=one.key,
        reason=one.message if one.reason in ("", "error", "failed") else f"{one.reason}: {one.message}",
        time=_moment(when),
        duration=duration if isinstance(duration, float | int) else None,
        size=size,
        values=int(one.is_value),
        failures=int(not one.is_value),
        job=job if isinstance(job, str) else None,
        is_pinned=is_pinned or bool(meta.get("pin")),
        **common,
    )


def _of_map(entry: Entry, content: Content) -> Entry:
    number = content.values + content.failures
    entry = replace(
        entry,
        status="failed" if content.failures else "completed",
        reason=f"{content.failures} of {number} items failed" if content.failures else "",
        time=datetime.fromtimestamp(content.changed, UTC),
        values=content.values,
        failures=content.failures,
    )
    return _of_claims(entry, content)


def _of_claims(entry: Entry, content: Content) -> Entry:
    """An entry that somebody computes now, if somebody does, or that somebody left who died."""
    if not content.claims:
        return entry
    holder, left = claims_of(content.path).look()
    if holder is not None:
        job = (holder.get("job") or {}).get("job_id")
        who = describe(holder) if holder else "somebody whose claim can't be read"
        return replace(entry, status="running", reason=who, job=job, time=entry.time or _moment(holder.get("since")))
    if entry.kind == "task" and (entry.values or entry.failures):
        return entry
    unfinished = tuple((one.owner, number) for one in left if (number := one.number(content.digests)) > 0)
    return _of_the_dead(replace(entry, unfinished=unfinished)) if unfinished else entry


def _of_the_dead(entry: Entry) -> Entry:
    """An entry of which those who died before they came to the end of it tell what they left."""
    ends = [_end_of_owner(owner) for owner, _ in entry.unfinished]
    # what the user has to mend comes first
    handle, ended, who = min(ends, key=lambda end: end[1] is None or end[1].interrupted)
    is_failure = ended is not None and not ended.interrupted
    others = f", and {len(ends) - 1} more" if len(ends) > 1 else ""
    number = sum(number for _, number in entry.unfinished)
    noun = "call" if entry.kind == "memo" else "item"
    items = f"{count(number, noun)} without a result: " if entry.kind in ("map", "memo") or number > 1 else ""
    failed = f"{entry.failures} of {entry.values + entry.failures + number} items failed; " if entry.failures else ""
    return replace(
        entry,
        status="failed" if is_failure or entry.failures else "lost",
        reason=f"{failed}{items}{who}{others}",
        time=entry.time or (_moment(entry.unfinished[0][0].get("since")) if handle is None else _end_of(handle)),
        job=None if handle is None else handle.job_id,
    )


def _moment(text: Any) -> datetime | None:
    """A time that was noted; None if it is none, as anything may be written there."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None


def _end_of_owner(owner: Owner) -> tuple[JobHandle | None, Ended | None, str]:
    """The job of somebody who died, how it ended, and what is to be said of it."""
    handle = handle_of(owner.get("job") or {})
    ended = None if handle is None else end_of(handle)
    if handle is None or ended is None:
        return None, None, f"{describe(owner) if owner else 'somebody'}, is gone"
    return handle, ended, f"{_why(ended)} (job {handle.job_id})"


def _why(ended: Ended) -> str:
    """How a job ended that left no result; that it failed or was lost, the status says."""
    if ended.reason == "completed":
        return "the job left no result"
    return ": ".join(filter(None, ("" if ended.reason in ("failed", "lost") else ended.reason, _last_line(ended.detail))))


def _of_job(entry: Entry, record: Mapping[str, Any]) -> Entry:
    """A task without an outcome of its last job, of which a record is there."""
    handle = handle_of(record)
    if handle is None:
        return entry
    submitted = _submitted(record)
    entry = replace(entry, job=handle.job_id)
    try:
        ended = handle.ended()
    except CacheFolderError as error:  # to be removed or computed again, it would have to be known
        return replace(entry, status="running", reason=f"or not: {error}", time=submitted)
    if ended is None:
        place = handle.whereabouts()
        where = f"on {place.node}" if place.node else ""
        status: Status = "running" if place.is_running else "queued"
        return replace(entry, status=status, reason=where or place.reason, time=submitted)
    if entry.failures:  # of the job before
        return entry
    entry = replace(entry, time=_end_of(handle) or submitted)
    status = "lost" if ended.interrupted else "failed"  # the former counts as not submitted
    is_told = ended.reason == "completed" and entry.reason
    return replace(entry, status=status, reason=entry.reason if is_told else _why(ended))


def _end_of(handle: JobHandle) -> datetime | None:
    """When a job ended, by what it wrote last; None if it wrote nothing."""
    for path in (handle.paths.ended, handle.paths.stderr, handle.paths.stdout):
        with contextlib.suppress(OSError):
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None


def _submitted(record: Mapping[str, Any]) -> datetime | None:
    """When the job of a task was submitted."""
    submitted = record.get("time")
    try:
        return datetime.fromtimestamp(submitted, UTC) if isinstance(submitted, float) else None
    except (OverflowError, ValueError, OSError):  # no time at all
        return None


def _of_exca(entry: Entry) -> Entry:
    outcome = FolderStore(EntryFolder(str(entry.root), entry.uid), dict, allow_pickle="never").peek(layout.RESULT)
    if outcome is None:
        return entry
    try:
        time = datetime.fromtimestamp(os.stat(f"{entry.path}/{layout.EXCA_JOB}").st_mtime, UTC)
    except FileNotFoundError:  # it was removed just now
        return entry
    is_value = outcome == "value"
    status: Status = "completed" if is_value else "failed"
    return replace(entry, status=status, time=time, values=int(is_value), failures=int(not is_value))


def _is_submitted_again(entry: Entry, record: Mapping[str, Any]) -> bool:
    """Whether a job was submitted after an error was stored."""
    submitted = _submitted(record)
    return entry.time is None or (submitted is not None and submitted > entry.time)


def _function_of(folder: str) -> tuple[str, str] | None:
    """Name and version of a memoised function whose results lie in a folder."""
    try:
        name = yamltext.load(files.read_bytes(f"{folder}/{layout.FULL_UID}").decode()).get("function")
    except (OSError, ExcaLikeError, UnicodeDecodeError):
        return None
    method, _, version = str(name or "").rpartition(",")
    return (method, version) if method else None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
