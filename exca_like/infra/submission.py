"""What `SubmitInfra` sends: calls, the jobs that run them, and what is said of those that can't be sent."""

import contextlib
import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cloudpickle

from exca_like.cachedict.context import AllowPickle
from exca_like.cachedict.failures import Failure
from exca_like.errors import OpenBatchError
from exca_like.executors import open_job
from exca_like.executors.base import JobHandle
from exca_like.executors.environment import current_job
from exca_like.executors.payload import Payload, parts_of
from exca_like.infra.job import R, TaskJob
from exca_like.infra.status import HINTS
from exca_like.layout import EntryFolder
from exca_like.names import qualified_name
from exca_like.store import FolderStore, MemoryStore, Outcome, Store


class SubmittedJob(TaskJob[R]):
    """The job of one `SubmitInfra.submit`; what it returns lies in its log folder."""

    _again = "submit it again"
    _hints: ClassVar[Mapping[str, str]] = {
        **HINTS,
        **dict.fromkeys(("cancelled", "preempted", "node failure", "lost"), _again),
        "failed": f"read the job's stderr, mend the cause, and {_again}",
        "completed": f"{_again}; if that does not help, check that the job's machine sees the same folder",
    }

    def __init__(self, label: str) -> None:
        nothing: Any = _Unsent(f"the job of {label} is sent at the end of the batch() block: use it after the block")
        super().__init__(label, _key(0), nothing, nothing)
        self._processes = 1

    def results(self) -> list[R]:
        """The results of all processes of the job: of ``nodes`` times ``tasks_per_node`` if ``slurm_use_srun`` is set."""
        self.wait()
        jobs = [copy.copy(self) for _ in range(self._processes)]
        for rank, job in enumerate(jobs):
            job._key = _key(rank)
        return [job.result() for job in jobs]

    def _connect(self, handle: JobHandle, store: Store, processes: int) -> None:
        self._handle, self._store, self._processes = handle, store, processes

    def _drop(self) -> None:
        if isinstance(self._store, _Unsent):
            msg = f"the job of {self._label} was not sent, because its batch() block ended with an exception: {self._again}"
            nothing: Any = _Unsent(msg)
            self._handle = self._store = nothing

    def _compute_here(self, call: Callable[[], Any]) -> None:
        store = self._store = MemoryStore()

        def compute() -> None:
            with contextlib.suppress(Exception, SystemExit):  # the outcome holds it
                _run(call, store, self._key)

        self._handle, self._compute = None, compute

    def __repr__(self) -> str:
        if isinstance(self._store, _Unsent):
            return f"{type(self).__name__}<{self._label}, not sent>"
        return super().__repr__()


@dataclass(frozen=True)
class _Unsent:
    """Stands for what a job does not have as long as it was not sent."""

    message: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by Python itself, to copy a job for instance
            raise AttributeError(name)
        raise OpenBatchError(self.message)


@dataclass(frozen=True)
class SubmittedCall:
    """What the job of a submission runs; the outcome goes to a folder beside the job's logs."""

    logs: str
    call: Payload
    permissions: int | None

    def __call__(self) -> None:
        job = current_job(self.logs)
        assert job is not None  # nothing else runs this
        store, key = store_of(open_job(job), self.permissions), _key(int(os.environ.get("SLURM_PROCID", "0")))
        if store.peek(key) is None:  # else the job was started again after it had ended
            _run(self.call, store, key)


def _run(call: Callable[[], Any], store: Store, key: str) -> None:
    """Call something, and store what came out; an exception is stored and raised."""
    recording = store.recording()
    try:
        store.save(key, Outcome(call()), recording.information())
    except (Exception, SystemExit) as error:
        store.save(key, Outcome(failure=Failure.of(error)), recording.information())
        raise


def _key(rank: int) -> str:
    """Key of what a process of a job returned."""
    return f"result-{rank}" if rank else "result"


def store_of(job: JobHandle, permissions: int | None, allow_pickle: AllowPickle = "own") -> FolderStore:
    return FolderStore(EntryFolder(str(job.paths.folder), f"{job.job_id}_result"), dict, permissions, allow_pickle)


def blame(method: Callable[..., Any], arguments: Mapping[str, Any], error: BaseException | None) -> str:
    """A message that names the smallest thing that can't be pickled."""
    roots = {**arguments, method.__qualname__: method}
    path, value, seen = "", roots, {id(roots)}
    while True:
        for name, part in parts_of(value):
            if id(part) not in seen and (reason := _why_not_pickled(part)):
                path, value, error = f"{path}.{name}" if path else name, part, reason
                seen.add(id(part))
                break
        else:
            break
    kind = qualified_name(type(value)).removeprefix("builtins.")
    return (
        f"{method.__qualname__} can't be submitted with these arguments: {path or 'something'}, of type {kind}, can't be "
        f"pickled to be sent to a job ({error}). Pass what it is made from instead (of an open file, its path), and make it "
        "inside the method."
    )


def _why_not_pickled(value: Any) -> Exception | None:
    try:
        cloudpickle.dumps(value)
    except Exception as error:
        return error
    return None
