"""Canonical bytes: equal for equal values, different for all others, the same in every process."""

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import math
import pathlib
import re
import types
import typing as tp
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

from exca_like import canonical
from exca_like.errors import ConfigTypeError


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias
    BLUE = 2


class Other(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Text(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: tp.Any = 0
    y: tp.Any = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: tp.Any = 0
    y: tp.Any = 0


class Base:
    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def static():
        return 1

    def method(self):
        return 1


class Child(Base):
    pass


class Pair(tp.NamedTuple):
    a: int
    b: int


def function():
    return 1


def local_class():
    class Local:
        pass

    return Local


REPEATED = np.lib.stride_tricks.as_strided(np.array([7]), (3,), (0,))


@pytest.mark.parametrize(
    "values",
    [
        ([1, 2], (1, 2), Pair(1, 2), [1.0, np.int8(2)]),
        (
            {"a": 1, "b": 2},
            {"b": 2, "a": 1},
            types.MappingProxyType({"a": 1, "b": 2}),
            Counter(b=2, a=1),
            defaultdict(int, a=1, b=2),
        ),
        ({1: "a", 2: "b"}, {2: "b", 1: "a"}),
        ({"a", "b"}, frozenset({"b", "a"})),
        (Color.RED, Color.CRIMSON),
        (decimal.Decimal("1e2"), decimal.Decimal(100), decimal.Decimal("100.00")),
        (1, 1.0, np.float16(1), np.uint64(1)),
        (datetime.time(1), datetime.time(1, 0, 0)),
        (np.arange(4), np.arange(8)[::2] // 2, np.arange(4)[::-1][::-1], np.array([0, 1, 2, 3])),
        (np.full(3, 7), REPEATED),
        (np.array(["a", "b"], object), np.array(["a", "b"], object)),
    ],
)
def test_equal_values_have_equal_bytes(values):
    assert len({canonical.encode(value) for value in values}) == 1


@pytest.mark.parametrize(
    "values",
    [
        (Color.RED, Color.BLUE, Other.RED, 1, "RED", Text.RED, "red", Access.READ, Access.READ | Access.WRITE, Access(0)),
        (Point(), Point(1), Point(0, 1), Point(y=Point()), Frozen(), {"x": 0, "y": 0}, Point),
        (Base, Child, Base.make, Child.make, Base.static, function, "Base"),
        (len, print, math.sqrt, np.sqrt, np.mean, np.linalg.norm, abs, int, float),
        (functools.partial(function), functools.partial(function, 1), functools.partial(function, a=1), functools.partial(len), function),
        (range(3), range(1, 3), range(0, 3, 2), [0, 1, 2]),
        (re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a"), "a"),
        (uuid.UUID(int=1), uuid.UUID(int=2), str(uuid.UUID(int=1))),
        (fractions.Fraction(1, 3), fractions.Fraction(2, 3), 1 / 3, "1/3"),
        (1j, 1 + 1j, 1, -1j),
        (b"", b"a", b"\x00", b"\x00\x00", "a"),
        (decimal.Decimal(1), decimal.Decimal("1.1"), decimal.Decimal(10), decimal.Decimal(-1), decimal.Decimal(0), decimal.Decimal("inf"), decimal.Decimal("-inf")),
        (
            datetime.datetime(2020, 1, 1),
            datetime.datetime(2020, 1, 1, microsecond=1),
            datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Etc/GMT-1")),
            datetime.date(2020, 1, 1),
            "2020-01-01T00:00:00",
        ),
        (datetime.timedelta(0), datetime.timedelta(1), datetime.timedelta(microseconds=1), datetime.timedelta(-1)),
        ({1: "a"}, {"1": "a"}, {True: "a"}, {None: "a"}, {(1,): "a"}, OrderedDict({1: "a"})),
        ([], [[]], [[], []], [[[]]], {}, set(), [set()], [{}]),
        (["ab", "c"], ["a", "bc"], ["abc"], ["a", "b", "c"], [["ab"], "c"]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": {"b": 2}}, {"ab": 12}),
        (np.array(1), np.array([1]), np.array([[1]]), np.array([1], np.int32), np.array([1.0]), np.array([True]), np.array([1], object), np.array(["1"])),
        (np.array(["a", ""]), np.array(["", "a"]), np.array([b"a", b""]), np.array(["a", ""], "U2"), np.array(["a", ""], object)),
        (np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-01"], "M8[s]"), np.array(["2020-01-02"], "M8[D]"), np.array([18262], "m8[D]"), np.array([18262])),
        (np.zeros(1, [("a", "i4"), ("b", "i4")]), np.zeros(1, [("a", "i4")]), np.zeros(1, [("c", "i4"), ("b", "i4")]), np.zeros(1, [("a", "i8")]), np.zeros(1, "V8")),
        (np.array([0.0]), np.array([-0.0]), np.array([math.nan]), np.array([math.inf])),
        (np.array([1, 2], object), np.array([1, "2"], object), np.array([1, None], object), np.array([[1, 2]], object)),
        (np.ma.masked_array([1, 2], [True, False]), np.ma.masked_array([1, 2], [False, False]), np.array([1, 2]), np.ma.masked_array([1, 3], [True, False])),
        (np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00"), np.datetime64("2020-01-02"), np.timedelta64(1, "D"), np.timedelta64(1, "h")),
        (np.longdouble(1) / 3, 1 / 3),
        (np.array(["a"], np.dtypes.StringDType()), np.array(["b"], np.dtypes.StringDType()), np.array(["a"])),
    ],
)  # fmt: skip
def test_values_that_differ_have_different_bytes(values):
    assert len({canonical.encode(value) for value in values}) == len(values)


def test_every_byte_of_a_large_array_counts():
    array = np.zeros((300, 300), np.float32)
    seen = {canonical.encode(array)}
    for index in ((0, 0), (150, 150), (299, 299)):
        changed = array.copy()
        changed[index] = 1e-30
        seen.add(canonical.encode(changed))
    assert len(seen) == 4


def test_padding_between_the_fields_of_a_record_does_not_count():
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    first, second = np.zeros(2, kind), np.zeros(2, kind)
    second.view(np.uint8)[:] = 255
    second["a"], second["b"] = 0, 0
    assert first.tobytes() != second.tobytes()
    assert canonical.encode(first) == canonical.encode(second)


def test_records_are_not_mistaken_for_what_follows_them():
    empty, record = np.zeros(1, []), np.zeros(1, [("a", "i4")])
    assert canonical.encode([empty, "a", record["a"]]) != canonical.encode([np.zeros(1, [("a", "i4")])])
    assert len({canonical.encode(value) for value in ([empty, "a"], [empty, ["a"]], [empty], [record])}) == 4


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: 1, "lambda"),
        (local_class(), "local"),
        (Base().method, "depends on its object"),
        ([].append, "depends on its object"),
        (object(), "can't be told from others"),
        (Base(), "can't be told from others"),
        (iter([]), "can't be told from others"),
        (functools.lru_cache(lambda: 1), "can't be told from others"),
        (functools.partial(lambda: 1), "lambda"),
        (memoryview(b"a"), "can't be told from others"),
        (types.SimpleNamespace(a=1), "can't be told from others"),
    ],
)
@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda v: v, ""),
        (lambda v: {"a": {"b": v}}, "a.b"),
        (lambda v: {"a": [0, v]}, "a.1"),
        (lambda v: {"a": Point(1, {"z": v})}, "a.y.z"),
        (lambda v: OrderedDict(a=v), "a"),
        (lambda v: {1: v}, "1"),
    ],
)
def test_what_has_no_identity_raises_with_its_place_and_a_way_out(value, reason, wrap, where):
    with pytest.raises(ConfigTypeError, match=rf"^{re.escape(where)}{': ' if where else ''}.*{reason}.*_exclude_from_cls_uid"):
        canonical.encode(wrap(value))


def test_a_path_is_its_text():
    assert canonical.encode(pathlib.PurePosixPath("/a b")) == canonical.encode("/a b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.int8), "int8-2x3"),
        (np.zeros(2, ">f4"), "float32-2"),
        (np.zeros(2, [("a", ">f4"), ("b", "i4")]), "record-2"),
        (np.array(["a"], np.dtypes.StringDType()), "StringDType()-1"),
        (np.array(1.0), "float64-scalar"),
        (Color.CRIMSON, "Color.RED"),
        (datetime.date(2020, 1, 1), "2020-01-01"),
        (datetime.timedelta(minutes=1), "60s"),
        (decimal.Decimal("1.50"), "1.5"),
        (decimal.Decimal("-0"), "0"),
        (decimal.Decimal("1e400"), "inf"),
        (decimal.Decimal("snan"), "nan"),
        (function, "function"),
        (Child, "Child"),
        (Point(), "Point"),
    ],
)
def test_description_is_readable(value, text):
    assert canonical.describe(value) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.complex64(1j), 1j),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (Text.RED, Text.RED),
        ("a", "a"),
    ],
)
def test_normalized_values_are_plain(value, expected):
    result = canonical.normalize(value)
    assert (type(result), result) == (type(expected), expected)


