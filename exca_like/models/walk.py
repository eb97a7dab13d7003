"""The models that a config is made of."""

from collections.abc import Iterator
from typing import Any

import pydantic

from exca_like.models.plan import plan_of

_LEAVES = frozenset((str, int, float, bool, bytes, type(None)))  # asking whether something is a model is slow


def models_within(model: pydantic.BaseModel, without: type[Any]) -> Iterator[pydantic.BaseModel]:
    """All models in the fields of a model, at any depth, also in lists, dictionaries and sets; each once.

    Fields that hold something of the type ``without`` are left out, with all that is in it.
    """
    left = _values(model, without)
    if not left:
        return
    seen = {id(model)}
    while left:
        value = left.pop()
        if type(value) in _LEAVES:
            continue
        if isinstance(value, pydantic.BaseModel):
            if id(value) not in seen:
                seen.add(id(value))
                yield value
                if plan_of(type(value)).nested or value.__pydantic_extra__:
                    left += _values(value, without)
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            left += value


def _values(model: pydantic.BaseModel, without: type[Any]) -> list[Any]:
    """Values of those fields that may hold models."""
    contents = model.__dict__
    values = [
        value
        for field in plan_of(type(model)).nested
        if (value := contents.get(field.name)) is not None and not isinstance(value, without)
    ]
    if model.__pydantic_extra__:
        values += model.__pydantic_extra__.values()
    return values
