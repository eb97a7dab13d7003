"""How infras are declared, linked, named and kept: what holds whatever the cluster."""

import copy
import datetime
import functools
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import typing as tp
import warnings
from pathlib import Path

import cloudpickle
import pydantic
import pytest

import exca_like
from exca_like import errors
from exca_like.executors import slurm


class Optim(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    lr: float = 0.1
    name: str = "sgd"


class Train(pydantic.BaseModel):
    seed: int = 0
    optim: Optim = Optim(lr=0.5)
    device: str = "cpu"
    label: str = ""
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("device",)
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1", gpus_per_node=8)

    @infra.apply(exclude_from_cache_uid=["label"])
    def run(self) -> float:
        """Train."""
        return self.seed + self.optim.lr


UID = "test_infra.Train.run,1"


def make(folder: Path | None = None, **kwargs: tp.Any) -> Train:
    return Train(infra={"folder": folder}, **kwargs)


def test_changed_defaults_are_noticed_also_where_kinds_differ(tmp_path: Path) -> None:
    def with_defaults(sub: tp.Any, options: dict[str, int]) -> tp.Any:
        class Changing(pydantic.BaseModel):
            sub: Optim | None = None
            options: dict[str, int] = {}
            infra: exca_like.TaskInfra = exca_like.TaskInfra()

            @infra.apply
            def run(self) -> int:
                return 1

        Changing.model_fields["sub"].default = sub
        Changing.model_fields["options"].default = options
        Changing.model_rebuild(force=True)
        return Changing(infra={"folder": tmp_path})

    with_defaults(Optim(), {"a": 1}).run()
    assert with_defaults(Optim(), {"a": 1}).run() == 1
    for sub, options in ((None, {"a": 1}), (Optim(), {}), (Optim(), {"b": 5}), (Optim(lr=7), {"a": 1})):
        with pytest.raises(RuntimeError, match="another config"):
            with_defaults(sub, options).run()


@pytest.mark.parametrize("fingerprint", [None, 1, ["a", 114]])
def test_changed_defaults_are_noticed_whatever_fields_are_called(tmp_path: Path, fingerprint: tp.Any) -> None:
    def with_default(default: int | None) -> tp.Any:
        class Named(pydantic.BaseModel):
            fingerprint: tp.Any = None
            number: int | None = default
            infra: exca_like.TaskInfra = exca_like.TaskInfra()

            @infra.apply
            def run(self) -> dict[str, tp.Any]:
                return {"fingerprint": fingerprint, "-meta": '","#meta":{"fingerprint":null}'}

        return Named(fingerprint=fingerprint, infra={"folder": tmp_path})

    for _ in range(2):
        assert with_default(None).run()["fingerprint"] == fingerprint
    with pytest.raises(RuntimeError, match="another config"):
        with_default(3).run()
    assert with_default(None).run()["-meta"] == '","#meta":{"fingerprint":null}'


def _part(default: int) -> tp.Any:
    class Part(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        size: int = 1
        depth: int = default

    return Part


@pytest.mark.parametrize(
    ("annotation", "default", "value"),
    [
        (lambda part: part, lambda part: part(), {"size": 2}),
        (lambda part: part, lambda part: part(), {}),
        (lambda part: list[part], lambda part: [], [{"size": 2}, {}]),
        (lambda part: dict[str, part], lambda part: {}, {"a": {"size": 2}}),
    ],
)
def test_changed_defaults_of_parts_are_noticed(tmp_path: Path, annotation: tp.Any, default: tp.Any, value: tp.Any) -> None:
    def with_depth(depth: int) -> tp.Any:
        part = _part(depth)

        class Whole(pydantic.BaseModel):
            held: annotation(part) = default(part)  # type: ignore[valid-type]
            names: list[str] = pydantic.Field(default_factory=list)
            infra: exca_like.TaskInfra = exca_like.TaskInfra()

            @infra.apply
            def run(self) -> int:
                return 1

        return Whole(held=value, infra={"folder": tmp_path})

    assert [with_depth(3).run() for _ in range(2)] == [1, 1]
    with pytest.raises(RuntimeError, match="another config"):
        with_depth(4).run()


def test_a_result_that_was_copied_to_the_folder_of_another_config_is_not_taken(tmp_path: Path) -> None:
    make(tmp_path, seed=1).run()
    other = make(tmp_path, seed=2)
    other.run()
    shutil.rmtree(other.infra.uid_folder())
    shutil.copytree(make(tmp_path, seed=1).infra.uid_folder(), other.infra.uid_folder())
    with pytest.raises(RuntimeError, match="another config"):
        make(tmp_path, seed=2).run()


def test_defaults_that_differ_from_instance_to_instance_are_compared_as_they_are(tmp_path: Path) -> None:
    numbers = iter((1, 1, 1, 1, 2, 2, 2, 2))

    class Drawn(pydantic.BaseModel):
        number: int = pydantic.Field(default_factory=lambda: next(numbers))
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 1

    assert Drawn(infra={"folder": tmp_path}).run() == 1
    with pytest.raises(RuntimeError, match="another config"):
        for _ in range(4):
            Drawn(infra={"folder": tmp_path}).run()


# names


@pytest.mark.parametrize(
    ("fields", "uid"),
    [
        ({}, "default"),
        ({"seed": 3}, "seed=3-eccbc87e"),
        ({"device": "gpu", "label": "x"}, "default"),
        ({"optim": {"lr": 0.5}}, "default"),
        ({"optim": {}}, "optim={}-d41d8cd9"),
        ({"optim": {"lr": 0.5, "name": "adam"}}, None),
        ({"infra": {"version": "2"}}, "infra.version=2-f98a64f502d15f41"),  # a string, unlike the 2 it looks like
    ],
)
def test_uid_names_class_method_version_and_config(fields, uid) -> None:
    task = Train(**fields)
    version = fields.get("infra", {}).get("version", "1")
    assert task.infra.uid().startswith(f"test_infra.Train.run,{version}/{uid or 'optim={'}")
    if uid is not None:
        assert task.infra.uid() == f"test_infra.Train.run,{version}/{uid}"


def test_config_views() -> None:
    task = Train(seed=3, device="gpu", label="x")
    assert task.infra.config(uid=True, exclude_defaults=True) == {"seed": 3, "label": "x"}
    assert task.infra.config()["infra"] == {"version": "1"}
    assert "device" not in task.infra.config()
    whole = task.infra.config(uid=False)
    assert whole["device"] == "gpu"
    assert whole["infra.gpus_per_node"] == 8


def test_class_defaults_are_defaults_of_all_instances(tmp_path: Path) -> None:
    for infra in ({"folder": tmp_path}, exca_like.TaskInfra(folder=tmp_path)):
        task = Train(infra=infra)
        assert (task.infra.version, task.infra.gpus_per_node, task.infra.folder) == ("1", 8, tmp_path)
        assert task.model_dump()["infra"]["version"] == "1"
    assert Train(infra={"version": "2"}).infra.gpus_per_node == 8


def test_an_infra_given_to_two_models_is_copied() -> None:
    infra = exca_like.TaskInfra(keep_in_ram=True)
    first, second = Train(seed=1, infra=infra), Train(seed=2, infra=infra)
    assert (first.run(), second.run(), first.run()) == (1.5, 2.5, 1.5)
    assert first.infra.uid() != second.infra.uid()
    third = Train(seed=3, infra=first.infra)
    assert (third.run(), first.run()) == (3.5, 1.5)


def test_copies_have_infras_of_their_own() -> None:
    task = Train(seed=1)
    assert task.infra.uid() == f"{UID}/seed=1-c4ca4238"
    copies = {
        "model_copy": task.model_copy(update={"seed": 2}),
        "deep": task.model_copy(update={"seed": 2}, deep=True),
        "copy": copy.copy(task),
        "construct": Train.model_construct(seed=2, optim=Optim(lr=0.5), device="cpu", label="", infra=task.infra),
        "pickle": pickle.loads(pickle.dumps(task)),
        "cloudpickle": pickle.loads(cloudpickle.dumps(task)),
    }
    for name, other in copies.items():
        other.seed = 2  # copies are free
        assert other.infra.uid() == f"{UID}/seed=2-c81e728d", name
        assert other.infra.gpus_per_node == 8
    assert task.infra.uid() == f"{UID}/seed=1-c4ca4238"
    assert task.run() == 1.5


def test_pickles_leave_the_ram_behind() -> None:
    class Big:
        def __reduce__(self):
            raise AssertionError("was pickled")

    task = Ram(infra={"keep_in_ram": True})
    Ram.value = Big()
    assert task.run() is task.run() is Ram.value
    again = pickle.loads(pickle.dumps(task))
    Ram.value = "new"
    assert (again.run(), type(task.run())) == ("new", Big)


class Ram(pydantic.BaseModel):
    value: tp.ClassVar[tp.Any] = None
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        return self.value


def test_the_method_stays_a_method() -> None:
    assert Train.run.__name__ == "run"
    assert Train.run.__doc__ == "Train."
    assert Train.run.__qualname__ == "Train.run"
    with pytest.raises(TypeError):
        Train().run(3)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Train.infra


def test_clone_obj_merges_dotted_and_nested_changes(tmp_path: Path) -> None:
    task = make(tmp_path, seed=1, device="gpu")
    task.infra.uid()
    clone = task.infra.clone_obj({"optim.name": "adam", "optim": {"lr": 2}}, seed=5, **{"infra.mode": "force"})
    assert (clone.seed, clone.device, clone.optim) == (5, "gpu", Optim(lr=2, name="adam"))
    assert (clone.infra.folder, clone.infra.mode, clone.infra.version) == (tmp_path, "force", "1")
    assert task.infra.clone_obj({"optim.name": "adam"}).optim.lr == 0.5  # the field's default, not the class's
    clone.seed = 6
    clone.optim.lr = 3
    with pytest.raises(pydantic.ValidationError, match="sed\n.*Extra inputs"):
        task.infra.clone_obj(sed=3)
    with pytest.raises(pydantic.ValidationError, match="seed\n"):
        task.infra.clone_obj(seed="x")


def test_clone_obj_keeps_what_was_edited_in_place(tmp_path: Path) -> None:
    task = Train()
    task.optim.lr = 0.7
    task.infra.folder = tmp_path
    clone = task.infra.clone_obj(seed=3)
    assert (clone.seed, clone.optim, clone.infra.folder) == (3, Optim(lr=0.7), tmp_path)


def test_frozen_after_uid_all_through() -> None:
    task = make(seed=1)
    task.seed = 2
    task.infra.cluster = None
    task.infra.uid()
    for change in (
        lambda: setattr(task, "seed", 3),
        lambda: setattr(task.optim, "lr", 3),
        lambda: setattr(task.infra, "version", "3"),
        lambda: setattr(task, "infra", exca_like.TaskInfra()),
    ):
        with pytest.raises(RuntimeError, match="infra.clone_obj"):
            change()
    other = make(seed=1)
    other.seed = 3
    assert other.run() == 3.5


def test_repr_and_equality_show_what_differs_from_defaults() -> None:
    infra = exca_like.TaskInfra(folder=Path("here"), mem_gb=2)
    assert repr(infra) == "TaskInfra(folder='here', mem_gb=2.0)"
    assert infra == exca_like.TaskInfra(folder=Path("here"), mem_gb=2, mode="cached")
    assert infra != exca_like.TaskInfra(folder="there", mem_gb=2)
    assert Train(seed=1) == Train(seed=1) != Train(seed=2)
    task = Train(seed=1)
    task.run()
    assert task == Train(seed=1)


def test_post_init_may_edit_the_infra(tmp_path: Path) -> None:
    class Edits(pydantic.BaseModel):
        name: str = "x"
        infra: exca_like.TaskInfra = exca_like.TaskInfra(cluster="local")

        def model_post_init(self, context: tp.Any) -> None:
            self.infra.folder = tmp_path / self.name
            self.infra.cluster = None

        @infra.apply
        def run(self) -> str:
            return self.name

    task = Edits(name="y")
    assert task.run() == "y"
    assert task.infra.uid_folder() == tmp_path / "y" / task.infra.uid()
    assert Edits().infra.folder == tmp_path / "x"


class Private(pydantic.BaseModel):
    seed: int = 0
    folder: str | None = None
    _exclude_from_cls_uid: tp.ClassVar[list[str]] = ["folder"]
    _infra: exca_like.TaskInfra = exca_like.TaskInfra(version="7", keep_in_ram=True)

    def model_post_init(self, context: tp.Any) -> None:
        super().model_post_init(context)
        self._infra.folder = self.folder

    @_infra.apply
    def run(self) -> list[int]:
        return [self.seed]


def test_private_infras_work(tmp_path: Path) -> None:
    task = Private(seed=1, folder=str(tmp_path))
    assert task._infra.uid() == "test_infra.Private.run,7/seed=1-c4ca4238"
    assert task.run() is task.run()
    assert task.run() == [1]
    assert task._infra.status() == "completed"
    assert pickle.loads(pickle.dumps(task)).run() == [1]
    assert [other.seed for other in task._infra.iter_cached()] == [1]
    assert "_infra" in task._infra.obj_infras()


def test_two_infras_on_a_model(tmp_path: Path) -> None:
    class Two(pydantic.BaseModel):
        seed: int = 0
        first: exca_like.TaskInfra = exca_like.TaskInfra(version="1")
        second: exca_like.TaskInfra = exca_like.TaskInfra(version="2")

        @first.apply
        def one(self) -> int:
            return self.seed + 1

        @second.apply(exclude_from_cache_uid=["seed"])
        def two(self) -> int:
            return self.one() + 1

    task = Two(seed=3, first={"folder": tmp_path}, second={"folder": tmp_path})
    assert (task.two(), task.one()) == (5, 4)
    assert list(task.first.obj_infras()) == ["first", "second"]
    assert task.first.uid().endswith("Two.one,1/seed=3-eccbc87e")
    assert task.second.uid().endswith("Two.two,2/default")
    assert Two(seed=9, second={"folder": tmp_path}).two() == 5


# exclusions


def _by_function(model: tp.Any) -> list[str]:
    return ["a"]


class Excluding(pydantic.BaseModel):
    a: int = 0
    b: int = 0
    sub: Optim | None = None
    infra: exca_like.TaskInfra = exca_like.TaskInfra()
    infra2: exca_like.TaskInfra = exca_like.TaskInfra()
    infra3: exca_like.TaskInfra = exca_like.TaskInfra()

    def _names(self) -> list[str]:
        return ["a"]

    @infra.apply(exclude_from_cache_uid=_names)
    def by_function(self) -> int:
        return 1

    @infra2.apply(exclude_from_cache_uid="method:_names")
    def by_name(self) -> int:
        return 1

    @infra3.apply(exclude_from_cache_uid=("sub.lr", "a"))
    def dotted(self) -> int:
        return 1


class ExcludingMore(Excluding):
    def _names(self) -> list[str]:
        return ["a", "b"]


def test_exclusions_by_function_stay_and_by_method_name_follow_overrides() -> None:
    task = ExcludingMore(a=1, b=2)
    assert task.infra.uid().endswith("/b=2-c81e728d")
    assert task.infra2.uid().endswith("/default")
    assert task.infra3.uid().endswith("/b=2-c81e728d")
    assert Excluding(sub={"lr": 3}).infra3.uid().endswith("/sub={}-d41d8cd9")
    assert Excluding(sub={"lr": 3, "name": "x"}).infra3.uid().endswith("/sub.name=x-9dd4e461")


@pytest.mark.parametrize("wrong", ["a", "method:", "method:a b", 3])
def test_wrong_exclusions_are_refused_at_class_definition(wrong) -> None:
    with pytest.raises(TypeError, match="exclude_from_cache_uid"):

        class Wrong(pydantic.BaseModel):
            a: int = 0
            infra: exca_like.TaskInfra = exca_like.TaskInfra()

            @infra.apply(exclude_from_cache_uid=wrong)
            def run(self) -> int:
                return 1


@pytest.mark.parametrize(
    ("exclude", "kind", "text"),
    [(["c"], ValueError, "'c', which is no field"), ("method:nope", RuntimeError, "no such method")],
)
def test_exclusions_that_name_nothing(exclude, kind, text) -> None:
    class Wrong(pydantic.BaseModel):
        a: int = 0
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply(exclude_from_cache_uid=exclude)
        def run(self) -> int:
            return 1

    with pytest.raises(kind, match=text):
        Wrong().run()


# subclasses


class Base(pydantic.BaseModel):
    folder: tp.ClassVar[str]
    x: int = 1
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="b")

    @infra.apply
    def run(self) -> int:
        return self.x


class Inherits(Base):
    y: int = 0


class Overrides(Base):
    def run(self) -> int:
        return super().run() * 10


class Reapplies(Base):
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="r")

    @infra.apply
    def run(self) -> int:
        return super().run() * 100


