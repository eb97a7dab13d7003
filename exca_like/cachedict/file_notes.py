"""Notes beside files: what a value was stored as, where it comes from, and what its files were like."""

import datetime
import hashlib
import os
import sys
from typing import Any

import orjson

from exca_like import files
from exca_like.errors import CorruptEntryError, ResultLoadError

_FORMAT = 1
_LIBRARIES = ("exca_like", "numpy", "pandas", "pyarrow", "torch", "nibabel", "mne")


def described(info: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """A note on what a handler stored now, here; ``extra`` is the user's."""
    return {
        "format": _FORMAT,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": os.uname().nodename,
        "python": sys.version.partition(" ")[0],
        "libraries": {name: str(sys.modules[name].__version__) for name in _LIBRARIES if name in sys.modules},
        "cache_type": info["#type"],
        "extra": extra,
    }


def read_note(path: str, *, strict: bool = True) -> dict[str, Any] | None:
    """The content of a note; None if there is none, or if it is not ``strict`` none that can be read.

    Raises
    ------
    CorruptEntryError, ResultLoadError
        It is damaged, or of a newer format.
    """
    try:
        note = orjson.loads(files.read_bytes(path))
        if note["format"] == _FORMAT:
            return {**note, "files": dict(note["files"]), "info": dict(note["info"])}
        msg = f"{path} has a format that this version of exca_like does not read: update it"
        error: Exception = ResultLoadError(msg)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as cause:
        msg = f"{path} is damaged ({cause}): save the file again, or remove the note to load the file as it is"
        error = CorruptEntryError(msg)
    if strict:
        raise error
    return None


def state_of(path: str) -> dict[str, Any]:
    """Size and checksum of a file."""
    with open(path, "rb") as stream:
        return {"size": os.fstat(stream.fileno()).st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
