"""Results that were computed by other code than there is now: taken, told of, or computed again."""

import collections
import contextlib
import importlib
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

import exca_like
from exca_like import errors, watching

PACKAGE = "watched_project"
MODULES = {
    "__init__": "",
    "gate": """
        import os
        import time

        while os.path.exists(CLOSED):
            time.sleep(0.01)
    """,
    "helpers": """
        FACTOR = 2

        def scale(x):
            # a comment
            return x * FACTOR

        def hidden(x):
            return x + 100

        LEVEL = 7
    """,
    "parts": """
        import pydantic

        import exca_like

        class Optim(exca_like.helpers.DiscriminatedModel):
            model_config = pydantic.ConfigDict(extra="forbid")
            lr: float = 0.5

            def step(self, x):
                return x + self.lr

        class Momentum(Optim):
            beta: float = 0.0

            def step(self, x):
                return x + self.beta
    """,
    "tasks": """
        import os
        import typing

        import pydantic
        import exca_like
        from watched_project import gate
        from watched_project import helpers, parts
        from watched_project.helpers import scale

        LIMIT = 10

        class Applies(pydantic.BaseModel):
            function: typing.Callable
            infra: exca_like.TaskInfra = exca_like.TaskInfra()

            @infra.apply
            def run(self):
                return self.function(1)

        class Train(pydantic.BaseModel):
            x: int = 3
            optim: parts.Optim = parts.Optim()
            infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

            @infra.apply
            def run(self):
                return self.optim.step(scale(self.x))

        class Watching(pydantic.BaseModel):
            infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

            @infra.apply(watch=[helpers.hidden, "LIMIT", "helpers.LEVEL"])
            def run(self):
                found = vars(helpers)
                return [globals()["LIM" + "IT"], found["LEV" + "EL"], found["hid" + "den"](0)]

        class Each(pydantic.BaseModel):
            infra: exca_like.MapInfra = exca_like.MapInfra(version="1")

            @infra.apply(item_uid=str)
            def process(self, items: list[int]):
                for item in items:
                    yield scale(item)
    """,
    "memos": """
        import dataclasses

        import exca_like
        from watched_project import gate
        from watched_project.helpers import scale

        LIMIT = 10

        @dataclasses.dataclass
        class Data:
            x: int = 1

            def value(self):
                return self.x + 1

        def shift(x):
            return x + 1

        @exca_like.memo
        def run(x):
            return scale(x)

        @exca_like.memo
        def applied(function, x):
            return function(x)

        @exca_like.memo
        def of_data(data):
            return data.value()

        @exca_like.memo
        def outer(x):
            return run(x) + 1

        @exca_like.memo(watch=["LIMIT"])
        def limited(x):
            return min(x, globals()["LIM" + "IT"])
    """,
}
HELPER = ("helpers", "x * FACTOR", "x * FACTOR + 1")
CONSTANT = ("helpers", "FACTOR = 2", "FACTOR = 30")


class Project:
    """A package of a user, its cache, and sessions that import it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / PACKAGE
        self.cache = folder / "cache"
        self.package.mkdir()
        (folder / "pyproject.toml").touch()
        for name, text in MODULES.items():
            text = text.replace("CLOSED", repr(f"{folder}/closed"))
            (self.package / f"{name}.py").write_text(textwrap.dedent(text).lstrip())

    def edit(self, module: str, old: str, new: str) -> None:
        path = self.package / f"{module}.py"
        text = path.read_text()
        assert text.count(old) == 1, text
        path.with_suffix(".new").write_text(text.replace(old, new))
        path.with_suffix(".new").replace(path)  # as editors do

    def session(self, module: str) -> Any:
        """A module as a new process would have it, which has warned of nothing yet."""
        forget()
        return importlib.import_module(f"{PACKAGE}.{module}")

    def task(self, name: str = "Train", *, infra: Any = {}, **fields: Any) -> Any:
        """A config in a new session."""
        return getattr(self.session("tasks"), name)(infra={"folder": self.cache, **infra}, **fields)

    def records(self) -> list[Path]:
        return sorted(self.cache.glob("provenance/code-*.json"))

    def run(self, code: str) -> tuple[list[str], str]:
        """What a script prints, and its warnings."""
        (self.folder / "script.py").write_text(textwrap.dedent(code))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()
    watching._told.clear()
    watching._kept.clear()


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is edited twice in a second has the same time for it
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield Project(tmp_path)
    forget()


@contextlib.contextmanager
def told(*symbols: str, times: int = 1):
    """Expects so many warnings, which name all of these."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found
    assert [warning.category for warning in found] == [errors.CodeChangedWarning] * times, list(map(str, found))
    for warning in found:
        for symbol in symbols:
            assert f"{PACKAGE}.{symbol}" in str(warning.message)


