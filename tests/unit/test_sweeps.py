"""Sweeps: the combinations, what is submitted, and how it is shown."""

import copy
import io
import itertools
import os
import pickle
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exca_like
from exca_like import errors, sweep_status, sweeps
from exca_like.executors import cancel_all
from exca_like.executors.slurm_handle import SlurmJob
from exca_like.infra.sending import KEY
from exca_like.sweep_status import SweepPlan, SweepRow, SweepStatus


class Optim(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    lr: float = pydantic.Field(0.1, gt=0)
    name: str = "sgd"


class Train(pydantic.BaseModel):
    """Fails for seed 3, and for all in a file ``bad``."""

    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("note",)
    optim: Optim = Optim()
    seed: int = 0
    depth: int = 2
    note: str = ""
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> dict[str, Any]:
        exca_like.record(epoch=self.seed)
        assert self.infra.folder is not None
        if self.seed == 3 and not Path(self.infra.folder, "mended").exists():
            raise ValueError(f"no {self.seed} with {self.optim.lr}")
        return {"acc": np.float64(self.seed / 10), "seed": -1, "curve": [1, 2]}


class Scalar(pydantic.BaseModel):
    status: str = "fine"
    layers: list[int] = []
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> Any:
        return {"fine": 0.5, "array": np.zeros(3), "none": None, "text": "yes"}[self.status]


class Two(Train):
    other: exca_like.TaskInfra = exca_like.TaskInfra()

    @other.apply
    def two(self) -> int:
        return self.seed


class Maps(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def compute(self, items: list[int]) -> Any:
        yield from items


class Private(pydantic.BaseModel):
    x: int = 0
    _infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @_infra.apply
    def run(self) -> float:
        return 1 / self.x


class Sleep(pydantic.BaseModel):
    x: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> None:
        time.sleep(60)


GRID: dict[str, Any] = {"optim.lr": [0.1, 0.01], "seed": range(5)}


def train(folder: Path, **infra: Any) -> Train:
    return Train(depth=4, infra={"folder": folder, **infra})


# which configs


@given(st.dictionaries(st.sampled_from(["optim.lr", "seed", "depth", "optim.name"]), st.integers(1, 4), min_size=1))
def test_the_order_is_that_of_nested_loops(sizes: dict[str, int]) -> None:
    grid: dict[str, list[Any]] = {name: list(range(1, 1 + size)) for name, size in sizes.items()}
    if "optim.name" in grid:
        grid["optim.name"] = [f"name {value}" for value in grid["optim.name"]]
    sweep = exca_like.sweep(Train(infra={"folder": "unused"}), grid)
    found = [(c.optim.lr, c.seed, c.depth, c.optim.name) for c in sweep]
    expected = []
    for values in itertools.product(*grid.values()):
        chosen = {"optim.lr": 0.1, "seed": 0, "depth": 2, "optim.name": "sgd", **dict(zip(grid, values, strict=True))}
        expected.append((chosen["optim.lr"], chosen["seed"], chosen["depth"], chosen["optim.name"]))
    assert found == expected


def test_values_that_go_together(tmp_path: Path) -> None:
    grid = {"seed": range(3), "optim.lr": np.logspace(-2, -1, 2), "depth": iter([5, 6, 7])}
    sweep = exca_like.sweep(train(tmp_path), grid, zip=[("seed", "depth")])
    assert [(c.seed, c.optim.lr, c.depth) for c in sweep] == [(s, lr, s + 5) for s in range(3) for lr in (0.01, 0.1)]
    assert type(sweep[0].seed) is int
    assert "seed with depth × 3, optim.lr × 2" in str(sweep)


def test_where_and_duplicates(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path), GRID, where=lambda config: np.bool_(config.seed < 3 or config.optim.lr > 0.05))
    assert len(sweep) == 8
    sweep = exca_like.sweep(train(tmp_path), {"seed": [1, 2, True], "note": ["a", "b"]})
    assert [config.seed for config in sweep] == [1, 2]
    assert sweep.plan().duplicates == 4
    assert str(sweep.plan()) == "2 configs: 2 to submit (4 duplicates left out)"


def test_it_is_a_sequence(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path), GRID)
    assert len(sweep) == len(list(sweep)) == 10
    assert sweep[-1].seed == 4
    assert [config.seed for config in sweep[2:4]] == [2, 3]
    assert isinstance(sweep[:3], sweeps.Sweep)
    assert sweep[3] in sweep
    with pytest.raises(IndexError):
        sweep[10]


