"""Why a result comes from the cache, or does not: what `explain` returns."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from exca_like.watching import Change, names_of

Kind = Literal["hit", "stale", "miss", "failed", "corrupt", "mismatch", "running"]

_LONGEST = 80  # characters of a value
_MOST = 12  # differing keys that are shown
_MOST_LINES = 40  # of the diff of one symbol
_MOST_DIFFS = 5


class Difference(NamedTuple):
    """A field that has one value in a stored config, and another one now; `ABSENT` for none."""

    name: str
    stored: Any
    now: Any
    reason: str = ""
    """Why it does not count, if it does not."""

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.stored)} there, {_shown(self.now)} here"


class _Absent:
    def __repr__(self) -> str:
        return "(no such field)"


ABSENT: Any = _Absent()


@dataclass(frozen=True)
class Explanation:
    """What a call would find in the cache, and why; readable when printed.

    ``status`` is ``"hit"``; ``"stale"`` (there is a result, of other code: with ``code="warn"`` it is taken, with
    ``"recompute"`` it is not); ``"miss"``; ``"failed"`` (an error is stored); ``"corrupt"`` (what is stored is damaged, and
    counts as missing); ``"mismatch"`` (the folder holds results of another config, for instance with another default);
    ``"running"`` (a job computes it).
    """

    status: Kind
    uid: str
    reason: str
    """What was found, and what the next call does."""
    nearest: str | None = None
    """The uid of the stored config that differs in the fewest fields, if this one is not stored."""
    differences: tuple[Difference, ...] = ()
    """Fields that count: in which the nearest config differs, or the one that the folder was written for."""
    excluded: tuple[Difference, ...] = ()
    """Fields that have changed since the result was computed, but don't count."""
    changes: tuple[Change, ...] = field(default=(), repr=False)
    """Code that has changed since."""

    def __str__(self) -> str:
        lines = [f"{self.status}: {self.uid}", f"  {self.reason}"]
        if self.nearest is not None:
            lines.append(f"  The nearest stored config is {self.nearest}:")
        lines += [f"    {difference}" for difference in self.differences[:_MOST]]
        if len(self.differences) > _MOST:
            lines.append(f"    ... and {len(self.differences) - _MOST} more")
        if self.changes:
            lines.append(f"  Code: {names_of(self.changes)}.")
            lines += _diffs(self.changes)
        if self.excluded:
            lines.append("  These have changed as well, but don't count:")
            lines += [f"    {difference} ({difference.reason})" for difference in self.excluded[:_MOST]]
        return "\n".join(lines)

    __repr__ = __str__


class UidField(NamedTuple):
    """A field of a config, and whether it shows in the uid."""

    name: str
    value: Any
    counts: Literal["in the uid", "default", "excluded", "infra"]
    reason: str


@dataclass(frozen=True)
class UidExplanation(Sequence[UidField]):
    """The fields of a config, one by one; a table when printed."""

    uid: str
    fields: tuple[UidField, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.fields[index]

    def __len__(self) -> int:
        return len(self.fields)

    def __str__(self) -> str:
        values = ["" if one.counts == "infra" else _shown(one.value) for one in self.fields]
        lines = [(one.name, value, one.reason) for one, value in zip(self.fields, values, strict=True)]
        rows = [("field", "value", "in the uid?"), *lines]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join((self.uid, "", *table))

    __repr__ = __str__


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """The fields, by their dotted names, that differ between two flat configs."""
    found = []
    for name in sorted(stored.keys() | now.keys()):
        first, second = stored.get(name, ABSENT), now.get(name, ABSENT)
        if first is not second and _plain(first) != _plain(second):
            found.append(Difference(name, first, second))
    return found


def _plain(value: Any) -> Any:
    """What tells values apart that went through a file: there, a tuple is a list, and 1.0 may be 1."""
    if isinstance(value, bool):
        return repr(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value if _is_number(value) else repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _diffs(changes: Sequence[Change]) -> list[str]:
    """How sources have changed, as far as they are known."""
    lines: list[str] = []
    with_text = [change for change in changes if change.how == "was changed" and change.before and change.after]
    for change in with_text[:_MOST_DIFFS]:
        found = list(difflib.unified_diff(change.before.splitlines(), change.after.splitlines(), lineterm="", n=2))[2:]
        lines.append(f"    {change.name}:")
        lines += [f"      {line}" for line in found[:_MOST_LINES] if not line.startswith("@@")]
        if not found:
            lines.append("      (what it refers to: its own lines are the same)")
        if len(found) > _MOST_LINES:
            lines.append(f"      ... and {len(found) - _MOST_LINES} lines more")
    return lines
