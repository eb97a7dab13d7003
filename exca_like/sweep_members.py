"""The configs of a sweep: one for each combination of values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pydantic

from exca_like.errors import ExcaLikeError, InfraTypeError, InfraValueError
from exca_like.grids import Grid, described
from exca_like.infra.applied import FIELDS, InfraField
from exca_like.infra.task import TaskInfra
from exca_like.sources import closest


class Member(NamedTuple):
    """A config of a sweep."""

    swept: dict[str, Any]
    config: Any
    infra_name: str

    @property
    def infra(self) -> TaskInfra:
        """The infra that computes it."""
        found: TaskInfra = getattr(self.config, self.infra_name)
        return found


class _Place(NamedTuple):
    """Which combination of a grid a message is about."""

    number: int
    grid: Grid
    values: dict[str, Any]

    def __str__(self) -> str:
        return f"combination {self.number} of {len(self.grid)} ({described(self.values)})"


def members_of(obj: Any, infra: str, grid: Grid, where: Callable[[Any], Any] | None) -> tuple[list[Member], int]:
    """The configs that are wanted, the first of each uid, and how many others had the uid of one of them."""
    members: dict[str, Member] = {}
    kept = 0
    for number, values in enumerate(grid, 1):
        place = _Place(number, grid, values)
        config = _clone(obj, infra, [{key: values[key] for key in layer} for layer in grid.layers], place)
        if where is None or _is_wanted(where, config, place):
            kept += 1
            member = Member(values, config, infra)
            members.setdefault(member.infra.uid(), member)
    if not members:
        msg = f"where leaves out all {len(grid)} combinations of the grid ({grid}): let it give True for some"
        raise InfraValueError(msg)
    return list(members.values()), kept - len(members)


def chosen_infra(obj: Any, name: str | None) -> str:
    """The name of the infra that a sweep is of."""
    if isinstance(obj, type):
        msg = f"sweep takes a config to start from, not its class: sweep({obj.__name__}(...), {{...}})"
        raise InfraTypeError(msg)
    fields: dict[str, InfraField] = getattr(type(obj), FIELDS, {})
    names = [field for field, infra in fields.items() if isinstance(infra.default, TaskInfra)]
    cls = type(obj).__name__
    if not names:
        others = ", ".join(f"{field}: {type(infra.default).__name__}" for field, infra in fields.items())
        has = f"only {others}" if others else "none"
        msg = f"sweep takes a config with a TaskInfra, and one of type {cls} has {has}"
        if isinstance(obj, TaskInfra):
            msg = "sweep takes a config, not its infra: sweep(config, {...}, infra='<name of the field>')"
        raise InfraTypeError(msg)
    if name is None:
        if len(names) > 1:
            msg = f"{cls} has several TaskInfras: choose one with infra={' or infra='.join(map(repr, names))}"
            raise InfraTypeError(msg)
        return names[0]
    if name not in names:
        near = closest(str(name), names)
        msg = f"infra={name!r}: {cls} has no TaskInfra of this name" + (f"; did you mean {near!r}?" if near else "")
        raise InfraValueError(msg)
    return name


def _clone(config: Any, infra: str, patches: Iterable[Mapping[str, Any]], place: _Place) -> Any:
    """A config with changes, one after the other."""
    cls = type(config).__name__
    try:
        for patch in patches:
            config = getattr(config, infra).clone_obj(patch)
    except pydantic.ValidationError as error:
        found = [(".".join(map(str, each["loc"])), each) for each in error.errors(include_url=False)]
        said = "; ".join(f"{name}: {each['msg']}{place.grid.hint(each['type'], name)}" for name, each in found)
        msg = f"{place} is no valid {cls}: {said}"
        raise InfraValueError(msg) from error
    except ExcaLikeError as error:
        error.add_note(f"It is about {place}.")
        raise
    return config


def _is_wanted(where: Callable[[Any], Any], config: Any, place: _Place) -> bool:
    try:
        wanted = where(config)
    except Exception as error:
        error.add_note(f"`where` raised it for {place}.")
        raise
    if wanted is None:
        msg = f"where gave None for {place}: let it return True for configs to keep, and False for others"
        raise InfraTypeError(msg)
    return bool(wanted)
