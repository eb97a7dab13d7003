"""Why an entry of a catalog would be taken from the cache, or not, as far as its files tell: no code is imported."""

import time
from collections.abc import Iterable

from exca_like.cachedict.verify import examine
from exca_like.confdict import ConfDict
from exca_like.entries import Entry
from exca_like.explaining import Difference, Explanation, differences
from exca_like.infra.explain import damaged, of_failure, when
from exca_like.provenance import Provenance

_PATIENCE_S = 2.0  # of looking at other configs
_IF_SAME = "if the code and the defaults are the same as then, which was not looked at"


def explain(entry: Entry, among: Iterable[Entry] = ()) -> Explanation:
    """What is stored of an entry, what it was computed by, or why there is nothing that a call could take.

    No code is imported, so what has changed in it is not seen: see `exca_like.rebuilding.explain`, or ``infra.explain()``.

    Parameters
    ----------
    entry:
        A task, a map or a call.
    among:
        Other entries, of which the nearest with a result is told if this one has none.

    Examples
    --------
    >>> catalog = Catalog("cache")  # doctest: +SKIP
    >>> print(explain(catalog["seed=2"], catalog))  # doctest: +SKIP
    """
    found = _told(entry)
    if found.status in ("hit", "running") or entry.is_of_calls:
        return found
    nearest = _nearest(entry, among)
    return found if nearest is None else Explanation(found.status, found.uid, found.reason, nearest[0].uid, tuple(nearest[1]))


def _told(entry: Entry) -> Explanation:
    uid, job = entry.uid, f"Job {entry.job}" if entry.job else "Somebody"
    reason = f" ({entry.reason})" if entry.reason else ""
    if entry.status in ("running", "queued"):
        how = "computes it" if entry.status == "running" else "is to compute it, and waits in a queue"
        return Explanation("running", uid, f"{job} {how}{reason}: a call waits for its result.")
    if entry.kind == "map":
        return _of_map(entry)
    if entry.status == "lost":
        return Explanation("miss", uid, f"{job} left no result{reason}: the next call computes it again.")
    if entry.status in ("completed", "empty") and entry.kind != "memo" and _is_damaged(entry):
        return damaged(uid)
    if entry.status == "empty":
        return Explanation("miss", uid, "Nothing is stored of it: the next call computes it.")
    if entry.status == "failed":
        failure = entry.failure()
        if failure is None:  # it was removed meanwhile
            return Explanation("failed", uid, f"It failed: {entry.reason}.")
        return of_failure(uid, failure, _moment(entry.provenance()), is_raised=entry.kind == "task")
    come = entry.provenance()
    moment = when(_moment(come))
    return Explanation("hit", uid, f"The result is stored{moment}{_by(come)}. A call takes it, {_IF_SAME}.")


def _is_damaged(entry: Entry) -> bool:
    _, problems = examine(entry.path)
    return any(problem.kind in ("missing", "torn", "corrupt") for problem in problems)


def _of_map(entry: Entry) -> Explanation:
    stands = f"The map is {entry.status}: {entry.reason}. " if entry.unfinished else ""
    number = f"{stands}Stored results of items: {entry.values}"
    key, failure = next(iter(entry.item_failures().items()), ("", None))
    if failure is None:
        taken = f"A call takes those of its items (a hit), {_IF_SAME}, and computes the others (a miss)."
        return Explanation("hit" if entry.values else "miss", entry.uid, f"{number}. {taken}")
    what = of_failure(f"{entry.uid}/{key}", failure, _moment(entry.provenance(key)), is_raised=False).reason
    return Explanation("failed", entry.uid, f"{number}; errors: {entry.failures}. Item {key!r}: {what}")


def _moment(come: Provenance) -> dict[str, str | None]:
    """When something was computed, as it is noted."""
    return {"time": None if come.time is None else come.time.isoformat()}


def _by(come: Provenance) -> str:
    """What a result was computed by, in words."""
    changed = " with changes" if come.dirty else ""
    found = [
        f"by exca_like {come.exca_like}" if come.exca_like else "",
        f"with Python {come.python}" if come.python else "",
        f"from commit {come.commit[:12]}{changed}" if come.commit else "",
    ]
    return "".join(f", {one}" for one in found if one)


def _nearest(entry: Entry, among: Iterable[Entry]) -> tuple[Entry, list[Difference]] | None:
    """The entry of the same method that has a result and differs in the fewest fields, and these."""
    deadline = time.monotonic() + _PATIENCE_S
    best: tuple[Entry, list[Difference]] | None = None
    for other in among:
        if other.method != entry.method or other.uid == entry.uid or not other.values:
            continue
        found = differences(other.changed, entry.changed)
        if best is None or len(found) < len(best[1]):
            best = other, found
        if time.monotonic() > deadline:
            break
    if best is None:
        return None
    here, there = ConfDict(entry.config).flat(), ConfDict(best[0].config).flat()  # with default values
    return best[0], [one._replace(stored=there.get(one.name, one.stored), now=here.get(one.name, one.now)) for one in best[1]]
