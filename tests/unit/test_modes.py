"""Modes of tasks and maps: off, of the environment, and those that reach the configs that contain one."""

import os
import pickle
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

import exca_like
from exca_like import errors
from exca_like.models.walk import models_within


class Counted(pydantic.BaseModel):
    """Notes in a file, which jobs write to as well, what is computed."""

    model_config = pydantic.ConfigDict(extra="forbid")
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("notes",)
    notes: str

    def note(self, what: object) -> None:
        with open(self.notes, "a") as stream:
            stream.write(f"{what} ")


class Data(Counted):
    size: int = 3
    fails: bool = False
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("notes", "fails")
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def build(self) -> list[int]:
        self.note("data")
        if self.fails:
            raise KeyError("no data")
        return list(range(self.size))


class Train(Counted):
    data: Data | None = None
    more: dict[str, list[int | dict[str, tuple[Data, ...]]]] = {}
    lr: float = 0.1
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> float:
        self.note("train")
        if self.data is not None:
            self.data.build()
            return self.lr * len(self.data.build())
        return self.lr


class Evaluate(Counted):
    train: Train
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def scores(self, items: list[int]) -> Iterator[float]:
        for item in items:
            self.note(item)
            yield item * self.train.run()


class Maps(Counted):
    how: str = ""
    infra: exca_like.MapInfra = exca_like.MapInfra()

    @infra.apply(item_uid=str)
    def double(self, items: list[int]) -> tp.Any:
        self.note(f"{len(items)}:")
        if self.how == "list":
            return [2 * item for item in items]
        return self._each(items)

    def _each(self, items: list[int]) -> Iterator[tp.Any]:
        for item in items[: -1 if self.how == "too few" else None]:
            self.note(item)
            if item < 0:
                raise ZeroDivisionError(f"no double of {item}")
            yield [2 * item]
        if self.how == "too many":
            yield [0]


class Place:
    """Makes configs in a folder, and tells what is computed and what is there."""

    def __init__(self, folder: Path) -> None:
        self.notes = str(folder / "notes")
        self.cache = folder / "cache"

    def settings(self, mode: str, infra: dict[str, tp.Any]) -> dict[str, tp.Any]:
        return {"folder": self.cache, "mode": mode, **infra}

    def data(self, mode: str = "cached", fields: tp.Any = (), **infra: tp.Any) -> Data:
        return Data(notes=self.notes, infra=self.settings(mode, infra), **dict(fields))

    def train(self, mode: str = "cached", data: Data | None = None, fields: tp.Any = (), **infra: tp.Any) -> Train:
        return Train(notes=self.notes, data=data, infra=self.settings(mode, infra), **dict(fields))

    def evaluate(self, train: Train, mode: str = "cached", **infra: tp.Any) -> Evaluate:
        return Evaluate(notes=self.notes, train=train, infra=self.settings(mode, infra))

    def maps(self, mode: str = "cached", fields: tp.Any = (), **infra: tp.Any) -> Maps:
        return Maps(notes=self.notes, infra=self.settings(mode, infra), **dict(fields))

    @property
    def computed(self) -> list[str]:
        """What was computed since the last question."""
        if not os.path.exists(self.notes):
            return []
        words = Path(self.notes).read_text().split()
        os.remove(self.notes)
        return words

    def listing(self) -> list[tp.Any]:
        """Every file of the cache, with its content."""
        found: list[tp.Any] = []
        for folder, names, files in os.walk(self.cache):
            found += [(folder, sorted(names), os.stat(folder).st_mtime_ns)]
            found += [(folder, name, Path(folder, name).read_bytes()) for name in sorted(files)]
        return sorted(found, key=repr)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def mode_of_environment(monkeypatch: pytest.MonkeyPatch) -> tp.Callable[[str], None]:
    return lambda mode: monkeypatch.setenv("EXCA_LIKE_MODE", mode)


# off


@pytest.mark.parametrize("cluster", [None, "debug", "local", "slurm"])
def test_off_leaves_no_trace_of_a_task(place: Place, cluster: str | None) -> None:
    off = place.data("off", cluster=cluster, keep_in_ram=True)
    first = off.build()
    first.append(5)
    assert off.build() == [0, 1, 2]
    assert off.build() is not off.build()
    assert place.computed == ["data"] * 4
    job = off.infra.job()
    assert job.result() == [0, 1, 2] and job.job_id == "in-process" and job.state == "COMPLETED"
    assert off.infra.job().result() == [0, 1, 2]
    assert place.computed == ["data"]
    assert off.infra.status() == "not submitted"
    assert not place.cache.exists()
    assert off.infra.uid() == place.data().infra.uid()


