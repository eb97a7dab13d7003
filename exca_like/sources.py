"""Where settings are written: the user's file, the project's, and variables of the environment.

This module finds them. What their names and values may be is known above, except for the few that are of no job.
Nothing is read before a setting is asked for, and a file again only if it, or the current folder, has changed.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exca_like import files
from exca_like.errors import SettingsError, SubmissionError

PREFIX = "EXCA_LIKE_"
_PROJECT_FILE = "pyproject.toml"
_PROJECT_TABLE = "tool.exca_like."
_CLUSTER = "cluster"
_CLUSTER_VARIABLE = "SLURM_CLUSTER_NAME"
_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

# what `os.environ` looks into: asking that itself costs each call of a map a fifth of its time
VARIABLES: Any = getattr(os.environ, "_data", None)

Table = Mapping[str, Any]
_Signature = tuple[int, int, int] | None


def variable(name: bytes) -> str:
    """A variable of the environment, empty if it is not set; for those that are asked for at each call."""
    if VARIABLES is not None and name not in VARIABLES:  # as usual
        return ""
    return os.environ.get(os.fsdecode(name), "")


class Found(NamedTuple):
    """A value as it is written, and where that is."""

    value: Any
    source: str
    is_variable: bool = False

    def error(self, expected: str) -> SettingsError:
        """The error for a value that is not as it has to be."""
        place = f"{self.source}={self.value!r}" if self.is_variable else f"{self.source} = {self.value!r}"
        return SettingsError(f"{place} is no valid setting: {expected}")


@dataclass(frozen=True, eq=False)
class SettingsFile:
    """What a file says; ``state`` is for people. One with a ``problem`` can't be used."""

    path: str
    above: str = ""
    """What stands before its keys, in the file."""
    state: str = "read"
    problem: str = ""
    top: Table = field(default_factory=dict)
    clusters: Mapping[str, Table] = field(default_factory=dict)

    def tables(self, cluster: str | None = None) -> Iterator[tuple[str, Table]]:
        """What can be used on a cluster, the first wins; each table with what stands before its keys."""
        for name, table in self.clusters.items():
            if cluster is not None and name.lower() == cluster.lower():  # Slurm's names have no case
                yield f"{self.above}{_CLUSTER}.{_toml_key(name)}.", table
        yield self.above, self.top

    def all_tables(self) -> Iterator[tuple[str, Table]]:
        """Every table of the file."""
        yield self.above, self.top
        for name, table in self.clusters.items():
            yield f"{self.above}{_CLUSTER}.{_toml_key(name)}.", table

    def found(self, above: str, key: str, value: Any) -> Found:
        """A value of one of its tables."""
        return Found(value, f"{self.path}: {above}{_toml_key(key)}")


class _Reading(NamedTuple):
    place: tuple[str, str]
    signatures: tuple[tuple[str, _Signature], ...]
    files: tuple[SettingsFile, ...]


_last: dict[str, _Reading] = {}  # the last one, if any
_known: dict[str, str] = {}  # what Slurm said, asked for once


def settings_files() -> tuple[SettingsFile, ...]:
    """The user's file and the project's, whether they are there or not; the later wins."""
    place = (_user_file(), _current_folder())
    last = _last.get("reading")
    if last is None or last.place != place or any(_signature(path) != known for path, known in last.signatures):
        last = _last["reading"] = _read(*place)
    return last.files


def usable_files() -> tuple[SettingsFile, ...]:
    """The same.

    Raises
    ------
    SettingsError
        One can't be read, or is malformed.
    """
    found = settings_files()
    for file in found:
        if file.problem:
            raise SettingsError(file.problem)
    return found


def find(name: str, among: Sequence[SettingsFile], cluster: str | None = None) -> Found | None:
    """The value of a setting, for a cluster if one is given: that of the variable, else of the last file that has one."""
    return _in_environment(name) or _in_files(name, among, cluster)


def _in_environment(name: str) -> Found | None:
    variable = PREFIX + name.upper()
    text = os.environ.get(variable)
    return Found(text, variable, is_variable=True) if text else None


