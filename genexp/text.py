"""Wording that all commands share: times, counts, numbers with their errors, and the nearest name to a mistyped one."""

import difflib
import io
import math
import sys
import time
from collections.abc import Iterable

TIME = "%Y-%m-%dT%H:%M:%S%z"  # ISO 8601, with the time zone


def now() -> str:
    """Return this moment in ISO 8601, with the time zone."""
    return time.strftime(TIME)


def duration(seconds: float) -> str:
    """Return M:SS or H:MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def age(seconds: float) -> str:
    """Return a time span in one unit: 3 min, 5 h or 2 days."""
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def count(n: int, noun: str) -> str:
    """Return "1 job" or "3,000 jobs"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def number(value: float | None, form: str) -> str:
    """Return the value in a format such as ".1f"; "–" if there is none, or it is not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"


def with_error(mean: float, stderr: float | None) -> str:
    """Return "mean ± stderr", both rounded to two digits of the error.

    Return the mean alone, with three digits unless it is a whole number, if the error is 0 or unknown.
    """
    if not stderr or not math.isfinite(stderr):  # a count has no error, and equal values have 0
        return number(mean, "g" if not math.isfinite(mean) or mean == round(mean) or abs(mean) >= 1000 else ".3g")
    return with_decimals(mean, stderr, max(0, 1 - math.floor(math.log10(stderr))))


def with_decimals(mean: float, stderr: float | None, decimals: int) -> str:
    """Return "mean ± stderr" with so many decimals; the mean alone if the error is unknown, "–" if the mean is."""
    if stderr is None or not (math.isfinite(mean) and math.isfinite(stderr)):
        return number(mean, f".{decimals}f")
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


ALSO_CALLED = {"gpu": "cuda", "metal": "mps"}  # by others, so that spelling would mislead


def percent(share: float, stderr: float | None, decimals: int) -> str:
    """Return a share and its standard error in percent: "98.9 ± 0.2 %"."""
    return f"{with_decimals(100 * share, None if stderr is None else 100 * stderr, decimals)} %"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(word: str, names: Iterable[str]) -> str:
    """Return ", did you mean 'X'?" for the closest of `names`, or nothing; a dotted name stays in its own group."""
    names = list(names)
    if (meant := ALSO_CALLED.get(word.lower())) in names:
        return f", did you mean '{meant}'?"
    in_capitals = [name for name in names if name.lower() == word.lower() and name != word]
    if in_capitals:
        return f", did you mean '{in_capitals[0]}'?"
    group, _, leaf = word.rpartition(".")
    siblings = [name for name in names if group and name.rpartition(".")[0] == group]
    by_leaf = {name.rpartition(".")[2]: name for name in reversed(siblings or names)}
    by_name = {} if siblings else {name: name for name in names}
    for candidates, text in ((by_name, word), (by_leaf, leaf)):  # the second finds model.latent_dim for latent_dim
        for close in difflib.get_close_matches(text, candidates, n=1, cutoff=0.6):
            return f", did you mean '{candidates[close]}'?"
    return ""


def print_any_text() -> None:
    """Have print() write what the terminal's encoding lacks as \\udcff: a folder's name need not be valid Unicode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
