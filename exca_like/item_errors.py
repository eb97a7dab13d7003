"""One error for all failed items of a map, grouped by what they have in common."""

import re
from collections.abc import Mapping

from exca_like.cachedict.failures import Failure
from exca_like.errors import ExcaLikeError, ItemsFailedError

_SHOWN_GROUPS, _SHOWN_ITEMS = 5, 5
_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def items_failed(label: str, failures: Mapping[str, Failure], total: int) -> ItemsFailedError:
    """The error to raise; it is one of the items' errors' type, too, if they have one in common."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, failure in failures.items():
        groups.setdefault((failure.type, _place(failure)), []).append(key)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = []
    for (kind, place), keys in ordered[:_SHOWN_GROUPS]:
        shown = ", ".join(map(repr, keys[:_SHOWN_ITEMS])) + (f" and {len(keys) - _SHOWN_ITEMS} more" if len(keys) > 5 else "")
        message = " ".join(failures[keys[0]].message.split())[:500]
        lines.append(f"  {len(keys)} × {kind.rpartition('.')[2]}{place}: {message}\n      items: {shown}")
    if len(ordered) > _SHOWN_GROUPS:
        lines.append(f"  and {len(ordered) - _SHOWN_GROUPS} more kinds of errors: see `failures` of this error")
    msg = (
        f"{len(failures)} of {total} items of {label} failed, the others are stored:\n" + "\n".join(lines) + "\n"
        "Mend the cause and call again: only what is missing is computed."
    )
    first = failures[ordered[0][1][0]].exception()
    kinds = {failure.type for failure in failures.values()}
    error = _error_class(type(first) if len(kinds) == 1 else Exception)(msg, dict(failures))
    error.__cause__ = first
    return error


def _place(failure: Failure) -> str:
    """Where the user's code raised: the last line of the traceback."""
    found = _LINE.findall(failure.traceback)
    return f" at {found[-1][0].rpartition('/')[2]}:{found[-1][1]}" if found else ""


def _error_class(kind: type[BaseException]) -> type[ItemsFailedError]:
    if issubclass(ItemsFailedError, kind) or (issubclass(kind, ExcaLikeError) and kind.__name__ == "RemoteError"):
        return ItemsFailedError
    try:
        return type(f"ItemsFailedError[{kind.__name__}]", (ItemsFailedError, kind), {"__module__": ItemsFailedError.__module__})
    except TypeError:  # it can't have subclasses, or not together with others
        return ItemsFailedError
