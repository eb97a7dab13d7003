"""How an infra is tied to a method and to the models that own it.

The class that declares an infra keeps an `InfraField` for it: a descriptor under the infra's name, which hands each
instance its own infra, linked to it. So the link is right however the instance came to be: validated, constructed,
copied, or unpickled in another process.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydantic

from exca_like import runs
from exca_like.errors import InfraTypeError, InfraUsageError, InfraValueError
from exca_like.models.plan import checked_names
from exca_like.names import qualified_name
from exca_like.watching import Watch

if TYPE_CHECKING:
    from exca_like.infra.base import BaseInfra

FIELDS = "__exca_like_infras__"


_METHOD_PREFIX = "method:"
_link_lock = threading.RLock()


@dataclass(eq=False)
class AppliedMethod:
    """A method that an infra was applied to."""

    method: Callable[..., Any]
    exclude: Any
    watch: Watch
    infra_name: str = ""
    owner: type[Any] | None = None
    wrapper: Callable[..., Any] | None = None
    _paths: dict[type[Any], str] = field(default_factory=dict)
    _caching: dict[type[Any], type[Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.method.__name__

    @functools.cached_property
    def source(self) -> str:
        """The folder of the method's code, or the one that stands for it."""
        return runs.source_of(self.method)

    def infra_of(self, obj: Any) -> "BaseInfra | None":
        """The infra that a call of the method on an object goes through; None if a subclass applied it elsewhere."""
        infra_field = getattr(type(obj), FIELDS, {}).get(self.infra_name)
        if infra_field is None:
            cls = type(obj)
            what = "is no pydantic model" if not isinstance(obj, pydantic.BaseModel) else "has no such field"
            msg = (
                f"{cls.__qualname__}.{self.name} was given an infra, but {cls.__qualname__} {what}: infras are annotated "
                "fields of pydantic models, like `infra: exca_like.TaskInfra = exca_like.TaskInfra()`, "
                "or with MapInfra or SubmitInfra"
            )
            raise InfraUsageError(msg)
        if infra_field.applied is not self:
            infra_field.check()
            return None
        infra: BaseInfra = infra_field.linked(obj)
        return infra

    def method_path(self, cls: type[Any]) -> str:
        """``<module>.<Class>.<method>`` of a class's instances, without version."""
        path = self._paths.get(cls)
        if path is None:
            path = self._paths[cls] = f"{qualified_name(self.caching_class(cls))}.{self.name}"
        return path

    def caching_class(self, cls: type[Any]) -> type[Any]:
        """The class whose name results are stored under: an instance's own, unless it overrides the method."""
        found = self._caching.get(cls)
        if found is None:
            found = self._caching[cls] = self._find_caching_class(cls)
        return found

    def _find_caching_class(self, cls: type[Any]) -> type[Any]:
        for base in cls.__mro__:
            if self.name in base.__dict__:  # as it is, or under other decorators
                found = inspect.unwrap(base.__dict__[self.name], stop=lambda function: function is self.wrapper)
                return cls if found is self.wrapper else self.owner or cls
        return cls

    def excluded(self, obj: Any) -> tuple[str, ...]:
        """Names that are left out of an object's cache uid."""
        names = self.exclude
        if names == ():
            return ()
        source = "exclude_from_cache_uid"
        if isinstance(names, str):
            source = names
            method = getattr(obj, names.removeprefix(_METHOD_PREFIX), None)
            if not callable(method):
                msg = f"exclude_from_cache_uid={names!r}, but {type(obj).__qualname__} has no such method"
                raise InfraUsageError(msg)
            names = method()
        elif isinstance(names, classmethod):
            names = names.__func__(type(obj))
        elif callable(names):
            names = names(obj)
        return tuple(sorted(checked_names(type(obj), names, source)))


def checked_exclusion(exclude: Any) -> Any:
    """An ``exclude_from_cache_uid`` as it may be given to ``apply``."""
    if isinstance(exclude, str):
        if not exclude.startswith(_METHOD_PREFIX) or not exclude.removeprefix(_METHOD_PREFIX).isidentifier():
            msg = (
                f"exclude_from_cache_uid={exclude!r} is not understood: give a list of field names (even for one), "
                "a function of the class that returns one, or 'method:<name>' for a method that does"
            )
            raise InfraTypeError(msg)
        return exclude
    if callable(exclude) or isinstance(exclude, classmethod):
        return exclude
    if not isinstance(exclude, Iterable):
        msg = f"exclude_from_cache_uid must be a list of field names or a function that returns one, not {exclude!r}"
        raise InfraTypeError(msg)
    return tuple(exclude)