class Model(exca_like.helpers.DiscriminatedModel):
    pass


class Conv(Model):
    depth: int = 2


class Mlp(Model):
    width: int = 8


class Choice(pydantic.BaseModel):
    model: Model = Conv()
    optim: Optim | None = None
    tags: dict[str, int] = {}
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> str:
        return repr(self.model)


def test_parts_of_parts_that_are_swept(tmp_path: Path) -> None:
    base = Choice(infra={"folder": tmp_path})
    sweep = exca_like.sweep(base, {"model.width": [1, 2], "model": ["Mlp", Mlp(width=3)]})
    assert [config.model for config in sweep] == [Mlp(width=1), Mlp(width=2)], "the part decides, wherever it stands"
    sweep = exca_like.sweep(base, {"model": ["Conv", Mlp(), {"type": "Mlp", "width": 3}]})
    assert sweep.submit().results() == ["Conv(depth=2)", "Mlp(width=8)", "Mlp(width=3)"]
    assert "1  Mlp(width=8)" in str(sweep)
    sweep = exca_like.sweep(base, {"optim": [Optim(name="adam")], "optim.lr": [5], "tags.x": [1, 2], "model.type": ["Mlp"]})
    assert [(config.optim, config.tags, config.model) for config in sweep] == [
        (Optim(name="adam", lr=5), {"x": x}, Mlp()) for x in (1, 2)
    ]
    with pytest.raises(ValueError, match="'model', of type Conv, has the fields depth; did you mean 'model.depth'"):
        exca_like.sweep(base, {"model.width": [1]})
    with pytest.raises(
        ValueError, match=r"combination 1 of 1 \(model='Conv', model.width=1\) is no valid Choice: model.*width"
    ):
        exca_like.sweep(base, {"model": ["Conv"], "model.width": [1]})


def test_values_may_be_configs_or_parts(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path), {"optim": [{"lr": 0.5}, Optim(lr=0.6)], "seed": [1]})
    assert [config.optim.lr for config in sweep] == [0.5, 0.6]
    sweep = exca_like.sweep(train(tmp_path), {"infra.version": ["1", "2"]})
    assert [config.infra.version for config in sweep] == ["1", "2"]


@pytest.mark.parametrize(
    ("grid", "kind", "said"),
    [
        ([1], TypeError, "grid=[1] is no dictionary: give values by name, like {'optim.lr': [0.1, 0.01], 'seed': range(5)}"),
        ({}, ValueError, "the grid is empty: give values by name, like {'seed': range(5)}"),
        ({"optim": {"lr": [1]}}, TypeError, "a dictionary for 'optim': write dotted names, like {'optim.lr': [...]}"),
        ({"optim.name": "adam"}, TypeError, "the text 'adam' for 'optim.name': give a list, of one text (['adam']) or several"),
        ({"seed": 3}, TypeError, "has 3 for 'seed', which is no list of values: for one value, write [3]"),
        ({"optim": Optim()}, TypeError, "for 'optim', which is no list of values: for one value, write [Optim("),
        ({"seed": []}, ValueError, "no values for 'seed': list is empty"),
        ({"seed": iter([])}, ValueError, "list_iterator is empty, or was used before: an iterator gives its values once only"),
        ({"seed": {1, 2}}, TypeError, "a set for 'seed', which is in another order in each process: give a list"),
        ({3: [1]}, TypeError, "the grid has the name 3: give dotted names of fields, like 'optim.lr'"),
        ({"a..b": [1]}, TypeError, "the grid has the name 'a..b'"),
        ({"lr": [1]}, ValueError, "Train has no field 'lr': did you mean 'optim.lr'?"),
        ({"sed": [1]}, ValueError, "Train has no field 'sed': did you mean 'seed'?"),
        (
            {"optim.lrr": [1]},
            ValueError,
            "no field 'optim.lrr': 'optim', of type Optim, has the fields lr, name; did you mean 'optim.lr'?",
        ),
        ({"optim.zzz": [1]}, ValueError, "no field 'optim.zzz': 'optim', of type Optim, has the fields lr, name"),
        ({"zzz": [1]}, ValueError, "Train has no field 'zzz': it has the fields optim, seed, depth, note"),
        ({"infra.mem_gb": [1]}, ValueError, "'infra.mem_gb' is a setting of an infra, which says how to compute, not what"),
        ({"infra": [{}]}, ValueError, "'infra' is an infra, which says how to compute, not what"),
        (
            {"optim.lr": [1, -1], "seed": range(2)},
            ValueError,
            "combination 3 of 4 (optim.lr=-1, seed=0) is no valid Train: optim.lr: Input should be greater than 0",
        ),
        ({"seed.x": [1]}, ValueError, "combination 1 of 1 (seed.x=1) is no valid Train: seed: Input should be"),
        (
            {"seed": itertools.count()},
            ValueError,
            "more than 1,000,000 values for 'seed': give fewer (is it an iterator without end?)",
        ),
        ({"seed": range(2000), "depth": range(2000)}, ValueError, "4,000,000 combinations (2000 × 2000), more than 1,000,000"),
    ],
)
def test_wrong_grids(tmp_path: Path, grid: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        exca_like.sweep(train(tmp_path), grid)
    assert not list(tmp_path.iterdir())


class Pipeline(pydantic.BaseModel):
    first: Train = Train()
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


def test_infras_of_parts_are_no_values(tmp_path: Path) -> None:
    base = Pipeline(infra={"folder": tmp_path})
    with pytest.raises(ValueError, match=r"'first.infra.folder' is a setting of an infra.*\(Pipeline\(\.\.\.\)\)"):
        exca_like.sweep(base, {"first.infra.folder": ["a", "b"]})
    with pytest.raises(ValueError, match=r"Pipeline has no field 'lr': did you mean 'first\.optim\.lr'"):
        exca_like.sweep(base, {"lr": [1]})
    assert len(exca_like.sweep(base, {"first.infra.version": ["1", "2"]})) == 2


def test_a_copy_is_a_sweep(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path), GRID)
    for copied in (copy.deepcopy(sweep), pickle.loads(pickle.dumps(sweep))):
        assert copied.plan() == sweep.plan()
        assert str(copied) == str(sweep)


