"""What the rest of the package knows of executors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from exca_like.errors import JobError, JobInterruptedError, JobMemoryError, JobTimeoutError, LostOutcomeError

Call = Callable[[], None]
"""What a job runs: it stores its own result, and raises if it fails."""

Reason = Literal["completed", "failed", "timeout", "out of memory", "cancelled", "preempted", "node failure", "lost"]


@dataclass(frozen=True)
class Resources:
    """What a job asks for; None is "not set". ``timeout_min`` is in minutes, ``mem_gb`` in GB per node.

    All but ``workdir`` (the job's current folder), ``import_path`` (folders that come first on its import path) and
    ``python`` (its interpreter) have the names of fields of infras.
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
    workdir: str | None = None
    import_path: tuple[str, ...] = ()
    python: str | None = None


SETTINGS = tuple(name for name in Resources.__dataclass_fields__ if name not in ("workdir", "import_path", "python"))
"""Fields that resources share with infras."""


class Ended(NamedTuple):
    """How a job ended, as its executor sees it."""

    reason: Reason
    detail: str = ""

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


class Whereabouts(NamedTuple):
    """Where a job that has not ended is."""

    is_running: bool = False
    reason: str = ""
    """Why it waits, in the executor's words."""
    since: datetime | None = None
    """When it started to run."""
    node: str = ""


class JobHandle(Protocol):
    """A submitted job.

    ``file_delay`` is the time in seconds that the file system may take to show what an ended job wrote.
    """

    file_delay: ClassVar[float]

    @property
    def job_id(self) -> str:
        """The executor's name for the job."""
        ...

    @property
    def state(self) -> str:
        """The executor's word for the job's state."""
        ...

    @property
    def paths(self) -> Any:
        """Paths of the job's files: ``folder``, ``stdout``, ``stderr``, ``submitted_pickle``."""
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
        """Stop the job."""
        ...


class Executor(Protocol):
    """Starts jobs."""

    def submit(self, calls: Sequence[Call], max_workers: int) -> list[JobHandle]:
        """Start a job for each call, at most ``max_workers`` of them at a time, and return without waiting."""
        ...


def read_log(path: Path) -> str | None:
    """Text of a log file; None if there is none (yet)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
