"""What failed, grouped by what the failures have in common."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exca_like.cachedict.failures import Failure
from exca_like.executors.base import JobHandle, said_at_end
from exca_like.infra.status import HINTS
from exca_like.tables import WIDTH

_SHOWN_UIDS = 5
_MORE = ("timeout", "out of memory")  # reasons that are mended by asking for more
_FRAME = re.compile(r'^[ |+-]*File "(?P<file>.+)", line (?P<line>\d+), in ', re.MULTILINE)
_LAST_PART = re.compile(r"^Traceback \(most recent call last\):$", re.MULTILINE)
_LIBRARY = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python\d[\d.]*)[/\\]|^<frozen ")
_OWN = "exca_like.errors."
# what differs between messages that say the same: paths in quotes, other paths, then hex numbers and all others
_QUOTED_PATH = re.compile(r"""(?<!\w)(['"])[^'"]*/[^'"]*\1""")
_PATH = re.compile(r"(?<![\w.~-])(?:[\w.~-]*/)+[\w.~-]*")
_DECIMAL = r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"0x[0-9a-fA-F]+|{_DECIMAL}(?![0-9a-zA-Z])|\b(?=[a-f]*\d)[0-9a-f]+\b|{_DECIMAL}")
_COMPARED = 10_000  # characters of a message


@dataclass(frozen=True)
class FailureGroup:
    """Failures that are the same but for numbers and paths in their messages."""

    type: str
    """Name of the exception's class, without ``builtins.``."""
    message: str
    """The message of the first one."""
    where: str
    """File and line that raised it, as ``"train.py:81"``: the innermost that is of no library; empty if there is none."""
    reason: str
    """``"error"`` for an exception of the method; else how the job ended, like ``"timeout"``."""
    traceback: str
    """The traceback of the first one, in full; empty for a job that ended without an exception of the method."""
    uids: tuple[str, ...]
    """Whose failures they are."""
    said: str = ""
    """Of jobs that left no result, what the first one said last."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.uids)

    def __str__(self) -> str:
        return f"{self.count} × {self._what()}"

    def _what(self) -> str:
        if self.reason == "error":
            name, message = self.type.rpartition(".")[2], " ".join(self.message.split())
            return f"{name}{f' at {self.where}' if self.where else ''}{f': {message}' if message else ''}"
        if self.reason in _MORE:
            return f"{self.reason} ({HINTS[self.reason]})"
        return f"{self.reason}: {self.said}" if self.said else self.reason


def failure_of_job(handle: JobHandle) -> Failure | None:
    """How a job failed that left no result, as far as its cluster and its log tell; None while it goes on."""
    ended = handle.ended()
    if ended is None:
        return None
    said = f"job {handle.job_id} ended without a result: {ended.reason}\n{said_at_end(handle, ended)}"
    return Failure("exca_like.errors.JobError", said.strip(), "", ended.reason)


class FailureReport:
    """What failed: failures with the same traceback make one group, the largest first. A report for people when printed.

    Two are the same if the type of the exception and all files and lines of the traceback are, and the messages differ in
    nothing but numbers and paths. Jobs that ended without an exception of the method (out of time, out of memory, lost) are
    grouped by how they ended.

    Parameters
    ----------
    failures:
        Uids, and how each failed.
    total:
        How many there are with those that did not fail; None if that is not known.
    lost:
        Of each that was lost, and so counts as not submitted, how its job ended.
    """

    groups: Sequence[FailureGroup]
    """The groups, the largest first."""
    lost: int
    """How many more were lost."""

    def __init__(self, failures: Iterable[tuple[str, Failure]], total: int | None = None, lost: Iterable[str] = ()) -> None:
        found: dict[tuple[object, ...], list[tuple[str, Failure]]] = {}
        self._failures = list(failures)
        for uid, failure in self._failures:
            found.setdefault(_key(failure), []).append((uid, failure))
        self.groups = sorted(map(_group, found.values()), key=lambda group: -group.count)
        self._total = total
        self._lost = list(lost)
        self.lost = len(self._lost)

    def each(self) -> list[tuple[str, str]]:
        """Uids, and how each failed, in a line."""
        return [(uid, _group([(uid, failure)])._what()) for uid, failure in self._failures]

    def __len__(self) -> int:
        """The number of failures, all groups together."""
        return sum(group.count for group in self.groups)

    def __str__(self) -> str:
        return self.text()

    def text(self, uids: int | None = None) -> str:
        """The report, with so many uids of each group, or with all (0); None: with a few, of not too many groups."""
        lines = [self._title()]
        for number, group in enumerate(self.groups):
            lines.append(f"  {_cut(str(group))}")
            if number == 0 or len(self.groups) <= _SHOWN_UIDS or uids is not None:
                lines += [
                    f"      {uid}" for uid in _first(group.uids, _SHOWN_UIDS if uids is None else uids or len(group.uids))
                ]
        for name, title in (("traceback", "Traceback"), ("message", "What is known")):
            found = next(((number, group) for number, group in enumerate(self.groups) if getattr(group, name)), None)
            if found is not None:
                whose = f"of {found[1].uids[0]}" if found[0] else "of the first"
                lines += ["", f"{title} {whose}:", "", getattr(found[1], name).rstrip()]
                break
        if self.lost:
            lines += ["", self.of_lost()]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        escape = html.escape
        parts = [f"<p>{escape(self._title())}</p>"]
        for group in self.groups:
            uids = "".join(f"<li><code>{escape(uid)}</code></li>" for uid in _first(group.uids))
            text = escape(group.traceback or group.message)
            parts.append(f"<details><summary>{escape(str(group))}</summary><ul>{uids}</ul><pre>{text}</pre></details>")
        return "".join([*parts, f"<p>{escape(self.of_lost())}</p>" if self.lost else ""])

    def of_lost(self) -> str:
        """What was lost, and how, in a line; empty if nothing was."""
        if not self.lost:
            return ""
        ways: dict[str, list[str]] = {}
        for how in self._lost:
            ways.setdefault(_without_numbers(how), []).append(how)
        largest = sorted(ways.values(), key=len, reverse=True)
        shown = [f"{len(way)} × {way[0] or 'gone'}" for way in largest[:_SHOWN_UIDS]]
        more = [f"{sum(map(len, largest[_SHOWN_UIDS:]))} in other ways"] if len(largest) > _SHOWN_UIDS else []
        memory = " A SIGKILL may mean that memory ran out." if any("SIGKILL" in how for how in self._lost) else ""
        were = f"{' more' if self.groups else ''} {'was' if self.lost == 1 else 'were'}"
        return f"{self.lost}{were} lost, which counts as not submitted: {', '.join([*shown, *more])}.{memory}"

    def _title(self) -> str:
        if not self.groups:
            return "Nothing failed."
        of_all = "" if self._total is None else f" of {self._total}"
        ways = "the same way" if len(self.groups) == 1 else f"in {len(self.groups)} ways"
        return f"{len(self)}{of_all} failed{'' if len(self) == 1 else f', {ways}'}:"


def _first(uids: Sequence[str], number: int = _SHOWN_UIDS) -> list[str]:
    more = len(uids) - number
    return [*uids[:number], *([f"and {more} more"] if more > 0 else [])]


def _group(failures: Sequence[tuple[str, Failure]]) -> FailureGroup:
    _, first = failures[0]
    has_traceback = first.reason == "error"
    return FailureGroup(
        type=first.type.removeprefix("builtins.").removeprefix(_OWN),
        message=first.message,
        where=_where(first.traceback) if has_traceback else "",
        reason=first.reason,
        traceback=first.traceback if has_traceback else "",
        uids=tuple(uid for uid, _ in failures),
        said="" if has_traceback else first.last_words,
    )


def _key(failure: Failure) -> tuple[object, ...]:
    """Equal for failures that are the same to whoever reads them."""
    if failure.reason == "error":
        return failure.type, tuple(_FRAME.findall(failure.traceback)), _without_numbers(failure.message)
    if failure.reason != "failed":
        return (failure.reason,)
    return failure.reason, _without_numbers(failure.last_words)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH - 2 else f"{line[: WIDTH - 5]}..."


def _without_numbers(message: str) -> str:
    return _NUMBER.sub("#", _PATH.sub("<path>", _QUOTED_PATH.sub("<path>", message[:_COMPARED])))


def _where(traceback: str) -> str:
    """The innermost line of the last exception of a traceback that is of no library; if all are, the innermost."""
    last = traceback[max((found.start() for found in _LAST_PART.finditer(traceback)), default=0) :]
    frames: list[tuple[str, str]] = _FRAME.findall(last)
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    for file, line in reversed(own or frames):
        return f"{file.replace(chr(92), '/').rpartition('/')[2]}:{line}"
    return ""
