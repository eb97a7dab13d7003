"""What becomes of jobs that the cluster stops, restarts or loses, and of those that depend on others."""

import json
import os
import signal
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest
from contracts.clusters import Clusters, wait_until
from contracts.maps import note, noted

import exca_like
from exca_like import errors
from exca_like.executors import slurm_state

SMALL = {"cpus_per_task": 1, "mem_gb": 0.1}


class Slow(pydantic.BaseModel):
    """A map that notes each item that it finished."""

    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("notes", "pause")
    notes: str
    pause: float = 0.4
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.1)

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Any:
        note(f"{self.notes}/starts", os.environ.get("SLURM_RESTART_COUNT", "0"))
        for item in items:
            time.sleep(self.pause)
            yield 2 * item
            note(f"{self.notes}/finished", item)


class Steps(pydantic.BaseModel):
    """A task of many steps, which saves where it is when its job is stopped."""

    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("notes",)
    notes: str
    steps: int = 20
    pause: float = 0.3
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.1)

    @infra.apply
    def run(self) -> dict[str, Any]:
        folder = self.infra.uid_folder()
        assert folder is not None
        state = folder / "state.json"
        step = json.loads(state.read_text()) if state.exists() else 0
        note(f"{self.notes}/starts", step)

        @exca_like.on_requeue
        def save() -> None:
            state.write_text(json.dumps(step))

        while step < self.steps:
            time.sleep(self.pause)
            step += 1
            note(f"{self.notes}/steps", step)
        return {"steps": step, "restarts": os.environ.get("SLURM_RESTART_COUNT", "0"), "node": os.environ["SLURMD_NODENAME"]}


@pytest.fixture
def notes(tmp_path: Path) -> str:
    (tmp_path / "notes").mkdir()
    return str(tmp_path / "notes")


def preempt(cluster, seconds: int = 1) -> None:
    """A job of a better partition takes both nodes for a while."""
    script = f"sleep {seconds}"
    cluster.run("sbatch", "-p", "debug", "-N2", "--exclusive", "-o", "/dev/null", f"--wrap={script}")


def test_a_preempted_map_goes_on_with_its_unfinished_items(idle_cluster, tmp_path: Path, notes: str) -> None:
    model = Slow(notes=notes, infra={"folder": tmp_path, "slurm_partition": "scavenge", "max_jobs": 2})
    results = model.compute(range(20))
    assert next(results) == 0
    preempt(idle_cluster)
    assert [0, *results] == [2 * item for item in range(20)]
    finished = Counter(map(int, noted(Path(notes, "finished"))))
    # the note of an item follows its storing: that of the one that was stored last may be missing
    assert set(finished.values()) == {1}
    assert len(finished) >= 18
    assert sorted(noted(Path(notes, "starts"))) == ["0", "0", "1", "1"]


