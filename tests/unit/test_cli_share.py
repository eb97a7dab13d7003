"""The commands ``export``, ``import``, ``push`` and ``pull``, with good and bad input."""

import json
import re
from pathlib import Path

import pytest
from test_catalog import Train, fill

from exca_like.catalog import Catalog
from exca_like.cli.app import run
from exca_like.cli.share import _options


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    fill(folder)
    return folder


@pytest.fixture
def command(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in an empty folder: how it ended, what it printed, and what it printed as errors."""
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(filled))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("warnings.showwarning", None)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        ended = run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return ended, said.out, said.err

    return call


def good(result: tuple[int, str, str]) -> str:
    ended, out, err = result
    assert (ended, err) == (0, ""), (out, err)
    return out


def test_export_and_import(command, tmp_path: Path) -> None:
    plan = good(command("export", "b.zip", "--dry-run"))
    assert re.fullmatch(r"17 results would be added \(\d+ files, \d+ kB\)\nnothing was moved: this is the plan\n", plan)
    assert not (tmp_path / "b.zip").exists()
    assert good(command("export", "b.zip")).startswith("17 results added (")
    plan = good(command("import", "b.zip", "--folder", "new", "--dry-run"))
    assert plan.startswith("17 results would be added (") and not (tmp_path / "new").exists()
    assert good(command("import", "b.zip", "--folder", "new")).startswith("17 results added (")
    assert good(command("import", "b.zip", "--folder", "new")) == "17 results there already\n"
    found = json.loads(good(command("import", "b.zip", "--folder", "new", "--json")))
    assert (found["added"], found["present"], found["size"], found["dry_run"]) == (0, 17, 0, False)
    assert {folder["uid"] for folder in found["folders"]} == {
        str(entry.folder.relative_to(tmp_path / "new")) for entry in Catalog("new")
    }


def test_some_are_exported(command) -> None:
    assert good(command("export", "two.zip", "-u", "seed=1-c4ca", "-u", "Features.process,0/size=1-")).startswith(
        "4 results added ("
    )
    assert good(command("export", "--method", "Train.run", "--where", "optim.lr=0.5", "one.zip")).startswith("1 result added (")
    good(command("import", "one.zip", "--folder", "one"))
    assert [entry.changed for entry in Catalog("one")] == [{"seed": 1, "optim.lr": 0.5}]
    good(command("export", "all.zip"))
    assert good(command("import", "all.zip", "--folder", "some", "-w", "optim.lr=0.5", "-m", "Train.run")).startswith(
        "1 result added ("
    )
    assert good(command("export", "none.zip", "-u", "seed=-1-")) == "nothing to move: no results were found\n"


def test_push_and_pull(command) -> None:
    assert "this is the plan" in good(command("push", "shared", "--dry-run")) and not Path("shared").exists()
    assert good(command("push", "shared", "--uid", "seed=1-c4ca", "--uid", "lr=0.5")).startswith("2 results added (")
    assert good(command("push", "shared", "--no-check")).startswith("15 results added, 2 there already (")
    assert "this is the plan" in good(command("pull", "shared", "--folder", "new", "--dry-run"))
    assert good(command("pull", "shared", "--folder", "new", "--method", "Train.run", "-w", "seed=1")).startswith(
        "2 results added ("
    )
    assert good(command("pull", "shared", "--folder", "new", "--uid", "Features.process,0/default")).startswith(
        "8 results added ("
    )
    found = json.loads(good(command("pull", "shared", "--folder", "new", "--json")))
    assert (found["added"], found["present"]) == (7, 10)


def test_what_differs_ends_with_1(command) -> None:
    Train(seed=1, infra={"folder": "a"}).run()
    (journal,) = Path().glob("a/*/seed=1-*/*-info.jsonl")
    original = Train.run
    Train(seed=1, infra={"folder": "b"}).run()
    (entry,) = Catalog("b")
    cache = entry._cache("own")
    with cache.write():
        cache.put("result", {"accuracy": 7}, replace=True)
    assert original and journal.exists()
    ended, out, err = command("push", "b", "--folder", "a")
    assert (ended, err) == (1, "")
    assert out.startswith("1 result there with other bytes, and left as they are\n") and "it is there with other bytes" in out
    ended, out, err = command("push", "b", "--folder", "a", "--json")
    assert ended == 1 and json.loads(out)["folders"][0]["different"] == ["result"]


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
def test_damaged_lines_end_with_1(command) -> None:
    for seed in (1, 2):
        Train(seed=seed, infra={"folder": "a"}).run()
    (journal,) = Path().glob("a/*/seed=1-*/*-info.jsonl")
    journal.write_bytes(journal.read_bytes().replace(b'"#type"', b'"#typo"'))
    ended, out, _ = command("pull", "a", "--folder", "b")
    assert ended == 1 and out.startswith("1 result added, 1 left out (")
    assert out.endswith(f"seed=1-c4ca4238: the line at byte 0 of {journal.absolute()} is damaged\n")
    ended, out, _ = command("pull", "a", "--folder", "b", "--json")
    assert ended == 1 and json.loads(out)["left_out"] == 1
    assert good(command("pull", "a", "--folder", "b", "--where", "seed=2")) == "1 result there already\n"


@pytest.mark.parametrize(
    ("arguments", "ended", "message"),
    [
        (["export"], 2, "Missing argument 'BUNDLE'"),
        (["export", "b.zip", "-u", "nothing"], 1, "no entry of .* has 'nothing' in its uid"),
        (["export", "b.zip", "-u", "run,1/seed"], 1, "entries of .* match 'run,1/seed'"),
        (["export", "none/b.zip"], 1, "can't write .*none/b.zip: No such file or directory"),
        (["export", "."], 1, "there is a file .* already: remove it, or give another name"),
        (["export", "b.zip", "--since", "yesterday"], 2, "since='yesterday' is neither a time"),
        (["import"], 2, "Missing argument 'BUNDLE'"),
        (["import", "none.zip"], 1, "can't read the bundle .*none.zip: No such file"),
        (["import", "text"], 1, "text is no bundle, or it was cut short"),
        (["push", "x", "--permissions", "rwx"], 2, "rwx is no mode in octal, like 770"),
        (["import", "text", "--permissions", "1000"], 2, "1000 is no mode in octal, like 770"),
        (["push", "s3://x", "--permissions", "660"], 2, "s3://x is no folder, so that permissions mean nothing there"),
        (["push"], 2, "Missing argument 'URL'"),
        (["push", "x", "--folder", "/none/at/all"], 1, "there is no folder /none/at/all"),
        (["push", "text"], 1, "can't write .*text/.*: Not a directory"),
        (["push", "nope://x"], 2, "nope://x is no address that fsspec knows"),
        (["push", "x", "--option", "key"], 2, "'key' is not of the form FIELD=VALUE"),
        (["push", "x", "--option", "key=1"], 2, "x is a folder, which has no options: key"),
        (["push", "x", "--uid", "nothing"], 1, "no entry of .* has 'nothing' in its uid"),
        (["pull"], 2, "Missing argument 'URL'"),
        (["pull", "none"], 1, "there are no results in .*none: check its name"),
        (["pull", "nope://x"], 2, "nope://x is no address that fsspec knows"),
    ],
)
def test_wrong_input(command, tmp_path: Path, arguments: list[str], ended: int, message: str) -> None:
    (tmp_path / "text").write_text("no zip")
    found, out, err = command(*arguments)
    assert (found, out) == (ended, "")
    assert re.search(message, " ".join(err.split()), re.IGNORECASE), err


def test_options_are_typed() -> None:
    assert _options("memory://x", ["anon=true", "endpoint_url=http://localhost:9000"]) == {
        "anon": True,
        "endpoint_url": "http://localhost:9000",
    }


def test_yaml_files_that_are_wrong_are_named_and_not_sent(command, tmp_path: Path) -> None:
    for seed in (1, 2):
        Train(seed=seed, infra={"folder": tmp_path / "own"}).run()
    catalog = Catalog(tmp_path / "own")
    (catalog["seed=1"].folder / "uid.yaml").write_text("seed: 7\n")
    said = f"yaml files of 1 folder {{}} not sent, as they are wrong: {catalog['seed=1'].uid}. `exca-like verify` tells how\n"
    ended, out, err = command("push", "there", "--folder", "own", "--dry-run")
    assert (ended, err) == (0, said.format("would be")) and "2 results would be added" in out
    assert command("export", "b.zip", "--folder", "own")[2] == said.format("were")
    ended, out, err = command("push", "there", "--folder", "own", "--json")
    assert (ended, err, json.loads(out)["added"]) == (0, said.format("were"), 2)
    assert command("push", "there", "--folder", "own") == (0, "2 results there already\n", said.format("were"))
    assert good(command("push", "two", "--folder", "own", "-u", "seed=2")).startswith("1 result added")


def test_nothing_is_written_into_a_part_of_a_cache(command, filled: Path, tmp_path: Path) -> None:
    good(command("export", "b.zip"))
    Train(infra={"folder": tmp_path / "results.2026,v2"}).run()  # such a name is none of a method
    Train(infra={"folder": tmp_path / "project" / "own"}).run()
    method = Catalog(filled)["Train.run,1/default"].folder.parent
    before = sorted(filled.rglob("*"))
    other = filled / "other.Train.run,1"
    for part in (method, method / "default", method / "new", other, other / "new"):
        for words in (("push", part), ("pull", filled, "--folder", part), ("import", "b.zip", "--folder", part)):
            ended, _, err = command(*words)
            assert ended == 2 and f"{part} is a folder in the cache, and not its root: give {filled}" in err, (words, err)
            assert "Invalid value for " + ("URL" if words[0] == "push" else "--folder") in err
    for part, said in (
        (method, f"a folder in the cache, and not its root: give {filled}"),
        (method / "default", f"a folder in the cache, and not its root: give {filled}"),
        (tmp_path / "project", f"no cache root, but holds a cache: give that, {tmp_path / 'project' / 'own'}"),
    ):
        ended, _, err = command("pull", part, "--folder", "new")
        assert ended == 2 and f"Invalid value for URL: {part} is {said}" in err
    assert sorted(filled.rglob("*")) == before
    for name in ("results.2026,v2", "results.2026,v3"):
        assert command("push", name)[0] == 0 and command("import", "b.zip", "--folder", name)[0] == 0
        assert len(Catalog(name)) == len(Catalog(filled).filter(status=["completed"])) + 1
