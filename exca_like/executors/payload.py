"""Calls as they are sent to jobs: pickled, with what is large and shared by several of them in files of its own.

A large array on a config would otherwise be sent once for each job of an array. Shared parts lie in ``shared/`` beside the
logs, named by a digest of their content, so that the next submission finds them, too.
"""

import contextlib
import inspect
import io
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cloudpickle

from exca_like import files, layout
from exca_like.errors import CorruptEntryError, SubmissionError
from exca_like.executors.base import Resources
from exca_like.executors.elsewhere import check_code, put_first
from exca_like.names import qualified_name

logger = logging.getLogger(__name__)

SHARED_FROM = 1_000_000  # bytes
_WARN_FROM = 50_000_000  # bytes
_SHOWN = 4  # attributes


@dataclass(frozen=True)
class Payload:
    """A pickled call, the folder of the shared parts it refers to, and the folders that its modules come from first."""

    data: bytes
    folder: str
    import_path: tuple[str, ...] = ()

    def __call__(self) -> Any:
        """Run the call."""
        put_first(self.import_path)
        return self.load()()

    def load(self) -> Any:
        """The call."""
        return _Unpickler(io.BytesIO(self.data), self.folder).load()


def payloads(calls: Sequence[Callable[[], Any]], folder: Path, resources: Resources) -> list[Payload]:
    """Pickle the calls of one submission.

    Parameters
    ----------
    calls:
        What jobs are to run. An ``owner`` that several have in common is pickled once.
    folder:
        Where shared parts go.
    resources:
        A limit for all of it together, and where jobs import from.

    Raises
    ------
    SubmissionError
        A call can't be pickled, or all together are larger than the limit.
    """
    shared = _Shared(folder, calls)
    made = [Payload(shared.pickled(call), str(folder), resources.import_path) for call in calls]
    if resources.python is not None:
        check_code([*(payload.data for payload in made), *shared.parts], resources.python)
    sizes = [len(payload.data) for payload in made]
    size = sum(map(len, shared.parts)) + sum(sizes)
    max_size_gb = resources.max_pickle_size_gb
    if max_size_gb is not None and size > max_size_gb * 1e9:
        msg = (
            f"{len(calls)} job(s) take {size / 1e9:.3g} GB when pickled, more than max_pickle_size_gb={max_size_gb}: "
            f"{_heaviest(calls, sizes)}. "
            "Load big data inside the method instead of keeping it on the config, or raise the limit."
        )
        raise SubmissionError(msg)
    if size > _WARN_FROM:
        logger.warning(
            "%d job(s) take %s along: %s. Load big data inside the method instead of keeping it on the config.",
            len(calls),
            _text(size),
            _heaviest(calls, sizes),
        )
    shared.write()
    return made


def shared_folder(logs: str) -> Path:
    """Where the shared parts of jobs lie, whose logs are in ``logs`` (with ``%j`` for the job)."""
    return Path(layout.logs_root(logs), "shared")


