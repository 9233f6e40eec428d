"""What is shown and kept of several jobs: a live table while they run, and a ranked one when they have ended."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genexp.clock import duration
from genexp.config import Component
from genexp.files import atomic, last_json_line, read_json
from genexp.jobs import Job
from genexp.results import LOWER_IS_BETTER, on_valid, shown
from genexp.sheets import Document, Sheet, render

if TYPE_CHECKING:
    from rich.table import Table

WAITING, RUNNING, FINISHED, FAILED, STOPPED, PRUNED = "waiting", "running", "finished", "failed", "stopped", "pruned"
ORDER = (RUNNING, FAILED, STOPPED, FINISHED, PRUNED, WAITING)  # in which jobs get the lines that a terminal has


@dataclass(eq=False)
class Row:
    """A job, and how it fares."""

    overrides: tuple[str, ...]
    directory: Path
    job: Job | None = None  # None for one of an earlier session that has ended
    state: str = WAITING
    cause: str = ""  # why it failed
    attempts: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    first_seen: tuple[float, int] | None = None  # time and step of its first sign of life in this session
    elsewhere: bool = False  # another process holds its run

    @classmethod
    def of(cls, job: Job) -> "Row":
        """The row of a job that has not begun."""
        return cls(job.overrides, job.directory, job)

    @property
    def scores(self) -> dict[str, Any]:
        found: dict[str, Any] = self.results.get("scores", {})
        return found

    def summary(self) -> str:
        """Its scores, or why it has none."""
        if self.state == FINISHED:
            return ", ".join(f"{name} {shown(score)}" for name, score in self.scores.items())
        return self.cause


def common(rows: Sequence[Row]) -> set[str]:
    """The overrides that all rows have."""
    return set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()


def settings(row: Row, shared: set[str]) -> str:
    """The overrides that are the row's own, with fewer digits than a search gives them."""
    own = " ".join(word for word in row.overrides if word not in shared) or "(defaults)"
    return re.sub(r"\d+\.\d{5,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", own)


@contextmanager
def display(rows: list[Row], shared: set[str], total: int | None = None) -> Iterator[Callable[[Row | None], None]]:
    """A live table on a terminal; elsewhere a line when a job begins or ends. What it yields is told which one did.

    `rows` may grow, up to `total`; `shared` overrides are not shown.
    """
    from rich.console import Console
    from rich.live import Live

    def line(row: Row | None) -> None:
        if row is not None:
            again = f" (attempt {row.attempts})" if row.attempts > 1 and row.state == RUNNING else ""
            state = "failed, to be tried again" if row.state == WAITING else f"{row.state}{again}"
            number = f"{rows.index(row) + 1}/{total or len(rows)}"
            print(f"job {number} {state}: {settings(row, shared)}  {row.summary()}".rstrip(), flush=True)

    console = Console()
    if not console.is_terminal:
        yield line
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda _: live.update(live_table(rows, shared, console.height, total), refresh=True)


def live_table(rows: list[Row], shared: set[str], height: int, total: int | None = None) -> "Table":
    """The jobs as they are now, in at most `height` lines; those that run and that failed come first."""
    from rich import box
    from rich.table import Table

    counts = {state: sum(row.state == state for row in rows) for state in ORDER}
    counts[WAITING] += (total or len(rows)) - len(rows)
    title = f"{total or len(rows)} jobs: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("job", "settings", "state", "epoch", "loss", "left", "score or cause"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    chosen = sorted(rows, key=lambda row: ORDER.index(row.state))[: max(3, height - 7)]
    for number, row in enumerate(rows, 1):
        if row in chosen:
            epoch, loss, left = _progress(row)
            state = "another process runs it" if row.elsewhere else row.state
            table.add_row(str(number), settings(row, shared), state, epoch, loss, left, row.summary())
    if len(chosen) < len(rows):
        table.caption = f"and {len(rows) - len(chosen)} more"
    return table


