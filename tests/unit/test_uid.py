"""The uid scheme, pinned: a change of one of these texts is a change of the scheme, and loses every cache."""

import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import math
import pathlib
import re
import subprocess
import sys
import uuid
from collections import OrderedDict

import numpy as np
import pytest

from exca_like import ConfDict, errors


class Level(enum.Enum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: list[float]


EXACT = [
    ({"param1": 13}, "param1=13-c51ce410"),
    ({"training.optim.lr": 0.01}, "training.optim.lr=0.01-346ce994"),
    ({"a": {"b": {"c": 1}, "d": 2}}, "a={d=2,b.c=1}-3bfeaa70"),
    ({"bb": 1, "a": 2, "b_": 3}, "a=2,b_=3,bb=1-894d3443"),
    ({"a": [{"b": {"c": 1}}, {"b": 1, "c": "x"}]}, "a=({b.c=1},{b=1,c=x})-7a772f91"),
    ({"a": True, "b": None, "c": False}, "a=True,b=None,c=False-92760284"),
    ({"a": -12, "b": 10**30}, "a=-12,b=1000000000000000000000000000000-77eb94e5"),
    ({"a": 1.0, "b": -0.0, "c": 1e22}, "a=1,b=0,c=10000000000000000000000-309e1e12"),
    ({"a": 0.125, "b": -1e-05, "c": 1.5e-300}, "a=0.125,b=-1e-05,c=1.5e-300-870f6a36"),
    ({"a": "hello", "b": "v1.0+x-y", "c": "Upper_Case"}, "a=hello,b=v1.0+x-y,c=Upper_Case-37aa19a3"),
    ({"a": [], "b": {}, "c": {"d": {}}, "e": ((), {})}, "a=(),b={},c.d={},e=((),{})-d41d8cd9"),
    ({"a": (1, (2, [3]))}, "a=(1,(2,(3)))-55b84a9d"),
    ({"a": np.float64(0.5), "b": np.int8(3), "c": np.bool_(True), "d": np.str_("x")}, "b=3,d=x,a=0.5,c=True-b9bee39e"),
    ({"a": pathlib.PurePosixPath("x.y")}, "a=x.y-b2d4cd28"),
    ({"a": math.inf}, "a=inf-819cf130"),
    ({"a": -math.inf}, "a=-inf-022c63c2"),
    ({"a": "x" * 126}, "a=" + "x" * 126 + "-8dd415f6"),
    ({"a": 10**125}, "a=1" + "0" * 125 + "-92fa6641"),
]

INEXACT = [
    ({}, ""),
    ({"a": 0.123456789}, "a=1.23e-01-ab88fd3535534d7a"),
    ({"a": 1.00000001e-07}, "a=1.00e-07-9429bca1b477b149"),
    ({"a": math.nan}, "a=nan-0fa97747bd049495"),
    ({"a": ""}, "a=-0a7b25d4cf96b1a9"),
    ({"a": "1"}, "a=1-10a4a918b0790fda"),
    ({"a": "None"}, "a=None-b847cc8dcb923943"),
    ({"a": "nan"}, "a=nan-f667332add795b89"),
    ({"a": "Off"}, "a=Off-e82703f453ff22c7"),
    ({"a": "é b/c:d"}, "a=bcd-78053123091235cd"),
    ({"a": "a,b=1"}, "a=a,b=1-721a092802e6994d"),
    ({"A": 1}, "A=1-bc6bc69f1d6d6c43"),
    ({"a b": 1}, "ab=1-a95f6ec7aadcb196"),
    ({"1a": 1}, "1a=1-7ecc55c8f6082402"),
    ({"é": {"b": 1}}, "b=1-012f3a0c8f30e9c8"),
    ({"a": OrderedDict(b=1, a=2)}, "a={b=1,a=2}-a1b63037c75e85b1"),
    ({"a": OrderedDict(b={"x": {"y": 1}})}, "a={b={x.y=1}}-6bc47bff7d3d2cfa"),
    ({"a": {"b": OrderedDict()}}, "a.b={}-6d8aa224b74adc1f"),
    ({"a": {"b", "a"}}, "a=(a,b)-8f824bfb0349b697"),
    ({"a": frozenset({1, None})}, "a=(1,None)-8d7383e6bed0c428"),
    ({"a": set()}, "a=()-06b372d982437aa1"),
    ({"a": np.arange(3, dtype=np.int64)}, "a=int64-3-554c323903a06d8c"),
    ({"a": np.arange(3, dtype=np.float32).reshape(1, 3)}, "a=float32-1x3-33b0aa4812557581"),
    ({"a": b"xyz"}, "a=bytes-281679f039ca053d"),
    ({"a": datetime.date(2020, 1, 2)}, "a=2020-01-02-c2fcab50b703d078"),
    ({"a": datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.UTC)}, "a=2020-01-02T030405.000006+0000-6d8911d2a6d9e636"),
    ({"a": datetime.time(1, 2)}, "a=010200-b62c9acdf5c05d8f"),
    ({"a": datetime.timedelta(hours=1)}, "a=3600s-1d2c61bfd08ff373"),
    ({"a": decimal.Decimal("1.50")}, "a=1.5-23d4e2ababdb9aaf"),
    ({"a": fractions.Fraction(1, 3)}, "a=13-2bd7081f8d9176df"),
    ({"a": uuid.UUID(int=1)}, "a=00000000-0000-0000-0000-000000000001-8891f67ea37c6f22"),
    ({"a": 1 + 2j}, "a=(1+2j)-f11a5b870dd1682b"),
    ({"a": Level.HIGH}, "a=Level.HIGH-6be4baa487a0b60a"),
    ({"a": Point(1, [2.0])}, "a=Point-eecd6b3ec3e63998"),
    ({"a": math.sqrt}, "a=sqrt-0363d0e21661f68c"),
    ({"a": dict}, "a=dict-7dd36d098b091e93"),
    ({"a": "x" * 127}, "a=" + "x" * 123 + "...-c40f74976bd471fd"),
    ({"a": 10**126}, "a=1" + "0" * 122 + "...-c18ea7eae78ab2fb"),
    (
        {"a": 10**5000},
        "a=31e20801036510f3c591fde5361dc619987896700f4451e1c85ce19029146ae88803ffabbeab14ba3f3e0ad3674348e2a33e76dc901f3ed3e1dc0e11289...-9043a4893847cfc0",
    ),
]


