"""What holds on every cluster: checks that tests/contracts and tests/slurm run with clusters of theirs."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

import exca_like
from exca_like import errors


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class NeedsTwo(Exception):
    """Pickles, but can't be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Odd:
    """Can't be unpickled where the environment variable is set."""

    def __setstate__(self, state: Any) -> None:
        if "ODD_IS_MISSING" in os.environ:
            raise ImportError("no module named odd")

    def __getstate__(self) -> Any:
        return {"x": 1}


class Sub(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    lr: float = 0.5


class Work(pydantic.BaseModel):
    """Does what its field says, and counts how often it was asked to."""

    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("counts",)
    seed: int = 0
    sub: Sub = Sub()
    action: str = "return"
    counts: str | None = None
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> Any:
        if self.counts is not None:
            with open(self.counts, "a") as stream:
                stream.write("x")
        print("output of", self.seed, flush=True)
        print("complaint of", self.seed, file=sys.stderr, flush=True)
        if self.action == "none":
            return None
        if self.action == "raise":
            raise KeyError("no such thing")
        if self.action == "raise unpicklable":
            raise Unpicklable("with a lock")
        if self.action == "raise two":
            raise NeedsTwo("one", "two")
        if self.action == "exit":
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        if self.action == "sys.exit":
            sys.exit(0)
        if self.action == "stop iteration":
            return next(iter([]))
        if self.action == "return odd":
            return Odd()
        if self.action == "sleep":
            time.sleep(300)
        if self.action == "short sleep":
            time.sleep(3)
        if self.action == "return a generator":
            return (k for k in range(3))
        return {"value": self.seed + self.sub.lr}


class Clusters:
    """Makes tasks for one cluster in one folder."""

    def __init__(self, cluster: str | None, folder: Path, **settings: Any) -> None:
        self.cluster = cluster
        self.folder = folder
        self.settings = settings
        self.counts = folder / "counts"

    def task(self, mode: str = "cached", **fields: Any) -> Work:
        infra = {"folder": self.folder / "cache", "cluster": self.cluster, "mode": mode, **self.settings}
        return Work(**fields, counts=str(self.counts), infra=infra)

    @property
    def computed(self) -> int:
        return len(self.counts.read_text()) if self.counts.exists() else 0

    @property
    def in_jobs(self) -> bool:
        return self.cluster not in (None, "debug")


def check_result(clusters: Clusters) -> None:
    task = clusters.task(seed=3)
    assert task.infra.status() == "not submitted"
    job = task.infra.job()
    assert job.result() == {"value": 3.5}
    assert job.results() == [{"value": 3.5}]
    assert job.exception() is None
    assert job.done()
    assert job.state == "COMPLETED"
    assert task.infra.status() == "completed"
    assert task.run() == clusters.task(seed=3).run() == {"value": 3.5}
    assert clusters.computed == 1
    if clusters.in_jobs:
        assert "output of 3" in (job.stdout() or "")
        assert "complaint of 3" in (job.stderr() or "")
        again = clusters.task(seed=3).infra.job()
        assert again.job_id == job.job_id
        assert again.paths.stdout == job.paths.stdout


def check_none_is_a_result(clusters: Clusters) -> None:
    assert clusters.task(action="none").run() is None
    assert clusters.task(action="none").run() is None
    assert clusters.computed == 1


def check_errors_are_cached_until_retry(clusters: Clusters) -> None:
    for _ in range(2):
        task = clusters.task(action="raise")
        with pytest.raises(KeyError, match="no such thing") as info:
            task.run()
        assert task.infra.status() == "failed"
    # a cached error, or one of a job, brings the traceback of the computation along
    note = "".join(info.value.__notes__)
    assert 'raise KeyError("no such thing")' in note
    assert "engine.py" not in note
    assert clusters.computed == 1
    with pytest.raises(KeyError):
        clusters.task("retry", action="raise").run()
    assert clusters.computed == 2
    with pytest.raises(KeyError):
        clusters.task(action="raise").run()
    assert clusters.computed == 2
    error = clusters.task(action="raise").infra.job().exception()
    assert isinstance(error, KeyError)


def check_awkward_errors_arrive(clusters: Clusters) -> None:
    for action, text in (("raise unpicklable", "Unpicklable: with a lock"), ("raise two", "NeedsTwo: one two")):
        task = clusters.task(action=action)
        with contextlib.suppress(Exception):
            task.run()
        error = clusters.task(action=action).infra.job().exception()
        assert isinstance(error, errors.RemoteError)
        assert text in str(error)
        assert "Traceback" in "".join(error.__notes__)


def check_unstorable_results_say_so(clusters: Clusters) -> None:
    task = clusters.task(action="return a generator")
    with pytest.raises(TypeError, match="generator.*can't be stored"):
        task.run()
    assert task.infra.status() == "failed"


def check_force_recomputes_once_per_instance(clusters: Clusters) -> None:
    clusters.task(seed=1).run()
    forced = clusters.task("force", seed=1)
    assert forced.run() == forced.run() == {"value": 1.5}
    assert clusters.computed == 2
    clusters.task("force", seed=1).run()
    assert clusters.computed == 3
    clusters.task(seed=1).run()
    assert clusters.computed == 3


def check_read_only_never_computes(clusters: Clusters) -> None:
    task = clusters.task("read-only", seed=1)
    for call in (task.run, task.infra.job):
        with pytest.raises(RuntimeError, match=r"seed=1.*not in the cache.*read-only"):
            call()
    assert not (clusters.folder / "cache").exists()
    clusters.task(seed=1).run()
    assert clusters.task("read-only", seed=1).run() == {"value": 1.5}
    assert clusters.computed == 1


def check_arrays(clusters: Clusters) -> None:
    base = clusters.task()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(4))
    assert [task.run() for task in array] == [{"value": k + 0.5} for k in range(4)]
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(6))
    assert [task.run() for task in array] == [{"value": k + 0.5} for k in range(6)]
    assert clusters.computed == 6
    assert {task.infra.status() for task in array} == {"completed"}
    assert len({task.infra.job().job_id for task in array}) == (6 if clusters.in_jobs else 1)
    cached = sorted(task.seed for task in base.infra.iter_cached())
    assert cached == list(range(6))


