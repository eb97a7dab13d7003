"""What is in the cache of a memoised function."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from exca_like import files, yamltext
from exca_like.cachedict import CacheDict
from exca_like.cachedict.context import AllowPickle
from exca_like.errors import ExcaLikeError
from exca_like.layout import FULL_UID

_LONGEST = 60  # characters of arguments in a table


@dataclass(frozen=True)
class Entry:
    """A stored result of a memoised function."""

    key: str
    """What the call is recognized by."""
    config: dict[str, Any]
    """The arguments, as far as they can be told in JSON data."""
    time: datetime | None
    """When it was stored."""
    duration: float | None
    """How long the computation took, in seconds."""
    size: int
    """Bytes of data, without those that are in the journal."""
    is_pinned: bool
    folder: Path
    allow_pickle: AllowPickle = "own"

    def load(self) -> Any:
        """The result."""
        return CacheDict[Any](self.folder, allow_pickle=self.allow_pickle)[self.key]


class Entries(Sequence[Entry]):
    """Stored results, the oldest first; a table when printed."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = sorted(entries, key=lambda entry: entry.time.timestamp() if entry.time else 0.0)

    @classmethod
    def of_folders(cls, root: str, pattern: str, name: str, allow_pickle: AllowPickle) -> "Entries":
        """The entries of a function in all folders that a pattern finds."""
        escaped = "/".join(part if part == "*" else glob.escape(part).replace("[*]", "*") for part in pattern.split("/"))
        found: list[Entry] = []
        for folder in sorted(glob.glob(f"{glob.escape(root)}/{escaped}")):
            if _function_of(folder) == name:
                found += _entries_in(folder, allow_pickle)
        return cls(found)

    def __getitem__(self, index: Any) -> Any:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        rows = [("key", "arguments", "stored at", "seconds", "bytes")]
        for entry in self._entries:
            config = ", ".join(f"{name}={value!r}" for name, value in entry.config.items())
            rows.append(
                (
                    entry.key,
                    config if len(config) <= _LONGEST else f"{config[: _LONGEST - 3]}...",
                    f"{entry.time.astimezone():%Y-%m-%d %H:%M}" if entry.time else "",
                    "" if entry.duration is None else f"{entry.duration:.3g}",
                    str(entry.size),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)

    __repr__ = __str__


def _function_of(folder: str) -> Any:
    try:
        return yamltext.load(files.read_bytes(f"{folder}/{FULL_UID}").decode()).get("function")
    except (OSError, ExcaLikeError, UnicodeDecodeError):
        return None


def _entries_in(folder: str, allow_pickle: AllowPickle) -> Iterator[Entry]:
    cache: CacheDict[Any] = CacheDict(folder)
    for key in cache:
        try:
            info = cache.describe(key)
        except KeyError:  # it was deleted meanwhile
            continue
        meta = info.get("#meta") or {}
        time = meta.get("time")
        yield Entry(
            key=key,
            config=meta.get("config") or {},
            time=None if time is None else datetime.fromisoformat(time),
            duration=meta.get("duration"),
            size=sum(span[2] for span in info.get("#data", ())),
            is_pinned=bool(meta.get("pin")),
            folder=Path(folder),
            allow_pickle=allow_pickle,
        )
