"""Claims: who computes which keys of a folder, so that each is computed once.

A *claim* is a file in the folder, ``<host>-<pid>-<token>.claim``: the owner as JSON in its first 1,024 bytes, then the
64-bit digests of the keys, sorted, then a byte for each: 0 while it is held, 1 once it is released. Whoever wants keys
locks a file of the folder (by ``flock``, which the system frees however its holder ends), reads the claims of others, and
writes a claim for what nobody holds. So a key has one holder, callers with overlapping keys wait for each other's results,
and 100,000 keys take a few file operations. A claim whose owner is dead counts for nothing (see `owners`). Two keys with
one digest only make somebody wait.
"""

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic, time
from typing import Any, NamedTuple, Self

import orjson

from exca_like import files, user_warnings
from exca_like.cachedict.digests import RELEASED, Digests, Table, chosen, digests_of, order_of, ordered
from exca_like.cachedict.owners import GONE_S, LOST_S, Owner, describe, heartbeat, is_mine, this_process
from exca_like.cachedict.writer import host_name, unwritable
from exca_like.processes import lives_here

SUFFIX = ".claim"
_HEAD = 1024  # bytes
_FLUSH_S = 0.05  # seconds between two writes of what was released
_UNREADABLE = "somebody whose claim can't be read"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Claim:
    """Keys that one owner computes; releases what is not released yet when its ``with`` block ends."""

    def __init__(self, path: str, keys: Sequence[str], digests: Digests, job: dict[str, Any] | None = None) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.keys = keys
        self._table = Table.new(digests)
        self._released: list[str] = []  # what the file does not show yet
        self._job = job
        self._is_held = True
        self._next_flush = 0.0
        self._forks = files.Process.forks

    @classmethod
    def new(
        cls, folder: str, keys: Sequence[str], digests: Digests, permissions: int | None, job: dict[str, Any] | None = None
    ) -> Self:
        """Write a claim; the folder is locked."""
        claim = cls(_new_path(folder), keys, digests, job)
        try:
            files.write_new(claim.path, claim._content(), permissions)
        except BaseException as error:
            claim.close()
            if isinstance(error, OSError):
                raise unwritable(folder, claim.name, error) from error
            raise
        heartbeat.add(claim.path)
        return claim

    @classmethod
    def with_folder(cls, folder: str, keys: Sequence[str], create: Callable[[dict[str, bytes]], bool]) -> Self | None:
        """Claim keys of a folder that appears with the claim in it; None if it was there already.

        That needs no lock: nobody else can hold anything. ``create`` makes the folder, with files in it, in one step.
        """
        claim = cls(_new_path(folder), keys, digests_of(keys))
        heartbeat.add(claim.path)  # before anybody sees it
        try:
            if create({claim.name: claim._content()}):
                return claim
        except BaseException:
            claim.close()
            raise
        claim.close()
        return None

    def _content(self) -> bytes:
        return b"".join((_head(this_process(self._job)), bytes(self._table)))

    @classmethod
    def adopt(cls, path: str, keys: Sequence[str], job: dict[str, Any] | None) -> Self | None:
        """Take over a claim that was made for this process, a job or a worker; see `FolderClaims.adopt`."""
        digests = digests_of(keys)
        try:
            with open(path, "rb") as stream:
                stream.seek(_HEAD)
                table = Table.read(stream.read())
        except FileNotFoundError:
            return None
        if len(table.status) == len(keys) and RELEASED in table.status:  # the job was started again: what is done is done
            order = order_of(digests)
            held = sorted(order[place] for place in table.held(chosen(digests[place] for place in order)))
            claim = cls(path, [keys[place] for place in held], digests)
            claim._table = Table(claim._table.digests, bytearray(table.status))
        else:
            claim = cls(path, keys, digests)
        if not claim._write_at(0, _head(this_process(job))):
            return None
        heartbeat.add(path)
        return claim

    def hand_over(self, job: dict[str, Any]) -> None:
        """Leave the claim to a job that was submitted for it."""
        with contextlib.suppress(FileNotFoundError):  # the job has ended already
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                head = orjson.loads(os.pread(descriptor, _HEAD, 0))
                if "job" not in head:  # it has not begun
                    os.pwrite(descriptor, _head(this_process(job)), 0)
            finally:
                os.close(descriptor)
        self._forget()

    def release(self, key: str) -> None:
        """Let others have a key; what is stored for it is found by them anyway."""
        self._released.append(key)
        if monotonic() > self._next_flush:
            self._flush()

    def _flush(self) -> None:
        self._next_flush = monotonic() + _FLUSH_S
        if self._forks != files.Process.forks:
            return
        released, self._released = self._released, []
        self._table.release(digests_of(released))
        with contextlib.suppress(OSError):  # what is stored is found without it, and all is released in the end
            self._write_at(_HEAD + 8 * len(self._table.digests), self._table.status)

    def _write_at(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        """Write to the file, so that other hosts see it; False if it is gone."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)
        return True

    def close(self) -> None:
        """Release everything."""
        if self._is_held and self._forks == files.Process.forks:  # else it is the parent's
            files.remove(self.path)
        self._forget()

    def _forget(self) -> None:
        self._is_held = False
        heartbeat.drop(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _new_path(folder: str) -> str:
    return f"{folder}/{host_name()}-{os.getpid()}-{files.token()}{SUFFIX}"


def _head(owner: Owner) -> bytes:
    data = orjson.dumps(owner)
    if len(data) >= _HEAD:  # absurdly long names
        data = orjson.dumps({name: part for name, part in owner.items() if name != "job"} | {"user": "", "host": ""})
    return data.ljust(_HEAD - 1) + b"\n"


class _Others:
    """The claim of somebody else, as it was read."""

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.path = f"{folder}/{name}"
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            data = os.pread(descriptor, status.st_size, 0)
        finally:
            os.close(descriptor)
        self.beat = status.st_mtime_ns
        self.owner: Owner | None = None  # not known: its head is being written
        with contextlib.suppress(orjson.JSONDecodeError):
            found = orjson.loads(data[:_HEAD])
            if isinstance(found, dict) and isinstance(found.get("job", {}), dict):
                self.owner = found
        self.table = Table.read(data[_HEAD:])

    def give(self, digests: Digests) -> bool:
        """Release keys that are held, in the file too; False if none is left, or if it can't be written to."""
        table = Table(self.table.digests, bytearray(self.table.status))
        table.release(digests)
        try:
            with open(self.path, "r+b") as stream:
                stream.seek(_HEAD + 8 * len(table.digests))
                stream.write(table.status)
        except OSError:  # it is somebody else's
            return False
        return table.has_held()


def _holder(owner: Owner | None, path: str) -> str:
    """Who holds a claim, and how to end that, for messages."""
    who = "another process" if owner is None else describe(owner)
    way = "scancel it" if ((owner or {}).get("job") or {}).get("cluster") == "slurm" else "end it"
    return f"{who} (to break this, {way}, or if that is gone remove {path})"


class Left(NamedTuple):
    """What somebody has claimed who died before it was released."""

    owner: Owner
    table: Table

    def number(self, stored: Digests) -> int:
        """Of how many keys there is nothing, given the sorted digests of those that are stored."""
        return self.table.count() - len(self.table.held(stored))


class Waiting:
    """Keys that somebody else holds."""

    def __init__(self, claims: "FolderClaims", others: _Others, keys: list[str], digests: Digests) -> None:
        self.keys = keys
        self._claims = claims
        self._name = others.name
        self._owner = others.owner
        self._digests = digests

    @property
    def job(self) -> dict[str, Any] | None:
        """The record of the job that computes them, if it is one."""
        job: dict[str, Any] | None = (self._owner or {}).get("job")
        return job

    def names(self) -> set[str]:
        """Names of the claims that hold them."""
        return {self._name}

    def freed(self) -> list[str]:
        """The keys that are free since the last question: they were released, or their owner is dead."""
        held = self._claims.held(self._name, self._digests)
        if len(held) == len(self.keys):
            return []
        left = set(held)
        free = [key for place, key in enumerate(self.keys) if place not in left]
        self.keys = [self.keys[place] for place in held]
        self._digests = chosen(self._digests[place] for place in held)
        return free

    def __str__(self) -> str:
        return _holder(self._owner, f"{self._claims.folder}/{self._name}")


class FolderClaims:
    """The claims on the keys of a folder.

    Parameters
    ----------
    folder:
        The folder; it exists when something is claimed.
    lock:
        Name of a file in it that is locked while claims are made; of one that is there anyway, to have no more of them.
    is_over:
        Tells of a job, by its record, whether it has ended.
    permissions:
        Mode of new files.
    restore:
        Makes the folder again, if it was removed.
    """

    def __init__(
        self,
        folder: str,
        lock: str,
        is_over: Callable[[dict[str, Any]], bool],
        permissions: int | None = None,
        restore: Callable[[], object] | None = None,
    ) -> None:
        self.folder = folder
        self._lock = lock
        self._restore = restore
        self.permissions = permissions
        self.has_locks = True
        """Whether the file system has any; not known before something was claimed."""
        self.job: dict[str, Any] | None = None
        """The record of the job that this process is, if it is one: its end frees what it claims."""
        self._is_over = is_over
        self._beats: dict[str, tuple[int, float]] = {}  # of claims on other hosts, and since when they have not moved

    def claim(
        self, keys: Sequence[str], choose: Callable[[list[str]], Iterable[Sequence[str]]]
    ) -> tuple[list[Claim], list[Waiting]]:
        """Claim those of some keys that nobody holds, and that are wanted.

        Parameters
        ----------
        keys:
            The keys; none of them twice.
        choose:
            Given the keys that nobody holds, returns those to claim, in groups that make a claim each. Nobody else claims
            any while it decides.
        """
        digests = digests_of(keys)
        with self._locked():
            free, waiting = self._split(keys, digests)
            groups = choose(free)
            known: dict[str, int] = {}
            claims: list[Claim] = []
            try:
                for group in groups:
                    if group == keys:  # all, as usual
                        wanted = digests
                    else:
                        known = known or dict(zip(keys, digests, strict=True))
                        wanted = chosen(map(known.__getitem__, group))
                    claims.append(Claim.new(self.folder, group, wanted, self.permissions, self.job))
            except BaseException:
                for claim in claims:
                    claim.close()
                raise
        return claims, waiting

    def with_folder(self, keys: Sequence[str], create: Callable[[dict[str, bytes]], bool]) -> Claim | None:
        """Claim keys of a folder that is about to be created; see `Claim.with_folder`."""
        return Claim.with_folder(self.folder, keys, create)

    def adopt(self, path: str, keys: Sequence[str], job: dict[str, Any] | None) -> Claim | None:
        """Go on with a claim that was made for this process; None if others took its maker for dead, and it is gone."""
        with self._locked():  # or it might be removed just now
            return Claim.adopt(path, keys, job)

    def _split(self, keys: Sequence[str], digests: Digests) -> tuple[list[str], list[Waiting]]:
        """The keys that nobody holds, and the other keys."""
        names = self._names()
        if not names:
            return list(keys), []
        order, in_order = order_of(digests), ordered(digests)
        is_free = bytearray(b"\1") * len(keys)
        waiting = []
        for name in names:
            try:
                others = _Others(self.folder, name)
            except FileNotFoundError:
                continue
            hits = [order[place] for place in others.table.held(in_order)]
            if not hits and others.table.has_held():
                continue
            if not self._is_alive(others):  # nobody else changes it now
                self._take_over(others, chosen(digests[place] for place in hits))
            elif hits := [place for place in hits if is_free[place]]:
                for place in hits:
                    is_free[place] = False
                waiting.append(Waiting(self, others, [keys[place] for place in hits], chosen(digests[place] for place in hits)))
        return list(itertools.compress(keys, is_free)), waiting

    def _take_over(self, others: _Others, digests: Digests) -> None:
        """Free keys of somebody dead; what is left of the claim goes on to tell which ones nobody has come to."""
        owner = others.owner or {}
        job = owner.get("job")
        stays_dead = job != self.job if job else lives_here(owner) is False  # else it might hold them again
        if not (stays_dead and others.give(digests)):
            files.remove(others.path)

    def held(self, name: str, digests: Digests) -> list[int]:
        """Places, among some sorted digests, of those that are still held by a claim."""
        try:
            others = _Others(self.folder, name)
        except FileNotFoundError:
            return []
        held = others.table.held(digests)
        return held if held and self._is_alive(others) else []

    def look(self) -> tuple[Owner | None, list[Left]]:
        """Somebody who computes keys of the folder now, if somebody seems to, and what the dead left. Nothing is changed.

        By one look, a process of another host counts as dead if its claim was not touched for an hour by this host's clock: a
        good reason to say so, but none to remove anything.
        """
        holder: Owner | None = None
        left: list[Left] = []
        for others in self._held():
            if others is None:
                holder = holder or {}
            elif self._is_alive(others, is_first_look=True):
                holder = holder or others.owner or {}
            else:
                left.append(Left(others.owner or {}, others.table))
        return holder, left

    def owners(self) -> list[Owner]:
        """Those who have not released all that they claimed, alive or dead."""
        return [others.owner for others in self._held() if others is not None and others.owner is not None]

    def drop_dead(self) -> str | None:
        """Remove the claims of the dead; tells of somebody who may live, whose claim stays."""
        holder: str | None = None
        with self._locked():
            for others in self._held():
                if others is not None and not self._is_alive(others):
                    files.remove(others.path)
                elif holder is None:
                    holder = _UNREADABLE if others is None else _holder(others.owner, others.path)
        return holder

    @contextlib.contextmanager
    def quiet(self) -> Iterator[str | None]:
        """A block in which nobody claims anything; tells of somebody who may compute keys of the folder now."""
        with self._locked():
            living = (others for others in self._held() if others is None or self._is_alive(others))
            yield next((_UNREADABLE if others is None else _holder(others.owner, others.path) for others in living), None)

    def _held(self) -> Iterator[_Others | None]:
        """The claims that are not released altogether; None for one that can't be read."""
        for name in sorted(self._names()):
            try:
                others = _Others(self.folder, name)
            except FileNotFoundError:
                continue
            except OSError:  # it is somebody else's
                yield None
                continue
            if others.table.has_held():
                yield others

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = f"{self.folder}/{self._lock}"
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self._restore is not None:
                    self._restore()
                    continue
                raise unwritable(self.folder, self._lock, error) from error
            try:
                self._lock_file(descriptor)
                if not _is_at(descriptor, path):  # it was replaced meanwhile, or its folder was
                    continue
                yield
                return
            finally:
                with contextlib.suppress(OSError):  # a process that was forked meanwhile has it open, too
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _lock_file(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise unwritable(self.folder, self._lock, error) from error
            self.has_locks = False
            msg = f"the file system of {self.folder} has no locks: callers that start at the same moment may both compute"
            user_warnings.warn(msg)

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []

    def _is_alive(self, others: _Others, *, is_first_look: bool = False) -> bool:
        """Whether an owner still works on what it claimed, as far as can be told; by one look alone if this is the first."""
        owner = others.owner
        if owner is None:
            return self._beats_on(others, is_first_look=is_first_look)
        if owner.get("job") and owner["job"] != self.job:
            return not self._is_over(owner["job"])
        if is_mine(owner):  # what an interruption left behind is nobody's
            return heartbeat.has(others.path)
        alive = lives_here(owner)
        if owner.get("job"):  # this one, which may have been started again, elsewhere
            return alive is True
        return self._beats_on(others, is_first_look=is_first_look) if alive is None else alive

    def _beats_on(self, others: _Others, *, is_first_look: bool) -> bool:
        if is_first_look and time() - others.beat / 1e9 > GONE_S:
            return False
        now = monotonic()
        beat, since = self._beats.get(others.name, (None, now))
        if beat != others.beat:
            self._beats[others.name] = (others.beat, now)
            return True
        return now - since < LOST_S
