"""Waiting for many tasks at once."""

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from exca_like.errors import WaitTimeoutError
from exca_like.infra.again import settle
from exca_like.infra.job import TaskJob
from exca_like.infra.task import job_of
from exca_like.overlapping import overlapped

T = TypeVar("T")

_FIRST_POLL, _LAST_POLL = 0.01, 1.0  # seconds


def wait_all(tasks: Iterable[Any], timeout: float | None = None) -> None:
    """Wait until tasks have ended, well or not.

    Parameters
    ----------
    tasks:
        Configs with one TaskInfra, infras, or jobs, as `as_completed` takes them.
    timeout:
        Seconds to wait at most; None: as long as it takes.

    Raises
    ------
    TimeoutError
        Some have not ended in time; they go on.
    """
    for _ in as_completed(tasks, timeout):
        pass


class as_completed(Generic[T]):  # noqa: N801 - as the function of this name in asyncio and concurrent.futures
    """Tasks in the order in which they end, well or not, each as soon as it has; for ``for`` and ``async for``.

    All states come from the files of the results and from one look at the cluster for all jobs.

    Parameters
    ----------
    tasks:
        Configs with one TaskInfra, infras (``config.infra``), or jobs (``config.infra.job()``). One that is not computed or
        submitted yet is submitted, on its own: better submit many with ``infra.job_array()`` first.
    timeout:
        Seconds to wait at most, all in all; None: as long as it takes.

    Raises
    ------
    TypeError
        Something is no task.
    TimeoutError
        Some have not ended in time; they go on.
    """

    def __init__(self, tasks: Iterable[T], timeout: float | None = None) -> None:
        self._open: list[tuple[T, TaskJob[Any]]] = [(task, job_of(task)) for task in tasks]
        self._ready: collections.deque[T] = collections.deque()  # have ended, and were not given yet
        self._next_question = 0.0
        self._total = len(self._open)
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._delay = _FIRST_POLL

    def __iter__(self) -> Iterator[T]:
        while self._ready or self._open:
            if not self._ready:
                self._look()
            if self._ready:
                yield self._ready.popleft()
            else:
                time.sleep(self._pause())

    async def __aiter__(self) -> AsyncIterator[T]:
        while self._ready or self._open:
            if not self._ready:
                await asyncio.to_thread(self._look)  # it reads files, and may compute (``cluster="debug"``)
            if self._ready:
                yield self._ready.popleft()
            else:
                await asyncio.sleep(self._pause())

    def _look(self) -> None:
        """Find those that have ended since the last question: first by their results, for which no cluster is asked."""
        self._sort(TaskJob.has_result)
        if not self._ready or time.monotonic() > self._next_question:
            self._settle()
            self._next_question = time.monotonic() + _LAST_POLL

    def _settle(self) -> None:
        """Find those that have ended, and for which no other job is sent: of all that failed, in one go."""
        ended = [job for _, job in self._open if job._settled() is not None]
        over = set(map(id, ended)) - set(map(id, settle(ended)))
        self._sort(lambda job: id(job) in over)

    def _sort(self, has_ended: Callable[[TaskJob[Any]], bool]) -> None:
        still = []
        for pair, has in zip(self._open, overlapped(lambda pair: has_ended(pair[1]), self._open), strict=True):
            if has:
                self._ready.append(pair[0])
            else:
                still.append(pair)
        self._open = still

    def _pause(self) -> float:
        """How long to wait before the next question, in seconds."""
        delay, self._delay = self._delay, min(1.5 * self._delay, _LAST_POLL)
        if self._until is None:
            return delay
        left = self._until - time.monotonic()
        if left <= 0:
            shown = ", ".join(repr(job) for _, job in self._open[:3]) + (", ..." if len(self._open) > 3 else "")
            msg = f"{len(self._open)} of {self._total} tasks have not ended within {self._timeout:g} s: {shown}. They go on."
            raise WaitTimeoutError(msg)
        return min(delay, left)
