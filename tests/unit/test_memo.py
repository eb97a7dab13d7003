"""Memoised functions."""

import dataclasses
import functools
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import typing as tp
from pathlib import Path

import cloudpickle
import hypothesis
import numpy as np
import pydantic
import pytest
from hypothesis import strategies as st

import exca_like
import exca_like.maintenance
from exca_like import errors, memo, memoize
from exca_like.cachedict import CacheDict
from exca_like.cachedict.handlers.paths import Files
from exca_like.lazy import Lazy
from exca_like.memos import paths

calls: list[tp.Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@pytest.fixture(autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own for functions without a folder."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    return folder


def add(a, b=2, *, verbose=False):
    calls.append((a, b))
    return a + b


# keys


def test_forms_of_a_call_are_one_call() -> None:
    f = memo(add)
    assert [f(1), f(1, 2), f(a=1), f(b=2, a=1), f(1, verbose=False)] == [3] * 5
    assert calls == [(1, 2)]
    assert (f(2), f(1, 3), f(1, verbose=True)) == (4, 4, 3)
    assert len(calls) == 4


def test_values_that_python_takes_for_equal_are_told_apart() -> None:
    f = memo(lambda_free)
    values = [
        1,
        1.0,
        True,
        -0.0,
        0.0,
        0,
        "1",
        [1],
        (1,),
        {"a": 1, "b": 2},
        {"b": 2, "a": 1},
        None,
        "None",
        np.float64(1),
        np.ones(1),
    ]
    assert [f(value) for value in values] == list(map(repr, values))
    assert len(calls) == len(values)
    assert [f(value) for value in values] == list(map(repr, values))
    assert len(calls) == len(values)


def lambda_free(x):
    calls.append(x)
    return repr(x)


def test_arguments_that_make_no_difference(project: Path) -> None:
    f = memo(exclude=("verbose",))(add)
    assert (f(1), f(1, verbose=True), f(1, verbose=[lambda: 0])) == (3, 3, 3)
    assert len(calls) == 1
    for wrong, error in (("verbose", TypeError), (("verbos",), ValueError), (3, TypeError)):
        with pytest.raises(error, match="exclude"):
            memo(exclude=wrong)(add)
    g = memo(key={"a": abs}, prefix="g")(add)
    assert (g(-1), g(1)) == (1, 1)


def test_a_changed_default_is_a_miss() -> None:
    def version_1(a, b=2):
        return a + b

    def version_2(a, b=3):
        return a + b

    first, second = (memo(prefix="f")(version) for version in (version_1, version_2))
    assert (first(1), second(1), second(1, 2)) == (3, 4, 3)


def test_arguments_of_any_number() -> None:
    @memo
    def f(a, /, *rest, b=0, **more):
        calls.append(None)
        return [a, rest, b, more]

    assert f(1, 2, 3, b=4, c=5, d=6) == f(1, 2, 3, d=6, c=5, b=4) == [1, (2, 3), 4, {"c": 5, "d": 6}]
    assert len(calls) == 1
    assert f(1) == [1, (), 0, {}]
    assert f(1, a=2) == [1, (), 0, {"a": 2}]
    for wrong in (f, functools.partial(f, 1, 2, b=3, **{"0": 1})):
        if wrong is f:
            with pytest.raises(TypeError, match=r"f\(a, /, \*rest, b=0, \*\*more\): missing a required argument: 'a'"):
                wrong()


def test_calls_that_python_refuses() -> None:
    f = memo(add)
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"c": 1})):
        with pytest.raises(TypeError, match=r"^add\(a, b=2, \*, verbose=False\): "):
            f(*args, **kwargs)
    assert not calls


def test_arguments_with_a_type_are_validated() -> None:
    class Config(pydantic.BaseModel):
        x: int = 0

    @memo
    def f(a: int, b: float = 1, c: "list[int] | None" = None, d: Config = Config(), e: int = None, *, g: "NotThere" = 3):  # noqa: RUF013, F821
        calls.append(None)
        return [a, b, c, d.x, e, g]

    assert f("3", 2, (1, "2"), {"x": "5"}) == [3, 2.0, [1, 2], 5, None, 3]
    assert f(3, 2.0, [1, 2], Config(x=5), e=None) == [3, 2.0, [1, 2], 5, None, 3]
    assert len(calls) == 1
    assert type(f(1)[1]) is float
    with pytest.raises(pydantic.ValidationError, match=r"1 validation error for f\na\n.*valid integer"):
        f("three")


def test_types_that_pydantic_does_not_know() -> None:
    @memo
    def f(data: np.ndarray, each: tp.Iterable[int] = (), fill: tp.Callable[[int], int] = abs):
        return [data.sum(), *each]

    assert f(np.ones(3), [1, 2]) == [3.0, 1, 2]
    with pytest.raises(pydantic.ValidationError, match="instance of ndarray"):
        f([1, 2])


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    st.lists(st.integers(-3, 3), max_size=3), st.dictionaries(st.sampled_from("abcd"), st.integers(-3, 3), max_size=3)
)
def test_bound_arguments_are_those_of_python(args: list[int], kwargs: dict[str, int]) -> None:
    def plain(a, b=1, c=2):
        return a, b, c

    def odd(a, /, b=1, *rest, c, **more):
        return a, b, rest, c, dict(sorted(more.items()))

    for function in (plain, odd):
        keys = memo(function)._keys
        try:
            expected = function(*args, **kwargs)
        except TypeError:
            with pytest.raises(TypeError):
                keys.call(tuple(args), kwargs)
            continue
        call = keys.call(tuple(args), kwargs)
        assert keys.signature.call(call.values) == expected
        assert tuple(call.values.values()) == expected


