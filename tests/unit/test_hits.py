"""How often results were taken from the cache, and what is made of that."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import hits, maintenance
from exca_like.catalog import Catalog
from exca_like.layout import EntryFolder
from exca_like.pruning import prune


@pytest.fixture(autouse=True)
def _counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXCA_LIKE_COUNT_HITS", raising=False)


class Task(pydantic.BaseModel):
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self.seed


class Items(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str)
    def process(self, items: list[int]):
        for item in items:
            yield np.full(10, item)


def double(x: int) -> int:
    return 2 * x


def task(folder: Path, seed: int = 0, **infra) -> Task:
    return Task(seed=seed, infra={"folder": folder, **infra})


def numbers(folder: Path) -> dict[str, int]:
    return hits.read(str(folder))


def files_of(folder: Path) -> list[Path]:
    return sorted((folder / ".hits").glob("*"))


PROGRAM = """
import sys
from test_hits import *
folder, number = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(number):
    task(folder).run()
"""


def start(folder: Path, number: int, end: str = "") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM + end, str(folder), str(number)], env=environment)


def test_hits_from_disk_are_counted(tmp_path: Path) -> None:
    task(tmp_path).run()
    assert numbers(tmp_path) == {}  # it was computed
    one = task(tmp_path)
    for _ in range(3):
        one.run()
    task(tmp_path).infra.job().result()
    items = Items(infra={"folder": tmp_path})
    list(items.process([1, 2]))
    list(items.process([1, 2, 3]))
    list(items.process([3]))
    list(items.process(iter([1, 2])))
    f = exca_like.memo(folder=tmp_path)(double)
    f(1), f(1), f(2), f(2), f(2)
    list(f.map([1, 2, 3]))
    found = {entry.uid: entry.hits for entry in Catalog(tmp_path)}
    assert found.pop(one.infra.uid()) == 4
    assert found.pop(items.infra.uid()) == 5
    assert sorted(found.values()) == [0, 2, 3]
    assert files_of(tmp_path) == []  # to look writes nothing
    hits.write()
    assert len(files_of(tmp_path)) == 1 and numbers(tmp_path)[one.infra.uid()] == 4


def test_results_in_ram_are_not_counted(tmp_path: Path) -> None:
    one = task(tmp_path, keep_in_ram=True)
    for _ in range(5):
        one.run()
    items = Items(infra={"folder": tmp_path, "keep_in_ram": True})
    for _ in range(5):
        list(items.process([1, 2]))
    assert numbers(tmp_path) == {}


@pytest.mark.parametrize("cluster", [None, "local"])
def test_what_a_sweep_finds_is_counted_once(tmp_path: Path, cluster: str | None) -> None:
    base = task(tmp_path, cluster=cluster)

    def used() -> int:
        sweep = exca_like.sweep(base, {"seed": [1, 2, 3]}).submit().wait()
        assert sweep.results() == [1, 2, 3] and len(sweep.failures()) == 0
        return sum(numbers(tmp_path).values())

    assert [used(), used(), used()] == [0, 3, 6]  # at first they were computed


def test_what_an_array_and_jobs_find_is_counted_once(tmp_path: Path) -> None:
    for expected in (0, 2):
        with task(tmp_path, cluster="local").infra.job_array() as array:
            array.extend(task(tmp_path, seed) for seed in (1, 2))
        assert [one.infra.job().result() for one in array] == [1, 2]
        assert sum(numbers(tmp_path).values()) == expected + 2  # job() was a question of its own
        hits.write()
        for file in files_of(tmp_path):
            file.unlink()


def test_items_that_are_given_twice_are_no_hits(tmp_path: Path) -> None:
    items = Items(infra={"folder": tmp_path})
    list(items.process([1, 1, 2]))
    assert numbers(tmp_path) == {}
    list(items.process([1, 1, 3, 3]))
    assert numbers(tmp_path) == {items.infra.uid(): 2}


def test_two_roots_have_one_file_each(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        task(root).run()
    for _ in range(3):
        for root in roots:
            task(root).run()
        hits.write()
    assert [len(files_of(root)) for root in roots] == [1, 1]
    assert [numbers(root) for root in roots] == [{task(roots[0]).infra.uid(): 3}] * 2


def test_threads(tmp_path: Path) -> None:
    task(tmp_path).run()
    threads = [threading.Thread(target=lambda: [task(tmp_path).run() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 190 <= numbers(tmp_path)[task(tmp_path).infra.uid()] <= 200  # two threads at once may count one


def test_processes_have_files_of_their_own(tmp_path: Path) -> None:
    task(tmp_path).run()
    running = [start(tmp_path, 5) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 20} and len(files_of(tmp_path)) == 4
    maintenance.compact(tmp_path)
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 20} and len(files_of(tmp_path)) == 1


def test_a_forked_process_counts_for_itself(tmp_path: Path) -> None:
    task(tmp_path).run()
    end = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=lambda: [task(folder).run() for _ in range(100)])
child.start()
child.join()
assert child.exitcode == 0
"""
    assert start(tmp_path, 3, end).wait(60) == 0
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 103}


