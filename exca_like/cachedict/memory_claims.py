"""Who computes what is kept in memory only: claims among the threads of a process. See `exca_like.cachedict.claims`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Self

from exca_like import files


class MemoryClaims:
    """Claims on keys that are kept in memory only: among the threads of this process."""

    def __init__(self) -> None:
        self._lock = files.ForkSafeLock()
        self._held: dict[str, MemoryClaim] = {}
        self._forks = files.Process.forks

    def claim(
        self, keys: Sequence[str], choose: Callable[[list[str]], Iterable[Sequence[str]]]
    ) -> tuple[list["MemoryClaim"], list["MemoryWaiting"]]:
        """Claim those of some keys that nobody holds, and that are wanted; see `claims.FolderClaims.claim`."""
        with self._lock:
            if self._forks != files.Process.forks:  # the threads that hold keys are not in this process
                self._held, self._forks = {}, files.Process.forks
            taken = [key for key in keys if key in self._held]
            claims = [MemoryClaim(group, self._held) for group in choose([key for key in keys if key not in self._held])]
            for claim in claims:
                self._held.update(dict.fromkeys(claim.keys, claim))
        return claims, [MemoryWaiting(taken, self._held)] if taken else []


class MemoryClaim:
    """Keys that one thread computes."""

    def __init__(self, keys: Sequence[str], held: "dict[str, MemoryClaim]") -> None:
        self.keys = keys
        self.name = f"memory-{id(self)}"
        self._held = held

    def release(self, key: str) -> None:
        """Let others have a key."""
        if self._held.get(key) is self:
            del self._held[key]

    def close(self) -> None:
        """Release everything."""
        for key in self.keys:
            self.release(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MemoryWaiting:
    """Keys that other threads hold."""

    def __init__(self, keys: list[str], held: dict[str, MemoryClaim]) -> None:
        self.keys = keys
        self._held = held

    @property
    def job(self) -> None:
        """None: threads are no jobs."""

    def names(self) -> set[str]:
        """Names of the claims that hold them."""
        return {claim.name for key in self.keys if (claim := self._held.get(key)) is not None}

    def freed(self) -> list[str]:
        """The keys that are free since the last question."""
        free: list[str] = []
        still: list[str] = []
        for key in self.keys:  # each is asked for once: it may be released at any moment
            (still if key in self._held else free).append(key)
        self.keys = still
        return free

    def __str__(self) -> str:
        return "another thread of this process"
