"""SubmitInfra: a method with any arguments, in jobs; nothing is cached."""

import contextlib
import copy
import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, overload

from exca_like import layout
from exca_like.confdict import verbatim
from exca_like.errors import (
    ExcaLikeError,
    InfraTypeError,
    InfraUsageError,
    InfraValueError,
    OpenBatchError,
    SubmissionError,
)
from exca_like.executors.base import WAVE_S, Call, Resources, cancelled_unless_noted
from exca_like.executors.payload import payloads, shared_folder
from exca_like.infra.applied import AppliedMethod
from exca_like.infra.base import BaseInfra
from exca_like.infra.resources import job_fields
from exca_like.infra.submission import SubmittedCall, SubmittedJob, blame, store_of

M = TypeVar("M")

_batch_lock = threading.Lock()


class _Batch(NamedTuple):
    """What was submitted in an open ``batch`` block; ``jobs`` belongs to the user, who may change it."""

    jobs: list[SubmittedJob[Any]]
    submissions: list[tuple[SubmittedJob[Any], Call]]


class SubmitInfra(BaseInfra):
    """Execution of a method with any arguments in jobs; results are not cached.

    Declare it as a field of a pydantic model, and apply it to the method::

        class Model(pydantic.BaseModel):
            size: int = 3
            infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

            @infra.apply
            def evaluate(self, path: str, *, verbose: bool = False) -> float: ...

        model = Model(infra={"folder": "jobs", "cluster": "slurm"})
        model.evaluate("a.txt")  # waits for the result
        job = model.infra.submit("a.txt", verbose=True)  # does not

    A static method is submitted without the model. The config stays free to be changed: each job has the state of
    the config and of the arguments at its submission.
    """

    __slots__ = ("_batch",)

    if TYPE_CHECKING:  # an infra reached through a config knows the config's type

        @overload
        def __get__(self, obj: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, obj: M, owner: Any) -> "LinkedSubmitInfra[M]": ...
        def __get__(self, obj: Any, owner: Any) -> Any: ...
        def __set__(self, obj: Any, value: Any) -> None: ...

    def _apply(self, method: Any, exclude: Any, watch: Any) -> Any:
        function = method.__func__ if isinstance(method, staticmethod) else method
        _check_kind(function)
        if watch:
            msg = f"the SubmitInfra of {function.__qualname__} keeps no results that could be out of date: leave out watch=..."
            raise InfraValueError(msg)
        super()._apply(function, exclude, watch)
        applied = self._applied()
        assert applied is not None
        applied.wrapper = _wrap(applied) if function is method else _StaticSubmission.of(applied)
        return applied.wrapper

    def __set_name__(self, owner: type[Any], name: str) -> None:
        super().__set_name__(owner, name)
        applied = self._applied()
        declared = None if applied is None else owner.__dict__.get(applied.name)
        if applied is not None and isinstance(declared, staticmethod | classmethod) and declared is not applied.wrapper:
            if isinstance(declared, classmethod) or declared.__func__ is not applied.wrapper:
                _check_kind(declared)
            applied.wrapper = _StaticSubmission.of(applied)  # `@staticmethod` was written above `@infra.apply`
            setattr(owner, applied.name, applied.wrapper)

    def submit(self, /, *args: Any, **kwargs: Any) -> "SubmittedJob[Any]":
        """Start a job that calls the method with these arguments, and return it at once.

        With ``cluster=None`` the method is called first, in this process; with ``"debug"``, when the result is asked for.

        Raises
        ------
        TypeError
            The method does not take such arguments.
        SubmissionError
            The config or an argument can't be pickled, or the cluster refuses the job.
        """
        self._check_built()
        job = SubmittedJob[Any](self._label())
        batch = self._open_batch()
        call = self._call_with(args, kwargs, is_later=batch is not None or self.cluster == "debug")
        with _batch_lock:
            is_gathered = batch is not None and self._open_batch() is batch  # else another thread has closed it
            if batch is not None and is_gathered:
                batch.submissions.append((job, call))
                batch.jobs.append(job)
        if not is_gathered:
            self._send([(job, call)], 1)
        return job

    @contextlib.contextmanager
    def batch(self, max_workers: int = 256) -> Iterator[list["SubmittedJob[Any]"]]:
        """A block in which ``submit`` only gathers: at its end, all goes out together, as one array.

        The block gives the list of the jobs, which can be used after it. If an exception leaves the block, nothing is sent.
        What another infra submits, such as that of a clone, is no part of it.

        Parameters
        ----------
        max_workers:
            How many of the array's jobs may run at a time.

        Raises
        ------
        RuntimeError
            There is an open block for this infra already.
        """
        if max_workers < 1:
            msg = f"max_workers={max_workers}: at least one job must be allowed to run"
            raise InfraValueError(msg)
        self._check_built()
        batch = _Batch([], [])
        with _batch_lock:
            if self._open_batch() is not None:
                msg = f"there is an open batch of {self._label()} already: leave its block before you begin another one"
                raise InfraUsageError(msg)
            object.__setattr__(self, "_batch", batch)
        try:
            try:
                yield batch.jobs
            finally:
                with _batch_lock:
                    object.__setattr__(self, "_batch", None)
            if batch.submissions:
                self._send(batch.submissions, max_workers)
        except BaseException:
            for job, _ in batch.submissions:
                job._drop()
            raise

    # how it is done

    def _linked_method(self) -> AppliedMethod:
        applied = self._linked_state.applied
        assert applied is not None  # linking checks it
        return applied

    def _open_batch(self) -> _Batch | None:
        return getattr(self, "_batch", None)

    def _call(self, /, *args: Any, **kwargs: Any) -> Any:
        """What a call of the method does."""
        if self._open_batch() is not None:
            msg = (
                f"{self._linked_method().name}(...) can't be called inside a batch() block, as its job is sent only at the end "
                "of the block: use infra.submit(...) with the same arguments, and ask the job for its result() after the block"
            )
            raise OpenBatchError(msg)
        if self.cluster is None or self.cluster == "debug":
            self._check_built()
            return self._bound_method()(*args, **kwargs)
        return self.submit(*args, **kwargs).result()

    def _bound_method(self) -> Callable[..., Any]:
        """The method, without its arguments, such that it can be pickled."""
        state, applied = self._linked_state, self._linked_method()
        if isinstance(applied.wrapper, staticmethod):
            return applied.method
        assert state.field is not None
        return functools.partial(_call_method, state.owner, state.field.name)

    def _call_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_later: bool) -> Call:
        """What a job runs, with the arguments as they are now."""
        method, bound = self._linked_method().method, self._bound_method()
        owner = () if bound is method else (self._linked_state.owner,)
        try:  # a decorator may give the method other arguments than it takes
            named = inspect.signature(method, follow_wrapped=False).bind(*owner, *args, **kwargs).arguments
        except TypeError as error:
            msg = f"{method.__qualname__}() {error}"
            raise InfraTypeError(msg) from None
        call = functools.partial(bound, *args, **kwargs)
        if self.cluster is None or self.cluster == "debug":
            with contextlib.suppress(Exception):  # what can't be copied stays as it is
                call = copy.deepcopy(call) if is_later else call
            return call
        try:
            logs = self._log_folder()  # large parts lie there once, by their content, as those of other calls may be the same
            limit = Resources(max_pickle_size_gb=job_fields(self)["max_pickle_size_gb"])
            (payload,) = payloads([call], shared_folder(logs), limit)
            return SubmittedCall(logs, payload, self.permissions)
        except SubmissionError as error:
            cause = error.__cause__
            if cause is None:  # it is too large
                raise
            raise SubmissionError(blame(method, named, cause)) from cause

    def _send(self, submissions: list[tuple[SubmittedJob[Any], Call]], max_workers: int) -> None:
        if self.cluster is None or self.cluster == "debug":
            for job, call in submissions:
                job._compute_here(call)
                if self.cluster is None:
                    job.wait()
            return
        fields = job_fields(self)
        processes = (fields["nodes"] or 1) * (fields["tasks_per_node"] or 1) if fields["slurm_use_srun"] else 1
        left = iter(submissions)
        for handles in self._executor(len(submissions)).submit([call for _, call in submissions], max_workers):
            if not handles:
                time.sleep(WAVE_S)
            with cancelled_unless_noted(handles) as noted:
                for handle, (job, _) in zip(handles, left):  # noqa: B905 - others are left
                    job._connect(handle, store_of(handle, self.permissions, self.allow_pickle), processes)
                    noted.append(handle)

    def _label(self) -> str:
        """What `uid` gives; but the config stays free, as nothing is stored under this name."""
        try:
            config = verbatim(self._uid_export(exclude_defaults=True)).to_uid() or layout.DEFAULT_UID
        except ExcaLikeError:  # nothing depends on it
            config = "no-uid"
        return f"{self._linked_method().method_path(type(self._linked_state.owner))},{self.version}/{config}"

    def _resources(self) -> Resources:
        method, _, config = self._label().rpartition("/")
        values = job_fields(self)
        values["job_name"] = self.job_name or f"{'.'.join(method.rsplit('.', 2)[-2:])}/{config}"
        return Resources(**values)

    def _log_folder(self) -> str:
        return layout.log_folder(os.fspath(self.logs), layout.absolute(self.folder or ""))


