"""Families of models told apart by their class name."""

import copy
import gc
import json
import pickle
import re
import subprocess
import sys
import types
import typing as tp

import pydantic
import pytest

from exca_like import ConfDict, errors
from exca_like.helpers import DiscriminatedModel

T = tp.TypeVar("T")


class Shape(DiscriminatedModel):
    name: str = "shape"


class Round(Shape):
    radius: float = 1.0


class Ball(Round):
    weight: int = 1


class Needing(Shape):
    required: int


class Boxed(Shape, tp.Generic[T]):
    content: T


class Aliased(Shape):
    number: int = pydantic.Field(1, alias="n")


BoxedInt = Boxed[int]  # at the top level, or it could not be pickled
BoxedRounds = Boxed[list[Round]]


class Vehicle(DiscriminatedModel, discriminator_key="kind"):
    pass


class Car(Vehicle):
    type: str = "any"


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    shape: Shape = Shape()
    several: list[Shape] = []
    named: dict[str, Shape | None] = {}
    maybe: Shape | None = None
    rounded: Round | None = None
    pair: tuple[Shape, Vehicle] | None = None
    or_int: int | Shape = 0
    union: Round | Vehicle | None = None
    generic: BoxedInt | None = None


MODELS = [
    Shape(),
    Round(radius=2),
    Ball(weight=3, name="b"),
    Needing(required=1),
    BoxedInt(content=3),
    BoxedRounds(content=[Ball()]),
    Aliased(n=4),
]

HOLDERS = [
    Holder(),
    *(Holder(shape=model) for model in MODELS),
    *(Holder(several=[model, Shape()], named={"a": model, "b": None}, maybe=model, or_int=model) for model in MODELS),
    Holder(rounded=Ball(weight=7), pair=(Ball(), Car(type="x")), union=Car()),
    Holder(union=Ball(), generic=BoxedInt(content=3)),
]


def same(first, second):
    assert first == second
    assert repr(first) == repr(second)  # which shows the classes
    return True


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_a_model_carries_its_class_name_and_comes_back_as_its_type(model):
    for dumped in (model.model_dump(), model.model_dump(mode="json"), json.loads(model.model_dump_json())):
        assert next(iter(dumped)) == "type"
        assert dumped["type"] == type(model).__name__
        assert same(Shape.model_validate(dumped, by_name=True), model)
        assert same(Holder(shape=dumped).shape, model)
    assert same(Shape.model_validate_json(model.model_dump_json(), by_name=True), model)
    assert same(Shape(**model.model_dump(by_alias=True)), model)


@pytest.mark.parametrize("holder", HOLDERS, ids=range(len(HOLDERS)))
def test_fields_of_all_kinds_round_trip(holder):
    for mode in ("python", "json"):
        assert same(Holder.model_validate(holder.model_dump(mode=mode)), holder)
        assert same(Holder.model_validate(holder.model_dump(mode=mode, by_alias=True)), holder)
        assert same(Holder.model_validate(holder.model_dump(mode=mode, exclude_defaults=True)), holder)
        assert same(Holder.model_validate(holder.model_dump(mode=mode, exclude_unset=True)), holder)
        assert same(Holder.model_validate(holder.model_dump(mode=mode, exclude_none=True, round_trip=True)).shape, holder.shape)
    assert same(Holder.model_validate_json(holder.model_dump_json()), holder)
    assert same(Holder(**ConfDict.from_model(holder, uid=True, exclude_defaults=True)), holder)
    assert same(Holder(**ConfDict.from_model(holder)), holder)
    assert same(pickle.loads(pickle.dumps(holder)), holder)
    assert same(copy.deepcopy(holder), holder)
    assert same(holder.model_copy(deep=True), holder)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"type": "Ball", "name": "shape", "radius": 1.0, "weight": 2}),
        ({"exclude_defaults": True}, {"type": "Ball", "weight": 2}),
        ({"exclude_unset": True}, {"type": "Ball", "weight": 2}),
        ({"include": {"shape": {"radius"}}}, {"type": "Ball", "radius": 1.0}),
        ({"exclude": {"shape": {"radius", "name"}}}, {"type": "Ball", "weight": 2}),
    ],
)
def test_options_of_dumping_reach_the_fields_of_a_subclass(options, expected):
    assert Holder(shape=Ball(weight=2)).model_dump(**options)["shape"] == expected
    assert json.loads(Holder(shape=Ball(weight=2)).model_dump_json(**options))["shape"] == expected


