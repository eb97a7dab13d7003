"""Folders of exca get the names of this package."""

import collections
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exca_like import ConfDict
from exca_like.compat.exca_jobs import read_job
from exca_like.errors import CacheFolderError, ConfigValueError
from exca_like.maintenance import Renaming, migrate_exca

SAMPLES = Path(__file__).parent / "exca_caches"
LONG_TAG = "a rather long tag, with punctuation: " + "x" * 60

LAB = """
from collections import OrderedDict
from typing import Any

import pydantic
from {package} import TaskInfra


class Optim(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    lr: float = 1e-3
    name: str = "adam"


class Train(pydantic.BaseModel):
    seed: int = 0
    tag: str = "base"
    optim: Optim = Optim()
    more: Any = None
    ordered: OrderedDict[str, int] = OrderedDict()
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def run(self) -> dict[str, float]:
        return {{"loss": self.seed + self.optim.lr}}
"""


@pytest.fixture(params=("0.4.8", "0.6.0"))
def cache(request, tmp_path) -> Path:
    return Path(shutil.copytree(SAMPLES / request.param, tmp_path / "cache"))


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The module of the samples' configs, with the infra of this package."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "lab.py").write_text(LAB.format(package="exca_like"))
    monkeypatch.syspath_prepend(tmp_path / "module")
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    yield importlib.import_module("lab")
    sys.modules.pop("lab", None)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def configs() -> list[dict]:
    return [
        {"seed": seed, **tag, **lr}
        for seed, tag in ((0, {}), (1, {}), (2, {"tag": LONG_TAG}))
        for lr in ({}, {"optim": {"lr": 0.0123}})
    ]


def make_folder(root: Path, method: str, config: dict, name: str | None = None, version: int = 3) -> Path:
    conf = ConfDict(config)
    folder = root / method / (name or conf.to_uid(version=version) or "default")
    folder.mkdir(parents=True)
    conf.to_yaml(folder / "uid.yaml")
    (folder / "content").write_text(str(config))
    return folder


# samples


def test_dry_run_changes_nothing(cache):
    before = tree(cache)
    planned = migrate_exca(cache)
    assert tree(cache) == before
    assert [renaming.problem for renaming in planned] == [None] * 6  # five of Train, one of Embed
    assert all(renaming.old.is_dir() and not renaming.new.exists() for renaming in planned)


def test_names_are_those_of_this_package(cache, lab):
    contents = {config: read_job(str(config.parent), lambda path: False) for config in cache.glob("lab.Train.run,1/*/job.pkl")}
    planned = migrate_exca(str(cache))
    done = migrate_exca(cache, dry_run=False)
    assert done == planned
    tasks = [lab.Train(**config, infra={"folder": cache}) for config in configs()]
    folders = {Path(task.infra.uid_folder()) for task in tasks}
    assert {path.parent for path in cache.glob("lab.Train.run,1/*/job.pkl")} == folders
    for task in tasks:
        loss = {"loss": task.seed + task.optim.lr}
        assert read_job(str(task.infra.uid_folder()), lambda path: False) == ("success", loss)
    assert len(contents) == len(tasks) == 6
    assert migrate_exca(cache) == migrate_exca(cache, dry_run=False) == []


def test_nothing_is_lost(cache):
    before = tree(cache)
    names = {str(r.old.relative_to(cache)): str(r.new.relative_to(cache)) for r in migrate_exca(cache, dry_run=False)}
    moved = {}
    for path, content in before.items():
        start = "/".join(path.split("/")[:2])
        moved[names.get(start, start) + path[len(start) :]] = content
    assert tree(cache) == moved


# by hand


@pytest.mark.parametrize("version", [2, 3])
def test_both_schemes(tmp_path, version):
    config = {"b": "some text", "a": {"x": 0.5, "y": [1, 2]}}
    folder = make_folder(tmp_path, "mod.Cls.run,0", config, version=version)
    new = folder.with_name(ConfDict(config).to_uid())
    assert migrate_exca(tmp_path, dry_run=False) == [Renaming(folder, new)]
    assert (new / "content").is_file()
    assert not folder.exists()


def test_what_is_left_alone(tmp_path):
    make_folder(tmp_path, "mod.Cls.run,0", {})
    make_folder(tmp_path, "mod.Cls.run,0", {"x": 1}, version=4)
    make_folder(tmp_path, "no version", {"x": 2})
    make_folder(tmp_path, "logs", {"x": 2})
    (tmp_path / "mod.Cls.run,0" / "logs" / "me").mkdir(parents=True)
    (tmp_path / "file.a,1").write_text("")
    (tmp_path / "mod.Cls.run,0" / "file").write_text("")
    before = tree(tmp_path)
    assert migrate_exca(tmp_path, dry_run=False, main_name="script") == []
    assert tree(tmp_path) == before