class NotReapplied(Base):
    infra: exca_like.TaskInfra = exca_like.TaskInfra(version="n")


def test_subclasses_cache_under_the_right_name(tmp_path: Path) -> None:
    infra = {"folder": tmp_path}
    assert Inherits(infra=infra).run() == 1
    assert Overrides(infra=infra).run() == 10
    assert Reapplies(infra=infra).run() == 100
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["provenance", "test_infra.Base.run,b", "test_infra.Inherits.run,b", "test_infra.Reapplies.run,r"]


@pytest.mark.parametrize("act", [lambda m: m(), lambda m: m().run()])
def test_infras_that_were_not_applied_say_so(act) -> None:
    class Never(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        def run(self) -> int:
            return 1

    with pytest.raises(RuntimeError, match=r"'infra' of .*Never was not applied.*@infra.apply"):
        act(Never)
    with pytest.raises(RuntimeError, match=r"not applied.*a subclass that declares the infra again"):
        act(NotReapplied)


def test_infras_belong_on_pydantic_models() -> None:
    class Plain:
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 1

    with pytest.raises(RuntimeError, match="Plain is no pydantic model"):
        Plain().run()
    with pytest.raises(RuntimeError, match="belongs to no config"):
        exca_like.TaskInfra().uid()

    class NoField(pydantic.BaseModel):
        run = exca_like.TaskInfra().apply(lambda self: 1)  # type: ignore[misc]

    with pytest.raises(RuntimeError, match="no such field"):
        NoField().run()


def test_an_infra_is_applied_once() -> None:
    with pytest.raises(RuntimeError, match="already applied"):

        class Twice(pydantic.BaseModel):
            infra: exca_like.TaskInfra = exca_like.TaskInfra()

            @infra.apply
            def one(self) -> int:
                return 1

            @infra.apply
            def two(self) -> int:
                return 2


def _takes_more(self, x):
    return x


def _takes_any(*args):
    return args


def _takes_keywords(self, **kwargs):
    return kwargs


@pytest.mark.parametrize("method", [_takes_more, _takes_any, _takes_keywords])
def test_wrong_signatures_are_refused_at_class_definition(method) -> None:
    with pytest.raises(ValueError, match=f"{method.__name__} takes"):
        exca_like.TaskInfra().apply(method)


async def _asynchronous(self):
    return 1


@pytest.mark.parametrize("method", [_asynchronous, property(_takes_more), staticmethod(_takes_more), 3])
def test_only_plain_methods_can_have_a_task(method) -> None:
    with pytest.raises(TypeError, match="plain methods"):
        exca_like.TaskInfra().apply(method)


# settings


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"sed": 1}, "sed\n.*Extra inputs"),
        ({"infra": {"foo": 1}}, "infra.foo\n.*Extra inputs"),
        ({"infra": {"permission": 0o777}}, "infra.permission\n.*Extra inputs"),
        ({"infra": {"cluster": "slrm"}}, "infra.cluster\n.*'slurm'"),
        ({"infra": {"mode": "always"}}, "infra.mode\n.*'force'"),
        ({"infra": {"version": "../x"}}, "infra.version\n.*folder name"),
        ({"infra": {"version": "a/b"}}, "infra.version\n.*folder name"),
        ({"infra": {"mem_gb": -1}}, "infra.mem_gb\n"),
        ({"infra": {"cluster": "slurm"}}, "cluster='slurm' needs a folder"),
        ({"infra": {"cluster": "debug"}}, "cluster='debug' needs a folder"),
    ],
)
def test_wrong_settings_are_refused_when_the_model_is_built(fields, text) -> None:
    with pytest.raises(pydantic.ValidationError, match=text):
        Train(**fields)