def test_a_preempted_task_finds_what_its_hook_saved(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Steps(notes=notes, infra={"folder": tmp_path, "slurm_partition": "scavenge"})
    job = task.infra.job()
    wait_until(lambda: len(noted(Path(notes, "steps"))) > 4)
    preempt(idle_cluster)
    found = task.run()
    assert (found["steps"], found["restarts"]) == (20, "1")
    starts = noted(Path(notes, "starts"))
    assert len(starts) == 2
    assert int(starts[1]) > 4
    assert Counter(noted(Path(notes, "steps"))) == Counter(str(step) for step in range(1, 21)), "a step was done again"
    assert "the job is stopped" in (job.stderr() or "")


def test_never_requeued(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Steps(notes=notes, infra={"folder": tmp_path, "slurm_partition": "scavenge", "requeue": "never"})
    job = task.infra.job()
    wait_until(lambda: len(noted(Path(notes, "steps"))) > 1)
    preempt(idle_cluster)
    with pytest.raises(errors.JobInterruptedError, match="preempted"):
        job.result()
    assert task.infra.status_detail().state == "preempted"
    assert task.infra.status() == "not submitted"


def test_requeues_have_a_bound(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Steps(notes=notes, infra={"folder": tmp_path, "slurm_partition": "scavenge", "max_requeues": 0})
    job = task.infra.job()
    wait_until(lambda: len(noted(Path(notes, "steps"))) > 1)
    preempt(idle_cluster)
    with pytest.raises(errors.JobInterruptedError, match="more than max_requeues=0"):
        job.result()


@pytest.mark.slow
def test_a_task_that_needs_more_time_is_started_again_until_it_is_done(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Steps(notes=notes, steps=100, pause=1, infra={"folder": tmp_path, "timeout_min": 1, "requeue": "always"})
    found = task.run()
    assert found["steps"] == 100
    assert int(found["restarts"]) >= 1
    assert max(Counter(noted(Path(notes, "steps"))).values()) == 1


@pytest.mark.slow
def test_timeout_with_escalation(idle_cluster, tmp_path: Path, notes: str) -> None:
    retries = {"max": 2, "on": ["timeout"], "timeout_min": 2.0}
    task = Steps(notes=notes, steps=130, pause=1, infra={"folder": tmp_path, "timeout_min": 1, "retries": retries})
    first = task.infra.job().job_id
    started = time.monotonic()
    assert task.run()["steps"] == 130  # each attempt goes on where the hook of the one before had saved
    (attempt,) = task.infra.status_detail().attempts
    assert attempt.startswith(f"job {first}: timeout")
    print(f"timeout of 1 min, then 2 min: done after {time.monotonic() - started:.0f} s")


class Hungry(pydantic.BaseModel):
    notes: str
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", mem_gb=0.3, cpus_per_task=1)

    @infra.apply
    def run(self) -> int:
        block = bytearray(700_000_000)
        for start in range(0, len(block), 4096):
            block[start] = 1
        time.sleep(4)
        return len(block)


def test_out_of_memory_with_escalation(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Hungry(notes=notes, infra={"folder": tmp_path, "retries": {"on": ["out_of_memory"], "mem_gb": 2.0}})
    first = task.infra.job().job_id
    assert task.run() == 700_000_000
    assert [text.partition(": ")[2] for text in task.infra.status_detail().attempts] == [
        "out of memory on n1 (mem_gb=0.3)",
        "out of memory on n1 (mem_gb=0.6)",
    ]
    assert task.infra.job().job_id != first
    asked = subprocess.run(
        ["sacct", "-n", "-P", "-X", "-j", task.infra.job().job_id, "-o", "ReqMem"], capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() in ("1228M", "1.20G"), asked


def test_out_of_memory_at_the_end_of_the_retries(idle_cluster, tmp_path: Path, notes: str) -> None:
    retries = {"max": 1, "on": ["out_of_memory"], "mem_gb": 1.5}
    task = Hungry(notes=notes, infra={"folder": tmp_path, "retries": retries})
    with pytest.raises(errors.JobMemoryError, match=r"(?s)out of memory.*1 job\(s\) before it"):
        task.run()
    assert task.infra.status() == "failed"


class HungryMap(pydantic.BaseModel):
    notes: str
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="slurm", mem_gb=0.3, cpus_per_task=1, max_jobs=1)

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Any:
        for item in items:
            note(f"{self.notes}/items", item)
            block = bytearray(700_000_000 if item == 3 else 1000)
            for start in range(0, len(block), 4096):
                block[start] = 1
            time.sleep(4 if item == 3 else 0)
            yield len(block)


def test_a_map_tries_only_unfinished_items_again(idle_cluster, tmp_path: Path, notes: str) -> None:
    model = HungryMap(notes=notes, infra={"folder": tmp_path, "retries": {"on": ["out_of_memory"], "mem_gb": 4.0}})
    assert list(model.compute(range(6))) == [1000, 1000, 1000, 700_000_000, 1000, 1000]
    assert Counter(noted(Path(notes, "items"))) == Counter(["0", "1", "2", "3", "3", "4", "5"])


def test_a_failed_node_is_left_out(idle_cluster, tmp_path: Path, notes: str) -> None:
    infra = {"folder": tmp_path, "requeue": "never", "retries": {"on": ["node_failure"]}}
    task = Steps(notes=notes, infra=infra)
    first = task.infra.job().job_id
    wait_until(lambda: len(noted(Path(notes, "steps"))) > 1)
    wait_until(lambda: task.infra.status_detail().node)
    node = task.infra.status_detail().node
    idle_cluster.fail_node(node)
    started = time.monotonic()
    found = task.run()
    print(f"node failure: done after {time.monotonic() - started:.1f} s")
    assert found["node"] != node
    assert task.infra.status_detail().attempts == (f"job {first}: node failure on {node} (mem_gb=0.1)",)
    script = next(tmp_path.rglob(f"{task.infra.job().job_id}_submission.sh")).read_text()
    assert f"#SBATCH --exclude={node}" in script


def test_scancel(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Steps(notes=notes, infra={"folder": tmp_path})
    job = task.infra.job()
    wait_until(lambda: len(noted(Path(notes, "steps"))) > 1)
    idle_cluster.run("scancel", job.job_id)
    started = time.monotonic()
    with pytest.raises(errors.JobInterruptedError, match="cancelled"):
        job.result()
    print(f"scancel: told after {time.monotonic() - started:.1f} s")
    assert task.run()["steps"] == 20


class Fails(pydantic.BaseModel):
    notes: str
    times: int = 2
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.1)

    @infra.apply
    def run(self) -> int:
        note(f"{self.notes}/calls", 1)
        number = len(noted(Path(self.notes, "calls")))
        if number <= self.times:
            raise ConnectionError(f"call {number}")
        return number


def test_exceptions_are_retried_if_they_are_listed(idle_cluster, tmp_path: Path, notes: str) -> None:
    unlisted = Fails(notes=notes, times=1, infra={"folder": tmp_path, "retries": {"max": 3}})
    with pytest.raises(ConnectionError, match="call 1"):
        unlisted.run()
    Path(notes, "calls").unlink()
    listed = Fails(notes=notes, infra={"folder": tmp_path, "retries": {"max": 3, "on": ["ConnectionError"]}})
    assert listed.run() == 3
    assert len(listed.infra.status_detail().attempts) == 2


# many jobs


def test_packed_tasks(idle_cluster, tmp_path: Path, request) -> None:
    number = 60 if request.config.getoption("--long") else 24
    took = {}
    for per_job in (1, 15 if number == 60 else 6):
        clusters = Clusters("slurm", tmp_path / str(per_job), **SMALL)
        clusters.counts.parent.mkdir()
        base = clusters.task()
        started = time.monotonic()
        with base.infra.job_array(tasks_per_job=per_job) as array:
            array.extend(base.infra.clone_obj(seed=k) for k in range(number))
        exca_like.wait_all(array)
        took[per_job] = time.monotonic() - started
        assert [task.run()["value"] for task in array] == [k + 0.5 for k in range(number)]
        assert len({task.infra.job().job_id for task in array}) == -(-number // per_job)
        assert clusters.computed == number
    one, packed = took.values()
    print(f"{number} tasks: one each {one:.1f} s, packed {packed:.1f} s: {one / packed:.1f} times as fast")


def test_each_packed_task_has_its_own_outcome(idle_cluster, tmp_path: Path) -> None:
    clusters = Clusters("slurm", tmp_path, **SMALL)
    tasks = [clusters.task(seed=k, action=action) for k, action in enumerate(["return", "raise", "return", "exit", "return"])]
    with tasks[0].infra.job_array(tasks_per_job=5) as array:
        array.extend(tasks)
    exca_like.wait_all(tasks)
    assert [task.infra.status() for task in tasks] == ["completed", "failed", "completed", "failed", "not submitted"]
    assert isinstance(tasks[1].infra.job().exception(), KeyError)
    assert "last words" in str(tasks[3].infra.job().exception())
    assert "before it came to this task" in tasks[4].infra.status_detail().reason
    assert tasks[4].run() == {"value": 4.5}
    assert clusters.computed == 5


def test_a_packed_task_can_be_cancelled_alone(idle_cluster, tmp_path: Path) -> None:
    clusters = Clusters("slurm", tmp_path, **SMALL)
    tasks = [clusters.task(seed=k, action="short sleep") for k in range(3)]
    with tasks[0].infra.job_array(tasks_per_job=3) as array:
        array.extend(tasks)
    wait_until(lambda: tasks[0].infra.status_detail().state == "running")
    assert tasks[1].infra.status_detail().state == "queued"
    tasks[1].infra.job().cancel()
    assert tasks[1].infra.status() == "not submitted"
    assert tasks[2].run() == {"value": 2.5}
    assert clusters.computed == 2


def test_the_scheduler_is_asked_rarely_and_a_restart_of_it_does_not_matter(idle_cluster, tmp_path: Path, notes: str) -> None:
    base = Steps(notes=notes, steps=5, pause=0.2, infra={"folder": tmp_path})
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(steps=5 + k % 2, pause=0.2 + k / 1000) for k in range(60))
    calls, started = slurm_state.watcher.calls, time.monotonic()
    waiting = exca_like.as_completed(array)
    done = [next(iter(waiting))]
    idle_cluster.restart_controller()
    done += list(waiting)
    minutes = (time.monotonic() - started) / 60
    assert sorted(task.run()["steps"] for task in done) == [5] * 30 + [6] * 30
    asked = slurm_state.watcher.calls - calls
    print(
        f"60 jobs, slurmctld restarted: {asked} calls of the scheduler in {60 * minutes:.0f} s, {asked / minutes:.1f} a minute"
    )
    assert asked <= 20 * max(1, minutes) + 1


def test_accounting_stopped_while_jobs_are_watched(idle_cluster, tmp_path: Path, notes: str) -> None:
    base = Steps(notes=notes, steps=5, pause=0.2, infra={"folder": tmp_path})
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(pause=0.2 + k / 1000) for k in range(8))
    cancelled = Steps(notes=notes, steps=1000, infra={"folder": tmp_path})
    job = cancelled.infra.job()
    idle_cluster.stop_accounting()
    assert [task.run()["steps"] for task in array] == [5] * 8
    idle_cluster.run("scancel", job.job_id)
    started = time.monotonic()
    with pytest.raises(errors.JobInterruptedError):
        job.result()
    print(f"scancel without accounting: told after {time.monotonic() - started:.1f} s")


def test_results_are_there_soon_after_the_end_of_jobs(idle_cluster, tmp_path: Path) -> None:
    delays = []
    for seed in range(8):
        task = Clusters("slurm", tmp_path, **SMALL).task(seed=seed)
        job = task.infra.job()
        job.result()
        delays.append(time.time() - job.paths.ended.stat().st_mtime if job.paths.ended.exists() else 0.0)
    print(
        f"from the end of a no-op job to its result: {statistics.median(delays):.2f} s at the median, {max(delays):.2f} at most"
    )


# tasks that depend on others


def test_a_task_after_others(idle_cluster, tmp_path: Path, notes: str) -> None:
    done = Steps(notes=notes, steps=1, infra={"folder": tmp_path})
    done.run()
    parent = Steps(notes=notes, steps=8, infra={"folder": tmp_path})
    child = Steps(notes=notes, steps=2, infra={"folder": tmp_path})
    job = child.infra.job(after=[done, parent])
    wait_until(lambda: child.infra.status_detail().reason == "Dependency")
    script = next(tmp_path.rglob(f"{job.job_id}_submission.sh")).read_text()
    assert f"#SBATCH --dependency=afterok:{parent.infra.job().job_id}\n" in script  # what is done is left out
    assert child.run()["steps"] == 2
    assert [int(step) for step in noted(Path(notes, "steps"))] == [1, *range(1, 9), 1, 2]


def test_a_failed_parent_cancels_its_child(idle_cluster, tmp_path: Path, notes: str) -> None:
    parent = Clusters("slurm", tmp_path, **SMALL).task(action="raise")
    child = Steps(notes=notes, steps=2, infra={"folder": tmp_path})
    job = child.infra.job(after=[parent])
    with pytest.raises(errors.JobInterruptedError, match=r"It was to come after .*Work\.run,1/.*action=raise.*: failed"):
        job.result()
    with pytest.raises(errors.DependencyError, match=r"(?s)is not submitted.*Work.*KeyError"):
        child.infra.job(after=[parent])
    assert child.infra.job().result()["steps"] == 2


class Ranks(pydantic.BaseModel):
    notes: str
    infra: exca_like.TaskInfra = exca_like.TaskInfra(
        cluster="slurm", nodes=2, tasks_per_node=2, cpus_per_task=1, slurm_use_srun=True
    )

    @infra.apply
    def run(self) -> int:
        note(f"{self.notes}/ranks", os.environ["SLURM_PROCID"])
        return int(os.environ["SLURM_PROCID"])


def test_all_processes_of_a_job_take_part_and_the_first_gives_the_result(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Ranks(notes=notes, infra={"folder": tmp_path})
    assert task.run() == 0
    wait_until(lambda: sorted(noted(Path(notes, "ranks"))) == ["0", "1", "2", "3"])


# what a review found


class Forks(pydantic.BaseModel):
    notes: str
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.1)

    @infra.apply
    def run(self) -> int:
        @exca_like.on_requeue
        def save() -> None:
            note(f"{self.notes}/saved", os.getpid())

        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.5)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_hooks_are_not_for_forks_of_the_job(idle_cluster, tmp_path: Path, notes: str) -> None:
    assert Forks(notes=notes, infra={"folder": tmp_path}).run() == -signal.SIGTERM
    assert noted(Path(notes, "saved")) == []


def test_a_forced_map_does_not_begin_anew_when_it_is_requeued(idle_cluster, tmp_path: Path, notes: str) -> None:
    infra = {"folder": tmp_path, "slurm_partition": "scavenge", "max_jobs": 1}
    model = Slow(notes=notes, pause=0, infra=infra)
    assert len(list(model.compute(range(12)))) == 12
    Path(notes, "finished").unlink()
    forced = Slow(notes=notes, pause=0.6, infra={**infra, "mode": "force"})
    results = forced.compute(range(12))
    next(results)
    wait_until(lambda: len(noted(Path(notes, "finished"))) > 5)
    preempt(idle_cluster)
    assert len(list(results)) == 11
    again = Counter(noted(Path(notes, "finished"))) - Counter(map(str, range(12)))
    assert sum(again.values()) <= 2, "what was done in the last second before may be done again"


def test_an_escalation_that_the_cluster_refuses_does_not_hide_the_failure(idle_cluster, tmp_path: Path, notes: str) -> None:
    task = Hungry(notes=notes, infra={"folder": tmp_path, "retries": {"on": ["out_of_memory"], "mem_gb": 100.0}})
    other = Steps(notes=notes, steps=3, infra={"folder": tmp_path})
    exca_like.wait_all([task, other])
    assert other.infra.status() == "completed"
    with pytest.raises(errors.JobMemoryError, match="(?s)out of memory.*Another job was refused: .*"):
        task.run()


def test_tasks_that_a_packed_job_did_not_come_to_are_sent_together(idle_cluster, tmp_path: Path) -> None:
    clusters = Clusters("slurm", tmp_path, **SMALL, retries={"on": ["out_of_memory"]})
    tasks = [clusters.task(seed=k, action=action) for k, action in enumerate(["return", "exit", "return", "return"])]
    with tasks[0].infra.job_array(tasks_per_job=4) as array:
        array.extend(tasks)
    exca_like.wait_all(tasks)
    assert [task.infra.status() for task in tasks] == ["completed", "failed", "completed", "completed"]
    ids = {task.infra.job().job_id.partition("_")[0] for task in tasks[2:]}
    assert len(ids) == 1, "an array, not a job each"


def test_a_child_follows_a_parent_that_is_tried_again(idle_cluster, tmp_path: Path, notes: str) -> None:
    parent = Fails(notes=notes, times=1, infra={"folder": tmp_path, "retries": {"on": ["ConnectionError"]}})
    child = Steps(notes=notes, steps=2, infra={"folder": tmp_path})
    job = child.infra.job(after=[parent])
    assert job.result()["steps"] == 2
    assert parent.run() == 2


def test_cancelled_tasks_do_not_wait_for_each_other(idle_cluster, tmp_path: Path) -> None:
    base = Clusters("slurm", tmp_path, **SMALL, retries={}).task(action="sleep")
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(12))
    for task in array:
        task.infra.job().cancel()
    wait_until(lambda: {task.infra.status() for task in array} == {"not submitted"})
    started = time.monotonic()
    exca_like.wait_all([task.infra._current_job("cached") for task in array])  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10  # it was more than a second for each


class Chain(pydantic.BaseModel):
    """A task that may need the result of another one of its kind."""

    notes: str
    depth: int = 0
    before: "Chain | None" = None
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.1)

    @infra.apply
    def run(self) -> int:
        note(f"{self.notes}/chain", self.depth)
        return self.depth + (0 if self.before is None else self.before.run())


def test_a_packed_task_may_need_one_that_comes_after_it(idle_cluster, tmp_path: Path, notes: str) -> None:
    first = Chain(notes=notes, depth=1, infra={"folder": tmp_path})
    second = Chain(notes=notes, depth=2, before=first, infra={"folder": tmp_path})
    with second.infra.job_array(tasks_per_job=2) as array:
        array.extend([second, first])
    assert second.run() == 3
    assert first.run() == 1
    assert sorted(noted(Path(notes, "chain"))) == ["1", "2"]
