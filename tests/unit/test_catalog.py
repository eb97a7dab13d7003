"""The catalog of a cache root."""

import dataclasses
import datetime
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pydantic
import pytest

import exca_like
from exca_like import CacheDict, listing, maintenance, overlapping, pruning, tables
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.lines import seal
from exca_like.catalog import Catalog
from exca_like.entries import Entry, claims_of
from exca_like.errors import CacheFolderError, ConfigTypeError, ConfigValueError, ItemsFailedError, NotCachedError
from exca_like.executors import local_queue
from exca_like.executors.base import Ended, JobPaths
from exca_like.filters import OneOf, moment, near_uids
from exca_like.layout import JOB, RESULT
from exca_like.listing import entries_of
from exca_like.scanning import Scanner

EXCA = Path(__file__).parents[1] / "compat" / "exca_caches" / "0.6.0"


class Optim(pydantic.BaseModel, extra="forbid"):
    lr: float = 0.1


class Train(pydantic.BaseModel):
    seed: int = 0
    size: int = 3
    optim: Optim = Optim()
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> dict[str, float]:
        if self.seed < 0:
            raise ValueError("seed < 0\nsecond line")
        exca_like.record(epoch=self.seed)
        return {"accuracy": self.seed / 10}


class Features(pydantic.BaseModel):
    size: int = 2
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: list[int]):
        for item in items:
            if item == 7:
                raise RuntimeError("seven")
            yield np.full(1000 * self.size, item)


def fill(folder: Path) -> None:
    for seed in (0, 1):
        Train(seed=seed, infra={"folder": folder}).run()
    Train(seed=1, optim={"lr": 0.5}, infra={"folder": folder}).run()
    with pytest.raises(ValueError):
        Train(seed=-1, infra={"folder": folder}).run()
    with pytest.raises(exca_like.errors.ItemsFailedError):
        list(Features(infra={"folder": folder}).process(range(9)))
    list(Features(size=1, infra={"folder": folder}).process(range(3)))
    added = exca_like.memo(folder=folder)(add)
    added(1), added(2, b=5)
    exca_like.memo(folder=folder, path="group/{a}/{uid}")(add)(3)


def add(a: int, b: int = 2) -> int:
    return a + b


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    fill(folder)
    return folder


def by_uid(catalog: Catalog, part: str):
    return catalog[part]


def test_the_handler_of_a_result_is_told(filled: Path) -> None:
    found = {entry.uid: entry.handler for entry in Catalog(filled)}
    assert {handler for uid, handler in found.items() if "Features" in uid} == {""}, "a map has one for each item"
    assert {handler for uid, handler in found.items() if "Train.run" in uid and "seed=-1" not in uid} == {"Json"}
    assert {handler for uid, handler in found.items() if "seed=-1" in uid} == {""}, "an error is none"


def test_what_is_listed(filled: Path) -> None:
    catalog = Catalog(filled)
    found = [(entry.kind, entry.method.rpartition("test_catalog.")[2], entry.version, entry.status) for entry in catalog]
    assert sorted(found) == sorted(
        [("task", "Train.run", "1", "completed")] * 3
        + [("task", "Train.run", "1", "failed")]
        + [("map", "Features.process", "0", "failed"), ("map", "Features.process", "0", "completed")]
        + [("memo", "add", "0", "completed")] * 3
    )
    assert len(catalog) == 9 and len({entry.uid for entry in catalog}) == 9
    assert [entry.uid for entry in catalog] == sorted(entry.uid for entry in catalog)


def test_a_task(filled: Path) -> None:
    entry = Catalog(filled)["seed=1,optim.lr=0.5"]
    assert entry.config["optim"] == {"lr": 0.5} and entry.config["size"] == 3
    assert entry.changed == {"seed": 1, "optim.lr": 0.5}
    assert entry.load() == {"accuracy": 0.1} == Catalog(filled).load(entry.uid)
    assert entry.time is not None and entry.time.tzinfo is not None
    assert abs((datetime.datetime.now(datetime.UTC) - entry.time).total_seconds()) < 600
    assert entry.duration is not None and 0 < entry.duration < 5
    assert entry.size == sum(path.stat().st_size for path in entry.folder.glob("*.jsonl"))
    assert (entry.values, entry.failures, entry.job, entry.is_pinned, entry.reason) == (1, 0, None, False, "")
    assert entry.root == filled and entry.provenance().extra == {"epoch": 1}
    assert entry.failure() is None and entry.handle() is None


def test_what_failed(filled: Path) -> None:
    catalog = Catalog(filled)
    entry = catalog["seed=-1"]
    assert entry.status == "failed" and entry.reason == "ValueError: seed < 0"
    failure = entry.failure()
    assert failure is not None and "second line" in failure.message and "test_catalog.py" in failure.traceback
    with pytest.raises(NotCachedError, match=r"there is no result of .*seed=-1.*ValueError: seed < 0.*compute it"):
        entry.load()
    report = catalog.failures()
    assert sorted(uid.rpartition("/")[2] for group in report.groups for uid in group.uids) == sorted(
        ["7", entry.uid.rpartition("/")[2]]
    )
    assert "1 × ValueError at test_catalog.py:" in str(report)


