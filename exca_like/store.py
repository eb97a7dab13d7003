"""Outcomes of computations, values or failures, as the engine needs them: in a folder, or in memory."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from exca_like import files
from exca_like.cachedict.context import AllowPickle, allowed_pickles, load_entry
from exca_like.cachedict.core import CacheDict
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.handlers.containers import from_tree
from exca_like.cachedict.journal import JournalFile
from exca_like.cachedict.single import SingleEntry, single_entry, write_first
from exca_like.errors import CorruptEntryError
from exca_like.layout import EntryFolder
from exca_like.recording import Recording
from exca_like.runs import Run

Kind = Literal["value", "failure"]
_making = files.ForkSafeLock()


class Outcome(NamedTuple):
    """What a computation left: a value, or a failure (then ``value`` is None)."""

    value: Any = None
    failure: Failure | None = None

    def get(self) -> Any:
        """The value; raises the error if there was one."""
        if self.failure is not None:
            raise self.failure.exception()
        return self.value


class Store(Protocol):
    """Values and failures by key, as the engine needs them."""

    def peek(self, key: str) -> Kind | None:
        """What there is for a key, without loading it."""
        ...

    def mark(self, key: str) -> Any:
        """Changes when another outcome is stored for a key."""
        ...

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one."""
        ...

    def recording(self) -> Recording:
        """What takes note of a computation that begins now, for `save`."""
        ...

    def save(self, key: str, outcome: Outcome, information: dict[str, Any], *, is_first: bool = False) -> None:
        """Store an outcome, in place of an older one."""
        ...

    def has_noted(self, key: str, name: str, value: Callable[[], Any]) -> bool | None:
        """Whether something was stored beside the outcome of a key; what, is asked only if there is an outcome.

        None if there is not even a folder.
        """
        ...

    def was_noted(self, key: str, name: str, value: Any) -> bool:
        """Whether something was stored beside the outcome that was loaded last."""
        ...

    def line(self) -> bytes | None:
        """Another object when another outcome was loaded; None if that is not known."""
        ...

    def meta(self, key: str) -> dict[str, Any] | None:
        """What was stored beside the outcome of a key, if anything."""
        ...

    def discard(self, key: str) -> None:
        """Forget a key."""
        ...

    def replaced(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Forget what there is for a key now, unless the block raises."""
        ...

    def place(self) -> str | None:
        """The folder; None if outcomes are in memory."""
        ...


class _CacheStore:
    """What stores in a `CacheDict` have in common: ``_cache``, and ``_describe``, which gives JSON data for each outcome."""

    _cache: Any
    _describe: Callable[[], dict[str, Any]]
    _run: Run | None

    def recording(self) -> Recording:
        """What takes note of a computation that begins now, for `save`."""
        return Recording(self._run)

    def mark(self, key: str) -> Any:
        """Changes when another outcome is stored for a key, as known since the last look at the folder."""
        return tuple(self._cache.places(key))

    def save(self, key: str, outcome: Outcome, information: dict[str, Any], *, is_first: bool = False) -> None:
        """Store an outcome, in place of an older one; ``is_first`` if there can be none.

        Raises
        ------
        TypeError
            The value can't be stored.
        CacheFolderError
            The folder can't be written to; what was there before is still there.
        """
        meta = {**information, **self._describe()}
        is_known = bool(self._cache.places(key))  # what was there before the folder was removed, if this is the first
        with self._cache.write(look=is_known or not is_first) as cache:
            if outcome.failure is None:
                cache.put(key, outcome.value, meta=meta, replace=not is_first)
            else:
                cache.put_failure(key, outcome.failure, meta=meta)

    def place(self) -> str | None:
        """The folder."""
        return None if self._cache.folder is None else str(self._cache.folder)

    def meta(self, key: str) -> dict[str, Any] | None:
        """What was stored beside the outcome of a key."""
        found: dict[str, Any] | None = self._cache.meta(key)
        return found

    def line(self) -> bytes | None:
        """None: it is one of many."""
        return None

    def was_noted(self, key: str, name: str, value: Any) -> bool:
        """Whether something was stored beside the outcome that was loaded last."""
        return bool((self.meta(key) or {}).get(name) == value)

    def discard(self, key: str) -> None:
        """Forget a key."""
        self._cache.refresh()
        self._delete_if(key, lambda _: True)

    @contextlib.contextmanager
    def replaced(self, key: str) -> Iterator[None]:
        """Forget what there is for a key now, unless the block raises."""
        cache = self._cache
        cache.refresh()
        older = cache.places(key)
        metas = [cache.meta_at(place) for place in older]
        yield  # what is stored meanwhile stays
        self._delete_if(key, lambda place: place in older or cache.meta_at(place) in metas)

    def _delete_if(self, key: str, condition: Callable[[int], bool]) -> None:
        if self._cache.places(key):
            with self._cache.write() as cache:
                cache.delete_if(key, condition)


class Notes(Protocol):
    """What is said of outcomes in a folder of many when they are stored."""

    def meta(self, key: str) -> dict[str, Any]:
        """JSON data to keep beside an outcome."""
        ...

    def cache_type(self, value: Any) -> Any:
        """What stores a value; None: as usual."""
        ...


class SharedStore(_CacheStore):
    """Store of a key in a folder of many."""

    def __init__(self, cache: CacheDict[Any], key: str, notes: Notes, run: Run | None = None) -> None:
        self._cache = cache
        self._run = run
        self._notes = notes
        self._describe = lambda: notes.meta(key)

    def save(self, key: str, outcome: Outcome, information: dict[str, Any], *, is_first: bool = False) -> None:  # noqa: ARG002 - looked up
        """As other stores; whoever saves has looked at the folder when he claimed the key."""
        if outcome.failure is not None:
            super().save(key, outcome, information)
            return
        meta, cache_type = {**information, **self._notes.meta(key)}, self._notes.cache_type(outcome.value)
        with self._cache.write(look=False) as cache:
            cache.put(key, outcome.value, meta, replace=bool(cache.places(key)), cache_type=cache_type)

    def peek(self, key: str) -> Kind | None:
        """What there is for a key, without loading it."""
        self._cache.refresh()
        if self._cache.mark(key) is not None:
            return "value"
        return None if self._cache.failure_mark(key) is None else "failure"

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one and it passes its checks."""
        if self.peek(key) == "value":  # in its own folder: a forced call is not to find what read folders have
            with contextlib.suppress(KeyError):
                return Outcome(self._cache[key])
        failure = self._cache.failure(key)
        return None if failure is None else Outcome(failure=failure)

    def has_noted(self, key: str, name: str, value: Callable[[], Any]) -> bool:
        """Whether something was stored beside the outcome of a key."""
        return _has(self._cache.meta(key), name, value)


class FolderStore(_CacheStore):
    """Store in the folder of a config.

    Parameters
    ----------
    folder:
        The folder.
    describe:
        Gives JSON data that are stored beside each outcome.
    permissions, allow_pickle:
        See `exca_like.cachedict.CacheDict`.
    run:
        Gives what is the same for all that this process computes for the folder; None: only time and place are noted.
    """

    def __init__(
        self,
        folder: EntryFolder,
        describe: Callable[[], dict[str, Any]],
        permissions: int | None = None,
        allow_pickle: AllowPickle = "own",
        run: Callable[[], Run | None] | None = None,
    ) -> None:
        self.folder = folder
        self._make_run = run
        self._describe = describe
        self.has_just_looked = False  # then the next question need not look at the folder again
        self._single = single_entry(folder.path)
        self._just_found: tuple[JournalFile, dict[str, Any]] | None = None  # by the last question
        self._bad: Any = ()  # state of a single entry whose value could not be loaded
        self._made: CacheDict[Any] | None = None
        self._permissions = permissions
        self._allow_pickle: AllowPickle = allow_pickle
        self._pickles: AllowPickle = allowed_pickles(allow_pickle)

    def recording(self) -> Recording:
        """What takes note of a computation that begins now, for `save`."""
        return Recording(None if self._make_run is None else self._make_run())

    def save(self, key: str, outcome: Outcome, information: dict[str, Any], *, is_first: bool = False) -> None:
        """As other stores; the value of a new folder in a shorter way."""
        if is_first and outcome.failure is None and self._made is None:
            write_first(self.folder.path, key, outcome.value, {**information, **self._describe()}, self._permissions)
        else:
            super().save(key, outcome, information, is_first=is_first)

    @property
    def _cache(self) -> CacheDict[Any]:
        cache = self._made
        if cache is None:
            with _making:
                cache = self._made = self._made or CacheDict(
                    self.folder.path, permissions=self._permissions, allow_pickle=self._allow_pickle
                )
        return cache

    def _found(self, key: str) -> tuple[JournalFile, dict[str, Any]] | None:
        """The journal and the content of the line of a key's value, if the folder holds nothing else."""
        found, self._just_found = self._just_found, None
        if found is None or not self.has_just_looked:
            found = self._single.look(bare=True)
        if found is None or found[1]["#key"] != key or self._single.state == self._bad:
            return None
        self.has_just_looked = False
        return found

    def peek(self, key: str) -> Kind | None:
        """What there is for a key, without loading it."""
        if self._found(key) is not None:
            return "value"
        cache = self._cache
        self._look()
        if cache.places(key):
            return "value" if key in cache else "failure"
        left = self._left_by_exca()
        return None if left is None else "value" if left.failure is None else "failure"

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one and it passes its checks."""
        found = self._found(key)
        if found is not None:
            try:
                return Outcome(load_entry(self.folder.path, key, *found, self._pickles, "full"))
            except (CorruptEntryError, FileNotFoundError):  # a CacheDict reports it, or finds it elsewhere
                self._bad = self._single.state
        cache = self._cache
        self._look()
        if cache.places(key):
            with contextlib.suppress(KeyError):  # there is only a failure, or the value is corrupt
                return Outcome(cache[key])
            failure = cache.failure(key)
            if failure is not None:
                return Outcome(failure=failure)
        return self._left_by_exca()

    def has_noted(self, key: str, name: str, value: Callable[[], Any]) -> bool | None:
        """Whether something was stored beside the outcome of a key; None if there is no folder."""
        found = self._found(key)
        if found is not None:
            self._just_found = found
            return self._single.has_noted(name, value())
        return _has(self._cache.meta(key), name, value) if self._single.is_there else None

    def line(self) -> bytes | None:
        """Another object when another outcome was loaded; None if that is not known."""
        return self._single.line

    def was_noted(self, key: str, name: str, value: Any) -> bool:
        """Whether something was stored beside the outcome that was loaded last."""
        return self._single.has_noted(name, value) or super().was_noted(key, name, value)

    def _look(self) -> None:
        if self.has_just_looked:
            self.has_just_looked = False
        else:
            self._cache.refresh()

    def _delete_if(self, key: str, condition: Callable[[int], bool]) -> None:
        super()._delete_if(key, condition)
        files.remove(self.folder.exca_job)

    def _left_by_exca(self) -> Outcome | None:
        """The outcome that exca left in the folder, if it did."""
        if not os.path.exists(self.folder.exca_job):
            return None
        from exca_like.compat.exca_jobs import read_job  # only for folders of exca

        found = read_job(self.folder.path, self._cache.may_unpickle)
        if found is None:
            return None
        status, content = found
        if status == "success":
            return Outcome(content)
        if isinstance(content, BaseException):
            notes = content.__dict__.pop("__notes__", [])  # the traceback, which a failure keeps beside the exception
            return Outcome(failure=replace(Failure.of(content), traceback="\n".join(notes)))
        lines = str(content).strip().splitlines() or ["unknown error"]
        name, _, message = lines[-1].partition(": ")
        return Outcome(failure=Failure(name, message, str(content)))


@dataclass
class MemoryStore:
    """Store of an infra without a folder."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def peek(self, key: str) -> Kind | None:
        """What there is for a key."""
        outcome = self.outcomes.get(key)
        return None if outcome is None else "value" if outcome.failure is None else "failure"

    def mark(self, key: str) -> Any:
        """Changes when another outcome is stored for a key."""
        return id(self.outcomes.get(key))

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one."""
        return self.outcomes.get(key)

    def recording(self) -> Recording:
        """What takes note of nothing."""
        return Recording(None)

    def save(self, key: str, outcome: Outcome, information: dict[str, Any], *, is_first: bool = False) -> None:  # noqa: ARG002 - see Store
        """Keep an outcome, in place of an older one."""
        self.outcomes[key] = outcome

    def has_noted(self, key: str, name: str, value: Callable[[], Any]) -> bool:  # noqa: ARG002 - see Store
        """Nothing: a config in memory has no need of it."""
        return False

    def was_noted(self, key: str, name: str, value: Any) -> bool:  # noqa: ARG002 - see Store
        """Nothing, too."""
        return False

    def line(self) -> None:
        """None: there are no lines."""

    def meta(self, key: str) -> None:
        """None: nothing is stored beside outcomes."""

    def place(self) -> str | None:
        """None: outcomes are in memory."""
        return None

    def discard(self, key: str) -> None:
        """Forget a key."""
        self.outcomes.pop(key, None)

    @contextlib.contextmanager
    def replaced(self, key: str) -> Iterator[None]:
        """Forget a key, unless the block raises."""
        outcome = self.outcomes.pop(key, None)
        try:
            yield
        except BaseException:
            if outcome is not None:
                self.outcomes.setdefault(key, outcome)
            raise


def read_config(folder: EntryFolder, key: str) -> dict[str, Any] | None:
    """The config that an outcome was computed with; None if there is no outcome."""
    found = SingleEntry(folder.path).look()
    meta = None if found is None or found[1]["#key"] != key else found[1].get("#meta")
    if meta is None:
        meta = CacheDict(folder.path).meta(key)
    config: dict[str, Any] | None = None if meta is None else from_tree(meta.get("config"))
    return config


def _has(meta: dict[str, Any] | None, name: str, value: Callable[[], Any]) -> bool:
    return meta is not None and name in meta and meta[name] is not None and bool(meta[name] == value())
