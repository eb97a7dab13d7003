"""What a job of an infra asks for: as set on the infra, else as the settings say."""

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from exca_like import sources
from exca_like.errors import SettingsError
from exca_like.executors.base import SETTINGS
from exca_like.sources import Found, SettingsFile

if TYPE_CHECKING:
    from exca_like.infra.base import BaseInfra

JOB_SETTINGS = tuple(name for name in SETTINGS if name != "job_name")  # which is one job's own
"""Fields of an infra that have settings."""
_NEVER_SET = ("folder", "version", "cluster", "mode")
JOB_CLUSTERS = ("local", "slurm", "auto")
"""Clusters on which there are jobs; others compute in this process, which asks for nothing."""
_JSON_HINTS = {
    "list_type": ", as JSON like '[\"module load cuda\"]'",
    "dict_type": ', as JSON like \'{"mail-type": "END"}\'',
}

_checked: "weakref.WeakKeyDictionary[type[BaseInfra], tuple[SettingsFile, ...]]" = weakref.WeakKeyDictionary()


def job_fields(infra: "BaseInfra") -> dict[str, Any]:
    """The fields of `Resources`: those that were set on the infra, or on that of the class, are as they are.

    Raises
    ------
    SettingsError
        A settings file is malformed, or a setting has a wrong value.
    SubmissionError
        The settings differ between clusters, and Slurm does not say which this is.
    """
    values = {name: getattr(infra, name) for name in SETTINGS}
    if infra.cluster in JOB_CLUSTERS:
        among = checked_files(type(infra))
        table = cluster_of(infra.cluster, among)
        for name in JOB_SETTINGS:
            if name not in infra.__pydantic_fields_set__ and (found := sources.find(name, among, table)):
                values[name] = checked(type(infra), name, found)
    return values


def checked_files(cls: "type[BaseInfra]") -> tuple[SettingsFile, ...]:
    """The settings files; raises if they hold anything wrong, be it for another cluster or replaced by other settings."""
    among = sources.usable_files()
    if _checked.get(cls) is not among:
        for file in among:
            check_file(cls, file)
        _checked[cls] = among
    return among


def check_file(cls: "type[BaseInfra]", file: SettingsFile) -> None:
    """Raise if a settings file holds anything wrong.

    Raises
    ------
    SettingsError
        It does.
    """
    if file.problem:
        raise SettingsError(file.problem)
    for above, table in file.all_tables():
        for key, value in table.items():
            _check(cls, file, above, key, value)


def cluster_of(cluster: str | None, among: Sequence[SettingsFile]) -> str | None:
    """The name in the settings of where jobs run: ``"local"``, or the name of Slurm's cluster; None if it does not matter."""
    if not sources.has_cluster_tables(among):
        return None
    if cluster == "auto":
        from exca_like.executors.slurm import slurm_is_there  # with submitit, which is needed now anyway

        cluster = "slurm" if slurm_is_there() else "local"
    return sources.slurm_cluster(among) if cluster == "slurm" else cluster


def checked(cls: "type[BaseInfra]", name: str, found: Found) -> Any:
    """The value of a setting, as the field of an infra takes it."""
    try:
        return _validated(cls, name, found.value)
    except pydantic.ValidationError as error:
        wrong = error
    if found.is_variable and found.value.lstrip()[:1] in ("[", "{"):
        try:
            return _validated(cls, name, sources.structured(found))
        except pydantic.ValidationError as error:
            wrong = error
    raise found.error(_expected(wrong, is_variable=found.is_variable))


def _expected(wrong: pydantic.ValidationError, *, is_variable: bool) -> str:
    """What pydantic says of a value, in a sentence that can follow it."""
    details = wrong.errors(include_url=False, include_context=False)
    first, place = details[0], details[0]["loc"][:2]
    said = [error["msg"].removeprefix("Value error, ") for error in details if error["loc"][:2] == place]  # of each in a union
    text = " or ".join([said[0].replace("Input", "it", 1), *(other.removeprefix("Input should be ") for other in said[1:])])
    if len(place) > 1:
        text = f"at {place[1]!r}, {text}"
    return text + (_JSON_HINTS.get(first["type"], "") if is_variable else "")


def _validated(cls: "type[BaseInfra]", name: str, value: Any) -> Any:
    probe = cls.model_construct()  # the field's own checks, those of validators of the class included
    cls.__pydantic_validator__.validate_assignment(probe, name, value)
    return getattr(probe, name)


def _check(cls: "type[BaseInfra]", file: SettingsFile, above: str, key: str, value: Any) -> None:
    found = file.found(above, key, value)
    is_of_cluster = above != file.above
    if key in JOB_SETTINGS:
        checked(cls, key, found)
    elif key in sources.TOOL_SETTINGS and not (is_of_cluster and key in sources.ONCE_FOR_ALL):
        sources.TOOL_SETTINGS[key](found)
    else:
        msg = f"{found.source}: {_why_not(cls, file, key, value, is_of_cluster=is_of_cluster)}"
        raise SettingsError(msg)


def _why_not(cls: "type[BaseInfra]", file: SettingsFile, key: str, value: Any, *, is_of_cluster: bool) -> str:
    """What is wrong with a name, and what may have been meant."""
    if key in sources.ONCE_FOR_ALL:
        return f"{key!r} can't differ between clusters. Write it above the tables of clusters."
    if key in (*cls.model_fields, *_NEVER_SET):
        return (
            f"{key!r} can be set on an infra only. Settings decide how jobs run, never what is computed or where results are. "
            "Take it out of the file."
        )
    if key == "tool" and isinstance(value, dict):
        return "[tool.exca_like] is for pyproject.toml. In this file settings stand at the top, without a table."
    names = [*JOB_SETTINGS, *sources.TOOL_SETTINGS]
    near = sources.closest(key, names)
    if near:
        return f"there is no setting {key!r}; did you mean {near!r}?"
    if isinstance(value, dict) and not is_of_cluster:
        return f"there is no setting {key!r}. If it is the name of a cluster, its table is [{file.above}cluster.{key}]."
    return f"there is no setting {key!r}. Settings are {', '.join(names)}."
