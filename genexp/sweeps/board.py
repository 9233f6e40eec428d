"""The tables of a sweep or search: a live one of the jobs that run, and a closing one, best first."""

import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genexp.config.components import is_diagnosis, lower_is_better
from genexp.layout import terminal_width
from genexp.rundirs.names import common_folder, short_name
from genexp.score import Score
from genexp.storage.files import atomic, last_json_line
from genexp.sweeps.jobs import FAILED, FINISHED, PRUNED, RUNNING, STOPPED, WAITING, Job
from genexp.tables import Column, Document, Table, render
from genexp.text import count, duration, number

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HEADER = ("job", "settings", "state", "epoch", "loss", "left", "score or cause")
SETTINGS, LOSS, CAUSE = 1, 4, 6  # columns
ORDER = (RUNNING, FAILED, STOPPED, FINISHED, PRUNED, WAITING)  # in which jobs get the lines that a terminal has


@contextmanager
def display(jobs: list[Job], shared: set[str], total: int | None = None) -> Iterator[Callable[[Job | None], None]]:
    """Show a live table on a terminal; elsewhere a line when a job begins or ends.

    Yields a function to be called with a job whose state changed, or with None from time to time. `jobs` may grow, up
    to `total`; `shared` settings are not shown.
    """
    from rich.console import Console
    from rich.live import Live

    def print_line(job: Job | None) -> None:
        if job is not None:
            state = f"{job.state} (attempt {job.attempts})" if job.attempts > 1 and job.state == RUNNING else job.state
            if job.state == WAITING:
                state = "waits, another process runs it" if job.elsewhere else "failed, to be tried again"
            number = f"{jobs.index(job) + 1}/{total or len(jobs)}"
            print(f"job {number} {state}: {own_settings(job, shared)}  {job.summary()}".rstrip(), flush=True)

    console = Console()
    if not console.is_terminal:
        yield print_line
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda _: live.update(live_table(jobs, shared, *console.size[::-1], total), refresh=True)


