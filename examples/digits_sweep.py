"""Train 48 small classifiers of handwritten digits, each of them once.

    python examples/digits_sweep.py                                   # 48 trainings
    python examples/digits_sweep.py                                   # again: none
    python examples/digits_sweep.py --lr 0.0001 0.001 0.01 0.1 1      # 12 more

The experiment is a pydantic model, and its configuration is the key of its cache: the
same values are never computed twice. The trainings run on Slurm where there is one,
else in processes on this machine.
"""

import argparse
import collections
import hashlib
import itertools
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

# One thread per training: the matrices are tiny, and several trainings share the
# machine. This must come before numpy is imported; the jobs inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pydantic

import exca_like

DIGITS = Path(__file__).resolve().parent / "data" / "digits.csv.gz"


class Config(pydantic.BaseModel):
    """Base of all configurations: a misspelt field is an error, not a new cache."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Data(Config):
    test_fraction: float = pydantic.Field(default=0.2, gt=0, lt=1)
    seed: int = 0  # of the split: all experiments see the same one

    def load(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Training images and labels, test images and labels."""
        table = np.loadtxt(DIGITS, delimiter=",")
        table = table[np.random.default_rng(self.seed).permutation(len(table))]
        x, y = table[:, :-1] / 16, table[:, -1].astype(int)
        n = round(self.test_fraction * len(table))
        return x[n:], y[n:], x[:n], y[:n]


class Softmax(Config):
    """A linear classifier: softmax regression."""

    kind: Literal["softmax"] = "softmax"
    l2: pydantic.NonNegativeFloat = 0.0

    def sizes(self) -> list[int]:
        return [64, 10]


class Mlp(Config):
    """One hidden layer of ReLU units."""

    kind: Literal["mlp"] = "mlp"
    hidden: pydantic.PositiveInt = 32
    l2: pydantic.NonNegativeFloat = 0.0

    def sizes(self) -> list[int]:
        return [64, self.hidden, 10]


class Optimizer(Config):
    """Stochastic gradient descent with momentum."""

    lr: pydantic.PositiveFloat = 0.01
    momentum: float = pydantic.Field(default=0.9, ge=0, lt=1)
    epochs: pydantic.PositiveInt = 150
    batch_size: pydantic.PositiveInt = 16


class Experiment(Config):
    data: Data = Data()
    # "kind" says which of the two models a configuration describes.
    model: Annotated[Softmax | Mlp, pydantic.Field(discriminator="kind")] = Softmax()
    optim: Optimizer = Optimizer()
    seed: int = 0  # of the initial weights and of the order of the batches
    # Where and how run() is computed. None of it is part of the cache key, except the
    # version: change it when the code below changes its results.
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def run(self) -> dict[str, float]:
        start, opt = time.perf_counter(), self.optim
        x, y, x_test, y_test = self.data.load()
        rng = np.random.default_rng(self.seed)  # same seed, same result
        weights: list[np.ndarray] = []  # a matrix and a bias per layer
        for a, b in itertools.pairwise(self.model.sizes()):
            weights += [rng.normal(0, (2 / a) ** 0.5, (a, b)), np.zeros(b)]
        speeds = [np.zeros_like(w) for w in weights]
        for _ in range(opt.epochs):
            order = rng.permutation(len(x))
            for k in range(0, len(x), opt.batch_size):
                batch = order[k : k + opt.batch_size]
                grads = gradients(weights, x[batch], y[batch], self.model.l2)
                for weight, speed, grad in zip(weights, speeds, grads, strict=True):
                    speed *= opt.momentum
                    speed -= opt.lr * grad
                    weight += speed
        p_train = forward(weights, x)[-1][np.arange(len(y)), y]
        guess = forward(weights, x_test)[-1].argmax(axis=1)
        return {
            "accuracy": float(np.mean(guess == y_test)),  # on the test images
            "loss": float(-np.log(np.maximum(p_train, 1e-12)).mean()),  # training
            "seconds": time.perf_counter() - start,
        }


