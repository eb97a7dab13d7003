"""Pieces of code, as they are kept and sent."""

from typing import NamedTuple


class Symbol(NamedTuple):
    """A piece of code: the digest of what it says, and its text."""

    digest: str
    text: str