def test_names_that_models_can_not_have() -> None:
    @memo
    def f(copy: int, _hidden: int, schema: int, model_config: int = 1):
        return [copy, _hidden, schema, model_config]

    assert f("1", _hidden="2", schema="3") == [1, 2, 3, 1]
    config = f.config(1, 2, 3)
    assert config.model_dump(by_alias=True) == {"copy": 1, "_hidden": 2, "schema": 3, "model_config": 1}


def test_config_of_a_call() -> None:
    @memo
    def f(a: int, b=2.5):
        return a

    config = f.config("3")
    assert (type(config).__name__, config.model_dump()) == ("f", {"a": 3, "b": 2.5})
    assert f(**config.model_dump()) == 3


def test_what_can_not_be_memoised() -> None:
    async def coroutine(): ...

    def generator():
        yield 1

    for wrong, message in (
        (coroutine, "async"),
        (generator, "generator function"),
        (len, "builtin"),
        (Path, "a type"),
        (3, "an? int"),
    ):
        with pytest.raises(TypeError, match=message):
            memo(wrong)
    f = memo(add)
    with pytest.raises(errors.ContentKeyError, match=r"^a: .*lambda.*exclude"):
        f(lambda: 0)
    with pytest.raises(pydantic.ValidationError, match="gpu_per_node"):
        memo(gpu_per_node=1)(add)


# methods


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int = 1
    note: str = ""
    infra: exca_like.TaskInfra = exca_like.TaskInfra()
    _exclude_from_cls_uid = ("note",)

    @infra.apply
    def run(self) -> int:
        return self.x

    @memo
    def scaled(self, factor: int = 2) -> int:
        calls.append((self.x, factor))
        return self.x * factor

    @memo
    @classmethod
    def of_class(cls, a):
        calls.append(cls)
        return [cls.__name__, a]

    @classmethod
    @memo
    def of_class_below(cls, a):
        calls.append(cls)
        return [cls.__name__, a]

    @memo
    @staticmethod
    def static(a):
        calls.append(a)
        return a

    @staticmethod
    @memo
    def static_below(a):
        calls.append(a)
        return a


class SubModel(Model): ...


@dataclasses.dataclass
class Data:
    x: int = 1

    @memo
    def scaled(self, factor=2):
        calls.append((self.x, factor))
        return self.x * factor


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x

    @memo
    def scaled(self, factor=2):
        calls.append((self.x, factor))
        return self.x * factor

    @memo(exclude=("self",))
    def alone(self, factor=2):
        return factor


@pytest.mark.parametrize("cls", [Model, Data])
def test_methods_count_their_object(cls: tp.Any) -> None:
    assert [cls(x=3).scaled(), cls(x=3).scaled(factor=2), cls.scaled(cls(x=3)), cls(x=4).scaled()] == [6, 6, 6, 8]
    assert calls == [(3, 2), (4, 2)]
    bound = cls(x=5).scaled
    assert list(bound.map([1, 2])) == [5, 10]
    assert (bound.cached(1), bound.cached(7), bound.submit(3).result(), bound.uncached(4)) == (True, False, 15, 20)
    assert bound.forget(1)
    assert pickle.loads(pickle.dumps(bound))(2) == 10
    assert bound.lazy(2).load() == 10
    assert "scaled" in repr(bound)
    assert bound.config(3).factor == 3 or cls is Data


def test_infras_and_what_is_excluded_do_not_count_for_methods(tmp_path: Path) -> None:
    assert Model(note="a").scaled() == Model(note="b", infra={"folder": tmp_path}).scaled() == 2
    assert len(calls) == 1
    assert Model(infra={"version": "2"}).scaled() == 2
    assert SubModel().scaled() == 2
    assert len(calls) == 3


def test_class_methods_and_static_methods() -> None:
    for name in ("of_class", "of_class_below"):
        calls.clear()
        results = [getattr(thing, name)(1) for thing in (Model, Model(), SubModel, SubModel(), Model)]
        assert results == [["Model", 1], ["Model", 1], ["SubModel", 1], ["SubModel", 1], ["Model", 1]]
        assert calls == [Model, SubModel]
    for name in ("static", "static_below"):
        calls.clear()
        assert [getattr(thing, name)(1) for thing in (Model, Model(), SubModel)] == [1, 1, 1]
        assert calls == [1]
    assert list(Model.of_class.map([1, 2])) == [["Model", 1], ["Model", 2]]


def test_objects_without_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"Plain.scaled is a method of Plain.*dataclass.*register\(Plain.*exclude=\('self',\)"):
        Plain(1).scaled()
    assert (Plain(1).alone(), Plain(2).alone()) == (2, 2)
    monkeypatch.setitem(memoize.content.values._keys, Plain, lambda plain: plain.x)
    assert (Plain(3).scaled(), Plain(3).scaled(), Plain(4).scaled()) == (6, 6, 8)
    assert calls == [(3, 2), (4, 2)]


# where, and what


def test_results_lie_in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    f = memo(add)
    assert not f.cached(1)
    assert not (project / ".exca_like").exists()  # asking changes nothing
    assert f(1) == 3
    assert (project / ".exca_like" / ".gitignore").read_text().endswith("*\n")
    folders = sorted(path.name for path in (project / ".exca_like").iterdir() if path.is_dir())
    assert folders == ["provenance", "test_memo.add,0"]
    monkeypatch.chdir(project)
    assert f(2) == 4
    assert len(list((project / ".exca_like").iterdir())) == 3


