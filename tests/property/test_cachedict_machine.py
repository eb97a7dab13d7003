"""CacheDicts on one folder against a plain dictionary, whatever is done with them in whatever order.

The rule is the documented one. What one instance writes or deletes, another one sees when it looks at the folder: at
`refresh`, ``len``, iteration, `missing`, the start of a ``write`` block, and when a key is asked for that it does not know.
A key that it knows is served without a look, so that it may still give a value that was there since its last look.
"""

import contextlib
import copy
import datetime
import pickle
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from chaos.values import same
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exca_like.cachedict import CacheDict
from exca_like.maintenance import compact, verify

MISSING = "<missing>"
KEYS = ["a", "b", "A", "é/ü", 'a\n"\\', "x" * 200, ""]

_dtypes = st.sampled_from(["f8", "i4", "u1", "c16", "?", "U3", "M8[s]", ">i2"])
_shapes = st.sampled_from([(), (0,), (3,), (2, 3), (40,), (70, 5), (9000,)])


def _array(dtype: str, shape: tuple[int, ...], start: int, *, fortran: bool) -> Any:
    numbers = np.arange(start, start + int(np.prod(shape, dtype=int))).reshape(shape)
    array = numbers.astype(dtype) if dtype != "u1" else (numbers % 251).astype(dtype)
    return np.asfortranarray(array) if fortran else array


arrays = st.builds(_array, _dtypes, _shapes, st.integers(0, 100), fortran=st.booleans())
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["x" * 300, "é" * 700]),
    st.binary(max_size=5),
    st.sampled_from([1j, datetime.date(2020, 1, 2), np.float32(0.1), np.int8(3), range(3)]),
    arrays,
)
values = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=4),
        st.dictionaries(st.text(max_size=3), parts, max_size=3),
        st.dictionaries(st.integers(0, 9), parts, max_size=2),
        st.tuples(parts, parts),
    ),
    max_leaves=6,
)
keys = st.sampled_from(KEYS)
# which CacheDict does it; the last one stores arrays in files of their own
numbers = st.integers(0, 2)
any_number = st.integers(0, 3)


def is_missing(value: Any) -> bool:
    return isinstance(value, str) and value == MISSING


def is_one_of(value: Any, allowed: list[Any]) -> bool:
    return any(same(value, one) for one in allowed)


