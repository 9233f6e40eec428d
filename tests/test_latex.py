"""LaTeX of tables: what stands in it, and that pdflatex takes it."""

import re
import shutil
import subprocess

import pytest

from genexp.commands.table import table_document
from genexp.config.command_line import parse
from genexp.config.compose import configuration
from genexp.latex import tex
from genexp.tables import Column, Document, Table, render

AWKWARD = """50% of A_b & C#1 | ~x^2 {y} \\z $5 <b> "two words" `a_b` ` é β −1 ± 2 °ᵐ†‡ “so” it's [2] [9]"""
TABLES = ["1", "neighbours", "2", "scores", "likelihood"]


def document(text: str) -> Document:
    columns = [Column("a", lambda row: row), Column("[b", lambda row: f"{text} [1]")]
    tables = [
        Table(columns, ["[row", "*row", text], f"Table 1, title {text}"),
        Table(columns, ["x"], "prose", prose=True),
    ]
    return Document(f"About {text}", tables, [text], ["A book 1999", "A book 1999, again", text], ["aside of a run"])


def compiled(folder, *parts: str) -> str:
    """Compile as a reader would, twice for the references; return the log."""
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex here: Debian has it in texlive-latex-base")
    begin = "\\documentclass{article}\n\\usepackage{array,graphicx}\n\\begin{document}\n"
    (folder / "t.tex").write_text(begin + "\n".join(parts) + "\\end{document}\n")
    for _ in range(2):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        process = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        assert process.returncode == 0, process.stdout.decode(errors="replace")[-2000:]
    return (folder / "t.log").read_text(errors="replace")


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.slow
def test_the_shipped_tables_compile(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = parse("table", [f"table={name}", "data_dir=nothing"])
    text = render(table_document(configuration(line), line), "latex")
    assert "[1]" not in text
    assert "genexp" not in text.replace("thebibliography", "").partition("\n")[2]
    assert not re.search(r"\\caption\{(Table|[a-z])", text)
    log = compiled(tmp_path, text)
    assert "undefined" not in log
    assert "Missing character" not in log


def test_awkward_text_compiles(tmp_path):
    log = compiled(tmp_path, render(document(AWKWARD), "latex"))
    assert "undefined" not in log
    assert "Missing character" not in log


def test_what_latex_misreads_is_escaped():
    assert tex("a < b > c | d") == "a $<$ b $>$ c $|$ d"
    assert tex('the "so called" x" it\'s') == "the ``so called'' x'' it's"
    assert tex("`genexp runs a_b` lists") == r"\texttt{genexp runs a\_b} lists"
    assert tex("one ` alone") == r"one \textquoteleft{} alone"


def test_sources_are_cited_and_captions_have_no_number_of_their_own():
    text = render(document("words"), "latex")
    assert r"words~\cite{a1999-1}" in text
    assert r"\bibitem{a1999-2} A book 1999, again" in text
    assert r"\caption{Title words}" in text
    assert "[9]" in render(document("[9]"), "latex"), "what is no source stays as it is"


def test_asides_about_runs_here_are_for_every_form_but_latex():
    for form in ("terminal", "markdown", "json"):
        assert "aside of a run" in render(document("x"), form)
        assert "[1] A book 1999" in render(document("x"), form)
    assert "aside of a run" not in render(document("x"), "latex")
