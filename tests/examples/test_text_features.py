"""The example of maps, run as a user runs it: in its own process, on a pool of processes."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "text_features.py"


def run(folder: Path, *args: str) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    found = subprocess.run(
        [sys.executable, str(SCRIPT), *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def counts(stdout: str) -> tuple[int, ...]:
    """Files in all, cached, to compute."""
    found = re.match(r"(\d+) files of Python [^:]+: (\d+) cached, (\d+) to compute", stdout)
    assert found is not None, stdout
    return tuple(map(int, found.groups()))


def table(stdout: str) -> list[str]:
    lines = stdout.splitlines()
    (start,) = [k for k, line in enumerate(lines) if line.startswith("package ")]
    return [line for line in lines[start + 1 :] if not line.startswith("plot: ")]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("text_features", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "text_features", module)  # pydantic looks it up
    spec.loader.exec_module(module)
    return module


def test_second_run_is_cached(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = run(tmp_path, "--files", "60")
    assert counts(first) == (60, 0, 60)
    assert "(processpool)" in first
    assert len(table(first)) > 3
    png = tmp_path / first.splitlines()[-1].removeprefix("plot: ")
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    drawn = png.stat().st_mtime_ns
    second = run(tmp_path, "--files", "60")
    assert counts(second) == (60, 60, 0)
    assert "; read in " in second
    assert table(second) == table(first)
    assert png.stat().st_mtime_ns == drawn


def test_clusters_agree_and_share(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = run(tmp_path, "--files", "30", "--cluster", "none")
    assert counts(first) == (30, 0, 30)
    # every second of these files is one of those above
    second = run(tmp_path, "--files", "60", "--cluster", "threadpool")
    assert counts(second) == (60, 30, 30)
    alone = run(tmp_path, "--files", "60", "--folder", "other", "--cluster", "local")
    assert counts(alone) == (60, 0, 60)
    assert table(alone) == table(second)


def test_numbers(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "STDLIB", tmp_path)
    texts = {
        "a.py": "def f(self):\n    return self  # return\n",
        "b.py": "x = 'return'\n",
        "bad.py": "# coding: wrong\n",
        "no.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in texts]

    features = example.TextFeatures(words=("def", "return", "self"))
    a, b, bad, nothing = features.process(paths)
    assert a.tolist()[1:4] == [2, 5, 4]  # lines, words, distinct words
    assert a.tolist()[5:] == [1, 1, 2]
    assert b.tolist()[2:4] == [1, 1] and b.tolist()[5:] == [0, 0, 0]
    assert bad is None
    assert nothing.tolist() == [0] * 8
    assert example.entropy(b"abcdabcd") == 2

    key = example.file_uid(paths[0])
    assert key.startswith("a.py-") and key == example.file_uid(paths[0])
    (tmp_path / "a.py").write_text("def g(): pass\n")
    assert example.file_uid(paths[0]) != key


def test_surplus_compares_with_others(example: ModuleType) -> None:
    n_sums = len(example.SUMS)
    row = np.zeros(n_sums + 3)
    row[example.SUMS.index("words")] = 100_000
    groups = {}
    for name, number in (("a", 4000), ("b", 1000), ("c", 1000)):
        groups[name] = row.copy()
        groups[name][n_sums : n_sums + 2] = number, 0  # the second word is never used
    more = example.surplus(groups)
    assert more[0, 0] == pytest.approx(1, abs=0.01)  # twice as often as in the mean of the three
    assert more[1, 0] == pytest.approx(-1, abs=0.01)
    assert np.all(np.abs(more[:, 1]) < 0.01)
