"""Tables in terminals of any width, and in pipes."""

import pytest

from exca_like.tables import Table, cells, printable

UIDS = ["m.T.run,0/seed=1-0123abcd", "m.T.run,0/seed=10,lr=0.5-0123abcd", f"m.T.run,0/{'x' * 70}-0123abcd"]


def table(uids: list[str]) -> Table:
    rows = [[uid, f"failed: {'why ' * 20}", "5 min ago", "1.5 s", "1 kB"] for uid in uids]
    return Table("title", ["uid", "status", "stored", "took", "size"], rows, longest=1000)


@pytest.mark.parametrize("width", [3, 20, 40, 60, 80, 100])
def test_uids_are_never_cut(width: int) -> None:
    _, _, *rows = table(UIDS).text(width).splitlines()
    assert [row.split()[0] for row in rows[:3]] == UIDS
    assert all("  failed" in row or "  fai..." in row for row in rows[:3])
    if width >= 60:
        assert max(map(len, rows[:2])) <= width and rows[0].index("failed") == rows[1].index("failed")


def test_what_is_beside_uids_has_the_place_that_is_left() -> None:
    assert table(UIDS[:2]).text(55).splitlines()[1:] == [
        "uid                                status",
        "m.T.run,0/seed=1-0123abcd          failed: why why w...",
        "m.T.run,0/seed=10,lr=0.5-0123abcd  failed: why why w...",
        "... and 3 more columns: stored, took, size",
    ]
    assert "more columns" not in table(UIDS[:2]).text(80)


def test_the_last_columns_are_kept_at_any_width() -> None:
    names = ["a", "b", "c", "status", "reason"]
    for width in (1, 5, 20, 30):
        text = Table("", names, [[f"{name} is long enough" for name in names]], 2).text(width)
        assert text.splitlines()[0].split()[-2:] == ["status", "reason"]


def test_a_long_message_does_not_make_all_lines_long() -> None:
    rows = [["a", "short", "1 s"], ["b", "long " * 100, "2 s"]]
    header, first, second = Table("", ["name", "why", "took"], rows, longest=1000).text(None).splitlines()
    assert len(first) == len(header) - 1 < 80 and second.endswith("long  2 s") and len(second) > 500
    assert not any(line.endswith(" ") for line in Table("", ["a", "b"], [["x", ""], ["yyyy", "long"]]).text(None).splitlines())


def test_wide_characters() -> None:
    assert [cells(text) for text in ("abc", "日本語", "🚀", "e\u0301", "")] == [3, 6, 2, 1, 0]
    lines = Table("", ["name", "next"], [["日本語", 1], ["abc", 2], ["e\u0301", 3]]).text(80).splitlines()
    assert [cells(line) for line in lines] == [12, 9, 9, 9] and [cells(line[:-1]) for line in lines[1:]] == [8, 8, 8]
    narrow = Table("", ["name"], [["日本語" * 10]]).text(20).splitlines()[1]
    assert narrow == "日本語日本語日本..."


def test_nothing_that_terminals_obey() -> None:
    assert printable("\x1b[31mred\r\n\tü\u202e\x9b日本語🚀\x00") == "[31mred\n\tü日本語🚀"
