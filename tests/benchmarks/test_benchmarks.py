"""The benchmarks run, and print a whole table; what they measure is not asserted."""

from __future__ import annotations

import bench_cases
import pytest
import run


@pytest.mark.skipif(bool(run.missing_peers()), reason="needs the extra bench")
def test_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FULL", run.Size(rounds=1, calls=1, tasks=3))
    run.main([])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "---" not in line]
    assert rows[0] == list(run.COLUMNS)
    assert [row[0] for row in rows[1:]] == [case.name for case in bench_cases.CASES]
    ours, ok = run.COLUMNS.index(run.OURS), run.COLUMNS.index("ok")
    for row in rows[1:]:
        assert len(row) == len(run.COLUMNS)
        assert row[ours][0].isdigit()
        assert row[ok] in ("yes", "NO", "-")


def test_table_without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "missing_peers", lambda: list(run.PEERS))
    ((_name, exca, joblib, _diskcache, _scrat, _numpy, floor, ours, ratio, _goal, ok),) = run.run(
        run.Size(1, 1, 3), only="task: hit, fresh object"
    )
    assert (exca, joblib, ratio, ok) == ("-", "-", "-", "-")
    assert "µs" in floor + ours
