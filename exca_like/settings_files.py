"""Settings files, to begin with and to change: a template, and single values.

They are TOML; what is changed is changed in place, so that comments and the order of things stay.
"""

import ast
import inspect
import os
import stat
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exca_like import files, sources
from exca_like.errors import ConfigValueError, SettingsError
from exca_like.infra.base import BaseInfra
from exca_like.infra.resources import JOB_SETTINGS, check_file
from exca_like.infra.task import TaskInfra

_WIDTH = 100
_EXAMPLES: dict[str, Any] = {
    "timeout_min": 60,
    "nodes": 1,
    "tasks_per_node": 1,
    "cpus_per_task": 4,
    "gpus_per_node": 1,
    "mem_gb": 16.0,
    "max_pickle_size_gb": 1.0,
    "slurm_partition": "gpu",
    "slurm_account": "my_project",
    "slurm_qos": "normal",
    "slurm_constraint": "volta32gb",
    "slurm_use_srun": False,
    "slurm_additional_parameters": {"mail-type": "END"},
    "slurm_setup": ["module load cuda"],
    "requeue": "preemption",
    "max_requeues": 10,
}
_TOOLS: dict[str, tuple[Any, str]] = {
    "max_array_size": (1000, "How many jobs an array of Slurm may have; by default the cluster is asked."),
    "max_submit_jobs": (1000, "How many jobs one may have in the queue; by default the cluster is asked."),
    "progress": (True, "Show bars and messages of progress; by default on terminals."),
    "memo_folder": (".exca_like", "Where memoised functions without a folder keep their results."),
    "code": ("warn", 'What to do with results of other code: "ignore", "warn" or "recompute".'),
    "code_packages": ("major", 'How precisely versions of packages count for that: "none", "major", "minor" or "patch".'),
    "count_hits": (True, "Note how often results are taken from caches, for `exca-like stats`."),
}


def template(*, project: bool = False) -> str:
    """All settings with what they mean, as comments of a settings file: take away the ``# `` before what is to hold.

    Parameters
    ----------
    project:
        For the ``pyproject.toml`` of a project, in which they stand in the table ``[tool.exca_like]``.

    Examples
    --------
    >>> print(template())  # doctest: +SKIP
    """
    above = "tool.exca_like." if project else ""
    lines = [
        "# Settings of exca_like: what jobs ask for where an infra does not say it.",
        '# Take away the "# " before what is to hold; `exca-like settings` shows what does.',
        *([f"[{above.removesuffix('.')}]"] if project else []),
    ]
    meanings = _meanings()
    settings = [(name, _EXAMPLES[name], meanings[name]) for name in JOB_SETTINGS if name in _EXAMPLES]
    settings += [(name, *about) for name, about in _TOOLS.items()]
    for name, example, meaning in settings:
        lines += ["", *(f"## {line}" for line in textwrap.wrap(meaning, _WIDTH)), f"# {name} = {_toml(example)}"]
    lines += [
        "",
        '## For single clusters: "local" for local jobs, or the ClusterName of a Slurm.',
        f"# [{above}cluster.local]",
        "# timeout_min = 10",
    ]
    return "\n".join(lines) + "\n"


def put(values: Mapping[str, Any], *, project: bool = False, cluster: str | None = None) -> Path:
    """Set some settings in the user's file or in the project's, which is made if it is not there.

    Parameters
    ----------
    values:
        The settings, by name; None takes one out of the file.
    project:
        Write to the nearest ``pyproject.toml``, from the current folder upwards, and not to the user's file.
    cluster:
        Only for this cluster: ``"local"``, or the ClusterName of a Slurm.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SettingsError
        There is no such setting, one has no such value, or the file is malformed; nothing was written.
    ImportError
        tomlkit is not installed.

    Examples
    --------
    >>> put({"slurm_partition": "gpu"}, cluster="jean_zay")  # doctest: +SKIP
    """
    try:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError
    except ImportError as error:
        msg = "to change settings files needs tomlkit, which is not installed: pip install 'exca_like[cli]'"
        raise ImportError(msg) from error
    file = sources.settings_files()[project]
    path = os.path.realpath(file.path)  # which may be a link to somewhere
    try:
        text = files.read_bytes(path).decode() if os.path.exists(path) else ""
        document = tomlkit.parse(text)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        msg = f"can't change the settings file {path}: {error}. Correct it first."
        raise SettingsError(msg) from error
    names = [*file.above.split(".")[:-1], *(["cluster", cluster] if cluster else [])]
    table: Any = document
    for one in names:
        if one not in table:
            table[one] = tomlkit.table(is_super_table=one != names[-1])
        table = table[one]
        if not isinstance(table, dict):
            msg = f"{path}: {one} is no table. Correct it first."
            raise SettingsError(msg)
    for name, value in values.items():
        if value is None and name not in table:
            msg = f"{path} does not set {name}{f' for {cluster}' if cluster else ''}: there is nothing to take out"
            raise SettingsError(msg)
        if value is None:
            del table[name]
            continue
        try:
            table[name] = value
        except (TypeError, ValueError) as error:
            msg = f"{name}={value!r} can't be written to a settings file: {error}"
            raise ConfigValueError(msg) from error
    data = tomlkit.dumps(document).encode()
    check_file(TaskInfra, sources.parsed_text(path, file.above, data))
    mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else None
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        files.write_atomic(path, data, mode)
    except OSError as error:
        msg = f"can't write the settings file {path}: {error.strerror or error}. Check its permissions."
        raise SettingsError(msg) from error
    return Path(path)


def _meanings() -> dict[str, str]:
    """What stands below the fields of an infra."""
    (body,) = ast.parse(inspect.getsource(BaseInfra)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).replace("``", "").split())
    return found


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
