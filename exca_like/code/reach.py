"""What a function reaches of the user's own code, followed from name to name through sources.

Of most classes everything counts. Of configs (pydantic models), whose methods often have nothing to do with each other, those
methods count whose names are used by what is reached, and those that are called without being named.
"""

import ast
import copy
import functools
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from textwrap import dedent, indent
from typing import Any, NamedTuple

from exca_like.code.compiled import content_of, digest_of
from exca_like.code.loaded import is_stale, loaded_digest
from exca_like.code.modules import Foreign, Modules, Source, import_name, loaded_module
from exca_like.code.namespaces import DEFINITIONS, Namespace, changed_by, find_definition
from exca_like.code.normal import says_nothing, text_of
from exca_like.code.references import Import, References, chain_of, references_of
from exca_like.code.symbols import Symbol
from exca_like.code.unwrap import unwrapped

OURS = "exca_like"
_LONGEST = 1000  # lines of a constant that are kept
_MODELS = ("pydantic.", "exca_like.", "pydantic_settings.")
_WITHOUT_METHODS = ("typing.", "abc.", "typing_extensions.", "enum.", "builtins.")
# decorators under which a method is called by its name
_NAMED = frozenset(
    (
        *("property", "cached_property", "staticmethod", "classmethod", "setter", "deleter", "getter", "apply", "override"),
        *(
            "abstractmethod",
            "memo",
            "cache",
            "lru_cache",
            "contextmanager",
            "wraps",
            "no_grad",
            "inference_mode",
            "jit",
            "njit",
        ),
    )
)


class Piece(NamedTuple):
    """What is found of some nodes once."""

    said: str
    """In normal form."""
    references: References
    lines: str


@dataclass(frozen=True)
class Place:
    """Where a name is looked up: in functions, the innermost last, then in their module."""

    source: Source
    functions: tuple[tuple[str, Namespace], ...] = ()

    def label(self, name: str) -> str:
        """The full name of something that is defined here."""
        return ".".join((self.source.name, *(f"{function}.<locals>" for function, _ in self.functions), name))


