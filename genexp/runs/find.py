"""Finding run directories: below a folder, or by paths and globs. It does not import torch."""

import glob
import math
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from genexp.config.components import lower_is_better
from genexp.config.schema import TrainConfig, flat
from genexp.errors import UsageError
from genexp.runs.directory import Run
from genexp.runs.results import Results
from genexp.score import Score
from genexp.storage.files import identity, read_json_lines, was_set_aside
from genexp.text import TIME


class NewestScore(NamedTuple):
    """The newest score of a run, at the end of training or on the way."""

    name: str
    score: Score
    epoch: int


@dataclass(frozen=True)
class RunState:
    """A run directory as it is now."""

    run: Run
    config: TrainConfig | None  # None if config.yaml cannot be read
    status: str  # running, interrupted, failed, finished, killed (it says running, but no process holds it) or unknown
    epoch: int
    epochs: int
    error: str | None
    updated: float  # seconds since 1970
    results: Results | None
    stage: str = ""  # the name of the stage in which training is, if there are several

    @property
    def progress(self) -> str:
        """The epochs completed of those asked for, of all stages; of a finished run those of the last stage."""
        return (f"{self.stage}: " if self.stage else "") + f"{self.epoch}/{self.epochs}"

    def newest_score(self) -> NewestScore | None:
        """Return the newest score of the run, if it has one."""
        trained, steps = (self.results.epochs, self.results.steps) if self.results is not None else (0, 0)
        for line in reversed(read_json_lines(self.run.metrics_file)):
            curve = next((key for key in line if key.startswith("score/")), None)
            if curve is not None and isinstance(line[curve], float) and _number(line.get("step")) > steps:
                name = curve.removeprefix("score/")
                metric = self.config.metrics.get(name) if self.config is not None else None
                lower = metric is not None and lower_is_better(metric)
                score = Score(line[curve], None, f"{line[curve]:.4g}", lower_is_better=lower)
                return NewestScore(name, score, line["epoch"])
        scores = self.results.scores if self.results is not None else {}
        return next((NewestScore(name, score, trained) for name, score in scores.items()), None)


def _number(value: Any) -> Any:
    """Return a number of epochs from a file that may hold anything; 0 if it is none."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


def find(outputs_dir: Path) -> list[RunState]:
    """Return every run below a folder, by path. Runs that were moved aside, and reruns, are left out."""
    paths, seen = [], set()
    for place, folders, files in os.walk(outputs_dir, followlinks=True):
        if {"config.yaml", "status.json"} <= set(files):
            paths.append(Path(place))
        known = {name: identity(Path(place, name)) for name in folders}
        folders[:] = [name for name in folders if known[name] not in seen and name != "checkpoints"]
        seen |= set(known.values())  # a link may lead back
    return [state_of(Run(path)) for path in sorted(paths) if not was_set_aside(path)]


def state_of(run: Run) -> RunState:
    """Return how far a run has come."""
    said = run.status()
    status = str(said.get("status", "unknown"))
    if status == "running" and not run.is_held(if_unknown=True):
        status = "killed"
    try:
        config: TrainConfig | None = run.config
    except UsageError:
        config = None
    results = Results.read(run.results_file)
    epoch = _number(said.get("epoch"))
    if status == "finished":
        epoch = results.epochs if results is not None else 0
    elif said.get("epoch") is None:  # a status that ends a run early does not say
        lines = reversed(read_json_lines(run.metrics_file))
        epoch = next((_number(line["epoch"]) for line in lines if "epoch" in line), 0)
    epochs = _number(said.get("epochs")) or (config.epochs if config else 0)
    try:
        updated = datetime.strptime(str(said.get("updated")), TIME).timestamp()
    except ValueError:
        updated = run.status_file.stat().st_mtime
    error = str(said["error"]) if said.get("error") else None
    stage = str(said["stage"]) if said.get("stage") and status != "finished" else ""
    return RunState(run, config, status, epoch, max(epoch, epochs), error, updated, results, stage)


def matching(pattern: str) -> list[Run]:
    """Return the runs that a path or a glob names. A glob leaves out runs that were moved aside, and reruns."""
    pattern = str(Path(pattern).expanduser())
    named = Run(Path(pattern))
    if named.config_file.is_file():  # a name may hold brackets
        return [named]
    runs = [Run(Path(path)) for path in sorted(glob.glob(pattern))]  # noqa: PTH207 (Path's own takes no absolute one)
    return [run for run in runs if run.config_file.is_file() and not was_set_aside(run.path)]


def named_runs(patterns: Iterable[str]) -> list[Run]:
    """Return the runs that paths and globs name. Raises UsageError for one that names no run."""
    matches = [(pattern, matching(pattern)) for pattern in patterns]
    for pattern, runs in matches:
        if not runs:
            below = [deeper for deeper in (f"{pattern}/*/*", f"{pattern}/*") if pattern and matching(deeper)]
            hint = f"run='{below[0]}' takes those in it" if below else "`genexp runs` lists them"
            raise UsageError(f"run={pattern}: there is no run's directory; {hint}")
    several = len(matches) > 1  # the shell has expanded a glob, and leaves nothing out
    return [run for _, runs in matches for run in runs if not (several and was_set_aside(run.path))]


def same_but_path(config: TrainConfig, digest: str) -> list[Run]:
    """Return the runs beside a configuration's that are the same experiment on the same images, from another place."""

    def without_path(identity: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in flat(identity).items() if key != "dataset.path"}

    runs = [Run(path.parent) for path in sorted(config.directory().parent.glob("*/data.json"))]
    same = []
    for run in runs:
        if run.digest() == digest and not was_set_aside(run.path):
            with suppress(UsageError):  # a damaged configuration is of no use here
                if without_path(run.config.identity()) == without_path(config.identity()):
                    same.append(run)
    return same


def differing_settings(states: Iterable[RunState]) -> dict[Path, str]:
    """Return for each run the settings, but for the seed, in which it differs from other runs of its model and data.

    Where the choice of a group differs, such as the optimizer, its settings are compared with those of equal choice.
    """
    settings: dict[Path, list[tuple[Hashable, str, str]]] = {}  # the compared setting, its name and value
    values: dict[Hashable, set[str]] = defaultdict(set)
    for state in states:
        config = state.config
        own = flat(config.identity()) if config is not None else {}
        settings[state.run.path] = []
        for key, value in own.items():
            group, _, name = key.rpartition(".")
            if config is None or key == "seed" or name == "_target_":
                continue
            choice = None if name == "name" else own.get(f"{group}.name")
            compared = (config.model["name"], config.dataset["name"], key, choice)
            settings[state.run.path].append((compared, group if name == "name" else name, str(value)))
            values[compared].add(str(value))
    return {
        path: " ".join(f"{name}={value}" for compared, name, value in own if len(values[compared]) > 1)
        for path, own in settings.items()
    }
