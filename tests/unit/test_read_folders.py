"""Read folders: what is missing in one's own folder is looked for in those of others, where nothing is changed."""

import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import typing as tp
import warnings
from collections.abc import Iterator

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import errors, hits
from exca_like.cachedict import CacheDict, read_through

computed: list[object] = []


class Task(pydantic.BaseModel):
    x: int = 1
    fails: bool = False
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("fails",)
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        computed.append(self.x)
        if self.fails:
            raise ValueError("failed here")
        return [self.x, "computed"] if self.x < 100 else np.full(1000, self.x)


class Map(pydantic.BaseModel):
    fails: tuple[int, ...] = ()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("fails",)
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: list[int]) -> Iterator[np.ndarray]:
        for item in items:
            computed.append(item)
            if item in self.fails:
                raise ValueError("failed here")
            yield np.full(item, float(item))


class Outer(pydantic.BaseModel):
    task: Task
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        return [*self.task.run(), os.getpid()]


class Object:
    """Stored as a pickle."""


class Pickled(pydantic.BaseModel):
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        return Object()


def pickled_quietly(infra: dict[str, tp.Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        Pickled(infra=infra).run()


def listing(folder: pathlib.Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


class Folders(tp.NamedTuple):
    own: pathlib.Path
    shared: pathlib.Path

    @property
    def infra(self) -> dict[str, tp.Any]:
        """Reads from the shared folder."""
        return {"folder": self.own, "read_folders": [self.shared]}

    def freeze(self) -> None:
        """From now on, nothing may change in the shared folder."""
        frozen[self.shared] = listing(self.shared)


frozen: dict[pathlib.Path, tp.Any] = {}


@pytest.fixture
def folders(tmp_path: pathlib.Path) -> Iterator[Folders]:
    computed.clear()
    read_through._told.clear()
    found = Folders(tmp_path / "own", tmp_path / "shared")
    found.shared.mkdir()
    yield found
    if found.shared in frozen:
        assert listing(found.shared) == frozen.pop(found.shared)


@pytest.fixture
def shared(folders: Folders) -> Folders:
    """Folders of which the shared one has results."""
    Task(infra={"folder": folders.shared}).run()
    list(Map(infra={"folder": folders.shared}).run([1, 2, 3]))
    computed.clear()
    folders.freeze()
    return folders


# tasks


def test_task(shared: Folders) -> None:
    task = Task(infra=shared.infra)
    assert task.run() == task.run() == [1, "computed"]
    assert not computed
    assert not shared.own.exists()
    assert Task(x=2, infra=shared.infra).run() == [2, "computed"]
    assert computed == [2]
    assert Task(x=2, infra={"folder": shared.own}).run() == [2, "computed"]
    assert computed == [2]  # it was stored in the own folder


def test_uid_is_the_same(shared: Folders) -> None:
    assert Task(infra=shared.infra).infra.uid() == Task(infra={"folder": shared.own}).infra.uid()


def test_clones_have_them(shared: Folders) -> None:
    clone = Task(x=2, infra=shared.infra).infra.clone_obj({"x": 1})
    assert clone.infra.read_folders == (shared.shared,)
    assert clone.run() == [1, "computed"]
    assert not computed


def test_order(folders: Folders, tmp_path: pathlib.Path) -> None:
    values = {}
    for name in ("own", "shared", "third"):
        values[name] = Outer(task=Task(), infra={"folder": tmp_path / name}).run()
        with CacheDict(Outer(task=Task(), infra={"folder": tmp_path / name}).infra.uid_folder()).write() as cache:
            cache.put("result", name, replace=True)
    infra = {"folder": folders.own, "read_folders": (folders.shared, str(tmp_path / "third"))}
    assert Outer(task=Task(), infra=infra).run() == "own"
    Outer(task=Task(), infra=infra).infra.clear_job()
    assert Outer(task=Task(), infra=infra).run() == "shared"
    shutil.rmtree(folders.shared / Outer(task=Task(), infra=infra).infra.uid())
    assert Outer(task=Task(), infra=infra).run() == "third"


def test_what_is_said_of_it(shared: Folders) -> None:
    infra = Task(infra=shared.infra).infra
    assert infra.status() == "completed"
    assert infra.status_detail().state == "done"
    assert infra.provenance().pid == os.getpid()
    assert infra.provenance() == Task(infra={"folder": shared.shared}).infra.provenance()
    explained = infra.explain()
    assert explained.status == "hit"
    assert f"read from {shared.shared}" in explained.reason
    assert Task(x=3, infra=shared.infra).infra.explain().status == "miss"
    assert Task(x=3, infra=shared.infra).infra.status() == "not submitted"
    with pytest.raises(errors.NotCachedError):
        Task(x=3, infra=shared.infra).infra.provenance()
    assert not computed
    assert not shared.own.exists()


def test_iter_cached(shared: Folders) -> None:
    Task(x=2, infra=shared.infra).run()
    Task(infra=shared.infra | {"mode": "force"}).run()
    found = [task.x for task in Task(infra=shared.infra).infra.iter_cached()]
    assert sorted(found) == [1, 2]
    assert len(list(Map(infra=shared.infra).infra.iter_cached())) == 1
    assert [type(task.infra.read_folders) for task in Task(infra=shared.infra).infra.iter_cached()] == [tuple, tuple]


def test_iter_cached_skips_errors_of_others(folders: Folders) -> None:
    with pytest.raises(ValueError):
        Task(fails=True, infra={"folder": folders.shared}).run()
    with pytest.raises(ValueError):
        Task(x=2, fails=True, infra={"folder": folders.own}).run()
    folders.freeze()
    assert [task.x for task in Task(infra=folders.infra).infra.iter_cached()] == [2]


def test_iter_cached_skips_what_was_deleted(folders: Folders) -> None:
    Task(infra={"folder": folders.shared}).run()
    with pytest.raises(ValueError):
        Task(fails=True, infra={"folder": folders.shared, "mode": "force"}).run()
    folders.freeze()
    assert list(Task(infra=folders.infra).infra.iter_cached()) == []


def test_iter_cached_beside_a_writer(folders: Folders) -> None:
    list(Map(infra={"folder": folders.shared}).run([1]))
    with Map(infra={"folder": folders.shared}).infra.cache_dict.write() as cache:
        cache["2"] = np.zeros(2)
        del cache["1"]
        assert len(list(Map(infra=folders.infra).infra.iter_cached())) == 1
        del cache["2"]
        assert list(folders.shared.rglob("*-info.jsonl"))  # which the writer goes on with
        assert list(Map(infra=folders.infra).infra.iter_cached()) == []


def test_errors_of_others_are_none(folders: Folders) -> None:
    with pytest.raises(ValueError):
        Task(fails=True, infra={"folder": folders.shared}).run()
    folders.freeze()
    task = Task(infra=folders.infra)
    assert task.infra.status() == "not submitted"
    assert task.infra.explain().status == "miss"
    assert task.run() == [1, "computed"]


def test_own_error_comes_first(shared: Folders) -> None:
    with pytest.raises(ValueError):
        Task(fails=True, infra={"folder": shared.own}).run()
    task = Task(infra=shared.infra)
    assert task.infra.status() == "failed"
    assert task.infra.explain().status == "failed"
    with pytest.raises(ValueError):
        task.run()
    retried = Task(infra=shared.infra | {"mode": "retry"})
    assert retried.infra.explain().status == "hit"
    computed.clear()
    assert retried.run() == [1, "computed"]
    assert not computed
    task.infra.clear_job()
    assert task.run() == [1, "computed"]
    assert not computed


@pytest.mark.parametrize("cluster", [None, "local", "debug"])
def test_force(shared: Folders, cluster: str | None) -> None:
    infra = shared.infra | {"mode": "force", "cluster": cluster}
    failing = Task(fails=True, infra=infra)
    with pytest.raises(ValueError):  # it is not the older value of others
        failing.infra.job().result()
    with pytest.raises(ValueError):
        failing.run()
    assert Task(infra=infra).run() == [1, "computed"]
    assert Task(infra={"folder": shared.own, "mode": "read-only"}).run() == [1, "computed"]


def test_read_only(shared: Folders) -> None:
    infra = shared.infra | {"mode": "read-only"}
    assert Task(infra=infra).run() == Task(infra=infra).infra.job().result() == [1, "computed"]
    for ask in (Task.run, lambda task: task.infra.job()):
        with pytest.raises(errors.NotCachedError):
            ask(Task(x=2, infra=infra))
    assert len(list(Map(infra=infra).run([1, 2]))) == 2
    with pytest.raises(errors.NotCachedError, match="1 of 2 items.*'9'"):
        list(Map(infra=infra).run([1, 9]))
    assert not shared.own.exists()


def test_off(shared: Folders) -> None:
    Task(infra=shared.infra | {"mode": "off"}).run()
    assert computed == [1]


def test_without_a_folder(shared: Folders) -> None:
    infra = {"read_folders": [shared.shared]}
    task = Task(infra=infra)
    assert task.run() == task.infra.job().result() == [1, "computed"]
    assert task.infra.status() == "completed"
    assert task.infra.explain().status == "hit"
    assert [found.x for found in task.infra.iter_cached()] == [1]
    assert len(list(Map(infra=infra).run([1, 3]))) == 2
    assert Task(infra=infra | {"mode": "read-only"}).run() == [1, "computed"]
    assert not computed
    other = Task(x=2, infra=infra)
    assert other.run() == other.run()
    assert computed == [2, 2]  # nothing is kept
    assert [len(each) for each in Map(infra=infra).run([1, 4])] == [1, 4]
    with pytest.raises(errors.NotCachedError):
        Task(x=2, infra=infra | {"mode": "read-only"}).run()


def test_keep_in_ram(shared: Folders) -> None:
    task = Task(infra=shared.infra | {"keep_in_ram": True})
    assert task.run() is task.run()
    maps = Map(infra=shared.infra)
    assert next(maps.run([3])) is next(maps.run([3]))
    maps = Map(infra=shared.infra | {"keep_in_ram": False})
    assert next(maps.run([3])) is not next(maps.run([3]))


def test_mapped_arrays(folders: Folders) -> None:
    infra = {"folder": folders.shared}
    Task(x=100, infra=infra).run()
    apply = exca_like.memo(cache_type="NumpyMemmapArray", **infra)(np_of)
    apply(50)
    folders.freeze()
    assert int(Task(x=100, infra=folders.infra).run().sum()) == 100_000
    found = exca_like.memo(cache_type="NumpyMemmapArray", **folders.infra)(np_of)(50)
    assert isinstance(found, np.memmap)
    assert found.shape == (50,)
    assert computed == [100]


def np_of(size: int) -> np.ndarray:
    return np.zeros(size)


# jobs


@pytest.mark.parametrize("cluster", [None, "local", "debug"])
def test_jobs(shared: Folders, cluster: str | None) -> None:
    infra = shared.infra | {"cluster": cluster}
    task = Task(infra=infra)
    job = task.infra.job()
    assert job.result() == task.run() == [1, "computed"]
    assert job.job_id == "in-process"
    assert job.lazy().load() == [1, "computed"]
    assert not shared.own.exists()
    with task.infra.job_array() as tasks:
        tasks += [Task(x=x, infra=infra) for x in (1, 2, 3)]
    assert [one.infra.job().result()[0] for one in tasks] == [1, 2, 3]
    assert [one.infra.job().job_id == "in-process" for one in tasks] == (
        [True] * 3 if cluster != "local" else [True, False, False]
    )


def test_jobs_have_the_same_read_folders(shared: Folders) -> None:
    outer = Outer(task=Task(infra=shared.infra), infra={"folder": shared.own, "cluster": "local"})
    *value, pid = outer.run()
    assert value == [1, "computed"]
    assert pid != os.getpid()
    assert not (shared.own / Task(infra=shared.infra).infra.uid()).exists()  # the job has not computed it


def test_a_job_computes_what_others_have_got_meanwhile(folders: Folders) -> None:
    task = Task(infra=folders.infra)
    Task(infra={"folder": folders.shared}).run()
    computed.clear()
    task.infra._run_as_job("retry")  # what the job does: its submitter waits for an outcome in the own folder
    assert computed == [1]
    assert Task(infra={"folder": folders.own, "mode": "read-only"}).run() == [1, "computed"]


@pytest.mark.parametrize("cluster", ["local", "threadpool", "processpool"])
def test_maps_in_jobs(shared: Folders, cluster: str) -> None:
    maps = Map(infra=shared.infra | {"cluster": cluster, "max_jobs": 2})
    assert [int(found.sum()) for found in maps.run([5, 1, 4, 3])] == [25, 1, 16, 9]
    assert sorted(Map(infra={"folder": shared.own}).infra.cache_dict) == ["4", "5"]


def test_sweep(shared: Folders) -> None:
    found = exca_like.sweep(Task(infra=shared.infra), {"x": [1, 2]})
    assert found.plan().cached == 1
    found.submit()
    assert computed == [2]
    assert found.results() == [[1, "computed"], [2, "computed"]]
    assert [row.duration is not None for row in found.status()] == [True, True]
    assert len(found.to_df()) == 2


# maps


def test_map(shared: Folders) -> None:
    maps = Map(infra=shared.infra)
    for items in ([3, 4, 1, 3], iter([3, 4, 1, 3])):
        assert [int(found.sum()) for found in maps.run(items)] == [9, 16, 1, 9]
    assert computed == [4]
    assert list(Map(infra={"folder": shared.own}).infra.cache_dict) == ["4"]
    for key, folder in ((4, "in the cache"), (2, f"read from {shared.shared}")):
        assert maps.infra.explain(key).status == "hit"
        assert folder in maps.infra.explain(key).reason
        assert maps.infra.provenance(key).pid == os.getpid()
    assert maps.infra.explain(9).status == "miss"


def test_map_only_read(shared: Folders) -> None:
    assert [len(found) for found in Map(infra=shared.infra).run([1, 2])] == [1, 2]
    assert not shared.own.exists()


def test_map_forced(shared: Folders) -> None:
    maps = Map(infra=shared.infra | {"mode": "force"})
    for _ in range(2):
        assert [int(found.sum()) for found in maps.run([3, 4])] == [9, 16]
    assert computed == [3, 4]
    assert sorted(Map(infra={"folder": shared.own}).infra.cache_dict) == ["3", "4"]


def test_map_takes_values_rather_than_errors(shared: Folders) -> None:
    with pytest.raises(errors.ItemsFailedError):
        list(Map(fails=(2,), infra={"folder": shared.own}).run([2]))
    maps = Map(infra=shared.infra)
    computed.clear()
    assert maps.infra.explain(2).status == "hit"
    assert len(next(maps.run([2]))) == 2
    assert not computed


def test_map_sees_what_others_add(folders: Folders) -> None:
    maps = Map(infra=folders.infra)
    list(maps.run([1]))
    list(Map(infra={"folder": folders.shared}).run([2]))  # its folder was not there before
    computed.clear()
    assert [len(found) for found in maps.run([1, 2])] == [1, 2]
    list(Map(infra={"folder": folders.shared}).run([3]))
    computed.clear()
    assert [len(found) for found in maps.run([1, 2, 3])] == [1, 2, 3]
    assert not computed


def test_cache_dict(shared: Folders) -> None:
    maps = Map(infra=shared.infra)
    list(maps.run([4]))
    cache = maps.infra.cache_dict
    assert list(cache) == ["4", "1", "2", "3"]
    assert len(cache) == 4
    assert "1" in cache
    assert "4" in cache
    assert "9" not in cache
    assert [len(value) for _, value in cache.items()] == [4, 1, 2, 3]
    assert cache.missing(["1", "4", "9"]) == ["9"]
    assert cache.describe("2")["#key"] == "2"
    assert cache.meta("2")
    assert all(path.is_relative_to(shared.shared) for path in cache.files("2"))
    with pytest.raises(KeyError):
        cache["9"]
    copied = pickle.loads(pickle.dumps(cache))
    assert sorted(copied) == ["1", "2", "3", "4"]
    with cache.write():
        del cache["4"]
        with pytest.raises(errors.CacheUsageError, match="one of the read_folders"):
            del cache["1"]
        cache["1"] = np.zeros(7)
    assert len(cache["1"]) == 7
    with cache.frozen_cache_folder():
        assert len(cache) == 3
    with cache.write():
        del cache["1"]
    assert len(cache["1"]) == 1


# memo


def double(a: int) -> list[int]:
    computed.append(a)
    return [2 * a]


def test_memo(folders: Folders) -> None:
    exca_like.memo(folder=folders.shared)(double)(1)
    computed.clear()
    folders.freeze()
    found = exca_like.memo(**folders.infra)(double)
    assert found.cached(1)
    assert not found.cached(2)
    assert found(1) == found.submit(1).result() == found.lazy(1).load() == [2]
    assert f"read from {folders.shared}" in found.explain(1).reason
    assert found.provenance(1).pid == os.getpid()
    assert not computed
    assert not folders.own.exists()
    assert list(found.map([1, 2])) == [[2], [4]]
    assert computed == [2]
    assert [entry.config for entry in found.entries()] == [{"a": 2}]
    assert not found.forget(1)
    assert found.forget(2)
    assert found.cached(1)


@pytest.mark.parametrize("cluster", [None, "local"])
def test_memo_forced(folders: Folders, cluster: str | None) -> None:
    def fails(a: int) -> int:
        if (folders.own.parent / "broken").exists():
            raise ValueError("failed here")
        return a

    exca_like.memo(folder=folders.shared, code="ignore")(fails)(1)
    folders.freeze()
    (folders.own.parent / "broken").touch()
    found = exca_like.memo(mode="force", code="ignore", cluster=cluster, **folders.infra)(fails)
    with pytest.raises(ValueError):  # it is not the older value of others
        found.submit(1).result()


def test_memo_of_jobs(folders: Folders) -> None:
    exca_like.memo(folder=folders.shared)(double)(1)
    computed.clear()
    folders.freeze()
    found = exca_like.memo(cluster="local", **folders.infra)(double)
    assert found(1) == [2]
    assert found(3) == [6]
    assert list(found.map([1, 3, 4])) == [[2], [6], [8]]
    assert not computed  # not in this process


def test_hits_are_not_counted_there(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_LIKE_COUNT_HITS", "1")

    def call(infra: dict[str, tp.Any]) -> None:
        task = Task(infra=infra)
        assert task.run() == task.infra.job().result() == [1, "computed"]
        assert len(list(Map(infra=infra).run([1, 2]))) == 2
        apply = exca_like.memo(**infra)(double)
        assert [apply(1), *apply.map([1])] == [[2], [2]]

    call({"folder": folders.shared})
    hits.write()
    Task(x=2, infra={"folder": folders.own}).run()  # the own folder is there, so that counts may be written to it
    computed.clear()
    folders.freeze()
    call(folders.infra)
    sweep = exca_like.sweep(Task(infra=folders.infra), {"x": [1]}).submit()
    assert sweep.results() == [[1, "computed"]]
    hits.write()
    assert not computed
    assert Task(infra=folders.infra).infra.uid() not in hits.read(str(folders.own))


# what is wrong with folders


def test_missing_folder(folders: Folders) -> None:
    gone = folders.own.parent / "not mounted"
    infra = {"folder": folders.own, "read_folders": [gone, folders.shared]}
    Task(infra={"folder": folders.shared}).run()
    computed.clear()
    with pytest.warns(errors.ReadFolderWarning, match="not mounted counts as empty: it is not there") as noted:
        assert Task(infra=infra).run() == [1, "computed"]
        assert Task(x=2, infra=infra).run() == [2, "computed"]
        assert len(list(Map(infra=infra).run([1, 2]))) == 2
    assert len(noted) == 1
    assert not gone.exists()
    folders.shared.rename(gone)  # it is mounted
    folders.shared.mkdir()
    assert Task(infra=infra).run() == [1, "computed"]
    assert computed == [2, 1, 2]


def test_files_that_cannot_be_read(shared: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: tp.Any, *args: tp.Any, **kwargs: tp.Any) -> int:
        if str(path).startswith(str(shared.shared)):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.warns(
        errors.ReadFolderWarning, match=f"the read folder {shared.shared}.* counts as empty: .*Permission denied"
    ):
        assert Task(infra=shared.infra).run() == [1, "computed"]
        assert len(list(Map(infra=shared.infra).run([1, 2]))) == 2
    assert computed == [1, 1, 2]


def test_data_that_cannot_be_read(shared: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    load = CacheDict.__getitem__

    def refuse(self: tp.Any, key: str) -> tp.Any:
        if self.folder is not None and self.folder.is_relative_to(shared.shared):
            raise PermissionError(13, "Permission denied", str(self.folder))
        return load(self, key)

    monkeypatch.setattr(CacheDict, "__getitem__", refuse)
    with pytest.warns(errors.ReadFolderWarning, match="Permission denied"):
        assert [len(found) for found in Map(infra=shared.infra).run([1, 2])] == [1, 2]
    assert computed == [1, 2]


@pytest.mark.parametrize("cluster", [None, "local"])
def test_damaged_data(folders: Folders, cluster: str | None) -> None:
    Task(infra={"folder": folders.shared}).run()
    list(Map(infra={"folder": folders.shared}).run([100, 200]))
    for path in folders.shared.rglob("data/*"):
        path.write_bytes(bytes(path.stat().st_size))
    (journal,) = Task(infra={"folder": folders.shared}).infra.uid_folder().glob("*-info.jsonl")  # type: ignore[union-attr]
    journal.write_bytes(journal.read_bytes().replace(b"computed", b"destroyed"))
    computed.clear()
    folders.freeze()
    infra = folders.infra | {"cluster": cluster}
    with pytest.warns(errors.CorruptEntryWarning):
        assert Task(infra=infra).run() == [1, "computed"]
    with pytest.warns(errors.CorruptEntryWarning):
        assert [int(found.sum()) for found in Map(infra=infra).run([100, 200])] == [10_000, 40_000]
    assert computed == ([1, 100, 200] if cluster is None else [])
    assert Task(infra={"folder": folders.own, "mode": "read-only"}).run() == [1, "computed"]
    assert sorted(Map(infra={"folder": folders.own}).infra.cache_dict) == ["100", "200"]


def with_default(y: int, name: str, base: type[tp.Any]) -> tp.Any:
    return pydantic.create_model(name, __base__=base, __module__=__name__, y=(int, y))


@pytest.mark.parametrize("cluster", [None, "local", "debug"])
def test_another_config(shared: Folders, cluster: str | None) -> None:
    with_default(3, "Changed", Task)(infra={"folder": shared.shared}).run()
    list(with_default(3, "ChangedMap", Map)(infra={"folder": shared.shared}).run([1]))
    shared.freeze()
    computed.clear()
    infra = shared.infra | {"cluster": cluster}
    task = with_default(4, "Changed", Task)(infra=infra)
    maps = with_default(4, "ChangedMap", Map)(infra=infra)

    def in_array() -> None:
        with task.infra.job_array() as tasks:
            tasks.append(task)

    for ask in (
        task.run,
        task.infra.job,
        task.infra.status,
        task.infra.provenance,
        in_array,
        lambda: list(maps.run([1])),
        lambda: list(maps.run(iter([1]))),
        lambda: maps.infra.provenance(1),
        lambda: "1" in maps.infra.cache_dict,
    ):
        with pytest.raises(errors.ConfigMismatchError, match=r"y: stored 3, now 4[\s\S]*default was changed") as error:
            ask()
        assert [str(shared.shared) in note for note in error.value.__notes__] == [True]
    for told in (task.infra.explain(), maps.infra.explain(1)):
        assert told.status == "mismatch"
        assert [(one.name, one.stored, one.now) for one in told.differences] == [("y", 3, 4)]
        assert f"It is in {shared.shared}, one of the read_folders: rather than delete it there" in told.reason
    assert computed == []
    assert not shared.own.exists()


def test_another_config_is_not_asked_for_what_is_there(shared: Folders, tmp_path: pathlib.Path) -> None:
    with_default(3, "Changed", Task)(infra={"folder": shared.shared}).run()
    shared.freeze()
    changed = with_default(4, "Changed", Task)
    changed(infra={"folder": tmp_path / "first"}).run()
    first = {"folder": shared.own, "read_folders": [tmp_path / "first", shared.shared]}
    assert changed(infra=first).infra.explain().status == "hit"
    computed.clear()
    assert changed(infra=first).run() == [1, "computed"]
    assert computed == []
    assert changed(infra=shared.infra | {"mode": "force"}).run() == [1, "computed"]
    assert changed(infra=shared.infra).run() == [1, "computed"]  # it is in the own folder now
    assert computed == [1]


def test_memo_of_another_function(folders: Folders) -> None:
    def made(name: str) -> tp.Any:
        def function(a: str) -> str:
            computed.append(a)
            return f"{name} of {a}"

        function.__qualname__ = name
        return function

    kept = {"path": "{a}", "subdir": "parts"}
    exca_like.memo(folder=folders.shared, **kept)(made("one"))("x")
    folders.freeze()
    computed.clear()
    other = exca_like.memo(**folders.infra, prefix="other", **kept)(made("another"))
    for ask in (other, other.explain, other.provenance, other.submit):
        with pytest.raises(errors.ConfigMismatchError, match="holds results of .*one,0, not of other,0") as error:
            ask("x")
        assert [str(folders.shared) in note for note in error.value.__notes__] == [True]
    assert computed == []


CHANGING = """
import pydantic, exca_like

class Both(pydantic.BaseModel):
    task: exca_like.TaskInfra = exca_like.TaskInfra()
    maps: exca_like.MapInfra = exca_like.MapInfra()

    @task.apply
    def run(self) -> str:
        return "CODE"

    @maps.apply(item_uid=str)
    def each(self, items: list[int]) -> list[str]:
        return ["CODE" for _ in items]
"""


def test_changed_code(folders: Folders, tmp_path: pathlib.Path) -> None:
    def run(text: str, **infra: tp.Any) -> tuple[str, int]:
        """What both give in a new process, and how many warnings there are."""
        (tmp_path / "changing.py").write_text(CHANGING.replace("CODE", text))
        line = f"from changing import Both; both = Both(task={infra}, maps={infra}); print(both.run(), *both.each([1]))"
        command = [sys.executable, "-W", "always", "-c", line]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.strip(), sum(done.stderr.count(f"changing.Both.{name} was changed") for name in ("run", "each"))

    assert run("first", folder="shared") == ("first first", 0)
    folders.freeze()
    own = {"folder": "own", "read_folders": ["shared"]}
    assert run("first", **own) == ("first first", 0)
    assert run("second", **own) == ("first first", 2)
    assert run("second", code="recompute", **own) == ("second second", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_pickles_of_others(folders: Folders) -> None:
    pickled_quietly({"folder": folders.shared})
    for path in (folders.shared, *folders.shared.rglob("*")):
        os.chown(path, 65534, 65534)
    folders.freeze()
    with pytest.raises(errors.PickleRefusedError, match="allow_pickle='always'") as caught:
        Pickled(infra=folders.infra).run()
    assert "one of the read_folders" in "".join(caught.value.__notes__)
    assert isinstance(Pickled(infra=folders.infra | {"allow_pickle": "always"}).run(), Object)


@pytest.fixture
def open_folders() -> Iterator[Folders]:
    """Folders that any user may reach; results are in the shared one."""
    with tempfile.TemporaryDirectory() as top:
        found = Folders(pathlib.Path(top, "own"), pathlib.Path(top, "shared"))
        pathlib.Path(top).chmod(0o755)
        found.own.mkdir()
        found.own.chmod(0o777)
        Task(infra={"folder": found.shared}).run()
        list(Map(infra={"folder": found.shared}).run([1, 2]))
        yield found
        for path in found.shared.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)


def as_another_user(function: tp.Callable[[], None]) -> None:
    """Call a function in a process of a user who is not root, whom nothing stops."""
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            computed.clear()
            read_through._told.clear()
            function()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_folder_that_cannot_be_written_to(open_folders: Folders) -> None:
    for path in (open_folders.shared, *open_folders.shared.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = listing(open_folders.shared)

    def use() -> None:
        assert Task(infra=open_folders.infra).run() == [1, "computed"]
        assert [len(found) for found in Map(infra=open_folders.infra).run([1, 2, 3])] == [1, 2, 3]
        assert computed == [3]

    as_another_user(use)
    assert listing(open_folders.shared) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a file from all others and see it again")
@pytest.mark.parametrize("what", ["the folder", "folders of methods", "folders of configs", "journals"])
def test_folder_that_cannot_be_read(open_folders: Folders, what: str) -> None:
    patterns = {"folders of methods": "*", "folders of configs": "*/*", "journals": "*/*/*-info.jsonl"}
    for path in open_folders.shared.glob(patterns[what]) if what in patterns else [open_folders.shared]:
        path.chmod(0o700)

    def use() -> None:
        with pytest.warns(errors.ReadFolderWarning, match="shared.* counts as empty: .*Permission denied"):
            assert Task(infra=open_folders.infra).run() == [1, "computed"]
        assert [len(found) for found in Map(infra=open_folders.infra).run([1, 2])] == [1, 2]
        assert computed == [1, 1, 2]
        assert len(list(Task(infra=open_folders.infra).infra.iter_cached())) == 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.ReadFolderWarning)
        as_another_user(use)


def test_many_at_once(shared: Folders) -> None:
    """Threads that read and compute at once: each item is computed once, in one's own folder."""
    results: list[list[int]] = []

    def call() -> None:
        results.append([int(found.sum()) for found in Map(infra=shared.infra).run([1, 2, 3, 4, 5, 6])])

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[1, 4, 9, 16, 25, 36]] * 6
    assert sorted(computed) == [4, 5, 6]  # type: ignore[type-var]


# declarations


def test_declaration(tmp_path: pathlib.Path) -> None:
    assert exca_like.TaskInfra().read_folders == ()
    assert exca_like.TaskInfra(read_folders=str(tmp_path)).read_folders == (str(tmp_path),)  # type: ignore[arg-type]
    for wrong in ("", [""], [3], None):
        with pytest.raises(pydantic.ValidationError, match="read_folders"):
            exca_like.TaskInfra(read_folders=wrong)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exca_like.SubmitInfra(read_folders=[tmp_path]).read_folders == (tmp_path,)  # type: ignore[arg-type]


def test_relative_folders(shared: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared.own.parent)
    assert Task(infra={"folder": "own", "read_folders": ["shared"]}).infra.status() == "completed"
