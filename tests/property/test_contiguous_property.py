"""Indexing a stored array is indexing an array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from exca_like.cachedict import CacheDict

ARRAYS = {
    "inline": np.arange(24, dtype="i1").reshape(2, 3, 4),
    "stored": np.arange(720).reshape(6, 8, 15),
    "fortran": np.asfortranarray(np.arange(720.0).reshape(6, 8, 15)),
    "big-endian": np.arange(200, dtype=">i4").reshape(10, 20),
    "structured": np.zeros(50, "i4,f8"),
    "empty": np.zeros((3, 0, 5)),
    "with gaps": np.arange(4_000_000, dtype="u4").reshape(2000, 20, 100),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    cache = CacheDict(tmp_path_factory.mktemp("cache"), cache_type="ContiguousMemmapArray")
    with cache.write():
        cache.update(ARRAYS)
    return CacheDict(cache.folder)


@given(data=st.data(), name=st.sampled_from(sorted(ARRAYS)))
def test_basic_indices(data, name, stored):
    proxy, array = stored[name], ARRAYS[name]
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(npst.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
        proxy, array = proxy[index], np.asarray(array[index], array.dtype)
        assert proxy.shape == array.shape
        if data.draw(st.booleans()):
            proxy, array = proxy.T, array.T
    loaded = np.asarray(proxy)
    assert loaded.shape == array.shape
    assert loaded.dtype == array.dtype
    assert loaded.tobytes() == array.tobytes()
