"""A frozen model can't be changed, all through its tree; its class, copies and other instances can."""

import copy
import functools
import pickle
import typing as tp
from collections import OrderedDict

import cloudpickle
import pydantic
import pytest

import exca_like
from exca_like.errors import ExcaLikeError, FrozenModelError
from exca_like.helpers import DiscriminatedModel
from exca_like.models import freeze as freeze_module
from exca_like.models.freeze import freeze, is_frozen


class Sub(pydantic.BaseModel):
    x: int = 1


class Deep(pydantic.BaseModel):
    sub: Sub = Sub()


class Root(pydantic.RootModel[list[Sub]]):
    pass


class Shape(DiscriminatedModel):
    size: int = 1


class Disk(Shape):
    radius: int = 1


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    number: int = 0
    sub: Sub = Sub()
    deep: Deep = Deep()
    several: list[Sub] = []
    named: dict[str, tuple[Sub, ...]] = {}
    ordered: OrderedDict[str, Sub] = OrderedDict()
    maybe: Sub | None = None
    anything: tp.Any = None
    root: Root = Root([])
    shape: Shape = Disk()
    _private: int = 0
    counter: tp.ClassVar[int] = 0

    @property
    def double(self):
        return self.number * 2

    @double.setter
    def double(self, value):
        self.number = value // 2

    @property
    def note(self):
        return self._private

    @note.setter
    def note(self, value):
        self._private = value

    @functools.cached_property
    def slow(self):
        return self.number + 1


def frozen(model):
    freeze(model)
    return model


def make():
    return Model(
        several=[Sub(x=1)],
        named={"a": (Sub(x=2),)},
        ordered=OrderedDict(a=Sub()),
        maybe=Sub(),
        anything={"k": [Sub()]},
        root=Root([Sub()]),
        unknown=Sub(),
    )


