"""Jobs that take the place of others: of those that failed, and are to be tried again."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from exca_like import progress
from exca_like.errors import CacheFolderError, SubmissionError
from exca_like.executors.base import WAVE_S, Attempt, Ended, Resources
from exca_like.infra.job import TaskJob
from exca_like.infra.sending import KEY, submit_claimed


class _Due(NamedTuple):
    """What is to be sent again."""

    job: TaskJob[Any]
    resources: Resources
    attempts: list[Attempt]
    after: Sequence[TaskJob[Any]]
    claim: Any = None


def settle(jobs: Sequence[TaskJob[Any]]) -> list[TaskJob[Any]]:
    """Send another job for those that failed and are to be tried again; by one process, however many wait for them.

    Returns those of the jobs that go on: each stands for the new job then.
    """
    going: list[TaskJob[Any]] = []
    groups: dict[str, list[_Due]] = {}
    with contextlib.ExitStack() as claimed:
        for job in jobs:
            infra, handle = job._infra, job._handle
            if infra is None or handle is None or job.has_result():
                continue
            if _is_replaced(job) or time.monotonic() < job._not_before:
                going.append(job)
                continue
            ended = job._ended()
            due = None if ended is None else _due(job, ended)
            is_over = ended is None or not ended.interrupted or job._store.peek(KEY) is not None
            if due is None and (infra.retries is None or is_over):
                continue  # nothing is asked of the folder: it may be somebody else's
            try:
                claims, others = infra._claims().claim((KEY,), lambda free, due=due: [free] if free and due else [])
            except CacheFolderError:  # it was deleted, or is not for us to write to
                continue
            is_done = bool(others) or _is_replaced(job)  # or somebody is about to do it
            if is_done:
                going.append(job)
            for claim in claims:
                claimed.enter_context(claim)
                if due is not None and not is_done:
                    kind = (infra.cluster, infra._log_folder(), replace(due.resources, job_name=infra.job_name))
                    groups.setdefault(repr(kind), []).append(due._replace(claim=claim))
        for group in groups.values():
            going += _sent(group)
    return going


def _is_replaced(job: TaskJob[Any]) -> bool:
    """Whether somebody has sent another job for the task, which this one stands for then."""
    present, handle = job._infra._handle(), job._handle
    if present is None or handle is None or present.record() == handle.record():
        return False
    job.follow(present, job._infra._record())
    return True


def _due(job: TaskJob[Any], ended: Ended) -> _Due | None:
    """The job that is to take the place of one that failed; None if there is to be none."""
    infra, handle = job._infra, job._handle
    if infra._handle() is None or handle is None or job._refused:  # it was cleared
        return None
    outcome = job._store.load(KEY) if job._store.peek(KEY) else None
    reason: str = ended.reason
    error = ""
    if outcome is not None and outcome.failure is not None:
        reason, error = outcome.failure.reason, outcome.failure.type
    elif reason == "completed":
        return None
    attempts = infra._attempts()
    asked = infra._next_resources(attempts) if attempts else infra._resources()
    if asked is None:
        return None
    asked = _with_same_code(asked, job._record.get("code"))
    if reason == "cancelled" and job.parents:
        return _after_new_parents(job, asked, attempts)
    if ended.is_untried:
        return None if infra.retries is None else _Due(job, asked, attempts, ())
    attempts.append(Attempt(handle.job_id, reason, error, ended.node, asked.mem_gb, asked.timeout_min))
    resources = infra._next_resources(attempts)
    return None if resources is None else _Due(job, _with_same_code(resources, job._record.get("code")), attempts, ())


def _after_new_parents(job: TaskJob[Any], asked: Resources, attempts: list[Attempt]) -> _Due | None:
    """A job that was cancelled because one of its parents failed, which was tried again."""
    going = [parent for parent in job.parents if not parent.done()]
    before = [parent["job_id"] for parent in job._record.get("after", ())]
    if all(parent.job_id in before for parent in job.parents) or not all(p.has_result() for p in job.parents if p not in going):
        return None
    return _Due(job, replace(asked, after=tuple(parent.job_id for parent in going)), attempts, going)


def _with_same_code(resources: Resources, code: Any) -> Resources:
    """Resources with the copy of the code that an earlier job had, if it is still there."""
    if not code or not all(os.path.exists(path) for path in (code["workdir"], code["python"]) if path):
        return resources
    return replace(resources, workdir=code["workdir"], python=code["python"], import_path=tuple(code["import_path"]))


def _sent(group: Sequence[_Due]) -> list[TaskJob[Any]]:
    """Send jobs that ask for the same; those that the cluster does not take now are asked for again later."""
    infras = [due.job._infra for due in group]
    most = min(due.job._record.get("max_workers", len(group)) for due in group)
    refused = ""
    try:
        executor = infras[0]._executor(len(group), group[0].resources)
        claims, attempts = [due.claim for due in group], [due.attempts for due in group]
        submit_claimed(infras, claims, executor, most, attempts=attempts, after=group[0].after, waits=False)
    except SubmissionError as error:  # for instance more memory than any node has: what failed is to be told
        refused = f"\nAnother job was refused: {error}"
    for due in group:
        why = due.attempts[-1] if due.attempts else f"job {due.job.job_id} ended before it came to it"
        if _is_replaced(due.job):
            progress.tell(f"{due.job.label}: {why}; another job is submitted")
        else:
            due.job._refused, due.job._not_before = refused, time.monotonic() + WAVE_S
    return [due.job for due in group if not due.job._refused]
