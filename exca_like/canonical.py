"""Canonical bytes of a value: equal for equal values, in every process and on every platform.

Each value is written with a type tag and, where its content is free, a length, so that no two values share their
bytes. Nothing is ever taken from a ``repr``.
"""

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import math
import re
import sys
import types
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from exca_like.errors import ConfigTypeError
from exca_like.names import qualified_name

STAND_IN = "__exca_like_stand_in__"
"""Attribute of classes whose values have a ``uid`` of what they stand for."""


class _NoIdentityError(Exception):
    """A value has no canonical bytes; collects the way to it while the stack unwinds."""

    def __init__(self, value: Any, reason: str = "") -> None:
        super().__init__()
        self.value = value
        self.reason = reason
        self.path: list[str] = []


def encode(value: Any) -> bytes:
    """Canonical bytes of a value.

    Supported: None, bool, numbers (also Decimal and Fraction), str, bytes, paths, dates and times, UUID, enums,
    ranges, regular expressions, dictionaries, sequences, sets, dataclasses, importable classes and functions,
    numpy arrays and scalars, torch tensors, pandas objects.

    Raises
    ------
    TypeError
        The value, or one inside, has no identity that another process would find again.
    """
    try:
        return _encode(value)
    except _NoIdentityError as error:
        where = "".join(f"{part}." for part in reversed(error.path))[:-1]
        kind = type(error.value)
        reason = error.reason or f"a value of type {kind.__module__}.{kind.__qualname__} can't be told from others"
        msg = (
            f"{where}{': ' if where else ''}{reason}. Give it an identity: replace it by a sub-model or a dataclass that "
            "holds its settings, by a string, or (for a class or a function) define it at the top level of a module; "
            "or leave the field out of the uid with _exclude_from_cls_uid."
        )
        raise ConfigTypeError(msg) from None


def normalize(value: Any) -> Any:
    """The plain Python value that a numpy scalar or a subclass of a number or a string stands for, else the value."""
    if isinstance(value, enum.Enum):
        return value
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        item = value.item()
        # an item that is no Python number (datetime64[ns] gives an int, longdouble itself) stays what it is
        if type(item) is str or (isinstance(item, bool | int | float | complex) and value.dtype.kind in "biufc"):
            return item
    return value


