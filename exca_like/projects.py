"""The start of a project: an experiment to change, and its settings."""

import errno
import os
from pathlib import Path

from exca_like import files
from exca_like.errors import CacheFolderError
from exca_like.settings_files import template

EXPERIMENT = '''"""An experiment: change it to yours."""

import exca_like
import pydantic


class Train(pydantic.BaseModel):
    lr: float = 0.1
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache", version="1")

    @infra.apply
    def run(self) -> dict[str, float]:
        return {"accuracy": 0.9 - abs(self.lr - 0.3) + self.seed / 1000}  # a day of work
'''


def init(folder: str | Path = ".", *, dry_run: bool = False) -> dict[Path, bool]:
    """Write an experiment, settings and a ``.gitignore`` to begin with; what is there already is left as it is.

    Parameters
    ----------
    folder:
        The project's folder; made if it is not there.
    dry_run:
        Only tell what would be written.

    Returns
    -------
    dict of Path to bool
        The files, and whether they are new.

    Raises
    ------
    CacheFolderError
        The folder can't be written to.

    Examples
    --------
    >>> init("my_project")  # doctest: +SKIP
    """
    root = Path(folder)
    contents = {"experiment.py": EXPERIMENT, "pyproject.toml": template(project=True), ".gitignore": "cache/\n"}
    done = {}
    if dry_run:
        return {root / name: not os.path.lexists(root / name) for name in contents}
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            try:
                files.write_new(str(root / name), text.encode())
            except FileExistsError:
                done[root / name] = False
            else:
                done[root / name] = True
    except OSError as error:
        msg = f"can't write to {root}: {error.strerror or error}. Check the permissions, or give another folder."
        raise CacheFolderError(error.errno or errno.EIO, msg) from error
    return done
