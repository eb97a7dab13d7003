"""What the rest of the package knows of executors."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

from exca_like.errors import (
    CacheFolderError,
    JobError,
    JobInterruptedError,
    JobMemoryError,
    JobTimeoutError,
    LostOutcomeError,
)

Call = Callable[[], None]
"""What a job runs: it stores its own result, and raises if it fails."""

Reason = Literal["completed", "failed", "timeout", "out of memory", "cancelled", "preempted", "node failure", "lost"]


@dataclass(frozen=True)
class Resources:
    """What a job asks for; None is "not set". ``timeout_min`` is in minutes, ``mem_gb`` in GB per node.

    Those named in `SETTINGS` have the names of fields of infras.
    """

    job_name: str | None = None
    timeout_min: int | None = None
    nodes: int | None = 1
    tasks_per_node: int | None = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    max_pickle_size_gb: float | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_constraint: str | None = None
    slurm_use_srun: bool = False
    slurm_additional_parameters: dict[str, int | str | float | bool] | None = None
    slurm_setup: list[str] | None = None
    requeue: Literal["preemption", "always", "never"] = "preemption"
    max_requeues: int = 10
    after: tuple[str, ...] = ()
    """Slurm jobs that must end well before."""
    exclude: tuple[str, ...] = ()
    """Nodes to stay away from."""
    workdir: str | None = None
    """The job's current folder."""
    import_path: tuple[str, ...] = ()
    """Folders that come first on its import path."""
    python: str | None = None
    """Its interpreter."""
    source: str | None = None
    """The folder of the method's code where it is submitted."""


CODE = ("workdir", "import_path", "python")
"""Fields that say which code and which Python a job has."""
SETTINGS = tuple(name for name in Resources.__dataclass_fields__ if name not in ("after", "exclude", "source", *CODE))
"""Fields that resources share with infras."""

_LOG_TAIL = 4000  # characters

WAVE_S = 5.0
"""Seconds between two attempts to send more jobs to a cluster that takes no more of them now."""


class Ended(NamedTuple):
    """How a job ended, as its executor sees it."""

    reason: Reason
    detail: str = ""
    node: str = ""
    """Where it ran, if that is known."""
    is_untried: bool = False
    """Whether it ended before it came to its call."""

    @property
    def interrupted(self) -> bool:
        """Whether a job that left no result counts as not submitted: not the computation is to blame."""
        return self.reason in ("cancelled", "preempted", "node failure", "lost", "completed")

    def error(self, message: str) -> JobError:
        """The error of a job that left no result."""
        if self.interrupted:
            return LostOutcomeError(message) if self.reason == "completed" else JobInterruptedError(message)
        kinds: dict[str, type[JobError]] = {"timeout": JobTimeoutError, "out of memory": JobMemoryError}
        return kinds.get(self.reason, JobError)(message)


@dataclass(frozen=True)
class Attempt:
    """A job that failed, and for which another one may be submitted."""

    job_id: str
    reason: str
    """Like `Ended.reason`; ``"error"`` for an exception of the method."""
    error: str = ""
    """Full name of the exception's class."""
    node: str = ""
    mem_gb: float | None = None
    timeout_min: int | None = None

    def __str__(self) -> str:
        asked = [f"{name}={value:g}" for name in ("mem_gb", "timeout_min") if (value := getattr(self, name)) is not None]
        what = self.error.removeprefix("builtins.") or self.reason
        return (
            f"job {self.job_id}: {what}"
            + (f" on {self.node}" if self.node else "")
            + (f" ({', '.join(asked)})" if asked else "")
        )


class Whereabouts(NamedTuple):
    """Where a job that has not ended is."""

    is_running: bool = False
    reason: str = ""
    """Why it waits, in the executor's words."""
    since: datetime | None = None
    """When it started to run."""
    node: str = ""


