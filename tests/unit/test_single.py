"""The only entry of a folder, and claims that come with a new one."""

import errno
import os
import shutil
import time
import typing
import warnings
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import errors, files
from exca_like.cachedict import CacheDict
from exca_like.cachedict import journal as journal_module
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.journal import Listing, _is_stamped_here
from exca_like.cachedict.owners import heartbeat
from exca_like.cachedict.single import SingleEntry, _without_meta, write_first


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with (cache := CacheDict(tmp_path / "cache")).write():
        cache.put("result", 5, meta={"note": "first"})
    return tmp_path / "cache"


def journal(folder: Path) -> Path:
    (path,) = folder.glob("*-info.jsonl")
    return path


def test_one_entry(folder):
    single = SingleEntry(str(folder))
    for _ in range(3):
        found = single.look()
        assert found is not None
        file, info = found
        assert (file.path, info["#key"], info["#meta"]) == (str(journal(folder)), "result", {"note": "first"})
        info.clear()  # each look gives its own


def test_what_others_do_is_seen(folder):
    single = SingleEntry(str(folder))
    assert single.look() is not None
    with (cache := CacheDict(folder)).write():
        cache.put("result", 6, replace=True)
    assert single.look() is None  # two journals
    cache.clear()
    assert single.look() is None
    with cache.write():
        cache["result"] = 7
    found = single.look()
    assert found is not None
    assert found[1]["content"] == 7
    with cache.write():
        cache["other"] = 8
    assert single.look() is None


@pytest.mark.parametrize("value", [5, '","#meta":{', {"a": ["b", {"meta": ',"#meta":'}]}, [[[1]]]])
@pytest.mark.parametrize("meta", [None, {"#meta": {"#meta": 1}}])
def test_bare_entries(tmp_path, value, meta):
    with (cache := CacheDict(tmp_path)).write():
        cache.put("result", value, meta=meta)
    single = SingleEntry(str(tmp_path))
    for _ in range(2):
        found, bare = single.look(), single.look(bare=True)
        assert found is not None
        assert bare is not None
        assert found[0] is bare[0]
        assert {"#key", "#type", "content"} <= bare[1].keys()
        assert {name: found[1][name] for name in bare[1]} == bare[1]
        assert ("#meta" in bare[1]) <= ("#meta" in found[1]) == (meta is not None)


def test_what_is_noted_beside_an_entry(folder):
    single = SingleEntry(str(folder))
    assert not single.has_noted("note", "first")  # it has not looked
    assert single.look() is not None
    assert single.has_noted("note", "first")
    assert not any(single.has_noted("note", value) for value in ("f", "", None, ["first"]))
    assert not single.has_noted("#type", "Json")  # this is not beside it


def test_marks_inside_of_what_handlers_return(tmp_path):
    line = b'{"#key":"result","part":{"a":1,"#meta":2},"#meta":{"b":3},"#sum":"00000000"}\n'
    assert _without_meta(line)["part"] == {"a": 1, "#meta": 2}


@pytest.mark.parametrize("is_stamped_here", [True, False])
def test_folders_are_listed_again_unless_that_tells_nothing_new(tmp_path, monkeypatch, is_stamped_here):
    monkeypatch.setattr(journal_module, "_is_stamped_here", lambda _: is_stamped_here)
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
    listing = Listing(str(tmp_path))
    listing.names()
    for seconds, is_listed in ((-1.0, False), (-3600.0, False), (1.0, True), (3600.0, True)):  # of the folder's last change
        stamp = time.time_ns() // 10_000_000 * 10_000_000 + 1_234_567 + int(seconds * 1e9)
        os.utime(tmp_path, ns=(stamp, stamp))
        listing.names()
        listed.clear()
        assert listing.names() == []
        assert bool(listed) == (is_listed or not is_stamped_here)
    coarse = time.time_ns() // 1_000_000_000 * 1_000_000_000 - 3_600_000_000_000
    os.utime(tmp_path, ns=(coarse, coarse))
    listing.names()
    listed.clear()
    listing.names()
    assert listed


def test_all_changes_of_a_folder_are_seen(tmp_path):
    listing = Listing(str(tmp_path))
    expected = []
    for number in range(1000):
        if number % 100 == 0:
            time.sleep(0.025)  # it has settled
        for _ in range(number % 4):
            assert sorted(listing.names()) == expected
        (tmp_path / f"{number:04}-info.jsonl").touch()
        expected.append(f"{number:04}-info.jsonl")
        assert sorted(listing.names()) == expected


def test_file_systems_that_are_not_known_are_not_trusted():
    assert not _is_stamped_here(os.stat("/proc").st_dev)
    assert not _is_stamped_here(os.makedev(4000, 4000))


def test_no_folder(tmp_path):
    single = SingleEntry(str(tmp_path / "none"))
    assert single.look() is None
    assert not single.is_there
    (tmp_path / "none").mkdir()
    assert single.look() is None
    assert single.is_there


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"5", b"6", 1),
        lambda data: data + data,
        lambda data: data + b'{"#key":"x',
        lambda data: data + bytes(20),
        lambda _: b"",
        lambda _: b"\n",
        lambda _: b'{"#key":"result"}\n',
    ],
)
def test_damage_is_left_to_others(folder, damage):
    journal(folder).write_bytes(damage(journal(folder).read_bytes()))
    assert SingleEntry(str(folder)).look() is None


