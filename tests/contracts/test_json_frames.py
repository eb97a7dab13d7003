"""Frames in JSON, under the contract of handlers; and what they refuse."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from exca_like.cachedict import CacheDict
from exca_like.cachedict.handlers import pandas_parts as parts
from exca_like.errors import ConfigTypeError
from exca_like.testing import check_handler

PLAIN = pd.DataFrame({"a": [1, 2], "b": [0.1, float("nan")], "c": ["x", None], "d": [True, False]})
NOTED = PLAIN.copy()
NOTED.attrs = {"unit": (1, "s")}
FRAMES = {
    "plain": [PLAIN, NOTED],
    "empty": [pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame(index=[1, 2, 3])],
    "times": [
        pd.DataFrame(
            {
                "zone": pd.date_range("2024-10-27", periods=3, freq="h", tz="Europe/Paris"),
                "time": pd.to_datetime(["2024-01-01", None, "2024-01-02T00:00:00.123456789"], format="ISO8601"),
                "span": pd.to_timedelta([1, None, -3], "s"),
            }
        )
    ],
    "dtypes": [
        pd.DataFrame(
            {
                "i": pd.array([1, None], "Int64"),
                "category": pd.Categorical(["x", None]),
                "object": np.array(["a", [1, {"b": 2.5}]], object),
                "f": np.array([0.1, -0.0], "f4"),
                "u": np.array([0, 2**64 - 1], "u8"),
                "string": pd.array(["a", None], "string"),
            },
            index=pd.MultiIndex.from_tuples([("p", 1), ("q", 2)], names=["n", None]),
        )
    ],
    "large": [pd.DataFrame({"x": np.arange(20_000), "y": np.linspace(0, 1, 20_000)})],
}


def same_frames(loaded, frame):
    return (
        parts.same_index(loaded.index, frame.index)
        and parts.same_index(loaded.columns, frame.columns)
        and all(parts.same_values(loaded.iloc[:, number], frame.iloc[:, number]) for number in range(frame.shape[1]))
        and loaded.attrs == frame.attrs
    )


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name, tmp_path):
    check_handler(FRAMES[name], tmp_path, cache_type="PandasJson", equal=same_frames, flips=4)


def test_the_file_is_a_list_of_records(tmp_path):
    cache = CacheDict(tmp_path, cache_type="PandasJson")
    with cache.write():
        cache["key"] = PLAIN
    (path,) = cache.files("key")
    assert path.suffix == ".json"
    assert json.loads(path.read_text()) == [{"a": 1, "b": 0.1, "c": "x", "d": True}, {"a": 2, "b": None, "c": None, "d": False}]
    assert len(path.read_text().splitlines()) == 4


REFUSED = {
    "infinity": [np.inf],
    "two kinds of missing": pd.Series([None, np.nan], dtype=object),
    "bytes": [b"x"],
    "tuples": [(1,)],
    "dates": [datetime.date(2024, 1, 1)],
    "objects that become text": pd.Series([datetime.datetime(2024, 1, 1)], dtype=object),
    "scalars of numpy": pd.Series([np.int64(3)], dtype=object),
    "large integers": [2**70],
    "complex numbers": [1j],
    "periods": pd.period_range("2024", periods=2),
    "intervals": pd.interval_range(0, 2),
    "odd keys": [{1: 2}],
    "surrogates": pd.Series(["\ud800"], dtype=object),
    "categories of tuples": pd.Categorical([(1,), (2,)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused(name, tmp_path):
    cache = CacheDict(tmp_path, cache_type="PandasJson")
    with cache.write(), pytest.raises(ConfigTypeError, match="JSON.*ParquetPandasDataFrame"):
        cache["key"] = pd.DataFrame({"fine": 1, "odd": REFUSED[name]})
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "value", [pd.DataFrame({1: [2]}), pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.Series([1]), [1]], ids=str
)
def test_what_is_no_frame_of_named_columns_is_refused(value, tmp_path):
    cache = CacheDict(tmp_path, cache_type="PandasJson")
    with cache.write(), pytest.raises(ConfigTypeError):
        cache["key"] = value


def test_notebooks_are_valid_and_other_lists_are_refused(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    cache = CacheDict(tmp_path, cache_type="Notebook")
    with cache.write():
        cache["key"] = [["import os", "os.getcwd()"], "a = 1\nb = 2\n"]
        for value in ("code", [1], [["a\nb", "c"]], [("a",)], [["a", 1]], ["\ud800"]):
            with pytest.raises(ConfigTypeError):
                cache["refused"] = value
    (path,) = cache.files("key")
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells] == ["import os\nos.getcwd()", "a = 1\nb = 2\n"]
    assert path.suffix == ".ipynb" and (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
