"""Entries that move to other files: what they need, what stays the same, and what must be written anew in their lines."""

import bisect
from collections.abc import Iterator
from typing import Any

import orjson

from exca_like.cachedict import blocks
from exca_like.cachedict.blocks import Buffer
from exca_like.cachedict.context import FORMAT
from exca_like.cachedict.journal import infos_in, spans_in
from exca_like.cachedict.lines import seal
from exca_like.cachedict.writer import DATA, Writer

_MARKS = ("#sum", "#key", "#replaces", "#writer")
_OWN_HANDLER = "its handler notes the place of its data in a way of its own, and not as filename, offset and length"


def obstacle(info: dict[str, Any], owner: str) -> str | None:
    """Why an entry can't be moved by means of its line; None if it can.

    ``owner`` is the writer that the short names of its data files stand for.
    """
    if info.get("#v", FORMAT) != FORMAT:
        return "it has a newer format than this version of exca_like reads"
    spans = spans_in(info)
    if len(spans) != len(info.get("#data", ())):
        return "its line does not say where its data are"
    named = {number for _, number, _ in _places(info, owner)}
    for number, (name, _, length, _) in enumerate(spans):
        if name[:1] == ".":
            if length and number not in named:
                return _OWN_HANDLER
        elif not (name.startswith(f"{DATA}/") and name.count("/") > 1) or ".." in name.split("/"):
            return _OWN_HANDLER
    if any("reference" in part for part in infos_in(info) if part["#type"] == "Files"):
        return "it is the path of a file that was too large to be stored"
    return None


def data_names(info: dict[str, Any], owner: str) -> dict[str, int]:
    """The files that an entry needs, relative to its folder, and how long each must be."""
    needed: dict[str, int] = {}
    for name, offset, length, _ in spans_in(info):
        full = full_name(name, owner)
        needed[full] = max(needed.get(full, 0), offset + length)
    return needed


def full_name(name: str, owner: str) -> str:
    """The name of a data file, relative to its folder."""
    return f"{DATA}/{owner}{name}" if name[:1] == "." else name


def own_files(info: dict[str, Any]) -> list[str]:
    """The files that an entry alone has, relative to its folder."""
    return [name for name, *_ in spans_in(info) if name[:1] != "."]


def content_of(info: dict[str, Any], owner: str) -> bytes:
    """What is the same for entries with the same bytes, wherever these are, and however they were computed."""
    info = orjson.loads(orjson.dumps(info))
    for part, number, inner in _places(info, owner):
        part["filename"], part["offset"] = "", [number, inner]
    spans = [[length, sums] for _, _, length, sums in spans_in(info)]
    units = dict.fromkeys("/".join(name.split("/")[:3]) for name in own_files(info))
    rest = {name: part for name, part in info.items() if name not in (*_MARKS, "#data", "#meta")}
    text = orjson.dumps([rest, spans], option=orjson.OPT_SORT_KEYS)
    for number, unit in enumerate(units):
        text = text.replace(unit.encode(), b"#%d" % number)
    return text


def repack(info: dict[str, Any], owner: str, folder: str, writer: Writer) -> None:
    """Append an entry's packed data to the files of a writer that is ready, and note the new places in the line.

    Raises
    ------
    CorruptEntryError, FileNotFoundError
        The data are not there.
    """
    moved: dict[int, int] = {}
    parts = list(_places(info, owner))
    for number, span in enumerate(spans_in(info)):
        suffix, offset, length, _ = span
        if suffix[:1] == ".":
            data: Buffer = blocks.view_of(f"{folder}/{DATA}/{owner}{suffix}", offset, length) if length else b""
            moved[number] = span[1] = writer.append(suffix, data)
    for part, number, inner in parts:
        part["offset"] = moved[number] + inner
        part["filename"] = part["filename"].replace(f"{DATA}/{owner}", f"{DATA}/{writer.name}")


def line_of(key: str, info: dict[str, Any]) -> bytes:
    """The line of an entry that has moved; it takes no other one's place."""
    return seal({"#key": key, **{name: part for name, part in info.items() if name not in _MARKS}})


def _places(info: dict[str, Any], owner: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Parts that name a place in a packed file, with the number of the span that it is in, and where in that."""
    starts: dict[str, list[tuple[int, int]]] = {}
    for number, (name, offset, *_) in enumerate(spans_in(info)):
        if name[:1] == ".":
            bisect.insort(starts.setdefault(name, []), (offset, number))
    for part in infos_in(info) if starts else ():
        name, offset = part.get("filename"), part.get("offset")
        if isinstance(name, str) and type(offset) is int:
            known = starts.get(name.removeprefix(f"{DATA}/{owner}"), [])
            found = bisect.bisect(known, (offset, len(info["#data"]))) - 1
            if found >= 0:
                yield part, known[found][1], offset - known[found][0]
