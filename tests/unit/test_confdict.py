"""ConfDict: dotted access, merging, operators, import and export."""

import copy
import datetime
import enum
import io
import pathlib
import pickle
from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import ConfDict, errors

REPLACE, DELETE, BEFORE, AFTER = "=replace=", "=delete=", "=before=", "=after="


def updated(config, *patches, **kwargs):
    result = ConfDict(config)
    for patch in patches or ((),):
        result.update(patch, **kwargs)
    return result


def kinds(value):
    """A value with the types of its containers, which ``==`` does not see, and the order of ordered ones."""
    if isinstance(value, OrderedDict):
        return "ordered", [(key, kinds(item)) for key, item in value.items()]
    if isinstance(value, dict):
        return type(value).__name__, {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [kinds(item) for item in value]
    return value


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ConfDict(), {}),
        (ConfDict({"a.b": 1}), {"a": {"b": 1}}),
        (ConfDict({"a": {"b.c": 1}, "a.b.d": 2}), {"a": {"b": {"c": 1, "d": 2}}}),
        (ConfDict({"a.b": 1, "a": {"c": 2}}), {"a": {"b": 1, "c": 2}}),
        (ConfDict({"a.b": 1}, x=1, **{"a.c": 3}), {"a": {"b": 1, "c": 3}, "x": 1}),
        (ConfDict(a=1), {"a": 1}),
        (ConfDict([("a.b", 1), ("c", 2)]), {"a": {"b": 1}, "c": 2}),
        (ConfDict(MappingProxyType({"a.b": MappingProxyType({"c": 1})})), {"a": {"b": {"c": 1}}}),
        (ConfDict({"a": 1, "a.b": 2}), {"a": {"b": 2}}),
        (ConfDict({"a.b": 2, "a": 1}), {"a": 1}),
        (ConfDict({"a": None, "a.b": 2}), {"a": {"b": 2}}),
        (ConfDict({"a": {}}), {"a": {}}),
        (ConfDict({"a": [{"b.c": 1}]}), {"a": [{"b": {"c": 1}}]}),
        (ConfDict({"a": ({"b.c": [{"d.e": 1}]},)}), {"a": ({"b": {"c": [{"d": {"e": 1}}]}},)}),
        (ConfDict({"": 1}), {"": 1}),
    ],
)
def test_dotted_nested_and_keyword_input_mix(config, expected):
    assert config == expected


def test_inner_dictionaries_become_configs_and_ordered_ones_stay():
    config = ConfDict({"a": {"b": 1}, "l": [{"c": 1}], "o": OrderedDict({"z": {"y": 1}, "x.w": 2})})
    expected = {"a": ("ConfDict", {"b": 1}), "l": ("list", [("ConfDict", {"c": 1})])}
    expected["o"] = ("ordered", [("z", ("ConfDict", {"y": 1})), ("x", ("ConfDict", {"w": 2}))])
    assert kinds(config) == ("ConfDict", expected)


def test_input_is_copied():
    given = {"a": {"b": [1]}, "o": OrderedDict(x=[2])}
    config = ConfDict(given)
    config["a.b"].append(5)
    config["o.x"].append(5)
    assert given == {"a": {"b": [1]}, "o": OrderedDict(x=[2])}


@pytest.mark.parametrize("key", [1, None, 1.5, ("a",), b"a", True])
@pytest.mark.parametrize(
    "where",
    [
        lambda key: {key: 1},
        lambda key: {"a": {key: 1}},
        lambda key: {"a": [{key: 1}]},
        lambda key: {"o": OrderedDict({key: 1})},
    ],
)
def test_keys_must_be_strings(key, where):
    with pytest.raises(TypeError, match="keys are strings") as caught:
        ConfDict(where(key))
    assert isinstance(caught.value, errors.ConfigTypeError)
    config = ConfDict(a=1)
    with pytest.raises(TypeError, match="keys are strings"):
        config.update(where(key))
    assert config == {"a": 1}


