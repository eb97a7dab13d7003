"""Keys of values by their content: equal exactly for values of the same types with the same content, in every process.

Unlike the uid of a config, which takes ``1`` and ``1.0`` for one number, a content key tells apart whatever a function could:
``1``, ``1.0`` and ``True``, ``0.0`` and ``-0.0``, lists and tuples, dictionaries in another order. Each part is written with
a type tag and, where it is free, a length. Nothing is taken from a ``repr``, from an address, or from a part of an array.
"""

import collections
import copyreg
import dataclasses
import enum
import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, TypeVar

from exca_like import files
from exca_like.errors import ContentKeyError
from exca_like.names import qualified_name

T = TypeVar("T")
Parts = list[Any]  # of bytes, or of what has their buffer

DIGEST_SIZE = 16  # bytes
_LARGE = 1 << 16  # bytes; larger arrays are remembered
_REMEMBERED = 1 << 28  # bytes of copies that are kept of arrays
_REDUCE_PROTOCOL = 4
_DEEPEST = 200  # of values in values
_DEEPEST_SHOWN = 8

_keys: dict[type, Callable[[Any], Any]] = {}


class _NoKeyError(Exception):
    """A value has no key; collects the way to it while the stack unwinds."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__()
        self.value = value
        self.reason = reason
        self.path: list[str] = []


def register(cls: type[T], key: Callable[[T], Any] | None = None) -> Any:
    """Say what the values of a class (and of its subclasses) are recognized by; also usable as a decorator of a function.

    Parameters
    ----------
    cls:
        The class.
    key:
        Takes a value, and returns one with a content key that tells it from others: a tuple of its settings, for instance.

    Examples
    --------
    >>> class Model:
    ...     def __init__(self, path: str) -> None:
    ...         self.path, self.lock = path, threading.Lock()
    >>> register(Model, lambda model: model.path)
    >>> digest(Model("a")) == digest(Model("a")) != digest(Model("b"))
    True
    """
    if key is None:
        return functools.partial(register, cls)
    _keys[cls] = key
    return key


def has_key(value: Any) -> bool:
    """Whether the class of a value was registered, or one that it derives from."""
    return any(base in _keys for base in type(value).__mro__)


def digest(value: Any) -> bytes:
    """16 bytes that stand for a value.

    Supported are None, numbers, texts, bytes, dates, paths (by their text), enums, containers of them; numpy arrays (by type,
    shape and content, in whatever order they lie in memory), torch tensors, pandas objects; dataclasses and pydantic models;
    classes and functions (by the name they can be imported by); objects of classes that were registered, and of those that
    can be pickled, by the state that a pickle would hold.

    Raises
    ------
    TypeError
        The value, or one inside, has no content that could be told from others.
    """
    parts: Parts = []
    try:
        _feed(value, parts, 0)
    except _NoKeyError as error:
        raise _refusal(error) from None
    return digest_of_parts(parts)


def digest_of_parts(parts: Iterable[Any]) -> bytes:
    """16 bytes that stand for bytes, one after the other."""
    found = blake2b(digest_size=DIGEST_SIZE)
    for part in parts:
        found.update(part)
    return found.digest()


def feed(name: str, value: Any, parts: Parts) -> None:
    """Add a named value to the parts of a digest; see `digest` for errors."""
    _feed_text(name, parts)
    try:
        _feed(value, parts, 0)
    except _NoKeyError as error:
        error.path.append(name)
        raise _refusal(error) from None


def _refusal(error: _NoKeyError) -> ContentKeyError:
    where = "".join(list(reversed(error.path))[:_DEEPEST_SHOWN]).lstrip(".")
    return ContentKeyError(
        f"{where}{': ' if where else ''}{error.reason}. Pass what it is made from instead, say what it is recognized by "
        "with exca_like.content.register, or leave it out of the key with exclude=(...)."
    )


def _feed(value: Any, parts: Parts, depth: int) -> None:
    kind = type(value)
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        scalar(value, parts)
        return
    if depth > _DEEPEST:
        raise _NoKeyError(None, "it contains itself, or values are nested more than 200 deep")
    for base in kind.__mro__ if _keys else ():
        if base in _keys:
            _tag(f"registered {qualified_name(kind)}", parts)
            _feed(_keys[base](value), parts, depth + 1)
            return
    container = _CONTAINERS.get(kind)
    if container is not None:
        container(value, parts, depth)
    elif isinstance(value, type):
        _tag("class", parts)
        _feed_text(_importable_name(value), parts)
    elif isinstance(value, enum.Enum):
        _tag(f"enum {qualified_name(kind)}", parts)
        _feed_text(str(value.name), parts)
        if isinstance(value, enum.Flag):  # some have no name
            _feed(value.value, parts, depth)
    elif isinstance(value, PurePath):
        _tag("path", parts)
        _feed_text(str(value), parts)
    elif inspect.isroutine(value):
        _feed_function(value, parts, depth)
    elif isinstance(value, types.ModuleType):
        _tag("module", parts)
        _feed_text(value.__name__, parts)
    elif dataclasses.is_dataclass(value) and _has_fields_only(value):
        _tag(f"dataclass {qualified_name(kind)}", parts)
        for field in dataclasses.fields(value):
            _feed_text(field.name, parts)
            _at(f".{field.name}", getattr(value, field.name), parts, depth)
    elif not _feed_foreign(value, parts, depth):
        _feed_state(value, parts, depth)


def _has_fields_only(value: Any) -> bool:
    """Whether all that a dataclass object holds is in its fields, but for what it remembers of them."""
    kind = type(value)
    if not all(
        base is object or dataclasses.is_dataclass(base) or base.__module__ in ("abc", "typing") for base in kind.__mro__
    ):
        return False
    names = {field.name for field in dataclasses.fields(value)}
    return all(name in names or _is_remembered(kind, name) for name in getattr(value, "__dict__", ()))


def _is_remembered(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)


def _at(step: str, value: Any, parts: Parts, depth: int) -> None:
    try:
        _feed(value, parts, depth + 1)
    except _NoKeyError as error:
        error.path.append(step)
        raise


def _tag(text: str, parts: Parts) -> None:
    data = text.encode("utf-8", "surrogatepass")
    parts.append(b"<%d:%b>" % (len(data), data))


def _feed_text(value: str, parts: Parts) -> None:
    data = value.encode("utf-8", "surrogatepass")
    parts.append(b"s%d:%b" % (len(data), data))


def _float_text(value: float) -> bytes:
    return b"nan" if math.isnan(value) else value.hex().encode()


_SCALARS: dict[type, Callable[[Any, Parts], None]] = {
    str: _feed_text,
    int: lambda value, parts: parts.append(b"i%x;" % value),
    bool: lambda value, parts: parts.append(b"T" if value else b"F"),
    type(None): lambda _, parts: parts.append(b"N"),
    float: lambda value, parts: parts.append(b"f%b;" % _float_text(value)),
    complex: lambda value, parts: parts.append(b"c%b,%b;" % (_float_text(value.real), _float_text(value.imag))),
    bytes: lambda value, parts: parts.append(b"b%d:%b" % (len(value), value)),
    bytearray: lambda value, parts: parts.append(b"B%d:%b" % (len(value), bytes(value))),
    type(...): lambda _, parts: parts.append(b"<...>"),
    type(NotImplemented): lambda _, parts: parts.append(b"<NotImplemented>"),
}


def _feed_sequence(tag: bytes, value: Any, parts: Parts, depth: int) -> None:
    parts.append(b"%b%d:" % (tag, len(value)))
    for index, item in enumerate(value):
        _at(f"[{index}]", item, parts, depth)


def _feed_dict(tag: bytes, value: Any, parts: Parts, depth: int) -> None:
    parts.append(b"%b%d:" % (tag, len(value)))
    for key, item in value.items():
        _at("(a key)", key, parts, depth)
        _at(f"[{key!r:.50}]", item, parts, depth)


def _feed_set(tag: bytes, value: Any, parts: Parts, depth: int) -> None:
    members = []
    for item in value:
        member: Parts = []
        _at("{...}", item, member, depth)
        members.append(digest_of_parts(member))
    parts.append(b"%b%d:" % (tag, len(members)))
    parts += sorted(members)


_CONTAINERS: dict[type, Callable[[Any, Parts, int], None]] = {
    list: functools.partial(_feed_sequence, b"l"),
    tuple: functools.partial(_feed_sequence, b"t"),
    dict: functools.partial(_feed_dict, b"d"),
    set: functools.partial(_feed_set, b"S"),
    frozenset: functools.partial(_feed_set, b"Z"),
    collections.OrderedDict: functools.partial(_feed_dict, b"o"),
    slice: lambda value, parts, depth: _feed_sequence(b"<slice>", (value.start, value.stop, value.step), parts, depth),
    types.MappingProxyType: functools.partial(_feed_dict, b"<proxy>"),
    functools.partial: lambda value, parts, depth: _feed_sequence(
        b"<partial>", (value.func, value.args, value.keywords), parts, depth
    ),
}


def _importable_name(value: Any) -> str:
    name = str(getattr(value, "__qualname__", "") or getattr(value, "__name__", "?"))
    module = getattr(value, "__module__", None)
    if "<" in name or module is None:
        raise _NoKeyError(value, f"{name} (a lambda or a local definition) has no name to find it again by")
    if module in sys.modules and module not in ("__main__", "__mp_main__"):  # in notebooks, cells are run again
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = inspect.getattr_static(found, part, None)
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
        if found is not value and found is not None:
            raise _NoKeyError(value, f"{module}.{name} is the name of something else: it was wrapped, or defined again")
    return qualified_name(value)


def _feed_function(value: Any, parts: Parts, depth: int) -> None:
    owner = getattr(value, "__self__", None)
    if hasattr(value, "__objclass__"):  # a method of a type that is written in C
        owner = value.__objclass__
    if owner is None or isinstance(owner, types.ModuleType):
        _tag("function", parts)
        _feed_text(_importable_name(value), parts)
        return
    _tag("method" if hasattr(value, "__self__") else "descriptor", parts)
    function: Any = getattr(value, "__func__", value)
    _feed_text(function.__qualname__, parts)  # with the class that defines it
    _at(".__self__", owner, parts, depth)


def _feed_foreign(value: Any, parts: Parts, depth: int) -> bool:
    """Values of libraries, which are only looked at if they were imported; False for any other."""
    root = type(value).__module__.partition(".")[0]
    feeders = {"numpy": _feed_numpy, "pandas": _feed_pandas, "torch": _feed_torch}
    feeder = feeders.get(root)
    if feeder is None:
        for name, found in feeders.items():  # a subclass of somebody's own
            if any(base.__module__.partition(".")[0] == name for base in type(value).__mro__):
                feeder = found
    if feeder is not None and feeder(value, parts, depth):
        return True
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        _feed_model(value, parts, depth)
        return True
    return False


def _feed_model(value: Any, parts: Parts, depth: int) -> None:
    """A pydantic model, by its fields that count for its uid: which of them were set makes no difference."""
    from exca_like.models.plan import plan_of

    _tag(f"model {qualified_name(type(value))}", parts)
    fields = {field.name: value.__dict__[field.name] for field in plan_of(type(value)).kept(value)}
    for name, item in (fields | dict(value.__pydantic_extra__ or {})).items():
        _feed_text(name, parts)
        _at(f".{name}", item, parts, depth)


def _feed_numpy(value: Any, parts: Parts, depth: int) -> bool:
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.ma.MaskedArray):
        _tag("masked", parts)
        _feed_array(numpy.ma.getdata(value), parts, depth)
        _feed_array(numpy.ma.getmaskarray(value), parts, depth)
        _feed_array(numpy.asarray(value.fill_value), parts, depth)
    elif isinstance(value, numpy.ndarray):
        if type(value) not in (numpy.ndarray, numpy.memmap):
            _tag(f"array {qualified_name(type(value))}", parts)
            _at(".__dict__", dict(getattr(value, "__dict__", {})), parts, depth)
        _feed_array(numpy.asarray(value), parts, depth)
    elif isinstance(value, numpy.generic):
        _tag("scalar", parts)
        _feed_array(numpy.asarray(value), parts, depth)
    elif isinstance(value, numpy.dtype):
        if value.names is None and value.subdtype is None:
            _tag("dtype", parts)
            _feed_text(value.str, parts)
        else:
            _feed_state(value, parts, depth)
    elif isinstance(value, numpy.ufunc):
        name = str(value.__name__)
        if getattr(numpy, name, None) is not value:
            raise _NoKeyError(value, f"the ufunc {name} is none of numpy's own, and has no name to find it again by")
        _tag("ufunc", parts)
        _feed_text(name, parts)
    else:
        return False
    return True


def _feed_array(array: Any, parts: Parts, depth: int) -> None:
    numpy: Any = sys.modules["numpy"]
    dtype = array.dtype
    parts.append(b"a%b%b:" % (dtype.newbyteorder("<").str.encode(), str(array.shape).encode()))
    if dtype.names is not None:  # field by field: the padding between fields is arbitrary
        for name in dtype.names:
            _feed_text(name, parts)
            _feed_array(array[name], parts, depth)
    elif dtype.hasobject:
        for item in array.ravel():
            _at("[...]", item, parts, depth)
    else:
        if dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big"):
            array = array.astype(dtype.newbyteorder("<"))
        flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
        # a copy that was made just now is at another place each time
        parts.append(_digest_of_bytes(flat) if numpy.may_share_memory(flat, array) else _digest_once(flat))


def _feed_torch(value: Any, parts: Parts, depth: int) -> bool:
    torch: Any = sys.modules["torch"]
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            raise _NoKeyError(value, "a sparse or nested tensor has no canonical layout: use tensor.to_dense()")
        if value.is_quantized or value.is_meta:
            raise _NoKeyError(
                value, "a quantized tensor, or one without data, has no bytes of its own: use tensor.dequantize()"
            )
        kind = type(value)
        _tag("tensor" if kind is torch.Tensor else f"tensor {qualified_name(kind)}", parts)
        if kind is not torch.Tensor:
            _at(".__dict__", dict(value.__dict__), parts, depth)
        parts.append(f"{value.dtype}{tuple(value.shape)}:".encode())
        data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        parts.append(_digest_of_bytes(data.view(torch.uint8).numpy()))
    elif isinstance(value, torch.dtype | torch.device):
        _tag(f"torch {value}", parts)
    else:
        return False
    return True


def _feed_pandas(value: Any, parts: Parts, depth: int) -> bool:
    pandas: Any = sys.modules["pandas"]
    for name in getattr(type(value), "_metadata", ()):  # attributes of subclasses
        if name not in ("_name", "name"):
            _at(f".{name}", getattr(value, name, None), parts, depth)
    if value is pandas.NA or value is pandas.NaT:
        _tag(f"pandas {value}", parts)
    elif isinstance(value, pandas.DataFrame):
        _tag(f"frame {qualified_name(type(value))}{value.shape}", parts)
        _feed_pandas(value.columns, parts, depth)
        _feed_pandas(value.index, parts, depth)
        for number in range(value.shape[1]):
            _feed_column(value.iloc[:, number], parts, depth)
        _at(".attrs", value.attrs, parts, depth)
    elif isinstance(value, pandas.Series):
        _tag(f"series {qualified_name(type(value))}", parts)
        _at(".name", value.name, parts, depth)
        _feed_pandas(value.index, parts, depth)
        _feed_column(value, parts, depth)
        _at(".attrs", value.attrs, parts, depth)
    elif isinstance(value, pandas.MultiIndex):
        _tag("multiindex", parts)
        _at(".names", list(value.names), parts, depth)
        for level in range(value.nlevels):
            _feed_column(value.get_level_values(level), parts, depth)
    elif isinstance(value, pandas.RangeIndex):
        _tag("rangeindex", parts)
        _at("", (value.name, value.start, value.stop, value.step), parts, depth)
    elif isinstance(value, pandas.Index):
        _tag(f"index {type(value).__name__}", parts)
        _at(".name", value.name, parts, depth)
        _at(".freq", getattr(value, "freqstr", None), parts, depth)
        _feed_column(value, parts, depth)
    elif isinstance(value, pandas.api.extensions.ExtensionArray):
        _tag("extension", parts)
        _feed_column(pandas.Series(value), parts, depth)
    else:
        return False
    return True


def _feed_column(column: Any, parts: Parts, depth: int) -> None:
    numpy: Any = sys.modules["numpy"]
    dtype = column.dtype
    _tag(f"column {dtype}", parts)
    if isinstance(dtype, numpy.dtype):
        _feed_array(column.to_numpy(), parts, depth)
        return
    if hasattr(column.array, "asi8"):  # times with a zone, periods: what they are is part of the dtype
        _feed_array(column.array.asi8, parts, depth)
        return
    categories = getattr(dtype, "categories", None)
    if categories is not None and hasattr(dtype, "ordered"):
        _at("", bool(dtype.ordered), parts, depth)
        _feed_pandas(categories, parts, depth)
        _feed_array(numpy.asarray(column.cat.codes if hasattr(column, "cat") else column.codes), parts, depth)
        return
    _feed_array(column.to_numpy(dtype=object), parts, depth)


def _feed_state(value: Any, parts: Parts, depth: int) -> None:
    """Any other object, by its class and what a pickle would hold."""
    kind = type(value)
    if kind.__module__ == "builtins" and not hasattr(kind, "__reduce__"):
        raise _NoKeyError(value, f"a value of type {kind.__qualname__} has no content of its own")
    try:
        reducer = copyreg.dispatch_table.get(kind)
        reduced: Any = value.__reduce_ex__(_REDUCE_PROTOCOL) if reducer is None else reducer(value)
    except Exception as error:
        reason = f"a value of type {qualified_name(kind).removeprefix('builtins.')} can't be told from others ({error})"
        raise _NoKeyError(value, reason) from error
    if isinstance(reduced, str):  # the name of something that can be imported
        _tag("global", parts)
        _feed_text(f"{getattr(value, '__module__', None)}.{reduced}", parts)
        return
    _importable_name(kind)
    _tag(f"object {qualified_name(kind)}", parts)
    parts_of_it: list[Any] = [*reduced, None, None, None, None]
    make, arguments, state, items, pairs = parts_of_it[:5]
    if isinstance(value, set | frozenset):  # whose order changes from process to process
        arguments = tuple(frozenset(argument) if type(argument) is list else argument for argument in arguments)
    _at("", make, parts, depth)
    _at("", tuple(arguments), parts, depth)
    if isinstance(state, dict):
        _feed_dict(b"d", {name: part for name, part in state.items() if not _is_remembered(kind, str(name))}, parts, depth)
    else:
        _at("", state, parts, depth)
    _at("", None if items is None else list(items), parts, depth)
    _at("", None if pairs is None else dict(pairs), parts, depth)


# the content of large arrays: the same one comes again and again


class _Remembered:
    """Digests of large buffers, each found again by comparing it with a copy, whatever was done to it meanwhile."""

    def __init__(self) -> None:
        self._lock = files.ForkSafeLock()
        self._known: collections.OrderedDict[tuple[int, int], tuple[Any, bytes]] = collections.OrderedDict()
        self._size = 0

    def digest(self, data: Any) -> bytes:
        place = data.ctypes.data, data.nbytes  # only says where to look first
        numpy: Any = sys.modules["numpy"]
        known = self._known.get(place)
        if known is not None and numpy.array_equal(_words(data), _words(known[0])):
            with self._lock:
                if place in self._known:
                    self._known.move_to_end(place)
            return known[1]
        copy = data.copy()  # first, so that what is digested is what later ones are compared with
        found = blake2b(copy, digest_size=DIGEST_SIZE).digest()
        with self._lock:
            self._size += copy.nbytes - (self._known[place][0].nbytes if place in self._known else 0)
            self._known[place] = copy, found
            self._known.move_to_end(place)
            while self._size > _REMEMBERED:
                _, (oldest, _) = self._known.popitem(last=False)
                self._size -= oldest.nbytes
        return found


_remembered = _Remembered()


def _words(data: Any) -> Any:
    """Bytes as larger numbers, which are compared faster, if they can be."""
    return data.view("u8") if data.nbytes % 8 == 0 and data.ctypes.data % 8 == 0 else data


def _digest_of_bytes(data: Any) -> bytes:
    if _LARGE <= data.nbytes <= _REMEMBERED // 2:
        return _remembered.digest(data)
    return _digest_once(data)


def _digest_once(data: Any) -> bytes:
    return blake2b(data, digest_size=DIGEST_SIZE).digest()
