"""The command ``exca-like``: each command, with good and bad input."""

import functools
import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from test_catalog import Train, fill

import exca_like
from exca_like import CacheDict, __version__
from exca_like.catalog import Catalog
from exca_like.cli.app import run
from exca_like.cli.options import field_of, print_json, value_of
from exca_like.cli.words import values_of

EXCA = sorted((Path(__file__).parents[1] / "compat").glob("**/0.6.0"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    fill(folder)
    Train(seed=9, infra={"folder": folder, "cluster": "local"}).run()
    return folder


@pytest.fixture
def command(filled: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in this process: how it ended, what it printed, and what it printed as errors."""
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(filled))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("warnings.showwarning", None)

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        ended = run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return ended, said.out, said.err

    return call


def good(result: tuple[int, str, str]) -> str:
    ended, out, err = result
    assert (ended, err) == (0, ""), err
    return out


# computing

PROGRAM = """
import os, time
from typing import Annotated
import pydantic, exca_like
class Optim(pydantic.BaseModel, extra="forbid"):
    lr: float = 0.1
class Base(pydantic.BaseModel):
    seed: int = 0
    label: str | None = None
    layers: list[int] = [1]
    optim: Optim = Optim()
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")
    @infra.apply
    def run(self) -> float:
        if os.path.exists("kill"):
            os.kill(os.getpid(), 9)
        if os.path.exists("interrupt") and not self.seed:
            raise KeyboardInterrupt
        if self.seed == 3 and not os.path.exists("fixed"):
            raise ValueError("three")
        return self.optim.lr * self.seed * len(self.layers)
class Both(Base):
    other: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")
    @other.apply
    def evaluate(self) -> str:
        return f"evaluated {self.label}"
class Plain(pydantic.BaseModel):
    x: int = 1
class Mapped(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra(folder="cache")
    @infra.apply(item_uid=str)
    def process(self, items: list[int]):
        yield from items
    submitted: exca_like.SubmitInfra = exca_like.SubmitInfra()
    @submitted.apply
    def send(self, x: int) -> int:
        return x
class Slow(pydantic.BaseModel):
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache", cluster="local")
    @infra.apply
    def run(self) -> int:
        for _ in range(900):
            if os.path.exists("free"):
                break
            time.sleep(0.1)
        return 1
class Sized(pydantic.BaseModel):
    bytes: Annotated[int, pydantic.BeforeValidator(lambda text: int(str(text).replace("kB", "000") or 0))] = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")
    @infra.apply
    def run(self) -> int:
        return self.bytes
def helper(x: int) -> int:
    return x
class Loose(pydantic.BaseModel):
    x: int = 1
    infra: exca_like.TaskInfra = exca_like.TaskInfra()
    @infra.apply
    def run(self) -> int:
        return self.x
"""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command):
    """Run ``exca-like run`` in a folder with a program."""
    name = f"program_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PROGRAM)
    (tmp_path / "base.yaml").write_text("optim:\n  lr: 0.7\nseed: 8\n")
    (tmp_path / "span.yaml").write_text("seed: 0-3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("EXCA_LIKE_FOLDER")
    yield lambda target, *arguments: command("run", target.replace("M:", f"{name}:"), *arguments)
    sys.modules.pop(name, None)


def test_run_takes_texts_as_they_are(running) -> None:
    for arguments in (["label=a,1,no,010,1:30"], ["label=1,a,no,010,1:30"]):
        good(running("M:Base", *arguments))
    found = {entry.config["label"] for entry in Catalog("cache")}
    assert found == {"a", "1", "no", "010", "1:30"}
    good(running("M:Base", "label=range(5,7)"))
    good(running("M:Base", "zip(label,seed)=(8,1),(b,2)"))
    assert {"5", "6", "8", "b"} < {entry.config["label"] for entry in Catalog("cache")}
    config = good(running("M:Sized", "bytes=2kB,0_5,''", "-n2", "--print-config"))
    assert re.findall("^bytes: .*", config, re.MULTILINE) == ["bytes: 2000", "bytes: 5"], "not what else an integer is made of"
    for text in ("range(0)", "range(5,1)", "range(1,10,0)"):
        ended, _, err = running("M:Base", f"seed={text}")
        assert ended == 2 and f"{text} has no numbers in it" in err


def test_run(running, tmp_path: Path) -> None:
    assert good(running("M:Base", "--dry-run", "seed=2")).endswith("/seed=2-c81e728d: not submitted\n")
    assert good(running("M:Base", "seed=2", "optim.lr=5e-1")) == "1.0\n"
    assert good(running("M:Base", "seed=2", "optim.lr=0.5", "--dry-run")).endswith(": completed\n")
    assert good(running("M:Base.run", "@base.yaml", "layers=[1, 2]")) == f"{0.7 * 8 * 2!r}\n"
    assert good(running("M:Both.evaluate", "label=a,None", "-n", "1")).startswith("1 config")
    assert "label: '007'" in good(running("M:Base", "label=007", "--print-config"))
    assert "label: null" in good(running("M:Base", "label=None", "--print-config"))
    config = good(running("M:Base", "seed=1", "@base.yaml", "--print-config"))
    assert "seed: 1\n" in config and "lr: 0.7" in config and "folder: cache" in config
    both = good(running("M:Base", "seed=7,8,9", "optim.lr=0.2", "-n", "2", "--print-config"))
    assert re.findall("^(?:seed: .*|---)$", both, re.MULTILINE) == ["seed: 7", "---", "seed: 8"] and both.count("lr: 0.2") == 2
    assert re.search(r"job local-\w+, .*\n0.5\n", good(running("M:Base", "seed=5", "infra.cluster=local", "--wait")))


def test_run_with_a_file_as_its_folder(running) -> None:
    ended, _, err = running("M:Base", "infra.folder=base.yaml")
    assert ended == 1 and "Check that the infra's folder is one, and its permissions" in err


def test_run_a_sweep(running) -> None:
    plan = good(running("M:Base", "seed=range(2)", "optim.lr=0.1,0.2", "--dry-run"))
    assert plan.startswith("4 configs: 4 to submit\n") and plan.count("not submitted") == 5
    assert "4 completed" in good(running("M:Base", "seed=range(2)", "optim.lr=0.1,0.2"))
    assert "2 cached, 1 to submit" in good(running("M:Base", "seed=range(0,3)", "--dry-run"))
    assert "2 completed" in good(running("M:Base", "zip(seed,label)=(1,a),(2,b)", "-n", "2"))
    ended, out, err = running("M:Base", "seed=3,4", "layers=[1]")
    assert ended == 1 and "1 completed, 1 failed" in out and "ValueError at program_" in err
    ended, out, err = running("M:Base", "seed=5,6", "infra.cluster=local", "--tasks-per-job", "2")
    assert (ended, err) == (0, "") and "submitted: see `exca-like status --watch --folder cache`" in out
    assert "2 completed" in good(running("M:Base", "seed=5,6", "infra.cluster=local", "--wait"))


def test_what_waits_is_queued(running, tmp_path: Path) -> None:
    slow = importlib.import_module(f"program_{tmp_path.name}").Slow
    try:
        exca_like.sweep(slow(), {"seed": [1, 2]}).submit(max_workers=1)
        assert re.search(r"/seed=2-\w+: job local-\w+_1, queued\n$", good(running("M:Slow", "seed=2")))
        assert good(running("M:Slow", "seed=2", "--dry-run")).endswith(": queued\n")
        assert json.loads(good(running("M:Slow", "seed=2", "--json")))["status"] == "queued"
        assert good(running("M:Slow", "seed=1,2", "--dry-run")).startswith("2 configs: 2 running or queued, 0 to submit\n")
    finally:
        (tmp_path / "free").touch()


def test_retry(running, command, tmp_path: Path) -> None:
    running("M:Base", "seed=2,3", "optim.lr=0.1,0.5", "infra.cluster=local", "infra.mem_gb=1", "--wait")
    listed = good(command("retry", "--failed"))
    assert "seed=3-" in listed and listed.endswith("2 tasks would be submitted again: repeat with --yes to do it\n")
    ended, out, err = command("retry", "seed=2-")
    assert (ended, out) == (0, "nothing to do: none of the named tasks failed\n") and "did not fail: it is completed" in err
    assert json.loads(command("retry", "seed=2-", "--json")[1]) == {"submitted": False, "configs": [], "left_out": {}}
    (tmp_path / "fixed").touch()
    text = good(command("retry", "seed=3-", "--yes", "--wait", "--mem", "x2"))
    assert "1 config: 1 completed" in text and re.search(r"^3 +completed", text, re.MULTILINE)
    assert "1 config: 1 completed" in good(command("retry", "--failed", "--yes", "--wait", "--set", "slurm_partition=long"))
    assert good(command("retry", "--failed")) == "nothing to do: no task failed\n"


@pytest.mark.usefixtures("kills_one_at_a_time")
def test_retry_of_what_was_lost(running, command, tmp_path: Path) -> None:
    (tmp_path / "kill").touch()
    ended, out, _ = running("M:Base", "seed=5,6", "infra.cluster=local", "--wait")
    assert ended == 1 and "completed" not in out
    (tmp_path / "kill").unlink()
    ended, out, err = command("logs", "seed=5", "--err")
    assert (ended, out) == (0, "") and re.fullmatch(
        r"job local-\w+ has ended: lost: killed by SIGKILL, not by exca_like\n", err
    ), err
    assert good(command("retry", "--failed")) == "nothing to do: no task failed\n"
    assert "2 tasks would be submitted again" in good(command("retry", "--lost"))
    assert "1 task would be submitted again" in good(command("retry", "seed=5"))
    assert "2 completed" in good(command("retry", "--lost", "--failed", "--yes", "--wait"))
    assert good(command("retry", "--lost")) == "nothing to do: no task was lost\n"


@pytest.mark.parametrize(
    ("field", "number", "ends"),
    [
        ((), 1, r"local-\w+_0 --folder cache --yes` ends it\n"),
        (("seed=1,2",), 2, r"local-[0-9a-f]+ --folder cache --yes` ends all of the array\n"),
    ],
)
def test_interrupted_while_jobs_run(tmp_path: Path, field: tuple[str, ...], number: int, ends: str) -> None:
    (tmp_path / "base.py").write_text(PROGRAM)
    arguments = [sys.executable, "-m", "exca_like", "run", "base:Slow", *field, "--wait"]
    process = subprocess.Popen(arguments, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: len(list(tmp_path.rglob("job.json"))) == number)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate()[1].decode()
    # if it came in the midst of an exec, as of a dataclass that is imported, Python ends by the signal: to a shell, that is 130, too
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in err, err
    assert "jobs that were submitted go on: `exca-like status --watch --folder cache` shows them, `exca-like cancel" in err
    assert re.search(f"`exca-like cancel {ends}", err), err
    (tmp_path / "free").touch()
    until(lambda: len(Catalog(tmp_path / "cache").filter(status="completed")) == number)


def test_interrupted_while_it_computes_a_sweep(running, tmp_path: Path) -> None:
    (tmp_path / "interrupt").touch()
    ended, out, err = running("M:Base", "seed=1,2,0,4")
    assert (ended, out) == (130, "4 configs: 4 to submit\n")
    assert err == "2 of 4 results are stored: the same command goes on with the others\n"
    assert running("M:Base", "seed=0")[2] == running("M:Base", "seed=0,5", "infra.mode=force")[2] == ""
    (tmp_path / "interrupt").unlink()
    assert "4 completed" in good(running("M:Base", "seed=1,2,0,4"))


def until(condition: Callable[[], object]) -> None:
    for _ in range(900):  # other tests may have jobs, too
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it does not happen")


def test_run_of_a_class_without_a_folder(running, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, out, err = running("M:Loose", "x=3")
    assert (ended, out) == (0, "3\n") and "nothing is kept, as infra has no folder: give one, like --folder cache" in err
    assert good(running("M:Loose", "x=3", "--folder", "given")) == "3\n"
    monkeypatch.setenv("EXCA_LIKE_FOLDER", "said")
    assert "2 completed" in good(running("M:Loose", "x=3,4", "infra.cluster=local", "--wait"))
    assert good(running("M:Loose", "x=3", "infra.cluster=local")).endswith(", completed\n3\n")  # it is there already
    assert good(running("M:Loose", "x=5", "infra.folder=other")) == "5\n"
    assert good(running("M:Base", "seed=2", "--folder", "given")) == "0.2\n", "it replaces the one of the class"
    assert good(running("M:Base", "seed=1")) == "0.1\n" and len(Catalog("said")) == 2, "the environment does not"
    assert [entry.config["seed"] for entry in Catalog("given").filter("Base.run")] == [2]
    found = {
        folder: {entry.config["x"] for entry in Catalog(folder).filter("Loose.*")} for folder in ("given", "said", "other")
    }
    assert found == {"given": {3}, "said": {3, 4}, "other": {5}}


def test_retry_with_wrong_input(running, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running("M:Base", "seed=3", "optim.lr=0.1,0.5", "infra.cluster=local", "--wait")
    for arguments, message in (
        (["retry"], "say which tasks: their uids, --failed for all that failed, or --lost"),
        (["retry", "--failed", "seed=3"], "say either uids or --failed/--lost, not both"),
        (["retry", "--failed", "--yes", "--mem", "much"], "'much' is no factor: give one like x2"),
        (
            ["retry", "--failed", "--yes", "--mem", "8"],
            "'8' is no factor: give one like x2 or x1.5, of what the job asked for;",
        ),
        (["retry", "--failed", "--yes", "--mem", "8"], "for an amount, set it on the infra, as in `exca-like run MODULE:CLASS"),
        (["retry", "--failed", "--yes", "--mem", "x0"], "'x0' is no factor"),
        (["retry", "--failed", "--yes", "--timeout", "x-1"], "'x-1' is no factor"),
        (["retry", "--failed", "--yes", "--timeout", "xnan"], "'xnan' is no factor"),
        (["retry", "--failed", "--yes", "--set", "nodes=x32"], "nodes=32 is a factor, of the nodes=1 that the job asked for"),
        (
            ["retry", "--failed", "--yes", "--mem", "x2"],
            "-6287ab2c: mem_gb=2 multiplies what the job asked for, which is not set",
        ),
        (["retry", "--failed", "--set", "mem_gb=8"], "'8' is no factor: give one like x2"),
        (["retry", "--failed", "--set", "cpus_per_task=xyz"], "cpus_per_task='xyz': Input should be a valid integer"),
        (["retry", "--failed", "--mem", "x2", "--set", "mem_gb=x3"], "mem_gb is given twice"),
        (["retry", "--failed", "--set", "slurm_partition=long,nodes=x2"], "give --set again for nodes="),
        (["retry", "--failed", "--yes", "--set", "partition=long"], "'partition' is nothing that a job asks for"),
    ):
        ended, out, err = command(*arguments)
        assert (ended, out) == (2, "") and message in " ".join(err.split()), err
    (program,) = tmp_path.glob("program_*.py")
    sys.modules.pop(program.stem)
    program.write_text(PROGRAM.replace("seed: int", "sed: int"))
    os.utime(program, (0, 0))  # else Python takes the compiled one
    assert "does not take the config of" in command("retry", "--failed", "--yes")[2]
    sys.modules.pop(program.stem)
    program.unlink()
    ended, _, err = command("retry", "--failed", "--yes")
    assert ended == 1 and err.count("can't be imported from here: go to the folder of program_") == 1
    assert [re.sub(r".*/(.*)-.*", r"\1", line) for line in err.splitlines()[1:]] == ["seed=3,optim.lr=0.5", "seed=3"]


def test_retry_that_is_interrupted(running, command, monkeypatch: pytest.MonkeyPatch) -> None:
    from exca_like.sweeps import Sweep

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    running("M:Base", "seed=3", "infra.cluster=local", "--wait")
    monkeypatch.setattr(Sweep, "wait", interrupted)
    ended, out, err = command("retry", "--failed", "--yes", "--wait")
    assert (ended, out) == (130, "") and "jobs that were submitted go on: `exca-like status --watch --folder cache`" in err


def test_many_configs_are_announced_on_a_terminal(running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["exca_like.cli.run"], "_MANY", 3)
    assert running("M:Base", "seed=range(4)", "--dry-run")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert running("M:Base", "seed=range(2)", "label=a,b", "--dry-run")[2] == "making 4 configs; Ctrl-C ends it\n"
    assert running("M:Base", "zip(seed,label)=(1,a),(2,b)", "--dry-run")[2] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["M:Base", "sed=1"], "sed: Extra inputs are not permitted; did you mean seed?"),
        (["M:Base", "optim.rl=1"], "optim.rl: Extra inputs are not permitted; did you mean optim.lr?"),
        (["M:Base", "seed=abc"], "seed: Input should be a valid integer"),
        (["M:Base", "sed=1,2"], "did you mean seed?"),
        (["M:Base", "seed=0-3"], "seed: '0-3' is no number; several values are written like seed=0,1,2 or seed=range(3)"),
        (["M:Base", "seed=1,0-3"], "seed: '0-3' is no number"),
        (["M:Base", "layers=[1,0-3]"], "layers.1: '0-3' is no number"),
        (["M:Base", "@span.yaml"], "seed: '0-3' is no number"),
        (["M:Base", "seed=1,"], "'1,' has nothing before or after a comma: write None for no value, '' for an empty text"),
        (["M:Base", "zip(seed,label)=(1,),(2,b)"], "'(1,)' has nothing before or after a comma"),
        (["M:Base", "seed=1,abc"], "combination 2 of 2 (seed='abc') is no valid Base: seed: Input should be a valid integer"),
        (["M:Base", "infra.mem_gb=1,2"], "'infra.mem_gb' is a setting of an infra"),
        (["M:Base", "--folder", "base.yaml"], "Invalid value for --folder: base.yaml is a file, and no folder"),
        (["M:Base", "seed"], "'seed' is neither FIELD=VALUE, like optim.lr=0.1, nor @FILE.yaml"),
        (["M:Base", "--seed", "-1"], "No such option: --seed; fields have no dashes: write seed=-1"),
        (["M:Base", "--optim.lr=0.5"], "fields have no dashes: write optim.lr=0.5"),
        (["M:Base", "--max-size", "3", "seed=1"], "fields have no dashes: write max_size=3"),
        (["M:Base", "--foldr", "x"], "(Possible options: --folder); fields have no dashes: write foldr=x"),
        (["M:Base", "--dryrun"], "No such option: --dryrun (Possible options: --dry-run)"),
        (["M:Base", "@none.yaml"], "@none.yaml: "),
        (
            ["M:Base", "zip(seed,label)=(1,2),3"],
            "give 2 values in brackets for each config, like zip(a,b)=(1,x),(2,y), not '3'",
        ),
        (["M:Bases"], "has no config 'Bases'; did you mean Base?"),
        (["M:helper"], "is a function: from the shell, only methods of configs are run"),
        (["M:Base", "optim.lr=range(0,0.3,0.1)"], "range takes one to three whole numbers; write others like 0.1,0.2,0.3"),
        (["M:Plain"], "Plain has no method with a TaskInfra"),
        (["M:Mapped"], "Mapped.process has a MapInfra, whose items come from a call in Python, like Mapped().process(...)"),
        (["M:Mapped.process"], "Mapped.process has a MapInfra"),
        (["M:Mapped.send"], "Mapped.send has a SubmitInfra, whose arguments come from a call in Python"),
        (["M:Mapped.go"], "Mapped has no method with a TaskInfra"),
        (["M:Base", "layers=1,2"], "layers: Input should be a valid list; for a list, write layers=[1,2]"),
        (["M:Base", "layers=7"], "for a list, write layers=[7]"),
        (["M:Base", "infra.folder=null", "infra.cluster=local"], "no config of Base: infra: cluster='local' needs a folder"),
        (["M:Both", "other.folder=null", "other.cluster=local"], "no config of Both: other: cluster='local' needs a folder"),
        (["M:Both"], "say which method: Both.run, Both.evaluate"),
        (["M:Base.go"], "Base.go has no TaskInfra: there are Base.run"),
        (["Base"], "'Base' is not of the form MODULE:CLASS, like train:Train"),
        (["nowhere_at_all:Base"], "there is no module 'nowhere_at_all' in "),
    ],
)
def test_run_with_wrong_input(running, arguments: list[str], message: str) -> None:
    ended, out, err = running(*arguments)
    assert (ended, out) == (2, "") and message in " ".join(err.split()), err


def test_an_error_of_the_method_has_its_traceback(running, tmp_path: Path) -> None:
    ended, out, err = running("M:Base", "seed=3")
    assert (ended, out) == (1, "") and err.startswith("Traceback") and err.endswith("ValueError: three\n")
    assert err.count("File") == 1  # of the method's own code


def test_who_gives_a_field_twice_is_told(running) -> None:
    ended, out, err = running("M:Base", "seed=1", "seed=2", "--dry-run")
    assert ended == 0 and "/seed=2-" in out and err == "seed is given twice: seed=2 counts\n"


def echo(value: Any) -> Any:
    return value


def test_help_of_settings_is_not_cut(command) -> None:
    shown = " ".join(good(command("settings", "--help")).split())
    assert "Print a settings file with all settings, as comments that say what they mean. set Set settings" in shown
    assert "..." not in shown.partition("Commands:")[2]


class Odd(pydantic.BaseModel):
    kind: str = "none"
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> object:
        return {"none": None, "nan": math.nan, "inf": {"low": -math.inf, "all": [math.inf]}, "big": [math.nan, 2**70]}[
            self.kind
        ]


def test_numbers_that_json_has_not_are_texts(tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    target = (f"{Path(__file__).stem}:Odd", "--folder", tmp_path, "--json")
    found = {
        kind: json.loads(good(command("run", *target, f"kind={kind}")))["result"] for kind in ("none", "nan", "inf", "big")
    }
    assert found == {"none": None, "nan": "NaN", "inf": {"low": "-Infinity", "all": ["Infinity"]}, "big": ["NaN", 2**70]}
    assert json.loads(good(command("show", "kind=nan", "--folder", tmp_path, "--json")))["result"] == "NaN"
    rows = json.loads(good(command("table", "--folder", tmp_path, "--json")))
    assert {row.get("kind", "none"): row.get("result") for row in rows} == {
        "none": None,
        "nan": "NaN",
        "inf": None,
        "big": None,
    }


def test_arrays_in_json_keep_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([np.array([0.1, np.nan], "f4"), np.array([0.1], "f4"), np.float32("inf"), np.float32(0.1), np.arange(2)])
    narrow = float(np.float32(0.1))
    assert json.loads(capsys.readouterr().out) == [[narrow, "NaN"], [0.1], "Infinity", 0.1, [0, 1]]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ([1, 2], "[1, 2]"),
        ({}, "{}"),
        (list(range(100)), f"{str(list(range(100)))[:197]}...\n          WHOLE"),
        (np.arange(3), "no short value (FORMAT); WHOLE"),
    ],
)
def test_what_is_shown_of_a_result(tmp_path: Path, command, result: Any, told: str) -> None:
    exca_like.memo(folder=tmp_path)(echo)(result)
    (entry,) = Catalog(tmp_path)
    whole = f"in Python: Catalog('{tmp_path}').load('{entry.uid}')"
    told = told.replace("WHOLE", whole).replace("FORMAT", entry.handler)
    assert f"  result  {told}\n" in good(command("show", "echo", "--folder", tmp_path))


def test_what_is_left_out_of_a_dictionary_is_told(tmp_path: Path, command) -> None:
    exca_like.memo(folder=tmp_path)(echo)({"loss": [1], "a": {"b": 1}, "f1": 2})
    (entry,) = Catalog(tmp_path)
    shown = good(command("show", "echo", "--folder", tmp_path))
    assert f"  result.f1  2\n  and     loss, a; in Python: Catalog('{tmp_path}').load('{entry.uid}')\n" in shown


UNIONS = """
import typing
import pydantic, exca_like
class Sgd(pydantic.BaseModel, extra="forbid"):
    name: typing.Literal["sgd"] = "sgd"
    lr: float = 1
class Adam(pydantic.BaseModel, extra="forbid"):
    name: typing.Literal["adam"] = "adam"
    beta: float = 1
class Train(pydantic.BaseModel):
    optim: typing.Annotated[Sgd | Adam, pydantic.Field(discriminator="name")] = Sgd()
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")
    @infra.apply
    def run(self) -> str:
        return repr(self.optim)
"""


def test_fields_of_the_default_of_a_union(tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unions_of_cli.py").write_text(UNIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    run_it = functools.partial(command, "run", "unions_of_cli:Train", "--folder", "cache")
    assert "Sgd(name='sgd', lr=0.5)" in good(run_it("optim.lr=0.5"))
    assert "Adam(name='adam', beta=2.0)" in good(run_it("optim.name=adam", "optim.beta=2"))
    assert "2 completed" in good(run_it("optim.lr=0.6,0.7"))
    ended, _, err = run_it("optim.lr=abc")
    assert ended == 2 and "optim.sgd.lr: Input should be a valid number" in err


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", None),
        ("1,2", [1, 2]),
        ("1e-3,x", [0.001, "x"]),
        ("range(3)", [0, 1, 2]),
        ("range(1, 7, 3)", [1, 4]),
        ("[1,2]", None),
        ("[1,2],[3]", [[1, 2], [3]]),
        ("'a,b'", None),
        ("'a,b',c", ["a,b", "c"]),
        ("{a: 1, b: 2},null", [{"a": 1, "b": 2}, None]),
        ("", None),
    ],
)
def test_values(text: str, values: object) -> None:
    assert values_of(text) == values


# what there is


def test_ls(command, filled: Path) -> None:
    text = good(command("ls"))
    assert text.startswith(f"{filled}: 10 entries (8 completed, 2 failed), ") and text.count("\n") == 12
    assert good(command("ls", "-m", "Train.run", "--status", "failed,lost")).count("\n") == 3
    assert good(command("ls", "-w", "optim.lr=5e-1")).count("\n") == 3
    assert good(command("ls", "--since", "1h", "--before", "1h")) == f"{filled}: 0 entries\n"
    assert "; the last 2:" in good(command("ls", "-n", 2))


def test_ls_order_and_json(command) -> None:
    found = json.loads(good(command("ls", "--sort", "size", "--json")))
    assert [row["size"] for row in found] == sorted(row["size"] for row in found) and len(found) == 10
    times = [row["time"] for row in json.loads(good(command("ls", "--sort", "time", "--json", "-n", "3")))]
    assert times == sorted(times) and len(times) == 3
    assert set(found[0]) >= {"uid", "status", "kind", "folder", "pinned"}


def test_values_that_are_asked_for_are_texts_too(command, tmp_path: Path) -> None:
    function = exca_like.memo(folder=tmp_path)(same)
    for value in ("1", 1, "true", "null", "1e3"):
        function(value)
    for text, number in (("1", 2), ("true", 1), ("null", 1), ("1e3", 1), ("'1'", 1), ("2", 0)):
        found = json.loads(good(command("ls", "--folder", tmp_path, "-w", f"value={text}", "--json")))
        assert len(found) == number, text


def test_table(command, tmp_path: Path) -> None:
    lines = good(command("table", "-m", "Train.run", "--only-changed", "--sort", "accuracy")).splitlines()
    assert lines[0].split() == ["uid", "status", "seed", "optim.lr", "result.accuracy", "reason", "extra.epoch"]
    assert lines[1].split()[1:] == ["completed", "9", "0.1", "0.9", "9"] and " failed " in lines[-1]
    rising = good(command("table", "-m", "Train.run", "-c", "seed,result.*", "--sort=-result.accuracy", "--csv")).splitlines()
    assert rising[:2] == ["seed,result.accuracy", "0,0.0"] and rising[-1] == "-1,"
    rows = json.loads(good(command("table", "-m", "add", "--json")))
    assert sorted(row["result"] for row in rows) == [3, 5, 7]
    assert good(command("table", "-m", "Train.run", "-s", "lost")) == "nothing is stored that fits\n"


def test_table_as_parquet(command, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.parquet"
    assert good(command("table", "-m", "Train.run", "--parquet", path)) == f"5 rows written to {path}\n"
    assert set(pandas.read_parquet(path)["seed"].dropna()) == {-1, 0, 1, 9}
    for wrong, why in ((tmp_path / "none" / "x", "No such file or directory"), (tmp_path, "Is a directory")):
        assert command("table", "--parquet", wrong) == (1, "", f"error: {wrong}: {why}\n")


def test_values_without_a_common_type_are_texts_in_parquet(command, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    function = exca_like.memo(folder=tmp_path / "root")(same)
    for value in (1, "a", None, 2**70, {}, [1]):
        function(value)
    path = tmp_path / "table.parquet"
    good(command("table", "--folder", tmp_path / "root", "--parquet", path))
    frame = pandas.read_parquet(path)
    assert set(frame["result"].dropna()) == {"1", "a", str(2**70)} and frame["values"].tolist() == [1] * 6


def same(value: object) -> object:
    return value


def test_parquet_without_pandas(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    ended, out, err = command("table", "--parquet", tmp_path / "x")
    assert (ended, out) == (1, "") and err.startswith("error: --parquet needs pandas and pyarrow: pip install pandas pyarrow")


def test_du(command) -> None:
    header, *rows, total = good(command("du")).splitlines()
    assert header.split() == ["method", "entries", "results", "size", "on", "disk", "files"] and total.startswith("total")
    assert sorted(row.partition(" ")[0] for row in rows if "/" in row) == ["logs/", "provenance/"] and len(rows) == 5
    assert "Features.process,0" in rows[0] and " 2 " in rows[0] and " 11 " in rows[0]
    found = json.loads(good(command("du", "--json")))
    assert found[0]["size"] > 100_000 and all(row["on_disk"] >= row["size"] for row in found)
    folder = Path(os.environ["EXCA_LIKE_FOLDER"])
    paths = list(folder.rglob("*"))
    assert sum(row["files"] for row in found) == len(paths)
    assert sum(row["on_disk"] for row in found) == 512 * sum(path.lstat().st_blocks for path in paths)


# one thing


def test_show(command, filled: Path) -> None:
    text = good(command("show", "optim.lr=0.5"))
    assert "config  seed=1, optim.lr=0.5" in text and "result.accuracy  0.1" in text and "extra.epoch  1" in text
    assert "config  all at its defaults" in good(command("show", "Train.run,1/default"))
    failed = good(command("show", "seed=-1"))
    assert "failed (ValueError: seed < 0)" in failed and "Traceback (most recent call last):" in failed
    assert "item 7: RuntimeError: seven" in good(command("show", "Features.process,0/default"))
    assert re.search(r"job     local-\w+, logs in ", good(command("show", "seed=9")))
    shown = json.loads(good(command("show", "seed=-1", "--json")))
    assert "ValueError" in shown["error"] and shown["config"]["seed"] == -1 and shown["provenance"]["pid"]


def test_show_of_an_entry_without_its_config(own, tmp_path: Path) -> None:
    for file in Catalog(tmp_path)["optim.lr=0.5"].folder.glob("*.yaml"):
        file.unlink()
    assert "config  not known, as there is no uid.yaml in the folder" in good(own("show", "optim.lr=0.5"))


def test_status(command) -> None:
    text = good(command("status"))
    assert re.search(r"Train\.run,1 +4 +1\n", text) and "running" not in text
    assert sum(json.loads(good(command("status", "--json")))[f"{Train.__module__}.Train.run,1"].values()) == 5
    assert good(command("status", "--watch")).count("entries") == 1  # nothing runs: it ends


def test_failures(command) -> None:
    title, _, first, second = good(command("failures")).splitlines()
    assert title == "2 failed" and "RuntimeError at test_catalog.py:" in first + second and "ValueError at" in first + second
    grouped = good(command("failures", "--group", "-m", "Train.run"))
    assert grouped.startswith("1 failed:\n  1 × ValueError at test_catalog.py:") and "Traceback of the first:" in grouped
    assert good(command("failures", "-m", "add")) == "Nothing failed.\n"
    assert {group["count"] for group in json.loads(good(command("failures", "--json")))} == {1}


def test_diff(command) -> None:
    text = good(command("diff", "seed=1,optim.lr", "seed=9"))
    assert re.search(r"^seed +1 +9$", text, re.MULTILINE) and re.search(r"^optim\.lr +0\.5 +0\.1$", text, re.MULTILINE)
    assert re.search(r"^result\.accuracy +0\.1 +0\.9$", text, re.MULTILINE) and "size" not in text
    assert "infra." not in text, "one has a cluster, and the other none"
    differences = json.loads(good(command("diff", "seed=-1", "seed=9", "--json")))["differences"]
    assert differences["status"] == {"first": "failed", "second": "completed"}
    assert differences["result.accuracy"] == {"second": 0.9}


def test_diff_of_versions(command, tmp_path: Path) -> None:
    for version in ("1", "2"):
        Train(infra={"folder": tmp_path, "version": version}).run()
    text = good(command("diff", "run,1/", "run,2/", "--folder", tmp_path))
    assert re.search(r"^infra\.version +1 +2$", text, re.MULTILINE) and text.count("infra.") == 2, text


def nothing(x: int, label: str | None = None) -> None:
    """Give None, as the field is."""


def test_what_one_side_does_not_have_is_no_none(command, tmp_path: Path) -> None:
    exca_like.memo(folder=tmp_path)(nothing)(1)
    exca_like.memo(folder=tmp_path)(same)(2)
    text = good(command("diff", "x=1", "value=2", "--folder", tmp_path))
    for line in ("x +1 +-", "label +None +-", "value +- +2", "result +None +2"):
        assert re.search(f"^{line}$", text, re.MULTILINE), text
    differences = json.loads(good(command("diff", "x=1", "value=2", "--folder", tmp_path, "--json")))["differences"]
    assert differences["label"] == {"first": None} and differences["result"] == {"first": None, "second": 2}


def test_logs(command, filled: Path) -> None:
    file = good(command("logs", "seed=9", "--path")).strip()
    Path(file).write_text("one\ntwo\nthree\n")
    assert good(command("logs", "seed=9", "-n", 2)) == "two\nthree\n"
    assert good(command("logs", "seed=9", "-n", 9)) == "one\ntwo\nthree\n"
    Path(file).write_text("x" * 100_000 + "\nlast")
    assert good(command("logs", "seed=9", "-n", 1)) == "last" and len(good(command("logs", "seed=9", "-n", 2))) == 100_005
    Path(file).write_text("one\ntwo\nthree\n")
    job = json.loads(good(command("show", "seed=9", "--json")))["job"]
    assert good(command("logs", job)) == "one\ntwo\nthree\n"
    ended, out, err = command("logs", "seed=9", "-f")
    assert (ended, out) == (0, "one\ntwo\nthree\n") and err == f"job {job} has ended: completed\n"


def test_settings(command) -> None:
    assert "timeout_min" in good(command("settings"))
    assert "source" in json.loads(good(command("settings", "--json")))["mem_gb"]


# care


@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
def test_verify(command, tmp_path: Path) -> None:
    assert re.fullmatch(r"20 results and errors in 9 folders, 0 problems\n", good(command("verify")))
    with CacheDict(tmp_path / "a").write() as cache:
        cache["x"], cache["y"] = 1, 2
    (journal,) = tmp_path.rglob("*.jsonl")
    journal.write_bytes(journal.read_bytes().replace(b'"x"', b'"z"'))
    ended, out, _ = command("verify", "--folder", tmp_path, "--repair")
    assert ended == 3 and "in 1 folder, 1 problem\n" in out and "nothing was changed: repeat with --yes" in out
    assert journal.exists()  # nothing was done
    assert command("verify", "--folder", tmp_path, "--repair", "--yes")[0] == 0
    assert json.loads(good(command("verify", "--folder", tmp_path, "--json"))) == {
        "entries": 1,
        "folders": 1,
        "problems": [],
        "removed": [],
        "repaired": 0,
    }


def test_compact(command, tmp_path: Path) -> None:
    for number in range(3):
        program = f"from exca_like import CacheDict\nwith CacheDict({str(tmp_path)!r}).write() as c: c[{str(number)!r}] = 1"
        subprocess.run([sys.executable, "-c", program], check=True)
    assert (
        "would merge files in 1 folder of" in good(command("compact", "--folder", tmp_path))
        and len(list(tmp_path.iterdir())) == 3
    )
    assert re.match(r"1 folder: of 3 files 1 are left, of ", good(command("compact", "--folder", tmp_path, "--yes")))
    assert len(CacheDict(tmp_path)) == 3
    assert good(command("compact", "--folder", tmp_path)) == f"nothing is to be merged in {tmp_path}\n"
    assert json.loads(good(command("compact", "--folder", tmp_path, "--json")))["folders"] == 0


# what is kept, and what is not


@pytest.fixture
def own(command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command on a folder that may be changed."""
    fill(tmp_path)
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(tmp_path))
    return command


def test_pin_and_unpin(own) -> None:
    assert good(own("pin", "optim.lr=0.5")).endswith(" is pinned\n")
    (line,) = [line for line in good(own("ls")).splitlines() if "optim.lr=0.5" in line]
    assert "pinned, completed" in line
    assert "  pinned\n" in good(own("show", "optim.lr=0.5"))
    header, *rows = good(own("du")).splitlines()
    assert "size     pinned  on disk" in header and rows[-1].startswith("total") and rows[-1].count("B") == 3
    assert sum(row["pinned"] > 0 for row in json.loads(good(own("du", "--json")))) == 1
    ended, out, _ = own("rm", "optim.lr=0.5", "--yes")
    assert ended == 1 and "stays: it is pinned" in out and "0 entries, 0 B removed" in out
    (told,) = json.loads(good(own("unpin", "optim.lr=0.5", "--json")))
    assert told["pinned"] is False and "pinned" not in good(own("ls"))
    own("pin", "seed=-1", "optim.lr=0.5")
    assert len(json.loads(good(own("unpin", "--pinned", "-m", "add", "--json")))) == 0
    assert (
        good(own("unpin", "--pinned")).count(" is not pinned any more\n") == 2
        and json.loads(good(own("ls", "--pinned", "--json"))) == []
    )
    assert "1 entry, " in good(own("rm", "optim.lr=0.5", "--yes"))
    ended, _, err = own("pin", "optim.lr=0.5")
    assert ended == 1 and "no entry of" in err


def test_rm(own) -> None:
    text = good(own("rm", "seed=-1", "seed=1,optim"))
    assert re.search(r"2 entries, .* kB to remove; nothing was removed: repeat with --yes\n$", text)
    assert len(json.loads(good(own("ls", "--json")))) == 9
    done = json.loads(good(own("rm", "seed=-1", "seed=-1", "seed=1,optim", "--yes", "--json")))
    assert done["removed"] is True and done["entries"] == 2 and done["removals"][0]["problem"] is None
    assert done["size"] == sum(row["size"] for row in done["removals"]) > 0
    assert len(json.loads(good(own("ls", "--json")))) == 7
    ended, _, err = own("rm", "Train.run", "--yes")
    assert ended == 1 and "2 entries of" in err


def test_prune(own) -> None:
    assert "1 entry, " in good(own("prune", "--status", "failed", "-m", "Train.run"))
    assert good(own("prune", "--older-than", "1d", "--yes")) == "nothing fits: nothing is to be removed\n"
    assert "largest of more than 20 kB" in good(own("prune", "--max-size", "20kB", "--policy", "size"))
    plan = json.loads(good(own("prune", "--max-size", "0", "--keep-last", "1", "--json")))
    assert plan["removed"] is False and plan["entries"] == 6
    assert "6 entries, " in good(own("prune", "--max-size", "0", "--keep-last", "1", "--yes"))
    assert len(json.loads(good(own("ls", "--json")))) == 3
    ended, _, err = own("prune")
    assert ended == 2 and "give --older-than, --max-size, --keep-last or --status" in err
    assert own("prune", "--policy", "newest")[0] == own("prune", "--max-size", "much")[0] == 2


def test_cancel(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(tmp_path))
    program = tmp_path / "slow.py"
    program.write_text(
        "import pydantic, exca_like, time\n"
        "class Slow(pydantic.BaseModel):\n"
        "    seconds: int = 60\n"
        "    infra: exca_like.TaskInfra = exca_like.TaskInfra()\n"
        "    @infra.apply\n"
        "    def run(self) -> int:\n"
        "        time.sleep(self.seconds)\n"
        "        return 1\n"
        "if __name__ == '__main__':\n"
        f"    Slow(infra={{'folder': {str(tmp_path)!r}, 'cluster': 'local'}}).infra.job()\n"
        f"    Slow(seconds=0, infra={{'folder': {str(tmp_path)!r}}}).run()\n"
    )
    subprocess.run([sys.executable, program], check=True)
    assert "1 task would be cancelled: repeat with --yes" in good(command("cancel", "default"))
    monkeypatch.setattr("exca_like.executors._PATIENCE_S", 0.0)
    ended, out, err = command("cancel", "default", "seconds=0", "--yes")
    assert ended == 1 and "1 task cancelled" in out and "seconds=0" in err and "it is completed" in err
    assert "not ended yet, and running until they have: 1 job (local-" in err
    for _ in range(100):
        if json.loads(good(command("ls", "-s", "running,queued", "--json"))) == []:
            break
        time.sleep(0.1)
    else:
        pytest.fail("it still runs")
    ended, out, err = command("cancel", "default")
    assert ended == 1 and out == "0 tasks cancelled\n"


def test_migrate(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert good(command("migrate", tmp_path)) == "0 folders would be renamed: repeat with --yes to do it\n"
    folder = tmp_path / "lab.Train.run,1" / "seed=1-7bc35c5b"
    folder.mkdir(parents=True)
    (folder / "uid.yaml").write_text("seed: 1\n")
    text = good(command("migrate", tmp_path))
    assert "lab.Train.run,1/seed=1-7bc35c5b" in text and folder.exists()
    monkeypatch.chdir(tmp_path.parent)
    assert good(command("migrate", tmp_path.name)) == text


# wrong input


@pytest.mark.parametrize(
    ("arguments", "ended", "message"),
    [
        (["show", "nothing"], 1, "error: no entry of .* has 'nothing' in its uid: `exca-like ls` shows which there are"),
        (["show", "optim.lr=0"], 1, r"has 'optim.lr=0' in its uid: did you mean \S+seed=1,optim.lr=0.5-\S+\?$"),
        (["show", "Train.run"], 1, "5 entries of .* match 'Train.run'; give more of the uid"),
        (["show"], 2, "Missing argument 'UID'"),
        (["ls", "--status", "fail"], 2, "status='fail' must be one of 'completed'"),
        (["ls", "--since", "yesterday"], 2, "since='yesterday' is neither a time"),
        (["prune", "--older-than", "yesterday"], 2, "older_than='yesterday' is neither a time"),
        (["pull", "nowhere", "--before", "yesterday"], 2, "before='yesterday' is neither a time"),
        (["ls", "-w", "sed=7"], 1, "error: no config in .* has a field 'sed': did you mean seed"),
        (["table", "-w", "sed=7", "--json"], 1, "did you mean seed"),
        (["status", "-m", "Tain"], 1, "did you mean test_catalog.Train.run"),
        (["ls", "-w", "lr"], 2, "'lr' is not of the form FIELD=VALUE"),
        (["table", "--csv", "--json"], 2, "say one of --csv, --json and --parquet"),
        (["table", "--csv", "--parquet", "x"], 2, "say one of --csv, --json and --parquet"),
        (["ls", "--sort", "age"], 2, "Invalid value for '--sort': 'age' is not one of"),
        (["ls", "--folder", __file__], 1, "error: .*/test_cli.py is a file, and no folder: give the one that infras have"),
        (["ls", "--folder", "/none/at/all"], 1, "there is no folder /none/at/all"),
        (["table", "--sort", "loss"], 2, "there is no column 'loss': there are method, version"),
        (["table", "-c", "loss"], 2, "there is no column loss"),
        (["table", "--sort", "-acuracy"], 2, r"no column 'acuracy': did you mean accuracy\? There are method, version"),
        (["table", "-c", "result.acc,sed"], 2, r"no column result.acc, sed: did you mean result.accuracy and seed\? There are"),
        (["logs", "seed=1,optim"], 1, "there are no logs of .*: it was computed without a job of its own"),
        (["logs", "seed"], 1, r"entries of .* match 'seed'; give more of the uid of one:( \S+,\S+/\S+)+$"),
        (["logs", "987654321"], 1, "no entry of .* nor is there a job with this id"),
        (["diff", "seed=9"], 2, "Missing argument 'SECOND'"),
        (["settings", "--cluster", "moon"], 2, "cluster='moon'"),
        (["migrate", "/none"], 1, "there is no folder /none"),
        (["lss"], 2, "No such command 'lss'"),
        (["--folder", "a b", "ls", "-n", "3"], 2, "--folder; options come after the command: exca-like ls --folder 'a b' -n 3"),
        (["-m", "a", "show", "x"], 2, "No such option: -m$"),
        (["--folder", "a"], 2, "No such option: --folder$"),
        (["ls", "seed=1", "optim.lr=a b"], 2, r"\); a field is given as --where seed=1 --where 'optim.lr=a b'$"),
        (["failures", "seed=1"], 2, r"extra argument\S* \(seed=1\); a field is given as --where seed=1$"),
        (["verify", "."], 2, r"\(\.\); the cache root is given as --folder \.$"),
        (["table", "seed=1", "/"], 2, "; a field is given as --where seed=1; the cache root is given as --folder /$"),
        (["verify", "seed=1"], 2, r"\(seed=1\)$"),
        (["status", "no-such-folder"], 2, r"\(no-such-folder\)$"),
    ],
)
def test_wrong_input(command, arguments: list[str], ended: int, message: str) -> None:
    found, out, err = command(*arguments)
    assert (found, out) == (ended, "")
    assert re.search(message, " ".join(err.split()), re.IGNORECASE), err


@pytest.mark.parametrize(
    ("arguments", "ended", "message"),
    [
        ("run", 2, "Missing argument"),
        ("run nowhere:Train", 2, "no module 'nowhere'"),
        ("why base:Bas", 2, "did you mean Base?"),
        ("ls --status fail", 2, "must be one of"),
        ("show nothing", 1, "no entry"),
        ("status --every 0", 2, "0.2"),
        ("logs nothing", 1, "no entry"),
        ("diff nothing else", 1, "no entry"),
        ("table --sort loss", 2, "no column 'loss'"),
        ("failures --since soon", 2, "neither a time"),
        ("du --folder none", 1, "no folder"),
        ("stats --folder none", 1, "no folder"),
        ("retry", 2, "say which tasks"),
        ("retry --failed --mem much", 2, "is no factor"),
        ("cancel nothing", 1, "no entry"),
        ("pin nothing", 1, "no entry"),
        ("unpin nothing", 1, "no entry"),
        ("rm", 2, "say which entries"),
        ("prune", 2, "say what is to be removed: give --older-than"),
        ("prune --max-size big", 2, "big"),
        ("verify --folder none", 1, "no folder"),
        ("compact --folder none", 1, "no folder"),
        ("migrate none", 1, "no folder"),
        ("export", 2, "Missing argument"),
        ("import nothing.zip", 1, "can't read the bundle"),
        ("push s4://x", 2, "no address"),
        ("pull none", 1, "no results"),
        ("init base.py/x", 1, "can't write"),
        ("settings --cluster moon", 2, "moon"),
        ("settings set memgb=1", 1, "did you mean 'mem_gb'"),
        ("settings generate --all", 2, "No such option"),
    ],
)
def test_wrong_input_in_a_process_of_its_own(filled: Path, tmp_path: Path, arguments: str, ended: int, message: str) -> None:
    (tmp_path / "base.py").write_text(PROGRAM)
    environment = os.environ | {"EXCA_LIKE_FOLDER": str(filled), "COLUMNS": "300", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [sys.executable, "-m", "exca_like", *arguments.split()]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (ended, ""), found
    assert message in " ".join(found.stderr.split()) and "Traceback" not in found.stderr


def test_json_of_commands_that_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: str, ended: int = 0) -> dict:
        command = [sys.executable, "-m", "exca_like", *arguments, "--json"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert found.returncode == ended, found
        return json.loads(found.stdout)

    (tmp_path / "base.py").write_text(PROGRAM)
    assert call("run", "base:Base", "seed=2", "--dry-run")["status"] == "not submitted"
    assert call("run", "base:Base", "seed=2") == {
        "uid": "base.Base.run,0/seed=2-c81e728d",
        "status": "completed",
        "job": None,
        "result": 0.2,
    }
    found = call("run", "base:Base", "seed=2,3", "infra.cluster=local", "--wait", ended=1)
    assert (found["plan"]["cached"], found["plan"]["to_submit"]) == (1, 1)
    assert [row["status"] for row in found["configs"]] == ["completed", "failed"]
    assert call("retry", "--failed")["submitted"] is False
    (tmp_path / "fixed").touch()
    found = call("retry", "--failed", "--yes", "--wait")
    assert found["submitted"] is True and [row["status"] for row in found["configs"]] == ["completed"]
    assert call("retry", "--failed") == {"submitted": False, "configs": [], "left_out": {}}
    assert Path(call("logs", "seed=3")["stdout"]).is_file()
    assert call("init", "new")["new/experiment.py"] == "written"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert call("settings", "set", "mem_gb=2")["settings"] == {"mem_gb": 2}


TEXTS = """
import pydantic, exca_like
class Tagged(pydantic.BaseModel):
    tag: str = ""
    size: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(
        folder="cache", cluster="local", mem_gb=1, timeout_min=2, slurm_partition="debug")
    @infra.apply
    def run(self) -> str:
        if self.tag == "bad":
            raise ValueError("bad")
        return self.tag
    rest: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache", cluster="local")
    @rest.apply
    def other(self) -> str:
        raise ValueError("other")
"""


def test_numbers_that_are_texts_and_paths_of_scripts(tmp_path: Path) -> None:
    def call(target: str, *arguments: str, ended: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "exca_like", "run", target, *arguments]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert found.returncode == ended and "exca_like/cli" not in found.stderr, found
        return found

    (tmp_path / "tagged.py").write_text(TEXTS)
    for words, texts in ((["tag='1'"], ["1"]), (["tag=01,02"], ["01", "02"]), (["zip(tag,size)=(1,3),('2',4)"], ["1", "2"])):
        found = json.loads(call("./tagged.py:Tagged.run", *words, "--dry-run", "--json").stdout)
        tags = [row["values"]["tag"] for row in found["configs"]] if "configs" in found else None
        assert tags in (None, texts)
        if tags is None:
            assert "tag: '1'" in call("tagged:Tagged.run", *words, "--print-config").stdout
    assert "not below the" in call("/elsewhere/tagged.py:Tagged.run", ended=2).stderr
    assert "ValueError: bad" in call("tagged:Tagged.run", "tag=bad", "--wait", ended=1).stderr
    assert json.loads(call("tagged:Tagged.run", "tag=bad", "--wait", "--json", ended=1).stdout)["status"] == "failed"
    assert "2 completed" in call("tagged:Tagged.run", "tag=a,b", "infra.cluster=debug").stdout


def test_retry_sets_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command) -> None:
    """Lists stay lists, factors that are set by name count, and nothing is sent before all was checked."""
    from exca_like.sweeps import Sweep

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tagged_again.py").write_text(TEXTS)
    for method in ("run", "other"):
        subprocess.run(
            [sys.executable, "-m", "exca_like", "run", f"tagged_again:Tagged.{method}", "tag=bad", "--wait"], check=False
        )
    asked: list[tuple[str, dict]] = []

    monkeypatch.setattr(Sweep, "retry_plan", lambda self, lost, **given: asked.append(("plan", given)) or [])
    monkeypatch.setattr(Sweep, "retry_failed", lambda self, tasks_per_job, lost, **given: asked.append(("send", given)))
    monkeypatch.setattr(Sweep, "wait", lambda self: asked.append(("wait", {})))
    given = {"slurm_partition": "long,short", "mem_gb": 2}
    command(
        "retry", "--failed", "--folder", "cache", "--set", "slurm_partition=long,short", "--set", "mem_gb=x2", "--yes", "--wait"
    )
    assert asked == [*[("plan", given)] * 2, *[("send", given)] * 2, *[("wait", {})] * 2]


def test_where_the_cache_is_looked_for(filled: Path, tmp_path: Path) -> None:
    def call(folder: Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "EXCA_LIKE_FOLDER"}
        command = [sys.executable, "-m", "exca_like", "ls", "-n", "1"]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    assert "10 entries" in call(filled).stdout
    (tmp_path / "cache").symlink_to(filled)
    assert "10 entries" in call(tmp_path).stdout
    (tmp_path / "cache").unlink()
    found = call(tmp_path)
    assert found.returncode == 2 and "EXCA_LIKE_FOLDER" in found.stderr


@pytest.mark.parametrize("name", ["ls", "verify"])
def test_a_wrong_folder_in_the_environment(command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("EXCA_LIKE_FOLDER", "/none")
    assert (
        command(name)[2].startswith("error: there is no folder /none: ") and "EXCA_LIKE_FOLDER, which says" in command(name)[2]
    )
    assert "EXCA_LIKE_FOLDER" not in command(name, "--folder", "/nowhere")[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("010", "00.5", "12:30", "a #b", "no", "l1\nl2", "1_000", "1e400", "-", ".", "e5", "nan", "[a")),
        *((text, float(text)) for text in ("1e-3", "-.5", "5.", "0.10")),
        ("-3", -3), ("'7'", "7"), ('"a,b"', "a,b"), ("{a: [1]}", {"a": [1]}), ("null", None), ("", None), ("True", True),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_what_a_text_stands_for(text: str, value: object) -> None:
    found = value_of(text)
    assert found == value and type(found) is type(value)


def test_fields() -> None:
    found = dict(map(field_of, ["a=1", "b=1e-3", "c=x y", "d=[1, 2]", "e=null", "f=true", "g=a=b", "h={", "i='1'"]))
    assert found == {"a": 1, "b": 0.001, "c": "x y", "d": [1, 2], "e": None, "f": True, "g": "a=b", "h": "{", "i": "1"}


def test_version_and_help() -> None:
    def call(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "exca_like", *arguments], capture_output=True, text=True, check=True
        ).stdout

    assert call("--version") == f"{__version__}\n"
    assert "look at what is stored" in call("--help")


def test_without_typer(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('No module named typer', name='typer')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    found = subprocess.run([sys.executable, "-m", "exca_like", "ls"], env=environment, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == "exca-like needs typer and rich, which are not installed: pip install 'exca_like[cli]'\n"


def test_who_reads_has_seen_enough(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"m.T.run,{number}" / "default").mkdir(parents=True)
        (tmp_path / f"m.T.run,{number}" / "default" / "uid.yaml").touch()
    command = f"{sys.executable} -m exca_like ls --folder {tmp_path} | head -n 2"
    found = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert found.stderr == "" and found.stdout.count("\n") == 2


@pytest.mark.parametrize("command", ["ls", "table --csv", "table --json", "show seed=-1"])
def test_nobody_can_be_told(filled: Path, command: str) -> None:
    found = subprocess.run(
        f"{sys.executable} -m exca_like {command} --folder {filled} > /dev/full", shell=True, capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (1, "error: No space left on device\n")
    found = subprocess.run(f"{sys.executable} -m exca_like {command} --folder {filled} >&-", shell=True, capture_output=True)
    assert (found.returncode, found.stderr) == (0, b"")


def test_mistakes_of_this_package_are_not_hidden(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Catalog, "title", None)
    with pytest.raises(TypeError):
        command("ls")


def test_names_of_entries_are_not_guessed(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is removed is what was named."""
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(tmp_path))
    for seed, lr in ((20, 0.1), (21, 0.15)):
        Train(seed=seed, optim={"lr": lr}, infra={"folder": tmp_path}).run()
    for wrong in ("seed=2", "eed=20", "optim.lr=0.1500", "lr=0.1,seed"):
        ended, out, err = command("rm", wrong, "--yes")
        assert (ended, out) == (1, "") and "in its uid" in err, wrong
    for size in (-10, 10):
        Train(size=size, infra={"folder": tmp_path}).run()
    assert command("rm", "size=-1", "--yes")[:2] == (1, "")
    assert "1 entry, " in good(command("rm", "size=-10", "--yes"))
    assert "1 entry, " in good(command("rm", "size=10", "--yes"))
    ended, _, err = command("rm", "Train.run", "--yes")
    assert ended == 1 and "2 entries" in err
    assert "1 entry, " in good(command("rm", "seed=20", "--yes"))
    assert "1 entry, " in good(command("rm", "lr=0.15", "--yes"))


def broken(x: object) -> int:
    raise ValueError(f"x was {x}")


def test_messages_do_nothing_to_the_terminal(command, tmp_path: Path) -> None:
    function = exca_like.memo(folder=tmp_path, path="calls")(broken)
    with pytest.raises(ValueError):
        function("\x1bc\x07\x9bgone\u202e")
    for arguments in ("ls", "show calls", "failures", "failures --group", "table", "status"):
        shown = good(command(*arguments.split(), "--folder", tmp_path))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown), arguments
        assert arguments == "status" or "x was cgone" in shown


def test_each_failure_has_its_own_message(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_LIKE_FOLDER", str(tmp_path))
    function = exca_like.memo(folder=tmp_path, path="{x}")(broken)
    for x in (1, 2):
        with pytest.raises(ValueError):
            function(x)
    assert "the same way" in good(command("failures", "--group"))
    few, every = (good(command("failures", "--group", "-n", number)) for number in (1, 0))
    assert "and 1 more" in few and "and 1 more" not in every and every.count("/x=") == few.count("/x=") + 1
    shown = good(command("failures"))
    assert sorted(re.findall(r"ValueError at \S+: (x was \d)", shown)) == ["x was 1", "x was 2"]


def test_compact_names_what_it_leaves_as_something_is_damaged(command, tmp_path: Path) -> None:
    for number in range(2):
        with CacheDict(tmp_path).write() as cache:
            cache[str(number)] = number
    path = next(tmp_path.glob("*-info.jsonl"))
    path.write_bytes(path.read_bytes()[:-9])
    ended, out, err = command("compact", "--folder", tmp_path, "--yes")
    assert ended == 1 and "1 folder: of 2 files 2 are left" in out
    assert "1 folder is left as it is, as something in it is damaged: `exca-like verify` tells what" in err
    assert json.loads(command("compact", "--folder", tmp_path, "--yes", "--json")[1])["damaged"] == 1
    assert command("verify", "--folder", tmp_path, "--repair", "--yes")[0] == 0
    assert "1 folder: of 1 file 1 are left" in good(command("compact", "--folder", tmp_path, "--yes"))


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"seed: [", b"- 1"])
def test_show_of_an_entry_whose_config_can_not_be_read(own, tmp_path: Path, content: bytes) -> None:
    (Catalog(tmp_path)["optim.lr=0.5"].folder / "uid.yaml").write_bytes(content)
    shown = good(own("show", "optim.lr=0.5"))
    assert "config  not known, as uid.yaml in the folder can't be read: `exca-like verify` tells why" in shown
    assert "config  all at its defaults" in good(own("show", "Train.run,1/default"))


def test_run_writes_nothing_into_a_part_of_a_cache(running, tmp_path: Path) -> None:
    assert good(running("M:Base", "seed=1", "--folder", "cache")) == "0.1\n"
    method = Catalog("cache")[0].folder.parent.relative_to(tmp_path)
    for part in (method, f"{method}/new"):
        ended, _, err = running("M:Base", "seed=2", "--folder", part)
        assert ended == 2 and f"{part} is a folder in the cache, and not its root: give {tmp_path / 'cache'}" in err
    assert len(Catalog("cache")) == 1


def test_why_of_a_class_without_a_folder_looks_where_ls_does(running, command, tmp_path: Path) -> None:
    running("M:Loose", "x=1", "--dry-run")
    loose = f"program_{tmp_path.name}:Loose"
    ended, out, err = command("why", loose, "x=3")
    assert (ended, err) == (0, "infra has no folder: give --folder\n") and "The infra has no folder: nothing is stored" in out
    good(running("M:Loose", "x=3", "--folder", "cache"))
    ended, out, err = command("why", loose, "x=3")
    assert (ended, err) == (0, "infra has no folder: this is of cache, as for `exca-like ls`\n")
    assert json.loads(command("why", loose, "x=3", "--json")[1])["status"] == "hit"
    found = json.loads(command("why", loose, "x=4", "--json")[1])
    assert found["status"] == "miss" and found["nearest"] in {entry.uid for entry in Catalog("cache")}
    assert "give --folder" in command("why", loose, "x=3", "infra.folder=null")[2]
    assert "hit" in good(command("why", loose, "x=3", "--folder", "cache", "--json"))
    assert "is a folder in the cache" in command("why", loose, "x=3", "--folder", Catalog("cache")[0].folder)[2]
