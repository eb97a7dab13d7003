"""Other configs of a class, made from one: changed copies, and those that have results in the cache."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic

from exca_like import user_warnings
from exca_like.confdict import ConfDict, insert
from exca_like.errors import InfraTypeError
from exca_like.infra.applied import FIELDS
from exca_like.infra.readers import stored_configs
from exca_like.models.clone import changed_copy, changes_of, validated


def clone(infra: Any, patches: Sequence[Mapping[str, Any]]) -> Any:
    """A copy of the config of an infra, with changes of which later ones go on top of earlier ones."""
    for patch in patches:
        if not isinstance(patch, dict | Mapping):
            msg = f"clone_obj takes dictionaries of changes and keywords, not {patch!r:.100}"
            raise InfraTypeError(msg)
    owner = infra._linked_state.owner
    first, *others = [changes_of(type(owner), patch, owner) for patch in patches if patch] or [ConfDict()]
    for patch in others:
        for key, value in patch.items():
            insert(first, [key], value)
    return _with_private_infras(owner, changed_copy(owner, first))


def cached_configs(infra: Any) -> Iterator[Any]:
    """Configs that have results (or errors) in the cache, with the settings of an infra of their class."""
    owner = infra._linked_state.owner
    name = infra._field_name()
    settings = {field: infra.__dict__[field] for field in infra.__pydantic_fields_set__}
    for folder, config in stored_configs(infra):
        if name in type(owner).model_fields:
            config[name] = settings
        try:
            found = validated(type(owner), config)
        except pydantic.ValidationError as error:
            user_warnings.warn(f"skipping {folder.path}: its config does not fit the class any more: {error}")
            continue
        yield _with_private_infras(owner, found)


def _with_private_infras(owner: Any, other: Any) -> Any:
    """Another config of the class, with the settings of private infras, which are no part of a config."""
    for name, infra_field in getattr(type(other), FIELDS).items():
        if infra_field.is_private:
            other.__pydantic_private__[name] = copy.copy(infra_field.linked(owner))
    return other
