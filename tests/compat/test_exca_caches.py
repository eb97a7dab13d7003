"""Folders that exca wrote are read as they are: samples of the real one, and journals made by hand."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from exca_like.cachedict import CacheDict
from exca_like.errors import CorruptEntryWarning, PickleRefusedError

SAMPLES = Path(__file__).parent / "exca_caches"
EMBED = {"default": (4, 1.0), "dim=2,scale=0.12-1e48061e": (2, 0.123456)}


@pytest.fixture(params=["0.4.8", "0.6.0"])
def samples(request, tmp_path) -> Path:
    return Path(shutil.copytree(SAMPLES / request.param, tmp_path / "moved here"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", EMBED)
@pytest.mark.parametrize("cache_type", [None, "MemmapArrayFile", "NumpyArray"])
def test_arrays(name, cache_type, samples):
    folder = samples / "lab.Embed.process,1" / name
    before = contents(folder)
    dim, scale = EMBED[name]
    cache = CacheDict(folder, cache_type=cache_type)
    assert sorted(cache) == ["0", "1", "2", "3", "4"]
    for key, value in cache.items():
        expected = np.full(dim, int(key) * scale, np.float32)
        assert type(value) is np.ndarray
        assert (value.dtype, value.tolist()) == (expected.dtype, expected.tolist())
    assert contents(folder) == before


def test_dictionaries(samples):
    cache = CacheDict(samples / "lab.Words.process,1" / "default")
    assert sorted(cache) == ["alpha", "beta"]
    for key, value in cache.items():
        assert value["n"] == len(key)
        assert value["codes"].tolist() == [ord(letter) for letter in key]


def test_pickles_are_guarded(tmp_path):
    folders = [Path(shutil.copytree(SAMPLES / "0.4.8" / "lab.Words.process,1" / "default", tmp_path / name)) for name in "ab"]
    with pytest.raises(PickleRefusedError):
        CacheDict(folders[0], allow_pickle="never")["alpha"]
    if os.geteuid() == 0:
        folder = folders[1]
        for path in folder.glob("*.pkl"):
            os.chown(path, 12345, -1)
        with pytest.raises(PickleRefusedError, match="belongs to user 12345"):
            CacheDict(folder)["alpha"]
        assert CacheDict(folder, allow_pickle="always")["alpha"]["n"] == 5


def test_writing_and_deleting_leave_the_files_of_exca_as_they_are(samples):
    folder = samples / "lab.Embed.process,1" / "default"
    before = contents(folder)
    cache = CacheDict(folder)
    with cache.write():
        with pytest.raises(ValueError, match="already"):
            cache["0"] = np.zeros(1)
        del cache["0"]
        cache["0"] = np.arange(1000)
        cache["new"] = np.arange(3)
        cache.put("1", np.arange(2), replace=True)
    fresh = CacheDict(folder)
    assert {key: value.size for key, value in sorted(fresh.items())} == {"0": 1000, "1": 2, "2": 4, "3": 4, "4": 4, "new": 3}
    after = contents(folder)
    assert {path: after[path] for path in before} == before


class Journal:
    """A journal as exca writes it."""

    def __init__(self, folder: Path, name: str = "host-123-info.jsonl") -> None:
        self.path = folder / name
        self.path.write_text("")
        (folder / "data").mkdir(exist_ok=True)

    def add(self, text: str) -> None:
        with open(self.path, "a") as stream:
            stream.write(text + "\n")

    def add_entry(self, key: str, value, **more) -> None:
        self.add(json.dumps({"content": value, "#type": "Json", "#key": key, **more}))

    def delete(self, key: str) -> None:
        """Blank a line, as exca deletes an entry."""
        lines = self.path.read_text().split("\n")
        mended = [" " * len(line) if line and line.strip() and json.loads(line).get("#key") == key else line for line in lines]
        with open(self.path, "r+") as stream:
            stream.write("\n".join(mended))


def test_blanked_lines_are_deletions(tmp_path):
    journal = Journal(tmp_path)
    for number in range(4):
        journal.add_entry(str(number), number)
    reader = CacheDict(tmp_path)
    assert dict(reader) == {"0": 0, "1": 1, "2": 2, "3": 3}
    journal.delete("0")
    journal.delete("2")
    assert dict(reader) == dict(CacheDict(tmp_path)) == {"1": 1, "3": 3}
    assert "0" not in reader
    journal.add_entry("0", "again")
    assert dict(reader) == dict(CacheDict(tmp_path)) == {"1": 1, "3": 3, "0": "again"}


def test_entry_that_is_deleted_between_looking_and_reading(tmp_path):
    journal = Journal(tmp_path)
    journal.add_entry("a", 1)
    reader = CacheDict(tmp_path)
    assert "a" in reader
    journal.delete("a")
    os.utime(journal.path, ns=(1, 1))
    assert reader.get("a") is None


def test_first_line_tells_the_type(tmp_path):
    journal = Journal(tmp_path)
    journal.add('metadata={"cache_type": "MemmapArrayFile"}')
    np.arange(6.0).tofile(tmp_path / "host-123.data")
    journal.add('{"filename": "host-123.data", "offset": 16, "shape": [2, 2], "dtype": "float64", "#key": "a"}')
    journal.add('{"filename": "host-123.data", "offset": 0, "shape": [], "dtype": ">i4", "#key": "b"}')
    cache = CacheDict(tmp_path)
    assert cache["a"].tolist() == [[2, 3], [4, 5]]
    assert cache["b"].shape == ()
    assert CacheDict(tmp_path)["a"].tolist() == [[2, 3], [4, 5]]  # without a look at the first line in between
    with cache.write():
        del cache["a"]
    assert list(CacheDict(tmp_path)) == ["b"]


@pytest.mark.parametrize("first", ['metadata={"cache_type": "Pickle"}', "metadata={}", 'metadata={"other": 1}'])
def test_first_lines(first, tmp_path):
    journal = Journal(tmp_path)
    journal.add(first)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({1, 2}))
    journal.add('{"filename": "a.pkl", "#type": "Pickle", "#key": "a"}')
    assert CacheDict(tmp_path)["a"] == {1, 2}


def test_other_forms(tmp_path):
    journal = Journal(tmp_path)
    np.save(tmp_path / "one.npy", np.arange(3))
    journal.add('{"filename": "one.npy", "#type": "NumpyArray", "#key": "array"}')
    journal.add('{"filename": "one.npy", "#type": "NumpyMemmapArray", "#key": "mapped"}')
    np.arange(10).tofile(tmp_path / "data" / "host-123.data")
    place = '"filename": "data/host-123.data", "offset": 8, "shape": [3, 3], "dtype": "int64"'
    journal.add(f'{{{place}, "#type": "ContiguousMemmapArray", "#key": "pieces"}}')
    (tmp_path / "text.txt").write_text("a text")
    journal.add('{"filename": "text.txt", "#type": "String", "#key": "text"}')
    journal.add(f'{{"content": {{"x": [1, {{{place}, "#type": "MemmapArray"}}], "y": null}}, "#type": "Auto", "#key": "tree"}}')
    cache = CacheDict(tmp_path)
    assert cache["array"].tolist() == cache["mapped"].tolist() == [0, 1, 2]
    assert np.asarray(cache["pieces"][1]).tolist() == [4, 5, 6]
    assert cache["text"] == "a text"
    tree = cache["tree"]
    assert (tree["x"][0], tree["x"][1].tolist(), tree["y"]) == (1, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], None)


@pytest.mark.parametrize(
    "garbage", ["{", "[]", "null", "5", '{"no": "key"}', "\x00\x00", '{"#key": "a", "content": 1', '"metadata"']
)
def test_garbage_costs_itself_alone(garbage, tmp_path):
    journal = Journal(tmp_path)
    journal.add_entry("a", 1)
    journal.add(garbage)
    journal.add_entry("b", 2)
    cache = CacheDict(tmp_path)
    with pytest.warns(CorruptEntryWarning, match="line at byte .* is damaged"):
        assert dict(cache) == {"a": 1, "b": 2}
    assert dict(CacheDict(tmp_path)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("first", ["metadata=", "metadata=[]", "metadata={"])
def test_damaged_first_line(first, tmp_path):
    journal = Journal(tmp_path)
    journal.add(first)
    journal.add_entry("a", 1)
    with pytest.warns(CorruptEntryWarning):
        assert dict(CacheDict(tmp_path)) == {"a": 1}


def test_last_line_without_its_end_is_not_there_yet(tmp_path):
    journal = Journal(tmp_path)
    journal.add_entry("a", 1)
    with open(journal.path, "a") as stream:
        stream.write('{"content": 2, "#type": "Json"')
    cache = CacheDict(tmp_path)
    assert dict(cache) == {"a": 1}
    journal.add(', "#key": "b"}')
    assert dict(cache) == {"a": 1, "b": 2}


def test_data_file_that_is_too_short_or_not_there(tmp_path):
    journal = Journal(tmp_path)
    journal.add(
        '{"filename": "data/a.data", "offset": 0, "shape": [3], "dtype": "int64", "#type": "MemmapArray", "#key": "short"}'
    )
    journal.add(
        '{"filename": "data/b.data", "offset": 0, "shape": [3], "dtype": "int64", "#type": "MemmapArray", "#key": "gone"}'
    )
    journal.add_entry("sound", 1)
    np.arange(2).tofile(tmp_path / "data" / "a.data")
    cache = CacheDict(tmp_path)
    for key, message in (("short", "16 bytes long"), ("gone", "is missing")):
        with pytest.warns(CorruptEntryWarning, match=message):
            assert cache.get(key) is None
    assert dict(cache) == {"sound": 1}


def test_odd_keys(tmp_path):
    journal = Journal(tmp_path)
    keys = ["", " ", 'a "quoted" \\ key', "ключ", "two\nlines", "#type", "metadata="]
    for number, key in enumerate(keys):
        journal.add_entry(key, number)
    assert dict(CacheDict(tmp_path)) == {key: number for number, key in enumerate(keys)}
    journal.add(json.dumps({"#key": "raw é", "content": 1, "#type": "Json"}, ensure_ascii=False))
    assert CacheDict(tmp_path)["raw é"] == 1


def test_folders_that_both_write_to(tmp_path):
    journal = Journal(tmp_path)
    journal.add_entry("theirs", 1)
    cache = CacheDict(tmp_path)
    with cache.write():
        cache["ours"] = np.arange(1000)
        journal.add_entry("more of theirs", 2)
        assert cache["more of theirs"] == 2
        journal.delete("theirs")
        assert "theirs" not in CacheDict(tmp_path)
        cache["ours too"] = 3
    assert sorted(CacheDict(tmp_path)) == sorted(cache) == ["more of theirs", "ours", "ours too"]
    assert cache["ours"][-1] == 999


exca = pytest.importorskip("exca", reason="the real exca, to compare with", exc_type=ImportError)


@pytest.fixture
def theirs(tmp_path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from exca.cachedict import CacheDict as Theirs

        cache = Theirs(folder=tmp_path / "cache", keep_in_ram=False)
        with cache.write():
            cache["array"] = np.arange(12.0).reshape(3, 4)
            cache["number"] = 1.5
            cache["deleted"] = 2
            cache["tree"] = {"a": [np.arange(3), "text"], "b": None}
        with cache.write():
            del cache["deleted"]
        yield cache


def test_what_the_real_exca_writes(theirs):
    cache = CacheDict(theirs.folder)
    assert sorted(cache) == ["array", "number", "tree"]
    assert cache["array"].tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert cache["number"] == 1.5
    assert cache["tree"]["a"][0].tolist() == [0, 1, 2]
    assert (cache["tree"]["a"][1], cache["tree"]["b"]) == ("text", None)
    with theirs.write():
        theirs["later"] = 3
        del theirs["number"]
    assert sorted(cache) == ["array", "later", "tree"]
    assert cache["later"] == 3
