"""The command ``exca-like``: a thin layer over what the package offers to Python, one module for each group of commands."""

import sys

_MISSING = "exca-like needs typer and rich, which are not installed: pip install 'exca_like[cli]'"


def main() -> None:
    """Run the command of this process, and end it.

    It ends with 0 if all went well, 1 if what was asked for failed, can't be done or was not found, 2 for a wrong command line,
    an option, a value or a config that is not taken, 3 if ``verify`` found problems, and 130 if it was interrupted.
    """
    try:
        sys.exit(_run())
    except KeyboardInterrupt:  # before there was anything to be said of it
        sys.exit(130)


def _run() -> int:
    try:
        from exca_like.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"{_MISSING}\n")
        return 1
    return run(sys.argv[1:])
