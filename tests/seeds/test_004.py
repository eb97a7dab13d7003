"""Every code block of the user's page on the core system runs as written, with the package's name put in."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest

import exca_like

PAGE = Path(__file__).with_name("004.md")
NUMBER_OF_BLOCKS = 6
NEEDS_THE_STORE = (5,)  # blocks that use exca_like.cachedict


@dataclass(frozen=True)
class Block:
    line: int
    options: tuple[str, ...]
    code: str


def read_blocks(text: str) -> list[Block]:
    """The fenced blocks of python code of a page."""
    blocks = []
    lines = text.splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        language, *options = lines[opened].removeprefix("```").split() or [""]
        if language == "python":
            blocks.append(Block(opened + 2, tuple(options), "\n".join(lines[opened + 1 : number]) + "\n"))
        opened = None
    assert opened is None, f"the fence in line {opened} is not closed"
    return blocks


BLOCKS = read_blocks(PAGE.read_text(encoding="utf-8"))


class TutorialTask(pydantic.BaseModel):
    """The task that the page takes for granted."""

    param: int = 12
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

    @infra.apply
    def process(self) -> int:
        return 2 * self.param


def run(index: int, tmp_path: Path) -> dict[str, Any]:
    """Run a block, in the namespace of those before it if it continues them."""
    block = BLOCKS[index]
    if "continuation" in block.options:
        namespace = run(index - 1, tmp_path)
    else:
        namespace = {"__name__": __name__, "pydantic": pydantic, "TutorialTask": TutorialTask}
    if "fixture:tmp_path" in block.options:
        namespace["tmp_path"] = tmp_path
    code = re.sub(r"\bexca\b", "exca_like", block.code)
    exec(compile("\n" * (block.line - 1) + code, str(PAGE), "exec"), namespace)
    return namespace


def test_no_block_is_lost() -> None:
    assert len(BLOCKS) == NUMBER_OF_BLOCKS
    assert len(re.findall(r"^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == 2 * NUMBER_OF_BLOCKS
    assert [block.options for block in BLOCKS] == [(), (), ("continuation",), (), ("continuation",), ("fixture:tmp_path",)]
    assert [i for i, block in enumerate(BLOCKS) if "cachedict" in block.code] == list(NEEDS_THE_STORE)


@pytest.mark.parametrize("index", range(NUMBER_OF_BLOCKS))
def test_block(index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if index in NEEDS_THE_STORE and not hasattr(exca_like, "cachedict"):
        with pytest.raises(ImportError, match="cachedict"):  # the block runs as soon as there is a store
            run(index, tmp_path)
        return
    run(index, tmp_path)


def test_folder_name(tmp_path: Path) -> None:
    """Cache folders are named as the page's section on caching says."""
    task = TutorialTask(param=13, infra={"folder": tmp_path})
    task.process()
    folder = task.infra.uid_folder()
    assert folder is not None and folder.is_dir()
    assert re.fullmatch(rf"{re.escape(__name__)}\.TutorialTask\.process,1/param=13-[0-9a-f]{{8}}", str(folder.relative_to(tmp_path)))


def test_parts_that_are_excluded() -> None:
    """The section on uids: exclusions of the class, of the cache, and as a function that subclasses don't replace."""

    class Base(pydantic.BaseModel):
        _exclude_from_cls_uid = ("device",)
        lr: float = 0.1
        device: str = "cpu"
        late: int = 0
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        def excluded(self) -> list[str]:
            return ["late"]

        @infra.apply(exclude_from_cache_uid=excluded)
        def run(self) -> float:
            return self.lr

    class Named(pydantic.BaseModel):
        late: int = 0
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        def excluded(self) -> list[str]:
            return ["late"]

        @infra.apply(exclude_from_cache_uid="method:excluded")
        def run(self) -> int:
            return 0

    class Child(Base):
        def excluded(self) -> list[str]:
            return []

    class NamedChild(Named):
        def excluded(self) -> list[str]:
            return []

    def config_uid(task: Any) -> str:
        return task.infra.uid().rpartition("/")[2]

    assert config_uid(Base(device="cuda", late=3)) == "default"
    assert Base(device="cuda", late=3).infra.config(exclude_defaults=True) == {"late": 3}
    assert config_uid(Child(late=3)) == "default"
    assert config_uid(Named(late=3)) == "default"
    assert config_uid(NamedChild(late=3)).startswith("late=3-")
