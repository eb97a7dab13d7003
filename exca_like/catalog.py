"""The catalog of a cache: all that is stored below a folder, told without importing the code that computed it."""

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, overload

from exca_like import hits, layout, roots, tables
from exca_like.cachedict.failures import Failure
from exca_like.entries import JOB_ID, Entry, Status
from exca_like.errors import CacheFolderError, NotCachedError
from exca_like.failures import FailureReport
from exca_like.filters import Condition, Filter, filter_of, has_by_default, near_uids
from exca_like.listing import entries_of
from exca_like.overlapping import overlapped
from exca_like.scanning import Content, Kind, Scanner, Wanted
from exca_like.stats import Stats
from exca_like.user_warnings import warn

_JOB = re.compile(r" \(job [^)]*\)")
_LOOKED_INTO = 1000  # entries whose configs are read for a hint
HEADER = ("uid", "status", "stored", "took", "size")


class DiskUsage(NamedTuple):
    """What a folder takes on its file system."""

    size: int
    """Bytes that are set aside for its files and folders: what a quota of space counts."""
    files: int
    """Files and folders: what a quota of inodes counts."""


class Catalog(tables.Tabular, Sequence[Entry]):
    """All that is stored below a cache root, in order of the uids; a table, when printed.

    The folder is looked at each time the catalog is iterated over, counted or printed, and only what has changed is read
    again; `refresh` gives the entries with one look, where ``list(catalog)`` takes two, as Python asks for the number first.
    What others write meanwhile is seen whole or not at all.

    Parameters
    ----------
    folder:
        What infras and memoised functions have as their ``folder``.

    Raises
    ------
    CacheFolderError
        There is no such folder; or it is that of a method or an entry in a cache root (a `CacheRootError`).

    Examples
    --------
    >>> catalog = Catalog("/scratch/cache")  # doctest: +SKIP
    >>> print(catalog.filter("Train.run", status="failed"))  # doctest: +SKIP
    >>> catalog.filter(config={"optim.lr": 0.1}).to_df()  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        root = layout.absolute(folder)
        if not os.path.isdir(root):
            what = f"{root} is a file, and no folder" if os.path.exists(root) else f"there is no folder {root}"
            msg = f"{what}: give the one that infras have as their `folder`"
            raise CacheFolderError(errno.ENOENT, msg)
        roots.check_is_no_part(root)
        self.folder = Path(root)
        self._scanner = Scanner(root)
        self._filters: Sequence[Filter] = ()
        self._listed: list[Entry] | None = None

    @classmethod
    def _reading(cls, scanner: Scanner, filters: Sequence[Filter] = ()) -> "Catalog":
        catalog = cls.__new__(cls)
        catalog.folder, catalog._scanner, catalog._filters, catalog._listed = Path(scanner.root), scanner, filters, None
        return catalog

    def refresh(self) -> list[Entry]:
        """Look at the folder: the entries that there are now.

        Raises
        ------
        ConfigValueError
            There are none, by a filter that is strict: see `filter`.
        """
        self._listed = self._look(self._filters)
        if not self._listed:
            for number, one in enumerate(self._filters):
                if one.is_strict:
                    one.check(self._look(self._filters[:number]), self._scanner.name)
        return self._listed

    def _look(self, filters: Sequence[Filter], *wanted: Wanted) -> list[Entry]:
        root = str(self.folder)
        hits.hits_of(root).forget()
        folders = [*wanted, *(one for each in filters for one in each.folders)]
        contents = self._scanner.contents(lambda uid, is_whole: all(one(uid, is_whole) for one in folders))
        hidden = self._scanner.unreadable

        def entries(content: Content) -> Sequence[Entry]:
            try:
                return entries_of(content, root, self._scanner)
            except Exception as error:  # of another version, or damaged: others can be listed
                hidden.append(f"{content.path} ({type(error).__name__}: {error})")
                return ()

        found = [entry for some in overlapped(entries, contents) for entry in some]
        if hidden:
            warn(f"{tables.count(len(hidden), 'folder')} can't be read, like {hidden[0]}: what is in there is not listed")
        for one in filters:
            found = one.chosen(found)
        return found

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.refresh()))

    def __len__(self) -> int:
        return len(self.refresh())

    @overload
    def __getitem__(self, index: int | str) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | str | slice) -> Entry | list[Entry]:
        """An entry by its place in the last listing, or by its uid, of which a clear part is enough.

        Also the id of its job, or a path of its folder.
        """
        if isinstance(index, str):
            return self.named([index])[0]
        return (self.refresh() if self._listed is None else self._listed)[index]

    def named(self, uids: Iterable[str]) -> list[Entry]:
        """Entries by their uids, each as ``catalog[uid]`` finds it, with one look at the folder; each entry once.

        Raises
        ------
        NotCachedError
            There is no such entry, or several match.
        """
        tests = {uid: _tests_of(uid) for uid in uids}
        entries = self._look(
            self._filters, lambda full, is_whole: not is_whole or any(test(full) for some in tests.values() for test in some)
        )
        found = (self._only(uid, some, entries) for uid, some in tests.items())
        return list({entry.uid: entry for entry in found}.values())

    def _only(self, uid: str, tests: Sequence[Callable[[str], bool]], entries: Sequence[Entry]) -> Entry:
        name = uid.rstrip("/")
        is_job = JOB_ID.fullmatch(name) is not None
        whole = re.compile(rf"(^|/){re.escape(name)}(-[0-9a-f]+)?$")
        there = os.path.relpath(os.path.realpath(layout.absolute(uid)), os.path.realpath(self.folder))
        conditions: tuple[Condition, ...] = (
            *(lambda entry, test=test: test(entry.uid) for test in tests[:2]),
            lambda entry: is_job and entry.is_of_job(name),  # before its digits are looked for in all uids
            lambda entry: f"{entry.uid}/".startswith(f"{there}/"),
            lambda entry: whole.search(entry.uid) is not None,  # before those that have other fields, too
            lambda entry: tests[2](entry.uid),
        )
        for condition in conditions if name else ():
            found = [entry for entry in entries if condition(entry)]
            if len(found) == 1:
                return found[0]
            if found:
                shown = "".join(f"\n  {entry.uid}" for entry in found[:10])
                more = f"\n  ... and {len(found) - 10} more" if len(found) > 10 else ""
                msg = f"{len(found)} entries of {self._scanner.name} match {uid!r}; give more of the uid of one:{shown}{more}"
                raise NotCachedError(msg)
        every = self._look(self._filters)
        near = [entry.uid for entry in every[:_LOOKED_INTO] if has_by_default(entry, name)] or near_uids(
            name, [one.uid for one in every]
        )
        hint = f"did you mean {' or '.join(near)}?" if near else "print the catalog to see which there are"
        what = "is of this job, or a later one took its place" if is_job else f"has {uid!r} in its uid"
        msg = f"no entry of {self._scanner.name} {what}: {hint}"
        raise NotCachedError(msg)

    def load(self, uid: str) -> Any:
        """The result of an entry, by its uid; see `Entry.load`."""
        return self[uid].load()

    def filter(
        self,
        method: str | None = None,
        *,
        version: str | None = None,
        uid: str | None = None,
        kind: Kind | None = None,
        status: Status | Sequence[Status] | None = None,
        config: Mapping[str, Any] | None = None,
        since: str | datetime | timedelta | None = None,
        before: str | datetime | timedelta | None = None,
        pinned: bool | None = None,
        where: Condition | None = None,
        strict: bool = False,
    ) -> "Catalog":
        """The catalog of some entries only; it follows the folder, too.

        Parameters
        ----------
        method, version, uid:
            What they are, with ``*`` and ``?`` for other characters; of a method the end is enough, like ``"Train.run"``, and
            its version may follow, like ``"Train.run,1"``.
        kind, status:
            One of the words; of statuses also several.
        config:
            Values of fields of the config, by dotted names; defaults count. Several to choose from are an
            `exca_like.filters.OneOf`.
        since, before:
            When they were stored, or submitted if they have not ended. A time (without a zone: in local time), or how long ago,
            like ``"7d"`` or ``"3 h"``.
        pinned:
            Whether they are pinned.
        where:
            Any function of an entry.
        strict:
            When nothing fits, and there is no such method at all, or no config has a field of that name, whoever lists the
            entries gets a `ConfigValueError` that names those that there are.

        Raises
        ------
        ValueError
            A word, or a time, is not understood.
        """
        added = filter_of(
            method=method,
            version=version,
            uid=uid,
            kind=kind,
            status=status,
            config=config,
            since=since,
            before=before,
            pinned=pinned,
            where=where,
            strict=strict,
        )
        return self._reading(self._scanner, (*self._filters, added))

    def to_records(self) -> list[dict[str, Any]]:
        """A row for each entry, with all fields that some entry of its method has not at their defaults; see `Entry.record`."""
        entries = self.refresh()
        fields: dict[str, set[str]] = {}
        for entry, changed in zip(entries, overlapped(lambda entry: entry.changed, entries), strict=True):
            fields.setdefault(entry.method, set()).update(changed)
        return list(overlapped(lambda entry: entry.record(fields[entry.method]), entries))

    def to_df(self) -> Any:
        """The same as a pandas.DataFrame.

        Raises
        ------
        ImportError
            There is no pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            msg = "to_df() needs pandas: `pip install pandas`, or use to_records(), which gives dictionaries"
            raise ImportError(msg) from error
        return pd.DataFrame(self.to_records())

    def failures(self) -> FailureReport:
        """What failed, grouped by what the failures have in common; items of maps have the uid ``<uid>/<uid of the item>``.

        Of items or calls that a job did not come to, as it died, there is nothing: the uid of the map, or of the function,
        stands for all those of a job.
        """
        found: list[tuple[str, Failure]] = []
        lost: list[str] = []
        for entry in self.refresh():
            if entry.unfinished or entry.kind in ("map", ""):
                items = entry.item_failures() if entry.failures else {}
                failed = entry.job_failures()
                found += ((f"{entry.uid}/{item}", failure) for item, failure in items.items())
                found += ((entry.uid, failure) for failure in failed)
                lost += [_how(entry)] * (len(failed) < len(entry.unfinished))
            else:
                lost += [_how(entry)] * (entry.status == "lost")
                if (failure := entry.failure()) is not None:
                    found.append((entry.uid, failure))
        return FailureReport(found, lost=lost)

    def disk_usage(self) -> dict[str, DiskUsage]:
        """What each folder of the cache root takes, whatever the filter: those of methods, logs, copies of code...; by name.

        Entries have the `size` of their results alone; beside them are yaml files with the config, and a file system sets at
        least a block aside for each file and folder. All of it is looked at anew each time.
        """
        seen: set[tuple[int, int]] = set()  # of files with several names
        return {name: _usage(f"{self.folder}/{name}", seen) for name in sorted(os.listdir(self.folder))}

    def stats(self) -> Stats:
        """What there is of each method, how often it was taken from the cache, and the time that this has saved."""
        return Stats(self)

    def _table(self) -> tables.Table:
        entries = self.refresh()
        return tables.Table(self.title(entries), HEADER, [row_of(entry) for entry in entries[: tables.MAX_ROWS]])

    def title(self, entries: Sequence[Entry]) -> str:
        """How many entries there are, how they stand, and what they take, in a line."""
        counts = Counter(entry.status for entry in entries).most_common()
        numbers = ", ".join(f"{number} {status}" for status, number in counts)
        total = tables.size(sum(entry.size for entry in entries))
        return f"{self._scanner.name}: {tables.count(len(entries), 'entry')}" + (f" ({numbers}), {total}" if entries else "")