def test_owners_forbid_unknown_fields_unless_they_say_otherwise() -> None:
    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 1

    assert Open(more=3).infra.uid().endswith("/more=3-eccbc87e")


# the cache folder


def test_folder_holds_config_and_identity(tmp_path: Path) -> None:
    task = make(tmp_path, seed=2, device="gpu", label="x")
    assert task.infra.uid_folder() == tmp_path / UID / "seed=2-c81e728d"
    assert not task.infra.uid_folder().exists()
    folder = task.infra.uid_folder(create=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "full-uid.yaml", "uid.yaml"]
    assert (folder / "uid.yaml").read_text() == "seed: 2\n"
    assert (folder / "full-uid.yaml").read_text() == "seed: 2\noptim:\n  lr: 0.5\n  name: sgd\ninfra.version: '1'\n"
    config = exca_like.ConfDict.from_yaml(folder / "config.yaml")
    assert (config["device"], config["label"], config["infra.gpus_per_node"]) == ("gpu", "x", 8)
    assert Train(**config).infra.uid() == task.infra.uid()
    assert make().infra.uid_folder() is None


def test_a_config_that_was_mended_after_its_uid_failed(tmp_path: Path) -> None:
    class Options(pydantic.BaseModel):
        values: dict[str, tp.Any] = {}
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return len(self.values)

    options = Options(values={exca_like.ConfDict.ops.REPLACE: True}, infra={"folder": tmp_path})
    with pytest.raises(ValueError, match="replace"):
        options.infra.uid()
    options.values = {"a": 1}
    assert options.run() == 1
    folder = options.infra.uid_folder()
    assert folder.name.startswith("values.a=1-")
    assert (folder / "uid.yaml").read_text() == "values.a: 1\n"


