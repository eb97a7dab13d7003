"""Large literals, like tables that a program has written into a module."""

import ast
import hashlib
from collections.abc import Sequence

LARGE = 100_000  # characters


def shorten_literals(tree: ast.Module, lines: Sequence[str]) -> None:
    """Put digests of their source in place of large literals that a module's constants are given.

    To walk a tree of so many nodes, again and again, takes seconds. So formatting and comments count in such a literal, unlike
    anywhere else.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            node.value = _shortened(node.value, lines)


def _shortened(node: ast.expr, lines: Sequence[str]) -> ast.expr:
    source = lines[node.lineno - 1 : node.end_lineno]
    if sum(map(len, source)) <= LARGE:
        return node
    if isinstance(node, ast.Call):  # `frozenset([...])`
        node.args = [_shortened(one, lines) for one in node.args]
        for keyword in node.keywords:
            keyword.value = _shortened(keyword.value, lines)
    elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict) and _is_plain(node):
        data = "\n".join(source).encode("utf-8", "surrogatepass")
        found = ast.copy_location(ast.Constant(hashlib.blake2b(data, digest_size=16).hexdigest()), node)
        # in a tuple: what is one constant would be compared with the value that the module has
        return ast.copy_location(ast.Tuple([found], ast.Load()), node)
    return node


def _is_plain(node: ast.AST | None) -> bool:
    """Whether an expression is made of constants alone."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(map(_is_plain, node.elts))
    if isinstance(node, ast.Dict):
        return all(map(_is_plain, node.keys)) and all(map(_is_plain, node.values))
    return isinstance(node, ast.UnaryOp) and _is_plain(node.operand)
