"""Warnings that name the line of the user's code that led to them."""

import sys
import warnings

_BETWEEN = ("exca_like.", "contextlib", "pydantic", "concurrent.", "threading")
"""Modules whose frames are not the user's."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost call that comes from outside of this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
