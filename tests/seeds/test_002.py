"""What HitSave's page promises, as one would write it with this package."""

import functools
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import exca_like

seen: list[str] = []


@pytest.fixture(autouse=True)
def _own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen.clear()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


def test_results_outlive_the_process(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import exca_like

        @exca_like.memo
        def long_running(x, y):
            print("running")
            return x + y

        print(long_running(1, y=2))
        """
    )
    (tmp_path / "script.py").write_text(code)
    outputs = [subprocess.check_output([sys.executable, "script.py"], text=True, cwd=tmp_path).split() for _ in range(2)]
    assert outputs == [["running", "3"], ["3"]]


PIPELINE = """
    import exca_like

    def tidy(data):
        return [x * 2 for x in data]

    @exca_like.memo
    def ingest(source):
        print("ingest")
        return list(range(len(source)))

    @exca_like.memo
    def clean(data):
        print("clean")
        return tidy(data)

    @exca_like.memo
    def report(data):
        print("report")
        return sum(data)

    print(report(clean(ingest("logs"))))
"""


def test_edits_are_followed_through_the_code(tmp_path: Path) -> None:
    def run(code: str) -> list[str]:
        (tmp_path / "pipeline.py").write_text(textwrap.dedent(code))
        return subprocess.check_output([sys.executable, "pipeline.py"], text=True, cwd=tmp_path).split()

    assert run(PIPELINE) == ["ingest", "clean", "report", "12"]
    assert run(PIPELINE) == ["12"]
    assert run(PIPELINE.replace("x * 2", "x * 3")) == ["clean", "report", "18"]  # steps before it are not computed again
    assert run(PIPELINE.replace("sum(data)", "max(data)")) == ["report", "6"]
    assert run(PIPELINE) == ["12"]


def test_a_pipeline_goes_on_from_the_latest_step_that_is_unchanged() -> None:
    def make(version: str):
        @exca_like.memo
        def ingest(source):
            seen.append("ingest")
            return np.arange(5) + len(source)

        @exca_like.memo(version=version)
        def clean(data):
            seen.append("clean")
            return data * int(version)

        @exca_like.memo
        def report(data):
            seen.append("report")
            return int(data.sum())

        return lambda: report(clean(ingest("logs")))

    assert make("1")() == 30
    assert make("1")() == 30
    assert seen == ["ingest", "clean", "report"]
    assert make("2")() == 60  # an edited step: those before it are not computed again
    assert seen == ["ingest", "clean", "report", "clean", "report"]


experiment = functools.partial(exca_like.memo, pin=True)


def test_experiments_are_memos_that_are_never_removed() -> None:
    @exca_like.memo
    def get_datasets():
        seen.append("datasets")
        return np.linspace(0, 1, 8), np.linspace(1, 2, 4)

    @experiment()
    def train_model(lr, batch_size, epochs=3):
        training, test = get_datasets()
        seen.append("train")
        writer = [{"epoch": epoch, "accuracy": float(test.mean()) * lr * batch_size / (epoch + 1)} for epoch in range(epochs)]
        return training * lr, writer

    for lr in (0.01, 0.1):
        for batch_size in (100, 200):
            weights, curve = train_model(lr, batch_size)
            assert len(curve) == 3
            assert weights.shape == (8,)
    assert seen == ["datasets", *["train"] * 4]
    train_model(0.01, batch_size=200)  # instantaneous
    assert len(seen) == 5
    table = train_model.entries()
    assert [entry.config["lr"] for entry in table] == [0.01, 0.01, 0.1, 0.1]
    assert all(entry.is_pinned for entry in table)
    assert not any(entry.is_pinned for entry in get_datasets.entries())
    assert str(table).count("\n") == 4


def test_large_arguments_are_hashed_once_in_a_process() -> None:
    @exca_like.memo
    def mean(data):
        return float(data.mean())

    data = np.random.default_rng(0).random(300_000)
    first = mean(data)
    assert mean(data) == first
    data[0] += 1  # and what was changed in place is seen
    assert mean(data) != first
