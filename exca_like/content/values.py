"""Keys of values: of Python's own types, of containers and objects; `FOREIGN` knows those of libraries."""

import array
import collections
import copyreg
import dataclasses
import enum
import functools
import inspect
import math
import sys
import types
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar

from exca_like.content.parts import SCALARS, NoKeyError, Parts, digest_of_parts, feed_tag, feed_text
from exca_like.errors import ContentKeyError
from exca_like.names import qualified_name

T = TypeVar("T")

_REDUCE_PROTOCOL = 4
_DEEPEST = 200  # of values in values
_DEEPEST_SHOWN = 8
_LONG = 64  # items of a list from which on numbers are taken together
_CODES = {float: "d", int: "q"}

_keys: dict[type, Callable[[Any], Any]] = {}

FOREIGN: dict[str, Callable[[Any, Parts, int], bool]] = {}
"""By the library that a value's class is of, what feeds it, or returns False; filled by other modules of this package."""


def register(cls: type[T], key: Callable[[T], Any] | None = None) -> Any:
    """Say what the values of a class (and of its subclasses) are recognized by; also usable as a decorator of a function.

    Parameters
    ----------
    cls:
        The class.
    key:
        Takes a value, and returns one with a content key that tells it from others: a tuple of its settings, for instance.

    Examples
    --------
    >>> import threading
    >>> class Model:
    ...     def __init__(self, path: str) -> None:
    ...         self.path, self.lock = path, threading.Lock()
    >>> _ = register(Model, lambda model: model.path)
    >>> digest(Model("a")) == digest(Model("a")) != digest(Model("b"))
    True
    """
    if key is None:
        return functools.partial(register, cls)
    _keys[cls] = key
    return key


def has_key(value: Any) -> bool:
    """Whether the class of a value was registered, or one that it derives from."""
    return any(base in _keys for base in type(value).__mro__)


def digest(value: Any) -> bytes:
    """16 bytes that stand for a value.

    Supported are None, numbers, texts, bytes, dates, paths (by their text), enums, containers of them; numpy arrays (by type,
    shape and content, in whatever order they lie in memory), torch tensors, pandas objects; dataclasses and pydantic models;
    classes and functions (by the name they can be imported by); objects of classes that were registered, and of those that
    can be pickled, by the state that a pickle would hold.

    Raises
    ------
    TypeError
        The value, or one inside, has no content that could be told from others.
    """
    parts: Parts = []
    try:
        _feed(value, parts, 0)
    except NoKeyError as error:
        raise _refusal(error) from None
    return digest_of_parts(parts)


def feed(name: str, value: Any, parts: Parts) -> None:
    """Add a named value to the parts of a digest; see `digest` for errors."""
    feed_text(name, parts)
    try:
        _feed(value, parts, 0)
    except NoKeyError as error:
        error.path.append(name)
        raise _refusal(error) from None


def _refusal(error: NoKeyError) -> ContentKeyError:
    where = "".join(list(reversed(error.path))[:_DEEPEST_SHOWN]).lstrip(".")
    return ContentKeyError(
        f"{where}{': ' if where else ''}{error.reason}. Pass what it is made from instead, say what it is recognized by "
        "with exca_like.content.register, or leave it out of the key with exclude=(...)."
    )