def test_a_map(filled: Path) -> None:
    entry = Catalog(filled).filter("Features.process", status="failed")[0]
    assert (entry.values, entry.failures, entry.reason) == (8, 1, "1 of 9 items failed")
    assert entry.size > 8 * 2000 * 8 and entry.load()["3"][0] == 3 and list(entry.item_failures()) == ["7"]
    assert entry.provenance("3").duration is not None and entry.config["size"] == 2 and entry.changed == {}


def test_calls_of_a_function(filled: Path) -> None:
    entries = list(Catalog(filled).filter(kind="memo"))
    assert sorted((entry.load(), entry.config["a"], entry.changed["b"]) for entry in entries) == [
        (3, 1, 2),
        (5, 3, 2),
        (7, 2, 5),
    ]
    assert all(entry.root == filled and entry.size > 50 for entry in entries)
    assert len([entry for entry in entries if entry.uid.startswith("group/3/")]) == 1


def test_filters(filled: Path) -> None:
    catalog = Catalog(filled)
    number = lambda **conditions: len(catalog.filter(**conditions))  # noqa: E731
    assert (number(method="Train.run"), number(method="run"), number(method="*Train*"), number(method="Train")) == (4, 4, 4, 0)
    assert (number(version="1"), number(uid="*seed=1*"), number(kind="map")) == (4, 2, 2)
    assert (number(status="failed"), number(status=["failed", "completed"])) == (2, 9)
    assert number(config={"optim.lr": 0.1}) == number(config={"optim": {"lr": 0.1}}) == 3  # where it is the default, too
    assert number(config={"seed": 1}) == 2 and number(config={"nothing": None}) == 0
    assert (number(since="1h"), number(before="1 h"), number(since=datetime.timedelta(hours=1))) == (9, 0, 9)
    assert number(before=datetime.datetime.now() + datetime.timedelta(days=1)) == 9
    assert (number(pinned=True), number(pinned=False)) == (0, 9)
    assert number(where=lambda entry: entry.size > 30000) == 1
    assert len(catalog.filter("Train.run").filter(status="failed")) == 1


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"status": "fail"}, r"status='fail' must be one of 'completed', 'failed', 'running'"),
        ({"kind": "tasks"}, r"kind='tasks' must be one of 'task', 'map', 'memo'$"),
        ({"since": "yesterday"}, r"since='yesterday' is neither a time, like .*, nor an age in s, min, h, d, w, like '7d'"),
    ],
)
def test_wrong_filters(filled: Path, conditions, message: str) -> None:
    with pytest.raises(ConfigValueError, match=message):
        Catalog(filled).filter(**conditions)


def test_wrong_types_of_filters(filled: Path) -> None:
    with pytest.raises(ConfigTypeError, match="method must be a text, like method='Train.run', not <function"):
        Catalog(filled).filter(Train.run)
    with pytest.raises(ConfigTypeError, match="config must be a dictionary of fields"):
        Catalog(filled).filter(config="seed=3")  # type: ignore[arg-type]


def test_configs_are_found_by_values_as_python_has_them(tmp_path: Path) -> None:
    class Values(pydantic.BaseModel):
        pair: tuple[int, int] = (1, 2)
        path: Path = Path("/a/b")
        flag: bool = True
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            return 1

    Values(path="/c").run()
    catalog = Catalog(tmp_path)
    for config, number in (
        ({"pair": (1, 2)}, 1),
        ({"pair": [1, 2]}, 1),
        ({"path": Path("/c")}, 1),
        ({"flag": 1}, 0),
        ({"flag": True}, 1),
    ):
        assert len(catalog.filter(config=config)) == number, config


def test_many_calls_are_read_once(tmp_path: Path) -> None:
    added = exca_like.memo(folder=tmp_path)(add)
    for number in range(300):
        added(number)
    opened: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "exca_like.entries.CacheDict", lambda *args, **options: opened.append(args) or CacheDict(*args, **options)
        )
        assert len(Catalog(tmp_path).to_records()) == 300
    assert len(opened) < 5


def test_a_cancelled_job_is_no_failure(tmp_path: Path) -> None:
    class Naps(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=tmp_path, cluster="local")

        @infra.apply
        def run(self) -> int:
            time.sleep(60)
            return 1

    job = Naps().infra.job()
    job.cancel()
    job.wait()
    (entry,) = Catalog(tmp_path)
    assert entry.status == "lost" and entry.reason.startswith("cancelled") and not len(Catalog(tmp_path).failures())


def test_failures_of_exca() -> None:
    assert not len(Catalog(EXCA).failures()) and len(Catalog(EXCA)) == 9


def test_moments() -> None:
    assert moment("since", "2026-01-02 03:04").astimezone().hour == 3
    assert moment("since", datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)).day == 2
    with pytest.raises(ConfigTypeError, match="since must be a datetime, a timedelta, or a text like '7d', not 3"):
        moment("since", 3)  # type: ignore[arg-type]


