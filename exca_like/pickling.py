"""Pickles that other processes can read, classes of scripts included."""

import io
import pickle
import sys
from typing import Any

from exca_like.names import main_name


def dumps(value: Any) -> bytes:
    """Pickle a value; classes and functions that can't be imported go by value.

    A class of the main script is looked up in the script that reads it, if it is the same one: what a job returns is
    an instance of the class that the caller knows.
    """
    try:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # for instance a class of a function, or of a script and seen from its job
        return _dumps_by_value(value)
    return _dumps_by_value(value) if b"__main__" in data else data


def _dumps_by_value(value: Any) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and obj.__module__ == "__main__":
                return _class_of_main, (main_name(), obj.__qualname__, cloudpickle.dumps(obj))
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def _class_of_main(script: str, qualname: str, by_value: bytes) -> Any:
    found: Any = sys.modules.get("__main__" if script == main_name() else script)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) else pickle.loads(by_value)
