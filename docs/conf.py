"""Settings of Sphinx for these pages: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic

import exca_like

project = "exca_like"
author = "The exca_like developers"
copyright = author
release = version = exca_like.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"exca_like {release}"
html_copy_source = False

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
napoleon_use_rtype = False


_plain: dict[str, list[str]] = {}

# classes whose objects users are given, and never make
_GIVEN = (
    "TaskJob",
    "Sweep",
    "SweepPlan",
    "SweepStatus",
    "SweepRow",
    "FailureReport",
    "FailureGroup",
    "DumpContext",
    "ContiguousMemmap",
)


def shorten_signature(*event: Any) -> tuple[str, str | None] | None:
    """Leave out constructor signatures that repeat the fields or that users never call, and private defaults."""
    _, what, _, obj, _, signature, returned = event
    if what == "class" and (issubclass(obj, pydantic.BaseModel | BaseException) or obj.__name__ in _GIVEN):
        return "", None
    if signature and "_MISSING" in signature:
        return signature.replace("_MISSING", "..."), returned
    return None


def keep_plain(*event: Any) -> None:
    """Remember docstrings of attributes: napoleon takes what stands before a colon for a type."""
    _, what, name, _, _, lines = event
    if what in ("attribute", "property"):
        _plain[name] = list(lines)


def finish_docstring(*event: Any) -> None:
    """Restore docstrings of attributes, add defaults of fields, drop parameters of constructors that users never call."""
    _, what, name, obj, _, lines = event
    lines[:] = _plain.pop(name, lines)
    if what == "class" and obj.__name__ in _GIVEN:
        first = next((i for i, line in enumerate(lines) if line.startswith((":param", ":type"))), len(lines))
        del lines[first:]
    if what == "attribute":
        owner, _, field = name.rpartition(".")
        cls = getattr(exca_like, owner.rpartition(".")[2], None)
        info = getattr(cls, "model_fields", {}).get(field)
        if info is not None and not info.is_required():
            lines += ["", f"Default: ``{info.default!r}``."]


def write_commands(app: Any) -> None:
    """Write the page of all commands, from their code."""
    page = Path(app.srcdir) / "reference" / "commands.md"
    generate = ["typer", "exca_like.cli.app", "utils", "docs", "--name", "exca-like", "--title", "Commands"]
    subprocess.run([sys.executable, "-m", *generate, "--output", str(page)], check=True, stdout=subprocess.DEVNULL)


def setup(app: Any) -> None:
    """Connect the changes above; called by Sphinx."""
    app.connect("builder-inited", write_commands)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", keep_plain, priority=100)
    app.connect("autodoc-process-docstring", finish_docstring, priority=900)
