"""Configs made by hypothesis, near-twins of them, and the normal form of the contract in its simplest spelling."""

import datetime
import decimal
import enum
import math
import pathlib
import typing as tp
import uuid
from collections import OrderedDict

import numpy as np
from hypothesis import strategies as st

from exca_like import ConfDict


class Color(enum.Enum):
    RED = "red"
    BLUE = 1


class Size(enum.IntEnum):
    ONE = 1
    TWO = 2


class Kind(enum.StrEnum):
    RED = "red"


LONG = "x" * 200

STRINGS = [
    "", "a", "A", "b", "B", "aB", "Ab", "é", "É", "ß", "日本", "\U0001f389", "None", "none", "NULL", "true", "True", "FALSE", "yes", "no", "on",
    "nan", "NaN", "inf", "-inf", "-1", "0", "1", "1.0", "01", "1e-05", "1.00e-05", "0.1", "a,b=1", "a=1", "(1)", "(1,2)", "{}", "()", "{a=1}",
    "a.b", ".", "..", "a/b", "a b", " a", "a ", "a\n", "a:b", "a-b", "a+b", "a_b", "CON", "~", "red", "Color.RED", "2020-01-01", "...",
    LONG, LONG + "y", LONG.upper(), "a" * 125, "a" * 126, "a" * 127, "a" * 124 + "...",
]  # fmt: skip

NUMBERS = [
    0, 1, -1, 2, 10, 0.0, -0.0, 1.0, 0.5, -0.5, 0.1, 0.1 + 1e-12, 0.123456789, 0.12345678, 1e-5, 1.5e-5, 1.23e-7, 1.234e-7, 1e-300, 5e-324,
    1e16, 10**16, 10**16 + 1, 1e22, 10**22, 2**53, 2**53 + 1, float(2**53), 1e300, int(1e300), 10**150, 10**150 + 1, 10**400, 10**4000,
    math.nan, -math.nan, math.inf, -math.inf, True, False, None,
]  # fmt: skip

_GRID = np.arange(6).reshape(2, 3)

OTHERS: list[tp.Any] = [
    np.int64(1), np.int8(1), np.uint64(2**63), np.float64(0.1), np.float32(0.1), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("a"),
    np.zeros(2), np.zeros(2, np.int64), np.zeros(2, np.int32), np.zeros(4, np.int32), np.zeros((1, 2)), np.zeros((2, 1)), np.zeros(0), np.zeros((0, 2)),
    -np.zeros(2), np.array(0.0), np.array(1), np.array([1]), np.array([True]), np.array(["a"]), np.array(["a", "bb"]), np.array([1, "a"], object),
    np.array(["2020-01-01"], "M8[D]"), _GRID, _GRID.T, np.asfortranarray(_GRID), _GRID[:, ::2], _GRID[::-1], _GRID[::-1].copy(), _GRID.T.copy(),
    np.array([1, 2], ">i4"), np.array([1, 2], "<i4"), np.full(3000, 1.0), np.array([math.nan]),
    np.zeros(2, [("a", "i4"), ("b", "f8")]), np.zeros(2, [("a", "i4")]), np.zeros(2, [("b", "i4")]),
    b"", b"a", b"A", bytearray(b"a"), b"\xff\x00", pathlib.Path("a"), pathlib.PurePosixPath("a/b"), pathlib.Path("A"),
    datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.time(1, 2),
    datetime.datetime(2020, 1, 1, 0, 0, 0, 1), datetime.timedelta(1), datetime.timedelta(hours=1), datetime.timedelta(microseconds=1),
    decimal.Decimal(1), decimal.Decimal("1.0"), decimal.Decimal("1.10"), decimal.Decimal("0.1"), decimal.Decimal("NaN"), decimal.Decimal("-0"),
    decimal.Decimal(0), decimal.Decimal("Infinity"), decimal.Decimal("1e30"), uuid.UUID(int=1), uuid.UUID(int=2), complex(1, 2), complex(0, 0.5),
    Color.RED, Color.BLUE, Size.ONE, Size.TWO, Kind.RED, set(), {"a"}, {"a", "b"}, {"a", "A"}, frozenset({"a"}), {1, "1"}, {None, 1.5}, {math.nan},
    {("a", 1)}, {frozenset({"a"})}, {"c", "d", "e", "f", "g", "h", "i"}, int, float, len, math.sqrt, np.mean,
    OrderedDict(), OrderedDict(a=1), OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), {}, {"a": {}}, {"a": 1}, [], (), [[]], [{}], [{"a": {"b": 1}}],
]  # fmt: skip

KEYS = ["a", "b", "c", "A", "B", "ab", "a_b", "aa", "lr", "é", "É", "", "a b", "a,b", "a=1", "1", "_x", "-", "{", "=", LONG]

keys = st.one_of(st.sampled_from(KEYS[:6]), st.sampled_from(KEYS), st.text("aAé_ ,{-\0\n/", max_size=3))
leaves = st.one_of(
    st.sampled_from([*STRINGS, *NUMBERS]),
    st.sampled_from([*STRINGS, *NUMBERS, *OTHERS]),
    st.one_of(
        st.text(alphabet="aAbB1.,=(){}é -", max_size=6),
        st.text(max_size=5),
        st.integers(),
        st.floats(),
        st.sets(st.sampled_from(STRINGS), max_size=4),
    ).filter(lambda leaf: not ConfDict.ops.is_op(leaf)),
)


