"""What the jobs of failed configs ask for when they are submitted again."""

from collections.abc import Mapping
from typing import Any

import pydantic

from exca_like.errors import InfraValueError
from exca_like.infra.resources import JOB_SETTINGS
from exca_like.infra.task import TaskInfra
from exca_like.sources import closest

_MOST = 16.0
"""A larger factor is taken for an amount."""


def more_of(infra: TaskInfra, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """New values of an infra's fields: numbers multiply what it asks for, anything else is set.

    Raises
    ------
    ValueError
        There is no such field, or nothing to be multiplied.
    """
    changes: dict[str, Any] = {}
    asked = infra._resources() if wanted else None
    for name, value in wanted.items():
        if name not in JOB_SETTINGS:
            near = closest(name, JOB_SETTINGS)
            meant = f"; did you mean {near!r}?" if near else f": there are {', '.join(JOB_SETTINGS)}"
            msg = f"{name!r} is nothing that a job asks for{meant}"
            raise InfraValueError(msg)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        changes[name] = _multiplied(name, value, getattr(asked, name)) if is_number else value
        _check(infra, name, changes[name])
    return changes


def _multiplied(name: str, factor: float, present: Any) -> Any:
    if not isinstance(present, int | float):
        msg = f"{name}={factor:g} multiplies what the infra asks for, which is not set: set {name} on it, or in the settings"
        raise InfraValueError(msg)
    if not 0 < factor <= _MOST:
        meant = f"; did you mean {name}={factor / present:.3g}, for {factor:g}?" if factor > 0 and present else ""
        msg = f"{name}={factor:g} is a factor, of the {name}={present:g} that the infra asks for, from 0 to {_MOST:g}{meant}"
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
