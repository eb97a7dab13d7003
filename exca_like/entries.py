"""Entries of a cache as the catalog shows them: what is stored, of which config, and how it stands."""

import contextlib
import errno
import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from exca_like import files, hits, layout, pins, yamltext
from exca_like.cachedict import CacheDict
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.context import AllowPickle
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.handlers.containers import from_tree
from exca_like.cachedict.journal import OWN_JOURNAL
from exca_like.cachedict.owners import Owner
from exca_like.confdict import ConfDict, verbatim
from exca_like.errors import CacheFolderError, CacheUsageError, ExcaLikeError, NotCachedError
from exca_like.executors import job_is_over, open_job
from exca_like.executors.base import Ended, JobHandle
from exca_like.failures import failure_of_job
from exca_like.layout import EntryFolder
from exca_like.provenance import Provenance, provenance_of
from exca_like.recording import noted
from exca_like.scanning import Kind, job_record
from exca_like.store import FolderStore, Outcome

Status = Literal["completed", "failed", "running", "queued", "lost", "empty"]
"""``"lost"`` is what a job that was cancelled, preempted or vanished, or a process that died, left without a result or an
error; ``"empty"`` a folder in which nothing was computed yet, or was interrupted by Ctrl-C."""

_SCALARS = (bool, int, float, str, type(None))
# names of columns that are never those of fields
_WHAT = ("method", "version", "uid", "status")
_HOW = ("reason", "time", "duration", "size", "job", "values", "failures")
_NOTED = ("host", "memory", "code")
_OWN_COLUMNS = frozenset((*_WHAT, *_HOW, *_NOTED, "result"))
JOB_ID = re.compile(r"(local-[0-9a-f]{16}|\d+)(_\d+)?")
"""The id of a job, or of an array of them."""
_NOTED_JOB = re.compile(rb'"#meta":"[^"\n]* job=([^" ]+)')
_MOST_COLUMNS = 100  # of a result that is a dictionary


