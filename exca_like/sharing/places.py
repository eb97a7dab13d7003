"""Where results are sent to and fetched from: a bundle, a folder, or whatever fsspec opens."""

import copy
import errno
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any, Self

from exca_like import files, tables
from exca_like.cachedict.writer import DATA
from exca_like.errors import ConfigValueError, ExcaLikeError, TransferError
from exca_like.sharing import arriving
from exca_like.user_warnings import warn

_READ = "Check the address, the permissions, the connection and the space left here, and do the same again."
_WRITTEN = "What has arrived stays; do the same again to go on."
_THREADS = 8
_WITHOUT = "pip install 'exca_like[remote]'"


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """A block in which errors of the file system that name no other file are about one that is written."""
    try:
        yield
    except ExcaLikeError:
        raise
    except OSError as error:
        other = str(error.filename or path)
        about = "" if other == path or f"/{files.TEMPORARY_PREFIX}" in other else f" ({other})"
        hint = "Check the permissions and the space left, and do the same again."
        msg = f"can't write {path}: {error.strerror or error}{about}. {hint}"
        raise TransferError(error.errno, msg) from error


class Bundle:
    """A zip file, without compression, that holds a cache root."""

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive

    @classmethod
    @contextmanager
    def new(cls, path: str) -> Iterator[Self]:
        """A bundle to be written, which appears when the block ends well and something is in it."""
        folder, name = os.path.split(path)
        ending = f"-{name[:64]}"
        with _writing(path):
            with suppress(OSError):  # who may not list the folder may write there
                arriving.remove_left(f"{folder}/{other}" for other in os.listdir(folder) if other.endswith(ending))
            with arriving.new_file(folder, ending) as stream:
                with zipfile.ZipFile(stream, "w", strict_timestamps=False) as archive:
                    yield cls(path, archive)
                if archive.namelist():
                    arriving.appear(stream, path)

    @classmethod
    @contextmanager
    def open(cls, path: str) -> Iterator[Self]:
        """A bundle to be read."""
        try:
            archive = zipfile.ZipFile(path)
            if any(info.header_offset < 0 for info in archive.infolist()):
                archive.close()
                msg = "its beginning is not there"
                raise zipfile.BadZipFile(msg)
        except OSError as error:
            raise TransferError(error.errno, f"can't read the bundle {path}: {error.strerror or error}") from error
        except zipfile.BadZipFile as error:
            msg = f"{path} is no bundle, or it was cut short: {error}. Copy it again, or write it anew with `exca-like export`."
            raise TransferError(errno.EINVAL, msg) from error
        with archive:
            yield cls(path, archive)

    def __str__(self) -> str:
        return self._path

    @property
    def address(self) -> None:
        """None: its name says nothing of what is in it."""
        return

    def sizes(self) -> dict[str, int]:
        """All files that there are, with their bytes."""
        return {info.filename: info.file_size for info in self._archive.infolist() if not info.is_dir()}

    def get(self, names: Sequence[str], folder: str) -> None:
        """Fetch files into a folder; of damaged data what can be read, as each result has checksums of its own."""
        for name in names:
            path = f"{folder}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            is_data = DATA in name.split("/")
            info = copy.copy(self._archive.getinfo(name))
            if is_data:
                del info.CRC  # the archive has one for the whole file, which may hold many results
            try:
                with open(path, "xb") as target, self._archive.open(info) as source:
                    shutil.copyfileobj(source, target)
            except (
                zipfile.BadZipFile,
                NotImplementedError,
                RuntimeError,
                EOFError,
                zlib.error,
            ) as error:  # what it says of damage
                if not is_data:
                    msg = f"the bundle {self._path} is damaged, in {name}, which tells what there is: get it, or make it, again"
                    raise TransferError(errno.EIO, msg) from error
            except OSError as error:
                msg = f"can't copy {name} out of {self._path}: {error.strerror or error}. {_READ}"
                raise TransferError(error.errno, msg) from error

    def put(self, paths: Mapping[str, str]) -> None:
        """Add files."""
        for name, path in paths.items():
            self._archive.write(path, name)

    def sweep(self, names: Iterable[str]) -> None:
        """Nothing: it appears when it is complete."""