@pytest.mark.parametrize(("config", "uid"), EXACT)
def test_exact_configs_have_their_pinned_uid(config, uid):
    assert ConfDict(config).to_uid() == uid
    assert re.fullmatch(r".{1,128}-[0-9a-f]{8}", uid)


@pytest.mark.parametrize(("config", "uid"), INEXACT)
def test_other_configs_have_their_pinned_uid(config, uid):
    assert ConfDict(config).to_uid() == uid
    assert uid == "" or re.fullmatch(r".{0,128}-[0-9a-f]{16}", uid)


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("config", "leaves"),
    [
        ({"a": 1, "b": {"c": "x", "d": [None, True]}}, "1,x,None,True"),
        ({"a": 0.5}, str(hash(0.5))),
        ({"a": [0.5, 2.0, -3]}, f"{hash(0.5)},2,-3"),
        ({"a": {}, "b": 1, "c": []}, "1"),
        ({"a": []}, ""),
        ({"bb": "late", "a": "early"}, "early,late"),
    ],
)
def test_digest_of_an_exact_config_is_the_md5_of_its_leaf_hashes_in_text_order(config, leaves):
    assert ConfDict(config).to_uid().endswith(f"-{md5(leaves)}")


def test_hash_of_a_float_is_cpythons_64_bit_one():
    assert hash(0.01) == 23058430092136940  # what a 64-bit CPython gives, and the digests above rely on
    assert hash(-0.5) == -(2**60)


@pytest.mark.parametrize("key", ["A", "aB", "a b", "1", "1a", "a-b", "a+b", "a=b", "a,b", "é", "", "{", "a\n", "a\u0660"])
def test_a_key_with_other_characters_is_not_exact(key):
    for config in ({key: 1}, {"a": {key: 1}}, {key: {"a": 1}}, {"x": [{key: 1}]}):
        assert re.search(r"-[0-9a-f]{16}$", ConfDict(config).to_uid())


