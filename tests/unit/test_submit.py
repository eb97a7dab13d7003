"""SubmitInfra: what is submitted, what comes back, and what is said when it can't be."""

import collections
import copy
import datetime
import decimal
import enum
import functools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import typing as tp
import warnings
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pydantic
import pytest

import exca_like
from exca_like import errors

CLUSTERS = [None, "debug", "local"]


class Model(pydantic.BaseModel):
    size: int = 3
    _stream: tp.Any = None
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    def run(self, x: tp.Any, /, *more: int, times: int = 1, **options: tp.Any) -> tp.Any:
        """Multiply."""
        print("output of", x, flush=True)
        if x == "raise":
            raise KeyError("no such thing")
        if x == "exit":
            os._exit(3)
        if x == "sleep":
            threading.Event().wait(300)
        if x == "identity":
            return options["value"]
        return self.size * x * times + sum(more)


class Static(pydantic.BaseModel):
    lock: tp.Any = None
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    @staticmethod
    def run(x: int, y: int = 0) -> int:
        """Add."""
        return x + y


class StaticAbove(pydantic.BaseModel):
    _infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @staticmethod
    @_infra.apply()
    def run(x: int, y: int = 0) -> int:
        return x + y

    def model_post_init(self, context: tp.Any) -> None:
        self._infra.folder = os.environ.get("TEST_SUBMIT_FOLDER")
        self._infra.cluster = "local" if self._infra.folder else None


def make(folder: Path, cluster: str | None = "local", **fields: tp.Any) -> Model:
    return Model(infra={"folder": folder, "cluster": cluster}, **fields)


@pytest.fixture(params=CLUSTERS, ids=str)
def model(request, tmp_path: Path) -> Model:
    return make(tmp_path, request.param)


# calling and submitting


def test_calls_and_submissions_take_any_arguments(model: Model) -> None:
    assert model.run(2) == 6
    assert model.run(2, 5, 6, times=2, unused="x", self=1) == 23
    job = model.infra.submit(2, 5, times=2, self=1)
    assert job.result() == 17
    assert job.results() == [17]
    assert job.exception() is None
    assert job.done()
    assert job.state == "COMPLETED"
    assert "Model.run,0/default" in repr(job)
    job.wait()
    job.cancel()  # it is over
    assert job.result() == 17
    if model.infra.cluster == "local":
        assert job.stdout() == "output of 2\n"
        assert job.stderr() == ""
        assert job.paths.folder.parent.parent.name == "logs"
    else:
        assert job.stdout() is job.stderr() is None


def test_without_a_folder_everything_happens_here() -> None:
    assert Model().run(2) == 6
    assert Model().infra.submit(2).result() == 6
    late = Model()
    late.infra.cluster = "local"
    for act in (late.run, late.infra.submit):
        with pytest.raises(ValueError, match="cluster='local' needs a folder"):
            act(2)
    with pytest.raises(ValueError, match="needs a folder"):
        Model(infra={"cluster": "slurm"})


def test_nothing_is_cached_and_the_cache_folder_stays_empty(tmp_path: Path) -> None:
    model = make(tmp_path)
    first, second = model.infra.submit(2), model.infra.submit(2)
    assert first.result() == second.result() == 6
    assert first.job_id != second.job_id
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_errors_come_back_as_what_they_were(model: Model) -> None:
    job = model.infra.submit("raise")
    with pytest.raises(KeyError, match="no such thing") as info:
        job.result()
    note = "".join(info.value.__notes__)
    assert 'raise KeyError("no such thing")' in note
    assert "submission.py" not in note
    assert isinstance(job.exception(), KeyError)
    assert job.state == "FAILED"
    with pytest.raises(KeyError, match="no such thing"):
        model.run("raise")


def test_errors_of_this_package_inside_the_method_are_results_too(model: Model) -> None:
    class Folders(pydantic.BaseModel):
        infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

        @infra.apply
        def run(self) -> None:
            raise errors.CacheFolderError(28, "full")

    job = Folders(infra={"folder": model.infra.folder, "cluster": model.infra.cluster}).infra.submit()
    assert isinstance(job.exception(), errors.CacheFolderError)


