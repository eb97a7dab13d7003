"""Pandas objects by their parts: dtypes, one-dimensional values, indexes, whole frames.

Each part becomes JSON data, beside arrays and lists that other handlers store. Nothing depends on how pandas pickles or
prints, and every dtype of pandas comes back as it was.
"""

import datetime
import io
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd

from exca_like.errors import ConfigTypeError

_INDEX_TYPES = (
    pd.Index,
    pd.RangeIndex,
    pd.MultiIndex,
    pd.DatetimeIndex,
    pd.TimedeltaIndex,
    pd.PeriodIndex,
    pd.IntervalIndex,
    pd.CategoricalIndex,
)
_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)


def check_type(value: Any, expected: type) -> None:
    """Raise unless a value is of a class of pandas itself."""
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


# dtypes


def dump_dtype(ctx: Any, dtype: Any) -> Any:
    """A dtype as JSON data.

    Raises
    ------
    ConfigTypeError
        It belongs to another library, and has no text that pandas would understand.
    """
    if isinstance(dtype, pd.CategoricalDtype):
        categories = None if dtype.categories is None else dump_index(ctx, dtype.categories)
        return {"categories": categories, "ordered": dtype.ordered}
    if isinstance(dtype, pd.StringDtype):
        return {"storage": dtype.storage, "missing": "NA" if dtype.na_value is pd.NA else "NaN"}
    if isinstance(dtype, pd.DatetimeTZDtype):
        return {"unit": dtype.unit, "tz": dump_zone(ctx, dtype.tz)}
    if isinstance(dtype, pd.SparseDtype):
        return {"subtype": dump_dtype(ctx, dtype.subtype), "fill": ctx.dump(dtype.fill_value)}
    text = str(dtype)
    try:
        known = _dtype_of(text) == dtype
    except (TypeError, NotImplementedError):
        known = False
    if not known:
        msg = f"the dtype {dtype!r} can't be stored: convert to a dtype of numpy or pandas"
        raise ConfigTypeError(msg)
    return text


def load_dtype(ctx: Any, info: Any) -> Any:
    """The dtype of a `dump_dtype`."""
    if isinstance(info, str):
        return _dtype_of(info)
    if "categories" in info:
        categories = info["categories"]
        return pd.CategoricalDtype(None if categories is None else load_index(ctx, categories), info["ordered"])
    if "storage" in info:
        return _string_dtype(info["storage"], info["missing"])
    if "tz" in info:
        return pd.DatetimeTZDtype(info["unit"], load_zone(ctx, info["tz"]))
    return pd.SparseDtype(load_dtype(ctx, info["subtype"]), ctx.load(info["fill"]))


def _dtype_of(text: str) -> Any:
    try:
        # numpy first: pandas reads some of its names, like "object", as dtypes of its own
        return np.dtype(text)
    except TypeError:
        return pd.api.types.pandas_dtype(text)


def _string_dtype(storage: str, missing: str) -> Any:
    if storage == "pyarrow":
        try:
            import pyarrow  # noqa: F401  (only whether it is there)
        except ImportError:
            storage = "python"
    return pd.StringDtype(storage) if missing == "NA" else pd.StringDtype(storage, na_value=np.nan)


def dump_zone(ctx: Any, zone: Any) -> Any:
    """A time zone as JSON data.

    Raises
    ------
    ConfigTypeError
        Pandas would not find the zone again by its name.
    """
    if zone is None or type(zone) in (zoneinfo.ZoneInfo, datetime.timezone):
        return ctx.dump(zone)
    text = f"datetime64[ns, {zone}]"  # a zone of pytz or dateutil
    try:
        known = pd.api.types.pandas_dtype(text) == pd.DatetimeTZDtype("ns", zone)
    except (TypeError, LookupError, ValueError, OSError):
        known = False
    if not known:
        msg = f"the time zone {zone!r} can't be stored: convert to one of zoneinfo, for instance with tz_convert"
        raise ConfigTypeError(msg)
    return text


def load_zone(ctx: Any, info: Any) -> Any:
    """The time zone of a `dump_zone`."""
    if not isinstance(info, str):
        return ctx.load(info)
    dtype: Any = pd.api.types.pandas_dtype(info)
    return dtype.tz


# values


