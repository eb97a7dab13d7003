"""A local job: ``python -m exca_like.executors.local_job <pickled call>``."""

import pickle
import sys


def main(path: str) -> None:
    """Load the call and run it."""
    with open(path, "rb") as stream:
        call = pickle.load(stream)
    call()


if __name__ == "__main__":
    main(sys.argv[1])
