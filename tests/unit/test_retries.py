"""Which failures lead to another job, what it asks for, and what is kept of the attempts."""

import os
import pickle
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest
from contracts.maps import note, noted

import exca_like
from exca_like import errors
from exca_like.executors.base import Attempt, Resources
from exca_like.infra.retries import Retries

FIRST = Resources(mem_gb=4, timeout_min=30)


def after(policy: Retries, *reasons: str, first: Resources = FIRST, **more: Any) -> Resources | None:
    return policy.resources(first, [Attempt(str(number), reason, **more) for number, reason in enumerate(reasons)])


def test_each_attempt_asks_for_more_of_what_lacked() -> None:
    policy = Retries(max=4, max_mem_gb=20)
    found = [after(policy, *["out of memory"] * times) for times in (1, 2, 3)]
    assert [resources and (resources.mem_gb, resources.timeout_min) for resources in found] == [(8, 30), (16, 30), (20, 30)]
    mixed = after(policy, "timeout", "out of memory", "timeout")
    assert mixed is not None
    assert (mixed.mem_gb, mixed.timeout_min) == (8, 68)


def test_caps_never_lower_what_was_asked_for() -> None:
    found = after(Retries(max_mem_gb=2, max_timeout_min=10), "out of memory", "timeout")
    assert found is not None
    assert (found.mem_gb, found.timeout_min) == (4, 30)


def test_when_there_is_no_other_attempt() -> None:
    assert after(Retries(max=1), "timeout", "timeout") is None
    assert after(Retries(on=("timeout",)), "out of memory") is None
    assert after(Retries(), "cancelled") is None
    assert after(Retries(), "out of memory", first=Resources()) is None, "the same memory would not do"
    assert after(Retries(), "timeout", first=Resources()) is None


def test_nodes_that_failed() -> None:
    found = after(Retries(max=3), "node failure", "node failure", node="n[1-2]")
    assert found is not None
    assert found.exclude == ("n[1-2]",)
    found = after(Retries(exclude_bad_nodes=False), "node failure", node="n1")
    assert found is not None
    assert found.exclude == ()


@pytest.mark.parametrize("name", ["ConnectionError", "builtins.ConnectionError", "lab.io.Lost", "Lost"])
def test_exceptions_by_name(name: str) -> None:
    error = "lab.io.Lost" if "Lost" in name else "builtins.ConnectionError"
    assert after(Retries(on=(name,)), "error", error=error) is not None
    assert after(Retries(on=(name,)), "error", error="other.Error") is None
    assert after(Retries(), "error", error=error) is None


@pytest.mark.parametrize(
    ("on", "said"),
    [("out of memory", "did you mean 'out_of_memory'?"), ("oom", "'oom' is no reason. Use any of out_of_memory,")],
)
def test_wrong_reasons(on: str, said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(said)):
        Flaky(notes="", infra={"retries": {"on": [on]}})


class Flaky(pydantic.BaseModel):
    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("notes", "failures")
    notes: str
    failures: int = 1
    kind: str = "raise"
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local")

    @infra.apply
    def run(self) -> int:
        note(f"{self.notes}/calls", os.getpid())
        number = len(noted(Path(self.notes, "calls")))
        if number <= self.failures:
            if self.kind == "raise":
                raise ConnectionError(f"call {number}")
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        return number


def flaky(folder: Path, on: str, maximum: int = 2, **fields: Any) -> Flaky:
    (folder / "notes").mkdir(exist_ok=True)
    infra = {"folder": folder / "cache", "retries": {"on": [on], "max": maximum}}
    return Flaky(notes=str(folder / "notes"), infra=infra, **fields)


@pytest.mark.parametrize(("kind", "on"), [("raise", "ConnectionError"), ("exit", "failed")])
def test_another_job_takes_the_place_of_one_that_failed(tmp_path: Path, kind: str, on: str, capfd) -> None:
    task = flaky(tmp_path, on, kind=kind)
    first = task.infra.job()
    assert task.run() == 2
    assert first.result() == 2  # the job object follows
    (attempt,) = task.infra.status_detail().attempts
    assert attempt.startswith("job local-")
    assert task.infra.status() == "completed"
    assert "another job is submitted" in capfd.readouterr().err


