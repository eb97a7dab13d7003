"""What may be found in a folder, and what upkeep makes of it."""

import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import maintenance
from exca_like.cachedict import CacheDict, DumpContext
from exca_like.cachedict import compact as compacting
from exca_like.cachedict import verify as verifying
from exca_like.cachedict.lines import seal
from exca_like.cachedict.writer import host_name
from exca_like.catalog import Catalog
from exca_like.entries import claims_of
from exca_like.errors import CacheFolderError, CorruptEntryWarning
from exca_like.maintenance import compact, verify


def fill(folder, **values):
    cache = CacheDict(folder)
    with cache.write():
        for key, value in values.items():
            cache[key] = value
    return cache


def journal(folder, writer, *records):
    Path(folder, f"{writer}-info.jsonl").write_bytes(b"".join(map(seal, records)))


def damage(folder):
    for path in Path(folder, "data").glob("*.data"):
        path.write_bytes(path.read_bytes()[:-5] + b"wrong")


class Task(pydantic.BaseModel):
    x: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self.x


def journal_of(folder: Path) -> Path:
    (path,) = folder.rglob("*-info.jsonl")
    return path


DAMAGES = {
    "the end is lost": lambda line: line[:-20],
    "the last byte is lost": lambda line: line[:-1],
    "a byte is another": lambda line: line[:30] + b"?" + line[31:],
    "the last byte is another": lambda line: line[:-1] + b"?",
    "all is zero": lambda line: bytes(len(line)),
}


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_line_that_is_the_only_one_is_removed(tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    Task(infra={"folder": tmp_path}).run()
    path = journal_of(tmp_path)
    path.write_bytes(damaged(path.read_bytes()))
    (problem,) = verify(tmp_path).problems
    assert problem.path == path and Task(infra={"folder": tmp_path}).infra.status() == "not submitted"
    report = verify(tmp_path, repair=True)
    assert report.is_clean and report.repaired == [problem] and f"\nremoved: {problem}" in str(report)
    assert not path.exists() and str(verify(tmp_path)).startswith("0 results and errors in 0 folders, 0 problems")
    assert Task(infra={"folder": tmp_path}).run() == 0
    assert str(verify(tmp_path)) == "1 results and errors in 1 folder, 0 problems"


@pytest.mark.parametrize("first", [True, False])
def test_a_line_that_is_being_written_stays(tmp_path: Path, first: bool) -> None:
    with CacheDict(tmp_path).write() as cache:
        cache["a"] = 1
        path = journal_of(tmp_path)
        content = path.read_bytes()[:-10] if first else path.read_bytes() + b'{"#key":"b"'
        path.write_bytes(content)
        assert verify(tmp_path, repair=True).is_clean
        assert path.read_bytes() == content
        assert list(CacheDict(tmp_path)) == ([] if first else ["a"])
    assert {problem.kind for problem in verify(tmp_path, repair=True).repaired} == {"torn"}
    assert list(CacheDict(tmp_path)) == ([] if first else ["a"])


def test_what_a_writer_completes_meanwhile_is_not_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, a=1)
    path = journal_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    held = verifying.held_writers

    def completing(folder: str) -> set[str]:
        path.write_bytes(whole)
        return held(folder)

    monkeypatch.setattr(verifying, "held_writers", completing)
    assert verify(tmp_path).is_clean


def test_writers_of_other_machines_have_a_day(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere-1-0123456789abcdef-info.jsonl"
    path.write_bytes(seal({"#key": "a", "#type": "Json", "content": 1})[:-10])
    assert verify(tmp_path, repair=True).is_clean and path.exists()
    os.utime(path, (0, 0))
    assert len(verify(tmp_path, repair=True).repaired) == 1 and not path.exists()


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
def test_what_a_repair_leaves_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CacheDict(tmp_path / "a").write() as cache:
        cache["a"], cache["b"] = 1, 2
        path = journal_of(tmp_path)
        path.write_bytes(path.read_bytes().replace(b'"a"', b'"c"'))
        assert "at work" not in str(verify(tmp_path))
        report = verify(tmp_path, repair=True)
        assert len(report.problems) == 1 and not report.repaired
        assert "(left as it is: its writer is at work" in str(report) and path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode, **_: False)
        assert f"(left as it is: can't write to {tmp_path}/a: check its permissions)" in str(verify(tmp_path, repair=True))
    assert verify(tmp_path, repair=True).is_clean


