"""``why``: what a call would find, and why."""

from typing import Annotated, Any

import typer

from exca_like.cli import words
from exca_like.cli.options import (
    Folder,
    Json,
    catalog_of,
    check_is_no_part,
    import_from_here,
    is_said,
    print_json,
    print_text,
    usual_root,
)
from exca_like.cli.run import infra_of, made, target_of
from exca_like.cli.wording import in_shell


def why(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="UID|MODULE:CLASS[.METHOD]", help="An entry, or the class of a config.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIELD=VALUE|@FILE.yaml", help="Values of the fields of the class, as for run."),
    ] = None,
    folder: Folder = None,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Of what is stored, tell what the files tell, and import no class.")
    ] = False,
    json: Json = False,
) -> None:
    """Say why a call would find a result, or would not: what has changed, the nearest config. Classes of tasks are imported."""
    if ":" in target:
        if no_import:
            msg = "a class can't be asked without importing it: give the uid of what is stored"
            raise typer.BadParameter(msg, param_hint="--no-import")
        explanation = _of_class(target, fields or [], folder, replaces=is_said(context, "folder"))
    else:
        explanation = _of_entry(target, fields or [], folder, no_import=no_import)
    if json:
        names = ("name", "stored", "now", "reason")
        data = {name: getattr(explanation, name) for name in ("status", "uid", "reason", "nearest")}
        data |= {
            name: [dict(zip(names, map(_plain, one), strict=True)) for one in getattr(explanation, name)]
            for name in ("differences", "excluded")
        }
        print_json(data | {"changes": [{"name": one.name, "how": one.how} for one in explanation.changes]})
    else:
        print_text(in_shell(explanation, explanation.uid, folder))


def _of_class(target: str, fields: list[str], folder: Any, *, replaces: bool) -> Any:
    cls, method = target_of(target)
    said = words.read(fields)
    if said.grid:
        msg = f"{', '.join(said.grid)}: give one value each, as one config is explained"
        raise typer.BadParameter(msg, param_hint="FIELD=VALUE")
    if folder is not None:
        check_is_no_part(folder)
    config = made(cls, said, folder, replaces=replaces)
    infra = getattr(config, name := infra_of(config, method))
    if folder is None and infra.folder is None and not infra.read_folders:
        root = usual_root()
        if root is not None:
            infra = getattr(made(cls, said, root, replaces=False), name)
        about = "give --folder" if infra.folder is None else f"this is of {root}, as for `exca-like ls`"
        print_text(f"{name} has no folder: {about}", err=True)
    return infra.explain()


def _of_entry(target: str, fields: list[str], folder: Any, *, no_import: bool) -> Any:
    from exca_like import rebuilding, stored
    from exca_like.errors import ExcaLikeError

    if fields:
        msg = (
            f"values of fields go with a class, like {target.partition('.')[0]}:Class {fields[0]}; a stored config has its own"
        )
        raise typer.BadParameter(msg, param_hint="FIELD=VALUE")
    catalog = catalog_of(folder)
    entry = catalog[target]
    if entry.kind == "task" and not no_import:
        import_from_here()
        try:
            return rebuilding.explain(entry)
        except (Exception, SystemExit) as error:  # what the files tell is better than nothing
            said = str(error) if isinstance(error, ExcaLikeError | ImportError) else f"{type(error).__name__}: {error}"
            print_text(f"what is in the code now can't be told: {said}", err=True)
    return stored.explain(entry, catalog)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
