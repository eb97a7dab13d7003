"""The one loop that everything computed goes through: look up, run, store.

A front (a task, later a map or a memoised function) turns what the user wrote into a `Batch` and hands it over. The
engine knows neither pydantic nor clusters: a job on a cluster calls the same loop on its own machine.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from exca_like.cachedict.failures import Failure
from exca_like.errors import CacheFolderError, NotCachedError
from exca_like.store import Outcome, Store, make_information

Mode = Literal["cached", "retry", "force", "read-only"]


class Batch(NamedTuple):
    """Keys, and how to compute their values.

    ``compute`` takes some of the keys and yields one value for each, in order. ``label`` names the batch in messages.
    """

    label: str
    keys: Sequence[str]
    compute: Callable[[Sequence[str]], Iterator[Any]]
    store: Store
    mode: Mode = "cached"


def look_up(batch: Batch) -> dict[str, Outcome]:
    """Outcomes that the batch's mode takes from the store.

    Raises
    ------
    NotCachedError
        The mode is read-only and something is missing.
    """
    if batch.mode == "force":
        return {}
    found = {}
    for key in batch.keys:
        outcome = batch.store.load(key)
        if outcome is not None and (outcome.failure is None or batch.mode != "retry"):
            found[key] = outcome
        elif outcome is None and batch.mode == "read-only":
            raise not_cached(batch.label)
    return found


def run(batch: Batch) -> dict[str, Outcome]:
    """Outcomes of all keys of a batch, those missing computed in this process.

    An exception of the user's code is stored and ends the batch. It is raised as it is, so that a debugger finds the
    frames; interruptions are not stored.
    """
    outcomes = look_up(batch)
    missing = [key for key in batch.keys if key not in outcomes]
    if not missing:
        return outcomes
    values = batch.compute(missing)
    for key in missing:
        started = time.time()
        try:
            outcome = Outcome(next(values))
            batch.store.save(key, outcome, make_information(started))
        except CacheFolderError:
            raise
        except (Exception, SystemExit) as error:
            batch.store.save(key, Outcome(failure=Failure.of(error)), make_information(started))
            raise
        outcomes[key] = outcome
    return outcomes


def not_cached(label: str) -> NotCachedError:
    """The error of a read-only batch that is not in its cache."""
    return NotCachedError(
        f"{label} is not in the cache, and mode='read-only' computes nothing: "
        "check the config and the folder, or use mode='cached' to compute it"
    )