class Reach:
    """The symbols that functions and classes reach; see `symbols` and `packages` after everything was added."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.symbols: dict[str, Symbol] = {}
        self.packages: set[str] = set()
        """Names of top-level modules that are not the user's own."""
        self.stale: set[str] = set()
        """Names of modules that were edited since they were imported."""
        self.own = ""
        """The label of the first function, whose name does not count: it may be renamed."""
        self.tokens: list[tuple[Mapping[str, Any], str, Any]] = []
        """What code without a source has found by name, and where."""
        self._seen: dict[str, bool] = {}  # by label; whether it is a config
        self._names: dict[tuple[str, ...], str | None] = {}
        self._todo: list[Callable[[], None]] = []
        self._attributes: set[str] = set()
        self._is_dynamic = False
        self._waiting: dict[str, list[Callable[[], None]]] = defaultdict(list)  # methods of configs, by name
        self._filled: dict[str, tuple[bool, Callable[[], None]]] = {}  # registries, by label; whether it is a class
        self._live: set[int] = set()
        self._checked: dict[str, bool] = {}

    # roots

    def add(self, *things: Any) -> None:
        """Functions, methods or classes that this process has, and all that they reach."""
        for thing in things:
            self._add(thing)
        while self._todo:
            self._todo.pop()()

    def _add(self, thing: Any) -> None:
        if isinstance(thing, type):
            self._add_definition(thing)
            return
        if isinstance(thing, types.MethodType):
            owner = thing.__self__
            self._add(owner if isinstance(owner, type) else type(owner))
        function = unwrapped(thing)
        if function is None:
            self._add(type(thing))
        else:
            self._add_definition(function)

    def _add_definition(self, thing: Any) -> None:
        module = import_name(getattr(thing, "__module__", None) or "builtins")
        path = thing.__qualname__.partition("[")[0].split(".")
        if module == import_name("__main__") and self.modules[module] is None:  # it was sent to this process by value
            functions = map(unwrapped, vars(thing).values()) if isinstance(thing, type) else [thing]
            for function in filter(None, functions):
                self.modules.add_script(function.__code__.co_filename)
        found = self.modules[module]
        if isinstance(found, Foreign):
            self._foreign(found.name)
        elif (found is None and not _is_of_python(module)) or (found is not None and not self._add_named(found, path, thing)):
            self._add_live(thing)

    def _add_named(self, source: Source, path: list[str], thing: Any) -> bool:
        """A definition that is found by its qualified name; False if it is not."""
        if "<locals>" not in path and "<lambda>" not in path:
            if path[0] not in source.namespace:
                return False
            self._ask(path[1:])
            if isinstance(thing, types.FunctionType) and len(path) == 1 and not self._seen:
                self.own = f"{source.name}.{path[0]}"
            return self._name(Place(source), path[0]) is not None

        def is_it(node: ast.AST) -> bool:
            return not source.path or not isinstance(thing, types.FunctionType) or _is_made_from(thing.__code__, node)

        names = [name for name in path if name != "<locals>"]
        statements = source.tree.body if source.path else list(reversed(source.tree.body))  # of cells, the last counts
        bodies = find_definition(statements, names, is_it)
        if bodies is None:
            return False
        *outer, (node,) = bodies
        place = Place(source, tuple((name, Namespace(body)) for name, body in zip(names, outer[1:], strict=False)))
        if isinstance(thing, types.FunctionType) and not self._seen:
            self.own = place.label(names[-1])
        self._symbol(place, names[-1], [node])
        return True

    def _add_live(self, thing: Any) -> None:
        """A function or class without a source, with the functions that it finds by name."""
        if id(thing) in self._live:
            return
        self._live.add(id(thing))
        label = f"{import_name(thing.__module__ or '')}.{thing.__qualname__}"
        if isinstance(thing, type):
            parts = {name: unwrapped(value) for name, value in list(vars(thing).items())}
            functions = [one for one in parts.values() if one is not None and one.__module__ == thing.__module__]
            for base in thing.__bases__:
                self._add(base)
        else:
            functions = [thing]
        self.symbols[label] = Symbol(digest_of([content_of(one.__code__) for one in functions]), "")
        for function in functions:
            for name in _all_names(function.__code__):
                value = function.__globals__.get(name)
                self.tokens.append((function.__globals__, name, value))
                if isinstance(value, type) or unwrapped(value) is not None:
                    self._todo.append(functools.partial(self._add, value))

    # names

    def _ask(self, attributes: Iterable[str]) -> None:
        """Take note of attributes that are used, and follow the methods that have such names."""
        for name in attributes:
            if name not in self._attributes:
                self._attributes.add(name)
                self._todo += self._waiting.pop(name, ())

    def _name(self, place: Place, name: str, attributes: Sequence[str] = ()) -> str | None:
        """Follow a name; returns what it stands for, or None if it is not defined here."""
        key = (place.label(name), *attributes)
        if key not in self._names:
            self._names[key] = None  # if it leads here again, it is imported in a circle
            self._names[key] = self._looked_up(place, name, attributes)
        return self._names[key]

    def _looked_up(self, place: Place, name: str, attributes: Sequence[str]) -> str | None:
        for depth in range(len(place.functions), -1, -1):
            inner = Place(place.source, place.functions[:depth])
            space = place.functions[depth - 1][1] if depth else place.source.namespace
            if name not in space:
                continue
            binding = space[name]
            labels = [self._import(place.source, target, attributes) for target in binding.imports]
            if binding.statements:
                labels.append(inner.label(name))
                self._symbol(inner, name, binding.statements)
            if binding.filled:
                is_class = any(isinstance(one, ast.ClassDef) for one in binding.statements)
                follow = functools.partial(self._symbol, inner, f"{name} (filled)", binding.filled)
                self._filled[inner.label(name)] = is_class, follow
            return "|".join(label or "?" for label in labels)
        for star in place.source.namespace.stars:
            module = _absolute(place.source, star)
            found = self.modules[module]
            if isinstance(found, Foreign):
                self._foreign(module)
            elif found is not None and (label := self._name(Place(found), name, attributes)):
                return label
        return None

    def _import(self, source: Source, target: Import, attributes: Sequence[str]) -> str:
        """Follow what is imported; returns its name."""
        module = _absolute(source, target)
        return self._module(module, (*([target.name] if target.name else ()), *attributes))

    def _module(self, module: str, attributes: Sequence[str]) -> str:
        """Follow an attribute of a module, or all of it if none is named."""
        found = self.modules[module]
        if isinstance(found, Source):
            if not attributes:
                for name, binding in found.namespace.names.items():
                    if binding.statements:
                        self._symbol(Place(found), name, binding.statements)
                    if any(target.name is not None for target in binding.imports):  # modules count if they are used
                        self._name(Place(found), name)
                return module
            first, *others = attributes
            label = self._name(Place(found), first, others)
            if label is not None:
                return label
            inner = f"{module}.{first}"
            if found.is_package and self.modules[inner] is not None:
                return self._module(inner, others)
            self._name(Place(found), "__getattr__")
        elif isinstance(found, Foreign):
            self._foreign(module)
        return ".".join((module, *attributes))

    def _foreign(self, module: str) -> None:
        self.packages.add(module.partition(".")[0])

    # symbols

    def _symbol(self, place: Place, name: str, statements: Sequence[ast.AST]) -> None:
        label = place.label(name)
        if label in self._seen:
            return
        self._seen[label] = False
        classes = [one for one in statements if isinstance(one, ast.ClassDef)]
        others = [one for one in statements if not isinstance(one, ast.ClassDef)]
        if others:
            self._todo.append(functools.partial(self._piece, place, f"{label} (changed)" if classes else label, others))
        for number, node in enumerate(classes):
            own = f"{label} ({number + 1})" if number else label  # each has a symbol
            self._seen[own] = self._is_config(place, node)
            self._todo.append(functools.partial(self._class, place, own, node))

    def _piece(
        self, place: Place, label: str, nodes: Sequence[ast.AST], members: Namespace | None = None, key: tuple[int, ...] = ()
    ) -> None:
        """Record some nodes under a label, and follow what they refer to."""
        source = place.source
        key = key or (*map(id, nodes), label == self.own)  # they live as long as the source
        piece = source.pieces.get(key)
        if piece is None:
            plain = [self._undecorated(place, node, members, is_own=label == self.own) for node in nodes]
            piece = source.pieces[key] = Piece(text_of(plain), references_of(plain), _lines_of(source, nodes))
        edges = []
        for root, attributes in piece.references.found:
            if isinstance(root, Import):
                target: str | None = self._import(source, root, attributes)
            else:
                target = self._name(place, root, attributes)
                if members is not None and root in members:  # in the body of a class
                    self._ask([root])
            if target is not None:
                edges.append(f"{root}.{'.'.join(attributes)}={target}")
                if target in self._filled and target != label:
                    self._follow_filled(target, str(root), attributes, nodes)
        if self._is_stale(source):
            label = f"{source.name} (as it was loaded)"
            if label not in self.symbols:
                self.symbols[label] = Symbol(loaded_digest(loaded_module(source.name)), "")
        else:
            said = "\n".join((piece.said, *sorted(edges)))
            self.symbols[label] = Symbol(blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest(), piece.lines)
        if piece.references.is_dynamic and not self._is_dynamic:
            self._is_dynamic = True
            self._ask(list(self._waiting))
        self._ask(piece.references.attributes)

    def _follow_filled(self, label: str, root: str, attributes: Sequence[str], nodes: Sequence[ast.AST]) -> None:
        """Follow what a registry is filled with, unless some nodes do no more than fill it, or derive from it."""
        is_class, follow = self._filled[label]
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if (attributes or not is_class) and not any(root in changed_by(node) for node in functions):
            follow()

    def _undecorated(self, place: Place, node: ast.AST, members: Namespace | None, *, is_own: bool) -> ast.AST:
        """A definition without the decorators of this package: how something is computed does not change what comes out."""
        if not isinstance(node, DEFINITIONS) or not (node.decorator_list or is_own):
            return node
        plain = copy.copy(node)
        if is_own:
            plain.name = ""
        plain.decorator_list = [one for one in node.decorator_list if not self._is_ours(place, one, members)]
        return plain

    def _is_ours(self, place: Place, node: ast.AST, members: Namespace | None = None) -> bool:
        chain = chain_of(node.func if isinstance(node, ast.Call) else node)
        if chain is None:
            return False
        name, attributes = chain
        if members is not None and name in members:
            return attributes == ("apply",)
        spaces = [space for _, space in place.functions] + [place.source.namespace]
        targets = [target for space in spaces if name in space for target in space[name].imports]
        return any(target.module.partition(".")[0] == OURS and not target.level for target in targets)

    def _is_stale(self, source: Source) -> bool:
        if source.name not in self._checked:
            self._checked[source.name] = is_stale(source)
            if self._checked[source.name]:
                self.stale.add(source.name)
        return self._checked[source.name]

    # classes

    def _class(self, place: Place, label: str, node: ast.ClassDef) -> None:
        members = Namespace(node.body)
        is_config = self._seen[label]
        header = copy.copy(node)
        functions = {name for name, binding in members.names.items() if any(map(_is_function, binding.statements))}
        if is_config:
            header.body = [one for one in node.body if not isinstance(one, (*DEFINITIONS, ast.AnnAssign, ast.Assign))]
            waiting = set(members.names)
        else:
            header.body = [one for one in node.body if not _is_function(one)]
            waiting = functions
        self._piece(place, label, [header], members, (0, id(node)))
        for name in waiting:
            statements = members[name].statements
            if not statements:  # it is imported
                continue

            follow = functools.partial(self._member, place, f"{label}.{name}", statements, members)
            if (
                not is_config
                or name not in functions
                or self._is_dynamic
                or name in self._attributes
                or _is_called_unnamed(name, statements)
            ):
                self._todo.append(follow)
            else:
                self._waiting[name].append(follow)

    def _member(self, place: Place, label: str, statements: Sequence[ast.AST], members: Namespace) -> None:
        if label in self._seen:
            return
        self._seen[label] = False
        kept: list[ast.AST] = []
        for node in statements:
            if isinstance(node, ast.ClassDef):
                self._seen[label] = self._is_config(place, node)
                self._class(place, label, node)
            elif not (isinstance(node, ast.AnnAssign | ast.Assign) and self._is_infra(place, node)):
                kept.append(node)
        if kept:
            self._piece(place, label, kept, members)

    def _is_infra(self, place: Place, node: ast.AnnAssign | ast.Assign) -> bool:
        return node.value is not None and self._is_ours(place, node.value)

    def _is_config(self, place: Place, node: ast.ClassDef) -> bool:
        """Whether all that a class derives from are pydantic models, or has no methods."""
        kinds = {self._kind_of_base(place, base) for base in node.bases}
        return "model" in kinds and "other" not in kinds

    def _kind_of_base(self, place: Place, node: ast.AST) -> str:
        chain = chain_of(node.value if isinstance(node, ast.Subscript) else node)
        label = None if chain is None else self._name(place, *chain)
        if label is None:
            return "plain" if chain == ("object", ()) else "other"
        if label in self._seen:  # a class of the user's own
            return "model" if self._seen[label] else "other"
        return "model" if label.startswith(_MODELS) else "plain" if label.startswith(_WITHOUT_METHODS) else "other"


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _is_called_unnamed(name: str, statements: Sequence[ast.AST]) -> bool:
    """Whether a member of a config may be called though nothing names it: by Python, by pydantic, by what decorates it."""
    if (name[:2] == "__" and name[-2:] == "__") or name in ("model_post_init", "model_config"):
        return True
    decorators = [one for node in statements if isinstance(node, DEFINITIONS) for one in node.decorator_list]
    for decorator in decorators:
        chain = chain_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if chain is None or (chain[1] or (chain[0],))[-1] not in _NAMED:
            return True
    return False


