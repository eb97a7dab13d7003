"""The files that one writer appends to: its journals, and the packed data files beside them.

A writer is one thread of one process, and no file has two. While it works, it holds a shared lock (``flock``) on its
journals, which tells `exca_like.maintenance` to leave them alone; whatever kills the process frees the lock.
"""

import contextlib
import errno
import fcntl
import functools
import io
import os
import re
import time
from collections.abc import Iterator
from os import pwrite
from typing import Any

from exca_like import files
from exca_like.cachedict.journal import INFO
from exca_like.errors import CacheFolderError

DATA = "data"
BLOBS = f"{DATA}/files"  # files of users, by their content, to which entries have hard links
_ALIGNMENT = 64  # bytes; what vector instructions like, and a multiple of every item size

_PATIENCE_S = 600.0  # seconds that a compaction is waited for
_SMALL = 1 << 16  # bytes that are cheaper to copy than to write separately

Buffer = bytes | bytearray | memoryview


@functools.cache
def host_name() -> str:
    """Name of this machine, as names of writers begin."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename)[:32] or "host"


@contextlib.contextmanager
def in_use(path: str) -> Iterator[bool]:
    """A block in which a journal is not removed by others, who are waited for; gives False if it is not there any more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        delay, patience = 0.001, time.monotonic() + _PATIENCE_S
        while not _locked(descriptor):
            if time.monotonic() > patience:
                msg = (
                    f"{path} has been locked for {_PATIENCE_S:.0f} s by another process that compacts the folder: "
                    "find out whether that is stuck, and end it (it can be done again)"
                )
                raise CacheFolderError(errno.EAGAIN, msg)
            time.sleep(delay)
            delay = min(2 * delay, 0.1)
        yield os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Show that a file is in use; False if somebody is about to remove it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: what is never locked is never removed either
        return True
    return True


