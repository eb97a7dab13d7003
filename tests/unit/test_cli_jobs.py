"""Commands on several entries at once, by filters or ids of jobs, and on maps that several jobs compute."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pydantic
import pytest
from test_catalog import Train

import exca_like
from exca_like.catalog import Catalog
from exca_like.cli.app import run
from exca_like.entries import Entry
from exca_like.errors import ItemsFailedError

Said = tuple[int, str, str]


class Waits(pydantic.BaseModel):
    """A map whose items wait until a file is there."""

    gate: Path
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="local", max_jobs=2)

    @infra.apply(item_uid=str)
    def run(self, items: Sequence[int]) -> Iterator[int]:
        for item in items:
            print("item", item, flush=True)
            while not self.gate.exists():
                time.sleep(0.05)
            yield item


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process: how it ended, what it printed, and what it printed as errors."""
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "64")  # jobs that wait for others must not wait for their places

    def call(*arguments: object) -> Said:
        capfd.readouterr()
        ended = run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return ended, said.out, " ".join(said.err.split())

    return call


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file without which jobs wait; in the end they go on, whatever happened."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


def entry_that(folder: Path, is_so: Callable[[Entry], bool]) -> Entry:
    """The only entry of a folder, once something is true of it."""
    for _ in range(300):
        entries = list(Catalog(folder))
        if len(entries) == 1 and is_so(entries[0]):
            return entries[0]
        time.sleep(0.1)
    raise AssertionError(entries)


def error_of(waits: Waits) -> str:
    """What a call of four items raises."""
    with pytest.raises(ItemsFailedError) as raised:
        list(waits.run(range(4)))
    return str(raised.value)


def test_a_map_is_cancelled_by_job_and_as_a_whole(tmp_path: Path, gate: Path, command: Callable[..., Said]) -> None:
    waits = Waits(gate=gate, infra={"folder": tmp_path})
    errors: list[str] = []
    caller = threading.Thread(target=lambda: errors.append(error_of(waits)), daemon=True)
    caller.start()
    entry = entry_that(tmp_path, lambda entry: entry.status == "running" and len(entry.handles()) == 2)
    first, second = sorted(handle.job_id for handle in entry.handles())
    logs = [handle.paths.stdout for handle in entry.handles()]
    entry_that(tmp_path, lambda _: all(log.exists() and "item" in log.read_text() for log in logs))
    array = first.rpartition("_")[0]
    for option in ("--since", "--before"):
        assert len(json.loads(command("cancel", option, "0s" if option == "--before" else "1h", "--json")[1])) == 1
    assert [row["job"] for row in json.loads(command("cancel", first, "--json")[1])] == [first]
    both = json.loads(command("cancel", array, "--json")[1])
    assert [sorted(row["job"].split(", ")) for row in both] == [[first, second]]
    ended, out, _ = command("cancel", second, "--yes")
    assert ended == 0 and out.endswith("1 entry cancelled\n")
    entry_that(tmp_path, lambda _: [handle.job_id for handle in entry.handles() if handle.ended() is None] == [first])
    gate.touch()
    caller.join()
    assert "2 of 4 items" in errors[0]
    entry = entry_that(tmp_path, lambda entry: entry.status == "lost")
    assert entry.values == 2 and entry.reason == f"2 items without a result: cancelled (job {second})"
    assert sorted(entry.jobs()) == [first, second]
    out = command("why", "Waits.run")[1]
    assert f"The map is lost: 2 items without a result: cancelled (job {second}). Stored results of items: 2. A call" in out
    assert out.startswith("hit: ") and "computes the others (a miss)" in out
    assert command("logs", second)[1] == "item 2\n"
    ended, _, err = command("logs", "Waits.run")
    assert ended == 1 and f"2 jobs were at {entry.uid}: give the id of one, like {second}, {first}" in err
    assert "1 was lost, which counts as not submitted: 1 × cancelled." in command("failures")[1]
    ended, out, err = command("retry", "--lost")
    assert (ended, out) == (0, "nothing to do: no task was lost\n")
    assert err == f"of maps and functions, make the call again: {entry.uid}"
    assert list(json.loads(command("retry", "--lost", "--json")[1])["left_out"]) == [entry.uid]
    assert list(waits.run(range(4))) == [0, 1, 2, 3]
    assert [entry.status for entry in Catalog(tmp_path)] == ["completed"]
    assert " is pinned" in command("pin", first)[1], "by the id of a job that computed some of it"


def test_the_log_of_the_one_job_of_a_map(tmp_path: Path, gate: Path, command: Callable[..., Said]) -> None:
    gate.touch()
    list(Waits(gate=gate, infra={"folder": tmp_path, "max_jobs": 1}).run(range(2)))
    assert command("logs", "Waits.run")[1] == "item 0\nitem 1\n"


