"""What handlers are given, and how they are found."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from exca_like import errors
from exca_like.cachedict import CacheDict, DumpContext, registry
from exca_like.cachedict.context import why_refused


@pytest.fixture(autouse=True)
def _forgotten():
    """Handlers of a test are unknown to the next one."""
    yield
    for known in (registry.HANDLERS, registry.TYPE_DEFAULTS):
        for name in [name for name, found in known.items() if found.__module__ in (__name__, "plugin_module")]:
            del known[name]
    DumpContext.register(handler("Last"))  # what is known of types is looked up anew after a registration
    del registry.HANDLERS["Last"]


def handler(name="Handler", **methods):
    def dump(cls, ctx, value):
        return {"value": value.x}

    def load(cls, ctx, value):
        return Thing(value)

    return type(name, (), {"__dump_info__": classmethod(dump), "__load_from_info__": classmethod(load), **methods})


class Thing:
    def __init__(self, x):
        self.x = x


class Child(Thing):
    pass


# registering


def test_register_is_a_decorator():
    made = handler()
    assert DumpContext.register(made) is made
    assert DumpContext.HANDLERS["Handler"] is made
    assert DumpContext.register(default_for=Thing)(made) is made
    assert DumpContext.TYPE_DEFAULTS[Thing] is made
    assert registry.handler_of_type(Thing) is made
    assert registry.handler_of_type(Child) is made


def test_children_may_have_another_handler(tmp_path):
    DumpContext.register(handler("ForThings"), default_for=Thing)
    with (cache := CacheDict(tmp_path)).write():
        cache["a"] = Child(1)
        DumpContext.register(handler("ForChildren"), default_for=Child)
        cache["b"] = Child(2)
    assert [cache.describe(key)["#type"] for key in "ab"] == ["ForThings", "ForChildren"]
    assert [value.x for value in CacheDict(tmp_path).values()] == [1, 2]


@pytest.mark.parametrize("name", ["Json", "MemmapArray", "TorchTensor", "Handler"])
def test_names_are_taken_once(name):
    DumpContext.register(handler())
    with pytest.raises(ValueError, match=f"there is a handler named '{name}' already: give the class another name"):
        DumpContext.register(handler(name, __qualname__="another"))


def test_class_that_is_defined_again_is_the_same_one(tmp_path):
    """As in a notebook, whose cell is run twice."""
    DumpContext.register(handler())
    again = DumpContext.register(handler())
    assert DumpContext.HANDLERS["Handler"] is again


@pytest.mark.parametrize("missing", ["__dump_info__", "__load_from_info__"])
def test_class_that_is_no_handler(missing):
    with pytest.raises(ValueError, match=f"Handler is no handler: it has no method {missing}"):
        DumpContext.register(handler(**{missing: None}))
    assert "Handler" not in DumpContext.HANDLERS


def test_default_for_must_be_a_type():
    with pytest.raises((TypeError, ValueError)):
        DumpContext.register(handler(), default_for="Thing")


@pytest.mark.parametrize("name", ["Plugged", "another-name"])
def test_entry_point_is_loaded_when_it_is_asked_for(name, tmp_path, monkeypatch):
    """By its name, which the class need not have."""
    information = tmp_path / "plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[exca_like.handlers]\n{name} = plugin_module:Plugged\n")
    (tmp_path / "plugin_module.py").write_text(
        "class Plugged:\n"
        "    @classmethod\n"
        "    def __dump_info__(cls, ctx, value): return {'text': value[::-1]}\n"
        "    @classmethod\n"
        "    def __load_from_info__(cls, ctx, text): return text[::-1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with (cache := CacheDict(tmp_path / "cache", cache_type=name)).write():
        cache["a"] = "text"
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from exca_like.cachedict import CacheDict
assert "plugin_module" not in sys.modules
print(CacheDict({str(tmp_path / "cache")!r})["a"])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "text\n"
    sys.modules.pop("plugin_module")


def test_importing_stays_light():
    code = """
import sys
import exca_like.cachedict as c
print(sorted({"numpy", "pandas", "torch", "pydantic", "submitit", "nibabel", "mne"} & set(sys.modules)))
import tempfile
cache = c.CacheDict(tempfile.mkdtemp())
with cache.write():
    cache["a"] = {"x": [1.5, "text", None]}
