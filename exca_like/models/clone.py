"""Rebuilding models from data: changed copies, and models read back from a cache."""

import copy
import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pydantic

from exca_like.confdict import ConfDict, insert, merge_patch, verbatim, with_verbatim
from exca_like.dotted import split
from exca_like.models.discriminated import DiscriminatedModel, family_of
from exca_like.models.plan import FieldPlan, plan_of
from exca_like.operators import SCALARS

_NO_CHANGES: dict[str, Any] = {}
_NOTHING: Any = object()

M = TypeVar("M", bound=pydantic.BaseModel)


def changed_copy(model: M, changes: ConfDict) -> M:
    """A new, validated model of the same class: the fields that were set, with changes merged in."""
    return validated(type(model), _changed(model, changes))


def changes_of(cls: type[pydantic.BaseModel], given: Mapping[str, Any], present: Any = None) -> ConfDict:
    """What is given for a config, by dotted names or nested, as a nested patch.

    Dots split names of fields. In a value of a field that holds no models, dots of keys belong to the keys: they are data.

    Parameters
    ----------
    cls:
        The class of the config.
    given:
        Values of fields; they may be patches of what the fields hold.
    present:
        The config that is changed, if there is one: what follows the field in a dotted name is one key if it has it.
    """
    changes = ConfDict()
    for name, value in given.items():
        if type(value) in SCALARS and type(name) is str and ("." not in name or _names_fields(cls, name)):
            changes[name] = value
        else:
            keys, converted = _aligned((cls,), split(name), value, present)
            insert(changes, keys, converted)
    return changes


@functools.lru_cache(4096)
def _names_fields(cls: type[pydantic.BaseModel], name: str) -> bool:
    """Whether a dotted name is one of fields only, as most are."""
    *above, last = split(name)
    for key in above:
        models = plan_of(cls).by_name[key].models if key in plan_of(cls).by_name else {}
        if len(models) != 1:
            return False
        (cls,) = models
    return last in plan_of(cls).by_name


def _aligned(classes: Iterable[type[pydantic.BaseModel]], keys: list[str], value: Any, present: Any) -> tuple[list[str], Any]:
    """Keys as they are meant, and the converted value, for what models of some classes hold."""
    for place, key in enumerate(keys, 1):
        plans = map(plan_of, classes)
        fields = [plan.by_name[key] for plan in plans if key in plan.by_name]
        present = present.__dict__.get(key) if isinstance(present, pydantic.BaseModel) else None
        if not fields:  # of a model's dictionary or list, or a mistake
            continue
        classes = [*(member for field in fields for cls in field.models for member in _family_of(cls))]
        if not classes and not dataclasses.is_dataclass(present):
            rest = ".".join(keys[place:])
            if rest and isinstance(present, dict) and rest in present.keys():  # noqa: SIM118 - a ConfDict would split it
                keys = [*keys[:place], rest]
            return keys, with_verbatim(value)
    return keys, _aligned_value(classes, value, present)


def _family_of(cls: type[pydantic.BaseModel]) -> Iterable[type[pydantic.BaseModel]]:
    """The classes whose fields are meant by names in what is declared as a class."""
    if issubclass(cls, pydantic.RootModel):
        return [member for root in plan_of(cls).fields[0].models for member in _family_of(root)]
    return family_of(cls).values() if issubclass(cls, DiscriminatedModel) else (cls,)


def _aligned_value(classes: Iterable[type[pydantic.BaseModel]], value: Any, present: Any) -> Any:
    if isinstance(value, Mapping):
        changes: dict[str, Any] = OrderedDict() if isinstance(value, OrderedDict) else ConfDict()
        for name, item in value.items():
            keys, converted = _aligned(classes, split(name), item, present)
            insert(changes, keys, converted)
        return changes
    return type(value)(_aligned_value(classes, item, None) for item in value) if type(value) in (list, tuple) else value


