"""Arrays that are read piece by piece: a proxy that holds no data.

A mapped array keeps every page that was ever touched in the process's memory figure. The proxy reads what is asked for
into new arrays instead, so that the figure stays flat however much of a large file is visited.
"""

import math
import os
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import numpy as np

from exca_like.cachedict import blocks
from exca_like.cachedict.handlers.arrays import MemmapArray, dtype_of, dtype_text, plain, store
from exca_like.errors import CorruptEntryError

_WINDOW = 1 << 20  # bytes that are read at once, with the gaps in them
_WORTH_SKIPPING = 64 << 10  # bytes; to read a shorter gap costs less than another call


class _Source:
    """The stored bytes of an array, checked block by block as they are read."""

    def __init__(self, path: str, offset: int, length: int, sums: str) -> None:
        self.path = path
        self.offset = offset
        self.length = length
        self.sums = sums
        self._checked: set[int] = set()

    def read(self, start: int, end: int) -> np.ndarray[Any, Any]:
        """Bytes of a range of the array, as an array of their own.

        Raises
        ------
        CorruptEntryError
            A block of the range does not match its checksum, or the file is too short or not there any more.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            msg = f"{self.path} was moved or deleted since the array was looked up: look it up again"
            raise CorruptEntryError(msg) from error
        with open(descriptor, "rb", buffering=0) as stream:
            for begin, stop, expected in self._unchecked(start, end):
                if f"{crc32(self._read(stream, begin, stop).data):08x}" != expected:
                    raise blocks.mismatch(self.path, self.offset + begin, stop - begin)
                self._checked.add(begin)
            return self._read(stream, start, end)

    def _read(self, stream: Any, start: int, end: int) -> np.ndarray[Any, Any]:
        data = np.empty(end - start, np.uint8)
        view, position = data.data, self.offset + start
        while len(view):
            count = os.preadv(stream.fileno(), [view], position)
            if not count:
                raise blocks.TooShortError(self.path, position, self.offset, self.length)
            view, position = view[count:], position + count
        return data

    def _unchecked(self, start: int, end: int) -> Iterator[tuple[int, int, str]]:
        if not self.sums or start == end:
            return
        step = self.length if self.length <= blocks.EDGE else blocks.BLOCK
        for begin in range(start // step * step, end, step):
            if begin not in self._checked:
                yield blocks.block_at(self.sums, self.length, begin)


class ContiguousMemmap:
    """A stored array that is not in memory.

    Indexing with integers, slices, ``...`` and ``None`` gives another proxy; ``numpy.asarray`` reads it. Everything else that
    would need the data (arithmetic, functions of numpy, indexing with arrays) is a ``TypeError``.

    Attributes
    ----------
    shape, dtype, ndim, size, nbytes:
        As for an array.
    """

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, source: _Source, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], start: int = 0) -> None:
        self._source = source
        self._strides = strides
        self._start = start  # offset of the first element in the source, in bytes
        self.dtype = np.dtype(dtype)
        self.shape = shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that reading it takes."""
        return self.size * int(self.dtype.itemsize)

    def __len__(self) -> int:
        if not self.shape:
            msg = "len() of a stored array without dimensions"
            raise TypeError(msg)
        return self.shape[0]

    def __getitem__(self, index: Any) -> "ContiguousMemmap":
        parts = index if isinstance(index, tuple) else (index,)
        if any(not (part is None or part is Ellipsis or isinstance(part, slice | int | np.integer)) for part in parts) or any(
            isinstance(part, bool | np.bool_) for part in parts
        ):
            msg = (
                f"a stored array takes integers, slices, ... and None as indices, not {index!r:.100}: "
                "read it first, with numpy.asarray"
            )
            raise TypeError(msg)
        if parts.count(Ellipsis) > 1:
            msg = "an index can only have a single ellipsis ('...')"
            raise IndexError(msg)
        named = sum(part is not None and part is not Ellipsis for part in parts)
        if named > self.ndim:
            msg = f"too many indices: the array has {self.ndim} dimensions, but {named} were indexed"
            raise IndexError(msg)
        if Ellipsis not in parts:
            parts = (*parts, Ellipsis)
        shape: list[int] = []
        strides: list[int] = []
        start, axis = self._start, 0
        part: Any
        for part in parts:
            if part is None:
                shape.append(1)
                strides.append(0)
            elif part is Ellipsis:
                skipped = self.ndim - named
                shape.extend(self.shape[axis : axis + skipped])
                strides.extend(self._strides[axis : axis + skipped])
                axis += skipped
            elif isinstance(part, slice):
                first, stop, step = part.indices(self.shape[axis])
                count = len(range(first, stop, step))
                start += first * self._strides[axis] if count else 0
                shape.append(count)
                strides.append(self._strides[axis] * step)
                axis += 1
            else:
                position = int(part) + (self.shape[axis] if part < 0 else 0)
                if not 0 <= position < self.shape[axis]:
                    msg = f"index {part} is out of bounds for axis {axis} with size {self.shape[axis]}"
                    raise IndexError(msg)
                start += position * self._strides[axis]
                axis += 1
        return ContiguousMemmap(self._source, self.dtype, tuple(shape), tuple(strides), start)

    def __iter__(self) -> Iterator["ContiguousMemmap"]:
        return (self[number] for number in range(len(self)))

    @property
    def T(self) -> "ContiguousMemmap":  # noqa: N802 - numpy's name
        """The transposed array, as a proxy."""
        return ContiguousMemmap(self._source, self.dtype, self.shape[::-1], self._strides[::-1], self._start)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            msg = "a stored array can't be had without reading it: leave copy=False out"
            raise ValueError(msg)
        array = self._read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def _read(self) -> np.ndarray[Any, Any]:
        if not self.size:
            return np.empty(self.shape, self.dtype)
        reach = [(length - 1) * stride for length, stride in zip(self.shape, self._strides, strict=True)]
        low = self._start + sum(step for step in reach if step < 0)
        high = self._start + sum(step for step in reach if step > 0) + self.dtype.itemsize
        widest = max(range(self.ndim), key=lambda axis: abs(reach[axis]), default=None)
        if widest is not None and high - low > 2 * self.nbytes + _WINDOW and abs(reach[widest]) >= _WINDOW:  # mostly gaps
            step = abs(self._strides[widest])
            number = _WINDOW // step if step <= _WORTH_SKIPPING else 1
            array = np.empty(self.shape, self.dtype)
            for first in range(0, self.shape[widest], number):
                place = (slice(None),) * widest + (slice(first, first + number),)
                array[place] = self[place]._read()
            return array
        data = self._source.read(low, high)
        view = np.ndarray(self.shape, self.dtype, data.data, self._start - low, self._strides)
        return view if view.flags.c_contiguous or view.flags.f_contiguous else view.copy()

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        msg = f"numpy.{function.__name__} would read a whole stored array: give it numpy.asarray(...) of what is needed"
        raise TypeError(msg)

    def __eq__(self, other: object) -> bool:
        msg = "comparing would read a whole stored array: use numpy.asarray"
        raise TypeError(msg)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype}, file={self._source.path!r})"

    def __reduce__(self) -> Any:
        return np.asarray, (self._read(),)