@dataclass(frozen=True)
class Entry:
    """A task with its result, all results of a map, or one call of a memoised function, as it was when it was looked at.

    One more stands for all those calls of a function that are computed now, or that somebody left who died: see `is_of_calls`.
    """

    method: str
    """``<module>.<Class>.<method>``; of a memoised function ``<module>.<function>``."""
    version: str
    uid: str
    """``<method>,<version>/<uid of the config>``; of a call of a memoised function with its key."""
    kind: Kind
    status: Status
    path: str
    """Its folder, as a text."""
    key: str = ""
    """What it is stored by in its folder; empty for a map, and for calls that have no result."""
    reason: str = ""
    """Of what failed the type and the message of the error, or why the job ended; of what waits, what for; of a map, of how
    many items there is no result, and of a function, of how many calls; of what is empty, that what was stored is damaged."""
    time: datetime | None = None
    """When it was stored, in UTC; of a job that left nothing, when that ended; of what goes on, when that was submitted."""
    duration: float | None = None
    """How long the computation took, in seconds; None for a map, whose items have times of their own."""
    size: int = 0
    """Bytes on disk."""
    values: int = 0
    """Stored results."""
    failures: int = 0
    """Stored errors."""
    job: str | None = None
    """The cluster's id of the job that computed it, or does; of a map, of one that is at it, or that died; see `jobs`."""
    is_pinned: bool = False
    unfinished: tuple[tuple[Owner, int], ...] = field(default=(), compare=False, repr=False)
    """Who died before all was computed that they had claimed, and of how many items or calls there is nothing for that."""
    used: datetime | None = None
    """When its folder was read last, as far as the file system tells; see `exca_like.pruning`."""

    def __str__(self) -> str:
        return f"{self.uid}: {self.status}" + (f" ({self.reason})" if self.reason else "")

    @property
    def is_of_calls(self) -> bool:
        """Whether it stands for calls of a memoised function that somebody computes, or left who died.

        Each of those that are stored in its folder has an entry of its own.
        """
        return self.kind == "memo" and not self.key

    @property
    def hits(self) -> int:
        """How often it was taken from the cache, since that is counted (`exca_like.hits`); of a map, how many items were."""
        return hits.hits_of(str(self.root)).of(self.uid)

    @property
    def folder(self) -> Path:
        """Where it is stored."""
        return Path(self.path)

    @property
    def root(self) -> Path:
        """The cache root."""
        if self.uid == ".":
            return self.folder
        depth = self.uid.count("/") + (self.kind != "memo" or self.is_of_calls)
        return self.folder.parents[depth - 1]

    @property
    def config(self) -> dict[str, Any]:
        """The whole config, defaults included; of a call the arguments. Empty if it is not known."""
        if self.is_of_calls:
            return {}
        config = self._meta().get("config")
        return dict(ConfDict(self._yaml(layout.CONFIG))) if config is None else dict(verbatim(from_tree(config)))

    @property
    def changed(self) -> dict[str, Any]:
        """Those fields of the config that are not at their defaults, by dotted names; of a call all arguments."""
        known: dict[str, Any] | None = self.__dict__.get("_changed")
        if known is None:  # no cached_property: before Python 3.12, threads wait there for those at other entries
            known = ConfDict(self.config if self.kind == "memo" else self._yaml(layout.UID)).flat()
            self.__dict__["_changed"] = known
        return dict(known)

    def load(self, allow_pickle: AllowPickle = "own") -> Any:
        """The result; of a map its `CacheDict`.

        Raises
        ------
        NotCachedError
            There is none.
        """
        cache = self._cache(allow_pickle)
        if self.kind == "map":
            return cache
        if self.kind == "task":
            outcome = self._outcome(allow_pickle)
            if outcome is not None and outcome.failure is None:
                return outcome.value
        elif self.key in cache:
            return cache[self.key]
        if self.status == "completed":
            msg = f"the result of {self.uid} is damaged or was removed: `exca-like verify --folder {self.root}` tells"
        else:
            msg = f"there is no result of {self}: compute it, or see failure() and handle() for what went wrong"
        raise NotCachedError(msg)

    def failure(self) -> Failure | None:
        """The stored error, or how the job ended that left none; None if nothing failed. For a map see `item_failures`, too."""
        if self.failures and self.kind != "map":
            outcome = self._outcome("never") if self.kind == "task" else None
            return self.item_failures().get(self.key) if outcome is None else outcome.failure
        if self.unfinished:
            return next(iter(self.job_failures()), None)
        handle = self.handle() if self.status == "failed" else None
        return None if handle is None else failure_of_job(handle)

    def job_failures(self) -> list[Failure]:
        """Of a map, how those jobs failed that died before they came to all their items; of `is_of_calls`, to all calls."""
        handles = [handle_of(owner.get("job") or {}) for owner, _ in self.unfinished]
        ends = [(handle, end_of(handle)) for handle in handles if handle is not None]
        failed = [handle for handle, ended in ends if ended is not None and not ended.interrupted]
        return [failure for handle in failed if (failure := failure_of_job(handle)) is not None]

    def item_failures(self) -> dict[str, Failure]:
        """The errors that are stored in the folder, by what they are stored by: for a map, the uids of items."""
        cache = self._cache("never")
        found = {key: cache.failure(key) for key in cache.failed()}
        return {key: failure for key, failure in found.items() if failure is not None}

    def provenance(self, item: str | None = None) -> Provenance:
        """Where the result comes from; of a map, that of the item with a uid."""
        return provenance_of(self._cache("never").meta(self.key if item is None else item), str(self.root))

    @property
    def handler(self) -> str:
        """The name of the handler that has stored the result, like ``"Json"``; empty for a map, or if there is none."""
        try:
            return str(self._cache("never").describe(self.key).get("#type", "")) if self.key else ""
        except KeyError:
            return ""

    def handle(self) -> JobHandle | None:
        """The first of `handles`: a job with ``paths`` of its logs, ``state`` and ``cancel``; None if there is none."""
        return next(iter(self.handles()), None)

    def handles(self) -> list[JobHandle]:
        """Of a task the job that was submitted last; of a map those that are at it, or that died before they came to its end.

        Those that computed items of a map, or calls, and ended well, are known by their ids only: see `jobs`.
        """
        folder = self.path
        if self.kind == "task":
            records = [job_record(folder)]
        else:
            is_call = self.kind == "memo" and not self.is_of_calls
            records = [] if is_call else [owner.get("job") or {} for owner in claims_of(folder).owners()]
        return [handle for record in records if (handle := handle_of(record)) is not None]

    def is_of_job(self, job_id: str) -> bool:
        """Whether one of its `jobs` has this id, or is of an array with it."""
        ids = self.jobs() if self.kind in ("map", "") or self.is_of_calls else [self.job or ""]
        return any(own == job_id or own.startswith(f"{job_id}_") for own in ids)

    def jobs(self) -> list[str]:
        """The ids of its `handles`, and of all jobs whose results are stored here, as far as the journals of a map tell."""
        found = [handle.job_id for handle in self.handles()]
        if self.kind == "map":  # of a million items, perhaps: their notes are not read one by one
            for name in filter(OWN_JOURNAL.fullmatch, os.listdir(self.path) if os.path.isdir(self.path) else ()):
                with contextlib.suppress(FileNotFoundError):
                    noted_jobs = set(_NOTED_JOB.findall(files.read_bytes(f"{self.path}/{name}")))
                    found += sorted(job.decode() for job in noted_jobs)
        elif self.job:
            found.append(self.job)
        return list(dict.fromkeys(found))

    def pin(self) -> None:
        """Keep it from being removed by `exca_like.pruning`; it may be pinned already.

        Raises
        ------
        NotCachedError
            It is gone, or nothing was stored of it yet, as of `is_of_calls`.
        """
        if self.is_of_calls:
            msg = f"nothing is stored of those calls of {self.uid} that are {self.status}: pin those that have results"
            raise NotCachedError(msg)
        with self._pins_locked() as pinned:
            if self.kind != "memo":
                pins.write(self.path, pins.WHOLE)
            elif self.key not in self._stored_keys():
                raise self._gone()
            elif not pinned.is_whole:
                pins.write(self.path, pins.Pinned(pinned.keys | {self.key}))

    def unpin(self) -> None:
        """Take back `pin`; it may not be pinned.

        Raises
        ------
        CacheUsageError
            It is pinned in another way: by ``memo(pin=True)``, or a call with its whole folder.
        NotCachedError
            It is gone.
        """
        with self._pins_locked() as pinned:
            if self.kind == "memo" and self._meta().get("pin"):
                msg = (
                    f"{self.uid} was stored by a function with memo(pin=True), and stays pinned: to remove it, call the "
                    "function's forget(...)"
                )
                raise CacheUsageError(msg)
            if self.kind != "memo":
                pins.write(self.path, pins.NOTHING)
            elif pinned.is_whole:
                msg = f"all calls in {self.path} are pinned, by a file without keys: remove {self.path}/{layout.PIN}"
                raise CacheUsageError(msg)
            else:
                pins.write(self.path, pins.Pinned(pinned.keys - {self.key}))

    @contextlib.contextmanager
    def _pins_locked(self) -> Iterator[pins.Pinned]:
        """A block in which nobody else pins anything in the folder, or removes it; gives what is pinned."""
        if not os.path.isdir(self.path):
            raise self._gone()
        try:
            with claims_of(self.path).quiet():
                yield pins.read(self.path)
        except CacheFolderError as error:
            if error.errno != errno.ENOENT:
                raise
            raise self._gone() from None

    def _stored_keys(self) -> set[str]:
        cache = self._cache("never")
        cache.refresh()
        return {*cache, *cache.failed()}

    def _gone(self) -> NotCachedError:
        return NotCachedError(f"{self.uid} is gone from {self.root}: it was removed meanwhile")

    def record(self, fields: Collection[str] = ()) -> dict[str, Any]:
        """One row of a table.

        What is known, with the changed fields of the config (and those that are named), the result if it is a scalar
        (``result``) or a dictionary of scalars (``result.<name>``), and what the code recorded (``extra.<name>``). Equal
        ``code`` is equal code. A field with the name of another column is ``config.<name>``.
        """
        row: dict[str, Any] = {name: getattr(self, name) for name in _WHAT}
        shown = self.changed
        if not shown.keys() >= set(fields):
            shown |= {
                name: value for name, value in ConfDict(self.config).flat().items() if name in fields and name not in shown
            }
        row |= {name if name not in _OWN_COLUMNS else f"config.{name}": value for name, value in shown.items()}
        if self.kind != "map" and self.status == "completed":
            try:
                row |= _columns(self.load("never"))
            except (ExcaLikeError, OSError):  # a pickle, or it is gone or damaged
                pass
        meta = self._meta()
        about = {name: getattr(self, name) for name in _HOW} | {name: meta.get(name) for name in _NOTED}
        return row | about | {f"extra.{name}": value for name, value in from_tree(meta.get("extra") or {}).items()}

    def _outcome(self, allow_pickle: AllowPickle) -> Outcome | None:
        """What a task left, also one of exca, which keeps that in its own way."""
        return FolderStore(EntryFolder(str(self.root), self.uid), dict, allow_pickle=allow_pickle).load(self.key)

    def _cache(self, allow_pickle: AllowPickle) -> CacheDict[Any]:
        return _reader(self.path, allow_pickle)

    def _meta(self) -> dict[str, Any]:
        return noted(self._cache("never").meta(self.key)) if self.key else {}

    def _yaml(self, name: str) -> dict[str, Any]:
        try:
            return yamltext.load(files.read_bytes(f"{self.path}/{name}").decode())
        except (OSError, ExcaLikeError, UnicodeDecodeError):
            return {}


@functools.lru_cache(64)
def _reader(folder: str, allow_pickle: AllowPickle) -> CacheDict[Any]:
    """What reads a folder: of thousands of calls in one, each asks for it."""
    return CacheDict(folder, allow_pickle=allow_pickle)


def _columns(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        scalars = {f"result.{name}": value for name, value in result.items() if isinstance(value, _SCALARS)}
        return scalars if len(scalars) <= _MOST_COLUMNS else {}
    if getattr(result, "shape", None) == () and hasattr(result, "item"):
        result = result.item()
    return {"result": result} if isinstance(result, _SCALARS) else {}


def claims_of(folder: str) -> FolderClaims:
    """The claims on what is computed into a folder."""
    return FolderClaims(folder, layout.FULL_UID, job_is_over, files.mode_in(folder))


def handle_of(record: Mapping[str, Any]) -> JobHandle | None:
    """The job of a record; None if it is of none."""
    try:
        return open_job(dict(record))
    except (KeyError, TypeError):
        return None


def end_of(handle: JobHandle) -> Ended | None:
    """How a job ended; None if it did not, or if that can't be told."""
    try:
        return handle.ended()
    except CacheFolderError:
        return None
