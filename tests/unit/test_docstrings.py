"""The examples of docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import exca_like

ROOT = Path(exca_like.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text()
]


def test_there_are_examples():
    assert len(WITH_EXAMPLES) > 5


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.failed == 0
