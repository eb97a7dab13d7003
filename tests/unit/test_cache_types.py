"""What a cache_type can be beside a name, and single outputs of entries."""

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import orjson
import pydantic
import pytest

import exca_like
from exca_like import maintenance
from exca_like.cachedict import CacheDict, DumpContext
from exca_like.cachedict.handlers.arrays import NumpyArray
from exca_like.cachedict.handlers.texts import String
from exca_like.errors import ConfigTypeError, ConfigValueError, CorruptEntryWarning
from exca_like.testing import same


class Upper:
    """A handler that nobody registered."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        return {"text": value.upper()}

    @classmethod
    def __load_from_info__(cls, ctx, text):
        return text


class Rounded:
    """A handler with options."""

    def __init__(self, digits=1):
        self.digits = digits

    def __dump_info__(self, ctx, value):
        return {"number": round(value, self.digits)}

    @staticmethod
    def __load_from_info__(ctx, number):
        return number


class Needy(Rounded):
    """A handler with an option that has no default."""

    def __init__(self, digits):
        super().__init__(digits)


class StoredAlone:
    """A value that stores itself."""

    def __dump_info__(self, ctx):
        return {}

    @classmethod
    def __load_from_info__(cls, ctx):
        return cls()


def written(folder, cache_type, **values):
    cache = CacheDict(folder, cache_type=cache_type)
    with cache.write():
        cache.update(values)
    return CacheDict(folder)


@pytest.mark.parametrize(
    ("cache_type", "value", "loaded", "name"),
    [
        (Upper, "a", "A", "Upper"),
        (String, "a", "a", "String"),
        (Rounded, 0.123, 0.1, "Rounded"),
        (Rounded(2), 0.123, 0.12, "Rounded"),
        (Needy(0), 1.6, 2.0, "Needy"),
        (Upper(), "a", "A", "Upper"),
    ],
)
def test_classes_and_instances(tmp_path, cache_type, value, loaded, name):
    cache = written(tmp_path, cache_type, key=value)
    assert cache["key"] == loaded and cache.describe("key")["#type"] == name
    again = pickle.loads(pickle.dumps(CacheDict(tmp_path, cache_type=cache_type)))
    with again.write():
        again["again"] = value
    assert again["again"] == loaded


def test_options_are_those_of_the_instance_and_names_take_the_defaults(tmp_path):
    written(tmp_path, Rounded(3), a=0.12345)
    assert written(tmp_path, "Rounded", b=0.12345)["b"] == 0.1
    assert CacheDict(tmp_path)["a"] == 0.123


def test_a_context_takes_them_too(tmp_path):
    context = DumpContext(tmp_path, key="a")
    assert context.dump("a", cache_type=Upper) == {"#type": "Upper", "text": "A"}
    assert context.dump(0.55, cache_type=Rounded(0)) == {"#type": "Rounded", "number": 1.0}
    info = context.dump({"x": "a"}, cache_type={"x": Upper})
    assert orjson.loads(orjson.dumps(info)) == {"#type": "Auto", "content": {"x": {"#type": "Upper", "text": "A"}}}


@pytest.mark.parametrize(
    ("cache_type", "error", "text"),
    [
        ("Nothing", ConfigValueError, "Known are"),
        ({"a": "Nothing"}, ConfigValueError, "Known are"),
        ({"a": {"b": "Nothing"}}, ConfigValueError, "Known are"),
        ({1: "Json"}, ConfigTypeError, "by texts"),
        (5, ConfigTypeError, "must be the name of a handler"),
        (int, ConfigTypeError, "must be the name of a handler"),
        (StoredAlone(), ConfigTypeError, "is a value"),
        (Needy, ConfigTypeError, r"cache_type=Needy\(\.\.\.\)"),
        (type("String", (String,), {}), ConfigValueError, "another name"),
        (type("Half", (), {"__dump_info__": lambda self, ctx, value: {}}), ConfigValueError, "no method __load_from_info__"),
    ],
)
def test_what_is_none_is_refused_at_once(tmp_path, cache_type, error, text):
    with pytest.raises(error, match=text):
        CacheDict(tmp_path / "new", cache_type=cache_type)
    with pytest.raises(error, match=text):
        exca_like.MapInfra().apply(item_uid=str, cache_type=cache_type)
    assert not (tmp_path / "new").exists()


VALUE = {"table": np.arange(300.0), "text": "t" * 10, "rest": [np.arange(500), (1, 2)], "n": 1, "#": None}


def test_a_handler_for_each_output(tmp_path):
    given = {"table": "NumpyArray", "text": String, "n": Rounded(0)}
    cache = CacheDict(tmp_path, cache_type=given)
    given.clear()  # it is kept as it was
    with pickle.loads(cloudpickle.dumps(cache)).write() as copy:
        copy["key"] = VALUE
    loaded = CacheDict(tmp_path)
    assert same(loaded["key"], VALUE) and loaded.describe("key")["#type"] == "Auto"
    assert sorted(path.suffix for path in loaded.files("key")) == [".data", ".npy", ".txt"]
    assert sorted(path.suffix for path in tmp_path.rglob("*-*") if path.is_file()) == [".data", ".jsonl", ".npy", ".txt"]
    with CacheDict(tmp_path).write() as other:
        del other["key"]
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jsonl"] in ([], [".data"])


def test_outputs_within_outputs_and_nothing_but_text(tmp_path):
    value = {"a": {"b": "x", "c": (1,)}, "big": ["y" * 100] * 50}
    cache = written(tmp_path, {"a": {"b": "String"}}, key=value, plain={"a": {"b": ""}})
    assert same(cache["key"], value) and cache["plain"] == {"a": {"b": ""}}
    assert written(tmp_path / "empty", {}, key={"a": 1}).describe("key")["#type"] == "Auto"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1}, "no 'a'"),
        ([1], "not a list"),
        (OrderedDict(a=np.zeros(1)), "OrderedDict"),
        ({"a": np.zeros(1), 1: 2}, "the key 1, which is no text"),
        ({"a": "no array"}, "NumPy|array"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, value, text):
    cache = CacheDict(tmp_path, cache_type={"a": "NumpyArray"})
    with cache.write(), pytest.raises(TypeError, match=text):
        cache["key"] = value
    assert "key" not in cache and not list(tmp_path.rglob("*.npy"))


class Pictures(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str, cache_type={"pixels": NumpyArray, "note": "String"})
    def draw(self, numbers: list[int]) -> Iterator[dict]:
        for number in numbers:
            yield {"pixels": np.full(3, number), "note": str(number), "more": number}


@pytest.mark.parametrize("cluster", [None, "processpool"])
def test_maps_take_them(tmp_path, cluster):
    pictures = Pictures(infra={"folder": tmp_path, "cluster": cluster, "keep_in_ram": False})
    assert [picture["more"] for picture in pictures.draw([1, 2])] == [1, 2]
    assert len(list(Path(pictures.infra.uid_folder()).rglob("*.npy"))) == 2
    assert pictures.infra.cache_dict.part("1", "note") == "1"


# single outputs


def test_a_part_alone(tmp_path):
    cache = written(tmp_path, {"text": "String", "table": "NumpyArray"}, key=VALUE)
    written(tmp_path, None, json={"a": {"b": 1}, "c": 2})
    for name, part in VALUE.items():
        assert same(cache.part("key", name), part)
    assert cache.part("json", "a") == {"b": 1}
    for key, name in [("key", "nothing"), ("nothing", "a"), ("json", "b")]:
        with pytest.raises(KeyError, match=name if key != "nothing" else key):
            cache.part(key, name)
    assert "key" in cache


def test_only_what_a_part_uses_is_checked(tmp_path):
    cache = written(tmp_path, {"text": "String", "table": "NumpyArray"}, key=VALUE, other=VALUE)
    text, table = (next(path for path in cache.files("key") if path.suffix == suffix) for suffix in (".txt", ".npy"))
    table.unlink()
    fresh = CacheDict(tmp_path)
    assert fresh.part("key", "text") == VALUE["text"]
    assert same(fresh.part("key", "rest"), VALUE["rest"])
    text.write_text("x" * 10)
    with pytest.warns(CorruptEntryWarning), pytest.raises(KeyError):
        fresh.part("key", "text")
    assert "key" not in fresh and fresh.part("other", "text") == VALUE["text"]
    packed = next(path for path in fresh.files("other") if path.suffix == ".data")
    with packed.open("r+b") as stream:
        stream.seek(0, 2)
        stream.truncate(stream.tell() - 100)
    with pytest.warns(CorruptEntryWarning), pytest.raises(KeyError):
        CacheDict(tmp_path).part("other", "rest")
    assert same(CacheDict(tmp_path).part("other", "table"), VALUE["table"])


def test_parts_that_share_a_packed_file_are_told_apart(tmp_path):
    cache = written(tmp_path, None, key={"a": np.arange(1000), "b": np.arange(1000) + 1})
    (packed,) = cache.files("key")
    data = bytearray(packed.read_bytes())
    data[-1] ^= 1
    packed.write_bytes(data)
    fresh = CacheDict(tmp_path)
    assert fresh.part("key", "a")[-1] == 999
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fresh.get("key") is None


@DumpContext.register
class TwoFiles:
    """Says nothing of its second file."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        first = ctx.key_path(".one")
        Path(ctx.folder, first).write_text(value)
        Path(ctx.folder, f"{first}.two").write_text(value)
        ctx.adopt(f"{first}.two")
        return {"filename": first}

    @classmethod
    def __load_from_info__(cls, ctx, filename):
        return Path(ctx.path(f"{filename}.two")).read_text()


