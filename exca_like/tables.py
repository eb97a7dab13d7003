"""Tables for people: plain text for terminals, HTML for notebooks, and those of rich."""

import abc
import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table

WIDTH = 100
"""Characters of a line of plain text."""
MAX_ROWS = 30
"""Rows that are shown; of more, the first ones."""

_NARROWEST = 6  # characters of a column that is made narrower to fit
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
        self.rows = [[shown(cell, longest) for cell in row] for row in rows[:most]]
        self.hidden = len(rows) - len(self.rows)
        """Rows that are not shown."""

    def __str__(self) -> str:
        return self.text(WIDTH)

    def text(self, width: int) -> str:
        """The table in lines of at most some characters."""
        if not self.rows:
            return self.title
        lines = [self.header, *self.rows]
        widths = _fitting([max(len(line[column]) for line in lines) for column in range(len(self.header))], width, self._kept)
        texts = [
            _GAP.join(f"{self._fitted(line, column, most):{most}}" for column, most in widths.items()).rstrip()
            for line in lines
        ]
        notes = [f"... and {self.hidden} more rows"] if self.hidden else []
        left_out = [name for column, name in enumerate(self.header) if column not in widths]
        notes += [f"... and {len(left_out)} more columns: {', '.join(left_out)}"] if left_out else []
        title = [_cut(self.title, width)] if self.title else []
        return "\n".join([*title, *texts, *(_cut(note, width) for note in notes)])

    def _fitted(self, line: Sequence[str], column: int, length: int) -> str:
        """A cell of a column that may have been made narrower; what tells uids of one method apart is at their end."""
        text = line[column]
        if self.header[column] != "uid" or len(text) <= length:
            return _cut(text, length)
        end = 2 * (length - 3) // 3
        return f"{text[: max(0, length - 3 - end)]}...{text[len(text) - end :]}"

    def to_html(self) -> str:
        """The table in HTML; nothing in it is taken for markup."""
        escape = html.escape
        title = f"<p>{escape(self.title)}</p>"
        if not self.rows:
            return title
        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        more = f"<p>... and {self.hidden} more rows</p>" if self.hidden else ""
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def to_rich(self) -> "rich.table.Table":
        """The table for rich; nothing in it is taken for markup."""
        import rich.table
        import rich.text

        plain = rich.text.Text
        caption = plain(f"... and {self.hidden} more rows") if self.hidden else None
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


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: max(0, length - 3)]}..."


def _fitting(widths: Sequence[int], most: int, kept: int) -> dict[int, int]:
    """Widths of as many columns as fit, by their numbers; the widest are made narrower until they do."""
    left = dict(enumerate(widths))
    while sum(left.values()) + len(_GAP) * (len(left) - 1) > most:
        widest = max(left, key=left.__getitem__)
        if left[widest] > _NARROWEST:
            left[widest] -= 1
        else:
            del left[list(left)[-1 - kept]]
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