def test_jobs(tmp_path: Path) -> None:
    task(tmp_path).run()

    class Whole(pydantic.BaseModel):
        part: Task
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return self.part.run() + self.part.run()

    Whole(part=task(tmp_path), infra={"folder": tmp_path, "cluster": "local"}).run()
    assert numbers(tmp_path)[task(tmp_path).infra.uid()] == 2


def test_a_killed_process_loses_its_own(tmp_path: Path) -> None:
    task(tmp_path).run()
    start(tmp_path, 4).wait(60)
    assert start(tmp_path, 4, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").wait(60) == -9
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 4}
    (file,) = files_of(tmp_path)
    file.write_bytes(file.read_bytes() + b'{"x')  # and half a line is none
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 4}


def test_a_root_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task(tmp_path).run()

    def refuse(*args, **kwargs):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(hits.os, "mkdir", refuse)
        task(tmp_path).run()
        hits.write()
    assert not (tmp_path / ".hits").exists() and numbers(tmp_path) == {}


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": {"": 1',
        b"\xff",
        b"[1]",
        b'{"a": 1}',
        b'{"a": {"": "1"}}',
        b'{"a": {"key": null}}',
    ],
)
def test_a_wrong_line_counts_as_nothing(tmp_path: Path, line: bytes) -> None:
    task(tmp_path).run()
    task(tmp_path).run()
    hits.write()
    (tmp_path / ".hits/1-other.jsonl").write_bytes(b'{"a": {"": 2}}\n' + line + b"\n")
    (tmp_path / "a").mkdir()
    expected = {task(tmp_path).infra.uid(): 1, "a": 2}
    assert numbers(tmp_path) == expected
    hits.merge(str(tmp_path))
    assert numbers(tmp_path) == expected and len(files_of(tmp_path)) == 1


def test_what_is_no_folder_of_counts(tmp_path: Path) -> None:
    (tmp_path / ".hits").write_text("")
    task(tmp_path).run()
    task(tmp_path).run()
    hits.write()
    maintenance.compact(tmp_path)
    assert Catalog(tmp_path)[0].hits == 0 and (tmp_path / ".hits").is_file()


def test_a_setting_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task(tmp_path).run()
    monkeypatch.setenv("EXCA_LIKE_COUNT_HITS", "no")
    task(tmp_path).run()
    assert numbers(tmp_path) == {}


def test_merging_beside_writers(tmp_path: Path) -> None:
    """Nothing is lost, and nothing counts twice, whatever is merged when."""
    task(tmp_path).run()
    end = """
from exca_like import hits
hits.write()
for _ in range(200):
    task(folder).run()
    hits.write()
"""
    running = [start(tmp_path, 1, end) for _ in range(3)]
    seen = 0
    while any(process.poll() is None for process in running):
        hits.merge(str(tmp_path))
        now = numbers(tmp_path).get(task(tmp_path).infra.uid(), 0)
        assert now >= seen
        seen = now
    assert [process.returncode for process in running] == [0] * 3
    hits.merge(str(tmp_path))
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 603} and len(files_of(tmp_path)) == 1