def test_jobs_that_die_or_are_cancelled_say_so(tmp_path: Path) -> None:
    model = make(tmp_path)
    dead, sleeping = model.infra.submit("exit"), model.infra.submit("sleep")
    with pytest.raises(errors.JobError, match=r"(?s)Model.run,0/default ended without a result: failed.*submit it again"):
        dead.result()
    assert not sleeping.done()
    sleeping.cancel()
    error = sleeping.exception()
    assert isinstance(error, errors.JobInterruptedError)
    assert "cancelled. To go on: submit it again" in str(error)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, r"Model\.run\(\) missing a required.*'x'"),
        ((1,), {"x": 2}, None),  # positional only: x is an option
    ],
)
def test_wrong_arguments_fail_at_once(model: Model, args, kwargs, text) -> None:
    if text is None:
        assert model.infra.submit(*args, **kwargs).result() == 3
        return
    for act in (model.infra.submit, model.run):
        with pytest.raises(TypeError, match="missing"):
            act(*args, **kwargs)
    with pytest.raises(TypeError, match=text):
        model.infra.submit(*args, **kwargs)


def test_wrong_arguments_of_static_methods_fail_at_once() -> None:
    static = Static()
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"z": 2}), ((1,), {"x": 2})):
        with pytest.raises(TypeError, match=r"^Static\.run\(\) "):
            static.infra.submit(*args, **kwargs)


def test_decorated_methods_may_be_given_other_arguments() -> None:
    def with_seed(method):
        @functools.wraps(method)
        def seeded(self, *args, **kwargs):
            return method(self, 10, *args, **kwargs)

        return seeded

    class Seeded(pydantic.BaseModel):
        infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

        @infra.apply
        @with_seed
        def run(self, seed: int, x: int) -> int:
            return seed + x

    assert Seeded().infra.submit(x=1).result() == Seeded().run(1) == 11


def test_static_methods_leave_the_config_at_home(tmp_path: Path) -> None:
    static = Static(lock=threading.Lock(), infra={"folder": tmp_path, "cluster": "local"})
    assert static.infra.submit(1, y=2).result() == 3
    assert static.run(1, y=2) == 3
    assert Static.run(1, y=2) == 3  # no instance, no infra
    assert static.run.__doc__ == "Add."
    assert static.run.__name__ == "run"
    assert len(list((tmp_path / "logs").rglob("*_submitted.pkl"))) == 2


