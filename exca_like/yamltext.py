"""Configs as yaml text.

Yaml is written at the first use of every cache folder, and libyaml needs 130 to 200 µs for a file: documents made
of plain values are emitted here directly, with the very text libyaml would give (tests compare the two), all others
by libyaml, which is loaded when it is first needed. An ``OrderedDict`` is written as ``!!omap``, the yaml type for it,
so that it is read back as one.
"""

import datetime
import enum
import functools
import math
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any

from exca_like.dotted import can_join, escape
from exca_like.errors import ConfigTypeError, ConfigValueError
from exca_like.operators import LONG, SCALARS

_NO_FOLDING = 2**31 - 1  # libyaml counts in C ints
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_PLAIN_STRING = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.-]*")
_NUMBER_STRING = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*)?")  # like versions, which would be read as numbers without quotes
# words that yaml 1.1 reads as something else than a string
_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))


class _NeedsLibyamlError(Exception):
    """The document holds something that is not emitted directly."""


class _Ordered(list[tuple[str, Any]]):
    """Pairs to be written as ``!!omap``."""


@functools.cache
def _dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is the base class's
            return True

    Dumper.add_representer(_Ordered, _write_ordered)
    return Dumper


@functools.cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        pass

    Loader.add_constructor("tag:yaml.org,2002:omap", _read_ordered)
    return Loader


def _write_ordered(dumper: Any, pairs: _Ordered) -> Any:
    return dumper.represent_sequence("tag:yaml.org,2002:omap", [{key: value} for key, value in pairs])


def _read_ordered(loader: Any, node: Any) -> Iterator[OrderedDict[str, Any]]:
    ordered: OrderedDict[str, Any] = OrderedDict()
    yield ordered
    for entry in node.value:
        ordered.update(loader.construct_mapping(entry, deep=True))


def dump(config: Mapping[str, Any]) -> str:
    """Yaml text of a config; raises `TypeError` naming the key of a value that has no yaml form."""
    try:
        return _emit(config)
    except _NeedsLibyamlError:
        plain = _plain(config, "")
    try:
        return _emit(plain)
    except _NeedsLibyamlError:
        return _libyaml(_joined(plain))


def load(source: str | Path | IO[str] | IO[bytes]) -> dict[str, Any]:
    """Read a yaml mapping from a text, a path or an open file."""
    import yaml

    name = "the given text"
    content: Any = source
    if isinstance(source, PurePath) or (isinstance(source, str) and "\n" not in source and os.path.isfile(source)):
        name = str(source)
        content = Path(source).read_bytes()
    elif not isinstance(source, str):
        name = str(getattr(source, "name", source))
    try:
        data = yaml.load(content, Loader=_loader())  # noqa: S506 - derives from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{name} is not valid yaml: {error}"
        raise ConfigValueError(msg) from error
    if not isinstance(data, dict):
        shown = repr(source) if isinstance(source, str) else name
        content = "nothing" if data is None else f"a {type(data).__name__}"
        msg = f"a config is a yaml mapping (key: value), but {shown[:200]} holds {content}"
        raise ConfigTypeError(msg)
    return data


def _libyaml(plain: Any) -> str:
    import yaml

    text: str = yaml.dump(
        plain, Dumper=_dumper(), sort_keys=False, default_flow_style=False, allow_unicode=True, width=_NO_FOLDING
    )
    return text