def check_failures_in_arrays_leave_the_others(clusters: Clusters) -> None:
    base = clusters.task()
    with base.infra.job_array() as array:
        array += [clusters.task(seed=1), clusters.task(action="raise"), clusters.task(seed=2)]
    assert [task.infra.job().exception() is None for task in array] == [True, False, True]
    assert [task.infra.status() for task in array] == ["completed", "failed", "completed"]


def check_results_outlive_logs(clusters: Clusters) -> None:
    task = clusters.task(seed=2)
    task.run()
    logs = clusters.folder / "cache" / "logs"
    if clusters.in_jobs:
        subprocess.run(["rm", "-r", str(logs)], check=True)
    assert clusters.task(seed=2).run() == {"value": 2.5}
    assert clusters.task(seed=2).infra.status() == "completed"
    assert clusters.computed == 1


def check_clear_job(clusters: Clusters) -> None:
    task = clusters.task(seed=2)
    task.run()
    task.infra.clear_job()
    assert task.infra.status() == "not submitted"
    assert task.run() == {"value": 2.5}
    assert clusters.computed == 2


def check_corrupt_results_are_computed_again(clusters: Clusters) -> None:
    task = clusters.task(seed=2)
    task.run()
    (journal,) = task.infra.uid_folder().glob("*-info.jsonl")
    data = bytearray(journal.read_bytes())
    data[20] ^= 1
    journal.write_bytes(data)
    again = clusters.task(seed=2)
    with pytest.warns(errors.CorruptEntryWarning, match=r"line at byte 0 of .*-info.jsonl is damaged"):
        assert again.run() == {"value": 2.5}
    assert clusters.computed == 2


def check_exits_and_odd_errors_are_errors(clusters: Clusters) -> None:
    for action, kind, text in (("sys.exit", errors.RemoteError, "SystemExit: 0"), ("stop iteration", StopIteration, "")):
        task = clusters.task(action=action)
        before = clusters.computed
        error = task.infra.job().exception()
        assert isinstance(error, kind), error
        assert text in str(error)
        assert task.infra.status() == "failed"
        again = clusters.task(action=action).infra.job().exception()
        assert type(again) is type(error)
        assert clusters.computed == before + 1


def check_unreadable_identity_loses_nothing(clusters: Clusters) -> None:
    clusters.task(seed=1).run()
    full = clusters.task(seed=1).infra.uid_folder() / "full-uid.yaml"
    good = full.read_bytes()
    full.write_bytes(b"")
    assert clusters.task("read-only", seed=1).run() == {"value": 1.5}
    assert clusters.task(seed=1).infra.status() == "completed"
    assert clusters.task(seed=1).run() == {"value": 1.5}
    assert clusters.computed == 1
    assert full.read_bytes() in (good, b"")