def _in_files(name: str, among: Sequence[SettingsFile], cluster: str | None) -> Found | None:
    for file in reversed(among):
        for above, table in file.tables(cluster):
            if name in table:
                return file.found(above, name, table[name])
    return None


def structured(found: Found) -> Any:
    """The list or table that a variable holds as JSON.

    Raises
    ------
    SettingsError
        It holds something else.
    """
    try:
        return json.loads(found.value)
    except ValueError as error:
        msg = f"it begins like JSON, but is none ({error})"
        raise found.error(msg) from None


# clusters


def has_cluster_tables(among: Sequence[SettingsFile]) -> bool:
    """Whether anything is set for single clusters."""
    return any(file.clusters for file in among)


def slurm_cluster(among: Sequence[SettingsFile]) -> str | None:
    """The name of Slurm's cluster; None if it does not matter, as no file has a table for a Slurm, or if there is none.

    Raises
    ------
    SubmissionError
        It matters, but Slurm does not say it.
    """
    if all(name == "local" for file in among for name in file.clusters):
        return None
    name = os.environ.get(_CLUSTER_VARIABLE) or slurm_config("ClusterName")
    if name is None and _known.get("error"):
        msg = (
            "the settings differ between clusters, but Slurm does not say which this is: `scontrol show config` ended with "
            f"{_known['error']!r}. Try again later, or set the environment variable {_CLUSTER_VARIABLE}."
        )
        raise SubmissionError(msg)
    return name


def slurm_config(key: str) -> str | None:
    """A value of Slurm's configuration; None if there is no such, or no Slurm, or if it does not answer."""
    if "config" not in _known:
        import subprocess  # takes time, and is for clusters only

        try:
            done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
        except OSError:  # there is no Slurm
            return None
        if not re.search(r"^ClusterName\s*=", done.stdout, re.MULTILINE):
            _known["error"] = done.stderr.strip().rpartition("\n")[2] or f"code {done.returncode}"
            return None
        _known.pop("error", None)
        _known["config"] = done.stdout
    found = re.search(rf"^{key}\s*=\s*(\S+)", _known["config"], re.MULTILINE)
    return found[1] if found else None


# settings of no job


def tool_setting(name: str, *, on_slurm: bool = False) -> Any:
    """The value of one of `TOOL_SETTINGS`; None if it is not set.

    Parameters
    ----------
    on_slurm:
        What is set for the Slurm cluster counts, too.

    Raises
    ------
    SettingsError
        It has a wrong value, or a file is malformed.
    """
    found = _in_environment(name)
    if found is None:  # else no file need be looked at
        among = usable_files()
        found = _in_files(name, among, slurm_cluster(among) if on_slurm else None)
    return None if found is None else TOOL_SETTINGS[name](found)


def _number_of_jobs(found: Found) -> int:
    value = found.value
    if found.is_variable and value.strip().isdecimal():
        value = int(value)
    if type(value) is not int or value < 1:
        msg = "it should be a number of jobs, like 1000"
        raise found.error(msg)
    return value


def _yes_or_no(found: Found) -> bool:
    value = _TRUTH.get(found.value.strip().lower()) if found.is_variable else found.value
    if type(value) is not bool:
        raise found.error("it should be 0 or 1" if found.is_variable else "it should be true or false")
    return value


def _folder(found: Found) -> str:
    if type(found.value) is not str or not found.value:
        msg = "it should be the path of a folder"
        raise found.error(msg)
    path = os.path.expanduser(found.value)
    # one in a file is relative to the file
    return path if found.is_variable else os.path.join(os.path.dirname(found.source.partition(": ")[0]), path)


def _one_of(*options: str) -> Callable[[Found], Any]:
    def check(found: Found) -> Any:
        if found.value not in options:
            msg = f"it should be one of {', '.join(map(repr, options))}"
            raise found.error(msg)
        return found.value

    return check