def test_asking_changes_nothing_on_disk(tmp_path: Path) -> None:
    task = make(tmp_path / "cache", seed=2)
    task.infra.uid()
    task.infra.config()
    assert task.infra.status() == "not submitted"
    assert list(task.infra.iter_cached()) == []
    assert list(tmp_path.iterdir()) == []


def test_changed_defaults_are_noticed_at_each_call_until_mended(tmp_path: Path) -> None:
    task = make(tmp_path)
    task.run()
    full = task.infra.uid_folder() / "full-uid.yaml"
    text = full.read_text()
    full.write_text(text.replace("lr: 0.5", "lr: 0.25"))
    again = make(tmp_path)
    for call in (again.run, again.run, again.infra.status, again.infra.job, make(tmp_path).run):
        with pytest.raises(RuntimeError, match=r"(?s)optim.lr: stored 0.25, now 0.5.*version.*Stored:.*Now:"):
            call()
    full.write_text(text)
    assert again.run() == 0.5


@pytest.mark.parametrize("stored", ["seed: 0\n", "new_to_the_stored_one: 3\nseed: 0\noptim.lr: 0.5\n", "seed: 0.0\n"])
def test_fields_that_only_one_side_has_are_no_difference(tmp_path: Path, stored: str) -> None:
    make(tmp_path).run()
    folder = make(tmp_path).infra.uid_folder()
    (folder / "full-uid.yaml").write_text(stored)
    assert make(tmp_path).run() == 0.5
    assert (folder / "full-uid.yaml").read_text() == stored


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"a: [", b"\xff\xfe\x00", b"3"])
def test_unreadable_yaml_is_rewritten(tmp_path: Path, content: bytes) -> None:
    make(tmp_path).run()
    full = make(tmp_path).infra.uid_folder() / "full-uid.yaml"
    good = full.read_bytes()
    full.write_bytes(content)
    assert make(tmp_path).run() == 0.5
    assert full.read_bytes() == good


