"""The cache folder: a limit on what is kept of folders of images, and what lies there."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from genexp.errors import UsageError
from genexp.storage.files import cache_folder
from genexp.text import count

LIMIT = "GENEXP_CACHE_GB"  # environment variable
DEFAULT_GB = 20.0
KINDS = {  # the folders in the cache folder
    "folders": "decoded copies of folders of images",
    "classifiers": "classifiers, whose features are compared",
    "yardsticks": "scores of yardsticks",
    "recipes": "composed recipes of tables",
}


class Cached(NamedTuple):
    """A file in the cache folder."""

    file: Path
    size: int  # bytes
    last_used: float  # seconds since 1970; when it was written, where its reader does not note it


def limit() -> float:
    """Return how many bytes of decoded copies are kept. Raises UsageError if GENEXP_CACHE_GB is no such number."""
    text = os.environ.get(LIMIT) or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1
    if not gigabytes >= 0:
        raise UsageError(f"{LIMIT}={text} should be a number of gigabytes, 0 or more")
    return gigabytes * 1e9


def contents(folder: Path) -> list[Cached]:
    """Return the files in a folder of the cache, the one that was used last first."""
    return sorted(_files(folder), key=lambda cached: -cached.last_used)


def _files(folder: Path) -> Iterator[Cached]:
    for file in folder.glob("[!.]*"):
        with suppress(OSError):  # another process may remove it meanwhile
            status = file.stat()
            if file.is_file() and file.suffix != ".lock":
                yield Cached(file, status.st_size, status.st_mtime)


def used(file: Path) -> None:
    """Note that the file is used now."""
    with suppress(OSError):  # the cache may belong to another user
        os.utime(file)


def make_room(folder: Path, needed: int, what: str) -> bool:
    """Return True if `needed` bytes more may be kept in a folder of the cache.

    Files that were not used for the longest time are removed for it. Prints what is removed, or that `what` is too
    large to be kept.
    """
    allowed = limit()
    if needed > allowed:
        print(f"note: {what} takes {size_text(needed)}, and is not kept ({LIMIT} is {allowed / 1e9:g})", flush=True)
        return False
    files, removed = contents(folder), list[Cached]()
    while files and sum(cached.size for cached in files) + needed > allowed:
        removed.append(files.pop())
    for cached in removed:
        cached.file.unlink(missing_ok=True)
    if removed:
        size = size_text(sum(cached.size for cached in removed))
        print(f"note: {count(len(removed), 'file')} removed from {folder}, {size} ({LIMIT} is {allowed / 1e9:g})")
    return True


def clear(kind: str) -> int:
    """Remove what the cache has of a kind; return how many bytes that were."""
    files = contents(cache_folder(kind))
    for cached in files:
        cached.file.unlink(missing_ok=True)
    return sum(cached.size for cached in files)


def size_text(size: int) -> str:
    """Return a number of bytes in GB, or in MB below 1 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
