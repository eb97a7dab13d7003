"""What an entry wrote into its folder, and how to damage it."""

import os
import random
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from exca_like.cachedict import CacheDict
from exca_like.cachedict.writer import DATA

_PADDING = 64  # bytes; packed data are aligned to it


@dataclass(frozen=True)
class Entry:
    """What was written for an entry: the pieces of files that are new, and those of them that have checksums."""

    journal: str
    pieces: list[tuple[str, int, int]]  # name, start, end
    spans: list[tuple[str, int, int]]

    @classmethod
    def written_last(cls, cache: CacheDict[Any], key: str, before: dict[str, int]) -> "Entry":
        """The entry that was written last, by the only writer of a folder whose files had other sizes before."""
        now = sizes(str(cache.folder))
        (journal,) = (name for name in now if name.endswith(".jsonl"))
        packed = f"{DATA}/{journal.removesuffix('-info.jsonl')}"
        spans = [
            (f"{packed}{name}" if name[:1] == "." else name, offset, offset + length)
            for name, offset, length, _ in cache.describe(key).get("#data", ())
        ]
        grown = [(name, before.get(name, 0), size) for name, size in now.items() if size > before.get(name, -1)]
        covered = {name for name, *_ in spans}
        linked = {os.stat(f"{cache.folder}/{name}").st_ino for name in covered}  # whose bytes may have other names, too
        others = {name for name in set(now) - covered if os.stat(f"{cache.folder}/{name}").st_ino in linked}
        return cls(journal, [piece for piece in grown if piece[0] not in {journal, *others}], spans)

    def covers(self, name: str, offset: int) -> bool:
        """Whether a byte of a file is part of the entry's data."""
        return any(span == name and start <= offset < end for span, start, end in self.spans)

    def assert_covered(self) -> None:
        """Every byte but padding is part of the entry's data, whose checksums are stored."""
        for name, start, end in self.pieces:
            spans = sorted((first, last) for span, first, last in self.spans if span == name)
            edges = [start, *(edge for span in spans for edge in span), end]
            gap = max(after - before for before, after in zip(edges[::2], edges[1::2], strict=True))
            covered = gap < _PADDING and (spans or start == end)
            assert covered, (
                f"{name} has bytes that are not part of the entry's data, so that damage to them would not be noticed: write "
                "with ctx.append or ctx.shared_file, or to a file that is named by ctx.key_path"
            )


def sample(start: int, end: int, number: int) -> list[int]:
    """Offsets to damage: the first, the last, and some in between."""
    if end - start <= number:
        return list(range(start, end))
    between = random.Random(end).sample(range(start, end), max(number - 2, 0))  # noqa: S311 - for tests
    return sorted({start, end - 1, *between})


def flip(path: str, offset: int) -> None:
    """Change one bit of a file."""
    with open(path, "r+b") as stream:
        stream.seek(offset)
        (byte,) = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte ^ 1 << offset % 8 or 255]))  # zeros may be pages that are still on their way


def listing(folder: str) -> set[str]:
    """Relative paths of all files and folders."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}


def sizes(folder: str) -> dict[str, int]:
    """Sizes of all files."""
    return {name: os.path.getsize(f"{folder}/{name}") for name in listing(folder) if os.path.isfile(f"{folder}/{name}")}


def own_files(folder: str) -> set[str]:
    """Files that belong to one entry each: neither journals, nor the packed data of a writer."""
    names = sizes(folder)
    journals = {name for name in names if name.endswith(".jsonl")}
    packed = tuple(f"{DATA}/{name.rpartition('-')[0]}." for name in journals)
    return {name for name in names if name not in journals and not name.startswith(packed)}


def states(folder: str) -> dict[str, Any]:
    """All that reading could change: names, times of change, and contents."""
    found: dict[str, Any] = dict.fromkeys(listing(folder))
    for name in sizes(folder):
        path = Path(folder, name)
        found[name] = path.stat().st_mtime_ns, blake2b(path.read_bytes()).digest()
    return found