def test_an_iterator_for_two_names(tmp_path: Path) -> None:
    values = iter([1, 2])
    with pytest.raises(ValueError, match="'seed' and 'depth' have the same iterator, which gives its values once only"):
        exca_like.sweep(train(tmp_path), {"seed": values, "depth": values})


@pytest.mark.parametrize(
    ("together", "kind", "said"),
    [
        ([("seed", "depth")], ValueError, "(zip) must be equally many: seed has 2, depth has 1"),
        (("seed", "depth"), TypeError, "give groups of names, even if it is one: zip=[('seed', 'depth')]"),
        ("seed", TypeError, "zip='seed': give groups of names, like zip=[('seed', 'name')]"),
        (3, TypeError, "zip=3: give groups of names"),
        ([3], TypeError, "zip has 3: give groups of names"),
        ([("seed", "dept")], ValueError, "zip names 'dept', which is not in the grid; did you mean 'depth'?"),
        ([("seed",), ("seed",)], ValueError, "zip names 'seed' twice"),
    ],
)
def test_wrong_groups(tmp_path: Path, together: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        exca_like.sweep(train(tmp_path), {"seed": [1, 2], "depth": [3]}, zip=together)


def test_wrong_conditions(tmp_path: Path) -> None:
    def with_where(where: Any) -> None:
        exca_like.sweep(train(tmp_path), {"seed": [1, 2]}, where=where)

    with pytest.raises(TypeError, match=r"where gave None for combination 1 of 2 \(seed=1\): let it return True"):
        with_where(lambda config: None)
    with pytest.raises(ValueError, match=r"where leaves out all 2 combinations of the grid \(seed × 2\)"):
        with_where(lambda config: False)
    with pytest.raises(TypeError, match="where='seed > 1' is no function: give one of a config"):
        with_where("seed > 1")
    with pytest.raises(AttributeError) as caught:
        with_where(lambda config: config.sed)
    assert caught.value.__notes__ == ["`where` raised it for combination 1 of 2 (seed=1)."]


def test_wrong_configs(tmp_path: Path) -> None:
    def of(obj: Any, **more: Any) -> Any:
        return exca_like.sweep(obj, {"seed": [1]}, **more)

    scalar = Scalar(infra={"folder": tmp_path})
    with pytest.raises(
        ValueError, match=r"layers: Input should be a valid list; for one list, write {'layers': \[\[8, 9\]\]}$"
    ):
        exca_like.sweep(scalar, {"layers": [8, 9]})
    with pytest.raises(ValueError, match=r"; for one list, write {'layers': \[\[\.\.\.\]\]}$"):
        exca_like.sweep(scalar, {"layers": range(99)})
    with pytest.raises(ValueError, match=r"combination 2 of 2 \(layers=8\) .*: Input should be a valid list$"):
        exca_like.sweep(scalar, {"layers": [[1], 8]})
    with pytest.raises(TypeError, match=r"not its class: sweep\(Train\(\.\.\.\)"):
        of(Train)
    with pytest.raises(TypeError, match="takes a config, not its infra"):
        of(train(tmp_path).infra)
    with pytest.raises(TypeError, match="and one of type int has none"):
        of(5)
    with pytest.raises(TypeError, match="and one of type Maps has only infra: MapInfra"):
        of(Maps())
    with pytest.raises(ValueError, match=r"no folder to keep results in.*Train\(infra={'folder': 'cache'}\)"):
        of(Train())
    two = Two(infra={"folder": tmp_path}, other={"folder": tmp_path})
    with pytest.raises(TypeError, match="Two has several TaskInfras: choose one with infra='infra' or infra='other'"):
        of(two)
    with pytest.raises(ValueError, match="infra='othr': Two has no TaskInfra of this name; did you mean 'other'"):
        of(two, infra="othr")
    assert of(two, infra="other").submit().results() == [1]


# what is done


@pytest.mark.parametrize("cluster", [None, "local"])
def test_from_plan_to_table(tmp_path: Path, cluster: str | None) -> None:
    base = train(tmp_path, cluster=cluster, cpus_per_task=2, mem_gb=4)
    sweep = exca_like.sweep(base, GRID)
    assert sweep.plan() == SweepPlan(10, 0, 0, 0, 10, 0)
    assert not list(tmp_path.iterdir()), "asking changes nothing"
    with pytest.raises(
        errors.InfraUsageError, match=r"nothing of this sweep of Train\.run was submitted: call submit\(\) first"
    ):
        sweep.wait()
    with pytest.raises(errors.NotCachedError, match=r"10 of 10 configs have no result .* results\(on_error='skip'\)"):
        sweep.results()
    assert sweep.results("skip") == []

    assert sweep.submit().wait(progress=False) is sweep
    plan = sweep.plan()
    assert (plan.cached, plan.running, plan.failed, plan.to_submit) == (8, 0, 2, 0)
    assert plan.core_hours == 0
    ids = [row.job_id for row in sweep.status()]
    assert [row.job_id for row in sweep.submit().status()] == ids, "nothing is submitted twice"
    with pytest.raises(ValueError, match="no 3 with 0.1") as caught:
        sweep.results()
    assert "It is the error of the config with optim.lr=0.1, seed=3, " in caught.value.__notes__[-1]
    assert [result and result["acc"] for result in sweep.results("none")] == [0, 0.1, 0.2, None, 0.4] * 2
    assert len(sweep.results("skip")) == 8
    (group,) = sweep.failures().groups
    assert (group.count, group.type, group.message) == (2, "ValueError", "no 3 with 0.1")
    assert group.uids == (sweep[3].infra.uid(), sweep[8].infra.uid())

    table = sweep.to_df()
    assert list(table) == [
        "optim.lr",
        "seed",
        "depth",
        "status",
        "acc",
        "result.seed",
        "duration",
        "host",
        "time",
        "extra.epoch",
    ]
    assert list(table["seed"]) == [0, 1, 2, 3, 4] * 2
    assert list(table["status"].value_counts().items()) == [("completed", 8), ("failed", 2)]
    assert table["acc"].sum() == pytest.approx(1.4)

    (tmp_path / "mended").touch()
    again = exca_like.sweep(base, GRID)
    assert again.retry_failed(mem_gb=1.5, cpus_per_task=2) is again
    again.wait()
    assert str(again.plan()) == "10 configs: 10 cached, 0 to submit"
    assert len(sweep.results()) == 10
    jobs = {row.job_id.partition("_")[0] for row in sweep.status() if row.job_id}
    assert len(jobs) == (2 if cluster else 0)
    assert not again.failures()


def test_factors_are_of_what_failed(tmp_path: Path) -> None:
    """Whoever asks for twice the memory again, asks for more than the last time; each config for its own."""
    sweep = exca_like.sweep(train(tmp_path, cluster="local", mem_gb=0.5), {"seed": [1, 3, 13]}).submit().wait()
    sweep.retry_failed(mem_gb=2.0, lost=True).wait()
    again = exca_like.sweep(train(tmp_path, cluster="local", mem_gb=0.5, timeout_min=8), {"seed": [1, 3, 23]})
    plan = again.retry_plan(mem_gb=2.0, timeout_min=1.5, slurm_partition="long", lost=True)
    assert [retry.uid for retry in plan] == [again[1].infra.uid(), again[2].infra.uid()]
    assert plan[0].changes == {"mem_gb": (1.0, 2.0), "timeout_min": (8, 12), "slurm_partition": (None, "long")}
    assert plan[1].changes["mem_gb"] == (0.5, 1.0)
    assert str(plan[0]).endswith(": mem_gb=2 (was 1), timeout_min=12 (was 8), slurm_partition='long'")
    assert again.retry_plan()[0].changes == {}
    assert [row.status for row in again.status()] == ["completed", "failed", "not submitted"], "it is only a plan"


def test_retry_mode_submits_what_failed(tmp_path: Path) -> None:
    exca_like.sweep(train(tmp_path), GRID).submit()
    sweep = exca_like.sweep(train(tmp_path, mode="retry"), GRID)
    assert str(sweep.plan()) == "10 configs: 8 cached, 2 to submit, less than 0.1 core-hours"
    (tmp_path / "mended").touch()
    assert str(sweep.submit().plan()) == "10 configs: 10 cached, 0 to submit"


def test_force_mode_submits_all_once(tmp_path: Path) -> None:
    grid = {"seed": range(2)}
    exca_like.sweep(train(tmp_path), grid).submit()
    before = [config.infra.provenance().time for config in exca_like.sweep(train(tmp_path), grid)]
    sweep = exca_like.sweep(train(tmp_path, mode="force"), grid)
    assert sweep.plan().to_submit == 2
    assert sweep.submit().plan().to_submit == 0
    assert all(config.infra.provenance().time > time for config, time in zip(sweep, before, strict=True))


def test_modes_that_compute_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = exca_like.sweep(train(tmp_path, mode="off"), GRID)
    with pytest.raises(errors.InfraUsageError, match="mode='off' keeps no results, which a sweep works with"):
        sweep.submit()
    sweep = exca_like.sweep(train(tmp_path, mode="read-only"), GRID)
    with pytest.raises(errors.InfraUsageError, match="mode='read-only' computes nothing"):
        sweep.submit()
    exca_like.sweep(train(tmp_path), GRID).submit()
    with pytest.raises(errors.InfraUsageError, match="mode='read-only' computes nothing"):
        sweep.retry_failed()
    assert len(sweep.submit().results("skip")) == 8
    monkeypatch.setenv("EXCA_LIKE_MODE", "cached")
    with pytest.raises(errors.InfraUsageError, match="EXCA_LIKE_MODE=cached stands in for the mode"):
        exca_like.sweep(train(tmp_path), GRID).retry_failed()


def test_debugging(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path, cluster="debug"), {"seed": [1, 3]}).submit()
    assert sweep.plan().to_submit == 2, "computed when a result is asked for"
    assert sweep.results("none")[1] is None
    assert str(sweep.plan()) == "2 configs: 1 cached, 1 failed, 0 to submit"
    (tmp_path / "mended").touch()
    assert len(sweep.retry_failed().results()) == 2


