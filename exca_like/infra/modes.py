"""Which mode counts: that of the environment, of the infra, or of an infra that its config is made from."""

import functools
from typing import Any, Literal

import pydantic

from exca_like import engine
from exca_like.infra.applied import FIELDS, InfraField
from exca_like.infra.base import BaseInfra
from exca_like.infra.state import State
from exca_like.models.walk import models_within
from exca_like.sources import VARIABLES as _VARIABLES

_KEY = engine.MODE_VARIABLE.encode()

InfraMode = Literal["cached", "retry", "force", "force-forward", "read-only", "off"]


def mode_of(infra: Any, state: State) -> engine.Mode:
    """The mode of an infra's next call; a task that was forced once is not forced again.

    Raises
    ------
    SettingsError
        The environment asks for a mode that there is not.
    """
    if state.steady_mode is not None and _VARIABLES is not None and _KEY not in _VARIABLES:
        return state.steady_mode  # type: ignore[no-any-return] # what follows, in the usual case
    wanted = engine.mode_of_environment()
    if wanted is not None:
        return "cached" if wanted == "force" and state.forced else wanted
    if state.steady_mode is not None:
        return state.steady_mode  # type: ignore[no-any-return]
    mode: Any = infra.mode
    if mode in ("force", "force-forward"):
        return "cached" if state.forced else "force"
    if mode in ("cached", "retry"):
        if not has_forced_parts(infra):
            state.steady_mode = mode  # the config is frozen now
        elif not state.forced:
            return "force"
    return mode  # type: ignore[no-any-return]


def has_forced_parts(infra: Any) -> bool:
    """Whether the mode of an infra of a sub-config is ``"force-forward"``, so that what is made from it is out of date."""
    state = infra._linked_state
    if state.has_forced_parts is None:
        infra._entry()  # freezes the config: what is found now stays as it is
        parts: tuple[pydantic.BaseModel, ...] = parts_of(state)
        state.has_forced_parts = any(_is_forced(field.linked(part)) for part in parts for field in _fields_of(type(part)))
    found: bool = state.has_forced_parts
    return found


def parts_of(state: State) -> tuple[pydantic.BaseModel, ...]:
    """The configs that a config is made of, which is frozen."""
    if state.parts is None:
        state.parts = tuple(models_within(state.owner, without=BaseInfra))
    return state.parts


@functools.cache
def _fields_of(cls: type[Any]) -> tuple[InfraField, ...]:
    return tuple(getattr(cls, FIELDS, {}).values())


def _is_forced(infra: Any) -> bool:
    return getattr(infra, "mode", None) == "force-forward"
