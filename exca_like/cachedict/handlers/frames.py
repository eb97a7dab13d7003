"""Pandas: frames as Parquet or by their parts (as csv: `csv_frames`); Series, indexes, arrays and scalars by their parts.

Nothing here is ever pickled.
"""

import importlib.util
import io
import os
from typing import Any

import numpy as np
import pandas as pd

from exca_like.cachedict.handlers import pandas_parts as parts
from exca_like.cachedict.handlers.csv_frames import PandasDataFrame
from exca_like.errors import ConfigTypeError


class DataFrameParts:
    """Any `pandas.DataFrame`, exactly: dtypes of pandas, mixed columns, any index and labels, ``attrs``.

    Columns of numbers are stored as arrays, others as lists of their values.

    Raises
    ------
    ConfigTypeError
        The frame is of a subclass, or a column is of a dtype of another library.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        parts.check_type(value, pd.DataFrame)
        return parts.dump_frame(ctx, value) | parts.dump_extras(ctx, value)

    @classmethod
    def __load_from_info__(cls, ctx: Any, index: Any, columns: Any, blocks: Any, **extras: Any) -> Any:
        return parts.load_extras(ctx, parts.load_frame(ctx, index, columns, blocks), extras)


class ParquetPandasDataFrame:
    """A `pandas.DataFrame` in a Parquet file, which many programs read.

    A frame that would not come back from Parquet exactly as it is (labels that are no text, several levels that change,
    mixed columns, complex numbers, ...) is stored as `DataFrameParts` does. Only what is not known to be safe is tried out
    for that; numbers, times and text are never read back. Needs pyarrow.

    Raises
    ------
    ConfigTypeError
        The frame is of a subclass, or a column is of a dtype of another library.
    ImportError
        pyarrow is missing.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        parts.check_type(value, pd.DataFrame)
        if importlib.util.find_spec("pyarrow") is None:
            msg = "Parquet files need pyarrow: pip install pyarrow, or use cache_type='DataFrameParts'"
            raise ImportError(msg, name="pyarrow")
        frame = _without_extras(value)
        if not _parquet_keeps(frame):
            return {"parts": ctx.dump(value, cache_type="DataFrameParts")}
        info = {"filename": ctx.key_path(suffix=".parquet"), **parts.dump_extras(ctx, value)}
        frame.to_parquet(os.path.join(ctx.folder, info["filename"]), engine="pyarrow")
        offset = parts.offset_of(frame.index)
        return info if offset is None else info | {"freq": parts.dump_offset(ctx, offset)}

    @classmethod
    def __load_from_info__(cls, ctx: Any, **info: Any) -> Any:
        if "parts" in info:
            return ctx.load(info["parts"])
        frame: Any = pd.read_parquet(ctx.path(info["filename"]), engine="pyarrow")
        offset = parts.load_offset(ctx, info.get("freq"))
        if offset is not None:
            frame.index.freq = offset
        return parts.load_extras(ctx, frame, info)


def _without_extras(value: Any) -> Any:
    """The frame without ``attrs``, which pandas would write as JSON, or fail to; the data are shared."""
    frame = value.copy(deep=False)
    frame.attrs = {}
    return frame


def _parquet_keeps(frame: Any) -> bool:
    """Whether a frame comes back from Parquet as it is; large columns of numbers are not tried."""
    columns, index = frame.columns, frame.index
    simple_labels = type(columns) is pd.Index and _is_text(columns) and columns.is_unique and parts.is_name(columns.name)
    if not simple_labels or not all(parts.is_name(name) and name not in columns for name in index.names):
        return False
    known = isinstance(index, pd.RangeIndex) or _is_safe_index(index)
    if not known and not _survives(pd.DataFrame({"values": np.zeros(len(index))}, index=index)):
        return False
    unsafe = [number for number, dtype in enumerate(frame.dtypes) if not _is_safe(dtype)]
    for number in unsafe:
        column = frame.iloc[:, number]
        if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) not in _SINGLE_KINDS:
            return False
    if not unsafe:
        return True
    doubtful = frame.iloc[:, unsafe].reset_index(drop=True)
    # most of what is lost is lost in any row: find that out cheaply
    return _survives(doubtful.iloc[:100]) and (len(doubtful) <= 100 or _survives(doubtful))


# what columns of objects hold, if there is a Parquet type for it
_SINGLE_KINDS = ("string", "bytes", "date", "decimal")


def _is_text(labels: Any) -> bool:
    default = pd.Index(["text"]).dtype
    return bool(labels.dtype == default) and pd.api.types.infer_dtype(labels, skipna=False) == "string"


def _is_safe_index(index: Any) -> bool:
    if type(index) not in (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex):
        return False
    return isinstance(index.dtype, np.dtype) and _is_safe(index.dtype)


def _is_safe(dtype: Any) -> bool:
    """Whether columns of a dtype are known to come back from Parquet as they are."""
    if isinstance(dtype, np.dtype):
        if dtype.kind in "mM":
            return np.datetime_data(dtype)[0] in ("ms", "us", "ns")
        return dtype.kind in "biuf" and dtype.isnative and (dtype.kind != "f" or dtype.itemsize in (4, 8))
    if isinstance(dtype, pd.StringDtype):
        return bool(dtype == pd.Series(["text"]).dtype)  # what reading gives for text
    return dtype.construct_array_type() in (pd.arrays.BooleanArray, pd.arrays.IntegerArray)


