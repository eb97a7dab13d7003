"""Interpreters of other environments, for jobs."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from exca_like.errors import InfraValueError, SubmissionError
from exca_like.executors.base import Resources
from exca_like.executors.environment import job_environment

# what a job imports before it comes to the user's code
_NEEDED = ("numpy", "orjson", "pydantic", "yaml", "submitit", "cloudpickle")
_OLDEST = (3, 11)
_QUESTION = (
    "import importlib.util as u, json, sys; "
    f"print(json.dumps([sys.version_info[:2], [n for n in {_NEEDED!r} if u.find_spec(n) is None]]))"
)
_versions: dict[str, tuple[int, int]] = {}


def find_python(environment: str | Path) -> str:
    """The interpreter of an environment: of a conda environment by its name, or of a folder that has ``bin/python``.

    Raises
    ------
    ValueError
        There is no such environment.
    """
    text = os.fspath(environment)
    is_name = isinstance(environment, str) and os.sep not in text and text not in ("", ".", "..")
    folders = list(dict.fromkeys(_named(text))) if is_name else []
    if len(folders) > 1:
        msg = (
            f"conda_env={text!r} is the name of several environments: {', '.join(folders)}. Give the path of the one you mean."
        )
        raise InfraValueError(msg)
    path = os.path.abspath(os.path.expanduser(text))
    for folder in (*folders, path):
        python = f"{folder}/bin/python"
        if os.access(python, os.X_OK) and os.path.isfile(python):
            return python
    if not is_name:
        what = "there is no such folder" if not os.path.isdir(path) else f"there is no interpreter {path}/bin/python"
        msg = f"conda_env={text!r}: {what}. Give the folder of an environment, or the name of a conda environment."
        raise InfraValueError(msg)
    searched = ", ".join(_roots()) or "nowhere, as neither CONDA_EXE, CONDA_PREFIX nor MAMBA_ROOT_PREFIX is set"
    msg = (
        f"conda_env={text!r}: no conda environment of this name was found (searched: {searched}, and "
        "~/.conda/environments.txt). Check the name with `conda env list`, or give the path of the environment's folder."
    )
    raise InfraValueError(msg)


def _roots() -> list[str]:
    """Folders of conda's installations, and others that hold an ``envs``."""
    variables = os.environ
    found = []
    if variables.get("CONDA_EXE"):
        found.append(os.path.dirname(os.path.dirname(variables["CONDA_EXE"])))
    found += [variables[name] for name in ("MAMBA_ROOT_PREFIX", "CONDA_ROOT") if variables.get(name)]
    active = variables.get("CONDA_PREFIX")
    if active:
        parent, name = os.path.split(os.path.dirname(active))
        found.append(parent if name == "envs" else active)
    found.append(os.path.expanduser("~/.conda"))
    return [folder for folder in dict.fromkeys(map(os.path.abspath, found)) if os.path.isdir(folder)]


def _named(name: str) -> Iterator[str]:
    """Folders of the environments of a name."""
    roots = _roots()
    if name == "base":
        yield from [os.path.realpath(root) for root in roots if os.path.isdir(f"{root}/conda-meta")][:1]
        return
    listed = [folder for key in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS") for folder in os.environ.get(key, "").split(os.pathsep)]
    for folder in (*filter(None, listed), *(f"{root}/envs" for root in roots)):
        if os.path.isdir(f"{folder}/{name}"):  # the first one, as for conda
            yield os.path.realpath(f"{folder}/{name}")
            return
    try:
        lines = Path("~/.conda/environments.txt").expanduser().read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    yield from (os.path.realpath(line) for line in lines if os.path.basename(line) == name and os.path.isdir(line))


def check_python(resources: Resources) -> None:
    """Raise if the interpreter of jobs can't run them; it is asked once.

    Raises
    ------
    SubmissionError
        It does not start, is too old, or lacks packages that jobs need.
    """
    python = resources.python
    if python is None or python in _versions:
        return
    try:
        done = subprocess.run(
            [python, "-c", _QUESTION], env=job_environment(resources), capture_output=True, text=True, check=True, cwd="/"
        )
        version, missing = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()[-2000:]
        msg = f"the interpreter of conda_env, {python}, does not run: {said}"
        raise SubmissionError(msg) from error
    shown = ".".join(map(str, version))
    if tuple(version) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        msg = (
            f"the interpreter of conda_env, {python}, is Python {shown}: jobs need {oldest} or later, make a newer environment"
        )
        raise SubmissionError(msg)
    if missing:
        msg = (
            f"the interpreter of conda_env, {python} (Python {shown}), lacks packages that jobs need: {', '.join(missing)}. "
            f"Install them there, for instance with `{python} -m pip install exca_like`."
        )
        raise SubmissionError(msg)
    _versions[python] = (version[0], version[1])


def python_version(python: str) -> tuple[int, int]:
    """Major and minor version of an interpreter that was checked."""
    return _versions[python]
