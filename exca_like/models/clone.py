"""Rebuilding models from data: changed copies, and models read back from a cache."""

import copy
import dataclasses
import functools
import types
import typing
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import pydantic

from exca_like.confdict import ConfDict, insert, merge_patch, verbatim, with_verbatim
from exca_like.dotted import find_path, split
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
    if isinstance(given, ConfDict):
        return ConfDict(given)
    changes = ConfDict()
    for name, value in given.items():
        if type(name) is str and type(value) in SCALARS and "." not in name:
            dict.__setitem__(changes, name, value)
        elif type(value) in SCALARS and (path := _path_of_fields(cls, name)):
            insert(changes, path, value)
        else:
            keys, converted = _aligned(_Place((cls,)), split(name), value, present)
            insert(changes, keys, converted)
    return changes


@functools.lru_cache(4096)
def _path_of_fields(cls: type[pydantic.BaseModel], name: str) -> list[str] | None:
    """The keys of a dotted name, if it is one of fields only, as most are."""
    *above, last = path = split(name)
    place = _Place((cls,))
    for key in above:
        place = place.below(key)
        if place.is_data or place.depth or not place.classes:
            return None
    return path if any(last in plan_of(cls).by_name for cls in place.classes) else None


class _Place(NamedTuple):
    """What may be at a place of a config: models of some classes, in some containers around them, or data."""

    classes: tuple[type[pydantic.BaseModel], ...] = ()
    depth: int = 0
    is_data: bool = False
    """Dots of keys are part of the keys."""

    def below(self, key: str) -> "_Place":
        """What may be at a key of it."""
        if self.depth:
            return self._replace(depth=self.depth - 1)
        plans = [plan_of(member) for cls in self.classes for member in _family_of(cls)]
        places = [_declared(plan.cls, key) for plan in plans if key in plan.by_name]
        if not places:  # a mistake, unless such fields are allowed
            return _Place(is_data=any(plan.cls.model_config.get("extra") == "allow" for plan in plans))
        classes = tuple(cls for place in places for cls in place.classes)
        return _Place(classes, min(place.depth for place in places), all(place.is_data for place in places))


@functools.lru_cache(4096)
def _declared(owner: type[pydantic.BaseModel], name: str, seen: tuple[type[pydantic.BaseModel], ...] = ()) -> _Place:
    """What a field of a class may hold."""
    field = plan_of(owner).by_name[name]
    classes: list[type[pydantic.BaseModel]] = []
    depth = _depth(field.info.annotation)
    for cls in field.models:
        if issubclass(cls, pydantic.RootModel):
            inner = _declared(cls, "root", (*seen, cls)) if cls not in seen else _Place()
            classes += inner.classes
            depth = (depth or 0) + inner.depth
        else:
            classes.append(cls)
    is_data = not classes and not _holds_dataclasses(field.info.annotation)
    return _Place(tuple(classes), depth or 0, is_data)


def _depth(annotation: Any) -> int | None:
    """How many containers are around the models that an annotation names, at the least; None if it names none."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return 0
    depths = [depth for depth in map(_depth, typing.get_args(annotation)) if depth is not None]
    is_container = typing.get_origin(annotation) not in (typing.Union, types.UnionType, typing.Annotated)
    return min(depths) + is_container if depths else None


def _holds_dataclasses(annotation: Any) -> bool:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return True
    return any(map(_holds_dataclasses, typing.get_args(annotation)))


def _family_of(cls: type[pydantic.BaseModel]) -> Iterable[type[pydantic.BaseModel]]:
    """A class, and those that may be in its place."""
    return family_of(cls).values() if issubclass(cls, DiscriminatedModel) else (cls,)


def _aligned(place: _Place, keys: list[str], value: Any, present: Any) -> tuple[list[str], Any]:
    """Keys as they are meant at a place, and the converted value."""
    if not keys:
        return [], _aligned_value(place, value, present)
    if place.is_data:
        return find_path(present, keys) or keys, with_verbatim(value)
    if place.depth:
        keys = _first_as_there(present, keys)
    first, *rest = keys
    inner = present.__dict__ if isinstance(present, pydantic.BaseModel) else present
    below = dict.get(inner, first) if isinstance(inner, dict) else None
    rest, converted = _aligned(place.below(first), rest, value, below)
    return [first, *rest], converted


def _first_as_there(present: Any, keys: list[str]) -> list[str]:
    """Keys of which the first has its dots, if a dictionary has it."""
    for end in range(1, len(keys) + 1) if isinstance(present, dict) else ():
        name = ".".join(keys[:end])
        if name in present.keys():  # noqa: SIM118 - a ConfDict would split it
            return [name, *keys[end:]]
    return keys


def _aligned_value(place: _Place, value: Any, present: Any) -> Any:
    if place.is_data or isinstance(value, ConfDict):
        return with_verbatim(value)
    if isinstance(value, Mapping):
        changes: dict[str, Any] = OrderedDict() if isinstance(value, OrderedDict) else ConfDict()
        for name, item in value.items():
            keys, converted = _aligned(place, split(name), item, present)
            insert(changes, keys, converted)
        return changes
    inner = place._replace(depth=max(place.depth - 1, 0))
    return type(value)(_aligned_value(inner, item, None) for item in value) if type(value) in (list, tuple) else value


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
