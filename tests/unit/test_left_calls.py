"""Calls of memoised functions that were begun, and have no result: somebody computes them, or died."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli_jobs import Said, command

import exca_like
from exca_like import pruning, sharing, stored
from exca_like.cachedict import claims, owners
from exca_like.catalog import Catalog
from exca_like.entries import claims_of
from exca_like.errors import ItemsFailedError, NotCachedError

__all__ = ["command"]


def fragile(n: int, gate: str) -> int:
    if n == 1 and not os.path.exists(gate):
        os.kill(os.getpid(), signal.SIGKILL)
    print("computed", n)
    return n


def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let somebody claim keys of a folder, and die."""

    def leave(folder: Path, *keys: str) -> None:
        dead = {**owners.this_process(), "pid": 1 << 23, "start": "none"}
        with monkeypatch.context() as patch:
            patch.setattr(claims, "this_process", lambda _: dead)
            (claim,), _ = claims_of(str(folder)).claim(keys, lambda free: [free])
        owners.heartbeat.drop(claim.path)

    return leave


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_a_call_whose_job_died(tmp_path: Path, command: Callable[..., Said]) -> None:
    function, gate = exca_like.memo(folder=tmp_path, cluster="local")(fragile), str(tmp_path / "gate")
    with pytest.raises(ItemsFailedError):
        list(function.map([0, 1], gate=gate))
    catalog = Catalog(tmp_path)
    left, done = catalog
    assert (left.kind, left.key, left.status, done.status) == ("memo", "", "lost", "completed")
    assert left.uid == done.uid.rpartition("/")[0] and left.path == done.path and left.root == tmp_path
    assert left.reason == f"1 call without a result: killed by SIGKILL, not by exca_like (job {left.job})"
    assert left.time is not None and (left.values, left.failures, left.size, left.config) == (0, 0, 0, {})
    assert left.is_of_calls and not done.is_of_calls and left.failure() is None
    assert [handle.job_id for handle in left.handles()] == left.jobs() == [left.job] != done.jobs()
    assert catalog[left.job] == left and catalog[done.job] == done
    with pytest.raises(NotCachedError, match="there is no result of"):
        left.load()

    assert "1 was lost" in str(catalog.failures()) and len(catalog.filter(status="lost")) == 1
    assert command("logs", left.job)[:2] == command("logs", left.uid)[:2]
    assert f"of maps and functions, make the call again: {left.uid}" in command("retry", "--lost")[2]
    assert "config  not known" in command("show", left.uid)[1] and "killed by SIGKILL" in command("why", left.uid)[1]
    assert stored.explain(left, catalog).status == "miss" and stored.explain(left, catalog).nearest is None
    assert [row["status"] for row in catalog.to_records()] == ["lost", "completed"]
    assert catalog.stats().total.statuses == {"lost": 1, "completed": 1}

    there = sharing.push(tmp_path, tmp_path.with_name(f"{tmp_path.name}-there"))
    assert (there.added, there.left_out) == (1, 0)

    Path(gate).touch()
    assert list(exca_like.memo(folder=tmp_path)(fragile).map([0, 1], gate=gate)) == [0, 1]
    assert [entry.status for entry in catalog] == ["completed"] * 2


def test_what_is_left_is_not_pinned(tmp_path: Path, leave: Callable[..., None], command: Callable[..., Said]) -> None:
    exca_like.memo(folder=tmp_path)(double)(1)
    leave(Catalog(tmp_path)[0].folder, "n=2", "n=3")
    left, done = Catalog(tmp_path)
    assert re.fullmatch(r"2 calls without a result: process \d+ of .* is gone", left.reason)
    with pytest.raises(NotCachedError, match="nothing is stored of those calls"):
        left.pin()
    assert command("pin", "-m", "double")[:2] == (0, f"{done.uid} is pinned\n")
    assert command("pin", left.uid)[0] == 1
    assert [entry.is_pinned for entry in Catalog(tmp_path)] == [False, True]
    assert command("unpin", "-m", "double")[0] == 0 and not any(entry.is_pinned for entry in Catalog(tmp_path))


def test_to_remove_what_is_left_costs_no_result(tmp_path: Path, leave: Callable[..., None]) -> None:
    function = exca_like.memo(folder=tmp_path)(double)
    function(1), function(2)
    catalog = Catalog(tmp_path)
    folder = catalog[0].folder
    leave(folder, "n=3")
    assert [one.entry.is_of_calls for one in pruning.prune(tmp_path, status="lost")] == [True]
    assert len(catalog) == 3, "only told"
    left = catalog.refresh()[0]
    (claim,), _ = claims_of(str(folder)).claim(["n=4"], lambda free: [free])
    with claim:
        running = catalog.refresh()[0]
        assert running.is_of_calls and running.status == "running" and f"process {os.getpid()}" in running.reason
        assert [one.problem for one in pruning.remove(running)] == ["it is running"]
        (found,) = pruning.remove(left, dry_run=False)
        assert "others may be computing it, like process" in str(found.problem)
    assert [entry.status for entry in catalog] == ["completed"] * 2
    leave(folder, "n=3")
    assert [one.problem for one in pruning.prune(tmp_path, status="lost", dry_run=False)] == [None]
    assert [entry.status for entry in catalog] == ["completed"] * 2
    leave(folder, "n=3")
    assert [one.problem for one in pruning.remove(catalog, dry_run=False)] == [None] * 3
    assert list(catalog) == [] and not folder.exists()


def test_calls_that_run_are_told_and_cancelled(tmp_path: Path, command: Callable[..., Said]) -> None:
    function = exca_like.memo(folder=tmp_path, cluster="local")(waits)
    function(str(tmp_path), 1)
    job = function.submit(str(tmp_path / "never"), 2)
    running, done = Catalog(tmp_path)
    assert (running.status, running.job, done.status) == ("running", job.job_id, "completed")
    assert command("cancel", running.uid, "--yes")[0] == 0
    job.wait()
    assert Catalog(tmp_path)[0].reason == f"1 call without a result: cancelled (job {job.job_id})"


def waits(path: str, n: int) -> int:
    while not os.path.exists(path):
        time.sleep(0.05)
    return n
