"""The calls of a function as the items of a map: looked up, claimed, computed and stored one by one, or many together."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from exca_like import engine, files, layout, mapping, runs, works, yamltext
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.handlers.containers import holds_paths
from exca_like.errors import ConfigMismatchError, ExcaLikeError, InfraUsageError, ItemsFailedError, SubmissionError
from exca_like.executors import open_job
from exca_like.executors.base import WAVE_S, JobHandle, Resources, cancelled_unless_noted
from exca_like.hits import counts
from exca_like.infra.applied import AppliedMethod
from exca_like.infra.items import AppliedMap
from exca_like.infra.job import TaskJob, uncached_job
from exca_like.infra.map import MapCall, MapInfra, Returned
from exca_like.infra.readers import reader_with_item
from exca_like.infra.resources import JOB_CLUSTERS
from exca_like.infra.state import State
from exca_like.item_store import ItemStore
from exca_like.layout import EntryFolder
from exca_like.store import SharedStore
from exca_like.watching import CodeState, Watch, warn

_MOST_BYTES = 1 << 30  # of what a path names, for it to be stored unasked
_computing = threading.local()  # the calls that a thread is at


@dataclass(frozen=True)
class Call:
    """One call of a function: its key, and the values of all parameters."""

    key: str
    values: Mapping[str, Any]
    maker: int = 0
    """The process whose objects the values are, if it may be run later, when they may have been changed in place."""
    code: CodeState | None = None
    """The code that its result depends on; None if that does not count."""
    is_coded: bool = False
    """Whether the code is part of the key."""
    is_sent: bool = False
    """Whether it was sent to a job, or to a worker of a pool."""


class Function(Protocol):
    """The function whose calls they are; it can be pickled."""

    @property
    def uncached(self) -> Callable[..., Any]:
        """The function itself."""
        ...

    def run(self, call: Call) -> Any:
        """What the function returns."""
        ...

    def describe(self, call: Call) -> dict[str, Any]:
        """JSON data to keep beside the result."""
        ...

    def ready(self, entry: EntryFolder) -> None:
        """Prepare what the folder of an entry is to be in."""
        ...

    def calls_in(self, entry: EntryFolder) -> "CallInfra":
        """The infra of the calls that are kept in a folder."""
        ...


@dataclass
class CallsPart(MapCall):
    """What a job or a process of a pool runs: some calls."""

    def __call__(self) -> Returned | None:
        infra: CallInfra = self.owner.calls_in(self.entry)
        self.items = [replace(call, is_sent=True) for call in self.items]
        return infra._run_part(self)


def _run_calls(function: Function, calls: list[Call]) -> Iterator[Any]:
    for call in calls:
        yield function.run(call)


def applied_to_calls(cache_type: Any) -> AppliedMap:
    """What a `CallInfra` does with its items."""
    return AppliedMap(_run_calls, (), Watch(_run_calls), item_uid=attrgetter("key"), max_length=None, cache_type=cache_type)


class _Notes(NamedTuple):
    """What is said of the results of calls."""

    function: Function
    calls: Mapping[str, Call]
    keeps_files: bool
    """Whether files are stored with the paths that name them."""

    def meta(self, key: str) -> dict[str, Any]:
        """See `exca_like.store.Notes`."""
        return self.function.describe(self.calls[key])

    def cache_type(self, value: Any) -> Any:
        """See `exca_like.store.Notes`."""
        if not (self.keeps_files and holds_paths(value)):
            return None
        from exca_like.cachedict.handlers.paths import Files  # only for those who need it

        return Files(limit=_MOST_BYTES)


class CallState(State):
    """What a `CallInfra` knows beside its fields."""

    identity: dict[str, Any]


class CallInfra(MapInfra):
    """Caching and remote execution of the calls of a function, those of one folder."""

    mode: engine.Mode = "cached"  # pyright: ignore[reportIncompatibleVariableOverride] # a call contains no other
    keep_in_ram: bool = False

    def for_calls(
        self, function: Function, applied: AppliedMethod, entry: EntryFolder, identity: dict[str, Any]
    ) -> "CallInfra":
        """A copy for the calls of a function that are kept in a folder."""
        state = CallState(function, None, applied)
        state.entry, state.identity = entry, identity
        return self._copy({**self.__dict__, "folder": entry.root}, self.__pydantic_fields_set__, state)

    def _uid_export(self, *, exclude_defaults: bool) -> dict[str, Any]:  # noqa: ARG002 - there are none
        state = self._linked_state
        assert isinstance(state, CallState)
        return state.identity

    def _code_state(self) -> CodeState | None:
        """None: each call has its own."""
        return None

    def _exports(self) -> dict[str, dict[str, Any]]:
        return dict.fromkeys((layout.CONFIG, layout.UID, layout.FULL_UID), self._identity())

    def _check_folder(self) -> bool:
        state, entry = self._linked_state, self._entry()
        if state.folder_is_checked:
            return True
        try:
            stored = files.read_bytes(entry.full_uid)
        except FileNotFoundError:
            return os.path.isdir(entry.path)
        identity = self._identity()
        if stored != yamltext.dump(identity).encode():
            try:
                there = yamltext.load(stored.decode())
            except (ExcaLikeError, UnicodeDecodeError):  # it is written again when something is computed
                return True
            if there != identity:
                msg = (
                    f"{entry.path} holds results of {there.get('function')}, not of {identity['function']}. Give `path` more "
                    "parts that tell them apart, like {function}, or this function another prefix."
                )
                raise ConfigMismatchError(msg)
        state.folder_is_checked = True
        return True

    def _prepare_folder(self, key: str | None = None) -> Any:
        state = self._linked_state
        if not state.folder_is_checked:
            state.owner.ready(self._entry())
        return super()._prepare_folder(key)

    def forget(self, call: Call) -> bool:
        """Remove the outcome of a call; returns whether there was one."""
        store = self._store_of(call)
        is_there = store.peek(call.key) is not None
        store.discard(call.key)
        self._linked_state.recomputed_items.discard(call.key)
        return is_there

    def _resources(self) -> Resources:
        resources = super()._resources()
        if self.job_name is not None:
            return resources
        path, _, version = self.uid().partition("/")[0].rpartition(",")
        name = f"{path.rpartition('.')[2]},{version}" if path else version
        return replace(resources, job_name=f"{name}/call")  # of an array, what is before the slash

    def _source(self) -> str:
        function: Function = self._linked_state.owner
        return runs.source_of(function.uncached)

    def _label(self, call: Call) -> str:
        return f"{self.uid()}/{call.key}"

    def holder_of(self, call: Call) -> "CallInfra | None":
        """The infra whose folder has the result of a call: this one, or that of a read folder; None if there is none."""
        cache = self._open_store().cache
        if call.key not in cache:
            return None
        return self if cache.mark(call.key) is not None else reader_with_item(self, call.key)

    # one call

    def value(self, call: Call, mode: engine.Mode) -> Any:
        """What a call gives, from the cache if it is there, else computed here or by a job."""
        state = self._linked_state
        store: ItemStore | None = state.store
        if store is None or not state.folder_is_checked:
            store = self._open_store()
        key = call.key
        if not self._is_to_be_forced(call, mode):
            is_kept = store.cache.keep_in_ram and store.cache.in_ram((key,))
            try:
                value = store.cache[key]
            except KeyError:
                if mode == "read-only":
                    raise engine.not_cached(self._label(call)) from None
            else:
                if call.code is not None and not call.is_coded:
                    self._compare_call(call, store)
                if not is_kept:
                    counts[state.entry, key] += 1
                return value
        if self.cluster in JOB_CLUSTERS:
            return self._value_of_job(call, store, mode)
        return self._run_here(call, mode).get()

    def _compare_call(self, call: Call, store: ItemStore) -> None:
        """Warn if a stored result was computed by other code than there is now."""
        try:
            stored = (store.cache.describe(call.key).get("#meta") or {}).get("code")
        except KeyError:  # it is in memory, or was deleted
            return
        if stored is not None and call.code is not None and stored != call.code.digest:
            warn(self._label(call), self._roots(), stored, call.code)

    def _run_here(self, call: Call, mode: engine.Mode) -> Any:
        """The outcome of a call, computed in this process unless another one does so already."""
        key = call.key
        path = f"{self._entry().path}/{key}"
        mine: set[str] = _computing.__dict__.setdefault("calls", set())
        if path in mine:
            msg = f"{self._label(call)} needs its own result: the function calls itself with the same arguments"
            raise InfraUsageError(msg)
        self._check_built()
        self._prepare_folder()
        mine.add(path)
        try:
            outcome = engine.run(self._batch(call, mode))[key]
        finally:
            mine.discard(path)
        self._linked_state.recomputed_items.add(key)
        return outcome

    def _batch(self, call: Call, mode: engine.Mode) -> engine.Batch:
        function: Function = self._linked_state.owner
        return engine.Batch(
            label=self.uid(),
            keys=(call.key,),
            compute=lambda keys: map(lambda _: function.run(call), keys),  # noqa: C417 - a generator would change a StopIteration
            store=self._store_of(call),
            claims=self._claims,
            mode="force" if mode == "force" else "retry",  # an error of an earlier call is no result
        )

    def _value_of_job(self, call: Call, store: ItemStore, mode: engine.Mode) -> Any:
        planned = self._mapping([call], [call.key], {call.key: call}, store, mode)
        self._check_plan(planned)
        try:
            return next(mapping.results(planned))
        except ItemsFailedError as error:
            failure: Failure = error.failures[call.key]
            raise failure.exception() from None

    def _store_of(self, call: Call) -> SharedStore:
        """Where the outcome of a call is, or will be."""
        return SharedStore(self._open_store().cache, call.key, self._notes({call.key: call}), self._run())

    def _notes(self, calls: Mapping[str, Call]) -> "_Notes":
        return _Notes(self._linked_state.owner, calls, keeps_files=self._applied_map.cache_type is None)

    # many calls

    def results(self, calls: Sequence[Call], mode: engine.Mode) -> Iterator[Any]:
        """What calls give, in order, each as soon as it is there; as `MapInfra` does it."""
        store = self._open_store()
        keys = [call.key for call in calls]
        items: dict[str, Any] = dict(zip(keys, calls, strict=True))
        done = self._linked_state.recomputed_items
        store.cache.refresh()
        if mode == "force":
            wanted: Sequence[str] = [key for key in items if key not in done or store.cache.mark(key) is None]
        else:
            wanted = store.cache.unknown(list(items))
        planned = self._mapping(calls, keys, {key: items[key] for key in wanted}, store, mode)
        if wanted:
            self._check_plan(planned)
        for key in items.keys() - set(wanted):
            counts[self._entry(), key] += 1
            if items[key].code is not None and not items[key].is_coded:
                self._compare_call(items[key], store)
        return mapping.results(planned)

    def _mapping(
        self, items: Any, keys: list[str], missing: dict[str, Any], store: ItemStore, mode: engine.Mode
    ) -> works.Mapping:
        return super()._mapping(items, keys, missing, ItemStore(store.cache, self._notes(missing), self._run()), mode)

    def _store_for(self, items: dict[str, Any]) -> ItemStore:
        return ItemStore(self._make_cache(keep_in_ram=False), self._notes(items), self._run())

    def _part_call(self, keys: Sequence[str], items: Sequence[Any], claim: str, mode: engine.Mode) -> CallsPart:
        return CallsPart(self._linked_state.owner, "", self._entry(), keys, items, claim, mode)

    # jobs

    def submit(self, call: Call, mode: engine.Mode) -> TaskJob[Any]:
        """The job of a call, submitted if it is not computed or running yet."""
        if mode == "off":
            function: Function = self._linked_state.owner
            return self._begun(uncached_job(self._label(call), functools.partial(function.run, call)))
        if self.cluster in JOB_CLUSTERS and self.retries is not None:
            msg = (
                f"{self.uid()} has retries, for which somebody has to wait: call it, or use map(); submit() sends one job that "
                "nobody looks after"
            )
            raise InfraUsageError(msg)
        self._check_built()
        patience = engine.Patience(self.uid())
        while True:
            if not self._is_to_be_forced(call, mode) and (holder := self.holder_of(call)) is not None:
                return holder._job(call)
            if mode == "read-only":
                raise engine.not_cached(self._label(call))
            if self.cluster not in JOB_CLUSTERS:
                return self._begun(self._job_here(call, mode))
            self._prepare_folder()
            job, waiting = self._sent(call, mode)
            if job is not None:
                return job
            if waiting:
                patience.wait(waiting)

    def _is_to_be_forced(self, call: Call, mode: engine.Mode) -> bool:
        return mode == "force" and call.key not in self._linked_state.recomputed_items

    def _begun(self, job: TaskJob[Any]) -> TaskJob[Any]:
        """A job of this process, which computes now, or with ``cluster="debug"`` when its result is asked for."""
        if self.cluster != "debug":
            job.wait()
        return job

    def _sent(self, call: Call, mode: engine.Mode) -> tuple[TaskJob[Any] | None, Sequence[engine.Waiting]]:
        """The job of a call, sent now or by somebody else; if there is none, what it is waited for."""
        key, cache = call.key, self._item_store().cache

        def choose(free: list[str]) -> list[list[str]]:
            cache.refresh()
            return [free] if free and (mode == "force" or cache.mark(key) is None) else []

        claims, waiting = self._claims().claim([key], choose)
        for claim in claims:
            with claim, self._store_of(call).replaced(key):  # an old outcome comes back if the submission fails
                handle = self._handle_of(call, mode, claim)
                self._linked_state.recomputed_items.add(key)
                return self._job(call, handle), ()
        record = next((others.job for others in waiting), None)
        if record and mode != "force":  # somebody else's
            return self._job(call, open_job(record)), ()
        return None, waiting

    def _handle_of(self, call: Call, mode: engine.Mode, claim: Any) -> JobHandle:
        """Send a call that is claimed; the claim is the job's from then on."""
        part: Any = self._part_call(claim.keys, [call], claim.path, mode)
        for handles in self._executor(1).submit([part], 1):
            if not handles:  # the cluster takes no more jobs now
                time.sleep(WAVE_S)
                continue
            with cancelled_unless_noted(handles) as noted:
                claim.hand_over(handles[0].record())
                noted.append(handles[0])
            return handles[0]
        msg = f"no job was sent for {self._label(call)}"
        raise SubmissionError(msg)

    def _job(self, call: Call, handle: JobHandle | None = None, compute: Callable[[], None] | None = None) -> TaskJob[Any]:
        return TaskJob(self._label(call), call.key, self._store_of(call), handle, compute)

    def _job_here(self, call: Call, mode: engine.Mode) -> TaskJob[Any]:
        def compute() -> None:
            with contextlib.suppress(Exception, SystemExit):  # the outcome holds it
                self._run_here(call, mode)

        return self._job(call, compute=compute)
