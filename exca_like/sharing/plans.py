"""What is missing at the other side: looked up in the journals of both, folder by folder."""

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exca_like import files, layout
from exca_like.cachedict import blocks, moving
from exca_like.cachedict.context import DumpContext
from exca_like.cachedict.index import Index
from exca_like.cachedict.journal import INFO, OWN_JOURNAL, spans_in
from exca_like.cachedict.lines import damaged_lines, likely_key
from exca_like.confdict import ConfDict
from exca_like.entries import Entry
from exca_like.errors import CorruptEntryError, ExcaLikeError, TransferError
from exca_like.recording import noted
from exca_like.sharing.transfer import FolderTransfer

YAMLS = (layout.CONFIG, layout.UID, layout.FULL_UID)
PIECE = 64 << 20  # bytes
MOST = 10_000  # results of a piece, and pieces that travel at once
UNKNOWN = "?"
"""Stands for the key of a result of which that is not known."""
NO_DATA = "its data are not there: they were moved or removed meanwhile, or are lost"
SHARED = "shared-0-"
"""How writers are named whose files are sent as a whole, and never appended to."""
_HIDDEN = (files.TEMPORARY_PREFIX, files.REMOVED_PREFIX)

Chosen = dict[str, set[str] | None]
"""Uids of folders, with the keys that are wanted of each; None for all."""


class Side(NamedTuple):
    """One of the two sides: its journals are in a folder here, its data may be elsewhere."""

    root: str
    size_of: Callable[[str], int]
    """Bytes of a file by its name; -1 if there is none."""
    name: str
    """What messages call the root."""


class Found(NamedTuple):
    """A result, as its line says."""

    owner: str
    """The writer that the short names of its data files stand for."""
    info: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return sum(length for _, _, length, _ in spans_in(self.info))

    def same(self) -> bytes:
        """What is the same for results with the same bytes."""
        return moving.content_of(self.info, self.owner)

    def problem_in(self, folder: str, key: str) -> str | None:
        """Why its data can't be used, after all their checksums were looked at."""
        context = DumpContext.for_loading(folder, key, (), self.owner, "never", "full")
        for span in spans_in(self.info):
            context.spans = [span]
            try:
                context.check_all()
            except FileNotFoundError:
                return NO_DATA
            except CorruptEntryError:
                return f"its data are damaged, in {moving.full_name(span[0], self.owner)}"
        return None

    def records(self, uid: str) -> Iterator[str]:
        """Names of the records that tell where it comes from."""
        meta = noted(self.info.get("#meta"))
        method = uid.partition("/")[0]
        if isinstance(run := meta.get("run"), str):
            yield f"{layout.PROVENANCE}/{run}.json"
        for code in {meta.get("code"), method.rpartition("~")[2] if "~" in method else None}:
            if isinstance(code, str):
                yield layout.code_record("", code)[1:]


class Item(NamedTuple):
    """A result that is missing at the other side: where its line is, and bytes of its data."""

    key: str
    place: int
    size: int


@dataclass
class Plan:
    """What is to be done for one folder."""

    report: FolderTransfer
    source: Side
    target: Side
    ours: Index
    theirs: Index
    items: list[Item] = field(default_factory=list)

    @property
    def uid(self) -> str:
        """Name of the folder below the root."""
        return self.report.uid

    @property
    def folder(self) -> str:
        """The folder at the source."""
        return f"{self.source.root}/{self.uid}"

    def leave_out(self, key: str, why: str) -> None:
        """Note why something is not moved."""
        self.report.left_out.setdefault(why, []).append(key)

    def name(self, name: str) -> str:
        """The name of a file of the folder, from the root on."""
        return posixpath.normpath(f"{self.uid}/{name}")

    def read(self, item: Item) -> Found | None:
        """What the line of an item is to say at the other side; None if it is gone."""
        found = _at(self.ours, item.place)
        if found is not None and isinstance(meta := found.info.get("#meta"), dict):
            meta.pop("pin", None)  # which is for the cache that it was computed for
        return found

    def is_there(self, key: str) -> bool:
        """Whether there is a result by now."""
        return not isinstance(_look_up(self.theirs, key, self.target, self.uid), str)

    def refuse_others(self) -> None:
        """Leave everything out if the folder is one of another config at the other side."""
        ours, theirs = (_identity(f"{side.root}/{self.uid}/{layout.FULL_UID}") for side in (self.source, self.target))
        names = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
        if names:
            for item in self.items:
                self.leave_out(item.key, f"there it has another config, which differs in {', '.join(names)}: see the defaults")
            self.items = []

    def pieces(self) -> Iterator[list[Item]]:
        """The items, in groups of a limited size."""
        piece: list[Item] = []
        size = 0
        for item in self.items:
            if piece and (size + item.size > PIECE or len(piece) == MOST):
                yield piece
                piece, size = [], 0
            piece.append(item)
            size += item.size
        if piece:
            yield piece