def test_uids_are_found_by_a_part(filled: Path) -> None:
    catalog = Catalog(filled)
    full = catalog["seed=1,optim.lr=0.5"].uid
    assert catalog[full].uid == full == catalog[full.rpartition("/")[2]].uid == catalog["lr=0.5"].uid
    with pytest.raises(
        NotCachedError, match=r"(?s)4 entries of .* match 'Train.run'; give more of the uid of one:\n  .*seed=-1"
    ):
        catalog["Train.run"]
    with pytest.raises(NotCachedError, match=r"no entry of .* has 'nothing' in its uid: print the catalog"):
        catalog["nothing"]
    with pytest.raises(NotCachedError, match="print the catalog"):
        catalog.filter("add")["sede=1,optim.lr=0.5"]  # what is near is not of this method
    assert catalog[0].uid == next(iter(catalog)).uid and len(catalog[:3]) == 3


def test_what_is_near_a_uid() -> None:
    uids = [f"train.Train.run,0/seed={seed}-0123abcd" for seed in (6000, 60, 600, 61, 70)]
    assert near_uids("seed=6", uids) == [uids[1], uids[3], uids[2]], "the shortest first"
    assert near_uids("cache/train.Train.run,0/seed=7", uids) == [uids[4]]
    assert near_uids("sede=61", uids)[0] == uids[3]
    assert near_uids("seed=61-0123abce", uids)[0] == uids[3]
    assert near_uids("nothing", uids) == near_uids("", uids) == near_uids("seed=6", []) == []


def test_a_uid_that_is_not_there_is_told_with_those_that_are_near(filled: Path) -> None:
    with pytest.raises(NotCachedError, match=r"has 'optim.lr=0' in its uid: did you mean \S+seed=1,optim.lr=0.5-\S+\?$"):
        Catalog(filled)["optim.lr=0"]


def test_calls_are_found_by_whole_values(tmp_path: Path) -> None:
    """Also those with two digests at the end, of the arguments and of the code."""

    @exca_like.memo(folder=tmp_path, code="recompute")
    def shown(x: int, name: str = "a") -> int:
        return x

    for arguments in ({"x": 2}, {"x": 20}, {"x": 3, "name": "2-5"}):
        shown(**arguments)
    catalog = Catalog(tmp_path)
    for part, x in (("x=2", 2), ("x=20", 20), ("name=2-5", 3)):
        assert catalog[part].changed["x"] == x
    uid = catalog["x=2"].uid
    assert uid.count("-") == 2 and catalog[uid[: uid.index("-") + 3]].uid == uid
    with pytest.raises(NotCachedError, match="no entry"):
        catalog["name=2"]


def test_ids_of_jobs_come_before_parts_of_uids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (4821, 7):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    catalog = Catalog(tmp_path)
    assert catalog["4821"].config["seed"] == 4821
    look = Catalog._look

    def with_job(*given: object) -> list[Entry]:
        return [dataclasses.replace(entry, job="4821" if entry.config["seed"] == 7 else None) for entry in look(*given)]

    monkeypatch.setattr(Catalog, "_look", with_job)
    assert catalog["4821"].config["seed"] == 7 and catalog["seed=4821"].config["seed"] == 4821


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CacheFolderError, match="there is no folder .*/none: give the one that infras have as their `folder`"):
        Catalog(tmp_path / "none")
    assert str(Catalog(tmp_path)) == f"{tmp_path}: 0 entries"


def test_tables(filled: Path) -> None:
    text = str(Catalog(filled))
    first, header, *rows, more = text.splitlines()
    assert first.startswith(f"{filled}: 9 entries (7 completed, 2 failed), ") and header.split()[:2] == ["uid", "status"]
    assert len(rows) == 9 and "failed: Value" in Catalog(filled)._table().text(200)
    assert rows[0].startswith("group/3/a=3-") and more.endswith("size") and all(entry.uid in text for entry in Catalog(filled))
    assert "completed: 3 items" in Catalog(filled)._table().text(200) and repr(Catalog(filled))[:200] == text[:200]
    page = Catalog(filled)._repr_html_()
    assert page.count("<tr>") == 10 and "seed &lt; 0" in page and "seed < 0" not in page


