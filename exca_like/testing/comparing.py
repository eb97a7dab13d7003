"""Whether values came back as they were, and how to name them in messages."""

import datetime
import math
import sys
from collections import deque
from typing import Any

import orjson


def same(loaded: Any, value: Any) -> bool:
    """Whether two values are equal in type, order and every bit, NaN and the sign of zero included.

    Standard types, containers of them, and numpy's arrays and scalars are compared by their parts; anything else by
    ``==``.
    """
    if type(loaded) is not type(value):
        return False
    if isinstance(value, dict):
        return same([*loaded.items()], [*value.items()]) and _attributes(loaded) == _attributes(value)
    if isinstance(value, list | tuple | deque):
        return len(loaded) == len(value) and all(map(same, loaded, value)) and _attributes(loaded) == _attributes(value)
    if isinstance(value, set | frozenset):
        return len(loaded) == len(value) and all(any(same(found, part) for part in value) for found in loaded)
    if isinstance(value, slice):
        return same([loaded.start, loaded.stop, loaded.step], [value.start, value.stop, value.step])
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return _same_arrays(loaded, value)
    if isinstance(value, float | complex | datetime.datetime | datetime.time):  # NaN, -0.0; time zones and folds
        return repr(loaded) == repr(value)
    return bool(loaded == value)


def _attributes(value: Any) -> list[Any]:
    return [getattr(value, name, None) for name in ("default_factory", "maxlen")]


def _same_arrays(loaded: Any, value: Any) -> bool:
    import numpy as np  # only where it is in use

    if value is np.ma.masked:
        return loaded is value
    kind = value.dtype
    if loaded.shape != value.shape or loaded.dtype != kind or (loaded.dtype.type is np.record) != (kind.type is np.record):
        return False
    if isinstance(value, np.ma.MaskedArray):
        parts = ("data", "mask", "fill_value", "hardmask")
        return all(same(np.asarray(getattr(loaded, part)), np.asarray(getattr(value, part))) for part in parts)
    if kind.names is not None:
        return all(same(np.asarray(loaded[name]), np.asarray(value[name])) for name in kind.names)
    if kind.hasobject:
        return same(list(np.asarray(loaded).reshape(-1)), list(np.asarray(value).reshape(-1)))
    if isinstance(value, str | bytes):  # numpy's scalars, whose method `tobytes` leaves out zeros at the end
        return bool(loaded[:] == value[:])
    if kind.char in "gG":  # these have bytes that mean nothing
        return repr(loaded.tolist()) == repr(value.tolist())
    return bool(loaded.tobytes() == value.tobytes())


def name_of(kind: type) -> str:
    """A type's name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def brief(value: Any) -> str:
    """A value in a message."""
    try:
        text = repr(value)
    except Exception:  # integers with very many digits have none, and what contains such
        return f"a {name_of(type(value))}"
    return f"{text[:80]}... ({name_of(type(value))})" if len(text) > 80 else text


def assert_json(info: Any, name: str = "info") -> None:
    """JSON has a form for all parts of an info, and gives them back."""
    if isinstance(info, dict):
        for key, part in info.items():
            assert type(key) is str, f"{name} has the key {key!r}: it must be JSON data, whose keys are strings"
            assert_json(part, f"{name}[{key!r}]")
    elif type(info) in (list, tuple):
        for number, part in enumerate(info):
            assert_json(part, f"{name}[{number}]")
    elif type(info) is float:
        assert math.isfinite(info), f"{name} is {info}, which JSON has no form for"
    else:
        known = info is None or type(info) in (str, int, bool, orjson.Fragment)
        assert known, f"{name} is {brief(info)}: __dump_info__ must return JSON data (dict, list, str, int, float, bool, None)"
