"""All commands, and how they end."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click
import typer

from exca_like import __version__
from exca_like.cli import find, logs, look, upkeep

_EPILOG = "Each command has its own --help. The folder is given with --folder, or as EXCA_LIKE_FOLDER."

app = typer.Typer(
    help="Look at what is stored in a cache, and take care of it.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for command in (find.ls, look.show, look.status, logs.logs, look.diff, find.table, find.du):
    app.command()(command)
for command in (upkeep.verify, upkeep.compact, upkeep.migrate, look.settings):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,  # noqa: ARG001 - typer asks for it
    version: bool = typer.Option(False, "--version", help="Show the version, and end."),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns how it ended, see `exca_like.cli.main`."""
    from exca_like.errors import ExcaLikeError

    warnings.showwarning = _show_warning
    command: Any = typer.main.get_command(app)
    try:
        ended = command.main(list(arguments), prog_name="exca-like", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # who reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ExcaLikeError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    return ended if isinstance(ended, int) else 0


def _show_warning(message: Any, *_: Any) -> None:
    typer.echo(f"warning: {message}", err=True)
