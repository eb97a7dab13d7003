"""What a job takes along from the process that submits it."""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from exca_like.executors.base import Resources
from exca_like.layout import ORIGIN_VARIABLE, WORKDIR_VARIABLE, origin
from exca_like.names import MAIN_VARIABLE, main_name
from exca_like.runs import RUN_VARIABLE, job_id, passed_on

# variables of a running job that would confuse a job submitted from it; SLURM_CONF names the cluster and stays
_JOB_PREFIXES = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
_JOB_NAMES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
# set in local jobs, which hold a slot of the machine (see exca_like.executors.local_queue)
SLOT_VARIABLE = "EXCA_LIKE_HOLDS_SLOT"
_KEPT = ("SLURM_CONF",)
# of the Python environment that is active here
_ACTIVE = ("PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV")
_INSTALLED = ("site-packages", "dist-packages")


def job_environment(resources: Resources | None = None) -> dict[str, str]:
    """Environment for a job: this process's, without traces of a job that it may be, able to import the same modules."""
    resources = resources or Resources()
    environment = dict(os.environ)
    if "SLURM_JOB_ID" in environment or "SUBMITIT_EXECUTOR" in environment:
        for name in os.environ:
            if (name.startswith(_JOB_PREFIXES) or name in _JOB_NAMES) and name not in _KEPT:
                del environment[name]
    environment.pop(SLOT_VARIABLE, None)
    own = [path for path in _import_path() if resources.python is None or not is_installed(path)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*resources.import_path, *own]))
    environment[MAIN_VARIABLE] = main_name()
    environment[RUN_VARIABLE] = passed_on(resources.source)
    if resources.workdir is not None:
        environment[ORIGIN_VARIABLE] = origin()
        environment[WORKDIR_VARIABLE] = os.path.realpath(resources.workdir)
    if resources.python is not None:
        _activate(environment, os.path.dirname(resources.python))
    return environment


def is_installed(path: str) -> bool:
    """Whether a path is where packages are installed for one Python, and are of no use to another one."""
    return any(part in _INSTALLED for part in Path(path).parts)


def _activate(environment: dict[str, str], programs: str) -> None:
    """Let a job find the programs of its Python environment first."""
    root = os.path.dirname(programs)
    for name in _ACTIVE:
        environment.pop(name, None)
    environment["VIRTUAL_ENV" if os.path.exists(f"{root}/pyvenv.cfg") else "CONDA_PREFIX"] = root
    environment["PATH"] = os.pathsep.join([programs, environment.get("PATH", os.defpath)])


def number_of_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_first_of_job() -> bool:
    """Whether this process is the only one of its job, or the first of several that srun started."""
    return os.environ.get("SLURM_PROCID", "0") == "0"


def current_job(logs: str) -> dict[str, Any] | None:
    """The `JobHandle.record` of the job that this process is; None if it is none."""
    job = job_id()
    if job is None:
        return None
    return {"cluster": "local" if job == os.environ.get("SUBMITIT_LOCAL_JOB_ID") else "slurm", "job_id": job, "logs": logs}


def _import_path() -> list[str]:
    """The import path of this process, without what every Python of this installation has anyway."""
    standard = {os.path.abspath(path) for path in sysconfig.get_paths().values()}
    paths = [os.path.abspath(entry) for entry in sys.path]  # "" is the current folder
    own = [p for p in paths if os.path.isdir(p) and p not in standard and os.path.dirname(p) not in standard]
    present = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return list(dict.fromkeys([*own, *present]))
