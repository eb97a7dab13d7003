"""Pickles: for what nothing else can store. Loading one can run any code, so it asks whose file it is."""

import io
import pickle
from typing import Any

from exca_like import pickling, user_warnings
from exca_like.cachedict.registry import describe_type
from exca_like.errors import ConfigTypeError


class Pickle:
    """Any value that can be pickled, in one packed file per writer."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        try:
            if isinstance(value, memoryview | io.IOBase):  # a pickle would hold something else
                msg = f"{describe_type(value)} is no data"
                raise TypeError(msg)
            data = pickling.dumps(value)
        except Exception as error:
            msg = (
                f"{describe_type(value)} can't be stored: {error}. Give back data instead (numbers, strings, arrays, "
                "containers of them), or register a handler for the type (see `exca_like.cachedict.DumpContext.register`)."
            )
            raise ConfigTypeError(msg) from error
        info: dict[str, Any] = ctx.append(".pkl", data)
        return info

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, offset: int = 0, length: int | None = None) -> Any:
        return ctx.unpickle(ctx.view(filename, offset, length), ctx.path(filename), pickle.loads)


_warned: set[type] = set()


def fall_back(ctx: Any, value: Any, *, quiet: bool = False) -> dict[str, Any]:
    """Pickle a value that no handler stores, with a warning for each type."""
    info: dict[str, Any] = ctx.dump(value, cache_type="Pickle")
    kind = type(value)
    if not quiet and kind not in _warned:
        _warned.add(kind)
        msg = (
            f"{describe_type(value)} is stored as a pickle, which may not load any more when its code changes, and can run "
            "code when it is loaded. Register a handler for the type, or choose it with cache_type='AutoPickle'."
        )
        user_warnings.warn(msg)
    return info


HANDLERS = {"Pickle": Pickle}
TYPE_DEFAULTS: dict[type, Any] = {}
