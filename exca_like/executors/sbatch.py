"""Getting jobs into a Slurm queue: how many it takes, together and at a time, and what to do when sbatch fails.

A controller that is busy or restarting makes sbatch fail for a while: it is tried again, more and more rarely. After an answer
that was lost, there may be a job that its submitter does not know. It can't do anything, as a job starts from a file that is
named by its id, which is written when the id is known; it is cancelled all the same. It is found by its script, whose name no
other submission has.
"""

import logging
import os
import pwd
import re
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from exca_like import sources
from exca_like.errors import SubmissionError

logger = logging.getLogger(__name__)

_DEFAULT_ARRAY_SIZE = 1001  # Slurm's own
_DELAYS_S = (1, 2, 4, 8, 15, 30, 60)  # before each new attempt
_LAST_DELAY_S = 10
_ACCOUNTING_S = 20  # seconds that sacctmgr may take
_TRANSIENT = re.compile(
    r"timed out|unable to contact slurm controller|connection (refused|failure|reset)|zero bytes were transmitted"
    r"|temporarily un(able|available)|transport endpoint is not connected|controller .*not respond",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"Max\w*Submit|Grp\w*Submit", re.IGNORECASE)
_known: dict[tuple[str | None, str | None], int | None] = {}  # limits of the user, asked for once


class QueueFullError(SubmissionError):
    """The cluster takes no more jobs of this user now."""


def max_array_size() -> int:
    """How many elements an array may have: what the setting ``max_array_size`` says, else the cluster's ``MaxArraySize``.

    Raises
    ------
    SettingsError
        The setting is no positive number.
    """
    wanted: int | None = sources.tool_setting("max_array_size", on_slurm=True)
    if wanted is not None:
        return wanted
    limit = sources.slurm_config("MaxArraySize") or ""  # indices are less than it: so many of them, from 0 on
    return max(1, int(limit)) if limit.isdecimal() else _DEFAULT_ARRAY_SIZE


def max_submit_jobs(account: str | None, qos: str | None) -> int | None:
    """How many jobs the user may have in the queue, as far as the setting ``max_submit_jobs`` or the accounting says.

    Limits of whole groups of users are not looked at; sbatch tells about those.
    """
    wanted: int | None = sources.tool_setting("max_submit_jobs", on_slurm=True)
    if wanted is not None:
        return wanted
    if (account, qos) not in _known:
        name = pwd.getpwuid(os.getuid()).pw_name
        charged = account or next((fields[0] for fields in _accounting("user", "defaultaccount", [name]) or []), "")
        found = _accounting("assoc", "maxsubmit,partition,defaultqos", [f"user={name}", f"account={charged}"])
        if found is None:  # it does not answer
            return None
        limits = [fields[0] for fields in found if not fields[1]]  # sbatch tells about those of partitions
        used = {qos} if qos else {fields[2] for fields in found if fields[2]}
        for used_qos in sorted(used):
            limits += [fields[0] for fields in _accounting("qos", "maxsubmitjobsperuser", [used_qos]) or []]
        _known[account, qos] = min((int(limit) for limit in limits if limit.isdecimal()), default=None)
    return _known[account, qos]


def jobs_in_queue() -> dict[str, int] | None:
    """How many jobs of the user there are, running or not, by their array; None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%F"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(Counter(done.stdout.split())) if done.returncode == 0 else None


def _accounting(entity: str, fields: str, where: Sequence[str]) -> list[list[str]] | None:
    command = ["sacctmgr", "--noheader", "--parsable2", "show", entity, *where, f"format={fields}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ACCOUNTING_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [line.split("|") for line in done.stdout.splitlines()] if done.returncode == 0 else None


def chunks(number: int, size: int) -> list[range]:
    """Some numbers in as few groups of at most ``size`` as possible, all of about the same length."""
    count = -(-number // size)
    bounds = [number * group // count for group in range(count + 1)]
    return [range(bounds[group], bounds[group + 1]) for group in range(count)]


def sbatch(command: Sequence[str], script: Path) -> str:
    """Run an sbatch command; returns the id of the job.

    Raises
    ------
    QueueFullError
        The user has as many jobs as the cluster allows.
    SubmissionError
        Slurm refused it, or could not be reached for minutes.
    """
    said = ""
    for delay in (*_DELAYS_S, None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"job ([0-9]+)", done.stdout)
        if done.returncode == 0 and found:
            if said:  # one of the failures before may have been none
                _cancel(script, but=found[1])
            return found[1]
        said = done.stderr.strip() or done.stdout.strip() or f"sbatch ended with code {done.returncode}"
        said = said.replace("sbatch: error: ", "")
        if _LIMIT.search(said):
            msg = f"Slurm refused the submission: {said}"
            raise QueueFullError(msg)
        if not _TRANSIENT.search(said):
            msg = (
                f"Slurm refused the submission: {said}. "
                "Check the infra's resources and slurm_* fields (exca_like.settings.explain(infra) shows where they were set)."
            )
            raise SubmissionError(msg)
        logger.warning("sbatch failed, going on in %d s: %s", delay or _LAST_DELAY_S, said)
        time.sleep(delay or _LAST_DELAY_S)
    _cancel(script)
    msg = f"Slurm could not be reached for {sum(_DELAYS_S)} s: {said}. Try again when it is back."
    raise SubmissionError(msg)


def _cancel(script: Path, but: str | None = None) -> None:
    """Cancel the jobs that run, or will run, a script."""
    command = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%F|%o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.strip().partition("|") for line in done.stdout.splitlines()]
    for job_id in {job_id for job_id, _, path in lines if path.endswith(str(script))} - {but}:
        subprocess.run(["scancel", job_id], capture_output=True, check=False)
