"""Upkeep of caches: check and repair them, merge their files, and rename folders that exca wrote."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from exca_like import files, hits, layout, tables
from exca_like.cachedict.compact import Compaction, compact_folder
from exca_like.cachedict.verify import Problem, examine, has_data_alone, has_journals
from exca_like.cachedict.verify import repair as repair_folder
from exca_like.cachedict.writer import DATA
from exca_like.confdict import ConfDict
from exca_like.errors import CacheFolderError, ConfigTypeError, ConfigValueError
from exca_like.executors import job_is_over
from exca_like.layout import DEFAULT_UID, FULL_UID, METHOD_FOLDER, UID
from exca_like.yaml_checks import LEGACY_VERSIONS, check_yamls

_MAIN = "__main__."


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
    return [folder for folder in _subfolders(root) if METHOD_FOLDER.fullmatch(folder.name)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(files.REMOVED_PREFIX))
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
            legacy = [config.to_uid(version=version) or DEFAULT_UID for version in LEGACY_VERSIONS]
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


@dataclass
class Report:
    """What `verify` found.

    Attributes
    ----------
    folders, entries:
        How many were looked at. All that a folder holds counts here, results and errors, also each item of a map, which is one
        entry of the catalog.
    problems:
        What is wrong; after a repair, what is still wrong.
    repaired:
        What was wrong before the repair, and was removed.
    """

    folders: int = 0
    entries: int = 0
    problems: list[Problem] = field(default_factory=list)
    repaired: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether there are no problems (any more)."""
        return not self.problems

    def __str__(self) -> str:
        folders, problems = tables.count(self.folders, "folder"), tables.count(len(self.problems), "problem")
        lines = [f"{self.entries} results and errors in {folders}, {problems}"]
        if self.repaired:
            lines[0] += f" ({len(self.repaired)} repaired)"
        return "\n".join([*lines, *(f"removed: {problem}" for problem in self.repaired), *map(str, self.problems)])


def verify(folder: str | Path, repair: bool = False, permissions: int | None = None) -> Report:
    """Check every stored byte below a folder: a `CacheDict`'s, or a whole cache root; and the yaml files of configs.

    Parameters
    ----------
    folder:
        Where to look; folders of exca are looked at as far as they can be, as they have no checksums.
    repair:
        Delete damaged and duplicate entries, rewrite journals with damaged lines, and remove files that no entry needs.
        What is damaged is lost either way, and computed again when asked for. What belongs to writers that are at work, or is
        in folders that can't be written to, is left as it is, and ``kept`` of the problem says so; so are yaml files.
    permissions:
        Mode of files that a repair writes; None: as that of the folder they are in.

    Raises
    ------
    CacheFolderError
        There is no such folder.
    """
    report = Report()

    def note(path: str, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # else it was removed meanwhile
            report.problems.append(Problem("unreadable", Path(path), error.strerror or str(error)))

    for path, names in _folders(folder, lambda error: note(error.filename, error)):
        if has_journals(names) or FULL_UID in names:
            report.problems += check_yamls(path, names)
        try:
            if not (has_journals(names) or has_data_alone(path, names)):
                continue
            number, problems = examine(path)
        except OSError as error:
            note(path, error)
            continue
        report.folders += 1
        report.entries += number
        if repair and problems:
            try:
                remaining = repair_folder(path, problems, permissions, job_is_over)
            except OSError as error:
                remaining = [replace(problem, kept=error.strerror or str(error)) for problem in problems]
            report.repaired += [problem for problem in problems if problem not in remaining]
            problems = remaining
        report.problems += problems
    return report


def compact(folder: str | Path, permissions: int | None = None) -> list[Compaction]:
    """Merge the files of writers that are gone, below a folder: a `CacheDict`'s, or a whole cache root.

    Deleted and duplicate entries are dropped, and the space that they take is freed. It is safe beside readers and
    writers; what belongs to writers that are at work is left as it is, and so is what exca wrote. Folders in which something
    is damaged stay, too, as nothing would tell of it any more: `verify` tells what it is, and removes it with ``repair``.

    Parameters
    ----------
    folder:
        Where to look.
    permissions:
        Mode of new files; None: as that of the folder they are in.

    Returns
    -------
    list of Compaction
        For each folder with entries: numbers of files and bytes, before and after, and whether it ``is_damaged``.

    Raises
    ------
    CacheFolderError
        There is no such folder, or it can't be written to.
    """
    folders = [path for path, names in _folders(folder) if has_journals(names)]
    done = [compact_folder(path, permissions, drops_damaged=False) for path in folders]
    hits.merge(layout.absolute(folder))
    return done


def _folders(folder: str | Path, on_error: Callable[[OSError], object] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Folders below one, without those of data, and their files; ``on_error`` is called for those that can't be listed."""
    root = layout.absolute(folder)
    if not os.path.isdir(root):
        msg = f"there is no folder {root}: give the folder of a CacheDict, or the one that infras have as their `folder`"
        raise CacheFolderError(errno.ENOENT, msg)
    for parent, folders, names in os.walk(root, onerror=on_error):
        hidden = (files.REMOVED_PREFIX, files.TEMPORARY_PREFIX)
        folders[:] = sorted(name for name in folders if not name.startswith(hidden))
        yield parent, names
        if has_journals(names):
            folders[:] = [name for name in folders if name != DATA]
