"""The contract of handlers."""

import contextlib
import copy
import itertools
import os
import pickle
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from exca_like import maintenance
from exca_like.cachedict import CacheDict, DumpContext
from exca_like.errors import CorruptEntryError, CorruptEntryWarning, PickleRefusedError
from exca_like.testing.comparing import assert_json, brief, name_of, same
from exca_like.testing.entries import Entry, flip, listing, own_files, sample, sizes, states
from exca_like.testing.interruption import InterruptedDump, InterruptionError
from exca_like.testing.processes import store_in_new_process

# names that must not become paths, or collide on some file system
_ODD_KEYS = (
    "plain", "../../x", "..", ".", "", "a/b", "a-b", "A", "a", "con", "k" * 300, "two\nlines", "nul\0", '"\\', "ключ 🎉",
)  # fmt: skip
_numbers = itertools.count()
_WAY = (0, 1, 2, None)  # calls of a handler's context after which a dump fails; None: at its end


def check_handler(
    values: Iterable[Any],
    folder: str | Path,
    *,
    cache_type: str | None = None,
    equal: Callable[[Any, Any], bool] = same,
    loaded_type: type | None = None,
    pickles: bool = False,
    fresh_process: bool = True,
    flips: int = 16,
) -> None:
    """Put a handler through everything that a `CacheDict` promises about what it stores.

    For each value: it comes back equal and of the same type, in this process and in a new one; reading changes no file;
    no key leads out of the folder; damage to any stored byte, or a file that is cut short or gone, makes the entry count
    as missing, but never gives a wrong value; deleting removes its files, and a dump that fails leaves none; verifying
    and compacting the folder keep it.

    Parameters
    ----------
    values:
        What to store. Take small and large ones (more than 64 KiB and more than 1 MiB are treated differently), empty ones,
        and those with something odd about them.
    folder:
        An existing folder, in which temporary ones are made, like pytest's ``tmp_path``. They stay if a check fails.
    cache_type:
        Name of the handler; None: the one that the type of each value asks for.
    equal:
        ``equal(loaded, value)`` tells whether a value came back as it was. The default, `same`, compares numbers, texts,
        containers and numpy's arrays by their types, parts and bits, and anything else by ``==``.
    loaded_type:
        Type of what is loaded, if it is another than that of the value.
    pickles:
        Whether the handler may store pickles. If not, each value must be readable with ``allow_pickle="never"``.
    fresh_process:
        Whether to read in a new process, too. Importing the modules of the handler and of the values must be possible
        there, and register the handler.
    flips:
        Number of bytes of each file of an entry to damage, one at a time.

    Raises
    ------
    AssertionError
        Something is not as promised; the message says what, and what to do about it.

    Examples
    --------
    A type of one's own, and all that its test needs::

        @DumpContext.register
        class Span:
            def __init__(self, start, end):
                self.start, self.end = start, end

            def __dump_info__(self, ctx):
                return {"start": self.start, "end": self.end}

            @classmethod
            def __load_from_info__(cls, ctx, start, end):
                return cls(start, end)


        def test_span(tmp_path):
            check_handler([Span(0, 1)], tmp_path, equal=lambda a, b: vars(a) == vars(b))
    """
    listed = list(values)
    assert listed, "check_handler needs at least one value"
    root = tempfile.mkdtemp(prefix="check-handler-", dir=folder)
    contract = _Contract(listed, root, cache_type, equal, loaded_type, pickles, flips)
    with warnings.catch_warnings():
        if pickles:  # so it is meant
            warnings.filterwarnings("ignore", ".* is stored as a pickle", UserWarning)
        for check in (contract.check_keys, contract.check_threads, contract.check_fresh_process):
            if fresh_process or check != contract.check_fresh_process:
                with _noted(check, "all values together"):
                    check()
        for number, value in enumerate(listed):
            for check_one in (
                contract.check_info,
                contract.check_reading,
                contract.check_refusal,
                contract.check_damage,
                contract.check_deleting,
                contract.check_failing,
            ):
                place = f"{root}/{check_one.__name__}-{number}"
                with _noted(check_one, f"value {number}, {brief(value)}"):
                    check_one(place, value)
                shutil.rmtree(place)
    shutil.rmtree(root)


