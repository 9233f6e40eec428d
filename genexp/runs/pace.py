"""The pace of a training: how long its stages take. What a run's own log tells of it is read here, without torch."""

import math
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from genexp.runs.directory import Run
from genexp.storage.files import read_json_lines


class StagePace(NamedTuple):
    """A stage of a training, and how long its steps take."""

    name: str  # "" if there is one stage alone
    epochs: int
    steps: int  # in all its epochs
    seconds: float  # of a step, with its share of what the end of an epoch takes; NaN if it is not known


def logged_seconds(run: Run) -> dict[str, float]:
    """Return the seconds of a step in each stage of which the run has logged a stretch, by the stage's name.

    They include all that was done between two lines of metrics.jsonl. The time between two sessions is left out.
    """
    resumed_at = {session.get("from_step") for session in run.sessions()}
    spent: dict[str, float] = {}
    steps: dict[str, int] = {}
    lines = [line for line in read_json_lines(run.metrics_file) if {"step", "time"} <= line.keys()]
    for before, line in pairwise(lines):
        name, n = line.get("stage", ""), line["step"] - before["step"]
        is_gap = any(isinstance(step, int) and before["step"] <= step < line["step"] for step in resumed_at)
        if n > 0 and not is_gap and before.get("stage", "") == name:
            spent[name] = spent.get(name, 0.0) + line["time"] - before["time"]
            steps[name] = steps.get(name, 0) + n
    return {name: seconds / steps[name] for name, seconds in spent.items()}


def scoring_seconds(run: Run) -> float | None:
    """Return the seconds that scoring took at the end of a finished run; None if that is not known."""
    status, sessions, lines = run.status(), run.sessions(), read_json_lines(run.metrics_file)
    if status.get("status") != "finished" or not sessions or not lines:
        return None
    try:
        if sessions[-1]["from_step"] >= lines[-1]["step"]:  # the last session only scored, some time later
            return None
        ended = datetime.strptime(status["updated"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
        return max(0.0, ended - float(lines[-1]["time"]))
    except (KeyError, TypeError, ValueError):
        return None


def seconds_left(run: Run, stages: list[StagePace]) -> float:
    """Return the seconds that training still takes; NaN if a stage that is left has no known pace.

    The run's own pace is taken where it is known, else that in `stages`.
    """
    logged, done, total = logged_seconds(run), run.step(), 0.0
    for stage in stages:
        left = stage.steps - min(stage.steps, done)
        done = max(0, done - stage.steps)
        seconds = logged.get(stage.name, stage.seconds)
        total += left * seconds if left else 0.0
    return total


def epochs_done(run: Run, stages: list[StagePace]) -> int:
    """Return the epochs of all stages that the run has completed, as far as it is saved."""
    done, epochs = run.step(), 0.0
    for stage in stages:
        epochs += min(stage.steps, done) / stage.steps * stage.epochs
        done = max(0, done - stage.steps)
    return math.floor(epochs + 1e-9)
