"""What is noted of a computation while it runs, to be stored beside its result: when, where, and what the code adds."""

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any, TypeVar

from exca_like import runs, user_warnings
from exca_like.cachedict.handlers.containers import to_tree
from exca_like.errors import NotRecordedWarning
from exca_like.runs import Run

F = TypeVar("F", bound=Callable[..., Any])

_HOST = os.uname().nodename
_DEEPEST = 100  # levels of data in data, of which the parsers of JSON take some more
_RENEWED_NS = 10_000_000  # after which memory and record are looked at again, for items that come faster
_now = time.time_ns

Extra = dict[str, Any]


def record(**values: Any) -> None:
    """Keep values beside the result that is being computed, to be read with ``infra.provenance().extra``.

    They belong to the innermost task, item or call that is computed in this thread and whose result is stored in a folder.
    Outside of such a computation nothing happens, so that a function can also be called by itself. Of a name that comes again,
    the last value counts.

    A value of another type is left out, with a `NotRecordedWarning`: what is noted beside a result is not worth the result.

    Parameters
    ----------
    **values:
        None, booleans, numbers (of numpy, too), texts, paths, and lists, tuples and dictionaries of these. Tuples come back as
        lists, paths as texts.

    Examples
    --------
    ::

        @infra.apply
        def run(self) -> float:
            ...
            exca_like.record(best_epoch=7, losses=[0.5, 0.3])
            return accuracy
    """
    plain: Extra = {}
    for name, value in values.items():  # a wrong value is told of outside of computations, too
        try:
            plain[name] = _plain(value, f"record({name}=...)")
        except _NotPlainError as error:
            msg = f"{error}. It is left out, and all else is kept"
            user_warnings.warn(msg, NotRecordedWarning)
    # The stack knows which computation is the innermost of this thread, also of those that are suspended between two items;
    # anything else would have to be told for each of millions of items.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _NOTED:
            recording = frame.f_locals.get("recording")
            if recording is not None and recording.run is not None:
                recording.extra.update(plain)
                return
        frame = frame.f_back


_NOTED: set[CodeType] = set()


def noted_here(function: F) -> F:
    """Let `record` find what takes note of a computation in the variable ``recording`` of a function that runs it."""
    _NOTED.add(function.__code__)
    return function


class Recording:
    """What is noted of one computation.

    Parameters
    ----------
    run:
        What is the same for all that this process computes; None if its result is not kept in a folder of an infra. Then only
        time and place are noted, and what is recorded belongs to the computation around it.
    """

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.extra: Extra = {}
        """What the code has told."""
        if run is not None:
            run.begin()
        self.started = _now()
        """When it began, in nanoseconds."""

    def information(self) -> dict[str, Any]:
        """What is to be stored, as JSON data, of a computation that ends now."""
        ended = _now()
        moment = _moment(ended, ended - self.started)
        if self.run is None:
            return {**moment, "host": _HOST, "pid": os.getpid()}
        return {**moment, **_circumstances(self.run), **_extra(self.extra)}


