"""Many items: what is missing is claimed, packed into parts, and computed here, in a pool, or in jobs of a cluster.

Results come in the order of the items, each as soon as it is there. A `Mapping` says what is wanted; `results` gives it.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from exca_like.cachedict.failures import Failure
from exca_like.engine import Patience, Waiting
from exca_like.errors import ItemsFailedError, LostOutcomeError, SubmissionError
from exca_like.executors.base import Attempt
from exca_like.executors.environment import number_of_cores
from exca_like.executors.pools import PARTS_PER_WORKER
from exca_like.item_errors import items_failed
from exca_like.parts import Part
from exca_like.progress import Progress
from exca_like.works import Here, InJobs, InPool, Mapping, Work, help_along

_SHOWN_S = 0.1  # seconds between two movements of the bar
_KINDS: dict[str | None, Any] = {None: Here, "debug": Here, "threadpool": InPool, "processpool": InPool}


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
            if key in missing and (here := run.here or run.begun()) is not None:
                given = here.advance()
                if given is not None and given[0] is key:  # computed just now: it need not be loaded
                    yield given[1]
                    continue
            try:
                value = run.result(key) if key in missing else cache[key]
            except ItemsFailedError:  # which may be a KeyError, as its items' errors
                raise
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


class _Run:
    """The computation of what is missing; goes on whenever it is waited for."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        store, keys = mapping.store, mapping.missing
        self._cache = store.cache
        self.replaces = mapping.mode == "force"
        self._fresh: set[str] = set()  # what was computed again, in mode force
        self._seen_failures = store.failure_marks(keys)
        self._todo: list[str] = list(keys)
        self._works: list[Work] = []
        self._waiting: list[Waiting] = []
        self._failed: dict[str, Failure] = {}
        # what there is of items that are to be computed again
        self._before = {key: self._cache.mark(key) for key in keys} if self.replaces else {}
        self._lost = self._lost_before() if mapping.next_resources else {}
        self._errors: list[BaseException] = []
        self._patience = Patience(mapping.label)
        self._bar = Progress(mapping.label, len(mapping.keys), len(mapping.keys) - len(keys))
        self.is_told_all = self.replaces or self._bar.is_on
        self._done = 0  # items that were computed, if that is to be shown; others failed
        self._shown = 0.0
        self.here: Here | None = None  # see `begun`

    def _lost_before(self) -> dict[str, list[Attempt]]:
        """The jobs that failed before they came to an item, of an earlier call, which this one goes on with."""
        failures = {key: self.mapping.store.failure(key) for key in self._seen_failures}
        found = {key: [Attempt(**attempt) for attempt in failure.attempts] for key, failure in failures.items() if failure}
        return {key: attempts for key, attempts in found.items() if attempts and self._has_more(attempts)}

    def _has_more(self, attempts: Sequence[Attempt]) -> bool:
        """Whether there is to be another job after some that failed."""
        return self.mapping.next_resources is not None and self.mapping.next_resources(attempts) is not None

    def is_there(self, key: str) -> bool:
        """Whether there is a (new) value for a key, as known since the last look at the folder."""
        return self._cache.mark(key) is not None and (not self.replaces or key in self._fresh)

    def begun(self) -> Here | None:
        """What this process computes as it is asked for results, begun now if need be."""
        if self._todo:
            self._begin()
        return self.here

    def result(self, key: str) -> Any:
        """The result of a key, when it is there; if it failed, raises when all others are done."""
        while not self.is_there(key):
            if key in self._failed or not self._advance():
                self.finish()
                break
        return self._cache[key]

    def finish(self) -> None:
        """Wait for everything; raises if anything failed."""
        while self._advance():
            pass
        self._show()
        if self._errors:
            raise self._errors[0]
        if self._failed:
            failed = {key: self._failed[key] for key in self.mapping.missing if key in self._failed}  # in the items' order
            raise items_failed(self.mapping.label, failed, len(self.mapping.keys))

    def close(self) -> None:
        """Stop, and release what was claimed."""
        for work in self._works:
            work.close()
        self._bar.close()

    def note(self, key: str, failure: Failure | None) -> None:
        """Take note of an item that this process computed."""
        if failure is not None:
            self._failed[key] = failure
        else:
            self._done += 1
            if self.replaces:
                self.finished((key,))
        if self._bar.is_on:
            self.count(self._done)

    def finished(self, keys: Sequence[str]) -> None:
        """Take note of items whose part has ended well."""
        if self.replaces:
            fresh = [key for key in keys if not self.has_failed(key)]
            self._fresh.update(fresh)
            self.mapping.recomputed.update(fresh)

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
        self._bar.show(self._done, len(self._failed))

    def _advance(self) -> bool:
        """Do, or wait for, a little of what is left; False if nothing is."""
        if self._todo:
            self._begin()
        elif self._works:
            work = self._works.pop(0)
            self._works.append(work)  # the next time, another one
            work.advance()
            self._decide(work.take_settled(), work)
            if work.is_over:
                self.here = None
                self._works.remove(work)
                work.close()
        elif self._waiting:
            if not help_along({name for others in self._waiting for name in others.names()}):
                self._patience.pause(self._waiting)
                self._cache.refresh()  # items are stored a little before they are released
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
            if self.replaces:  # another thread may have computed some again
                self._fresh.update(key for key in free if key in mapping.recomputed and self._cache.mark(key) is not None)
                wanted = [key for key in free if not self.is_there(key)]
            else:
                wanted = list(self._cache.unknown(free))
            if self._seen_failures:  # what failed before comes last: it must not keep the rest from being tried
                wanted.sort(key=self._seen_failures.__contains__)
            groups.extend(_packed(wanted, self._number_of_parts(len(wanted))))
            return groups

        claims, waiting = mapping.claims.claim(todo, choose)
        self._todo = []
        self._waiting.extend(waiting)
        if claims:
            try:
                work: Work = _KINDS.get(mapping.cluster, InJobs)(self, claims)
                self._works.append(work)
                if isinstance(work, Here) and self._cache.cache_type is None:  # else what is loaded may be of another type
                    self.here = work
            except BaseException as error:
                keys = [key for claim in claims for key in claim.keys]
                for claim in claims:
                    claim.close()
                if not (isinstance(error, SubmissionError) and self.attempts(keys)):
                    raise
                for key in keys:  # what failed before is to be told, not only that there is no other job
                    failure = mapping.store.failure(key) or Failure.of(error)
                    self._failed[key] = replace(
                        failure, message=f"{failure.message}\nAnother job was refused: {error}", pickled=None
                    )

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
        if freed:
            self._patience.renew()
            self._cache.refresh()
        for others in self._waiting:  # what is stored need not be waited for, though its release may be seen later
            if not self.replaces and all(self.is_there(key) or self.has_failed(key) for key in others.keys):
                freed += others.keys
                others.keys = []
        self._waiting = [others for others in self._waiting if others.keys]
        for key in freed:
            if not self.replaces and self.is_there(key):
                self._done += 1
            elif not self.replaces and (failure := self._new_failure(key)) is not None:  # shared by those who waited for it
                if not self._is_retried(key, failure):
                    self._failed[key] = failure
            else:
                self._todo.append(key)

    def has_failed(self, key: str) -> bool:
        """Whether there is a (new) failure of a key, as known since the last look at the folder."""
        mark = self.mapping.store.failure_mark(key)
        return mark is not None and mark != self._seen_failures.get(key)

    def _new_failure(self, key: str) -> Failure | None:
        return self.mapping.store.failure(key) if self.has_failed(key) else None

    def _decide(self, keys: Sequence[str], work: Work) -> None:
        """Find out what became of items that a work has done with."""
        if not keys or work.knows_all:
            return
        self._cache.refresh()
        if self.replaces:  # what a job stored before it failed is done
            changed = [key for key in keys if self._cache.mark(key) not in (None, self._before.get(key))]
            self._fresh.update(changed)
            self.mapping.recomputed.update(changed)
        for key in keys:
            if not self.is_there(key) and key not in self._failed:
                failure = self._new_failure(key) or work.why_missing(key)
                if not self._is_retried(key, failure, work.job_of(key)):
                    self._failed[key] = failure

    def _is_retried(self, key: str, failure: Failure, job: Attempt | None = None) -> bool:
        """Whether an item that failed is to be computed by another job; ``job`` is the one of ours that failed."""
        if self.mapping.next_resources is None:
            return False
        attempts = [Attempt(**attempt) for attempt in failure.attempts]
        if not attempts:
            attempt = replace(
                job or Attempt("", failure.reason),
                reason=failure.reason,
                error=failure.type if failure.reason == "error" else "",
            )
            attempts = [*self._lost.get(key, ()), attempt]
            if job is not None and not self.mapping.store.is_in_memory:
                with self._cache.write():  # others that wait for it, or come later, go on from there
                    self._cache.put_failure(key, replace(failure, attempts=tuple(map(asdict, attempts))))
        if (mark := self.mapping.store.failure_mark(key)) is not None:
            self._seen_failures[key] = mark
        if not self._has_more(attempts):
            return False
        self._lost[key] = attempts
        self._todo.append(key)
        return True

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        """The jobs that failed before they came to some keys: of one with the most of them."""
        return max((self._lost.get(key, []) for key in keys), key=len, default=[]) if self._lost else []


def _packed(keys: list[str], number: int) -> list[Sequence[str]]:
    """Keys in a number of groups of about the same size, in order."""
    bounds = [len(keys) * group // number for group in range(number + 1)]
    return [keys[first:last] for first, last in itertools.pairwise(bounds) if last > first]
