"""Syntax trees as text that comments, docstrings, formatting and the version of Python make no difference to."""

import ast
from collections.abc import Iterable

# what says nothing about behaviour: how a name is used is clear from its place, and a string's prefix is formatting
_IGNORED = frozenset(("ctx", "kind", "type_comment", "type_ignores"))
_Text = list[str]


def text_of(nodes: Iterable[ast.AST]) -> str:
    """The normal text of some nodes, one after the other."""
    parts: _Text = []
    for node in nodes:
        _node(node, parts)
    return "".join(parts)


def says_nothing(node: object) -> bool:
    """Whether a statement does nothing: a docstring, one of an attribute, ``...``, ``pass``."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _node(node: ast.AST, parts: _Text) -> None:
    parts.append(f"{type(node).__name__}(")
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in _IGNORED:  # other versions of Python have other fields
            if value is None and isinstance(node, ast.Constant) and name == "value":
                parts.append("None")
            continue
        if isinstance(node, ast.JoinedStr):
            value = _merged(value)
        parts.append(f"{name}=")
        _value(value, parts)
        parts.append(",")
    parts.append(")")


def _value(value: object, parts: _Text) -> None:
    if isinstance(value, ast.AST):
        _node(value, parts)
    elif isinstance(value, list):
        parts.append("[")
        for item in value:
            if isinstance(item, ast.AST):
                if says_nothing(item):
                    continue
                _node(item, parts)
            else:  # a name, or the missing key of a `**` in a dictionary
                parts.append(repr(item))
            parts.append(",")
        parts.append("]")
    else:
        parts.append(repr(value))


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, with texts that follow each other taken together."""
    merged: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and not value.value:  # some versions of Python have them
            continue
        last = merged[-1] if merged else None
        if isinstance(value, ast.Constant) and isinstance(last, ast.Constant):
            merged[-1] = ast.Constant(str(last.value) + str(value.value))
        else:
            merged.append(value)
    return merged
