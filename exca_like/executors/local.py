"""Jobs in processes of this machine, at most one per core at a time.

A *queue process*, started for each submission, runs its jobs one after the other as soon as a slot is free, and
outlives the process that submitted them. Slots are lock files shared by all queues of a user on the machine, so that
several submissions together don't start more processes than there are cores; ``EXCA_LIKE_LOCAL_JOBS`` sets another
number. A lock is held by the processes themselves: whatever kills them frees it.

Files of a job, in its log folder (the names are submitit's, so that its tools find them):
``<id>_submitted.pkl`` (the call), ``<id>_0_log.out``, ``<id>_0_log.err``, ``<id>_process.json`` (which process it is, locked
as long as that lives), ``<id>_ended.json`` (written by the queue). ``<array>.queue``, beside the log folders, lists the jobs
and is locked as long as the queue lives. If somebody kills it, jobs that run go on, and those that wait are lost.
"""

import contextlib
import fcntl
import functools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from exca_like import files, layout, processes
from exca_like.errors import CacheFolderError, InfraValueError, SubmissionError
from exca_like.executors.base import Call, Ended, JobHandle, JobPaths, Resources, Whereabouts, hidden, read_end, write_end
from exca_like.executors.environment import SLOT_VARIABLE, job_environment, number_of_cores
from exca_like.executors.local_queue import slot_holders
from exca_like.executors.payload import payloads, shared_folder

_RECENT = 0.2  # seconds for which "the queue is alive" is believed without looking again
_GRACE = 5.0  # seconds between asking a job to stop and killing it
_POLL = 0.02  # seconds
_SHOWN = 3  # pids of jobs that hold slots
_alive_until: dict[str, float] = {}


@dataclass(frozen=True)
class LocalJob:
    """A job of a `LocalExecutor`."""

    logs: str
    job_id: str

    @property
    def file_delay(self) -> float:
        """None, in seconds."""
        return 0.0

    @property
    def paths(self) -> JobPaths:
        """Paths of the job's files."""
        return JobPaths(self.logs, self.job_id)

    @property
    def queue(self) -> Path:
        """The file of the queue that runs the job."""
        return Path(layout.logs_root(self.logs), f"{self.job_id.partition('_')[0]}.queue")

    @property
    def state(self) -> str:
        """QUEUED, RUNNING, or the reason why the job ended."""
        ended = self.ended()
        if ended is not None:
            return ended.reason.upper()
        return "RUNNING" if os.path.exists(self.paths.stdout) else "QUEUED"

    def record(self) -> dict[str, Any]:
        """What `open_job` needs to find the job again."""
        return {"cluster": "local", "job_id": self.job_id, "logs": self.logs}

    def ended(self) -> Ended | None:
        """How the job ended, if it did."""
        ended = read_end(self.paths.ended)
        if ended is None and not _queue_is_alive(self.queue) and not self._goes_on():  # the job may have ended since
            return read_end(self.paths.ended) or Ended("lost", "the process that ran the queue of jobs is gone")
        return ended

    def whereabouts(self) -> Whereabouts:
        """Where the job is, while it has not ended."""
        if os.path.exists(self.paths.stdout):
            return Whereabouts(is_running=True, node=os.uname().nodename)
        return Whereabouts(reason=_why_it_waits(self.queue))

    def cancel(self) -> None:
        """Stop the job if it runs, and keep it from starting if it does not yet.

        The queue does it, soon. A job that outlived its queue has ended when this returns.

        Raises
        ------
        SubmissionError
            It runs without its queue, and can't be stopped from here.
        """
        self.paths.folder.mkdir(parents=True, exist_ok=True)
        self.paths.folder.joinpath(f"{self.job_id}_cancel").touch()
        if not _is_locked(self.queue) and read_end(self.paths.ended) is None and self._goes_on():
            self._stop()
            write_end(self.paths.ended, "cancelled", "")

    def _goes_on(self) -> bool:
        """Whether the job's process lives; for one whose queue is gone."""
        return _is_locked(self.paths.process) and processes.lives_here(self._process()) is not False

    def _process(self) -> dict[str, Any]:
        """The `processes.identity` of the job's process; empty if its queue was gone before it could note that."""
        with contextlib.suppress(OSError, ValueError):
            process = orjson.loads(self.paths.process.read_bytes())
            return process if isinstance(process, dict) else {}
        return {}

    def _stop(self) -> None:
        """End the processes of a job whose queue is gone."""
        process = self._process()
        is_seen = processes.lives_here(process) is not None
        for number in (signal.SIGTERM, signal.SIGKILL) if is_seen else ():
            try:
                if processes.lives_here(process):  # else its pid may be that of another one now
                    os.killpg(process["pid"], number)
            except ProcessLookupError:
                pass
            except PermissionError as error:
                raise self._not_stopped(process) from error
            until = time.monotonic() + _GRACE
            while time.monotonic() < until:
                if not processes.lives_here(process):
                    return
                time.sleep(_POLL)
        raise self._not_stopped(process)

    def _not_stopped(self, process: dict[str, Any]) -> SubmissionError:
        how = f"`kill -- -{process['pid']}` on {process['host']}" if process else "kill it by hand: its pid is not known"
        return SubmissionError(
            f"job {self.job_id} goes on, and can't be stopped from here: the process that ran the queue of jobs is gone. "
            f"To stop it: {how}"
        )


