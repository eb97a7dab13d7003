"""Why the result of a config comes from the cache, or does not; and which of its fields its uid is made from."""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pydantic

from exca_like import dotted, files, watching
from exca_like.cachedict import CacheDict
from exca_like.cachedict.failures import Failure
from exca_like.cachedict.verify import examine
from exca_like.confdict import ConfDict, verbatim
from exca_like.errors import ConfigMismatchError, CorruptEntryWarning
from exca_like.executors.base import JobHandle
from exca_like.explaining import ABSENT, Difference, Explanation, UidExplanation, UidField, differences
from exca_like.infra.applied import FIELDS
from exca_like.infra.readers import answers
from exca_like.infra.status import own_status
from exca_like.layout import EntryFolder
from exca_like.models.export import export
from exca_like.models.plan import EXCLUDE_ATTRIBUTE, plan_of
from exca_like.recording import noted
from exca_like.watching import policy_of

_PATIENCE_S = 2.0  # of looking at other configs


# fields


def explain_uid(infra: Any) -> UidExplanation:
    """The fields of an infra's config, and why each does or does not show in the uid."""
    owner = infra._linked_state.owner
    identity, shown = _flat(infra._identity()), _flat(infra._uid_export(exclude_defaults=True))
    rows = [_row(infra, owner, name, value, identity, shown) for name, value in _full(owner).items()]
    infras: dict[str, UidField] = {}  # one row for each
    for row in rows:
        infras.setdefault(row.name, row)
    return UidExplanation(infra.uid(), tuple(infras.values()))


def _row(infra: Any, owner: Any, name: str, value: Any, identity: Mapping[str, Any], shown: Mapping[str, Any]) -> UidField:
    own = _infra_above(owner, name)
    if own is not None:
        version = f"{own}.version"
        if version in shown:
            return UidField(version, shown[version], "in the uid", "yes: another version than the class has")
        return UidField(own, None, "infra", "no: an infra says how to compute, not what")
    if _is_in(name, shown):
        return UidField(name, value, "in the uid", "yes")
    if _is_in(name, identity):
        return UidField(name, value, "default", "no: it has its default value")
    return UidField(name, value, "excluded", f"no: {reason_of_exclusion(infra, name)}")


def reason_of_exclusion(infra: Any, name: str) -> str:
    """Why a field does not count for the uid."""
    state = infra._linked_state
    for excluded in state.applied.excluded(state.owner):
        if name == excluded or name.startswith(f"{excluded}."):
            return f"left out by exclude_from_cache_uid of {state.applied.method.__qualname__}"
    model: Any = state.owner
    for part in dotted.split(name):
        if not isinstance(model, pydantic.BaseModel):
            break
        excluded = plan_of(type(model)).excluded(model)
        if part in excluded or "." in excluded:
            return f"left out by {EXCLUDE_ATTRIBUTE} of {type(model).__qualname__}"
        model = model.__dict__.get(part)
        if isinstance(model, pydantic.BaseModel) and "." in plan_of(type(model)).excluded(model):
            return f"left out by {EXCLUDE_ATTRIBUTE} of {type(model).__qualname__}"
    return "it is part of a config that equals its default"


def _infra_above(owner: Any, name: str) -> str | None:
    """The name of the infra that a field belongs to; None if it belongs to none."""
    model, path = owner, []
    for part in dotted.split(name):
        path.append(part)
        if part in getattr(type(model), FIELDS, {}):
            return ".".join(path)
        model = getattr(model, "__dict__", {}).get(part)
    return None


def _is_in(name: str, flat: Mapping[str, Any]) -> bool:
    """Whether a field, or what is in it, or what it is in, is in a flat config."""
    return name in flat or any(other.startswith(f"{name}.") or name.startswith(f"{other}.") for other in flat if other)


def _full(owner: Any) -> dict[str, Any]:
    return _flat(export(owner, uid=False, exclude_defaults=False))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return verbatim(config).flat()


# results


