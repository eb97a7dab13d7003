"""Every error this package raises on purpose, as one tree.

::

    ExcaLikeError
    ├── ConfigTypeError (TypeError)        a config holds a value or a key of the wrong kind
    ├── ConfigValueError (ValueError)      a config, a patch or a name is malformed
    ├── ContentKeyError (TypeError)        a value has no content that could be told from others
    ├── ModelExportError (RuntimeError)    a pydantic model has no unambiguous export
    ├── FrozenModelError (RuntimeError)    a model was changed after its uid was computed
    ├── InfraTypeError (TypeError)         an infra is declared or applied with a wrong type
    ├── InfraValueError (ValueError)       an infra is declared or called with a wrong value
    │   └── ItemParameterError (NameError) items were given under another name than the method's parameter has
    ├── InfraUsageError (RuntimeError)     an infra was not applied, or not where it should be
    │   └── OpenBatchError (AttributeError) something is there only after a ``batch`` block
    ├── SettingsError (ValueError)         a settings file or a variable holds something wrong
    ├── ConfigMismatchError (RuntimeError) a cache folder holds results of another config
    ├── CodeChangedError (RuntimeError)    a job has found other code than it was submitted with
    ├── NotCachedError (RuntimeError)      read-only mode, and the result is not there
    ├── ResultLoadError (RuntimeError)     a stored result can't be loaded in this process
    │   └── PickleRefusedError (RuntimeError) it is a pickle of somebody who is not trusted
    ├── CorruptEntryError (RuntimeError)   stored data do not match their checksum
    ├── KeyExistsError (ValueError)        a key of a CacheDict has a value already
    ├── CacheUsageError (RuntimeError)     a CacheDict is written to outside of a block
    ├── CacheFolderError (OSError)         the cache folder can't be written or read
    │   └── CacheRootError (OSError)       it is only a part of a cache, or holds several
    ├── DataFileError (OSError)            a file of the user's, to be stored or loaded, can't be read
    │   └── MissingFileError (FileNotFoundError) it is not there
    ├── TransferError (OSError)            a bundle, or a place for shared results, can't be read or written
    ├── SubmissionError (RuntimeError)     a job could not be sent to the cluster
    │   └── DependencyError (RuntimeError) a task that it was to come after failed
    ├── WaitTimeoutError (TimeoutError)    tasks that are waited for did not end in time, and go on
    ├── RemoteError (RuntimeError)         stands for an exception that could not be pickled
    ├── ItemsFailedError (RuntimeError)    some items of a map failed; also of their errors' type, if that is one
    └── JobError (RuntimeError)            a job ended without a result
        ├── JobTimeoutError (TimeoutError) it ran out of time
        ├── JobMemoryError (MemoryError)   it ran out of memory
        └── JobInterruptedError            it was cancelled, preempted or lost; run it again
            └── LostOutcomeError (RuntimeError) it ended well, but its result is gone or corrupt

Each class is also a subclass of the builtin in brackets, so that ``except ValueError``
keeps working for code that knows nothing of this package.
"""

from typing import Any


class ExcaLikeError(Exception):
    """Root of the tree."""


class ConfigTypeError(ExcaLikeError, TypeError):
    """A config holds a value or a key of a kind that has no place in it."""


class ConfigValueError(ExcaLikeError, ValueError):
    """A config, a patch or a name in it is malformed."""


class ContentKeyError(ExcaLikeError, TypeError):
    """A value, for instance an argument of a memoised function, has no content that could be told from others."""


class ModelExportError(ExcaLikeError, RuntimeError):
    """A pydantic model can't be exported to a config that would rebuild it."""


class FrozenModelError(ExcaLikeError, RuntimeError):
    """A model was modified after its uid had been computed."""


class InfraTypeError(ExcaLikeError, TypeError):
    """An infra is declared or applied with an argument of the wrong type."""


class InfraValueError(ExcaLikeError, ValueError):
    """An infra is declared, applied or called with a wrong value."""


class ItemParameterError(InfraValueError, NameError):
    """The items of a map were given under another name than the method's parameter has."""


