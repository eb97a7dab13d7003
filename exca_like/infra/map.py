"""MapInfra: one config, many items."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

import pydantic

from exca_like import engine, mapping, parts, works
from exca_like.cachedict import CacheDict
from exca_like.cachedict.failures import Failure
from exca_like.errors import InfraTypeError, InfraUsageError, InfraValueError, NotCachedError
from exca_like.executors.base import CODE, Executor, Resources
from exca_like.executors.environment import current_job
from exca_like.hits import counts
from exca_like.infra.applied import checked_exclusion
from exca_like.infra.coded import CodedInfra
from exca_like.infra.items import SHORTEST, AppliedMap
from exca_like.infra.modes import InfraMode, mode_of
from exca_like.infra.readers import cache_through, reader_with_item
from exca_like.infra.state import State
from exca_like.item_store import ItemStore
from exca_like.layout import EntryFolder
from exca_like.recording import noted
from exca_like.watching import CodeState, Watch

if TYPE_CHECKING:
    from exca_like.explaining import Explanation
    from exca_like.provenance import Provenance

C = TypeVar("C", bound=Callable[..., Any])
M = TypeVar("M")

_MISSING: Any = object()
_POOLS = ("threadpool", "processpool")

Returned = tuple[list[parts.Given], Failure | None]
"""What a worker without a folder sends back: what items gave, and an error that belongs to none."""


@dataclass
class MapCall:
    """What a job or a process of a pool runs: a part of a map."""

    owner: Any
    infra_name: str
    entry: EntryFolder
    keys: Sequence[str]
    items: Sequence[Any]
    claim: str
    mode: engine.Mode
    code: CodeState | None = None

    def __call__(self) -> Returned | None:
        infra: MapInfra = getattr(self.owner, self.infra_name)
        # a class that was pickled by value has lost its full name, which the uid begins with
        infra._linked_state.entry = self.entry
        infra._take_code(self.code)
        return infra._run_part(self)


class _SameCode:
    """Makes the executors of one call: jobs that take the place of others have the same copy of the code."""

    def __init__(self, infra: "MapInfra") -> None:
        self._infra = infra
        self._code: dict[str, Any] = {}

    def __call__(self, number: int, resources: Resources | None) -> Executor:
        executor = self._infra._executor(number, replace(resources or self._infra._resources(), **self._code))
        self._code = {name: getattr(executor.resources, name) for name in CODE}
        return executor


class MapInfra(CodedInfra):
    """Caching and remote execution of a method of many items, which yields a result for each.

    Declare it as a field of a pydantic model, and apply it to the method::

        class Features(pydantic.BaseModel):
            size: int = 16
            infra: exca_like.MapInfra = exca_like.MapInfra(version="1")

            @infra.apply(item_uid=str)
            def compute(self, paths: list[str]) -> Iterator[numpy.ndarray]:
                model = load_model(self.size)  # once for each job
                for path in paths:
                    yield model(path)

        for result in Features(infra={"folder": "cache", "cluster": "slurm"}).compute(paths): ...

    Only what is missing is computed, and each item once, however many callers want it at a time. Results come in the order
    of the items, each as soon as it is there.
    """

    cluster: Literal["local", "slurm", "auto", "debug", "threadpool", "processpool"] | None = None  # type: ignore[assignment]
    """Where to compute: None in this process, as results are asked for; ``"threadpool"``, ``"processpool"`` in threads or
    processes of this machine, while this process lives; ``"local"``, ``"slurm"``, ``"auto"`` in jobs, which outlive it."""
    mode: InfraMode = "cached"
    """``"cached"``: only missing items are computed, and those that failed (``"retry"`` is the same); ``"force"``: each
    item is computed again once by each instance; ``"force-forward"``: so is what every config that contains this one
    computes; ``"read-only"``: nothing is computed; ``"off"``: all items are computed at each call, in this process, without
    cache or jobs, and an error is raised as it is. The variable EXCA_LIKE_MODE stands in for the modes of all infras."""
    keep_in_ram: bool = True
    """Keep the results in memory, for this instance."""
    max_jobs: pydantic.PositiveInt | None = 128
    """Into how many jobs items are packed at most; None: as many as there are items."""
    min_samples_per_job: pydantic.PositiveInt = 1
    """How many items a job has at least, if there are so many."""
    forbid_single_item_computation: bool = False
    """Raise if one item alone were computed: often a sign that items are asked for one by one, which makes a job for each."""

    if TYPE_CHECKING:  # an infra reached through a config knows the config's type

        @overload
        def __get__(self, obj: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, obj: M, owner: Any) -> "LinkedMapInfra[M]": ...
        def __get__(self, obj: Any, owner: Any) -> Any: ...
        def __set__(self, obj: Any, value: Any) -> None: ...

    def apply(  # type: ignore[override]
        self,
        *methods: Any,
        item_uid: Callable[[Any], str] | None = None,
        item_uid_max_length: int | None = 256,
        exclude_from_cache_uid: Any = (),
        cache_type: Any = None,
        watch: Any = (),
    ) -> Callable[[C], C]:
        """Tie the infra to a method, as a decorator.

        Parameters
        ----------
        item_uid:
            Gives the text that an item is recognized by: a function of the item.
        item_uid_max_length:
            Longer texts are shortened, with a digest in place of what is left out; None: never.
        exclude_from_cache_uid:
            Fields that don't change what the method returns, in addition to ``_exclude_from_cls_uid``: a list of
            (dotted) names, a function of the class that returns one, or ``"method:<name>"`` for a method that does and
            that subclasses may override.
        cache_type:
            What stores the results: the name of a handler, a handler, or for results that are dictionaries one for each
            output, by name; None: chosen by each result's type. See `CacheDict`.
        watch:
            What reading the source of the method does not find: functions and classes whose code counts, too, and names of
            variables of its module whose values count, as they are at each call; see the field ``code``.

        Raises
        ------
        TypeError
            There is no ``item_uid``, or the method does not take one list of items.
        """
        if methods or not callable(item_uid):
            msg = (
                "a MapInfra needs to know what an item is recognized by: `@infra.apply(item_uid=str)`, or another function "
                "of an item that returns a text"
            )
            raise InfraTypeError(msg)
        if item_uid_max_length is not None and item_uid_max_length < SHORTEST:
            msg = f"item_uid_max_length={item_uid_max_length} leaves no room for a digest: at least {SHORTEST}"
            raise InfraValueError(msg)
        if cache_type is not None:
            cache_type = CacheDict(None, keep_in_ram=True, cache_type=cache_type).cache_type  # an unknown one raises
        exclude = checked_exclusion(exclude_from_cache_uid)

        def tie(method: C) -> C:
            applied = AppliedMap(
                method, exclude, Watch(method, watch), item_uid=item_uid, max_length=item_uid_max_length, cache_type=cache_type
            )
            return self._tie(applied, _wrap)  # type: ignore[return-value]

        return tie

    def item_uid(self, item: Any) -> str:
        """The key of an item."""
        return self._applied_map.key(item)

    @property
    def cache_dict(self) -> CacheDict[Any]:
        """The store of the results, by `item_uid`."""
        if self.folder is not None:
            self._check_folder()
        return self._item_store().cache

    def explain(self, item: Any) -> "Explanation":
        """Whether a call would find the result of an item, and why, or why not; nothing is computed or changed on disk."""
        from exca_like.infra.explain import explain_item

        return explain_item(self, self.item_uid(item))

    def provenance(self, item: Any) -> "Provenance":
        """When, where and with what the stored result or error of an item was computed; nothing is computed or changed.

        Raises
        ------
        NotCachedError
            Nothing is stored for the item, or there is no folder.
        """
        return self._provenance(self.item_uid(item))

    def _provenance(self, key: str) -> "Provenance":
        from exca_like.provenance import no_entry, provenance_of

        own = self._make_cache(keep_in_ram=False) if self.folder is not None and self._check_folder() else None
        reader = None if own is not None and key in own else reader_with_item(self, key)
        if reader is not None:
            found: Provenance = reader._provenance(key)
            return found
        if own is not None and (key in own or own.failure_mark(key) is not None):
            return provenance_of(own.meta(key), self._entry().root)
        label = f"{self.uid()}/{key}"
        raise no_entry(label, has_folder=self.folder is not None or bool(self.read_folders))

    def _item_store(self) -> ItemStore:
        state = self._linked_state
        if state.store is None:
            own = self._make_cache(keep_in_ram=self.keep_in_ram or self.folder is None)
            made = ItemStore(cache_through(self, own), run=self._run())
            state.__dict__.setdefault("store", made)  # another thread may have been first
        store: ItemStore = state.__dict__["store"]
        return store

    @property
    def _applied_map(self) -> AppliedMap:
        applied = self._linked_state.applied
        assert isinstance(applied, AppliedMap)
        return applied

    def _make_cache(self, *, keep_in_ram: bool) -> CacheDict[Any]:
        folder = None if self.folder is None else self._entry().path
        return CacheDict(folder, keep_in_ram, self._applied_map.cache_type, self.permissions, self.allow_pickle)

    def _check_built(self) -> None:
        if self.cluster not in _POOLS:
            super()._check_built()

    def executor(self) -> Any:
        """A submitit executor with this infra's settings; None for ``cluster=None`` and for pools."""
        return None if self.cluster in _POOLS else super().executor()

    # how it is done

    def _call(self, items: Any = ()) -> Iterator[Any]:
        """What a call of the method does."""
        state: State = self._state  # type: ignore[attr-defined]
        if state.is_coded:
            self._entry()  # notices if other code has come
        applied: Any = state.applied
        keys: list[str] | None = None
        if type(items) is list or isinstance(items, Sequence):
            if type(items) is not list and isinstance(items, str | bytes):
                raise applied.not_items(items)
            keys = applied.keys(items)
        store: Any = state.store
        if (
            store is not None
            and store.cache.keep_in_ram
            and state.steady_mode
            and keys is not None
            and store.cache.in_ram(keys)
        ):
            return self._stored(items, keys, store)  # the environment is not asked
        mode = mode_of(self, state)
        if mode == "off":
            return self._uncached(items, keys, applied)
        if store is None or not (state.folder_is_checked or self.folder is None):
            store = self._open_store()
        known = state.compared
        if (known is None or known.watched or not known.fingerprint.is_current()) and (
            self.folder is not None or self.read_folders
        ):
            self._expect_code(state, store)
        kept: dict[str, Any] | None = None
        if keys is None:
            keys, kept = self._seen_once(items, store, applied, mode)
        elif mode != "force":  # what is known need not be looked at: it is loaded
            if len(keys) == 1 and (value := store.cache.known(keys[0], _MISSING)) is not _MISSING:
                counts[state.entry] += 1
                return iter((value,))  # a generator costs more than the value
            if not store.cache.unknown(keys):
                counts[state.entry] += len(keys)
                return self._stored(items, keys, store)
        missing = self._missing(items, keys, kept, store, mode)
        if found := sum(key not in missing for key in keys):
            counts[state.entry] += found
        if not missing:
            return self._stored(items, keys, store)
        planned = self._mapping(items, keys, missing, store, mode)
        self._check_plan(planned)
        return mapping.results(planned)

    def _expect_code(self, state: State, store: ItemStore) -> None:
        """Have a warning given for results that other code has computed."""
        now = None if state.is_coded else self._code_state()
        if now is not state.compared:
            store.cache.expect(None if now is None else f"code={now.digest}", self._compare_code)
            state.compared = now

    def _compare_code(self, key: str, meta: Any) -> None:  # noqa: ARG002 - see CacheDict.expect
        stored = noted(meta).get("code")
        if stored is not None:
            self._warn_of(stored)

    def _uncached(self, items: Any, keys: list[str] | None, applied: AppliedMap) -> Iterator[Any]:
        """What a call gives in mode ``"off"``: neither the folder nor the memory is looked at or changed."""
        if not isinstance(items, Iterable):
            raise applied.not_items(items)
        if keys is None:
            items = list(items)
            keys = applied.keys(items)
        distinct: dict[str, Any] = {}
        for key, item in zip(keys, items, strict=True):
            applied.keep(distinct, key, item)
        owner = self._linked_state.owner
        label = f"{applied.method_path(type(owner))},{self.version}"
        self._check_number(label, distinct)
        if not keys:
            return iter(())
        method = functools.partial(_call_method, applied, owner)
        return parts.plain_results(parts.Part(label, list(distinct), list(distinct.values()), method), keys)

    def _open_store(self) -> ItemStore:
        if self.folder is not None:
            self._check_folder()
        elif not self.keep_in_ram:
            return ItemStore(cache_through(self, self._make_cache(keep_in_ram=True)))  # for one call
        return self._item_store()

    def _stored(self, items: Any, keys: list[str], store: ItemStore) -> Iterator[Any]:
        cache = store.cache
        for place, key in enumerate(keys):
            try:
                value = cache[key]
            except KeyError:  # it was deleted, or turned out to be damaged
                again = self._mapping(items, keys, {key: None}, store, mode_of(self, self._linked_state))
                self._check_plan(again)
                value = mapping.compute_again(again, place)
            yield value

    def _seen_once(
        self, items: Any, store: ItemStore, applied: AppliedMap, mode: engine.Mode
    ) -> tuple[list[str], dict[str, Any]]:
        """The keys of the items of an iterator, and those items that may be needed."""
        if not isinstance(items, Iterable):
            raise applied.not_items(items)
        cache, forces = store.cache, mode == "force"
        keys: list[str] = []
        kept: dict[str, Any] = {}
        cache.refresh()
        for item in items:
            keys.append(key := applied.key(item))
            if forces or cache.unknown((key,)):
                applied.keep(kept, key, item)
        return keys, kept

    def _missing(
        self, items: Any, keys: list[str], kept: dict[str, Any] | None, store: ItemStore, mode: engine.Mode
    ) -> dict[str, Any]:
        """The items that are to be computed, by key; ``kept`` are those of an iterator."""
        cache, applied, done = store.cache, self._applied_map, self._linked_state.recomputed_items
        if mode == "force":
            cache.refresh()  # what there is now is told from what will be computed
            wanted = [key for key in keys if key not in done or cache.mark(key) is None]
        else:
            wanted = cache.missing(cache.unknown(keys))  # one that is known, but gone, is found missing when it is loaded
        if kept is not None:
            return {key: kept[key] for key in wanted}
        found = dict(zip(keys, items, strict=True)) if len(wanted) == len(keys) else {}
        if len(found) < len(wanted):
            found, lacking = {}, set(wanted)
            for key, item in zip(keys, items, strict=True):
                if key in lacking and found.setdefault(key, item) is not item:
                    applied.keep(found, key, item)
        return found

    def _mapping(
        self, items: Any, keys: list[str], missing: dict[str, Any], store: ItemStore, mode: engine.Mode
    ) -> works.Mapping:
        state, applied = self._linked_state, self._applied_map
        return works.Mapping(
            label=self.uid(),
            keys=keys,
            missing=missing,
            item_at=functools.partial(applied.item_at, items, keys),
            method=functools.partial(_call_method, applied, state.owner),
            store=store,
            claims=self._claims(),
            mode=mode,
            recomputed=state.recomputed_items,
            cluster=self.cluster,
            call=functools.partial(self._part_call, mode=mode),
            executor=_SameCode(self),
            next_resources=None if self.retries is None else functools.partial(self.retries.resources, self._resources()),
            max_jobs=self.max_jobs,
            min_items=self.min_samples_per_job,
        )

    def _check_plan(self, planned: works.Mapping) -> None:
        if planned.mode == "read-only":
            number = len(planned.missing)
            shown = ", ".join(map(repr, list(planned.missing)[:5])) + (", ..." if number > 5 else "")
            msg = (
                f"{number} of {len(planned.keys)} items of {planned.label} are not in the cache, and mode='read-only' computes "
                f"nothing: {shown}. Check the config and the folder, or use mode='cached' to compute them."
            )
            raise NotCachedError(msg)
        self._check_number(planned.label, planned.missing)
        self._check_built()
        if self.folder is not None:
            self._prepare_folder()
            if self.cluster == "processpool" and (run := self._run()) is not None:
                run.digest()  # which the workers inherit

    def _check_number(self, label: str, wanted: Mapping[str, Any]) -> None:
        """Raise if one item alone were computed, where that is forbidden."""
        if self.forbid_single_item_computation and len(wanted) == 1:
            msg = (
                f"{label} would compute one item alone, {next(iter(wanted))!r}, which "
                "forbid_single_item_computation does not allow: compute all items in one call first"
            )
            raise InfraUsageError(msg)

    def _part_call(self, keys: Sequence[str], items: Sequence[Any], claim: str, mode: engine.Mode) -> MapCall:
        return MapCall(self._linked_state.owner, self._field_name(), self._entry(), keys, items, claim, mode, self._sent_code())

    def _store_for(self, items: dict[str, Any]) -> ItemStore:  # noqa: ARG002 - a subclass describes them
        """A store for what some items give in this process."""
        return ItemStore(self._make_cache(keep_in_ram=False), run=self._run())

    def _run_part(self, call: MapCall) -> Returned | None:
        """Compute and store in this process, which is a job or belongs to a pool."""
        method = functools.partial(_call_method, self._applied_map, self._linked_state.owner)
        if self.folder is None:
            given: list[parts.Given] = []
            try:
                given.extend(parts.outcomes(parts.Part(call.entry.uid, call.keys, call.items, method)))
            except Exception as error:  # of no item: the method breaks its contract, or raises after its last result
                return given, Failure.of(error)
            return given, None
        self._prepare_folder()
        items = dict(zip(call.keys, call.items, strict=True))
        store = self._store_for(items)
        # a worker of a pool ends with its submitter, though a job that both run in may go on
        job = None if self.cluster in _POOLS else current_job(self._log_folder())
        claim = self._claims().adopt(call.claim, call.keys, job)
        claims: Sequence[Any] = [claim]
        if claim is None:  # it was taken for dead: what others do meanwhile is theirs
            claims, _ = self._claims().claim(call.keys, lambda free: [free] if free else [])
        for claim in claims:
            with claim:
                missing = claim.keys if call.mode == "force" else store.cache.missing(claim.keys)
                part = parts.Part(call.entry.uid, missing, [items[key] for key in missing], method)
                for _ in works.compute(part, store, claim, replaces=call.mode == "force"):
                    pass
        return None


if TYPE_CHECKING:

    class LinkedMapInfra(MapInfra, Generic[M]):
        """What type checkers see as the infra of a config of type ``M``."""

        def clone_obj(self, *args: Mapping[str, Any], **kwargs: Any) -> M: ...

        def iter_cached(self) -> Iterator[M]: ...


def _wrap(applied: AppliedMap) -> Callable[..., Any]:
    """The function that takes the method's place."""

    @functools.wraps(applied.method)
    def cached_method(self: Any, *args: Any, **kwargs: Any) -> Any:
        items = args[0] if len(args) == 1 and not kwargs else applied.items_of(args, kwargs)
        infra: Any = None
        try:
            infra = self.__dict__[applied.infra_name]
            state = infra._state
            is_linked = state.owner is self and state.field.applied is applied
        except (KeyError, AttributeError):
            is_linked = False
        if not is_linked:
            infra = applied.infra_of(self)
        return applied.method(self, items) if infra is None else infra._call(items)

    applied.wrapper = cached_method
    return cached_method


def _call_method(applied: AppliedMap, owner: Any, items: Sequence[Any]) -> Iterable[Any]:
    found: Iterable[Any] = applied.method(owner, applied.container(items))
    return found


__all__ = ["MapInfra"]
