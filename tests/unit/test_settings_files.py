"""Settings files that are generated and changed, and the start of a project."""

import os
import stat
import tomllib
from pathlib import Path

import pytest
from test_cli import good

from exca_like import projects, settings, sources
from exca_like.cli.app import run
from exca_like.errors import CacheFolderError, SettingsError
from exca_like.infra.resources import JOB_SETTINGS, check_file
from exca_like.infra.task import TaskInfra
from exca_like.settings_files import put, template


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, with no settings of the user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("warnings.showwarning", None)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        ended = run(arguments)
        said = capfd.readouterr()
        return ended, said.out, said.err

    return call


@pytest.mark.parametrize("project", [False, True])
def test_the_template_has_all_settings_with_good_examples(project: bool) -> None:
    text = template(project=project)
    above = "tool.exca_like." if project else ""
    nothing = sources.parsed_text("file", above, text.encode())
    assert not nothing.problem and not nothing.top  # all of it is comments
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines()[2:] if not line.startswith("##"))
    file = sources.parsed_text("file", above, uncommented.encode())
    check_file(TaskInfra, file)
    assert set(file.top) == {*JOB_SETTINGS, *sources.TOOL_SETTINGS} and set(file.clusters) == {"local"}
    assert "`" not in text.replace("`exca-like", "").replace("settings`", "").replace("stats`", "")


def test_settings_are_set_and_taken_out(place: Path) -> None:
    path = put({"mem_gb": 16, "slurm_setup": ["module load cuda"]})
    assert path == place / "config/exca_like/config.toml"
    put({"timeout_min": 5}, cluster="local")
    assert settings.explain(cluster="local")["timeout_min"].value == 5
    assert settings.explain(cluster="local")["mem_gb"].value == 16
    put({"mem_gb": None})
    assert tomllib.loads(path.read_text()) == {"slurm_setup": ["module load cuda"], "cluster": {"local": {"timeout_min": 5}}}
    with pytest.raises(SettingsError, match="nothing to take out"):
        put({"mem_gb": None})


def test_what_is_in_a_file_stays(place: Path) -> None:
    text = '# mine\n[project]\nname = "x"  # a name\n\n[tool.exca_like]\n# why\nmem_gb = 1\n\n[tool.other]\na = 1\n'
    path = place / "project/pyproject.toml"
    path.write_text(text)
    path.chmod(0o640)
    (place / "project/sub").mkdir()
    os.chdir(place / "project/sub")
    assert put({"mem_gb": 2}, project=True) == path
    assert path.read_text() == text.replace("mem_gb = 1", "mem_gb = 2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_one(place: Path) -> None:
    real = place / "dotfiles.toml"
    real.write_text("mem_gb = 1\n")
    link = place / "config/exca_like/config.toml"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    put({"mem_gb": 3})
    assert link.is_symlink() and real.read_text() == "mem_gb = 3\n"


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"memgb": 1}, {}, "did you mean 'mem_gb'"),
        ({"mem_gb": "abc"}, {}, "valid number"),
        ({"timeout_min": 1, "nodes": 0}, {}, "nodes"),
        ({"progress": True}, {"cluster": "local"}, "can't differ between clusters"),
        ({"folder": "x"}, {}, "on an infra only"),
        ({"code": "maybe"}, {"project": True}, "one of 'ignore'"),
    ],
)
def test_what_is_wrong_is_not_written(place: Path, values, options, message) -> None:
    with pytest.raises(SettingsError, match=message):
        put(values, **options)
    assert not (place / "config").exists() and not list((place / "project").iterdir())


def test_a_malformed_file_is_left_alone(place: Path) -> None:
    path = place / "project/pyproject.toml"
    path.write_text("[tool.exca_like\n")
    with pytest.raises(SettingsError, match="Correct it first"):
        put({"mem_gb": 1}, project=True)
    path.write_text("tool = 3\n")
    with pytest.raises(SettingsError, match="no table"):
        put({"mem_gb": 1}, project=True)
    assert path.read_text() == "tool = 3\n"


