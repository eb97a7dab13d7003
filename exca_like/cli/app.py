"""All commands, and how they end."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer

from exca_like import __version__
from exca_like.cli import again, clean, find, logs, look, settings, share, upkeep, words
from exca_like.cli.grouping import CommandGroup
from exca_like.cli.options import hinted, print_text
from exca_like.cli.reasons import why
from exca_like.cli.run import run as run_config
from exca_like.cli.starting import init
from exca_like.cli.wording import in_shell

_EPILOG = "Each command has its own --help. The folder is given with --folder, or as EXCA_LIKE_FOLDER."

_GIVEN = "exca_like.given"
_EXTRA = re.compile(r"Got unexpected extra argument\S* \((?P<words>.*)\)", re.DOTALL)
_FIELD = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)


class _Commands(CommandGroup):
    """All commands, and what is said of options that are not taken."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = ctx.meta[_GIVEN] = list(args)
        with hinted(ctx, lambda option: self._after_command(option, given)):
            return super().parse_args(ctx, args)

    def _after_command(self, option: str, given: list[str]) -> str | None:
        """How an option is written that was given before its command; None if that does not take it."""
        import shlex

        name = next((word for word in given if word in self.commands), None)
        if name is None or not any(option in one.opts for one in self.commands[name].params):
            return None
        given.remove(name)
        return f"options come after the command: exca-like {name} {shlex.join(given)}"

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # of pydantic, by which some typer checks options
            raise
        except Exception as error:
            extra = _EXTRA.fullmatch(str(getattr(error, "message", "")))
            if extra is not None:
                said: Any = error  # its place depends on the version of typer
                not_taken = _words_in(extra["words"], ctx.meta[_GIVEN])
                said.message += "".join(f"; {hint}" for hint in _as_options(not_taken, said.ctx))
            raise


def _words_in(text: str, given: Sequence[str]) -> Iterator[str]:
    """The words of a command line that a message names, one after another."""
    for word in given:
        if f"{text} ".startswith(f"{word} "):
            text = text[len(word) + 1 :]
            yield word


def _as_options(words: Iterable[str], ctx: Any) -> Iterator[str]:
    """How words are written that a command does not take, if they are fields or folders for which it has an option."""
    import shlex

    options = {option for parameter in ctx.command.params for option in parameter.opts}
    fields, folders = [], []
    for word in words:
        if _FIELD.fullmatch(word):
            fields.append(word)
        elif os.path.isdir(os.path.expanduser(word)):
            folders.append(word)
    for option, what, some in (("--where", "a field is", fields), ("--folder", "the cache root is", folders[:1])):
        if some and option in options:
            yield f"{what} given as {' '.join(f'{option} {shlex.quote(word)}' for word in some)}"


app = typer.Typer(
    cls=_Commands,
    help="Compute configs, look at what is stored of them, and take care of it.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Compute": (init, run_config, again.retry, clean.cancel),
    "Look": (find.ls, look.show, why, look.status, logs.logs, find.failures, find.stats, find.du),
    "Compare": (find.table, look.diff),
    "Clean": (clean.pin, clean.unpin, clean.rm, clean.prune),
    "Check and repair": (upkeep.verify, upkeep.compact, upkeep.migrate),
    "Share": (share.push, share.pull, share.export, share.import_),
}
for heading, commands in _COMMANDS.items():
    for command in commands:
        with_fields = words.FieldsCommand if command in (run_config, why) else None
        app.command(command.__name__.strip("_"), cls=with_fields, rich_help_panel=heading)(command)
app.add_typer(settings.app, name="settings", rich_help_panel="Set up")


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,  # noqa: ARG001 - typer asks for it
    version: Annotated[bool, typer.Option("--version", help="Show the version, and end.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns how it ended, see `exca_like.cli.main`."""
    from exca_like.errors import ExcaLikeError

    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app(list(arguments), prog_name="exca-like")
    except SystemExit as end:
        if isinstance(end.code, str):  # of the user's code
            print_text(end.code, err=True)
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _drop_output()
        print_text(f"error: {_said(error)}", err=True)
        return 1
    except (ExcaLikeError, ImportError) as error:
        print_text(f"error: {in_shell(error)}", err=True)
        return 1
    return 0


def _drop_output() -> None:
    """Let go of what could not be printed, if there is any: Python would try again at its end, and complain."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _said(error: OSError) -> str:
    """What an error says, without its number."""
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


def _show_warning(message: Warning | str, *_: Any) -> None:
    print_text(f"warning: {in_shell(message)}", err=True)
