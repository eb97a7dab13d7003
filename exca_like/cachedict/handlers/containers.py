"""JSON data, and containers that mix it with anything else.

`Auto` writes a tree of dictionaries and lists as JSON. What JSON has no form for is written as a dictionary with a
``#type``: the standard types below by themselves, everything else by its own handler.
"""

import base64
import datetime
import decimal
import fractions
import pathlib
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any

import orjson

from exca_like.cachedict.handlers import pickles
from exca_like.cachedict.registry import handler_of_type
from exca_like.errors import ConfigTypeError

_INLINE = 1024  # bytes of JSON that travel in the journal
_PLAIN = (str, int, float, bool, type(None))
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1  # what JSON parsers keep exactly
_MANY = 32


def is_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it is: same types, same numbers."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_unicode(value)
    if kind is float:
        return isfinite(value)
    if kind is int:
        return bool(_SMALLEST <= value <= _LARGEST)
    if kind is list:
        if len(value) > _MANY and set(map(type, value)) <= {float}:
            return all(map(isfinite, value))
        return all(map(is_json, value))
    if kind is dict:
        for key, part in value.items():  # a generator takes twice the time
            if type(key) is not str or key[:1] == "#" or not (key.isascii() or _is_unicode(key)):
                return False
            if part is not None and not is_json(part):
                return False
        return True
    return value is None or kind is bool


def holds_paths(value: Any) -> bool:
    """Whether a value is a `pathlib.Path`, or lists, tuples and dictionaries that hold some."""
    if type(value) is dict:
        value = list(value.values())
    return isinstance(value, pathlib.Path) or (type(value) in (list, tuple) and any(map(holds_paths, value)))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _store_json(ctx: Any, tree: Any) -> dict[str, Any]:
    """Store JSON data, inline if it is small."""
    try:
        text = orjson.dumps(tree)
    except TypeError as error:  # orjson's error is this, as are many others
        if "ecursion" in str(error):
            raise _NoFormError from error
        msg = f"a handler returned information that is no JSON data: {error}"
        raise ConfigTypeError(msg) from error
    if len(text) <= _INLINE:
        return {"content": orjson.Fragment(text)}
    info: dict[str, Any] = ctx.append(".json", text)
    return info


def _load_json(ctx: Any, info: dict[str, Any]) -> Any:
    if "content" in info:
        return info["content"]
    return orjson.loads(ctx.view(info["filename"], info["offset"], info["length"]))


def store_tree(ctx: Any, tree: Any, extent: int) -> dict[str, Any]:
    """Store a tree that JSON has a form for; ``extent`` is that of the context before its parts were stored."""
    if ctx.extent > extent:  # places of data stay in the journal, where `compact` can change them
        return {"content": tree}
    return _store_json(ctx, tree)


def encode_dict(value: dict[Any, Any], encode: Callable[[Any], Any], encode_key: Callable[[Any], Any] | None = None) -> Any:
    """A dictionary as JSON data, from a function for its parts; another one for its keys, if that is not the same."""
    if all(type(key) is str and key[:1] != "#" and _is_unicode(key) for key in value):
        return {key: encode(part) for key, part in value.items()}
    encode_key = encode_key or encode
    return {"#type": coder_name(dict), "content": [[encode_key(key), encode(part)] for key, part in value.items()]}


