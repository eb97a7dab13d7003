"""Pandas: frames as Parquet, as csv or by their parts; Series, indexes, arrays and scalars by their parts.

Nothing here is ever pickled.
"""

import contextlib
import importlib.util
import io
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from exca_like.cachedict.handlers import pandas_parts as parts
from exca_like.errors import ConfigTypeError


def _check_type(value: Any, expected: type) -> None:
    kind = type(value)
    if kind is expected:
        return
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, expected):
        msg = (
            f"a {name} would come back as a plain pandas.{expected.__name__}: convert it, register a handler for "
            f"{kind.__qualname__}, or use cache_type='Pickle'"
        )
    else:
        msg = f"this handler stores a pandas.{expected.__name__}, not a {name}"
    raise ConfigTypeError(msg)


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
        _check_type(value, pd.DataFrame)
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
        _check_type(value, pd.DataFrame)
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
        frame = pd.read_parquet(ctx.path(info["filename"]), engine="pyarrow")
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
    if not (isinstance(index, pd.RangeIndex) or _is_safe_index(index)):
        if not _survives(pd.DataFrame({"values": np.zeros(len(index))}, index=index)):
            return False
    unsafe = [number for number, dtype in enumerate(frame.dtypes) if not _is_safe(dtype)]
    for number in unsafe:
        column = frame.iloc[:, number]
        if column.dtype == object and pd.api.types.infer_dtype(column, skipna=False) not in _SINGLE_KINDS:
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
    return labels.dtype == default and pd.api.types.infer_dtype(labels, skipna=False) == "string"


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
        return dtype == pd.Series(["text"]).dtype  # what reading gives for text
    return isinstance(dtype, pd.BooleanDtype) or (
        pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_integer_dtype(dtype) and _is_masked(dtype)
    )


def _is_masked(dtype: Any) -> bool:
    return dtype.construct_array_type() is pd.arrays.IntegerArray


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


