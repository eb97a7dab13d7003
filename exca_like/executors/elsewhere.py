"""Jobs with other code or another Python than the process that submits them."""

import contextlib
import importlib.machinery
import sys
from collections.abc import Sequence
from typing import Any

from exca_like.errors import SubmissionError
from exca_like.executors.python import python_version

_CODE_BY_VALUE = b"\x08CodeType"  # as cloudpickle names it


class _First:
    """Finds modules in folders, ahead of the import hooks of editable installs, some of which come before the import path."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = list(folders)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = None if path is not None else importlib.machinery.PathFinder.find_spec(name, self.folders, target)
        return spec if spec is not None and spec.has_location else None  # what is in a namespace package may lie elsewhere


def put_first(folders: Sequence[str]) -> None:
    """Import from folders before anything else, in this process."""
    if folders:
        with contextlib.suppress(StopIteration):  # of an outer job
            sys.meta_path.remove(next(finder for finder in sys.meta_path if isinstance(finder, _First)))
        sys.meta_path.insert(0, _First(folders))
        sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]


def check_code(pickles: Sequence[bytes], python: str) -> None:
    """Raise if another version of Python would be sent the code of functions, which it can't run."""
    version = python_version(python)
    if version != sys.version_info[:2] and any(_CODE_BY_VALUE in pickled for pickled in pickles):
        here, there = (".".join(map(str, found)) for found in (sys.version_info[:2], version))
        msg = (
            f"a class or function of the script, or a lambda, is part of the config, and its code for Python {here} can't run "
            f"in {python}, which is Python {there}: put it into a module that the job can import, or use an environment with "
            f"Python {here}"
        )
        raise SubmissionError(msg)
