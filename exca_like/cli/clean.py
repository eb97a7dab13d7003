"""``pin``, ``unpin``, ``rm``, ``prune``, ``cancel``: what is kept, and what is not."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exca_like.cli.options import (
    LONGEST,
    Before,
    Config,
    Folder,
    Json,
    Method,
    Since,
    Status,
    Uid,
    Yes,
    catalog_of,
    chosen,
    print_json,
    print_table,
    print_text,
    statuses,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exca_like.entries import Entry
    from exca_like.pruning import Removal

Uids = Annotated[list[str], typer.Argument(metavar="UID...", help="Entries, of whose uids a clear part is enough.")]


class Order(enum.StrEnum):
    """What is removed first."""

    oldest = "oldest"
    size = "size"
    lru = "lru"
    lfu = "lfu"


def pin(uid: Uid, folder: Folder = None, json: Json = False) -> None:
    """Keep an entry, whatever is pruned."""
    entry = catalog_of(folder)[uid]
    entry.pin()
    _tell([entry], "is pinned", json=json)


def unpin(uid: Uid, folder: Folder = None, json: Json = False) -> None:
    """Let an entry be removed again."""
    entry = catalog_of(folder)[uid]
    entry.unpin()
    _tell([entry], "is not pinned", json=json)


def rm(uids: Uids, folder: Folder = None, yes: Yes = False, json: Json = False) -> None:
    """Remove entries; what is pinned, or being computed, stays."""
    from exca_like import pruning

    _report(pruning.remove(_named(folder, uids), dry_run=not yes), yes=yes, json=json)


def prune(
    folder: Folder = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Remove what was stored longer ago, like 30d, or before a time.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Then go on until all that is left takes no more, like 50GB.")
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

    done = pruning.prune(
        chosen(folder, method, None, since, before, where),
        older_than=older_than,
        max_size=int(max_size) if max_size is not None and max_size.isdecimal() else max_size,
        keep_last=keep_last,
        policy=policy.value,
        status=statuses(status),
        dry_run=not yes,
    )
    _report(done, yes=yes, json=json)


def cancel(uids: Uids, folder: Folder = None, yes: Yes = False, json: Json = False) -> None:
    """Cancel the jobs of tasks that are queued or running."""
    from exca_like import tables
    from exca_like.executors import cancel_all

    named = _named(folder, uids)
    live = {entry.uid: entry for entry in catalog_of(folder) if entry.status in ("running", "queued")}
    handles = {entry.uid: handle for entry in named if entry.uid in live and (handle := entry.handle()) is not None}
    rows: list[dict[str, Any]] = []
    for entry in named:
        handle = handles.get(entry.uid)
        problem, with_it = None, []
        if entry.uid not in live:
            problem = f"it is {entry.status}"
        elif handle is None:
            problem = f"it has no job of its own: it is computed by {entry.reason or 'another process'}"
        elif live[entry.uid].status == "running":  # of several tasks in a job, one that waits can be taken out alone
            with_it = [other.uid for other in live.values() if other.job == handle.job_id and other.uid not in handles]
        rows.append({"uid": entry.uid, "job": handle and handle.job_id, "problem": problem, "with_it": with_it})
    if yes:
        cancel_all(list(handles.values()))
    if json:
        print_json(rows)
    else:
        for row in rows:
            with_it = [f"\n  with it ends {uid}, of the same job" for uid in row["with_it"]]
            print_text(
                "".join([f"{row['uid']}: {row['problem'] or 'job ' + row['job']}", *with_it]), err=row["problem"] is not None
            )
        total = tables.count(len({*handles, *(uid for row in rows for uid in row["with_it"])}), "task")
        print_text(f"{total} cancelled" if yes or not handles else f"{total} would be cancelled: repeat with --yes")
    raise typer.Exit(0 if len(handles) == len(rows) else 1)


def _named(folder: Path | None, uids: "Sequence[str]") -> "list[Entry]":
    return catalog_of(folder).named(uids)


def _tell(entries: "Sequence[Entry]", what: str, *, json: bool) -> None:
    if json:
        print_json([{"uid": entry.uid, "pinned": what == "is pinned"} for entry in entries])
    else:
        for entry in entries:
            print_text(f"{entry.uid} {what}")


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
        print_text(f"{total} removed" if yes else f"{total} to remove; nothing was removed: repeat with --yes")
    raise typer.Exit(0 if len(good) == len(done) else 1)
