"""The calls of a function as the items of a map: looked up, claimed, computed and stored one by one, or many together."""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Protocol

from exca_like import engine, files, mapping, works, yamltext
from exca_like.cachedict.failures import Failure
from exca_like.errors import ConfigMismatchError, ExcaLikeError, InfraUsageError, ItemsFailedError
from exca_like.executors import open_job
from exca_like.executors.base import JobHandle, Resources, cancelled_unless_noted
from exca_like.infra.applied import AppliedMethod
from exca_like.infra.items import AppliedMap
from exca_like.infra.job import TaskJob, uncached_job
from exca_like.infra.map import MapCall, MapInfra, Returned
from exca_like.infra.state import State
from exca_like.layout import EntryFolder
from exca_like.store import DescribedStore, ItemStore, SharedStore

_computing = threading.local()  # the calls that a thread is at


@dataclass(frozen=True)
class Call:
    """One call of a function: its key, and the values of all parameters."""

    key: str
    values: Mapping[str, Any]
    maker: int = 0
    """The process whose objects the values are, if it may be run later, when they may have been changed in place."""


class Function(Protocol):
    """The function whose calls they are; it can be pickled."""

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
        return infra._run_part(self)


def _run_calls(function: Function, calls: list[Call]) -> Iterator[Any]:
    for call in calls:
        yield function.run(call)


