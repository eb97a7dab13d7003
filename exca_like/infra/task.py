"""TaskInfra: one config, one computation."""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from exca_like import engine, files
from exca_like.errors import CacheFolderError, InfraTypeError, InfraUsageError, LostOutcomeError
from exca_like.executors import open_job
from exca_like.executors.base import Attempt, JobHandle
from exca_like.executors.environment import current_job, is_first_of_job
from exca_like.hits import counts
from exca_like.infra.again import settle
from exca_like.infra.applied import FIELDS, check_task_signature
from exca_like.infra.arrays import check_sizes, infras_of, submit_all
from exca_like.infra.coded import CodedInfra
from exca_like.infra.identity import config_by_exca
from exca_like.infra.job import TaskJob
from exca_like.infra.modes import InfraMode, mode_of
from exca_like.infra.readers import holder_of, job_elsewhere, reader_with_value, value_elsewhere
from exca_like.infra.sending import KEY, Plan, check_ended, start_uncached, submit
from exca_like.infra.state import State
from exca_like.infra.status import Status, StatusDetail, detail_of, own_status
from exca_like.layout import EntryFolder
from exca_like.recording import noted
from exca_like.store import FolderStore, MemoryStore, Outcome, Store, read_config
from exca_like.watching import CodeState

if TYPE_CHECKING:
    from exca_like.explaining import Explanation
    from exca_like.provenance import Provenance

M = TypeVar("M")


@dataclass
class TaskCall:
    """What the job of a task runs; the result goes where the submitter waits for it."""

    owner: Any
    infra_name: str
    entry: EntryFolder
    mode: engine.Mode
    code: CodeState | None = None

    def __call__(self) -> None:
        infra: TaskInfra = getattr(self.owner, self.infra_name)
        # a class that was pickled by value has lost its full name, which the uid begins with
        infra._linked_state.entry = self.entry
        infra._take_code(self.code)
        infra._run_as_job(self.mode)


