"""What a handler is given: the key, the folder, and the ways to store and to find data."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import orjson

from exca_like import files
from exca_like.cachedict import blocks, registry
from exca_like.cachedict.blocks import Buffer, Check
from exca_like.cachedict.journal import INFO, JournalFile
from exca_like.cachedict.lines import seal
from exca_like.cachedict.writer import DATA, Writer
from exca_like.errors import (
    CacheFolderError,
    ConfigTypeError,
    ConfigValueError,
    CorruptEntryError,
    ExcaLikeError,
    PickleRefusedError,
    ResultLoadError,
)
from exca_like.sources import variable

AllowPickle = Literal["own", "always", "never"]
FORMAT = 1
_DUMPERS = registry.DUMPERS
_MALFORMED = "its line does not say where its data are"
_READABLE = re.compile(r"[^A-Za-z0-9_.+=,-]+")
_MARKS = ("#key", "#type", "#data", "#meta", "#sum", "#v", "#writer", "#replaces")


class DumpContext:
    """Stores and loads values for handlers.

    Parameters
    ----------
    folder:
        Folder of the entries.
    key:
        Key of the entry.
    """

    __slots__ = (
        "_allow_pickle",
        "_check",
        "_has_data",
        "_journal",
        "_names",
        "_sealed",
        "_streams",
        "_undo",
        "_writer",
        "folder_path",
        "key",
        "spans",
        "writer_name",
    )

    HANDLERS: ClassVar[dict[str, Any]] = registry.HANDLERS
    TYPE_DEFAULTS: ClassVar[dict[type, Any]] = registry.TYPE_DEFAULTS

    def __init__(self, folder: str | Path, *, key: str = "", writer: Writer | None = None) -> None:
        self.folder_path = os.fspath(folder)
        self.key = key
        self.spans: list[list[Any]] = []  # name, offset, length and checksums of the entry's data
        self.writer_name = ""
        self._allow_pickle: AllowPickle = "own"
        self._check: Check = "full"
        self._journal = ""
        self._writer = writer
        self._has_data = False  # whether any of these is not empty
        self._names: list[str] = []
        self._sealed: set[str] = set()  # those of the names whose modes stay as they are
        self._streams: dict[str, Any] = {}
        self._undo: list[Callable[[], None]] = []

    @classmethod
    def for_loading(
        cls,
        folder: str,
        key: str,
        spans: Sequence[list[Any]],
        writer_name: str,
        allow_pickle: AllowPickle,
        check: Check,
        journal: str = "",
    ) -> "DumpContext":
        """The context of an entry that is stored in a journal."""
        self = object.__new__(cls)  # once for each entry that is read
        self.folder_path = folder
        self.key = key
        self.spans = spans  # type: ignore[assignment]
        self.writer_name = writer_name
        self._allow_pickle = allow_pickle
        self._check = check
        self._journal = journal
        return self

    @classmethod
    def register(cls, target: Any = None, *, default_for: type | None = None) -> Any:
        """Make a handler known, as a decorator, with or without arguments.

        Parameters
        ----------
        target:
            A class with a classmethod ``__dump_info__(cls, ctx, value)``, which stores a value and returns what is needed to
            find it again, as a dictionary of JSON data; and a classmethod ``__load_from_info__(cls, ctx, **info)``, which
            returns the value. If ``__dump_info__(self, ctx)`` is an ordinary method, the class's instances are the values.
            If it is an ordinary method with a value, ``__dump_info__(self, ctx, value)``, instances are handlers with
            options, to be given as ``cache_type``.
            A classmethod ``__delete_info__(cls, ctx, **info)`` is called when an entry is deleted; what was stored by means
            of the context goes by itself.
        default_for:
            Type of values that the handler stores unless another one is asked for.

        Raises
        ------
        ValueError
            There is another handler with the name of the class, or a method is missing.
        """
        if target is None:
            return lambda handler: cls.register(handler, default_for=default_for)
        registry.register(target, default_for)
        return target

    # storing

    @property
    def folder(self) -> Path:
        """Folder of the entries; names of files are relative to it."""
        return Path(self.folder_path)

    @property
    def writer(self) -> Writer:
        """What appends to the folder."""
        if self._writer is None:
            self._writer = Writer(self.folder_path)
        self._writer.ready(INFO)
        self.writer_name = self._writer.name
        self._has_data = True
        return self._writer

    def dump(self, value: Any, *, cache_type: Any = None) -> dict[str, Any]:
        """Store a value; returns what `load` needs, as JSON data. What ``cache_type`` can be: see `CacheDict`."""
        kind = type(value)
        if cache_type is None:
            name, dump = registry.DUMPERS.get(kind) or registry.dumper_for(kind)
        else:
            name, dump = registry.dumper_chosen(cache_type)
        info: dict[str, Any] = dump(self, value)
        if "#type" not in info:
            info["#type"] = name
        return info

    def dump_entry(
        self,
        key: str,
        value: Any,
        cache_type: Any = None,
        meta: Any = None,
        replaced: list[tuple[str, int]] | None = None,
    ) -> bytes:
        """Store a value; returns the entry's line."""
        self.key = key
        if self._has_data:  # of the entry before
            self._has_data, self.spans, self._names, self._streams = False, [], [], {}
            self._sealed, self._undo = set(), []
        try:
            if cache_type is None:  # as in `dump`, without another call
                kind = type(value)
                name, dump = _DUMPERS.get(kind) or registry.dumper_for(kind)
            else:
                name, dump = registry.dumper_chosen(cache_type)
            info = {"#key": key, "#type": name, **dump(self, value)}
            if self._has_data:
                self._note_files()
                if self.spans:
                    info["#data"] = self.spans
            if meta is not None:
                info["#meta"] = meta
            try:
                return seal({"#replaces": replaced, **info} if replaced else info)
            except orjson.JSONEncodeError as error:
                msg = f"the entry {key!r} has a key, or its handler returned information, that is no JSON data: {error}"
                raise ConfigTypeError(msg) from error
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ExcaLikeError):
                msg = (
                    f"can't store the entry {key!r} in {self.folder_path}: {error}. Check the space left and the permissions; "
                    "earlier entries are untouched, and writing goes on once it is possible."
                )
                raise CacheFolderError(error.errno, msg) from error
            raise

    def key_path(self, suffix: str = "") -> str:
        """A new name for a file of this entry, relative to `folder`; its folder exists.

        What is written there is part of the entry: its length and checksums are stored with it.
        """
        digest = hashlib.blake2b(self.key.encode("utf-8", "surrogatepass"), digest_size=1).hexdigest()
        readable = _READABLE.sub("-", self.key)[:40].strip("-.") or "entry"
        name = self.writer.new_name(digest, readable, suffix)
        self._names.append(name)
        return name

    def adopt(self, name: str, *, sealed: bool = False) -> None:
        """Make a file part of this entry that a library wrote beside one of `key_path`, under a name of its own.

        The mode of a ``sealed`` one stays as the handler made it.
        """
        self._names.append(name)
        if sealed:
            self._sealed.add(name)

    def if_discarded(self, undo: Callable[[], None]) -> None:
        """Have something undone if the entry is not to be, after its files were removed."""
        self._undo.append(undo)

    @property
    def extent(self) -> int:
        """Grows when anything of the entry is stored outside of its line."""
        return len(self.spans) + len(self._names) + len(self._streams)

    def shared_file(self, suffix: str) -> tuple[Any, str]:
        """The writer's file of a suffix, to append to, and its name, relative to `folder`.

        What is appended is part of the entry: its length and checksums are stored with it.
        """
        writer = self.writer
        known = self._streams.get(suffix)
        if known is None:
            known = self._streams[suffix] = writer.stream(suffix)
        stream: tuple[Any, str] = known
        return stream

    def append(self, suffix: str, data: Buffer) -> dict[str, Any]:
        """Append bytes to the writer's packed file of a suffix; returns ``filename``, ``offset`` and ``length``.

        The name is short for ``data/<writer><suffix>``; `path` and `view` understand it.
        """
        if type(data) is memoryview:
            data = data.cast("B")  # whose length is in bytes
        length = len(data)
        if suffix in self._streams:
            self._note_stream(suffix)
        offset = self.writer.append(suffix, data)
        self.spans.append([suffix, offset, length, blocks.sums_of(data)])
        return {"filename": suffix, "offset": offset, "length": length}

    def discard(self) -> None:
        """Remove the files of an entry that is not to be."""
        for suffix, (stream, _) in self._streams.items():
            stream.flush()
            self.writer.adopt(suffix)  # what is there is nobody's
        for name in self._names:
            files.remove(f"{self.folder_path}/{name}")
        for undo in self._undo:
            undo()
        self._names, self._streams, self._undo = [], {}, []

    def _note_stream(self, suffix: str) -> None:
        stream, name = self._streams[suffix]
        stream.flush()
        offset, length = self.writer.adopt(suffix)
        if length:
            sums = blocks.sums_of_file(f"{self.folder_path}/{name}", offset, length)[1]
            self.spans.append([suffix if suffix.startswith(".") else name, offset, length, sums])

    def _note_files(self) -> None:
        for suffix in self._streams:
            self._note_stream(suffix)
        for name in self._names:
            path = f"{self.folder_path}/{name}"
            if os.path.exists(path):
                if name not in self._sealed:
                    files.permit(path, self.writer.permissions)
                self.spans.append([name, 0, *blocks.sums_of_file(path)])
                if self.writer.fsync:
                    files.sync(path)

    # loading

    def load(self, info: dict[str, Any]) -> Any:
        """The value that `dump` stored."""
        load, _ = registry.LOADERS.get(info["#type"]) or registry.loader_of(info["#type"])
        return load(self, **{name: part for name, part in info.items() if name not in _MARKS})

    def path(self, name: str) -> str:
        """Absolute path of a file by its name in an info.

        Raises
        ------
        CorruptEntryError
            The name leads out of the folder.
        """
        if name[:1] == ".":
            if "/" not in name and "/" not in self.writer_name:
                return f"{self.folder_path}/{DATA}/{self.writer_name}{name}"
        elif name[:1] != "/" and ".." not in name.split("/"):
            return f"{self.folder_path}/{name}"
        msg = f"an entry of {self.folder_path} names the file {name!r}, outside of its folder"
        raise CorruptEntryError(msg)

    def view(self, filename: str, offset: int = 0, length: int | None = None) -> memoryview:
        """Stored bytes, without a copy; they were checked before."""
        path = self.path(filename)
        return blocks.view_of(path, offset, os.path.getsize(path) - offset if length is None else length)

    def sums(self, filename: str, offset: int, length: int) -> str:
        """Checksums of a span of this entry; empty if it has none, as in folders of exca."""
        return next((s for name, start, size, s in self.spans if (name, start, size) == (filename, offset, length)), "")

    def check_spans(self) -> None:
        """Check the entry's data, as its size asks for.

        Raises
        ------
        CorruptEntryError
            It is not what was stored.
        """
        try:
            for name, offset, length, sums in self.spans:
                if length:
                    blocks.check(self.path(name), offset, length, sums, self._check, fresh=name[:1] != ".")
        except (TypeError, ValueError) as error:
            raise CorruptEntryError(_MALFORMED) from error

    def check_all(self) -> None:
        """Check every byte of the entry's data, as it is now.

        Raises
        ------
        CorruptEntryError
            It is not what was stored.
        """
        try:
            for name, offset, length, sums in self.spans:
                blocks.check_all(self.path(name), offset, length, sums)
        except (TypeError, ValueError) as error:
            raise CorruptEntryError(_MALFORMED) from error

    def unpickle(self, data: Any, path: str, loads: Callable[[Any], Any]) -> Any:
        """Load a pickle, if its file may hold one.

        Raises
        ------
        PickleRefusedError
            Pickles of this file are not loaded: they can run any code.
        """
        # whoever owns the journal says which bytes are a pickle
        owners = [(path, blocks.owner_of(path)), *([(self._journal, os.stat(self._journal).st_uid)] if self._journal else ())]
        refusals = [(name, why) for name, owner in owners if (why := why_refused(owner, self._allow_pickle)) is not None]
        if not refusals:
            return loads(data)
        where, refusal = refusals[0]
        msg = (
            f"{where} holds a pickle, which can run any code when it is loaded, and {refusal}. If you trust it, "
            "use allow_pickle='always' (or EXCA_LIKE_ALLOW_PICKLE=always in the environment)."
        )
        raise PickleRefusedError(msg)