class AppendFile:
    """A file that only this process appends to; after a failed write it is as it was before."""

    def __init__(self, folder: str, name: str, permissions: int | None, expected: int | None) -> None:
        """Open a new file, or the one of ``expected`` size that this process had opened before."""
        self.folder = folder
        self.name = name
        flags = os.O_WRONLY | os.O_CLOEXEC
        if expected is None:
            flags |= os.O_CREAT | os.O_EXCL
        path = f"{folder}/{name}"
        self.descriptor = os.open(path, flags, 0o666)
        self.size = expected or 0
        if expected is None:
            files.permit(path, permissions)

    def inode(self) -> int | None:
        """Number of the file; None if it is not in its folder any more, or somebody else changed its size."""
        status = os.fstat(self.descriptor)
        return status.st_ino if status.st_nlink and status.st_size == self.size else None

    def lock(self) -> bool:
        """Show that the file is in use; False if somebody is about to remove it."""
        return _locked(self.descriptor)

    def write(self, data: Buffer) -> int:
        """Append bytes; returns the offset at which they start.

        Raises
        ------
        CacheFolderError
            The bytes can't be written; the file is as it was.
        """
        offset, length = self.size, len(data)
        try:
            written = pwrite(self.descriptor, data, offset)
            while written < length:  # a full disk, or more than 2 GiB
                written += pwrite(self.descriptor, memoryview(data)[written:], offset + written)
        except BaseException as error:
            os.ftruncate(self.descriptor, offset)
            if isinstance(error, OSError):
                raise unwritable(self.folder, self.name, error) from error
            raise
        self.size = offset + length
        return offset

    def take_back(self, offset: int) -> None:
        """Undo what was written from an offset on."""
        os.ftruncate(self.descriptor, offset)
        self.size = offset

    def sync(self) -> None:
        """Wait for the disk to have what was written."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


class _Stream(io.FileIO):
    """A file that writes all it is given, or raises."""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += super().write(view[written:]) or 0
        return written


class Writer:
    """Appends entries to a folder.

    Parameters
    ----------
    folder:
        Folder of the entries; created when something is written.
    permissions:
        Mode of new files and folders, like ``0o770``; None leaves it to the umask.
    fsync:
        Wait until the disk has what is written, at each write.
    """

    def __init__(self, folder: str, permissions: int | None = None, *, fsync: bool = False) -> None:
        self.folder = folder
        self.permissions = permissions
        self.fsync = fsync
        self.context: Any = None  # what handlers store through; kept here as it is needed for each entry
        self._keys = 0
        self._rename()

    def _rename(self) -> None:
        self.name = f"{host_name()}-{os.getpid()}-{files.token()}"
        self.files: dict[str, AppendFile] = {}  # those that are open, by kind of journal or suffix of data file
        self.journal: AppendFile | None = None  # that of the entries, if it is open
        self._sizes: dict[str, int] = {}  # of files that were closed

    def ready(self, kind: str) -> AppendFile:
        """The journal of a kind, open and locked; under a new name if somebody is removing the writer's files.

        Raises
        ------
        CacheFolderError
            The folder can't be written to.
        """
        journal = self.files.get(kind)
        if journal is None:
            try:
                while (journal := self._take_up(kind)) is None:
                    self.end()
                    self._rename()
            except OSError as error:
                raise unwritable(self.folder, self.name + kind, error) from error
        return journal

    def end(self) -> None:
        """Close the files; `ready` takes them up again."""
        for kind, file in self.files.items():
            self._sizes[kind] = file.size
            file.close()
        self.files.clear()
        self.journal = None

    def append_line(self, journal: AppendFile, line: bytes) -> int:
        """Append a line to a journal that is `ready`; returns its offset.

        Raises
        ------
        CacheFolderError
            The line can't be written; the journal is as it was.
        """
        if not self.fsync:
            return journal.write(line)
        try:
            self.sync()  # the data first
            offset = journal.write(line)
            try:
                journal.sync()
            except OSError:
                journal.take_back(offset)
                raise
        except CacheFolderError:
            raise
        except OSError as error:
            raise unwritable(self.folder, journal.name, error) from error
        return offset

    def append(self, suffix: str, data: Buffer) -> int:
        """Append bytes, aligned to 64 bytes, to a packed data file; returns their offset.

        Raises
        ------
        CacheFolderError
            The bytes can't be written; the file is as it was.
        """
        file = self.files.get(suffix) or self._open_data(suffix)
        padding = -file.size % _ALIGNMENT
        if not padding:
            return file.write(data)
        if len(data) <= _SMALL:
            return file.write(bytes(padding) + data) + padding
        file.write(bytes(padding))
        return file.write(data)

    def stream(self, suffix: str) -> tuple[io.FileIO, str]:
        """A packed data file to append to by hand, and its name; see `adopt`."""
        file = self.files.get(suffix) or self._open_data(suffix)
        stream = _Stream(file.descriptor, "wb", closefd=False)
        stream.seek(0, os.SEEK_END)
        return stream, file.name

    def adopt(self, suffix: str) -> tuple[int, int]:
        """Take notice of what was written to a `stream`: its offset and length."""
        file = self.files[suffix]
        offset, file.size = file.size, os.fstat(file.descriptor).st_size
        return offset, file.size - offset

    def new_name(self, shard: str, readable: str, suffix: str) -> str:
        """A name for a data file of one entry, which no other file has or had; its folder exists."""
        self._keys += 1
        folder = f"{DATA}/{shard}"
        name = f"{folder}/{readable}-{self.name.rpartition('-')[2]}{self._keys:x}{suffix}"
        try:
            files.make_folders(f"{self.folder}/{folder}", self.permissions, above=self.folder)
        except OSError as error:
            raise unwritable(self.folder, name, error) from error
        return name

    def sync(self) -> None:
        """Wait for the disk to have what was written."""
        for file in self.files.values():
            file.sync()

    def _take_up(self, kind: str) -> AppendFile | None:
        """Open a journal, and those that were open before: what holds one of a writer's files holds them all."""
        earlier = [] if self.files else [name for name in self._sizes if name.endswith(".jsonl") and name != kind]
        if all(map(self._open_journal, earlier)) and self._open_journal(kind):
            return self.files[kind]
        return None

    def _open_journal(self, kind: str) -> bool:
        try:
            journal = self._open_file(kind, self.name + kind)
        except FileNotFoundError:  # removed meanwhile
            return False
        if not journal.lock() or journal.inode() is None:
            journal.close()
            return False
        self.files[kind] = journal
        if kind == INFO:
            self.journal = journal
        return True

    def _open_data(self, suffix: str) -> AppendFile:
        name = f"{DATA}/{self.name}{suffix}"
        try:
            file = self.files[suffix] = self._open_file(suffix, name)
        except OSError as error:
            raise unwritable(self.folder, name, error) from error
        return file

    def _open_file(self, kind: str, name: str) -> AppendFile:
        size = self._sizes.get(kind)
        try:
            file = AppendFile(self.folder, name, self.permissions, size)
        except FileNotFoundError:
            if size is not None:
                raise
            files.make_folders(os.path.dirname(f"{self.folder}/{name}"), self.permissions, above=self.folder)
            file = AppendFile(self.folder, name, self.permissions, size)
        if self.fsync and size is None:
            files.sync(os.path.dirname(f"{self.folder}/{name}"))  # which has the new file's name
        return file


def unwritable(folder: str, name: str, error: OSError) -> CacheFolderError:
    """The error for a file that can't be written to."""
    msg = (
        f"can't write to {folder}/{name}: {error.strerror or error}. Check the space left and the permissions; "
        "earlier entries are untouched, and writing goes on once it is possible."
    )
    return CacheFolderError(error.errno, msg)
