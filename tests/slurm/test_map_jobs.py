"""MapInfra on a real cluster."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chaos.processes import Child, killed_at_the_end, wait_for
from concurrency.test_once import call_failing_task, call_tasks, run_at_once
from contracts.clusters import Clusters
from contracts.maps import (
    ALL_MAPS,
    JOB_MAPS,
    PROCESS_MAPS,
    Maps,
    check_drivers_may_die,
    check_one_bad_item_loses_no_other,
    check_results_stream,
    jobs_of,
    once,
    wait_until,
)

SMALL = {"cpus_per_task": 1, "mem_gb": 0.3}
ALREADY = ("check_without_folder", "check_without_folder_and_memory")  # nothing in them is sent to a cluster


@pytest.mark.parametrize("check", [check for check in ALL_MAPS + PROCESS_MAPS + JOB_MAPS if check.__name__ not in ALREADY])
def test_contract(check, cluster, tmp_path: Path) -> None:
    check(Maps("slurm", tmp_path, **SMALL))


def test_auto_is_slurm_here(idle_cluster, tmp_path: Path) -> None:
    check_results_stream(Maps("auto", tmp_path, **SMALL))
    (sent,) = (tmp_path / "cache" / "logs").rglob("*_submitted.pkl")
    assert sent.name.partition("_")[0].isdigit()


def test_jobs_of_a_map_are_one_array(idle_cluster, tmp_path: Path) -> None:
    maps = Maps("slurm", tmp_path, **SMALL)
    model = maps.model(infra={"max_jobs": 6})
    assert list(model.compute(range(100))) == model.results(range(100))
    assert maps.calls == [16, 16, 17, 17, 17, 17]
    sent = [path.name.split("_") for path in (maps.cache / "logs").rglob("*_submitted.pkl")]
    assert len(sent) == 6
    assert len({parts[0] for parts in sent}) == 1


@pytest.mark.slow
def test_one_bad_item_among_many_jobs(idle_cluster, tmp_path: Path) -> None:
    check_one_bad_item_loses_no_other(Maps("slurm", tmp_path, **SMALL), 4000)


# callers on both nodes

_CALLER = """
import os, random, sys
from pathlib import Path
sys.path[:0] = {path!r}
from contracts.maps import Maps
maps = Maps({cluster!r}, Path({folder!r}), **{settings!r})
node, rank = os.environ["SLURMD_NODENAME"], os.environ["SLURM_PROCID"]
items = random.Random(node + rank).sample(range({total!r}), {total!r} * 3 // 4)
model = maps.model(pause=0.002)
assert list(model.compute(items)) == model.results(items)
print("done on", node, flush=True)
"""


@pytest.mark.parametrize("kind", [None, "processpool"])
@pytest.mark.parametrize("total", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_callers_on_both_nodes_compute_each_item_once(idle_cluster, tmp_path: Path, kind: str | None, total: int) -> None:
    maps = Maps(kind, tmp_path)
    path = [p for p in sys.path if p]
    code = _CALLER.format(path=path, cluster=kind, folder=str(tmp_path), settings={}, total=total)
    script = tmp_path / "caller.py"
    script.write_text(code)
    maps.notes.mkdir()
    steps = [
        subprocess.Popen(
            ["srun", "-w", node, "-n", "4", "--mem", "2G", sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in ("n1", "n2")
    ]
    said = [step.communicate(timeout=120)[0] for step in steps]
    for node, step, text in zip(("n1", "n2"), steps, said, strict=True):
        assert not step.returncode, text
        assert text.count(f"done on {node}\n") == 4, text
    assert set(maps.computed.values()) == {1}
    assert len(maps.computed) == total
    assert not list(maps.cache.rglob("*.claim"))


def call_in_jobs(send: Any, go: Path, number: int, maps: Maps) -> None:
    items = list(range(20 * number, 20 * number + 60))
    model = maps.model(pause=0.01)
    while not go.exists():
        time.sleep(0.001)
    assert list(model.compute(items)) == model.results(items)


def test_callers_share_their_jobs(idle_cluster, tmp_path: Path) -> None:
    maps = Maps("slurm", tmp_path, max_jobs=2, **SMALL)
    run_at_once(tmp_path, 3, call_in_jobs, maps)
    assert maps.computed == once(range(100))


# tasks


def test_tasks_are_computed_once(idle_cluster, tmp_path: Path) -> None:
    clusters = Clusters("slurm", tmp_path, **SMALL)
    run_at_once(tmp_path, 8, call_tasks, clusters)
    assert clusters.computed == 5


def test_a_failing_task_fails_for_all_once(idle_cluster, tmp_path: Path) -> None:
    clusters = Clusters("slurm", tmp_path, **SMALL)
    children = run_at_once(tmp_path, 8, call_failing_task, clusters, "cached")
    assert [child.items for child in children] == [["raised"]] * 8
    assert clusters.computed == 1


# what may happen to drivers and jobs


def test_driver_of_500_items_in_8_jobs_dies(idle_cluster, tmp_path: Path) -> None:
    maps = Maps("slurm", tmp_path, **SMALL)
    check_drivers_may_die(maps, 500, 0.03)
    assert maps.calls == [62, 62, 62, 62, 63, 63, 63, 63]


def test_another_process_waits_for_running_jobs(idle_cluster, tmp_path: Path) -> None:
    """A caller that comes later, and whose own cluster is its process, leaves to the jobs what is theirs."""
    maps = Maps("slurm", tmp_path, max_jobs=1, **SMALL)
    found = maps.model(pause=0.05).compute(range(30))
    assert next(found) == maps.model().result(0)

    def call(send: Any) -> None:
        model = maps.model(infra={"cluster": None})
        assert list(model.compute(range(35))) == model.results(range(35))

    child = Child(call)
    with killed_at_the_end([child]):
        wait_for([child], 60)
    assert list(found) == maps.model().results(range(1, 30))
    assert maps.computed == once(range(35))


def test_requeued_jobs_compute_the_rest(idle_cluster, tmp_path: Path) -> None:
    """As after a preemption: the driver waits for the job to come back."""
    maps = Maps("slurm", tmp_path, max_jobs=1, **SMALL)
    total = 40
    model = maps.model(pause=0.1)
    found = model.compute(range(total))
    assert next(found) == model.result(0)
    wait_until(lambda: len(maps.computed) > 5)
    (job,) = jobs_of(maps)
    idle_cluster.run("scontrol", "requeue", job.job_id)
    assert list(found) == model.results(range(1, total))
    again = maps.computed - once(range(total))
    assert sum(again.values()) <= 1, "finished items were computed again"
    assert len(maps.calls) == 2


def test_jobs_of_a_node_that_fails_are_told_as_such(idle_cluster, tmp_path: Path) -> None:
    maps = Maps("slurm", tmp_path, max_jobs=1, slurm_additional_parameters={"no_requeue": True, "nodelist": "n2"}, **SMALL)
    found = maps.model(bad=(3,), action="sleep").compute(range(6))
    assert next(found) == maps.model().result(0)
    wait_until(lambda: 3 in maps.computed)
    idle_cluster.fail_node("n2")
    with pytest.raises(RuntimeError, match="node failure") as info:
        list(found)
    assert sorted(info.value.failures) == ["3", "4", "5"]  # type: ignore[attr-defined]
    other = maps.model(infra={"slurm_additional_parameters": None})
    assert list(other.compute(range(6))) == other.results(range(6))
    assert maps.computed == once(range(6)) + Counter([3])
