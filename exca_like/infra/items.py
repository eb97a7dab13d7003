"""How the items of a map are given, and recognized."""

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from exca_like.errors import InfraTypeError, InfraUsageError, InfraValueError, ItemParameterError
from exca_like.infra.applied import AppliedMethod

_DIGEST_SIZE = 8  # bytes
SHORTEST = 2 * _DIGEST_SIZE + 4
"""Characters that a shortened uid has at least."""

_MANY = (
    "list",
    "tuple",
    "set",
    "frozenset",
    "Sequence",
    "Iterable",
    "Iterator",
    "Collection",
    "List",
    "Tuple",
    "Set",
    "Generator",
)


@dataclass(eq=False)
class AppliedMap(AppliedMethod):
    """A method of many items that an infra was applied to."""

    item_uid: Callable[[Any], str] = str
    max_length: int | None = 256
    cache_type: Any = None

    def __post_init__(self) -> None:
        self.parameter, self.container = _items_parameter(self.method)

    def not_items(self, given: Any) -> InfraTypeError:
        """The error for what can't be taken for items."""
        return InfraTypeError(f"{self.method.__qualname__} takes a list of items, or another iterable, not {given!r:.100}")

    def items_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The items of a call.

        Raises
        ------
        ValueError
            There are none, or more than one argument.
        NameError
            The argument has another name.
        """
        if len(args) + len(kwargs) != 1:
            msg = f"{self.method.__qualname__} takes its items as its only argument, not {len(args) + len(kwargs)} arguments"
            raise InfraValueError(msg)
        if args:
            return args[0]
        ((name, items),) = kwargs.items()
        if name != self.parameter:
            msg = f"{self.method.__qualname__} takes its items as {self.parameter!r}, not as {name!r}"
            raise ItemParameterError(msg)
        return items

    def keys(self, items: Sequence[Any]) -> list[str]:
        """The keys of items; see `key`."""
        try:
            if len(items) == 1:  # what `key` does, without another call
                uid = self.item_uid(items[0])
                return [uid if self._is_key(uid) else self._key(uid, items[0])]
            uids = list(map(self.item_uid, items))
        except Exception:  # `key` says for which item
            return [self.key(item) for item in items]
        are_plain = set(map(type, uids)) <= {str} and all(map(str.isascii, uids))
        if are_plain and (self.max_length is None or max(map(len, uids), default=0) <= self.max_length):
            return uids
        return [self._key(uid, item) for uid, item in zip(uids, items, strict=True)]

    def key(self, item: Any) -> str:
        """The key of an item.

        Raises
        ------
        TypeError
            It is no string.
        RuntimeError
            Asking for it raised an exception.
        """
        try:
            uid = self.item_uid(item)
        except Exception as error:
            msg = f"item_uid of {self.method.__qualname__} failed for the item {item!r:.200}: {type(error).__name__}: {error}"
            raise InfraUsageError(msg) from error
        return uid if self._is_key(uid) else self._key(uid, item)

    def keep(self, kept: dict[str, Any], key: str, item: Any) -> None:
        """Keep an item, by its key.

        Raises
        ------
        ValueError
            There is another item with this key.
        """
        first = kept.setdefault(key, item)
        if first is not item and _differ(first, item):
            msg = (
                f"item_uid of {self.method.__qualname__} gives {key!r} for two different items, {first!r:.200} and "
                f"{item!r:.200}: make it tell all items apart, as results are stored by it"
            )
            raise InfraValueError(msg)

    def item_at(self, items: Any, keys: Sequence[str], place: int) -> Any:
        """The item at a place; a KeyError if it was not kept, or is another one by now."""
        if not isinstance(items, Sequence) or place >= len(items) or self.key(items[place]) != keys[place]:
            raise KeyError
        return items[place]

    def _is_key(self, uid: Any) -> bool:
        """Whether a uid is a key as it is, surely."""
        return type(uid) is str and uid.isascii() and (self.max_length is None or len(uid) <= self.max_length)

    def _key(self, uid: Any, item: Any) -> str:
        if not isinstance(uid, str):
            msg = (
                f"item_uid of {self.method.__qualname__} must return a string, not {uid!r:.100} for the item "
                f"{item!r:.200}: use for instance item_uid=str"
            )
            raise InfraTypeError(msg)
        return shortened(_utf8(str.__str__(uid)), self.max_length)


def shortened(uid: str, max_length: int | None) -> str:
    """A uid of at most some characters: a longer one keeps its start, and ends with a digest (64 bits) of the whole."""
    if max_length is None or len(uid) <= max_length:
        return uid
    digest = blake2b(uid.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).hexdigest()
    return f"{uid[: max_length - len(digest) - 3]}...{digest}"


def _utf8(uid: str) -> str:
    """A uid that can be stored: what UTF-8 has no form for, as in names of undecodable files, becomes escapes and a digest."""
    try:
        uid.encode()
    except UnicodeEncodeError:
        digest = blake2b(uid.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).hexdigest()
        return f"{uid.encode(errors='backslashreplace').decode()}...{digest}"
    return uid


def _differ(first: Any, second: Any) -> bool:
    """Whether two items are different, as far as they can say so."""
    if type(first).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]
        return False
    try:
        same = first == second
        return not (same if isinstance(same, bool) else bool(same.all()))
    except Exception:  # it is the user's
        return False


def _items_parameter(method: Any) -> tuple[str, Callable[[Any], Any]]:
    """The name of the parameter that takes the items, and what makes them the kind it is annotated with."""
    if not callable(method) or isinstance(method, staticmethod | classmethod | type) or inspect.iscoroutinefunction(method):
        msg = (
            f"MapInfra is for plain methods of a config, not for {method!r}: put it above a `def name(self, items: list[...])`"
        )
        raise InfraTypeError(msg)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    name = method.__qualname__
    if len(parameters) != 1 or parameters[0].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        msg = (
            f"MapInfra is for methods that take one list of items beside self, but {name} takes "
            f"({', '.join(map(str, parameters))}): make the other parameters fields of the config"
        )
        raise InfraTypeError(msg)
    annotation = parameters[0].annotation
    kind = typing.get_origin(annotation) or annotation
    text = annotation if isinstance(annotation, str) else getattr(kind, "__name__", str(kind))
    found = re.search(r"(\w+)\s*(\[|$)", text.replace(" ", ""))
    if annotation is inspect.Parameter.empty or found is None or found[1] not in _MANY:
        shown = "is not annotated" if annotation is inspect.Parameter.empty else f"is annotated as {text}"
        msg = (
            f"the items of {name} come as a list, but its parameter {parameters[0].name!r} {shown}: annotate it, "
            f"for instance as `{parameters[0].name}: list[str]` (or Sequence, Iterable, tuple)"
        )
        raise InfraTypeError(msg)
    return parameters[0].name, tuple if found[1].lower() == "tuple" else list
