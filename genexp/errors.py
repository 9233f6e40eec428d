"""Errors for the person at the terminal: what was wrong, where, what to do. The exit codes are a contract."""

import os
import re
import sys

from genexp import ranks
from genexp.text import first_line


class GenexpError(Exception):
    """The run failed: data missing, disk full, diverged (exit code 1)."""

    exit_code = 1


class UsageError(GenexpError):
    """The command or its configuration was wrong (exit code 2)."""

    exit_code = 2


class HeldError(GenexpError):
    """Another process is at the run."""


class DataError(GenexpError):
    """A data set is missing or damaged."""


class DivergedError(GenexpError):
    """A loss or gradient became NaN or infinite."""


def explain(error: Exception) -> int:
    """Print an error for the person at the terminal; return its exit code."""
    if os.environ.get("GENEXP_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, GenexpError):
        message, code = str(error), error.exit_code
    elif isinstance(error, MemoryError) or re.search("can't allocate memory|out of memory", str(error)):
        asked = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGT]iB)", str(error))
        size = f": {asked.group(2) or f'{int(asked.group(1)) / 2**30:,.1f} GiB'} at once" if asked else ""
        message, code = f"not enough memory{size}\nSet what is large (n, n_samples, batch_size, the model) smaller", 1
    else:
        message, code = f"{type(error).__name__}: {first_line(error)}\nGENEXP_DEBUG=1 shows where it happened", 1
    which = f" (rank {ranks.rank()})" if ranks.rank() else ""
    print(f"genexp{which}: {message}", file=sys.stderr, flush=True)
    return code
