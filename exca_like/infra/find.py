"""From the id of a job to its config."""

import contextlib
import io
import json
import os
import pickle
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exca_like import files, layout
from exca_like.confdict import ConfDict
from exca_like.errors import ExcaLikeError, InfraUsageError, InfraValueError
from exca_like.executors import open_job
from exca_like.executors.base import JobHandle
from exca_like.infra.job import TaskJob
from exca_like.infra.sending import KEY
from exca_like.infra.submission import SubmittedJob, store_of
from exca_like.layout import EntryFolder
from exca_like.store import FolderStore

_ID = re.compile(r"[A-Za-z0-9_.-]+")
_CALLS = ("TaskCall", "MapCall", "CallsPart", "SubmittedCall")
"""Names of the classes of what is sent to jobs: by tasks, maps, memoised functions, and `SubmitInfra`."""


@dataclass(frozen=True)
class FoundJob:
    """A job, and what it was submitted for.

    ``uid``, ``uid_folder`` and ``config`` are None for a job of `SubmitInfra`, which keeps no cache folder; ``config`` also if
    the folder was deleted. ``job`` has ``stdout()``, ``stderr()``, ``paths``, ``state`` and, but for a part of a map,
    ``result()``.
    """

    uid: str | None
    uid_folder: Path | None
    config: ConfDict | None
    job: TaskJob[Any]


class PartJob(TaskJob[Any]):
    """A job that computes some items of a map, or calls of a memoised function."""

    @property
    def state(self) -> str:
        """The cluster's word for the job's state."""
        assert self._handle is not None
        return self._handle.state

    def _outcome(self) -> Any:
        msg = f"job {self.job_id} computed items of {self._label}, which are in its cache: call the method to get them"
        raise InfraUsageError(msg)


def find_job(job_id: str, folder: str | Path | None, logs: str | Path) -> FoundJob | None:
    """See `exca_like.helpers.find_slurm_job`."""
    job_id = str(job_id)  # a number is meant well
    if not _ID.fullmatch(job_id):
        msg = f"job_id={job_id!r} is no id of a job: give a text like '123456' or, for an element of an array, '123456_7'"
        raise InfraValueError(msg)
    root = None
    templates: list[str] = []
    if folder is not None:
        root = layout.absolute(folder)
        if not os.path.isdir(root):
            msg = f"folder={os.fspath(folder)!r}: there is no folder {root}. Give the `folder` of the infra that sent the job."
            raise InfraValueError(msg)
        templates += _log_templates(os.fspath(logs), root)
        found = _find(root, job_id, templates)
        if found is not None:
            return found
    told, ids = _told_by_slurm(job_id)
    for one in dict.fromkeys((job_id, *ids)):
        found = _find(root, one, [*templates, *told])
        if found is not None:
            return found
    _check_array(job_id, [*templates, *told])
    return None


def _find(root: str | None, job_id: str, templates: list[str]) -> FoundJob | None:
    for template in templates:
        pickled = Path(template.replace("%j", job_id)) / f"{job_id}_submitted.pkl"
        if pickled.exists():
            cluster = "local" if job_id.startswith("local-") else "slurm"
            handle = open_job({"cluster": cluster, "job_id": job_id, "logs": template})
            sent = _sent(pickled)
            if sent is not None:
                kind, entry = sent
                if entry is not None and root is not None and not os.path.isdir(entry.path):
                    entry = EntryFolder(root, entry.uid)  # the cache was moved
                return _described(handle, kind, entry)
    return None if root is None else _find_task(root, job_id)


def _find_task(root: str, job_id: str) -> FoundJob | None:
    """Look into the job files of all tasks."""
    wanted = f'"{job_id}"'.encode()
    for method in files.visible_folders(root):
        for config in files.visible_folders(f"{root}/{method}") if "," in method else ():
            entry = EntryFolder(root, f"{method}/{config}")
            try:
                content = files.read_bytes(entry.job)
                if wanted in content and (record := json.loads(content))["job_id"] == job_id:
                    return _described(open_job(record), "TaskCall", entry)
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return None


