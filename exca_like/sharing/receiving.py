"""Results that arrive in a cache root: fetched piece by piece, checked, and appended by a writer of this process."""

import errno
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from exca_like import files, layout, roots
from exca_like.cachedict import blocks, moving
from exca_like.cachedict.claims import FolderClaims
from exca_like.cachedict.handlers.paths import restore
from exca_like.cachedict.journal import INFO, JOURNALS, copied, infos_in
from exca_like.cachedict.writer import Writer
from exca_like.catalog import Catalog
from exca_like.entries import Entry
from exca_like.errors import CorruptEntryError, TransferError
from exca_like.executors import job_is_over
from exca_like.records import Records, digest_of
from exca_like.scanning import Content, Scanner, Wanted
from exca_like.sharing.plans import (
    MOST,
    NO_DATA,
    PIECE,
    YAMLS,
    Found,
    Item,
    Plan,
    Side,
    compare,
    is_sound,
    scratch,
    sizes_in,
    wanted,
)
from exca_like.sharing.transfer import Place, Transfer

Choice = Callable[[Catalog], Iterable[Entry]]
"""Given a catalog, returns those of its entries that are wanted."""

_CODE = f"{layout.PROVENANCE}/code-"
_HELD = "somebody computes it here at this moment"


def receive(place: Place, root: str, choose: Choice | None, *, dry_run: bool, permissions: int | None = None) -> Transfer:
    """Take results from a place into a cache root: those that ``choose`` returns of its catalog, or all.

    Raises
    ------
    TransferError
        The place can't be read.
    CacheFolderError
        The cache root can't be written to; or the place is none, but a part of one, or above some (a `CacheRootError`).
    """
    sizes = {name: size for name, size in place.sizes().items() if is_sound(name)}
    if not any(name.endswith(JOURNALS) for name in sizes):
        msg = f"there are no results in {place}: check its name, or send some there"
        raise TransferError(errno.ENOENT, msg)
    roots.check_files(sizes, str(place), place.address)
    with scratch(root) as mirror, copied(mirror, str(place)):
        # the catalog needs the configs of maps to filter them; else only those of new folders are needed
        catalog = Catalog._reading(_Fetching(place, sizes, mirror, JOURNALS if choose is None else (*JOURNALS, *YAMLS)))
        chosen = wanted(catalog if choose is None else choose(catalog), mirror)
        there, here = Side(mirror, lambda name: sizes.get(name, -1), str(place)), Side(root, sizes_in(root), root)
        plans = [compare(there, here, uid, keys) for uid, keys in sorted(chosen.items())]
        if choose is None:
            place.get([n for plan in plans if plan.items for n in map(plan.name, YAMLS) if n in sizes], mirror)
        work: list[tuple[Plan, list[Item]]] = []
        for plan in plans:
            plan.refuse_others()
            plan.items.sort(key=lambda item: item.place)  # so that each packed file is needed for a short time
            work += [(plan, piece) for piece in plan.pieces()]
        arrival = _Arrival(place, sizes, mirror, root, permissions, Transfer([plan.report for plan in plans], dry_run=dry_run))
        arrival.run(work, dry_run=dry_run)
    return arrival.transfer


class _Fetching(Scanner):
    """Reads the folders of a place, and fetches for that only what is asked for, into a mirror of it."""

    def __init__(self, place: Place, sizes: Mapping[str, int], mirror: str, endings: tuple[str, ...]) -> None:
        super().__init__(mirror)
        self.name = str(place)
        self._place = place
        self._sizes = sizes
        self._left: dict[str, list[str]] = {}  # what was not fetched yet, by folder
        for name in sizes:
            if name.endswith(endings):
                self._left.setdefault(posixpath.dirname(name) or ".", []).append(name)

    def contents(self, wanted: Wanted | None = None) -> list[Content]:
        """What each folder with entries holds; those that are not wanted are not fetched."""
        new = [uid for uid in self._left if wanted is None or wanted(uid, self._is_of_config(uid))]
        self._place.get([name for uid in new for name in self._left.pop(uid)], self.root)
        return super().contents(wanted)

    def _is_of_config(self, uid: str) -> bool:
        """Whether a folder is one of a config, and of no function's calls: of those, the yaml files are the same."""
        found = [self._sizes.get(f"{uid}/{name}") for name in YAMLS]
        return None not in found and len(set(found)) > 1


