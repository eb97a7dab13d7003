"""Where a stored result comes from, as it is read back: `Provenance`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from exca_like import tables
from exca_like.cachedict.handlers.containers import from_tree
from exca_like.errors import NotCachedError
from exca_like.recording import noted
from exca_like.records import Records

_WIDEST = 100  # characters of a value in a table
_SHOWN_PACKAGES = ("numpy", "torch", "jax", "tensorflow", "pandas", "scipy", "sklearn", "transformers", "lightning", "pydantic")


@dataclass(frozen=True)
class Provenance:
    """When, where and with what a result was computed, as it was noted at that time. ``str()`` of it is a short table.

    What was not noted is None, or empty: for results of exca, and of earlier versions, that is most of it.
    """

    time: datetime | None = None
    """When the computation ended, in UTC."""
    duration: float | None = None
    """Seconds that it took. Items of a method that returns all results at once have equal parts of the time of the call."""
    memory: float | None = None
    """The most memory that its process had had until then, in GB (10⁹ bytes), children left aside. That is the peak of the
    computation itself in a job of one task, and no less than it else."""
    host: str | None = None
    """Name of the machine."""
    pid: int | None = None
    """Process id."""
    job: str | None = None
    """The cluster's id of the job; None if it was no job."""
    user: str | None = None
    """Name of the user."""
    python: str | None = None
    """Version of Python."""
    platform: str | None = None
    """System, its version, processor, and C library."""
    packages: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that the process had imported, by their import names."""
    commit: str | None = None
    """Hash of the git commit that was checked out in `repository`; of a job, when it was submitted."""
    dirty: bool | None = None
    """Whether files of the repository had changes that were not committed; None if git did not tell in time."""
    repository: str | None = None
    """Folder of the git repository that the method's code is in; if it is in none, the one of the current folder."""
    command: str | None = None
    """Command line of the process; of a job, that of the process that submitted it."""
    exca_like: str | None = None
    """Version of this package."""
    code: str | None = None
    """Fingerprint of the method's code."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the code has told with `exca_like.record`."""

    def __str__(self) -> str:
        rows = list(self._rows())
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:{width}}  {_short(text)}" for name, text in rows) or "nothing was noted"

    def _rows(self) -> Iterator[tuple[str, str]]:
        """Names and texts of what is known."""
        if self.time is not None:
            took = "" if self.duration is None else f", took {tables.seconds(self.duration)}"
            yield "time", f"{self.time.astimezone():%Y-%m-%d %H:%M:%S %z}{took}"
        if self.memory is not None:
            yield "memory", f"{self.memory:.3g} GB"
        process, job, user = (
            f"{word} {value}" if value is not None else None
            for word, value in (("process", self.pid), ("job", self.job), ("by", self.user))
        )
        places = [place for place in (self.host, process, job, user) if place is not None]
        if places:
            yield "where", ", ".join(places)
        if self.python is not None:
            yield "python", f"{self.python}, {self.platform}"
        if self.packages:
            shown = [f"{name} {self.packages[name]}" for name in _SHOWN_PACKAGES if name in self.packages]
            others = len(self.packages) - len(shown)
            yield "packages", ", ".join([*shown, *([f"{others} more"] if others else [])])
        if self.repository is not None:
            state = {True: ", with changes", False: "", None: ", changes unknown"}[self.dirty]
            yield "git", f"{(self.commit or 'no commit')[:12]}{state}, in {self.repository}"
        for name in ("command", "exca_like", "code"):
            if (value := getattr(self, name)) is not None:
                yield name, value
        for name, value in self.extra.items():
            yield f"extra.{name}", repr(value)


def provenance_of(stored: Any, root: str) -> Provenance:
    """The provenance of a result.

    Parameters
    ----------
    stored:
        What was stored beside it.
    root:
        The infra's folder.
    """
    meta = noted(stored)
    run = (Records(root).read(meta["run"]) if "run" in meta else None) or {}
    git = run.get("git") or {}
    return Provenance(
        time=datetime.fromisoformat(meta["time"]) if "time" in meta else None,
        **{name: meta.get(name) for name in ("duration", "memory", "host", "pid", "job", "code")},
        **{name: run.get(name) for name in ("user", "python", "platform", "command", "exca_like")},
        packages=run.get("packages") or {},
        commit=git.get("commit"),
        dirty=git.get("dirty"),
        repository=git.get("root"),
        extra=from_tree(meta.get("extra") or {}),
    )


def no_entry(label: str, *, has_folder: bool) -> NotCachedError:
    """The error for what has no provenance."""
    if has_folder:
        msg = f"nothing is stored for {label}, and so no provenance: compute it first, or check the config and the folder"
    else:
        msg = f"{label} has no folder, and provenance is stored beside results: set folder=... and compute it"
    return NotCachedError(msg)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."


__all__ = ["Provenance"]
