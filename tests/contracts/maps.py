"""What holds for maps on every cluster: checks that tests/contracts and tests/slurm run with clusters of theirs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pydantic
import pytest

import exca_like
from exca_like import errors
from exca_like.executors import open_job


class Locked(Exception):
    """Can't be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Interruption(BaseException):
    """Ends a job as from outside."""


def note(path: str, word: object) -> None:
    """Add a line to a file that many processes write to."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, f"{word}\n".encode())
    finally:
        os.close(descriptor)


def noted(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


class Features(pydantic.BaseModel):
    """Gives a result for each item, notes each time it is asked for one, and fails for bad items as told."""

    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("notes", "bad", "action", "pause")
    factor: int = 2
    notes: str
    bad: tuple[int, ...] = ()
    action: str = "raise"
    pause: float = 0.0
    infra: exca_like.MapInfra = exca_like.MapInfra(version="1")

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Iterator[Any]:
        note(f"{self.notes}/calls", len(items))
        for item in items:
            note(f"{self.notes}/items", item)
            time.sleep(self.pause)
            if item in self.bad:
                self._fail(item)
            yield self.result(item)

    def result(self, item: int) -> Any:
        return {"item": item, "value": [self.factor * item]}

    def results(self, items: Sequence[int]) -> list[Any]:
        return list(map(self.result, items))

    def _fail(self, item: int) -> None:
        if self.action == "raise some kind" and item % 2:
            raise Locked(f"with a lock, at {item}")
        if self.action.startswith("raise"):
            raise ZeroDivisionError(f"no feature of {item}")
        if self.action == "exit":
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        if self.action == "interrupt":
            raise Interruption
        assert self.action == "sleep", self.action
        time.sleep(300)


class Maps:
    """Makes models for one cluster in one folder."""

    def __init__(self, cluster: str | None, folder: Path, **settings: Any) -> None:
        self.cluster = cluster
        self.folder = folder
        self.cache = folder / "cache"
        self.notes = folder / "notes"
        self.settings = settings

    def model(self, mode: str = "cached", infra: dict[str, Any] | None = None, **fields: Any) -> Features:
        self.notes.mkdir(exist_ok=True)
        settings = {"folder": str(self.cache), "cluster": self.cluster, "mode": mode, **self.settings, **(infra or {})}
        return Features(notes=str(self.notes), infra=settings, **fields)

    @property
    def computed(self) -> Counter[int]:
        """How often a result was asked for, by item."""
        return Counter(map(int, noted(self.notes / "items")))

    @property
    def calls(self) -> list[int]:
        """With how many items the method was called, each time."""
        return sorted(map(int, noted(self.notes / "calls")))

    @property
    def in_jobs(self) -> bool:
        return self.cluster in ("local", "slurm", "auto")

    @property
    def in_this_thread(self) -> bool:
        return self.cluster in (None, "debug")


def once(items: Sequence[int] | range) -> Counter[int]:
    return Counter(dict.fromkeys(items, 1))


def check_results_come_in_input_order(maps: Maps) -> None:
    items = [3, 1, 2, 3, 3, 0, 1]
    model = maps.model()
    found = model.compute(items)
    assert next(found) == model.result(3)
    assert list(found) == model.results(items[1:])
    assert maps.computed == once(range(4))
    assert list(maps.model().compute(items)) == model.results(items)  # as read from the store
    assert list(maps.model().compute(items=[4, *items])) == model.results([4, *items])
    assert maps.computed == once(range(5))
    assert sorted(model.infra.cache_dict) == ["0", "1", "2", "3", "4"]
    assert list(maps.model().compute([])) == []


def check_results_stream(maps: Maps) -> None:
    model = maps.model(pause=0.05 if maps.in_jobs else 0.01, infra={"max_jobs": 1})
    found = model.compute(range(30))
    assert next(found) == model.result(0)
    assert len(maps.computed) < 30, "the first result came with the last one"
    assert list(found) == model.results(range(1, 30))


def check_items_are_packed(maps: Maps) -> None:
    assert len(list(maps.model(infra={"max_jobs": 3}).compute(range(10)))) == 10
    assert maps.calls == ([10] if maps.in_this_thread else [3, 3, 4])
    (maps.notes / "calls").unlink()
    model = maps.model(factor=3, infra={"min_samples_per_job": 4})
    assert len(list(model.compute(range(10)))) == 10
    assert maps.calls == ([10] if maps.in_this_thread else [5, 5])
    (maps.notes / "calls").unlink()
    assert len(list(model.compute(range(12)))) == 12  # two are missing, fewer than a job's least
    assert maps.calls == [2]


def check_one_bad_item_loses_no_other(maps: Maps, number: int = 1000) -> None:
    bad = number // 2 + 37
    model = maps.model(bad=(bad,), infra={"max_jobs": 4})
    with pytest.raises(errors.ItemsFailedError, match=rf"1 of {number} items.*\n.*no feature of {bad}\n.*'{bad}'") as info:
        list(model.compute(range(number)))
    error = info.value
    assert isinstance(error, ZeroDivisionError)
    assert list(error.failures) == [str(bad)]
    assert error.failures[str(bad)].message == f"no feature of {bad}"
    assert "raise ZeroDivisionError" in error.failures[str(bad)].traceback
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert maps.computed == once(range(number))
    assert len(maps.model().infra.cache_dict) == number - 1

    mended = maps.model(infra={"max_jobs": 4})
    assert list(mended.compute(range(number))) == mended.results(range(number))
    assert maps.computed == once(range(number)) + Counter([bad])


def check_failed_items_are_missing_ones(maps: Maps) -> None:
    for number, mode in enumerate(("cached", "cached", "retry"), 1):
        found = maps.model(mode, bad=(1,)).compute([0, 1, 2])
        assert next(found) == maps.model().result(0)
        with pytest.raises(ZeroDivisionError, match="no feature of 1"):
            next(found)
        assert maps.computed == Counter({0: 1, 1: number, 2: 1})
    assert list(maps.model("retry").compute([0, 1, 2])) == maps.model().results([0, 1, 2])
    assert maps.computed == Counter({0: 1, 1: 4, 2: 1})
    assert list(maps.model("retry").compute([0, 1, 2])) == maps.model().results([0, 1, 2])
    assert maps.computed == Counter({0: 1, 1: 4, 2: 1})


def check_errors_of_several_kinds_are_told_together(maps: Maps) -> None:
    list(maps.model().compute(range(3)))
    with pytest.raises(errors.ItemsFailedError, match="3 of 8 items") as info:
        list(maps.model(bad=(3, 4, 6), action="raise some kind").compute(range(8)))
    assert set(info.value.failures) == {"3", "4", "6"}
    assert not isinstance(info.value, ZeroDivisionError)
    text = str(info.value)
    assert "2 × ZeroDivisionError at maps.py" in text
    assert "1 × Locked at maps.py" in text
    assert "with a lock, at 3" in text
    assert "'4', '6'" in text
    assert all(maps.computed[item] == 1 for item in (0, 1, 2, 7))
    assert len(maps.model().infra.cache_dict) == 5


def check_force_computes_once_per_instance_and_item(maps: Maps) -> None:
    list(maps.model().compute([1, 2, 3]))
    forced = maps.model("force")
    assert list(forced.compute([1, 2])) == forced.results([1, 2])
    assert maps.computed == Counter({1: 2, 2: 2, 3: 1})
    assert list(forced.compute([3, 2, 1])) == forced.results([3, 2, 1])
    assert maps.computed == Counter({1: 2, 2: 2, 3: 2})
    assert list(forced.compute(iter([1, 2, 3, 4]))) == forced.results([1, 2, 3, 4])
    assert maps.computed == Counter({1: 2, 2: 2, 3: 2, 4: 1})
    list(maps.model("force").compute([3, 3]))
    assert maps.computed[3] == 3
    list(maps.model().compute([1, 2, 3, 4]))
    assert maps.computed == Counter({1: 2, 2: 2, 3: 3, 4: 1})
    cache = maps.model().infra.cache_dict
    with cache.write():
        del cache["1"]
    for items in ([1, 2], iter([1, 2])):
        assert list(forced.compute(items)) == forced.results([1, 2])
    assert maps.computed == Counter({1: 3, 2: 2, 3: 3, 4: 1})


def check_forced_failures_keep_the_older_results(maps: Maps) -> None:
    list(maps.model().compute(range(3)))
    with pytest.raises(ZeroDivisionError):
        list(maps.model("force", bad=(1,)).compute(range(3)))
    assert maps.computed == Counter({0: 2, 1: 2, 2: 2})
    assert list(maps.model().compute([0, 2])) == maps.model().results([0, 2])
    assert maps.computed == Counter({0: 2, 1: 2, 2: 2})


def check_read_only_raises_at_the_call(maps: Maps) -> None:
    model = maps.model("read-only")
    with pytest.raises(RuntimeError, match="2 of 2 items.*not in the cache.*read-only.*'1', '2'"):
        model.compute([1, 2])
    assert not maps.cache.exists()
    list(maps.model().compute([1, 2]))
    assert list(model.compute([2, 1, 2])) == model.results([2, 1, 2])
    with pytest.raises(RuntimeError, match="1 of 3 items.*'3'"):
        model.compute(iter([1, 2, 3]))
    assert maps.computed == once([1, 2])


def check_single_items_can_be_forbidden(maps: Maps) -> None:
    model = maps.model(infra={"forbid_single_item_computation": True})
    for items in ([1], [1, 1]):
        with pytest.raises(RuntimeError, match="one item alone, '1'"):
            model.compute(items)
    assert list(model.compute([1, 2])) == model.results([1, 2])
    assert list(model.compute([1])) == model.results([1])
    with pytest.raises(RuntimeError, match="one item alone, '3'"):
        model.compute([1, 2, 3])
    assert maps.computed == once([1, 2])


def check_items_may_come_from_a_generator(maps: Maps) -> None:
    model = maps.model()
    assert list(model.compute(item % 7 for item in range(20))) == model.results([item % 7 for item in range(20)])
    assert list(model.compute(dict.fromkeys([9, 3]))) == model.results([9, 3])
    assert list(model.compute(item for item in (9, 3))) == model.results([9, 3])
    assert maps.computed == once([0, 1, 2, 3, 4, 5, 6, 9])


def check_without_folder(maps: Maps) -> None:
    if maps.in_jobs or maps.cluster == "debug":
        with pytest.raises(ValueError, match="needs a folder"):
            maps.model(infra={"folder": None})
        return
    model = maps.model(infra={"folder": None})
    for _ in range(2):
        assert list(model.compute([2, 1, 2])) == model.results([2, 1, 2])
    assert maps.computed == once([1, 2])
    assert sorted(model.infra.cache_dict) == ["1", "2"]
    failing = model.infra.clone_obj(bad=(4,))
    with pytest.raises(ZeroDivisionError, match="no feature of 4") as info:
        list(failing.compute(range(3, 6)))
    assert list(info.value.failures) == ["4"]
    assert sorted(failing.infra.cache_dict) == ["3", "5"]
    assert not maps.cache.exists()

    forced = maps.model("force", infra={"folder": None})
    for items in ([10, 11], [11, 12], [10, 11, 12]):
        assert list(forced.compute(items)) == forced.results(items)
    assert all(maps.computed[item] == 1 for item in (10, 11, 12))


def check_without_folder_and_memory(maps: Maps) -> None:
    if maps.in_jobs or maps.cluster == "debug":
        return
    for mode in ("cached", "force"):
        (maps.notes / "items").unlink(missing_ok=True)
        model = maps.model(mode, infra={"folder": None, "keep_in_ram": False})
        for number in (1, 2):
            assert list(model.compute([1, 2, 1])) == model.results([1, 2, 1])
            assert maps.computed == Counter({1: number, 2: number})
        assert list(model.compute(iter([1, 2, 1]))) == model.results([1, 2, 1])


def check_damaged_results_are_computed_again(maps: Maps) -> None:
    list(maps.model().compute(range(3)))
    for journal in maps.model().infra.uid_folder().glob("*-info.jsonl"):
        data = journal.read_bytes()
        journal.write_bytes(data.replace(b'"item":1', b'"item":7'))
    model = maps.model()
    with pytest.warns(errors.CorruptEntryWarning, match="damaged|checksum"):
        assert list(model.compute(range(3))) == model.results(range(3))
    assert maps.computed == Counter({0: 1, 1: 2, 2: 1})
    assert list(maps.model().compute(range(3))) == model.results(range(3))
    assert maps.computed == Counter({0: 1, 1: 2, 2: 1})


def check_folders_may_be_deleted_at_any_time(maps: Maps) -> None:
    model = maps.model()
    list(model.compute(range(3)))
    shutil.rmtree(maps.cache)
    assert list(maps.model().compute(range(3))) == model.results(range(3))
    assert maps.computed == Counter({0: 2, 1: 2, 2: 2})
    shutil.rmtree(maps.cache)
    assert list(model.compute(range(4))) == model.results(range(4))  # what is in memory may be taken from there


def check_nothing_is_left_behind(maps: Maps) -> None:
    with contextlib.suppress(ZeroDivisionError):
        list(maps.model(bad=(2,)).compute(range(5)))
    list(maps.model().compute(range(5)))
    next(maps.model().compute(range(5, 10)))
    if maps.in_jobs:
        list(maps.model().compute(range(10)))  # the one that was given up left its jobs running
    wait_until(lambda: not list(maps.cache.rglob("*.claim")))


def check_a_requeued_part_computes_the_rest(maps: Maps) -> None:
    """What a job does that was interrupted, and is started again with the same call."""
    items, keys = list(range(6)), [str(item) for item in range(6)]
    model = maps.model(bad=(3,), action="interrupt")
    infra = model.infra
    infra._prepare_folder()
    (claim,), _ = infra._claims().claim(keys, lambda free: [free])
    with pytest.raises(Interruption):
        infra._part_call(keys, items, claim.path, model.infra.mode)()
    maps.model().infra._part_call(keys, items, claim.path, model.infra.mode)()
    assert maps.computed == once(items) + Counter([3])
    assert list(maps.model("read-only").compute(items)) == model.results(items)


ALL_MAPS: list[Callable[[Maps], None]] = [
    check_results_come_in_input_order,
    check_results_stream,
    check_items_are_packed,
    check_one_bad_item_loses_no_other,
    check_failed_items_are_missing_ones,
    check_errors_of_several_kinds_are_told_together,
    check_force_computes_once_per_instance_and_item,
    check_forced_failures_keep_the_older_results,
    check_read_only_raises_at_the_call,
    check_single_items_can_be_forbidden,
    check_items_may_come_from_a_generator,
    check_without_folder,
    check_without_folder_and_memory,
    check_damaged_results_are_computed_again,
    check_folders_may_be_deleted_at_any_time,
    check_nothing_is_left_behind,
]


# what holds where items are computed in other processes


def check_dying_processes_lose_their_unfinished_items(maps: Maps) -> None:
    model = maps.model(bad=(5,), action="exit", infra={"max_jobs": 2})
    with pytest.raises(errors.JobError) as info:
        list(model.compute(range(8)))  # 0 to 3 in one job, 4 to 7 in the other
    assert isinstance(info.value, errors.ItemsFailedError)
    assert {"5", "6", "7"} <= info.value.failures.keys()
    assert "4" not in info.value.failures
    assert "a process of the pool died" in str(info.value) if maps.cluster == "processpool" else "last words" in str(info.value)
    list(maps.model().compute(range(8)))
    assert maps.computed[4] == 1
    assert maps.computed[5] == 2


def check_items_that_failed_may_end_their_process_next(maps: Maps) -> None:
    """The error that was stored for an item, by the call before, is not what this call tells."""
    with pytest.raises(ZeroDivisionError):
        list(maps.model(bad=(1,)).compute(range(3)))
    with pytest.raises(errors.JobError) as info:
        list(maps.model(bad=(1,), action="exit").compute(range(3)))
    assert list(info.value.failures) == ["1"]
    assert list(maps.model().compute(range(3))) == maps.model().results(range(3))


PROCESS_MAPS: list[Callable[[Maps], None]] = [
    check_dying_processes_lose_their_unfinished_items,
    check_items_that_failed_may_end_their_process_next,
]


# what holds where items are computed in jobs


def check_results_outlive_logs(maps: Maps) -> None:
    list(maps.model().compute(range(4)))
    wait_until(lambda: not list(maps.cache.rglob("*.claim")))
    shutil.rmtree(maps.cache / "logs")
    assert list(maps.model("read-only").compute(range(4))) == maps.model().results(range(4))
    assert list(maps.model().compute(range(5))) == maps.model().results(range(5))
    assert maps.computed == once(range(5))


def jobs_of(maps: Maps) -> list[Any]:
    """The jobs that hold claims now."""
    jobs = []
    for path in maps.cache.rglob("*.claim"):
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):
            jobs.append(orjson.loads(path.read_bytes()[:1024]).get("job"))
    return [open_job(record) for record in jobs if record]


def check_cancelled_jobs_lose_their_unfinished_items(maps: Maps) -> None:
    """Of two jobs, one sleeps in the middle and is cancelled."""
    model = maps.model(bad=(5,), action="sleep", infra={"max_jobs": 2})
    found: list[Any] = []

    def call() -> None:
        try:
            list(model.compute(range(8)))
        except BaseException as error:
            found.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: len(maps.computed) == 6 and len(jobs_of(maps)) == 1, 60)
    (job,) = jobs_of(maps)
    job.cancel()
    caller.join(60)
    (error,) = found
    assert isinstance(error, errors.ItemsFailedError)
    assert isinstance(error, errors.JobInterruptedError)
    assert sorted(error.failures) == ["5", "6", "7"]
    assert f"job {job.job_id}" in str(error)
    assert "cancelled" in str(error)
    assert {failure.reason for failure in error.failures.values()} == {"cancelled"}
    assert list(maps.model().compute(range(8))) == model.results(range(8))
    assert maps.computed == once(range(8)) + Counter([5])


_DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from contracts.maps import Maps
maps = Maps({cluster!r}, Path({folder!r}), **{settings!r})
list(maps.model(pause={pause!r}, infra={{"max_jobs": 8}}).compute(range({number!r})))
"""


def start_driver(maps: Maps, number: int, pause: float) -> "subprocess.Popen[bytes]":
    """A process that calls the map."""
    maps.notes.mkdir(exist_ok=True)
    path = [p for p in sys.path if p]
    settings = {"cluster": maps.cluster, "folder": str(maps.folder), "settings": maps.settings}
    code = _DRIVER.format(path=path, number=number, pause=pause, **settings)
    return subprocess.Popen([sys.executable, "-c", code])


def check_drivers_may_die(maps: Maps, number: int = 60, pause: float = 0.05) -> None:
    """The driver is killed half-way: its jobs go on, and the next one computes nothing again."""
    driver = start_driver(maps, number, pause)
    try:
        wait_until(lambda: len(maps.computed) >= number // 3, 60)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert len(maps.computed) < number, "it was too late"
    model = maps.model(pause=pause, infra={"max_jobs": 8})
    assert list(model.compute(range(number))) == model.results(range(number))
    assert maps.computed == once(range(number))


JOB_MAPS: list[Callable[[Maps], None]] = [
    check_results_outlive_logs,
    check_cancelled_jobs_lose_their_unfinished_items,
    check_drivers_may_die,
    check_a_requeued_part_computes_the_rest,
]


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
