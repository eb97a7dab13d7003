"""Variables of outer functions, which a function was made with: two functions with the same code may have others."""

import contextlib
import inspect
import types
from collections.abc import Iterable, Iterator
from typing import Any

from exca_like import content
from exca_like.errors import ContentKeyError


def feed(function: Any, names: Iterable[str], parts: content.Parts) -> None:
    """Add what a function captured under some names to the parts of a digest; see `content.digest` for errors."""
    _feed(function, names, parts, [function])


def values(function: Any, names: Iterable[str]) -> Iterator[Any]:
    """What a function captured under some names."""
    if names:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name in names:
            with contextlib.suppress(ValueError):  # not assigned yet
                yield cells[name].cell_contents


def _feed(function: Any, names: Iterable[str], parts: content.Parts, seen: list[Any]) -> None:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for variable in names:
        name = f"(captured) {variable}"
        try:
            value = cells[variable].cell_contents
        except ValueError:  # not assigned yet
            continue
        if isinstance(value, staticmethod):  # a memoised function
            content.feed(name, getattr(value, "_name", ""), parts)
            value = value.__func__
        if variable == "__class__" and isinstance(value, type):  # of methods that call super()
            content.feed(name, f"{value.__module__}.{value.__qualname__}", parts)
        elif inspect.isfunction(value) and "<" in value.__qualname__:  # of no name that leads to it: by its code
            _feed_function(name, value, parts, seen)
        else:
            try:
                content.feed(name, value, parts)
            except ContentKeyError as error:
                msg = f"{function.__qualname__} can't be told from others that were made in the same place: {error}"
                raise ContentKeyError(msg) from None


def _feed_function(name: str, function: Any, parts: content.Parts, seen: list[Any]) -> None:
    if function in seen:  # it calls itself
        content.feed(name, seen.index(function), parts)
        return
    seen.append(function)
    content.feed(name, (_code(function.__code__), function.__defaults__, function.__kwdefaults__), parts)
    _feed(function, function.__code__.co_freevars, parts, seen)


def _code(code: types.CodeType) -> tuple[Any, ...]:
    constants = tuple(_code(each) if isinstance(each, types.CodeType) else each for each in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames
