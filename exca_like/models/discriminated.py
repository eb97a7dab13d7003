"""Families of models that carry their class name, so that a config tells which class to build."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pydantic
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from exca_like.errors import ModelExportError


def family_of(base: "type[DiscriminatedModel]") -> "dict[Any, type[DiscriminatedModel]]":
    """The class and its subclasses by name; of two with one name (a notebook cell run again) the later one."""
    family = {base.__name__: base}
    for cls in base.__subclasses__():
        family.update(family_of(cls))
    return family


def _validate(cls: "type[DiscriminatedModel]", data: Any, handler: Any, info: core_schema.ValidationInfo) -> Any:
    if isinstance(data, str):
        data = {cls._exca_like_key: data}
    if not isinstance(data, Mapping) or cls._exca_like_key not in data:
        return handler(data)
    content = dict(data)
    name = content.pop(cls._exca_like_key)
    family = family_of(cls)
    target = family.get(name) if isinstance(name, str) else None
    if target is None:
        raise PydanticCustomError(
            "unknown_discriminator",  # noqa: EM101 - the error's type, not its message
            "{key}={name} names no {base}: use one of {options}",
            {"key": cls._exca_like_key, "name": repr(name), "base": cls.__name__, "options": ", ".join(sorted(family))},
        )
    if target is cls:
        return handler(content)
    # by name: what a model dumps unless told otherwise
    return target.model_validate(content, context=info.context, by_name=True)


def _serialize(cls: "type[DiscriminatedModel]", model: Any, handler: Any, info: pydantic.SerializationInfo) -> Any:
    actual = type(model)
    if actual is not cls and isinstance(model, DiscriminatedModel):  # the declared class does not know its fields
        return actual.__pydantic_serializer__.to_python(
            model,
            mode=info.mode,
            include=info.include,
            exclude=info.exclude,
            by_alias=bool(info.by_alias),
            exclude_unset=info.exclude_unset,
            exclude_defaults=info.exclude_defaults,
            exclude_none=info.exclude_none,
            round_trip=info.round_trip,
            context=info.context,
        )
    content = handler(model)
    return {cls._exca_like_key: actual.__name__, **content} if isinstance(content, dict) else content


class DiscriminatedModel(pydantic.BaseModel):
    """Base of a family of models that are told apart by their class name.

    Instances are dumped with the name of their class under a key (``"type"``, or what the class keyword
    ``discriminator_key`` says), and validated into the subclass that the key names: a field declared with the base
    class takes and restores all subclasses, also those defined later. A bare string stands for the subclass of that
    name with its defaults.

    Raises
    ------
    RuntimeError
        When a subclass is defined: it has a field with the key's name, or changes the key of its family.

    Examples
    --------
    >>> class Shape(DiscriminatedModel, discriminator_key="kind"):
    ...     pass
    >>> class Disk(Shape):
    ...     radius: float = 1.0
    >>> Shape(kind="Disk").model_dump()
    {'kind': 'Disk', 'radius': 1.0}
    """

    model_config = pydantic.ConfigDict(extra="forbid")
    _exca_like_key: ClassVar[str] = "type"

    def __init_subclass__(cls, discriminator_key: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if discriminator_key is None or discriminator_key == cls._exca_like_key:
            return
        if DiscriminatedModel not in cls.__bases__:
            msg = f"{cls.__name__} can't change the discriminator key of its family, {cls._exca_like_key!r}"
            raise ModelExportError(msg)
        cls._exca_like_key = discriminator_key

    @classmethod
    def __pydantic_init_subclass__(cls, discriminator_key: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls._exca_like_key in cls.model_fields:
            msg = (
                f"{cls.__name__} has a field {cls._exca_like_key!r}, the key that holds its class name: rename the field, "
                'or the key with class Base(DiscriminatedModel, discriminator_key="…")'
            )
            raise ModelExportError(msg)

    @classmethod
    def discriminator_key(cls) -> str:
        """The key that holds the class name in exported data."""
        return cls._exca_like_key

    if not TYPE_CHECKING:  # type checkers know the fields from the dataclass transform

        def __new__(cls, /, **data: Any) -> Self:
            """Create the subclass that the key names; errors are left to the validation that follows."""
            name = data.get(cls._exca_like_key)
            return super().__new__(family_of(cls).get(name, cls) if isinstance(name, str) else cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        content = handler.resolve_ref_schema(json_schema)
        names = sorted(family_of(cls))
        content["properties"] = {cls._exca_like_key: {"type": "string", "enum": names}, **content.get("properties", {})}
        if len(names) > 1:
            content["additionalProperties"] = True  # the fields of the subclass
        return json_schema

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return core_schema.with_info_wrap_validator_function(
            functools.partial(_validate, cls),
            schema,
            serialization=core_schema.wrap_serializer_function_ser_schema(
                functools.partial(_serialize, cls), info_arg=True, schema=schema
            ),
        )
