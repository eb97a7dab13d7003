"""A memoised function that many processes call at once is computed once."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from concurrency.test_once import run_at_once, wait_for_go

from exca_like import memo

SIZE = 7_500_000  # numbers, of 60 MB


def make(folder: str, seed: int) -> np.ndarray:
    with open(f"{folder}/computed", "a") as stream:
        stream.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    return np.random.default_rng(seed).random(SIZE)


def call(send: object, go: Path, number: int, folder: Path) -> None:
    function = memo(folder=folder / "cache")(make)
    wait_for_go(go)
    result = function(str(folder), 3)
    assert np.array_equal(result, np.random.default_rng(3).random(SIZE)), number


def test_a_large_result_is_computed_once(tmp_path: Path) -> None:
    started = time.monotonic()
    run_at_once(tmp_path, 12, call, tmp_path)
    assert len((tmp_path / "computed").read_text().split()) == 1
    print(f"12 processes, one result of 60 MB: computed once, {time.monotonic() - started:.1f} s")
    (data,) = (tmp_path / "cache").glob("*/data/*.data")
    assert data.stat().st_size == 8 * SIZE


def overlap(send: object, go: Path, number: int, folder: Path) -> None:
    function = memo(folder=folder / "cache")(note)
    wait_for_go(go)
    wanted = [(number + shift) % 6 for shift in range(6)]
    assert [function(str(folder), x) for x in wanted] == [x * 2 for x in wanted]
    assert list(function.map([str(folder)] * 6, wanted)) == [x * 2 for x in wanted]


def note(folder: str, x: int) -> int:
    with open(f"{folder}/computed", "a") as stream:
        stream.write(f"{x}\n")
    time.sleep(0.02)
    return x * 2


def test_calls_and_maps_at_once(tmp_path: Path) -> None:
    run_at_once(tmp_path, 8, overlap, tmp_path)
    assert sorted((tmp_path / "computed").read_text().split()) == [str(x) for x in range(6)]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
