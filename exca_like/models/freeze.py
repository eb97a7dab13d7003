"""Freezing of single model instances.

A model whose uid was computed must not change any more, while its class and its other instances stay as they are.
pydantic can only freeze classes, so the classes concerned get a ``__setattr__`` that asks the instance first. The
mark of a frozen instance is the type of its set of set fields: it costs nothing to look at, is not part of the
model's content or equality, and is not passed on to copies and pickles.
"""

from typing import Any

import pydantic

from exca_like.errors import FrozenModelError
from exca_like.models.plan import plan_of

_GUARD = "__exca_like_guard__"


class _FrozenFields(set[str]):
    """Set of set fields of a frozen model; its copies are plain sets, so copied models are free.

    It knows its model, because pydantic hands it on to models that are built from this one.
    """

    __slots__ = ("model_id",)

    model_id: int

    def __copy__(self) -> set[str]:
        return set(self)

    def __deepcopy__(self, memo: Any) -> set[str]:
        return set(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return set, (list(self),)


def is_frozen(model: pydantic.BaseModel) -> bool:
    """Whether an instance was frozen."""
    fields_set = model.__pydantic_fields_set__
    return type(fields_set) is _FrozenFields and fields_set.model_id == id(model)


def freeze(model: pydantic.BaseModel) -> None:
    """Freeze a model and all models in its fields; private attributes stay free."""
    if is_frozen(model):
        return
    cls = type(model)
    plan = plan_of(cls)
    if not plan.guarded:
        if not hasattr(cls.__setattr__, _GUARD):
            _guard(cls)
        plan.guarded = True
    fields_set = _FrozenFields(model.__pydantic_fields_set__)
    fields_set.model_id = id(model)
    object.__setattr__(model, "__pydantic_fields_set__", fields_set)
    for field in plan.nested:
        value = getattr(model, field.name)  # an infra field gives the infra that is linked to the model
        if value is not None:
            _freeze_inside(value)
    if model.__pydantic_extra__:
        _freeze_inside(model.__pydantic_extra__)


def _freeze_inside(value: Any) -> None:
    if isinstance(value, pydantic.BaseModel):
        freeze(value)
    elif isinstance(value, dict):
        for item in value.values():
            _freeze_inside(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _freeze_inside(item)


def _guard(cls: type[pydantic.BaseModel]) -> None:
    free_setattr, free_delattr = cls.__setattr__, cls.__delattr__

    def __setattr__(self: pydantic.BaseModel, name: str, value: Any) -> None:
        if is_frozen(self) and _is_content(self, name):
            raise FrozenModelError(_message(self, name, f"set to {value!r:.100}"))
        free_setattr(self, name, value)

    def __delattr__(self: pydantic.BaseModel, name: str) -> None:
        if is_frozen(self) and _is_content(self, name):
            raise FrozenModelError(_message(self, name, "deleted"))
        free_delattr(self, name)

    setattr(__setattr__, _GUARD, True)
    cls.__setattr__ = __setattr__  # type: ignore[method-assign,assignment]
    cls.__delattr__ = __delattr__  # type: ignore[method-assign,assignment]


def _is_content(model: pydantic.BaseModel, name: str) -> bool:
    cls = type(model)
    if name in cls.model_fields:
        return True
    return model.__pydantic_extra__ is not None and not name.startswith("_") and not hasattr(cls, name)


def _message(model: pydantic.BaseModel, name: str, change: str) -> str:
    return (
        f"{type(model).__qualname__}.{name} can't be {change}: the uid of this config was computed, so it must not change "
        f"any more. Make a changed copy: infra.clone_obj({{{name!r}: ...}}), for a field of a sub-config with its dotted path."
    )
