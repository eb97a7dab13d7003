"""ContiguousMemmap: an array that is read piece by piece."""

import copy
import operator
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exca_like.cachedict import CacheDict
from exca_like.errors import CorruptEntryError, CorruptEntryWarning

rng = np.random.default_rng(0)
ARRAYS = {
    "inline": np.arange(24, dtype="i1").reshape(2, 3, 4),
    "stored": np.arange(720).reshape(6, 8, 15),
    "fortran": np.asfortranarray(np.arange(720.0).reshape(6, 8, 15)),
    "big-endian": np.arange(200, dtype=">i4").reshape(10, 20),
    "structured": np.zeros(50, "i4,f8"),
    "texts": np.array(["a" * 50, "b", "ü"]),
    "empty": np.zeros((0, 5)),
    "scalar": np.array(5.5),
    "large": rng.integers(0, 255, (1000, 3000), np.uint8),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    cache = CacheDict(tmp_path_factory.mktemp("cache"), cache_type="ContiguousMemmapArray")
    with cache.write():
        cache.update(ARRAYS)
    return CacheDict(cache.folder)


@pytest.mark.parametrize("name", ARRAYS)
def test_looks_like_the_array(name, stored):
    proxy, array = stored[name], ARRAYS[name]
    for attribute in ("shape", "dtype", "ndim", "size", "nbytes"):
        assert getattr(proxy, attribute) == getattr(array, attribute)
    loaded = np.asarray(proxy)
    assert type(loaded) is np.ndarray
    assert loaded.dtype == array.dtype
    assert loaded.tobytes() == array.tobytes()
    assert np.array(proxy).tobytes() == np.asarray(proxy.T.T).tobytes() == array.tobytes()
    assert np.asarray(proxy.T).shape == array.T.shape
    assert str(array.shape) in repr(proxy)
    if array.ndim:
        assert len(proxy) == len(array)
        assert all((np.asarray(row) == expected).all() for row, expected in zip(proxy, array, strict=True))


def test_what_is_read_belongs_to_the_reader(stored):
    proxy = stored["stored"]
    for loaded in (np.asarray(proxy), np.asarray(proxy[1]), np.array(proxy[:, 2:4]), np.asarray(stored["inline"])):
        loaded[...] = -1  # neither the file nor what others read
    assert np.asarray(proxy).tobytes() == ARRAYS["stored"].tobytes()
    assert np.asarray(stored["inline"]).tobytes() == ARRAYS["inline"].tobytes()


@pytest.mark.parametrize("index", [6, -7, (0, 0, 15), (0, 8), (0, 0, -16)])
def test_out_of_bounds(index, stored):
    with pytest.raises(IndexError):
        ARRAYS["stored"][index]
    with pytest.raises(IndexError, match="out of bounds"):
        stored["stored"][index]


@pytest.mark.parametrize("index", [(0, 0, 0, 0), (..., ...), (slice(None),) * 4])
def test_malformed_indices(index, stored):
    with pytest.raises(IndexError):
        ARRAYS["stored"][index]
    with pytest.raises(IndexError):
        stored["stored"][index]


@pytest.mark.parametrize("index", [[0, 1], np.array([0]), np.array(0), True, np.False_, 1.0, "a", (0, [1]), (True, 0), {1}])
def test_other_indices_are_refused(index, stored):
    with pytest.raises(TypeError, match="numpy.asarray"):
        stored["stored"][index]


def test_integers_of_numpy_are_integers(stored):
    assert np.asarray(stored["stored"][np.int8(2), np.uint64(3) : np.int16(5)]).tolist() == ARRAYS["stored"][2, 3:5].tolist()


OPERATORS = [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift", "lt", "le", "gt", "ge",
    "eq", "ne", "iadd", "isub", "imul", "itruediv", "iand",
]  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("other", [2, np.arange(15), np.float64(1)], ids=["number", "array", "scalar"])
def test_operators_are_refused(name, other, stored):
    operation = getattr(operator, name)
    with pytest.raises(TypeError):
        operation(stored["stored"], other)
    if not name.startswith("i"):
        with pytest.raises(TypeError):
            operation(other, stored["stored"])


@pytest.mark.parametrize(
    "function",
    [
        operator.neg, operator.pos, abs, operator.invert, bool, int, float, hash, np.sin, np.sum, np.mean, np.concatenate,
        lambda a: np.add(a, 1), lambda a: np.add.reduce(a), lambda a: np.stack([a, a]), lambda a: np.where(a, 1, 2),
        lambda a: 5 in a, lambda a: operator.setitem(a, 0, 1), lambda a: np.einsum("ijk->i", a), lambda a: divmod(a, 2), lambda a: round(a),
    ],
)  # fmt: skip
def test_functions_are_refused(function, stored):
    with pytest.raises(TypeError):
        function(stored["stored"])


def test_conversions(stored):
    proxy = stored["stored"]
    assert np.asarray(proxy, "f4").dtype == "f4"
    assert np.asarray(proxy, proxy.dtype).tobytes() == ARRAYS["stored"].tobytes()
    assert np.array(proxy, copy=True).tobytes() == ARRAYS["stored"].tobytes()
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(proxy, copy=False)
    with pytest.raises(TypeError, match="without dimensions"):
        len(stored["scalar"])
    with pytest.raises(TypeError):
        iter(stored["scalar"])


def test_copies_are_arrays(stored):
    for copied in (
        pickle.loads(pickle.dumps(stored["stored"][1])),
        copy.deepcopy(stored["stored"][1]),
        copy.copy(stored["stored"])[1],
    ):
        assert type(copied) is np.ndarray
        assert copied.tobytes() == ARRAYS["stored"][1].tobytes()


def test_proxy_can_be_stored(stored, tmp_path):
    with (cache := CacheDict(tmp_path)).write():
        cache["a"] = stored["stored"][1:3]
        cache["b"] = {"tree": stored["stored"].T}
        cache["c"] = stored["inline"][0]
    fresh = CacheDict(tmp_path)
    assert np.asarray(fresh["a"]).tobytes() == ARRAYS["stored"][1:3].tobytes()
    assert np.asarray(fresh["b"]["tree"]).tobytes() == ARRAYS["stored"].T.tobytes()
    assert np.asarray(fresh["c"]).tobytes() == ARRAYS["inline"][0].tobytes()
    assert {type(fresh["a"]), type(fresh["b"]["tree"])} == {type(stored["stored"])}


def test_any_stored_array_can_be_read_in_pieces(tmp_path):
    """The handler that stores it writes the same bytes as the default one."""
    for cache_type in ("MemmapArray", "ContiguousMemmapArray"):
        with CacheDict(tmp_path / cache_type, cache_type=cache_type).write() as cache:
            cache["a"] = ARRAYS["stored"]
    contents = [next((tmp_path / name).rglob("*.data")).read_bytes() for name in ("MemmapArray", "ContiguousMemmapArray")]
    assert contents[0] == contents[1]


# damage


@pytest.fixture
def damaged(tmp_path):
    array = rng.integers(0, 255, (5, 1 << 20), np.uint8)  # a block of checksums for each row
    with CacheDict(tmp_path, cache_type="ContiguousMemmapArray").write() as cache:
        cache["a"] = array
    with open(next(tmp_path.rglob("*.data")), "r+b") as stream:
        stream.seek((2 << 20) + 5)
        stream.write(b"damage")
    return CacheDict(tmp_path)["a"], array


def test_bad_block_is_noticed_when_it_is_read(damaged):
    proxy, array = damaged
    for rows in (slice(0, 2), slice(3, None)):
        assert np.asarray(proxy[rows]).tobytes() == array[rows].tobytes()
    for index in (2, (2, -1), slice(None), (slice(None), 0), (slice(1, 4), slice(0, 3))):
        for _ in range(2):
            with pytest.raises(CorruptEntryError, match=f"bytes {2 << 20} to {3 << 20} of .* do not match their checksum"):
                np.asarray(proxy[index])
    assert np.asarray(proxy[4, 5:10]).tobytes() == array[4, 5:10].tobytes()


def test_file_that_is_cut_short(damaged, tmp_path):
    proxy, array = damaged
    os.truncate(next(tmp_path.rglob("*.data")), 4 << 20)
    assert np.asarray(proxy[3]).tobytes() == array[3].tobytes()
    with pytest.raises(CorruptEntryError, match="bytes long"):
        np.asarray(proxy[4])
    with pytest.warns(CorruptEntryWarning, match="counts as missing"):
        assert CacheDict(tmp_path).get("a") is None


def test_file_that_is_gone(damaged, tmp_path):
    next(tmp_path.rglob("*.data")).unlink()
    with pytest.warns(CorruptEntryWarning, match="is missing"):
        assert CacheDict(tmp_path).get("a") is None


# memory

PIECES = """
import re, sys
import numpy as np
from exca_like.cachedict import CacheDict

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024  # getrusage tells of the parent, too

proxy = CacheDict(sys.argv[1])["a"]
total = int(np.asarray(proxy[0], "i8").sum())
before = peak()
{reading}
print(peak() - before)
"""
READING = {
    "row by row": "for row in proxy: total += int(np.asarray(row)[::1000].sum())",
    "in slices": "for start in range(0, 200, 3): total += int(np.asarray(proxy[start:start + 3])[:, ::1000].sum())",
    "a column": "np.asarray(proxy[:, 12345])",
    "a few columns": "np.asarray(proxy.T[5:8])",
    "every tenth": "np.asarray(proxy[::10, ::10])",
    "backwards": "for row in proxy[::-1]: np.asarray(row[::-1])",
}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    with CacheDict(folder, cache_type="ContiguousMemmapArray").write() as cache:
        cache["a"] = np.ones((200, 1 << 20), np.uint8)
    yield folder
    for path in Path(folder).rglob("*.data"):
        path.unlink()


@pytest.mark.parametrize("reading", READING)
def test_memory_stays_flat(reading, large):
    code = PIECES.format(reading=READING[reading])
    result = subprocess.run([sys.executable, "-c", code, str(large)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 30  # MiB, of 200


def test_memory_is_measured(large):
    code = PIECES.format(reading="np.asarray(proxy)")
    result = subprocess.run([sys.executable, "-c", code, str(large)], capture_output=True, text=True, check=True)
    assert float(result.stdout) > 180
