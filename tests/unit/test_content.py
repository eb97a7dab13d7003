"""Content keys: the same for the same content, in every process; another for whatever a function could tell apart."""

import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import math
import os
import struct
import subprocess
import sys
import threading
import typing as tp
import uuid
from pathlib import Path, PurePosixPath

import hypothesis
import numpy as np
import pydantic
import pytest
from hypothesis import strategies as st

from exca_like import content
from exca_like.content import digest
from exca_like.content.paths import File, Folder
from exca_like.errors import ContentKeyError


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Left:
    x: tp.Any = 0
    y: tp.Any = 0


@dataclasses.dataclass
class Right:
    x: tp.Any = 0
    y: tp.Any = 0


class Point(tp.NamedTuple):
    x: int
    y: int


class Opaque:
    """All look alike, but for their state."""

    def __init__(self, state: tp.Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return "Opaque()"

    def method(self) -> None: ...


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: tp.Any) -> None:
        self.x = x


class Text(str):
    __slots__ = ()


class Config(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: float = 1.0
    note: str = ""
    _exclude_from_cls_uid = ("note",)


def function() -> None: ...


def other_function() -> None: ...


big = np.arange(300_000, dtype=float)
middle = big.copy()
middle[150_000] += 1  # equal to the other at both ends

DIFFERENT: list[tp.Any] = [
    None, False, True, 0, 1, -1, 10**30, 0.0, -0.0, 1.0, -1.0, 1.5, float("nan"), float("inf"), 1j, complex(0, -0.0), "", "1", "None", "é", "\ud800",
    b"", b"1", bytearray(b"1"), [], [1], [1.0], [True], (1,), ((1,),), [[1], [2]], [[1, 2]], [[], [1, 2]], {}, {"a": 1}, {"a": 1.0}, {"b": 1},
    {"a": 1, "b": 2}, {"b": 2, "a": 1}, {1: "a"}, {"1": "a"}, collections.OrderedDict(a=1), collections.defaultdict(list, a=1), collections.Counter(a=1),
    set(), {1}, {1, 2}, frozenset((1, 2)), {"1", "2"}, range(3), range(0, 3, 2), slice(1), slice(1, None, 2), ..., NotImplemented,
    Color.RED, Color.BLUE, Number.ONE, Left(1, 2), Left(2, 1), Right(1, 2), Left(Left(1), Right(1)), Left(Right(1), Left(1)), Point(1, 2), Point(2, 1),
    (1, 2), [1, 2], Opaque(1), Opaque(1.0), Opaque([1]), Slotted(1), Slotted(2), Text("1"), Config(), Config(x=2), function, other_function, Left, Right,
    int, float, len, print, str.upper, "a".upper, "b".upper, Opaque(1).method, Opaque(2).method, functools.partial(function), functools.partial(function, 1),
    functools.partial(function, x=1), json, os, Path("a"), Path("b"), Path("/a"), uuid.UUID(int=1), uuid.UUID(int=2), decimal.Decimal("1.0"), decimal.Decimal("1.00"),
    datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1), datetime.time(1), datetime.UTC,
    array.array("i", [1]), array.array("d", [1]), list[int], list[str], big, middle, big[:-1], big.astype(np.float32), big.reshape(2, -1), big.reshape(-1, 2),
    np.float64(1), np.float32(1), np.int64(1), np.bool_(True), np.array(1), np.array([1]), np.array([[1]]), np.array([1.0]), np.array(["1"]), np.array([b"1"]),
    np.array([1, "1"], object), np.array([1, 1.0], object), np.zeros(3), -np.zeros(3), np.zeros((3, 0)), np.zeros((0, 3)), np.array([(1, 2)], "i4,i4"), np.array([(1, 2)], "i4,i8"),
    np.array([(1, 2)], [("a", "i4"), ("b", "i4")]), np.ma.array([1, 2], mask=[True, False]), np.ma.array([1, 2], mask=[False, True]), np.array(["2020-01-01"], "M8[D]"),
    np.array(["2020-01-01"], "M8[s]"), np.dtype("i4"), np.dtype("i8"), np.sin, np.cos, np.random.PCG64(1).state, np.random.default_rng(1), np.random.default_rng(2),
]  # fmt: skip


def test_values_that_differ_have_different_keys() -> None:
    found: dict[bytes, tp.Any] = {}
    for value in DIFFERENT:
        key = digest(value)
        assert len(key) == content.DIGEST_SIZE
        assert key not in found, (value, found[key])
        found[key] = value


