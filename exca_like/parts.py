"""What one job of a map does: compute its items, whatever happens to some of them.

The method is called with as many items as possible, as it may have to load a model first. When it raises, the items whose
results it gave are done. Which item is to blame? From a generator that has given results, the next one; else, and when
what comes after the blamed item fails at once as well (the method may work on groups of items, or fail for all), the
items are tried in small groups until the bad ones are alone.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from typing import Any, NamedTuple

from exca_like.cachedict.failures import NOT_TRIED, Failure
from exca_like.errors import InfraUsageError
from exca_like.recording import ItemRecording

MAX_IN_A_ROW = 10
"""Items that may fail one after the other before the rest of a job is not tried."""


Given = tuple[str, Any, Failure | None]
"""What an item gave: its key, and its value or its failure."""


class Part(NamedTuple):
    """Some items of a map, and the method that takes a list of them; ``recording`` takes note of what it does."""

    label: str
    keys: Sequence[str]
    items: Sequence[Any]
    method: Callable[[Sequence[Any]], Iterable[Any]]
    recording: ItemRecording | None = None


def outcomes(part: Part) -> Generator[Given, None, None]:
    """Keys and what their items gave, each as soon as it is known.

    Raises
    ------
    InfraUsageError
        The method returned too few or too many results, or nothing that holds some; what was given before is right as far
        as anybody can tell.
    """
    while True:
        start = yield from _until_many_fail(part)
        left = list(range(start, len(part.keys)))
        if not left:
            return
        samples = {left[len(left) // 4], left[len(left) // 2], left[-1]}  # do all items fail, or some that lie together?
        is_hopeless = True
        for place in samples:
            attempt = _Attempt(part, place, place + 1)
            yield from attempt.results()
            if attempt.error is None:
                is_hopeless = False
            else:
                yield part.keys[place], None, Failure.of(attempt.error)
        left = [place for place in left if place not in samples]
        part = part._replace(keys=[part.keys[place] for place in left], items=[part.items[place] for place in left])
        if is_hopeless:
            for key in part.keys:
                yield key, None, _not_tried(part.label)
            return


def plain_results(part: Part, order: Sequence[str]) -> Generator[Any, None, None]:
    """What the method gives for the items of ``order``, which names each key of the part at least once; nothing is kept longer.

    The keys of the part are in the order of their first places. An exception of the method is raised as it is.

    Raises
    ------
    InfraUsageError
        The method returned too few or too many results, or nothing that holds some.
    """
    attempt = _Attempt(part, 0, len(part.keys))
    given = attempt.results()
    places = Counter(order)
    repeated: dict[str, Any] = {}
    for key in order:
        if key in repeated:
            value = repeated[key]
        else:
            value = next(given, (key, None, None))[1]  # too few are an error of their own
            if attempt.error is not None:
                raise attempt.error
        places[key] -= 1
        if places[key]:
            repeated[key] = value
        else:
            repeated.pop(key, None)
        yield value
    for _ in given:  # makes sure that there are no more
        pass
    if attempt.error is not None:
        raise attempt.error


def _until_many_fail(part: Part) -> Generator[Given, None, int]:
    """Compute items until too many fail one after the other; returns how many were tried."""
    start, group, suspect = 0, len(part.keys), None
    in_a_row, is_in_groups = 0, False
    while start < len(part.keys) and in_a_row < MAX_IN_A_ROW:
        attempt = _Attempt(part, start, start + group)
        yield from attempt.results()
        done, error = attempt.done, attempt.error
        if done:
            in_a_row = 0
        if suspect is not None and (error is None or done):  # what came after it went well: it was to blame
            yield suspect
            in_a_row, suspect = int(not done), None
        start += done
        if error is None:
            group = min(2 * group, len(part.keys)) if is_in_groups else group
        elif attempt.size == 1 and suspect is None:  # else the suspect may be innocent
            yield part.keys[start], None, Failure.of(error)
            in_a_row += 1
            start += 1
            group = min(2 * group, len(part.keys))
        elif attempt.is_lazy and suspect is None and not is_in_groups:
            suspect = part.keys[start], None, Failure.of(error)
            start += 1
        else:
            start -= suspect is not None
            suspect, is_in_groups = None, True
            group = max(1, (attempt.size - done) // 8) if attempt.size > 8 and not attempt.is_lazy else 1
    if suspect is not None:
        yield suspect
    return start


def _not_tried(label: str) -> Failure:
    message = f"not tried, as {MAX_IN_A_ROW} items of {label} before it failed one after the other"
    return Failure("exca_like.errors.InfraUsageError", message, "", NOT_TRIED)


class _Attempt:
    """One call of the method."""

    def __init__(self, part: Part, start: int, stop: int) -> None:
        self.keys = part.keys[start:stop]
        self.items = part.items[start:stop]
        self.part = part
        self.size = len(self.keys)
        self.is_last = stop >= len(part.keys)
        self.done = 0
        self.error: BaseException | None = None
        self.is_lazy = False  # whether results come one by one

    def results(self) -> Iterator[Given]:
        recording = self.part.recording
        try:
            if recording is not None:
                recording.called()
            found = self.part.method(self.items)
            try:
                values = iter(found)
            except TypeError:
                msg = (
                    f"{self.part.label} returned {found!r:.100}, but must yield one result for each of its items, "
                    f"for instance {self.keys[0]!r}: use `yield` in a loop over them, or return a list"
                )
                raise _CountError(msg) from None
            self.is_lazy = values is found
            if recording is not None and not self.is_lazy and isinstance(found, Sized):
                recording.returned(self.size)
            if isinstance(found, Sized) and len(found) != self.size:  # nobody knows which result belongs to which item
                msg = (
                    f"{self.part.label} returned {len(found)} result(s) for {self.size} item(s), from {self.keys[0]!r} to "
                    f"{self.keys[-1]!r}: it must return exactly one for each, in order. None of them was stored."
                )
                raise _CountError(msg)
            for key, value in zip(self.keys, values, strict=False):  # the keys end first, and take no value more
                yield key, value, None
                self.done += 1
            for _ in values:
                msg = (
                    f"{self.part.label} gave more than {self.size} result(s) for {self.size} item(s), the last of "
                    f"which is {self.keys[-1]!r}: it must yield exactly one for each, in order. {_DOUBT}"
                )
                raise _CountError(msg)
            if self.done < self.size:
                msg = (
                    f"{self.part.label} gave {self.done} result(s) for {self.size} item(s), none for "
                    f"{self.keys[self.done]!r}: it must yield exactly one for each, in order. {_DOUBT}"
                )
                raise _CountError(msg)
        except _CountError as error:
            raise InfraUsageError(str(error)) from None
        except (Exception, SystemExit) as error:  # an exit of the user's code must not end this process
            if self.done < self.size:
                self.error = error
                if recording is not None:
                    recording.failed(self.keys[self.done])
            elif self.is_last:  # no item is to blame: all were given
                raise


class _CountError(Exception):
    """The method does not keep to its contract."""


_DOUBT = "If an item was left out or doubled, the results after it went to the wrong items: clear them."