def test_other_files(folder):
    journal(folder).rename(folder / "result-info.jsonl")  # a name as exca gives
    assert SingleEntry(str(folder)).look() is None


def test_failures_are_no_entries(tmp_path):
    with (cache := CacheDict(tmp_path)).write():
        cache.put_failure("result", Failure.of(ValueError()))
    assert SingleEntry(str(tmp_path)).look() is None


def test_large_journals(tmp_path):
    with (cache := CacheDict(tmp_path)).write():
        for number in range(1000):
            cache[str(number)] = np.arange(30)
    assert SingleEntry(str(tmp_path)).look() is None


def test_folders_with_claims(tmp_path):
    before = set(heartbeat._paths)
    claims = FolderClaims(str(tmp_path / "new"), "lock", lambda _: False)
    claim = claims.with_folder(["a"], lambda claim: files.create_folder(f"{tmp_path}/new", {"lock": b"", **claim}))
    assert claim is not None
    others = FolderClaims(str(tmp_path / "new"), "lock", lambda _: False)
    assert others.claim(["a"], lambda free: [free] if free else [])[0] == []
    assert claims.with_folder(["a"], lambda claim: files.create_folder(f"{tmp_path}/new", claim)) is None
    assert [path.name for path in tmp_path.rglob("*.claim")] == [claim.name]
    claim.close()
    assert not list(tmp_path.rglob("*.claim"))
    assert heartbeat._paths == before


def test_folders_that_can_not_be_created(tmp_path):
    before = set(heartbeat._paths)

    def create(_: dict[str, bytes]) -> bool:
        raise KeyboardInterrupt

    claims = FolderClaims(str(tmp_path / "new"), "lock", lambda _: False)
    with pytest.raises(KeyboardInterrupt):
        claims.with_folder(["a"], create)
    assert heartbeat._paths == before


class Numbers(pydantic.BaseModel):
    _computed: typing.ClassVar[list[int]] = []
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> np.ndarray:
        self._computed.append(1)
        return np.arange(5000.0)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(bytes(40_000)), lambda path: path.unlink()])
@pytest.mark.parametrize("mode", ["cached", "retry"])
def test_tasks_whose_data_are_damaged_are_computed_again(tmp_path, mode, damage):
    Numbers(infra={"folder": tmp_path}).run()
    (data,) = tmp_path.rglob("*.data")
    damage(data)
    Numbers._computed.clear()
    for _ in range(3):
        task = Numbers(infra={"folder": tmp_path, "mode": mode})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.CorruptEntryWarning)
            assert np.array_equal(task.run(), np.arange(5000.0))
        assert task.infra.status() == "completed"
    assert len(Numbers._computed) == 1


def test_folders_that_are_removed_before_a_forced_computation(tmp_path):
    for mode in ("cached", "force"):
        Numbers(infra={"folder": tmp_path, "mode": mode}).run()
    task = Numbers(infra={"folder": tmp_path, "mode": "force"})
    assert task.infra.status() == "completed"
    shutil.rmtree(tmp_path)
    assert len(task.run()) == 5000
    assert len(Numbers(infra={"folder": tmp_path}).run()) == 5000


class Current(pydantic.BaseModel):
    _now: typing.ClassVar[list[int]] = [0]
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self._now[0]


def test_equal_configs_see_what_others_do(tmp_path):
    same = Current(infra={"folder": tmp_path})
    for number in range(300):
        if number % 50 == 0:
            time.sleep(0.03)  # the folder settles
        Current._now[0] = number
        if number % 3:
            shutil.rmtree(same.infra.uid_folder(), ignore_errors=True)
            Current(infra={"folder": tmp_path}).run()
        else:
            Current(infra={"folder": tmp_path, "mode": "force"}).run()
        assert [same.run(), Current(infra={"folder": tmp_path}).run(), same.run()] == [number] * 3


def test_equal_configs_see_damage(tmp_path):
    Current._now[0] = 1
    for _ in range(3):
        assert Current(infra={"folder": tmp_path}).run() == 1
    Current._now[0] = 2
    path = journal(Current(infra={"folder": tmp_path}).infra.uid_folder())
    time.sleep(0.03)
    path.write_bytes(path.read_bytes().replace(b'"content":1', b'"content":3'))
    with pytest.warns(errors.CorruptEntryWarning):
        assert Current(infra={"folder": tmp_path}).run() == 2


@pytest.mark.parametrize("value", [5, "text", np.arange(3), np.arange(1000), {"a": np.arange(1000)}])
def test_the_first_entry_is_one_as_any_other(value, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    write_first(str(folder), "result", value, {"note": "first"}, 0o640)
    found = SingleEntry(str(folder)).look()
    assert found is not None
    assert found[1]["#meta"] == {"note": "first"}
    cache = CacheDict(folder)
    np.testing.assert_equal(cache["result"], value)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o640}
    with cache.write():
        cache.put("result", 6, replace=True)
    assert dict(CacheDict(folder).items()) == {"result": 6}


def test_a_first_entry_that_cannot_be_stored_leaves_none(tmp_path, monkeypatch):
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(TypeError):
        write_first(str(new), "result", 5, {"note": object()})
    assert not list(new.iterdir())
    monkeypatch.setattr("exca_like.cachedict.writer.pwrite", fail)
    with pytest.raises(errors.CacheFolderError, match="No space left"):
        write_first(str(new), "result", 5, {})
    assert not list(CacheDict(new))


def fail(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
