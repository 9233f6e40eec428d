"""`genexp table`: a table of a paper, with this project's runs beside the published numbers."""

from pathlib import Path

from genexp.config.command_line import CommandLine
from genexp.config.commands import TableConfig
from genexp.errors import UsageError
from genexp.layout import terminal_width
from genexp.papers import published
from genexp.papers.answers import experiment, follow
from genexp.papers.likelihood_table import likelihood_document
from genexp.papers.parzen_table import parzen_document
from genexp.papers.published import LikelihoodTable, ParzenTable, TextTable, experiments
from genexp.papers.scores_table import scores_document, text_document
from genexp.rundirs.find import find, without_collection
from genexp.rundirs.names import OUTPUTS
from genexp.storage.files import atomic, would_write, writing
from genexp.tables import Document, render

FORMATS = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}  # of out=FILE, unless format says
ANOTHER_PLACE = "Set out=FILE to another place, or leave it out"


def main(config: TableConfig, line: CommandLine) -> None:
    """Print the table, or write it to `out`."""
    refuse_out(config)
    document = table_document(config, line)
    if config.out is None:
        print(render(document, config.format, terminal_width()), end="")
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


@without_collection()
def table_document(config: TableConfig, line: CommandLine) -> Document:
    """Return the table that is asked for, joined with the runs below `outputs_dir`."""
    paper = published.read(config.paper, line)
    table = paper.table(config.table)
    if isinstance(table, TextTable):
        return text_document(paper.title, table)
    outputs = Path(config.outputs_dir).expanduser()
    folder, states = line.folder, find(outputs)
    if isinstance(table, ParzenTable):
        document = parzen_document(config, folder, paper.title, table, states)
    elif isinstance(table, LikelihoodTable):
        document = likelihood_document(folder, paper, table, states)
    else:
        document = scores_document(config, folder, paper.title, table, states)
    recipes = [experiment(wanted.train, folder) for wanted in experiments(table, "full")]
    others = len(states) - len(follow(recipes, states))
    document.asides.append(f"`{_reproducing(config, line)}` runs what is not run.")
    if not outputs.is_dir():
        document.asides.append(f"There is no folder {outputs}: set outputs_dir=FOLDER to where the runs are.")
    elif others:
        runs = "1 other run follows" if others == 1 else f"{others} other runs follow"
        elsewhere = "" if config.outputs_dir == OUTPUTS else f" outputs_dir={config.outputs_dir}"
        document.asides.append(
            f"In {outputs}, {runs} none of this table's recipes; `genexp runs{elsewhere}` lists them."
        )
    return document


def _reproducing(config: TableConfig, line: CommandLine) -> str:
    """Return the command that runs what this table lacks: for the same paper, from and into the same folders."""
    places = ("paper=", "outputs_dir=", "data_dir=")
    words = [f"table={config.table}", *(word for word in line.overrides if word.startswith(places))]
    return str(CommandLine("reproduce", tuple(words), line.folder))
