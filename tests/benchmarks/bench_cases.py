"""What is measured: one function per operation, which prepares it for a library and returns a sampler.

A sampler makes a few measurements and returns the fastest, in seconds per operation. The configs of all libraries are
the same class, made by `make_config_class` for each.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import pydantic

Sampler = tp.Callable[[], float]


@dataclasses.dataclass
class Side:
    """One library under test: its config class, a folder of its own, and the size of the run."""

    name: str
    folder: Path
    calls: int  # measurements of one sample, of which the fastest counts
    tasks: int  # tasks of the operations on many of them

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.settings = {"folder": str(self.folder)}
        self.seeds = itertools.count(1)

    def config(self, seed: int | None = None, **infra: tp.Any) -> tp.Any:
        """A new config, unlike all before it unless a seed is given."""
        seed = next(self.seeds) if seed is None else seed
        cls = config_class(self.name)
        return cls(seed=seed, label="first", optim={"lr": 0.01}, infra={**self.settings, **infra})

    def arguments(self, seed: int | None = None) -> dict[str, tp.Any]:
        """The same values as a config's, for libraries that cache functions."""
        seed = next(self.seeds) if seed is None else seed
        names = ("optim_name", "lr", "source", "size", "seed", "depth", "label")
        return dict(zip(names, ("sgd", 0.01, "mnist", 1000, seed, 3, "first"), strict=True))

    def memory(self) -> tp.Any:
        joblib = importlib.import_module("joblib")
        return joblib.Memory(self.folder, verbose=0).cache(train)

    def fastest(self, function: tp.Callable[[], tp.Any], loops: int = 1) -> float:
        times = []
        for _ in range(self.calls):
            started = time.perf_counter()
            for _ in range(loops):
                function()
            times.append((time.perf_counter() - started) / loops)
        return min(times)


