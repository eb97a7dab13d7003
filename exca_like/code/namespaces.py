"""Which statements give the names of a module, a class or a function their values."""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from exca_like.code.references import Import, bound_in, imports_of

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_MAYBE = ast.Pass()  # the condition of what is tried
_ELSE = ast.Continue()  # comes before each statement for which a condition does not hold
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass
class Binding:
    """What a name stands for: all that gives it its value, or changes it in place."""

    statements: list[ast.AST] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    filled: list[ast.AST] = field(default_factory=list)
    """What decorators, and classes that are derived from, put into it: it makes no difference to these."""


class Namespace:
    """The names that some statements bind.

    Of statements that bind a name one after the other, the last counts, and what changes its value after that. What is
    under a condition counts with the condition, and what is under ``if __name__ == "__main__"`` only in the script that runs.
    """

    def __init__(self, statements: Iterable[ast.AST], *, is_script: bool = True) -> None:
        self.names: dict[str, Binding] = {}
        self.stars: list[Import] = []
        self._is_script = is_script
        statements = list(statements)
        self._definitions = {node.name: node for node in statements if isinstance(node, DEFINITIONS)}
        self._registrars: dict[str, set[str]] = {}
        self._add_all(statements, ())

    def __getitem__(self, name: str) -> Binding:
        return self.names[name]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def _binding(self, name: str) -> Binding:
        return self.names.setdefault(name, Binding())

    def _add_all(self, nodes: Iterable[ast.AST], conditions: Sequence[ast.AST]) -> None:
        for node in nodes:
            self._add(node, conditions)

    def _add(self, node: ast.AST, conditions: Sequence[ast.AST]) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, target in imports_of(node):
                if name == "*":
                    self.stars.append(target)
                    continue
                if not conditions:
                    self.names.pop(name, None)
                self._binding(name).imports.append(target)
        elif isinstance(node, ast.If):
            if _is_of_scripts(node.test) and not self._is_script:
                self._add_all(node.orelse, conditions)
                return
            self._bind(bound_in([node.test]), node.test, conditions)
            self._add_all(node.body, (*conditions, node.test))
            self._add_all(node.orelse, (*conditions, node.test, _ELSE))
        elif isinstance(node, ast.Try | ast.TryStar):
            for child in (*node.body, *(c for handler in node.handlers for c in handler.body), *node.orelse, *node.finalbody):
                self._add(child, (*conditions, _MAYBE))
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self._bind(bound_in([item]), item, conditions)
            for child in node.body:
                self._add(child, (*conditions, *node.items))
        elif isinstance(node, DEFINITIONS):
            self._bind([node.name], node, conditions, is_new=not _uses(node.decorator_list, node.name))
            for decorator in node.decorator_list:  # `@app.command` changes what app is
                self._add_call(decorator, node, conditions)
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                if isinstance(base, ast.Name):
                    self._fill(base.id, node, conditions)
        elif isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            names = bound_in(node.targets)
            for name in names:
                self._bind([name], node, conditions, is_new=not _uses([node.value], name))
        elif isinstance(node, ast.Expr):
            call = node.value.value if isinstance(node.value, ast.Await) else node.value
            if isinstance(call, ast.Call):
                self._add_call(call, node, conditions)
            self._bind(bound_in([node]), node, conditions)
        else:
            self._bind(bound_in([node]), node, conditions)
            for name, _ in _changed_in(node):
                self._change(name, node, conditions)

    def _bind(self, names: Iterable[str], node: ast.AST, conditions: Sequence[ast.AST], *, is_new: bool = False) -> None:
        for name in names:
            if is_new and not conditions:
                self.names.pop(name, None)
            statements = self._binding(name).statements
            statements += [one for one in conditions if one is _ELSE or one not in statements]
            statements.append(node)

    def _change(self, name: str, node: ast.AST, conditions: Sequence[ast.AST]) -> None:
        binding = self.names.get(name)
        if isinstance(node, ast.ClassDef):
            node = _mention_of(node)
        if binding is not None and binding.statements and node not in binding.statements:
            self._bind([name], node, conditions)

    def _add_call(self, function: ast.AST, node: ast.AST, conditions: Sequence[ast.AST]) -> None:
        """``name.method(...)`` may change what the name stands for, and ``function(...)`` what the function fills."""
        name, depth = _root_of(function)
        if depth:
            self._change(name, node, conditions)
        elif isinstance(self._definitions.get(name), ast.FunctionDef):
            self._fill(name, node, conditions)

    def _fill(self, by: str, node: ast.AST, conditions: Sequence[ast.AST]) -> None:
        """A function is called, or a class is derived from, that may fill registries with a definition."""
        if isinstance(node, DEFINITIONS) and self._definitions.get(node.name) is node:
            node = _mention_of(node)
        for name in self._filled_by(by):
            binding = self.names.get(name)
            if binding is not None and binding.statements and node not in binding.filled:
                binding.filled += [one for one in conditions if one is _ELSE or one not in binding.filled]
                binding.filled.append(node)

    def _filled_by(self, name: str) -> set[str]:
        """Names of the surroundings that a function changes, or that a class changes when it is derived from."""
        definition = self._definitions.get(name)
        if definition is None or name in self._registrars:
            return self._registrars.get(name, set())
        found = self._registrars[name] = set()  # a class that derives from itself is none
        if not isinstance(definition, ast.ClassDef):
            found |= changed_by(definition)
            return found
        for base in definition.bases:
            if isinstance(base, ast.Name):
                found |= self._filled_by(base.id)
        for hook in definition.body:
            if isinstance(hook, ast.FunctionDef) and hook.name == "__init_subclass__" and hook.args.args:
                found |= changed_by(hook)
                own = hook.args.args[0].arg
                if any(root == own and depth > 1 for root, depth in _changed_in(hook)):  # `cls.registry[...] = cls`
                    found.add(name)
        return found


