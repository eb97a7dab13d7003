"""Memoised functions: calls whose results are kept, and found again by what was passed."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import pydantic

from exca_like import content, engine
from exca_like.errors import InfraTypeError, InfraUsageError, InfraValueError
from exca_like.infra.calls import Call, CallInfra, applied_to_calls
from exca_like.infra.job import TaskJob
from exca_like.layout import EntryFolder
from exca_like.lazy import Lazy, holds_lazy, loaded, wants_lazy
from exca_like.memos.entries import Entries
from exca_like.memos.keys import CallKeys, shown
from exca_like.memos.options import Options
from exca_like.memos.paths import ready_root
from exca_like.memos.places import Places
from exca_like.memos.transport import reduced
from exca_like.watching import CodePolicy, CodeState, Watch, check_same, keep

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

_MOST_FOLDERS = 256  # whose calls are kept in mind


if TYPE_CHECKING:
    from exca_like.explaining import Explanation
    from exca_like.provenance import Provenance

    class _Base(Generic[P, R]):
        def __init__(self, function: Callable[P, R]) -> None: ...

else:

    class _Base(staticmethod):
        """What pydantic leaves alone in the classes of models, and what can be called."""

        __class_getitem__ = classmethod(lambda cls, _: cls)
        __isabstractmethod__ = False  # else it can't be set


class Memo(_Base[P, R]):
    """A function whose results are kept, made by `memo`; it is called like the function itself."""

    def __init__(self, function: Callable[P, R], infra: CallInfra, options: Options, kind: str = "") -> None:
        super().__init__(function)
        self._function = function
        self._infra = infra
        self._options = options
        self._watch = Watch(function, options.watch)
        self._here: dict[str, CodeState] = {}  # code that was sent to this process, as it is here
        self._kind = kind  # "static" or "class", if it was declared as such
        self._is_method = kind == "class"
        self._applied = applied_to_calls(options.cache_type)
        self._infras: dict[str, CallInfra] = {}  # of the calls in each folder

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._is_method = self._kind != "static"

    @overload
    def __get__(self, obj: None, owner: Any) -> Self: ...
    @overload
    def __get__(self: "Memo[Concatenate[S, Q], R]", obj: S, owner: Any) -> "Memo[Q, R]": ...
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if self._kind == "class":
            return BoundMemo(self, owner)
        return self if obj is None or self._kind == "static" else BoundMemo(self, obj)

    def __repr__(self) -> str:
        return f"<memo of {self._function.__qualname__}>"

    def __reduce__(self) -> Any:
        parts = (self._function, self._infra, self._options, self._kind, self._is_method, self._places.name)
        return reduced(self, self._function, parts)

    def __setstate__(self, parts: tuple[Any, ...]) -> None:
        *arguments, is_method, name = parts
        self.__init__(*arguments)  # type: ignore[misc] # it was made without
        self._is_method = is_method
        self._places.name = name  # which a job could not tell

    # calls

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        mode = engine.mode_now(self._infra.mode)
        if mode == "off":
            return self._uncached(args, kwargs)
        call = self._keys.call(args, kwargs)
        value: R = self._infra_of(call).value(call, mode)
        return value

    def _uncached(self, args: Any, kwargs: Any) -> R:
        """What a call gives, without a key and a store."""
        value: R = self._run(self._keys.signature.bind(args, kwargs))
        return value

    @property
    def uncached(self) -> Callable[P, R]:
        """The function itself."""
        return self._function

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskJob[R]:
        """The job of a call, submitted if it is not computed or running yet; returns at once.

        With ``cluster=None`` the call is computed first, in this process.
        """
        call = self._keys.call(args, kwargs, is_kept=True)
        return self._infra_of(call).submit(call, engine.mode_now(self._infra.mode))

    def map(self, *iterables: Iterable[Any], **constants: Any) -> Iterator[R]:
        """Results of many calls, as the builtin ``map`` gives them; what is missing is computed, packed into jobs.

        Parameters
        ----------
        *iterables:
            Of the first argument of each call, of the second, and so on; all of the same length.
        **constants:
            Arguments that are the same in all calls.

        Returns
        -------
        Iterator
            The results, in order, each as soon as it is there.

        Raises
        ------
        ItemsFailedError
            Some calls failed: after all others were computed and stored.
        """
        if not iterables:
            msg = f"{self._function.__qualname__}.map takes iterables of arguments, like `.map([1, 2, 3])`"
            raise InfraTypeError(msg)
        mode = engine.mode_now(self._infra.mode)
        try:
            arguments = list(zip(*iterables, strict=True))
        except ValueError:
            msg = f"the iterables given to {self._function.__qualname__}.map are not of the same length"
            raise InfraValueError(msg) from None
        if mode == "off":
            return map(lambda args: self._uncached(args, constants), arguments)  # noqa: C417 - see Memo._results
        return self._results(list(self._keys.calls(arguments, constants)), mode)

    def _results(self, calls: Sequence[Call], mode: engine.Mode) -> Iterator[R]:
        places = [self._places.of(call).path for call in calls]
        groups: dict[str, list[Call]] = {}
        for place, call in zip(places, calls, strict=True):
            groups.setdefault(place, []).append(call)
        results = {place: self._infra_of(group[0]).results(group, mode) for place, group in groups.items()}
        return (next(results[place]) for place in places)

    def lazy(self, *args: P.args, **kwargs: P.kwargs) -> Lazy[R]:
        """The result of a call, computed if it is not in the cache, but not loaded before it is needed."""
        call = self._keys.call(args, kwargs, is_kept=True)
        infra = self._infra_of(call)
        mode = engine.mode_now(self._infra.mode)
        if mode == "off":
            return Lazy("", call.key, f"{infra.uid()}/{call.key}", kept=(self._uncached(args, kwargs),))
        holder = None if mode == "force" else infra.holder_of(call)
        if holder is None:
            infra.value(call, mode)
        return Lazy(
            str((holder or infra).uid_folder()),
            call.key,
            f"{infra.uid()}/{call.key}",
            functools.partial(_again, self, call),
            self._infra.allow_pickle,
        )

    # what is kept

    def cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether the result of a call is in the cache; nothing is computed."""
        call = self._keys.call(args, kwargs)
        return call.key in self._infra_of(call).cache_dict

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of a call, or its error; returns whether there was one."""
        call = self._keys.call(args, kwargs)
        return self._infra_of(call).forget(call)

    def provenance(self, *args: P.args, **kwargs: P.kwargs) -> "Provenance":
        """When, where and with what the stored result or error of a call was computed; nothing is computed.

        Raises
        ------
        NotCachedError
            Nothing is stored for the call.
        """
        call = self._keys.call(args, kwargs)
        return self._infra_of(call).provenance(call)

    def entries(self) -> Entries:
        """What is in the cache of this function, whatever the arguments: a table, when printed."""
        return Entries.of_folders(self._places.root, self._places.pattern, self._places.name, self._infra.allow_pickle)

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> "Explanation":
        """Whether a call would find a result, and why, or why not; nothing is computed or changed on disk."""
        from exca_like.memos.explain import explain_call

        call = self._keys.call(args, kwargs)
        excluded = {
            **dict.fromkeys(self._options.key or (), "recognized by what key=... gives of it"),
            **dict.fromkeys(self._options.exclude, "left out by exclude=..."),
        }
        return explain_call(self._infra_of(call), call, f"{self._places.name}/{call.key}", self.entries(), excluded)

    def config(self, *args: P.args, **kwargs: P.kwargs) -> pydantic.BaseModel:
        """The arguments of a call as a pydantic model, with a field for each parameter."""
        signature = self._keys.signature
        values = signature.bind(args, kwargs)
        return signature.model(**{signature.arguments[name].field: value for name, value in values.items()})

    # how it is done

    @functools.cached_property
    def _keys(self) -> CallKeys:
        options = self._options
        return CallKeys(
            self._function,
            is_method=self._is_method,
            exclude=frozenset(options.exclude),
            key=options.key,
            watch=self._watch,
            policy=options.code,
        )

    @functools.cached_property
    def _places(self) -> Places:
        return Places(self._function, self._keys.signature.arguments, self._options, self._infra.folder, self._infra.version)

    def _infra_of(self, call: Call) -> CallInfra:
        entry = self._places.of(call)
        return self._infras.get(entry.path) or self.calls_in(entry)

    def calls_in(self, entry: EntryFolder) -> CallInfra:
        """See `exca_like.infra.calls.Function`."""
        infra = self._infra.for_calls(self, self._applied, entry, {"function": self._places.name})
        if len(self._infras) >= _MOST_FOLDERS:  # where each call has one of its own
            self._infras.pop(next(iter(self._infras)), None)
        return self._infras.setdefault(entry.path, infra)

    def ready(self, entry: EntryFolder) -> None:
        """See `exca_like.infra.calls.Function`."""
        if self._infra.folder is None:
            ready_root(entry.root)

    def run(self, call: Call) -> Any:
        """See `exca_like.infra.calls.Function`."""
        if self._keys.is_changed(call):
            msg = (
                f"an argument of {self._function.__qualname__} was changed since this call was made, so that its result would "
                "be taken for that of another one: pass a copy of what is changed in place"
            )
            raise InfraUsageError(msg)
        if call.code is not None and call.is_coded:
            check_same(f"{self._places.name}/{call.key}", call.code, self._code_of(call, call.code))
        return self._run(call.values)

    def _code_of(self, call: Call, sent: CodeState) -> CodeState:
        """The code of a call as it is in this process, which may be another one than that which has made the call."""
        if not call.is_sent:
            return sent
        if sent.digest not in self._here:
            self._here[sent.digest] = self._watch.confirmed(sent, self._keys.roots(call.values))
        return self._here[sent.digest]

    def _run(self, values: Mapping[str, Any]) -> Any:
        if any(map(holds_lazy, values.values())):
            wanted = self._keys.signature.arguments
            values = {name: value if wants_lazy(wanted[name].annotation) else loaded(value) for name, value in values.items()}
        return self._keys.signature.call(values)

    def describe(self, call: Call) -> dict[str, Any]:
        """See `exca_like.infra.calls.Function`."""
        notes: dict[str, Any] = {"config": {name: shown(value) for name, value in call.values.items()}}
        if self._options.pin:
            notes["pin"] = True
        if not self._options.track:
            notes["track"] = False
        if call.code is not None:
            code = self._code_of(call, call.code)
            notes["code"] = code.digest
            keep(self._places.root, code, self._infra.permissions)
        return notes


class BoundMemo(Generic[P, R]):
    """A memoised method of an object, or of a class, with all that a `Memo` has."""

    __slots__ = ("_memo", "_obj")

    def __init__(self, memo: Memo[Any, R], obj: Any) -> None:
        self._memo = memo
        self._obj = obj

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._memo(self._obj, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by Python itself, to copy it for instance
            raise AttributeError(name)
        found = getattr(self._memo, name)
        if name == "map":
            return functools.partial(_map_bound, self._memo, self._obj)
        return functools.partial(found, self._obj) if callable(found) and name != "entries" else found

    @property
    def __wrapped__(self) -> Any:
        """The method itself, for those who ask for its signature."""
        return self._memo.uncached.__get__(self._obj)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundMemo) and self._memo is other._memo and self._obj is other._obj

    def __hash__(self) -> int:
        return hash((id(self._memo), id(self._obj)))

    def __repr__(self) -> str:
        return f"<memo of {self._memo.uncached.__qualname__}, of {self._obj!r:.100}>"

    def __reduce__(self) -> Any:
        return BoundMemo, (self._memo, self._obj)


content.register(Memo, lambda memo: (memo.uncached, memo._infra.version))
content.register(BoundMemo, lambda bound: (bound._memo, bound._obj))


def _map_bound(memo: Memo[Any, Any], obj: Any, *iterables: Iterable[Any], **constants: Any) -> Iterator[Any]:
    columns = [list(each) for each in iterables]
    number = len(columns[0]) if columns else 0
    return memo.map([obj] * number, *columns, **constants) if columns else memo.map(**constants)


def _again(memo: Memo[Any, Any], call: Call) -> None:
    memo._infra_of(call).value(call, "cached")


if TYPE_CHECKING:
    from exca_like.explaining import Explanation
    from exca_like.provenance import Provenance

    class ClassMemo(Memo[P, R]):
        """What type checkers see of memoised class methods and static methods: nothing is bound any more."""

        def __get__(self, obj: Any, owner: Any) -> Self: ...


@overload
def memo(function: "classmethod[Any, P, R]", /) -> "ClassMemo[P, R]": ...
@overload
def memo(function: "staticmethod[P, R]", /) -> "ClassMemo[P, R]": ...
@overload
def memo(function: Callable[P, R], /) -> Memo[P, R]: ...
@overload
def memo(
    *,
    folder: str | Path | None = None,
    exclude: Iterable[str] = (),
    key: Mapping[str, Callable[[Any], Any]] | None = None,
    cache_type: Any = None,
    group_by: Iterable[str] = (),
    path: str | None = None,
    prefix: str | None = None,
    subdir: str | None = None,
    pin: bool = False,
    track: bool = True,
    code: CodePolicy | None = None,
    watch: Iterable[Any] = (),
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
    group_by: Iterable[str] = (),
    path: str | None = None,
    prefix: str | None = None,
    subdir: str | None = None,
    pin: bool = False,
    track: bool = True,
    code: CodePolicy | None = None,
    watch: Iterable[Any] = (),
    **infra: Any,
) -> Any:
    """Keep the results of a function, as a decorator with or without arguments.

    A call whose arguments have the same content as those of an earlier one gives its result from the cache, in this process
    and in any later one. It does not matter whether arguments are given by position, by name, or as defaults. Arguments with
    a type are validated by it, as fields of a pydantic model; others are told apart exactly (see `exca_like.content`). An
    exception is raised as it is, and the next call computes again.

    Parameters
    ----------
    function:
        A function or a method. A method's object counts by its fields, if it is a pydantic model or a dataclass.
    folder:
        Where results and logs are kept; None: in ``.exca_like`` of the project, see `exca_like.memos.paths.default_root`.
    exclude:
        Names of parameters, and of variables of an outer function, that make no difference to the result.
    key:
        By the name of a parameter, a function that gives what its arguments are recognized by.
    cache_type:
        What stores the results: the name of a handler, a handler, or for results that are dictionaries one for each output,
        by name; None: chosen by each result's type, and a ``pathlib.Path`` is stored with the file or folder that it names (of
        more than 1 GB, the path alone). ``"Auto"`` keeps paths alone.
    group_by:
        Names of parameters whose values make folders: ``dataset=MNIST/epochs=20``.
    path:
        Where results are, below the folder, in place of the function's name and groups: a template with names of parameters,
        ``{function}`` and ``{uid}`` (of the call) in braces. Without ``{uid}``, results of several calls are kept together.
    prefix:
        What stands for the function's name on disk: results are found again after it was renamed or moved.
    subdir:
        A folder above, below ``folder``.
    pin:
        Never remove the results when the cache is cleaned up.
    track:
        Whether the results are part of bundles.
    code:
        What to do with results that other code has computed: ``"recompute"`` (the code is part of what a call is recognized
        by), ``"warn"`` (they are taken, with a warning), ``"ignore"``. None: what the setting ``code`` says, else
        ``"recompute"``. The code is the function and all that it reaches of your own, see `exca_like.code`.
    watch:
        What reading the source does not find: functions and classes whose code counts, and names of variables of the
        function's module whose values count, as they are at each call.
    **infra:
        How it is computed: fields of a `MapInfra`, for instance ``version``, ``mode``, ``cluster``, ``gpus_per_node``, or
        ``read_folders`` to find results in.

    Returns
    -------
    Memo
        Called like the function. It has ``submit``, ``map``, ``lazy``, ``cached``, ``forget``, ``explain``, ``provenance``,
        ``config``, ``entries`` and ``uncached``.

    Raises
    ------
    TypeError, ValueError
        It is no plain function, or an option does not fit it.

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
    settings = CallInfra(folder=folder, **infra)
    options = Options(exclude, key, cache_type, group_by, path, prefix, subdir, pin, track, code, watch)

    def wrap(function: Any) -> Any:
        kind = {staticmethod: "static", classmethod: "class"}.get(type(function), "")
        plain = function.__func__ if kind else function
        return Memo(plain, settings, options.checked(plain), kind)

    return wrap if function is None else wrap(function)


__all__ = ["BoundMemo", "Memo", "memo"]
