"""Configs made from functions: a field for each parameter, and an infra that runs the function."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import pydantic

from exca_like.errors import InfraTypeError, InfraValueError
from exca_like.infra.task import TaskInfra
from exca_like.models.function import MODEL_CONFIG, CallSignature

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_BASIC = (str, int, float)


class FunctionConfig(Protocol[R_co]):
    """A config of a function's arguments: its fields are the parameters, and ``infra``."""

    infra: TaskInfra

    def build(self) -> R_co:
        """What the function returns for these arguments, from the cache if it is there."""
        ...


class _Base(pydantic.BaseModel):
    model_config = MODEL_CONFIG
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def build(self) -> Any:
        signature: CallSignature = type(self)._exca_like_signature  # type: ignore[attr-defined]
        return signature.call({name: getattr(self, each.field) for name, each in signature.arguments.items()})


def to_config_model(function: Callable[..., R]) -> type[FunctionConfig[R]]:
    """A pydantic model with a field for each parameter of a function, ``infra``, and ``build()``, which calls the function.

    Parameters
    ----------
    function:
        The function; parameters without a type take any value.

    Raises
    ------
    TypeError
        It takes any number of arguments, which have no names for fields, or one of its parameters is called ``infra``.

    Examples
    --------
    >>> def scale(a: int, b: float = 1.5) -> float:
    ...     return a * b
    >>> to_config_model(scale)(a=3).build()
    4.5
    """
    signature = CallSignature(function, function.__qualname__)
    if not inspect.isfunction(function) or not signature.is_plain:
        msg = f"{function!r:.100} can't become a config: it has to be a function whose parameters all can be given by name"
        raise InfraTypeError(msg)
    model: Any = signature.make_model(f"{function.__name__}_FuncConfig", _Base)
    model._exca_like_signature = signature
    return model  # type: ignore[no-any-return]


def to_config(function: Callable[..., R], **kwargs: Any) -> FunctionConfig[R]:
    """A config of a function's arguments, given by name, and of ``infra``; see `to_config_model`.

    Raises
    ------
    pydantic.ValidationError
        An argument is missing, has another name, or is not of its parameter's type.

    Examples
    --------
    >>> def scale(a: int, b: float = 1.5) -> float:
    ...     return a * b
    >>> to_config(scale, a=3, b=2).build()
    6.0
    """
    model: Any = to_config_model(function)
    return model(**kwargs)  # type: ignore[no-any-return]


class with_infra:  # noqa: N801 - used as a decorator
    """Decorator for functions that are computed by a TaskInfra with these settings; `exca_like.memo` does more.

    Parameters
    ----------
    **kwargs:
        Fields of the `TaskInfra`: ``folder``, ``cluster``, ``mode``...
    """

    def __init__(self, **kwargs: Any) -> None:
        TaskInfra(**kwargs)  # a wrong one raises here
        self._settings = kwargs

    def __call__(self, function: Callable[P, R]) -> "FunctionWithInfra[P, R]":
        return FunctionWithInfra(function, self._settings)


class FunctionWithInfra(Generic[P, R]):
    """A function that is computed by a TaskInfra."""

    def __init__(self, func: Callable[P, R], infra: dict[str, Any]) -> None:
        self.func = func
        self.infra = infra
        functools.update_wrapper(self, func)

    @functools.cached_property
    def _model(self) -> Any:
        return to_config_model(self.func)

    def config(self, *args: P.args, **kwargs: P.kwargs) -> FunctionConfig[R]:
        """The config of a call, whose ``build()`` computes it."""
        if args:
            given = inspect.signature(self.func).bind_partial(*args, **kwargs).arguments
            return self._model(**given, infra=self.infra)  # type: ignore[no-any-return]
        return self._model(**kwargs, infra=self.infra)  # type: ignore[no-any-return]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.config(*args, **kwargs).build()


def validate_kwargs(func: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Check that a function can be called with keyword arguments, and those annotated as str, int or float are such.

    Raises
    ------
    ValueError
        Some are missing, or the function has no such parameters.
    TypeError
        One is of another type.
    """
    parameters = inspect.signature(func).parameters
    named = {name: each for name, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    takes_more = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    missing = [name for name, each in named.items() if each.default is each.empty and name not in kwargs]
    extra = [name for name in kwargs if name not in named and not takes_more]
    if missing or extra:
        unknown = f"it has no parameter {', '.join(extra)} (but {', '.join(named)})"
        why = f"the call lacks {', '.join(missing)}" if missing else unknown
        msg = f"{func.__qualname__} can't be called with these arguments: {why}"
        raise InfraValueError(msg)
    for name, value in kwargs.items():
        annotation = named[name].annotation if name in named else None
        expected = next((kind for kind in _BASIC if annotation in (kind, kind.__name__)), None)
        if expected is not None and not isinstance(value, expected):
            msg = f"{func.__qualname__}: {name}={value!r:.100} is a {type(value).__name__}, but should be a {expected.__name__}"
            raise InfraTypeError(msg)
