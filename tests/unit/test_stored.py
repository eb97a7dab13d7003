"""What is said of an entry by its files alone."""

import json
import re
import time
from pathlib import Path

import pydantic
import pytest

import exca_like
from exca_like.catalog import Catalog
from exca_like.errors import CorruptEntryWarning, ItemsFailedError
from exca_like.explaining import Explanation
from exca_like.layout import JOB
from exca_like.stored import explain


class Task(pydantic.BaseModel):
    seed: int = 0
    lr: float = 0.1
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> int:
        if self.seed == 3:
            raise ValueError("three")
        if self.seed == 4:
            time.sleep(600)
        return self.seed


class Items(pydantic.BaseModel):
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: list[int]):
        for item in items:
            if item == 2:
                raise ValueError("two")
            yield item


def double(x: int) -> int:
    return 2 * x


def task(folder: Path, **fields) -> Task:
    infra = {"folder": folder, **fields.pop("infra", {})}
    return Task(infra=infra, **fields)


def told(folder: Path, uid: str) -> Explanation:
    catalog = Catalog(folder)
    return explain(catalog[uid], catalog)


def test_a_result_and_an_error(tmp_path: Path) -> None:
    task(tmp_path, seed=1).run()
    task(tmp_path, seed=2, lr=0.5).run()
    with pytest.raises(ValueError, match="three"):
        task(tmp_path, seed=3).run()
    found = told(tmp_path, "seed=1")
    assert found.status == "hit" and found.nearest is None
    assert "computed 20" in found.reason and f"by exca_like {exca_like.__version__}" in found.reason
    failed = told(tmp_path, "seed=3")
    assert failed.status == "failed" and "ValueError: three. A call raises it" in failed.reason
    assert failed.nearest == task(tmp_path, seed=1).infra.uid()
    assert [(one.name, one.stored, one.now) for one in failed.differences] == [("seed", 1, 3)]


def test_defaults_of_the_nearest_config_are_shown(tmp_path: Path) -> None:
    task(tmp_path).run()
    with pytest.raises(ValueError, match="three"):
        task(tmp_path, seed=3, lr=0.5).run()
    found = told(tmp_path, "seed=3")
    assert [(one.name, one.stored, one.now) for one in found.differences] == [("lr", 0.1, 0.5), ("seed", 0, 3)]


def test_a_damaged_result(tmp_path: Path) -> None:
    one = task(tmp_path, seed=1)
    one.run()
    (journal,) = one.infra.uid_folder().glob("*-info.jsonl")
    data = journal.read_bytes()
    journal.write_bytes(data.replace(b'"time"', b'"tame"'))
    with pytest.warns(CorruptEntryWarning):
        found = told(tmp_path, "seed=1")
    assert found.status == "corrupt" and "computes it again" in found.reason


def test_jobs_that_run_and_that_were_cancelled(tmp_path: Path) -> None:
    task(tmp_path).run()
    one = task(tmp_path, seed=4, infra={"cluster": "local"})
    job = one.infra.job()
    found = told(tmp_path, "seed=4")
    assert found.status == "running" and f"Job {job.job_id}" in found.reason and "a call waits" in found.reason
    job.cancel()
    job.wait()
    found = told(tmp_path, "seed=4")
    assert found.status == "miss" and "left no result (cancelled" in found.reason
    assert found.nearest == task(tmp_path).infra.uid()
    (one.infra.uid_folder() / JOB).write_text(json.dumps({}))
    assert told(tmp_path, "seed=4").reason.startswith("Nothing is stored of it")


def test_maps_and_calls(tmp_path: Path) -> None:
    items = Items(infra={"folder": tmp_path})
    list(items.process([0, 1]))
    found = told(tmp_path, "Items.process")
    assert found.status == "hit" and found.reason.startswith("Stored results of items: 2. A call takes those")
    with pytest.raises(ItemsFailedError):
        list(items.process([1, 2]))
    found = told(tmp_path, "Items.process")
    assert found.status == "failed"
    assert re.search(r"errors: 1\. Item '2': It was computed 2\S+ \S+ UTC, and failed with ValueError: two", found.reason)
    exca_like.memo(folder=tmp_path)(double)(4)
    assert told(tmp_path, "double").status == "hit"
