"""Many items: what is missing is claimed, packed into parts, and computed here, in a pool, or in jobs of a cluster.

Results come in the order of the items, each as soon as it is there. A `Mapping` says what is wanted; `results` gives it.
"""

import contextlib
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol

from exca_like.cachedict.claims import Claim
from exca_like.cachedict.failures import Failure
from exca_like.engine import Claims, Mode, Patience, Waiting
from exca_like.errors import (
    InfraUsageError,
    JobError,
    JobInterruptedError,
    JobMemoryError,
    JobTimeoutError,
    LostOutcomeError,
)
from exca_like.executors.base import Ended, Executor, JobHandle
from exca_like.executors.environment import number_of_cores
from exca_like.executors.pools import PARTS_PER_WORKER, Pool
from exca_like.item_errors import items_failed
from exca_like.parts import Part, outcomes
from exca_like.progress import Progress
from exca_like.store import ItemStore, Outcome

_SHOWN_S = 0.1  # seconds between two movements of the bar
_FIRST_POLL, _LAST_POLL = 0.02, 1.0  # seconds between two looks at what jobs stored
_POOL_POLL = 0.2


@dataclass
class Mapping:
    """Items that are wanted from a method of many.

    Parameters
    ----------
    label:
        Name for messages.
    keys:
        Keys of all items, in order.
    missing:
        The items that are to be computed, by key.
    item_at:
        Gives the item at a place of ``keys``, for one whose stored result turns out to be damaged; or raises a KeyError.
    method:
        Takes a list of items and gives one result for each.
    store, claims:
        Where results go, and who computes them.
    recomputed:
        Takes the keys of what was computed in mode ``"force"``, which is not to be forced again.
    cluster:
        None, ``"debug"``, ``"threadpool"``, ``"processpool"``; for others there is ``executor``.
    call:
        Makes what a job or a worker process runs, from its keys, its items, and the path of its claim. Where there is no
        folder, that returns keys and outcomes.
    executor:
        Makes the executor for a number of jobs.
    """

    label: str
    keys: Sequence[str]
    missing: dict[str, Any]
    item_at: Callable[[int], Any]
    method: Callable[[Sequence[Any]], Any]
    store: ItemStore
    claims: Claims
    mode: Mode
    recomputed: set[str]
    cluster: str | None
    call: Callable[[Sequence[str], Sequence[Any], str], Callable[[], Any]]
    executor: Callable[[int], Executor]
    max_jobs: int | None = 128
    min_items: int = 1


def results(mapping: Mapping) -> Iterator[Any]:
    """Results of all items, in order.

    Raises
    ------
    ItemsFailedError
        Items failed: after all others were computed and stored.
    """
    cache, missing, run = mapping.store.cache, mapping.missing, _Run(mapping)
    try:
        for place, key in enumerate(mapping.keys):
            try:
                value = run.result(key) if key in missing else cache[key]
            except KeyError:  # it was deleted, or turned out to be damaged
                value = compute_again(mapping, place)
            yield value
        run.finish()
    finally:
        run.close()


def compute_again(mapping: Mapping, place: int) -> Any:
    """The result at a place, which was stored and is not there any more."""
    key = mapping.keys[place]
    try:
        item = mapping.item_at(place)
    except KeyError:
        msg = f"the stored result of {key!r} of {mapping.label} is gone or damaged: call the method again to compute it again"
        raise LostOutcomeError(msg) from None
    return next(results(replace(mapping, keys=[key], missing={key: item}, item_at=lambda _: item)))


def compute(part: Part, store: ItemStore, claim: Any, *, replaces: bool) -> Iterator[tuple[str, Outcome]]:
    """Compute and store the items of a part, each released as it is stored."""
    with store.cache.write():
        for key, outcome in outcomes(part):
            store.save(key, outcome, replace=replaces)
            claim.release(key)
            yield key, outcome


class _Work(Protocol):
    """Claimed items, being computed."""

    keys: Sequence[str]
    is_over: bool
    knows_all: bool  # whether it told of all its items

    def advance(self) -> None:
        """Wait a moment for more to be done."""
        ...

    def why_missing(self, key: str) -> Failure:
        """Why an item has no outcome, once the work is over."""
        ...

    def close(self) -> None:
        """Stop what can be stopped, and release what is not handed over to jobs."""
        ...


