"""What every infra has."""

import abc
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, overload

import pydantic

from exca_like import commits, files, layout, yamltext
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.handlers.containers import to_tree
from exca_like.cachedict.memory_claims import MemoryClaims
from exca_like.confdict import ConfDict, verbatim
from exca_like.errors import CacheFolderError, ExcaLikeError, InfraUsageError, InfraValueError
from exca_like.executors import job_is_over, make_executor
from exca_like.executors.base import Attempt, Executor, Resources
from exca_like.infra.applied import FIELDS, AppliedMethod, InfraField, checked_exclusion, declare, wrap
from exca_like.infra.clones import cached_configs, clone
from exca_like.infra.code import with_code
from exca_like.infra.identity import check_same_identity, mark_of, recognized_by
from exca_like.infra.readers import ReadFolders
from exca_like.infra.resources import job_fields
from exca_like.infra.retries import Retries
from exca_like.infra.state import State
from exca_like.layout import EntryFolder
from exca_like.models.export import defaults_digest, export, reduced_export
from exca_like.models.freeze import freeze
from exca_like.runs import Run
from exca_like.uid import config_uid
from exca_like.watching import Watch
from exca_like.workdir import WorkDir

_DIGEST = 16  # characters at the end of a uid that are, or have in them, a digest of the config's values

C = TypeVar("C", bound=Callable[..., Any])


