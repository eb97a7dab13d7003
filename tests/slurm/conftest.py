"""The Slurm the tests of this folder run on."""

from __future__ import annotations

import os
import typing as tp
from pathlib import Path

import pytest
import testbed

REQUIRE_VARIABLE = "EXCA_LIKE_REQUIRE_SLURM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.slurm)


def _unavailable() -> str | None:
    if lacking := testbed.missing():
        return f"Slurm tests need {', '.join(lacking)}: run `{testbed.INSTALL}`"
    if os.geteuid() != 0:
        return "Slurm tests need root, which the daemons run as"
    return None


@pytest.fixture(scope="session")
def cluster() -> tp.Iterator[testbed.Testbed]:
    """A running Slurm of two nodes, which the commands called by the tests find through the environment."""
    if reason := _unavailable():
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch, testbed.Testbed() as running:
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
