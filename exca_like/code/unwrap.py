"""Functions under what decorators and bindings have made of them."""

import functools
import types
from collections.abc import Mapping
from typing import Any


def unwrapped(value: Any) -> types.FunctionType | None:
    """The function under decorators; None if there is none."""
    for _ in range(20):
        if isinstance(value, types.FunctionType):
            inner = value.__dict__.get("__wrapped__")
            if inner is None:
                return value
        elif isinstance(value, staticmethod | classmethod | types.MethodType):
            inner = value.__func__
        elif isinstance(value, functools.partial):
            inner = value.func
        else:
            inner = attributes_of(value).get("__wrapped__")
        if inner is None:
            return None
        value = inner
    return None


def attributes_of(value: Any) -> Mapping[str, Any]:
    """The attributes of an object that it has by itself: some objects run code when they are asked for others."""
    try:
        found: Mapping[str, Any] = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return found
