"""Pools of processes: any worker may be killed at any time, and nothing hangs."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import BrokenExecutor, wait

import pytest

from exca_like.errors import RemoteError
from exca_like.executors.pools import make_pool


class Call:
    def __init__(self, value=None, seconds=0.0):
        self.value, self.seconds = value, seconds

    def __call__(self):
        time.sleep(self.seconds)
        return self.value


class Die:
    def __call__(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Raise:
    def __init__(self, error):
        self.error = error

    def __call__(self):
        raise self.error


class Unpicklable:
    def __call__(self):
        return threading.Lock()


class LeaveChild:
    """Dies, and leaves a child that holds whatever it inherited."""

    def __call__(self):
        if os.fork() == 0:
            time.sleep(6)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def pool():
    pool = make_pool("processpool", 2)
    yield pool
    pool.close()


def test_results_come_in_the_order_of_calls(pool):
    futures = pool.submit([Call(number, 0.01 * (number % 3)) for number in range(20)])
    assert [future.result(20) for future in futures] == list(range(20))


def test_large_results(pool):
    values = [bytes([number]) * 5_000_000 for number in range(6)]
    assert [future.result(20) for future in pool.submit([Call(value) for value in values])] == values


def test_a_worker_that_dies_costs_its_call_alone(pool):
    futures = pool.submit([Call(1), Die(), Call(2), Die(), Die(), Call(3)])
    wait(futures, 20)
    assert all(isinstance(futures[place].exception(0), BrokenExecutor) for place in (1, 3, 4))
    assert [futures[place].result(0) for place in (0, 2, 5)] == [1, 2, 3]


def test_death_is_noticed_though_a_child_lives_on(pool):
    (future,) = pool.submit([LeaveChild()])
    assert isinstance(future.exception(5), BrokenExecutor)


def test_errors_of_calls(pool):
    futures = pool.submit([Raise(ValueError("no")), Raise(SystemExit(3)), Unpicklable()])
    errors = [future.exception(20) for future in futures]
    assert isinstance(errors[0], ValueError) and "in __call__" in errors[0].__notes__[0]
    assert isinstance(errors[1], RemoteError) and "SystemExit" in str(errors[1])
    assert isinstance(errors[2], TypeError) and "pickle" in str(errors[2])


def test_closing_stops_running_calls_and_drops_the_others(pool):
    futures = pool.submit([Call(seconds=60) for _ in range(4)])
    time.sleep(0.2)
    started = time.monotonic()
    pool.close()
    wait(futures[:2], 10)
    assert time.monotonic() - started < 5
    assert all(isinstance(future.exception(0), BrokenExecutor) for future in futures[:2])
    assert not any(future.done() and not future.cancelled() for future in futures[2:])


SCRIPT = """
    import random, sys, time
    sys.path.insert(0, {folder!r})
    from test_pools import Call
    from exca_like.executors.pools import make_pool

    random.seed({seed})
    for _ in range({rounds}):
        pool = make_pool("processpool", 2)
        sizes = [random.choice([10, 100_000, 1_000_000]) for _ in range(random.randrange(2, 20))]
        futures = pool.submit([Call(b"x" * size, 0.01 * random.random()) for size in sizes])
        for future, size in list(zip(futures, sizes))[: random.randrange(len(futures) + 1)]:
            assert len(future.result()) == size
        time.sleep(0.01 * random.random())
        pool.close()
    running = make_pool("processpool", 2)
    running.submit([Call(b"", 100)] * 3)  # and nobody closes it
    time.sleep(0.1)
    print("the end", flush=True)
"""


@pytest.mark.parametrize("rounds", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_interpreter_ends_after_pools_were_closed_at_any_time(rounds):
    script = textwrap.dedent(SCRIPT).format(folder=os.path.dirname(__file__), rounds=rounds, seed=random.randrange(1 << 30))
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 + rounds, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "the end"), ended.stderr