WORDS = "None null true false yes no on off nan inf".split()


@pytest.mark.parametrize(
    "value",
    [
        *WORDS,
        *map(str.upper, WORDS),
        *map(str.title, WORDS),
        "",
        "1",
        "-a",
        ".a",
        "+a",
        "a b",
        "a,b",
        "a=b",
        "(a)",
        "a\n",
        "é",
        "x\u0661",
    ],
)
def test_a_string_that_can_be_read_otherwise_is_not_exact(value):
    for config in ({"a": value}, {"a": [value]}, {"a": {"b": value, "c": 1}}):
        assert re.search(r"-[0-9a-f]{16}$", ConfDict(config).to_uid())


@pytest.mark.parametrize("value", ["a", "_", "A1", "none_", "a.b", "a+b", "a-b", "y", "n", "infinity", "x1e5", "Z"])
def test_other_words_are_exact(value):
    assert ConfDict({"a": value}).to_uid() == f"a={value}-{md5(value)}"


@pytest.mark.parametrize(
    ("value", "text", "exact"),
    [
        (0.1, "0.1", True),
        (1e-05, "1e-05", True),
        (1.5e-10, "1.5e-10", True),
        (-123.456, "-123.456", True),  # 8 characters
        (-1234.567, "-1.23e+03", False),
        (0.123456, "0.123456", True),
        (0.1234567, "1.23e-01", False),
        (1.2e-100, "1.2e-100", True),
        (-1.2e-100, "-1.20e-100", True),  # nothing was lost
        (-1.234e-100, "-1.23e-100", False),
        (1e22, "1" + "0" * 22, True),
        (2.0**53, str(2**53), True),
        (math.inf, "inf", True),
        (-math.inf, "-inf", True),
        (math.nan, "nan", False),
    ],
)
def test_floats_are_short_and_exact_when_nothing_is_lost(value, text, exact):
    shown, _, digest = ConfDict({"a": value}).to_uid().rpartition("-")
    assert (shown, len(digest)) == (f"a={text}", 8 if exact else 16)


def test_each_level_is_sorted_by_length_then_text():
    config = {"ccc": 1, "b": {"z": 1, "yy": 1, "a": 1}, "a": 100, "d": 1, "aa": 1}
    assert ConfDict(config).to_uid().startswith("d=1,aa=1,a=100,ccc=1,b={a=1,z=1,yy=1}-")
    # keys that read the same are told apart by the raw key
    assert ConfDict({"aé": 1, "a": 1, "éa": 1}).to_uid() == ConfDict({"éa": 1, "aé": 1, "a": 1}).to_uid()
    assert ConfDict({"aé": 1, "aü": 2}).to_uid() != ConfDict({"aé": 2, "aü": 1}).to_uid()


def test_chains_of_single_keys_are_joined_but_not_through_an_ordered_dict():
    config = {"a": {"b": {"c": {"x": 1, "y": {"z": {"w": 2}}}}}, "l": [{"b": {"c": 1}}, ({"d": {"e": 2}},)]}
    assert ConfDict(config).to_uid().startswith("a.b.c={x=1,y.z.w=2},l=({b.c=1},({d.e=2}))-")
    assert ConfDict({"a": {"b": OrderedDict(c={"d": 1})}}).to_uid().startswith("a.b={c={d=1}}-")


