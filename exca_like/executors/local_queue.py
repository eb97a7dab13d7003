"""The process that runs a queue of local jobs: ``python -m exca_like.executors.local_queue <queue file>``.

It detaches itself, so that it outlives the process that started it. It alone holds the lock of the queue. Those of a slot
and of a job are inherited by the job's processes: they are held until the last one that uses them is gone, however it ends.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exca_like.executors.base import write_end
from exca_like.processes import identity

# set in jobs, which hold a slot: jobs that they start run in its place, one at a time, or they would wait for ever
SLOT_VARIABLE = "EXCA_LIKE_HOLDS_SLOT"
_POLL = 0.05  # seconds
_DYING = 10.0  # seconds that a process may take to die which the kernel kills
_GRACE = 5.0  # seconds between asking a job to stop and killing it


@dataclass(slots=True)
class _Running:
    job_id: str
    folder: Path
    process: "subprocess.Popen[bytes]"
    locks: tuple[int, ...]
    deadline: float
    stopping: str = ""
    kill_at: float = 0.0


def main(queue_file: str) -> None:
    """Detach and run the queue; returns in the caller's process as soon as the queue holds its lock."""
    lock = os.open(queue_file, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    queue = json.loads(Path(queue_file).read_text())
    os.setsid()  # before whoever waits goes on: a Ctrl-C right after that is not for the queue
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(f"{queue_file}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    _Queue(queue).run()


class _Queue:
    def __init__(self, queue: dict[str, Any]) -> None:
        self.waiting = [(Path(folder), job_id) for folder, job_id in queue["jobs"]]
        self.queue = queue
        self.running: list[_Running] = []
        self.next_look = 0.0
        self.kills = _kills_for_memory()
        self.unexplained: list[float] = []  # when the kernel killed a process, which may have been a job

    def run(self) -> None:
        while self.waiting or self.running:
            self._drop_cancelled()
            started = self._start_next()
            ended = self._look_after_running()
            if not (started or ended):
                time.sleep(_POLL)

    def _start_next(self) -> bool:
        if not self.waiting or len(self.running) >= self.queue["max_workers"]:
            return False
        slot = _take_slot(self.queue["slots"]) if self.queue["slots"] else os.open(os.devnull, os.O_RDONLY)
        if slot is None:
            return False
        folder, job_id = self.waiting.pop(0)
        self.running.append(self._start(folder, job_id, slot))
        return True

    def _drop_cancelled(self) -> None:
        """Take jobs that were cancelled before they started out of the queue; looked at once a second."""
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + 1.0
        for folder, job_id in list(self.waiting):
            if (folder / f"{job_id}_cancel").exists():
                self.waiting.remove((folder, job_id))
                write_end(_end_file(folder, job_id), "cancelled", "before it started")

    def _start(self, folder: Path, job_id: str, slot: int) -> _Running:
        environment = {**os.environ, **self.queue["environment"], **_submitit_variables(folder, job_id), SLOT_VARIABLE: "1"}
        for name in self.queue["unset"]:
            environment.pop(name, None)
        if self.queue["gpus"] is not None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            gpus = visible.split(",") if visible else [str(gpu) for gpu in range(self.queue["gpus"])]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[: self.queue["gpus"]])
        command = [self.queue["python"], "-u", "-m", "exca_like.executors.local_job", str(folder / f"{job_id}_submitted.pkl")]
        lock = os.open(folder / f"{job_id}_process.json", os.O_WRONLY | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(folder / f"{job_id}_0_log.out", "ab") as out, open(folder / f"{job_id}_0_log.err", "ab") as err:
            process = subprocess.Popen(
                command,
                cwd=self.queue["workdir"],
                env=environment,
                stdout=out,
                stderr=err,
                pass_fds=(lock, slot),
                start_new_session=True,
            )
        with contextlib.suppress(OSError):  # of a full disk: then it can't be stopped without this queue
            os.write(lock, json.dumps(identity(process.pid)).encode())
            if self.queue["slots"]:
                os.write(slot, str(process.pid).encode())
        timeout = self.queue["timeout"]
        return _Running(job_id, folder, process, (lock, slot), time.monotonic() + timeout if timeout else float("inf"))

    def _look_after_running(self) -> bool:
        still = []
        self._note_kills()
        for job in self.running:
            code = job.process.poll()
            if code is None:
                self._stop_if_due(job)
                still.append(job)
                continue
            if job.stopping:
                write_end(_end_file(job.folder, job.job_id), job.stopping, "")
            elif code < 0:
                write_end(_end_file(job.folder, job.job_id), *self._end_by_signal(-code))
            else:
                write_end(_end_file(job.folder, job.job_id), "failed" if code else "completed", f"exit code {code}")
            for lock in job.locks:
                os.close(lock)
        ended = len(still) < len(self.running)
        self.running = still
        return ended

    def _note_kills(self) -> None:
        now, kills = time.monotonic(), _kills_for_memory()
        self.unexplained = [when for when in self.unexplained if now - when < _DYING] + [now] * (kills - self.kills)
        self.kills = kills

    def _end_by_signal(self, number: int) -> tuple[str, str]:
        """Why a job ended that a signal has killed, and what to say of it."""
        self._note_kills()
        if number == signal.SIGKILL and self.unexplained:
            self.unexplained.pop(0)
            why = f"probably killed by the kernel of {os.uname().nodename}, as memory ran out"
            return "out of memory", f"{why}: let fewer jobs run at a time (EXCA_LIKE_LOCAL_JOBS)"
        is_sent = number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP)
        if is_sent:  # not the job is to blame
            by = "SIGINT, or a KeyboardInterrupt of its own" if number == signal.SIGINT else _name(number)
            return "lost", f"killed by {by}, not by exca_like"
        return "failed", f"killed by {_name(number)}"

    def _stop_if_due(self, job: _Running) -> None:
        now = time.monotonic()
        if not job.stopping:
            if now > job.deadline:
                job.stopping = "timeout"
            elif (job.folder / f"{job.job_id}_cancel").exists():
                job.stopping = "cancelled"
            else:
                return
            job.kill_at = now + _GRACE
            _signal(job, signal.SIGTERM)
        elif now > job.kill_at:
            _signal(job, signal.SIGKILL)


def _kills_for_memory() -> int:
    """How many processes the kernel has killed because memory ran out, since it started; 0 if it does not say."""
    with contextlib.suppress(OSError), open("/proc/vmstat") as stream:
        return next((int(line.split()[1]) for line in stream if line.startswith("oom_kill ")), 0)
    return 0


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _signal(job: _Running, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.process.pid, number)


def _end_file(folder: Path, job_id: str) -> Path:
    return folder / f"{job_id}_ended.json"


def _take_slot(number: int) -> int | None:
    """Lock a free slot, and return the descriptor that holds it."""
    folder = _slot_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        sys.exit(f"{folder} belongs to somebody else: remove it, or set TMPDIR to a folder of your own")
    for index in range(number):
        slot = os.open(folder / f"slot-{index}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(slot)
        else:
            os.ftruncate(slot, 0)  # the job before has left its pid
            return slot
    return None


def slot_holders(number: int) -> list[str]:
    """Pids of the jobs that hold the first slots of this user; a text is empty if that is not known."""
    holders: list[str] = []
    for index in range(number):
        with contextlib.suppress(OSError), open(_slot_folder() / f"slot-{index}", encoding="ascii") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                holders.append(stream.read())
    return holders


def _slot_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"exca_like-{os.getuid()}"


def _submitit_variables(folder: Path, job_id: str) -> dict[str, str]:
    """What lets ``submitit.JobEnvironment()`` work in user code."""
    return {
        "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_FOLDER": str(folder),
        "SUBMITIT_LOCAL_JOB_ID": job_id,
        "SUBMITIT_LOCAL_NTASKS": "1",
        "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
        "SUBMITIT_LOCAL_NODEID": "0",
        "SUBMITIT_LOCAL_GLOBALID": "0",
        "SUBMITIT_LOCAL_LOCALID": "0",
    }


if __name__ == "__main__":
    main(sys.argv[1])