PARTS = {
    "itself": (lambda m: m, "number"),
    "sub-model": (lambda m: m.sub, "x"),
    "sub-model of a sub-model": (lambda m: m.deep.sub, "x"),
    "list": (lambda m: m.several[0], "x"),
    "dictionary of tuples": (lambda m: m.named["a"][0], "x"),
    "ordered dictionary": (lambda m: m.ordered["a"], "x"),
    "optional": (lambda m: m.maybe, "x"),
    "any": (lambda m: m.anything["k"][0], "x"),
    "root model": (lambda m: m.root, "root"),
    "item of a root model": (lambda m: m.root.root[0], "x"),
    "subclass": (lambda m: m.shape, "radius"),
    "unknown field": (lambda m: m.unknown, "x"),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_tree_is_frozen(part):
    find, name = PARTS[part]
    model = make()
    found = find(model)
    before = getattr(found, name)
    freeze(model)
    assert is_frozen(found)
    for change in (lambda: setattr(found, name, 3), lambda: delattr(found, name)):
        with pytest.raises(RuntimeError, match=rf"{type(found).__name__}\.{name} can't be .*infra\.clone_obj") as caught:
            change()
        assert isinstance(caught.value, FrozenModelError)
        assert isinstance(caught.value, ExcaLikeError)
    assert getattr(found, name) == before


@pytest.mark.parametrize(("name", "value"), [("unknown", 1), ("brand_new", 1), ("double", 4), ("sub", Sub(x=4)), ("number", 0)])
def test_no_way_of_assigning_is_left(name, value):
    model = frozen(make())
    before = model.model_dump()
    with pytest.raises(FrozenModelError, match=r"clone_obj"):
        setattr(model, name, value)
    assert model.model_dump() == before


def test_private_attributes_and_caches_stay_free():
    model = frozen(make())
    model._private = 5
    model.note = 6
    assert (model._private, model.slow) == (6, 1)
    del model._private
    Model.counter = 3
    assert model.counter == 3


def test_the_class_and_its_other_instances_stay_free():
    other, model = make(), frozen(make())
    for free in (other, make(), Model.model_construct()):
        free.number = 3
        free.new = 4
        free.sub = Sub()
        free.sub.x = 5
        del free.new
        assert not is_frozen(free)
    assert Model().sub.x == 1
    assert model.sub.x == 1


COPIES = {
    "model_copy": lambda m: m.model_copy(),
    "deep model_copy": lambda m: m.model_copy(deep=True),
    "model_copy with update": lambda m: m.model_copy(update={"number": 3}),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "cloudpickle": lambda m: cloudpickle.loads(cloudpickle.dumps(m)),
    "dump and validate": lambda m: Model.model_validate({**m.model_dump(), "anything": None}),
    "construct": lambda m: Model.model_construct(_fields_set=m.model_fields_set, **m.__dict__),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_are_free(duplicate):
    model = frozen(make())
    result = duplicate(model)
    result.number = 9
    assert result.model_fields_set >= model.model_fields_set
    assert type(result.model_fields_set.copy()) is set
    assert model.number == 0
    assert is_frozen(model)
    assert not is_frozen(result)


def test_the_parts_of_deep_copies_are_free():
    model = frozen(make())
    for name in ("deep model_copy", "deepcopy", "pickle", "cloudpickle"):
        result = COPIES[name](model)
        for find, _ in PARTS.values():
            assert not is_frozen(find(result))


def test_a_model_built_anew_from_a_frozen_one_is_free():
    class Revalidated(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(revalidate_instances="always")
        x: int = 1

    class Owner(pydantic.BaseModel):
        part: Revalidated

    owner = Owner(part=frozen(Revalidated(x=3)))
    owner.part.x = 4
    assert owner.part.model_fields_set == {"x"}


def test_content_and_equality_are_unchanged():
    model, twin = make(), make()
    dumped, fields_set = model.model_dump(), set(model.model_fields_set)
    freeze(model)
    assert model == twin
    assert model.model_dump() == dumped
    assert model.model_fields_set == fields_set
    assert model.model_dump(exclude_unset=True) == twin.model_dump(exclude_unset=True)
    assert repr(model) == repr(twin)


def test_a_class_with_its_own_setattr_is_frozen_too():
    class Logging(pydantic.BaseModel):
        x: int = 1
        log: tp.ClassVar[list[str]] = []

        def __setattr__(self, name, value):
            self.log.append(name)
            super().__setattr__(name, value)

    class Below(Logging):
        pass

    class Bypassing(Logging):
        def __setattr__(self, name, value):
            self.__dict__[name] = value

    for cls in (Below, Logging, Bypassing, Logging):
        model = frozen(cls())
        with pytest.raises(FrozenModelError):
            model.x = 2
        assert Logging.log == []
        assert model.x == 1
    for cls in (Logging, Below):
        other = cls()
        other.x = 2
        assert other.x == 2
        assert Logging.log.pop() == "x"


def test_validation_of_assignment_still_works():
    class Checked(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(validate_assignment=True)
        x: int = 1

    model = frozen(Checked())
    with pytest.raises(FrozenModelError):
        model.x = 2
    other = Checked()
    with pytest.raises(pydantic.ValidationError):
        other.x = "no"
    other.x = "3"
    assert other.x == 3


def test_a_large_tree_is_walked_once(monkeypatch):
    fields = {f"f{number}": (Sub, Sub()) for number in range(100)} | {f"n{number}": (int, number) for number in range(9_900)}
    large = pydantic.create_model("Large", **fields)()
    visited = []
    walk = freeze_module._freeze_inside
    monkeypatch.setattr(freeze_module, "_freeze_inside", lambda value: (visited.append(value), walk(value)))
    freeze(large)
    assert len(visited) == 100  # only fields that can hold models
    freeze(large)
    assert len(visited) == 100
    with pytest.raises(FrozenModelError):
        large.n7 = 0
    with pytest.raises(FrozenModelError):
        large.f7.x = 0


def test_computing_a_uid_freezes_the_tree_infras_included(tmp_path):
    class Inner(pydantic.BaseModel):
        x: int = 1
        infra: exca_like.TaskInfra = exca_like.TaskInfra()
        _later: int = 0

        @infra.apply
        def run(self):
            return self.x

    class Outer(pydantic.BaseModel):
        inner: Inner = Inner()
        infra: exca_like.TaskInfra = exca_like.TaskInfra()

        @infra.apply
        def run(self):
            return self.inner.x

    outer, other = Outer(), Outer()
    outer.inner.x = 2
    outer.infra.uid()
    for change in (
        lambda: setattr(outer, "inner", Inner()),
        lambda: setattr(outer.inner, "x", 3),
        lambda: setattr(outer, "infra", exca_like.TaskInfra()),
        lambda: setattr(outer.infra, "version", "2"),
        lambda: setattr(outer.inner.infra, "folder", tmp_path),
    ):
        with pytest.raises(RuntimeError, match="clone_obj"):
            change()
    outer.inner._later = 3
    clone = outer.infra.clone_obj({"inner.x": 5})
    clone.inner.x = 6
    clone.infra.version = "3"
    other.inner.x = 7
    other.infra.version = "4"
    assert (outer.run(), clone.run(), other.run()) == (2, 6, 7)