def _feed(value: Any, parts: Parts, depth: int) -> None:
    kind = type(value)
    scalar = SCALARS.get(kind)
    if scalar is not None:
        scalar(value, parts)
        return
    if depth > _DEEPEST:
        raise NoKeyError(None, "it contains itself, or values are nested more than 200 deep")
    for base in kind.__mro__ if _keys else ():
        if base in _keys:
            feed_tag(f"registered {qualified_name(kind)}", parts)
            _feed(_keys[base](value), parts, depth + 1)
            return
    container = _CONTAINERS.get(kind)
    if container is not None:
        container(value, parts, depth)
    elif isinstance(value, type):
        feed_tag("class", parts)
        feed_text(importable_name(value), parts)
    elif isinstance(value, enum.Enum):
        feed_tag(f"enum {qualified_name(kind)}", parts)
        feed_text(str(value.name), parts)
        if isinstance(value, enum.Flag):  # some have no name
            _feed(value.value, parts, depth)
    elif isinstance(value, PurePath):
        feed_tag("path", parts)
        feed_text(str(value), parts)
    elif inspect.isroutine(value):
        _feed_function(value, parts, depth)
    elif isinstance(value, types.ModuleType):
        feed_tag("module", parts)
        feed_text(value.__name__, parts)
    elif dataclasses.is_dataclass(value) and _has_fields_only(value):
        feed_tag(f"dataclass {qualified_name(kind)}", parts)
        for field in dataclasses.fields(value):
            feed_text(field.name, parts)
            feed_at(f".{field.name}", getattr(value, field.name), parts, depth)
    elif not _feed_foreign(value, parts, depth):
        feed_state(value, parts, depth)


def _has_fields_only(value: Any) -> bool:
    """Whether all that a dataclass object holds is in its fields, but for what it remembers of them."""
    kind = type(value)
    if not all(
        base is object or dataclasses.is_dataclass(base) or base.__module__ in ("abc", "typing") for base in kind.__mro__
    ):
        return False
    names = {field.name for field in dataclasses.fields(value)}
    return all(name in names or _is_remembered(kind, name) for name in getattr(value, "__dict__", ()))


def _is_remembered(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)


def feed_at(step: str, value: Any, parts: Parts, depth: int) -> None:
    try:
        _feed(value, parts, depth + 1)
    except NoKeyError as error:
        error.path.append(step)
        raise


def _feed_sequence(tag: bytes, value: Any, parts: Parts, depth: int) -> None:
    if len(value) >= _LONG and (numbers := _numbers_in(value)) is not None:
        parts.append(b"%b*%b%d:" % (tag, numbers.typecode.encode(), len(value)))
        parts.append(numbers)
        return
    parts.append(b"%b%d:" % (tag, len(value)))
    for index, item in enumerate(value):
        scalar = SCALARS.get(type(item))
        if scalar is not None:
            scalar(item, parts)
        else:
            feed_at(f"[{index}]", item, parts, depth)


def _numbers_in(value: Any) -> "array.array[Any] | None":
    """Items that are all floats, or all integers of 64 bits, as bytes; None for any other, and for those with a NaN."""
    kinds = set(map(type, value))
    code = _CODES.get(kinds.pop()) if len(kinds) == 1 else None
    if code is None or (code == "d" and any(map(math.isnan, value))):  # there are several NaNs, which count as one
        return None
    try:
        found = array.array(code, value)
    except OverflowError:
        return None
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _feed_dict(tag: bytes, value: Any, parts: Parts, depth: int) -> None:
    parts.append(b"%b%d:" % (tag, len(value)))
    for key, item in value.items():
        feed_at("(a key)", key, parts, depth)
        feed_at(f"[{key!r:.50}]", item, parts, depth)


def _feed_set(tag: bytes, value: Any, parts: Parts, depth: int) -> None:
    members = []
    for item in value:
        member: Parts = []
        feed_at("{...}", item, member, depth)
        members.append(digest_of_parts(member))
    parts.append(b"%b%d:" % (tag, len(members)))
    parts += sorted(members)


_CONTAINERS: dict[type, Callable[[Any, Parts, int], None]] = {
    list: functools.partial(_feed_sequence, b"l"),
    tuple: functools.partial(_feed_sequence, b"t"),
    dict: functools.partial(_feed_dict, b"d"),
    set: functools.partial(_feed_set, b"S"),
    frozenset: functools.partial(_feed_set, b"Z"),
    collections.OrderedDict: functools.partial(_feed_dict, b"o"),
    slice: lambda value, parts, depth: _feed_sequence(b"<slice>", (value.start, value.stop, value.step), parts, depth),
    types.MappingProxyType: functools.partial(_feed_dict, b"<proxy>"),
    functools.partial: lambda value, parts, depth: _feed_sequence(
        b"<partial>", (value.func, value.args, value.keywords), parts, depth
    ),
}