@pytest.mark.parametrize("key", ["a..b", ".a", "a.", ".", "..", "a.b."])
def test_keys_have_no_empty_segment(key):
    for write in (
        lambda: ConfDict({key: 1}),
        lambda: ConfDict({"x": {key: 1}}),
        lambda: updated({}, {key: 1}),
        lambda: ConfDict().__setitem__(key, 1),
    ):
        with pytest.raises(ValueError, match="empty segment") as caught:
            write()
        assert isinstance(caught.value, errors.ConfigValueError)
    assert key not in ConfDict(a=1)
    assert ConfDict(a=1).get(key) is None


@pytest.mark.parametrize(
    ("key", "expected"),
    [("a.b", 1), ("l.0", 5), ("l.1.lr", 2), ("t.1.0", 7), ("o.x", 3), ("n", None), ("a", {"b": 1, "c": {}}), ("a.c", {})],
)
def test_reading_by_dotted_key_and_index(key, expected):
    config = ConfDict({"a": {"b": 1, "c": {}}, "l": [5, {"lr": 2}], "t": (6, [7]), "o": OrderedDict(x=3), "n": None})
    assert config[key] == expected
    assert key in config
    assert config.get(key, "default") == expected
    assert config.setdefault(key, "default") == expected


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("a.x", KeyError),
        ("x", KeyError),
        ("x.y", KeyError),
        ("a.b.c", KeyError),
        ("l.7", IndexError),
        ("l.x", TypeError),
        ("l.-1", TypeError),
        ("l.²", TypeError),
    ],
)
def test_missing_keys(key, error):
    config = ConfDict({"a": {"b": 1}, "l": [1]})
    with pytest.raises(error):
        config[key]
    assert key not in config
    assert config.get(key) is None
    assert config.get(key, 3) == 3
    if error is not TypeError:
        assert config.pop(key, 3) == 3
    with pytest.raises(error):
        config.pop(key)
    with pytest.raises(error):
        del config[key]
    assert config == {"a": {"b": 1}, "l": [1]}


def test_odd_keys_are_not_there():
    assert 1 not in ConfDict(a=1)
    assert ConfDict(a=1).get(None, 2) == 2
    assert ["a"] not in ConfDict(a=1)


def test_removing_leaves_the_emptied_parent():
    config = ConfDict({"a.b.c": 1, "l": [1, {"x": 2}], "o": OrderedDict(x=1, y=2)})
    assert config.pop("a.b.c") == 1
    del config["l.1.x"]
    del config["l.0"]
    assert config.pop("o.x") == 1
    assert config == {"a": {"b": {}}, "l": [{}], "o": OrderedDict(y=2)}
    with pytest.raises(TypeError, match="tuple"):
        ConfDict({"t": (1, 2)}).pop("t.0")


def test_setting_merges_dictionaries_and_replaces_all_else():
    config = ConfDict({"a": {"x": 1}, "l": [{"lr": 1}, 2], "t": ({"lr": 1}, 2), "n": None})
    config["a"] = {"y": 2}
    config["a.z.w"] = 3
    config["l.0.lr"] = 5
    config["t.0.lr"] = 6
    config["n.sub"] = 1
    assert kinds(config) == kinds(
        ConfDict({"a": {"x": 1, "y": 2, "z": {"w": 3}}, "l": [{"lr": 5}, 2], "t": ({"lr": 6}, 2), "n": {"sub": 1}})
    )
    config["a"] = 3
    config["l"] = [1]
    assert (config["a"], config["l"]) == (3, [1])


