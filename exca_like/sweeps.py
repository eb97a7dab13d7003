"""Sweeps: one config for each combination of values, planned, submitted, watched and read together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

import pydantic

from exca_like.errors import InfraTypeError, InfraUsageError, InfraValueError, NotCachedError
from exca_like.executors import cancel_all
from exca_like.failures import FailureReport
from exca_like.grids import Grid, described
from exca_like.hits import counts
from exca_like.infra.arrays import check_sizes, submit_all
from exca_like.infra.job import TaskJob
from exca_like.infra.sending import KEY, Plan
from exca_like.infra.status import own_status
from exca_like.infra.task import TaskInfra
from exca_like.infra.waiting import as_completed
from exca_like.overlapping import overlapped
from exca_like.progress import Progress
from exca_like.sweep_again import Retry, again_of, check_names
from exca_like.sweep_frame import frame_of
from exca_like.sweep_members import Member, chosen_infra, members_of
from exca_like.sweep_status import SweepPlan, SweepRow, SweepStatus, core_hours_of, failure_of, row_of
from exca_like.tables import Table, Tabular

if TYPE_CHECKING:
    import pandas as pd

M = TypeVar("M", bound=pydantic.BaseModel)
T = TypeVar("T")
OnError = Literal["raise", "skip", "none"]

_ON_ERROR = ("raise", "skip", "none")


def sweep(
    obj: M,
    grid: Mapping[str, Iterable[Any]],
    *,
    zip: Iterable[Sequence[str]] = (),
    where: Callable[[M], Any] | None = None,
    infra: str | None = None,
) -> "Sweep[M]":
    """Make a config for each combination of values. Nothing is computed or submitted.

    Parameters
    ----------
    obj:
        The config to start from, with a TaskInfra that has a folder.
    grid:
        Values by (dotted) names of fields, like ``{"optim.lr": [1e-2, 1e-3], "seed": range(5)}``. All combinations are made,
        the last name fastest.
    zip:
        Names whose values go together, the first of each, the second of each..., like ``[("model", "batch_size")]``.
    where:
        Function of a config: those for which it gives False are left out.
    infra:
        Name of the TaskInfra; needed if the config has several.

    Returns
    -------
    Sweep
        The configs. Of those with the same uid there is only the first.

    Raises
    ------
    TypeError, ValueError
        The grid is none, or no grid of this config; or a combination is no valid config: the message says which.

    Examples
    --------
    ::

        sweep = exca_like.sweep(Train(infra={"folder": "cache", "cluster": "slurm"}), {"lr": [0.1, 0.01], "seed": range(5)})
        print(sweep.plan())
        table = sweep.submit().wait().to_df()
    """
    name = chosen_infra(obj, infra)
    base: TaskInfra = getattr(obj, name)
    if base.folder is None:
        cls = type(obj).__name__
        msg = f"the config has no folder to keep results in, by which a sweep finds them: {cls}({name}={{'folder': 'cache'}})"
        raise InfraValueError(msg)
    if where is not None and not callable(where):
        msg = f"where={where!r:.60} is no function: give one of a config, like where=lambda config: config.seed > 0"
        raise InfraTypeError(msg)
    combinations = Grid(grid, zip)
    combinations.check_fields(obj)
    members, duplicates = members_of(obj, name, combinations, where)
    label = base.uid().rpartition("/")[0].rpartition(",")[0]
    return Sweep(".".join(label.rsplit(".", 2)[-2:]), str(combinations), members, duplicates)


class Sweep(Tabular, Sequence[M], Generic[M]):
    """Configs of one class that differ in some values, as `exca_like.sweep` makes them: a sequence of configs.

    What a sweep says comes from the folder of the results and from the cluster, each time it is asked. So a sweep that is made
    again in another session finds what was computed and what is running.
    """

    def __init__(self, label: str, text: str, members: Sequence[Member], duplicates: int = 0) -> None:
        self._label = label
        self._text = text
        self._members = members
        self._duplicates = duplicates

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> "Sweep[M]": ...
    def __getitem__(self, index: int | slice) -> Any:
        """A config; or a sweep of some of them (``sweep[:10]``)."""
        if isinstance(index, slice):
            return Sweep(self._label, f"part of {self._text}", self._members[index])
        return self._members[index].config

    def __iter__(self) -> Iterator[M]:
        return (member.config for member in self._members)

    # what there is to do

    def plan(self) -> SweepPlan:
        """What `submit` would do. Nothing is computed, submitted or changed on disk."""
        states = self._each(self._state)
        cached = [member.infra for member, state in self._with(states) if state == "completed"]
        due = [member.infra for member, state in self._with(states) if state == "due"]
        return SweepPlan(
            total=len(self),
            cached=len(cached),
            running=states.count("running"),
            failed=states.count("failed"),
            to_submit=len(due),
            duplicates=self._duplicates,
            core_hours=core_hours_of(cached, due),
        )

    def submit(self, tasks_per_job: int = 1, max_workers: int = 256) -> Self:
        """Submit what has no result and is not running, together; what failed only with ``mode="retry"``.

        With ``cluster=None`` they are computed first, one after the other, in this process. What fails does not stop the
        others: see `failures`.

        Parameters
        ----------
        tasks_per_job:
            How many tasks a job runs, one after the other.
        max_workers:
            How many jobs may run at a time.
        """
        check_sizes(max_workers, tasks_per_job)
        states = self._each(self._state)
        due = [member.infra for member, state in self._with(states) if state == "due"]
        for infra in due[:1]:
            self._check_may_compute(infra)
        for member, state in self._with(states):
            if state == "completed" and own_status(member.infra) == "completed":  # not in a read folder
                counts[member.infra._entry()] += 1
        self._send(due, Plan(max_workers, tasks_per_job))
        return self

    def retry_failed(
        self,
        mem_gb: float | None = None,
        timeout_min: float | None = None,
        *,
        tasks_per_job: int = 1,
        max_workers: int = 256,
        lost: bool = False,
        **resources: Any,
    ) -> Self:
        """Submit those that failed again, in one array; the others are left alone.

        Parameters
        ----------
        mem_gb, timeout_min:
            Factors, up to 16: ``mem_gb=2.0`` asks for twice the memory that the job asked for that failed.
        tasks_per_job, max_workers:
            As for `submit`.
        lost:
            Submit those, too, that have no result and are not running: that were cancelled, killed, or never submitted.
        **resources:
            Other fields of the infra that say what a job asks for. Numbers are factors as well (``cpus_per_task=2``); anything
            else is set as it is (``slurm_partition="long"``).

        Raises
        ------
        ValueError
            There is no such field, or it has no value to be multiplied.
        """
        check_sizes(max_workers, tasks_per_job)
        again = [infra for infra, _ in self._again(mem_gb, timeout_min, resources, lost=lost)]
        self._send(again, Plan(max_workers, tasks_per_job))
        for infra in again:
            if infra.cluster == "debug" and (job := infra._present_job("cached")) is not None:
                job.wait()  # computes: nobody else has this job
        return self

    def retry_plan(
        self, mem_gb: float | None = None, timeout_min: float | None = None, *, lost: bool = False, **resources: Any
    ) -> list[Retry]:
        """What `retry_failed` would submit again, and what for. Nothing is computed, submitted or changed on disk.

        Parameters
        ----------
        mem_gb, timeout_min, lost, **resources:
            As for `retry_failed`.

        Raises
        ------
        ValueError
            There is no such field, or it has no value to be multiplied.
        """
        return [retry for _, retry in self._again(mem_gb, timeout_min, resources, lost=lost)]

    def cancel(self) -> int:
        """Cancel what is queued or running; returns how many.

        They count as not submitted then. Jobs take a moment to end, which is waited for, ten seconds at most.
        """
        handles = [
            handle
            for member, status in self._with(self._each(TaskInfra.status))
            if status == "running" and (handle := member.infra._handle()) is not None
        ]
        cancel_all(handles)
        return len(handles)

    # what came of it

    def status(self) -> SweepStatus:
        """How each config stands. Nothing is computed or changed on disk."""
        return SweepStatus(self._label, self._rows())

    def wait(self, progress: bool = True, timeout: float | None = None) -> Self:
        """Wait until all that was submitted has ended, well or not.

        What is to be tried again (the infra's ``retries``) is, meanwhile.

        Parameters
        ----------
        progress:
            Show a bar, on a terminal, if tqdm is installed.
        timeout:
            Seconds to wait at most; None: as long as it takes.

        Raises
        ------
        RuntimeError
            Nothing was submitted.
        TimeoutError
            Some have not ended in time; they go on.
        """
        jobs = [job for job in self._jobs() if job is not None]
        if self._members and not jobs and all(member.infra._handle() is None for member in self._members):
            msg = f"nothing of this sweep of {self._label} was submitted: call submit() first"
            raise InfraUsageError(msg)
        self._wait_for(jobs, progress=progress, timeout=timeout)
        return self

    def results(self, on_error: OnError = "raise") -> list[Any]:
        """The results, in the order of the configs; waits for what is running.

        Parameters
        ----------
        on_error:
            What is done about configs that failed or were not submitted: ``"raise"`` the error of the first one, ``"skip"``
            them, or put None in their places (``"none"``).

        Raises
        ------
        Exception
            What the method raised, with a note that names the config; see `failures` for all of them.
        NotCachedError
            Some were not submitted.
        """
        if on_error not in _ON_ERROR:
            msg = f"on_error={on_error!r}: use one of {', '.join(map(repr, _ON_ERROR))}"
            raise InfraValueError(msg)
        jobs = self._jobs()
        missing = jobs.count(None)
        if on_error == "raise" and missing:
            lost = self._lost()
            why = f" ({len(lost)} were lost, like {lost[0].uid}: {lost[0].reason})" if lost else ""
            msg = (
                f"{missing} of {len(self)} configs have no result and are not running{why}: call submit() "
                f"{'again' if lost else 'first'}, or take what there is with results(on_error='skip')"
            )
            raise NotCachedError(msg)
        self._wait_for([job for job in jobs if job is not None])
        found: list[Any] = []
        for member, (result, error) in self._with(overlapped(_result_of, jobs)):
            if error is not None and on_error == "raise":
                error.add_note(f"\nIt is the error of the config with {described(member.swept)}, {member.infra.uid()}.")
                raise error
            found += result or [None] * (on_error == "none")
        return found

    def failures(self) -> FailureReport:
        """What failed, grouped by what the failures have in common."""
        failed = [member.infra for member, status in self._with(self._each(TaskInfra.status)) if status == "failed"]
        found = [(infra.uid(), failure_of(infra)) for infra in failed]
        known = [(uid, failure) for uid, failure in found if failure is not None]
        return FailureReport(known, len(self), lost=[row.reason.removeprefix("lost: ") for row in self._lost()])

    def to_df(self) -> "pd.DataFrame":
        """A table of all configs and their results, with a row for each config; nothing is waited for.

        Its columns are: the swept fields; other fields that are not at their defaults; ``status``; the result: a scalar in
        ``result``, the scalars of a dictionary in columns of their own (anything else is left out: see `results`); and from the
        provenance ``duration`` (seconds), ``host``, ``time``, and ``extra.*`` for what the code recorded. A name that there is
        already gets ``sweep.``, ``result.`` or ``provenance.`` before it.

        Raises
        ------
        ImportError
            Pandas is not installed.
        """
        return frame_of(self._rows(), [member.infra for member in self._members])

    # looks

    def _table(self) -> Table:
        left_out = f", {self._duplicates} with the uid of another left out" if self._duplicates else ""
        title = f"Sweep of {self._label}, {len(self)} config{'' if len(self) == 1 else 's'}: {self._text}{left_out}"
        names = list(self._members[0].swept) if self._members else []
        return Table(title, ["", *names], [[number, *member.swept.values()] for number, member in enumerate(self._members)])

    # how it is done

    def _each(self, function: Callable[[TaskInfra], T]) -> list[T]:
        """What a function returns for each infra; it may be called by several threads."""
        return list(overlapped(lambda member: function(member.infra), self._members))

    def _with(self, others: Iterable[Any]) -> Iterable[tuple[Member, Any]]:
        return zip(self._members, others, strict=True)

    def _state(self, infra: TaskInfra) -> Literal["completed", "running", "failed", "due"]:
        """How a task stands, or that it is to be submitted."""
        mode = infra._mode()
        if mode == "off":
            msg = (
                f"mode='off' keeps no results, which a sweep works with: use another mode for {self._label} (or EXCA_LIKE_MODE)"
            )
            raise InfraUsageError(msg)
        status = infra.status()
        if mode == "force" or status == "not submitted" or (mode == "retry" and status == "failed"):
            return "due"
        return status

    def _again(
        self, mem_gb: float | None, timeout_min: float | None, resources: Mapping[str, Any], *, lost: bool
    ) -> list[tuple[TaskInfra, Retry]]:
        """Infras that stand for those to be submitted again, and what they ask for."""
        factors = {"mem_gb": mem_gb, "timeout_min": timeout_min, **resources}
        given = {name: value for name, value in factors.items() if value is not None}
        wanted = ("failed", *("not submitted",) * lost)
        due = [member.infra for member, status in self._with(self._each(TaskInfra.status)) if status in wanted]
        if due:
            self._check_may_compute(due[0])
        check_names(given)
        return [again_of(infra, given) for infra in due]

    def _check_may_compute(self, infra: TaskInfra) -> None:
        if infra._mode() == "read-only":
            msg = f"mode='read-only' computes nothing: use another mode for {self._label} (or EXCA_LIKE_MODE)"
            raise InfraUsageError(msg)

    def _send(self, infras: Sequence[TaskInfra], plan: Plan) -> None:
        if not infras or infras[0].cluster is not None:
            submit_all(self._label, infras, plan)
            return
        bar = Progress(self._label, len(infras), 0)
        try:
            failed = 0
            for number, infra in enumerate(infras, 1):
                submit_all(self._label, [infra], plan)
                failed += infra._store().peek(KEY) != "value"
                bar.show(number - failed, failed)
        finally:
            bar.close()

    def _wait_for(self, jobs: Sequence[TaskJob[Any]], *, progress: bool = True, timeout: float | None = None) -> None:
        done = failed = 0
        bar = Progress(self._label, len(jobs), 0) if progress else None
        try:
            for job in as_completed(jobs, timeout):
                is_done = job.has_result()
                done, failed = done + is_done, failed + (not is_done)
                if bar is not None:
                    bar.show(done, failed)
        finally:
            if bar is not None:
                bar.close()

    def _jobs(self) -> list[TaskJob[Any] | None]:
        """The job of each config; None if there is none, or none that counts."""
        return self._each(lambda infra: infra._present_job("cached"))

    def _lost(self) -> list[SweepRow]:
        """The configs whose jobs left nothing, and count as not submitted."""
        return [row for row in self._rows() if row.status == "lost"]

    def _rows(self) -> list[SweepRow]:
        return list(overlapped(lambda member: row_of(member.swept, member.infra), self._members))


def _result_of(job: TaskJob[Any] | None) -> tuple[list[Any], Exception | None]:
    """The result of a job, if there is one, and its error, if there was one."""
    try:
        return [] if job is None else [job.result()], None
    except Exception as error:
        return [], error
