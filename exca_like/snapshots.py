"""Copies of files and folders, named by a digest of what is in them, so that each content is copied once.

The digest is made from relative names, executable bits, links and bytes. A copy is made under a temporary name and renamed:
it is there whole or not at all, and never changes. Digests of files are remembered by size, times and inode, so that an
unchanged tree is looked at, but not read again.
"""

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from exca_like import files, user_warnings
from exca_like.errors import CacheFolderError, SubmissionError

logger = logging.getLogger(__name__)

Ignored = Callable[[str, bool], bool]
"""Whether a name is left out; the second argument tells whether it is a folder's."""

_ATTEMPTS = 3  # to find a tree that does not change while it is copied
_SETTLED_NS = 2_000_000_000  # a file that was changed later than this before now may change again within the same time stamp
_CHUNK = 1 << 20
_known: dict[str, tuple[tuple[int, ...], bytes]] = {}  # digests of files, by path


class Source(NamedTuple):
    """A file or folder to copy, and where it lands in the copy."""

    path: str
    target: str


class _Item(NamedTuple):
    """A file of a tree, or a link with its text."""

    path: str
    link: str | None = None


class _ChangedError(Exception):
    """A file is gone that was there a moment ago."""


def snapshot(
    sources: Sequence[Source],
    root: str,
    ignored: Ignored,
    *,
    extra: Mapping[str, bytes] | None = None,
    left_out: Iterable[str] = (),
    permissions: int | None = None,
) -> str:
    """The folder with a copy of the sources as they are now, made if there is none.

    Parameters
    ----------
    sources:
        What to copy.
    root:
        Folder of the copies.
    ignored:
        Tells what is left out of folders.
    extra:
        Contents of more files, by name.
    left_out:
        Folders that are never walked, such as those of results.
    permissions:
        Mode of new files; see `exca_like.files.permit`.

    Raises
    ------
    SubmissionError
        A source can't be read.
    CacheFolderError
        The copy can't be written.
    """
    extra = extra or {}
    skipped = {os.path.realpath(folder) for folder in (*left_out, root)}
    for attempt in range(_ATTEMPTS):
        try:
            items = _listed(sources, ignored, skipped)
            path = f"{root}/{_digest(_lines(items), extra)}"
            if os.path.isdir(path):
                return path
            copied = _copy(items, extra, root, path, permissions, accept_changed=attempt == _ATTEMPTS - 1)
        except _ChangedError:
            continue
        if copied is not None:
            return copied
    msg = "files that are to be copied for the job appear and disappear all the time: stop what writes them, or exclude them"
    raise SubmissionError(msg)


# what is there


def _listed(sources: Sequence[Source], ignored: Ignored, skipped: set[str]) -> dict[str, _Item]:
    """Files and links, by their names in the copy."""
    items: dict[str, _Item] = {}
    for source in sources:
        path = os.path.realpath(source.path)
        if os.path.isdir(path):
            _Walk(path, source.target, ignored, skipped, items).run()
        else:
            items[source.target] = _Item(path)
    return dict(sorted(items.items()))


