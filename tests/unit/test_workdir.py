"""Copies of code, other environments for jobs, and jobs found by their ids."""

import json
import logging
import os
import pickle
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pydantic
import pytest

import exca_like
from exca_like import errors, layout, snapshots
from exca_like.executors import elsewhere, python
from exca_like.helpers import find_slurm_job
from exca_like.workdir import Ignore, WorkDir, chdir, identify_path

PACKAGE = Path(exca_like.__file__).parent
NEEDED = ["annotated_types", "cloudpickle", "numpy", "orjson", "pydantic", "pydantic_core", "submitit", "typing_extensions", "typing_inspection", "yaml"]  # fmt: skip


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    path.chmod(mode)
    return path


def content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def taken(*copied: Path, root: Path, **settings) -> Path:
    return Path(WorkDir(copied=list(copied), **settings)._snapshot(str(root), None).path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path / "project/pack/__init__.py", "VALUE = 'before'\n")
    write(tmp_path / "project/pack/part.py", "PART = 1\n")
    write(tmp_path / "project/pack/run.sh", "#!/bin/sh\n", 0o755)
    write(tmp_path / "project/pack/__pycache__/part.cpython-311.pyc", "junk")
    write(tmp_path / "project/single.py", "SINGLE = 'before'\n")
    return tmp_path / "project"


# names


