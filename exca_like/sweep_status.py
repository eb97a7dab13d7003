"""How the configs of a sweep stand, all together and one by one."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from exca_like.cachedict.failures import Failure
from exca_like.failures import failure_of_job
from exca_like.infra.readers import holder_of
from exca_like.infra.sending import KEY
from exca_like.infra.status import StatusDetail
from exca_like.infra.task import TaskInfra
from exca_like.recording import noted
from exca_like.tables import Table, Tabular, count

RowStatus = Literal["completed", "running", "queued", "failed", "lost", "not submitted"]
_ORDER: tuple[RowStatus, ...] = ("completed", "running", "queued", "failed", "lost", "not submitted")
_STATUS: dict[str, RowStatus] = {
    "done": "completed",
    "running": "running",
    "queued": "queued",
    **dict.fromkeys(("error", "timeout", "out of memory", "failed"), "failed"),
    "not submitted": "not submitted",
}
"""What a row says of each state of a task; any other is that of a job that was lost, and counts as not submitted."""
_MEASURED = 100  # results whose durations are read for a plan


@dataclass(frozen=True)
class SweepPlan(Tabular):
    """What ``submit()`` would do. ``str()`` of it is a line for people.

    Each config counts once: ``total`` is the sum of ``cached``, ``running``, ``failed`` and ``to_submit``.
    """

    total: int
    """Configs of the sweep."""
    cached: int
    """Those with a result."""
    running: int
    """Those that are queued or running."""
    failed: int
    """Those that failed, and that ``submit()`` leaves alone."""
    to_submit: int
    """Those that ``submit()`` would submit; with ``mode="retry"`` failed ones, too, and with ``mode="force"`` all."""
    duplicates: int
    """Combinations left out, as their uid is that of an earlier one."""
    core_hours: float | None = None
    """About what those to submit will take: their number times the mean duration of results that the sweep has (of 100
    at most) times the cores that each asks for; None if it has none."""

    def __str__(self) -> str:
        parts = [f"{number} {what}" for number, what in self._counts() if number or what == "to submit"]
        hours = f", {_hours(self.core_hours)} core-hours" if self.core_hours is not None and self.to_submit else ""
        left_out = f" ({self.duplicates} duplicate{'s' * (self.duplicates > 1)} left out)" if self.duplicates else ""
        return f"{count(self.total, 'config')}: {', '.join(parts)}{hours}{left_out}"

    def _counts(self) -> Iterator[tuple[int, str]]:
        yield from (
            (self.cached, "cached"),
            (self.running, "running or queued"),
            (self.failed, "failed"),
            (self.to_submit, "to submit"),
        )

    def _table(self) -> Table:
        counts = [number for number, _ in self._counts()]
        header = ["total", *(what for _, what in self._counts()), "duplicates", "core-hours"]
        return Table(str(self), header, [[self.total, *counts, self.duplicates, self.core_hours]])


@dataclass(frozen=True)
class SweepRow:
    """How one config of a sweep stands."""

    values: Mapping[str, Any]
    """The swept values."""
    status: RowStatus
    """``"completed"``, ``"running"``, ``"queued"``, ``"failed"``, ``"not submitted"``, or ``"lost"``, which counts as that."""
    reason: str
    """Why it failed or waits, or how the job ended that left no result; empty if there is nothing to say."""
    duration: float | None
    """Seconds that it took; of one that is running, that it has run so far, if that is known."""
    job_id: str
    """The cluster's id of its job; empty if there was none."""
    uid: str
    """The uid of the config."""


class SweepStatus(Tabular):
    """How the configs of a sweep stood when it was asked. A table when printed."""

    rows: Sequence[SweepRow]
    """The configs, in the order of the sweep."""
    counts: Mapping[RowStatus, int]
    """How many have each status, those with zero included."""

    def __init__(self, label: str, rows: Sequence[SweepRow]) -> None:
        self._label = label
        self.rows = list(rows)
        counted = collections.Counter(row.status for row in rows)
        self.counts = {status: counted[status] for status in _ORDER}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[SweepRow]:
        return iter(self.rows)

    def _table(self) -> Table:
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items() if number)
        names = list(self.rows[0].values) if self.rows else []
        rows = [[*row.values.values(), row.status, _seconds(row.duration), row.job_id, row.reason] for row in self.rows]
        # a column in which nothing is written says nothing
        kept = [column for column in range(len(names) + 4) if column < len(names) + 1 or any(row[column] for row in rows)]
        header = [*names, "status", "seconds", "job", "reason"]
        title = f"{self._label}, {count(len(self), 'config')}: {counts}"
        return Table(
            title,
            [header[column] for column in kept],
            [[row[column] for column in kept] for row in rows],
            len(kept) - len(names),
        )


def row_of(values: Mapping[str, Any], infra: TaskInfra) -> SweepRow:
    """How a config stands."""
    detail = infra.status_detail()
    status = _STATUS.get(detail.state, "lost")
    return SweepRow(values, status, _reason(detail, status), _duration(detail, status, infra), detail.job_id, infra.uid())


def failure_of(infra: TaskInfra) -> Failure | None:
    """How a task failed; None if it is computed again meanwhile."""
    outcome, handle = infra._store().load(KEY), infra._handle()
    if outcome is not None and outcome.failure is not None:
        return outcome.failure
    return None if handle is None else failure_of_job(handle)


def core_hours_of(cached: Sequence[TaskInfra], due: Sequence[TaskInfra]) -> float | None:
    """About what some tasks will take, by the durations of others that have results; None if there are none."""
    step = -(-len(cached) // _MEASURED) or 1
    durations = [duration for infra in cached[::step] if (duration := _stored_duration(infra)) is not None]
    if not durations:
        return None
    mean = sum(durations) / len(durations)
    asked = due[0]._resources() if due else None
    cores = 1 if asked is None else (asked.cpus_per_task or 1) * (asked.tasks_per_node or 1) * (asked.nodes or 1)
    return len(due) * mean * cores / 3600


def _stored_duration(infra: TaskInfra) -> float | None:
    holder = holder_of(infra)
    found: float | None = None if holder is None else noted(holder._store().meta(KEY)).get("duration")
    return found


def _duration(detail: StatusDetail, status: RowStatus, infra: TaskInfra) -> float | None:
    if status == "running" and detail.since is not None:
        return (datetime.now(detail.since.tzinfo) - detail.since).total_seconds()
    return _stored_duration(infra) if status in ("completed", "failed") else None


def _reason(detail: StatusDetail, status: RowStatus) -> str:
    if status == "failed" and detail.state not in ("error", "failed"):
        return f"{detail.state}: {detail.reason}" if detail.reason else detail.state
    if status == "lost":
        return ": ".join([detail.state, *detail.reason.strip().splitlines()[-1:]])  # before which a log may be
    return detail.reason


def _seconds(duration: float | None) -> str:
    return (
        "" if duration is None else "<0.001" if duration < 0.001 else f"{duration:.3g}" if duration < 100 else f"{duration:.0f}"
    )


def _hours(hours: float) -> str:
    if hours < 0.05:
        return "less than 0.1"
    return f"about {hours:,.0f}" if hours >= 100 else f"about {hours:.1f}"
