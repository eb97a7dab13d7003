"""Files and folders of users in the store: shared, read-only, and gone when nothing needs them."""

import errno
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exca_like import maintenance
from exca_like.cachedict import CacheDict, FileEntry
from exca_like.cachedict.handlers import paths
from exca_like.cachedict.handlers.paths import Files
from exca_like.errors import (
    CacheFolderError,
    ConfigTypeError,
    ConfigValueError,
    CorruptEntryWarning,
    DataFileError,
    MissingFileError,
)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("hello")
    (folder / "sub" / "b.txt").write_text("hello")
    (folder / "run.sh").write_text("#!")
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def cache(tmp_path):
    return CacheDict(tmp_path / "cache", cache_type="Files")


def stored(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".jsonl")


def blobs(cache):
    return [path for path in (cache.folder / "data" / "files").rglob("*") if path.is_file()]


def put(cache, **values):
    with cache.write():
        cache.update(values)


def test_plain_paths_are_still_only_names(tmp_path, source):
    cache = CacheDict(tmp_path / "cache")
    put(cache, a=source / "a.txt", b=[source])
    assert cache["a"] == source / "a.txt" and cache["b"] == [source]
    assert stored(cache.folder) == []


def test_files_are_copied_under_their_name_and_read_only(cache, source):
    put(cache, a=source / "a.txt", b=source)
    (source / "a.txt").write_text("changed")
    loaded = cache["a"]
    assert loaded.name == "a.txt" and loaded.read_text() == "hello"
    assert cache.folder in loaded.parents
    assert stat.S_IMODE(loaded.stat().st_mode) & 0o222 == 0
    assert cache["b"].name == "source" and (cache["b"] / "sub" / "b.txt").read_text() == "hello"
    assert os.access(cache["b"] / "run.sh", os.X_OK) and not stat.S_IMODE(loaded.stat().st_mode) & 0o111
    assert cache.files("a") == [loaded]


def test_permissions_hold_but_for_writing(tmp_path, source):
    cache = CacheDict(tmp_path / "cache", cache_type="Files", permissions=0o640)
    put(cache, a=source / "a.txt", b=source / "run.sh")
    assert [stat.S_IMODE(cache[key].stat().st_mode) for key in "ab"] == [0o440, 0o550]
    assert stat.S_IMODE(cache["a"].parent.stat().st_mode) == 0o750
    wider = CacheDict(tmp_path / "cache", cache_type="Files", permissions=0o664)
    put(wider, c=source / "a.txt")
    assert stat.S_IMODE(wider["c"].stat().st_mode) == 0o444 and len(blobs(cache)) == 2


def test_equal_files_are_one_on_disk_until_the_last_entry_goes(cache, source):
    put(cache, a=source / "a.txt", b=source, c={"x": [source / "a.txt"]})
    shared = {(path.stat().st_ino) for path in stored(cache.folder) if path.read_bytes() == b"hello"}
    assert len(shared) == 1 and len(blobs(cache)) == 2  # and run.sh
    with cache.write():
        del cache["b"], cache["a"]
    (blob,) = blobs(cache)
    assert blob.stat().st_nlink == 2 and cache["c"]["x"][0].read_text() == "hello"
    with CacheDict(cache.folder).write() as other:  # which knows nothing of the handler, but for what the entry says
        del other["c"]
    assert stored(cache.folder) == []


def test_a_process_that_never_stored_files_deletes_them(cache, source):
    put(cache, a=source, b={"x": source / "a.txt"})
    code = "import sys; from exca_like import CacheDict; c = CacheDict(sys.argv[1])\nwith c.write():\n  del c['a'], c['b']"
    subprocess.run([sys.executable, "-c", code, str(cache.folder)], check=True)
    assert stored(cache.folder) == []


