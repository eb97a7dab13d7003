"""``logs``: what jobs print."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from exca_like.cli.options import Folder, Json, catalog_of, is_job, print_json, print_text, root_of

if TYPE_CHECKING:
    from exca_like.entries import Entry

_POLL_S = 0.5
_SHOWN = 10
_BLOCK = 1 << 16  # bytes


def logs(
    uid: Annotated[str, typer.Argument(help="The uid of an entry, of which a clear part is enough, or the id of a job.")],
    folder: Folder = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    err: Annotated[bool, typer.Option("--err", help="What it printed as errors.")] = False,
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="Only the last lines; 0: all.")] = 0,
    path: Annotated[bool, typer.Option("--path", help="Only where the file is.")] = False,
    json: Json = False,
) -> None:
    """Print what a job has printed so far."""
    handle, status = _job_of(uid, folder)
    file = handle.paths.stderr if err else handle.paths.stdout
    if path:
        typer.echo(file)
        return
    ended = handle.ended()
    if json:
        paths = {"stdout": str(handle.paths.stdout), "stderr": str(handle.paths.stderr)}
        print_json({"job": handle.job_id, "ended": ended and ended.reason, **paths})
        return
    if not file.exists() and not follow:
        place = handle.whereabouts()
        why = f"it ended: {ended.reason}" if ended else "it runs" if place.is_running else f"it waits: {place.reason}"
        if ended and status in ("completed", "failed") and not handle.paths.folder.exists():
            why = f"it {status}, and the logs were removed since"
        print_text(f"job {handle.job_id}: there is no {file} ({why})", err=True)
        raise typer.Exit(1 if ended else 0)
    position = _print(file, 0, number)
    while follow and ended is None:
        time.sleep(_POLL_S)
        ended = handle.ended()  # before the last look at the file
        position = _print(file, position, 0)
    if ended is not None and (follow or (position == 0 and ended.reason != "completed")):  # nothing else would be seen
        detail = "" if ended.reason == "completed" else "".join(ended.detail.strip().splitlines()[-1:])
        print_text(f"job {handle.job_id} has ended: {ended.reason}{detail and f': {detail}'}", err=True)


def _job_of(uid: str, folder: Path | None) -> tuple[Any, str]:
    """A job, and how the task stands that it is of, if that is known."""
    from exca_like.errors import NotCachedError

    try:
        entry = catalog_of(folder)[uid]
    except NotCachedError as error:
        if "/" in uid or "=" in uid:  # it is no id of a job
            raise
        if (handle := _with_id(uid, folder)) is not None:
            return handle, ""
        if "\n" in str(error):  # several entries match
            raise
        msg = f"{error}; nor is there a job with this id"
        raise NotCachedError(msg) from None
    if is_job(uid):  # that of the entry may be another one, which came after it
        handle = next((one for one in entry.handles() if one.job_id == uid), None) or _with_id(uid, folder)
    else:
        handle = entry.handle() if entry.kind == "task" else None
    return handle or _of_part(entry, folder), entry.status


def _of_part(entry: "Entry", folder: Path | None) -> Any:
    """The job of a map, or of a call, if there is just one."""
    from exca_like.errors import NotCachedError

    jobs = entry.jobs()
    if len(jobs) > 1:  # those that died come first
        shown = ", ".join(jobs[:_SHOWN])
        more = f", and {len(jobs) - _SHOWN} others" if len(jobs) > _SHOWN else ""
        msg = f"{len(jobs)} jobs were at {entry.uid}: give the id of one, like {shown}{more}"
        raise NotCachedError(msg)
    handle = _with_id(jobs[0], folder) if jobs else None
    if handle is None:
        why = f"its job {jobs[0]} left no logs, or they were removed" if jobs else "it was computed without a job of its own"
        msg = f"there are no logs of {entry.uid}: {why}"
        raise NotCachedError(msg)
    return handle


def _with_id(job_id: str, folder: Path | None) -> Any:
    from exca_like.helpers import find_slurm_job

    found = find_slurm_job(job_id=job_id, folder=root_of(folder))
    return None if found is None else found.job._handle


def _print(file: Path, position: int, number: int) -> int:
    """Print a file from a position on; returns where it ends now."""
    try:
        with file.open("rb") as stream:
            stream.seek(_start_of_last(stream, number) if number else position)
            while data := stream.read(_BLOCK):
                typer.echo(data, nl=False)
            return stream.tell()
    except FileNotFoundError:
        return position


def _start_of_last(stream: BinaryIO, number: int) -> int:
    """Where the last lines of a file begin."""
    position = size = stream.seek(0, os.SEEK_END)
    lines = -1  # the end of the last one is none between two
    while position > 0:
        start = max(0, position - _BLOCK)
        stream.seek(start)
        data = stream.read(position - start)
        if position == size and not data.endswith(b"\n"):
            lines += 1
        end = len(data)
        while (end := data.rfind(b"\n", 0, end)) >= 0:
            lines += 1
            if lines == number:
                return start + end + 1
        position = start
    return 0
