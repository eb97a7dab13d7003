"""What is sent to jobs: shared parts once, and a word on what is heavy."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

import exca_like
from exca_like import errors
from exca_like.executors import payload
from exca_like.executors.base import Resources


class Call:
    def __init__(self, owner: Any, number: int) -> None:
        self.owner = owner
        self.number = number

    def __call__(self) -> Any:
        return self.owner, self.number


class Owner:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def sizes(folder: Path) -> list[int]:
    return sorted(path.stat().st_size for path in folder.iterdir()) if folder.exists() else []


def test_what_is_small_is_sent_as_it_is(tmp_path: Path) -> None:
    sent = payload.payloads([Call(Owner(x=1), number) for number in range(3)], tmp_path / "shared", Resources())
    assert [pickle.loads(pickle.dumps(call))()[1] for call in sent] == [0, 1, 2]
    assert sizes(tmp_path / "shared") == []


def test_large_arrays_of_several_calls_are_sent_once(tmp_path: Path) -> None:
    array = np.arange(500_000.0)
    calls = [Call(Owner(data={"train": array}, k=k), k) for k in range(10)]  # as clones of a config
    sent = payload.payloads(calls, tmp_path / "shared", Resources())
    assert sum(len(call.data) for call in sent) < 10_000
    assert [size // 1000 for size in sizes(tmp_path / "shared")] == [4000]
    for k, call in enumerate(sent):
        owner, number = pickle.loads(pickle.dumps(call))()
        assert (owner.k, number) == (k, k)
        np.testing.assert_array_equal(owner.data["train"], array)
    again = payload.payloads(calls[:1], tmp_path / "shared", Resources())  # another submission finds it
    assert again[0]()[0].data["train"][-1] == 499_999
    assert len(sizes(tmp_path / "shared")) == 1


def test_an_owner_of_many_small_things_is_sent_once_too(tmp_path: Path) -> None:
    owner = Owner(names=[f"name-{k}" for k in range(150_000)])
    sent = payload.payloads([Call(owner, k) for k in range(5)], tmp_path / "shared", Resources())
    assert sum(len(call.data) for call in sent) < 10_000
    assert [call()[0].names[-1] for call in sent] == ["name-149999"] * 5


def test_what_refers_to_itself(tmp_path: Path) -> None:
    owner = Owner(blob=b"x" * 2_000_000)
    owner.me = owner
    first, second = payload.payloads([Call(owner, k) for k in range(2)], tmp_path / "shared", Resources())
    found = first()[0]
    assert found.me.blob == owner.blob
    assert second()[0].me.blob == owner.blob


def test_the_limit_names_what_is_heavy(tmp_path: Path) -> None:
    owner = Owner(model=Owner(weights=np.zeros(1_000_000), name="net"), notes="x" * 3_000_000, k=3)
    with pytest.raises(errors.SubmissionError, match=r"model\.weights 8 MB \(numpy\.ndarray\), notes 3 MB \(str\)"):
        payload.payloads([Call(owner, 1)], tmp_path / "shared", Resources(max_pickle_size_gb=0.001))
    assert sizes(tmp_path / "shared") == []


def test_a_warning_names_what_is_heavy(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.WARNING)
    payload.payloads([Call(Owner(data=np.zeros(8_000_000)), k) for k in range(3)], tmp_path / "shared", Resources())
    assert "3 job(s) take 64 MB along: the heaviest parts of one are data 64 MB (numpy.ndarray)" in caplog.text


class Fit(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    k: int = 0
    _data: Any = pydantic.PrivateAttr(None)
    infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local")

    @infra.apply
    def run(self) -> float:
        return float(self._data.sum()) + self.k


def test_local_jobs_share_as_well(tmp_path: Path) -> None:
    data = np.ones(1_000_000)
    base = Fit(infra={"folder": tmp_path})
    with base.infra.job_array() as array:
        for k in range(4):
            array.append(base.infra.clone_obj(k=k))
            array[-1]._data = data
    assert [task.run() for task in array] == [1_000_000 + k for k in range(4)]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*_submitted.pkl")) < 100_000


class TwoArrays:
    def __init__(self) -> None:
        self.first, self.second = np.zeros(200_000), np.zeros(200_000)

    def __call__(self) -> float:
        self.first += 1
        return float(self.second[0])


def test_equal_arrays_that_are_two_stay_two(tmp_path: Path) -> None:
    (sent,) = payload.payloads([TwoArrays()], tmp_path / "shared", Resources())
    assert len(sizes(tmp_path / "shared")) == 1
    assert pickle.loads(pickle.dumps(sent))() == 0


def test_a_damaged_part_is_told_and_one_that_is_not_whole_is_written_again(tmp_path: Path) -> None:
    call = Call(Owner(data=np.arange(200_000.0)), 1)
    (sent,) = payload.payloads([call], tmp_path / "shared", Resources())
    (part,) = (tmp_path / "shared").iterdir()
    data = part.read_bytes()
    part.write_bytes(data[:-100] + bytes(100))
    with pytest.raises(errors.CorruptEntryError, match=f"{part.name}.*damaged: remove it"):
        sent()
    part.write_bytes(data[:1000])
    payload.payloads([call], tmp_path / "shared", Resources())
    assert part.read_bytes() == data
    assert sent()[0].data[-1] == 199_999