def test_private_infras(tmp_path: Path) -> None:
    private = Private()
    private._infra.folder = tmp_path
    private._infra.mem_gb = 2
    sweep = exca_like.sweep(private, {"x": [0, 1]}).submit()
    assert sweep.results("none") == [None, 1.0]
    assert len(sweep.retry_failed(mem_gb=2).failures()) == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"mem_gb": 64},
            "mem_gb=64 is a factor, of the mem_gb=8 that the job asked for, from 0 to 16; did you mean mem_gb=8, for 64?",
        ),
        ({"mem_gb": -1}, "mem_gb=-1 is a factor"),
        ({"cpus_per_task": 2}, "cpus_per_task=2 multiplies what the job asked for, which is not set: set it on the infra"),
        ({"memory_gb": 2}, "'memory_gb' is nothing that a job asks for; did you mean 'mem_gb'?"),
        ({"zzz": 2}, "'zzz' is nothing that a job asks for: there are timeout_min, nodes,"),
        ({"slurm_partition": ["a"]}, "slurm_partition=['a']: Input should be a valid string"),
    ],
)
def test_wrong_resources(tmp_path: Path, wanted: dict[str, Any], said: str) -> None:
    sweep = exca_like.sweep(train(tmp_path, mem_gb=8), {"seed": [3]}).submit()
    with pytest.raises(ValueError, match=re.escape(said)):
        sweep.retry_failed(**wanted)


