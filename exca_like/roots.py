"""What is a cache root, and what is only a part of one, or above some: entries found from there would have other names.

A root has folders of methods, or records of provenance in it: functions may have their results in folders of any name, below
others too. The folder of a config, with several fields, may look like that of a method.
"""

import contextlib
import errno
import os
import posixpath
import re
from collections.abc import Collection, Sequence

from exca_like import layout
from exca_like.cachedict.journal import JOURNALS
from exca_like.cachedict.writer import DATA
from exca_like.errors import CacheRootError
from exca_like.layout import METHOD_FOLDER

_SHOWN = 5
_RECORD = re.compile(r"(code-)?[0-9a-f]+\.json")
_OF_ROOT = (layout.PROVENANCE, "logs", "code")


def is_root(place: str) -> bool:
    """Whether a folder looks like a cache root."""
    with contextlib.suppress(OSError), os.scandir(place) as found:
        for one in found:
            if METHOD_FOLDER.fullmatch(one.name) and one.is_dir():
                return True
            if one.name == layout.PROVENANCE and any(map(_RECORD.fullmatch, _names(one.path))):
                return True
    return False


def check_root(place: str) -> None:
    """Raise for a folder in a cache root, and for one that is none, but has some in it.

    Raises
    ------
    CacheRootError
        It is such a folder; the message names the root.
    """
    check_is_no_part(place)
    if os.path.isdir(place) and not is_root(place):
        _refuse(place, sorted(path for path in _folders(place) if os.path.basename(path)[0] != "." and is_root(path)))


def check_is_no_part(place: str) -> None:
    """Raise for the folder of a method or of an entry in a cache root, be it there or not: who asks would not look there.

    Raises
    ------
    CacheRootError
        It is such a folder; the message names the root.
    """
    whole = layout.absolute(place)
    for one in (whole, os.path.dirname(whole)):
        if _is_of_method(one):
            raise _part(place, os.path.dirname(one))


def check_files(names: Collection[str], place: str, address: str | None) -> None:
    """Raise if files are none of a cache root, but of a part of one, or of a folder that has some in it.

    Parameters
    ----------
    names:
        Of all files below the place.
    place:
        What messages call it.
    address:
        Its path or URL, of which the end tells what it is; None for a file, which holds a root.

    Raises
    ------
    CacheRootError
        They are such files.
    """
    if any(map(_is_in_root, names)):
        return
    method, _, name = (address or "").rstrip("/").rpartition("/")
    if METHOD_FOLDER.fullmatch(name) and any(_is_of_entry(one) for one in names if one.count("/") < 2):
        raise _part(place, method)
    if METHOD_FOLDER.fullmatch(posixpath.basename(method)) and layout.UID in names:
        raise _part(place, posixpath.dirname(method))
    roots = sorted({root for one in names if one.endswith(JOURNALS) and (root := _root_of(one.split("/")[:-1]))})
    if address is None and roots:
        msg = f"{place} holds no cache root, but a folder with one, {roots[0]}: unzip it, and pull from that folder"
        raise CacheRootError(errno.EINVAL, msg)
    _refuse(place, [f"{place.rstrip('/')}/{root}" for root in roots])


def _part(place: str, root: str) -> CacheRootError:
    return CacheRootError(errno.EINVAL, f"{place} is a folder in the cache, and not its root: give {root}")


def _refuse(place: str, roots: Sequence[str]) -> None:
    """Raise if there are cache roots in a folder that is none."""
    if roots:
        what = "a cache: give that" if len(roots) == 1 else "several caches: give one of them"
        msg = f"{place} is no cache root, but holds {what}, {', '.join(roots[:_SHOWN])}"
        raise CacheRootError(errno.EINVAL, msg)


def _is_of_method(place: str) -> bool:
    """Whether a folder is that of a method in a cache root, by what is in it and, as it may not be there yet, beside it."""
    if not METHOD_FOLDER.fullmatch(os.path.basename(place)) or is_root(place):  # a root may have such a name
        return False
    others = (path for path in _folders(os.path.dirname(place)) if METHOD_FOLDER.fullmatch(os.path.basename(path)))
    return _has_entries(place) or any(_has_entries(other) and not is_root(other) for other in others)


def _has_entries(method: str) -> bool:
    """Whether a folder has configs in it, or calls of a function."""
    return any(any(map(_is_of_entry, _names(path))) for path in (method, *_folders(method)))


def _is_of_entry(name: str) -> bool:
    """Whether a file says of which config or function a folder has results: a `CacheDict` of any name has no such file."""
    return posixpath.basename(name) == layout.UID


def _is_in_root(name: str) -> bool:
    """Whether a file, named from a folder on, tells that this is a cache root."""
    top, _, below = name.partition("/")
    return bool(below and (METHOD_FOLDER.fullmatch(top) or (top == layout.PROVENANCE and _RECORD.fullmatch(below))))


def _root_of(folders: Sequence[str]) -> str | None:
    """The folder above that of a method, if there is one on the way to a journal; copies of code and files hold none."""
    if folders[:1] and folders[0] in _OF_ROOT:
        return None
    for number, name in enumerate(folders):
        if name == DATA:
            return None
        if METHOD_FOLDER.fullmatch(name):
            return "/".join(folders[:number])
    return None


def _names(place: str) -> Sequence[str]:
    with contextlib.suppress(OSError):
        return os.listdir(place)
    return ()


def _folders(place: str) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(place) as found:
        return [one.path for one in found if one.is_dir()]
    return []