def test_a_folder_that_was_made_by_hand_is_completed(tmp_path: Path) -> None:
    task = make(tmp_path)
    task.infra.uid_folder().mkdir(parents=True)
    assert task.run() == 0.5
    assert (task.infra.uid_folder() / "full-uid.yaml").exists()
    assert make(tmp_path).infra.status() == "completed"


def test_unwritable_folders_say_so_and_leave_nothing_behind(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    before = sorted(tmp_path.rglob("*"))
    for call in (make(blocked / "cache").run, make(blocked / "cache").infra.job):
        with pytest.raises(OSError, match=r"can't (create|read).*file/cache"):
            call()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folders_say_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="can't create the cache folder"):
        make(tmp_path).run()


def test_a_full_disk_leaves_earlier_results_and_says_so(tmp_path: Path, monkeypatch) -> None:
    import resource

    class Large(pydantic.BaseModel):
        size: int = 10
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> bytes:
            return bytes(self.size)

    infra = {"folder": tmp_path}
    Large(infra=infra).run()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        import signal

        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with pytest.raises(OSError, match="can't write to .*space left"):
            Large(size=1_000_000, infra=infra).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert not list(tmp_path.rglob(".tmp*"))
    assert Large(infra=infra).infra.status() == "completed"
    assert len(Large(size=1_000_000, infra=infra).run()) == 1_000_000


