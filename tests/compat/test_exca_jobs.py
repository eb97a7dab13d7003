"""Task results that exca left: samples written by the real exca, pickles made by hand, and exca itself if installed."""

import builtins
import collections
import datetime
import decimal
import fractions
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import types
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from submitit.core.utils import JobPaths
from submitit.slurm.slurm import SlurmJob

from exca_like.compat.exca_jobs import read_job
from exca_like.errors import CorruptEntryWarning, ResultLoadError

SAMPLES = Path(__file__).parent / "exca_caches"
VERSIONS = ("0.4.8", "0.6.0")


def never(path: str) -> bool:
    raise AssertionError(f"asked for {path}")


def refuse(path: str) -> bool:
    return False


def permit(path: str) -> bool:
    return True


@pytest.fixture(params=VERSIONS)
def cache(request, tmp_path) -> Path:
    return Path(shutil.copytree(SAMPLES / request.param, tmp_path / "moved here"))


def uid_folders(cache: Path) -> list[Path]:
    return sorted(path.parent for path in cache.glob("lab.Train.run,1/*/job.pkl"))


def expected(folder: Path) -> tuple[str, dict[str, float]]:
    config = yaml.safe_load((folder / "full-uid.yaml").read_text())
    return "success", {"loss": config["seed"] + config["optim"]["lr"]}


class Maker:
    """Writes job pickles as exca does, with a module that has the names of exca's."""

    def __init__(self, root: Path, monkeypatch) -> None:
        self.folder = root / "mod.Cls.run,0" / "x=1-aaaa"
        self.folder.mkdir(parents=True)
        module = types.ModuleType("exca.task")
        self.job = type("LocalJob", (), {"__module__": "exca.task", "__qualname__": "LocalJob"})
        module.LocalJob = self.job
        monkeypatch.setitem(sys.modules, "exca", types.ModuleType("exca"))
        monkeypatch.setitem(sys.modules, "exca.task", module)

    @property
    def file(self) -> Path:
        return self.folder / "job.pkl"

    def data(self, *result: Any, protocol: int = 5) -> bytes:
        job = self.job()
        job._name = "mod.Cls.run"
        job._result = result
        return pickle.dumps(job, protocol)

    def write(self, *result: Any, protocol: int = 5) -> Path:
        return self.raw(self.data(*result, protocol=protocol))

    def raw(self, data: bytes) -> Path:
        self.file.write_bytes(data)
        return self.folder

    def submitit(self, template: str, job_id: str = "7") -> Path:
        return self.raw(pickle.dumps(SlurmJob(template, job_id)))


@pytest.fixture
def make(tmp_path, monkeypatch) -> Maker:
    return Maker(tmp_path / "root", monkeypatch)


def put_result(path: Path, *result: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(result))


# samples