def test_the_last_failure_is_told_and_those_before_it_are_counted(tmp_path: Path) -> None:
    task = flaky(tmp_path, "failed", maximum=1, kind="exit", failures=9)
    with pytest.raises(errors.JobError, match=r"(?s)1 job\(s\) before it failed, too: job local-\S+: failed.*last words"):
        task.run()
    assert len(noted(tmp_path / "notes" / "calls")) == 2
    with pytest.raises(errors.JobError):
        flaky(tmp_path, "failed", maximum=1, kind="exit", failures=9).run()
    assert len(noted(tmp_path / "notes" / "calls")) == 2, "an error that was kept is no new failure"


def test_another_process_goes_on_with_the_attempts(tmp_path: Path) -> None:
    job = flaky(tmp_path, "ConnectionError", failures=2).infra.job()
    while job.paths.folder.joinpath(f"{job.job_id}_ended.json").exists() is False:  # nobody waits: nothing is submitted
        time.sleep(0.02)
    assert len(noted(tmp_path / "notes" / "calls")) == 1
    later = flaky(tmp_path, "ConnectionError", failures=2)
    assert later.run() == 3
    assert len(later.infra.status_detail().attempts) == 2


def test_many_that_wait_submit_one(tmp_path: Path) -> None:
    flaky(tmp_path, "ConnectionError").infra.job()
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(flaky(tmp_path, "ConnectionError").run())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2] * 6
    assert len(noted(tmp_path / "notes" / "calls")) == 2


class FlakyMap(pydantic.BaseModel):
    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("notes",)
    notes: str
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="local", max_jobs=2)

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Any:
        for item in items:
            note(f"{self.notes}/items", item)
            if item == 4 and noted(Path(self.notes, "items")).count("4") == 1:
                os._exit(3)
            if item == 7 and noted(Path(self.notes, "items")).count("7") == 1:
                raise ConnectionError("no 7")
            yield item * 2


def test_a_map_tries_its_unfinished_items_again(tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "cache", "retries": {"on": ["failed", "ConnectionError"]}}
    model = FlakyMap(notes=str(tmp_path), infra=infra)
    assert list(model.compute(range(10))) == [2 * item for item in range(10)]
    asked = noted(tmp_path / "items")
    assert {item: asked.count(item) for item in set(asked)} == {str(k): 2 if k in (4, 7) else 1 for k in range(10)}


def test_a_map_gives_up_in_the_end(tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "cache", "retries": {"on": ["ConnectionError"], "max": 1}}
    model = FlakyMap(notes=str(tmp_path), infra=infra)
    with pytest.raises(errors.ItemsFailedError, match="4"):
        list(model.compute(range(6)))


# packing and dependencies, as they are for local jobs


def test_packed_local_tasks(tmp_path: Path) -> None:
    base = flaky(tmp_path, "failed", failures=0)
    base = Flaky(notes=base.notes, failures=0, infra={"folder": tmp_path / "cache"})
    with base.infra.job_array(tasks_per_job=3) as array:
        array.extend(base.infra.clone_obj(kind=f"kind {k}") for k in range(7))
    exca_like.wait_all(array)
    assert len({task.infra.job().job_id for task in array}) == 3
    assert len(set(noted(tmp_path / "notes" / "calls"))) == 3
    assert len(noted(tmp_path / "notes" / "calls")) == len([task.run() for task in array]) == 7


def test_a_task_after_a_local_one(tmp_path: Path) -> None:
    parent = flaky(tmp_path, "failed", failures=0)
    child = parent.infra.clone_obj(kind="child")
    assert child.infra.job(after=parent).result() == 2
    failing = flaky(tmp_path, "failed", failures=99, kind="raise!")
    with pytest.raises(errors.JobError):
        failing.run()
    with pytest.raises(errors.DependencyError, match=r"kind=child2.*not submitted.*kind=raise"):
        parent.infra.clone_obj(kind="child2").infra.job(after=[failing])
    with pytest.raises(TypeError, match="no TaskInfra"):
        child.infra.clone_obj(kind="child3").infra.job(after=["parent"])
    with pytest.raises(ValueError, match="tasks_per_job=0"), child.infra.job_array(tasks_per_job=0):
        pass


