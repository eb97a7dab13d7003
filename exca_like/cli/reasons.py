"""``why``: what a call would find, and why."""

from typing import Annotated, Any

import typer

from exca_like.cli import words
from exca_like.cli.options import Folder, Json, catalog_of, import_from_here, print_json
from exca_like.cli.run import infra_of, made, target_of


def why(
    target: Annotated[
        str, typer.Argument(metavar="UID|MODULE:CLASS[.METHOD]", help="A task that is stored, or the class of a config.")
    ],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIELD=VALUE|@FILE.yaml]...", help="Values of the fields of the class, as for run."),
    ] = None,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Say why a call would find a result, or would not: what has changed, the nearest config. Classes are imported."""
    explain = _of_class if ":" in target else _of_entry
    explanation = explain(target, fields or [], folder)
    if json:
        names = ("name", "stored", "now", "reason")
        data = {name: getattr(explanation, name) for name in ("status", "uid", "reason", "nearest")}
        data |= {
            name: [dict(zip(names, map(_plain, one), strict=True)) for one in getattr(explanation, name)]
            for name in ("differences", "excluded")
        }
        print_json(data | {"changes": [{"name": one.name, "how": one.how} for one in explanation.changes]})
    else:
        typer.echo(str(explanation))


def _of_class(target: str, fields: list[str], folder: Any) -> Any:
    cls, method = target_of(target)
    said = words.read(fields)
    if said.grid:
        msg = f"{', '.join(said.grid)}: give one value each, as one config is explained"
        raise typer.BadParameter(msg, param_hint="FIELD=VALUE")
    config = made(cls, said)
    infra = getattr(config, infra_of(config, method))
    if infra.folder is None and folder is not None:
        infra.folder = folder
    return infra.explain()


def _of_entry(target: str, fields: list[str], folder: Any) -> Any:
    from exca_like.rebuilding import explain

    if fields:
        msg = (
            f"values of fields go with a class, like {target.partition('.')[0]}:Class {fields[0]}; a stored config has its own"
        )
        raise typer.BadParameter(msg, param_hint="FIELD=VALUE")
    import_from_here()
    return explain(catalog_of(folder)[target])


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
