"""One file of a user's choice, saved and loaded by handlers, without a `CacheDict`.

What a handler returns is kept in a readable note beside the file, with sizes, checksums, and where the file came from.
"""

import errno
import os
import time
from pathlib import Path
from typing import Any

import orjson

from exca_like import files, layout
from exca_like.cachedict import blocks, registry
from exca_like.cachedict.context import AllowPickle, allowed_pickles
from exca_like.cachedict.file_context import FileContext
from exca_like.cachedict.file_notes import described, read_note, state_of
from exca_like.errors import (
    CacheFolderError,
    ConfigTypeError,
    ConfigValueError,
    CorruptEntryError,
    ExcaLikeError,
    MissingFileError,
    ResultLoadError,
)

_BY_SUFFIX = {
    ".json": "Json",
    ".npy": "NumpyArray",
    ".csv": "PandasDataFrame",
    ".parquet": "ParquetPandasDataFrame",
    ".pkl": "Pickle",
    ".pickle": "Pickle",
    ".txt": "String",
    ".ipynb": "Notebook",
}
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_SAVING_S = 0.05  # seconds in which another process that is saving the file gets from its data to its note


class FileEntry:
    """A file that is saved and loaded by a handler, with a note ``<name>.meta.json`` beside it.

    Parameters
    ----------
    path:
        The file. What a handler writes beside a first file goes to the folder ``<name>.parts``.
    cache_type:
        What stores the value, as for a `CacheDict`. None: the suffix says it: ``.json``, ``.npy``, ``.csv``, ``.parquet``,
        ``.pkl``, ``.txt`` or ``.ipynb``, each a plain file of that format.
    metadata:
        JSON data to keep in the note.
    allow_pickle:
        Which pickles are loaded, as for a `CacheDict`.

    Raises
    ------
    ValueError
        There is no handler of that name, or none for the suffix.
    TypeError
        The metadata are no JSON data.

    Examples
    --------
    >>> import tempfile
    >>> entry = FileEntry(tempfile.mkdtemp() + "/metrics.json", metadata={"epochs": 3})
    >>> entry.save({"loss": 0.5}).name
    'metrics.json'
    >>> FileEntry(entry.path).load(), FileEntry(entry.path).metadata["extra"]
    ({'loss': 0.5}, {'epochs': 3})
    """

    def __init__(
        self,
        path: str | Path,
        cache_type: Any = None,
        metadata: dict[str, Any] | None = None,
        *,
        allow_pickle: AllowPickle = "own",
    ) -> None:
        self.path = Path(layout.absolute(path))
        self.cache_type = registry.checked_choice(cache_type)
        self._extra = metadata or {}
        self._pickles: AllowPickle = allowed_pickles(allow_pickle)
        try:
            orjson.dumps(self._extra)
        except TypeError as error:
            msg = f"metadata must be JSON data: {error}"
            raise ConfigTypeError(msg) from error

    @property
    def note(self) -> Path:
        """The file with what is kept about the value."""
        return self.path.with_name(f"{self.path.name}.meta.json")

    @property
    def metadata(self) -> dict[str, Any]:
        """What was kept when the file was saved; empty if there is no note.

        ``time``, ``host``, versions of ``python`` and of ``libraries``, ``cache_type``, and in ``extra`` what was given.
        """
        note = read_note(str(self.note)) or {}
        return {name: part for name, part in note.items() if name not in ("format", "files", "info")}

    def save(self, value: Any) -> Path:
        """Write the file and its note, in place of older ones; returns the path.

        Raises
        ------
        TypeError
            The value would not come back as it is.
        CacheFolderError
            The files can't be written; what was there is as it was.
        """
        folder, name = os.path.split(self.path)
        token = files.token()
        temporary = f"{folder}/{files.TEMPORARY_PREFIX}{token}"
        older = read_note(str(self.note), strict=False) or {}
        try:
            os.makedirs(temporary)
            context = FileContext(temporary, name, f"{name}.parts/{token}")
            info = self._dump(context, value)
            context.close()
            written = sorted(set(context.names) | {name}, key=name.__eq__)  # the file itself comes last
            states = {part: state_of(f"{temporary}/{part}") for part in written}
            note = described(info, self._extra) | {"files": states, "info": info}
            files.write_new(f"{temporary}/{self.note.name}", orjson.dumps(note, option=_PRETTY))
            for part in (*written, self.note.name):
                os.makedirs(os.path.dirname(f"{folder}/{part}"), exist_ok=True)
                os.replace(f"{temporary}/{part}", f"{folder}/{part}")
            for part in older.get("files", {}).keys() - set(written):
                files.remove(f"{folder}/{part}")
                if "/" in part:
                    _remove_empty(os.path.dirname(f"{folder}/{part}"), folder)
        except OSError as error:
            if isinstance(error, ExcaLikeError):
                raise
            msg = f"can't save {self.path}: {error.strerror or error}. Check the space left and the permissions."
            raise CacheFolderError(error.errno, msg) from error
        finally:
            import shutil  # keeps the import of the store light

            shutil.rmtree(temporary, ignore_errors=True)
        return self.path

    def load(self) -> Any:
        """The value. A file without a note is read as its suffix, or a ``cache_type`` that is a name, says.

        Raises
        ------
        MissingFileError
            There is no such file.
        CorruptEntryError
            It is not what was saved.
        PickleRefusedError
            It is a pickle of somebody who is not trusted.
        ResultLoadError
            It can't be loaded in this process.
        """
        note = read_note(str(self.note))
        try:
            return self._load(note)
        except (CorruptEntryError, MissingFileError):
            time.sleep(_SAVING_S)
            if (newer := read_note(str(self.note))) == note:
                raise
            return self._load(newer)

    def _load(self, note: dict[str, Any] | None) -> Any:
        folder, name = os.path.split(self.path)
        context = FileContext(folder, name, allow_pickle=self._pickles, note="" if note is None else str(self.note))
        if note is not None:
            for part, state in note["files"].items():
                self._check(context.path(part), state)
            info = note["info"]
        elif not self.path.is_file():
            msg = f"there is no file {self.path}: save it first"
            raise MissingFileError(errno.ENOENT, msg)
        else:
            blocks.renew(str(self.path))
            info = {"#type": self.cache_type if isinstance(self.cache_type, str) else self._of_suffix(), "filename": name}
            if info["#type"] == "Json":
                info |= {"offset": 0, "length": None}
        try:
            if note is None and info["#type"] == "PandasDataFrame":
                import pandas as pd  # a file of others has no column for the index

                return pd.read_csv(self.path)
            return context.load(info)
        except ExcaLikeError:
            raise
        except Exception as error:
            msg = f"can't load {self.path} as {info['#type']}: {type(error).__name__}: {error}"
            raise ResultLoadError(msg) from error

    def _check(self, path: str, state: dict[str, Any]) -> None:
        blocks.renew(path)
        try:
            found = state_of(path)
        except FileNotFoundError as error:
            msg = f"{path} is missing, though {self.note} says that it was saved: save it again"
            raise MissingFileError(errno.ENOENT, msg) from error
        if found != state:
            msg = (
                f"{path} is not what was saved ({found['size']} bytes with the SHA-256 {found['sha256'][:8]}..., not "
                f"{state['size']} with {state['sha256'][:8]}...): it was changed or damaged. Save it again, or remove "
                f"{self.note} to load it as it is."
            )
            raise CorruptEntryError(msg)

    def _dump(self, context: FileContext, value: Any) -> dict[str, Any]:
        info = context.dump(value, cache_type=self._of_suffix() if self.cache_type is None else self.cache_type)
        main = f"{context.folder_path}/{self.path.name}"
        if info["#type"] == "Json":  # as people like to read it
            Path(main).write_bytes(orjson.dumps(value, option=_PRETTY))
            return {"#type": "Json", "filename": self.path.name, "offset": 0, "length": None}
        if self.cache_type is None and info.get("filename") != self.path.name:
            msg = (
                f"the value would not come back from a {self.path.suffix} file as it is: choose a cache_type, such as "
                "'Auto', or for tables 'DataFrameParts'"
            )
            raise ConfigTypeError(msg)
        if not os.path.exists(main):
            Path(main).write_bytes(orjson.dumps(info, option=_PRETTY))
        return info

    def _of_suffix(self) -> str:
        try:
            return _BY_SUFFIX[self.path.suffix.lower()]
        except KeyError:
            msg = f"{self.path} has no suffix that says its format ({', '.join(_BY_SUFFIX)}): give a cache_type"
            raise ConfigValueError(msg) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, cache_type={self.cache_type!r})"


def _remove_empty(path: str, below: str) -> None:
    while path != below:
        try:
            os.rmdir(path)
        except OSError:  # there is more in it
            return
        path = os.path.dirname(path)