def test_a_line_longer_than_what_is_read_at_once_is_one_entry(tmp_path: Path) -> None:
    long = "k" * 3_000_000
    fill(tmp_path, **{long: 1, "b": 2})
    assert set(CacheDict(tmp_path)) == {long, "b"}


class Secret(pydantic.BaseModel):
    key: pydantic.SecretStr = pydantic.SecretStr("a")
    tags: set[str] = {"a"}
    path: Path = Path("a")
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: list[int]) -> Iterator[int]:
        yield from items


@exca_like.memo(folder="unused")
def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A root with a task, a map and a function."""
    Task(x=1, infra={"folder": tmp_path}).run()
    changed = {"key": "b", "tags": {"on: off", "c"}, "path": "p: [1", "infra": {"folder": tmp_path}}
    list(Secret(**changed).process([1]))
    exca_like.memo(folder=tmp_path)(double.uncached)(1)
    assert verify(tmp_path).is_clean and len(list(tmp_path.rglob("full-uid.yaml"))) == 3
    return tmp_path


@pytest.mark.parametrize("name", ["config.yaml", "uid.yaml", "full-uid.yaml"])
@pytest.mark.parametrize("content", [b"", b"x: [1\n: :", b"- 1", b"\xff", b"x: 2026-99-99"])
def test_yaml_files_that_can_not_be_read(configs: Path, name: str, content: bytes) -> None:
    paths = sorted(configs.rglob(f"*/{name}"))
    for path in paths:
        path.write_bytes(content)
    report = verify(configs, repair=True)
    assert sorted((problem.path, problem.kind) for problem in report.problems) == [(path, "config") for path in paths]
    assert not report.repaired and "it is no yaml with names and values. Remove the yaml files" in str(report)
    for path in configs.rglob("*.yaml"):
        path.unlink()
    Task(x=1, infra={"folder": configs}).run()
    assert verify(configs).is_clean and len(list(configs.glob("*Task*/*/*.yaml"))) == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.yaml", "x is 1 in full-uid.yaml, but 7 in config.yaml: one of them was edited"),
        ("uid.yaml", "it has the uid x=7-8f14e45f, and not that of the folder"),
        ("full-uid.yaml", "x is 7 in full-uid.yaml, but 1 in config.yaml: one of them was edited"),
    ],
)
def test_yaml_files_of_another_config(configs: Path, name: str, said: str) -> None:
    for path in configs.glob("*/x=1-*/*-info.jsonl"):
        path.unlink()  # they count without results, too
    (path,) = configs.glob(f"*/x=1-*/{name}")
    path.write_text(path.read_text().replace("x: 1", "x: 7"))
    (problem,) = verify(configs).problems
    assert problem.kind == "config" and said in problem.detail and problem.path.parent == path.parent
    shutil.copytree(path.parent, configs / "copy")
    assert len(verify(configs / "copy").problems) == (name != "uid.yaml")  # a copy may have any name


def test_a_file_that_was_locked_in_a_folder_without_a_config_is_no_yaml_file(tmp_path: Path) -> None:
    fill(tmp_path / "features", a=1)
    with claims_of(str(tmp_path / "features")).quiet():
        pass
    assert (tmp_path / "features" / "full-uid.yaml").read_bytes() == b""
    assert verify(tmp_path).is_clean
    (tmp_path / "features" / "uid.yaml").touch()
    assert [problem.path.name for problem in verify(tmp_path).problems] == ["uid.yaml", "full-uid.yaml"]


def test_a_folder_of_another_name_and_one_of_another_function(configs: Path) -> None:
    (folder,) = configs.glob("*/x=1-*")
    folder.rename(folder.with_name("x=2"))
    (problem,) = verify(configs).problems
    assert problem.detail.startswith("it has the uid x=1-c4ca4238, and not that of the folder")
    (path,) = configs.glob("*double*/uid.yaml")
    path.write_text("function: other,0\n")
    assert "the yaml files name different functions" in str(verify(configs))


def test_yaml_files_of_exca_are_those_of_their_folders(tmp_path: Path) -> None:
    for version in ("0.4.8", "0.6.0"):
        folder = Path(__file__).parents[1] / "compat" / "exca_caches" / version
        assert {problem.kind for problem in verify(folder).problems} <= {"duplicate"}


@pytest.mark.parametrize("upkeep", [compact, lambda folder: verify(folder, repair=True)])
@pytest.mark.parametrize("seen", [True, False])
def test_what_was_computed_again_outlives_what_is_damaged(tmp_path, upkeep, seen):
    for number in range(6):  # names of writers sort by chance
        folder = tmp_path / str(number)
        fill(folder, a=np.zeros(1000))
        damage(folder)
        if seen:
            cache = CacheDict(folder)
            with pytest.warns(CorruptEntryWarning):
                assert cache.get("a") is None
        else:
            cache = CacheDict(folder)
        with cache.write():
            cache.put("a", np.ones(1000), replace=not seen)
        upkeep(folder)
        assert verify(folder).is_clean
        assert CacheDict(folder)["a"][0] == 1


def test_second_entries_that_are_sound_stay_when_the_first_ones_are_not(tmp_path):
    for number in range(6):
        folder = tmp_path / str(number)
        first, second = CacheDict(folder), CacheDict(folder)
        with first.write(), second.write():
            first["a"] = np.zeros(1000)
            second["a"] = np.ones(1000)  # it has not seen the other one
        kinds = {problem.kind for problem in verify(folder).problems}
        assert kinds == {"duplicate"}
        winner = CacheDict(folder)["a"][0]
        for path in Path(folder, "data").glob("*.data"):
            if np.frombuffer(path.read_bytes())[0] == winner:
                path.write_bytes(path.read_bytes()[:-5] + b"wrong")
        assert {problem.kind for problem in verify(folder).problems} == {"corrupt"}
        compact(folder)
        assert CacheDict(folder)["a"][0] == 1 - winner
        assert verify(folder).is_clean


def test_compaction_gives_up_at_errors_and_loses_nothing(tmp_path, monkeypatch):
    for number in range(3):
        fill(tmp_path, **{str(number): np.full(1000, number)})
    opened = os.open

    def fail(path, *arguments, **options):
        if str(path).endswith(".data") and not arguments[0] & os.O_CREAT:
            raise OSError(5, "Input/output error")
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OSError, match="can't read"):
            compact(tmp_path)
    assert {key: value[0] for key, value in CacheDict(tmp_path).items()} == {"0": 0, "1": 1, "2": 2}
    compact(tmp_path)
    assert verify(tmp_path).is_clean
    assert len(CacheDict(tmp_path)) == 3


def test_many_writers_are_compacted_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(compacting, "_AT_ONCE", 4)
    for number in range(30):
        fill(tmp_path, **{str(number): np.full(100, number)})
    (result,) = compact(tmp_path)
    assert (result.files_before, result.files_after) == (60, 2)
    assert {key: value[0] for key, value in CacheDict(tmp_path).items()} == {str(n): n for n in range(30)}


def test_folders_that_can_not_be_written_to_say_so(tmp_path, monkeypatch):
    fill(tmp_path, a=1)
    monkeypatch.setattr(os, "access", lambda path, mode, **_: False)
    with pytest.raises(CacheFolderError, match="check its permissions"):
        compact(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        {"#replaces": 5, "#key": "a"},
        {"#replaces": [["x"]], "#key": "a", "#type": "Json", "content": 1},
        {"#replaces": [[1, 2]], "#key": "a", "#type": "Json", "content": 1},
        {"#key": "a"},
        {"#key": "a", "#type": "Json", "content": 1, "#data": 5},
        {"#key": "a", "#type": "Json", "content": 1, "#data": [5]},
        {"#key": "a", "#type": "MemmapArray", "filename": ".data", "offset": 0, "#data": [[".data", "x", 5, "00000000"]]},
        {"#key": "a", "#type": "Json", "#writer": "../../outside", "filename": ".json", "offset": 0, "length": 5},
        {"#key": "a", "#type": "Json", "filename": "../outside.json", "offset": 0, "length": 5},
        {"#key": "a", "#type": "Json", "filename": "/etc/passwd", "offset": 0, "length": 5},
    ],
)
def test_lines_that_make_no_sense_cost_themselves_alone(tmp_path, record):
    (tmp_path / "outside.json").write_bytes(b"12345")
    folder = tmp_path / "folder"
    fill(folder, sound=1)
    journal(folder, "host-1-0123456789abcdef", record)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptEntryWarning)
        cache = CacheDict(folder)
        assert cache["sound"] == 1
        if record.get("#data") != [5] or record["#type"] != "Json":
            assert cache.get("a") is None
        verify(folder)
        compact(folder)
        assert CacheDict(folder)["sound"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_whose_journal_says_what_a_pickle_is(tmp_path):
    array = np.frombuffer(pickle.dumps(set) + bytes(1000), np.uint8)
    cache = fill(tmp_path, array=array)
    place = cache.describe("array")
    writer = next(tmp_path.glob("*-info.jsonl")).name.removesuffix("-info.jsonl")
    info = {"filename": f"data/{writer}.data", "offset": place["offset"], "length": place["length"]}
    journal(tmp_path, "host-1-0123456789abcdef", {"#key": "pickle", "#type": "Pickle", **info})
    assert CacheDict(tmp_path)["pickle"] is set
    os.chown(tmp_path / "host-1-0123456789abcdef-info.jsonl", 1234, 1234)
    with pytest.raises(RuntimeError, match="belongs to user 1234"):
        CacheDict(tmp_path)["pickle"]


def test_clear_leaves_the_files_of_others(tmp_path):
    cache = fill(tmp_path, a=np.zeros(1000), b=1)
    others = [tmp_path / "data" / "raw" / "subject.csv", tmp_path / "my-info.jsonl", tmp_path / "data" / "notes.txt"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptEntryWarning)
        cache.clear()
        assert len(cache) == 0
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


def test_frozen_blocks_may_overlap(tmp_path):
    cache = CacheDict(tmp_path)
    first, second = cache.frozen_cache_folder(), cache.frozen_cache_folder()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    fill(tmp_path, a=1)
    assert "a" not in cache
    second.__exit__(None, None, None)
    assert "a" in cache


@pytest.mark.parametrize("permissions", [770, -1, "770", True, 0o1777])
def test_permissions_are_modes_of_files(tmp_path, permissions):
    with pytest.raises(ValueError, match="like 0o660"):
        CacheDict(tmp_path / "cache", permissions=permissions)
    assert not (tmp_path / "cache").exists()


def test_failed_flush_takes_the_line_back(tmp_path, monkeypatch):
    cache = CacheDict(tmp_path, fsync=True)
    flush = os.fsync
    with cache.write():
        cache["first"] = 1

        def fail(descriptor):
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith("-info.jsonl") and len(calls) == 1:
                raise OSError(5, "Input/output error")
            calls.append(1)
            flush(descriptor)

        calls = []
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            cache["a"] = "lost"
        monkeypatch.undo()
        cache["a"] = "kept"
    assert CacheDict(tmp_path)["a"] == "kept"
    assert verify(tmp_path).is_clean


def test_handlers_are_told_about_wrong_methods(tmp_path):
    class NoClassmethod:
        def __dump_info__(self, ctx):
            return {}

        def __load_from_info__(self, ctx):
            return None

    with pytest.raises(ValueError, match="must be a classmethod"):
        DumpContext.register(NoClassmethod)


def test_what_is_removed_while_it_is_verified_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        cache: CacheDict[int] = CacheDict(tmp_path / name)
        with cache.write():
            cache["x"] = 1
    look = maintenance.examine

    def while_others_remove(folder: str) -> object:
        if folder.endswith("a"):
            shutil.rmtree(tmp_path / "b")
        return look(folder)

    monkeypatch.setattr(maintenance, "examine", while_others_remove)
    assert str(maintenance.verify(tmp_path)).startswith("2 ")


LOST_LINES: dict[str, Callable[[Path], object]] = {
    "a byte is another": lambda path: path.write_bytes(path.read_bytes().replace(b"#type", b"#tipe")),
    "the end is lost": lambda path: os.truncate(path, path.stat().st_size - 20),
    "the data are gone": lambda path: [
        data.unlink() for data in path.parent.glob(f"data/{path.name.removesuffix('-info.jsonl')}.*")
    ],
}


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
@pytest.mark.parametrize("damaged", LOST_LINES.values(), ids=LOST_LINES)
def test_compaction_leaves_a_folder_in_which_something_is_damaged(tmp_path: Path, damaged: Callable[[Path], object]) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    for folder in (bad, good):
        for number in range(3):
            fill(folder, **{str(number): np.full(1000, number)})
    damaged(sorted(bad.glob("*-info.jsonl"))[1])
    files = {path: path.read_bytes() for path in bad.rglob("*") if path.is_file()}
    problems = verify(bad).problems
    left, merged = compact(tmp_path)
    assert (left.is_damaged, left.files_after, left.bytes_after) == (True, left.files_before, left.bytes_before)
    assert not merged.is_damaged and merged.files_after == 2
    assert problems and verify(bad).problems == problems
    assert {path: path.read_bytes() for path in bad.rglob("*") if path.is_file()} == files
    assert verify(bad, repair=True).is_clean
    assert [done.is_damaged for done in compact(tmp_path)] == [False, False] and len(CacheDict(bad)) == 2


def test_a_journal_without_a_line_is_that_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    fill(tmp_path, a=1)
    (tmp_path / f"{host_name()}-1-0123456789abcdef-info.jsonl").touch()
    assert verify(tmp_path).is_clean
    (done,) = compact(tmp_path)
    assert (done.files_before, done.files_after, done.is_damaged) == (2, 1, False)


class Arrays(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def packed(self, items: list[int]) -> Iterator[np.ndarray]:
        for item in items:
            yield np.full(1000, item)


class Files(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str, cache_type="NumpyArray")
    def single(self, items: list[int]) -> Iterator[np.ndarray]:
        for item in items:
            yield np.full(1000, item)


@pytest.fixture
def alone(tmp_path: Path) -> list[Path]:
    """The data files of two maps and a dictionary whose journals are gone."""
    list(Arrays(infra={"folder": tmp_path}).packed(range(3)))
    list(Files(infra={"folder": tmp_path}).single(range(3)))
    fill(tmp_path / "features", a=np.zeros(1000))
    for path in tmp_path.rglob("*.jsonl"):
        path.unlink()
    data = sorted(path for path in tmp_path.rglob("*") if "data" in path.parts[:-1] and path.is_file())
    assert len(data) == 1 + 3 + 1
    return data


def test_data_without_a_journal_are_orphaned(alone: list[Path], tmp_path: Path) -> None:
    report = verify(tmp_path)
    assert (report.folders, report.entries) == (3, 0)
    assert {(problem.kind, problem.path) for problem in report.problems} == {("orphaned", path) for path in alone}
    assert {problem.detail for problem in report.problems} == {"no journal is there that names it"}
    entries = {entry.method.rpartition(".")[2]: entry for entry in Catalog(tmp_path)}
    for name in ("packed", "single"):
        assert entries[name].status == "empty" and entries[name].size > 8000
        assert entries[name].reason == "data that no journal names: `exca-like verify` tells"
    assert all(path.exists() for path in alone)
    arriving = verify(tmp_path, repair=True).problems  # a file of one entry may be one that is being pushed
    assert arriving and all("single" in str(one.path) and one.path.exists() and one.kept for one in arriving)
    for one in arriving:
        os.utime(one.path, (1e9, 1e9))
    report = verify(tmp_path, repair=True)
    assert report.is_clean and len(report.repaired) == len(arriving) and not any(path.exists() for path in alone)
    assert [(entry.reason, entry.size) for entry in Catalog(tmp_path)] == [("", 0)] * 2
    assert [x[0] for x in Arrays(infra={"folder": tmp_path}).packed(range(3))] == [0, 1, 2]
    assert verify(tmp_path).is_clean


def test_data_of_an_empty_journal_are_orphaned(tmp_path: Path) -> None:
    list(Arrays(infra={"folder": tmp_path}).packed(range(3)))
    journal_of(tmp_path).write_bytes(b"")
    assert [problem.kind for problem in verify(tmp_path).problems] == ["orphaned"]
    assert "no journal names" in Catalog(tmp_path)[0].reason
    assert verify(tmp_path, repair=True).is_clean and Catalog(tmp_path)[0].reason == ""
    assert [x[0] for x in Arrays(infra={"folder": tmp_path}).packed([1])] == [1]
    with CacheDict(journal_of(tmp_path).parent).write() as cache:
        del cache["1"]
    assert Catalog(tmp_path)[0].reason == "", "its space is freed by compact"


def test_data_without_a_journal_stay_while_somebody_computes(alone: list[Path], tmp_path: Path) -> None:
    folder = next(path.parents[1] for path in alone if "packed" in str(path))
    (claim,), _ = claims_of(str(folder)).claim(["9"], lambda free: [free])
    for path in alone:
        os.utime(path, (1e9, 1e9))
    with claim:
        report = verify(tmp_path, repair=True)
        (left,) = report.problems
        assert left.path.parents[1] == folder and left.path.exists() and "somebody computes here" in left.kept
        assert len(report.repaired) == len(alone) - 1
    assert verify(tmp_path, repair=True).is_clean


def test_data_that_are_being_pushed_stay(tmp_path: Path) -> None:
    data = tmp_path / "a.B.c,1" / "default" / "data" / "shared-0-0123456789abcdef.data"
    data.parent.mkdir(parents=True)
    (data.parents[1] / "uid.yaml").touch()
    data.write_bytes(b"data")
    (left,) = verify(tmp_path, repair=True).problems
    assert left.path == data and "of another machine and was so within a day" in left.kept and data.exists()
    os.utime(data, (1e9, 1e9))
    assert verify(tmp_path, repair=True).is_clean and not data.exists()


def test_files_of_users_are_no_data_without_a_journal(tmp_path: Path) -> None:
    names = ("x-0123456789abcdef.npy", "ab/x-0123456789abcdef1.npy", "files/ab/0123456789abcdef", "vm-12-012345.data")
    for name in names:
        path = tmp_path / "project" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    fill(tmp_path / "project" / "features", a=1)
    report = verify(tmp_path, repair=True)
    assert report.is_clean and report.folders == 1
    assert all((tmp_path / "project" / "data" / name).exists() for name in names)


def test_what_is_compacted_keeps_its_time(tmp_path: Path) -> None:
    """By which maps are listed and pruned."""
    for key in "ab":
        with (cache := CacheDict(tmp_path)).write():
            cache[key] = 1
    for number, path in enumerate(sorted(tmp_path.glob("*.jsonl"))):
        os.utime(path, (1000 + number, 1000 + number))
    compact(tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    assert path.stat().st_mtime == 1001 and dict(CacheDict(tmp_path)) == {"a": 1, "b": 1}


def test_an_empty_packed_file_is_no_damage(tmp_path: Path) -> None:
    """As a full disk leaves one behind."""
    with (cache := CacheDict(tmp_path)).write():
        cache["a"] = np.zeros(1000)
    (packed,) = (tmp_path / "data").glob("*.data")
    packed.with_name(packed.name.replace(packed.name.split("-")[-1].split(".")[0], "0" * 16)).touch()
    assert len(list((tmp_path / "data").iterdir())) == 2
    assert verify(tmp_path).problems == []
