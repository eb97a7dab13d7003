"""Copies of your code for jobs, so that what you edit after a submission does not change what runs."""

import contextlib
import fnmatch
import functools
import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pydantic

from exca_like import layout
from exca_like.errors import InfraValueError, SubmissionError

if TYPE_CHECKING:
    from exca_like.snapshots import Source  # in functions, as all infras import this module

COMMITS = "commits.json"
_GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
_INSTALLED = ("site-packages", "dist-packages")


class Snapshot(NamedTuple):
    """A copy of code, and the folders that are to come first on the import path of a job that uses it."""

    path: str
    import_path: tuple[str, ...]


class WorkDir(pydantic.BaseModel):
    """Code that is copied when a job is submitted; the job runs in the copy and imports from it.

    Copies lie in ``code/`` of the infra's folder, under a name that is made from their content: the same code is copied once,
    however many jobs use it. It is a field of infras::

        Train(infra={"cluster": "slurm", "folder": "cache", "workdir": {"copied": ["mypackage"]}})

    With a ``cluster`` that does not start jobs (None, ``"debug"``, pools) it has no effect.
    """

    model_config = pydantic.ConfigDict(extra="forbid", defer_build=True)

    copied: list[str | Path] = []
    """What to copy: files, folders, and packages or modules by their import names, editable ones included. Each lands in the
    copy under its own name."""
    folder: str | Path | None = None
    """Folder of the copies; None: ``code`` in the infra's folder."""
    includes: Sequence[str] = ()
    """Patterns of file names, like ``"*.py"``: other files in folders are not copied. None given: all are."""
    excludes: Sequence[str] = (
        "__pycache__",
        "*.pyc",
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "node_modules",
        "*.egg-info",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".ipynb_checkpoints",
        ".tox",
        ".nox",
    )
    """Patterns of names of files and folders that are not copied."""
    log_commit: bool = False
    """Refuse to submit as long as there are uncommitted changes; the hashes of the commits go to the file ``commits.json`` in
    the copy, and to the log. What is in no git repository is just copied."""

    @pydantic.field_validator("includes", "excludes", mode="before")
    @classmethod
    def _check_patterns(cls, patterns: object) -> object:
        if isinstance(patterns, str):
            msg = f"give a list of patterns, like [{patterns!r}]"
            raise ValueError(msg)  # noqa: TRY004 - what pydantic expects
        return patterns

    def _snapshot(self, folder: str, permissions: int | None, left_out: Sequence[str] = ()) -> Snapshot:
        """Copy the code, if there is no copy of it yet; ``folder`` is the infra's."""
        from exca_like.snapshots import snapshot

        sources = _sources(self.copied)
        ignore = Ignore(self.includes, self.excludes)
        extra = {}
        if self.log_commit:
            commits = {source.target: commit for source in sources if (commit := _commit(source, ignore)) is not None}
            extra[COMMITS] = json.dumps(commits, indent=1).encode()
        root = f"{folder}/code" if self.folder is None else layout.absolute(self.folder)
        left_out = (folder, *left_out)
        path = snapshot(sources, root, ignore.ignored, extra=extra, left_out=left_out, permissions=permissions)
        return Snapshot(path, (path, *_import_folders(sources, path)))


