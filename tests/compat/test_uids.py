"""Uids of exca: fixed examples obtained from exca 0.6.0, then comparisons with exca if installed"""

import random
import sys
import types
import typing as tp
import warnings
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath

import pytest

from exca_like.compat.uids import legacy_uid

Uids = tuple[dict[str, tp.Any], str, str]

# (config, uid in scheme 3, uid in scheme 2)
EXAMPLES: list[Uids] = [
    ({}, "", ""),
    ({"param1": 13}, "param1=13-4c541560", "param1=13-c51ce410"),
    (
        {"training.optim.lr": 0.01},
        "training.optim.lr=0.01-0f8936b4",
        "training.optim.lr=0.01-346ce994",
    ),
    ({"a": {"b": {"c": 1}}}, "a.b.c=1-b91e3f25", "a.b.c=1-c4ca4238"),
    ({"a": {"b": {"c": 1}, "d": 2}}, "a={d=2,b.c=1}-fd67132d", "a={b.c=1,d=2}-05cf281c"),
    ({"bb": 1, "a": 2, "B": 3}, "B=3,a=2,bb=1-af837eb3", "B=3,a=2,bb=1-62cd2792"),
    (
        {"a": {"x": 1, "y": 2, "zzzz": 3}, "bb": 1},
        "bb=1,a={x=1,y=2,zzzz=3}-a933e8f6",
        "a={x=1,y=2,zzzz=3},bb=1-b1ed6c50",
    ),
    ({"x": True}, "x=True-ee7f3482", "x=True-f827cf46"),
    ({"x": False}, "x=False-bb40809f", "x=False-f8320b26"),
    ({"x": None}, "x=None-84f0a62f", "x=None-6adf97f8"),
    ({"x": -12}, "x=-12-a2d1f450", "x=-12-29fe3cef"),
    ({"x": 10**30}, "x=1" + "0" * 30 + "-d17a03d2", "x=1" + "0" * 30 + "-8c4e3e05"),
    (
        {"x": 10**200},
        "x=1" + "0" * 125 + "...7-e0dad25f",
        "x=1" + "0" * 34 + "[.]" + "0" * 35 + "-dda00012",
    ),
    ({"x": 2.0}, "x=2-b85ad11f", "x=2-c81e728d"),
    ({"x": -0.0}, "x=0-dba1dd64", "x=0-cfcd2084"),
    ({"x": 1e22}, "x=10000000000000000000000-20e453df", "x=10000000000000000000000-f316ada9"),
    ({"x": 0.125}, "x=0.12-61908405", "x=0.12-6aa2f640"),
    ({"x": -3.14159}, "x=-3.14-35527d23", "x=-3.14-58ae0fd5"),
    ({"x": 0.001}, "x=0.00-6030b56b", "x=0.00-06bc520f"),
    ({"x": 0.00099999}, "x=1.00e-03-353043cc", "x=1.00e-03-8b11602f"),
    ({"x": 9999.999}, "x=10000.00-8d5efeef", "x=10000.00-78c9058b"),
    ({"x": 1e5 + 0.5}, "x=1.00e05-40aedd0c", "x=1.00e05-4d7988d3"),
    ({"x": -123456.789}, "x=-1.23e05-29907a64", "x=-1.23e05-92550521"),
    (
        {"x": 1e300},
        "x=100000000000000005250476025520442024870446858110815915491585411551180245798890"
        "819578637137508044786404370444383288387817694252...8-029d07f3",
        "x=10000000000000000525047602552044202[.]42838115669472196386865459400540160-178f" + "9dfe",
    ),
    ({"x": 1e-300}, "x=1.00e-300-40a67730", "x=1.00e-300-9e24699f"),
    ({"x": float("inf")}, "x=inf-ba65b217", "x=inf-819cf130"),
    ({"x": -float("inf")}, "x=-inf-d26f2d58", "x=-inf-022c63c2"),
    ({"x": Decimal(2)}, "x=2.00-c003fb3b", "x=2.00-c81e728d"),
    ({"x": Fraction(1, 3)}, "x=0.33-481a6ff9", "x=0.33-be5977da"),
    ({"x": ""}, "x=-edc59905", "x=-d41d8cd9"),
    ({"x": "1"}, "x=1-0c48d7e1", "x=1-c4ca4238"),
    ({"x": "1.0"}, "x=1.0-b14a332e", "x=1.0-e4c2e8ed"),
    ({"x": "None"}, "x=None-77d28db0", "x=None-6adf97f8"),
    (
        {"x": "hello world, yes/no"},
        "x=hello-world,-yes-no-ab5af605",
        "x=hello-world,-yes-no-52eea302",
    ),
    ({"x": "a_b-c.d=e"}, "x=a_b-c.d=e-717ec10c", "x=ab-c.d=e-d3c08a06"),
    (
        {"x": "(a)[b]{c}<d>:;'\"!\\e\tf\ng\rh"},
        "x=(a)b{c}d-e-f-gh-d1688c60",
        "x=a[b]{c}d-e-f-gh-f12b078f",
    ),
    ({"x": "déjà vu 日本"}, "x=dj-vu--1bd870fd", "x=dj-vu--52f37308"),
    (
        {"x": Path("/some dir/sub_dir/file.txt")},
        "x=-some-dir-sub_dir-file.txt-8c97ceed",
        "x=-some-dir-subdir-file.txt-f2d8fec8",
    ),
    ({"x": []}, "x=()-b271229d", "x=[]-d41d8cd9"),
    ({"x": {}}, "x={}-fd4214d2", "x={}-d41d8cd9"),
    ({"x": {"y": {}}}, "x.y={}-77c7e5ed", "x.y={}-d41d8cd9"),
    ({"x": [1, 2]}, "x=(1,2)-cb6a0437", "x=[1,2]-05cf281c"),
    ({"x": (1, 2)}, "x=(1,2)-cb6a0437", "x=[1,2]-05cf281c"),
    (
        {"x": [[1, [2, 3]], [], [[]], {}, None, True, 1.5, "a b"]},
        "x=((1,(2,3)),(),(()),{},None,True,1.50,a-b)-d022b78a",
        "x=[[1,[2,3]],[],[[]],{},None,True,1.50,a-b]-a99f3179",
    ),
    ({"x": [1, 2, {"b": 3}]}, "x=(1,2,{b=3})-e45cc3db", "x=[1,2,{b=3}]-55b84a9d"),
    (
        {"x": [{"b": {"c": 1}}, {"b": {"c": 1, "d": 2}}]},
        "x=({b.c=1},{b={c=1,d=2}})-9159ceeb",
        "x=[{b.c=1},{b={c=1,d=2}}]-c51d237c",
    ),
    (
        {"x": ({"b": {"c": 1}}, [{"b": {"c": 1}}])},
        "x=({b={c=1}},({b={c=1}}))-bfce1547",
        "x=[{b={c=1}},[{b={c=1}}]]-157bbeed",
    ),
    ({"x": set()}, "x=()-b271229d", "x=[]-d41d8cd9"),
    ({"x": {"b", "a", "B"}}, "x=(B,a,b)-cc9c0eb4", "x=[B,a,b]-f85c49a9"),
    (
        {"x": {100, 9, 10, None, 2.5, "z"}},
        "x=(10,100,2.50,9,None,z)-a509d159",
        "x=[10,100,2.50,9,None,z]-ea39b7dd",
    ),
    ({"x": [{(1, 2), (1, 1)}]}, "x=(((1,1),(1,2)))-69999b6a", "x=[[[1,1],[1,2]]]-9201e315"),
    ({"x": OrderedDict()}, "x={}-fd4214d2", "x={}-d41d8cd9"),
    ({"x": OrderedDict(b=1)}, "x={b=1}-a95732ed", "x={b=1}-c4ca4238"),
    ({"x": OrderedDict(b=1, a=2)}, "x={b=1,a=2}-1aecb9cd", "x={a=2,b=1}-3bfeaa70"),
    (
        {"x": [OrderedDict(b=1, a=2), {"b": 1, "a": 2}]},
        "x=({b=1,a=2},{a=2,b=1})-cd8f7f8b",
        "x=[{a=2,b=1},{a=2,b=1}]-95dc3cad",
    ),
    (
        {"x": OrderedDict(b={"y": 1, "a": 2}, a={"c": 1})},
        "x={b={a=2,y=1},a.c=1}-b4fa02e4",
        "x={a.c=1,b={a=2,y=1}}-830202b9",
    ),
    ({"x": (OrderedDict(b={"c": 1}),)}, "x=({b={c=1}})-557266c3", "x=[{b={c=1}}]-c4ca4238"),
    (OrderedDict(bb=1, a=2), "a=2,bb=1-c62d49fc", "a=2,bb=1-3bfeaa70"),
    ({"x": OrderedDict({"b.c": 1, "a": 2})}, "x={b.c=1,a=2}-a98e9440", "x={a=2,b.c=1}-3bfeaa70"),
    ({"a_b": 1, "ab": 2, "a_": 3}, "a_=3,ab=2,a_b=1-169406c9", "a=3,ab=1,ab=2-4020964e"),
    (
        {"a b": 1, "c/d": 2, "e:f": 3, "g(h": 4, "i[j": 5, "é": 6, "": 7},
        "=7,=6,a-b=1,c-d=2,ef=3,g(h=4,ij=5-42a9c53b",
        "=7,a-b=1,c-d=2,ef=3,gh=4,i[j=5,=6-30d603bb",
    ),
    ({"é" * 5: 1, "ee": 1, "bbb": 12}, "ee=1,bbb=12,=1-87b2a559", "bbb=12,ee=1,=1-9b6e8348"),
    ({"a": {"z": 1}, "a!": 2}, "a=2,a.z=1-53911187", "a=2,a.z=1-3bfeaa70"),
    ({"x": "y" * 78}, "x=" + "y" * 78 + "-4cd481a9", "x=" + "y" * 78 + "-97d0659d"),
    (
        {"x": "y" * 79},
        "x=" + "y" * 79 + "-6ff537b6",
        "x=" + "y" * 32 + "[.]" + "y" * 34 + "-fe463287",
    ),
    (
        {"x": "y" * 82},
        "x=" + "y" * 82 + "-36335e97",
        "x=" + "y" * 32 + "[.]" + "y" * 34 + "-ab6ccfe2",
    ),
    (
        {"x": "y" * 83},
        "x=" + "y" * 83 + "-1c17ee64",
        "x=" + "y" * 35 + "[.]" + "y" * 35 + "-24e54b2f",
    ),
    (
        {"x": "y" * 126},
        "x=" + "y" * 126 + "-87202ede",
        "x=" + "y" * 35 + "[.]" + "y" * 35 + "-0c190bec",
    ),
    (
        {"x": "y" * 127},
        "x=" + "y" * 126 + "...1-4c46153d",
        "x=" + "y" * 35 + "[.]" + "y" * 35 + "-a2252efa",
    ),
    (
        {"x": "y" * 128},
        "x=" + "y" * 126 + "...2-8aa3c3d6",
        "x=" + "y" * 35 + "[.]" + "y" * 35 + "-d5d67553",
    ),
    (
        {"x": "y" * 129},
        "x=" + "y" * 126 + "...6-9f5f9e10",
        "x=" + "y" * 35 + "[.]" + "y" * 35 + "-9271a3a3",
    ),
    ({"x": "é" * 300 + "_" * 100}, "x=" + "_" * 100 + "-62b01918", "x=-3bb57861"),
    ({"x" * 200: 1}, "x" * 128 + "...74-1ad2c128", "x" * 34 + "[.]" + "x" * 32 + "=1-c4ca4238"),
    (
        {"x": list(range(100)), "b": 2},
        "b=2,x=(0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27"
        ",28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43...14-66607971",
        "b=2,x=[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14[.]8,89,90,91,92,93,94,95,96,97,98,99]-374f299b",
    ),
    (
        {"x": {"b": list(range(100)), "c": "z" * 100}},
        "x={c=" + "z" * 100 + ",b=(0,1,2,3,4,5,6,7,8,9...10-24174c34",
        "x={b=[0,1,2,3,4,5,6,7,8,9,10,11,12,13[.]" + "z" * 34 + "}-b36bc318",
    ),
    (
        {"x": [["y" * 127], ["z" * 128]]},
        "x=((" + "y" * 124 + "...10-fceb2e0c",
        "x=[[" + "y" * 33 + "[.]" + "z" * 33 + "]]-7ed2a77d",
    ),
    (
        {"x": [{"b": "y" * 77}, {"c": "z" * 78}]},
        "x=({b=" + "y" * 77 + "},{c=" + "z" * 40 + "...9-66b23aaf",
        "x=[{b=" + "y" * 31 + "[.]" + "z" * 33 + "}]-c6801d76",
    ),
    (
        {f"k{i}": i for i in range(300)},
        "k0=0,k1=1,k2=2,k3=3,k4=4,k5=5,k6=6,k7=7,k8=8,k9=9,k10=10,k11=11,k12=12,k13=13,k1"
        "4=14,k15=15,k16=16,k17=17,k18=18,k19=19,k20=20,k...2351-74d2118b",
        "k0=0,k1=1,k10=10,k100=100,k101=101[.]k95=95,k96=96,k97=97,k98=98,k99=99-819fe30f",
    ),
]


