"""Threads and processes of this machine, for as long as their submitter lives."""

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from typing import Any, Protocol

from exca_like import pickling
from exca_like.cachedict.failures import Failure
from exca_like.errors import SubmissionError
from exca_like.executors.environment import number_of_cores

_WATCH_S = 1.0  # seconds between two looks at whether the other side lives
_END_S = 5.0  # seconds that a worker without work may take to end
_WORD = 8  # bytes of a number between a pool and its workers
PARTS_PER_WORKER = 4
"""How many calls make each worker busy to the end, though some take longer than others."""


class Pool(Protocol):
    """Runs calls, once."""

    def submit(self, calls: Sequence[Callable[[], Any]]) -> "list[Future[Any]]":
        """Start a call each."""
        ...

    def close(self) -> None:
        """Drop the calls that have not begun; threads end theirs, processes are stopped. Nothing is waited for."""
        ...


def make_pool(kind: str, max_workers: int) -> Pool:
    """A ``"threadpool"`` or a ``"processpool"`` with a worker for each core, at most."""
    workers = max(1, min(max_workers, number_of_cores()))
    return ThreadPool(workers) if kind == "threadpool" else ProcessPool(workers)


class ThreadPool:
    """See `Pool`."""

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="exca_like")

    def submit(self, calls: Sequence[Callable[[], Any]]) -> "list[Future[Any]]":
        return [self._executor.submit(call) for call in calls]

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class ProcessPool:
    """See `Pool`. A worker that dies costs the call that it was at, and is replaced.

    The pool of the standard library shares its queues between workers: one that is killed while it holds a queue's lock or is
    in the middle of a message stops the others, and keeps the interpreter from ending. Here, each worker has a socket and
    a thread of its own, and may be killed at any time.
    """

    def __init__(self, workers: int) -> None:
        self._number = workers
        self._workers: list[_Worker] = []
        self._submitter = os.getpid()
        self._is_closed = False
        self._lock = threading.Lock()

    def submit(self, calls: Sequence[Callable[[], Any]]) -> "list[Future[Any]]":
        # pickles, not what is in memory: workers must not share its locks and open files
        payloads = [_pickled(call) for call in calls]
        futures: list[Future[Any]] = [Future() for _ in payloads]
        todo = iter(list(enumerate(futures)))
        for _ in range(min(self._number, len(payloads))):  # one by one: `close` knows those that there are
            self._workers.append(_Worker(payloads))
        for number in range(len(self._workers)):
            args = (number, payloads, todo)
            threading.Thread(target=self._serve, args=args, name="exca_like-pool", daemon=True).start()
        # registered after multiprocessing's own, and so called before it: it waits for its processes
        atexit.register(self.close)
        return futures

    def _serve(self, number: int, payloads: list[bytes], todo: Iterator[tuple[int, "Future[Any]"]]) -> None:
        """Keep a worker busy."""
        try:
            while True:
                with self._lock:  # an iterator is for one thread at a time
                    following = next(todo, None)
                if following is None or self._is_closed:
                    break
                index, future = following
                if future.set_running_or_notify_cancel() and not self._run(self._workers[number], index, future):
                    with self._lock:
                        if self._is_closed:
                            return
                        self._workers[number] = _Worker(payloads)
        except OSError as error:  # no process can be made in place of one that died
            with self._lock:
                left = list(todo)
            for _, future in left:
                if future.set_running_or_notify_cancel():
                    future.set_exception(BrokenExecutor(f"a process of the pool died, and no other can be started: {error}"))
            return
        self._workers[number].end()

    def _run(self, worker: "_Worker", index: int, future: "Future[Any]") -> bool:
        """Have a worker run a call; False if it dies."""
        try:
            outcome = worker.run(index)
        except OSError:
            worker.kill()
            worker.end()
            future.set_exception(BrokenExecutor("a process of the pool died: it was killed, or memory ran out"))
            return False
        try:
            value = pickle.loads(outcome)
        except Exception as error:
            future.set_exception(error)
            return True
        if isinstance(value, Failure):
            future.set_exception(value.exception())
        else:
            future.set_result(value[0])
        return True

    def close(self) -> None:
        if os.getpid() != self._submitter:  # a fork of it
            return
        atexit.unregister(self.close)
        with self._lock:
            self._is_closed = True
            for worker in self._workers:
                if not worker.is_ending:
                    worker.kill()


class _Worker:
    """A process of a pool, and the pool's end of the socket between them."""

    def __init__(self, payloads: list[bytes]) -> None:
        self._socket, other = socket.socketpair()
        self._socket.settimeout(_WATCH_S)
        other.settimeout(None)  # whatever the user's default is
        self.is_ending = False
        # forked workers know the classes of scripts and notebooks, and need no guard in the main script
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_work, args=(payloads, other, os.getpid()), name="exca_like-worker")
        self._process.start()
        other.close()

    def run(self, index: int) -> bytearray:
        """The pickled outcome of a call; raises an OSError if the process dies."""
        self._socket.sendall(index.to_bytes(_WORD, "little"))
        return self._receive(int.from_bytes(self._receive(_WORD), "little"))

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                number = self._socket.recv_into(view)
            except TimeoutError:
                # a child of the worker may hold its end of the socket open
                if self._process.is_alive():
                    continue
                number = 0
            if not number:
                raise ConnectionResetError
            view = view[number:]
        return data

    def end(self) -> None:
        """Let an idle process come to its end; killed if it doesn't."""
        self.is_ending = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._process.join(_END_S)
        self.kill()
        self._process.join()
        self._socket.close()

    def kill(self) -> None:
        """Stop the process whatever it does."""
        self._process.kill()


def _work(payloads: list[bytes], pool: socket.socket, submitter: int) -> None:
    """Run calls, by their numbers, until there are no more. Ctrl-C is for the submitter; without that, there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == submitter:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="exca_like-watch", daemon=True).start()
    with contextlib.suppress(OSError):  # the submitter died
        while index := pool.recv(_WORD, socket.MSG_WAITALL):
            outcome = _outcome(payloads[int.from_bytes(index, "little")])
            pool.sendall(len(outcome).to_bytes(_WORD, "little"))
            pool.sendall(outcome)


def _outcome(payload: bytes) -> bytes:
    try:
        return pickling.dumps((pickle.loads(payload)(),))
    except BaseException as error:  # also a SystemExit of the call
        return pickling.dumps(Failure.of(error))


def _pickled(call: Callable[[], Any]) -> bytes:
    with contextlib.suppress(Exception):  # for instance a class of a function
        return pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
    try:
        return pickling.dumps(call)
    except Exception as error:
        msg = f"the config can't be pickled to be sent to a worker: {error}"
        raise SubmissionError(msg) from error