class _Walk:
    """Lists one folder."""

    def __init__(self, root: str, target: str, ignored: Ignored, skipped: set[str], items: dict[str, _Item]) -> None:
        self.root, self.target, self.ignored, self.skipped, self.items = root, target, ignored, skipped, items
        self.there = {""}  # names, relative to the root, that a link may lead to
        self.links: list[tuple[str, str]] = []

    def run(self) -> None:
        self._walk("")
        left = self.links
        while True:  # links to links
            kept = [(name, text) for name, text in left if _destination(name, text) in self.there]
            if not kept:
                break
            for name, text in kept:
                self._add(name, _Item(f"{self.root}/{name}", text))
            left = [link for link in left if link not in kept]
        for name, _ in left:  # to what is left out
            path = os.path.realpath(f"{self.root}/{name}")
            if os.path.isfile(path):
                self._add(name, _Item(path))

    def _add(self, name: str, item: _Item) -> None:
        self.items[f"{self.target}/{name}"] = item
        while name not in self.there:
            self.there.add(name)
            name = os.path.dirname(name)

    def _walk(self, folder: str) -> None:
        try:
            with os.scandir(os.path.join(self.root, folder)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError as error:
            raise _ChangedError from error
        except OSError as error:
            raise _unreadable(os.path.join(self.root, folder), error) from error
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if self.ignored(entry.name, os.path.isdir(entry.path)):
                continue
            if entry.is_symlink():
                self._link(name, entry.path)
            elif entry.is_dir():
                if entry.path not in self.skipped:
                    self._walk(name)
            elif entry.is_file():
                self._add(name, _Item(entry.path))
            else:
                logger.debug("%s is neither a file nor a folder, and not copied", entry.path)

    def _link(self, name: str, path: str) -> None:
        text = os.readlink(path)
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            user_warnings.warn(f"{path} is a link to {text}, which can't be reached ({error.strerror}): not copied")
            return
        if not os.path.isabs(text) and not _destination(name, text).startswith("../") and _destination(name, text) != "..":
            self.links.append((name, text))
        elif stat.S_ISREG(mode):
            self._add(name, _Item(os.path.realpath(path)))
        elif stat.S_ISDIR(mode):  # most often of data, which may be large
            logger.info("%s leads to a folder elsewhere, and stays a link to it", path)
            self._add(name, _Item(path, os.path.realpath(path)))


def _destination(name: str, text: str) -> str:
    found = os.path.normpath(os.path.join(os.path.dirname(name), text))
    return "" if found == "." else found


# digests

_Line = tuple[str, bytes, bytes]  # name, kind, digest or link


def _lines(items: Mapping[str, _Item]) -> list[_Line]:
    return [
        (name, *_file_digest(item.path)) if item.link is None else (name, b"link", os.fsencode(item.link))
        for name, item in items.items()
    ]


def _digest(lines: Sequence[_Line], extra: Mapping[str, bytes]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for line in (*lines, *((name, b"extra", data) for name, data in extra.items())):
        for part in (os.fsencode(line[0]), *line[1:]):
            total.update(b"%d:%s" % (len(part), part))
    return total.hexdigest()


def _file_digest(path: str) -> tuple[bytes, bytes]:
    """Kind and digest of a file."""
    try:
        found = os.stat(path)
        known = _known.get(path)
        if known is not None and known[0] == _signature(found):
            return _kind(found), known[1]
        with open(path, "rb") as stream:
            found = os.fstat(stream.fileno())
            digest = hashlib.file_digest(stream, _new_digest).digest()
            after = os.fstat(stream.fileno())
    except FileNotFoundError as error:
        raise _ChangedError from error
    except OSError as error:
        raise _unreadable(path, error) from error
    is_settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
    if is_settled and _signature(found) == _signature(after):
        _known[path] = _signature(found), digest
    return _kind(found), digest


def _new_digest() -> "hashlib._Hash":
    return hashlib.blake2b(digest_size=16)  # type: ignore[return-value]


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _kind(found: os.stat_result) -> bytes:
    return b"program" if found.st_mode & stat.S_IXUSR else b"file"


def _unreadable(path: str, error: OSError) -> SubmissionError:
    return SubmissionError(
        f"can't read {path} to copy it for the job: {error.strerror}. Mend its permissions, or leave it out with "
        "WorkDir(excludes=[...])."
    )


# copies


def _copy(
    items: Mapping[str, _Item],
    extra: Mapping[str, bytes],
    root: str,
    path: str,
    permissions: int | None,
    *,
    accept_changed: bool,
) -> str | None:
    """Copy to a folder named by what was copied: ``path``, unless files change meanwhile. None if they did."""
    temporary = f"{root}/{files.TEMPORARY_PREFIX}{files.token()}"
    try:
        files.make_folders(root, permissions, above=os.path.dirname(root))
        os.mkdir(temporary)
        lines = [_copy_item(name, item, temporary, permissions) for name, item in items.items()]
        for name, data in extra.items():
            files.write_new(f"{temporary}/{name}", data, permissions)
        files.permit(temporary, permissions)
        copied = f"{root}/{_digest(lines, extra)}"
        if copied != path and not accept_changed:
            return None
        try:
            os.rename(temporary, copied)
        except OSError:
            if not os.path.isdir(copied):  # else another process was first
                raise
        else:
            logger.info("copied %d files to %s", len(items), copied)
        return copied
    except OSError as error:
        msg = (
            f"can't copy code for the job to {root}: {error.strerror or error}. "
            "Check that the folder is writable and has space left, or set another one with WorkDir(folder=...)."
        )
        raise CacheFolderError(error.errno, msg) from error
    finally:
        if os.path.isdir(temporary):
            import shutil  # only when something went wrong, or another process was first

            shutil.rmtree(temporary, ignore_errors=True)


def _copy_item(name: str, item: _Item, temporary: str, permissions: int | None) -> _Line:
    target = f"{temporary}/{name}"
    files.make_folders(os.path.dirname(target), permissions, above=temporary)
    if item.link is not None:
        os.symlink(item.link, target)
        return name, b"link", os.fsencode(item.link)
    try:
        source = open(item.path, "rb")  # noqa: SIM115 - errors of reading are told from those of writing
    except FileNotFoundError as error:
        raise _ChangedError from error
    except OSError as error:
        raise _unreadable(item.path, error) from error
    digest = _new_digest()
    with source:
        found = os.fstat(source.fileno())
        is_program = _kind(found) == b"program"
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777 if is_program else 0o666)
        try:
            while chunk := _read(source.fileno(), item.path):
                digest.update(chunk)
                files.write_all(descriptor, chunk)
        finally:
            os.close(descriptor)
    if permissions is not None and is_program:
        permissions |= (permissions & 0o444) >> 2
    files.permit(target, permissions)
    return name, _kind(found), digest.digest()


def _read(descriptor: int, path: str) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        raise _unreadable(path, error) from error
