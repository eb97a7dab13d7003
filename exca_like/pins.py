"""What is pinned in a folder: never removed to free space.

The file ``pinned`` in it says so: all of the folder, or if it holds keys, one JSON text a line, what is stored by these. It is
written anew under the lock of the folder's claims, which who removes something has, too.
"""

from typing import NamedTuple

import orjson

from exca_like import files, layout


class Pinned(NamedTuple):
    """What is pinned in a folder."""

    keys: frozenset[str] = frozenset()
    is_whole: bool = False


NOTHING = Pinned()
WHOLE = Pinned(is_whole=True)


def read(folder: str) -> Pinned:
    """What is pinned in a folder; all of it, if the file holds anything but keys: it may have been made by hand."""
    try:
        lines = files.read_bytes(f"{folder}/{layout.PIN}").splitlines()
    except FileNotFoundError:
        return NOTHING
    except OSError:  # to be safe
        return WHOLE
    try:
        keys = [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        return WHOLE
    return Pinned(frozenset(keys)) if keys and all(isinstance(key, str) for key in keys) else WHOLE


def write(folder: str, pinned: Pinned) -> None:
    """Have something pinned in a folder, and nothing else."""
    path = f"{folder}/{layout.PIN}"
    if not pinned.is_whole and not pinned.keys:
        files.remove(path)
    else:
        files.write_atomic(path, b"".join(orjson.dumps(key) + b"\n" for key in sorted(pinned.keys)), files.mode_in(folder))
