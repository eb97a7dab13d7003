"""40 no-op tasks on a real Slurm beside raw submitit and exca: ``python tests/benchmarks/slurm_table.py [--rounds N]``.

Needs root and the Debian packages of tests/slurm/testbed.py, whose cluster of two nodes it starts; exca comes with the extra
``bench``. The libraries run in turn; the fastest round of each counts, from the first call to the last result in the driver.
submitit's own jobs call a method of the same configs, or ``abs``, which needs no import.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

import pydantic
import submitit

sys.path.insert(0, str(Path(__file__).parents[1] / "slurm"))
from testbed import Testbed

import exca_like

NUMBER = 40


class Ours(pydantic.BaseModel):
    k: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="slurm", cpus_per_task=1, mem_gb=0.1)

    @infra.apply
    def run(self) -> int:
        return self.k


def with_exca_like(folder: Path, **options: tp.Any) -> float:
    base = Ours(infra={"folder": folder})
    started = time.perf_counter()
    with base.infra.job_array(**options) as array:
        array.extend(base.infra.clone_obj(k=k) for k in range(NUMBER))
    assert [task.run() for task in array] == list(range(NUMBER))
    return time.perf_counter() - started


def with_exca(folder: Path) -> float:
    import exca

    class Theirs(pydantic.BaseModel):
        k: int = 0
        infra: exca.TaskInfra = exca.TaskInfra(cpus_per_task=1, mem_gb=0.1)

        @infra.apply
        def run(self) -> int:
            return self.k

    base = Theirs(infra={"folder": str(folder), "cluster": "slurm"})
    started = time.perf_counter()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(k=k) for k in range(NUMBER))
    assert [task.run() for task in array] == list(range(NUMBER))
    return time.perf_counter() - started


class Plain(pydantic.BaseModel):
    k: int = 0

    def run(self) -> int:
        return self.k


def with_submitit(folder: Path, function: tp.Callable[[tp.Any], int], arguments: tp.Sequence[tp.Any]) -> float:
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(cpus_per_task=1, mem="100M", use_srun=False, array_parallelism=256, time=10)
    started = time.perf_counter()
    jobs = executor.map_array(function, arguments)
    assert [job.result() for job in jobs] == list(range(NUMBER))
    return time.perf_counter() - started


def wrap_commands(folder: Path, env: dict[str, str]) -> None:
    """Slurm's commands, which know the testbed even without the variable that exca takes away from them."""
    folder.mkdir()
    settings = " ".join(f"{name}={value}" for name, value in env.items())
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun"):
        (folder / name).write_text(f'#!/bin/sh\nexec env {settings} {shutil.which(name)} "$@"\n')
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def overheads(folder: Path, number: int) -> list[float]:
    """Seconds from the end of the process of a no-op job to its result in the driver."""
    found = []
    for k in range(number):
        task = Ours(k=k, infra={"folder": folder})
        job = task.infra.job()
        job.result()
        told = time.time()
        deadline = told + 10
        while not job.paths.ended.exists() and time.time() < deadline:  # what the job writes last
            time.sleep(0.01)
        found.append(told - job.paths.ended.stat().st_mtime)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    sides: dict[str, tp.Callable[[Path], float]] = {
        "submitit, 40 x abs": lambda folder: with_submitit(folder, abs, range(NUMBER)),
        "submitit, 40 configs": lambda folder: with_submitit(folder, Plain.run, [Plain(k=k) for k in range(NUMBER)]),
        "exca_like, 40 jobs": with_exca_like,
        "exca_like, tasks_per_job=10": lambda folder: with_exca_like(folder, tasks_per_job=10),
    }
    if importlib.util.find_spec("exca") is not None:
        sides["exca, 40 jobs"] = with_exca
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # jobs would compile what is installed for editing again and again
    with Testbed() as testbed, tempfile.TemporaryDirectory() as folder:
        os.environ.update(testbed.env)
        wrap_commands(Path(folder, "bin"), testbed.env)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name, side in sides.items():
                testbed.wait_idle()
                place = Path(folder, name.replace(" ", "-"), str(number))
                place.mkdir(parents=True)
                times[name].append(side(place))
        for name, found in times.items():
            print(f"{name:30} {min(found):6.1f} s (rounds: {', '.join(f'{value:.1f}' for value in found)})", flush=True)
        testbed.wait_idle()
        delays = overheads(Path(folder, "overheads"), 15)
        print(f"end of a no-op job to its result: {statistics.median(delays):.2f} s at the median, {max(delays):.2f} at most")


if __name__ == "__main__":
    main()