def describe(value: Any) -> str:
    """A short readable text for a value that has no exact one: not unique, but equal where canonical bytes are."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__qualname__
    if isinstance(value, decimal.Decimal):
        return "nan" if value.is_nan() else f"{float(value) + 0.0:g}"
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, complex):
        return str(value + 0)  # without negative zeros
    if isinstance(value, fractions.Fraction | uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return "bytes"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        dtype: Any = getattr(value, "dtype", type(value).__name__)
        if getattr(dtype, "byteorder", "") in ("<", ">"):
            dtype = dtype.newbyteorder("=")
        kind = "record" if getattr(dtype, "names", None) else dtype
        return f"{kind}-{'x'.join(map(str, shape)) or 'scalar'}"
    return type(value).__name__


def _encode(value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        text = value.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if kind is bool:
        return b"T;" if value else b"F;"
    if value is None:
        return b"N;"
    if kind is int:
        return b"i%x;" % value
    if kind is float:
        return _encode_float(value)
    if isinstance(value, OrderedDict):
        return b"o%d:" % len(value) + b"".join(_encode(key) + _at(key, item) for key, item in value.items())
    if isinstance(value, Mapping):
        pairs = sorted((_encode(key), key) for key in value) if _all_strings(value) else None
        if pairs is not None:
            return b"d%d:" % len(pairs) + b"".join(encoded + _at(key, value[key]) for encoded, key in pairs)
        entries = sorted(_encode(key) + _at(str(key), item) for key, item in value.items())
        return b"m%d:" % len(entries) + b"".join(entries)
    if isinstance(value, list | tuple):
        if hasattr(value, "_fields"):  # a named tuple is a sequence here, like a tuple
            value = tuple(value)
        return b"l%d:" % len(value) + b"".join(_at(str(index), item) for index, item in enumerate(value))
    if isinstance(value, set | frozenset):
        members = sorted({_encode(item) for item in value})  # items that differ can have one normal form, like two NaN
        return b"S%d:" % len(members) + b"".join(members)
    normal = normalize(value)
    if normal is not value:
        return _encode(normal)
    for bases, encoder in _ENCODERS:
        if isinstance(value, bases):
            return _tagged(*encoder(value))
    return _encode_foreign(value)


def _at(key: str, value: Any) -> bytes:
    try:
        return _encode(value)
    except _NoIdentityError as error:
        error.path.append(str(key))
        raise


def _all_strings(mapping: Mapping[Any, Any]) -> bool:
    return all(type(key) is str for key in mapping)


def _encode_float(value: float) -> bytes:
    if value.is_integer():
        return b"i%x;" % int(value)
    return b"fnan;" if math.isnan(value) else b"f%b;" % value.hex().encode()


def _tagged(tag: str, content: Any) -> bytes:
    parts = content if type(content) is tuple else (content,)  # made here: no step on the way to a value
    return b"x%d:" % len(parts) + _encode(tag) + b"".join(map(_encode, parts))


def _encode_decimal(value: decimal.Decimal) -> tuple[str, Any]:
    if not value.is_finite():
        return "decimal", "nan" if value.is_nan() else str(value)
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    short = text.rstrip("0")  # 1.0 and 1.00 are equal
    return "decimal", ("0", 0) if not short else (f"{'-' if sign else ''}{short}", int(exponent) + len(text) - len(short))


def _encode_object(value: Any) -> tuple[str, Any]:
    """A class or a function, by the name under which it can be imported."""
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, type | types.ModuleType):
        raise _NoIdentityError(value, f"the bound method {value.__qualname__} depends on its object")
    if "<" in value.__qualname__ or getattr(value, "__module__", None) is None:
        raise _NoIdentityError(value, f"{value.__qualname__} (a lambda or a local definition) has no name to find it again")
    if isinstance(owner, type):  # a class method is named after the class that defines it
        return "method", (qualified_name(owner), value.__name__)
    return "object", qualified_name(value)


def _is_importable(value: Any) -> bool:
    """Whether a callable that is no plain function (numpy's are none) is found under its qualified name."""
    name, found = getattr(value, "__qualname__", None), sys.modules.get(getattr(value, "__module__", None) or "")
    if not callable(value) or not isinstance(name, str):
        return False
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _encode_dataclass(value: Any) -> tuple[str, Any]:
    content = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return "dataclass", (qualified_name(type(value)), content)


_ENCODERS: tuple[tuple[Any, Callable[[Any], tuple[str, Any]]], ...] = (
    (enum.Enum, lambda v: ("enum", (qualified_name(type(v)), v.name))),
    (bytes | bytearray, lambda v: ("bytes", v.hex())),
    (complex, lambda v: ("complex", (v.real, v.imag))),
    (decimal.Decimal, _encode_decimal),
    (fractions.Fraction, lambda v: ("fraction", (v.numerator, v.denominator))),
    (datetime.datetime, lambda v: ("datetime", v.isoformat())),
    (datetime.date, lambda v: ("date", v.isoformat())),
    (datetime.time, lambda v: ("time", v.isoformat())),
    (datetime.timedelta, lambda v: ("timedelta", (v.days, v.seconds, v.microseconds, getattr(v, "nanoseconds", 0)))),
    (uuid.UUID, lambda v: ("uuid", v.hex)),
    (range, lambda v: ("range", (v.start, v.stop, v.step))),
    (re.Pattern, lambda v: ("pattern", (v.pattern, v.flags))),
    (functools.partial, lambda v: ("partial", (v.func, v.args, v.keywords))),
    (type, _encode_object),
    (types.FunctionType | types.BuiltinFunctionType | types.MethodType, _encode_object),
)


def _encode_foreign(value: Any) -> bytes:
    """Values of libraries that are only looked at once they were imported."""
    if isinstance(value, PurePath):
        return _encode(str(value))
    numpy, torch, pandas = (sys.modules.get(name) for name in ("numpy", "torch", "pandas"))
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return _encode_array(numpy, value)
    if torch is not None and isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            raise _NoIdentityError(value, "a sparse tensor has no canonical layout: use tensor.to_dense()")
        data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        return _tagged("tensor", (str(value.dtype), tuple(value.shape))) + _raw(data.numpy().tobytes())
    if pandas is not None:
        if value is pandas.NA or value is pandas.NaT:
            return _tagged("pandas", str(value))
        if isinstance(value, pandas.DataFrame):
            columns = [value.iloc[:, number] for number in range(value.shape[1])]
            content = (value.columns, value.index, [_series_content(column) for column in columns])
            return _tagged("dataframe", content)
        if isinstance(value, pandas.Series):
            return _tagged("series", (value.name, value.index, _series_content(value)))
        if isinstance(value, pandas.Index):
            return _tagged("index", (list(value.names), _series_content(value)))
    if dataclasses.is_dataclass(value):
        return _tagged(*_encode_dataclass(value))
    if hasattr(type(value), STAND_IN):
        return _tagged("stand-in", value.uid)
    if _is_importable(value):
        return _tagged(*_encode_object(value))
    raise _NoIdentityError(value)


def _series_content(series: Any) -> tuple[str, Any]:
    if getattr(series.dtype, "kind", "O") in "biufcmM" and isinstance(series.dtype, sys.modules["numpy"].dtype):
        return str(series.dtype), series.to_numpy()
    categories = getattr(series.dtype, "categories", None)
    extra = () if categories is None else (list(categories), bool(series.dtype.ordered))
    return str(series.dtype), (extra, series.astype(object).tolist())


def _encode_array(numpy: Any, value: Any) -> bytes:
    array = numpy.asarray(value)
    if not array.dtype.hasobject:  # platforms, and pickling, may change the order of bytes
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    head = _tagged("array", (array.dtype.str, array.shape))
    if isinstance(value, numpy.ma.MaskedArray):
        return _tagged("masked", ()) + _encode_array(numpy, value.filled()) + _encode_array(numpy, numpy.ma.getmaskarray(value))
    if array.dtype.names is not None:  # field by field: the padding between fields is arbitrary
        names = array.dtype.names
        return _tagged("record", (array.shape, names)) + b"".join(_encode_array(numpy, array[name]) for name in names)
    if array.dtype.hasobject:
        return head + _encode(array.ravel().tolist())
    return head + _raw(array.tobytes())


def _raw(data: bytes) -> bytes:
    return b"r%d:%b" % (len(data), data)