def test_iter_cached_gives_siblings_with_these_settings(tmp_path: Path) -> None:
    tasks = [make(tmp_path, seed=k, label=str(k)) for k in range(3)]
    for task in tasks[:2]:
        task.run()
    reader = Train(infra={"folder": tmp_path, "mode": "read-only"})
    found = sorted(reader.infra.iter_cached(), key=lambda task: task.seed)
    assert [(task.seed, task.label, task.infra.mode) for task in found] == [(0, "0", "read-only"), (1, "1", "read-only")]
    assert [task.run() for task in found] == [0.5, 1.5]


def test_moved_folders_still_work(tmp_path: Path) -> None:
    make(tmp_path / "a", seed=1).run()
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert Train(seed=1, infra={"folder": tmp_path / "b", "mode": "read-only"}).run() == 1.5


def test_without_folder_nothing_is_kept_unless_in_ram() -> None:
    calls = []

    class Count(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            calls.append(1)
            return len(calls)

    assert [(task := Count()).run(), task.run(), task.infra.status()] == [1, 2, "not submitted"]
    ram = Count(infra={"keep_in_ram": True, "mode": "force"})
    assert [ram.run(), ram.run()] == [3, 3]
    ram.infra.clear_job()
    assert ram.run() == 4
    with pytest.raises(RuntimeError, match="read-only"):
        Count(infra={"mode": "read-only"}).run()
    job = Count().infra.job()
    assert (job.result(), job.result(), job.done(), job.exception()) == (5, 5, True, None)


def test_results_of_job_and_array_serve_calls_without_folder() -> None:
    calls = []

    class Count(pydantic.BaseModel):
        seed: int = 0
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            calls.append(1)
            return len(calls)

    task = Count()
    assert [task.infra.job().result(), task.run(), task.run()] == [1, 1, 1]
    kept = Count(infra={"keep_in_ram": True})
    assert [kept.run(), kept.infra.job().result(), kept.run()] == [2, 2, 2]
    with task.infra.job_array() as array:
        array.extend(Count(seed=k) for k in (1, 2))
    assert [other.run() for other in array] == [3, 4]


def test_interrupted_force_is_still_to_be_done(tmp_path: Path) -> None:
    values = iter([1, KeyboardInterrupt(), 3])

    class Interrupted(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self) -> int:
            value = next(values)
            if isinstance(value, BaseException):
                raise value
            return value

    assert Interrupted(infra={"folder": tmp_path}).run() == 1
    forced = Interrupted(infra={"folder": tmp_path, "mode": "force"})
    with pytest.raises(KeyboardInterrupt):
        forced.run()
    assert Interrupted(infra={"folder": tmp_path}).run() == 1
    assert [forced.run(), forced.run()] == [3, 3]


def test_a_decorator_above_apply_hides_nothing() -> None:
    def timed(method):
        @functools.wraps(method)
        def wrapper(self):
            return method(self)

        return wrapper

    class First(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @timed
        @infra.apply
        def run(self) -> int:
            return 1

    class Second(First):
        pass

    assert Second().run() == 1
    assert Second().infra.uid().endswith("Second.run,0/default")


def test_private_infras_keep_their_settings_in_clones(tmp_path: Path) -> None:
    class Bare(pydantic.BaseModel):
        seed: int = 0
        _infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @_infra.apply
        def run(self) -> int:
            return self.seed

    task = Bare()
    task._infra.folder = tmp_path
    assert task._infra.clone_obj(seed=2)._infra.folder == tmp_path
    task.run()
    assert next(iter(task._infra.iter_cached()))._infra.folder == tmp_path


def test_a_cluster_chosen_late_needs_a_folder_too() -> None:
    task = Train()
    task.infra.cluster = "local"
    for call in (task.run, task.infra.job):
        with pytest.raises(errors.InfraValueError, match="needs a folder"):
            call()


@pytest.mark.parametrize("content", ["null", "[]", "{}", "x", "3"])
def test_a_broken_job_record_is_no_job(tmp_path: Path, content: str) -> None:
    task = Train(infra={"folder": tmp_path, "cluster": "debug"})
    (task.infra.uid_folder(create=True) / "job.json").write_text(content)
    assert task.infra.status() == "not submitted"
    assert task.run() == 0.5


def test_users_without_a_name_have_logs(tmp_path: Path, monkeypatch) -> None:
    import getpass

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nameless)
    task = Train(infra={"folder": tmp_path, "cluster": "local"})
    assert task.run() == 0.5
    assert str(os.getuid()) in str(task.infra.job().paths.folder)


# clusters that are not there


def test_missing_sbatch_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    task = Train(infra={"folder": tmp_path / "cache", "cluster": "slurm"})
    for call in (task.run, task.infra.executor):
        with pytest.raises(RuntimeError, match=r"no 'sbatch'.*login node.*cluster='local'"):
            call()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        ("Slurmctld(primary) at a is UP", 0, True),
        ("", 1, False),
        ("Slurmctld(primary) at a is DOWN", 1, errors.SubmissionError),
        ("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP", 0, True),
    ],
)
def test_auto_asks_whether_there_is_a_cluster(tmp_path: Path, monkeypatch, output, code, expected) -> None:
    """Fake commands stand for clusters in states that the test cluster can't be in at once with the others."""
    for name in ("sbatch", "scontrol"):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\necho '{output}'\nexit {code}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slurm.slurm_is_there.cache_clear()
    try:
        if expected in (True, False):
            assert slurm.slurm_is_there() is expected
        else:
            with pytest.raises(expected, match="does not answer"):
                slurm.slurm_is_there()
    finally:
        slurm.slurm_is_there.cache_clear()


