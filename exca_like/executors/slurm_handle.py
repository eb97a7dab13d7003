"""Jobs on Slurm, as the processes see them that wait for them."""

import contextlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exca_like.errors import CacheFolderError, SubmissionError
from exca_like.executors.base import Ended, JobPaths, Reason, Whereabouts, read_end, read_log
from exca_like.executors.slurm_state import watcher

_LOG_TAIL = 4000  # characters
_FILE_DELAY_S = 15.0
_TOGETHER = 500  # jobs of one scancel
_STOPPED_BY: dict[str, Reason] = {"TIME LIMIT": "timeout", "PREEMPTION": "preempted", "NODE FAILURE": "node failure"}
_STOPPED = re.compile(f"CANCELLED AT .* DUE TO ({'|'.join(_STOPPED_BY)})")
_MEMORY = re.compile(r"oom.kill|out of memory|exceeded memory limit", re.IGNORECASE)


@dataclass(frozen=True)
class SlurmJob:
    """A job on Slurm, or one element of an array."""

    logs: str
    job_id: str

    @property
    def file_delay(self) -> float:
        """What network file systems cache, in seconds."""
        return _FILE_DELAY_S

    @property
    def paths(self) -> JobPaths:
        """Paths of the job's files."""
        return JobPaths(self.logs, self.job_id)

    @property
    def state(self) -> str:
        """Slurm's word for the job's state."""
        return watcher.state(self.job_id)

    def record(self) -> dict[str, Any]:
        """What `open_job` needs to find the job again."""
        return {"cluster": "slurm", "job_id": self.job_id, "logs": self.logs}

    def ended(self) -> Ended | None:
        """How the job ended, if it did; files are looked at before the cluster is asked."""
        with contextlib.suppress(CacheFolderError):  # of another user, for whom the cluster answers
            noted = read_end(self.paths.ended)
            if noted is not None:
                return noted
        ended = watcher.ended(self.job_id)
        if ended is None or ended.reason not in ("failed", "cancelled", "lost"):
            return ended
        stderr = read_log(self.paths.stderr) or ""
        if _MEMORY.search(stderr):  # clusters without cgroups report a failure
            return ended._replace(reason="out of memory", detail=stderr[-_LOG_TAIL:])
        said = _STOPPED.findall(stderr)
        if ended.reason == "lost" and said:  # the cluster has forgotten it, but not its log
            return Ended(_STOPPED_BY[said[-1]], f"the log of job {self.job_id} says: stopped due to {said[-1].lower()}")
        return ended._replace(detail=f"{ended.detail}\n{stderr[-_LOG_TAIL:]}".strip())

    def whereabouts(self) -> Whereabouts:
        """Where the job is, while it has not ended."""
        return watcher.whereabouts(self.job_id)

    def cancel(self) -> None:
        """Stop the job with scancel."""
        cancel_jobs([self.job_id])


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """Stop jobs with scancel, many at a time.

    Raises
    ------
    SubmissionError
        It failed for some of them; the others are stopped.
    """
    said = []
    for start in range(0, len(job_ids), _TOGETHER):
        some = job_ids[start : start + _TOGETHER]
        done = subprocess.run(["scancel", *some], capture_output=True, text=True, check=False)
        if done.returncode:
            said.append(f"scancel {' '.join(some[:3])}{' ...' if len(some) > 3 else ''} failed: {done.stderr.strip()}")
    if said:
        raise SubmissionError("\n".join(said))
