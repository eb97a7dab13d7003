"""What a job of a map does when items fail: exactly the bad ones are found, whatever kind of method it is."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from exca_like import errors
from exca_like.parts import MAX_IN_A_ROW, Part, outcomes

Method = Callable[[Sequence[int]], Iterable[int]]


class Bad(Exception):
    pass


class Methods:
    """Methods that fail for some items, and how they were called."""

    def __init__(self, bad: set[int], size: int = 4) -> None:
        self.bad = bad
        self.size = size
        self.calls: list[list[int]] = []

    def _one(self, item: int) -> int:
        if item in self.bad:
            raise Bad(str(item))
        return 10 * item

    def generator(self, items: Sequence[int]) -> Iterator[int]:
        self.calls.append(list(items))
        for item in items:
            yield self._one(item)

    def list(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        return [self._one(item) for item in items]

    def iterator(self, items: Sequence[int]) -> Iterator[int]:
        self.calls.append(list(items))
        return map(self._one, items)

    def groups(self, items: Sequence[int]) -> Iterator[int]:
        """As models with a batch size do."""
        self.calls.append(list(items))
        for start in range(0, len(items), self.size):
            yield from [self._one(item) for item in items[start : start + self.size]]

    def ahead(self, items: Sequence[int]) -> Iterator[int]:
        """As loaders do that prepare items before they are asked for."""
        self.calls.append(list(items))
        waiting: list[int] = []
        for item in items:
            waiting.append(self._one(item))
            if len(waiting) > self.size:
                yield waiting.pop(0)
        yield from waiting

    def all_before_the_first(self, items: Sequence[int]) -> Iterator[int]:
        self.calls.append(list(items))
        yield from [self._one(item) for item in items]


KINDS = ["generator", "list", "iterator", "groups", "ahead", "all_before_the_first"]


def run(method: Method, number: int) -> dict[str, Any]:
    """Values and errors by key, of which each comes once and in any order."""
    items = list(range(number))
    found = list(outcomes(Part("Model.run,0/default", [str(item) for item in items], items, method)))
    assert sorted(key for key, _, _ in found) == sorted(map(str, items)), "an item has no outcome, or two"
    return {key: value if failure is None else failure for key, value, failure in found}


def failed(found: dict[str, Any]) -> set[int]:
    return {int(key) for key, value in found.items() if not isinstance(value, int)}


def longest_row(bad: set[int], number: int) -> int:
    rows = itertools.groupby(range(number), key=lambda item: item in bad)
    return max((len(list(row)) for is_bad, row in rows if is_bad), default=0)


def bad_sets() -> st.SearchStrategy[tuple[int, set[int]]]:
    def some_of(number: int) -> st.SearchStrategy[tuple[int, set[int]]]:
        return st.tuples(st.just(number), st.sets(st.integers(0, max(0, number - 1)), max_size=number))

    return st.one_of(st.integers(0, 12), st.integers(0, 200)).flatmap(some_of)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.settings(max_examples=200, deadline=None, database=None)
@hypothesis.given(bad_sets(), st.integers(1, 20))
@hypothesis.example((4, {3}), 2)
@hypothesis.example((5, {0, 4}), 5)
@hypothesis.example((30, set(range(9))), 4)
@hypothesis.example((30, set(range(21, 30))), 4)
@hypothesis.example((40, set(range(0, 40, 2))), 7)
def test_exactly_the_bad_items_fail(kind, given, size):
    number, bad = given
    hypothesis.assume(longest_row(bad, number) < MAX_IN_A_ROW)
    methods = Methods(bad, size)
    found = run(getattr(methods, kind), number)
    assert failed(found) == {item for item in bad if item < number}
    for key, value in found.items():
        if int(key) in bad:
            assert value.type.endswith(".Bad")
            assert value.message == key, "an item is told the error of another one"
        else:
            assert value == 10 * int(key)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.settings(max_examples=100, deadline=None, database=None)
@hypothesis.given(bad_sets(), st.integers(1, 8))
def test_long_rows_of_bad_items_end_the_search_but_blame_nobody(kind, given, size):
    number, bad = given
    found = run(getattr(Methods(bad, size), kind), number)
    for item in failed(found) - bad:
        assert found[str(item)].reason == "not tried"
        assert f"{MAX_IN_A_ROW} items" in found[str(item)].message
    assert failed(found) >= {item for item in bad if item < number}


@pytest.mark.parametrize("kind", KINDS)
def test_when_all_fail_few_are_tried(kind):
    methods = Methods(set(range(1000)))
    found = run(getattr(methods, kind), 1000)
    tried = sum(failure.reason == "error" for failure in found.values())
    assert MAX_IN_A_ROW <= tried <= MAX_IN_A_ROW + 3
    assert sum(failure.reason == "not tried" for failure in found.values()) == 1000 - tried
    assert len(methods.calls) <= 3 * MAX_IN_A_ROW


@pytest.mark.parametrize("kind", KINDS)
def test_many_bad_items_that_lie_together_do_not_cost_the_rest(kind):
    methods = Methods(set(range(100, 130)))
    assert failed(run(getattr(methods, kind), 1000)) == methods.bad


def test_bad_items_that_lie_together_do_not_keep_the_others_from_being_tried():
    methods = Methods(set(range(40)) | set(range(500, 530)))
    found = run(methods.generator, 1000)
    assert failed(found) == methods.bad
    assert {found[str(item)].reason for item in methods.bad} == {"error"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_is_called_once_when_nothing_fails(kind):
    methods = Methods(set())
    assert not failed(run(getattr(methods, kind), 500))
    assert methods.calls == [list(range(500))]


def test_a_generator_computes_each_good_item_once():
    methods = Methods({100, 300, 499})
    seen: Counter[int] = Counter()

    def method(items: Sequence[int]) -> Iterator[int]:
        for item, value in zip(items, methods.generator(items), strict=True):
            seen[item] += 1
            yield value

    assert failed(run(method, 500)) == {100, 300, 499}
    assert set(seen.values()) == {1}
    assert len(methods.calls) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_item_costs_few_calls(kind):
    methods = Methods({537})
    assert failed(run(getattr(methods, kind), 1000)) == {537}
    assert len(methods.calls) <= 45, "nearly as bad as to try each alone"


def test_results_come_as_they_are_computed():
    done = []

    def method(items: Sequence[int]) -> Iterator[int]:
        for item in items:
            done.append(item)
            yield item

    found = outcomes(Part("label", ["a", "b"], [1, 2], method))
    assert next(found)[0] == "a"
    assert done == [1]
    found.close()
    assert done == [1]


def test_generators_are_closed():
    ended = []

    def method(items: Sequence[int]) -> Iterator[int]:
        try:
            yield from items
        finally:
            ended.append(True)

    found = outcomes(Part("label", ["a", "b"], [1, 2], method))
    next(found)
    found.close()
    assert ended == [True]


@pytest.mark.parametrize("error", [SystemExit(0), StopIteration("x"), MemoryError(), RecursionError(), GeneratorExit()])
def test_odd_errors_are_those_of_the_item(error):
    def method(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise error
        return list(items)

    if isinstance(error, GeneratorExit):  # not the user's to raise: it ends the computation
        with pytest.raises(GeneratorExit):
            run(method, 4)
    else:
        assert failed(run(method, 4)) == {2}


def test_interruptions_pass():
    def method(items: Sequence[int]) -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    found = outcomes(Part("label", ["a", "b"], [1, 2], method))
    assert next(found)[0] == "a"
    with pytest.raises(KeyboardInterrupt):
        next(found)


# counts


@pytest.mark.parametrize(
    ("method", "text", "kept"),
    [
        (lambda items: (item for item in items[:-1]), r"gave 2 result\(s\) for 3 item\(s\), none for '2'", 2),
        (lambda items: itertools.chain(items, [9]), r"gave more than 3 result\(s\) for 3 item\(s\).*'2'", 3),
        (lambda items: items[:-1], r"returned 2 result\(s\) for 3 item\(s\), from '0' to '2'", 0),
        (lambda items: [*items, 9], r"returned 4 result\(s\) for 3 item\(s\)", 0),
        (lambda items: None, r"returned None, but must yield one result for each.*'0'", 0),
        (lambda items: 5, r"returned 5, but", 0),
        (lambda items: iter(()), r"gave 0 result\(s\).*none for '0'", 0),
    ],
)
def test_wrong_counts_are_told(method, text, kept):
    found = []
    with pytest.raises(errors.InfraUsageError, match=text) as info:
        for key, value, _ in outcomes(Part("Model.run,0/default", ["0", "1", "2"], [0, 1, 2], method)):
            found.append((key, value))
    assert "Model.run,0/default" in str(info.value)
    assert found == [(str(item), item) for item in range(kept)]


@pytest.mark.parametrize("container", [list, tuple, iter, dict.fromkeys, lambda items: (item for item in items), range])
def test_results_may_be_any_iterable(container):
    def method(items: Sequence[int]) -> Any:
        return range(len(items)) if container is range else container(items)

    assert run(method, 3) == {"0": 0, "1": 1, "2": 2}


def test_no_items_need_no_call():
    assert list(outcomes(Part("label", [], [], lambda items: pytest.fail("it was called")))) == []
