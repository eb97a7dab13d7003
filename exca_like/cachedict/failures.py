"""Errors as they are stored: beside the values, in journals of their own."""

import base64
import binascii
import os
import pickle
import types
from dataclasses import dataclass, replace
from typing import Any

from exca_like import pickling
from exca_like.errors import RemoteError

NOT_TRIED = "not tried"
"""Reason of a failure that is not stored: other items failed, one after the other."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@dataclass(frozen=True)
class Failure:
    """An error as it is stored: what it was, and the exception itself if it can be pickled.

    ``reason`` is ``"error"`` for an exception of the user's code, else why the job ended. ``attempts`` describes the jobs that
    failed, this one included, if others are to be tried after them.
    """

    type: str
    message: str
    traceback: str
    reason: str = "error"
    pickled: bytes | None = None
    attempts: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, error: BaseException, reason: str = "error") -> "Failure":
        """Describe an exception; its cause and context go into the text of the traceback."""
        import traceback  # only when something went wrong

        kind = type(error)
        text = "".join(traceback.format_exception(kind, error, _user_frames(error.__traceback__)))
        try:
            message = str(error)
        except Exception:  # it is the user's
            message = "<an error that can't be shown>"
        return cls(f"{kind.__module__}.{kind.__qualname__}", message, text, reason, _pickled_exception(error))

    @property
    def last_words(self) -> str:
        """Of a job that left no result, what tells most: which signal killed it, or else the last line of its log."""
        said = self.message.strip().splitlines()[1:]  # after what this package says
        return next((line for line in said[:1] if line.startswith("killed by")), said[-1].strip() if said else "")

    def to_info(self) -> dict[str, Any]:
        """The failure as JSON data."""
        pickled = None if self.pickled is None else base64.b64encode(self.pickled).decode()
        texts = {"type": self.type, "message": self.message, "traceback": self.traceback, "reason": self.reason}
        # lone surrogates, as in names of undecodable files, have no place in JSON
        info = {**{name: text.encode(errors="replace").decode() for name, text in texts.items()}, "pickled": pickled}
        return {**info, "attempts": list(self.attempts)} if self.attempts else info

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> "Failure":
        """The failure of a `to_info`."""
        try:
            pickled = None if info.get("pickled") is None else base64.b64decode(info["pickled"])
        except (TypeError, binascii.Error):
            pickled = None
        return cls(
            info["type"],
            info["message"],
            info["traceback"],
            info.get("reason", "error"),
            pickled,
            tuple(info.get("attempts", ())),
        )

    def exception(self) -> BaseException:
        """The exception to raise: the original, or a `RemoteError` in its place, with the traceback as a note."""
        error: BaseException | None = None
        if self.pickled is not None:
            try:
                error = pickle.loads(self.pickled)
            except Exception:  # its class may be gone or need arguments: the text is still there
                error = None
        if not isinstance(error, Exception):  # raising a SystemExit would end the caller's process
            error = RemoteError(f"{self.type}: {self.message}")
        if self.reason == "error":
            error.add_note(f"\nTraceback of the computation:\n{self.traceback}")
        return error


def without_pickle(failure: Failure) -> Failure:
    """A failure whose exception is not to be unpickled: its text remains."""
    return replace(failure, pickled=None)


def _user_frames(tb: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback from its first frame outside this package on."""
    first = tb
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        first = first.tb_next
    return first or tb


def _pickled_exception(error: BaseException) -> bytes | None:
    try:
        dumped = pickling.dumps(error)
        # some exceptions pickle, but don't unpickle
        return dumped if isinstance(pickle.loads(dumped), BaseException) else None
    except Exception:
        return None
