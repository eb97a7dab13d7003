"""What explain() says, read aloud; each step is a process of its own, as the code changes in between."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import exca_like

EXPERIMENT = """
    import sys

    import numpy as np
    import pydantic

    import exca_like
    import lib
    import dependency


    class Optim(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        lr: float = 0.1
        name: str = "adam"


    class Train(pydantic.BaseModel):
        optim: Optim = Optim()
        epochs: int = 10
        verbose: bool = False
        fail: bool = False
        infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")
        _exclude_from_cls_uid = ("verbose",)

        @infra.apply(exclude_from_cache_uid=["optim.name"])
        def run(self):
            if self.fail:
                raise ValueError("bad luck")
            return lib.helper(np.full(1000, self.optim.lr)) + self.epochs + dependency.VALUE


    class Features(pydantic.BaseModel):
        size: int = 3
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=str)
        def compute(self, items: list[int]):
            for item in items:
                if item == 13:
                    raise ValueError("unlucky")
                yield lib.helper(item)


    @exca_like.memo(folder="cache", exclude=("verbose",))
    def double(a, b=2, verbose=False):
        if a < 0:
            raise ValueError("negative")
        return lib.helper(a) * b


    def train(code=None, **config):
        return Train(infra={"folder": "cache", "code": code}, **config)


    def features(**config):
        return Features(infra={"folder": "cache"}, **config)
