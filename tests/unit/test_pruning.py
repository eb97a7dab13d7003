"""Pins, removal of entries, and pruning."""

import datetime
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pydantic
import pytest

import exca_like
from exca_like import files, maintenance, pruning
from exca_like.cachedict import CacheDict
from exca_like.catalog import Catalog
from exca_like.entries import claims_of
from exca_like.errors import CacheFolderError, CacheUsageError, ConfigTypeError, ConfigValueError, NotCachedError
from exca_like.pruning import prune, remove

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}


class Task(pydantic.BaseModel):
    seed: int = 0
    size: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1", code="ignore")

    @infra.apply
    def run(self) -> np.ndarray:
        if self.seed < 0:
            raise ValueError("seed < 0")
        if "GUARD" in os.environ:  # nobody else computes it now
            os.mkdir(guard := f"{os.environ['GUARD']}/{self.seed}")
            time.sleep(0.001)
            os.rmdir(guard)
        return np.full(self.size, self.seed)


class Items(pydantic.BaseModel):
    size: int = 10
    infra: exca_like.MapInfra = exca_like.MapInfra(code="ignore")

    @infra.apply(item_uid=str)
    def process(self, items: list[int]):
        for item in items:
            if item < 0:
                raise ValueError("item < 0")
            yield np.full(self.size, item)


def double(x: int) -> int:
    return 2 * x


def task(folder: Path, seed: int = 0, size: int = 0) -> Task:
    return Task(seed=seed, size=size, infra={"folder": folder})


def uids(folder: Path) -> list[str]:
    return [entry.uid.rpartition("/")[2] for entry in Catalog(folder)]


def hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob("**/.removed-*"))


def problems(removals) -> list[str | None]:
    return [one.problem for one in removals]


# pins


def test_a_folder_is_pinned_and_unpinned(tmp_path: Path) -> None:
    task(tmp_path).run()
    list(Items(infra={"folder": tmp_path}).process([1]))
    catalog = Catalog(tmp_path)
    for part in ("Task.run", "Items.process"):
        entry = catalog[part]
        entry.pin(), entry.pin()
        assert (entry.folder / "pinned").read_bytes() == b""
        assert catalog[part].is_pinned and [e.uid for e in catalog.filter(pinned=True)] == [entry.uid]
        assert problems(remove([entry], dry_run=False)) == ["it is pinned"]
        entry.unpin(), entry.unpin()
        assert not catalog[part].is_pinned and not (entry.folder / "pinned").exists()
    assert "pinned, completed" not in str(catalog)
    catalog["Task.run"].pin()
    assert "pinned, completed" in str(catalog)


def test_one_of_many_calls_is_pinned(tmp_path: Path) -> None:
    f = exca_like.memo(folder=tmp_path)(double)
    assert [f(x) for x in range(4)] == [0, 2, 4, 6]
    catalog = Catalog(tmp_path)
    entries = list(catalog)
    for entry in entries[:2]:  # the catalog sees each change of the file
        entry.pin()
        assert catalog[entry.uid].is_pinned
    entries[1].pin()
    assert [entry.is_pinned for entry in catalog] == [True, True, False, False]
    entries[0].unpin(), entries[3].unpin()
    assert [entry.is_pinned for entry in catalog] == [False, True, False, False]
    assert problems(remove(entries, dry_run=False)) == [None, "it is pinned", None, None]
    assert [entry.key for entry in catalog] == [entries[1].key]
    with pytest.raises(NotCachedError, match="is gone"):
        entries[0].pin()
    entries[1].unpin()
    assert not (entries[1].folder / "pinned").exists()
    (entries[1].folder / "pinned").touch()  # by hand: all of the folder
    assert [entry.is_pinned for entry in catalog] == [True]
    entries[1].pin()
    with pytest.raises(CacheUsageError, match="all calls in .* remove .*pinned"):
        entries[1].unpin()
    (entries[1].folder / "pinned").write_text("keep this\n")
    assert [entry.is_pinned for entry in catalog] == [True]


def test_what_is_pinned_by_its_function(tmp_path: Path) -> None:
    exca_like.memo(folder=tmp_path, pin=True)(double)(1)
    (entry,) = Catalog(tmp_path)
    with pytest.raises(CacheUsageError, match=r"memo\(pin=True\).*forget"):
        entry.unpin()
    assert problems(remove([entry], dry_run=False)) == ["it is pinned"]
    assert prune(tmp_path, keep_last=0, dry_run=False) == []


