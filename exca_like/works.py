"""How the items of a map are computed: in this process, in a pool of threads or processes, or in jobs of a cluster."""

import contextlib
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Protocol

from exca_like.cachedict.claims import Claim
from exca_like.cachedict.failures import Failure
from exca_like.engine import Claims, Mode
from exca_like.errors import (
    InfraUsageError,
    JobError,
    JobInterruptedError,
)
from exca_like.executors.base import WAVE_S, Attempt, Ended, Executor, JobHandle, cancelled_unless_noted, said_at_end
from exca_like.executors.pools import make_pool
from exca_like.item_store import ItemStore
from exca_like.parts import Given, Part, outcomes
from exca_like.recording import noted_here

_FIRST_POLL, _LAST_POLL = 0.02, 1.0  # seconds between two looks at what jobs stored
_LAST_DELAY_S = 1.0  # seconds in which the last results of a job that was stopped may appear
_POOL_POLL_S = 0.2
_HERE_POLL_S = 0.001


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
        folder, that returns what the items gave, and an error that belongs to none.
    executor:
        Makes the executor for a number of jobs, with resources, if they are not to be the usual ones.
    next_resources:
        Gives what jobs ask for that compute what was lost with others, or None if there are to be none; None: there never are.
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
    executor: Callable[[int, Any], Executor]
    next_resources: Callable[[Sequence[Attempt]], Any] | None = None
    max_jobs: int | None = 128
    min_items: int = 1


@noted_here
def compute(part: Part, store: ItemStore, claim: Any, *, replaces: bool) -> Iterator[Given]:
    """Compute and store the items of a part, each released as it is stored."""
    names: set[str] = _computing.__dict__.setdefault("names", set())
    names.add(claim.name)
    try:
        with store.cache.write():
            failed_before = store.failure_marks(part.keys)
            recording = store.recording()
            for key, value, failure in outcomes(part._replace(recording=recording)):
                failed = store.save(key, value, failure, replaces or key in failed_before, recording)
                claim.release(key)
                yield key, value, failed
                recording.started = _now()  # to store a value may take long
    finally:
        names.discard(claim.name)


_now = time.time_ns
_computing = threading.local()  # names of the claims that a thread computes for


def _names_of_this_thread() -> set[str]:
    """Names of the claims that this thread computes for."""
    names: set[str] = _computing.__dict__.get("names", set())
    return names.union(name for name, work in list(_suspended.items()) if work.is_mine())


class Run(Protocol):
    """What is known of the call that items are computed for."""

    mapping: Mapping
    replaces: bool
    is_told_all: bool  # whether what went well is to be noted, too

    def part(self, keys: Sequence[str]) -> Part:
        """The items of some keys."""
        ...

    def is_there(self, key: str) -> bool:
        """Whether there is a (new) value for a key."""
        ...

    def has_failed(self, key: str) -> bool:
        """Whether there is a (new) failure for a key."""
        ...

    def note(self, key: str, failure: Failure | None) -> None:
        """Take note of an item that this process computed."""
        ...

    def finished(self, keys: Sequence[str]) -> None:
        """Take note of items whose part has ended well."""
        ...

    def note_error(self, error: BaseException) -> None:
        """Take note of an error that belongs to no item."""
        ...

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        """The jobs that failed before they came to some keys: of one with the most of them."""
        ...

    def count(self, done: int) -> None:
        """Take note of how many items were computed so far."""
        ...


class Work(Protocol):
    """Claimed items, being computed."""

    keys: Sequence[str]
    is_over: bool
    knows_all: bool  # whether it told of all its items

    def advance(self) -> Any:
        """Wait a moment for more to be done."""
        ...

    def take_settled(self) -> Sequence[str]:
        """Keys of which no more outcomes will come, since the last question."""
        ...

    def why_missing(self, key: str) -> Failure:
        """Why a settled item has no outcome."""
        ...

    def job_of(self, key: str) -> Attempt | None:
        """The job that was to compute an item that has no outcome, or an error; None if it was none."""
        ...

    def close(self) -> None:
        """Stop what can be stopped, and release what is not handed over to jobs."""
        ...