class Folder:
    """A folder that is, or becomes, a cache root; with the mode of new files, or None if the umask says it."""

    def __init__(self, path: str, permissions: int | None = None) -> None:
        self._path = path
        self._permissions = permissions

    def __str__(self) -> str:
        return self._path

    @property
    def address(self) -> str:
        """Its path."""
        return self._path

    def sizes(self) -> dict[str, int]:
        """All files that there are, with their bytes."""
        found: dict[str, int] = {}
        hidden: list[str] = []

        def note(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):  # else it is not there (yet, or any more)
                hidden.append(f"{error.filename} ({error.strerror})")

        for parent, _, names in os.walk(self._path, onerror=note):
            for name in names:
                try:
                    found[os.path.relpath(f"{parent}/{name}", self._path)] = os.stat(f"{parent}/{name}").st_size
                except OSError:  # it was removed just now
                    continue
        if hidden:
            warn(f"{tables.count(len(hidden), 'folder')} can't be read, like {hidden[0]}: what is in there counts as not there")
        return found

    def get(self, names: Sequence[str], folder: str) -> None:
        """Fetch files into a folder; those that are gone are left out."""
        _at_once(lambda name: self._get(name, f"{folder}/{name}"), names)

    def _get(self, name: str, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            shutil.copyfile(f"{self._path}/{name}", path)
        except FileNotFoundError:
            return
        except OSError as error:
            msg = f"can't copy {self._path}/{name}: {error.strerror or error}. {_READ}"
            raise TransferError(error.errno, msg) from error

    def put(self, paths: Mapping[str, str]) -> None:
        """Copy files into the folder; each appears whole. In the end the disk has all of them, with their names."""
        _at_once(lambda name: self._put(paths[name], f"{self._path}/{name}"), paths)
        folders = {str(folder) for name in paths for folder in PurePath(name).parents}
        _at_once(lambda folder: _sync_folder(f"{self._path}/{folder}"), folders)

    def _put(self, path: str, target: str) -> None:
        folder = os.path.dirname(target)
        with _writing(target):
            files.make_folders(folder, self._permissions, above=self._path)
            with arriving.new_file(folder) as stream:
                shutil.copyfile(path, stream.name)
                files.permit(stream.name, self._permissions)
                arriving.appear(stream, target)

    def sweep(self, names: Iterable[str]) -> None:
        """Remove those of some files that a killed process has left half-written."""
        arriving.remove_left(f"{self._path}/{name}" for name in names)


def _sync_folder(path: str) -> None:
    """Wait until the disk has the names in a folder, where the file system can do that."""
    with suppress(OSError):
        files.sync(path)


def _at_once(function: Callable[[str], None], names: Iterable[str]) -> None:
    """Call a function for each name, in a few threads: network file systems let each call wait."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(function, names):
            pass


class Remote:
    """What fsspec opens: an object store, another machine."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        protocol = url.partition("://")[0]
        try:
            import fsspec
        except ImportError as error:
            msg = f"{url} needs fsspec, which is not installed: {_WITHOUT}"
            raise ImportError(msg) from error
        try:
            self._system, path = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            msg = f"{url} needs a package for {protocol}, which is not installed: {_WITHOUT} has that for s3; {error}"
            raise ImportError(msg) from error
        except ValueError as error:
            msg = f"{url} is no address that fsspec knows, like s3://bucket/folder: {error}"
            raise ConfigValueError(msg) from error
        except TypeError as error:
            msg = f"{protocol} does not know an option: {error}"
            raise ConfigValueError(msg) from error
        self._url = url
        self._base = path.rstrip("/")

    def __str__(self) -> str:
        return self._url

    @property
    def address(self) -> str:
        """Its URL."""
        return self._url

    def sizes(self) -> dict[str, int]:
        """All files that there are, with their bytes."""
        with self._errors("read", _READ):
            self._system.invalidate_cache()
            try:
                found = self._system.find(self._base, detail=True)
            except FileNotFoundError:
                if not self._system.exists(self._base.partition("/")[0]):  # of an object store, the bucket
                    raise
                return {}
        return {path[len(self._base) + 1 :]: info["size"] or 0 for path, info in found.items()}

    def get(self, names: Sequence[str], folder: str) -> None:
        """Fetch files into a folder, several at once; those that are gone are left out."""
        for parent in {os.path.dirname(f"{folder}/{name}") for name in names}:
            os.makedirs(parent, exist_ok=True)
        with self._errors("read", _READ):
            try:
                self._get(names, folder)
            except FileNotFoundError:
                for name in names:
                    try:
                        self._get([name], folder)
                    except FileNotFoundError:
                        files.remove(f"{folder}/{name}")

    def _get(self, names: Sequence[str], folder: str) -> None:
        if names:
            self._system.get([f"{self._base}/{name}" for name in names], [f"{folder}/{name}" for name in names])

    def put(self, paths: Mapping[str, str]) -> None:
        """Send files, several at once."""
        if paths:
            with self._errors("write", _WRITTEN):
                self._system.put(list(paths.values()), [f"{self._base}/{name}" for name in paths])

    def sweep(self, names: Iterable[str]) -> None:
        """Nothing: what was not sent as a whole is not to be seen."""

    @contextmanager
    def _errors(self, what: str, hint: str) -> Iterator[None]:
        """A block in which errors, which are of many classes, are about the place."""
        try:
            yield
        except Exception as error:
            number = getattr(error, "errno", None) or errno.EIO
            msg = f"can't {what} {self._url}: {type(error).__name__}: {error}. {hint}"
            raise TransferError(number, msg) from error


def place_at(url: str, options: Mapping[str, Any], permissions: int | None = None) -> Folder | Remote:
    """The place with an address: a path, or a URL; ``permissions`` are for new files of a folder.

    Raises
    ------
    ImportError
        A package is missing that it needs.
    ConfigValueError
        It is no address, or an option is not known there.
    """
    path = url.removeprefix("file://")
    typo = re.match(r"([a-z][a-z0-9+.-]*):/*(?=[^/])", path)
    if typo and "://" not in path:
        meant = f"{typo[1]}://{path[typo.end() :]}"
        msg = f"{url} is no address: did you mean {meant}? If it is a folder, write ./{url}"
        raise ConfigValueError(msg)
    if "://" in path:
        if permissions is not None:
            msg = f"{url} is no folder, so that permissions mean nothing there: say with options who may read, if it has some"
            raise ConfigValueError(msg)
        return Remote(url, options)
    if options:
        msg = f"{url} is a folder, which has no options: {', '.join(options)}"
        raise ConfigValueError(msg)
    return Folder(os.path.abspath(os.path.expanduser(path)), permissions)
