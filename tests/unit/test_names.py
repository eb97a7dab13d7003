"""Names that are the same in every process."""

import subprocess
import sys

import pytest

from exca_like import names

CODE = """
import sys
from exca_like import names
class Thing:
    class Inner: pass
print(names.main_name(), names.qualified_name(Thing.Inner), names.qualified_name(len))
"""


def run(tmp_path, *arguments, **environment):
    result = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PATH": "", **environment}
    )
    return result.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "main"),
    [
        (["first.py"], "first"),
        (["folder/second.py"], "second"),
        (["-m", "first"], "first"),
        (["-m", "package"], "package"),
        (["-m", "package.module"], "package.module"),
        (["-c", CODE], "__main__"),
    ],
)
def test_main_is_named_after_the_script(tmp_path, arguments, main):
    for file in ("first.py", "folder/second.py", "package/__main__.py", "package/module.py", "package/__init__.py"):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if file.endswith("__init__.py") else CODE)
    assert run(tmp_path, *arguments) == [main, f"{main}.Thing.Inner", "builtins.len"]


def test_a_script_that_a_job_starts_has_its_own_name(tmp_path):
    (tmp_path / "script.py").write_text(CODE)
    assert run(tmp_path, "script.py", **{names.MAIN_VARIABLE: "other"})[:2] == ["script", "script.Thing.Inner"]


def test_other_modules_keep_their_name():
    assert names.qualified_name(names.qualified_name) == "exca_like.names.qualified_name"
    assert names.module_name(subprocess.Popen) == "subprocess"


def test_notebooks_are_told_apart_if_their_server_or_editor_names_them(tmp_path):
    assert run(tmp_path, "-c", CODE, JPY_SESSION_NAME="/home/me/analysis.ipynb")[:2] == ["analysis", "analysis.Thing.Inner"]
    assert run(tmp_path, "-c", CODE, JPY_SESSION_NAME="console 1")[0] == "__main__"
    told = f"__vsc_ipynb_file__ = '/home/me/other.ipynb'{CODE}"
    assert run(tmp_path, "-c", told)[0] == "other"
    (tmp_path / "script.py").write_text(CODE)
    assert run(tmp_path, "script.py", JPY_SESSION_NAME="/home/me/analysis.ipynb")[0] == "script"
