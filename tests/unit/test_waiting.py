"""Waiting for many tasks."""

import asyncio
import time
from pathlib import Path

import pydantic
import pytest

import exca_like
from exca_like import errors


class Nap(pydantic.BaseModel):
    seconds: float = 0.0
    fails: bool = False
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> float:
        time.sleep(self.seconds)
        if self.fails:
            raise ValueError("broken")
        return self.seconds


class Two(pydantic.BaseModel):
    first: exca_like.TaskInfra = exca_like.TaskInfra()
    second: exca_like.TaskInfra = exca_like.TaskInfra()

    @first.apply
    def one(self) -> int:
        return 1

    @second.apply
    def two(self) -> int:
        return 2


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for each job: jobs of other tests must not keep these from starting."""
    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "64")


def naps(folder: Path, cluster: str | None, *seconds: float) -> list[Nap]:
    return [Nap(seconds=each, infra={"folder": folder, "cluster": cluster}) for each in seconds]


def test_tasks_come_as_they_end(tmp_path):
    tasks = naps(tmp_path, "local", 6.0, 0.0)
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    assert [task.seconds for task in exca_like.as_completed(tasks)] == [0.0, 6.0]
    assert [task.run() for task in tasks] == [6.0, 0.0]
    assert [task.seconds for task in exca_like.as_completed(tasks)] == [6.0, 0.0]  # all have ended: in order


def test_failures_end_too(tmp_path):
    task = Nap(fails=True, infra={"folder": tmp_path, "cluster": "local"})
    exca_like.wait_all([task])
    assert task.infra.status() == "failed"
    with pytest.raises(ValueError, match="broken"):
        task.run()


@pytest.mark.parametrize("cluster", [None, "debug", "local"])
def test_what_is_not_submitted_is(tmp_path, cluster):
    tasks = naps(tmp_path, cluster, 0.0, 0.01)
    exca_like.wait_all(tasks)
    assert [task.infra.status() for task in tasks] == ["completed"] * 2


def test_forms_of_tasks(tmp_path):
    (task,) = naps(tmp_path, "local", 0.0)
    for form in (task, task.infra, task.infra.job()):
        assert list(exca_like.as_completed([form])) == [form]
    two = Two(first={"folder": tmp_path}, second={"folder": tmp_path})
    exca_like.wait_all([two.first, two.second])
    assert two.second.status() == "completed"
    assert list(exca_like.as_completed([])) == []


@pytest.mark.parametrize("wrong", [5, "text", None, exca_like.MapInfra()])
def test_what_is_no_task(wrong):
    with pytest.raises(TypeError, match="no TaskInfra"):
        exca_like.wait_all([wrong])


def test_several_infras(tmp_path):
    with pytest.raises(TypeError, match="several TaskInfras"):
        exca_like.wait_all([Two()])


def test_timeout(tmp_path):
    tasks = naps(tmp_path, "local", 0.0, 60.0)
    started = time.monotonic()
    seen = []
    with pytest.raises(errors.WaitTimeoutError, match="1 of 2 tasks have not ended within 8 s.*go on"):
        seen.extend(exca_like.as_completed(tasks, timeout=8))
    assert 8 <= time.monotonic() - started < 20
    assert seen == tasks[:1]
    assert tasks[1].infra.status() == "running"
    tasks[1].infra.clear_job()


def test_async_loops_leave_time_to_others(tmp_path):
    tasks = naps(tmp_path, "local", 0.5, 0.0)

    async def count() -> None:
        ticks = 0
        while True:
            ticks += 1
            counted.append(ticks)
            await asyncio.sleep(0.01)

    async def wait() -> list[float]:
        counter = asyncio.create_task(count())
        found = [task.seconds async for task in exca_like.as_completed(tasks)]
        counter.cancel()
        return found

    counted: list[int] = []
    assert sorted(asyncio.run(wait())) == [0.0, 0.5]
    assert len(counted) > 10


def test_status_in_detail(tmp_path):
    assert str(Nap().infra.status_detail()) == "not submitted"
    (task,) = naps(tmp_path, "local", 60.0)
    job = task.infra.job()
    while task.infra.status_detail().state == "queued":
        time.sleep(0.05)
    running = task.infra.status_detail()
    assert (running.state, running.job_id) == ("running", job.job_id)
    assert running.node
    job.cancel()
    job.wait()
    assert str(task.infra.status_detail()).startswith(f"cancelled (job {job.job_id})")
    failing = Nap(fails=True, infra={"folder": tmp_path})
    with pytest.raises(ValueError, match="broken"):
        failing.run()
    assert str(failing.infra.status_detail()) == (
        "error: ValueError: broken. To go on: mend the cause, and run it again with mode='retry'."
    )
    (done,) = naps(tmp_path, None, 0.0)
    done.run()
    assert done.infra.status_detail().state == "done"
