"""Folders of others, which are only read: a CacheDict that also gives what they have."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from exca_like import user_warnings
from exca_like.cachedict.core import CacheDict
from exca_like.errors import CacheUsageError, ConfigMismatchError, ReadFolderWarning, ResultLoadError

X = TypeVar("X")
_ABSENT: Any = object()
_told: set[tuple[str, str]] = set()


class ReadThroughCache(CacheDict[X]):
    """A `CacheDict` that also gives what its own folder lacks and others have.

    What is written and deleted, errors, and all that is said of marks and places are of its own folder alone.

    Parameters
    ----------
    own:
        A CacheDict of its own folder, whose settings it takes.
    others:
        Gives those of other folders that can be read now, after a look at each; asked at each look at its own folder.
    """

    def __init__(self, own: CacheDict[X], others: Callable[[], Sequence[CacheDict[X]]]) -> None:
        super().__init__(**own.__getstate__())
        self._find_others = others
        self._others: Sequence[CacheDict[X]] = ()
        self._left_out: set[Path | None] = set()  # folders of which something could not be read

    def __getitem__(self, key: str) -> X:
        try:
            return super().__getitem__(key)
        except KeyError:
            value = self._of_others(key, _ABSENT)
            if value is _ABSENT:
                self.refresh()
                value = self._of_others(key, _ABSENT)
            if value is _ABSENT:
                raise
            return value  # type: ignore[no-any-return]

    def known(self, key: str, default: Any) -> Any:
        """The value of a key that was there at the last look at the folders; a default if it was not, or can't be loaded."""
        if super().unknown((key,)):
            return self._of_others(key, default)
        return super().known(key, default)

    def _of_others(self, key: str, default: Any) -> Any:
        """The value of a key that others had at the last look at them; a default if none had it, or it can't be loaded."""
        for other in self._others:
            if not other.unknown((key,)):
                with reading(other.folder):
                    try:
                        return other[key]
                    except KeyError:  # it is damaged, or was deleted
                        continue
                self._left_out.add(other.folder)  # or it would be said to have the key, again and again
                self._others = self._readable(self._others)
        return default

    def _readable(self, others: Sequence[CacheDict[X]]) -> list[CacheDict[X]]:
        return [other for other in others if other.folder not in self._left_out]

    def _other_with(self, key: str) -> CacheDict[X] | None:
        """The first of the others that has a key; None if it is in its own folder, or nowhere."""
        if self.unknown((key,)):
            self.refresh()
        if not super().unknown((key,)):
            return None
        return next((other for other in self._others if not other.unknown((key,))), None)

    def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of many keys that were not there at the last look at the folders, in order."""
        left = super().unknown(keys)
        for other in self._others:
            if left:
                left = other.unknown(left)
        return left

    def refresh(self) -> None:
        """Take notice of what others wrote and deleted, in all folders."""
        super().refresh()
        if self._frozen <= (not self._path):  # without a folder, one reason not to look is that there is none
            self._others = self._readable(self._find_others())
            self._tell_others()

    def expect(self, ending: str | None, otherwise: Callable[[str, Any], None]) -> None:
        """Have it told of values that are loaded, from any folder; see `CacheDict.expect`."""
        super().expect(ending, otherwise)
        self._tell_others()

    def _tell_others(self) -> None:
        for other in self._others:
            other._loader.expected = self._loader.expected

    def __contains__(self, key: object) -> bool:
        keys: Any = (key,)
        if self.unknown(keys):
            self.refresh()
        return not self.unknown(keys)

    def __iter__(self) -> Iterator[str]:
        keys = dict.fromkeys(super().__iter__())  # which looks at the folders
        for other in self._others:
            keys.update(dict.fromkeys(other._known()))
        return iter(keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __delitem__(self, key: str) -> None:
        if (other := self._other_with(key)) is not None:
            msg = f"{key!r} lies in {other.folder}, one of the read_folders, where nothing is changed: delete it there"
            raise CacheUsageError(msg)
        super().__delitem__(key)

    def part(self, key: str, name: str) -> Any:
        """One member of a value that is a dictionary."""
        other = self._other_with(key)
        return super().part(key, name) if other is None else other.part(key, name)

    def files(self, key: str, member: str | None = None) -> list[Path]:
        """Absolute paths of the files that hold an entry's data, packed ones too; none if all is in the journal."""
        other = self._other_with(key)
        return super().files(key, member) if other is None else other.files(key, member)

    def describe(self, key: str) -> dict[str, Any]:
        """What is stored about an entry beside its value: ``#type``, ``#data``, ``#meta``..."""
        other = self._other_with(key)
        return super().describe(key) if other is None else other.describe(key)

    def meta(self, key: str) -> Any:
        """The JSON data that were kept beside the value or the error of a key; None if there are none."""
        other = self._other_with(key)
        return super().meta(key) if other is None else other.meta(key)

    def __reduce__(self) -> Any:
        self.refresh()
        return _with_others, (super().__getstate__(), self._others)


def _with_others(settings: dict[str, Any], others: Sequence[CacheDict[Any]]) -> ReadThroughCache[Any]:
    """A copy, which knows the folders that could be read when it was made."""
    return ReadThroughCache(CacheDict(**settings), functools.partial(_looked_at, others))


def _looked_at(others: Sequence[CacheDict[Any]]) -> list[CacheDict[Any]]:
    found = []
    for other in others:
        with reading(other.folder):
            other.refresh()
            found.append(other)
    return found


@contextlib.contextmanager
def reading(folder: object) -> Iterator[None]:
    """A block that reads in a folder of others, and is left, with a warning, if that can't be done.

    Errors that are for people to decide on are raised, and say which folder they are of.
    """
    try:
        yield
    except ConfigMismatchError as error:
        error.add_note(f"It is in {folder}, one of the read_folders: rather than delete it there, leave that one out of them.")
        raise
    except ResultLoadError as error:
        error.add_note(f"It is in {folder}, one of the read_folders. Without that one, it is computed into one's own folder.")
        raise
    except OSError as error:
        unread(folder, str(error))


def unread(folder: object, why: str) -> None:
    """Warn, once in a process, that a folder of others counts as empty."""
    if (str(folder), why) not in _told:
        _told.add((str(folder), why))
        msg = f"the read folder {folder} counts as empty: {why}"
        user_warnings.warn(msg, ReadFolderWarning)
