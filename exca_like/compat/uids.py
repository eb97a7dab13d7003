"""Uids of configurations, spelled exactly as exca 0.6 spells them (schemes 2 and 3).

A uid is ``<text>-<digest>``: a readable, cleaned and shortened rendering of the configuration,
then 8 hexadecimal digits of the md5 of its *source*, which is neither cleaned nor shortened. Both
schemes walk through the configuration the same way, and differ in how they spell and order the
pieces: ``_Scheme3`` and ``_Scheme2``.

A few uids are not a function of the content of the configuration, and exca itself does not write
the same one in two processes. They match for the same objects in the same process only:

- nan is digested through ``hash(nan)``, which is an address in memory;
- the members of a set are sorted by text, so those which share the same text (``"ab"`` and
  ``"a:b"``) stay in the order of the set, hence depend on ``PYTHONHASHSEED``;
- arrays of objects or of variable-length strings are digested from addresses in memory.

Two kinds of configurations for which exca fails get a uid here: those with an array as direct
value of a plain dict, and those with strings ``=<name>=``, which it reserves for operations.
Masked arrays match in scheme 2 only.
"""

import abc
import decimal
import fractions
import hashlib
import math
import pathlib
import re
import sys
import typing as tp
from collections import OrderedDict
from collections.abc import Mapping

__all__ = ["legacy_uid"]


def legacy_uid(config: Mapping[str, tp.Any], version: int) -> str:
    """Compute the uid which exca writes for a configuration.

    Parameters
    ----------
    config : Mapping[str, Any]
        Nested configuration, with keys already split on dots. Values can be mappings, lists,
        tuples, sets, strings, paths, numbers, booleans, None, numpy arrays and torch tensors.
        The order of keys only matters for nested ``OrderedDict`` in scheme 3.
    version : int
        Scheme of the uid, 2 or 3.

    Returns
    -------
    str
        The uid, or an empty string for an empty configuration.

    Raises
    ------
    TypeError
        If the type of a value or of a key is not supported by exca.
    ValueError
        If the version is not 2 or 3.
    """
    if version not in _SCHEMES:
        msg = f"Unknown uid version {version!r}, expected one of {sorted(_SCHEMES)}"
        raise ValueError(msg)
    return _SCHEMES[version].uid(config) if config else ""


class _Item(tp.NamedTuple):
    """A value, as spelled in the text and in the source of the digest."""

    text: str
    source: str


class _Entry(tp.NamedTuple):
    """A value with its key."""

    key: str
    item: _Item


class _Scheme(abc.ABC):
    """Walk through a configuration, leaving to subclasses how to spell and order the pieces."""

    brackets: str  # around the text of sequences
    dropped: re.Pattern[str]  # characters which are not allowed in the text

    @abc.abstractmethod
    def text(self, content: str, brackets: str = "") -> str:
        """Text of a value, shortened and with brackets around it (if any)."""

    @abc.abstractmethod
    def full_text(self, content: str) -> str:
        """Text of the full configuration, shortened."""

    @abc.abstractmethod
    def source(self, tag: str, content: object, brackets: str = "") -> str:
        """Source of a value of the type specified by the tag."""

    @abc.abstractmethod
    def entry_source(self, entry: _Entry) -> str:
        """Source of a key and its value."""

    @abc.abstractmethod
    def sort(self, entries: list[_Entry], ordered: bool) -> list[_Entry]:
        """Entries of a mapping, in the order of the uid."""

    @abc.abstractmethod
    def array(self, shape: str, digest: str) -> tuple[str, str]:
        """Content of an array, in the text then in the source."""

    def uid(self, config: Mapping[str, tp.Any]) -> str:
        # exca turns the outermost mapping into a plain dict: its order never matters
        text, source = self.mapping(_merge(config), ordered=False)
        return f"{self.full_text(text)}-{_md5(self.source('dict', source, '{}').encode())[:8]}"

    def mapping(self, config: Mapping[str, tp.Any], ordered: bool) -> tuple[str, str]:
        """Content of a mapping, in the text then in the source."""
        for key in config:
            if not isinstance(key, str):
                msg = f"Unsupported type {type(key)} for key {key!r}"
                raise TypeError(msg)
        entries = [_Entry(key, self.item(value)) for key, value in config.items()]
        entries = self.sort(entries, ordered)
        text = self.clean(",".join(f"{e.key}={e.item.text}" for e in entries))
        return text, ",".join(self.entry_source(e) for e in entries)

    def item(self, value: tp.Any) -> _Item:
        value = _simplify(value)
        if isinstance(value, Mapping):
            text, source = self.mapping(value, ordered=isinstance(value, OrderedDict))
            return _Item(self.text(text, "{}"), self.source("dict", source, "{}"))
        if isinstance(value, (list, tuple, set)):
            items = [self.item(val) for val in value]
            if isinstance(value, set):
                items.sort(key=lambda item: item.text)
            text = ",".join(item.text for item in items)
            source = ",".join(item.source for item in items)
            return _Item(self.text(text, self.brackets), self.source("seq", source, "()"))
        tag, text, source = self.leaf(value)
        return _Item(self.text(self.clean(text)), self.source(tag, source))

    def leaf(self, value: tp.Any) -> tuple[str, str, str]:
        """Tag of a value which contains no other, and content in the text then in the source."""
        numpy = sys.modules.get("numpy")  # there are no arrays to recognize if not imported
        integers = (int,) if numpy is None else (int, numpy.int32, numpy.int64)
        if value is None or isinstance(value, integers):
            return "int", str(value), str(value)
        if isinstance(value, (str, pathlib.Path)):
            return "str", str(value), str(value)
        if isinstance(value, (float, decimal.Decimal, fractions.Fraction)):
            return "float", _float_text(float(value)), str(hash(value))
        if numpy is not None and isinstance(value, numpy.ndarray):
            shape = ",".join(str(size) for size in value.shape or (1,))
            return "array", *self.array(shape, _md5(value.tobytes()))
        msg = f"Unsupported type {type(value)} for {value!r}"
        raise TypeError(msg)

    def clean(self, text: str) -> str:
        return self.dropped.sub("", re.sub(r"[ \t\n/\\]", "-", text))


