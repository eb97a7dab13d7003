"""The one loop that everything computed goes through: look up, claim, look again, run, store, release.

A front (a task, a map) turns what the user wrote into a `Batch`, or a `Mapping` of many items, and hands it over. The
engine knows no pydantic: a job on a cluster calls the same loop on its own machine.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

from exca_like import progress
from exca_like.cachedict.failures import Failure
from exca_like.errors import CacheFolderError, NotCachedError, SettingsError
from exca_like.recording import noted_here
from exca_like.sources import VARIABLES as _VARIABLES
from exca_like.sources import variable
from exca_like.store import Outcome, Store

Mode = Literal["cached", "retry", "force", "read-only", "off"]
MODE_VARIABLE = "EXCA_LIKE_MODE"
_KEY = MODE_VARIABLE.encode()

_FIRST_POLL, _LAST_POLL = 0.005, 0.5  # seconds between two looks at what others do
_PATIENCE_S = 3.0  # seconds of waiting after which the user is told what for


def mode_of_environment() -> Mode | None:
    """The mode that the environment wants in place of all others; None if it wants none.

    Raises
    ------
    SettingsError
        There is no such mode.
    """
    if _VARIABLES is not None and _KEY not in _VARIABLES:  # as usual; what `variable` does, without another call
        return None
    wanted: Any = variable(_KEY)
    if not wanted:
        return None
    if wanted not in get_args(Mode):
        msg = (
            f"{MODE_VARIABLE}={wanted!r} is no mode: use one of {', '.join(get_args(Mode))}, or unset the variable, "
            "so that each infra has its own"
        )
        raise SettingsError(msg)
    return wanted  # type: ignore[no-any-return]


def mode_now(mode: Mode) -> Mode:
    """A mode, or the one that the environment wants in place of all others."""
    return mode_of_environment() or mode


class Waiting(Protocol):
    """Keys that somebody else computes."""

    keys: list[str]

    @property
    def job(self) -> dict[str, Any] | None:
        """The record of the job that computes them, if it is one."""
        ...

    def names(self) -> set[str]:
        """Names of the claims that hold them."""
        ...

    def freed(self) -> list[str]:
        """The keys that are free since the last question."""
        ...


class Claims(Protocol):
    """Who computes what; see `exca_like.cachedict.claims`."""

    def claim(
        self, keys: Sequence[str], choose: Callable[[list[str]], Iterable[Sequence[str]]]
    ) -> tuple[Sequence[Any], Sequence[Waiting]]:
        """Claim those of some keys that nobody holds, and that are wanted."""
        ...


class Batch(NamedTuple):
    """Keys, and how to compute their values in this process.

    ``compute`` takes some of the keys and yields one value for each, in order. ``label`` names the batch in messages.
    ``is_elsewhere`` tells whether a job was submitted for it, which is to be waited for by other means. ``claim`` is one on all
    keys, if they were claimed when there was nothing stored for any.
    """

    label: str
    keys: Sequence[str]
    compute: Callable[[Sequence[str]], Iterator[Any]]
    store: Store
    claims: Callable[[], Claims]
    mode: Mode = "cached"
    is_elsewhere: Callable[[], bool] = lambda: False
    claim: Any = None


def look_up(store: Store, key: str, mode: Mode) -> Outcome | None:
    """The outcome of a key that a mode takes from the store, if there is one."""
    if mode == "force":
        return None
    outcome = store.load(key)
    if outcome is not None and outcome.failure is not None and mode == "retry":
        return None
    return outcome


def run(batch: Batch) -> dict[str, Outcome]:
    """Outcomes of keys that were looked up and are missing: computed in this process, or by whoever does so already.

    A key that is computed elsewhere may have none. An exception of the user's code is stored and ends the batch. It is
    raised as it is, so that a debugger finds the frames; interruptions are not stored.
    """
    store, mode = batch.store, batch.mode
    outcomes: dict[str, Outcome] = {}
    if batch.claim is not None:
        with batch.claim:
            _compute(batch, batch.claim, outcomes)
        return outcomes
    seen = {key: store.mark(key) for key in batch.keys} if mode == "retry" else {}

    def is_wanted(key: str) -> bool:
        if mode == "force":
            return True
        kind = store.peek(key)
        is_missing = kind is None or (kind == "failure" and mode == "retry" and store.mark(key) == seen[key])
        return is_missing and not batch.is_elsewhere()

    def choose(free: list[str]) -> list[list[str]]:
        chosen = list(filter(is_wanted, free))
        return [chosen] if chosen else []

    missing: Sequence[str] = batch.keys
    patience = Patience(batch.label)
    while missing:
        claims, waiting = batch.claims().claim(missing, choose)
        for claim in claims:
            with claim:
                _compute(batch, claim, outcomes)
        missing = [key for others in waiting for key in others.keys]
        if waiting:
            patience.wait(waiting)
        if not missing:
            for key in batch.keys:
                if key not in outcomes and (outcome := store.load(key)) is not None:
                    outcomes[key] = outcome
            if len(outcomes) < len(batch.keys) and not batch.is_elsewhere():  # removed just when it had been found
                missing = [key for key in batch.keys if key not in outcomes]
    return outcomes


@noted_here
def _compute(batch: Batch, claim: Any, outcomes: dict[str, Outcome]) -> None:
    values = batch.compute(claim.keys)
    for key in claim.keys:
        recording = batch.store.recording()
        try:
            outcome = Outcome(next(values))
            try:
                batch.store.save(key, outcome, recording.information(), is_first=batch.claim is not None)
            except CacheFolderError as error:
                error.value = outcome.value
                error.add_note(
                    f"{batch.label} was computed all the same: its result is in the attribute `value` of this exception."
                )
                raise
        except CacheFolderError:
            raise
        except (Exception, SystemExit) as error:
            batch.store.save(key, Outcome(failure=Failure.of(error)), recording.information())
            raise
        outcomes[key] = outcome
        if key is not claim.keys[-1]:  # else the claim is closed now
            claim.release(key)


class Patience:
    """Waits for others, more and more rarely; after some seconds the user is told, once, for whom and how to break it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._since: float | None = None
        self._delay = _FIRST_POLL
        self._told = False

    def wait(self, waiting: Sequence[Waiting]) -> None:
        """Return when a key is free that was not before."""
        while not any([others.freed() for others in waiting]):  # noqa: C419 - all are to be asked
            self.pause(waiting)
        self.renew()

    def renew(self) -> None:
        """Look often again, as something has changed."""
        self._delay = _FIRST_POLL

    def pause(self, waiting: Sequence[Waiting]) -> None:
        """Wait for a moment."""
        self._since = self._since or time.monotonic()
        if not self._told and time.monotonic() - self._since > _PATIENCE_S and waiting:
            self._told = True
            number = sum(len(others.keys) for others in waiting)
            what = f"{number} item(s) of {self._label}" if number > 1 else f"{self._label} ({waiting[0].keys[0]!r})"
            progress.tell(f"waiting for {what}, computed by {'; '.join(str(others) for others in waiting[:3])}")
        time.sleep(self._delay)
        self._delay = min(1.5 * self._delay, _LAST_POLL)


def not_cached(label: str) -> NotCachedError:
    """The error of a read-only batch that is not in its cache."""
    return NotCachedError(
        f"{label} is not in the cache, and mode='read-only' computes nothing: "
        "check the config and the folder, or use mode='cached' to compute it"
    )