TOOL_SETTINGS: dict[str, Callable[[Found], Any]] = {
    "max_array_size": _number_of_jobs,
    "max_submit_jobs": _number_of_jobs,
    "progress": _yes_or_no,
    "memo_folder": _folder,
    "code": _one_of("ignore", "warn", "recompute"),
    "code_packages": _one_of("none", "major", "minor", "patch"),
    "count_hits": _yes_or_no,
}
"""Settings that are no fields of an infra, with what checks their values."""
ONCE_FOR_ALL = ("progress", "memo_folder", "code", "code_packages", "count_hits")
"""Those that can't differ between clusters."""


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that somebody may have meant."""
    import difflib  # only for errors

    known = list(names)
    plain = name.lower().replace("-", "_")
    if plain in known:
        return plain
    holding = [other for other in known if len(plain) > 2 and (plain in other or other in plain)]
    return next(iter(difflib.get_close_matches(plain, holding or known, 1, 0.0 if holding else 0.5)), None)


# reading


def _user_file() -> str:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # to be ignored, by the standard that the variable is from
        base = os.path.expanduser("~/.config")
    return os.path.join(base, "exca_like", "config.toml")


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _signature(path: str) -> _Signature:
    """What changes with a file; None if there is none that this user could see."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return None if stat.S_ISDIR(status.st_mode) else (status.st_mtime_ns, status.st_size, status.st_ino)


def _read(user_file: str, folder: str) -> _Reading:
    signatures = [(user_file, _signature(user_file))]  # before the content: what changes meanwhile is read again
    user = SettingsFile(user_file, state="not there") if signatures[0][1] is None else _parsed(user_file, "")
    project = SettingsFile(os.path.join(folder, _PROJECT_FILE), _PROJECT_TABLE, "not there, nor in a folder above")
    for path in _project_files(folder):
        signatures.append((path, _signature(path)))
        if signatures[-1][1] is not None:
            project = _parsed(path, _PROJECT_TABLE)
            break
    return _Reading((user_file, folder), tuple(signatures), (user, project))


def _project_files(folder: str) -> Iterator[str]:
    """Where the project's file may be, the nearest first."""
    last = ""
    while folder != last:
        yield os.path.join(folder, _PROJECT_FILE)
        folder, last = os.path.dirname(folder), folder


def _parsed(path: str, above: str) -> SettingsFile:
    """What a file that is there says."""
    try:
        data = files.read_bytes(path)
    except OSError as error:
        msg = f"can't read the settings file {path}: {error.strerror or error}. Check its permissions, or remove it."
        return SettingsFile(path, above, problem=msg)
    return parsed_text(path, above, data)


def parsed_text(path: str, above: str, data: bytes) -> SettingsFile:
    """What a file with some content would say."""
    unused = SettingsFile(path, above, f"read, has no [{above.removesuffix('.')}]")
    if above and b"exca_like" not in data:  # the project's file is mostly about other things: no need to understand it
        return unused
    import tomllib  # takes time, and there may be no file at all

    try:
        content: Any = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return SettingsFile(path, above, problem=f"the settings file {path} is no valid TOML: {error}. Correct it there.")
    for key in above.split(".")[:-1]:
        content = content.get(key) if isinstance(content, dict) else None
    if content is None:
        return unused
    return _with_tables(path, above, content)


def _with_tables(path: str, above: str, content: Any) -> SettingsFile:
    name = f"{above}{_CLUSTER}"
    if not isinstance(content, dict):
        msg = f"{path}: {above.removesuffix('.')} = {content!r} should be a table of settings"
        return SettingsFile(path, above, problem=msg)
    top = dict(content)
    clusters = top.pop(_CLUSTER, {})
    if not isinstance(clusters, dict):
        msg = (
            f"{path}: {name} = {clusters!r} is no setting: where jobs run is said on the infra, and defaults for a cluster "
            f"stand in a table [{name}.NAME]"
        )
        return SettingsFile(path, above, problem=msg)
    for key, table in clusters.items():
        if not isinstance(table, dict):
            msg = (
                f"{path}: {name}.{_toml_key(key)} = {table!r} is for no cluster: write it in a table [{name}.NAME], where NAME "
                'is the ClusterName of a Slurm, or "local"'
            )
            return SettingsFile(path, above, problem=msg)
    return SettingsFile(path, above, top=top, clusters=clusters)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
