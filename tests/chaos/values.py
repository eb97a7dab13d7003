"""Values that tell which entry they belong to, so that a wrong one is recognized whoever wrote it."""

import struct
from typing import Any
from zlib import crc32

import numpy as np

from exca_like.cachedict import CacheDict

# kind -> handler that must be asked for (None: chosen by type); an entry's kind is the first part of its key
KINDS = {
    "small": None,  # an array of 160 bytes
    "array": None,  # 5 KB
    "large": None,  # 200 KB
    "json": None,
    "long": None,  # JSON of more than 1 KiB
    "mixed": None,  # a dictionary with an array in it
    "file": "NumpyArray",
    "text": "String",
}
_LENGTHS = {"small": 20, "array": 640, "large": 25_600, "file": 100}


def key_of(kind: str, *parts: object) -> str:
    """A key for a value of a kind."""
    return ":".join((kind, *map(str, parts)))


def value_of(key: str, version: int) -> Any:
    """The value of an entry when it is written for the ``version``-th time."""
    kind = key.partition(":")[0]
    mark = crc32(key.encode())
    if kind in _LENGTHS:
        array = np.arange(_LENGTHS[kind], dtype=np.int64) * (2 * version + 1) + mark
        array[0] = version
        return array
    if kind == "text":
        return f"{version} {key} é"
    tree: dict[str, Any] = {"version": version, "key": key, "part": [mark, 0.5, None, True]}
    if kind == "long":
        tree["numbers"] = [mark + version + number for number in range(200)]
    if kind == "mixed":
        tree["array"] = np.full(100, float(mark + version))
        tree["pair"] = (version, key)
    return tree


def version_in(value: Any) -> int:
    """Which version a value says it is."""
    if isinstance(value, np.ndarray):
        return int(value[0])
    return int(value.partition(" ")[0] if isinstance(value, str) else value["version"])


def check_value(key: str, value: Any) -> int:
    """The version of an entry; an error if its value is none that was ever written for the key."""
    version = version_in(value)
    assert same(value, value_of(key, version)), f"a wrong value for {key!r}: {value!r:.300}"
    return version


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal to the last bit, but for those of NaN, and of the same types."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return struct.pack("<d", left) == struct.pack("<d", right) or (left != left and right != right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


class Store:
    """One folder, written with the handler that each kind asks for."""

    def __init__(self, folder: Any) -> None:
        self.by_handler = {handler: CacheDict[Any](folder, cache_type=handler) for handler in KINDS.values()}
        self.cache = self.by_handler[None]

    def of(self, key: str) -> CacheDict[Any]:
        """The CacheDict that writes a key."""
        return self.by_handler[KINDS[key.partition(":")[0]]]

    def refresh(self) -> None:
        for cache in self.by_handler.values():
            cache.refresh()

    def put(self, key: str, version: int, *, replace: bool = False) -> None:
        self.of(key).put(key, value_of(key, version), replace=replace)
