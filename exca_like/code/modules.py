"""Modules as source: where it is, whether it is the user's own, and the namespace it defines."""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exca_like import files
from exca_like.code.literals import LARGE, shorten_literals
from exca_like.names import main_name

if TYPE_CHECKING:
    from exca_like.code.namespaces import Namespace

_MAINS = ("__main__", "__mp_main__")
_INSTALLED = ("site-packages", "dist-packages")
_NOTHING: dict[str, Any] = {}
_OWN = "exca_like"  # how results are kept makes no difference to them


class Identity(NamedTuple):
    """What changes with a file."""

    modified: int
    size: int
    inode: int
    changed: int
    """When its content, name or rights changed last, in nanoseconds: unlike the other time, nobody sets this one."""


@dataclass
class Source:
    """A module of the user's own, as text."""

    name: str
    """Its import name; of a script, the one that stands for ``__main__``."""
    is_package: bool
    text: str
    path: str = ""
    """Its file; empty for a notebook."""
    identity: Identity | None = None
    pieces: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What is remembered of its definitions."""
    awaited: tuple[str, ...] = ()
    """Names whose values would tell that more of a notebook was run."""

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree; empty if it is no Python."""
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError):
            return ast.Module([], [])
        if len(self.text) > LARGE:
            shorten_literals(tree, self.lines)
        return tree

    @functools.cached_property
    def lines(self) -> list[str]:
        """Its lines, as syntax trees count them."""
        return self.text.split("\n")

    @functools.cached_property
    def namespace(self) -> "Namespace":
        """What it defines."""
        from exca_like.code.namespaces import Namespace

        return Namespace(self.tree.body, is_script=self.name == main_name())


class Foreign(NamedTuple):
    """A module that is not the user's own, by its import name."""

    name: str


Found = Source | Foreign | None
_read: dict[str, Source] = {}  # by path
_loaded: dict[str, tuple[Any, Source]] = {}  # by name: modules as they were imported, with the spec of that import
_looked_at: dict[str, Any] = {}  # specs of modules that are not of interest, or are in `_loaded`; under "", how many there were


def note_loaded(name: str | None = None) -> None:
    """Remember the text of the user's own modules that were imported since the last time.

    It is to be called soon after imports: what is edited later is not what this process runs. With the name of a module
    nothing is done if that was noted, and nothing was imported since.
    """
    if name is not None and len(sys.modules) == _looked_at.get("", -1) and name in _looked_at:
        spec = getattr(sys.modules.get(name), "__dict__", _NOTHING).get("__spec__")
        if spec is _looked_at[name]:
            return
    for label, module in list(sys.modules.items()):
        spec = getattr(module, "__dict__", _NOTHING).get("__spec__")
        if spec is None or _looked_at.get(label, _NOTHING) is spec:
            continue
        _looked_at[label] = spec
        first = label.partition(".")[0]
        if label in _MAINS or first == _OWN or not getattr(spec, "has_location", False) or not _may_be_own(first):
            continue
        found = _of_file(label, str(spec.origin), is_package=spec.submodule_search_locations is not None)
        if isinstance(found, Source):
            _loaded[label] = (spec, found)
    _looked_at[""] = len(sys.modules)


def _may_be_own(name: str) -> bool:
    """Whether a top-level module is the user's own, and so what is in it; True if it has no file that could tell."""
    spec: Any = getattr(sys.modules.get(name), "__spec__", None)
    return not getattr(spec, "has_location", False) or is_own(str(spec.origin))


class Modules:
    """Finds modules by their names, without importing any; each is looked at once."""

    def __init__(self) -> None:
        self._found: dict[str, Found] = {}

    def __getitem__(self, name: str) -> Found:
        name = import_name(name)
        if name not in self._found:
            self._found[name] = find(name)
        return self._found[name]

    def sources(self) -> Iterator[Source]:
        """Those of the user's own that were looked at."""
        return (found for found in list(self._found.values()) if isinstance(found, Source))

    def names(self) -> list[str]:
        """All that were looked at, except for what is of Python itself or of packages."""
        return [name for name, found in list(self._found.items()) if isinstance(found, Source)]

    def add_script(self, file: str) -> None:
        """Say where the code of ``__main__`` is from, which a job has got by value."""
        if self._found.get(main_name()) is None and os.path.exists(file):
            self._found[main_name()] = _of_file(main_name(), file, is_package=False)


