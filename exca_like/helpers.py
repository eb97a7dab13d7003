"""Tools for writing configs and for finding jobs, gathered from where they are made."""

from pathlib import Path
from typing import TYPE_CHECKING

from exca_like.infra.functions import to_config, to_config_model, validate_kwargs, with_infra
from exca_like.models.discriminated import DiscriminatedModel

if TYPE_CHECKING:
    from exca_like.infra.find import FoundJob
    from exca_like.maintenance import Renaming


def update_uids(folder: str | Path, dryrun: bool = True) -> "list[Renaming]":
    """Rename the cache folders that exca wrote, so that their results are found; `exca_like.maintenance.migrate_exca`.

    Parameters
    ----------
    folder:
        The cache root: what was given to the infras as ``folder``.
    dryrun:
        Only tell what would be renamed.
    """
    from exca_like.maintenance import migrate_exca  # only for those who come from exca

    return migrate_exca(folder, dry_run=dryrun)


def find_slurm_job(
    *, job_id: str, folder: str | Path | None = None, logs: str | Path = "{folder}/logs/{user}/%j"
) -> "FoundJob | None":
    """What a job was submitted for: its config, its cache folder, and its logs; None if it is not found.

    It is looked for in the log folders and, for tasks, in the cache folders. No code of the config's class is needed. Local
    jobs are found as well.

    Parameters
    ----------
    job_id:
        The job's id, as Slurm shows it: ``"123456"``, or ``"123456_7"`` for an element of an array.
    folder:
        The ``folder`` of the infra; None: Slurm is asked where the logs are, as long as it remembers the job.
    logs:
        The ``logs`` of the infra, if they are not where they are by default.

    Raises
    ------
    ValueError
        There is no such folder, or the id is that of a whole array.

    Examples
    --------
    >>> found = find_slurm_job(job_id="123456_7", folder="/scratch/cache")  # doctest: +SKIP
    >>> print(found.config, found.uid_folder, found.job.stderr())  # doctest: +SKIP
    """
    from exca_like.infra.find import find_job  # it needs numpy, which takes time to import

    return find_job(job_id, folder, logs)


__all__ = [
    "DiscriminatedModel",
    "find_slurm_job",
    "to_config",
    "to_config_model",
    "update_uids",
    "validate_kwargs",
    "with_infra",
]
