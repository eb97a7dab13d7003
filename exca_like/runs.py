"""What is the same for all that a process computes: who ran it, with which command, Python and packages, on which commit.

It is a record in the infra's folder (`exca_like.records`), which thousands of results share: it names no process, no machine
and no job. What a job computes has the command and the commit of the process that submitted it.
"""

import contextlib
import functools
import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from exca_like import commits, files, layout, names, records
from exca_like.sources import variable

RUN_VARIABLE = "EXCA_LIKE_RUN"
"""Tells a job the command and the commit of the process that submitted it, or that submitted the first of a chain of jobs."""

_LONGEST = 4000  # characters of a command: the variable must not become too large for a process to be started
_MOST_PACKAGES = 300
_INSTALLED = ("site-packages", "dist-packages")
# the name of a folder that describes an installed package: <name>-<version>.dist-info, or -<version>[-py3.x].egg-info
_DESCRIPTION = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)(-py[\d.]+[^/]*)?\.(dist|egg)-info")


class _Known(NamedTuple):
    """The record of a process, as long as it imports nothing more."""

    modules: int
    digest: str
    text: bytes


_known: dict[str, _Known] = {}
_lock = files.ForkSafeLock()


class Run:
    """The record of this process for results of one method in one folder.

    Parameters
    ----------
    root:
        The infra's folder, as an absolute path.
    source:
        The folder of the method's code; see `source_of`.
    permissions:
        Mode of new files; None: as the umask says.
    notes:
        Gives what else is the same for many results, as JSON data.
    """

    def __init__(
        self,
        root: str,
        source: str,
        permissions: int | None = None,
        notes: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._source = source
        self.notes = notes
        self._records = records.Records(root, permissions)

    def begin(self) -> None:
        """Find out in the background what takes long to find out; to be called before something is computed."""
        if self._source not in _known and _told_git(self._source) is None:
            commits.begin(self._source)

    def digest(self) -> str:
        """The digest of the record, which is written if it is not there; a failure to write it costs the record alone."""
        known = _known.get(self._source)
        if known is None or known.modules != len(sys.modules):
            with _lock:
                # first: what is imported meanwhile makes another record
                modules = len(sys.modules)
                text = records.canonical(facts(self._source))
                known = _known[self._source] = _Known(modules, records.digest_of(text), text)
        try:  # a block of contextlib takes longer than all else
            self._records.keep_text(known.digest, known.text)
        except OSError:
            pass
        return known.digest


def facts(source: str) -> dict[str, Any]:
    """What is known of this process; ``source`` is the folder of the code that it runs."""
    told, commit = _told(), _commit_of(source)
    return {
        "user": _text(layout.user_name()),
        "python": _python(),
        "platform": _platform(),
        "packages": packages(),
        "git": commit,
        "command": told["command"] if told else _command(),
        "exca_like": sys.modules["exca_like"].__version__,
    }


def passed_on(source: str | None) -> str:
    """The value of `RUN_VARIABLE` for a job; ``source`` is the folder of the code that it is to run."""
    if _told():
        return os.environ[RUN_VARIABLE]
    return json.dumps({"command": _command(), "git": None if source is None else _commit_of(source)})


@functools.lru_cache(maxsize=1024)
def _source_of_file(file: str) -> str:
    path = os.path.abspath(file)
    if not os.path.isfile(path) or any(part in path.split(os.sep) for part in _INSTALLED):
        return os.getcwd()
    return os.path.dirname(os.path.realpath(path))


def source_of(function: Any) -> str:
    """The folder that a function's code is in; the current one for a notebook, and for code of an installed package."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = getattr(sys.modules.get(getattr(function, "__module__", None) or ""), "__file__", None)
    return _source_of_file((code and code.co_filename) or file or "")


def job_id() -> str | None:
    """The cluster's id of the job that this process runs in; None if it is none."""
    local = variable(b"SUBMITIT_LOCAL_JOB_ID")
    if local and variable(b"SUBMITIT_EXECUTOR") == "local":
        return local
    array = variable(b"SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else variable(b"SLURM_JOB_ID") or None


# what a job is told


def _told() -> dict[str, Any] | None:
    """What the submitter of this job told; None if this is no job."""
    value = os.environ.get(RUN_VARIABLE)
    return _parsed(value) if value and names.is_job() else None


@functools.lru_cache(maxsize=8)
def _parsed(value: str) -> dict[str, Any] | None:
    try:
        told = json.loads(value)
    except ValueError:
        return None
    return told if isinstance(told, dict) and {"command", "git"} <= told.keys() else None


def _told_git(source: str) -> dict[str, Any] | None:
    """The commit that the submitter told, if the code in a folder is of the same repository, or a copy."""
    told = _told()
    git: dict[str, Any] | None = told["git"] if told else None
    if git is None:
        return None
    copy = os.environ.get(layout.WORKDIR_VARIABLE)
    if copy and f"{source}/".startswith(f"{copy}/"):
        return git
    return git if commits.root_of(source) in (None, git.get("root")) else None


def _commit_of(source: str) -> dict[str, Any] | None:
    state: Any = _told_git(source)
    if state is None and (found := commits.state_of(source)) is not None:
        state = found._asdict() | {"root": _text(found.root)}
    return state  # type: ignore[no-any-return]


# what this process is


def _command() -> str:
    command = _text(shlex.join(sys.orig_argv))
    return command if len(command) <= _LONGEST else f"{command[: _LONGEST - 3]}..."


def _python() -> str:
    implementation = sys.implementation.name
    version = ".".join(map(str, sys.version_info[:3])) + ("" if sys.version_info[3] == "final" else sys.version_info[3])
    return version if implementation == "cpython" else f"{version} ({implementation})"


def _platform() -> str:
    system = os.uname()
    with contextlib.suppress(AttributeError, ValueError, OSError):  # it is not glibc
        libc = os.confstr("CS_GNU_LIBC_VERSION")
        if libc:
            return f"{system.sysname} {system.release} {system.machine}, {libc}"
    return f"{system.sysname} {system.release} {system.machine}"


def packages() -> dict[str, str]:
    """Versions of the packages that are imported, by their import names, without those of Python itself.

    The version is the one that the package was installed with, if the installed package has the name of the module, else the
    module's ``__version__``. A module with neither is left out.
    """
    modules = [(name, module) for name, module in list(sys.modules.items()) if "." not in name and name[:1] != "_"]
    installed = _installed()
    found = {}
    for name, module in sorted(modules):
        if name in sys.stdlib_module_names or name == "exca_like":
            continue
        version = installed.get(_plain(name)) or getattr(module, "__dict__", {}).get("__version__")
        if isinstance(version, str):
            found[_text(name)] = _text(version)[:100]
    return dict(list(found.items())[:_MOST_PACKAGES])


def _installed() -> dict[str, str]:
    """Versions of all installed packages, by `_plain` names."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(sys.path):
        with contextlib.suppress(OSError):
            for name, version in _described_in(path or ".", os.stat(path or ".").st_mtime_ns).items():
                found.setdefault(name, version)
    return found


@functools.lru_cache(maxsize=64)
def _described_in(path: str, state: int) -> dict[str, str]:  # noqa: ARG001 - another state is another answer
    # names of folders tell all that is needed: reading the metadata of each package would take many times as long
    return dict(_descriptions(path))


def _descriptions(path: str) -> Iterator[tuple[str, str]]:
    for name in os.listdir(path):
        if name.endswith("-info") and (match := _DESCRIPTION.fullmatch(name)):
            yield _plain(match["name"]), match["version"]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _text(text: str) -> str:
    """A text without what UTF-8 has no form for."""
    return text.encode("utf-8", "backslashreplace").decode()
