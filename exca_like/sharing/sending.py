"""Results that leave a cache root: written to new files, piece by piece, which are sent before the journals that name them."""

import errno
import filecmp
import hashlib
import os
import posixpath
import shutil
from collections.abc import Mapping, Sequence

from exca_like import files, layout, roots
from exca_like.cachedict import blocks, moving
from exca_like.cachedict.journal import DELETED, INFO, JOURNALS, copied
from exca_like.cachedict.writer import DATA, Writer
from exca_like.errors import CorruptEntryError, TransferError
from exca_like.sharing.plans import (
    MOST,
    NO_DATA,
    PIECE,
    SHARED,
    YAMLS,
    Chosen,
    Found,
    Item,
    Plan,
    Side,
    compare,
    is_shared,
    is_sound,
    scratch,
    sizes_in,
)
from exca_like.sharing.transfer import Place, Transfer
from exca_like.yaml_checks import check_yamls


def send(root: str, place: Place, chosen: Chosen, *, check: bool, dry_run: bool) -> Transfer:
    """Send results of a cache root to a place.

    Raises
    ------
    TransferError
        The place can't be read or written, or what was read back is not what was sent.
    CacheRootError
        The place is no cache root, but a part of one, or above some.
    """
    found = place.sizes()
    sizes = {name: size for name, size in found.items() if is_sound(name)}
    roots.check_files(sizes, str(place), place.address)
    if not dry_run:
        place.sweep(found.keys() - sizes.keys())
    with scratch(root) as temporary, copied(mirror := f"{temporary}/there", str(place)):
        there, here = Side(mirror, lambda name: sizes.get(name, -1), str(place)), Side(root, sizes_in(root), root)
        place.get([n for n in sizes if n.endswith(JOURNALS) and (posixpath.dirname(n) or ".") in chosen], mirror)
        plans = [compare(here, there, uid, keys) for uid, keys in sorted(chosen.items())]
        identities = [plan.name(layout.FULL_UID) for plan in plans if plan.items]
        place.get([name for name in identities if name in sizes], mirror)
        transfer = Transfer([plan.report for plan in plans], dry_run=dry_run)
        load = _Load(place, sizes, temporary, transfer, check=check, dry_run=dry_run)
        try:
            for plan in plans:
                plan.refuse_others()
                for piece in plan.pieces():
                    load.add(plan, piece)
                load.add_yamls(plan)
            load.send()
        except (FileNotFoundError, CorruptEntryError) as error:
            msg = f"results of {root} were removed or merged while they were sent: do the same again, to go on ({error})"
            raise TransferError(errno.ENOENT, msg) from error
    return load.transfer


