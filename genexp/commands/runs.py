"""`genexp runs`: list the run directories, and how far each has come. Nothing is changed, torch is not loaded."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genexp.config.command_line import CommandLine
from genexp.config.commands import RunsConfig
from genexp.config.components import is_diagnosis, lower_is_better
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError
from genexp.rundirs.find import NewestScore, RunState, differing_settings, find, without_collection
from genexp.rundirs.names import short_names
from genexp.tables import Column, Document, Table, print_table, render
from genexp.text import TIME, age, number, with_decimals


@dataclass(frozen=True)
class Listed:
    """A row of the table: a run, its newest score, and the settings in which it differs from others."""

    state: RunState
    score: NewestScore | None
    settings: str
    short_name: str

    def score_text(self) -> str:
        if self.score is None:
            return ""
        name, score, epoch = self.score
        value = with_decimals(score.mean, score.stderr, 1) if score.stderr else number(score.mean, ".4g")
        return f"{name} {value}" + (f" (epoch {epoch})" if epoch < self.state.epoch else "")

    def score_order(self) -> tuple[bool, str, float]:
        """Return what to sort by: scores of one name together, the best first; behind them what has none, or NaN."""
        if self.score is None:
            return True, "", math.inf
        metric = self.state.config.metrics.get(self.score.name) if self.state.config is not None else None
        key = self.score.score.sort_key(None if metric is None else lower_is_better(metric))
        return not math.isfinite(key) or is_diagnosis(metric), self.score.name, key


def _of_config(read: Callable[[TrainConfig], str | int]) -> Callable[[Listed], str]:
    """Return what reads a configuration; of a run whose configuration cannot be read, "?"."""
    return lambda row: "?" if row.state.config is None else str(read(row.state.config))


def _score(row: Listed) -> dict[str, Any]:
    if row.score is None:
        return {"score": None}
    name, score, epoch = row.score
    return {"score": name, "mean": score.mean, "stderr": score.stderr, "score_epoch": epoch}


def _progress(row: Listed) -> dict[str, Any]:
    return {"epoch": row.state.epoch, "epochs": row.state.epochs, "stage": row.state.stage}


def _updated(row: Listed) -> dict[str, str]:
    return {"updated": time.strftime(TIME, time.localtime(row.state.updated))}


MODEL, DATASET = _of_config(lambda config: config.model["name"]), _of_config(lambda config: config.dataset["name"])
SEED = _of_config(lambda config: config.seed)
COLUMNS = (
    Column("status", lambda row: row.state.status, lambda row: {"status": row.state.status}, True),
    Column("progress", lambda row: row.state.progress, _progress, True),
    Column("score", Listed.score_text, _score, True),
    Column("age", lambda row: age(time.time() - row.state.updated), _updated, True),
    Column("model", MODEL, lambda row: {"model": MODEL(row)}, True),
    Column("dataset", DATASET, lambda row: {"dataset": DATASET(row)}, True),
    Column("seed", SEED, lambda row: {"seed": row.state.config and row.state.config.seed}, True),
    Column("settings", lambda row: row.settings, lambda row: {"settings": row.settings}, True, "start"),
    Column(
        "run",
        lambda row: str(row.state.run.path),
        lambda row: {"run": str(row.state.run.path), "error": row.state.error},
        left=True,
        brief=lambda row: row.short_name,
    ),
)
ORDERS: dict[str, Callable[[Listed], Any]] = {  # the best score, the most progress and the newest run come first
    "status": lambda row: row.state.status,
    "progress": lambda row: -row.state.epoch / max(row.state.epochs, 1),
    "score": Listed.score_order,
    "age": lambda row: -row.state.updated,
    "path": lambda row: str(row.state.run.path),
}


@without_collection()
def main(config: RunsConfig, _line: CommandLine) -> None:
    """Print the table of runs."""
    folder = Path(config.outputs_dir).expanduser()
    words = config.filter.split() if isinstance(config.filter, str) else config.filter or []
    rows = listed(folder, words, config.sort)
    if config.format != "terminal":
        print(render(Document(f"Runs in {folder}", [Table(COLUMNS, rows)], []), config.format), end="")
        return
    if not rows:
        print(f"no run in {folder}{' matches ' + ' '.join(words) if words else ''}")
        return
    print_table(Table(COLUMNS, rows))
    for row in rows:
        if row.state.error and row.state.status == "failed":
            print(f"{row.state.run.path} failed: {row.state.error.splitlines()[0]}")


def listed(folder: Path, words: list[str], sort: str = "path") -> list[Listed]:
    """Return the runs below a folder that hold all the words, sorted. Raises UsageError if there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; set outputs_dir=FOLDER to where runs are kept")
    states = find(folder)
    settings = differing_settings(states)
    names = short_names([state.run.path for state in states])
    rows = [Listed(state, state.newest_score(), settings[state.run.path], names[state.run.path]) for state in states]
    matching = [row for row in rows if _matches(row, words)] if words else rows
    return sorted(matching, key=lambda row: (ORDERS[sort](row), ORDERS["path"](row)))


def _matches(row: Listed, words: list[str]) -> bool:
    """Return True if the row holds every word; `status:killed` is compared with the whole cell of its column."""
    cells = {column.title: column.show(row) for column in COLUMNS}
    for word in words:
        title, colon, value = word.partition(":")
        if colon and title not in cells:
            raise UsageError(f"filter={word}: there is no column '{title}'; there are {', '.join(cells)}")
        if cells[title] != value if colon else word not in " ".join(cells.values()):
            return False
    return True
