"""Removing what is stored, to free space: what was chosen, or what is old, large or long unused.

What is pinned, and what somebody computes or is about to, is never removed. Both are looked at again at the moment of the
removal, under the lock that whoever claims or pins something takes. A folder is renamed to a hidden name in one step, and then
deleted, so that others see all of it or nothing; who has an array of it mapped reads on.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from exca_like import files, hits, tables
from exca_like.cachedict import CacheDict, blocks
from exca_like.cachedict.compact import held_writers, is_compacted
from exca_like.cachedict.writer import DATA
from exca_like.catalog import Catalog
from exca_like.entries import Entry, Status, claims_of
from exca_like.errors import CacheFolderError, ConfigTypeError, ConfigValueError, ExcaLikeError
from exca_like.filters import moment
from exca_like.listing import look_again

Policy = Literal["oldest", "size", "lru", "lfu"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?i?)b?", re.IGNORECASE)
_AT_ONCE = 1000  # calls that are removed under one lock
_GONE = "it is gone already"
_NO_LOCKS = "its file system has no locks, to keep others from computing it meanwhile: delete it by hand, while nothing runs"
_CHANGED = "it has changed since it was looked at"


@dataclass(frozen=True)
class Removal:
    """Something that is (with ``dry_run``: would be) removed, or is not, because of a problem."""

    entry: Entry
    reason: str
    """Why it is to be removed."""
    problem: str | None = None
    """Why it is not."""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.entry.size


def remove(entries: Iterable[Entry] | Entry, *, dry_run: bool = True) -> list[Removal]:
    """Remove entries: tasks and maps with their folders, calls of memoised functions one by one.

    Of calls that have no result, as whoever computed them died, only the note of that is removed.
    The space of the packed data of calls is freed by the next `exca_like.maintenance.compact`.

    Parameters
    ----------
    entries:
        What to remove, one or several, as a catalog gives them. What has changed since then is not removed.
    dry_run:
        Only tell what would be removed.

    Returns
    -------
    list of Removal
        One for each entry, in their order; with a ``problem`` if it stays.

    Raises
    ------
    TypeError
        Something is no entry.

    Examples
    --------
    >>> remove(Catalog("/scratch/cache").filter("Train.run", status="failed"), dry_run=False)  # doctest: +SKIP
    """
    distinct = {entry.uid: entry for entry in _entries(entries)}
    planned = [Removal(entry, "chosen", _objection(entry)) for entry in distinct.values()]
    return planned if dry_run else _carry_out(planned)


def _entries(given: Any) -> list[Entry]:
    """One entry or several, as a list."""
    if isinstance(given, Entry):
        return [given]
    found: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for one in found:
        if not isinstance(one, Entry):
            hint = f": Catalog(folder).named([{one!r:.100}]) gives what a text names" if isinstance(one, str) else ""
            msg = f"remove takes entries of a catalog, not {one!r:.100}{hint}"
            raise ConfigTypeError(msg)
    return found


def prune(
    folder_or_catalog: str | Path | Catalog,
    *,
    older_than: str | datetime | timedelta | None = None,
    max_size: int | str | None = None,
    keep_last: int | None = None,
    policy: Policy = "oldest",
    status: Status | Sequence[Status] | None = None,
    dry_run: bool = True,
) -> list[Removal]:
    """Remove what is old, and then what is more than a size; never what is pinned, running or queued.

    Parameters
    ----------
    folder_or_catalog:
        A cache root, or a catalog, whose filter says what counts and may be removed.
    older_than:
        Remove what was stored before a time, or longer ago than an age like ``"30d"``.
    max_size:
        Then go on until what is left takes no more bytes than this, or than ``"50GB"``.
    keep_last:
        Never remove the newest results of each method and version, this many (with ``status``, of what has that); errors do
        not count. Given without ``older_than`` and ``max_size``, all others are removed, errors, too.
    policy:
        What ``max_size`` removes first: what was stored longest ago, what is largest, (``"lru"``) what was read longest ago,
        or (``"lfu"``) what was taken from the cache the fewest times, as `exca_like.entries.Entry.hits` says, and of that what
        was read longest ago.
        File systems note the last reading only roughly (often once a day), and some not at all; then the time of storing
        counts. To look at maps and memoised functions with a catalog is to read them, to look at tasks is not.
    status:
        Remove only what has this status, or one of these. Given alone, all of it is removed. A map of which some items failed
        or were lost stays, with the results of the others: choose it by its uid, for `remove`.
    dry_run:
        Only tell what would be removed.

    Returns
    -------
    list of Removal
        What is removed, in this order; with a ``problem`` if it stays after all.

    Raises
    ------
    ValueError
        There is no condition, or one is not understood.
    CacheFolderError
        There is no such folder.

    Examples
    --------
    >>> prune("/scratch/cache", older_than="30d", max_size="50GB", dry_run=False)  # doctest: +SKIP
    """
    if policy not in get_args(Policy):
        msg = f"policy={policy!r} must be one of {', '.join(map(repr, get_args(Policy)))}"
        raise ConfigValueError(msg)
    if all(condition is None for condition in (older_than, max_size, keep_last, status)):
        msg = "say what is to be removed: give older_than, max_size, keep_last or status"
        raise ConfigValueError(msg)
    if keep_last is not None and keep_last < 0:
        msg = f"keep_last={keep_last} must not be negative"
        raise ConfigValueError(msg)
    limit = None if older_than is None else moment("older_than", older_than)
    most = None if max_size is None else bytes_of(max_size)
    catalog = folder_or_catalog if isinstance(folder_or_catalog, Catalog) else Catalog(folder_or_catalog)
    catalog.filter(status=status)  # an unknown one raises
    planned = _plan(catalog.refresh(), limit, most, keep_last, policy, status)
    if dry_run:
        return planned
    done = _carry_out(planned)
    _sweep(str(catalog.folder))
    hits.merge(str(catalog.folder))
    return done


def bytes_of(size: int | str) -> float:
    """Bytes of a text like ``"50GB"``.

    Raises
    ------
    ConfigValueError
        It is no size.
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        unit = None if match is None else (_UNITS | _BINARY).get(match[2].lower())
        if match is None or unit is None:
            msg = f"max_size={size!r} is no size: give bytes, or a text like '50GB' or '1.5 TB'"
            raise ConfigValueError(msg)
        return float(match[1]) * unit
    if size < 0:
        msg = f"max_size must be a number of bytes, or a text like '50GB', not {size!r:.100}"
        raise ConfigValueError(msg)
    return size


