"""The Slurm the tests of this folder run on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import typing as tp
from pathlib import Path

import pytest
import testbed
from terminal import Terminal

from exca_like.executors import slurm_state

REQUIRE_VARIABLE = "EXCA_LIKE_REQUIRE_SLURM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))  # one cluster, by the one worker that has these tests


def _unavailable() -> str | None:
    if lacking := testbed.missing():
        return f"Slurm tests need {', '.join(lacking)}: run `{testbed.INSTALL}`"
    if os.geteuid() != 0:
        return "Slurm tests need root, which the daemons run as"
    return None


@contextlib.contextmanager
def _stopped_by_sigterm(running: testbed.Testbed) -> tp.Iterator[None]:
    """SIGTERM (of `timeout`, of a CI) ends pytest at once, without its fixtures' ends."""

    def stop(number: int, _: object) -> None:
        running.stop()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def cluster() -> tp.Iterator[testbed.Testbed]:
    """A running Slurm of two nodes, which the commands called by the tests find through the environment."""
    if reason := _unavailable():
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    running = testbed.Testbed()
    with pytest.MonkeyPatch.context() as patch, _stopped_by_sigterm(running), running:
        for name in [x for x in os.environ if x.startswith(testbed.FOREIGN)]:
            patch.delenv(name)
        for name, value in running.env.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def idle_cluster(cluster: testbed.Testbed) -> testbed.Testbed:
    """The cluster with everything running, no job and idle nodes, whatever the tests before left behind."""
    cluster.settle()
    return cluster


@pytest.fixture(autouse=True)
def _nothing_was_asked_yet() -> None:
    """What the tests before asked of the scheduler must not make this one wait."""
    slurm_state.watcher.__init__()  # type: ignore[misc]


@pytest.fixture
def terminals(tmp_path: Path) -> tp.Iterator[list[Terminal]]:
    if shutil.which("tmux") is None:
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail("tmux is not installed")
        pytest.skip("needs tmux")
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()
