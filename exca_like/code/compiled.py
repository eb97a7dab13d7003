"""What compiled functions do, and plain values: told from others."""

import dis
import functools
import math
import types
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from exca_like.code.unwrap import unwrapped

_LOADS = frozenset(dis.hasconst)


def content_of(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does, without its place in a file and its docstring."""
    constants = list(code.co_consts)
    if constants and isinstance(constants[0], str) and not _uses_first_constant(code):
        constants[0] = None
    return (
        code.co_code,
        tuple(
            content_of(one) if isinstance(one, types.CodeType) else (type(one).__name__, repr(_ordered(one)))
            for one in constants
        ),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
    )


def _uses_first_constant(code: types.CodeType) -> bool:
    return any(code.co_code[place] in _LOADS and code.co_code[place + 1] == 0 for place in range(0, len(code.co_code), 2))


def _ordered(value: Any) -> Any:
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def digest_of(content: Any) -> str:
    """A digest of what `content_of` gives."""
    return blake2b(repr(content).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def functions_in(namespace: Mapping[str, Any], module: str, within: tuple[type, ...] = ()) -> Iterator[types.FunctionType]:
    """Functions and methods that a module defines, under their decorators; ``within`` are the classes around them."""
    for value in list(namespace.values()):
        if isinstance(value, type):
            if value.__module__ == module and value not in within:  # a class may hold itself
                yield from functions_in(vars(value), module, (*within, value))
            continue
        parts = (
            [value.fget]
            if isinstance(value, property)
            else [value.func]
            if isinstance(value, functools.cached_property)
            else [value]
        )
        for part in parts:
            function = unwrapped(part)
            if function is not None and function.__module__ == module:
                yield function


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """The functions, lambdas and classes inside of code, to any depth."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from codes_in(constant)


def is_another(first: Any, second: Any) -> bool:
    """Whether a plain value is not the other one."""
    return type(first) is not type(second) or (first != second and not _is_nan(first))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
