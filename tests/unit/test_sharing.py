"""Sharing results: bundles, and places that results are pushed to and pulled from."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import CacheDict, files, maintenance, sharing
from exca_like.cachedict import DumpContext, writer
from exca_like.cachedict.handlers.paths import restore
from exca_like.catalog import Catalog
from exca_like.errors import CacheFolderError, ConfigValueError, CorruptEntryError, TransferError
from exca_like.pruning import prune, remove
from exca_like.sharing import arriving, export_bundle, import_bundle, places, plans, pull, push, receiving, sending

HERE = Path(__file__)
EXCA = HERE.parents[1] / "compat" / "exca_caches" / "0.6.0"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, sys.path)])}


class Task(pydantic.BaseModel):
    seed: int = 0
    size: int = 500
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> dict[str, object]:
        _computed("task")
        if self.seed < 0:
            raise ValueError("seed < 0")
        exca_like.record(epoch=self.seed)
        return {"array": np.full(self.size, self.seed), "set": {self.seed}, "text": "a" * 2000}


class Items(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: list[int]):
        for item in items:
            _computed("item")
            if item < 0:
                raise ValueError("item < 0")
            yield np.full(1000, item)


class Npy(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str, cache_type="NumpyArray")
    def process(self, items: list[int]):
        for item in items:
            _computed("item")
            yield np.full(1000, item)


class Pickled:
    def __init__(self, x: int) -> None:
        self.x = x


def call(x: int) -> object:
    _computed("call")
    return Pickled(x)


def files_of(folder: Path, text: str) -> Path:
    _computed("files")
    made = folder / "made"
    (made / "empty").mkdir(parents=True, exist_ok=True)
    (made / "a.txt").write_text(text)
    (made / "run.sh").write_text("true")
    (made / "run.sh").chmod(0o755)
    if not (made / "link").is_symlink():
        (made / "link").symlink_to("a.txt")
    return made


def _computed(what: str) -> None:
    if os.environ.get("MUST_NOT_COMPUTE"):
        raise AssertionError(f"the {what} is computed again")


def memo_of(folder: Path, function=call, **options):
    return exca_like.memo(folder=folder, **{"cache_type": "AutoPickle" if function is call else None, **options})(function)


def fill(root: Path) -> None:
    for seed in range(3):
        Task(seed=seed, infra={"folder": root}).run()
    with pytest.raises(ValueError):
        Task(seed=-1, infra={"folder": root}).run()
    list(Items(infra={"folder": root}).process(range(5)))
    with pytest.raises(exca_like.errors.ItemsFailedError):
        list(Items(infra={"folder": root}).process([-1]))
    list(Npy(infra={"folder": root}).process(range(2)))
    f = memo_of(root)
    f(1), f(2)


def check_hits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that `fill` stores is found, and nothing is computed."""
    with monkeypatch.context() as patch:
        patch.setenv("MUST_NOT_COMPUTE", "1")
        for seed in range(3):
            result = Task(seed=seed, infra={"folder": root}).run()
            assert result["array"].tolist() == [seed] * 500 and result["set"] == {seed} and len(result["text"]) == 2000
        assert [x[0] for x in Items(infra={"folder": root}).process(range(5))] == list(range(5))
        npy = Npy(infra={"folder": root})
        assert [x[0] for x in npy.process(range(2))] == [0, 1]
        assert (memo_of(root)(1).x, memo_of(root)(2).x) == (1, 2)


RESULTS = 3 + 5 + 2 + 2


def counts(transfer: sharing.Transfer) -> tuple[int, int, int, int]:
    return transfer.added, transfer.present, transfer.different, transfer.left_out


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("filled")
    fill(root)
    return root


# places


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3-compatible server of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


class S3:
    """A folder of a bucket, with what tests do to it."""

    def __init__(self, name: str) -> None:
        import s3fs

        self.system = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        if not self.system.exists("bucket"):
            self.system.mkdir("bucket")
        self.base = f"bucket/{name}"
        self.url = f"s3://{self.base}"

    def names(self) -> list[str]:
        return sorted(path.removeprefix(f"{self.base}/") for path in self.system.find(self.base))

    def read(self, name: str) -> bytes:
        return self.system.cat_file(f"{self.base}/{name}")

    def write(self, name: str, data: bytes) -> None:
        self.system.pipe_file(f"{self.base}/{name}", data)

    def remove(self, name: str) -> None:
        self.system.rm_file(f"{self.base}/{name}")