def equal_values() -> list[tuple[tp.Any, tp.Any]]:
    fortran = np.asfortranarray(np.arange(12).reshape(3, 4))
    padded = np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4], "itemsize": 8}))
    padded.view(np.uint8)[1] = 7  # in the padding
    shared = [1]
    return [
        (float("nan"), -float("nan")),
        (fortran, fortran.copy("C")),
        (np.arange(10)[::2], np.arange(0, 10, 2)),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        (padded, np.zeros(2, padded.dtype)),
        (big, big.copy()),
        (np.array([True, False]), np.array([1, 0]) == 1),
        ({1, 2, 3}, {3, 2, 1}),
        (frozenset("abc"), frozenset("cba")),
        ([shared, shared], [[1], [1]]),
        (Config(x=1), Config()),
        (Config(note="a"), Config(note="b")),
        (Path("a"), PurePosixPath("a")),
        (Opaque({"a": [1]}), Opaque({"a": [1]})),
        (Opaque(1).method, Opaque(1).method),
        (functools.partial(function, 1), functools.partial(function, 1)),
        (np.random.default_rng(3), np.random.default_rng(3)),
    ]


@pytest.mark.parametrize("number", range(len(equal_values())))
def test_values_of_the_same_content_have_one_key(number: int) -> None:
    first, second = equal_values()[number]
    assert digest(first) == digest(second)


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import test_content, exca_like.content as c; "
        "print([c.digest(v).hex() for v in test_content.DIFFERENT] == [])"
        "; print(*[c.digest(v).hex() for v in test_content.DIFFERENT])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().split()[1:] == [digest(value).hex() for value in DIFFERENT]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(scalars.filter(lambda key: key == key), inner, max_size=3)
        | st.builds(Left, inner, inner)
        | st.builds(Opaque, inner)
    ),
    max_leaves=8,
)


def exact(value: tp.Any) -> tp.Any:
    """What tells a value from others, in Python's own terms."""
    if isinstance(value, float):
        return "nan" if value != value else value.hex()
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(item) for item in value]
    if isinstance(value, dict):
        return "dict", [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, Left):
        return "Left", exact(value.x), exact(value.y)
    if isinstance(value, Opaque):
        return "Opaque", exact(value.state)
    return type(value).__name__, value


@hypothesis.settings(max_examples=500, deadline=None, derandomize=True, database=None)
@hypothesis.given(values, values)
def test_keys_are_equal_exactly_for_equal_content(first: tp.Any, second: tp.Any) -> None:
    assert (digest(first) == digest(second)) == (exact(first) == exact(second))


def test_what_was_changed_in_place_has_another_key() -> None:
    data = np.arange(100_000)
    first = digest(data)
    data[50_000] += 1
    changed = digest(data)
    assert changed != first
    assert digest(data.copy()) == changed
    data[50_000] -= 1
    assert digest(data) == first
    view = data[:-1]  # at the same place
    assert digest(view) == digest(view.copy()) != first


def test_copies_of_arrays_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.arrays, "_REMEMBERED", 3_000_000)
    remembered = content.arrays._Remembered()
    monkeypatch.setattr(content.arrays, "_remembered", remembered)
    arrays = [np.full(100_000, number, float) for number in range(10)]
    keys = [digest(data) for data in arrays]
    assert remembered._size == sum(copy.nbytes for copy, _ in remembered._known.values()) <= 3_000_000
    assert [digest(data) for data in arrays] == keys


def test_several_threads_at_once() -> None:
    data = [np.full(20_000, number, float) for number in range(8)]
    expected = [digest(part) for part in data]
    found: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: found.append([digest(part) for part in data * 20])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected * 20] * 8


def cyclic() -> list[tp.Any]:
    value: list[tp.Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: 0, r"<lambda> \(a lambda or a local definition\) has no name"),
        ({"a": [threading.Lock()]}, r"^\['a'\]\[0\]: a value of type _thread.lock can't be told"),
        (Left(x=open(os.devnull)), r"^x: a value of type _io.TextIOWrapper can't"),
        ((number for number in [1]), "generator"),
        (Opaque(lambda: 0), r"\['state'\]: .*<lambda>"),
        (cyclic(), r"contains itself"),
        (type("Local", (), {"__qualname__": "f.<locals>.Local"})(), r"f.<locals>.Local"),
    ],
    ids=["function", "lock", "file", "generator", "state", "cycle", "local"],
)
def test_what_has_no_content_is_refused(value: tp.Any, message: str) -> None:
    with pytest.raises(ContentKeyError, match=message) as caught:
        digest(value)
    assert "exca_like.content.register" in str(caught.value)
    assert isinstance(caught.value, TypeError)


