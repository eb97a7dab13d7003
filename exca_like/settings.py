"""Settings: what jobs ask for where an infra does not say it. `explain` shows which hold here, and where they are written."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from exca_like import engine, sources
from exca_like.errors import InfraTypeError, InfraValueError
from exca_like.infra.base import BaseInfra
from exca_like.infra.resources import JOB_CLUSTERS, JOB_SETTINGS, checked, checked_files, cluster_of
from exca_like.infra.task import TaskInfra

_DEFAULTS = {
    "max_array_size": "default: the cluster's MaxArraySize",
    "max_submit_jobs": "default: as the accounting says",
    "progress": "default: on terminals",
    "memo_folder": "default: .exca_like of the project",
    "code": "default: warn; of memo: recompute",
    "code_packages": "default: major",
    "count_hits": "default: true",
}
_LONGEST = 40  # characters of a value in the table


class Setting(NamedTuple):
    """A value, and where it comes from."""

    value: Any
    source: str
    """File and key, or variable, or infra; ``default``."""


class SettingsExplanation(Mapping[str, Setting]):
    """What holds, by name: ``explain()["mem_gb"].value``. Printed, it is a table.

    Attributes
    ----------
    cluster:
        The cluster whose tables count, ``"local"`` for local jobs; None if no file has tables for clusters.
    files:
        The files that were looked for, and what became of them; the later wins.
    """

    def __init__(self, settings: Mapping[str, Setting], cluster: str | None, files: Mapping[str, str], title: str) -> None:
        self._settings = dict(settings)
        self.cluster = cluster
        self.files = dict(files)
        self._title = title

    def __getitem__(self, name: str) -> Setting:
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __str__(self) -> str:
        rows = [("name", "value", "source")]
        rows += [(name, _shortened(setting.value), setting.source) for name, setting in self._settings.items()]
        names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
        table = [f"{name:{names}}  {value:{values}}  {source}" for name, value, source in rows]
        looked = [f"  {path}: {state}" for path, state in self.files.items()]
        order = (
            "Files, the later wins. Variables EXCA_LIKE_<NAME> win over them, and what is set on an infra over all, "
            f"but for {engine.MODE_VARIABLE}:"
        )
        return "\n".join((self._title, "", *table, "", order, *looked))

    __repr__ = __str__


def explain(infra: BaseInfra | None = None, *, cluster: str | None = None) -> SettingsExplanation:
    """What jobs ask for on this machine, and the mode of calls, and where each value comes from.

    Parameters
    ----------
    infra:
        An infra, as ``config.infra``: what is set on it, or on the infra of its class, is shown too.
    cluster:
        ``"local"``, ``"slurm"`` or ``"auto"``, in place of the infra's; ``"auto"`` if that computes in this process.

    Raises
    ------
    SettingsError
        A settings file is malformed, a setting has a wrong value, or the environment asks for a mode that there is not.
    SubmissionError
        The settings differ between clusters, and Slurm does not say which this is.
    """
    if infra is not None and not isinstance(infra, BaseInfra):
        msg = f"explain() takes an infra, like `config.infra`, not {infra!r:.100}"
        raise InfraTypeError(msg)
    if cluster not in (None, *JOB_CLUSTERS):
        msg = f"cluster={cluster!r}: jobs run on 'local', 'slurm' or 'auto'"
        raise InfraValueError(msg)
    given = cluster or (None if infra is None else infra.cluster)
    where = given if given in JOB_CLUSTERS else "auto"
    cls: Any = TaskInfra if infra is None else type(infra)
    among = checked_files(cls)
    table = cluster_of(where, among)
    settings = {}
    for name in JOB_SETTINGS:
        explicit = None if infra is None else _explicit(infra, name)
        found = sources.find(name, among, table)
        if explicit is not None:
            settings[name] = explicit
        elif found is not None:
            settings[name] = Setting(checked(cls, name, found), found.source)
        else:
            settings[name] = Setting(cls.model_fields[name].get_default(call_default_factory=True), "default")
    for name, check in sources.TOOL_SETTINGS.items():
        found = sources.find(name, among, table)
        settings[name] = Setting(None, _DEFAULTS[name]) if found is None else Setting(check(found), found.source)
    if "mode" in cls.model_fields:
        settings["mode"] = _mode(infra)
    return SettingsExplanation(settings, table, {file.path: _state(file, table) for file in among}, _title(infra, where, table))


def _mode(infra: BaseInfra | None) -> Setting:
    """The mode, for which there are no settings: the variable wins over all infras."""
    wanted = engine.mode_of_environment()
    if wanted is not None:
        return Setting(wanted, engine.MODE_VARIABLE)
    return (None if infra is None else _explicit(infra, "mode")) or Setting("cached", "default")


def _explicit(infra: BaseInfra, name: str) -> Setting | None:
    """What was set on an infra, or on the one that its class declares."""
    if name not in infra.__pydantic_fields_set__:
        return None
    value = getattr(infra, name)
    state = getattr(infra, "_state", None)
    if state is not None and state.field is not None:
        default = state.field.default
        if name in default.__pydantic_fields_set__ and getattr(default, name) == value:
            return Setting(value, f"set on the class: {state.field.owner.__qualname__}.{state.field.name}")
    return Setting(value, "set on the infra")


def _state(file: sources.SettingsFile, cluster: str | None) -> str:
    others = [name for name in file.clusters if cluster is None or name.lower() != cluster.lower()]
    return file.state + (f" (its tables for {', '.join(others)} are not for here)" if others else "")


def _title(infra: BaseInfra | None, where: str, table: str | None) -> str:
    jobs = {"local": "local jobs", "slurm": "jobs on Slurm", "auto": "jobs"}[where]
    if table is not None:
        jobs = "local jobs" if table == "local" and where != "slurm" else f"jobs on the Slurm cluster {table!r}"
    if infra is not None and infra.cluster not in JOB_CLUSTERS:
        return f"What {jobs} ask for (this infra has cluster={infra.cluster!r}, which starts none)"
    return f"What {jobs} ask for"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