def test_staticmethod_may_be_written_above(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TEST_SUBMIT_FOLDER", str(tmp_path))
    static = StaticAbove()
    assert static.run(1, y=2) == StaticAbove.run(1, y=2) == 3
    assert static._infra.submit(5).result() == 5
    assert static._infra.uid() == "test_submit.StaticAbove.run,0/default"
    assert len(list((tmp_path / "logs").rglob("*_submitted.pkl"))) == 2


def test_only_methods_are_accepted() -> None:
    async def asynchronous(self):
        pass

    for wrong in (classmethod(lambda cls: 1), asynchronous, 3, Model, staticmethod(asynchronous)):
        with pytest.raises(TypeError, match="SubmitInfra is for methods and static methods, not for a"):
            exca_like.SubmitInfra().apply(wrong)
    for wrong in (classmethod, lambda method: staticmethod(functools.partial(method))):
        # Python 3.11 wraps what is raised while a class is made
        with pytest.raises((TypeError, RuntimeError)) as info:

            class Wrong(pydantic.BaseModel):
                infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

                @wrong
                @infra.apply
                def run(cls):
                    pass

        assert "SubmitInfra is for methods" in str(info.value.__cause__ or info.value)


def test_fields_are_those_of_jobs_and_not_of_caches() -> None:
    assert not {"mode", "keep_in_ram"} & set(exca_like.SubmitInfra.model_fields)
    with pytest.raises(pydantic.ValidationError, match="mode"):
        exca_like.SubmitInfra(mode="force")


class Child(Model):
    pass


class Overriding(Model):
    def run(self, x: tp.Any, /, *more: int, times: int = 1, **options: tp.Any) -> tp.Any:
        return -super().run(x, *more, times=times, **options)


class Reapplying(Model):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra(version="2")

    @infra.apply
    def run(self, x: tp.Any, /, *more: int, times: int = 1, **options: tp.Any) -> tp.Any:
        return -super().run(x, *more, times=times, **options)


def test_subclasses(tmp_path: Path) -> None:
    infra = {"folder": tmp_path, "cluster": "local"}
    assert Child(infra=infra).run(2) == 6
    assert Overriding(infra=infra).run(2) == -6
    again = Reapplying(infra=infra)
    assert again.run(2) == -6
    assert again.infra.uid() == "test_submit.Reapplying.run,2/default"
    assert len(list((tmp_path / "logs").rglob("*_submitted.pkl"))) == 3


def test_configs_stay_free_and_need_no_uid(tmp_path: Path) -> None:
    class Odd(pydantic.BaseModel):
        size: int = 1
        anything: tp.Any = None
        infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

        @infra.apply
        def run(self) -> int:
            return self.size

    odd = Odd(anything=object(), infra={"folder": tmp_path, "cluster": "local"})
    job = odd.infra.submit()
    odd.size = 2  # what was submitted does not change
    assert job.result() == 1
    assert odd.run() == 2
    assert odd.infra._resources().job_name == "Odd.run,0/no-uid"
    named = make(tmp_path, size=7)
    assert named.infra._resources().job_name == "Model.run,0/size=7-8f14e45f"
    named.size = 8


def test_copies_and_clones_work_like_those_of_other_infras(tmp_path: Path) -> None:
    model = make(tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(cloudpickle.dumps(model)), model.infra.clone_obj(size=3)):
        assert other.infra.submit(1).result() == 3
        assert other.infra._open_batch() is None


# results


class Color(enum.Enum):
    RED = 1


class Point(tp.NamedTuple):
    x: int
    y: float


class Thing:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and other.x == self.x

    __hash__ = None


VALUES = [
    *(None, 1, True, 2.5, float("inf"), 1 + 2j, "text", "\udcff", b"bytes", Color.RED, Point(1, 2.0), Thing(3), int, len),
    *((1, (2, [3])), {1: "a", (2, 3): "b"}, {"a": [1, None, {"b": (1,)}]}, {1, 2}, frozenset("ab"), range(3), slice(1, 2)),
    *(decimal.Decimal("1.10"), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), Path("a/b"), KeyError("returned")),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("aab"), collections.deque([1, 2], 5), Model(size=9)),
    *(np.arange(6.0).reshape(2, 3), np.float32(1.5), np.array(["a", None], dtype=object), np.array([]), np.zeros((0, 3), "i1")),
    *(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), pd.DataFrame({"a": [1, 2]}, index=["x", "y"])),
    *(pd.Series([1.5, None], name="s"), {"array": np.ones(3), "list": [np.zeros(2), (1, 2)]}),
]


def equal(first: tp.Any, second: tp.Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tolist() == second.tolist()
    if isinstance(first, pd.DataFrame | pd.Series):
        return first.equals(second) and first.index.equals(second.index)
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, KeyError):
        return first.args == second.args
    return bool(first == second)


def test_values_come_back_equal_and_of_the_same_type(tmp_path: Path) -> None:
    model = make(tmp_path)
    alone = [None, (1, 2), Thing(3), np.arange(6.0).reshape(2, 3), pd.DataFrame({"a": [1, 2]}, index=["x", "y"])]
    with model.infra.batch() as jobs:
        for value in (VALUES, *alone):
            model.infra.submit("identity", value=value)
    together, *others = (job.result() for job in jobs)
    for value, result in zip([*VALUES, *alone], [*together, *others], strict=True):
        assert equal(result, value), value


def test_a_function_of_the_submitter_comes_back_too(tmp_path: Path) -> None:
    factor = 3
    job = make(tmp_path).infra.submit("identity", value=lambda x: x * factor)
    assert job.result()(2) == 6


