"""Threads and processes of this machine, for as long as their submitter lives."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from exca_like.executors.environment import number_of_cores, pickled_call

_WATCH_S = 1.0  # seconds between two looks at whether the submitter lives
PARTS_PER_WORKER = 4
"""How many calls make each worker busy to the end, though some take longer than others."""


class Pool:
    """Runs calls in a pool of threads or processes."""

    def __init__(self, kind: str, max_workers: int) -> None:
        self._kind = kind
        self._workers = max(1, min(max_workers, number_of_cores()))
        self._executor: concurrent.futures.Executor | None = None

    def submit(self, calls: Sequence[Callable[[], Any]]) -> "list[concurrent.futures.Future[Any]]":
        """Start a call each."""
        number = min(self._workers, len(calls))
        if self._kind == "threadpool":
            self._executor = concurrent.futures.ThreadPoolExecutor(number, thread_name_prefix="exca_like")
            return [self._executor.submit(call) for call in calls]
        # forked workers know the classes of scripts and notebooks, and need no guard in the main script
        context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
        payloads = [_pickled(call, context.get_start_method()) for call in calls]
        self._executor = concurrent.futures.ProcessPoolExecutor(number, context, _begin, (os.getpid(),))
        return [self._executor.submit(_run, payload) for payload in payloads]

    def close(self) -> None:
        """Drop the calls that have not begun; threads end theirs, processes are stopped."""
        if self._executor is None:
            return
        processes = list((getattr(self._executor, "_processes", None) or {}).values())  # before it forgets them
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _begin(submitter: int) -> None:
    """Prepare a worker: Ctrl-C is for the submitter, and without that there is nobody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == submitter:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="exca_like-watch", daemon=True).start()


def _pickled(call: Callable[[], Any], start_method: str) -> bytes:
    if start_method == "fork":  # workers have all modules of this process, also those that can't be imported
        with contextlib.suppress(Exception):  # for instance a class of a function
            return pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
    return pickled_call(call)


def _run(payload: bytes) -> Any:
    return pickle.loads(payload)()
