"""The commands in shell blocks of the docs run as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^exca-like ", re.MULTILINE)
FIRST = ROOT / "docs/howto/command-line.md"


def blocks_of(page: Path) -> list[str]:
    return [block for block in BLOCK.findall(page.read_text()) if COMMAND.search(block)]


PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if blocks_of(page))


def shell(folder: Path, line: str) -> None:
    command, _, note = line.partition("  # ")
    expected = int(note.removeprefix("ends with ")[0]) if note.startswith("ends with ") else 0
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"
    assert not command.startswith("exca-like ") or done.stdout or expected or ">" in command, line  # each says what it did


def run_blocks(folder: Path, blocks: list[str]) -> None:
    for block in blocks:
        for line in block.replace("\\\n", "").splitlines():
            shell(folder, line)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with the experiment of the first page, and what its first block computes."""
    folder = tmp_path_factory.mktemp("docs")
    experiment = re.search(r"^```python\n(# train\.py\n.*?)^```", FIRST.read_text(), re.MULTILINE | re.DOTALL)
    assert experiment is not None
    (folder / "train.py").write_text(experiment[1])
    (folder / "bin").mkdir()
    for name, command in (("exca-like", "python -m exca_like"), ("python", "python")):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {command.replace("python", sys.executable, 1)} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    run_blocks(folder, blocks_of(FIRST)[:1])
    return folder


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT / "docs")) for page in PAGES])
def test_commands_of_docs(page: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder)
    run_blocks(folder, blocks_of(page)[1 if page == FIRST else 0 :])


def test_every_command_is_shown() -> None:
    from exca_like.cli.app import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    shown = {
        line.split()[1] for page in PAGES for block in blocks_of(page) for line in block.splitlines() if COMMAND.match(line)
    }
    assert names <= shown
