"""What an infra does about code that has changed since a result was computed."""

import abc
import copy
import functools
import types
from typing import TYPE_CHECKING, Any, NoReturn

import pydantic

from exca_like import layout
from exca_like.errors import CodeChangedError
from exca_like.infra.base import BaseInfra
from exca_like.infra.modes import parts_of
from exca_like.infra.state import State
from exca_like.models.plan import plan_of
from exca_like.watching import CodePolicy, CodeState, check_same, keep, policy_of, warn

if TYPE_CHECKING:
    from exca_like.explaining import UidExplanation

_CODE = (types.FunctionType, type, abc.ABCMeta, type(pydantic.BaseModel))  # types of functions and classes
_FORGOTTEN = (
    "entry",
    "store",
    "readers",
    "claims",
    "exports",
    "job",
    "folder_is_checked",
    "recomputed",
    "forced",
    "kept",
    "compared",
)


class CodedInfra(BaseInfra):
    """An infra whose results depend on code."""

    code: CodePolicy | None = None
    """What to do with results that other code has computed: ``"warn"``: they are taken, with a warning that names what has
    changed; ``"recompute"``: they are not, as the code is part of the uid; ``"ignore"``. None: what the setting ``code`` says,
    else ``"warn"``."""

    def explain_uid(self) -> "UidExplanation":
        """Which fields of the config the uid is made from, and why the others don't show in it; a table, when printed."""
        from exca_like.infra.explain import explain_uid

        return explain_uid(self)

    def _code_state(self) -> CodeState | None:
        """The code that results depend on, as this process has it; None if it does not count."""
        state = self._linked_state
        if self._policy(state) == "ignore":
            return None
        if state.code is not None:  # of a job
            return state.code  # type: ignore[no-any-return]
        assert state.applied is not None
        return state.applied.watch.state_with(state.roots or self._code_roots(state))

    def _policy(self, state: State) -> CodePolicy:
        if state.policy is None:
            is_stored = self.folder is not None or self.read_folders
            state.policy = policy_of(self.code, "warn") if is_stored else "ignore"
        return state.policy  # type: ignore[no-any-return]

    def _code_roots(self, state: State) -> tuple[Any, ...]:
        """The classes that the config is made of, and functions and classes that are values of fields."""
        if state.roots is None:
            assert state.applied is not None
            parts = parts_of(state)
            own = state.applied.caching_class(type(state.owner))  # who calls super() shares results with its base
            values = [
                value
                for model in (state.owner, *parts)
                for field in plan_of(type(model)).loose
                if type(value := model.__dict__[field.name]) in _CODE
            ]
            state.roots = tuple(dict.fromkeys((own, *map(type, parts), *values)))
        return state.roots  # type: ignore[no-any-return]

    def _renew(self, state: State) -> None:
        if self._code_key() != state.code_key:  # other code, or another value of what is watched
            for name in _FORGOTTEN:
                state.__dict__.pop(name, None)
            state.recomputed_items.clear()

    def _code_key(self) -> str:
        if self._policy(self._linked_state) != "recompute":
            return ""
        found = self._code_state()
        assert found is not None
        return f"~{found.digest}"

    def _notes_of_all(self) -> dict[str, Any]:
        found = self._code_state()
        if found is None:
            return {}
        keep(self._entry().root, found, self.permissions)
        return {"code": found.digest}

    def _sent_code(self) -> CodeState | None:
        """The code that a job is to find."""
        found = self._code_state()
        if found is not None:
            keep(self._entry().root, found, self.permissions)
        return found

    def _take_code(self, sent: CodeState | None) -> None:
        """Take note of the code that a job was sent with; if it is part of the uid, the method raises for another one."""
        state = self._linked_state
        if sent is None:
            return
        assert state.applied is not None
        here = state.applied.watch.confirmed(sent, self._code_roots(state))
        if self._policy(state) == "recompute":
            try:
                check_same(self.uid(), sent, here)
            except CodeChangedError as error:  # is to be the outcome, like an error of the method itself
                state.applied = copy.copy(state.applied)
                state.applied.method = functools.partial(_refuse, error)
        state.code = here

    def _warn_of(self, stored: str) -> None:
        """Warn if a result was computed by other code."""
        now = self._code_state()
        if now is not None and stored != now.digest:
            warn(self.uid(), self._roots(), stored, now)

    def _roots(self) -> list[str]:
        """The folders that results may lie in."""
        return [self._entry().root, *map(layout.absolute, self.read_folders)]

    def _is_kept(self, state: State) -> bool:
        """Whether results may be taken from memory without a look at the code."""
        is_watched = state.applied is not None and state.applied.watch.names
        return not is_watched or self._policy(state) == "ignore"


def _refuse(error: CodeChangedError, *_: Any) -> NoReturn:
    raise error
