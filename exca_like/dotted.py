r"""Dotted keys of configs.

``optim.lr`` is the key ``lr`` in what the key ``optim`` holds. A dot that is part of a key is written ``\.``: the dictionary
``{"train.csv": 1}`` in the field ``sizes`` has the dotted key ``sizes.train\.csv``.
"""

import re
from typing import Any

from exca_like.errors import ConfigTypeError, ConfigValueError

_SEPARATOR = re.compile(r"(?<!\\)\.")


def split(key: object) -> list[str]:
    """The keys that a dotted one is made of.

    Raises
    ------
    TypeError
        It is no text.
    ValueError
        One of them is empty.
    """
    if not isinstance(key, str):
        msg = f"config keys are strings, not {type(key).__name__} ({key!r})"
        raise ConfigTypeError(msg)
    found = parts(key)
    if len(found) > 1 and "" in found:
        msg = f"config key {key!r} has an empty segment between its dots; a dot that is part of a key is written \\."
        raise ConfigValueError(msg)
    return found


def parts(key: str) -> list[str]:
    """As `split`, of a text that may have empty parts."""
    return key.split(".") if "\\" not in key else [part.replace("\\.", ".") for part in _SEPARATOR.split(key)]


def escape(key: str) -> str:
    """A key as part of a dotted one."""
    return key.replace(".", "\\.") if "." in key else key


def can_join(above: str, below: str) -> bool:
    """Whether two keys make a dotted one, which can be split again."""
    return bool(above and below) and above[-1] != "\\"


def find_path(node: Any, keys: list[str]) -> list[str] | None:
    """The path that some keys take in a container, of which several may be one key with dots; None if it is not there."""
    if not keys:
        return []
    if isinstance(node, list | tuple):
        is_there = keys[0].isascii() and keys[0].isdigit() and int(keys[0]) < len(node)
        rest = find_path(node[int(keys[0])], keys[1:]) if is_there else None
        return None if rest is None else [keys[0], *rest]
    for end in range(1, len(keys) + 1) if isinstance(node, dict) else ():
        name = ".".join(keys[:end])
        if name in node.keys():  # noqa: SIM118 - `in node` would split it again
            rest = find_path(dict.__getitem__(node, name), keys[end:])
            if rest is not None:
                return [name, *rest]
    return None
