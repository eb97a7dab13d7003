"""Handlers for values of optional libraries: pandas, torch, nibabel, mne.

They run here on a context of their own, which stores plain files and knows nothing of journals and checksums.
"""

import datetime
import json
import math
import subprocess
import sys
import warnings
import zoneinfo
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from exca_like.errors import ConfigTypeError

NAN = float("nan")


class Context:
    """What handlers may use of a `DumpContext`, on plain files."""

    def __init__(self, folder, handlers, defaults):
        self.folder = folder
        self.spans = []
        self.names = []
        self.handlers = handlers
        self.defaults = defaults

    def key_path(self, suffix=""):
        name = f"data/key-{len(self.names)}{suffix}"
        self.names.append(name)
        (self.folder / "data").mkdir(exist_ok=True)
        return name

    def adopt(self, name):
        self.names.append(name)

    def path(self, name):
        return str(self.folder / name)

    def append(self, suffix, data):
        path = self.folder / f"packed{suffix}"
        with path.open("ab") as stream:
            offset = stream.tell()
            stream.write(data)
        return {"filename": path.name, "offset": offset, "length": len(data)}

    def view(self, filename, offset=0, length=None):
        data = (self.folder / filename).read_bytes()
        assert length is None or offset + length <= len(data)
        return memoryview(data)[offset:][:length].toreadonly()

    def dump(self, value, *, cache_type=None):
        handler = self.handlers[cache_type] if cache_type else self._handler_of(value)
        if handler is not None:
            info = handler.__dump_info__(self, value)
            assert not any(key.startswith("#") for key in info)
            return {"#type": handler.__name__, **json.loads(json.dumps(info, allow_nan=False))}
        if isinstance(value, np.ndarray):
            name = self.key_path(".npy")
            np.save(self.folder / name, value, allow_pickle=False)
            return {"#type": "array", "filename": name}
        return {"#type": "tree", "content": self._encode(value)}

    def _handler_of(self, value):
        return next((self.defaults[base] for base in type(value).__mro__ if base in self.defaults), None)

    def _encode(self, value):
        kind = type(value)
        if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
            return value
        if kind is list:
            return [self._encode(part) for part in value]
        if kind is dict:
            return {"#type": "dict", "content": [[self._encode(key), self._encode(part)] for key, part in value.items()]}
        for name, (known, encode, _) in PLAIN.items():
            if kind is known:
                return {"#type": name, "content": self._encode(encode(value))}
        assert kind is np.ndarray or self._handler_of(value) is not None, f"no handler for {kind}"
        return self.dump(value)

    def load(self, info):
        info = dict(info)
        kind = info.pop("#type")
        if kind == "array":
            array = np.load(self.path(info["filename"]), allow_pickle=False)
            array.flags.writeable = False
            return array
        if kind == "tree":
            return self._decode(info["content"])
        return self.handlers[kind].__load_from_info__(self, **info)

    def _decode(self, tree):
        if isinstance(tree, list):
            return [self._decode(part) for part in tree]
        if not isinstance(tree, dict):
            return tree
        if tree["#type"] == "dict":
            return {self._decode(key): self._decode(part) for key, part in tree["content"]}
        if tree["#type"] in PLAIN:
            return PLAIN[tree["#type"]][2](self._decode(tree["content"]))
        return self.load(tree)


