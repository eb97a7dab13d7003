"""Fingerprints of code: which edits they notice, and which they don't."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from exca_like.code.fingerprint import Fingerprint, confirmed, fingerprint
from exca_like.code.loaded import is_stale
from exca_like.code.modules import Modules, note_loaded
from exca_like.code.packages import shortened

PACKAGE = "fp_project"
# one project that reaches its own code in all ways
FILES = {
    "__init__": "from .exported import shown as exported\n",
    "exported": "def shown(x):\n    return x + 1\n",
    "helpers": """
        import math
        from typing import Literal
        from .kinds import Kind

        def add(x, y=1):
            '''Adds.'''
            return x + y + nested(x)

        def nested(x):
            # a comment
            return x

        def unused(x):
            return x

        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        def fallback(x=[1]):
            return x

        def typed(x: 'Literal["int"]', y: dict[str, list[int] | None]) -> 'list[Kind]':
            return x

        def local_only(x):
            return x * 7

        def star_made(x):
            return math.floor(x)
    """,
    "kinds": "class Kind:\n    size = 1\n",
    "starred": "def by_star(x):\n    return x\n",
    "sibling": "def f(x):\n    return x\n\nVALUE = 3\n",
    "shapes": """
        import abc
        from .decorators import traced

        class Base(abc.ABC):
            unit = 1

            def area(self):
                return self.unit

            def named(self):
                return 'base'

        class Square(Base):
            def __init__(self, side=2):
                self.side = side

            @traced
            def area(self):
                return self.side ** 2 * super().area()

            @property
            def half(self):
                return self.side / 2

            class Options:
                depth = 3
    """,
    "decorators": """
        import functools

        def traced(function):
            @functools.wraps(function)
            def inner(*args):
                return function(*args)
            return inner
    """,
    "tables": """
        from .sibling import VALUE

        SIZES = {'small': VALUE}
        SIZES['large'] = 10
        NAMES = []
        NAMES.append('a')
        LIMIT = 5
        LIMIT = 6
        if LIMIT > 3:
            MODE = 'fast'
        else:
            MODE = 'slow'
        try:
            import missing_library as lib
        except ImportError:
            lib = None
        UNUSED = 1
        twice = lambda x: 2 * x
        made = [twice(i) for i in range(3)]
        LEVELS = 2
        level = 1
        if LEVELS:
            level = 2
        if __name__ == '__main__':
            LIMIT = 100
    """,
    "main": """
        import fp_project.sibling as s
        from fp_project import exported, shapes
        from . import sibling, tables
        from .helpers import add as plus, even
        from .starred import *

        SCALE = 2
        OTHER = 3

        def run(x, start=SCALE, *, scale=lambda v: v * 10):
            from .helpers import local_only
            import fp_project.helpers

            def inner(y):
                return y - 4

            total = plus(x) + s.f(x) + sibling.VALUE + exported(x) + by_star(x) + local_only(x)
            total += sum(value + 5 for value in tables.SIZES.values()) + len(tables.NAMES) + tables.LIMIT
            total += tables.twice(2) + len(tables.MODE) + (tables.lib is None) + sum(tables.made)
            total += len(fp_project.helpers.fallback()) + inner(x) + (fp_project.helpers.typed('int') != 'int')
            square: 'shapes.Square' = shapes.Square()
            if even(4):
                total += square.area()
            try:
                total += tables.level
            except ZeroDivisionError:
                pass
            return total, f'{total:>{start}}'

        def other():
            return OTHER
    """,
}

NOTICED = [
    ("the function itself", "main", "y - 4", "y - 5", "main.run"),
    ("a constant in it", "main", "value + 5", "value + 6", "main.run"),
    ("a lambda in it", "main", "v * 10", "v * 11", "main.run"),
    ("the format of an f-string", "main", ":>{start}", ":<{start}", "main.run"),
    ("its parameters", "main", "run(x, start", "run(x, begin", "main.run"),
    ("a default argument", "main", "SCALE = 2", "SCALE = 4", "main.SCALE"),
    ("a function imported under another name", "helpers", "x + y + nested(x)", "x - y + nested(x)", "helpers.add"),
    (
        "a function that it calls in turn",
        "helpers",
        "    return x\n\ndef unused",
        "    return x + 0.5\n\ndef unused",
        "helpers.nested",
    ),
    ("a default argument of a function", "helpers", "y=1", "y=2", "helpers.add"),
    ("import m as x; x.f()", "sibling", "return x", "return -x", "sibling.f"),
    ("from . import m; m.CONSTANT", "sibling", "VALUE = 3", "VALUE = 4", "sibling.VALUE"),
    ("a function that the package exports", "exported", "x + 1", "x + 2", "exported.shown"),
    ("what the package exports", "__init__", "exported import shown", "starred import by_star", "main.run"),
    ("from m import *", "starred", "return x", "return x or 1", "starred.by_star"),
    ("an import in the function", "helpers", "x * 7", "x * 8", "helpers.local_only"),
    ("import a.b; a.b.f()", "helpers", "x=[1]", "x=[1, 2]", "helpers.fallback"),
    ("mutual recursion", "helpers", "n != 0 and", "n > 0 and", "helpers.odd"),
    ("a method", "shapes", "self.side ** 2", "self.side ** 3", "shapes.Square.area"),
    ("a method that nothing names", "shapes", "self.side / 2", "self.side / 3", "shapes.Square.half"),
    ("__init__", "shapes", "side=2", "side=5", "shapes.Square.__init__"),
    ("a method of a base class", "shapes", "return self.unit", "return self.unit + 1", "shapes.Base.area"),
    ("an attribute of a base class", "shapes", "unit = 1", "unit = 2", "shapes.Base"),
    ("the bases of a class", "shapes", "class Square(Base)", "class Square(object)", "shapes.Square"),
    ("a nested class", "shapes", "depth = 3", "depth = 4", "shapes.Square"),
    ("a decorator", "decorators", "return function(*args)", "return -function(*args)", "decorators.traced"),
    ("a decorator taken away", "shapes", "    @traced\n", "", "shapes.Square.area"),
    ("a dictionary", "tables", "{'small': VALUE}", "{'tiny': VALUE}", "tables.SIZES"),
    ("a dictionary that is filled later", "tables", "['large'] = 10", "['large'] = 11", "tables.SIZES"),
    ("a list that is changed later", "tables", "append('a')", "append('b')", "tables.NAMES"),
    ("the last of two assignments", "tables", "LIMIT = 6", "LIMIT = 7", "tables.LIMIT"),
    ("a condition", "tables", "LIMIT > 3", "LIMIT > 4", "tables.MODE"),
    ("a branch", "tables", "'slow'", "'slower'", "tables.MODE"),
    ("a branch instead of another", "tables", "if LEVELS:\n", "if LEVELS:\n    pass\nelse:\n", "tables.level"),
    ("what an annotation says", "helpers", "list[int] | None", "list[int]", "helpers.typed"),
    ("what a quoted annotation says", "helpers", "-> 'list[Kind]'", "-> 'set[Kind]'", "helpers.typed"),
    ("a text in a literal type", "helpers", 'Literal["int"]', "Literal[int]", "helpers.typed"),
    ("a class in a quoted annotation", "kinds", "size = 1", "size = 2", "kinds.Kind"),
    ("a lambda with a name", "tables", "2 * x", "3 * x", "tables.twice"),
    ("a constant made from others", "tables", "range(3)", "range(4)", "tables.made"),
    ("where a name is imported from", "main", "fp_project.sibling as s", "fp_project.starred as s", "main.run"),
    ("the library behind a name", "helpers", "import math\n", "import cmath as math\n", None),
]
UNNOTICED = [
    ("a comment", "helpers", "# a comment", "# another one"),
    ("a docstring", "helpers", "'''Adds.'''", "'''Adds two numbers.'''"),
    ("a docstring taken away", "helpers", "    '''Adds.'''\n", ""),
    ("the format", "helpers", "return x + y + nested(x)", "return (\n        x + y\n        + nested( x )\n    )"),
    ("quotes", "main", "'shapes.Square'", '"shapes.Square"'),
    ("quotes taken away", "main", "'shapes.Square'", "shapes.Square"),
    ("quotes of a return", "helpers", "'list[Kind]'", "list[Kind]"),
    ("quotes in an annotation", "helpers", "dict[str, list[int] | None]", "dict['str', 'list[\"int\"] | None']"),
    ("quotes around a literal type", "helpers", "'Literal[\"int\"]'", "Literal['int']"),
    ("else: pass", "main", "total += square.area()\n", "total += square.area()\n    else:\n        pass\n"),
    ("finally: pass", "main", "        pass\n    return total", "        pass\n    finally:\n        pass\n    return total"),
    ("else: pass in a module", "tables", "    level = 2\n", "    level = 2\nelse:\n    pass\n"),
    ("what only a script does", "tables", "LIMIT = 100", "LIMIT = 200"),
    ("that a script does something", "tables", "if __name__ == '__main__':\n    LIMIT = 100\n", ""),
    ("a function that is not reached", "helpers", "def unused(x):\n    return x", "def unused(x):\n    return -x"),
    ("a constant that is not reached", "tables", "UNUSED = 1", "UNUSED = 2"),
    ("the first of two assignments", "tables", "LIMIT = 5", "LIMIT = 4"),
    ("another function of the module", "main", "return OTHER", "return -OTHER"),
    (
        "an import that is not used",
        "main",
        "from . import sibling, tables",
        "import os\nfrom . import helpers, sibling, tables",
    ),
    ("lines between functions", "helpers", "def nested", "\n\n\n# here\ndef nested"),
    ("the order of functions", "helpers", "def unused(x):\n    return x\n\n", ""),
    ("what nobody imports any more", "helpers", "import math\n", "import math\nimport json\n"),
]


def write(folder: Path, files: dict[str, str] = FILES) -> Path:
    package = folder / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text).lstrip())
    return package


@pytest.fixture
def project(tmp_path, monkeypatch):
    package = write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()


def now(module: str = "main", function: str = "run") -> Fingerprint:
    """The fingerprint as a new process would find it."""
    forget()
    return fingerprint([getattr(importlib.import_module(f"{PACKAGE}.{module}"), function)])


def edit(package: Path, module: str, old: str, new: str) -> None:
    path = package / f"{module}.py"
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))


def changed(before: Fingerprint, after: Fingerprint) -> set[str]:
    symbols = (
        {label: one.digest for label, one in before.symbols.items()},
        {label: one.digest for label, one in after.symbols.items()},
    )
    return {label for label, _ in symbols[0].items() ^ symbols[1].items()}


@pytest.mark.parametrize(("module", "old", "new", "label"), [case[1:] for case in NOTICED], ids=[case[0] for case in NOTICED])
def test_edits_are_noticed_and_named(project, module, old, new, label):
    before = now()
    edit(project, module, old, new)
    after = now()
    if label is None:  # it is not reached
        assert after.digest == before.digest
        before = now("helpers", "star_made")
        edit(project, module, new, old)
        after, label = now("helpers", "star_made"), "helpers.star_made"
    assert after.digest != before.digest
    assert f"{PACKAGE}.{label}" in changed(before, after)
    assert len(changed(before, after)) <= 4


@pytest.mark.parametrize(("module", "old", "new"), [case[1:] for case in UNNOTICED], ids=[case[0] for case in UNNOTICED])
def test_other_edits_make_no_difference(project, module, old, new):
    before = now()
    edit(project, module, old, new)
    assert changed(before, now()) == set()
    assert now().digest == before.digest


def test_the_text_of_symbols_is_kept(project):
    symbols = now().symbols
    assert symbols[f"{PACKAGE}.helpers.nested"].text == "def nested(x):\n    # a comment\n    return x"
    assert symbols[f"{PACKAGE}.shapes.Square"].text.startswith("class Square(Base):\n    class Options:")
    assert "@traced" in symbols[f"{PACKAGE}.shapes.Square.area"].text


CONFIGS = """
    import pydantic
    import exca_like
    from .helpers import add

    class Optimizer(pydantic.BaseModel):
        lr: float = 0.1

        def step(self, x):
            return x * self.lr

        def describe(self):
            return 'an optimizer'

    class Momentum(Optimizer):
        def step(self, x):
            return x + 1

    class Train(pydantic.BaseModel):
        seed: int = 0
        optim: Optimizer = Optimizer()
        infra: exca_like.TaskInfra = exca_like.TaskInfra(version='1')

        @pydantic.field_validator('seed')
        @classmethod
        def check(cls, value):
            return abs(value)

        @infra.apply
        def run(self):
            return self.optim.step(self.start()) + getattr(self, 'bonus')()

        def start(self):
            return add(self.seed)

        def bonus(self):
            return 1

        def plot(self):
            return 'a figure'

        def __len__(self):
            return 3
