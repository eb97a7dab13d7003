"""What takes part in a transfer: a place for files, and what came of the results of each folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exca_like import tables
from exca_like.layout import RESULT


class Place(Protocol):
    """Files of a cache root, wherever they are, by their names relative to it."""

    @property
    def address(self) -> str | None:
        """Its path or URL; None for a file, whose name says nothing of what is in it."""
        ...

    def sizes(self) -> dict[str, int]:
        """All files that there are, with their bytes."""
        ...

    def get(self, names: Sequence[str], folder: str) -> None:
        """Fetch files into a folder, in which they keep their names; those that are gone or can't be read are left out."""
        ...

    def put(self, paths: Mapping[str, str]) -> None:
        """Send files, given by name; others see each whole or not at all, and in the end they outlive a crash."""
        ...

    def sweep(self, names: Iterable[str]) -> None:
        """Remove those of some files with hidden names that processes have left there which were killed as they sent them."""
        ...


@dataclass
class FolderTransfer:
    """What came of the results of one folder: of a task, a map, or a memoised function."""

    uid: str
    added: int = 0
    """Results that were (in a dry run: would be) moved."""
    present: int = 0
    """Results that were there already."""
    different: list[str] = field(default_factory=list)
    """Keys of results that are there with other bytes, and stay as they are."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Keys of what could not be moved, by the reason; ``"?"`` for a damaged line whose key can't be read."""
    has_wrong_yamls: bool = False
    """Whether its yaml files are not sent, as `verify` finds some wrong. A push sends them when they are mended."""


@dataclass
class Transfer:
    """What was moved, or with ``dry_run`` would be."""

    folders: list[FolderTransfer] = field(default_factory=list)
    files: int = 0
    """Files that travelled (in a dry run: would), each once: with data or lines of results that were added, yaml files of
    their folders, and records of their provenance, as far as these were not there. What is only compared does not count."""
    size: int = 0
    """Their bytes, whole: what is pulled from a cache root may have other results in it, too. In a dry run of a push or an
    export, lines that are not written yet are estimated."""
    dry_run: bool = False
    """Whether nothing was moved, as only the plan was asked for."""

    @property
    def added(self) -> int:
        """Results that were (in a dry run: would be) moved."""
        return sum(folder.added for folder in self.folders)

    @property
    def present(self) -> int:
        """Results that were there already."""
        return sum(folder.present for folder in self.folders)

    @property
    def different(self) -> int:
        """Results that are there with other bytes, and stay as they are."""
        return sum(len(folder.different) for folder in self.folders)

    @property
    def left_out(self) -> int:
        """Results that could not be moved."""
        return sum(len(keys) for folder in self.folders for keys in folder.left_out.values())

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is at the other side now, as it is at this one."""
        return not self.different and not self.left_out

    def __str__(self) -> str:
        counts = {
            "would be added" if self.dry_run else "added": self.added,
            "there already": self.present,
            "there with other bytes, and left as they are": self.different,
            "would be left out" if self.dry_run else "left out": self.left_out,
        }
        found = [(number, what) for what, number in counts.items() if number]
        texts = [f"{number if later else tables.count(number, 'result')} {what}" for later, (number, what) in enumerate(found)]
        lines = [", ".join(texts) or "nothing to move: no results were found"]
        if self.files:
            lines[0] += f" ({tables.count(self.files, 'file')}, {tables.size(self.size)})"
        for folder in self.folders:
            reasons = {"it is there with other bytes": folder.different} if folder.different else {}
            lines += [_line(folder.uid, why, keys) for why, keys in {**reasons, **folder.left_out}.items()]
        return "\n".join(lines)


def _line(uid: str, why: str, keys: Sequence[str]) -> str:
    named = "" if len(keys) == 1 and keys[0] == RESULT else f"/{keys[0]}"
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{uid}{named}{more}: {why}"
