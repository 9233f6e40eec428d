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
        prose = _is_prose(sheet)
        table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
        for index, name in enumerate(sheet.header):
            stacked = re.sub(r" \((\w+-)(\w+)\)$", r"\n\1\n\2", name)  # fid (classifier-0123abcd)
            table.add_column(stacked, justify="left" if prose or not index else "right", no_wrap=not prose)
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
        lines = [sheet.header, ["---"] + ["---:" for _ in sheet.header[1:]], *sheet.rows]
        table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        parts += [f"## {sheet.title}", table]
    notes = ["- " + re.sub(r"([*_])", r"\\\1", note) for note in document.notes]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _latex(document: Document, _width: int | None) -> str:
    parts = [f"% {document.title}; needs \\usepackage{{booktabs}}"]
    for sheet in document.sheets:
        prose = _is_prose(sheet)
        share = f"p{{{0.85 / len(sheet.header):.2f}\\textwidth}}"
        columns = share * len(sheet.header) if prose else "l" + "r" * (len(sheet.header) - 1)
        body = [" & ".join(_tex(text) for text in row) + r" \\" for row in [sheet.header, *sheet.rows]]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_tex(sheet.title)}}}",
                    r"\centering\small",
                    rf"\begin{{tabular}}{{{columns}}}",
                    r"\toprule",
                    body[0],
                    r"\midrule",
                    *body[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    if document.notes:
        notes = "\n\n".join(rf"\noindent {_tex(note)}" for note in document.notes)
        parts.append(f"{{\\footnotesize\n{notes}\n\\par}}")
    return "\n\n".join(parts) + "\n"


def _csv(document: Document, _width: int | None) -> str:
    records = [{"table": sheet.title, **record} for sheet in document.sheets for record in sheet.records]
    names = list(dict.fromkeys(name for record in records for name in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def _json(document: Document, _width: int | None) -> str:
    sheets = [{"title": sheet.title, "rows": sheet.records} for sheet in document.sheets]
    content = {"title": document.title, "tables": sheets, "notes": document.notes}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _is_prose(sheet: Sheet) -> bool:
    return max(len(text) for row in sheet.rows for text in row[1:]) > 40


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
