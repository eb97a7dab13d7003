"""Doing something with many files, one after the other where they are in memory, and many at once where one waits for each.

Network file systems, on which the caches of clusters lie, take half a millisecond and more to answer, and answer many at once.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORK_S = 50e-6
"""How long an item takes at least that waits for nothing: who waits twice as long for each could do two at once."""
_AT_ONCE = 16  # items that a thread takes, and threads


def overlapped(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What a function returns for each item, in their order; threads call it, as soon as it turns out that it mostly waits.

    Threads are in each other's way where there is no waiting, so that the time is measured as one goes.
    """

    def call(some: Sequence[T]) -> list[R]:
        return list(map(function, some))

    pieces = iter([items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)])
    waits: list[float] = []
    threads = 1
    for piece in pieces:
        began, worked = time.perf_counter(), time.thread_time()
        results = call(piece)
        waits.append((time.perf_counter() - began) - (time.thread_time() - worked))
        yield from results
        # so long on average, and twice in a row: once may be chance
        threads = min(_AT_ONCE, int(min(sum(waits) / len(waits), *waits[-2:]) / (_AT_ONCE * WORK_S)))
        if threads > 1 and len(waits) > 1:
            break
    if left := list(pieces):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            for results in pool.map(call, left):
                yield from results
