"""Many callers at once: each thing is computed once, nobody waits for ever, and nobody for the dead."""

import fcntl
import functools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.processes import Child, in_threads, killed_at_the_end, wait_for
from contracts.clusters import Clusters
from contracts.maps import Maps, note, noted, once, wait_until


def wait_for_go(go: Path) -> None:
    while not go.exists():
        time.sleep(0.0005)


def run_at_once(folder: Path, number: int, function: Callable[..., None], *arguments: Any, seconds: float = 120) -> list[Child]:
    """Have processes do the same at the same moment; they get a ``go`` to wait for, and their number."""
    go = folder / "go"
    children = [Child(function, go, child, *arguments) for child in range(number)]
    with killed_at_the_end(children):
        time.sleep(0.1)
        go.touch()
        wait_for(children, seconds)
    return children


# tasks


def call_tasks(send: Any, go: Path, number: int, clusters: Clusters) -> None:
    tasks = [clusters.task(seed=seed) for seed in random.Random(number).sample(range(5), 5)]
    wait_for_go(go)
    for task in tasks:
        assert task.run() == {"value": task.seed + 0.5}


@pytest.mark.parametrize("cluster", [None, "local"])
def test_tasks_are_computed_once(tmp_path, cluster):
    clusters = Clusters(cluster, tmp_path)
    run_at_once(tmp_path, 8, call_tasks, clusters)
    assert clusters.computed == 5


def call_failing_task(send: Any, go: Path, number: int, clusters: Clusters, mode: str) -> None:
    task = clusters.task(mode, action="raise")
    wait_for_go(go)
    with pytest.raises(KeyError, match="no such thing"):
        task.run()
    send("raised")


@pytest.mark.parametrize("mode", ["cached", "retry"])
@pytest.mark.parametrize("cluster", [None, "local"])
def test_a_failing_task_fails_for_all_once(tmp_path, cluster, mode):
    clusters = Clusters(cluster, tmp_path)
    if mode == "retry":
        with pytest.raises(KeyError):
            clusters.task(action="raise").run()
        (tmp_path / "counts").unlink()
    children = run_at_once(tmp_path, 8, call_failing_task, clusters, mode)
    assert [child.items for child in children] == [["raised"]] * 8
    # a retry that begins when another one has ended is one of its own
    assert clusters.computed == 1 if mode == "cached" else clusters.computed <= 8


def call_forced_task(send: Any, go: Path, number: int, clusters: Clusters) -> None:
    task = clusters.task("force", seed=1)
    wait_for_go(go)
    assert task.run() == task.run() == {"value": 1.5}


def test_each_forced_task_computes_one_after_the_other(tmp_path):
    clusters = Clusters(None, tmp_path)
    run_at_once(tmp_path, 4, call_forced_task, clusters)
    assert clusters.computed == 4


def submit_arrays(send: Any, go: Path, number: int, clusters: Clusters) -> None:
    base = clusters.task()
    seeds = list(range(6)) if number % 2 else list(range(8, 1, -1))
    wait_for_go(go)
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=seed) for seed in seeds)
    assert [task.run()["value"] for task in array] == [seed + 0.5 for seed in seeds]


@pytest.mark.parametrize("cluster", [None, "local"])
def test_arrays_in_opposite_order_do_not_block_each_other(tmp_path, cluster):
    clusters = Clusters(cluster, tmp_path)
    run_at_once(tmp_path, 4, submit_arrays, clusters)
    assert clusters.computed == 9


# maps