class Json:
    """JSON data: in the journal when it is small, else in one packed file per writer."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if not is_json(value):
            msg = "the value would not come back from JSON as it is: use cache_type='Auto', or none"
            raise ConfigTypeError(msg)
        return _store_json(ctx, value)

    @classmethod
    def __load_from_info__(cls, ctx: Any, **info: Any) -> Any:
        return _load_json(ctx, info)


class Auto:
    """Dictionaries, lists and other standard types, mixed with values of any other handler."""

    quiet = False

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        number_of_spans, extent = len(ctx.spans), ctx.extent
        try:
            if is_json(value):
                return {"#type": "Json", **_store_json(ctx, value)}
            kind = type(value)
            if kind in (dict, list) or kind in _CODERS:
                tree = cls._encode(ctx, value)
                return {"#type": cls.__name__, **store_tree(ctx, tree, extent)}
            part: dict[str, Any] = cls._dump_part(ctx, value)
            return part
        except (RecursionError, _NoFormError):  # it contains itself, or is very deep, or odd
            del ctx.spans[number_of_spans:]
            return pickles.fall_back(ctx, value, quiet=cls.quiet)

    @classmethod
    def __load_from_info__(cls, ctx: Any, **info: Any) -> Any:
        return decode(ctx, _load_json(ctx, info))

    @classmethod
    def encode_part(cls, ctx: Any, value: Any) -> Any:
        """A part of a tree, as JSON data; it may be anything."""
        number_of_spans = len(ctx.spans)
        try:
            return cls._encode(ctx, value)
        except (RecursionError, _NoFormError):  # as of a whole value
            del ctx.spans[number_of_spans:]
            return pickles.fall_back(ctx, value, quiet=cls.quiet)

    @classmethod
    def _encode(cls, ctx: Any, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return encode_dict(value, partial(cls._encode, ctx))
        if kind is list:
            return [cls._encode(ctx, part) for part in value]
        if is_json(value):
            return value
        coder = _CODERS.get(kind)
        if coder is None:
            return cls._dump_part(ctx, value)
        try:
            return {"#type": coder.name, "content": coder.encode(lambda part: cls._encode(ctx, part), value)}
        except _NoFormError:
            return pickles.fall_back(ctx, value, quiet=cls.quiet)

    @classmethod
    def _dump_part(cls, ctx: Any, value: Any) -> Any:
        """Store a value that is no standard type."""
        if handler_of_type(type(value)) is None:
            return pickles.fall_back(ctx, value, quiet=cls.quiet)
        return ctx.dump(value)


class AutoPickle(Auto):
    """Like `Auto`; what has no handler is pickled by choice, without a warning."""

    quiet = True


def coder_name(kind: type) -> str:
    """The ``#type`` of values of a standard type."""
    return f"std.{kind.__name__}"  # no class has such a name, so that no handler can have it


class _Coder:
    """A standard type: how its values become JSON data, and come back; both get a function for the parts."""

    def __init__(self, kind: type, encode: Callable[[Any, Any], Any], decode: Callable[[Any, Any], Any]) -> None:
        self.name = coder_name(kind)
        self.encode = encode
        self.decode = decode


def _pairs(part: Any, value: Any) -> list[Any]:
    return [[part(key), part(content)] for key, content in value.items()]


def _decoded_pairs(part: Any, content: Any) -> list[Any]:
    return [(part(key), part(value)) for key, value in content]


def _items(part: Any, value: Any) -> list[Any]:
    return [part(item) for item in value]


def _decode_int(_: Any, content: str) -> int:
    return int(content, 16)


def _moment(part: Any, value: Any) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, part(value.tzinfo)]


def _decoded_moment(kind: Any) -> Callable[[Any, Any], Any]:
    return lambda part, c: kind.fromisoformat(c[0]).replace(fold=c[1], tzinfo=part(c[2]))


_FACTORIES = {factory.__name__: factory for factory in (int, float, str, list, dict, set, tuple)}


def _default_dict(part: Any, value: Any) -> list[Any]:
    factory = value.default_factory
    if factory is not None and factory not in _FACTORIES.values():
        raise _NoFormError
    return [factory and factory.__name__, _pairs(part, value)]


def _zone(_: Any, value: Any) -> str:
    if value.key is None:
        raise _NoFormError
    key: str = value.key
    return key


class _NoFormError(TypeError):
    """A value of a standard type with something unusual about it."""


