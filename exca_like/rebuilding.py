"""From entries of a catalog back to configs, whose classes are imported."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pydantic

from exca_like.confdict import ConfDict
from exca_like.entries import Entry
from exca_like.errors import InfraUsageError, InfraValueError
from exca_like.explaining import Explanation
from exca_like.infra.applied import FIELDS
from exca_like.infra.map import MapInfra
from exca_like.infra.task import TaskInfra
from exca_like.sweep_members import Member
from exca_like.sweeps import Sweep

_UNSET = object()


def rebuild(entry: Entry) -> Any:
    """The config of a task, as an object of its class, which is imported.

    It has the settings that it was computed with, and the folder that the entry is in.

    Raises
    ------
    RuntimeError
        The entry is no task, or its class can't be imported.
    ValueError
        The class takes such a config no more, or makes another one of it.
    """
    return _rebuilt(entry)[0]


def explain(entry: Entry) -> Explanation:
    """Whether a call for the config of a stored task would find its result today, and why, or why not.

    The class is imported; nothing is computed or changed on disk. If it takes such a config no more, or makes another one
    of it, that is the answer.

    Raises
    ------
    RuntimeError
        The entry is no task, or its class can't be imported.

    Examples
    --------
    >>> print(explain(Catalog("cache")["seed=2"]))  # doctest: +SKIP
    """
    try:
        config, name = _rebuilt(entry)
    except InfraValueError as error:
        other = _in_its_place(entry)
        if other is None:
            return Explanation("miss", entry.uid, f"{error}.")
        return replace(other, reason=f"{error}. {other.reason}")
    explanation: Explanation = getattr(config, name).explain()
    return explanation


def sweeps_of(
    entries: Iterable[Entry], on_error: Callable[[Entry, InfraUsageError | InfraValueError], Any] | None = None
) -> list[Sweep[Any]]:
    """Tasks as sweeps, one for each method and version: to submit them again, wait for them, or cancel them.

    Parameters
    ----------
    entries:
        The tasks.
    on_error:
        Is called for each task of which `rebuild` makes no config, which is left out then. Without it, the error is raised.

    Raises
    ------
    RuntimeError, ValueError
        As `rebuild`.
    """
    groups: dict[str, dict[Entry, tuple[Any, str]]] = {}
    for entry in entries:
        try:
            groups.setdefault(entry.uid.rpartition("/")[0], {})[entry] = _rebuilt(entry)
        except (InfraUsageError, InfraValueError) as error:
            if on_error is None:
                raise
            on_error(entry, error)
    return [_sweep(label, group) for label, group in groups.items()]


def _sweep(label: str, rebuilt: Mapping[Entry, tuple[Any, str]]) -> Sweep[Any]:
    names = dict.fromkeys(name for entry in rebuilt for name in entry.changed if not name.endswith(".version"))
    members = []
    for entry, (config, infra_name) in rebuilt.items():
        values = ConfDict(entry.config)
        members.append(Member({name: values.get(name) for name in names}, config, infra_name))
    return Sweep(".".join(label.rpartition(",")[0].rsplit(".", 2)[-2:]), label, members)


def _in_its_place(entry: Entry) -> Explanation | None:
    """What is to be said of the config that has the uid of an entry now, if that is another one than was stored."""
    cls, name = _class_and_infra(entry)
    values = ConfDict(entry.changed)
    try:
        infra = getattr(cls(**values | {name: {**(values.get(name) or {}), "folder": str(entry.root)}}), name)
    except pydantic.ValidationError:
        return None
    found: Explanation = infra.explain()
    return found if (found.uid, found.status) == (entry.uid, "mismatch") else None


def _class_and_infra(entry: Entry) -> tuple[Any, str]:
    """The class of a task, and the name of its infra."""
    if entry.kind in ("map", "memo"):
        raise InfraUsageError(_no_task(entry, "map" if entry.kind == "map" else "call"))
    cls, method = _class_of(entry)
    fields = getattr(cls, FIELDS, {})
    name = next((name for name, field in fields.items() if field.applied is not None and field.applied.name == method), None)
    if not entry.kind and name is not None and isinstance(fields[name].default, MapInfra):
        raise InfraUsageError(_no_task(entry, "map"))
    if name is None or not isinstance(fields[name].default, TaskInfra):
        msg = f"{cls.__qualname__}.{method} has no TaskInfra (any more), with which {entry.uid} was computed"
        raise InfraUsageError(msg)
    return cls, name


def _rebuilt(entry: Entry) -> tuple[Any, str]:
    """The config of a task, and the name of its infra."""
    cls, name = _class_and_infra(entry)
    values = entry.config
    settings = {**(values.get(name) or {}), "folder": str(entry.root)}
    settings.pop("mode", None)  # which said what to do then
    values[name] = settings
    try:
        config = cls(**values)
    except pydantic.ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        msg = f"{cls.__qualname__} does not take the config of {entry.uid} any more: {lines}"
        raise InfraValueError(msg) from None
    uid = getattr(config, name).uid()
    if uid != entry.uid:
        now = getattr(config, name).config(uid=True, exclude_defaults=True).flat()
        moved = [field for field in {**entry.changed, **now} if entry.changed.get(field, _UNSET) != now.get(field, _UNSET)]
        what = f"{', '.join(moved) or 'its version'}, by another default or exclusion"
        now_it_is = f"{entry.uid} is the config {uid} now, as {cls.__qualname__} differs in {what}"
        stored = ConfDict(entry.config).flat()
        given = " ".join(f"{field}={stored[field]!r}" for field in moved if field in stored)
        msg = f"{now_it_is}: restore that to find it, or compute it anew{f', with {given}' if given else ''}"
        raise InfraValueError(msg)
    return config, name


def _no_task(entry: Entry, kind: str) -> str:
    return f"{entry.uid} is no task of a config, but a {kind}: call its method again, which computes what is missing"


def _class_of(entry: Entry) -> tuple[Any, str]:
    """The class of a method, and the method's name."""
    *path, method = entry.method.split(".")
    if path[0] == "__main__":
        msg = f"{entry.method} is of a notebook or a script, which can't be imported: make the config there, in Python"
        raise InfraUsageError(msg)
    if "<locals>" in path:
        msg = f"{entry.method} is of a class that was made in a function, which can't be imported: make the config in Python"
        raise InfraUsageError(msg)
    lacking = ""
    for length in range(len(path) - 1, 0, -1):
        module_name = ".".join(path[:length])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise
        for part in path[length:]:
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found, method
        lacking = lacking or f"{module_name} has no class {'.'.join(path[length:])}"
    if lacking:
        msg = f"{lacking} (any more), with which {entry.uid} was computed: give it that name again, or compute it anew"
        raise InfraUsageError(msg)
    msg = (
        f"the class of {entry.method} can't be imported from here: go to the folder of {path[0]}.py, or install its package "
        "(of a notebook, classes can't be imported)"
    )
    raise InfraUsageError(msg)