def _survives(frame: Any) -> bool:
    try:
        stream = io.BytesIO()
        frame.to_parquet(stream, engine="pyarrow")
        stream.seek(0)
        again = pd.read_parquet(stream, engine="pyarrow")
    except Exception:  # whatever pyarrow can't write, the parts can
        return False
    return parts.same_index(frame.index, again.index) and all(
        parts.same_values(frame.iloc[:, number], again.iloc[:, number]) for number in range(frame.shape[1])
    )


class PandasSeries:
    """A `pandas.Series`, exactly: dtype, index, name, ``attrs``."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        parts.check_type(value, pd.Series)
        return {
            "values": parts.dump_values(ctx, value),
            "index": parts.dump_index(ctx, value.index),
            "names": parts.dump_names(ctx, [value.name]),
            **parts.dump_extras(ctx, value),
        }

    @classmethod
    def __load_from_info__(cls, ctx: Any, values: Any, index: Any, names: Any, **extras: Any) -> Any:
        (name,) = parts.load_names(ctx, names)
        series = parts.series_of(parts.load_values(ctx, values), parts.load_index(ctx, index), name)
        return parts.load_extras(ctx, series, extras)


class PandasIndex:
    """A `pandas.Index` of any kind, exactly: dtype, levels, names, frequency."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        return {"index": parts.dump_index(ctx, value)}

    @classmethod
    def __load_from_info__(cls, ctx: Any, index: Any) -> Any:
        return parts.load_index(ctx, index)


class PandasArray:
    """An array of pandas (`pandas.Categorical`, `pandas.arrays.IntegerArray`, ...), exactly."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        return {"array": parts.dump_values(ctx, value)}

    @classmethod
    def __load_from_info__(cls, ctx: Any, array: Any) -> Any:
        values = parts.load_values(ctx, array)
        if not isinstance(values, np.ndarray):
            return values
        return pd.array(values) if values.dtype.kind in "mM" else pd.arrays.NumpyExtensionArray(values)


class PandasScalar:
    """A single value of pandas: Timestamp, Timedelta, NaT, NA, Period, Interval, an offset or a dtype."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        kind = type(value)
        if value is pd.NaT or value is pd.NA:
            return {"missing": str(value).strip("<>")}
        if kind is pd.Timestamp:
            count, zone = int(value.asm8.view("i8")), parts.dump_zone(ctx, value.tz)
            return {"time": count, "unit": value.unit, "tz": zone}
        if kind is pd.Timedelta:
            return {"duration": int(value.asm8.view("i8")), "unit": value.unit}
        if kind is pd.Period:
            return {"period": value.ordinal, "freq": parts.dump_offset(ctx, value.freq)}
        if kind is pd.Interval:
            return {"interval": [ctx.dump(value.left), ctx.dump(value.right)], "closed": value.closed}
        if isinstance(value, pd.offsets.BaseOffset):
            return {"step": parts.dump_offset(ctx, value)}
        if isinstance(value, pd.api.extensions.ExtensionDtype):
            return {"dtype": parts.dump_dtype(ctx, value)}
        msg = f"PandasScalar stores single values of pandas, not a {kind.__module__}.{kind.__qualname__}"
        raise ConfigTypeError(msg)

    @classmethod
    def __load_from_info__(cls, ctx: Any, **info: Any) -> Any:
        if "missing" in info:
            return getattr(pd, info["missing"])
        if "time" in info:
            time = pd.Timestamp(np.datetime64(info["time"], info["unit"]))
            zone = parts.load_zone(ctx, info["tz"])
            return time if zone is None else time.tz_localize("UTC").tz_convert(zone)
        if "duration" in info:
            return pd.Timedelta(np.timedelta64(info["duration"], info["unit"]))
        if "period" in info:
            return pd.Period(ordinal=info["period"], freq=parts.load_offset(ctx, info["freq"]))
        if "interval" in info:
            left, right = map(ctx.load, info["interval"])
            return pd.Interval(left, right, info["closed"])
        if "step" in info:
            return parts.load_offset(ctx, info["step"])
        return parts.load_dtype(ctx, info["dtype"])


HANDLERS: dict[str, type] = {
    "ParquetPandasDataFrame": ParquetPandasDataFrame,
    "PandasDataFrame": PandasDataFrame,
    "DataFrameParts": DataFrameParts,
    "PandasSeries": PandasSeries,
    "PandasIndex": PandasIndex,
    "PandasArray": PandasArray,
    "PandasScalar": PandasScalar,
}
TYPE_DEFAULTS: dict[type, type] = {
    pd.DataFrame: DataFrameParts if importlib.util.find_spec("pyarrow") is None else ParquetPandasDataFrame,
    pd.Series: PandasSeries,
    pd.Index: PandasIndex,
    pd.api.extensions.ExtensionArray: PandasArray,
    pd.api.extensions.ExtensionDtype: PandasScalar,
    pd.offsets.BaseOffset: PandasScalar,
    **dict.fromkeys([pd.Timestamp, pd.Timedelta, pd.Period, pd.Interval, type(pd.NaT), type(pd.NA)], PandasScalar),
}
