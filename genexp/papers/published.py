"""The tables of a paper as data: published numbers with their sources, and the runs that answer them."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from genexp.config.schema import nearest
from genexp.errors import UsageError


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(Schema):
    """A number from the literature."""

    value: float
    spread: float | None = None  # what it means is said by the column
    sample_kind: Literal["draw", "mean"] | None = None  # None: not known
    status: Literal["read", "quoted", "recalled"]  # at the source named; in another that quotes it; not verified
    source: str


class Experiment(Schema):
    """A run of this project: the words of its `genexp train` command line, and those that budget=quick adds."""

    train: list[str]
    quick: list[str] = []


class Cell(Published):
    """A published number, and the run that answers it, if there is one."""

    train: list[str] | None = None
    quick: list[str] = []


class Row(Schema):
    name: str
    missing: str | None = None  # why no cell of this row has a run
    cells: dict[str, Cell]


class Column(Schema):
    title: str
    train: list[str]  # words of a command line that choose its data set
    spread: str  # what the spread of its published numbers means
    on_request: bool = False  # the data set is not to be had by everybody


class ParzenTable(Schema):
    kind: Literal["parzen"]
    title: str
    columns: dict[str, Column]
    rows: list[Row]
    yardsticks: dict[str, dict[str, Published]] = {}  # published numbers for what is computed here: yardstick, column


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


class ScoresRow(Experiment):
    name: str


class ScoresTable(Schema):
    kind: Literal["scores"]
    title: str
    dataset: list[str]  # words of a command line that choose it
    metrics: list[str]
    rows: list[ScoresRow]


Table = ParzenTable | TextTable | ScoresTable


class Paper(Schema):
    name: str
    title: str
    tables: dict[str, Annotated[Table, Field(discriminator="kind")]]

    def table(self, name: str) -> Table:
        """The table of that name. Raises UsageError, with the names that there are."""
        if name not in self.tables:
            raise UsageError(
                f"table={name}: {self.title} has no such table here{nearest(name, self.tables)}\n"
                f"The tables are: {', '.join(self.tables)}"
            )
        return self.tables[name]


def read(content: dict[str, Any]) -> Paper:
    """A paper's YAML, checked. Raises UsageError that names each mistake."""
    try:
        return Paper.model_validate(content)
    except pydantic.ValidationError as error:
        mistakes = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
        raise UsageError("\n".join(["the paper's file is wrong:", *mistakes])) from error


def experiments(chosen: Table, budget: str) -> Iterator[tuple[str, list[str], bool]]:
    """Each run that the table wants: its row and column, the words of its command line, whether it needs a request.

    `budget` is quick or full. A request, to its authors, is for the data set.
    """
    if isinstance(chosen, ParzenTable):
        for key, column in chosen.columns.items():
            for row in chosen.rows:
                cell = row.cells.get(key)
                if cell is not None and cell.train is not None:
                    words = [*cell.train, *(cell.quick if budget == "quick" else [])]
                    yield f"{row.name} on {column.title}", words, column.on_request
    elif isinstance(chosen, ScoresTable):
        for one in chosen.rows:
            yield one.name, [*one.train, *(one.quick if budget == "quick" else [])], False