def _how(entry: Entry) -> str:
    """How the job of an entry ended that left something without a result."""
    how = _JOB.sub("", entry.reason.rpartition("without a result: ")[2])
    return "its process is gone" if how.endswith(", is gone") else how  # which it was is of no use


def _tests_of(uid: str) -> Sequence[Callable[[str], bool]]:
    """What tells whether a uid is the one that is meant, the surest first."""
    name = uid.rstrip("/")
    part = _part(name)
    return (
        lambda full: full == name,
        lambda full: full.endswith(f"/{name}"),
        lambda full: part.search(full) is not None,
    )


def _part(uid: str) -> re.Pattern[str]:
    """What finds a part of uids; if it ends with a value, a whole one: "seed=1" is not in "seed=10", nor in "my_seed=1"."""
    text = re.escape(uid)
    if "=" not in uid.rpartition(",")[2]:
        return re.compile(text)
    start = r"\b(?<!_)" if uid[0].isalnum() else ""
    code = "(-[0-9a-f]{16})?$"  # of calls, the digest of the code may come after that of the arguments
    digest = f"|[0-9a-f]*{code}" if re.search("=[^,]+-[0-9a-f]*$", uid) else ""  # of which the beginning is enough
    return re.compile(rf"{start}{text}([,)}}/]|-[0-9a-f]+$|-[0-9a-f]{{20}}{code}|${digest})")


