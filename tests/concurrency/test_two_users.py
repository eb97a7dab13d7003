"""Two users of one group, whose umask gives others nothing, share folders with ``permissions``."""

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca_like
from exca_like import hits, maintenance, sharing
from exca_like.catalog import Catalog
from exca_like.pruning import remove

ANN, BEN, TEAM = 23001, 23002, 23003

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")


class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca_like.TaskInfra = exca_like.TaskInfra(permissions=0o660)

    @infra.apply
    def run(self) -> int:
        return os.geteuid()


class Items(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra(permissions=0o660)

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[bytes]:
        for item in items:
            yield bytes([item]) * 2000


@pytest.fixture
def team() -> Iterator[Path]:
    """A folder of the team, in which new files belong to it."""
    with tempfile.TemporaryDirectory() as folder:  # what is imported late, others may have no right to read
        all_of(Path(folder))
    path = Path(tempfile.mkdtemp(prefix="exca-like-team-"))
    os.chown(path, 0, TEAM)
    path.chmod(0o2770)
    yield path
    shutil.rmtree(path)


def all_of(folder: Path) -> None:
    work(folder / "cache", 0)
    look_after(folder / "cache")
    sharing.push(folder / "cache", folder / "place")
    sharing.pull(folder / "place", folder / "here")


def as_user(user: int, function: Callable[[], object]) -> None:
    child = os.fork()
    if not child:
        try:
            os.setgroups([TEAM])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o077)
            function()
            hits.write()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def work(folder: Path, x: int) -> None:
    infra = {"folder": folder, "permissions": 0o660}
    assert Task(x=x, infra=infra).run() == os.geteuid()
    first = Task(x=0, infra=infra).run()
    assert Task(x=0, infra=infra).run() == first  # a hit
    assert len(list(Items(infra=infra).process([0, x]))) == 2


def look_after(cache: Path) -> None:
    assert maintenance.verify(cache).is_clean
    assert (f"{__name__}.Items.process", True) in {(entry.method, entry.values > 0) for entry in Catalog(cache)}
    maintenance.compact(cache)
    for entry in Catalog(cache):
        entry.pin()
        entry.unpin()
    assert not any(one.problem for one in remove(Catalog(cache).filter("Task.run", config={"x": 2}), dry_run=False))
    journal = next(cache.glob("*Items*/default/*-info.jsonl"))
    with journal.open("a") as file:
        file.write('{"#key": half\n')
    with pytest.warns(exca_like.errors.CorruptEntryWarning, match="is damaged"):
        assert maintenance.verify(cache, repair=True).is_clean


def check_modes(folder: Path) -> None:
    """All of a folder belongs to the team, which may read and write it."""
    for path in folder.rglob("*"):
        assert (path.stat().st_gid, path.stat().st_mode & 0o060) == (TEAM, 0o060), path


def test_a_cache(team: Path) -> None:
    cache = team / "cache"
    as_user(ANN, lambda: work(cache, 0))
    as_user(BEN, lambda: work(cache, 1))
    as_user(ANN, lambda: work(cache, 2))
    as_user(BEN, lambda: look_after(cache))
    assert not Catalog(cache).filter("Task.run", config={"x": 2})
    as_user(ANN, lambda: work(cache, 3))
    check_modes(cache)


def test_what_is_hidden_from_others(team: Path) -> None:
    """A journal and a folder that others must not read are told, and do not keep them from all else."""
    cache = team / "cache"
    as_user(ANN, lambda: work(cache, 1))
    journal = next(cache.glob("*Task.run*/x=0*/*-info.jsonl"))
    journal.chmod(0o600)
    folder = next(cache.glob("*Items*/default"))
    folder.chmod(0o700)

    def look() -> None:
        with pytest.warns(UserWarning, match="2 folders can't be read, like .*what is in there is not listed"):
            assert [entry.uid.partition("/")[2] for entry in Catalog(cache)] == ["default"]
        report = maintenance.verify(cache)
        assert [(problem.kind, problem.path) for problem in report.problems] == [
            ("unreadable", folder),
            ("unreadable", journal.parent),
        ]
        assert report.entries == 1
        unread = pytest.raises(exca_like.errors.TransferError, match=f"can't copy {journal}: Permission denied")
        with unread, pytest.warns(UserWarning, match="1 folder can't be read, like .*Items.*counts as not there"):
            sharing.pull(cache, team / "taken")

    as_user(BEN, look)