def test_wrong_names_are_told_when_nothing_failed(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path, mem_gb=8), {"seed": [1]}).submit()
    with pytest.raises(ValueError, match="did you mean 'mem_gb'"):
        sweep.retry_failed(memory_gb=2)


def test_other_wrong_arguments(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path), {"seed": [1]})
    with pytest.raises(ValueError, match="on_error='ignore': use one of 'raise', 'skip', 'none'"):
        sweep.results("ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tasks_per_job=0"):
        sweep.submit(tasks_per_job=0)


def test_cancel_and_time_limits(tmp_path: Path) -> None:
    sweep = exca_like.sweep(Sleep(infra={"folder": tmp_path, "cluster": "local"}), {"x": range(3)})
    assert sweep.cancel() == 0
    sweep.submit()
    assert sweep.plan().running == 3
    counts = sweep.status().counts
    assert counts["running"] + counts["queued"] == 3
    with pytest.raises(TimeoutError, match=r"3 of 3 tasks have not ended within 0\.1 s"):
        sweep.wait(timeout=0.1)
    assert sweep.cancel() == 3
    assert sweep.plan().to_submit == 3, "who submits at once must not be given the jobs that are about to end"
    sweep.wait()
    assert {row.reason for row in sweep.status()} <= {"cancelled", "cancelled: before it started"}


