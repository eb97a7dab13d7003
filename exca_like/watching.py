"""The code that results depend on: what is to be done when it changes, what is watched beside it, and what is kept of it."""

import collections
import functools
import inspect
import os
import time
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, get_args

import orjson

from exca_like import content, files, layout, sources, user_warnings
from exca_like.code.fingerprint import Fingerprint, confirmed, fingerprint
from exca_like.code.modules import Source, find, import_name, note_loaded
from exca_like.code.packages import Precision
from exca_like.code.symbols import Symbol
from exca_like.content.parts import SCALARS
from exca_like.errors import CodeChangedError, CodeChangedWarning, InfraTypeError, InfraUsageError, InfraValueError

CodePolicy = Literal["ignore", "warn", "recompute"]
"""What is done with a result that other code has computed: it is taken; taken with a warning; or not taken."""

_CODE, _PACKAGES = b"EXCA_LIKE_CODE", b"EXCA_LIKE_CODE_PACKAGES"
_MOST = 1024  # states of one function that are remembered
_SHOWN = 6  # names of changed code in a message
_RENEWED_S = 1.0  # after which it is looked again whether a record is still there
_kept: dict[str, float] = {}  # when it was looked for records
_told: set[tuple[str, str, str]] = set()  # what was warned of in this process


class CodeState(NamedTuple):
    """The code of a method at a time, with the values of what is watched."""

    digest: str
    """16 hex digits that stand for all of it."""
    fingerprint: Fingerprint
    watched: Mapping[str, str]
    """Digests of watched values, by name."""


def policy_of(own: CodePolicy | None, default: CodePolicy) -> CodePolicy:
    """What is done about changed code: what an infra says, else the setting ``code``, else a default."""
    return own or _setting("code", sources.variable(_CODE)) or default


def precision() -> Precision:
    """How precisely versions of packages count, by the setting ``code_packages``."""
    return _setting("code_packages", sources.variable(_PACKAGES)) or "major"


@functools.lru_cache(64)
def _setting(name: str, variable: str | None) -> Any:  # noqa: ARG001 - another variable is another answer
    """A setting, which is read once: each call asks for it."""
    return sources.tool_setting(name)


