"""Dictionaries with a handler for each of some outputs, in the form of `Auto`, which loads them."""

from collections.abc import Callable, Mapping
from typing import Any

from exca_like.cachedict.handlers.containers import Auto, encode_dict, store_tree
from exca_like.cachedict.registry import describe_type, dumper_chosen
from exca_like.errors import ConfigTypeError


def dumper_of_outputs(choices: Mapping[str, Any]) -> tuple[str, Callable[[Any, Any], Any]]:
    """The name and the function that store a dictionary, of which some outputs have handlers of their own.

    Raises
    ------
    ValueError, TypeError
        One of the choices is none.
    """
    for name, choice in choices.items():
        if not isinstance(name, str):
            msg = f"cache_type names outputs by texts, not by {name!r:.100}"
            raise ConfigTypeError(msg)
        dumper_chosen(choice)

    def dump(ctx: Any, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            msg = f"cache_type has a handler for each of {list(choices)}, so it stores dictionaries, not {describe_type(value)}"
            raise ConfigTypeError(msg)
        odd = next((key for key in value if type(key) is not str), None)
        missing = [name for name in choices if name not in value]
        if missing or odd is not None:
            what = f"no {', '.join(map(repr, missing))}" if missing else f"the key {odd!r:.100}, which is no text"
            msg = (
                f"cache_type has a handler for each of {list(choices)}, but the dictionary has {what}: its keys are "
                f"{list(value)!r:.200}"
            )
            raise ConfigTypeError(msg)
        extent = ctx.extent
        stored = {
            name: ctx.dump(part, cache_type=choices[name]) if name in choices else Auto.encode_part(ctx, part)
            for name, part in value.items()
        }
        tree = encode_dict(stored, lambda part: part, lambda key: Auto.encode_part(ctx, key))
        return store_tree(ctx, tree, extent)

    return Auto.__name__, dump
