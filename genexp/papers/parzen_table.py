"""A table of Parzen scores: published numbers, this project's runs beside them, and yardsticks."""

from genexp.config.commands import TableConfig
from genexp.config.components import Component
from genexp.errors import GenexpError
from genexp.papers.answers import Answer, common_digest, experiment, runs_of, yardsticks
from genexp.papers.beside import CHAINS, WEIGHTS, Named, chains_table, weights_table
from genexp.papers.columns import (
    Line,
    cell,
    here_column,
    line_of,
    model_column,
    of,
    published_column,
    samples_column,
    seeds_column,
    training_columns,
)
from genexp.papers.notes import THEIS, Footnotes, minus
from genexp.papers.published import Cell, ParzenTable
from genexp.rundirs.find import RunState
from genexp.tables import Column, Document, Table, values
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


def parzen_document(
    config: TableConfig, folder: str | None, title: str, table: ParzenTable, states: list[RunState]
) -> Document:
    """Return the table with the runs' answers; `folder` holds the user's own configurations."""
    footnotes, notes, asides, tables = Footnotes(), list[str](), list[str](), []
    for key, column in table.columns.items():
        recipe = experiment(column.train, folder)
        metric = recipe.metrics["parzen"]
        rows = [row for row in table.rows if key in row.cells]
        lines = [line_of(row, row.cells[key], metric, states, folder) for row in rows]
        asides += [f"{line.name} on {column.title}: {line.state}." for line in lines if line.answer and line.state]
        notes.append(f"Published ± on {column.title}: {column.spread}.")
        answers = [line.answer for line in lines if line.answer]
        if column.note is not None and not answers:
            asides.append(f"{column.title}: {column.note}")
        if len({mean.digest for mean in answers}) > 1:
            asides.append(f"The runs on {column.title} were not all trained on the same images: they do not compare.")
        if column.on_request and not answers:
            asides.append(f"{column.title} is given on request; nothing was run on it here, and it has no yardsticks.")
        else:
            try:
                for name, score in yardsticks(config, recipe, common_digest(answers)).items():
                    published = table.yardsticks.get(name, {}).get(key)
                    lines.append(Line(f"yardstick: {YARDSTICKS[name]}", published, Answer.alone(score)))
            except GenexpError as error:
                asides.append(f"The yardsticks on {column.title} could not be computed: {first_line(error)}")
        tables.append(Table(_columns(metric, footnotes), lines, f"{table.title}: {column.title}"))
        cells = [(row.name, row.cells[key]) for row in table.rows if key in row.cells]
        with_runs = [each for cell in cells if (each := _with_runs(*cell, states, folder)) is not None]
        for beside, meaning in (
            (chains_table(with_runs, f"Chains: {column.title}", footnotes), CHAINS),
            (weights_table(with_runs, f"Averaged weights: {column.title}", footnotes), WEIGHTS),
        ):
            if beside is not None:
                tables.append(beside)
                notes.append(meaning)
    for shown in tables:
        shown.cells()  # collects the footnotes
    notes += [MEANING, *footnotes.lines(), THEIS]
    return Document(title, tables, notes, list(footnotes.sources), asides)


def _with_runs(name: str, cell: Cell, states: list[RunState], folder: str | None) -> Named | None:
    """Return the runs of a cell; None if it names no experiment."""
    if cell.train is None:
        return None
    recipe = experiment(cell.train, folder)
    return Named(name, recipe, runs_of(recipe, states))


def _columns(metric: Component, footnotes: Footnotes) -> list[Column]:
    """Return the columns of the table, in which the marks and sources of the cells are collected."""

    def difference(line: Line) -> str:
        value = line.difference()
        return "" if value is None else minus(f"{value:+.1f}")

    def sigmas(mean: Answer) -> str:
        return ", ".join(f"{sigma:.3g}" for sigma in mean.sigmas)

    return [
        model_column(),
        published_column(footnotes),
        here_column(footnotes, 1, metric["n_samples"]),
        seeds_column(1),
        Column("Δ/SE", difference, values(difference_in_standard_errors=Line.difference)),
        samples_column(),
        Column("σ", cell(sigmas), values(sigma=of("sigmas"))),
        *training_columns(),
    ]