def test_records(filled: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = Catalog(filled).filter("Train.run").to_df()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 4
    row = frame[frame["optim.lr"] == 0.5].iloc[0]
    assert (row["seed"], row["result.accuracy"], row["extra.epoch"], row["status"]) == (1, 0.1, 1, "completed")
    assert set(frame["optim.lr"]) == {0.1, 0.5} and set(frame["seed"]) == {-1, 0, 1}  # defaults as well
    rows = Catalog(filled).filter("Features.process").to_records()
    assert [row.get("config.size") for row in rows] == [2, 1] and all(row["size"] > 1000 for row in rows)
    assert {row["result"] for row in Catalog(filled).filter(kind="memo").to_records()} == {3, 5, 7}


def test_without_pandas(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_df\(\) needs pandas: `pip install pandas`, or use to_records\(\)"):
        Catalog(filled).to_df()


def test_the_code_is_not_imported(filled: Path) -> None:
    program = f"""
        import sys
        from exca_like.catalog import Catalog
        print(Catalog({str(filled)!r}).filter("Train.run").to_records()[0]["status"])
        assert not any("test_catalog" in name for name in sys.modules) and "numpy.random" not in sys.modules
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert result.stdout in ("completed\n", "failed\n"), result.stderr


def test_changes_are_seen(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    assert len(catalog) == 0
    task = Train(infra={"folder": tmp_path})
    task.run()
    assert [entry.status for entry in catalog] == ["completed"] == [entry.status for entry in catalog]
    past = time.time() - 100
    for path in (*tmp_path.rglob("*"), tmp_path):  # what did not change for a while is not read again
        if path.is_dir():
            os.utime(path, (past, past))
    assert len(catalog) == 1
    Train(seed=5, infra={"folder": tmp_path}).run()
    assert len(catalog) == 2
    features = Features(infra={"folder": tmp_path})
    list(features.process([1]))
    assert [entry.values for entry in catalog.filter(kind="map")] == [1]
    list(features.process([1, 2, 3]))  # appended to the journal
    assert [entry.values for entry in catalog.filter(kind="map")] == [3]
    task.infra.clear_job()
    assert sorted(entry.status for entry in catalog.filter(kind="task")) == ["completed"]


def test_what_is_running(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            begun.set()
            assert go_on.wait(30)
            return 1

    thread = threading.Thread(target=Slow().run)
    thread.start()
    try:
        assert begun.wait(30)
        (entry,) = Catalog(tmp_path)
        assert entry.status == "running" and f"process {os.getpid()}" in entry.reason
    finally:
        go_on.set()
        thread.join()
    assert [entry.status for entry in Catalog(tmp_path)] == ["completed"]


def test_what_was_killed(tmp_path: Path) -> None:
    program = f"""
        import os, signal, pydantic, exca_like
        class Killed(pydantic.BaseModel):
            infra: exca_like.TaskInfra = exca_like.TaskInfra(folder={str(tmp_path)!r})
            @infra.apply
            def run(self) -> int:
                os.kill(os.getpid(), signal.SIGKILL)
        Killed().run()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    (entry,) = Catalog(tmp_path)
    assert (entry.status, entry.values) == ("lost", 0) and re.fullmatch(r"process \d+ of .*, is gone", entry.reason)
    assert "1 was lost, which counts as not submitted: 1 × its process is gone." in str(Catalog(tmp_path).failures())


class Doubles(pydantic.BaseModel):
    factor: int = 2
    code: int = 0
    infra: exca_like.MapInfra = exca_like.MapInfra(cluster="local", max_jobs=2)

    @infra.apply(item_uid=str)
    def run(self, items: Sequence[int]) -> Iterator[int]:
        for item in items:
            if item == 8:  # of 0 to 9 the second job's
                os._exit(self.code) if self.code else os.kill(os.getpid(), signal.SIGKILL)
            if item == 1:
                raise ValueError(item)
            yield self.factor * item


@pytest.mark.usefixtures("kills_one_at_a_time")
@pytest.mark.parametrize("code", [0, 3])
def test_a_map_of_which_a_job_died(tmp_path: Path, code: int) -> None:
    doubles = Doubles(code=code, infra={"folder": tmp_path})
    catalog = Catalog(tmp_path)
    with pytest.raises(ItemsFailedError):
        list(doubles.run(range(2, 10)))
    (entry,) = catalog
    job = str(entry.job)
    assert (entry.status, entry.values) == (("failed" if code else "lost"), 6) and entry.time
    how = r"exit code 3 \(job .*_1\)" if code else r"killed by SIGKILL, not by exca_like \(job .*_1\)"
    assert re.fullmatch(f"2 items without a result: {how}", entry.reason)
    assert [handle.job_id for handle in entry.handles()] == [job] and len(entry.jobs()) == 2 and entry.jobs()[0] == job
    assert entry.is_of_job(job) and entry.is_of_job(job.rpartition("_")[0]) and not entry.is_of_job(job[:-3])
    report = catalog.failures()
    assert [group.uids for group in report.groups] == ([(entry.uid,)] if code else [])
    assert ("1 was lost" in str(report)) == (not code)
    assert pruning.prune(tmp_path, status=("failed", "lost")) == [], "the other results are good"

    with pytest.raises(ItemsFailedError):
        list(doubles.run([1]))
    (entry,) = catalog
    assert entry.status == "failed" and entry.reason.startswith("1 of 9 items failed; 2 items without a result: ")
    assert len(catalog.failures()) == 1 + (code > 0)
    again = Doubles(code=code, infra={"folder": tmp_path, "cluster": None})
    list(again.run([9]))
    (entry,) = catalog
    assert entry.reason.startswith("1 of 9 items failed; 1 item without a result: "), "nobody has computed that one"
    with again.infra.cache_dict.write():
        again.infra.cache_dict["8"] = 16
    (entry,) = catalog
    assert entry.reason == "1 of 9 items failed", "nothing is missing now, whatever the dead claimed"


def test_a_map_whose_last_item_is_stored_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features(infra={"folder": tmp_path})
    list(features.process([1]))
    claims, look = claims_of(str(features.infra.uid_folder())), FolderClaims.look
    (claim,), _ = claims.claim(["2"], lambda free: [free])
    scanner = Scanner(str(tmp_path))
    (content,) = scanner.contents()
    with features.infra.cache_dict.write():
        features.infra.cache_dict["2"] = np.zeros(1)

    def look_before_the_end(self: FolderClaims) -> Any:
        found = look(self)
        claim.close()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(FolderClaims, "look", look_before_the_end)
        (entry,) = entries_of(content, str(tmp_path), scanner)
    assert entry.status == "running"
    (entry,) = entries_of(content, str(tmp_path), scanner)
    assert (entry.status, entry.values) == ("completed", 2)


def test_a_job_that_stored_something_before_it_died_did_so_also_for_who_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Features(infra={"folder": tmp_path})
    list(features.process([1]))
    (claim,), _ = claims_of(str(features.infra.uid_folder())).claim(["2", "3"], lambda free: [free])
    claim.hand_over({"cluster": "local", "job_id": "local-0123456789abcdef"})  # which nobody knows any more
    look = FolderClaims.look

    def look_after_the_end(self: FolderClaims) -> Any:
        if "2" not in features.infra.cache_dict:
            with features.infra.cache_dict.write():
                features.infra.cache_dict["2"] = np.zeros(1)
        return look(self)

    monkeypatch.setattr(FolderClaims, "look", look_after_the_end)
    (entry,) = Catalog(tmp_path).refresh()
    assert (entry.status, entry.values) == ("lost", 2) and entry.reason.startswith("1 item without a result")

    def be_removed(_: FolderClaims) -> Any:
        shutil.rmtree(features.infra.uid_folder())
        return None, []

    monkeypatch.setattr(FolderClaims, "look", be_removed)
    assert Catalog(tmp_path).refresh() == []


def test_jobs(tmp_path: Path) -> None:
    task = Train(seed=3, infra={"folder": tmp_path, "cluster": "local"})
    job = task.infra.job()
    catalog = Catalog(tmp_path)
    assert catalog[0].status in ("queued", "running", "completed") and catalog[0].job == job.job_id
    job.result()
    (entry,) = catalog
    assert entry.status == "completed" and entry.job == job.job_id and entry.handle().paths.stdout == job.paths.stdout


def test_a_job_that_left_nothing(tmp_path: Path) -> None:
    class Exits(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=tmp_path, cluster="local")

        @infra.apply
        def run(self) -> int:
            os._exit(3)

    job = Exits().infra.job()
    job.wait()
    (entry,) = Catalog(tmp_path)
    assert entry.status in ("failed", "lost") and entry.reason and entry.job == job.job_id
    assert [group.count for group in Catalog(tmp_path).failures().groups] == [1]


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_job_that_ends_while_it_is_looked_at_left_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_failed: bool
) -> None:
    task = Train(seed=3, infra={"folder": tmp_path})
    task.run()
    folder = task.infra.uid_folder()
    (journal,) = folder.glob("*-info.jsonl")
    hidden = journal.rename(journal.with_name(".not-yet"))
    if has_failed:
        cache: CacheDict[Any] = CacheDict(folder)
        with cache.write():
            meta = {"config": {"seed": 3}, "time": datetime.datetime.now(datetime.UTC).isoformat()}
            cache.put_failure(RESULT, Failure.of(ValueError("before")), meta=meta)
        assert [entry.status for entry in Catalog(tmp_path)] == ["failed"]
    (folder / JOB).write_text(f'{{"time": {time.time() + 60}}}')

    class Handle:
        job_id = "7"
        paths = JobPaths(str(tmp_path), "7")

        def ended(self) -> Ended:
            if hidden.exists():
                hidden.rename(journal)
            return Ended("completed")

    monkeypatch.setattr(listing, "handle_of", lambda _: Handle())
    assert [(entry.status, entry.values) for entry in Catalog(tmp_path).refresh()] == [("completed", 1)]


class Dies(pydantic.BaseModel):
    number: int
    group: Path | None = None
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local")

    @infra.apply
    def run(self) -> int:
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
            return len(bytearray(1_000_000_000))
        os.kill(os.getpid(), self.number)
        return 0


def test_a_signal_is_told_the_same_way_everywhere(tmp_path: Path) -> None:
    """Also before anybody has asked for the result, and thereby stored what went wrong."""
    sweep = exca_like.sweep(Dies(number=0, infra={"folder": tmp_path}), {"number": [signal.SIGSEGV]}).submit().wait()

    def check() -> None:
        (entry,) = Catalog(tmp_path)
        assert (entry.status, entry.reason) == ("failed", "killed by SIGSEGV")
        for report in (sweep.failures(), Catalog(tmp_path).failures()):
            assert [str(group) for group in report.groups] == ["1 × failed: killed by SIGSEGV"]
        assert sweep.status().rows[0].reason.endswith("killed by SIGSEGV")

    check()
    with pytest.raises(exca_like.errors.JobError, match="killed by SIGSEGV"):
        sweep.results()
    check()


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory."""
    group = Path("/sys/fs/cgroup/memory", f"exca-like-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory control groups (version 1) may be made here")
    (group / "memory.limit_in_bytes").write_text(str(200_000_000))
    yield group
    group.rmdir()


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_the_kernel_kills_for_memory(tmp_path: Path, small_group: Path) -> None:
    job = Dies(number=0, group=small_group, infra={"folder": tmp_path}).infra.job()
    with pytest.raises(exca_like.errors.JobMemoryError, match="probably killed by the kernel"):
        job.result()
    (entry,) = Catalog(tmp_path)
    assert entry.status == "failed" and entry.reason.startswith("out of memory: probably killed by the kernel")


def test_a_kill_of_the_kernel_accounts_for_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    kills, now = 3, 0.0
    monkeypatch.setattr(local_queue, "_kills_for_memory", lambda: kills)
    monkeypatch.setattr(local_queue.time, "monotonic", lambda: now)
    queue = local_queue._Queue({"jobs": []})

    def ends(number: int) -> str:
        return queue._end_by_signal(number)[0]

    assert ends(signal.SIGKILL) == "lost", "what was before does not count"
    kills += 1
    assert [ends(number) for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGKILL)] == [
        "failed",
        "out of memory",
        "lost",
    ]
    kills += 1
    queue._note_kills()
    now += 60
    assert ends(signal.SIGKILL) == "lost", "an hour later it was somebody else"


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_kills_by_others_are_no_failures(tmp_path: Path) -> None:
    dies = Dies(number=signal.SIGKILL, infra={"folder": tmp_path})
    dies.infra.job().wait()
    (entry,) = Catalog(tmp_path)
    assert (entry.status, entry.reason) == ("lost", "killed by SIGKILL, not by exca_like")
    assert str(dies.infra.status_detail()).startswith(f"lost (job {entry.job}): killed by SIGKILL, not by exca_like.")
    assert len(Catalog(tmp_path).filter(since="1h")) == 1 and not Catalog(tmp_path).filter(before="1h")
    assert re.search(r"Job local-\w+ was to compute it, and left no result \(lost: killed", dies.infra.explain().reason)
    sweep = exca_like.sweep(dies, {"number": [signal.SIGKILL, 0]})
    assert "1 was lost" in str(sweep.failures())
    with pytest.raises(
        NotCachedError,
        match=r"2 of 2 configs .* \(1 were lost, like .*: killed by SIGKILL, not by exca_like\): call submit\(\) again",
    ):
        sweep.results()


def test_damage_is_no_obstacle(tmp_path: Path) -> None:
    for seed in range(3):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    journals = sorted(tmp_path.rglob("*-info.jsonl"))
    journals[0].write_bytes(journals[0].read_bytes()[:-30])  # still being written
    journals[1].write_bytes(journals[1].read_bytes().replace(b"accuracy", b"accurate"))
    with pytest.warns(exca_like.errors.CorruptEntryWarning):
        assert sorted(entry.status for entry in Catalog(tmp_path)) == ["completed", "empty", "empty"]


def test_a_cache_dict_and_other_folders(tmp_path: Path) -> None:
    with CacheDict(tmp_path / "own").write() as cache:
        cache["a"], cache["b"] = 1, 2
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text.txt").touch()
    (entry,) = Catalog(tmp_path)
    assert (entry.uid, entry.values, entry.load()["b"]) == ("own", 2, 2)
    assert Catalog(tmp_path / "own")[0].root == tmp_path / "own"


def test_beside_writers(tmp_path: Path) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_catalog import Train, Features
        for number in range(40):
            Train(seed=number + 100 * int(sys.argv[1]), infra={{"folder": {str(tmp_path)!r}}}).run()
            list(Features(infra={{"folder": {str(tmp_path)!r}}}).process([10 + number + 100 * int(sys.argv[1])]))
    """
    writers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(number)]) for number in range(2)]
    catalog = Catalog(tmp_path)
    while any(writer.poll() is None for writer in writers):
        entries = list(catalog)
        assert all(entry.status in ("completed", "running", "empty") for entry in entries), entries
    assert [writer.returncode for writer in writers] == [0, 0]
    found = list(catalog)
    assert [entry.values for entry in found if entry.kind == "map"] == [80]
    assert len([entry for entry in found if entry.kind == "task" and entry.status == "completed"]) == 80


