"""Results that are not loaded before they are needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

from pydantic_core import core_schema

from exca_like.cachedict import CacheDict
from exca_like.cachedict.context import AllowPickle
from exca_like.errors import InfraUsageError, LostOutcomeError

T = TypeVar("T")


class Lazy(Generic[T]):
    """A stored result, not loaded: made by ``lazy`` of memoised functions and of jobs.

    It can be passed on: to a memoised function, which gets the result itself (unless its parameter is annotated as `Lazy`) and
    only if it has to be computed; or as a field of a config. There it stands for what it was computed from: nothing is loaded
    to make a key or a uid.

    Parameters
    ----------
    folder, key:
        Where the result is.
    uid:
        What it was computed from.
    again:
        Computes and stores it once more, should it be gone.
    names:
        The way to one output, in a result that is a dictionary.
    kept:
        The result itself, if it is stored nowhere.
    """

    __exca_like_stand_in__ = True

    def __init__(
        self,
        folder: str,
        key: str,
        uid: str,
        again: Callable[[], Any] | None = None,
        allow_pickle: AllowPickle = "own",
        names: tuple[str, ...] = (),
        kept: tuple[Any, ...] = (),
    ) -> None:
        self._folder = folder
        self._key = key
        self._uid = uid
        self._again = again
        self._allow_pickle: AllowPickle = allow_pickle
        self._names = names
        self._kept = kept

    @property
    def uid(self) -> str:
        """What the result was computed from: its cache key, with the names of the output that this is."""
        return "".join((self._uid, *(f"[{name!r}]" for name in self._names)))

    @property
    def path(self) -> Path:
        """The file that holds the result, if it has one of its own, else the folder of the cache that it is in."""
        if self._kept:
            msg = f"the result of {self._uid} was computed in mode 'off', which stores nothing: it has no path"
            raise InfraUsageError(msg)
        member = self._names[0] if self._names else None
        found = self._with_entry(lambda cache: cache.files(self._key, member))
        is_own = len(found) == 1 and found[0].parent.name != "data"  # where several results are in one file
        return found[0] if is_own else Path(self._folder)

    def load(self) -> T:
        """The result.

        Raises
        ------
        LostOutcomeError
            It is gone, and can't be computed again from here.
        KeyError
            The result has no such output.
        """
        if self._kept:
            found: Any = self._kept[0]
            for name in self._names:
                found = found[name]
            return found  # type: ignore[no-any-return]
        value: T = self._with_entry(self._load)
        return value

    def __getitem__(self, name: str) -> "Lazy[Any]":
        """One output of a result that is a dictionary with texts as keys, loaded without the others."""
        return Lazy(self._folder, self._key, self._uid, self._again, self._allow_pickle, (*self._names, name), self._kept)

    def _load(self, cache: CacheDict[Any]) -> Any:
        if not self._names:
            return cache[self._key]
        value = cache.part(self._key, self._names[0])
        for name in self._names[1:]:
            value = value[name]
        return value

    def _with_entry(self, look: Callable[[CacheDict[Any]], Any]) -> Any:
        cache: CacheDict[Any] = CacheDict(self._folder, allow_pickle=self._allow_pickle)
        if self._key not in cache and self._again is not None:
            self._again()
        try:
            return look(cache)
        except KeyError:
            if self._key in cache:  # it has no such output
                raise
            msg = f"the result of {self._uid} is not in {self._folder} any more: compute it again"
            raise LostOutcomeError(msg) from None

    def __repr__(self) -> str:
        return f"Lazy<{self.uid}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lazy) and self.uid == other.uid

    def __hash__(self) -> int:
        return hash(self.uid)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(
            Lazy, serialization=core_schema.plain_serializer_function_ser_schema(lambda lazy: lazy.uid)
        )


def holds_lazy(value: Any) -> bool:
    """Whether a value is a `Lazy`, or a container that holds one."""
    if isinstance(value, Lazy):
        return True
    if type(value) in (list, tuple):
        return any(map(holds_lazy, value))
    return type(value) is dict and any(map(holds_lazy, value.values()))


def loaded(value: Any) -> Any:
    """A value with all `Lazy` in it loaded."""
    if isinstance(value, Lazy):
        return value.load()
    if type(value) in (list, tuple):
        return type(value)(map(loaded, value))
    return {key: loaded(item) for key, item in value.items()} if type(value) is dict else value


def wants_lazy(annotation: Any) -> bool:
    """Whether a parameter is annotated to take a `Lazy` as it is."""
    return Lazy in (annotation, get_origin(annotation)) or any(map(wants_lazy, get_args(annotation)))