class ContiguousMemmapArray:
    """Arrays in one packed file per writer, read piece by piece through a `ContiguousMemmap`."""

    checks_itself = True

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        array = plain(np.asarray(value) if isinstance(value, ContiguousMemmap) else value)
        return store(ctx, array, dtype_text(array.dtype))

    @classmethod
    def __load_from_info__(cls, ctx: Any, inline: Any = None, shape: Any = (), dtype: Any = None, **info: Any) -> Any:
        if inline is not None:
            return _InMemory.proxy(MemmapArray.__load_from_info__(ctx, inline))
        kind = dtype_of(dtype)
        shape = tuple(shape)
        strides = _strides_of(shape, kind.itemsize, info.get("order", "C"))
        length = info.get("length")
        if length is None:
            length = math.prod(shape) * kind.itemsize
        filename, offset = info["filename"], info.get("offset", 0)
        path = ctx.path(filename)
        if (size := os.path.getsize(path)) < offset + length:  # the content is checked as it is read
            raise blocks.TooShortError(path, size, offset, length)
        source = _Source(path, offset, length, ctx.sums(filename, offset, length))
        return ContiguousMemmap(source, kind, shape, strides)


class _InMemory(_Source):
    """The bytes of an array so small that it travels in the journal."""

    def __init__(self, data: np.ndarray[Any, Any]) -> None:
        super().__init__("<journal>", 0, data.nbytes, "")
        self._data = data.reshape(-1).view(np.uint8)

    @classmethod
    def proxy(cls, array: np.ndarray[Any, Any]) -> ContiguousMemmap:
        """A proxy of an array in memory."""
        return ContiguousMemmap(cls(array), array.dtype, array.shape, array.strides)

    def read(self, start: int, end: int) -> np.ndarray[Any, Any]:
        return self._data[start:end].copy()


def _strides_of(shape: tuple[int, ...], itemsize: int, order: str) -> tuple[int, ...]:
    strides = []
    step = itemsize
    for length in shape if order == "F" else shape[::-1]:
        strides.append(step)
        step *= length
    return tuple(strides if order == "F" else strides[::-1])


def _refused(name: str) -> Any:
    def operation(*_: Any) -> Any:
        msg = f"{name} would read a whole stored array: use numpy.asarray first"
        raise TypeError(msg)

    return operation


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"):
    for _prefix in ("", "r", "i"):
        setattr(ContiguousMemmap, f"__{_prefix}{_name}__", _refused(_name))
for _name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "bool", "int", "float", "contains", "setitem"):
    setattr(ContiguousMemmap, f"__{_name}__", _refused(_name))

HANDLERS = {"ContiguousMemmapArray": ContiguousMemmapArray}
TYPE_DEFAULTS: dict[type, Any] = {ContiguousMemmap: ContiguousMemmapArray}