def test_aliases_are_dumped_when_asked_for():
    assert Holder(shape=Aliased(n=3)).model_dump(by_alias=True)["shape"] == {"type": "Aliased", "name": "shape", "n": 3}
    assert Holder(shape=Aliased(n=3)).model_dump()["shape"] == {"type": "Aliased", "name": "shape", "number": 3}


def test_a_bare_string_is_the_subclass_with_its_defaults():
    holder = Holder(shape="Ball", several=["Round", Ball()], named={"a": "Shape"}, maybe="Ball", union="Round")
    assert same(holder, Holder(shape=Ball(), several=[Round(), Ball()], named={"a": Shape()}, maybe=Ball(), union=Round()))
    assert same(Shape.model_validate("Ball"), Ball())


def test_the_key_chooses_the_class_in_a_call():
    assert same(Shape(type="Ball", weight=3), Ball(weight=3))
    assert same(Shape(type="Shape"), Shape())
    assert same(Ball(type="Ball"), Ball())
    assert same(Round(type="Ball", radius=3), Ball(radius=3))
    assert same(Vehicle(kind="Car", type="x"), Car(type="x"))
    assert same(Shape(**ConfDict({"type": "Ball", "weight": 2})), Ball(weight=2))
    assert same(Shape.model_validate(types.MappingProxyType({"type": "Ball"})), Ball())


def test_what_a_model_does_on_creation_is_done_once_and_with_its_context():
    class Busy(Shape):
        seen: tp.ClassVar[list[tp.Any]] = []
        x: int = 1
        _double: int = 0

        @pydantic.field_validator("x")
        @classmethod
        def check(cls, value, info):
            cls.seen.append(info.context)
            return value

        def model_post_init(self, context):
            self._double = self.x * 2

    assert Shape(type="Busy", x=3)._double == 6
    assert Holder(shape={"type": "Busy", "x": 4}).shape._double == 8
    Holder.model_validate({"shape": {"type": "Busy", "x": 4}}, context="here")
    assert Busy.seen == [None, None, "here"]


@pytest.mark.parametrize(
    ("build", "where", "match"),
    [
        (lambda: Shape(type="Bal"), (), "type='Bal' names no Shape.*Aliased, Ball"),
        (lambda: Holder(shape="Bal"), ("shape",), "type='Bal' names no Shape.*Ball"),
        (lambda: Holder(several=["Ball", {"type": "Car"}]), ("several", 1), "type='Car' names no Shape"),
        (lambda: Holder(rounded="Shape"), ("rounded",), "type='Shape' names no Round: use one of Ball, Round"),
        (lambda: Vehicle(kind="Bus"), (), "kind='Bus' names no Vehicle: use one of Car, Vehicle"),
        (lambda: Ball(type="Round"), (), "type='Round' names no Ball"),
        (lambda: Shape(type=3), (), "type=3 names no Shape"),
        (lambda: Shape(type=None), (), "type=None names no Shape"),
        (lambda: Shape(type=["Ball"]), (), "names no Shape"),
        (lambda: Holder(shape={"type": {}}), ("shape",), "names no Shape"),
        (lambda: Shape(type="Ball", weight="x"), ("weight",), "valid integer"),
        (lambda: Holder(shape={"type": "Ball", "weight": "x"}), ("shape", "weight"), "valid integer"),
        (lambda: Holder(shape={"type": "Round", "weight": 1}), ("shape", "weight"), "not permitted"),
        (lambda: Shape(weight=1), ("weight",), "not permitted"),
        (lambda: Shape(type="Needing"), ("required",), "Field required"),
        (lambda: Holder(shape="Needing"), ("shape", "required"), "Field required"),
        (lambda: Holder(shape=None), ("shape",), "Shape"),
        (lambda: Holder(shape=Car()), ("shape",), "Shape"),
        (lambda: Round.model_validate(Shape()), (), "Round"),
    ],
)
def test_errors_name_the_place_and_the_options(build, where, match):
    with pytest.raises(pydantic.ValidationError, match=f"(?s){match}") as caught:
        build()
    assert caught.value.errors()[0]["loc"] == where


