"""How the tasks of infras are sent to their cluster, together; each by one process, however many want it."""

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from exca_like import engine, layout, progress
from exca_like.errors import CacheFolderError, DependencyError, InfraUsageError, InfraValueError
from exca_like.executors import open_job
from exca_like.executors.base import CODE, WAVE_S, Attempt, Call, Executor, cancelled_unless_noted
from exca_like.executors.packing import PackingExecutor
from exca_like.infra.job import TaskJob, uncached_job

KEY = layout.RESULT


class Plan(NamedTuple):
    """How tasks are to be sent."""

    max_workers: int = 1
    tasks_per_job: int = 1
    after: Sequence[TaskJob[Any]] = ()
    """Jobs that must end well before."""


def submit(infras: Sequence[Any], plan: Plan = Plan()) -> list[TaskJob[Any]]:  # noqa: B008 - it can't be changed
    """Start the tasks of some `TaskInfra` with the same settings, and give each its job."""
    first = infras[0]
    if first.cluster is None or first.cluster == "debug":
        check_ended(first.uid(), plan.after)
        return [_start_here(infra) for infra in infras]
    after = still_running(first.uid(), plan.after)
    resources = replace(first._resources(), after=tuple(job.job_id for job in after))
    executor = first._executor(len(infras), resources)
    if plan.tasks_per_job > 1:
        if (resources.nodes or 1) * (resources.tasks_per_node or 1) > 1:
            msg = (
                f"tasks_per_job={plan.tasks_per_job} runs several tasks in one process, but these ask for more in each job: "
                f"nodes={resources.nodes}, tasks_per_node={resources.tasks_per_node}. Use tasks_per_job=1."
            )
            raise InfraValueError(msg)
        executor = PackingExecutor(executor, plan.tasks_per_job, first._log_folder(), open_job)
    jobs: dict[int, TaskJob[Any]] = {}
    left = list(range(len(infras)))
    patience = engine.Patience(first.uid())
    while left:
        with contextlib.ExitStack() as claimed:
            mine: dict[int, Any] = {}
            waiting = []
            for number in left:
                infras[number]._prepare_folder()
                if infras[number]._mode() == "force":
                    _cancel_running(infras[number])
                claims, others = infras[number]._claims().claim((KEY,), lambda free: [free] if free else [])
                waiting += others
                for claim in claims:
                    claimed.enter_context(claim)
                    job = infras[number]._present_job(infras[number]._mode())  # somebody may have been first
                    if job is None:
                        mine[number] = claim
                    else:
                        jobs[number] = job
            if mine:
                chosen = [infras[number] for number in mine]
                sent = submit_claimed(chosen, list(mine.values()), executor, plan.max_workers, after=after)
                jobs.update(zip(mine, sent, strict=True))
        # never while something is claimed, or two callers could wait for each other
        left = [number for number in left if number not in jobs]
        if left:
            patience.wait(waiting)
    return [jobs[number] for number in range(len(infras))]


def submit_claimed(
    infras: Sequence[Any],
    claims: Sequence[Any],
    executor: Executor,
    max_workers: int = 1,
    *,
    attempts: Sequence[Sequence[Attempt]] = (),
    after: Sequence[TaskJob[Any]] = (),
    waits: bool = True,
) -> list[TaskJob[Any]]:
    """Send tasks that are claimed by this process.

    Parameters
    ----------
    infras, claims:
        Whose tasks, and the claims on them, which are released one by one: a job waits for that of its task.
    executor, max_workers:
        How they are sent.
    attempts:
        Earlier jobs of each task, which failed.
    after:
        Jobs that are waited for.
    waits:
        Wait until the cluster takes all of them; else only the first ones are sent, that it takes now.
    """
    calls: list[Call] = []
    jobs: list[TaskJob[Any]] = []
    code = {name: getattr(executor.resources, name) for name in CODE}
    asked = {name: value for name, value in vars(executor.resources).items() if type(value) in (int, float)}
    note = {"code": code if any(code.values()) else None, "max_workers": max_workers, "asked": asked}
    with contextlib.ExitStack() as replacing:  # old outcomes come back if the submission fails
        for infra in infras:
            _cancel_running(infra)
            calls.append(infra._task_call())
        replaced = [replacing.enter_context(contextlib.ExitStack()) for _ in infras]
        for infra, stack in zip(infras, replaced, strict=True):
            stack.enter_context(infra._store().replaced(KEY))
        is_told = False
        for handles in executor.submit(calls, max_workers):
            if not handles and not waits:
                for stack in replaced[len(jobs) :]:
                    stack.pop_all()  # what was there stays
                break
            if not handles:
                if not is_told:
                    progress.tell(
                        f"{len(infras) - len(jobs)} job(s) wait to be sent, as Slurm takes no more of yours at a time"
                    )
                is_told = True
                time.sleep(WAVE_S)
            with cancelled_unless_noted(handles) as noted:
                for handle in handles:
                    number = len(jobs)
                    replaced[number].close()
                    jobs.append(infras[number]._submitted_as(handle, note, attempts[number] if attempts else (), after))
                    noted.append(handle)
                    claims[number].close()
    return jobs