@dataclass(frozen=True)
class JobPaths:
    """Files of a job; ``logs`` is the template of its folder, with ``%j`` for the job's id."""

    logs: str
    job_id: str

    @property
    def folder(self) -> Path:
        return Path(self.logs.replace("%j", self.job_id))

    @property
    def submitted_pickle(self) -> Path:
        return self.folder / f"{self.job_id}_submitted.pkl"

    @property
    def stdout(self) -> Path:
        return self.folder / f"{self.job_id}_0_log.out"

    @property
    def stderr(self) -> Path:
        return self.folder / f"{self.job_id}_0_log.err"

    @property
    def process(self) -> Path:
        """Of a local job that has started."""
        return self.folder / f"{self.job_id}_process.json"

    @property
    def ended(self) -> Path:
        return self.folder / f"{self.job_id}_ended.json"


class JobHandle(Protocol):
    """A submitted job."""

    @property
    def file_delay(self) -> float:
        """The time that the file system may take to show what an ended job wrote, in seconds."""
        ...

    @property
    def job_id(self) -> str:
        """The executor's name for the job."""
        ...

    @property
    def state(self) -> str:
        """The executor's word for the job's state."""
        ...

    @property
    def paths(self) -> JobPaths:
        """Paths of the job's files."""
        ...

    def record(self) -> dict[str, Any]:
        """What `open_job` needs to find the job again from another process, as json data."""
        ...

    def ended(self) -> Ended | None:
        """How the job ended; None while it is queued or running. Cheap enough to be asked again and again."""
        ...

    def whereabouts(self) -> Whereabouts:
        """Where the job is, while it has not ended."""
        ...

    def cancel(self) -> None:
        """Stop the job.

        Raises
        ------
        SubmissionError
            It can't be stopped from here.
        """
        ...


class Executor(Protocol):
    """Starts jobs."""

    @property
    def resources(self) -> Resources:
        """What the jobs ask for."""
        ...

    def submit(self, calls: Sequence[Call], max_workers: int) -> Iterator[list[JobHandle]]:
        """Start a job for each call, of which at most ``max_workers`` run at a time; nothing is waited for.

        Yields the jobs of the calls in order, as many together as were sent together. An empty list means that the cluster
        takes no more jobs now: the next one is to be asked for after a pause of `WAVE_S`.
        """
        ...


@contextlib.contextmanager
def cancelled_unless_noted(handles: Sequence[JobHandle]) -> Iterator[list[JobHandle]]:
    """A block that takes note of jobs, in the list it is given: if it is left by an exception, the others are cancelled."""
    noted: list[JobHandle] = []
    try:
        yield noted
    except BaseException:
        for handle in handles:
            if handle not in noted:
                with contextlib.suppress(Exception):
                    handle.cancel()
        raise


def write_end(path: Path, reason: str, detail: str) -> None:
    """Leave a note of how a job ended."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"reason": reason, "detail": detail}))
    temporary.replace(path)


def read_end(path: Path) -> Ended | None:
    """What a `write_end` left, if there was one.

    Raises
    ------
    CacheFolderError
        It can't be read.
    """
    content: Any = None
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise hidden(path, error) from error
    except ValueError:
        pass
    match content:
        case {"reason": str(reason), "detail": str(detail)}:
            return Ended(cast("Reason", reason), detail)
    return Ended("lost", f"what was noted of its end is damaged: {path}")  # its machine went down meanwhile


def hidden(path: Path, error: OSError) -> CacheFolderError:
    """The error for a file of a job that can't be read, which is needed to know how that stands."""
    msg = (
        f"how a job stands can't be told, as {path} can't be read: {error.strerror or error}. "
        "Whoever submitted it can give you the right to read its logs (chmod)"
    )
    return CacheFolderError(error.errno, msg)


def said_at_end(handle: JobHandle, ended: Ended) -> str:
    """What is known of the end of a job: what its cluster says, and the end of its log."""
    log = (read_log(handle.paths.stderr) or "")[-_LOG_TAIL:].strip()
    return "\n".join(part for part in (ended.detail.strip(), log if log not in ended.detail else "") if part)


def read_log(path: Path) -> str | None:
    """Text of a log file; None if there is none (yet), or none that may be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