def test_many_jobs_are_cancelled_in_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "scancel"
    command.write_text(f'#!/bin/sh\necho $# >> {tmp_path}/calls\n[ "$1" != 7_0 ] || {{ echo "no such job" >&2; exit 1; }}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("exca_like.executors._PATIENCE_S", 0.0)  # nobody knows of these jobs
    cancel_all([SlurmJob(str(tmp_path), f"{array}_{number}") for array in (3, 4) for number in range(500)][:502])
    assert (tmp_path / "calls").read_text().split() == ["500", "2"]
    with pytest.raises(errors.SubmissionError, match=r"scancel 7_0 7_1 7_2 \.\.\. failed: no such job"):
        cancel_all([SlurmJob(str(tmp_path), f"7_{number}") for number in range(4)])


def test_a_job_that_left_nothing_is_told_before_anybody_waits(tmp_path: Path) -> None:
    sweep = exca_like.sweep(Dies(infra={"folder": tmp_path, "cluster": "local"}), {"x": range(2)}).submit()
    while sweep.plan().running:
        time.sleep(0.05)
    assert [config.infra._store().peek(KEY) for config in sweep] == [None, None]
    (group,) = sweep.failures().groups
    assert (group.count, group.reason, group.traceback) == (2, "failed", "")
    assert "last words" in str(group)
    assert list(sweep.to_df()["status"]) == ["failed"] * 2
    sweep.wait()
    assert [group.count for group in sweep.failures().groups] == [2]


class Dies(pydantic.BaseModel):
    x: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> None:
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)


KILLED = """
import os, sys, time
import test_sweeps as t, exca_like
sweep = exca_like.sweep(t.train(sys.argv[1], cluster="local"), t.GRID, where=lambda config: config.seed != 3)
if sys.argv[2] == "submit":
    sweep[:4].submit()
    os.kill(os.getpid(), 9)
plan = sweep.plan()
print(plan.cached + plan.running, len(sweep.submit().results()))
"""


def test_another_process_goes_on_after_a_kill(tmp_path: Path) -> None:
    def run(what: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parent}"}
        command = [sys.executable, "-c", KILLED, str(tmp_path), what]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert run("submit").returncode == -9
    done = run("go on")
    assert done.stdout == "4 8\n", done.stderr


# tables


