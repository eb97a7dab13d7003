"""The examples of scrat's page, as one would write them with this package: scripts that are run again and again.

What the code of a function leads to counts by itself; ``watch=`` is for what only shows while the program runs.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import exca_like
from exca_like.cachedict import DumpContext


class Project:
    """A folder with scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pyproject.toml").touch()

    def run(self, code: str) -> list[str]:
        (self.folder / "sample.py").write_text(textwrap.dedent(code))
        done = subprocess.run([sys.executable, "sample.py"], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


SLOW_SQUARE = """
    import exca_like

    @exca_like.memo
    def slow_square(a):
        print("called")
        return a**2

    if __name__ == "__main__":
        a = 2
        print(f"the square of {a} is {slow_square(a)}")
"""


def test_basic_usage(project: Project) -> None:
    assert project.run(SLOW_SQUARE) == ["called", "the square of 2 is 4"]
    assert (project.folder / ".exca_like").is_dir()  # where scrat wants `scrat init`
    assert project.run(SLOW_SQUARE) == ["the square of 2 is 4"]
    four = SLOW_SQUARE.replace("a = 2", "a = 4")
    assert project.run(four) == ["called", "the square of 4 is 16"]
    assert project.run(four) == ["the square of 4 is 16"]
    assert project.run(four.replace("a**2", "a**3")) == ["called", "the square of 4 is 64"]
    assert project.run(four) == ["the square of 4 is 16"]
    listing = project.run(SLOW_SQUARE + "        print(slow_square.entries())\n")
    assert [line.split("-")[0] for line in listing[2:]] == ["a=2", "a=4", "a=4"]


SUM_GLOBAL = """
    import exca_like

    GLOBAL_VAR = 2

    @exca_like.memo
    def sum_global(a=1):
        print("Function called")
        return a + GLOBAL_VAR

    if __name__ == "__main__":
        a = 1
        print(f"{a}+{GLOBAL_VAR}={sum_global(1)}")
        GLOBAL_VAR = 3
        print(f"{a}+{GLOBAL_VAR}={sum_global(1)}")
"""


def test_global_variables(project: Project) -> None:
    assert project.run(SUM_GLOBAL)[-1] == "1+3=3"  # set while the program runs
    watched = SUM_GLOBAL.replace("memo", "memo(watch=['GLOBAL_VAR'], version='2')")
    assert project.run(watched) == ["Function called", "1+2=3", "Function called", "1+3=4"]
    assert project.run(watched) == ["1+2=3", "1+3=4"]


def test_global_variables_in_the_source(project: Project) -> None:
    code = SUM_GLOBAL.partition("        GLOBAL_VAR = 3")[0]
    assert project.run(code) == ["Function called", "1+2=3"]
    assert project.run(code.replace("GLOBAL_VAR = 2", "GLOBAL_VAR = 5")) == ["Function called", "1+5=6"]


@pytest.mark.parametrize("decorator", ["memo", "memo(watch=[nested_func])"])
def test_nested_functions(project: Project, decorator: str) -> None:
    code = f"""
        import exca_like

        def nested_func():
            return 2

        @exca_like.{decorator}
        def func(a=1):
            print("Function called")
            return a + nested_func()

        if __name__ == "__main__":
            print(func(1))
    """
    assert project.run(code) == ["Function called", "3"]
    assert project.run(code.replace("return 2", "return 2  # two")) == ["3"]
    assert project.run(code.replace("return 2", "return 3")) == ["Function called", "4"]


def test_a_built_in_serializer(project: Project) -> None:
    code = """
        import exca_like

        @exca_like.memo(cache_type="Json")
        def get_results():
            print("function called")
            return [{"result": 1}, {"result": 2}]

        print(get_results())
    """
    assert project.run(code) == ["function called", "[{'result': 1}, {'result': 2}]"]
    assert project.run(code) == ["[{'result': 1}, {'result': 2}]"]
    (journal,) = project.folder.glob(".exca_like/*/*-info.jsonl")
    assert '[{"result":1},{"result":2}]' in journal.read_text()


def test_the_return_type(project: Project) -> None:
    code = """
        import numpy as np
        import exca_like

        @exca_like.memo
        def np_func(size) -> np.ndarray:
            print("function called")
            return np.eye(size)

        print(np_func(3).tolist())
    """
    eye = "[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]"
    assert project.run(code) == ["function called", eye]
    assert project.run(code) == [eye]
    (journal,) = project.folder.glob(".exca_like/*/*-info.jsonl")
    assert '"#type":"MemmapArray"' in journal.read_text()


@DumpContext.register
class TextArray:
    """A serializer of one's own: arrays as text."""

    @classmethod
    def __dump_info__(cls, ctx, value):
        name = ctx.key_path(".txt")
        np.savetxt(ctx.folder / name, value)
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx, filename):
        return np.loadtxt(ctx.path(filename))


def test_a_custom_serializer(tmp_path: Path) -> None:
    @exca_like.memo(folder=tmp_path, cache_type="TextArray")
    def func():
        return np.ones((3, 3))

    assert np.array_equal(func(), np.ones((3, 3)))
    again = exca_like.memo(folder=tmp_path, cache_type="TextArray", mode="read-only")(func.uncached)
    assert np.array_equal(again(), np.ones((3, 3)))
    (file,) = tmp_path.glob("*/data/**/*.txt")
    assert file.read_text().startswith("1.0")


def test_arguments_that_are_ignored(project: Project) -> None:
    code = """
        import exca_like

        @exca_like.memo(exclude=["verbose"])
        def double(a, verbose):
            print(f"called with verbose={verbose}")
            return a * 2

        print(double(1, verbose=True))
        print(double(1, verbose=False))
    """
    assert project.run(code) == ["called with verbose=True", "2", "2"]


def test_what_arguments_are_recognized_by(tmp_path: Path) -> None:
    @exca_like.memo(folder=tmp_path, key={"a": lambda a: a.round(3)})
    def double(a):
        return a * 2

    first = double(np.array([1.0001]))
    assert np.array_equal(double(np.array([1.0002])), first)  # a hasher of one's own for one parameter
    assert not np.array_equal(double(np.array([1.1])), first)


class Tensor:
    def __init__(self, data, device):
        self.data, self.device = data, device


def test_a_hasher_for_a_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exca_like.content.values._keys, Tensor, lambda tensor: tensor.data)

    @exca_like.memo(folder=tmp_path)
    def double(a):
        return a.data * 2

    double(Tensor(np.arange(10), "cuda:0"))
    assert double.cached(Tensor(np.arange(10), "cpu"))
    assert not double.cached(Tensor(np.arange(11), "cpu"))


def test_methods_count_their_object(tmp_path: Path) -> None:
    import pydantic  # scrat leaves `self` out

    class Model(pydantic.BaseModel):
        x: int

        @exca_like.memo(folder=tmp_path)
        def run(self, factor):
            return self.x * factor

    assert (Model(x=1).run(2), Model(x=3).run(2)) == (2, 6)