def test_off_does_not_read_what_there_is(place: Place) -> None:
    cached = place.data()
    cached.build()
    before, _ = place.listing(), place.computed
    off = cached.infra.clone_obj(infra={"mode": "off"})
    assert off.infra.mode == "off"
    again = off.infra.clone_obj(size=3)
    assert again.infra.mode == "off"
    assert (off.build(), again.build()) == ([0, 1, 2], [0, 1, 2])
    assert place.computed == ["data"] * 2
    assert off.infra.status() == "completed"
    assert off.infra.uid_folder() == cached.infra.uid_folder()
    folder = off.infra.uid_folder()
    assert folder is not None and folder.exists()
    assert place.listing() == before


def test_off_raises_errors_as_they_are_and_stores_none(place: Place) -> None:
    off = place.data("off", {"fails": True})
    for _ in range(2):
        with pytest.raises(KeyError, match="no data") as caught:
            off.build()
        assert caught.traceback[-1].name == "build"
        assert not hasattr(caught.value, "__notes__")
    job = off.infra.job()
    assert isinstance(job.exception(), KeyError)
    assert job.done() and job.state == "FAILED"
    with pytest.raises(KeyError):
        job.result()
    assert place.computed == ["data"] * 3
    assert off.infra.status() == "not submitted"
    assert not place.cache.exists()


def test_off_jobs_of_debug_wait_until_they_are_asked(place: Place) -> None:
    job = place.data("off", cluster="debug").infra.job()
    assert place.computed == []
    assert job.result() == [0, 1, 2]
    assert place.computed == ["data"]


def test_off_arrays_keep_their_jobs_in_memory(place: Place) -> None:
    base = place.data("off", cluster="slurm")  # there is none
    with base.infra.job_array() as array:
        array += [base.infra.clone_obj(size=size) for size in range(3)]
    assert len(place.computed) == 3
    assert [task.infra.job().result() for task in array] == [[], [0], [0, 1]]
    exca_like.wait_all(array)
    assert place.computed == []
    assert [task.build() for task in array] == [[], [0], [0, 1]]
    assert len(place.computed) == 3
    with base.infra.job_array() as again:
        again += array
    assert len(place.computed) == 3
    assert not place.cache.exists()
    with pytest.raises(ValueError, match="the same config"), base.infra.job_array() as twice:
        twice += [base, base.infra.clone_obj()]
    array[0].infra.clear_job()
    array[0].infra.job()
    assert place.computed == ["data"]


def test_off_comes_after_what_it_needs(place: Place) -> None:
    failing = place.data("off", {"fails": True})
    with pytest.raises(errors.DependencyError):
        place.train("off").infra.job(after=failing)
    with pytest.raises(errors.DependencyError), place.train("off").infra.job_array(after=failing) as array:
        array.append(place.train("off"))
    assert place.computed == ["data"]
    assert place.train("off").infra.job(after=place.data("off")).result() == 0.1
    assert place.computed == ["data", "train"]


def test_off_configs_stay_free(place: Place) -> None:
    off = place.data("off")
    off.build()
    off.size = 1
    assert off.build() == [0]


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "debug", "local", "slurm"])
def test_off_leaves_no_trace_of_a_map(place: Place, cluster: str | None) -> None:
    off = place.maps("off", cluster=cluster)
    for items in ([3, 1, 3, 2, 1], iter([3, 1, 3, 2, 1])):
        assert list(off.double(items)) == [[6], [2], [6], [4], [2]]
        assert place.computed == ["3:", "3", "1", "2"]
    assert list(off.double([])) == []
    assert list(off.double(iter([]))) == []
    assert place.computed == []
    assert list(off.infra.cache_dict) == []
    assert not place.cache.exists()


def test_off_maps_stream(place: Place) -> None:
    results = place.maps("off").double(range(100))
    assert place.computed == []
    assert [next(results), next(results)] == [[0], [2]]
    assert place.computed == ["100:", "0", "1"]


def test_off_maps_keep_only_what_is_to_come_again(place: Place) -> None:
    class Value:
        alive = 0

        def __init__(self) -> None:
            Value.alive += 1

        def __del__(self) -> None:
            Value.alive -= 1

    class Objects(pydantic.BaseModel):
        infra: exca_like.MapInfra = exca_like.MapInfra(mode="off")

        @infra.apply(item_uid=str)
        def make(self, items: list[int]) -> Iterator[Value]:
            for _ in items:
                yield Value()

    most = 0
    for _ in Objects().make(range(100)):
        most = max(most, Value.alive)
    assert most <= 3
    first, second, *others = Objects().make([1, 2, 1])
    assert others == [first] and second is not first


