"""Options that commands share, and what they mean."""

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from exca_like.catalog import Catalog
    from exca_like.entries import Entry
    from exca_like.tables import Table


@contextlib.contextmanager
def wrong_input(hint: str | None = None) -> Iterator[None]:
    """A block in which a value that is not taken is a mistake of the command line, which ends with 2."""
    from exca_like.errors import ConfigValueError, InfraValueError

    try:
        yield
    except (ConfigValueError, InfraValueError) as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


def checked_time(parameter: typer.CallbackParam, text: str | None) -> str | None:
    """A time, or an age, as it was written."""
    if text is not None:
        from exca_like.filters import moment

        with wrong_input():
            moment(str(parameter.name), text)
    return text


def _checked_statuses(text: str | None) -> str | None:
    if text is not None:
        from exca_like.filters import check_statuses

        with wrong_input():
            check_statuses(statuses(text))
    return text


_VARIABLE = "EXCA_LIKE_FOLDER"
Folder = Annotated[
    Path | None,
    typer.Option("--folder", envvar=_VARIABLE, help="The cache root, which infras have as their folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, only what would be done is shown.")]
Uid = Annotated[
    str,
    typer.Argument(
        help="The uid of an entry, of which a clear part is enough; its folder, or the id of its job.", show_default=False
    ),
]
Uids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="UID",
        help="Entries, of whose uids a clear part is enough; or ids of jobs or of whole arrays, for all that is of them.",
    ),
]
Pinned = Annotated[bool, typer.Option("--pinned", help="Only what is pinned.")]
Method = Annotated[str | None, typer.Option("--method", "-m", help="Only this method; its end is enough, and * is allowed.")]
Status = Annotated[
    str | None,
    typer.Option("--status", "-s", help="Only these, as failed or failed,lost.", callback=_checked_statuses),
]
Since = Annotated[
    str | None,
    typer.Option("--since", help="Only what was stored since: 7d, '3 h', '2026-11-28 10:00'.", callback=checked_time),
]
Before = Annotated[str | None, typer.Option("--before", help="Only what was stored before; as --since.", callback=checked_time)]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--where", "-w", metavar="FIELD=VALUE", help="Only configs with this value, like optim.lr=0.1; can be repeated."
    ),
]

