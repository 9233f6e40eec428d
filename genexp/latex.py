"""Documents of tables as LaTeX that pdflatex takes as it is: captions without numbers, and sources to be cited."""

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genexp.tables import Document, Table

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "`": r"\textquoteleft{}", "“": "``", "”": "''"},
    **{"±": r"$\pm$", "σ": r"$\sigma$", "Δ": r"$\Delta$", "−": "$-$", "–": "--", "×": r"$\times$", "√": r"$\surd$"},
    **{"†": r"$^\dagger$", "‡": r"$^\ddagger$", "²": "$^2$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "*": "$^*$"},
    **{"°": r"$^\circ$", "ᵐ": r"$^\mathrm{m}$", "’": "'", "…": r"\dots{}", "β": r"$\beta$", "≈": r"$\approx$"},
}
PACKAGES = r"\usepackage{array,graphicx}, and looks better with booktabs"
RULES = "".join(rf"\providecommand{{\{rule}}}{{\hline}}" for rule in ("toprule", "midrule", "bottomrule"))
SHRUNK = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"  # numbers cannot be wrapped


def text_of(document: "Document") -> str:
    """Return the document as LaTeX: a float for each table, the notes below the last one, and a bibliography.

    The document's asides, which are for whoever runs genexp, are left out.
    """
    keys = _keys(document.sources)
    parts = [f"% {document.title}; needs {PACKAGES}\n{RULES}"]
    notes = [rf"\footnotesize {_cited(note, keys)}\par" for note in document.notes]
    for table in document.tables:
        below = [r"\par\raggedright\medskip", *notes] if notes and table is document.tables[-1] else []
        begin = [r"\begin{table}", rf"\caption{{{tex(_caption(table.title))}}}", r"\centering\small"]
        parts.append("\n".join([*begin, *_tabular(table, keys), *below, r"\end{table}"]))
    if keys:
        items = [rf"\bibitem{{{key}}} {tex(source)}" for key, source in zip(keys, document.sources, strict=True)]
        begin = [rf"\begin{{thebibliography}}{{{len(keys)}}}  % or cite your own entries under these keys"]
        parts.append("\n".join([*begin, *items, r"\end{thebibliography}"]))
    return "\n\n".join(parts) + "\n"


def _tabular(table: "Table", keys: list[str]) -> list[str]:
    share = rf">{{\raggedright\arraybackslash}}p{{{0.8 / len(table.columns):.3f}\textwidth}}"
    columns = share * len(table.columns)
    if not table.prose:
        columns = "".join("l" if table.is_left(index) else "r" for index in range(len(table.columns)))
    head, *body = [
        " & ".join(_cited(cell, keys) for cell in line) + r" \\" for line in (table.header(), *table.cells())
    ]
    body = [f"{{}}{line}" if line.startswith(("[", "*")) else line for line in body]  # no argument of the \\ before it
    tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    tabular.append(r"\end{tabular}")
    return tabular if table.prose else [SHRUNK, *tabular, "}"]


def tex(text: str) -> str:
    """Return text with every character that LaTeX would misread escaped; `code` becomes typewriter."""
    text = re.sub(r'"([^"]*)"', r"“\1”", re.sub(r"\s+", " ", text))
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        rf"\texttt{{{_escaped(part[1:-1])}}}" if part[:1] == "`" != part else _escaped(part) for part in parts
    )


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _caption(title: str) -> str:
    """Return a title without the number that a paper has for it: LaTeX numbers its tables itself."""
    words = re.sub(r"^Table \S+[,:.] *", "", title)
    return words[:1].upper() + words[1:]


def _cited(text: str, keys: list[str]) -> str:
    """Return text in LaTeX, with a citation for each number of a source, as in [1]."""
    parts = re.split(r" ?\[(\d+)\]", text)  # every second part is a number
    cited = [tex(part) for part in parts[::2]]
    for place, number in enumerate(parts[1::2]):
        known = 0 < int(number) <= len(keys)
        cited[place] += rf"~\cite{{{keys[int(number) - 1]}}}" if known else f" [{number}]"
    return "".join(cited)


def _keys(sources: list[str]) -> list[str]:
    """Return a key for each source: its first word and the year, with a letter where several have the same."""
    stems = []
    for source in sources:
        year = re.search(r"\b(?:19|20)\d\d\b", source)
        stems.append(re.sub(r"[^a-z]", "", source.split()[0].lower()) + (year[0] if year else ""))
    several, taken, keys = Counter(stems), Counter[str](), []
    for stem in stems:
        keys.append(stem + (f"-{taken[stem] + 1}" if several[stem] > 1 else ""))
        taken[stem] += 1
    return keys
