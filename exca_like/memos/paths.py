"""Where the results of a memoised function are kept."""

import os
import re
import string
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from exca_like import content, layout, sources, uid
from exca_like.errors import InfraValueError

_PROJECT_SIGNS = ("pyproject.toml", ".git")
_DEFAULT_FOLDER = ".exca_like"
_GITIGNORE = b"# made by exca_like: results are kept out of git\n*\n"

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.+=-]{0,59}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+-]+")
# texts that could be taken for another value
_WORDS = frozenset(("none", "true", "false", "nan", "inf"))
OWN_FIELDS = ("function", "uid")


class Template:
    """A path below the folder, with names of parameters in braces, ``{function}`` and ``{uid}``.

    Raises
    ------
    ValueError
        It names something else, or leads out of the folder.
    """

    def __init__(self, text: str, parameters: Iterable[str], option: str = "path") -> None:
        names = (*OWN_FIELDS, *parameters)
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            msg = f"{option}={text!r} is malformed: {error}"
            raise InfraValueError(msg) from None
        if any(form or conversion for _, _, form, conversion in pieces):
            msg = f"{option}={text!r} says how a value is to be formatted, which paths can't: write names alone in braces"
            raise InfraValueError(msg)
        self._pieces = [piece[:2] for piece in pieces]
        for _, name in self._pieces:
            if name is not None and name not in names:
                msg = f"{option}={text!r} has {{{name}}}, which is none of {', '.join(names)}"
                raise InfraValueError(msg)
        check_folder_name(option, self.filled(dict.fromkeys(names, "x")), text)
        self.text = text

    @property
    def fields(self) -> list[str]:
        """The names in braces."""
        return [name for _, name in self._pieces if name is not None]

    def filled(self, texts: Mapping[str, str]) -> str:
        """The path, with a text for each name."""
        return "".join(before + (texts[name] if name is not None else "") for before, name in self._pieces)


def check_folder_name(option: str, name: str, shown: str) -> None:
    """Raise for what is no path below a folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part or part != part.strip() or part.startswith("~") for part in parts):
        msg = (
            f"{option}={shown!r} must be a path below the folder of results, like 'features' or '{{dataset}}/{{uid}}': "
            "without '..', empty parts, or a '/' at either end"
        )
        raise InfraValueError(msg)


def text_of(value: Any) -> str:
    """A part of a path for a value: readable, safe, and another one for another value."""
    kind = type(value)
    if kind is str and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return str(value)
    if value is None or kind is bool or (kind is int and abs(value) < 10**30):
        return str(value)
    if kind is float:
        return repr(value)
    readable = _UNSAFE.sub("", uid.text_of(value) if kind is str else f"{kind.__name__}")[:40].strip(".-")
    return f"{readable}-{content.digest(value)[:6].hex()}".lstrip("-")


def default_root() -> str:
    """Where results are kept if no folder is given.

    What the setting ``memo_folder`` says, else ``.exca_like`` in the folder of the project: the nearest one above the current
    folder that has a ``pyproject.toml`` or is of git; the current folder, if there is none.
    """
    chosen = sources.tool_setting("memo_folder")
    if chosen is not None:
        return layout.absolute(chosen)
    current = folder = layout.origin()
    last = ""
    while folder != last:
        if any(os.path.exists(f"{folder}/{sign}") for sign in _PROJECT_SIGNS):
            return f"{folder.rstrip('/')}/{_DEFAULT_FOLDER}"
        folder, last = os.path.dirname(folder), folder
    return f"{current.rstrip('/')}/{_DEFAULT_FOLDER}"


def script_name(root: str) -> str | None:
    """The script that this process runs, by its place in the project of a default folder; None if it is not there."""
    main: Any = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or os.path.basename(root) != _DEFAULT_FOLDER or getattr(main, "__spec__", None) is not None:
        return None
    path = os.path.relpath(os.path.abspath(file), os.path.dirname(root))
    return None if path.startswith("..") else os.path.splitext(path)[0].replace(os.sep, ".")


def ready_root(root: str) -> None:
    """Create a default folder at its first use, unseen by git."""
    if os.path.basename(root) == _DEFAULT_FOLDER and not os.path.isdir(root):
        os.makedirs(root, exist_ok=True)
        with open(f"{root}/.gitignore", "wb") as stream:
            stream.write(_GITIGNORE)
