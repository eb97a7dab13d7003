"""Failures, grouped by what they have in common."""

import random
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from exca_like.cachedict.failures import Failure
from exca_like.failures import FailureReport

TRACEBACK = """Traceback (most recent call last):
  File "/home/ann/project/train.py", line {line}, in run
    return self.fit()
  File "/opt/venv/lib/python3.12/site-packages/numpy/core.py", line 7, in dot
    raise ValueError
{kind}: {message}
"""


def raised(message: str, line: int = 81, kind: str = "builtins.ValueError") -> Failure:
    return Failure(kind, message, TRACEBACK.format(line=line, kind=kind.rpartition(".")[2], message=message))


def ended(reason: str, rest: str = "", job: int = 1) -> Failure:
    """As it is stored of a job that left nothing."""
    message = f"job {job} of Train.run,0/x={job}-abc ended without a result: {reason}. To go on: try.\n{rest}"
    return Failure("exca_like.errors.JobError", message, f"exca_like.errors.JobError: {message}\n", reason)


def report(*failures: Failure, total: int | None = None) -> FailureReport:
    return FailureReport([(f"Train.run,0/x={number}", failure) for number, failure in enumerate(failures)], total)


def test_the_largest_group_comes_first_with_what_is_needed() -> None:
    failures = [raised(f"shapes don't match ({k},) (5,)") for k in range(37)]
    failures += [raised("shapes don't match (1,) (5,)", line=90), raised("other"), raised("other", kind="lab.io.Lost")]
    found = report(*failures, total=200)
    group = found.groups[0]
    assert (group.count, group.type, group.reason, group.where) == (37, "ValueError", "error", "train.py:81")
    assert group.message == "shapes don't match (0,) (5,)"
    assert group.uids == tuple(f"Train.run,0/x={k}" for k in range(37))
    assert [each.count for each in found.groups] == [37, 1, 1, 1]
    assert len(found) == 40
    assert found.groups[3].type == "lab.io.Lost"
    lines = str(found).splitlines()
    assert lines[:8] == [
        "40 of 200 failed, in 4 ways:",
        "  37 × ValueError at train.py:81: shapes don't match (0,) (5,)",
        *(f"      Train.run,0/x={k}" for k in range(5)),
        "      and 32 more",
    ]
    assert "  1 × Lost at train.py:81: other" in lines
    assert str(found).count("Traceback (most recent call last)") == 1
    assert str(found).endswith("ValueError: shapes don't match (0,) (5,)")


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("loss is 1.5", "loss is nan", False),
        ("loss is 1.5", "loss is -2e-7", True),
        ("<A at 0x7f3a>", "<A at 0xdeadbeef>", True),
        ("commit 3f1c9a7e", "commit 0a1b2c3d", True),
        ("no file '/data/my file.txt'", 'no file "/data/another.txt"', True),
        ("can't open data/a.txt", "can't open data/b/c.csv", True),
        ("can't open data/a.txt", "can't read data/a.txt", False),
        ("KeyError: 'alpha'", "KeyError: 'beta'", False),
        ("", "", True),
        ("don't use a/b, can't", "don't take c/d, can't", False),
        ("20.00 MiB of 7.93 GiB, 12GB free", "1 MiB of 80 GiB, 3GB free", True),
    ],
)
def test_which_messages_say_the_same(one: str, other: str, are_same: bool) -> None:
    assert len(report(raised(one), raised(other)).groups) == (1 if are_same else 2)


@pytest.mark.parametrize("long", ["a" * 200_000, "1" * 200_000 + "g", "a/" * 100_000, "'" * 200_000, "'a/" * 100_000])
def test_long_messages_take_no_time(long: str) -> None:
    started = time.monotonic()
    assert len(report(raised(long), raised(long)).groups) == 1
    assert time.monotonic() - started < 1


def test_the_order_of_failures_does_not_change_the_groups() -> None:
    failures = [
        raised("a 1"),
        raised("a 2"),
        raised("b"),
        ended("timeout", job=3),
        ended("timeout", job=4),
        raised("a 3", line=4),
    ]
    sizes = {tuple(sorted(group.count for group in report(*random.sample(failures, 6)).groups)) for _ in range(20)}
    assert sizes == {(1, 1, 2, 2)}


def test_jobs_that_left_no_traceback() -> None:
    found = report(
        *(ended("out of memory", f"slurmstepd: killed {k}", job=k) for k in range(3)),
        ended("timeout"),
        *(ended("failed", f"exit code 1\nModuleNotFoundError: No module named 'lab'\n[{k}]", job=k) for k in (1, 2)),
        ended("failed", "exit code 3", job=8),
        Failure("exca_like.errors.JobError", "", "", "lost"),
    )
    assert [(group.count, group.reason) for group in found.groups] == [
        (3, "out of memory"),
        (2, "failed"),
        (1, "timeout"),
        (1, "failed"),
        (1, "lost"),
    ]
    assert {(group.where, group.traceback) for group in found.groups} == {("", "")}
    text = str(found)
    assert "3 × out of memory (raise mem_gb)" in text
    assert "1 × timeout (raise timeout_min)" in text
    assert "1 × failed: exit code 3" in text
    assert "\n  1 × lost\n" in text
    assert "What is known of the first:\n\njob 0 of" in text


def test_where_is_the_users_own_code(tmp_path: Path) -> None:
    chained = TRACEBACK.format(line=3, kind="KeyError", message="1")
    chained += f"\nDuring handling of the above exception, another exception occurred:\n\n{TRACEBACK}".format(
        line=99, kind="OSError", message="x"
    )
    assert report(Failure("builtins.OSError", "x", chained)).groups[0].where == "train.py:99"
    library = 'Traceback (most recent call last):\n  File "/usr/lib/python3.12/json/__init__.py", line 4, in loads\nE: x\n'
    assert report(Failure("E", "x", library)).groups[0].where == "__init__.py:4"
    try:
        raise ExceptionGroup("several", [ValueError(1)])
    except ExceptionGroup as error:
        assert report(Failure.of(error)).groups[0].where.startswith("test_failures.py:")
    assert report(Failure("E", "x", "no traceback at all")).groups[0].where == ""


def test_nothing_failed() -> None:
    empty = report(total=3)
    assert str(empty) == "Nothing failed."
    assert not empty
    assert empty.groups == []
    assert empty._repr_html_() == "<p>Nothing failed.</p>"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


def test_nothing_of_a_message_is_markup() -> None:
    bad = "<script>alert('1')</script> & <b>"
    tags = Tags()
    tags.feed(FailureReport([(bad, raised(bad, kind=f"lab.{bad}")), (bad, ended("failed", bad))])._repr_html_())
    assert tags.found == {"p", "details", "summary", "ul", "li", "code", "pre"}


def test_lines_fit() -> None:
    lines = str(report(raised("word " * 100))).partition("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "1 failed:"


def test_as_many_uids_as_are_asked_for() -> None:
    found = report(*(raised(f"no {'abcdefg'[k % 6]}", line=k % 6) for k in range(42)))
    shown = [found.text(number).count("Train.run,0/x=") for number in (None, 1, 3, 0)]
    assert shown == [5, 6, 18, 42]


def test_crashes_are_told_by_the_signal_and_not_by_the_log() -> None:
    found = report(*(ended("failed", f"killed by SIGSEGV\nepoch {name}") for name in ("one", "two")), raised("other"))
    assert str(found.groups[0]) == "2 × failed: killed by SIGSEGV" and len(found.groups) == 2
    assert "Traceback of Train.run,0/x=2:" in str(found), "not of the first group"
