"""``verify``, ``compact``, ``migrate``: care of what is stored."""

from pathlib import Path
from typing import Annotated

import typer

from exca_like.cli.options import Folder, Json, Yes, catalog_of, print_json, print_text


def verify(
    folder: Folder = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is damaged; it is lost either way. Needs --yes.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Read every stored byte, and compare it with its checksum; ends with 3 if something is wrong."""
    from exca_like import maintenance

    report = maintenance.verify(catalog_of(folder).folder, repair=repair and yes)
    if json:
        problems, removed = ([vars(problem) for problem in some] for some in (report.problems, report.repaired))
        about = {"folders": report.folders, "entries": report.entries, "repaired": len(removed)}
        print_json({**about, "problems": problems, "removed": removed})
    else:
        print_text(report)
        if repair and not yes and report.problems:
            print_text("nothing was changed: repeat with --yes to remove what is damaged")
    raise typer.Exit(0 if report.is_clean else 3)


def compact(folder: Folder = None, yes: Yes = False, json: Json = False) -> None:
    """Merge the files of writers that are gone, and free the space of what was deleted; safe beside readers and writers.

    Folders in which something is damaged stay as they are; ends with 1 if there are such.
    """
    from exca_like import maintenance, tables
    from exca_like.cachedict.compact import is_worth_compacting

    catalog = catalog_of(folder)
    if not yes:
        number = sum(map(is_worth_compacting, {entry.path for entry in catalog}))
        if json:
            print_json({"folders": number, "files": None, "bytes": None})
        elif number:
            folders = tables.count(number, "folder")
            print_text(f"would merge files in {folders} of {catalog.folder}: repeat with --yes to do it")
        else:
            print_text(f"nothing is to be merged in {catalog.folder}")
        return
    done = maintenance.compact(catalog.folder)
    before, after = sum(one.bytes_before for one in done), sum(one.bytes_after for one in done)
    files = sum(one.files_before for one in done), sum(one.files_after for one in done)
    damaged = sum(one.is_damaged for one in done)
    if json:
        print_json({"folders": len(done), "files": files, "bytes": (before, after), "damaged": damaged})
    else:
        folders, merged = tables.count(len(done), "folder"), f"of {tables.count(files[0], 'file')} {files[1]} are left"
        print_text(f"{folders}: {merged}, of {tables.size(before)} {tables.size(after)}")
    if damaged:
        left = (
            "1 folder is left as it is, as something in it is"
            if damaged == 1
            else f"{damaged} folders are left as they are, as something in them is"
        )
        print_text(f"{left} damaged: `exca-like verify` tells what, `exca-like verify --repair` removes it", err=True)
        raise typer.Exit(1)


def migrate(
    folder: Annotated[Path, typer.Argument(help="The cache root that exca wrote.", show_default=False)],
    main_name: Annotated[
        str | None, typer.Option(help="The script (train for train.py) whose results are under __main__.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Rename folders that exca wrote, so that their results are found."""
    from exca_like import maintenance, tables

    folder = folder.absolute()
    renamings = maintenance.migrate_exca(folder, dry_run=not yes, main_name=main_name)
    if json:
        print_json([{"old": str(one.old), "new": str(one.new), "problem": one.problem} for one in renamings])
        return
    for one in renamings:
        print_text(f"{one.old.relative_to(folder)}: {one.problem or f'-> {one.new.name}'}")
    folders = tables.count(sum(one.problem is None for one in renamings), "folder")
    print_text(f"{folders} renamed" if yes else f"{folders} would be renamed: repeat with --yes to do it")
