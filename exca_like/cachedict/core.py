"""CacheDict: a dictionary in a folder."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from threading import get_ident
from typing import Any, Self, TypeVar

from exca_like import files, layout
from exca_like.cachedict import registry
from exca_like.cachedict.blocks import Check
from exca_like.cachedict.compact import clear_folder, drop_empty
from exca_like.cachedict.context import AllowPickle, allowed_pickles, why_refused
from exca_like.cachedict.failures import Failure, without_pickle
from exca_like.cachedict.index import Index
from exca_like.cachedict.journal import DELETED, FAILED, INFO, OWN_JOURNAL
from exca_like.cachedict.lines import deletion, seal
from exca_like.cachedict.loading import Loader
from exca_like.cachedict.members import data_files, delete_data, member_of, only_member
from exca_like.cachedict.writer import AppendFile, Writer, in_use
from exca_like.cachedict.writers import Writers
from exca_like.errors import (
    CacheFolderError,
    ConfigTypeError,
    ConfigValueError,
    CorruptEntryError,
    KeyExistsError,
)

X = TypeVar("X")
_ABSENT: Any = object()


class CacheDict(MutableMapping[str, X]):
    """A dictionary with string keys, in a folder that any number of processes may use at once, or in memory.

    ::

        cache = CacheDict("folder")
        with cache.write():
            cache["a"] = numpy.arange(3)
        CacheDict("folder")["a"]

    Parameters
    ----------
    folder:
        Where the entries are; created at the first write. None: in memory only.
    keep_in_ram:
        Keep what was written or read in memory, too.
    cache_type:
        What stores the values: the name of a handler, like ``"NumpyArray"``; a handler; an instance of one with options; or,
        for values that are dictionaries, a dictionary from names of outputs to any of these (other outputs are stored by
        their types). None: chosen by each value's type.
    permissions:
        Mode of new files, like ``0o660``, and of new folders, which who may read a file may enter as well. None: as the
        umask says.
    allow_pickle:
        Which pickles are loaded: those in files of yours or of root (``"own"``), ``"always"``, or ``"never"``. The
        environment variable ``EXCA_LIKE_ALLOW_PICKLE`` replaces the default.
    check:
        ``"full"``: data up to 64 KiB are checked at each load, and larger ones up to 1 GiB once per process; ``"edges"``: of
        larger data, only the first and last 64 KiB.
    fsync:
        Have the disk confirm each write: entries survive a power failure, at a price of milliseconds.

    Notes
    -----
    Writing and deleting need a ``with cache.write():`` block, if there is a folder. A key is written once: delete it first to
    write another value. What others write is seen at the next look at the folder: when a key is not known yet, at iteration
    and ``len``, at the start of a ``write`` block, and at `refresh`. What they delete, too.

    An entry that fails its checks counts as missing and is reported once, with a `CorruptEntryWarning`.

    Raises
    ------
    ValueError
        Neither folder nor memory, or an unknown ``cache_type``.
    TypeError
        The ``cache_type`` is nothing that could store values.
    """

    def __init__(
        self,
        folder: str | Path | None,
        keep_in_ram: bool = False,
        cache_type: Any = None,
        permissions: int | None = None,
        allow_pickle: AllowPickle = "own",
        *,
        check: Check = "full",
        fsync: bool = False,
    ) -> None:
        if folder is None and not keep_in_ram:
            msg = "a CacheDict without a folder must have keep_in_ram=True: its values would be nowhere"
            raise ConfigValueError(msg)
        if check not in ("full", "edges"):
            msg = f"check={check!r} must be 'full' or 'edges'"
            raise ConfigValueError(msg)
        if permissions is not None and not (type(permissions) is int and 0 <= permissions <= 0o777):
            msg = f"permissions={permissions!r} must be the mode of files, in octal, like 0o660"
            raise ConfigValueError(msg)
        self.keep_in_ram = keep_in_ram
        self.cache_type = registry.checked_choice(cache_type)
        self.permissions = permissions
        self.allow_pickle = allow_pickle
        self.check: Check = check
        self.fsync = fsync
        self._path = "" if folder is None else layout.absolute(folder)
        self._pickles: AllowPickle = allowed_pickles(allow_pickle)
        self._ram: dict[str, tuple[int | None, X]] = {}  # with the places of the entries, which change when they are replaced
        self._index = Index(self._path)
        self._loader = Loader(self._path, self._index, self._pickles, check)
        self._frozen = int(folder is None)  # how many blocks, or reasons, there are not to look at the folder
        self._writers = Writers(self._path, permissions, fsync=fsync)
        self._deleted = 0  # entries, since it was looked for files of which nothing is left
        self._lock = files.ForkSafeLock()

    @property
    def folder(self) -> Path | None:
        """Where the entries are, as an absolute path; None for in memory only."""
        return Path(self._path) if self._path else None

    # reading

    def __getitem__(self, key: str) -> X:
        value = self.known(key, _ABSENT)
        if value is _ABSENT:
            place, value = self._loader.value(key, look=not self._frozen)
            if place is None:
                raise KeyError(key)
            if self.keep_in_ram:
                self._ram[key] = (place, value)
        return value  # type: ignore[no-any-return]

    def known(self, key: str, default: Any) -> Any:
        """The value of a key that was there at the last look at the folder; a default if it was not, or can't be loaded."""
        place = self._index.entries.get(key)
        if self.keep_in_ram:
            kept = self._ram.get(key)
            if kept is not None and kept[0] == place:
                return kept[1]
        if place is None:
            return default
        try:
            value = self._loader.at(place, key)
        except (CorruptEntryError, FileNotFoundError):
            return default
        if self.keep_in_ram:
            self._ram[key] = (place, value)
        return value

    def part(self, key: str, name: str) -> Any:
        """One member of a value that is a dictionary.

        The others are neither loaded nor checked, if the value was stored by `Auto` or `Json` and its text is short.

        Raises
        ------
        KeyError
            There is no such entry, or it has no such member.
        TypeError
            The value is no dictionary.
        """
        if key in self._ram or not self._path:
            return member_of(key, self[key], name)
        place, value = self._loader.member(key, name, look=not self._frozen)
        if place is None:
            raise KeyError(key)
        return value

    def files(self, key: str, member: str | None = None) -> list[Path]:
        """Absolute paths of the files that hold an entry's data, packed ones too; none if all is in the journal.

        With the name of a ``member`` of a dictionary, only its files, if they can be told from those of others.

        Raises
        ------
        KeyError
            There is no such entry, or it has no such member.
        """
        place = self._index.entries.get(key) if key in self else None
        found = None if place is None else self._index.read(place)
        if found is None:
            if key in self._ram and not self._path:
                return []
            raise KeyError(key)
        file, info = found
        if member is not None:
            info = only_member(info, member) or info
        return [Path(path) for path in data_files(self._path, file, info)]

    def __contains__(self, key: object) -> bool:
        if key in self._known():
            return True
        if self._frozen:
            return False
        self._index.refresh()
        return key in self._index.entries

    def _known(self) -> dict[str, Any]:
        return self._index.entries if self._path else self._ram

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of many keys that are not there, in order; the folder is looked at once."""
        self.refresh()
        return list(self.unknown(list(keys)))

    def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of many keys that were not there at the last look at the folder, in order."""
        known = self._index.entries if self._path else self._ram
        if len(keys) == 1:
            return () if keys[0] in known else keys
        return [key for key in keys if key not in known]

    def in_ram(self, keys: Sequence[str]) -> bool:
        """Whether all of many keys are kept in memory."""
        return keys[0] in self._ram if len(keys) == 1 else all(map(self._ram.__contains__, keys))

    def refresh(self) -> None:
        """Take notice of what others wrote and deleted."""
        if not self._frozen:
            self._index.refresh()
            if len(self._ram) > len(self._index.entries):
                for key in self._ram.keys() - self._index.entries.keys():
                    self._ram.pop(key, None)

    def __iter__(self) -> Iterator[str]:
        self.refresh()
        return iter(list(self._known()))

    def __len__(self) -> int:
        self.refresh()
        return len(self._known())

    def __bool__(self) -> bool:
        return len(self) > 0

    # views would look at the folder for each key: these do once, and skip what is gone by the time it is their turn

    def keys(self) -> Iterator[str]:  # type: ignore[override]
        """The keys."""
        return iter(self)

    def values(self) -> Iterator[X]:  # type: ignore[override]
        """The values, loaded one after the other."""
        return (value for _, value in self.items())

    def items(self) -> Iterator[tuple[str, X]]:  # type: ignore[override]
        """Keys and values, loaded one after the other."""
        for key in self:
            try:
                yield key, self[key]
            except KeyError:
                continue

    @contextlib.contextmanager
    def frozen_cache_folder(self) -> Iterator[None]:
        """A block in which the folder is not looked at again: what others write meanwhile is not seen."""
        self.refresh()
        with self._lock:
            self._frozen += 1
        try:
            yield
        finally:
            with self._lock:
                self._frozen -= 1

    def describe(self, key: str) -> dict[str, Any]:
        """What is stored about an entry beside its value: ``#type``, ``#data``, ``#meta``...

        Raises
        ------
        KeyError
            There is no such entry.
        """
        if key in self:
            place = self._index.entries.get(key)
            found = (None, {"#key": key}) if place is None else self._index.read(place)
            if found is not None:
                return found[1]
        raise KeyError(key)

    def expect(self, ending: str | None, otherwise: Callable[[str, Any], None]) -> None:
        """Have it told of values that are loaded if what was kept beside them is no text with an ending.

        Parameters
        ----------
        ending:
            The end of a text; None: tell of none from now on.
        otherwise:
            Takes the key, and what was kept.
        """
        self._loader.expected = None if ending is None else (ending, otherwise)

    def meta(self, key: str) -> Any:
        """The JSON data that were kept beside the value or the error of a key; None if there are none."""
        self.refresh()
        return next((meta for place in self._index.places(key) if (meta := self.meta_at(place)) is not None), None)

    # failures: what a computation raised, beside the values

    def failure(self, key: str) -> Failure | None:
        """The error that was stored for a key, if there is one; as known since the last look at the folder."""
        place = self._index.failures.get(key)
        found = None if place is None else self._index.read(place)
        if found is None:
            return None
        file, info = found
        failure = Failure.from_info(info)
        try:
            is_whole = failure.pickled is None or self.may_unpickle(file.path)
        except FileNotFoundError:  # it was deleted, or moved, since it was read
            self._index.refresh()
            return self.failure(key)
        return failure if is_whole else without_pickle(failure)

    def put_failure(self, key: str, failure: Failure, *, meta: dict[str, Any] | None = None) -> None:
        """Store an error for a key, in place of the value or the errors that there are."""
        writer = self._writers.mine()
        with self._held(key) as older:
            journal = writer.ready(FAILED)
            record: dict[str, Any] = {"#replaces": [self._index.describe(place) for place in older]} if older else {}
            record |= {"#key": key, "#type": "Failure", **failure.to_info()}
            if meta is not None:
                record["#meta"] = meta
            self._append(writer, journal, key, seal(record))
            self._delete(key, older)

    def may_unpickle(self, path: str) -> bool:
        """Whether ``allow_pickle`` lets the pickles in a file be loaded."""
        return why_refused(os.stat(path).st_uid, self._pickles) is None

    # writing

    @contextlib.contextmanager
    def write(self, *, look: bool = True) -> Iterator[Self]:
        """A block in which entries can be written and deleted, by any thread; gives the CacheDict itself.

        Parameters
        ----------
        look:
            Take notice of what others wrote, first.
        """
        if look:
            self.refresh()
        self._writers.begin()
        try:
            yield self
        finally:
            if self._writers.end() and self._deleted > len(self._index.entries) // 4:  # not for each of many deletions
                self._deleted = 0
                with contextlib.suppress(OSError):  # it is only tidying up
                    drop_empty(self._path)

    writer = write

    def put(
        self, key: str, value: X, meta: dict[str, Any] | None = None, replace: bool = False, cache_type: Any = None
    ) -> None:
        """Write an entry, as ``cache[key] = value`` does.

        Parameters
        ----------
        key, value:
            The entry.
        meta:
            JSON data to keep beside the value; see `describe`.
        replace:
            Let the value take the place of the one that there is, in one step.
        cache_type:
            What stores this value; None: the one of the CacheDict.

        Raises
        ------
        ValueError
            The key has a value already.
        TypeError
            The key is no string, or the value can't be stored.
        RuntimeError
            There is no ``write`` block.
        CacheFolderError
            The folder can't be written to, for instance because the disk is full. Earlier entries are untouched.
        """
        if type(key) is not str:
            msg = f"the keys of a CacheDict are strings, not {key!r:.100}"
            raise ConfigTypeError(msg)
        index = self._index
        if key in (index.entries if self._path else self._ram) and not replace:
            msg = (
                f"there is a value for {key!r} already: delete it first (`del cache[key]`), if another one is to take its place"
            )
            raise KeyExistsError(msg)
        if self._path:
            writer = self._writers.by_thread.get(get_ident()) or self._writers.mine()
            if replace:
                place = self._replace(writer, key, value, meta, cache_type)
            else:
                line = writer.context.dump_entry(key, value, cache_type or self.cache_type, meta)
                journal = writer.journal or writer.ready(INFO)
                try:  # what `_append` does, without another call for each of many entries
                    offset = writer.append_line(journal, line) if writer.fsync else journal.write(line)
                except CacheFolderError:
                    writer.context.discard()
                    raise
                place = index.add(key, journal, offset, len(line))
            if index.bad:
                self._delete(key, index.bad.pop(key, ()))  # or it might be taken for the better one of two
        else:
            place = None
        if self.keep_in_ram:
            self._ram[key] = (place, value)

    __setitem__ = put

    def _append(self, writer: Writer, journal: AppendFile, key: str, line: bytes) -> int:
        """Write an entry's line, which makes it one."""
        try:
            offset = writer.append_line(journal, line) if writer.fsync else journal.write(line)
        except CacheFolderError:  # at an interruption, the line may be there
            writer.context.discard()
            raise
        return self._index.add(key, journal, offset, len(line))

    def _replace(self, writer: Writer, key: str, value: X, meta: dict[str, Any] | None, cache_type: Any) -> int:
        """Write an entry in place of what there is for its key."""
        with self._held(key) as older:
            replaced = [self._index.describe(place) for place in older]
            line = writer.context.dump_entry(key, value, cache_type or self.cache_type, meta, replaced)
            place = self._append(writer, writer.ready(INFO), key, line)
            self._delete(key, older)  # again, in records of their own: damage to the line must not bring them back
        return place

    @contextlib.contextmanager
    def _held(self, key: str) -> Iterator[list[int]]:
        """All that there is for a key; while the block lasts, it is not moved to other journals."""
        while True:
            places = self._index.places(key)
            with contextlib.ExitStack() as locks:
                names = {self._index.describe(place)[0] for place in places}
                held = all(locks.enter_context(in_use(f"{self._path}/{name}")) for name in names if OWN_JOURNAL.fullmatch(name))
                self._index.refresh()  # there may be more, for instance copies that were made while this waited
                if held and self._index.places(key) == places:
                    yield places
                    return

    def _forget(self, key: str, place: int) -> None:
        """Drop a deleted entry and its files."""
        found = self._index.read(place)
        self._index.drop(key, place)
        self._deleted += 1
        if found is not None:
            delete_data(self._path, key, *found, self._pickles)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        if self._path:
            self._writers.mine()  # or an error
            with self._held(key) as places:
                self._delete(key, places)
        self._ram.pop(key, None)

    def delete_if(self, key: str, condition: Callable[[int], bool]) -> None:
        """Delete those of the entries and errors of a key whose place fulfils a condition."""
        with self._held(key) as places:
            self._delete(key, [place for place in places if condition(place)])

    def _delete(self, key: str, places: Sequence[int]) -> None:
        writer = self._writers.mine()
        for place in places:
            writer.append_line(writer.ready(DELETED), deletion(key, *self._index.describe(place)))
            self._forget(key, place)

    def meta_at(self, place: int) -> Any:
        """The JSON data beside what is at a place."""
        found = self._index.read(place)
        return None if found is None else found[1].get("#meta")

    def mark(self, key: str) -> Any:
        """Changes when another value is stored for a key, as known since the last look; None if there is none."""
        if self._path:
            return self._index.entries.get(key)
        return id(self._ram[key]) if key in self._ram else None

    def failure_mark(self, key: str) -> Any:
        """Like `mark`, of errors."""
        return self._index.failures.get(key)

    def failed(self) -> list[str]:
        """Keys that have an error and no value."""
        self.refresh()
        return [key for key in self._index.failures if key not in self._index.entries]

    def has_failures(self) -> bool:
        """Whether there are errors, as known since the last look."""
        return bool(self._index.failures)

    def count(self) -> int:
        """How many keys there are, as known since the last look."""
        return len(self._known())

    def places(self, key: str) -> list[int]:
        """Where all that there is for a key lies, as known since the last look at the folder."""
        return self._index.places(key)

    def clear(self) -> None:
        """Remove all entries and their files; needs no ``write`` block."""
        self._ram.clear()
        if not self._path:
            return
        self._writers.leave()
        busy = clear_folder(self._path)
        self._index.refresh()
        if busy:  # others are writing: what there is goes, their files stay
            with self.write():
                for key in {*self._index.entries, *self._index.failures}:
                    with self._held(key) as places:
                        self._delete(key, places)

    # copies are views of the same folder

    def __getstate__(self) -> dict[str, Any]:
        names = ("folder", "keep_in_ram", "cache_type", "permissions", "allow_pickle", "check", "fsync")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path or None!r}, cache_type={self.cache_type!r})"