def test_logs_that_are_hidden_from_others(team: Path) -> None:
    """What is known of an entry is told, and others are; nobody computes or removes what may be running."""
    cache, logs = team / "cache", team / "logs"
    job_id = "local-0123456789abcdef_0"
    record = {"cluster": "local", "job_id": job_id, "logs": f"{logs}/%j", "time": 1e9}

    def submit() -> None:
        work(cache, 1)
        (journal,) = cache.glob("*Task.run*/default/*-info.jsonl")
        journal.unlink()
        (journal.parent / "job.json").write_text(json.dumps(record))
        (journal.parent / "job.json").chmod(0o660)
        for name in (job_id, "local-0123456789abcdef.queue"):
            (logs / name).mkdir(parents=True)
        logs.chmod(0o700)

    as_user(ANN, submit)

    def look() -> None:
        catalog = Catalog(cache)
        assert [entry.status for entry in catalog] == ["completed", "running", "completed"]
        entry = catalog.filter(status="running")[0]
        assert entry.job == job_id and "can't be told" in entry.reason and "Permission denied" in entry.reason
        assert catalog.to_records() and not catalog.failures()
        assert [bool(one.problem) for one in remove(catalog.filter(status="running"), dry_run=False)] == [True]
        with pytest.raises(exca_like.errors.CacheFolderError, match="Whoever submitted it can give you the right"):
            Task(infra={"folder": cache, "permissions": 0o660}).infra.status()

    as_user(BEN, look)


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
@pytest.mark.parametrize("mode", [0o000, 0o600])
@pytest.mark.parametrize("hidden", ["config.yaml", "uid.yaml", "full-uid.yaml", "*-info.jsonl", "data/*", "data"])
def test_a_repair_keeps_what_is_hidden_from_others(team: Path, hidden: str, mode: int) -> None:
    """It is told, and so is what is wrong elsewhere, which is repaired."""
    cache = team / "cache"
    as_user(ANN, lambda: work(cache, 1))
    (path,) = cache.glob(f"*Items*/default/{hidden}")
    before = path.stat().st_mode
    path.chmod(mode)
    (torn,) = cache.glob("*Task.run*/x=0*/*-info.jsonl")
    torn.write_bytes(torn.read_bytes()[:-10])

    def look() -> None:
        found = maintenance.verify(cache)
        report = maintenance.verify(cache, repair=True)
        assert {(problem.kind, problem.path) for problem in report.repaired} == {("torn", torn)}
        assert {problem.kind for problem in report.problems} == {"unreadable"} and "Permission denied" in str(report)
        assert [problem for problem in found.problems if problem.path != torn] == report.problems

    as_user(BEN, look)
    path.chmod(before)
    report = maintenance.verify(cache)
    assert report.is_clean and report.entries == 3  # two items, and the task that was not damaged


def test_a_place(team: Path) -> None:
    for user in (ANN, BEN):
        own = team / str(user)
        as_user(user, lambda own=own, user=user: Task(x=user, infra={"folder": own}).run())
        as_user(
            user, lambda own=own: list(Items(infra={"folder": own, "permissions": None}).process([1, own.name == str(ANN)]))
        )
    for user, other in ((ANN, BEN), (BEN, ANN)):

        def give_and_take(user: int = user, other: int = other) -> None:
            done = sharing.push(team / str(user), team / "place", permissions=0o660)
            assert done.added and done.is_complete
            for one in (user, other) if user == BEN else (user,):
                sharing.pull(team / "place", team / f"{user}-all", permissions=0o660)
                assert Task(x=one, infra={"folder": team / f"{user}-all", "mode": "read-only"}).run() == one

        as_user(user, give_and_take)
    check_modes(team / "place")
