"""A job on Slurm: ``python -u -m exca_like.executors.slurm_job <logs>``, where ``logs`` has ``%j`` for the job's id.

It imports as little as it can: what a job costs before it comes to the user's code is paid by each of thousands.
"""

import os
import pickle
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from exca_like.executors.base import Call, JobPaths, write_end
from exca_like.executors.environment import current_job, is_first_of_job
from exca_like.executors.stopping import Requeue, hooks_of_a_call, listen, restart_count

_PICKLE_DELAY_S = 60.0
_POLL_S = 0.05


@dataclass(frozen=True)
class SlurmCall:
    """A call in a job, which may be stopped and started again."""

    call: Call
    requeue: Requeue
    max_requeues: int

    def __call__(self) -> None:
        listen(self.requeue, self.max_requeues)
        with hooks_of_a_call():
            self.call()


def main(logs: str) -> None:
    """Run the call of the job that this process is, and note how it ended."""
    os.environ["SUBMITIT_FOLDER"] = logs  # lets submitit.JobEnvironment() work in user code
    job = current_job(logs)
    assert job is not None  # nothing else runs this
    paths = JobPaths(logs, job["job_id"])
    try:
        call = _load(paths.submitted_pickle)
        restarts = restart_count()
        if restarts > call.max_requeues:
            what = f"it was started again {restarts} times, more than max_requeues={call.max_requeues}"
            write_end(paths.ended, "preempted", what)
            sys.exit(1)
        call()
    except Exception:
        if is_first_of_job():  # it speaks for all
            write_end(paths.ended, "failed", traceback.format_exc())
        raise
    if is_first_of_job():
        write_end(paths.ended, "completed", "")


def _load(path: Path) -> SlurmCall:
    """What the job is to do: it is there soon after the submission."""
    deadline = time.monotonic() + _PICKLE_DELAY_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    with path.open("rb") as stream:
        call: SlurmCall = pickle.load(stream)
    return call


if __name__ == "__main__":
    main(sys.argv[1])
