"""Slurm jobs, through submitit. No other module imports submitit."""

import contextlib
import functools
import os
import pickle
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import submitit

from exca_like import layout
from exca_like.errors import CacheFolderError, ExcaLikeError, SubmissionError
from exca_like.executors import slurm_job
from exca_like.executors.base import SETTINGS, Call, JobHandle, Resources
from exca_like.executors.environment import job_environment
from exca_like.executors.payload import Payload, payloads, shared_folder
from exca_like.executors.sbatch import QueueFullError, chunks, jobs_in_queue, max_array_size, max_submit_jobs, sbatch
from exca_like.executors.slurm_handle import SlurmJob
from exca_like.executors.slurm_job import SlurmCall

_NO_LIMIT_MIN = 10 * 366 * 24 * 60  # ten years, for submitit, when only the partition's limit counts
_MAX_TIMEOUTS = 3
_SIGNAL_DELAY_S = 90
_WAVES = 4  # a wave is sent when there is room for such a part of what the cluster takes
_SETTINGS = tuple(name for name in SETTINGS if name not in ("max_pickle_size_gb", "requeue", "max_requeues"))  # submitit's


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


class SlurmExecutor:
    """Sends calls to Slurm: one job, or one array for several."""

    def __init__(self, logs: str, resources: Resources) -> None:
        check_commands()
        self.logs = logs
        self.resources = resources

    def submit(self, calls: Sequence[Call], max_workers: int) -> Iterator[list[JobHandle]]:
        """Send the calls as one job, or as arrays, of which at most ``max_workers`` elements run at a time.

        As many arrays as the cluster's limits make necessary: all at once if it takes them, else in waves.
        """
        resources = self.resources
        with self._errors():
            sent = payloads(calls, shared_folder(self.logs), resources)
            limit = max_submit_jobs(resources.slurm_account, resources.slurm_qos) if len(calls) > 1 else None
            most = max_array_size()
        place, width = 0, len(calls)
        arrays: set[str] = set()
        is_in_waves = limit is not None and len(calls) > limit
        while place < len(calls):
            jobs: list[JobHandle] = []
            with self._errors():
                left = len(calls) - place
                size, workers = len(chunks(min(left, width), most)[0]), max_workers
                queued = self._queued(limit) if limit is not None or (arrays and is_in_waves) else {}
                if limit is not None:
                    room = limit - sum(queued.values())
                    # not one by one as they end
                    size = min(size, room) if room >= min(left, max(1, limit // _WAVES)) else 0
                if is_in_waves:
                    workers -= sum(queued.get(array, 0) for array in arrays)
                else:  # those that are sent together share them
                    workers = max(1, max_workers * size // len(calls))
                if size > 0 and workers > 0:
                    try:
                        jobs = self._submit_array(sent[place : place + size], workers)
                        width = len(calls)
                    except QueueFullError:  # a limit that is not known here, for instance of a group of users
                        if size == 1 and jobs_in_queue() == {}:
                            raise
                        width, is_in_waves = max(1, size // 2), True
            yield jobs
            arrays |= {job.job_id.partition("_")[0] for job in jobs}
            place += len(jobs)

    def _queued(self, limit: int | None) -> dict[str, int]:
        """The user's jobs by array; as many as there may be, if Slurm does not answer."""
        queued = jobs_in_queue()
        return {"": limit or 0} if queued is None else queued

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ExcaLikeError:
            raise
        except OSError as error:
            msg = f"can't write the job files in {self.logs}: {error.strerror or error}. Check the infra's `logs` and `folder`."
            raise CacheFolderError(error.errno, msg) from error
        except Exception as error:
            msg = (
                f"Slurm refused the submission: {str(error).strip()}. "
                "Check the infra's resources and slurm_* fields (exca_like.settings.explain(infra) shows where they were set)."
            )
            raise SubmissionError(msg) from error

    def _submit_array(self, calls: Sequence[Payload], max_workers: int) -> list[JobHandle]:
        resources = self.resources
        executor = make_submitit_executor(self.logs, resources)
        folder = Path(layout.logs_root(self.logs))
        folder.mkdir(parents=True, exist_ok=True)
        pickles: list[Path] = []
        try:
            for call in calls:
                pickles.append(folder / f"{uuid.uuid4().hex}.pkl")
                pickles[-1].write_bytes(pickle.dumps(SlurmCall(call, resources.requeue, resources.max_requeues)))
            if len(calls) > 1:
                executor.parameters.update(map_count=len(calls), array_parallelism=max_workers)
            first = executor._submit_command(f"{executor.python} -u -m {slurm_job.__name__} {shlex.quote(self.logs)}")
        except BaseException:
            for pickled in pickles:
                pickled.unlink(missing_ok=True)
            raise
        ids = [first.job_id] if len(calls) == 1 else [f"{first.job_id}_{index}" for index in range(len(calls))]
        jobs = [SlurmJob(self.logs, job_id) for job_id in ids]
        with _cancelled_on_error(first.job_id):
            for job, pickled in zip(jobs, pickles, strict=True):
                job.paths.folder.mkdir(parents=True, exist_ok=True)
                pickled.rename(job.paths.submitted_pickle)
        return list(jobs)


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
    values = {name: value for name in _SETTINGS if (value := getattr(resources, name)) is not None}
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
    more = {name.replace("_", "-"): value for name, value in (parameters.get("additional_parameters") or {}).items()}
    if not more.keys() & {"requeue", "no-requeue"}:
        more["no-requeue" if resources.requeue == "never" else "requeue"] = True
    for name, wanted in {
        "dependency": [f"afterok:{job_id}" for job_id in resources.after],
        "exclude": resources.exclude,
    }.items():
        if wanted:
            more[name] = ",".join([*wanted, *([str(more[name])] if name in more else [])])
    if resources.after:
        more["kill-on-invalid-dep"] = "yes"
    parameters["additional_parameters"] = more
    executor.update_parameters(**parameters)
    return executor


def public_executor(cluster: str, logs: str, resources: Resources) -> submitit.AutoExecutor:
    """A submitit executor for functions of the user's own."""
    if cluster == "auto":
        cluster = "slurm" if slurm_is_there() else "local"
    if cluster == "slurm":
        check_commands()
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
    values = {name: getattr(resources, name) for name in _SETTINGS}
    values["name"] = values.pop("job_name")
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
        script = Path(layout.logs_root(str(self.folder)), f".submission_file_{token}.sh")
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
        lines = text.splitlines(keepends=True)
        if self.no_time_limit:
            lines = [line for line in lines if not line.startswith("#SBATCH --time=")]
        if not self.parameters.get("use_srun", True):
            # else signals would reach the shell alone, which waits for Python before it does anything
            lines = [
                line.replace("--signal=", "--signal=B:", 1) if line.startswith("#SBATCH --signal=") else line for line in lines
            ]
            lines[lines.index(f"{command}\n")] = f"exec {command}\n"
        return "".join(lines)


__all__ = ["SlurmExecutor", "SlurmJob", "make_submitit_executor", "public_executor", "slurm_is_there"]