LONGEST = 1000
"""Characters of a cell of a table that programs read."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_INTEGER = 4000  # digits, of which Python reads so many
_PAIRS = {"[": "]", "{": "}", "(": ")", '"': '"', "'": "'"}
_WORDS = {"": None, "None": None, "null": None, "true": True, "True": True, "false": False, "False": False}
_USUAL = ("cache", ".cache", "results", ".exca_like")


def catalog_of(folder: Path | None) -> "Catalog":
    """The catalog of a folder, or of the one that is meant if none is given."""
    from exca_like.catalog import Catalog
    from exca_like.errors import CacheFolderError
    from exca_like.roots import check_root

    root = root_of(folder)
    with right_root():
        check_root(str(root))
    try:
        return Catalog(root)
    except CacheFolderError as error:
        if str(folder) != os.environ.get(_VARIABLE):
            raise
        msg = f"{error.strerror}, with --folder, or as {_VARIABLE}, which says {folder} now"
        raise CacheFolderError(error.errno, msg) from None


def root_of(folder: Path | None) -> Path:
    """The cache root that is meant: the given one; the current folder, or a usual one in it, if that looks like one."""
    found = usual_root() if folder is None else folder
    if found is not None:
        return found
    msg = (
        f"there is no cache in {Path.cwd()}, nor in {', '.join(_USUAL)} of it: give the cache root, which infras have as their "
        f"folder, with --folder, or as {_VARIABLE}"
    )
    raise typer.BadParameter(msg, param_hint="--folder")


def usual_root() -> Path | None:
    """The current folder, or a usual one in it, if that looks like a cache root."""
    from exca_like.roots import is_root

    return next((place for place in (Path(), *map(Path, _USUAL)) if is_root(str(place))), None)


def check_is_no_part(place: Path) -> None:
    """Raise for the folder of a method or of an entry in a cache root: what is written there would not be found."""
    from exca_like import roots

    with right_root():
        roots.check_is_no_part(str(place))


@contextlib.contextmanager
def right_root(hint: str = "--folder") -> Iterator[None]:
    """A block in which a folder that is no cache root is a mistake of the command line, which ends with 2."""
    from exca_like.errors import CacheRootError

    try:
        yield
    except CacheRootError as error:
        raise typer.BadParameter(str(error.strerror), param_hint=hint) from None


def chosen(
    folder: Path | None,
    method: str | None,
    status: str | None,
    since: str | None,
    before: str | None,
    where: list[str] | None,
    pinned: bool | None = None,
) -> "Catalog":
    """The catalog of what options ask for."""
    return _filtered(catalog_of(folder), method, status, since, before, where, pinned)


def _filtered(
    catalog: "Catalog",
    method: str | None,
    status: str | None,
    since: str | None,
    before: str | None,
    where: list[str] | None,
    pinned: bool | None,
) -> "Catalog":
    return catalog.filter(
        method, status=statuses(status), since=since, before=before, config=wanted(where), pinned=pinned, strict=True
    )


def wanted(where: list[str] | None) -> dict[str, Any]:
    """Fields and values of ``--where``: a 1 is the number, or the text; several of a field are alternatives."""
    from exca_like.filters import OneOf

    found: dict[str, list[Any]] = {}
    for word in where or ():
        name, value = field_of(word)
        text = word.partition("=")[2]
        parts = split(text)
        several = [value_of(part) for part in parts] + parts if len(parts) > 1 else []
        found.setdefault(name, []).extend([value, text, *several])
    # of a dictionary alone, its fields are meant
    return {
        name: values[0] if isinstance(values[0], dict) and len(values) == 2 else OneOf(values) for name, values in found.items()
    }


def selected(catalog: "Catalog", uids: list[str] | None) -> "Catalog":
    """Those entries of a catalog that are named by clear parts of their uids, or ids of jobs; all, if none are named."""
    if not uids:
        return catalog
    jobs = [uid for uid in uids if is_job(uid)]
    entries = catalog.refresh() if jobs else []
    of_jobs = {job: [entry.uid for entry in entries if entry.is_of_job(job)] for job in jobs}
    named = {entry.uid for entry in catalog.named(uid for uid in uids if not of_jobs.get(uid))}
    named.update(*of_jobs.values())
    return catalog.filter(where=lambda entry: entry.uid in named)


def is_job(uid: str) -> bool:
    """Whether a text is the id of a job, or of an array of them."""
    from exca_like.entries import JOB_ID

    return JOB_ID.fullmatch(uid) is not None


def meant(
    catalog: "Catalog",
    uids: list[str] | None,
    method: str | None,
    status: str | None,
    since: str | None,
    before: str | None,
    where: list[str] | None,
    pinned: bool | None = None,
) -> "list[Entry]":
    """What a command is to do something to: there has to be a uid, or another option that says what.

    What is named, and does not fit the other options, is told and left out.
    """
    if not uids and not where and all(option is None for option in (method, status, since, before, pinned)):
        msg = "say which entries: by their uids, or with --method, --status, --since, --before or --where"
        raise typer.BadParameter(msg, param_hint="UID")
    fitting = _filtered(catalog, method, status, since, before, where, pinned).refresh()
    if not uids:
        return fitting
    fit = {entry.uid for entry in fitting}
    named = selected(catalog, uids).refresh()
    for entry in named:
        if entry.uid not in fit:
            print_text(f"{entry.uid} does not fit the other options: it is {entry.status}", err=True)
    return [entry for entry in named if entry.uid in fit]


def statuses(text: str | None) -> Any:
    """The statuses of ``failed,lost``; None if none are given."""
    return None if text is None else [word.strip() for word in text.split(",")]


def field_of(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, see `value_of`."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        msg = f"{text!r} is not of the form FIELD=VALUE, like optim.lr=0.1"
        raise typer.BadParameter(msg)
    return name.strip(), value_of(value)


def split(text: str) -> list[str]:
    """The parts between commas that are in no brackets or quotes."""
    parts, closing = [""], [""]
    for character in text:
        if character == closing[-1]:
            closing.pop()
        elif character in _PAIRS and closing[-1] not in ('"', "'"):
            closing.append(_PAIRS[character])
        if character == "," and len(closing) == 1:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def value_of(text: str) -> Any:
    """What a text stands for: a number, true, false or None, what is in quotes, or yaml in brackets; else the text as it is.

    Not more: in yaml, 010 would be 8, 12:30 a number, and all from a # on a comment.
    """
    plain = text.strip()
    if plain in _WORDS:
        return _WORDS[plain]
    if _INTEGER.fullmatch(plain):
        return int(plain) if len(plain) < _LONGEST_INTEGER else plain
    if _NUMBER.fullmatch(plain):
        return float(plain) if math.isfinite(float(plain)) else plain
    if plain[0] in "[{\"'":
        import yaml

        try:
            return yaml.safe_load(plain)
        except yaml.YAMLError:
            pass
    return text


@contextlib.contextmanager
def hinted(context: Any, hint: Callable[[str], str | None]) -> Iterator[None]:
    """A block that parses options; of one that there is not, it is said what may be meant."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "NoSuchOption":  # its place depends on the version of typer
            raise
        said: Any = error
        meant = hint(said.option_name)
        if meant is not None:
            context.fail(f"{said.format_message()}; {meant}")
        raise