class LocalExecutor:
    """Runs calls in processes of this machine."""

    def __init__(self, logs: str, resources: Resources) -> None:
        if (resources.nodes or 1) > 1 or (resources.tasks_per_node or 1) > 1:
            msg = (
                f"nodes={resources.nodes}, tasks_per_node={resources.tasks_per_node}: "
                "cluster='local' runs a job as one process; use cluster='slurm' for more "
                "(exca_like.settings.explain(infra) shows where they were set)"
            )
            raise InfraValueError(msg)
        self.logs = logs
        self.resources = resources

    def submit(self, calls: Sequence[Call], max_workers: int) -> Iterator[list[JobHandle]]:
        """Queue a job for each call."""
        array = f"local-{files.token()}"
        jobs = [LocalJob(self.logs, f"{array}_{index}") for index in range(len(calls))]
        queue = jobs[0].queue
        try:
            sent = payloads(calls, shared_folder(self.logs), self.resources)
            for job, payload in zip(jobs, sent, strict=True):
                job.paths.folder.mkdir(parents=True, exist_ok=True)
                files.write_atomic(str(job.paths.submitted_pickle), pickle.dumps(payload))
        except OSError as error:
            msg = f"can't write the job files of {self.logs}: {error.strerror or error}. Check the infra's `logs` and `folder`."
            raise CacheFolderError(error.errno, msg) from error
        timeout = None if self.resources.timeout_min is None else self.resources.timeout_min * 60
        nested = SLOT_VARIABLE in os.environ
        queue_environment, wanted = job_environment(), job_environment(self.resources)
        content = {
            "jobs": [[str(job.paths.folder), job.job_id] for job in jobs],
            "host": os.uname().nodename,
            "slots": 0 if nested else number_of_slots(),
            "max_workers": 1 if nested else max_workers,
            "timeout": timeout,
            "gpus": self.resources.gpus_per_node,
            "python": self.resources.python or sys.executable,
            "workdir": self.resources.workdir,
            "environment": {name: value for name, value in wanted.items() if queue_environment.get(name) != value},
            "unset": [name for name in queue_environment if name not in wanted],
        }
        files.write_atomic(str(queue), orjson.dumps(content))
        command = [sys.executable, "-m", "exca_like.executors.local_queue", str(queue)]
        started = subprocess.run(command, env=queue_environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if started.returncode:
            msg = f"the local job queue did not start: {started.stderr.decode(errors='replace')[-2000:]}"
            raise SubmissionError(msg)
        yield list(jobs)


def number_of_slots() -> int:
    """How many local jobs may run at a time: one per core, or what ``EXCA_LIKE_LOCAL_JOBS`` says."""
    setting = os.environ.get("EXCA_LIKE_LOCAL_JOBS", "")
    if setting:
        if not setting.isdigit() or int(setting) < 1:
            msg = f"EXCA_LIKE_LOCAL_JOBS={setting!r} must be a positive whole number"
            raise InfraValueError(msg)
        return int(setting)
    return number_of_cores()


def _why_it_waits(queue: Path) -> str:
    """Why a job waits that its queue has not started yet, and what can be done about it."""
    try:
        host, slots, max_workers, number = _settings_of(str(queue))
        is_mine = queue.stat().st_uid == os.getuid()
    except (OSError, ValueError, LookupError):  # an older version wrote it
        return "other local jobs are running"
    if host != os.uname().nodename or not is_mine:
        return f"other local jobs are running on {host}"
    holders = slot_holders(slots)
    if not slots or len(holders) < slots:
        return f"at most {max_workers} of its array at a time" if number > max_workers else "it waits for its turn"
    pids = [pid for pid in holders if pid]
    more = f" and {len(pids) - _SHOWN} more" if len(pids) > _SHOWN else ""
    by = f" by process{'' if len(pids) == 1 else 'es'} {', '.join(pids[:_SHOWN])}{more}" if pids else ""
    return f"{slots} of {slots} slots taken{by} (a larger EXCA_LIKE_LOCAL_JOBS at submission gives more)"


@functools.lru_cache(maxsize=64)
def _settings_of(queue: str) -> tuple[str, int, int, int]:
    """The host of a queue, its slots, how many of its jobs run at a time, and how many there are; they never change."""
    content = orjson.loads(files.read_bytes(queue))
    return content["host"], content["slots"], content["max_workers"], len(content["jobs"])


def _queue_is_alive(queue: Path) -> bool:
    """Whether the process that runs a queue lives."""
    key = str(queue)
    now = time.monotonic()
    if _alive_until.get(key, 0.0) > now and os.path.exists(queue):
        return True
    is_alive = _is_locked(queue)
    if is_alive:
        _alive_until[key] = now + _RECENT
    return is_alive


def _is_locked(path: Path) -> bool:
    """Whether some process holds the lock of a file.

    Raises
    ------
    CacheFolderError
        It can't be read.
    """
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        raise hidden(path, error) from error
    return False