def load_entry(folder: str, key: str, file: JournalFile, info: dict[str, Any], allow_pickle: AllowPickle, check: Check) -> Any:
    """The value of an entry, from the content of its line, which is used up; what `DumpContext.dump_entry` stored.

    Raises
    ------
    CorruptEntryError, FileNotFoundError
        It is not what was stored.
    ResultLoadError
        It is, but can't be loaded in this process.
    """
    take = info.pop
    name = take("#type", None) or file.cache_type
    if name is None or take("#key") != key:
        msg = "its line is not one of an entry with this key"
        raise CorruptEntryError(msg)
    # of packed data files, unless they were left in place; asking first is cheaper, as most entries have no such marks
    owner = take("#writer") if "#writer" in info else file.writer
    spans = take("#data") if "#data" in info else ()
    context = DumpContext.for_loading(folder, key, spans, owner, allow_pickle, check, file.path)
    load, checks_itself = registry.LOADERS.get(name) or registry.loader_of(name)
    if "#v" in info and take("#v") != FORMAT:
        msg = f"the entry {key!r} of {file.path} has a newer format than this version of exca_like reads: update it"
        raise ResultLoadError(msg)
    info.pop("#meta", None)
    info.pop("#replaces", None)
    take("#sum", None)
    if spans and not checks_itself:
        context.check_spans()
    try:
        return load(context, **info)
    except (ExcaLikeError, FileNotFoundError):
        raise
    except Exception as error:
        context.check_all()  # it may have changed since it was checked
        # the bytes are what was stored: something is missing here
        msg = (
            f"the entry {key!r} of {folder} can't be loaded here: {type(error).__name__}: {error}. Make what "
            "it needs importable in this process; or compute it again."
        )
        raise ResultLoadError(msg) from error


def why_refused(owner: int, allow: AllowPickle) -> str | None:
    """Why pickles in a file of a user are not loaded; None if they are."""
    if allow == "never":
        return "allow_pickle is 'never'"
    if allow == "own" and owner not in (0, os.geteuid()):
        return f"the file belongs to user {owner}, not to you"
    return None


def allowed_pickles(setting: str) -> AllowPickle:
    """A setting of ``allow_pickle``, where the environment may replace the default."""
    if setting == "own":
        setting = variable(b"EXCA_LIKE_ALLOW_PICKLE") or "own"
    if setting not in ("own", "always", "never"):
        msg = f"allow_pickle={setting!r} must be 'own', 'always' or 'never'"
        raise ConfigValueError(msg)
    return setting  # type: ignore[return-value]
