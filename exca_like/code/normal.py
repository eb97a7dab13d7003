"""Syntax trees as text that comments, docstrings, formatting and the version of Python make no difference to."""

import ast
from collections.abc import Iterable

# what says nothing about behaviour: how a name is used is clear from its place, and a string's prefix is formatting
_IGNORED = frozenset(("ctx", "kind", "type_comment", "type_ignores"))
_ANNOTATIONS = frozenset(("annotation", "returns"))
_MAYBE_EMPTY = frozenset(("orelse", "finalbody"))  # blocks that can be left out, if they do nothing
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


def unquoted(annotation: ast.expr) -> ast.expr:
    """An annotation without the quotes that it may be written in, as a whole or in parts."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return unquoted(ast.parse(annotation.value.strip(), mode="eval").body)
        except (SyntaxError, ValueError):
            return annotation
    if isinstance(annotation, ast.List):  # of `Callable[["int"], str]`
        return ast.List(list(map(unquoted, annotation.elts)))
    if isinstance(annotation, ast.BinOp):
        return ast.BinOp(unquoted(annotation.left), annotation.op, unquoted(annotation.right))
    if not isinstance(annotation, ast.Subscript):
        return annotation
    name = getattr(annotation.value, "attr", getattr(annotation.value, "id", ""))
    inner = annotation.slice
    if name == "Literal":  # texts are values there
        return annotation
    if isinstance(inner, ast.Tuple):
        number = 1 if name == "Annotated" else len(inner.elts)
        inner = ast.Tuple([*map(unquoted, inner.elts[:number]), *inner.elts[number:]])
    else:
        inner = unquoted(inner)
    return ast.Subscript(annotation.value, inner)


def _node(node: ast.AST, parts: _Text) -> None:
    parts.append(f"{type(node).__name__}(")
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in _IGNORED:  # other versions of Python have other fields
            if value is None and isinstance(node, ast.Constant) and name == "value":
                parts.append("None")
            continue
        if name in _MAYBE_EMPTY and isinstance(value, list) and all(map(says_nothing, value)):
            continue
        if isinstance(node, ast.JoinedStr):
            value = _merged(value)
        elif name in _ANNOTATIONS and isinstance(value, ast.expr):
            value = unquoted(value)
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