def test_samples(cache):
    folders = uid_folders(cache)
    assert len(folders) == 6
    for folder in folders:
        assert read_job(str(folder), never) == expected(folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_without_exca_and_submitit(version, tmp_path):
    cache = Path(shutil.copytree(SAMPLES / version, tmp_path / "cache"))
    code = (
        "import json, sys\n"
        "sys.modules['exca'] = sys.modules['submitit'] = None\n"
        "from exca_like.compat.exca_jobs import read_job\n"
        "print(json.dumps([read_job(path, lambda path: 1 / 0) for path in sys.argv[1:]]))\n"
    )
    folders = uid_folders(cache)
    command = [sys.executable, "-W", "error", "-c", code, *map(str, folders)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [list(expected(folder)) for folder in folders]


def test_relative_folder(cache, monkeypatch):
    folder = cache / "lab.Train.run,1" / "seed=1-25b71244"
    monkeypatch.chdir(folder.parent)
    assert read_job("seed=1-25b71244", never) == expected(folder)


def test_what_is_not_there(cache, make):
    assert read_job(str(cache / "lab.Train.run,1" / "missing"), never) is None
    assert read_job(str(cache / "lab.Embed.process,1" / "default"), never) is None
    folder = cache / "lab.Train.run,1" / "seed=1-25b71244"
    shutil.rmtree(cache / "lab.Train.run,1" / "logs")  # then the job looks like one that still runs
    assert read_job(str(folder), never) is None
    make.file.mkdir()
    with pytest.warns(CorruptEntryWarning, match="can't be read"):
        assert read_job(str(make.folder), never) is None


# plain data

VALUES = [
    None,
    True,
    -(10**40),
    1.5,
    float("inf"),
    "text \udc80 é",
    b"",
    b"\x00\xff",
    bytearray(b"ab"),
    (1, (2,), ()),
    [1, [2.0, {"a": {"b": None}}]],
    {1: "a", (1, 2): {"c"}, frozenset("ab"): 2},
    set(),
    1j,
    range(1, 9, 2),
    slice(1, None, 2),
    Ellipsis,
    NotImplemented,
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.defaultdict(int, a=1),
    collections.Counter("abca"),
    collections.deque([1, 2], 3),
    datetime.datetime(2024, 2, 3, 4, 5, 6, 7, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "X")),
    [datetime.date(2024, 2, 3), datetime.time(1, 2), datetime.timedelta(3), datetime.UTC],
    decimal.Decimal("1.50"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=2**100),
    uuid.uuid1(),
    pathlib.PurePosixPath("a/b"),
    [Path("/a/b"), pathlib.PureWindowsPath("c:/d")],
    {"class": pathlib.PosixPath, "other": collections.OrderedDict},
    [ValueError("a"), KeyError(1), FileNotFoundError(2, "no", "file")],
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.ones((2, 3), ">f4")),
    np.zeros((0, 3), bool),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array(["2020-01-01", "NaT"], "M8[25s]"),
    np.array([1, 2], "m8[ns]"),
    np.array([1, "a", None, Path("p")], object),
    np.arange(10)[::3],
    [
        np.float32(1.5),
        np.int64(3),
        np.bool_(True),
        np.str_("abc"),
        np.datetime64("2020-01-01"),
        np.bytes_(b"x"),
        np.complex64(1j),
    ],
    [np.dtype("f8"), np.dtype(">i2"), np.dtype("U5"), np.dtype("M8[ns]"), np.dtype(object), np.dtype("V8")],
    np.zeros(2, "V8"),
]


def same(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tolist() == second.tolist()
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, Exception):
        return first.args == second.args and str(first) == str(second)
    if isinstance(first, collections.defaultdict) and first.default_factory is not second.default_factory:
        return False
    return first == second and repr(first) == repr(second)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data(make, protocol):
    for value in VALUES:
        folder = make.write("success", value, protocol=protocol)
        kind, loaded = read_job(str(folder), never)
        assert kind == "success"
        assert same(loaded, pickle.loads(pickle.dumps(value, protocol))), value
    loaded = read_job(str(make.write("success", VALUES, protocol=protocol)), never)[1]
    assert same(loaded, pickle.loads(pickle.dumps(VALUES, protocol)))


def test_large_array(make):
    array = np.random.default_rng(0).normal(size=(300, 1000))
    loaded = read_job(str(make.write("success", {"a": array})), never)[1]["a"]
    np.testing.assert_array_equal(loaded, array)


def test_shared_and_cyclic_data(make):
    value: list[Any] = [Path("a")]
    value += [value, value[0]]
    loaded = read_job(str(make.write("success", value)), never)[1]
    assert loaded[1] is loaded
    assert loaded[2] is loaded[0]


@pytest.mark.parametrize("spelling", ["numpy.core", "numpy._core"])
def test_spellings_of_numpy(make, spelling):
    data = make.data("success", [np.arange(3.0), np.float32(2)], protocol=2)
    for known in (b"numpy.core.", b"numpy._core."):
        data = data.replace(known, spelling.encode() + b".")
    # older releases pickled the arguments of a dtype as integers
    data = data.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
    loaded = read_job(str(make.raw(data)), never)[1]
    assert same(loaded, [np.arange(3.0), np.float32(2)])


