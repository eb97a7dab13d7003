"""The uid of a config (scheme 4): a readable text and a digest.

Two configs have the same uid exactly when their *normal forms* are equal: numpy scalars are their Python value,
numbers with an integer value are that int, paths are their text, lists and tuples are one kind, sets have no order,
plain dictionaries neither, an ``OrderedDict`` does.

The text is *exact* when it can only be read back as this one config. Then a short digest suffices (it keeps names
apart on file systems that ignore case, and equals what exca wrote for simple configs). In all other cases the
digest is 64 bits of blake2b over the canonical encoding of the whole normal form (`exca_like.canonical`).
"""

import functools
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

try:  # half the time of OpenSSL's, which hashlib prefers
    from _md5 import md5  # type: ignore[import-not-found]
except ImportError:  # a Python built without it
    from hashlib import md5

from exca_like import canonical
from exca_like.dotted import escape
from exca_like.operators import LONG, SCALARS, reject_operators

MAX_TEXT_LENGTH = 128
_CUT_MARK = "..."
_MAX_FLOAT_LENGTH = 8

_EXACT_KEY = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")  # of a chain
_EXACT_STRING = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
# strings whose text could be taken for another value
_WORDS = frozenset(("none", "null", "true", "false", "yes", "no", "on", "off", "nan", "inf"))
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+(){}-]")

# a rendered value: its text, and the comma-joined hashes of its leaves ("" if it has none, None if it is not exact)
_Rendered = tuple[str, str | None]


def config_uid(config: Mapping[str, Any]) -> str:
    """Uid of a (nested) config; ``""`` for the empty one.

    Raises
    ------
    TypeError
        A value has no identity; the message names its dotted key and how to give it one.
    ValueError
        The config holds an unresolved operator.
    """
    if not config:
        return ""
    text, hashes = _render_ordered(config) if isinstance(config, OrderedDict) else _render_dict(config)
    if hashes is not None and len(text) <= MAX_TEXT_LENGTH:
        return f"{text}-{md5(hashes.encode(), usedforsecurity=False).hexdigest()[:8]}"
    reject_operators(config)
    digest = hashlib.blake2b(canonical.encode(config), digest_size=8).hexdigest()
    text = text.lstrip(".-")  # hidden files, options of commands
    if len(text) > MAX_TEXT_LENGTH:
        text = text[: MAX_TEXT_LENGTH - len(_CUT_MARK)] + _CUT_MARK
    return f"{text}-{digest}"


def text_of(value: Any) -> str:
    """The readable text of a value, without characters that file systems dislike; not exact."""
    return _render(value)[0]


def _render(value: Any) -> _Rendered:
    kind = type(value)
    if kind is str:
        return _render_string(value) if len(value) < LONG else _render_string.__wrapped__(value)
    if kind is bool or value is None:
        return str(value), str(value)
    if kind is int:
        return _render_int(value)
    if kind is float:
        return _render_float(value)
    if isinstance(value, OrderedDict):
        text, hashes = _render_ordered(value)
        return "{" + text + "}", hashes
    if kind is dict or isinstance(value, Mapping):
        text, hashes = _render_dict(value)
        return "{" + text + "}", hashes
    if kind is list or kind is tuple:
        rendered = [_render(item) for item in value]
        return f"({','.join([text for text, _ in rendered])})", _join([hashes for _, hashes in rendered])
    return _render_other(value)


def _render_dict(config: Mapping[str, Any]) -> _Rendered:
    parts = []
    for name, item in config.items():
        key, value = _name(name), item
        while type(value) not in SCALARS and _is_chain_link(value):
            ((sub, value),) = value.items()
            key = f"{key}.{_name(sub)}"
        is_short = type(value) in SCALARS and (type(value) is not str or len(value) < LONG)
        parts.append(_scalar_part(key, value) if is_short else _part(key, value))
    parts.sort()  # raw keys differ, so hashes are never compared
    return ",".join([part[1] for part in parts]), _join([part[3] for part in parts])


def _name(key: Any) -> str:
    """A key as part of a dotted one; that of an argument's dictionary may be no text, and is not exact then."""
    return escape(key) if isinstance(key, str) else f"{key}:"


def _part(key: str, value: Any) -> tuple[int, str, str, str | None]:
    clean, exact = _clean_key(key)
    text, hashes = _render(value)
    part = f"{clean}={text}"
    return len(part), part, key, hashes if exact else None


_scalar_part = functools.lru_cache(4096, typed=True)(_part)  # a grid has few values, in many combinations


def _is_chain_link(value: Any) -> bool:
    if type(value) is not dict and (not isinstance(value, Mapping) or isinstance(value, OrderedDict)):
        return False
    return len(value) == 1


def _render_ordered(config: OrderedDict[str, Any]) -> _Rendered:
    return ",".join(f"{_clean_key(_name(key))[0]}={_render(value)[0]}" for key, value in config.items()), None


def _join(hashes: list[str | None]) -> str | None:
    return None if None in hashes else ",".join([item for item in hashes if item])


@functools.lru_cache(4096)
def _clean_key(key: str) -> tuple[str, bool]:
    return _UNSAFE.sub("", key), _EXACT_KEY.fullmatch(key) is not None


@functools.lru_cache(4096)
def _render_string(value: str) -> _Rendered:
    if _EXACT_STRING.fullmatch(value) and value.lower() not in _WORDS:
        return value, value
    return _UNSAFE.sub("", value), None


def _render_int(value: int) -> _Rendered:
    if value.bit_length() > 1000:  # longer than any uid, and Python refuses to print very long ones
        return f"{value:x}", None
    return str(value), str(value)


def _render_float(value: float) -> _Rendered:
    if value.is_integer():
        return _render_int(int(value))
    text = repr(value)
    if len(text) > _MAX_FLOAT_LENGTH:
        text = f"{value:.2e}"
    return text, str(hash(value)) if float(text) == value else None


def _render_other(value: Any) -> _Rendered:
    normal = canonical.normalize(value)
    if normal is not value:
        return _render(normal)
    if isinstance(value, set | frozenset):
        return f"({','.join(sorted({_render(item)[0] for item in value}))})", None
    if isinstance(value, PurePath):
        return _render(str(value))
    return _UNSAFE.sub("", canonical.describe(value)), None