def is_of_use(entry: Entry) -> bool:
    """Whether an entry is a map of which only some items failed, or were lost: the others are good."""
    return entry.kind == "map" and entry.status in ("failed", "lost") and entry.values > 0


def _plan(
    entries: Sequence[Entry],
    limit: datetime | None,
    most: float | None,
    keep_last: int | None,
    policy: Policy,
    status: Status | Sequence[Status] | None,
) -> list[Removal]:
    wanted = (status,) if isinstance(status, str) else status
    considered = [entry for entry in entries if wanted is None or (entry.status in wanted and not is_of_use(entry))]
    stored = {entry.uid: _stored(entry) for entry in considered}
    kept = considered if wanted else [entry for entry in considered if entry.values]  # errors take no result's place
    newest = _newest(kept, stored, keep_last or 0)
    candidates = sorted(
        (entry for entry in considered if entry.uid not in newest and _objection(entry) is None),
        key=lambda entry: stored[entry.uid],
    )
    planned: list[Removal] = []
    if limit is not None:
        before = f"stored before {limit.astimezone():%Y-%m-%d %H:%M}"
        planned = [Removal(entry, before) for entry in candidates if stored[entry.uid] < limit]
    elif most is None:
        others = "status" if keep_last is None else f"not of the last {keep_last}"
        planned = [Removal(entry, f"{others}: {entry.status}" if wanted else others) for entry in candidates]
    if most is None:
        return planned
    chosen = {removal.entry.uid for removal in planned}
    total = sum(entry.size for entry in entries) - sum(removal.size for removal in planned)
    reason = f"{'largest' if policy == 'size' else policy} of more than {tables.size(most)}"
    read = {entry.uid: max(entry.used or stored[entry.uid], stored[entry.uid]).timestamp() for entry in candidates}
    orders: dict[Policy, Callable[[Entry], Any]] = {
        "oldest": lambda entry: stored[entry.uid].timestamp(),
        "size": lambda entry: -entry.size,
        "lru": lambda entry: read[entry.uid],
        "lfu": lambda entry: (entry.hits, read[entry.uid]),
    }
    for entry in sorted(candidates, key=orders[policy]):
        if total <= most:
            break
        if entry.uid not in chosen and entry.size:
            shown = f", {tables.count(entry.hits, 'hit')}" if policy == "lfu" else ""
            planned.append(Removal(entry, reason + shown))
            total -= entry.size
    return planned