class BaseInfra(pydantic.BaseModel):
    """Fields and methods shared by all infras."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)  # not all kinds are used
    __slots__ = ("_state",)
    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ()

    folder: str | Path | None = None
    """Where results and logs are kept; shared by all configs. None: nothing is stored."""
    read_folders: ReadFolders = ()
    """More folders to find results in, for instance those of colleagues, in this order after one's own ``folder``. Nothing is
    written there. A `SubmitInfra`, whose results are not kept, looks for none."""
    version: str = "0"
    """Version of the method's code, part of the cache folder's name: change it when old results are no longer right."""
    cluster: Literal["local", "slurm", "auto", "debug"] | None = None
    """Where to compute: None in this process, ``"local"`` in processes of this machine, ``"slurm"``, ``"auto"`` on Slurm
    if there is one and else like local, ``"debug"`` in this process, at the time the result is asked for."""
    logs: str | Path = "{folder}/logs/{user}/%j"
    """Folder of a job's logs; ``%j`` is the job's id."""
    permissions: Annotated[int, pydantic.Field(ge=0, le=0o777, strict=True)] | None = None
    """Mode of new files and folders of the cache, like ``0o660``; None: as the umask says."""
    allow_pickle: Literal["own", "always", "never"] = "own"
    """Which pickled results are loaded: those in files of yours or of root, ``"always"``, or ``"never"``."""
    job_name: str | None = None
    """Name of the job; None: ``Class.method,version/<config uid>``."""
    timeout_min: pydantic.PositiveInt | None = None
    """Time limit in minutes; None: the partition's."""
    nodes: pydantic.PositiveInt | None = 1
    """Number of nodes."""
    tasks_per_node: pydantic.PositiveInt | None = 1
    """Number of processes on each node."""
    cpus_per_task: pydantic.PositiveInt | None = None
    """Cores for each process."""
    gpus_per_node: pydantic.NonNegativeInt | None = None
    """GPUs on each node."""
    mem_gb: pydantic.PositiveFloat | None = None
    """Memory for each node, in GB."""
    max_pickle_size_gb: pydantic.PositiveFloat | None = None
    """Limit for the size of what is sent to the jobs of one submission, in GB."""
    slurm_partition: str | None = None
    """Slurm partition."""
    slurm_account: str | None = None
    """Slurm account."""
    slurm_qos: str | None = None
    """Slurm quality of service."""
    slurm_constraint: str | None = None
    """Features that a node must have, e.g. ``"volta32gb"``."""
    slurm_use_srun: bool = False
    """Start the job's process with srun; a job that submits jobs itself must not use it."""
    slurm_additional_parameters: dict[str, int | str | float | bool] | None = None
    """More options of sbatch, by name."""
    slurm_setup: list[str] | None = None
    """Shell commands to run in the job before the computation."""
    requeue: Literal["preemption", "always", "never"] = "preemption"
    """When Slurm starts the job again: after it was preempted or its node failed; ``"always"``: also when its time is up."""
    max_requeues: pydantic.NonNegativeInt = 10
    """How many times the job is started again at most."""
    retries: Retries | None = None
    """When a failed job is submitted again, and with what, like ``{"max": 2, "on": ["out_of_memory"], "mem_gb": 2.0}``: for
    twice the memory each time. None: never."""
    workdir: WorkDir | None = None
    """Code to copy for jobs, which run in the copy; None: they import the code as it is when they start."""
    conda_env: str | Path | None = None
    """Environment whose Python runs jobs: the name of a conda environment, or a folder with ``bin/python``; None: this one."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        # how something is computed does not change what comes out
        cls._exclude_from_cls_uid = tuple(name for name in cls.model_fields if name != "version")

    def _exca_uid_dict_override(self) -> dict[str, Any]:
        return {"version": self.version}

    @pydantic.field_validator("version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.+-]+", version) or ".." in version:
            msg = f"version {version!r} becomes part of a folder name: use letters, digits and any of _.+- (no '..')"
            raise ValueError(msg)
        return version

    # link to the class and the instance

    def __set_name__(self, owner: type[Any], name: str) -> None:
        declare(self, self._applied(), owner, name)

    def _applied(self) -> AppliedMethod | None:
        state = getattr(self, "_state", None)
        return None if state is None else state.applied

    def _apply(self, method: Callable[..., Any], exclude: Any, watch: Any) -> Callable[..., Any]:
        return self._tie(AppliedMethod(method, checked_exclusion(exclude), Watch(method, watch)), wrap)

    def _tie(self, applied: AppliedMethod, wrap: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
        """Take note of a method, and give the function that takes its place."""
        method = applied.method
        if self._applied() is not None:
            msg = (
                f"the infra of {method.__qualname__} was already applied to {self._applied().method.__qualname__}: "  # type: ignore[union-attr]
                "declare another infra field for the second method"
            )
            raise InfraUsageError(msg)
        object.__setattr__(self, "_state", State(None, None, applied))
        return wrap(applied)

    def _linked_to(self, owner: Any, field: InfraField) -> Self:
        """A copy that belongs to an instance: the class's default settings under those set here."""
        default, values = field.default, self.__dict__
        if isinstance(default, type(self)):
            values = {**default.__dict__, **{name: values[name] for name in self.__pydantic_fields_set__}}
        else:
            values = dict(values)
        fields_set = {*default.__pydantic_fields_set__, *self.__pydantic_fields_set__}
        return self._copy(values, fields_set, State(owner, field, field.applied))

    def _copy(self, values: dict[str, Any], fields_set: set[str], state: State | None) -> Self:
        new = type(self).__new__(type(self))
        put = object.__setattr__  # pydantic's own validates
        put(new, "__dict__", values)
        put(new, "__pydantic_fields_set__", fields_set)
        put(new, "__pydantic_extra__", None)
        put(new, "__pydantic_private__", None)
        if state is not None:
            put(new, "_state", state)
        return new

    def __copy__(self) -> Self:
        return self._copy(dict(self.__dict__), set(self.__pydantic_fields_set__), None)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.__copy__()  # field values are never changed in place

    @property
    def _linked_state(self) -> State:
        try:
            state: State | None = self._state  # type: ignore[attr-defined]
        except AttributeError:
            state = None
        if state is None or state.owner is None:
            name = type(self).__name__
            msg = (
                f"this {name} belongs to no config: it works as a field of a pydantic model "
                f"(`infra: exca_like.{name} = exca_like.{name}()`), reached through an instance of the model"
            )
            raise InfraUsageError(msg)
        return state

    def _check_built(self) -> None:
        """Raise if the settings, complete now, contradict each other."""
        if self.cluster is not None and self.folder is None:
            msg = (
                f"cluster={self.cluster!r} needs a folder for results and logs: set folder=..., a path that all machines "
                "of the cluster see (only cluster=None works without)"
            )
            raise InfraValueError(msg)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, info in type(self).model_fields.items():
            value = self.__dict__[name]
            if value != info.default:
                yield name, str(value) if isinstance(value, Path) else value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    # identity

    def config(self, uid: bool = True, exclude_defaults: bool = False) -> ConfDict:
        """The config of the model that owns this infra.

        Parameters
        ----------
        uid:
            Leave out what does not count for the uid: ``_exclude_from_cls_uid``, and all of the infra but its version.
        exclude_defaults:
            Leave out what has its default value.
        """
        return verbatim(export(self._linked_state.owner, uid=uid, exclude_defaults=exclude_defaults))

    def uid(self) -> str:
        """``<module>.<Class>.<method>,<version>/<config uid>``; the model can't be modified any more after this.

        The config's uid is made from fields that differ from their defaults and are not excluded; ``default`` if there
        are none.
        """
        return self._entry().uid

    def uid_folder(self, create: bool = False) -> Path | None:
        """The cache folder of this config; None without a folder.

        Parameters
        ----------
        create:
            Create it, with its config files.
        """
        if self.folder is None:
            return None
        if create:
            self._prepare_folder()
        return Path(self._entry().path)

    def _entry(self) -> EntryFolder:
        state = self._linked_state
        if state.is_coded:
            self._renew(state)
        if state.entry is None:
            owner, applied = state.owner, state.applied
            assert applied is not None  # linking checks it
            state.reduced = None  # of an attempt that failed, since when the config may have changed
            exported, _ = self._reduced_export()
            uid = config_uid(exported) if ConfDict.UID_VERSION == 4 else verbatim(exported).to_uid()
            freeze(owner)
            root = "" if self.folder is None else layout.absolute(self.folder)
            method = applied.method_path(type(owner))
            state.code_key = self._code_key()
            state.is_coded = bool(state.code_key)
            state.entry = EntryFolder(root, f"{method},{self.version}{state.code_key}/{uid or layout.DEFAULT_UID}")
        return state.entry

    def _code_key(self) -> str:
        """What the uid says of the code, after the version."""
        return ""

    def _renew(self, state: State) -> None:
        """Forget what is known of the cache folder if the code is another one now."""

    def clone_obj(self, *args: Mapping[str, Any], **kwargs: Any) -> Any:
        """A copy of the config with changes; validated, and not frozen.

        Parameters
        ----------
        *args, **kwargs:
            Changes, with dotted names or nested dictionaries: ``clone_obj({"optim.lr": 0.1}, seed=2)``.

        Raises
        ------
        pydantic.ValidationError
            A changed field does not exist or has a wrong value.
        """
        return clone(self, (*args, kwargs))

    def obj_infras(self) -> dict[str, "BaseInfra"]:
        """All infras of the config, by name."""
        owner = self._linked_state.owner
        return {name: field.linked(owner) for name, field in getattr(type(owner), FIELDS).items()}

    def iter_cached(self) -> Iterator[Any]:
        """Configs of this class that have results (or errors) in the cache, with this infra's settings.

        Those in ``read_folders``, if they have results there, come after those in one's own folder.
        """
        return cached_configs(self)

    def _stored_config(self, folder: EntryFolder) -> dict[str, Any] | None:
        """The whole config that a folder has results (or errors) of; None if there are none."""
        try:
            has_results = any(name.endswith(".jsonl") for name in os.listdir(folder.path))
            return dict(ConfDict.from_yaml(Path(folder.config))) if has_results else None
        except (OSError, ExcaLikeError):
            return None

    # cache folder

    def _identity(self) -> dict[str, Any]:
        """What tells the config from others with the same uid, should the defaults in the code change."""
        return self._uid_export(exclude_defaults=False)

    def _reduced_export(self) -> tuple[dict[str, Any], tuple[type[Any], ...]]:
        """What the uid is made from, and the classes whose defaults complete it."""
        state = self._linked_state
        if state.reduced is None:
            assert state.applied is not None  # linking checks it
            exported, classes = reduced_export(state.owner, state.applied.excluded(state.owner))
            state.reduced = exported, classes
        return state.reduced  # type: ignore[no-any-return]

    def _uid_export(self, *, exclude_defaults: bool) -> dict[str, Any]:
        state = self._linked_state
        assert state.applied is not None
        excluded = state.applied.excluded(state.owner)
        return export(state.owner, uid=True, exclude_defaults=exclude_defaults, exclude=excluded)

    def _check_folder(self) -> bool:
        """Whether the cache folder is there; raises if it was written for another config.

        A folder whose identity can't be read is there, but not checked: `_prepare_folder` writes its files anew.
        """
        state = self._linked_state
        if state.folder_is_checked:
            return True
        entry = self._entry()
        is_recognized = self._is_recognized()
        if is_recognized is None:
            return False
        if is_recognized:
            state.folder_is_checked = True
            return True
        try:
            stored = files.read_bytes(entry.full_uid)
        except FileNotFoundError:
            return os.path.isdir(entry.path)
        except OSError as error:
            msg = f"can't read {entry.full_uid}: {error.strerror}. Check that the infra's folder is one, and its permissions."
            raise CacheFolderError(error.errno, msg) from error
        identity = self._identity()
        if stored != yamltext.dump(identity).encode():
            try:
                there = ConfDict.from_yaml(stored.decode())
            except (ExcaLikeError, UnicodeDecodeError):
                return True
            check_same_identity(state.owner, there, verbatim(identity), entry.path, self.version)
        state.folder_is_checked = True
        return True

    def _is_recognized(self) -> bool | None:
        """Whether a result in the folder was stored with the `fingerprint` of this config; None if there is no folder."""
        return False

    def _recognized_by(self) -> list[Any] | None:
        """What tells results of this config from others, without a look at all values; None if nothing does."""
        entry = self._entry()
        _, classes = self._reduced_export()
        defaults = defaults_digest(classes) if ConfDict.UID_VERSION == 4 else None  # other uids are not exact
        mark = mark_of(self._identity()) if defaults is None else f"{defaults}{entry.uid[-_DIGEST:]}"
        return recognized_by(mark, entry.full_uid)

    def _exports(self) -> dict[str, dict[str, Any]]:
        """What is in the files of the cache folder, by their names; `_prepare_folder` may have kept it for this."""
        state = self._linked_state
        exports, state.exports = state.exports, None
        return exports or {
            layout.CONFIG: export(state.owner, uid=False, exclude_defaults=False),
            layout.UID: self._reduced_export()[0],
            layout.FULL_UID: self._identity(),
        }

    def _information(self) -> dict[str, Any]:
        """What is stored beside a result: the whole config, and what it is recognized by."""
        config = to_tree(self._exports()[layout.CONFIG])
        recognized = self._recognized_by()
        return {"config": config, **({"fingerprint": recognized} if recognized else {})}

    def _prepare_folder(self, key: str | None = None) -> Any:
        """Create the cache folder, if it is not there; if it is new, a key is claimed with it, to store its result."""
        entry, state = self._entry(), self._linked_state
        if not os.path.isdir(entry.path):  # or it was deleted meanwhile
            state.folder_is_checked = False
        elif self._check_folder() and state.folder_is_checked:
            return None
        exports = self._exports()
        state.exports = exports if key is not None else None
        contents = {name: yamltext.dump(exported).encode() for name, exported in exports.items()}

        def create(claim: dict[str, bytes]) -> bool:
            return files.create_folder(entry.path, contents | claim, self.permissions)

        claim = None if key is None else self._claims().with_folder((key,), create)
        if claim is None and (key is not None or not create({})):  # it is there already
            if not self._check_folder():  # and was removed again
                return self._prepare_folder(key)
            if not state.folder_is_checked:
                for name, data in contents.items():
                    files.write_atomic(f"{entry.path}/{name}", data, self.permissions)
        state.folder_is_checked = True
        return claim

    def _source(self) -> str:
        """The folder of the method's code, or the one that stands for it."""
        applied = self._linked_state.applied
        assert applied is not None  # linking checks it
        return applied.source

    def _run(self) -> Run | None:
        """What is the same for all that this process computes; None without a folder."""
        if self.folder is None:
            return None
        return Run(self._entry().root, self._source(), self.permissions, self._notes_of_all)

    def _notes_of_all(self) -> dict[str, Any]:
        """What else is stored beside all that this process computes."""
        return {}

    def _field_name(self) -> str:
        field = self._linked_state.field
        assert field is not None
        return field.name

    # execution

    def _claims(self) -> Any:
        """The claims on what is computed into the cache folder."""
        state = self._linked_state
        if state.claims is None:
            if self.folder is None:
                made: Any = MemoryClaims()
            else:
                made = FolderClaims(self._entry().path, layout.FULL_UID, job_is_over, self.permissions, self._prepare_folder)
            state.__dict__.setdefault("claims", made)  # another thread may have been first
        return state.claims

    @abc.abstractmethod
    def _call(self) -> Any:
        """What a call of the method does."""

    def _resources(self) -> Resources:
        values = job_fields(self)
        if values["job_name"] is None:
            method, _, config = self.uid().rpartition("/")
            values["job_name"] = f"{'.'.join(method.rsplit('.', 2)[-2:])}/{config}"
        return Resources(**values)

    def _log_folder(self) -> str:
        return layout.log_folder(os.fspath(self.logs), self._entry().root)

    def _next_resources(self, attempts: Sequence[Attempt]) -> Resources | None:
        """What the job after some that failed asks for; None if there is to be none."""
        return None if self.retries is None else self.retries.resources(self._resources(), attempts)

    def _executor(self, number_of_tasks: int, resources: Resources | None = None) -> Executor:
        assert self.cluster is not None
        resources = resources or self._resources()
        if number_of_tasks > 1 and self.job_name is None:  # the array has no one config to name
            resources = dataclasses.replace(resources, job_name=str(resources.job_name).rpartition("/")[0])
        logs = self._log_folder()
        commits.begin(source := self._source())  # which goes on meanwhile
        resources = dataclasses.replace(with_code(self, resources, logs), source=source)
        return make_executor(self.cluster, logs, resources)

    def executor(self) -> Any:
        """A submitit executor with this infra's settings, for functions of one's own; None for ``cluster=None``.

        ``"local"`` and ``"debug"`` give submitit's own executors for them.
        """
        if self.cluster is None:
            return None
        from exca_like.executors.slurm import public_executor

        return public_executor(self.cluster, self._log_folder(), self._resources())

    @overload
    def apply(self, method: C, *, exclude_from_cache_uid: Any = (), watch: Any = ()) -> C: ...
    @overload
    def apply(self, method: None = None, *, exclude_from_cache_uid: Any = (), watch: Any = ()) -> Callable[[C], C]: ...
    def apply(self, method: Any = None, *, exclude_from_cache_uid: Any = (), watch: Any = ()) -> Any:
        """Tie the infra to a method (as a decorator, with or without arguments).

        Parameters
        ----------
        method:
            The method: of a `TaskInfra` one that takes only ``self``, of a `SubmitInfra` any one, or a static method.
        exclude_from_cache_uid:
            Fields that don't change what the method returns, in addition to ``_exclude_from_cls_uid``: a list of
            (dotted) names, a function of the class that returns one, or ``"method:<name>"`` for a method that does and
            that subclasses may override.
        watch:
            What reading the source of the method does not find: functions and classes whose code counts, too, and names of
            variables of its module whose values count, as they are at each call; see the field ``code``.

        Raises
        ------
        TypeError, ValueError
            The infra is not for such a method.
        RuntimeError
            The infra was applied before.
        """
        if method is None:
            return lambda function: self._apply(function, exclude_from_cache_uid, watch)
        return self._apply(method, exclude_from_cache_uid, watch)
