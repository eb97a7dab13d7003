"""Rebuilding models from data: changed copies, and models read back from a cache."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from exca_like.confdict import SCALARS, ConfDict, merge_patch
from exca_like.models.plan import FieldPlan, plan_of

_NO_CHANGES: dict[str, Any] = {}

M = TypeVar("M", bound=pydantic.BaseModel)


def changed_copy(model: M, changes: ConfDict) -> M:
    """A new, validated model of the same class: the fields that were set, with changes merged in."""
    data = {} if changes.get(ConfDict.ops.REPLACE) else _set_fields(model, changes)
    touched = ConfDict({key: data.pop(key) for key in changes if key in data})
    data.update(merge_patch(touched, changes))
    return validated(type(model), data)


def validated(cls: type[M], data: Mapping[str, Any]) -> M:
    """A model built from field names (not aliases) and values."""
    return cls.model_validate(dict(data), by_name=True, by_alias=False)


def _set_fields(model: pydantic.BaseModel, changes: dict[str, Any] = _NO_CHANGES) -> dict[str, Any]:
    """Fields that were set, or may have been (a sub-model's default may differ from its class's defaults)."""
    plan = plan_of(type(model))
    given = model.__pydantic_fields_set__
    values = model.__dict__
    data: dict[str, Any] = {plan.key: type(model).__name__} if plan.key is not None else {}
    for field in plan.fields:
        name = field.name
        change = dict.get(changes, name) if changes else None  # a ConfDict's own `get` would split the name
        value = values[name]
        # what is no scalar may have been edited in place since it was made from the default
        if name in given or change is not None or type(value) not in SCALARS:
            data[name] = value if type(value) in SCALARS else _unpacked(value, field, change)
    data.update(model.__pydantic_extra__ or {})
    return data


def _unpacked(value: Any, field: FieldPlan, change: Any = None) -> Any:
    """A value with its models as dictionaries, where the field's declaration can rebuild them."""
    if isinstance(value, pydantic.BaseModel):
        key = plan_of(type(value)).key
        if isinstance(value, pydantic.RootModel) or (type(value) not in field.models and key is None) or field.ambiguous:
            return copy.deepcopy(value)
        chosen_by = field.models.get(type(value), ()) if key is None else (key,)
        changes = change if isinstance(change, dict) else _NO_CHANGES
        data = _set_fields(value, changes)
        for name in chosen_by or ():
            data.setdefault(name, getattr(value, name, None))
            if dict.get(changes, name, data[name]) != data[name]:
                return {}  # another class is chosen: the fields of the present one have no place in it
        return data
    if field.models or field.opaque:
        if type(value) in (list, tuple):
            return type(value)(_unpacked(item, field) for item in value)
        if isinstance(value, dict):
            return type(value)((key, _unpacked(item, field)) for key, item in value.items())
    return value
