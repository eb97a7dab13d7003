"""Upkeep of a cache root: folders of exca get the names that this package looks for."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exca_like.confdict import ConfDict
from exca_like.errors import CacheFolderError, ConfigTypeError, ConfigValueError
from exca_like.layout import DEFAULT_UID, UID

_METHOD_FOLDER = re.compile(r"[^,]+\.[^,]+,.+")
_MAIN = "__main__."
_LEGACY_VERSIONS = (3, 2)


@dataclass(frozen=True)
class Renaming:
    """A folder that has, or had, another name than the one this package looks for.

    ``problem`` tells why it keeps its name; it is None for a folder that is renamed. ``new`` is ``old`` where no other
    name can be told.
    """

    old: Path
    new: Path
    problem: str | None = None


def migrate_exca(folder: str | Path, *, dry_run: bool = True, main_name: str | None = None) -> list[Renaming]:
    """Rename the cache folders that exca wrote, so that this package finds their results.

    Folders of configs get the uids of this package; they are recognized by their ``uid.yaml``, and renamed only if
    their present name is the one that exca gives to that config. Nothing is deleted, overwritten or merged. No other
    process should use the cache meanwhile.

    Parameters
    ----------
    folder:
        The cache root: what was given to the infras as ``folder``.
    dry_run:
        Only tell what would be renamed.
    main_name:
        Name of the script (its file name without ``.py``) whose results exca filed under ``__main__``: the folders of
        its methods are renamed, too. None leaves them as they are, and with them their name ``__main__``.

    Returns
    -------
    list of Renaming
        What is (with ``dry_run``: would be) renamed, in this order, and what keeps its name because of a problem.
        Folders whose name is right are not listed.

    Raises
    ------
    OSError
        The folder does not exist or can't be read.
    ValueError
        ``main_name`` is no name of a script.

    Examples
    --------
    >>> for renaming in migrate_exca("/scratch/cache"):  # doctest: +SKIP
    ...     print(renaming.old, "->", renaming.problem or renaming.new.name)
    """
    if main_name is not None and not re.fullmatch(r"[^/\\,.\0][^/\\,\0]*", main_name):
        msg = f"main_name={main_name!r} is no name of a script: give its file name without '.py', for instance 'train'"
        raise ConfigValueError(msg)
    done = []
    for method in _method_folders(Path(folder)):
        taken: set[Path] = set()
        for planned in _plan(method):
            renaming = _apply(planned, taken, dry_run=dry_run)
            if renaming.problem is None:
                taken.add(renaming.new)
            done.append(renaming)
        if main_name is not None and method.name.startswith(_MAIN):
            new = method.with_name(f"{main_name}.{method.name.removeprefix(_MAIN)}")
            done.append(_apply(Renaming(method, new), set(), dry_run=dry_run))
    return [renaming for renaming in done if renaming.problem is not None or renaming.new != renaming.old]


def _method_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        msg = f"there is no folder {root}: give the cache root, which was the 'folder' of the infras"
        raise CacheFolderError(errno.ENOENT, msg)
    return [folder for folder in _subfolders(root) if _METHOD_FOLDER.fullmatch(folder.name)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        msg = f"can't list {folder}: {error.strerror or error}. Check its permissions."
        raise CacheFolderError(error.errno, msg) from error


def _plan(method: Path) -> Iterator[Renaming]:
    """The folders of a method's configs, with the names they should have."""
    for folder in _subfolders(method):
        path = folder / UID
        if not path.is_file():
            continue
        try:
            config = ConfDict.from_yaml(path)
            new = folder.with_name(config.to_uid(version=4) or DEFAULT_UID)
            legacy = [config.to_uid(version=version) or DEFAULT_UID for version in _LEGACY_VERSIONS]
        except (ConfigTypeError, ConfigValueError, OSError, TypeError, ValueError) as error:
            yield Renaming(folder, folder, f"the config in {path} can't be read: {error}")
            continue
        if folder.name == new.name or folder.name in legacy:
            yield Renaming(folder, new)
        else:
            yield Renaming(folder, new, f"exca names the config in {UID} {legacy[0]!r}, not like this folder")


def _apply(planned: Renaming, taken: set[Path], *, dry_run: bool) -> Renaming:
    old, new = planned.old, planned.new
    if planned.problem is not None or new == old:
        return planned
    if new in taken or os.path.lexists(new):
        return Renaming(old, new, f"there is a folder {new.name} already")
    if not dry_run:
        try:
            old.rename(new)
        except OSError as error:
            return Renaming(old, new, f"it can't be renamed: {error.strerror or error}")
    return planned
