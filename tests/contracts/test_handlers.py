"""Every built-in handler, and handlers of users, under the contract that `exca_like.testing` publishes."""

import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import textwrap
import uuid
import warnings
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import numpy as np
import pytest

from exca_like.cachedict import CacheDict, DumpContext
from exca_like.cachedict.handlers.contiguous import ContiguousMemmap
from exca_like.errors import ConfigTypeError
from exca_like.testing import check_handler, same

rng = np.random.default_rng(0)

NUMBERS = {
    "integers": [np.array([[-1, 0], [1, 2]], kind) for kind in "bhil"] + [np.arange(300, dtype=kind) for kind in "BHIL"],
    "floats": [np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-320]).astype(kind) for kind in "efdg"],
    "complex and bool": [np.array([1 + 2j, complex(np.nan, -0.0)]).astype(kind) for kind in "FDG"] + [np.arange(200) % 3 == 0],
    "times": [
        np.array(["2024-02-29T12:34:56.789", "NaT"], "M8[ms]"),
        np.array(["2024-02", "NaT"], "M8[M]"),
        np.array([1, -5], "m8[25us]"),
        np.array([np.timedelta64("NaT")]),
        np.arange(100).astype("M8[ns]"),
    ],
    "byte orders": [np.arange(50, dtype=kind) for kind in (">i2", ">f4", "<f4", ">c16")] + [np.array(["ü" * 30, "b"], ">U40")],
    "texts": [
        np.array(["", "a\0b", "日本", "🎉" * 100, "\ud800"]),
        np.array([b"", b"a\0b", b"\xff"]),
        np.array([], "U"),
        np.array([b"abc", b"\0\0"], "V3"),
    ],
    "shapes": [
        np.array(5.5),
        np.array("text" * 100),
        np.zeros((0,)),
        np.zeros((3, 0, 2), "f4"),
        np.zeros((1,) * 20),
        np.arange(24).reshape(2, 3, 4),
    ],
    "orders": [
        np.asfortranarray(rng.normal(size=(3, 4))),
        np.asfortranarray(rng.normal(size=(30, 40))),
        rng.normal(size=(30, 40)).T[::2],
        np.arange(1000)[::-3],
        np.broadcast_to(np.arange(100.0), (5, 100)),
        rng.normal(size=(4, 5, 6)).transpose(2, 0, 1),
    ],
    "structures": [
        np.array([(1, 2.5)], "i4,f8"),
        np.array([(1, ("a", [1, 2]), 5)], [("n", "i2"), ("sub", [("t", "U3"), ("pair", "f4", (2,))]), ("big", ">i8")]),
        np.zeros(40, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.zeros(3, np.dtype({"names": ["x", "y"], "formats": ["u1", "u1"], "offsets": [3, 1], "itemsize": 9})),
        np.zeros(3, np.dtype([(("a title", "a"), "i4"), (("another", "ü\u200b"), "S3")])),
        np.zeros((2, 0), [("empty", "f4", (0,))]),
        np.zeros(2, np.dtype([])),
    ],
}  # fmt: skip
LARGE = [
    rng.integers(0, 255, (64 << 10) + 1, np.uint8),
    rng.normal(size=(150, 1000)),
    rng.integers(0, 9, (3 << 20) + 5, np.uint8),
]


def masked_arrays():
    hard = np.ma.array([1, 2], mask=[True, False], hard_mask=True)
    filled = np.ma.array([1.0, 2.0], mask=[True, False], fill_value=-1)
    structured = np.ma.array([(1, 2.0), (3, 4.0)], mask=[(True, False), (False, True)], dtype="i4,f8")
    return [
        np.ma.arange(3), hard, filled, structured, structured[0], np.ma.masked, np.ma.array(["a", "b"], mask=[0, 1]),
        np.ma.array(5, mask=True), np.ma.array(rng.normal(size=(100, 100)), mask=rng.normal(size=(100, 100)) > 0),
        np.ma.array(np.array([[1, 2]]).view(np.matrix), mask=[[0, 1]]), np.ma.array(np.array(["a", 1], object), mask=[0, 1]),
    ]  # fmt: skip


