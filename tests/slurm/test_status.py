"""What `status_detail` says of tasks on a real cluster."""

import datetime
from pathlib import Path

import pytest
from contracts.clusters import Clusters, wait_until


def test_queued_running_done(idle_cluster, tmp_path: Path) -> None:
    first = Clusters("slurm", tmp_path, cpus_per_task=4, nodes=2).task(action="short sleep")
    assert first.infra.status_detail().state == "not submitted"
    job = first.infra.job()
    second = Clusters("slurm", tmp_path, cpus_per_task=4, nodes=2).task(action="short sleep", seed=1)
    waiting = second.infra.job()
    wait_until(lambda: first.infra.status_detail().state == "running")
    running = first.infra.status_detail()
    assert running.node == "n[1-2]"
    assert running.job_id == job.job_id
    assert running.since is not None
    assert abs(datetime.datetime.now().astimezone() - running.since) < datetime.timedelta(minutes=1)
    wait_until(lambda: second.infra.status_detail().reason == "Resources")
    queued = second.infra.status_detail()
    assert (queued.state, queued.since, queued.node) == ("queued", None, "")
    assert str(queued) == f"queued (job {waiting.job_id}): Resources"
    first.run()
    assert str(first.infra.status_detail()) == f"done (job {job.job_id})"
    second.infra.clear_job()


def test_errors(idle_cluster, tmp_path: Path) -> None:
    task = Clusters("slurm", tmp_path).task(action="raise")
    with pytest.raises(Exception, match="."):
        task.run()
    detail = task.infra.status_detail()
    assert detail.state == "error"
    assert "mode='retry'" in detail.hint
    assert ": " in detail.reason


def test_cancelled(idle_cluster, tmp_path: Path) -> None:
    task = Clusters("slurm", tmp_path).task(action="short sleep")
    job = task.infra.job()
    job.cancel()
    wait_until(lambda: task.infra.status_detail().state == "cancelled")
    detail = task.infra.status_detail()
    assert detail.job_id == job.job_id
    assert "again" in str(detail)
