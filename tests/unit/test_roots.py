"""Folders that are given as cache roots: which are some, and what is said of parts of them, and of folders above."""

import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pydantic
import pytest

import exca_like
from exca_like import CacheDict, roots
from exca_like.catalog import Catalog
from exca_like.errors import CacheFolderError, CacheRootError
from exca_like.sharing import export_bundle, import_bundle, pull, push


class Task(pydantic.BaseModel):
    lr: float = 0.1
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> float:
        return self.lr + self.seed


def double(x: int) -> int:
    return 2 * x


def fill(root: Path) -> Path:
    """A cache root with two configs, of which one has a folder with a name like that of a method; returns the method's."""
    for seed in (0, 11):
        Task(lr=0.2, seed=seed, infra={"folder": root}).run()
    (method,) = root.glob("*Task.run,1")
    assert {path.name.partition("-")[0] for path in method.iterdir()} == {"lr=0.2", "lr=0.2,seed=11"}
    return method


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Copies a folder to an object store in memory, and returns its address there."""
    system = fsspec.filesystem("memory")

    def copy(folder: Path) -> str:
        base = f"/{tmp_path.name}/{folder.name}"
        system.put(str(folder), base, recursive=True)
        return f"memory:/{base}"

    yield copy
    if system.exists(f"/{tmp_path.name}"):
        system.rm(f"/{tmp_path.name}", recursive=True)


def in_cache(part: object, root: object) -> str:
    return f"{re.escape(f'{part} is a folder in the cache, and not its root: give {root}')}$"


def test_a_part_of_a_cache_has_no_catalog(tmp_path: Path) -> None:
    method = fill(tmp_path / "cache")
    for part in (method, *method.iterdir()):
        with pytest.raises(CacheFolderError, match=in_cache(part, tmp_path / "cache")):
            Catalog(part)
    assert len(Catalog(tmp_path / "cache")) == 2


def test_nothing_is_pulled_from_or_pushed_to_a_part_of_a_cache(tmp_path: Path, memory: Callable[[Path], str]) -> None:
    root = tmp_path / "cache"
    method = fill(root)
    url = memory(root)
    for part in (method, *method.iterdir()):
        there = f"{url}/{part.relative_to(root)}"
        for place, of in ((part, root), (there, url), (f"{there}/", url)):
            with pytest.raises(CacheRootError, match=in_cache(str(place).rstrip("/"), of) if place == part else f"give {of}$"):
                pull(place, tmp_path / "new")
            with pytest.raises(CacheRootError, match=f"give {of}$"):
                push(root, place)
        with pytest.raises(CacheRootError, match=in_cache(part, root)):
            pull(url, part)
        with pytest.raises(CacheRootError, match=in_cache(part, root)):
            push(part, tmp_path / "new")
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_nothing_is_pulled_from_or_pushed_to_a_folder_above_caches(tmp_path: Path, memory: Callable[[Path], str]) -> None:
    project = tmp_path / "project"
    fill(project / "one")
    url = memory(project)
    for place in (project, url):
        for move in (lambda place: pull(place, tmp_path / "new"), lambda place: push(project / "one", place)):
            with pytest.raises(CacheRootError, match=f"{place} is no cache root, but holds a cache: give that, {place}/one$"):
                move(place)
    fill(project / "deep" / "two")
    with pytest.raises(CacheRootError, match=f"several caches: give one of them, {project}/deep/two, {project}/one"):
        pull(project, tmp_path / "new")
    for move in (push, export_bundle):
        with pytest.raises(CacheRootError, match="holds a cache: give that, .*/one$"):
            move(project, tmp_path / "there")
    with zipfile.ZipFile(tmp_path / "by,hand.zip", "w") as bundle:
        for path in project.rglob("*"):
            bundle.write(path, path.relative_to(project))
    with pytest.raises(CacheRootError, match="holds no cache root, but a folder with one, deep/two: unzip it"):
        import_bundle(tmp_path / "by,hand.zip", tmp_path / "new")
    assert not list(tmp_path.glob("new/*")) and not (tmp_path / "there").exists()


def named(folder: Path) -> None:
    with CacheDict(folder / "features").write() as cache:
        cache["x"] = 1


@pytest.mark.parametrize(
    "fill_root",
    [
        lambda root: exca_like.memo(folder=root, subdir="below")(double)(1),
        lambda root: exca_like.memo(folder=root, path="below/{function}/deeper")(double)(1),
        lambda root: exca_like.memo(folder=root, path="doubled")(double)(1),
        lambda root: exca_like.memo(folder=root, group_by=["x"])(double)(1),
        named,
    ],
    ids=["below", "deeper", "named", "groups", "dictionary"],
)
@pytest.mark.parametrize("name", ["cache", "results.2026,v2"])
def test_a_root_in_which_folders_have_names_of_the_users_choice(
    name: str, fill_root: Callable[[Path], object], tmp_path: Path, memory: Callable[[Path], str]
) -> None:
    root = tmp_path / name
    fill_root(root)
    roots.check_root(str(root))
    uids = {entry.uid for entry in Catalog(root)}
    assert len(uids) == 1
    for place in (root, memory(root)):
        assert pull(place, tmp_path / "new").added + push(tmp_path / "new", place).present >= 1
        assert {entry.uid for entry in Catalog(tmp_path / "new")} == uids
        shutil.rmtree(tmp_path / "new")
    export_bundle(root, tmp_path / "a.b,1.zip")
    assert import_bundle(tmp_path / "a.b,1.zip", tmp_path / "new").added == 1


def test_a_dictionary_can_be_pulled_alone(tmp_path: Path) -> None:
    named(tmp_path / "cache")
    assert pull(tmp_path / "cache" / "features", tmp_path / "new").added == 1
    assert CacheDict(tmp_path / "new")["x"] == 1


def test_copies_of_code_and_data_hold_no_caches(tmp_path: Path) -> None:
    names = ["features/vm-1-0123456789abcdef-info.jsonl"]
    for inner in ("code/12ab/old/a.B.c,1/x", "logs/me/a.B.c,1/x", "features/data/k/a.B.c,1/x"):
        names.append(f"{inner}/vm-1-0123456789abcdef-info.jsonl")
    roots.check_files(names, "s3://bucket", "s3://bucket")
    with pytest.raises(CacheRootError, match="give that, s3://bucket/old$"):
        roots.check_files([*names, "old/a.B.c,1/x/vm-1-0123456789abcdef-info.jsonl"], "s3://bucket", "s3://bucket")