class _Run:
    """The computation of what is missing; goes on whenever it is waited for."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        store, keys = mapping.store, mapping.missing
        self._cache = store.cache
        self.replaces = mapping.mode == "force"
        self._seen = {key: mark for key in keys if (mark := store.mark(key)) is not None} if self.replaces else {}
        self._seen_failures = {key: mark for key in keys if (mark := store.failure_mark(key)) is not None}
        self._todo: list[str] = list(keys)
        self._works: list[_Work] = []
        self._waiting: list[Waiting] = []
        self._failed: dict[str, Failure] = {}
        self._errors: list[BaseException] = []
        self._patience = Patience(mapping.label)
        self._bar = Progress(mapping.label, len(mapping.keys), len(mapping.keys) - len(keys))
        self._done = 0
        self._shown = 0.0
        self._latest: tuple[str, Any] = ("", None)  # key and value of what this process computed last

    def is_there(self, key: str) -> bool:
        """Whether there is a (new) value for a key, as known since the last look at the folder."""
        mark = self._cache.mark(key)
        return mark is not None and (not self._seen or mark != self._seen.get(key))

    def result(self, key: str) -> Any:
        """The result of a key, when it is there; if it failed, raises when all others are done."""
        while not self.is_there(key):
            if key in self._failed or not self._advance():
                self.finish()
                break
            if self._latest[0] is key:  # computed in this process just now: it need not be loaded
                return self._latest[1]
        return self._cache[key]

    def finish(self) -> None:
        """Wait for everything; raises if anything failed."""
        while self._advance():
            pass
        self._show()
        if self._errors:
            raise self._errors[0]
        if self._failed:
            raise items_failed(self.mapping.label, self._failed, len(self.mapping.keys))

    def close(self) -> None:
        """Stop, and release what was claimed."""
        for work in self._works:
            work.close()
            self._note_recomputed(work)
        self._bar.close()

    def note(self, key: str, outcome: Outcome) -> None:
        """Take note of an item that this process computed."""
        if outcome.failure is not None:
            self._failed[key] = outcome.failure
        elif self._cache.cache_type is None:  # else its type may not be that of the value
            self._latest = (key, outcome.value)
        self._done += 1
        if self._bar.is_on:
            self.count(self._done)

    def note_error(self, error: BaseException) -> None:
        """Take note of an error that belongs to no item; it is raised in the end."""
        self._errors.append(error)

    def count(self, done: int) -> None:
        """Take note of how many items were computed so far."""
        self._done = done
        if time.monotonic() - self._shown > _SHOWN_S:
            self._show()

    def part(self, keys: Sequence[str]) -> Part:
        """The part of some keys."""
        mapping = self.mapping
        return Part(mapping.label, keys, [mapping.missing[key] for key in keys], mapping.method)

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._bar.show(max(0, self._done - len(self._failed)), len(self._failed))

    def _advance(self) -> bool:
        """Do, or wait for, a little of what is left; False if nothing is."""
        if self._todo:
            self._begin()
        elif self._works:
            work = self._works[0]
            work.advance()
            if work.is_over:
                self._works.pop(0)
                self._end(work)
        elif self._waiting:
            names = {name for others in self._waiting for name in others.names()}
            helped = [lagging.help() for name in names if (lagging := _suspended.get(name)) is not None]
            if not any(helped):
                self._patience.pause(self._waiting)
        else:
            return False
        if self._waiting:
            self._look_at_others()
        return True

    def _begin(self) -> None:
        """Claim what nobody else computes, and begin with it."""
        mapping, todo = self.mapping, self._todo
        groups: list[Sequence[str]] = []

        def choose(free: list[str]) -> list[Sequence[str]]:
            mapping.store.cache.refresh()
            wanted = [key for key in free if not self.is_there(key)] if self.replaces else self._cache.missing(free)
            groups.extend(_packed(wanted, self._number_of_parts(len(wanted))))
            return groups

        claims, waiting = mapping.claims.claim(todo, choose)
        self._todo = []
        self._waiting.extend(waiting)
        if claims:
            kinds: dict[str | None, Any] = {None: _Here, "debug": _Here, "threadpool": _InPool, "processpool": _InPool}
            try:
                self._works.append(kinds.get(mapping.cluster, _InJobs)(self, claims))
            except BaseException:
                for claim in claims:
                    claim.close()
                raise

    def _number_of_parts(self, number: int) -> int:
        mapping = self.mapping
        if mapping.cluster in (None, "debug"):
            return 1
        most = number if mapping.max_jobs is None else mapping.max_jobs
        if mapping.cluster in ("threadpool", "processpool"):
            most = min(most, PARTS_PER_WORKER * number_of_cores())
        return max(1, min(most, number // mapping.min_items))

    def _look_at_others(self) -> None:
        freed = [key for others in self._waiting for key in others.freed()]
        self._waiting = [others for others in self._waiting if others.keys]
        if not freed:
            return
        self.mapping.store.cache.refresh()
        for key in freed:
            if not self.replaces and self.is_there(key):
                self._done += 1
            elif not self.replaces and (failure := self._new_failure(key)) is not None:  # shared by those who waited for it
                self._failed[key] = failure
                self._done += 1
            else:
                self._seen_again(key)
                self._todo.append(key)

    def _seen_again(self, key: str) -> None:
        """What another caller forced meanwhile is not what this one is to compute."""
        if self.replaces and (mark := self.mapping.store.mark(key)) is not None:
            self._seen[key] = mark

    def _new_failure(self, key: str) -> Failure | None:
        store = self.mapping.store
        mark = store.failure_mark(key)
        return None if mark is None or mark == self._seen_failures.get(key) else store.failure(key)

    def _end(self, work: _Work) -> None:
        """Find out what became of the items of a work that is over."""
        if not work.knows_all:
            self._cache.refresh()
        for key in () if work.knows_all else work.keys:
            if not self.is_there(key) and key not in self._failed:
                self._failed[key] = self._new_failure(key) or work.why_missing(key)
        work.close()
        self._note_recomputed(work)

    def _note_recomputed(self, work: _Work) -> None:
        if self.replaces:
            self.mapping.recomputed.update(filter(self.is_there, work.keys))


def _packed(keys: list[str], number: int) -> list[Sequence[str]]:
    """Keys in a number of groups of about the same size, in order."""
    bounds = [len(keys) * group // number for group in range(number + 1)]
    return [keys[first:last] for first, last in itertools.pairwise(bounds) if last > first]


_NO_OUTCOME = "the computation ended before it came to this item"


_suspended: "weakref.WeakValueDictionary[str, _Here]" = weakref.WeakValueDictionary()


class _Here:
    """Items that this process computes whenever their results are waited for, by whichever thread.

    An iterator that nobody goes on with (a second one over the same items may wait for it, in the same thread) keeps nobody
    waiting in this process.
    """

    def __init__(self, run: _Run, claims: Sequence[Any]) -> None:
        (self._claim,) = claims
        self.keys = self._claim.keys
        self.is_over = self.knows_all = False
        self._run = run
        self._store = run.mapping.store
        self._outcomes = outcomes(run.part(self.keys))
        self._writing = contextlib.ExitStack()
        self._writing.enter_context(self._store.cache.write())
        self._lock = threading.Lock()
        self._thread: int | None = None  # that computes just now
        _suspended[self._claim.name] = self

    def advance(self) -> None:
        with self._lock:
            self._step()

    def help(self) -> bool:
        """Compute the next item, for somebody else's sake; False if a thread does so already."""
        if self._thread == threading.get_ident():
            msg = f"an item of {self._run.mapping.label} needs the result of one that is computed together with it"
            raise InfraUsageError(msg)
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._step()
        finally:
            self._lock.release()
        return True

    def _step(self) -> None:
        self._thread = threading.get_ident()
        try:
            for key, outcome in self._outcomes:
                self._store.save(key, outcome, replace=self._run.replaces)
                self._claim.release(key)
                self._run.note(key, outcome)
                return
            self.knows_all = True
            self._end()
        except BaseException:
            self._end()
            raise
        finally:
            self._thread = None

    def why_missing(self, key: str) -> Failure:  # noqa: ARG002 - see _Work
        return Failure.of(JobInterruptedError(_NO_OUTCOME), "lost")

    def close(self) -> None:
        with self._lock:
            self._outcomes.close()
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self._claim.close()
        self._writing.close()


