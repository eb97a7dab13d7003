"""Memoised functions on a real cluster: from a module, from a script, from a notebook."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from exca_like import memo


def scale(data, factor=2):
    print("scaling by", factor, flush=True)
    if factor == "fail":
        raise KeyError("no such factor")
    return {"job": os.environ["SLURM_JOB_NAME"], "sum": float(data.sum()) * factor}


def test_calls_jobs_and_maps(idle_cluster, tmp_path: Path) -> None:
    function = memo(folder=tmp_path, cluster="slurm", cpus_per_task=1, mem_gb=0.3, max_jobs=2)(scale)
    data = np.arange(200_000)
    job = function.submit(data, 3)
    assert job.state in ("PENDING", "RUNNING", "COMPLETED")
    assert function.submit(data, 3).job_id == job.job_id
    assert job.result() == {"job": "scale,0/call", "sum": 3.0 * data.sum()}
    assert "scaling by 3" in job.stdout()
    results = list(function.map([data] * 5, [1, 2, 3, 4, 5]))
    assert [result["sum"] for result in results] == [float(data.sum()) * factor for factor in (1, 2, 3, 4, 5)]
    assert [result["job"] for result in results] == ["scale,0", "scale,0", "scale,0/call", "scale,0", "scale,0"]
    assert function(data, 7)["sum"] == 7.0 * data.sum()
    with pytest.raises(KeyError, match="no such factor") as caught:
        function(data, "fail")
    assert "Traceback of the computation" in caught.value.__notes__[0]
    assert isinstance(function.submit(data, "fail").exception(), KeyError)
    assert len(function.entries()) == 6


CODE = """
    import numpy as np
    import exca_like

    OFFSET = 10

    @exca_like.memo(cluster="slurm", cpus_per_task=1, mem_gb=0.3, max_jobs=2)
    def shifted(x: int, power=1):
        return OFFSET + helper(x)**power

    def helper(x):
        return x

    job = shifted.submit(2)
    print(*shifted.map([1, 2, 3]), job.result(), shifted(2, 2))
"""


def test_scripts(idle_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(CODE))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    for _ in range(2):
        done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "11 12 13 12 14\n"
    assert (tmp_path / ".exca_like" / "script.shifted,0").is_dir()


def test_notebooks(idle_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    definition, _, use = textwrap.dedent(CODE).partition("job =")
    cells = [nbformat.v4.new_code_cell(cell) for cell in (definition, f"job ={use}")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    for _ in range(2):
        nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
        printed = [output["text"] for output in notebook.cells[1].outputs if output.get("name") == "stdout"]
        assert printed == ["11 12 13 12 14\n"]
    assert (tmp_path / ".exca_like").is_dir()