def _coders() -> dict[type, _Coder]:
    def text(kind: type, make: Callable[[Any], Any] | None = None) -> _Coder:
        return _Coder(kind, lambda part, value: part(str(value)), lambda part, content: (make or kind)(part(content)))

    def container(kind: type) -> _Coder:
        return _Coder(kind, _items, lambda part, content: kind(map(part, content)))

    def binary(kind: type) -> _Coder:
        return _Coder(kind, lambda _, v: base64.b64encode(v).decode(), lambda _, c: kind(base64.b64decode(c)))

    def three(kind: type) -> _Coder:
        return _Coder(kind, lambda part, v: [part(v.start), part(v.stop), part(v.step)], lambda part, c: kind(*map(part, c)))

    surrogates = ("utf-8", "surrogatepass")
    delta = datetime.timedelta
    return {
        str: _Coder(
            str,
            lambda _, v: base64.b64encode(v.encode(*surrogates)).decode(),
            lambda _, c: base64.b64decode(c).decode(*surrogates),
        ),
        int: _Coder(int, lambda _, v: hex(v), _decode_int),
        float: _Coder(float, lambda _, v: repr(v), lambda _, c: float(c)),
        complex: _Coder(complex, lambda part, v: [part(v.real), part(v.imag)], lambda part, c: complex(*map(part, c))),
        tuple: container(tuple),
        set: container(set),
        frozenset: container(frozenset),
        bytes: binary(bytes),
        bytearray: binary(bytearray),
        range: three(range),
        slice: three(slice),
        datetime.datetime: _Coder(datetime.datetime, _moment, _decoded_moment(datetime.datetime)),
        datetime.time: _Coder(datetime.time, _moment, _decoded_moment(datetime.time)),
        datetime.date: text(datetime.date, datetime.date.fromisoformat),
        delta: _Coder(delta, lambda _, v: [v.days, v.seconds, v.microseconds], lambda _, c: delta(*c)),
        datetime.timezone: _Coder(
            datetime.timezone,
            lambda part, v: _items(part, v.__getinitargs__()),
            lambda part, c: datetime.timezone(*map(part, c)),
        ),
        zoneinfo.ZoneInfo: _Coder(zoneinfo.ZoneInfo, _zone, lambda _, c: zoneinfo.ZoneInfo(c)),
        decimal.Decimal: text(decimal.Decimal),
        fractions.Fraction: text(fractions.Fraction),
        uuid.UUID: text(uuid.UUID),
        pathlib.PosixPath: text(pathlib.PosixPath),
        pathlib.PurePosixPath: text(pathlib.PurePosixPath),
        pathlib.PureWindowsPath: text(pathlib.PureWindowsPath),
        OrderedDict: _Coder(OrderedDict, _pairs, lambda part, c: OrderedDict(_decoded_pairs(part, c))),
        defaultdict: _Coder(
            defaultdict, _default_dict, lambda part, c: defaultdict(_FACTORIES.get(c[0]), _decoded_pairs(part, c[1]))
        ),
        Counter: _Coder(Counter, _pairs, lambda part, c: Counter(dict(_decoded_pairs(part, c)))),
        deque: _Coder(deque, lambda part, v: [_items(part, v), v.maxlen], lambda part, c: deque(map(part, c[0]), c[1])),
    }


_CODERS = _coders()
_DECODERS = {coder.name: coder.decode for coder in _CODERS.values()}
_DECODERS[coder_name(dict)] = lambda part, content: dict(_decoded_pairs(part, content))


def decode(ctx: Any, tree: Any) -> Any:
    """The value of a tree in which `Auto` stored it."""
    kind = type(tree)
    if kind is list:
        return [decode(ctx, part) for part in tree]
    if kind is not dict:
        return tree
    name = tree.get("#type")
    if name is None:
        return {key: decode(ctx, part) for key, part in tree.items()}
    decoder = _DECODERS.get(name)
    if decoder is None:
        return ctx.load(tree)
    return decoder(lambda part: decode(ctx, part), tree["content"])


def to_tree(value: Any) -> Any:
    """A value of standard types as JSON data."""
    return value if is_json(value) else Auto._encode(None, value)


def from_tree(tree: Any) -> Any:
    """The value of a `to_tree`."""
    return decode(None, tree)


HANDLERS = {"Auto": Auto, "AutoPickle": AutoPickle, "Json": Json}
TYPE_DEFAULTS: dict[type, Any] = {}
