"""Many tasks that are submitted together."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from exca_like.errors import InfraValueError
from exca_like.infra.sending import Plan, check_ended, repetition, start_uncached, submit


def check_sizes(max_workers: int, tasks_per_job: int) -> None:
    """Raise unless an array can have these sizes."""
    if max_workers < 1 or tasks_per_job < 1:
        msg = f"max_workers={max_workers}, tasks_per_job={tasks_per_job}: each must be at least 1"
        raise InfraValueError(msg)


def infras_of(tasks: Sequence[Any], name: str, kind: type[Any], *, may_repeat: bool) -> list[Any]:
    """The infras of some configs, each once.

    Raises
    ------
    ValueError
        One has no such infra, or two are equal and may not be.
    """
    infras: dict[str, Any] = {}
    for index, task in enumerate(tasks):
        infra: Any = getattr(task, name, None)
        if not isinstance(infra, kind):
            msg = f"item {index} of the job array, a {type(task).__name__}, has no {kind.__name__} {name!r}"
            raise InfraValueError(msg)
        first = infras.setdefault(infra._entry().path, infra)
        if len(infras) <= index and not may_repeat:
            position = next(i for i, task in enumerate(tasks) if getattr(task, name, None) is first)
            raise repetition((position, index), (first, infra))
    return list(infras.values())


def submit_all(label: str, infras: Iterable[Any], plan: Plan) -> None:
    """Submit what is not computed or running; those that ask for the same make one array."""
    groups: dict[str, list[Any]] = {}
    uncached: list[Any] = []
    for infra in infras:
        mode = infra._mode()
        if mode == "off":
            uncached.append(infra)
        elif infra._present_job(mode, is_hit=True) is None:
            settings = replace(infra._resources(), job_name=infra.job_name)
            code = (infra.workdir, infra.conda_env, infra.workdir and infra.folder)
            groups.setdefault(repr((infra.cluster, infra._log_folder(), settings, code)), []).append(infra)
    for group in groups.values():
        submit(group, plan)
    if uncached:  # last, as this process computes them
        check_ended(label, plan.after)
    for infra in uncached:
        start_uncached(infra)
