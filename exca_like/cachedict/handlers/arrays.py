"""Numpy arrays and scalars.

An array is stored as the bytes of its elements, in C order (or Fortran order, if it has that), with shape and dtype
beside them. Python objects in an array are stored one by one, never pickled with it.
"""

import contextlib
import math
from binascii import unhexlify
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from exca_like.cachedict.handlers import pickles
from exca_like.errors import ConfigTypeError

_INLINE = 256  # bytes; smaller arrays travel in the journal, as another file would cost more than they are worth

_TRIES = 20

_ndarray, _frombuffer = np.ndarray, np.frombuffer
_texts: dict[np.dtype[Any], str] = {}
_dtypes: dict[str, np.dtype[Any]] = {}


def dtype_text(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON data: numpy's short text (``"<f4"``), or a dictionary for one with parts."""
    text = _texts.get(dtype)
    if text is not None:
        return text
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_text(base), "shape": list(shape)}
    if dtype.type is np.record:
        return {"record": dtype_text(np.dtype((np.void, dtype)))}
    if dtype.names is not None:
        described_fields: Any = dtype.fields
        fields = [described_fields[name] for name in dtype.names]
        described = {
            "names": list(dtype.names),
            "formats": [dtype_text(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
        titles = [field[2] if len(field) > 2 else None for field in fields]
        if any(titles):
            described["titles"] = titles
        return {**described, "aligned": True} if dtype.isalignedstruct else described
    text = dtype.str
    if dtype.kind == "T" or np.dtype(text) != dtype:
        msg = f"arrays of dtype {dtype!r} have no plain text form"
        raise ConfigTypeError(msg)
    if not dtype.hasobject:
        _texts[dtype] = text
    return text


def dtype_of(text: Any) -> np.dtype[Any]:
    """The dtype of a `dtype_text`."""
    if isinstance(text, str):
        return _dtypes.setdefault(text, np.dtype(text))
    if "record" in text:
        return np.dtype((np.record, dtype_of(text["record"])))
    if "base" in text:
        return np.dtype((dtype_of(text["base"]), tuple(text["shape"])))
    parts: Any = {**text, "formats": [dtype_of(part) for part in text["formats"]]}
    described: np.dtype[Any] = np.dtype(parts)
    return described


def plain(value: Any) -> np.ndarray[Any, Any]:
    """An array that is nothing but an array, and has no Python objects in it."""
    if type(value) not in (np.ndarray, np.memmap):
        msg = f"a {type(value).__module__}.{type(value).__qualname__} is more than a plain array of numbers, and would lose it"
        raise ConfigTypeError(msg)
    if value.dtype.hasobject:
        msg = "an array of Python objects can't be stored as bytes: use cache_type='Auto', or none"
        raise ConfigTypeError(msg)
    array: np.ndarray[Any, Any] = value
    return array


def _bytes_of(array: np.ndarray[Any, Any], order: str) -> memoryview:
    """The elements' bytes, without a copy where they lie one after the other."""
    flat = array.T if order == "F" else array
    return np.ascontiguousarray(flat).reshape(-1).view(np.uint8).data


def from_bytes(data: Any, shape: Any, dtype: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    """An array over bytes, without a copy."""
    try:
        known = _dtypes[dtype]
    except (KeyError, TypeError):
        known = dtype_of(dtype)
    if len(shape) == 1 and len(data):
        return _frombuffer(data, known)
    return np.ndarray(shape, known, data, 0, None, order)


def from_inline(inline: Any) -> np.ndarray[Any, Any]:
    """A small array: dtype, shape and bytes."""
    dtype, shape, text = inline
    try:
        (_,) = shape  # an array of one dimension, with something in it: made in the fastest way
        return _frombuffer(unhexlify(text), _dtypes[dtype])
    except (ValueError, KeyError, TypeError):
        return from_bytes(unhexlify(text), shape, dtype)


def store(ctx: Any, value: Any, dtype: Any) -> dict[str, Any]:
    """Store an array in the writer's packed file, a small one in the journal itself."""
    if value.nbytes <= _INLINE:
        return {"inline": [dtype, value.shape, value.tobytes().hex()]}
    info: dict[str, Any] = {"shape": value.shape, "dtype": dtype}
    order = "F" if value.flags.fnc else "C"
    if order == "F":
        info["order"] = order
    info.update(ctx.append(".data", _bytes_of(value, order)))
    return info


class MemmapArray:
    """Arrays in one packed file per writer, read by mapping it: without a copy, read-only."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        kind = type(value)
        if kind is _ndarray or kind is np.memmap:
            text = _texts.get(value.dtype)
            if text is not None:  # then there are no objects in it
                if value.nbytes <= _INLINE:
                    return {"inline": [text, value.shape, value.tobytes().hex()]}
                return store(ctx, value, text)
            with contextlib.suppress(ConfigTypeError):
                return store(ctx, value, dtype_text(plain(value).dtype))
        if isinstance(value, np.ndarray):
            return _with_parts(ctx, value)
        msg = f"MemmapArray stores numpy arrays, not {kind.__name__}"
        raise ConfigTypeError(msg)

    @classmethod
    def __load_from_info__(
        cls,
        ctx: Any,
        inline: Any = None,
        shape: Any = (),
        dtype: Any = None,
        filename: str = "",
        offset: int = 0,
        length: int | None = None,
        order: str = "C",
    ) -> Any:
        if inline is not None:
            return from_inline(inline)
        if length is None:  # exca does not say it
            length = math.prod(shape) * dtype_of(dtype).itemsize
        return from_bytes(ctx.view(filename, offset, length), shape, dtype, order)


def _with_parts(ctx: Any, value: Any) -> dict[str, Any]:
    """Store an array with Python objects, or of a subclass."""
    for kind, handler in (("ObjectArray", ObjectArray), ("ArrayParts", ArrayParts)):
        if handler.accepts(value):
            return {"#type": kind, **handler.__dump_info__(ctx, value)}
    return pickles.fall_back(ctx, value)


class ObjectArray:
    """Arrays of Python objects, and of strings of any length: the elements are stored one by one."""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Whether this handler keeps all there is to an array."""
        return type(value) is np.ndarray and value.dtype.kind in "OT"

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        content = ctx.dump(list(value.reshape(-1)), cache_type="Auto")
        info = {"shape": value.shape, "content": content}
        if value.dtype.kind == "T":
            missing = [value.dtype.na_object] if hasattr(value.dtype, "na_object") else []
            info["strings"] = {"coerce": value.dtype.coerce, "missing": ctx.dump(missing, cache_type="Auto")}
        return info

    @classmethod
    def __load_from_info__(cls, ctx: Any, shape: Any, content: Any, strings: Any = None) -> Any:
        dtype: Any = object
        if strings is not None:
            missing = ctx.load(strings["missing"])
            dtype = np.dtypes.StringDType(coerce=strings["coerce"], **({"na_object": missing[0]} if missing else {}))
        array = np.empty(math.prod(shape), dtype)
        for number, element in enumerate(ctx.load(content)):
            array[number] = element
        return array.reshape(shape)


class ArrayParts:
    """Masked arrays, record arrays, matrices, and structured arrays with objects in them: by their parts."""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Whether this handler keeps all there is to an array."""
        if type(value) in (np.ma.core.MaskedConstant, np.ma.core.mvoid):
            return True
        if type(value) is np.ndarray:
            return value.dtype.names is not None and not _overlaps(value.dtype)
        return type(value) in (np.recarray, np.matrix, np.ma.MaskedArray)

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if value is np.ma.masked:
            return {"kind": "masked constant"}
        if isinstance(value, np.ma.core.mvoid):
            return {"kind": "masked scalar", "array": ctx.dump(np.ma.MaskedArray(value.data, value.mask))}
        if isinstance(value, np.ma.MaskedArray):
            texts = value.dtype.kind in "SU"  # whose default is longer than what can be set
            chosen: Any = value
            is_default = chosen._fill_value is None or (texts and value.fill_value == np.ma.default_fill_value(value.dtype))
            fill = None if is_default else ctx.dump(np.asarray(value.fill_value))
            return {
                "kind": "masked",
                "data": ctx.dump(value.data),
                "mask": ctx.dump(np.ma.getmaskarray(value)) if value.mask is not np.ma.nomask else None,
                "fill": fill,
                "hard": bool(value.hardmask),
            }
        if isinstance(value, np.recarray | np.matrix):
            kind = "records" if isinstance(value, np.recarray) else "matrix"
            return {"kind": kind, "data": ctx.dump(np.asarray(value))}
        columns = {name: ctx.dump(np.ascontiguousarray(value[name])) for name in value.dtype.names}
        return {"kind": "fields", "shape": value.shape, "dtype": dtype_text(value.dtype), "columns": columns}

    @classmethod
    def __load_from_info__(cls, ctx: Any, kind: str, **info: Any) -> Any:
        if kind == "masked constant":
            return np.ma.masked
        if kind == "masked scalar":
            return ctx.load(info["array"])[()]
        if kind == "masked":
            mask = np.ma.nomask if info["mask"] is None else ctx.load(info["mask"])
            masked = np.ma.MaskedArray(ctx.load(info["data"]), mask, hard_mask=info["hard"])
            if info["fill"] is not None:
                masked.fill_value = ctx.load(info["fill"])[()]
            return masked
        if kind == "fields":
            array = np.empty(info["shape"], dtype_of(info["dtype"]))
            for name, column in info["columns"].items():
                array[name] = ctx.load(column)
            return array
        data = ctx.load(info["data"])
        return data.view(np.matrix) if kind == "matrix" else data.view(np.recarray)


def _overlaps(dtype: np.dtype[Any]) -> bool:
    return dtype.hasobject and dtype.names is not None and dtype.itemsize < sum(dtype[name].itemsize for name in dtype.names)


class NumpyScalar:
    """Numpy's scalars, with their dtype."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, str | bytes) and value[-1:] in ("\0", b"\0"):  # arrays lose zeros at the end
            return {"plain": ctx.dump(value[:], cache_type="Auto")}
        return {"array": ctx.dump(np.asarray(value))}

    @classmethod
    def __load_from_info__(cls, ctx: Any, array: Any = None, plain: Any = None) -> Any:
        if plain is not None:
            text = ctx.load(plain)
            return np.str_(text) if isinstance(text, str) else np.bytes_(text)
        return ctx.load(array)[()]


class _Sink(NamedTuple):
    """What numpy writes to; into a real file, it would write in a way that loses the reason when that fails."""

    write: Callable[[Any], int]


def _load_npy(path: str, **options: Any) -> Any:
    """`numpy.load`; again where Python takes threads that parse at the same time for an error (python/cpython#106905)."""
    for _ in range(_TRIES):
        with contextlib.suppress(SystemError):
            return np.load(path, allow_pickle=False, **options)
    return np.load(path, allow_pickle=False, **options)


class NumpyArray:
    """Arrays in a ``.npy`` file each, read into memory."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        name = ctx.key_path(".npy")
        array = plain(np.asarray(value) if isinstance(value, np.generic) else value)
        try:
            with open(ctx.folder / name, "wb") as stream:
                sink: Any = _Sink(stream.write)
                np.lib.format.write_array(sink, array, allow_pickle=False)
        except ValueError as error:
            msg = f"a .npy file can't hold an array of dtype {array.dtype}: use cache_type='MemmapArray', or none"
            raise ConfigTypeError(msg) from error
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str) -> Any:
        return _load_npy(ctx.path(filename))


class NumpyMemmapArray(NumpyArray):
    """Arrays in a ``.npy`` file each, read by mapping it: without a copy, read-only."""

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str) -> Any:
        path = ctx.path(filename)
        try:
            return _load_npy(path, mmap_mode="r")
        except ValueError:  # an empty array has nothing to map
            return _load_npy(path)


SMALL = {"MemmapArray": from_inline}
HANDLERS = {
    "MemmapArray": MemmapArray,
    "MemmapArrayFile": MemmapArray,
    "NumpyArray": NumpyArray,
    "NumpyMemmapArray": NumpyMemmapArray,
    "NumpyScalar": NumpyScalar,
    "ObjectArray": ObjectArray,
    "ArrayParts": ArrayParts,
}
TYPE_DEFAULTS: dict[type, Any] = {np.ndarray: MemmapArray, np.generic: NumpyScalar}