@pytest.mark.parametrize(
    "values",
    [
        (1, 1.0, np.int64(1), np.float32(1), np.uint8(1)),
        (0, -0.0, 0.0, np.float64(-0.0)),
        (0.5, np.float16(0.5), np.float64(0.5)),
        (True, np.bool_(True)),
        (math.nan, -math.nan, np.float32("nan"), math.inf - math.inf),
        ("a b", np.str_("a b"), pathlib.PurePosixPath("a b"), pathlib.PureWindowsPath("a b")),
        ([1, "é"], (1, "é"), [1.0, "é"]),
        ({"a", "é"}, {"é", "a"}, frozenset({"a", "é"})),
        ({math.nan}, {math.nan, float("nan")}),
        ({"é": 1, "b": 2}, {"b": 2, "é": 1}),
        (10**22, 1e22),
        (b"ab", bytearray(b"ab")),
        (decimal.Decimal("1.5"), decimal.Decimal("1.50"), decimal.Decimal("15e-1")),
        (decimal.Decimal("-0"), decimal.Decimal("0.00"), decimal.Decimal("0e5")),
        (decimal.Decimal("nan"), decimal.Decimal("-nan"), decimal.Decimal("snan")),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(12).reshape(2, 6)[:, ::2] // 2),
        (np.array([1, 2], "<i4"), np.array([1, 2], ">i4")),
        (0.5j, complex(-0.0, 0.5)),
    ],
)
def test_values_with_one_normal_form_have_one_uid(values):
    assert len({ConfDict({"a": value}).to_uid() for value in values}) == 1


@pytest.mark.parametrize(
    "values",
    [
        (1, "1", True, [1], {"a": 1}, (1, 1), {1}, np.array(1), np.array([1]), b"1", decimal.Decimal(1), 1 + 0.5j, "1.0", OrderedDict(a=1)),
        (None, "None", "none", "null", {}, [], "", set(), OrderedDict(), b"", "()", "{}", 0, False),
        (True, "True", "true", 1, [True]),
        (math.nan, "nan", math.inf, -math.inf, "inf", None, decimal.Decimal("nan")),
        ("a", "A", ["a"], {"a"}, b"a", "a ", " a", "a\n", "á", "a\u0301", "\u0430"),  # the last is cyrillic
        ([1, [2, 3]], [[1, 2], 3], [1, 2, 3], [[1, 2, 3]], "(1,(2,3))"),
        ({"b": 1, "c": 2}, OrderedDict(b=1, c=2), OrderedDict(c=2, b=1), [{"b": 1}, {"c": 2}], "{b=1,c=2}"),
        ({"b": {"c": 1}}, {"b": OrderedDict(c=1)}, OrderedDict(b={"c": 1}), {"b": [{"c": 1}]}, "b.c=1"),
        (0.1, 0.1 + 1e-16, 0.1 + 1e-12, np.float32(0.1), "0.1", decimal.Decimal("0.1"), fractions.Fraction(1, 10)),
        (2**53, 2**53 + 1, 10**400, 10**400 + 1, float(2**53) + 2),
        (np.zeros(2), np.zeros(2, np.int64), np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros((1, 2)), -np.zeros(2), np.zeros(3), [0, 0]),
        (np.zeros(0), np.zeros((0, 2)), np.zeros((2, 0)), [], np.zeros(0, object), np.zeros((), object)),
        (np.arange(10_000), np.concatenate([np.arange(5_000), [0], np.arange(5_001, 10_000)])),
        (datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), "2020-01-01"),
        (Level.HIGH, 3, "HIGH", "Level.HIGH"),
        (int, "int", "builtins.int", float, len),
        ("x" * 126, "x" * 127, "x" * 128, "x" * 1000, "x" * 999 + "y"),
        ([{"a", "b"}], [["a", "b"]], ["a", "b"], {("a", "b")}),
    ],
)  # fmt: skip
def test_values_that_differ_have_different_uids_also_without_case(values):
    assert len({ConfDict({"a": value}).to_uid().lower() for value in values}) == len(values)


