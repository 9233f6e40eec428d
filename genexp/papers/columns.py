"""The rows of tables of published numbers beside this project's answers, and the columns that such tables share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from genexp.config.components import Component
from genexp.papers.answers import Answer, answer, experiment, runs_of
from genexp.papers.notes import Footnotes, minus
from genexp.papers.published import Cell, LikelihoodRow, Published, Row
from genexp.rundirs.find import RunState
from genexp.tables import Column, values
from genexp.text import count, with_decimals


@dataclass(frozen=True)
class Line:
    """A row of the table: a published number, and its answer or why there is none."""

    name: str
    published: Published | None
    answer: Answer | None
    state: str = ""

    def difference(self) -> float | None:
        """Return the answer less the published number, in combined standard errors."""
        if self.answer is None or self.published is None or self.published.spread is None:
            return None
        combined = math.hypot(self.answer.standard_error(), self.published.spread)
        return (self.answer.mean - self.published.value) / combined if combined else None


def line_of(
    row: Row | LikelihoodRow, cell: Cell, metric: Component | None, states: list[RunState], folder: str | None
) -> Line:
    """Return the answer by `metric` of this project's runs to a cell of a row, or why there is none."""
    if cell.train is None or metric is None:
        return Line(row.name, cell, None, row.missing or "no recipe yet")
    recipe = experiment(cell.train, folder)
    runs = runs_of(recipe, states)
    mean = answer(recipe, metric, runs)
    if mean is None:
        return Line(row.name, cell, None, f"{runs[0].status} {runs[0].epoch}/{runs[0].epochs}" if runs else "not run")
    notes = [f"not known, {mean.score.reason}"] if not mean.score.is_known else []
    others = f"{count(mean.left_out, 'other run')} of fewer epochs, other data or other settings, or without a number"
    notes += [f"{others}, left out"] if mean.left_out else []
    return Line(row.name, cell, mean, "; ".join(notes))


def published_column(footnotes: Footnotes) -> Column:
    """Return the column of published numbers; `footnotes` collects their marks and sources."""

    def show(line: Line) -> str:
        number = line.published
        if number is None:
            return ""
        marks = {"recalled": "*", "quoted": "°"}.get(number.status, "")
        marks += "ᵐ" if number.sample_kind == "mean" else ""
        spread = "" if number.spread is None else f" ± {number.spread:g}"
        return f"{minus(f'{number.value:g}{spread}')}{footnotes.mark(marks)} {footnotes.number(number.source)}"

    def export(line: Line) -> dict[str, Any]:
        names = {"value": "published", "spread": "published_spread", "sample_kind": "published_sample_kind"}
        names |= {"status": "status", "source": "source"}
        return {} if line.published is None else {name: getattr(line.published, key) for key, name in names.items()}

    return Column("published", show, export)


def here_column(footnotes: Footnotes, decimals: int, n_samples: int | None = None) -> Column:
    """Return the column of this project's answers; those of other than `n_samples` samples, if given, are marked."""

    def show(line: Line) -> str:
        mean = line.answer
        if mean is None:
            return line.state
        marks = "†" if mean.is_short else ""
        marks += "" if mean.exact and n_samples in (None, mean.score.n_samples) else "‡"
        marks += "ᵐ" if mean.score.sample_kind == "mean" else ""
        return minus(f"{with_decimals(mean.mean, mean.stderr, decimals)}{footnotes.mark(marks)}")

    return Column("here ± test", show, values(note=lambda line: line.state, here=of("mean"), stderr=of("stderr")))


def model_column() -> Column:
    return Column("model", lambda line: line.name, values(model=lambda line: line.name), cut="end")


def seeds_column(decimals: int) -> Column:
    """Return the column of the spread over seeds, and of their number."""

    def seeds(mean: Answer) -> str:
        return "" if mean.seed_spread is None else f"{mean.seed_spread:.{decimals}f} (n = {mean.runs})"

    return Column("± seeds", cell(seeds), values(seed_spread=of("seed_spread"), runs=of("runs")))


def samples_column() -> Column:
    def samples(mean: Answer) -> str:
        return "" if mean.score.n_samples is None else f"{mean.score.n_samples:,}"

    export = values(n_samples=of("score.n_samples"), sample_kind=of("score.sample_kind"))
    return Column("samples", cell(samples), export)


def training_columns() -> list[Column]:
    """Return the columns of epochs and minutes of training."""

    def minutes(mean: Answer) -> str:
        return "" if mean.minutes is None else f"{mean.minutes:.1f}"

    return [
        Column("epochs", cell(Answer.epochs), values(epochs=of("epoch"), recipe_epochs=of("recipe_epochs"))),
        Column("min", cell(minutes), values(minutes=of("minutes"))),
    ]


def cell(show: Callable[[Answer], str]) -> Callable[[Line], str]:
    """Return what shows a row's answer; a row without one has an empty cell."""
    return lambda line: "" if line.answer is None else show(line.answer)


def of(attribute: str) -> Callable[[Line], Any]:
    """Return what reads an attribute of a row's answer; of a row without one, None."""
    read = attrgetter(attribute)
    return lambda line: None if line.answer is None else read(line.answer)
