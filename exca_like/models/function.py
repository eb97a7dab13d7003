"""How a function is called, as a pydantic model: one field for each parameter."""

import inspect
import keyword
import typing
from collections import abc
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import pydantic

from exca_like.errors import InfraTypeError

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_MISSING: Any = inspect.Parameter.empty
_LAZY = (abc.Iterable, abc.Iterator, abc.Generator)
MODEL_CONFIG = pydantic.ConfigDict(
    extra="forbid", arbitrary_types_allowed=True, validate_by_name=True, validate_by_alias=True, protected_namespaces=()
)


class Argument(NamedTuple):
    """A parameter of a function, without how it is given."""

    name: str
    annotation: Any
    """What is known of its type; Any if nothing is."""
    default: Any
    """Its default value; ``inspect.Parameter.empty`` if it has none."""
    field: str
    """Name of its field in the model: another one where pydantic does not allow its own."""


class CallSignature:
    """The parameters of a function, and how arguments are given to them.

    Parameters
    ----------
    function:
        A plain function.
    name:
        Its name, for messages.
    stands_in:
        Tells of values that are not validated: they stand for others.
    untyped:
        Names of parameters whose annotation does not count.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        stands_in: Callable[[Any], bool] | None = None,
        untyped: tuple[str, ...] = (),
    ) -> None:
        self.function = function
        self.name = name
        self._stands_in = stands_in or (lambda _: False)
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters
        annotations = _annotations(function)
        self.arguments = {
            each.name: Argument(
                each.name,
                _type_of(each, Any if each.name in untyped else annotations.get(each.name, Any)),
                _default_of(each),
                _field_name(each.name),
            )
            for each in parameters.values()
        }
        self._check_fields()
        self._positional = tuple(each.name for each in parameters.values() if each.kind in _BY_POSITION)
        self._defaults = {each.name: each.default for each in parameters.values() if each.default is not _MISSING}
        kinds = {each.kind for each in parameters.values()}
        self.is_plain = not kinds & {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }
        self._is_typed = any(each.annotation is not Any for each in self.arguments.values())

    def _check_fields(self) -> None:
        fields = [each.field for each in self.arguments.values()]
        twice = next((name for name in fields if fields.count(name) > 1), None)
        if twice is not None:
            msg = f"{self.name} has several parameters that would be the field {twice!r} of its model: rename one of them"
            raise InfraTypeError(msg)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any], validated: Collection[str] = ()) -> dict[str, Any]:
        """The values of all parameters in a call, in order, defaults included; those with a type are validated.

        Parameters
        ----------
        args, kwargs:
            The arguments.
        validated:
            Names of parameters whose arguments were validated before.

        Raises
        ------
        TypeError
            The function can't be called like this.
        pydantic.ValidationError
            An argument is not of its parameter's type.
        """
        values = self._bound(args, kwargs)
        return self._validated(values, validated) if self._is_typed else values

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self._positional
        if self.is_plain and len(args) <= len(names):
            given = dict(zip(names, args))  # noqa: B905 - there may be fewer
            if kwargs and not given.keys().isdisjoint(kwargs):
                return self._slowly_bound(args, kwargs)
            values = self._defaults | given | kwargs if self._defaults or kwargs else given
            if len(values) == len(self.arguments) and values.keys() == self.arguments.keys():
                return {name: values[name] for name in self.arguments}
        return self._slowly_bound(args, kwargs)

    def _slowly_bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            msg = f"{self.name}{self._signature}: {error}"
            raise InfraTypeError(msg) from None
        bound.apply_defaults()
        values = dict(bound.arguments)
        for each in self._signature.parameters.values():
            if each.kind is each.VAR_KEYWORD:  # in whatever order they were given
                values[each.name] = dict(sorted(values[each.name].items()))
        return values

    def _validated(self, values: dict[str, Any], validated: Collection[str]) -> dict[str, Any]:
        arguments = self.arguments.values()
        left = {name for name, value in values.items() if name in validated or self._stands_in(value)}
        if left:
            return {
                each.name: values[each.name] if each.name in left else self._validated_alone(each, values[each.name])
                for each in arguments
            }
        model = self.model.__pydantic_validator__.validate_python({each.field: values[each.name] for each in arguments})
        found = model.__dict__
        return {each.name: found[each.field] for each in arguments}

    def _validated_alone(self, argument: Argument, value: Any) -> Any:
        probe = self.model.model_construct()
        self.model.__pydantic_validator__.validate_assignment(probe, argument.field, value)
        return getattr(probe, argument.field)

    def call(self, values: Mapping[str, Any]) -> Any:
        """Call the function with the values of its parameters, as `bind` gives them."""
        if self.is_plain:
            return self.function(**values)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_name = False
        for each in self._signature.parameters.values():
            value = values[each.name]
            if each.kind is each.VAR_POSITIONAL:
                args += value
            elif each.kind is each.VAR_KEYWORD:
                kwargs |= value
            elif each.kind in _BY_POSITION and not by_name:
                args.append(value)
            else:
                by_name = True
                kwargs[each.name] = value
        return self.function(*args, **kwargs)

    @cached_property
    def model(self) -> type[pydantic.BaseModel]:
        """A model with a field for each parameter."""
        return self.make_model(self.name.rpartition(".")[2])

    def make_model(self, name: str, base: type[pydantic.BaseModel] | None = None) -> type[pydantic.BaseModel]:
        """A model with a field for each parameter, and those of a base."""
        fields: dict[str, Any] = {}
        for each in self.arguments.values():
            annotation, default = each.annotation, ... if each.default is _MISSING else each.default
            if default is not ... and not _fits(annotation, default):  # as in `x: int = None`
                annotation = typing.Optional[annotation] if default is None else Any  # noqa: UP045 - of any annotation
            alias = each.name if each.field != each.name else None
            fields[each.field] = annotation, pydantic.Field(default, alias=alias, validate_default=True)
        taken = fields.keys() & set(() if base is None else dir(base))
        if taken:
            msg = f"{self.name} has a parameter {min(taken)!r}, a name that its model needs for itself: rename the parameter"
            raise InfraTypeError(msg)
        config: Any = {} if base is not None else {"__config__": MODEL_CONFIG}
        return pydantic.create_model(name, __base__=base, __module__=self.function.__module__, **config, **fields)


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of parameters, as far as they can be found out."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # some names can't be resolved, as those that are imported for type checkers only
        found = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                probe = type("Probe", (), {"__annotations__": {name: annotation}, "__module__": function.__module__})
                hints = typing.get_type_hints(probe, getattr(function, "__globals__", {}), include_extras=True)
                found[name] = hints[name]
            except Exception:
                found[name] = Any
        return found


def _type_of(parameter: inspect.Parameter, annotation: Any) -> Any:
    if annotation is Any or _is_lazy(annotation) or not _fits(annotation):
        return Any
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple[annotation, ...]
    if parameter.kind is parameter.VAR_KEYWORD:
        return dict[str, annotation]
    return annotation


def _default_of(parameter: inspect.Parameter) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return ()
    return {} if parameter.kind is parameter.VAR_KEYWORD else parameter.default


def _is_lazy(annotation: Any) -> bool:
    """Whether pydantic would put an iterator in the place of values of a type."""
    origin = typing.get_origin(annotation) or annotation
    return origin in _LAZY or any(map(_is_lazy, typing.get_args(annotation)))


def _fits(annotation: Any, *values: Any) -> bool:
    """Whether pydantic can validate values of a type, and takes some."""
    if annotation is Any:
        return True
    has_config = isinstance(annotation, type) and (
        issubclass(annotation, pydantic.BaseModel) or hasattr(annotation, "__pydantic_config__")
    )
    try:
        adapter: Any = pydantic.TypeAdapter(annotation, config=None if has_config else {"arbitrary_types_allowed": True})
        for value in values:
            adapter.validate_python(value)
    except Exception:
        return False
    return True


def _field_name(name: str) -> str:
    """A name for a field that pydantic allows."""
    clean = name.lstrip("_") or "argument"
    while hasattr(pydantic.BaseModel, clean) or keyword.iskeyword(clean) or (clean != name and name.startswith("_")):
        clean, name = f"{clean}_", ""
    return clean
