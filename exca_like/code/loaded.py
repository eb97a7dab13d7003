"""Code as a process has loaded it: of functions without a source, and of modules that were edited since their import."""

import abc
import ast
import inspect
import os
import time
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from exca_like.code.compiled import codes_in, content_of, digest_of, functions_in, is_another
from exca_like.code.modules import Source, loaded_module
from exca_like.code.references import bound_in
from exca_like.code.unwrap import unwrapped

_checked: dict[str, tuple[Source, Any, bool]] = {}  # by the name of a module; what was found first stays
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def _start() -> float:
    """When this process began, in seconds since the epoch."""
    try:
        with open("/proc/self/stat", "rb") as stream:
            ticks = int(stream.read().rpartition(b")")[2].split()[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.time() - (since_boot - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError):  # another system: what was edited before this was imported is not noticed
        return time.time()


_STARTED_NS = int(_start() * 1e9)  # forked processes have loaded what their parents had


def is_stale(source: Source) -> bool:
    """Whether a module was edited since this process has imported it, so that it runs other code than its file has."""
    identity = source.identity
    module = loaded_module(source.name)
    if identity is None or module is None or max(identity.modified, identity.changed) < _STARTED_NS:
        return False
    known = _checked.get(source.name)
    if known is not None and known[0] is source and known[1] is getattr(module, "__spec__", None):
        return known[2]
    found = _is_stale(source, module)
    _checked[source.name] = (source, getattr(module, "__spec__", None), found)
    return found


def _is_stale(source: Source, module: Any) -> bool:
    """Whether a module that was edited since this process began runs other code than its file has."""
    try:
        compiled = compile(source.text, source.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return True
    known: dict[str, list[Any]] = defaultdict(list)
    for code in codes_in(compiled):
        known[code.co_qualname].append(content_of(code))
    own = os.path.realpath(source.path)
    for function in functions_in(vars(module), module.__name__):
        code = function.__code__
        if os.path.realpath(code.co_filename) == own and content_of(code) not in known[code.co_qualname]:
            return True
    changing: set[str] = set()
    changing_in_classes: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            changing.update(node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") != "self":
            changing_in_classes.add(node.attr)  # `Class.attribute = ...`
    return any(
        is_another(value, inspect.getattr_static(vars_of, name, None))
        for vars_of, name, value in _plain_values(source.tree.body, module)
        if name not in (changing if vars_of is module else changing_in_classes)
    )


def loaded_digest(module: Any) -> str:
    """A digest of the functions and plain constants of a module that this process has imported."""
    functions = sorted(
        (one.__qualname__, repr(content_of(one.__code__))) for one in functions_in(vars(module), module.__name__)
    )
    constants = sorted(
        (name, repr(value)) for name, value in list(vars(module).items()) if isinstance(value, _PLAIN) and name[:2] != "__"
    )
    return digest_of((functions, constants))


def _plain_values(body: Iterable[ast.AST], owner: Any) -> Iterator[tuple[Any, str, Any]]:
    """What literal constants and defaults a module or a class has by its source: where, under which name, and the value."""
    last: dict[str, Any] = {}
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            inner = inspect.getattr_static(owner, node.name, None)
            if type(inner) in (type, abc.ABCMeta):  # others make something else of their values: enums, pydantic
                yield from _plain_values(node.body, inner)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = node  # of several, like those of `@overload`, the last is there
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            last.update({target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)})
        else:
            for name in bound_in([node]):
                last.pop(name, None)
                functions.pop(name, None)
    yield from ((owner, name, value) for name, value in last.items())
    for name, definition in functions.items():
        function = unwrapped(inspect.getattr_static(owner, name, None))
        defaults = definition.args.defaults
        if function is not None and function.__defaults__ and len(defaults) == len(function.__defaults__):
            found = types.SimpleNamespace(**{f"_{place}": value for place, value in enumerate(function.__defaults__)})
            yield from ((found, f"_{place}", one.value) for place, one in enumerate(defaults) if isinstance(one, ast.Constant))
