"""Keys of dictionaries in configs that have dots of their own, like file names and names of weights."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exca_like
from exca_like import ConfDict, dotted, errors
from exca_like.catalog import Catalog
from exca_like.confdict import verbatim
from exca_like.helpers import DiscriminatedModel
from exca_like.rebuilding import rebuild
from exca_like.uid import config_uid


class Optim(pydantic.BaseModel, extra="forbid"):
    lr: float = 1.0
    lrs: dict[str, float] = {}


class Loss(DiscriminatedModel):
    pass


class Weighted(Loss):
    weights: dict[str, float] = {}


class Names(pydantic.RootModel[dict[str, int]]):
    pass


class Train(pydantic.BaseModel):
    tags: dict[str, Any] = {}
    lrs: dict[str, float] = {}
    ordered: OrderedDict[str, int] = OrderedDict()
    listed: list[dict[str, int]] = []
    optim: Optim = Optim()
    parts: dict[str, Optim] = {}
    several: list[Optim] = []
    loss: Loss | None = None
    names: Names = Names({})
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> str:
        return repr(self.model_dump(exclude={"infra"}))


CONFIGS: list[dict[str, Any]] = [
    {"tags": {"a.b": 1}},
    {"tags": {"a": {"b": 1}}},
    {"tags": {"a.b": 1, "a": {"b": 1}}},
    {"tags": {"a\\.b": 1}},
    {"tags": {"a\\": {"b": 1}}},
    {"tags": {"..": 1, ".hidden": {"x.": 2}, "": 3}},
    {"tags": {"a": [{"b.c": {"d": 1}}]}},
    {"tags": {"a": OrderedDict({"b.c": 1})}},
    {"lrs": {"encoder": 1e-4, "encoder.head": 1e-3}},
    {"lrs": {"encoder": 5e-4, "encoder.head": 1e-3}},
    {"lrs": {"encoder.head": 1e-3, "encoder": 5e-5}},
    {"lrs": {"encoder.head": 1e-3}},
    {"ordered": {"b.c": 1, "a.d": 2}},
    {"listed": [{"b.c": 1}]},
    {"optim": {"lrs": {"a.b": 1}}},
    {"parts": {"first.one": {"lrs": {"a.b": 2}}}},
    {"several": [{"lrs": {"a.b": 2}}]},
    {"loss": {"type": "Weighted", "weights": {"a.b": 1.0}}},
    {"names": {"a.b": 1}},
]


def test_each_has_its_own_result_and_is_made_again(tmp_path: Path) -> None:
    configs = [Train(**config, infra={"folder": tmp_path}) for config in CONFIGS]
    results = [config.run() for config in configs]
    assert len(set(results)) == len(CONFIGS)
    again = [Train(**config, infra={"folder": tmp_path}) for config in CONFIGS]
    assert [config.infra.status() for config in again] == ["completed"] * len(CONFIGS)
    assert [config.run() for config in again] == results
    assert sorted(config.run() for config in again[0].infra.iter_cached()) == sorted(results)
    assert sorted(rebuild(entry).run() for entry in Catalog(tmp_path)) == sorted(results)
    assert len(list(Catalog(tmp_path))) == len(CONFIGS)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_copies_are_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    base, expected = Train(infra={"folder": tmp_path}), Train(**config, infra={"folder": tmp_path})
    exported = expected.infra.config(exclude_defaults=True)
    if config != {"parts": {"first.one": {"lrs": {"a.b": 2}}}}:  # names of models' fields may be there, too
        assert base.infra.clone_obj(config) == expected
        ((name, value),) = config.items()
        if name not in ("ordered", "several"):
            (swept,) = exca_like.sweep(base, {name: [value]})
            assert swept == expected
    assert base.infra.clone_obj(exported.flat()) == expected
    assert expected.infra.clone_obj(optim={"lr": 2}).infra.clone_obj({"optim.lr": 1}) == expected
    assert ConfDict.from_yaml(exported.to_yaml()) == exported == ConfDict(exported.flat()) == exported.copy()
    from_file = Train(**ConfDict.from_yaml(expected.infra.config(uid=False).to_yaml()))
    assert from_file.run() == expected.run() and from_file.infra.uid() == expected.infra.uid()


def test_patches_of_such_dictionaries(tmp_path: Path) -> None:
    config = Train(tags={"train.csv": 1}, lrs={"a.b": 1})
    assert config.infra.clone_obj(tags={"test.csv": 2}).tags == {"train.csv": 1, "test.csv": 2}
    assert config.infra.clone_obj({"tags": {"test.csv": 2}}, {"tags": {"x.csv": 3}}).tags.keys() == {
        "train.csv",
        "test.csv",
        "x.csv",
    }
    assert config.infra.clone_obj({"tags.train.csv": 2}).tags == {"train.csv": 2}, "as it is there"
    assert config.infra.clone_obj({"tags.test\\.csv": 2}).tags == {"train.csv": 1, "test.csv": 2}
    assert config.infra.clone_obj({"tags.test.csv": 2}).tags == {"train.csv": 1, "test": {"csv": 2}}
    replaced = config.infra.clone_obj(tags={"=replace=": True, "x.y": {"z.w": 1}})
    assert replaced.tags == {"x.y": {"z.w": 1}} == replaced.infra.clone_obj({"optim.lr": 3}).tags
    assert config.infra.clone_obj(tags={"train.csv": "=delete="}).tags == {}
    assert config.infra.clone_obj({"optim": {"lrs": {"a.b": 1}}, "optim.lr": 2}).optim == Optim(lr=2, lrs={"a.b": 1})
    assert config.infra.clone_obj({"parts": {"first.lr": 3}}).parts == {"first": Optim(lr=3)}
    assert [one.lrs for one in exca_like.sweep(Train(infra={"folder": tmp_path}), {"lrs.a\\.b": [1, 2]})] == [
        {"a.b": 1},
        {"a.b": 2},
    ]


def test_look_ups() -> None:
    config = Train(lrs={"encoder": 1, "encoder.head": 2}).infra.config(exclude_defaults=True)
    assert config["lrs"]["encoder.head"] == config["lrs.encoder.head"] == config["lrs.encoder\\.head"] == 2
    assert "lrs.encoder.head" in config and "lrs.encoder.tail" not in config and config.get("lrs..x") is None
    assert config.flat() == {"lrs.encoder": 1, "lrs.encoder\\.head": 2}
    config["lrs"]["encoder.head"] = 3
    assert config["lrs"] == {"encoder": 1, "encoder.head": 3}
    config["lrs.other\\.head"] = 4
    assert config["lrs"].pop("encoder.head") == 3 and config.pop("lrs.other\\.head") == 4
    assert config["lrs"] == {"encoder": 1}
    with pytest.raises(errors.ConfigValueError, match=r"a dot that is part of a key is written \\\."):
        ConfDict({"a..b": 1})


def test_writing_is_where_reading_is() -> None:
    given = {"lrs": {"encoder": 1, "encoder.head": 2}, "parts": [{"a.b": 1}]}
    for key in ("lrs.encoder.head", "lrs.encoder\\.head"):
        config = verbatim(given)
        config[key] = 5
        assert config[key] == 5 and config["lrs"] == {"encoder": 1, "encoder.head": 5}
        assert (config | {key: 7})["lrs"] == {"encoder": 1, "encoder.head": 7}
        assert (config | {"lrs": {"encoder.head": 8}})["lrs"] == {"encoder": 1, "encoder.head": 8}
        assert key in config and config.pop(key) == 5 and config["lrs"] == {"encoder": 1}
    config = verbatim(given)
    assert config["parts.0.a.b"] == 1
    config["parts.0.a.b"] = 2
    assert config["parts"] == [{"a.b": 2}]
    both = verbatim({"a.b": 1, "a": {"b": 2}, "a\\.b": 3})
    assert [both[key] for key in both.flat()] == [1, 2, 3] and both["a.b"] == 2, "dots split, if that leads somewhere"


class Own(ConfDict):
    pass


@pytest.mark.parametrize("cls", [ConfDict, Own])
def test_copies_of_configs(cls: type[ConfDict]) -> None:
    config = cls(verbatim({"lrs": {"encoder": 1, "encoder.head": 2}, "a.b": [OrderedDict({"c.d": 1})]}))
    copies = [copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.copy(), cls(config)]
    for one in [*copies, config | {}]:
        assert one == config and type(one) is cls
    assert cls(config, z=1) == {**config, "z": 1}


@dataclasses.dataclass
class Inner:
    x: int = 1


@dataclasses.dataclass
class Options:
    inner: Inner = dataclasses.field(default_factory=Inner)


class Part(pydantic.BaseModel, extra="forbid"):
    name: str = "n"
    optim: Optim = Optim()


class Tree(pydantic.RootModel["dict[str, Tree] | int"]):
    pass


class Wide(pydantic.BaseModel, extra="allow"):
    options: Options = Options()
    other: Options | None = None
    several: list[Options] = []
    tree: Tree = Tree(1)
    parts: dict[str, Part] = {}
    texts: dict[str, str] = {}
    kept: Any = None
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> str:
        return repr(self)


def test_what_names_lead_to() -> None:
    def changed(*args: Any, **kwargs: Any) -> Wide:
        return Wide().infra.clone_obj(*args, **kwargs)

    assert changed(options={"inner.x": 3}).options == changed(other={"inner.x": 3}).other == Options(Inner(3))
    assert changed(several=[{"inner.x": 3}]).several == [Options(Inner(3))]
    assert changed(tree={"a": {"b": 1}}).tree == Tree({"a": Tree({"b": Tree(1)})})
    named = Wide(parts={"name": Part(), "with.dot": Part()})
    assert named.infra.clone_obj(parts={"name": {"optim.lr": 3}}).parts["name"] == Part(optim=Optim(lr=3))
    assert named.infra.clone_obj(parts={"with.dot": {"optim.lr": 3}}).parts["with.dot"] == Part(optim=Optim(lr=3))
    assert named.infra.clone_obj({"parts.with.dot.optim.lr": 3}).parts["with.dot"] == Part(optim=Optim(lr=3))
    assert changed(named.infra.config(exclude_defaults=True)) == named
    assert changed(extra={"c.d": 1}).extra == {"c.d": 1}
    wide = Wide(**{"a.b": 1, "x": {"p.q": 1}})
    assert changed(wide.infra.config(exclude_defaults=True)) == wide == wide.infra.clone_obj(texts={})
    assert wide.infra.clone_obj(x={"p.q": 2}).x == {"p.q": 2}


def test_jobs_of_copies(tmp_path: Path) -> None:
    config = Train(infra={"folder": tmp_path, "cluster": "local"}).infra.clone_obj(tags={"a": {"b.c": 1}})
    assert copy.deepcopy(config).tags == config.model_copy(deep=True).tags == {"a": {"b.c": 1}}
    assert "{'a': {'b.c': 1}}" in config.run()


def with_default(value: float, folder: Path) -> Any:
    class Inside(pydantic.BaseModel, extra="forbid"):
        lr: float = value
        lrs: dict[str, float] = {"a.b": value}

    class Outside(pydantic.BaseModel):
        inside: Inside = Inside()
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=folder, version="1")

        @infra.apply
        def run(self) -> float:
            return self.inside.lr

    return Outside()


def test_another_config_in_the_folder_is_told_by_its_fields(tmp_path: Path) -> None:
    with_default(1.0, tmp_path).run()
    explanation = with_default(2.0, tmp_path).infra.explain()
    assert [one.name for one in explanation.differences] == ["inside.lr", "inside.lrs.a\\.b"]


keys = st.text(alphabet=".\\ab=", max_size=5)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=2), max_leaves=8
)


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@given(st.dictionaries(keys, trees, max_size=3), st.dictionaries(keys, trees, max_size=3))
def test_nothing_is_lost(first: dict[str, Any], second: dict[str, Any]) -> None:
    config = verbatim(first)
    assert ConfDict.from_yaml(config.to_yaml()) == first == config.copy() == ConfDict(config)
    if not any("=" in key for key in (str(first), str(second))):
        assert (config_uid(first) == config_uid(second)) == (first == second)


@given(st.lists(keys.filter(lambda key: key and key[-1] != "\\"), min_size=1, max_size=4))
def test_keys_are_split_as_they_were_joined(parts: list[str]) -> None:
    assert dotted.split(".".join(map(dotted.escape, parts))) == parts


def test_from_the_shell(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        "import typing, pydantic, exca_like\n"
        "class Train(pydantic.BaseModel):\n"
        "    tags: dict[str, typing.Any] = {}\n"
        "    texts: dict[str, str] = {}\n"
        "    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder='cache')\n"
        "    @infra.apply\n"
        "    def run(self) -> str:\n"
        "        return repr(self.tags)\n"
    )

    def call(*words: str) -> str:
        command = [sys.executable, "-m", "exca_like", *words]
        environment = {name: value for name, value in os.environ.items() if name != "EXCA_LIKE_FOLDER"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert call("run", "train:Train", 'tags={"a.b": 1}').strip().strip('"') == "{'a.b': 1}"
    assert call("run", "train:Train", r"tags.c\.d=1").strip().strip('"') == "{'c.d': 1}"
    (tmp_path / "base.yaml").write_text(call("run", "train:Train", 'tags={"e.f": 1}', "--print-config"))
    assert call("run", "train:Train", "@base.yaml").strip().strip('"') == "{'e.f': 1}"
    (tmp_path / "own.yaml").write_text("tags:\n  g\\.h: 1\n")
    assert call("run", "train:Train", "@own.yaml").strip().strip('"') == "{'g.h': 1}"
    said = call("run", "train:Train", 'tags={"a": {"b": 1}, "c.d": 2, "e": {"f.g": 1}}', "--print-config")
    (tmp_path / "base.yaml").write_text(said)
    assert call("run", "train:Train", "@base.yaml", "--print-config") == said
    assert call("run", "train:Train", "@base.yaml").strip().strip('"') == "{'a': {'b': 1}, 'c.d': 2, 'e': {'f.g': 1}}"
    assert call("run", "train:Train", r"texts.c\.d=12", "--print-config").splitlines()[1] == r"texts.c\.d: '12'"
    assert "2 completed" in call("run", "train:Train", 'tags={"i.j": 1},{"i": {"j": 1}}')
    assert r"tags.c\\.d" in call("table", "--json") and "c.d" in call("ls", "--where", r"tags.c\.d=1")