def applied_to_calls(cache_type: Any) -> AppliedMap:
    """What a `CallInfra` does with its items."""
    return AppliedMap(_run_calls, (), item_uid=attrgetter("key"), max_length=None, cache_type=cache_type)


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

    def _exports(self) -> tuple[dict[str, Any], dict[str, Any]]:
        identity = self._identity()
        return identity, identity

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
        name = self.uid().partition("/")[0].rpartition(".")[2] if "." in self.uid() else self.uid()
        return replace(resources, job_name=f"{name}/call")  # of an array, what is before the slash

    def _label(self, call: Call) -> str:
        return f"{self.uid()}/{call.key}"

    # one call

    def value(self, call: Call, mode: engine.Mode) -> Any:
        """What a call gives, from the cache if it is there, else computed here or by a job."""
        state = self._linked_state
        store: ItemStore | None = state.store
        if store is None or not state.folder_is_checked:
            store = self._open_store()
        key = call.key
        if mode != "force" or key in state.recomputed_items:
            try:
                return store.cache[key]
            except KeyError:
                if mode == "read-only":
                    raise engine.not_cached(self._label(call)) from None
        if self.cluster in ("local", "slurm", "auto"):
            return self._value_of_job(call, store, mode)
        return self._run_here(call, mode).get()

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
        function: Function = self._linked_state.owner
        return SharedStore(self._open_store().cache, functools.partial(function.describe, call))

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
        return mapping.results(planned)

    def _mapping(
        self, items: Any, keys: list[str], missing: dict[str, Any], store: ItemStore, mode: engine.Mode
    ) -> works.Mapping:
        made = super()._mapping(items, keys, missing, self._described(store, missing), mode)
        return replace(made, call=functools.partial(self._calls_part, mode))

    def _described(self, store: ItemStore, calls: Mapping[str, Call]) -> ItemStore:
        """A store that says of each result what call gave it."""
        function: Function = self._linked_state.owner
        return DescribedStore(store.cache, lambda key: function.describe(calls[key]))

    def _store_for(self, items: dict[str, Any]) -> ItemStore:
        return self._described(super()._store_for(items), items)

    def _calls_part(self, mode: engine.Mode, keys: Sequence[str], items: Sequence[Any], claim: str) -> CallsPart:
        return CallsPart(self._linked_state.owner, "", self._entry(), keys, items, claim, mode)

    # jobs

    def submit(self, calls: Sequence[Call], mode: engine.Mode) -> list[TaskJob[Any]]:
        """The jobs of some calls, none of them twice, submitted if they are not computed or running yet."""
        if mode == "off":
            function: Function = self._linked_state.owner
            return [uncached_job(self._label(call), functools.partial(function.run, call)) for call in calls]
        if self.cluster not in ("local", "slurm", "auto"):
            return [self._job_here(call, mode) for call in calls]
        self._check_built()
        if self.retries is not None:
            msg = (
                f"{self.uid()} has retries, for which somebody has to wait: call it, or use map(); submit() sends one job that "
                "nobody looks after"
            )
            raise InfraUsageError(msg)
        jobs: dict[str, TaskJob[Any]] = {}
        done = self._linked_state.recomputed_items
        left = {call.key: call for call in calls}
        patience = engine.Patience(self.uid())
        while left:
            store = self._open_store()
            store.cache.refresh()
            for key, call in left.items():
                if store.cache.mark(key) is not None and (mode != "force" or key in done):
                    jobs[key] = self._job(call)
                elif mode == "read-only":
                    raise engine.not_cached(self._label(call))
            left = {key: call for key, call in left.items() if key not in jobs}
            if left:
                self._prepare_folder()
                waiting = self._send(left, jobs, mode)
                left = {key: call for key, call in left.items() if key not in jobs}
                if left and waiting:  # held by processes that are no jobs
                    patience.wait(waiting)
        return [jobs[call.key] for call in calls]

    def _send(self, calls: Mapping[str, Call], jobs: dict[str, TaskJob[Any]], mode: engine.Mode) -> Sequence[engine.Waiting]:
        """Send what nobody else computes, and add the jobs; what the rest waits for."""
        cache = self._item_store().cache

        def choose(free: list[str]) -> list[list[str]]:
            cache.refresh()
            return [[key] for key in free if mode == "force" or cache.mark(key) is None]

        claims, waiting = self._claims().claim(list(calls), choose)
        with contextlib.ExitStack() as replacing:  # old outcomes come back if the submission fails
            for claim in claims:
                replacing.enter_context(self._store_of(calls[claim.keys[0]]).replaced(claim.keys[0]))
            try:
                self._send_claimed(calls, claims, jobs, mode)
            except BaseException:
                for claim in claims:
                    claim.close()  # those of jobs that were sent are theirs by now
                raise
        for others in waiting:
            record = getattr(others, "job", None)
            if record:  # somebody else's
                jobs.update({key: self._job(calls[key], open_job(record)) for key in others.keys})
        left: Sequence[engine.Waiting] = waiting
        return left

    def _send_claimed(
        self, calls: Mapping[str, Call], claims: Sequence[Any], jobs: dict[str, TaskJob[Any]], mode: engine.Mode
    ) -> None:
        if not claims:
            return
        executor = self._executor(len(claims))
        parts: list[Any] = [self._calls_part(mode, claim.keys, [calls[claim.keys[0]]], claim.path) for claim in claims]
        left = list(claims)
        for handles in executor.submit(parts, self.max_jobs or len(parts)):
            with cancelled_unless_noted(handles) as noted:
                for handle in handles:
                    claim = left.pop(0)
                    claim.hand_over(handle.record())
                    noted.append(handle)
                    (key,) = claim.keys
                    jobs[key] = self._job(calls[key], handle)
                    self._linked_state.recomputed_items.add(key)

    def _job(self, call: Call, handle: JobHandle | None = None) -> TaskJob[Any]:
        return TaskJob(self._label(call), call.key, self._store_of(call), handle)

    def _job_here(self, call: Call, mode: engine.Mode) -> TaskJob[Any]:
        job = self._job(call)
        is_there = call.key in self._open_store().cache
        if is_there and (mode != "force" or call.key in self._linked_state.recomputed_items):
            return job
        if mode == "read-only":
            raise engine.not_cached(job.label)

        def compute() -> None:
            with contextlib.suppress(Exception, SystemExit):  # the outcome holds it
                self._run_here(call, mode)

        job = TaskJob(job.label, call.key, self._store_of(call), compute=compute)
        if self.cluster != "debug":
            job.wait()
        return job
