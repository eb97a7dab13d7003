"""Which handler stores a value, and which one loads an entry.

Handlers of optional libraries are imported when a value of the library turns up, or an entry that needs it. Handlers of
other packages are found by their entry point in the group ``exca_like.handlers``, whose name is the handler's name.
"""

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

from exca_like.errors import ConfigTypeError, ConfigValueError, ResultLoadError

_HERE = "exca_like.cachedict.handlers"
_GROUP = "exca_like.handlers"

# names of handlers, by the module of this package that has them
_OWN_NAMES = {
    "containers": ("Auto", "AutoPickle", "Json"),
    "pickles": ("Pickle",),
    "texts": ("String",),
    "arrays": ("MemmapArray", "MemmapArrayFile", "NumpyArray", "NumpyMemmapArray", "NumpyScalar", "ObjectArray", "ArrayParts"),
    "contiguous": ("ContiguousMemmapArray",),
    "frames": (
        "PandasDataFrame",
        "ParquetPandasDataFrame",
        "DataFrameParts",
        "PandasSeries",
        "PandasIndex",
        "PandasArray",
        "PandasScalar",
    ),
    "tensors": ("TorchTensor",),
    "imaging": ("NibabelNifti",),
    "recordings": ("MneRawFif", "MneRawBrainVision"),
}
_MODULE_OF = {name: module for module, names in _OWN_NAMES.items() for name in names}
# modules that have handlers for values of a library
_LIBRARIES = {
    "numpy": ("arrays",),
    "exca_like": ("contiguous",),
    "pandas": ("frames",),
    "torch": ("tensors",),
    "nibabel": ("imaging",),
    "mne": ("recordings",),
}

HANDLERS: dict[str, Any] = {}
TYPE_DEFAULTS: dict[type, Any] = {}
_names: dict[Any, str] = {}  # of handlers that are known under another name than their class's
BY_VALUE: set[Any] = set()  # handlers whose instances are the values, which store themselves
_resolved: dict[type, Any] = {}
LOADERS: dict[str, tuple[Callable[..., Any], bool]] = {}
SMALL: dict[str, Callable[[Any], Any]] = {}  # what loads small values, of which the line has all in a member "inline"
DUMPERS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {}
_loaded: set[str] = set()


def register(handler: Any, default_for: type | None) -> None:
    """Make a handler known by its class's name, and let it store values of a type.

    Raises
    ------
    ValueError
        There is another handler of this name, or the class is no handler.
    """
    name = handler.__name__
    known = HANDLERS.get(name, handler)
    if name in _MODULE_OF or (known.__module__, known.__qualname__) != (handler.__module__, handler.__qualname__):
        msg = f"there is a handler named {name!r} already: give the class another name"
        raise ConfigValueError(msg)
    for method in ("__dump_info__", "__load_from_info__"):
        if not callable(getattr(handler, method, None)):
            msg = f"{handler.__qualname__} is no handler: it has no method {method}"
            raise ConfigValueError(msg)
    if not isinstance(inspect.getattr_static(handler, "__load_from_info__"), classmethod | staticmethod):
        msg = f"{handler.__qualname__}.__load_from_info__ must be a classmethod: there is no instance before it is loaded"
        raise ConfigValueError(msg)
    if not (default_for is None or isinstance(default_for, type)):
        msg = f"default_for={default_for!r} must be a type, whose values {name} is to store"
        raise ConfigTypeError(msg)
    _add(name, handler)
    if default_for is not None:
        TYPE_DEFAULTS[default_for] = handler


def _add(name: str, handler: Any) -> None:
    HANDLERS[name] = handler
    _names[handler] = name
    if not isinstance(inspect.getattr_static(handler, "__dump_info__"), classmethod | staticmethod):
        BY_VALUE.add(handler)
        TYPE_DEFAULTS[handler] = handler
    _resolved.clear()
    DUMPERS.clear()
    LOADERS.clear()