def test_python_312_spelling_of_paths(make):
    data = make.data("success", Path("/a"), protocol=2).replace(b"cpathlib\n", b"cpathlib._local\n")
    assert b"_local" in data
    assert read_job(str(make.raw(data)), never) == ("success", Path("/a"))


# errors


def test_error_of_a_local_process(make):
    kind, error = read_job(str(make.write("failure", (ValueError("bad"), "Traceback …\nValueError: bad\n"))), never)
    assert kind == "error"
    assert type(error) is ValueError
    assert error.args == ("bad",)
    assert error.__notes__ == ["\nTraceback of the computation:\nTraceback …\nValueError: bad\n"]


class OwnError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} {b}")


class WellMadeError(Exception):
    pass


def test_error_of_another_class(make):
    folder = str(make.write("failure", (WellMadeError("x"), "trace")))
    assert read_job(folder, refuse) == ("error", "trace")
    kind, error = read_job(folder, permit)
    assert (kind, type(error), error.args) == ("error", WellMadeError, ("x",))


def test_error_that_can_not_be_made_again(make):
    assert read_job(str(make.write("failure", (OwnError(1, 2), "trace"))), permit) == ("error", "trace")


@pytest.mark.parametrize("thing", [SystemExit(1), 3, "text", Path("a"), None])
def test_error_that_is_no_exception(make, thing):
    assert read_job(str(make.write("failure", (thing, "trace"))), permit) == ("error", "trace")


def test_error_of_a_job(make):
    folder = make.submitit("/gone/root/mod.Cls.run,0/logs/%j")
    put_result(make.folder.parent / "logs/7/7_0_result.pkl", "error", "Traceback …\nValueError: bad\n")
    assert read_job(str(folder), never) == ("error", "Traceback …\nValueError: bad\n")


# code in pickles


class Malicious:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def touch(path: str) -> str:
    return f"__import__('pathlib').Path({path!r}).touch()"


def attacks(mark: Path) -> dict[str, Any]:
    code = touch(str(mark))
    return {
        f"{os.system.__module__}.system": (os.system, f"touch '{mark}'"),
        "builtins.eval": (eval, code),
        "builtins.exec": (exec, code),
        "builtins.__import__": (__import__, "antigravity"),
        "builtins.getattr": (getattr, "", "join"),
        "builtins.setattr": (setattr, Ellipsis, "a", 1),
        "io.open": (open, str(mark), "w"),
        "builtins.compile": (compile, code, "x", "exec"),
        "builtins.map": (map, eval, [code]),
        "builtins.type": (type, "X", (), {}),
        "builtins.print": (print, "printed"),
        "subprocess.Popen": (subprocess.Popen, ["touch", str(mark)]),
        "pickle.loads": (pickle.loads, pickle.dumps(Malicious(eval, code))),
        "pathlib.Path": (pathlib.Path.touch, mark),
    }


NAMES = list(attacks(Path("x")))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", NAMES)
def test_code_is_refused(make, tmp_path, name, protocol):
    mark = tmp_path / "mark"
    attack = Malicious(*attacks(mark)[name])
    for value in (attack, [attack], {"a": {1: (attack,)}}, collections.OrderedDict(a=attack)):
        folder = make.write("success", value, protocol=protocol)
        with pytest.raises(ResultLoadError) as caught:
            read_job(str(folder), refuse)
        assert protocol < 4 or name in str(caught.value)  # older ones name some functions as python 2 did
        assert str(make.file) in str(caught.value)
        assert "allow_pickle='always'" in str(caught.value)
    assert not mark.exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", NAMES)
