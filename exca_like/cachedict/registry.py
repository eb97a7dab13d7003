"""Which handler stores a value, and which one loads an entry.

Handlers of optional libraries are imported when a value of the library turns up, or an entry that needs it. Handlers of
other packages are found by their entry point in the group ``exca_like.handlers``, whose name is the handler's name.
"""

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
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
    "paths": ("Files",),
    "notebooks": ("Notebook",),
    "json_frames": ("PandasJson",),
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
_DELETING = {"Files"}  # handlers of this package that have a method `__delete_info__`
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
_WITH_OPTIONS: set[Any] = set()  # handlers whose instances store values of another type, as their options say
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
    if _has_options(handler):
        _WITH_OPTIONS.add(handler)
    elif _is_by_value(handler):
        BY_VALUE.add(handler)
        TYPE_DEFAULTS[handler] = handler
    _resolved.clear()
    DUMPERS.clear()
    LOADERS.clear()


def _is_by_value(handler: Any) -> bool:
    """Whether a handler's instances are the values."""
    method = inspect.getattr_static(handler, "__dump_info__")
    return not (isinstance(method, classmethod | staticmethod) or _has_options(handler))


def _has_options(handler: Any) -> bool:
    """Whether a handler's instances store values, as ``__dump_info__(self, ctx, value)``, and are none themselves."""
    method = inspect.getattr_static(handler, "__dump_info__")
    if isinstance(method, classmethod | staticmethod):
        return False
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # it is not written in Python
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(part.kind in kinds and part.default is part.empty for part in parameters) > 2


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


def deleter_named(name: str) -> Any:
    """The handler whose entries are deleted; None if it is not known here. Those that have something to do are imported."""
    return handler_named(name) if name in _DELETING else HANDLERS.get(name)


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


def dumper_of(handler: Any, instance: Any = None) -> tuple[str, Callable[[Any, Any], Any]]:
    """The name of a handler, and the function that stores a value: of a context and the value.

    ``instance`` is one of the handler with options; None: one with their defaults is made, if it has any.
    """
    name: str = _names.get(handler) or handler.__name__
    if handler in _WITH_OPTIONS and instance is None:
        instance = _with_defaults(handler, name)
    stores: Any = handler if instance is None else instance
    if name in _MODULE_OF:  # of this package: it keeps to its contract
        return name, stores.__dump_info__

    def dump(ctx: Any, value: Any) -> Any:
        if handler not in BY_VALUE:
            info = stores.__dump_info__(ctx, value)
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


def _with_defaults(handler: Any, name: str) -> Any:
    try:
        return handler()
    except TypeError as error:
        msg = f"the handler {name} has options without a default: give an instance, cache_type={name}(...) ({error})"
        raise ConfigTypeError(msg) from error


def dumper_chosen(choice: Any) -> tuple[str, Callable[[Any, Any], Any]]:
    """The `dumper_of` what is given as a ``cache_type``: a name, a handler, one with options, or several for a dictionary.

    Raises
    ------
    ValueError
        There is no handler of this name, or the class is none.
    TypeError
        It is something else.
    """
    if isinstance(choice, str):
        return dumper_of(handler_named(choice))
    if isinstance(choice, Mapping):
        made: tuple[str, Callable[[Any, Any], Any]] = importlib.import_module(f"{_HERE}.outputs").dumper_of_outputs(choice)
        return made
    handler = choice if isinstance(choice, type) else type(choice)
    if not hasattr(handler, "__dump_info__"):
        msg = (
            f"cache_type={choice!r:.100} must be the name of a handler, a handler, an instance of one with options, or a "
            "dictionary of them by the names of outputs"
        )
        raise ConfigTypeError(msg)
    name = _names.get(handler) or handler.__name__
    if handler is not choice and _is_by_value(handler):
        msg = f"cache_type={choice!r:.100} is a value, as its __dump_info__ takes no other: give the class {name} itself"
        raise ConfigTypeError(msg)
    if name in _MODULE_OF:
        handler_named(name)  # imports it
    if HANDLERS.get(name) is not handler:
        register(handler, None)
    return dumper_of(handler, choice if handler in _WITH_OPTIONS and handler is not choice else None)


def checked_choice(choice: Any) -> Any:
    """A ``cache_type`` as it is kept: no longer changed by who gave it, and picklable if its handlers are.

    Raises
    ------
    ValueError, TypeError
        See `dumper_chosen`.
    """
    if choice is not None:
        dumper_chosen(choice)
    if isinstance(choice, Mapping):
        return {name: checked_choice(part) for name, part in choice.items()}
    return choice


def dumper_for(value_type: type) -> tuple[str, Callable[[Any, Any], Any]]:
    """The `dumper_of` the handler for values of a type; it is in ``DUMPERS`` from then on."""
    found = DUMPERS[value_type] = dumper_of(handler_of_type(value_type) or handler_named("Auto"))
    return found


def _load_module(name: str) -> None:
    if name in _loaded:
        return
    module = importlib.import_module(f"{_HERE}.{name}")
    HANDLERS.update(module.HANDLERS)
    _WITH_OPTIONS.update(handler for handler in module.HANDLERS.values() if _has_options(handler))
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