def test_what_is_gone_is_not_pinned(tmp_path: Path) -> None:
    task(tmp_path).run()
    (entry,) = Catalog(tmp_path)
    assert problems(remove([entry], dry_run=False)) == [None]
    with pytest.raises(NotCachedError, match="is gone"):
        entry.pin()
    assert problems(remove([entry], dry_run=False)) == ["it is gone already"]


def test_many_pin_at_once(tmp_path: Path) -> None:
    f = exca_like.memo(folder=tmp_path)(double)
    for x in range(8):
        f(x)
    entries = list(Catalog(tmp_path))
    processes = [multiprocessing.get_context("fork").Process(target=entry.pin) for entry in entries]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(entry.is_pinned for entry in Catalog(tmp_path))
    threads = [threading.Thread(target=entry.unpin) for entry in entries[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.is_pinned for entry in Catalog(tmp_path)] == [True] + 7 * [False]


# removal


def test_a_plan_removes_nothing(tmp_path: Path) -> None:
    for seed in range(3):
        task(tmp_path, seed).run()
    (one,) = remove([Catalog(tmp_path)["seed=1"]])
    assert (one.reason, one.problem) == ("chosen", None) and one.size > 0
    assert len(prune(tmp_path, keep_last=1)) == 2
    assert len(Catalog(tmp_path)) == 3


def test_all_kinds_are_removed(tmp_path: Path) -> None:
    task(tmp_path, size=100_000).run()
    items = Items(infra={"folder": tmp_path})
    list(items.process([1, 2]))
    f = exca_like.memo(folder=tmp_path)(double)
    g = exca_like.memo(folder=tmp_path, path="group/{x}/{uid}")(double)
    assert (f(1), f(2), g(3)) == (2, 4, 6)
    catalog = Catalog(tmp_path)
    done = remove([*catalog, *catalog], dry_run=False)
    assert problems(done) == [None] * 5 and list(catalog) == [] and not hidden(tmp_path)
    assert not list(tmp_path.glob("**/*.jsonl"))
    f = exca_like.memo(folder=tmp_path)(double)  # the other one may know its results still
    assert (f.cached(1), f(1)) == (False, 2)
    assert task(tmp_path, size=100_000).run().sum() == 0
    assert [array[0] for array in items.process([1, 2, 3])] == [1, 2, 3]
    assert len(catalog) == 3


def test_objects_that_know_the_folder_go_on(tmp_path: Path) -> None:
    one, items, f = task(tmp_path, 3, 4), Items(infra={"folder": tmp_path}), exca_like.memo(folder=tmp_path)(double)
    for _ in range(4):
        assert one.run().tolist() == [3] * 4 and f(5) == 10
        assert [array[0] for array in items.process([1, 2])] == [1, 2]
        assert not any(problems(remove(Catalog(tmp_path), dry_run=False)))
    assert uids(tmp_path) == []
    assert [array[0] for array in items.process([1, 2, 3])] == [1, 2, 3] and f(6) == 12
    assert len(Catalog(tmp_path)) == 2


def test_a_reader_keeps_its_mapped_array(tmp_path: Path) -> None:
    array = task(tmp_path, 3, 1_000_000).run()
    array = task(tmp_path, 3, 1_000_000).run()
    (values,) = Items(size=1_000_000, infra={"folder": tmp_path}).process([7])
    (values,) = Items(size=1_000_000, infra={"folder": tmp_path}).process([7])
    assert problems(remove(Catalog(tmp_path), dry_run=False)) == [None, None]
    assert not list(tmp_path.glob("**/data"))
    assert (array == 3).all() and (values == 7).all()


def test_what_has_changed_stays(tmp_path: Path) -> None:
    task(tmp_path).run()
    items = Items(infra={"folder": tmp_path})
    list(items.process([1]))
    f = exca_like.memo(folder=tmp_path)(double)
    f(1)
    entries = list(Catalog(tmp_path))
    Task(infra={"folder": tmp_path, "mode": "force"}).run()
    list(items.process([2]))
    f.forget(1), f(1)
    assert problems(remove(entries, dry_run=False)) == ["it has changed since it was looked at"] * 3
    assert len(Catalog(tmp_path)) == 3


def test_what_is_pinned_after_the_plan_stays(tmp_path: Path) -> None:
    task(tmp_path).run()
    f = exca_like.memo(folder=tmp_path)(double)
    f(1), f(2)
    entries = list(Catalog(tmp_path))
    for entry in entries[:2]:
        entry.pin()
    assert problems(remove(entries, dry_run=False)) == ["it is pinned", "it is pinned", None]


HOLDER = """
import sys
from exca_like.entries import claims_of
for one in sys.argv[1:]:
    folder, key = one.split("::")
    claims_of(folder).claim([key], lambda free: [free])
print(1, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["map", "memo"])
def test_what_a_lost_machine_may_be_computing_says_how_to_remove_it(tmp_path: Path, kind: str) -> None:
    if kind == "map":
        list(Items(infra={"folder": tmp_path}).process([1]))
    else:
        exca_like.memo(folder=tmp_path)(double)(1)
    (entry,) = Catalog(tmp_path)
    command = [sys.executable, "-c", HOLDER, f"{entry.folder}::{entry.key or 'other'}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline()
        child.kill()
    (claim,) = entry.folder.glob("*.claim")
    head = orjson.loads(claim.read_bytes()[:1024]) | {"system": "another", "host": "faraway"}
    with claim.open("r+b") as stream:
        stream.write(orjson.dumps(head).ljust(1023) + b"\n")
    os.utime(claim, (0, 0))
    (entry,) = Catalog(tmp_path)
    (found,) = remove(entry, dry_run=False)
    assert " on faraway, " in found.problem and f"or if that is gone remove {claim})" in found.problem
    claim.unlink()
    assert [one.problem for one in remove(list(Catalog(tmp_path)), dry_run=False)] == [None]


@pytest.mark.parametrize("is_mine", [True, False])
def test_what_is_being_computed_stays(tmp_path: Path, is_mine: bool) -> None:
    task(tmp_path).run()
    list(Items(infra={"folder": tmp_path}).process([1]))
    f = exca_like.memo(folder=tmp_path)(double)
    f(1), f(2)
    entries = list(Catalog(tmp_path))
    keys = {"task": "result", "map": "other"}
    wanted = {entry.folder: keys.get(entry.kind, entry.key) for entry in entries}  # of the memo: the last one
    if is_mine:
        claims = [claims_of(str(folder)).claim([key], lambda free: [free])[0][0] for folder, key in wanted.items()]
    else:
        command = [sys.executable, "-c", HOLDER, *(f"{folder}::{key}" for folder, key in wanted.items())]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout.readline()
    found = remove(entries, dry_run=False)
    for one in found:
        is_held = wanted[one.entry.folder] in (keys.get(one.entry.kind), one.entry.key)
        assert ("it is being computed" in (one.problem or "")) == is_held
    assert sum(one.problem is None for one in found) == 1
    if is_mine:
        for claim in claims:
            claim.close()
    else:
        other.kill(), other.communicate()  # its claims are left behind, and count for nothing
    entries = list(Catalog(tmp_path))
    assert problems(remove(entries, dry_run=False)) == [None] * 3


def test_running_and_queued_tasks_stay(tmp_path: Path) -> None:
    code = (
        "import sys, time, pydantic, exca_like\n"
        "class Slow(pydantic.BaseModel):\n"
        "    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster='local')\n"
        "    @infra.apply\n"
        "    def run(self) -> int:\n"
        "        time.sleep(60)\n"
        "        return 1\n"
        "Slow(infra={'folder': sys.argv[1]}).infra.job()\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    (entry,) = Catalog(tmp_path)
    try:
        assert entry.status in ("queued", "running")
        assert problems(remove([entry], dry_run=False)) == [f"it is {entry.status}"]
        assert prune(tmp_path, keep_last=0, dry_run=False) == []
    finally:
        entry.handle().cancel()
    deadline = time.monotonic() + 30
    while (now := Catalog(tmp_path)[0]).status in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert problems(remove([now], dry_run=False)) == [None] and uids(tmp_path) == []


def test_a_map_that_is_written_to_stays(tmp_path: Path) -> None:
    list(Items(infra={"folder": tmp_path}).process([1]))
    (entry,) = Catalog(tmp_path)
    with CacheDict(entry.folder).write() as cache:
        del cache["1"]
        cache["1"] = 1
        assert "may be writing" in remove(Catalog(tmp_path), dry_run=False)[0].problem
    assert problems(remove(Catalog(tmp_path), dry_run=False)) == [None]


def test_a_folder_with_others_below_it_stays(tmp_path: Path) -> None:
    with CacheDict(tmp_path / "a.b,1").write() as cache:
        cache["x"] = 1
    with CacheDict(tmp_path / "a.b,1" / "below").write() as cache:
        cache["x"] = 1
    catalog = Catalog(tmp_path)
    assert problems(remove([catalog[0]], dry_run=False)) == ["other entries are stored below its folder"]
    assert problems(remove([catalog[1]], dry_run=False)) == [None]
    assert "cache root itself" in remove(Catalog(tmp_path / "a.b,1"), dry_run=False)[0].problem
    assert problems(remove(catalog, dry_run=False)) == [None]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    task(tmp_path).run()
    (entry,) = Catalog(tmp_path)
    entry.folder.parent.chmod(0o555)
    try:
        assert "can't be removed" in remove([entry], dry_run=False)[0].problem
    finally:
        entry.folder.parent.chmod(0o755)
    assert task(tmp_path).infra.status() == "completed"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task(tmp_path).run()
    exca_like.memo(folder=tmp_path)(double)(1)
    entries = list(Catalog(tmp_path))

    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", without)
    with pytest.warns(UserWarning, match="has no locks"):
        found = remove(entries, dry_run=False)
    assert all("has no locks" in (one.problem or "") for one in found) and len(Catalog(tmp_path)) == 2


# pruning


def test_conditions(tmp_path: Path) -> None:
    for wrong, text in (
        ({}, "give older_than, max_size, keep_last or status"),
        ({"max_size": "much"}, "is no size"),
        ({"max_size": "-5GB"}, "is no size"),
        ({"keep_last": -1}, "negative"),
        ({"older_than": "soon"}, "older_than='soon'"),
        ({"policy": "newest", "keep_last": 1}, "policy='newest'"),
        ({"status": "fine"}, "status='fine'"),
    ):
        with pytest.raises(ConfigValueError, match=text):
            prune(tmp_path, **wrong)
    with pytest.raises(ConfigValueError, match="max_size"):
        prune(tmp_path, max_size=-1)
    with pytest.raises(CacheFolderError):
        prune(tmp_path / "none", keep_last=1)
    assert prune(tmp_path, keep_last=1, dry_run=False) == []


@pytest.mark.parametrize(
    ("text", "number"), [("50GB", 50e9), ("1.5 TB", 1.5e12), ("2KiB", 2048), ("7", 7), ("7 b", 7), ("3M", 3e6), (9, 9)]
)
def test_sizes(text, number) -> None:
    assert pruning.bytes_of(text) == number


def fill(folder: Path) -> None:
    for seed in (0, 1, 2, 3):
        task(folder, seed, 1000 * (4 - seed)).run()
        time.sleep(0.01)
    with pytest.raises(ValueError):
        task(folder, -1).run()


def seeds(removals) -> list[int]:
    return [one.entry.config["seed"] for one in removals]


def test_what_is_chosen(tmp_path: Path) -> None:
    fill(tmp_path)
    total = sum(entry.size for entry in Catalog(tmp_path))
    assert seeds(prune(tmp_path, keep_last=2)) == [0, 1, -1], "an error takes no result's place"
    assert seeds(prune(tmp_path, keep_last=0)) == [0, 1, 2, 3, -1]
    assert seeds(prune(tmp_path, status="failed")) == [-1]
    assert prune(tmp_path, status="failed", keep_last=1) == []
    assert seeds(prune(tmp_path, status=["failed", "completed"], keep_last=4)) == [0]
    assert seeds(prune(tmp_path, max_size=total - 1)) == [0]
    assert seeds(prune(tmp_path, max_size=total - 40_000)) == [0, 1]
    assert seeds(prune(tmp_path, max_size=total - 1, keep_last=3, policy="size")) == [0]
    assert seeds(prune(Catalog(tmp_path).filter(config={"seed": 3}), max_size="1kB")) == [3]
    assert seeds(prune(tmp_path, max_size=0)) == [0, 1, 2, 3, -1]
    assert prune(tmp_path, max_size=total) == [] == prune(tmp_path, older_than="1h")
    assert seeds(prune(tmp_path, older_than=datetime.timedelta(0), keep_last=1)) == [0, 1, 2, -1]
    middle = Catalog(tmp_path)["seed=2"].time
    (first, *_), found = prune(tmp_path, older_than=middle), prune(tmp_path, older_than=middle, max_size="20kB", policy="size")
    assert first.reason.startswith("stored before 2") and found[-1].reason == "largest of more than 20 kB"
    assert seeds(found) == [0, 1, 2]
    Catalog(tmp_path).filter(config={"seed": 0})[0].pin()
    assert seeds(prune(tmp_path, keep_last=2)) == [1, -1]
    assert problems(prune(tmp_path, keep_last=2, dry_run=False)) == [None, None]
    assert sorted(seeds(pruning.remove(Catalog(tmp_path)))) == [0, 2, 3]


def test_what_is_to_be_removed_is_one_entry_or_several(tmp_path: Path) -> None:
    fill(tmp_path)
    catalog = Catalog(tmp_path)
    assert [one.entry.uid for one in remove(catalog[0])] == [catalog[0].uid]
    for wrong in ("seed=0", ["seed=0"]):
        with pytest.raises(ConfigTypeError, match=r"takes entries .* not 'seed=0': Catalog\(folder\)\.named\(\['seed=0'\]\)"):
            remove(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigTypeError, match="takes entries of a catalog, not 7$"):
        remove(7)  # type: ignore[arg-type]


def test_policies(tmp_path: Path) -> None:
    fill(tmp_path)
    now = time.time()
    order = {0: 3, 1: 1, 2: 2, 3: 0}
    for entry in Catalog(tmp_path).filter(status="completed"):
        for path in entry.folder.glob("*.jsonl"):
            os.utime(path, (now + 100 + order[entry.config["seed"]], path.stat().st_mtime))
    found = prune(Catalog(tmp_path).filter(status="completed"), max_size=0, policy="lru")
    assert seeds(found) == [3, 1, 2, 0] and found[0].reason == "lru of more than 0 B"
    assert seeds(prune(Catalog(tmp_path).filter(status="completed"), max_size=0, policy="size")) == [0, 1, 2, 3]


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    task(tmp_path).run()
    method = Catalog(tmp_path)[0].folder.parent
    for name in ("old", "new"):
        (method / f".removed-{name}" / "data").mkdir(parents=True)
        (method / f".removed-{name}" / "uid.yaml").write_text("seed: 3")
    assert uids(tmp_path) == ["default"]
    assert maintenance.verify(tmp_path).folders == 1 and maintenance.migrate_exca(tmp_path) == []
    (tmp_path / ".tmp-shared" / "there").mkdir(parents=True)
    stale = time.time() + 2 * files.STALE_S[".removed-"]
    prune(tmp_path, older_than="1d")
    assert len(hidden(tmp_path)) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: stale)
        os.utime(method / ".removed-new", (stale, stale))
        prune(tmp_path, older_than="1d", dry_run=False)
        assert hidden(tmp_path) == [method / ".removed-new"] and (tmp_path / ".tmp-shared").exists()
        stale += files.STALE_S[".tmp-"]
        prune(tmp_path, older_than="1000d", dry_run=False)
    assert not hidden(tmp_path) and not (tmp_path / ".tmp-shared").exists() and uids(tmp_path) == ["default"]


# beside others

WORKER = """
import collections, random, sys, time
import numpy as np
from test_pruning import Items, double, task
import exca_like
from exca_like.catalog import Catalog
from exca_like import maintenance
from exca_like.pruning import prune
what, folder, seconds, number = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
random.seed(number)
items, f = Items(size=3000, infra={"folder": folder}), exca_like.memo(folder=folder)(double)
tasks = [task(folder, seed, 3000) for seed in range(6)]
end, rounds, removed, problems = time.monotonic() + seconds, 0, collections.Counter(), collections.Counter()
print("ready", flush=True)
while time.monotonic() < end:
    rounds += 1
    if what == "prune":
        done = prune(folder, keep_last=0, dry_run=False)
        removed.update(one.entry.kind for one in done if one.problem is None)
        problems.update((one.entry.kind, one.problem.partition(",")[0]) for one in done if one.problem is not None)
        assert not any((one.problem or "").startswith("it can't") for one in done), done
        continue
    if what == "compact":
        maintenance.compact(folder)
        continue
    seed = random.randrange(6)
    one = random.choice([tasks[seed], task(folder, seed, 3000)])
    if what == "write" or one.infra.status() == "completed":
        array = one.run()
        assert array.shape == (3000,) and (array == seed).all()
    wanted = random.sample(range(12), 3)
    found = random.choice([items, Items(size=3000, infra={"folder": folder})]).process(wanted)
    assert [(array.shape, set(array.tolist())) for array in found] == [((3000,), {number}) for number in wanted]
    assert f(seed) == 2 * seed
    if what == "read":
        for entry in Catalog(folder):
            entry.record(), str(entry)
assert rounds > 3, rounds
print(what, rounds, dict(removed), flush=True)
if what == "prune":
    assert min(removed[kind] for kind in ("task", "map", "memo")) > 0, (removed, problems)
"""


def start(folder: Path, what: str, seconds: float, number: int) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-c", WORKER, what, str(folder), str(seconds), str(number)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | {"GUARD": str(folder.parent)}
    )


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_beside_writers_and_readers(tmp_path: Path, seconds: float) -> None:
    """Nobody raises, nothing is computed by two at once, and what is pinned or was stored since is there."""
    tmp_path = tmp_path / "cache"
    kept = [task(tmp_path, 100 + number, 3000) for number in range(3)]
    f = exca_like.memo(folder=tmp_path)(double)
    f(1000)
    for one in kept:
        one.run()
    for entry in Catalog(tmp_path):
        entry.pin()
    times = {entry.uid: entry.time for entry in Catalog(tmp_path)}
    workers = [
        start(tmp_path, what, seconds, number) for number, what in enumerate([*["write", "read"] * 4, "prune", "compact"])
    ]
    ends = [worker.communicate(timeout=120 + seconds) for worker in workers]
    for worker, (_, err) in zip(workers, ends, strict=True):
        assert worker.returncode == 0, err
    print("; ".join(out.splitlines()[-1] for out, _ in ends))
    assert maintenance.verify(tmp_path).is_clean and not hidden(tmp_path)
    assert {entry.uid: entry.time for entry in Catalog(tmp_path) if entry.is_pinned} == times
    for entry in Catalog(tmp_path).filter("Task.run"):
        config = entry.config
        assert entry.status == "completed" and (entry.load() == config["seed"]).all()


KILLED = """
import sys, time
from test_pruning import *
folder = sys.argv[1]
print("ready", flush=True)
while True:
    remove(Catalog(folder), dry_run=False)
    for seed in range(3):
        task(folder, seed, 5000).run()
    list(Items(infra={"folder": folder}).process(range(5)))
    double_ = exca_like.memo(folder=folder)(double)
    double_(1), double_(2)
"""


def test_killed_in_the_middle(tmp_path: Path) -> None:
    for number in range(6):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, env=ENVIRONMENT)
        process.stdout.readline()
        time.sleep(0.02 + 0.021 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for seed in range(3):
            assert (task(tmp_path, seed, 5000).run() == seed).all()
        assert [array[0] for array in Items(infra={"folder": tmp_path}).process(range(6))] == list(range(6))
        assert exca_like.memo(folder=tmp_path)(double)(1) == 2
        assert {one.kind for one in maintenance.verify(tmp_path).problems} <= {"orphaned", "torn"}  # as a killed writer leaves


CUT = """
import shutil, sys, os, signal
from test_pruning import *
shutil.rmtree = lambda path, **_: os.kill(os.getpid(), signal.SIGKILL)
remove(Catalog(sys.argv[1]), dry_run=False)
"""


def test_killed_between_renaming_and_deleting(tmp_path: Path) -> None:
    array = task(tmp_path, 1, 5000).run()
    ended = subprocess.run([sys.executable, "-c", CUT, str(tmp_path)], check=False, env=ENVIRONMENT)
    assert ended.returncode == -signal.SIGKILL and uids(tmp_path) == [] and len(hidden(tmp_path)) == 1
    assert (task(tmp_path, 1, 5000).run() == array).all() and len(uids(tmp_path)) == 1


def test_maps_with_results_are_no_failures(tmp_path: Path) -> None:
    """One file that can't be read does not cost the others their embeddings."""
    items = Items(infra={"folder": tmp_path})
    list(items.process(range(5)))
    with pytest.raises(exca_like.errors.ItemsFailedError):
        list(items.process([-1]))
    with pytest.raises(exca_like.errors.ItemsFailedError):
        list(Items(size=7, infra={"folder": tmp_path}).process([-1]))
    with pytest.raises(ValueError):
        task(tmp_path, -1).run()
    assert {entry.status for entry in Catalog(tmp_path)} == {"failed"}
    removed = prune(tmp_path, status="failed", dry_run=False)
    assert [one.problem for one in removed] == [None, None]
    assert [(entry.values, entry.failures) for entry in Catalog(tmp_path)] == [(5, 1)]