print(cache["a"], sorted({"numpy", "pandas", "torch", "pydantic", "submitit"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n{'x': [1.5, 'text', None]} []\n"


# storing


def test_dump_and_load(tmp_path):
    context = DumpContext(tmp_path, key="key")
    for value in (1, "text", np.arange(3), np.arange(1000), [np.arange(500), (1, 2)]):
        info = context.dump(value)
        loaded = context.load(orjson.loads(orjson.dumps(info)))
        assert repr(loaded) == repr(value)
        assert info["#type"] in DumpContext.HANDLERS
    assert context.folder == tmp_path
    assert context.dump([1], cache_type="Json")["#type"] == "Json"
    with pytest.raises(ValueError, match="no handler 'Nothing'"):
        context.dump(1, cache_type="Nothing")
    assert context.dump(np.array([None]))["#type"] == "ObjectArray"


def test_key_path(tmp_path):
    context = DumpContext(tmp_path, key="../a key/with\nodd characters " + "x" * 100)
    names = {context.key_path(".txt") for _ in range(100)} | {context.key_path()}
    assert len(names) == 101
    for name in names:
        path = tmp_path / name
        assert path.resolve().is_relative_to(tmp_path / "data")
        assert path.parent.is_dir()
        assert not path.exists()
        assert len(path.name) < 100
        assert path.name.isascii()
        assert path.name.startswith("a-key-with-odd-characters")
    assert len({Path(name).parent for name in names}) == 1
    assert len({Path(DumpContext(tmp_path, key=str(number)).key_path()).parent for number in range(200)}) > 50  # sharded


def test_shared_file(tmp_path):
    context = DumpContext(tmp_path, key="key")
    stream, name = context.shared_file(".txt")
    assert stream.tell() == 0
    assert stream.write(b"first") == 5
    assert context.shared_file(".txt") == (stream, name)
    assert context.shared_file(".bin")[1] != name
    assert (tmp_path / name).read_bytes() == b"first"
    assert bytes(context.view(name, 1, 3)) == b"irs"


def test_append(tmp_path):
    context = DumpContext(tmp_path, key="key")
    places = [context.append(".x", data) for data in (b"first", b"", b"second", bytes(200_000))]
    assert [place["offset"] % 64 for place in places] == [0] * 4
    assert [place["length"] for place in places] == [5, 0, 6, 200_000]
    assert {place["filename"] for place in places} == {".x"}
    assert bytes(context.view(**places[2])) == b"second"
    assert context.path(".x") == str(tmp_path / "data" / f"{context.writer.name}.x")


class SharedWords:
    """Writes to a shared file, and fails if asked to."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        stream, name = ctx.shared_file(".data")
        offset = stream.tell()
        stream.write(value.x.encode())
        if value.x == "fail":
            raise ZeroDivisionError
        return {"filename": name, "offset": offset, "length": len(value.x)}

    @classmethod
    def __load_from_info__(cls, ctx, filename, offset, length):
        return bytes(ctx.view(filename, offset, length)).decode()


@pytest.mark.parametrize("between", [(), ("fail",), ("fail", "fail")])
def test_shared_file_and_packed_data_keep_out_of_each_others_way(between, tmp_path):
    DumpContext.register(SharedWords, default_for=Thing)
    array = np.arange(1000)
    with (cache := CacheDict(tmp_path)).write():
        cache["array 1"] = array
        cache["text"] = Thing("shared text")
        for text in between:
            with pytest.raises(ZeroDivisionError):
                cache["x"] = Thing(text)
        cache["array 2"] = array + 1
        cache["both"] = [Thing("one"), array + 2, Thing("two"), array + 3]
        for text in between:
            with pytest.raises(ZeroDivisionError):
                cache["x"] = [array, Thing("before"), Thing(text)]
        cache["text 2"] = Thing("more text")
        cache["array 3"] = array + 4
    fresh = CacheDict(tmp_path)
    assert (fresh["text"], fresh["text 2"]) == ("shared text", "more text")
    first, one, second, two = fresh["both"]
    assert (first, second) == ("one", "two")
    arrays = [fresh["array 1"], fresh["array 2"], one, two, fresh["array 3"]]
    assert [int(found[-1]) for found in arrays] == [999, 1000, 1001, 1002, 1003]


@pytest.mark.parametrize("error", [TypeError("a mistake in a handler"), ValueError("another"), OSError("a third")])
def test_errors_of_handlers_are_raised_as_they_are(error, tmp_path):
    def fail(cls, ctx, value):
        raise error

    DumpContext.register(handler(__dump_info__=classmethod(fail)), default_for=Thing)
    with (cache := CacheDict(tmp_path)).write():
        for value in (Thing(1), [np.arange(1000), Thing(1)], {"a": (Thing(1),)}):
            with pytest.raises(type(error)) as caught:
                cache["a"] = value
            assert str(caught.value) == str(error)
    assert "a" not in cache


@pytest.mark.parametrize("info", [None, [1], "text", 5])
def test_information_must_be_a_dictionary(info, tmp_path):
    DumpContext.register(handler(__dump_info__=classmethod(lambda cls, ctx, value: info)), default_for=Thing)
    with (cache := CacheDict(tmp_path)).write(), pytest.raises(TypeError, match="must return a dictionary"):
        cache["a"] = Thing(1)


def test_information_must_leave_the_key_alone(tmp_path):
    DumpContext.register(handler(__dump_info__=classmethod(lambda cls, ctx, value: {"#key": "b"})), default_for=Thing)
    with (cache := CacheDict(tmp_path)).write(), pytest.raises(TypeError, match="'#key' for 'a': names that begin with #"):
        cache["a"] = Thing(1)
    assert not CacheDict(tmp_path)


@pytest.mark.parametrize("part", [{1, 2}, {1: 2}, np.int64(1), 2**70, "\ud800", b"bytes"])
def test_information_must_be_json(part, tmp_path):
    DumpContext.register(handler(__dump_info__=classmethod(lambda cls, ctx, value: {"value": part})), default_for=Thing)
    with (cache := CacheDict(tmp_path)).write():
        for value in (Thing(1), [Thing(1)]):
            with pytest.raises(TypeError, match="JSON"):
                cache["a"] = value
        cache["b"] = 1
    assert list(CacheDict(tmp_path)) == ["b"]


def test_cache_type_that_stores_its_own_instances(tmp_path):
    class Own:
        def __dump_info__(self, ctx):
            return {}

        @classmethod
        def __load_from_info__(cls, ctx):
            return cls()

    DumpContext.register(Own)
    with (cache := CacheDict(tmp_path, cache_type="Own")).write():
        cache["a"] = Own()
        with pytest.raises(TypeError, match="Own.* stores its own instances, not a int"):
            cache["b"] = 1
    assert type(CacheDict(tmp_path)["a"]) is Own


def test_deleting_asks_the_handler(tmp_path):
    deleted = []

    def delete(cls, ctx, **info):
        deleted.append((ctx.key, ctx.folder, info))

    DumpContext.register(handler(__delete_info__=classmethod(delete)), default_for=Thing)
    with (cache := CacheDict(tmp_path)).write():
        cache["a"] = Thing([1, 2])
        cache.put("a", Thing(3), replace=True)
        assert deleted == [("a", tmp_path, {"value": [1, 2]})]
        del cache["a"]
    assert deleted[1:] == [("a", tmp_path, {"value": 3})]


# loading


def test_path(tmp_path):
    context = DumpContext.for_loading(str(tmp_path), "key", (), "writer", "own", "full")
    assert context.path(".data") == f"{tmp_path}/data/writer.data"
    assert context.path("data/a/b.npy") == f"{tmp_path}/data/a/b.npy"
    assert context.path("beside.data") == f"{tmp_path}/beside.data"
    assert context.path("data/a..b") == f"{tmp_path}/data/a..b"
    for name in ("/etc/passwd", "..", "../x", "data/../../x", "./x", "./../x", "", "data/.."):
        try:
            path = context.path(name)
        except errors.CorruptEntryError as error:
            assert "outside of its folder" in str(error)
        else:
            assert Path(os.path.normpath(path)).is_relative_to(tmp_path)


def test_view(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    context = DumpContext(tmp_path)
    assert bytes(context.view("file")) == b"content"
    assert bytes(context.view("file", 3)) == b"tent"
    assert bytes(context.view("file", 3, 2)) == b"te"
    assert bytes(context.view("file", 7)) == b""
    for offset, length in ((0, 8), (8, 0), (8, None), (-1, 3), (3, -1), (3, 10**12)):
        with pytest.raises(errors.CorruptEntryError):
            context.view("file", offset, length)
    with pytest.raises(FileNotFoundError):
        context.view("nothing")
    with pytest.raises(TypeError):
        context.view("file")[0] = 1
    (tmp_path / "file").write_bytes(b"")
    assert bytes(context.view("file", 0, 0)) == b""


def test_whose_pickles():
    me = os.geteuid()
    other = me + 12345
    assert why_refused(me, "own") is why_refused(0, "own") is why_refused(other, "always") is None
    assert why_refused(other, "own") == f"the file belongs to user {other}, not to you"
    assert why_refused(me, "never") == "allow_pickle is 'never'"


def test_types_in_messages():
    assert registry.describe_type(1) == "a int"
    assert registry.describe_type(Thing(1)) == f"a {__name__}.Thing"