def numpy_examples() -> list[Uids]:
    np = pytest.importorskip("numpy")
    return [
        (
            {"x": np.int64(3), "y": np.int32(4), "z": np.float64(0.5), "t": np.float32(2.0)},
            "t=2,x=3,y=4,z=0.50-7d741683",
            "t=2,x=3,y=4,z=0.50-1e0e4393",
        ),
        ({"x": np.str_("a b")}, "x=a-b-8109bb28", "x=a-b-0cc9cd4d"),
        (
            {"x": [np.array([1, 2], dtype="i8")]},
            "x=(data-2-ca57733a)-027515df",
            "x=[data-ca57733a]-3f9f3ac4",
        ),
        (
            {"x": [np.array([1, 2], dtype="f4"), np.zeros((2, 3)), np.zeros((0, 2))]},
            "x=(data-2-057a7f5a,data-2,3-b203621a,data-0,2-d41d8cd9)-932c3c98",
            "x=[data-057a7f5a,data-b203621a,data-d41d8cd9]-8afb85c3",
        ),
        (
            {"x": [np.array(3, dtype="i8"), np.array(["ab", "c"])]},
            "x=(data-1-7d2d5fca,data-2-c7c00ccb)-1d815eac",
            "x=[data-7d2d5fca,data-c7c00ccb]-8bb6bf0e",
        ),
        (
            {"x": [np.arange(6, dtype="i4").reshape(2, 3).T]},
            "x=(data-3,2-37b11c12)-8cd1b3dd",
            "x=[data-37b11c12]-804f5bf5",
        ),
    ]


