"""File operations that leave either the old state or the new one, never a mixture."""

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from exca_like.errors import CacheFolderError

# temporary names start so; whatever lists a cache folder skips them
TEMPORARY_PREFIX = ".tmp-"
# as do names of folders that are being deleted
REMOVED_PREFIX = ".removed-"
# seconds without a change after which what has such a name is taken for what a killed process left
STALE_S = {REMOVED_PREFIX: 3600.0, TEMPORARY_PREFIX: 86400.0}


class Process:
    """Tells a process from the one it was forked from; cheaper than to ask the system for a pid."""

    forks = 0
    """How many forks led here since the package was imported."""


def _note_fork() -> None:
    Process.forks += 1


os.register_at_fork(after_in_child=_note_fork)


class ForkSafeLock:
    """A lock for the threads of a process, which a forked process finds free."""

    def __init__(self) -> None:
        self._locks = {Process.forks: threading.RLock()}  # one for each process that got here by forking

    def __enter__(self) -> None:
        forks = Process.forks
        (self._locks.get(forks) or self._locks.setdefault(forks, threading.RLock())).acquire()

    def __exit__(self, *_: object) -> None:
        self._locks[Process.forks].release()


def token() -> str:
    """A name that no other host, container, process or thread picks: 64 random bits in hex."""
    return os.urandom(8).hex()


def write_atomic(path: str, data: bytes, permissions: int | None = None) -> None:
    """Write a file that readers see whole or not at all."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{token()}-{name[:64]}")
    try:
        write_new(temporary, data, permissions)
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def create_folder(path: str, files: Mapping[str, bytes], permissions: int | None = None) -> bool:
    """Make a folder appear with its files in one step; False if it is there already, and stays as it is.

    Raises
    ------
    CacheFolderError
        The place can't be written to.
    """
    parent = os.path.dirname(path)
    temporary = f"{parent}/{TEMPORARY_PREFIX}{token()}"
    try:
        try:
            os.mkdir(temporary)
        except FileNotFoundError:
            make_folders(parent, permissions, above=os.path.dirname(parent))
            os.mkdir(temporary)
        for name, data in files.items():
            write_new(f"{temporary}/{name}", data, permissions)
        permit(temporary, permissions)
        os.rename(temporary, path)
    except OSError as error:
        _remove_folder(temporary)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or os.path.isdir(path):  # another process was first
            return False
        msg = (
            f"can't create the cache folder {path}: {error.strerror or error}. "
            "Check that the folder given to the infra exists or can be created, is writable, and has space left."
        )
        raise CacheFolderError(error.errno, msg) from error
    except BaseException:
        _remove_folder(temporary)
        raise
    return True


def permit(path: str, permissions: int | None) -> None:
    """Give a new file the permissions, or a new folder those that let the same people enter it; None: as the umask says.

    A new folder stays in the group of the one that it is in, if that one was made so for a team (setgid).
    """
    if permissions is not None:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            permissions |= (permissions & 0o444) >> 2 | mode & stat.S_ISGID
        os.chmod(path, permissions)


def mode_in(folder: str) -> int | None:
    """Permissions for new files of a folder, so that who may read or write there can read or write them; None if it is gone."""
    try:
        return stat.S_IMODE(os.stat(folder).st_mode) & 0o666
    except OSError:
        return None


def make_folders(path: str, permissions: int | None, above: str) -> None:
    """Create a folder and what is missing of those above it; permissions are given to new ones from ``above`` on."""
    try:
        try:
            os.mkdir(path)
        except FileNotFoundError:
            if len(path) > len(above):
                make_folders(os.path.dirname(path), permissions, above)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkdir(path)
    except FileExistsError:
        return
    permit(path, permissions)


def read_bytes(path: str) -> bytes:
    """The content of a file, with as few system calls as possible (results are read on every hit)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size)
        if len(data) == size:
            return data
        chunks = [data]  # one read returns at most 2 GiB on Linux
        while chunk := os.read(descriptor, 1 << 30):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def read_small(path: str, most: int, *, is_noted: bool = True) -> tuple[os.stat_result, bytes]:
    """The status of a file, and its content as it is then or later; no content if it has more than ``most`` bytes.

    With ``is_noted=False`` the time of its last reading stays as it is, where the system allows that.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags if is_noted else flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # only the owner of a file may have the time kept
        if is_noted:
            raise
        descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        return status, os.read(descriptor, status.st_size) if status.st_size <= most else b""
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes to an open file."""
    written = os.write(descriptor, data)
    while written < len(data):  # one write takes at most 2 GiB on Linux
        written += os.write(descriptor, memoryview(data)[written:])


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_last_name(path: str) -> None:
    """Remove a file if it has no other name: nobody has a hard link to it.

    Who makes one at the same time has the data either way.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_nlink == 1:
            os.unlink(path)


def sync(path: str) -> None:
    """Wait until the disk has a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_stale(path: str) -> bool:
    """Whether a file or folder with a temporary name is old enough to be taken for what a killed process left."""
    name = os.path.basename(path)
    age = next((age for prefix, age in STALE_S.items() if name.startswith(prefix)), None)
    if age is None:
        return False
    try:
        status = os.lstat(path)
    except OSError:  # it is gone, or got its name
        return False
    return time.time() - max(status.st_mtime, status.st_ctime) > age


def visible_folders(path: str | Path) -> list[str]:
    """Names of the folders in a folder, sorted, without temporary ones; empty if it is not there."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def write_new(path: str, data: bytes, permissions: int | None = None) -> None:
    """Write a file that is not there yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, data)
        if permissions is not None:
            os.fchmod(descriptor, permissions)
    finally:
        os.close(descriptor)


def _remove_folder(path: str) -> None:
    import shutil  # only when something went wrong

    shutil.rmtree(path, ignore_errors=True)