def dump_values(ctx: Any, values: Any) -> dict[str, Any]:
    """One-dimensional values (a Series, an Index, an array of numpy or pandas), without index and names.

    Raises
    ------
    ConfigTypeError
        The values are of a dtype of another library.
    """
    dtype = values.dtype
    if isinstance(dtype, np.dtype) or type(values) is pd.arrays.NumpyExtensionArray:
        return _dump_numpy(ctx, np.asarray(values))
    array: Any = values.array if isinstance(values, pd.Series | pd.Index) else values
    if isinstance(dtype, pd.ArrowDtype):
        return {"dtype": "arrow", "values": ctx.dump(np.frombuffer(_arrow_bytes(array), np.uint8))}
    info: dict[str, Any] = {"dtype": dump_dtype(ctx, dtype)}
    if isinstance(dtype, pd.StringDtype):
        content: Any = array.to_numpy(dtype=object, na_value=None).tolist()
    elif isinstance(array, _MASKED):
        mask = np.asarray(array.isna())
        if mask.any():
            info["mask"] = ctx.dump(mask)
        content = array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
    elif isinstance(dtype, pd.CategoricalDtype):
        content = np.asarray(array.codes)
    elif isinstance(dtype, pd.DatetimeTZDtype | pd.PeriodDtype):
        content = np.asarray(array.asi8)
    elif isinstance(dtype, pd.IntervalDtype):
        return info | {"left": dump_index(ctx, array.left), "right": dump_index(ctx, array.right)}
    elif isinstance(dtype, pd.SparseDtype):
        return info | {"kind": array.kind, "dense": _dump_numpy(ctx, np.asarray(array.to_dense()))}
    else:
        msg = f"values of dtype {dtype!r} can't be stored: convert them to a dtype of numpy or pandas"
        raise ConfigTypeError(msg)
    return info | {"values": ctx.dump(content)}


def _dump_numpy(ctx: Any, array: Any) -> dict[str, Any]:
    if array.dtype.kind == "O":
        return {"dtype": "object", "values": ctx.dump(list(array))}
    plain = array.view("i8") if array.dtype.kind in "mM" else array
    return {"dtype": str(array.dtype), "values": ctx.dump(plain)}


def load_values(ctx: Any, info: dict[str, Any]) -> Any:
    """The values of a `dump_values`: a numpy array that owns its memory, or an array of pandas."""
    if info["dtype"] == "arrow":
        return _arrow_array(ctx.load(info["values"]))
    dtype = load_dtype(ctx, info["dtype"])
    if isinstance(dtype, pd.IntervalDtype):
        left, right = load_index(ctx, info["left"]), load_index(ctx, info["right"])
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=dtype.closed)
    if isinstance(dtype, pd.SparseDtype):
        dense = load_values(ctx, info["dense"])
        return pd.arrays.SparseArray(dense, fill_value=dtype.fill_value, kind=info["kind"], dtype=dtype)
    content = ctx.load(info["values"])
    if isinstance(dtype, np.dtype):
        if dtype.kind == "O":
            return object_array(content)
        content = np.array(content)  # a copy, as the store's arrays can be read-only
        return content.view(dtype) if dtype.kind in "mM" else content
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Categorical.from_codes(content, dtype=dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        utc = pd.DatetimeIndex(np.array(content).view(f"M8[{dtype.unit}]")).tz_localize("UTC")
        return utc.tz_convert(dtype.tz).array
    if isinstance(dtype, pd.PeriodDtype):
        return pd.PeriodIndex.from_ordinals(np.array(content), freq=dtype.freq).array
    if isinstance(dtype, pd.StringDtype):
        return pd.array(content, dtype=dtype)
    mask = np.array(ctx.load(info["mask"])) if "mask" in info else np.zeros(len(content), bool)
    return dtype.construct_array_type()(np.array(content), mask)


def object_array(values: Any) -> Any:
    """A numpy array whose elements are the values, whatever they are."""
    array = np.empty(len(values), object)
    for number, value in enumerate(values):
        array[number] = value
    return array


def _arrow_bytes(array: Any) -> bytes:
    import pyarrow as pa

    content = pa.chunked_array(array.__arrow_array__())
    table = pa.table({"values": content})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _arrow_array(content: Any) -> Any:
    import pyarrow as pa

    # a copy, so that the values outlive the stored file
    with pa.ipc.open_stream(pa.py_buffer(np.array(content).tobytes())) as reader:
        return pd.arrays.ArrowExtensionArray(reader.read_all()["values"])


# names, indexes


def dump_names(ctx: Any, names: Any) -> Any:
    """Names of an index or a Series: as they are if they are None or text, else stored as a list of any values."""
    names = list(names)
    return names if all(is_name(name) for name in names) else ctx.dump(names)


def load_names(ctx: Any, info: Any) -> list[Any]:
    """The names of a `dump_names`."""
    return list(info if isinstance(info, list) else ctx.load(info))


def is_name(name: Any) -> bool:
    """Whether a name is None or text that UTF-8 has a form for."""
    return name is None or (type(name) is str and name.encode("utf-8", "replace").decode() == name)


def dump_index(ctx: Any, index: Any) -> dict[str, Any]:
    """An index, with its names.

    Raises
    ------
    ConfigTypeError
        It is of a subclass, or of a dtype of another library.
    """
    if type(index) not in _INDEX_TYPES:
        msg = f"an index of type {type(index).__module__}.{type(index).__qualname__} would come back as a plain one"
        raise ConfigTypeError(msg)
    info: dict[str, Any] = {"names": dump_names(ctx, index.names)}
    if isinstance(index, pd.RangeIndex):
        return info | {"range": [index.start, index.stop, index.step]}
    if isinstance(index, pd.MultiIndex):
        codes = [ctx.dump(np.asarray(part)) for part in index.codes]
        return info | {"levels": [dump_index(ctx, level) for level in index.levels], "codes": codes}
    offset = offset_of(index)
    if offset is not None:
        info["freq"] = dump_offset(ctx, offset)
    return info | dump_values(ctx, index)


def load_index(ctx: Any, info: dict[str, Any]) -> Any:
    """The index of a `dump_index`."""
    names = load_names(ctx, info["names"])
    if "range" in info:
        return pd.RangeIndex(*info["range"], name=names[0])
    if "levels" in info:
        levels = [load_index(ctx, level) for level in info["levels"]]
        return pd.MultiIndex(levels=levels, codes=[np.array(ctx.load(part)) for part in info["codes"]], names=names)
    return index_of(load_values(ctx, info), names[0], load_offset(ctx, info.get("freq")))


def index_of(values: Any, name: Any, offset: Any = None) -> Any:
    """An index of exactly these values, whatever pandas would make of them otherwise."""
    dtype = object if values.dtype == object else None
    index: Any = pd.Index(values, dtype=dtype, name=name, tupleize_cols=False, copy=False)
    if offset is not None:
        index.freq = offset
    return index


def offset_of(index: Any) -> Any:
    """The frequency that a regular index of times has beside its values; None if there is none."""
    return index.freq if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) else None