def test_words_of_tables() -> None:
    assert [tables.size(number) for number in (0, 999, 1500, 2.5e9)] == ["0 B", "999 B", "1.5 kB", "2.5 GB"]
    assert [tables.seconds(number) for number in (0.0001, 1.5, 125, 7800)] == [
        "0.1 ms",
        "1.5 s",
        "2 min 5 s",
        "2 h 10 min",
    ]
    assert [tables.ago(100 - age, 100) for age in (0, 59, 60, 3600, 86400 * 3)] == [
        "0 s ago",
        "59 s ago",
        "1 min ago",
        "1 h ago",
        "3 d ago",
    ]


def test_a_strict_filter_tells_names_that_there_are_not(filled: Path, tmp_path: Path) -> None:
    catalog = Catalog(filled)
    for asked, message in (
        (
            {"method": "Tain"},
            r"of a method 'Tain': did you mean test_catalog\.Train\.run\? There are test_catalog\.Train\.run, ",
        ),
        ({"method": "Train.run,2"}, r"did you mean test_catalog\.Train\.run,1\? There are "),
        ({"method": "zzz"}, r"'zzz': there are test_catalog\.add, test_catalog\.Features\.process, test_catalog\.Train\.run$"),
        ({"config": {"sed": 7}}, r"has a field 'sed': did you mean seed\? There are seed, a, b, size, "),
        ({"config": {"lr": 7}}, r"has a field 'lr': did you mean optim\.lr\? There are optim\.lr, a, b, seed, size$"),
        (
            {"config": {"cluster": "x"}},
            r"'cluster': did you mean infra\.cluster\? There are infra\.cluster, a, b, seed, size, optim\.lr$",
        ),
        ({"method": "Train.run", "config": {"optim.rl": 1}}, r"did you mean optim\.lr\? There are optim\.lr, seed, size$"),
    ):
        assert len(catalog.filter(**asked)) == 0
        with pytest.raises(ConfigValueError, match=message):
            catalog.filter(**asked, strict=True).refresh()
    for asked in ({"config": {"seed": 7}}, {"method": "Train.run", "status": "lost"}, {"config": {"optim": 1}}):
        assert len(catalog.filter(**asked, strict=True)) == 0
    assert len(Catalog(tmp_path).filter("Tain", config={"sed": 7}, strict=True)) == 0  # there is nothing yet
    with pytest.raises(ConfigValueError):
        list(catalog.filter("add", strict=True).filter(config={"seed": 1}, strict=True))


