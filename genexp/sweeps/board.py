"""What is shown and kept of several jobs: a live table while they run, and a ranked one when they have ended."""

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genexp.config.schema import Component
from genexp.runs.results import LOWER_IS_BETTER, on_valid, shown
from genexp.storage.files import atomic, last_json_line, read_json
from genexp.sweeps.jobs import Job
from genexp.tables import Document, Sheet, render
from genexp.text import duration

if TYPE_CHECKING:
    from rich.table import Table

WAITING, RUNNING, FINISHED, FAILED, STOPPED, PRUNED = "waiting", "running", "finished", "failed", "stopped", "pruned"
SETTINGS, LOSS, CAUSE = 1, 4, 6  # columns of the live table
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

    def start(self) -> None:
        """Say that its process was begun."""
        self.state, self.cause, self.first_seen, self.elsewhere = RUNNING, "", None, False
        self.attempts += 1

    def finish(self, results: dict[str, Any]) -> None:
        """Say that it came to its end, with these results."""
        self.state, self.cause, self.results, self.elsewhere = FINISHED, "", results, False

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
            state = f"{row.state}{again}"
            if row.state == WAITING:
                state = "waits, another process runs it" if row.elsewhere else "failed, to be tried again"
            number = f"{rows.index(row) + 1}/{total or len(rows)}"
            print(f"job {number} {state}: {settings(row, shared)}  {row.summary()}".rstrip(), flush=True)

    console = Console()
    if not console.is_terminal:
        yield line
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda _: live.update(live_table(rows, shared, *console.size[::-1], total), refresh=True)


def live_table(rows: list[Row], shared: set[str], height: int, width: int, total: int | None = None) -> "Table":
    """The jobs as they are now, in at most `height` lines of `width`; those that run and that failed come first."""
    from rich import box
    from rich.table import Table

    counts = {state: sum(row.state == state for row in rows) for state in ORDER}
    counts[WAITING] += (total or len(rows)) - len(rows)
    title = f"{total or len(rows)} job{'s' * ((total or len(rows)) != 1)}: " + ", ".join(
        f"{count} {state}" for state, count in counts.items() if count
    )
    chosen = set(sorted(rows, key=lambda row: ORDER.index(row.state))[: max(3, height - 7)])
    header = ("job", "settings", "state", "epoch", "loss", "left", "score or cause")
    lines = []
    for number, row in enumerate(rows, 1):
        if row in chosen:
            state = "elsewhere" if row.elsewhere else row.state
            lines.append((str(number), _short(settings(row, shared)), state, *_progress(row), row.summary()))
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    shown = list(range(len(header)))
    for dropped in (CAUSE, LOSS, None):  # where the terminal is too narrow for all of them
        left = width - 2 * len(shown) - 1 - sum(widths[column] for column in shown if column not in (SETTINGS, CAUSE))
        least = min(widths[CAUSE], 16) if CAUSE in shown else 0
        if dropped is None or left >= min(widths[SETTINGS], 16) + least:
            break
        shown.remove(dropped)
    widths[SETTINGS] = max(8, min(widths[SETTINGS], left - max(least, min(widths[CAUSE], left // 2) if least else 0)))
    widths[CAUSE] = max(1, left - widths[SETTINGS])
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in shown:
        table.add_column(header[column], no_wrap=True, overflow="ellipsis", max_width=widths[column])
    for line in lines:
        words = line[SETTINGS]
        if len(words) > widths[SETTINGS]:  # what differs is behind, more often than not
            words = f"…{words[len(words) - widths[SETTINGS] + 1 :]}"
        table.add_row(*(words if column == SETTINGS else line[column] for column in shown))
    if len(chosen) < len(rows):
        table.caption = f"and {len(rows) - len(chosen)} more"
    return table


def _short(words: str) -> str:
    """Settings without the groups that they are in: lr=0.1 for optimizer.lr=0.1."""
    return re.sub(r"(^| )\S*?\.(?=\w+=)", r"\1", words)


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
        "run",
    ]
    keys = {word.partition("=")[0] for row in rows for word in row.overrides if word not in shared}
    told = _short if len({key.rpartition(".")[2] for key in keys}) == len(keys) else str
    folder = _home([row.directory for row in rows])
    lines, records, causes, more = [], [], [], 0
    for position, row in enumerate(ranked, 1):
        rank = position if math.isfinite(_badness(row, by, lower)) else None
        chosen_by = on_valid(row.scores[by]) if by in row.scores else None
        seconds = row.results.get("train_seconds")
        asked = row.job.config.epochs if row.job is not None else math.inf
        is_more = row.results.get("epochs", 0) > asked
        more += is_more
        lines.append(
            [
                "–" if rank is None else str(rank),
                told(settings(row, shared)),
                row.state,
                *(["–" if chosen_by is None else f"{chosen_by:.4g}"] if beside else []),
                *(shown(row.scores[name]) if name in row.scores else "–" for name in names),
                f"{row.results['epochs']}{'†' * is_more}" if "epochs" in row.results else _progress(row)[0],
                duration(seconds) if seconds is not None else "",
                str(row.directory.relative_to(folder) if row.directory.is_relative_to(folder) else row.directory),
            ]
        )
        if row.cause:
            causes.append(f"{told(settings(row, shared))}: {row.state}, {row.cause}")
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
    if more:
        notes.append("†: more epochs than were asked for; the run had been trained on before, and is scored at its end")
    title = f"{len(rows)} job{'s' * (len(rows) != 1)}, runs in {folder}"
    return Document(title, [Sheet("", header, lines, records, left=("settings", "state", "run"))], [*notes, *causes])


def _home(runs: list[Path]) -> Path:
    """The folder that all these are in; a trial that could not be a run is nowhere."""
    try:
        return Path(os.path.commonpath([run.parent for run in runs if run != Path()]))
    except ValueError:  # no run at all, or some given by whole paths and some not
        return Path()


def _badness(row: Row, by: str, lower: bool) -> float:
    """What to sort by; infinite where there is no such score."""
    if by not in row.scores:
        return math.inf
    chosen_by = on_valid(row.scores[by])
    mean = float(row.scores[by]["mean"] if chosen_by is None else chosen_by)
    return math.inf if not math.isfinite(mean) else mean if lower else -mean
