"""Submissions to a cluster that has limits, or does not answer."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contracts.clusters import Clusters, wait_until
from contracts.maps import Maps, once

from exca_like import errors, sources
from exca_like.executors import sbatch, slurm

REAL = "/usr/bin/sbatch"
LOST_ANSWER = f"""#!/bin/bash
# passes the first submission on, and loses the answer
echo call >> {{log}}
if [ "$(wc -l < {{log}})" -le {{failures}} ]; then
    {{first}}
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
    exit 1
fi
exec {REAL} "$@"
"""


@pytest.fixture(autouse=True)
def limits_are_asked_for(monkeypatch):
    monkeypatch.setattr(sources, "_known", {})
    monkeypatch.setattr(sbatch, "_known", {})
    monkeypatch.setattr(sbatch, "_DELAYS_S", (0.1,) * 4)
    monkeypatch.setattr(sbatch, "_LAST_DELAY_S", 0.1)


def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, first: str) -> Path:
    """An sbatch that fails at first; returns the file with a line for each call."""
    log = tmp_path / "calls"
    command = tmp_path / "bin" / "sbatch"
    command.parent.mkdir()
    command.write_text(LOST_ANSWER.format(log=log, failures=failures, first=first))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    return log


def submitted(name: str) -> list[str]:
    """Ids of all jobs of a name, also those that ended."""
    command = ["squeue", "--noheader", "--states", "all", "--name", name, "--format", "%A"]
    return sorted(set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))


def test_chunks() -> None:
    assert sbatch.chunks(3, 5) == [range(3)]
    assert [len(chunk) for chunk in sbatch.chunks(120, 51)] == [40, 40, 40]
    assert [number for chunk in sbatch.chunks(103, 51) for number in chunk] == list(range(103))


def test_arrays_are_split_under_the_limit_of_the_cluster(idle_cluster, tmp_path, request) -> None:
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True).stdout
    assert f"MaxArraySize            = {sbatch.max_array_size()}" in shown
    limit = sbatch.max_array_size()
    number = 1000 if request.config.getoption("--long") else 120
    base = Clusters("slurm", tmp_path, cpus_per_task=1, mem_gb=0.1).task()
    started = time.monotonic()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(number))
    assert [task.run()["value"] for task in array] == [k + 0.5 for k in range(number)]
    ids = {task.infra.job().job_id.split("_")[0] for task in array}
    assert len(ids) == -(-number // limit)
    print(f"{number} tasks with MaxArraySize={limit}: {len(ids)} arrays, {time.monotonic() - started:.1f} s")


def test_limit_of_the_environment(idle_cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EXCA_LIKE_MAX_ARRAY_SIZE", "2")
    base = Clusters("slurm", tmp_path, cpus_per_task=1, mem_gb=0.1).task()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(5))
    assert [task.run()["value"] for task in array] == [k + 0.5 for k in range(5)]
    assert len({task.infra.job().job_id.split("_")[0] for task in array}) == 3
    monkeypatch.setenv("EXCA_LIKE_MAX_ARRAY_SIZE", "many")
    with pytest.raises(errors.SettingsError, match="EXCA_LIKE_MAX_ARRAY_SIZE='many'"):
        Clusters("slurm", tmp_path).task(seed=9).infra.job()


def test_settings_for_this_cluster(idle_cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    tables = [f"[cluster.{name}]\ntimeout_min = {minutes}\n" for name, minutes in (("other", 5), ("TEST", 7))]
    file = tmp_path / "exca_like" / "config.toml"
    file.parent.mkdir()
    file.write_text("".join(["max_array_size = 2\n", *tables, 'slurm_additional_parameters = {comment = "set"}\n']))
    base = Clusters("slurm", tmp_path, job_name="settings", mem_gb=0.1).task()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(3))
    assert [task.run()["value"] for task in array] == [k + 0.5 for k in range(3)]
    command = ["squeue", "--noheader", "--states", "all", "--name", "settings", "--format", "%F %l %k"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(shown) == 3
    assert {line.split(" ", 1)[1] for line in shown} == {"7:00 set"}
    assert len({line.split(" ", 1)[0] for line in shown}) == 2


def test_what_was_sent_before_a_refusal_goes_on(idle_cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EXCA_LIKE_MAX_ARRAY_SIZE", "2")
    log = tmp_path / "calls"
    refusing = tmp_path / "bin" / "sbatch"
    refusing.parent.mkdir()
    refusing.write_text(
        f'#!/bin/bash\necho call >> {log}\n[ "$(wc -l < {log})" != 2 ] && exec {REAL} "$@"\necho no >&2\nexit 1\n'
    )
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(refusing.parent), prepend=":")
    clusters = Clusters("slurm", tmp_path)
    base = clusters.task()
    tasks = [base.infra.clone_obj(seed=k) for k in range(4)]
    with pytest.raises(errors.SubmissionError, match="refused the submission: no"), base.infra.job_array() as array:
        array.extend(tasks)
    assert [task.infra.job().result()["value"] for task in tasks[:2]] == [0.5, 1.5]
    assert {task.infra.status() for task in tasks[2:]} == {"not submitted"}
    with base.infra.job_array() as array:
        array.extend(tasks)
    assert [task.run()["value"] for task in tasks] == [k + 0.5 for k in range(4)]
    assert clusters.computed == 4


@pytest.fixture
def limit(idle_cluster):
    """Sets how many jobs the user may have at a time."""

    def set_limit(number: int) -> None:
        idle_cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", f"maxsubmitjobs={number}")

    yield set_limit
    set_limit(-1)


def test_arrays_go_out_in_waves_under_the_limit_of_the_user(limit, idle_cluster, tmp_path, capfd) -> None:
    limit(6)
    wait_until(lambda: sbatch.max_submit_jobs(None, None) == 6)
    clusters = Clusters("slurm", tmp_path, cpus_per_task=1, mem_gb=0.1)
    base = clusters.task()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(seed=k) for k in range(15))
    assert [task.run()["value"] for task in array] == [k + 0.5 for k in range(15)]
    assert clusters.computed == 15
    assert len({task.infra.job().job_id.split("_")[0] for task in array}) >= 3
    assert capfd.readouterr().err.count("wait to be sent") == 1


def test_waves_of_a_map_under_a_limit_that_only_sbatch_knows(limit, idle_cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(slurm, "max_submit_jobs", lambda account, qos: None)
    limit(4)
    maps = Maps("slurm", tmp_path, max_jobs=8, cpus_per_task=1, mem_gb=0.1)
    model = maps.model()
    assert list(model.compute(range(16))) == model.results(range(16))
    assert maps.computed == once(range(16))


def test_lost_answers_compute_nothing_twice(idle_cluster, tmp_path, monkeypatch) -> None:
    log = shim(tmp_path, monkeypatch, 1, f'{REAL} "$@" > /dev/null')
    clusters = Clusters("slurm", tmp_path, job_name="lost-answer")
    task = clusters.task(seed=4)
    assert task.run() == {"value": 4.5}
    assert len(log.read_text().split()) == 2
    (other,) = set(submitted("lost-answer")) - {task.infra.job().job_id}
    command = ["squeue", "--noheader", "--states", "all", "--jobs", other, "--format", "%T"]
    wait_until(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() in ("CANCELLED", "FAILED")
    )
    assert not list((tmp_path / "cache" / "logs").rglob(f"{other}*.pkl"))  # what it would have started from


def test_submissions_are_tried_again(idle_cluster, tmp_path, monkeypatch) -> None:
    log = shim(tmp_path, monkeypatch, 2, "")
    task = Clusters("slurm", tmp_path, job_name="tried-again").task(seed=5)
    assert task.run() == {"value": 5.5}
    assert len(log.read_text().split()) == 3
    assert submitted("tried-again") == [task.infra.job().job_id]


def test_submissions_that_never_get_through(idle_cluster, tmp_path, monkeypatch) -> None:
    shim(tmp_path, monkeypatch, 100, "")
    task = Clusters("slurm", tmp_path).task()
    with pytest.raises(errors.SubmissionError, match=r"could not be reached.*Socket timed out.*when it is back"):
        task.infra.job()
    assert task.infra.status() == "not submitted"


def test_controller_that_is_restarted_during_a_submission(idle_cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sbatch, "_DELAYS_S", (1,) * 60)
    idle_cluster._daemons["slurmctld"].stop()
    task = Clusters("slurm", tmp_path).task(seed=6)
    with ThreadPoolExecutor(1) as pool:
        value = pool.submit(task.run)
        time.sleep(3)
        assert not value.done()
        idle_cluster.restart_controller()
        assert value.result(120) == {"value": 6.5}