def test_local_jobs_take_what_is_there(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="nodes=2"):
        Train(infra={"folder": tmp_path, "cluster": "local", "nodes": 2}).run()
    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "many")
    with pytest.raises(ValueError, match="EXCA_LIKE_LOCAL_JOBS='many'"):
        Train(infra={"folder": tmp_path, "cluster": "local"}).run()
    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "1")
    with pytest.raises(RuntimeError, match="max_pickle_size_gb"):
        Train(label="x" * 10_000, infra={"folder": tmp_path, "cluster": "local", "max_pickle_size_gb": 1e-6}).run()


def test_arrays_refuse_repetitions_and_emptiness(tmp_path: Path) -> None:
    base = make(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)items 0 and 2.*seed: 1.*allow_repeated_tasks"):
        with base.infra.job_array() as array:
            array += [make(tmp_path, seed=1), make(tmp_path, seed=2), make(tmp_path, seed=1, device="gpu")]
    assert make(tmp_path, seed=2).infra.status() == "not submitted"
    with base.infra.job_array(allow_repeated_tasks=True) as array:
        array += [make(tmp_path, seed=1), make(tmp_path, seed=1)]
    assert [task.run() for task in array] == [1.5, 1.5]
    with pytest.raises(ValueError, match="items 0 and 1"):
        with base.infra.job_array() as array:
            array += [task := make(tmp_path, seed=3), task]
    with pytest.raises(ValueError, match="max_workers=0"):
        with base.infra.job_array(max_workers=0):
            pass
    for wrong in ("seed=3", 5, ["seed"]):
        with pytest.raises(TypeError, match="clone_obj takes dictionaries"):
            base.infra.clone_obj(wrong)
    with pytest.raises(RuntimeError, match="nothing was added"):
        with base.infra.job_array():
            pass
    with base.infra.job_array(allow_empty=True):
        pass
    with pytest.raises(ValueError, match="item 0 of the job array, a int"):
        with base.infra.job_array() as array:
            array.append(3)
    with pytest.raises(ZeroDivisionError):
        with base.infra.job_array() as array:
            array.append(make(tmp_path, seed=9))
            1 / 0
    assert make(tmp_path, seed=9).infra.status() == "not submitted"