def _progress(row: Row) -> tuple[str, str, str]:
    """Epoch, losses and time left of a job, as its run tells them."""
    status = read_json(row.directory / "status.json")
    steps = status.get("steps")
    if row.state == WAITING or (row.state == RUNNING and not steps):
        return "", "", ""
    if row.state == FINISHED:
        epochs = row.results.get("epochs", "?")
        return f"{epochs}/{epochs}", "", ""
    line = last_json_line(row.directory / "metrics.jsonl")
    step, epoch = (max(line.get(key, 0), status.get(key, 0)) for key in ("step", "epoch"))
    loss = " / ".join(f"{value:.3f}" for name, value in line.items() if name.startswith("loss/"))
    left = ""
    if row.state == RUNNING and steps:
        now = time.monotonic()
        row.first_seen = row.first_seen or (now, step)
        begun, from_step = row.first_seen
        if step >= steps:
            left = "scoring"
        elif step > from_step:
            left = duration((now - begun) / (step - from_step) * (steps - step))
    return f"{epoch}/{status.get('epochs', '?')}", loss, left


def close(rows: list[Row], folder: Path, rank_by: str | None, shared: set[str], metrics: dict[str, Component]) -> None:
    """Print the closing table, and keep it in `folder` as CSV and as Markdown."""
    document = ranking(rows, rank_by, shared, metrics)
    print(f"\n{render(document, 'terminal')}", end="", flush=True)
    try:
        for form, name in (("csv", "table.csv"), ("markdown", "table.md")):
            with atomic(folder / name) as stream:
                stream.write(render(document, form).encode())
    except OSError as error:
        print(f"warning: {folder} cannot be written: {error.strerror}; the table is not kept", flush=True)
        return
    print(f"table: {folder / 'table.csv'}, {folder / 'table.md'}; what each job printed: {folder / 'logs'}", flush=True)


def ranking(rows: list[Row], rank_by: str | None, shared: set[str], metrics: dict[str, Component]) -> Document:
    """The jobs, best first: by the named score, or the first one; on validation images where it has such a mean.

    `metrics` are the components by whose names in the configuration the scores are called.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    by = rank_by or next(iter(names), "")
    lower = metrics.get(by, {}).get("name") in LOWER_IS_BETTER
    ranked = sorted(rows, key=lambda row: _badness(row, by, lower))
    splits = {name: score.get("split", "test") for row in rows for name, score in row.scores.items()}
    valid = any(on_valid(row.scores[by]) is not None for row in rows if by in row.scores)
    beside = valid and splits[by] != "valid"  # it has another mean on validation images, which is shown as well
    header = [
        "rank",
        "settings",
        "state",
        *([f"{by}, valid"] if beside else []),
        *(name if splits[name] == "test" else f"{name}, {splits[name]}" for name in names),
        "epochs",
        "time",
        "run or cause",
    ]
    lines, records = [], []
    for position, row in enumerate(ranked, 1):
        rank = position if math.isfinite(_badness(row, by, lower)) else None
        chosen_by = on_valid(row.scores[by]) if by in row.scores else None
        seconds = row.results.get("train_seconds")
        lines.append(
            [
                "–" if rank is None else str(rank),
                settings(row, shared),
                row.state,
                *(["–" if chosen_by is None else f"{chosen_by:.4g}"] if beside else []),
                *(shown(row.scores[name]) if name in row.scores else "–" for name in names),
                str(row.results.get("epochs", "")),
                duration(seconds) if seconds is not None else "",
                str(row.directory) if row.state == FINISHED else row.cause,
            ]
        )
        record: dict[str, Any] = {"rank": rank, **dict(word.split("=", 1) for word in row.overrides if "=" in word)}
        record |= {"state": row.state, "cause": row.cause}
        for name, score in row.scores.items():
            record |= {name: score["mean"], f"{name}_stderr": score["stderr"], f"{name}_valid": on_valid(score)}
        records.append(
            record | {"trained_epochs": row.results.get("epochs"), "train_seconds": seconds, "run": str(row.directory)}
        )
    notes = [f"all: {' '.join(sorted(shared))}"] if shared else []
    if by:
        where = "its mean on validation images" if valid else "its mean"
        notes.insert(0, f"ranked by {by}, {where}{', the lowest first' if lower else ''}")
    words = ("settings", "state", "run or cause")
    return Document(f"{len(rows)} jobs", [Sheet("", header, lines, records, left=words)], notes)


def _badness(row: Row, by: str, lower: bool) -> float:
    """What to sort by; infinite where there is no such score."""
    if by not in row.scores:
        return math.inf
    chosen_by = on_valid(row.scores[by])
    mean = float(row.scores[by]["mean"] if chosen_by is None else chosen_by)
    return math.inf if not math.isfinite(mean) else mean if lower else -mean
