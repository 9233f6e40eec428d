"""`genexp report`: a page of HTML about a run, several runs, or a table of a paper."""

import csv
from contextlib import suppress
from pathlib import Path

from genexp.commands.table import table_document
from genexp.config.command_line import CommandLine
from genexp.config.commands import ReportConfig, TableConfig
from genexp.config.compose import configuration
from genexp.errors import UsageError
from genexp.papers import published
from genexp.report.page import Page
from genexp.report.run import page_of_run
from genexp.report.runs import page_of_runs
from genexp.report.table import page_of_table
from genexp.rundirs.directory import Run
from genexp.rundirs.find import RunState, find, named_runs, state_of, without_collection
from genexp.rundirs.names import common_folder
from genexp.storage.files import atomic, would_write, writing
from genexp.text import first_line

NAME = "report.html"
REMEDY = "Set out=FILE.html to another place"


@without_collection()
def main(config: ReportConfig, line: CommandLine) -> None:
    """Write the page, and print where it is. Raises UsageError if neither runs nor a table are named, or both."""
    if (config.table is None) == (not line.runs):
        raise UsageError("what about? genexp report PATH, a glob or a folder of runs, or genexp report table=1")
    if config.out is not None and Path(config.out).suffix not in (".html", ".htm"):
        raise UsageError(f"out={config.out}: a report is written as FILE.html")
    asked_for = Path(config.out).expanduser() if config.out is not None else None
    if config.table is not None:
        names = ("paper", "table", "out", "outputs_dir", "data_dir", "device")
        asked = TableConfig(format="terminal", **{name: getattr(config, name) for name in names})
        page, out = _of_table(asked, line)
    else:
        states = _named(line.runs)
        out = asked_for or _place(line.runs, [state.run for state in states])  # pages of runs link to them from there
        study = next((study for each in line.runs if (study := _study(Path(each).expanduser()))), None)
        page = _of_runs(states, config, line, out.parent, study)
    write(page, asked_for or out)


def write(page: Page, out: Path) -> None:
    """Write a page, whole or not at all, and print where it is. Raises GenexpError."""
    with writing(out, REMEDY):
        would_write(out)
        with atomic(out) as stream:
            stream.write(page.html().encode(errors="backslashreplace"))
    print(f"report: {out}", flush=True)


def at_the_end(runs: list[Run], out: Path, command: str) -> None:
    """Write the page of runs that were trained just now. What goes wrong is told, and is no error: they are whole."""
    if not runs:  # all failed before they began
        return
    try:
        states = [state_of(run) for run in runs]
        if len(states) == 1:
            config = configuration(CommandLine("report"))
            page = page_of_run(states[0], published.read(config.paper, CommandLine("report")), None)
        else:
            page = page_of_runs(states, command, out.parent, _study(out.parent))
        write(page, out)
    except Exception as error:
        print(f"warning: no report was written: {first_line(error)}", flush=True)


def table_at_the_end(config: TableConfig, line: CommandLine) -> None:
    """Write the page of a table that was printed just now; whatever goes wrong is told, and is no error."""
    try:
        write(*_of_table(config, line))
    except Exception as error:
        print(f"warning: no report was written: {first_line(error)}", flush=True)


def _place(patterns: tuple[str, ...], runs: list[Run]) -> Path:
    """Return where the page of runs lies: in the run, in the folder that was named, or in the one that holds them."""
    if len(patterns) == 1 and len(runs) > 1 and (folder := Path(patterns[0]).expanduser()).is_dir():
        return folder / NAME
    if len(runs) == 1:
        return runs[0].path / NAME
    return common_folder([run.path for run in runs]) / NAME


def _named(patterns: tuple[str, ...]) -> list[RunState]:
    """Return the runs that paths, globs, hashes and folders name, each once. Raises UsageError if one names none."""
    states: dict[Path, RunState] = {}
    for pattern in patterns:
        folder = Path(pattern).expanduser()
        if folder.is_dir() and not (folder / "config.yaml").exists():
            found = find(folder) or [state_of(run) for run in _listed(folder)]
        else:
            found = [state_of(run) for run in named_runs([pattern])]
        if not found:
            raise UsageError(f"there is no run in {folder}; `genexp runs` lists them")
        states |= {state.run.path: state for state in found}
    if exports := [path for path, state in states.items() if state.run.is_export]:
        raise UsageError(f"{exports[0]} is an export, which has no pictures and curves; name the run")
    return list(states.values())


def _listed(folder: Path) -> list[Run]:
    """Return the runs that the table of a sweep or a search lists."""
    with suppress(OSError), (folder / "table.csv").open(newline="") as stream:
        paths = [Path(row["run"]) for row in csv.DictReader(stream) if row.get("run")]
        return [Run(path) for path in paths if (path / "config.yaml").is_file()]
    return []


def _study(folder: Path) -> Path | None:
    """Return the study in the folder of a search."""
    return file if (file := folder / "study.db").is_file() else None


def _of_runs(states: list[RunState], config: ReportConfig, line: CommandLine, place: Path, study: Path | None) -> Page:
    if len(states) > 1:
        return page_of_runs(states, str(line), place, study)
    return page_of_run(states[0], published.read(config.paper, line), line.folder)


def _of_table(config: TableConfig, line: CommandLine) -> tuple[Page, Path]:
    """Return the page of a table, and where it lies unless out= says another place."""
    paper = published.read(config.paper, line)
    paper.table(config.table)
    document = table_document(config, line)
    outputs = Path(config.outputs_dir).expanduser()
    again = str(CommandLine("report", (f"table={config.table}", *_places(line)), line.folder))
    page = page_of_table(document, paper, config.table, find(outputs), again, line.folder)
    return page, outputs / f"report-{paper.name}-{config.table}.html"


def _places(line: CommandLine) -> list[str]:
    """Return the settings of a command line that say which paper, and where runs and data are."""
    return [word for word in line.overrides if word.startswith(("paper=", "outputs_dir=", "data_dir="))]
