"""Read folders: caches of others, in which an infra looks for what its own folder lacks.

For each there is a reader: the same infra with that folder in place of its own. It is only asked: nothing is written there.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic

from exca_like import files, layout
from exca_like.cachedict import CacheDict
from exca_like.cachedict.read_through import ReadThroughCache, reading, unread
from exca_like.engine import Mode, not_cached
from exca_like.errors import ConfigMismatchError
from exca_like.infra.job import TaskJob
from exca_like.infra.status import own_status
from exca_like.layout import RESULT, EntryFolder
from exca_like.store import FolderStore, Outcome

T = TypeVar("T")


def _as_tuple(given: Any) -> Any:
    """Folders as they may be given: one path stands for itself."""
    folders = (given,) if isinstance(given, str | Path) else given
    if isinstance(folders, list | tuple) and not all(isinstance(one, str | Path) and str(one) for one in folders):
        msg = f"read_folders={given!r} must be paths of folders, in a list"
        raise ValueError(msg)
    return folders


ReadFolders = Annotated[tuple[str | Path, ...], pydantic.BeforeValidator(_as_tuple)]


def answers(infra: Any, question: Callable[[Any], T | None], *, of_other_configs: bool = False) -> Iterator[T]:
    """What the readers of an infra answer, in the order of its read folders, but for those that say None.

    Only those are asked whose folder is there and can be read.

    Parameters
    ----------
    infra, question:
        Who asks, and what.
    of_other_configs:
        Whether a reader is asked, too, whose folder was written for another config.

    Raises
    ------
    ConfigMismatchError
        There is such a folder, and its reader is not to be asked.
    """
    for reader in _readers(infra) if infra.read_folders else ():
        root = reader._entry().root
        answer = None
        with reading(root):
            try:
                is_there = reader._check_folder()
            except ConfigMismatchError:
                if not of_other_configs:
                    raise
                is_there = True
            if is_there:
                answer = question(reader)
            elif not os.path.isdir(root):
                unread(root, "it is not there. Mount it, or take it out of read_folders")
        if answer is not None:
            yield answer


def _readers(infra: Any) -> tuple[Any, ...]:
    state = infra._linked_state
    entry = infra._entry()  # forgets the readers if the code is another one now
    if state.readers is None:
        roots = [layout.absolute(folder) for folder in infra.read_folders]
        state.readers = tuple(_reader(infra, EntryFolder(root, entry.uid)) for root in roots)
    readers: tuple[Any, ...] = state.readers
    return readers


def _reader(infra: Any, entry: EntryFolder) -> Any:
    """The same infra, with another folder in place of its own."""
    values = {**infra.__dict__, "folder": entry.root, "read_folders": (), "mode": "read-only"}
    return infra._copy(values, infra.__pydantic_fields_set__, infra._linked_state.for_folder(entry))


def stored_configs(infra: Any) -> Iterator[tuple[EntryFolder, dict[str, Any]]]:
    """Folders of an infra's class that have results (or errors, in its own folder), each config once, with it."""
    entry = infra._entry()
    own = files.visible_folders(entry.method_path) if infra.folder is not None else ()
    seen: set[str] = set()
    for folder in (*map(entry.sibling, own), *_with_results(infra, entry)):
        config = None if folder.uid in seen else infra._stored_config(folder)
        if config is not None:
            seen.add(folder.uid)
            yield folder, config


def _with_results(infra: Any, entry: EntryFolder) -> Iterator[EntryFolder]:
    """The folders of an infra's class in its read folders that have results."""
    for folder in infra.read_folders:
        root = layout.absolute(folder)
        found: list[EntryFolder] = []
        with reading(root):
            method = EntryFolder(root, entry.uid)
            siblings = map(method.sibling, files.visible_folders(method.method_path))
            found = [sibling for sibling in siblings if _has_results(sibling)]
        yield from found


def _has_results(folder: EntryFolder) -> bool:
    """Whether a folder has results, of a task (maybe one that exca has computed) or of items, not only errors."""
    return FolderStore(folder, dict, allow_pickle="never").peek(RESULT) == "value" or any(True for _ in CacheDict(folder.path))


# tasks


def value_elsewhere(infra: Any, mode: Mode) -> Outcome | None:
    """The result of a task in the first read folder that has it, if a mode takes it; None if it is to be computed.

    Raises
    ------
    NotCachedError
        The mode is read-only and no folder has it.
    """
    return _elsewhere(infra, mode, _value)


def _value(reader: Any) -> Outcome | None:
    found: Outcome | None = reader._store().load(RESULT)
    if found is None or found.failure is not None:
        return None
    reader._compare_code(reader._linked_state)
    return found


def job_elsewhere(infra: Any, mode: Mode) -> TaskJob[Any] | None:
    """The same, as a job that has ended; the result is not loaded."""
    return _elsewhere(infra, mode, _job)


def _job(reader: Any) -> TaskJob[Any] | None:
    if reader._store().peek(RESULT) != "value":
        return None
    reader._compare_code(reader._linked_state)
    return TaskJob(reader.uid(), RESULT, reader._store())


def _elsewhere(infra: Any, mode: Mode, question: Callable[[Any], T | None]) -> T | None:
    found = None if mode == "force" else next(answers(infra, question), None)
    if found is None and mode == "read-only":
        raise not_cached(infra.uid())
    return found


def reader_with_value(infra: Any) -> Any:
    """The reader of the first read folder that has the result of a task; None if none has it."""
    return next(answers(infra, lambda reader: reader if reader._store().peek(RESULT) == "value" else None), None)


def holder_of(infra: Any) -> Any:
    """The infra whose folder has the outcome that a task stands with: this one, or a reader; None if there is none."""
    if infra.folder is not None and infra._check_folder() and infra._store().peek(RESULT) is not None:
        return infra
    return reader_with_value(infra) if infra.read_folders and own_status(infra) == "not submitted" else None


# maps


def reader_with_item(infra: Any, key: str) -> Any:
    """The reader of the first read folder that has the result of an item; None if none has it."""
    return next(answers(infra, lambda reader: reader if key in reader._item_store().cache else None), None)


def cache_through(infra: Any, own: CacheDict[Any]) -> CacheDict[Any]:
    """A cache of an infra's own folder, through which its read folders are read as well, if it has any."""
    return ReadThroughCache(own, lambda: list(answers(infra, _cache))) if infra.read_folders else own


def _cache(reader: Any) -> CacheDict[Any]:
    cache: CacheDict[Any] = reader._item_store().cache
    cache.refresh()
    return cache
