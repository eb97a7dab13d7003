"""Task results that exca left: ``job.pkl``, and the result files of submitit that it leads to.

Neither exca nor submitit needs to be installed, and nothing in a pickle is run unasked. Each file is gone through
twice: first with stand-ins in place of everything that it names, which tells what it needs and runs nothing; then,
if all of that is on the list of plain data below, or the caller permits it, for its value.
"""

import builtins
import functools
import importlib
import io
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exca_like import user_warnings
from exca_like.errors import CorruptEntryWarning, ResultLoadError

JOB_FILE = "job.pkl"

# how older versions of python and numpy spell modules and names
_MODULES = {
    "__builtin__": "builtins",
    "exceptions": "builtins",
    "pathlib._local": "pathlib",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}
_NAMES = {"builtins.long": "builtins.int", "builtins.unicode": "builtins.str", "builtins.xrange": "builtins.range"}

# what can do nothing but hold data; exceptions of builtins are added below
_PLAIN_DATA = {
    "builtins": (
        "Ellipsis NotImplemented bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"
    ),
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "pathlib": "PosixPath PurePosixPath PureWindowsPath WindowsPath",
    "uuid": "SafeUUID UUID",
    "_codecs": "encode",
}
_EXCEPTIONS = (name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception))
_SAFE = frozenset(
    f"{module}.{name}"
    for module, names in (*_PLAIN_DATA.items(), ("builtins", " ".join(_EXCEPTIONS)))
    for name in names.split()
)

_DTYPE_CODE = re.compile(r"[biufcmMSUVO][0-9]+")

# opcodes of pickle, and how the length of an argument is given: as pickletools numbers it, in so many bytes
_STOP, _GLOBAL, _PUT, _LONG_BINPUT = b".cpr"
_REFUSED_OPCODES = ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER")
_PREFIX_BYTES = {-2: 1, -3: 4, -4: 4, -5: 8}
_MEMO_INDEX = -100

_reported: set[str] = set()


