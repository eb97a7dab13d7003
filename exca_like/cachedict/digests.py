"""64-bit digests of keys, and tables of them as claims hold them: sorted, with a byte of status each.

Few keys are looked at without numpy, whose import takes longer than many a task.
"""

import functools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

HELD, RELEASED = 0, 1
_BYTES_PER_KEY = 9
_FEW = 16
_LONG = 64  # bytes; longer keys would take much memory in a table
_START = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
_MASK = (1 << 64) - 1

Digests = Sequence[int]
"""Of unsigned 64-bit numbers, one after the other in memory: an ``array``, or a view of one."""


def digests_of(keys: Sequence[str]) -> Digests:
    """64 bits for each key: FNV-1a over 8 bytes at a time, ended by the mixing steps of MurmurHash3."""
    return array("Q", map(_digest, keys)) if len(keys) <= _FEW else _digests(keys)


def chosen(digests: Iterable[int]) -> Digests:
    """Digests of some keys, from those of more."""
    return array("Q", digests)


def order_of(digests: Digests) -> list[int]:
    """The places of some digests, from the smallest digest to the largest."""
    if len(digests) <= _FEW:
        return sorted(range(len(digests)), key=digests.__getitem__)
    order: list[int] = _numbers(digests).argsort().tolist()
    return order


def ordered(digests: Digests) -> Digests:
    """The digests from the smallest to the largest."""
    if len(digests) <= _FEW:
        return array("Q", sorted(digests))
    numbers = _numbers(digests).copy()
    numbers.sort()
    return _array(numbers)


class Table:
    """Sorted digests, each held or released."""

    def __init__(self, digests: Digests, status: bytes | bytearray | memoryview) -> None:
        self.digests = digests
        self.status = status

    @classmethod
    def new(cls, digests: Digests) -> Self:
        """A table of digests, all held."""
        return cls(ordered(digests), bytearray(len(digests)))

    @classmethod
    def read(cls, data: bytes) -> Self:
        """The table that bytes of a claim hold; what was cut off is not in it."""
        number = len(data) // _BYTES_PER_KEY
        view = memoryview(data)
        return cls(view[: 8 * number].cast("Q"), view[8 * number : _BYTES_PER_KEY * number])

    def __bytes__(self) -> bytes:
        return bytes(self.digests) + bytes(self.status)

    def release(self, digests: Digests) -> None:
        """Note that keys are released."""
        assert isinstance(self.status, bytearray)
        if len(digests) <= _FEW:
            places: Iterable[int] = [bisect_left(self.digests, digest) for digest in digests]
        else:
            places = _numbers(self.digests).searchsorted(_numbers(digests)).tolist()
        for place in places:
            self.status[place] = RELEASED

    def held(self, digests: Digests) -> list[int]:
        """Places, among some sorted digests, of those that are held."""
        if len(digests) <= _FEW:
            return [place for place, digest in enumerate(digests) if self._is_held(digest)]
        if not len(self._held):
            return []
        wanted = _numbers(digests)
        found = self._held.searchsorted(wanted)
        found[found == len(self._held)] = 0
        places: list[int] = (self._held[found] == wanted).nonzero()[0].tolist()
        return places

    def has_held(self) -> bool:
        """Whether any is held."""
        return HELD in self.status

    def count(self) -> int:
        """How many are held."""
        return bytes(self.status).count(HELD)

    def _is_held(self, digest: int) -> bool:
        place, number = bisect_left(self.digests, digest), len(self.digests)
        while place < number and self.digests[place] == digest:  # several keys may have the same one
            if self.status[place] == HELD:
                return True
            place += 1
        return False

    @cached_property
    def _held(self) -> "np.ndarray[Any, np.dtype[np.uint64]]":
        import numpy as np

        digests = _numbers(self.digests)
        is_held = np.frombuffer(self.status, np.uint8) == HELD
        return digests if is_held.all() else digests[is_held]


@functools.lru_cache(maxsize=256)
def _digest(key: str) -> int:
    data = _encoded(key)
    digest = _START
    for start in range(0, len(data), 8):
        word = int.from_bytes(data[start : start + 8], "little")
        if word:
            mixed = ((digest ^ word) * _PRIME) & _MASK
            digest = mixed ^ (mixed >> 32)
    for factor in _MIX:
        digest = ((digest ^ (digest >> 33)) * factor) & _MASK
    return digest ^ (digest >> 33)


def _digests(keys: Sequence[str]) -> Digests:
    """As `_digest`, for all keys at once."""
    import numpy as np

    try:
        encoded = list(map(str.encode, keys))
    except UnicodeEncodeError:
        encoded = list(map(_encoded, keys))
    if max(map(len, encoded)) > _LONG:
        encoded = list(map(_encoded, keys))
    width = -(-max(map(len, encoded)) // 8) or 1
    words = np.array(encoded, f"S{8 * width}").view("<u8").reshape(len(encoded), width)
    digests = np.full(len(encoded), _START, np.uint64)
    for place in range(width):  # the same for a key whatever the length of the others, which come with zeros
        word = words[:, place]
        mixed = (digests ^ word) * np.uint64(_PRIME)
        digests = np.where(word != 0, mixed ^ (mixed >> np.uint64(32)), digests)
    for factor in _MIX:
        digests = (digests ^ (digests >> np.uint64(33))) * np.uint64(factor)
    return _array(digests ^ (digests >> np.uint64(33)))


def _encoded(key: str) -> bytes:
    data = key.encode("utf-8", "surrogatepass")  # lone surrogates come from names of undecodable files
    return data if len(data) <= _LONG else blake2b(data).hexdigest().encode()


def _numbers(digests: Digests) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    import numpy as np

    return np.frombuffer(digests, np.uint64)  # type: ignore[call-overload,no-any-return] # arrays and views are buffers


def _array(numbers: "np.ndarray[Any, np.dtype[np.uint64]]") -> Digests:
    made = array("Q")
    made.frombytes(numbers.tobytes())
    return made