def _described(handle: JobHandle, kind: str, entry: EntryFolder | None) -> FoundJob:
    if entry is None:
        job = SubmittedJob[Any](f"job {handle.job_id}")
        job._connect(handle, store_of(handle, None), 1)
        return FoundJob(None, None, None, job)
    config = None
    with contextlib.suppress(OSError, ExcaLikeError):
        config = ConfDict.from_yaml(Path(entry.config))
    made = TaskJob[Any] if kind == "TaskCall" else PartJob
    job_of_entry: TaskJob[Any] = made(entry.uid, KEY, FolderStore(entry, dict), handle)
    return FoundJob(entry.uid, Path(entry.path), config, job_of_entry)


# where logs are


def _log_templates(logs: str, root: str) -> Iterator[str]:
    """Folders of logs with ``%j``, of all users."""
    before, user, _ = logs.replace("{folder}", root).partition("{user}")
    names = [layout.user_name()]
    if user and before.endswith(os.sep):
        names = [*names, *(name for name in files.visible_folders(before) if name not in names)]
    for name in names:
        yield layout.absolute(logs.replace("{folder}", root).replace("{user}", name))


def _told_by_slurm(job_id: str) -> tuple[list[str], list[str]]:
    """Folders of a job's logs with ``%j``, and the id in its array of a job that is asked for by its number."""
    if not job_id.partition("_")[0].isdecimal():
        return [], []
    shown = ""
    for command in (
        ["scontrol", "show", "job", job_id],
        ["sacct", "--noheader", "--parsable2", "--allocations", "--jobs", job_id, "--format", "JobID,SubmitLine"],
    ):
        with contextlib.suppress(FileNotFoundError):
            shown += subprocess.run(command, capture_output=True, text=True, check=False).stdout
    folders = [os.path.dirname(os.path.dirname(path)) for path in re.findall(r"StdOut=(\S+)", shown)]
    folders += [path.rstrip("/") for path in re.findall(r"(/\S+/)\.submission_file_\w+\.sh", shown)]
    elements = re.findall(r"ArrayJobId=(\d+) ArrayTaskId=(\d+)\b", shown) + re.findall(r"^(\d+)_(\d+)\|", shown, re.MULTILINE)
    ids = {f"{array}_{index}" for array, index in elements if array != job_id}
    return [f"{folder}/%j" for folder in dict.fromkeys(folders)], list(ids) if len(ids) == 1 else []


def _check_array(job_id: str, templates: list[str]) -> None:
    """Raise for the id of a whole array."""
    found: set[str] = set()
    for template in templates:
        before, _, after = template.partition("%j")
        if not after and before.endswith(os.sep):
            found |= {name for name in files.visible_folders(before) if name.rpartition("_")[0] == job_id}
    if found:
        elements = sorted(found, key=lambda name: (len(name), name))
        msg = f"job {job_id} is an array of {len(elements)} jobs: give the id of one, like {elements[0]!r}"
        raise InfraValueError(msg)


# what was sent


class _Thing:
    """Stands for anything in a pickle, whose classes are not imported and whose code is not run."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Thing":
        return _Thing()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    extend = add = append

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Finds out what kind of call a pickle holds, and for which folder."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.kind = ""
        self.entry: EntryFolder | None = None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (EntryFolder.__module__, "EntryFolder"):
            return self._entry_type()
        if module.startswith("exca_like.") and name in _CALLS:
            self.kind = self.kind or name
        return type(name, (_Holder if name == "Payload" else _Thing,), {"reader": self})

    def persistent_load(self, pid: Any) -> "_Thing":  # noqa: ARG002 - see pickle.Unpickler
        return _Thing()

    def _entry_type(self) -> type[EntryFolder]:
        def note(_: type[EntryFolder], root: str, uid: str) -> EntryFolder:
            self.entry = self.entry or EntryFolder(root, uid)
            return self.entry

        return type("Noted", (EntryFolder,), {"__new__": note})


class _Holder(_Thing):
    """A call that holds another one, pickled."""

    reader: _Reader

    def __setstate__(self, state: Any) -> None:
        inner = _Reader(state["data"])
        inner.load()
        if inner.kind:
            self.reader.kind, self.reader.entry = inner.kind, inner.entry


def _sent(path: Path) -> tuple[str, EntryFolder | None] | None:
    """The kind of call in a job's file, and its folder; None if it is no call of this package."""
    reader = _Reader(path.read_bytes())
    try:
        reader.load()
    except Exception:  # what was read so far may do
        if not reader.kind:
            return None
    return (reader.kind, reader.entry) if reader.kind else None
