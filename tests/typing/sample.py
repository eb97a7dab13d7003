"""What type checkers make of the public API; see test_typing.py."""

from typing import reveal_type

import pydantic

import exca_like


class Train(pydantic.BaseModel):
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> dict[str, float]:
        """Train."""
        return {"loss": 0.1}

    def model_post_init(self, context: object) -> None:
        self.infra.folder = "cache"


class Longer(Train):
    epochs: int = 3
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="2")

    @infra.apply(exclude_from_cache_uid=["epochs"])
    def run(self) -> dict[str, float]:
        return super().run()


class Evaluate(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    def run(self, path: str, *, top: int = 1) -> list[float]:
        return [0.1] * top


class Download(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply()
    @staticmethod
    def run(url: str) -> bytes:
        return url.encode()


def check_submissions() -> None:
    evaluate = Evaluate(infra={"folder": "jobs"})
    reveal_type(evaluate.run("a", top=2))  # list[float]
    evaluate.run(3)  # type: ignore[arg-type]
    reveal_type(Download().run("a"))  # bytes
    reveal_type(evaluate.infra.clone_obj())  # Evaluate
    reveal_type(evaluate.infra.submit("a").result())  # Any
    with evaluate.infra.batch() as jobs:
        reveal_type(jobs[0].done())  # bool


def check() -> None:
    task = Train(seed=1, infra={"folder": "cache"})
    other = Train(infra=exca_like.TaskInfra(folder="cache"))
    reveal_type(task.run())  # dict[str, float]
    reveal_type(Train.run)  # (Train) -> dict[str, float]
    reveal_type(Longer().run())  # dict[str, float]
    reveal_type(task.infra.clone_obj({"seed": 2}))  # Train
    reveal_type(Longer().infra.clone_obj(seed=2))  # Longer
    reveal_type(list(task.infra.iter_cached()))  # list[Train]
    with task.infra.job_array() as array:
        array.append(task)
        reveal_type(array)  # list[Train]
    reveal_type(task.infra.status())  # status
    sweep = exca_like.sweep(task, {"seed": range(2), "lr": [0.1]}, where=lambda config: config.seed > 0)
    reveal_type(sweep[0])  # Train
    reveal_type(list(sweep[:2].submit()))  # list[Train]
    exca_like.sweep(task, {"seed": 1})  # type: ignore[dict-item]
    reveal_type(exca_like.ConfDict(a=1).copy())  # ConfDict


@exca_like.memo
def square(x: int, power: int = 2) -> float:
    return float(x**power)


@exca_like.memo(cluster="slurm", exclude=("verbose",))
def embed(text: str, verbose: bool = False) -> list[float]:
    return [1.0]


class Scorer(pydantic.BaseModel):
    @exca_like.memo
    def score(self, split: str) -> dict[str, float]:
        return {"f1": 0.5}


def check_memo() -> None:
    reveal_type(square(2))  # float
    reveal_type(embed("a", verbose=True))  # list[float]
    square("a")  # type: ignore[arg-type]
    reveal_type(square.submit(3).result())  # float
    reveal_type(list(square.map([1, 2])))  # list[float]
    reveal_type(square.lazy(3).load())  # float
    reveal_type(square.cached(3))  # bool
    reveal_type(Scorer().score("dev"))  # dict[str, float]
    reveal_type(Scorer().score.submit("dev").result())  # dict[str, float]
    Scorer().score(3)  # type: ignore[arg-type]
    reveal_type(square.uncached(3))  # float
