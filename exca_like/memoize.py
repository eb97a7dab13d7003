"""Memoised functions: calls whose results are kept, and found again by what was passed."""

import functools
import importlib
import inspect
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import cloudpickle
import pydantic

from exca_like import content, engine, layout, sources, uid
from exca_like.canonical import describe
from exca_like.errors import ContentKeyError, InfraTypeError, InfraValueError
from exca_like.infra.base import BaseInfra
from exca_like.infra.calls import Call, CallInfra, applied_to_calls
from exca_like.infra.job import TaskJob
from exca_like.layout import EntryFolder
from exca_like.models.function import CallSignature
from exca_like.names import main_name, module_name
from exca_like.operators import SCALARS

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

_LONGEST_TEXT = 80  # characters of a key, beside its digest
_KEY_SIZE = 10  # bytes of digest in a key
_MOST_SHOWN = 200  # characters of an argument that are kept for people
_MOST_ITEMS = 6  # of a container that is shown in a key
_PROJECT_SIGNS = ("pyproject.toml", ".git")
_DEFAULT_FOLDER = ".exca_like"

_any_infra: Any = BaseInfra
content.register(_any_infra, lambda infra: infra.version)  # how something is computed does not change what comes out


@dataclass(frozen=True)
class Options:
    """How a function is memoised, beside its infra."""

    exclude: frozenset[str] = frozenset()
    key: Mapping[str, Callable[[Any], Any]] | None = None
    cache_type: str | None = None
    group_by: tuple[str, ...] = ()
    path: str | None = None
    prefix: str | None = None
    subdir: str | None = None
    pin: bool = False
    track: bool = True


if TYPE_CHECKING:

    class _Base(Generic[P, R]):
        def __init__(self, function: Callable[P, R]) -> None: ...

else:

    class _Base(staticmethod):
        """What pydantic leaves alone in the classes of models, and what can be called."""

        __class_getitem__ = classmethod(lambda cls, _: cls)


