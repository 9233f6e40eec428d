"""`genexp table`: a table of a paper, with this project's runs beside the published numbers."""

from pathlib import Path

from genexp.config.command_line import CommandLine
from genexp.config.schema import TableConfig
from genexp.errors import UsageError
from genexp.papers import published
from genexp.papers.answers import experiment, runs_of
from genexp.papers.likelihood_table import likelihood_document
from genexp.papers.parzen_table import parzen_document
from genexp.papers.published import LikelihoodTable, ParzenTable, TextTable, experiments
from genexp.papers.scores_table import scores_document, text_document
from genexp.runs.find import find
from genexp.storage.files import atomic, would_write, writing
from genexp.tables import Document, render

FORMATS = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}  # of out=FILE, unless format says
ANOTHER_PLACE = "Set out=FILE to another place, or leave it out"


def main(config: TableConfig, line: CommandLine) -> None:
    """Print the table, or write it to `out`."""
    refuse_out(config)
    document = table_document(config, line.folder)
    if config.out is None:
        print(render(document, config.format), end="")
        return
    out = Path(config.out).expanduser()
    form = FORMATS.get(out.suffix, "terminal") if config.format == "terminal" else config.format
    with writing(f"out={config.out}", ANOTHER_PLACE), atomic(out) as stream:
        stream.write(render(document, form).encode(errors="backslashreplace"))
    print(f"table: {config.out}")


def refuse_out(config: TableConfig) -> None:
    """Raise GenexpError if the table could not be written, before the work that it takes."""
    if config.out is None:
        return
    if config.format == "terminal" and Path(config.out).suffix not in (*FORMATS, ".txt", ""):
        raise UsageError(f"out={config.out}: a table is written as {', '.join(FORMATS)} or .txt, or as format=.. says")
    with writing(f"out={config.out}", ANOTHER_PLACE):
        would_write(Path(config.out).expanduser())


def table_document(config: TableConfig, folder: str | None) -> Document:
    """Return the table that is asked for, joined with the runs below `outputs_dir`."""
    paper = published.read(config.paper)
    table = paper.table(config.table)
    if isinstance(table, TextTable):
        return text_document(paper.title, table)
    outputs = Path(config.outputs_dir).expanduser()
    states = find(outputs)
    if isinstance(table, ParzenTable):
        document = parzen_document(config, folder, paper.title, table, states)
    elif isinstance(table, LikelihoodTable):
        document = likelihood_document(folder, paper.title, table, states)
    else:
        document = scores_document(config, folder, paper.title, table, states)
    recipes = [experiment(wanted.train, folder) for wanted in experiments(table, "full")]
    others = [state for state in states if not any(runs_of(recipe, [state]) for recipe in recipes)]
    document.notes.append(f"`genexp reproduce table={config.table}` runs what is not run.")
    if not outputs.is_dir():
        document.notes.append(f"There is no folder {outputs}: set outputs_dir=FOLDER to where the runs are.")
    elif others:
        runs = "1 other run follows" if len(others) == 1 else f"{len(others)} other runs follow"
        document.notes.append(f"In {outputs}, {runs} none of this table's recipes; `genexp runs` lists them.")
    return document
