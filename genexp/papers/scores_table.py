"""A table of all scores of several runs: a column for each score and extractor, and the floor of real images."""

import math
from dataclasses import dataclass
from typing import Any

from genexp.config.components import Component, lower_is_better
from genexp.config.schema import TableConfig
from genexp.errors import GenexpError
from genexp.papers.answers import Answer, answer, experiment, runs_of
from genexp.papers.kept_yardsticks import yardsticks
from genexp.papers.notes import THEIS, Footnotes, minus
from genexp.papers.published import ScoresTable, TextTable
from genexp.runs.find import RunState
from genexp.tables import Column, Document, Table
from genexp.text import first_line

ABBREVIATED = {"inception_score": "IS", "fid": "FID", "kid": "KID", "ms_ssim": "MS-SSIM"}
MEANING = (
    "Mean over runs ± standard deviation over seeds where there are several, else ± standard error where there is "
    "one. ↓: lower is better; ↑: higher is better, but see the note on Parzen scores."
)
EXTRACTORS = (
    "Features are those of the extractor in the column's head, a classifier that was trained once for its data "
    "set; the digits are its weights' hash. Scores under different extractors do not compare."
)


@dataclass(frozen=True)
class Line:
    """A row of the table: the answers of one experiment by metric, or why there are none."""

    name: str
    answers: dict[str, Answer]
    state: str

    def of(self, metric: str, extractor: str | None) -> Answer | None:
        """Return the answer by a metric, if it is by this extractor."""
        found = self.answers.get(metric)
        return found if found is not None and found.score.extractor == extractor else None

    def epochs(self) -> str:
        return ", ".join(sorted({answer.epochs() for answer in self.answers.values()}))


def scores_document(
    config: TableConfig, folder: str | None, title: str, table: ScoresTable, states: list[RunState]
) -> Document:
    """Return the table with every score of every run; `folder` holds the user's own configurations."""
    settings = [f"metric@metrics.{name}={name}" for name in table.metrics]
    recipe = experiment([*table.dataset, *settings], folder)
    lines = [
        _line(row.name, experiment(row.train, folder), {name: recipe.metrics[name] for name in table.metrics}, states)
        for row in table.rows
    ]
    footnotes, notes = Footnotes(), list[str]()
    used = {(name, answer.score.extractor) for line in lines for name, answer in line.answers.items()}
    chosen = sorted(used, key=lambda each: (table.metrics.index(each[0]), each[1] or "")) or [(table.metrics[0], None)]
    floors = {each: _floor(lines, *each) for each in chosen}
    if ("parzen", None) in floors:
        digests = {answer.digest for line in lines for answer in line.answers.values()}
        digest = digests.pop() if len(digests) == 1 else None
        try:
            scores = yardsticks(recipe.dataset, recipe.metrics["parzen"], digest, config.data_dir, config.device)
            floors["parzen", None] = scores["training_images"].mean
        except GenexpError as error:
            notes.append(f"The floor of parzen could not be computed: {first_line(error)}")
    columns = [
        Column("model", lambda line: line.name + footnotes.mark(_marks(line)), lambda line: {"model": line.name})
    ]
    for index, (metric, extractor) in enumerate(chosen):
        head = _head(recipe.metrics[metric], metric, extractor)
        columns.append(_column(head, metric, extractor, floors[metric, extractor], index == 0, footnotes))
    columns.append(Column("epochs", Line.epochs, lambda line: {"epochs": line.epochs(), "note": line.state}))
    scores_table = Table(columns, [*lines, Line(FLOOR, {}, "")], table.title)
    scores_table.cells()  # collects the footnotes
    notes += [
        f"{line.name}: other runs of fewer epochs, other data or other settings are left out."
        for line in lines
        if any(answer.left_out for answer in line.answers.values())
    ]
    floor = "The floor is the score of as many training images in the place of samples."
    return Document(title, [scores_table], [*notes, MEANING, *footnotes.lines(), EXTRACTORS, floor, THEIS])


FLOOR = "floor: training images"


def _line(name: str, recipe: Any, metrics: dict[str, Component], states: list[RunState]) -> Line:
    runs = runs_of(recipe, states)
    answers = {metric: answer(recipe, component, runs) for metric, component in metrics.items()}
    found = {metric: each for metric, each in answers.items() if each is not None}
    return Line(name, found, "" if found else "not scored" if runs else "not run")


def _marks(line: Line) -> str:
    marks = "†" if any(answer.is_short for answer in line.answers.values()) else ""
    return marks + ("ᵐ" if any(answer.score.sample_kind == "mean" for answer in line.answers.values()) else "")


def _head(metric: Component, name: str, extractor: str | None) -> str:
    arrow = "↓" if lower_is_better(metric) else "↑"
    return f"{ABBREVIATED.get(name, name)} {arrow}{f' ({extractor})' if extractor else ''}"


def _column(
    head: str, metric: str, extractor: str | None, floor: float | None, first: bool, footnotes: Footnotes
) -> Column:
    """Return the column of a metric by one extractor; the first one says why a row has no scores."""

    def show(line: Line) -> str:
        found = line.of(metric, extractor)
        if found is not None:
            return _value(found) + footnotes.mark("" if found.exact else "‡")
        if line.name == FLOOR:
            return "" if floor is None else _number(floor)
        if line.answers:
            return "–"
        return line.state if first else ""

    def export(line: Line) -> dict[str, Any]:
        if line.name == FLOOR:
            return {head: floor}
        found = line.of(metric, extractor)
        if found is None:
            return {}
        record = {head: found.mean, f"{head}: stderr": found.stderr, f"{head}: runs": found.runs}
        return record | {f"{head}: {what}": getattr(found.score, what) for what in ("n_samples", "sample_kind")}

    return Column(head, show, export)


def _value(found: Answer) -> str:
    spread = found.stderr if found.seed_spread is None else found.seed_spread
    if not spread:
        return _number(found.mean)
    decimals = max(0, -math.floor(math.log10(spread)) + (spread >= 1))
    return minus(f"{found.mean:.{decimals}f} ± {spread:.{decimals}f}")


def _number(value: float) -> str:
    return minus(f"{value:.{2 if abs(value) < 1e-3 else 4}g}")


def _floor(lines: list[Line], metric: str, extractor: str | None) -> float | None:
    """Return the score of training images, from the first run that has it."""
    answers = [line.of(metric, extractor) for line in lines]
    return next((each.score.floor for each in answers if each is not None and each.score.floor is not None), None)


def text_document(title: str, table: TextTable) -> Document:
    """Return a table of words, with this project's models in a row of their own."""
    rows = [[row.name, *row.cells] for row in table.rows]
    rows.append(["Models here", *(", ".join(names) or "none yet" for names in table.models)])

    def column(index: int, title: str, name: str) -> Column:
        return Column(title, lambda row: row[index], lambda row: {name: row[index]})

    columns = [column(0, "", "aspect"), *(column(i, name, name) for i, name in enumerate(table.columns, 1))]
    return Document(title, [Table(columns, rows, table.title, prose=True)], [f"Source: {table.source}."])