def test_subclasses_defined_later_count():
    class Later(Ball):
        extra: int = 1

    holder = Holder(shape={"type": "Later", "extra": 2}, several=["Later"])
    assert same(holder.shape, Later(extra=2))
    assert holder.model_dump()["shape"] == {"type": "Later", "name": "shape", "radius": 1.0, "weight": 1, "extra": 2}
    assert same(Holder(**holder.model_dump()), holder)


def test_of_two_classes_with_one_name_the_later_counts():
    classes = []
    for number in range(3):

        class Again(Shape):
            x: int = number

        classes.append(Again)
    assert type(Shape(type="Again")) is classes[-1]
    assert Holder(shape=classes[0]()).model_dump()["shape"] == {"type": "Again", "name": "shape", "x": 0}


def test_the_key_can_be_chosen_once_per_family():
    assert (Shape.discriminator_key(), Car.discriminator_key()) == ("type", "kind")
    assert Car(type="x").model_dump() == {"kind": "Car", "type": "x"}

    class Same(Vehicle, discriminator_key="kind"):
        pass

    with pytest.raises(RuntimeError, match="can't change the discriminator key") as caught:

        class Other(Vehicle, discriminator_key="sort"):
            pass

    assert isinstance(caught.value, errors.ModelExportError)


def test_a_field_with_the_name_of_the_key_raises():
    with pytest.raises(RuntimeError, match=r"has a field 'type'.*discriminator_key="):

        class Bad(Shape):
            type: str = "x"

    with pytest.raises(RuntimeError, match="has a field 'kind'"):

        class AlsoBad(DiscriminatedModel, discriminator_key="kind"):
            kind: str = "x"


def test_unknown_fields_are_forbidden_unless_allowed():
    class Open(Shape):
        model_config = pydantic.ConfigDict(extra="allow")

    assert same(Holder(shape={"type": "Open", "z": 1}).shape, Open(z=1))
    assert Holder(shape=Open(z=1)).model_dump()["shape"] == {"type": "Open", "name": "shape", "z": 1}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_json_schema_lets_the_key_and_the_fields_of_subclasses_in(mode):
    gc.collect()  # classes of other tests, which would count as subclasses
    schema = Holder.model_json_schema(mode=mode)
    text = json.dumps(schema)
    assert re.search(r'"type": {"enum": \["Ball", ("Later", )?"Round"\], "type": "string"}', text)
    ball = Ball.model_json_schema(mode=mode)
    assert set(ball["properties"]) == {"type", "name", "radius", "weight"}
    assert ball["additionalProperties"] is False
    assert Shape.model_json_schema(mode=mode)["additionalProperties"] is True


def test_type_adapters_know_the_family():
    adapter = pydantic.TypeAdapter(list[Shape])
    models = adapter.validate_python(["Ball", {"type": "Round", "radius": 2}, Shape()])
    assert same(models, [Ball(), Round(radius=2), Shape()])
    assert [item["type"] for item in adapter.dump_python(models)] == ["Ball", "Round", "Shape"]
    assert same(adapter.validate_json(adapter.dump_json(models)), models)


def test_other_ways_of_making_models():
    assert Shape.model_construct(name="x").name == "x"
    assert same(Ball().model_copy(update={"weight": 4}), Ball(weight=4))
    assert same(Shape.model_validate_strings({"type": "Ball", "weight": "3"}), Ball(weight=3))
    with pytest.raises(TypeError):
        Shape({"type": "Ball"})

    class Hashable(Shape, frozen=True):
        pass

    assert len({Hashable(), Shape(type="Hashable")}) == 1


def test_classes_with_one_field_set_have_different_uids():
    uids = {
        ConfDict.from_model(Holder(shape=shape), uid=True, exclude_defaults=True).to_uid()
        for shape in (Shape(), Round(), Ball())
    }
    assert len(uids) == 3


def test_type_checkers_see_an_ordinary_model(tmp_path):
    pytest.importorskip("mypy")
    code = """
import typing
from exca_like.helpers import DiscriminatedModel
class Shape(DiscriminatedModel, discriminator_key="kind"):
    name: str = "a"
class Ball(Shape):
    weight: int = 1
ball = Ball(weight=3, name="b")
typing.assert_type(ball, Ball)
typing.assert_type(ball.weight, int)
typing.assert_type(Shape.model_validate({"kind": "Ball"}), Shape)
"""
    (tmp_path / "typed.py").write_text(code)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(tmp_path / "typed.py"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
