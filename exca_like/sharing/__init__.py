"""Sharing results: in a file that is moved to another machine, or by way of a folder or an object store.

What arrives is found by whoever asks for it, as if it had been computed there, with its provenance. Nothing is overwritten.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exca_like import layout, roots
from exca_like.catalog import Catalog
from exca_like.errors import CacheFolderError, TransferError
from exca_like.sharing.places import Bundle, Folder, place_at
from exca_like.sharing.plans import wanted
from exca_like.sharing.receiving import Choice, receive
from exca_like.sharing.sending import send
from exca_like.sharing.transfer import FolderTransfer, Place, Transfer


def export_bundle(folder_or_catalog: str | Path | Catalog, bundle: str | Path, *, dry_run: bool = False) -> Transfer:
    """Write results with their provenance to one file, which `import_bundle` takes in.

    Parameters
    ----------
    folder_or_catalog:
        A cache root, or a catalog, whose filter says what is exported. Of what it shows, only results are: no errors.
    bundle:
        The file, a zip archive; it must not be there yet, and appears when it is complete.
    dry_run:
        Only tell what would be exported.

    Returns
    -------
    Transfer
        What was exported, and what was not, because of a problem.

    Raises
    ------
    TransferError
        The file is there already, or can't be written.
    CacheFolderError
        There is no such cache root; or the folder is only a part of one, or above some (a `CacheRootError`).

    Examples
    --------
    >>> export_bundle(Catalog("/scratch/cache").filter("Train.run"), "trained.zip")  # doctest: +SKIP
    """
    catalog = _catalog_of(folder_or_catalog)
    path = layout.absolute(bundle)
    if os.path.lexists(path):
        raise TransferError(errno.EEXIST, f"there is a file {path} already: remove it, or give another name")
    root = str(catalog.folder)
    chosen = wanted(catalog, root)
    if dry_run or not chosen:
        return send(root, _Nowhere(), chosen, check=False, dry_run=True)
    with Bundle.new(path) as place:
        return send(root, place, chosen, check=False, dry_run=False)


def import_bundle(
    bundle: str | Path,
    folder: str | Path,
    *,
    choose: Choice | None = None,
    dry_run: bool = False,
    permissions: int | None = None,
) -> Transfer:
    """Take the results of a bundle into a cache root; those that are there already stay as they are.

    Every byte of what arrives is compared with its checksums. If it is interrupted, there are whole results or none, and it can
    be done again.

    Parameters
    ----------
    bundle:
        The file. Loading a pickle runs code: import only what comes from people you trust.
    folder:
        The cache root; made if it is not there.
    choose:
        Given the catalog of the bundle, returns the entries that are wanted; None: all.
    dry_run:
        Only tell what would be imported.
    permissions:
        Mode of new files, like ``0o770``; None: as the umask says.

    Returns
    -------
    Transfer
        What was added, was there already, is there with other bytes, or was left out because of a problem.

    Raises
    ------
    TransferError
        The bundle can't be read.
    CacheFolderError
        The cache root can't be written to, or is only a part of one; or the bundle was made of a folder above a cache root.

    Examples
    --------
    >>> print(import_bundle("trained.zip", "/scratch/cache"))  # doctest: +SKIP
    """
    with Bundle.open(layout.absolute(bundle)) as place:
        return _receive(place, folder, choose, dry_run=dry_run, permissions=permissions)


def push(
    folder_or_catalog: str | Path | Catalog,
    url: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    check: bool = True,
    dry_run: bool = False,
    permissions: int | None = None,
) -> Transfer:
    """Send results that are missing there to a folder or an object store, for `pull`.

    Whatever interrupts it, it goes on when it is done again. Several may push to one address at once.

    Parameters
    ----------
    folder_or_catalog:
        A cache root, or a catalog, whose filter says what is sent. Of what it shows, only results are: no errors.
    url:
        A folder, or a URL that fsspec opens, like ``"s3://bucket/folder"``.
    options:
        What fsspec is to know of it, like ``{"endpoint_url": ...}``; see the file system there.
    check:
        Read back what was sent, and compare it, before anybody can see it.
    dry_run:
        Only tell what would be sent.
    permissions:
        Mode of new files of a folder, like ``0o770``, so that others of a group may push there; None: as the umask says.

    Returns
    -------
    Transfer
        What was sent, was there already, is there with other bytes, or was left out because of a problem.

    Raises
    ------
    TransferError
        The address can't be read or written.
    CacheFolderError
        There is no such cache root; or the folder, or the address, is only a part of one, or above some (a `CacheRootError`).
    ImportError
        A package is missing that the address needs.

    Examples
    --------
    >>> push("/scratch/cache", "s3://group/cache")  # doctest: +SKIP
    """
    catalog = _catalog_of(folder_or_catalog)
    place = place_at(os.fspath(url), options or {}, permissions)
    if isinstance(place, Folder):
        roots.check_is_no_part(str(place))  # also of one that is to be made
    return send(str(catalog.folder), place, wanted(catalog, str(catalog.folder)), check=check, dry_run=dry_run)


def pull(
    url: str | Path,
    folder: str | Path,
    *,
    choose: Choice | None = None,
    options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    permissions: int | None = None,
) -> Transfer:
    """Take results that are missing here from a folder or an object store; those that are there already stay as they are.

    Every byte of what arrives is compared with its checksums. If it is interrupted, there are whole results or none, and it
    goes on when it is done again.

    Parameters
    ----------
    url:
        Where `push` has sent them, or any cache root. Loading a pickle runs code: pull only from where people write that you
        trust.
    folder:
        The cache root; made if it is not there.
    choose:
        Given the catalog of what is there, returns the entries that are wanted; None: all.
    options, dry_run:
        See `push`.
    permissions:
        Mode of new files, like ``0o770``; None: as the umask says.

    Returns
    -------
    Transfer
        What was added, was there already, is there with other bytes, or was left out because of a problem.

    Raises
    ------
    TransferError
        The address can't be read, or there is nothing.
    CacheFolderError
        The cache root can't be written to; or it, or the address, is only a part of one, or above some (a `CacheRootError`).
    ImportError
        A package is missing that the address needs.

    Examples
    --------
    >>> pull("s3://group/cache", "cache", choose=lambda there: there.filter("Train.run"))  # doctest: +SKIP
    """
    place = place_at(os.fspath(url), options or {})
    return _receive(place, folder, choose, dry_run=dry_run, permissions=permissions)


class _Nowhere(Folder):
    """A place where nothing is, for plans."""

    def __init__(self) -> None:
        super().__init__(os.devnull)


def _catalog_of(folder_or_catalog: str | Path | Catalog) -> Catalog:
    catalog = folder_or_catalog if isinstance(folder_or_catalog, Catalog) else Catalog(folder_or_catalog)
    roots.check_root(str(catalog.folder))
    return catalog


def _receive(place: Place, folder: str | Path, choose: Choice | None, *, dry_run: bool, permissions: int | None) -> Transfer:
    roots.check_is_no_part(str(folder))
    root = layout.absolute(folder)
    try:
        if not dry_run:
            os.makedirs(root, exist_ok=True)
    except OSError as error:
        msg = f"can't make the cache root {root}: {error.strerror or error}. Check the permissions."
        raise CacheFolderError(error.errno, msg) from error
    return receive(place, root, choose, dry_run=dry_run, permissions=permissions)


__all__ = ["FolderTransfer", "Transfer", "export_bundle", "import_bundle", "pull", "push"]
