"""What is said of jobs when Slurm says nothing; what it says itself is tested on a cluster."""

from pathlib import Path

import pytest

from exca_like.executors.slurm_state import StateWatcher


def test_a_controller_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "squeue"
    command.write_text("#!/bin/sh\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    watcher = StateWatcher()
    assert watcher.ended("12") is None, "nothing is known to have changed"
    place = watcher.whereabouts("12")
    assert (place.is_running, place.reason) == (False, "Slurm does not answer")