class TaskInfra(CodedInfra):
    """Caching and remote execution of a method that takes only ``self``.

    Declare it as a field of a pydantic model, and apply it to the method::

        class Train(pydantic.BaseModel):
            lr: float = 0.1
            infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

            @infra.apply
            def run(self) -> float: ...

        Train(infra={"folder": "cache", "cluster": "slurm", "gpus_per_node": 1}).run()

    The settings of the default on the class are the defaults of all instances.
    """

    mode: InfraMode = "cached"
    """``"cached"``: result or error from the cache, computed if there is none; ``"retry"``: errors are computed again;
    ``"force"``: computed again once for each instance; ``"force-forward"``: so is every config that contains this one;
    ``"read-only"``: never computed; ``"off"``: computed at each call, in this process, without cache or jobs. The variable
    EXCA_LIKE_MODE stands in for the modes of all infras."""
    keep_in_ram: bool = False
    """Keep the result in memory, for this instance."""

    if TYPE_CHECKING:  # an infra reached through a config knows the config's type

        @overload
        def __get__(self, obj: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, obj: M, owner: Any) -> "LinkedTaskInfra[M]": ...
        def __get__(self, obj: Any, owner: Any) -> Any: ...
        def __set__(self, obj: Any, value: Any) -> None: ...

    def _apply(self, method: Any, exclude: Any, watch: Any) -> Any:
        check_task_signature(method)
        return super()._apply(method, exclude, watch)

    # the job

    def job(self, after: Iterable[Any] = ()) -> TaskJob[Any]:
        """The job of this task, submitted if it is not computed or running yet; returns at once.

        With ``cluster=None`` the task is computed first, in this process. With ``mode="retry"``, a failed task is
        submitted again unless this instance did so already. With ``mode="off"`` it is computed first whatever the cluster,
        unless this instance did so already, and the job keeps its result in memory.

        Parameters
        ----------
        after:
            Tasks (or one) that must end well before this one starts: configs with one TaskInfra, infras, or jobs. What is not
            submitted is submitted, what is computed is left out. Slurm waits for Slurm's jobs, and cancels this one if one of
            them fails; any other is waited for before this one is submitted.

        Raises
        ------
        DependencyError
            A task of ``after`` has failed.
        """
        state = self._linked_state
        mode = mode_of(self, state)
        if mode == "off":
            check_ended(self.uid(), [] if state.uncached_job else _jobs_of(after))
            return state.uncached_job or start_uncached(self)
        job = self._present_job("cached" if state.recomputed and mode == "retry" else mode, is_hit=True)
        return job or submit([self], Plan(after=_jobs_of(after)))[0]

    def status(self) -> Status:
        """``"not submitted"``, ``"running"``, ``"completed"`` or ``"failed"``; nothing is computed or changed on disk."""
        status = own_status(self)
        return "completed" if status == "not submitted" and reader_with_value(self) is not None else status

    def status_detail(self) -> StatusDetail:
        """How the task stands, in detail: where it waits or runs, or how it failed and what to do about it.

        Nothing is computed or changed on disk.
        """
        status = self.status()
        detail = detail_of(status, self._handle(), self._store().load(KEY) if status == "failed" else None)
        return replace(detail, attempts=tuple(map(str, self._attempts())))

    def explain(self) -> "Explanation":
        """Whether a call would find a result, and why, or why not; nothing is computed or changed on disk."""
        from exca_like.infra.explain import explain_task

        return explain_task(self, KEY)

    def provenance(self) -> "Provenance":
        """When, where and with what the stored result or error was computed; nothing is computed or changed on disk.

        Raises
        ------
        NotCachedError
            Nothing is stored, or there is no folder.
        """
        from exca_like.provenance import no_entry, provenance_of

        holder = holder_of(self)
        if holder is None:
            raise no_entry(self.uid(), has_folder=self.folder is not None or bool(self.read_folders))
        return provenance_of(holder._store().meta(KEY), holder._entry().root)

    def clear_job(self) -> None:
        """Forget the result or error and the job, which is cancelled if it is queued or running.

        What a read folder has stays there, and is found again.
        """
        state = self._linked_state
        if self.folder is not None and self._check_folder():
            store, handle = self._store(), self._handle()
            if handle is not None and store.peek(KEY) is None and handle.ended() is None:
                handle.cancel()
            self._forget()
        elif state.store is not None:
            state.store.discard(KEY)
        state.kept = State.kept
        state.job = state.uncached_job = None

    @contextlib.contextmanager
    def job_array(
        self,
        max_workers: int = 256,
        allow_empty: bool = False,
        allow_repeated_tasks: bool = False,
        tasks_per_job: int = 1,
        after: Iterable[Any] = (),
    ) -> Iterator[list[Any]]:
        """A list to fill with configs, whose tasks are submitted together at the end of the ``with`` block.

        Tasks that are computed or running already are left alone. Tasks with the same resources make one array.

        Parameters
        ----------
        max_workers:
            How many of the array's jobs may run at a time.
        allow_empty:
            Accept that nothing is added.
        allow_repeated_tasks:
            Accept equal configs, which are computed once.
        tasks_per_job:
            How many tasks a job runs, one after the other, so that not each waits for the start of a job of its own. They share
            the job's resources, its time limit, and its logs; each has its own result, error and status.
        after:
            Tasks that must end well before these start, as `job` takes them.

        Raises
        ------
        RuntimeError
            Nothing was added.
        ValueError
            Two configs are equal, or one has no such infra.
        """
        check_sizes(max_workers, tasks_per_job)
        tasks: list[Any] = []
        yield tasks
        if not tasks and not allow_empty:
            msg = f"nothing was added to the job array of {self.uid()}: fill the list, or use job_array(allow_empty=True)"
            raise InfraUsageError(msg)
        infras = infras_of(tasks, self._field_name(), TaskInfra, may_repeat=allow_repeated_tasks)
        submit_all(self.uid(), infras, Plan(max_workers, tasks_per_job, _jobs_of(after)))

    # how it is done

    def _call(self) -> Any:
        """What a call of the method does."""
        state = self._linked_state
        if state.is_coded:
            self._entry()  # notices if other code has come
        if state.kept[0] is not None:
            return state.kept[2]
        mode = mode_of(self, state)
        if mode == "off":
            assert state.applied is not None
            return state.applied.method(state.owner)
        if self.folder is None:
            value = self._run_without_folder(mode)
        elif self.cluster is None:
            value = self._run_here(mode)
        else:
            value = self._run_in_job(mode)
        if self.keep_in_ram and self._is_kept(state):
            state.kept = (state.owner, state.applied, value)
        return value

    def _run_without_folder(self, mode: engine.Mode) -> Any:
        self._check_built()
        found = self._look_up(mode) or value_elsewhere(self, mode)  # what this instance's job() computed; or what others have
        if found is not None:
            return found.get()
        batch = self._batch(mode)
        return engine.run(batch)[KEY].get() if self.keep_in_ram else next(self._compute(batch.keys))

    def _run_here(self, mode: engine.Mode) -> Any:
        state = self._linked_state
        is_new = not state.folder_is_checked
        if not is_new or self._check_folder():
            if is_new and state.folder_is_checked and mode != "force":
                state.store.has_just_looked = True
            found = self._look_up(mode)
            if found is not None:
                if not state.folder_is_checked and mode != "read-only":
                    self._prepare_folder()
                compared = state.compared
                if compared is None or compared[0] is not state.store.line() or not compared[1].is_current():
                    self._compare_code(state)
                counts[state.entry] += 1
                return found.get()
            if mode != "force" and self._is_running():
                return self._run_in_job(mode)
        found = value_elsewhere(self, mode)
        if found is not None:
            return found.get()
        claim = self._prepare_folder(KEY)
        batch = self._batch(mode)
        if claim is not None:
            batch = batch._replace(claim=claim)
        else:
            batch = batch._replace(compute=self._compute_here, is_elsewhere=self._is_running)
        try:
            outcomes = engine.run(batch)
        except CacheFolderError:
            raise
        except Exception:  # stored; an interruption is not, and leaves it to do
            self._note_computed(mode)
            raise
        if not outcomes:  # a job was submitted meanwhile
            return self._run_in_job(mode)
        self._note_computed(mode)
        return outcomes[KEY].get()

    def _run_in_job(self, mode: engine.Mode) -> Any:
        try:
            return (self._present_job(mode, is_hit=True) or submit([self])[0]).result()
        except LostOutcomeError:
            if mode == "read-only":
                raise
            self._forget()
            return submit([self])[0].result()

    def _run_as_job(self, mode: engine.Mode) -> None:
        """Compute and store in this process, which is a job, or one of several of a job."""
        self._prepare_folder()
        self._claims().job = current_job(self._log_folder())
        if is_first_of_job():
            if self._look_up(mode) is None:
                engine.run(self._batch(mode))
        else:  # the first one stores what it returns, the others take part in the computation
            next(self._compute((KEY,)))

    def _look_up(self, mode: engine.Mode) -> Outcome | None:
        """The outcome that is stored in one's own folder, if there is one and the mode takes it."""
        return engine.look_up(self._store(), KEY, mode)

    def _compare_code(self, state: State) -> None:
        """Warn if the stored result was computed by other code."""
        store: Store = state.store
        now = None if state.is_coded else self._code_state()
        if now is None:
            return
        if store.was_noted(KEY, "code", now.digest):
            line = store.line()
            state.compared = None if now.watched or line is None else (line, now.fingerprint)
        elif (stored := noted(store.meta(KEY)).get("code")) is not None:
            self._warn_of(stored)

    def _batch(self, mode: engine.Mode) -> engine.Batch:
        return engine.Batch(self.uid(), (KEY,), self._compute, self._store(), self._claims, mode)

    def _compute_here(self, keys: Sequence[str]) -> Iterator[Any]:
        self._forget_job()  # it ended without a result
        return self._compute(keys)

    def _compute(self, keys: Sequence[str]) -> Iterator[Any]:
        state = self._linked_state
        assert state.applied is not None
        method, owner = state.applied.method, state.owner
        return map(lambda _: method(owner), keys)  # noqa: C417 - a generator would change a StopIteration

    def _mode(self) -> engine.Mode:
        """The mode of the next call: an instance forces once."""
        return mode_of(self, self._linked_state)

    def _note_computed(self, mode: engine.Mode) -> None:
        """Take note that this instance has computed the task, or had it computed."""
        state = self._linked_state
        state.recomputed = True
        state.forced = state.forced or mode == "force"

    def _recomputing_mode(self) -> engine.Mode:
        """The mode of a computation that was found to be needed."""
        return "force" if self._mode() == "force" else "retry"

    def _stored_config(self, folder: EntryFolder) -> dict[str, Any] | None:
        return read_config(folder, KEY) or config_by_exca(folder)

    def _store(self) -> Store:
        state = self._linked_state
        if state.store is None:
            if self.folder is None:
                state.store = MemoryStore()
            else:
                state.store = FolderStore(self._entry(), self._information, self.permissions, self.allow_pickle, self._run)
        store: Store = state.store
        return store

    def _is_recognized(self) -> bool | None:
        return self._store().has_noted(KEY, "fingerprint", self._recognized_by)

    def _present_job(self, mode: engine.Mode, *, is_hit: bool = False) -> TaskJob[Any] | None:
        """The job of a task that needs no (new) submission; a hit if it was to be computed, and its result is there."""
        self._check_built()
        return self._own_job(mode, is_hit=is_hit) or job_elsewhere(self, mode)

    def _own_job(self, mode: engine.Mode, *, is_hit: bool) -> TaskJob[Any] | None:
        """The same, of one's own folder alone."""
        if self.folder is not None and not self._check_folder():
            return None
        if mode == "force":
            return None
        kind = self._store().peek(KEY)
        if (kind is None and mode == "read-only") or (kind == "failure" and mode == "retry"):
            return None
        if kind == "value":
            self._compare_code(self._linked_state)
            if is_hit:
                counts[self._entry()] += 1
        job = self._current_job(mode)
        if kind is not None or job._compute is not None:
            return job
        ended = job._ended()
        if ended is None or (ended.reason == "completed" and job._appears(ended)):
            return job
        return job if not ended.interrupted and mode != "retry" else None

    def _current_job(self, mode: engine.Mode) -> TaskJob[Any]:
        """The job that was last submitted for this task, by whomever."""
        state = self._linked_state
        handle = self._handle()
        job: TaskJob[Any] | None = state.job
        if job is None or (handle is not None and handle.job_id != job.job_id):
            job = state.job = self._job_of(handle, mode)
        return job

    def _job_of(self, handle: JobHandle | None, mode: engine.Mode = "cached") -> TaskJob[Any]:
        more: dict[str, Any] = {} if mode == "read-only" else {"settle": settle, "infra": self}
        return TaskJob(self.uid(), KEY, self._store(), handle, record=self._record(), **more)

    def _handle(self) -> JobHandle | None:
        """The job that was last submitted for this task, if any."""
        try:
            return open_job(self._record())
        except (KeyError, TypeError):
            return None

    def _record(self) -> dict[str, Any]:
        """What is noted of the job that was last submitted for this task; empty if there is none."""
        if self.folder is None:
            return {}
        try:
            record = json.loads(files.read_bytes(self._entry().job))
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _attempts(self) -> list[Attempt]:
        """The jobs before the last one, which failed."""
        with contextlib.suppress(TypeError):
            return [Attempt(**attempt) for attempt in self._record().get("attempts", ())]
        return []

    def _task_call(self) -> TaskCall:
        state = self._linked_state
        return TaskCall(state.owner, self._field_name(), self._entry(), self._recomputing_mode(), self._sent_code())

    def _submitted_as(
        self, handle: JobHandle, note: Mapping[str, Any], attempts: Sequence[Attempt], after: Sequence[TaskJob[Any]]
    ) -> TaskJob[Any]:
        """Take note of the job that computes this task from now on."""
        record = {**handle.record(), "time": time.time(), **{name: value for name, value in note.items() if value}}
        if attempts:
            record["attempts"] = [asdict(attempt) for attempt in attempts]
        if after:
            record["after"] = [{**parent.record(), "uid": parent.label} for parent in after]
        files.write_atomic(self._entry().job, json.dumps(record).encode(), self.permissions)
        self._note_computed(self._mode())
        job = self._linked_state.job = self._job_of(handle)
        job.parents = after
        return job

    def _is_running(self) -> bool:
        handle = self._handle()
        return handle is not None and handle.ended() is None

    def _forget_job(self) -> None:
        if self.folder is not None:
            files.remove(self._entry().job)

    def _forget(self) -> None:
        self._forget_job()
        self._store().discard(KEY)


