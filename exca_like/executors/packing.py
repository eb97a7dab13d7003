"""Several calls in one job, one after the other: each with a handle of its own, as if it were a job.

What became of each is noted in ``<id>_parts`` beside the job's logs, a line each time: ``begun``, ``done``, ``failed``, or
``cancelled`` and the number of the call.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from exca_like import progress
from exca_like.errors import JobError
from exca_like.executors.base import Call, Ended, Executor, JobHandle, Resources, Whereabouts
from exca_like.executors.environment import current_job, is_first_of_job
from exca_like.executors.stopping import hooks_of_a_call

_OVER = ("done", "failed")


@dataclass(frozen=True)
class PackingExecutor:
    """An `Executor` that sends several calls in a job."""

    executor: Executor
    calls_per_job: int
    logs: str
    open_job: Callable[[dict[str, Any]], JobHandle]
    """Makes a job from its record."""

    @property
    def resources(self) -> Resources:
        return self.executor.resources

    def submit(self, calls: Sequence[Call], max_workers: int) -> Iterator[list[JobHandle]]:
        """See `Executor`."""
        starts = range(0, len(calls), self.calls_per_job)
        packed = [PackedCalls(calls[start : start + self.calls_per_job], self.logs, self.open_job) for start in starts]
        left = iter(packed)
        for jobs in self.executor.submit(packed, max_workers):
            yield [PackedJob(job, number) for job, pack in zip(jobs, left) for number in range(len(pack.calls))]  # noqa: B905


@dataclass(frozen=True)
class PackedCalls:
    """What a job of several calls runs. One that fails does not keep the others from being tried."""

    calls: Sequence[Call]
    logs: str
    open_job: Callable[[dict[str, Any]], JobHandle]

    def __call__(self) -> None:
        job = current_job(self.logs)
        assert job is not None  # nothing else runs this
        notes = _Notes.of(self.open_job(job))
        for number, call in enumerate(self.calls):
            if notes.read().get(number) in (*_OVER, "cancelled"):  # the job was started again
                continue
            notes.add("begun", number)
            try:
                with hooks_of_a_call():
                    call()
            except (Exception, SystemExit):
                traceback.print_exc()
                notes.add("failed", number)
            else:
                notes.add("done", number)
        failed = sum(note == "failed" for note in notes.read().values())
        if failed:
            msg = f"{failed} of the {len(self.calls)} tasks of this job failed"
            raise JobError(msg)


@dataclass(frozen=True)
class PackedJob:
    """One call of a job of several; a `JobHandle`."""

    job: JobHandle
    number: int

    @property
    def file_delay(self) -> float:
        return self.job.file_delay

    @property
    def job_id(self) -> str:
        return self.job.job_id

    @property
    def paths(self) -> Any:
        return self.job.paths

    @cached_property
    def _notes(self) -> "_Notes":
        return _Notes.of(self.job)

    @property
    def state(self) -> str:
        """The state of the job; PENDING while it has not come to this call."""
        state = self.job.state
        return "PENDING" if state == "RUNNING" and self._note() is None else state

    def record(self) -> dict[str, Any]:
        return {**self.job.record(), "part": self.number}

    def ended(self) -> Ended | None:
        """How the call ended; one that the job did not come to counts as not submitted."""
        note = self._note()
        if note in _OVER:
            return Ended("completed" if note == "done" else "failed")
        if note == "cancelled":
            return Ended("cancelled", f"it was taken out of job {self.job_id}")
        if note is None and self._is_here():  # a task before it needs its result, and must not wait for it
            return Ended("lost", f"job {self.job_id} has not come to this task yet", is_untried=True)
        ended = self.job.ended()
        if ended is None:
            return None
        note = self._note()  # it may have ended since
        if note in _OVER:
            return self.ended()
        if note is None and not ended.interrupted:
            detail = f"job {self.job_id} ended before it came to this task: {ended.reason}"
            return Ended("lost", detail, is_untried=True)
        return ended

    def whereabouts(self) -> Whereabouts:
        place = self.job.whereabouts()
        if place.is_running and self._note() is None:
            return Whereabouts(reason=f"other tasks of job {self.job_id} are run first", node=place.node)
        return place

    def cancel(self) -> None:
        """Take the call out of the job; if it runs already, the whole job is stopped."""
        if self._note() is None:
            self._notes.add("cancelled", self.number)
        elif self.ended() is None:
            progress.tell(f"job {self.job_id} is cancelled, with all tasks that it did not come to yet")
            self.job.cancel()

    def _is_here(self) -> bool:
        """Whether this process is the job."""
        record = self.job.record()
        return current_job(record["logs"]) == record

    def _note(self) -> str | None:
        return self._notes.read().get(self.number)


@dataclass(frozen=True)
class _Notes:
    path: Path

    @classmethod
    def of(cls, job: JobHandle) -> "_Notes":
        return cls(job.paths.folder / f"{job.job_id}_parts")

    def add(self, note: str, number: int) -> None:
        if is_first_of_job():  # it speaks for all
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as stream:
                stream.write(f"{note} {number}\n")

    def read(self) -> dict[int, str]:
        """The last note of each call."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        seen = (status.st_size, status.st_mtime_ns)
        known = _known.get(self.path)
        if known is None or known[0] != seen:  # many calls of a job ask
            lines = self.path.read_text().splitlines()
            known = _known[self.path] = seen, {int(number): note for note, number in (line.split() for line in lines)}
        return known[1]


_known: dict[Path, tuple[tuple[int, int], dict[int, str]]] = {}