def forward(weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """The input of each layer, then the probabilities of the ten digits."""
    outputs = [x]
    for k in range(0, len(weights), 2):
        if k:
            outputs[-1] = np.maximum(outputs[-1], 0)  # ReLU between two layers
        outputs.append(outputs[-1] @ weights[k] + weights[k + 1])
    scores = np.exp(outputs[-1] - outputs[-1].max(axis=1, keepdims=True))
    return [*outputs[:-1], scores / scores.sum(axis=1, keepdims=True)]


def gradients(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, l2: float) -> list[np.ndarray]:
    """Gradients of cross-entropy plus L2 penalty, in the order of the weights."""
    *inputs, delta = forward(weights, x)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    grads: list[np.ndarray] = []
    for k in reversed(range(0, len(weights), 2)):
        x = inputs[k // 2]
        grads = [x.T @ delta + l2 * weights[k], delta.sum(axis=0), *grads]
        delta = (delta @ weights[k].T) * (x > 0)
    return grads


# Rows of the heat map: a name, and what it means for the configuration.
MODELS: dict[str, dict[str, Any]] = {
    "softmax": {"kind": "softmax"},
    "softmax, l2 0.001": {"kind": "softmax", "l2": 0.001},
    "softmax, l2 0.01": {"kind": "softmax", "l2": 0.01},
    "mlp, 8 hidden": {"kind": "mlp", "hidden": 8},
    "mlp, 32 hidden": {"kind": "mlp", "hidden": 32},
    "mlp, 128 hidden": {"kind": "mlp", "hidden": 128},
}
LRS = [0.0001, 0.01, 0.1, 1.0]
Key = tuple[str, float, int]  # name of the model, learning rate, seed
Results = dict[Key, dict[str, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("digits_out"))
    parser.add_argument("--cluster", default="auto", help="auto, slurm, local or none")
    parser.add_argument("--lr", type=float, nargs="+", help="learning rates to try")
    parser.add_argument("--quick", action="store_true", help="a tiny grid")
    args = parser.parse_args()
    names = list(MODELS)[::4] if args.quick else list(MODELS)
    lrs = sorted(set(args.lr or (LRS[1:3] if args.quick else LRS)))
    seeds = range(1 if args.quick else 2)

    args.folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "optim": {"epochs": 3} if args.quick else {},
        "infra": {
            "folder": args.folder / "cache",
            "cluster": None if args.cluster == "none" else args.cluster,
            "mode": "retry",  # what failed in an earlier run is tried again
            "cpus_per_task": 1,
            "mem_gb": 1,
            "timeout_min": 10,
        },
    }
    base = Experiment(**config)
    grid: dict[Key, Experiment] = {
        (name, lr, seed): base.infra.clone_obj({"model": MODELS[name], "optim.lr": lr, "seed": seed})
        for name, lr, seed in itertools.product(names, lrs, seeds)
    }

    # Say what will run before it runs.
    before = {key: task.infra.status() for key, task in grid.items()}
    count = collections.Counter(before.values())
    todo = len(grid) - count["completed"] - count["running"]
    line = f"grid: {len(grid)} experiments: {count['completed']} cached, "
    line += f"{count['running']} running, {todo} to compute"
    if todo:
        executor = base.infra.executor()  # None: no cluster
        line += f" on {executor.cluster if executor else 'this process'}"
    print(line, flush=True)

    new = [task for key, task in grid.items() if before[key] != "completed"]
    if new:
        with base.infra.job_array() as array:
            for task in new:
                array.append(task)  # submitted together, at the end of the block
        watch(new)

    # All is computed now: run() only reads the cache.
    after = {key: task.infra.status() for key, task in grid.items()}
    results = {key: grid[key].run() for key in grid if after[key] == "completed"}
    if results:
        show_best(results)
        print(f"heat map: {heat_map(results, names, lrs, args.folder)}")
    failed = [task for key, task in grid.items() if key not in results]
    if failed:
        print(f"{len(failed)} failed. The first, {failed[0].infra.uid()}:")
        print(failed[0].infra.job().exception())
    return 1 if failed else 0


def watch(tasks: list[Experiment]) -> None:
    """Show how many tasks are over, until all of them are."""
    start, total, failed, shown = time.monotonic(), len(tasks), 0, -1
    tty = sys.stdout.isatty()
    while shown < total:
        states = [task.infra.status() for task in tasks]
        failed += states.count("failed")
        tasks = [task for task, state in zip(tasks, states, strict=True) if state == "running"]
        done = total - len(tasks)
        # One line that is refreshed on a terminal, a line every 10 % in a log file.
        if tty or 10 * done // total > 10 * shown // total:
            seconds = time.monotonic() - start
            line = f"{done:4d}/{total} done, {failed} failed, {seconds:.0f} s"
            print(line, end="\r" if tty and tasks else "\n", flush=True)
            shown = done
        if tasks:
            time.sleep(0.3)


def show_best(results: Results, top: int = 10) -> None:
    """Print the table of the best experiments."""
    print("accuracy     loss  model                  lr  seed  seconds")
    best = sorted(results, key=lambda k: (-results[k]["accuracy"], results[k]["loss"]))
    for key in best[:top]:
        res, (name, lr, seed) = results[key], key
        line = f"{res['accuracy']:8.2%}  {res['loss']:7.4f}  {name:<17}  {lr:6g}"
        print(f"{line}  {seed:4d}  {res['seconds']:7.2f}")
    if len(best) > top:
        print(f"... and {len(best) - top} others")


def heat_map(results: Results, names: list[str], lrs: list[float], folder: Path) -> Path:
    """Draw the accuracies: a row per model, a column per learning rate."""
    values = np.full((len(names), len(lrs)), np.nan)
    for i, j in np.ndindex(values.shape):
        runs = [r for key, r in results.items() if key[:2] == (names[i], lrs[j])]
        if runs:
            values[i, j] = sum(r["accuracy"] for r in runs) / len(runs)
    # The name depends on what is drawn: a file that exists is the right one already.
    drawn = repr((names, lrs, values.tolist(), len(results))).encode()
    path = folder / f"accuracy-{hashlib.sha256(drawn).hexdigest()[:8]}.png"
    if path.exists():
        return path
    import matplotlib  # only here: slow to import

    matplotlib.use("Agg")  # no display needed
    from matplotlib import colors
    from matplotlib import pyplot as plt

    # Most of what matters is between 90 % and 99 %: the colours follow the logarithm
    # of the error, on a fixed scale.
    error = np.clip(1 - values, 0.01, 1)
    size = (3.6 + 0.9 * len(lrs), 1.6 + 0.5 * len(names))
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    norm = colors.LogNorm(0.01, 1)
    image = ax.imshow(error, cmap="viridis_r", norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = "failed" if np.isnan(value) else f"{value:.1%}"
        color = "white" if error[i, j] > 0.1 else "black"
        ax.text(j, i, text, ha="center", va="center", color=color)
    ax.set_xticks(range(len(lrs)), [f"{lr:g}" for lr in lrs])
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="learning rate", title=f"UCI handwritten digits, {len(results)} runs")
    bar = fig.colorbar(image, label="test accuracy, mean over seeds")
    ticks = [0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
    bar.set_ticks(ticks, labels=[f"{1 - tick:.0%}" for tick in ticks])
    bar.minorticks_off()
    fig.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    sys.exit(main())
