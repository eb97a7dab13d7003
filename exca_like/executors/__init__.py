"""Where computations run other than here: local processes, Slurm."""

from exca_like.executors.base import Ended, Executor, JobHandle, Resources, make_executor, open_job

__all__ = ["Ended", "Executor", "JobHandle", "Resources", "make_executor", "open_job"]
