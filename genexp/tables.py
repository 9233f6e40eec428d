"""Tables as lists of columns, rendered for the terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from genexp import latex
from genexp.layout import lines_of, prose_of, terminal_width, wrapped
from genexp.numbers import strict

Row = Any  # whatever the columns of a table can show


def values(**read: Callable[[Row], Any]) -> Callable[[Row], dict[str, Any]]:
    """Return an export of the named values of a row; values that are None are left out."""
    return lambda row: {name: value for name, function in read.items() if (value := function(row)) is not None}


@dataclass(frozen=True)
class Column:
    """One column: its title, how a row's cell reads, and the values of the row that programs get."""

    title: str
    show: Callable[[Row], str]
    export: Callable[[Row], dict[str, Any]] = lambda _row: {}  # numbers as numbers, by name
    left: bool = False  # aligned to the left, as words are
    cut: Literal["", "start", "end"] = ""  # the end at which cells may be shortened where a terminal is narrow
    brief: Callable[[Row], str] | None = None  # what a cell reads there instead; such a column is never left out


@dataclass(frozen=True)
class Table:
    """Rows, and the columns that show them."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    title: str = ""
    prose: bool = False  # cells of words, which may be wrapped

    def header(self) -> list[str]:
        """Return the columns' titles."""
        return [column.title for column in self.columns]

    def cells(self) -> list[list[str]]:
        """Return the rows as people read them. A cell is one line."""
        return [[one_line(column.show(row)) for column in self.columns] for row in self.rows]

    def columns_of_cells(self, brief: bool) -> list[list[str]]:
        """Return the cells column by column; `brief` where a column has briefer ones."""
        shows = [column.brief if brief and column.brief is not None else column.show for column in self.columns]
        return [[one_line(show(row)) for row in self.rows] for show in shows]

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as programs read them; a number that is not finite is None."""
        return [
            {name: strict(value) for column in self.columns for name, value in column.export(row).items()}
            for row in self.rows
        ]

    def is_left(self, index: int) -> bool:
        """Return True if a column is aligned to the left."""
        return self.prose or not index or self.columns[index].left


@dataclass(frozen=True)
class Document:
    """Tables that belong together, with a title and notes below them."""

    title: str
    tables: list[Table]
    notes: list[str]  # for every reader
    sources: list[str] = field(default_factory=list)  # the literature that cells name as [1], [2] ...
    asides: list[str] = field(default_factory=list)  # for whoever runs genexp here: no part of a paper

    def all_notes(self) -> list[str]:
        """Return the notes, the numbered sources and the asides, as they are read below the tables."""
        sources = [f"[{number}] {source}" for number, source in enumerate(self.sources, 1)]
        return [one_line(note) for note in (*self.notes, *sources, *self.asides)]


def render(document: Document, form: str, width: int | None = None) -> str:
    """Return the document as text; `form` is terminal, markdown, latex, csv or json.

    Tables of a terminal are made to fit into `width`; without one, a line is as long as it has to be.
    """
    if form == "terminal":
        return _terminal(document, width)
    return {"markdown": _markdown, "latex": latex.text_of, "csv": _csv, "json": _json}[form](document)


def print_table(table: Table) -> None:
    """Print a table alone. In a terminal it is made to fit; elsewhere no cell is shortened."""
    print("\n".join(_lines(table, terminal_width())), flush=True)


def _terminal(document: Document, width: int | None) -> str:
    lines = wrapped(document.title, width)
    for table in document.tables:
        lines += wrapped(table.title, width) if table.title else []
        lines += _lines(table, width)
    for note in document.all_notes():
        lines += wrapped(note, width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _lines(table: Table, width: int | None) -> list[str]:
    return prose_of(table, width) if table.prose else lines_of(table, width)


def _markdown(document: Document) -> str:
    parts = [f"# {document.title}"]
    for table in document.tables:
        rule = ["---" if table.is_left(index) else "---:" for index in range(len(table.columns))]
        parts += [f"## {table.title}"] if table.title else []
        parts.append("\n".join(markdown_row(line) for line in [table.header(), rule, *table.cells()]))
    notes = ["- " + re.sub(r"([*_])", r"\\\1", note) for note in document.all_notes()]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def markdown_row(cells: Sequence[Any]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(one_line(str(cell)).replace("|", "\\|") for cell in cells) + " |"


def one_line(text: str) -> str:
    """Return the text with a space where it breaks into lines: a line of a table is one row."""
    return text if text.isprintable() else " ".join(part for line in text.splitlines() if (part := line.strip()))


def _csv(document: Document) -> str:
    records = []
    for table in document.tables:
        title = {"table": table.title} if table.title else {}
        records += [title | record for record in table.records()]
    names = dict.fromkeys(name for record in records for name in record)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(names), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in record.items()})
    return stream.getvalue()


def _json(document: Document) -> str:
    tables = [{"title": table.title, "rows": table.records()} for table in document.tables]
    content = {"title": document.title, "tables": tables, "notes": document.all_notes()}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
