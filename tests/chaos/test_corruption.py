"""Damage of every kind: never a wrong value, never an unreadable folder, and nothing lost but what was damaged."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from chaos.values import same

from exca_like.cachedict import CacheDict
from exca_like.errors import CorruptEntryWarning
from exca_like.maintenance import verify

MISSING = "<missing>"
LONG_AGO = 1_600_000_000  # lines with NULs count as not there yet for a minute


@dataclass
class Piece:
    """Bytes of a file."""

    file: str
    start: int
    end: int

    def meets(self, other: "Piece") -> bool:
        return self.file == other.file and self.start < other.end and other.start < self.end


@dataclass
class Entry:
    """What became of a key: its values one after the other, and the bytes that the last of them consists of."""

    values: list[Any]
    pieces: list[Piece] = field(default_factory=list)
    records: list[Piece] = field(default_factory=list)  # lines that say that earlier values are gone


@dataclass
class Folder:
    """A folder of entries."""

    path: Path
    entries: dict[str, Entry]
    files: dict[str, bytes]

    def copy(self, target: Path, damaged: dict[str, bytes | None]) -> Path:
        """The folder with other contents of some files (None: it is missing); all others are links."""
        for name in {os.path.dirname(name) for name in self.files}:
            os.makedirs(target / name, exist_ok=True)
        for name in self.files:
            if name not in damaged:
                os.link(self.path / name, target / name)
        for name, content in damaged.items():
            if content is not None:
                (target / name).write_bytes(content)
                os.utime(target / name, (LONG_AGO, LONG_AGO))
        return target


def make_folder(path: Path, *, large: bool) -> Folder:
    """Entries of several types from two writers, some of them deleted, replaced, or written again."""
    rng = np.random.default_rng(0)
    history: dict[str, list[Any]] = {}
    plain, single, text, pickled = (CacheDict[Any](path, cache_type=kind) for kind in (None, "NumpyArray", "String", "Pickle"))

    def put(cache: CacheDict[Any], key: str, value: Any, *, replace: bool = False) -> None:
        with cache.write():
            cache.put(key, value, replace=replace)
        history.setdefault(key, []).append(value)

    def delete(cache: CacheDict[Any], key: str) -> None:
        with cache.write():
            del cache[key]
        history[key].append(MISSING)

    size = 25_600 if large else 40
    put(plain, "first", 1)
    put(plain, "replaced", [1.5, "old"])
    put(plain, "array", rng.random(size))
    put(plain, "rewritten", rng.random(size))
    put(plain, "inline", np.arange(3))
    put(plain, "deleted", rng.random(size))
    put(plain, "long", [f"é{number}" for number in range(8000 if large else 150)])
    put(plain, "tree", {"a": [1, (2, 3)], "b": rng.random(size), "c": None})
    put(single, "file", rng.random(size))
    put(single, "file replaced", rng.random(5))
    put(single, "file deleted", rng.random(5))
    put(text, "text", "some text\n" * (9000 if large else 3))
    put(pickled, "pickle", {"a": {1, 2}, "b": "x" * (70_000 if large else 50)})
    put(plain, 'quoted " \\ \n é', 2.5)
    put(plain, "replaced", {"new": 1}, replace=True)
    put(plain, "replaced by an array", "old")
    other = CacheDict[Any](path)
    put(other, "replaced by an array", rng.random(size), replace=True)
    delete(other, "rewritten")
    put(other, "rewritten", rng.random(size))
    put(other, "other array", rng.integers(0, 9, size).astype(np.int32))
    delete(plain, "deleted")
    delete(single, "file deleted")
    put(single, "file replaced", rng.random(6), replace=True)
    put(plain, "last", "z")
    found = sorted((file for file in path.rglob("*") if file.is_file()), key=lambda file: (file.suffix, file.stat().st_size))
    files = {str(file.relative_to(path)): file.read_bytes() for file in found}  # names are random, this order is not
    for name in files:
        os.utime(path / name, (LONG_AGO, LONG_AGO))
    return Folder(path, {key: Entry(values) for key, values in history.items()}, files)


def note_pieces(folder: Folder) -> None:
    """Find the bytes of each entry, as the on-disk format tells."""
    live: dict[str, tuple[str, int]] = {}
    lines: dict[tuple[str, int], tuple[dict[str, Any], Piece]] = {}
    for name, content in folder.files.items():
        offset = 0
        if name.endswith(".jsonl"):
            for line in content.splitlines(keepends=True):
                lines[name, offset] = orjson.loads(line), Piece(name, offset, offset + len(line))
                offset += len(line)
    for (name, offset), (info, piece) in lines.items():
        gone = [tuple(place) for place in info.get("#replaces", [])]
        if name.endswith("-deleted.jsonl"):
            gone.append((info["#file"], info["#at"]))
        if gone:
            folder.entries[info["#key"]].records.append(piece)
        assert all(lines[place][0]["#key"] == info["#key"] for place in gone)
    for key, entry in folder.entries.items():
        if not same(entry.values[-1], MISSING):
            live[key] = place_of(folder.path, key)
            info, piece = lines[live[key]]
            writer = live[key][0].removesuffix("-info.jsonl")
            entry.pieces = [piece] + [
                Piece(f"data/{writer}{span}" if span.startswith(".") else span, offset, offset + length)
                for span, offset, length, _ in info.get("#data", ())
            ]


def place_of(folder: Path, key: str) -> tuple[str, int]:
    cache = CacheDict[Any](folder)
    cache.refresh()
    (place,) = cache.places(key)
    name, offset = cache._index.describe(place)
    return name, offset


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("small") / "cache", large=False)
    note_pieces(folder)
    assert sum(not same(entry.values[-1], MISSING) for entry in folder.entries.values()) >= 15
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("large") / "cache", large=True)
    note_pieces(folder)
    return folder


class Outcome:
    """What readers said about damaged folders, counted."""

    def __init__(self) -> None:
        self.cases = self.lost = self.reports = 0

    def __str__(self) -> str:
        return f"{self.cases} cases, {self.lost} entries lost, {self.reports} reports, no wrong value"


def read(cache: CacheDict[Any], keys: Any) -> tuple[dict[str, Any], list[str]]:
    """Each key's value as it is (`MISSING` if there is none), and what was reported."""
    found = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for key in keys:
            try:
                found[key] = cache[key]
            except KeyError:
                found[key] = MISSING
    assert all(issubclass(warning.category, CorruptEntryWarning) for warning in caught), [str(w.message) for w in caught]
    return found, [str(warning.message) for warning in caught]


