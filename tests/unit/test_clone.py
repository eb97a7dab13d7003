"""Changed copies of models."""

import typing as tp
from collections import OrderedDict

import numpy as np
import pydantic
import pytest

from exca_like import ConfDict
from exca_like.helpers import DiscriminatedModel
from exca_like.models.clone import changed_copy, validated


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Sub(Strict):
    x: int = 1
    y: int = 2


class Shape(DiscriminatedModel):
    size: int = 1


class Disk(Shape):
    radius: int = 1


class Cat(Strict):
    pet: tp.Literal["cat"] = "cat"
    color: tp.Literal["black"] = "black"
    age: int = 1


class White(Cat):
    color: tp.Literal["white"] = "white"
    snow: int = 0


class Dog(Strict):
    pet: tp.Literal["dog"] = "dog"
    age: int = 1
    bark: int = 0


Cats = tp.Annotated[Cat | White, pydantic.Field(discriminator="color")]


class Model(Strict):
    number: int = 0
    sub: Sub = Sub(x=5)
    maybe: Sub | None = None
    several: list[Sub] = []
    items: list[tp.Any] = []
    shape: Shape = Disk(radius=3)
    shapes: dict[str, Shape] = {}
    pet: tp.Annotated[Cats | Dog, pydantic.Field(discriminator="pet")] = Dog()
    aliased: int = pydantic.Field(1, alias="other")
    array: np.ndarray | None = None
    ordered: OrderedDict[str, int] = OrderedDict(a=1, b=2)
    plain: dict[str, tp.Any] = {}
    cls: tp.Any = None
    _private: int = 0


def clone(model, **changes):
    return changed_copy(model, ConfDict(changes))


START = {
    "number": 3,
    "maybe": Sub(x=7),
    "several": [Sub(x=1), Sub(x=2)],
    "shapes": {"a": Disk(radius=4)},
    "plain": {"k": {"v": 1}},
    "cls": Sub,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"number": 4}, {"number": 4}),
        ({"number": "4"}, {"number": 4}),
        ({"sub.y": 9}, {"sub": Sub(x=5, y=9)}),  # the field's default, not its class's
        ({"sub": {"y": 9}}, {"sub": Sub(x=5, y=9)}),
        ({"sub": {"=replace=": True, "y": 9}}, {"sub": Sub(y=9)}),
        ({"sub": Sub(y=9)}, {"sub": Sub(y=9)}),
        ({"maybe.y": 9}, {"maybe": Sub(x=7, y=9)}),
        ({"maybe": None}, {"maybe": None}),
        ({"several.1.x": 9}, {"several": [Sub(x=1), Sub(x=9)]}),
        ({"several": []}, {"several": []}),
        ({"shape.radius": 9}, {"shape": Disk(radius=9)}),
        ({"shape.size": 9}, {"shape": Disk(radius=3, size=9)}),
        ({"shape.type": "Shape"}, {"shape": Shape()}),
        ({"shape": "Shape"}, {"shape": Shape()}),
        ({"shape": {"type": "Disk", "size": 2}}, {"shape": Disk(radius=3, size=2)}),
        ({"shapes.a.radius": 5, "shapes.b": "Shape"}, {"shapes": {"a": Disk(radius=5), "b": Shape()}}),
        ({"pet.age": 4}, {"pet": Dog(age=4)}),
        ({"pet.pet": "cat", "pet.color": "white"}, {"pet": White()}),
        ({"plain.k.w": 2}, {"plain": {"k": {"v": 1, "w": 2}}}),
        ({"plain.k": "=delete="}, {"plain": {}}),
        ({"ordered.b": 3}, {"ordered": OrderedDict(a=1, b=3)}),
        ({"aliased": 4}, {"aliased": 4}),
    ],
)
def test_changes_are_merged_into_what_was_set(changes, expected):
    model = Model(**START)
    result = clone(model, **changes)
    plain = {**START, **expected}
    if "aliased" in plain:
        plain["other"] = plain.pop("aliased")
    assert result == Model(**plain)
    assert repr(result) == repr(Model(**plain))
    assert model == Model(**START)


@pytest.mark.parametrize(
    "changes",
    [
        {"nothing": 1},
        {"sub.nothing": 1},
        {"number": "x"},
        {"shape.type": "Nothing"},
        {"shape.nothing": 1},
        {"pet.color": "white"},
    ],
)
def test_a_wrong_change_is_a_validation_error(changes):
    with pytest.raises(pydantic.ValidationError):
        clone(Model(**START), **changes)


def test_a_copy_is_free_and_shares_no_model():
    model = Model(**START)
    result = clone(model)
    for first, second in (
        (model.sub, result.sub),
        (model.maybe, result.maybe),
        (model.several[0], result.several[0]),
        (model.shapes["a"], result.shapes["a"]),
    ):
        assert first == second
        assert first is not second


def test_entries_of_ordered_fields_can_be_moved():
    class Steps(Strict):
        steps: OrderedDict[str, dict[str, int]] = OrderedDict(a={"x": 1}, b={"x": 2})

    assert list(clone(Steps(), **{"steps.b.=before=": "a"}).steps.items()) == [("b", {"x": 2}), ("a", {"x": 1})]
    with pytest.raises(ValueError, match="nowhere"):
        clone(Steps(), **{"steps.b.=before=": "nowhere"})


def test_edits_made_in_place_are_kept():
    model = Model()
    model.several.append(Sub(x=3))
    model.plain["k"] = 1
    model.sub.y = 7
    result = clone(model, number=1)
    assert (result.several, result.plain, result.sub) == ([Sub(x=3)], {"k": 1}, Sub(x=5, y=7))


def test_a_value_without_a_dictionary_form_is_kept():
    array = np.zeros(3)
    result = clone(Model(array=array, cls=Sub(x=3)), number=1)
    assert result.array is array
    assert result.cls == Sub(x=3)
    assert type(result.cls) is Sub


def test_everything_can_be_replaced():
    assert changed_copy(Model(**START), ConfDict({"=replace=": True, "number": 8})) == Model(number=8)


def test_validation_takes_field_names():
    assert validated(Model, {"aliased": 3}).aliased == 3
    with pytest.raises(pydantic.ValidationError):
        validated(Model, {"other": 3})


def test_unknown_fields_that_are_allowed_are_kept():
    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        x: int = 1

    assert clone(Open(x=2, extra=[1]), x=3) == Open(x=3, extra=[1])