def _containers(content: st.SearchStrategy[tp.Any]) -> st.SearchStrategy[tp.Any]:
    mappings = st.dictionaries(keys, content, max_size=2)
    sequences = st.lists(content, max_size=2)
    return st.one_of(mappings, mappings.map(OrderedDict), sequences, sequences.map(tuple))


values = st.one_of(leaves, leaves, _containers(st.one_of(leaves, leaves, leaves, _containers(leaves))))
configs = st.dictionaries(keys, values, max_size=3)


def _twins(value: tp.Any) -> list[tp.Any]:
    """Values that are easily taken for a given one (or are the same)."""
    twins: list[tp.Any] = [[value], {"a": value}, None]
    if isinstance(value, str):
        twins += [
            value.upper(),
            value.lower(),
            value + " ",
            value[:-1],
            pathlib.Path(value),
            np.str_(value),
            value.encode("utf-8", "replace"),
            {value},
        ]
    elif isinstance(value, bool):
        twins += [int(value), str(value), np.bool_(value)]
    elif isinstance(value, int) and abs(value) < 2**60:
        twins += [float(value), str(value), bool(value), value + 1, np.int64(value), np.array(value), decimal.Decimal(value)]
    elif isinstance(value, float):
        twins += [
            repr(value),
            math.nextafter(value, 0),
            np.float64(value),
            -value,
            np.array([value]),
            round(value, 3) if math.isfinite(value) else 0,
        ]
    elif isinstance(value, np.ndarray):
        twins += [value.tolist(), value.copy(), value[None], value.astype(object), value.T]
    elif isinstance(value, dict):
        pairs = list(value.items())
        twins += [
            OrderedDict(pairs),
            dict(pairs),
            OrderedDict(reversed(pairs)),
            dict(reversed(pairs)),
            [item for _, item in pairs],
            dict(pairs[1:]),
        ]
        twins += [dict(zip(value, reversed(list(value.values())), strict=True)), {key.upper(): item for key, item in pairs}]
    elif isinstance(value, list | tuple):
        twins += [list(value), tuple(value), list(reversed(value)), [*value, None], list(value[1:])]
    elif isinstance(value, set | frozenset):
        twins += [frozenset(value), sorted(value, key=repr), {*value, "zz"}]
    elif value is None:
        twins += ["None", 0, "", {}, []]
    else:
        twins += [str(value)]
    return twins


@st.composite
def near_twins(draw: st.DrawFn) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """Two configs that differ in one place, or only seem to."""
    config = draw(configs)
    return config, _mutated(draw, config, top=True)


def _mutated(draw: st.DrawFn, value: tp.Any, *, top: bool = False) -> tp.Any:
    inside = isinstance(value, dict | list | tuple) and len(value) > 0
    if inside and (top or draw(st.integers(0, 2))):
        if isinstance(value, dict):
            pairs = list(value.items())
            position = draw(st.integers(0, len(pairs) - 1))
            key, item = pairs[position]
            if draw(st.integers(0, 4)):
                pairs[position] = key, _mutated(draw, item)
            else:
                pairs[position] = draw(keys), item
            return type(value)(pairs)
        position = draw(st.integers(0, len(value) - 1))
        return type(value)(_mutated(draw, item) if number == position else item for number, item in enumerate(value))
    if top:
        return draw(configs)
    return draw(st.one_of(st.sampled_from(_twins(value)), leaves))


def normal(value: tp.Any) -> tp.Hashable:
    """The normal form: two configs are the same when theirs are equal."""
    if isinstance(value, enum.Enum):
        return "enum", type(value), value.name
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return "constant", str(value)
    if isinstance(value, int | float):
        if value != value:
            return ("nan",)
        return "number", int(value) if float("-inf") < value < float("inf") and value == int(value) else value
    if isinstance(value, str | pathlib.PurePath):
        return "text", str(value)
    if isinstance(value, OrderedDict):
        return "ordered", tuple((key, normal(item)) for key, item in value.items())
    if isinstance(value, dict):
        return "dict", frozenset((key, normal(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "sequence", tuple(map(normal, value))
    if isinstance(value, set | frozenset):
        return "set", frozenset(map(normal, value))
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        content = normal(value.tolist()) if value.dtype.hasobject else little.tobytes()
        return "array", str(little.dtype.descr), value.shape, content
    if isinstance(value, bytes | bytearray):
        return "bytes", bytes(value)
    if isinstance(value, complex):
        return "complex", normal(value.real), normal(value.imag)
    if isinstance(value, decimal.Decimal):
        return "decimal", "nan" if value.is_nan() else value
    if isinstance(value, datetime.date | datetime.time):
        return type(value).__name__, value.isoformat()
    if isinstance(value, datetime.timedelta | uuid.UUID):
        return type(value).__name__, value
    return "object", value.__module__, value.__qualname__
