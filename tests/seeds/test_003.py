"""What persist_to_disk's page shows, as one would write it with this package.

Hash buckets and the granularity of locks have no counterpart: each call has an entry of its own, and claims keep callers of the
same call apart, and no others.
"""

import multiprocessing
from pathlib import Path

import pytest

import exca_like
from exca_like.memos.paths import default_root


class Linear:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def save(self, path: Path) -> None:
        path.write_text(f"weights of {self.size}")


class Conv(Linear): ...


calls: list[tuple[object, ...]] = []


@exca_like.memo(exclude=["device"], group_by=["dataset", "epochs"])
def train_a_model(dataset, model_cls, model_kwargs, lr, epochs, device="cpu"):
    calls.append((dataset, model_cls, model_kwargs, lr, epochs))
    model = model_cls(**model_kwargs)
    return {"kind": type(model).__name__, "size": model.size, "lr": lr}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    calls.clear()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    train_a_model.__dict__.pop("_places", None)
    train_a_model._infras.clear()
    return tmp_path


def test_groups_dictionaries_and_what_is_skipped(project: Path) -> None:
    result = train_a_model("MNIST", Linear, {"size": 3}, 1e-3, 30)
    assert result == {"kind": "Linear", "size": 3, "lr": 0.001}
    assert train_a_model("MNIST", Linear, {"size": 3}, 1e-3, 30, device="cuda:0") == result
    assert len(calls) == 1
    train_a_model("MNIST", Conv, {"size": 3}, 1e-3, 30)
    train_a_model("MNIST", Linear, {"size": 4}, 1e-3, 30)  # dictionaries need nothing to be said
    train_a_model("CIFAR10", Linear, {}, 1e-3, epochs=10)
    assert len(calls) == 4
    (folder,) = (project / ".exca_like").glob("*,*")
    assert folder.name == "test_003.train_a_model,0"
    found = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
    assert found == ["dataset=CIFAR10/epochs=10", "dataset=MNIST/epochs=30"]


def test_where_results_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_root() == f"{project}/.exca_like"
    (project / "pyproject.toml").write_text('[tool.exca_like]\nmemo_folder = "/scratch/cache"\n')
    assert default_root() == "/scratch/cache"
    notebooks = project / "notebook"
    notebooks.mkdir()
    monkeypatch.chdir(notebooks)
    assert default_root() == "/scratch/cache"


def test_multiprocessing(project: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        arguments = [("MNIST", Linear, {"size": size % 3}, 0.1, 2) for size in range(12)]
        results = pool.starmap(train_a_model, arguments)
    assert [result["size"] for result in results] == [size % 3 for size in range(12)]
    assert len(train_a_model.entries()) == 3