def test_results_that_are_no_data_say_so(tmp_path: Path) -> None:
    class Lazy(pydantic.BaseModel):
        infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

        @infra.apply
        def run(self, number: int) -> tp.Iterator[int]:
            yield from range(number)

    assert list(Lazy().run(3)) == [0, 1, 2]
    with pytest.raises(TypeError, match="generator.*can't be stored"):
        Lazy(infra={"folder": tmp_path, "cluster": "local"}).run(3)


def test_jobs_can_be_pickled_and_looked_at_elsewhere(tmp_path: Path) -> None:
    job = make(tmp_path).infra.submit(2)
    other = pickle.loads(pickle.dumps(job))
    assert other.result() == 6
    assert other.job_id == job.job_id
    cache = exca_like.CacheDict(job.paths.folder / f"{job.job_id}_result")
    assert dict(cache) == {"result": 6}


def test_logs_without_job_id_hold_the_results_of_several_jobs(tmp_path: Path) -> None:
    model = Model(infra={"folder": tmp_path, "cluster": "local", "logs": tmp_path / "all"})
    with model.infra.batch() as jobs:
        for x in range(3):
            model.infra.submit(x)
    assert [job.result() for job in jobs] == [0, 3, 6]


def test_permissions_are_those_of_the_results(tmp_path: Path) -> None:
    job = Model(infra={"folder": tmp_path, "cluster": "local", "permissions": 0o640}).infra.submit(2)
    job.wait()
    (journal,) = job.paths.folder.glob("*_result/*-info.jsonl")
    assert journal.stat().st_mode & 0o777 == 0o640


def test_deleted_logs_are_no_result(tmp_path: Path) -> None:
    job = make(tmp_path).infra.submit(2)
    assert job.result() == 6
    shutil.rmtree(tmp_path / "logs")
    with pytest.raises(errors.JobInterruptedError, match="submit it again"):
        job.result()


# batches


def test_batches_are_sent_at_their_end(model: Model) -> None:
    with model.infra.batch(max_workers=2) as jobs:
        handed = [model.infra.submit(x) for x in range(3)]
        assert jobs == handed
        for job in handed:
            assert "not sent" in repr(job)
            for ask in (job.result, job.done, job.wait, job.cancel, job.stdout, job.exception, job.results):
                with pytest.raises(AttributeError, match="sent at the end of the batch"):
                    ask()
            for name in ("job_id", "state", "paths"):
                with pytest.raises(errors.InfraUsageError, match="use it after the block"):
                    getattr(job, name)
            copy.copy(pickle.loads(pickle.dumps(job)))
        with pytest.raises(AttributeError, match=r"run\(\.\.\.\) can't be called inside.*use infra\.submit\(\.\.\.\)"):
            model.run(1)
        with pytest.raises(RuntimeError, match="open batch"), model.infra.batch():
            pass
        assert model.infra.clone_obj().run(2) == 6  # a clone is another config
    assert [job.result() for job in handed] == [0, 3, 6]
    if model.infra.cluster == "local":
        assert len({job.job_id.partition("_")[0] for job in jobs}) == 1
    assert model.run(1) == 3


def test_nothing_is_sent_if_the_block_raises(tmp_path: Path) -> None:
    for cluster in CLUSTERS:
        model = make(tmp_path, cluster)
        with pytest.raises(ZeroDivisionError), model.infra.batch():
            job = model.infra.submit("sleep")
            raise ZeroDivisionError
        with pytest.raises(AttributeError, match=r"was not sent.*submit it again"):
            job.result()
        assert "not sent" in repr(job)
        with model.infra.batch() as jobs:  # the next one starts anew
            model.infra.submit(1)
        assert [job.result() for job in jobs] == [3]
    assert len(list((tmp_path / "logs").rglob("*_submitted.pkl"))) == 1


def test_refused_batches_leave_usable_messages(tmp_path: Path) -> None:
    model = Model(infra={"folder": tmp_path, "cluster": "local", "nodes": 2})
    with pytest.raises(ValueError, match="nodes=2"), model.infra.batch():
        job = model.infra.submit(1)
    with pytest.raises(AttributeError, match="was not sent"):
        job.result()


def test_empty_batches_do_nothing(model: Model) -> None:
    with model.infra.batch() as jobs:
        pass
    assert jobs == []
    with pytest.raises(ValueError, match="max_workers=0"), model.infra.batch(max_workers=0):
        pass