"""
LIBRARY = "FACTOR = 2\n\n\ndef helper(x):\n    # scales\n    return x * FACTOR\n"


class Project:
    """A script with a library of its own, and an installed package that it uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("experiment.py", textwrap.dedent(EXPERIMENT))
        self.write("lib.py", LIBRARY)
        self.install("1.2.3")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def install(self, version: str) -> None:
        for path in self.folder.glob("site-packages/*.dist-info"):
            path.rename(path.with_name(f"dependency-{version}.dist-info"))
        self.write("site-packages/dependency.py", "VALUE = 1\n")
        self.write(
            f"site-packages/dependency-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: dependency\nVersion: {version}\n",
        )

    def run(self, code: str) -> list[str]:
        """What a script prints that runs the code, in lines."""
        self.write("step.py", f"from experiment import *\n{textwrap.dedent(code)}")
        root = str(Path(exca_like.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((root, str(self.folder / "site-packages")))}
        command = [sys.executable, "-W", "ignore", "step.py"]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def explain(self, what: str) -> list[str]:
        return self.run(f"print({what})")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.run("train(optim={'lr': 0.2}).run()")
    return made


CONFIG = "train(optim={'lr': 0.2})"
UID = "experiment.Train.run,1/optim.lr=0.2-6551df88"


def test_nothing_is_stored_yet(tmp_path):
    told = Project(tmp_path).explain(f"{CONFIG}.infra.explain()")
    assert told == [
        f"miss: {UID}",
        f"  Nothing is stored of experiment.Train.run in {tmp_path}/cache: the next call computes it.",
    ]


def test_a_hit(project):
    status, reason = project.explain(f"{CONFIG}.infra.explain()")
    assert status == f"hit: {UID}"
    assert reason.startswith("  The result is in the cache, computed 20")
    assert reason.endswith(" UTC by the code that there is now.")


def test_a_new_config_and_its_nearest(project):
    project.run("train(optim={'lr': 5.0}, epochs=1).run()")
    told = project.explain("train(optim={'lr': 0.3}).infra.explain()")
    assert told[1:] == [
        "  This config was never computed: the next call computes it.",
        f"  The nearest stored config is {UID}:",
        "    optim.lr: 0.2 there, 0.3 here",
    ]


def test_a_changed_default(project):
    project.edit("experiment.py", "epochs: int = 10", "epochs: int = 20")
    told = project.explain(f"{CONFIG}.infra.explain()")
    assert told[0] == f"mismatch: {UID}"
    assert "a default was changed in the code" in told[1]
    assert told[2:] == ["    epochs: 10 there, 20 here"]


def test_a_changed_helper(project):
    project.edit("lib.py", "x * FACTOR", "x * FACTOR + 1")
    told = project.explain(f"{CONFIG}.infra.explain()")
    assert told[0] == f"stale: {UID}"
    assert told[1].endswith("but by other code: a call returns it, with a warning (code='warn').")
    assert told[2:] == [
        "  Code: lib.helper was changed.",
        "    lib.helper:",
        "       def helper(x):",
        "           # scales",
        "      -    return x * FACTOR",
        "      +    return x * FACTOR + 1",
    ]
    assert project.explain("train('ignore', optim={'lr': 0.2}).infra.explain().status") == ["hit"]


def test_a_changed_helper_with_the_code_in_the_uid(project):
    project.edit("lib.py", "FACTOR = 2", "FACTOR = 3")
    recomputing = "train('recompute', optim={'lr': 0.2})"
    told = project.explain(f"{recomputing}.infra.explain()")
    assert told[0].startswith("stale: experiment.Train.run,1~")
    assert told[1] == f"  It was computed by other code, in {UID}: the next call computes it again (code='recompute')."
    assert told[2] == "  Code: lib.FACTOR was changed."
    assert project.run(f"{recomputing}.run(); print({recomputing}.infra.explain().status)") == ["hit"]
    project.edit("lib.py", "FACTOR = 3", "FACTOR = 4")  # the last one is told of
    assert "      -FACTOR = 3" in project.explain(f"{recomputing}.infra.explain()")


def test_an_excluded_field(project):
    told = project.explain("train(optim={'lr': 0.2, 'name': 'sgd'}, verbose=True).infra.explain()")
    assert told[0] == f"hit: {UID}"
    assert told[2:] == [
        "  These have changed as well, but don't count:",
        "    optim.name: 'adam' there, 'sgd' here (left out by exclude_from_cache_uid of Train.run)",
        "    verbose: False there, True here (left out by _exclude_from_cls_uid of Train)",
    ]


def test_an_upgraded_dependency(project):
    project.install("1.9.0")
    assert project.explain(f"{CONFIG}.infra.explain().status") == ["hit"]  # as precise as it is asked
    project.install("2.0.0")
    told = project.explain(f"{CONFIG}.infra.explain()")
    assert told[0] == f"stale: {UID}"
    assert told[2] == "  Code: dependency was version 1.2.3, and is 2.0.0 now."


@pytest.mark.parametrize("place", [20, -20])
def test_a_corrupt_entry(project, place):
    (path,) = (project.folder / "cache").rglob("*-info.jsonl")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    told = project.explain(f"{CONFIG}.infra.explain()")
    assert told[0] == f"corrupt: {UID}"
    assert "it counts as missing, and the next call computes it again" in told[1]


def test_corrupt_data(project):
    (path,) = (project.folder / "cache").rglob("data/*")
    path.write_bytes(b"?" * path.stat().st_size)
    assert project.explain(f"{CONFIG}.infra.explain().status") == ["corrupt"]


def test_a_failed_entry(project):
    project.run("try:\n    train(fail=True).run()\nexcept ValueError:\n    pass")
    told = project.explain("train(fail=True).infra.explain()")
    assert told[0] == "failed: experiment.Train.run,1/fail=True-f827cf46"
    assert re.fullmatch(
        r"  It was computed 2\S+ \S+ UTC, and failed with ValueError: bad luck\. A call raises it; mode='retry' computes again\.",
        told[1],
    )
    project.edit("experiment.py", "bad luck", "worse luck")
    told = project.explain("train(fail=True).infra.explain()")
    assert "UTC, by other code than there is now, and failed with ValueError: bad luck. A call raises it" in told[1]
    assert "experiment.Train.run was changed" in told[2] and any("worse luck" in line for line in told[3:])


def test_another_version(project):
    project.edit("experiment.py", 'TaskInfra(version="1")', 'TaskInfra(version="2")')
    told = project.explain(f"{CONFIG}.infra.explain()")
    assert told[0].startswith("miss: ")
    assert told[1] == "  It was computed for version '1', and this is version '2': the next call computes it."


def test_without_a_folder(project):
    assert "no folder" in project.explain("Train().infra.explain()")[1]


def test_items(project):
    project.run("list(features().compute([1, 2]))\ntry:\n    list(features().compute([13]))\nexcept RuntimeError:\n    pass")
    explain = "features().infra.explain"
    assert project.explain(f"{explain}(1).status") == ["hit"]
    assert project.explain(f"{explain}(3)") == [
        "miss: experiment.Features.compute,0/default/3",
        "  This item was never computed; 2 others of this config are stored. The next call computes it.",
    ]
    (told,) = project.explain(f"{explain}(13)")[1:]
    assert told.startswith("  It was computed 2")
    assert told.endswith(" UTC, and failed with ValueError: unlucky. The next call computes it again.")
    assert project.explain("features(size=4).infra.explain(1)")[1:] == [
        "  This config was never computed: the next call computes it.",
        "  The nearest stored config is experiment.Features.compute,0/default:",
        "    size: 3 there, 4 here",
    ]


def test_calls(project):
    assert "Nothing is stored of this function" in project.explain("double.explain(1)")[1]
    project.run("double(1)\ntry:\n    double(-1)\nexcept ValueError:\n    pass")
    assert project.explain("double.explain(1).status") == ["hit"]
    assert project.explain("double.explain(-1).status") == ["failed"]
    assert project.explain("double.explain(1, verbose=True)")[2:] == [
        "  These have changed as well, but don't count:",
        "    verbose: False there, True here (left out by exclude=...)",
    ]
    assert project.explain("double.explain(1, b=3)")[3:] == ["    b: 2 there, 3 here"]
    project.edit("lib.py", "FACTOR = 2", "FACTOR = 3")
    status, reason, code, *_ = project.explain("double.explain(1)")
    assert status.startswith("stale: experiment.double,0/a=1-")
    assert reason == "  It was computed by other code: the next call computes it again (code='recompute')."
    assert code == "  Code: lib.FACTOR was changed."


def test_fields_of_the_uid(project):
    told = project.explain("train(optim={'lr': 0.2, 'name': 'sgd'}).infra.explain_uid()")
    assert told == [
        UID,
        "",
        "field       value  in the uid?",
        "optim.lr    0.2    yes",
        "optim.name  'sgd'  no: left out by exclude_from_cache_uid of Train.run",
        "epochs      10     no: it has its default value",
        "verbose     False  no: left out by _exclude_from_cls_uid of Train",
        "fail        False  no: it has its default value",
        "infra              no: an infra says how to compute, not what",
    ]
    assert "infra.version" in project.explain("Train(infra={'version': '3'}).infra.explain_uid()[-1].name")[0]


def test_nothing_changes_on_disk(project):
    before = {path: path.stat().st_mtime_ns for path in (project.folder / "cache").rglob("*")}
    project.run(
        "train(epochs=3).infra.explain(); train(optim={'lr': 0.2}).infra.explain(); features().infra.explain(1); double.explain(1)"
    )
    assert {path: path.stat().st_mtime_ns for path in (project.folder / "cache").rglob("*")} == before
