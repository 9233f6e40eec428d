"""The page of several runs: a table of them with their samples, and their curves over each other."""

import json
import math
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from genexp.figures.curves import series_of, thinned
from genexp.report.charts import COLOURS, Experiment, overlaid
from genexp.report.page import Cell, Grid, Page, Section, svg, thumbnail
from genexp.report.search import study_charts
from genexp.rundirs.find import RunState, differing_settings
from genexp.rundirs.names import short_names
from genexp.storage.files import read_json_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 6  # groups of curves
LEFT_OUT = ("lr", "momentum", "grad_norm", "images_per_second", "beta")  # groups that hardly differ, or tell little
THUMBNAILS = 200  # pictures of samples: a page of more runs has none, and stays below 10 MB


def page_of_runs(states: list[RunState], command: str, place: Path, study: Path | None = None) -> Page:
    """Return the page of runs; `place` is the folder in which it will lie, `study` the file of a search's study."""
    names = sorted({state.config.name for state in states if state.config is not None})
    sets = sorted({state.config.dataset["name"] for state in states if state.config is not None})
    page = Page(f"{len(states)} runs: {', '.join(names)}", f"on {', '.join(sets)}", command=command)
    settings = differing_settings(states)
    page.sections.append(_table(states, settings, place))
    if study is not None:
        page.sections.append(Section("Search", charts=study_charts(study)))
    figure, notes = curves_of(states)
    charts = [("curves of all runs over epochs", svg(figure))] if figure is not None else []
    page.sections.append(Section("Curves", charts=charts, notes=notes))
    return page


def curves_of(states: list[RunState]) -> "tuple[Figure | None, list[str]]":
    """Return the curves of the runs over each other, none if nothing is logged, and notes on what they show."""
    settings = differing_settings(states)
    alike = _alike(states)
    shown = [_experiment(group, states, settings) for group in alike[: len(COLOURS)]]
    groups = _groups(shown)
    if not groups:
        return None, ["Nothing is logged yet."]
    notes = ["A line is the mean over seeds, its band reaches from the least to the greatest."]
    if len(alike) > len(shown):
        notes.append(f"The {len(shown)} best of {len(alike)} experiments are drawn.")
    return overlaid(shown, groups), notes


def _table(states: list[RunState], settings: dict[Path, str], place: Path) -> Section:
    short = short_names([state.run.path for state in states])
    scores = list(dict.fromkeys(name for state in states if state.results for name in state.results.scores))
    header = ["samples", "run", "model", "data", "seed", "settings", "status", "epoch", *scores]
    rows = []
    for state in states:
        path, config = state.run.path, state.config
        picture = thumbnail(state.run.samples) if len(states) <= THUMBNAILS else ""
        model, data, seed = (
            ("?", "?", "?") if config is None else (config.model["name"], config.dataset["name"], str(config.seed))
        )
        row = [
            Cell("", picture=picture),
            Cell(short[path], path.name, link=os.path.relpath(path, place)),
            *(Cell(text, text) for text in (model, data, seed, settings[path], state.status)),
            Cell(state.progress, state.epoch),
        ]
        for name in scores:
            score = state.results.scores.get(name) if state.results is not None else None
            if score is None:
                row.append(Cell(""))
            else:
                row.append(Cell(str(score), score.mean if math.isfinite(score.mean) else ""))
        rows.append(row)
    left = [True, True, True, True, False, True, True, False, *(False for _ in scores)]
    failed = [f"{short[state.run.path]} failed: {state.error.splitlines()[0]}" for state in states if state.error]
    filled = [n for n in range(len(header)) if any(row[n].text or row[n].picture for row in rows)]
    shown = Grid(
        [header[n] for n in filled], [[row[n] for n in filled] for row in rows], [left[n] for n in filled], True
    )
    return Section("Runs", grids=[shown], notes=failed)


def _alike(states: list[RunState]) -> list[list[RunState]]:
    """Return the runs by experiment: those that differ in their seeds alone together, the best experiment first."""
    alike: dict[str, list[RunState]] = defaultdict(list)
    for state in sorted(states, key=_score_order):
        identity = {key: value for key, value in state.identity.items() if key != "seed"}
        if state.config is not None:
            alike[json.dumps(identity, sort_keys=True, default=str)].append(state)
    return list(alike.values())


def _experiment(group: list[RunState], states: list[RunState], settings: dict[Path, str]) -> Experiment:
    """Return the curves of runs that differ in their seeds alone; `settings` are those in which others differ."""
    config = group[0].config
    assert config is not None
    label = settings[group[0].run.path]
    names = {(state.config.name, state.config.dataset["name"]) for state in states if state.config is not None}
    if len(names) > 1 or not label:
        label = f"{config.name} on {config.dataset['name']} {label}".strip()
    lines = [thinned(read_json_lines(state.run.metrics_file)) for state in group]
    lengths = [
        min((line["step"] / line["epoch"] for line in each if line.get("epoch", 0) > 0), default=1.0) for each in lines
    ]
    return Experiment(label, [series_of(each) for each in lines], lengths)


def _score_order(state: RunState) -> float:
    newest = state.newest_score()
    key = newest.score.sort_key() if newest is not None else math.inf
    return key if math.isfinite(key) else math.inf


def _groups(experiments: list[Experiment]) -> list[str]:
    """Return the groups of curves that are drawn: those that most runs have."""
    of_runs = [run for experiment in experiments for run in experiment.runs]
    counts = Counter(group for run in of_runs for group in run if group not in LEFT_OUT)
    groups = [group for group, _ in counts.most_common()]
    scores = [group for group in groups if group.startswith("score/")]
    return [*scores[:2], *(group for group in groups if group not in scores)][:MOST_CURVES]