def test_pandas_objects_count_values_labels_and_types():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert canonical.encode(frame) == canonical.encode(frame.copy())
    others = [
        frame,
        frame.rename(columns={"a": "A"}),
        frame.set_index(pandas.Index([5, 6])),
        frame.astype({"a": "float64"}),
        frame.astype({"a": "Int64"}),
        frame[["b", "a"]],
        frame.iloc[::-1],
        frame.assign(b=["x", "y"]),
        frame["a"],
        frame["a"].rename("z"),
        frame["a"].astype("category"),
        frame["b"].astype("category"),
        frame["b"].astype(pandas.CategoricalDtype(["x", "q"])),
        frame["b"].astype(pandas.CategoricalDtype(["x", "q"], ordered=True)),
        frame.index,
        frame.columns,
        pandas.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
        pandas.Series(pandas.date_range("2020", periods=2)),
        pandas.Series(pandas.date_range("2020", periods=2, tz="UTC")),
        pandas.Series([True, None], dtype="boolean"),
        pandas.DataFrame(),
        pandas.DataFrame(index=[1]),
        pandas.NA,
        pandas.NaT,
        pandas.Timestamp("2020-01-01 00:00:00.000000001"),
        pandas.Timestamp("2020-01-01"),
        pandas.Timedelta(1, "ns"),
        pandas.Timedelta(0),
    ]
    assert len({canonical.encode(other) for other in others}) == len(others)
    with pytest.raises(ConfigTypeError, match=r"^a\."):
        canonical.encode({"a": pandas.Series([object()])})


def test_tensors_count_type_shape_and_bytes():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6.0).reshape(2, 3)
    assert canonical.encode(tensor) == canonical.encode(tensor.clone()) == canonical.encode(tensor.T.contiguous().T)
    others = [
        tensor,
        tensor.T,
        tensor.double(),
        tensor.bfloat16(),
        tensor.reshape(3, 2),
        tensor.numpy(),
        tensor[0],
        tensor[0, 0],
        tensor + 1j,
    ]
    assert len({canonical.encode(other) for other in others}) == len(others)
    with pytest.raises(ConfigTypeError, match="to_dense"):
        canonical.encode(tensor.to_sparse())