def test_off_maps_do_not_read_what_there_is(place: Place) -> None:
    cached = place.maps()
    list(cached.double([1, 2]))
    before, _ = place.listing(), place.computed
    off = cached.infra.clone_obj(infra={"mode": "off"})
    assert off.infra.cache_dict["1"] == [2]  # in memory from now on
    assert list(off.double([1, 3])) == [[2], [6]]
    assert place.computed == ["2:", "1", "3"]
    assert sorted(off.infra.cache_dict) == ["1", "2"]
    assert place.listing() == before


def test_off_maps_raise_errors_as_they_are(place: Place) -> None:
    off = place.maps("off")
    results = off.double([1, -1, 2])
    assert next(results) == [2]
    with pytest.raises(ZeroDivisionError, match="no double of -1") as caught:
        next(results)
    assert type(caught.value) is ZeroDivisionError
    assert caught.traceback[-1].name == "_each"
    assert place.computed == ["3:", "1", "-1"]  # no item is tried alone


@pytest.mark.parametrize("how", ["too few", "too many"])
def test_off_maps_check_one_result_per_item(place: Place, how: str) -> None:
    with pytest.raises(RuntimeError, match=r"test_modes.Maps.double,0 gave .* result\(s\) for 2 item"):
        list(place.maps("off", {"how": how}).double([1, 2, 1]))


def test_off_maps_check_what_they_are_given(place: Place) -> None:
    off = place.maps("off", {"how": "list"})
    assert list(off.double((1, 2))) == [2, 4]
    for wrong in ("12", 5):
        with pytest.raises(TypeError, match="takes a list of items"):
            off.double(wrong)
    strict = place.maps("off", forbid_single_item_computation=True)
    with pytest.raises(RuntimeError, match="would compute one item alone, '1'"):
        strict.double([1, 1])
    assert len(list(strict.double([1, 2]))) == 2


# the environment


def test_the_environment_wins_over_the_fields(place: Place, mode_of_environment: tp.Any) -> None:
    mode_of_environment("read-only")
    for call in (place.data("force").build, place.data().infra.job, lambda: place.maps("off").double([1])):
        with pytest.raises(errors.NotCachedError, match="read-only"):
            call()
    assert not place.cache.exists()
    mode_of_environment("cached")
    for _ in range(2):
        assert place.data("force").build() == [0, 1, 2]
        assert list(place.maps("force").double([1])) == [[2]]
    assert place.computed == ["data", "1:", "1"]
    mode_of_environment("off")
    assert place.data().build() == [0, 1, 2]
    assert list(place.maps().double([1])) == [[2]]
    assert place.computed == ["data", "1:", "1"]
    mode_of_environment("")
    assert place.data().build() == [0, 1, 2]
    assert place.computed == []


def test_force_of_the_environment_is_once_for_each_instance(place: Place, mode_of_environment: tp.Any) -> None:
    data, maps = place.data(), place.maps(keep_in_ram=False)
    data.build()
    list(maps.double([1]))
    mode_of_environment("force")
    assert place.computed
    for _ in range(2):  # what an instance computed before is out of date, too
        data.build()
        list(maps.double([1, 2]))
    assert place.computed == ["data", "2:", "1", "2"]
    with place.data().infra.job_array() as array:
        array.append(place.data())
    assert [task.build() for task in array] == [[0, 1, 2]]
    assert place.computed == ["data"]


def test_retry_of_the_environment(place: Place, mode_of_environment: tp.Any) -> None:
    with pytest.raises(KeyError):
        place.data(fields={"fails": True}).build()
    with pytest.raises(KeyError):
        place.data().build()
    mode_of_environment("retry")
    assert place.data().build() == [0, 1, 2]
    assert place.computed == ["data", "data"]
    assert place.data().infra.job().result() == [0, 1, 2]
    assert place.computed == []


@pytest.mark.parametrize("wrong", ["always", "Force", "force-forward"])
def test_a_wrong_mode_of_the_environment_is_told(place: Place, mode_of_environment: tp.Any, wrong: str) -> None:
    mode_of_environment(wrong)
    expected = f"EXCA_LIKE_MODE='{wrong}' is no mode: use one of cached, retry, force, read-only, off, or unset"
    for call in (place.data().build, place.data().infra.job, lambda: place.maps().double([1])):
        with pytest.raises(errors.SettingsError, match=expected):
            call()
    assert place.computed == []


