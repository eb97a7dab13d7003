"""Folders that exca wrote serve this package as they are: values of maps, and results of tasks once they are renamed."""

import importlib
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from exca_like.cachedict import CacheDict
from exca_like.maintenance import compact, migrate_exca, verify

CACHES = Path(__file__).with_name("exca_caches")
VERSIONS = ("0.4.8", "0.6.0")
LAB = textwrap.dedent("""
    import exca_like as exca, pydantic

    class Optim(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        lr: float = 1e-3
        name: str = "adam"

    class Train(pydantic.BaseModel):
        seed: int = 0
        tag: str = "base"
        optim: Optim = Optim()
        infra: exca.TaskInfra = exca.TaskInfra(version="1")

        @infra.apply
        def run(self) -> dict[str, float]:
            raise AssertionError("nothing is to be computed")
""")
TAGS = {2: "a rather long tag, with punctuation: " + "x" * 60}


@pytest.fixture(params=VERSIONS)
def root(request, tmp_path: Path) -> Path:
    return Path(shutil.copytree(CACHES / request.param, tmp_path / "cache"))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch):
    (tmp_path / "lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    yield importlib.import_module("lab")
    sys.modules.pop("lab", None)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_map_values(root: Path) -> None:
    before = contents(root)
    for name, size, scale in (("default", 4, 1.0), ("dim=2,scale=0.12-1e48061e", 2, 0.123456)):
        cache = CacheDict(root / "lab.Embed.process,1" / name)
        assert sorted(cache) == list("01234")
        for key, value in cache.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, np.full(size, int(key) * scale, np.float32))
    words = dict(CacheDict(root / "lab.Words.process,1" / "default").items())
    assert words.keys() == {"alpha", "beta"}
    for word, value in words.items():
        assert value["n"] == len(word)
        np.testing.assert_array_equal(value["codes"], [ord(letter) for letter in word])
    assert contents(root) == before


def test_task_results(root: Path, lab) -> None:
    migrate_exca(root, dry_run=False)
    before = contents(root)
    for seed in (0, 1, 2):
        for lr in (1e-3, 0.0123):
            task = lab.Train(seed=seed, tag=TAGS.get(seed, "base"), optim={"lr": lr}, infra={"folder": root})
            assert task.infra.status() == "completed"
            assert task.run() == {"loss": seed + lr}
            read_only = task.infra.clone_obj({"infra.mode": "read-only"})
            assert read_only.run() == {"loss": seed + lr}
    found = list(lab.Train(infra={"folder": root}).infra.iter_cached())
    assert sorted((task.seed, task.optim.lr) for task in found) == [(s, lr) for s in (0, 1, 2) for lr in (1e-3, 0.0123)]
    assert contents(root) == before


def test_folders_of_exca_as_read_folders(root: Path, lab) -> None:
    migrate_exca(root, dry_run=False)
    before = contents(root)
    task = lab.Train(optim={"lr": 0.0123}, infra={"folder": root.parent / "own", "read_folders": [root]})
    assert task.infra.status() == "completed"
    assert task.run() == task.infra.job().result() == {"loss": 0.0123}
    assert len(list(task.infra.iter_cached())) == 6
    assert not (root.parent / "own").exists()
    assert contents(root) == before


def test_own_results_take_the_place_of_those_by_exca(root: Path, lab) -> None:
    migrate_exca(root, dry_run=False)
    task = lab.Train(infra={"folder": root, "mode": "force"})
    with pytest.raises(AssertionError, match="nothing is to be computed"):
        task.run()
    assert lab.Train(infra={"folder": root}).infra.status() == "failed"
    lab.Train(infra={"folder": root}).infra.clear_job()
    assert lab.Train(infra={"folder": root}).infra.status() == "not submitted"


def test_entries_of_exca_can_be_deleted_and_are_not_edited(root: Path) -> None:
    folder = root / "lab.Embed.process,1" / "default"
    before = contents(folder)
    cache = CacheDict(folder)
    with cache.write():
        del cache["3"]
        cache["3"] = np.zeros(2)
    assert CacheDict(folder)["3"].shape == (2,)
    assert len(CacheDict(folder)) == 5
    assert before.items() <= contents(folder).items()
    assert verify(root).is_clean
    compact(root)
    assert CacheDict(folder)["3"].shape == (2,)
    assert before.items() <= contents(folder).items()


def test_entries_that_exca_deleted_meanwhile(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CACHES / "0.6.0" / "lab.Embed.process,1" / "default", tmp_path / "folder"))
    cache = CacheDict(folder)
    assert len(cache) == 5
    (journal,) = folder.glob("*-info.jsonl")
    first, *others = journal.read_text().splitlines(keepends=True)
    journal.write_text(" " * (len(first) - 1) + "\n" + "".join(others))  # as exca deletes
    assert sorted(cache) == list("0123")
    assert "4" not in CacheDict(folder)