def _mention_of(node: Definition) -> ast.AST:
    """What leads to a definition, which is a symbol of its own; one for each, which lives as long."""
    mention: ast.AST = node.__dict__.setdefault("mention", ast.Expr(ast.Name(node.name, ast.Load())))
    return mention


def changed_by(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names of the surroundings that a function binds, or whose values it changes in place."""
    own = bound_in(function.body) | {one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)}
    outer = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
    return outer | ({name for name, _ in _changed_in(function)} - own)


def _is_of_scripts(test: ast.AST) -> bool:
    """Whether a condition is ``__name__ == "__main__"``."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return False
    sides = [test.left, *test.comparators]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    return names == ["__name__"] and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)


def _uses(nodes: Iterable[ast.AST], name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for node in nodes for inner in ast.walk(node))


def _changed_in(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names whose values a node changes in place, by ``name[...] =``, ``name.attribute =``, ``name.method()``; and how deep."""
    for inner in ast.walk(node):
        target: ast.AST = inner
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call):
            target = inner.value
        elif not (isinstance(inner, ast.Attribute | ast.Subscript) and not isinstance(inner.ctx, ast.Load)):
            continue
        name, depth = _root_of(target)
        if name and depth:
            yield name, depth


def _root_of(node: ast.AST) -> tuple[str, int]:
    """The name that an expression begins with, and how many attributes and indices it takes; no name if there is none."""
    depth = 0
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        if not isinstance(node, ast.Call):
            node, depth = node.value, depth + 1
        elif depth and isinstance(node.func, ast.Name):  # what a function returns is something else
            return "", 0
        else:
            node = node.func
    return (node.id, depth) if isinstance(node, ast.Name) else ("", 0)


def find_definition(
    statements: Sequence[ast.AST], path: Sequence[str], is_it: Callable[[ast.AST], bool]
) -> list[Sequence[ast.AST]] | None:
    """The bodies that a nested definition is in, the innermost last; None if it is not there.

    Parameters
    ----------
    statements:
        Of a module, or of the outer definition.
    path:
        The names of the definitions on the way to it, with its own.
    is_it:
        Tells it from others of the same name.
    """
    name, *others = path
    for node in _definitions_in(statements):
        if isinstance(node, ast.Lambda) or node.name != name:
            if isinstance(node, ast.Lambda) and name == "<lambda>" and not others and is_it(node):
                return [statements, [node]]
            continue
        if not others:
            if is_it(node):
                return [statements, [node]]
            continue
        found = find_definition(node.body, others, is_it)
        if found is not None:
            return [statements, *found]
    return None


def _definitions_in(statements: Sequence[ast.AST]) -> Iterator[Definition | ast.Lambda]:
    left = list(reversed(statements))
    while left:
        node = left.pop()
        if isinstance(node, (*DEFINITIONS, ast.Lambda)):
            yield node
            if not isinstance(node, ast.Lambda):
                left += node.decorator_list
                if not isinstance(node, ast.ClassDef):
                    left += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            continue
        left += reversed(list(ast.iter_child_nodes(node)))
