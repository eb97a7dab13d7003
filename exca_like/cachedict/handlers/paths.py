"""Files and folders of users, stored with what is in them.

Each path has a folder of its own in the entry's data, in which its file or folder lies under its own name. Files with the
same bytes are one file on disk: a *blob*, named by a digest of its content, that entries have hard links to. The number of
links says whether a blob is still needed, so that nobody has to keep count. Without hard links, entries have plain copies.
"""

import errno
import filecmp
import hashlib
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from exca_like import files, progress
from exca_like.cachedict.handlers.containers import Auto, coder_name, encode_dict, holds_paths, store_tree
from exca_like.cachedict.registry import describe_type
from exca_like.cachedict.writer import BLOBS
from exca_like.errors import ConfigTypeError, ConfigValueError, CorruptEntryError, DataFileError, MissingFileError

_CHUNK = 1 << 20  # bytes
_ATTEMPTS = 3  # to share a blob that others remove and make at the same time
_DIGEST_SIZE = 20  # bytes


@dataclass(frozen=True)
class Files:
    """Stores a `pathlib.Path`, or lists, tuples and dictionaries that hold some, with the files and folders that they name.

    Files are copied, never moved, and keep their names; equal ones are stored once. Those in the cache are read-only. In
    folders, symbolic links to what is in the folder stay links, others are followed.

    Parameters
    ----------
    copy:
        Whether loading gives a copy in a new temporary folder, to change at will, which goes when the process ends. If not,
        it gives the path in the cache.
    limit:
        Bytes that what a path names may have. Of what has more, the path alone is kept, and the value counts as missing once
        that is gone, or a file was changed; a path that names nothing is kept as it is. None: there is no limit.

    Raises
    ------
    ConfigTypeError
        There is no `pathlib.Path` in the value.
    MissingFileError, DataFileError
        A path does not exist, and there is no limit, or it can't be read.
    """

    copy: bool = False
    limit: int | None = None

    def __dump_info__(self, ctx: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, pathlib.Path):
            if self._is_of_nothing(value):
                kept: dict[str, Any] = ctx.dump(pathlib.Path(value))
                return kept
            return self._dump_path(ctx, value)
        extent = ctx.extent
        try:
            if not holds_paths(value):
                msg = (
                    f"Files stores pathlib.Path, or lists, tuples and dictionaries that hold some, but there is none in "
                    f"{describe_type(value)}: make a text that names a file a Path"
                )
                raise ConfigTypeError(msg)
            tree = self._encode(ctx, value)
        except RecursionError as error:
            msg = "Files can't store a container that contains itself"
            raise ConfigTypeError(msg) from error
        return {"#type": Auto.__name__, **store_tree(ctx, tree, extent)}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str = "", copy: bool = False, **info: Any) -> pathlib.Path:
        if "reference" in info:
            return _referred(**info)
        _check(ctx, filename, info)
        path = ctx.path(filename)
        return pathlib.Path(_private_copy(path, info) if copy else path)

    @classmethod
    def __delete_info__(cls, ctx: Any, filename: str = "", **info: Any) -> None:
        if filename.count("/") == 3:  # data/<two digits>/<name>/<file or folder>: as it is written here
            shutil.rmtree(os.path.dirname(ctx.path(filename)), ignore_errors=True)
        for digest in _digests(info):
            files.remove_last_name(ctx.path(_blob(digest)))

    def _encode(self, ctx: Any, value: Any) -> Any:
        if isinstance(value, pathlib.Path):
            if self._is_of_nothing(value):
                return Auto.encode_part(ctx, pathlib.Path(value))
            return {"#type": type(self).__name__, **self._dump_path(ctx, value)}
        if type(value) is list:
            return [self._encode(ctx, part) for part in value]
        if type(value) is tuple:
            return {"#type": coder_name(tuple), "content": [self._encode(ctx, part) for part in value]}
        if type(value) is dict:
            return encode_dict(value, lambda part: self._encode(ctx, part), lambda key: Auto.encode_part(ctx, key))
        return Auto.encode_part(ctx, value)

    def _is_of_nothing(self, path: pathlib.Path) -> bool:
        return self.limit is not None and not os.path.exists(path)

    def _dump_path(self, ctx: Any, value: pathlib.Path) -> dict[str, Any]:
        source = os.path.abspath(value)
        if self.limit is not None and (size := _size_of(source)) > self.limit:
            progress.tell(
                f"the path {source} is kept without its {size / 1e9:.3g} GB, which are not copied into {ctx.folder_path}: "
                "use cache_type='Files' for that, or 'Auto' to keep paths alone"
            )
            return {"reference": source, "state": _state_of(source)}
        tree = _Tree()
        with _reading(source):
            is_folder = stat.S_ISDIR(os.stat(source).st_mode)
        if is_folder:
            tree.walk(source)
        name = _checked_name(source, os.path.basename(source) or "root")
        own = os.path.dirname(ctx.key_path(f"/{name}.entry"))  # a new folder; there is no file of that name in it
        filename = f"{own}/{name}"
        digests: list[str] = []
        ctx.if_discarded(lambda: _undo(ctx.folder_path, own, digests))
        folders = [filename, *(f"{filename}/{folder}" for folder in tree.folders)] if is_folder else [own]
        for folder in folders:
            files.make_folders(f"{ctx.folder_path}/{folder}", ctx.writer.permissions, above=ctx.folder_path)
        for relative in tree.files if is_folder else [""]:
            target = f"{filename}/{relative}" if relative else filename
            digests.append(_store(ctx, os.path.join(source, relative) if relative else source, target, own))
        for relative, text in tree.links:
            os.symlink(text, f"{ctx.folder_path}/{filename}/{relative}")
        info: dict[str, Any] = {"filename": filename}
        if self.copy:
            info["copy"] = True
        if not is_folder:
            return info | {"blob": digests[0]}
        return info | {"files": list(zip(tree.files, digests, strict=True)), "links": tree.links, "folders": tree.folders}


