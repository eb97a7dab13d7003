"""The main example, run as a user runs it: in its own process, on local processes."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "digits_sweep.py"


def sweep(folder: Path, *args: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(script), "--quick", "--cluster", "local", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def figure(folder: Path, stdout: str) -> Path:
    """The figure the sweep says it has drawn."""
    (line,) = [ln for ln in stdout.splitlines() if ln.startswith("heat map: ")]
    return folder / line.removeprefix("heat map: ")


def table(stdout: str) -> list[str]:
    lines = stdout.splitlines()
    (start,) = [k for k, line in enumerate(lines) if line.startswith("accuracy")]
    (end,) = [k for k, line in enumerate(lines) if line.startswith("heat map: ")]
    return lines[start + 1 : end]


def test_sweep(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = sweep(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    counts = "grid: 4 experiments: 0 cached, 0 running, 4 to compute on local\n"
    assert first.stdout.startswith(counts)
    assert "4/4 done, 0 failed" in first.stdout
    png = figure(tmp_path, first.stdout)
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    accuracies = [float(line.split("%")[0]) for line in table(first.stdout)]
    assert len(accuracies) == 4
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 90  # three epochs are enough for that

    # Again: nothing is computed, nothing is drawn, the answer is the same.
    drawn = png.stat().st_mtime_ns
    start = time.monotonic()
    second = sweep(tmp_path)
    assert time.monotonic() - start < 2
    assert second.returncode == 0, second.stdout + second.stderr
    counts = "grid: 4 experiments: 4 cached, 0 running, 0 to compute\n"
    assert second.stdout.startswith(counts)
    assert " done, " not in second.stdout
    assert table(second.stdout) == table(first.stdout)
    assert figure(tmp_path, second.stdout) == png
    assert png.stat().st_mtime_ns == drawn

    # One more learning rate: only the new experiments run.
    third = sweep(tmp_path, "--lr", "0.01", "0.03", "0.1")
    assert third.returncode == 0, third.stdout + third.stderr
    counts = "grid: 6 experiments: 4 cached, 0 running, 2 to compute on local\n"
    assert third.stdout.startswith(counts)
    assert "2/2 done, 0 failed" in third.stdout
    assert set(table(first.stdout)) < set(table(third.stdout))
    assert figure(tmp_path, third.stdout).exists()
    assert figure(tmp_path, third.stdout) != png


def test_failures_are_reported(tmp_path: Path) -> None:
    script = tmp_path / "digits_sweep.py"
    shutil.copy(SCRIPT, script)  # without its data
    out = sweep(tmp_path, script=script)
    assert out.returncode == 1
    assert "4/4 done, 4 failed" in out.stdout
    assert "4 failed. The first, " in out.stdout
    assert "digits.csv.gz not found" in out.stdout
    # They are tried again, and work once the data is there.
    shutil.copytree(SCRIPT.parent / "data", tmp_path / "data")
    pytest.importorskip("matplotlib")
    out = sweep(tmp_path, script=script)
    assert out.returncode == 0, out.stdout + out.stderr
    assert "0 cached, 0 running, 4 to compute" in out.stdout


def test_data_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the script would set it
    spec = importlib.util.spec_from_file_location("digits_sweep", SCRIPT)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    # Pydantic looks the module of a class up when it builds it.
    monkeypatch.setitem(sys.modules, "digits_sweep", example)
    spec.loader.exec_module(example)

    x, y, x_test, y_test = example.Data().load()
    assert len(x) + len(x_test) == len(y) + len(y_test) == 1797
    assert x.shape[1] == 64 and x.min() == 0 and x.max() == 1
    assert set(y) == set(y_test) == set(range(10))

    # The gradients against finite differences of the loss.
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.2, size) for size in [(64, 5), 5, (5, 10), 10]]
    x, y, l2, step = x[:20], y[:20], 0.1, 1e-6

    def loss() -> float:
        probas = example.forward(weights, x)[-1][np.arange(len(y)), y]
        penalty = sum((w**2).sum() for w in weights[::2])
        return float(-np.log(probas).mean() + l2 / 2 * penalty)

    for weight, grad in zip(weights, example.gradients(weights, x, y, l2), strict=True):
        assert weight.shape == grad.shape
        for index in [(0,) * weight.ndim, tuple(n // 2 for n in weight.shape)]:
            value = weight[index]
            weight[index] = value + step
            high = loss()
            weight[index] = value - step
            low = loss()
            weight[index] = value
            assert grad[index] == pytest.approx((high - low) / (2 * step), abs=1e-6)