def explain_task(infra: Any, key: str) -> Explanation:
    """What a call of a task would find."""
    found = _stored_task(infra, key)
    if found is None or found.status in ("miss", "corrupt") or (found.status == "failed" and infra.mode == "retry"):
        found = of_readers(infra, lambda reader: _stored_task(reader, key)) or found
    return found or of_missing(infra)


def _stored_task(infra: Any, key: str) -> Explanation | None:
    """What is to be said of a task by what there is in one's own folder; None if there is nothing."""
    found = _of_folder(infra)
    if found is not None:
        return found
    store = infra._store()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptEntryWarning)
        kind = store.peek(key)
        outcome = None if kind is None else store.load(key)
    if outcome is not None and outcome.failure is None:
        return of_value(infra, infra.uid(), noted(store.meta(key)))
    if outcome is not None:
        return of_failure(infra.uid(), outcome.failure, noted(store.meta(key)), infra, is_raised=infra.mode != "retry")
    job = infra._handle()
    if own_status(infra) == "running":
        return Explanation("running", infra.uid(), f"Job {job.job_id} computes it: a call waits for its result.")
    return _of_damage(infra) or (None if job is None else _of_lost(infra.uid(), job, is_raised=infra.mode != "retry"))


def _of_lost(uid: str, job: JobHandle, *, is_raised: bool) -> Explanation | None:
    """What is to be said of a job that left no result."""
    ended = job.ended()
    if ended is None:
        return None
    how = ": ".join([ended.reason, *ended.detail.strip().splitlines()[-1:]])
    if not ended.interrupted:
        then = "a call raises that; mode='retry' computes again" if is_raised else "the next call computes it again"
        return Explanation("failed", uid, f"Job {job.job_id} ended without a result ({how}): {then}.")
    reason = f"Job {job.job_id} was to compute it, and left no result ({how}): that counts as not submitted, so that the next"
    return Explanation("miss", uid, f"{reason} call computes it.")


def explain_item(infra: Any, key: str) -> Explanation:
    """What a call of a map would find for one of its items."""
    found = _stored_item(infra, key)
    if found is None or found.status in ("miss", "corrupt", "failed"):
        found = of_readers(infra, lambda reader: _stored_item(reader, key)) or found
    return found or of_missing(infra, f"{infra.uid()}/{key}")


def of_readers(infra: Any, explain: Callable[[Any], Explanation | None]) -> Explanation | None:
    """What is to be said of the first read folder that has the result, or was written for another config; None if none is so.

    Parameters
    ----------
    infra:
        The infra that has them.
    explain:
        What is to be said of a reader by what there is in its folder.
    """
    return next(answers(infra, lambda reader: _of_reader(reader, explain(reader)), of_other_configs=True), None)


def _of_reader(reader: Any, found: Explanation | None) -> Explanation | None:
    """What is to be said of what is stored in a read folder; None if a call goes on to the next one."""
    root = reader._entry().root
    if found is not None and found.status == "mismatch":
        where = f"It is in {root}, one of the read_folders: rather than delete it there, leave that one out of them."
    elif found is not None and found.status in ("hit", "stale"):
        where = f"It is read from {root}, one of the read_folders."
    else:
        return None
    return replace(found, reason=f"{found.reason} {where}")


def _stored_item(infra: Any, key: str) -> Explanation | None:
    """What is to be said of an item by what there is in one's own folder; None if there is nothing."""
    uid = f"{infra.uid()}/{key}"
    found = _of_folder(infra)
    if found is not None:
        return found
    cache = infra._make_cache(keep_in_ram=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptEntryWarning)
        is_there = key in cache
        try:
            if is_there:
                _ = cache[key]
        except KeyError:
            return damaged(uid)
    if is_there:
        return of_value(infra, uid, noted(cache.meta(key)))
    failure = cache.failure(key)
    if failure is not None:
        return of_failure(uid, failure, noted(cache.meta(key)), infra, is_raised=False)
    number = len(cache)
    if number:
        reason = f"This item was never computed; {number} others of this config are stored. The next call computes it."
        return _of_damage(infra, uid) or Explanation("miss", uid, reason)
    return None