def test_tables_of_other_results(tmp_path: Path) -> None:
    sweep = exca_like.sweep(Scalar(infra={"folder": tmp_path}), {"status": ["fine", "array", "none", "text"]})
    assert list(sweep.to_df()) == ["status", "sweep.status", "duration", "host", "time"], "nothing is computed yet"
    table = sweep.submit().to_df()
    assert list(table["status"]) == ["fine", "array", "none", "text"], "the field's own values"
    assert [table["result"][0], table["result"][3]] == [0.5, "yes"]
    assert len(sweep[:0].to_df()) == 0


def test_without_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"pandas, which is not installed: pip install pandas, or use results\(\) and status\(\)"
    ):
        exca_like.sweep(train(tmp_path), GRID).to_df()


def test_texts(tmp_path: Path) -> None:
    sweep = exca_like.sweep(train(tmp_path), {"optim.name": ["word " * 40], "seed": range(200)})
    lines = str(sweep).splitlines()
    assert lines[0] == "Sweep of Train.run, 200 configs: optim.name × 1, seed × 200"
    assert (len(lines), lines[-1]) == (33, "... and 170 more rows")
    assert repr(sweep) == str(sweep)
    sweep[2:4].submit()
    lines = str(sweep[:5].status()).splitlines()
    assert lines[0] == "Train.run, 5 configs: 1 completed, 1 failed, 3 not submitted"
    assert re.fullmatch(r"word [\w .]+\.\.\.  3     failed         \S+ +ValueError: no 3 with 0.1", lines[5])
    assert max(len(line) for line in [*lines, *str(sweep).splitlines()]) <= 100
    assert "red [31m!" in str(exca_like.sweep(train(tmp_path), {"optim.name": ["red\n\x1b[31m!"]}))


def test_many_fields_leave_room_for_the_status() -> None:
    values = {f"a.long.name.of.field_{k}": k * 1.5 for k in range(30)}
    lines = str(SweepStatus("Train.run", [SweepRow(values, "failed", "why " * 30, 1.0, "", "uid")])).splitlines()
    assert max(map(len, lines)) <= 100
    assert "failed" in lines[2]
    assert lines[3].startswith("... and 24 more columns: a.long.name.of.field_6, ")


def test_plans_in_words() -> None:
    assert str(SweepPlan(200, 150, 20, 5, 25, 0, 3.21)) == (
        "200 configs: 150 cached, 20 running or queued, 5 failed, 25 to submit, about 3.2 core-hours"
    )
    assert str(SweepPlan(1, 0, 0, 0, 1, 1, 12345.6)) == "1 config: 1 to submit, about 12,346 core-hours (1 duplicate left out)"


def test_core_hours_are_those_of_what_is_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = exca_like.sweep(train(tmp_path, cpus_per_task=4), {"seed": [0, 1, 2, 5, 6]})
    sweep[:2].submit()
    monkeypatch.setattr(sweep_status, "_stored_duration", lambda infra: {0: 1800.0, 1: 5400.0}[infra._linked_state.owner.seed])
    assert sweep.plan().core_hours == 3 * 1 * 4


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


def test_nothing_of_the_values_is_markup(tmp_path: Path) -> None:
    rich = pytest.importorskip("rich.console")
    bad = "<script>alert('1')</script> [bold]&[/bold]"
    sweep = exca_like.sweep(train(tmp_path), {"optim.name": [bad], "seed": [1]})
    for shown in (sweep, sweep.plan(), sweep.submit().status()):
        tags = Tags()
        tags.feed(shown._repr_html_())
        assert tags.found == {"p", "table", "thead", "tbody", "tr", "th", "td"}
        console = rich.Console(width=200, record=True, file=io.StringIO())
        console.print(shown)
        text = console.export_text()
        assert str(shown).splitlines()[0] in text
        assert bad in text or isinstance(shown, SweepPlan)


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setenv("EXCA_LIKE_PROGRESS", "1")
    monkeypatch.setattr("exca_like.progress.DELAY_S", 0.0)
    sweep = exca_like.sweep(train(tmp_path), GRID).submit()
    assert re.search(r"Train\.run: 100%.* 10/10 .*failed=2", capsys.readouterr().err)
    sweep.wait()
    assert re.search(r"Train\.run: 100%.* 10/10 .*failed=2", capsys.readouterr().err)
    sweep.wait(progress=False)
    assert not capsys.readouterr().err


def test_it_is_typed(tmp_path: Path) -> None:
    seeds: list[int] = [config.seed for config in exca_like.sweep(train(tmp_path), GRID)]
    assert len(seeds) == 10
