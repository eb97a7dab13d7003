"""TaskInfra on a real cluster."""

import json
import re
import subprocess
import time
from pathlib import Path

import pydantic
import pytest
import submitit
from contracts.clusters import ALL_CLUSTERS, JOB_CLUSTERS, Clusters, Work, wait_until

import exca_like
from exca_like import errors
from exca_like.executors import slurm, slurm_handle, slurm_state


@pytest.mark.parametrize("check", ALL_CLUSTERS + JOB_CLUSTERS)
def test_contract(check, idle_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_handle, "_FILE_DELAY_S", 2.0)  # the nodes of the testbed share a file system that hides nothing
    check(Clusters("slurm", tmp_path))


class Asked(pydantic.BaseModel):
    """Returns how Slurm sees the job."""

    infra: exca_like.TaskInfra = exca_like.TaskInfra(timeout_min=7, nodes=1, cpus_per_task=2, mem_gb=1.5)

    @infra.apply
    def run(self) -> dict[str, str]:
        import os

        job_id = os.environ["SLURM_JOB_ID"]
        shown = subprocess.run(["scontrol", "show", "job", job_id], capture_output=True, text=True, check=True).stdout
        variables = {name: value for name, value in os.environ.items() if name.startswith(("SLURM", "CUDA", "SETUP"))}
        return dict(re.findall(r"(\S+?)=(\S*)", shown)) | variables | {"submitit": str(submitit.JobEnvironment().job_id)}


def test_resources_arrive_in_the_job(idle_cluster, tmp_path: Path) -> None:
    settings = {
        "gpus_per_node": 1,
        "slurm_partition": "scavenge",
        "slurm_account": "lab",
        "slurm_constraint": "volta32gb",
        "slurm_additional_parameters": {"comment": "hello"},
        "slurm_setup": ["export SETUP_RAN=yes"],
    }
    task = Asked(infra={"folder": tmp_path, "cluster": "slurm", **settings})
    seen = task.run()
    expected = {
        "JobId": task.infra.job().job_id,
        "submitit": task.infra.job().job_id,
        "JobName": "Asked.run,0/default",
        "Partition": "scavenge",
        "Account": "lab",
        "Features": "volta32gb",
        "Comment": "hello",
        "TimeLimit": "00:07:00",
        "CPUs/Task": "2",
        "MinMemoryNode": "1.50G",
        "SETUP_RAN": "yes",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert "gpu" in seen["TresPerNode"]
    assert len(seen["CUDA_VISIBLE_DEVICES"].split(",")) == 1


def test_what_is_not_set_is_left_to_the_cluster(idle_cluster, tmp_path: Path) -> None:
    task = Asked(infra={"folder": tmp_path, "cluster": "slurm", "timeout_min": None, "mem_gb": None})
    seen = task.run()
    # the partition's limit, not submitit's five minutes; with --signal, Slurm makes a year of none
    assert seen["TimeLimit"] in ("UNLIMITED", "365-00:00:00")
    assert "CUDA_VISIBLE_DEVICES" not in seen


def test_srun_can_start_the_job(idle_cluster, tmp_path: Path) -> None:
    task = Asked(infra={"folder": tmp_path, "cluster": "slurm", "slurm_use_srun": True})
    assert task.run()["SLURM_STEP_ID"] == "0"


def test_auto_finds_the_cluster(idle_cluster, tmp_path: Path) -> None:
    slurm.slurm_is_there.cache_clear()
    try:
        task = Clusters("auto", tmp_path).task()
        assert task.infra.executor().cluster == "slurm"
        task.run()
        record = json.loads((task.infra.uid_folder() / "job.json").read_text())
        assert record["cluster"] == "slurm"
    finally:
        slurm.slurm_is_there.cache_clear()


def test_array_of_40_tasks_is_one_slurm_array(idle_cluster, tmp_path: Path) -> None:
    base = Clusters("slurm", tmp_path, cpus_per_task=1, mem_gb=0.5).task()
    started = time.monotonic()
    with base.infra.job_array(max_workers=6) as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(40))
    assert [task.run()["value"] for task in array] == [k + 0.5 for k in range(40)]
    took = time.monotonic() - started
    ids = {task.infra.job().job_id.split("_")[0] for task in array}
    assert len(ids) == 1
    command = ["sacct", "-n", "-P", "-X", "-j", ids.pop(), "-o", "State"]

    def completed() -> int:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split().count("COMPLETED")

    wait_until(lambda: completed() >= 30)  # the accounting lags behind
    print(f"40 no-op tasks as 40 jobs: {took:.1f} s")