def check_folders_may_be_deleted_at_any_time(clusters: Clusters) -> None:
    task = clusters.task(seed=1)
    task.run()
    wait_until(lambda: not task.infra._is_running())  # the job's process ends a moment after its result is there
    shutil.rmtree(clusters.folder / "cache")
    assert task.run() == {"value": 1.5}
    assert clusters.computed == 2
    assert clusters.task(seed=1).infra.status() == "completed"


def check_values_that_cannot_be_loaded_are_kept(clusters: Clusters) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is pickled is said once in a process
        clusters.task(action="return odd").run()
    folder = clusters.task(action="return odd").infra.uid_folder()
    stored = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(path.suffix == ".pkl" for path in stored)
    os.environ["ODD_IS_MISSING"] = "1"
    try:
        for mode in ("cached", "read-only"):
            with pytest.raises(RuntimeError, match="can't be loaded here.*no module named odd"):
                clusters.task(mode, action="return odd").run()
    finally:
        del os.environ["ODD_IS_MISSING"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == stored
    assert isinstance(clusters.task(action="return odd").run(), Odd)
    assert clusters.computed == 1


def check_failed_jobs_can_be_looked_at_in_retry_mode(clusters: Clusters) -> None:
    task = clusters.task("retry", action="raise")
    with pytest.raises(KeyError):
        task.run()
    assert isinstance(task.infra.job().exception(), KeyError)
    assert isinstance(task.infra.job().exception(), KeyError)
    assert clusters.computed == 1
    with pytest.raises(KeyError):
        task.run()
    assert clusters.computed == 2


ALL_CLUSTERS = [
    check_exits_and_odd_errors_are_errors,
    check_unreadable_identity_loses_nothing,
    check_folders_may_be_deleted_at_any_time,
    check_values_that_cannot_be_loaded_are_kept,
    check_failed_jobs_can_be_looked_at_in_retry_mode,
    check_result,
    check_none_is_a_result,
    check_errors_are_cached_until_retry,
    check_awkward_errors_arrive,
    check_unstorable_results_say_so,
    check_force_recomputes_once_per_instance,
    check_read_only_never_computes,
    check_arrays,
    check_failures_in_arrays_leave_the_others,
    check_results_outlive_logs,
    check_clear_job,
    check_corrupt_results_are_computed_again,
]


# what holds where tasks run in jobs of their own


def check_cancelled_counts_as_not_submitted(clusters: Clusters) -> None:
    task = clusters.task(action="sleep")
    job = task.infra.job()
    wait_until(lambda: clusters.computed == 1)
    assert task.infra.status() == "running"
    assert not job.done()
    job.cancel()
    error = job.exception()
    assert isinstance(error, errors.JobInterruptedError)
    assert "cancelled" in str(error)
    assert task.infra.status() == "not submitted"
    again = clusters.task(action="sleep").infra.job()
    assert again.job_id != job.job_id
    again.cancel()
    again.wait()


def check_resubmitted_jobs_are_seen_by_all(clusters: Clusters) -> None:
    task = clusters.task(action="sleep")
    first = task.infra.job()
    first.cancel()
    first.wait()
    second = clusters.task(action="sleep").infra.job()
    assert task.infra.job().job_id == second.job_id != first.job_id
    second.cancel()
    second.wait()


def check_refused_submissions_lose_nothing(clusters: Clusters) -> None:
    clusters.task(seed=1).run()
    (clusters.folder / "file").write_text("")
    forced = clusters.task("force", seed=1).infra.clone_obj({"infra.logs": str(clusters.folder / "file" / "%j")})
    with pytest.raises(OSError, match="can't write the job file"):
        forced.run()
    assert clusters.task("read-only", seed=1).run() == {"value": 1.5}


def check_forced_results_are_the_forced_ones(clusters: Clusters) -> None:
    older = clusters.task(action="short sleep")
    older.infra.job()
    wait_until(lambda: clusters.computed == 1)
    assert clusters.task("force", action="short sleep").run() == {"value": 0.5}
    assert clusters.computed == 2


def check_dying_jobs_fail_with_their_log(clusters: Clusters) -> None:
    for _ in range(2):  # the second time from the cache
        task = clusters.task(action="exit")
        with pytest.raises(errors.JobError, match=r"(?s)ended without a result: failed.*last words"):
            task.run()
        assert task.infra.status() == "failed"
    assert clusters.computed == 1
    with pytest.raises(errors.JobError):
        clusters.task("retry", action="exit").run()
    assert clusters.computed == 2


_OTHER_PROCESS = """
import sys
sys.path[:0] = {path!r}
from contracts.clusters import Work
task = Work(action="short sleep", infra={infra!r})
before = task.infra.status()
print(before, task.infra.job().job_id, task.run())
"""


def check_running_jobs_are_found_by_other_processes(clusters: Clusters) -> None:
    task = clusters.task(action="short sleep")
    job = task.infra.job()
    infra = {"folder": str(clusters.folder / "cache"), "cluster": clusters.cluster, **clusters.settings}
    code = _OTHER_PROCESS.format(path=[p for p in sys.path if p], infra=infra)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2) == ["running", job.job_id, "{'value': 0.5}\n"]
    assert task.run() == {"value": 0.5}
    assert clusters.computed == 1