class _Arrival:
    """Fetches what pieces need, and takes them in."""

    def __init__(
        self,
        place: Place,
        sizes: Mapping[str, int],
        mirror: str,
        root: str,
        permissions: int | None,
        transfer: Transfer,
    ) -> None:
        self.transfer = transfer
        self._place = place
        self._sizes = sizes
        self._mirror = mirror
        self._root = root
        self._permissions = permissions
        self._counted: set[str] = set()
        self._kept: set[str] = set()

    def run(self, work: Sequence[tuple[Plan, list[Item]]], *, dry_run: bool) -> None:
        """Take in all pieces, as many at once as a limited size allows."""
        needed = [self._needed(*one) for one in work]
        about = [self._about(*one) for one in work]
        uses = Counter(name for names in needed for name in names)
        start = 0
        while start < len(work):
            end, size = start, 0
            while end < len(work) and size < PIECE and end - start < MOST:
                size += sum(item.size for item in work[end][1])
                end += 1
            os.utime(self._mirror)  # since when it may be left over, see `exca_like.pruning`
            self._count({name for names in about[start:end] for name in names})
            self._fetch({name for names in needed[start:end] for name in names}, dry_run=dry_run)
            for (plan, piece), names in zip(work[start:end], needed[start:end], strict=True):
                if dry_run:
                    plan.report.added += len(piece)
                else:
                    self._take_in(plan, piece)
                uses.subtract(names)
                for name in names:
                    if not uses[name]:
                        files.remove(f"{self._mirror}/{name}")
                blocks.forget(plan.folder)
            start = end

    def _needed(self, plan: Plan, piece: Sequence[Item]) -> set[str]:
        """Names of the files that a piece needs, of records those that are not there."""
        names: set[str] = set()
        for found in filter(None, map(plan.read, piece)):
            names.update(map(plan.name, moving.data_names(found.info, found.owner)))
            names.update(name for name in found.records(plan.uid) if plan.target.size_of(name) < 0)
        return names & self._sizes.keys()

    def _about(self, plan: Plan, piece: Sequence[Item]) -> set[str]:
        """Names of the files of a piece that were fetched already: its journals, and yaml files that are not there."""
        names = {plan.name(plan.ours.describe(item.place)[0]) for item in piece}
        names.update(name for name in map(plan.name, YAMLS) if plan.target.size_of(name) < 0)
        return names & self._sizes.keys()

    def _fetch(self, names: set[str], *, dry_run: bool) -> None:
        new = self._count(names)
        if not dry_run:
            self._place.get(new, self._mirror)

    def _count(self, names: set[str]) -> list[str]:
        """Note that files travel; returns those that did not yet."""
        new = sorted(names - self._counted)
        self._counted.update(new)
        self.transfer.files += len(new)
        self.transfer.size += sum(map(self._sizes.__getitem__, new))
        return new

    def _take_in(self, plan: Plan, piece: Sequence[Item]) -> None:
        """Append the results of a piece that are sound, under the lock that whoever computes one takes."""
        folder = f"{self._root}/{plan.uid}"

        def create() -> None:
            yamls = {name: path for name in YAMLS if os.path.isfile(path := f"{plan.folder}/{name}")}
            files.create_folder(folder, {n: files.read_bytes(path) for n, path in yamls.items()}, self._permissions)

        def add(free: list[str]) -> list[list[str]]:
            plan.theirs.refresh()
            writer = Writer(folder, self._permissions)
            try:
                for key in free:
                    self._append(plan, items[key], writer)
            finally:
                writer.end()
            return []  # nothing is left to be claimed: nobody else could do so meanwhile

        items = {item.key: item for item in piece}
        if not os.path.isdir(folder):
            create()
        claims = FolderClaims(folder, layout.FULL_UID, job_is_over, self._permissions, create)
        _, held = claims.claim(list(items), add)
        for waiting in held:
            for key in waiting.keys:
                plan.leave_out(key, _HELD)

    def _append(self, plan: Plan, item: Item, writer: Writer) -> None:
        if plan.is_there(item.key):  # somebody was faster
            plan.report.present += 1
            return
        found = plan.read(item)
        problem = NO_DATA if found is None else found.problem_in(plan.folder, item.key)
        if found is None or problem is not None:
            plan.leave_out(item.key, problem or NO_DATA)
            return
        try:
            self._bring_files(plan.folder, writer.folder, found)
        except CorruptEntryError as error:
            plan.leave_out(item.key, str(error))
            return
        for name in found.records(plan.uid):
            self._keep_record(name)
        journal = writer.ready(INFO)
        moving.repack(found.info, found.owner, plan.folder, writer)
        writer.append_line(journal, moving.line_of(item.key, found.info))
        plan.report.added += 1

    def _bring_files(self, source: str, folder: str, found: Found) -> None:
        """Move the files that a result alone has to where they belong."""
        for name in moving.own_files(found.info):
            files.make_folders(os.path.dirname(f"{folder}/{name}"), self._permissions, above=folder)
            files.permit(f"{source}/{name}", self._permissions)
            os.replace(f"{source}/{name}", f"{folder}/{name}")
        for part in infos_in(found.info):
            if part["#type"] == "Files":
                restore(folder, part, self._permissions)

    def _keep_record(self, name: str) -> None:
        if name in self._kept:  # of many results it is the same
            return
        self._kept.add(name)
        try:
            text = files.read_bytes(f"{self._mirror}/{name}")
        except FileNotFoundError:
            return
        digest = os.path.basename(name).removesuffix(".json")
        if name.startswith(_CODE) or digest_of(text) == digest:
            Records(self._root, self._permissions).keep_text(digest, text)
