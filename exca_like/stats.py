"""What a cache was good for: what it holds, how often that was used, and the time that this has saved."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from exca_like import tables
from exca_like.entries import Entry

_MOST_ITEMS = 100  # of a map, whose durations are read


@dataclass
class Usage:
    """What some entries hold, and how often they were used."""

    method: str = ""
    """``<method>,<version>``; empty for the total."""
    entries: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """How many of them have each status."""
    size: int = 0
    """Bytes on disk."""
    hits: int = 0
    """How often a result was taken from the cache; of maps, how many items."""
    saved: float = 0.0
    """Seconds that this has saved: hits, times how long the computation took; of maps, how long items took on average."""

    def add(self, entry: Entry) -> None:
        """Take in an entry."""
        self.entries += 1
        self.statuses[entry.status] += 1
        self.size += entry.size
        self.hits += entry.hits
        self.saved += entry.hits * (_duration(entry) or 0.0) if entry.hits else 0.0

    def to_record(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {**vars(self), "statuses": dict(self.statuses)}


class Stats(tables.Tabular, Sequence[Usage]):
    """What there is of each method, the most time saved first; a table with the total, when printed.

    A hit is a call or a submission that found its result on disk. They are counted roughly: those of processes that were
    killed lack. Results that are kept in memory, or loaded from a catalog, a job or a sweep, are not counted. What was removed
    does not count any more.

    Examples
    --------
    >>> Catalog("/scratch/cache").stats()  # doctest: +SKIP
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        found: dict[str, Usage] = {}
        for entry in entries:
            name = f"{entry.method},{entry.version}".rstrip(",")
            found.setdefault(name, Usage(name)).add(entry)
        self.total = Usage()
        for usage in found.values():
            self.total.entries += usage.entries
            self.total.statuses += usage.statuses
            self.total.size += usage.size
            self.total.hits += usage.hits
            self.total.saved += usage.saved
        self._methods = sorted(found.values(), key=lambda usage: (-usage.saved, -usage.hits, usage.method))

    def __getitem__(self, index: Any) -> Any:
        return self._methods[index]

    def __len__(self) -> int:
        return len(self._methods)

    def to_table(self, most: int | None = tables.MAX_ROWS, longest: int = 80) -> tables.Table:
        """The table, with all rows if ``most`` is None; see `exca_like.tables.Table`."""
        statuses = [status for status, _ in self.total.statuses.most_common()]
        shown = self._methods[:most]
        rows = [
            (
                usage.method or "total",
                *(usage.statuses[status] or "" for status in statuses),
                tables.size(usage.size),
                usage.hits,
                tables.seconds(usage.saved) if usage.saved else "",
            )
            for usage in (*shown, self.total)
        ]
        hidden = len(self._methods) - len(shown)
        title = f"the first {len(shown)} of {len(self._methods)} methods" if hidden else ""
        return tables.Table(title, ("method", *statuses, "size", "hits", "time saved"), rows, most=None, longest=longest)

    def _table(self) -> tables.Table:
        return self.to_table()


def _duration(entry: Entry) -> float | None:
    """How long the computation of what is counted took: of a map, that of an item, on average over some."""
    if entry.kind != "map":
        return entry.duration
    cache = entry.load("never")
    known = (entry.provenance(key).duration for key in itertools.islice(cache.keys(), _MOST_ITEMS))
    durations = [duration for duration in known if duration is not None]
    return sum(durations) / len(durations) if durations else None


__all__ = ["Stats", "Usage"]
