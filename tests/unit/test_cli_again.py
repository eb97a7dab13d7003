"""``retry``, ``cancel`` and ``why`` on jobs that failed, of configs whose code has changed."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import os, time
import pydantic, exca_like
class Train(pydantic.BaseModel):
    lr: float = 0.1
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache", cluster="local")
    @infra.apply
    def run(self) -> float:
        if self.seed >= 10:
            time.sleep(60)
        if self.seed and not os.path.exists("fixed"):
            raise ValueError(f"seed {self.seed}")
        return self.lr
"""
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """A command in a process of its own, and how it is to end."""
    (tmp_path / "train.py").write_text(PROGRAM)

    def call(*arguments: str, ended: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([sys.executable, "-m", "exca_like", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == ended, done
        return done

    return call


def test_more_memory_each_time(call: Call, tmp_path: Path) -> None:
    call("run", "train:Train", "seed=1,2", "infra.mem_gb=0.5", "--wait", ended=1)
    assert "seed=1-c4ca4238: mem_gb=1 (was 0.5)  [ValueError: seed 1]" in call("retry", "--failed", "--mem", "x2").stdout
    call("retry", "--failed", "--mem", "x2", "--yes", "--wait", ended=1)
    (tmp_path / "fixed").touch()
    plan = call("retry", "--failed", "--mem", "x2", "--json").stdout
    assert [row["asked"] for row in json.loads(plan)["configs"]] == [{"mem_gb": 2.0}] * 2
    assert "2 tasks would be submitted again" in call("retry", "--failed", "--mem", "x2").stdout
    assert "2 completed" in call("retry", "--failed", "--mem", "x2", "--yes", "--wait").stdout


def test_a_failure_that_is_stored_is_told_and_ends_with_1(call: Call) -> None:
    call("run", "train:Train", "seed=1", "--wait", ended=1)
    assert "ValueError: seed 1" in call("run", "train:Train", "seed=1", ended=1).stderr
    assert json.loads(call("run", "train:Train", "seed=1", "--json", ended=1).stdout)["status"] == "failed"


def test_changed_code_is_told_with_the_command_that_shows_it(call: Call, tmp_path: Path) -> None:
    call("run", "train:Train", "infra.cluster=null")
    (tmp_path / "train.py").write_text(PROGRAM.replace("return self.lr", "return self.lr + 1"))
    warning = call("run", "train:Train", "infra.cluster=null").stderr
    assert "was changed. `exca-like why train.Train.run,0/default` shows how" in warning and "explain()" not in warning
    assert "compute again with infra.mode=force" in warning


@pytest.mark.parametrize("cluster", ["local", "null"])
def test_errors_of_before_are_told_as_such(call: Call, tmp_path: Path, cluster: str) -> None:
    first = call("run", "train:Train", "seed=1", f"infra.cluster={cluster}", "--wait", ended=1)
    assert "failed before" not in first.stderr and "exca_like" not in first.stderr, "it shows lines of the user's code only"
    call("run", "train:Train", "seed=2,3", f"infra.cluster={cluster}", "--wait", ended=1)
    debugged = call("run", "train:Train", "seed=5", "infra.cluster=debug", ended=1).stderr
    assert "ValueError: seed 5" in debugged and "and that counts" not in debugged
    (tmp_path / "fixed").touch()
    again = call("run", "train:Train", "seed=1", f"infra.cluster={cluster}", "--wait", ended=1).stderr
    retried = "the same command with infra.mode=retry computes it again"
    assert re.search(rf"train.Train.run,0/seed=1-[0-9a-f]+ failed \d+ \w+ ago, and that counts: {retried}", again)
    assert "ValueError: seed 1" in again and "exca_like" not in again
    (tmp_path / "train.py").write_text(PROGRAM.replace("return self.lr", "return self.lr + 1"))
    several = call("run", "train:Train", "seed=1,2,3,4", f"infra.cluster={cluster}", "--wait", ended=1).stderr
    assert "3 of them failed before, by other code than there is now, and that counts: the same command with" in several
    one = call("run", "train:Train", "seed=1", f"infra.cluster={cluster}", "--wait", ended=1).stderr
    assert re.search(rf"failed \d+ \w+ ago, by other code than there is now, and that counts: {retried}", one)
    assert "warning" not in one, "it is said once"
    assert re.search(r"It was computed \d{4}-.* UTC, and failed with", call("why", "seed=1", "--no-import").stdout)
    why = call("why", "seed=1").stdout
    assert "by other code than there is now" in why and "train.Train.run was changed" in why
    assert re.search(r"`exca-like retry train\.Train\.run,0/seed=1-[0-9a-f]+ --yes` computes it again", why)
    done = call("run", "train:Train", "seed=1,2,3", f"infra.cluster={cluster}", "infra.mode=retry", "--wait")
    assert "3 completed" in done.stdout and not done.stderr


def test_output_in_json_is_json(call: Call, tmp_path: Path) -> None:
    """What the code of users prints goes to where errors go."""
    (tmp_path / "train.py").write_text(PROGRAM.replace("if self.seed >= 10:", "print('hello')\n        if self.seed >= 10:"))
    for command, ended in (
        (("run", "train:Train", "infra.cluster=null"), 0),
        (("run", "train:Train", "lr=1,2", "infra.cluster=null"), 0),
        (("run", "train:Train", "seed=1", "infra.cluster=null"), 1),
    ):
        done = call(*command, "--json", ended=ended)
        assert json.loads(done.stdout) and "hello" in done.stderr
    (tmp_path / "fixed").touch()
    done = call("retry", "--failed", "--yes", "--json")
    assert json.loads(done.stdout)["submitted"] and "hello" in done.stderr
    assert json.loads(call("run", "train:Train", "seed=4", "--print-config", "--json").stdout)["seed"] == 4
    configs = json.loads(call("run", "train:Train", "seed=4,5", "--print-config", "--json").stdout)
    assert [config["seed"] for config in configs] == [4, 5]


def test_what_is_lost_is_told_with_how_it_ended(call: Call, tmp_path: Path) -> None:
    kill = "if self.seed == 5:\n            os.kill(os.getpid(), 9)\n        if self.seed >= 10:"
    (tmp_path / "train.py").write_text(PROGRAM.replace("if self.seed >= 10:", kill))
    done = call("run", "train:Train", "seed=5", "lr=1,2", "--wait", ended=1)
    lost = "2 were lost, which counts as not submitted: 2 × killed by SIGKILL, not by exca_like. A SIGKILL may mean that memory ran out."
    assert lost in done.stderr and "the same command submits again what was lost" in done.stderr
    assert done.stderr.endswith("if memory ran out, give more with infra.mem_gb\n")
    done = call("run", "train:Train", "seed=5", "lr=1", "infra.mem_gb=0.5", "--wait", ended=1)
    assert re.search(
        "To go on: the same command runs it again, as does `exca-like retry train.Train.run,0/lr=1,seed=5-", done.stderr
    )
    assert done.stderr.endswith("if memory ran out, give more with infra.mem_gb, or `exca-like retry --lost --mem x2`\n")
    assert "2 lost" in call("retry", "--lost", "--yes", "--wait", ended=1).stdout, "they are lost again"
    done = call("failures")
    assert done.stdout == f"Nothing failed.\n\n{lost}\n"
    assert "`exca-like retry --lost` submits such tasks again, with --mem x2" in done.stderr and "maps" not in done.stderr


def test_messages_do_nothing_to_the_terminal(call: Call, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM.replace("seed {self.seed}", "\\x1b[2J{self.seed}"))
    call("run", "train:Train", "seed=1", "--wait", ended=1)
    for command in (("retry", "--failed"), ("why", "seed=1"), ("ls",), ("rm", "seed=1"), ("failures", "--group")):
        done = call(*command)
        assert "[2J1" in done.stdout and "\x1b" not in done.stdout + done.stderr


def test_fields_within_fields(call: Call, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        PROGRAM.replace(
            "class Train", "class Opt(pydantic.BaseModel, extra='forbid'):\n    lr: float = 0.1\n    n: int = 1\nclass Train"
        ).replace("seed: int", "opt: Opt = Opt()\n    seed: int")
    )
    call("run", "train:Train", "opt.lr=0.1,0.5", "--wait")
    for where in ("opt={lr: 0.5}", "opt.lr=0.5", "opt={lr: 0.5, n: 1}"):
        (found,) = json.loads(call("ls", "--json", "--where", where).stdout)
        assert "opt.lr=0.5" in found["uid"]


def test_configs_of_other_code_are_left_out(call: Call, tmp_path: Path) -> None:
    """What can't be made again is said, and does not keep the others from being submitted."""
    call("run", "train:Train", "seed=1", "--wait", ended=1)
    call("run", "train:Train", "seed=2", "lr=0.5", "--wait", ended=1)
    (tmp_path / "train.py").write_text(PROGRAM.replace("lr: float = 0.1", "lr: float = 0.2"))
    (tmp_path / "fixed").touch()
    done = call("retry", "--failed", "--yes", "--wait", ended=1)
    assert "1 completed" in done.stdout
    assert "left out: train.Train.run,0/seed=1-c4ca4238 is the config train.Train.run,0/lr=0.1,seed=1-" in done.stderr
    assert "as Train differs in lr, by another default" in done.stderr
    done = call("retry", "--failed", ended=1)
    assert done.stdout == "no task can be submitted again\n" and "left out" in done.stderr
    assert list(json.loads(call("retry", "--failed", "--json", ended=1).stdout)["left_out"]) == [
        "train.Train.run,0/seed=1-c4ca4238"
    ]
    said, of_class = call("why", "seed=1").stdout, call("why", "train:Train", "seed=1").stdout
    assert (
        "Train differs in lr, by another default or exclusion: restore that to find it, or compute it anew, with lr=0.1."
        in said
    )
    assert {said.partition(":")[0], of_class.partition(":")[0]} == {"mismatch"}, "a call raises, whoever asks"
    for told in (said, of_class):
        assert "A call raises an error." in told and told.endswith("    lr: 0.1 there, 0.2 here\n")


def test_logs_that_were_removed(call: Call, tmp_path: Path) -> None:
    call("run", "train:Train", "--wait")
    assert call("logs", "default").stdout == ""
    shutil.rmtree(tmp_path / "cache/logs")
    done = call("logs", "default", ended=1)
    assert "(it completed, and the logs were removed since)" in done.stderr
    assert "completed" in call("show", "default").stdout and "1 completed" in call("status").stdout


def test_cancel_says_what_else_ends(call: Call) -> None:
    call("run", "train:Train", "seed=11,12,13", "--tasks-per-job", "3")
    for _ in range(100):
        if len(json.loads(call("ls", "-s", "running", "--json").stdout)) == 1:
            break
        time.sleep(0.1)
    else:
        pytest.fail("it does not start")
    assert [row["with_it"] for row in json.loads(call("cancel", "seed=13", "--json").stdout)] == [[]], "it has not begun"
    found = call("cancel", "seed=11", "seed=12").stdout
    assert found.count("with it ends") == 1 and "with it ends train.Train.run,0/seed=13-" in found
    assert "3 tasks would be cancelled: repeat with --yes" in found
    assert "2 tasks cancelled" in call("cancel", "seed=13", "seed=12", "--yes").stdout
    done = call("cancel", "seed=11", "--yes")
    assert "with it" not in done.stdout and "1 task cancelled" in done.stdout and done.stderr == ""


def test_exits_of_the_user_are_failures(call: Call, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(
        PROGRAM.replace('raise ValueError(f"seed {self.seed}")', 'raise SystemExit([0, "set DATA", 3][self.seed - 1])').replace(
            ', cluster="local"', ""
        )
    )
    for seed in (1, 2, 3):
        assert "SystemExit" in call("run", "ends:Train", f"seed={seed}", ended=1).stderr
    again = call("run", "ends:Train", "seed=2", ended=1).stderr
    assert "SystemExit: set DATA" in again and "ago, and that counts: the same command with infra.mode=retry" in again
    done = call("run", "ends:Train", "seed=2", "infra.mode=retry", "--json", ended=1)
    assert json.loads(done.stdout)["status"] == "failed"
    done = call("retry", "seed=2", "--yes", ended=1)
    assert "1 failed" in done.stdout, "computed at once, without --wait"


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("raise SystemExit('set DATA')", "SystemExit: set DATA"),
        ("x = ", "SyntaxError: invalid syntax"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_errors_of_imported_modules_are_told_by_their_own_lines(call: Call, tmp_path: Path, code: str, last: str) -> None:
    call("run", "train:Train", "seed=1", "--wait", ended=1)
    (tmp_path / "train.py").write_text(f"{code}\n{PROGRAM}")
    for words in (("run", "train:Train"), ("retry", "seed=1")):
        done = call(*words, ended=1)
        lines = done.stderr.rstrip().splitlines()
        assert lines[-1] == last and done.stdout == ""
        assert sum(line.startswith("  File ") for line in lines) == 1 and f'File "{tmp_path}/train.py", line 1' in done.stderr
    assert (
        f"what is in the code now can't be told: {last.partition(':')[0]}" in call("why", "seed=1").stderr or "import" in code
    )