class Memo(_Base[P, R]):
    """A function whose results are kept; made by `memo`. Called like the function itself."""

    def __init__(self, function: Callable[P, R], infra: CallInfra, options: Options, kind: str = "") -> None:
        self._function = function
        self._infra = infra
        self._options = options
        self._kind = kind  # "static" or "class", if it was declared as such
        self._is_method = False
        self._applied = applied_to_calls(options.cache_type)
        self._folders: dict[str, CallInfra] = {}  # the calls that are kept in each
        super().__init__(function)

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._is_method = self._kind == ""

    @overload
    def __get__(self, obj: None, owner: Any) -> Self: ...
    @overload
    def __get__(self: "Memo[Concatenate[S, Q], R]", obj: S, owner: Any) -> "Memo[Q, R]": ...
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if self._kind == "class":
            return BoundMemo(self, owner)
        return self if obj is None or self._kind == "static" else BoundMemo(self, obj)

    def __repr__(self) -> str:
        return f"<memo of {self._label}>"

    def __reduce__(self) -> Any:
        module, name = self._function.__module__, self._function.__qualname__
        if module != "__main__" and _find(module, name) is self:
            return _named, (module, name)
        label = f"{main_name()}:{name}:{id(self)}"
        active: set[str] = _pickled.__dict__.setdefault("active", set())
        if label in active:  # it refers to itself
            return _being_loaded, (label,)
        active.add(label)
        try:
            data = cloudpickle.dumps((self._function, self._infra, self._options, self._kind, self._is_method))
        finally:
            active.discard(label)
        return _loaded, (main_name(), name, label, data)

    # calls

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        mode = engine.mode_now(self._infra.mode)
        if mode == "off":
            return self._function(*args, **kwargs)
        call = self._bound(args, kwargs)
        value: R = self._calls(call).value(call, mode)
        return value

    @property
    def uncached(self) -> Callable[P, R]:
        """The function itself."""
        return self._function

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskJob[R]:
        """The job of a call, submitted if it is not computed or running yet; returns at once.

        With ``cluster=None`` the call is computed first, in this process.
        """
        call = self._bound(args, kwargs)
        (job,) = self._calls(call).submit([call], engine.mode_now(self._infra.mode))
        return job

    def map(self, *iterables: Iterable[Any], **constants: Any) -> Iterator[R]:
        """Results of many calls, as the builtin ``map`` gives them; what is missing is packed into jobs.

        Parameters
        ----------
        *iterables:
            Of the first argument of each call, of the second, and so on; all of the same length.
        **constants:
            Arguments that are the same for all calls.

        Returns
        -------
        Iterator
            The results, in order, each as soon as it is there.

        Raises
        ------
        ItemsFailedError
            Some calls failed: after all others were computed and stored.
        """
        mode = engine.mode_now(self._infra.mode)
        if not iterables:
            msg = f"{self._label}.map takes iterables of arguments, like {self._label}.map([1, 2, 3])"
            raise InfraTypeError(msg)
        arguments = list(zip(*iterables, strict=True))
        if mode == "off":
            function: Callable[..., R] = self._function
            return (function(*args, **constants) for args in arguments)
        return self._results([self._bound(args, constants) for args in arguments], mode)

    def _results(self, calls: Sequence[Call], mode: engine.Mode) -> Iterator[R]:
        groups: dict[str, list[Call]] = {}
        for call in calls:
            groups.setdefault(self._entry_of(call).path, []).append(call)
        results = {path: self._calls(group[0]).results(group, mode) for path, group in groups.items()}
        return (next(results[self._entry_of(call).path]) for call in calls)

    # what is kept

    def cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether the result of a call is in the cache; nothing is computed."""
        call = self._bound(args, kwargs)
        return call.key in self._calls(call).cache_dict

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of a call, or its error; whether there was one."""
        call = self._bound(args, kwargs)
        store = self._calls(call)._store_of(call)
        is_there = store.peek(call.key) is not None
        store.discard(call.key)
        return is_there

    def config(self, *args: P.args, **kwargs: P.kwargs) -> pydantic.BaseModel:
        """The arguments of a call as a pydantic model, with a field for each parameter."""
        signature = self._signature
        values = signature.bind(args, kwargs)
        return signature.model(**{signature.arguments[name].field: value for name, value in values.items()})

    # keys

    @property
    def _label(self) -> str:
        name: str = self._function.__qualname__
        return name

    @functools.cached_property
    def _signature(self) -> CallSignature:
        names = list(inspect.signature(self._function).parameters)
        return CallSignature(self._function, self._label, tuple(names[:1]) if self._is_method else ())

    def _bound(self, args: Any, kwargs: Any) -> Call:
        """A call with its key."""
        values = self._signature.bind(args, kwargs)
        options = self._options
        parts: content.Parts = []
        first = next(iter(values)) if self._is_method else None
        for name, value in values.items():
            if name in options.exclude:
                continue
            if options.key and name in options.key:
                content.feed(name, options.key[name](value), parts)
            else:
                if name == first:
                    self._check_self(value)
                content.feed(name, value, parts)
        digest = content.digest_of_parts(parts)[:_KEY_SIZE].hex()
        return Call(f"{self._text(values, first)}-{digest}", values)

    def _check_self(self, value: Any) -> None:
        if (
            isinstance(value, type | pydantic.BaseModel)
            or hasattr(type(value), "__dataclass_fields__")
            or content.has_key(value)
        ):
            return
        kind = type(value).__qualname__
        msg = (
            f"{self._label} is a method of {kind}, and what it returns may depend on any attribute of the {kind}: make it a "
            "pydantic model or a dataclass, which count by their fields, or say what it is recognized by with "
            f"exca_like.content.register({kind}, lambda obj: ...), or leave it out with exclude=('self',)"
        )
        raise ContentKeyError(msg)

    def _text(self, values: Mapping[str, Any], first: str | None) -> str:
        """What is readable of a key: arguments that are not the default ones."""
        parts = []
        for name, value in values.items():
            default = self._signature.arguments[name].default
            if name not in self._options.exclude and name != first and value is not default:
                part = _text_of(name, value)
                if default is inspect.Parameter.empty or type(default) is not type(value) or _text_of(name, default) != part:
                    parts.append(part)
        text = ",".join(parts).lstrip(".-") or layout.DEFAULT_UID
        return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."

    # folders

    @functools.cached_property
    def _root(self) -> str:
        folder = self._infra.folder
        return default_root() if folder is None else layout.absolute(folder)

    @functools.cached_property
    def _name(self) -> str:
        """Name of the function's folder."""
        return (
            self._options.prefix
            or f"{module_name(self._function)}.{self._label.replace('.<locals>', '')},{self._infra.version}"
        )

    def _entry_of(self, call: Call) -> EntryFolder:
        """The folder that the result of a call is in."""
        return EntryFolder(self._root, self._name)

    def _calls(self, call: Call) -> CallInfra:
        entry = self._entry_of(call)
        return self._folders.get(entry.path) or self.calls_in(entry)

    def calls_in(self, entry: EntryFolder) -> CallInfra:
        """See `exca_like.infra.calls.Function`."""
        infra = self._infra.for_calls(self, self._applied, entry, {"function": self._name})
        return self._folders.setdefault(entry.path, infra)

    def run(self, call: Call) -> Any:
        """See `exca_like.infra.calls.Function`."""
        return self._signature.call(call.values)

    def describe(self, call: Call) -> dict[str, Any]:
        """See `exca_like.infra.calls.Function`."""
        return {"config": {name: _shown(value) for name, value in call.values.items()}}


