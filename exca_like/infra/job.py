"""The job of a task, as users see it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from exca_like.cachedict.failures import Failure
from exca_like.errors import (
    InfraUsageError,
    JobError,
    LostOutcomeError,
)
from exca_like.executors import open_job
from exca_like.executors.base import Attempt, Ended, JobHandle, read_log, said_at_end
from exca_like.infra.status import HINTS
from exca_like.lazy import Lazy
from exca_like.recording import ended_elsewhere
from exca_like.store import MemoryStore, Outcome, Store

R = TypeVar("R")

_FIRST_POLL, _LAST_POLL = 0.01, 1.0  # seconds


class TaskJob(Generic[R]):
    """The computation of a task: submitted, running or ended, on a cluster or in this process.

    Parameters
    ----------
    label:
        The uid, for messages.
    key:
        Key of the outcome in the store.
    store:
        Where the outcome is, or will be.
    handle:
        The job on its cluster; None for a computation of this process.
    compute:
        What computes the outcome when it is asked for (``cluster="debug"``); None if something else does.
    settle:
        Sends another job for those of several that failed and are to be tried again; gives those that go on.
    infra:
        Whose task it is, for ``settle``.
    record:
        What was noted when it was submitted, for messages: the jobs that failed before (``"attempts"``), and those that it
        comes after (``"after"``).
    """

    _hints: ClassVar[Mapping[str, str]] = HINTS

    def __init__(
        self,
        label: str,
        key: str,
        store: Store,
        handle: JobHandle | None = None,
        compute: Callable[[], None] | None = None,
        settle: "Callable[[Sequence[TaskJob[Any]]], Sequence[TaskJob[Any]]] | None" = None,
        infra: Any = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self._record = dict(record or {})
        self._label = label
        self._key = key
        self._store = store
        self._handle = handle
        self._compute = compute
        self._settle = settle
        self._infra = infra
        self._lock: Any = threading.RLock()
        self._is_copy = False
        self._seen_end: float | None = None  # when it was seen that the job had ended without an outcome
        self._refused = ""  # why no other job could be sent
        self._not_before = 0.0  # when another one may be sent
        self.parents: Sequence[TaskJob[Any]] = ()

    @property
    def label(self) -> str:
        """The uid of the task."""
        return self._label

    @property
    def is_on_slurm(self) -> bool:
        """Whether the job is one of Slurm."""
        return self._handle is not None and self._handle.record()["cluster"] == "slurm"

    def record(self) -> dict[str, Any]:
        """What is needed to find the job again; empty for a computation of this process."""
        return {} if self._handle is None else self._handle.record()

    @property
    def job_id(self) -> str:
        """The cluster's id of the job; ``"in-process"`` for a computation of this process."""
        return "in-process" if self._handle is None else self._handle.job_id

    @property
    def state(self) -> str:
        """COMPLETED or FAILED when there is an outcome, else the cluster's word."""
        kind = None if self._compute is not None else self._store.peek(self._key)
        if kind is not None:
            return "COMPLETED" if kind == "value" else "FAILED"
        return "PENDING" if self._handle is None else self._handle.state

    @property
    def paths(self) -> Any:
        """Paths of the job's files: ``folder``, ``stdout``, ``stderr``, ``submitted_pickle``."""
        if self._handle is None:
            msg = f"{self._label} was computed in its caller's process: it has no files of its own"
            raise InfraUsageError(msg)
        return self._handle.paths

    def stdout(self) -> str | None:
        """What the job printed so far; None if there is no such file (yet)."""
        return None if self._handle is None else read_log(self._handle.paths.stdout)

    def stderr(self) -> str | None:
        """What the job printed as errors so far; None if there is no such file (yet)."""
        return None if self._handle is None else read_log(self._handle.paths.stderr)

    def has_result(self) -> bool:
        """Whether the result is there; the cluster is not asked."""
        return self._compute is None and self._store.peek(self._key) == "value"

    def done(self) -> bool:
        """Whether the job has ended, well or not, and no other one takes its place."""
        return self._settled() is not None and not (self._settle and self._settle([self]))

    def wait(self) -> None:
        """Wait for the end of the job."""
        delay = _FIRST_POLL
        while not self.done():
            time.sleep(delay)
            delay = min(delay * 1.5, _LAST_POLL)

    def result(self) -> R:
        """Wait for the job and return its result.

        Raises
        ------
        Exception
            What the method raised, with the traceback of the job as a note.
        JobError
            The job ended without a result: out of time (JobTimeoutError), out of memory (JobMemoryError), cancelled,
            preempted or lost (JobInterruptedError), or failed before the method was called.
        """
        value: R = self._outcome().get()
        return value

    def lazy(self) -> Lazy[R]:
        """The result, which is loaded only when it is needed; waits for the job.

        Raises
        ------
        Exception
            What `result` would raise.
        """
        self.wait()
        folder = self._store.place()
        if folder is None or self._store.peek(self._key) != "value":
            self.result()  # raises, if there is no result
            msg = f"the result of {self._label} is kept in memory, as there is no folder: use result()"
            raise InfraUsageError(msg)
        return Lazy(folder, self._key, self._label)

    def results(self) -> list[R]:
        """The result, as a list of one."""
        return [self.result()]

    def exception(self) -> BaseException | None:
        """Wait for the job and return the exception that `result` would raise; None if it went well."""
        try:
            failure = self._outcome().failure
        except JobError as error:
            return error
        return None if failure is None else failure.exception()

    def cancel(self) -> None:
        """Stop the job, if it is a job of a cluster and has not ended."""
        if self._handle is not None and self._store.peek(self._key) is None:
            self._handle.cancel()

    def _ended(self) -> Ended | None:
        if self._lock is not None:  # it is no copy
            with self._lock:  # of several threads, one computes, and the others wait for it
                compute, self._compute = self._compute, None
                if compute is not None:
                    compute()
        if self._store.peek(self._key) is not None:
            return Ended("completed")
        if self._handle is None:
            return Ended("lost", "it was computed in a process that left no result")
        return self._handle.ended()

    def _settled(self) -> Ended | None:
        """How the job ended; of one without an outcome, only after the time that the file system may take to show it."""
        ended = self._ended()
        if ended is None or self._handle is None or self._store.peek(self._key) is not None:
            return ended
        if self._seen_end is None:
            self._seen_end = time.monotonic()
        return ended if time.monotonic() - self._seen_end >= self._delay(ended) else None

    def _delay(self, ended: Ended) -> float:
        """How long the outcome of an ended job may take to be seen, in seconds."""
        delay = 0.0 if self._handle is None else self._handle.file_delay
        # else an outcome is not expected, though it may have come just before the end
        return delay if ended.reason == "completed" else min(delay, 1.0)

    def follow(self, handle: JobHandle, record: Mapping[str, Any]) -> None:
        """Stand for another job, which took the place of this one."""
        self._handle, self._record, self._seen_end, self._refused = handle, dict(record), None, ""

    def _outcome(self) -> Outcome:
        self.wait()
        there = self._store.peek(self._key) is not None
        outcome = self._store.load(self._key)
        if outcome is not None:
            return outcome
        if there:
            msg = f"the stored result of {self._label} is corrupt: call the method to compute it again"
            raise LostOutcomeError(msg)
        return self._without_result(self._ended() or Ended("lost"))

    def _appears(self, ended: Ended) -> bool:
        """Wait for the outcome of an ended job as long as the file system may take; whether it turned up."""
        until = time.monotonic() + self._delay(ended)
        while self._store.peek(self._key) is None:
            if time.monotonic() > until:
                return False
            time.sleep(_LAST_POLL / 4)
        return True

    def _without_result(self, ended: Ended) -> Outcome:
        """The outcome of a job that left none; kept for the next caller unless the job counts as not submitted."""
        said = ended.detail if self._handle is None else said_at_end(self._handle, ended)
        detail = "\n".join(part for part in (self._why_cancelled() if ended.reason == "cancelled" else "", said) if part)
        msg = (
            f"job {self.job_id} of {self._label} ended without a result: {ended.reason}. "
            f"To go on: {self._hints[ended.reason]}.{self._attempts()}{self._refused}\n{detail}"
        ).strip()
        if ended.interrupted:
            raise ended.error(msg)
        failure = Failure.of(ended.error(msg), ended.reason)
        if not self._is_copy:
            self._store.save(self._key, Outcome(failure=failure), ended_elsewhere(self.job_id))
        return Outcome(failure=failure)

    def _attempts(self) -> str:
        failed = [str(Attempt(**attempt)) for attempt in self._record.get("attempts", ())]
        return f"\n{len(failed)} job(s) before it failed, too: {'; '.join(failed)}." if failed else ""

    def _why_cancelled(self) -> str:
        """What is known of jobs that it was to come after, and that did not end well."""
        ends = [(parent, open_job(dict(parent)).ended()) for parent in self._record.get("after", ())]
        failed = [
            f"{parent['uid']} (job {parent['job_id']}: {end.reason})"
            for parent, end in ends
            if end and end.reason != "completed"
        ]
        return f"It was to come after {', '.join(failed)}, and was cancelled for that." if failed else ""

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_settle": None,
            "_infra": None,
            "_lock": None,
            "_is_copy": True,
            "parents": (),
        }  # whoever gets a copy only looks at it

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self._label}, job_id={self.job_id}, state={self.state}>"


def uncached_job(label: str, call: Callable[[], R]) -> TaskJob[R]:
    """A job of mode ``"off"``: it runs in this process when its outcome is asked for, which it alone keeps, in memory."""
    store = MemoryStore()

    def compute() -> None:
        try:
            outcome = Outcome(call())
        except (Exception, SystemExit) as error:
            outcome = Outcome(failure=Failure.of(error))
        store.save(label, outcome, {})

    return TaskJob(label, label, store, compute=compute)
