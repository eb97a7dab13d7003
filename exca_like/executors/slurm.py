"""Slurm jobs, through submitit. No other module imports submitit."""

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import submitit
from submitit.core import utils
from submitit.core.job_environment import JobEnvironment

from exca_like.errors import CacheFolderError, ExcaLikeError, JobTimeoutError, SubmissionError
from exca_like.executors.base import SETTINGS, Call, Ended, JobHandle, Resources, Whereabouts, read_log
from exca_like.executors.environment import job_environment, pickled_call
from exca_like.executors.sbatch import chunks, max_array_size, sbatch
from exca_like.executors.slurm_state import watcher

_NO_LIMIT_MIN = 10 * 366 * 24 * 60  # ten years, for submitit, when only the partition's limit counts
_MAX_TIMEOUTS = 3
_SIGNAL_DELAY_S = 90
_LOG_TAIL = 4000  # characters
_MEMORY = re.compile(r"oom.kill|out of memory|exceeded memory limit", re.IGNORECASE)


@functools.cache
def slurm_is_there() -> bool:
    """Whether this machine belongs to a Slurm cluster.

    Raises
    ------
    SubmissionError
        It does, but the controller does not answer: better to say so than to start hundreds of local processes.
    """
    if shutil.which("sbatch") is None:
        return False
    ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
    if "is DOWN" in ping.stdout and "is UP" not in ping.stdout:
        slurm_is_there.cache_clear()
        msg = (
            "this machine belongs to a Slurm cluster whose controller does not answer (`scontrol ping`): "
            "try again later, or choose cluster='local' to run on this machine"
        )
        raise SubmissionError(msg)
    return ping.returncode == 0


def check_commands() -> None:
    """Raise if Slurm's commands are not on this machine."""
    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            msg = (
                f"cluster='slurm', but there is no {command!r} on this machine's PATH: submit from a login node of the "
                "cluster, or use cluster='local' (processes on this machine) or 'auto' (Slurm where there is one)"
            )
            raise SubmissionError(msg)