class BoundMemo(Generic[P, R]):
    """A memoised method of an object, or of a class."""

    __slots__ = ("_memo", "_obj")

    def __init__(self, memo: Memo[Any, R], obj: Any) -> None:
        self._memo = memo
        self._obj = obj

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._memo(self._obj, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by Python itself, to copy it for instance
            raise AttributeError(name)
        found = getattr(self._memo, name)
        if name == "map":
            first = next(iter(inspect.signature(self._memo.uncached).parameters))
            return functools.partial(found, **{first: self._obj})
        return functools.partial(found, self._obj) if callable(found) and name != "entries" else found

    def __repr__(self) -> str:
        return f"<memo of {self._memo._label}, of {self._obj!r:.100}>"

    def __reduce__(self) -> Any:
        return BoundMemo, (self._memo, self._obj)


content.register(Memo, lambda memo: memo.uncached)
content.register(BoundMemo, lambda bound: (bound._memo, bound._obj))


_pickled = threading.local()  # functions that this thread is pickling, or loading


def _find(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _named(module: str, qualname: str) -> Any:
    importlib.import_module(module)
    return _find(module, qualname)


def _loaded(script: str, qualname: str, label: str, data: bytes) -> Any:
    found = _find("__main__", qualname) if script == main_name() else None
    if isinstance(found, Memo):  # the one that this process knows
        return found
    memo: Any = Memo.__new__(Memo)
    loading: dict[str, Any] = _pickled.__dict__.setdefault("loading", {})
    loading[label] = memo
    try:
        function, infra, options, kind, is_method = pickle.loads(data)
    finally:
        del loading[label]
    memo.__init__(function, infra, options, kind)
    memo._is_method = is_method
    return memo


def _being_loaded(label: str) -> Any:
    return _pickled.loading[label]


def default_root() -> str:
    """Where results are kept if no folder is given.

    What the setting ``memo_folder`` says, else ``.exca_like`` in the folder of the project: the nearest one above the current
    folder that has a ``pyproject.toml`` or is of git; the current folder, if there is none.
    """
    set_folder = sources.tool_setting("memo_folder")
    if set_folder is not None:
        return layout.absolute(set_folder)
    current = folder = layout.origin()
    last = ""
    while folder != last:
        if any(os.path.exists(f"{folder}/{sign}") for sign in _PROJECT_SIGNS):
            return f"{folder.rstrip('/')}/{_DEFAULT_FOLDER}"
        folder, last = os.path.dirname(folder), folder
    return f"{current}/{_DEFAULT_FOLDER}"


def _text_of(name: str, value: Any) -> str:
    if type(value) in SCALARS:
        return _scalar_text(name, value)
    if isinstance(value, list | tuple | set | frozenset | dict):
        if len(value) > _MOST_ITEMS or not all(type(item) in SCALARS for item in value):
            return f"{name}={type(value).__name__}-{len(value)}"
        if isinstance(value, dict) and not all(type(item) in SCALARS for item in value.values()):
            return f"{name}={type(value).__name__}-{len(value)}"
    return f"{name}={uid.text_of(value)}"


@functools.lru_cache(4096, typed=True)
def _scalar_text(name: str, value: Any) -> str:
    return f"{name}={uid.text_of(value)}"


def _shown(value: Any) -> Any:
    """JSON data that tell people what an argument was."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}..."
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if kind in SCALARS:
        return value if kind is not int or abs(value) < 1 << 63 else str(value)
    if kind in (list, tuple) and len(value) <= _MOST_ITEMS:
        return [_shown(item) for item in value]
    if kind is dict and len(value) <= _MOST_ITEMS and all(type(key) is str for key in value):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset | dict):
        return f"{kind.__name__} of {len(value)}"
    return describe(value)


@overload
def memo(function: Callable[P, R], /) -> Memo[P, R]: ...
@overload
def memo(
    *,
    folder: str | Path | None = None,
    exclude: Iterable[str] = (),
    key: Mapping[str, Callable[[Any], Any]] | None = None,
    cache_type: Any = None,
    **infra: Any,
) -> Callable[[Callable[P, R]], Memo[P, R]]: ...
def memo(
    function: Any = None,
    /,
    *,
    folder: str | Path | None = None,
    exclude: Iterable[str] = (),
    key: Mapping[str, Callable[[Any], Any]] | None = None,
    cache_type: Any = None,
    pin: bool = False,
    **infra: Any,
) -> Any:
    """Keep the results of a function, as a decorator with or without arguments.

    A call whose arguments have the same content as those of an earlier one gives its result from the cache, in this process
    and in any later one. It does not matter whether arguments are given by position, by name, or as defaults. Arguments with
    a type are validated by it, as fields of a pydantic model; others are told apart exactly (see `exca_like.content`).

    Parameters
    ----------
    function:
        A function or a method.
    folder:
        Where results and logs are kept; None: in ``.exca_like`` of the project, see `default_root`.
    exclude:
        Names of parameters that make no difference to the result.
    key:
        By the name of a parameter, a function that gives what its arguments are recognized by.
    cache_type:
        Name of the handler that stores the results; None: chosen by each result's type.
    pin:
        Never remove the results when the cache is cleaned up.
    **infra:
        How it is computed: fields of a `MapInfra`, for instance ``version``, ``mode``, ``cluster``, ``gpus_per_node``.

    Returns
    -------
    Memo
        Called like the function. It has ``submit``, ``map``, ``cached``, ``forget``, ``config``, ``entries``, ``lazy`` and
        ``uncached``.

    Examples
    --------
    >>> import tempfile
    >>> @memo(folder=tempfile.mkdtemp(), exclude=("verbose",))
    ... def slow_square(a, verbose=True):
    ...     print("computing")
    ...     return a**2
    >>> slow_square(2)
    computing
    4
    >>> slow_square(a=2, verbose=False)
    4
    """
    options = Options(exclude=_names("exclude", exclude), key=key, cache_type=cache_type, pin=pin)
    settings = CallInfra(folder=folder, **infra)

    def wrap(function: Any) -> Any:
        kind = {staticmethod: "static", classmethod: "class"}.get(type(function), "")
        return _checked(Memo(function.__func__ if kind else function, settings, options, kind))

    return wrap if function is None else wrap(function)


def _names(option: str, names: Any) -> frozenset[str]:
    if isinstance(names, str):
        msg = f"{option}={names!r}: give a list of names, even for one, like {option}=({names!r},)"
        raise InfraTypeError(msg)
    return frozenset(names)


def _checked(made: Memo[Any, Any]) -> Memo[Any, Any]:
    """Raise for what can't be memoised."""
    function = made.uncached
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        kind = "an async function" if inspect.isfunction(function) else f"a {type(function).__name__}"
        msg = f"memo is for plain functions and methods, not for {kind}: put `@memo` above a `def`"
        raise InfraTypeError(msg)
    parameters = inspect.signature(function).parameters
    options = made._options
    for option, names in {"exclude": options.exclude, "key": options.key or (), "group_by": options.group_by}.items():
        unknown = [name for name in names if name not in parameters]
        if unknown:
            msg = f"{option} names {unknown[0]!r}, but {function.__qualname__} has the parameters {', '.join(parameters)}"
            raise InfraValueError(msg)
    return made


__all__ = ["BoundMemo", "Memo", "default_root", "memo"]