class ItemRecording(Recording):
    """What is noted of the items of a map, one after the other, in a way that costs next to nothing for each.

    The time of an item begins where the one before it was stored, or where somebody asked for it: whoever computes sets
    ``started``. Of a method that returns all results at once, each item has an equal part of the time, and all of what was
    recorded.
    """

    def __init__(self, run: Run | None) -> None:
        super().__init__(run)
        self._share: int | None = None  # nanoseconds of each item of a list
        self._failed: dict[str, tuple[int, Extra]] = {}  # nanoseconds and notes of items that are to blame for an error
        self._same: dict[str, Any] = {}
        self._words = ""  # the same, as it is written
        self._renewal = 0

    # what the one tells who calls the method

    def called(self) -> None:
        """The method is called now, for the first time or because an earlier call failed."""
        self._share, self.extra = None, {}
        self.started = _now()

    def returned(self, number: int) -> None:
        """The method has returned the results of a number of items at once."""
        self._share = (_now() - self.started) // max(1, number)

    def failed(self, key: str) -> None:
        """An error was raised for which an item is to blame, or may be."""
        self._failed[key] = _now() - self.started, self.extra
        self.extra = {}

    # what is stored

    def of_result(self, notes: Mapping[str, Any] | None = None) -> Any:
        """What is to be stored beside a result that came now, with some notes; `noted` reads it."""
        now = _now()
        duration = now - self.started if self._share is None else self._share
        if now > self._renewal:
            if self.run is None:
                return notes
            self._renew(self.run, now)
        if self.extra or notes is not None:
            extra = self.extra
            if self._share is None:
                self.extra = {}
            return {**_moment(now, duration), **self._same, **_extra(extra), **(notes or {})}
        # one text, and a short one, as all of a line is parsed whenever its value is read
        return f"{now} {duration} {self._words}"

    def of_failure(self, key: str, notes: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """What is to be stored beside the error of an item, with some notes."""
        notes = notes or {}
        if self.run is None:
            return dict(notes) or None
        now = _now()
        duration, extra = self._failed.pop(key, (now - self.started, self.extra))
        return {**_moment(now, duration), **_circumstances(self.run), **_extra(extra), **notes}

    def _renew(self, run: Run, now: int) -> None:
        """Look at memory and record again, which need not be done for each of many quick items."""
        self._renewal = now + _RENEWED_NS
        self._same = _circumstances(run)
        more = [f"{name}={value}" for name, value in self._same.items() if name not in _WORDS]
        self._words = " ".join([*(str(self._same[name]) for name in _WORDS), *more])


_WORDS = ("memory", "host", "pid", "run")  # of the short form, in this order; others are named


def noted(meta: Any) -> dict[str, Any]:
    """What was stored beside a result, as a dictionary: what is one already, or the short form of `ItemRecording`."""
    if isinstance(meta, str):
        with contextlib.suppress(ValueError):  # it is of somebody else
            time, duration, memory, host, pid, run, *more = meta.split(" ")
            found = {"memory": float(memory), "host": host, "pid": int(pid), "run": run}
            return {**_moment(int(time), int(duration)), **found, **dict(word.split("=", 1) for word in more)}
    return meta if isinstance(meta, dict) else {}


def ended_elsewhere(job: str) -> dict[str, Any]:
    """What is known of a job that left no result, and so no notes."""
    return {"time": _moment(_now(), 0)["time"], "job": job}


def _moment(ended: int, duration: int) -> dict[str, Any]:
    """When a computation ended, and how long it took, from nanoseconds."""
    moment = datetime.datetime.fromtimestamp(ended // 1_000_000 / 1000, datetime.UTC)
    return {"time": moment.isoformat(timespec="milliseconds"), "duration": round(duration / 1e9, 6)}


def _circumstances(run: Run) -> dict[str, Any]:
    job = runs.job_id()
    found = {"memory": peak_memory(), "host": _HOST, "pid": os.getpid(), "run": run.digest()}
    return {**found, **({} if job is None else {"job": job}), **run.notes()}


def _extra(values: Extra) -> dict[str, Any]:
    return {"extra": to_tree(values.copy())} if values else {}


def peak_memory() -> float:
    """The most memory that this process has had so far, in GB."""
    import resource  # not when the package is imported

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3)


class _NotPlainError(Exception):
    """A value can't be recorded."""


def _type_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """A value as JSON knows it, though with NaN, infinity and numbers of any size."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if depth > _DEEPEST:
        msg = f"{name}: data more than {_DEEPEST} levels deep, or that hold themselves, can't be recorded: take a part"
        raise _NotPlainError(msg)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                msg = (
                    f"{name}: the keys of dictionaries that are recorded are texts, not of type {_type_of(key)}: "
                    "convert them with str()"
                )
                raise _NotPlainError(msg)
        return {str.__str__(key): _plain(part, f"{name}[{key!r}]", depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{name}[{number}]", depth + 1) for number, part in enumerate(value)]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a scalar of numpy, or of torch
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            found = value.item()
            if type(found) in (bool, int, float, str):
                return found
    if isinstance(value, str):  # of a subclass, for instance an enum
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    hint = "use its tolist()" if hasattr(value, "tolist") else "convert it, or return it with the result"
    msg = (
        f"{name}: what is recorded are None, booleans, numbers, texts, paths, and lists, tuples and dictionaries of these, "
        f"not a value of type {_type_of(value)}: {hint}"
    )
    raise _NotPlainError(msg)