def object_arrays():
    mixed = np.empty((2, 2), object)
    mixed[0, 0], mixed[0, 1], mixed[1, 0], mixed[1, 1] = None, [1, (2,)], np.arange(500), {"a": np.float32(1)}
    within = np.empty(2, object)
    within[0], within[1] = np.array(5), mixed
    scalar = np.empty((), object)
    scalar[()] = [1, 2]
    nested = np.array([((1, "x"), 2, ["a", None])], [("n", [("a", "i4"), ("b", object)]), ("c", "f4"), ("o", object, (2,))])
    return [
        mixed,
        within,
        scalar,
        np.empty((0, 3), object),
        np.array([1, 2.5, "x"], object),
        nested,
        nested[0],
        nested.reshape(()),
    ]


def text_arrays():
    kind = np.dtypes.StringDType
    return [
        np.array(["", "a", "b" * 5000, "🎉", "nul\0"], kind()),
        np.array([["a", np.nan]], kind(na_object=np.nan)),
        np.array([None, "x"], kind(na_object=None)),
        np.array(["a", "-"], kind(na_object="-", coerce=False)),
        np.array([], kind()),
    ]


def kinds_of_arrays():
    records = np.rec.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])
    return [
        records, records[0], np.asarray(records), np.rec.array([(1, (2, 3))], dtype=[("a", "i4"), ("n", [("x", "i4"), ("y", "f8")])]),
        np.zeros(400, "i4,f8").view(np.recarray), np.array([[1.5, 2]]).view(np.matrix), rng.normal(size=(20, 20)).view(np.matrix),
    ]  # fmt: skip


def scalars():
    kinds = "?bhilBHILefdgFDG"
    return [
        *(np.dtype(kind).type(1) for kind in kinds), np.float64("nan"), np.float32(-0.0), np.longdouble("1e4000"), np.uint64(2**64 - 1),
        np.datetime64("NaT"), np.datetime64("2024-01-01T00:00", "ns"), np.datetime64("2024"), np.timedelta64(3, "h"),
        np.timedelta64("NaT", "s"), np.str_("ü\0"), np.str_(""), np.str_("x" * 500), np.bytes_(b"\0"), np.bytes_(b""), np.bytes_(b"\xff"),
        np.void(b"abc"), np.array([(1, "t")], "i4,U3")[0],
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*NUMBERS, "large"])
@pytest.mark.parametrize("cache_type", [None, "NumpyArray", "NumpyMemmapArray", "ContiguousMemmapArray"])
def test_arrays(name, cache_type, tmp_path):
    values = LARGE if name == "large" else NUMBERS[name]
    if cache_type is None:
        return check_handler(values, tmp_path)
    if cache_type.startswith("Numpy"):  # numpy's files have no form for fields out of order
        values = [value for value in values if value.dtype.names != ("x", "y")]
    if cache_type == "NumpyMemmapArray":
        return check_handler(
            [v for v in values if v.nbytes], tmp_path, cache_type=cache_type, loaded_type=np.memmap, equal=same_data
        )
    proxy = cache_type == "ContiguousMemmapArray"
    return check_handler(
        values, tmp_path, cache_type=cache_type, loaded_type=ContiguousMemmap if proxy else None, equal=same_data
    )


def same_data(loaded, value):
    return same(np.asarray(loaded), value)


@pytest.mark.parametrize("make", [masked_arrays, object_arrays, text_arrays, kinds_of_arrays])
def test_more_than_plain_arrays(make, tmp_path):
    check_handler(make(), tmp_path)


@pytest.mark.parametrize("cache_type", ["MemmapArray", "MemmapArrayFile"])
def test_arrays_by_name(cache_type, tmp_path):
    arrays = [LARGE[0], np.array(1), *(array for make in (masked_arrays, object_arrays, text_arrays) for array in make()[:2])]
    check_handler(arrays, tmp_path, cache_type=cache_type)


def test_scalars(tmp_path):
    check_handler(scalars(), tmp_path)


@pytest.mark.parametrize("cache_type", ["NumpyArray", "NumpyMemmapArray", "ContiguousMemmapArray"])
@pytest.mark.parametrize("value", [np.ma.arange(3), np.array([None]), np.array([[1]]).view(np.matrix), [1, 2], "text"], ids=str)
def test_handlers_of_plain_arrays_refuse_what_they_would_lose(cache_type, value, tmp_path):
    cache = CacheDict(tmp_path, cache_type=cache_type)
    with cache.write(), pytest.raises(ConfigTypeError):
        cache["key"] = value