class Plain:
    """The same of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).write_bytes(data)

    def remove(self, name: str) -> None:
        (self.path / name).unlink()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3 | Plain:
    if request.param == "folder":
        return Plain(tmp_path / "place")
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return S3(tmp_path.name)


# bundles


def test_a_bundle_hits_elsewhere(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, root = tmp_path / "results.zip", tmp_path / "new" / "root"
    plan = export_bundle(filled, bundle, dry_run=True)
    assert not bundle.exists() and counts(plan) == (RESULTS, 0, 0, 0)
    done = export_bundle(filled, bundle)
    assert counts(done) == counts(plan) and done.files == plan.files == len(zipfile.ZipFile(bundle).namelist())
    assert abs(done.size - plan.size) < 0.1 * done.size
    assert str(done).startswith(f"{RESULTS} results added ({done.files} files, ")
    for dry_run in (True, False):
        found = import_bundle(bundle, root, dry_run=dry_run)
        assert root.exists() != dry_run and counts(found) == (RESULTS, 0, 0, 0)
        assert (found.files, found.size) == (done.files, done.size)
    check_hits(root, monkeypatch)
    assert maintenance.verify(root).is_clean and not list(root.glob(".*"))
    before = snapshot(root)
    assert counts(import_bundle(bundle, root)) == (0, RESULTS, 0, 0) and snapshot(root) == before
    assert not list(filled.glob(".*")) and not list(tmp_path.glob(".*"))


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_provenance_travels(filled: Path, tmp_path: Path) -> None:
    export_bundle(filled, tmp_path / "b.zip")
    import_bundle(tmp_path / "b.zip", tmp_path / "root")
    here, there = Task(seed=1, infra={"folder": filled}), Task(seed=1, infra={"folder": tmp_path / "root"})
    assert there.infra.provenance() == here.infra.provenance() and there.infra.provenance().packages["numpy"]
    for entry in Catalog(tmp_path / "root"):
        original = Catalog(filled)[entry.uid]
        item = "1" if entry.kind == "map" else None
        assert entry.provenance(item) == original.provenance(item)
        assert entry.changed == original.changed and entry.config == original.config
        codes = {path.name for path in (filled / "provenance").glob("code-*")}
        assert codes and {path.name for path in (tmp_path / "root" / "provenance").glob("code-*")} <= codes


@pytest.mark.parametrize("ending", ["-info.jsonl", "config.yaml", ".json"])
def test_a_bundle_that_does_not_tell_what_is_in_it(filled: Path, tmp_path: Path, ending: str) -> None:
    """One bit of a journal, of a config or of the provenance: nothing is taken in, as nobody knows what lacks."""
    export_bundle(filled, tmp_path / "b.zip")
    data = bytearray((tmp_path / "b.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(ending) and "data" not in info.filename)
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 1
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(TransferError, match=f"the bundle .*b.zip is damaged, in .*{re.escape(ending)}"):
        import_bundle(tmp_path / "b.zip", tmp_path / "root")
    assert not list((tmp_path / "root").rglob("*.jsonl"))


def test_an_unzipped_bundle_is_a_cache(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_bundle(filled, tmp_path / "b.zip")
    zipfile.ZipFile(tmp_path / "b.zip").extractall(tmp_path / "root")
    check_hits(tmp_path / "root", monkeypatch)
    assert maintenance.verify(tmp_path / "root").is_clean


def test_some_entries(filled: Path, tmp_path: Path) -> None:
    catalog = Catalog(filled)
    export_bundle(catalog.filter("call", where=lambda entry: entry.config["x"] == 2), tmp_path / "b.zip")
    import_bundle(tmp_path / "b.zip", tmp_path / "root")
    assert [entry.load().x for entry in Catalog(tmp_path / "root")] == [2]
    data = [name for name in zipfile.ZipFile(tmp_path / "b.zip").namelist() if name.endswith(".pkl")]
    assert len(data) <= 1  # of the other call, nothing
    export_bundle(filled, tmp_path / "all.zip")
    import_bundle(tmp_path / "all.zip", tmp_path / "few", choose=lambda there: there.filter(config={"seed": 1}))
    assert [entry.changed for entry in Catalog(tmp_path / "few")] == [{"seed": 1}]


def test_files_and_folders(tmp_path: Path) -> None:
    f = memo_of(tmp_path / "a", files_of, cache_type="Files", exclude=["folder"])
    f(tmp_path, "one"), f(tmp_path, "one more")
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    assert counts(import_bundle(tmp_path / "b.zip", tmp_path / "c")) == (2, 0, 0, 0)
    for entry in Catalog(tmp_path / "c"):
        made = entry.load()
        assert made.is_relative_to(tmp_path / "c") and (made / "a.txt").read_text().startswith("one")
        assert (made / "empty").is_dir() and os.readlink(made / "link") == "a.txt"
        assert os.access(made / "run.sh", os.X_OK) and (made / "a.txt").stat().st_mode & 0o222 == 0
        assert (made / "run.sh").stat().st_nlink == 3  # shared with the other one
    assert maintenance.verify(tmp_path / "c").is_clean
    assert counts(import_bundle(tmp_path / "b.zip", tmp_path / "c")) == (0, 2, 0, 0)


def test_what_says_something_of_one_machine_stays(tmp_path: Path) -> None:
    task = Task(infra={"folder": tmp_path / "a", "cluster": "local"})
    task.run()
    memo_of(tmp_path / "a", pin=True)(1)
    memo_of(tmp_path / "a", lambda_free, track=False)(1)
    for entry in Catalog(tmp_path / "a").filter("Task.run"):
        entry.pin()
        assert (entry.folder / "job.json").exists()
        (entry.folder / "host-1-0123456789abcdef.claim").write_bytes(b"{}")
    assert counts(export_bundle(tmp_path / "a", tmp_path / "b.zip")) == (2, 0, 0, 0)  # track=False is no part of bundles
    import_bundle(tmp_path / "b.zip", tmp_path / "c")
    assert counts(pull(tmp_path / "a", tmp_path / "d")) == (2, 0, 0, 0)  # from the cache itself
    for root in (tmp_path / "c", tmp_path / "d"):
        names = {path.name for path in root.rglob("*")}
        assert not names & {"job.json", "pinned", "logs"} and not any(name.endswith(".claim") for name in names)
        entries = list(Catalog(root))
        assert [(entry.status, entry.is_pinned) for entry in entries] == [("completed", False)] * 2
        assert all(entry.handle() is None for entry in entries)


def lambda_free(x: int) -> int:
    return x


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Task(seed=-1, infra={"folder": tmp_path / "a"}).run()
    done = export_bundle(tmp_path / "a", tmp_path / "b.zip")
    assert str(done) == "nothing to move: no results were found" and not (tmp_path / "b.zip").exists()
    with pytest.raises(CacheFolderError, match="there is no folder"):
        export_bundle(tmp_path / "none", tmp_path / "b.zip")


def test_nothing_that_can_be_exported(tmp_path: Path) -> None:
    memo_of(tmp_path / "a", echo)(b"x" * 5000)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file() and path.parent.name == "data":
            path.write_bytes(b"y" * path.stat().st_size)
    done = export_bundle(tmp_path / "a", tmp_path / "b.zip")
    assert (done.added, done.left_out) == (0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("what", ["push", "export"])
def test_no_space_where_results_are_gathered(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Task(infra={"folder": tmp_path / "a"}).run()

    def full(self: object, journal: writer.AppendFile, line: bytes) -> int:
        raise writer.unwritable(journal.folder, journal.name, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(sending.Writer, "append_line", full)
    send = push if what == "push" else export_bundle
    with pytest.raises(TransferError, match=f"can't write to {tmp_path}/a, where .* that travel: No space left") as error:
        send(tmp_path / "a", tmp_path / "there")
    assert error.value.errno == errno.ENOSPC and ".tmp-" not in str(error.value)
    assert not list(tmp_path.rglob(".tmp-*")) and not (tmp_path / "there").is_file()


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    source = tmp_path / "folder"
    source.mkdir()
    with pytest.raises(TransferError, match=rf"can't write {tmp_path}/place/name: Is a directory \({source}\)"):
        places.Folder(str(tmp_path / "place")).put({"name": str(source)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_bundle(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no zip")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name, message in (
        ("text", "is no bundle, or it was cut short"),
        ("none", "can't read the bundle .*No such file"),
        ("empty.zip", "there are no results in .*empty.zip"),
    ):
        with pytest.raises(TransferError, match=message):
            import_bundle(tmp_path / name, tmp_path / "root")
    with pytest.raises(TransferError, match="there is a file .*text already: remove it, or give another name"):
        export_bundle(filled, tmp_path / "text")
    with pytest.raises(TransferError, match="can't write .*: No such file or directory"):
        export_bundle(filled, tmp_path / "none" / "b.zip")
    (tmp_path / "whole.zip").write_bytes(b"")
    (tmp_path / "whole.zip").unlink()
    export_bundle(filled, tmp_path / "whole.zip")
    data = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    (tmp_path / "end.zip").write_bytes(data[len(data) // 2 :])
    for name in ("cut.zip", "end.zip"):
        with pytest.raises(TransferError, match=f"{name} is no bundle, or it was cut short"):
            import_bundle(tmp_path / name, tmp_path / "root")


def test_damage_of_a_bundle_costs_only_what_is_damaged(tmp_path: Path) -> None:
    list(Npy(infra={"folder": tmp_path / "a"}).process(range(4)))
    Task(infra={"folder": tmp_path / "a"}).run()
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    data = bytearray((tmp_path / "b.zip").read_bytes())
    place = data.index(np.full(1000, 2).tobytes())
    data[place + 10] ^= 1
    (tmp_path / "b.zip").write_bytes(data)
    done = import_bundle(tmp_path / "b.zip", tmp_path / "c")
    assert counts(done) == (4, 0, 0, 1) and not done.is_complete
    assert re.search(r"/2: its data are damaged, in data/../2-\w+\.npy$", str(done))
    items = CacheDict(Catalog(tmp_path / "c")["Npy.process"].folder)
    assert sorted(items) == ["0", "1", "3"] and maintenance.verify(tmp_path / "c").is_clean


def test_lines_and_packed_data_that_were_changed_by_hand(tmp_path: Path) -> None:
    """The checks of the zip file are not all there is."""
    list(Items(infra={"folder": tmp_path / "a"}).process(range(4)))
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as old, zipfile.ZipFile(tmp_path / "c.zip", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(".data"):
                data = data.replace(np.full(1000, 1).tobytes(), np.full(1000, 7).tobytes())
            if name.endswith("-info.jsonl"):
                data = data.replace(b'{"#key":"3"', b'{"#key":"4"')
            new.writestr(name, data)
    with pytest.warns(exca_like.errors.CorruptEntryWarning, match="is damaged"):
        done = import_bundle(tmp_path / "c.zip", tmp_path / "root")
    assert counts(done) == (2, 0, 0, 2) and "/1: its data are damaged" in str(done)
    assert re.search(
        rf"/4: the line at byte \d+ of {tmp_path}/c.zip/.*Items.process,0/default/shared-0-\w+-info.jsonl is damaged", str(done)
    )
    assert maintenance.verify(tmp_path / "root").is_clean


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_of_a_damaged_file_with_many_results_all_that_are_sound_arrive(tmp_path: Path, compression: int) -> None:
    """The archive has one checksum for the file, each result has its own."""
    list(Items(infra={"folder": tmp_path / "a"}).process(range(50)))
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as old, zipfile.ZipFile(tmp_path / "c.zip", "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        info = next(info for info in new.infolist() if info.filename.endswith(".data"))
        where = info.filename.partition("/default/")[2]
    data = bytearray((tmp_path / "c.zip").read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 16
    (tmp_path / "c.zip").write_bytes(data)
    done = import_bundle(tmp_path / "c.zip", tmp_path / "root")
    assert done.added + done.left_out == 50 and done.left_out >= 1 and (compression or done.left_out == 1)
    assert all(why == f"its data are damaged, in {where}" for why in done.folders[0].left_out)
    assert maintenance.verify(tmp_path / "root").is_clean
    data[info.header_offset : info.header_offset + 4] = b"none"  # nothing of the file can be read
    (tmp_path / "c.zip").write_bytes(data)
    done = import_bundle(tmp_path / "c.zip", tmp_path / "new")
    assert counts(done) == (0, 0, 0, 50) and list(done.folders[0].left_out) == [f"its data are damaged, in {where}"]


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
def test_what_damaged_lines_were(tmp_path: Path) -> None:
    """They are left out, unless their results are found elsewhere, or were not asked for."""
    f = memo_of(tmp_path / "a", echo_number)
    for number in range(3):
        f(number)
    Task(infra={"folder": tmp_path / "a"}).run()
    push(Catalog(tmp_path / "a").filter(config={"x": 0}), tmp_path / "b")
    (path,) = tmp_path.glob("a/*echo_number*/*-info.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"#type"', b'"#typo"'))
    for move in (pull, push):
        done = move(tmp_path / "a", tmp_path / "b", dry_run=True)
        assert counts(done) == (1, 0, 0, 2) and not done.is_complete, done  # x=0 is there
    assert counts(pull(tmp_path / "a", tmp_path / "b", choose=lambda there: there.filter("Task.run"))) == (1, 0, 0, 0)
    memo_of(tmp_path / "a", echo_number)(1)  # it is computed again
    done = export_bundle(tmp_path / "a", tmp_path / "b.zip")
    assert counts(done) == (2, 0, 0, 2) and all(f" of {path} is damaged" in why for why in done.folders[0].left_out)
    path.write_bytes(whole[:5] + b"?" + whole[6:])
    done = pull(tmp_path / "a", tmp_path / "c")
    assert counts(done) == (3, 0, 0, 1) and f"echo_number,0/?: the line at byte 0 of {path} is damaged" in str(done)


def test_files_that_were_cut_short_at_the_place(tmp_path: Path) -> None:
    list(Items(infra={"folder": tmp_path / "a"}).process(range(5)))
    push(tmp_path / "a", tmp_path / "place")
    (pack,) = tmp_path.glob("place/*/default/data/*.data")
    (journal,) = tmp_path.glob("place/*/default/*-info.jsonl")
    whole, line = pack.read_bytes(), journal.read_bytes()
    pack.write_bytes(whole[:20000])
    done = pull(tmp_path / "place", tmp_path / "b")
    assert counts(done) == (2, 0, 0, 3) and f"/2 and 2 more: its data are cut short, in data/{pack.name}" in str(done)
    pack.write_bytes(whole)
    journal.write_bytes(line[:-10])  # nobody writes to what was pushed
    done = pull(tmp_path / "place", tmp_path / "c")
    last = line[:-1].rindex(b"\n") + 1
    assert counts(done) == (4, 0, 0, 1) and f"/4: the line at byte {last} of {journal} is damaged" in str(done)


def test_names_that_lead_out_of_a_bundle(tmp_path: Path) -> None:
    Task(infra={"folder": tmp_path / "a"}).run()
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    journal = next(name for name in zipfile.ZipFile(tmp_path / "b.zip").namelist() if name.endswith("-info.jsonl"))
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as bundle:
        for name in (f"../../out/{os.path.basename(journal)}", "/out-info.jsonl", f"a/../../{os.path.basename(journal)}"):
            bundle.writestr(name, bundle.read(journal))
    assert counts(import_bundle(tmp_path / "b.zip", tmp_path / "deep" / "er" / "root")) == (1, 0, 0, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b.zip", "deep"}
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["root"]


@pytest.mark.parametrize("again", [1, 2])
def test_what_was_removed_there_can_be_pushed_again(tmp_path: Path, again: int) -> None:
    f = memo_of(tmp_path / "mine", echo_number)
    for number in (1, 2):
        f(number)
        push_one(tmp_path, number)
    for _ in range(again):
        remove(Catalog(tmp_path / "shared").filter(config={"x": 1}), dry_run=False)
        assert [entry.config["x"] for entry in Catalog(tmp_path / "shared")] == [2]
        assert push_one(tmp_path, 1).added == 1
        assert sorted(entry.config["x"] for entry in Catalog(tmp_path / "shared")) == [1, 2]
    assert sharing.pull(tmp_path / "shared", tmp_path / "other").added == 2
    assert memo_of(tmp_path / "other", echo_number, mode="read-only")(1) == 1


def echo_number(x: int) -> int:
    return x


def push_one(folder: Path, number: int) -> sharing.Transfer:
    return sharing.push(Catalog(folder / "mine").filter(config={"x": number}), folder / "shared")


def test_what_is_there_stays(tmp_path: Path) -> None:
    for name in ("a", "c"):
        list(Items(infra={"folder": tmp_path / name}).process([1, 2]))
    list(Items(infra={"folder": tmp_path / "a"}).process([3]))
    cache: CacheDict = CacheDict(Catalog(tmp_path / "c")["Items.process"].folder)
    with cache.write():
        cache.put("2", np.zeros(5), replace=True)
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    done = import_bundle(tmp_path / "b.zip", tmp_path / "c")
    assert counts(done) == (1, 1, 1, 0) and done.folders[0].different == ["2"]
    assert str(done).startswith("1 result added, 1 there already, 1 there with other bytes, and left as they are (")
    assert "Items.process,0/default/2: it is there with other bytes" in str(done)
    assert [len(x) for x in Items(infra={"folder": tmp_path / "c"}).process([1, 2, 3])] == [1000, 5, 1000]


def test_equal_results_are_the_same_wherever_they_lie(tmp_path: Path) -> None:
    """After a compaction, and in another order, with other provenance."""
    list(Items(infra={"folder": tmp_path / "a"}).process([1, 2, 3]))
    for item in (3, 2, 1):
        list(Items(infra={"folder": tmp_path / "c"}).process([item]))
    assert counts(push(tmp_path / "a", tmp_path / "c")) == (0, 3, 0, 0)
    maintenance.compact(tmp_path / "a")
    assert counts(push(tmp_path / "a", tmp_path / "c")) == (0, 3, 0, 0)


def test_another_config_under_the_same_uid(tmp_path: Path) -> None:
    Task(seed=1, infra={"folder": tmp_path / "a"}).run()
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    (folder,) = [entry.folder for entry in Catalog(tmp_path / "c")]
    (folder / "full-uid.yaml").write_text((folder / "full-uid.yaml").read_text().replace("size: 500", "size: 4"))
    for journal in folder.glob("*.jsonl"):
        journal.unlink()
    done = push(tmp_path / "a", tmp_path / "c")
    assert counts(done) == (0, 0, 0, 1) and "it has another config, which differs in size" in str(done)


def test_what_can_not_be_moved(tmp_path: Path) -> None:
    @DumpContext.register
    class PlacedElsewhere:
        @classmethod
        def __dump_info__(cls, ctx, value):
            return {"where": ctx.append(".mine", value)["offset"]}

        @classmethod
        def __load_from_info__(cls, ctx, where):
            return bytes(ctx.view(".mine", where, 3))

    @DumpContext.register
    class Streamed:
        @classmethod
        def __dump_info__(cls, ctx, value):
            stream, name = ctx.shared_file(".stream")
            offset = stream.tell()
            stream.write(value)
            return {"filename": name, "offset": offset, "length": len(value)}

        @classmethod
        def __load_from_info__(cls, ctx, filename, offset, length):
            return bytes(ctx.view(filename, offset, length))

    try:
        for name, value in (("PlacedElsewhere", b"abc"), ("Streamed", b"xyz")):
            memo_of(tmp_path / "a", echo, cache_type=name)(value)
        done = push(tmp_path / "a", tmp_path / "c")
        assert counts(done) == (1, 0, 0, 1) and "its handler notes the place of its data in a way of its own" in str(done)
        pull(tmp_path / "c", tmp_path / "d")
        assert [entry.load() for entry in Catalog(tmp_path / "d")] == [b"xyz"]
    finally:
        for name in ("PlacedElsewhere", "Streamed"):
            del DumpContext.HANDLERS[name]


def test_results_of_exca_stay(tmp_path: Path) -> None:
    shutil.copytree(EXCA, tmp_path / "a")
    done = push(tmp_path / "a", tmp_path / "b")
    assert done.added == 0 and done.left_out == sum(entry.values for entry in Catalog(tmp_path / "a")) > 0
    assert "it is gone, or exca stored it, without checksums" in str(done) and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"filename": "data/00/../x"},
        {"filename": "/data/00/x"},
        {"files": [["../../../out", "0"]]},
        {"folders": ["../../../../out"]},
        {"links": [["a", "../.."]]},
        {"links": [["a", "/etc"]]},
    ],
)
def test_folders_that_lead_out(change: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "root" / "data" / "00" / "x" / "made").mkdir(parents=True)
    info = {"filename": "data/00/x/made", "files": [], "folders": [], "links": []}
    with pytest.raises(CorruptEntryError, match="out of its folder|outside of its folder"):
        restore(str(tmp_path / "root"), {**info, **change}, None)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert not list((tmp_path / "root" / "data" / "00" / "x" / "made").iterdir())


def echo(value: bytes) -> bytes:
    return value


def test_what_is_computed_here_is_left_out(tmp_path: Path) -> None:
    Task(infra={"folder": tmp_path / "a"}).run()
    task = Task(infra={"folder": tmp_path / "c"})
    program = (
        "import sys, time, test_sharing\n"
        "test_sharing._computed = lambda what: (print('begun', flush=True), time.sleep(600))\n"
        "test_sharing.Task(infra={'folder': sys.argv[1]}).run()\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "c")]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"begun\n"
            done = pull(tmp_path / "a", tmp_path / "c")
        finally:
            other.kill()
    assert counts(done) == (0, 0, 0, 1) and "somebody computes it here at this moment" in str(done)
    assert counts(pull(tmp_path / "a", tmp_path / "c")) == (1, 0, 0, 0) and task.infra.status() == "completed"


# interruptions

KILLED = """
import sys, time
import test_sharing
from exca_like.sharing import arriving, places, plans, receiving, sending, export_bundle, import_bundle, pull, push
left = int(sys.argv[4])
def stopping(function):
    def call(*arguments):
        global left
        left -= 1
        if not left:
            print("there", flush=True)
            time.sleep(600)
        return function(*arguments)
    return call
