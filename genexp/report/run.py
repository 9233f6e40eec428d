"""The page of one run: what it is, its scores beside the numbers that they compare with, its pictures and curves."""

from collections.abc import Iterable, Sequence

from genexp.errors import UsageError
from genexp.figures.curves import curves, marks_of, thinned
from genexp.papers.answers import experiment, follow, kept_yardsticks
from genexp.papers.parzen_table import YARDSTICKS
from genexp.papers.published import Cell, LikelihoodTable, Paper, ParzenTable
from genexp.report.charts import Dot, dots
from genexp.report.page import Cell as Shown
from genexp.report.page import Film, Grid, Page, Section, film, svg
from genexp.rundirs.find import RunState
from genexp.score import Score
from genexp.storage.files import read_json_lines
from genexp.text import count, duration

FRAMES = 24  # pictures of a slider; more make a page heavy
CAPTIONS = {
    "samples": "samples from the same noise at each epoch; a row for each class where the model has classes",
    "reconstructions": "rows alternate: images, what the encoder saw of them if noise corrupts it, reconstructions",
    "filters": "incoming weights of units, those of the largest norm first, each scaled to its own range",
    "chains": "consecutive states of a chain in each row",
    "translations": "images and their translations",
}


def page_of_run(state: RunState, paper: Paper, folder: str | None) -> Page:
    """Return the page of a run; `paper` has the published numbers. Nothing is computed or loaded but what is kept."""
    run, config = state.run, state.config
    if config is None:
        raise UsageError(f"{run.config_file} cannot be read; `genexp report` takes runs whose configuration it can")
    title = f"{config.name} on {config.dataset['name']}, seed {config.seed}"
    page = Page(
        title, f"{state.status}, epoch {state.epoch} of {state.epochs}", command=str(run.status().get("command", ""))
    )
    page.sections.append(_scores(state, paper, folder))
    films = [each for each in _films(state) if each is not None]
    page.sections.append(Section("Pictures", films=films))
    lines = thinned(read_json_lines(run.metrics_file))
    try:
        splits = {name: str(metric["split"]) for name, metric in config.metrics.items() if "split" in metric}
        drawn = svg(curves(lines, "", splits, marks_of(run, lines)))
        page.sections.append(Section("Curves", charts=[("curves over epochs", drawn)]))
    except UsageError:  # nothing is logged yet
        pass
    page.sections.append(Section("What made it", facts=_facts(state)))
    return page


def _scores(state: RunState, paper: Paper, folder: str | None) -> Section:
    results, config = state.results, state.config
    assert config is not None
    if results is None:
        newest = state.newest_score()
        so_far = f"{newest.name} {newest.score.mean:.4g} at epoch {newest.epoch}" if newest is not None else "none yet"
        return Section("Scores", notes=[f"The run is not finished. Its newest score: {so_far}."])
    named = [(name, score) for name, score in results.scores.items()]
    named += [(f"{name}, raw weights", score) for name, score in results.raw_scores.items()]
    notes = [*results.remarks, *(score.warning for _, score in named if score.warning is not None)]
    comparisons = [(name, chart) for name, score in named if (chart := _beside(name, score, state, paper, folder))]
    return Section("Scores", grids=[scores_grid(named)], charts=comparisons, notes=notes)


def scores_grid(named: Iterable[tuple[str, Score]]) -> Grid:
    """Return a table of scores and their names."""
    return Grid(["score", "value"], [[Shown(name), Shown(score.summary)] for name, score in named], [True, True])


def _beside(name: str, score: Score, state: RunState, paper: Paper, folder: str | None) -> str:
    """Return a chart of a score beside the published number of its experiment and its yardsticks, if it has any."""
    config = state.config
    assert config is not None
    metric = config.metrics.get(name)
    if metric is None or not score.is_known:
        return ""
    numbers = [Dot(name, score.mean, score.stderr, "here")]
    for cell in _published(name, state, paper, folder):
        numbers.append(Dot(name, cell.value, cell.spread, "published"))
    if metric["name"] == "parzen":
        for yardstick, value in kept_yardsticks(config, state.digest).items():
            numbers.append(Dot(YARDSTICKS[yardstick], value.mean, None, "yardstick"))
    return svg(dots(numbers, f"{name}, nats")) if len(numbers) > 1 else ""


def _published(name: str, state: RunState, paper: Paper, folder: str | None) -> list[Cell]:
    """Return the published number that this run is a run for, if there is one."""
    assert state.config is not None
    cells: list[Cell] = []
    for table in paper.tables.values():
        if isinstance(table, ParzenTable) and name == "parzen":
            data_set = f"dataset={state.config.dataset['name']}"
            columns = [key for key, column in table.columns.items() if data_set in column.train]
            cells += [row.cells[key] for row in table.rows for key in columns if key in row.cells]
        elif isinstance(table, LikelihoodTable):
            cells += [row for row in table.rows if row.metric == name]
    return [cell for cell in cells if cell.train is not None and follow([experiment(cell.train, folder)], [state])][:1]


def _films(state: RunState) -> Sequence[Film | None]:
    path = state.run.path
    films = [film(path / name, name, CAPTIONS[name], FRAMES) for name in CAPTIONS if (path / name).is_dir()]
    for name in ("filters", "reconstructions"):
        for folder in sorted(each for each in (path / name).glob("*") if each.is_dir()):
            films.append(film(folder, f"{name}, {folder.name.replace('_', ' ')}", CAPTIONS[name], FRAMES))
    return films


def _facts(state: RunState) -> list[tuple[str, str]]:
    """Return where the run lies, and the machine and versions of its last session."""
    sessions, results = state.run.sessions(), state.results
    facts = [("run", str(state.run.path)), ("images", state.digest or "not known")]
    if results is not None:
        pace = f"{results.images_per_second:,.0f} images/s"
        facts.append(("training", f"{duration(results.train_seconds)}, {pace}, {count(results.steps, 'step')}"))
    facts.append(("sessions", str(len(sessions))))
    for name, value in (sessions[-1] if sessions else {}).items():
        if isinstance(value, str | int | float) and name != "from_step":
            facts.append((name.replace("_", " "), str(value)))
        elif isinstance(value, dict):
            facts.append((name.replace("_", " "), ", ".join(f"{key} {each}" for key, each in value.items())))
    if state.error:
        facts.append(("error", state.error.splitlines()[0]))
    return facts
