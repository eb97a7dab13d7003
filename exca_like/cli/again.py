"""``retry``: what failed, computed again."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exca_like.cli.options import (
    Before,
    Config,
    Folder,
    Json,
    Method,
    Since,
    Yes,
    catalog_of,
    chosen,
    field_of,
    importing,
    print_json,
    print_text,
    selected,
    wrong_input,
)
from exca_like.cli.run import HERE, computing, say_what_goes_on

if TYPE_CHECKING:
    from exca_like.entries import Entry
    from exca_like.sweep_again import Retry

_LOST = ("lost", "empty")  # they count as not submitted
_FACTOR = re.compile(r"[xX][-+.\d]")
_SECOND = re.compile(r",\s*(\w+=)")
_SHOWN = 10  # uids of what is left out for one reason


def retry(
    uids: Annotated[list[str] | None, typer.Argument(metavar="UID", help="Tasks that failed, or were lost.")] = None,
    folder: Folder = None,
    failed: Annotated[bool, typer.Option("--failed", help="All tasks that failed, and fit the other options.")] = False,
    lost: Annotated[
        bool, typer.Option("--lost", help="All tasks that were cancelled, killed or interrupted, and fit the other options.")
    ] = False,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    mem: Annotated[str | None, typer.Option(help="Factor of memory, like x2.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Factor of time, like x1.5.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Something else that jobs ask for, like slurm_partition=long or cpus_per_task=x2; can be repeated.",
        ),
    ] = None,
    tasks_per_job: Annotated[int, typer.Option(min=1, help="How many tasks each job computes.")] = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the jobs, and show what came out.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Submit tasks that failed or were lost again, with more memory or time if you like. Imports their classes."""
    from exca_like.rebuilding import sweeps_of

    if uids and (failed or lost):
        msg = "say either uids or --failed/--lost, not both: tasks that are named need no option"
        raise typer.BadParameter(msg, param_hint="UID")
    if not uids and not (failed or lost):
        msg = "say which tasks: their uids, --failed for all that failed, or --lost for all that were cancelled or killed"
        raise typer.BadParameter(msg, param_hint="UID")
    more = _more_of(mem, timeout, set_ or ())
    skipped: dict[str, str] = {}
    if uids:
        entries = list(selected(catalog_of(folder), uids).refresh())
    else:
        asked = ",".join(("failed",) * failed + _LOST * lost)
        entries, skipped = _tasks_among(chosen(folder, method, asked, since, before, where).refresh())
    wanted = [entry for entry in entries if entry.status in ("failed", *_LOST)]
    for entry in entries:
        if entry not in wanted:
            print_text(f"{entry.uid} did not fail: it is {entry.status}", err=True)
    if not wanted:
        what = " or ".join(["failed"] * failed + ["was lost"] * lost)
        if json:
            print_json({"submitted": False, "configs": [], "left_out": skipped})
        else:
            print_text("nothing to do: none of the named tasks failed" if uids else f"nothing to do: no task {what}")
        return
    left_out: dict[str, Exception] = {}
    with importing():
        sweeps = sweeps_of(wanted, lambda entry, error: left_out.update({entry.uid: error}))
    with wrong_input():  # all is checked before any is sent
        plan = [retry for sweep in sweeps for retry in sweep.retry_plan(lost=True, **more)]
    try:
        with computing(json=json):
            for sweep in sweeps if yes else ():
                sweep.retry_failed(tasks_per_job=tasks_per_job, lost=True, **more)
            for sweep in sweeps if wait and yes else ():
                sweep.wait()
    except KeyboardInterrupt:
        say_what_goes_on(wanted[0].root, [member.infra for sweep in sweeps for member in sweep._members])
        raise
    if json:
        more_of = {retry.uid: {name: new for name, (_, new) in retry.changes.items()} for retry in plan}
        rows = [vars(row) | {"asked": more_of.get(row.uid, {})} for sweep in sweeps for row in sweep.status().rows]
        skipped |= {uid: str(error) for uid, error in left_out.items()}
        print_json({"submitted": yes, "configs": rows, "left_out": skipped})
    elif yes:
        for sweep in sweeps:
            print_text(str(sweep.status()))
    else:
        _print_plan(plan, wanted)
    _tell_left_out(left_out)
    awaited = [sweep for sweep in sweeps if yes and (wait or sweep._members[0].infra.cluster in HERE)]
    failed = any(row.status != "completed" for sweep in awaited for row in sweep.status().rows)
    raise typer.Exit(1 if failed or left_out else 0)


