"""The yaml emitted directly is libyaml's, to the byte, and is read back as what was written."""

import datetime
import enum
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exca_like import ConfDict, yamltext

WORDS = [
    "", "null", "Null", "~", "true", "True", "yes", "No", "on", "OFF", "y", "N", "1", "1.0", "0", "00", "08", "0.", "1.", "01.5", "1.0.0", "99999999999999999999.5", "-1", "+1", "1_000", "0x1f", "0o17", "017", "0b1", "1e5", "1.5e5",
    "1e-05", ".5", ".nan", ".inf", "-.INF", "1:30", "190:20:30.15", "2020-01-01", "2020-01-01 10:00:00", "=", "<<", "-", "- a", "? a", ": a", "a: b", "a:b",
    "a #b", "#a", "[a]", "{a}", "a]", "a, b", "!a", "!!str a", "&a", "*a", "%a", "@a", "`a", "'a'", '"a"', "a'b", 'a"b', "|", ">", "a\\b", " a", "a ", "\ta", "a\nb",
    "\n", "a\n", "\r", "a\u0085b", "\u2028", "\ufeffa", "\x00", "\x7f", "é", "日本", "\U0001f389", "\ud7ff", "\ue000", "---", "--- a", "...", "x" * 100, "x" * 200, "x y " * 60,
]  # fmt: skip

texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=6), st.text(" \n'\"#:-[]{},&*!|>%@`?.\\a1é\t", max_size=6))
scalars = st.one_of(texts, st.integers(), st.floats(), st.booleans(), st.none())
keys = texts.filter(lambda key: "." not in key and not ConfDict.ops.is_op(key))
values = st.recursive(
    scalars,
    lambda content: st.one_of(
        st.lists(content, max_size=3),
        st.dictionaries(keys, content, max_size=3),
        st.dictionaries(keys, content, max_size=2).map(OrderedDict),
    ),
    max_leaves=6,
)
configs = st.dictionaries(keys, values, max_size=4)


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@given(configs)
@example({"a": [[[1], {"b": 2}], {}, []]})
@example({"a": {"b": {"c": [{"d": {}}]}}})
@example({"a": 1e-05, "b": 1e22, "c": -0.0, "d": 10**400})
def test_direct_text_is_that_of_libyaml_and_is_read_back(config):
    config = ConfDict(config)
    text = yamltext.dump(config)
    assert text == yamltext._libyaml(yamltext._joined(yamltext._plain(config, "")))
    back = ConfDict.from_yaml(text)
    assert repr(back) == repr(config)
    assert ConfDict(config.flat()) == config


@pytest.mark.parametrize("word", WORDS)
def test_awkward_words_are_read_back_as_themselves(word):
    config = {"value": word, "items": [word, {"deep": word, "z": 1}], "z": {"value": word, "y": 1}}
    if "." not in word:
        config[word] = 1
        config["key"] = {word: 1, "y": 2}
        config["list"] = [{word: 1, "y": 2}]
        config["ordered"] = OrderedDict({word: 1})
    text = yamltext.dump(config)
    assert text == yamltext._libyaml(yamltext._joined(yamltext._plain(config, "")))
    assert ConfDict.from_yaml(text) == config


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        10**30,
        0.1,
        1e-05,
        1.5e-05,
        -1e-300,
        1e22,
        1.5e300,
        5e-324,
        123456789.123,
        float("inf"),
        -float("inf"),
        True,
        False,
        None,
        [],
        {},
        [[]],
        [{}],
        "0",
        "12",
        "1.0",
        "0.",
        "1.2",
        -0.0,
    ],
)
def test_scalars_and_empty_containers_are_emitted_directly_and_exactly(value, monkeypatch):
    config = {"a": value, "b": [value, [value]], "c": {"d": value, "e": value}}
    expected = yamltext._libyaml(config)
    monkeypatch.setattr(yamltext, "_libyaml", None)  # not asked for
    text = yamltext.dump(config)
    assert text == expected
    assert repr(yamltext.load(text)) == repr(config)


def test_nan_is_read_back():
    assert yamltext.dump({"a": float("nan")}) == "a: .nan\n"
    assert repr(yamltext.load("a: .nan")["a"]) == "nan"


class Level(enum.IntEnum):
    ONE = 1


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.int8(1), 1),
        (np.bool_(False), False),
        (np.str_("a"), "a"),
        (Level.ONE, 1),
        (Word("a"), "a"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        ((1, (2,)), [1, [2]]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({3, 1}), [1, 3]),
        (b"a\xff", b"a\xff"),
        (datetime.date(2020, 1, 2), datetime.date(2020, 1, 2)),
        (datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.datetime(2020, 1, 2, 3, 4, 5, 6)),
        (datetime.time(1, 2), "01:02:00"),
        (OrderedDict(b=1, a=2), OrderedDict(b=1, a=2)),
        (OrderedDict(b=OrderedDict(z=1), a=[OrderedDict()]), OrderedDict(b=OrderedDict(z=1), a=[OrderedDict()])),
    ],
)
def test_other_values_are_written_as_what_they_stand_for(value, plain):
    back = yamltext.load(yamltext.dump({"a": value}))["a"]
    assert repr(back) == repr(plain)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"a": {"b": object()}}, "a.b"),
        ({"a": [1, np.zeros(2)]}, "a.1"),
        ({"a": OrderedDict(x=[len])}, "a.x.0"),
        ({"a": {"b": {"c": 1j}}}, "a.b.c"),
    ],
)
def test_a_value_without_yaml_form_is_a_type_error_naming_its_key(config, where):
    with pytest.raises(TypeError, match=rf"^{where}: "):
        yamltext.dump(config)


def test_yaml_of_other_programs_is_left_alone():
    dumper, loader = yaml.SafeDumper.yaml_representers, yaml.SafeLoader.yaml_constructors
    before = dict(dumper), dict(loader)
    assert ConfDict(a=OrderedDict(b=1)).to_yaml()
    assert (dict(dumper), dict(loader)) == before
    ours = [f for table in (dumper, loader) for f in table.values() if f.__module__.startswith("exca_like")]
    assert ours == []
    assert yaml.safe_load("a: !!omap\n- b: 1\n") == {"a": [("b", 1)]}


def test_an_alias_is_never_written():
    shared = [1]
    assert yamltext.dump({"a": shared, "b": shared, "c": {"x": {"é": shared}, "y": b"1"}}).count("&") == 0