def test_files_that_nobody_names_are_checked_for_every_part(tmp_path):
    cache = written(tmp_path, {"a": "TwoFiles", "b": "String"}, key={"a": "text", "b": "b"})
    next(path for path in cache.files("key") if path.suffix == ".two").write_text("wrong")
    with pytest.warns(CorruptEntryWarning), pytest.raises(KeyError):
        CacheDict(tmp_path).part("key", "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyError):
            CacheDict(tmp_path).part("key", "b")


def test_parts_of_other_forms(tmp_path):
    values = {
        "odd keys": {1: 2, "#": np.arange(500), "\ud800": 3},
        "ordered": OrderedDict(a=1),
        "long": {"a": "x" * 5000},
        "long tree": {"a": ("x" * 5000,)},
    }
    cache = written(tmp_path, None, **values)
    assert cache.part("odd keys", "#")[-1] == 499 and cache.part("odd keys", "\ud800") == 3
    assert cache.part("ordered", "a") == 1
    assert cache.part("long", "a") == "x" * 5000 and cache.part("long tree", "a") == ("x" * 5000,)
    pickled = written(tmp_path, "Pickle", pickled={"a": 1})
    assert pickled.part("pickled", "a") == 1
    written(tmp_path, None, list=[1], array=np.arange(3))
    for key in ("list", "array"):
        with pytest.raises(ConfigTypeError, match="is no dictionary"):
            cache.part(key, "a")


def test_parts_and_files_in_memory_and_after_a_compaction(tmp_path):
    memory = CacheDict(None, keep_in_ram=True)
    memory["a"] = {"b": 1}
    assert memory.part("a", "b") == 1 and memory.files("a") == []
    with pytest.raises(KeyError):
        memory.files("b")
    both = CacheDict(tmp_path, keep_in_ram=True)
    with both.write():
        both["a"] = {"b": np.arange(500)}
    assert both.part("a", "b") is both["a"]["b"]
    written(tmp_path, None, c={"x": np.arange(500), "y": np.arange(600)}, d=5)
    maintenance.compact(tmp_path)
    cache = CacheDict(tmp_path)
    assert cache.part("c", "y")[-1] == 599 and cache.part("a", "b")[-1] == 499
    assert [path.exists() and path.is_absolute() for path in cache.files("c")] == [True]
    assert cache.files("d") == []
    with pytest.raises(KeyError):
        cache.files("nothing")
