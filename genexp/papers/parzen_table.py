"""A table of Parzen scores: published numbers, this project's runs beside them, and yardsticks."""

import math
from dataclasses import dataclass
from typing import Any

from genexp.config.components import Component
from genexp.config.schema import TableConfig
from genexp.errors import GenexpError
from genexp.papers.answers import Answer, answer, experiment, runs_of
from genexp.papers.kept_yardsticks import yardsticks
from genexp.papers.notes import THEIS, Footnotes, minus
from genexp.papers.published import Cell, ParzenTable, Published, Row
from genexp.runs.find import RunState
from genexp.tables import Column, Document, Table
from genexp.text import first_line

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
        answered = [line for line in lines if line.answer is not None]
        notes += [f"{line.name} on {column.title}: {line.state}." for line in answered if line.state]
        notes.append(f"Published ± on {column.title}: {column.spread}.")
        digests = {line.answer.digest for line in answered if line.answer is not None}
        if len(digests) > 1:
            notes.append(f"The runs on {column.title} were not all trained on the same images: they do not compare.")
        if column.on_request and not digests:
            notes.append(f"{column.title} is given on request; nothing was run on it here, and it has no yardsticks.")
        else:
            digest = digests.pop() if len(digests) == 1 else None
            try:
                scores = yardsticks(recipe.dataset, metric, digest, config.data_dir, config.device)
            except GenexpError as error:
                notes.append(f"The yardsticks on {column.title} could not be computed: {first_line(error)}")
                scores = {}
            for name, score in scores.items():
                published = table.yardsticks.get(name, {}).get(key)
                lines.append(Line(f"yardstick: {YARDSTICKS[name]}", published, Answer.alone(score)))
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
    found = answer(recipe, metric, runs)
    if found is None:
        return Line(row.name, cell, None, f"{runs[0].status} {runs[0].epoch}/{runs[0].epochs}" if runs else "not run")
    others = "1 other run" if found.left_out == 1 else f"{found.left_out} other runs"
    reason = f"{others} of fewer epochs, other data or other settings left out" if found.left_out else ""
    return Line(row.name, cell, found, reason)


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
        answer = line.answer
        if answer is None:
            return line.state
        marks = "†" if answer.is_short else ""
        marks += "" if answer.exact and answer.score.n_samples == metric["n_samples"] else "‡"
        marks += "ᵐ" if answer.score.sample_kind == "mean" else ""
        stderr = "" if answer.stderr is None else f" ± {answer.stderr:.1f}"
        return minus(f"{answer.mean:.1f}{stderr}{footnotes.mark(marks)}")

    def of_answer(title: str, show: Any, **export: Any) -> Column:
        """Return a column of answers; a row without one has an empty cell."""
        return Column(
            title,
            lambda line: "" if line.answer is None else show(line),
            lambda line: {} if line.answer is None else {name: value(line) for name, value in export.items()},
        )

    def seeds(line: Line) -> str:
        spread = line.answer.seed_spread if line.answer else None
        return "" if spread is None else f"{spread:.1f} (n = {line.answer.runs if line.answer else 0})"

    def difference(line: Line) -> str:
        value = line.difference()
        return "" if value is None else minus(f"{value:+.1f}")

    return [
        Column("model", lambda line: line.name, lambda line: {"model": line.name}),
        Column("published", published, _published_record),
        Column("here ± test", here, _answer_record),
        of_answer(
            "± seeds", seeds, seed_spread=lambda line: line.answer.seed_spread, runs=lambda line: line.answer.runs
        ),
        of_answer("Δ/SE", difference, difference_in_standard_errors=lambda line: line.difference()),
        of_answer(
            "samples",
            lambda line: f"{line.answer.score.n_samples:,}",
            n_samples=lambda line: line.answer.score.n_samples,
            sample_kind=lambda line: line.answer.score.sample_kind,
        ),
        of_answer(
            "σ",
            lambda line: ", ".join(f"{sigma:.3g}" for sigma in line.answer.sigmas()),
            sigma=lambda line: line.answer.sigmas(),
        ),
        of_answer(
            "epochs",
            lambda line: line.answer.epochs,
            epochs=lambda line: line.answer.epoch if line.answer.epochs else None,
            recipe_epochs=lambda line: line.answer.recipe_epochs,
        ),
        of_answer(
            "min",
            lambda line: f"{line.answer.minutes:.1f}" if line.answer.epochs else "",
            minutes=lambda line: round(line.answer.minutes, 2) if line.answer.epochs else None,
        ),
    ]


def _published_record(line: Line) -> dict[str, Any]:
    number = line.published
    if number is None:
        return {}
    record = {"published": number.value, "published_spread": number.spread}
    return record | {
        "published_sample_kind": number.sample_kind,
        "status": number.status,
        "source": number.source,
    }


def _answer_record(line: Line) -> dict[str, Any]:
    record: dict[str, Any] = {"note": line.state}
    if line.answer is not None:
        record |= {"here": line.answer.mean, "stderr": line.answer.stderr}
    return record
