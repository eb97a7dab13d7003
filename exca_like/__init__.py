"""Compute infrastructure driven by pydantic configs: caching, and execution on Slurm.

Everything is loaded on first use, so that ``import exca_like`` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exca_like import cachedict as cachedict
    from exca_like import confdict as confdict
    from exca_like import content as content
    from exca_like import errors as errors
    from exca_like import helpers as helpers
    from exca_like import provenance as provenance
    from exca_like import settings as settings
    from exca_like.cachedict import CacheDict as CacheDict
    from exca_like.confdict import ConfDict as ConfDict
    from exca_like.content.paths import File as File
    from exca_like.content.paths import Folder as Folder
    from exca_like.executors.stopping import on_requeue as on_requeue
    from exca_like.infra.map import MapInfra as MapInfra
    from exca_like.infra.submit import SubmitInfra as SubmitInfra
    from exca_like.infra.task import TaskInfra as TaskInfra
    from exca_like.infra.waiting import as_completed as as_completed
    from exca_like.infra.waiting import wait_all as wait_all
    from exca_like.memoize import memo as memo
    from exca_like.recording import record as record
    from exca_like.sweeps import sweep as sweep
    from exca_like.workdir import WorkDir as WorkDir

__version__ = "0.1.0"

# public name -> module that holds it ("" for a public module)
_PUBLIC = {
    "CacheDict": "exca_like.cachedict",
    "ConfDict": "exca_like.confdict",
    "File": "exca_like.content.paths",
    "Folder": "exca_like.content.paths",
    "MapInfra": "exca_like.infra.map",
    "SubmitInfra": "exca_like.infra.submit",
    "TaskInfra": "exca_like.infra.task",
    "WorkDir": "exca_like.workdir",
    "as_completed": "exca_like.infra.waiting",
    "cachedict": "",
    "confdict": "",
    "content": "",
    "errors": "",
    "helpers": "",
    "memo": "exca_like.memoize",
    "on_requeue": "exca_like.executors.stopping",
    "provenance": "",
    "record": "exca_like.recording",
    "settings": "",
    "sweep": "exca_like.sweeps",
    "wait_all": "exca_like.infra.waiting",
}

__all__ = [
    "CacheDict",
    "ConfDict",
    "File",
    "Folder",
    "MapInfra",
    "SubmitInfra",
    "TaskInfra",
    "WorkDir",
    "__version__",
    "as_completed",
    "cachedict",
    "confdict",
    "content",
    "errors",
    "helpers",
    "memo",
    "on_requeue",
    "provenance",
    "record",
    "settings",
    "sweep",
    "wait_all",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if home := _PUBLIC[name]:
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