"""


class TestConfigs:
    @pytest.fixture
    def project(self, tmp_path, monkeypatch):
        package = write(tmp_path, FILES | {"configs": CONFIGS})
        monkeypatch.syspath_prepend(str(tmp_path))
        yield package
        forget()

    def now(self) -> Fingerprint:
        forget()
        configs = importlib.import_module(f"{PACKAGE}.configs")
        return fingerprint([configs.Train.run, configs.Train, configs.Momentum])

    @pytest.mark.parametrize(
        ("old", "new", "label"),
        [
            ("self.optim.step(", "-self.optim.step(", "Train.run"),
            ("add(self.seed)", "add(-self.seed)", "Train.start"),
            ("return 1", "return 2", "Train.bonus"),
            ("abs(value)", "-abs(value)", "Train.check"),
            ("return 3", "return 4", "Train.__len__"),
            ("x * self.lr", "x / self.lr", "Optimizer.step"),
            ("return x + 1", "return x + 2", "Momentum.step"),
            ("seed: int = 0", "seed: float = 0", "Train.seed"),
        ],
    )
    def test_methods_that_are_used_count(self, project, old, new, label):
        before = self.now()
        edit(project, "configs", old, new)
        assert changed(before, self.now()) == {f"{PACKAGE}.configs.{label}"}

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("'a figure'", "'another figure'"),
            ("'an optimizer'", "'the optimizer'"),
            ("TaskInfra(version='1')", "TaskInfra(version='1', gpus_per_node=8)"),
            ("@infra.apply\n", "@infra.apply(exclude_from_cache_uid=['seed'])\n"),
        ],
    )
    def test_others_do_not(self, project, old, new):
        before = self.now()
        edit(project, "configs", old, new)
        assert self.now().digest == before.digest

    def test_methods_that_are_called_by_computed_names_count(self, project):
        edit(project, "configs", "getattr(self, 'bonus')()", "getattr(self, 'bo' + 'nus')()")
        before = self.now()
        edit(project, "configs", "'a figure'", "'another figure'")
        assert changed(before, self.now()) == {f"{PACKAGE}.configs.Train.plot"}


# where code is


SCRIPT = """
    import sys
    from exca_like.code.fingerprint import fingerprint
    from fp_project.main import run

    SIZE = 3

    def script(x):
        return run(x) + helper(x)

    def helper(x):
        return x + SIZE

    if __name__ == '__main__':
        found = fingerprint([script], 'none')
        import json
        print(json.dumps([found.digest, sorted(found.symbols)]))