class _Scheme3(_Scheme):
    """Entries from short to long (to show as many as possible), types and keys in the source."""

    brackets = "()"
    dropped = re.compile(r"[^a-zA-Z0-9_{}()=,.-]")

    def text(self, content: str, brackets: str = "") -> str:
        return f"{brackets[:1]}{self.full_text(content)}{brackets[1:]}"

    def full_text(self, content: str) -> str:
        return content if len(content) <= 128 else f"{content[:128]}...{len(content) - 128}"

    def source(self, tag: str, content: object, brackets: str = "") -> str:
        return f"{tag}:{brackets[:1]}{content}{brackets[1:]}"

    def entry_source(self, entry: _Entry) -> str:
        return f"{entry.key}={entry.item.source}"

    def sort(self, entries: list[_Entry], ordered: bool) -> list[_Entry]:
        if ordered:
            return entries
        # the length is the one before cleaning the key (but after cleaning the value)
        return sorted(entries, key=lambda e: (len(e.key + e.item.text), e.key))

    def array(self, shape: str, digest: str) -> tuple[str, str]:
        return f"data-{shape}-{digest[:8]}", f"{shape}-{digest[:8]}"


class _Scheme2(_Scheme):
    """Entries sorted by key, nothing but the values in the source."""

    brackets = "[]"
    dropped = re.compile(r"[^a-zA-Z0-9{}\[\]=,.-]")

    def text(self, content: str, brackets: str = "") -> str:
        content = f"{brackets[:1]}{content}{brackets[1:]}"
        return content if len(content) <= 82 else f"{content[:35]}[.]{content[-35:]}"

    def full_text(self, content: str) -> str:
        return content if len(content) <= 80 else f"{content[:34]}[.]{content[-34:]}"

    def source(self, tag: str, content: object, brackets: str = "") -> str:  # noqa: ARG002 - as the base's
        return str(content)

    def entry_source(self, entry: _Entry) -> str:
        return entry.item.source

    def sort(self, entries: list[_Entry], ordered: bool) -> list[_Entry]:  # noqa: ARG002 - as the base's
        return sorted(entries, key=lambda e: e.key)

    def array(self, shape: str, digest: str) -> tuple[str, str]:  # noqa: ARG002 - as the base's
        return f"data-{digest[:8]}", digest


_SCHEMES: dict[int, _Scheme] = {2: _Scheme2(), 3: _Scheme3()}


def _merge(value: tp.Any) -> tp.Any:
    """Merge nested single keys into dotted keys: ``{"a": {"b": 1}}`` into ``{"a.b": 1}``.

    Exca leaves as they are single keys of an ``OrderedDict``, and everything inside a tuple.
    """
    if isinstance(value, list):
        return [_merge(val) for val in value]
    if not isinstance(value, Mapping):
        return value
    merged: dict[str, tp.Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
    for key, val in value.items():
        inner = _merge(val)
        if isinstance(inner, Mapping) and not isinstance(inner, OrderedDict) and len(inner) == 1:
            ((subkey, leaf),) = inner.items()
            merged[key + "." + subkey] = leaf
        else:
            merged[key] = inner
    return merged


def _simplify(value: tp.Any) -> tp.Any:
    """Turn tensors into arrays, and integer-valued floats into integers."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    # numpy.float32 is supported by exca for integer values only, other numpy floats never are
    floats = (float,) if numpy is None else (float, numpy.float32)
    return int(value) if isinstance(value, floats) and value.is_integer() else value


def _float_text(value: float) -> str:
    readable = 1e-3 <= abs(value) <= 1e4 or not math.isfinite(value)
    return f"{value:.2f}" if readable else f"{value:.2e}"


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
