"""Outcomes of the many keys of a map or a memoised function, as `exca_like.works` needs them: in a folder, or in memory."""

from collections.abc import Iterable
from typing import Any

from exca_like.cachedict.core import CacheDict
from exca_like.cachedict.failures import NOT_TRIED, Failure
from exca_like.errors import CacheFolderError, KeyExistsError
from exca_like.recording import ItemRecording
from exca_like.runs import Run
from exca_like.store import Notes


class ItemStore:
    """Values and failures of many keys, in a `CacheDict`; without a folder, failures are kept in memory, too.

    Parameters
    ----------
    cache:
        Where they are.
    notes:
        What they say is kept beside each.
    run:
        What is the same for all that this process computes for the folder; None without a folder.
    """

    def __init__(self, cache: CacheDict[Any], notes: Notes | None = None, run: Run | None = None) -> None:
        self.cache = cache
        self._notes = notes
        self._run = run
        self._failures: dict[str, Failure] = {}

    @property
    def is_in_memory(self) -> bool:
        """Whether there is no folder, which other processes could write to."""
        return self.cache.folder is None

    def mark(self, key: str) -> Any:
        """Changes when another value is stored for a key, as known since the last look; None if there is none."""
        return self.cache.mark(key)

    def failure_mark(self, key: str) -> Any:
        """Like `mark`, of failures."""
        if not self._failures:
            return self.cache.failure_mark(key)
        return id(self._failures[key]) if key in self._failures else None

    def failure_marks(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of many keys that failed, with their marks."""
        if not (self._failures or self.cache.has_failures()):
            return {}
        return {key: mark for key in keys if (mark := self.failure_mark(key)) is not None}

    def failure(self, key: str) -> Failure | None:
        """The failure of a key, if there is one."""
        return self._failures.get(key) or self.cache.failure(key)

    def recording(self) -> ItemRecording:
        """What takes note of some items that are computed now, one after the other, for `save`."""
        return ItemRecording(self._run)

    def save(
        self, key: str, value: Any, failure: Failure | None, replaces: bool = False, recording: ItemRecording | None = None
    ) -> Failure | None:
        """Store a value, or a failure, in a ``with store.cache.write()`` block.

        Parameters
        ----------
        key, value, failure:
            The key, and what its computation left.
        replaces:
            Whether there may be a value or a failure already, whose place it takes.
        recording:
            What took note of the computation.

        Returns
        -------
        Failure | None
            The failure, which may be that the value can't be stored.

        Raises
        ------
        CacheFolderError
            The folder can't be written to.
        """
        meta: Any = None if self._notes is None else self._notes.meta(key)
        if failure is None:
            if replaces:
                self._failures.pop(key, None)
            if recording is not None:
                meta = recording.of_result(meta)
            try:
                if self._notes is None:
                    self.cache.put(key, value, meta, replaces)
                else:
                    self.cache.put(key, value, meta, replaces, self._notes.cache_type(value))
            except CacheFolderError:
                raise
            except KeyExistsError:  # somebody else stored it meanwhile, as there are no locks, or this was taken for dead
                return None
            except Exception as error:  # the value's type
                failure = Failure.of(error)
            else:
                return None
        elif recording is not None:
            meta = recording.of_failure(key, meta)
        if failure.reason != NOT_TRIED:
            if self.is_in_memory:
                self._failures[key] = failure
            else:
                self.cache.put_failure(key, failure, meta=meta)
        return failure