"""


def run_script(folder: Path, *python: str) -> tuple[str, list[str]]:
    root = str(Path(fingerprint.__code__.co_filename).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*(python or (sys.executable,)), "script.py"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    digest, labels = json.loads(done.stdout)
    return digest, labels


def other_pythons() -> list[str]:
    """Interpreters of other versions on this machine that could run this package."""
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    found += map(str, Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python"))
    versions = {}
    for path in filter(None, found):
        done = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        version = tuple(map(int, done.stdout.split())) if done.returncode == 0 else (0, 0)
        if version >= (3, 11) and version != sys.version_info[:2]:
            versions[version] = path
    return list(versions.values())


def test_processes_and_folders_make_no_difference(tmp_path):
    found = set()
    for folder in (tmp_path / "here", tmp_path / "there" / "deeper"):
        write(folder)
        (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
        for _ in range(2):
            digest, labels = run_script(folder)
            found.add(digest)
    assert len(found) == 1
    assert {"script.script", "script.helper", "script.SIZE", "fp_project.main.run"} <= set(labels)


def test_what_a_script_does_counts_while_it_runs(tmp_path):
    write(tmp_path)
    script = textwrap.dedent(SCRIPT).replace("__main__':\n", "__main__':\n    SIZE = 4\n")
    (tmp_path / "script.py").write_text(script)
    before = run_script(tmp_path)
    (tmp_path / "script.py").write_text(script.replace("SIZE = 4", "SIZE = 5"))
    assert run_script(tmp_path)[0] != before[0]


@pytest.mark.skipif(not other_pythons(), reason="there is no other version of Python that could run this package")
def test_versions_of_python_make_no_difference(tmp_path):
    write(tmp_path)
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    expected = run_script(tmp_path)
    for python in other_pythons():
        assert run_script(tmp_path, python) == expected, python


def test_a_real_package_takes_less_than_a_second(tmp_path):
    """The figures are those of tests/benchmarks; this one looks at what is found."""
    import _pytest

    shutil.copytree(Path(_pytest.__file__).parent, tmp_path / "_pytest", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        import json
        from exca_like.code.fingerprint import fingerprint
        import _pytest.config
        found = fingerprint([_pytest.config.main], 'none')
        print(json.dumps([found.digest, sorted({file.module for file in found.files})]))
    """)
    )
    digest, modules = run_script(tmp_path)
    assert len(modules) > 40
    path = tmp_path / "_pytest" / "config" / "__init__.py"
    path.write_text(path.read_text().replace("def _prepareconfig(", "# here\ndef _prepareconfig("))
    assert run_script(tmp_path)[0] == digest
    path.write_text(path.read_text().replace("def _prepareconfig(", "def _prepareconfig(other, "))
    assert "other, " in path.read_text()
    assert run_script(tmp_path)[0] != digest