JSON = {
    "numbers": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, True, 0.1, -0.0, 1e300, 5e-324, 1.0, None],
    "texts": ["", "text", "日本 🎉", '\0\n"\\/', "#type", "x" * 2000, "\x7f\x85\u2028"],
    "lists": [[], [[]], [1, 1.0, True, None, "1"], [0.1] * 200, ["x" * 2000] * 40, [[i, str(i)] for i in range(100)]],
    "dicts": [{}, {"": {}}, {"b": 1, "a": [{"c": None}]}, {"content": 1, "filename": ".data", "offset": 0}, {"key with .": 1}],
}  # fmt: skip
ZONES = [
    datetime.UTC,
    datetime.timezone(datetime.timedelta(hours=-3, seconds=1)),
    datetime.timezone(datetime.timedelta(hours=1), "name"),
    zoneinfo.ZoneInfo("Europe/Paris"),
]
STANDARD = {
    "numbers": [
        2**64, -(2**63) - 1, 10**5000, float("nan"), float("inf"), -float("inf"), 1j, complex(-0.0, float("nan")),
        [float("nan")] * 100, [1.5] * 40 + [float("inf")],
    ],
    "texts": ["\ud800", "a\udcff", "\ud83d\ude00", ["\ud800"], {"\ud800": 1}, b"", b"\0\xff", bytes(3000), bytearray(b"abc")],
    "sequences": [
        (), (1,), ((1, [2, (3,)]), {}), [()], deque([1, (2,)], maxlen=3), deque(), range(0, 10, 3), range(10**30), slice(1, None, -1),
        slice(None), tuple(range(3000)),
    ],
    "sets": [set(), {1, "a", (2, 3)}, frozenset(), frozenset({frozenset({1}), 2.5}), {float("nan")}, [{1}, {True}], {None, 0, ""}],
    "mappings": [
        {1: "a", None: 2, (1, 2): 3, 1.5: 4, True + 1: 5}, {"#type": "Pickle"}, {"#": {}}, {"#key": [1], "b": (2,)},
        OrderedDict(b=1, a=OrderedDict()), defaultdict(list, a=[1]), defaultdict(None, {1: 2}), Counter("abca"), Counter(),
        {b"k": frozenset({1})}, {"nested": {"#type": "tuple", "content": []}},
    ],
    "times": [
        datetime.date(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999), datetime.time(12, 30, fold=1),
        datetime.timedelta.min, datetime.timedelta(days=-1, microseconds=1), *ZONES,
        *(datetime.datetime(2024, 10, 27, 2, 30, tzinfo=zone, fold=fold) for zone in ZONES for fold in (0, 1)),
        *(datetime.time(1, 2, 3, 4, tzinfo=zone) for zone in ZONES),
    ],
    "others": [
        decimal.Decimal("1E+3"), decimal.Decimal("-0.00"), decimal.Decimal("Infinity"), fractions.Fraction(-1, 3), uuid.UUID(int=5),
        pathlib.Path("a/b"), pathlib.Path("bad\udcff"), pathlib.PurePosixPath("/"), pathlib.PureWindowsPath("C:\\x"), [pathlib.Path(".")],
    ],
    "trees with arrays": [
        {"a": np.arange(1000), "b": [np.arange(2), (np.float32(1), {"c": np.zeros((0, 2))})]},
        [np.arange(500)] * 3 + [rng.normal(size=(200, 100))],
        (np.array([1, None], object), {"#type": np.ma.array([1], mask=[1])}),
        {np.int64(3): np.datetime64("2024"), "text": "x" * 5000},
        {"filename": ".data", "offset": 0, "length": 8000, "content": np.arange(1000)},
    ],
}  # fmt: skip


@pytest.mark.parametrize("cache_type", [None, "Json"])
@pytest.mark.parametrize("name", JSON)
def test_json(name, cache_type, tmp_path):
    check_handler(JSON[name], tmp_path, cache_type=cache_type)


@pytest.mark.parametrize("name", STANDARD)
def test_standard_types(name, tmp_path):
    check_handler(STANDARD[name], tmp_path)


@pytest.mark.parametrize("cache_type", ["Auto", "AutoPickle"])
def test_standard_types_by_name(cache_type, tmp_path):
    check_handler([*JSON["dicts"], *(values[-1] for values in STANDARD.values())], tmp_path, cache_type=cache_type)


def test_what_only_looks_like_a_place_stays_as_it_is(tmp_path):
    size = 8000  # so that the second of several entries lies where its own value says by chance
    check_handler([{"filename": ".data", "offset": size, "length": size, "array": np.zeros(size, "i1")}], tmp_path)


