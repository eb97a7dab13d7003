"""``ls``, ``table``, ``du``, ``stats``: what there is."""

import enum
from collections.abc import Sequence
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
    Pinned,
    Since,
    Status,
    chosen,
    print_json,
    print_table,
    print_text,
)

if TYPE_CHECKING:
    from exca_like.entries import Entry


# columns that are hardly ever the same
_ABOUT = frozenset(("uid", "time", "duration", "size", "job", "host", "memory", "values", "failures"))
_USAGE = ("entries", "results", "size", "pinned", "on_disk", "files")
_SIZES = ("size", "pinned", "on_disk")


class Order(enum.StrEnum):
    """What entries are sorted by."""

    uid = "uid"
    time = "time"
    size = "size"
    duration = "duration"


def ls(
    folder: Folder = None,
    method: Method = None,
    status: Status = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    pinned: Pinned = False,
    sort: Annotated[Order, typer.Option(help="What comes last is the newest, largest or longest.")] = Order.uid,
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="How many are shown at most; 0: all.")] = 0,
    json: Json = False,
) -> None:
    """List what is stored, failed, or being computed."""
    from exca_like import catalog, tables

    found = chosen(folder, method, status, since, before, where, pinned or None)
    entries = _sorted(found.refresh(), sort)
    shown = entries[-number:] if number else entries
    if json:
        print_json([summary_of(entry) for entry in shown])
        return
    title = found.title(entries) + (f"; the last {len(shown)}:" if len(shown) < len(entries) else "")
    print_table(tables.Table(title, catalog.HEADER, [catalog.row_of(entry) for entry in shown], most=None, longest=LONGEST))