class Reader:
    def __init__(self, path: str) -> None:
        self.path, self.lock = path, threading.Lock()


class SubReader(Reader):
    pass


def test_own_types_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.values, "_keys", {})
    with pytest.raises(ContentKeyError, match=r"\['lock'\]"):
        digest(Reader("a"))
    content.register(Reader, lambda reader: reader.path)
    assert digest(Reader("a")) == digest(Reader("a")) != digest(Reader("b"))
    assert digest(SubReader("a")) != digest(Reader("a"))
    assert digest([Reader("a"), 1]) != digest([Reader("b"), 1])

    @content.register(SubReader)
    def key(reader: SubReader) -> tp.Any:
        return ("sub", reader.path)

    assert key(SubReader("a")) == ("sub", "a")
    assert digest(SubReader("a")) != digest(SubReader("b"))


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    tensors = [
        torch.arange(3), torch.arange(3.0), torch.arange(6).reshape(2, 3), torch.arange(6).reshape(3, 2), torch.zeros(3), -torch.zeros(3),
        torch.zeros(3, dtype=torch.bfloat16), torch.tensor(True), torch.nn.Parameter(torch.zeros(3)), torch.float32, torch.float64, torch.device("cpu"),
    ]  # fmt: skip
    assert len({digest(tensor) for tensor in tensors}) == len(tensors)
    matrix = torch.arange(6).reshape(2, 3)
    assert digest(matrix.t()) == digest(matrix.t().contiguous())
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    same = torch.nn.Linear(2, 2)
    assert digest(layer) != digest(same)
    same.load_state_dict(layer.state_dict())
    assert digest(layer) == digest(same)
    with pytest.raises(ContentKeyError, match="sparse"):
        digest(torch.zeros(3).to_sparse())


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    frames = [
        frame, frame.rename(columns={"a": "c"}), frame[["b", "a"]], frame.set_index([[5, 6]]), frame.astype({"a": float}), frame.astype({"b": "category"}), frame.iloc[::-1],
        frame.iloc[:1], frame.rename_axis("i"), frame.rename_axis(columns="c"), frame.set_index("b"), pd.DataFrame({"a": [1, 2], "b": ["x", None]}), frame["a"], frame["b"],
        frame["a"].rename("b"), frame.index, frame.columns, pd.DataFrame(), pd.DataFrame(index=[1]), pd.DataFrame(columns=["a"]), pd.Series([], dtype=float), pd.NA, pd.NaT,
        pd.Timestamp("2020"), pd.Timestamp("2020", tz="UTC"), pd.date_range("2020", periods=2), pd.date_range("2020", periods=2, tz="UTC"), pd.Series([1, None], dtype="Int64"),
        pd.Series([1, 0], dtype="Int64"), pd.Categorical(["a"]), pd.Categorical(["a"], ["a", "b"]), pd.Categorical(["a"], ["a", "b"], ordered=True),
        pd.MultiIndex.from_tuples([(1, 2)]), pd.MultiIndex.from_tuples([(2, 1)]), pd.interval_range(0, 2), pd.Series(pd.period_range("2020", periods=2, freq="D")),
    ]  # fmt: skip
    found: dict[bytes, int] = {}
    for number, value in enumerate(frames):
        assert found.setdefault(digest(value), number) == number, (value, frames[found[digest(value)]])
        if hasattr(value, "copy"):
            assert digest(value.copy()) == digest(value)


class Quantity(np.ndarray):
    def __array_finalize__(self, obj: tp.Any) -> None:
        self.unit = getattr(obj, "unit", None)


def quantity(unit: str) -> tp.Any:
    data = np.ones(3).view(Quantity)
    data.unit = unit
    return data


@dataclasses.dataclass
class Loose(Left):
    pass


class Derived(Left):
    """A subclass that is no dataclass itself."""


@dataclasses.dataclass
class Items(dict):  # type: ignore[type-arg]
    x: int = 0


@dataclasses.dataclass
class Given:
    x: int
    scale: dataclasses.InitVar[int] = 1

    def __post_init__(self, scale: int) -> None:
        self.factor = scale


class Flags(enum.IntFlag):
    A = 1


class Tags(set):  # type: ignore[type-arg]
    pass


class Looks:
    def __init__(self, x: int) -> None:
        self.x = x

    @functools.cached_property
    def square(self) -> int:
        return self.x**2


def with_attribute(value: tp.Any, number: int) -> tp.Any:
    value.extra = number
    return value


def with_item(value: Items) -> Items:
    value["a"] = 1
    return value