class Watch:
    """The code of a method or function.

    Parameters
    ----------
    function:
        The function.
    things:
        What can't be found by reading its source: functions and classes, and names of variables of its module, like
        ``"LIMIT"`` or ``"module.LIMIT"``, whose values are looked at in each call. So are the arguments of partials.

    Raises
    ------
    TypeError
        A thing is neither.
    """

    def __init__(self, function: Any, things: Any = ()) -> None:
        if isinstance(things, str) or not isinstance(things, Iterable):
            msg = f"watch={things!r}: give a list, even for one thing, like watch=[{things!r}]"
            raise InfraTypeError(msg)
        note_loaded(getattr(function, "__module__", None))  # which is being imported now
        self.function = function
        self.names: list[str] = []
        self._partials: dict[str, functools.partial[Any]] = {}
        self._functions: list[Any] = [function]
        for thing in things:
            if isinstance(thing, str):
                if not all(part.isidentifier() for part in thing.split(".")):
                    msg = f"watch names {thing!r}, which is no name of a variable, like 'LIMIT' or 'settings.LIMIT'"
                    raise InfraTypeError(msg)
                self.names.append(thing)
            elif callable(thing):
                self._functions.append(thing)
                if isinstance(thing, functools.partial):
                    self._functions += roots_in([*thing.args, *thing.keywords.values()])
                    name = getattr(thing.func, "__qualname__", type(thing.func).__qualname__)
                    self._partials[f"partial {len(self._partials) + 1}: {name}"] = thing
            else:
                msg = (
                    f"watch has {thing!r:.100}: give functions or classes whose code counts, and names of variables (as texts) "
                    "whose values do"
                )
                raise InfraTypeError(msg)
        self._states: dict[tuple[Precision, tuple[type[Any], ...]], CodeState] = {}

    def roots(self, more: Sequence[Any] = ()) -> list[Any]:
        """The functions and classes whose code counts; ``more`` are those of a call."""
        return [*self._functions, *more]

    def state(self, more: Sequence[Any] = ()) -> CodeState:
        """The code as this process has loaded it now."""
        return self._with_values(fingerprint(self.roots(more), precision()))

    def state_with(self, classes: tuple[type[Any], ...]) -> CodeState:
        """The same, with the code of some classes, in a shorter way."""
        key = (precision(), classes)
        known = self._states.get(key)
        if known is None or self.names or self._partials or not known.fingerprint.is_current():
            if len(self._states) >= _MOST:
                self._states.clear()
            known = self._states[key] = self.state(classes)
        return known

    def _with_values(self, found: Fingerprint) -> CodeState:
        if not self.names and not self._partials:
            return CodeState(found.digest, found, {})
        watched = {name: content.digest(self._value(name)).hex() for name in self.names}
        for name, partial in self._partials.items():
            watched[name] = content.digest((partial.args, partial.keywords)).hex()
        joined = blake2b(found.digest.encode(), digest_size=8)
        for name, digest in watched.items():
            joined.update(f";{name}={digest}".encode())
        return CodeState(joined.hexdigest(), found, watched)

    def _value(self, name: str) -> Any:
        function = inspect.unwrap(self.function)
        first, *others = name.split(".")
        try:
            value = function.__globals__[first]
            for part in others:
                value = getattr(value, part)
        except (KeyError, AttributeError):
            msg = (
                f"{function.__qualname__} watches {name!r}, but {function.__module__} has no such variable: correct watch=[...]"
            )
            raise InfraUsageError(msg) from None
        return value

    def confirmed(self, sent: CodeState, more: Sequence[Any] = ()) -> CodeState:
        """The code that was sent to this process by another one, as it is here."""
        found = confirmed(sent.fingerprint, self.roots(more))
        try:
            state = self._with_values(found)
        except InfraUsageError:  # of a script, only the variables that its functions name were sent
            state = CodeState(sent.digest if found is sent.fingerprint else found.digest, found, sent.watched)
        return sent if state.digest == sent.digest else state


def roots_in(value: Any) -> Iterator[Any]:
    """Functions and classes whose code a result depends on, if it is made from a value."""
    left, seen = [value], set()
    while left:
        value = left.pop()
        kind = type(value)
        if kind in SCALARS or id(value) in seen:
            continue
        seen.add(id(value))
        inside: list[Any] = []
        if isinstance(value, type | types.FunctionType):
            yield value
        elif isinstance(value, types.MethodType):
            yield value
            inside = [value.__self__]
        elif isinstance(value, functools.partial):
            inside = [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, staticmethod):  # a memoised function
            yield value.__func__
        elif isinstance(value, Mapping):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset | collections.deque):
            inside = list(value)
        if _is_own_class(kind):  # type: ignore[arg-type] # every class has a hash
            yield kind
            inside += getattr(value, "__dict__", {}).values()
            slots = [name for base in kind.__mro__ for name in base.__dict__.get("__slots__", ())]
            inside += [getattr(value, name) for name in slots if name[:2] != "__" and hasattr(value, name)]
        if inside and not set(map(type, inside)) <= SCALARS.keys():
            left += inside


@functools.lru_cache(4096)
def _is_own_class(kind: type) -> bool:
    return isinstance(find(import_name(kind.__module__)), Source) or kind.__module__ == "__main__"


# what is kept, beside results


def keep(root: str, state: CodeState, permissions: int | None = None) -> None:
    """Write what is known of code to an infra's folder, unless it is there; a failure costs this record alone."""
    path = layout.code_record(root, state.digest)
    now = time.monotonic()
    if now - _kept.get(path, -_RENEWED_S) < _RENEWED_S:  # it is asked for with each result
        return
    _kept[path] = now
    if os.path.exists(path):
        return
    found = state.fingerprint
    data = {
        "symbols": {label: [symbol.digest, symbol.text] for label, symbol in found.symbols.items()},
        "packages": dict(found.packages),
        "precision": found.precision,
        "own": found.own,
        "watched": dict(state.watched),
    }
    try:
        text = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a text that is no Unicode
        return
    try:
        try:
            files.write_atomic(path, text, permissions)
        except FileNotFoundError:
            files.make_folders(os.path.dirname(path), permissions, above=root)
            files.write_atomic(path, text, permissions)
    except OSError:
        return


