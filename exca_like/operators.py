"""Operators that patches of configs may hold, and what counts as a plain value in a config."""

import re
from collections.abc import Mapping
from typing import Any

from exca_like.errors import ConfigValueError

SCALARS = frozenset((str, int, float, bool, type(None)))
LONG = 1 << 10
"""Characters of texts for which nothing is remembered: thousands of long ones would fill the memory."""
"""Types of plain values, which need no copy and no conversion."""

_OPERATOR = re.compile(r"=[a-z]+=")


class ConfDictOps:
    """Operators that a patch may hold as keys: ``cfg.update({"optim": {ConfDict.ops.REPLACE: True, "lr": 1}})``."""

    REPLACE = "=replace="
    """``{"sub": {REPLACE: True, ...}}``: the rest of the sub-dict takes the place of what was there."""
    DELETE = "=delete="
    """``{"sub": {"key": DELETE}}`` or ``{"sub": {"key": {DELETE: True}}}``: the entry goes, if there is one."""
    BEFORE = "=before="
    """``{"sub": {"key": {BEFORE: "other", ...}}}``: the entry moves in front of its sibling ``other``."""
    AFTER = "=after="
    """``{"sub": {"key": {AFTER: "other", ...}}}``: the entry moves behind its sibling ``other``."""

    @classmethod
    def is_op(cls, value: object) -> bool:
        """Whether a key or a value has the form reserved for operators, ``=word=``."""
        return isinstance(value, str) and value[:1] == "=" and _OPERATOR.fullmatch(value) is not None


ENTRY_OPS = (ConfDictOps.DELETE, ConfDictOps.BEFORE, ConfDictOps.AFTER)
ALL_OPS = (ConfDictOps.REPLACE, *ENTRY_OPS)


def reject_operators(node: Any, path: str = "") -> None:
    """Raise if a config still holds an operator that no `update` has resolved."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if ConfDictOps.is_op(key):
                msg = f"unresolved operator {key!r} at {path or 'the root'}: apply the patch to a config with update()"
                raise ConfigValueError(msg)
            reject_operators(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            reject_operators(value, f"{path}.{index}")
    elif ConfDictOps.is_op(node) and node in ALL_OPS:
        msg = f"unresolved operator {node!r} at {path}: apply the patch to a config with update()"
        raise ConfigValueError(msg)