@pytest.mark.parametrize(
    ("config", "patch", "expected"),
    [
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a.y": 2}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, [("a.y", 2)], {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a": 2}, {"a": 2}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": {"x": 1}}, {"a": []}, {"a": []}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}),
        ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": 1}, {"a.x": 1}, {"a": {"x": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": [1, {"x": 1}]}, {"a.1.y": 3, "a.0": 4}, {"a": [4, {"x": 1, "y": 3}]}),
        ({"a": (1, {"x": 1})}, {"a.1.y": 3, "a": {"0": 4}}, {"a": (4, {"x": 1, "y": 3})}),
        ({"a": OrderedDict(y=1, x=2)}, {"a": {"z": 3, "x": 4}}, {"a": OrderedDict(y=1, x=4, z=3)}),
        ({}, {"a": OrderedDict(y=1, x=2)}, {"a": OrderedDict(y=1, x=2)}),
        ({"a": 1}, {"a": OrderedDict(y=1, x=2)}, {"a": OrderedDict(y=1, x=2)}),
        ({"a": {}}, {"a": OrderedDict(y=1, x=2)}, {"a": OrderedDict(y=1, x=2)}),
        # operators
        ({"a": {"x": 1}, "b": 1}, {"a": {REPLACE: True, "y": 2}}, {"a": {"y": 2}, "b": 1}),
        ({"a": {"x": 1}, "b": 1}, {"a.=replace=": True, "a.y": 2}, {"a": {"y": 2}, "b": 1}),
        ({"a": {"x": 1}}, {"a": {REPLACE: False, "y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}, "b": 1}, {REPLACE: True, "c.d": 2}, {"c": {"d": 2}}),
        ({"a": {"x": {"y": 1}}}, {"a.x": {REPLACE: True}}, {"a": {"x": {}}}),
        ({"a": {"x": {"y": 1}}}, {"a": {"x": {REPLACE: True, "z": {"w": 1}}}}, {"a": {"x": {"z": {"w": 1}}}}),
        ({"a": 5}, {"a": {REPLACE: True, "y": 2}}, {"a": {"y": 2}}),
        ({}, {"a": {"b": {REPLACE: True, "y": 2}}}, {"a": {"b": {"y": 2}}}),
        ({"a": [1, 2]}, {"a": {REPLACE: True, "y": 2}}, {"a": {"y": 2}}),
        ({"a": [1, 2]}, {"a": {REPLACE: False, "0": 2}}, {"a": [2, 2]}),
        ({"a": (1, 2)}, {"a": {"0": 5, REPLACE: True}}, {"a": {"0": 5}}),
        ({"a": OrderedDict(y=1)}, {"a": {REPLACE: True, "z": 1, "b": 2}}, {"a": OrderedDict(z=1, b=2)}),
        ({"a": {"x": 1}}, {"a": OrderedDict([(REPLACE, True), ("z", 1), ("b", 2)])}, {"a": OrderedDict(z=1, b=2)}),
        ({"a": {"x": 1, "y": 2}}, {"a.x": DELETE}, {"a": {"y": 2}}),
        ({"a": {"x": 1}}, {"a": {"x": DELETE}}, {"a": {}}),
        ({"a": {"x": 1}}, {"a": {"x": {DELETE: True}}}, {"a": {}}),
        ({"a": {"x": 1}}, {"a.x.=delete=": True}, {"a": {}}),
        ({"a": {"x": {"z": 1}}}, {"a.x": {DELETE: False, "y": 2}}, {"a": {"x": {"z": 1, "y": 2}}}),
        ({"a": 1}, {"b": DELETE}, {"a": 1}),
        ({"a": [1]}, {"a": DELETE}, {}),
        ({"a": [{"x": 1}]}, {"a.0.x": DELETE}, {"a": [{}]}),
        ({"o": OrderedDict(a=1, b=2, c=3)}, {"o.c": {BEFORE: "a"}}, {"o": OrderedDict(c=3, a=1, b=2)}),
        ({"o": OrderedDict(a=1, b=2, c=3)}, {"o.c.=before=": "b"}, {"o": OrderedDict(a=1, c=3, b=2)}),
        ({"o": OrderedDict(a=1, b=2, c=3)}, {"o": {"a": {AFTER: "c"}}}, {"o": OrderedDict(b=2, c=3, a=1)}),
        ({"o": OrderedDict(a=1, b={"x": 1})}, {"o.b": {BEFORE: "a", "y": 2}}, {"o": OrderedDict(b={"x": 1, "y": 2}, a=1)}),
        ({"o": OrderedDict(a=1, b=2)}, {"o.n": {AFTER: "a", "y": 2}}, {"o": OrderedDict(a=1, n={"y": 2}, b=2)}),
        ({"o": OrderedDict(a={"x": 1}, b=2)}, {"o.a": {AFTER: "b", REPLACE: True, "y": 1}}, {"o": OrderedDict(b=2, a={"y": 1})}),
    ],
)  # fmt: skip
def test_update_merges_and_resolves_operators(config, patch, expected):
    assert kinds(updated(config, patch)) == kinds(ConfDict(expected))
    as_or = ConfDict(config)
    if isinstance(patch, dict):
        assert kinds(as_or | patch) == kinds(ConfDict(expected))
        as_or |= patch
        assert kinds(as_or) == kinds(ConfDict(expected))


@pytest.mark.parametrize("ordered", [False, True])
def test_moving_keeps_the_order_of_the_others(ordered):
    config = ConfDict({"s": OrderedDict(a=1, b=2, c=3) if ordered else {"a": 1, "b": 2, "c": 3}})
    config.update({"s.a": {AFTER: "b"}})
    assert list(config["s"]) == ["b", "a", "c"]
    assert isinstance(config["s"], OrderedDict) is ordered


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"a": {REPLACE: "yes"}}, ValueError),
        ({"a": {"=unknown=": 1}}, ValueError),
        ({"=unknown=": 1}, ValueError),
        ({"n": {"m": {"=unknown=": 1}}}, ValueError),
        ({"a.x": "=unknown="}, ValueError),
        ({"a.x": REPLACE}, ValueError),
        ({"a.x": AFTER}, ValueError),
        ({DELETE: True}, ValueError),
        ({BEFORE: "a"}, ValueError),
        ({"a": {DELETE: True, "x": 1}}, ValueError),
        ({"a": {DELETE: True, REPLACE: True}}, ValueError),
        ({"a": {DELETE: True, BEFORE: "l"}}, ValueError),
        ({"a": {DELETE: "x"}}, ValueError),
        ({"a": {BEFORE: "l", AFTER: "o"}}, ValueError),
        ({"a": {BEFORE: "a"}}, ValueError),
        ({"a": {BEFORE: "nowhere"}}, ValueError),
        ({"a": {BEFORE: None}}, ValueError),
        ({"a": {BEFORE: ["l"]}}, ValueError),
        ({"o.x": {AFTER: "l"}}, ValueError),
        ({"a": [{REPLACE: True}]}, ValueError),
        ({"a": ({"b": DELETE},)}, ValueError),
        ({"l.0": DELETE}, ValueError),
        ({"l.0": {DELETE: True}}, ValueError),
        ({"l.1": {BEFORE: "0"}}, ValueError),
        ({"l": {"=unknown=": 1}}, ValueError),
        ({"l.0": "=unknown="}, ValueError),
        ({"l.0": [DELETE]}, ValueError),
        ({"l": {REPLACE: "x"}}, ValueError),
        ({"l.9": 1}, ValueError),
        ({"l.x": 1}, TypeError),
        ({"l": {"x": {"y": 1}}}, TypeError),
        ({"t.x": 1}, TypeError),
        ({"a.x": 1, "l": {"0": 7, "x": 1}}, TypeError),
        ({1: 2}, TypeError),
        (None, TypeError),
        (5, TypeError),
    ],
)
@pytest.mark.parametrize("first", [{}, {"a": {"x": 100}, "new.key": 1, "l.0": 100, "o.x": 100}])
def test_a_failing_update_changes_nothing(patch, error, first):
    config = ConfDict({"a": {"x": 1}, "l": [1, {"y": 2}], "t": (1,), "o": OrderedDict(x=1, y=2)})
    before = copy.deepcopy(config)
    if isinstance(patch, dict):
        patch = [*first.items(), *patch.items()]
    with pytest.raises(error):
        config.update(patch)
    assert kinds(config) == kinds(before)