def test_one_failure_leaves_the_others(model: Model) -> None:
    with model.infra.batch() as jobs:
        for x in (1, "raise", 2):
            model.infra.submit(x)
    assert [job.exception() is None for job in jobs] == [True, False, True]


def test_arguments_are_those_of_the_submission(model: Model) -> None:
    values = {"n": 0}
    with model.infra.batch() as jobs:
        for number in range(3):
            values["n"] = model.size = number
            model.infra.submit("identity", value=values)
            model.infra.submit(1)
    assert [job.result() for job in jobs] == [{"n": 0}, 0, {"n": 1}, 1, {"n": 2}, 2]


def test_threads_gather_in_one_batch(tmp_path: Path) -> None:
    model = make(tmp_path, None)
    with model.infra.batch() as jobs:
        threads = [threading.Thread(target=model.infra.submit, args=(x,)) for x in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(job.result() for job in jobs) == [3 * x for x in range(20)]


# what can't be sent


def _closing_over(value: tp.Any) -> tp.Callable[[], tp.Any]:
    return lambda: value


class Holder:
    def __init__(self, **values: tp.Any) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("make_arguments", "path", "kind"),
    [
        (lambda bad: ((bad,), {}), "x", "_io.TextIOWrapper"),
        (lambda bad: ((1, 2, bad), {}), r"more\.1", "_io.TextIOWrapper"),
        (lambda bad: ((1,), {"times": bad}), "times", "_io.TextIOWrapper"),
        (lambda bad: ((1,), {"other": bad}), r"options\.other", "_io.TextIOWrapper"),
        (lambda bad: (({"a": [1, {"b": bad}]},), {}), r"x\.a\.1\.b", "_io.TextIOWrapper"),
        (lambda bad: ((Holder(fine=1, inner=Holder(stream=bad)),), {}), r"x\.inner\.stream", "_io.TextIOWrapper"),
        (lambda bad: ((_closing_over([bad]),), {}), r"x\.value\.0", "_io.TextIOWrapper"),
        (lambda bad: (((i for i in range(3)),), {}), "x", "generator"),
    ],
)
def test_what_cannot_be_pickled_is_named(tmp_path: Path, make_arguments, path, kind) -> None:
    model = make(tmp_path)
    with open(os.devnull, "w") as bad:  # one that is read from goes as a copy of its text
        args, kwargs = make_arguments(bad)
        for act in (model.infra.submit, model.run):
            with pytest.raises(
                errors.SubmissionError, match=f"Model.run can't .*: {path}, of type {kind}, can't be pickled"
            ) as e:
                act(*args, **kwargs)
        assert "make it inside the method" in str(e.value)
        assert "ickle" in str(e.value.__cause__)
        with pytest.raises(errors.SubmissionError), model.infra.batch():
            model.infra.submit(1)
            model.infra.submit(*args, **kwargs)
    assert not (tmp_path / "logs").exists()


def test_private_attributes_and_cycles_are_looked_into(tmp_path: Path) -> None:
    model = make(tmp_path)
    model._stream = [threading.Lock()]
    with pytest.raises(errors.SubmissionError, match=r": self\._stream\.0, of type _thread\.lock"):
        model.infra.submit(1)
    cycle: list[tp.Any] = []
    cycle += [cycle, {"lock": threading.Lock()}]
    with pytest.raises(errors.SubmissionError, match=r": x\.1\.lock, of type"):
        make(tmp_path).infra.submit(cycle)


class Slotted:
    __slots__ = ("inner",)


class Refusing:
    def __getattr__(self, name: str) -> tp.Any:
        raise RuntimeError(name)

    def __reduce__(self) -> tp.Any:
        raise ValueError("never")


def test_odd_objects_are_named_as_far_as_possible(tmp_path: Path) -> None:
    slotted = Slotted()
    slotted.inner = threading.Lock()
    with pytest.raises(errors.SubmissionError, match=r": x\.inner, of type _thread\.lock"):
        make(tmp_path).infra.submit(slotted)
    with pytest.raises(errors.SubmissionError, match=r": x\.0, of type test_submit\.Refusing.*never"):
        make(tmp_path).infra.submit([Refusing()])


