"""Where results come from: what is noted beside each, and what code adds to it."""

import enum
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import commits, errors, files, memo, recording, runs
from exca_like.executors.environment import job_environment
from exca_like.provenance import Provenance, provenance_of
from exca_like.records import Records, canonical

PACKAGE = Path(exca_like.__file__).parents[1]


class Train(pydantic.BaseModel):
    x: int = 1
    told: dict[str, Any] = {}
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> int:
        exca_like.record(x=self.x, **self.told)
        if self.x < 0:
            raise ValueError("negative")
        return self.x


class Outer(pydantic.BaseModel):
    inner: Train = Train()
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        exca_like.record(before=1)
        value = self.inner.run()
        exca_like.record(after=value)
        return value


class Items(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: list[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.002)
            if item % 2:
                exca_like.record(item=item)
            if item == 5:
                raise ValueError("five")
            yield item


class Lists(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: list[int]) -> list[int]:
        exca_like.record(size=len(items), bad=5 in items)
        time.sleep(0.02)
        if 5 in items:
            raise ValueError("five")
        return items


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def git(folder: Path, *arguments: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **identity, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path / "a repository é"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "file").write_text("1")
    git(folder, "add", "file")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture(autouse=True)
def _asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test finds out for itself what a process finds out once."""
    for module, name in ((runs, "_known"), (commits, "_answers"), (commits, "_questions")):
        monkeypatch.setattr(module, name, {})
    commits.root_of.cache_clear()


# tasks


def test_tasks(tmp_path: Path) -> None:
    task = Train(infra={"folder": tmp_path})
    started = datetime.now(UTC)
    task.run()
    found = task.infra.provenance()
    assert started.timestamp() - 0.01 <= found.time.timestamp() <= time.time()
    assert found.time.utcoffset().total_seconds() == 0
    assert 0 < found.duration < 10
    assert 0.01 < found.memory < 100
    assert (found.host, found.pid, found.job) == (os.uname().nodename, os.getpid(), None)
    assert found.python == sys.version.split()[0]
    assert os.uname().machine in found.platform
    assert found.packages["numpy"] == np.__version__
    assert found.packages["pydantic"] == pydantic.VERSION
    assert not {"os", "exca_like", "_pytest"} & found.packages.keys()
    assert found.command == shlex.join(sys.orig_argv)
    assert found.exca_like == exca_like.__version__
    assert found.extra == {"x": 1}
    assert found.code is not None
    assert re.fullmatch("[0-9a-f]{16}", found.code)
    task.run()
    assert Train(infra={"folder": tmp_path}).run() == 1  # hits change nothing
    assert Train(infra={"folder": tmp_path}).infra.provenance() == found


def test_asking_changes_nothing(tmp_path: Path) -> None:
    task, items = Train(infra={"folder": tmp_path}), Items(infra={"folder": tmp_path})
    with pytest.raises(errors.NotCachedError, match="Train.run,1/default.* compute it first"):
        task.infra.provenance()
    with pytest.raises(errors.NotCachedError, match="Items.run,0/default/1"):
        items.infra.provenance(1)
    assert not list(tmp_path.iterdir())
    task.run()
    assert list(items.run([1])) == [1]
    before = content(tmp_path)
    task.infra.provenance()
    items.infra.provenance(1)
    with pytest.raises(errors.NotCachedError):
        items.infra.provenance(2)
    assert content(tmp_path) == before


def test_without_a_folder() -> None:
    task, items = Train(infra={"keep_in_ram": True}), Items()
    assert task.run() == 1
    assert list(items.run([1, 2])) == [1, 2]
    for ask in (task.infra.provenance, lambda: items.infra.provenance(1)):
        with pytest.raises(errors.NotCachedError, match="no folder.* set folder="):
            ask()


def test_errors_have_it_and_a_new_computation_replaces_it(tmp_path: Path) -> None:
    task = Train(x=-1, infra={"folder": tmp_path})
    with pytest.raises(ValueError, match="negative"):
        task.run()
    first = task.infra.provenance()
    assert first.extra == {"x": -1}
    assert first.command is not None
    again = Train(x=-1, infra={"folder": tmp_path, "mode": "retry"})
    with pytest.raises(ValueError, match="negative"):
        again.run()
    assert again.infra.provenance().time > first.time
    good = Train(told={"a": 1}, infra={"folder": tmp_path})
    good.run()
    before = good.infra.provenance()
    time.sleep(0.002)
    Train(told={"a": 1}, infra={"folder": tmp_path, "mode": "force"}).run()
    assert good.infra.provenance().time > before.time
    assert good.infra.provenance().extra == {"x": 1, "a": 1}


@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_jobs_know_their_submitter(cluster: str, tmp_path: Path) -> None:
    task = Train(infra={"folder": tmp_path, "cluster": cluster})
    task.run()
    found = task.infra.provenance()
    assert found.command == shlex.join(sys.orig_argv)  # and not what runs the job
    assert found.job == (task.infra.job().job_id if cluster == "local" else None)
    assert (found.pid == os.getpid()) == (cluster == "debug")
    (record,) = (tmp_path / "provenance").glob("????????????????.json")
    known = json.loads(record.read_text())
    assert known.keys() == {"command", "exca_like", "git", "packages", "platform", "python", "user"}


def test_a_job_that_left_no_result(tmp_path: Path) -> None:
    class Killed(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local")

        @infra.apply
        def run(self) -> None:
            os._exit(3)

    task = Killed(infra={"folder": tmp_path})
    with pytest.raises(errors.JobError):
        task.run()
    found = task.infra.provenance()
    assert (found.job, found.duration, found.pid) == (task.infra.job().job_id, None, None)


def test_old_results_and_those_of_exca(tmp_path: Path) -> None:
    told = {"time": "2026-01-02T03:04:05.678+00:00", "duration": 1.5, "host": "lab", "pid": 3, "config": {}}
    found = provenance_of(told, str(tmp_path))
    assert found == Provenance(datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), 1.5, host="lab", pid=3)
    assert provenance_of(None, str(tmp_path)) == Provenance()
    assert provenance_of({"some": "notes"}, str(tmp_path)) == Provenance()
    for meta in ("text", "1 2 3", "a b c d e f", [1], 5):  # of somebody else's making
        assert provenance_of(meta, str(tmp_path)) == Provenance()
    assert provenance_of({"run": "0" * 16, "code": "abc"}, str(tmp_path)) == Provenance(code="abc")  # the record was deleted
    exca_job = Path(Train(x=7, infra={"folder": tmp_path}).infra.uid_folder(create=True)) / "job.pkl"
    shutil.copy(next((Path(__file__).parents[1] / "compat").rglob("job.pkl")), exca_job)
    assert Train(x=7, infra={"folder": tmp_path}).infra.provenance() == Provenance()


def test_it_reads_well() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    shown = str(
        Provenance(
            moment, 3725.0, 1.5, "node1", 7, "12_3", "ann", "3.12.1", "Linux", {"numpy": "2.0", "b": "1"}, "c" * 40, True,
            "/lab", "python a.py", "0.1", None, {"best": 7},
        )
    )  # fmt: skip
    assert "took 1 h 2 min" in shown
    for line in (
        "memory      1.5 GB",
        "where       node1, process 7, job 12_3, by ann",
        "packages    numpy 2.0, 1 more",
        f"git         {'c' * 12}, with changes, in /lab",
        "extra.best  7",
    ):
        assert line in shown.splitlines()
    assert str(Provenance()) == "nothing was noted"
    assert "65.4" not in str(Provenance(moment, 65.4))
    assert "took 1 min 5 s" in str(Provenance(moment, 65.4))


# items and calls


@pytest.mark.parametrize("cluster", [None, "debug", "threadpool", "processpool", "local"])
def test_items(cluster: str | None, tmp_path: Path) -> None:
    config = Items(infra={"folder": tmp_path, "cluster": cluster, "max_jobs": 2})
    with pytest.raises(errors.ItemsFailedError, match="five"):
        list(config.run(range(8)))
    for item in range(8):
        found = config.infra.provenance(item)
        assert found.extra == ({"item": item} if item % 2 else {})
        assert 0.002 <= found.duration < 1
        assert abs(found.time.timestamp() - time.time()) < 60
        assert found.memory > 0.01
        assert found.host == os.uname().nodename
        assert found.command == shlex.join(sys.orig_argv)
        assert (found.job is not None) == (cluster == "local")
        assert (found.pid == os.getpid()) == (cluster in (None, "debug", "threadpool"))
    before = {item: config.infra.provenance(item) for item in range(5)}
    assert list(Items(infra={"folder": tmp_path}).run(range(5))) == list(range(5))
    assert {item: config.infra.provenance(item) for item in range(5)} == before
    assert list(Items(infra={"folder": tmp_path, "mode": "force"}).run([3])) == [3]
    assert config.infra.provenance(3).time > before[3].time


def test_what_is_done_with_results_does_not_count(tmp_path: Path) -> None:
    config = Items(infra={"folder": tmp_path})
    for _ in config.run([0, 2, 4]):
        exca_like.record(not_in=1)
        time.sleep(0.1)
    for item in (0, 2, 4):
        found = config.infra.provenance(item)
        assert 0.002 <= found.duration < 0.1
        assert found.extra == {}


def test_items_of_lists_share_the_time(tmp_path: Path) -> None:
    config = Lists(infra={"folder": tmp_path})
    list(config.run(range(4)))
    durations = {config.infra.provenance(item).duration for item in range(4)}
    assert len(durations) == 1
    assert 0.005 <= durations.pop() < 0.02
    assert config.infra.provenance(3).extra == {"size": 4, "bad": False}
    with pytest.raises(errors.ItemsFailedError):
        list(config.run([5, 6, 7]))
    assert config.infra.provenance(5).extra["bad"]
    assert not config.infra.provenance(6).extra["bad"]


def test_values_that_can_not_be_stored(tmp_path: Path) -> None:
    class Locks(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=str)
        def run(self, items: list[int]) -> Iterator[Any]:
            for item in items:
                exca_like.record(item=item)
                yield threading.Lock() if item else item

    config = Locks(infra={"folder": tmp_path})
    with pytest.raises(errors.ItemsFailedError):
        list(config.run([0, 1, 0]))
    assert [config.infra.provenance(item).extra for item in (0, 1)] == [{"item": 0}, {"item": 1}]


def test_many_items_share_a_line(tmp_path: Path) -> None:
    class Quick(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=str)
        def run(self, items: list[int]) -> Iterator[int]:
            yield from items

    config = Quick(infra={"folder": tmp_path})
    list(config.run(range(500)))
    found = [config.infra.provenance(item) for item in range(500)]
    assert [each.time for each in found] == sorted(each.time for each in found)
    assert all(each.duration < 0.1 and each.command for each in found)
    assert len(list((tmp_path / "provenance").glob("*.json"))) <= 3  # the code's, one more if something was imported meanwhile


def test_memos(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def half(a: int) -> float:
        exca_like.record(a=a, nan=float("nan"))
        return 6 / a

    half(2)
    found = half.provenance(2)
    assert found.extra["a"] == 2
    assert np.isnan(found.extra["nan"])
    assert found.command == shlex.join(sys.orig_argv)
    assert list(half.map([1, 2, 3])) == [6, 3, 2]
    assert repr(half.provenance(2)) == repr(found)
    assert half.provenance(3).extra["a"] == 3
    assert len(half.entries()) == 3
    with pytest.raises(errors.NotCachedError):
        half.provenance(4)
    with pytest.raises(ZeroDivisionError):
        half(0)
    assert half.provenance(0).extra["a"] == 0
    half.uncached(5)
    assert not half.cached(5)


def test_memoised_methods(tmp_path: Path) -> None:
    class Model(pydantic.BaseModel):
        size: int = 1

        @memo(folder=tmp_path)
        def predict(self, x: int) -> int:
            exca_like.record(size=self.size)
            return x

    Model(size=3).predict(1)
    assert Model(size=3).predict.provenance(1).extra == {"size": 3}


# what code adds


class Kind(enum.IntEnum):
    SEVEN = 7


def test_values_come_back(tmp_path: Path) -> None:
    told = {
        "none": None, "yes": True, "big": 2**70, "text": "é\ud800", "path": Path("a/b"), "tuple": (1, (2,)), "nan": float("nan"),
        "minus": -float("inf"), "np": np.float32(0.5), "int": np.int64(3), "bool": np.bool_(True), "str": np.str_("s"),
        "zero_dim": np.array(2.5), "dict": {"#type": {"a": [1, None]}}, "enum": Kind.SEVEN, "float": np.float64(1.5),
    }  # fmt: skip
    infra = {"folder": tmp_path}

    class Told(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            exca_like.record(**told)
            exca_like.record(yes=False)
            return 1

    task = Told(infra=infra)
    task.run()
    found = task.infra.provenance().extra
    assert np.isnan(found.pop("nan"))
    assert found == {
        "none": None, "yes": False, "big": 2**70, "text": "é\ud800", "path": "a/b", "tuple": [1, [2]], "minus": -float("inf"),
        "np": 0.5, "int": 3, "bool": True, "str": "s", "zero_dim": 2.5, "dict": {"#type": {"a": [1, None]}}, "enum": 7, "float": 1.5,
    }  # fmt: skip
    assert {type(found[name]) for name in ("np", "float", "zero_dim")} == {float}
    assert [type(found[name]) for name in ("int", "enum", "bool", "str")] == [int, int, bool, str]


def looped() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(2), r"record\(a=...\): .*numpy.ndarray: use its tolist\(\)"),
        (object(), "of type object: convert it"),
        (1j, "of type complex"),
        (np.datetime64("2026-01-01"), "datetime64"),
        ({"b": [0, {1, 2}]}, r"record\(a=...\)\['b'\]\[1\]: .*of type set"),
        ({1: 2}, "keys of dictionaries.*str()"),
        (looped(), "100 levels"),
        (b"bytes", "of type bytes"),
    ],
)
def test_values_that_are_none(value: Any, message: str) -> None:
    with pytest.warns(errors.NotRecordedWarning, match=message) as caught:
        exca_like.record(a=value)  # outside of computations, too
    assert caught[0].filename == __file__
    assert str(caught[0].message).startswith("record(a=...)")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_values_that_are_none_do_not_cost_the_result(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def run(n: int) -> int:
        exca_like.record(before=1, bad=Unprintable(), after=[2])
        exca_like.record(before={Unprintable(): 1}, last=n)
        return n

    with pytest.warns(errors.NotRecordedWarning) as caught:
        assert run(3) == 3
    assert [str(one.message).partition(":")[0] for one in caught] == ["record(bad=...)", "record(before=...)"]
    assert run.provenance(3).extra == {"before": 1, "after": [2], "last": 3}


def test_outside_nothing_happens() -> None:
    exca_like.record(a=1)
    task = Train(infra={"mode": "off"})
    assert task.run() == 1


def test_values_are_copied(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def grow(n: int) -> int:
        values: list[int] = []
        exca_like.record(values=values)
        values.append(1)
        return n

    grow(1)
    assert grow.provenance(1).extra == {"values": []}


def test_nested_computations_have_their_own(tmp_path: Path) -> None:
    outer = Outer(inner={"x": 2, "infra": {"folder": tmp_path}}, infra={"folder": tmp_path})
    outer.run()
    assert outer.infra.provenance().extra == {"before": 1, "after": 2}
    assert outer.inner.infra.provenance().extra == {"x": 2}
    other = Outer(inner={"x": 3}, infra={"folder": tmp_path})  # what is kept nowhere is part of the outer one
    other.run()
    assert other.infra.provenance().extra == {"before": 1, "x": 3, "after": 3}


def test_maps_in_turns(tmp_path: Path) -> None:
    @memo(folder=tmp_path)
    def both(n: int) -> int:
        maps = [Items(infra={"folder": tmp_path / name}).run([1, 3]) for name in ("a", "b")]
        for pair in zip(*maps, strict=True):
            exca_like.record(last=pair[0])
        return n

    both(1)
    assert both.provenance(1).extra == {"last": 3}
    for name in ("a", "b"):
        infra = Items(infra={"folder": tmp_path / name}).infra
        assert [infra.provenance(item).extra for item in (1, 3)] == [{"item": 1}, {"item": 3}]


def test_threads_record_for_what_they_compute(tmp_path: Path) -> None:
    tasks = [Train(x=x, infra={"folder": tmp_path}) for x in range(1, 9)]
    threads = [threading.Thread(target=task.run) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [task.infra.provenance().extra for task in tasks] == [{"x": x} for x in range(1, 9)]


# records


def test_records(tmp_path: Path) -> None:
    kept = Records(str(tmp_path / "a/b"), permissions=0o640)
    digest = kept.keep({"b": 1, "a": [None]})
    assert digest == kept.keep({"a": [None], "b": 1})
    path = next(path for path in (tmp_path / "a/b/provenance").iterdir() if not path.name.startswith("code-"))
    assert path.name == f"{digest}.json"
    assert len(digest) == 16
    assert path.read_bytes() == b'{"a":[null],"b":1}' == canonical({"b": 1, "a": [None]})
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o777 == 0o750
    assert kept.read(digest) == {"a": [None], "b": 1}
    assert kept.read("0" * 16) is None
    path.write_bytes(b'{"a":[null],"b":2}')
    assert kept.read(digest) is None


def test_a_deleted_record_is_written_again(tmp_path: Path) -> None:
    Train(infra={"folder": tmp_path}).run()
    shutil.rmtree(tmp_path / "provenance")
    assert Train(infra={"folder": tmp_path}).infra.provenance().command is None
    Train(x=2, infra={"folder": tmp_path}).run()
    assert Train(infra={"folder": tmp_path}).infra.provenance().command is not None


def test_a_record_that_can_not_be_written_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / "provenance").write_text("in the way")
    task = Train(infra={"folder": tmp_path})
    assert task.run() == 1
    assert list(Items(infra={"folder": tmp_path}).run([1])) == [1]
    found = task.infra.provenance()
    assert (found.extra, found.command) == ({"x": 1}, None)


def test_what_is_imported_later_makes_another_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_library.py").write_text("__version__ = '1.2'")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "cache"
    Train(infra={"folder": folder}).run()
    import some_library  # noqa: F401

    Train(x=2, infra={"folder": folder}).run()
    monkeypatch.delitem(sys.modules, "some_library")
    assert "some_library" not in Train(infra={"folder": folder}).infra.provenance().packages
    assert Train(x=2, infra={"folder": folder}).infra.provenance().packages["some_library"] == "1.2"


def test_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Some.Lib-1.0.dist-info", "other_lib-2.0rc1-py3.11.egg-info", "third.egg-info", "pkg-1.dist-info.bak"):
        (tmp_path / name).mkdir()
    assert runs._described_in(str(tmp_path), 0) == {"some-lib": "1.0", "other-lib": "2.0rc1"}
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "some_lib", object())
    assert runs.packages()["some_lib"] == "1.0"


def test_long_and_odd_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "a b", "\udcff"])
    assert runs._command() == "python 'a b' '\\udcff'"
    monkeypatch.setattr(sys, "orig_argv", ["python", "x" * 200_000])
    assert len(runs._command()) == 4000
    assert len(job_environment()[runs.RUN_VARIABLE]) < 100_000


# git


def test_commits(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    inside = repository / "a/b"
    inside.mkdir(parents=True)
    assert commits.state_of(str(inside)) == (str(repository), commit, False)
    assert commits.state_of(str(tmp_path)) is None or commits.root_of(str(tmp_path)) == str(PACKAGE)


@pytest.mark.parametrize("state", ["dirty", "staged", "untracked", "detached", "packed", "variables"])
def test_states_of_repositories(state: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if state == "dirty":
        (repository / "file").write_text("2")
    elif state == "staged":
        (repository / "file").write_text("2")
        git(repository, "add", "file")
    elif state == "untracked":
        (repository / "other").write_text("2")
    elif state == "detached":
        git(repository, "checkout", "-q", "--detach")
    elif state == "packed":
        git(repository, "pack-refs", "--all")
    commit = git(repository, "rev-parse", "HEAD")
    if state == "variables":  # as in a hook of another repository
        monkeypatch.setenv("GIT_DIR", "/nowhere")
        monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    before = content(repository)
    assert commits.state_of(str(repository)) == (str(repository), commit, state in ("dirty", "staged"))
    assert content(repository) == before


def test_worktrees(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert commits.state_of(str(tmp_path / "tree")) == (str(tmp_path / "tree"), git(repository, "rev-parse", "HEAD"), False)


def test_empty_repositories(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    assert commits.state_of(str(tmp_path / "empty")) == (str(tmp_path / "empty"), None, False)


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert commits.state_of(str(repository)) == (str(repository), None, None)


def test_a_slow_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    program = repository / "git"
    real = shutil.which("git")
    program.write_text(f'#!/bin/sh\ncase "$*" in *status*) exec sleep 60;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(repository), prepend=os.pathsep)
    monkeypatch.setattr(commits, "_PATIENCE_S", 0.2)
    started = time.monotonic()
    commits.begin(str(repository))
    assert time.monotonic() - started < 0.15  # nobody waits for it
    assert commits.state_of(str(repository)) == (str(repository), commit, None)
    assert time.monotonic() - started < 5


def test_many_changes_do_not_block(repository: Path) -> None:
    for number in range(3000):
        (repository / f"{'long' * 20}{number}").touch()
    git(repository, "add", ".")
    commits.begin(str(repository))
    assert commits.state_of(str(repository)).dirty is True


def test_forks_ask_themselves(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits.begin(str(repository))
    monkeypatch.setattr(files.Process, "forks", files.Process.forks + 1)  # as a fork sees it
    assert commits.state_of(str(repository)).dirty is False


SCRIPT = """
    import os, pydantic, exca_like
    from collections.abc import Iterator

    class Train(pydantic.BaseModel):
        name: str = "a"
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")

        @infra.apply
        def run(self) -> list[str]:
            if self.name == "chain":
                return Train(name="inner", infra={"cluster": "local"}).run()
            return [__name__]

    for name, cluster in (("here", None), ("job", "local"), ("chain", "local")):
        Train(name=name, infra={"cluster": cluster, "workdir": {"copied": ["part.py"]} if cluster else None}).run()
    for name in ("here", "job", "chain", "inner"):
        found = Train(name=name).infra.provenance()
        print(found.commit, found.dirty, found.repository, found.command, sep="|")
"""


def test_scripts_in_a_repository(repository: Path, tmp_path: Path) -> None:
    (repository / "script.py").write_text(textwrap.dedent(SCRIPT))
    (repository / "part.py").write_text("")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "script")
    (repository / "file").write_text("changed")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = f"{git(repository, 'rev-parse', 'HEAD')}|True|{repository}|{sys.executable} script.py"
    assert done.stdout.splitlines() == [line] * 4


def test_code_of_installed_packages_has_the_commit_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs._source_of_file.cache_clear()
    assert runs.source_of(pydantic.BaseModel.model_dump) == str(tmp_path)
    assert runs.source_of(eval("lambda: 1")) == str(tmp_path)
    assert runs.source_of(test_commits) == str(Path(__file__).parent)
    runs._source_of_file.cache_clear()


def test_what_jobs_are_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"command": "first", "git": {"root": "/lab", "commit": "c", "dirty": False}}
    monkeypatch.setenv(runs.RUN_VARIABLE, json.dumps(told))
    assert json.loads(runs.passed_on(str(repository)))["git"]["root"] == str(repository)  # this is no job
    monkeypatch.setattr("exca_like.names.is_job", lambda: True)
    assert json.loads(runs.passed_on(str(repository))) == told
    assert runs.facts("/")["git"] == told["git"]
    assert runs.facts(str(repository))["git"]["root"] == str(repository)  # code of another repository
    monkeypatch.setenv("EXCA_LIKE_WORKDIR", str(repository / "code"))
    assert runs.facts(str(repository / "code/pack"))["git"] == told["git"]  # a copy that lies in one
    assert runs.facts("/")["command"] == "first"
    for wrong in ("{", "1", "{}"):
        monkeypatch.setenv(runs.RUN_VARIABLE, wrong)
        assert runs.facts("/")["command"] == shlex.join(sys.orig_argv)


def test_short_forms_are_read() -> None:
    items = recording.ItemRecording(None)
    assert items.of_result() is None
    assert items.of_result({"a": 1}) == {"a": 1}
    found = recording.noted("1764349677123456789 1500000 0.05 node 7 00ff job=12_3 code=abc")
    assert found == {
        "time": "2025-11-28T17:07:57.123+00:00", "duration": 0.0015, "memory": 0.05, "host": "node", "pid": 7, "run": "00ff",
        "job": "12_3", "code": "abc",
    }  # fmt: skip