def handler_named(name: str) -> Any:
    """The handler of a name.

    Raises
    ------
    ValueError
        There is none.
    """
    handler = HANDLERS.get(name)
    if handler is None:
        if name in _MODULE_OF:
            _load_module(_MODULE_OF[name])
        else:
            _load_plugins(name)
        handler = HANDLERS.get(name)
    if handler is None:
        known = ", ".join(sorted({*_MODULE_OF, *HANDLERS}))
        msg = f"there is no handler {name!r}. Known are: {known}; others must be imported, or registered, first."
        raise ConfigValueError(msg)
    return handler


def handler_of_type(value_type: type) -> Any:
    """The handler for values of a type; None if it has none of its own."""
    try:
        return _resolved[value_type]
    except KeyError:
        pass
    for base in value_type.__mro__:
        for module in _LIBRARIES.get(base.__module__.partition(".")[0], ()):
            _load_module(module)
    found = next((TYPE_DEFAULTS[base] for base in value_type.__mro__ if base in TYPE_DEFAULTS), None)
    _resolved[value_type] = found
    return found


def dumper_of(handler: Any) -> tuple[str, Callable[[Any, Any], Any]]:
    """The name of a handler, and the function that stores a value: of a context and the value."""
    name: str = _names.get(handler) or handler.__name__
    if name in _MODULE_OF:  # of this package: it keeps to its contract
        return name, handler.__dump_info__

    def dump(ctx: Any, value: Any) -> Any:
        if handler not in BY_VALUE:
            info = handler.__dump_info__(ctx, value)
        elif isinstance(value, handler):
            info = value.__dump_info__(ctx)
        else:
            msg = f"the handler {name} stores its own instances, not {describe_type(value)}"
            raise ConfigTypeError(msg)
        if type(info) is not dict:
            msg = f"the handler {name} must return a dictionary from __dump_info__, not {info!r:.100}"
            raise ConfigTypeError(msg)
        if "#key" in info:
            msg = f"the handler {name} returned a '#key' for {ctx.key!r}: names that begin with # are not for handlers"
            raise ConfigTypeError(msg)
        return info

    return name, dump


def dumper_for(value_type: type) -> tuple[str, Callable[[Any, Any], Any]]:
    """The `dumper_of` the handler for values of a type; it is in ``DUMPERS`` from then on."""
    found = DUMPERS[value_type] = dumper_of(handler_of_type(value_type) or handler_named("Auto"))
    return found


def _load_module(name: str) -> None:
    if name in _loaded:
        return
    module = importlib.import_module(f"{_HERE}.{name}")
    HANDLERS.update(module.HANDLERS)
    SMALL.update(getattr(module, "SMALL", {}))
    for value_type, handler in module.TYPE_DEFAULTS.items():
        TYPE_DEFAULTS.setdefault(value_type, handler)
    _loaded.add(name)
    _resolved.clear()
    DUMPERS.clear()
    LOADERS.clear()


def _load_plugins(name: str) -> None:
    for found in importlib.metadata.entry_points(group=_GROUP, name=name):
        _add(name, found.load())


def loader_of(name: str) -> tuple[Callable[..., Any], bool]:
    """The function that loads an entry of a handler, and whether it checks the data itself; in ``LOADERS`` from then on.

    Raises
    ------
    ResultLoadError
        There is no such handler here, or its library is not installed.
    """
    try:
        handler = handler_named(name)
    except ImportError as error:
        msg = f"an entry of type {name} needs {error.name}, which is not installed here: install it and read again"
        raise ResultLoadError(msg) from error
    except ConfigValueError as error:
        msg = f"an entry can't be loaded: {error}"
        raise ResultLoadError(msg) from error
    loader = LOADERS[name] = (handler.__load_from_info__, hasattr(handler, "checks_itself"))
    return loader


def describe_type(value: Any) -> str:
    """A value's type, for messages."""
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")