def test_jobs_inherit_the_mode_and_force_once(place: Place, mode_of_environment: tp.Any) -> None:
    place.train(data=place.data()).run()
    assert place.computed == ["train", "data"]
    mode_of_environment("force")
    train = place.train(data=place.data(), cluster="local")
    assert train.run() == train.run() == pytest.approx(0.3)
    assert place.computed == ["train", "data"]  # though it calls build() twice
    evaluate = place.evaluate(place.train(data=place.data()), cluster="local", max_jobs=1)
    assert list(evaluate.scores([1, 2])) == pytest.approx([0.3, 0.6])
    assert place.computed == ["1", "train", "data", "2"]
    assert list(evaluate.scores([1, 2])) == pytest.approx([0.3, 0.6])
    assert place.computed == []


def test_the_environment_is_asked_once_for_each_call(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from exca_like import engine

    data, ram, maps = place.data(), place.data(keep_in_ram=True), place.maps()
    train = place.train(data=place.data(), cluster="local")
    train.run()
    for call in (data.build, ram.build, lambda: list(maps.double([1, 2]))):
        call()
    monkeypatch.setattr("exca_like.infra.modes._VARIABLES", None)  # as where nothing tells that there is no such variable
    asked: list[int] = []
    ask = engine.mode_of_environment
    monkeypatch.setattr(engine, "mode_of_environment", lambda: asked.append(1) or ask())
    data.build()
    assert len(asked) == 1
    train.run()
    place.train(data=place.data(), cluster="local").run()
    assert len(asked) == 3
    list(place.maps().double([1, 2]))
    assert len(asked) == 4
    ram.build()
    list(maps.double([1, 2]))
    list(maps.double([2]))
    assert len(asked) == 4


# force-forward


@pytest.mark.parametrize("mode", ["cached", "retry"])
def test_what_contains_a_forced_config_is_forced_once(place: Place, mode: str) -> None:
    place.train(data=place.data()).run()
    assert place.computed == ["train", "data"]
    train = place.train(mode, data=place.data("force-forward"))
    assert train.run() == train.run() == pytest.approx(0.3)
    assert place.computed == ["train", "data"]
    assert train.infra.job().result() == pytest.approx(0.3)
    assert train.infra.uid() == place.train(data=place.data()).infra.uid()
    place.train(mode, data=place.data()).run()
    assert place.computed == []
    copied = pickle.loads(pickle.dumps(train))  # another instance
    copied.run()
    assert place.computed == ["train", "data"]


def test_force_is_not_passed_on(place: Place) -> None:
    place.train(data=place.data()).run()
    assert place.computed
    place.train(data=place.data("force")).run()
    assert place.computed == []


def test_read_only_is_not_forced(place: Place) -> None:
    place.train(data=place.data()).run()
    before, _ = place.listing(), place.computed
    place.train("read-only", data=place.data("force-forward")).run()
    assert place.computed == []
    assert place.listing() == before


def test_force_forward_forces_itself_as_force_does(place: Place) -> None:
    place.data().build()
    assert place.computed
    forced = place.data("force-forward")
    forced.build()
    forced.build()
    assert place.computed == ["data"]
    maps = place.maps("force-forward")
    list(place.maps().double([1, 2]))
    assert place.computed
    list(maps.double([1]))
    list(maps.double([1, 2]))
    assert place.computed == ["1:", "1", "1:", "2"]


def test_force_forward_goes_through_lists_and_dictionaries_and_levels(place: Place) -> None:
    def evaluate(mode: str) -> Evaluate:
        return place.evaluate(place.train(fields={"more": {"all": [1, {"deep": (place.data(mode),)}]}}))

    list(evaluate("cached").scores([1, 2]))
    assert place.computed == ["1", "train", "2"]
    list(evaluate("cached").scores([1, 2]))
    assert place.computed == []
    forced = evaluate("force-forward")
    for _ in range(2):
        assert list(forced.scores([1, 2])) == pytest.approx([0.1, 0.2])
    assert place.computed == ["1", "train", "2"]
    again = evaluate("force-forward")  # a result that the user looked at is no reason to take it
    assert again.infra.cache_dict["2"] == pytest.approx(0.2)
    list(again.scores([2]))
    list(again.scores(iter([1, 2])))
    assert place.computed == ["2", "train", "1"]


def test_force_forward_of_a_map(place: Place) -> None:
    class Mean(pydantic.BaseModel):
        maps: Maps
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def mean(self) -> float:
            self.maps.note("mean")
            return sum(value for (value,) in self.maps.double([1, 3])) / 2

    def mean(mode: str) -> Mean:
        return Mean(maps=place.maps(mode), infra={"folder": place.cache})

    mean("cached").mean()
    assert place.computed == ["mean", "2:", "1", "3"]
    forced = mean("force-forward")
    assert forced.mean() == forced.mean() == 4
    assert place.computed == ["mean", "2:", "1", "3"]
    mean("force").mean()
    assert place.computed == []


def test_force_forward_of_private_and_shared_infras(place: Place) -> None:
    class Hidden(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        _infra: exca_like.TaskInfra = exca_like.TaskInfra(mode="force-forward")

        @_infra.apply
        def build(self) -> int:
            return 1

    class Top(Counted):
        hidden: list[Hidden]
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            self.note("top")
            return 1

    hidden = Hidden()
    for _ in range(2):
        top = Top(notes=place.notes, hidden=[hidden, hidden], infra={"folder": place.cache})
        top.run()
        top.run()
    assert place.computed == ["top", "top"]


def test_force_forward_reaches_jobs(place: Place) -> None:
    place.train(data=place.data()).run()
    list(place.evaluate(place.train(data=place.data())).scores([1]))
    assert place.computed
    train = place.train(data=place.data("force-forward"), cluster="local")
    assert train.run() == train.run() == pytest.approx(0.3)
    assert place.computed == ["train", "data"]
    evaluate = place.evaluate(place.train(data=place.data("force-forward")), cluster="local", max_jobs=1)
    for _ in range(2):
        assert list(evaluate.scores([1])) == pytest.approx([0.3])
    assert place.computed == ["1", "train", "data"]
    base = place.train(data=place.data("force-forward"), cluster="local")
    with base.infra.job_array() as array:
        array.append(base)
    assert base.run() == pytest.approx(0.3)
    assert place.computed == ["train", "data"]


def test_errors_of_what_was_forced_stay(place: Place) -> None:
    failing = place.data("force-forward", {"fails": True})
    for _ in range(2):
        with pytest.raises(KeyError):
            place.train(data=failing).run()
    assert place.computed == ["train", "data", "train"]


def test_the_environment_wins_over_force_forward(place: Place, mode_of_environment: tp.Any) -> None:
    place.train(data=place.data()).run()
    assert place.computed
    mode_of_environment("cached")
    train = place.train(data=place.data("force-forward"))
    train.run()
    assert place.computed == []
    mode_of_environment("")
    train.run()
    assert place.computed == ["train", "data"]


def test_sub_configs_are_walked_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from exca_like.infra import modes

    walked: list[object] = []
    monkeypatch.setattr(modes, "models_within", lambda model, without: walked.append(model) or models_within(model, without))
    train = place.train(data=place.data())
    for _ in range(3):
        train.run()
    assert walked == [train, train.data]


def test_models_within_are_all_found_once() -> None:
    class Leaf(pydantic.BaseModel):
        x: int = 0

    class Other(Leaf):
        pass

    class Tree(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        leaf: Leaf | None = None
        leaves: tp.Any = None
        other: Other | None = None
        below: "Tree | None" = None

    leaf, deep, extra, other = Leaf(x=1), Leaf(x=2), Leaf(x=3), Other()
    below = Tree(leaves={"a": [1, (deep, leaf)], "b": "text"}, other=other)
    tree = Tree(leaf=leaf, below=below, more=extra)
    found = list(models_within(tree, without=Other))
    assert sorted(map(id, found)) == sorted(map(id, (leaf, below, deep, extra)))
    assert list(models_within(leaf, without=Other)) == []


def test_memo_has_no_configs_to_forward_to() -> None:
    with pytest.raises(pydantic.ValidationError, match="mode"):
        exca_like.memo(mode="force-forward")


def test_the_variables_that_are_looked_into_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from exca_like import engine

    assert engine._VARIABLES is not None  # else each call is slower
    for value, mode in (("off", "off"), ("", None), ("retry", "retry")):
        monkeypatch.setenv(engine.MODE_VARIABLE, value)
        assert engine.mode_of_environment() == mode
    monkeypatch.delenv(engine.MODE_VARIABLE)
    assert engine.mode_of_environment() is None
