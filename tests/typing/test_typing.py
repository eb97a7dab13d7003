"""The package ships its types: checked with mypy (alone and with pydantic's plugin) and pyright."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("sample.py")
EXPECTED = [line.rpartition("# ")[2] for line in SAMPLE.read_text().splitlines() if "reveal_type(" in line]


def plain(text: str) -> str:
    """A revealed type, without what the checkers write differently."""
    text = re.sub(r"\b(builtins|exca_like\.confdict|sample)\.", "", text)
    text = re.sub(r"def \((?:self: )?(\w+)\)|\((?:self: )?(\w+)\)", lambda m: f"({m[1] or m[2]})", text)
    return "status" if "not submitted" in text else text


@pytest.mark.parametrize("plugin", ["", "pydantic.mypy"])
def test_mypy(tmp_path: Path, plugin: str) -> None:
    pytest.importorskip("mypy")
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = True\nplugins = {plugin}\ncache_dir = {tmp_path}\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), SAMPLE.name]
    done = subprocess.run(command, cwd=SAMPLE.parent, capture_output=True, text=True, check=False)
    assert "error" not in done.stdout, done.stdout
    revealed = [plain(text) for text in re.findall(r'Revealed type is "(.*)"', done.stdout)]
    if plugin:  # which makes a field that is declared again in a subclass an Any
        revealed = [e if r == "Any" else r for r, e in zip(revealed, EXPECTED, strict=True)]
    assert revealed == EXPECTED


def test_pyright() -> None:
    pytest.importorskip("pyright")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, SAMPLE.name]
    done = subprocess.run(command, cwd=SAMPLE.parent, capture_output=True, text=True, check=False)
    assert "0 errors, 0 warnings" in done.stdout, done.stdout
    assert [plain(text) for text in re.findall(r'Type of ".*" is "(.*)"', done.stdout)] == EXPECTED