class _Load:
    """Pieces that are sent together: many small files take little longer than one."""

    def __init__(
        self, place: Place, sizes: dict[str, int], temporary: str, transfer: Transfer, *, check: bool, dry_run: bool
    ) -> None:
        self.transfer = transfer
        self._place = place
        self._sizes = sizes
        self._temporary = temporary
        self._check = check
        self._dry_run = dry_run
        self._yamls: dict[str, list[str]] = {}  # by folder
        self._begin()

    def _begin(self) -> None:
        self._stage = f"{self._temporary}/{files.token()}"
        self._data: dict[str, str] = {}  # paths by names
        self._journals: dict[str, str] = {}
        self._size = 0
        self._added: list[tuple[Plan, int]] = []

    def add(self, plan: Plan, piece: Sequence[Item]) -> None:
        """Take in a piece; sends what there is, if that is enough."""
        found = self._usable(plan, piece)
        if not found:
            return
        about = {record for _, one in found for record in one.records(plan.uid)} | set(self._yamls_of(plan))
        own = [plan.name(name) for _, one in found for name in moving.own_files(one.info)]
        for name in [*(name for name in sorted(about) if plan.source.size_of(name) >= 0), *own]:
            self._data[name] = f"{plan.source.root}/{name}"
        if self._dry_run:
            self._count(plan, [one for _, one in found])
        else:
            self._write(plan, found)
        self._added.append((plan, len(found)))
        self._size += sum(item.size for item in piece)
        if self._size > PIECE or len(self._added) >= MOST:
            self.send()

    def add_yamls(self, plan: Plan) -> None:
        """Take in the yaml files of a folder with results that are there without any: they were wrong, or removed as such."""
        if plan.report.present and not any(self._sizes.get(plan.name(name)) for name in YAMLS):
            self._data.update((name, f"{plan.source.root}/{name}") for name in self._yamls_of(plan))

    def _yamls_of(self, plan: Plan) -> list[str]:
        """Names of the yaml files of a folder; none, and that is noted, if some are wrong: whoever asks writes them again."""
        found = self._yamls.get(plan.uid)
        if found is None:  # a folder may come in many pieces
            names = [name for name in YAMLS if plan.source.size_of(plan.name(name)) > 0]
            plan.report.has_wrong_yamls = any(problem.kind == "config" for problem in check_yamls(plan.folder, names))
            found = self._yamls[plan.uid] = [] if plan.report.has_wrong_yamls else list(map(plan.name, names))
        return found

    def _usable(self, plan: Plan, piece: Sequence[Item]) -> list[tuple[str, Found]]:
        found = []
        for item in piece:
            one = plan.read(item)
            problem = NO_DATA if one is None else None if self._dry_run else one.problem_in(plan.folder, item.key)
            if one is None or problem is not None:
                plan.leave_out(item.key, problem or NO_DATA)
            else:
                found.append((item.key, one))
        return found

    def _write(self, plan: Plan, found: Sequence[tuple[str, Found]]) -> None:
        """Write the lines and the packed data of results to files of a new writer."""
        hasher = hashlib.blake2b(plan.uid.encode(), digest_size=8)
        # a deletion there names a line by its file and place: what was deleted must not come back under the same name
        deleted = sorted((n, size) for n, size in self._sizes.items() if n.endswith(DELETED) and n.startswith(f"{plan.uid}/"))
        hasher.update(repr(deleted).encode() if deleted else b"")
        for key, one in found:
            hasher.update(repr((key, one.info.get("#meta"), moving.own_files(one.info))).encode() + one.same())
        writer = Writer(f"{self._stage}/{plan.uid}")
        # the same results make the same files: who goes on with a push, or pushes them as well, finds them there
        writer.name = f"{SHARED}{hasher.hexdigest()}"
        journal = writer.ready(INFO)
        for key, one in found:
            moving.repack(one.info, one.owner, plan.folder, writer)
            writer.append_line(journal, moving.line_of(key, one.info))
        for file in writer.files.values():
            (self._journals if file is journal else self._data)[plan.name(file.name)] = f"{writer.folder}/{file.name}"
        writer.end()

    def _count(self, plan: Plan, found: Sequence[Found]) -> None:
        """Note what `_write` would send."""
        packed = {name for one in found for name in moving.data_names(one.info, one.owner) if os.path.dirname(name) == DATA}
        self.transfer.files += 1 + len({posixpath.splitext(name)[1] for name in packed})
        own = {name for one in found for name in moving.own_files(one.info)}
        self.transfer.size += sum(one.size + len(str(one.info)) for one in found)
        self.transfer.size -= sum(max(0, plan.source.size_of(plan.name(name))) for name in own)  # counted when they are sent

    def send(self) -> None:
        """Send what there is: what journals name first."""
        data = {name: path for name, path in self._data.items() if not self._has(name, path)}
        for new, paths in ((data, self._data), (self._journals, self._journals)):
            sizes = {name: os.path.getsize(path) for name, path in new.items()}
            self.transfer.files += len(sizes)
            self.transfer.size += sum(sizes.values())
            self._sizes.update(sizes)
            if not self._dry_run and paths:
                self._place.put(new)
                if self._check:
                    self._compare(paths)
        for plan, number in self._added:
            plan.report.added += number
        shutil.rmtree(self._stage, ignore_errors=True)
        blocks.forget(self._stage)
        self._begin()

    def _has(self, name: str, path: str) -> bool:
        """Whether a file is at the place already."""
        size = self._sizes.get(name, -1)
        return size == os.path.getsize(path) or (size > 0 and is_shared(name))

    def _compare(self, paths: Mapping[str, str]) -> None:
        """Fetch files, and compare them with what they are to be; also those that an interrupted push has left."""
        back = f"{self._stage}-back"
        names = [name for name in paths if not is_shared(name)]
        self._place.get(names, back)
        bad = [name for name in names if not _is_same(f"{back}/{name}", paths[name])]
        shutil.rmtree(back, ignore_errors=True)
        if bad:
            msg = (
                f"{len(bad)} files are not what was sent when they are read back, like {bad[0]}: remove them there, and do the "
                "same again"
            )
            raise TransferError(msg)


def _is_same(first: str, second: str) -> bool:
    filecmp.clear_cache()
    try:
        return filecmp.cmp(first, second, shallow=False)
    except FileNotFoundError:
        return False
