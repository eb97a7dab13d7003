"""The published contract test finds handlers that break the contract, and tells how."""

import datetime
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from exca_like.cachedict import DumpContext
from exca_like.testing import check_handler, same


class Value:
    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, Value) and self.text == other.text

    def __repr__(self):
        return f"Value({self.text!r})"


VALUES = [Value("first"), Value("x" * 100_000)]


class Sound:
    """A handler as it should be; each test spoils something."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        name = ctx.key_path(".txt")
        Path(ctx.folder, name).write_text(value.text)
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx, filename):
        return Value(Path(ctx.folder, filename).read_text())


def check(handler, tmp_path, **options):
    DumpContext.register(handler)
    try:
        check_handler(VALUES, tmp_path, cache_type=handler.__name__, **{"fresh_process": False, **options})
    finally:
        del DumpContext.HANDLERS[handler.__name__]


def test_sound_handler(tmp_path):
    check(Sound, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(AssertionError, match="can't read what was stored"):  # it is not registered by importing this module
        check(Sound, tmp_path, fresh_process=True)
    assert list(tmp_path.glob("check-handler-*"))


def test_wrong_value(tmp_path):
    class Shortening(Sound):
        @classmethod
        def __load_from_info__(cls, ctx, filename):
            return Value(Sound.__load_from_info__(ctx, filename).text[:50_000])

    with pytest.raises(
        AssertionError, match=r"Value\('x+.* came back as Value\('x+.* which is not equal; give check_handler equal="
    ):
        check(Shortening, tmp_path)


def test_other_type(tmp_path):
    class Plain(Sound):
        @classmethod
        def __load_from_info__(cls, ctx, filename):
            return Sound.__load_from_info__(ctx, filename).text

    with pytest.raises(AssertionError, match=r"came back as a builtins.str, not a .*Value; give check_handler loaded_type="):
        check(Plain, tmp_path)
    check(Plain, tmp_path, loaded_type=str, equal=lambda loaded, value: loaded == value.text)


@pytest.mark.parametrize(
    ("make_name", "message"),
    [
        (lambda key: f"{key}.txt", "File name too long"),
        (lambda key: f"data/{len(key)}.txt", "written side by side, .* came back as"),
        (
            lambda key: f"{key[-240:]}.txt".translate({0: "0"}),
            "files were written outside of the folder",
        ),
    ],
)
def test_file_that_is_named_by_the_key(make_name, message, tmp_path):
    class Careless(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            path = Path(ctx.folder, make_name(ctx.key))
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(value.text)
            return {"filename": str(path)}

    with pytest.raises((AssertionError, OSError), match=message):
        check(Careless, tmp_path)


def test_bytes_without_checksums(tmp_path):
    class Beside(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            name = ctx.key_path(".txt")
            Path(ctx.folder, f"{name}.more").write_text(value.text)
            Path(ctx.folder, name).write_text("")
            return {"filename": f"{name}.more"}

    with pytest.raises(AssertionError, match=r"clear\(\) leaves|deleting leaves|not part of the entry's data"):
        check(Beside, tmp_path)


def test_files_that_stay(tmp_path):
    class Leaving(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            name = ctx.key_path(".txt")
            Path(ctx.folder, f"{name}.empty").write_text("")
            Path(ctx.folder, name).write_text(value.text)
            return {"filename": name}

    with pytest.raises(AssertionError, match="files"):
        check(Leaving, tmp_path)


def test_reading_that_writes(tmp_path):
    class Counting(Sound):
        @classmethod
        def __load_from_info__(cls, ctx, filename):
            Path(ctx.folder, "data", "reads").write_text("1")
            return Sound.__load_from_info__(ctx, filename)

    with pytest.raises(AssertionError, match=r"reading changed files|clear\(\) leaves files behind"):
        check(Counting, tmp_path)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (float("nan"), "info\\['part'\\] is nan, which JSON has no form for"),
        (datetime.date(2024, 1, 1), "is datetime.date"),
        ({"a": [datetime.date(2024, 1, 1)]}, "info\\['part'\\]\\['a'\\]\\[0\\] is datetime.date"),
    ],
)
def test_information_that_is_no_json(part, message, tmp_path):
    class Odd(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            return {**Sound.__dump_info__(ctx, value), "part": part}

        @classmethod
        def __load_from_info__(cls, ctx, filename, part):
            return Sound.__load_from_info__(ctx, filename)

    with pytest.raises(AssertionError, match=message):
        check(Odd, tmp_path)


def test_names_that_are_taken(tmp_path):
    class Taking(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            return {**Sound.__dump_info__(ctx, value), "#meta": 1}

    with pytest.raises(AssertionError, match="names that begin with # are taken"):
        check(Taking, tmp_path)


def test_pickles(tmp_path):
    class Pickling(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            return {"content": ctx.dump(value, cache_type="Pickle")}

        @classmethod
        def __load_from_info__(cls, ctx, content):
            return ctx.load(content)

    with pytest.raises(AssertionError, match="is stored as a pickle; give check_handler pickles=True"):
        check(Pickling, tmp_path)
    check(Pickling, tmp_path, pickles=True)


def test_failing_dump_that_leaves_a_file(tmp_path):
    class Early(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            extra = Path(ctx.folder, "data", f"{len(list(Path(ctx.folder).rglob('*')))}.tmp")
            extra.parent.mkdir(exist_ok=True, parents=True)
            extra.write_text("")
            info = {"content": ctx.dump(value.text, cache_type="Json")}
            extra.unlink(missing_ok=True)
            return info

        @classmethod
        def __load_from_info__(cls, ctx, content):
            return Value(ctx.load(content))

    with pytest.raises(AssertionError, match=r"after a dump that failed half-way, files are left: \['data/.*\.tmp'\]"):
        check(Early, tmp_path)


MEMORY = {}


@DumpContext.register
class InMemory:
    @classmethod
    def __dump_info__(cls, ctx, value):
        MEMORY[id(value)] = value
        return {"number": id(value)}

    @classmethod
    def __load_from_info__(cls, ctx, number):
        return MEMORY[number]


def test_value_that_never_leaves_the_process(tmp_path):
    with pytest.raises(AssertionError, match="a new process can't read what was stored(.|\n)*KeyError"):
        check_handler(VALUES, tmp_path, cache_type="InMemory")


def test_data_that_are_not_covered(tmp_path):
    class Own(Sound):
        """Packs several values into one file that it does not tell of."""

        @classmethod
        def __dump_info__(cls, ctx, value):
            name = ctx.key_path(".json")
            Path(ctx.folder, name).write_text(json.dumps([value.text]))
            ctx._names.clear()  # as if it had not asked for the name
            return {"filename": name}

        @classmethod
        def __load_from_info__(cls, ctx, filename):
            return Value(json.loads(Path(ctx.folder, filename).read_text())[0])

    with pytest.raises(AssertionError, match="has bytes that are not part of the entry's data"):
        check(Own, tmp_path)


def test_what_went_on_is_told(tmp_path):
    class Failing(Sound):
        @classmethod
        def __dump_info__(cls, ctx, value):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        check(Failing, tmp_path)
    assert caught.value.__notes__ == [
        "Value('first') was to be written with the key 'plain'",
        "check_handler was at 'check_keys' of all values together",
    ]


def test_at_least_one_value(tmp_path):
    with pytest.raises(AssertionError, match="at least one value"):
        check_handler([], tmp_path)


def test_same():
    assert same([1, {"a": (float("nan"), -0.0)}], [1, {"a": (float("nan"), -0.0)}])
    for other in (1.0, True, "1", [1], None):
        assert not same(other, 1)
    assert not same(0.0, -0.0)
    assert not same([1, 2], [1])
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same({1, 2}, {1, 3})
    assert not same(slice(1), slice(2))
    assert same({float("nan")}, {float("nan")})
    assert same(VALUES, pickle.loads(pickle.dumps(VALUES)))


def test_needs_no_test_runner():
    code = "import sys, exca_like.testing; print(sorted({'pytest', '_pytest', 'hypothesis', 'pandas', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
