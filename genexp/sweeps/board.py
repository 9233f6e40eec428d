"""The live table of the jobs of a sweep or search."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genexp.storage.files import last_json_line
from genexp.sweeps.jobs import FAILED, FINISHED, PRUNED, RUNNING, STOPPED, WAITING, Job
from genexp.text import count, duration

if TYPE_CHECKING:
    from rich.table import Table

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


def live_table(jobs: list[Job], shared: set[str], height: int, width: int, total: int | None = None) -> "Table":
    """Return the jobs as they are now, in at most `height` lines of `width`; running and failed ones come first."""
    from rich import box
    from rich.table import Table

    total = total or len(jobs)
    counts = {state: sum(job.state == state for job in jobs) for state in ORDER}
    counts[WAITING] += total - len(jobs)
    title = f"{count(total, 'job')}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    chosen = set(sorted(jobs, key=lambda job: ORDER.index(job.state))[: max(3, height - 7)])
    lines: list[tuple[str, ...]] = []
    for number, job in enumerate(jobs, 1):
        if job in chosen:
            state = "elsewhere" if job.elsewhere else job.state
            settings = short(own_settings(job, shared))
            lines.append((str(number), settings, state, *progress(job), job.summary()))
    widths = _widths(lines, width)
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
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
        epochs = job.results.epochs if job.results is not None else "?"
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
    return f"{epoch}/{status.get('epochs', '?')}", loss, left


def own_settings(job: Job, shared: set[str]) -> str:
    """Return the settings that not all jobs have, with fewer digits than a search gives them."""
    own = " ".join(word for word in job.settings if word not in shared) or "(defaults)"
    return re.sub(r"\d+\.\d{5,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", own)


def short(settings: str) -> str:
    """Return settings without the groups that they are in: lr=0.1 for optimizer.lr=0.1."""
    return re.sub(r"(^| )\S*?\.(?=\w+=)", r"\1", settings)