def _of_folder(infra: Any) -> Explanation | None:
    """What is to be said if there is no folder, or a wrong one."""
    if infra.folder is None:
        return Explanation("miss", infra.uid(), "The infra has no folder: nothing is stored, and each new object computes.")
    try:
        infra._check_folder()
    except ConfigMismatchError:
        entry = infra._entry()
        stored = ConfDict.from_yaml(files.read_bytes(entry.full_uid).decode()).flat()
        every = differences(stored, _flat(infra._identity()))
        # a field that is new is no difference
        found = [one for one in every if ABSENT not in (one.stored, one.now)]
        reason = (
            "The folder was written for another config with the same uid: most likely a default was changed in the code. A "
            "call raises an error. Restore the default, or give the infra another version, or delete the folder."
        )
        return Explanation("mismatch", infra.uid(), reason, differences=tuple(found))
    return None


def of_value(infra: Any, uid: str, meta: Mapping[str, Any]) -> Explanation:
    """What is to be said of a stored value, by what is stored beside it."""
    excluded = _changed_excluded(infra, meta.get("config"))
    is_same, changes = _compared_code(infra, meta)
    if is_same is not False:
        code = " by the code that there is now" if is_same else ""
        return Explanation("hit", uid, f"The result is in the cache{when(meta)}{code}.", excluded=excluded)
    reason = f"The result is in the cache{when(meta)}, but by other code: a call returns it, with a warning (code='warn')."
    return Explanation("stale", uid, reason, excluded=excluded, changes=changes)


def _compared_code(infra: Any, meta: Mapping[str, Any]) -> tuple[bool | None, tuple[watching.Change, ...]]:
    """Whether something was computed by the code that there is now (None if it makes no difference), and what has changed."""
    now, stored = infra._code_state(), meta.get("code")
    if now is None or stored is None:
        return None, ()
    if stored == now.digest:
        return True, ()
    before = watching.read(infra._entry().root, stored)
    changes = () if before is None else tuple(watching.changes(before, now))
    return (None if before is not None and not changes else False), changes


def when(meta: Mapping[str, Any]) -> str:
    """When something was computed, in words, if that is known."""
    return f", computed {meta['time'][:16].replace('T', ' ')} UTC" if isinstance(meta.get("time"), str) else ""


def damaged(uid: str) -> Explanation:
    """What is to be said of a damaged entry."""
    what = "What is stored of it is damaged or gone: it counts as missing, and the next call computes it again."
    return Explanation("corrupt", uid, what)


def of_failure(
    uid: str, failure: Failure, meta: Mapping[str, Any] | None = None, infra: Any = None, *, is_raised: bool
) -> Explanation:
    """What is to be said of a stored error, and of what is stored beside it; of other code only for an infra."""
    what = f"{failure.type.rpartition('.')[2]}: {failure.message}".splitlines()[0]
    is_same, changes = (None, ()) if infra is None else _compared_code(infra, meta or {})
    code = ", by other code than there is now" if is_same is False else ""
    then = "A call raises it; mode='retry' computes again." if is_raised else "The next call computes it again."
    moment = when(meta or {}).removeprefix(", computed")
    return Explanation("failed", uid, f"It was computed{moment}{code}, and failed with {what:.300}. {then}", changes=changes)


def _changed_excluded(infra: Any, config: Any) -> tuple[Difference, ...]:
    """Fields that don't count and differ from those of the stored config."""
    if config is None:
        return ()
    from exca_like.cachedict.handlers.containers import from_tree

    owner, identity = infra._linked_state.owner, _flat(infra._identity())
    changed = differences(_flat(from_tree(config)), _full(owner))
    excluded = [one for one in changed if not _is_in(one.name, identity) and _infra_above(owner, one.name) is None]
    return tuple(one._replace(reason=reason_of_exclusion(infra, one.name)) for one in excluded)


