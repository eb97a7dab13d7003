"""Keys of pandas objects: column by column."""

import sys
from typing import Any

from exca_like.content.arrays import feed_array
from exca_like.content.parts import Parts, feed_tag
from exca_like.content.values import FOREIGN, feed_at
from exca_like.names import qualified_name


def _feed_pandas(value: Any, parts: Parts, depth: int) -> bool:
    pandas: Any = sys.modules["pandas"]
    for name in getattr(type(value), "_metadata", ()):  # attributes of subclasses
        if name not in ("_name", "name"):
            feed_at(f".{name}", getattr(value, name, None), parts, depth)
    if value is pandas.NA or value is pandas.NaT:
        feed_tag(f"pandas {value}", parts)
    elif isinstance(value, pandas.DataFrame):
        feed_tag(f"frame {qualified_name(type(value))}{value.shape}", parts)
        _feed_pandas(value.columns, parts, depth)
        _feed_pandas(value.index, parts, depth)
        for number in range(value.shape[1]):
            _feed_column(value.iloc[:, number], parts, depth)
        feed_at(".attrs", value.attrs, parts, depth)
    elif isinstance(value, pandas.Series):
        feed_tag(f"series {qualified_name(type(value))}", parts)
        feed_at(".name", value.name, parts, depth)
        _feed_pandas(value.index, parts, depth)
        _feed_column(value, parts, depth)
        feed_at(".attrs", value.attrs, parts, depth)
    elif isinstance(value, pandas.MultiIndex):
        feed_tag("multiindex", parts)
        feed_at(".names", list(value.names), parts, depth)
        for level in range(value.nlevels):
            _feed_column(value.get_level_values(level), parts, depth)
    elif isinstance(value, pandas.RangeIndex):
        feed_tag("rangeindex", parts)
        feed_at("", (value.name, value.start, value.stop, value.step), parts, depth)
    elif isinstance(value, pandas.Index):
        feed_tag(f"index {type(value).__name__}", parts)
        feed_at(".name", value.name, parts, depth)
        feed_at(".freq", getattr(value, "freqstr", None), parts, depth)
        _feed_column(value, parts, depth)
    elif isinstance(value, pandas.api.extensions.ExtensionArray):
        feed_tag("extension", parts)
        _feed_column(pandas.Series(value), parts, depth)
    else:
        return False
    return True


def _feed_column(column: Any, parts: Parts, depth: int) -> None:
    numpy: Any = sys.modules["numpy"]
    dtype = column.dtype
    feed_tag(f"column {dtype}", parts)
    if isinstance(dtype, numpy.dtype):
        feed_array(column.to_numpy(), parts, depth)
        return
    if hasattr(column.array, "asi8"):  # times with a zone, periods: what they are is part of the dtype
        feed_array(column.array.asi8, parts, depth)
        return
    categories = getattr(dtype, "categories", None)
    if categories is not None and hasattr(dtype, "ordered"):
        feed_at("", bool(dtype.ordered), parts, depth)
        _feed_pandas(categories, parts, depth)
        feed_array(numpy.asarray(column.cat.codes if hasattr(column, "cat") else column.codes), parts, depth)
        return
    feed_array(column.to_numpy(dtype=object), parts, depth)


FOREIGN["pandas"] = _feed_pandas