def test_numbers_of_tasks_and_of_calls(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / ".hits").mkdir()
    for name, by_key in (("1-a", {"": 2}), ("2-b", {"key": 3}), ("3-c", {"key": 4})):
        (tmp_path / ".hits" / f"{name}.jsonl").write_text(json.dumps({"a": by_key}) + "\n")
    assert numbers(tmp_path) == {"a": 2, "a/key": 7}
    hits.merge(str(tmp_path))
    assert numbers(tmp_path) == {"a": 2, "a/key": 7} and len(files_of(tmp_path)) == 1
    entry = EntryFolder(str(tmp_path), "a")
    hits.counts[entry] += 1
    hits.counts[entry, "key"] += 1
    hits.write()
    assert numbers(tmp_path) == {"a": 3, "a/key": 8}


def test_files_that_can_not_be_removed_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / ".hits").mkdir()
    for name in "bcd":
        (tmp_path / ".hits" / f"{name}.jsonl").write_text('{"a": {"": 1}}\n')
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path.endswith("b.jsonl"):
            raise PermissionError
        unlink(path)

    monkeypatch.setattr(hits.os, "unlink", refuse)
    for _ in range(2):
        hits.merge(str(tmp_path))
        assert numbers(tmp_path) == {"a": 3} and len(files_of(tmp_path)) == 2


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    for seed in range(2):
        task(tmp_path, seed).run()
        task(tmp_path, seed).run()
    hits.write()
    start(tmp_path, 1).wait(60)
    seeds = Catalog(tmp_path).filter(config={"seed": 1})
    assert len(prune(seeds, keep_last=0)) == 1 and len(numbers(tmp_path)) == 2
    prune(seeds, keep_last=0, dry_run=False)
    assert numbers(tmp_path) == {task(tmp_path).infra.uid(): 2} and len(files_of(tmp_path)) == 1


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    for seed, number in enumerate((3, 1, 2)):
        for _ in range(number):
            task(tmp_path, seed).run()
    removed = prune(tmp_path, max_size=0, policy="lfu")
    assert [one.entry.config["seed"] for one in removed] == [1, 2, 0]
    assert [one.reason.rpartition(", ")[2] for one in removed] == ["0 hits", "1 hit", "2 hits"]


def test_stats(tmp_path: Path) -> None:
    for seed in range(3):
        for _ in range(seed + 1):
            task(tmp_path, seed).run()
    items = Items(infra={"folder": tmp_path})
    list(items.process(range(10)))
    list(items.process(range(10)))
    stats = Catalog(tmp_path).stats()
    found = {usage.method: usage for usage in stats}
    tasks, maps = found["test_hits.Task.run,0"], found["test_hits.Items.process,0"]
    assert (tasks.entries, tasks.hits, maps.entries, maps.hits) == (3, 3, 1, 10)
    assert stats.total.hits == 13 and stats.total.saved == pytest.approx(tasks.saved + maps.saved) and maps.saved > 0
    assert stats.total.size == sum(entry.size for entry in Catalog(tmp_path))
    hits.write()
    assert "time saved" in str(stats) and "total" in str(stats)

    def command(*options: str) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "exca_like", "stats", *options]
        return subprocess.run(line, capture_output=True, text=True)

    shown = json.loads(command("--folder", str(tmp_path), "--json").stdout)
    assert shown["total"]["hits"] == 13 and {one["method"] for one in shown["methods"]} == set(found)
    assert "test_hits.Task.run,0" in command("--folder", str(tmp_path)).stdout
    assert command("--folder", str(tmp_path / "none")).returncode == 1
    assert command("--folder", str(tmp_path), "--since", "soon").returncode != 0
