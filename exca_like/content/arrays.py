"""Keys of numpy arrays and torch tensors, by type, shape and content."""

import collections
import sys
from hashlib import blake2b
from typing import Any

from exca_like import files
from exca_like.content.parts import DIGEST_SIZE, NoKeyError, Parts, feed_tag, feed_text
from exca_like.content.values import FOREIGN, feed_at, feed_state
from exca_like.names import qualified_name

_LARGE = 1 << 16  # bytes; larger arrays are remembered
_REMEMBERED = 1 << 28  # bytes of copies that are kept of arrays


def _feed_numpy(value: Any, parts: Parts, depth: int) -> bool:
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.ma.MaskedArray):
        feed_tag("masked", parts)
        feed_array(numpy.ma.getdata(value), parts, depth)
        feed_array(numpy.ma.getmaskarray(value), parts, depth)
        feed_array(numpy.asarray(value.fill_value), parts, depth)
    elif isinstance(value, numpy.ndarray):
        if type(value) not in (numpy.ndarray, numpy.memmap):
            feed_tag(f"array {qualified_name(type(value))}", parts)
            feed_at(".__dict__", dict(getattr(value, "__dict__", {})), parts, depth)
        feed_array(numpy.asarray(value), parts, depth)
    elif isinstance(value, numpy.generic):
        feed_tag("scalar", parts)
        feed_array(numpy.asarray(value), parts, depth)
    elif isinstance(value, numpy.dtype):
        if value.names is None and value.subdtype is None:
            feed_tag("dtype", parts)
            feed_text(value.str, parts)
        else:
            feed_state(value, parts, depth)
    elif isinstance(value, numpy.ufunc):
        name = str(value.__name__)
        if getattr(numpy, name, None) is not value:
            raise NoKeyError(value, f"the ufunc {name} is none of numpy's own, and has no name to find it again by")
        feed_tag("ufunc", parts)
        feed_text(name, parts)
    else:
        return False
    return True


def feed_array(array: Any, parts: Parts, depth: int) -> None:
    numpy: Any = sys.modules["numpy"]
    dtype = array.dtype
    parts.append(b"a%b%b:" % (dtype.newbyteorder("<").str.encode(), str(array.shape).encode()))
    if dtype.names is not None:  # field by field: the padding between fields is arbitrary
        for name in dtype.names:
            feed_text(name, parts)
            feed_array(array[name], parts, depth)
    elif dtype.hasobject:
        for item in array.ravel():
            feed_at("[...]", item, parts, depth)
    else:
        if dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big"):
            array = array.astype(dtype.newbyteorder("<"))
        flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
        # a copy that was made just now is at another place each time
        parts.append(_remembered_digest(flat) if numpy.may_share_memory(flat, array) else digest_of_bytes(flat))


def _feed_torch(value: Any, parts: Parts, depth: int) -> bool:
    torch: Any = sys.modules["torch"]
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            raise NoKeyError(value, "a sparse or nested tensor has no canonical layout: use tensor.to_dense()")
        if value.is_quantized or value.is_meta:
            raise NoKeyError(value, "a quantized tensor, or one without data, has no bytes of its own: use tensor.dequantize()")
        kind = type(value)
        feed_tag("tensor" if kind is torch.Tensor else f"tensor {qualified_name(kind)}", parts)
        if kind is not torch.Tensor:
            feed_at(".__dict__", dict(value.__dict__), parts, depth)
        parts.append(f"{value.dtype}{tuple(value.shape)}:".encode())
        data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        parts.append(_remembered_digest(data.view(torch.uint8).numpy()))
    elif isinstance(value, torch.dtype | torch.device):
        feed_tag(f"torch {value}", parts)
    else:
        return False
    return True


class _Remembered:
    """Digests of large buffers, each found again by comparing it with a copy, whatever was done to it meanwhile."""

    def __init__(self) -> None:
        self._lock = files.ForkSafeLock()
        self._known: collections.OrderedDict[tuple[int, int], tuple[Any, bytes]] = collections.OrderedDict()
        self._size = 0

    def digest(self, data: Any) -> bytes:
        place = data.ctypes.data, data.nbytes  # only says where to look first
        numpy: Any = sys.modules["numpy"]
        known = self._known.get(place)
        if known is not None and numpy.array_equal(_words(data), _words(known[0])):
            with self._lock:
                if place in self._known:
                    self._known.move_to_end(place)
            return known[1]
        copy = data.copy()  # first, so that what is digested is what later ones are compared with
        found = blake2b(copy, digest_size=DIGEST_SIZE).digest()
        with self._lock:
            self._size += copy.nbytes - (self._known[place][0].nbytes if place in self._known else 0)
            self._known[place] = copy, found
            self._known.move_to_end(place)
            while self._size > _REMEMBERED:
                _, (oldest, _) = self._known.popitem(last=False)
                self._size -= oldest.nbytes
        return found


_remembered = _Remembered()


def _words(data: Any) -> Any:
    """Bytes as larger numbers, which are compared faster, if they can be."""
    return data.view("u8") if data.nbytes % 8 == 0 and data.ctypes.data % 8 == 0 else data


def _remembered_digest(data: Any) -> bytes:
    if _LARGE <= data.nbytes <= _REMEMBERED // 2:
        return _remembered.digest(data)
    return digest_of_bytes(data)


def digest_of_bytes(data: Any) -> bytes:
    return blake2b(data, digest_size=DIGEST_SIZE).digest()


FOREIGN["numpy"] = _feed_numpy
FOREIGN["torch"] = _feed_torch