class CacheDictMachine(RuleBasedStateMachine):
    """``truth`` is what the folder holds; ``seen`` is, for each CacheDict and key, what it may give without a look."""

    keep_in_ram = False

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp()
        self.folder = Path(self.root, "cache")
        self.truth: dict[str, Any] = {}
        self.caches: list[CacheDict[Any]] = []
        self.seen: list[dict[str, list[Any]]] = []
        self.blocks: list[contextlib.ExitStack] = []
        self.frozen: list[contextlib.ExitStack | None] = []

    @initialize()
    def start(self) -> None:
        for kind in (None, None, None, "NumpyArray"):
            cache = CacheDict[Any](self.folder, cache_type=kind, keep_in_ram=self.keep_in_ram and len(self.caches) == 2)
            self.caches.append(cache)
            self.seen.append(defaultdict(lambda: [MISSING]))
            self.blocks.append(contextlib.ExitStack())
            self.frozen.append(None)

    def teardown(self) -> None:
        for stack in (*self.blocks, *self.frozen):
            if stack is not None:
                stack.close()
        shutil.rmtree(self.root)

    # the model

    def value(self, key: str) -> Any:
        return self.truth.get(key, MISSING)

    def looked(self, number: int) -> None:
        if self.frozen[number] is None:
            for key in KEYS:
                self.seen[number][key] = [self.value(key)]

    def changed(self, number: int, key: str, value: Any) -> None:
        if is_missing(value):
            self.truth.pop(key, None)
        else:
            self.truth[key] = value
        for other, seen in enumerate(self.seen):
            if other == number:
                seen[key] = [value]
            elif self.frozen[other] is None or not all(map(is_missing, seen[key])):  # the frozen ones see nothing new
                seen[key] = [*seen[key], value]

    def settle(self, key: str, allowed: list[Any]) -> None:
        """Take from the folder which of several entries for a key counts."""
        value = CacheDict[Any](self.folder).get(key, MISSING)
        assert is_one_of(value, allowed)
        for number, seen in enumerate(self.seen):
            if self.frozen[number] is None:
                seen[key] = [*seen[key], *allowed]
        if is_missing(value):
            self.truth.pop(key, None)
        else:
            self.truth[key] = value

    # writing

    @contextlib.contextmanager
    def writing(self, number: int) -> Any:
        self.looked(number)
        with self.caches[number].write() as cache:
            yield cache

    def can_store(self, number: int, value: Any) -> bool:
        return number < 3 or isinstance(value, np.ndarray)

    @rule(number=any_number, key=keys, value=values)
    def write(self, number: int, key: str, value: Any) -> None:
        if not self.can_store(number, value):
            return
        with self.writing(number) as cache:
            if all(map(is_missing, self.seen[number][key])):
                if is_missing(self.value(key)):
                    cache[key] = value
                    self.changed(number, key, value)
            elif self.frozen[number] is None:
                with pytest.raises(ValueError, match="already"):
                    cache[key] = value

    @rule(number=any_number, key=keys, value=values)
    def replace(self, number: int, key: str, value: Any) -> None:
        if self.can_store(number, value) and self.frozen[number] is None:
            with self.writing(number) as cache:
                cache.put(key, value, replace=True)
                self.changed(number, key, value)

    @rule(number=any_number, key=keys)
    def delete(self, number: int, key: str) -> None:
        if self.frozen[number] is not None:
            return
        with self.writing(number) as cache:
            if is_missing(self.value(key)):
                with pytest.raises(KeyError):
                    del cache[key]
            else:
                del cache[key]
                self.changed(number, key, MISSING)

    @rule(number=any_number, key=keys, value=values)
    def rewrite(self, number: int, key: str, value: Any) -> None:
        if self.frozen[number] is None and self.can_store(number, value) and not is_missing(self.value(key)):
            with self.writing(number) as cache:
                del cache[key]
                self.changed(number, key, MISSING)
                cache[key] = value
                self.changed(number, key, value)

    @rule(number=numbers, key=keys, value=values)
    def set_default_and_pop(self, number: int, key: str, value: Any) -> None:
        if self.frozen[number] is None:
            with self.writing(number) as cache:
                found = cache.setdefault(key, value)
                assert same(found, self.value(key) if key in self.truth else value)
                assert same(cache.pop(key), found)
                self.changed(number, key, MISSING)

    @rule(number=any_number, value=values)
    def fail_to_write(self, number: int, value: Any) -> None:
        with self.writing(number) as cache, pytest.raises(TypeError):
            cache[3] = value  # type: ignore[index]
        if all(stack._exit_callbacks == type(stack._exit_callbacks)() for stack in self.blocks):
            with pytest.raises(RuntimeError, match="block"):
                self.caches[number]["new key"] = 1

    @rule(number=any_number)
    def clear(self, number: int) -> None:
        if all(stack is None for stack in self.frozen):
            for stack in self.blocks:  # what an open block of another CacheDict does then has a test of its own
                stack.close()
            self.caches[number].clear()
            for key in KEYS:
                if key in self.truth:
                    self.changed(number, key, MISSING)
                self.seen[number][key] = [MISSING]

    # blocks that stay open: no look before what is done in them

    @rule(number=any_number)
    def open_block(self, number: int) -> None:
        self.blocks[number].enter_context(self.caches[number].write())
        self.looked(number)

    @rule(number=any_number)
    def close_block(self, number: int) -> None:
        self.blocks[number].close()

    def has_block(self, number: int) -> bool:
        return bool(self.blocks[number]._exit_callbacks)

    @rule(number=any_number, key=keys, value=values)
    def write_without_a_look(self, number: int, key: str, value: Any) -> None:
        seen = self.seen[number][key]
        if self.has_block(number) and self.can_store(number, value) and len(seen) == 1 and is_missing(seen[0]):
            self.caches[number][key] = value
            self.seen[number][key] = [value]
            if is_missing(self.value(key)):
                self.changed(number, key, value)
            else:  # somebody else has written the key meanwhile: one of the two counts
                self.settle(key, [self.value(key), value])

    # reading

    @rule(number=any_number, key=keys)
    def get(self, number: int, key: str) -> None:
        allowed = self.seen[number][key]
        if all(map(is_missing, allowed)) and self.frozen[number] is None:
            self.looked(number)
            allowed = [self.value(key)]
        found = self.caches[number].get(key, MISSING)
        assert is_one_of(found, allowed), f"{key!r} is {found!r:.200}, not one of {allowed!r:.500}"

    @rule(number=any_number, key=keys)
    def contains(self, number: int, key: str) -> None:
        allowed = self.seen[number][key]
        if all(map(is_missing, allowed)) and self.frozen[number] is None:
            self.looked(number)
            allowed = [self.value(key)]
        assert (key in self.caches[number]) in {not is_missing(value) for value in allowed}

    @precondition(lambda self: any(stack is None for stack in self.frozen))
    @rule(number=any_number)
    def iterate(self, number: int) -> None:
        if self.frozen[number] is None:
            found = dict(self.caches[number].items())
            assert found.keys() == self.truth.keys()
            assert all(same(found[key], value) for key, value in self.truth.items())
            self.looked(number)
            assert sorted(self.caches[number]) == sorted(self.truth)
            assert len(list(self.caches[number].values())) == len(self.truth)

    @rule(number=any_number)
    def length(self, number: int) -> None:
        if self.frozen[number] is None:
            assert len(self.caches[number]) == len(self.truth)
            assert bool(self.caches[number]) == bool(self.truth)
            self.looked(number)

    @rule(number=any_number)
    def missing(self, number: int) -> None:
        if self.frozen[number] is None:
            assert self.caches[number].missing(KEYS) == [key for key in KEYS if key not in self.truth]
            self.looked(number)

    @rule(number=any_number)
    def refresh(self, number: int) -> None:
        self.caches[number].refresh()
        self.looked(number)

    @rule(number=any_number)
    def freeze(self, number: int) -> None:
        if self.frozen[number] is None:
            stack = contextlib.ExitStack()
            stack.enter_context(self.caches[number].frozen_cache_folder())
            self.looked(number)
            self.frozen[number] = stack

    @rule(number=any_number)
    def thaw(self, number: int) -> None:
        stack = self.frozen[number]
        if stack is not None:
            stack.close()
            self.frozen[number] = None
            for key in KEYS:
                if not is_one_of(self.value(key), self.seen[number][key]):
                    self.seen[number][key].append(self.value(key))

    # other views of the folder

    @rule(number=any_number, how=st.sampled_from(["open", "pickle", "copy"]))
    def open_again(self, number: int, how: str) -> None:
        self.blocks[number].close()
        stack = self.frozen[number]
        if stack is not None:
            stack.close()
            self.frozen[number] = None
        old = self.caches[number]
        if how == "open":
            new = CacheDict[Any](self.folder, cache_type=old.cache_type, keep_in_ram=old.keep_in_ram)
        else:
            new = pickle.loads(pickle.dumps(old)) if how == "pickle" else copy.deepcopy(old)
        self.caches[number] = new
        self.seen[number] = defaultdict(lambda: [MISSING])  # it knows nothing yet

    @rule()
    def compact(self) -> None:
        if self.folder.exists():
            compact(self.folder)

    @rule()
    def close_all_and_verify(self) -> None:
        for stack in self.blocks:
            stack.close()
        if self.folder.exists():
            report = verify(self.folder)
            kinds = {problem.kind for problem in report.problems}
            assert kinds <= {"duplicate", "orphaned"}, report.problems
            verify(self.folder, repair=True)
            assert verify(self.folder).is_clean

    @invariant()
    def newcomers_see_the_truth(self) -> None:
        found = dict(CacheDict[Any](self.folder).items())
        assert found.keys() == self.truth.keys()
        assert all(same(found[key], value) for key, value in self.truth.items())


class CacheDictInMemoryMachine(CacheDictMachine):
    """One of the CacheDicts keeps its values in memory, too."""

    keep_in_ram = True


def run(machine: type[CacheDictMachine], part: float) -> None:
    profile = hypothesis.settings.default
    assert profile is not None
    settings = hypothesis.settings(profile, max_examples=max(1, round(profile.max_examples * part)), stateful_step_count=40)
    hypothesis.stateful.run_state_machine_as_test(machine, settings=settings)


def test_cachedicts_are_dictionaries():
    run(CacheDictMachine, 1)


def test_cachedicts_in_memory_are_dictionaries():
    run(CacheDictInMemoryMachine, 0.5)
