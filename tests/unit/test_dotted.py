"""Keys of dictionaries in configs that have dots of their own, like file names and names of weights."""

import os
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
    (tmp_path / "own.yaml").write_text("tags:\n  g.h: 1\n")
    assert call("run", "train:Train", "@own.yaml").strip().strip('"') == "{'g.h': 1}"
    assert "2 completed" in call("run", "train:Train", 'tags={"i.j": 1},{"i": {"j": 1}}')
    assert r"tags.c\\.d" in call("table", "--json") and "c.d" in call("ls", "--where", r"tags.c\.d=1")