def test_problems(tmp_path):
    method = "mod.Cls.run,0"
    other = make_folder(tmp_path, method, {"x": 1}, name="a name of somebody")
    there = make_folder(tmp_path, method, {"x": "2"})
    target = make_folder(tmp_path, method, {"x": "2"}, version=4)
    broken = [make_folder(tmp_path, method, {}, name=f"broken {number}") for number in range(4)]
    for folder, content in zip(broken, (b"a: [", b"[1]", b"\xff\xfe\x00", b"1: 2\n"), strict=True):
        (folder / "uid.yaml").write_bytes(content)
    good = make_folder(tmp_path, method, {"y": 3})
    before = tree(tmp_path)
    done = {renaming.old: renaming for renaming in migrate_exca(tmp_path, dry_run=False)}
    assert done.pop(good) == Renaming(good, good.with_name("y=3-eccbc87e"))
    assert "exca names the config in uid.yaml" in done.pop(other).problem
    assert done.pop(there) == Renaming(there, target, f"there is a folder {target.name} already")
    assert list(done) == broken
    for renaming in done.values():
        assert renaming.new == renaming.old
        assert "can't be read" in renaming.problem
    (tmp_path / method / "y=3-eccbc87e").rename(good)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_two_folders_of_one_config(tmp_path, dry_run):
    first, second = (make_folder(tmp_path, "mod.Cls.run,0", {"x": "a b"}, version=version) for version in (2, 3))
    done = migrate_exca(tmp_path, dry_run=dry_run)
    first, second = sorted((first, second))
    new = first.with_name(ConfDict(x="a b").to_uid())
    assert done == [Renaming(first, new), Renaming(second, new, f"there is a folder {new.name} already")]
    assert second.exists()
    assert first.exists() == dry_run


def test_an_empty_target_is_not_overwritten(tmp_path):
    folder = make_folder(tmp_path, "mod.Cls.run,0", {"x": "a b"})
    folder.with_name(ConfDict(x="a b").to_uid()).mkdir()
    (renaming,) = migrate_exca(tmp_path, dry_run=False)
    assert "already" in renaming.problem
    assert folder.exists()


def test_rename_that_fails(tmp_path, monkeypatch):
    folders = [make_folder(tmp_path, "mod.Cls.run,0", {"x": text}) for text in ("a b", "c d")]
    rename = Path.rename

    def failing(self, target):
        if self == folders[0]:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    problems = {renaming.old: renaming.problem for renaming in migrate_exca(tmp_path, dry_run=False)}
    assert problems == {folders[0]: "it can't be renamed: Permission denied", folders[1]: None}


def test_methods_of_scripts(tmp_path):
    folder = make_folder(tmp_path, "__main__.Cls.run,0", {"x": "a b"})
    old = folder.parent
    (old / "logs" / "me").mkdir(parents=True)
    uid = ConfDict(x="a b").to_uid()
    planned = migrate_exca(tmp_path, main_name="train")
    assert planned == [Renaming(folder, old / uid), Renaming(old, tmp_path / "train.Cls.run,0")]
    assert migrate_exca(tmp_path) == planned[:1]
    assert migrate_exca(tmp_path, main_name="train", dry_run=False) == planned
    assert sorted(os.listdir(tmp_path / "train.Cls.run,0")) == ["logs", uid]
    assert os.listdir(tmp_path) == ["train.Cls.run,0"]


def test_method_of_a_script_that_is_there_already(tmp_path):
    folder = make_folder(tmp_path, "__main__.Cls.run,0", {"x": 1}, version=4)
    make_folder(tmp_path, "train.Cls.run,0", {"x": 1}, version=4)
    before = tree(tmp_path)
    (renaming,) = migrate_exca(tmp_path, main_name="train", dry_run=False)
    assert renaming.old == folder.parent
    assert renaming.problem == "there is a folder train.Cls.run,0 already"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a,b", "a\\b"])
def test_wrong_main_name(tmp_path, name):
    with pytest.raises(ConfigValueError, match="main_name"):
        migrate_exca(tmp_path, main_name=name)


def test_no_such_folder(tmp_path):
    with pytest.raises(CacheFolderError, match="there is no folder .*missing"):
        migrate_exca(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="there is no folder"):
        migrate_exca(tmp_path / "file")


# the real exca

VALUES = [
    0.5,
    1e-9,
    1e300,
    "",
    "yes",
    "1e5",
    "a: b\nc",
    "déjà/vu",
    "x" * 300,
    [1, [2, {"a": {"b": 1}}]],
    {"a.b": None},
]

RUN = """
import sys
import lab

infra = {{"folder": sys.argv[1]}}
for value in {values}:
    lab.Train(more=value, infra=infra).run()
lab.Train(ordered={{"b": 1, "a": 2}}, infra=infra).run()
"""


def test_fresh_folders(tmp_path, lab):
    pytest.importorskip("exca", reason="the real exca is not installed")
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "lab.py").write_text(LAB.format(package="exca"))
    (tmp_path / "fresh" / "script.py").write_text(RUN.format(values=VALUES))
    command = [sys.executable, "script.py", str(tmp_path / "cache")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path / "fresh")
    cache = tmp_path / "cache"
    done = migrate_exca(cache, dry_run=False)
    as_stored = [ConfDict({"more": value})["more"] for value in VALUES]  # for exca, dots in keys are no part of them
    wanted = {Path(lab.Train(more=value, infra={"folder": cache}).infra.uid_folder()) for value in as_stored}
    method = cache / "lab.Train.run,1"
    unknown = [renaming for renaming in done if renaming.problem]
    assert wanted == {path for path in method.iterdir() if (path / "job.pkl").is_file()} - {r.old for r in unknown}
    # the uid.yaml of exca does not tell an OrderedDict from a dict
    assert [ConfDict.from_yaml(r.old / "uid.yaml") for r in unknown] == [{"ordered": {"b": 1, "a": 2}}]
    assert collections.Counter(r.problem is None for r in done)[True] >= 6
