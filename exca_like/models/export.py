"""Export of pydantic models to plain nested data, for uids and for storage."""

import collections
import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import pydantic
from pydantic_core import PydanticSerializationError, to_jsonable_python

from exca_like import canonical
from exca_like.errors import ConfigTypeError, ModelExportError
from exca_like.models.plan import REQUIRED, FieldPlan, ModelPlan, plan_of
from exca_like.names import qualified_name
from exca_like.operators import SCALARS

# dotted names to leave out, as a tree: {"x": None} is the field x, {"sub": {"x": None}} the field x of sub
Exclusions = Mapping[str, Any]

_NOTHING: Exclusions = {}


class _Mode(NamedTuple):
    uid: bool
    exclude_defaults: bool
    reduced: list[type[pydantic.BaseModel]] | None = None  # classes of models of which default values were left out


_MODES = {(uid, without): _Mode(uid, without) for uid in (False, True) for without in (False, True)}


def export(model: pydantic.BaseModel, *, uid: bool, exclude_defaults: bool, exclude: Iterable[str] = ()) -> dict[str, Any]:
    """Export a model as nested dictionaries in pydantic's json mode.

    Parameters
    ----------
    model:
        The model.
    uid:
        Apply the models' own exclusions (``_exclude_from_cls_uid``) and overrides.
    exclude_defaults:
        Leave out what equals its default; ``type(model)(**exported)`` rebuilds the model.
    exclude:
        More names to leave out, dotted for fields of sub-models.

    Raises
    ------
    RuntimeError
        With ``uid``: a field holds models that an export can't tell apart, or a sub-model accepts unknown fields.
    TypeError
        A value has no exported form; the message names its field.
    """
    return _export_model(model, _MODES[uid, exclude_defaults], _tree(exclude) if exclude else _NOTHING)


def reduced_export(
    model: pydantic.BaseModel, exclude: Iterable[str] = ()
) -> tuple[dict[str, Any], tuple[type[pydantic.BaseModel], ...]]:
    """The export for a uid, without defaults, and the classes whose defaults complete it; see `defaults_digest`."""
    mode = _Mode(uid=True, exclude_defaults=True, reduced=[])
    exported = _export_model(model, mode, _tree(exclude) if exclude else _NOTHING)
    return exported, tuple(mode.reduced or ())


@functools.lru_cache(4096)
def defaults_digest(classes: tuple[type[pydantic.BaseModel], ...]) -> str | None:
    """What stands for the default values of some classes; None if they may differ from instance to instance.

    Two models of which `reduced_export` gives the same, and whose classes have the same digest, have the same values.
    """
    try:
        defaults = [_defaults(plan_of(cls)) for cls in classes]
        return None if None in defaults else _digest(defaults)
    except (ConfigTypeError, ModelExportError):  # some default has no identity, but may not be in use
        return None


def _defaults(plan: ModelPlan) -> dict[str, Any] | None:
    """The default values of a class; None if an instance is needed to know them."""
    if not plan.plain or any(field.custom or (field.has_factory and not field.is_empty) for field in plan.fields):
        return None
    blank = plan.cls.__new__(plan.cls)  # only its class is looked at
    defaults = {field.name: field.default({}) for field in plan.kept_fields}
    return {
        name: _export_value(default, plan.by_name[name], _MODES[True, False], _NOTHING, blank)
        for name, default in defaults.items()
        if default is not REQUIRED
    }


def _tree(names: Iterable[str]) -> Exclusions:
    tree: dict[str, Any] = {}
    for name in names:
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            below = node.setdefault(parent, {})
            if below is None:  # the whole parent is left out already
                break
            node = below
        else:
            node[last] = None
    return tree


def _export_model(model: pydantic.BaseModel, mode: _Mode, exclude: Exclusions) -> dict[str, Any]:
    plan = plan_of(type(model))
    uid, exclude_defaults, reduced = mode
    if reduced is not None:
        reduced.append(plan.cls)
    if not plan.plain:
        if uid and exclude_defaults and plan.overrides_uid:
            override = model._exca_uid_dict_override()  # type: ignore[attr-defined]
            return {key: _export_value(item, _UNKNOWN, mode, _NOTHING, model) for key, item in override.items()}
        if plan.custom:
            skipped = {*(plan.excluded(model) if uid else ()), *(name for name, below in exclude.items() if below is None)}
            exported: dict[str, Any] = _dump(model, exclude=skipped)
            return exported
        if uid and plan.is_left_out(model):
            return {}
    values = model.__dict__
    result: dict[str, Any] = {}
    for field in (plan.kept_fields if plan.plain else plan.kept(model)) if uid else plan.fields:
        name = field.name
        below = exclude.get(name, _NOTHING) if exclude else _NOTHING
        if below is None:
            continue
        if uid and field.ambiguous:
            raise ModelExportError(_ambiguous_message(plan, field))
        value = values[name]
        if exclude_defaults:
            default = field.default(values) if field.has_factory else field.static_default
            if value is default:
                continue
            kind = type(value)
            if kind is type(default) and kind in SCALARS and value == value:  # noqa: PLR0124 - not NaN
                if value == default:
                    continue
            elif default is not REQUIRED and _same(value, default, mode, below):
                continue
        if type(value) in SCALARS and not field.custom:
            result[name] = value
        elif field.models.get(type(value)) == () and not field.custom and plan_of(type(value)).is_plain_part:
            result[name] = _export_model(value, mode, below)
        elif not (uid and _leaves_parent(value)):
            result[name] = _export_value(value, field, mode, below, model)
    for name, value in (model.__pydantic_extra__ or {}).items():
        if exclude.get(name, _NOTHING) is not None:
            result[name] = _export_value(value, _UNKNOWN, mode, _NOTHING, model)
    return result