@dataclass(frozen=True)
class SlurmJob:
    """A job on Slurm, or one element of an array."""

    file_delay: ClassVar[float] = 15.0  # what network file systems cache
    logs: str
    job_id: str

    @cached_property
    def paths(self) -> utils.JobPaths:
        """Paths of the job's files."""
        return utils.JobPaths(self.logs, job_id=self.job_id, task_id=0)

    @property
    def state(self) -> str:
        """Slurm's word for the job's state."""
        return watcher.state(self.job_id)

    def record(self) -> dict[str, Any]:
        """What `open_job` needs to find the job again."""
        return {"cluster": "slurm", "job_id": self.job_id, "logs": self.logs}

    def ended(self) -> Ended | None:
        """How the job ended, if it did; files are looked at before the cluster is asked."""
        if self.paths.result_pickle.exists():
            outcome, detail = utils.pickle_load(self.paths.result_pickle)
            return Ended("completed") if outcome == "success" else Ended("failed", str(detail))
        ended = watcher.ended(self.job_id)
        if ended is None or ended.reason not in ("failed", "cancelled"):
            return ended
        stderr = read_log(self.paths.stderr) or ""
        if _MEMORY.search(stderr):  # clusters without cgroups report a failure
            return Ended("out of memory", stderr[-_LOG_TAIL:])
        return Ended(ended.reason, f"{ended.detail}\n{stderr[-_LOG_TAIL:]}".strip())

    def whereabouts(self) -> Whereabouts:
        """Where the job is, while it has not ended."""
        return watcher.whereabouts(self.job_id)

    def cancel(self) -> None:
        """Stop the job with scancel."""
        done = subprocess.run(["scancel", self.job_id], capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"scancel {self.job_id} failed: {done.stderr.strip()}"
            raise SubmissionError(msg)


class _RequeuedError(BaseException):
    """Ends a job that Slurm will start again."""


@dataclass(frozen=True)
class _SlurmCall:
    """A call in a job, in which the end of the time limit is an error of this package."""

    call: Call

    def __call__(self) -> None:
        number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        handler = signal.getsignal(number)

        def on_warning(signum: int, frame: Any) -> None:
            try:
                handler(signum, frame)  # type: ignore[operator,misc]
            except utils.UncompletedJobError as error:
                msg = f"the job reached its time limit: raise timeout_min ({error})"
                raise JobTimeoutError(msg) from None
            except SystemExit as error:  # the job was requeued: not an exit of the user's code, which would be stored
                raise _RequeuedError from error

        if callable(handler):
            signal.signal(number, on_warning)
        try:
            self.call()
        except _RequeuedError as error:
            raise SystemExit(-1) from error


class SlurmExecutor:
    """Sends calls to Slurm: one job, or one array for several."""

    def __init__(self, logs: str, resources: Resources) -> None:
        check_commands()
        self.logs = logs
        self.resources = resources

    def submit(self, calls: Sequence[Call], max_workers: int) -> list[JobHandle]:
        """Send the calls as one job or one array, of which at most ``max_workers`` elements run at a time."""
        try:
            return self._submit(calls, max_workers)
        except ExcaLikeError:
            raise
        except OSError as error:
            msg = f"can't write the job files in {self.logs}: {error.strerror or error}. Check the infra's `logs` and `folder`."
            raise CacheFolderError(error.errno, msg) from error
        except Exception as error:
            msg = f"Slurm refused the submission: {str(error).strip()}. Check the infra's resources and slurm_* fields."
            raise SubmissionError(msg) from error

    def _submit(self, calls: Sequence[Call], max_workers: int) -> list[JobHandle]:
        """Send as many arrays as the cluster's limit makes necessary; all of them, or none."""
        jobs: list[JobHandle] = []
        try:
            for chunk in chunks(len(calls), max_array_size()):
                workers = max(1, max_workers * len(chunk) // len(calls))
                jobs += self._submit_array([calls[index] for index in chunk], workers)
        except BaseException:
            for job_id in {job.job_id.partition("_")[0] for job in jobs}:
                _scancel(job_id)
            raise
        return jobs

    def _submit_array(self, calls: Sequence[Call], max_workers: int) -> list[JobHandle]:
        executor = make_submitit_executor(self.logs, self.resources)
        folder = utils.JobPaths.get_first_id_independent_folder(self.logs)
        folder.mkdir(parents=True, exist_ok=True)
        timeout = self.resources.timeout_min or _NO_LIMIT_MIN
        pickles: list[Path] = []
        try:
            for call in calls:
                delayed = utils.DelayedSubmission(_SlurmCall(call))
                delayed.set_timeout(timeout, _MAX_TIMEOUTS)
                data = pickled_call(delayed)
                self._check_size(len(data) * len(calls), len(calls))
                pickles.append(folder / f"{uuid.uuid4().hex}.pkl")
                pickles[-1].write_bytes(data)
            if len(calls) > 1:
                executor.parameters.update(map_count=len(calls), array_parallelism=max_workers)
            first = executor._submit_command(executor._submitit_command_str)
        except BaseException:
            for pickled in pickles:
                pickled.unlink(missing_ok=True)
            raise
        ids = [first.job_id] if len(calls) == 1 else [f"{first.job_id}_{index}" for index in range(len(calls))]
        jobs = [SlurmJob(self.logs, job_id) for job_id in ids]
        with _cancelled_on_error(first.job_id):
            for job, pickled in zip(jobs, pickles, strict=True):
                job.paths.move_temporary_file(pickled, "submitted_pickle")
        return list(jobs)

    def _check_size(self, size: int, number: int) -> None:
        limit = self.resources.max_pickle_size_gb
        if limit is not None and size > limit * 1e9:
            msg = (
                f"{number} job(s) of {size / number / 1e9:.3g} GB when pickled are more than max_pickle_size_gb={limit}: "
                "load big data inside the method instead of keeping it on the config, or raise the limit"
            )
            raise SubmissionError(msg)


def _scancel(job_id: str) -> None:
    subprocess.run(["scancel", job_id], capture_output=True, check=False)


@contextlib.contextmanager
def _cancelled_on_error(job_id: str) -> Iterator[None]:
    """A block without which a job that was submitted could not do its work."""
    try:
        yield
    except BaseException:
        _scancel(job_id)
        raise


def make_submitit_executor(logs: str, resources: Resources) -> "_SubmititExecutor":
    """A submitit executor with these resources, for Slurm."""
    python = None if resources.python is None else shlex.quote(resources.python)
    executor = _SubmititExecutor(folder=logs, max_num_timeout=_MAX_TIMEOUTS, python=python)
    executor.resources = resources
    executor.no_time_limit = resources.timeout_min is None
    values = {name: value for name in SETTINGS if (value := getattr(resources, name)) is not None}
    values.pop("max_pickle_size_gb", None)
    parameters = executor._convert_parameters(
        {name: values.pop(name) for name in list(values) if not name.startswith("slurm_") and name != "job_name"}
    )
    parameters["job_name"] = values.pop("job_name", "exca_like")
    parameters.update({name.removeprefix("slurm_"): value for name, value in values.items()})
    if resources.workdir is not None:
        parameters["setup"] = [*parameters.get("setup", []), f"cd {shlex.quote(resources.workdir)} || exit 1"]
    if resources.timeout_min is not None:
        # the warning before the limit must not come before the job had time to start
        parameters["signal_delay_s"] = min(_SIGNAL_DELAY_S, resources.timeout_min * 60 // 4)
    else:
        parameters["time"] = _NO_LIMIT_MIN
    executor.update_parameters(**parameters)
    return executor


def public_executor(cluster: str, logs: str, resources: Resources) -> submitit.AutoExecutor:
    """A submitit executor for functions of the user's own."""
    if cluster == "auto":
        cluster = "slurm" if slurm_is_there() else "local"
    if cluster == "slurm":
        check_commands()
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
    values = {name: getattr(resources, name) for name in SETTINGS}
    values["name"] = values.pop("job_name")
    values.pop("max_pickle_size_gb")
    if cluster != "slurm":
        values = {name: value for name, value in values.items() if not name.startswith("slurm_")}
    executor.update_parameters(**values)
    return executor


class _SubmititExecutor(submitit.SlurmExecutor):
    """submitit's executor, with a clean environment and without its time limit of five minutes by default."""

    no_time_limit = False
    resources = Resources()

    def _submit_command(self, command: str) -> Any:
        """As submitit's, but sbatch is tried again."""
        token = uuid.uuid4().hex
        script = utils.JobPaths.get_first_id_independent_folder(self.folder) / f".submission_file_{token}.sh"
        script.write_text(self._make_submission_file_text(command, token))
        job_id = sbatch(self._make_submission_command(script), script)
        with _cancelled_on_error(job_id):
            job = self.job_class(folder=self.folder, job_id=job_id, tasks=list(range(self._num_tasks())))
            job.paths.move_temporary_file(script, "submission_file", keep_as_symlink=True)
        return job

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        # through `env` and not os.environ, which belongs to the whole process
        wanted = job_environment(self.resources)
        removed = [name for name in os.environ if name not in wanted]
        changed = [f"{name}={value}" for name, value in wanted.items() if os.environ.get(name) != value]
        unset = [part for name in removed for part in ("-u", name)]
        return ["env", *unset, *changed, *super()._make_submission_command(submission_file_path)]

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        text = super()._make_submission_file_text(command, uid)
        if self.no_time_limit:
            text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#SBATCH --time="))
        return text


__all__ = ["SlurmExecutor", "SlurmJob", "make_submitit_executor", "public_executor", "slurm_is_there"]