def check(
    folder: Folder,
    path: Path,
    damage: list[Piece],
    outcome: Outcome,
    *,
    earlier: bool = False,
    cache: CacheDict[Any] | None = None,
    unchecked: int | None = None,
) -> list[str]:
    """Read a damaged folder, and compare with what was damaged; returns the reports.

    ``earlier``: the damage may have made the folder what it was earlier. ``unchecked``: data above this size may have any
    value, as they were checked before.
    """
    cache = CacheDict[Any](path) if cache is None else cache
    found, reports = read(cache, folder.entries)
    again, more = read(cache, folder.entries)
    assert not more, "what was reported already was reported again"
    assert len(set(reports)) == len(reports)
    for key, entry in folder.entries.items():
        touched = any(piece.meets(hurt) for piece in entry.pieces for hurt in damage)
        undone = any(piece.meets(hurt) for piece in entry.records for hurt in damage)
        if unchecked is not None and touched and sum(piece.end - piece.start for piece in entry.pieces[1:]) > unchecked:
            continue
        *olds, final = entry.values
        for value in (found[key], again[key]):
            if not same(value, final):
                if same(value, MISSING):
                    assert touched, f"{key!r} is lost, though none of its bytes were touched: {damage}"
                else:
                    assert any(same(value, old) for old in olds), f"{key!r} has a wrong value after {damage}"
                    assert earlier and undone, f"{key!r} has an old value again after {damage}"
        outcome.lost += same(again[key], MISSING) and not same(final, MISSING)
    outcome.cases += 1
    outcome.reports += len(reports)
    return reports