class TestTasksWarn:
    def test_the_stored_result_is_taken_and_the_change_is_named(self, project):
        assert project.task().run() == 6.5
        project.edit(*HELPER)
        task = project.task()
        with told("helpers.scale was changed", "tasks.Train.run") as found:
            assert task.run() == 6.5
        assert found[0].filename == __file__
        assert "explain()" in str(found[0].message)
        assert "mode='force'" in str(found[0].message)

    def test_once_for_each_change(self, project):
        for x in (1, 2):
            project.task(x=x).run()
        project.edit(*HELPER)
        first = project.task(x=1)
        second = type(first)(x=2, infra={"folder": project.cache})
        with told("helpers.scale"):
            assert [first.run(), second.run(), first.run(), first.infra.clone_obj().run()] == [2.5, 4.5, 2.5, 2.5]
        project.edit("helpers", "FACTOR = 2", "FACTOR = 20")
        with told("helpers.scale", "helpers.FACTOR"):
            project.task(x=1).run()

    def test_computing_again_ends_it(self, project):
        project.task().run()
        project.edit(*HELPER)
        assert project.task(infra={"mode": "force"}).run() == 7.5
        assert project.task().run() == 7.5
        project.edit(HELPER[0], *reversed(HELPER[1:]))
        with told("helpers.scale"):
            assert project.task().run() == 7.5

    def test_a_new_version_ends_it(self, project):
        project.task().run()
        project.edit(*HELPER)
        assert project.task(infra={"version": "2"}).run() == 7.5

    @pytest.mark.parametrize(
        ("module", "old", "new"),
        [
            ("helpers", "# a comment", "# another"),
            ("helpers", "def hidden", "def other():\n    return 1\n\n\ndef hidden"),
            ("helpers", "x + 100", "x + 200"),
            (
                "tasks",
                'TaskInfra(version="1")\n\n    @infra.apply\n',
                'TaskInfra(version="1", mem_gb=3)\n\n    @infra.apply()\n',
            ),
            ("tasks", "import os\n", "import os\nimport json\n"),
        ],
    )
    def test_edits_that_make_no_difference_are_silent(self, project, module, old, new):
        project.task().run()
        project.edit(module, old, new)
        assert project.task().run() == 6.5

    def test_a_result_is_asked_for_without_a_call(self, project):
        project.task().run()
        project.edit(*HELPER)
        task = project.task()
        assert task.infra.status() == "completed"  # asking is silent
        with told("helpers.scale"):
            job = task.infra.job()
        assert job.result() == 6.5
        with told("helpers.scale"):
            assert project.task(infra={"cluster": "local"}).run() == 6.5

    def test_it_can_be_an_error(self, project):
        project.task().run()
        project.edit(*HELPER)
        task = project.task()
        with warnings.catch_warnings():
            warnings.simplefilter("error", errors.CodeChangedWarning)
            with pytest.raises(errors.CodeChangedWarning, match="scale"):
                task.run()

    def test_a_config_of_another_module(self, project):
        project.task().run()
        project.edit("parts", "x + self.lr", "x - self.lr")
        with told("parts.Optim.step"):
            assert project.task().run() == 6.5

    def test_a_subclass_that_was_given_as_a_part(self, project):
        def make():
            tasks = project.session("tasks")
            return tasks.Train(optim=tasks.parts.Momentum(beta=2.0), infra={"folder": project.cache})

        assert make().run() == 8.0
        project.edit("parts", "x + self.beta", "x - self.beta")
        with told("parts.Momentum.step"):
            assert make().run() == 8.0
        assert project.task().run() == 6.5  # another class, of which nothing was changed
        project.edit("parts", "x - self.beta", "x * self.beta")
        assert project.task().run() == 6.5

    def test_a_function_that_is_the_value_of_a_field(self, project):
        def make():
            tasks = project.session("tasks")
            return tasks.Applies(function=tasks.helpers.hidden, infra={"folder": project.cache})

        assert make().run() == 101
        project.edit("helpers", "x + 100", "x + 200")
        with told("helpers.hidden"):
            assert make().run() == 101

    def test_an_error_is_raised_again_as_it_was(self, project):
        project.edit("helpers", "x * FACTOR", "x / 0")
        with pytest.raises(ZeroDivisionError):
            project.task().run()
        project.edit("helpers", "x / 0", "x / 1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.CodeChangedWarning)
            with pytest.raises(ZeroDivisionError):
                project.task().run()
        assert project.task(infra={"mode": "retry"}).run() == 3.5

    def test_results_without_a_note_are_taken_silently(self, project):
        project.task(infra={"code": "ignore"}).run()  # as older versions stored them
        assert not list(project.cache.glob("provenance/code-*"))
        project.edit(*HELPER)
        assert project.task().run() == 6.5

    def test_without_a_folder_there_is_nothing_to_tell(self, project):
        assert project.task(infra={"folder": None, "code": "recompute"}).run() == 6.5
        project.edit(*HELPER)
        assert project.task(infra={"folder": None}).run() == 7.5

    def test_in_scripts(self, project):
        script = """
            import pydantic
            import exca_like
            from watched_project.helpers import scale

            def double(x):
                return 2 * x

            class Train(pydantic.BaseModel):
                infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")

                @infra.apply
                def run(self):
                    return double(scale(1))

            print(Train().run())
        """
        assert project.run(script) == (["4"], "")
        output, warned = project.run(script.replace("2 * x", "3 * x"))
        assert output == ["4"]
        assert "script.py:16: CodeChangedWarning: " in warned
        assert "script.double was changed" in warned


class TestTasksOtherwise:
    def test_ignore_says_nothing(self, project):
        project.task().run()
        project.edit(*HELPER)
        assert project.task(infra={"code": "ignore"}).run() == 6.5

    @pytest.mark.parametrize("edit", [HELPER, CONSTANT, ("parts", "x + self.lr", "x - self.lr")])
    def test_recompute(self, project, edit):
        again = {"code": "recompute"}
        task = project.task(infra=again)
        assert task.run() == 6.5
        method, _, uid = task.infra.uid().partition("/")
        assert uid == "default"
        assert method.startswith(f"{PACKAGE}.tasks.Train.run,1~")
        assert len(method.partition("~")[2]) == 16
        project.edit(*edit)
        changed = project.task(infra=again)
        assert changed.infra.status() == "not submitted"
        assert changed.run() != 6.5
        assert changed.infra.uid() != task.infra.uid()
        project.edit(edit[0], *reversed(edit[1:]))
        back = project.task(infra=again)
        assert (back.infra.uid(), back.infra.status()) == (task.infra.uid(), "completed")
        assert back.infra.clone_obj({"infra.mode": "read-only"}).run() == 6.5

    def test_recompute_with_edits_that_make_no_difference(self, project):
        again = {"code": "recompute"}
        project.task(infra=again).run()
        project.edit("helpers", "# a comment", "# another")
        assert project.task(infra={**again, "mode": "read-only"}).run() == 6.5

    def test_recompute_leaves_the_uid_of_the_config_alone(self, project):
        plain, coded = project.task(), project.task(infra={"code": "recompute"})
        assert plain.infra.config(uid=True) == coded.infra.config(uid=True)
        assert coded.infra.uid().replace(coded.infra.uid().partition("~")[2].partition("/")[0], "").replace("~", "") == (
            plain.infra.uid()
        )

    def test_recompute_in_local_jobs(self, project):
        settings = {"code": "recompute", "cluster": "local"}
        assert project.task(infra=settings).run() == 6.5
        project.edit(*HELPER)
        assert project.task(infra=settings).infra.job().result() == 7.5
        assert project.task(infra={**settings, "mode": "read-only"}).run() == 7.5

    def test_maps_are_computed_again(self, project):
        again = {"code": "recompute"}
        assert list(project.task("Each", infra=again).process([1, 2])) == [2, 4]
        project.edit(*HELPER)
        assert list(project.task("Each", infra=again).process([1, 2])) == [3, 5]
        project.edit(HELPER[0], *reversed(HELPER[1:]))
        assert list(project.task("Each", infra={**again, "mode": "read-only"}).process([1, 2])) == [2, 4]

    @pytest.mark.parametrize("module", ["helpers"])
    def test_code_is_what_was_imported(self, project, module):
        """An edit during a session does not count before the next one."""
        task = project.task(infra={"code": "recompute"})
        task.run()
        project.edit(*HELPER)
        same = task.infra.clone_obj()
        assert same.infra.status() == "completed"
        assert same.run() == 6.5
        assert module in sys.modules[f"{PACKAGE}.{module}"].__name__


class TestWatched:
    def test_a_function_whose_name_is_not_written(self, project):
        assert project.task("Watching").run() == [10, 7, 100]
        project.edit("helpers", "x + 100", "x + 200")
        with told("helpers.hidden was changed"):
            assert project.task("Watching").run() == [10, 7, 100]
        assert project.task("Watching", infra={"code": "recompute"}).run() == [10, 7, 200]

    def test_variables_in_the_source(self, project):
        project.task("Watching").run()
        project.edit("helpers", "LEVEL = 7", "LEVEL = 8")
        with told() as found:
            assert project.task("Watching").run() == [10, 7, 100]
        assert "helpers.LEVEL (watched) has another value now" in str(found[0].message)

    @pytest.mark.parametrize("keep_in_ram", [False, True])
    def test_variables_as_they_are_at_each_call(self, project, keep_in_ram):
        task = project.task("Watching", infra={"code": "recompute", "keep_in_ram": keep_in_ram})
        tasks = sys.modules[type(task).__module__]
        assert task.run() == [10, 7, 100]
        uid = task.infra.uid()
        tasks.LIMIT = 11
        assert task.run() == [11, 7, 100]
        assert task.infra.uid() != uid
        tasks.helpers.LEVEL = [1, {"a": 2.0}]
        assert task.run() == [11, [1, {"a": 2.0}], 100]
        tasks.helpers.LEVEL[1]["a"] = 3.0  # in place
        assert task.run() == [11, [1, {"a": 3.0}], 100]
        tasks.LIMIT, tasks.helpers.LEVEL = 10, 7
        assert task.run() == [10, 7, 100]
        assert task.infra.uid() == uid

    @pytest.mark.parametrize("keep_in_ram", [False, True])
    def test_variables_are_told_of(self, project, keep_in_ram):
        task = project.task("Watching", infra={"keep_in_ram": keep_in_ram})
        task.run()
        project.session("tasks")
        task = project.task("Watching", infra={"keep_in_ram": keep_in_ram})
        tasks = sys.modules[type(task).__module__]
        assert task.run() == [10, 7, 100]
        tasks.LIMIT = 11
        with told() as found:
            assert [task.run(), task.run()] == [[10, 7, 100]] * 2
        assert "LIMIT (watched)" in str(found[0].message)

    def test_something_else_in_the_module_makes_no_difference(self, project):
        task = project.task("Watching", infra={"code": "recompute"})
        task.run()
        sys.modules[type(task).__module__].OTHER = 3
        assert task.infra.clone_obj({"infra.mode": "read-only"}).run() == [10, 7, 100]

    @pytest.mark.parametrize(
        ("watch", "message"),
        [
            ("LIMIT", r"watch='LIMIT': give a list, even for one thing, like watch=\['LIMIT'\]"),
            (3, r"watch=3: give a list"),
            ([3], r"watch has 3: give functions or classes .* and names of variables"),
            (["a b"], r"watch names 'a b', which is no name of a variable"),
            ([""], r"watch names '', which is no name of a variable"),
        ],
    )
    def test_mistakes(self, watch, message):
        with pytest.raises(errors.InfraTypeError, match=message):
            exca_like.memo(watch=watch)(forget)
        infra = exca_like.TaskInfra()
        with pytest.raises(errors.InfraTypeError, match=message):
            infra.apply(watch=watch)(lambda self: None)

    def test_a_variable_that_does_not_exist(self, project):
        project.edit("tasks", '"helpers.LEVEL"', '"helpers.LEVLE"')
        with pytest.raises(
            errors.InfraUsageError, match=r"Watching\.run watches 'helpers\.LEVLE', but watched_project\.tasks has no such"
        ):
            project.task("Watching").run()
        project.edit("memos", 'watch=["LIMIT"]', 'watch=["LIMITS"]')
        with pytest.raises(errors.InfraUsageError, match="limited watches 'LIMITS'"):
            project.session("memos").limited(1)

    def test_a_variable_without_content(self, project):
        project.edit("memos", "LIMIT = 10", "LIMIT = lambda: 10")
        with pytest.raises(errors.ContentKeyError, match="lambda"):
            project.session("memos").limited(1)

    @pytest.mark.parametrize("new", ["partial(scale, 4)", "partial(scale, 3, x=4)", "partial(scale, x=3)"])
    def test_the_arguments_of_partials(self, project, new):
        project.edit("memos", '["LIMIT"]', "[partial(scale, 3), partial(scale, 3)]")
        project.edit("memos", "import exca_like", "import exca_like\nfrom functools import partial")
        assert project.session("memos").limited(1) == 1
        assert project.session("memos").limited.cached(1)
        project.edit("memos", "partial(scale, 3)]", f"{new}]")
        assert not project.session("memos").limited.cached(1)

    def test_the_arguments_of_partials_are_told_of(self, project):
        project.edit("memos", '["LIMIT"]', "[partial(scale, 3)], code='warn'")
        project.edit("memos", "import exca_like", "import exca_like\nfrom functools import partial")
        project.session("memos").limited(1)
        project.edit("memos", "partial(scale, 3)", "partial(scale, [3])")
        with told() as found:
            project.session("memos").limited(1)
        assert "partial 1: scale (watched) has another value now" in str(found[0].message)

    def test_classes_among_the_arguments_of_partials(self, project):
        project.edit("memos", '["LIMIT"]', "[partial(str, Data())]")
        project.edit("memos", "import exca_like", "import exca_like\nfrom functools import partial")
        assert project.session("memos").limited(1) == 1
        project.edit("memos", "self.x + 1", "self.x + 2")
        assert not project.session("memos").limited.cached(1)


class TestMemos:
    @pytest.mark.parametrize("edit", [HELPER, CONSTANT, ("memos", "return scale(x)", "return -scale(x)")])
    def test_edits_are_computed_again_and_undone(self, project, edit):
        assert project.session("memos").run(3) == 6
        project.edit(*edit)
        memos = project.session("memos")
        assert not memos.run.cached(3)
        assert memos.run(3) != 6
        project.edit(edit[0], *reversed(edit[1:]))
        memos = project.session("memos")
        assert memos.run.cached(3)
        assert len(memos.run.entries()) == 2
        assert project.records() == [] != list(project.folder.glob(".exca_like/provenance/code-*.json"))

    @pytest.mark.parametrize(
        ("module", "old", "new"),
        [
            ("helpers", "# a comment", "# another"),
            ("helpers", "x + 100", "x + 200"),
            ("memos", "@exca_like.memo\ndef run", "@exca_like.memo(mode='cached')\ndef run"),
            ("memos", "x + 1\n\n@exca_like.memo\ndef run", "x + 2\n\n@exca_like.memo\ndef run"),
        ],
    )
    def test_other_edits_are_not(self, project, module, old, new):
        project.session("memos").run(3)
        project.edit(module, old, new)
        assert project.session("memos").run.cached(3)

    def test_functions_and_classes_that_are_passed(self, project):
        memos = project.session("memos")
        assert memos.applied(memos.shift, 1) == 2
        assert memos.applied(memos.scale, 1) == 2
        assert memos.of_data(memos.Data()) == 2
        project.edit("memos", "self.x + 1", "self.x + 2")
        memos = project.session("memos")
        assert memos.applied.cached(memos.shift, 1)
        assert memos.of_data(memos.Data()) == 3
        project.edit("memos", "return x + 1\n", "return x + 5\n")
        memos = project.session("memos")
        assert memos.of_data.cached(memos.Data())
        assert memos.applied.cached(memos.scale, 1)
        assert memos.applied(memos.shift, 1) == 6
        assert memos.applied([memos.shift][0], 1) == 6

    def test_functions_inside_of_arguments(self, project):
        project.edit("memos", "return function(x)", "return function[0](x)")
        memos = project.session("memos")
        assert memos.applied([memos.shift], 1) == 2
        project.edit("memos", "return x + 1\n", "return x + 5\n")
        memos = project.session("memos")
        assert memos.applied([memos.shift], 1) == 6

    def test_a_memo_that_calls_another_one(self, project):
        assert project.session("memos").outer(1) == 3
        project.edit("memos", "return scale(x)", "return scale(x) + 10")
        assert project.session("memos").outer(1) == 13
        project.edit(*HELPER)
        assert project.session("memos").outer(1) == 14

    def test_warn_and_ignore(self, project, monkeypatch):
        monkeypatch.setenv("EXCA_LIKE_CODE", "warn")
        assert project.session("memos").run(3) == 6
        project.edit(*HELPER)
        memos = project.session("memos")
        with told("helpers.scale was changed", "memos.run") as found:
            assert [memos.run(3), memos.run(3), *memos.run.map([3])] == [6, 6, 6]
        assert found[0].filename == __file__
        assert memos.run(4) == 9
        memos = project.session("memos")
        with told("helpers.scale"):
            assert list(memos.run.map([3, 4])) == [6, 9]
        monkeypatch.setenv("EXCA_LIKE_CODE", "ignore")
        assert project.session("memos").run(3) == 6

    @pytest.mark.parametrize("code", ["warn", "ignore", "recompute"])
    def test_what_the_function_says_wins(self, project, monkeypatch, code):
        monkeypatch.setenv("EXCA_LIKE_CODE", "recompute" if code == "ignore" else "ignore")
        project.edit("memos", "@exca_like.memo\ndef run", f"@exca_like.memo(code={code!r})\ndef run")
        assert project.session("memos").run(3) == 6
        project.edit(*HELPER)
        memos = project.session("memos")
        with told("helpers.scale", times=int(code == "warn")):
            assert memos.run(3) == (7 if code == "recompute" else 6)

    def test_watched_variables_as_they_are_at_each_call(self, project):
        memos = project.session("memos")
        assert memos.limited(50) == 10
        memos.LIMIT = 20
        assert memos.limited(50) == 20
        memos.LIMIT = 10
        assert memos.limited.cached(50)

    def test_watched_variables_with_a_warning(self, project):
        project.edit("memos", 'memo(watch=["LIMIT"])', 'memo(watch=["LIMIT"], code="warn")')
        memos = project.session("memos")
        assert memos.limited(50) == 10
        memos.LIMIT = 20
        with told() as found:
            assert memos.limited(50) == 10
        assert "LIMIT (watched) has another value now" in str(found[0].message)

    def test_in_local_jobs(self, project):
        project.edit("memos", "@exca_like.memo\ndef run", "@exca_like.memo(cluster='local')\ndef run")
        memos = project.session("memos")
        assert memos.run.submit(3).result() == 6
        assert list(memos.run.map([3, 4])) == [6, 8]
        project.edit(*HELPER)
        memos = project.session("memos")
        assert list(memos.run.map([3, 4])) == [7, 9]
        assert memos.run.submit(5).result() == 11

    def test_of_a_script_in_local_jobs(self, project):
        script = """
            import exca_like
            from watched_project.helpers import scale

            LIMIT = 3

            def twice(x):
                return 2 * x

            @exca_like.memo(cluster="local", watch=["LIMIT"])
            def run(x):
                return twice(scale(x)) + LIMIT

            if __name__ == "__main__":
                print(run.cached(1), run(1), *run.map([1, 2]))
        """
        assert project.run(script) == (["False 7 7 11"], "")
        assert project.run(script) == (["True 7 7 11"], "")
        assert project.run(script.replace("2 * x", "3 * x")) == (["False 9 9 15"], "")
        assert project.run(script.replace("LIMIT = 3", "LIMIT = 4")) == (["False 8 8 12"], "")
        assert project.run(script) == (["True 7 7 11"], "")


class TestSettings:
    def test_the_variable(self, project, monkeypatch):
        project.task().run()
        project.edit(*HELPER)
        monkeypatch.setenv("EXCA_LIKE_CODE", "ignore")
        assert project.task().run() == 6.5
        monkeypatch.setenv("EXCA_LIKE_CODE", "recompute")
        assert "~" in project.task().infra.uid()
        assert project.task().run() == 7.5
        assert "~" not in project.task(infra={"code": "warn"}).infra.uid()
        monkeypatch.setenv("EXCA_LIKE_CODE", "")
        assert "~" not in project.task().infra.uid()

    def test_the_file_of_a_project(self, project):
        script = """
            from watched_project.tasks import Train
            task = Train(infra={"folder": "cache"})
            print(task.run(), "~" in task.infra.uid())
        """
        assert project.run(script) == (["6.5 False"], "")
        project.edit(*HELPER)
        for value, expected in (("ignore", "6.5 False"), ("recompute", "7.5 True")):
            (project.folder / "pyproject.toml").write_text(f'[tool.exca_like]\ncode = "{value}"\n')
            assert project.run(script) == ([expected], "")

    def test_packages(self, project, monkeypatch):
        project.edit("helpers", "return x * FACTOR", "import numpy\n    return float(numpy.abs(x * FACTOR))")
        found = {}
        for value in ("none", "major", "minor", "patch"):
            monkeypatch.setenv("EXCA_LIKE_CODE_PACKAGES", value)
            found[value] = project.task(infra={"code": "recompute"}).infra.uid()
        assert len(set(found.values())) == 4
        monkeypatch.delenv("EXCA_LIKE_CODE_PACKAGES")
        assert project.task(infra={"code": "recompute"}).infra.uid() == found["major"]

    def test_a_package_that_was_updated(self, project, monkeypatch):
        from exca_like.code import fingerprint

        project.edit("helpers", "return x * FACTOR", "import numpy\n    return float(numpy.abs(x * FACTOR))")
        versions = {"numpy": "1.26.4"}
        monkeypatch.setattr(fingerprint, "version_of", lambda name: versions.get(name, ""))
        project.task().run()
        versions["numpy"] = "1.30.0"
        assert project.task().run() == 6.5
        versions["numpy"] = "2.1.0"
        with told() as found:
            project.task().run()
        assert "numpy was version 1.26.4, and is 2.1.0 now" in str(found[0].message)

    @pytest.mark.parametrize("name", ["CODE", "CODE_PACKAGES"])
    def test_a_wrong_value(self, project, monkeypatch, name):
        monkeypatch.setenv(f"EXCA_LIKE_{name}", "always")
        with pytest.raises(errors.SettingsError, match=f"EXCA_LIKE_{name}='always' is no valid setting: it should be one of"):
            project.task().run()

    def test_a_wrong_policy(self):
        with pytest.raises(errors.InfraValueError, match="code='always' must be one of 'ignore', 'warn', 'recompute'"):
            exca_like.memo(code="always")(forget)
        with pytest.raises(ValueError, match="'ignore', 'warn' or 'recompute'"):
            exca_like.TaskInfra(code="always")


class TestRecords:
    def test_what_is_in_them(self, project):
        task = project.task()
        task.run()
        (path,) = project.records()
        record = json.loads(path.read_bytes())
        assert record.keys() == {"symbols", "own", "packages", "precision", "watched"}
        digest, text = record["symbols"][f"{PACKAGE}.helpers.scale"]
        assert len(digest) == 16
        assert text == "def scale(x):\n    # a comment\n    return x * FACTOR"
        (note,) = [entry for entry in map(json.loads, _lines(task.infra.uid_folder())) if entry["#key"] == "result"]
        assert path.name == f"code-{note['#meta']['code']}.json"

    @pytest.mark.parametrize("damage", ["gone", "empty", "cut", "other"])
    def test_gone_or_damaged(self, project, damage):
        project.task().run()
        (path,) = project.records()
        if damage == "gone":
            shutil.rmtree(path.parent)
        else:
            data = path.read_bytes()
            path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "other": b'{"symbols": {"a": 3}}'}[damage])
        project.edit(*HELPER)
        with told() as found:
            assert project.task().run() == 6.5
        assert "has changed since it was computed: how is not known any more" in str(found[0].message)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_folders_that_may_only_be_read(self, project):
        self._read_only(project)

    def test_folders_that_can_not_be_written_to(self, project, monkeypatch):
        """The same for users who may write everywhere."""

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        project.task().run()
        project.edit(*HELPER)
        monkeypatch.setattr(watching.files, "write_atomic", refuse)
        monkeypatch.setattr(watching.files, "make_folders", refuse)
        with told("helpers.scale"):
            assert project.task().run() == 6.5
        assert len(project.records()) == 1

    def _read_only(self, project):
        project.task().run()
        project.edit(*HELPER)
        folders = [project.cache, *(path for path in project.cache.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            with told("helpers.scale"):
                assert project.task().run() == 6.5
        finally:
            for folder in folders:
                folder.chmod(0o755)

    def test_one_for_many_results(self, project):
        for x in range(3):
            project.task(x=x).run()
        assert len(project.records()) == 1


def _lines(folder: Path) -> list[bytes]:
    return [line for path in folder.glob("*-info.jsonl") for line in path.read_bytes().splitlines()]


class TestJobs:
    @contextlib.contextmanager
    def closed(self, project):
        """Jobs that are submitted meanwhile import the project's modules at the end only."""
        (project.folder / "closed").touch()
        try:
            yield
        finally:
            (project.folder / "closed").unlink()

    def test_code_that_is_edited_before_a_task_starts(self, project):
        task = project.task(infra={"code": "recompute", "cluster": "local"})
        with self.closed(project):
            job = task.infra.job()
            project.edit(*HELPER)
        with pytest.raises(errors.CodeChangedError, match=r"helpers\.scale was changed.*Submit again.*workdir"):
            job.result()
        assert task.infra.status() == "failed"
        again = project.task(infra={"code": "recompute", "cluster": "local"})
        assert again.run() == 7.5

    def test_with_warn_the_result_is_kept_with_its_own_code(self, project):
        task = project.task(infra={"cluster": "local"})
        with self.closed(project):
            job = task.infra.job()
            project.edit(*HELPER)
        assert job.result() == 7.5
        assert project.task().run() == 7.5  # computed by what there is now
        project.edit(HELPER[0], *reversed(HELPER[1:]))
        with told("helpers.scale"):
            assert project.task().run() == 7.5

    def test_code_that_is_edited_before_items_start(self, project):
        task = project.task("Each", infra={"code": "recompute", "cluster": "local"})
        with self.closed(project):
            results = task.process([1, 2])
            project.edit(*HELPER)
        with pytest.raises(errors.ItemsFailedError) as caught:
            list(results)
        assert {failure.type for failure in caught.value.failures.values()} == {"exca_like.errors.CodeChangedError"}
        assert list(project.task("Each", infra={"code": "recompute", "cluster": "local"}).process([1, 2])) == [3, 5]

    def test_code_that_is_edited_before_a_call_starts(self, project):
        project.edit("memos", "@exca_like.memo\ndef run", "@exca_like.memo(cluster='local')\ndef run")
        memos = project.session("memos")
        with self.closed(project):
            job = memos.run.submit(3)
            project.edit(*HELPER)
        with pytest.raises(errors.CodeChangedError, match=r"helpers\.scale was changed"):
            job.result()
        assert project.session("memos").run(3) == 7

    def test_other_edits_are_no_obstacle(self, project):
        task = project.task(infra={"code": "recompute", "cluster": "local"})
        with self.closed(project):
            job = task.infra.job()
            project.edit("helpers", "# a comment", "# another one")
            project.edit("helpers", "x + 100", "x + 200")
        assert job.result() == 6.5

    def test_watched_variables_that_another_process_has_not(self, project):
        """What was set by the session is not what a job imports."""
        task = project.task("Watching", infra={"code": "recompute", "cluster": "local"})
        assert task.run() == [10, 7, 100]
        sys.modules[type(task).__module__].LIMIT = 11
        with pytest.raises(errors.CodeChangedError, match=r"LIMIT \(watched\) has another value now"):
            task.run()

    def test_a_copy_of_the_code(self, project):
        settings = {"code": "recompute", "cluster": "local", "workdir": {"copied": [PACKAGE]}}
        task = project.task(infra=settings)
        with self.closed(project):
            job = task.infra.job()
            project.edit(*HELPER)
        assert job.result() == 6.5

    def test_forked_workers_have_what_their_parent_has(self, project):
        settings = {"code": "recompute", "cluster": "processpool", "max_jobs": 2}
        task = project.task("Each", infra=settings)
        memos = importlib.import_module(f"{PACKAGE}.memos")
        run = exca_like.memo(cluster="processpool", max_jobs=2)(memos.run.uncached)
        memos.run = run  # so that workers find it by its name
        project.edit(*HELPER)
        assert list(task.process([1, 2, 3])) == [2, 4, 6]
        assert list(run.map([1, 2, 3])) == [2, 4, 6]

    def test_debug_and_pools(self, project):
        for cluster in ("debug", "threadpool"):
            task = project.task("Each", infra={"code": "recompute", "cluster": cluster, "folder": project.folder / cluster})
            project.edit("helpers", "FACTOR = 2", "FACTOR = 3")
            assert list(task.process([1, 2])) == [2, 4]
            project.edit("helpers", "FACTOR = 3", "FACTOR = 2")


def test_code_among_values():
    """Functions and classes are found wherever an argument holds them."""

    class Slotted:
        __slots__ = ("function",)

    def helper():
        return 1

    slotted = Slotted()
    slotted.function = helper
    deep: list = [helper]
    for _ in range(3000):
        deep = [deep]
    places = [collections.OrderedDict(a=helper), {helper: 1}, types.MappingProxyType({"a": helper}), (helper,), slotted, deep]
    for value in places:
        assert helper in set(watching.roots_in(value))


def of_this_module(x):
    return x + 1


def test_the_code_of_captured_functions_counts(tmp_path):
    def make(function):
        @exca_like.memo(folder=tmp_path)
        def run(x):
            return function(x)

        return run

    run = make(of_this_module)
    assert run(1) == 2
    (entry,) = run.entries()
    assert f"{__name__}.of_this_module" in (tmp_path / "provenance" / f"code-{entry.key.rpartition('-')[2]}.json").read_text()
