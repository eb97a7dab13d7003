"""``export``, ``import``, ``push``, ``pull``: results that go to other machines, and come from there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exca_like.cli.options import (
    Before,
    Config,
    Folder,
    Json,
    Method,
    Since,
    check_is_no_part,
    chosen,
    field_of,
    print_json,
    print_text,
    right_root,
    root_of,
    selected,
    wanted,
    wrong_input,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exca_like.catalog import Catalog
    from exca_like.entries import Entry
    from exca_like.sharing import Transfer
    from exca_like.sharing.receiving import Choice

_SHOWN = 5

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
SomeUids = Annotated[
    list[str] | None, typer.Option("--uid", "-u", help="Only this entry, of whose uid a clear part is enough; can be repeated.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", metavar="KEY=VALUE", help="For fsspec, like endpoint_url=http://localhost:9000; can be repeated."
    ),
]


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 < mode <= 0o777:
        msg = f"{text} is no mode in octal, like 770"
        raise typer.BadParameter(msg)
    return mode


Permissions = Annotated[
    int | None,
    typer.Option("--permissions", metavar="MODE", parser=_octal, help="Mode of new files, like 770; else as the umask says."),
]
Url = Annotated[str, typer.Argument(help="A folder, or a URL like s3://bucket/folder.", show_default=False)]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file, a zip archive.", show_default=False)]


def export(
    bundle: BundlePath,
    folder: Folder = None,
    uid: SomeUids = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write results with their provenance to one file, for `import`; errors are left out."""
    from exca_like import sharing

    some = selected(chosen(folder, method, None, since, before, where), uid)
    done = sharing.export_bundle(some, bundle, dry_run=dry_run)
    _tell_of_yamls(done)
    _report(done, dry_run=dry_run, json=json)


def import_(
    bundle: BundlePath,
    folder: Folder = None,
    uid: SomeUids = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    permissions: Permissions = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take in the results of a bundle; what is there already stays. Import only what comes from people you trust."""
    from exca_like import sharing

    choose = _choice(uid, method, since, before, where)
    place = root_of(folder)
    check_is_no_part(place)
    with right_root("BUNDLE"):
        done = sharing.import_bundle(bundle, place, choose=choose, dry_run=dry_run, permissions=permissions)
    _report(done, dry_run=dry_run, json=json)


def push(
    url: Url,
    folder: Folder = None,
    uid: SomeUids = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    option: Options = None,
    check: Annotated[bool, typer.Option(help="Read back what was sent, and compare it.")] = True,
    permissions: Permissions = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Send results that are missing there to a folder or an object store; repeat it to go on."""
    from exca_like import sharing

    options = _options(url, option, permissions)
    some = selected(chosen(folder, method, None, since, before, where), uid)
    with right_root("URL"):
        done = sharing.push(some, url, options=options, check=check, dry_run=dry_run, permissions=permissions)
    _tell_of_yamls(done)
    _report(done, dry_run=dry_run, json=json)


def pull(
    url: Url,
    folder: Folder = None,
    uid: SomeUids = None,
    method: Method = None,
    since: Since = None,
    before: Before = None,
    where: Config = None,
    option: Options = None,
    permissions: Permissions = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take results that are missing here from where `push` sent them, or from any cache root; repeat it to go on."""
    from exca_like import sharing

    choose = _choice(uid, method, since, before, where)
    place = root_of(folder)
    check_is_no_part(place)
    options = _options(url, option)
    with right_root("URL"):
        done = sharing.pull(url, place, choose=choose, options=options, dry_run=dry_run, permissions=permissions)
    _report(done, dry_run=dry_run, json=json)


def _choice(
    uids: list[str] | None, method: str | None, since: str | None, before: str | None, where: list[str] | None
) -> "Choice | None":
    """What options say is wanted of a place; None for all."""
    if not any((uids, method, since, before, where)):
        return None
    config = wanted(where)

    def choose(there: "Catalog") -> "Sequence[Entry]":
        some = there.filter(method, since=since, before=before, config=config, strict=True)
        return some.named(uids) if uids else some  # of which no more is fetched than it takes

    return choose


def _options(url: str, given: list[str] | None, permissions: int | None = None) -> dict[str, Any]:
    """The options of an address, which are such as it takes."""
    from exca_like.sharing.places import place_at

    options = dict(map(field_of, given or ()))
    with wrong_input():
        place_at(url, options, permissions)  # which looks at nothing there
    return options


def _tell_of_yamls(done: "Transfer") -> None:
    """Say of which folders yaml files are wrong, and so are not sent."""
    from exca_like import tables

    wrong = [folder.uid for folder in done.folders if folder.has_wrong_yamls]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        number = tables.count(len(wrong), "folder")
        were = "would be" if done.dry_run else "were"
        named = f"{', '.join(wrong[:_SHOWN])}{more}"
        print_text(
            f"yaml files of {number} {were} not sent, as they are wrong: {named}. `exca-like verify` tells how", err=True
        )


def _report(done: "Transfer", *, dry_run: bool, json: bool) -> None:
    """Show what was moved; ends with 1 if something that was asked for is not at the other side."""
    if json:
        about = {name: getattr(done, name) for name in ("added", "present", "different", "left_out", "files", "size")}
        print_json({"dry_run": dry_run, **about, "folders": [vars(folder) for folder in done.folders]})
    else:
        print_text(f"{done}\nnothing was moved: this is the plan" if dry_run else str(done))
    raise typer.Exit(0 if done.is_complete else 1)