def test_operators_have_the_names_of_exca():
    ops = ConfDict.ops
    assert (ops.REPLACE, ops.DELETE, ops.BEFORE, ops.AFTER) == (REPLACE, DELETE, BEFORE, AFTER)
    for owner in (ConfDict, ConfDict()):
        with pytest.warns(DeprecationWarning, match=r"ops\.REPLACE"):
            assert owner.OVERRIDE == REPLACE


def test_update_takes_keywords():
    config = ConfDict({"a.x": 1})
    config.update({"a.y": 2}, b=3, **{"a.z": 4})
    config.update(c=5)
    config.update()
    assert config == {"a": {"x": 1, "y": 2, "z": 4}, "b": 3, "c": 5}


def test_or_keeps_both_operands():
    left, right = ConfDict({"a.x": 1}), {"a.y": 2}
    assert left | right == {"a": {"x": 1, "y": 2}}
    assert right | left == {"a": {"x": 1, "y": 2}}
    assert {"a": {"x": 0, "z": 1}} | left == {"a": {"x": 1, "z": 1}}
    assert type(right | left) is type(left | right) is type(left | left) is ConfDict
    assert (left, right) == ({"a": {"x": 1}}, {"a.y": 2})
    for other in ([("a", 1)], None, 3):
        with pytest.raises(TypeError):
            left | other