class Breaking:
    """Can be pickled, but not loaded."""

    def __reduce__(self) -> tp.Any:
        return int, ("no number",)


def test_arguments_that_cannot_be_loaded_in_the_job_say_so(tmp_path: Path) -> None:
    error = make(tmp_path).infra.submit(Breaking()).exception()
    assert isinstance(error, ValueError)
    assert "no number" in str(error)


def test_the_size_of_what_is_sent_can_be_limited(tmp_path: Path) -> None:
    model = Model(infra={"folder": tmp_path, "cluster": "local", "max_pickle_size_gb": 1e-4})
    assert model.infra.submit("identity", value=bytes(1000)).result() == bytes(1000)
    with pytest.raises(errors.SubmissionError, match="max_pickle_size_gb"):
        model.infra.submit("identity", value=bytes(1_000_000))


# scripts

SCRIPT = """
import os, sys, threading
import pydantic
import exca_like

LOCK = threading.Lock()
FACTOR = 10


class Point:
    def __init__(self, x):
        self.x = x


class Model(pydantic.BaseModel):
    size: int = 3
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    def run(self, point: Point) -> Point:
        assert isinstance(point, Point)
        return Point(point.x * FACTOR)


class Static(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    @staticmethod
    def run(x: int) -> int:
        return x * FACTOR


class Locking(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()

    @infra.apply
    def run(self) -> int:
        with LOCK:
            return 1


settings = {"folder": sys.argv[1], "cluster": "local"}
"""


def run_script(tmp_path: Path, end: str) -> "subprocess.CompletedProcess[str]":
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + end)
    return subprocess.run([sys.executable, str(script), str(tmp_path / "jobs")], capture_output=True, text=True, check=False)


def test_classes_of_scripts(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
result = Model(infra=settings).run(Point(4))
print(type(result) is Point and result.x, Static(infra=settings).run(5), Static(infra=settings).infra.submit(6).result())
for name in ("Model", "Static"):
    print(globals()[name](infra=settings).infra.uid())
try:
    Locking(infra=settings).run()
except exca_like.errors.SubmissionError as error:
    print(error)
""",
    )
    assert done.stdout.startswith("40 50 60\nscript.Model.run,0/default\nscript.Static.run,0/default\n"), done.stderr
    assert "self.__class__.run.LOCK, of type _thread.lock" in done.stdout


def test_jobs_outlive_their_driver(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
import pickle, signal, time
class Slow(pydantic.BaseModel):
    infra: exca_like.SubmitInfra = exca_like.SubmitInfra()
    @infra.apply
    def run(self, x: int) -> int:
        time.sleep(1)
        return x + 1
slow = Slow(infra=settings)
with slow.infra.batch() as jobs:
    for x in range(3):
        slow.infra.submit(x)
with open(sys.argv[1] + "/jobs.pkl", "wb") as stream:
    pickle.dump(jobs, stream)
os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    jobs = pickle.loads((tmp_path / "jobs" / "jobs.pkl").read_bytes())
    assert [job.result() for job in jobs] == [1, 2, 3]


def test_a_job_that_is_started_again_keeps_its_result(tmp_path: Path) -> None:
    job = make(tmp_path).infra.submit(2)
    assert job.result() == 6
    before = {path: path.read_bytes() for path in job.paths.folder.rglob("*.jsonl")}
    variables = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": job.job_id}
    command = [sys.executable, "-m", "exca_like.executors.local_job", str(job.paths.submitted_pickle)]
    path = os.pathsep.join(p for p in sys.path if p)
    subprocess.run(command, env={**os.environ, **variables, "PYTHONPATH": path}, check=True, capture_output=True)
    assert {path: path.read_bytes() for path in job.paths.folder.rglob("*.jsonl")} == before


def test_results_of_others_are_not_unpickled(tmp_path: Path) -> None:
    model = Model(infra={"folder": tmp_path, "cluster": "local", "allow_pickle": "never"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        job = model.infra.submit("identity", value=Thing(1))
        with pytest.raises(errors.PickleRefusedError):
            job.result()
