"""What Curifactory's page on its cache shows, as one would write it with this package."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import exca_like
from exca_like.cachedict import CacheDict, DumpContext, FileEntry
from exca_like.lazy import Lazy

pd = pytest.importorskip("pandas")
loaded: list[str] = []


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.clear()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


def test_a_cacher_for_each_output(tmp_path: Path) -> None:
    @exca_like.memo(cache_type={"dataset": "PandasJson", "metrics_dictionary": "Json", "model": "Pickle"})
    def return_all_the_things(record):
        loaded.append("computed")
        return {"dataset": pd.DataFrame({"a": [1, 2]}), "metrics_dictionary": {"f1": 0.5}, "model": {"w": (1, 2)}}

    first = return_all_the_things("x")
    again = return_all_the_things("x")
    assert loaded == ["computed"]
    assert again["dataset"].equals(first["dataset"])
    assert (again["metrics_dictionary"], again["model"]) == ({"f1": 0.5}, {"w": (1, 2)})
    (file,) = tmp_path.glob(".exca_like/*/data/*/*.json")  # one can look into the cache without a script
    assert json.loads(file.read_text()) == [{"a": 1}, {"a": 2}]


class Network:
    def __init__(self, weights):
        self.weights = weights


class Experiment:
    def __init__(self, name, model):
        self.name, self.model = name, model


@DumpContext.register(default_for=Experiment)
class ExperimentCacher:
    """A cacher of two files."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        weights, rest = ctx.key_path("_model.npy"), ctx.key_path(".json")
        np.save(ctx.folder / weights, value.model.weights)
        (ctx.folder / rest).write_text(json.dumps({"name": value.name}))
        return {"weights": weights, "rest": rest, "the_best_number": 13}  # metadata that are kept with it

    @classmethod
    def __load_from_info__(cls, ctx, weights, rest, the_best_number):
        assert the_best_number == 13
        loaded.append("experiment")
        name = json.loads(Path(ctx.path(rest)).read_text())["name"]
        return Experiment(name, Network(np.load(ctx.path(weights))))


def test_a_cacher_of_ones_own_with_two_files(tmp_path: Path) -> None:
    @exca_like.memo
    def train_model(size):
        return Experiment("first", Network(np.ones(size)))

    train_model(3)
    again = train_model(3)
    assert (again.name, again.model.weights.tolist(), loaded) == ("first", [1.0, 1.0, 1.0], ["experiment"])
    assert len(list(tmp_path.glob(".exca_like/*/data/*/*"))) == 2


def test_arguments_of_cachers(tmp_path: Path) -> None:
    static = exca_like.memo(path="reference", subdir="artifacts")(transform)  # overwrite_path, subdir
    shared = exca_like.memo(prefix="any_experiment", track=False)(transform)
    assert static(1) == shared(1) == 2
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob(".exca_like/**/full-uid.yaml")}
    assert folders == {".exca_like/artifacts/reference", ".exca_like/any_experiment,0"}
    (journal,) = tmp_path.glob(".exca_like/any_experiment,0/*-info.jsonl")
    assert json.loads(journal.read_text())["#meta"]["track"] is False


def transform(x):
    return x + 1


def test_inline_cachers(tmp_path: Path) -> None:
    path = tmp_path / "artifacts" / "metrics.json"
    FileEntry(path, metadata={"run": 7}).save({"f1": 0.5})
    assert json.loads(path.read_text()) == {"f1": 0.5}
    cacher = FileEntry(path)
    assert cacher.load() == {"f1": 0.5}
    assert cacher.metadata["extra"] == {"run": 7}
    frame = pd.DataFrame({"a": [1.5]})
    FileEntry("table.csv").save(frame)
    assert FileEntry("table.csv").load().equals(frame)


def test_metadata_are_kept_with_each_artifact() -> None:
    @exca_like.memo
    def metrics(lr):
        return {"f1": lr}

    metrics(0.5)
    (entry,) = metrics.entries()
    assert entry.config == {"lr": 0.5}
    assert entry.time is not None
    described = CacheDict(entry.folder).describe(entry.key)["#meta"]
    assert {"time", "duration", "host", "pid", "config"} <= described.keys()


def test_references_to_files(tmp_path: Path) -> None:
    @exca_like.memo(cache_type="Files")
    def download(name):
        loaded.append(name)
        file = tmp_path / f"{name}.txt"
        file.write_text(f"content of {name}")
        return {"text": file, "size": file.stat().st_size}

    first = download("a")
    (tmp_path / "a.txt").unlink()
    again = download("a")
    assert again["text"].read_text() == "content of a"
    assert again["size"] == first["size"]
    assert loaded == ["a"]
    again["text"].chmod(0o644)
    again["text"].unlink()  # a missing file is a miss
    with pytest.warns(exca_like.errors.CorruptEntryWarning):
        assert download("a")["text"].read_text() == "content of a"
    assert loaded == ["a", "a"]


def test_notebooks(tmp_path: Path) -> None:
    @exca_like.memo(cache_type="Notebook")
    def report(name):
        return [["import pandas", f"name = {name!r}"], ["print(name)"]]

    report("x")
    assert report("x") == [["import pandas", "name = 'x'"], ["print(name)"]]
    (file,) = tmp_path.glob(".exca_like/*/data/*/*.ipynb")
    assert json.loads(file.read_text())["nbformat"] == 4


def test_lazy_objects() -> None:
    @exca_like.memo
    def stage(n):
        return {"small_object": n, "large-object": Experiment("large", Network(np.ones(n)))}

    handle = stage.lazy(4)["large-object"]
    assert not loaded
    pickled = pickle.dumps(stage.lazy(4)["small_object"])
    assert pickle.loads(pickled).load() == 4
    assert not loaded  # one output alone

    @exca_like.memo
    def next_stage(experiment):
        return experiment.name

    @exca_like.memo
    def with_path(experiment: Lazy[Experiment]):  # resolve=False
        return experiment.path.is_dir()

    assert next_stage(handle) == "large"
    assert loaded == ["experiment"]
    assert next_stage(stage.lazy(4)["large-object"]) == "large"
    assert loaded == ["experiment"]
    assert with_path(handle)