def _stored(entry: Entry) -> datetime:
    """When something was stored; of what left nothing, when its folder changed last."""
    if entry.time is not None:
        return entry.time
    try:
        return datetime.fromtimestamp(entry.folder.stat().st_mtime, UTC)
    except OSError:  # it is gone
        return datetime.now(UTC)


def _newest(entries: Sequence[Entry], stored: Mapping[str, datetime], number: int) -> set[str]:
    """The uids of the newest entries of each method and version."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.method, entry.version), []).append(entry)
    return {
        entry.uid
        for group in groups.values()
        for entry in sorted(group, key=lambda one: stored[one.uid], reverse=True)[:number]
    }


def _objection(entry: Entry) -> str | None:
    """Why an entry must not be removed, as it was looked at."""
    if entry.uid == ".":
        return "it is the cache root itself: delete that folder by hand, if you mean it"
    if entry.is_pinned:
        return "it is pinned"
    return f"it is {entry.status}" if entry.status in ("running", "queued") else None


def _carry_out(planned: Sequence[Removal]) -> list[Removal]:
    problems: dict[str, str | None] = {}
    calls: dict[Path, list[Entry]] = {}
    for removal in planned:
        entry = removal.entry
        if removal.problem is None:
            if entry.is_of_calls:
                problems[entry.uid] = _remove_claims(entry)
            elif entry.kind == "memo":
                calls.setdefault(entry.folder, []).append(entry)
            else:
                problems[entry.uid] = _remove_folder(entry)
    for entries in calls.values():
        for start in range(0, len(entries), _AT_ONCE):
            problems |= _remove_calls(entries[start : start + _AT_ONCE])
        left = look_again(entries[0])
        if len(left) == 1 and left[0].status == "empty" and not left[0].is_pinned:
            _remove_folder(left[0])  # if somebody writes again, it stays
    return [replace(removal, problem=removal.problem or problems[removal.entry.uid]) for removal in planned]


def _remove_claims(entry: Entry) -> str | None:
    """Remove what tells of calls that somebody left who died, and nothing that is stored; returns why it stays."""
    try:
        holder = claims_of(entry.path).drop_dead()
    except OSError as error:
        return _GONE if error.errno == errno.ENOENT else f"it can't be removed: {error.strerror or error}"
    return None if holder is None else f"others may be computing it, like {holder}"


def _remove_folder(entry: Entry) -> str | None:
    """Remove an entry with its folder; returns why it stays."""
    folder = entry.path
    hidden = f"{entry.folder.parent}/{files.REMOVED_PREFIX}{files.token()}"
    try:
        claims = claims_of(folder)
        with claims.quiet() as holder:
            problem = _problem_of(entry, holder) if claims.has_locks else _NO_LOCKS
            if problem is not None:
                return problem
            os.rename(folder, hidden)
    except OSError as error:
        return _GONE if error.errno == errno.ENOENT else f"it can't be removed: {error.strerror or error}"
    blocks.forget(folder)
    try:
        os.utime(hidden)  # since when it is being deleted
        shutil.rmtree(hidden)
    except FileNotFoundError:  # somebody else deletes it, too
        return None
    except OSError as error:
        return f"it is not in the cache any more, but its files can't be deleted, which are in {hidden} now: {error}"
    return None


def _problem_of(entry: Entry, holder: str | None) -> str | None:
    """Why a folder must stay as it is now, while it is locked."""
    if holder is not None:
        return f"it is being computed, by {holder}"
    found = look_again(entry)
    now = [one for one in found if one.path == entry.path]
    if len(now) < len(found):
        return "other entries are stored below its folder"
    if len(now) != 1:
        return _CHANGED
    problem = _objection(now[0])
    if problem is None and _state(now[0]) != _state(entry):
        problem = _CHANGED
    if problem is None and is_compacted(entry.path):
        problem = "its files are being merged"
    # who stores the result of a task has a claim, of which nobody needs one who has a CacheDict
    if problem is None and entry.kind in ("map", "") and held_writers(entry.path):
        problem = "somebody may be writing to it: a process that has it open, or one of another machine less than a day ago"
    return problem


def _state(entry: Entry) -> tuple[object, ...]:
    """What is another when something else was stored."""
    return entry.kind, entry.key, entry.status, entry.time, entry.values, entry.failures


def _remove_calls(entries: Sequence[Entry]) -> dict[str, str | None]:
    """Remove some calls that are stored in one folder; returns for each uid why it stays."""
    folder = entries[0].path
    claims = claims_of(folder)
    by_key = {entry.key: entry for entry in entries}
    problems: dict[str, str | None] = dict.fromkeys(by_key, _CHANGED)

    def delete(free: list[str]) -> list[list[str]]:
        now = {entry.key: entry for entry in look_again(entries[0]) if entry.path == folder}
        for key in free:
            entry = now.get(key)
            changed = None if entry is None or _state(entry) == _state(by_key[key]) else _CHANGED
            problems[key] = _GONE if entry is None else _objection(entry) or changed
            if not claims.has_locks:
                problems[key] = _NO_LOCKS
        cache: CacheDict[object] = CacheDict(folder, permissions=files.mode_in(folder), allow_pickle="never")
        with cache.write():
            for key in free:
                if problems[key] is None:
                    problems[key] = "it can't be removed"
                    cache.delete_if(key, lambda _: True)
                    problems[key] = None
        return []  # nothing is left to be claimed: nobody else could do so meanwhile

    try:
        _, waiting = claims.claim(list(by_key), delete)
        problems |= {key: f"it is being computed, by {holder}" for holder in waiting for key in holder.keys}
    except (OSError, ExcaLikeError) as error:
        is_gone = isinstance(error, CacheFolderError) and error.errno == errno.ENOENT
        text = _GONE if is_gone else f"it can't be removed: {error}"
        problems = {key: problem and text for key, problem in problems.items()}
    return {by_key[key].uid: problem for key, problem in problems.items()}


def _sweep(root: str) -> None:
    """Delete what killed processes had not deleted, or had not finished; in folders of data, a `verify` does that."""
    for parent, folders, names in os.walk(root):
        for path in filter(files.is_stale, [f"{parent}/{name}" for name in folders]):
            shutil.rmtree(path, ignore_errors=True)
        for path in filter(files.is_stale, [f"{parent}/{name}" for name in names]):
            with contextlib.suppress(OSError):
                files.remove(path)
        folders[:] = [name for name in folders if not name.startswith(".") and name != DATA]