@pytest.mark.parametrize(
    "duplicate", [ConfDict.copy, copy.copy, copy.deepcopy, ConfDict, lambda c: pickle.loads(pickle.dumps(c)), lambda c: c | {}]
)
def test_copies_share_no_container(duplicate):
    config = ConfDict({"a.b": [1, {"c": 2}], "o": OrderedDict(y={"x": 1}, b=2), "t": ({"z": 1},), "": 0})
    result = duplicate(config)
    assert kinds(result) == kinds(config)
    result["a.b"].append(3)
    result["a.b.1.c"] = 4
    result["o.y.x"] = 5
    result["t.0.z"] = 6
    result["a.new"] = 7
    assert config == {"a": {"b": [1, {"c": 2}]}, "o": OrderedDict(y={"x": 1}, b=2), "t": ({"z": 1},), "": 0}


def test_subclasses_stay_themselves():
    class Mine(ConfDict):
        pass

    assert type(Mine({"a.b": 1}).copy()) is type(Mine() | {"a": 1}) is type(Mine.from_yaml("a: 1")) is Mine
    assert type(pickle.loads(pickle.dumps(ConfDict(a=1)))) is ConfDict


def test_flat_keeps_lists_and_empty_dictionaries():
    config = ConfDict({"a": {"b": 1, "c": {}, "d": {"e": [{"f": 1}]}}, "g": (), "o": OrderedDict(y=1, x=2), "n": None})
    flat = config.flat()
    assert flat == {"a.b": 1, "a.c": {}, "a.d.e": [{"f": 1}], "g": (), "o.y": 1, "o.x": 2, "n": None}
    assert type(flat) is dict
    assert list(flat) == ["a.b", "a.c", "a.d.e", "g", "o.y", "o.x", "n"]
    assert ConfDict(flat) == config
    assert ConfDict().flat() == {}


@pytest.mark.parametrize(
    "config", [{"": {"": 1}}, {"a": {"": 1}}, {"": {"a": 1}}, {"a": {"b": {"": {"c": {"d": 1}}}}}, {"a": [{"": {"b": 1}}]}]
)
def test_an_empty_key_is_never_part_of_a_dotted_one(config):
    config = ConfDict(config)
    assert ConfDict(config.flat()) == ConfDict.from_yaml(config.to_yaml()) == config


class Level(enum.Enum):
    HIGH = "high"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"training.optim.lr": 0.01}, "training.optim.lr: 0.01\n"),
        ({}, "{}\n"),
        ({"a": {"b": 1, "c": {"d": 2}}}, "a:\n  b: 1\n  c.d: 2\n"),
        ({"a": [{"b": {"c": 1}}, []]}, "a:\n- b.c: 1\n- []\n"),
        ({"a": {"b": {}}}, "a.b: {}\n"),
        ({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.str_("x")}, "a: 0.5\nb: 3\nc: true\nd: x\n"),
        (
            {"a": pathlib.PurePosixPath("/x/y"), "b": Level.HIGH, "c": datetime.date(2020, 1, 2)},
            "a: /x/y\nb: high\nc: 2020-01-02\n",
        ),
        ({"a": OrderedDict(z=1, y={"x": {"w": 2}})}, "a: !!omap\n- z: 1\n- y:\n    x.w: 2\n"),
        ({"a": (1, (2,)), "b": {"y", "x"}}, "a:\n- 1\n- - 2\nb:\n- x\n- y\n"),
        ({"a": "1", "b": "no", "c": "", "d": "é"}, "a: '1'\nb: 'no'\nc: ''\nd: é\n"),
        ({"a": float("inf"), "b": 1e-05, "c": None}, "a: .inf\nb: 1.0e-05\nc: null\n"),
    ],
)
def test_yaml_text(config, text, tmp_path):
    path = tmp_path / "config.yaml"
    assert ConfDict(config).to_yaml() == text
    assert ConfDict(config).to_yaml(path) == text
    assert path.read_text("utf-8") == text
    back = ConfDict.from_yaml(text)
    assert back == ConfDict.from_yaml(path) == ConfDict.from_yaml(str(path)) == ConfDict.from_yaml(io.StringIO(text))
    with path.open("rb") as opened:
        assert ConfDict.from_yaml(opened) == back
    assert back.to_yaml() == text