PLAIN = {
    "float": (float, repr, float),
    "complex": (complex, repr, complex),
    "delta": (datetime.timedelta, lambda delta: delta.total_seconds(), lambda seconds: datetime.timedelta(seconds=seconds)),
    "clock": (datetime.time, str, datetime.time.fromisoformat),
    "moment": (np.datetime64, str, np.datetime64),
    "tuple": (tuple, list, tuple),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "date": (datetime.date, str, datetime.date.fromisoformat),
    "time": (datetime.datetime, str, datetime.datetime.fromisoformat),
    "timezone": (
        datetime.timezone,
        lambda zone: zone.utcoffset(None).total_seconds(),
        lambda seconds: datetime.timezone(datetime.timedelta(seconds=seconds)),
    ),
    "zone": (zoneinfo.ZoneInfo, str, zoneinfo.ZoneInfo),
    "decimal": (Decimal, str, Decimal),
    "float64": (np.float64, float, np.float64),
    "int64": (np.int64, int, np.int64),
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A function that stores values and loads them again."""
    return Store(tmp_path, monkeypatch)


class Store:
    """Dumps and loads with the handlers of a module, each in a context of its own."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.info = {}

    def context(self, value=None, kind=None):
        from importlib import import_module

        libraries = {"pandas": "frames", "torch": "tensors", "nibabel": "imaging", "mne": "recordings"}
        handlers, defaults = {}, {}
        for library, module in libraries.items():
            if library in sys.modules:
                found = import_module(f"exca_like.cachedict.handlers.{module}")
                handlers |= found.HANDLERS
                defaults |= found.TYPE_DEFAULTS
        return Context(self.folder, handlers, defaults)

    def dump(self, value, cache_type=None):
        context = self.context()
        self.info = context.dump(value, cache_type=cache_type)
        return self.info

    def load(self, info):
        return self.context().load(info)

    def __call__(self, value, cache_type=None):
        return self.load(self.dump(value, cache_type))


def pickled(folder):
    """Files of a folder that hold a pickle."""
    return [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle")]


def exca_folder(folder, value, cache_type=None):
    """Have the real exca write a value; returns its info, and the folder it is relative to."""
    pytest.importorskip("exca")
    from exca.cachedict import CacheDict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache = CacheDict(folder=folder, cache_type=cache_type)
        with cache.writer() as writer:
            writer["key"] = value
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines() if '"#key"' in line]
    info = json.loads(lines[-1])
    assert info.pop("#key") == "key"
    return info


# pandas


@pytest.fixture
def pd():
    return pytest.importorskip("pandas")


@pytest.fixture
def no_warnings_said(pd, monkeypatch):
    from exca_like.cachedict.handlers import csv_frames

    monkeypatch.setattr(csv_frames, "_warned", set())


def assert_same_frame(first, second):
    import pandas as pd

    from exca_like.cachedict.handlers import pandas_parts

    assert type(first) is type(second) is pd.DataFrame
    assert first.shape == second.shape
    assert pandas_parts.same_index(first.index, second.index), (first.index, second.index)
    assert pandas_parts.same_index(first.columns, second.columns), (first.columns, second.columns)
    for number in range(first.shape[1]):
        one, two = first.iloc[:, number], second.iloc[:, number]
        assert pandas_parts.same_values(one, two), (one, two)
    pd.testing.assert_frame_equal(first, second, check_exact=True, check_freq=True, check_column_type="exact")
    assert first.attrs == second.attrs
    assert first.flags.allows_duplicate_labels == second.flags.allows_duplicate_labels


def objects(*values):
    import pandas as pd

    array = np.empty(len(values), object)
    for number, value in enumerate(values):
        array[number] = value
    return pd.Series(array, dtype=object)


def columns(pd):
    """Columns of four values, by name."""
    found = {}
    for dtype in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split():
        found[dtype] = pd.Series(np.array([0, 1, 2, 1]).astype(dtype))
    found["limits"] = pd.Series(np.array([0, 2**64 - 1, 2**63, 1], np.uint64))
    found["floats"] = pd.Series([0.1 + 0.2, NAN, math.inf, -1e-300 / 3])
    found["float32s"] = pd.Series(np.array([0.1, NAN, 1e-45, 3.4e38], np.float32))
    if pd.__version__ > "3":  # before, pandas can't take parts of such frames
        found["big"] = pd.Series(np.array([1.5, 2, 3, NAN], ">f8"))
    found["complexes"] = pd.Series([1 + 2j, NAN, 0.1j, 3])
    times = pd.Series(pd.to_datetime(["2020-01-01", "2021-05-05T01:02:03", "", "1999-12-31"], format="ISO8601"))
    deltas = pd.Series(pd.to_timedelta(["1D", "2s", None, "-3h"]))
    for unit in ("s", "ms", "us", "ns"):
        found[f"times-{unit}"] = times.astype(f"datetime64[{unit}]")
        found[f"deltas-{unit}"] = deltas.astype(f"timedelta64[{unit}]")
        found[f"paris-{unit}"] = found[f"times-{unit}"].dt.tz_localize("Europe/Paris")
    found["nanoseconds"] = found["times-ns"] + pd.Timedelta(7, "ns")
    found["utc"] = found["times-us"].dt.tz_localize("UTC")
    found["zoneinfo-utc"] = found["times-us"].dt.tz_localize(zoneinfo.ZoneInfo("UTC"))
    found["offset"] = found["times-us"].dt.tz_localize(datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)))
    for dtype in "Int8 Int64 UInt64 Float32 Float64 boolean".split():
        found[dtype] = pd.Series(pd.array([1, 0, None, 1], dtype=dtype))
    found["Float64-nan"] = pd.Series(pd.arrays.FloatingArray(np.array([1, NAN, 0, 2]), np.array([False, False, True, False])))
    for dtype in ("str", "string", "string[python]"):
        found[dtype] = pd.Series(pd.array(["a", "é\n,;\"'", None, "NA"], dtype=dtype))
    found["empty-text"] = pd.Series(["", "a", " ", "nan"])
    found["object-text"] = objects("a", "", "None", "1")
    found["object-gaps"] = objects("a", "b", None, "1")
    found["object-nan"] = objects("a", "b", NAN, None)
    found["mixed"] = objects(1, "1", None, 2.5)
    found["missing"] = objects(None, NAN, pd.NaT, pd.NA)
    found["bools"] = objects(True, None, False, NAN)
    found["ints"] = objects(1, 2, 3, 2**62)
    found["numpy"] = objects(np.float64(1), np.int64(2), 3, 4.0)
    found["bytes"] = objects(b"a", b"", b"\0", b"x")
    found["dates"] = objects(*[datetime.date(2020, 1, day) for day in range(1, 5)])
    found["decimals"] = objects(*[Decimal(f"{number}.10") for number in range(4)])
    found["lists"] = objects([1], [], [1, "a"], (2,))
    found["arrays"] = objects(np.arange(2), np.zeros(0), np.ones((2, 2)), None)
    found["timestamps"] = objects(pd.Timestamp(1, unit="s"), pd.Timestamp(1, unit="s", tz="UTC"), pd.Timedelta("1D"), None)
    found["category"] = pd.Series(list("abca"), dtype="category")
    found["ordered"] = pd.Series(pd.Categorical(["b", "a", None, "a"], categories=["b", "a", "z"], ordered=True))
    found["numbers"] = pd.Series([1, 2, None, 1], dtype="category")
    found["object-categories"] = pd.Series(pd.Categorical(list("abca"), categories=objects("a", "b", "c")))
    found["period"] = pd.Series(pd.period_range("2020", periods=4, freq="M"))
    found["quarters"] = pd.Series(pd.PeriodIndex(["2020Q1", None, "2021Q3", "1999Q4"], freq="Q-NOV"))
    found["interval"] = pd.Series(pd.interval_range(0, 4))
    found["intervals"] = pd.Series(pd.arrays.IntervalArray.from_tuples([(0.5, 1), None, (1, 2), (2, 9)], closed="left"))
    found["sparse"] = pd.Series(pd.arrays.SparseArray([0, 0, 1, 0]))
    found["sparse-nan"] = pd.Series(pd.arrays.SparseArray([NAN, 1.5, NAN, 0], kind="block"))
    return found


