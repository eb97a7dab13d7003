"""Tables for people: plain text for terminals, HTML for notebooks."""

import html
import time
from collections.abc import Sequence

MOST_ROWS = 30
"""Rows of a table that are shown, unless all are asked for."""
_WIDEST = 60  # characters of a cell
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def text(header: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None) -> str:
    """A table of aligned columns; ``total`` is the number of rows if these are only some."""
    cells = [tuple(map(_short, row)) for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, *_more(len(rows), total)])


def markup(header: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None, caption: str = "") -> str:
    """The same as HTML; what it shows is escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(_short(cell))}</td>' for cell in row)}</tr>" for row in rows)
    more = "".join(f"<p>{html.escape(line)}</p>" for line in _more(len(rows), total))
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def size(number: float) -> str:
    """A number of bytes: ``"1.5 MB"``."""
    unit = 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} B" if not unit else f"{number:.3g} {_UNITS[unit]}"


def seconds(number: float | None) -> str:
    """A duration: ``"1.5 s"``, ``"3 min 5 s"``, ``"2 h 10 min"``; empty for None."""
    if number is None:
        return ""
    if number < 60:
        return f"{number:.3g} s" if number >= 0.001 else f"{1000 * number:.2g} ms"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago something was, in the largest unit: ``"5 min ago"``; empty for None."""
    if moment is None:
        return ""
    passed = max(0.0, (time.time() if now is None else now) - moment)
    for limit, unit, length in ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600), (float("inf"), "d", 86400)):
        if passed < limit:
            return f"{int(passed / length)} {unit} ago"
    raise AssertionError


def _short(cell: str) -> str:
    """A cell in one line; the end of a long one tells more than its middle."""
    line = " ".join(cell.split())
    if len(line) <= _WIDEST:
        return line
    return f"{line[: _WIDEST - 14]}...{line[-11:]}"


def _more(shown: int, total: int | None) -> list[str]:
    return [f"... and {total - shown} more"] if total is not None and total > shown else []
