"""What a call of a memoised function is recognized by, and what is told of it."""

import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import pydantic

from exca_like import content, layout, uid
from exca_like.canonical import describe
from exca_like.errors import ContentKeyError
from exca_like.infra.base import BaseInfra
from exca_like.infra.calls import Call
from exca_like.lazy import Lazy, holds_lazy
from exca_like.memos import captured
from exca_like.models.function import CallSignature
from exca_like.operators import LONG, SCALARS
from exca_like.watching import CodePolicy, Watch, policy_of, roots_in

_KEY_SIZE = 10  # bytes of digest in a key
_LONGEST_TEXT = 80  # characters of a key, beside its digest
_MOST_ITEMS = 6  # of a container that is shown
_MOST_SHOWN = 200  # characters of an argument that are kept for people

_any_infra: Any = BaseInfra
content.register(_any_infra, lambda infra: infra.version)  # how something is computed does not change what comes out
content.register(Lazy, lambda lazy: lazy.uid)  # its parts in quotes


class CallKeys:
    """Gives calls of a function their keys.

    Parameters
    ----------
    function:
        The function.
    is_method:
        Whether its first parameter is the object that it is a method of.
    exclude:
        Parameters that make no difference to the result.
    key:
        By parameter, what gives a value that its arguments are recognized by.
    watch:
        The code that results depend on.
    policy:
        What is done about changed code.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        is_method: bool,
        exclude: frozenset[str],
        key: Mapping[str, Callable[[Any], Any]] | None,
        watch: Watch,
        policy: CodePolicy | None,
    ) -> None:
        names = list(inspect.signature(function).parameters)
        self._self = names[0] if is_method and names else None
        self.signature = CallSignature(function, function.__qualname__, holds_lazy, tuple(names[:1]) if is_method else ())
        self._exclude = exclude
        self._key = key or {}
        self._watch = watch
        self._policy: CodePolicy | None = policy
        self._captured = tuple(name for name in function.__code__.co_freevars if name not in exclude)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_kept: bool = False) -> Call:
        """A call with its key.

        Parameters
        ----------
        args, kwargs:
            The arguments.
        is_kept:
            Whether it may be run later, when arguments may have been changed in place.

        Raises
        ------
        TypeError
            The function can't be called like this, or an argument has no content that could be told from others.
        pydantic.ValidationError
            An argument is not of its parameter's type.
        """
        return self._keyed(self.signature.bind(args, kwargs), {}, os.getpid() if is_kept else 0)

    def calls(self, arguments: Iterable[tuple[Any, ...]], constants: dict[str, Any]) -> Iterator[Call]:
        """Calls with some arguments that are the same in all of them, which are looked at once."""
        known: dict[str, content.Parts] = {}
        for args in arguments:
            values = self.signature.bind(args, constants, known)
            constants = {name: values.get(name, value) for name, value in constants.items()}
            if not known:
                known = {name: self._parts_of(name, values) for name in constants if name in values}
            yield self._keyed(values, known, os.getpid())

    def is_changed(self, call: Call) -> bool:
        """Whether the arguments of a call of this process are not what they were when it got its key."""
        return call.maker == os.getpid() and self._keyed(dict(call.values), {}, 0).key != call.key

    def _keyed(self, values: dict[str, Any], known: Mapping[str, content.Parts], maker: int) -> Call:
        parts: content.Parts = []
        for name in values:
            if name not in self._exclude:
                parts += known[name] if name in known else self._parts_of(name, values)
        if self._captured:
            captured.feed(self.signature.function, self._captured, parts)
        key = f"{self._text(values)}-{content.digest_of_parts(parts)[:_KEY_SIZE].hex()}"
        policy = policy_of(self._policy, "recompute")
        if policy == "ignore":
            return Call(key, values, maker)
        roots = self.roots(values)
        code = self._watch.state(roots) if roots else self._watch.state_with(())
        if policy == "warn":
            return Call(key, values, maker, code)
        return Call(f"{key}-{code.digest}", values, maker, code, is_coded=True)

    def roots(self, values: Mapping[str, Any]) -> list[Any]:
        """Functions and classes among the arguments, whose code counts as well."""
        found: dict[Any, None] = {}
        for value in captured.values(self.signature.function, self._captured):
            found.update(dict.fromkeys(roots_in(value)))
        for name, value in values.items():
            if type(value) not in SCALARS and name not in self._exclude and name not in self._key:
                found.update(dict.fromkeys(roots_in(value)))
        return list(found)

    def _parts_of(self, name: str, values: Mapping[str, Any]) -> content.Parts:
        parts: content.Parts = []
        if name in self._exclude:
            return parts
        value = values[name]
        if name in self._key:
            value = self._key[name](value)
        elif name == self._self:
            self._check_self(value)
        content.feed(name, value, parts)
        return parts

    def _check_self(self, value: Any) -> None:
        if isinstance(value, type | pydantic.BaseModel) or dataclasses.is_dataclass(value) or content.has_key(value):
            return
        kind = type(value).__qualname__
        msg = (
            f"{self.signature.name} is a method of {kind}, and what it returns may depend on any attribute of the {kind}: make "
            "it a pydantic model or a dataclass, which count by their fields, or say what it is recognized by with "
            f"exca_like.content.register({kind}, lambda obj: ...), or leave it out with exclude=({self._self!r},)"
        )
        raise ContentKeyError(msg)

    def _text(self, values: Mapping[str, Any]) -> str:
        """What is readable of a key: arguments that are not the default ones."""
        parts = []
        for name, value in values.items():
            default = self.signature.arguments[name].default
            if name == self._self or name in self._exclude or value is default:
                continue
            part = _text_of(name, self._key[name](value) if name in self._key else value)
            if default is inspect.Parameter.empty or type(default) is not type(value) or _text_of(name, default) != part:
                parts.append(part)
        text = ",".join(parts).lstrip(".-") or layout.DEFAULT_UID
        return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."


def _text_of(name: str, value: Any) -> str:
    kind = type(value)
    if kind in SCALARS:
        return (_scalar_text if kind is not str or len(value) < LONG else _scalar_text.__wrapped__)(name, value)
    if isinstance(value, list | tuple | set | frozenset | dict):
        items = value.values() if isinstance(value, dict) else value
        if len(value) > _MOST_ITEMS or not all(type(item) in SCALARS for item in items) or not all(map(_is_text, value)):
            return f"{name}={kind.__name__}-{len(value)}"
    return f"{name}={uid.text_of(value)}"


def _is_text(key: Any) -> bool:
    return type(key) in SCALARS


@functools.lru_cache(4096, typed=True)
def _scalar_text(name: str, value: Any) -> str:
    return f"{name}={uid.text_of(value)}"


def shown(value: Any) -> Any:
    """JSON data that tell people what an argument was."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}..."
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if kind is int and abs(value) >= 1 << 63:  # which not every reader of JSON can read
        return f"{value:.3e}" if abs(value) < 10**300 else "(a large number)"
    if kind in SCALARS:
        return value
    if kind in (list, tuple) and len(value) <= _MOST_ITEMS:
        return [shown(item) for item in value]
    if kind is dict and len(value) <= _MOST_ITEMS and all(type(key) is str for key in value):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, PurePath | Lazy):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset | dict):
        return f"{kind.__name__} of {len(value)}"
    return describe(value)
