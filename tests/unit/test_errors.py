"""The error tree, and the public names."""

import builtins
import re

import pytest

import exca_like
from exca_like import errors


def test_public_names():
    assert {name for name in exca_like.__all__ if not hasattr(exca_like, name)} == set()
    assert (
        {"ConfDict", "TaskInfra", "__version__", "confdict", "errors", "helpers"}
        <= set(exca_like.__all__)
        <= set(dir(exca_like))
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", exca_like.__version__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        exca_like.nothing


def test_the_tree_is_the_one_in_the_docs_and_each_error_is_a_builtin_one():
    tree = dict(re.findall(r"(\w+Error) \((\w+)\)", errors.__doc__))
    found = {
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, Exception) and not issubclass(cls, Warning)
    }
    assert set(found) == {*tree, "ExcaLikeError", "JobInterruptedError"}
    assert len(tree) >= 14
    for name, builtin in tree.items():
        assert issubclass(found[name], errors.ExcaLikeError)
        assert issubclass(found[name], getattr(builtins, builtin))
    assert issubclass(errors.JobInterruptedError, errors.JobError)
    assert not issubclass(errors.JobInterruptedError, TimeoutError | MemoryError)
