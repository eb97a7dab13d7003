"""The cluster the other tests rely on behaves as a cluster does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

import pytest
import submitit
from testbed import ClusterError, Testbed

HERE = Path(__file__).parent


def _until(condition: tp.Callable[[], object], timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.05)


def _command(*words: str) -> str:
    """What a command prints that has nothing but the environment of the tests to find the cluster by."""
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def _submit(script: str, output: Path | str = "/dev/null", *options: str) -> str:
    return _command("sbatch", "--parsable", f"--output={output}", *options, f"--wrap={script}")


def _accounted(job: str, field: str = "state", *options: str) -> str:
    return _command("sacct", "-n", "-P", "-X", "-j", job, "-o", field, *options)


def _queued(job: str, field: str = "%T") -> str:
    return _command("squeue", "-h", "-j", job, "-o", field)


def _ended(job: str, state: str = "COMPLETED") -> tp.Callable[[], bool]:
    return lambda: _accounted(job) == state


def test_both_nodes_are_idle(idle_cluster: Testbed) -> None:
    nodes = _command("sinfo", "-h", "-N", "-o", "%P %N %T %c %G")
    assert sorted(nodes.splitlines()) == sorted(
        f"{partition} {node} idle 4 gpu:v100:2" for partition in ("debug*", "scavenge") for node in ("n1", "n2")
    )


def test_job_gets_its_gpu_and_partition(idle_cluster: Testbed, tmp_path: Path) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES $SLURM_JOB_PARTITION"
    job = _submit(script, tmp_path / "out", "--gpus-per-node=1", "--partition=scavenge")
    _until(_ended(job))
    assert (tmp_path / "out").read_text().split() == ["0", "scavenge"]


def test_job_submits_job(idle_cluster: Testbed, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    script = f"sbatch --parsable --output={inner} --wrap='echo $SLURM_JOB_ID'; srun echo step; echo $SLURM_CONF"
    job = _submit(script, outer)
    _until(_ended(job))
    inner_job, step, conf = outer.read_text().split()
    assert (step, conf) == ("step", str(idle_cluster.conf))
    _until(_ended(inner_job))
    assert inner.read_text().strip() == inner_job


def test_array_beyond_the_limit_is_refused(idle_cluster: Testbed) -> None:
    limit = idle_cluster.max_array_size
    assert f"MaxArraySize            = {limit}" in _command("scontrol", "show", "config")
    with pytest.raises(subprocess.CalledProcessError) as error:
        _submit("true", "/dev/null", f"--array=0-{limit}")
    assert "Invalid job array specification" in error.value.stderr
    _submit("true", "/dev/null", f"--array=0-{limit - 1}%1", "--hold")


def test_accounting_knows_what_ended(idle_cluster: Testbed) -> None:
    good, bad = _submit("true"), _submit("exit 3")
    _until(_ended(good))
    _until(_ended(bad, "FAILED"))
    assert _accounted(bad, "exitcode,account") == "3:0|lab"


def test_submitit_array(idle_cluster: Testbed, tmp_path: Path) -> None:
    executor = submitit.SlurmExecutor(folder=tmp_path)
    executor.update_parameters(time=5, array_parallelism=4)
    jobs = executor.map_array(abs, [-1, -2, -3, -4])
    assert [job.result() for job in jobs] == [1, 2, 3, 4]
    assert len({job.job_id.split("_")[0] for job in jobs}) == 1


def test_clean_env_of_submitit_hides_the_cluster(idle_cluster: Testbed) -> None:
    # Why code that submits from within a job must keep SLURM_CONF on its own.
    with submitit.helpers.clean_env(), pytest.raises(subprocess.CalledProcessError):
        _command("sinfo")
    assert _command("sinfo")


def test_node_fails_and_comes_back(idle_cluster: Testbed) -> None:
    job = _submit("sleep 60", "/dev/null", "--nodelist=n1")
    _until(lambda: _queued(job) == "RUNNING")
    idle_cluster.fail_node("n1")
    assert idle_cluster.node_state("n1").startswith("down")
    assert idle_cluster.node_state("n2") == "idle"
    _until(lambda: _accounted(job, "state", "--duplicates").startswith("NODE_FAIL"))
    assert _queued(job) == "PENDING"
    idle_cluster.start_node("n1")
    _until(lambda: _queued(job) == "RUNNING")


def test_controller_restarts_under_a_job(idle_cluster: Testbed) -> None:
    job = _submit("sleep 6", "/dev/null", "--nodelist=n1")
    _until(lambda: _queued(job) == "RUNNING")
    idle_cluster.restart_controller()
    assert _queued(job) == "RUNNING"
    _until(_ended(job))
    idle_cluster.wait_idle()


def test_debug_preempts_scavenge(idle_cluster: Testbed) -> None:
    both = ("--nodes=2", "--exclusive")
    low = _submit("sleep 60", "/dev/null", "--partition=scavenge", *both)
    _until(lambda: _queued(low) == "RUNNING")
    high = _submit("sleep 1", "/dev/null", "--partition=debug", *both)
    _until(_ended(high))
    assert _accounted(low, "state", "--duplicates").splitlines()[0] == "PREEMPTED"
    assert "Restarts=1" in _command("scontrol", "show", "job", low)
    _until(lambda: _queued(low) == "RUNNING")


def test_accounting_away_and_back(idle_cluster: Testbed) -> None:
    idle_cluster.stop_accounting()
    job = _submit("true")
    assert subprocess.run(["sacct", "-j", job], capture_output=True, check=False).returncode
    _until(lambda: _queued(job) == "")
    idle_cluster.start_accounting()
    _until(_ended(job))


def test_failed_start_says_why_and_leaves_nothing(cluster: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is too long for unix sockets
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr("testbed._SLURMDBD_CONF", "Nonsense=1\n")
        with pytest.raises(ClusterError, match=r"(?s)slurmdbd ended with code.*Nonsense"):
            Testbed().start()
        assert os.listdir(folder) == []


def _alive(root: str) -> list[str]:
    lines = _command("ps", "-eo", "stat,args").splitlines()
    return [x for x in lines if root in x and not x.startswith("Z")]


def test_second_testbed_by_hand_leaves_nothing(idle_cluster: Testbed) -> None:
    process = subprocess.Popen([sys.executable, HERE / "testbed.py"], stdout=subprocess.PIPE, text=True)
    try:
        with process.stdout:
            name, _, conf = process.stdout.readline().strip().removeprefix("export ").partition("=")
        root, env = Path(conf).parent, os.environ | {name: conf}
        assert root != idle_cluster.root
        # A process that leaves its job's process group, and outlives the job.
        script = f"--wrap=setsid sh -c 'trap : TERM; sleep 300; echo {root}' & sleep 300"
        subprocess.run(["sbatch", "--output=/dev/null", script], env=env, check=True, stdout=subprocess.DEVNULL)
        _until(lambda: any("sleep 300" in x for x in _alive(str(root))))
        assert _command("squeue", "-h") == ""
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not root.exists()
    assert _alive(str(root)) == []
    idle_cluster.wait_idle()