def test_max_workers_bounds_the_array(idle_cluster, tmp_path: Path) -> None:
    base = Clusters("slurm", tmp_path, cpus_per_task=1, mem_gb=0.1).task(action="short sleep")
    with base.infra.job_array(max_workers=2) as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(4))
    wait_until(lambda: sum(task.infra.job().state == "RUNNING" for task in array) == 2)
    for _ in range(5):
        assert sum(task.infra.job().state == "RUNNING" for task in array) <= 2
        time.sleep(0.2)
    for task in array:
        task.infra.job().cancel()


class Parent(pydantic.BaseModel):
    folder: str
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> str:
        child = Work(seed=5, infra={"folder": self.folder, "cluster": "slurm"})
        return f"{child.run()['value']} from {child.infra.job().job_id}"


def test_jobs_can_submit_jobs(idle_cluster, tmp_path: Path) -> None:
    parent = Parent(folder=str(tmp_path / "child"), infra={"folder": tmp_path, "cluster": "slurm"})
    value, _, job_id = parent.run().split()
    assert value == "5.5"
    assert job_id != parent.infra.job().job_id


def test_refused_submissions_say_why_and_leave_nothing_running(idle_cluster, tmp_path: Path) -> None:
    clusters = Clusters("slurm", tmp_path, slurm_partition="no-such-partition")
    task = clusters.task()
    with pytest.raises(errors.SubmissionError, match=r"(?s)refused.*invalid partition.*slurm_\* fields"):
        task.infra.job()
    assert task.infra.status() == "not submitted"
    assert not list((tmp_path / "cache" / "logs").rglob("*.pkl"))
    assert Clusters("slurm", tmp_path).task().run() == {"value": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("srun", [False, True])
def test_time_limit_is_told_from_other_failures(idle_cluster, tmp_path: Path, srun: bool) -> None:
    clusters = Clusters("slurm", tmp_path, timeout_min=1, slurm_use_srun=srun)
    task = clusters.task(action="sleep")
    error = task.infra.job().exception()
    assert isinstance(error, errors.JobTimeoutError), error
    assert isinstance(error, TimeoutError)
    assert "timeout_min" in str(error)
    assert task.infra.status() == "failed"
    with pytest.raises(errors.JobTimeoutError):
        clusters.task(action="sleep").run()
    assert clusters.computed == 1


class Hungry(pydantic.BaseModel):
    infra: exca_like.TaskInfra = exca_like.TaskInfra(mem_gb=0.3)

    @infra.apply
    def run(self) -> int:
        import time

        block = bytearray(800_000_000)
        for start in range(0, len(block), 4096):
            block[start] = 1
        time.sleep(30)
        return len(block)


def test_out_of_memory_is_told_from_other_failures(idle_cluster, tmp_path: Path) -> None:
    task = Hungry(infra={"folder": tmp_path, "cluster": "slurm"})
    error = task.infra.job().exception()
    assert isinstance(error, errors.JobMemoryError), error
    assert isinstance(error, MemoryError)
    assert "mem_gb" in str(error)
    assert task.infra.status() == "failed"


def test_waiting_asks_the_scheduler_rarely(idle_cluster, tmp_path: Path) -> None:
    base = Clusters("slurm", tmp_path, cpus_per_task=1, mem_gb=0.1).task(action="short sleep")
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(8))
    before, started = slurm_state.watcher.calls, time.monotonic()
    while {task.infra.status() for task in array} != {"completed"}:
        time.sleep(0.05)
    assert slurm_state.watcher.calls - before <= 4 + 2 * (time.monotonic() - started)


def test_controller_that_does_not_answer_is_waited_for(idle_cluster, tmp_path: Path) -> None:
    task = Clusters("slurm", tmp_path).task(action="short sleep")
    task.infra.job()
    idle_cluster.restart_controller()
    assert task.run() == {"value": 0.5}
