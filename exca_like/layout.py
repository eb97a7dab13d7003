"""Where everything lies on disk.

::

    <folder>/                                   the infra's folder
      <module>.<Class>.<method>,<version>/      one per method and version
        <uid of the config>/                    one per config ("default" for the default one)
          config.yaml                           the whole config, for people
          uid.yaml                              what the uid was made from
          full-uid.yaml                         the same with default values: the identity of the folder
          <writer>-info.jsonl, data/            results (see exca_like.cachedict)
          <writer>-failed.jsonl                 errors
          job.json                              the job that computes it, or did
          pinned                                says that the folder is to be kept (see exca_like.pins)
      <module>.<function>,<version>/            the results of a memoised function (see exca_like.memos.paths)
      logs/<user>/<job id>/                     what jobs print, and the pickles they start from
      code/<digest>/                            copies of code for jobs (see exca_like.workdir)
      provenance/<digest>.json                  records that results share: which command, packages and commit they come
                                                from (see exca_like.records and exca_like.runs)
      provenance/code-<digest>.json             the code that results were computed by (see exca_like.watching)
      .hits/<process id>-<token>.jsonl          how often results were taken from the cache (see exca_like.hits)

With ``code="recompute"``, the version of a method is followed by ``~`` and the digest of its code.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

METHOD_FOLDER = re.compile(r"[^,=]+\.[^,=]+,.+")  # the folder of a config has fields, as lr=0.1,seed=2
"""The name of the folder of a method and a version."""
CONFIG = "config.yaml"
UID = "uid.yaml"
FULL_UID = "full-uid.yaml"
JOB = "job.json"
EXCA_JOB = "job.pkl"
DEFAULT_UID = "default"
PROVENANCE = "provenance"
HITS = ".hits"
PIN = "pinned"
RESULT = "result"
"""The key of what a task returned."""

# set in jobs that run in a copy of code: this copy, and the current folder of their submission
WORKDIR_VARIABLE = "EXCA_LIKE_WORKDIR"
ORIGIN_VARIABLE = "EXCA_LIKE_ORIGIN"

_CLEAN_PATH = re.compile(r"(/[^/.][^/]*)+")


class EntryFolder(NamedTuple):
    """The folder of one config of one method.

    ``root`` is the absolute folder of the infra, ``uid`` is ``<module>.<Class>.<method>,<version>/<config uid>``.
    """

    root: str
    uid: str

    @property
    def path(self) -> str:
        return f"{self.root}/{self.uid}"

    @property
    def method_path(self) -> str:
        """The folder of all configs of the method."""
        return os.path.dirname(self.path)

    @property
    def config(self) -> str:
        return f"{self.root}/{self.uid}/{CONFIG}"

    @property
    def full_uid(self) -> str:
        return f"{self.root}/{self.uid}/{FULL_UID}"

    @property
    def job(self) -> str:
        return f"{self.root}/{self.uid}/{JOB}"

    @property
    def exca_job(self) -> str:
        """Where exca keeps a job with its result."""
        return f"{self.root}/{self.uid}/{EXCA_JOB}"

    def sibling(self, name: str) -> "EntryFolder":
        """The folder of another config of the same method."""
        return EntryFolder(self.root, f"{os.path.dirname(self.uid)}/{name}")


def absolute(folder: str | Path) -> str:
    """A folder as an absolute path without ``~``."""
    text = os.fspath(folder)
    if _CLEAN_PATH.fullmatch(text):  # what is absolute already need not be taken apart for each config
        return text
    expanded = os.path.expanduser(text)
    return os.path.abspath(expanded if os.path.isabs(expanded) else os.path.join(origin(), expanded))


def code_record(root: str, digest: str) -> str:
    """What was kept of the code that has a digest."""
    return f"{root}/{PROVENANCE}/code-{digest}.json"


def origin() -> str:
    """The folder that relative ones start from: the current one, or in a copy of code that of the submission.

    So a relative folder of an infra is the same one for a config and for the jobs that it is sent to.
    """
    current = os.getcwd()
    return os.environ.get(ORIGIN_VARIABLE, current) if os.environ.get(WORKDIR_VARIABLE) == current else current


def provenance_folder(root: str) -> str:
    """The folder of the records that results share, in the folder of an infra."""
    return f"{root}/{PROVENANCE}"


def logs_root(logs: str) -> str:
    """The closest folder that is the same for all jobs, whose logs are in ``logs`` (with ``%j`` for the job)."""
    return os.path.dirname(logs.partition("%j")[0])


def log_folder(template: str, root: str) -> str:
    """The folder of a job's logs, in which ``%j`` stands for the job's id."""
    path = template.replace("{folder}", root)
    return absolute(path.replace("{user}", user_name()) if "{user}" in path else path)


def user_name() -> str:
    """Name of the user; the number where there is no name for it, as in some containers."""
    import getpass  # only for jobs

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
