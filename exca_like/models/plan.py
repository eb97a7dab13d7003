"""What is known of a model class before any instance is looked at, worked out once per class."""

import datetime
import enum
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

from exca_like.errors import ConfigTypeError, ConfigValueError

EXCLUDE_ATTRIBUTE = "_exclude_from_cls_uid"
KEY_ATTRIBUTE = "_exca_like_key"
OVERRIDE_METHOD = "_exca_uid_dict_override"
WHOLE_MODEL = "."
REQUIRED: Any = object()

_SERIALIZERS = (pydantic.PlainSerializer, pydantic.WrapSerializer)
_IMMUTABLE = (str, int, float, bytes, type(None), PurePath, enum.Enum, datetime.date, datetime.time, datetime.timedelta)
_SCHEMA_METHOD = "__get_pydantic_core_schema__"


@dataclass
class FieldPlan:
    """One field of a model class.

    ``models`` maps the model classes of the annotation to the names of the fields that tell them apart in their
    (nested) unions; ``None`` stands for a function of the whole model.
    """

    name: str
    info: FieldInfo
    models: dict[type[pydantic.BaseModel], tuple[str, ...] | None] = field(default_factory=dict)
    custom: bool = False
    opaque: bool = False
    ambiguous: str = ""
    mutable: bool = False  # the annotation allows values that can be edited in place
    static_default: Any = field(init=False)
    has_factory: bool = field(init=False)
    is_empty: bool = field(init=False)  # by default an empty container

    def __post_init__(self) -> None:
        self.has_factory = self.info.default_factory is not None
        self.is_empty = self.info.default_factory in (list, dict, set, tuple)
        self.static_default = REQUIRED if self.info.is_required() else self.info.default

    def default(self, data: Mapping[str, Any]) -> Any:
        """The default value, `REQUIRED` if there is none."""
        if self.has_factory:
            return self.info.get_default(call_default_factory=True, validated_data=dict(data))
        return self.static_default


