"""A sweep over the digits from the shell alone: submitted, watched, broken, mended, compared and cleaned."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.clusters import wait_until
from terminal import Terminal

EXAMPLES = Path(__file__).parents[2] / "examples"
BASE = """
model: {kind: mlp}
optim: {epochs: 3}
infra: {folder: cache, cluster: slurm, cpus_per_task: 1, mem_gb: 0.3, timeout_min: 5}
"""
LINE = "        start, opt = time.perf_counter(), self.optim\n"
BUG = """        if opt.lr == 1.0 and self.model.sizes()[1] == 64:
            raise FloatingPointError(f"the loss of seed {self.seed} is nan")
"""


@pytest.mark.parametrize(
    ("hidden", "rates", "seeds"),
    [((32, 64), (0.01, 1.0), 6), pytest.param((8, 16, 32, 64, 128), (1e-3, 1e-2, 0.1, 1.0), 10, marks=pytest.mark.slow)],
    ids=["24", "200"],
)
def test_sweep_from_the_shell(idle_cluster, tmp_path: Path, terminals: list[Terminal], hidden, rates, seeds) -> None:
    code = (EXAMPLES / "digits_sweep.py").read_text()
    assert LINE in code
    (tmp_path / "digits_sweep.py").write_text(code.replace(LINE, LINE + BUG))
    (tmp_path / "data").symlink_to(EXAMPLES / "data")
    (tmp_path / "base.yaml").write_text(BASE)
    total, broken = len(hidden) * len(rates) * seeds, seeds

    def shell(*command: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "exca_like", *command],
            cwd=tmp_path,
            env={**os.environ, "EXCA_LIKE_FOLDER": "cache"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, (command, done.stdout, done.stderr)
        return done.stdout

    grid = [f"model.hidden={','.join(map(str, hidden))}", f"optim.lr={','.join(map(str, rates))}", f"seed=range({seeds})"]
    run = ["run", "digits_sweep:Experiment", "@base.yaml", *grid]

    assert f"{total} configs: {total} to submit" in shell(*run, "--dry-run")
    assert not (tmp_path / "cache").exists()
    assert "submitted: see" in shell(*run)
    watching = Terminal(tmp_path, "status", "--watch", "--every", "0.5", "--folder", "cache")
    terminals.append(watching)
    wait_until(lambda: "running" in watching.text(), 60)
    assert "0 to submit" in shell(*run, "--dry-run")
    wait_until(lambda: "ended with 0" in watching.text(), 300)
    assert f"{total - broken}completed,{broken}failed" in "".join(watching.text().split())  # wherever it is wrapped

    report = shell("failures", "--group")
    assert report.startswith(f"{broken} failed, the same way:\n  {broken} × FloatingPointError at digits_sweep.py:"), report
    assert report.count("Traceback (most recent call last)") == 1

    (tmp_path / "digits_sweep.py").write_text(code)
    assert f"{broken} tasks would be submitted again" in shell("retry", "--failed", "--mem", "x2")
    assert f"{broken} completed" in shell("retry", "--failed", "--mem", "x2", "--yes", "--wait")
    assert f"{total} cached" in shell(*run, "--dry-run")

    table = shell("table", "--only-changed", "--sort", "accuracy").splitlines()
    columns = table[0].split()
    fields, results = ["model.hidden", "optim.lr", "seed"], ["result.accuracy", "result.loss", "result.seconds"]
    assert columns == ["uid", *fields, *results, "code"], "some were computed by mended code"
    rows = [line.split() for line in table[1:] if "digits_sweep" in line]
    accuracies = [float(row[4]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True) and accuracies[0] > 0.8
    everything = json.loads(shell("table", "--json"))
    assert len(everything) == total and {row["status"] for row in everything} == {"completed"}

    kept = total - broken
    assert f"{broken} entries" in (plan := shell("prune", "--keep-last", str(kept))) and "nothing was removed" in plan
    assert "removed" in shell("prune", "--keep-last", str(kept), "--yes")
    assert shell("verify").startswith(f"{kept} results and errors in {kept} folders, 0 problems")
    assert f"{broken} to submit" in shell(*run, "--dry-run")
