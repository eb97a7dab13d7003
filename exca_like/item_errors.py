"""One error for all failed items of a map, grouped by what they have in common."""

import re
from collections.abc import Mapping

from exca_like.cachedict.failures import NOT_TRIED, Failure
from exca_like.errors import ItemsFailedError, RemoteError

_SHOWN_GROUPS, _SHOWN_ITEMS, _SHOWN_LENGTH = 5, 5, 500
_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def items_failed(label: str, failures: Mapping[str, Failure], total: int) -> ItemsFailedError:
    """The error to raise; it is one of the items' errors' type, too, if they have one in common."""
    raised = {key: failure for key, failure in failures.items() if failure.reason != NOT_TRIED} or failures
    groups: dict[tuple[str, str], list[str]] = {}
    for key, failure in raised.items():
        groups.setdefault((failure.type, _place(failure)), []).append(key)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    rest = ", the others are stored" if len(failures) < total else ""
    lines = [f"{len(failures)} of {total} items of {label} failed{rest}:"]
    for (kind, place), keys in ordered[:_SHOWN_GROUPS]:
        shown = ", ".join(map(repr, keys[:_SHOWN_ITEMS]))
        shown += f" and {len(keys) - _SHOWN_ITEMS} more" if len(keys) > _SHOWN_ITEMS else ""
        message = " ".join(raised[keys[0]].message.split())[:_SHOWN_LENGTH]
        lines.append(f"  {len(keys)} × {kind.rpartition('.')[2]}{place}: {message}\n      items: {shown}")
    if len(ordered) > _SHOWN_GROUPS:
        lines.append(f"  and {len(ordered) - _SHOWN_GROUPS} more kinds of errors: see `failures` of this error")
    if len(raised) < len(failures):
        lines.append(f"  {len(failures) - len(raised)} more were not tried, as so many failed one after the other")
    lines.append("Mend the cause and call again: only what is missing is computed.")
    first = raised[ordered[0][1][0]].exception()
    kinds = {failure.type for failure in raised.values()}
    error = _error("\n".join(lines), dict(failures), type(first) if len(kinds) == 1 else Exception)
    error.__cause__ = first
    return error


def _place(failure: Failure) -> str:
    """Where the user's code raised: the last line of the traceback."""
    found = _LINE.findall(failure.traceback)
    return f" at {found[-1][0].rpartition('/')[2]}:{found[-1][1]}" if found else ""


def _error(message: str, failures: dict[str, Failure], kind: type[BaseException]) -> ItemsFailedError:
    # one that ends an iteration would not get out of the iterator that raises it
    plain = issubclass(ItemsFailedError, kind) or issubclass(kind, RemoteError | StopIteration | StopAsyncIteration)
    if not plain:
        try:
            bases = (ItemsFailedError, kind)
            both = type(f"ItemsFailedError[{kind.__name__}]", bases, {"__module__": ItemsFailedError.__module__})
            error: ItemsFailedError = both(message, failures)
            if str(error) == message:
                return error
        except Exception:  # noqa: S110 - some classes have no subclasses, or want other arguments
            pass
    return ItemsFailedError(message, failures)