_NO_OUTCOME = "the computation ended before it came to this item"


_suspended: "weakref.WeakValueDictionary[str, Here]" = weakref.WeakValueDictionary()
os.register_at_fork(after_in_child=_suspended.clear)  # they are the parent's, which goes on with them


class Here:
    """Items that this process computes whenever their results are waited for, by whichever thread.

    An iterator that nobody goes on with (a second one over the same items may wait for it, in the same thread) keeps nobody
    waiting in this process. Of several threads, one is at it at a time, as Python lets no second one into a generator.
    """

    def __init__(self, run: Run, claims: Sequence[Any]) -> None:
        (self._claim,) = claims
        self.keys = self._claim.keys
        self.is_over = self.knows_all = False
        self._run = run
        self._thread = 0  # which went on with it last
        self._computed = self._compute()
        self._writing = contextlib.ExitStack()
        # the folder was looked at when the items were claimed
        self._writing.enter_context(run.mapping.store.cache.write(look=False))
        self._closes = False
        _suspended[self._claim.name] = self

    @noted_here
    def _compute(self) -> Generator[Given | None, None, None]:
        """What the items gave, stored; None for one that failed."""
        run = self._run
        save, release, replaces, tells_all = run.mapping.store.save, self._claim.release, run.replaces, run.is_told_all
        failed_before = run.mapping.store.failure_marks(self.keys)
        recording = run.mapping.store.recording()
        given_by = outcomes(run.part(self.keys)._replace(recording=recording))
        try:
            self._thread = get_ident()
            for given in given_by:
                key, value, failure = given
                failed = save(key, value, failure, replaces or key in failed_before, recording)
                if tells_all or failed is not None:
                    run.note(key, failed)
                release(key)
                self._thread = 0  # who goes on with it says so then
                yield given if failed is None else None
                if self._closes:
                    return
                self._thread = get_ident()
                recording.started = _now()  # what was done with the result is no part of the next one
            self.knows_all = True
        finally:
            try:
                given_by.close()
            finally:
                self._thread = 0
                self._end()

    def advance(self) -> Given | None:
        """Compute the next item, after another thread that does so: what it gave; None if it failed, or there is none."""
        while True:
            try:
                given = next(self._computed, None)
            except ValueError as error:
                _check_busy(error)
                time.sleep(_HERE_POLL_S)
                continue
            if self._closes:  # another thread found this one at it
                self.close()
            return given

    def help(self) -> bool:
        """Compute the next item, for somebody else's sake; False if a thread does so already."""
        try:
            next(self._computed, None)
        except ValueError as error:
            _check_busy(error)
            return False
        if self._closes:
            self.close()
        return True

    def is_mine(self) -> bool:
        """Whether it is this thread that computes an item now."""
        return inspect.getgeneratorstate(self._computed) == inspect.GEN_RUNNING and self._thread == get_ident()

    def take_settled(self) -> Sequence[str]:
        return self.keys if self.is_over else ()

    def why_missing(self, key: str) -> Failure:  # noqa: ARG002 - see Work
        return Failure.of(JobInterruptedError(_NO_OUTCOME), "lost")

    def job_of(self, key: str) -> Attempt | None:  # noqa: ARG002 - see Work
        return None

    def close(self) -> None:
        self._closes = is_idle = True
        try:
            self._computed.close()
        except ValueError as error:  # it goes on with an item, and ends after that
            _check_busy(error)
            is_idle = False
        finally:
            if is_idle:
                self._end()

    def _end(self) -> None:
        try:  # each may be done again
            self._claim.close()
        finally:
            self._writing.close()
            self.is_over = True


def _check_busy(error: ValueError) -> None:
    """Raise an error unless it says that a thread goes on with a generator already."""
    if "already executing" not in str(error):
        raise error


