"""The contract of clusters, for those that need nothing but this machine."""

from pathlib import Path

import pytest
from contracts.clusters import ALL_CLUSTERS, JOB_CLUSTERS, Clusters


@pytest.mark.parametrize("cluster", [None, "debug", "local"])
@pytest.mark.parametrize("check", ALL_CLUSTERS)
def test_all(check, cluster, tmp_path: Path) -> None:
    check(Clusters(cluster, tmp_path))


@pytest.mark.parametrize("check", JOB_CLUSTERS)
def test_local_jobs(check, tmp_path: Path) -> None:
    check(Clusters("local", tmp_path))