@dataclass(eq=False)
class InfraField:
    """The infra of a class: its default, the method it is applied to, and the link to instances."""

    name: str
    default: "BaseInfra"
    applied: AppliedMethod | None
    owner: type[Any] = field(repr=False)
    is_private: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_private = self.name.startswith("_")

    def __get__(self, obj: Any, cls: type[Any] | None = None) -> Any:
        if obj is None:  # as for any field of a pydantic class
            raise AttributeError(self.name)
        return self.linked(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        self._values(obj)[self.name] = value  # never used by pydantic, whose models set their fields themselves

    def check(self) -> None:
        """Raise if the infra was never applied to a method."""
        if self.applied is None:
            msg = (
                f"the infra {self.name!r} of {self.owner.__qualname__} was not applied to a method: put `@{self.name}.apply` "
                "above the method it is for"
                + (" (a subclass that declares the infra again must apply it again)" if self._is_redeclared() else "")
            )
            raise InfraUsageError(msg)

    def linked(self, obj: Any) -> Any:
        """The infra of an instance; on first sight it gets the class's defaults and its owner."""
        values = self._values(obj) if self.is_private else obj.__dict__
        infra = values.get(self.name)
        if _is_linked(infra, obj):
            return infra
        self.check()
        with _link_lock:
            if values.get(self.name) is infra and infra is not None:  # else another thread was first
                values[self.name] = infra._linked_to(obj, self)
            return values.get(self.name)

    def _values(self, obj: Any) -> dict[str, Any]:
        values: dict[str, Any] | None = obj.__pydantic_private__ if self.is_private else obj.__dict__
        return {} if values is None else values

    def _is_redeclared(self) -> bool:
        return any(self.name in getattr(base, FIELDS, {}) for base in self.owner.__mro__[1:])


def _is_linked(infra: Any, obj: Any) -> bool:
    try:
        state = object.__getattribute__(infra, "_state")  # a miss is slow in pydantic's own lookup
    except AttributeError:
        return False
    return state is not None and state.owner is obj


def wrap(applied: AppliedMethod) -> Callable[..., Any]:
    """The function that takes the method's place."""

    @functools.wraps(applied.method)
    def cached_method(self: Any) -> Any:
        try:
            infra = self.__dict__[applied.infra_name]
            state = infra._state
            kept = state.kept
            if kept[0] is self and kept[1] is applied:
                return kept[2]
            is_linked = state.owner is self and state.field.applied is applied
        except (KeyError, AttributeError):
            infra, is_linked = None, False
        if not is_linked:
            infra = applied.infra_of(self)
        return applied.method(self) if infra is None else infra._call()

    applied.wrapper = cached_method
    return cached_method


def check_task_signature(method: Any) -> None:
    """Raise unless a method takes nothing but ``self``."""
    if not callable(method) or isinstance(method, staticmethod | classmethod | type) or inspect.iscoroutinefunction(method):
        kind = "an async method" if inspect.iscoroutinefunction(method) else f"a {type(method).__name__}"
        msg = f"TaskInfra is for plain methods of a config, not for {kind}: put `@infra.apply` above a `def name(self)`"
        raise InfraTypeError(msg)
    parameters = list(inspect.signature(method).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
        names = ", ".join(str(parameter) for parameter in parameters)
        msg = (
            f"TaskInfra is for methods that take only self, but {method.__qualname__} takes ({names}): "
            "make the other parameters fields of the config"
        )
        raise InfraValueError(msg)


def declare(infra: "BaseInfra", applied: AppliedMethod | None, owner: type[Any], name: str) -> None:
    """Register the default infra of a class that is being created, and prepare the class."""
    if applied is not None:
        applied.infra_name, applied.owner = name, owner
    if not issubclass(owner, pydantic.BaseModel):
        return  # the first call of the method says what is wrong
    infras = {**getattr(owner, FIELDS, {}), name: InfraField(name, infra, applied, owner)}
    setattr(owner, FIELDS, infras)
    owner.model_config.setdefault("extra", "forbid")
    completed = owner.__pydantic_on_complete__

    def __pydantic_on_complete__(cls: type[Any]) -> None:
        completed.__func__(cls)  # type: ignore[attr-defined]
        for infra_name, infra_field in getattr(cls, FIELDS).items():
            # pydantic removes defaults from the class, so that the name is free for the descriptor
            setattr(cls, infra_name, infra_field)

    owner.__pydantic_on_complete__ = classmethod(__pydantic_on_complete__)  # type: ignore[method-assign,assignment]
    owner._exca_like_link = pydantic.model_validator(mode="after")(_link_all)  # type: ignore[attr-defined]


def _link_all(self: Any) -> Any:
    for infra_field in getattr(type(self), FIELDS).values():
        if not infra_field.is_private:
            infra = infra_field.linked(self)
            if infra is not None and infra.cluster is not None:
                try:
                    infra._check_built()
                except InfraValueError as error:  # a model may have several infras
                    msg = f"{infra_field.name}: {error}"
                    raise InfraValueError(msg) from None
    return self