def damaged_entries(folder: Folder, damage: list[Piece]) -> list[str]:
    return [key for key, entry in folder.entries.items() if any(p.meets(hurt) for p in entry.pieces for hurt in damage)]


def check_reports(folder: Folder, name: str, damage: list[Piece], reports: list[str]) -> None:
    """Each damaged entry was reported once, and nothing else was."""
    expected = [] if name.endswith(".jsonl") else damaged_entries(folder, damage)
    for key in expected:
        assert sum(repr(key) in report for report in reports) == 1, f"the damage of {key!r} is not reported once: {reports}"
    # entries whose deletion is undone may be there again without their files
    undone = [key for key, entry in folder.entries.items() if any(p.meets(hurt) for p in entry.records for hurt in damage)]
    others = [report for report in reports if "counts as missing" in report]
    assert all(any(repr(key) in report for key in [*expected, *undone]) for report in others), reports


def show(outcome: Outcome, what: str) -> None:
    print(f"{what}: {outcome}")


# whole folders, at new paths


def test_a_sound_folder(small, large, tmp_path):
    for number, folder in enumerate((small, large)):
        outcome = Outcome()
        assert not check(folder, folder.copy(tmp_path / str(number), {}), [], outcome)
        assert outcome.lost == 0
        assert verify(tmp_path / str(number)).is_clean


def truncate_everywhere(folder: Folder, tmp_path: Path, step: int) -> Outcome:
    outcome = Outcome()
    for name, content in folder.files.items():
        edges = {edge for entry in folder.entries.values() for p in entry.pieces if p.file == name for edge in (p.start, p.end)}
        near = {edge + shift for edge in edges for shift in (-1, 0, 1)}
        for length in sorted({*range(0, len(content), step), *near} & set(range(len(content)))):
            path = folder.copy(tmp_path / f"{len(name)}-{outcome.cases}", {name: content[:length]})
            damage = [Piece(name, length, len(content))]
            reports = check(folder, path, damage, outcome, earlier=name.endswith(".jsonl"))
            if name.endswith(".jsonl"):  # a line that is not complete is not there yet
                assert all(" line " not in report for report in reports)
            check_reports(folder, name, damage, reports)
            shutil.rmtree(path)
    return outcome


def test_truncation(small, tmp_path):
    show(truncate_everywhere(small, tmp_path, 5), "truncation")


@pytest.mark.slow
def test_truncation_at_every_byte(small, tmp_path):
    show(truncate_everywhere(small, tmp_path, 1), "truncation at every byte")


def test_truncation_of_large_data(large, tmp_path):
    show(truncate_everywhere(large, tmp_path, 40_009), "truncation of large data")


def flip_bits(folders: list[Folder], tmp_path: Path, number: int, seed: int) -> Outcome:
    rng = random.Random(seed)
    outcome = Outcome()
    for case in range(number):
        folder = folders[case // 2 % len(folders)]
        names = [name for name in folder.files if name.endswith(".jsonl") == bool(case % 2)]
        name = rng.choices(names, [len(folder.files[name]) for name in names])[0]
        content = bytearray(folder.files[name])
        offset = rng.randrange(len(content))
        content[offset] ^= 1 << rng.randrange(8)
        path = folder.copy(tmp_path / str(case), {name: bytes(content)})
        damage = [Piece(name, offset, offset + 1)]
        reports = check(folder, path, damage, outcome)
        check_reports(folder, name, damage, reports)
        if name.endswith(".jsonl") and offset < len(content) - 1:
            assert sum("the line at" in report for report in reports) in (1, 2), reports  # a flip may make two lines of one
        if case % 10 < 2 and (name.endswith(".jsonl") or reports):
            assert not verify(path).is_clean, "verify does not see the damage"
            verify(path, repair=True)
            assert verify(path).is_clean
            assert not check(folder, path, damage, Outcome())
        shutil.rmtree(path)
    return outcome


def test_flipped_bits(small, large, tmp_path):
    show(flip_bits([small, large], tmp_path, 300, seed=5), "flipped bits")


def test_flipped_ends_of_lines(small, tmp_path):
    """Each damages the line that it ends; the one behind it is untouched."""
    outcome = Outcome()
    for name, content in small.files.items():
        if name.endswith(".jsonl"):
            for offset in (number for number, byte in enumerate(content) if byte == ord("\n")):
                for bit in range(8):
                    damaged = bytearray(content)
                    damaged[offset] ^= 1 << bit
                    path = small.copy(tmp_path / f"{outcome.cases}", {name: bytes(damaged)})
                    check(small, path, [Piece(name, offset, offset + 1)], outcome)
    show(outcome, "flipped ends of lines")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6, None])
