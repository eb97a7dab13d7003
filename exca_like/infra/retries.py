"""Which jobs are submitted again when they fail, and with what."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace

import pydantic

from exca_like.executors.base import Attempt, Resources

_REASONS = ("out_of_memory", "timeout", "node_failure", "preempted", "cancelled", "lost", "failed")


class Retries(pydantic.BaseModel):
    """When and how a failed job is submitted again, by whoever waits for it.

    Parameters
    ----------
    max:
        How many times at most, after the first.
    on:
        What it is done for: ``"out_of_memory"``, ``"timeout"``, ``"node_failure"``, ``"preempted"``, ``"cancelled"``,
        ``"lost"``, ``"failed"`` (the process died before or outside of the method), or names of exceptions of the method,
        like ``"OSError"`` or ``"torch.cuda.OutOfMemoryError"``.
    mem_gb, timeout_min:
        Factors: after a job ran out of memory (of time), the next one asks for so many times as much. That needs the field of
        this name to be set on the infra: more of an unknown amount can't be asked for.
    max_mem_gb, max_timeout_min:
        Never more than this.
    exclude_bad_nodes:
        Stay away from nodes that failed.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, defer_build=True)

    max: pydantic.PositiveInt = 2
    on: tuple[str, ...] = ("out_of_memory", "timeout", "node_failure")
    mem_gb: float = pydantic.Field(2.0, ge=1)
    timeout_min: float = pydantic.Field(1.5, ge=1)
    max_mem_gb: pydantic.PositiveFloat | None = None
    max_timeout_min: pydantic.PositiveInt | None = None
    exclude_bad_nodes: bool = True

    @pydantic.field_validator("on")
    @classmethod
    def _check_reasons(cls, on: tuple[str, ...]) -> tuple[str, ...]:
        for name in on:
            if name not in _REASONS and not re.fullmatch(r"([A-Za-z_]\w*\.)*[A-Z]\w*", name):
                close = difflib.get_close_matches(name, _REASONS, 1)
                meant = f": did you mean {close[0]!r}?" if close else "."
                msg = f"{name!r} is no reason{meant} Use any of {', '.join(_REASONS)}, or names of exceptions like 'OSError'"
                raise ValueError(msg)
        return on

    def resources(self, first: Resources, attempts: Sequence[Attempt]) -> Resources | None:
        """What the job after some failed attempts asks for; None if there is to be none.

        Parameters
        ----------
        first:
            What the first one asked for.
        attempts:
            Those that failed, the last one included.
        """
        if len(attempts) > self.max or not self._covers(attempts[-1]):
            return None
        reasons = [attempt.reason for attempt in attempts]
        memory = _more(first.mem_gb, self.mem_gb, reasons.count("out of memory"), self.max_mem_gb)
        minutes = _more(first.timeout_min, self.timeout_min, reasons.count("timeout"), self.max_timeout_min)
        if (memory is None and "out of memory" in reasons) or (minutes is None and "timeout" in reasons):
            return None
        bad = [attempt.node for attempt in attempts if attempt.reason == "node failure" and attempt.node]
        return replace(
            first,
            mem_gb=memory,
            timeout_min=None if minutes is None else round(minutes + 0.4999),
            exclude=tuple(dict.fromkeys(bad)) if self.exclude_bad_nodes else (),
        )

    def _covers(self, attempt: Attempt) -> bool:
        if attempt.reason == "error":
            return any(attempt.error in (name, f"builtins.{name}") or attempt.error.endswith(f".{name}") for name in self.on)
        return attempt.reason.replace(" ", "_") in self.on


def _more(value: float | None, factor: float, times: int, most: float | None) -> float | None:
    if value is None or not times:
        return value
    return max(value, min(value * factor**times, most or float("inf")))
