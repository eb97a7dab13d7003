"""``init``: the start of a project."""

from pathlib import Path
from typing import Annotated

import typer

from exca_like.cli.options import Json, print_json


def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the project.")] = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
    json: Json = False,
) -> None:
    """Write a small experiment and a file of settings to begin with; nothing is overwritten."""
    from exca_like import projects

    done = projects.init(folder, dry_run=dry_run)
    written = "would be written" if dry_run else "written"
    if json:
        print_json({str(path): written if is_new else "there already" for path, is_new in done.items()})
        return
    for path, is_new in done.items():
        typer.echo(f"{path}: {written if is_new else 'is there already, and stays as it is'}")
    if dry_run:
        return
    where = "" if folder == Path() else f"cd {folder}; "
    typer.echo(f"to go on: {where}exca-like run experiment:Train lr=0.1,0.2,0.3 'seed=range(2)', then exca-like table")
