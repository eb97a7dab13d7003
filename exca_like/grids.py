"""What a sweep is made of: names of fields, and the values of each."""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic

from exca_like import dotted
from exca_like.errors import InfraTypeError, InfraValueError
from exca_like.infra.base import BaseInfra
from exca_like.models.plan import plan_of
from exca_like.sources import closest

LIST_ERRORS = ("list_type", "tuple_type", "set_type", "frozen_set_type")
"""Errors of pydantic for what is no list, or the like."""
MOST = 1_000_000
"""Combinations of a grid; more are taken for a mistake."""
_LONGEST = 60


class Grid:
    """Values by dotted names of fields, and which of them go together.

    Parameters
    ----------
    values:
        Values by name.
    together:
        Groups of names whose values go together: the first of each, the second of each...

    Raises
    ------
    TypeError, ValueError
        Something is no grid; the message says what to write instead.
    """

    def __init__(self, values: Any, together: Any) -> None:
        if not isinstance(values, Mapping):
            like = "{'optim.lr': [0.1, 0.01], 'seed': range(5)}"
            msg = f"grid={values!r:.100} is no dictionary: give values by name, like {like}"
            raise InfraTypeError(msg)
        if not values:
            msg = "the grid is empty: give values by name, like {'seed': range(5)}"
            raise InfraValueError(msg)
        one_shot: dict[int, str] = {}
        self.values = {_checked_name(name): _listed(name, each, one_shot) for name, each in values.items()}
        self._groups = self._grouped(together)
        if len(self) > MOST:
            sizes = " × ".join(str(len(self.values[group[0]])) for group in self._groups)
            msg = f"the grid has {len(self):,} combinations ({sizes}), more than {MOST:,}: give fewer values"
            raise InfraValueError(msg)

    def __len__(self) -> int:
        """The number of combinations."""
        return math.prod(len(self.values[group[0]]) for group in self._groups)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Combinations, the last name fastest; names that go together at the place of the first of them."""
        for places in itertools.product(*(range(len(self.values[group[0]])) for group in self._groups)):
            chosen = {name: place for group, place in zip(self._groups, places, strict=True) for name in group}
            yield {name: values[chosen[name]] for name, values in self.values.items()}

    @functools.cached_property
    def layers(self) -> list[list[str]]:
        """Names in the order in which their values are put into a config: those of parts of what others replace come later."""
        above = {name: sum(name.startswith(f"{other}.") for other in self.values) for name in self.values}
        return [[name for name in self.values if above[name] == depth] for depth in sorted(set(above.values()))]

    def __str__(self) -> str:
        """Names and numbers of values: ``optim.lr × 4, seed × 5``."""
        return ", ".join(f"{' with '.join(group)} × {len(self.values[group[0]])}" for group in self._groups)

    def hint(self, kind: str, name: str) -> str:
        """What to add to an error of pydantic about a value: how one list is written, whose parts were taken for values."""
        values = self.values.get(name, [])
        if kind not in LIST_ERRORS or any(isinstance(value, list | tuple) for value in values):
            return ""
        shown = repr(values)
        return f"; for one list, write {{{name!r}: [{shown if len(shown) <= _LONGEST else '[...]'}]}}"

    def check_fields(self, config: pydantic.BaseModel) -> None:
        """Raise if a name is no field of a config that is to be changed, or says how to compute and not what."""
        for name in self.values:
            model: Any = config
            parts = dotted.split(name)
            for depth, part in enumerate(parts):
                above = ".".join(map(dotted.escape, parts[:depth]))
                # what is inside of a dictionary or list, or of what the grid itself replaces, is left to the validation
                if not isinstance(model, pydantic.BaseModel) or above in self.values:
                    break
                cls = type(model)
                if part not in cls.model_fields and part != plan_of(cls).key and cls.model_config.get("extra") != "allow":
                    raise _unknown(name, config, above, model)
                model = getattr(model, part, None)
                if isinstance(model, BaseInfra) and parts[depth + 1 :] != ["version"]:
                    what = "an infra" if depth + 1 == len(parts) else "a setting of an infra"
                    msg = (
                        f"{name!r} is {what}, which says how to compute, not what: all configs would have the same result. "
                        f"Take it out of the grid and set it on the config ({type(config).__name__}(...))."
                    )
                    raise InfraValueError(msg)

    def _grouped(self, together: Any) -> list[tuple[str, ...]]:
        """Names that go together, and the others alone, in the order of the grid."""
        groups = _checked_groups(together)
        of: dict[str, tuple[str, ...]] = {}
        for group in groups:
            for name in group:
                if name not in self.values:
                    near = closest(name, self.values)
                    msg = f"zip names {name!r}, which is not in the grid" + (f"; did you mean {near!r}?" if near else "")
                    raise InfraValueError(msg)
                if name in of:
                    msg = f"zip names {name!r} twice: put all names that go together in one group"
                    raise InfraValueError(msg)
                of[name] = group
            sizes = {name: len(self.values[name]) for name in group}
            if len(set(sizes.values())) > 1:
                shown = ", ".join(f"{name} has {size}" for name, size in sizes.items())
                msg = f"values that go together (zip) must be equally many: {shown}"
                raise InfraValueError(msg)
        return list(dict.fromkeys(of.get(name, (name,)) for name in self.values))


def described(combination: Mapping[str, Any]) -> str:
    """A combination for messages: ``optim.lr=0.1, seed=3``."""
    return ", ".join(f"{name}={value!r:.60}" for name, value in combination.items())


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not all(dotted.parts(name)):
        msg = f"the grid has the name {name!r}: give dotted names of fields, like 'optim.lr'"
        raise InfraTypeError(msg)
    return name


def _listed(name: str, values: Any, one_shot: dict[int, str]) -> list[Any]:
    """The values of a name, each as it is put into configs."""
    if isinstance(values, str | bytes):
        msg = f"the grid has the text {values!r:.60} for {name!r}: give a list, of one text ([{values!r:.60}]) or several"
        raise InfraTypeError(msg)
    if isinstance(values, Mapping):
        inside = next(iter(values), "x")
        msg = f"the grid has a dictionary for {name!r}: write dotted names, like {{'{name}.{inside}': [...]}}"
        raise InfraTypeError(msg)
    if isinstance(values, set | frozenset):
        msg = f"the grid has a set for {name!r}, which is in another order in each process: give a list, like sorted(...)"
        raise InfraTypeError(msg)
    if not isinstance(values, Iterable) or isinstance(values, pydantic.BaseModel):
        msg = f"the grid has {values!r:.60} for {name!r}, which is no list of values: for one value, write [{values!r:.60}]"
        raise InfraTypeError(msg)
    if isinstance(values, Iterator):
        if id(values) in one_shot:
            msg = f"{one_shot[id(values)]!r} and {name!r} have the same iterator, which gives its values once only: give a list"
            raise InfraValueError(msg)
        one_shot[id(values)] = name
    found = [_plain(value) for value in itertools.islice(values, MOST + 1)]
    if len(found) > MOST:
        msg = f"the grid has more than {MOST:,} values for {name!r}: give fewer (is it an iterator without end?)"
        raise InfraValueError(msg)
    if not found:
        hint = (
            ", or was used before: an iterator gives its values once only, so give a list"
            if isinstance(values, Iterator)
            else ""
        )
        msg = f"the grid has no values for {name!r}: {type(values).__name__} is empty{hint}"
        raise InfraValueError(msg)
    return found


def _plain(value: Any) -> Any:
    """A scalar of numpy as that of Python, which is what fields take."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def _checked_groups(together: Any) -> list[tuple[str, ...]]:
    if isinstance(together, str) or not isinstance(together, Iterable):
        msg = f"zip={together!r}: give groups of names, like zip=[('seed', 'name')]"
        raise InfraTypeError(msg)
    groups = list(together)
    if groups and all(isinstance(group, str) for group in groups):
        msg = f"zip={together!r}: give groups of names, even if it is one: zip=[{tuple(groups)!r}]"
        raise InfraTypeError(msg)
    for group in groups:
        if isinstance(group, str) or not isinstance(group, Iterable):
            msg = f"zip has {group!r}: give groups of names, like zip=[('seed', 'name')]"
            raise InfraTypeError(msg)
    return [tuple(group) for group in groups if group]