STATES: dict[str, tuple[tp.Any, tp.Any]] = {
    "attribute of an array": (quantity("m"), quantity("s")),
    "attribute of a dataclass": (with_attribute(Left(), 1), with_attribute(Left(), 2)),
    "attribute of a subclass of a dataclass": (with_attribute(Derived(), 1), with_attribute(Derived(), 2)),
    "a dataclass and its subclass": (Left(), Loose()),
    "items of a dataclass": (Items(), with_item(Items())),
    "what was made from an InitVar": (Given(1, 1), Given(1, 2)),
    "flags without a name": (Flags(8), Flags(16)),
    "fill value": (np.ma.array([1], fill_value=1), np.ma.array([1], fill_value=2)),
    "types of types": (np.dtype((np.int32, (2,))), np.dtype("V8")),
}


@pytest.mark.parametrize("name", STATES)
def test_state_beside_the_obvious_counts(name: str) -> None:
    first, second = STATES[name]
    assert digest(first) != digest(second)
    assert digest(first) == digest(first)


def test_what_an_object_remembers_does_not_count() -> None:
    first, second = Looks(2), Looks(2)
    assert first.square == 4
    assert digest(first) == digest(second) != digest(Looks(3))


def test_sets_of_ones_own_have_no_order() -> None:
    code = "import test_content as t, exca_like.content as c; print(c.digest(t.Tags('abcdefgh')).hex())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_patterns_and_other_types_with_a_registered_reducer() -> None:
    import re

    assert digest(re.compile("a")) == digest(re.compile("a")) != digest(re.compile("a", re.IGNORECASE))


def test_a_fork_beside_a_thread_that_digests() -> None:
    with content.arrays._remembered._lock:
        pid = os.fork()
        if not pid:
            digest(np.arange(100_000))
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_frames_of_others_and_times() -> None:
    pd = pytest.importorskip("pandas")

    class GeoFrame(pd.DataFrame):
        _metadata: tp.ClassVar[list[str]] = ["crs"]

        @property
        def _constructor(self) -> tp.Any:
            return GeoFrame

    GeoFrame.__qualname__ = "GeoFrame"
    globals()["GeoFrame"] = GeoFrame
    first, second = GeoFrame({"a": [1]}), GeoFrame({"a": [1]})
    first.crs, second.crs = "EPSG:4326", "EPSG:3857"
    assert digest(first) != digest(second)
    times = pd.date_range("2020", periods=20_000, freq="h", tz="Europe/Paris")
    assert digest(times) == digest(times.copy()) != digest(times.tz_convert("UTC"))
    periods = pd.period_range("2020", periods=10, freq="D")
    assert digest(periods) == digest(periods.copy()) != digest(pd.period_range("2020", periods=10, freq="h"))


def test_files_and_folders_by_content(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("a")
    second.write_text("a")
    assert digest(File(first)) == digest(File(second)) != digest(first)
    assert digest(first) != digest(second)
    second.write_text("b")
    assert digest(File(first)) != digest(File(second))
    os.utime(first, (1, 1))
    known = digest(File(first))
    assert digest(File(first)) == known
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "x").write_text("a")
    before = digest(Folder(folder))
    assert before != digest(File(first))
    (folder / "inner" / "x").rename(folder / "inner" / "y")
    assert digest(Folder(folder)) != before
    assert File(first).read_text() == "a"
    assert isinstance(File(first) / "x", Path)
    for wrong in (File(tmp_path / "nothing"), Folder(first)):
        with pytest.raises(FileNotFoundError, match="which is to count by its"):
            digest(wrong)


def test_long_lists_of_numbers_are_told_apart_item_by_item() -> None:
    numbers = list(range(100))
    floats = [float(number) for number in numbers]
    lists: list[tp.Any] = [
        numbers,
        floats,
        tuple(floats),
        numbers[:-1],
        floats[::-1],
        [*numbers[:-1], 2**63 - 1],
        [*numbers[:-1], 2**63],
        [*numbers[:-1], -(2**63)],
        [True, *numbers[1:]],
        [*floats[:-1], 99],
        [-0.0, *floats[1:]],
        [np.float64(0), *floats[1:]],
        [*floats[:-1], math.inf],
        [*floats[:-1], math.nan],
        [*floats[:-1], "nan"],
        np.array(floats),
        np.array(floats).tobytes(),
    ]
    digests = [digest(each) for each in lists]
    assert len(set(digests)) == len(digests)
    assert digests == [digest(copy.deepcopy(each)) for each in lists]
    nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000001))[0]
    assert digest([*floats[:-1], nan]) == digest([*floats[:-1], math.nan])
    assert digest({"a": numbers, "b": 1}) != digest({"a": numbers[:-1], "b": 1})