def test_without_hard_links_there_are_copies(cache, source, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    put(cache, a=source / "a.txt", b=source)
    assert blobs(cache) == [] and len(stored(cache.folder)) == 4
    assert cache["a"].read_text() == "hello" and maintenance.verify(cache.folder).is_clean
    with cache.write():
        del cache["a"], cache["b"]
    assert stored(cache.folder) == []


def test_a_damaged_file_is_a_miss_and_does_not_spread(cache, source):
    put(cache, a=source / "a.txt")
    path = cache["a"]
    path.chmod(0o644)
    path.write_text("hellO")
    fresh = CacheDict(cache.folder, cache_type="Files")
    with pytest.warns(CorruptEntryWarning):
        assert fresh.get("a") is None
    put(fresh, b=source / "a.txt")
    put(fresh, c=source / "a.txt")
    assert fresh["b"].read_text() == "hello"
    assert fresh["b"].stat().st_ino == fresh["c"].stat().st_ino


@pytest.mark.parametrize("what", ["a.txt", "none", "empty", "link"])
def test_anything_missing_of_a_folder_is_a_miss(cache, source, what):
    (source / "none").write_text("")
    (source / "empty").mkdir()
    (source / "link").symlink_to("a.txt")
    put(cache, a=source)
    path = cache["a"] / what
    path.rmdir() if what == "empty" else path.unlink()
    with pytest.warns(CorruptEntryWarning):
        assert CacheDict(cache.folder).get("a") is None


def test_links(cache, source, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.txt").write_text("outside")
    (source / "sub" / "up").symlink_to("../a.txt")
    (source / "absolute").symlink_to(source / "sub")
    (source / "out").symlink_to(tmp_path / "outside")
    (source / "broken").symlink_to("nothing")
    put(cache, a=source)
    loaded = cache["a"]
    assert os.readlink(loaded / "absolute") == "sub" and os.readlink(loaded / "sub" / "up") == "../a.txt"
    assert not (loaded / "out").is_symlink() and (loaded / "out" / "o.txt").read_text() == "outside"
    assert (loaded / "broken").is_symlink()
    (source / "broken").unlink()
    (source / "broken").symlink_to(tmp_path / "nothing")
    with pytest.raises(MissingFileError, match="source/broken"):
        put(cache, b=source)
    (source / "broken").unlink()
    (tmp_path / "outside" / "back").symlink_to(source)
    put(cache, b=source)
    assert os.readlink(cache["b"] / "out" / "back") == ".."
    (tmp_path / "outside" / "round").symlink_to(".")
    with pytest.raises(DataFileError, match="round in circles"):
        put(cache, c=source)


def test_what_can_not_be_stored_is_named_and_leaves_nothing(cache, source, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    odd = tmp_path / "odd\udcff"
    odd.write_text("")
    loop = [source]
    loop.append(loop)
    for value, error, text in [
        (tmp_path / "nothing", FileNotFoundError, f"there is no {tmp_path}/nothing"),
        ([source, tmp_path / "nothing"], MissingFileError, "nothing"),
        (tmp_path / "pipe", DataFileError, "neither a file nor a folder"),
        (str(source), ConfigTypeError, "make a text that names a file a Path"),
        ([], ConfigTypeError, "there is none"),
        (loop, ConfigTypeError, "contains itself"),
        (odd, ConfigValueError, "not valid UTF-8"),
    ]:
        with pytest.raises(error, match=text):
            put(cache, x=value)
        assert stored(cache.folder) == [] and "x" not in cache
    real = os.open

    def unreadable(path, *args, **kwargs):
        if str(path).endswith("b.txt") and "source/sub" in str(path) and "cache" not in str(path):
            raise PermissionError(errno.EACCES, "denied", path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", unreadable)
    with pytest.raises(DataFileError, match=r"can't read .*b\.txt.*denied"):
        put(cache, x=source)
    assert stored(cache.folder) == []


def test_a_full_disk_leaves_no_half_entry(cache, source, monkeypatch):
    put(cache, a=source / "a.txt")
    before = stored(cache.folder)
    (source / "z.bin").write_bytes(b"z" * 1000)

    def full(_, data):
        if data[:1] == b"z":
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(_, data)

    monkeypatch.setattr(paths.files, "write_all", full)
    with pytest.raises(CacheFolderError, match="space left"):
        put(cache, b=source)
    assert stored(cache.folder) == before and cache["a"].read_text() == "hello"


def test_maintenance(cache, source, tmp_path):
    put(cache, a=source, b=source / "a.txt", c={"x": source / "run.sh", "y": np.arange(1000)})
    assert maintenance.verify(cache.folder).is_clean
    for _ in range(2):  # journals of several writers
        put(CacheDict(cache.folder), **{f"n{_}": 1})
    maintenance.compact(cache.folder)
    assert maintenance.verify(cache.folder).is_clean
    again = CacheDict(cache.folder)
    assert (again["a"] / "a.txt").read_text() == "hello" and again["c"]["y"][-1] == 999
    for follow in (False, True):
        copy = tmp_path / f"copy{follow}"
        (source / "link").symlink_to("a.txt") if not follow else None
        put(cache, **{f"link{follow}": source})
        shutil.copytree(cache.folder, copy, symlinks=not follow)
        assert maintenance.verify(copy).is_clean
        moved = CacheDict(copy)
        assert copy in moved["b"].parents and (moved[f"link{follow}"] / "link").read_text() == "hello"
        with moved.write():
            del moved["b"]
        assert maintenance.verify(copy).is_clean and (moved["a"] / "a.txt").read_text() == "hello"
        moved.clear()
        assert stored(copy) == []
    cache.clear()
    assert stored(cache.folder) == [] and not (cache.folder / "data").exists()


def test_what_a_killed_writer_left_is_found_and_removed(cache, source):
    (source / "same-0123456789abcdef").write_text("hello")
    put(cache, a=source)
    (source / "extra").write_text("more")
    (source / "link").symlink_to("extra")
    put(cache, b=source)
    with cache.write():
        journal = next(cache.folder.glob("*-info.jsonl"))
        lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0])  # as if it had been killed before its line
    assert list((cache.folder / "data").rglob("b-*"))
    found = maintenance.verify(cache.folder)
    assert {problem.kind for problem in found.problems} == {"orphaned"}
    assert not any(problem.path.name == "same-0123456789abcdef" and "/a-" in str(problem.path) for problem in found.problems)
    assert maintenance.verify(cache.folder, repair=True).is_clean
    assert [path.name for path in (cache.folder / "data").rglob("b-*")] == []  # names of journals may have this, too
    assert len(blobs(cache)) == 2  # of the first entry
    assert (CacheDict(cache.folder)["a"] / "a.txt").read_text() == "hello"


def test_a_private_copy_can_be_changed_and_goes_with_the_process(tmp_path, source):
    (source / "link").symlink_to("a.txt")
    cache = CacheDict(tmp_path / "cache", cache_type=Files(copy=True))
    put(cache, a=source, b=source / "run.sh")
    first, second = cache["a"], cache["a"]
    (first / "a.txt").write_text("changed")
    assert first != second and (second / "link").read_text() == "hello" and os.readlink(first / "link") == "a.txt"
    assert cache["b"].name == "run.sh" and os.access(cache["b"], os.X_OK)
    code = "import sys; from exca_like import CacheDict; print(CacheDict(sys.argv[1])['b'])"
    result = subprocess.run([sys.executable, "-c", code, str(cache.folder)], check=True, capture_output=True, text=True)
    assert result.stdout.strip().endswith("run.sh") and not Path(result.stdout.strip()).exists()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        copied = pool.apply(_copied, (cache.folder,))
        pool.close()
        pool.join()
    assert not copied.exists() and first.exists()


def _copied(folder):
    path = CacheDict(folder)["b"]
    assert path.exists()
    return path


def _store(folder, path, number):
    cache = CacheDict(folder, cache_type="Files")
    with cache.write():
        for index in range(20):
            cache[f"{number}-{index}"] = path
            if index % 3 == number % 3:
                del cache[f"{number}-{index}"]


def test_processes_that_store_equal_files_at_once(cache, source):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_store, args=(cache.folder, source / "a.txt", number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(cache) >= 39 and all(path.read_text() == "hello" for path in cache.values())
    assert maintenance.verify(cache.folder).is_clean
    with cache.write():
        for key in cache:
            del cache[key]
    assert stored(cache.folder) == []


def test_a_single_file_is_no_place_for_them(tmp_path, source):
    with pytest.raises(ConfigTypeError, match="only in a CacheDict"):
        FileEntry(tmp_path / "x", Files(copy=True)).save(source)
