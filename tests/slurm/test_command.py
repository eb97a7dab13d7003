"""``exca-like status --watch`` and ``logs -f`` in a terminal, beside running jobs."""

import subprocess
import sys
from pathlib import Path

from contracts.clusters import wait_until
from terminal import Terminal

PROGRAM = """
import time
import pydantic, exca_like
class Steps(pydantic.BaseModel):
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache", cluster="slurm", cpus_per_task=1, mem_gb=0.1, timeout_min=2)
    @infra.apply
    def run(self) -> int:
        for step in range(8):
            print(f"seed {self.seed} is at step {step}", flush=True)
            time.sleep(0.5)
        if self.seed == 2:
            raise ValueError("two")
        return self.seed
"""


def test_watching_and_following(idle_cluster, tmp_path: Path, terminals: list[Terminal]) -> None:
    (tmp_path / "steps.py").write_text(PROGRAM)
    call = [sys.executable, "-m", "exca_like"]
    submitted = subprocess.run([*call, "run", "steps:Steps", "seed=range(4)"], cwd=tmp_path, capture_output=True, text=True)
    assert submitted.returncode == 0 and "4 to submit" in submitted.stdout, submitted.stderr
    watching = Terminal(tmp_path, "status", "--watch", "--every", "0.3", "--folder", "cache")
    following = Terminal(tmp_path, "logs", "-f", "seed=1", "--folder", "cache")
    terminals += [watching, following]
    wait_until(lambda: "running (on n" in watching.text(), 30)
    wait_until(lambda: "seed 1 is at step 2" in following.text(), 30)
    assert "ended with" not in following.text() and "seed 1 is at step 7" not in following.text()  # it is shown as it comes
    wait_until(lambda: "ended with 0" in following.text(), 40)
    lines = [line for line in following.text().splitlines() if line.strip()]
    assert lines[:8] == [f"seed 1 is at step {step}" for step in range(8)]  # each line once
    assert "has ended: completed" in lines[-2]
    wait_until(lambda: "ended with 0" in watching.text(), 40)
    text = watching.text()
    assert text.count("method") == 1 and "3 completed, 1 failed" in " ".join(text.split()), text  # shown in place
    failures = subprocess.run([*call, "failures", "--group", "--folder", "cache"], cwd=tmp_path, capture_output=True, text=True)
    assert failures.stdout.startswith("1 failed:\n  1 × ValueError at steps.py:"), failures.stdout
