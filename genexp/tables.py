"""Tables as they are shown: for the terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
import shutil
from dataclasses import dataclass
from typing import Any

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "σ": r"$\sigma$", "Δ": r"$\Delta$", "−": "$-$", "–": "--", "×": r"$\times$", "√": r"$\surd$"},
    **{"†": r"$^\dagger$", "‡": r"$^\ddagger$", "²": "$^2$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "*": "$^*$"},
    **{"°": r"$^\circ$", "ᵐ": r"$^\mathrm{m}$", "’": "'", "…": r"\dots{}"},
}


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    header: list[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]  # the same, or more, for programs: one a row, numbers as numbers
    prose: bool = False  # cells of words, to be wrapped
    left: tuple[str, ...] = ()  # columns of words among those of numbers

    def is_left(self, index: int) -> bool:
        """Whether a column is aligned to the left."""
        return self.prose or not index or self.header[index] in self.left


@dataclass(frozen=True)
class Document:
    """The tables that belong together, and what has to be said below them."""

    title: str
    sheets: list[Sheet]
    notes: list[str]


def render(document: Document, form: str, width: int | None = None) -> str:
    """The document as text; `form` is terminal, markdown, latex, csv or json."""
    return {"terminal": _terminal, "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json}[form](
        document, width
    )


def _terminal(document: Document, width: int | None) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    console = Console(file=stream, width=width or max(80, min(shutil.get_terminal_size((100, 0)).columns, 120)))
    console.print(Text(document.title, style="bold"))
    for sheet in document.sheets:
        prose = sheet.prose
        if sheet.title:
            console.print(Text(sheet.title))
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
        for index, name in enumerate(sheet.header):
            stacked = re.sub(r" \((\w+-)(\w+)\)$", r"\n\1\n\2", name)  # fid (classifier-0123abcd)
            table.add_column(stacked, justify="left" if sheet.is_left(index) else "right", no_wrap=not prose)
        for row in sheet.rows:
            table.add_row(*(Text(text) for text in row), end_section=prose)
        # Numbers that are cut are of no use: a table of them is as wide as it has to be.
        needed = console.width if prose else Console(width=10**6).measure(table).maximum
        Console(file=stream, width=max(needed, console.width)).print(table)
    for note in document.notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _markdown(document: Document, _width: int | None) -> str:
    parts = [f"# {document.title}"]
    for sheet in document.sheets:
        rule = ["---" if sheet.is_left(index) else "---:" for index in range(len(sheet.header))]
        lines = [sheet.header, rule, *sheet.rows]
        table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        parts += [f"## {sheet.title}", table] if sheet.title else [table]
    notes = ["- " + re.sub(r"([*_])", r"\\\1", note) for note in document.notes]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _latex(document: Document, _width: int | None) -> str:
    packages = r"\usepackage{array,booktabs,graphicx}"
    notes = [rf"\footnotesize {_tex(note)}\par" for note in document.notes]
    parts = [f"% {document.title}; needs {packages}"]
    for sheet in document.sheets:
        share = rf">{{\raggedright\arraybackslash}}p{{{0.8 / len(sheet.header):.3f}\textwidth}}"
        columns = share * len(sheet.header) if sheet.prose else "l" + "r" * (len(sheet.header) - 1)
        body = [" & ".join(_tex(text) for text in row) + r" \\" for row in [sheet.header, *sheet.rows]]
        tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
        tabular.append(r"\end{tabular}")
        if not sheet.prose:  # numbers cannot be wrapped
            tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
        last = notes if sheet is document.sheets[-1] else []
        head = [r"\begin{table}", rf"\caption{{{_tex(sheet.title)}}}", r"\centering\small"]
        parts.append(
            "\n".join([*head, *tabular, *([r"\par\raggedright\medskip"] if last else []), *last, r"\end{table}"])
        )
    return "\n\n".join(parts) + "\n"


def _csv(document: Document, _width: int | None) -> str:
    records = [
        ({"table": sheet.title} if sheet.title else {}) | record
        for sheet in document.sheets
        for record in sheet.records
    ]
    names = list(dict.fromkeys(name for record in records for name in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in record.items()})
    return stream.getvalue()


def _json(document: Document, _width: int | None) -> str:
    sheets = [{"title": sheet.title, "rows": sheet.records} for sheet in document.sheets]
    content = {"title": document.title, "tables": sheets, "notes": document.notes}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