def test_many_flipped_bits(small, large, tmp_path, seed):
    seed = random.getrandbits(32) if seed is None else seed
    show(flip_bits([small, large], tmp_path, 2000, seed), f"flipped bits, seed {seed}")


def test_overwritten_ranges(small, large, tmp_path):
    rng = random.Random(7)
    outcome = Outcome()
    for case in range(150):
        folder = (small, large)[case % 2]
        name = rng.choice(list(folder.files))
        content = bytearray(folder.files[name])
        start = rng.randrange(len(content))
        end = min(len(content), start + rng.choice([2, 16, 100, 512, 4096]))
        content[start:end] = rng.choice([bytes(end - start), rng.randbytes(end - start), b"\n" * (end - start)])
        path = folder.copy(tmp_path / str(case), {name: bytes(content)})
        check(folder, path, [Piece(name, start, end)], outcome, earlier=name.endswith(".jsonl"))
        shutil.rmtree(path)
    show(outcome, "overwritten ranges")


def test_nul_tails(small, tmp_path):
    outcome = Outcome()
    for name, content in small.files.items():
        for number, added in enumerate([b"\0", bytes(100), bytes(5000), bytes(100) + b"\n", b"\n" + bytes(9)]):
            path = small.copy(tmp_path / f"{len(os.listdir(tmp_path))}", {name: content + added})
            if name.endswith((".jsonl", ".data", ".json", ".pkl")):
                check(small, path, [], outcome)
            for length in (1, 30, 300):  # of a file that has its length, but not its last bytes
                start = max(0, len(content) - length)
                path = small.copy(
                    tmp_path / f"{len(os.listdir(tmp_path))}-{number}", {name: content[:start] + bytes(len(content) - start)}
                )
                check(small, path, [Piece(name, start, len(content))], outcome, earlier=name.endswith(".jsonl"))
    show(outcome, "NUL tails")


def with_nuls(content: bytes, kind: str) -> tuple[bytes, int, int]:
    """A journal with NULs where a page is yet to come, from one place to another."""
    lines = content.splitlines(keepends=True)
    start, end = len(content) // 2, len(content)
    if kind == "first line":
        start, end = 0, len(lines[0]) - 1
    elif kind == "first lines":
        start, end = 5, len(b"".join(lines[:2])) + 7
    return content[:start] + bytes(end - start) + content[end:], start, end


@pytest.mark.parametrize("kind", ["first line", "first lines", "second half"])
def test_nuls_that_may_be_a_page_to_come(small, tmp_path, monkeypatch, kind):
    """Within a minute of a change, lines from the first NUL on count as not there yet; they are read when they arrive."""
    now = time.time()
    for name, content in small.files.items():
        if not name.endswith(".jsonl"):
            continue
        damaged, start, end = with_nuls(content, kind)
        path = small.copy(tmp_path / name, {name: damaged})
        os.utime(path / name, (now, now))
        cache, patient = CacheDict[Any](path), CacheDict[Any](path)
        later = [Piece(name, start, len(content))]
        for reader in (cache, patient):
            check(small, path, later, Outcome(), cache=reader, earlier=True)
        with monkeypatch.context() as patch:  # it was no page to come: the line is damaged, those behind it are not
            patch.setattr(time, "time", lambda: now + 100)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CorruptEntryWarning)
                patient.refresh()
            check(small, path, [Piece(name, start, end)], Outcome(), cache=patient, earlier=True)
        with open(path / name, "r+b") as stream:
            stream.write(content)
        os.utime(path / name, (now + 1, now + 1))
        cache.refresh()
        check(small, path, [], Outcome(), cache=cache)