def validated(cls: type[M], data: Mapping[str, Any]) -> M:
    """A model built from field names (not aliases) and values."""
    return cls.model_validate(data, by_name=True, by_alias=False)


# dict's own look-ups are used below: those of a ConfDict split names


def _changed(model: pydantic.BaseModel, changes: dict[str, Any] = _NO_CHANGES) -> dict[str, Any]:
    """Fields that were set, or may have been (a sub-model's default may differ from its class's), with the changes."""
    if changes and _has_operators(changes):
        return merge_patch(verbatim(_changed(model)), verbatim(changes))
    plan = plan_of(type(model))
    given = model.__pydantic_fields_set__
    values = model.__dict__
    data: dict[str, Any] = {plan.key: type(model).__name__} if plan.key is not None else {}
    by_name = plan.by_name
    for name in given:
        if name in by_name and not dict.__contains__(changes, name):
            value = values[name]
            data[name] = value if type(value) in SCALARS else _unpacked(value, by_name[name])
    for field in plan.mutable:  # what may have been edited in place since it was made from the default
        if field.name not in given and not dict.__contains__(changes, field.name):
            value = values[field.name]
            if value is not None or field.static_default is not None:  # else it would count as set, which it was not
                data[field.name] = _unpacked(value, field)
    data.update(model.__pydantic_extra__ or _NO_CHANGES)
    for name, change in changes.items():
        # a name that is no field is left to the validation, which refuses it
        merged = _merged(values[name], by_name[name], change) if name in by_name else change
        if merged is _NOTHING:
            data.pop(name, None)
        else:
            data[name] = merged
    return data


def _merged(value: Any, field: FieldPlan, change: Any) -> Any:
    """A field's value with a change; nothing if it is deleted."""
    if not isinstance(change, dict) and not ConfDict.ops.is_op(change):
        return change
    if isinstance(change, dict) and _is_rebuilt(value, field) and not _has_operators(change):
        return change if _chooses_another(value, field, change) else _choices(value, field) | _changed(value, change)
    patched = merge_patch(verbatim({field.name: _unpacked(value, field)}), verbatim({field.name: change}))
    return dict.get(patched, field.name, _NOTHING)


def _has_operators(changes: dict[str, Any]) -> bool:
    return any(key[:1] == "=" for key in changes)


def _is_rebuilt(value: Any, field: FieldPlan) -> bool:
    """Whether a value is a model that the field's declaration can rebuild from data."""
    if not isinstance(value, pydantic.BaseModel) or isinstance(value, pydantic.RootModel) or field.ambiguous:
        return False
    return type(value) in field.models or plan_of(type(value)).key is not None


def _choices(value: pydantic.BaseModel, field: FieldPlan) -> dict[str, Any]:
    """What tells the class of a model from others in its union."""
    key = plan_of(type(value)).key
    if key is not None:
        return {key: type(value).__name__}
    return {name: getattr(value, name, None) for name in field.models.get(type(value)) or ()}


def _chooses_another(value: pydantic.BaseModel, field: FieldPlan, change: dict[str, Any]) -> bool:
    """Whether a change chooses another class: the fields of the present one have no place in it."""
    return any(dict.get(change, name, choice) != choice for name, choice in _choices(value, field).items())


def _unpacked(value: Any, field: FieldPlan) -> Any:
    """A value with its models as dictionaries, where the field's declaration can rebuild them."""
    if isinstance(value, pydantic.BaseModel):
        if not _is_rebuilt(value, field):
            return copy.deepcopy(value)
        data = _changed(value)
        if plan_of(type(value)).key is None and field.models[type(value)]:
            for name, choice in _choices(value, field).items():
                data.setdefault(name, choice)
        return data
    if field.models or field.opaque:
        if type(value) in (list, tuple):
            return type(value)(_unpacked(item, field) for item in value)
        if isinstance(value, dict):
            items = ((key, _unpacked(item, field)) for key, item in value.items())
            return verbatim(dict(items)) if isinstance(value, ConfDict) else type(value)(items)
    return value
