"""Where computations run other than here: local processes, Slurm."""

import time
from collections.abc import Sequence
from typing import Any

from exca_like.errors import CacheFolderError, InfraValueError, SubmissionError
from exca_like.executors.base import Executor, JobHandle, Resources

_PATIENCE_S = 10.0  # with jobs that were cancelled
_POLL_S = 0.05


def make_executor(cluster: str, logs: str, resources: Resources) -> Executor:
    """The executor of a cluster: ``"local"``, ``"slurm"``, or ``"auto"`` for Slurm if there is one, else local."""
    if cluster == "auto":
        from exca_like.executors.slurm import slurm_is_there

        cluster = "slurm" if slurm_is_there() else "local"
    if cluster == "slurm":
        from exca_like.executors.slurm import SlurmExecutor

        return SlurmExecutor(logs, resources)
    if cluster == "local":
        from exca_like.executors.local import LocalExecutor

        return LocalExecutor(logs, resources)
    msg = f"unknown cluster {cluster!r}: use 'local', 'slurm' or 'auto'"
    raise InfraValueError(msg)


def open_job(record: dict[str, Any]) -> JobHandle:
    """The job of a `JobHandle.record`.

    Raises
    ------
    KeyError, TypeError
        It is no such record.
    """
    if "part" in record:
        from exca_like.executors.packing import PackedJob

        return PackedJob(open_job({name: value for name, value in record.items() if name != "part"}), record["part"])
    logs, job_id = record["logs"], record["job_id"]
    if not isinstance(logs, str) or not isinstance(job_id, str) or "\0" in logs + job_id:
        raise TypeError(record)
    if record["cluster"] == "slurm":
        from exca_like.executors.slurm_handle import SlurmJob

        return SlurmJob(logs, job_id)
    from exca_like.executors.local import LocalJob

    return LocalJob(logs, job_id)


def job_is_over(record: dict[str, Any]) -> bool:
    """Whether the job of a `JobHandle.record` has ended, as far as its cluster knows, and we may."""
    try:
        return open_job(record).ended() is not None
    except (KeyError, TypeError):
        return True
    except CacheFolderError:
        return False


def cancel_all(jobs: Sequence[JobHandle]) -> list[JobHandle]:
    """Stop jobs, those on Slurm in as few calls of its command as can be, and wait for a while until they have ended.

    Until then they count as running, so that nobody would submit them again; gives those that still do.

    Raises
    ------
    SubmissionError
        Slurm refused it, or some local jobs can't be stopped from here; the other local ones are.
    """
    from exca_like.executors.slurm_handle import SlurmJob, cancel_jobs
    from exca_like.executors.slurm_state import watcher

    on_slurm = [job.job_id for job in jobs if isinstance(job, SlurmJob)]
    cancel_jobs(on_slurm)
    if on_slurm:
        watcher.expect_change()
    said: list[str] = []
    for job in jobs:
        if not isinstance(job, SlurmJob):
            try:
                job.cancel()
            except SubmissionError as error:
                said.append(str(error))
    if said:
        raise SubmissionError("\n".join(said))
    until = time.monotonic() + _PATIENCE_S
    left = list(jobs)
    while (left := [job for job in left if goes_on(job)]) and time.monotonic() < until:
        time.sleep(_POLL_S)
    return left


def goes_on(job: JobHandle) -> bool:
    """Whether a job has not ended, as far as can be told."""
    try:
        return job.ended() is None
    except CacheFolderError:
        return False