def twice(x: int) -> int:
    print("twice", x, flush=True)
    return 2 * x


def test_the_logs_of_calls(tmp_path: Path, command: Callable[..., Said]) -> None:
    assert list(exca_like.memo(folder=tmp_path, cluster="local")(twice).map([1, 2])) == [2, 4]
    for entry in Catalog(tmp_path):
        printed = f"twice {entry.load() // 2}\n"
        assert command("logs", entry.uid)[1] == command("logs", entry.job)[1] == printed
    ended, out, _ = command("logs", "x=2")
    assert (ended, out) == (0, "twice 2\n")


def test_folders_that_are_no_cache_root(tmp_path: Path, command: Callable[..., Said]) -> None:
    for name in ("one", "two"):
        Train(infra={"folder": tmp_path / name}).run()
    for words in (("ls",), ("push", tmp_path / "there")):
        ended, _, err = command(*words, "--folder", tmp_path)
        assert ended == 2 and re.search("holds several caches: give one of them, .*/one, .*/two", err)
    (method,) = (path for path in (tmp_path / "one").iterdir() if "," in path.name)
    for part in (method, method / "default"):
        ended, _, err = command("ls", "--folder", part)
        assert ended == 2 and "is a folder in the cache" in err and err.endswith(f"give {tmp_path / 'one'}")


CODE = """
import pydantic, exca_like
class Train(pydantic.BaseModel):
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=".")
    @infra.apply
    def run(self) -> int:
        return {}
if __name__ == "__main__":
    Train(seed={}).run()
"""


def test_results_of_different_code_are_told_apart(tmp_path: Path, command: Callable[..., Said]) -> None:
    for seed, result in ((1, "1"), (2, "1"), (3, "2 + 1")):
        (tmp_path / "train.py").write_text(CODE.format(result, seed))
        subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True)
    rows = {row["seed"]: row["code"] for row in json.loads(command("table", "--only-changed", "--json")[1])}
    assert rows[1] == rows[2] != rows[3]
    command("rm", "seed=3", "--yes")
    assert ["code" in row for row in json.loads(command("table", "--only-changed", "--json")[1])] == [False, False]


def test_a_task_that_was_interrupted_here_is_submitted_again(tmp_path: Path, command: Callable[..., Said]) -> None:
    (tmp_path / "train.py").write_text(CODE.format("__import__('os').kill(__import__('os').getpid(), 2)", 1))
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=False, stderr=subprocess.DEVNULL)
    (entry,) = Catalog(tmp_path)
    assert entry.status == "empty"
    (tmp_path / "train.py").write_text(CODE.format("5", 1))
    done = subprocess.run(
        [sys.executable, "-m", "exca_like", "retry", "--lost", "--yes", "--wait"],
        cwd=tmp_path,
        env=os.environ | {"EXCA_LIKE_FOLDER": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 completed" in done.stdout and Catalog(tmp_path)[0].load() == 5


def test_several_entries_by_filters(tmp_path: Path, command: Callable[..., Said]) -> None:
    for seed in range(3):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    ended, out, _ = command("pin", "--where", "seed=0", "--where", "optim.lr=0.1")
    assert ended == 0 and out.count(" is pinned") == 1
    assert [entry["pinned"] for entry in json.loads(command("ls", "--pinned", "--json")[1])] == [True]
    ended, out, _ = command("rm", "-m", "Train.run", "--yes")
    assert ended == 1 and "stays: it is pinned" in out and re.search(r"\n2 entries, [\d.]+ k?B removed\n$", out)
    assert len(Catalog(tmp_path)) == 1
    assert command("unpin", "-m", "Train.run")[0] == 0
    for seed in range(1, 5):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    for words in (("-w", "seed=1", "-w", "seed=2"), ("-w", "seed=1,2")):
        plan = json.loads(command("rm", *words, "--json")[1])
        assert ["seed=1" in row["uid"] or "seed=2" in row["uid"] for row in plan["removals"]] == [True, True]
    ended, out, err = command("rm", "seed=1", "--where", "seed=2")
    assert out == "nothing fits: nothing is to be removed\n" and "seed=1-c4ca4238 does not fit the other options: it is" in err
    ended, _, err = command("show", "seed=0")
    assert ended == 1 and "did you mean" in err and "Train.run,1/default?" in err
    assert command("pin", "-w", "seed=9") == (0, "nothing fits\n", "")
    assert command("cancel", "-m", "Train.run") == (0, "0 tasks cancelled\n", "")
    for name in ("pin", "unpin", "rm", "cancel"):
        ended, _, err = command(name)
        assert ended == 2 and "say which entries" in err
