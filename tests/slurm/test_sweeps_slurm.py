"""A sweep on a real cluster, from its plan to its table."""

import os
import time
from pathlib import Path
from typing import Any

import pydantic
import pytest

import exca_like


class Trial(pydantic.BaseModel):
    """Some fail, until there is a file ``mended``."""

    lr: float = 0.1
    seed: int = 0
    pause: float = 0.0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.2)

    @infra.apply
    def run(self) -> dict[str, float]:
        assert self.infra.folder is not None
        time.sleep(self.pause)
        if self.seed == 2 and not Path(self.infra.folder, "mended").exists():
            raise ValueError(f"shapes don't match ({self.lr},) (5,)")
        return {"value": self.seed + self.lr, "memory": int(os.environ["SLURM_MEM_PER_NODE"])}


GRID = {"lr": [0.1, 0.2, 0.3], "seed": range(4)}


def arrays(sweep: Any, status: str = "completed") -> set[str]:
    return {row.job_id.partition("_")[0] for row in sweep.status() if row.status == status}


def test_a_sweep(idle_cluster, tmp_path: Path) -> None:
    base = Trial(infra={"folder": tmp_path})
    sweep = exca_like.sweep(base, GRID)
    assert str(sweep.plan()) == "12 configs: 12 to submit"
    sweep.submit()
    assert sweep.plan().running == 12
    assert str(exca_like.sweep(base, GRID).submit().plan()) == "12 configs: 12 running or queued, 0 to submit"
    sweep.wait(timeout=120)
    assert str(sweep.plan()) == "12 configs: 9 cached, 3 failed, 0 to submit"
    assert len(arrays(sweep) | arrays(sweep, "failed")) == 1
    (group,) = sweep.failures().groups
    assert (group.count, group.type, group.message) == (3, "ValueError", "shapes don't match (0.1,) (5,)")
    with pytest.raises(ValueError, match="shapes"):
        sweep.results()

    (tmp_path / "mended").touch()
    first = arrays(sweep)
    sweep.retry_failed(mem_gb=2.0)
    assert sweep.plan().running == 3
    found = sweep.results()
    assert [result["value"] for result in found] == [seed + lr for lr in GRID["lr"] for seed in GRID["seed"]]
    assert [result["memory"] for result in found] == [
        pytest.approx(410 if seed == 2 else 205, abs=10) for seed in [*range(4)] * 3
    ]
    assert len(arrays(sweep) - first) == 1, "those that failed made one array"
    assert list(sweep.to_df()["status"]) == ["completed"] * 12

    slow = exca_like.sweep(base, {"pause": [120.0], "seed": range(12)}).submit()
    waiting = slow.plan().running
    assert waiting == 12
    while not slow.status().counts["running"]:
        time.sleep(0.2)
    assert slow.cancel() == 12
    slow.wait(timeout=60)
    assert slow.plan().to_submit == 12
