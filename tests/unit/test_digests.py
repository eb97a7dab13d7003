"""Few keys are looked at without numpy: what comes out must be the same as for many."""

import subprocess
import sys
from array import array

import hypothesis
import pytest
from hypothesis import strategies as st

from exca_like.cachedict import digests as module
from exca_like.cachedict.digests import Table, chosen, digests_of, order_of, ordered

keys = st.lists(st.text(st.characters(exclude_categories=()), max_size=100), min_size=1, max_size=12)
numbers = st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1), max_size=30)


@hypothesis.given(keys)
@hypothesis.example(["", "\0", "a\0", "é" * 40, "\ud800", "k" * 64, "k" * 65])
def test_a_key_has_the_same_digest_among_few_and_among_many(few: list[str]) -> None:
    many = [*few, *(f"other-{number}" for number in range(40))]
    assert list(digests_of(few)) == list(digests_of(many))[: len(few)]


@hypothesis.given(numbers, st.binary(min_size=30, max_size=30), numbers)
def test_tables_say_the_same_with_and_without_numpy(held: list[int], noise: bytes, wanted: list[int]) -> None:
    table = Table(ordered(chosen(held)), bytearray(byte % 2 for byte in noise[: len(held)]))
    again = Table.read(bytes(table))
    expected = sorted(digest for digest, status in zip(sorted(held), table.status, strict=True) if status == module.HELD)
    asked = sorted(wanted + held)
    for few in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_FEW", few)
            assert list(ordered(chosen(held))) == sorted(held)
            assert [held[place] for place in order_of(chosen(held))] == sorted(held)
            assert [asked[place] for place in again.held(chosen(asked))] == [digest for digest in asked if digest in expected]
            assert again.has_held() == bool(expected)
            fresh = Table.new(chosen(held))
            fresh.release(chosen(held))
            assert set(fresh.held(chosen(asked))) <= {place for place, digest in enumerate(asked) if held.count(digest) > 1}


def test_what_was_cut_off_is_not_in_a_table() -> None:
    whole = bytes(Table.new(array("Q", range(5))))
    assert [len(Table.read(whole[:size]).digests) for size in (0, 8, 9, 44, 45)] == [0, 0, 1, 4, 5]


def test_the_claim_on_one_key_does_without_numpy() -> None:
    code = (
        "import sys, tempfile; from exca_like.cachedict.claims import FolderClaims; folder = tempfile.mkdtemp(); "
        "claims, other = (FolderClaims(folder, 'lock', lambda _: False) for _ in range(2)); "
        "(claim,), _ = claims.claim(['k'], lambda free: [free]); _, (waiting,) = other.claim(['k'], lambda free: []); "
        "assert waiting.freed() == []; claim.close(); assert waiting.freed() == ['k']; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