def importable_name(value: Any) -> str:
    name = str(getattr(value, "__qualname__", "") or getattr(value, "__name__", "?"))
    module = getattr(value, "__module__", None)
    if "<" in name or module is None:
        raise NoKeyError(value, f"{name} (a lambda or a local definition) has no name to find it again by")
    if module in sys.modules and module not in ("__main__", "__mp_main__"):  # in notebooks, cells are run again
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = inspect.getattr_static(found, part, None)
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
        if found is not value and found is not None:
            raise NoKeyError(value, f"{module}.{name} is the name of something else: it was wrapped, or defined again")
    return qualified_name(value)


def _feed_function(value: Any, parts: Parts, depth: int) -> None:
    owner = getattr(value, "__self__", None)
    if hasattr(value, "__objclass__"):  # a method of a type that is written in C
        owner = value.__objclass__
    if owner is None or isinstance(owner, types.ModuleType):
        feed_tag("function", parts)
        feed_text(importable_name(value), parts)
        return
    feed_tag("method" if hasattr(value, "__self__") else "descriptor", parts)
    function: Any = getattr(value, "__func__", value)
    feed_text(function.__qualname__, parts)  # with the class that defines it
    feed_at(".__self__", owner, parts, depth)


def _feed_foreign(value: Any, parts: Parts, depth: int) -> bool:
    """Values of libraries, which are only looked at if they were imported; False for any other."""
    feeder = FOREIGN.get(type(value).__module__.partition(".")[0])
    if feeder is None:
        for name, found in FOREIGN.items():  # a subclass of somebody's own
            if any(base.__module__.partition(".")[0] == name for base in type(value).__mro__):
                feeder = found
    if feeder is not None and feeder(value, parts, depth):
        return True
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        _feed_model(value, parts, depth)
        return True
    return False


def _feed_model(value: Any, parts: Parts, depth: int) -> None:
    """A pydantic model, by its fields that count for its uid: which of them were set makes no difference."""
    from exca_like.models.plan import plan_of

    feed_tag(f"model {qualified_name(type(value))}", parts)
    fields = {field.name: value.__dict__[field.name] for field in plan_of(type(value)).kept(value)}
    for name, item in (fields | dict(value.__pydantic_extra__ or {})).items():
        feed_text(name, parts)
        feed_at(f".{name}", item, parts, depth)


def feed_state(value: Any, parts: Parts, depth: int) -> None:
    """Any other object, by its class and what a pickle would hold."""
    kind = type(value)
    if kind.__module__ == "builtins" and not hasattr(kind, "__reduce__"):
        raise NoKeyError(value, f"a value of type {kind.__qualname__} has no content of its own")
    try:
        reducer = copyreg.dispatch_table.get(kind)
        reduced: Any = value.__reduce_ex__(_REDUCE_PROTOCOL) if reducer is None else reducer(value)
    except Exception as error:
        reason = f"a value of type {qualified_name(kind).removeprefix('builtins.')} can't be told from others ({error})"
        raise NoKeyError(value, reason) from error
    if isinstance(reduced, str):  # the name of something that can be imported
        feed_tag("global", parts)
        feed_text(f"{getattr(value, '__module__', None)}.{reduced}", parts)
        return
    importable_name(kind)
    feed_tag(f"object {qualified_name(kind)}", parts)
    parts_of_it: list[Any] = [*reduced, None, None, None, None]
    make, arguments, state, items, pairs = parts_of_it[:5]
    if isinstance(value, set | frozenset):  # whose order changes from process to process
        arguments = tuple(frozenset(argument) if type(argument) is list else argument for argument in arguments)
    feed_at("", make, parts, depth)
    feed_at("", tuple(arguments), parts, depth)
    if isinstance(state, dict):
        _feed_dict(b"d", {name: part for name, part in state.items() if not _is_remembered(kind, str(name))}, parts, depth)
    else:
        feed_at("", state, parts, depth)
    feed_at("", None if items is None else list(items), parts, depth)
    feed_at("", None if pairs is None else dict(pairs), parts, depth)