def test_commands(place: Path, command) -> None:
    assert good(command("settings", "generate")) == template()
    assert good(command("settings", "generate", "--project")) == template(project=True)
    assert "mem_gb = 16" in good(command("settings", "set", "mem_gb=16", "slurm_setup=[module load cuda]"))
    assert "config.toml: mem_gb" in good(command("settings"))
    assert "not set any more" in good(command("settings", "set", "mem_gb="))
    assert "pyproject.toml" in good(command("settings", "set", "code=warn", "--project"))
    for text, value in (("123", "123"), ("1e3", "1e3"), ("true", "true"), ("'7'", "7"), ("gpu", "gpu")):
        good(command("settings", "set", f"slurm_partition={text}", f"memo_folder={text}"))
        assert tomllib.loads((place / "config/exca_like/config.toml").read_text())["slurm_partition"] == value
    for words, message in ((["set", "memgb=1"], "mem_gb"), (["set", "mem_gb"], "FIELD=VALUE"), (["put"], "No such command")):
        ended, _, err = command("settings", *words)
        assert ended in (1, 2) and message in err, err


def test_a_project_begins(place: Path, command) -> None:
    said = good(command("init"))
    assert said.count("written") == 3
    assert "1 completed" not in said and "6 completed" in good(
        command("run", "experiment:Train", "lr=0.1,0.2,0.3", "seed=range(2)")
    )
    assert "6 cached" in good(command("run", "experiment:Train", "lr=0.1,0.2,0.3", "seed=range(2)", "--dry-run"))
    assert settings.explain()["mem_gb"].value is None  # the settings are comments
    (place / "project/experiment.py").write_text("# mine")
    assert good(command("init")).count("is there already") == 3
    assert (place / "project/experiment.py").read_text() == "# mine"
    assert good(command("init", "other", "--dry-run")).count("would be written") == 3 and not (place / "project/other").exists()
    assert good(command("init", "--dry-run")).count("is there already") == 3
    assert projects.init(place / "new" / "one")[place / "new/one/experiment.py"]
    (place / "file").write_text("")
    with pytest.raises(CacheFolderError, match="can't write"):
        projects.init(place / "file" / "x")
    assert command("init", str(place / "file"))[0] == 1


WHY = """
import pydantic, exca_like
class Train(pydantic.BaseModel):
    lr: float = 0.1
    seed: int = 0
    infra: exca_like.TaskInfra = exca_like.TaskInfra(folder="cache")
    @infra.apply
    def run(self) -> float:
        if self.seed == 3:
            raise ValueError("three")
        return self.lr * self.seed
"""


def test_why(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    import subprocess
    import sys

    def why(*arguments: str) -> tuple[int, str]:  # each in a new process, as the class is edited
        done = subprocess.run([sys.executable, "-m", "exca_like", *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    file = place / "project/why_train.py"
    file.write_text(WHY)
    why("run", "why_train:Train", "seed=2,3")
    assert why("why", "seed=2")[1].startswith("hit: why_train.Train.run,0/seed=2-")
    assert "failed with ValueError: three" in why("why", "seed=3")[1]
    ended, text = why("why", "why_train:Train", "seed=5", "lr=3")
    assert ended == 0 and text.startswith("miss") and "seed: 2 there, 5 here" in text
    file.write_text(WHY.replace("self.lr * self.seed", "2 * self.lr * self.seed"))
    assert "why_train.Train.run was changed" in why("why", "seed=2")[1]
    found = json.loads(why("why", "why_train:Train", "seed=2", "--json")[1])
    assert found["status"] == "stale" and found["changes"] == [{"name": "why_train.Train.run", "how": "was changed"}]
    file.write_text(WHY.replace("lr: float = 0.1", "lr: float = 0.2"))
    ended, text = why("why", "seed=2")
    assert ended == 0 and text.startswith("mismatch: why_train.Train.run,0/seed=2-") and "Train differs in lr" in text
    assert why("why", "seed=2", "--no-import")[1].startswith("hit: why_train.Train.run,0/seed=2-")
    file.rename(place / "project/moved.py")
    ended, text = why("why", "seed=2")
    assert ended == 0 and "can't be imported from here" in text and "The result is stored, computed" in text
    (place / "project/moved.py").rename(file)
    assert why("why", "why_train:Train", "seed=2", "--folder", "elsewhere")[1].startswith("miss")
    for words, end, message in (
        (["nothing"], 1, "no entry"),
        (["seed=2", "lr=1"], 2, "go with a class"),
        (["why_train:Train", "seed=1,2"], 2, "one value each"),
        (["why_train:Nothing"], 2, "there are Train"),
        (["why_train:Train", "sed=1"], 2, "did you mean seed"),
        (["why_train:Train", "--no-import"], 2, "give the uid"),
    ):
        ended, text = why("why", *words)
        assert ended == end and message in " ".join(text.split()), text