@pytest.mark.parametrize("config,uid3,uid2", EXAMPLES)
def test_examples(config: dict[str, tp.Any], uid3: str, uid2: str) -> None:
    assert legacy_uid(config, 3) == uid3
    assert legacy_uid(config, 2) == uid2


def test_numpy_examples() -> None:
    for config, uid3, uid2 in numpy_examples():
        assert legacy_uid(config, 3) == uid3
        assert legacy_uid(config, 2) == uid2


def test_examples_are_those_of_exca() -> None:
    exca = pytest.importorskip("exca")
    for config, uid3, uid2 in EXAMPLES + numpy_examples():
        assert exca_uid(exca.ConfDict(config), 3) == uid3
        assert exca_uid(exca.ConfDict(config), 2) == uid2


def test_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    assert legacy_uid({"x": [1, 2.0, 0.5, None, "a"]}, 3) == "x=(1,2,0.50,None,a)-47988f1e"
    assert "numpy" not in sys.modules


def test_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")

    class Tensor:
        """Stand-in for a tensor: exca accepts it as well"""

        def detach(self) -> "Tensor":
            return self

        cpu = detach

        def numpy(self) -> tp.Any:
            return np.array([1, 2], dtype="i8")

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(Tensor=Tensor))
    assert legacy_uid({"x": [Tensor()]}, 3) == "x=(data-2-ca57733a)-027515df"
    assert legacy_uid({"x": [Tensor()]}, 2) == "x=[data-ca57733a]-3f9f3ac4"