def test_a_journal_that_shrinks_while_it_is_read(small, tmp_path):
    """As when a writer takes half a line back because the disk is full."""
    for name, content in small.files.items():
        if name.endswith(".jsonl"):
            path = small.copy(tmp_path / name, {name: content})
            cache = CacheDict[Any](path)
            look = cache._index._look

            def look_and_shrink(path: Path = path / name, look: Any = look) -> Any:
                seen = look()
                os.truncate(path, 0)
                return seen

            cache._index._look = look_and_shrink  # type: ignore[method-assign]
            cache.refresh()
            cache._index._look = look  # type: ignore[method-assign]
            check(small, path, [Piece(name, 0, len(content))], Outcome(), cache=cache, earlier=True)


GARBAGE: list[bytes] = [
    b"\n", b"\n\n\n", b"\r\n", b"x\n", b"{}\n", b"null\n", b"[]\n", b'"#key"\n', b"{\n", b'{"#key":"first"}\n', b'{"#key":"first","#type":"Json","content":9}\n',
    b'{"#key":"first","#type":"Json","content":9,"#sum":"00000000"}\n', b'{"#key":"\n', b'{"#key":1}\n', b'{"#replaces":[["x",0]],"#key":"first"}\n',
    b'{"#replaces":"\n', b"\xff\xfe\x00\n", b"\0" * 70 + b"\n", b"\xc3\x28\n", b"x" * 3_000_000 + b"\n", b"[" * 5000 + b"\n", bytes(range(256)) * 20 + b"\n",
]  # fmt: skip


def lines_of(folder: Folder) -> list[bytes]:
    return [
        line for name, content in folder.files.items() if name.endswith(".jsonl") for line in content.splitlines(keepends=True)
    ]


def test_garbage_lines_at_the_end(small, tmp_path):
    outcome = Outcome()
    for name, content in small.files.items():
        if name.endswith(".jsonl"):
            for number, garbage in enumerate(
                GARBAGE + [line[:-5] + b"\n" for line in lines_of(small)] + [line[5:] for line in lines_of(small)]
            ):
                for cut in (0, 1):  # with and without its end
                    added = garbage[: len(garbage) - cut]
                    path = small.copy(tmp_path / f"{name}-{number}-{cut}", {name: content + added})
                    check(small, path, [], outcome)
    show(outcome, "garbage at the end")


def test_sound_lines_in_the_wrong_journal(small, tmp_path):
    """What somebody copied there by hand may be taken for true, but never makes up values, or errors."""
    for name, content in small.files.items():
        for number, line in enumerate(lines_of(small) if name.endswith(".jsonl") else []):
            path = small.copy(tmp_path / f"{name}-{number}", {name: content + line})
            found, _ = read(CacheDict[Any](path), small.entries)
            for key, entry in small.entries.items():
                assert same(found[key], MISSING) or any(same(found[key], value) for value in entry.values)


def test_garbage_in_place_of_lines(small, tmp_path):
    outcome = Outcome()
    for name, content in small.files.items():
        lines = content.splitlines(keepends=True)
        for number in range(len(lines) if name.endswith(".jsonl") else 0):
            start = len(b"".join(lines[:number]))
            length = len(lines[number])
            for kind, garbage in enumerate(
                [b" " * (length - 1) + b"\n", b"\n" * length, b"\xff" * (length - 1) + b"\n", bytes(length - 1) + b"\n"]
            ):
                damaged = content[:start] + garbage + content[start + length :]
                path = small.copy(tmp_path / f"{name}-{number}-{kind}", {name: damaged})
                check(small, path, [Piece(name, start, start + length)], outcome, earlier=True)
    show(outcome, "garbage in place of lines")


