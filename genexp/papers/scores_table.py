"""A table of all scores of several runs: a column for each score and extractor, and the floor of real images."""

import math
from dataclasses import dataclass
from typing import Any

from genexp.config.commands import TableConfig
from genexp.config.components import Component, lower_is_better
from genexp.config.schema import TrainConfig
from genexp.errors import GenexpError
from genexp.papers.answers import Answer, answer, common_digest, experiment, runs_of, yardsticks
from genexp.papers.notes import THEIS, Footnotes, minus
from genexp.papers.published import ScoresTable, TextTable
from genexp.rundirs.find import RunState
from genexp.tables import Column, Document, Table
from genexp.text import first_line, number, with_decimals

FLOOR = "floor: training images"
ABBREVIATED = {"inception_score": "IS", "fid": "FID", "kid": "KID", "ms_ssim": "MS-SSIM"}
MEANING = (
    "Mean over runs ± standard deviation over seeds where there are several, else ± standard error where there is "
    "one. ↓: lower is better; ↑: higher is better, but see the note on Parzen scores."
)
WINDOWS = (
    "Before there was the setting windows, MS-SSIM took its coarsest scale over windows across the border, too, beyond "
    "which the image is reflected (windows=reflected): such scores do not compare with those of windows=inside."
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
        mean = self.answers.get(metric)
        return mean if mean is not None and mean.score.extractor == extractor else None

    def epochs(self) -> str:
        return ", ".join(sorted({answer.epochs() for answer in self.answers.values()}))


def scores_document(
    config: TableConfig, folder: str | None, title: str, table: ScoresTable, states: list[RunState]
) -> Document:
    """Return the table with every score of every run; `folder` holds the user's own configurations."""
    recipe = _recipe(table, folder)
    metrics = metrics_of(table, folder)
    lines = [_line(row.name, experiment(row.train, folder), metrics, states) for row in table.rows]
    answers = [answer for line in lines for answer in line.answers.values()]
    used = {(name, answer.score.extractor) for line in lines for name, answer in line.answers.items()}
    chosen = sorted(used, key=lambda each: (table.metrics.index(each[0]), each[1] or "")) or [(table.metrics[0], None)]
    floors = {each: _floor(lines, *each) for each in chosen}
    footnotes, asides = Footnotes(), list[str]()
    if ("parzen", None) in used:
        try:
            floors["parzen", None] = yardsticks(config, recipe, common_digest(answers))["training_images"].mean
        except GenexpError as error:
            asides.append(f"The floor of parzen could not be computed: {first_line(error)}")

    def model(line: Line) -> str:
        marks = "†" if any(answer.is_short for answer in line.answers.values()) else ""
        marks += "ᵐ" if any(answer.score.sample_kind == "mean" for answer in line.answers.values()) else ""
        return line.name + footnotes.mark(marks)

    columns = [
        Column("model", model, lambda line: {"model": line.name}, cut="end"),
        *(
            _column(metrics[name], extractor, floor, footnotes, (name, extractor) == chosen[0])
            for (name, extractor), floor in floors.items()
        ),
        Column("epochs", Line.epochs, lambda line: {"epochs": line.epochs(), "note": line.state}),
    ]
    floor_line = [Line(FLOOR, {}, "")] if used else []  # it takes data, and there is nothing to compare with it
    scores_table = Table(columns, [*lines, *floor_line], table.title)
    scores_table.cells()  # collects the footnotes
    asides += [
        f"{line.name}: other runs of fewer epochs, other data or other settings, or without a number, are left out."
        for line in lines
        if any(answer.left_out for answer in line.answers.values())
    ]
    floor = ["The floor is the score of as many training images in the place of samples."] if used else []
    notes = list[str]()
    for line in lines:
        for name, each in line.answers.items():
            of_line = f"{ABBREVIATED.get(name, name)} of {line.name}"
            notes += [f"{of_line} is not known: {each.score.reason}."] if not each.score.is_known else []
            notes += [f"{of_line} was taken otherwise: {each.otherwise}."] if each.otherwise else []
            notes += [WINDOWS] if "windows" in each.otherwise and WINDOWS not in notes else []
    notes += [MEANING, *footnotes.lines(), EXTRACTORS, *floor, THEIS]
    return Document(title, [scores_table], notes, list(footnotes.sources), asides)


def metrics_of(table: ScoresTable, folder: str | None) -> dict[str, Component]:
    """Return the metrics of the table's columns, by name; `folder` holds the user's own configurations."""
    metrics = _recipe(table, folder).metrics
    return {name: metrics[name] for name in table.metrics}


def _recipe(table: ScoresTable, folder: str | None) -> TrainConfig:
    """Return a configuration with the table's data set and metrics."""
    return experiment([*table.dataset, *(f"metric@metrics.{name}={name}" for name in table.metrics)], folder)


def _line(name: str, recipe: TrainConfig, metrics: dict[str, Component], states: list[RunState]) -> Line:
    runs = runs_of(recipe, states)
    answers = {key: mean for key, metric in metrics.items() if (mean := answer(recipe, metric, runs)) is not None}
    return Line(name, answers, "" if answers else "not scored" if runs else "not run")


def _floor(lines: list[Line], metric: str, extractor: str | None) -> float | None:
    """Return the score of training images, from the first run that has it."""
    answers = [line.of(metric, extractor) for line in lines]
    return next((mean.score.floor for mean in answers if mean is not None and mean.score.floor is not None), None)


def _column(
    metric: Component, extractor: str | None, floor: float | None, footnotes: Footnotes, is_first: bool
) -> Column:
    """Return the column of a metric by one extractor; the first one says why a row has no scores."""
    name = metric["name"]
    of_extractor = f" ({extractor})" if extractor else ""
    title = f"{ABBREVIATED.get(name, name)} {'↓' if lower_is_better(metric) else '↑'}{of_extractor}"

    def show(line: Line) -> str:
        mean = line.of(name, extractor)
        if mean is not None:
            spread = mean.stderr if mean.seed_spread is None else mean.seed_spread
            return _number(mean.mean, spread) + footnotes.mark("" if mean.exact else "‡")
        if line.name == FLOOR:
            return "" if floor is None else _number(floor)
        if line.answers:
            return "–"
        return line.state if is_first else ""

    def export(line: Line) -> dict[str, Any]:
        if line.name == FLOOR:
            return {title: floor}
        mean = line.of(name, extractor)
        if mean is None:
            return {}
        return {
            title: mean.mean,
            f"{title}: stderr": mean.stderr,
            f"{title}: runs": mean.runs,
            f"{title}: n_samples": mean.score.n_samples,
            f"{title}: sample_kind": mean.score.sample_kind,
        }

    return Column(title, show, export)


def _number(value: float, spread: float | None = None) -> str:
    """Return the value, with its spread if it has one."""
    if not spread or not math.isfinite(spread):
        return minus(number(value, f".{2 if abs(value) < 1e-3 else 4}g"))
    return minus(with_decimals(value, spread, max(0, -math.floor(math.log10(spread)) + (spread >= 1))))


def text_document(title: str, table: TextTable) -> Document:
    """Return a table of words, with this project's models in a row of their own."""
    rows = [[row.name, *row.cells] for row in table.rows]
    rows.append(["Models here", *(", ".join(names) or "none yet" for names in table.models)])

    def column(index: int, title: str, name: str) -> Column:
        return Column(title, lambda row: row[index], lambda row: {name: row[index]})

    columns = [column(0, "", "aspect"), *(column(i, name, name) for i, name in enumerate(table.columns, 1))]
    return Document(title, [Table(columns, rows, table.title, prose=True)], [f"Source: {table.source}."])