def test_code_in_place_of_a_job_is_no_job(make, tmp_path, name, protocol):
    mark = tmp_path / "mark"
    make.raw(pickle.dumps(Malicious(*attacks(mark)[name]), protocol))
    with pytest.warns(CorruptEntryWarning, match="no job of exca"):
        assert read_job(str(make.folder), permit) is None
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 1])
def test_protocols_that_exca_does_not_use(make, protocol):
    make.write("success", 3, protocol=protocol)
    with pytest.warns(CorruptEntryWarning, match="no job of exca"):
        assert read_job(str(make.folder), never) is None


@pytest.mark.parametrize("name", NAMES)
def test_code_in_errors_and_results_is_refused(make, tmp_path, name):
    mark = tmp_path / "mark"
    attack = Malicious(*attacks(mark)[name])
    assert read_job(str(make.write("failure", (attack, "trace"))), refuse) == ("error", "trace")
    folder = make.submitit("/gone/root/mod.Cls.run,0/logs/%j")
    result = make.folder.parent / "logs/7/7_0_result.pkl"
    put_result(result, "success", attack)
    with pytest.raises(ResultLoadError) as caught:
        read_job(str(folder), refuse)
    assert str(result) in str(caught.value)
    result.write_bytes(pickle.dumps(attack))
    with pytest.warns(CorruptEntryWarning, match="no result"):
        assert read_job(str(folder), never) is None
    assert not mark.exists()


def job_holding(value: bytes) -> bytes:
    """A job of exca as text opcodes, whose result is what the given ones make."""
    start = b"\x80\x02cexca.task\nLocalJob\n)\x81}(X\x07\x00\x00\x00_result(X\x07\x00\x00\x00success"
    return start + value + b"tub."


def name(path: str) -> bytes:
    module, _, last = path.rpartition(".")
    return b"c" + module.encode() + b"\n" + last.encode() + b"\n"


def test_job_by_hand(make):
    assert read_job(str(make.raw(job_holding(b"K\x03"))), never) == ("success", 3)


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def test_names_below_safe_ones_are_refused(make):
    for module, attribute in (
        ("collections", "OrderedDict.fromkeys"),
        ("builtins", "list.__class__"),
        ("pathlib", "PosixPath.touch"),
        ("builtins", "object.__subclasses__"),
        ("pathlib", "os.system"),
    ):
        value = text(module) + text(attribute) + b"\x93"
        with pytest.raises(ResultLoadError, match="collections|builtins|pathlib"):
            read_job(str(make.raw(job_holding(value).replace(b"\x80\x02", b"\x80\x04"))), refuse)


# a dictionary of slots: pickle would set the attributes of the class or the function itself
SLOTS = b"(N}" + text("marked") + b"K\x01st" + b"b"


@pytest.mark.parametrize("victim", ["pathlib.PosixPath", "uuid.UUID", "numpy.core.numeric._frombuffer", "fractions.Fraction"])
@pytest.mark.parametrize("allow", [refuse, permit])
def test_classes_can_not_be_changed(make, victim, allow):
    with pytest.warns(CorruptEntryWarning, match="changes a class"):
        assert read_job(str(make.raw(job_holding(name(victim) + SLOTS))), allow) is None
    assert not hasattr(pathlib.PosixPath, "marked")
    assert not hasattr(uuid.UUID, "marked")
    assert not hasattr(np.frombuffer, "marked")


def array_of(dtype_args: bytes, dtype_state: bytes, raw: bytes) -> bytes:
    dtype = name("numpy.dtype") + b"(" + dtype_args + b"tR" + dtype_state + b"b"
    made = name("numpy.core.multiarray._reconstruct") + b"(" + name("numpy.ndarray") + b"(K\x00tC\x01bt" + b"R"
    return made + b"(K\x01(K\x01t" + dtype + b"\x89" + raw + b"tb"


PLAIN_ARGS = text("f8") + b"\x89\x88"
PLAIN_STATE = b"(K\x03" + text("<") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t"
EIGHT_BYTES = b"C\x08" + b"\x00" * 6 + b"\xf0\x3f"