if TYPE_CHECKING:

    class LinkedSubmitInfra(SubmitInfra, Generic[M]):
        """What type checkers see as the infra of a config of type ``M``."""

        def clone_obj(self, *args: Mapping[str, Any], **kwargs: Any) -> M: ...


def _call_method(owner: Any, infra_name: str, /, *args: Any, **kwargs: Any) -> Any:
    return getattr(owner, infra_name)._linked_state.applied.method(owner, *args, **kwargs)


def _wrap(applied: AppliedMethod) -> Callable[..., Any]:
    @functools.wraps(applied.method)
    def submitted_method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        infra = applied.infra_of(self)
        return applied.method(self, *args, **kwargs) if infra is None else infra._call(*args, **kwargs)

    return submitted_method


class _StaticSubmission(staticmethod):  # type: ignore[type-arg]
    """A static method that knows the instance it is reached through; reached through the class, it just runs."""

    applied: AppliedMethod

    @classmethod
    def of(cls, applied: AppliedMethod) -> Self:
        self = cls(applied.method)
        self.applied = applied
        return self

    def __get__(self, obj: Any, cls: type[Any] | None = None) -> Callable[..., Any]:
        infra = None if obj is None else self.applied.infra_of(obj)
        return self.__func__ if infra is None else functools.wraps(self.__func__)(functools.partial(infra._call))

    def __reduce__(self) -> Any:  # for classes that are pickled by value; Python's own static methods refuse
        return type(self), (self.__func__,), {"applied": self.applied}


def _check_kind(method: Any) -> None:
    """Raise for what is neither a method nor a static one."""
    is_async = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
    if is_async or not callable(method) or isinstance(method, staticmethod | classmethod | type):
        kind = "an async method" if is_async else f"a {type(method).__name__}"
        msg = (
            f"SubmitInfra is for methods and static methods, not for {kind}: put `@infra.apply` above a `def name(self, ...)` "
            "or directly above a `@staticmethod`"
        )
        raise InfraTypeError(msg)