class InPool:
    """Items that threads or processes compute."""

    def __init__(self, run: Run, claims: Sequence[Any]) -> None:
        mapping = run.mapping
        self.keys = [key for claim in claims for key in claim.keys]
        self.is_over = self.knows_all = False
        self._run = run
        self._claims = claims
        self._errors: dict[str, BaseException] = {}
        self._before = mapping.store.cache.count()
        pool = self._pool = make_pool(mapping.cluster or "", mapping.max_jobs or len(claims))
        if mapping.cluster == "threadpool":
            calls: list[Callable[[], Any]] = [self._in_thread(claim) for claim in claims]
        else:
            calls = [
                mapping.call(part.keys, part.items, getattr(claim, "path", ""))
                for claim in claims
                for part in (run.part(claim.keys),)
            ]
        try:
            self._futures: dict[Future[Any], Any] = dict(zip(pool.submit(calls), claims, strict=True))
        except BaseException:
            pool.close()
            raise

    def _in_thread(self, claim: Any) -> Callable[[], Any]:
        run = self._run

        def call() -> None:
            with claim:
                for _ in compute(run.part(claim.keys), run.mapping.store, claim, replaces=run.replaces):
                    if self.is_over:  # nobody waits for it any more
                        return

        return call

    def advance(self) -> None:
        done, _ = wait(self._futures, _POOL_POLL_S, FIRST_COMPLETED)
        store = self._run.mapping.store
        for future in done:
            claim = self._futures.pop(future)
            error = future.exception()
            given = None
            if error is None and (returned := future.result()) is not None:
                given, failed = returned
                error = None if failed is None else failed.exception()
            if given is not None:
                failed_before = store.failure_marks(claim.keys)
                with store.cache.write():
                    for key, value, failure in given:
                        replaces = self._run.replaces or key in failed_before
                        self._run.note(key, store.save(key, value, failure, replaces))
            elif error is None:  # all is stored
                self._run.finished(claim.keys)
            if error is not None:
                self._errors.update(dict.fromkeys(claim.keys, error))
                store.cache.refresh()
                is_all_there = all(map(self._run.is_there, claim.keys)) and not isinstance(error, BrokenExecutor)
                if is_all_there or isinstance(error, InfraUsageError):
                    self._run.note_error(error)
            claim.close()
        store.cache.refresh()
        self._run.count(max(0, store.cache.count() - self._before))
        self.is_over = not self._futures

    def take_settled(self) -> Sequence[str]:
        return self.keys if self.is_over else ()

    def why_missing(self, key: str) -> Failure:
        error = self._errors.get(key)
        if error is None:
            return Failure.of(JobInterruptedError(_NO_OUTCOME), "lost")
        if isinstance(error, BrokenExecutor):
            error = JobInterruptedError("a process of the pool died: it was killed, or the machine ran out of memory")
        return Failure.of(error, "lost")

    def job_of(self, key: str) -> Attempt | None:  # noqa: ARG002 - see Work
        return None

    def close(self) -> None:
        self.is_over = True
        idle = [claim for future, claim in self._futures.items() if future.cancel()]
        self._pool.close()
        # threads go on to the end of their item, and close their claims themselves
        for claim in idle if self._run.mapping.cluster == "threadpool" else self._claims:
            claim.close()