def import_name(name: str) -> str:
    """The name of a module, also of the one that runs."""
    return main_name() if name in _MAINS else name


def loaded_module(name: str) -> Any:
    """A module that this process has imported; None if it has not."""
    return sys.modules.get("__main__" if name == main_name() else name)


def find(name: str) -> Found:
    """A module by its import name."""
    if name.partition(".")[0] == _OWN:
        return None
    module = loaded_module(name)
    if name == main_name():
        cells = cells_of(module)
        if cells:
            from exca_like.code.notebooks import run_of

            text, not_run = run_of(cells, vars(module))
            return Source(name, is_package=False, text=text, awaited=not_run)
        path = getattr(module, "__file__", None)
        return None if path is None else _of_file(name, os.path.abspath(path), is_package=False)
    spec = getattr(module, "__spec__", None) or find_spec(name)
    if name in _loaded and _loaded[name][0] is spec:
        return _loaded[name][1]
    if spec is None:
        path = getattr(module, "__file__", None)
        return None if path is None else _of_file(name, path, is_package=hasattr(module, "__path__"))
    if spec.has_location and spec.origin is not None:
        return _of_file(name, spec.origin, is_package=spec.submodule_search_locations is not None)
    folders = list(spec.submodule_search_locations or ())  # of a package without a file of its own
    if not folders:
        return None
    return Source(name, is_package=True, text="") if is_own(folders[0]) else Foreign(name)


def cells_of(main: Any) -> list[Any]:
    """The cells of a notebook, or a shell of IPython, that this process has run; empty if it is none."""
    cells = getattr(main, "In", None)
    return cells if "IPython" in sys.modules and isinstance(cells, list) and cells[:1] == [""] else []  # they begin at 1


def _of_file(name: str, path: str, *, is_package: bool) -> Found:
    if not is_own(path):
        return None if is_standard(path) else Foreign(name)
    try:
        identity = identity_of(path)  # before the content: what changes meanwhile is noticed later
        data = files.read_bytes(path)
    except OSError:  # it was removed since it was imported, or is in an archive
        return None
    known = _read.get(path)
    if known is not None and (known.name, known.identity) == (name, identity):
        return known
    if path.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        text = f"compiled = {hashlib.blake2b(data).hexdigest()!r}"
    else:
        try:
            text = importlib.util.decode_source(data)
        except (SyntaxError, UnicodeDecodeError):
            text = ""
    source = _read[path] = Source(name, is_package, text, path, identity)
    return source


def identity_of(path: str) -> Identity:
    """What changes with a file."""
    status = os.stat(path)
    return Identity(status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)


def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module; neither it nor its parents are imported."""
    spec = None
    folders: list[str] | None = None
    full = ""
    for part in name.split("."):
        full = f"{full}.{part}" if full else part
        spec = getattr(sys.modules[full], "__spec__", None) if full in sys.modules else _asked(full, folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
        if not folders and full != name:
            return None
    return spec


def _asked(name: str, folders: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, folders, None)
        except (ImportError, ValueError, AttributeError):
            continue
        if found is not None:
            return found
    return None


# whose


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({os.path.realpath(paths[kind]) for kind in ("stdlib", "platstdlib")})


@functools.cache
def _unresolved_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({f"{os.path.abspath(paths[kind])}{os.sep}" for kind in ("stdlib", "platstdlib")})


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({os.path.realpath(paths[kind]) for kind in ("purelib", "platlib")})


def _is_plainly_standard(path: str) -> bool:
    """Whether that is clear from a path; where its links lead takes long to find out, for hundreds of modules."""
    return path.startswith(_unresolved_folders()) and not any(part in path for part in _INSTALLED)


@functools.lru_cache(4096)
def is_standard(path: str) -> bool:
    """Whether a file is a part of Python itself."""
    if _is_plainly_standard(path):
        return True
    real = os.path.realpath(path)
    inside = any(real.startswith(f"{folder}{os.sep}") for folder in _standard_folders())
    return inside and not any(part in Path(real).parts for part in _INSTALLED)


@functools.lru_cache(4096)
def is_own(path: str) -> bool:
    """Whether a file is the user's own: neither a part of Python, nor where packages are installed."""
    if _is_plainly_standard(path):
        return False
    real = os.path.realpath(path)
    if any(part in Path(real).parts for part in _INSTALLED) or path.startswith("<"):
        return False
    return not any(real.startswith(f"{folder}{os.sep}") for folder in (*_standard_folders(), *_library_folders()))
