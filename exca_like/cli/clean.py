"""``pin``, ``unpin``, ``rm``, ``prune``, ``cancel``: what is kept, and what is not."""

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exca_like.cli.options import (
    LONGEST,
    Before,
    Config,
    Folder,
    Json,
    Method,
    Pinned,
    Since,
    Status,
    Uids,
    Yes,
    catalog_of,
    checked_time,
    chosen,
    is_job,
    meant,
    print_json,
    print_table,
    print_text,
    statuses,
    wrong_input,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exca_like.entries import Entry
    from exca_like.executors.base import JobHandle
    from exca_like.pruning import Removal


class Order(enum.StrEnum):
    """What is removed first."""

    oldest = "oldest"
    size = "size"
    lru = "lru"
    lfu = "lfu"


def _checked_size(text: str | None) -> str | None:
    if text is not None:
        from exca_like.pruning import bytes_of

        with wrong_input():
            bytes_of(text)
    return text


def pin(
    uids: Uids = None,
    folder: Folder = None,
    method: Method = None,
    status: Status = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    json: Json = False,
) -> None:
    """Keep entries, whatever is pruned."""
    entries = meant(catalog_of(folder), uids, method, status, since, before, where)
    entries = [entry for entry in entries if not entry.is_of_calls] or entries  # of which nothing is stored to be kept
    for entry in entries:
        entry.pin()
    _tell(entries, "is pinned", json=json)


def unpin(
    uids: Uids = None,
    folder: Folder = None,
    method: Method = None,
    status: Status = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    pinned: Pinned = False,
    json: Json = False,
) -> None:
    """Let entries be removed again."""
    entries = meant(catalog_of(folder), uids, method, status, since, before, where, pinned or None)
    for entry in entries:
        entry.unpin()
    _tell(entries, "is not pinned any more", json=json)


def rm(
    uids: Uids = None,
    folder: Folder = None,
    method: Method = None,
    status: Status = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove entries; what is pinned, or being computed, stays."""
    from exca_like import pruning

    named = meant(catalog_of(folder), uids, method, status, since, before, where)
    _report(pruning.remove(named, dry_run=not yes), yes=yes, json=json)


def prune(
    folder: Folder = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", help="Remove what was stored longer ago, like 30d, or before a time.", callback=checked_time
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", help="Then go on until all that is left takes no more, like 50GB.", callback=_checked_size),
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=0, help="Keep the newest of each method and version, this many.")
    ] = None,
    policy: Annotated[
        Order,
        typer.Option(help="What --max-size removes first: the oldest, the largest, what was read longest ago, or least often."),
    ] = Order.oldest,
    status: Status = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove what is old, failed or too much; never what is pinned, running or queued."""
    from exca_like import pruning

    if older_than is None and max_size is None and keep_last is None and status is None:
        msg = "say what is to be removed: give --older-than, --max-size, --keep-last or --status"
        raise typer.BadParameter(msg)
    catalog = chosen(folder, method, None, since, before, where)
    done = pruning.prune(
        catalog,
        older_than=older_than,
        max_size=int(max_size) if max_size is not None and max_size.isdecimal() else max_size,
        keep_last=keep_last,
        policy=policy.value,
        status=statuses(status),
        dry_run=not yes,
    )
    if status is not None and not json:
        listed = catalog.filter(status=statuses(status)).refresh()
        kept = [entry for entry in listed if pruning.is_of_use(entry) and not entry.is_pinned]
        if kept:
            print_text(f"maps with results stay, like {kept[0].uid}: `exca-like rm` removes them", err=True)
    _report(done, yes=yes, json=json)


def cancel(
    uids: Uids = None,
    folder: Folder = None,
    method: Method = None,
    status: Status = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Cancel the jobs of what is queued or running."""
    from exca_like import progress, tables
    from exca_like.executors import cancel_all

    catalog = catalog_of(folder)
    named = meant(catalog, uids, method, status, since, before, where)
    going_on = catalog.filter(status=("running", "queued")).refresh()
    live = {entry.uid: entry for entry in going_on}
    ids = [uid for uid in uids or () if is_job(uid)]
    if not uids or any(entry.uid in live for entry in named):  # what has ended of a method, or of an array, was not meant
        named = [
            entry for entry in named if entry.uid in live or (uids and (entry.job in ids or not any(map(entry.is_of_job, ids))))
        ]
    handles = {entry.uid: found for entry in named if entry.uid in live and (found := _to_cancel(entry, ids))}
    rows: list[dict[str, Any]] = []
    for entry in named:
        found = handles.get(entry.uid, [])
        problem, with_it = None, []
        if entry.uid not in live:
            problem = f"it is {entry.status}"
        elif not found:
            without = f"it has no job of its own: it is computed by {entry.reason or 'another process'}"
            problem = f"it is running, {entry.reason}" if entry.kind == "task" and entry.job else without
        elif live[entry.uid].status == "running":  # of several tasks in a job, one that waits can be taken out alone
            own = {handle.job_id for handle in found}
            with_it = [other.uid for other in going_on if other.job in own and other.uid not in handles]
        shown = ", ".join(handle.job_id for handle in found) or None
        rows.append({"uid": entry.uid, "job": shown, "problem": problem, "with_it": with_it})
    left: list[JobHandle] = []
    if yes:
        with progress.untold():  # which others end with them is said below
            left = cancel_all([handle for found in handles.values() for handle in found])
    if json:
        print_json(rows)
    else:
        for row in rows:
            with_it = [f"\n  with it ends {uid}, of the same job" for uid in row["with_it"]]
            print_text(
                "".join([f"{row['uid']}: {row['problem'] or 'job ' + row['job']}", *with_it]), err=row["problem"] is not None
            )
        noun = "task" if all(entry.kind == "task" for entry in named) else "entry"
        total = tables.count(len({*handles, *(uid for row in rows for uid in row["with_it"])}), noun)
        print_text(f"{total} cancelled" if yes or not handles else f"{total} would be cancelled: repeat with --yes")
        if left:
            late = dict.fromkeys(handle.job_id for handle in left)
            jobs = f"{tables.count(len(late), 'job')} ({', '.join(late):.200})"
            print_text(f"not ended yet, and running until they have: {jobs}", err=True)
    raise typer.Exit(0 if len(handles) == len(rows) else 1)


def _to_cancel(entry: "Entry", ids: "Sequence[str]") -> "list[JobHandle]":
    """The jobs of an entry that go on; of a map only those that are named, if some are."""
    from exca_like.executors import goes_on

    going_on = list(filter(goes_on, entry.handles()))
    named = [handle for handle in going_on if any(f"{handle.job_id}_".startswith(f"{one}_") for one in ids)]
    return named or going_on


def _tell(entries: "Sequence[Entry]", what: str, *, json: bool) -> None:
    if json:
        print_json([{"uid": entry.uid, "pinned": what == "is pinned"} for entry in entries])
    else:
        for entry in entries:
            print_text(f"{entry.uid} {what}")
        if not entries:
            print_text("nothing fits")


def _report(done: "Sequence[Removal]", *, yes: bool, json: bool) -> None:
    """Show what was, or would be removed; ends with 1 if something stays that was to go."""
    from exca_like import catalog, tables

    good = [one for one in done if one.problem is None]
    size = sum(one.size for one in good)
    if json:
        removals = [{"uid": one.entry.uid, "size": one.size, "reason": one.reason, "problem": one.problem} for one in done]
        print_json({"removed": yes, "entries": len(good), "size": size, "removals": removals})
    elif not done:
        print_text("nothing fits: nothing is to be removed")
    else:
        header = ("uid", "status", "stored", "size", "why")
        rows = []
        for one in done:
            uid, status, stored, _, bytes_ = catalog.row_of(one.entry)
            rows.append((uid, status, stored, bytes_, one.reason if one.problem is None else f"stays: {one.problem}"))
        print_table(tables.Table("", header, rows, most=None, longest=LONGEST))
        total = f"{tables.count(len(good), 'entry')}, {tables.size(size)}"
        if yes:
            print_text(f"{total} removed")
        else:
            print_text(f"{total} to remove; nothing was removed: repeat with --yes" if good else "all stays")
    raise typer.Exit(0 if len(good) == len(done) else 1)