def live_table(jobs: list[Job], shared: set[str], height: int, width: int, total: int | None = None) -> "RichTable":
    """Return the jobs as they are now, in at most `height` lines of `width`; running and failed ones come first."""
    from rich import box
    from rich.table import Table as RichTable

    total = total or len(jobs)
    counts = {state: sum(job.state == state for job in jobs) for state in ORDER}
    counts[WAITING] += total - len(jobs)
    title = f"{count(total, 'job')}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    chosen = set(sorted(jobs, key=lambda job: ORDER.index(job.state))[: max(3, height - 7)])
    lines: list[tuple[str, ...]] = []
    for place, job in enumerate(jobs, 1):
        if job in chosen:
            state = "elsewhere" if job.elsewhere else job.state
            settings = short(own_settings(job, shared))
            lines.append((str(place), settings, state, *progress(job), job.summary()))
    widths = _widths(lines, width)
    table = RichTable(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column, column_width in widths.items():
        table.add_column(HEADER[column], no_wrap=True, overflow="ellipsis", max_width=column_width)
    for line in lines:
        settings = line[SETTINGS]
        if len(settings) > widths[SETTINGS]:  # the end tells more than the beginning, most often
            settings = f"…{settings[len(settings) - widths[SETTINGS] + 1 :]}"
        table.add_row(*(settings if column == SETTINGS else line[column] for column in widths))
    if len(chosen) < len(jobs):
        table.caption = f"and {len(jobs) - len(chosen)} more"
    return table


def _widths(lines: list[tuple[str, ...]], width: int) -> dict[int, int]:
    """Return the columns for which the terminal is wide enough, with their widths."""
    widths = {column: max(len(line[column]) for line in (HEADER, *lines)) for column in range(len(HEADER))}
    for dropped in (CAUSE, LOSS, None):
        fixed = sum(widths[column] for column in widths if column not in (SETTINGS, CAUSE))
        left = width - 2 * len(widths) - 1 - fixed  # for the settings and the cause
        least = min(widths.get(CAUSE, 0), 16)
        if dropped is None or left >= min(widths[SETTINGS], 16) + least:
            break
        del widths[dropped]
    cause = max(least, min(widths.get(CAUSE, 0), left // 2)) if least else 0
    widths[SETTINGS] = max(8, min(widths[SETTINGS], left - cause))
    if CAUSE in widths:
        widths[CAUSE] = max(1, left - widths[SETTINGS])
    return widths


def progress(job: Job) -> tuple[str, str, str]:
    """Return the epoch, the losses and the time left of a job, as its run tells them."""
    status = job.run.status()
    steps = status.get("steps")
    if job.state == WAITING or (job.state == RUNNING and not steps):
        return "", "", ""
    if job.state == FINISHED:
        epochs = job.run.epochs(job.results) if job.results is not None else "?"
        return f"{epochs}/{epochs}", "", ""
    line = last_json_line(job.run.metrics_file)
    step, epoch = (max(line.get(key, 0), status.get(key, 0)) for key in ("step", "epoch"))
    loss = " / ".join(f"{value:.3f}" for name, value in line.items() if name.startswith("loss/"))
    left = ""
    if job.state == RUNNING and steps:
        now = time.monotonic()
        job.first_seen = job.first_seen or (now, step)
        begun, from_step = job.first_seen
        if step >= steps:
            left = "scoring"
        elif step > from_step:
            left = duration((now - begun) / (step - from_step) * (steps - step))
    stage = f"{status['stage']}: " if status.get("stage") else ""
    return f"{stage}{epoch}/{status.get('epochs', '?')}", loss, left


def own_settings(job: Job, shared: set[str]) -> str:
    """Return the settings that not all jobs have, with fewer digits than a search gives them; or the job's name."""
    if job.name:
        return job.name
    own = " ".join(word for word in job.settings if word not in shared) or "(defaults)"
    return re.sub(r"\d+\.\d{5,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", own)


def short(settings: str) -> str:
    """Return settings without the groups that they are in: lr=0.1 for optimizer.lr=0.1."""
    return re.sub(r"(^| )\S*?\.(?=\w+=)", r"\1", settings)


def close(jobs: list[Job], folder: Path, rank_by: str | None, shared: set[str]) -> None:
    """Print the closing table, and keep it in `folder` as CSV and as Markdown."""
    document = ranking(jobs, rank_by, shared)
    print(f"\n{render(document, 'terminal', terminal_width())}", end="", flush=True)
    files = {"csv": folder / "table.csv", "markdown": folder / "table.md"}
    try:
        for form, file in files.items():
            with atomic(file) as stream:
                stream.write(render(document, form).encode(errors="backslashreplace"))
    except OSError as error:
        print(f"warning: {folder} cannot be written: {error.strerror}; the table is not kept", flush=True)
        return
    print(f"table: {', '.join(map(str, files.values()))}; what each job printed: {folder / 'logs'}", flush=True)


def ranking(jobs: list[Job], rank_by: str | None, shared: set[str]) -> Document:
    """Return the jobs, best first: by the named score or the first one, on validation images if it has a mean there."""
    names = list(dict.fromkeys(name for job in jobs for name in job.scores))
    metrics = {name: metric for job in jobs if job.config is not None for name, metric in job.config.metrics.items()}
    by = rank_by or next((name for name in names if not is_diagnosis(metrics.get(name))), "")
    deciding = [job.scores[by] for job in jobs if by in job.scores]
    lower = lower_is_better(metrics[by]) if by in metrics else any(score.lower_is_better for score in deciding)
    keys = {job: job.scores[by].sort_key(lower) if by in job.scores else math.inf for job in jobs}
    best_first = sorted(jobs, key=lambda job: keys[job])
    ranks = {job: rank if math.isfinite(keys[job]) else None for rank, job in enumerate(best_first, 1)}
    changed = {word.partition("=")[0] for job in jobs for word in job.settings if word not in shared}
    unique = len({key.rpartition(".")[2] for key in changed}) == len(changed)

    def shown(job: Job) -> str:
        own = own_settings(job, shared)
        return short(own) if unique else own

    def run(job: Job) -> str:
        return str(job.run.path).removeprefix(f"{folder}{os.sep}")

    on_valid = any(score.on_valid is not None for score in deciding)
    beside = on_valid and any(score.split != "valid" for score in deciding)
    folder = common_folder([job.run.path for job in jobs])
    columns = [
        Column("rank", lambda job: str(ranks[job] or "–"), lambda job: {"rank": ranks[job]}),
        Column("job" if any(job.name for job in jobs) else "settings", shown, _named_settings, True, "start"),
        Column("state", lambda job: job.state, lambda job: {"state": job.state, "cause": job.cause}, True),
        *([Column(f"{by}, valid", lambda job: _on_valid(job.scores.get(by)))] if beside else []),
        *(_score_column(name, jobs) for name in names),
        Column("epochs", _epochs, _trained_epochs),
        Column("time", _time, lambda job: {"train_seconds": getattr(job.results, "train_seconds", None)}),
        Column("run", run, lambda job: {"run": str(job.run.path)}, True, brief=lambda job: short_name(job.run.path)),
    ]
    notes = []
    if by:
        lowest = ", the lowest first" if lower else ""
        notes.append(f"ranked by {by}, its mean{' on validation images' if on_valid else ''}{lowest}")
    if shared:
        notes.append(f"all: {' '.join(sorted(shared))}")
    if any("†" in _epochs(job) for job in jobs):
        notes.append("†: more epochs than were asked for; the run had been trained on before, and is scored at its end")
    notes += [f"{shown(job)}: {job.state}, {job.cause}" for job in best_first if job.cause]
    remarks = [(job, remark) for job in best_first if job.results is not None for remark in job.results.remarks]
    notes += [f"{shown(job)}: {remark}" for job, remark in remarks]
    unknown = [(job, name) for job in best_first for name, score in job.scores.items() if score.reason]
    notes += [f"{shown(job)}: {name} is not known: {job.scores[name].reason}" for job, name in unknown]
    return Document(f"{count(len(jobs), 'job')}, runs in {folder}", [Table(columns, best_first)], notes)


def _score_column(name: str, jobs: list[Job]) -> Column:
    split = next(job.scores[name].split for job in jobs if name in job.scores)

    def export(job: Job) -> dict[str, Any]:
        score = job.scores.get(name)
        if score is None:
            return {}
        return {name: score.mean, f"{name}_stderr": score.stderr, f"{name}_valid": score.on_valid}

    title = name if split in (None, "test") else f"{name}, {split}"
    return Column(title, lambda job: str(job.scores.get(name, "–")), export)


def _named_settings(job: Job) -> dict[str, str]:
    name = {"job": job.name} if job.name else {}
    return name | dict(word.split("=", 1) for word in job.settings if "=" in word)


def _on_valid(score: Score | None) -> str:
    return number(None if score is None else score.on_valid, ".4g")


def _trained_epochs(job: Job) -> dict[str, int | None]:
    return {"trained_epochs": None if job.results is None else job.run.epochs(job.results)}


def _epochs(job: Job) -> str:
    """Return the epochs of a job's run, with a mark if they are more than the job asked for."""
    if job.results is None:
        return progress(job)[0]
    more = job.config is not None and job.results.epochs > job.config.epochs
    return f"{job.run.epochs(job.results)}{'†' if more else ''}"


def _time(job: Job) -> str:
    return "" if job.results is None else duration(job.results.train_seconds)