NAMES = sorted(columns(pytest.importorskip("pandas")))


@pytest.mark.parametrize("name", NAMES)
def test_columns_come_back(pd, store, name):
    column = columns(pd)[name]
    for rows in (column, column[:0], column[2:3].reset_index(drop=True)):
        for cache_type in ("ParquetPandasDataFrame", "DataFrameParts"):
            frame = pd.DataFrame({"x": rows, "y": range(len(rows))})
            assert_same_frame(store(frame, cache_type), frame)
    assert_same_frame(store(pd.DataFrame({"x": column})), pd.DataFrame({"x": column}))
    again = store(column)
    pd.testing.assert_series_equal(again, column, check_exact=True)
    assert repr(again.dtype) == repr(column.dtype)
    array = store(column.array)
    assert type(array) is type(column.array)
    assert array.dtype == column.array.dtype
    assert not pickled(store.folder)


KEPT_BY_CSV = [
    *"bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 limits floats float32s big".split(),
    *"complex64 complex128 complexes nanoseconds utc zoneinfo-utc offset Int8 Int64 UInt64 Float32 Float64 boolean".split(),
    *(f"{kind}-{unit}" for kind in ("times", "deltas", "paris") for unit in ("s", "ms", "us", "ns")),
    *"str string string[python] empty-text object-text category ordered numbers object-categories period quarters ints object-gaps".split(),
]
LOST_BY_CSV = [
    *"missing bools numpy bytes dates decimals mixed lists arrays timestamps object-nan".split(),
    *"interval intervals sparse sparse-nan Float64-nan".split(),
]


def test_every_column_is_tried_as_csv():
    assert set(KEPT_BY_CSV + LOST_BY_CSV) - {"big"} == set(NAMES) - {"big"}


@pytest.mark.parametrize("name", [name for name in KEPT_BY_CSV if name in NAMES])
def test_csv_keeps(pd, store, name):
    column = columns(pd)[name]
    for rows in (column, column[:0], column[2:3].reset_index(drop=True)):
        frame = pd.DataFrame({"x": rows, "y": range(len(rows))})
        assert_same_frame(store(frame, "PandasDataFrame"), frame)
        if not name.startswith("float16"):
            frame = frame.set_index("x")
            assert_same_frame(store(frame, "PandasDataFrame"), frame)


@pytest.mark.parametrize("name", LOST_BY_CSV)
def test_csv_warns_of_what_it_loses(pd, store, name, no_warnings_said):
    frame = pd.DataFrame({"x": columns(pd)[name]})
    with pytest.warns(UserWarning, match="csv does not keep column 'x' of dtype .*ParquetPandasDataFrame"):
        again = store(frame, "PandasDataFrame")
    assert again.shape == (4, 1)
    store(frame, "PandasDataFrame")  # said once


def test_csv_confuses_empty_text_with_missing_text(pd, store, no_warnings_said):
    frame = pd.DataFrame({"x": ["", None, "a"]})
    with pytest.warns(UserWarning, match="column 'x' of dtype str.*with other values|column 'x' of dtype object"):
        assert store(frame, "PandasDataFrame")["x"].isna().tolist() == [True, True, False]


def test_csv_with_odd_text(pd, store):
    texts = ["a\rb", "\n", '"', ",", "\r\n", " x ", "#", "'", "\\", "\t", "", "x\r", "é", "NaN", "1", 'a"b\nc']
    if pd.__version__ > "3":  # before, zeros are dropped
        texts.append("a\0b")
    for frame in (
        pd.DataFrame({"x": texts, "y": texts[::-1]}),
        pd.DataFrame({"x": objects("\ud800", "c")}),
        pd.DataFrame([[1, 2, 3]], columns=["a\nb", '"', ""]),
        pd.DataFrame({"a": [1]}, index=pd.Index(["a\n"], name='b\n"')),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a\nb", 1), ("", "")], names=["x", None])),
        pd.DataFrame(index=pd.Index(["", "a", ""])),
    ):
        assert_same_frame(store(frame, "PandasDataFrame"), frame)


def test_csv_is_readable(pd, store):
    frame = pd.DataFrame({"name": ["a", "b"], "score": [0.1, 2]}, index=pd.Index([5, 7], name="id"))
    info = store.dump(frame, "PandasDataFrame")
    assert (store.folder / info["filename"]).read_text() == "id,name,score\n5,a,0.1\n7,b,2.0\n"
    assert info["filename"].endswith(".csv")


