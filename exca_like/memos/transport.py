"""How memoised functions get to jobs and to other processes: by their name, or with their code if they are of a script."""

import importlib
import pickle
import sys
import threading
from typing import Any

import cloudpickle

from exca_like.names import main_name

_local = threading.local()  # functions that this thread is pickling, or loading


def reduced(memo: Any, function: Any, parts: tuple[Any, ...]) -> Any:
    """For ``__reduce__`` of a memoised function, which is made again from parts where it can't be imported."""
    module, name = function.__module__, function.__qualname__
    if module != "__main__" and _find(module, name) is memo:
        return _named, (module, name)
    label = f"{main_name()}:{name}:{id(memo)}"
    active: set[str] = _local.__dict__.setdefault("active", set())
    if label in active:  # it refers to itself
        return _being_loaded, (label,)
    active.add(label)
    try:
        data = cloudpickle.dumps(parts)
    finally:
        active.discard(label)
    return _loaded, (type(memo), main_name(), name, label, data)


def _find(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _named(module: str, qualname: str) -> Any:
    importlib.import_module(module)
    return _find(module, qualname)


def _loaded(kind: Any, script: str, qualname: str, label: str, data: bytes) -> Any:
    found = _find("__main__", qualname) if script == main_name() else None
    if isinstance(found, kind):  # the one that this process knows
        return found
    memo = kind.__new__(kind)
    loading: dict[str, Any] = _local.__dict__.setdefault("loading", {})
    loading[label] = memo
    try:
        parts = pickle.loads(data)
    finally:
        del loading[label]
    memo.__setstate__(parts)
    return memo


def _being_loaded(label: str) -> Any:
    return _local.loading[label]