def _cancel_running(infra: Any) -> None:
    """Stop an older job of a task that is to be computed again: its result must not be taken for the new one."""
    handle = infra._handle()
    if handle is not None and handle.ended() is None:
        handle.cancel()


def _start_here(infra: Any) -> TaskJob[Any]:
    state = infra._linked_state
    infra._check_built()
    if infra.folder is not None:
        infra._prepare_folder()

    def compute() -> None:
        mode = infra._recomputing_mode()
        try:
            engine.run(infra._batch(mode)._replace(compute=infra._compute_here))
        except CacheFolderError:
            raise
        except (Exception, SystemExit):  # noqa: S110 - the outcome holds it
            pass
        infra._note_computed(mode)

    job: TaskJob[Any] = TaskJob(infra.uid(), KEY, infra._store(), compute=compute)
    state.job = job
    if infra.cluster is None:
        job.wait()
    return job


def start_uncached(infra: Any) -> TaskJob[Any]:
    """Start a task of mode ``"off"``, in this process whatever its cluster; ``"debug"`` waits until the result is asked for."""
    state = infra._linked_state
    job: TaskJob[Any] = uncached_job(infra.uid(), functools.partial(state.applied.method, state.owner))
    state.uncached_job = job
    if infra.cluster != "debug":
        job.wait()
    return job


def still_running(label: str, parents: Sequence[TaskJob[Any]]) -> list[TaskJob[Any]]:
    """Those of some jobs that Slurm is to wait for; others are waited for here.

    Raises
    ------
    DependencyError
        One of them failed.
    """
    slurm = [job for job in parents if job.is_on_slurm and not job.done()]
    packed = [job for job in slurm if "part" in job.record()]
    if packed:
        msg = (
            f"{label} can't come after {packed[0].label}, which is one of several tasks of job {packed[0].job_id}: Slurm "
            "waits for whole jobs only. Wait for it first (`exca_like.wait_all`), or submit it without tasks_per_job."
        )
        raise InfraUsageError(msg)
    check_ended(label, [job for job in parents if job not in slurm])
    return slurm


def check_ended(label: str, parents: Sequence[TaskJob[Any]]) -> None:
    """Wait for some jobs, and raise if one of them failed."""
    for job in parents:
        error = job.exception()
        if error is not None:
            what = f"{type(error).__name__}: {error}"
            msg = f"{label} is not submitted, as a task that it was to come after failed: {job!r}: {what}"
            raise DependencyError(msg) from error


def repetition(places: tuple[int, int], infras: tuple[Any, Any]) -> InfraValueError:
    """The error for an array that has a task twice, at two places."""
    (position, index), (first, _) = places, infras
    configs = [infra.config(uid=True, exclude_defaults=True) for infra in infras]
    shown = [config.to_yaml() if config else "(all default values)\n" for config in configs]
    return InfraValueError(
        f"items {position} and {index} of the job array are the same config, {first.uid()}:\n\n{position}:\n{shown[0]}\n"
        f"{index}:\n{shown[1]}\nOften a misspelt loop is behind it; if it is meant, use job_array(allow_repeated_tasks=True)."
    )