def wanted(entries: Iterable[Entry], root: str) -> Chosen:
    """The folders of those entries that have results, or something that can't be told from its lines."""
    chosen: Chosen = {}
    for entry in entries:
        if not entry.kind and entry.size:
            chosen.setdefault(os.path.relpath(entry.folder, root), set())
        elif entry.values:
            uid = os.path.relpath(entry.folder, root)
            if entry.kind == "map":
                chosen[uid] = None
            elif (keys := chosen.setdefault(uid, set())) is not None:
                keys.add(entry.key)
    return chosen


def compare(source: Side, target: Side, uid: str, keys: set[str] | None) -> Plan:
    """Look up which results of a folder are missing at the other side."""
    plan = Plan(FolderTransfer(uid), source, target, Index(f"{source.root}/{uid}"), Index(f"{target.root}/{uid}"))
    plan.ours.refresh()
    plan.theirs.refresh()
    for key in sorted(plan.ours.entries if keys is None else keys):
        ours, theirs = _look_up(plan.ours, key, source, uid), _look_up(plan.theirs, key, target, uid)
        if isinstance(ours, str):
            plan.leave_out(key, ours)
        elif noted(ours[1].info.get("#meta")).get("track") is False:
            continue  # it was never to be shared
        elif isinstance(theirs, str):
            problem = moving.obstacle(ours[1].info, ours[1].owner)
            if problem is None:
                plan.items.append(Item(key, ours[0], ours[1].size))
            else:
                plan.leave_out(key, problem)
        elif ours[1].same() == theirs[1].same():
            plan.report.present += 1
        else:
            plan.report.different.append(key)
    is_all = keys is None or keys >= plan.ours.entries.keys()  # else nothing tells whether these were wanted
    for name, offset, lost in _damaged_lines(plan.folder) if is_all else ():
        if lost not in plan.ours.entries and lost not in plan.theirs.entries:  # else it has another line, or is there
            plan.leave_out(lost or UNKNOWN, f"the line at byte {offset} of {source.name}/{plan.name(name)} is damaged")
    return plan


def _damaged_lines(folder: str) -> Iterator[tuple[str, int, str | None]]:
    """Lines of results that can't be read: names of their journals, their offsets, and the keys that they seem to have."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if not (name.endswith(INFO) and OWN_JOURNAL.fullmatch(name)):
            continue
        try:
            data = files.read_bytes(f"{folder}/{name}")
        except FileNotFoundError:  # it was merged with others
            continue
        # what follows the last whole line may be written at this moment, but not in what was sent as a whole
        for offset, line in damaged_lines(data + b"\n" if name.startswith(SHARED) else data):
            yield name, offset, likely_key(line)


def _look_up(index: Index, key: str, side: Side, uid: str) -> tuple[int, Found] | str:
    """The first result for a key whose data are there, with its place; or why there is none."""
    problem = "it is gone, or exca stored it, without checksums"
    for place in [index.entries[key], *index.others(key)] if key in index.entries else ():
        found = _at(index, place)
        if found is not None:
            needed = moving.data_names(found.info, found.owner)
            sizes = {name: side.size_of(posixpath.normpath(f"{uid}/{name}")) for name in needed}
            short = [name for name, end in needed.items() if sizes[name] < end]
            if not short:
                return place, found
            problem = NO_DATA if sizes[short[0]] < 0 else f"its data are cut short, in {short[0]}, or were still being written"
    return problem


def _at(index: Index, place: int) -> Found | None:
    """What a line says; None if it is damaged or gone, or of exca."""
    read = index.read(place)
    if read is None or not read[0].is_own:
        return None
    file, info = read
    return Found(info.get("#writer", file.writer), info)


def _identity(path: str) -> dict[str, Any]:
    try:
        return ConfDict.from_yaml(files.read_bytes(path).decode()).flat()
    except (OSError, ExcaLikeError, UnicodeDecodeError):
        return {}


def is_sound(name: str) -> bool:
    """Whether a name leads to a file in the root that is not about to appear or to go."""
    parts = name.split("/")
    return "" not in parts and ".." not in parts and not any(part.startswith(_HIDDEN) for part in parts)


def is_shared(name: str) -> bool:
    """Whether a file may be there as somebody else has written it: it tells the same."""
    return posixpath.basename(name) in YAMLS or name.startswith(f"{layout.PROVENANCE}/")


def sizes_in(root: str) -> Callable[[str], int]:
    """Bytes of a file by its name below a root; -1 if there is none."""

    def size_of(name: str) -> int:
        try:
            return os.stat(f"{root}/{name}").st_size
        except OSError:
            return -1

    return size_of


@contextlib.contextmanager
def scratch(root: str) -> Iterator[str]:
    """A temporary folder: hidden below a root if that can be written to, as there is space."""
    place = root if os.access(root, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix=files.TEMPORARY_PREFIX, dir=place) as folder:
        try:
            yield folder
        except OSError as error:
            if folder not in str(error) or isinstance(error, FileNotFoundError):
                raise
            reason = os.strerror(error.errno) if error.errno else str(error)
            msg = (
                f"can't write to {os.path.dirname(folder)}, where results are gathered that travel: {reason}. "
                "Check the space left, and do the same again."
            )
            raise TransferError(error.errno, msg) from error
        finally:
            blocks.forget(folder)
