"""Results and errors of computations, one file for each.

A file is written whole and replaced atomically. It starts with a fixed header (kind, lengths, checksum), then come
the entry's information as json (its config, when and where it was computed) and the pickled value or error. A file
that fails its checks is reported once and counts as missing.
"""

import contextlib
import datetime
import json
import os
import pickle
import struct
import time
import types
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from exca_like import files, pickling
from exca_like.errors import CacheFolderError, ConfigTypeError, CorruptEntryWarning, RemoteError, ResultLoadError
from exca_like.layout import EntryFolder

Kind = Literal["value", "failure"]

# magic with format number, kind, length and checksum of the information, length and checksum of the content
_HEADER = struct.Struct("<8scIIQI")
_MAGIC = b"exca-en1"
_READ_AHEAD = 4096
_CODES: dict[bytes, Kind] = {b"V": "value", b"F": "failure"}


@dataclass(frozen=True)
class Failure:
    """An error as it is stored: what it was, and the exception itself if it can be pickled.

    ``reason`` is ``"error"`` for an exception of the user's code, else why the job ended.
    """

    type: str
    message: str
    traceback: str
    reason: str = "error"
    pickled: bytes | None = None

    @classmethod
    def of(cls, error: BaseException, reason: str = "error") -> "Failure":
        """Describe an exception; its cause and context go into the text of the traceback."""
        import traceback  # only when something went wrong

        kind = type(error)
        text = "".join(traceback.format_exception(kind, error, _user_frames(error.__traceback__)))
        return cls(f"{kind.__module__}.{kind.__qualname__}", str(error), text, reason, _pickled_exception(error))

    def exception(self) -> BaseException:
        """The exception to raise: the original, or a `RemoteError` in its place, with the traceback as a note."""
        error: BaseException | None = None
        if self.pickled is not None:
            try:
                error = pickle.loads(self.pickled)
            except Exception:  # its class may be gone or need arguments: the text is still there
                error = None
        if not isinstance(error, Exception):  # raising a SystemExit would end the caller's process
            error = RemoteError(f"{self.type}: {self.message}")
        if self.reason == "error":
            error.add_note(f"\nTraceback of the computation:\n{self.traceback}")
        return error


class Outcome(NamedTuple):
    """What a computation left: a value, or a failure (then ``value`` is None)."""

    value: Any = None
    failure: Failure | None = None

    def get(self) -> Any:
        """The value; raises the error if there was one."""
        if self.failure is not None:
            raise self.failure.exception()
        return self.value


class Store(Protocol):
    """Values and failures by key, as the engine needs them."""

    def peek(self, key: str) -> Kind | None:
        """What there is for a key, without loading it."""
        ...

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one."""
        ...

    def save(self, key: str, outcome: Outcome, information: dict[str, Any]) -> None:
        """Store an outcome, in place of an older one."""
        ...

    def discard(self, key: str) -> None:
        """Forget a key."""
        ...

    def replaced(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Forget a key, unless the block raises."""
        ...


