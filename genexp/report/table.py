"""The page of a table of a paper: its numbers as dots beside the published ones, verdicts, and each row's samples."""

import math
from collections.abc import Sequence

from genexp.papers.answers import experiment, runs_of
from genexp.papers.columns import Line
from genexp.papers.published import Paper, experiments
from genexp.report.charts import Dot, dots
from genexp.report.page import Film, Page, Section, film, grid_of, svg
from genexp.report.run import CAPTIONS
from genexp.rundirs.find import RunState
from genexp.tables import Document

YARDSTICK = "yardstick: "
NATS = ("parzen", "likelihood")  # kinds of tables whose numbers are in nats


def page_of_table(
    document: Document, paper: Paper, name: str, states: list[RunState], command: str, folder: str | None
) -> Page:
    """Return the page of a table as `genexp table` prints it, with what terminals cannot show."""
    table = paper.tables[name]
    page = Page(f"Table {name}" if name.isdigit() else table.title, document.title, command=command)
    for shown in document.tables:
        lines = [row for row in shown.rows if isinstance(row, Line)]
        chart = [("the numbers as dots", svg(dots(_dots(lines), "nats")))] if _has_numbers(lines, table.kind) else []
        notes = [verdict for line in lines if (verdict := _verdict(line))]
        page.sections.append(Section(shown.title or table.title, grids=[grid_of(shown)], charts=chart, notes=notes))
    films = _films(paper, name, states, folder)
    if films:
        page.sections.append(Section("Samples of each row", films=films))
    page.sections.append(Section("Notes", notes=document.all_notes()))
    return page


def _has_numbers(lines: Sequence[Line], kind: str) -> bool:
    return kind in NATS and any(line.answer is not None or line.published is not None for line in lines)


def _dots(lines: Sequence[Line]) -> list[Dot]:
    numbers: list[Dot] = []
    for line in lines:
        if line.name.startswith(YARDSTICK):
            if line.answer is not None:
                numbers.append(Dot(line.name.removeprefix(YARDSTICK), line.answer.mean, None, "yardstick"))
            continue
        if line.published is not None:
            numbers.append(Dot(line.name, line.published.value, line.published.spread, "published"))
        if line.answer is not None:
            numbers.append(Dot(line.name, line.answer.mean, line.answer.standard_error(), "here"))
    return numbers


def _verdict(line: Line) -> str:
    """Return in words whether a published number was reached: ours is at or above it, less its spread."""
    if line.published is None or line.answer is None or not math.isfinite(line.answer.mean):
        return ""
    ours, theirs = line.answer.mean, line.published
    spread = theirs.spread or 0.0
    by = abs(ours - theirs.value)
    side = "above" if ours >= theirs.value else "below"
    if ours >= theirs.value - spread:
        reached = "reached"
    elif line.answer.is_short:
        reached = f"not reached after {line.answer.epochs()} epochs"
    else:
        reached = "not reached"
    return f"{line.name}: {reached}; {ours:.1f} here is {by:.1f} {side} the published {theirs.value:g}."


def _films(paper: Paper, name: str, states: list[RunState], folder: str | None) -> list[Film]:
    """Return the newest samples of a run of each row that has one."""
    films = []
    for wanted in experiments(paper.tables[name], "full"):
        runs = [state for state in runs_of(experiment(wanted.train, folder), states) if state.run.samples.is_dir()]
        if runs:
            newest = film(runs[0].run.samples, wanted.name, CAPTIONS["samples"])
            films += [newest] if newest is not None else []
    return films
