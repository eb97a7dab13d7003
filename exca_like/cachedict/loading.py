"""Loads the entries of a folder."""

from collections.abc import Callable
from typing import Any

from exca_like.cachedict import registry
from exca_like.cachedict.blocks import Check
from exca_like.cachedict.context import AllowPickle, load_entry
from exca_like.cachedict.index import Index
from exca_like.cachedict.journal import report
from exca_like.cachedict.members import member_of, only_member
from exca_like.errors import CorruptEntryError

_SMALL = registry.SMALL


class Loader:
    """Loads entries; those that turn out to be damaged or gone count as missing, and are reported once."""

    def __init__(self, folder: str, index: Index, allow_pickle: AllowPickle, check: Check) -> None:
        self._folder = folder
        self._index = index
        self._pickles: AllowPickle = allow_pickle
        self._check: Check = check
        self.expected: tuple[str, Callable[[str, Any], None]] | None = None
        """How what is stored beside a value ends, as a rule; and what is told of one that does not, with its key."""

    def value(self, key: str, *, look: bool) -> tuple[int | None, Any]:
        """The place and the value of an entry; no place if there is none.

        Parameters
        ----------
        key:
            The entry's.
        look:
            Look at the folder again if the key is not known.
        """
        return self._first(key, look, self.at)

    def member(self, key: str, name: str, *, look: bool) -> tuple[int | None, Any]:
        """The place of an entry, and one member of the dictionary that is its value."""
        return self._first(key, look, lambda place, key: self._member_at(place, key, name))

    def at(self, place: int, key: str) -> Any:
        """The value at a place.

        Raises
        ------
        CorruptEntryError, FileNotFoundError
            It is damaged, or gone.
        """
        found = self._index.read(place)
        if found is None:
            msg = "its line is damaged"
            raise CorruptEntryError(msg)
        file, info = found
        expected = self.expected
        if expected is not None:
            try:
                is_expected = info["#meta"].endswith(expected[0])
            except (KeyError, AttributeError):  # there is nothing, or more than a text
                is_expected = "#meta" not in info
            if not is_expected:
                expected[1](key, info["#meta"])
        try:
            small, inline = _SMALL[info["#type"]], info["inline"]
            if info["#key"] == key and "#v" not in info:
                return small(inline)
        except Exception:  # noqa: S110 - it is of another kind; or the usual way raises it, too, and says more
            pass
        return load_entry(self._folder, key, file, info, self._pickles, self._check)

    def _member_at(self, place: int, key: str, name: str) -> Any:
        found = self._index.read(place)
        info = None if found is None else only_member(found[1], name)
        if found is None or info is None:
            return member_of(key, self.at(place, key), name)
        return load_entry(self._folder, key, found[0], info, self._pickles, self._check)

    def _first(self, key: str, look: bool, load: Callable[[int, str], Any]) -> tuple[int | None, Any]:
        """The first of the places of a key that can be loaded."""
        index = self._index
        place = index.entries.get(key)
        if place is None and look:
            index.refresh()
            place = index.entries.get(key)
        while place is not None:
            try:
                return place, load(place, key)
            except (CorruptEntryError, FileNotFoundError) as error:
                index.refresh()  # it may have been deleted, or moved
                if index.entries.get(key) == place:
                    self._give_up(key, place, error)
            place = index.entries.get(key)
        return None, None

    def _give_up(self, key: str, place: int, error: Exception) -> None:
        name, offset = self._index.describe(place)
        why = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else str(error)
        report(f"the entry {key!r} at byte {offset} of {self._folder}/{name} counts as missing: {why}")
        self._index.drop(key, place)
        self._index.bad.setdefault(key, []).append(place)