@pytest.mark.parametrize("name", STANDARD)
def test_json_refuses_what_it_would_change(name, tmp_path):
    cache = CacheDict(tmp_path, cache_type="Json")
    for value in STANDARD[name]:
        with cache.write(), pytest.raises(ConfigTypeError, match="would not come back from JSON"):
            cache["key"] = value


def test_texts(tmp_path):
    check_handler(["", "text", "日本 🎉\r\n", "\ud800", "x" * (2 << 20)], tmp_path, cache_type="String")


def same_files(loaded, path):
    return [(p.relative_to(loaded), content(p)) for p in tree(loaded)] == [
        (p.relative_to(path), content(p)) for p in tree(path)
    ]


def tree(path):
    return sorted([path, *path.rglob("*")])


def content(path):
    return path.read_bytes() if path.is_file() else None


@pytest.fixture
def things(tmp_path):
    source = tmp_path / "things"
    (source / "folder" / "sub" / "empty").mkdir(parents=True)
    (source / "folder" / "a.txt").write_bytes(b"abc" * 30_000)
    (source / "folder" / "sub" / "same.txt").write_bytes(b"abc" * 30_000)
    (source / "folder" / "sub" / "none").write_bytes(b"")
    (source / "folder" / "link").symlink_to("sub/same.txt")
    (source / "void").mkdir()
    (source / "file-0123456789abcdef.bin").write_bytes(bytes(range(256)))
    (source / ".hidden").write_bytes(b"")
    return source


def test_files(things, tmp_path):
    paths = [things / "file-0123456789abcdef.bin", things / "folder", things / ".hidden", things / "void"]
    check_handler(paths, tmp_path, cache_type="Files", equal=same_files, flips=4)


def test_trees_of_files(things, tmp_path):
    def equal(loaded, value):
        return same_files(loaded["a"][0], value["a"][0]) and same({**loaded, "a": 0}, {**value, "a": 0})

    value = {"a": [things / "folder"], "b": (1, np.arange(200)), 3: {"#": None}}
    check_handler([value], tmp_path, cache_type="Files", equal=equal, flips=4)


NOTEBOOKS = [
    [],
    [["import x", "print(1)"], "a = 1\nb"],
    [[], [""], ["", ""], "", ["a\n", "b"], ["a\n"], ["\n"]],
    ["x" * 100_000],
    ["é\r\x0b\u2028z"],
]


def test_notebooks(tmp_path):
    check_handler(NOTEBOOKS, tmp_path, cache_type="Notebook")


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Colour(enum.Enum):
    RED = 1


Pair = namedtuple("Pair", "first second")  # noqa: PYI024
ODD = [
    Point(1, 2),
    Colour.RED,
    Pair(1, 2),
    [Point(3, 4), {"a": Pair(1, np.int64(2))}],
    decimal.Decimal,
    len,
    defaultdict(Point),
]


@pytest.mark.parametrize("cache_type", ["Pickle", "AutoPickle", None])
def test_pickles(cache_type, tmp_path):
    check_handler(ODD, tmp_path, cache_type=cache_type, pickles=True)


def test_pickle_takes_anything_by_choice(tmp_path):
    values = [np.arange(100_000), {"a": (1,)}, None, masked_arrays()[2], lambda: 1]
    check_handler(values[:-1], tmp_path, cache_type="Pickle", pickles=True)
    check_handler(values[-1:], tmp_path, cache_type="Pickle", pickles=True, equal=lambda a, b: a() == b())


def test_what_contains_itself_is_pickled_with_a_warning(tmp_path):
    loop: list[Any] = [1, np.arange(3)]
    loop.append(loop)
    cache = CacheDict(tmp_path)
    with cache.write(), pytest.warns(UserWarning, match="a list is stored as a pickle"):
        cache["key"] = loop
    loaded = CacheDict(tmp_path)["key"]
    assert loaded[2] is loaded
    assert loaded[0] == 1
    check_handler([loop], tmp_path, pickles=True, equal=lambda a, b: a[2] is a and same(a[:2], b[:2]))


