"""Text, in a file that people can open."""

from typing import Any

from exca_like.errors import ConfigTypeError


class String:
    """Strings in a ``.txt`` file each (UTF-8)."""

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        if type(value) is not str:
            msg = f"cache_type='String' stores strings, not {type(value).__name__}"
            raise ConfigTypeError(msg)
        name = ctx.key_path(".txt")
        (ctx.folder / name).write_bytes(value.encode("utf-8", "surrogatepass"))
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str) -> str:
        with open(ctx.path(filename), "rb") as stream:
            return stream.read().decode("utf-8", "surrogatepass")


HANDLERS = {"String": String}
TYPE_DEFAULTS: dict[type, Any] = {}
