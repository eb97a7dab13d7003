"""The contract of maps, on clusters that need nothing but this machine."""

from pathlib import Path

import pytest
from contracts.maps import ALL_MAPS, JOB_MAPS, PROCESS_MAPS, Maps


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "debug", "local"])
@pytest.mark.parametrize("check", ALL_MAPS)
def test_all(check, cluster, tmp_path: Path) -> None:
    check(Maps(cluster, tmp_path))


@pytest.mark.parametrize("cluster", ["processpool", "local"])
@pytest.mark.parametrize("check", PROCESS_MAPS)
def test_other_processes(check, cluster, tmp_path: Path) -> None:
    check(Maps(cluster, tmp_path))


@pytest.mark.parametrize("check", JOB_MAPS)
def test_local_jobs(check, tmp_path: Path) -> None:
    check(Maps("local", tmp_path))