def test_paths_and_import_names_are_found_without_importing(project: Path, monkeypatch) -> None:
    write(project / "names/space/__init__.py", "raise RuntimeError('imported')")
    write(project / "names/lonely.py", "raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(project))
    assert identify_path("pack") == project / "pack"
    assert identify_path("single") == project / "single.py"
    assert identify_path("names") == project / "names"
    assert identify_path("names.space") == project / "names/space"
    assert identify_path("names.lonely") == project / "names/lonely.py"
    assert identify_path(project / "pack/run.sh") == project / "pack/run.sh"
    with chdir(project):
        assert identify_path("pack/part.py") == project / "pack/part.py"
        assert identify_path(".") == project
    assert not {"pack", "single", "names"} & set(sys.modules)
    assert identify_path("exca_like") == PACKAGE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_thing", r"no file or folder 'no_such_thing' in .* can be imported: check the spelling"),
        ("no/such/thing.txt", "no import name"),
        ("my-project", "no import name"),
        ("", "no import name"),
        ("pack.part", "can only be copied as a whole: give 'pack'"),
        ("sys", "part of Python itself"),
        ("json", "part of Python itself"),
        ("__main__.x", "can be imported"),
        ("both", r"spread over several folders: .*first/both, .*second/both"),
    ],
)
def test_names_of_nothing_say_so(name: str, message: str, project: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    for place in ("second", "first"):
        write(tmp_path / place / "both" / f"{place}.py", "")
        monkeypatch.syspath_prepend(str(tmp_path / place))
    with pytest.raises(ValueError, match=f"(?s){message}"):
        identify_path(name)


def test_installed_package_is_copied_all_the_same(caplog) -> None:
    with caplog.at_level(logging.INFO, "exca_like"):
        assert identify_path("submitit").name == "submitit"
    assert "not editable: it is copied all the same" in caplog.text


def test_two_things_of_one_name_are_refused(project: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other/single.py", "")
    with pytest.raises(ValueError, match=r"project/single.py and .*other/single.py would both be copied to 'single.py'"):
        taken(project / "single.py", other, root=tmp_path)
    assert taken(other, other, root=tmp_path).name


def test_ignore_works_with_copytree(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "copy", ignore=Ignore(["*.py"], ["__pycache__", "part.*"]))
    assert set(content(tmp_path / "copy")) == {"pack/__init__.py", "single.py"}
    assert Ignore()(str(project), ["pack", "single.py"]) == set()
    assert Ignore(["*.txt"])(project, ["pack", "single.py"]) == {"single.py"}


def test_fields_are_checked() -> None:
    for wrong in ({"copied": "pack"}, {"copy": []}, {"excludes": ".git"}, {"includes": "*.py"}):
        with pytest.raises(pydantic.ValidationError):
            WorkDir(**wrong)
    assert exca_like.WorkDir is WorkDir


def test_chdir_comes_back_after_an_error(tmp_path: Path) -> None:
    before = os.getcwd()
    with pytest.raises(KeyError), chdir(tmp_path):
        assert os.getcwd() == str(tmp_path)
        raise KeyError
    assert os.getcwd() == before


# copies


def test_copy_has_what_is_wanted_and_where(project: Path, tmp_path: Path) -> None:
    copy = taken(project / "pack", project / "single.py", root=tmp_path / "cache")
    assert copy.parent == tmp_path / "cache/code"
    assert set(content(copy)) == {"pack/__init__.py", "pack/part.py", "pack/run.sh", "single.py"}
    assert (copy / "pack/run.sh").stat().st_mode & stat.S_IXUSR
    assert not (copy / "single.py").stat().st_mode & stat.S_IXUSR
    only = taken(project / "pack", root=tmp_path / "cache", includes=["*.sh"], folder=tmp_path / "elsewhere")
    assert only.parent == tmp_path / "elsewhere"
    assert set(content(only)) == {"pack/run.sh"}


def test_digest_tells_every_content_apart(project: Path, tmp_path: Path) -> None:
    def digest() -> str:
        return taken(project, root=tmp_path).name

    seen = [digest()]
    write(project / "pack/part.py", "PART = 2\n")
    seen.append(digest())
    (project / "pack/part.py").chmod(0o755)
    seen.append(digest())
    (project / "pack/part.py").rename(project / "pack/parts.py")
    seen.append(digest())
    os.symlink("parts.py", project / "pack/part.py")
    seen.append(digest())
    assert len(set(seen)) == 5
    (project / "pack/part.py").unlink()
    (project / "pack/parts.py").rename(project / "pack/part.py")
    (project / "pack/part.py").chmod(0o644)
    write(project / "pack/part.py", "PART = 1\n")
    assert digest() == seen[0]


def test_a_thousand_submissions_copy_and_read_once(project: Path, tmp_path: Path, monkeypatch) -> None:
    old = time.time() - 100
    for path in project.rglob("*"):
        os.utime(path, (old, old))
    monkeypatch.setattr(snapshots, "_SETTLED_NS", 0)
    copies, opened = [], []
    copy = snapshots._copy
    monkeypatch.setattr(snapshots, "_copy", lambda *args, **kwargs: copies.append(1) or copy(*args, **kwargs))
    digests = snapshots.hashlib.file_digest
    monkeypatch.setattr(snapshots.hashlib, "file_digest", lambda *args: opened.append(1) or digests(*args))
    assert len({taken(project, root=tmp_path) for _ in range(1000)}) == 1
    assert len(copies) == 1
    assert len(opened) == 4


def test_changes_of_the_last_moment_are_seen(project: Path, tmp_path: Path) -> None:
    for number in range(30):  # same size, and maybe the same time stamp
        (project / "single.py").write_text(f"SINGLE = {number:05}")
        assert (taken(project, root=tmp_path) / "project/single.py").read_text() == f"SINGLE = {number:05}"


def test_processes_may_copy_at_once(project: Path, tmp_path: Path) -> None:
    for number in range(200):
        write(project / f"pack/m{number}.py", f"{number}")
    code = (
        f"from exca_like.workdir import WorkDir; import sys; sys.stdin.read()\n"
        f"print(WorkDir(copied=[{str(project)!r}])._snapshot({str(tmp_path)!r}, None).path)"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(8)]
    for worker in workers:
        worker.stdin.close()
        worker.stdin = None
    said = [worker.communicate() for worker in workers]
    assert len({out for out, _ in said}) == 1, said
    assert [path.name for path in (tmp_path / "code").iterdir()] == [Path(said[0][0].strip()).name]
    assert len(content(Path(said[0][0].strip()))) == 204


def test_file_that_changes_meanwhile_is_named_by_what_was_copied(project: Path, tmp_path: Path, monkeypatch) -> None:
    copy_item, number = snapshots._copy_item, iter(range(100))

    def change_before(name, *args):
        if name.endswith("single.py"):
            (project / "single.py").write_text(f"SINGLE = {next(number)}")
        return copy_item(name, *args)

    monkeypatch.setattr(snapshots, "_copy_item", change_before)
    copy = taken(project, root=tmp_path)
    assert (copy / "project/single.py").read_text() == "SINGLE = 2"
    monkeypatch.undo()
    assert taken(project, root=tmp_path) == copy
    assert len(list((tmp_path / "code").iterdir())) == 1


def test_links(project: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.py", "OUT = 1")
    (tmp_path / "data").mkdir()
    os.symlink("part.py", project / "pack/relative.py")
    os.symlink("relative.py", project / "pack/link_to_link.py")
    os.symlink("../pack", project / "pack/loop")
    os.symlink(outside, project / "outside.py")
    os.symlink("../outside.py", project / "relative_outside.py")
    os.symlink("pack/__pycache__/part.cpython-311.pyc", project / "to_excluded.txt")
    os.symlink(project / "single.py", project / "absolute.py")
    os.symlink(tmp_path / "data", project / "data")
    os.symlink("nothing", project / "broken")
    os.symlink("ring", project / "ring")
    os.mkfifo(project / "fifo")
    with socket.socket(socket.AF_UNIX) as unix, chdir(project):
        unix.bind("socket")
    with pytest.warns(UserWarning) as noted:
        copy = taken(project, root=tmp_path / "cache") / "project"
    assert sorted(str(w.message).split(" is a link")[0] for w in noted) == [str(project / "broken"), str(project / "ring")]
    links = {str(path.relative_to(copy)): os.readlink(path) for path in copy.rglob("*") if path.is_symlink()}
    assert links == {
        "pack/relative.py": "part.py",
        "pack/link_to_link.py": "relative.py",
        "pack/loop": "../pack",
        "data": str(tmp_path / "data"),
    }
    for name in ("outside.py", "relative_outside.py"):
        assert (copy / name).read_text() == "OUT = 1"
    assert (copy / "to_excluded.txt").read_text() == "junk"
    assert (copy / "absolute.py").read_text() == "SINGLE = 'before'\n"
    assert not {"fifo", "socket", "broken", "ring"} & {path.name for path in copy.iterdir()}
    os.symlink(project / "pack", tmp_path / "pack")  # as some tools install packages
    assert "pack/part.py" in content(taken(tmp_path / "pack", root=tmp_path))


def test_results_inside_of_a_copied_folder_are_left_out(project: Path) -> None:
    copies = set()
    for number in range(3):
        write(project / f"cache/result{number}", "")
        copies.add(taken(project, root=project / "cache"))
    assert len(copies) == 1
    assert "project/single.py" in content(copies.pop())


def test_permissions(project: Path, tmp_path: Path) -> None:
    copy = Path(WorkDir(copied=[project / "pack"])._snapshot(str(tmp_path / "cache"), 0o640).path)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (copy.parent, copy, copy / "pack", *(copy / "pack").iterdir())
    }
    assert modes == {"code": 0o750, copy.name: 0o750, "pack": 0o750, "__init__.py": 0o640, "part.py": 0o640, "run.sh": 0o750}


def test_errors_of_files_name_them(project: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(path, *args, **kwargs):
        if str(path).endswith(("part.py", "/code")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    real = open
    monkeypatch.setattr(snapshots, "open", refuse, raising=False)
    with pytest.raises(errors.SubmissionError, match=r"can't read .*pack/part.py .*Permission denied.*excludes"):
        taken(project, root=tmp_path)
    monkeypatch.undo()
    write(tmp_path / "file", "")
    with pytest.raises(OSError, match=r"can't copy code for the job to .*file/code: .*WorkDir\(folder="):
        taken(project, root=tmp_path / "file")


# git


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_commits_are_asked_for_and_recorded(project: Path, tmp_path: Path, caplog) -> None:
    git(project, "init", "-q")
    unlogged = taken(project / "pack", root=tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)3 file\(s\).*pack/__init__.py.*Commit them \(in .*project\)"):
        taken(project / "pack", root=tmp_path, log_commit=True)
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    with caplog.at_level(logging.INFO, "exca_like"):
        first = taken(project / "pack", root=tmp_path, log_commit=True)
    head = git(project, "rev-parse", "HEAD")
    assert json.loads((first / "commits.json").read_text()) == {"pack": head}
    assert f"pack is commit {head}" in caplog.text
    assert first != unlogged
    assert first == taken(project / "pack", root=tmp_path, log_commit=True)
    write(project / "single.py", "changed")  # is not copied
    write(project / "pack/__pycache__/more.pyc", "nor is this")
    assert taken(project / "pack", root=tmp_path, log_commit=True) == first
    write(project / "pack/new file.py", "")
    (project / "pack/part.py").unlink()
    with pytest.raises(errors.SubmissionError, match=r"(?s)2 file\(s\).*pack/part.py\n  pack/new file.py\n"):
        taken(project / "pack", root=tmp_path, log_commit=True)
    lonely = write(tmp_path / "lonely.py", "")
    assert json.loads((taken(lonely, root=tmp_path, log_commit=True) / "commits.json").read_text()) == {}


def test_git_that_is_not_there(project: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.SubmissionError, match="needs git"):
        taken(project, root=tmp_path, log_commit=True)


# jobs

MODEL = """
    import os, sys, typing as tp
    import pydantic
    import exca_like

    class Look(pydantic.BaseModel):
        x: int = 0
        pause: float = 0
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> dict[str, tp.Any]:
            return look()

    class Looks(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra()

        @infra.apply(item_uid=str)
        def run(self, items: list[int]) -> tp.Iterator[dict[str, tp.Any]]:
            for _ in items:
                yield look()

    class Sends(pydantic.BaseModel):
        infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

        @infra.apply
        def run(self) -> dict[str, tp.Any]:
            return look()

    class Nested(pydantic.BaseModel):
        look: Look = Look()
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> str:
            self.look.run()
            return str(self.look.infra.uid_folder())

    def look():
        import pack
        return {"value": pack.VALUE, "file": pack.__file__, "cwd": os.getcwd(), "model": __file__, "version": list(sys.version_info[:2]), "prefix": sys.prefix, "env": dict(os.environ)}
"""


def script(project: Path, code: str, python: str = sys.executable, **environment: str) -> str:
    """Run a script in the project, in a process of its own."""
    write(project / "looking.py", MODEL)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = os.pathsep.join([str(PACKAGE.parent), environment.pop("extra_path", "")]).rstrip(os.pathsep)
    write(project / "main_script.py", code)
    done = subprocess.run(
        [python, "main_script.py"], cwd=project, env={**variables, "PYTHONPATH": path, **environment}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


EDIT = """
import json, sys
from pathlib import Path
def edit():
    for path in Path(".").rglob("pack/__init__.py"):
        if "code" not in path.parts:
            path.write_text("VALUE = 'after'\\n")
"""


def test_jobs_run_what_was_submitted(project: Path) -> None:
    code = EDIT + textwrap.dedent("""
        from looking import Look, Looks, Sends
        infra = {"folder": "../cache", "cluster": "local", "workdir": {"copied": ["pack", "looking"]}}
        with Look(infra=infra).infra.job_array() as array:
            array.extend(Look(x=x, infra=infra) for x in range(1, 3))
        seen = [Look(infra=infra).infra.job(), *(task.infra.job() for task in array)]
        sends = Sends(infra=infra)
        seen.append(sends.infra.submit())
        with sends.infra.batch() as batch:
            sends.infra.submit(); sends.infra.submit()
        seen += batch
        mapped = list(Looks(infra=infra).run([1, 2]))  # which waits for the jobs
        edit()
        print(json.dumps([job.result() for job in seen] + mapped))
    """)
    found = json.loads(script(project, code, EXCA_LIKE_LOCAL_JOBS="1"))
    (copy,) = (project.parent / "cache/code").iterdir()
    assert len(found) == 8
    for one in found:
        assert one["value"] == "before"
        assert one["cwd"] == str(copy)
        assert one["file"] == str(copy / "pack/__init__.py")
        assert one["model"] == str(copy / "looking.py")
    assert (project / "pack/__init__.py").read_text() == "VALUE = 'after'\n"


def test_folder_of_the_import_path_is_replaced_by_its_copy(project: Path) -> None:
    code = EDIT + textwrap.dedent("""
        from looking import Look
        job = Look(infra={"folder": "cache", "cluster": "local", "workdir": {"copied": ["."]}}).infra.job()
        edit()
        print(json.dumps(job.result()))
    """)
    found = json.loads(script(project, code))
    assert found["value"] == "before"
    assert found["file"] == found["cwd"] + "/project/pack/__init__.py"


def test_relative_folders_mean_the_same_in_a_job(project: Path) -> None:
    code = """
        from looking import Look, Nested
        nested = Nested(look=Look(infra={"folder": "inner"}), infra={"folder": "outer", "cluster": "local", "workdir": {"copied": ["pack"]}})
        print(nested.run())
    """
    assert Path(script(project, code).strip()).parents[1] == project / "inner"


@pytest.mark.parametrize("cluster", [None, "debug"])
def test_no_job_no_copy(cluster: str | None, project: Path, tmp_path: Path, monkeypatch) -> None:
    class Here(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> str:
            return os.getcwd()

    workdir = WorkDir(copied=["no_such_thing"])
    task = Here(infra={"folder": tmp_path, "cluster": cluster, "workdir": workdir, "conda_env": "nope"})
    assert task.infra.uid() == Here().infra.uid()
    assert task.run() == os.getcwd()
    assert not (tmp_path / "code").exists()


def test_what_is_missing_is_told_at_submission(tmp_path: Path) -> None:
    for wrong, message in (
        ({"workdir": {"copied": ["no_such_thing"]}}, "no_such_thing"),
        ({"conda_env": "no_such_env"}, "no conda environment of this name"),
        ({"conda_env": tmp_path}, r"no interpreter .*/bin/python"),
        ({"conda_env": "./nowhere"}, "no such folder"),
    ):
        with pytest.raises(ValueError, match=message):
            Plain(infra={"folder": tmp_path / "cache", "cluster": "local", **wrong}).infra.job()
        with pytest.raises(ValueError, match=message):
            list(PlainMap(infra={"folder": tmp_path / "cache", "cluster": "local", **wrong}).run([1]))
    assert not list((tmp_path / "cache").rglob("*.claim"))
    assert not (tmp_path / "cache/logs").exists()


def test_array_is_split_by_code(project: Path, tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "cache", "cluster": "local"}
    workdirs = [{"copied": [project / name]} for name in ("single.py", "pack", "pack")]
    tasks = [Plain(x=x, infra={**infra, "workdir": workdir}) for x, workdir in enumerate([None, *workdirs])]
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    assert [task.run() for task in tasks] == [0, 1, 4, 9]
    arrays = [task.infra.job().job_id.partition("_")[0] for task in tasks]
    assert len(set(arrays)) == 3
    assert arrays[2] == arrays[3]
    assert len(list((tmp_path / "cache/code").iterdir())) == 2


@pytest.fixture(scope="module")
def venv(tmp_path_factory) -> Path:
    """An environment with the packages that jobs need, but not this one, and an import hook before all others."""
    folder = tmp_path_factory.mktemp("venv") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in NEEDED:
        found = Path(sys.modules[name].__file__) if name in sys.modules else identify_path(name)
        os.symlink(found if found.suffix == ".py" and found.stem == name else found.parent if found.is_file() else found, site / found.name if found.stem == name else site / name)  # fmt: skip
    for libraries in Path(identify_path("numpy")).parent.glob("numpy.libs"):
        os.symlink(libraries, site / libraries.name)
    return folder


@pytest.mark.parametrize("kind", ["pth", "first hook"])
def test_snapshot_wins_over_editable_installs(kind: str, project: Path, venv: Path) -> None:
    (site,) = venv.glob("lib/python*/site-packages")
    source = project / "src/pack"
    source.parent.mkdir()
    (project / "pack").rename(source)
    hook = f"""
        import importlib.util, sys
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "pack":
                    return importlib.util.spec_from_file_location(name, {str(source / "__init__.py")!r}, submodule_search_locations=[{str(source)!r}])
        sys.meta_path.insert(0, Finder)
    """
    if kind == "pth":
        write(site / "editable.pth", f"{source.parent}\n")
    else:
        write(site / "editable_hook.py", hook)
        write(site / "editable.pth", "import editable_hook\n")
    code = EDIT + textwrap.dedent("""
        from looking import Look
        import pack
        assert "src" in pack.__file__
        job = Look(infra={"folder": "../cache", "cluster": "local", "workdir": {"copied": ["pack"]}}).infra.job()
        edit()
        print(json.dumps(job.result()))
    """)
    try:
        found = json.loads(script(project, code, python=str(venv / "bin/python")))
    finally:
        (site / "editable.pth").unlink()
    assert found["value"] == "before"
    assert "/code/" in found["file"]


@pytest.mark.slow
def test_snapshot_wins_over_a_real_editable_install(project: Path, tmp_path: Path) -> None:
    (project / "pack").rename(project / "pack2")
    (project / "src").mkdir()
    (project / "pack2").rename(project / "src/pack")
    write(project / "pyproject.toml", '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n[project]\nname = "pack"\nversion = "1"\n')  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    interpreter = tmp_path / "env/bin/python"
    for what in (
        ["pydantic", "submitit", "numpy", "pyyaml", "orjson"],
        ["--config-settings", "editable_mode=strict", "-e", str(project)],
    ):
        subprocess.run([interpreter, "-m", "pip", "install", "-q", *what], check=True, capture_output=True)
    code = EDIT + textwrap.dedent("""
        from looking import Look
        job = Look(infra={"folder": "../cache", "cluster": "local", "workdir": {"copied": ["pack"]}}).infra.job()
        edit()
        print(json.dumps(job.result()))
    """)
    found = json.loads(script(project, code, python=str(interpreter)))
    assert found["value"] == "before"
    assert "/code/" in found["file"]


# environments


def test_job_uses_the_python_of_another_environment(project: Path, venv: Path) -> None:
    code = f"""
        import json
        from looking import Look, Sends
        infra = {{"folder": "../cache", "cluster": "local", "conda_env": {str(venv)!r}}}
        print(json.dumps([Look(infra=infra).run(), Sends(infra=infra).run()]))
    """
    for one in json.loads(script(project, code, VIRTUAL_ENV="/here", PYTHONHOME="")):
        assert one["prefix"] == str(venv)
        assert one["env"]["VIRTUAL_ENV"] == str(venv)
        assert one["env"]["PATH"].startswith(f"{venv}/bin:")
        assert "PYTHONHOME" not in one["env"]
        assert "site-packages" not in one["env"]["PYTHONPATH"]


def test_installed_package_goes_along_to_another_environment(project: Path, venv: Path, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(PACKAGE, site / "exca_like", ignore=Ignore(excludes=["__pycache__"]))
    write(tmp_path / "plain/looking.py", MODEL)
    code = f"""
        import sys
        sys.path[:] = [{str(site)!r}, *(entry for entry in sys.path if entry != {str(PACKAGE.parent)!r})]
        import json, exca_like
        assert exca_like.__file__.startswith({str(site)!r})
        from looking import Look
        print(json.dumps(Look(infra={{"folder": "../cache", "cluster": "local", "conda_env": {str(venv)!r}}}).run()))
    """
    found = json.loads(script(project, code, PYTHONPATH=str(site)))
    assert found["prefix"] == str(venv)
    assert str(site) not in found["env"]["PYTHONPATH"]
    assert f"{project.parent}/cache/code/" in found["env"]["PYTHONPATH"]


@pytest.mark.slow
def test_job_uses_another_version_of_python(project: Path, tmp_path: Path) -> None:
    others = [shutil.which(f"python3.{minor}") for minor in (12, 13, 14) if minor != sys.version_info[1]]
    others += [str(path) for path in Path("~/.pyenv/versions").expanduser().glob("3.1[23]*/bin/python")]
    works = [name for name in others if name and subprocess.run([name, "-V"], capture_output=True, check=False).returncode == 0]
    if not works:
        pytest.skip("there is no other Python on this machine")
    subprocess.run([works[0], "-m", "venv", tmp_path / "env"], check=True)
    packages = ["pydantic", "submitit", "numpy", "pyyaml", "orjson"]
    subprocess.run([tmp_path / "env/bin/python", "-m", "pip", "install", "-q", *packages], check=True, capture_output=True)
    code = EDIT + textwrap.dedent(f"""
        import pydantic, exca_like
        from looking import Look
        infra = {{"folder": "../cache", "cluster": "local", "conda_env": {str(tmp_path / "env")!r}, "workdir": {{"copied": ["pack"]}}}}
        job = Look(infra=infra).infra.job()
        edit()
        print(json.dumps(job.result()))
        class OfScript(Look):
            pass
        try:
            OfScript(infra=infra).infra.job()
        except exca_like.errors.SubmissionError as error:
            assert "put it into a module" in str(error), error
        else:
            raise AssertionError
    """)
    found = json.loads(script(project, code))
    assert found["value"] == "before"
    assert tuple(found["version"]) != sys.version_info[:2]
    assert found["prefix"] == str(tmp_path / "env")


def test_environment_that_can_not_run_jobs_is_told(tmp_path: Path, venv: Path) -> None:
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", empty], check=True)
    old = write(tmp_path / "old/bin/python", "#!/bin/sh\necho '[[3, 8], []]'\n", 0o755)
    broken = write(tmp_path / "broken/bin/python", "#!/bin/sh\necho no libpython >&2; exit 1\n", 0o755)
    for folder, message in (
        (empty, r"lacks packages that jobs need: .*pydantic.* -m pip install exca_like"),
        (old.parents[1], "is Python 3.8: jobs need 3.11 or later"),
        (broken.parents[1], "does not run: no libpython"),
    ):
        with pytest.raises(errors.SubmissionError, match=message):
            Plain(infra={"folder": tmp_path / "cache", "cluster": "local", "conda_env": folder}).infra.job()


def test_conda_environments_are_found_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("CONDA_EXE", "CONDA_PREFIX", "CONDA_ROOT", "MAMBA_ROOT_PREFIX", "CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"):
        monkeypatch.delenv(name, raising=False)

    def make(path: str) -> str:
        return str(write(tmp_path / path / "bin/python", "#!/bin/sh\n", 0o755))

    root = make("conda")
    (tmp_path / "conda/conda-meta").mkdir()
    env = make("conda/envs/train")
    other = make("mamba/envs/other")
    listed = make("far/listed")
    twice = [make("far/twice"), make("near/twice")]
    lines = [str(Path(path).parents[1]) for path in (listed, *twice)]
    write(tmp_path / "home/.conda/environments.txt", "\n".join(lines))
    for variable, value in (("CONDA_EXE", "conda/bin/conda"), ("CONDA_PREFIX", "conda"), ("CONDA_PREFIX", "conda/envs/train")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(tmp_path / value))
            assert python.find_python("train") == env
            assert python.find_python("base") == root
    monkeypatch.setenv("MAMBA_ROOT_PREFIX", str(tmp_path / "mamba"))
    assert python.find_python("other") == other
    assert python.find_python("listed") == listed
    with pytest.raises(ValueError, match=r"several environments: .*far/twice, .*near/twice"):
        python.find_python("twice")
    assert python.find_python(tmp_path / "far/twice") == twice[0]
    assert python.find_python(f"{tmp_path}/near/twice/") == twice[1]
    with pytest.raises(ValueError, match=r"searched: .*mamba.*environments.txt.*conda env list"):
        python.find_python("train")


def test_modules_come_from_the_copy_of_the_last_job(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for number in (1, 2):
        write(tmp_path / f"{number}/fresh_module_{number}.py", "")
        elsewhere.put_first([str(tmp_path / str(number))])
    assert identify_path("fresh_module_1") == tmp_path / "1/fresh_module_1.py"
    assert sum(isinstance(finder, elsewhere._First) for finder in sys.meta_path) == 1
    assert sys.path[:2] == [str(tmp_path / "2"), str(tmp_path / "1")]


# jobs by their ids


class Plain(pydantic.BaseModel):
    x: int = 3
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        print("squaring", flush=True)
        return self.x**2


class PlainMap(pydantic.BaseModel):
    power: int = 2
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: list[int]):
        for item in items:
            yield item**self.power


class PlainSubmit(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    def run(self, x: int) -> int:
        return x + 1


def add(x: int) -> int:
    return x + 10


@pytest.mark.parametrize("workdir", [None, {"copied": ["exca_like"]}])
def test_jobs_are_found_by_their_ids(workdir, tmp_path: Path) -> None:
    infra = {"folder": tmp_path, "cluster": "local", "workdir": workdir}
    task = Plain(x=4, infra=infra)
    task.run()
    found = find_slurm_job(job_id=task.infra.job().job_id, folder=tmp_path)
    assert (found.uid, found.uid_folder) == (task.infra.uid(), task.infra.uid_folder())
    assert found.config == task.infra.config(uid=False)
    assert found.config["x"] == 4
    assert found.job.stdout() == "squaring\n"
    assert found.job.result() == 16
    assert found.job.paths.stdout == task.infra.job().paths.stdout

    sent = PlainSubmit(infra=infra).infra.submit(1)
    assert sent.result() == 2
    found = find_slurm_job(job_id=sent.job_id, folder=tmp_path)
    assert (found.uid, found.config, found.job.result()) == (None, None, 2)

    mapped = PlainMap(power=3, infra=infra)
    assert list(mapped.run([1, 2])) == [1, 8]
    function = exca_like.memo(**infra)(add)
    assert list(function.map([1, 2])) == [11, 12]
    seen = {
        found.uid
        for name in os.listdir(tmp_path / "logs" / layout.user_name())
        if (found := find_slurm_job(job_id=name, folder=tmp_path))
    }
    assert seen == {task.infra.uid(), mapped.infra.uid(), f"{add.__module__}.add,0", None}


@pytest.fixture(autouse=True)
def _no_slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may have started a real one, whose jobs have the same ids."""
    folder = tmp_path_factory.mktemp("no-slurm")
    for name in ("scontrol", "sacct"):
        write(folder / name, "#!/bin/sh\nexit 1\n", 0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def slurm_like(task: Plain, job_id: str, logs: str) -> Path:
    """What is left of a job on Slurm: its file, and its record."""
    from exca_like.executors.slurm_handle import SlurmJob
    from exca_like.executors.slurm_job import SlurmCall
    from exca_like.infra.task import TaskCall

    task.infra.uid_folder(create=True)
    job = SlurmJob(logs, job_id)
    job.paths.folder.mkdir(parents=True)
    call = TaskCall(task, "infra", task.infra._entry(), "cached")
    job.paths.submitted_pickle.write_bytes(pickle.dumps(SlurmCall(call, "preemption", 10)))
    job.paths.stderr.write_text("it went wrong")
    Path(task.infra._entry().job).write_text(json.dumps({**job.record(), "time": time.time()}))
    return job.paths.folder


def test_slurm_jobs_are_found_by_logs_or_records(tmp_path: Path) -> None:
    task, other = (Plain(x=x, infra={"folder": tmp_path, "cluster": "slurm"}) for x in (5, 6))
    logs = slurm_like(task, "123_4", f"{tmp_path}/logs/somebody/%j")
    found = find_slurm_job(job_id="123_4", folder=tmp_path)
    assert (found.uid, found.config["x"], found.job.stderr()) == (task.infra.uid(), 5, "it went wrong")
    elsewhere_logs = slurm_like(other, "77", f"{tmp_path}/my_logs/%j-of-mine")
    assert find_slurm_job(job_id="77", folder=tmp_path).uid == other.infra.uid()  # by its record
    (Path(other.infra._entry().job)).unlink()
    assert find_slurm_job(job_id="77", folder=tmp_path) is None
    assert find_slurm_job(job_id="77", folder=tmp_path, logs="{folder}/my_logs/%j-of-mine").config["x"] == 6
    shutil.rmtree(logs)
    found = find_slurm_job(job_id="123_4", folder=tmp_path)
    assert (found.uid, found.job.stderr()) == (task.infra.uid(), None)
    assert elsewhere_logs.exists()


def test_finding_runs_no_code_of_the_pickle(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    task = Plain(infra={"folder": tmp_path, "cluster": "slurm"})
    task.infra.uid_folder(create=True)
    task.__dict__["x"] = Evil()
    slurm_like(task, "5", f"{tmp_path}/logs/me/%j")
    Path(task.infra._entry().job).unlink()
    assert find_slurm_job(job_id="5", folder=tmp_path).uid == task.infra.uid()
    assert not (tmp_path / "evil").exists()


def test_jobs_that_are_not_there(tmp_path: Path, monkeypatch) -> None:
    assert find_slurm_job(job_id="1", folder=tmp_path) is None
    slurm_like(Plain(infra={"folder": tmp_path, "cluster": "slurm"}), "9_3", f"{tmp_path}/logs/me/%j")
    with pytest.raises(ValueError, match=r"array of 1 jobs: give the id of one, like '9_3'"):
        find_slurm_job(job_id="9", folder=tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        find_slurm_job(job_id="9", folder=tmp_path / "no")
    with pytest.raises(ValueError, match="is no id of a job"):
        find_slurm_job(job_id="../9", folder=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_slurm_job(job_id="9") is None


def test_slurm_tells_where_logs_are(tmp_path: Path, monkeypatch) -> None:
    task = Plain(x=8, infra={"folder": tmp_path, "cluster": "slurm"})
    logs = slurm_like(task, "123_4", f"{tmp_path}/logs/me/%j")
    scontrol = f"JobId=127 ArrayJobId=123 ArrayTaskId=4 JobName=x\n   StdOut={logs}/123_4_0_log.out\n"
    write(tmp_path / "bin/scontrol", f"#!/bin/sh\nprintf '{scontrol}'\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    assert find_slurm_job(job_id="127").config["x"] == 8
    assert find_slurm_job(job_id="127", folder=tmp_path).config["x"] == 8
    sacct = f"123_4|sbatch {tmp_path}/logs/me/.submission_file_ab12.sh\n"
    write(tmp_path / "bin/sacct", f"#!/bin/sh\nprintf '{sacct}'\n", 0o755)
    write(tmp_path / "bin/scontrol", "#!/bin/sh\nexit 1\n", 0o755)
    assert find_slurm_job(job_id="127").config["x"] == 8