def table(
    folder: Folder = None,
    method: Method = None,
    status: Status = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    only_changed: Annotated[
        bool, typer.Option("--only-changed", help="Only fields and results that are not the same in all rows.")
    ] = False,
    sort: Annotated[
        str | None, typer.Option(help="A column to sort by; the largest comes first, with - before it the smallest.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", "-c", help="Only these, as lr,result.accuracy; * is allowed.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    json: Json = False,
    parquet: Annotated[
        Path | None,
        typer.Option(
            "--parquet",
            metavar="FILE",
            help="Write a parquet file; needs pandas and pyarrow. Columns of values that have no type in common become texts.",
        ),
    ] = None,
) -> None:
    """Compare configs and their results in one table."""
    from exca_like import tables

    if csv + json + (parquet is not None) > 1:
        msg = "say one of --csv, --json and --parquet: each is another form of the table"
        raise typer.BadParameter(msg)
    rows = chosen(folder, method, status, since, before, where).to_records()
    names = _columns(rows, only_changed=only_changed, wanted=columns)
    if sort is not None:
        rows = _by_column(rows, sort)
    rows = [{name: row.get(name) for name in names} for row in rows]
    if parquet is not None:
        _write_parquet(rows, names, parquet)
        typer.echo(f"{len(rows)} rows written to {parquet}")
    elif json:
        print_json(rows)
    elif csv:
        import csv as library
        import io

        text = io.StringIO(newline="")
        writer = library.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        typer.echo(text.getvalue(), nl=False)
    elif rows:
        print_table(tables.Table("", names, [[_cell(row[name]) for name in names] for row in rows], most=None, longest=LONGEST))
    else:
        typer.echo("nothing is stored that fits")


def failures(
    folder: Folder = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    group: Annotated[
        bool, typer.Option("--group", help="Show together what failed in the same way, one traceback in full.")
    ] = False,
    number: Annotated[
        int | None, typer.Option("--number", "-n", min=0, help="With --group, how many uids of each are shown at most; 0: all.")
    ] = None,
    json: Json = False,
) -> None:
    """List what failed, or group it by what went wrong."""
    from exca_like import tables

    if number is not None and not group:
        msg = "it goes with --group; without, all are shown"
        raise typer.BadParameter(msg, param_hint="--number")
    catalog = chosen(folder, method, None, since, before, where)
    report = catalog.failures()
    if json:
        names = ("count", "type", "message", "where", "reason", "traceback")
        print_json(
            [{name: getattr(one, name) for name in names} | {"uids": one.uids[: number or None]} for one in report.groups]
        )
        return
    if group or not len(report):
        print_text(report.text(number))
    else:
        print_table(tables.Table(f"{len(report)} failed", ("uid", "what"), sorted(report.each()), most=None, longest=LONGEST))
        if report.lost:
            print_text(report.of_lost())
    if report.lost:
        are_tasks = {entry.kind in ("task", "") for entry in catalog.refresh() if entry.status == "lost" or entry.unfinished}
        advice = [
            "`exca-like retry --lost` submits such tasks again, with --mem x2 for twice their infra's mem_gb"
            if True in are_tasks
            else "",
            "of maps and functions, make the call again" if False in are_tasks else "",
        ]
        print_text("; ".join(["`exca-like ls` says what", *filter(None, advice)]), err=True)


def du(
    folder: Folder = None,
    method: Method = None,
    json: Json = False,
) -> None:
    """Show the bytes of results of each method, and what is on the disk, as quotas count it, with logs and copies of code."""
    from exca_like import tables
    from exca_like.listing import method_of

    rows: dict[str, dict[str, int]] = {}
    names: dict[str, set[str]] = {}  # of rows, by the folders that entries are in
    catalog = chosen(folder, method, None, None, None, None)
    for entry in catalog:
        name = f"{entry.method},{entry.version}".rstrip(",")
        row = rows.setdefault(name, dict.fromkeys(_USAGE, 0))
        row["entries"] += 1
        row["results"] += entry.values
        row["size"] += entry.size
        row["pinned"] += entry.size * entry.is_pinned
        names.setdefault(entry.uid.partition("/")[0], set()).add(name)
    for name, usage in catalog.disk_usage().items():
        found = names.get(name, set())
        is_alone = len(found) == 1 and (method_of(name)[0] or not method)  # what is filtered out may be in there, too
        if is_alone or not method:
            own = name + "/" * (catalog.folder / name).is_dir()
            row = rows.setdefault(found.pop() if is_alone else own, dict.fromkeys(_USAGE, 0))
            row["on_disk"] += usage.size
            row["files"] += usage.files
    ordered = sorted(rows.items(), key=lambda one: -one[1]["on_disk"])
    if json:
        print_json([{"method": name, **row} for name, row in ordered])
        return
    ordered.append(("total", {column: sum(row[column] for row in rows.values()) for column in _USAGE}))
    shown = [column for column in _USAGE if column != "pinned" or ordered[-1][1]["pinned"]]
    cells = [
        [name, *((tables.size if column in _SIZES else str)(row[column]) if row[column] else "" for column in shown)]
        for name, row in ordered
    ]
    print_table(
        tables.Table("", ("method", *(column.replace("_", " ") for column in shown)), cells, most=None, longest=LONGEST)
    )


def stats(
    folder: Folder = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    json: Json = False,
) -> None:
    """Show what there is of each method, how often it was taken from the cache, and the time that this has saved."""
    found = chosen(folder, method, None, since, before, where).stats()
    if json:
        print_json({"methods": [usage.to_record() for usage in found], "total": found.total.to_record()})
    else:
        print_table(found.to_table(most=None, longest=LONGEST))


def summary_of(entry: "Entry") -> dict[str, Any]:
    """An entry as JSON data."""
    names = (
        "uid",
        "method",
        "version",
        "kind",
        "status",
        "reason",
        "time",
        "duration",
        "size",
        "values",
        "failures",
        "job",
        "hits",
    )
    return {name: getattr(entry, name) for name in names} | {"pinned": entry.is_pinned, "folder": entry.path}


def _sorted(entries: "list[Entry]", order: Order) -> "list[Entry]":
    if order is Order.uid:
        return entries
    if order is Order.time:
        return sorted(entries, key=lambda entry: entry.time.timestamp() if entry.time else 0.0)
    return sorted(entries, key=lambda entry: getattr(entry, order.value) or 0)


def _columns(rows: Sequence[dict[str, Any]], *, only_changed: bool, wanted: str | None) -> list[str]:
    """Names of the columns to show: what it is, fields of configs, results, and the rest."""
    import fnmatch

    names = sorted(dict.fromkeys(name for row in rows for name in row), key=_rank)
    if wanted is not None:
        patterns = [pattern.strip() for pattern in wanted.split(",")]
        patterns = [one if one in names or f"result.{one}" not in names else f"result.{one}" for one in patterns]
        found = [name for pattern in patterns for name in names if fnmatch.fnmatchcase(name, pattern)]
        missing = [pattern for pattern in patterns if not any(fnmatch.fnmatchcase(name, pattern) for name in names)]
        if missing and rows:
            raise _no_column(", ".join(missing), missing, names, "--columns")
        return list(dict.fromkeys(found))
    if only_changed and len(rows) > 1:
        names = [name for name in names if name == "uid" or _is_told_by(name, rows)]
    return names


def _no_column(shown: str, missing: Sequence[str], names: Sequence[str], hint: str) -> typer.BadParameter:
    """The error for names of columns that there are not, with those that may have been meant."""
    import difflib

    known = [*names, *(name.removeprefix("result.") for name in names)]
    near = dict.fromkeys(found for one in missing for found in difflib.get_close_matches(one, known, 1))
    there_are = f": did you mean {' and '.join(near)}? There are" if near else ": there are"
    return typer.BadParameter(f"there is no column {shown}{there_are} {', '.join(names)}", param_hint=hint)


def _is_told_by(name: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a column is one of configs or results, and differs between rows."""
    return name not in _ABOUT and len({repr(row.get(name)) for row in rows}) > 1


def _rank(name: str) -> int:
    if name in ("method", "version", "uid", "status"):
        return 0
    if name.startswith("extra."):
        return 4
    if name in _ABOUT or name in ("reason", "code"):
        return 3
    return 2 if name == "result" or name.startswith("result.") else 1


def _write_parquet(rows: Sequence[dict[str, Any]], names: list[str], path: Path) -> None:
    import io

    try:
        import pandas as pd
        import pyarrow  # noqa: F401 - pandas writes with it
    except ImportError as error:
        msg = f"--parquet needs pandas and pyarrow: pip install pandas pyarrow, or take --csv or --json ({error})"
        raise ImportError(msg) from error
    frame = pd.DataFrame(rows, columns=names)
    for name in names:
        try:
            frame[[name]].to_parquet(io.BytesIO(), engine="pyarrow")
        except (TypeError, ValueError, OverflowError, NotImplementedError):  # numbers beside texts, large ones, empty dicts
            frame[name] = [None if row[name] is None else str(row[name]) for row in rows]
    path.write_bytes(frame.to_parquet(engine="pyarrow"))


def _by_column(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """Rows with numbers first, then texts, then those without a value."""
    name = column.removeprefix("-")
    names = {name: name for row in rows for name in row}
    names |= {full.removeprefix("result."): full for full in names if full.startswith("result.")} | names
    if rows and name not in names:
        raise _no_column(repr(name), [name], list(dict.fromkeys(names.values())), "--sort")
    full = names.get(name, name)
    known = [row for row in rows if row.get(full) is not None and row[full] == row[full]]
    numbers = [row for row in known if isinstance(row[full], int | float)]
    texts = [row for row in known if not isinstance(row[full], int | float)]
    others = [row for row in rows if row.get(full) is None or row[full] != row[full]]
    falls = not column.startswith("-")
    numbers.sort(key=lambda row: row[full], reverse=falls)
    texts.sort(key=lambda row: str(row[full]), reverse=falls)
    return [*numbers, *texts, *others]


def _cell(value: Any) -> Any:
    return f"{value.astimezone():%Y-%m-%d %H:%M}" if hasattr(value, "astimezone") else value