def test_same_nan() -> None:
    exca = pytest.importorskip("exca")
    config = exca.ConfDict({"x": [float("nan"), Decimal("nan")]})
    for version in (2, 3):
        assert legacy_uid(config, version) == exca_uid(config, version)


UNSUPPORTED = [b"a", bytearray(b"a"), 1j, frozenset([1]), PurePosixPath("a"), int, len, object()]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("value", UNSUPPORTED, ids=lambda val: type(val).__name__)
def test_unsupported_types(value: tp.Any, version: int) -> None:
    for config in ({"x": value}, {"x": [{"y": value}]}):
        with pytest.raises(TypeError, match=type(value).__name__):
            legacy_uid(config, version)


@pytest.mark.parametrize("version", [2, 3])
def test_unsupported_numpy_types(version: int) -> None:
    np = pytest.importorskip("numpy")
    unsupported = [np.float32(1.5), np.float16(2), np.longdouble(2), np.int8(3), np.uint64(3)]
    for value in [*unsupported, np.bool_(True), np.complex64(1), np.datetime64("2020-01-01")]:
        with pytest.raises(TypeError, match=type(value).__name__):
            legacy_uid({"x": value}, version)


@pytest.mark.parametrize("config", [{1: 2}, {"x": {1: 2}}, {"x": [{1: 2, 3: 4}]}, {"x": ({1: 2},)}])
def test_unsupported_keys(config: tp.Any) -> None:
    with pytest.raises(TypeError, match="int"):
        legacy_uid(config, 3)