def call_in_threads(send: Any, go: Path, number: int, maps: Maps, threads: int, total: int, pause: float) -> None:
    """Each thread wants a part of the items, in an order of its own; half of them share an instance."""
    shared = maps.model(pause=pause)

    def run(thread: int) -> None:
        rng = random.Random(100 * number + thread)
        items = rng.sample(range(total), total * 3 // 4)
        model = shared if thread % 2 else maps.model(pause=pause)
        wait_for_go(go)
        assert list(model.compute(items)) == model.results(items)

    in_threads(run, threads)


def call_at_once(maps: Maps, processes: int, threads: int, total: int, pause: float = 0.0) -> None:
    run_at_once(maps.folder, processes, call_in_threads, maps, threads, total, pause)
    wait_until(lambda: not list(maps.cache.rglob("*.claim")))
    assert maps.computed == once(range(total))
    model = maps.model("read-only")
    assert list(model.compute(range(total))) == model.results(range(total))


@pytest.mark.parametrize("total", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_items_are_computed_once(tmp_path, total):
    call_at_once(Maps(None, tmp_path), 8, 4, total, pause=0.001)


@pytest.mark.parametrize("total", [100, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cluster", ["threadpool", "processpool"])
def test_items_are_computed_once_by_pools(tmp_path, cluster, total):
    call_at_once(Maps(cluster, tmp_path), 4, 2, total)


def test_items_are_computed_once_by_jobs(tmp_path):
    call_at_once(Maps("local", tmp_path, max_jobs=2), 3, 2, 60)


def test_callers_on_different_clusters_share_their_work(tmp_path):
    kinds = [None, "threadpool", "processpool", "local"]

    def call(send: Any, go: Path, number: int) -> None:
        maps = Maps(kinds[number], tmp_path, max_jobs=3)
        call_in_threads(send, go, number, maps, 1, 80, 0.005)

    run_at_once(tmp_path, 4, call)
    wait_until(lambda: not list((tmp_path / "cache").rglob("*.claim")))
    assert max(Maps(None, tmp_path).computed.values()) == 1


def test_the_first_calls_of_threads_meet(tmp_path):
    """Threads that use an instance for the first time at the same moment, without a folder."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(40):
            maps = Maps(None, tmp_path / str(number))
            maps.folder.mkdir()
            model, barrier, found = maps.model(infra={"folder": None}), threading.Barrier(4), []

            def run(model: Any = model, barrier: threading.Barrier = barrier, found: list[Any] = found) -> None:
                barrier.wait()
                found.append(list(model.compute([1, 2, 3])))

            threads = [threading.Thread(target=run) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert found == [model.results([1, 2, 3])] * 4
            assert maps.computed == once([1, 2, 3])
    finally:
        sys.setswitchinterval(interval)


def test_forced_callers_compute_one_after_the_other(tmp_path):
    """Each instance forces each item once, and none computes what another one computes at that moment."""
    maps = Maps(None, tmp_path)
    list(maps.model().compute(range(20)))

    def call(send: Any, go: Path, number: int) -> None:
        model = maps.model("force", pause=0.001)
        wait_for_go(go)
        assert list(model.compute(range(20))) == model.results(range(20))
        assert list(model.compute(range(20))) == model.results(range(20))

    run_at_once(tmp_path, 3, call)
    assert maps.computed == Counter(dict.fromkeys(range(20), 4))


def call_failing_items(send: Any, go: Path, number: int, maps: Maps) -> None:
    model = maps.model(bad=(3, 7), pause=0.1)
    wait_for_go(go)
    with pytest.raises(ZeroDivisionError) as info:
        list(model.compute(range(10)))
    send(sorted(info.value.failures))


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local"])
def test_failures_are_shared_by_those_who_wait(tmp_path, cluster):
    maps = Maps(cluster, tmp_path, max_jobs=2)
    children = run_at_once(tmp_path, 4, call_failing_items, maps)
    assert [child.items for child in children] == [[["3", "7"]]] * 4
    assert maps.computed == once(range(10))


# death


def compute_slowly(send: Any, maps: Maps, total: int, pause: float = 0.05) -> None:
    list(maps.model(pause=pause).compute(range(total)))


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool"])
def test_a_killed_caller_is_replaced_by_those_who_wait(tmp_path, cluster):
    """What it had finished is kept; what it was at is computed once more at most."""
    maps, total = Maps(cluster, tmp_path), 40
    first = Child(compute_slowly, maps, total)
    children = [first]
    with killed_at_the_end(children):
        wait_until(lambda: len(maps.computed) > 5)
        children += [Child(compute_slowly, Maps(None, tmp_path), total) for _ in range(3)]
        wait_until(lambda: len(maps.computed) > 12)
        first.kill()
        wait_for(children[1:], 10)
    again = {item: number for item, number in maps.computed.items() if number > 1}
    assert set(again.values()) <= {2}
    assert len(again) <= (1 if cluster is None else 2 * (os.cpu_count() or 1)), again
    model = maps.model("read-only")
    assert list(model.compute(range(total))) == model.results(range(total))


def test_a_killed_caller_in_an_allocation_is_replaced(tmp_path, monkeypatch):
    """Though the job that it was started in goes on, as at an interactive allocation."""
    maps, total = Maps("processpool", tmp_path, max_jobs=1), 200
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "local-1234_0")
    queue = Path(maps.model().infra._log_folder().partition("%j")[0]) / "local-1234.queue"
    queue.parent.mkdir(parents=True)
    queue.touch()
    with queue.open() as job:
        fcntl.flock(job, fcntl.LOCK_EX)  # it lives
        children = [Child(compute_slowly, maps, total)]
        with killed_at_the_end(children):
            wait_until(lambda: len(maps.computed) > 5)
            children[0].kill()
            children.append(Child(compute_slowly, Maps(None, tmp_path), total, 0.0))
            wait_for(children[1:], 10)
    assert len(maps.computed) == total


def test_a_pool_that_loses_its_submitter_ends(tmp_path):
    maps = Maps("processpool", tmp_path)
    child = Child(compute_slowly, maps, 1000)
    with killed_at_the_end([child]):
        wait_until(lambda: len(maps.computed) > 3)
    time.sleep(1.5)
    before = len(maps.computed)
    time.sleep(0.3)
    assert len(maps.computed) == before


# what could wait for each other


def zip_two(send: Any, go: Path, number: int, maps: Maps, *, meets: bool) -> None:
    """Go on with two iterators by turns; the other process has the same items, the other way round.

    Either each wants next what the other one has just computed, or what that holds and will only come to in the end.
    """
    first, second = list(range(10)), list(range(10, 20))
    if number:
        first, second = second, first
    second = second if meets else second[::-1]
    wait_for_go(go)
    model = maps.model(pause=0.002)
    found = list(zip(model.compute(first), maps.model().compute(second), strict=True))
    assert found == list(zip(model.results(first), model.results(second), strict=True))


@pytest.mark.parametrize("meets", [True, False])
def test_suspended_iterators_of_two_processes_do_not_wait_for_each_other(tmp_path, meets):
    maps = Maps(None, tmp_path)
    run_at_once(tmp_path, 2, functools.partial(zip_two, meets=meets), maps, seconds=20)
    assert maps.computed == once(range(20))


def test_iterators_that_a_process_was_forked_with_are_its_parents(tmp_path):
    """The child waits for its parent, which goes on."""
    maps = Maps(None, tmp_path)
    model = maps.model()
    found = model.compute(range(10))
    assert next(found) == model.result(0)

    def call(send: Any) -> None:
        assert list(maps.model().compute(range(10))) == model.results(range(10))

    child = Child(call)
    with killed_at_the_end([child]):
        time.sleep(0.3)
        assert len(list(found)) == 9
        wait_for([child], 20)
    assert maps.computed == once(range(10))


@pytest.mark.parametrize("cluster", ["threadpool", "processpool"])
def test_iterators_that_are_dropped_leave_no_item_half_done(tmp_path, cluster):
    """An item that a thread still computes, for nobody, is not computed by the next call at the same time."""
    maps = Maps(cluster, tmp_path)
    found = maps.model(pause=0.2, infra={"max_jobs": 1}).compute(range(4))
    next(found)
    wait_until(lambda: len(maps.computed) == 2)
    found.close()
    assert list(maps.model().compute(range(4))) == maps.model().results(range(4))
    if cluster == "threadpool":
        assert maps.computed == once(range(4))
    else:  # its process was stopped
        assert maps.computed == once(range(4)) + Counter([1])


def test_callers_whose_notes_tell_of_all(tmp_path):
    """The notes that these tests count by lose nothing themselves."""

    def write(send: Any, go: Path, number: int) -> None:
        wait_for_go(go)
        for _ in range(500):
            note(str(tmp_path / "notes"), number)

    run_at_once(tmp_path, 4, write)
    assert Counter(noted(tmp_path / "notes")) == Counter({str(number): 500 for number in range(4)})
