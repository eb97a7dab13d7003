"""Which entries of a catalog are asked for."""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args

from pydantic_core import to_jsonable_python

from exca_like.confdict import ConfDict
from exca_like.entries import Entry, Status
from exca_like.errors import ConfigTypeError, ConfigValueError
from exca_like.listing import method_of
from exca_like.overlapping import overlapped
from exca_like.scanning import Kind, Wanted

Condition = Callable[[Entry], bool]

_AGES = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_AGES)})")
_MISSING = object()
_SHOWN_NAMES = 20
_NEAR = 3  # names that are suggested
_COMPARED = 1_000  # uids; to compare more takes seconds
_DIGEST = re.compile(r"-[0-9a-f]{8,}(-[0-9a-f]{16})?$")  # that ends a uid
_TEXTS = {"method": "Train.run", "version": "1", "uid": "*seed=1*"}


class OneOf(tuple[Any, ...]):
    """Values of which a field has one, in `Catalog.filter`.

    Examples
    --------
    >>> Catalog("/scratch/cache").filter(config={"optim.lr": OneOf((0.1, 0.2))})  # doctest: +SKIP
    """

    __slots__ = ()


class Filter(NamedTuple):
    """Which entries are asked for."""

    conditions: Sequence[Condition] = ()
    """What they fulfil, all of it; threads may ask."""
    where: Condition | None = None
    """What else they fulfil, by a function of the user's, which is called by this thread alone."""
    folders: Sequence[Wanted] = ()
    """What that means for names of folders, as the others need not be read."""
    method: str | None = None
    """A method that there has to be, if nothing is found."""
    fields: Sequence[str] = ()
    """Fields that some config has to have, if nothing is found."""

    @property
    def is_strict(self) -> bool:
        """Whether there is something to `check`."""
        return self.method is not None or bool(self.fields)

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of some entries that are asked for."""
        fit = overlapped(lambda entry: all(condition(entry) for condition in self.conditions), entries)
        found = [entry for entry, fits in zip(entries, fit, strict=True) if fits]
        return found if self.where is None else list(filter(self.where, found))

    def check(self, entries: Sequence[Entry], place: str) -> None:
        """Raise if there is no such method, or no such field, among some entries of a place, of which none is asked for.

        Raises
        ------
        ConfigValueError
            It names those that there are.
        """
        if self.method is not None:
            method = self.method
            methods = {f"{entry.method},{entry.version}" if "," in method else entry.method for entry in entries}
            entries = [entry for entry in entries if _is_of(entry.method, entry.version, method)]
            if methods and not entries:
                near = [name for name in methods if difflib.get_close_matches(method, _parts(name), 1)]
                msg = f"nothing in {place} is of a method {method!r}{_there_are(methods, near)}"
                raise ConfigValueError(msg)
        for name in self.fields if entries else ():
            if not any(name in ConfDict(entry.config) for entry in entries):
                configs = [ConfDict(entry.config).flat() for entry in entries]
                names = {field for config in configs for field in config}
                if not names:  # nothing is known of any config
                    return
                own = {field for config in configs for field in own_fields(config)}
                ends = sorted((one for one in names if one.endswith(f".{name}")), key=lambda one: (one not in own, one))
                near = ends[:_NEAR] or difflib.get_close_matches(name, names)
                msg = f"no config in {place} has a field {name!r}{_there_are(own or names, near)}"
                raise ConfigValueError(msg)


def filter_of(
    *,
    method: str | None,
    version: str | None,
    uid: str | None,
    kind: Kind | None,
    status: Status | Sequence[Status] | None,
    config: Mapping[str, Any] | None,
    since: str | datetime | timedelta | None,
    before: str | datetime | timedelta | None,
    pinned: bool | None,
    where: Condition | None,
    strict: bool,
) -> Filter:
    """What `exca_like.catalog.Catalog.filter` asks for, where the arguments are described.

    Raises
    ------
    ValueError
        A word, or a time, is not understood.
    """
    for name, given in (("method", method), ("version", version), ("uid", uid)):
        if given is not None and not isinstance(given, str):
            msg = f"{name} must be a text, like {name}='{_TEXTS[name]}', not {given!r:.60}"
            raise ConfigTypeError(msg)
    if config is not None and not isinstance(config, Mapping):
        msg = f"config must be a dictionary of fields, like {{'optim.lr': 0.1}}, not {config!r:.60}"
        raise ConfigTypeError(msg)
    conditions: list[Condition] = []
    folders: list[Wanted] = []
    if method is not None:
        conditions.append(lambda entry: _is_of(entry.method, entry.version, method))
        folders.append(lambda name, _: not (found := method_of(name))[0] or _is_of(*found, method))
    if version is not None:
        conditions.append(lambda entry: _matches(entry.version, version))
        folders.append(lambda name, _: not (found := method_of(name))[0] or _matches(found[1], version))
    if uid is not None:
        conditions.append(lambda entry: _matches(entry.uid, uid))
        folders.append(lambda name, is_whole: not is_whole or _matches(name, uid))
    if kind is not None:
        _check_words("kind", (kind,), get_args(Kind))
        conditions.append(lambda entry: entry.kind == kind)
    if status is not None:
        wanted = (status,) if isinstance(status, str) else tuple(status)
        check_statuses(wanted)
        conditions.append(lambda entry: entry.status in wanted)
    if since is not None:
        start = moment("since", since)
        conditions.append(lambda entry: entry.time is not None and entry.time >= start)
    if before is not None:
        end = moment("before", before)
        conditions.append(lambda entry: entry.time is not None and entry.time < end)
    if pinned is not None:
        conditions.append(lambda entry: entry.is_pinned == pinned)
    fields = ConfDict(config or {}).flat()
    if fields:
        conditions.append(lambda entry: _has(entry, fields))
    return Filter(conditions, where, folders, method if strict else None, list(fields) if strict else ())


def moment(name: str, given: str | datetime | timedelta) -> datetime:
    """A time, or how long ago something was, as a time with a zone.

    Raises
    ------
    ValueError
        It is neither.
    """
    if isinstance(given, timedelta):
        return datetime.now(UTC) - given
    if isinstance(given, str):
        age = _AGE.fullmatch(given.strip())
        if age is not None:
            return datetime.now(UTC) - timedelta(seconds=float(age[1]) * _AGES[age[2]])
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            msg = f"{name}={given!r} is neither a time, like '2026-11-28 10:00', nor an age in {', '.join(_AGES)}, like '7d'"
            raise ConfigValueError(msg) from None
    if not isinstance(given, datetime):
        msg = f"{name} must be a datetime, a timedelta, or a text like '7d', not {given!r:.100}"
        raise ConfigTypeError(msg)
    return given.astimezone(UTC)


def check_statuses(given: Sequence[str]) -> None:
    """Raise for what is no status.

    Raises
    ------
    ConfigValueError
        It names those that there are.
    """
    _check_words("status", given, get_args(Status))


def _check_words(name: str, given: Sequence[str], words: Sequence[str]) -> None:
    for one in given:
        if one not in words:
            msg = f"{name}={one!r} must be one of {', '.join(map(repr, filter(None, words)))}"
            raise ConfigValueError(msg)


def _matches(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))  # uids have brackets of their own


def _is_of(method: str, version: str, pattern: str) -> bool:
    return any(_matches(name, one) for name in (method, f"{method},{version}") for one in (pattern, f"*.{pattern}"))


def _parts(method: str) -> list[str]:
    """What one may take for the name of a method: its words, and all that ends it."""
    words = method.split(".")
    return [*words, *(".".join(words[number:]) for number in range(len(words)))]


def has_by_default(entry: Entry, text: str) -> bool:
    """Whether a config has one field with one value, given as ``name=value``, that its uid does not show."""
    name, sign, value = text.partition("=")
    if not sign or "=" in value or name in entry.changed:
        return False
    return str(ConfDict(entry.config).get(name, _MISSING)) == value


def near_uids(text: str, uids: Iterable[str]) -> list[str]:
    """Some uids of which a text may have been meant to be a part: those that have it in them, or else parts that are alike."""
    known = sorted(set(uids), key=lambda uid: (len(uid), uid))
    for part in filter(None, (text, text.rpartition("/")[2])):
        if holding := [uid for uid in known if part in uid]:
            return holding[:_NEAR]
    parts: dict[str, str] = {}
    for uid in known[:_COMPARED]:
        config = _DIGEST.sub("", uid.rpartition("/")[2])
        for part in (uid, config, *config.split(",")):
            parts.setdefault(part, uid)
    return list(dict.fromkeys(parts[part] for part in difflib.get_close_matches(text, parts, _NEAR)))


def own_fields(config: Mapping[str, Any]) -> Iterator[str]:
    """Dotted names of those fields that are not of an infra, which says how to compute, not what."""
    infras = tuple(
        f"{above}." for name in config if (above := name.removesuffix(".cluster")) != name and f"{above}.folder" in config
    )
    return (name for name in config if not name.startswith(infras))


def _there_are(names: Iterable[str], near: Sequence[str]) -> str:
    """What is said of a name that is not among those that there are."""
    others = sorted(set(names) - set(near), key=lambda name: (name.count("."), name))
    more = f", and {len(others) - _SHOWN_NAMES} more" if len(others) > _SHOWN_NAMES else ""
    hint = f": did you mean {' or '.join(near)}? There" if near else ": there"
    return f"{hint} are {', '.join([*near, *others[:_SHOWN_NAMES]])}{more}"


def _has(entry: Entry, fields: Mapping[str, Any]) -> bool:
    config = ConfDict(entry.config)
    return all(_is_same(config.get(name, _MISSING), value) for name, value in fields.items())


def _is_same(stored: Any, wanted: Any) -> bool:
    """Whether a stored value is the wanted one, which may be given as it is in a config, or as JSON has it."""
    if isinstance(wanted, OneOf):
        return any(_is_same(stored, one) for one in wanted)
    if stored is _MISSING or isinstance(stored, bool) != isinstance(wanted, bool):
        return False
    try:
        return bool(stored == wanted) or to_jsonable_python(stored) == to_jsonable_python(wanted)
    except (TypeError, ValueError):  # of arrays, or of what has no form in JSON
        return False