def _plain(value: Any, path: str) -> Any:
    """Reduce a value to what yaml knows: dict, list, `_Ordered` and scalars."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if isinstance(value, OrderedDict):
        return _Ordered((key, _plain(item, f"{path}.{key}")) for key, item in value.items())
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}.{index}") for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, path) for item in value), key=repr)
    if isinstance(value, enum.Enum):
        return _plain(value.value, path)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime.date | bytes):  # datetimes are dates
        return value
    if isinstance(value, datetime.time):
        return value.isoformat()
    for base in (str, bool, int, float):
        if isinstance(value, base):
            return base(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _plain(value.item(), path)
    msg = f"{path}: a value of type {kind.__module__}.{kind.__qualname__} has no yaml form; store its settings instead"
    raise ConfigTypeError(msg)


def _joined(plain: Any) -> Any:
    """What `_plain` gives, with chains of single keys joined by dots."""
    if isinstance(plain, _Ordered):
        return _Ordered((escape(key), _joined(item)) for key, item in plain)
    if type(plain) is dict:
        return {key: _joined(item) for key, item in map(_end_of_chain, plain, plain.values())}
    return [_joined(item) for item in plain] if type(plain) is list else plain


def _end_of_chain(name: str, value: Any) -> tuple[str, Any]:
    """The dotted key of a chain of single keys, and what is at its end."""
    key = escape(name)
    while type(value) not in SCALARS and _is_dict(value) and len(value) == 1:
        ((last, content),) = value.items()
        if not can_join(key, last):
            break
        key, value = f"{key}.{escape(last)}", content
    return key, value


def _emit(config: Mapping[str, Any]) -> str:
    lines: list[str] = []
    _emit_mapping(config, "", lines)
    return "".join(lines) if lines else "{}\n"


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict) and not isinstance(value, OrderedDict)


def _emit_mapping(node: Mapping[str, Any], indent: str, lines: list[str], first: str | None = None) -> None:
    prefix = indent if first is None else first
    for name, item in node.items():
        key, value = _end_of_chain(name, item)
        if type(value) in SCALARS:
            # 0.0 and -0.0 are equal
            is_known = type(value) is not float and (type(value) is not str or len(value) < LONG)
            lines.append(prefix + (_line if is_known else _line.__wrapped__)(key, value))
        elif _is_dict(value) and value:
            lines.append(f"{prefix}{_key(key)}:\n")
            _emit_mapping(value, indent + "  ", lines)
        elif type(value) is list and value:
            lines.append(f"{prefix}{_key(key)}:\n")
            _emit_list(value, indent, lines)
        else:
            lines.append(f"{prefix}{_key(key)}: {_scalar(value)}\n")
        prefix = indent


def _emit_list(node: list[Any], indent: str, lines: list[str], first: str | None = None) -> None:
    for value in node:
        prefix = (indent if first is None else first) + "- "
        first = None
        if _is_dict(value) and value:
            _emit_mapping(value, indent + "  ", lines, first=prefix)
        elif type(value) is list and value:
            _emit_list(value, indent + "  ", lines, first=prefix)
        else:
            lines.append(f"{prefix}{_scalar(value)}\n")


@functools.lru_cache(4096)
def _key(key: str) -> str:
    """A key, if it is surely right as it is."""
    if _PLAIN_KEY.fullmatch(key) is None or key.lower() in _WORDS or len(key) >= 100:
        raise _NeedsLibyamlError
    return key


@functools.lru_cache(4096, typed=True)
def _line(key: str, value: Any) -> str:
    """The line of a scalar, which most configs of a class have in common."""
    return f"{_key(key)}: {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _string(value) if len(value) < LONG else _string.__wrapped__(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        if math.isfinite(value):
            text = repr(value)
            # without a dot, yaml 1.1 reads 1e-05 as a string
            return text.replace("e", ".0e") if "e" in text and "." not in text else text
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if _is_dict(value):
        return "{}"
    if kind is list:
        return "[]"
    raise _NeedsLibyamlError


@functools.lru_cache(4096)
def _string(text: str) -> str:
    """A string as a value: as it is if that is surely right, else libyaml's own rendering, asked for once."""
    if _PLAIN_STRING.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if _NUMBER_STRING.fullmatch(text):
        return f"'{text}'"
    rendered = _libyaml({"k": text})
    if not (rendered.startswith("k: ") and rendered.count("\n") == 1):
        raise _NeedsLibyamlError
    return rendered[3:-1]
