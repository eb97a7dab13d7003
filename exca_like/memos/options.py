"""How functions are memoised, as it is said by the arguments of `memo`."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exca_like.cachedict import registry
from exca_like.errors import InfraTypeError, InfraValueError
from exca_like.memos.paths import OWN_FIELDS, Template, check_folder_name
from exca_like.watching import CodePolicy, Watch, check_policy


@dataclass(frozen=True)
class Options:
    """How a function is memoised, beside its infra; see `memo`."""

    exclude: Iterable[str] = ()
    key: Mapping[str, Callable[[Any], Any]] | None = None
    cache_type: Any = None
    group_by: Iterable[str] = ()
    path: str | None = None
    prefix: str | None = None
    subdir: str | None = None
    pin: bool = False
    track: bool = True
    code: CodePolicy | None = None
    watch: Iterable[Any] = ()

    def checked(self, function: Any) -> "Options":
        """These options for a function, with names in tuples.

        Raises
        ------
        TypeError, ValueError
            It is no plain function, or an option does not fit it.
        """
        _check_function(function, self.prefix)
        _names(function, "key", self.key or ())
        registry.checked_choice(self.cache_type)
        check_policy(self.code)
        Watch(function, self.watch)
        exclude, group_by = _names(function, "exclude", self.exclude), _names(function, "group_by", self.group_by)
        for option, folder in (("prefix", self.prefix), ("subdir", self.subdir)):
            if folder is not None:
                check_folder_name(option, folder, folder)
        parameters = inspect.signature(function).parameters
        Template(self.path or "{function}", parameters)
        for name in OWN_FIELDS:
            if name in parameters and (name in group_by or f"{{{name}}}" in (self.path or "")):
                msg = f"{function.__qualname__} has a parameter {name!r}, which means something else in paths: rename it"
                raise InfraValueError(msg)
        return replace(self, exclude=exclude, group_by=group_by, watch=tuple(self.watch))


def _names(function: Any, option: str, names: Any) -> tuple[str, ...]:
    """Names of parameters, as they are given in an option."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        msg = f"{option}={names!r}: give a list of names, even for one, like {option}=({names!r},)"
        raise InfraTypeError(msg)
    known = (*inspect.signature(function).parameters, *(function.__code__.co_freevars if option == "exclude" else ()))
    for name in (found := tuple(names)):
        if name not in known:
            msg = f"{option} names {name!r}, but {function.__qualname__} has the parameters {', '.join(known) or '(none)'}"
            raise InfraValueError(msg)
    return found


def _check_function(function: Any, prefix: str | None) -> None:
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        kind = "an async function" if inspect.isfunction(function) else f"a {type(function).__name__}"
        way = f"@memo(folder={function!r})" if isinstance(function, str | Path) else "@memo"
        msg = f"memo is for plain functions and methods, not for {kind}: put `{way}` above a `def`"
        raise InfraTypeError(msg)
    if function.__name__ == "<lambda>" and prefix is None:
        msg = "a lambda has no name under which its results could be found again: write a `def`, or give it a prefix"
        raise InfraTypeError(msg)
    if inspect.isgeneratorfunction(function):
        msg = f"{function.__qualname__} is a generator function, whose results can be read once only: return a list of them"
        raise InfraTypeError(msg)