def read(root: str, digest: str) -> CodeState | None:
    """What was kept of code; None if there is nothing, or if it is damaged."""
    try:
        data = orjson.loads(files.read_bytes(layout.code_record(root, digest)))
        symbols = {label: Symbol(*symbol) for label, symbol in data["symbols"].items()}
        return CodeState(digest, Fingerprint(symbols, data["packages"], data["precision"], own=data["own"]), data["watched"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class Change(NamedTuple):
    """A piece of code that is not what it was."""

    name: str
    how: str
    before: str = ""
    after: str = ""


def changes(before: CodeState, now: CodeState) -> list[Change]:
    """What differs between two states of code."""
    found = []
    first, second = before.fingerprint.symbols, now.fingerprint.symbols
    for name in sorted(first.keys() | second.keys()):
        old, new = first.get(name), second.get(name)
        if old is None and new is not None:
            found.append(Change(name, "is used now", "", new.text))
        elif new is None and old is not None:
            found.append(Change(name, "is not used any more", old.text, ""))
        elif old is not None and new is not None and old.digest != new.digest:
            found.append(Change(name, "was changed", old.text, new.text))
    versions, present = before.fingerprint.versions, now.fingerprint.versions
    for name in sorted(versions.keys() & present.keys()):
        if versions[name] != present[name]:
            old_version, new_version = before.fingerprint.packages[name], now.fingerprint.packages[name]
            found.append(Change(name, f"was version {old_version}, and is {new_version} now", old_version, new_version))
    watched = sorted(name for name, digest in before.watched.items() if now.watched.get(name, digest) != digest)
    found += [Change(name, "(watched) has another value now") for name in watched]
    order = ("was changed", "was version")
    return sorted(found, key=lambda change: not change.how.startswith(order))


def names_of(found: Sequence[Change]) -> str:
    """Some changes in a line."""
    shown = [f"{change.name} {change.how}" for change in found[:_SHOWN]]
    return ", ".join(shown) + (f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def warn(label: str, roots: Iterable[str], stored: str, now: CodeState) -> None:
    """Warn, once in a process, that a result from the cache, in one of some infras' folders, was computed by other code."""
    method = label.partition("/")[0]
    if (method, stored, now.digest) in _told:
        return
    _told.add((method, stored, now.digest))
    before = next((state for root in roots if (state := read(root, stored)) is not None), None)
    found = [] if before is None else changes(before, now)
    if before is not None and not found:
        return
    what = names_of(found) if found else "how is not known any more, as the record of that code is gone"
    msg = (
        f"{label} is taken from the cache, though the code that it depends on has changed since it was computed: {what}. "
        "explain() shows how. If it makes a difference, compute again with mode='force', or give another version; "
        "code='recompute' does so by itself, code='ignore' says nothing."
    )
    user_warnings.warn(msg, CodeChangedWarning)


def check_same(label: str, sent: CodeState, here: CodeState) -> None:
    """Raise if code that is part of a key is another one where it is to be run.

    Raises
    ------
    CodeChangedError
        It is.
    """
    if sent.digest != here.digest:
        msg = (
            f"{label} was submitted with other code than this job has found: {names_of(changes(sent, here))}. It was changed "
            "while the job was waiting, so that its result would be taken for that of the older code. Submit again, and use a "
            "workdir to let jobs run with a copy of the code as it is when they are submitted."
        )
        raise CodeChangedError(msg)


def check_policy(code: Any) -> None:
    """Raise unless it is a `CodePolicy`, or None.

    Raises
    ------
    ValueError
        It is not.
    """
    if code is not None and code not in get_args(CodePolicy):
        msg = f"code={code!r} must be one of {', '.join(map(repr, get_args(CodePolicy)))}, or None for the setting"
        raise InfraValueError(msg)
