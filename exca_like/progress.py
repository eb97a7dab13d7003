"""How far a map is, shown on the terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from exca_like import sources
from exca_like.errors import SettingsError

DELAY_S = 0.5  # seconds after which there is a bar: a loop of quick calls is not to draw one for each

_IS_UNTOLD: ContextVar[bool] = ContextVar("is_untold", default=False)


def is_shown() -> bool:
    """Whether progress is shown: as the setting ``progress`` says, else on a terminal."""
    wanted = _setting()
    return wanted or (wanted is None and sys.stderr is not None and sys.stderr.isatty())


def tell(text: str) -> None:
    """Say something that a waiting user needs to know, on standard error, unless the setting ``progress`` is off."""
    if not _IS_UNTOLD.get() and _setting() is not False and sys.stderr is not None:
        sys.stderr.write(f"exca_like: {text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def untold() -> Iterator[None]:
    """A block in which `tell` says nothing, as the caller says it."""
    token = _IS_UNTOLD.set(True)
    try:
        yield
    finally:
        _IS_UNTOLD.reset(token)


def _setting() -> bool | None:
    """What the setting ``progress`` says; None if nothing."""
    try:
        wanted: bool | None = sources.tool_setting("progress")
    except SettingsError:  # a job that needs the settings says so; what is computed here must not end for a bar
        return None
    return wanted


class Progress:
    """A bar over the items of one call, if that takes a while; with tqdm, if that is installed, else nothing.

    Parameters
    ----------
    label:
        Name of the call.
    total:
        Number of items.
    cached:
        Those that need not be computed.
    """

    def __init__(self, label: str, total: int, cached: int) -> None:
        self.is_on = is_shown()
        """Whether anything is shown."""
        self._label = label
        self._total = total
        self._cached = cached
        self._failed = 0
        self._started = time.time()
        self._bar: Any = None

    def show(self, done: int, failed: int) -> None:
        """Show how many items were computed so far, and how many failed."""
        if self.is_on and self._bar is None and time.time() - self._started >= DELAY_S:
            self._begin()
        if self._bar is not None:
            if failed != self._failed:
                self._failed = failed
                self._describe()
            self._bar.update(self._cached + done + failed - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _begin(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self.is_on = False
            return
        bar = tqdm(total=self._total, initial=self._cached, desc=self._label, unit="item", file=sys.stderr, dynamic_ncols=True)
        bar.start_t = self._started  # its rate is that of the whole call
        self._bar = bar
        self._describe()

    def _describe(self) -> None:
        self._bar.set_postfix(cached=self._cached, failed=self._failed, refresh=False)
