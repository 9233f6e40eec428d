"""A table of log-likelihoods of binary images: published bounds and estimates, and this project's runs beside them."""

from genexp.config.components import Component
from genexp.errors import UsageError
from genexp.papers.answers import experiment
from genexp.papers.columns import (
    Line,
    here_column,
    line_of,
    model_column,
    published_column,
    samples_column,
    seeds_column,
    training_columns,
)
from genexp.papers.notes import Footnotes
from genexp.papers.published import LikelihoodRow, LikelihoodTable, Paper
from genexp.rundirs.find import RunState
from genexp.tables import Column, Document, Table, values

KINDS = {"bound": "lower bound", "estimate": "estimate", "exact": "exact"}
UNKNOWN = "not known"
NOTES = (
    "Mean log p(x) of the test images in nats, p(x) a probability of binary images; higher is better. ± test: standard "
    "error over test images; ± seeds: standard deviation over training runs.",
    "A lower bound is below the log-likelihood on average, and the nearer to it the more samples it is of. Annealed "
    "importance sampling (ais) underestimates log Z on average, so its estimates of log p(x) err upwards.",
    "images: how binary ones are made of grey ones. fresh: drawn anew at each use; fixed: drawn once; threshold: white "
    "from one half on. Numbers of images that are made in different ways do not compare.",
    "Parzen scores are densities of grey images, and do not compare with this table.",
)


def likelihood_document(folder: str | None, paper: Paper, table: LikelihoodTable, states: list[RunState]) -> Document:
    """Return the table with the runs' answers; `folder` holds the user's own configurations."""
    footnotes = Footnotes()
    rows = {row.name: row for row in table.rows}
    lines = [line_of(row, row, _metric(row, folder, paper), states, folder) for row in table.rows]

    def images(line: Line) -> str:
        row = rows[line.name]
        here = None if row.train is None else experiment(row.train, folder).dataset.get("binarize", UNKNOWN)
        published = row.images or UNKNOWN
        return published if here in (None, published) else f"{published}; here {here}"

    def kind(line: Line) -> str:
        return f"{KINDS[rows[line.name].kind]}, {rows[line.name].metric}"

    columns = [
        model_column(),
        Column("images", images, values(images=images), left=True),
        Column(
            "number",
            kind,
            values(number=lambda line: rows[line.name].kind, metric=lambda line: rows[line.name].metric),
            left=True,
        ),
        published_column(footnotes),
        here_column(footnotes, decimals=2),
        seeds_column(2),
        samples_column(),
        *training_columns(),
    ]
    answers = Table(columns, lines, table.title)
    answers.cells()  # collects the footnotes
    asides = [f"{line.name}: {line.state}." for line in lines if line.answer and line.state]
    return Document(paper.title, [answers], [*NOTES, *footnotes.lines()], list(footnotes.sources), asides)


def _metric(row: LikelihoodRow, folder: str | None, paper: Paper) -> Component | None:
    """Return the metric of the row with its recipe's settings; None without a recipe.

    Raises UsageError if the recipe is not scored by it.
    """
    if row.train is None:
        return None
    metrics = experiment(row.train, folder).metrics
    if row.metric not in metrics:
        raise UsageError(
            f"{paper.file} is wrong: {row.name} has metric {row.metric}, and its runs are scored by "
            f"{', '.join(metrics) or 'nothing'}"
        )
    return metrics[row.metric]
