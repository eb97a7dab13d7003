"""The writers of a `CacheDict`: one for each thread that writes, while there are blocks."""

import os
import weakref
from threading import get_ident

from exca_like import files
from exca_like.cachedict.context import DumpContext
from exca_like.cachedict.writer import Writer
from exca_like.errors import CacheUsageError


class Writers:
    """Gives each thread a writer of its own; those of blocks that ended are used again."""

    def __init__(self, folder: str, permissions: int | None, *, fsync: bool) -> None:
        self.by_thread: dict[int, Writer] = {}  # while there are blocks
        self._folder = folder
        self._permissions = permissions
        self._fsync = fsync
        self._blocks = 0
        self._idle: list[Writer] = []
        self._lock = files.ForkSafeLock()

    def begin(self) -> None:
        """Begin a block."""
        with self._lock:
            self._blocks += 1

    def end(self) -> bool:
        """End a block; whether anything was written, if it was the last one."""
        with self._lock:
            self._blocks -= 1
            if self._blocks or not self.by_thread:
                return False
            done = list(self.by_thread.values())
            self.by_thread = {}  # not emptied: a thread that begins a block now must not get one that is being closed
        for writer in done:
            writer.end()
        self._idle += done
        return True

    def mine(self) -> Writer:
        """The writer of this thread.

        Raises
        ------
        CacheUsageError
            There is no block.
        """
        me = get_ident()
        writer = self.by_thread.get(me)
        if not self._blocks:
            msg = "writing to a CacheDict needs a block: `with cache.write(): cache[key] = value`"
            raise CacheUsageError(msg)
        if writer is None:
            writer = self.by_thread[me] = self._take()
            _all[id(self)] = self
        return writer

    def leave(self) -> None:
        """Close the files of this thread, for good: they are about to be removed."""
        with self._lock:
            mine = self.by_thread.pop(get_ident(), None)
            self._idle.clear()
        if mine is not None:
            mine.end()

    def forget(self) -> None:
        """In a forked process: it must not write to its parent's files."""
        self.by_thread, self._idle = {}, []

    def _take(self) -> Writer:
        try:
            return self._idle.pop()
        except IndexError:
            writer = Writer(self._folder, self._permissions, fsync=self._fsync)
            writer.context = DumpContext(self._folder, writer=writer)
            return writer


_all: "weakref.WeakValueDictionary[int, Writers]" = weakref.WeakValueDictionary()


def _forget_all() -> None:
    for writers in list(_all.values()):
        writers.forget()


os.register_at_fork(after_in_child=_forget_all)