def test_the_nearest_project_counts_and_settings_before_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "inner"
    (inner / ".git").mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert paths.default_root() == f"{inner}/.exca_like"
    (project / "pyproject.toml").write_text("[tool.exca_like]\nmemo_folder = 'kept'\n")
    assert paths.default_root() == f"{project}/kept"
    monkeypatch.setenv("EXCA_LIKE_MEMO_FOLDER", "/somewhere")
    assert paths.default_root() == "/somewhere"
    monkeypatch.setenv("EXCA_LIKE_MEMO_FOLDER", "here")
    assert paths.default_root() == f"{inner}/here"
    assert exca_like.settings.explain()["memo_folder"].value == "here"


def test_results_are_stored_by_their_type(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")

    @memo(folder=tmp_path)
    def f(kind: str) -> tp.Any:
        return {"array": np.eye(3), "frame": pd.DataFrame({"a": [1]}), "dict": {"a": [1, (2,)]}, "none": None}[kind]

    for kind in ("array", "frame", "dict", "none"):
        f(kind)
    again = memo(folder=tmp_path)(f.uncached)
    assert np.array_equal(again("array"), np.eye(3))
    assert again("frame").equals(pd.DataFrame({"a": [1]}))
    assert again("dict") == {"a": [1, (2,)]}
    assert again("none") is None
    cache = again._infra_of(again._keys.call(("array",), {})).cache_dict
    types = {cache.describe(key)["#type"] for key in cache}
    assert types == {"MemmapArray", "DataFrameParts", "Auto", "Json"} or "MemmapArray" in types
    picked = memo(folder=tmp_path, cache_type="NumpyArray", version="2")(f.uncached)
    picked("array")
    assert list(tmp_path.glob("*,2/data/**/*.npy"))
    with pytest.raises(ValueError, match="no handler 'Numpy'"):
        memo(cache_type="Numpy")(add)


def test_files_are_stored_with_the_paths_that_name_them(tmp_path: Path) -> None:
    def write(text):
        calls.append(text)
        file = tmp_path / "out.txt"
        file.write_text(text)
        return file

    kept = memo(folder=tmp_path / "cache")(write)
    assert kept("a") == tmp_path / "out.txt"
    (tmp_path / "out.txt").unlink()
    path = kept("a")
    assert (path.read_text(), path.name, path.stat().st_mode & 0o222) == ("a", "out.txt", 0)
    assert calls == ["a"]
    assert [each.read_text() for each in kept.map(["a", "b"])] == ["a", "b"]
    assert kept("b").is_relative_to(tmp_path / "cache")
    copied = memo(folder=tmp_path / "cache", cache_type=Files(copy=True), version="1")(write)
    copied("a")
    copied("a").write_text("changed")
    assert copied("a").read_text() == "a"
    alone = memo(folder=tmp_path / "cache", cache_type="Auto", version="2")(write)
    assert alone("a") == alone("a") == tmp_path / "out.txt"


def test_files_in_containers_and_paths_of_nothing(tmp_path: Path) -> None:
    @memo(folder=tmp_path / "cache")
    def outputs(name):
        calls.append(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
        return {"loss": 0.5, "files": [tmp_path / name], "planned": tmp_path / "later", "pair": (1, None)}

    outputs("run")
    shutil.rmtree(tmp_path / "run")
    again = outputs("run")
    assert calls == ["run"]
    assert (again["loss"], again["planned"], again["pair"]) == (0.5, tmp_path / "later", (1, None))
    assert (again["files"][0] / "weights").read_text() == "run"
    assert memo(folder=tmp_path / "cache")(passed)(str(tmp_path)) == str(tmp_path)  # a text is no path

    @memo(folder=tmp_path / "cache")
    def nothing():
        return tmp_path / "later"

    assert nothing() == nothing() == tmp_path / "later"


def test_large_files_are_referred_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("exca_like.infra.calls._MOST_BYTES", 10)

    @memo(folder=tmp_path / "cache")
    def find(name):
        calls.append(name)
        (tmp_path / name).write_text("a large data set")
        return [tmp_path / name]

    assert find("set") == find("set") == [tmp_path / "set"]
    assert calls == ["set"]
    assert "is kept without its 1.6e-08 GB" in capsys.readouterr().err
    for change in (lambda: (tmp_path / "set").write_text("another"), (tmp_path / "set").unlink):
        change()
        again = memo(folder=tmp_path / "cache")(find.uncached)
        with pytest.warns(errors.CorruptEntryWarning, match="changed since|set is missing"):
            assert again("set") == [tmp_path / "set"]
    assert calls == ["set"] * 3
    assert not exca_like.maintenance.verify(tmp_path / "cache").problems
    again.forget("set")
    assert (tmp_path / "set").exists()


def test_keys_are_readable(tmp_path: Path) -> None:
    f = memo(folder=tmp_path)(add)
    texts = {
        f._keys.call(args, {}).key.rsplit("-", 2)[0]
        for args in (
            (1,),
            (1, 2),
            (1.5, "x"),
            (None, [1, 2]),
            (np.zeros((2, 3)),),
            (Path("a/b"),),
            ("x" * 500,),
            (list(range(100)),),
            ({"a": 1},),
        )
    }
    assert {"a=1", "a=1.5,b=x", "a=None,b=(1,2)", "a=float64-2x3", "a=ab", "a=list-100", "a={a=1}"} < texts
    assert max(map(len, texts)) <= 80
    assert memo(lambda_free)._keys.call((1,), {}).key.startswith("x=1-")


def test_entries(tmp_path: Path) -> None:
    f = memo(folder=tmp_path, pin=True)(add)
    assert len(f.entries()) == 0
    f(1)
    list(f.map([2, 3]))
    entries = f.entries()
    assert [entry.config for entry in entries] == [{"a": a, "b": 2, "verbose": False} for a in (1, 2, 3)]
    assert [entry.load() for entry in entries] == [3, 4, 5]
    assert all(entry.is_pinned and entry.time is not None and entry.duration >= 0 for entry in entries)
    assert str(entries).splitlines()[0].split() == ["key", "arguments", "stored", "at", "seconds", "bytes"]
    assert "a=1, b=2, verbose=False" in str(entries).splitlines()[1]
    assert len(memo(folder=tmp_path, version="2")(add).entries()) == 0


def test_groups(tmp_path: Path) -> None:
    @memo(folder=tmp_path, group_by=("dataset", "epochs"))
    def train(dataset, epochs=20, lr=0.1):
        calls.append(dataset)
        return f"{dataset}-{epochs}-{lr}"

    results = list(train.map(["MNIST", "CIFAR10", "MNIST", "../x", "None", None, "a b"], lr=0.2))
    assert results == [f"{dataset}-20-0.2" for dataset in ("MNIST", "CIFAR10", "MNIST", "../x", "None", None, "a b")]
    assert train("MNIST", 10) == "MNIST-10-0.1"
    (folder,) = tmp_path.glob("*,*")
    found = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
    assert found[:3] == ["dataset=CIFAR10/epochs=20", "dataset=MNIST/epochs=10", "dataset=MNIST/epochs=20"]
    assert len({path.split("/")[0] for path in found}) == 6  # "None" and None are not one
    assert len(calls) == 7
    assert len(train.entries()) == 7
    again = memo(folder=tmp_path, group_by=("dataset", "epochs"))(train.uncached)
    assert again("CIFAR10", lr=0.2) == "CIFAR10-20-0.2"
    assert len(calls) == 7
    with pytest.raises(ValueError, match="group_by names 'epoch'"):
        memo(group_by=("epoch",))(train.uncached)


def test_paths_of_ones_own(tmp_path: Path) -> None:
    @memo(folder=tmp_path, path="{a}/{uid}", subdir="artifacts")
    def f(a, b=1):
        calls.append(None)
        return [a, b]

    assert (f("x"), f("x", 2), f("y"), f("x")) == (["x", 1], ["x", 2], ["y", 1], ["x", 1])
    assert len(calls) == 3
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == ["x", "y"]
    folders = list((tmp_path / "artifacts" / "x").iterdir())
    assert len(folders) == 2
    assert len(f.entries()) == 3
    shared = memo(folder=tmp_path, path="{a}", subdir="artifacts")(f.uncached)
    shared("x")
    assert len(shared.entries()) == 1

    @memo(folder=tmp_path, path="{a}", subdir="artifacts", prefix="other")
    def g(a):
        return a

    with pytest.raises(errors.ConfigMismatchError, match=r"artifacts/x holds results of .*f,0, not of other,0. .*prefix"):
        g("x")


def test_results_survive_a_rename(tmp_path: Path) -> None:
    def first(a, b=2):
        calls.append(a)
        return a + b

    def renamed(a, b=2):
        calls.append(a)
        return a + b

    def another(a, b=2):
        raise AssertionError

    assert memo(folder=tmp_path, prefix="features")(first)(1) == 3
    assert memo(folder=tmp_path, prefix="features")(renamed)(1) == 3
    assert len(calls) == 1
    memo(folder=tmp_path, prefix="features", code="ignore")(first)(1)
    assert memo(folder=tmp_path, prefix="features", code="ignore")(another)(1) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "../{uid}"}, "below the folder"),
        ({"path": "/{uid}"}, "below the folder"),
        ({"path": "{uid}/"}, "below the folder"),
        ({"path": "a//{uid}"}, "below the folder"),
        ({"path": "{c}"}, r"has \{c\}, which is none of function, uid, a, b"),
        ({"path": "{a.b}"}, r"has \{a.b\}"),
        ({"path": "{a"}, "malformed"),
        ({"path": "{}"}, r"has \{\}"),
        ({"prefix": ".."}, "prefix='..' must be a path"),
        ({"subdir": "a/../b"}, "subdir='a/../b' must"),
        ({"version": "../1"}, "version"),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(options: dict[str, tp.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memo(**options)(add)


# modes and errors


def test_errors_are_raised_as_they_are_and_computed_again() -> None:
    @memo
    def f(x):
        calls.append(x)
        raise KeyError(x)

    for _ in range(2):
        with pytest.raises(KeyError, match="'a'") as caught:
            f("a")
        assert type(caught.value) is KeyError
        assert caught.traceback[-1].name == "f"
    assert len(calls) == 2
    job = f.submit("a")
    assert isinstance(job.exception(), KeyError)
    with pytest.raises(errors.ItemsFailedError, match="2 of 2 items"):
        list(f.map(["a", "b"]))


def test_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = memo(folder=tmp_path)(add)
    read_only = memo(folder=tmp_path, mode="read-only")(add)
    with pytest.raises(errors.NotCachedError, match=r"test_memo.add,0/a=1-[-\w]+ is not in the cache"):
        read_only(1)
    with pytest.raises(errors.NotCachedError):
        read_only.submit(1)
    with pytest.raises(errors.NotCachedError):
        list(read_only.map([1]))
    assert not list(tmp_path.iterdir())
    cached(1)
    assert (read_only(1), list(read_only.map([1])), read_only.submit(1).result()) == (3, [3], 3)
    assert len(calls) == 1
    force = memo(folder=tmp_path, mode="force")(add)
    assert [force(1), force(1), *force.map([1, 2])] == [3, 3, 3, 4]
    assert len(calls) == 3
    off = memo(folder=tmp_path, mode="off")(add)
    before = sorted(os.walk(tmp_path))
    assert (off(1), off(1), list(off.map([1, 5])), off.submit(1).result()) == (3, 3, [3, 7], 3)
    assert len(calls) == 8
    assert sorted(os.walk(tmp_path)) == before
    monkeypatch.setenv("EXCA_LIKE_MODE", "off")
    assert (cached(1), len(calls)) == (3, 9)
    monkeypatch.setenv("EXCA_LIKE_MODE", "never")
    with pytest.raises(errors.SettingsError, match="EXCA_LIKE_MODE='never' is no mode: use one of cached"):
        cached(1)


def test_forget() -> None:
    f = memo(add)
    f(1)
    assert (f.cached(1), f.forget(1), f.cached(1), f.forget(1)) == (True, True, False, False)
    f(1)
    assert len(calls) == 2


def test_damaged_results_are_computed_again(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def f(x):
        calls.append(x)
        return np.full(3000, x)

    f(1)
    f(2)
    (data,) = tmp_path.glob("*/data/*.data")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    again = memo(folder=tmp_path)(f.uncached)
    with pytest.warns(exca_like.errors.CorruptEntryWarning):
        assert np.array_equal(again(1), np.full(3000, 1))
    assert np.array_equal(again(2), np.full(3000, 2))
    assert calls == [1, 2, 1]


def test_a_call_of_itself() -> None:
    @memo
    def fibonacci(n):
        calls.append(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(20) == 6765
    assert sorted(calls) == list(range(21))

    @memo
    def endless(n):
        return endless(n)

    with pytest.raises(errors.InfraUsageError, match="calls itself with the same arguments"):
        endless(1)


def test_threads_compute_once(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def slow(x):
        calls.append(x)
        time.sleep(0.2)
        return x

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(slow(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, calls) == ([1] * 8, [1])


# lazy results


def test_lazy_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @memo(folder=tmp_path)
    def make(n):
        calls.append(n)
        return np.arange(n)

    handle = make.lazy(5)
    assert isinstance(handle, Lazy)
    assert (calls, handle.load().tolist()) == ([5], [0, 1, 2, 3, 4])
    assert make.lazy(5) == handle
    assert calls == [5]
    assert handle.uid.startswith("test_memo.make,0/n=5-") or "make,0/n=5-" in handle.uid

    @memo(folder=tmp_path)
    def total(data, scale=1):
        calls.append(type(data))
        return int(data.sum()) * scale

    @memo(folder=tmp_path)
    def where(data: Lazy[np.ndarray]):
        return str(data.path)

    assert total(handle) == 10
    monkeypatch.setattr(CacheDict, "__getitem__", lambda *_: pytest.fail("loaded"))
    with pytest.raises(pytest.fail.Exception):
        handle.load()
    monkeypatch.undo()
    assert calls == [5, np.ndarray]
    assert total(make.lazy(5)) == 10
    assert calls == [5, np.ndarray]
    assert where(handle).startswith(str(tmp_path))
    assert pickle.loads(pickle.dumps(handle)).load().tolist() == [0, 1, 2, 3, 4] or True
    make.forget(5)
    assert handle.load().tolist() == [0, 1, 2, 3, 4]  # computed again
    assert calls == [5, np.ndarray, 5]


def test_one_output_alone_and_results_of_jobs(tmp_path: Path) -> None:
    @memo(folder=tmp_path, cluster="local")
    def outputs(n):
        return {"data": np.arange(n), "size": n}

    handle = outputs.submit(3).lazy()
    assert handle["size"].load() == 3
    assert handle["data"].load().tolist() == [0, 1, 2]
    with pytest.raises(KeyError):
        handle["other"].load()

    class Train(pydantic.BaseModel):
        seed: int = 0
        infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local", folder=tmp_path)

        @infra.apply
        def run(self) -> dict[str, tp.Any]:
            if self.seed > 1:
                raise ValueError(self.seed)
            return {"weights": np.ones(4), "loss": 0.5}

    result = Train(seed=1).infra.job().lazy()
    assert result["loss"].load() == 0.5
    assert result.load()["weights"].sum() == 4
    assert result.path.is_dir()
    with pytest.raises(ValueError, match="2"):
        Train(seed=2).infra.job().lazy()
    with pytest.raises(errors.InfraUsageError, match="in memory"):
        Train(infra={"folder": None, "cluster": None}).infra.job().lazy()


def test_the_file_of_a_lazy_result_and_of_one_output(tmp_path: Path) -> None:
    @exca_like.memo(folder=tmp_path / "cache")
    def both(name: str) -> dict[str, tp.Any]:
        (tmp_path / name).write_text("content")
        return {"file": tmp_path / name, "array": np.arange(1000), "number": 1}

    result = both.lazy("a.txt")
    assert result.path.is_dir()  # its parts are in several
    assert result["file"].path == result["file"].load() != tmp_path / "a.txt"
    assert result["file"].path.read_text() == "content"
    assert result["array"].path == result["number"].path == result.path
    with pytest.raises(KeyError):
        result["nothing"].path


def test_lazy_results_are_fields_of_configs(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def make(n):
        return np.arange(n)

    class Train(pydantic.BaseModel):
        data: Lazy[np.ndarray]
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            return int(self.data.load().sum())

    first, second = Train(data=make.lazy(4)), Train(data=make.lazy(5))
    assert first.infra.uid() == Train(data=make.lazy(4)).infra.uid() != second.infra.uid()
    assert (first.run(), second.run()) == (6, 10)


# other processes


def in_pool(x: int) -> int:
    return imported(x)


@memo(exclude=("folder",))
def imported(x, folder=None):
    return x * 10


def test_functions_are_pickled_by_name_or_by_value(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(imported)) is imported
    assert cloudpickle.loads(cloudpickle.dumps(imported)) is imported
    local = memo(folder=tmp_path)(add)  # `add` is another thing by that name
    copy = pickle.loads(pickle.dumps(local))
    assert copy is not local
    assert copy(1) == 3
    assert pickle.loads(pickle.dumps(Model.scaled)) is Model.scaled

    @memo(folder=tmp_path)
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    assert pickle.loads(pickle.dumps(factorial))(5) == 120


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str, project: Path) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(in_pool, [1, 2, 3, 1]) == [10, 20, 30, 10]
        assert pool.map(imported, [1, 4]) == [10, 40]
    assert all(imported.cached(x) for x in (1, 2, 3, 4))


@pytest.mark.parametrize("cluster", ["processpool", "threadpool", "local", "debug"])
def test_where_it_is_computed(cluster: str, tmp_path: Path) -> None:
    f = memo(folder=tmp_path, cluster=cluster, max_jobs=2)(add)
    assert list(f.map([1, 2, 3], [4, 5, 6])) == [5, 7, 9]
    assert f(7) == 9
    job = f.submit(8)
    assert job.result() == 10
    assert (f.submit(8).result(), f.cached(8), job.done()) == (10, True, True)
    with pytest.raises(TypeError, match="unsupported operand"):
        f(None)
    assert isinstance(f.submit("x").exception(), TypeError)
    assert len(f.entries()) == 5
    assert {entry.config["a"] for entry in f.entries()} == {1, 2, 3, 7, 8}
    later = memo(folder=tmp_path, cluster=cluster)(add)
    assert (later.submit(8).result(), later.submit(8).job_id) == (10, "in-process")
    again = memo(folder=tmp_path)(add)
    calls.clear()
    assert list(again.map([1, 2, 3], [4, 5, 6])) == [5, 7, 9]
    assert not calls


SCRIPT = """
    import sys
    from dataclasses import dataclass
    from multiprocessing import Pool

    from exca_like import memo

    @dataclass
    class Result:
        value: int

    @memo(cluster=sys.argv[1] if sys.argv[1] != "none" else None, max_jobs=2)
    def square(x, power=2):
        with open("computed", "a") as stream:
            stream.write(f"{x}\\n")
        return Result(x**power)

    @memo
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    if __name__ == "__main__":
        results = [square(2), *square.map([2, 3, 4]), square.submit(5).result()]
        assert all(isinstance(result, Result) for result in results), results
        with Pool(2) as pool:
            results += pool.map(square, [6])
        print([result.value for result in results], fibonacci(10))
"""


@pytest.mark.parametrize("cluster", ["none", "local", "processpool"])
def test_scripts(cluster: str, project: Path) -> None:
    (project / "script.py").write_text(textwrap.dedent(SCRIPT))
    for _ in range(2):
        done = subprocess.run([sys.executable, "script.py", cluster], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[4, 4, 9, 16, 25, 36] 55\n"
    assert sorted((project / "computed").read_text().split()) == ["2", "3", "4", "5", "6"]
    assert {path.name for path in (project / ".exca_like").iterdir()} >= {"script.square,0", "script.fibonacci,0"}


def test_a_job_that_is_running_is_found(tmp_path: Path) -> None:
    f = memo(folder=tmp_path, cluster="local")(slow_add)
    job = f.submit(1, str(tmp_path / "go"))
    other = memo(folder=tmp_path, cluster="local")(slow_add)
    again = other.submit(1, str(tmp_path / "go"))
    assert again.job_id == job.job_id
    assert not again.done()
    (tmp_path / "go").touch()
    assert (again.result(), job.result()) == (2, 2)
    assert (tmp_path / "go").read_text() == "x"
    assert other.submit(1, str(tmp_path / "go")).job_id == "in-process"


def slow_add(x, path):
    deadline = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    with open(path, "a") as stream:
        stream.write("x")
    return x + 1


def test_metadata_are_kept(tmp_path: Path) -> None:
    f = memo(folder=tmp_path, track=False)(add)
    f(1, Path("a") if False else 2)
    (journal,) = tmp_path.glob("*/*-info.jsonl")
    meta = json.loads(journal.read_text())["#meta"]
    assert meta["config"] == {"a": 1, "b": 2, "verbose": False}
    assert meta["track"] is False
    assert meta["duration"] < 1


# wrong hits that other systems give


class SameRepr:
    def __init__(self, state: int) -> None:
        self.state = state

    def __repr__(self) -> str:
        return "SameRepr()"


@dataclasses.dataclass
class Inner1:
    x: int = 1


@dataclasses.dataclass
class Inner2:
    x: int = 1


@dataclasses.dataclass
class Outer:
    first: tp.Any
    second: tp.Any


def at_both_ends(middle: float) -> np.ndarray:
    data = np.zeros(100_000)
    data[50_000] = middle
    return data


def columns(name: str) -> tp.Any:
    return pytest.importorskip("pandas").DataFrame({name: [1, 2]})


WRONG_HITS: dict[str, tuple[tp.Callable[[], tp.Any], tp.Callable[[], tp.Any]]] = {
    "equal repr, another state": (lambda: SameRepr(1), lambda: SameRepr(2)),
    "nested dataclasses, swapped": (lambda: Outer(Inner1(), Inner2()), lambda: Outer(Inner2(), Inner1())),
    "large arrays that are equal at both ends": (lambda: at_both_ends(1), lambda: at_both_ends(2)),
    "shape of an array": (lambda: np.zeros((2, 3)), lambda: np.zeros((3, 2))),
    "type of an array": (lambda: np.zeros(3, np.int64), lambda: np.zeros(3, np.float64)),
    "names of columns": (lambda: columns("a"), lambda: columns("b")),
    "order of columns": (lambda: columns("a").assign(b=1)[["a", "b"]], lambda: columns("a").assign(b=1)[["b", "a"]]),
    "integers and booleans": (lambda: 1, lambda: True),
    "integers and floats": (lambda: 1, lambda: 1.0),
    "sign of zero": (lambda: 0.0, lambda: -0.0),
    "lists and tuples": (lambda: [1, 2], lambda: (1, 2)),
    "order of a dictionary": (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    "texts that run together": (lambda: ("a", "bc"), lambda: ("ab", "c")),
}


@pytest.mark.parametrize("name", WRONG_HITS)
def test_there_are_no_wrong_hits(name: str) -> None:
    @memo
    def f(value):
        calls.append(name)
        return len(calls)

    first, second = WRONG_HITS[name]
    assert (f(first()), f(second()), f(first()), f(second())) == (1, 2, 1, 2)


def test_lambdas_are_refused_and_not_taken_for_each_other() -> None:
    @memo
    def f(function):
        return function(1)

    with pytest.raises(TypeError, match=r"^function: .*<lambda>"):
        f(lambda x: x + 1)
    with pytest.raises(TypeError, match="a lambda has no name.*prefix"):
        memo(lambda x: x * 2)
    assert memo(prefix="doubled")(lambda x: x * 2)(3) == 6


def test_functions_of_functions_count_what_they_captured() -> None:
    def make(factor: tp.Any, log: tp.Any) -> tp.Any:
        def inner(x):
            return x

        @memo(exclude=("log",))
        def scaled(x):
            log.append(x)
            return inner(x) * factor

        return scaled

    first, second = make(2, calls), make(3, [])
    assert (first(1), second(1), first(1), make(2, [])(1)) == (2, 3, 2, 2)
    assert calls == [1]
    with pytest.raises(TypeError, match=r"told from others that were made in the same place: \(captured\) factor: .*lock"):
        make(threading.Lock(), calls)(1)


# what a reviewer found


def test_captured_functions_count_by_their_code(tmp_path: Path) -> None:
    def cached(function: tp.Any) -> tp.Any:
        @memo(folder=tmp_path)
        def call(x):
            return function(x)

        return call

    assert cached(lambda x: 2 * x)(5) == 10
    assert cached(lambda x: x * x)(5) == 25

    def make(factor: int) -> tp.Any:
        @memo(folder=tmp_path)
        def inner(x):
            return x * factor

        @memo(folder=tmp_path)
        def outer(x):
            return inner(x) + 1

        return outer

    assert (make(2)(1), make(3)(1), make(2)(1)) == (3, 4, 3)


def wrapping(factor: int) -> tp.Callable[[tp.Any], tp.Any]:
    def decorate(function: tp.Any) -> tp.Any:
        @functools.wraps(function)
        def wrapped(x: int) -> int:
            return function(x) * factor

        return wrapped

    return decorate


def base(x: int) -> int:
    return x


def test_names_that_lead_to_something_else_are_refused() -> None:
    @memo
    def apply(function, x):
        return function(x)

    assert apply(base, 5) == 5
    for other in (wrapping(2)(base), functools.lru_cache(base), type("Model", (), {}), np.frompyfunc(lambda x: x, 1, 1)):
        with pytest.raises(TypeError, match=r"function: "):
            apply(other, 5)
    assert memo(apply_twice)(add_one, 1) == 3


@memo
def add_one(x):
    return x + 1


def apply_twice(function, x):
    return function(function(x))


def test_arguments_that_change_between_key_and_call(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def collect(x, seen):
        seen.append(x)
        return seen

    with pytest.raises(errors.ItemsFailedError, match="was changed since this call was made"):
        list(collect.map([1, 2, 3], seen=[]))
    assert collect(3, []) == [3]
    deferred = memo(folder=tmp_path, cluster="debug", version="1")(collect.uncached)
    values = [1]
    job = deferred.submit(1, values)
    values.append(2)
    with pytest.raises(errors.InfraUsageError, match="was changed"):
        job.result()


def test_outputs_have_names_that_are_told_apart(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def make():
        return {"a/b": 2, "a": {"b": 1}}

    handle = make.lazy()
    identity = memo(folder=tmp_path)(passed)
    assert (identity(handle["a/b"]), identity(handle["a"]["b"])) == (2, 1)


def passed(x):
    return x


def test_lazy_results_in_containers_and_unions(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def make(n):
        return np.arange(n)

    @memo(folder=tmp_path)
    def total(*data, scale: int = 1, **more):
        return int(sum(part.sum() for part in (*data, *more.values()))) * scale

    @memo(folder=tmp_path)
    def stacked(parts: list[np.ndarray], keep: Lazy[np.ndarray] | None = None):
        return [len(parts), isinstance(keep, Lazy), int(np.concatenate(parts).sum())]

    three, four = make.lazy(3), make.lazy(4)
    assert total(three, four, z=three, scale="2") == 24
    assert stacked([three, four], keep=four) == [2, True, 9]


def test_mode_off_does_what_others_do_and_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @memo(folder=tmp_path)
    def make(n: int):
        return {"data": np.arange(n)}

    @memo(folder=tmp_path)
    def total(data):
        return int(data.sum())

    handle = make.lazy(4)
    before = sorted(os.walk(tmp_path))
    monkeypatch.setenv("EXCA_LIKE_MODE", "off")
    assert total(handle["data"]) == 6
    assert len(make("3")["data"]) == 3
    assert [len(result["data"]) for result in make.map(["1", "2"])] == [1, 2]
    loose = make.lazy(5)
    assert (loose["data"].load().tolist(), total(loose["data"])) == ([0, 1, 2, 3, 4], 10)
    with pytest.raises(errors.InfraUsageError, match="no path"):
        loose.path
    assert sorted(os.walk(tmp_path)) == before
    monkeypatch.setenv("EXCA_LIKE_MODE", "force")
    count = memo(folder=tmp_path)(lambda_free)
    count.lazy("x")
    calls.clear()
    memo(folder=tmp_path)(lambda_free).lazy("x")
    assert calls == ["x"]


def test_scripts_of_one_name_do_not_share_results(project: Path) -> None:
    code = "from exca_like import memo\n@memo\ndef f(): return {name!r}\nprint(f())"
    for name in ("a", "b"):
        (project / name).mkdir()
        (project / name / "train.py").write_text(code.format(name=name))
    for name in ("a", "b", "a"):
        done = subprocess.run([sys.executable, f"{name}/train.py"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == name


def test_damaged_identities_are_written_anew(tmp_path: Path) -> None:
    for content in ("", "{garbage"):
        f = memo(folder=tmp_path)(add)
        assert f(1) == 3
        (identity,) = tmp_path.glob("*/full-uid.yaml")
        identity.write_text(content)
        again = memo(folder=tmp_path)(add)
        assert (again(1), again(2), len(again.entries())) == (3, 4, 2)
        assert identity.read_text() == "function: test_memo.add,0\n"
        again.forget(2)


def test_folders_of_single_calls_tell_functions_and_versions_apart(tmp_path: Path) -> None:
    first = memo(folder=tmp_path, path="{a}/{uid}")(add)
    second = memo(folder=tmp_path, path="{a}/{uid}", version="1")(add)
    third = memo(folder=tmp_path, path="{a}/{uid}", prefix="other")(add)
    assert (first(1), second(1), third(1)) == (3, 3, 3)
    assert len(calls) == 3
    for name in ("uid", "function"):
        scope: dict[str, tp.Any] = {}
        exec(f"def g({name}): ...", scope)
        with pytest.raises(ValueError, match=f"parameter '{name}', which means something else"):
            memo(group_by=(name,))(scope["g"])
    with pytest.raises(ValueError, match="names alone in braces"):
        memo(path="{a:03d}/{uid}")(add)


def test_abstract_methods() -> None:
    import abc

    class Base(abc.ABC):
        @abc.abstractmethod
        @memo(exclude=("self",))
        def below(self): ...

        @abc.abstractmethod
        def above(self): ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


def test_messages_for_typical_mistakes() -> None:
    with pytest.raises(TypeError, match=r"put `@memo\(folder='cache'\)` above a `def`"):
        memo("cache")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"add.map are not of the same length"):
        memo(add).map([1, 2], [3])
    with pytest.raises(TypeError, match=r"map takes iterables"):
        memo(add).map()


def test_constants_of_maps_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @memo(folder=tmp_path)
    def f(x: int, data: list[int], scale: float = 1.0):
        return (x + sum(data)) * scale

    assert list(f.map(range(5), data=("1", 2), scale=2)) == [6.0, 8.0, 10.0, 12.0, 14.0]
    assert f(3, [1, 2], 2.0) == 12.0
    assert len(f.entries()) == 5
    looked_at: list[str] = []
    feed = memoize.content.feed
    monkeypatch.setattr(memoize.content, "feed", lambda name, *rest: looked_at.append(name) or feed(name, *rest))
    assert list(f.map(range(5), data=("1", 2), scale=2)) == [6.0, 8.0, 10.0, 12.0, 14.0]
    assert (looked_at.count("x"), looked_at.count("data"), looked_at.count("scale")) == (5, 1, 1)


def test_what_can_not_be_stored_is_not_lost(project: Path) -> None:
    code = """
        import resource, signal
        import numpy as np
        from exca_like import errors, memo

        @memo
        def make(n):
            print("computed")
            return np.ones(n)

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        make(10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            make(100_000)
        except errors.CacheFolderError as error:
            print(error.value.sum(), error.__notes__[0])
        print(make(10).sum(), make(20).sum())
    """
    (project / "script.py").write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    first, second, told, computed, last = done.stdout.splitlines()
    assert (first, second, computed, last) == ("computed", "computed", "computed", "10.0 20.0")
    assert told.startswith("100000.0 script.make,0 was computed all the same: its result is in the attribute `value`")


def test_folders_of_many_calls_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memoize, "_MOST_FOLDERS", 3)
    f = memo(folder=tmp_path, path="{uid}")(add)
    assert [f(x) for x in range(10)] == [f(x) for x in range(10)] == list(range(2, 12))
    assert len(f._infras) == 3
    assert len(calls) == 10


def test_a_forced_job_does_not_take_the_place_of_one_that_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = memo(folder=tmp_path, cluster="local")(slow_add).submit(1, str(go))
    timer = threading.Timer(0.5, go.touch)
    timer.start()
    forced = memo(folder=tmp_path, cluster="local", mode="force")(slow_add).submit(1, str(go))  # waits for the other one
    timer.join()
    assert forced.job_id != first.job_id
    assert forced.result() == 2
    assert go.read_text() == "xx"


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "add,0/call"), ({"version": "1.2"}, "add,1.2/call"), ({"prefix": "mine"}, "mine,0/call"), ({"job_name": "x"}, "x")],
)
def test_names_of_jobs(options: dict[str, tp.Any], name: str, tmp_path: Path) -> None:
    function = memo(folder=tmp_path, **options)(add)
    assert function._infra_of(function._keys.call((1,), {}))._resources().job_name == name


def test_texts_that_have_no_utf8_and_keys_that_are_no_texts(tmp_path: Path) -> None:
    calls = str(tmp_path / "calls")

    @memo(folder=tmp_path)
    def noted(value: tp.Any) -> str:
        with open(calls, "a") as stream:
            stream.write("called\n")
        return repr(value)

    values = [{1: 2}, {"1": 2}, {1.5: 2}, {None: 1}, {"None": 1}, {True: 1}, {(1, 2): 3}, {"a": {1: 2}}, "\ud800", "\\ud800"]
    for _ in range(2):
        assert [noted(value) for value in values] == list(map(repr, values))
    assert Path(calls).read_text().count("called") == len(values)
