"""Python code as Jupyter notebooks."""

from typing import Any

import orjson

from exca_like.errors import ConfigTypeError

# how a cell was given: as one text, as lines without their ends, or as lines with them
_TEXT, _LINES, _ENDED = "tle"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Notebook:
    """A list of cells of Python code as a notebook, in an ``.ipynb`` file (nbformat 4.5) that Jupyter opens.

    A cell is a text, or a list of lines. It comes back as it was given.

    Raises
    ------
    ConfigTypeError
        It is no such list, or a line of it has ends of lines inside.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if type(value) is not list:
            msg = f"Notebook stores a list of cells, each of them a text or a list of lines, not a {type(value).__name__}"
            raise ConfigTypeError(msg)
        kinds = "".join(_kind_of(number, cell) for number, cell in enumerate(value))
        cells = [_cell(number, _text_of(cell, kind)) for number, (cell, kind) in enumerate(zip(value, kinds, strict=True))]
        content = {"cells": cells, "metadata": _METADATA, "nbformat": 4, "nbformat_minor": 5}
        try:
            data = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        except TypeError as error:  # lone surrogates
            msg = f"the cells of a notebook must be valid Unicode: {error}"
            raise ConfigTypeError(msg) from error
        name: str = ctx.key_path(".ipynb")
        (ctx.folder / name).write_bytes(data)
        return {"filename": name, "cells": kinds}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, cells: str | None = None) -> list[str | list[str]]:
        with open(ctx.path(filename), "rb") as stream:
            texts = [
                source if isinstance(source, str) else "".join(source)
                for cell in orjson.loads(stream.read())["cells"]
                if cell["cell_type"] == "code"
                for source in [cell["source"]]
            ]
        kinds = _LINES * len(texts) if cells is None else cells  # notebooks of others say nothing of it
        return [_given(text, kind) for text, kind in zip(texts, kinds, strict=True)]


def _kind_of(number: int, cell: Any) -> str:
    if type(cell) is str:
        return _TEXT
    if type(cell) is list and all(type(line) is str for line in cell):
        for kind in (_LINES, _ENDED):
            if _given(_text_of(cell, kind), kind) == cell:
                return kind
        why = "has ends of lines inside of its lines: give each line by itself, or the cell as one text"
    else:
        why = f"is a {type(cell).__name__}: give a text, or a list of lines"
    msg = f"cell {number} of a notebook {why}"
    raise ConfigTypeError(msg)


def _text_of(cell: str | list[str], kind: str) -> str:
    return ("\n" if kind == _LINES else "").join(cell)


def _given(text: str, kind: str) -> str | list[str]:
    if kind == _TEXT:
        return text
    return text.split("\n") if kind == _LINES else _with_ends(text)


def _with_ends(text: str) -> list[str]:
    *ended, last = text.split("\n")  # `str.splitlines` knows more ends of lines than notebooks do
    return [f"{line}\n" for line in ended] + ([last] if last else [])


def _cell(number: int, text: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": f"cell-{number}",
        "metadata": {},
        "outputs": [],
        "source": _with_ends(text),
    }


HANDLERS = {"Notebook": Notebook}
TYPE_DEFAULTS: dict[type, Any] = {}