class PandasDataFrame:
    """A `pandas.DataFrame` in a csv file, which people and spreadsheets read.

    The index comes first. Dtypes, labels and ``attrs`` are stored beside the file, so that numbers, booleans, text, times
    (with zones), periods, categories and the dtypes with missing values come back as they are. Csv loses: which of
    ``None``, ``NaN``, ``NaT`` stood in a column of objects; empty text in a column of text that also has missing values;
    the types of values in mixed columns; intervals, sparse and Arrow dtypes, which come back as text. The file is read back
    when it is stored, and a `UserWarning` tells of each kind of loss once per process. `ParquetPandasDataFrame` loses
    nothing.

    Raises
    ------
    ConfigTypeError
        The frame is of a subclass, or a column is of a dtype of another library.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        _check_type(value, pd.DataFrame)
        layout = _CsvLayout.of(value)
        info = layout.dump(ctx) | parts.dump_extras(ctx, value)
        filename: str = ctx.key_path(suffix=".csv")
        path = os.path.join(ctx.folder, filename)
        value.to_csv(path, lineterminator="\n", errors="surrogatepass")
        _warn_of_losses(value, layout.read(path))
        return {"filename": filename, **info}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, **info: Any) -> Any:
        path = ctx.path(filename)
        if "dtypes" not in info:  # exca stores the file only
            frame = pd.read_csv(path, index_col=0, keep_default_na=False, na_values=[""], float_precision="round_trip")
        else:
            frame = _CsvLayout.load(ctx, info).read(path)
        return parts.load_extras(ctx, frame, info)


@dataclass(frozen=True)
class _CsvLayout:
    """What a csv file does not say of itself; the levels of the index count as columns, and come first."""

    columns: Any  # labels
    names: list[Any]  # of the levels
    range: Any  # the index, if it is a RangeIndex
    offset: Any  # frequency of the index
    dtypes: list[Any]
    gaps: set[int]  # columns with missing values
    mixed: set[int]  # columns of objects that are not all text
    rows: int

    @classmethod
    def of(cls, frame: Any) -> "_CsvLayout":
        index = frame.index
        levels = [index.get_level_values(number) for number in range(index.nlevels)]
        fields = levels + [frame.iloc[:, number] for number in range(frame.shape[1])]
        return cls(
            columns=frame.columns,
            names=list(index.names),
            range=index if isinstance(index, pd.RangeIndex) else None,
            offset=parts.offset_of(index),
            dtypes=[field.dtype for field in fields],
            gaps={number for number, field in enumerate(fields) if field.isna().any()},
            mixed={
                number
                for number, field in enumerate(fields)
                if field.dtype == object and pd.api.types.infer_dtype(field, skipna=True) not in ("string", "empty")
            },
            rows=len(frame),
        )

    def dump(self, ctx: Any) -> dict[str, Any]:
        info = {
            "columns": parts.dump_index(ctx, self.columns),
            "names": parts.dump_names(ctx, self.names),
            "dtypes": [_dump_dtype(ctx, dtype) for dtype in self.dtypes],
            "gaps": sorted(self.gaps),
            "mixed": sorted(self.mixed),
            "rows": self.rows,
        }
        if self.range is not None:
            info["range"] = parts.dump_index(ctx, self.range)
        if self.offset is not None:
            info["freq"] = parts.dump_offset(ctx, self.offset)
        return info

    @classmethod
    def load(cls, ctx: Any, info: dict[str, Any]) -> "_CsvLayout":
        return cls(
            columns=parts.load_index(ctx, info["columns"]),
            names=parts.load_names(ctx, info["names"]),
            range=parts.load_index(ctx, info["range"]) if "range" in info else None,
            offset=parts.load_offset(ctx, info.get("freq")),
            dtypes=[parts.load_dtype(ctx, dtype) for dtype in info["dtypes"]],
            gaps=set(info["gaps"]),
            mixed=set(info["mixed"]),
            rows=info["rows"],
        )

    def read(self, path: str) -> Any:
        """The frame of a file."""
        values = self._values(path)
        levels = values[: len(self.names)]
        if self.range is not None:
            index = self.range
        elif len(levels) == 1:
            index = parts.index_of(levels[0], self.names[0])
            if self.offset is not None and type(index) in (pd.DatetimeIndex, pd.TimedeltaIndex):
                index.freq = self.offset
        else:
            index = pd.MultiIndex.from_arrays([parts.index_of(level, None) for level in levels], names=self.names)
        return parts.frame_of(values[len(levels) :], index, self.columns)

    def _values(self, path: str) -> list[Any]:
        if not self.rows:
            return [_empty(dtype) for dtype in self.dtypes]
        parsed = {number: _parsed_as(dtype) for number, dtype in enumerate(self.dtypes) if number not in self.mixed}
        table = pd.read_csv(
            path,
            header=None,
            names=list(range(len(self.dtypes))),
            index_col=False,
            skiprows=self._header_rows(),
            dtype=parsed,
            keep_default_na=False,
            na_values={number: [""] for number in range(len(self.dtypes)) if parsed.get(number) != "object"},
            skip_blank_lines=False,
            float_precision="round_trip",
            low_memory=False,
            encoding_errors="surrogatepass",
        )
        return [self._restored(number, table[number]) for number in range(len(self.dtypes))]

    def _header_rows(self) -> int:
        levels: int = self.columns.nlevels
        # with several levels of labels, the names of the index get a row of their own
        return levels + (levels > 1 and any(name is not None for name in self.names))

    def _restored(self, number: int, field: Any) -> Any:
        dtype = self.dtypes[number]
        if number in self.mixed:
            return parts.object_array(field.tolist())
        values = field.to_numpy()
        if values.dtype != object:
            return values.astype(dtype, copy=False)
        try:
            return _from_text(values, dtype, gaps=number in self.gaps)
        except (TypeError, ValueError, OverflowError):  # the text does not say it all; `_warn_of_losses` tells
            return values


def _dump_dtype(ctx: Any, dtype: Any) -> Any:
    # Arrow types come back as text anyway, and not all of them have a name that could be read
    return "object" if isinstance(dtype, pd.ArrowDtype) else parts.dump_dtype(ctx, dtype)


def _empty(dtype: Any) -> Any:
    return np.empty(0, dtype) if isinstance(dtype, np.dtype) else pd.array([], dtype=dtype)


def _parsed_as(dtype: Any) -> str:
    """The dtype that a column is read as."""
    if isinstance(dtype, np.dtype) and dtype.isnative:
        if dtype.kind in "biu":
            return dtype.name
        if dtype.kind == "f" and dtype.itemsize <= 8:
            return "float64"
    return "object"


def _from_text(text: Any, dtype: Any, *, gaps: bool) -> Any:
    """Values of a dtype from their text; with ``gaps``, empty text is a missing value.

    Raises
    ------
    ValueError, TypeError, OverflowError
        The text is not that of such values.
    """
    filled = [value if value or not gaps else None for value in text]
    if isinstance(dtype, pd.CategoricalDtype):
        codes = {str(category): code for code, category in enumerate(dtype.categories)}
        return pd.Categorical.from_codes([-1 if part is None else codes.get(part, -1) for part in filled], dtype=dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        times = pd.to_datetime(filled, format="ISO8601", utc=True)
        return times.tz_convert(dtype.tz).as_unit(dtype.unit).array
    if isinstance(dtype, pd.PeriodDtype):
        return pd.PeriodIndex(filled, dtype=dtype).array
    if isinstance(dtype, pd.StringDtype):
        return pd.array(filled, dtype=dtype)
    if isinstance(dtype, pd.BooleanDtype):
        return pd.array([None if part is None else part == "True" for part in filled], dtype=dtype)
    if isinstance(dtype, np.dtype):
        if dtype.kind == "M":
            return pd.to_datetime(filled, format="ISO8601").to_numpy().astype(dtype)
        if dtype.kind == "m":
            return pd.to_timedelta(filled).to_numpy().astype(dtype)
        if dtype.kind == "O":
            return parts.object_array([np.nan if part is None else part for part in filled])
        return np.array([np.nan if part is None else dtype.type(part) for part in filled], dtype)
    if dtype.construct_array_type() in (pd.arrays.IntegerArray, pd.arrays.FloatingArray):
        return pd.array([None if part is None else dtype.type(part) for part in filled], dtype=dtype)
    return text


_warned: set[tuple[str, str]] = set()


def _warn_of_losses(frame: Any, again: Any) -> None:
    """Warn of what a csv file did not keep, once for each kind."""
    for number, label in enumerate(frame.columns):
        before, after = frame.iloc[:, number], again.iloc[:, number]
        if not parts.same_values(before, after):
            _warn(f"column {label!r}", before.dtype, after.dtype)
    if not parts.same_index(frame.index, again.index):
        _warn("the index", frame.index.dtype, again.index.dtype)


def _warn(what: str, before: Any, after: Any) -> None:
    kind = (what.partition(" ")[0], str(before))
    if kind in _warned:
        return
    _warned.add(kind)
    change = "with other values" if before == after else f"as {after}"
    msg = (
        f"csv does not keep {what} of dtype {before}: it comes back {change}. "
        "Use cache_type='ParquetPandasDataFrame', which keeps it; this is said once for each dtype."
    )
    warnings.warn(msg, UserWarning, stacklevel=4)


class PandasSeries:
    """A `pandas.Series`, exactly: dtype, index, name, ``attrs``."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        _check_type(value, pd.Series)
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
