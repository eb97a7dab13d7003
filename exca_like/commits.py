"""Which commit the code of a computation is, and whether it was changed since: as git tells it, while something is computed.

Git is asked once per process and repository. It is started before the first computation and read after it, so that a slow
disk keeps nobody waiting.
"""

import atexit
import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from exca_like import files

if TYPE_CHECKING:
    import subprocess

_PATIENCE_S = 2.0  # that git may take, from its start
_LAST_PATIENCE_S = 0.5  # for the commit alone, when git was too slow to find what was changed
_KILL_S = 0.2  # for a git that was killed to be gone: one that waits for a dead disk is left behind
# set where a hook of git runs this; they name another repository
_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
_HEAD = "# branch.oid "


class Commit(NamedTuple):
    """The state of a git repository."""

    root: str
    """Its folder."""
    commit: str | None
    """Hash of the commit that is checked out; None if there is none yet, or if git did not tell."""
    dirty: bool | None
    """Whether files of it were changed since, new ones left aside; None if git did not tell."""


class _Question:
    """A git that runs."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.forks = files.Process.forks
        self._until = time.monotonic() + _PATIENCE_S
        self._process = _git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
        atexit.register(self._close)

    def answer(self) -> Commit:
        told = _told(self._process, self._until - time.monotonic())
        atexit.unregister(self._close)
        if told is None:  # it is too slow, or the repository is not ours to read
            told = _told(_git(self.root, "rev-parse", "--verify", "HEAD"), _LAST_PATIENCE_S)
            return Commit(self.root, _hash(told or ""), None)
        lines = told.splitlines()
        commit = next((_hash(line.removeprefix(_HEAD)) for line in lines if line.startswith(_HEAD)), None)
        return Commit(self.root, commit, any(not line.startswith("#") for line in lines))

    def _close(self) -> None:
        if self.forks == files.Process.forks and self._process is not None:
            _end(self._process)


_questions: dict[str, _Question] = {}
_answers: dict[str, Commit] = {}
_lock = files.ForkSafeLock()


def begin(folder: str) -> None:
    """Ask git about the repository that a folder is in, if it was not asked yet; its answer is not waited for."""
    root = root_of(folder)
    if root is None or root in _answers:
        return
    with _lock:
        asked = _questions.get(root)
        # the answer to a question that was asked before a fork is the parent's
        if root not in _answers and (asked is None or asked.forks != files.Process.forks):
            _questions[root] = _Question(root)


def state_of(folder: str) -> Commit | None:
    """The state of the repository that a folder is in, as it was when it was first asked for; None if it is in none."""
    root = root_of(folder)
    if root is None:
        return None
    if root not in _answers:
        begin(folder)
        with _lock:
            if root not in _answers:
                _answers[root] = _questions.pop(root).answer()
    return _answers[root]


@functools.lru_cache(maxsize=1024)
def root_of(folder: str) -> str | None:
    """The folder of the git repository that a folder is in; None if it is in none."""
    while True:
        if os.path.exists(f"{folder}/.git"):  # a file in worktrees and submodules
            return folder
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _git(root: str, *arguments: str) -> "subprocess.Popen[bytes] | None":
    """A git that reads a repository and changes nothing there; None if there is no such program."""
    import subprocess  # not when the package is imported

    environment: dict[str, Any] = {name: value for name, value in os.environ.items() if name not in _PLACES}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.Popen(
            ["git", "-C", root, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _told(process: "subprocess.Popen[bytes] | None", seconds: float) -> str | None:
    """What a git printed; None if it failed, or has not ended after so many seconds."""
    import subprocess

    if process is None:
        return None
    try:
        told, _ = process.communicate(timeout=max(0.0, seconds))
    except (subprocess.TimeoutExpired, OSError, ValueError):
        _end(process)
        return None
    return told.decode(errors="replace") if process.returncode == 0 else None


def _end(process: "subprocess.Popen[bytes]") -> None:
    import subprocess

    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        process.wait(_KILL_S)


def _hash(text: str) -> str | None:
    """A commit's hash; None if a text is none, like ``(initial)``."""
    text = text.strip()
    return text if len(text) >= 40 and all(letter in "0123456789abcdef" for letter in text) else None
