"""Tables for people: plain text for terminals, HTML for notebooks, and those of rich."""

import html
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
    """

    def __init__(self, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], kept: int = 0) -> None:
        self.title = title
        self._kept = kept
        self.header = list(header)
        self.rows = [[shown(cell) for cell in row] for row in rows[:MAX_ROWS]]
        self.hidden = max(0, len(rows) - MAX_ROWS)
        """Rows that are not shown."""

    def __str__(self) -> str:
        if not self.rows:
            return self.title
        lines = [self.header, *self.rows]
        widths = _fitting([max(len(line[column]) for line in lines) for column in range(len(self.header))], self._kept)
        texts = [
            _GAP.join(f"{_cut(line[column], width):{width}}" for column, width in widths.items()).rstrip() for line in lines
        ]
        notes = [f"... and {self.hidden} more rows"] if self.hidden else []
        left_out = [name for column, name in enumerate(self.header) if column not in widths]
        notes += [f"... and {len(left_out)} more columns: {', '.join(left_out)}"] if left_out else []
        return "\n".join([_cut(self.title, WIDTH), *texts, *(_cut(note, WIDTH) for note in notes)])

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


def shown(value: Any, length: int = 60) -> str:
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


def _fitting(widths: Sequence[int], kept: int) -> dict[int, int]:
    """Widths of as many columns as fit, by their numbers; the widest are made narrower until they do."""
    left = dict(enumerate(widths))
    while sum(left.values()) + len(_GAP) * (len(left) - 1) > WIDTH:
        widest = max(left, key=left.__getitem__)
        if left[widest] > _NARROWEST:
            left[widest] -= 1
        else:
            del left[list(left)[-1 - kept]]
    return left