# notebooks


SHELL = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell
import exca_like.code.reach
from exca_like.code.fingerprint import fingerprint

shell = InteractiveShell.instance()
shell.history_manager.enabled = False
for cells in json.load(sys.stdin):
    if not os.fork():
        for cell in cells:
            shell.run_cell(cell, store_history=True)
        shell.user_ns["fingerprint"] = fingerprint
        shell.run_cell("found = fingerprint([run], 'none')", store_history=True)
        found = shell.user_ns["found"]
        print("\\n" + json.dumps({"digest": found.digest, **{name: one.text for name, one in found.symbols.items()}}), flush=True)
        os._exit(0)
    os.wait()
"""
RUN = "def helper(x):\n    return x * LIMIT\n\ndef run(x):\n    return helper(x) + 1"
EDITED = RUN.replace("x * LIMIT", "x / LIMIT")
# cells, and what they make another thing of than these two
NOTEBOOK = ["LIMIT = 3", RUN]
NOTEBOOKS = [
    (["LIMIT = 3", EDITED], {"helper"}),
    ([*NOTEBOOK, "LIMIT += 1", "LIMIT += 1"], {"LIMIT"}),
    # magics
    (["LIMIT = 3", f"%%time\n{RUN}"], set()),
    (["%%time\nLIMIT = 3", f"%%capture out\n%precision 3\n{EDITED}"], {"helper"}),
    (["%precision 3\n!true\nLIMIT = 3\nfiles = !true\nhow = %pwd", RUN], set()),
    (["%time LIMIT = 4", RUN], {"LIMIT"}),
    ([*NOTEBOOK, f"%%timeit -n1 -r1\n{EDITED}", f"%%html\n{EDITED}"], set()),
    # what has failed
    ([*NOTEBOOK, f"1 / 0\n{EDITED}"], set()),
    ([*NOTEBOOK, "1 / 0; LIMIT = 4"], set()),
    ([*NOTEBOOK, f"%%time\n1 / 0\n@str\n{EDITED}\nLIMIT = [4]"], set()),
    (
        [
            *NOTEBOOK,
            "class A:\n    def f(self):\n        pass",
            "1 / 0\nclass A:\n    def f(self):\n        return 0\nLIMIT = [4]",
        ],
        set(),
    ),
    (["LIMIT = 3", f"{EDITED}\n1 / 0\nclass Unmade: pass\nLIMIT = [4]"], {"helper"}),
    ([*NOTEBOOK, f"1 / 0\n{EDITED}", EDITED], {"helper"}),
    # what is run again
    ([*NOTEBOOK, "LIMIT = 4", "LIMIT = 3"], set()),
    ([*NOTEBOOK, EDITED, RUN, "LIMIT = 3", RUN], set()),
    ([*NOTEBOOK, "LIMITS = {}", "LIMITS[1] = 2", RUN.replace("LIMIT", "len(LIMITS)")], {"helper", "LIMIT", "LIMITS"}),
    (
        [*NOTEBOOK, "LIMITS = {}", "LIMITS[1] = 2", "LIMITS[1] = 2", RUN.replace("LIMIT", "len(LIMITS)")],
        {"helper", "LIMIT", "LIMITS"},
    ),
]


@pytest.fixture(scope="module")
def notebooks() -> list[dict[str, str]]:
    """The digest of `run` as notebooks have it when their cells were run, and the texts of its symbols."""
    pytest.importorskip("IPython")
    root = str(Path(fingerprint.__code__.co_filename).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "IPYTHONDIR": os.devnull}
    cells = json.dumps([NOTEBOOK, *(cells for cells, _ in NOTEBOOKS)])
    command = [sys.executable, "-W", "ignore", "-c", SHELL]
    done = subprocess.run(command, input=cells, env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"digest"')]
    assert len(found) == len(NOTEBOOKS) + 1, done.stdout + done.stderr
    assert found[0].keys() == {"digest", "__main__.run", "__main__.helper", "__main__.LIMIT"}
    return found


@pytest.mark.parametrize("number", range(len(NOTEBOOKS)), ids=[" | ".join(cells) for cells, _ in NOTEBOOKS])
def test_cells_of_notebooks(notebooks, number):
    expected, found = notebooks[0], notebooks[number + 1]
    differing = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)} - {"digest"}
    assert {name.removeprefix("__main__.") for name in differing} == NOTEBOOKS[number][1], found
    assert (found["digest"] == expected["digest"]) == (not differing)


def test_cells_that_are_run_again_make_no_difference(notebooks):
    assert notebooks[-1] == notebooks[-2]


# the code that runs is the code that was loaded


def test_an_edit_counts_when_the_module_is_imported_again(project):
    before = now()
    main = sys.modules[f"{PACKAGE}.main"]
    edit(project, "helpers", "x + y + nested(x)", "x - y + nested(x)")
    assert fingerprint([main.run]).digest == before.digest
    importlib.reload(sys.modules[f"{PACKAGE}.helpers"])
    assert f"{PACKAGE}.helpers.add" in changed(before, fingerprint([main.run]))


def test_what_was_edited_after_the_import_does_not_count_as_it_is_now(project):
    forget()
    main = importlib.import_module(f"{PACKAGE}.main")
    edit(project, "helpers", "x + y + nested(x)", "x - y + nested(x)")  # before the first look
    found = fingerprint([main.run])
    assert found.stale == (f"{PACKAGE}.helpers",)
    assert f"{PACKAGE}.helpers.add" not in found.symbols
    assert found.digest != now().digest


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("x + y", "x - y", True),
        ("# a comment", "# another", False),
        ("'''Adds.'''", "'''Sums.'''", False),
        ("y=1", "y=2", True),
    ],
)
def test_stale_modules_are_told_by_what_functions_do(project, old, new, expected):
    forget()
    importlib.import_module(f"{PACKAGE}.helpers")
    edit(project, "helpers", old, new)
    assert is_stale(Modules()[f"{PACKAGE}.helpers"]) == expected


def test_constants_that_were_edited_after_the_import_are_noticed(project):
    forget()
    importlib.import_module(f"{PACKAGE}.sibling")
    edit(project, "sibling", "VALUE = 3", "VALUE = 4")
    assert is_stale(Modules()[f"{PACKAGE}.sibling"])


def test_values_that_are_not_what_is_written_are_not_stale(project):
    text = """
        import enum
        import typing

        class Kind(enum.Enum):
            FIRST = 1

        class Number(enum.IntEnum):
            ONE = 1

        @typing.overload
        def get(x: int, y: int = ...) -> int: ...
        @typing.overload
        def get(x: str, y: int = ...) -> str: ...
        def get(x, y=1):
            return x
    """
    (project / "kinds.py").write_text(textwrap.dedent(text))
    forget()
    importlib.import_module(f"{PACKAGE}.kinds")
    assert not is_stale(Modules()[f"{PACKAGE}.kinds"])
    edit(project, "kinds", "y=1)", "y=2)")
    assert is_stale(Modules()[f"{PACKAGE}.kinds"])


def test_code_without_a_source():
    namespace: dict = {"__name__": "nowhere"}
    exec("def helper(x):\n    return x\n\ndef run(x):\n    'Runs.'\n    return helper(x)", namespace)
    first = fingerprint([namespace["run"]])
    assert set(first.symbols) == {"nowhere.run", "nowhere.helper"}
    exec("def helper(x):\n    return x + 1", namespace)
    assert changed(first, fingerprint([namespace["run"]])) == {"nowhere.helper"}


def test_local_functions(project):
    def make(offset):
        def helper(x):
            return x + 1

        def run(x):
            return helper(x) + offset

        return run

    found = fingerprint([make(1)])
    labels = {label.rpartition("make.<locals>.")[2] for label in found.symbols}
    assert {"run", "helper"} <= labels
    assert fingerprint([make(2)]) is found  # its variables are arguments, in a way


def test_lambdas_are_told_apart():
    first, second = (lambda x: x + 1), (lambda x: x + 2)
    assert fingerprint([first]).digest != fingerprint([second]).digest


def test_other_things_count_by_their_classes():
    import functools

    import numpy

    assert fingerprint([len]).symbols == {}
    assert set(fingerprint([numpy.add]).packages) == {"numpy"}
    assert len(fingerprint([functools.partial(write, 3)]).symbols) > 1


class TestJobs:
    """Another process gets code by name, and may find other files."""

    def test_nothing_changed(self, project):
        sent = now()
        assert confirmed(sent, [sys.modules[f"{PACKAGE}.main"].run]) is sent

    def test_something_was_edited_meanwhile(self, project):
        sent = now()
        edit(project, "helpers", "x + y + nested(x)", "x - y + nested(x)")
        forget()
        found = confirmed(sent, [importlib.import_module(f"{PACKAGE}.main").run])
        assert f"{PACKAGE}.helpers.add" in changed(sent, found)

    def test_touched_only(self, project):
        sent = now()
        os.utime(project / "helpers.py", (1, 1))
        forget()
        assert confirmed(sent, [importlib.import_module(f"{PACKAGE}.main").run]).digest == sent.digest


@pytest.mark.parametrize(
    ("version", "precision", "expected"),
    [
        ("1.2.3", "major", "1"),
        ("0.4.1", "major", "0.4"),
        ("0.0.7", "major", "0.0.7"),
        ("2.1.0+cu12", "patch", "2.1.0"),
        ("2.1.0rc1", "minor", "2.1"),
        ("2024.8", "minor", "2024.8"),
        ("", "minor", ""),
    ],
)
def test_precision(version, precision, expected):
    assert shortened(version, precision) == expected


def test_packages_count_as_precisely_as_asked(monkeypatch):
    from exca_like.code import fingerprint as module

    versions = {"numpy": "1.2.3"}
    monkeypatch.setattr(module, "version_of", lambda name: versions[name])

    def digest(precision):
        monkeypatch.setattr(module, "_known", {})
        import numpy

        return fingerprint([numpy.add], precision).digest

    before = {precision: digest(precision) for precision in ("none", "major", "minor", "patch")}
    versions["numpy"] = "1.3.0"
    assert {precision for precision, known in before.items() if digest(precision) != known} == {"minor", "patch"}
    versions["numpy"] = "2.0.0"
    assert {precision for precision, known in before.items() if digest(precision) != known} == {"major", "minor", "patch"}


class TestModulesOfOnesOwn:
    """What was met in strange projects."""

    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        names: set[str] = set()

        def save(name: str, text: str):
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
            importlib.invalidate_caches()
            dotted = name.replace("/", ".")
            names.add(dotted)
            sys.modules.pop(dotted, None)
            return importlib.import_module(dotted)

        yield save
        for name in names:
            sys.modules.pop(name, None)

    def test_names_of_pythons_own_modules(self, module):
        def text(value):
            return f"def helper():\n    return {value}\n\ndef run():\n    return helper()\n"

        first = fingerprint([module("wave_reader/chunk", text(1)).run])  # chunk and wave are names of Python's
        assert first.digest != fingerprint([module("wave_reader/chunk", text(2)).run]).digest
        first = fingerprint([module("nturl2path", text(1)).run])
        assert "nturl2path.helper" in changed(first, fingerprint([module("nturl2path", text(2)).run]))

    def test_what_was_loaded_counts_whatever_the_file_says_now(self, module, tmp_path):
        loaded = module("fp_loaded", "LAYERS = [64, 64]\n\ndef run():\n    return sum(LAYERS)\n")
        note_loaded()
        (tmp_path / "fp_loaded.py").write_text("LAYERS = [128]\n\ndef run():\n    return sum(LAYERS)\n")
        found = fingerprint([loaded.run])
        assert found.symbols["fp_loaded.LAYERS"].text == "LAYERS = [64, 64]"
        again = module("fp_loaded", "LAYERS = [128]\n\ndef run():\n    return sum(LAYERS)\n")
        assert fingerprint([again.run]).symbols["fp_loaded.LAYERS"].text == "LAYERS = [128]"

    def test_objects_that_run_code_when_they_are_asked(self, module):
        text = """
            class Proxy:
                def __getattr__(self, name):
                    raise RuntimeError("outside of a request")

            request = Proxy()

            def run():
                return 1
        """
        assert fingerprint([module("fp_proxy", text).run]).symbols

    def test_groups_of_exceptions(self, module):
        text = "try:\n    K = 1\nexcept* ValueError:\n    K = 2\n\ndef run():\n    return K\n"
        first = fingerprint([module("fp_groups", text).run])
        assert "fp_groups.K" in changed(first, fingerprint([module("fp_groups", text.replace("K = 2", "K = 3")).run]))

    def test_counters_do_not_make_a_module_look_edited(self, module):
        text = """
            _model = None

            def load():
                global _model
                _model = 3

            def run():
                return 1

            load()
        """
        found = fingerprint([module("fp_counter", text).run])
        assert (set(found.symbols), found.stale) == ({"fp_counter.run"}, ())

    def test_packages_that_are_passed_on(self, module):
        module("fp_inner/part", "K = 1\n")
        module("fp_inner/__init__", "from .part import K\n")
        sys.modules.pop("fp_inner", None)
        run = module("fp_outer", "import fp_inner\n\ndef run(f):\n    return f(fp_inner)\n").run
        assert "fp_inner.part.K" in fingerprint([run]).symbols

    def test_names_in_the_bodies_of_configs(self, module):
        text = """
            import pydantic

            class Config(pydantic.BaseModel):
                lr: float = 0.1

                def slow(self):
                    return 1

                go = slow

                def run(self):
                    return self.go()
        """
        Config = module("fp_config", text).Config
        assert {"fp_config.Config.slow", "fp_config.Config.lr"} <= set(fingerprint([Config.run, Config]).symbols)

    @pytest.mark.parametrize(
        ("start", "row", "end"),
        [
            ("TABLE = [", "    {0},", "]"),
            ("TABLE: list[tuple[int, str]] = [", "    ({0}, -{0}.5, None, '\x0c\u2028'),", "]"),
            ("TABLE = dict(rows={", "    {0}: [{0}],", "})"),
            ("TABLE = (", "    {0},", ") + (1,)"),
        ],
    )
    def test_large_tables(self, module, start, row, end):
        def text(changed):
            rows = "\n".join(row.format(100_000 + (changed if number == 19_990 else number)) for number in range(20_000))
            return f"{start}\n{rows}\n{end}\n\ndef run():\n    return TABLE\n"

        first = fingerprint([module("fp_table", text(7)).run])
        assert fingerprint([module("fp_table", text(7)).run]).digest == first.digest
        assert len(first.symbols["fp_table.TABLE"].text) < 2000
        assert first.stale == ()
        assert changed(first, fingerprint([module("fp_table", text(8)).run])) == {"fp_table.TABLE"}

    def test_names_in_large_tables(self, module):
        text = f"def one():\n    return 1\n\nTABLE = [{'one, 100_000, ' * 10_000}]\n\ndef run():\n    return TABLE\n"
        first = fingerprint([module("fp_names", text).run])
        assert changed(first, fingerprint([module("fp_names", text.replace("return 1", "return 2")).run])) == {"fp_names.one"}

    REGISTRY = """
        MODELS = {}
        ORDER = []
        HOOKS = {}

        def register(name):
            def inner(function):
                if name in MODELS:
                    raise ValueError(name)
                MODELS[name] = function
                return function
            return inner

        def later(function):
            ORDER.append(function)
            HOOKS.setdefault("all", []).append(function)

        @register("one")
        def _(x):
            return 1

        @register("two")
        def _(x):
            return 2

        @register("three")
        class Three:
            def __init__(self):
                self.value = 3

        def four():
            return 4

        later(four)
        HOOKS.setdefault("first", []).append(lambda: 5)

        class Base:
            known = {}

            def __init_subclass__(cls):
                cls.known[cls.__name__] = cls

            @classmethod
            def make(cls, name):
                return cls.known[name]()

        class Middle(Base):
            pass

        class Six(Middle):
            def run(self):
                return 6

        class Plain:
            def __init_subclass__(cls):
                HOOKS[cls.__name__] = cls

        class Seven(Plain):
            value = 7

        class Patched:
            before = 8
            kept = 9

        Patched.before = 10
        Patched.itself = Patched

        def by_name(name):
            return MODELS[name]()

        def in_order():
            return [one() for one in ORDER]

        def hooks():
            return HOOKS

        def made(name):
            return Base.make(name)

        def patched():
            return Patched.before
    """

    @pytest.mark.parametrize(
        ("function", "old", "new"),
        [
            ("by_name", "return 1", "return -1"),
            ("by_name", "return 2", "return -2"),
            ("by_name", '"two"', '"second"'),
            ("by_name", "value = 3", "value = -3"),
            ("in_order", "return 4", "return -4"),
            ("in_order", "later(four)", ""),
            ("hooks", "lambda: 5", "lambda: -5"),
            ("hooks", "return 4", "return -4"),
            ("hooks", "value = 7", "value = -7"),
            ("made", "return 6", "return -6"),
            ("patched", "before = 8", "before = -8"),
            ("patched", "kept = 9", "kept = -9"),
            ("patched", "before = 10", "before = -10"),
        ],
    )
    def test_registries_that_their_module_fills(self, module, function, old, new):
        first = fingerprint([getattr(module("fp_registry", self.REGISTRY), function)])
        assert self.REGISTRY.count(old) == 1
        again = fingerprint([getattr(module("fp_registry", self.REGISTRY.replace(old, new)), function)])
        assert changed(first, again)

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("four", "return 1", "return -1"),
            ("Three", "return 1", "return -1"),
            ("Middle", "return 6", "return -6"),
            ("Seven", "return 4", "return -4"),
            ("by_name", "return 4", "return -4"),
        ],
    )
    def test_what_is_registered_does_not_depend_on_the_others(self, module, name, old, new):
        first = fingerprint([getattr(module("fp_registry", self.REGISTRY), name)])
        assert not changed(first, fingerprint([getattr(module("fp_registry", self.REGISTRY.replace(old, new)), name)]))
