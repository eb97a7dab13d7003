"""Tables for people: plain text for terminals, HTML for notebooks, and those of rich."""

import abc
import functools
import html
import itertools
import math
import re
import time
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table

WIDTH = 100
"""Characters of a line of plain text."""
MAX_ROWS = 30
"""Rows that are shown; of more, the first ones."""

_NARROWEST = 10  # cells of a column that is made narrower to fit
_PADDED = 60  # cells of a column whose longer texts stand out, where there is no width to keep to
# control characters but tabs and ends of lines, and those that turn the direction of a text
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LONGEST_UID = 1000  # characters; they are never cut otherwise
_GAP = "  "
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_AGES = ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600), (float("inf"), "d", 86400))


class Table:
    """Rows of cells under a title.

    Parameters
    ----------
    title:
        A line above the table.
    header:
        Names of the columns.
    rows:
        The cells; values are shown by `shown`.
    kept:
        How many of the last columns are never left out, however many there are before them.
    most:
        How many rows are shown; None: all.
    longest:
        Characters of a cell.
    """

    def __init__(
        self,
        title: str,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
        kept: int = 0,
        most: int | None = MAX_ROWS,
        longest: int = 80,
    ) -> None:
        self.title = title
        self._kept = kept
        self.header = list(header)
        lengths = [_LONGEST_UID if name == "uid" else longest for name in self.header]
        self.rows = [[shown(cell, length) for cell, length in zip(row, lengths, strict=True)] for row in rows[:most]]
        self.hidden = len(rows) - len(self.rows)
        """Rows that are not shown."""

    def __str__(self) -> str:
        return self.text(WIDTH)

    def text(self, width: int | None) -> str:
        """The table in lines of at most some cells of a terminal; None: of any length, for programs.

        A uid is never cut, as it is what one copies: other columns are made narrower or left out, and the line of a uid that
        is too long for that goes on in the next one of the terminal.
        """
        if not self.rows:
            return self.title
        lines = [self.header, *self.rows]
        natural = [max(cells(line[column]) for line in lines) for column in range(len(self.header))]
        uid = self.header.index("uid") if "uid" in self.header else None
        if width is None:  # a long message does not make all lines long
            widths = {column: most if column == uid else min(most, _PADDED) for column, most in enumerate(natural)}
        else:
            if uid is not None:
                room = width - len(_GAP) - _NARROWEST
                natural[uid] = max((taken for line in lines[1:] if (taken := cells(line[uid])) <= room), default=natural[uid])
            widths = _fitting(natural, width, self._kept, uid)
        texts = []
        for line in lines:
            row = [
                line[column] if width is None or column == uid else _cut(line[column], most) for column, most in widths.items()
            ]
            texts.append(_GAP.join(map(_padded, row, widths.values())).rstrip())
        notes = [f"... and {count(self.hidden, 'more row')}"] if self.hidden else []
        left_out = [name for column, name in enumerate(self.header) if column not in widths]
        notes += [f"... and {count(len(left_out), 'more column')}: {', '.join(left_out)}"] if left_out else []
        about = [[self.title] if self.title else [], notes]
        title, notes = about if width is None else [[_cut(line, width) for line in some] for some in about]
        return "\n".join([*title, *texts, *notes])

    def to_html(self) -> str:
        """The table in HTML; nothing in it is taken for markup."""
        escape = html.escape
        title = f"<p>{escape(self.title)}</p>"
        if not self.rows:
            return title
        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        more = f"<p>... and {count(self.hidden, 'more row')}</p>" if self.hidden else ""
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def to_rich(self) -> "rich.table.Table":
        """The table for rich; nothing in it is taken for markup."""
        import rich.table
        import rich.text

        plain = rich.text.Text
        caption = plain(f"... and {count(self.hidden, 'more row')}") if self.hidden else None
        table = rich.table.Table(title=plain(self.title), title_justify="left", caption=caption)
        table.min_width = min(WIDTH, len(self.title))  # else the title would be broken into lines of the table's width
        for name in self.header:
            table.add_column(plain(name))
        for row in self.rows:
            table.add_row(*map(plain, row))
        return table


class Tabular(abc.ABC):
    """Something that is a table, when it is shown: printed, in a notebook, or by rich."""

    @abc.abstractmethod
    def _table(self) -> Table: ...

    def __str__(self) -> str:
        return str(self._table())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self._table().to_html()

    def __rich__(self) -> "rich.table.Table":
        return self._table().to_rich()


def shown(value: Any, length: int = 80) -> str:
    """A value as a short line: texts without quotes, floats with few digits.

    Examples
    --------
    >>> shown(0.1 + 0.2), shown(None), shown("a" * 50, length=8)
    ('0.3', '', 'aaaaa...')
    """
    if value is None:
        return ""
    is_model = hasattr(type(value), "model_fields")  # whose text does not name its class
    text = f"{value:.6g}" if isinstance(value, float) else repr(value) if is_model else str(value)
    line = " ".join(text.split())
    if not line.isprintable():  # colours, for instance
        line = "".join(character for character in line if character.isprintable())
    return _cut(line, length)


def printable(text: str) -> str:
    """A text of any number of lines, without what a terminal would obey."""
    return _OBEYED.sub("", text)


def cells(text: str) -> int:
    """How many cells of a terminal a text takes: two for a Chinese character, none for an accent of its own."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


@functools.lru_cache(4096)
def _cells_of(character: str) -> int:
    return 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")


def _cut(text: str, length: int) -> str:
    if cells(text) <= length:
        return text
    ends = itertools.accumulate(map(_cells_of, text))
    return text[: sum(end <= length - 3 for end in ends)] + "..."


def _padded(text: str, length: int) -> str:
    return text + " " * (length - cells(text))


def _fitting(widths: Sequence[int], most: int, kept: int, whole: int | None) -> dict[int, int]:
    """Widths of as many columns as fit, by their numbers; the widest are made narrower until they do, but for a whole one."""
    left = dict(enumerate(widths))
    least = {column: width if column == whole else min(width, _NARROWEST) for column, width in left.items()}
    gap = len(_GAP)
    if whole is not None:
        beside = gap + _NARROWEST if len(left) > 1 else 0
        most *= max(1, math.ceil((left[whole] + beside) / most))
    for column in reversed(list(left)[: len(left) - kept]):
        if column != whole and sum(least[one] + gap for one in left) - gap > most:
            del left[column]
    while sum(left.values()) + gap * (len(left) - 1) > most:
        widest = max(left, key=lambda column: left[column] - least[column])
        if left[widest] == least[widest]:
            break
        left[widest] -= 1
    return left


# numbers in words


def size(number: float) -> str:
    """A number of bytes: ``"1.5 MB"``."""
    unit = 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} B" if not unit else f"{number:.3g} {_UNITS[unit]}"


def count(number: int, noun: str) -> str:
    """A number of things, whose name is given for one: ``"1 entry"``, ``"2 entries"``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def seconds(number: float) -> str:
    """A duration: ``"1.5 s"``, ``"3 min 5 s"``, ``"2 h 10 min"``."""
    if number < 60:
        return f"{number:.3g} s" if number >= 0.001 else f"{1000 * number:.2g} ms"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ago(moment: float, now: float | None = None) -> str:
    """How long ago something was, in the largest unit: ``"5 min ago"``."""
    passed = max(0.0, (time.time() if now is None else now) - moment)
    return next(f"{int(passed / length)} {unit} ago" for limit, unit, length in _AGES if passed < limit)
