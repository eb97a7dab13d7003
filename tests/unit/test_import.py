"""`import exca_like` is light and leaves the process as it found it."""

import subprocess
import sys

import pytest

HEAVY = ["submitit", "torch", "pandas"]
NOT_YET = [*HEAVY, "numpy", "pydantic", "yaml", "orjson", "aiohttp", "fastapi", "starlette", "uvicorn", "flask", "matplotlib"]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import exca_like", NOT_YET),
        ("import exca_like; exca_like.ConfDict({'a.b': 1}).to_uid()", ["pydantic", "numpy", *HEAVY]),
        ("import exca_like; exca_like.TaskInfra", [*HEAVY, "numpy", "resource"]),
        ("import exca_like; exca_like.record(a=1)", ["pydantic", "numpy", "subprocess", "resource", *HEAVY]),
        ("import exca_like; exca_like.provenance.Provenance", ["pydantic", "numpy", "subprocess", "resource", *HEAVY]),
        ("import exca_like; exca_like.SubmitInfra", [*HEAVY, "numpy"]),
        ("import exca_like; exca_like.MapInfra", HEAVY),
        ("import exca_like; exca_like.sweep", [*HEAVY, "rich", "tqdm"]),
        ("import exca_like; exca_like.helpers.DiscriminatedModel", [*HEAVY, "numpy"]),
    ],
)
def test_import_loads_no_heavy_library(code, absent):
    assert run(f"{code}\nimport sys; print(sorted(set({absent}) & set(sys.modules)))") == "[]"


def test_import_sets_nothing_up():
    code = """
import logging, random, sys, warnings, signal, locale, os
import numpy, yaml, pydantic
random.seed(1); numpy.random.seed(1)
loggers = set(logging.root.manager.loggerDict)
def state():
    return {
        "root": list(logging.root.handlers),
        "level": logging.root.level,
        "other loggers": [n for n in logging.root.manager.loggerDict if n not in loggers and not n.startswith(("exca_like", "concurrent", "asyncio"))],
        "random": random.getstate(),
        "numpy": str(numpy.random.get_state()),
        "dumper": (len(yaml.SafeDumper.yaml_representers), len(yaml.SafeDumper.yaml_multi_representers), len(yaml.CSafeDumper.yaml_representers)),
        "loader": (len(yaml.SafeLoader.yaml_constructors), len(yaml.CSafeLoader.yaml_constructors)),
        "model": (pydantic.BaseModel.__setattr__, pydantic.BaseModel.__init__, pydantic.BaseModel.__delattr__),
        "excepthook": sys.excepthook,
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
    }
before = state()
import exca_like
exca_like.TaskInfra
from collections import OrderedDict
config = exca_like.ConfDict({"a": OrderedDict(b=1), "c": numpy.float64(1)})
config.to_yaml(); config.to_uid()
class Model(pydantic.BaseModel):
    infra: exca_like.TaskInfra = exca_like.TaskInfra()
    @infra.apply
    def run(self): return 1
model = Model(); model.run(); model.infra.uid()
after = state()
assert before == after, [k for k in before if before[k] != after[k]]
handlers = logging.getLogger("exca_like").handlers
assert {type(h) for h in handlers} <= {logging.NullHandler}, handlers
assert logging.getLogger("exca_like").level == logging.NOTSET
print("same")
"""
    assert run(code) == "same"