@dataclass
class ModelPlan:
    """A model class: its fields, and how it changes its own export."""

    cls: type[pydantic.BaseModel]
    fields: tuple[FieldPlan, ...]
    key: str | None
    custom: bool
    overrides_uid: bool
    forbids_extra: bool
    static_exclusion: frozenset[str] | None
    private_exclusion: bool
    leaves_parent: bool = field(init=False)  # every instance is left out of its parent's uid
    plain: bool = field(init=False)  # exported field by field, with nothing special about the model
    is_plain_part: bool = field(init=False)  # a part of other models with nothing special about it
    guarded: bool = field(init=False, default=False)  # the class asks whether an instance is frozen (models.freeze)
    nested: tuple[FieldPlan, ...] = field(init=False)
    mutable: tuple[FieldPlan, ...] = field(init=False)
    loose: tuple[FieldPlan, ...] = field(init=False)  # fields that may hold anything, functions and classes too
    by_name: dict[str, FieldPlan] = field(init=False)
    kept_fields: tuple[FieldPlan, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.leaves_parent = WHOLE_MODEL in (self.static_exclusion or ())
        self.plain = not (self.custom or self.overrides_uid or self.leaves_parent or self.static_exclusion is None)
        self.is_plain_part = (
            not (self.leaves_parent or self.static_exclusion is None or self.key)
            and self.forbids_extra
            and not issubclass(self.cls, pydantic.RootModel)
        )
        self.nested = tuple(f for f in self.fields if f.models or f.opaque)
        self.mutable = tuple(f for f in self.fields if f.mutable)
        self.loose = tuple(f for f in self.mutable if not f.models)
        self.by_name = {f.name: f for f in self.fields}
        self.kept_fields = tuple(f for f in self.fields if f.name not in (self.static_exclusion or ()))

    def is_left_out(self, model: pydantic.BaseModel) -> bool:
        """Whether the model is no part of its parent's uid."""
        return self.leaves_parent or (self.static_exclusion is None and WHOLE_MODEL in self.excluded(model))

    def kept(self, model: pydantic.BaseModel) -> tuple[FieldPlan, ...]:
        """Fields that are part of the uid."""
        if self.static_exclusion is not None:
            return self.kept_fields
        excluded = self.excluded(model)
        return tuple(f for f in self.fields if f.name not in excluded)

    def excluded(self, model: pydantic.BaseModel) -> frozenset[str]:
        """Fields that the model's class keeps out of its uid."""
        if self.static_exclusion is not None:
            return self.static_exclusion
        if self.private_exclusion:  # a base class's attribute of that name would hide it
            listed = (model.__pydantic_private__ or {}).get(EXCLUDE_ATTRIBUTE, ())
        else:
            listed = getattr(model, EXCLUDE_ATTRIBUTE)
        return checked_names(self.cls, listed() if callable(listed) else listed, EXCLUDE_ATTRIBUTE, dotted=False)


class _Plans(dict[type[pydantic.BaseModel], ModelPlan]):
    def __missing__(self, cls: type[pydantic.BaseModel]) -> ModelPlan:
        plan = self[cls] = _make_plan(cls)
        return plan


_plans = _Plans()  # a weak mapping would not free the classes: their plans refer to them


def plan_of(cls: type[pydantic.BaseModel]) -> ModelPlan:
    """The plan of a model class."""
    return _plans[cls]


def checked_names(cls: type[pydantic.BaseModel], names: Any, source: str, *, dotted: bool = True) -> frozenset[str]:
    """Names of fields as a set; dotted ones, where they are allowed, are fields of sub-models.

    Raises
    ------
    TypeError
        They are given as a bare string, or not as names at all.
    ValueError
        One is not the name of a field.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        msg = f"{cls.__qualname__}: {source} must be a list, tuple or set of field names, not {names!r}"
        raise ConfigTypeError(msg)
    found = frozenset(names)
    for name in found:
        if not isinstance(name, str):
            msg = f"{cls.__qualname__}: {source} must hold field names, not {name!r}"
            raise ConfigTypeError(msg)
        if name != WHOLE_MODEL and not (_names_field(cls, name) if dotted else name in cls.model_fields):
            msg = f"{cls.__qualname__}: {source} names {name!r}, which is no field; fields are {', '.join(cls.model_fields)}"
            if not dotted and "." in name:
                msg += " (dotted names belong in exclude_from_cache_uid, or their last part in the sub-model's own class)"
            raise ConfigValueError(msg)
    return found


def _names_field(cls: type[pydantic.BaseModel], name: str) -> bool:
    head, _, below = name.partition(".")
    if head not in cls.model_fields or not below:
        return head in cls.model_fields
    annotation = cls.model_fields[head].annotation
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    models = [_without_annotations(member) for member in members if member is not types.NoneType]
    if not all(_is_model(model) and _key_of(model) is None for model in models):
        return True  # a dictionary, or a model that is not known yet, can have anything inside
    return any(_names_field(model, below) for model in models)


def _own_private(cls: type[pydantic.BaseModel], name: str) -> bool:
    """Whether a name is a private attribute, and no base class nearer than the one that makes it so has it otherwise."""
    for base in cls.__mro__:
        if name in vars(base):
            return False
        private = vars(base).get("__private_attributes__", {}).get(name)
        inherited = [getattr(parent, "__private_attributes__", {}).get(name) for parent in base.__bases__]
        if private is not None and all(private is not other for other in inherited):
            return True
    return False


def _make_plan(cls: type[pydantic.BaseModel]) -> ModelPlan:
    if not cls.__pydantic_complete__:
        cls.model_rebuild()
    decorators = cls.__pydantic_decorators__
    serialized = {name for decorator in decorators.field_serializers.values() for name in decorator.info.fields}
    fields = []
    for name, info in cls.model_fields.items():
        plan = FieldPlan(name, info)
        plan.custom = bool(serialized & {name, "*"}) or any(map(_is_serializer, info.metadata))
        _read_annotation(info.annotation, plan, tuple(_discriminators((info, *info.metadata))))
        fields.append(plan)
    exclusion = getattr(cls, EXCLUDE_ATTRIBUTE, None)
    private = _own_private(cls, EXCLUDE_ATTRIBUTE)
    return ModelPlan(
        cls=cls,
        fields=tuple(fields),
        key=_key_of(cls),
        custom=bool(decorators.model_serializers),
        overrides_uid=hasattr(cls, OVERRIDE_METHOD),
        forbids_extra=cls.model_config.get("extra") in ("forbid", "allow") or issubclass(cls, pydantic.RootModel),
        static_exclusion=None
        if callable(exclusion) or private
        else checked_names(cls, () if exclusion is None else exclusion, EXCLUDE_ATTRIBUTE, dotted=False),
        private_exclusion=private,
    )


def _read_annotation(annotation: Any, plan: FieldPlan, discriminators: tuple[Any, ...] = ()) -> None:
    """Collect the model classes of an annotation, and whatever else changes how its values are exported."""
    origin = get_origin(annotation)
    if hasattr(annotation, "__value__"):  # a `type X = ...` alias
        _read_annotation(annotation.__value__, plan, discriminators)
    elif origin is Annotated:
        base, *metadata = get_args(annotation)
        for item in metadata:
            plan.custom = plan.custom or _is_serializer(item)
        _read_annotation(base, plan, (*discriminators, *_discriminators(metadata)))
    elif origin in (Union, types.UnionType):
        _read_union(get_args(annotation), plan, discriminators)
    elif isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        plan.mutable = True
        names = tuple(name for name in discriminators if isinstance(name, str))
        plan.models.setdefault(annotation, names if len(names) == len(discriminators) else None)
        if annotation is pydantic.BaseModel:
            plan.ambiguous = "BaseModel"
    elif origin is Literal or annotation is None:
        pass
    elif origin is not None:
        plan.mutable = True
        for argument in get_args(annotation):
            _read_annotation(argument, plan)
    elif annotation in (Any, object, dict, list, tuple, set, frozenset) or isinstance(annotation, TypeVar | str):
        plan.opaque = plan.mutable = True
    elif isinstance(annotation, type):
        plan.mutable = plan.mutable or not issubclass(annotation, _IMMUTABLE)
        plan.custom = plan.custom or _is_serializer(annotation)
    else:
        plan.opaque = plan.mutable = annotation is not Ellipsis


def _read_union(members: tuple[Any, ...], plan: FieldPlan, discriminators: tuple[Any, ...]) -> None:
    models = [member for member in map(_without_annotations, members) if _is_model(member)]
    if len(models) > 1 and not discriminators and not all(_key_of(model) for model in models):
        plan.ambiguous = " | ".join(model.__name__ for model in models)
    for member in members:
        _read_annotation(member, plan, discriminators)


def _without_annotations(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _is_serializer(item: Any) -> bool:
    """Whether a type, or what annotates one, may serialize its values in its own way."""
    kind = item if isinstance(item, type) else type(item)
    return isinstance(item, _SERIALIZERS) or (hasattr(item, _SCHEMA_METHOD) and not kind.__module__.startswith("pydantic"))


def _key_of(cls: type[pydantic.BaseModel]) -> str | None:
    """The key that holds the class name, for a `DiscriminatedModel` (which most programs need not load)."""
    return getattr(cls, KEY_ATTRIBUTE, None)


def _is_model(annotation: Any) -> typing.TypeGuard[type[pydantic.BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _discriminators(metadata: Iterable[Any]) -> Iterator[Any]:
    """Field names, or functions, that tell the models of a union apart."""
    for item in metadata:
        found = getattr(item, "discriminator", None)
        if found is not None:
            yield found.discriminator if isinstance(found, pydantic.Discriminator) else found
