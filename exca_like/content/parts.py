"""The bytes that are digested: each part has a type tag and, where it is free, a length."""

import math
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

Parts = list[Any]  # of bytes, or of what has their buffer

DIGEST_SIZE = 16  # bytes


class NoKeyError(Exception):
    """A value has no key; collects the way to it while the stack unwinds."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__()
        self.value = value
        self.reason = reason
        self.path: list[str] = []


def digest_of_parts(parts: Iterable[Any]) -> bytes:
    """16 bytes that stand for bytes, one after the other."""
    found = blake2b(digest_size=DIGEST_SIZE)
    for part in parts:
        found.update(part)
    return found.digest()


def feed_tag(text: str, parts: Parts) -> None:
    data = text.encode("utf-8", "surrogatepass")
    parts.append(b"<%d:%b>" % (len(data), data))


def feed_text(value: str, parts: Parts) -> None:
    data = value.encode("utf-8", "surrogatepass")
    parts.append(b"s%d:%b" % (len(data), data))


def _float_text(value: float) -> bytes:
    return b"nan" if math.isnan(value) else value.hex().encode()


SCALARS: dict[type, Callable[[Any, Parts], None]] = {
    str: feed_text,
    int: lambda value, parts: parts.append(b"i%x;" % value),
    bool: lambda value, parts: parts.append(b"T" if value else b"F"),
    type(None): lambda _, parts: parts.append(b"N"),
    float: lambda value, parts: parts.append(b"f%b;" % _float_text(value)),
    complex: lambda value, parts: parts.append(b"c%b,%b;" % (_float_text(value.real), _float_text(value.imag))),
    bytes: lambda value, parts: parts.append(b"b%d:%b" % (len(value), value)),
    bytearray: lambda value, parts: parts.append(b"B%d:%b" % (len(value), bytes(value))),
    type(...): lambda _, parts: parts.append(b"<...>"),
    type(NotImplemented): lambda _, parts: parts.append(b"<NotImplemented>"),
}