def _absolute(source: Source, target: Import) -> str:
    """The name of an imported module."""
    if not target.level:
        return target.module
    parts = source.name.split(".")
    parts = parts[: len(parts) - target.level + source.is_package]
    return ".".join([*parts, *([target.module] if target.module else [])])


def _is_of_python(module: str) -> bool:
    first = module.partition(".")[0]
    return first == OURS or first in sys.stdlib_module_names


def _is_made_from(code: types.CodeType, node: Any) -> bool:
    """Whether a function or lambda is the one that code was made from, by its place."""
    if isinstance(node, ast.Lambda):  # of which a line may have several
        start, end = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
        places = [(line, column) for line, _, column, _ in code.co_positions() if line is not None and column]
        return bool(node.lineno == code.co_firstlineno and all(start <= place <= end for place in places))
    return _first_line(node) == code.co_firstlineno


def _first_line(node: Any) -> int:
    """The line that a definition begins in, with its decorators."""
    lines: list[int] = [node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]
    return min(lines)


def _all_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _all_names(constant)
    return names


def _lines_of(source: Source, nodes: Sequence[Any]) -> str:
    """The lines that some nodes are written in; of classes only of what is kept of them."""
    parts = []
    for node in nodes:
        last: Any = getattr(node, "end_lineno", None)
        if last is None or says_nothing(node):
            continue
        if isinstance(node, ast.ClassDef):
            last = max([node.lineno, *(getattr(one, "end_lineno", 0) for one in (*node.bases, *node.keywords))])
        lines = source.lines[_first_line(node) - 1 : last]
        if len(lines) > _LONGEST and not isinstance(node, DEFINITIONS):
            lines = [*lines[:10], "..."]
        parts.append(dedent("\n".join(lines)))
        if isinstance(node, ast.ClassDef) and node.body:
            parts.append(indent(_lines_of(source, node.body), "    "))
    return "\n".join(parts)