@dataclass
class FolderStore:
    """Store in the folder of a config: one file for each key."""

    folder: EntryFolder
    config: Callable[[], dict[str, Any]]
    _reported: set[str] = field(default_factory=set)

    def peek(self, key: str) -> Kind | None:
        """What there is for a key, without loading it."""
        path = self.folder.entry(key)
        try:
            with open(path, "rb") as stream:
                header = stream.read(_HEADER.size)
                size = os.fstat(stream.fileno()).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(header) == _HEADER.size:
            magic, code, n_information, _, n_content, _ = _HEADER.unpack(header)
            if magic == _MAGIC and size == _HEADER.size + n_information + n_content:
                return _CODES.get(code)
        self._report(path, "it is cut short or no entry at all")
        return None

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one and it passes its checks."""
        path = self.folder.entry(key)
        try:
            data = files.read_bytes(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        parsed = _parse(data)
        if parsed is None:
            self._report(path, "its content does not match its checksum")
            return None
        code, content = parsed
        try:
            loaded = pickle.loads(content)
        except Exception as error:  # the bytes are what was stored: something is missing here
            msg = (
                f"the result in {path} can't be loaded here: {type(error).__name__}: {error}. Make what it needs importable "
                "in this process; or compute it again, with mode='force'."
            )
            raise ResultLoadError(msg) from error
        return Outcome(failure=loaded) if code == b"F" else Outcome(loaded)

    def save(self, key: str, outcome: Outcome, information: dict[str, Any]) -> None:
        """Store an outcome, in place of an older one.

        Raises
        ------
        TypeError
            The value can't be pickled.
        CacheFolderError
            The file can't be written; what was there before is still there.
        """
        content = _pickled(outcome.value if outcome.failure is None else outcome.failure, self.folder.uid)
        head = json.dumps({**information, "config": self.config()}).encode()  # configs may hold NaN, unlike orjson's json
        code = b"V" if outcome.failure is None else b"F"
        header = _HEADER.pack(_MAGIC, code, len(head), zlib.crc32(head), len(content), zlib.crc32(content))
        path = self.folder.entry(key)
        try:
            files.write_atomic(path, b"".join((header, head, content)))
        except OSError as error:
            msg = (
                f"can't store the result in {path}: {error.strerror or error}. "
                "Check the space left and the permissions; earlier results are untouched."
            )
            raise CacheFolderError(error.errno, msg) from error
        self._reported.discard(path)

    def discard(self, key: str) -> None:
        """Forget a key."""
        files.remove(self.folder.entry(key))

    @contextlib.contextmanager
    def replaced(self, key: str) -> Iterator[None]:
        """Forget a key, unless the block raises."""
        path = self.folder.entry(key)
        aside = files.move_aside(path)
        try:
            yield
        except BaseException:
            files.bring_back(aside, path)
            raise
        files.remove(aside)

    def _report(self, path: str, problem: str) -> None:
        if path not in self._reported:
            self._reported.add(path)
            msg = f"ignoring {path}: {problem}. It will be computed again when asked for."
            warnings.warn(msg, CorruptEntryWarning, stacklevel=3)


@dataclass
class MemoryStore:
    """Store of an infra without a folder."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def peek(self, key: str) -> Kind | None:
        """What there is for a key."""
        outcome = self.outcomes.get(key)
        return None if outcome is None else "value" if outcome.failure is None else "failure"

    def load(self, key: str) -> Outcome | None:
        """The outcome of a key, if there is one."""
        return self.outcomes.get(key)

    def save(self, key: str, outcome: Outcome, information: dict[str, Any]) -> None:  # noqa: ARG002 - see Store
        """Keep an outcome, in place of an older one."""
        self.outcomes[key] = outcome

    def discard(self, key: str) -> None:
        """Forget a key."""
        self.outcomes.pop(key, None)

    @contextlib.contextmanager
    def replaced(self, key: str) -> Iterator[None]:
        """Forget a key, unless the block raises."""
        outcome = self.outcomes.pop(key, None)
        try:
            yield
        except BaseException:
            if outcome is not None:
                self.outcomes.setdefault(key, outcome)
            raise


def read_information(path: str) -> dict[str, Any] | None:
    """The information of an entry file (its ``config``, when, where and how long it was computed), if it is sound."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(_READ_AHEAD)
            magic, _, length, checksum, _, _ = _HEADER.unpack_from(start)
            head = start[_HEADER.size : _HEADER.size + length]
            head += stream.read(length - len(head))
        sound = magic == _MAGIC and zlib.crc32(head) == checksum
        information: dict[str, Any] | None = json.loads(head) if sound else None
    except (OSError, struct.error, ValueError):
        return None
    return information


def make_information(started: float) -> dict[str, Any]:
    """Time (ISO, with its zone), duration in seconds, and place of a computation that ends now."""
    now = time.time()
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="milliseconds")
    return {"time": moment, "duration": round(now - started, 6), "host": _HOST, "pid": os.getpid()}


_HOST = os.uname().nodename
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _user_frames(tb: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback from its first frame outside this package on."""
    first = tb
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        first = first.tb_next
    return first or tb


def _unreadable(path: str, error: OSError) -> CacheFolderError:
    return CacheFolderError(error.errno, f"can't read {path}: {error.strerror}. Check its permissions and the file system.")


def _parse(data: bytes) -> tuple[bytes, memoryview] | None:
    if len(data) < _HEADER.size:
        return None
    magic, code, n_information, _, n_content, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC or code not in _CODES or len(data) != _HEADER.size + n_information + n_content:
        return None
    content = memoryview(data)[_HEADER.size + n_information :]
    return (code, content) if zlib.crc32(content) == checksum else None


def _pickled(value: Any, uid: str) -> bytes:
    try:
        return pickling.dumps(value)
    except Exception as error:
        msg = (
            f"the result of {uid}, a {type(value).__module__}.{type(value).__qualname__}, can't be stored: {error}. "
            "Return data instead (numbers, strings, arrays, containers of them), or run without a folder."
        )
        raise ConfigTypeError(msg) from error


def _pickled_exception(error: BaseException) -> bytes | None:
    try:
        dumped = pickling.dumps(error)
        # some exceptions pickle, but don't unpickle
        return dumped if isinstance(pickle.loads(dumped), BaseException) else None
    except Exception:
        return None
