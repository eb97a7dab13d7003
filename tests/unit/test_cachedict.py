"""CacheDict: a mapping, and what a folder adds to it."""

import copy
import json
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import exca_like
from exca_like import errors
from exca_like.cachedict import CacheDict, lines
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.index import Index
from exca_like.errors import CorruptEntryWarning, PickleRefusedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture(params=["folder", "folder and memory", "memory"])
def cache(request, tmp_path):
    return CacheDict(None if request.param == "memory" else tmp_path / "cache", keep_in_ram="memory" in request.param)


def filled(folder, _options=None, **values):
    cache = CacheDict(folder, **_options or {})
    with cache.write():
        cache.update(values)
    return cache


def only(folder, pattern="*-info.jsonl") -> Path:
    (path,) = Path(folder).rglob(pattern)
    return path


# a mapping


def test_is_public():
    assert exca_like.CacheDict is CacheDict
    assert issubclass(CacheDict, MutableMapping)


def test_mapping(cache):
    assert not cache
    assert len(cache) == 0
    assert list(cache) == []
    with cache.write():
        cache["b"] = 1
        cache["a"] = [2.5, None]
        cache.update({"c": "text"}, d=None)
    assert cache
    assert len(cache) == 4
    assert list(cache) == list(cache.keys()) == ["b", "a", "c", "d"]
    assert list(cache.values()) == [1, [2.5, None], "text", None]
    assert dict(cache.items()) == dict(cache) == {"b": 1, "a": [2.5, None], "c": "text", "d": None}
    assert cache == {"b": 1, "a": [2.5, None], "c": "text", "d": None}
    assert cache["a"] == [2.5, None]
    assert cache.get("a") == [2.5, None]
    assert cache.get("x") is None
    assert cache.get("x", 3) == 3
    assert "d" in cache
    assert "x" not in cache
    assert 5 not in cache
    with pytest.raises(KeyError, match="'x'"):
        cache["x"]


def test_mapping_methods_that_write(cache):
    with cache.write():
        cache.update(a=1, b=2, c=3, d=4)
        assert cache.pop("a") == 1
        assert cache.pop("a", None) is None
        with pytest.raises(KeyError):
            cache.pop("a")
        assert cache.setdefault("b", 5) == 2
        assert cache.setdefault("e", 5) == 5
        assert cache.popitem() == ("b", 2)
        del cache["c"]
        with pytest.raises(KeyError):
            del cache["c"]
        cache["c"] = "again"
    assert dict(cache) == {"d": 4, "e": 5, "c": "again"}
    with cache.write():
        while cache:
            cache.popitem()
        with pytest.raises(KeyError):
            cache.popitem()


def test_clear(cache):
    with cache.write():
        cache.update(a=1, b=np.arange(1000))
    cache.clear()
    assert dict(cache) == {}
    assert cache.folder is None or not [path for path in cache.folder.rglob("*") if path.is_file()]
    with cache.write():
        cache["a"] = 2
        cache.clear()
        cache["a"] = 3
    assert dict(cache) == {"a": 3}
    cache.clear()
    cache.clear()


def test_clear_of_a_folder_that_is_not_there(tmp_path):
    CacheDict(tmp_path / "nowhere").clear()
    assert not (tmp_path / "nowhere").exists()


def test_writing_again_is_an_error(cache):
    with cache.write():
        cache["a"] = 1
        with pytest.raises(ValueError, match=r"there is a value for 'a' already.*del cache\[key\]"):
            cache["a"] = 1
        with pytest.raises(errors.KeyExistsError):
            cache.update(a=2)
    with cache.write(), pytest.raises(ValueError, match="already"):
        cache["a"] = 2
    assert dict(cache) == {"a": 1}


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), type("Text", (str,), {})("a")])
def test_keys_are_strings(cache, key):
    with cache.write(), pytest.raises(TypeError, match="the keys of a CacheDict are strings, not"):
        cache[key] = 1
    assert len(cache) == 0


def test_key_that_is_no_text(tmp_path):
    cache = CacheDict(tmp_path)
    with cache.write(), pytest.raises(TypeError, match="JSON"):
        cache["\ud800"] = np.arange(1000)
    assert "\ud800" not in cache
    assert len(CacheDict(tmp_path)) == 0


