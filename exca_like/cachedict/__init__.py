"""A dictionary in a folder: typed, checked, safe under concurrent readers and writers.

`CacheDict` is the dictionary, `FileEntry` one file by itself, `DumpContext` what handlers of one's own types are given.
"""

from exca_like.cachedict.context import DumpContext
from exca_like.cachedict.core import CacheDict
from exca_like.cachedict.file_entry import FileEntry

__all__ = ["CacheDict", "DumpContext", "FileEntry"]