class _InPool:
    """Items that threads or processes compute."""

    def __init__(self, run: _Run, claims: Sequence[Any]) -> None:
        mapping = run.mapping
        self.keys = [key for claim in claims for key in claim.keys]
        self.is_over = self.knows_all = False
        self._run = run
        self._claims = claims
        self._errors: dict[str, BaseException] = {}
        self._before = mapping.store.cache.count()
        self._pool = Pool(mapping.cluster or "", mapping.max_jobs or len(claims))
        if mapping.cluster == "threadpool":
            calls: list[Callable[[], Any]] = [self._in_thread(claim) for claim in claims]
        else:
            calls = [
                mapping.call(part.keys, part.items, getattr(claim, "path", ""))
                for claim in claims
                for part in (run.part(claim.keys),)
            ]
        self._futures: dict[Future[Any], Any] = dict(zip(self._pool.submit(calls), claims, strict=True))

    def _in_thread(self, claim: Any) -> Callable[[], Any]:
        run = self._run

        def call() -> None:
            with claim:
                for _ in compute(run.part(claim.keys), run.mapping.store, claim, replaces=run.replaces):
                    if self.is_over:  # nobody waits for it any more
                        return

        return call

    def advance(self) -> None:
        done, _ = wait(self._futures, _POOL_POLL, FIRST_COMPLETED)
        store = self._run.mapping.store
        for future in done:
            claim = self._futures.pop(future)
            error = future.exception()
            if isinstance(error, InfraUsageError):
                self._run.note_error(error)
            if error is not None:
                self._errors.update(dict.fromkeys(claim.keys, error))
            elif store.is_in_memory:
                with store.cache.write():
                    for key, outcome in future.result() or ():
                        store.save(key, outcome, replace=self._run.replaces)
            claim.close()
        store.cache.refresh()
        self._run.count(max(0, store.cache.count() - self._before))
        self.is_over = not self._futures

    def why_missing(self, key: str) -> Failure:
        error = self._errors.get(key)
        if error is None:
            return Failure.of(JobInterruptedError(_NO_OUTCOME), "lost")
        if isinstance(error, BrokenExecutor):
            error = JobInterruptedError("a process of the pool died: it was killed, or the machine ran out of memory")
        return Failure.of(error, "lost")

    def close(self) -> None:
        self.is_over = True
        self._pool.close()
        for claim in self._claims:
            claim.close()


