"""Cells of notebooks, and of other shells of IPython: what was run of them, as Python."""

import __future__

import ast
import functools
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from exca_like.code.compiled import codes_in, content_of, functions_in, is_another
from exca_like.code.references import bound_in
from exca_like.code.unwrap import unwrapped

# magics that run what is in their cell, so that its definitions are there afterwards
_RUN = frozenset(("time", "capture", "prun", "debug", "memit", "mprun", "lprun", "scalene", "pyinstrument"))
_MISSING = object()
_ALWAYS_BIND = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.Import, ast.ImportFrom)


class Run(NamedTuple):
    """What was run of some cells."""

    text: str
    not_run: tuple[str, ...]
    """Names that get their values by what was not run, so far."""


def run_of(cells: Iterable[Any], variables: Mapping[str, Any]) -> Run:
    """What was run of some cells, in order.

    A cell that is run again counts where it was run last. Which cells have failed is written down nowhere. But if a
    definition is not what its name stands for, though nothing gives that name another value later, neither it nor what is after
    it in its cell was run.
    """
    last: dict[str, tuple[str, list[ast.stmt]]] = {}
    for place, cell in enumerate(cells):
        text = _python(cell).strip() if isinstance(cell, str) else ""
        tree = _parsed(text)
        if tree is not None:
            key = f"{place}" if any(isinstance(node, ast.AugAssign) for node in tree.body) else text  # `+=` adds each time
            last.pop(key, None)
            last[key] = text, tree.body
    trees = list(last.values())
    changing = {name for text, body in trees if "global" in text for name in _declared_global(body)}
    parts: list[str] = []
    not_run: set[str] = set()
    later: set[str] = set()
    for text, body in reversed(trees):
        number, bound = _number_run(text, body, variables, later | changing)
        later |= bound
        not_run |= bound_in(body[number:])
        parts.append(_before(text, body[number]) if number < len(body) else text)
    return Run("\n".join(reversed(parts)), tuple(sorted(not_run)))


# magics


def _python(text: str) -> str:
    """A cell with the bodies of magics in place of the calls that IPython makes of them."""
    tree = _parsed(text)
    if tree is None:
        transform = getattr(sys.modules.get("IPython.core.inputtransformer2"), "TransformerManager", None)
        if transform is None:
            return text
        try:
            text = transform().transform_cell(text)
        except SyntaxError:
            return text
        tree = _parsed(text)
    if tree is None or "get_ipython" not in text:
        return text
    lines = text.split("\n")
    for node in reversed(tree.body):
        body = _run_by_magic(node)
        if body is not None:
            lines[node.lineno - 1 : node.end_lineno] = [_python(body)]
    return "\n".join(lines)


def _run_by_magic(node: ast.stmt) -> str | None:
    """The code of ``get_ipython().run_cell_magic("time", "", "code")``; None if it is something else."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)):
        return None
    words = [str(arg.value) for arg in node.value.args if isinstance(arg, ast.Constant)]
    how = node.value.func.attr
    if how == "run_cell_magic" and len(words) == 3 and words[0] in _RUN:
        return words[2]
    return words[1] if how == "run_line_magic" and len(words) == 2 and words[0] == "time" else None


@functools.lru_cache(4096)
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


# failures


def _declared_global(body: Iterable[ast.AST]) -> set[str]:
    return {name for node in body for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}


def _number_run(text: str, body: Sequence[ast.stmt], variables: Mapping[str, Any], others: set[str]) -> tuple[int, set[str]]:
    """How many statements of a cell were run for all that is known, and the names that these bind.

    Of ``others``, the values say nothing: they are bound again later.
    """
    number, bound = len(body), set[str]()
    for place in reversed(range(len(body))):
        node = body[place]
        names = bound_in([node])
        if not names <= bound | others and _is_not_run(text, node, names - bound - others, variables):
            number, bound = place, set()
        else:
            bound |= names
    return number, bound


def _is_not_run(text: str, node: ast.stmt, names: set[str], variables: Mapping[str, Any]) -> bool:
    """Whether a statement can't have given some names the values that they have."""
    if isinstance(node, _ALWAYS_BIND) and not names - {"*"} <= variables.keys():
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        found = unwrapped(variables[node.name])
        return found is not None and found.__code__.co_qualname == node.name and _is_of_another(found, text, node)
    if isinstance(node, ast.ClassDef):
        kind = variables[node.name]
        if not isinstance(kind, type) or (kind.__module__, kind.__qualname__) != ("__main__", node.name):
            return False
        return any(_is_of_another(function, text, node) for function in functions_in(vars(kind), "__main__"))
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return any(is_another(node.value.value, variables[name]) for name in names)
    return False


def _is_of_another(function: types.FunctionType, text: str, node: ast.stmt) -> bool:
    """Whether a definition has a function of this name, but another one."""
    code = function.__code__
    flags = code.co_flags & __future__.annotations.compiler_flag  # which a cell has from those before it
    known = _contents(text, node.lineno, flags).get(code.co_qualname)
    return known is not None and content_of(code) not in known


@functools.lru_cache(4096)
def _contents(text: str, line: int, flags: int) -> dict[str, list[Any]]:
    """What the functions of a statement do, by their qualified names."""
    tree = _parsed(text)
    assert tree is not None
    module = ast.Module([node for node in tree.body if node.lineno == line], [])
    found: dict[str, list[Any]] = {}
    for code in codes_in(compile(module, "<cell>", "exec", flags, dont_inherit=True)):
        found.setdefault(code.co_qualname, []).append(content_of(code))
    return found


def _before(text: str, node: ast.stmt) -> str:
    """The text before a statement."""
    lines = text.split("\n")
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    kept = lines[: first - 1]
    if node.col_offset and first == node.lineno:  # after a semicolon
        kept.append(lines[first - 1].encode()[: node.col_offset].decode())
    return "\n".join(kept)