def test_read_only_submits_nothing(tmp_path: Path) -> None:
    task = flaky(tmp_path, "KeyError")
    with pytest.raises(ConnectionError):
        task.run()
    reader = task.infra.clone_obj(infra={"mode": "read-only", "retries": {"on": ["ConnectionError"]}})
    with pytest.raises(ConnectionError):
        reader.run()
    assert len(noted(tmp_path / "notes" / "calls")) == 1


def test_drivers_of_a_map_share_the_attempts(tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "cache", "retries": {"on": ["ConnectionError"], "max": 1}}

    def drive() -> None:
        results.append(list(FlakyMap(notes=str(tmp_path), infra=infra).compute([7, 8])))

    results: list[list[int]] = []
    threads = [threading.Thread(target=drive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[14, 16]] * 3
    assert noted(tmp_path / "items").count("7") == 2


class SlowAndFlaky(pydantic.BaseModel):
    notes: str
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="local", max_jobs=2)

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Any:
        for item in items:
            note(f"{self.notes}/{item}", item)
            if item == 0:
                until = time.monotonic() + 60
                while len(noted(Path(self.notes, "1"))) < 2:
                    assert time.monotonic() < until, "the other job waits for this one"
                    time.sleep(0.05)
            elif len(noted(Path(self.notes, "1"))) == 1:
                os._exit(3)
            yield item


def test_a_map_does_not_wait_for_its_other_jobs_to_try_again(tmp_path: Path) -> None:
    model = SlowAndFlaky(notes=str(tmp_path), infra={"folder": tmp_path / "cache", "retries": {"on": ["failed"]}})
    assert list(model.compute([0, 1])) == [0, 1]
    assert [len(noted(tmp_path / item)) for item in "01"] == [1, 2]


class Forced(pydantic.BaseModel):
    notes: str
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="local", max_jobs=1)

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Any:
        for item in items:
            note(f"{self.notes}/items", item)
            if item == 3:
                os._exit(3)
            yield item


def test_a_forced_map_keeps_what_a_job_stored_before_it_died(tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "cache", "mode": "force", "retries": {"on": ["failed"], "max": 1}}
    with pytest.raises(errors.ItemsFailedError, match="2 of 5 items"):
        list(Forced(notes=str(tmp_path), infra=infra).compute(range(5)))
    assert noted(tmp_path / "items") == ["0", "1", "2", "3", "3"]


def test_a_failure_of_somebody_else_can_be_looked_at(tmp_path: Path, monkeypatch) -> None:
    task = flaky(tmp_path, "KeyError")
    with pytest.raises(ConnectionError):
        task.run()
    other = flaky(tmp_path, "KeyError")
    monkeypatch.setattr(type(other.infra._claims()), "claim", None)  # it would need the right to write
    assert isinstance(other.infra.job().exception(), ConnectionError)


def test_copies_of_jobs_can_be_waited_for(tmp_path: Path) -> None:
    task = flaky(tmp_path, "KeyError", kind="exit")
    copy = pickle.loads(pickle.dumps(task.infra.job()))
    assert list(exca_like.as_completed([copy])) == [copy]
    assert isinstance(copy.exception(), errors.JobError)


CODE = """
import os, sys
import pydantic, exca_like

class Versioned(pydantic.BaseModel):
    notes: str
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="local", max_jobs=1)

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]):
        for item in items:
            if not os.path.exists(self.notes):
                open(self.notes, "w").close()
                with open({path!r}, "w") as stream:  # it is edited while the job runs
                    stream.write({edited!r})
                os._exit(3)
            yield "the first"
"""


def test_what_a_map_tries_again_runs_the_code_of_the_first_jobs(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "versioned_code.py"
    path.write_text(CODE.format(path=str(path), edited="raise ImportError('edited')"))
    monkeypatch.syspath_prepend(tmp_path)
    import versioned_code  # type: ignore[import-not-found]

    infra = {
        "folder": tmp_path / "cache",
        "retries": {"on": ["failed"]},
        "workdir": {"copied": [str(path)]},
    }
    model = versioned_code.Versioned(notes=str(tmp_path / "begun"), infra=infra)
    assert list(model.compute([1])) == ["the first"]
    assert path.read_text() == "raise ImportError('edited')"