def test_each_type_that_is_pickled_is_told_once(tmp_path):
    kinds = [dataclasses.make_dataclass(name, ["x"], namespace={"__module__": __name__}) for name in ("First", "Second")]
    cache = CacheDict(tmp_path)
    with cache.write(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            for kind in kinds:
                cache[f"{kind.__name__} {number}"] = [kind(number)]
    assert [str(warning.message).partition(" is stored")[0] for warning in caught] == [
        f"a {__name__}.First",
        f"a {__name__}.Second",
    ]


# handlers of users: what the documentation promises to be short


@DumpContext.register
class Span:
    def __init__(self, start, end):
        self.start, self.end = start, end

    def __dump_info__(self, ctx):
        return {"start": self.start, "end": self.end}

    @classmethod
    def __load_from_info__(cls, ctx, start, end):
        return cls(start, end)


class Image:
    def __init__(self, pixels, title):
        self.pixels, self.title = pixels, title

    def __eq__(self, other):
        return same([self.pixels, self.title], [other.pixels, other.title])


@DumpContext.register(default_for=Image)
class ImageHandler:
    @classmethod
    def __dump_info__(cls, ctx, value):
        return {"title": value.title, "pixels": ctx.dump(value.pixels)}

    @classmethod
    def __load_from_info__(cls, ctx, title, pixels):
        return Image(ctx.load(pixels), title)


@DumpContext.register
class Lines:
    """A file for each entry."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        name = ctx.key_path(".lines")
        (ctx.folder / name).write_text("".join(f"{line}\n" for line in value))
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx, filename):
        return (ctx.folder / filename).read_text().splitlines()


@DumpContext.register
class Shared:
    """A file for all entries of a writer."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        stream, name = ctx.shared_file(".txt")
        offset = stream.tell()
        stream.write(value.encode())
        return {"filename": name, "offset": offset, "length": len(value.encode())}

    @classmethod
    def __load_from_info__(cls, ctx, filename, offset, length):
        return bytes(ctx.view(filename, offset, length)).decode()


class Counter2:
    """A value whose type has the name of a standard one."""

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return self.n == other.n

    def __dump_info__(self, ctx):
        return {"content": self.n}

    @classmethod
    def __load_from_info__(cls, ctx, content):
        return cls(content)


Counter2.__name__ = "Counter"
DumpContext.register(Counter2)


def test_class_that_stores_itself(tmp_path):
    def equal(loaded, value):
        return type(loaded) is type(value) and vars(loaded) == vars(value)

    check_handler([Span(0, 1), Span("a", None)], tmp_path, equal=equal)
    check_handler([Span(0, 1)], tmp_path, equal=equal, cache_type="Span")
    check_handler([[Span(1, 2)], {"a": (Span(3, 4),)}], tmp_path, equal=lambda a, b: type(a) is type(b))


def test_handler_of_a_type(tmp_path):
    images = [Image(rng.normal(size=(30, 40)), "title"), Image(np.zeros((0, 2)), "ü" * 300)]
    check_handler(images, tmp_path)
    check_handler([images, {"a": (images[0], 1.5)}], tmp_path)
    check_handler(images, tmp_path, cache_type="ImageHandler")


def test_handler_with_a_file_for_each_entry(tmp_path):
    check_handler([["a", "b"], [], ["x" * 200_000]], tmp_path, cache_type="Lines")


def test_handler_with_a_shared_file(tmp_path):
    check_handler(["text", "", "x" * 200_000], tmp_path, cache_type="Shared")


def test_handlers_may_be_named_like_standard_types(tmp_path):
    check_handler([Counter2(1), [Counter2(2), Counter("aab"), (3,)]], tmp_path)


PLUGIN = """
    class Temperature:
        def __init__(self, kelvin):
            self.kelvin = kelvin

        def __eq__(self, other):
            return self.kelvin == other.kelvin

    class TemperatureHandler:
        @classmethod
        def __dump_info__(cls, ctx, value):
            return {"kelvin": value.kelvin}

        @classmethod
        def __load_from_info__(cls, ctx, kelvin):
            return Temperature(kelvin)
"""


def test_handler_of_another_distribution(tmp_path, monkeypatch):
    site = tmp_path / "site"
    information = site / "thermal-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "thermal.py").write_text(textwrap.dedent(PLUGIN))
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: thermal\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[exca_like.handlers]\nTemperatureHandler = thermal:TemperatureHandler\n")
    monkeypatch.syspath_prepend(site)
    import thermal

    try:
        check_handler([thermal.Temperature(5)], tmp_path, cache_type="TemperatureHandler")
    finally:
        DumpContext.HANDLERS.pop("TemperatureHandler", None)
        sys.modules.pop("thermal", None)
