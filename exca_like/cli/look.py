"""``show``, ``status``, ``diff``: one thing, and how all stands."""

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exca_like.cli.options import (
    LONGEST,
    Folder,
    Json,
    Method,
    Since,
    Uid,
    catalog_of,
    chosen,
    print_json,
    print_table,
    print_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exca_like.catalog import Catalog
    from exca_like.entries import Entry

_TRACEBACK = 12  # lines
_RESULT = 200  # cells
_ITEMS = 5
_LIVE = 10
_SIDES = ("first", "second")
_ABSENT = "-"
_CLEAR = "\x1b[H\x1b[2J"  # of a terminal


def show(uid: Uid, folder: Folder = None, json: Json = False) -> None:
    """Show an entry: its config, its result if that is short, where it comes from, what went wrong."""
    from exca_like.cli.find import summary_of

    entry = catalog_of(folder)[uid]
    if json:
        failure = entry.failure()
        about = {"config": entry.config, "changed": entry.changed, "provenance": vars(entry.provenance())}
        results = {name: value for name, value in entry.record().items() if name.split(".")[0] == "result"}
        items = {key: one.traceback for key, one in entry.item_failures().items()} if entry.kind == "map" else {}
        print_json(
            summary_of(entry)
            | about
            | results
            | {"error": failure and (failure.traceback or failure.message), "items that failed": items}
        )
        return
    for line in _described(entry):
        print_text(line)


def _described(entry: "Entry") -> Any:
    from exca_like import tables
    from exca_like.scanning import summary

    yield str(entry)
    yield f"  folder  {entry.path}"
    yield f"  size    {tables.size(entry.size)}" + (f", {entry.values} results" if entry.kind == "map" else "")
    yield f"  config  {_config_of(entry)}"
    if entry.is_pinned:
        yield "  pinned"
    row = entry.record()
    results = {name: value for name, value in row.items() if name == "result" or name.startswith("result.")}
    for name, value in results.items():
        yield f"  {name}  {value!r:.200}"
    if entry.kind != "map" and entry.values and not results:
        yield f"  result  {_result_of(entry)}"
    if any(name.startswith("result.") for name in results):
        left = [str(name) for name in entry.load("never") if f"result.{name}" not in results]
        if left:
            yield f"  and     {tables.shown(', '.join(left), _RESULT)}; {_in_python(entry)}"
    if entry.kind != "map":
        yield from (f"  {line}" for line in str(entry.provenance()).splitlines())
    if entry.kind == "map":
        items = entry.item_failures()
        for key, one in list(items.items())[:_ITEMS]:
            yield f"  item {key}: {summary(one)}"
        if len(items) > _ITEMS:
            yield f"  ... and {len(items) - _ITEMS} more that failed"
    elif (failure := entry.failure()) is not None:
        lines = (failure.traceback or failure.message).strip().splitlines()
        yield from (f"  {line}" for line in (["..."] if len(lines) > _TRACEBACK else []) + lines[-_TRACEBACK:])
    handle = entry.handle()
    if handle is not None:
        yield f"  job     {handle.job_id}, logs in {handle.paths.folder}"


def _in_python(entry: "Entry") -> str:
    return f"in Python: Catalog({str(entry.root)!r}).load({entry.uid!r})"


def _result_of(entry: "Entry") -> str:
    """What is shown of a result that is no scalar, and no dictionary of some."""
    from exca_like import tables
    from exca_like.errors import ExcaLikeError

    whole = _in_python(entry)
    format_ = entry.handler or "in another format"
    if format_ != "Json":
        return f"no short value ({format_}); {whole}"
    try:
        text = tables.shown(entry.load("never"), _RESULT)
    except (ExcaLikeError, OSError) as error:
        return f"can't be read: {error}"
    return text if tables.cells(text) < _RESULT else f"{text}\n          {whole}"


def _config_of(entry: "Entry") -> str:
    from exca_like import layout, yamltext
    from exca_like.errors import ExcaLikeError

    if entry.is_of_calls:
        return "not known, as arguments are stored with results"
    if not entry.changed and entry.kind != "memo":
        try:
            yamltext.load(entry.folder / layout.UID)
        except FileNotFoundError:
            return f"not known, as there is no {layout.UID} in the folder"
        except (OSError, ExcaLikeError):
            return f"not known, as {layout.UID} in the folder can't be read: `exca-like verify` tells why"
    return ", ".join(f"{name}={value!r}" for name, value in entry.changed.items()) or "all at its defaults"


def status(
    folder: Folder = None,
    method: Method = None,
    since: Since = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and show it anew every few seconds, until nothing runs.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks of --watch.")] = 2.0,
    json: Json = False,
) -> None:
    """Count, for each method, what is completed, failed, running and queued."""
    found = chosen(folder, method, None, since, None, None)
    while True:
        entries = found.refresh()
        counts = Counter(entry.status for entry in entries)
        if json:
            print_json(_counts(entries))
        else:
            if watch:
                typer.echo(f"{_CLEAR if sys.stdout.isatty() else ''}{time.strftime('%H:%M:%S')}  ", nl=False)
            print_text(found.title(entries))
            _print_counts(entries)
        if not watch or not (counts["running"] or counts["queued"]):
            return
        time.sleep(every)


def _counts(entries: "list[Entry]") -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        found.setdefault(f"{entry.method},{entry.version}".rstrip(","), Counter())[entry.status] += 1
    return {name: dict(counter) for name, counter in found.items()}


def _print_counts(entries: "list[Entry]") -> None:
    from exca_like import tables

    counts = _counts(entries)
    words = [
        word
        for word in ("completed", "running", "queued", "failed", "lost", "empty")
        if any(word in row for row in counts.values())
    ]
    rows = [(name, *(str(row.get(word, "")) for word in words)) for name, row in counts.items()]
    if rows:
        print_table(tables.Table("", ("method", *words), rows, most=None, longest=LONGEST))
    live = [entry for entry in entries if entry.status in ("running", "queued")]
    for entry in live[:_LIVE]:
        print_text(f"  {entry}")
    if len(live) > _LIVE:
        typer.echo(f"  ... and {len(live) - _LIVE} more")


def diff(
    first: Uid,
    second: Uid,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Show in which fields two configs differ, but for those of infras, and what came out; a dash: one does not have it."""
    from exca_like import tables
    from exca_like.confdict import ConfDict

    catalog: Catalog = catalog_of(folder)
    entries = [catalog[first], catalog[second]]
    flat = [_what_counts(ConfDict(entry.config).flat()) for entry in entries]
    records = [
        {name: value for name, value in entry.record().items() if name in ("status", "result") or name.startswith("result.")}
        for entry in entries
    ]
    rows: dict[str, dict[str, Any]] = {}  # of each name the values by side, where that has it: None is a value
    for sides, shows_all in ((flat, False), (records, True)):
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            values = {side: one[name] for side, one in zip(_SIDES, sides, strict=True) if name in one}
            if shows_all or len(values) == 1 or values["first"] != values["second"]:
                rows[name] = values
    if json:
        print_json({"first": entries[0].uid, "second": entries[1].uid, "differences": rows})
        return
    header = ("", entries[0].uid.rpartition("/")[2], entries[1].uid.rpartition("/")[2])
    cells = [(name, *(str(values.get(side, _ABSENT)) for side in _SIDES)) for name, values in rows.items()]
    print_table(tables.Table("", header, cells, most=None, longest=LONGEST))


def _what_counts(config: "Mapping[str, Any]") -> dict[str, Any]:
    """The fields of a config by which its results are told from others: of infras only the versions."""
    from exca_like.filters import own_fields

    own = set(own_fields(config))
    return {name: value for name, value in config.items() if name in own or name.endswith(".version")}
