"""Identity: configs that differ have different uids, and one config has one uid, wherever and however it is made."""

import collections
import datetime
import decimal
import os
import pathlib
import pickle
import random
import re
import struct
import subprocess
import sys
import typing as tp
from collections import OrderedDict

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Color, Size, configs, leaves, near_twins, normal

from exca_like import ConfDict
from exca_like.helpers import DiscriminatedModel

EXAMPLES = {"injective": 10_500, "stable": 3_000, "processes": 2_500, "yaml": 2_000, "models": 2_500}
MINIMUM = 20_000
SCALE = settings.default.max_examples // 100  # 10 in the long profile

counted: collections.Counter[str] = collections.Counter()
# the normal form of every uid of the run, and the other way around
forms: dict[str, tp.Hashable] = {}
uids: dict[tp.Hashable, str] = {}


def examples(name: str) -> settings:
    return settings(max_examples=EXAMPLES[name] * SCALE)


def uid_of(config: dict[str, tp.Any]) -> str:
    uid = ConfDict(config).to_uid()
    form = normal(config)
    assert forms.setdefault(uid.lower(), form) == form, "two configs of this run have one uid"
    assert uids.setdefault(form, uid) == uid, "a config of this run had another uid before"
    return uid


@examples("injective")
@given(near_twins())
def test_configs_have_one_uid_exactly_when_they_are_the_same(pair):
    counted["injective"] += 1
    first, second = pair
    one, two = uid_of(first), uid_of(second)
    same = normal(first) == normal(second)
    assert (one == two) is same
    assert (one.lower() == two.lower()) is same


def _shuffled(value: tp.Any, order: random.Random) -> tp.Any:
    """The same config, made differently: plain dicts in another order, other kinds of sequences, sets built anew."""
    if isinstance(value, OrderedDict):
        return OrderedDict((key, _shuffled(item, order)) for key, item in value.items())
    if isinstance(value, dict):
        pairs = [(key, _shuffled(item, order)) for key, item in value.items()]
        order.shuffle(pairs)
        return dict(pairs)
    if isinstance(value, list | tuple):
        return order.choice((list, tuple))(_shuffled(item, order) for item in value)
    if isinstance(value, set):
        members = list(value)
        order.shuffle(members)
        return set(members)
    return value


@examples("stable")
@given(configs, st.randoms(use_true_random=False))
def test_uid_has_a_safe_form_and_ignores_how_a_config_was_made(config, order):
    counted["stable"] += 1
    uid = uid_of(config)
    assert uid_of(_shuffled(config, order)) == uid
    assert ConfDict(ConfDict(config)).to_uid() == pickle.loads(pickle.dumps(ConfDict(config))).to_uid() == uid
    if not config:
        assert uid == ""
        return
    text, _, digest = uid.rpartition("-")
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{16}", digest)
    assert re.fullmatch(r"[A-Za-z0-9_.,=+(){}-]{0,128}", text)
    assert not uid.startswith((".", "-"))


