"""A terminal with a command in it."""

import os
import subprocess
import sys
import uuid
from pathlib import Path


class Terminal:
    """A terminal with a command in it."""

    def __init__(self, folder: Path, *command: str) -> None:
        self._tmux = ["tmux", "-L", f"test-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]
        line = " ".join((sys.executable, "-m", "exca_like", *command)) + '; echo "ended with $?"; sleep 600'
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", "110", "-y", "40", line], cwd=folder, env=dict(os.environ), check=True
        )

    def text(self) -> str:
        return subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=True)
