"""The pace of a training: how long its stages take. What a run's own log tells of it is read here, without torch."""

import math
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from genexp.rundirs.directory import Run
from genexp.storage.files import last_json_line, read_json_lines
from genexp.text import TIME


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
    for before, line in pairwise(_timed(read_json_lines(run.metrics_file))):
        name, n = line.get("stage", ""), line["step"] - before["step"]
        is_gap = any(isinstance(step, int) and before["step"] <= step < line["step"] for step in resumed_at)
        if n > 0 and not is_gap and before.get("stage", "") == name:
            spent[name] = spent.get(name, 0.0) + line["time"] - before["time"]
            steps[name] = steps.get(name, 0) + n
    return {name: seconds / steps[name] for name, seconds in spent.items()}


def scoring_seconds(run: Run) -> float | None:
    """Return the seconds that scoring took at the end of a finished run; None if that is not known."""
    status, sessions, last = run.status(), run.sessions(), last_json_line(run.metrics_file)
    try:
        trained = sessions[-1]["from_step"] < last["step"]  # else the last session only scored, some time later
        ended = datetime.strptime(status["updated"], TIME).timestamp()
        return max(0.0, ended - last["time"]) if trained and status["status"] == "finished" else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _timed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines that tell a step and a time."""
    return [line for line in lines if isinstance(line.get("step"), int) and isinstance(line.get("time"), float)]


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
