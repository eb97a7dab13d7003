"""Configs made from functions."""

import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

from exca_like import helpers
from exca_like.infra.functions import FunctionWithInfra

calls: list[tp.Any] = []


def scale(a: int, b: float = 1.5, *, note=None) -> float:
    calls.append((a, b))
    return a * b


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def test_a_model_of_a_function(tmp_path: Path) -> None:
    model: tp.Any = helpers.to_config_model(scale)
    config = model(a="3", infra={"folder": tmp_path})
    assert (config.a, config.b, config.note) == (3, 1.5, None)
    assert config.infra.uid() == "test_functions.scale_FuncConfig.build,1/a=3-eccbc87e"
    assert [config.build(), model(a=3, infra={"folder": tmp_path}).build()] == [4.5, 4.5]
    assert calls == [(3, 1.5)]
    assert config.infra.clone_obj(a=4).build() == 6.0
    for wrong in ({}, {"a": "x"}, {"a": 1, "c": 2}):
        with pytest.raises(pydantic.ValidationError):
            model(**wrong)
    assert helpers.to_config(scale, a=2, note=[1], infra={"folder": tmp_path}).build() == 3.0


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_jobs(cluster: str, tmp_path: Path) -> None:
    config: tp.Any = helpers.to_config(scale, a=3, infra={"folder": tmp_path, "cluster": cluster})
    assert config.build() == 4.5


def test_functions_that_are_no_configs() -> None:
    def rest(*args): ...

    def more(**kwargs): ...

    def own(infra): ...

    def build(build): ...

    for function in (rest, more, len):
        with pytest.raises(TypeError, match="can't become a config|signature"):
            helpers.to_config_model(function)
    for function in (own, build):
        with pytest.raises(TypeError, match=f"{function.__name__.replace('own', 'infra')}.*rename the parameter"):
            helpers.to_config_model(function)


def test_with_infra(tmp_path: Path) -> None:
    function = helpers.with_infra(folder=tmp_path)(scale)
    assert isinstance(function, FunctionWithInfra)
    assert [function(a=2), function(2), function(2, 1.5), function(2, b=1.5)] == [3.0] * 4
    assert calls == [(2, 1.5)]
    assert (function.__name__, function.func, function.infra) == ("scale", scale, {"folder": tmp_path})
    config: tp.Any = function.config(2)
    assert config.infra.status() == "completed"
    with pytest.raises(TypeError, match="multiple values"):
        function(1, a=2)  # type: ignore[misc]
    with pytest.raises(TypeError, match="too many"):
        function(1, 2, 3)  # type: ignore[call-arg]
    with pytest.raises(pydantic.ValidationError, match="folders"):
        helpers.with_infra(folders=tmp_path)


def test_arrays(tmp_path: Path) -> None:
    @helpers.with_infra(folder=tmp_path)
    def rand(a: int, b: int) -> np.ndarray:
        return np.random.default_rng().random((a, b))

    assert np.array_equal(rand(a=2, b=3), rand(a=2, b=3))
    assert rand(a=3, b=2).shape == (3, 2)


def test_validate_kwargs() -> None:
    def function(a: int, b: str = "x", *, c: "float" = 1.0, d=None): ...

    def more(a, **kwargs): ...

    helpers.validate_kwargs(function, {"a": 1, "b": "y", "c": 2.0, "d": object()})
    helpers.validate_kwargs(more, {"a": 1, "z": 2})
    for kwargs, error, message in (
        ({}, ValueError, "lacks a"),
        ({"a": 1, "z": 2}, ValueError, r"no parameter z \(but a, b, c, d\)"),
        ({"a": "x"}, TypeError, "a='x' is a str, but should be a int"),
        ({"a": 1, "b": 2}, TypeError, "b=2 is a int"),
        ({"a": 1, "c": 2}, TypeError, "c=2 is a int, but should be a float"),
    ):
        with pytest.raises(error, match=message):
            helpers.validate_kwargs(function, kwargs)


def test_update_uids(tmp_path: Path) -> None:
    assert helpers.update_uids(tmp_path) == []
    assert helpers.update_uids(tmp_path, dryrun=False) == []
