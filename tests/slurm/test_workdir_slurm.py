"""Copies of code, other environments, and finding jobs, on a real cluster."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pydantic
import pytest
from contracts.clusters import wait_until

import exca_like
from exca_like.helpers import find_slurm_job


class Look(pydantic.BaseModel):
    x: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cpus_per_task=1, mem_gb=0.1)

    @infra.apply
    def run(self) -> dict[str, Any]:
        import os

        import looked_at

        return {"value": looked_at.VALUE, "cwd": os.getcwd(), "prefix": sys.prefix, "setup": os.environ.get("SETUP_RAN")}


class LookMany(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra(cpus_per_task=1, mem_gb=0.1)

    @infra.apply(item_uid=str)
    def run(self, items: list[int]):
        import looked_at

        for item in items:
            yield [item, looked_at.VALUE]


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> Path:
    path = tmp_path / "project/looked_at.py"
    path.parent.mkdir()
    path.write_text("VALUE = 'before'")
    monkeypatch.syspath_prepend(str(path.parent))
    return path


@pytest.mark.parametrize("srun", [False, True])
def test_jobs_run_what_was_submitted(srun: bool, idle_cluster, module: Path, tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "with space", "cluster": "slurm", "workdir": {"copied": ["looked_at"]}}
    infra |= {"slurm_use_srun": srun, "slurm_setup": ["export SETUP_RAN=yes"]}
    tasks = [Look(x=x, infra=infra) for x in range(3)]
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    module.write_text("VALUE = 'after'")
    (copy,) = (tmp_path / "with space/code").iterdir()
    for task in tasks:
        assert task.run() == {"value": "before", "cwd": str(copy), "prefix": sys.prefix, "setup": "yes"}
    assert list(LookMany(infra=infra).run([1])) == [[1, "after"]]


def test_job_uses_the_python_of_an_environment(idle_cluster, module: Path, tmp_path: Path) -> None:
    (tmp_path / "env").symlink_to(sys.prefix)
    infra = {"folder": tmp_path / "cache", "cluster": "slurm", "conda_env": tmp_path / "env"}
    task = Look(infra=infra)
    assert task.run()["value"] == "before"
    script = next(task.infra.job().paths.folder.glob("*_submission.sh")).read_text()
    assert f"{tmp_path}/env/bin/python -u -m exca_like.executors.slurm_job" in script


def test_jobs_are_found_by_their_ids(idle_cluster, module: Path, tmp_path: Path) -> None:
    tasks = [Look(x=x, infra={"folder": tmp_path, "cluster": "slurm"}) for x in (1, 2)]
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    for task in tasks:
        job_id = task.infra.job().job_id
        for folder in (None, tmp_path):
            wait_until(lambda: find_slurm_job(job_id=job_id, folder=folder) is not None)
            found = find_slurm_job(job_id=job_id, folder=folder)
            assert found is not None
            assert (found.uid, found.config) == (task.infra.uid(), task.infra.config(uid=False))
        assert found.job.result() == task.run()
    with pytest.raises(ValueError, match="array of 2 jobs"):
        find_slurm_job(job_id=job_id.partition("_")[0], folder=tmp_path)
    started = time.monotonic()
    assert find_slurm_job(job_id="987654", folder=tmp_path) is None
    assert time.monotonic() - started < 30


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_results_know_their_job_and_the_commit_of_its_submission(idle_cluster, module: Path, tmp_path: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=module.parent, check=True)
    code = """
        import sys, pydantic, exca_like

        class Task(pydantic.BaseModel):
            x: int
            infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.3)

            @infra.apply
            def run(self) -> int:
                exca_like.record(twice=2 * self.x)
                return self.x

        class Items(pydantic.BaseModel):
            infra: exca_like.MapInfra = exca_like.MapInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.3, max_jobs=2)

            @infra.apply(item_uid=str)
            def run(self, items: list[int]):
                yield from items

        infra = {"folder": sys.argv[1], "workdir": {"copied": ["looked_at"]}}
        tasks = [Task(x=x, infra=infra) for x in (1, 2)]
        with tasks[0].infra.job_array() as array:
            array.extend(tasks)
        for task in tasks:
            task.run()
            found = task.infra.provenance()
            assert found.extra == {"twice": 2 * task.x}
            assert found.job == task.infra.job().job_id
            assert 0.01 < found.memory < 0.3
            print(found.commit, found.dirty, found.repository, found.command)
        items = Items(infra=infra)
        assert list(items.run(range(4))) == [0, 1, 2, 3]
        found = [items.infra.provenance(item) for item in range(4)]
        assert len({each.job for each in found}) == 2, found
        print(found[0].commit, found[0].dirty, found[0].repository, found[0].command)
    """
    (module.parent / "script.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "script.py", str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(exca_like.__file__).parents[1]), str(module.parent)])}
    done = subprocess.run(command, cwd=module.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=module.parent, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert done.stdout.splitlines() == [f"{head} False {module.parent} {' '.join(command)}"] * 3
    assert (
        len(list((tmp_path / "cache/provenance").glob("????????????????.json"))) <= 2
    )  # one for the tasks, and one for the map if it imports more