class InJobs:
    """Items that jobs of a cluster compute."""

    def __init__(self, run: Run, claims: Sequence[Claim]) -> None:
        mapping = run.mapping
        self.keys = [key for claim in claims for key in claim.keys]
        self.is_over = self.knows_all = False
        self._run = run
        self._delay = _FIRST_POLL
        self._before = self._count = mapping.store.cache.count()
        parts = [run.part(claim.keys) for claim in claims]
        calls = [mapping.call(part.keys, part.items, claim.path) for part, claim in zip(parts, claims, strict=True)]
        attempts = run.attempts(self.keys)
        self._resources = mapping.next_resources(attempts) if attempts and mapping.next_resources else None
        executor = mapping.executor(len(calls), self._resources)
        self._submission = executor.submit(calls, mapping.max_jobs or len(calls))
        self._unsent = list(claims)
        self._next_wave = 0.0
        self._open: list[tuple[JobHandle, Claim]] = []
        self._deadlines: dict[str, float] = {}  # until when what a job stored may still appear
        self._ends: dict[str, tuple[JobHandle, Ended]] = {}  # of the jobs that left items without an outcome
        self._jobs: dict[str, str] = {}  # ids of the jobs of items
        self._settled: list[str] = []
        self._submit()

    def _submit(self) -> None:
        """Send as many jobs as the cluster takes now."""
        while self._unsent and time.monotonic() >= self._next_wave:
            handles = next(self._submission)
            with cancelled_unless_noted(handles) as noted:
                for handle in handles:
                    claim = self._unsent[0]
                    claim.hand_over(handle.record())
                    self._open.append((handle, claim))
                    self._unsent.pop(0)
                    noted.append(handle)
            if not handles:
                self._next_wave = time.monotonic() + WAVE_S

    def advance(self) -> None:
        time.sleep(self._delay)
        self._submit()
        cache = self._run.mapping.store.cache
        ends = [(handle, claim, handle.ended()) for handle, claim in self._open]
        cache.refresh()  # after that: what a job stored before it ended is seen
        still = [(job, claim) for job, claim, ended in ends if ended is None or not self._is_settled(job, claim, ended)]
        count = cache.count()
        changed = len(still) < len(self._open) or count != self._count
        self._delay = _FIRST_POLL if changed else min(1.5 * self._delay, _LAST_POLL)
        self._open = still
        self._count = count
        self._run.count(max(0, count - self._before))
        self.is_over = not still and not self._unsent

    def take_settled(self) -> Sequence[str]:
        """Keys of the jobs that have ended since the last question."""
        keys, self._settled = self._settled, []
        return keys

    def _is_settled(self, handle: JobHandle, claim: Claim, ended: Ended) -> bool:
        """Whether all that an ended job stored is seen, which the file system may take some time for."""
        if ended.reason == "completed":
            self._run.finished(claim.keys)
        missing = [key for key in claim.keys if not (self._run.is_there(key) or self._run.has_failed(key))]
        delay = handle.file_delay if ended.reason == "completed" else _LAST_DELAY_S
        deadline = self._deadlines.setdefault(claim.name, time.monotonic() + delay)
        if missing and ended.reason != "failed" and time.monotonic() < deadline:
            return False
        if missing and ended.reason == "failed":  # what it said last tells why
            ended = ended._replace(detail=said_at_end(handle, ended))
        elif ended.reason == "failed" and not any(map(self._run.has_failed, claim.keys)):
            self._run.note_error(JobError(f"job {handle.job_id} failed, though it stored all its results: {ended.detail}"))
        self._ends.update(dict.fromkeys(missing, (handle, ended)))
        self._jobs.update(dict.fromkeys(claim.keys, handle.job_id))
        self._settled += claim.keys
        return True

    def why_missing(self, key: str) -> Failure:
        handle, ended = self._ends[key]
        msg = f"job {handle.job_id} ended before it came to this item: {ended.reason}. {ended.detail.strip()}"
        return Failure.of(ended.error(msg), ended.reason)

    def job_of(self, key: str) -> Attempt | None:
        ended = self._ends[key][1] if key in self._ends else Ended("completed")
        asked = self._resources
        return Attempt(self._jobs[key], ended.reason, "", ended.node, *((asked.mem_gb, asked.timeout_min) if asked else ()))

    def close(self) -> None:
        """Leave the jobs running: whoever asks next finds their claims."""
        for claim in self._unsent:
            claim.close()


def help_along(names: Iterable[str]) -> bool:
    """Go on with what claims of this process are for, if nobody does so; False if there is nothing to do."""
    names = set(names)
    if names & _names_of_this_thread():
        msg = (
            "an item needs the result of one that is computed together with it, by the same job or call: compute that one first"
        )
        raise InfraUsageError(msg)
    works = [work for name in names if (work := _suspended.get(name)) is not None]
    if not works:  # what this process holds may be what those wait for that it waits for
        mine = _names_of_this_thread()
        works = [work for name, work in list(_suspended.items()) if not work.is_over and name not in mine]
    helped = [work.help() for work in works]
    return any(helped)
