"""Nested configuration dictionaries with dotted keys."""

import itertools
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Self

from exca_like.dotted import can_join, escape, find_path, parts, split
from exca_like.errors import ConfigTypeError, ConfigValueError
from exca_like.operators import ALL_OPS, ENTRY_OPS, SCALARS, ConfDictOps, reject_operators
from exca_like.uid import config_uid
from exca_like.yamltext import dump, load

if TYPE_CHECKING:
    import pydantic

_MISSING: Any = object()


class _DeprecatedOverride:
    def __get__(self, instance: object, owner: type) -> str:
        warnings.warn("ConfDict.OVERRIDE is now ConfDict.ops.REPLACE", DeprecationWarning, stacklevel=2)
        return ConfDictOps.REPLACE


class ConfDict(dict[str, Any]):
    """Dictionary whose string keys split into sub-dictionaries on ``"."``.

    Dotted keys, nested dictionaries and keyword arguments mix freely; later ones are merged into earlier ones.
    Dictionaries inside become ``ConfDict`` (an ``OrderedDict`` stays one), also in lists, whose items are
    reached by their index (``cfg["steps.0.lr"]``).

    Parameters
    ----------
    mapping:
        Initial content, a mapping or an iterable of pairs.
    **kwargs:
        More content, merged after ``mapping``.

    Raises
    ------
    TypeError
        A key is not a string.
    ValueError
        A key has an empty segment (``"a..b"``).

    Examples
    --------
    >>> ConfDict({"optim.lr": 0.1, "optim": {"name": "sgd"}})
    {'optim': {'lr': 0.1, 'name': 'sgd'}}
    """

    LATEST_UID_VERSION: ClassVar[int] = 4
    UID_VERSION: ClassVar[int] = int(os.environ.get("CONFDICT_UID_VERSION", "4"))
    """Scheme that `to_uid` uses unless told otherwise; the environment's ``CONFDICT_UID_VERSION`` sets it."""
    ops = ConfDictOps
    OVERRIDE = _DeprecatedOverride()

    def __init__(self, mapping: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **kwargs: Any) -> None:
        super().__init__()
        if isinstance(mapping, ConfDict):  # already split: only the containers need a copy
            for key, value in mapping.items():
                dict.__setitem__(self, key, _copy(value))
            mapping = ()
        for key, value in _pairs(mapping, kwargs):
            _insert(self, key, value)

    # reading

    def __getitem__(self, key: str) -> Any:
        if type(key) is not str or "." not in key:
            return dict.__getitem__(self, key)
        path = parts(key)
        try:
            return _walk(self, path, key)
        except (KeyError, ConfigTypeError):
            found = find_path(self, path)
            if found is None:
                raise
            return _walk(self, found, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a (dotted) key, or ``default``."""
        try:
            return self[key]
        except (KeyError, IndexError, TypeError):
            return default

    def __contains__(self, key: object) -> bool:
        return self.get(key, _MISSING) is not _MISSING  # type: ignore[arg-type]

    def flat(self) -> dict[str, Any]:
        """One level of dotted keys; lists and empty dictionaries stay values."""
        return dict(_flat(self, ""))

    # writing

    def __setitem__(self, key: str, value: Any) -> None:
        if type(key) is str and "." in key:
            insert(self, _path(self, key), _convert(value))
        else:
            _insert(self, key, value)

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove a (dotted) key and return its value; the parent stays, even if it is empty now."""
        *above, last = _path(self, key)
        try:
            parent = _walk(self, above, key)
            value = _child(parent, last, key)
        except (KeyError, IndexError):
            if default is _MISSING:
                raise
            return default
        if isinstance(parent, tuple):
            msg = f"{key!r}: items can't be removed from a tuple: set {'.'.join(map(escape, above))!r} to a shorter one"
            raise ConfigTypeError(msg)
        if isinstance(parent, list):
            del parent[int(last)]
        else:
            _discard(parent, last)
        return value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of a (dotted) key, set to ``default`` first if it is not there."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Merge a patch, recursively; its operators (`ConfDict.ops`) are resolved at once.

        A value that is no dictionary replaces what was there, a dictionary is merged into it.

        Raises
        ------
        ValueError
            An operator is unknown, contradicts another or names no sibling; nothing is changed then.
        TypeError
            A list is addressed by something else than an index; nothing is changed then.
        """
        patch = other if isinstance(other, ConfDict) and not kwargs else _patch(self, _pairs(other, kwargs))
        merged = merge_patch(_copy(self), patch)
        dict.clear(self)
        dict.update(self, merged)

    def __copy__(self) -> Self:
        return self.copy()

    def __reduce__(self) -> Any:
        return _restored, (type(self), dict(self))  # without splitting the keys again

    def copy(self) -> Self:
        """A copy that shares no dictionary and no list with this one (leaves are shared)."""
        return type(self)(self)

    def __or__(self, other: Any) -> Self:  # type: ignore[override]
        if not isinstance(other, Mapping):
            return NotImplemented
        result = self.copy()
        result.update(other)
        return result

    def __ror__(self, other: Any) -> Self:  # type: ignore[override]
        if not isinstance(other, Mapping):
            return NotImplemented
        result = type(self)(other)
        result.update(self)
        return result

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        self.update(other)
        return self

    # import and export

    def to_uid(self, version: int | None = None) -> str:
        """Readable and unique name of this config; ``""`` if it is empty.

        Parameters
        ----------
        version:
            The scheme: 4 (this package), or 3 and 2 (written by exca since and before its release 0.4.2).
            ``None`` is `UID_VERSION`.

        Raises
        ------
        TypeError
            A value has no identity that another process would find again; the message names its key.
        ValueError
            The config holds an unresolved operator, or the version is unknown.
        """
        version = self.UID_VERSION if version is None else version
        if version == 4:
            return config_uid(self)
        if version in (2, 3):
            from exca_like.compat.uids import legacy_uid

            reject_operators(self)
            return legacy_uid(_split_all(self), version)  # exca knows no dots in keys
        msg = f"unknown uid version {version!r}: use 4, or 3 or 2 for what exca wrote"
        raise ConfigValueError(msg)

    def to_yaml(self, filepath: str | Path | None = None) -> str:
        """The config as yaml text, chains of single keys joined by dots; also written to a file if one is given."""
        text = dump(self)
        if filepath is not None:
            Path(filepath).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_yaml(cls, yaml: str | Path | IO[str] | IO[bytes]) -> Self:
        """Read a config from yaml: a text, a path or an open file.

        Raises
        ------
        TypeError
            The yaml holds something else than a mapping.
        ValueError
            The text is no yaml.
        """
        return cls(load(yaml))

    @classmethod
    def from_model(cls, model: "pydantic.BaseModel", uid: bool = False, exclude_defaults: bool = False) -> Self:
        """Export a pydantic model.

        Parameters
        ----------
        model:
            The model, with any sub-models.
        uid:
            Leave out what does not count for the identity (``_exclude_from_cls_uid``, infra settings).
        exclude_defaults:
            Leave out fields that have their default value.

        Raises
        ------
        RuntimeError
            With ``uid``: a sub-model could not be rebuilt without ambiguity from the export.
        """
        from exca_like.models.export import export

        return cls(verbatim(export(model, uid=uid, exclude_defaults=exclude_defaults)))

    @classmethod
    def from_args(cls, args: list[str]) -> Self:
        """Read command-line arguments of the form ``--optim.lr=0.01``; values stay strings, for pydantic to parse.

        Raises
        ------
        ValueError
            An argument has another form.
        """
        pairs = []
        for arg in args:
            key, equal, value = arg.partition("=")
            if not (key.startswith("--") and len(key) > 2 and equal):
                msg = f"argument {arg!r} is not of the form --key=value (all: {args})"
                raise ConfigValueError(msg)
            pairs.append((key[2:], value))
        return cls(pairs)


def _insert(node: ConfDict, key: str, value: Any) -> None:
    """Merge a value, not converted yet, into a dictionary at a dotted key."""
    if type(key) is str and "." not in key and not dict.__contains__(node, key):  # nothing to merge with
        dict.__setitem__(node, key, value if type(value) in SCALARS else _convert(value))
    else:
        insert(node, split(key), _convert(value))


def insert(node: dict[str, Any], keys: list[str], value: Any) -> None:
    """Merge a value, which is converted, into a dictionary at the last of some keys, each in what the one before holds."""
    _merge_at(node, keys, value, resolve=False)


def merge_patch(node: ConfDict, patch: ConfDict) -> ConfDict:
    """Merge a patch, with its operators, into a dictionary that shares no container with anything; see `ConfDict.update`.

    The dictionary is changed in place, or partly changed if the patch is wrong; the result may be another one.
    """
    merged: ConfDict = _merge(node, patch, resolve=True)
    return merged


def _convert(value: Any) -> Any:
    """Copy the containers of a value, with dictionaries split on dots."""
    if type(value) in SCALARS:
        return value
    if isinstance(value, OrderedDict):
        ordered: OrderedDict[str, Any] = OrderedDict()
        for key, item in value.items():
            _merge_at(ordered, split(key), _convert(item), resolve=False)
        return ordered
    if isinstance(value, Mapping):
        return ConfDict(value)
    if type(value) in (list, tuple):
        return type(value)(_convert(item) for item in value)
    return value


def _split_all(value: Any) -> Any:
    """A converted value, with all keys split on dots, also those that are not."""
    if isinstance(value, dict) and not isinstance(value, OrderedDict):
        return ConfDict({key: _split_all(item) for key, item in value.items()})
    return value


def _copy(value: Any) -> Any:
    """Copy the containers of a value that `_convert` has made."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if issubclass(kind, ConfDict):
        result = ConfDict()
        for key, item in value.items():
            dict.__setitem__(result, key, _copy(item))
        return result
    if kind is OrderedDict:
        return OrderedDict((key, _copy(item)) for key, item in value.items())
    if kind is list or kind is tuple:
        return kind(_copy(item) for item in value)
    return _convert(value)


def verbatim(config: Mapping[str, Any]) -> ConfDict:
    """A config with all keys as they are, whatever dots they have, as a model's export has: those are data, and no names."""
    result = ConfDict()
    for key, item in config.items():
        dict.__setitem__(result, key, item if type(item) in SCALARS else with_verbatim(item))
    return result


def with_verbatim(value: Any) -> Any:
    """Copy the containers of a value, of whatever kind, as `verbatim` does."""
    if isinstance(value, OrderedDict):
        return OrderedDict((key, with_verbatim(item)) for key, item in value.items())
    if isinstance(value, Mapping):
        return verbatim(value)
    return type(value)(map(with_verbatim, value)) if type(value) in (list, tuple) else value


def _restored(cls: type[ConfDict], items: dict[str, Any]) -> ConfDict:
    config = cls()
    for key, value in items.items():
        dict.__setitem__(config, key, value)
    return config


def _pairs(mapping: Any, more: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    pairs = mapping.items() if isinstance(mapping, dict | Mapping) else mapping
    return itertools.chain(pairs, more.items()) if more else pairs


def _patch(node: Any, pairs: Iterable[tuple[Any, Any]]) -> ConfDict:
    """What is to be merged into a container, with its keys as they are there."""
    patch = ConfDict()
    for key, value in pairs:
        path = _path(node, key)
        if isinstance(value, Mapping) and not isinstance(value, ConfDict | OrderedDict):
            below = node
            for part in path:
                below = dict.get(below, part) if isinstance(below, dict) else None
            insert(patch, path, _patch(below, value.items()))
        else:
            insert(patch, path, _convert(value))
    return patch


def _path(node: Any, key: Any) -> list[str]:
    """The keys that a dotted one stands for in a container, see `find_path`; if it is not there, it is split at all dots."""
    keys = split(key)
    return (len(keys) > 1 and find_path(node, keys)) or keys


def _walk(node: Any, path: Iterable[str], key: str) -> Any:
    for part in path:
        node = _child(node, part, key)
    return node


def _child(node: Any, segment: str, key: str) -> Any:
    if isinstance(node, dict):
        if segment in node.keys():  # noqa: SIM118 - `in node` would split the segment again
            return dict.__getitem__(node, segment)
        raise KeyError(key)
    if isinstance(node, list | tuple):
        return node[_index(segment, key)]
    raise KeyError(key)


def _index(segment: str, key: str) -> int:
    if segment.isascii() and segment.isdigit():
        return int(segment)
    msg = f"{key!r}: {segment!r} addresses a list, which takes an index (0, 1, …)"
    raise ConfigTypeError(msg)


def _merge_at(node: Any, segments: list[str], value: Any, *, resolve: bool) -> None:
    """Merge a converted value into a dictionary at a path."""
    patch = value
    for segment in reversed(segments[1:]):
        wrapped = ConfDict()
        dict.__setitem__(wrapped, segment, patch)
        patch = wrapped
    _merge_child(node, segments[0], patch, resolve=resolve)


def _merge_child(node: Any, key: str, patch: Any, *, resolve: bool) -> None:
    """Set one entry of a dictionary or list to its present value merged with a patch."""
    present = dict.get(node, key) if isinstance(node, dict) else node[int(key)]
    if isinstance(patch, dict):
        if type(present) is tuple:
            changed = _merge(list(present), patch, resolve=resolve)
            patch = tuple(changed) if isinstance(changed, list) else changed
        else:
            if not isinstance(present, dict | list) or (not present and isinstance(patch, OrderedDict)):
                present = OrderedDict() if isinstance(patch, OrderedDict) else ConfDict()
            patch = _merge(present, patch, resolve=resolve)
    if isinstance(node, list):
        node[int(key)] = patch
    else:
        _set(node, key, patch)


# ConfDict's own item access splits keys; OrderedDict's keeps its order, which dict's would not


def _set(node: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(node, ConfDict):
        dict.__setitem__(node, key, value)
    else:
        node[key] = value


def _discard(node: dict[str, Any], key: str) -> None:
    if isinstance(node, ConfDict):
        dict.pop(node, key, None)
    else:
        node.pop(key, None)


def _merge(node: Any, patch: dict[str, Any], *, resolve: bool) -> Any:
    """Merge a patch into a container in place, and return the container (another one if replaced)."""
    if isinstance(node, list):
        if resolve and _flag(patch, ConfDictOps.REPLACE):
            return _merge(ConfDict(), patch, resolve=True)
        for key, value in patch.items():
            if resolve and key == ConfDictOps.REPLACE:
                continue
            if resolve:
                _reject_item_operators(key, value)
            if not 0 <= _index(key, key) < len(node):
                msg = f"list index {key} is out of range: the list has {len(node)} items"
                raise ConfigValueError(msg)
            _merge_child(node, key, value, resolve=resolve)
        return node
    if not resolve:
        for key, value in patch.items():
            if type(value) in SCALARS:
                _set(node, key, value)
            else:
                _merge_child(node, key, value, resolve=False)
        return node
    if _flag(patch, ConfDictOps.REPLACE):
        node = OrderedDict() if isinstance(patch, OrderedDict) or isinstance(node, OrderedDict) else ConfDict()
    for key, value in patch.items():
        if ConfDictOps.is_op(key):
            if key != ConfDictOps.REPLACE:
                msg = _OP_HELP.get(key, f"unknown operator {key!r}: use one of {', '.join(ALL_OPS)}")
                raise ConfigValueError(msg)
            continue
        _resolve_entry(node, key, value)
    return node


_OP_HELP = {
    op: f"operator {op!r} acts on an entry, so it belongs inside the entry's own sub-dict: {{'entry': {{{op!r}: …}}}}"
    for op in ALL_OPS
}


def _reject_item_operators(key: str, value: Any) -> None:
    """Raise if a patch would delete or move an item of a list, or holds an unknown operator for it."""
    if any(map(ConfDictOps.is_op, (key, value))) or (isinstance(value, dict) and not value.keys().isdisjoint(ENTRY_OPS)):
        msg = f"operators don't act on items of a list ({key!r}: {value!r}): give the whole list its new value"
        raise ConfigValueError(msg)
    if isinstance(value, list | tuple):
        reject_operators(value, key)


def _resolve_entry(node: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(value, str) and value == ConfDictOps.DELETE:
        _discard(node, key)
        return
    if ConfDictOps.is_op(value):
        msg = f"{value!r} can't be the value of {key!r}: only {ConfDictOps.DELETE!r} can, others are keys"
        raise ConfigValueError(msg)
    if isinstance(value, list | tuple):
        reject_operators(value, key)
    if not isinstance(value, dict):
        _set(node, key, value)
        return
    if _flag(value, ConfDictOps.DELETE):
        if len(value) > 1:
            msg = f"{key!r} is deleted and given content at once: {dict(value)}"
            raise ConfigValueError(msg)
        _discard(node, key)
        return
    moves = [(op, value[op]) for op in (ConfDictOps.BEFORE, ConfDictOps.AFTER) if dict.__contains__(value, op)]
    content = type(value)()
    for name, item in value.items():
        if name not in ENTRY_OPS:
            _set(content, name, item)
    if not moves or content or not dict.__contains__(node, key):
        _merge_child(node, key, content, resolve=True)
    if len(moves) > 1:
        msg = f"{key!r} is moved both before and after something: use one of them"
        raise ConfigValueError(msg)
    for op, anchor in moves:
        _move(node, key, anchor, after=op == ConfDictOps.AFTER)


def _move(node: dict[str, Any], key: str, anchor: Any, *, after: bool) -> None:
    if anchor == key or not (isinstance(anchor, str) and dict.__contains__(node, anchor)):
        others = [k for k in node if k != key]
        msg = f"{key!r} can't be moved next to {anchor!r}: its siblings are {others}"
        raise ConfigValueError(msg)
    items = [(k, v) for k, v in node.items() if k != key]
    position = [k for k, _ in items].index(anchor) + after
    items.insert(position, (key, dict.__getitem__(node, key)))
    node.clear()
    for k, v in items:
        _set(node, k, v)


def _flag(patch: dict[str, Any], op: str) -> bool:
    value = dict.get(patch, op, False)
    if value is False:
        return False
    if value not in (True, False):
        msg = f"operator {op!r} takes True or False, not {value!r}"
        raise ConfigValueError(msg)
    return bool(value)


def _flat(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = prefix + escape(key)
        if isinstance(value, dict) and value and all(can_join(key, below) for below in value):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
