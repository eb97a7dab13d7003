"""States of all Slurm jobs of this process, asked for together.

One ``squeue`` for the user's queue, and one ``sacct`` for jobs that are not in it any more, answer for every job.
They are asked soon after a job was submitted and more and more rarely while nothing changes, and never more often than
the answers are wanted. A cluster without accounting, or that forgot a job, leaves it "lost" after a while.
"""

import collections
import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from exca_like.executors.base import Ended, Reason, Whereabouts

logging.getLogger("exca_like").addHandler(logging.NullHandler())  # here, as nothing else of the package logs
logger = logging.getLogger(__name__)

_MIN_DELAY, _MAX_DELAY = 1.0, 20.0  # seconds between two rounds of questions
_MINUTE_S = 60.0
_QUICK_CALLS = 10  # within a minute; those after them come with a pause for each
_PAUSE_S = 6.0
_WANTED_S = 120.0
_LOST_AFTER = 30.0  # seconds for which a job may be unknown everywhere
_TIMEOUT = 30.0  # seconds that one question may take
_CHUNK = 500  # jobs asked for in one sacct

_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "UNKNOWN")
_ENDED: dict[str, Reason] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "BOOT_FAIL": "node failure",
    "NODE_FAIL": "node failure",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "DEADLINE": "timeout",
    "TIMEOUT": "timeout",
    "OUT_OF_MEMORY": "out of memory",
    "PREEMPTED": "preempted",
}


class StateWatcher:
    """Answers for the jobs it was asked about; `calls` counts the questions put to the cluster."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}
        self._wanted: dict[str, float] = {}  # when their states were last asked for
        self._lines: dict[str, list[str]] = {}  # what squeue said last: state, reason, start, nodes
        self._unknown_since: dict[str, float] = {}
        self._asked = float("-inf")
        self._number = 1  # questions of the last round
        self._recent: collections.deque[float] = collections.deque()  # times of the last questions
        self._delay = _MIN_DELAY
        self._is_silent = False  # whether the controller did not answer

    def state(self, job_id: str) -> str:
        """Slurm's word for the state of a job, ``"UNKNOWN"`` if it has none."""
        with self._lock:
            self._wanted[job_id] = time.monotonic()
            if job_id not in self._states:
                self._states[job_id] = "UNKNOWN"
                self._delay = _MIN_DELAY
            if self._states[job_id] not in _ENDED and self._is_time():
                self._ask()
            return self._states[job_id]

    def expect_change(self) -> None:
        """Ask again soon, as something was done to jobs."""
        with self._lock:
            self._delay = _MIN_DELAY

    def _is_time(self) -> bool:
        """Whether to ask again: soon if little was asked in the last minute, never more than 20 times in one."""
        now = time.monotonic()
        while self._recent and now - self._recent[0] > _MINUTE_S:
            self._recent.popleft()
        pause = self._delay if len(self._recent) < _QUICK_CALLS else max(self._delay, _PAUSE_S * self._number)
        return now - self._asked >= pause

    def ended(self, job_id: str) -> Ended | None:
        """How a job ended, if it did."""
        state = self.state(job_id)
        if state in _ENDED:
            node = self._lines.get(job_id, [""])[-1]
            return Ended(_ENDED[state], f"Slurm reports {state} for job {job_id}", node)
        since = self._unknown_since.get(job_id)
        if since is not None and time.monotonic() - since > _LOST_AFTER:
            return Ended("lost", f"neither squeue nor sacct knows job {job_id} any more")
        return None

    def whereabouts(self, job_id: str) -> Whereabouts:
        """Where a job is that has not ended, as far as squeue knows."""
        state = self.state(job_id)
        _, reason, start, nodes = self._lines.get(job_id, ["", "", "", ""])
        if state == "UNKNOWN" and self._is_silent:
            reason = "Slurm does not answer"
        is_running = state not in _WAITING and state not in _ENDED
        since = None
        if is_running:
            with contextlib.suppress(ValueError):  # "N/A"
                since = datetime.fromisoformat(start).astimezone()
        return Whereabouts(is_running, "" if is_running or reason == "None" else reason, since, nodes if is_running else "")

    def _ask(self) -> None:
        before = self.calls
        self._ask_all()
        self._number = self.calls - before

    def _ask_all(self) -> None:
        since = time.monotonic() - _WANTED_S  # of others, the results may have been found by other means
        open_jobs = {job_id for job_id, state in self._states.items() if state not in _ENDED and self._wanted[job_id] >= since}
        queued = self._queue("--user", str(os.getuid()))
        self._is_silent = queued is None
        if queued is None:  # the controller does not answer: nothing is known to have changed
            self._asked = time.monotonic()
            return
        changed = False
        self._lines.update((job_id, line) for job_id in open_jobs if (line := _of(queued, job_id)))
        finished = self._accounting(sorted(job_id for job_id in open_jobs if not _of(queued, job_id)))
        now = time.monotonic()
        for job_id in open_jobs:
            # a job that just left the queue may take a moment to reach the accounting
            line = _of(queued, job_id)
            state = line[0] if line else _of(finished, job_id) or "UNKNOWN"
            changed = changed or state != self._states[job_id]
            self._states[job_id] = state
            if state == "UNKNOWN":
                self._unknown_since.setdefault(job_id, now)
            else:
                self._unknown_since.pop(job_id, None)
        self._delay = _MIN_DELAY if changed else min(self._delay * 1.5, _MAX_DELAY)
        self._asked = now

    def _queue(self, *which: str) -> dict[str, list[str]] | None:
        options = ["--noheader", "--array", "--states", "all", "--format", "%i|%T|%r|%S|%N"]
        output = self._run(["squeue", *options, *which])
        if output is None:
            return None
        lines = [line.strip().split("|") for line in output.splitlines()]
        return {_name(line[0]): line[1:] for line in lines if len(line) == 5}

    def _accounting(self, job_ids: list[str]) -> dict[str, str]:
        states: dict[str, str] = {}
        parents = sorted({job_id.partition("_")[0] for job_id in job_ids})
        for start in range(0, len(parents), _CHUNK):
            chunk = ",".join(parents[start : start + _CHUNK])
            # a colleague's jobs, too, as folders may be shared
            options = [
                "--noheader",
                "--parsable2",
                "--allocations",
                "--allusers",
                "--array",
                "--format",
                "JobID,State,NodeList",
            ]
            answer = self._run(["sacct", *options, "--jobs", chunk])
            for fields in (line.split("|") for line in (answer or "").splitlines()):
                if len(fields) == 3 and fields[1]:
                    job_id, state, node = fields
                    states[_name(job_id)] = state.split()[0]  # "CANCELLED by 0"
                    self._lines.setdefault(job_id, ["", "", "", node])
            if answer is None:  # no accounting; in squeue, there may be a colleague's
                states.update((job_id, line[0]) for job_id, line in (self._queue("--jobs", chunk) or {}).items())
        return states

    def _run(self, command: list[str]) -> str | None:
        self.calls += 1
        self._recent.append(time.monotonic())
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("%s did not answer: %s", command[0], error)
            return None
        if done.returncode:
            logger.info("%s failed: %s", command[0], done.stderr.strip())
            return None
        return done.stdout


def _name(job_id: str) -> str:
    """Under which name an answer is kept: an array that never started is told as one job, as "7" or as "7_[0-11]"."""
    return job_id.partition("_[")[0]


def _of(known: Mapping[str, Any], job_id: str) -> Any:
    """What is known of a job; of an element of an array that never started, what is known of the array."""
    return known.get(job_id) or known.get(job_id.partition("_")[0])


watcher = StateWatcher()