class Ignore:
    """Tells `shutil.copytree` what to leave out, as its argument ``ignore``.

    Parameters
    ----------
    includes:
        Patterns of file names, as in the shell: other files are left out; folders are not. None given: nothing is.
    excludes:
        Patterns of names of files and folders that are left out.
    """

    def __init__(self, includes: Sequence[str] = (), excludes: Sequence[str] = ()) -> None:
        self.includes = tuple(includes)
        self.excludes = tuple(excludes)

    def __call__(self, folder: str | Path, names: Sequence[str]) -> set[str]:
        return {name for name in names if self.ignored(name, os.path.isdir(os.path.join(folder, name)))}

    def ignored(self, name: str, is_folder: bool) -> bool:
        """Whether a file or folder of this name is left out."""
        if any(fnmatch.fnmatch(name, pattern) for pattern in self.excludes):
            return True
        return bool(self.includes) and not is_folder and not any(fnmatch.fnmatch(name, p) for p in self.includes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(includes={self.includes}, excludes={self.excludes})"


@contextlib.contextmanager
def chdir(folder: str | Path) -> Iterator[None]:
    """A block in which ``folder`` is the current folder, of all threads of the process."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def identify_path(name: str | Path) -> Path:
    """Where the code of a name is: a file or folder that exists, else the source of a package or module.

    Packages and modules are found without being imported; of an editable one, the folder that you edit is given.

    Parameters
    ----------
    name:
        A path, or an import name.

    Raises
    ------
    ValueError
        There is no such thing, or it has no source of its own.
    """
    text = os.fspath(name)
    path = os.path.abspath(os.path.expanduser(text))
    if text and os.path.exists(path):
        return Path(path)
    if not all(part.isidentifier() for part in text.split(".")):
        msg = (
            f"there is no file or folder {text!r} in {os.getcwd()}, and it is no import name of a package or module: check the "
            "spelling, or give an absolute path"
        )
        raise InfraValueError(msg)
    return _module_path(text)


def _module_path(name: str) -> Path:
    spec = _find_spec(name)
    if spec is None:
        msg = (
            f"there is no file or folder {name!r} in {os.getcwd()}, and no package or module of this name can be imported: "
            "check the spelling; of an installed project, the import name is needed"
        )
        raise InfraValueError(msg)
    if spec.submodule_search_locations is not None:
        # import hooks of editable installs add entries that are no folders
        found = list(dict.fromkeys(os.path.abspath(p) for p in spec.submodule_search_locations if os.path.isdir(p)))
        if len(found) > 1 and spec.has_location is False:
            msg = (
                f"the namespace package {name!r} is spread over several folders: {', '.join(found)}. "
                "Give the packages in it by their names, like "
                f"{name + '.something'!r}, or one of the folders."
            )
            raise InfraValueError(msg)
    else:
        found = [spec.origin] if spec.has_location and spec.origin is not None and os.path.isfile(spec.origin) else []
    if not found or spec.origin in ("built-in", "frozen") or _is_standard(found[0]):
        msg = f"{name!r} is a part of Python itself, or has no source files: there is nothing to copy, leave it out"
        raise InfraValueError(msg)
    path = Path(found[0])
    if any(part in path.parts for part in _INSTALLED):
        _log("%s is installed in %s, and not editable: it is copied all the same", name, path.parent)
    return path


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module; parents are not imported either."""
    first, *others = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
        if spec is None:  # it may have been made since Python has looked
            importlib.invalidate_caches()
            spec = importlib.util.find_spec(first)
    except (ValueError, ImportError):  # ``__main__`` has none
        return None
    for number, _ in enumerate(others, 2):
        if spec is None or spec.submodule_search_locations is None:
            return None
        if spec.has_location:
            msg = f"{name!r} is a part of the package {spec.name!r}, which can only be copied as a whole: give {spec.name!r}"
            raise InfraValueError(msg)
        full = ".".join([first, *others][:number])
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        found = (finder.find_spec(full, list(spec.submodule_search_locations), None) for finder in finders)
        spec = next((one for one in found if one is not None), None)
    return spec


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    import sysconfig

    paths = sysconfig.get_paths()
    return tuple(os.path.realpath(paths[kind]) for kind in ("stdlib", "platstdlib"))


def _is_standard(path: str) -> bool:
    inside = any(os.path.realpath(path).startswith(f"{folder}{os.sep}") for folder in _standard_folders())
    return inside and not any(part in Path(path).parts for part in _INSTALLED)


def _sources(names: Sequence[str | Path]) -> "list[Source]":
    """What to copy; two things can't have the same place."""
    from exca_like.snapshots import Source

    sources: dict[str, Source] = {}
    for name in names:
        try:
            path = str(identify_path(name))
        except InfraValueError as error:
            msg = f"workdir, copied={os.fspath(name)!r}: {error}"
            raise InfraValueError(msg) from None
        target = os.path.basename(path)
        if not os.path.exists(os.path.expanduser(name)) and "." in str(name):  # of a namespace package
            target = f"{os.path.dirname(str(name).replace('.', '/'))}/{target}"
        if not target:
            msg = f"workdir, copied: {path!r} can't be copied: give the folders in it that your code needs"
            raise InfraValueError(msg)
        present = sources.setdefault(target, Source(path, target))
        if present.path != path:
            msg = (
                f"workdir, copied: {present.path} and {path} would both be copied to {target!r}: rename one of them, or copy a "
                "folder that holds it"
            )
            raise InfraValueError(msg)
    for target, source in sources.items():
        if target == COMMITS:
            msg = (
                f"workdir, copied: {source.path} has the name of the file that log_commit writes: rename it, or copy its folder"
            )
            raise InfraValueError(msg)
    return list(sources.values())


def _import_folders(sources: "Sequence[Source]", path: str) -> Iterator[str]:
    """Copies of folders on this process's import path, which are to come before these."""
    for entry in dict.fromkeys(os.path.realpath(entry) for entry in sys.path):
        for source in sources:
            original = os.path.realpath(source.path)
            if entry == original or entry.startswith(f"{original}{os.sep}"):
                copy = os.path.normpath(os.path.join(path, source.target, os.path.relpath(entry, original)))
                if os.path.isdir(copy):
                    yield copy


def _log(message: str, *values: object) -> None:
    import logging

    logging.getLogger(__name__).info(message, *values)


# git


def _commit(source: "Source", ignore: Ignore) -> str | None:
    """The commit of a source in a git repository, without changes; None if it is in none."""
    path = os.path.realpath(source.path)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    top = _git(folder, "rev-parse", "--show-toplevel", may_lack_repository=True)
    if top is None:
        _log("%s is in no git repository: no commit is recorded for it", path)
        return None
    top = top.removesuffix("\n")
    told = _git(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", path) or ""
    changed = [line[3:] for line in told.split("\0") if line]
    inside = [(name, os.path.relpath(os.path.join(top, name), path)) for name in changed]
    counted = [name for name, relative in inside if relative == "." or not _is_left_out(relative, ignore)]
    if counted:
        shown = "\n".join(f"  {name}" for name in counted[:10]) + ("\n  ..." if len(counted) > 10 else "")
        msg = (
            f"nothing was submitted: log_commit=True, but {len(counted)} file(s) of {source.path} have changes that are not "
            f"committed:\n{shown}\nCommit them (in {top}), or submit with log_commit=False."
        )
        raise SubmissionError(msg)
    commit = (_git(folder, "rev-parse", "HEAD") or "").strip()
    _log("code of jobs: %s is commit %s", source.target, commit)
    return commit


def _is_left_out(relative: str, ignore: Ignore) -> bool:
    *folders, name = relative.split(os.sep)
    return any(ignore.ignored(folder, is_folder=True) for folder in folders) or ignore.ignored(name, is_folder=False)


def _git(folder: str, *arguments: str, may_lack_repository: bool = False) -> str | None:
    import subprocess

    # set where a hook of git runs this; and nothing is to be written to the index
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError as error:
        msg = "log_commit=True needs git, which is not on this machine's PATH: install it, or use log_commit=False"
        raise SubmissionError(msg) from error
    if done.returncode == 0:
        return done.stdout
    if may_lack_repository and "not a git repository" in done.stderr:
        return None
    msg = f"log_commit=True, but git can't tell the state of {folder}: {done.stderr.strip()}"
    raise SubmissionError(msg)


__all__ = ["Ignore", "WorkDir", "chdir", "identify_path"]