_DYING_DRIVER = """
import os, sys
from pathlib import Path
sys.path[:0] = {path!r}
from contracts.clusters import Clusters
base = Clusters({cluster!r}, Path({folder!r})).task(action="short sleep")
with base.infra.job_array() as array:
    array.extend(base.infra.clone_obj(seed=k) for k in range(3))
os.kill(os.getpid(), 9)
"""


def check_jobs_outlive_their_driver(clusters: Clusters) -> None:
    path = [p for p in sys.path if p]
    code = _DYING_DRIVER.format(path=path, cluster=clusters.cluster, folder=str(clusters.folder))
    subprocess.run([sys.executable, "-c", code], check=False)
    tasks = [clusters.task(action="short sleep", seed=k) for k in range(3)]
    assert {task.infra.status() for task in tasks} == {"running"}
    assert [task.run()["value"] for task in tasks] == [0.5, 1.5, 2.5]
    assert clusters.computed == 3


_SCRIPT = """
import sys
import pydantic
import exca_like

FACTOR = 10


def helper(x):
    return x * FACTOR


class Point:
    def __init__(self, x):
        self.x = x


class Inner(pydantic.BaseModel):
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 7


class Train(pydantic.BaseModel):
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> Point:
        inner = Inner(infra={"folder": self.infra.folder})
        assert [inner.run(), inner.run()] == [7, 7]
        return Point(helper(self.seed))


if __name__ == "__main__":
    tasks = [Train(seed=k, infra={"folder": sys.argv[1], "cluster": sys.argv[2]}) for k in (1, 2)]
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    print(tasks[0].infra.uid(), [type(t.run()) is Point and t.run().x for t in tasks], tasks[1].infra.status())
"""


def check_classes_of_scripts(clusters: Clusters) -> None:
    for name in ("first", "second"):
        script = clusters.folder / f"{name}.py"
        script.write_text(_SCRIPT if name == "first" else _SCRIPT.replace("FACTOR = 10", "FACTOR = 100"))
        for _ in range(2):
            command = [sys.executable, str(script), str(clusters.folder / "cache"), str(clusters.cluster)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert not done.returncode, done.stderr
            factor = 10 if name == "first" else 100
            assert done.stdout == f"{name}.Train.run,0/seed=1-c4ca4238 [{factor}, {2 * factor}] completed\n"


def check_classes_of_functions(clusters: Clusters) -> None:
    factor = 3

    class Local(pydantic.BaseModel):
        seed: int = 0
        sub: Sub = Sub()
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> float:
            return factor * (self.seed + self.sub.lr)

    task = Local(seed=2, infra={"folder": clusters.folder / "cache", "cluster": clusters.cluster})
    assert task.run() == 7.5


JOB_CLUSTERS = [
    check_resubmitted_jobs_are_seen_by_all,
    check_refused_submissions_lose_nothing,
    check_forced_results_are_the_forced_ones,
    check_classes_of_functions,
    check_cancelled_counts_as_not_submitted,
    check_dying_jobs_fail_with_their_log,
    check_running_jobs_are_found_by_other_processes,
    check_jobs_outlive_their_driver,
    check_classes_of_scripts,
]


def wait_until(condition: Any, timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