def dump_offset(ctx: Any, offset: Any) -> dict[str, Any]:
    """A date offset, which is also what a frequency is.

    Raises
    ------
    ConfigTypeError
        It is of a class that pandas does not have, or made from something that its arguments don't tell.
    """
    kind = type(offset)
    arguments = {name: part for name, part in offset.kwds.items() if name != "calendar"}  # made from the holidays
    parts = {"offset": kind.__name__, "n": offset.n, "normalize": offset.normalize}
    try:
        known = _offset(arguments=arguments, **parts) == offset
    except (AttributeError, TypeError, ValueError):
        known = False
    if not known:
        msg = f"the offset or frequency {offset!r} can't be stored; for an index, set index.freq = None"
        raise ConfigTypeError(msg)
    return parts | {"arguments": ctx.dump(arguments)} if arguments else parts


def load_offset(ctx: Any, info: Any) -> Any:
    """The offset of a `dump_offset`; None for None."""
    if info is None:
        return None
    arguments = ctx.load(info["arguments"]) if "arguments" in info else {}
    return _offset(info["offset"], info["n"], arguments, normalize=info["normalize"])


def _offset(offset: str, n: int, arguments: dict[str, Any], *, normalize: bool) -> Any:
    kind = getattr(pd.offsets, offset)
    # steps of fixed length take no such argument
    return kind(n, normalize=True, **arguments) if normalize else kind(n, **arguments)


# frames


def dump_extras(ctx: Any, value: Any) -> dict[str, Any]:
    """What a frame or a Series has beside its data: ``attrs`` and ``flags``."""
    extras = {} if value.flags.allows_duplicate_labels else {"unique_labels": True}
    return extras | {"attrs": ctx.dump(dict(value.attrs))} if value.attrs else extras


def load_extras(ctx: Any, value: Any, info: dict[str, Any]) -> Any:
    """Give a loaded frame or Series what `dump_extras` stored."""
    if "attrs" in info:
        value.attrs = ctx.load(info["attrs"])
    if info.get("unique_labels"):
        value.flags.allows_duplicate_labels = False
    return value