def test_neither_folder_nor_memory():
    with pytest.raises(ValueError, match="keep_in_ram=True"):
        CacheDict(None)
    assert CacheDict(None, True).folder is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cache_type": "Nothing"},
            r"no handler 'Nothing'. Known are: .*Json.*MemmapArray.*ParquetPandasDataFrame.*TorchTensor",
        ),
        ({"check": "none"}, "check='none' must be 'full' or 'edges'"),
        ({"allow_pickle": "sometimes"}, "allow_pickle='sometimes' must be 'own', 'always' or 'never'"),
    ],
)
def test_wrong_options(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CacheDict(tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_options_by_position(tmp_path):
    cache = CacheDict(tmp_path, True, "Json", 0o640, "never")
    options = (
        cache.folder,
        cache.keep_in_ram,
        cache.cache_type,
        cache.permissions,
        cache.allow_pickle,
        cache.check,
        cache.fsync,
    )
    assert options == (tmp_path, True, "Json", 0o640, "never", "full", False)
    assert repr(cache) == f"CacheDict('{tmp_path}', cache_type='Json')"


def test_relative_folder_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = filled("cache", a=1)
    monkeypatch.chdir("/")
    assert dict(cache) == {"a": 1}
    assert cache.folder == tmp_path / "cache"


# blocks


def test_writing_needs_a_block(tmp_path):
    cache = filled(tmp_path, a=1)
    for attempt in (lambda: cache.update(b=1), lambda: cache.pop("a"), lambda: cache.put_failure("a", Failure.of(OSError()))):
        with pytest.raises(RuntimeError, match=r"needs a block: `with cache.write\(\)"):
            attempt()
    assert dict(cache) == dict(CacheDict(tmp_path)) == {"a": 1}


def test_blocks(tmp_path):
    cache = CacheDict(tmp_path)
    with cache.writer() as writer:
        writer["a"] = 1
        with cache.write() as same:
            same["b"] = 2
        writer["c"] = 3
    assert same is cache
    with pytest.raises(ZeroDivisionError), cache.write():
        cache["d"] = 4
        raise ZeroDivisionError
    assert dict(CacheDict(tmp_path)) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert len(list(tmp_path.iterdir())) == 1  # one writer, one journal
    with pytest.raises(RuntimeError):
        cache["e"] = 5


def test_asking_creates_nothing(tmp_path):
    cache = CacheDict(tmp_path / "cache")
    assert "a" not in cache
    assert list(cache) == []
    assert cache.get("a") is None
    assert cache.missing(["a"]) == ["a"]
    assert cache.failure("a") is None
    assert cache.meta("a") is None
    with cache.write():
        pass
    with cache.frozen_cache_folder():
        pass
    assert not (tmp_path / "cache").exists()


def test_files_are_closed_after_a_block(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    with (cache := CacheDict(tmp_path)).write():
        cache["a"] = np.arange(1000)
        cache["b"] = [{"x": "y" * 5000}]
    assert set(os.listdir("/proc/self/fd")) == before


# memory


def test_keep_in_ram(tmp_path):
    array = np.arange(1000)
    cache = filled(tmp_path, {"keep_in_ram": True}, a=array)
    assert cache["a"] is array
    other = CacheDict(tmp_path, keep_in_ram=True)
    assert other["a"] is other["a"] is not array
    assert CacheDict(tmp_path)["a"] is not CacheDict(tmp_path)["a"]


def test_memory_follows_deletions_of_others(tmp_path):
    cache = filled(tmp_path, {"keep_in_ram": True}, a=1, b=2)
    other = CacheDict(tmp_path)
    with other.write():
        del other["a"]
    assert list(cache) == ["b"]
    assert "a" not in cache
    assert cache.get("a") is None
    with cache.write():
        cache["a"] = 3
    assert dict(other) == {"b": 2, "a": 3}


def test_in_memory_only_values_are_kept_as_they_are():
    cache = CacheDict(None, keep_in_ram=True)
    value = object()
    cache["a"] = value
    assert cache["a"] is value
    with pytest.raises(ValueError, match="already"):
        cache["a"] = 1
    cache.put("a", 2, replace=True)
    assert cache["a"] == 2
    del cache["a"]
    assert not cache


# what others write


def test_others_are_seen(tmp_path):
    cache, other = CacheDict(tmp_path), CacheDict(tmp_path)
    assert list(other) == []
    with cache.write():
        cache["a"] = 1
        assert other["a"] == 1
        cache["b"] = 2
        assert "b" in other
        cache["c"] = 3
        assert len(other) == 3
        cache["d"] = 4
        assert list(other) == ["a", "b", "c", "d"]
        cache["e"] = 5
        assert other.missing(["e", "x", "a", "y"]) == ["x", "y"]
        del cache["a"]
        assert list(other) == ["b", "c", "d", "e"]
        with pytest.raises(KeyError):
            other["a"]


def test_first_of_two_entries_for_a_key_is_the_same_for_all(tmp_path):
    first, second = CacheDict(tmp_path), CacheDict(tmp_path)
    with first.write(), second.write():
        first["a"] = "first"
        second["a"] = "second"
    journals = sorted(path.name for path in tmp_path.iterdir())
    assert len(journals) == 2
    found = {CacheDict(tmp_path)["a"] for _ in range(3)}
    assert len(found) == 1
    winner = "first" if b"first" in (tmp_path / journals[0]).read_bytes() else "second"
    assert found == {winner}
    for cache in (first, second):
        cache.refresh()
        assert cache["a"] == winner
        assert list(cache) == ["a"]
    with first.write():
        del first["a"]
    assert list(CacheDict(tmp_path)) == list(second) == []


def test_iteration_goes_on_while_others_write_and_delete(tmp_path):
    cache = filled(tmp_path, **{str(number): number for number in range(50)})
    seen = []
    for key, value in CacheDict(tmp_path).items():
        seen.append(value)
        with cache.write():
            cache[f"new {key}"] = -1
            if value % 2 == 0 and str(value + 1) in cache:
                del cache[str(value + 1)]
    assert set(range(0, 50, 2)) <= set(seen) <= set(range(50))
    assert len(cache) == 25 + len(seen)


def test_missing_looks_at_the_folder_once(tmp_path, monkeypatch):
    cache = filled(tmp_path, a=1)
    looks = []
    refresh = Index.refresh
    monkeypatch.setattr(Index, "refresh", lambda index: looks.append(index) or refresh(index))
    assert cache.missing(str(number) for number in range(1000)) == [str(number) for number in range(1000)]
    assert len(looks) == 1


def test_frozen_folder(tmp_path, monkeypatch):
    cache, other = filled(tmp_path, a=1), CacheDict(tmp_path)
    with cache.frozen_cache_folder():
        with other.write():
            other["b"] = 2
        monkeypatch.setattr(Index, "refresh", None)
        assert dict(cache) == {"a": 1}
        assert "b" not in cache
        assert len(cache) == 1
        assert cache.get("b") is None
        assert cache.missing(["a", "b"]) == ["b"]
        with cache.frozen_cache_folder():
            pass
        assert "b" not in cache
        with cache.write():
            cache["c"] = 3
        assert cache["c"] == 3
        assert "b" not in cache
        monkeypatch.undo()
    assert dict(cache) == {"a": 1, "b": 2, "c": 3}
    with CacheDict(None, keep_in_ram=True).frozen_cache_folder():
        pass


def test_torn_last_line_is_not_there_yet(tmp_path):
    filled(tmp_path, a=1, b=2)
    journal = only(tmp_path)
    whole = journal.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        journal.write_bytes(whole[:length])
        reader = CacheDict(tmp_path)
        assert dict(reader) == {"a": 1}
        with open(journal, "ab") as stream:
            stream.write(whole[length:])
        assert dict(reader) == {"a": 1, "b": 2}


def test_damaged_line_costs_itself_alone(tmp_path):
    filled(tmp_path, a=1, b=2, c=3)
    journal = only(tmp_path)
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"b"', b'"x"'))
    cache = CacheDict(tmp_path)
    with pytest.warns(CorruptEntryWarning, match=r"the line at byte \d+ of .* is damaged"):
        assert dict(cache) == {"a": 1, "c": 3}
    assert dict(CacheDict(tmp_path)) == {"a": 1, "c": 3}  # told once
    with cache.write():
        cache["b"] = 4
    assert dict(CacheDict(tmp_path)) == {"a": 1, "c": 3, "b": 4}


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "folder").mkdir()
    cache = filled(tmp_path, a=np.arange(1000))
    assert list(cache) == ["a"]
    cache.clear()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "data") == ["folder", "notes.txt"]


# damage


def test_bad_data_count_as_missing_and_can_be_written_again(tmp_path):
    filled(tmp_path, a=np.arange(1000), b=np.arange(1000))
    data = only(tmp_path, "*.data")
    with open(data, "r+b") as stream:
        stream.seek(100)
        stream.write(b"damage")
    cache = CacheDict(tmp_path)
    assert "a" in cache  # it is not known before it is read
    with pytest.warns(
        CorruptEntryWarning, match=r"the entry 'a' at byte 0 of .* counts as missing: bytes 0 to 8000 of .*\.data"
    ):
        assert cache.get("a") is None
    assert "a" not in cache
    assert list(cache) == ["b"]
    assert cache["b"][-1] == 999
    assert CacheDict(tmp_path).get("a") is None  # told once
    with cache.write():
        cache["a"] = np.zeros(3)
    assert CacheDict(tmp_path)["a"].shape == (3,)


def test_checks(tmp_path):
    """Large data are checked once per process, or only at their edges."""
    size = 300_000
    filled(tmp_path, a=np.zeros(size, np.uint8))
    data = only(tmp_path, "*.data")

    def damage(offset):
        content = bytearray(data.read_bytes())
        content[offset] ^= 1
        data.unlink()  # another file, as checks are made once for each
        data.write_bytes(content)

    damage(size // 2)
    assert CacheDict(tmp_path, check="edges")["a"].sum() == 1
    damage(size // 2)
    assert CacheDict(tmp_path)["a"].sum() == 0
    damage(size // 2)
    with pytest.warns(CorruptEntryWarning):
        assert CacheDict(tmp_path).get("a") is None
    damage(size // 2)
    damage(size - 1)
    assert CacheDict(tmp_path, check="edges").get("a") is None


def test_arrays_are_read_only_views(tmp_path):
    cache = filled(tmp_path, a=np.arange(100_000))
    array = CacheDict(tmp_path)["a"]
    assert not array.flags.writeable
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with cache.write():
        del cache["a"]
    cache.clear()
    assert array[-1] == 99_999


# describe, meta, replace, failures


def test_describe(tmp_path):
    cache = CacheDict(tmp_path)
    with cache.write():
        cache.put("a", np.arange(1000), meta={"seconds": 1.5})
        cache.put("b", 1)
    described = CacheDict(tmp_path).describe("a")
    assert described["#key"] == "a"
    assert described["#type"] == "MemmapArray"
    assert described["#meta"] == {"seconds": 1.5}
    assert described["#data"][0][:3] == [".data", 0, 8000]
    assert cache.describe("b")["#type"] == "Json"
    assert cache.meta("a") == {"seconds": 1.5}
    assert cache.meta("b") is None
    assert cache.meta("x") is None
    with pytest.raises(KeyError):
        cache.describe("x")


def test_meta_must_be_json(tmp_path):
    cache = CacheDict(tmp_path)
    with cache.write(), pytest.raises(TypeError):
        cache.put("a", np.arange(1000), meta={1, 2})
    assert "a" not in CacheDict(tmp_path)


@pytest.mark.parametrize("other_writer", [False, True])
def test_replace(tmp_path, other_writer):
    cache = filled(tmp_path, {"cache_type": "NumpyArray"}, a=np.arange(3), b=np.arange(4))
    files = set(tmp_path.rglob("*.npy"))
    writing = CacheDict(tmp_path) if other_writer else cache
    with writing.write():
        for number in range(3):
            writing.put("a", np.full(2, number), replace=True)
            assert writing["a"].tolist() == CacheDict(tmp_path)["a"].tolist() == [number] * 2
    assert writing["a"].tolist() == cache["a"].tolist() == [2, 2]
    assert sorted(CacheDict(tmp_path)) == ["a", "b"]
    assert len(files - set(tmp_path.rglob("*.npy"))) == 1  # that of the old value
    with cache.write():
        cache.put("new", 1, replace=True) if cache.cache_type is None else cache.put("new", np.zeros(1), replace=True)
        del cache["a"]
    assert sorted(CacheDict(tmp_path)) == ["b", "new"]


def test_failures(tmp_path):
    cache = CacheDict(tmp_path)
    with cache.write():
        cache.put_failure("a", Failure.of(ValueError("broken")), meta={"seconds": 1})
        cache["b"] = 1
    fresh = CacheDict(tmp_path)
    assert list(fresh) == ["b"]
    assert "a" not in fresh
    failure = fresh.failure("a")
    assert (failure.type, failure.message, failure.reason) == ("builtins.ValueError", "broken", "error")
    with pytest.raises(ValueError, match="broken"):
        raise failure.exception()
    assert fresh.meta("a") == {"seconds": 1}
    assert fresh.failure("b") is None
    with cache.write():
        cache.put("a", 2, replace=True)
    assert CacheDict(tmp_path).failure("a") is None
    fresh.refresh()
    assert fresh.failure("a") is None
    assert fresh["a"] == 2
    with cache.write():
        cache.put_failure("a", Failure.of(OSError("worse")))
    fresh.refresh()
    assert "a" not in fresh
    assert fresh.failure("a").message == "worse"
    with cache.write():
        cache.delete_if("a", lambda place: place in cache.places("a"))
    fresh.refresh()
    assert fresh.failure("a") is None


def test_failures_that_go_while_they_are_read(tmp_path):
    with (cache := CacheDict(tmp_path)).write():
        cache.put_failure("a", Failure.of(ValueError("broken")))
    fresh = CacheDict(tmp_path)
    fresh.refresh()
    only(tmp_path, "*-failed.jsonl").unlink()  # its content is known already
    assert fresh.failure("a") is None
    with (cache := CacheDict(tmp_path)).write():
        cache.put_failure("a", Failure.of(ValueError("again")))
    fresh.refresh()
    assert fresh.failure("a").message == "again"


def test_failure_of_a_file_that_may_hold_no_pickle(tmp_path):
    with (cache := CacheDict(tmp_path)).write():
        cache.put_failure("a", Failure.of(ValueError("broken")))
    fresh = CacheDict(tmp_path, allow_pickle="never")
    assert "a" not in fresh
    assert fresh.failure("a").pickled is None
    assert isinstance(fresh.failure("a").exception(), errors.RemoteError)


# permissions


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")] if path.is_dir()}, {
        stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()
    }


def write_all_kinds(folder, **options):
    with (cache := CacheDict(folder, **options)).write():
        cache.update(a=np.arange(1000), b=[{"text": "x" * 5000}], c=1, d=2)
        cache.cache_type = "NumpyArray"
        cache["e"] = np.arange(3)
        cache.cache_type = "String"
        cache["f"] = "text"
        cache.put_failure("g", Failure.of(OSError()))
        del cache["c"]


@pytest.mark.parametrize(("umask", "folders", "plain"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o002, 0o775, 0o664)])
def test_umask_decides(umask, folders, plain, tmp_path):
    before = os.umask(umask)
    try:
        write_all_kinds(tmp_path / "cache")
    finally:
        os.umask(before)
    assert modes(tmp_path / "cache") == ({folders}, {plain})


@pytest.mark.parametrize(("permissions", "folders"), [(0o640, 0o750), (0o600, 0o700), (0o664, 0o775), (0o770, 0o770)])
def test_permissions(permissions, folders, tmp_path):
    write_all_kinds(tmp_path / "above" / "cache", permissions=permissions)
    assert modes(tmp_path / "above" / "cache") == ({folders}, {permissions})
    assert len(list((tmp_path / "above" / "cache").rglob("*"))) > 7


# pickles


class Thing:
    def __eq__(self, other):
        return isinstance(other, Thing)

    __hash__ = None


def test_never(tmp_path):
    filled(tmp_path, {"cache_type": "Pickle"}, a=Thing())
    assert CacheDict(tmp_path)["a"] == Thing()
    with pytest.raises(PickleRefusedError, match="allow_pickle is 'never'.*allow_pickle='always'"):
        CacheDict(tmp_path, allow_pickle="never")["a"]
    assert "a" in CacheDict(tmp_path, allow_pickle="never")


def test_never_concerns_loading_only(tmp_path):
    filled(tmp_path, {"cache_type": "Pickle", "allow_pickle": "never"}, a=Thing())
    assert CacheDict(tmp_path)["a"] == Thing()


@as_root
def test_pickles_of_others(tmp_path, monkeypatch):
    for name in ("theirs", "mine"):
        filled(tmp_path / name, {"cache_type": "Pickle"}, a=Thing())
        filled(tmp_path / name, b=np.arange(1000))
    for path in (tmp_path / "theirs").rglob("*"):
        os.chown(path, 12345, -1)
    theirs = tmp_path / "theirs"
    assert CacheDict(theirs)["b"][1] == 1
    assert CacheDict(tmp_path / "mine")["a"] == Thing()
    with pytest.raises(PickleRefusedError, match="belongs to user 12345, not to you"):
        CacheDict(theirs)["a"]
    assert CacheDict(theirs, allow_pickle="always")["a"] == Thing()
    monkeypatch.setenv("EXCA_LIKE_ALLOW_PICKLE", "always")
    assert CacheDict(theirs)["a"] == Thing()
    with pytest.raises(PickleRefusedError):
        CacheDict(theirs, allow_pickle="never")["a"]
    monkeypatch.setenv("EXCA_LIKE_ALLOW_PICKLE", "never")
    with pytest.raises(PickleRefusedError):
        CacheDict(tmp_path / "mine")["a"]
    assert CacheDict(theirs, allow_pickle="always")["a"] == Thing()
    monkeypatch.setenv("EXCA_LIKE_ALLOW_PICKLE", "")
    assert CacheDict(tmp_path / "mine")["a"] == Thing()
    monkeypatch.setenv("EXCA_LIKE_ALLOW_PICKLE", "maybe")
    with pytest.raises(ValueError, match="allow_pickle='maybe'"):
        CacheDict(theirs)


@as_root
def test_failures_of_others(tmp_path):
    with (cache := CacheDict(tmp_path)).write():
        cache.put_failure("a", Failure.of(ValueError("broken")))
    os.chown(only(tmp_path, "*-failed.jsonl"), 12345, -1)
    fresh = CacheDict(tmp_path)
    fresh.refresh()
    assert fresh.failure("a").pickled is None
    assert "broken" in str(fresh.failure("a").exception())


# names that lead out of the folder


@pytest.mark.parametrize("name", ["../secret.data", "/etc/passwd", "data/../../secret.data", "./../secret.data"])
@pytest.mark.parametrize("own", [True, False])
def test_names_that_lead_out_of_the_folder(name, own, tmp_path):
    (tmp_path / "secret.data").write_bytes(bytes(80))
    folder = tmp_path / "cache"
    folder.mkdir()
    record = {"#key": "a", "#type": "MemmapArray", "filename": name, "offset": 0, "shape": [10], "dtype": "<f8"}
    if own:
        (folder / "host-1-0123456789abcdef-info.jsonl").write_bytes(lines.seal({**record, "length": 80}))
    else:
        (folder / "host-1-info.jsonl").write_text(f"{json.dumps(record)}\n")
    cache = CacheDict(folder)
    assert list(cache) == ["a"]
    with pytest.warns(CorruptEntryWarning, match="outside of its folder"):
        assert cache.get("a") is None
    again = CacheDict(folder)
    with again.write():
        del again["a"]
    assert (tmp_path / "secret.data").exists()


def test_deleting_removes_nothing_outside_of_the_folder(tmp_path):
    (tmp_path / "secret.data").write_bytes(bytes(80))
    folder = tmp_path / "cache"
    folder.mkdir()
    names = ["../secret.data", "data/a/../../../secret.data", str(tmp_path / "secret.data"), "data/../../secret.data"]
    record = {"#key": "a", "#type": "NumpyArray", "filename": "x", "#data": [[name, 0, 80, "00000000"] for name in names]}
    (folder / "host-1-0123456789abcdef-info.jsonl").write_bytes(lines.seal(record))
    cache = CacheDict(folder)
    with cache.write():
        del cache["a"]
    assert (tmp_path / "secret.data").exists()
    assert "a" not in CacheDict(folder)


# processes, threads, copies


def test_forked_process_writes_to_files_of_its_own(tmp_path):
    cache = CacheDict(tmp_path)
    with cache.write():
        cache["parent"] = np.arange(1000)
        process = os.fork()
        if process == 0:
            status = 1
            try:
                cache["child"] = np.arange(2000)
                status = 0 if cache["parent"].size == 1000 and cache["child"].size == 2000 else 2
            finally:
                os._exit(status)
        assert os.waitpid(process, 0)[1] == 0
        cache["after"] = np.arange(3000)
    assert {key: value.size for key, value in CacheDict(tmp_path).items()} == {"parent": 1000, "child": 2000, "after": 3000}
    assert dict.fromkeys(cache) == dict.fromkeys(CacheDict(tmp_path))
    assert len(list(tmp_path.glob("*-info.jsonl"))) == 2
    assert len(list(tmp_path.rglob("*.data"))) == 2


def test_threads(tmp_path):
    cache = CacheDict(tmp_path)
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        for count in range(50):
            cache[f"{number}-{count}"] = np.full(100, number * 50 + count)
            assert cache[f"{number}-{count}"][0] == number * 50 + count
            len(cache)

    with cache.write(), ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(list(tmp_path.glob("*-info.jsonl"))) == 4
    fresh = CacheDict(tmp_path)
    assert len(fresh) == 200
    assert all(value[0] == 50 * int(key.partition("-")[0]) + int(key.partition("-")[2]) for key, value in fresh.items())


def test_copies_are_views_of_the_folder(tmp_path):
    cache = filled(tmp_path, {"keep_in_ram": True, "cache_type": "Json", "permissions": 0o600, "check": "edges"}, a=[1])
    with cache.write():
        for view in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache), copy.copy(cache)):
            assert view == cache
            assert view["a"] is not cache["a"]
            assert (view.keep_in_ram, view.cache_type, view.permissions, view.check) == (True, "Json", 0o600, "edges")
            with pytest.raises(RuntimeError, match="block"):
                view["b"] = 1
            with view.write():
                view[str(id(view))] = 1
    assert len(pickle.dumps(filled(tmp_path / "large", {"keep_in_ram": True}, a=np.zeros(10**6)))) < 1000
    assert len(copy.deepcopy(CacheDict(None, keep_in_ram=True))) == 0


def test_folder_can_be_moved(tmp_path):
    filled(tmp_path / "here", a=np.arange(1000), b=OrderedDict(x=np.arange(500)))
    filled(tmp_path / "here", {"cache_type": "NumpyArray"}, c=np.arange(3))
    (tmp_path / "here").rename(tmp_path / "there")
    there = CacheDict(tmp_path / "there")
    assert {key: np.size(value) for key, value in there.items()} == {"a": 1000, "b": 1, "c": 3}


def test_newer_format(tmp_path):
    filled(tmp_path, a=1)
    journal = only(tmp_path)
    journal.write_bytes(lines.seal({"#key": "a", "content": 1, "#type": "Json", "#v": 2}))
    with pytest.raises(errors.ResultLoadError, match="newer format than this version of exca_like reads: update it"):
        CacheDict(tmp_path)["a"]


def test_fsync(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def noted(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        lines_then = sum(journal.read_bytes().count(b"\n") for journal in tmp_path.rglob("*.jsonl"))
        synced.append((path.name.rpartition("-")[2] if path.suffix == ".jsonl" else path.suffix, lines_then))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with (cache := CacheDict(tmp_path / "b", fsync=True)).write():
        cache["a"] = np.arange(1000)
        assert (".data", 0) in synced  # before the line that tells of it
        assert synced[-1] == ("info.jsonl", 1)
        cache.cache_type = "NumpyArray"
        cache["b"] = np.arange(3)
        assert (".npy", 1) in synced
        assert synced[-1] == ("info.jsonl", 2)
        del cache["a"]
        assert synced[-1] == ("deleted.jsonl", 4)  # two lines, as damage to one must not undo it
    synced.clear()
    filled(tmp_path / "a", a=np.arange(1000))
    assert not synced


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    cache = CacheDict(tmp_path / "file")
    assert list(cache) == []
    with cache.write(), pytest.raises(errors.CacheFolderError, match="can't write to"):
        cache["a"] = 1


def test_value_that_can_not_be_stored(tmp_path):
    cache = CacheDict(tmp_path)
    lock = threading.Lock()
    with cache.write():
        for value in (lock, [np.arange(1000), lock], {"a": (lock,)}, np.array([lock])):
            with pytest.raises(TypeError, match=r"a _thread.lock can't be stored: .* register a handler"):
                cache["a"] = value
        cache["b"] = np.arange(1000)
    assert list(CacheDict(tmp_path)) == ["b"]
    assert CacheDict(tmp_path)["b"][-1] == 999


def test_handler_that_fails_to_load(tmp_path):
    code = """
import dataclasses, sys
from exca_like.cachedict import CacheDict
sys.modules["gone"] = sys.modules["__main__"]
class Gone: pass
Gone.__module__ = "gone"
with CacheDict(sys.argv[1], cache_type="Pickle").write() as cache:
    cache["a"] = Gone()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    with pytest.raises(
        errors.ResultLoadError, match="the entry 'a' of .* can't be loaded here: ModuleNotFoundError: No module named 'gone'"
    ):
        CacheDict(tmp_path)["a"]


def test_unknown_type_of_entry(tmp_path):
    (tmp_path / "host-1-0123456789abcdef-info.jsonl").write_bytes(lines.seal({"#key": "a", "#type": "Unheard"}))
    with pytest.raises(errors.ResultLoadError, match="no handler 'Unheard'"):
        CacheDict(tmp_path)["a"]


@pytest.mark.parametrize("cache_type", ["NumpyArray", "NumpyMemmapArray"])
def test_npy_files_that_python_fails_to_parse_at_first(cache_type, tmp_path, monkeypatch):
    """Threads that parse at the same time make some versions of Python raise a SystemError."""
    with (cache := CacheDict(tmp_path, cache_type=cache_type)).write():
        cache["a"] = np.arange(3)
    load, calls = np.load, []

    def confused(*args, **kwargs):
        calls.append(args)
        if len(calls) < 3:
            raise SystemError
        return load(*args, **kwargs)

    monkeypatch.setattr(np, "load", confused)
    assert np.array_equal(CacheDict(tmp_path)["a"], np.arange(3))
    assert len(calls) == 3


@pytest.mark.parametrize("reverse", [False, True])
def test_journal_of_one_replaced_entry(tmp_path: Path, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    write = f"from exca_like import CacheDict\nwith CacheDict({str(tmp_path)!r}).write() as cache: cache['a'] = 1"
    subprocess.run([sys.executable, "-c", write], check=True)
    with CacheDict(tmp_path).write() as cache:
        cache.put("a", 2, replace=True)
    assert [path.read_bytes()[:12] for path in tmp_path.glob("*-info.jsonl")] == [b'{"#replaces"']  # alone
    names = sorted(os.listdir(tmp_path), reverse=reverse)  # whether it is read before what it replaces is deleted
    monkeypatch.setattr(os, "listdir", lambda _: names)
    assert dict(CacheDict(tmp_path).items()) == {"a": 2}


@pytest.mark.parametrize("keys", [[""], ["", "a"], ["é", 'quo"te', "back\\slash"], ["a", "\n", "b"]])
def test_unusual_keys_are_indexed_as_the_usual_ones(tmp_path: Path, keys: list[str]) -> None:
    with CacheDict(tmp_path).write() as cache:
        for number, key in enumerate(keys):
            cache[key] = number
    assert dict(CacheDict(tmp_path).items()) == dict(zip(keys, range(len(keys)), strict=True))
