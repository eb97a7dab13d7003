"""``settings``, which shows them, and ``settings generate`` and ``set``, which write them."""

from typing import Annotated, Any

import typer

from exca_like.cli.grouping import CommandGroup
from exca_like.cli.options import Json, field_of, print_json, wrong_input

app = typer.Typer(cls=CommandGroup, invoke_without_command=True, help="Show the settings that hold here, or write them.")

Project = Annotated[
    bool, typer.Option("--project", help="In the nearest pyproject.toml, not in the user's file.", show_default=False)
]


@app.callback()
def settings(
    context: typer.Context,
    cluster: Annotated[str | None, typer.Option(help="local, slurm or auto.")] = None,
    json: Json = False,
) -> None:
    """Show what jobs ask for where infras don't say it, and where that is written."""
    if context.invoked_subcommand is not None:
        return
    from exca_like.settings import explain

    with wrong_input("--cluster"):
        found = explain(cluster=cluster)
    if json:
        print_json({name: {"value": one.value, "source": one.source} for name, one in found.items()})
    else:
        typer.echo(str(found))


@app.command()
def generate(project: Project = False) -> None:
    """Print a settings file with all settings, as comments that say what they mean."""
    from exca_like.settings_files import template

    typer.echo(template(project=project), nl=False)


@app.command("set")
def set_(
    values: Annotated[list[str], typer.Argument(metavar="NAME=VALUE", help="Settings, like mem_gb=16; NAME= takes one out.")],
    project: Project = False,
    cluster: Annotated[
        str | None, typer.Option(help="Only for this cluster: local, or the ClusterName of a Slurm.", metavar="NAME")
    ] = None,
    json: Json = False,
) -> None:
    """Set settings in the user's file, or the project's; comments in it stay."""
    from exca_like.settings_files import put

    given = dict(map(_setting_of, values))
    path = put(given, project=project, cluster=cluster)
    if json:
        print_json({"file": str(path), "settings": given})
        return
    for name, value in given.items():
        typer.echo(f"{path}: {name}" + (" is not set any more" if value is None else f" = {value!r}"))


def _setting_of(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``; that of a setting which is a text is one, whatever it looks like."""
    from exca_like.infra.task import TaskInfra

    name, value = field_of(text)
    field = TaskInfra.model_fields.get(name)
    is_text = name == "memo_folder" or (field is not None and field.annotation == (str | None))
    return name, text.partition("=")[2].strip() if is_text and value is not None and type(value) is not str else value