def test_garbage_between_lines(small, tmp_path):
    """Inserted lines move those behind them, so that deletions of these may be undone; nothing else is."""
    outcome = Outcome()
    targets = [piece for entry in small.entries.values() for piece in entry.records]
    for name, content in small.files.items():
        if name.endswith(".jsonl"):
            lines = content.splitlines(keepends=True)
            for number in range(1, len(lines)):
                start = len(b"".join(lines[:number]))
                for kind, garbage in enumerate(GARBAGE):
                    damaged = content[:start] + garbage + content[start:]
                    path = small.copy(tmp_path / f"{name}-{number}-{kind}", {name: damaged})
                    moved = targets if name.endswith("-info.jsonl") else []
                    check(small, path, moved, outcome, earlier=True)
                    shutil.rmtree(path)
    show(outcome, "garbage between lines")


def test_missing_and_empty_files(small, large, tmp_path):
    outcome = Outcome()
    for folder in (small, large):
        for name, content in folder.files.items():
            for kind, damaged in enumerate([None, b""]):
                path = folder.copy(tmp_path / f"{len(os.listdir(tmp_path))}", {name: damaged})
                damage = [Piece(name, 0, len(content))]
                reports = check(folder, path, damage, outcome, earlier=name.endswith(".jsonl"))
                check_reports(folder, name, damage, reports)
    show(outcome, "missing and empty files")


def test_all_data_are_missing(small, tmp_path):
    damage = [Piece(name, 0, 1 << 40) for name in small.files if not name.endswith(".jsonl")]
    path = small.copy(tmp_path / "missing", {piece.file: None for piece in damage})
    shutil.rmtree(path / "data")
    check(small, path, damage, Outcome())
    path = small.copy(tmp_path / "file", {piece.file: None for piece in damage})
    shutil.rmtree(path / "data")
    (path / "data").write_bytes(b"no folder")
    check(small, path, damage, Outcome())


@pytest.mark.parametrize("kind", ["folder", "full folder", "loop", "dangling link"])
def test_something_else_in_place_of_a_file(small, tmp_path, kind):
    outcome = Outcome()
    for number, (name, content) in enumerate(small.files.items()):
        path = small.copy(tmp_path / str(number), {name: None})
        if kind == "folder":
            (path / name).mkdir()
        elif kind == "full folder":
            (path / name).mkdir()
            (path / name / "file").write_bytes(content)
        elif kind == "loop":
            (path / name).symlink_to(path / name)
        else:
            (path / name).symlink_to(path / "nowhere")
        check(small, path, [Piece(name, 0, len(content))], outcome, earlier=name.endswith(".jsonl"))
    show(outcome, f"{kind} in place of a file")