_UNKNOWN = FieldPlan("", pydantic.fields.FieldInfo(), opaque=True)


def _leaves_parent(value: Any) -> bool:
    return isinstance(value, pydantic.BaseModel) and plan_of(type(value)).is_left_out(value)


def _export_value(value: Any, field: FieldPlan, mode: _Mode, exclude: Exclusions, owner: pydantic.BaseModel) -> Any:
    kind = type(value)
    if field.custom:
        with contextlib.suppress(PydanticSerializationError, KeyError):  # KeyError: a field with exclude=True
            return _dump(owner, include={field.name})[field.name]
    if kind in SCALARS:
        return value
    if isinstance(value, pydantic.BaseModel):
        return _export_submodel(value, field, mode, exclude, owner)
    normal = canonical.normalize(value)
    if normal is not value:
        return normal if type(normal) in SCALARS else _export_leaf(normal, field, mode, owner)
    if isinstance(value, collections.OrderedDict):
        return collections.OrderedDict(_export_items(value, field, mode, exclude, owner))
    if isinstance(value, Mapping):
        return dict(_export_items(value, field, mode, exclude, owner))
    if isinstance(value, list | tuple | collections.deque):
        return [_export_value(item, field, mode, _NOTHING, owner) for item in value]
    if isinstance(value, set | frozenset):  # their order changes from process to process
        return sorted((_export_value(item, field, mode, _NOTHING, owner) for item in value), key=canonical.encode)
    if isinstance(value, enum.Enum):
        return _export_value(value.value, field, mode, _NOTHING, owner)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        content = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return dict(_export_items(content, field, mode, exclude, owner))
    return _export_leaf(value, field, mode, owner)


def _dump(model: pydantic.BaseModel, include: set[str] | None = None, exclude: set[str] | None = None) -> Any:
    """Pydantic's own export, for classes and fields that say how they are serialized."""
    json = model.model_dump(mode="json", include=include, exclude=exclude, by_alias=False)
    return _with_sorted_sets(json, model.model_dump(include=include, exclude=exclude, by_alias=False))


def _with_sorted_sets(exported: Any, raw: Any) -> Any:
    """Sort the lists that json mode made from sets, whose order changes from process to process."""
    if isinstance(exported, list) and isinstance(raw, set | frozenset):
        return sorted(exported, key=canonical.encode)
    if isinstance(exported, list) and isinstance(raw, list | tuple) and len(exported) == len(raw):
        return [_with_sorted_sets(item, raw_item) for item, raw_item in zip(exported, raw, strict=True)]
    if isinstance(exported, dict) and isinstance(raw, dict) and len(exported) == len(raw):
        pairs = zip(exported.items(), raw.values(), strict=True)
        return type(exported)((key, _with_sorted_sets(item, raw_item)) for (key, item), raw_item in pairs)
    return exported


def _export_items(
    mapping: Mapping[Any, Any], field: FieldPlan, mode: _Mode, exclude: Exclusions, owner: pydantic.BaseModel
) -> Iterator[tuple[str, Any]]:
    for key, item in _kept(mapping, exclude).items():
        name = _key(key)
        yield name, _export_value(item, field, mode, exclude.get(name, _NOTHING), owner)


def _kept(mapping: Mapping[Any, Any], exclude: Exclusions) -> Mapping[Any, Any]:
    if not exclude:
        return mapping
    return {key: item for key, item in mapping.items() if exclude.get(_key(key), _NOTHING) is not None}


