"""SubmitInfra on a real cluster."""

import os
import pickle
from pathlib import Path
from typing import Any

import pydantic
import pytest

import exca_like
from exca_like import errors


class Model(pydantic.BaseModel):
    size: int = 3
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra(cluster="slurm", folder="unset", cpus_per_task=1, mem_gb=0.5)

    @infra.apply
    def run(self, x: int, *, action: str = "multiply") -> Any:
        print("output of", x, flush=True)
        if action == "raise":
            raise KeyError("no such thing")
        if action == "rank":
            return x + int(os.environ["SLURM_PROCID"])
        if action == "job name":
            return os.environ["SLURM_JOB_NAME"]
        return (self.size * x,)


class Static(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    @staticmethod
    def run(x: int, y: int = 0) -> int:
        return x + y


def test_calls_jobs_and_arrays(idle_cluster, tmp_path: Path) -> None:
    model = Model(infra={"folder": tmp_path})
    job = model.infra.submit(1, action="job name")
    with model.infra.batch(max_workers=3) as jobs:
        for x in range(4):
            model.infra.submit(x, action="raise" if x == 2 else "multiply")
    assert model.run(5) == (15,)
    assert job.result() == "Model.run,0/default"
    assert "output of 1\n" in job.stdout()
    (array,) = {job.job_id.partition("_")[0] for job in jobs}
    assert [job.job_id for job in jobs] == [f"{array}_{index}" for index in range(4)]
    error = jobs.pop(2).exception()
    assert isinstance(error, KeyError)
    assert "Traceback of the computation" in error.__notes__[0]
    elsewhere = pickle.loads(pickle.dumps(jobs))
    assert [job.result() for job in elsewhere] == [(0,), (3,), (9,)]
    for job in jobs:
        assert (job.paths.folder / f"{job.job_id}_result").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]

    static = Static(infra=model.infra.model_dump(exclude_defaults=True))
    assert static.run(2, y=3) == 5
    with pytest.raises(errors.SubmissionError, match="refused"), model.infra.batch():
        model.infra.slurm_partition = "no-such-partition"
        model.infra.submit(1)


def test_each_process_of_a_job_has_a_result(idle_cluster, tmp_path: Path) -> None:
    infra = {"folder": tmp_path, "tasks_per_node": 2, "slurm_use_srun": True}
    job = Model(infra=infra).infra.submit(10, action="rank")
    assert job.results() == [10, 11]
    assert job.result() == 10
