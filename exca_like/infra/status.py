"""How a task stands, in detail."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from exca_like.executors.base import JobHandle
from exca_like.layout import RESULT
from exca_like.store import Outcome

Status = Literal["not submitted", "running", "completed", "failed"]
State = Literal[
    "not submitted",
    "queued",
    "running",
    "done",
    "error",
    "timeout",
    "out of memory",
    "preempted",
    "node failure",
    "cancelled",
    "lost",
    "failed",
    "completed",
]

HINTS: Mapping[str, str] = {
    "timeout": "raise timeout_min",
    "out of memory": "raise mem_gb",
    "cancelled": "call the method again to run it again",
    "preempted": "call the method again to run it again",
    "node failure": "call the method again to run it again",
    "lost": "call the method again to run it again",
    "failed": "read the job's stderr, mend the cause, and run it again with mode='retry'",
    "error": "mend the cause, and run it again with mode='retry'",
    "completed": "call the method again; if that does not help, check that the job's machine sees the same folder",
}
"""What to do about a job that left no result, or an error."""


@dataclass(frozen=True)
class StatusDetail:
    """How a task stands.

    ``str()`` of it is a line for people.
    """

    state: State
    """``"error"`` is an exception of the method; ``"failed"`` a job that failed before it came to the method, ``"completed"``
    one that ended well and left no result; the others say how a job ended."""
    reason: str = ""
    """Why it waits, in Slurm's words (``"Priority"``, ``"Resources"``...), or what went wrong."""
    since: datetime | None = None
    """When it started to run, if that is known."""
    node: str = ""
    """Where it runs."""
    job_id: str = ""
    """The cluster's id of the job, if there is one."""
    hint: str = ""
    """What to do next."""
    attempts: tuple[str, ...] = ()
    """The jobs before the last one, which failed and for which another one was submitted, a line each."""

    def __str__(self) -> str:
        parts: list[str] = [self.state]
        if self.since is not None:
            parts.append(f"since {self.since:%Y-%m-%d %H:%M:%S}")
        if self.node:
            parts.append(f"on {self.node}")
        if self.job_id:
            parts.append(f"(job {self.job_id})")
        text = " ".join(parts)
        text = f"{text}: {self.reason}" if self.reason else text
        return f"{text}. To go on: {self.hint}." if self.hint else text


def own_status(infra: Any) -> Status:
    """How a task stands by what there is in its own folder; nothing is changed there."""
    if infra.folder is None or not infra._check_folder():
        return "not submitted"
    store, handle = infra._store(), infra._handle()
    kind = store.peek(RESULT)
    ended = handle.ended() if handle is not None and kind is None else None
    if ended is not None:  # it may have stored its outcome since
        kind = store.peek(RESULT)
    if kind is not None:
        return "completed" if kind == "value" else "failed"
    if ended is None:
        return "not submitted" if handle is None else "running"
    return "not submitted" if ended.interrupted else "failed"


def detail_of(status: Status, handle: JobHandle | None, outcome: Outcome | None) -> StatusDetail:
    """How a task stands, by its status, the job that was last submitted for it, and, if it failed, what it left."""
    job_id = "" if handle is None else handle.job_id
    if status == "completed":
        return StatusDetail("done", job_id=job_id)
    if status == "running" and handle is not None:
        place = handle.whereabouts()
        return StatusDetail("running" if place.is_running else "queued", place.reason, place.since, place.node, job_id)
    if outcome is not None and outcome.failure is not None:
        failure = outcome.failure
        what = f"{failure.type.removeprefix('builtins.')}: {failure.message}"
        return StatusDetail(cast("Any", failure.reason), what, job_id=job_id, hint=HINTS.get(failure.reason, HINTS["error"]))
    ended = None if handle is None else handle.ended()
    if ended is None:
        return StatusDetail("not submitted")
    return StatusDetail(ended.reason, ended.detail.strip(), job_id=job_id, hint=HINTS[ended.reason])
