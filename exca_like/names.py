"""Names of classes and functions that are the same in every process."""

import os
import sys
from pathlib import Path
from typing import Any

# tells a job the name that `__main__` had where it was submitted
MAIN_VARIABLE = "EXCA_LIKE_MAIN"
# what jobs run as `__main__`; other programs that a job starts have names of their own
_JOB_MODULES = ("exca_like.executors.local_job", "exca_like.executors.slurm_job")


def main_name() -> str:
    """Name that stands for ``__main__``: two scripts must not share their results.

    It is the module's import name under ``python -m``, else the file name of the script, or of the notebook if its server or
    editor tells it; ``__main__`` in an interactive session.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name: str = spec.name
        if is_job():
            name = os.environ.get(MAIN_VARIABLE, name)
        return name.removesuffix(".__main__")
    path = getattr(main, "__file__", None) or _notebook(main)
    return "__main__" if path is None or path.startswith("<") else Path(path).stem


def is_job() -> bool:
    """Whether this process is a job of this package, and no other program that a job has started."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name in _JOB_MODULES


def _notebook(main: Any) -> str | None:
    """The file of the notebook that this process runs the cells of."""
    told: str | None = getattr(main, "__vsc_ipynb_file__", None)  # by VS Code
    name = told or os.environ.get("JPY_SESSION_NAME", "")  # by Jupyter's server
    return name if name.endswith(".ipynb") else None


def module_name(thing: Any) -> str:
    """Import name of the module that a class or a function comes from."""
    module: str = thing.__module__
    return main_name() if module in ("__main__", "__mp_main__") else module


def qualified_name(thing: Any) -> str:
    """``module.Class`` or ``module.function``."""
    return f"{module_name(thing)}.{thing.__qualname__}"
