"""Numpy arrays and scalars.

An array is stored as the bytes of its elements, in C order (or Fortran order, if it has that), with shape and dtype
beside them. Python objects in an array are stored one by one, never pickled with it.
"""

import binascii
from typing import Any

import numpy as np

from exca_like.errors import ConfigTypeError

_INLINE = 256  # bytes; smaller arrays travel in the journal, as another file would cost more than they are worth

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
    if dtype.names is not None:
        fields = [(dtype.fields or {})[name] for name in dtype.names]
        described = {
            "names": list(dtype.names),
            "formats": [dtype_text(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
        titles = [field[2] if len(field) > 2 else None for field in fields]  # type: ignore[misc]
        return {**described, "titles": titles} if any(titles) else described
    text = dtype.str
    if dtype.kind == "T" or np.dtype(text) != dtype:
        msg = f"arrays of dtype {dtype!r} have no plain text form"
        raise ConfigTypeError(msg)
    _texts[dtype] = text
    return text


def dtype_of(text: Any) -> np.dtype[Any]:
    """The dtype of a `dtype_text`."""
    if isinstance(text, str):
        return _dtypes.setdefault(text, np.dtype(text))
    if "base" in text:
        return np.dtype((dtype_of(text["base"]), tuple(text["shape"])))
    return np.dtype({**text, "formats": [dtype_of(part) for part in text["formats"]]})


def _plain(value: Any) -> np.ndarray[Any, Any]:
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
    known = _dtypes.get(dtype) if type(dtype) is str else None
    return np.ndarray(shape, known or dtype_of(dtype), data, 0, None, order)


def _size(shape: Any) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def store(ctx: Any, value: Any) -> dict[str, Any]:
    """Store an array in the writer's packed file, a small one in the journal itself."""
    if type(value) is not np.ndarray or value.dtype.hasobject:
        value = _plain(value)
    info: dict[str, Any] = {"shape": value.shape, "dtype": _texts.get(value.dtype) or dtype_text(value.dtype)}
    if value.nbytes <= _INLINE:
        info["inline"] = binascii.b2a_base64(value.tobytes(), newline=False).decode()
        return info
    order = "F" if value.flags.fnc else "C"
    if order == "F":
        info["order"] = order
    info.update(ctx.append(".data", _bytes_of(value, order)))
    return info


class MemmapArray:
    """Arrays in one packed file per writer, read by mapping it: without a copy, read-only."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, np.ndarray) and (type(value) not in (np.ndarray, np.memmap) or value.dtype.hasobject):
            return _with_parts(ctx, value)
        if not isinstance(value, np.ndarray):
            msg = f"MemmapArray stores numpy arrays, not {type(value).__name__}"
            raise ConfigTypeError(msg)
        return store(ctx, value)

    @classmethod
    def __load_from_info__(
        cls,
        ctx: Any,
        shape: Any,
        dtype: Any,
        filename: str = "",
        offset: int = 0,
        length: int | None = None,
        inline: str | None = None,
        order: str = "C",
    ) -> Any:
        if inline is not None:
            return from_bytes(binascii.a2b_base64(inline), shape, dtype)
        if length is None:  # exca does not say it
            length = _size(shape) * dtype_of(dtype).itemsize
        return from_bytes(ctx.view(filename, offset, length), shape, dtype, order)


def _with_parts(ctx: Any, value: Any) -> dict[str, Any]:
    """Store an array with Python objects, or of a subclass."""
    for kind, handler in (("ObjectArray", ObjectArray), ("ArrayParts", ArrayParts)):
        if handler.accepts(value):
            return {"#type": kind, **handler.__dump_info__(ctx, value)}
    return ctx.dump(value, cache_type="Pickle")  # type: ignore[no-any-return]


class ObjectArray:
    """Arrays of Python objects, and of strings of any length: the elements are stored one by one."""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Whether this handler keeps all there is to an array."""
        variable = value.dtype.kind == "T" and value.dtype == np.dtypes.StringDType()
        return type(value) is np.ndarray and (value.dtype.kind == "O" or variable)

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        content = ctx.dump(list(value.reshape(-1)), cache_type="Auto")
        return {"shape": value.shape, "strings": value.dtype.kind == "T", "content": content}

    @classmethod
    def __load_from_info__(cls, ctx: Any, shape: Any, content: Any, strings: bool = False) -> Any:  # noqa: FBT002
        array = np.empty(_size(shape), np.dtypes.StringDType() if strings else object)
        for number, element in enumerate(ctx.load(content)):
            array[number] = element
        return array.reshape(shape)


class ArrayParts:
    """Masked arrays, record arrays, matrices, and structured arrays with objects in them: by their parts."""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Whether this handler keeps all there is to an array."""
        plain = type(value) in (np.ndarray, np.recarray, np.matrix, np.ma.MaskedArray)
        return plain and (value.dtype.names is None or not _overlaps(value.dtype))

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, np.ma.MaskedArray):
            fill = None if value._fill_value is None else ctx.dump(np.asarray(value.fill_value))
            return {
                "kind": "masked",
                "data": ctx.dump(value.data),
                "mask": ctx.dump(np.ma.getmaskarray(value)) if value.mask is not np.ma.nomask else None,
                "fill": fill,
                "hard": bool(value.hardmask),
            }
        if isinstance(value, np.recarray | np.matrix):
            kind = "records" if isinstance(value, np.recarray) else "matrix"
            return {"kind": kind, "data": ctx.dump(_as_plain(value))}
        columns = {name: ctx.dump(np.ascontiguousarray(value[name])) for name in value.dtype.names}
        return {"kind": "fields", "shape": value.shape, "dtype": dtype_text(value.dtype), "columns": columns}

    @classmethod
    def __load_from_info__(cls, ctx: Any, kind: str, **info: Any) -> Any:
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


def _as_plain(value: Any) -> np.ndarray[Any, Any]:
    plain = np.asarray(value)
    if isinstance(value, np.recarray) and plain.dtype.names is not None:
        plain = plain.view(np.dtype([], align=False) if False else _without_records(plain.dtype))
    return plain


def _without_records(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A record dtype as an ordinary structured one."""
    return dtype_of(dtype_text(dtype))


def _overlaps(dtype: np.dtype[Any]) -> bool:
    return dtype.hasobject and dtype.names is not None and dtype.itemsize < sum(dtype[name].itemsize for name in dtype.names)


class NumpyScalar:
    """Numpy's scalars, with their dtype."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        return {"array": ctx.dump(np.asarray(value))}

    @classmethod
    def __load_from_info__(cls, ctx: Any, array: Any) -> Any:
        return ctx.load(array)[()]


class NumpyArray:
    """Arrays in a ``.npy`` file each, read into memory."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        name = ctx.key_path(".npy")
        np.save(ctx.folder / name, _plain(np.asarray(value) if isinstance(value, np.generic) else value), allow_pickle=False)
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str) -> Any:
        return np.load(ctx.path(filename), allow_pickle=False)


class NumpyMemmapArray(NumpyArray):
    """Arrays in a ``.npy`` file each, read by mapping it: without a copy, read-only."""

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str) -> Any:
        path = ctx.path(filename)
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an empty array has nothing to map
            return np.load(path, allow_pickle=False)


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