def _of_damage(infra: Any, uid: str | None = None) -> Explanation | None:
    """What is to be said if a folder is damaged that has no result."""
    folder = infra._entry().path
    if not os.path.isdir(folder):
        return None
    _, problems = examine(folder)
    bad = [problem for problem in problems if problem.kind in ("missing", "torn", "corrupt")]
    if not bad:
        return None
    reason = f"What is stored is damaged ({bad[0]}): it counts as missing, and the next call computes it again."
    return Explanation("corrupt", uid or infra.uid(), reason)


class _Other(NamedTuple):
    """A stored config, of the same method."""

    entry: EntryFolder
    found: list[Difference]


def of_missing(infra: Any, uid: str | None = None) -> Explanation:
    """What is to be said if there is no result: which stored config is the nearest."""
    entry = infra._entry()
    name = uid or infra.uid()
    others = list(_others(infra))
    nearest = min(others, key=lambda other: len(other.found), default=None)
    if nearest is None:
        method = entry.uid.partition(",")[0]
        return Explanation("miss", name, f"Nothing is stored of {method} in {entry.root}: the next call computes it.")
    if nearest.found:
        reason = "This config was never computed: the next call computes it."
        return Explanation("miss", name, reason, nearest.entry.uid, tuple(nearest.found))
    version, here = _version_of(nearest.entry), _version_of(entry)
    if version != here:
        reason = f"It was computed for version {version!r}, and this is version {here!r}: the next call computes it."
        return Explanation("miss", name, reason)
    notes = [(other.entry, _notes_of(other.entry)) for other in others if not other.found and _version_of(other.entry) == here]
    last, stored = max(notes, key=lambda one: str(one[1].get("time", "")))
    before, now = watching.read(entry.root, str(stored.get("code"))), infra._code_state()
    changes = () if before is None or now is None else tuple(watching.changes(before, now))
    policy = policy_of(infra.code, "warn")
    reason = f"It was computed by other code, in {last.uid}: the next call computes it again (code={policy!r})."
    return Explanation("stale", name, reason, changes=changes)


def _version_of(entry: EntryFolder) -> str:
    """The version that a folder is of."""
    return entry.uid.partition("/")[0].rpartition(",")[2].partition("~")[0]


def _notes_of(entry: EntryFolder) -> dict[str, Any]:
    """What is stored beside the results of a folder: beside one of them."""
    cache: CacheDict[Any] = CacheDict(entry.path)
    notes = noted(next((cache.meta(key) for key in cache), None))
    code = entry.uid.partition("/")[0].partition("~")[2]
    return {**notes, **({"code": code} if code else {})}


def _others(infra: Any) -> Iterator[_Other]:
    """Stored configs of the same method, of all versions and codes; not all of them if there are very many."""
    entry, identity = infra._entry(), _flat(infra._identity())
    method = entry.uid.partition("/")[0].rpartition(",")[0]
    folders = [name for name in files.visible_folders(entry.root) if name.rpartition(",")[0] == method]
    folders.sort(key=lambda name: name != entry.uid.partition("/")[0])  # the own one first
    deadline = time.monotonic() + _PATIENCE_S
    for folder in folders:
        for name in files.visible_folders(f"{entry.root}/{folder}"):
            other = EntryFolder(entry.root, f"{folder}/{name}")
            if other == entry:
                continue
            config = infra._stored_config(other)
            if config is not None:
                flat = {key: value for key, value in _flat(config).items() if not _is_of_infra(infra, key)}
                relevant = {key: value for key, value in flat.items() if _is_in(key, identity)}
                yield _Other(other, [one for one in differences(relevant, identity) if not _is_of_infra(infra, one.name)])
            if time.monotonic() > deadline:
                return


def _is_of_infra(infra: Any, name: str) -> bool:
    return _infra_above(infra._linked_state.owner, name) is not None
