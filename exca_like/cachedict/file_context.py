"""What a handler is given that stores in one file of a user's choice."""

import os
from typing import Any

from exca_like.cachedict.context import AllowPickle, DumpContext
from exca_like.errors import ConfigTypeError, CorruptEntryError


class FileContext(DumpContext):
    """Lets a handler write to one file; those after the first one go to a folder of parts."""

    __slots__ = ("_main", "_packed", "_parts", "_size", "names")

    def __init__(self, folder: str, main: str, parts: str = "", *, allow_pickle: AllowPickle = "own", note: str = "") -> None:
        super().__init__(folder)
        self._allow_pickle = allow_pickle
        self._journal = note  # whose owner counts, too, for pickles
        self._main = main
        self._parts = parts
        self._packed: dict[str, Any] = {}  # open files, by suffix
        self._size = 0
        self.names: list[str] = []

    @property
    def writer(self) -> Any:
        msg = "this handler stores only in a CacheDict: choose another cache_type for a single file"
        raise ConfigTypeError(msg)

    @property
    def extent(self) -> int:
        return len(self.names) + self._size

    def key_path(self, suffix: str = "") -> str:
        name = self._main
        if self.names:
            name = f"{self._parts}/{len(self.names)}{suffix}"
            os.makedirs(f"{self.folder_path}/{self._parts}", exist_ok=True)
        self.names.append(name)
        return name

    def adopt(self, name: str, *, sealed: bool = False) -> None:  # noqa: ARG002 - modes stay as they are anyway
        self.names.append(name)

    def shared_file(self, suffix: str) -> tuple[Any, str]:
        if suffix not in self._packed:
            name = self.key_path(suffix)
            self._packed[suffix] = open(f"{self.folder_path}/{name}", "wb"), name  # noqa: SIM115 - see `close`
        found: tuple[Any, str] = self._packed[suffix]
        return found

    def append(self, suffix: str, data: Any) -> dict[str, Any]:
        stream, name = self.shared_file(suffix)
        offset = stream.tell()
        stream.write(data)
        self._size += stream.tell() - offset
        return {"filename": name, "offset": offset, "length": stream.tell() - offset}

    def close(self) -> None:
        """Close the files."""
        for stream, _ in self._packed.values():
            stream.close()

    def path(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):
            msg = f"the note of {self._main} names the file {name!r}, outside of its folder"
            raise CorruptEntryError(msg)
        return f"{self.folder_path}/{name}"