class _DamagedError(Exception):
    """A file is not what exca or submitit writes."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem


def read_job(uid_folder: str, allow: Callable[[str], bool]) -> tuple[str, Any] | None:
    """What the task of a cache folder of exca left.

    Parameters
    ----------
    uid_folder:
        Folder ``<cache root>/<module>.<Class>.<method>,<version>/<uid>``. The cache may have been moved since: the
        files of its jobs are looked for where they were, then below the cache root.
    allow:
        Called with the path of a file that needs something else than plain data (numbers, strings, containers,
        dates, paths, exceptions of python, arrays); tells if its classes may be imported and its functions called.

    Returns
    -------
    tuple or None
        ``("success", value)``, or ``("error", what)`` with the exception, or only the text of its traceback where
        that is all there is or all that may be loaded. None if there is no job, no result yet, or if a file is
        unreadable or damaged (a `CorruptEntryWarning` says so once for each file).

    Raises
    ------
    ResultLoadError
        The result is there, but needs what ``allow`` refuses, or what can't be imported in this process.
    """
    folder = os.path.abspath(uid_folder)
    try:
        job = _examine(os.path.join(folder, JOB_FILE))
        if job is None:
            return None
        if job.kind.startswith("exca."):
            return _outcome(job, allow, _result_of_job)
        if not job.kind.startswith("submitit."):
            raise _DamagedError(job.path, "it holds no job of exca")
        path = _result_file(job, folder)
        result = None if path is None else _examine(path)
        return None if result is None else _outcome(result, allow, _identity)
    except _DamagedError as error:
        _report(error)
        return None


def _report(error: _DamagedError) -> None:
    if error.path not in _reported:
        _reported.add(error.path)
        msg = f"ignoring {error.path}: {error.problem}. Its result will be computed again when asked for."
        user_warnings.warn(msg, CorruptEntryWarning)


# first pass: what is in a file


class _MisuseError(pickle.UnpicklingError):
    """The pickle does what no program writes."""


def _refuse_state(state: Any) -> None:
    msg = f"changes a class or a function: {state!r:.80}"
    raise _MisuseError(msg)


def _ignore(*_: Any) -> None:
    """Do nothing."""


class _Named(type):
    """Stand-ins for classes and functions.

    ``made`` are those that others have made, ``maker`` those that make such: where classes are pickled by value, a
    function makes a class, of which objects are made.
    """

    path: str
    made: bool
    maker: bool

    # a property, since a method of the class itself would come before a method of its metaclass
    @property
    def __setstate__(cls) -> Callable[[Any], None]:  # noqa: PLE0302 - a property
        return _ignore if cls.made else _refuse_state

    __setitem__ = _ignore


class _Object(metaclass=_Named):
    """Stands for what a class or a function made; keeps the arguments and the state, and does nothing."""

    __slots__ = ("args", "state")
    path, made, maker = "", False, False
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_: Any) -> Any:
        if cls.maker:
            return _stand_in(f"{cls.path}()", made=True, maker=True)
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __call__(self, *args: Any, **_: Any) -> "_Object":
        called: _Object = _Object(*args)
        return called

    def __setstate__(self, state: Any) -> None:
        if self.state is not None:
            msg = f"changes the state of {self.path} twice"
            raise _MisuseError(msg)
        self.state = state

    # pickle fills containers through these
    append = extend = add = __setitem__ = _ignore


class _Dtype(_Object):
    """Stands for a dtype of numpy: all of them are kept, to be checked."""

    __slots__ = ()
    known: list[_Object]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        dtype = super().__new__(cls, *args, **kwargs)
        cls.known.append(dtype)
        return dtype


def _stand_in(path: str, base: type[_Object] = _Object, **attributes: Any) -> type[_Object]:
    return _Named("StandIn", (base,), {"__slots__": (), "path": path, **attributes})  # type: ignore[return-value]


class _Examiner(pickle.Unpickler):
    """Puts stand-ins in place of all that a pickle names."""

    def __init__(self, data: bytes, makers: bool) -> None:
        super().__init__(io.BytesIO(data))
        self.makers = makers
        self.names: dict[str, type[_Object]] = {}
        self.dtypes: list[_Object] = []

    def find_class(self, module: str, name: str) -> Any:
        path = _spelled(module, name)
        if path not in self.names:
            foreign = path not in _SAFE and not path.startswith(("exca.", "submitit."))
            if path == "numpy.dtype":
                self.names[path] = _stand_in(path, _Dtype, known=self.dtypes)
            else:
                self.names[path] = _stand_in(path, maker=self.makers and foreign)
        return self.names[path]


@dataclass(frozen=True)
class _File:
    """A pickle file and what its first pass found; ``outline`` is its value, with stand-ins."""

    path: str
    data: bytes
    outline: Any
    names: frozenset[str]
    unsafe: frozenset[str]

    @property
    def kind(self) -> str:
        """Class of the object that the file holds."""
        return type(self.outline).path if isinstance(self.outline, _Object) else ""


def _examine(path: str) -> _File | None:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _DamagedError(path, f"it can't be read ({error.strerror or error})") from error
    _check_opcodes(path, data)
    try:
        examiner = _Examiner(data, makers=False)
        outline = examiner.load()
    except MemoryError:
        raise
    except Exception:  # a damaged pickle can raise anything; so can one whose stand-ins should make classes
        try:
            examiner = _Examiner(data, makers=True)
            outline = examiner.load()
        except Exception as error:
            raise _DamagedError(path, f"it is damaged ({type(error).__name__}: {error})") from error
    unsafe = {name for name in examiner.names if name not in _SAFE}
    if not all(_is_plain_dtype(dtype) for dtype in examiner.dtypes):
        unsafe.add("numpy.dtype")
    return _File(path, data, outline, frozenset(examiner.names), frozenset(unsafe))


@functools.cache
def _argument_sizes() -> list[int | None]:
    """How many bytes follow each opcode: a number, a kind of pickletools (negative), or None if no job has this opcode."""
    import pickletools

    sizes: list[int | None] = [None] * 256
    for opcode in pickletools.opcodes:
        # other ways to name classes than through `find_class`, and data that is not in the file
        if opcode.name not in _REFUSED_OPCODES:
            sizes[ord(opcode.code)] = opcode.arg.n if opcode.arg else 0
    sizes[_LONG_BINPUT] = _MEMO_INDEX
    return sizes


def _check_opcodes(path: str, data: bytes) -> None:
    """Raise unless the file is one whole pickle.

    One changed bit can make the C unpickler fill a table of many GB, or ask for as much at once: what counts or numbers
    things is compared with the length of the file before.
    """
    sizes = _argument_sizes()
    position, end = 0, len(data)
    try:
        while (opcode := data[position]) != _STOP:
            position += 1
            size = sizes[opcode]
            if size is None:
                raise _DamagedError(path, f"it is damaged (unexpected opcode {opcode})")
            if size >= 0:
                position += size
            elif size in _PREFIX_BYTES:
                prefix = _PREFIX_BYTES[size]
                position += prefix + int.from_bytes(data[position : position + prefix], "little")
            elif size == _MEMO_INDEX:
                if int.from_bytes(data[position : position + 4], "little") > end:
                    raise _DamagedError(path, "it is damaged (a number is too high)")
                position += 4
            else:  # lines of text
                start = position
                for _ in range(2 if opcode == _GLOBAL else 1):
                    position = data.index(b"\n", position) + 1
                if opcode == _PUT and not 0 <= int(data[start:position]) <= end:
                    raise _DamagedError(path, "it is damaged (a number is too high)")
    except (IndexError, ValueError) as error:
        raise _DamagedError(path, "it is cut short") from error
    if position + 1 != end:
        raise _DamagedError(path, "there is something behind its end")


def _spelled(module: str, name: str) -> str:
    path = f"{_MODULES.get(module, module)}.{name}"
    return _NAMES.get(path, path)


def _is_plain_dtype(dtype: _Object) -> bool:
    """Tell if the state of a dtype is the one that numpy gives it.

    With another one, numpy would take the bytes of an array for addresses of objects, or read past their end.
    """
    import numpy as np

    usual: Any
    match dtype.args:
        case (str(code), int(align), int(copy)) if _DTYPE_CODE.fullmatch(code) and not align and copy:
            pass
        case _:  # not a copy: its state would become the one of all arrays of this type
            return False
    if dtype.state is None:
        return True
    try:
        usual = np.dtype(code).__reduce__()[2]
    except TypeError:  # a type that this platform lacks
        return False
    if not isinstance(dtype.state, tuple) or len(dtype.state) not in (8, 9):
        return False
    version, order, subtype, names, fields, *sizes = dtype.state[:8]
    match dtype.state[8:]:
        case ():
            rest_is_plain = code[0] not in "mM"
        # the unit of times; protocol 2 makes bytes by a function
        case ((None | {}, (bytes() | _Object(path="_codecs.encode"), int(), int(), int())) as rest,):
            rest_is_plain = code[0] in "mM" and not rest[0]
        case _:
            return False
    unstructured = subtype is None and names is None and fields is None
    known = version in (3, 4) and order in ("<", ">", "|", "=")
    return rest_is_plain and unstructured and known and tuple(sizes) == tuple(usual[5:8])


# second pass: its value


class _Loader(pickle.Unpickler):
    """Loads plain data; other classes only if they are permitted."""

    def __init__(self, file: _File) -> None:
        super().__init__(io.BytesIO(file.data))
        self._job = file.kind

    def find_class(self, module: str, name: str) -> Any:
        path = _spelled(module, name)
        if path == self._job:
            return _stand_in(path)
        return _plain_data(path) if path in _SAFE else super().find_class(module, name)


@functools.cache
def _plain_data(path: str) -> Any:
    if path == "_codecs.encode":
        return _latin_bytes
    if path == "numpy.dtype":
        return _dtype
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:  # numpy 1
        return getattr(importlib.import_module(module.replace("numpy._core", "numpy.core")), name)


def _latin_bytes(text: str, encoding: str) -> bytes:
    """Bytes, as protocol 2 stores them; other codecs can be anything that is registered."""
    if encoding not in ("latin1", "latin-1"):
        msg = f"unexpected encoding {encoding!r}"
        raise pickle.UnpicklingError(msg)
    return text.encode("latin-1")


def _dtype(code: Any, align: Any = False, copy: Any = False) -> Any:
    """A dtype of numpy, which warns about the integers that older releases of it have pickled."""
    import numpy as np

    return np.dtype(code, align=bool(align), copy=bool(copy))


def _identity(loaded: Any) -> Any:
    return loaded


def _result_of_job(job: Any) -> Any:
    """Result in a job of exca that ran in its own process."""
    return job.state.get("_result") if isinstance(job.state, dict) else None


def _outcome(file: _File, allow: Callable[[str], bool], result_of: Callable[[Any], Any]) -> tuple[str, Any]:
    match result_of(file.outline):
        case ("success", outline):
            # nothing was named but the job: the stand-ins stand for nothing
            plain = file.names <= {file.kind}
            return "success", outline if plain else result_of(_load(file, allow))[1]
        case ("error" | "failure", str(text)):
            return "error", text
        case ("error" | "failure", (_, str(text))):
            return "error", _exception(file, allow, result_of, text)
    raise _DamagedError(file.path, "it holds no result")


def _exception(file: _File, allow: Callable[[str], bool], result_of: Callable[[Any], Any], text: str) -> Any:
    """The exception with its traceback as a note, or only the traceback."""
    try:
        error, _ = result_of(_load(file, allow))[1]
        error.add_note(f"\nTraceback of the computation:\n{text}")
    except Exception:  # refused, or its class is gone, or can't be made from what was pickled, or is no exception
        return text
    return error if isinstance(error, Exception) else text


def _load(file: _File, allow: Callable[[str], bool]) -> Any:
    unsafe = sorted(file.unsafe - {file.kind})
    if unsafe and not allow(file.path):
        msg = (
            f"the result in {file.path} needs {', '.join(unsafe)}: it is a pickle that exca wrote, and such ones can run any "
            "code when they are loaded. If you trust it, use allow_pickle='always'; or compute it again, with mode='force'."
        )
        raise ResultLoadError(msg)
    try:
        return _Loader(file).load()
    except MemoryError:
        raise
    except Exception as error:  # unpickling can raise anything
        if not unsafe:
            raise _DamagedError(file.path, f"it is damaged ({type(error).__name__}: {error})") from error
        msg = (
            f"the result in {file.path} can't be loaded here: {type(error).__name__}: {error}. Make what it needs "
            f"({', '.join(unsafe)}) importable in this process; or compute it again, with mode='force'."
        )
        raise ResultLoadError(msg) from error


# where submitit put the result


def _result_file(job: _File, folder: str) -> str | None:
    """Path of the result of a job of submitit, if it is there."""
    paths = job.outline.state.get("_paths") if isinstance(job.outline.state, dict) else None
    state = paths.state if isinstance(paths, _Object) else None
    match state:
        case {"_folder": template, "job_id": str(job_id), "task_id": int(task_id)}:
            pass
        case _:
            raise _DamagedError(job.path, "it does not tell where the result is")
    given: Any = template.args if isinstance(template, _Object) and template.path.startswith("pathlib.") else (template,)
    parts: list[str] = [part for part in given if isinstance(part, str)]
    if len(parts) != len(given):
        raise _DamagedError(job.path, "it does not tell where the result is")
    path = _formatted(os.path.join(*parts, "%j_%t_result.pkl"), job_id, task_id)
    if "\0" in path or ".." in path.split("/"):
        raise _DamagedError(job.path, f"the path of its result, {path!r}, is refused")
    if path.startswith("/") and os.path.isfile(path):
        return os.path.normpath(path)
    return _below(os.path.dirname(os.path.dirname(folder)), os.path.dirname(folder), path)


def _formatted(template: str, job_id: str, task_id: int) -> str:
    """Path in which submitit's marks are replaced: of the job, the task, the array and the index in it."""
    array, _, index = job_id.partition("_")
    for mark, value in (("%j", job_id), ("%t", str(task_id)), ("%a", index), ("%A", array)):
        template = template.replace(mark, value)
    return template


def _below(root: str, method_folder: str, path: str) -> str | None:
    """The longest end of a path, a folder and a file at least, that leads to a file below the cache root.

    It starts from the root, or from the method's folder, which may have another name by now.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    real_root = os.path.realpath(root)
    for start in range(len(parts) - 1):
        for base in (root, method_folder):
            candidate = os.path.join(base, *parts[start:])
            if os.path.isfile(candidate) and os.path.commonpath((os.path.realpath(candidate), real_root)) == real_root:
                return candidate
    return None