def _export_submodel(
    value: pydantic.BaseModel, field: FieldPlan, mode: _Mode, exclude: Exclusions, owner: pydantic.BaseModel
) -> Any:
    plan = plan_of(type(value))
    if mode.uid:
        if not plan.forbids_extra:
            cls = type(value)
            msg = (
                f"{qualified_name(cls)} (field {field.name!r} of {type(owner).__name__}) must forbid unknown fields to be "
                'part of a uid, or a mistyped name would be ignored: add model_config = pydantic.ConfigDict(extra="forbid")'
            )
            raise ModelExportError(msg)
        if field is not _UNKNOWN and type(value) not in field.models and plan.key is None:
            raise ModelExportError(_ambiguous_message(plan_of(type(owner)), field, type(value)))
    chosen_by = field.models.get(type(value), ())
    if chosen_by is None and mode.exclude_defaults:  # a function of the whole model: it must see everything
        mode = _MODES[mode.uid, False]
    if isinstance(value, pydantic.RootModel):
        root = plan.fields[0]
        return _export_value(value.root, root, mode, _NOTHING, value)
    exported = _export_model(value, mode, exclude)
    if plan.key is not None:
        return {plan.key: type(value).__name__, **exported}
    missing = [name for name in chosen_by or () if name not in exported and name in value.__dict__]
    if not missing:
        return exported
    return {**{name: _export_value(value.__dict__[name], _UNKNOWN, mode, _NOTHING, value) for name in missing}, **exported}


def _export_leaf(value: Any, field: FieldPlan, mode: _Mode, owner: pydantic.BaseModel) -> Any:
    if hasattr(value, "get_secret_value") and mode.uid:  # json mode would show the same stars for every secret
        return f"secret-{_digest(value.get_secret_value())}"
    if isinstance(value, type) or inspect.isroutine(value):
        canonical_name = _checked_identity(value, field, owner)
        return canonical_name and qualified_name(value)
    if hasattr(type(value), canonical.STAND_IN):
        return value.uid
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):  # no json form: its identity stands for it
        return f"{canonical.describe(value)}-{_checked_identity(value, field, owner)}"


def _checked_identity(value: Any, field: FieldPlan, owner: pydantic.BaseModel) -> str:
    try:
        return _digest(value)
    except ConfigTypeError as error:
        msg = f"field {field.name!r} of {type(owner).__qualname__}: {error}"
        raise ConfigTypeError(msg) from None


def _digest(value: Any) -> str:
    return hashlib.blake2b(canonical.encode(value), digest_size=8).hexdigest()


def _key(key: Any) -> str:
    if type(key) is str:
        return key
    exported = next(iter(to_jsonable_python({key: None})))
    return str(exported)


def _same(a: Any, b: Any, mode: _Mode, exclude: Exclusions) -> bool:
    """Whether two values are exported alike; sub-models are compared after exclusions."""
    if a is b:
        return True
    kind, other = type(a), type(b)
    if kind is other:
        if kind in SCALARS:
            return bool(a == b) or (a != a and b != b)  # noqa: PLR0124 - true for NaN
        if isinstance(a, pydantic.BaseModel):
            return _same_model(a, b, mode, exclude)
        if isinstance(a, dict):
            first, second = _kept(a, exclude), _kept(b, exclude)
            if first.keys() != second.keys() or (isinstance(a, collections.OrderedDict) and list(first) != list(second)):
                return False
            return all(_same(item, second[key], mode, exclude.get(_key(key), _NOTHING)) for key, item in first.items())
    elif kind in SCALARS and other in SCALARS:
        return kind is not bool and other is not bool and bool(a == b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y, mode, _NOTHING) for x, y in zip(a, b, strict=True))
    try:
        return canonical.encode(a) == canonical.encode(b)
    except ConfigTypeError:
        pass
    try:
        return kind is other and bool(a == b)
    except Exception:  # a comparison that fails, or gives no single answer
        return False


def _same_model(a: pydantic.BaseModel, b: pydantic.BaseModel, mode: _Mode, exclude: Exclusions) -> bool:
    plan = plan_of(type(a))
    if not plan.plain and mode.uid and plan.is_left_out(a):
        return True
    first, second = a.__dict__, b.__dict__
    for field in plan.kept(a) if mode.uid else plan.fields:
        name = field.name
        below = exclude.get(name, _NOTHING) if exclude else _NOTHING
        if below is not None and first[name] is not second[name] and not _same(first[name], second[name], mode, below):
            return False
    extra, other = a.__pydantic_extra__, b.__pydantic_extra__
    return (not extra and not other) or _same(extra or _NOTHING, other or _NOTHING, mode, _NOTHING)


def _ambiguous_message(plan: ModelPlan, field: FieldPlan, found: type | None = None) -> str:
    declared = field.ambiguous or " | ".join(cls.__name__ for cls in field.models) or "Any"
    what = f"holds a {found.__name__}, but is declared as {declared}" if found else f"is declared as {declared}"
    return (
        f"field {field.name!r} of {qualified_name(plan.cls)} {what}: from an exported config one could not tell which "
        "class to build. Use a discriminated union: give each class a field like `kind: Literal['a'] = 'a'` and declare "
        f"`{field.name}: A | B = pydantic.Field(..., discriminator='kind')`; or derive the classes from one "
        "exca_like.helpers.DiscriminatedModel."
    )
