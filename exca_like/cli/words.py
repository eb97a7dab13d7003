"""What is written on a command line for a config: ``optim.lr=1e-3``, values of sweeps, ``@base.yaml``."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand

from exca_like.cli.options import field_of, hinted, print_text, split, value_of

_RANGE = re.compile(r"range\(\s*(-?\d+(?:\s*,\s*-?\d+){0,2})\s*\)")
_ZIP = re.compile(r"zip\(([^()]+)\)")


class FieldsCommand(TyperCommand):
    """A command that takes fields: who writes them as options is told how they are written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        with hinted(ctx, lambda option: _without_dashes(option, given)):
            return super().parse_args(ctx, args)


def _without_dashes(option: str, given: list[str]) -> str | None:
    """How a field is written that was given as an option; None if it has no value."""
    if not option.startswith("--"):
        return None
    values = [word.partition("=")[2] for word in given if word.startswith(f"{option}=")]
    if option in given:
        values += [word for word in given[given.index(option) + 1 :][:1] if not word.startswith("--") and "=" not in word]
    return f"fields have no dashes: write {option[2:].replace('-', '_')}={values[0]}" if values else None


class Words(NamedTuple):
    """What a command line says of a config."""

    single: list[dict[str, Any]]
    """What files say, and then fields with one value; later ones count."""
    grid: dict[str, list[Any]]
    """Fields with several values."""
    zips: list[tuple[str, ...]]
    """Fields whose values go together."""
    texts: dict[str, list[str]]
    """All values as they were written, without quotes."""


def read(words: list[str]) -> Words:
    """Take a command line apart; later words win over earlier ones, and over files.

    Raises
    ------
    typer.BadParameter
        A word is not understood, or a file can't be read.
    """
    found = Words([_file(word[1:]) for word in words if word.startswith("@")], {}, [], {})
    for word in words:
        if word.startswith("@"):
            continue
        name, sign, text = word.partition("=")
        if name.strip() in found.texts:
            print_text(f"{name.strip()} is given twice: {word} counts", err=True)
        if not sign or not name.strip():
            msg = f"{word!r} is neither FIELD=VALUE, like optim.lr=0.1, nor @FILE.yaml"
            raise typer.BadParameter(msg)
        together = _ZIP.fullmatch(name.strip())
        if together is not None:
            names = tuple(one.strip() for one in together[1].split(","))
            for one, column in zip(names, _columns(word, text, len(names)), strict=True):
                found.grid[one] = [value_of(part) for part in column]
                found.texts[one] = list(map(_unquoted, column))
            found.zips.append(names)
            continue
        values = values_of(text)
        if values is None:
            found.single.append({name.strip(): field_of(word)[1]})
            found.texts[name.strip()] = [_unquoted(text)]
            found.grid.pop(name.strip(), None)
        else:
            found.grid[name.strip()] = values
            found.texts[name.strip()] = list(map(_unquoted, split(text)))
    return found


def values_of(text: str) -> list[Any] | None:
    """The values of ``1,2,3`` or ``range(5)``; None for a single value, which ``[1,2,3]`` and ``"a,b"`` are."""
    numbers = _RANGE.fullmatch(text.strip())
    if numbers is not None:
        bounds = [int(one) for one in numbers[1].split(",")]
        found = list(range(*bounds)) if len(bounds) < 3 or bounds[2] else []
        if not found:
            msg = f"{text.strip()} has no numbers in it"
            raise typer.BadParameter(msg)
        return found
    if text.strip().startswith("range(") and text.strip().endswith(")"):
        msg = f"{text.strip()}: range takes one to three whole numbers; write others like 0.1,0.2,0.3, and a text in quotes"
        raise typer.BadParameter(msg)
    parts = split(text)
    _check_none_empty(text, parts)
    return None if len(parts) == 1 else [value_of(part) for part in parts]


def _check_none_empty(text: str, parts: list[str]) -> None:
    """Raise if there is nothing before or after a comma: it would be a None that nobody has meant."""
    if len(parts) > 1 and not all(map(str.strip, parts)):
        msg = f"{text!r} has nothing before or after a comma: write None for no value, '' for an empty text, or no comma"
        raise typer.BadParameter(msg)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _columns(word: str, text: str, number: int) -> list[list[str]]:
    """What is written for each field of ``zip(a,b)=(1,x),(2,y)``."""
    rows = []
    for part in map(str.strip, split(text)):
        row = split(part[1:-1]) if part[:1] == "(" and part[-1:] == ")" else []
        if len(row) != number:
            msg = f"{word!r}: give {number} values in brackets for each config, like zip(a,b)=(1,x),(2,y), not {part!r}"
            raise typer.BadParameter(msg)
        _check_none_empty(part, row)
        rows.append([one.strip() for one in row])
    return [list(column) for column in zip(*rows, strict=True)]


def _file(name: str) -> dict[str, Any]:
    from exca_like.confdict import ConfDict
    from exca_like.errors import ExcaLikeError

    try:
        return ConfDict.from_yaml(Path(name))
    except (OSError, ExcaLikeError) as error:
        msg = f"@{name}: {error}"
        raise typer.BadParameter(msg) from None
