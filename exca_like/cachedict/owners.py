"""Who holds a claim, and whether it still lives.

A process is known by its pid and its start (pids are used again), on one running system (containers have pids of their
own). What can't be seen from here, on another host, shows that it lives by its heartbeat: the time stamp of its claim moves.
"""

import contextlib
import functools
import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

from exca_like.layout import user_name
from exca_like.processes import identity

BEAT_S = 15.0
LOST_S = 75.0  # seconds without a heartbeat after which an owner counts as dead
GONE_S = 3600.0  # the same for one look, which has nothing but clocks to go by, and those of hosts differ

Owner = dict[str, Any]
"""JSON data: ``host``, ``system``, ``pid``, ``start``, ``user``, ``since``; and ``job`` if a job of a cluster does the work."""


def this_process(job: dict[str, Any] | None = None) -> Owner:
    """What this process is as an owner; ``job`` is the `JobHandle.record` of the job that it is, if it is one."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {**_process(os.getpid()), "since": since, **({"job": job} if job else {})}


@functools.lru_cache(maxsize=1)  # a forked process has another pid
def _process(pid: int) -> Owner:
    return {**identity(pid), "user": user_name()}


def describe(owner: Owner) -> str:
    """An owner, for messages."""
    job = owner.get("job")
    if job:
        return f"job {job.get('job_id')} ({job.get('cluster')}), submitted or run by {owner.get('user')}"
    return f"process {owner.get('pid')} of {owner.get('user')} on {owner.get('host')}, since {owner.get('since')}"


def is_mine(owner: Owner) -> bool:
    """Whether an owner is this process."""
    me = _process(os.getpid())
    return all(owner.get(name) == me[name] for name in ("system", "pid", "start"))


class Heartbeat:
    """Moves the time stamps of this process's claims, from a thread that starts with the first one."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, path: str) -> None:
        """Keep a claim alive."""
        with self._lock:
            self._paths.add(path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="exca_like-heartbeat", daemon=True)
                self._thread.start()

    def drop(self, path: str) -> None:
        """Leave a claim alone."""
        with self._lock:
            self._paths.discard(path)

    def has(self, path: str) -> bool:
        """Whether a claim is kept alive."""
        with self._lock:
            return path in self._paths

    def _run(self) -> None:
        while True:
            time.sleep(BEAT_S)
            with self._lock:
                paths = list(self._paths)
            for path in paths:
                with contextlib.suppress(OSError):  # it is gone, or the file system is not there for a moment
                    os.utime(path)


heartbeat = Heartbeat()


def _start_anew() -> None:
    """In a forked process: it has no threads, and its parent's claims are not its own."""
    heartbeat.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_start_anew)
