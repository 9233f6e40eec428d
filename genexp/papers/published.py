"""The tables of a paper as data: published numbers with their sources, and the runs that reproduce them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from genexp.config.command_line import CommandLine
from genexp.config.schema import CONFIGS
from genexp.errors import UsageError
from genexp.text import nearest

USUAL = "goodfellow2014"  # the paper unless paper=NAME names another


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(Schema):
    """A number from the literature."""

    value: float
    spread: float | None = None  # the column says what it means
    sample_kind: Literal["draw", "mean"] | None = None  # None: not known
    status: Literal["read", "quoted", "recalled"]  # in the source; in another one that quotes it; not verified
    source: str


class Cell(Published):
    """A published number, and the run that reproduces it, if there is one."""

    train: list[str] | None = None  # settings of its `genexp train` command line
    quick: list[str] | None = []  # settings that budget=quick adds; null: it leaves this run out


class Row(Schema):
    name: str
    missing: str | None = None  # why no cell of this row has a run
    cells: dict[str, Cell]


class Column(Schema):
    title: str
    train: list[str]  # settings that choose its data set
    spread: str  # the meaning of the spread of its published numbers
    on_request: bool = False  # the data set is given on request only
    note: str | None = None  # shown below the table while no run answers a cell of the column


class ParzenTable(Schema):
    kind: Literal["parzen"]
    title: str
    columns: dict[str, Column]
    rows: list[Row]
    yardsticks: dict[str, dict[str, Published]] = {}  # published numbers of yardsticks, by yardstick and column


class TextRow(Schema):
    name: str
    cells: list[str]


class TextTable(Schema):
    kind: Literal["text"]
    title: str
    source: str
    columns: list[str]
    rows: list[TextRow]
    models: list[list[str]]  # this project's, for each column


class ScoresRow(Schema):
    name: str
    train: list[str]
    quick: list[str] | None = []


class ScoresTable(Schema):
    kind: Literal["scores"]
    title: str
    dataset: list[str]  # settings that choose it
    metrics: list[str]
    rows: list[ScoresRow]


class LikelihoodRow(Cell):
    """A published log-likelihood of binary images, in nats, and the run that reproduces it, if there is one."""

    name: str
    missing: str | None = None  # why it has no run
    kind: Literal["bound", "estimate", "exact"]  # of the published number and of ours
    images: Literal["threshold", "fresh", "fixed"] | None = None  # how they were binarized; None: not known
    metric: str  # by which the run is scored, with the recipe's settings


class LikelihoodTable(Schema):
    kind: Literal["likelihood"]
    title: str
    rows: list[LikelihoodRow]


Table = ParzenTable | TextTable | ScoresTable | LikelihoodTable


class Paper(Schema):
    name: str
    title: str
    file: str = ""  # for messages
    tables: dict[str, Annotated[Table, Field(discriminator="kind")]]

    def table(self, name: str) -> Table:
        """Return the table of that name. Raises UsageError, with the names that there are."""
        if name not in self.tables:
            raise UsageError(
                f"table={name}: {self.title} has no such table here{nearest(name, self.tables)}\n"
                f"The tables are: {', '.join(self.tables)}"
            )
        return self.tables[name]


def read(content: dict[str, Any], line: CommandLine) -> Paper:
    """Return the YAML of the paper that a command line chose, checked. Raises UsageError that names each mistake."""
    file = _file_of(line)
    try:
        return Paper.model_validate({**content, "file": str(file)})
    except pydantic.ValidationError as error:
        mistakes = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
        raise UsageError("\n".join([f"{file} is wrong:", *mistakes])) from error


def _file_of(line: CommandLine) -> Path:
    """Return the file of the paper that a command line chose: the user's own, or the one of this package."""
    chosen = [word.partition("=")[2] for word in line.overrides if word.startswith("paper=")]
    name = f"paper/{chosen[-1] if chosen else USUAL}.yaml"
    own = Path(line.folder or "", name)
    return own if line.folder is not None and own.is_file() else CONFIGS / name


class Experiment(NamedTuple):
    """A run that a table wants."""

    name: str  # its row, and its column if there are several
    train: list[str]  # settings of its command line
    on_request: bool  # its data set is given on request only


def experiments(table: Table, budget: str) -> Iterator[Experiment]:
    """Find each run that the table wants; `budget` is quick or full."""
    for name, run, on_request in _runs_named_by(table):
        added = run.quick if budget == "quick" else []
        if run.train is not None and added is not None:
            yield Experiment(name, [*run.train, *added], on_request)


def _runs_named_by(table: Table) -> Iterator[tuple[str, Cell | ScoresRow, bool]]:
    """Find each cell or row that may name a run: its name, itself, and True if its data are given on request only."""
    if isinstance(table, ParzenTable):
        for key, column in table.columns.items():
            for row in table.rows:
                if key in row.cells:
                    yield f"{row.name} on {column.title}", row.cells[key], column.on_request
    elif isinstance(table, ScoresTable | LikelihoodTable):
        for each in table.rows:
            yield each.name, each, False