class InfraUsageError(ExcaLikeError, RuntimeError):
    """An infra is used where it can't work, for instance because it was never applied."""


class OpenBatchError(InfraUsageError, AttributeError):
    """Something was asked for inside a ``batch`` block that is there only after it."""


class SettingsError(ExcaLikeError, ValueError):
    """A settings file or an environment variable holds something that is no setting, or a wrong value."""


class ConfigMismatchError(ExcaLikeError, RuntimeError):
    """A cache folder was written for a config that differs from the one that reads it."""


class CodeChangedError(ExcaLikeError, RuntimeError):
    """A job has found other code than it was submitted with, and its result would be taken for that of the latter."""


class NotCachedError(ExcaLikeError, RuntimeError):
    """The mode is read-only and the result is not in the cache."""


class ResultLoadError(ExcaLikeError, RuntimeError):
    """A stored result is intact, but can't be loaded in this process."""


class PickleRefusedError(ResultLoadError):
    """A stored result is a pickle, and pickles of its file are not to be loaded."""


class CorruptEntryError(ExcaLikeError, RuntimeError):
    """Stored data are cut short or do not match their checksum."""


class KeyExistsError(ExcaLikeError, ValueError):
    """A key of a CacheDict has a value already."""


class CacheUsageError(ExcaLikeError, RuntimeError):
    """A CacheDict is written to outside of a ``write`` block."""


class CacheFolderError(ExcaLikeError, OSError):
    """The cache folder can't be created, written or read.

    Attributes
    ----------
    value:
        What was computed in this process, and could not be stored; None if nothing was.
    """

    value: Any = None


class CacheRootError(CacheFolderError):
    """A folder is given as a cache root that is a part of one, or holds some."""


class DataFileError(ExcaLikeError, OSError):
    """A file of the user's, which is to be stored or loaded, can't be read."""


class MissingFileError(DataFileError, FileNotFoundError):
    """A file of the user's, which is to be stored or loaded, is not there."""


class TransferError(ExcaLikeError, OSError):
    """A bundle, or a place that results are sent to or fetched from, can't be read or written."""


class SubmissionError(ExcaLikeError, RuntimeError):
    """A job could not be sent to the cluster."""


class RemoteError(ExcaLikeError, RuntimeError):
    """Stands for an exception of a job that could not be pickled; holds its type name and text."""


class ItemsFailedError(ExcaLikeError, RuntimeError):
    """Some items of a map failed; all others were computed and stored.

    Attributes
    ----------
    failures:
        What each of them raised, by the item's key: a description with ``type``, ``message``, ``traceback``, ``reason``.
    """

    def __init__(self, message: str, failures: dict[str, Any] | None = None) -> None:
        RuntimeError.__init__(self, message)
        self.message = message
        self.failures = failures or {}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        return ItemsFailedError, (self.message, self.failures)


class JobError(ExcaLikeError, RuntimeError):
    """A job ended without leaving a result."""


class DependencyError(SubmissionError):
    """A task was not submitted, as one that it was to come after failed."""


class WaitTimeoutError(ExcaLikeError, TimeoutError):
    """Tasks did not end in the time that was to be waited for them; they go on."""


class JobTimeoutError(JobError, TimeoutError):
    """A job reached its time limit."""


class JobMemoryError(JobError, MemoryError):
    """A job was killed for using more memory than it had asked for."""


class JobInterruptedError(JobError):
    """A job was cancelled, preempted or lost: it counts as not submitted."""


class LostOutcomeError(JobInterruptedError):
    """A job ended well, but its result is gone or can't be read: it counts as not submitted."""


class CodeChangedWarning(UserWarning):
    """A result is taken from the cache that was computed by other code than there is now."""


class CorruptEntryWarning(UserWarning):
    """A stored entry failed its checks and counts as missing."""


class ReadFolderWarning(UserWarning):
    """One of the ``read_folders`` is not there or can't be read; it counts as empty."""


class NotRecordedWarning(UserWarning):
    """A value that was given to ``record`` can't be kept beside a result, and is left out."""
