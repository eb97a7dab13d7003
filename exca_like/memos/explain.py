"""Why the result of a call comes from the cache, or does not."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from exca_like import watching
from exca_like.errors import CorruptEntryWarning
from exca_like.explaining import Difference, Explanation, differences
from exca_like.infra.calls import Call, CallInfra
from exca_like.infra.explain import damaged, of_failure, of_readers, when
from exca_like.memos.entries import Entry
from exca_like.memos.keys import shown


def explain_call(infra: CallInfra, call: Call, label: str, stored: Iterable[Entry], excluded: Mapping[str, str]) -> Explanation:
    """What a call of a memoised function would find.

    Parameters
    ----------
    infra, call, label:
        The call, the infra of its folder, and its name.
    stored:
        All that is stored of the function.
    excluded:
        Parameters that make no difference, each with the reason.
    """
    arguments = {name: shown(value) for name, value in call.values.items()}

    def differing(entry: Entry) -> list[Difference]:
        return differences(entry.config, arguments)

    there = _stored(infra, call, label, excluded)
    if there is None or there.status in ("corrupt", "failed"):
        there = of_readers(infra, lambda reader: _stored(reader, call, label, excluded)) or there
    if there is not None:
        return there
    entries = list(stored)
    if not entries:
        return Explanation(
            "miss", label, f"Nothing is stored of this function in {infra._entry().root}: the next call computes it."
        )
    start = call.key.removesuffix(f"-{call.code.digest}") if call.code is not None and call.is_coded else None
    same = [entry for entry in entries if start is not None and entry.key.startswith(f"{start}-")]
    if same and call.code is not None and start is not None:
        before = watching.read(infra._entry().root, same[-1].key.removeprefix(f"{start}-"))
        changes = () if before is None else tuple(watching.changes(before, call.code))
        reason = "It was computed by other code: the next call computes it again (code='recompute')."
        return Explanation("stale", label, reason, changes=changes)
    nearest = min(entries, key=lambda entry: len([one for one in differing(entry) if one.name not in excluded]))
    found = tuple(one for one in differing(nearest) if one.name not in excluded)
    reason = "A call with these arguments was never computed: the next call computes it."
    return Explanation("miss", label, reason, nearest.key, found)


def _stored(infra: CallInfra, call: Call, label: str, excluded: Mapping[str, str]) -> Explanation | None:
    """What is to be said of a call by what there is in one's own folder; None if there is nothing."""
    if infra.folder is not None:
        infra._check_folder()
    cache = infra._make_cache(keep_in_ram=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptEntryWarning)
        if call.key in cache:
            try:
                _ = cache[call.key]
            except KeyError:
                return damaged(label)
            meta = cache.meta(call.key) or {}
            arguments = {name: shown(value) for name, value in call.values.items()}
            changed = [one for one in differences(meta.get("config") or {}, arguments) if one.name in excluded]
            found = tuple(one._replace(reason=excluded[one.name]) for one in changed)
            return _of_result(infra, call, label, meta, found)
    failure = cache.failure(call.key)
    return None if failure is None else of_failure(label, failure, is_raised=False)


def _of_result(
    infra: CallInfra, call: Call, label: str, meta: Mapping[str, Any], excluded: tuple[Difference, ...]
) -> Explanation:
    stored = meta.get("code")
    if call.code is None or call.is_coded or stored in (None, call.code.digest):
        return Explanation("hit", label, f"The result is in the cache{when(meta)}.", excluded=excluded)
    before = watching.read(infra._entry().root, stored)
    changes = () if before is None else tuple(watching.changes(before, call.code))
    reason = f"The result is in the cache{when(meta)}, but by other code: a call returns it, with a warning (code='warn')."
    return Explanation("stale", label, reason, excluded=excluded, changes=changes)