for module in (plans, receiving, sending):
    module.PIECE = 9000
if sys.argv[1] == "push":
    for place in (places.Folder, places.Remote):
        place.put = stopping(place.put)
elif sys.argv[1] in ("copy", "export"):
    arriving.appear = stopping(arriving.appear)
    places._THREADS = 1
else:
    receiving.Writer.append_line = stopping(receiving.Writer.append_line)
{"push": push, "copy": push, "pull": pull, "import": import_bundle, "export": export_bundle}[sys.argv[1]](*sys.argv[2:4])
"""


def killed(what: str, source: object, target: object, calls: int) -> None:
    """Do something in a process that is killed by SIGKILL in the middle of it."""
    arguments = [sys.executable, "-c", KILLED, what, str(source), str(target), str(calls)]
    with subprocess.Popen(
        arguments, env={**ENVIRONMENT, **os.environ, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plans, receiving, sending):
        monkeypatch.setattr(module, "PIECE", 9000)  # one or two results


@pytest.mark.parametrize("calls", [1, 4, 5, 8])
def test_a_killed_push_goes_on(place: S3 | Plain, calls: int, tmp_path: Path, small_pieces: None) -> None:
    list(Items(infra={"folder": tmp_path / "a"}).process(range(10)))
    Task(size=2000, infra={"folder": tmp_path / "a"}).run()
    whole = push(tmp_path / "a", tmp_path / "whole")
    killed("push", tmp_path / "a", place.url, calls)
    before = place.names()
    assert (calls == 1) == (not before)
    if any(name.endswith(".jsonl") for name in before):  # whoever looks now sees whole results
        arrived = pull(place.url, tmp_path / "meanwhile")
        assert arrived.is_complete and 0 < arrived.added < 11
    done = push(tmp_path / "a", place.url)
    assert done.added + done.present == 11 and done.is_complete
    assert done.files == whole.files - len(before)  # what was there is not sent again
    assert place.names() == Plain(tmp_path / "whole").names()
    assert counts(push(tmp_path / "a", place.url)) == (0, 11, 0, 0)
    assert counts(pull(place.url, tmp_path / "b")) == (11, 0, 0, 0) and maintenance.verify(tmp_path / "b").is_clean


@pytest.mark.parametrize("calls", [3, 10])
def test_half_copied_files_go_with_the_next_push(calls: int, tmp_path: Path) -> None:
    list(Npy(infra={"folder": tmp_path / "a"}).process(range(10)))
    there = tmp_path / "there"
    killed("copy", tmp_path / "a", there, calls)
    assert len(list(there.rglob(".tmp-*"))) == 1
    elsewhere = next(there.glob("*/default")) / "data" / ".tmp-anothermachine-0123456789abcdef"
    elsewhere.parent.mkdir(exist_ok=True)
    elsewhere.write_bytes(b"it is written now")
    for folder in (there, elsewhere.parent.parent):
        (folder / ".tmp-0123456789abcdef-config.yaml").write_bytes(b"as are files of the package")
    push(tmp_path / "a", there)
    assert len(list(there.rglob(".tmp-*"))) == 3 and elsewhere.exists() and maintenance.verify(there).is_clean
    old = time.time() + 2 * files.STALE_S[files.TEMPORARY_PREFIX]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: old)
        found = maintenance.verify(there).problems
        assert [problem.kind for problem in found] == ["orphaned"] * 2
        assert found[0].detail == "a temporary file that was left behind" and "0123456789abcdef" in found[0].path.name
        prune(there, older_than="1000d", dry_run=False)
        assert list(there.rglob(".tmp-*")) == [elsewhere]
        assert counts(push(tmp_path / "a", there)) == (0, 10, 0, 0)
    assert not list(there.rglob(".tmp-*")) and maintenance.verify(there).is_clean


def test_a_killed_export_leaves_nothing_for_long(tmp_path: Path) -> None:
    Task(infra={"folder": tmp_path / "a"}).run()
    killed("export", tmp_path / "a", tmp_path / "b.zip", 1)
    (left,) = tmp_path.glob(".tmp-*")
    export_bundle(tmp_path / "a", tmp_path / "other.zip")
    assert left.exists()
    export_bundle(tmp_path / "a", tmp_path / "b.zip")
    assert not list(tmp_path.glob(".tmp-*")) and counts(import_bundle(tmp_path / "b.zip", tmp_path / "c")) == (1, 0, 0, 0)


def test_what_others_write_is_not_swept_away(tmp_path: Path) -> None:
    Task(infra={"folder": tmp_path / "a"}).run()
    (tmp_path / "place" / "data").mkdir(parents=True)
    with arriving.new_file(str(tmp_path), "-b.zip") as bundle, arriving.new_file(str(tmp_path / "place" / "data")) as copied:
        for stream in (bundle, copied):
            stream.write(b"half")
            stream.flush()
        push(tmp_path / "a", tmp_path / "place")
        export_bundle(tmp_path / "a", tmp_path / "b.zip")
        assert Path(bundle.name).exists() and Path(copied.name).exists()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_file_that_is_taken_for_left_over_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sweeps between its making and its lock."""
    lock = arriving.fcntl.flock
    taken: list[str] = []

    def late(stream: object, how: int) -> None:
        if not taken:
            (path,) = tmp_path.iterdir()
            taken.append(str(path))
            arriving.remove_left(taken)
            assert not path.exists()
        lock(stream, how)

    monkeypatch.setattr(arriving.fcntl, "flock", late)
    with arriving.new_file(str(tmp_path)) as stream:
        arriving.appear(stream, str(tmp_path / "there"))
    assert taken and [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_disk_has_what_journals_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the machine never leaves a journal without its data."""
    fill(tmp_path / "a")
    on_disk: set[int] = set()
    early: list[str] = []
    sync, replace = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        sync(descriptor)
        on_disk.add(os.fstat(descriptor).st_ino)

    def checked(old: str, new: str) -> None:
        assert os.stat(old).st_ino in on_disk, new
        folder = Path(new).parent
        if new.endswith(".jsonl"):
            data = [path for path in (folder / "data").rglob("*") if not path.name.startswith(".")]
            early.extend(str(path) for path in data if path.stat().st_ino not in on_disk)
        else:
            on_disk.discard(folder.stat().st_ino)
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", checked)
    assert push(tmp_path / "a", tmp_path / "there").added == RESULTS
    assert not early


@pytest.mark.parametrize("what", ["pull", "import"])
def test_a_killed_arrival_goes_on(what: str, tmp_path: Path) -> None:
    list(Items(infra={"folder": tmp_path / "a"}).process(range(10)))
    list(Npy(infra={"folder": tmp_path / "a"}).process(range(3)))
    bundle, root = tmp_path / "b.zip", tmp_path / "root"
    export_bundle(tmp_path / "a", bundle)
    source = bundle if what == "import" else tmp_path / "a"
    for calls in (1, 4, 6):
        killed(what, source, root, calls)
    there = sum(len(CacheDict(entry.folder)) for entry in Catalog(root).filter(kind="map"))
    assert there == 3 + 5  # whole results, and no other ones
    done = import_bundle(source, root) if what == "import" else pull(source, root)
    assert counts(done) == (5, 8, 0, 0)
    assert [x[0] for x in Items(infra={"folder": root}).process(range(10))] == list(range(10))
    assert {problem.kind for problem in maintenance.verify(root).problems} <= {"orphaned"}


# places


def test_push_and_pull(filled: Path, place: S3 | Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = push(filled, place.url, dry_run=True)
    assert counts(plan) == (RESULTS, 0, 0, 0) and place.names() == []
    done = push(filled, place.url)
    assert counts(done) == (RESULTS, 0, 0, 0) and done.files == plan.files == len(place.names())
    assert done.size == sum(len(place.read(name)) for name in place.names())
    again = push(filled, place.url)
    assert counts(again) == (0, RESULTS, 0, 0) and (again.files, again.size) == (0, 0)
    for dry_run in (True, False):
        found = pull(place.url, tmp_path / "root", dry_run=dry_run)
        assert counts(found) == (RESULTS, 0, 0, 0) and (tmp_path / "root").exists() != dry_run
        assert (found.files, found.size) == (done.files, done.size)
    check_hits(tmp_path / "root", monkeypatch)
    assert maintenance.verify(tmp_path / "root").is_clean
    again = pull(place.url, tmp_path / "root")
    assert counts(again) == (0, RESULTS, 0, 0) and again.files == 0
    assert counts(push(tmp_path / "root", place.url)) == (0, RESULTS, 0, 0)  # and not back


def test_wrong_yaml_files_are_not_sent_before_they_are_mended(place: S3 | Plain, tmp_path: Path) -> None:
    tasks = [Task(seed=seed, infra={"folder": tmp_path / "a"}) for seed in range(2)]
    for task in tasks:
        task.run()
    uid, folder = tasks[1].infra.uid(), tasks[1].infra.uid_folder()
    sound = {path: path.read_bytes() for path in folder.glob("*.yaml")}
    (folder / "uid.yaml").write_text("seed: 7\n")
    for dry_run in (True, False, False):
        done = push(tmp_path / "a", place.url, dry_run=dry_run)
        assert {one.uid for one in done.folders if one.has_wrong_yamls} == {uid}
    assert (done.present, done.files) == (2, 0)
    assert {Path(name).parent.name for name in place.names() if name.endswith(".yaml")} == {"default"}
    export_bundle(tmp_path / "a", tmp_path / "bundle")
    for number, take in enumerate((lambda to: pull(place.url, to), lambda to: import_bundle(tmp_path / "bundle", to))):
        root = tmp_path / str(number)
        assert counts(take(root)) == (2, 0, 0, 0) and maintenance.verify(root).is_clean
        assert Task(seed=1, infra={"folder": root, "mode": "read-only"}).run()["set"] == {1}
    for path, content in sound.items():
        path.write_bytes(content)
    plan, done, again = (push(tmp_path / "a", place.url, dry_run=dry_run) for dry_run in (True, False, False))
    assert counts(done) == (0, 2, 0, 0) and (plan.files, done.files, again.files) == (3, 3, 0)
    assert {name: place.read(f"{uid}/{name}") for name in ("config.yaml", "full-uid.yaml", "uid.yaml")} == {
        path.name: content for path, content in sound.items()
    }


def test_what_is_counted_of_a_pull(tmp_path: Path) -> None:
    items, task = Items(infra={"folder": tmp_path / "a"}), Task(infra={"folder": tmp_path / "a"})
    list(items.process(range(3)))
    task.run()
    folders = [infra.uid_folder() for infra in (items.infra, task.infra)]
    first = pull(tmp_path / "a", tmp_path / "b", choose=lambda there: there.filter("Items.process"))
    sent = [path for path in folders[0].rglob("*") if path.is_file()]
    assert {path.name.rpartition(".")[2] for path in sent} == {"jsonl", "data", "yaml"} and len(sent) == 1 + 1 + 3
    records = list((tmp_path / "b" / "provenance").iterdir())
    assert (first.files, first.size) == (5 + len(records), sum(path.stat().st_size for path in (*sent, *records)))
    list(items.process(range(4)))
    second = pull(tmp_path / "a", tmp_path / "b", choose=lambda there: there.filter("Items.process"))
    assert counts(second) == (1, 3, 0, 0) and second.files == 2  # a journal and its data: yaml files and records are there


def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are fetched from now on."""
    names: list[str] = []

    def noting(get: Callable) -> Callable:
        def call(self: object, wanted: list[str], folder: str) -> None:
            names.extend(wanted)
            get(self, wanted, folder)

        return call

    for kind in (places.Folder, places.Remote):
        monkeypatch.setattr(kind, "get", noting(kind.get))
    return names


def test_what_names_exclude_is_not_fetched(
    filled: Path, place: S3 | Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(filled, place.url)
    names = fetched(monkeypatch)
    folders = {"test_sharing.Task.run,1", "provenance"}
    assert counts(pull(place.url, tmp_path / "b", choose=lambda there: there.filter("Task.run"))) == (3, 0, 0, 0)
    assert names and {name.partition("/")[0] for name in names} == folders
    names.clear()
    assert counts(pull(place.url, tmp_path / "c", choose=lambda there: there.filter("Task.run", version="2"))) == (0, 0, 0, 0)
    assert not names
    pull(place.url, tmp_path / "c", choose=lambda there: [there["seed=1"]])
    of_tasks = [name for name in names if "Task.run" in name]
    assert of_tasks and all("seed=1-" in name for name in of_tasks)
    assert [entry.changed for entry in Catalog(tmp_path / "c")] == [{"seed": 1}]
    names.clear()
    pull(place.url, tmp_path / "d", choose=lambda there: there.filter(uid="*/seed=2-*", config={"seed": 2}))
    assert not any("seed=1-" in name for name in names)
    assert [entry.changed for entry in Catalog(tmp_path / "d")] == [{"seed": 2}]
    names.clear()
    key = Catalog(filled).filter("call")[0].key  # of which journals alone know
    pull(place.url, tmp_path / "d", choose=lambda there: [there[key]])
    assert not any("Task.run" in name for name in names) and len(Catalog(tmp_path / "d").filter("call")) == 1
    seen: list[int] = []
    pull(place.url, tmp_path / "e", choose=lambda there: seen.append(len(there)) or there.filter(kind="map"))
    assert seen == [3 + 2 + 2]


@pytest.mark.parametrize("what", ["place", "bundle"])
def test_messages_name_what_was_given(what: str, tmp_path: Path) -> None:
    for seed in range(2):
        Task(seed=seed, infra={"folder": tmp_path / "a"}).run()
    push(tmp_path / "a", tmp_path / "place")
    (journal,) = (tmp_path / "place").glob("*/seed=1-*/*.jsonl")
    journal.write_bytes(b"damaged\n" + journal.read_bytes())
    take: Callable = pull
    if what == "bundle":
        take = import_bundle
        with zipfile.ZipFile(tmp_path / "bundle", "w") as bundle:
            for name in Plain(tmp_path / "place").names():
                bundle.write(tmp_path / "place" / name, name)
    given = tmp_path / what
    where = f"byte 0 of {given}/test_sharing.Task.run,1/seed=1-"
    with pytest.warns(exca_like.errors.CorruptEntryWarning, match=where):
        take(given, tmp_path / "b")
    for uid, message in (("none", "no entry of"), ("Task.run,", "2 entries of")):
        with pytest.raises(exca_like.errors.NotCachedError) as error:
            take(given, tmp_path / "c", choose=lambda there, uid=uid: [there[uid]])
        assert str(error.value).startswith(f"{message} {given} ")


def test_only_what_is_new_travels(place: S3 | Plain, tmp_path: Path) -> None:
    items = Items(infra={"folder": tmp_path / "a"})
    list(items.process(range(5)))
    first = push(tmp_path / "a", place.url)
    list(items.process(range(7)))
    maintenance.compact(tmp_path / "a")
    second = push(tmp_path / "a", place.url)
    assert counts(second) == (2, 5, 0, 0) and second.files <= 3 and second.size < first.size / 2
    assert counts(pull(place.url, tmp_path / "b")) == (7, 0, 0, 0)


def test_two_push_and_both_pull(place: S3 | Plain, tmp_path: Path) -> None:
    roots = tmp_path / "a", tmp_path / "b"
    list(Items(infra={"folder": roots[0]}).process(range(4)))
    list(Items(infra={"folder": roots[1]}).process(range(2, 6)))
    pushes = [
        subprocess.Popen(
            [sys.executable, "-m", "exca_like", "push", place.url, "--folder", str(root)],
            env={**os.environ, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]},
        )
        for root in roots
    ]
    assert [process.wait() for process in pushes] == [0, 0]
    for root in roots:
        assert counts(pull(place.url, root)) == (2, 4, 0, 0)
        assert [x[0] for x in Items(infra={"folder": root}).process(range(6))] == list(range(6))
        assert maintenance.verify(root).is_clean


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
@pytest.mark.parametrize("suffix", [".data", "-info.jsonl"])
def test_damage_at_the_place_is_noticed(place: S3 | Plain, suffix: str, tmp_path: Path) -> None:
    for seed in range(2):
        Task(seed=seed, infra={"folder": tmp_path / "a"}).run()
    push(tmp_path / "a", place.url)
    name = next(name for name in place.names() if name.endswith(suffix) and "seed=1" in name)
    sound = place.read(name)
    place.write(name, sound[:5] + bytes([sound[5] ^ 1]) + sound[6:])
    if suffix == ".data":
        done = pull(place.url, tmp_path / "b")
        assert counts(done) == (1, 0, 0, 1) and "seed=1-c4ca4238: its data are damaged" in str(done)
        place.remove(name)
    else:
        with pytest.warns(exca_like.errors.CorruptEntryWarning):
            done = pull(place.url, tmp_path / "b")
        assert counts(done) == (1, 0, 0, 1) and f"the line at byte 0 of {place.url}/{name} is damaged" in str(done)
    assert len(Catalog(tmp_path / "b").filter(status="completed")) == 1
    assert counts(push(tmp_path / "a", place.url)) == (1, 1, 0, 0)  # it is mended
    assert place.read(name) == sound
    assert counts(pull(place.url, tmp_path / "b")) == (1, 1, 0, 0)


def test_what_was_sent_is_read_back(place: S3 | Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Task(infra={"folder": tmp_path / "a"}).run()

    def damaging(put: Callable) -> Callable:
        def call(self: object, paths: dict[str, str]) -> None:
            put(self, paths)
            for name in paths:
                if name.endswith(".data"):
                    place.write(name, b"\1" + place.read(name)[1:])

        return call

    with monkeypatch.context() as patch:
        for kind in (places.Folder, places.Remote):
            patch.setattr(kind, "put", damaging(kind.put))
        with pytest.raises(TransferError, match="1 files are not what was sent when they are read back, like .*data"):
            push(tmp_path / "a", place.url)
    assert not any(name.endswith(".jsonl") for name in place.names())
    with pytest.raises(TransferError, match="remove them there"):  # also of what an earlier push has left
        push(tmp_path / "a", place.url)
    for name in place.names():
        if name.endswith(".data"):
            place.remove(name)
    assert counts(push(tmp_path / "a", place.url)) == (1, 0, 0, 0)


def test_the_source_loses_data_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        Task(seed=seed, infra={"folder": tmp_path / "a"}).run()
    usable = sending._Load._usable

    def removing(self, plan, piece):
        if "seed=1" in plan.uid:
            for path in Path(plan.folder, "data").iterdir():
                path.unlink()
        return usable(self, plan, piece)

    monkeypatch.setattr(sending._Load, "_usable", removing)
    done = push(tmp_path / "a", tmp_path / "b")
    assert counts(done) == (1, 0, 0, 1) and "its data are not there" in str(done)


def test_files_vanish_while_they_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just after they were checked: no line arrives without its data."""
    list(Npy(infra={"folder": tmp_path / "a"}).process(range(2)))
    usable = sending._Load._usable

    def removing(self, plan, piece):
        found = usable(self, plan, piece)
        next(Path(plan.folder).glob("data/??/*")).unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(sending._Load, "_usable", removing)
        with pytest.raises(TransferError, match="were removed or merged while they were sent: do the same again"):
            push(tmp_path / "a", tmp_path / "b")
    assert not list((tmp_path).glob("b/**/*.jsonl"))
    assert counts(push(tmp_path / "a", tmp_path / "b")) == (1, 0, 0, 1)


def test_pull_from_a_cache_that_is_written_to(tmp_path: Path) -> None:
    """A line that is not complete yet does not count."""
    list(Items(infra={"folder": tmp_path / "a"}).process(range(3)))
    (journal,) = tmp_path.glob("a/*/default/*-info.jsonl")
    journal.write_bytes(journal.read_bytes()[:-10])
    assert counts(pull(tmp_path / "a", tmp_path / "b")) == (2, 0, 0, 0)


WRITER = """
import sys, test_sharing
for start in range(0, 120, 3):
    list(test_sharing.Items(infra={"folder": sys.argv[1], "keep_in_ram": False}).process(range(start, start + 3)))
    print(start, flush=True)
"""


def test_beside_a_writer_and_compactions(tmp_path: Path) -> None:
    """Whatever the source does meanwhile, what arrives is whole, and in the end all is there."""
    arguments = [sys.executable, "-c", WRITER, str(tmp_path / "a")]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        there = 0
        while writer.poll() is None:
            done = push(tmp_path / "a", tmp_path / "place")
            assert done.present >= there and not done.different
            there = done.added + done.present
            maintenance.compact(tmp_path / "a")
            pulled = pull(tmp_path / "place", tmp_path / "b")
            assert pulled.is_complete and pulled.added + pulled.present == there
    assert writer.returncode == 0
    done = push(tmp_path / "a", tmp_path / "place")
    assert done.is_complete and done.added + done.present == 120
    pull(tmp_path / "place", tmp_path / "b")
    assert [x[0] for x in Items(infra={"folder": tmp_path / "b"}).process(range(120))] == list(range(120))
    assert maintenance.verify(tmp_path / "b").is_clean and maintenance.verify(tmp_path / "place").is_clean


def test_wrong_addresses(filled: Path, tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    options = {"endpoint_url": s3_server}
    with pytest.raises(TransferError, match="there are no results in .*none"):
        pull(tmp_path / "none", tmp_path / "root")
    with pytest.raises(ConfigValueError, match="nope://x is no address that fsspec knows, like s3://bucket/folder"):
        push(filled, "nope://x")
    for typo in ("s3:/bucket/x", "s3:bucket/x"):
        with pytest.raises(ConfigValueError, match="no address: did you mean s3://bucket/x\\? If it is a folder, write ./s3:"):
            push(filled, typo)
    with pytest.raises(ConfigValueError, match="is a folder, which has no options: endpoint_url"):
        push(filled, tmp_path / "x", options=options)
    with pytest.raises(TransferError, match="can't (read|write) s3://no-such-bucket/x: .* (Check|What has)"):
        push(filled, "s3://no-such-bucket/x", options=options)
    with pytest.raises(TransferError, match="there are no results in|can't read s3"):
        pull("s3://no-such-bucket/x", tmp_path / "root", options=options)
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="can't write .*file.* do the same again"):
        push(filled, tmp_path / "file")


def test_packages_that_are_missing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    assert fsspec
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # if it was loaded
    with pytest.raises(ImportError, match=r"needs a package for s3, which is not installed: pip install 'exca_like\[remote\]'"):
        push(filled, "s3://bucket/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"needs fsspec, which is not installed: pip install 'exca_like\[remote\]'"):
        push(filled, "s3://bucket/x")
