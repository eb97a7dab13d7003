"""Checks of the yaml files beside results, which say what these are results of."""

import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from exca_like import canonical, files, layout, yamltext
from exca_like.cachedict.verify import Problem
from exca_like.confdict import ConfDict
from exca_like.errors import ExcaLikeError

LEGACY_VERSIONS = (3, 2)
"""Schemes of uids in names of folders that exca wrote."""

_FILES = (layout.CONFIG, layout.UID, layout.FULL_UID)
_BLOCKS = re.compile(r"\n(?=[A-Za-z_])")
_NUMBER = re.compile(r"([A-Za-z_.]+): ([0-9]{1,18})")
_SECRET = "secret-"  # noqa: S105 - how texts begin that stand for secrets in uids
_REMEDY = "Remove the yaml files of the folder: its config writes them again (a map when it computes)"

_Blocks = tuple[str, ...]
"""The texts of the top-level keys of a yaml file: a grid has few different ones, in many combinations."""


def check_yamls(folder: str, names: Collection[str]) -> Iterator[Problem]:
    """What is wrong with the yaml files among the files of a folder: they can't be read, or belong to another config."""
    read: dict[str, _Blocks] = {}
    for name in _FILES if layout.FULL_UID in names or layout.UID in names else ():
        if name not in names:
            continue
        try:
            content = files.read_bytes(f"{folder}/{name}")
            if not content and name == layout.FULL_UID and layout.UID not in names:
                continue  # it is there to be locked, of a folder that has no config
            read[name] = _blocks_of(content.decode())
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Problem("unreadable", Path(folder, name), f"{error.strerror}. Check its permissions and the file system.")
        except (ExcaLikeError, TypeError, ValueError):
            yield Problem("config", Path(folder, name), f"it is no yaml with names and values. {_REMEDY}")
    is_named = layout.UID in read and layout.METHOD_FOLDER.fullmatch(
        os.path.basename(os.path.dirname(folder))
    )  # a copy has any name
    uid = _uid_problem(folder, read[layout.UID]) if is_named else None
    if (uid or not is_named) and any(map(_is_of_calls, read.values())):
        if len(set(read.values())) > 1:
            yield Problem("config", Path(folder, layout.FULL_UID), f"the yaml files name different functions. {_REMEDY}")
        return
    if uid:
        yield Problem("config", Path(folder, layout.UID), uid)
    if layout.CONFIG in read and layout.FULL_UID in read:
        full, config = read[layout.FULL_UID], read[layout.CONFIG]
        different = _difference(tuple(b for b in full if b not in config), tuple(b for b in config if b not in full))
        if different:
            yield Problem("config", Path(folder, layout.FULL_UID), f"{different}: one of them was edited. {_REMEDY}")


def _uid_problem(folder: str, blocks: _Blocks) -> str | None:
    """What is wrong if a folder has another name than its config."""
    name = os.path.basename(folder)
    try:
        config = _config_of(blocks)
        uid = config.to_uid(version=4) or layout.DEFAULT_UID
        if name == uid or name in [config.to_uid(version=version) or layout.DEFAULT_UID for version in LEGACY_VERSIONS]:
            return None
    except (ExcaLikeError, TypeError, ValueError) as error:
        return f"it has no uid: {error}. {_REMEDY}"
    return f"it has the uid {uid}, and not that of the folder: one of them was edited. {_REMEDY}, or name the folder so"


@functools.lru_cache(1024)
def _difference(full: _Blocks, config: _Blocks) -> str | None:
    """The first value of the full uid that is another one in the config, in words."""
    try:
        return next(_differences(_config_of(full), _config_of(config), ""), None)
    except (ExcaLikeError, TypeError, ValueError) as error:
        return f"it can't be compared with {layout.CONFIG} ({error})"


def _differences(full: Any, config: Any, path: str) -> Iterator[str]:
    if isinstance(full, Mapping) and isinstance(config, Mapping):
        for key in full:
            if key in config:  # else it was added to the class since one of them was written
                yield from _differences(full[key], config[key], f"{path}.{key}" if path else key)
    elif isinstance(full, list) and isinstance(config, list) and len(full) == len(config):
        for number, (first, second) in enumerate(zip(full, config, strict=True)):
            yield from _differences(first, second, f"{path}.{number}")
    elif canonical.encode(full) != canonical.encode(config) and not (isinstance(full, str) and full.startswith(_SECRET)):
        yield f"{path} is {full!r:.100} in {layout.FULL_UID}, but {config!r:.100} in {layout.CONFIG}"


def _is_of_calls(blocks: _Blocks) -> bool:
    """Whether a file is one of a memoised function, whose folder may have any name."""
    return len(blocks) == 1 and blocks[0].startswith("function: ") and "," in blocks[0]


def _blocks_of(text: str) -> _Blocks:
    """The top-level keys of a yaml mapping; what they hold is read once for equal ones, as libyaml takes its time."""
    blocks = tuple(_BLOCKS.split(text.strip("\n")))
    try:
        if all(len(_content(block)) == 1 for block in blocks):
            return blocks
    except (ExcaLikeError, TypeError, ValueError):  # it was not written by this package, or is none
        pass
    _content(text)
    return (text,)


def _config_of(blocks: _Blocks) -> ConfDict:
    return ConfDict({key: value for block in blocks for key, value in _content(block).items()})


@functools.lru_cache(4096)
def _content(text: str) -> dict[str, Any]:
    number = _NUMBER.fullmatch(text)  # of those, a grid may have many
    if number and yamltext.dump(content := {number[1]: int(number[2])}) == f"{text}\n":
        return content
    return yamltext.load(f"{text}\n")  # with its end, it is never taken for a path
