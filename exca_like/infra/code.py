"""Which code and which Python the jobs of an infra get."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from exca_like import layout
from exca_like.executors.base import Resources
from exca_like.workdir import WorkDir

if TYPE_CHECKING:
    from exca_like.infra.base import BaseInfra


def with_code(infra: "BaseInfra", resources: Resources, logs: str) -> Resources:
    """Resources with a copy of the code, made if there is none yet, and the interpreter of an environment.

    Those that have them already stay as they are: a job that takes the place of another one has the same code.

    Parameters
    ----------
    infra:
        The infra, for its fields.
    resources:
        What the job asks for.
    logs:
        Folder of logs, with ``%j``.

    Raises
    ------
    ValueError
        Something to copy, or the environment, does not exist.
    SubmissionError
        Something can't be read, is not committed, or the environment can't run jobs.
    CacheFolderError
        The copy can't be written.
    """
    if resources.workdir or resources.python or not (infra.workdir or infra.conda_env):
        return resources
    root = layout.absolute(infra.folder or "")
    left_out = (layout.logs_root(logs),)
    if infra.conda_env is not None:
        from exca_like.executors.python import check_python, find_python

        own = _own_folder(root, infra.permissions)
        resources = replace(resources, python=find_python(infra.conda_env), import_path=own)
        check_python(resources)
    if infra.workdir is not None:
        made = infra.workdir._snapshot(root, infra.permissions, left_out)
        resources = replace(resources, workdir=made.path, import_path=(*made.import_path, *resources.import_path))
    return resources


def _own_folder(root: str, permissions: int | None) -> tuple[str, ...]:
    """A folder for another Python to import this package from; none if it is on the path that jobs get anyway."""
    from exca_like.executors.environment import is_installed

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return WorkDir(copied=[package])._snapshot(root, permissions).import_path[:1] if is_installed(package) else ()