def is_said(context: typer.Context, option: str) -> bool:
    """Whether an option is on the command line, and not from the environment."""
    return getattr(context.get_parameter_source(option), "name", "") == "COMMANDLINE"


def import_from_here() -> None:
    """Let modules of the current folder be imported, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """A block that imports modules of the user: of an error in them, their own lines are shown, and not those of the command.

    Errors of this package say enough, and those of modules that are not there are told by who looks for them.
    """
    from exca_like.errors import ExcaLikeError

    import_from_here()
    try:
        yield
    except (ExcaLikeError, typer.Exit, typer.BadParameter):
        raise
    except (Exception, SystemExit) as error:
        import traceback

        lines = error.__traceback__
        while lines is not None and _is_of_import(lines.tb_frame.f_globals.get("__name__", "")):
            lines = lines.tb_next
        print_text("".join(traceback.format_exception(error.with_traceback(lines))).rstrip("\n"), err=True)
        raise typer.Exit(1) from None


def _is_of_import(module: str) -> bool:
    return module.partition(".")[0] in ("exca_like", "importlib", "_frozen_importlib", "_frozen_importlib_external")


def print_table(table: "Table") -> None:
    """Print a table: as wide as the terminal, and of any width where it is read by programs."""
    import shutil

    text = table.text(shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None)
    if text:
        print_text(text)


def print_text(text: object, *, err: bool = False) -> None:
    """Print what others wrote, like messages of errors: nothing in it does something to the terminal."""
    from exca_like.tables import printable

    typer.echo(printable(str(text)), err=err)


def print_json(data: Any) -> None:
    """Print data for programs. JSON has no NaN and no infinity: they are texts, as null is None."""
    import orjson

    data = _finite(data)
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    try:
        text = orjson.dumps(data, default=str, option=options).decode()
    except TypeError:  # numbers of more than 64 bits, texts that are no Unicode
        import json

        text = json.dumps(data, default=str, indent=2)
    typer.echo(text)


def _finite(data: Any) -> Any:
    """Data whose numbers are all finite, with the texts NaN, Infinity and -Infinity for others."""
    if isinstance(data, float):
        return data if math.isfinite(data) else "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list) or type(data) is tuple:
        return [_finite(value) for value in data]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(data, numpy.ndarray | numpy.generic) and data.dtype.kind == "f":
        return data if numpy.isfinite(data).all() else _finite(data.tolist())
    return data
