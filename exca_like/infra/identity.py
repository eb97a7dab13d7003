"""Is a cache folder the one of this config? Comparison of stored and present identities."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pydantic

from exca_like import canonical
from exca_like.confdict import ConfDict
from exca_like.errors import ConfigMismatchError, ExcaLikeError
from exca_like.layout import EntryFolder
from exca_like.models.plan import plan_of


def check_same_identity(model: pydantic.BaseModel, stored: ConfDict, present: ConfDict, folder: str, version: str) -> None:
    """Raise if two identities of a model differ in what both have.

    A field that only one of them has was added to the class, or removed from it, and is no difference.
    """
    lines = [f"  {key}: stored {first!r}, now {second!r}" for key, first, second in _differences(model, stored, present, "")]
    if lines:
        shown = "\n".join(lines)
        msg = (
            f"{folder} holds the results of another config than the one that asks for them:\n{shown}\n"
            "Most likely a default was changed in the code since they were computed. Restore it, or give the infra another "
            f"version (now {version!r}), or delete the folder.\n\nStored:\n{stored.to_yaml()}\nNow:\n{present.to_yaml()}"
        )
        raise ConfigMismatchError(msg)


def recognized_by(mark: str | None, folder_file: str) -> list[Any] | None:
    """What is stored beside a result, so that a later use of the folder need not compare files.

    It is a mark of the identity, and the size of the file that holds it. None if there is no simple mark.
    """
    try:
        return None if mark is None else [mark, os.stat(folder_file).st_size]
    except OSError:
        return None


def mark_of(identity: Mapping[str, Any]) -> str | None:
    """A digest of an identity, if it is simple."""
    try:
        text = orjson.dumps(identity)
    except TypeError:
        return None
    # NaN would look like None
    return None if b"null" in text else hashlib.blake2b(text, digest_size=8).hexdigest()


def _differences(
    model: pydantic.BaseModel, stored: Mapping[str, Any], present: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Any, Any]]:
    plan = plan_of(type(model))
    for key in stored.keys() & present.keys():
        first, second = stored[key], present[key]
        value = model.__dict__.get(key)
        nested = isinstance(value, pydantic.BaseModel) and not isinstance(value, pydantic.RootModel)
        comparable = nested and not plan.custom and isinstance(first, Mapping) and isinstance(second, Mapping)
        if comparable and (first.keys() & second.keys() or not first or not second):
            yield from _differences(value, first, second, f"{path}{key}.")  # type: ignore[arg-type]
        elif canonical.encode(first) != canonical.encode(second):
            yield f"{path}{key}", first, second


def config_by_exca(folder: EntryFolder) -> dict[str, Any] | None:
    """The config of a task that exca has computed; None if it is none."""
    if os.path.exists(folder.exca_job):
        with contextlib.suppress(OSError, ExcaLikeError):
            return dict(ConfDict.from_yaml(Path(folder.config)))
    return None
