"""What the jobs of failed configs ask for when they are submitted again."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pydantic

from exca_like.errors import InfraUsageError, InfraValueError
from exca_like.infra.resources import JOB_SETTINGS
from exca_like.infra.task import TaskInfra
from exca_like.sources import closest

_MOST = 16.0
"""A larger factor is taken for an amount."""


class Retry(NamedTuple):
    """A task that is to be submitted again, and what its job is to ask for. ``str()`` of it is a line for people."""

    uid: str
    """The uid of the config."""
    changes: Mapping[str, tuple[Any, Any]]
    """By names of fields of the infra: what its last job asked for, and what the next one will."""

    def __str__(self) -> str:
        shown = [
            f"{name}={_text(new)}" + ("" if old in (None, new) else f" (was {_text(old)})")
            for name, (old, new) in self.changes.items()
        ]
        return f"{self.uid}: {', '.join(shown)}" if shown else self.uid


def check_names(names: Iterable[str]) -> None:
    """Raise for what is nothing that a job asks for.

    Raises
    ------
    ValueError
        It names what may have been meant.
    """
    for name in names:
        if name not in JOB_SETTINGS:
            near = closest(name, JOB_SETTINGS)
            meant = f"; did you mean {near!r}?" if near else f": there are {', '.join(JOB_SETTINGS)}"
            msg = f"{name!r} is nothing that a job asks for{meant}"
            raise InfraValueError(msg)


def again_of(infra: TaskInfra, wanted: Mapping[str, Any]) -> tuple[TaskInfra, Retry]:
    """An infra of the same uid that computes a failed task again, and asks for more.

    Numbers multiply what the last job asked for, anything else is set.

    Raises
    ------
    RuntimeError
        The environment stands in for the mode.
    ValueError
        There is nothing to be multiplied.
    """
    changes: dict[str, tuple[Any, Any]] = {}
    asked = vars(infra._resources()) | infra._record().get("asked", {}) if wanted else {}
    try:
        for name, value in wanted.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            changes[name] = asked[name], _multiplied(name, value, asked[name]) if is_number else value
            _check(infra, name, changes[name][1])
    except InfraValueError as error:
        msg = f"{infra.uid()}: {error}"
        raise InfraValueError(msg) from error
    again: TaskInfra = getattr(infra.clone_obj(), infra._field_name())
    again.mode = "retry"
    for name, (_, value) in changes.items():
        setattr(again, name, value)
    if again._mode() not in ("retry", "force"):
        msg = f"EXCA_LIKE_MODE={again._mode()} stands in for the mode that would compute failed tasks again: unset it"
        raise InfraUsageError(msg)
    return again, Retry(infra.uid(), changes)


def _multiplied(name: str, factor: float, present: Any) -> Any:
    if not isinstance(present, int | float):
        msg = f"{name}={factor:g} multiplies what the job asked for, which is not set: set it on the infra, or in the settings"
        raise InfraValueError(msg)
    if not 0 < factor <= _MOST:
        meant = f"; did you mean {name}={factor / present:.3g}, for {factor:g}?" if factor > 0 and present else ""
        msg = f"{name}={factor:g} is a factor, of the {name}={present:g} that the job asked for, from 0 to {_MOST:g}{meant}"
        raise InfraValueError(msg)
    more = present * factor
    return int(-(-more // 1)) if isinstance(present, int) and name != "mem_gb" else more


def _check(infra: TaskInfra, name: str, value: Any) -> None:
    """Raise for a value that the field does not take, before anything is submitted."""
    probe = type(infra).model_construct()
    try:
        type(infra).__pydantic_validator__.validate_assignment(probe, name, value)
    except pydantic.ValidationError as error:
        msg = f"{name}={value!r}: {error.errors(include_url=False)[0]['msg']}"
        raise InfraValueError(msg) from error


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
