"""Records that many results share, each kept once in the infra's folder, under a name that is made from its content."""

import hashlib
import os
from typing import Any

import orjson

from exca_like import files, layout

_DIGEST_BYTES = 8


class Records:
    """JSON data in ``provenance/`` of an infra's folder.

    Who stores a result keeps what is the same for thousands of them here, and stores its digest beside the result.

    Parameters
    ----------
    root:
        The infra's folder, as an absolute path.
    permissions:
        Mode of new files; None: as the umask says.
    """

    def __init__(self, root: str, permissions: int | None = None) -> None:
        self._root = root
        self._folder = layout.provenance_folder(root)
        self._permissions = permissions

    def keep(self, data: dict[str, Any]) -> str:
        """Write a record, unless it is there; returns its digest, 16 hex digits.

        Raises
        ------
        OSError
            It can't be written.
        TypeError
            It is no JSON data.
        """
        text = canonical(data)
        digest = digest_of(text)
        self.keep_text(digest, text)
        return digest

    def keep_text(self, digest: str, text: bytes) -> None:
        """Write a record whose text and digest are known already, unless it is there.

        Raises
        ------
        OSError
            It can't be written.
        """
        path = self._path(digest)
        if os.path.exists(path):
            return
        try:
            files.write_atomic(path, text, self._permissions)
        except FileNotFoundError:
            files.make_folders(self._folder, self._permissions, above=self._root)
            files.write_atomic(path, text, self._permissions)

    def read(self, digest: str) -> dict[str, Any] | None:
        """A record; None if there is none, or if it is not what was written."""
        try:
            text = files.read_bytes(self._path(digest))
        except OSError:
            return None
        if digest_of(text) != digest:
            return None
        data: dict[str, Any] = orjson.loads(text)
        return data

    def _path(self, digest: str) -> str:
        return f"{self._folder}/{digest}.json"


def canonical(data: dict[str, Any]) -> bytes:
    """The text of a record: JSON with sorted keys."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def digest_of(text: bytes) -> str:
    """The name of a record by its text."""
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()
