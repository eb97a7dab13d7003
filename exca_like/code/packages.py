"""Versions of installed packages, as precisely as they are to count."""

import functools
import re
from typing import Literal

Precision = Literal["none", "major", "minor", "patch"]


@functools.cache
def version_of(name: str) -> str:
    """The version of the distribution that a top-level module is from; empty if it is from none."""
    from importlib import metadata  # takes time, which jobs need not spend

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # its distribution has another name
        return ",".join(sorted({metadata.version(found) for found in _distributions().get(name, ())}))


@functools.cache
def _distributions() -> dict[str, list[str]]:
    from importlib import metadata

    return dict(metadata.packages_distributions())


def shortened(version: str, precision: Precision) -> str:
    """A version with as many parts as count; ``major`` are the parts up to the first that is not zero.

    >>> shortened("2.13.0", "minor"), shortened("2.13.0", "major"), shortened("0.25.1", "major")
    ('2.13', '2', '0.25')
    """
    numbers = re.findall(r"\d+", re.split(r"[+a-zA-Z]", version, maxsplit=1)[0])
    if precision == "patch" or not numbers:
        return version.partition("+")[0]
    if precision == "major":
        place = next((index for index, number in enumerate(numbers) if int(number)), 0)
        return ".".join(numbers[: place + 1])
    return ".".join(numbers[:2])
