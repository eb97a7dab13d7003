"""Pandas frames in JSON files, with beside them what JSON does not say."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pandas as pd

from exca_like.cachedict.handlers import pandas_parts as parts
from exca_like.errors import ConfigTypeError

_REMEDY = "use cache_type='ParquetPandasDataFrame', which keeps every frame"


class PandasJson:
    """A `pandas.DataFrame` in a ``.json`` file: a list of records, one on each line, with the columns as names.

    Dtypes, the index and ``attrs`` are stored beside the file. Times are in ISO 8601, missing values ``null``. The file is
    read back when it is stored.

    Raises
    ------
    ConfigTypeError
        The frame would not come back equal: a label is no text or is there twice, a column holds values that JSON has no
        form for (infinity, bytes, dates, ...), or different missing values; or the frame is of a subclass.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        parts.check_type(value, pd.DataFrame)
        labels = list(value.columns)
        if not all(type(label) is str for label in labels) or len(set(labels)) < len(labels):
            msg = f"the columns of records in JSON are named by texts, each once, not by {labels!r:.200}: {_REMEDY}"
            raise ConfigTypeError(msg)
        columns = [_plain(label, value[label]) for label in labels]
        lines = [_line(labels, row) for row in (zip(*columns, strict=True) if labels else [()] * len(value))]
        name: str = ctx.key_path(".json")
        path = os.path.join(ctx.folder, name)
        with open(path, "wb") as stream:
            stream.write(b"[\n" + b",\n".join(lines) + b"\n]\n")
        _check(value, path)
        info = {
            "filename": name,
            "columns": parts.dump_index(ctx, value.columns),
            "dtypes": [parts.dump_dtype(ctx, dtype) for dtype in value.dtypes],
            "index": parts.dump_index(ctx, value.index),
        }
        return info | parts.dump_extras(ctx, value)

    @classmethod
    def __load_from_info__(
        cls, ctx: Any, filename: str, columns: Any = None, dtypes: Any = (), index: Any = None, **extras: Any
    ) -> Any:
        path = ctx.path(filename)
        if columns is None:  # a file of others
            with open(path, "rb") as stream:
                return pd.DataFrame.from_records(orjson.loads(stream.read()))
        labels = parts.load_index(ctx, columns)
        values = list(_columns_of(path, list(labels), [parts.load_dtype(ctx, dtype) for dtype in dtypes]))
        return parts.load_extras(ctx, parts.frame_of(values, parts.load_index(ctx, index), labels), extras)


def _plain(label: str, column: Any) -> list[Any]:
    """The values of a column as JSON has them."""
    values = column.astype(object)
    if column.dtype.kind in "mM":
        values = values.map(lambda time: time.isoformat(), na_action="ignore")
    return [None if missing else value for value, missing in zip(values, _are_missing(label, column), strict=True)]


def _are_missing(label: str, column: Any) -> list[bool]:
    try:
        return [bool(missing) for missing in column.isna()]
    except (TypeError, ValueError) as error:
        raise _unkept(label, column.dtype) from error


def _line(labels: list[str], row: tuple[Any, ...]) -> bytes:
    try:
        return orjson.dumps(dict(zip(labels, row, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        msg = f"JSON has no form for a value of the frame: {error}; {_REMEDY}"
        raise ConfigTypeError(msg) from error


def _columns_of(path: str, labels: list[str], dtypes: list[Any]) -> Iterator[Any]:
    with open(path, "rb") as stream:
        records = orjson.loads(stream.read())
    for label, dtype in zip(labels, dtypes, strict=True):
        yield _restored([record[label] for record in records], dtype)


def _restored(values: list[Any], dtype: Any) -> Any:
    if isinstance(dtype, np.dtype):
        if dtype.kind == "O":
            return parts.object_array(values)
        if dtype.kind == "M":
            return pd.to_datetime(values, format="ISO8601").to_numpy().astype(dtype)
        if dtype.kind == "m":
            return pd.to_timedelta(values).to_numpy().astype(dtype)
        return np.array([np.nan if value is None else value for value in values], dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.to_datetime(values, format="ISO8601", utc=True).tz_convert(dtype.tz).as_unit(dtype.unit).array
    return pd.array(values, dtype=dtype)


def _check(frame: Any, path: str) -> None:
    again = _columns_of(path, list(frame.columns), list(frame.dtypes))
    for label in frame.columns:
        try:
            is_same = parts.same_values(frame[label], next(again))
        except (TypeError, ValueError, OverflowError) as error:  # the text does not say it all
            raise _unkept(label, frame[label].dtype) from error
        if not is_same:
            raise _unkept(label, frame[label].dtype)


def _unkept(label: str, dtype: Any) -> ConfigTypeError:
    return ConfigTypeError(f"the column {label!r} of dtype {dtype} would not come back from JSON as it is: {_REMEDY}")


HANDLERS = {"PandasJson": PandasJson}
TYPE_DEFAULTS: dict[type, Any] = {}
