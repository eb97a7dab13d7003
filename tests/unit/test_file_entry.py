"""Single files of a user's choice, with their notes."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from exca_like.cachedict import FileEntry
from exca_like.errors import (
    CacheFolderError,
    ConfigTypeError,
    ConfigValueError,
    CorruptEntryError,
    MissingFileError,
    PickleRefusedError,
    ResultLoadError,
)
from exca_like.testing import same

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=["p", "q"])
VALUES = {
    "m.json": {"loss": 0.5, "parts": [1, None]},
    "a.npy": np.arange(5.0),
    "t.csv": FRAME,
    "t.parquet": FRAME,
    "o.pkl": {1: (2, 3)},
    "t.txt": "ü\n",
    "n.ipynb": [["a = 1", "a"], "b\n"],
}


def equal(loaded, value):
    return loaded.equals(value) if isinstance(value, pd.DataFrame) else same(loaded, value)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", VALUES)
def test_a_suffix_says_the_format_and_the_file_is_plain(name, tmp_path):
    entry = FileEntry(tmp_path / "new" / name, metadata={"run": 3})
    assert entry.save(VALUES[name]) == entry.path
    assert equal(FileEntry(entry.path).load(), VALUES[name])
    assert names(entry.path.parent) == [name, f"{name}.meta.json"]
    plain = {
        ".json": lambda path: json.loads(path.read_text()),
        ".npy": np.load,
        ".csv": lambda path: pd.read_csv(path, index_col=0),
        ".parquet": pd.read_parquet,
        ".pkl": lambda path: pickle.loads(path.read_bytes()),
        ".txt": lambda path: path.read_text(),
        ".ipynb": lambda path: [["a = 1", "a"], "b\n"] if json.loads(path.read_text())["nbformat"] == 4 else None,
    }
    assert equal(plain[entry.path.suffix](entry.path), VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_files_of_others_are_read_as_their_suffix_says(name, tmp_path):
    entry = FileEntry(tmp_path / name)
    entry.save(VALUES[name])
    entry.note.unlink()
    loaded = entry.load()
    if name == "t.csv":
        assert list(loaded.columns) == ["Unnamed: 0", "a", "b"]
    elif name == "n.ipynb":
        assert loaded == [["a = 1", "a"], ["b", ""]]
    else:
        assert equal(loaded, VALUES[name])
    assert entry.metadata == {}


def test_the_note_is_readable_and_says_where_the_file_comes_from(tmp_path):
    entry = FileEntry(tmp_path / "m.json", metadata={"run": 3})
    entry.save([1])
    found = entry.metadata
    assert found["extra"] == {"run": 3} and found["cache_type"] == "Json"
    assert found["libraries"]["numpy"] == np.__version__ and "exca_like" in found["libraries"]
    assert set(found) == {"time", "host", "python", "libraries", "cache_type", "extra"}
    note = json.loads(entry.note.read_text())
    assert note["files"]["m.json"]["size"] == entry.path.stat().st_size
    with pytest.raises(ConfigTypeError, match="metadata must be JSON"):
        FileEntry(tmp_path / "m.json", metadata={"a": {1}})


def test_a_file_that_changed_is_not_loaded(tmp_path):
    entry = FileEntry(tmp_path / "m.json")
    entry.save({"loss": 0.5})
    entry.path.write_text(entry.path.read_text().replace("5", "6"))
    with pytest.raises(CorruptEntryError, match=r"is not what was saved.*Save it again, or remove .*m\.json\.meta\.json"):
        entry.load()
    entry.note.unlink()
    assert entry.load() == {"loss": 0.6}
    entry.save(1)
    entry.path.unlink()
    with pytest.raises(MissingFileError, match="is missing"):
        entry.load()
    entry.note.write_text("{")
    with pytest.raises(CorruptEntryError, match="is damaged"):
        entry.load()
    entry.save(2)  # what is damaged is replaced
    assert entry.load() == 2
    entry.note.write_text('{"format": 2}')
    with pytest.raises(ResultLoadError, match="update it"):
        entry.load()


def test_what_is_not_there_and_what_can_not_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="save it first"):
        FileEntry(tmp_path / "m.json").load()
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ResultLoadError, match="as Json"):
        FileEntry(tmp_path / "m.json").load()
    with pytest.raises(ConfigValueError, match="give a cache_type"):
        FileEntry(tmp_path / "m.xyz").save(1)
    with pytest.raises(ConfigValueError, match="there is no handler"):
        FileEntry(tmp_path / "m.xyz", "Nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheFolderError, match="can't save"):
        FileEntry(tmp_path / "file" / "m.json").save(1)


def test_a_value_that_would_not_come_back_is_refused_and_leaves_all_as_it_was(tmp_path):
    refused = {
        "m.json": (1,),
        "a.npy": np.array([None]),
        "t.txt": 5,
        "t.parquet": pd.DataFrame({1: [2]}),
        "n.ipynb": "code",
    }
    for name, value in refused.items():
        entry = FileEntry(tmp_path / name)
        entry.save(VALUES[name])
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(TypeError):
            entry.save(value)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pickles_are_guarded(tmp_path):
    entry = FileEntry(tmp_path / "o.pkl", allow_pickle="never")
    entry.save({1: 2})
    for _ in range(2):
        with pytest.raises(PickleRefusedError):
            entry.load()
        assert FileEntry(entry.path, allow_pickle="always").load() == {1: 2}
        if entry.note.exists():
            entry.note.unlink()


def test_any_handler_and_several_files(tmp_path):
    value = {"a": np.arange(1000), "b": "text", "c": np.float32(1), "d": FRAME, "e": (1, 2)}
    entry = FileEntry(tmp_path / "all", {"b": "String", "d": "PandasJson"})
    entry.save(value)
    loaded = entry.load()
    assert loaded["d"].equals(FRAME)
    assert same({**loaded, "d": 0}, {**value, "d": 0})
    assert [name.split("/")[0] for name in names(tmp_path)] == ["all", "all.meta.json", "all.parts", "all.parts"]
    first = set(names(tmp_path))
    entry.save(value)
    assert len(names(tmp_path)) == 4 and len(first & set(names(tmp_path))) == 2  # parts are never overwritten
    entry.save({"b": "x", "d": FRAME})
    assert len(names(tmp_path)) == 3
    FileEntry(tmp_path / "all", "Json").save(5)
    assert names(tmp_path) == ["all", "all.meta.json"] and not (tmp_path / "all.parts").exists()
    small = FileEntry(tmp_path / "small", "Auto")
    small.save((1, 2))
    assert small.load() == (1, 2) and json.loads(small.path.read_text())["content"]["content"] == [1, 2]
    FileEntry(tmp_path / "x.bin", "NumpyArray").save(np.ones(2))
    (tmp_path / "x.bin.meta.json").unlink()
    assert FileEntry(tmp_path / "x.bin", "NumpyArray").load().sum() == 2
    with pytest.raises(ConfigTypeError, match="only in a CacheDict"):
        FileEntry(tmp_path / "p", "Files").save(tmp_path / "small")


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    entry = FileEntry(tmp_path / "array", "MemmapArray")
    entry.save(np.zeros(100_000))
    first = entry.load()
    entry.save(np.ones(100_000))
    assert entry.load().min() == 1
    assert first.max() == 0


def test_a_note_does_not_lead_out_of_the_folder(tmp_path):
    entry = FileEntry(tmp_path / "in" / "m.txt")
    entry.save("x")
    (tmp_path / "secret").write_text("secret")
    note = json.loads(entry.note.read_text())
    note["info"]["filename"] = "../secret"
    entry.note.write_text(json.dumps(note))
    with pytest.raises(CorruptEntryError, match="outside of its folder"):
        entry.load()