def indexes(pd):
    """Indexes of three rows, by name."""
    return {
        "range": pd.RangeIndex(3, 9, 2),
        "named-range": pd.RangeIndex(0, 3, name="r"),
        "int": pd.Index([3, 1, 2], name="i"),
        "int32": pd.Index([3, 1, 2], dtype="int32"),
        "float": pd.Index([0.1, NAN, 2]),
        "text": pd.Index(["a", "b", "NA"]),
        "text-gaps": pd.Index(["a", "b", None]),
        "object": pd.Index(["a", "b", "c"], dtype=object),
        "mixed": pd.Index([1, "a", None], dtype=object),
        "tuples": pd.Index([(1, 2), (3, 4), (5,)], tupleize_cols=False),
        "bool": pd.Index([True, False, True]),
        "complex": pd.Index([1j, 2, 3]),
        "Int64": pd.Index([1, None, 2], dtype="Int64"),
        "daily": pd.date_range("2020", periods=3),
        "business": pd.date_range("2020", periods=3, freq="B", tz="Europe/Paris", name="t"),
        "custom": pd.date_range("2020", periods=3, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"])),
        "irregular": pd.DatetimeIndex(["2020-01-01", None, "1999-01-01"]),
        "deltas": pd.timedelta_range("1h", periods=3, freq="2h"),
        "seconds": pd.date_range("2020", periods=3, unit="s"),
        "period": pd.period_range("2020", periods=3, freq="2D"),
        "interval": pd.interval_range(0, 3, closed="left"),
        "category": pd.CategoricalIndex(list("aba"), categories=list("bac"), ordered=True),
        "levels": pd.MultiIndex.from_product([[1, 2, 3], ["x"]], names=["p", None]),
        "gaps": pd.MultiIndex.from_arrays([[1, None, 2], ["x", "y", None]]),
        "unused": pd.MultiIndex.from_product([[3, 1], ["x", "y"]], names=[("a", 1), 2])[1:],
        "duplicates": pd.Index(["a", "a", "b"]),
        "same-name": pd.Index([1, 2, 3], name="x"),
        "int-name": pd.Index([1, 2, 3], name=5),
        "tuple-name": pd.Index([1, 2, 3], name=("a", 1)),
        "zone": pd.date_range("2020", periods=3, tz="UTC"),
    }


@pytest.mark.parametrize("name", sorted(indexes(pytest.importorskip("pandas"))))
def test_indexes_come_back(pd, store, name):
    from exca_like.cachedict.handlers.pandas_parts import same_index

    index = indexes(pd)[name]
    again = store(index)
    assert same_index(again, index)
    pd.testing.assert_index_equal(again, index, exact=True, check_exact=True)
    assert type(again) is type(index)
    for cache_type in ("ParquetPandasDataFrame", "DataFrameParts"):
        for frame in (
            pd.DataFrame({"x": [1.0, 2, 3], "y": list("abc")}, index=index),
            pd.DataFrame(index=index),
            pd.DataFrame(columns=index),
            pd.DataFrame([[1.0, 2, 3]], columns=index),
            pd.DataFrame([[1, "a", None]], columns=index, index=["z"]),
        ):
            assert_same_frame(store(frame, cache_type), frame)
    series = pd.Series([1, 2, 3], index=index, name=index.names[0])
    pd.testing.assert_series_equal(store(series), series, check_freq=True)


CSV_LOSES_INDEX = {"mixed", "tuples", "interval", "gaps"}


@pytest.mark.parametrize("name", sorted(indexes(pytest.importorskip("pandas"))))
def test_indexes_in_csv(pd, store, name, no_warnings_said):
    index = indexes(pd)[name]
    frame = pd.DataFrame({"x": [1.0, 2, 3], "y": list("abc")}, index=index)
    if name in CSV_LOSES_INDEX:
        with pytest.warns(UserWarning, match="csv does not keep the index of dtype"):
            assert store(frame, "PandasDataFrame")["x"].tolist() == [1, 2, 3]
        return
    assert_same_frame(store(frame, "PandasDataFrame"), frame)
    frame = pd.DataFrame([[1.0, 2, 3], [4, 5, 6]], columns=index)
    assert_same_frame(store(frame, "PandasDataFrame"), frame)
    frame.index = pd.Index(["u", "v"], name="label")
    assert_same_frame(store(frame, "PandasDataFrame"), frame)


@pytest.mark.parametrize("cache_type", [None, "ParquetPandasDataFrame", "DataFrameParts", "PandasDataFrame"])
def test_frames_with_extras(pd, store, cache_type):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, NAN], "d": [1, 2]})
    frame.attrs = {"source": ("a", 1), 5: pd.Timestamp(1, unit="s")}
    assert_same_frame(store(frame, cache_type), frame)
    unique = frame.set_flags(allows_duplicate_labels=False)
    assert_same_frame(store(unique, cache_type), unique)
    for empty in (pd.DataFrame(), pd.DataFrame(index=[1, 2]), pd.DataFrame({"a": []}), frame.iloc[:0]):
        assert_same_frame(store(empty, cache_type), empty)
    repeated = pd.concat([frame, frame], axis=1)
    repeated.attrs = {}
    assert_same_frame(store(repeated, cache_type), repeated)
    assert not pickled(store.folder)


@pytest.mark.parametrize("cache_type", ["ParquetPandasDataFrame", "DataFrameParts", "PandasDataFrame"])
def test_loaded_frames_can_be_changed(pd, store, cache_type):
    for frame in (
        pd.DataFrame({"a": [1.0, 2, 3]}),
        pd.DataFrame(np.zeros((3, 2))),
        pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [True, False, True]}),
    ):
        again = store(frame, cache_type)
        again.iloc[0, 0] = 5
        again["new"] = again.iloc[:, 0] * 2
        assert again.iloc[0, 0] == 5
        assert again["new"].iloc[0] == 10
        assert again.sort_values("new")["new"].iloc[-1] == 10
        assert len(again.dropna()) == 3
        series = store(frame.iloc[:, 0])
        series.iloc[0] = 7
        assert series.tolist()[0] == 7


def test_large_frames_of_numbers_are_not_read_back(pd, store, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("read back")

    index = pd.MultiIndex.from_product([["a", "b"], range(50)])
    frame = pd.DataFrame({name: np.arange(100.0) for name in "abc"} | {"flag": True})
    frame["when"] = pd.date_range("2020", periods=100).astype("datetime64[us]")
    monkeypatch.setattr(pd, "read_parquet", fail)
    info = store.dump(frame)
    monkeypatch.undo()
    assert "filename" in info
    assert_same_frame(store.load(info), frame)
    levels = frame.set_index(index)
    info = store.dump(levels)
    assert_same_frame(store.load(info), levels)


def test_parquet_is_used_where_it_can_be(pd, store):
    for frame in (
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, NAN]}, index=["u", "v"]),
        pd.DataFrame({"a": [1.0]}, index=pd.date_range("2020", periods=1)),
        pd.DataFrame({"a": pd.Categorical(["x", "y"])}),
    ):
        info = store.dump(frame)
        assert info["#type"] == "ParquetPandasDataFrame"
        assert info["filename"].endswith(".parquet")
        again = pd.read_parquet(store.folder / info["filename"])  # by other programs
        pd.testing.assert_frame_equal(again, frame, check_freq=False)
    assert "parts" in store.dump(pd.DataFrame(np.zeros((2, 2))))


