"""Settings: which of them holds, what is said of wrong ones, and that results don't depend on them."""

import os
import pickle
import sys
import threading
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca_like
from exca_like import errors, progress, sources
from exca_like.executors import sbatch
from exca_like.executors.base import SETTINGS, Resources


class Model(pydantic.BaseModel):
    x: int = 1
    infra: exca_like.TaskInfra = exca_like.TaskInfra(slurm_partition="of the class")

    @infra.apply
    def run(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "none")


class Submitting(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    def run(self, x: int) -> int:
        return x


class Mapping(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: list[int]) -> tp.Iterator[int]:
        yield from items


class Place:
    """A user's file, a project's, and a Slurm that says its name."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.user = root / "config" / "exca_like" / "config.toml"
        self.project = root / "project" / "pyproject.toml"
        self.scontrol = root / "bin" / "scontrol"
        self.patch = patch
        for file in (self.user, self.project, self.scontrol):
            file.parent.mkdir(parents=True)
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        patch.chdir(self.project.parent)
        patch.delenv("SLURM_CLUSTER_NAME", raising=False)
        patch.setattr(sources, "_known", {})

    def variable(self, name: str, value: str) -> None:
        self.patch.setenv(f"EXCA_LIKE_{name.upper()}", value)

    def slurm(self, name: str = "Alps", script: str = "") -> Path:
        """Put an scontrol on the PATH; returns the file with a line for each call."""
        log = self.scontrol.with_name("calls")
        script = script or f"echo 'ClusterName             = {name}'; echo 'MaxArraySize            = 77'"
        self.scontrol.write_text(f"#!/bin/bash\necho call >> {log}\n{script}\n")
        self.scontrol.chmod(0o755)
        self.patch.setenv("PATH", str(self.scontrol.parent), prepend=":")
        return log


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("EXCA_LIKE_COUNT_HITS")  # which is set for the tests
    return Place(tmp_path, monkeypatch)


def asked(cls: tp.Any = Model, cluster: str = "slurm", **infra: tp.Any) -> Resources:
    return cls(infra={"folder": "cache", "cluster": cluster, **infra}).infra._resources()


# which one holds


@pytest.mark.parametrize("cls", [Model, Submitting, Mapping])
def test_each_source_wins_over_those_before(place, cls):
    assert asked(cls).timeout_min is None
    place.user.write_text("timeout_min = 1\nmem_gb = 1\nnodes = 2")
    assert asked(cls).timeout_min == 1
    place.project.write_text("[tool.exca_like]\ntimeout_min = 2\nmem_gb = 2")
    assert asked(cls).timeout_min == 2
    place.variable("timeout_min", "3")
    assert asked(cls).timeout_min == 3
    assert asked(cls, timeout_min=4).timeout_min == 4
    assert asked(cls, timeout_min=None).timeout_min is None
    assert (asked(cls).mem_gb, asked(cls).nodes) == (2, 2)


def test_what_the_class_says_wins_and_clones_keep_what_is_set(place):
    place.user.write_text(
        'slurm_partition = "set"\ntimeout_min = 1\nslurm_setup = ["set"]\nslurm_additional_parameters = {a = 1}'
    )
    assert asked().slurm_partition == "of the class"
    model = Model(infra={"folder": "cache", "cluster": "slurm", "timeout_min": 9, "slurm_additional_parameters": {"b": 2}})
    clones = [model.infra.clone_obj(x=2), model.infra.clone_obj({"infra.mem_gb": 3}), model.model_copy(deep=True)]
    for clone in [*clones, pickle.loads(pickle.dumps(model))]:
        resources = clone.infra._resources()
        assert (resources.timeout_min, resources.slurm_partition) == (9, "of the class")
        assert resources.slurm_setup == ["set"], "what was not set stays so in a clone"
        assert resources.slurm_additional_parameters == {"b": 2}, "a table is replaced as a whole"
    model.infra.slurm_setup = None
    assert model.infra._resources().slurm_setup is None


def test_every_field_of_resources_but_the_name_has_a_setting(place):
    values = {
        "timeout_min": "3",
        "slurm_use_srun": "true",
        "slurm_additional_parameters": '{"mail-type": "END", "nice": 3}',
        "slurm_setup": '["module load cuda"]',
        "mem_gb": "0.5",
        "slurm_account": "123",
    }
    for name, value in values.items():
        place.variable(name, value)
    place.variable("job_name", "ignored")
    place.variable("nodes", "")
    place.variable("anything_else", "ignored")
    resources = asked()
    assert resources.timeout_min == 3 and type(resources.timeout_min) is int
    assert resources.slurm_use_srun is True
    assert resources.slurm_additional_parameters == {"mail-type": "END", "nice": 3}
    assert resources.slurm_setup == ["module load cuda"]
    assert (resources.mem_gb, resources.slurm_account, resources.nodes) == (0.5, "123", 1)
    assert str(resources.job_name).startswith("Model.run")
    settings = set(exca_like.settings.explain())
    assert settings == {
        *SETTINGS,
        "max_array_size",
        "max_submit_jobs",
        "progress",
        "memo_folder",
        "code",
        "code_packages",
        "mode",
        "count_hits",
    } - {"job_name"}
    assert settings.isdisjoint({"folder", "cluster", "version"})


def test_the_nearest_project_file_counts(place):
    place.project.write_text("[tool.exca_like]\ntimeout_min = 2")
    below = place.project.parent / "a" / "b"
    below.mkdir(parents=True)
    place.patch.chdir(below)
    assert asked().timeout_min == 2
    (below.parent / "pyproject.toml").write_text("[project]\nname = 'exca_like_user'")
    assert asked().timeout_min is None
    place.patch.chdir(place.project.parent)
    assert asked().timeout_min == 2


def test_files_are_read_once_and_again_when_they_change(place):
    place.user.write_text("timeout_min = 1")
    assert asked().timeout_min == 1
    place.patch.setattr(sources.files, "read_bytes", lambda path: pytest.fail("read again"))
    assert asked().timeout_min == 1
    place.patch.undo()
    place.patch.setenv("XDG_CONFIG_HOME", str(place.user.parent.parent))
    place.patch.chdir(place.project.parent)
    place.user.write_text("timeout_min = 22")
    assert asked().timeout_min == 22
    place.project.write_text("[tool.exca_like]\ntimeout_min = 3")
    assert asked().timeout_min == 3
    place.project.unlink()
    place.user.unlink()
    assert asked().timeout_min is None


def test_config_home(place, tmp_path):
    place.patch.setenv("HOME", str(tmp_path))
    place.patch.setenv("XDG_CONFIG_HOME", "relative")
    file = tmp_path / ".config" / "exca_like" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("timeout_min = 5")
    assert asked().timeout_min == 5
    place.patch.delenv("XDG_CONFIG_HOME")
    assert asked().timeout_min == 5


def test_a_deleted_current_folder_has_no_project(place):
    place.user.write_text("timeout_min = 1")
    place.project.parent.rmdir()
    resources = Model(infra={"folder": "/cache", "cluster": "slurm"}).infra._resources()
    assert resources.timeout_min == 1


# clusters


TABLES = """
timeout_min = 1
mem_gb = 1
slurm_additional_parameters = {a = 1}
[cluster.alps]
timeout_min = 2
slurm_additional_parameters = {b = 2}
[cluster.local]
timeout_min = 3
[cluster."other.site"]
timeout_min = 4
"""


def test_a_table_of_the_cluster_wins_over_the_top_of_its_file(place):
    place.user.write_text(TABLES)
    log = place.slurm("Alps")
    assert asked().timeout_min == 2
    assert asked().slurm_additional_parameters == {"b": 2}
    assert asked().mem_gb == 1
    assert asked(cluster="local").timeout_min == 3
    assert log.read_text() == "call\n", "Slurm is asked once"
    place.patch.setenv("SLURM_CLUSTER_NAME", "other.site")
    assert asked().timeout_min == 4
    place.patch.setenv("SLURM_CLUSTER_NAME", "unknown")
    assert asked().timeout_min == 1
    place.project.write_text("[tool.exca_like]\ntimeout_min = 5\n[tool.exca_like.cluster.unknown]\nmem_gb = 5")
    assert (asked().timeout_min, asked().mem_gb) == (5, 5)
    place.variable("mem_gb", "6")
    assert asked().mem_gb == 6


@pytest.mark.parametrize("is_there", [False, True])
def test_auto_takes_the_table_of_where_it_runs(place, is_there):
    place.user.write_text(TABLES)
    place.slurm("alps")
    place.patch.setattr("exca_like.executors.slurm.slurm_is_there", lambda: is_there)
    assert asked(cluster="auto").timeout_min == (2 if is_there else 3)
    assert exca_like.settings.explain().cluster == ("alps" if is_there else "local")


def test_slurm_is_asked_only_if_there_are_tables(place):
    log = place.slurm()
    place.user.write_text("timeout_min = 1")
    assert asked().timeout_min == 1
    assert exca_like.settings.explain().cluster is None
    assert not log.exists()
    place.user.write_text("timeout_min = 1\n[cluster.local]\ntimeout_min = 2")
    assert asked().timeout_min == 1
    assert not log.exists(), "there is nothing for any Slurm"


def test_a_slurm_that_does_not_say_its_name(place):
    place.user.write_text(TABLES)
    place.slurm(script="echo 'scontrol: error' >&2; echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        errors.SubmissionError, match=r"does not say which .* 'Unable to contact slurm controller'.*SLURM_CLUSTER"
    ):
        asked()
    assert asked(cluster="local").timeout_min == 3
    place.patch.setenv("SLURM_CLUSTER_NAME", "alps")
    assert asked().timeout_min == 2
    place.patch.delenv("SLURM_CLUSTER_NAME")
    place.patch.setattr(sources, "_known", {})
    place.patch.setenv("PATH", "")
    assert asked().timeout_min == 1, "without Slurm, the submission will say so"


def test_computations_in_this_process_need_no_settings(place, tmp_path):
    place.user.write_text("timeout = 1")
    for cluster in (None, "debug"):
        assert Model(infra={"folder": tmp_path, "cluster": cluster}).infra._resources().timeout_min is None
    with Model().infra.job_array() as array:
        array.append(Model(infra={"folder": tmp_path}))
    assert list(Mapping(infra={"cluster": "threadpool"}).run([1, 2, 3])) == [1, 2, 3]


# jobs


def test_local_jobs_run_as_the_settings_say_and_results_lie_where_they_would(place, tmp_path):
    def model(folder: str) -> Model:
        return Model(infra={"folder": tmp_path / folder, "cluster": "local"})

    plain = model("plain")
    assert plain.run() == "none"
    place.user.write_text('[cluster.local]\ngpus_per_node = 2\ntimeout_min = 7\nslurm_qos = "set"')
    assert model("set").run() == "0,1"
    assert model("set").infra.uid() == plain.infra.uid()
    for name in ("config.yaml", "uid.yaml", "full-uid.yaml"):
        texts = [(m.infra.uid_folder() / name).read_text() for m in (plain, model("set"))]
        assert texts[0].replace("/plain", "/set") == texts[1]
    assert model("plain").run() == "none", "it is cached"


def test_submissions_too(place, tmp_path):
    place.user.write_text("tasks_per_node = 2")
    with pytest.raises(errors.InfraValueError, match=r"nodes=1, tasks_per_node=2: .*settings.explain"):
        Submitting(infra={"folder": tmp_path, "cluster": "local"}).infra.submit(1)
    assert Submitting(infra={"folder": tmp_path, "cluster": "local", "tasks_per_node": 1}).run(1) == 1


def test_executors_of_the_user_too(place, tmp_path):
    place.user.write_text("timeout_min = 7")
    executor = Model(infra={"folder": tmp_path, "cluster": "local"}).infra.executor()
    assert executor.parameters["timeout_min"] == 7


# other settings


def test_size_of_arrays(place):
    place.slurm()
    assert sbatch.max_array_size() == 77
    place.user.write_text("max_array_size = 50\n[cluster.alps]\nmax_array_size = 60")
    assert sbatch.max_array_size() == 60
    place.variable("max_array_size", "40")
    assert sbatch.max_array_size() == 40
    place.variable("max_array_size", "many")
    with pytest.raises(errors.SettingsError, match="EXCA_LIKE_MAX_ARRAY_SIZE='many' .* a number of jobs, like 1000"):
        sbatch.max_array_size()


@pytest.mark.parametrize("script", ["exit 1", "echo ClusterName = x; echo MaxArraySize = ?"])
def test_size_of_arrays_where_slurm_does_not_say_it(place, script):
    place.slurm(script=script)
    assert sbatch.max_array_size() == 1001


def test_progress(place, capsys):
    assert not progress.is_shown()
    place.user.write_text("progress = true")
    assert progress.is_shown()
    place.project.write_text("[tool.exca_like]\nprogress = false")
    assert not progress.is_shown()
    progress.tell("nothing")
    place.variable("progress", "1")
    assert progress.is_shown()
    progress.tell("something")
    assert capsys.readouterr().err == "exca_like: something\n"
    place.variable("progress", "maybe")
    assert not progress.is_shown(), "a bar is no reason to end a computation"
    with pytest.raises(errors.SettingsError, match="EXCA_LIKE_PROGRESS='maybe' .* 0 or 1"):
        exca_like.settings.explain()


# what is said of wrong ones


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timeout_min = 'a'", r"timeout_min = 'a' is no valid setting: it should be a valid integer"),
        ("timeout_min = 0", r"timeout_min = 0 .* greater than 0"),
        ("slurm_account = 3", r"slurm_account = 3 .* a valid string"),
        ("slurm_setup = [1]", r"slurm_setup = \[1\] .*: at 0, it should be a valid string"),
        ("slurm_additional_parameters = {a = []}", r"at 'a', it should be a valid integer or a valid string"),
        ("[cluster.far]\nmem_gb = -1", r"cluster.far.mem_gb = -1 .* greater than 0"),
        ("max_array_size = true", r"max_array_size = True .* a number of jobs"),
        ("progress = 1", r"progress = 1 .* true or false"),
        ("timeout = 1", r"timeout: there is no setting 'timeout'; did you mean 'timeout_min'\?"),
        ("partition = 'a'", r"did you mean 'slurm_partition'\?"),
        ("mem-gb = 1", r"did you mean 'mem_gb'\?"),
        ("gpus = 1", r"did you mean 'gpus_per_node'\?"),
        ("zzz = 1", r"there is no setting 'zzz'. Settings are timeout_min, nodes, .*progress"),
        ("[cluster.far]\ntimout_min = 1", r"cluster.far.timout_min: .* did you mean 'timeout_min'"),
        ("[cluster.'a b']\nzzz.a = 1", r'cluster."a b".zzz: there is no setting .zzz.. Settings are'),
        ("[far]\nmem_gb = 1", r"If it is the name of a cluster, its table is \[(tool.exca_like.)?cluster.far\]"),
        ("folder = 'a'", r"folder: 'folder' can be set on an infra only. .* Take it out"),
        ("mode = 'force'", r"mode: 'mode' can be set on an infra only"),
        ("version = '2'", r"version: 'version' can be set on an infra only"),
        ("job_name = 'a'", r"job_name: 'job_name' can be set on an infra only"),
        ("cluster = 'slurm'", r"cluster = 'slurm' is no setting: .* \[(tool.exca_like.)?cluster.NAME\]"),
        ("[cluster]\nnodes = 1", r"cluster.nodes = 1 is for no cluster: .*cluster.NAME\], where NAME is the ClusterName"),
        ("[cluster.far]\nprogress = true", r"cluster.far.progress: 'progress' can't differ between clusters"),
        ("timeout_min = ", r"is no valid TOML: Invalid value .*Correct it there"),
    ],
)
@pytest.mark.parametrize("project", [False, True])
def test_a_wrong_file_is_named_with_the_key(place, text, expected, project):
    if project:
        file, start = place.project, "tool.exca_like."
        file.write_text(text.replace("[", "[tool.exca_like.", 1) if text.startswith("[") else f"[tool.exca_like]\n{text}")
    else:
        file, start = place.user, ""
        file.write_text(text)
    with pytest.raises(errors.SettingsError, match=expected) as caught:
        asked()
    assert isinstance(caught.value, ValueError)
    assert str(file) in str(caught.value)
    if "TOML" not in expected:
        assert f"{file}: {start}" in str(caught.value)
    with pytest.raises(errors.SettingsError, match=expected):
        exca_like.settings.explain()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mem_gb", "lots", r"EXCA_LIKE_MEM_GB='lots' is no valid setting: it should be a valid number"),
        ("timeout_min", "1.5", r"EXCA_LIKE_TIMEOUT_MIN='1.5' .* a valid integer"),
        ("slurm_setup", "module load cuda", r"a valid list, as JSON like '\[\"module load cuda\"\]'"),
        ("slurm_setup", "[1]", r"EXCA_LIKE_SLURM_SETUP='\[1\]' .*at 0, it should be a valid string"),
        ("slurm_setup", '["module', r"begins like JSON, but is none \(Unterminated string"),
        ("slurm_additional_parameters", "x=1", r"a valid dictionary, as JSON like '{\"mail-type\": \"END\"}'"),
    ],
)
def test_a_wrong_variable_is_named(place, name, value, expected):
    place.variable(name, value)
    with pytest.raises(errors.SettingsError, match=expected):
        asked()
    assert getattr(asked(**{name: None}), name) is None, "what is set on the infra needs no setting"


def test_other_wrong_files(place, tmp_path):
    place.user.write_bytes(b"slurm_account = '\xff'")
    with pytest.raises(errors.SettingsError, match=r"config.toml is no valid TOML: 'utf-8' codec can't decode"):
        asked()
    place.user.write_text("[tool.exca_like]\nnodes = 1")
    with pytest.raises(errors.SettingsError, match=r"config.toml: tool: \[tool.exca_like\] is for pyproject.toml"):
        asked()
    place.user.unlink()
    place.user.mkdir()
    assert asked().nodes == 1
    place.project.write_text("tool.exca_like = 3")
    with pytest.raises(errors.SettingsError, match=r"pyproject.toml: tool.exca_like = 3 should be a table of settings"):
        asked()
    place.project.write_text("tool = 3 # exca_like")
    assert asked().nodes == 1
    place.project.write_text("[broken")
    assert asked().nodes == 1, "a project that does not mention the package is not read"


def test_a_file_that_can_not_be_read(place):
    place.user.write_text("nodes = 1")

    def refuse(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    place.patch.setattr(sources.files, "read_bytes", refuse)
    with pytest.raises(errors.SettingsError, match=r"can't read the settings file .*config.toml: Permission denied"):
        asked()


def test_validators_of_a_class_count(place):
    class Infra(exca_like.TaskInfra):
        @pydantic.field_validator("slurm_partition")
        @classmethod
        def _check(cls, value: str | None) -> str | None:
            if value == "bad":
                raise ValueError("there is no such partition")
            return value

    class Checked(pydantic.BaseModel):
        infra: Infra = Infra()

        @infra.apply
        def run(self) -> int:
            return 1

    place.user.write_text('slurm_partition = "bad"')
    with pytest.raises(errors.SettingsError, match="slurm_partition = 'bad' is no valid setting: there is no such partition"):
        asked(Checked)
    assert asked().slurm_partition == "of the class"


# explain


def test_explain_says_where_each_value_comes_from(place):
    place.user.write_text(TABLES)
    place.project.write_text('[tool.exca_like]\nslurm_account = "lab"')
    place.variable("cpus_per_task", "8")
    place.slurm("alps")
    infra = Model(infra={"folder": "cache", "cluster": "slurm", "gpus_per_node": 1}).infra
    shown = exca_like.settings.explain(infra)
    assert shown["timeout_min"] == (2, f"{place.user}: cluster.alps.timeout_min")
    assert shown["mem_gb"] == (1.0, f"{place.user}: mem_gb")
    assert shown["slurm_account"] == ("lab", f"{place.project}: tool.exca_like.slurm_account")
    assert shown["cpus_per_task"] == (8, "EXCA_LIKE_CPUS_PER_TASK")
    assert shown["gpus_per_node"] == (1, "set on the infra")
    assert shown["slurm_partition"] == ("of the class", "set on the class: Model.infra")
    assert shown["nodes"] == (1, "default")
    assert shown["max_array_size"] == (None, "default: the cluster's MaxArraySize")
    assert shown.cluster == "alps"
    assert list(shown.files) == [str(place.user), str(place.project)]
    resources = infra._resources()
    assert {name: shown[name].value for name in shown if hasattr(resources, name)} == {
        name: getattr(resources, name) for name in SETTINGS if name != "job_name"
    }
    lines = str(shown).splitlines()
    assert lines[0] == "What jobs on the Slurm cluster 'alps' ask for"
    assert lines[2].split() == ["name", "value", "source"]
    assert lines[3].split() == ["timeout_min", "2", f"{place.user}:", "cluster.alps.timeout_min"]
    assert lines[-2] == f"  {place.user}: read (its tables for local, other.site are not for here)"
    assert lines[-1] == f"  {place.project}: read"
    assert repr(shown) == str(shown)


def test_explain_without_anything(place):
    shown = exca_like.settings.explain()
    assert {setting.source.partition(":")[0] for setting in shown.values()} == {"default"}
    assert f"  {place.user}: not there\n" in str(shown)
    assert str(shown).endswith(f"  {place.project}: not there, nor in a folder above")
    place.project.write_text("[project]")
    assert str(exca_like.settings.explain()).endswith(f"  {place.project}: read, has no [tool.exca_like]")


def test_explain_shows_the_mode(place):
    infra = Model(infra={"mode": "retry"}).infra
    assert exca_like.settings.explain()["mode"] == ("cached", "default")
    assert exca_like.settings.explain(infra)["mode"] == ("retry", "set on the infra")
    place.variable("mode", "read-only")
    shown = exca_like.settings.explain(infra)
    assert shown["mode"] == ("read-only", "EXCA_LIKE_MODE")
    (line,) = (line for line in str(shown).splitlines() if line.startswith("mode "))
    assert line.split() == ["mode", "'read-only'", "EXCA_LIKE_MODE"]
    assert "mode" not in exca_like.settings.explain(exca_like.SubmitInfra())
    place.variable("mode", "never")
    with pytest.raises(errors.SettingsError, match="EXCA_LIKE_MODE='never' is no mode: use one of cached, retry, force"):
        exca_like.settings.explain()
    place.patch.delenv("EXCA_LIKE_MODE")
    place.project.write_text('[tool.exca_like]\nmode = "force"')  # what is computed is no matter of a settings file
    with pytest.raises(errors.SettingsError, match="'mode' can be set on an infra only"):
        exca_like.settings.explain()


def test_explain_for_a_cluster(place):
    place.user.write_text(TABLES)
    place.patch.setenv("SLURM_CLUSTER_NAME", "alps")
    infra = Model(infra={"folder": "cache", "cluster": "local"}).infra
    assert exca_like.settings.explain(infra)["timeout_min"].value == 3
    assert exca_like.settings.explain(infra, cluster="slurm")["timeout_min"].value == 2
    assert exca_like.settings.explain(cluster="local")["timeout_min"].value == 3
    place.patch.setattr("exca_like.executors.slurm.slurm_is_there", lambda: False)
    assert "(this infra has cluster=None, which starts none)" in str(exca_like.settings.explain(Model().infra))
    assert exca_like.settings.explain(exca_like.TaskInfra(nodes=3))["nodes"] == (3, "set on the infra")
    with pytest.raises(errors.InfraTypeError, match=r"takes an infra, like `config.infra`, not Model"):
        exca_like.settings.explain(Model())
    with pytest.raises(errors.InfraValueError, match="cluster='alps': jobs run on"):
        exca_like.settings.explain(cluster="alps")


def test_explain_shortens_long_values(place):
    place.variable("slurm_account", "a" * 500)
    shown = exca_like.settings.explain()
    assert shown["slurm_account"].value == "a" * 500
    assert "aaa...  EXCA_LIKE_SLURM_ACCOUNT" in str(shown)


def test_threads_may_ask_while_a_file_changes(place):
    stop = threading.Event()
    wrong: list[tp.Any] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                found = asked().timeout_min
            except Exception as error:
                found = error
            if found not in (1, 2):
                wrong.append(found)

    place.user.write_text("timeout_min = 1")
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        new = place.user.with_suffix(".new")
        new.write_text(f"timeout_min = {number % 2 + 1}")
        new.replace(place.user)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert asked().timeout_min == 2


def test_nothing_is_read_at_import(place, tmp_path):
    import subprocess

    place.user.write_text("broken")
    code = "import exca_like, sys; exca_like.TaskInfra; exca_like.settings; assert 'tomllib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
