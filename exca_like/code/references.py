"""What statements refer to: names of the surroundings, with the attributes that are taken from them, and imports.

Local variables are told from others as Python does it: a name that a function binds anywhere is its own.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from exca_like.code.normal import unquoted

_BY_NAME = frozenset(("getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller"))
_ANYTHING = frozenset(("eval", "exec", "globals", "locals", "vars", "__import__"))
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Import(NamedTuple):
    """A module, or a name in it: ``from ..module import name``, with as many dots as ``level``."""

    module: str
    level: int = 0
    name: str | None = None


class Reference(NamedTuple):
    """A name of the surroundings, or something imported, and the attributes that are taken from it."""

    root: str | Import
    attributes: tuple[str, ...] = ()


@dataclass
class References:
    """What some statements refer to."""

    found: set[Reference] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    """All names of attributes, of whatever."""
    is_dynamic: bool = False
    """Whether attributes may be taken by names that are computed."""


def references_of(nodes: Iterable[ast.AST]) -> References:
    """What some nodes refer to."""
    walk = _Walk()
    for node in nodes:
        walk.visit(node)
    return walk.references


def imports_of(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """The names that an import statement binds, and what to; ``*`` for all names of a module."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, Import(node.module or "", node.level, alias.name)
        elif alias.asname is None:  # `import a.b` binds a
            yield alias.name.partition(".")[0], Import(alias.name.partition(".")[0])
        else:
            yield alias.asname, Import(alias.name)


def chain_of(node: ast.AST) -> tuple[str, tuple[str, ...]] | None:
    """The name and the attributes of ``name.attribute.attribute``; None for another expression."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, tuple(reversed(attributes))) if isinstance(node, ast.Name) else None


class _Scope:
    """The names that a function binds; those that are imported, with what they stand for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.imports: dict[str, list[Import]] = {}
        self.outer: set[str] = set()  # declared global or nonlocal
        self.used: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self.names and name not in self.outer


class _Bindings(ast.NodeVisitor):
    """Collects what a function binds, not what functions and classes inside do."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._scope.names.add(node.id)

    def _visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._scope.names.add(node.name)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit_definition

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def _visit_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, target in imports_of(node):
            self._scope.names.add(name)
            self._scope.imports.setdefault(name, []).append(target)

    visit_Import = visit_ImportFrom = _visit_import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._scope.names.add(node.name)
        self.generic_visit(node)

    def _visit_outer(self, node: ast.Global | ast.Nonlocal) -> None:
        self._scope.outer.update(node.names)

    visit_Global = visit_Nonlocal = _visit_outer

    def _visit_capture(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self._scope.names.add(node.name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = _visit_capture

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self._scope.names.add(node.rest)
        self.generic_visit(node)

    def _visit_comprehension(self, node: _Comprehension) -> None:
        """Its variables are its own, but for those of ``:=``."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr) and isinstance(inner.target, ast.Name):
                self._scope.names.add(inner.target.id)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension


def bound_in(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that statements bind, without those that functions and classes inside do."""
    scope = _Scope()
    for node in nodes:
        _Bindings(scope).visit(node)
    return scope.names


class _Walk(ast.NodeVisitor):
    """Collects references, with the scopes of the functions that a node is in."""

    def __init__(self) -> None:
        self.references = References()
        self._scopes: list[_Scope] = []

    # names

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.references.attributes.add(node.attr)
        chain = chain_of(node)
        if chain is None:
            self.visit(node.value)
            return
        self.references.attributes.update(chain[1])
        self._refer(*chain)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._refer(node.id, ())

    def _refer(self, name: str, attributes: tuple[str, ...]) -> None:
        found = self.references.found
        if name in _ANYTHING or (attributes and attributes[0] in ("__dict__", "__getattribute__")):
            self.references.is_dynamic = True
        for scope in reversed(self._scopes):
            if scope.has(name):
                scope.used.add(name)
                found.update(Reference(target, attributes) for target in scope.imports.get(name, ()))
                return
        found.add(Reference(name, attributes))

    def visit_Call(self, node: ast.Call) -> None:
        chain = chain_of(node.func)
        name = None if chain is None else (chain[1] or (chain[0],))[-1]
        if name in _BY_NAME:
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            self.references.attributes.update(part for text in texts for part in text.split("."))
            self.references.is_dynamic |= not texts
        self.generic_visit(node)

    # scopes

    def _visit_function(self, node: _Function) -> None:
        arguments = node.args
        for default in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
            self.visit(default)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
        if not isinstance(node, ast.Lambda):
            for decorator in node.decorator_list:
                self.visit(decorator)
            for annotation in (*(one.annotation for one in every), node.returns):
                if annotation is not None:
                    self.visit(unquoted(annotation))
        scope = _Scope()
        scope.names.update(one.arg for one in every)
        bindings = _Bindings(scope)
        for statement in body:
            bindings.visit(statement)
        self._scopes.append(scope)
        for statement in body:
            self.visit(statement)
        self._scopes.pop()
        for name in scope.imports.keys() - scope.used:  # it is there for what the module does when it is imported
            self.references.found.update(map(Reference, scope.imports[name]))

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(unquoted(node.annotation))
        for part in (node.target, node.value):
            if part is not None:
                self.visit(part)

    def _visit_comprehension(self, node: _Comprehension) -> None:
        scope = _Scope()
        bindings = _Bindings(scope)
        for generator in node.generators:
            bindings.visit(generator.target)
        self.visit(node.generators[0].iter)  # is evaluated outside
        self._scopes.append(scope)
        for number, generator in enumerate(node.generators):
            for part in ([generator.iter] if number else []) + generator.ifs:
                self.visit(part)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self._scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def visit_Global(self, node: ast.Global) -> None:
        self.references.found.update(Reference(name) for name in node.names)
