"""Which process is meant by a pid: pids are used again, and containers have pids of their own."""

import functools
import os
from typing import Any


def identity(pid: int) -> dict[str, Any]:
    """What tells a process of this machine from all others, as json data: ``host``, ``system``, ``pid`` and ``start``."""
    return {"host": os.uname().nodename, "system": system(), "pid": pid, "start": start_of(pid)}


def lives_here(process: dict[str, Any]) -> bool | None:
    """Whether the process of an `identity` lives; None if it can't be seen from here."""
    if process.get("system") != system():
        return None
    pid, start = process.get("pid"), process.get("start")
    return isinstance(pid, int) and bool(start) and start_of(pid) == start


def start_of(pid: int) -> str:
    """When a process started, in the system's own terms; empty if there is none, or only its remains."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()  # the program's name may hold spaces
    except ProcessLookupError:
        return ""
    except FileNotFoundError:
        return _without_proc(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _without_proc(pid: int) -> str:
    """For systems without ``/proc``, which don't tell when a process started."""
    if os.path.exists("/proc/self/stat"):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "unknown"
    return "unknown"


@functools.cache
def system() -> str:
    """Name of the system whose pids this process sees, since it was started."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as stream:
            return f"{stream.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return os.uname().nodename