if TYPE_CHECKING:

    class LinkedTaskInfra(TaskInfra, Generic[M]):
        """What type checkers see as the infra of a config of type ``M``."""

        def clone_obj(self, *args: Mapping[str, Any], **kwargs: Any) -> M: ...

        def iter_cached(self) -> Iterator[M]: ...

        def job_array(  # type: ignore[override]
            self,
            max_workers: int = 256,
            allow_empty: bool = False,
            allow_repeated_tasks: bool = False,
            tasks_per_job: int = 1,
            after: Iterable[Any] = (),
        ) -> contextlib.AbstractContextManager[list[M]]: ...


def job_of(task: Any) -> TaskJob[Any]:
    """The job of a task, given as a config with one TaskInfra, an infra, or the job; submitted if it is not yet.

    Raises
    ------
    TypeError
        It is none of them.
    """
    if isinstance(task, TaskJob):
        return task
    infras = [task]
    if not isinstance(task, TaskInfra):
        fields = getattr(type(task), FIELDS, {})
        infras = [field.linked(task) for field in fields.values() if isinstance(field.default, TaskInfra)]
    if len(infras) != 1:
        number = "several TaskInfras" if infras else "no TaskInfra"
        msg = f"{task!r:.100} has {number}: give configs with one, or infras (`config.infra`), or jobs (`config.infra.job()`)"
        raise InfraTypeError(msg)
    job: TaskJob[Any] = infras[0].job()
    return job


def _jobs_of(tasks: Any) -> list[TaskJob[Any]]:
    """The jobs of several tasks, or of one."""
    if isinstance(tasks, TaskJob | TaskInfra) or hasattr(type(tasks), FIELDS):
        return [job_of(tasks)]
    return [job_of(task) for task in tasks]
