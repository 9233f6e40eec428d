"""Tables as lists of columns, rendered for the terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from genexp.numbers import strict

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "σ": r"$\sigma$", "Δ": r"$\Delta$", "−": "$-$", "–": "--", "×": r"$\times$", "√": r"$\surd$"},
    **{"†": r"$^\dagger$", "‡": r"$^\ddagger$", "²": "$^2$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "*": "$^*$"},
    **{"°": r"$^\circ$", "ᵐ": r"$^\mathrm{m}$", "’": "'", "…": r"\dots{}"},
}
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
        """Return the rows as people read them."""
        return [[column.show(row) for column in self.columns] for row in self.rows]

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
    notes: list[str]


def render(document: Document, form: str) -> str:
    """Return the document as text; `form` is terminal, markdown, latex, csv or json."""
    return {"terminal": _terminal, "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json}[form](document)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table alone. Unless it is prose, it is as wide as it has to be: a path that is cut is of no use."""
    console = console or Console()
    rich_table = RichTable(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for index, title in enumerate(table.header()):
        stacked = re.sub(r" \((\w+-)(\w+)\)$", r"\n\1\n\2", title)  # fid (classifier-0123abcd)
        rich_table.add_column(stacked, justify="left" if table.is_left(index) else "right", no_wrap=not table.prose)
    for cells in table.cells():
        rich_table.add_row(*(Text(cell) for cell in cells), end_section=table.prose)
    if not table.prose:
        needed = Console(width=10**6).measure(rich_table).maximum
        console = Console(file=console.file, width=max(needed, console.width))
    console.print(rich_table)


def _terminal(document: Document) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=max(80, min(shutil.get_terminal_size((100, 0)).columns, 120)))
    console.print(Text(document.title, style="bold"))
    for table in document.tables:
        if table.title:
            console.print(Text(table.title))
        print_table(table, console)
    for note in document.notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _markdown(document: Document) -> str:
    parts = [f"# {document.title}"]
    for table in document.tables:
        rule = ["---" if table.is_left(index) else "---:" for index in range(len(table.columns))]
        parts += [f"## {table.title}"] if table.title else []
        parts.append("\n".join(markdown_row(line) for line in [table.header(), rule, *table.cells()]))
    notes = ["- " + re.sub(r"([*_])", r"\\\1", note) for note in document.notes]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def markdown_row(cells: Sequence[Any]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _latex(document: Document) -> str:
    parts = [f"% {document.title}; needs " + r"\usepackage{array,booktabs,graphicx}"]
    notes = [r"\par\raggedright\medskip", *(rf"\footnotesize {_tex(note)}\par" for note in document.notes)]
    for table in document.tables:
        share = rf">{{\raggedright\arraybackslash}}p{{{0.8 / len(table.columns):.3f}\textwidth}}"
        columns = share * len(table.columns) if table.prose else "l" + "r" * (len(table.columns) - 1)
        head, *body = [" & ".join(_tex(cell) for cell in line) + r" \\" for line in [table.header(), *table.cells()]]
        tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
        tabular.append(r"\end{tabular}")
        if not table.prose:  # numbers cannot be wrapped
            tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
        begin = [r"\begin{table}", rf"\caption{{{_tex(table.title)}}}", r"\centering\small"]
        last = notes if document.notes and table is document.tables[-1] else []
        parts.append("\n".join([*begin, *tabular, *last, r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


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
    content = {"title": document.title, "tables": tables, "notes": document.notes}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