class _InJobs:
    """Items that jobs of a cluster compute."""

    def __init__(self, run: _Run, claims: Sequence[Claim]) -> None:
        mapping = run.mapping
        self.keys = [key for claim in claims for key in claim.keys]
        self.is_over = self.knows_all = False
        self._run = run
        self._delay = _FIRST_POLL
        self._before = self._count = mapping.store.cache.count()
        parts = [run.part(claim.keys) for claim in claims]
        calls = [mapping.call(part.keys, part.items, claim.path) for part, claim in zip(parts, claims, strict=True)]
        handles = mapping.executor(len(calls)).submit(calls, mapping.max_jobs or len(calls))
        for claim, handle in zip(claims, handles, strict=True):
            claim.hand_over(handle.record())
        self._open = list(zip(handles, claims, strict=True))
        self._ends: dict[str, tuple[JobHandle, Ended]] = {}  # of the jobs that left items without an outcome

    def advance(self) -> None:
        time.sleep(self._delay)
        cache = self._run.mapping.store.cache
        still = []
        for handle, claim in self._open:
            ended = handle.ended()
            if ended is None:
                still.append((handle, claim))
            else:
                self._note_end(handle, claim, ended)
        changed = len(still) < len(self._open)
        self._open = still
        cache.refresh()
        count = cache.count()
        self._delay = _FIRST_POLL if changed or count != self._count else min(1.5 * self._delay, _LAST_POLL)
        self._count = count
        self._run.count(max(0, count - self._before))
        self.is_over = not still

    def _note_end(self, handle: JobHandle, claim: Claim, ended: Ended) -> None:
        """Give the file system time to show what an ended job stored."""
        store, patience = (
            self._run.mapping.store,
            time.monotonic() + (handle.file_delay if ended.reason == "completed" else 1.0),
        )
        while True:
            store.cache.refresh()
            missing = [key for key in claim.keys if not (self._run.is_there(key) or store.failure_mark(key) is not None)]
            if not missing or time.monotonic() > patience or ended.reason == "failed":
                break
            time.sleep(_LAST_POLL / 4)
        self._ends.update(dict.fromkeys(missing, (handle, ended)))
        if ended.reason == "failed" and not missing:
            self._run.note_error(JobError(f"job {handle.job_id} failed, though it stored all its results: {ended.detail}"))

    def why_missing(self, key: str) -> Failure:
        handle, ended = self._ends[key]
        msg = f"job {handle.job_id} ended before it came to this item: {ended.reason}. {ended.detail.strip()}"
        if ended.interrupted:
            return Failure.of(JobInterruptedError(msg), ended.reason)
        kinds: dict[str, type[JobError]] = {"timeout": JobTimeoutError, "out of memory": JobMemoryError}
        return Failure.of(kinds.get(ended.reason, JobError)(msg), ended.reason)

    def close(self) -> None:
        """Leave the jobs running: whoever asks next finds their claims."""