def blobs_of(info: dict[str, Any]) -> Iterator[str]:
    """Names of the blobs that what was stored for a path has links to; relative to the folder of the entries."""
    return map(_blob, _digests(info))


def restore(folder: str, info: dict[str, Any], permissions: int | None) -> None:
    """Make the plain files of an entry that came from elsewhere what they were: links, folders, modes, shared bytes."""
    filename = info["filename"]
    own = os.path.dirname(filename)
    named = [filename, *info.get("folders", ()), *(name for name, _ in (*info.get("files", ()), *info.get("links", ())))]
    if filename.count("/") != 3 or any(name.startswith("/") or ".." in name.split("/") for name in named):
        msg = f"it names the file {filename!r}, outside of its folder"
        raise CorruptEntryError(msg)
    for relative in info.get("folders", ()):
        files.make_folders(f"{folder}/{filename}/{relative}", permissions, above=folder)
    for relative, digest in info.get("files", [("", info.get("blob", ""))]):
        path = f"{folder}/{filename}/{relative}" if relative else f"{folder}/{filename}"
        allowed = stat.S_IMODE(os.stat(path).st_mode)
        os.chmod(path, (allowed | (allowed & 0o444) >> 2 if digest.endswith("x") else allowed) & 0o555)
        _share(folder, path, _blob(digest), f"{folder}/{own}/{files.TEMPORARY_PREFIX}{files.token()}", permissions)
    for relative, text in info.get("links", ()):
        target = os.path.normpath(os.path.join(os.path.dirname(relative), text))
        path = f"{folder}/{filename}/{relative}"
        if target.startswith(("/", "..")) or not os.path.realpath(os.path.dirname(path)).startswith(os.path.realpath(folder)):
            msg = f"its link {relative} leads out of its folder"
            raise CorruptEntryError(msg)
        if not os.path.lexists(path):
            files.make_folders(os.path.dirname(path), permissions, above=folder)
            os.symlink(text, path)


