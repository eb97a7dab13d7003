"""Forked processes that report through a pipe, and can be killed at any time."""

import contextlib
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_LENGTH = struct.Struct("<I")


def in_threads(function: Callable[[int], object], number: int) -> None:
    """Call a function with each of some numbers, each in a thread; raises the first error there was."""
    errors: list[BaseException] = []

    def call(thread: int) -> None:
        try:
            function(thread)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Child:
    """A forked process that runs ``function(send, *arguments)``; ``send`` gives a small object to the parent.

    What was sent before the process is killed arrives. Raising an exception is an error of the test; see `errors`.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self.received: list[Any] = []
        self.status: int | None = None
        self._rest = b""
        self._pipe, theirs = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of numpy's libraries: the child starts none of them
            self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.close(self._pipe)
                function(lambda item: _send(theirs, item), *arguments)
                code = 0
            except BaseException:
                with contextlib.suppress(BaseException):
                    _send(theirs, Failed(traceback.format_exc()))
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                os._exit(code)
        os.close(theirs)
        os.set_blocking(self._pipe, False)

    def receive(self) -> None:
        """Take in what was sent up to now."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._pipe, 1 << 20):
                self._rest += chunk
        position = 0
        while len(self._rest) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest, position)
            end = position + _LENGTH.size + length
            if end > len(self._rest):
                break
            self.received.append(pickle.loads(self._rest[position + _LENGTH.size : end]))
            position = end
        self._rest = self._rest[position:]

    def kill(self) -> None:
        """Kill the process, and take in what it had sent."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)
            self._end()

    def is_running(self) -> bool:
        if self.status is None:
            self.receive()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                self._end()
        return self.status is None

    def _end(self) -> None:
        self.receive()
        os.close(self._pipe)

    @property
    def errors(self) -> list[str]:
        """Tracebacks of the process."""
        return [item.text for item in self.received if isinstance(item, Failed)]

    @property
    def items(self) -> list[Any]:
        """What the process sent."""
        return [item for item in self.received if not isinstance(item, Failed)]


class Failed:
    """The traceback of a process."""

    def __init__(self, text: str) -> None:
        self.text = text


def _send(pipe: int, item: Any) -> None:
    data = pickle.dumps(item)
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(pipe, data) :]


def receive_for(children: list[Child], seconds: float) -> None:
    """Take in what processes send, for some time; their pipes never fill up."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        running = [child for child in children if child.status is None]
        ready, _, _ = select.select([child._pipe for child in running], [], [], min(left, 0.05))
        for child in running:
            if child._pipe in ready:
                child.receive()
        if ready:
            time.sleep(min(left, 0.002))  # at the end of a process, its pipe is always ready


def wait_for(children: list[Child], seconds: float = 120) -> None:
    """Wait until processes have ended without an error."""
    end = time.monotonic() + seconds
    while running := [child.pid for child in children if child.is_running()]:
        if time.monotonic() > end:
            for child in children:
                child.kill()
            msg = f"processes {running} were still running after {seconds} s"
            raise AssertionError(msg)
        receive_for(children, 0.01)
        check(children)
    check(children)


def check(children: list[Child]) -> None:
    """Raise the first error of processes."""
    errors = [error for child in children for error in child.errors]
    assert not errors, f"{len(errors)} processes failed, the first one with\n{errors[0]}"
    for child in children:
        assert child.status in (None, 0, signal.SIGKILL), f"a process ended with status {child.status}"


@contextlib.contextmanager
def killed_at_the_end(children: list[Child]) -> Iterator[None]:
    """A block after which none of the processes runs."""
    try:
        yield
    finally:
        for child in children:
            child.kill()