def test_array_by_hand(make):
    loaded = read_job(str(make.raw(job_holding(array_of(PLAIN_ARGS, PLAIN_STATE, EIGHT_BYTES)))), never)
    assert same(loaded, ("success", np.ones(1)))


CRAFTED = {
    "objects made of bytes": (text("O8") + b"\x89\x88", PLAIN_STATE.replace(text("<"), text("|"))),
    "numbers counted as objects": (PLAIN_ARGS, PLAIN_STATE.replace(b"K\x00t", b"K\x3ft")),
    "the shared type": (text("f8") + b"\x89\x89", PLAIN_STATE.replace(text("<"), text(">"))),
    "longer than it is": (text("S1") + b"\x89\x88", PLAIN_STATE.replace(b"J\xff\xff\xff\xff" * 2, b"J\xff\xff\xff\x0fK\x01")),
    "not a code": (b"]" + b"\x89\x88", PLAIN_STATE),
    "two codes": (text("i4,O") + b"\x89\x88", PLAIN_STATE.replace(b"J\xff\xff\xff\xff" * 2 + b"K\x00", b"K\x0cK\x01K\x1b")),
    "unknown code": (text("f3") + b"\x89\x88", PLAIN_STATE),
    "no unit": (text("M8") + b"\x89\x88", PLAIN_STATE.replace(b"K\x03", b"K\x04", 1)),
    "other unit": (text("M8") + b"\x89\x88", PLAIN_STATE.replace(b"K\x03", b"K\x04", 1).replace(b"K\x00t", b"K\x00K\x07t")),
    "no state": (PLAIN_ARGS, b"K\x01"),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_dtypes_are_refused(make, case):
    args, state = CRAFTED[case]
    with pytest.raises(ResultLoadError, match="needs numpy.dtype:"):
        read_job(str(make.raw(job_holding(array_of(args, state, EIGHT_BYTES)))), refuse)
    assert np.dtype("f8").byteorder == "="
    assert np.ones(1)[0] == 1


def test_dtype_changed_twice(make):
    with pytest.warns(CorruptEntryWarning, match="twice"):
        data = job_holding(array_of(PLAIN_ARGS, PLAIN_STATE + b"b" + PLAIN_STATE, EIGHT_BYTES))
        assert read_job(str(make.raw(data)), permit) is None


def test_structured_arrays_need_permission(make):
    array = np.array([(1, "a")], [("n", int), ("s", object)])
    folder = str(make.write("success", array))
    with pytest.raises(ResultLoadError, match=r"numpy\.dtype"):
        read_job(folder, refuse)
    assert same(read_job(folder, permit)[1], array)


@pytest.mark.parametrize("codec", ["rot13", "zip", "unknown"])
def test_other_codecs_are_damage(make, codec):
    data = job_holding(name("_codecs.encode") + b"(" + text("abc") + text(codec) + b"tR")
    with pytest.warns(CorruptEntryWarning):
        assert read_job(str(make.raw(data)), never) is None


def test_calls_of_safe_functions_that_fail_are_damage(make):
    data = job_holding(name("fractions.Fraction") + b"(" + text("x") + b"tR")
    with pytest.warns(CorruptEntryWarning, match="Invalid literal"):
        assert read_job(str(make.raw(data)), never) is None


# permitted


def test_permission_is_asked_for_the_file(make):
    asked = []
    folder = make.write("success", types.SimpleNamespace(a=types.SimpleNamespace(b=1)))
    loaded = read_job(str(folder), lambda path: asked.append(path) or True)
    assert loaded == ("success", types.SimpleNamespace(a=types.SimpleNamespace(b=1)))
    assert asked == [str(make.file)]


def test_refusal_names_everything(make):
    folder = make.write("success", [types.SimpleNamespace(), WellMadeError()])
    with pytest.raises(ResultLoadError, match=rf"needs {WellMadeError.__module__}\.WellMadeError, types\.SimpleNamespace:"):
        read_job(str(folder), refuse)


def test_functions_and_classes_pickled_by_value(make):
    import cloudpickle

    def local(x: int) -> int:
        return x + 1

    class Local:
        size = 3

    Local.__module__ = local.__module__ = "__main__"  # as in a script
    job = make.job()
    job._result = ("success", [local, Local()])
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = str(make.raw(cloudpickle.dumps(job)))
    with pytest.raises(ResultLoadError, match="cloudpickle"):
        read_job(folder, refuse)
    function, instance = read_job(folder, permit)[1]
    assert function(1) == 2
    assert instance.size == 3


def test_class_that_is_gone(make, monkeypatch):
    module = types.ModuleType("gone")
    module.Gone = type("Gone", (), {"__module__": "gone"})
    monkeypatch.setitem(sys.modules, "gone", module)
    folder = make.write("success", module.Gone())
    monkeypatch.delitem(sys.modules, "gone")
    with pytest.raises(ResultLoadError, match=r"No module named 'gone'.*\(gone\.Gone\) importable"):
        read_job(str(folder), permit)


# damage


def check_every_cut(path: Path, folder: Path, allow: Any) -> None:
    data = path.read_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for length in range(len(data)):
            path.write_bytes(data[:length])
            assert read_job(str(folder), allow) is None
    assert [warning.category for warning in caught] == [CorruptEntryWarning]
    assert str(path) in str(caught[0].message)
    path.write_bytes(data)


def test_cut_files(cache):
    for folder in uid_folders(cache):
        check_every_cut(folder / "job.pkl", folder, never)
        assert read_job(str(folder), never) == expected(folder)
    for path in cache.glob("lab.Train.run,1/logs/*/*/*_result.pkl"):
        folders = [f for f in uid_folders(cache) if path.parent.name.encode() in (f / "job.pkl").read_bytes()]
        assert len(folders) == 1
        check_every_cut(path, folders[0], never)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("allow", [refuse, permit])
def test_cut_files_of_all_kinds(make, protocol, allow):
    value = [np.arange(3), Path("a"), {"a": uuid.UUID(int=3)}, types.SimpleNamespace(a=1), ValueError("x")]
    folder = make.write("success", value, protocol=protocol)
    check_every_cut(make.file, folder, allow)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.filterwarnings("ignore::exca_like.errors.CorruptEntryWarning")
def test_flipped_bytes_do_no_harm(make, protocol):
    data = make.data("success", [np.arange(3), Path("a"), {"a": uuid.UUID(int=3)}, 1.5], protocol=protocol)
    for position in range(len(data)):
        for mask in (0xFF, 0x01, 0x40):
            flipped = bytearray(data)
            flipped[position] ^= mask
            make.raw(bytes(flipped))
            try:
                result = read_job(str(make.folder), refuse)
            except ResultLoadError:
                continue
            assert result is None or result[0] in ("success", "error")


def test_something_behind_the_end(make):
    make.raw(make.data("success", 1) + b"x")
    with pytest.warns(CorruptEntryWarning, match="behind its end"):
        assert read_job(str(make.folder), never) is None


@pytest.mark.parametrize(
    "value",
    {
        "memo": b"]r\xff\xff\xff\x0f",
        "memo in text": b"]p99999999\n",
        "bytes": b"\x8e" + b"\xff" * 5 + b"\0\0\0",
        "bytearray": b"\x96" + b"\xff" * 5 + b"\0\0\0",
        "frame": b"\x95" + b"\xff" * 5 + b"\0\0\0",
        "registered class": b"\x82\x01",
        "class of python 2": b"(ipathlib\nPosixPath\n",
        "persistent": b"K\x01Q",
        "buffer": b"\x97",
    }.values(),
)
def test_opcodes_of_no_job(make, value):
    with pytest.warns(CorruptEntryWarning, match="damaged|cut short"):
        assert read_job(str(make.raw(job_holding(value))), permit) is None


def test_memory_that_flipped_bits_ask_for(make):
    """One bit made a table of 16 GB of this file."""
    resource = pytest.importorskip("resource")
    data = make.data("success", {"a": uuid.UUID(int=3)}, protocol=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.warns(CorruptEntryWarning):
        for position, byte in enumerate(data):
            if byte == ord("s"):
                make.raw(data[:position] + b"r" + data[position + 1 :])
                read_job(str(make.folder), refuse)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize("result", [(), ("success",), ("success", 1, 2), ("other", 1), ("failure", 3), ("error", None)])
def test_jobs_without_a_result(make, result):
    with pytest.warns(CorruptEntryWarning, match="no result"):
        assert read_job(str(make.write(*result)), never) is None


# where the result of a job is

ID_TEMPLATES = [
    ("/a/logs/%j", "12"),
    ("/a/logs/%j", "12_3"),
    ("/a/logs/%A/%a", "12_3"),
    ("/a/logs/%A_%a/%t", "12_3"),
    ("/a/logs", "12_3"),
    ("/a/logs/%j", "12+1"),
    ("/a/logs/%j", "DEBUG_123"),
]


@pytest.mark.parametrize(("template", "job_id"), ID_TEMPLATES)
def test_names_are_those_of_submitit(make, template, job_id):
    folder = make.submitit(template, job_id)
    wanted = JobPaths(template, job_id).result_pickle
    put_result(make.folder.parent.parent / wanted.relative_to("/a"), "success", 5)
    assert read_job(str(folder), never) == ("success", 5)


def test_path_as_it_is(make, tmp_path):
    folder = make.submitit(f"{tmp_path}/elsewhere/%j")
    put_result(tmp_path / "elsewhere/7/7_0_result.pkl", "success", 1)
    put_result(make.folder.parent / "elsewhere/7/7_0_result.pkl", "success", 2)
    assert read_job(str(folder), never) == ("success", 1)
    shutil.rmtree(tmp_path / "elsewhere")
    assert read_job(str(folder), never) == ("success", 2)


def test_longest_end_of_the_path_wins(make):
    folder = make.submitit("/gone/mod.Cls.run,0/logs/%j")
    method = make.folder.parent
    put_result(method / "7/7_0_result.pkl", "success", "short")
    assert read_job(str(folder), never) == ("success", "short")
    put_result(method.parent / "logs/7/7_0_result.pkl", "success", "root")
    assert read_job(str(folder), never) == ("success", "root")
    put_result(method / "logs/7/7_0_result.pkl", "success", "full")
    assert read_job(str(folder), never) == ("success", "full")


def test_renamed_method_folder(cache):
    method = (cache / "lab.Train.run,1").rename(cache / "laboratory.Train.run,1")
    assert read_job(str(method / "seed=1-25b71244"), never) == ("success", {"loss": 1.001})


def test_file_name_alone_is_not_enough(make):
    folder = make.submitit("/gone/logs/%j")
    put_result(make.folder.parent / "7_0_result.pkl", "success", 1)
    assert read_job(str(folder), never) is None


@pytest.mark.parametrize(
    ("template", "job_id"), [("/a/../logs/%j", "7"), ("/a/logs/%j", ".."), ("/a/logs/%j", "x/../../7"), ("/a/logs/%j", "a\0")]
)
def test_paths_that_go_up_are_refused(make, template, job_id):
    put_result(make.folder.parent / "logs/7/7_0_result.pkl", "success", 1)
    put_result(make.folder.parent / "logs/.._0_result.pkl", "success", 1)
    job = SlurmJob("/a", "1")
    job._paths._folder = Path(template)
    job._paths.job_id = job_id
    make.raw(pickle.dumps(job))
    with pytest.warns(CorruptEntryWarning, match="is refused"):
        assert read_job(str(make.folder), never) is None


def test_links_out_of_the_root_are_not_followed(make, tmp_path):
    put_result(tmp_path / "outside/7/7_0_result.pkl", "success", 1)
    (make.folder.parent / "logs").symlink_to(tmp_path / "outside")
    folder = make.submitit("/gone/mod.Cls.run,0/logs/%j")
    assert read_job(str(folder), never) is None


@pytest.mark.parametrize("change", [{"_folder": 3}, {"_folder": decimal.Decimal(1)}, {"job_id": None}, {"task_id": "0"}])
def test_jobs_that_do_not_say_where(make, change):
    job = SlurmJob("/a", "1")
    job._paths.__dict__.update(change)
    make.raw(pickle.dumps(job))
    with pytest.warns(CorruptEntryWarning, match="does not tell where"):
        assert read_job(str(make.folder), never) is None


def test_safe_builtins():
    """What must never be on the list of plain data, whatever is added to it."""
    from exca_like.compat import exca_jobs

    harmless = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range"}
    harmless |= {"set", "slice", "str", "tuple", "Ellipsis", "NotImplemented"}
    harmless |= {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {path.removeprefix("builtins.") for path in exca_jobs._SAFE if path.startswith("builtins.")} == harmless
    others = {path.rpartition(".")[0] for path in exca_jobs._SAFE} - {"builtins"}
    modules = {"collections", "datetime", "decimal", "fractions", "pathlib", "uuid", "_codecs"}
    assert others == modules | {"numpy", "numpy._core.multiarray", "numpy._core.numeric"}


# the real exca

LAB = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
import pydantic
from exca import TaskInfra

class TwoArgumentsError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a}-{b}")

class Task(pydantic.BaseModel):
    what: str = "none"
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def run(self) -> Any:
        if self.what == "error":
            raise ValueError("bad value")
        if self.what == "own-error":
            raise TwoArgumentsError(1, 2)
        if self.what == "array":
            return {"a": np.arange(3.0), "p": Path("/a")}
        if self.what == "class":
            return Task

if __name__ == "__main__":
    import fresh
    for cluster, names in ((None, ("none", "error", "own-error", "array", "class")), ("local", ("error", "array"))):
        for what in names:
            task = fresh.Task(what=what, infra={"folder": f"{sys.argv[1]}/{cluster}", "cluster": cluster})
            try:
                task.run()
            except Exception:
                pass
            print(cluster, what, task.infra.uid_folder(), sep="|")
"""


def test_fresh_folders(tmp_path):
    pytest.importorskip("exca", reason="the real exca is not installed")
    (tmp_path / "fresh.py").write_text(LAB)
    command = [sys.executable, "fresh.py", str(tmp_path / "cache")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL)
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    (tmp_path / "cache").rename(tmp_path / "moved")
    folders = {(cluster, what): path.replace("/cache/", "/moved/") for cluster, what, path in lines}
    assert len(folders) == 7
    assert read_job(folders["None", "none"], never) == ("success", None)
    for cluster in ("None", "local"):
        kind, value = read_job(folders[cluster, "array"], never)
        assert kind == "success"
        assert same(value["a"], np.arange(3.0))
        assert value["p"] == Path("/a")
    kind, error = read_job(folders["None", "error"], never)
    assert (kind, type(error), error.args) == ("error", ValueError, ("bad value",))
    assert 'raise ValueError("bad value")' in error.__notes__[0]
    kind, trace = read_job(folders["local", "error"], never)
    assert kind == "error"
    assert trace.endswith("ValueError: bad value\n")
    kind, trace = read_job(folders["None", "own-error"], refuse)
    assert kind == "error"
    assert trace.endswith("TwoArgumentsError: 1-2\n")
    with pytest.raises(ResultLoadError, match=r"needs fresh\.Task"):
        read_job(folders["None", "class"], refuse)
