"""Fingerprints: digests of the code that functions and classes reach, remembered as long as it is the code that is loaded."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from exca_like import files
from exca_like.code.modules import Identity, Modules, cells_of, identity_of, import_name, loaded_module, note_loaded
from exca_like.code.packages import Precision, shortened, version_of
from exca_like.code.symbols import Symbol
from exca_like.code.unwrap import unwrapped

_MOST = 4096  # fingerprints that are remembered


class File(NamedTuple):
    """A file that was read for a fingerprint."""

    module: str
    path: str
    identity: Identity


@dataclass(frozen=True)
class _Loaded:
    """What this process has loaded, as far as a fingerprint depends on it."""

    tokens: tuple[tuple[Mapping[str, Any], str, Any], ...]
    """Namespaces, and what they have under a name as long as no other code is loaded."""
    cells: Sequence[Any]
    """Those that were run of a notebook."""
    number: int
    kept: Sequence[Any]
    """What is remembered by its id, which must not be given to others."""


_NOTHING: _Loaded = _Loaded((), (), -1, ())


@dataclass(frozen=True)
class Fingerprint:
    """What code is made of, at a time."""

    symbols: Mapping[str, Symbol]
    """Functions, classes, methods and constants of the user's own, by their full names."""
    packages: Mapping[str, str]
    """Versions of the installed packages that they use, by the names of their top-level modules."""
    precision: Precision
    files: tuple[File, ...] = ()
    stale: tuple[str, ...] = ()
    """Modules that were edited since this process imported them: what counts is what it runs."""
    own: str = ""
    """The function whose code it is, if that is one of a module, among the symbols; its name does not count."""
    loaded: _Loaded = field(default=_NOTHING, repr=False, compare=False)
    """Of the process that has made it."""
    digest: str = field(init=False)
    """16 hex digits that stand for all of it."""

    def __post_init__(self) -> None:
        found = blake2b(digest_size=8)
        for label, symbol in sorted(self.symbols.items(), key=lambda one: "" if one[0] == self.own else one[0]):
            name = "" if label == self.own else label
            found.update(f"{name}={symbol.digest};".encode("utf-8", "surrogatepass"))
        for name, version in sorted(self.versions.items()):
            found.update(f"{name}=={version};".encode())
        object.__setattr__(self, "digest", found.hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        """Without what other processes have no need of."""
        symbols = {label: symbol._replace(text="") for label, symbol in self.symbols.items()}
        return self.__dict__ | {"symbols": symbols, "loaded": _NOTHING}

    def is_current(self) -> bool:
        """Whether it is that of the code which this process has loaded now."""
        loaded = self.loaded
        for namespace, name, value in loaded.tokens:
            if namespace.get(name) is not value:
                return False
        return len(loaded.cells) == loaded.number

    @property
    def versions(self) -> dict[str, str]:
        """Versions of packages, as precisely as they count."""
        if self.precision == "none":
            return {}
        return {name: shortened(version, self.precision) for name, version in self.packages.items() if version}


_known: dict[Any, Fingerprint] = {}


def fingerprint(roots: Sequence[Any], precision: Precision = "major") -> Fingerprint:
    """The fingerprint of the code that functions, methods and classes reach.

    It is that of the code which this process runs: files that were edited since they were imported don't count before they
    are imported again.

    Parameters
    ----------
    roots:
        The functions, methods or classes. Of a method, its class is to be given, too.
    precision:
        How precisely the versions of packages count: ``"none"``, ``"major"`` (up to the first part that is not 0), ``"minor"``,
        ``"patch"``.
    """
    kept = list(map(_kept_of, roots))
    key = (precision, *map(id, kept))  # equal code of another import is another
    known = _known.get(key)
    if known is None or not known.is_current():
        if len(_known) >= _MOST:
            _known.clear()
        known = _known[key] = _made(roots, precision, kept)
    return known


def _kept_of(root: Any) -> Any:
    """What stays the same when a function is made again, like a lambda at each call."""
    if isinstance(root, type):
        return root
    function = unwrapped(root)
    return type(root) if function is None else function.__code__


def _made(roots: Sequence[Any], precision: Precision, kept: Sequence[Any]) -> Fingerprint:
    from exca_like.code.reach import Reach  # jobs can do without

    note_loaded()
    reach = Reach(Modules())
    reach.add(*roots)
    packages = {name: version_of(name) for name in sorted(reach.packages)}
    read = tuple(File(one.name, one.path, one.identity) for one in reach.modules.sources() if one.identity is not None)
    tokens: list[Any] = list(reach.tokens)
    for name in reach.modules.names():
        module = loaded_module(name)
        if module is None:
            tokens.append((sys.modules, name, None))
        else:  # importing it again gives it another spec
            tokens.append((vars(module), "__spec__", vars(module).get("__spec__")))
    for one in reach.modules.sources():
        variables = vars(loaded_module(one.name)) if one.awaited else {}
        tokens += [(variables, name, variables.get(name)) for name in one.awaited]
    cells = cells_of(sys.modules.get("__main__"))
    return Fingerprint(
        reach.symbols,
        packages,
        precision,
        read,
        tuple(sorted(reach.stale)),
        reach.own,
        _Loaded(tuple(tokens), cells, len(cells), kept),
    )


def confirmed(sent: Fingerprint, roots: Sequence[Any]) -> Fingerprint:
    """The fingerprint of code that was sent to this process, which may have found other files than the sender.

    What is of a script or a notebook was sent by value, and is as it was.
    """
    known = _known.get((sent.precision, *map(id, map(_kept_of, roots))))
    if known is not None and known.is_current():  # a forked process has what the other one had, though files were edited
        return known
    changed = [file for file in sent.files if not _is_unchanged(file)]
    if not changed:
        return sent
    main = import_name("__main__")
    if not any(file.module == main for file in changed) and loaded_module(main) is not None:
        return fingerprint(roots, sent.precision)
    symbols = dict(sent.symbols)
    for file in changed:
        if file.module != main:  # what it has now can't be told from what the script refers to
            symbols = {label: one for label, one in symbols.items() if not label.startswith(f"{file.module}.")}
            symbols[f"{file.module} (as a job found it)"] = Symbol(_digest_of_file(file.path), "")
    return Fingerprint(symbols, sent.packages, sent.precision, sent.files, own=sent.own)


def _is_unchanged(file: File) -> bool:
    try:
        found = identity_of(file.path)
    except OSError:
        return False
    return (found.modified, found.size) == (file.identity.modified, file.identity.size)


def _digest_of_file(path: str) -> str:
    try:
        return blake2b(files.read_bytes(path), digest_size=8).hexdigest()
    except OSError:
        return "missing"