@pytest.mark.parametrize("text", ["", "- 1\n", "3", "hello", "null", "# only a comment\n"])
def test_yaml_that_is_no_mapping_is_a_type_error_naming_the_input(text, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    for source, shown in ((text, repr(text)), (path, str(path)), (str(path), str(path))):
        with pytest.raises(TypeError) as caught:
            ConfDict.from_yaml(source)
        assert shown in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\ta: 1", "a: !!python/object/apply:os.getcwd []", "{a: 1", "a: \x00"])
def test_text_that_is_no_yaml_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError, match="not valid yaml"):
        ConfDict.from_yaml(text)
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.yaml"):
        ConfDict.from_yaml(path)


def test_yaml_keys_obey_the_rules_of_configs(tmp_path):
    assert ConfDict.from_yaml("{}") == {}
    assert ConfDict.from_yaml("a.b: 1\na:\n  c.d: 2\n") == {"a": {"b": 1, "c": {"d": 2}}}
    with pytest.raises(TypeError, match="keys are strings"):
        ConfDict.from_yaml("1: 2")
    with pytest.raises(ValueError, match="empty segment"):
        ConfDict.from_yaml("a..b: 2")
    with pytest.raises(FileNotFoundError):
        ConfDict.from_yaml(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {}),
        (["--optim.lr=0.01", "--name=x"], {"optim": {"lr": "0.01"}, "name": "x"}),
        (["--a=b=c", "--empty=", "--list=[1, 2]", "--neg=-1"], {"a": "b=c", "empty": "", "list": "[1, 2]", "neg": "-1"}),
        (["--a=1", "--a=2"], {"a": "2"}),
        (("--a=1",), {"a": "1"}),
    ],
)
def test_arguments_stay_strings(args, expected):
    assert ConfDict.from_args(args) == expected


@pytest.mark.parametrize("args", [["a=1"], ["--a"], ["-a=1"], ["--=1"], ["--a..b=1"], ["--a=1", "b"], ["--"], [""], ["--a.=1"]])
def test_malformed_arguments_are_value_errors(args):
    with pytest.raises(ValueError, match=r"argument|segment") as caught:
        ConfDict.from_args(args)
    assert isinstance(caught.value, errors.ConfigValueError)


def test_from_model_has_its_two_switches():
    class Model(pydantic.BaseModel):
        a: int = 1
        b: int = 2
        _exclude_from_cls_uid = ("b",)

    model = Model(b=3)
    assert ConfDict.from_model(model) == {"a": 1, "b": 3}
    assert ConfDict.from_model(model, uid=True) == {"a": 1}
    assert ConfDict.from_model(model, exclude_defaults=True) == {"b": 3}
    assert ConfDict.from_model(model, uid=True, exclude_defaults=True) == {}
    assert type(ConfDict.from_model(model)) is ConfDict


def test_it_is_a_dictionary():
    config = ConfDict({"a.b": 1, "c": 2})
    assert isinstance(config, dict)
    assert (list(config), len(config), bool(ConfDict())) == (["a", "c"], 2, False)
    assert {**config} == {"a": {"b": 1}, "c": 2}
    assert repr(config) == "{'a': {'b': 1}, 'c': 2}"
    assert ConfDict.fromkeys(["a.b", "c"], 1) == {"a": {"b": 1}, "c": 1}
    config.clear()
    assert config == {}
    assert exca_like.ConfDict is exca_like.confdict.ConfDict