class Optim(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = "sgd"
    lr: float = 0.1


class Data(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    source: str = "mnist"
    size: int = 1000


class Plain(pydantic.BaseModel):
    """The config without an infra."""

    model_config = pydantic.ConfigDict(extra="forbid")
    data: Data = Data()
    optim: Optim = Optim()
    seed: int = 0
    depth: int = 3
    label: str = "base"


def make_config_class(library: tp.Any) -> type[pydantic.BaseModel]:
    class Train(Plain):
        infra: library.TaskInfra = library.TaskInfra(version="1")  # type: ignore[name-defined]

        @infra.apply
        def run(self) -> float:
            return self.seed * 0.5

    return Train


def train(optim_name: str, lr: float, source: str, size: int, seed: int, depth: int, label: str) -> float:
    return seed * 0.5


_classes: dict[str, type[pydantic.BaseModel]] = {}


def config_class(library: str) -> type[pydantic.BaseModel]:
    if library not in _classes:
        _classes[library] = make_config_class(importlib.import_module(library))
    return _classes[library]


@dataclasses.dataclass(frozen=True)
class Goal:
    """At least ``factor`` times as fast as exca, or (``most``) at most so many times as long as ``peer`` takes."""

    factor: float
    peer: str = "exca"
    most: bool = False

    def ratio(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.most else theirs / ours

    def is_met(self, ratio: float) -> bool:
        return ratio <= self.factor if self.most else ratio >= self.factor

    def show(self, number: float | None = None) -> str:
        sign = "" if number is not None else "≤ " if self.most else "≥ "
        return f"{sign}{self.factor if number is None else number:.3g} ×" + (f" {self.peer}'s time" if self.most else " faster")


@dataclasses.dataclass(frozen=True)
class Limit:
    """At most so many seconds, or bytes."""

    most: float
    unit: str = "s"
    peer: str = "exca_like"

    def ratio(self, ours: float, theirs: float) -> float:
        return ours

    def is_met(self, ratio: float) -> bool:
        return ratio <= self.most

    def show(self, number: float | None = None) -> str:
        return ("≤ " if number is None else "") + show(self.most if number is None else number, self.unit)


def show(number: float | None, unit: str = "s") -> str:
    if number is None:
        return "-"
    factor = 1.0
    if unit == "s":
        factor, unit = (1, "s") if number >= 1 else (1e3, "ms") if number >= 0.02 else (1e6, "µs")
    number *= factor
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    goals: tuple[Goal | Limit, ...]
    prepare: tp.Callable[[Side], Sampler]
    others: dict[str, tp.Callable[[Side], Sampler]]  # other peers, and the floor: the least that could be done
    rounds: float  # share of the run's rounds
    ours_only: bool  # exca has no such operation, or it is not comparable
    unit: str


CASES: list[Case] = []


def case(
    name: str,
    *goals: Goal | Limit,
    rounds: float = 1,
    ours_only: bool = False,
    unit: str = "s",
    **others: tp.Callable[[Side], Sampler],
) -> tp.Any:
    def register(prepare: tp.Callable[[Side], Sampler]) -> tp.Any:
        CASES.append(Case(name, goals, prepare, others, rounds, ours_only, unit))
        return prepare

    return register


# floors: what the operation would take if the library did nothing beyond it


def process(code: str) -> tp.Callable[[Side], Sampler]:
    """The whole time of a process that runs some code, with ``{}`` for the library's name."""

    def prepare(side: Side) -> Sampler:
        command = [sys.executable, "-c", code.format(side.name)]
        # with bytecode, as for installed packages, wherever the sources are
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(side.folder.parent / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return lambda: side.fastest(lambda: subprocess.run(command, check=True, cwd=side.folder, env=environment))

    return prepare


def validate(side: Side) -> Sampler:
    values = {"seed": 1, "label": "first", "optim": {"lr": 0.01}}
    return lambda: side.fastest(lambda: Plain(**values), 20)


def read_file(side: Side) -> Sampler:
    path = side.folder / "file"
    path.write_bytes(bytes(400))

    def read() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 400)
        os.close(descriptor)

    return lambda: side.fastest(read, 20)


def write_files(side: Side) -> Sampler:
    """A folder that appears with three files, and a fourth file that appears in it."""

    def create(path: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, bytes(400))
        os.close(descriptor)

    def write() -> None:
        folder = f"{side.folder}/{next(side.seeds)}"
        os.mkdir(folder + ".tmp")
        for name in ("a", "b", "c"):
            create(f"{folder}.tmp/{name}")
        os.rename(folder + ".tmp", folder)
        create(f"{folder}/d.tmp")
        os.rename(f"{folder}/d.tmp", f"{folder}/d")

    return lambda: side.fastest(write)


def joblib_first(side: Side) -> Sampler:
    cached = side.memory()
    cached(**side.arguments())  # the function's folder and source
    return lambda: side.fastest(lambda: cached(**side.arguments()))


def joblib_hit(side: Side) -> Sampler:
    cached = side.memory()
    cached(**side.arguments(seed=0))
    return lambda: side.fastest(lambda: cached(**side.arguments(seed=0)))


# operations

ONE_MODEL = "import pydantic\nclass A(pydantic.BaseModel): x: int = 1"

case("import the package (process)", Goal(0.15, most=True), rounds=0.3, floor=process("pass"))(process("import {}"))
case("import TaskInfra (process)", Goal(0.55, most=True), rounds=0.3, floor=process(ONE_MODEL))(
    process("from {} import TaskInfra")
)


@case("new config + uid()", Goal(14), floor=validate)
def config_and_uid(side: Side) -> Sampler:
    return lambda: side.fastest(lambda: side.config().infra.uid())


@case("clone_obj, 2 changes", Goal(10), floor=validate)
def clone_obj(side: Side) -> Sampler:
    infra = side.config().infra
    return lambda: side.fastest(lambda: infra.clone_obj({"optim.lr": 0.5, "seed": next(side.seeds)}))


@case("task: first compute + store", Goal(9), Goal(1.1, "joblib", most=True), joblib=joblib_first, floor=write_files)
def first_compute(side: Side) -> Sampler:
    side.config().run()
    return lambda: side.fastest(lambda: side.config().run())


@case("task: hit, fresh object, disk", Goal(30), Goal(0.8, "joblib", most=True), joblib=joblib_hit, floor=read_file)
def fresh_hit(side: Side) -> Sampler:
    side.config(seed=0).run()
    return lambda: side.fastest(lambda: side.config(seed=0).run())


@case("task: hit, same object, disk", Goal(4), floor=read_file)
def same_hit(side: Side) -> Sampler:
    config = side.config()
    config.run()
    return lambda: side.fastest(config.run, 5)


@case("task: provenance, per result", Limit(60e-6), ours_only=True)
def provenance(side: Side) -> Sampler:
    """All that is done for it: what a result would take to be stored without it is not part of the time."""
    library, runs, lines = (importlib.import_module(f"{side.name}.{name}") for name in ("recording", "runs", "cachedict.lines"))

    @library.noted_here
    def note() -> None:
        recording = library.Recording(runs.Run(str(side.folder), runs.source_of(train)))
        library.record(best_epoch=7, loss=0.5)
        lines.seal({"#meta": recording.information()})

    return lambda: side.fastest(note, 20)


def plain_call(side: Side) -> Sampler:
    return lambda: side.fastest(lambda: None, 1000)


@case("task: hit in RAM", Goal(1.4), floor=plain_call)
def ram_hit(side: Side) -> Sampler:
    config = side.config(keep_in_ram=True)
    config.run()
    return lambda: side.fastest(lambda: config.run(), 1000)


@case("resubmit of computed tasks, per task", Goal(10), rounds=0.15)
def resubmit(side: Side) -> Sampler:
    for seed in range(side.tasks):
        side.config(seed).run()

    def sample() -> float:
        started = time.perf_counter()
        with side.config(0).infra.job_array() as array:
            array.extend(side.config(seed, cluster="local") for seed in range(side.tasks))
        duration = time.perf_counter() - started
        assert not (side.folder / "logs").exists(), f"{side.name} submitted something"
        return duration / side.tasks

    return sample


@case("sweep of 1,000 configs, 500 of them cached: plan", Limit(1.0), rounds=0.15, ours_only=True)
def sweep_plan(side: Side) -> Sampler:
    make = importlib.import_module(side.name).sweep
    half = side.tasks // 2
    base = side.config(0)
    make(base, {"seed": range(half)}).submit()

    def plan() -> None:
        found = make(base, {"optim.lr": [0.01, 0.02], "seed": range(half)}).plan()
        assert (found.cached, found.to_submit) == (half, half)

    return lambda: side.fastest(plan)


@case("iter_cached, per task", Goal(40), rounds=0.15)
def iter_cached(side: Side) -> Sampler:
    for seed in range(side.tasks):
        side.config(seed).run()

    def sample() -> float:
        started = time.perf_counter()
        found = list(side.config(0).infra.iter_cached())
        duration = time.perf_counter() - started
        assert len(found) == side.tasks
        return duration / side.tasks

    return sample