def _print_plan(plan: "Sequence[Retry]", entries: "Iterable[Entry]") -> None:
    """Show what would be submitted again, and why each of the entries has no result."""
    from exca_like import tables

    why = {entry.uid: entry.reason or entry.status for entry in entries}
    for retry in plan:
        print_text(f"{retry}  [{why[retry.uid]}]")
    again = f"{tables.count(len(plan), 'task')} would be submitted again: repeat with --yes to do it"
    print_text(again if plan else "no task can be submitted again")


def _tasks_among(entries: "Iterable[Entry]") -> "tuple[list[Entry], dict[str, str]]":
    """The tasks among some entries, and why the others are skipped: of those, the items or arguments are not stored."""
    tasks: list[Entry] = []
    skipped: dict[str, str] = {}
    for entry in entries:
        if entry.kind in ("task", ""):
            tasks.append(entry)
        else:
            skipped[entry.uid] = "of maps and functions, make the call again"
    if skipped:
        more = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        print_text(f"of maps and functions, make the call again: {next(iter(skipped))}{more}", err=True)
    return tasks, skipped


def _tell_left_out(problems: Mapping[str, Exception]) -> None:
    """Say what is not submitted, each reason once, with the uids of those it is of."""
    reasons: dict[str, list[str]] = {}
    for uid, problem in problems.items():
        reasons.setdefault(str(problem), []).append(uid)
    for reason, uids in reasons.items():
        print_text(f"left out: {reason}", err=True)
        for uid in uids[:_SHOWN] if uids[0] not in reason else ():
            print_text(f"  {uid}", err=True)
        if len(uids) > _SHOWN:
            print_text(f"  ... and {len(uids) - _SHOWN} more", err=True)


def _more_of(mem: str | None, timeout: str | None, others: Iterable[str]) -> dict[str, Any]:
    """What is asked for of jobs, by names of fields: factors and values."""
    given = [("mem_gb", _factor("--mem", "mem_gb", mem)), ("timeout_min", _factor("--timeout", "timeout_min", timeout))]
    more: dict[str, Any] = {}
    for name, value in [*(one for one in given if one[1] is not None), *map(_asked, others)]:
        if name in more:
            msg = f"{name} is given twice"
            raise typer.BadParameter(msg, param_hint="--set")
        more[name] = value
    return more


def _asked(text: str) -> tuple[str, Any]:
    """What ``--set NAME=VALUE`` says: a factor like x2, or a value."""
    from exca_like.infra.task import TaskInfra

    name, value = field_of(text)
    if isinstance(value, str) and (second := _SECOND.search(value)) is not None:
        msg = f"{text!r}: give --set again for {second[1]}"
        raise typer.BadParameter(msg, param_hint="--set")
    field = TaskInfra.model_fields.get(name)
    is_text = field is not None and field.annotation == (str | None)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and _FACTOR.match(value) and not is_text):
        value = text.partition("=")[2].strip()
        return name, value if is_text else _factor("--set", name, value)
    return name, value


def _factor(option: str, field: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        factor = float(text[1:] if text[:1] in "xX" else "")
    except ValueError:
        factor = 0.0
    if 0 < factor < math.inf:
        return factor
    msg = (
        f"{text!r} is no factor: give one like x2 or x1.5, of what the job asked for; for an amount, set it on the infra, "
        f"as in `exca-like run MODULE:CLASS FIELD=VALUE infra.{field}=16 infra.mode=retry`"
    )
    raise typer.BadParameter(msg, param_hint=option)
