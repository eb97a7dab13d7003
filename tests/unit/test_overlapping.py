"""Doing something for many files at once, where one waits for each."""

import math
import threading
import time

import pytest

from exca_like import overlapping
from exca_like.overlapping import overlapped

Seen = set[int]


@pytest.fixture
def seen() -> Seen:
    """The threads that were at work."""
    return set()


@pytest.mark.parametrize("number", [0, 1, 16, 17, 200])
@pytest.mark.parametrize("wait", [0.0, 0.001])
def test_results_come_in_the_order_of_the_items(seen: Seen, number: int, wait: float) -> None:
    def double(item: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(wait * (item % 3))
        return 2 * item

    assert list(overlapped(double, range(number))) == [2 * item for item in range(number)]
    assert len(seen) > 1 or number < 200 or not wait
    assert threading.get_ident() in seen or not number


def test_no_thread_is_started_where_nothing_waits(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlapping, "WORK_S", math.inf)  # on a busy machine, everything waits
    list(overlapped(lambda _: seen.add(threading.get_ident()), range(200)))
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize("bad", [3, 150])
def test_an_error_is_raised_at_its_place(bad: int) -> None:
    def check(item: int) -> int:
        time.sleep(0.001)
        if item == bad:
            raise LookupError(item)
        return item

    came: list[int] = []
    with pytest.raises(LookupError, match=str(bad)):
        came += overlapped(check, range(200))


def test_who_ends_early_leaves_no_threads() -> None:
    running = threading.active_count()
    for item in overlapped(lambda item: time.sleep(0.001) or item, range(200)):
        if item == 40:
            assert threading.active_count() > running
            break
    assert threading.active_count() == running