def _usage(path: str, seen: set[tuple[int, int]]) -> DiskUsage:
    """What a file, or a folder with all below it, takes; links are not followed."""
    try:
        status = os.lstat(path)
        inside = os.listdir(path) if stat.S_ISDIR(status.st_mode) else []
    except OSError:  # it was removed just now, or is hidden from us
        return DiskUsage(0, 0)
    name = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and not inside:
        if name in seen:
            return DiskUsage(0, 0)
        seen.add(name)
    found = [_usage(f"{path}/{one}", seen) for one in inside]
    return DiskUsage(512 * status.st_blocks + sum(one.size for one in found), 1 + sum(one.files for one in found))


def row_of(entry: Entry) -> tuple[str, ...]:
    """What a table shows of an entry; see `HEADER`."""
    status = f"{entry.status}: {entry.reason}" if entry.reason else entry.status
    if entry.kind == "map" and entry.status == "completed":
        status = f"completed: {entry.values} items"  # noqa: PD011 - no numpy
    if entry.is_pinned:
        status = f"pinned, {status}"
    stored = "" if entry.time is None or entry.status in ("running", "queued") else tables.ago(entry.time.timestamp())
    took = "" if entry.duration is None else tables.seconds(entry.duration)
    return (entry.uid, status, stored, took, tables.size(entry.size))
