"""Dumps that fail half-way."""

from collections.abc import Callable
from typing import Any

from exca_like.cachedict import DumpContext


class InterruptionError(Exception):
    """Stands for whatever may stop a dump."""


class _Interrupting:
    """A context that fails after some calls."""

    def __init__(self, context: DumpContext, calls: int | None) -> None:
        self._context = context
        self._left = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._context, name)
        return self._counted(found) if name in ("append", "key_path", "shared_file", "dump") else found

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise InterruptionError
            return method(*arguments, **named)

        return call


class InterruptedDump:
    """A value whose storing fails half-way."""

    def __init__(self, value: Any, cache_type: str | None, calls: int | None) -> None:
        self.value = value
        self.cache_type = cache_type
        self.calls = calls

    def __dump_info__(self, ctx: DumpContext) -> dict[str, Any]:
        DumpContext.dump(_Interrupting(ctx, self.calls), self.value, cache_type=self.cache_type)  # type: ignore[arg-type]
        raise InterruptionError

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext) -> Any:
        raise NotImplementedError


DumpContext.register(InterruptedDump)