def test_strangers_in_the_folder(small, tmp_path):
    path = small.copy(tmp_path / "cache", {})
    (path / "notes-info.jsonl").mkdir()
    (path / "vm-1-0123456789abcdef-info.jsonl").mkdir()
    (path / "empty-info.jsonl").write_bytes(b"")
    (path / "vm-2-0123456789abcdef-info.jsonl").write_bytes(b"")
    (path / "vm-3-0123456789abcdef-deleted.jsonl").write_bytes(b"")
    (path / "vm-4-0123456789abcdef-failed.jsonl").write_bytes(b"{")
    (path / "link-info.jsonl").symlink_to(path / "nowhere")
    (path / "other.jsonl").write_bytes(b"garbage\n")
    (path / ".tmp-0123-info.jsonl.part").write_bytes(b"garbage\n")
    (path / "data" / "stranger").write_bytes(b"garbage\n")
    assert not check(small, path, [], Outcome())
    for number, garbage in enumerate(GARBAGE[:-1]):
        (path / f"notes{number}-info.jsonl").write_bytes(garbage)
    keys = set(CacheDict[Any](small.path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptEntryWarning)
        cache = CacheDict[Any](path)
        assert all(isinstance(key, str) for key in cache)
        assert {key for key in cache if key in keys} == keys
    found, _ = read(cache, keys - {"first"})  # the garbage has lines for that key
    assert all(same(value, small.entries[key].values[-1]) for key, value in found.items())


def test_no_folder_at_all(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for name in ("nothing", "file", "file/below"):
        cache = CacheDict[Any](tmp_path / name)
        assert list(cache) == []
        assert "a" not in cache
        assert read(cache, ["a"]) == ({"a": MISSING}, [])


# changes in a folder that this process has read already


@pytest.mark.parametrize("size", ["small", "large"])
def test_changes_in_place(size, small, large, tmp_path):
    folder = {"small": small, "large": large}[size]
    rng = random.Random(8)
    outcome = Outcome()
    for case in range(120):
        name = rng.choice(list(folder.files))
        content = folder.files[name]
        path = folder.copy(tmp_path / str(case), {name: content})
        cache, fresh = CacheDict[Any](path), CacheDict[Any](path)
        assert not check(folder, path, [], Outcome(), cache=cache)
        offset = rng.randrange(len(content))
        with open(path / name, "r+b") as stream:
            if case % 4 == 0:
                stream.truncate(offset)
                damage = [Piece(name, offset, len(content))]
            else:
                stream.seek(offset)
                stream.write(bytes([content[offset] ^ (1 << rng.randrange(8))]))
                damage = [Piece(name, offset, offset + 1)]
        os.utime(path / name, (LONG_AGO + 5, LONG_AGO + 5))
        journal, cut = name.endswith(".jsonl"), case % 4 == 0
        for reader in (cache, fresh):
            if journal and rng.random() < 0.5:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CorruptEntryWarning)
                    reader.refresh()
            check(folder, path, damage, outcome, cache=reader, earlier=journal and cut, unchecked=64 << 10)
        del cache, fresh
        shutil.rmtree(path)
    show(outcome, f"changes in place, {size}")


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_file_that_is_replaced_is_checked_anew(size, small, large, tmp_path):
    folder = {"small": small, "large": large}[size]
    for number, (name, content) in enumerate(folder.files.items()):
        damaged = bytearray(content)
        damaged[len(content) * 3 // 4] ^= 4
        path = folder.copy(tmp_path / str(number), {})
        cache = CacheDict[Any](path)
        assert not check(folder, path, [], Outcome(), cache=cache)
        (path / "new").write_bytes(damaged)
        os.replace(path / "new", path / name)
        damage = [Piece(name, len(content) * 3 // 4, len(content) * 3 // 4 + 1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CorruptEntryWarning)
            if name.endswith(".jsonl"):
                cache.refresh()
        check(folder, path, damage, Outcome(), cache=cache)
        check(folder, path, damage, Outcome())


READER = """
import pickle, sys, warnings
from exca_like.cachedict import CacheDict
warnings.simplefilter("ignore")
cache = CacheDict(sys.argv[1])
sys.stdout.buffer.write(pickle.dumps([key for key in sys.argv[2:] if cache.get(key) is None]))
"""


def test_another_process_checks_large_data_again(large, tmp_path):
    """What changed after this process had checked it is seen by others, and by `verify`."""
    keys = [key for key, entry in large.entries.items() if any(p.end - p.start > 64 << 10 for p in entry.pieces)]
    path = large.copy(
        tmp_path / "cache", {name: content for name, content in large.files.items() if not name.endswith(".jsonl")}
    )
    assert not check(large, path, [], Outcome())
    for key in keys:
        piece = max(large.entries[key].pieces, key=lambda piece: piece.end - piece.start)
        with open(path / piece.file, "r+b") as stream:
            stream.seek((piece.start + piece.end) // 2)
            byte = stream.read(1)
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte[0] ^ 1]))
    result = subprocess.run([sys.executable, "-c", READER, str(path), *large.entries], capture_output=True, check=True)
    gone = [key for key, entry in large.entries.items() if same(entry.values[-1], MISSING)]
    assert sorted(pickle.loads(result.stdout)) == sorted([*keys, *gone])
    assert not verify(path).is_clean
    verify(path, repair=True)
    assert verify(path).is_clean
    check(large, path, [piece for key in keys for piece in large.entries[key].pieces[:1]], Outcome())