def _unknown(name: str, config: pydantic.BaseModel, above: str, model: pydantic.BaseModel) -> InfraValueError:
    """The error for a name that is no field: of a part of the config, which is above it, or of the config."""
    here = [field for field in type(model).model_fields if not isinstance(getattr(model, field, None), BaseInfra)]
    holder = f"{above!r}, of type {type(model).__name__}," if above else "it"
    said = f"{holder} has the fields {', '.join(here)}"
    part = name[len(above) :].lstrip(".").partition(".")[0]
    similar = closest(part, here)
    last = name.rpartition(".")[2]
    near = (
        f"{above}.{similar}".lstrip(".")
        if similar
        else next((f for f in _names(config, "") if f.rpartition(".")[2] == last), None)
    )
    if near:
        said = f"{said}; did you mean {near!r}?" if above else f"did you mean {near!r}?"
    return InfraValueError(f"{type(config).__name__} has no field {name!r}: {said}")


def _names(model: pydantic.BaseModel, above: str) -> Iterator[str]:
    """Dotted names of all fields but those of infras."""
    for name in type(model).model_fields:
        value = getattr(model, name, None)
        if not isinstance(value, BaseInfra):
            yield above + name
            if isinstance(value, pydantic.BaseModel):
                yield from _names(value, f"{above}{name}.")
