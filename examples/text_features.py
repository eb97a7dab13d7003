"""Word statistics of the Python standard library: one array per source file, each computed once.

    python examples/text_features.py                        # all files, in a pool of processes
    python examples/text_features.py                        # again: nothing is computed
    python examples/text_features.py --cluster slurm        # the same in jobs, from an empty --folder

Stop it half-way, and the next run goes on where it was. Install another release of
Python, and only the files that changed are read.
"""

import argparse
import collections
import hashlib
import io
import math
import sys
import sysconfig
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

import exca_like

STDLIB = Path(sysconfig.get_path("stdlib"))
# Keywords and names to count: what they are says what kind of code it is.
WORDS = (
    *("def", "class", "return", "if", "for", "while", "import", "try", "raise", "with"),
    *("lambda", "yield", "assert", "async", "await", "None", "self", "cls", "len", "int"),
    *("str", "bytes", "isinstance", "print", "range", "open"),
)
SUMS = ("bytes of the file", "lines", "words", "distinct words", "bits per character")


def file_uid(path: str) -> str:
    """The key of a file: its name for people, and its content, so that a changed file is a new item."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return f"{Path(path).relative_to(STDLIB).as_posix()}-{digest[:16]}"


class TextFeatures(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    words: tuple[str, ...] = WORDS
    # Where and how process() is computed. None of it is part of the cache key, except
    # the version: change it when the code below changes its results.
    infra: exca_like.MapInfra = exca_like.MapInfra(version="1")

    @infra.apply(item_uid=file_uid)
    def process(self, paths: list[str]) -> Iterator[np.ndarray | None]:
        """For each file, numbers in the order of SUMS, then how often each of the words is there."""
        for path in paths:
            content = Path(path).read_bytes()
            try:
                found = words_of(content)
            except (SyntaxError, tokenize.TokenError):
                yield None  # a broken file, made for tests of the parser: a result like others
                continue
            count = collections.Counter(found)
            sums = [len(content), content.count(b"\n"), len(found), len(count), entropy(content)]
            yield np.array([*sums, *(count[word] for word in self.words)], dtype=np.float32)


def words_of(content: bytes) -> list[str]:
    """Keywords and names in a source file; text in strings and comments does not count."""
    tokens = tokenize.tokenize(io.BytesIO(content).readline)
    return [token.string for token in tokens if token.type == tokenize.NAME]


def entropy(content: bytes) -> float:
    """Bits per character of a file, as if its characters were drawn one by one."""
    shares = np.array(list(collections.Counter(content).values())) / max(1, len(content))
    return float(-(shares * np.log2(shares)).sum())


def library_files(number: int | None) -> list[str]:
    """Some source files, evenly spread over all, or all of them."""
    found = STDLIB.rglob("*.py")
    paths = sorted(str(path) for path in found if "site-packages" not in path.parts)
    if number is None or number >= len(paths):
        return paths
    return [paths[k * len(paths) // number] for k in range(number)]


def package(path: str) -> str:
    """The part of the library that a file belongs to."""
    parts = Path(path).relative_to(STDLIB).parts
    if {"test", "tests", "idle_test"} & set(parts):
        return "tests"
    return parts[0] if len(parts) > 1 else "single modules"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("text_out"))
    parser.add_argument("--cluster", default="processpool", help="processpool, threadpool, slurm, local, auto or none")
    parser.add_argument("--files", type=int, help="so many files, instead of all")
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "folder": args.folder / "cache",
        "cluster": None if args.cluster == "none" else args.cluster,
        "max_jobs": 8,
        "min_samples_per_job": 20,  # a file takes some 6 ms, a job a second or more to begin
        "cpus_per_task": 1,
        "mem_gb": 1,
        "timeout_min": 10,
    }
    features = TextFeatures(infra=config)
    paths = library_files(args.files)

    # Say what will run before it runs.
    keys = [features.infra.item_uid(path) for path in paths]
    todo = len(features.infra.cache_dict.missing(keys))
    line = f"{len(paths)} files of Python {sys.version.split()[0]}: {len(paths) - todo} cached, {todo} to compute"
    print(line + (f" ({args.cluster})" if todo else ""), flush=True)

    start = time.perf_counter()
    rows: list[np.ndarray] = []
    parts: list[str] = []
    for path, row in zip(paths, features.process(paths), strict=True):
        if row is not None and row[SUMS.index("words")] > 0:
            rows.append(row)
            parts.append(package(path))
    print(f"{len(rows)} of them have words; {'computed' if todo else 'read'} in {time.perf_counter() - start:.1f} s")
    if len(rows) < 2:
        return 1

    table = np.array(rows, dtype=float)
    groups = by_package(table, parts)
    show(groups, features.words)
    print(f"plot: {plot(table, parts, groups, features.words, args.folder)}")
    return 0


Groups = dict[str, np.ndarray]  # sums of the rows of a package, and in the end the number of its files


def by_package(table: np.ndarray, parts: list[str], top: int = 14) -> Groups:
    """The largest packages, by their words."""
    groups: Groups = {}
    for name in sorted(set(parts)):
        members = table[[part == name for part in parts]]
        groups[name] = np.append(members.sum(axis=0), len(members))
    largest = sorted(groups, key=lambda name: -groups[name][SUMS.index("words")])
    return {name: groups[name] for name in largest[:top]}


def surplus(groups: Groups) -> np.ndarray:
    """How much more often each word is used in a package than in a typical one: log2, with a row per package."""
    counts = np.array([group[len(SUMS) : -1] for group in groups.values()])
    words = np.array([group[SUMS.index("words")] for group in groups.values()])
    typical = np.maximum((counts / words[:, None]).mean(axis=0), 1e-9)  # the tests are many: they count as one package
    smooth = 5  # as if each package had five more of each word, among as many words as usual: few words prove little
    shares = (counts + smooth) / (words[:, None] + smooth / typical)
    more: np.ndarray = np.log2(shares / typical)
    return more


def show(groups: Groups, words: tuple[str, ...]) -> None:
    """Print a line per package."""
    print("package         files    words  words/line  used more than elsewhere")
    for (name, group), more in zip(groups.items(), surplus(groups), strict=True):
        n_words, n_lines = group[SUMS.index("words")], group[SUMS.index("lines")]
        best = [k for k in np.argsort(-more)[:3] if more[k] > 0.3]
        special = ", ".join(f"{words[k]} x{2 ** more[k]:.1f}" for k in best)
        print(f"{name:<15} {group[-1]:5.0f} {n_words:8.0f} {n_words / n_lines:11.1f}  {special}")


def plot(table: np.ndarray, parts: list[str], groups: Groups, words: tuple[str, ...], folder: Path) -> Path:
    """Draw the vocabulary of each file over its length, and the words that packages are fond of."""
    # The name depends on what is drawn: a file that exists is the right one already.
    drawn = table.tobytes() + repr((parts, words)).encode()
    path = folder / f"words-{hashlib.sha256(drawn).hexdigest()[:8]}.png"
    if path.exists():
        return path
    import matplotlib  # only here: slow to import

    matplotlib.use("Agg")  # no display needed
    from matplotlib import pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained", width_ratios=[1, 1.5])

    # Heaps' law: the vocabulary of a text grows like a power of its length.
    length, vocabulary = table[:, SUMS.index("words")], table[:, SUMS.index("distinct words")]
    is_test = np.array([part == "tests" for part in parts])
    for members, color, label in ((~is_test, "tab:blue", "library"), (is_test, "tab:orange", "its tests")):
        left.scatter(length[members], vocabulary[members], s=7, alpha=0.5, color=color, label=label, linewidths=0)
    long = length >= 50  # in short files all words are new
    if long.sum() > 2 and np.ptp(length[long]) > 0:
        power, offset = np.polyfit(np.log(length[long]), np.log(vocabulary[long]), 1)
        x = np.array([50, length.max()])
        left.plot(x, math.exp(offset) * x**power, color="black", lw=1.2, label=f"∝ words$^{{{power:.2f}}}$")
    left.set(xscale="log", yscale="log", xlabel="words in the file", ylabel="distinct words")
    left.set_title("Vocabulary grows slower than the file")
    left.legend(loc="upper left", markerscale=2)

    more = surplus(groups)
    order = np.argsort(-np.abs(more).max(axis=0), kind="stable")[:18]
    order = np.sort(order)
    image = right.imshow(more[:, order], cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
    right.set_xticks(range(len(order)), [words[k] for k in order], rotation=60, ha="right", rotation_mode="anchor")
    right.set_yticks(range(len(groups)), list(groups))
    right.set_title("Words that a part of the library uses more, or less, than others do")
    bar = fig.colorbar(image, label="how much more often", extend="both")
    bar.set_ticks([-4, -2, 0, 2, 4], labels=["1/16", "1/4", "same", "4 x", "16 x"])
    fig.savefig(path, dpi=100)
    return path


if __name__ == "__main__":
    sys.exit(main())