class _Shared:
    """Parts that are pickled once for all calls of a submission."""

    def __init__(self, folder: Path, calls: Sequence[Any]) -> None:
        self._folder = folder
        owners = Counter(id(call.owner) for call in calls if hasattr(call, "owner"))
        self._owners = {owner for owner, number in owners.items() if number > 1}
        self._numbers: Counter[str] = Counter()  # of different objects with the same content
        # with the objects, whose ids must not be given to others
        self._seen: dict[int, tuple[Any, tuple[str, int] | None]] = {}
        self._parts: dict[str, bytes] = {}

    @property
    def parts(self) -> Collection[bytes]:
        """The pickled parts."""
        return self._parts.values()

    def pickled(self, value: Any) -> bytes:
        """Pickle a value, without its shared parts."""
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, self).dump(value)
        except SubmissionError:
            raise
        except Exception as error:
            msg = f"the config can't be pickled to be sent to a job: {error}"
            raise SubmissionError(msg) from error
        return buffer.getvalue()

    def name_of(self, value: Any) -> tuple[str, int] | None:
        """Name of a shared part, and which of the equal objects it is; None for what is no such."""
        is_owner = id(value) in self._owners
        if not is_owner and _size(value) < SHARED_FROM:
            return None
        if id(value) not in self._seen:
            self._seen[id(value)] = value, None  # while it is pickled itself
            data = self.pickled(value)
            part = None
            if len(data) >= SHARED_FROM:
                name = _digest(data)
                part = name, self._numbers[name]
                self._numbers[name] += 1
                self._parts[name] = data
            self._seen[id(value)] = value, part
        return self._seen[id(value)][1]

    def write(self) -> None:
        """Write the parts that are not there, or not whole."""
        for name, data in self._parts.items():
            path = self._folder / name
            if not path.exists() or path.stat().st_size != len(data):
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_atomic(str(path), data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, buffer: io.BytesIO, shared: _Shared) -> None:
        super().__init__(buffer)
        self._name_of = shared.name_of

    def persistent_id(self, obj: Any) -> tuple[str, int] | None:
        return self._name_of(obj)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, folder: str) -> None:
        super().__init__(stream)
        self._folder = folder
        self._loaded: dict[tuple[str, int], Any] = {}

    def persistent_load(self, pid: tuple[str, int]) -> Any:
        if pid not in self._loaded:
            path = Path(self._folder, pid[0])
            data = path.read_bytes()
            if _digest(data) != pid[0]:
                msg = f"{path}, which this job needs, is damaged: remove it, and submit again"
                raise CorruptEntryError(msg)
            nested = _Unpickler(io.BytesIO(data), self._folder)
            nested._loaded = self._loaded
            self._loaded[pid] = nested.load()
        return self._loaded[pid]


def _size(value: Any) -> int:
    """Bytes of a buffer of data; 0 for anything else, which is not looked into."""
    kind = type(value)
    if kind is bytes or kind is bytearray or kind is str:
        return len(value)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and value.dtype != object:
        return int(value.nbytes)
    return 0


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _heaviest(calls: Sequence[Any], sizes: Sequence[int]) -> str:
    """The largest attributes of the largest of some calls, in words; sizes are without what is shared."""
    place = max(range(len(calls)), key=sizes.__getitem__)
    total = _pickled_size(calls[place])
    found: list[tuple[int, str, Any]] = []
    todo: list[tuple[str, Any, int]] = [("", calls[place], total)]
    seen: set[int] = set()
    while todo:
        path, value, size = todo.pop()
        parts = [(name, part, _pickled_size(part)) for name, part in parts_of(value) if id(part) not in seen]
        seen.update(id(part) for _, part, _ in parts)
        large = [(f"{path}.{name}" if path else name, part, own) for name, part, own in parts if own > total / 5]
        if large:
            todo += large
        elif path:
            found.append((size, path, value))
    found.sort(key=lambda entry: -entry[0])
    shown = [
        f"{path.removeprefix('owner.')} {_text(size)} ({qualified_name(type(value)).removeprefix('builtins.')})"
        for size, path, value in found[:_SHOWN]
    ]
    return f"the heaviest parts of one are {', '.join(shown)}" if shown else f"the largest has {_text(total)}"


def _pickled_size(value: Any) -> int:
    try:
        return _size(value) or len(cloudpickle.dumps(value))
    except Exception:
        return 0


def _text(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, by name: items, attributes, the variables that a function uses."""
    with contextlib.suppress(Exception):  # a value that can't be looked into has no parts
        if isinstance(value, Mapping):
            yield from ((str(key), item) for key, item in value.items())
        elif isinstance(value, list | tuple | set | frozenset):
            yield from ((str(index), item) for index, item in enumerate(value))
        elif isinstance(value, type):  # of a script, which is pickled with its methods
            members = {name: inspect.unwrap(getattr(member, "__func__", member)) for name, member in list(vars(value).items())}
            yield from ((name, member) for name, member in members.items() if inspect.isfunction(member))
        elif inspect.isfunction(value):
            variables = inspect.getclosurevars(inspect.unwrap(value))
            yield from (*variables.nonlocals.items(), *variables.globals.items())
        else:
            yield from getattr(value, "__dict__", {}).items()
            yield from (getattr(value, "__pydantic_private__", None) or {}).items()
            slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
            yield from ((name, getattr(value, name)) for name in slots if not name.startswith("__") and hasattr(value, name))
            yield "__class__", type(value)
