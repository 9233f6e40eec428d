"""`genexp cache`: list what the cache folder holds, or remove a kind of it. torch is not loaded."""

import time
from typing import NamedTuple

from genexp.config.command_line import CommandLine
from genexp.config.commands import CacheConfig
from genexp.storage import caches
from genexp.storage.caches import KINDS, Cached
from genexp.storage.files import cache_folder
from genexp.tables import Column, Table, print_table
from genexp.text import age, count


class Row(NamedTuple):
    """A row of the table: a file in the cache folder."""

    kind: str
    cached: Cached


COLUMNS = (
    Column("kind", lambda row: row.kind, left=True),
    Column("size", lambda row: caches.size_text(row.cached.size)),
    Column("last used", lambda row: age(time.time() - row.cached.last_used), left=True),
    Column("of", lambda row: _about(row), left=True),
    Column("file", lambda row: row.cached.file.name, left=True),
)


def main(config: CacheConfig, _line: CommandLine) -> None:
    """Print a table of the cached files, and the limit; or remove those of a kind."""
    folder, allowed = cache_folder(""), caches.limit()
    if config.clear is not None:
        size = caches.clear(config.clear)
        print(f"removed {KINDS[config.clear]} from {folder / config.clear}, {caches.size_text(size)}")
        return
    rows = [Row(kind, cached) for kind in KINDS for cached in caches.contents(folder / kind)]
    if rows:
        print_table(Table(COLUMNS, rows))
    total = sum(row.cached.size for row in rows)
    print(f"{count(len(rows), 'file')}, {caches.size_text(total)}, in {folder}; all of it can be made again")
    print(f"decoded images may take {allowed / 1e9:g} GB ({caches.LIMIT}); clear=KIND removes those of a kind")


def _about(row: Row) -> str:
    """Return which images a decoded copy is of, and their size."""
    if row.kind != "folders":
        return ""
    import numpy as np

    try:
        with np.load(row.cached.file, allow_pickle=False) as content:
            return bytes(content["about"].item()).decode(errors="replace")
    except Exception:  # a damaged file raises whatever its bytes lead to
        return "damaged"
