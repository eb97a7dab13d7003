"""Pandas frames in csv files, with beside them what csv does not say."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from exca_like import user_warnings
from exca_like.cachedict.handlers import pandas_parts as parts
from exca_like.errors import ConfigTypeError

# pandas 3.1 always reads floats exactly, and warns of the argument
_PRECISE: dict[str, Any] = (
    {"float_precision": "round_trip"} if [int(part) for part in pd.__version__.split(".")[:2]] < [3, 1] else {}
)


class PandasDataFrame:
    """A `pandas.DataFrame` in a csv file, which people and spreadsheets read.

    The index comes first. Dtypes, labels and ``attrs`` are stored beside the file, so that numbers, booleans, text, times
    (with zones), periods, categories and the dtypes with missing values come back as they are. Csv loses: which of
    ``None``, ``NaN``, ``NaT`` stood where in a column of objects; empty text in a column of text that also has missing values;
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
        parts.check_type(value, pd.DataFrame)
        filename: str = ctx.key_path(suffix=".csv")
        path = os.path.join(ctx.folder, filename)
        layout = _CsvLayout.of(value, _write(value, path))
        try:
            again = layout.read(path)
        except ValueError as error:
            msg = f"csv does not keep this frame: {error}. Use cache_type='ParquetPandasDataFrame', which does"
            raise ConfigTypeError(msg) from error
        _warn_of_losses(value, again)
        return {"filename": filename, **layout.dump(ctx), **parts.dump_extras(ctx, value)}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, **info: Any) -> Any:
        path = ctx.path(filename)
        if "dtypes" not in info:  # exca stores the file only
            frame = pd.read_csv(path, index_col=0, keep_default_na=False, na_values=[""], **_PRECISE)
        else:
            frame = _CsvLayout.load(ctx, info).read(path)
        return parts.load_extras(ctx, frame, info)


def _write(frame: Any, path: str) -> int:
    """Write a csv file; returns the length of its header, which can have several lines."""
    with open(path, "w", encoding="utf-8", errors="surrogatepass", newline="") as stream:
        frame.iloc[:0].to_csv(stream, lineterminator="\n")
        stream.flush()
        header = stream.tell()
        frame.to_csv(stream, header=False, lineterminator="\n")
    return header


@dataclass(frozen=True)
class _CsvLayout:
    """What a csv file does not say of itself; the levels of the index count as columns, and come first."""

    columns: Any  # labels
    names: list[Any]  # of the levels
    range: Any  # the index, if it is a RangeIndex
    offset: Any  # frequency of the index
    dtypes: list[Any]
    gaps: set[int]  # columns with missing values
    nones: set[int]  # columns of objects in which each missing value is None
    mixed: set[int]  # columns of objects that are not all text
    rows: int
    header: int  # bytes before the rows

    @classmethod
    def of(cls, frame: Any, header: int) -> "_CsvLayout":
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
            nones={
                number
                for number, field in enumerate(fields)
                if field.dtype == object and all(value is None for value in field[field.isna()])
            },
            mixed={
                number
                for number, field in enumerate(fields)
                if field.dtype == object and pd.api.types.infer_dtype(field, skipna=True) not in ("string", "empty")
            },
            rows=len(frame),
            header=header,
        )

    def dump(self, ctx: Any) -> dict[str, Any]:
        info = {
            "columns": parts.dump_index(ctx, self.columns),
            "names": parts.dump_names(ctx, self.names),
            "dtypes": [_dump_dtype(ctx, dtype) for dtype in self.dtypes],
            "gaps": sorted(self.gaps),
            "nones": sorted(self.nones & self.gaps),
            "mixed": sorted(self.mixed),
            "rows": self.rows,
            "header": self.header,
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
            nones=set(info["nones"]),
            mixed=set(info["mixed"]),
            rows=info["rows"],
            header=info["header"],
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
        parsed: dict[Any, Any] = {
            number: _parsed_as(dtype) for number, dtype in enumerate(self.dtypes) if number not in self.mixed
        }
        with open(path, "rb") as stream:
            stream.seek(self.header)
            table: Any = pd.read_csv(
                stream,
                header=None,
                names=list(range(len(self.dtypes))),
                index_col=False,
                dtype=parsed,
                keep_default_na=False,
                na_values={number: [""] for number in range(len(self.dtypes)) if parsed.get(number) != "object"},
                skip_blank_lines=False,
                lineterminator="\n",
                low_memory=False,
                encoding_errors="surrogatepass",
                **_PRECISE,
            )
        return [self._restored(number, table[number]) for number in range(len(self.dtypes))]

    def _restored(self, number: int, field: Any) -> Any:
        dtype = self.dtypes[number]
        if number in self.mixed:
            return parts.object_array(field.tolist())
        values = field.to_numpy()
        if values.dtype != object:
            return values.astype(dtype, copy=False)
        try:
            if isinstance(dtype, np.dtype) and dtype.kind == "O":
                missing = None if number in self.nones else np.nan
                return parts.object_array([missing if not text and number in self.gaps else text for text in values])
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
    user_warnings.warn(msg)