def test_without_pyarrow(pd, tmp_path):
    """In a process that can't import pyarrow, frames are stored by their parts, and files that need it say so."""
    pytest.importorskip("pyarrow")
    code = """
import importlib.util, sys
find = importlib.util.find_spec
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name, name=name)
importlib.util.find_spec = lambda name, *a: None if name == "pyarrow" else find(name, *a)
sys.meta_path.insert(0, Hidden())
import pandas as pd
from exca_like.cachedict.handlers import frames
from test_handlers_optional import Context, assert_same_frame
from pathlib import Path
context = Context(Path(sys.argv[1]), frames.HANDLERS, frames.TYPE_DEFAULTS)
frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
info = context.dump(frame)
assert info["#type"] == "DataFrameParts", info
assert_same_frame(context.load(info), frame)
try:
    context.dump(frame, cache_type="ParquetPandasDataFrame")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pip install pyarrow" in done.stdout


def test_scalars_of_pandas(pd, store):
    autumn = pd.Timestamp("2020-10-25 00:30", tz="UTC")
    values = [
        pd.Timestamp("2020-01-01"),
        pd.Timestamp("2020-01-01 01:02:03.123456789"),
        pd.Timestamp("2020-06-01", tz="Europe/Paris"),
        autumn.tz_convert("Europe/Paris"),
        (autumn + pd.Timedelta("1h")).tz_convert("Europe/Paris"),
        pd.Timestamp(5, unit="s", tz=datetime.timezone(datetime.timedelta(hours=2))),
        pd.Timestamp(np.datetime64(10**12, "s")),
        pd.Timedelta("1D 2h"),
        pd.Timedelta(-1, "ns"),
        pd.Timedelta(np.timedelta64(5, "s")),
        pd.Period("2020-01", "M"),
        pd.Period("2020-01-06", "W-TUE"),
        pd.Interval(0, 1),
        pd.Interval(pd.Timestamp("2020"), pd.Timestamp("2021"), closed="both"),
        pd.Interval(0.5, 1.5, closed="neither"),
        pd.offsets.Day(3),
        pd.offsets.MonthEnd(-1, normalize=True),
        pd.offsets.QuarterBegin(startingMonth=2),
        pd.DateOffset(months=2, hour=3),
        pd.offsets.BusinessHour(start="10:00", end="12:00"),
        pd.offsets.CustomBusinessDay(weekmask="Sun Mon", holidays=["2020-01-05"]),
        pd.CategoricalDtype(["a", "b"], ordered=True),
        pd.CategoricalDtype(),
        pd.Int64Dtype(),
        pd.StringDtype("python"),
    ]
    for value in values:
        again = store(value)
        assert type(again) is type(value)
        assert again == value
        assert repr(again) == repr(value)
        for part in ("unit", "tz", "fold", "closed", "freq"):
            assert getattr(again, part, None) == getattr(value, part, None)
    assert store(pd.NaT) is pd.NaT
    assert store(pd.NA) is pd.NA


def test_zones_by_name(pd, store):
    pytz = pytest.importorskip("pytz")
    for zone in (pytz.timezone("Europe/Paris"), pytz.utc):
        value = pd.Timestamp("2020-06-01", tz=zone)
        again = store(value)
        assert again == value
        assert again.utcoffset() == value.utcoffset()
        frame = pd.DataFrame({"x": pd.Series([value])})
        for cache_type in (None, "DataFrameParts", "PandasDataFrame"):
            assert_same_frame(store(frame, cache_type), frame)


def test_zones_without_a_name_are_refused(pd, store):
    class Zone(datetime.tzinfo):
        def utcoffset(self, when):
            return datetime.timedelta(hours=1)

        def dst(self, when):
            return None

    value = datetime.datetime(2020, 1, 1, tzinfo=Zone())
    with pytest.raises(ConfigTypeError, match="time zone .* can't be stored.*tz_convert"):
        store.dump(pd.Timestamp(value))


def test_subclasses_are_refused(pd, store):
    class Frame(pd.DataFrame):
        pass

    class Series(pd.Series):
        pass

    for value in (Frame({"a": [1]}), Series([1])):
        with pytest.raises(ConfigTypeError, match=r"(Frame|Series) would come back as a plain pandas\.(DataFrame|Series)"):
            store.dump(value)
    for cache_type in ("PandasDataFrame", "DataFrameParts", "ParquetPandasDataFrame"):
        for value in (Frame({"a": [1]}), pd.Series([1]), [1]):
            with pytest.raises(ConfigTypeError):
                store.dump(value, cache_type)
    for cache_type in ("PandasSeries", "PandasScalar", "PandasIndex"):
        with pytest.raises(ConfigTypeError):
            store.dump(pd.DataFrame(), cache_type)


def test_dtypes_of_others_are_refused(pd, store):
    class Length(pd.api.extensions.ExtensionDtype):
        name = "length"
        type = float

    from exca_like.cachedict.handlers import pandas_parts

    class Values:
        dtype = Length()

    with pytest.raises(ConfigTypeError, match="the dtype .* can't be stored"):
        pandas_parts.dump_values(store.context(), Values())


def test_arrow_dtypes(pd, store):
    pa = pytest.importorskip("pyarrow")
    for arrow, values in {
        pa.int64(): [1, None, 3],
        pa.string(): ["a", None, ""],
        pa.list_(pa.int8()): [[1], [], None],
        pa.struct([("a", pa.int8())]): [{"a": 1}, None, {"a": None}],
        pa.decimal128(5, 2): [Decimal("1.10"), None, Decimal(2)],
        pa.timestamp("s", tz="UTC"): [1, None, 2],
    }.items():
        column = pd.Series(values, dtype=pd.ArrowDtype(arrow))
        frame = pd.DataFrame({"x": column})
        again = store(frame)
        assert again["x"].dtype == column.dtype
        pd.testing.assert_frame_equal(again, frame)
        pd.testing.assert_series_equal(store(column), column)


@pytest.mark.parametrize("cache_type", [None, "ParquetPandasDataFrame"])
def test_frames_written_by_exca(pd, tmp_path, cache_type):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "NA"], "c": [0.1 + 0.2, NAN]}, index=pd.Index(["u", "v"], name="id"))
    info = exca_folder(tmp_path, frame, cache_type)
    assert set(info) == {"#type", "filename"}
    assert_same_frame(Store(tmp_path, None).load(info), frame)


def test_csv_file_alone(pd, store):
    (store.folder / "data").mkdir()
    (store.folder / "data" / "x.csv").write_text(",a,b\n0,1,\n1,2,NA\n")
    again = store.load({"#type": "PandasDataFrame", "filename": "data/x.csv"})
    assert again["a"].tolist() == [1, 2]
    assert again["b"].isna().tolist() == [True, False]


# torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_tensors_of_all_dtypes(torch, store):
    numbers = [dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype) and "q" not in str(dtype)]
    assert torch.bfloat16 in numbers
    for dtype in set(numbers) - {torch.complex32}:
        plain = torch.randint(0, 255, (24 * dtype.itemsize,), dtype=torch.uint8)
        if dtype is torch.bool:
            plain = plain % 2
        tensor = plain.view(dtype).reshape(2, 3, 4)
        again = store(tensor)
        assert again.dtype is tensor.dtype
        assert again.shape == tensor.shape
        assert torch.equal(again.view(torch.uint8), tensor.view(torch.uint8))
        assert "filename" in store.info
        assert store.info["dtype"] == str(dtype).removeprefix("torch.")


def test_shapes_of_tensors(torch, store):
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    for tensor in (
        torch.tensor(3.5),
        torch.tensor(True),
        torch.empty(0),
        torch.empty((2, 0, 3), dtype=torch.complex64),
        base.transpose(0, 2),
        base[::2, 1:, ::3],
        base.to(torch.complex128).conj(),
        (base + 1j * base).conj().imag,
        torch.zeros(1).expand(4, 2),
        base.unsqueeze(0).to(memory_format=torch.channels_last),
        torch.tensor([NAN, math.inf, -0.0]),
    ):
        again = store(tensor)
        assert type(again) is torch.Tensor
        assert again.dtype is tensor.dtype
        assert again.shape == tensor.shape
        assert (
            torch.equal(again.nan_to_num(5), tensor.nan_to_num(5)) if tensor.is_floating_point() else torch.equal(again, tensor)
        )
        assert again.is_contiguous()
        assert not again.is_conj()
        assert not again.is_neg()
        assert again._base is None
    assert not pickled(store.folder)


def test_loaded_tensors_own_their_memory(torch, store):
    info = store.dump(torch.arange(4))
    first, second = store.load(info), store.load(info)
    first += 1
    first.resize_(100)
    assert second.tolist() == [0, 1, 2, 3]
    assert store.load(info).tolist() == [0, 1, 2, 3]
    with torch.device("meta"):
        assert store.load(info).device.type == "cpu"
    (store.folder / info["filename"]).unlink()
    assert second.tolist() == [0, 1, 2, 3]


def test_tensors_that_need_a_file(torch, store):
    base = torch.arange(10_000, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what is experimental
        values = [
            torch.nn.Parameter(base[:3].clone()),
            torch.nn.Parameter(torch.arange(3), requires_grad=False),
            base[1:3].clone().requires_grad_(),
            base[:3].clone().requires_grad_() * 2,
            torch.eye(3).to_sparse(),
            torch.eye(3).to_sparse().requires_grad_(),
            torch.eye(3).to_sparse_csr(),
            torch.sparse_coo_tensor(torch.tensor([[0, 0]]), torch.tensor([1.0, 2.0]), (3,)),
            torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.quint8),
            torch.nested.nested_tensor([torch.zeros(2), torch.ones(3)]),
        ]
    for value in values:
        again = store(value)
        assert type(again) is type(value)
        assert again.layout is value.layout
        assert again.dtype is value.dtype
        assert again.requires_grad == value.requires_grad
        assert again.is_quantized == value.is_quantized
        assert again.is_nested == value.is_nested
        if value.is_nested:
            assert all(map(torch.equal, again.unbind(), value.unbind()))
        elif value.is_quantized:
            assert torch.equal(again, value)
        else:
            assert torch.equal(again.detach().to_dense(), value.detach().to_dense())
        assert store.info["filename"].endswith(".pt")
    view = torch.nn.Parameter(base)[:2]
    store.dump(view)
    assert (store.folder / store.info["filename"]).stat().st_size < 10_000


def test_tensors_that_are_refused(torch, store):
    class Special(torch.Tensor):
        pass

    with pytest.raises(ConfigTypeError, match="Special would come back as a plain torch.Tensor"):
        store.dump(torch.zeros(2).as_subclass(Special))
    with pytest.raises(ConfigTypeError, match="meta"):
        store.dump(torch.empty(2, device="meta"))
    with pytest.raises(ConfigTypeError, match="weights_only"):
        store.dump(torch.nn.UninitializedParameter())
    with pytest.raises(ConfigTypeError, match="not values of type builtins.list"):
        store.dump([1.0], "TorchTensor")


def test_files_of_tensors_run_no_code(torch, store):
    torch.save({"tensor": Path("x")}, store.folder / "x.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        store.load({"#type": "TorchTensor", "filename": "x.pt"})


def test_tensors_written_by_exca(torch, tmp_path):
    for number, tensor in enumerate([torch.arange(3), torch.tensor(2.5), torch.zeros((2, 3), dtype=torch.complex64)]):
        folder = tmp_path / str(number)
        info = exca_folder(folder, tensor)
        assert "length" not in info
        again = Store(folder, None).load(info)
        assert again.dtype is tensor.dtype
        assert torch.equal(again.reshape(tensor.shape), tensor)  # exca stores a scalar as a vector of one
    torch.save(torch.arange(3), tmp_path / "x.pt")
    assert torch.equal(Store(tmp_path, None).load({"#type": "TorchTensor", "filename": "x.pt"}), torch.arange(3))


# nibabel


@pytest.fixture
def nibabel():
    return pytest.importorskip("nibabel")


AFFINE = np.array([[0.1, 0, 0, 1 / 3], [0, 2, 0, -5], [0, 0, 3.3, 7], [0, 0, 0, 1]])


def assert_same_image(first, second):
    assert type(first) is type(second)
    assert first.shape == second.shape
    assert np.array_equal(first.affine, second.affine)
    assert first.get_data_dtype() == second.get_data_dtype()
    data, other = np.asanyarray(first.dataobj), np.asanyarray(second.dataobj)
    assert data.dtype == other.dtype
    assert np.array_equal(data, other, equal_nan=data.dtype.kind in "fc")
    skipped = ("vox_offset",)
    for name in second.header:
        if name not in skipped:
            one, two = first.header[name], second.header[name]
            assert np.array_equal(one, two, equal_nan=one.dtype.kind == "f"), name
    assert first.header.extensions == second.header.extensions
    assert first.extra == second.extra


def test_images(nibabel, store):
    random = np.random.default_rng(0)
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        for dtype in "uint8 int8 int16 uint16 int32 float32 float64 complex64 int64 uint64".split():
            data = (random.standard_normal((2, 3, 4)) * 50).astype(dtype)
            image = kind(data, AFFINE, dtype=dtype)
            image.header.set_xyzt_units("mm", "sec")
            image.header["descrip"] = b"made here"
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
            assert_same_image(store(image), image)
            assert store.info["filename"].endswith(".nii.gz")
    extra = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), AFFINE, extra={"run": 1})
    assert_same_image(store(extra), extra)


def test_images_keep_values_that_their_header_would_round(nibabel, store):
    data = np.random.default_rng(0).standard_normal((2, 3, 4))
    image = nibabel.Nifti1Image(data, AFFINE)
    image.set_data_dtype(np.int16)
    assert_same_image(store(image), image)
    for dtype in (bool, np.float16, ">i2", ">f8"):
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.float64)
        image = nibabel.Nifti1Image((data * 5).astype(dtype), AFFINE, header)
        assert_same_image(store(image), image)
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 7
    assert_same_image(store(nibabel.Nifti1Image(colours, AFFINE)), nibabel.Nifti1Image(colours, AFFINE))
    plain = nibabel.Nifti1Image(data, None)
    again = store(plain)
    assert again.affine is None
    assert np.array_equal(again.get_fdata(), data)


def test_images_that_are_still_in_a_file(nibabel, store, tmp_path):
    data = np.random.default_rng(0).standard_normal((4, 5, 6))
    for scaled in (False, True):
        image = nibabel.Nifti1Image(data, AFFINE)
        image.set_data_dtype(np.int16 if scaled else np.float64)
        image.to_filename(tmp_path / "original.nii")
        lazy = nibabel.load(tmp_path / "original.nii")
        assert nibabel.is_proxy(lazy.dataobj)
        info = store.dump(lazy)
        stored = nibabel.load(store.folder / info["filename"])
        assert stored.get_data_dtype() == (np.int16 if scaled else np.float64)  # not larger than it was
        again = store.load(info)
        assert nibabel.is_proxy(again.dataobj)
        assert np.array_equal(again.get_fdata(), lazy.get_fdata())
        assert again.get_data_dtype() == lazy.get_data_dtype()
    info = store.dump(nibabel.Nifti1Image(data, AFFINE))
    again = store.load(info)
    (store.folder / info["filename"]).unlink()
    assert np.array_equal(again.get_fdata(), data)


def test_images_that_are_refused(nibabel, store):
    pair = nibabel.Nifti1Pair(np.zeros((2, 2, 2), np.float32), AFFINE)
    for value in (pair, nibabel.MGHImage(np.zeros((2, 2, 2), np.float32), AFFINE), 5):
        with pytest.raises(ConfigTypeError, match="from_image"):
            store.dump(value, "NibabelNifti")


def test_images_written_by_exca(nibabel, tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    info = exca_folder(tmp_path, image)
    assert set(info) == {"#type", "filename"}
    again = Store(tmp_path, None).load(info)
    assert np.array_equal(again.get_fdata(), image.get_fdata())
    assert np.array_equal(again.affine, image.affine)


# mne


@pytest.fixture
def mne():
    return pytest.importorskip("mne")


def recording(mne, types=("eeg", "eog", "stim"), samples=300, first=50, date=1e9):
    random = np.random.default_rng(0)
    info = mne.create_info([f"c{number}" for number in range(len(types))], 100.0, list(types))
    raw = mne.io.RawArray(random.standard_normal((len(types), samples)) * 1e-5, info, first_samp=first, verbose="error")
    raw.set_meas_date(date)
    raw.set_annotations(mne.Annotations([0.6, 1], [0.0, 0.5], ["hé", "Stimulus/S 1"], orig_time=raw.info["meas_date"]))
    raw.info["bads"] = ["c1"]
    return raw


def assert_same_recording(first, second):
    assert first.ch_names == second.ch_names
    assert first.get_channel_types() == second.get_channel_types()
    assert first.info["sfreq"] == second.info["sfreq"]
    assert first.info["bads"] == second.info["bads"]
    assert first.info["meas_date"] == second.info["meas_date"]
    assert list(first.annotations.description) == list(second.annotations.description)
    assert np.allclose(first.annotations.onset - first.first_time, second.annotations.onset - second.first_time)
    assert list(first.annotations.duration) == list(second.annotations.duration)
    assert np.array_equal(first.times, second.times)


@pytest.mark.parametrize("date", [None, 1e9])
def test_recordings(mne, store, tmp_path, date):
    raw = recording(mne, date=date)
    again = store(raw)
    assert store.info["filename"].endswith("-raw.fif")
    assert_same_recording(again, raw)
    assert np.array_equal(again.get_data(), raw.get_data())
    assert again.first_samp == raw.first_samp
    assert again.annotations == raw.annotations
    assert again.preload
    (store.folder / store.info["filename"]).unlink()
    assert np.array_equal(again.get_data(), raw.get_data())

    raw.save(tmp_path / "original-raw.fif", fmt="single", verbose="error")
    lazy = mne.io.read_raw_fif(tmp_path / "original-raw.fif", verbose="error")
    lazy.crop(0.1, 0.9).pick(["c0", "c2"])
    again = store(lazy)
    assert not again.preload
    assert np.array_equal(again.get_data(), lazy.get_data())
    assert again.first_samp == lazy.first_samp


def test_recordings_in_several_files(mne, store, monkeypatch):
    from exca_like.cachedict.handlers import recordings

    monkeypatch.setattr(recordings, "_SPLIT", "3MB")
    raw = recording(mne, samples=200_000)
    context = store.context()
    info = context.dump(raw)
    assert len(info["parts"]) > 0
    assert context.names[1:] == info["parts"]
    assert np.array_equal(context.load(info).get_data(), raw.get_data())


def test_failed_save_leaves_no_parts(mne, store, monkeypatch):
    raw = recording(mne)

    def fail(path, **options):
        Path(path).with_name(Path(path).name.replace("-raw.fif", "-raw-1.fif")).write_bytes(b"x")
        raise OSError(28, "no space left")

    monkeypatch.setattr(raw, "save", fail)
    with pytest.raises(OSError, match="no space"):
        store.dump(raw)
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


def test_recordings_that_are_refused(mne, store):
    raw = mne.io.RawArray(np.ones((1, 5)) * 1j, mne.create_info(1, 100.0), verbose="error")
    for cache_type in ("MneRawFif", "MneRawBrainVision"):
        with pytest.raises(ConfigTypeError, match="complex"):
            store.dump(raw, cache_type)
        with pytest.raises(ConfigTypeError, match="not builtins.int"):
            store.dump(5, cache_type)


def test_brainvision_needs_pybv(mne, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pybv", None)
    with pytest.raises(ImportError, match="pip install pybv"):
        store.dump(recording(mne), "MneRawBrainVision")


@pytest.mark.parametrize("date", [None, 1e9])
@pytest.mark.parametrize("types", [("eeg", "eog", "stim"), ("mag", "grad", "misc"), ("hbo", "ecog", "resp")])
def test_brainvision(mne, store, types, date):
    pytest.importorskip("pybv")
    raw = recording(mne, types, date=date)
    again = store(raw, "MneRawBrainVision")
    assert_same_recording(again, raw)
    assert np.allclose(again.get_data(), raw.get_data(), rtol=1e-6, atol=0)
    assert again.preload
    assert sorted(path.suffix for path in store.folder.rglob("*.*")) == [".eeg", ".vhdr", ".vmrk"]


def test_recordings_written_by_exca(mne, tmp_path, capsys):
    raw = recording(mne)
    info = exca_folder(tmp_path / "fif", raw)
    assert set(info) == {"#type", "filename"}
    again = Store(tmp_path / "fif", None).load(info)
    assert_same_recording(again, raw)
    assert np.allclose(again.get_data(), raw.get_data(), rtol=1e-6, atol=0)
    pytest.importorskip("pybv")
    info = exca_folder(tmp_path / "bv", raw, "MneRawBrainVision")
    again = Store(tmp_path / "bv", None).load(info)
    assert np.allclose(again.get_data(), raw.get_data(), rtol=1e-6, atol=0)


def test_names_and_lazy_imports():
    """Handlers are found by name and type; the module of one library loads no other."""
    code = """
import sys
from exca_like.cachedict.handlers import {module} as handlers
for name, handler in handlers.HANDLERS.items():
    assert handler.__name__ == name
    assert callable(handler.__dump_info__) and callable(handler.__load_from_info__)
assert set(handlers.TYPE_DEFAULTS.values()) <= set(handlers.HANDLERS.values())
print(*[name for name in ("pandas", "torch", "nibabel", "mne", "pyarrow", "pybv") if name in sys.modules])
"""
    for library, module in {"torch": "tensors", "nibabel": "imaging", "mne": "recordings"}.items():
        pytest.importorskip(library)
        done = subprocess.run([sys.executable, "-c", code.format(module=module)], capture_output=True, text=True, check=True)
        assert library in done.stdout.split()
        assert not {"torch", "nibabel", "mne"} - {library} & set(done.stdout.split())
