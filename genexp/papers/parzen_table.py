"""A table of Parzen scores: published numbers, this project's runs beside them, and yardsticks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from genexp.config.components import Component
from genexp.config.schema import TableConfig
from genexp.errors import GenexpError
from genexp.papers.answers import Answer, answer, common_digest, experiment, runs_of, yardsticks
from genexp.papers.notes import THEIS, Footnotes, minus
from genexp.papers.published import Cell, ParzenTable, Published, Row
from genexp.runs.find import RunState
from genexp.tables import Column, Document, Table, values
from genexp.text import count, first_line

YARDSTICKS = {
    "training_images": "training images",
    "centroids": "k-means centroids",
    "mean_image": "mean image",
    "pixel_gaussian": "Gaussian of pixels",
}
MEANING = (
    "± test: standard error over test images (across folds where there are folds); ± seeds: standard deviation over "
    "training runs. Δ/SE: here less published, in combined standard errors: the published one, ours over test images, "
    "and ours over seeds (± seeds / √n) where there are several; that of a single run is not known, and not in it."
)


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


def parzen_document(
    config: TableConfig, folder: str | None, title: str, table: ParzenTable, states: list[RunState]
) -> Document:
    """Return the table with the runs' answers; `folder` holds the user's own configurations."""
    footnotes, notes, tables = Footnotes(), list[str](), []
    for key, column in table.columns.items():
        recipe = experiment(column.train, folder)
        metric = recipe.metrics["parzen"]
        lines = [_line(row, row.cells[key], metric, states, folder) for row in table.rows if key in row.cells]
        notes += [f"{line.name} on {column.title}: {line.state}." for line in lines if line.answer and line.state]
        notes.append(f"Published ± on {column.title}: {column.spread}.")
        answers = [line.answer for line in lines if line.answer]
        if column.note is not None and not answers:
            notes.append(f"{column.title}: {column.note}")
        if len({mean.digest for mean in answers}) > 1:
            notes.append(f"The runs on {column.title} were not all trained on the same images: they do not compare.")
        if column.on_request and not answers:
            notes.append(f"{column.title} is given on request; nothing was run on it here, and it has no yardsticks.")
        else:
            try:
                for name, score in yardsticks(config, recipe, common_digest(answers)).items():
                    published = table.yardsticks.get(name, {}).get(key)
                    lines.append(Line(f"yardstick: {YARDSTICKS[name]}", published, Answer.alone(score)))
            except GenexpError as error:
                notes.append(f"The yardsticks on {column.title} could not be computed: {first_line(error)}")
        tables.append(Table(_columns(metric, footnotes), lines, f"{table.title}: {column.title}"))
    for each in tables:
        each.cells()  # collects the footnotes
    return Document(title, tables, [*notes, MEANING, *footnotes.lines(), THEIS])


def _line(row: Row, cell: Cell, metric: Component, states: list[RunState], folder: str | None) -> Line:
    """Return the answer of this project's runs to a cell, or why there is none."""
    if cell.train is None:
        return Line(row.name, cell, None, row.missing or "no recipe yet")
    recipe = experiment(cell.train, folder)
    runs = runs_of(recipe, states)
    mean = answer(recipe, metric, runs)
    if mean is None:
        return Line(row.name, cell, None, f"{runs[0].status} {runs[0].epoch}/{runs[0].epochs}" if runs else "not run")
    others = f"{count(mean.left_out, 'other run')} of fewer epochs, other data or other settings left out"
    return Line(row.name, cell, mean, others if mean.left_out else "")


def _columns(metric: Component, footnotes: Footnotes) -> list[Column]:
    """Return the columns of the table, in which the marks and sources of the cells are collected."""

    def published(line: Line) -> str:
        number = line.published
        if number is None:
            return ""
        marks = {"recalled": "*", "quoted": "°"}.get(number.status, "")
        marks += "ᵐ" if number.sample_kind == "mean" else ""
        spread = "" if number.spread is None else f" ± {number.spread:g}"
        return f"{minus(f'{number.value:g}{spread}')}{footnotes.mark(marks)} {footnotes.number(number.source)}"

    def here(line: Line) -> str:
        mean = line.answer
        if mean is None:
            return line.state
        marks = "†" if mean.is_short else ""
        marks += "" if mean.exact and mean.score.n_samples == metric["n_samples"] else "‡"
        marks += "ᵐ" if mean.score.sample_kind == "mean" else ""
        stderr = "" if mean.stderr is None else f" ± {mean.stderr:.1f}"
        return minus(f"{mean.mean:.1f}{stderr}{footnotes.mark(marks)}")

    def difference(line: Line) -> str:
        value = line.difference()
        return "" if value is None else minus(f"{value:+.1f}")

    def sigmas(mean: Answer) -> str:
        return ", ".join(f"{sigma:.3g}" for sigma in mean.sigmas)

    def minutes(mean: Answer) -> str:
        return "" if mean.minutes is None else f"{mean.minutes:.1f}"

    return [
        Column("model", lambda line: line.name, values(model=lambda line: line.name)),
        Column("published", published, _published_record),
        Column("here ± test", here, values(note=lambda line: line.state, here=_of("mean"), stderr=_of("stderr"))),
        Column("± seeds", _cell(Answer.seeds), values(seed_spread=_of("seed_spread"), runs=_of("runs"))),
        Column("Δ/SE", difference, values(difference_in_standard_errors=Line.difference)),
        Column(
            "samples",
            _cell(lambda mean: f"{mean.score.n_samples:,}"),
            values(n_samples=_of("score.n_samples"), sample_kind=_of("score.sample_kind")),
        ),
        Column("σ", _cell(sigmas), values(sigma=_of("sigmas"))),
        Column("epochs", _cell(Answer.epochs), values(epochs=_of("epoch"), recipe_epochs=_of("recipe_epochs"))),
        Column("min", _cell(minutes), values(minutes=_of("minutes"))),
    ]


def _cell(show: Callable[[Answer], str]) -> Callable[[Line], str]:
    """Return what shows a row's answer; a row without one has an empty cell."""
    return lambda line: "" if line.answer is None else show(line.answer)


def _of(attribute: str) -> Callable[[Line], Any]:
    """Return what reads an attribute of a row's answer; of a row without one, None."""
    read = attrgetter(attribute)
    return lambda line: None if line.answer is None else read(line.answer)


def _published_record(line: Line) -> dict[str, Any]:
    names = {"value": "published", "spread": "published_spread", "sample_kind": "published_sample_kind"}
    names |= {"status": "status", "source": "source"}
    return {} if line.published is None else {name: getattr(line.published, key) for key, name in names.items()}