def dump_frame(ctx: Any, frame: Any) -> dict[str, Any]:
    """Index, columns and values of a frame; columns of one dtype of numpy are stored as one array.

    Raises
    ------
    ConfigTypeError
        A column is of a dtype of another library.
    """
    groups: dict[Any, list[int]] = {}
    for number, dtype in enumerate(frame.dtypes):
        alone = not isinstance(dtype, np.dtype) or dtype.kind == "O"
        groups.setdefault((number,) if alone else dtype, []).append(number)
    blocks = []
    for key, positions in groups.items():
        whole = len(positions) == frame.shape[1]
        if isinstance(key, tuple):
            try:
                block = dump_values(ctx, frame.iloc[:, positions[0]])
            except ConfigTypeError as error:
                msg = f"column {frame.columns[positions[0]]!r}: {error}"
                raise ConfigTypeError(msg) from error
        else:
            # pandas keeps columns of one dtype as rows of one array: transposed, this is no copy
            block = _dump_numpy(ctx, (frame if whole else frame.iloc[:, positions]).to_numpy().T)
        blocks.append(block if whole else block | {"at": positions})
    return {"index": dump_index(ctx, frame.index), "columns": dump_index(ctx, frame.columns), "blocks": blocks}


def load_frame(ctx: Any, index: dict[str, Any], columns: dict[str, Any], blocks: list[dict[str, Any]]) -> Any:
    """The frame of a `dump_frame`."""
    labels = load_index(ctx, columns)
    rows = load_index(ctx, index)
    if len(blocks) == 1 and "at" not in blocks[0]:
        values = load_values(ctx, blocks[0])
        if values.ndim == 2:
            return pd.DataFrame(values.T, index=rows, columns=labels, copy=False)
        parts = {0: values}
    else:
        parts = {}
        for block in blocks:
            values = load_values(ctx, block)
            parts.update(zip(block["at"], [values] if values.ndim == 1 else values, strict=True))
    return frame_of([parts[number] for number in range(len(parts))], rows, labels)


def frame_of(values: list[Any], index: Any, columns: Any) -> Any:
    """A frame of arrays, one for each column, whose dtypes stay as they are."""
    rows = pd.RangeIndex(len(index))
    frame = pd.DataFrame({number: series_of(part, rows) for number, part in enumerate(values)}, index=rows)
    frame.index = index
    frame.columns = columns
    return frame


def series_of(values: Any, index: Any, name: Any = None) -> Any:
    """A Series of an array, whose dtype stays as it is."""
    dtype = object if values.dtype == object else None  # else pandas looks for text
    return pd.Series(values, index=index, name=name, dtype=dtype, copy=False)


# comparison


def same_values(first: Any, second: Any) -> bool:
    """Whether two one-dimensional values are equal in dtype and in each element, kinds of missing ones included."""
    if first.dtype != second.dtype or len(first) != len(second):
        return False
    if isinstance(first.dtype, np.dtype):
        first, second = np.asarray(first), np.asarray(second)
        if first.dtype.kind == "O":
            return all(map(_same, first, second))
        return np.array_equal(first, second, equal_nan=first.dtype.kind in "fcmM")
    first, second = (part.array if isinstance(part, pd.Series | pd.Index) else part for part in (first, second))
    return bool(first.equals(second))


def same_index(first: Any, second: Any) -> bool:
    """Whether two indexes are equal: type, names, dtypes, values and frequency."""
    if type(first) is not type(second) or list(first.names) != list(second.names):
        return False
    if not isinstance(first, pd.MultiIndex):
        return offset_of(first) == offset_of(second) and same_values(first, second)
    levels = range(first.nlevels)
    return first.nlevels == second.nlevels and all(
        first.levels[level].dtype == second.levels[level].dtype
        and same_values(first.get_level_values(level), second.get_level_values(level))
        for level in levels
    )


def _same(first: Any, second: Any) -> bool:
    kind = type(first)
    if first is second:
        return True
    if kind is not type(second):
        return False
    if kind in (list, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if kind is dict:
        return list(first) == list(second) and all(_same(part, second[key]) for key, part in first.items())
    if kind is np.ndarray:
        return first.shape == second.shape and same_values(first.reshape(-1), second.reshape(-1))
    try:
        return bool(first == second or (first != first and second != second))  # noqa: PLR0124  (NaN)
    except (TypeError, ValueError):  # what can't be compared is not known to be the same
        return False