@contextlib.contextmanager
def _noted(check: Callable[..., None], what: str) -> Iterator[None]:
    """Tell in a note what was going on when an error was raised."""
    try:
        yield
    except Exception as error:
        error.add_note(f"check_handler was at {check.__name__!r} of {what}")
        raise


def _read(cache: CacheDict[Any], key: str, where: str) -> Any:
    try:
        return cache[key]
    except KeyError as error:
        msg = f"{where}, the entry {key!r:.50} is missing"
        raise AssertionError(msg) from error


@dataclass(frozen=True)
class _Contract:
    """The checks, and what they all need."""

    values: list[Any]
    root: str
    cache_type: str | None
    equal: Callable[[Any, Any], bool]
    loaded_type: type | None
    pickles: bool
    flips: int

    def cache(self, folder: str, **options: Any) -> CacheDict[Any]:
        return CacheDict(folder, **{"cache_type": self.cache_type, **options})

    def written(self, folder: str, **values: Any) -> CacheDict[Any]:
        cache = self.cache(folder)
        with cache.write():
            cache.update(values)
        return cache

    def assert_same(self, loaded: Any, value: Any, where: str) -> None:
        expected = self.loaded_type or type(value)
        assert type(loaded) is expected, (
            f"{where}, {brief(value)} came back as a {name_of(type(loaded))}, not a {name_of(expected)}; give check_handler "
            "loaded_type=..., if that is meant"
        )
        assert self.equal(loaded, value), (
            f"{where}, {brief(value)} came back as {brief(loaded)}, which is not equal; give check_handler equal=..., if "
            "values of this type are compared in another way"
        )

    # checks of all values together

    def check_keys(self) -> None:
        """Entries with odd keys, side by side: each keeps its own value, inside of the folder, through a compaction."""
        outside = f"{self.root}/keys"
        folder = f"{outside}/deep/down"
        os.makedirs(os.path.dirname(folder))
        before = listing(outside)
        pairs = {}
        for number, _ in enumerate(self.values):
            for shift, key in enumerate((*_ODD_KEYS, f"{outside}/absolute")):
                pairs[f"{key}{number or ''}"] = self.values[(number + shift) % len(self.values)]
        cache = self.cache(folder)
        with cache.write():
            for key, value in pairs.items():
                try:
                    cache[key] = value
                except Exception as error:
                    error.add_note(f"{brief(value)} was to be written with the key {key!r:.50}")
                    raise
        self._read_pairs(folder, pairs, "written side by side")
        astray = {name for name in listing(outside) - before if not f"{name}/".startswith("deep/down/")}
        assert not astray, f"files were written outside of the folder: {sorted(astray)}; names of files come from ctx.key_path"
        self._verify(folder, "what was just written")
        with cache.write():
            for key in list(pairs)[::2]:
                del cache[key], pairs[key]
        maintenance.compact(folder)
        self._read_pairs(folder, pairs, "after a compaction")
        self._verify(folder, "what was compacted")
        cache.clear()
        left = sizes(folder)
        assert not left, f"clear() leaves files behind: {sorted(left)}; names of files come from ctx.key_path"
        shutil.rmtree(outside)

    def _verify(self, folder: str, what: str) -> None:
        problems = [problem for problem in maintenance.verify(folder).problems if problem.kind != "orphaned"]
        assert not problems, f"exca_like.maintenance.verify finds problems in {what}: {'; '.join(map(str, problems))}"

    def _read_pairs(self, folder: str, pairs: dict[str, Any], where: str) -> None:
        cache = self.cache(folder)
        assert set(cache) == set(pairs), f"{where}, other keys are there than were written: {set(cache) ^ set(pairs)}"
        for key, value in pairs.items():
            self.assert_same(_read(cache, key, where), value, f"{where}, with the key {key!r:.50}")

    def check_threads(self) -> None:
        """Threads that write and read at once."""
        folder = f"{self.root}/threads"
        pairs = {str(number): value for number, value in enumerate(self.values * 2)}
        cache = self.cache(folder)

        def use(pair: tuple[str, Any]) -> Any:
            cache[pair[0]] = pair[1]
            return _read(cache, pair[0], "in a thread")

        with cache.write(), ThreadPoolExecutor(4) as pool:
            for loaded, value in zip(pool.map(use, pairs.items()), pairs.values(), strict=True):
                self.assert_same(loaded, value, "in one of several threads")
        self._read_pairs(folder, pairs, "written by several threads")
        shutil.rmtree(folder)

    def check_fresh_process(self) -> None:
        """A new process reads the values and stores them again, for this one to compare."""
        folder, again = f"{self.root}/first", f"{self.root}/again"
        pairs = {str(number): value for number, value in enumerate(self.values)}
        cache = self.written(folder, **pairs)
        before = states(folder)
        kinds = store_in_new_process(folder, again, self.cache_type, self.values)
        assert states(folder) == before, "reading in a new process changed files"
        second = self.cache(again)
        for key, value in pairs.items():
            kind = name_of(type(_read(cache, key, "here")))
            assert kinds[key] == kind, f"in a new process, {brief(value)} came back as a {kinds[key]}, not a {kind} as here"
            self.assert_same(_read(second, key, "stored by a new process"), value, "in a new process")
        shutil.rmtree(folder)
        shutil.rmtree(again)

    # checks of each value

    def check_info(self, folder: str, value: Any) -> None:
        """What the handler returns is JSON data, and comes back from JSON as it is."""
        context = DumpContext(folder, key="key")
        info = context.dump(value, cache_type=self.cache_type)
        context.writer.end()
        reserved = [name for name in info if name[:1] == "#" and name != "#type"]
        assert not reserved, f"__dump_info__ returns the names {reserved}: names that begin with # are taken"
        assert_json(info)

    def check_reading(self, folder: str, value: Any) -> None:
        """Every view of the folder reads the value, again and again, and changes nothing."""
        cache = self.cache(folder)
        with cache.write():
            cache["key"] = value
            self.assert_same(_read(cache, "key", "in the write block"), value, "in the write block")
        before = states(folder)
        views = {
            "where it was written": cache,
            "in a new instance": self.cache(folder),
            "in a new instance without cache_type": CacheDict(folder),
            "in a new instance that keeps values in memory": self.cache(folder, keep_in_ram=True),
            "in a pickled copy": pickle.loads(pickle.dumps(cache)),
            "in a deep copy": copy.deepcopy(cache),
        }
        for where, view in views.items():
            for _ in range(2):
                self.assert_same(_read(view, "key", where), value, where)
        assert states(folder) == before, "reading changed files: a handler's __load_from_info__ must only read"

    def check_refusal(self, folder: str, value: Any) -> None:
        """Where pickles are refused, the value is read, or the refusal raised."""
        self.written(folder, key=value)
        where = "with allow_pickle='never'"
        try:
            loaded = _read(self.cache(folder, allow_pickle="never"), "key", where)
        except PickleRefusedError as error:
            if not self.pickles:
                msg = f"{brief(value)} is stored as a pickle; give check_handler pickles=True, if that is meant"
                raise AssertionError(msg) from error
        else:
            self.assert_same(loaded, value, where)

    def check_damage(self, folder: str, value: Any) -> None:
        """All of the entry's data are covered by checksums, and damage to them is noticed."""
        whole = f"{folder}/whole"
        cache = self.written(whole, before=self.values[0])
        before = sizes(whole)
        with cache.write():
            cache["key"] = value
        entry = Entry.written_last(cache, "key", before)
        entry.assert_covered()
        for name, start, end in entry.pieces:
            for offset in sample(start, end, self.flips):
                self._check_flip(folder, value, name, offset, must_miss=entry.covers(name, offset))
            for size in {start, (start + end) // 2, end - 1} if start < end else ():
                self._check_spoilt(folder, value, name, f"was cut to {size} bytes", partial(os.truncate, length=size))
            if not start:
                self._check_spoilt(folder, value, name, "was removed", os.unlink, must_miss=start < end)
        start, end = before[entry.journal], sizes(whole)[entry.journal] - 1  # a line without an end is not there yet
        for offset in sample(start, end, self.flips // 2):
            self._check_flip(folder, value, entry.journal, offset)

    def _check_flip(self, folder: str, value: Any, name: str, offset: int, *, must_miss: bool = True) -> None:
        damage = f"bit {offset % 8} of byte {offset} was flipped"
        self._check_spoilt(folder, value, name, damage, partial(flip, offset=offset), must_miss=must_miss, alone=True)

    def _check_spoilt(
        self,
        folder: str,
        value: Any,
        name: str,
        damage: str,
        spoil: Callable[[str], None],
        *,
        must_miss: bool = True,
        alone: bool = False,
    ) -> None:
        """Damage a file and read; then mend it."""
        whole, spoilt = f"{folder}/whole", f"{folder}/spoilt-{next(_numbers)}"
        content = Path(whole, name).read_bytes()
        os.unlink(f"{whole}/{name}")  # it may be read-only, and have other names, of other entries
        Path(whole, name).write_bytes(content)
        spoil(f"{whole}/{name}")
        os.rename(whole, spoilt)  # another path each time, as files are checked once per process
        damage = f"{name}: {damage}"
        self._assert_missed(spoilt, value, damage, must_miss=must_miss)
        if alone:
            self.assert_same(_read(self.cache(spoilt), "before", damage), self.values[0], f"{damage}; another entry")
        os.rename(spoilt, whole)
        Path(whole, name).write_bytes(content)

    def _assert_missed(self, folder: str, value: Any, damage: str, *, must_miss: bool) -> None:
        cache = self.cache(folder)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                loaded = cache["key"]
                equal = self.equal(loaded, value)
            except KeyError:
                reported = any(issubclass(warning.category, CorruptEntryWarning) for warning in caught)
                assert reported, f"{damage}, and the entry is missing, but there was no CorruptEntryWarning"
                return
            except CorruptEntryError:  # of values that are read, and checked, piece by piece
                return
            except Exception as error:
                msg = f"{damage}, and reading raised {error!r}, instead of counting the entry as missing"
                raise AssertionError(msg) from error
        assert equal, f"{damage}, and a wrong value was read: {brief(loaded)}, not {brief(value)}"
        assert not must_miss, f"{damage}, and it was not noticed"

    def check_deleting(self, folder: str, value: Any) -> None:
        """Deleting removes the entry's own files and no others, and the key can come again."""
        other = self.values[0]
        self.written(folder, other=other)
        before = own_files(folder)
        self.written(folder, key=value)
        cache = self.cache(folder)
        for _ in range(2):
            with cache.write():
                del cache["key"]
            left, lost = own_files(folder) - before, before - own_files(folder)
            assert not left, (
                f"deleting leaves files behind: {sorted(left)}; names of files come from ctx.key_path, or a classmethod "
                "__delete_info__(cls, ctx, **info) removes them"
            )
            assert not lost, f"deleting removed files of another entry: {sorted(lost)}"
            assert "key" not in self.cache(folder), "the key is still there after it was deleted"
            with cache.write():
                cache["key"] = value
            self.assert_same(_read(self.cache(folder), "key", "written again"), value, "written again after it was deleted")
        self.assert_same(_read(self.cache(folder), "other", "another entry"), other, "another entry than the deleted one")

    def check_failing(self, folder: str, value: Any) -> None:
        """A dump that fails half-way leaves neither entry nor files, and what is written afterwards is whole."""
        other = self.values[0]
        cache = self.written(folder, first=other)
        where = "after a dump that failed half-way"
        with cache.write():
            for number, calls in enumerate(_WAY):
                before = own_files(folder)
                cache.cache_type = None
                with contextlib.suppress(InterruptionError):
                    cache["key"] = InterruptedDump(value, self.cache_type, calls)
                cache.cache_type = self.cache_type
                assert "key" not in cache, f"{where}, there is an entry"
                left = own_files(folder) - before
                assert not left, f"{where}, files are left: {sorted(left)}; names of files come from ctx.key_path"
                cache[f"after {number}"] = other
            cache["key"] = value
        view = self.cache(folder)
        self.assert_same(_read(view, "key", where), value, where)
        for key in ("first", *(f"after {number}" for number, _ in enumerate(_WAY))):
            self.assert_same(_read(view, key, where), other, f"{where}, another entry")
