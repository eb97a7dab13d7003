"""Local jobs whose queue is gone, and why those of a queue wait."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pydantic
import pytest

import exca_like
from exca_like import processes
from exca_like.catalog import Catalog
from exca_like.cli.app import run
from exca_like.entries import Entry
from exca_like.errors import JobInterruptedError, SubmissionError
from exca_like.executors import cancel_all, local
from exca_like.executors.local import LocalJob
from exca_like.infra.job import TaskJob


class Waits(pydantic.BaseModel):
    """Says which process it is, and who started that; goes on when a file is there."""

    gate: Path
    seed: int = 0
    is_stubborn: bool = False
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local")

    @infra.apply
    def run(self) -> int:
        if self.is_stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), os.getppid(), flush=True)
        while not self.gate.exists():
            time.sleep(0.02)
        return self.seed


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file without which jobs wait; there is one slot, of this test's own."""
    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process: what it said, and how it ended."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments: object) -> str:
        capfd.readouterr()
        ended = run([*map(str, arguments), "--folder", str(tmp_path / "cache")])
        said = capfd.readouterr()
        return f"{said.out}{said.err}{ended}"

    return call


def until(condition: Callable[[], object]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it does not happen")


def submitted(gate: Path, **fields: bool) -> tuple[list[TaskJob[int]], int, int]:
    """Jobs of an array, of which the first runs and the second waits; the pids of the one that runs, and of their queue."""
    waits = Waits(gate=gate, infra={"folder": gate.parent / "cache"}, **fields)
    with waits.infra.job_array() as array:
        array.extend(waits.infra.clone_obj(seed=seed) for seed in (0, 1))
    jobs = [task.infra.job() for task in array]
    until(lambda: re.fullmatch(r"\d+ \d+\n", jobs[0].stdout() or ""))
    pid, queue = map(int, (jobs[0].stdout() or "").split())
    return jobs, pid, queue


def entries(gate: Path) -> list[Entry]:
    return sorted(Catalog(gate.parent / "cache"), key=lambda entry: entry.config.get("seed", 0))


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_jobs_that_wait_are_lost_with_their_queue_and_those_that_run_can_be_cancelled(
    gate: Path, command: Callable[..., str]
) -> None:
    jobs, pid, queue = submitted(gate)
    os.kill(queue, signal.SIGKILL)
    until(lambda: [entry.status for entry in entries(gate)] == ["running", "lost"])
    assert not jobs[0].done() and jobs[0].state == "RUNNING" and isinstance(jobs[1].exception(), JobInterruptedError)
    assert "the process that ran the queue of jobs is gone" in command("ls", "--status", "lost")
    assert "1 task would be submitted again" in command("retry", "--lost")
    assert command("cancel", jobs[0].job_id, jobs[1].job_id, "--yes").endswith("it is lost\n1")
    assert not processes.start_of(pid), "it has ended"
    entry = entries(gate)[0]
    assert (entry.status, entry.reason) == ("lost", "cancelled")
    assert re.search("result: cancelled", str(jobs[0].exception()))
    gate.touch()
    assert "2 completed" in command("retry", "--lost", "--yes", "--wait")


def test_who_holds_the_slots(gate: Path, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, pid, _ = submitted(gate)
    more = "(a larger EXCA_LIKE_LOCAL_JOBS at submission gives more)"
    assert entries(gate)[1].reason == f"1 of 1 slots taken by process {pid} {more}"
    assert f"1 of 1 slots taken by process {pid}" in command("ls", "--status", "queued")
    waits = Waits(gate=gate, seed=1, infra={"folder": gate.parent / "cache"})
    assert waits.infra.status_detail().reason.endswith(more)
    (job,) = (entry.handle() for entry in entries(gate)[1:])
    monkeypatch.setattr(local, "slot_holders", lambda _: ["1", "", "2", "3", "4"][:slots])
    monkeypatch.setattr(local, "_settings_of", lambda _: (host, slots, *workers))
    host, workers = os.uname().nodename, (2, 2)
    for slots, said in ((1, " by process 1 "), (5, " by processes 1, 2, 3 and 1 more ")):
        assert job.whereabouts().reason == f"{slots} of {slots} slots taken{said}{more}"
    slots = 6
    assert job.whereabouts().reason == "it waits for its turn"
    slots, workers = 0, (1, 2)
    assert job.whereabouts().reason == "at most 1 of its array at a time"
    host = "far"
    assert job.whereabouts().reason == "other local jobs are running on far"
    gate.touch()
    assert [job.result() for job in jobs] == [0, 1]


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_a_job_without_its_queue_that_goes_on_to_its_end(gate: Path) -> None:
    jobs, _, queue = submitted(gate)
    os.kill(queue, signal.SIGKILL)
    until(jobs[1].done)
    gate.touch()
    assert jobs[0].result() == 0
    jobs[0].cancel()
    assert entries(gate)[0].status == "completed"


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_a_job_without_its_queue_that_does_not_want_to_stop(gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, pid, queue = submitted(gate, is_stubborn=True)
    os.kill(queue, signal.SIGKILL)
    until(jobs[1].done)
    monkeypatch.setattr(local, "_GRACE", 0.1)
    jobs[0].cancel()
    until(lambda: not processes.start_of(pid))
    assert jobs[0].done() and jobs[0].state == "CANCELLED"


@contextlib.contextmanager
def without_queue(folder: Path, **changed: object) -> Iterator[tuple[LocalJob, "subprocess.Popen[bytes]"]]:
    """A job whose queue is gone, and a process that its files name, some of it changed."""
    job = LocalJob(f"{folder}/%j", "local-12_0")
    job.paths.folder.mkdir()
    program = [sys.executable, "-c", "input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True) as process:
        job.paths.process.write_bytes(orjson.dumps(processes.identity(process.pid) | changed))
        with job.paths.process.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield job, process
        process.kill()


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_another_process_with_the_pid_of_a_job_is_left_alone(tmp_path: Path) -> None:
    with without_queue(tmp_path, start="1") as (job, process):
        assert job.state == "LOST"
        job.cancel()
        assert process.poll() is None and job.state == "LOST"


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_cancelling_says_if_it_can_not(tmp_path: Path) -> None:
    with without_queue(tmp_path, system="another", host="far") as (job, process):
        with pytest.raises(SubmissionError, match=rf"job local-12_0 goes on.* `kill -- -{process.pid}` on far"):
            job.cancel()
        assert process.poll() is None and job.state != "CANCELLED" and job.ended() is None
        job.paths.process.write_bytes(b"")
        other = LocalJob(job.logs, "local-13_0")
        with pytest.raises(SubmissionError, match="its pid is not known"):
            cancel_all([job, other])
        assert other.paths.folder.joinpath("local-13_0_cancel").exists(), "the others are cancelled"
    assert job.state == "LOST", "nobody holds the lock of the job"


def test_folders_of_jobs_that_no_process_was_noted_of(tmp_path: Path) -> None:
    job = LocalJob(f"{tmp_path}/%j", "local-12_0")
    job.paths.folder.mkdir()
    job.paths.stdout.touch()
    job.queue.touch()
    with job.queue.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # as the jobs themselves did, too
        assert job.state == "RUNNING" and job.ended() is None
        assert LocalJob(job.logs, "local-12_1").whereabouts().reason == "other local jobs are running"
        job.cancel()
    until(job.ended)
    assert job.state == "LOST"