class Workers:
    """Processes with other seeds of ``hash``, each asked for the uids of the same configs."""

    def __init__(self) -> None:
        here = pathlib.Path(__file__).parent
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(here / "uid_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONHASHSEED": seed},
            )
            for seed in ("0", "1", "123", "random")
        ]

    def uids(self, batch: list[dict[str, tp.Any]]) -> list[list[str]]:
        data = pickle.dumps(batch)
        for process in self.processes:
            process.stdin.write(struct.pack("<I", len(data)) + data)
            process.stdin.flush()
        return [pickle.loads(process.stdout.read(*struct.unpack("<I", process.stdout.read(4)))) for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.communicate()


@pytest.fixture(scope="module")
def workers():
    started = Workers()
    yield started
    started.close()


@examples("processes")
@given(config=configs, members=st.sets(leaves.filter(lambda leaf: isinstance(leaf, tp.Hashable)), max_size=6))
def test_every_process_gives_the_same_uid_whatever_its_hash_seed(workers, config, members):
    counted["processes"] += 1
    batch = [config, {"set": members}]
    expected = [ConfDict(item).to_uid() for item in batch]
    assert workers.uids(batch) == [expected] * len(workers.processes)


plain = st.recursive(
    st.one_of(
        st.text(max_size=8).filter(lambda text: not ConfDict.ops.is_op(text)),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.none(),
    ),
    lambda content: st.one_of(
        st.lists(content, max_size=3),
        st.dictionaries(st.sampled_from(("a", "b", "yes", "1", "a: b", "é", "<<", "=", "~")), content, max_size=3).map(
            lambda mapping: OrderedDict(mapping) if len(mapping) == 2 else mapping
        ),
    ),
    max_leaves=5,
)


@examples("yaml")
@given(st.dictionaries(st.sampled_from(("a", "b", "null", "2", "- x", "#")), plain, max_size=4))
def test_plain_values_come_back_from_yaml_unchanged(config):
    counted["yaml"] += 1
    original = ConfDict(config)
    back = ConfDict.from_yaml(original.to_yaml())
    assert normal(back) == normal(original)
    assert back.to_uid() == original.to_uid()


class Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int = 1
    name: str = "part"
    scale: float | None = None


class First(Part):
    kind: tp.Literal["first"] = "first"


class Second(Part):
    kind: tp.Literal["second"] = "second"
    x: int = 2


class Shape(DiscriminatedModel):
    size: float = 1.0


class Disk(Shape):
    color: Color = Color.RED


class Square(Shape):
    size: float = 2.0
    corners: set[str] = set()


Chosen = tp.Annotated[First | Second, pydantic.Field(discriminator="kind")]


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    required: Part
    part: Part = Part(x=5)
    optional: Part | None = None
    chosen: Chosen = Second(x=7)
    several: list[Chosen] = []
    shape: Shape = Disk(size=3)
    shapes: dict[str, Shape | None] = {}
    number: float = 0.5
    text: str = ""
    flag: bool | None = None
    strings: set[str] = {"b", "a"}
    pairs: frozenset[tuple[int, str]] = frozenset()
    numbers: tuple[float, ...] = (1.0, 2.0)
    path: pathlib.Path = pathlib.Path("data")
    wait: datetime.timedelta = datetime.timedelta(hours=1)
    day: datetime.date = datetime.date(2020, 1, 1)
    amount: decimal.Decimal = decimal.Decimal("1.5")
    color: Color = Color.BLUE
    size: Size | None = None
    steps: OrderedDict[str, int] = OrderedDict(a=1)
    anything: tp.Any = None
    workers: int = 4
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("workers",)


texts = st.one_of(st.sampled_from(("", "a", "A", "1", "none", "yes", "1e5", "a: b", "- a", "é")), st.text(max_size=5))
names = st.sampled_from(("a", "b", "c"))
numbers = st.one_of(st.sampled_from((0, 1, 2, 0.5, 1e-5)), st.floats(allow_nan=False))
parts = {"x": st.integers(0, 9), "name": texts, "scale": st.none() | numbers}


def models_of(cls: type[tp.Any], **fields: st.SearchStrategy[tp.Any]) -> st.SearchStrategy[tp.Any]:
    return st.fixed_dictionaries({}, optional=fields).map(lambda data: cls(**data))


chosen = models_of(First, **parts) | models_of(Second, **parts)
shapes = st.one_of(
    models_of(Shape, size=numbers),
    models_of(Disk, size=numbers, color=st.sampled_from(Color)),
    models_of(Square, size=numbers, corners=st.sets(texts, max_size=3)),
)
models = st.fixed_dictionaries(
    {"required": models_of(Part, **parts)},
    optional={
        "part": models_of(Part, **parts),
        "optional": st.none() | models_of(Part, **parts),
        "chosen": chosen,
        "several": st.lists(chosen, max_size=2),
        "shape": shapes,
        "shapes": st.dictionaries(names, st.none() | shapes, max_size=2),
        "number": numbers,
        "text": texts,
        "flag": st.sampled_from((None, True, False)),
        "strings": st.sets(texts, max_size=4),
        "pairs": st.frozensets(st.tuples(st.integers(0, 2), texts), max_size=3),
        "numbers": st.lists(numbers, max_size=3).map(tuple),
        "path": st.sampled_from((pathlib.Path("data"), pathlib.Path("/other path"))),
        "wait": st.timedeltas(),
        "day": st.dates(),
        "amount": st.decimals(allow_nan=False, allow_infinity=False, places=3),
        "color": st.sampled_from(Color),
        "size": st.sampled_from((None, *Size)),
        "steps": st.lists(st.tuples(names, st.integers(0, 2)), max_size=3).map(OrderedDict),
        "anything": st.one_of(texts, numbers, st.lists(texts, max_size=2), st.none()),
        "workers": st.integers(),
    },
).map(lambda data: Model(**data))


@examples("models")
@given(models, models)
def test_an_exported_model_is_rebuilt_and_has_its_own_uid(model, other):
    counted["models"] += 1
    config = ConfDict.from_model(model, uid=True, exclude_defaults=True)
    uid = config.to_uid()
    assert ConfDict.from_yaml(config.to_yaml()).to_uid() == uid
    rebuilt = Model(**config)
    counting = {"workers": model.workers}
    assert rebuilt.model_copy(update=counting) == model
    assert type(rebuilt.shape) is type(model.shape)
    assert type(rebuilt.chosen) is type(model.chosen)
    assert ConfDict.from_model(rebuilt, uid=True, exclude_defaults=True).to_uid() == uid
    full = ConfDict.from_model(model, uid=True)
    assert ConfDict.from_yaml(full.to_yaml()).to_uid() == full.to_uid()
    assert Model(**full).model_copy(update=counting) == model
    other_uid = ConfDict.from_model(other, uid=True, exclude_defaults=True).to_uid()
    assert (other_uid == uid) is (other.model_copy(update=counting) == model)


def test_the_run_had_as_many_examples_as_promised(capsys):
    if len(counted) < len(EXAMPLES):
        pytest.skip("only a part of the tests ran")
    with capsys.disabled():
        print(f"\n{counted.total()} examples: {dict(counted)}; {len(forms)} different uids", end=" ")
    assert counted.total() >= MINIMUM * SCALE