def test_a_method_may_be_given_with_its_version(filled: Path) -> None:
    catalog = Catalog(filled)
    for method in ("Train.run,1", "test_catalog.Train.run,1", "Train.run,*", "Train.*,1"):
        assert len(catalog.filter(method)) == 4, method
    assert len(catalog.filter("Train.run,10")) == len(catalog.filter("Train.run,")) == 0


def test_one_of_several_values(filled: Path) -> None:
    catalog = Catalog(filled)
    assert len(catalog.filter(config={"seed": OneOf((0, -1))})) == 2
    assert len(catalog.filter(config={"optim.lr": OneOf((0.5, "x"))})) == 1
    assert len(catalog.filter(config={"seed": OneOf(())})) == len(catalog.filter(config={"none": OneOf((None,))})) == 0


def test_entries_are_named_by_their_folders(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(filled)
    entry, call = catalog["optim.lr=0.5"], catalog["group/3/"]
    monkeypatch.chdir(filled.parent)
    (tmp_path / "link").symlink_to(filled)
    for wanted in (entry, call):
        name = f"{filled.name}/{wanted.uid}"
        for text in (
            wanted.uid,
            f"{wanted.uid}/",
            name,
            f"./{name}/",
            str(filled.parent / name),
            f"{tmp_path}/link/{wanted.uid}",
        ):
            assert catalog[text] == wanted, text
    assert catalog[str(call.folder)] == call  # the only one in it
    for wrong in (f"{filled.name}/{entry.uid[:-1]}", f"elsewhere/{entry.uid}", "/", ".", ""):
        with pytest.raises(NotCachedError):
            catalog[wrong]


def test_entries_are_named_by_their_jobs(tmp_path: Path) -> None:
    train = Train(seed=3, infra={"folder": tmp_path, "cluster": "local"})
    train.run()
    entry = Catalog(tmp_path)["seed=3"]
    assert entry.job == train.infra.job().job_id and Catalog(tmp_path)[entry.job] == entry
    with pytest.raises(NotCachedError):
        Catalog(tmp_path)[entry.job[:-1]]


def test_folders_that_are_not_asked_for_are_not_read(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = Scanner._read
    monkeypatch.setattr(Scanner, "_read", lambda scanner, path, known: read.append(path) or whole(scanner, path, known))
    assert len(Catalog(filled).filter("Train.run")) == 4
    assert any("Train.run" in path for path in read) and not [path for path in read if "Features.process" in path]
    read.clear()
    assert len(Catalog(filled).filter(version="1").filter("Features.*")) == 0
    assert not [path for path in read if "Train.run" in path or "Features.process" in path]


def test_slow_file_systems_are_read_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(50):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    (Catalog(tmp_path)["seed=30"].folder / "other").mkdir()
    threads: dict[str, set[int]] = {name: set() for name in ("_visit", "_yaml", "record", "where")}

    def slow(cls: type, name: str) -> None:
        whole = getattr(cls, name)

        def noting(*arguments: Any) -> Any:
            threads[name].add(threading.get_ident())
            time.sleep(0.001)
            return whole(*arguments)

        monkeypatch.setattr(cls, name, noting)

    def seen(entry: Entry) -> bool:
        threads["where"].add(threading.get_ident())
        return entry.values == 1

    def look(catalog: Catalog) -> tuple[object, ...]:
        return list(catalog), catalog.to_records(), list(catalog.filter(config={"size": 3}, where=seen))

    monkeypatch.setattr(overlapping, "WORK_S", math.inf)
    look(Catalog(tmp_path))  # after which files have been read
    expected = look(Catalog(tmp_path))
    monkeypatch.undo()
    for cls, name in ((Scanner, "_visit"), (Entry, "_yaml"), (Entry, "record")):
        slow(cls, name)
    catalog = Catalog(tmp_path)
    assert look(catalog) == expected == look(catalog)
    assert threads.pop("where") == {threading.get_ident()}, "functions of users need not be safe for threads"
    assert all(len(found) > 1 for found in threads.values())
    shutil.rmtree(catalog["seed=2"].folder)
    Train(seed=50, infra={"folder": tmp_path}).run()
    assert len(catalog) == 50 and len(catalog.filter(uid="*seed=3-*")) == 1


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("ended", "", "lost"),
        ("ended", "[]", "lost"),
        ("ended", '{"reason": 1, "detail": ""}', "lost"),
        ("job.json", "", "empty"),
        ("job.json", '{"cluster": "local", "logs": 5, "job_id": "x"}', "empty"),
        ("job.json", '{"cluster": "local", "logs": "l", "job_id": "x\\u0000"}', "empty"),
        ("job.json", '{"cluster": "local", "logs": "l", "job_id": "x", "time": 1e30}', "lost"),
    ],
)
def test_files_of_jobs_that_are_no_good(tmp_path: Path, name: str, content: str, status: str) -> None:
    Train(seed=1, infra={"folder": tmp_path}).run()
    train = Train(seed=2, infra={"folder": tmp_path, "cluster": "local"})
    train.run()
    entry = Catalog(tmp_path)["seed=2"]
    for path in entry.folder.glob("*.jsonl"):
        path.unlink()
    handle = entry.handle()
    assert handle is not None
    (entry.folder / name if name == "job.json" else handle.paths.ended).write_text(content)
    catalog = Catalog(tmp_path)
    assert [entry.status for entry in catalog] == ["completed", status]
    assert catalog.to_records() and str(catalog) and catalog.failures() is not None
    assert train.infra.status() == "not submitted" and train.run() == {"accuracy": 0.2}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"#meta": {"config": {}, "time": "soon"}}, "completed"),
        ({"#meta": {"config": {}, "time": "2026-11-29T10:00:00", "duration": "long", "job": 3}}, "completed"),
        ({"#data": [[1]]}, None),
        ({"#type": "Failure", "message": None}, None),
    ],
)
def test_lines_of_other_versions_cost_only_their_entry(tmp_path: Path, change: dict[str, Any], status: str | None) -> None:
    for seed in (1, 2):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    (journal,) = Catalog(tmp_path)["seed=1"].folder.glob("*.jsonl")
    record = orjson.loads(journal.read_bytes())
    del record["#sum"]
    journal.write_bytes(seal(record | change))
    catalog = Catalog(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert [entry.status for entry in catalog] == [status] * (status is not None) + ["completed"]
        assert str(catalog) and len(catalog.filter(since="1d")) == 1
    assert status is not None or "Error" in str(said[0].message)


def test_the_longest_uids_are_shown_whole(tmp_path: Path) -> None:
    for seed in (10**30, 10**31):
        Train(seed=seed, size=10**40, optim={"lr": 1 / 3}, infra={"folder": tmp_path}).run()
    entries = list(Catalog(tmp_path))
    assert all(entry.uid in str(Catalog(tmp_path)) for entry in entries) and len(entries[0].uid) > 80


def test_usage_of_methods_that_share_a_folder(filled: Path) -> None:
    usage = Catalog(filled).disk_usage()
    assert usage["group"].files > 2 and usage["group"].size >= sum(
        path.stat().st_blocks * 512 for path in (filled / "group").rglob("*") if path.is_file()
    )


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
def test_what_is_empty_as_it_was_damaged_says_so(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        Train(seed=seed, infra={"folder": tmp_path}).run()
    catalog = Catalog(tmp_path)
    paths = [next(catalog[f"seed={seed}"].folder.glob("*-info.jsonl")) for seed in (1, 2)]
    os.truncate(paths[0], 100)
    paths[1].write_bytes(paths[1].read_bytes().replace(b"accuracy", b"accurate"))
    damaged = catalog.filter(status="empty")
    assert {entry.reason for entry in damaged} == {"what was stored is damaged: `exca-like verify` tells"} and len(damaged) == 2
    maintenance.verify(tmp_path, repair=True)
    assert {entry.reason for entry in damaged} == {""} and catalog["seed=3"].status == "completed"
    Train(seed=3, infra={"folder": tmp_path}).infra.clear_job()
    assert (catalog["seed=3"].status, catalog["seed=3"].reason) == ("empty", "")  # a deletion is no damage
    paths[0].touch()
    assert catalog["seed=1"].reason == ""
    Train(seed=1, infra={"folder": tmp_path}).run()
    assert (catalog["seed=1"].status, catalog["seed=1"].reason) == ("completed", "")