def _digests(info: dict[str, Any]) -> list[str]:
    return [info["blob"]] if "blob" in info else [digest for _, digest in info.get("files", ())]


def _blob(digest: str) -> str:
    return f"{BLOBS}/{digest[:2]}/{digest}"


# what there is to store


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """A block in which errors of the file system are about a file of the user's."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"there is no {path}, which is to be stored: write it before its path is given to the cache"
        raise MissingFileError(errno.ENOENT, msg) from error
    except OSError as error:
        msg = f"can't read {path}, which is to be stored: {error.strerror or error}"
        raise DataFileError(error.errno, msg) from error


@dataclass
class _Tree:
    """What is in a folder, by names relative to it."""

    files: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)  # with their texts
    folders: list[str] = field(default_factory=list)

    def walk(self, root: str) -> None:
        """List everything below a folder."""
        self._walk(os.path.realpath(root), root, "", frozenset())

    def _walk(self, root: str, path: str, relative: str, above: frozenset[str]) -> None:
        real = os.path.realpath(path)
        if real in above:
            msg = f"can't store {path}: its symbolic links lead round in circles"
            raise DataFileError(errno.ELOOP, msg)
        with _reading(path), os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{relative}{_checked_name(entry.path, entry.name)}"
            with _reading(entry.path):
                mode = os.lstat(entry.path).st_mode
                if stat.S_ISLNK(mode):
                    target = os.path.relpath(os.path.join(real, os.readlink(entry.path)), root)
                    if target.partition("/")[0] != "..":
                        self.links.append((name, os.path.relpath(target, os.path.dirname(name) or ".")))
                        continue
                    mode = os.stat(entry.path).st_mode
            if stat.S_ISDIR(mode):
                self.folders.append(name)
                self._walk(root, entry.path, f"{name}/", above | {real})
            else:
                self.files.append(name)  # `_store` refuses what is no file


def _checked_name(path: str, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        msg = f"can't store {path!r}: its name is not valid UTF-8, rename it"
        raise ConfigValueError(msg) from error
    return name


# storing


def _store(ctx: Any, source: str, name: str, own: str) -> str:
    """Copy a file, so that it shares its bytes with others if it can; returns the name of its blob."""
    path, permissions = f"{ctx.folder_path}/{name}", ctx.writer.permissions
    ctx.adopt(name, sealed=True)
    hasher = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    with _reading(source):
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not be waited for
    with open(descriptor, "rb", buffering=0) as stream:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            msg = f"can't store {source}: it is neither a file nor a folder"
            raise DataFileError(errno.EINVAL, msg)
        is_program = bool(mode & stat.S_IXUSR)
        copied = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777 if is_program else 0o666)
        try:
            while True:
                with _reading(source):
                    chunk = stream.read(_CHUNK)
                if not chunk:
                    break
                hasher.update(chunk)
                files.write_all(copied, chunk)
            allowed = stat.S_IMODE(os.fstat(copied).st_mode) if permissions is None else permissions
            if is_program:
                allowed |= (allowed & 0o444) >> 2
            os.fchmod(copied, allowed & 0o555)
        finally:
            os.close(copied)
    digest = hasher.hexdigest() + ("x" if is_program else "")  # links share a mode, too
    temporary = f"{ctx.folder_path}/{own}/{files.TEMPORARY_PREFIX}{files.token()}"
    _share(ctx.folder_path, path, _blob(digest), temporary, permissions)
    return digest


def _share(folder: str, path: str, blob: str, temporary: str, permissions: int | None) -> None:
    """Let a new file be the blob of its content, or a link to it; it stays a copy where that is not possible."""
    shared = f"{folder}/{blob}"
    for _ in range(_ATTEMPTS):
        try:
            files.make_folders(os.path.dirname(shared), permissions, above=folder)
            try:
                os.link(path, shared)
            except FileExistsError:
                _join(path, shared, temporary)
        except FileNotFoundError:  # others removed it
            continue
        except OSError:  # no hard links here, or too many of them
            pass
        finally:
            files.remove(temporary)
        return


def _join(path: str, shared: str, temporary: str) -> None:
    if not filecmp.cmp(path, shared, shallow=False):  # damaged since; those to come share the sound one
        os.link(path, temporary)
        os.replace(temporary, shared)
        return
    wanted, given = (stat.S_IMODE(os.stat(name).st_mode) for name in (path, shared))
    if wanted & ~given:
        os.chmod(shared, wanted | given)
    os.link(shared, temporary)
    os.replace(temporary, path)


def _undo(folder: str, own: str, digests: list[str]) -> None:
    shutil.rmtree(f"{folder}/{own}", ignore_errors=True)
    for digest in digests:
        files.remove_last_name(f"{folder}/{_blob(digest)}")


# what is too large to be stored


def _size_of(path: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    with _reading(path):
        if not os.path.isdir(path):
            return os.stat(path).st_size
    found = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(os.lstat(name).st_size for name in found)


def _state_of(path: str) -> list[int] | None:
    """What changes with a file; None for a folder."""
    status = os.stat(path)
    return None if stat.S_ISDIR(status.st_mode) else [status.st_size, status.st_mtime_ns]


def _referred(reference: str, state: list[int] | None) -> pathlib.Path:
    if _state_of(reference) != state:
        msg = f"{reference}, which it names, was changed since"
        raise CorruptEntryError(msg)
    return pathlib.Path(reference)


# loading


def _check(ctx: Any, filename: str, info: dict[str, Any]) -> None:
    """Check what has no checksum: that empty files, folders and links are there."""
    is_folder = "files" in info
    for relative, *_ in info.get("files", [("",)]):
        path = ctx.path(f"{filename}/{relative}" if relative else filename)
        if not os.path.isfile(path):
            raise FileNotFoundError(errno.ENOENT, "no file", path)
    for relative in ["", *info.get("folders", ())] if is_folder else ():
        path = ctx.path(f"{filename}/{relative}")
        if not os.path.isdir(path):
            raise FileNotFoundError(errno.ENOENT, "no folder", path)
    for relative, text in info.get("links", ()):
        path = ctx.path(f"{filename}/{relative}")
        if not _leads(path, text):
            msg = f"{path} is no link to {text} any more"
            raise CorruptEntryError(msg)


def _leads(path: str, text: str) -> bool:
    """Whether there is a link, or what a copy that follows links made of it."""
    if os.path.islink(path):
        return os.readlink(path) == text
    target = os.path.join(os.path.dirname(path), text)
    if os.path.isdir(path):
        return os.path.isdir(target)
    return os.path.isfile(path) and os.path.isfile(target) and filecmp.cmp(path, target, shallow=False)


_copies: dict[int, str] = {}  # the folder of this process, by the forks that led to it


def _private_copy(source: str, info: dict[str, Any]) -> str:
    folder = tempfile.mkdtemp(dir=_folder_of_copies())
    target = os.path.join(folder, os.path.basename(source))
    if "files" not in info:
        _copy_file(source, target)
        return target
    os.mkdir(target)
    for relative in info["folders"]:
        os.mkdir(f"{target}/{relative}")
    for relative, _ in info["files"]:
        _copy_file(f"{source}/{relative}", f"{target}/{relative}")
    for relative, text in info["links"]:
        os.symlink(text, f"{target}/{relative}")
    return target


def _folder_of_copies() -> str:
    forks = files.Process.forks
    if forks not in _copies:
        from multiprocessing.util import Finalize  # at the end of processes of pools, too, which `atexit` is not

        made = _copies[forks] = tempfile.mkdtemp(prefix="exca_like-files-")
        Finalize(None, shutil.rmtree, (made,), {"ignore_errors": True}, exitpriority=0)
    return _copies[forks]


def _copy_file(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    os.chmod(target, stat.S_IMODE(os.stat(source).st_mode) | stat.S_IRUSR | stat.S_IWUSR)


HANDLERS = {"Files": Files}
TYPE_DEFAULTS: dict[type, Any] = {}