def test_unknown_version() -> None:
    with pytest.raises(ValueError, match="1"):
        legacy_uid({"x": 1}, 1)


# comparison with exca on random configurations


def exca_uid(config: tp.Any, version: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(config.to_uid(version=version))


class Generator:
    """Random configurations with all supported types of values"""

    nan = float("nan")  # digested through its address: needs to be always the same
    floats = [0.0, -0.0, nan, float("inf"), -float("inf"), 1e300, 1e-300, 1e16, 0.001, 0.00099]
    floats += [1e4, 10000.5, 9999.9999, 0.125, 0.005, -1e-3, 1e5 + 0.5, 123456.789]
    words = ["", "a", "ab", "a_b", "a:b", "None", "True", "1", "1.0", "nan", "{a=1}", "déjà vu"]
    letters = "abcXYZ_019 /\\:.,-(){}[]é日'\"!\t\n~"

    def __init__(self, seed: int) -> None:
        self.np = pytest.importorskip("numpy")
        self.rand = random.Random(seed)

    def several(self, func: tp.Callable[..., tp.Any], *args: tp.Any) -> list[tp.Any]:
        return [func(*args) for _ in range(self.rand.choice([0, 1, 1, 2, 3, 4, 5]))]

    def key(self) -> str:
        length = self.rand.choice([0, 0, 0, 1, 2, 5, 10])
        if self.rand.random() < 0.02:
            length = self.rand.randint(50, 150)
        return "".join([self.rand.choice("abcXYZ_"), *self.rand.choices("abXY_019", k=length)])

    def text(self) -> str:
        if self.rand.random() < 0.3:
            return self.rand.choice(self.words)
        length = self.rand.randint(0, 12)
        if self.rand.random() < 0.3:  # around the limits above which the text is cut, and above
            length = self.rand.choice([35, 70, 78, 80, 82, 84, 100, 126, 128, 130, 300])
        return "".join(self.rand.choices(self.rand.choice([self.letters, "abc_"]), k=length))

    def integer(self) -> tp.Any:
        limit = self.rand.choice([20, 10**6, 10**40])
        value = self.rand.randint(-limit, limit)
        if limit < 10**9 and self.rand.random() < 0.2:
            return self.rand.choice([self.np.int32, self.np.int64])(value)
        return value

    def real(self) -> tp.Any:
        value = self.rand.gauss(0, 1) * 10 ** self.rand.randint(-12, 12)
        number = self.rand.randint(-200, 200)
        options = [value, round(value, 2), float(number), self.rand.choice(self.floats)]
        options += [self.np.float64(value), self.np.float32(number)]
        options += [Decimal(number) / 8, Fraction(number, 7)]
        return self.rand.choice(options)

    def leaf(self) -> tp.Any:
        options: list[tp.Callable[[], tp.Any]] = [self.integer, self.real, self.text, self.text]
        options += [lambda: Path(self.text()), lambda: self.rand.choice([None, True, False])]
        return self.rand.choice(options)()

    def hashable(self) -> tp.Any:
        # not all kinds of numbers can be compared to all others, as a set needs
        options = [self.text(), Path(self.text()), self.rand.randint(-20, 20), self.rand.random()]
        options += [self.rand.choice([None, True, self.nan, 0.0]), tuple(self.several(self.text))]
        return self.rand.choice(options)

    def array(self) -> tp.Any:
        shape = self.rand.choice([(), (0,), (1,), (4,), (2, 3), (2, 1, 2)])
        values = self.rand.choices(range(10), k=12)[: int(self.np.prod(shape))]
        dtype = self.rand.choice(["i8", "f4", "U3", "?"])
        return self.np.array(values, dtype=dtype).reshape(shape)

    def value(self, depth: int, in_dict: bool = True) -> tp.Any:
        kinds = ["leaf"] * 5
        if depth:
            kinds += ["dict", "dict", "ordered", "list", "tuple", "set"]
        if not in_dict:  # exca does not support arrays as values of a dict
            kinds += ["array"]
        kind = self.rand.choice(kinds)
        if kind == "dict":
            return self.config(depth - 1)
        if kind == "ordered":
            return OrderedDict(self.config(depth - 1))
        if kind in ("list", "tuple"):
            values = self.several(self.value, depth - 1, False)
            return values if kind == "list" else tuple(values)
        if kind == "set":
            return set(self.several(self.hashable))
        return self.array() if kind == "array" else self.leaf()

    def config(self, depth: int) -> dict[str, tp.Any]:
        return {key: self.value(depth) for key in self.several(self.key)}


@pytest.mark.parametrize("version", [2, 3])
def test_random_configs(version: int) -> None:
    exca = pytest.importorskip("exca")
    generator = Generator(seed=version)
    uids = set()
    cut = 0
    for _ in range(4000):
        plain = generator.config(depth=4)
        config = exca.ConfDict(plain)
        expected = exca_uid(config, version)
        assert legacy_uid(config, version) == expected, config
        assert legacy_uid(plain, version) == expected, plain
        uids.add(expected)
        cut += {2: "[.]", 3: "..."}[version] in expected
    print(f"{len(uids)} distinct configurations, including {cut} which were cut")
    assert len(uids) >= 2000
    assert cut >= 500
