"""MapInfra: what is refused, how items are recognized, and what iterators may be used for."""

import contextlib
import gc
import itertools
import os
import pickle
import threading
import time
import typing as tp
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cloudpickle
import numpy as np
import orjson
import pydantic
import pytest
from contracts.maps import Features, Maps, once

import exca_like
from exca_like import errors
from exca_like.cachedict.claims import Claim
from exca_like.infra.items import shortened


class Made(pydantic.BaseModel):
    """Does with its items what it was told."""

    _how: tp.Any = None
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def compute(self, items: Sequence[tp.Any]) -> tp.Any:
        return self._how(items)


def made(folder: Path | None, how: Callable[[Sequence[tp.Any]], tp.Any], **infra: tp.Any) -> Made:
    model = Made(infra={"folder": folder, **infra})
    model._how = how
    return model


def doubled(items: Sequence[tp.Any]) -> Iterator[tp.Any]:
    return (2 * item for item in items)


@pytest.fixture(params=["folder", "memory"])
def folder(request, tmp_path: Path) -> Path | None:
    return tmp_path / "cache" if request.param == "folder" else None


def within(seconds: float, function: Callable[[], tp.Any]) -> tp.Any:
    """What a function returns or raises in another thread; an error if it takes longer."""
    found: list[tp.Any] = []

    def run() -> None:
        try:
            found.append((function(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    value, error = found[0]
    if error is not None:
        raise error
    return value


# declarations


def test_item_uid_is_needed():
    infra = exca_like.MapInfra()
    for apply in (
        lambda: infra.apply(lambda self, items: items),
        lambda: infra.apply(),
        lambda: infra.apply(item_uid=None),
        lambda: infra.apply(item_uid="name"),
    ):
        with pytest.raises(TypeError, match=r"item_uid=str"):
            apply()


def not_annotated(self, items): ...
def with_two(self, items: list[str], more: int): ...
def with_none(self): ...
def with_many(self, *items: list[str]): ...
def with_one(self, item: str): ...
def with_dict(self, items: dict[str, str]): ...
async def asynchronous(self, items: list[str]): ...


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (not_annotated, "'items' is not annotated.*`items: list"),
        (with_two, r"with_two takes \(items: list\[str\], more: int\)"),
        (with_none, r"with_none takes \(\)"),
        (with_many, "with_many takes"),
        (with_one, "'item' is annotated as str"),
        (with_dict, "'items' is annotated as dict"),
        (asynchronous, "plain methods"),
        (staticmethod(with_one), "plain methods"),
        (classmethod(with_one), "plain methods"),
    ],
)
def test_methods_that_take_no_items_are_refused(method, text):
    with pytest.raises(TypeError, match=text):
        exca_like.MapInfra().apply(item_uid=str)(method)


@pytest.mark.parametrize(
    "annotation",
    [
        list[int],
        tuple[int, ...],
        Sequence[int],
        Iterable[int],
        tp.List[int],  # noqa: UP006
        tp.Tuple[int, ...],  # noqa: UP006
        tp.Sequence[int],
        tp.Iterable[int],
        list,
        "list[int]",
        "tp.Sequence[int]",
        "collections.abc.Iterable[int]",
    ],
)
def test_annotations(annotation):
    def method(self, items):
        return [(type(items), item) for item in items]

    method.__annotations__["items"] = annotation

    class Model(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()
        compute = infra.apply(item_uid=str)(method)

    kind = tuple if "uple" in str(annotation) else list
    assert list(Model().compute([1, 2])) == [(kind, 1), (kind, 2)]


def test_settings_of_apply_are_checked():
    infra = exca_like.MapInfra()
    with pytest.raises(ValueError, match="NoSuchType"):
        infra.apply(item_uid=str, cache_type="NoSuchType")
    with pytest.raises(ValueError, match="item_uid_max_length=5"):
        infra.apply(item_uid=str, item_uid_max_length=5)
    with pytest.raises(TypeError, match="exclude_from_cache_uid"):
        infra.apply(item_uid=str, exclude_from_cache_uid="name")
    for name, value in (("max_jobs", 0), ("min_samples_per_job", 0), ("mode", "never"), ("cluster", "cloud"), ("unknown", 1)):
        with pytest.raises(ValueError, match=name):
            exca_like.MapInfra(**{name: value})


def test_defaults():
    infra = exca_like.MapInfra()
    assert (infra.max_jobs, infra.min_samples_per_job, infra.keep_in_ram, infra.forbid_single_item_computation) == (
        128,
        1,
        True,
        False,
    )


def test_an_infra_is_applied_once():
    with pytest.raises(RuntimeError, match="already applied"):

        class Twice(pydantic.BaseModel):
            infra: exca_like.MapInfra = exca_like.MapInfra()

            @infra.apply(item_uid=str)
            def first(self, items: list[int]) -> list[int]:
                return items

            @infra.apply(item_uid=str)
            def second(self, items: list[int]) -> list[int]:
                return items


# calls


def test_arguments(folder):
    model = made(folder, doubled)
    assert list(model.compute(items=[1, 2])) == [2, 4]
    with pytest.raises(NameError, match="'items', not as 'things'"):
        model.compute(things=[1])
    for arguments in (((), {}), (([1], [2]), {}), (([1],), {"items": [1]}), (([1],), {"more": 1})):
        with pytest.raises(ValueError, match="only argument"):
            model.compute(*arguments[0], **arguments[1])


@pytest.mark.parametrize("items", [5, None, "text", b"bytes", object()])
def test_what_is_no_list_of_items(folder, items):
    with pytest.raises(TypeError, match="takes a list of items"):
        made(folder, doubled).compute(items)
    assert folder is None or not folder.exists()


def test_results_may_come_as_any_iterable(folder):
    for number, how in enumerate((list, tuple, iter, np.array, doubled, lambda items: dict.fromkeys(items).keys())):
        model = made(None if folder is None else folder / str(number), how)
        expected = [2, 4, 6] if how is doubled else [1, 2, 3]
        assert list(model.compute([1, 2, 3])) == expected


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool"])
@pytest.mark.parametrize(
    ("how", "text", "kept"),
    [
        (lambda items: (item for item in items[:-1]), "none for '3'", ["1", "2"]),
        (lambda items: itertools.chain(items, items), "gave more than 3.*'3'", ["1", "2", "3"]),
        (lambda items: items[1:], r"returned 2 result\(s\) for 3 item\(s\), from '1' to '3'", []),
        (lambda items: None, "returned None.*'1'.*use `yield`", []),
    ],
)
def test_methods_that_give_a_wrong_number(folder, cluster, how, text, kept):
    model = made(folder, how, cluster=cluster, max_jobs=1)
    with pytest.raises(RuntimeError, match=text):
        list(model.compute([1, 2, 3]))
    assert sorted(model.infra.cache_dict) == kept
    assert list(made(folder, doubled).compute([3])) == ([3] if "3" in kept and folder else [6])


def test_items_that_are_told_apart_by_nothing(folder):
    class Model(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=lambda item: item.lower())
        def compute(self, items: list[str]) -> Iterator[str]:
            yield from items

    model = Model(infra={"folder": folder})
    for items in (["a", "b", "A"], iter(["a", "b", "A"])):
        with pytest.raises(ValueError, match="'a' for two different items, 'a' and 'A'"):
            model.compute(items)
    assert folder is None or not folder.exists()
    assert list(model.compute(["a", "b", "a"])) == ["a", "b", "a"]


def test_items_that_can_not_be_compared():
    class Model(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=lambda item: str(item.sum()))
        def compute(self, items: list[np.ndarray]) -> Iterator[float]:
            return (item.sum() for item in items)

    assert list(Model().compute([np.arange(3), np.arange(3), np.ones(4)])) == [3, 3, 4]
    with pytest.raises(ValueError, match="two different items"):
        Model().compute([np.array([3, 0]), np.array([0, 3])])


class Uids(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=lambda item: item["uid"])
    def compute(self, items: list[dict[str, tp.Any]]) -> Iterator[int]:
        return (len(item) for item in items)


@pytest.mark.parametrize("uid", [5, None, b"a", ("a",)])
def test_uids_are_strings(folder, uid):
    with pytest.raises(TypeError, match=r"must return a string, not .* for the item \{'uid'"):
        Uids(infra={"folder": folder}).compute([{"uid": "a"}, {"uid": uid}])


def test_uids_that_fail(folder):
    model = Uids(infra={"folder": folder})
    with pytest.raises(RuntimeError, match=r"failed for the item \{'name': 3\}: KeyError: 'uid'") as info:
        model.compute([{"uid": "a"}, {"name": 3}])
    assert isinstance(info.value.__cause__, KeyError)
    assert folder is None or not folder.exists()


def test_odd_uids(folder):
    class Text(str):
        __slots__ = ()

    uids = ["", " ", ".", "..", "a/b", "a\nb", "é", "\0", "#key", Text("text"), '"']
    model = Uids(infra={"folder": folder})
    assert list(model.compute([{"uid": uid} for uid in uids])) == [1] * len(uids)
    assert sorted(model.infra.cache_dict) == sorted(uids)
    assert all(type(key) is str for key in model.infra.cache_dict)
    if folder is not None:
        assert list(Uids(infra={"folder": folder, "mode": "read-only"}).compute([{"uid": uid} for uid in uids])) == [1] * len(
            uids
        )


# item keys


@pytest.mark.parametrize("length", [20, 64, 256])
def test_long_uids_are_shortened(length):
    for uid in ("x" * length, "", "short"):
        assert shortened(uid, length) == uid
    long = [f"{'start of a long one ' * 30}{number}" for number in range(1000)]
    keys = [shortened(uid, length) for uid in long]
    assert len(set(keys)) == 1000
    assert {len(key) for key in keys} == {length}
    assert [shortened(key, length) for key in keys] == keys
    digests = {key[-16:] for key in keys}
    assert len(digests) == 1000
    assert all(set(digest) <= set("0123456789abcdef") for digest in digests)  # 64 bits
    assert all(long[0].startswith(key[:-19]) for key in keys)
    assert shortened("é" * 300 + "\ud800", length)[:1] == ("é" if length > 19 else "")
    assert shortened("x" * 1000, None) == "x" * 1000


def test_item_uid_is_what_the_store_knows(folder):
    class Model(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=lambda item: item * 10, item_uid_max_length=30)
        def compute(self, items: list[str]) -> Iterator[str]:
            yield from items

    model = Model(infra={"folder": folder})
    items = ["a", "long", "longer"]
    assert list(model.compute(items)) == items
    keys = [model.infra.item_uid(item) for item in items]
    assert keys[0] == "a" * 10
    assert keys[1][:9] == "longlongl"
    assert list(map(len, keys)) == [10, 30, 30]
    assert [model.infra.cache_dict[key] for key in keys] == items


# the store


def test_cache_dict(tmp_path):
    model = made(tmp_path, doubled)
    assert len(model.infra.cache_dict) == 0
    list(model.compute([1, 2]))
    assert dict(model.infra.cache_dict.items()) == {"1": 2, "2": 4}
    assert model.infra.cache_dict.folder == model.infra.uid_folder()
    with model.infra.cache_dict.write():
        del model.infra.cache_dict["1"]
    assert list(made(tmp_path, lambda items: [7 for _ in items]).compute([1, 2])) == [7, 4]
    assert {path.name for path in model.infra.uid_folder().iterdir()} >= {"config.yaml", "uid.yaml", "full-uid.yaml"}


def test_entries_that_are_deleted_meanwhile(folder):
    """They are computed again, while the iterator runs, if the items are a list."""
    model = made(folder, doubled)
    list(model.compute([1, 2, 3]))
    found = model.compute([1, 2, 3])
    assert next(found) == 2
    cache = model.infra.cache_dict
    with cache.write():
        del cache["3"]
    assert list(found) == [4, 6]
    assert sorted(cache) == ["1", "2", "3"]
    found = model.compute(item for item in (1, 2, 3))
    with cache.write():
        del cache["3"]
    with pytest.raises(errors.LostOutcomeError, match="'3'.*call the method again"):
        list(found)
    assert list(model.compute([1, 2, 3])) == [2, 4, 6]


def test_entries_that_are_deleted_while_items_are_named(tmp_path):
    """By the generator itself, or by anybody else at that time."""
    list(made(tmp_path, doubled).compute([1]))
    cache = made(tmp_path, doubled).infra.cache_dict

    def items() -> Iterator[int]:
        yield 1
        with cache.write():
            del cache["1"]
        yield 2

    model = made(tmp_path, doubled)
    try:
        assert list(model.compute(items())) == [2, 4]
    except errors.LostOutcomeError as error:
        assert "call the method again" in str(error)
    assert list(model.compute([1, 2])) == [2, 4]


def test_corrupt_entries_are_computed_again(tmp_path):
    def arrays(items: Sequence[int]) -> Iterator[np.ndarray]:
        return (np.full(100_000, item) for item in items)

    list(made(tmp_path, arrays).compute([1, 2, 3]))
    (data,) = [path for path in made(tmp_path, arrays).infra.uid_folder().rglob("data/*") if path.is_file()]
    with data.open("r+b") as stream:
        stream.seek(data.stat().st_size // 2)  # in the middle of the second one
        stream.write(b"\xff")
    calls = []

    def again(items: Sequence[int]) -> Iterator[np.ndarray]:
        calls.append(list(items))
        return arrays(items)

    with pytest.warns(errors.CorruptEntryWarning, match="'2'"):
        values = [array[0] for array in made(tmp_path, again).compute([1, 2, 3])]
    assert values == [1, 2, 3]
    assert calls == [[2]]
    assert [array[50_000] for array in made(tmp_path, again, mode="read-only").compute([1, 2, 3])] == [1, 2, 3]


def test_cache_type(tmp_path):
    class Model(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=str, cache_type="NumpyArray")
        def compute(self, items: list[int]) -> Iterator[np.ndarray]:
            return (np.full(3, item) for item in items)

    for _ in range(2):
        model = Model(infra={"folder": tmp_path})
        assert [array.tolist() for array in model.compute([1, 2])] == [[1, 1, 1], [2, 2, 2]]
    assert len(list(model.infra.uid_folder().rglob("*.npy"))) == 2
    assert model.infra.cache_dict.cache_type == "NumpyArray"


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local"])
def test_results_that_can_not_be_stored_fail_for_their_item(tmp_path, cluster):
    def how(items: Sequence[int]) -> Iterator[tp.Any]:
        return (item if item != 2 else threading.Lock() for item in items)

    model = made(tmp_path, how, cluster=cluster, max_jobs=1)
    with pytest.raises(TypeError, match="(?s)1 of 3 items.*can't be stored.*'2'") as info:
        list(model.compute([1, 2, 3]))
    assert isinstance(info.value, errors.ItemsFailedError)
    assert sorted(model.infra.cache_dict) == ["1", "3"]
    assert list(made(tmp_path, doubled).compute([1, 2, 3])) == [1, 4, 3]


def test_results_are_kept_in_memory_or_not(tmp_path):
    def values(items: Sequence[int]) -> Iterator[list[int]]:
        return ([item] for item in items)

    kept, loaded = made(tmp_path, values), made(tmp_path, values, keep_in_ram=False)
    assert next(kept.compute([1])) is next(kept.compute([1]))
    assert next(loaded.compute([1])) is not next(loaded.compute([1]))
    assert len(pickle.dumps(kept.infra)) < 2000


def test_none_is_a_result(folder):
    calls = []

    def how(items: Sequence[int]) -> list[None]:
        calls.append(items)
        return [None] * len(items)

    model = made(folder, how)
    for _ in range(2):
        assert list(model.compute([1, 2])) == [None, None]
    assert len(calls) == 1


# errors


class NeedsThree(Exception):
    def __new__(cls, first: int, second: int, third: int) -> tp.Self:
        return super().__new__(cls, first, second, third)


class HasMessage(Exception):
    """As some libraries' errors have."""

    @property
    def message(self) -> str:
        return "of its own"

    @property
    def failures(self) -> int:
        return 5


class NoChildren(Exception):
    def __init_subclass__(cls, **_: tp.Any) -> None:
        raise TypeError("it is final")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("at an item"),
        StopIteration("at an item"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "at an item"),
        OSError(2, "at an item"),
        ExceptionGroup("at an item", [ValueError()]),
        NeedsThree(1, 2, 3),
        HasMessage("at an item"),
        NoChildren("at an item"),
        errors.ItemsFailedError("at an item", {}),
        AssertionError(),
        SystemExit(3),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("cluster", [None, "threadpool"])
def test_errors_of_any_type_are_told(folder, error, cluster):
    def how(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise error
        return list(items)

    model = made(folder, how, cluster=cluster)
    with pytest.raises(errors.ItemsFailedError, match=f"1 of 3 items.*\n.*{type(error).__name__}") as info:
        list(model.compute([1, 2, 3]))
    assert list(info.value.failures) == ["2"]
    assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)
    if type(error) in (KeyError, OSError, UnicodeDecodeError, AssertionError, MemoryError):
        assert isinstance(info.value, type(error))
    assert sorted(model.infra.cache_dict) == ["1", "3"]


def test_errors_are_told_in_short(tmp_path):
    def how(items: Sequence[int]) -> list[int]:
        raise ValueError(f"{items[0]} " + "long " * 1000)

    with pytest.raises(ValueError, match="300 of 300 items") as info:
        list(made(tmp_path, how).compute(range(300)))
    assert len(str(info.value)) < 5000
    assert len(info.value.failures) == 300


def test_interruptions_keep_what_is_finished(tmp_path):
    def how(items: Sequence[int]) -> Iterator[int]:
        yield from items[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(made(tmp_path, how).compute([1, 2, 3]))
    assert not list(tmp_path.rglob("*.claim"))
    calls = []

    def again(items: Sequence[int]) -> list[int]:
        calls.append(items)
        return list(items)

    assert list(made(tmp_path, again).compute([1, 2, 3])) == [1, 2, 3]
    assert calls == [[3]]


# classes


class Parent(pydantic.BaseModel):
    size: int = 1
    infra: exca_like.MapInfra = exca_like.MapInfra(version="1")

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Iterator[int]:
        return (self.size * item for item in items)


class Child(Parent):
    pass


class Overridden(Parent):
    def compute(self, items: list[int]) -> Iterator[int]:
        return (-value for value in super().compute(items))


class Applied(Parent):
    infra: exca_like.MapInfra = exca_like.MapInfra(version="2")

    @infra.apply(item_uid=lambda item: f"item-{item}")
    def compute(self, items: list[int]) -> Iterator[int]:
        return (100 + value for value in super().compute(items))


def test_subclasses(tmp_path):
    infra = {"folder": tmp_path}
    assert list(Parent(infra=infra).compute([1, 2])) == [1, 2]
    assert list(Child(infra=infra).compute([1, 2])) == [1, 2]
    assert list(Overridden(infra=infra).compute([1, 2])) == [-1, -2]
    assert list(Applied(infra=infra).compute([1, 2])) == [101, 102]
    folders = {path.name.split(".", 1)[1]: path for path in tmp_path.glob("*,*")}
    assert sorted(name.rpartition("test_map.")[2] for name in folders) == [
        "Applied.compute,2",
        "Child.compute,1",
        "Parent.compute,1",
    ]
    assert sorted(Applied(infra=infra).infra.cache_dict) == ["item-1", "item-2"]


def test_clones(tmp_path):
    model = Parent(infra={"folder": tmp_path, "max_jobs": 3})
    list(model.compute([1]))
    with pytest.raises(RuntimeError, match="clone_obj"):
        model.size = 3
    clone = model.infra.clone_obj(size=3)
    assert list(clone.compute([1, 2])) == [3, 6]
    assert clone.infra.max_jobs == 3
    assert list(model.compute([1, 2])) == [1, 2]
    forced = model.infra.clone_obj({"infra.mode": "force"})
    assert forced.infra.uid() == model.infra.uid()
    assert list(forced.compute([1])) == [1]
    assert forced.infra.clone_obj().infra.mode == "force"


def test_configs_are_pickled_without_what_they_know(tmp_path):
    for how in (pickle, cloudpickle):
        model = Parent(size=2, infra={"folder": tmp_path})
        found = model.compute([1, 2])
        next(found)
        data = how.dumps(model)
        other = pickle.loads(data)
        assert other.infra.uid() == model.infra.uid()
        assert list(other.compute([1, 2])) == [2, 4]
        assert list(found) == [4]
        list(model.compute(range(1000)))
        assert len(how.dumps(model)) < len(data) + 500


def test_uids(tmp_path):
    class Model(pydantic.BaseModel):
        size: int = 1
        speed: int = 1
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=str, exclude_from_cache_uid=("speed",))
        def compute(self, items: list[int]) -> list[int]:
            return items

    uids = {Model(size=2, speed=speed, infra={"max_jobs": speed, "folder": tmp_path}).infra.uid() for speed in (1, 2)}
    assert len(uids) == 1
    assert uids.pop().endswith("Model.compute,0/size=2-c81e728d")
    assert Model(infra={"cluster": "threadpool"}).infra.executor() is None


# iterators


@pytest.fixture(params=["folder", "memory"])
def maps(request, tmp_path: Path) -> Maps:
    return Maps(None, tmp_path, **({} if request.param == "folder" else {"folder": None}))


@pytest.fixture
def model(request, tmp_path: Path, folder: Path | None) -> Features:
    maps = Maps(None, tmp_path)
    return maps.model(infra={"folder": folder})


def counted(model: Features) -> tp.Any:
    return Maps(None, Path(model.notes).parent).computed


def test_calls_compute_nothing_before_they_are_iterated(model):
    found = model.compute(range(3))
    assert not counted(model)
    assert next(found) == model.result(0)
    assert counted(model) == once([0])


def test_iterators_that_are_given_up_block_nobody(model):
    """In the same thread, or in another one; while they are there, or when they are gone."""
    first = model.compute(range(6))
    assert next(first) == model.result(0)
    second = model.compute(range(1, 6))
    assert within(10, lambda: next(second)) == model.result(1)
    assert list(model.compute(range(4))) == model.results(range(4))
    assert within(10, lambda: list(model.compute(range(6)))) == model.results(range(6))
    assert list(first) == model.results(range(1, 6))
    assert list(second) == model.results(range(2, 6))
    third = model.compute(range(6, 9))
    next(third)
    del third
    gc.collect()
    assert within(10, lambda: list(model.compute(range(9)))) == model.results(range(9))
    assert counted(model) == once(range(9))


def test_iterators_by_turns_in_opposite_order(model):
    def by_turns() -> list[tp.Any]:
        return list(zip(model.compute(range(10)), model.compute(range(9, -1, -1)), strict=True))

    expected = model.results(range(10))
    assert within(20, by_turns) == list(zip(expected, expected[::-1], strict=True))
    assert counted(model) == once(range(10))


@pytest.mark.parametrize("cluster", ["threadpool", "processpool"])
def test_iterators_of_pools_by_turns(tmp_path, cluster):
    model = Maps(cluster, tmp_path).model()

    def by_turns() -> list[tp.Any]:
        return list(zip(model.compute(range(10)), model.compute(range(9, -1, -1)), strict=True))

    expected = model.results(range(10))
    assert within(20, by_turns) == list(zip(expected, expected[::-1], strict=True))
    assert counted(model) == once(range(10))


def test_threads_share_an_iterators_work(model):
    """Threads wait for what one of them computes, which all of them go on with."""
    found: list[tp.Any] = []
    slow = model.infra.clone_obj(pause=0.002)

    def run(number: int) -> None:
        items = list(range(number, number + 30))
        found.append(list(slow.compute(items)) == slow.results(items))

    threads = [threading.Thread(target=run, args=(10 * number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [True] * 5
    assert counted(model) == once(range(70))


class Nested(pydantic.BaseModel):
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("asks", "is_other")
    size: int = 1
    asks: int = 0
    is_other: bool = False
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Iterator[int]:
        for item in items:
            if item == 1:
                model = self.infra.clone_obj(size=2) if self.is_other else self
                yield 10 + next(model.compute([self.asks]))
            else:
                yield item


@pytest.mark.parametrize("cluster", [None, "debug", "threadpool", "processpool", "local"])
def test_an_item_that_needs_one_computed_with_it_is_an_error(tmp_path, cluster):
    """It would wait for itself, or for one that comes after it."""
    pid = os.fork()  # what hangs must not outlive the test
    if not pid:
        status = 1
        try:
            for asks in (1, 2):
                folder = tmp_path / str(asks)
                model = Nested(asks=asks, infra={"folder": folder, "cluster": cluster, "max_jobs": 1})
                with pytest.raises(RuntimeError, match="needs the result of one that is computed together with it"):
                    list(model.compute([0, 1, 2]))
                assert sorted(model.infra.cache_dict) == ["0", "2"]
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + 15
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            for claim in tmp_path.rglob("*.claim"):  # jobs that hang would keep others from starting
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orjson.loads(claim.read_bytes()[:1024])["pid"], 9)
            pytest.fail("it hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool"])
def test_an_item_may_need_items_of_another_config(tmp_path, cluster):
    model = Nested(asks=0, is_other=True, infra={"folder": tmp_path, "cluster": cluster})
    assert within(20, lambda: list(model.compute([0, 1, 2]))) == [0, 10, 2]


def test_an_item_may_need_one_that_is_finished(tmp_path):
    for cluster in (None, "threadpool"):
        model = Nested(asks=0, infra={"folder": tmp_path / str(cluster), "cluster": cluster, "max_jobs": 1})
        assert within(20, lambda model=model: list(model.compute([0, 1, 2]))) == [0, 10, 2]


def test_iterators_may_be_used_by_threads_in_turn(model):
    found = model.compute(range(4))
    values = [within(10, lambda: next(found)) for _ in range(4)]
    assert values == model.results(range(4))


def test_many_items_in_pieces(model):
    """An iterator holds what it needs, also when it is consumed slowly beside others."""
    first, second = model.compute(range(100)), model.compute(range(50, 150))
    got = list(itertools.islice(first, 60))
    assert list(second) == model.results(range(50, 150))
    assert got + list(first) == model.results(range(100))
    assert counted(model) == once(range(150))


def test_iterators_that_are_closed_while_another_thread_helps(tmp_path):
    """The helper, which nobody may go on after, releases what was claimed."""
    computes, goes_on = threading.Event(), threading.Event()

    def how(items: Sequence[int]) -> Iterator[int]:
        for item in items:
            if item == 1:
                computes.set()
                assert goes_on.wait(30)
            yield 2 * item

    results = made(tmp_path, how).compute(range(10))
    assert next(results) == 0
    helper = threading.Thread(target=lambda: list(made(tmp_path, how).compute([1])))
    helper.start()
    assert computes.wait(30)
    results.close()
    goes_on.set()
    helper.join()
    assert not list(tmp_path.rglob("*.claim"))
    assert list(made(tmp_path, doubled).compute(range(10))) == [2 * item for item in range(10)]


def test_interruptions_of_the_end_leave_no_claim(tmp_path, monkeypatch):
    results = made(tmp_path, doubled).compute(range(4))
    next(results)
    close, interrupted = Claim.close, []

    def interrupts(claim: Claim) -> None:
        if not interrupted:
            interrupted.append(claim)
            raise KeyboardInterrupt
        close(claim)

    monkeypatch.setattr(Claim, "close", interrupts)
    with pytest.raises(KeyboardInterrupt):
        results.close()
    assert not list(tmp_path.rglob("*.claim"))


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool"])
@pytest.mark.parametrize("number", [1, 2, 15])
def test_methods_that_raise_after_their_last_result(folder, cluster, number):
    def how(items: Sequence[int]) -> Iterator[int]:
        yield from items
        raise ZeroDivisionError("while it cleans up")

    model = made(folder, how, cluster=cluster, max_jobs=1)
    with pytest.raises(ZeroDivisionError, match="cleans up"):
        list(model.compute(range(number)))
    assert sorted(model.infra.cache_dict) == sorted(map(str, range(number)))


def test_releases_that_can_not_be_written(tmp_path, monkeypatch):
    def fails(*_: object) -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Claim, "_write_at", fails)
    assert list(made(tmp_path, doubled).compute(range(5))) == [0, 2, 4, 6, 8]
    assert not list(tmp_path.rglob("*.claim"))


def test_values_that_others_stored_meanwhile_stay(tmp_path):
    model = made(tmp_path, doubled)

    def how(items: Sequence[int]) -> Iterator[int]:
        for item in items:
            with model.infra.cache_dict.write() as cache:  # as on a file system without locks
                cache[str(item)] = 2 * item
            yield 2 * item

    model._how = how
    assert list(model.compute([1, 2])) == [2, 4]
    assert list(made(tmp_path, doubled).compute([1, 2])) == [2, 4]


def test_names_of_undecodable_files_are_items(folder):
    def sized(items: Sequence[str]) -> Iterator[int]:
        for item in items:
            if item.startswith("bad"):
                raise ValueError(item)
            yield len(item)

    names = ["a", "caf\udcff", "caf\\udcff", "é"]
    model = made(folder, sized)
    assert list(model.compute(names)) == [len(name) for name in names] == list(model.compute(names))
    with pytest.raises((ValueError, errors.ItemsFailedError), match="bad"):
        list(model.compute(["bad\udcff", "b"]))
    assert list(model.compute(["b"])) == [1]
