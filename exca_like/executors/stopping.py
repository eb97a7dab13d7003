"""What a job does when the cluster wants it to stop: it saves its state, and is started again, or not.

Slurm warns a job some time before its time limit, and ends a job that it preempts with a signal, some seconds before it kills
it. `on_requeue` hooks are called at either, in the main thread, between two steps of Python code.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

from exca_like.executors.environment import is_first_of_job

Hook = TypeVar("Hook", bound=Callable[[], Any])
Requeue = Literal["preemption", "always", "never"]

_hooks: list[Callable[[], Any]] = []


def on_requeue(hook: Hook) -> Hook:
    """Register a function that saves the state of a computation before its job is stopped; also usable as a decorator.

    It is called in the job, in its main thread, when the job is preempted, cancelled, or about to reach its time limit. A job
    that was started again finds in its ``infra.uid_folder()`` what was saved there. A hook stays registered to the end of the
    method that the job runs; outside of jobs, nothing calls it.

    Parameters
    ----------
    hook:
        Takes no arguments. It should be quick: Slurm kills the job some seconds after (``KillWait``, ``GraceTime``). An
        exception of it is printed, and the others are called all the same.

    Returns
    -------
    Callable
        The hook itself.
    """
    _hooks.append(hook)
    return hook


def restart_count() -> int:
    """How many times the job that this process is was started again; 0 outside of jobs."""
    text = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdecimal() else 0


@contextlib.contextmanager
def hooks_of_a_call() -> Iterator[None]:
    """A block whose hooks are forgotten at its end."""
    before = list(_hooks)
    try:
        yield
    finally:
        _hooks[:] = before


def listen(requeue: Requeue, max_requeues: int) -> None:
    """Install the handlers of a job's signals, as far as this is the main thread.

    Parameters
    ----------
    requeue:
        ``"always"``: the job asks to be started again when its time is up.
    max_requeues:
        How many times it may be started again.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    warned, own = False, os.getpid()

    def is_other(number: int) -> bool:
        """Whether this is a fork of the job's process, which ends as if there were no handler."""
        if os.getpid() == own:
            return False
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return True

    def on_warning(number: int, frame: Any) -> None:  # noqa: ARG001 - see signal.signal
        nonlocal warned
        if is_other(number) or warned:
            return
        warned = True
        _tell("the job is about to reach its time limit, or to be preempted")
        _call_hooks()
        if requeue == "always" and restart_count() < max_requeues and is_first_of_job():
            _requeue()

    def on_end(number: int, frame: Any) -> None:  # noqa: ARG001 - see signal.signal
        if is_other(number):
            return
        _tell("the job is stopped")
        if not warned:
            _call_hooks()
        _leave()

    signal.signal(signal.SIGUSR2, on_warning)
    signal.signal(signal.SIGTERM, on_end)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)


def _call_hooks() -> None:
    for hook in _hooks.copy():
        try:
            hook()
        except Exception:  # it is the user's
            _tell(f"the on_requeue hook {hook!r} failed:\n{traceback.format_exc()}")


def _requeue() -> None:
    """Have Slurm start this job again; what it computed in this run and did not store is lost."""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
    job_id = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    done = subprocess.run(["scontrol", "requeue", job_id], capture_output=True, text=True, check=False)
    if done.returncode:  # it goes on until the limit
        _tell(f"scontrol requeue {job_id} failed: {done.stderr.strip()}")
        return
    _tell("the job starts again, as requeue='always' says")
    _leave()


def _leave() -> None:
    """End this process at once: what is claimed stays claimed by the job, should it be started again."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _tell(text: str) -> None:
    sys.stderr.write(f"exca_like: {text}\n")
    sys.stderr.flush()