@pytest.mark.parametrize(
    "configs",
    [
        [{"a": 1, "b": 2}, {"a": 2, "b": 1}],
        [{"a": 1}, {"A": 1}, {"a ": 1}, {"á": 1}, {"": 1}, {"a": {"": 1}}],
        [{"a": "x,b=1"}, {"a": "x", "b": 1}],
        [{"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "c": 2}}],
        [{"a": "X", "b": "y"}, {"a": "x", "b": "Y"}, {"a": "x", "b": "y"}],
        [{"a": []}, {"a": {}}, {"b": []}],
    ],
)
def test_configs_that_differ_have_different_uids(configs):
    assert len({ConfDict(config).to_uid().lower() for config in configs}) == len(configs)


@pytest.mark.parametrize("character", [chr(code) for code in range(128)] + ["é", "\u202e", "\ud800", "\U0001f389"])
def test_no_character_that_a_file_system_dislikes_is_left(character):
    for config in (
        {"k": f"{character}x{character}"},
        {f"{character}k".replace(".", ""): 1},
        {"k": {f"a{character}".replace(".", ""): [character]}},
    ):
        uid = ConfDict(config).to_uid()
        assert re.fullmatch(r"[A-Za-z0-9_.,=+(){}-]+", uid)
        assert not uid.startswith((".", "-"))


def test_a_long_text_is_cut_with_a_mark():
    uid = ConfDict({f"key{number}": number for number in range(100)}).to_uid()
    text, _, digest = uid.rpartition("-")
    assert len(text) == 128
    assert text.endswith("...")
    assert len(digest) == 16
    assert ConfDict({"a": 10**5000}).to_uid() != ConfDict({"a": 10**5000 + 1}).to_uid()


@pytest.mark.parametrize("op", ["=replace=", "=delete=", "=before=", "=after=", "=unknown="])
@pytest.mark.parametrize("version", [2, 3, 4])
def test_unresolved_operators_have_no_uid(op, version):
    for config in ({"a": {op: True}}, {op: True, "b": 1}, {"a": [{"b": {op: "c"}}]}, {"a": ({op: True},)}):
        with pytest.raises(ValueError, match=op):
            ConfDict(config).to_uid(version=version)
    if op != "=unknown=":
        with pytest.raises(ValueError, match=r"at a\.0"):
            ConfDict({"a": [op]}).to_uid(version=version)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"a": {"b": lambda: 1}}, "a.b"),
        ({"a": [1, {"b": object()}]}, "a.1.b"),
        ({"a": {"b": Point(1, [object()])}}, "a.b.y.0"),
        ({"a": OrderedDict(b=(object(),))}, "a.b.0"),
        ({"a": {object()}}, "a"),
        ({"a": np.array([1, object()], dtype=object)}, "a.1"),
        ({"a": {"b": {"c": iter(())}}, "d": 1}, "a.b.c"),
    ],
)
def test_a_value_without_identity_raises_and_names_its_dotted_key(config, where):
    with pytest.raises(TypeError, match=rf"^{re.escape(where)}: .*Give it an identity") as caught:
        ConfDict(config).to_uid()
    assert isinstance(caught.value, errors.ConfigTypeError)


@pytest.mark.parametrize("order", [OrderedDict, dict])
def test_order_of_a_plain_dict_is_free_and_of_an_ordered_one_counts(order):
    there, back = order(b=1, a=2), order(a=2, b=1)
    same = ConfDict({"x": there}).to_uid() == ConfDict({"x": back}).to_uid()
    assert same is (order is dict)
    assert ConfDict(there).to_uid() == ConfDict(back).to_uid()  # the outermost one is a plain dict


def test_versions_2_and_3_are_those_of_exca():
    assert ConfDict({"param1": 13}).to_uid(version=3) == "param1=13-4c541560"
    assert hashlib.md5(b"dict:{param1=int:13}").hexdigest().startswith("4c541560")
    assert ConfDict({"training.optim.lr": 0.01}).to_uid(version=2) == "training.optim.lr=0.01-346ce994"
    for version in (0, 1, 5, "4"):
        with pytest.raises(ValueError, match="unknown uid version"):
            ConfDict({"a": 1}).to_uid(version=version)


def test_the_version_can_be_set_for_a_process(monkeypatch):
    assert ConfDict.UID_VERSION == ConfDict.LATEST_UID_VERSION == 4
    monkeypatch.setattr(ConfDict, "UID_VERSION", 3)
    assert ConfDict({"param1": 13}).to_uid() == "param1=13-4c541560"
    monkeypatch.setenv("CONFDICT_UID_VERSION", "2")
    code = "from exca_like import ConfDict; print(ConfDict.UID_VERSION, ConfDict({'a': 1.5}).to_uid() == ConfDict({'a': 1.5}).to_uid(version=2))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "2 True\n"
