"""Single members of stored dictionaries, the files that hold entries, and their removal."""

from typing import Any

from exca_like import files
from exca_like.cachedict import registry
from exca_like.cachedict.context import AllowPickle, DumpContext
from exca_like.cachedict.journal import JournalFile, files_in, infos_in, spans_in
from exca_like.cachedict.writer import DATA
from exca_like.errors import ConfigTypeError

_TREES = ("Auto", "AutoPickle", "Json")


def only_member(info: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The content of an entry's line as if its value were one member of the dictionary that it is.

    None if the line does not have the members one by one. Data that another member alone names are left out.

    Raises
    ------
    KeyError
        There is no such member.
    """
    from exca_like.cachedict.handlers.containers import coder_name, decode  # not needed by those who store only arrays

    tree = info.get("content")
    if info.get("#type") not in _TREES or not isinstance(tree, dict):
        return None
    if "#type" not in tree:
        members = tree
    elif tree["#type"] == coder_name(dict):  # with keys that have no form in JSON by themselves
        text = coder_name(str)
        pairs = [
            pair for pair in tree["content"] if type(pair[0]) is str or (type(pair[0]) is dict and pair[0]["#type"] == text)
        ]
        members = {decode(None, key): part for key, part in pairs}
    else:
        return None
    member = members[name]
    mine, others = _places(member), _places([part for key, part in members.items() if key != name])
    spans = [span for span in spans_in(info) if not _is_in(span, others) or _is_in(span, mine)]
    return {**info, "content": member, "#data": spans}


def member_of(key: str, value: Any, name: str) -> Any:
    """A member of a dictionary that was loaded.

    Raises
    ------
    KeyError
        There is no such member.
    TypeError
        It is no dictionary.
    """
    if not isinstance(value, dict):
        msg = f"the entry {key!r} is no dictionary with parts to load alone, but {registry.describe_type(value)}: load it whole"
        raise ConfigTypeError(msg)
    return value[name]


def _places(tree: Any) -> set[Any]:
    """Names of files, and in packed ones the offsets, that parts of a value name."""
    return {
        (part["filename"], part.get("offset")) if part["filename"][:1] == "." else part["filename"]
        for part in infos_in(tree)
        if isinstance(part.get("filename"), str)
    }


def _is_in(span: list[Any], places: set[Any]) -> bool:
    name, offset = span[:2]
    return (name, offset) in places if name[:1] == "." else any(name == place or _is_below(name, place) for place in places)


def _is_below(name: str, place: Any) -> bool:
    return isinstance(place, str) and name.startswith(f"{place}/")


def data_files(folder: str, file: JournalFile, info: dict[str, Any]) -> list[str]:
    """Paths of the files that hold an entry's data; none if all is in its line."""
    context = DumpContext.for_loading(folder, "", (), info.get("#writer", file.writer), "never", "full")
    names = (name for name, *_ in spans_in(info)) if file.is_own else files_in(info)
    return list(dict.fromkeys(map(context.path, names)))


def delete_data(folder: str, key: str, file: JournalFile, info: dict[str, Any], allow_pickle: AllowPickle) -> None:
    """Remove the files that an entry alone has; packed ones stay until they are compacted."""
    for name, *_ in spans_in(info):
        if name[:1] != "." and name.startswith(f"{DATA}/") and name.count("/") > 1 and ".." not in name:
            files.remove(f"{folder}/{name}")
    context = DumpContext.for_loading(folder, key, (), info.get("#writer", file.writer), allow_pickle, "full")
    whole = {"#type": file.cache_type or "Json", **info}
    for part in infos_in(whole):
        delete = getattr(registry.deleter_named(part["#type"]), "__delete_info__", None)
        if delete is not None:
            delete(context, **{member: part[member] for member in part if member[:1] != "#"})
