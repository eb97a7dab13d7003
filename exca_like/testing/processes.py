"""Reading in a new process, which stores again what it reads, for this process to compare."""

import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from exca_like.cachedict import CacheDict, registry
from exca_like.testing.comparing import name_of

_PLAIN = (str, int, float, bool, bytes, type(None))


def store_in_new_process(folder: str, again: str, cache_type: str | None, values: Iterable[Any]) -> dict[str, str]:
    """Let a new process read the entries of a folder and store them in another one; returns the types that it saw."""
    modules = _modules_of(values)
    if cache_type is not None:
        modules.add(registry.handler_named(cache_type).__module__)
    request = {"modules": sorted(modules), "folder": folder, "again": again, "cache_type": cache_type}
    result = subprocess.run(
        [sys.executable, "-c", "from exca_like.testing import processes; processes.store_again()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)},
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, (
        "a new process can't read what was stored, or not store it again; if it can't import the handler, give check_handler "
        f"fresh_process=False:\n{result.stdout}{result.stderr}"
    )
    kinds: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return kinds


def store_again() -> None:
    """Read entries and store them again, as standard input says; runs in a process of its own."""
    request = json.load(sys.stdin)
    warnings.simplefilter("ignore")  # they were given before
    failed = []
    for module in request["modules"]:
        try:
            importlib.import_module(module)
        except Exception as error:  # it may not be needed
            failed.append(f"{module} can't be imported here: {error!r}")
    source, target = (CacheDict[Any](request[name], cache_type=request["cache_type"]) for name in ("folder", "again"))
    kinds = {}
    try:
        with target.write():
            for key in source:
                value = source[key]
                kinds[key] = name_of(type(value))
                target[key] = value
    except Exception as error:
        error.add_note("\n".join(failed))
        raise
    sys.stdout.write(f"\n{json.dumps(kinds)}\n")


def _modules_of(values: Iterable[Any]) -> set[str]:
    """Modules that the types of values come from, those of their parts, and their handlers."""
    modules: set[str] = set()
    seen: set[int] = set()
    left = list(values)
    while left:
        value = left.pop()
        if id(value) in seen or type(value) in _PLAIN:
            continue
        seen.add(id(value))
        handler = registry.handler_of_type(type(value))
        modules.update(part.__module__ for part in (type(value), handler) if part is not None)
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            left += value
    return modules