def test_at_most_one_local_job_per_slot(tmp_path: Path, monkeypatch) -> None:
    from contracts.clusters import Clusters

    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # slots of its own
    base = Clusters("local", tmp_path).task(action="short sleep")
    for seeds in ((1, 2), (3,)):  # two queues share the slots
        with base.infra.job_array() as array:
            array.extend(base.infra.clone_obj(seed=k) for k in seeds)
    jobs = [base.infra.clone_obj(seed=k).infra.job() for k in (1, 2, 3)]
    seen = set()
    while not all(job.done() for job in jobs):
        seen.add(sum(job.state == "RUNNING" for job in jobs))
    assert max(seen) == 1


def test_nested_local_jobs_do_not_wait_for_their_own_slot(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EXCA_LIKE_LOCAL_JOBS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    outer = Outer(folder=str(tmp_path / "inner"), infra={"folder": tmp_path / "outer", "cluster": "local"})
    assert outer.run() == 1.5


class Outer(pydantic.BaseModel):
    folder: str
    infra: exca_like.TaskInfra = exca_like.TaskInfra()

    @infra.apply
    def run(self) -> float:
        return Train(seed=1, infra={"folder": self.folder, "cluster": "local"}).run()


def test_scripts_and_modules_have_names_of_their_own(tmp_path: Path) -> None:
    code = "import exca_like, pydantic\nfrom exca_like.names import main_name\nprint(main_name())\n"
    (tmp_path / "pkg").mkdir()
    for name in ("script.py", "pkg/__main__.py", "pkg/mod.py", "pkg/__init__.py"):
        (tmp_path / name).write_text(code if "init" not in name else "")
    for arguments, name in (
        (["script.py"], "script"),
        (["-m", "script"], "script"),
        (["-m", "pkg"], "pkg"),
        (["-m", "pkg.mod"], "pkg.mod"),
        (["-c", code], "__main__"),
        (["-"], "__main__"),
    ):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, input=code)
        assert done.stdout.strip() == name


def test_permissions_are_those_of_all_files_of_the_cache(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        Train(infra={"folder": tmp_path / "shared", "permissions": 0o660}).run()
        make(tmp_path / "own").run()
    finally:
        os.umask(old)
    for root, file_mode, folder_mode in (("shared", 0o660, 0o770), ("own", 0o600, 0o700)):
        folder = make(tmp_path / root).infra.uid_folder()
        assert folder.stat().st_mode & 0o777 == folder_mode
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert len(modes) == 4
        assert set(modes.values()) == {file_mode}


def test_pickled_results_of_others_are_not_loaded(tmp_path: Path) -> None:
    class Set(pydantic.BaseModel):
        infra: exca_like.TaskInfra = exca_like.TaskInfra(version="1")

        @infra.apply
        def run(self) -> type:
            return datetime.timezone  # a class, which only a pickle keeps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is pickled is said once in a process
        Set(infra={"folder": tmp_path}).run()
    assert Set(infra={"folder": tmp_path}).run() is datetime.timezone
    with pytest.raises(RuntimeError, match="holds a pickle, which can run any code.*allow_pickle is 'never'"):
        Set(infra={"folder": tmp_path, "allow_pickle": "never"}).run()


def length(text: str) -> int:
    return len(text)


def test_long_texts_are_not_kept_in_memory(tmp_path: Path) -> None:
    """Whoever runs thousands of configs with long prompts does not run out of memory."""

    class Prompt(pydantic.BaseModel):
        text: str
        infra: exca_like.TaskInfra = exca_like.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            return len(self.text)

    kept = exca_like.memo(folder=tmp_path)(length)
    text = "a line of a prompt\n" * 10_000
    for number in range(50):
        if number == 1:  # by then, what is needed is imported
            tracemalloc.start()
        one = f"{number} {text}"
        assert Prompt(text=one).run() == kept(one) == len(one)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 30 * len(text)
