"""The scores of a run at one step: taken on the way, or at the end of training, where each is kept at once."""

from dataclasses import dataclass, field
from typing import Any

from genexp.config.components import Component
from genexp.metrics import Subject
from genexp.rundirs import results
from genexp.rundirs.directory import Run
from genexp.score import Score
from genexp.training import build
from genexp.training.logs import warn


@dataclass(frozen=True)
class Scores:
    """The scores of a run at one step, by metric: of its averaged weights, or of its weights if none are averaged."""

    averaged: dict[str, Score] = field(default_factory=dict)
    raw: dict[str, Score] = field(default_factory=dict)  # of the weights as they are, beside the averaged ones

    def curves(self) -> dict[str, float]:
        """Return the points of the scores' curves.

        score/NAME; valid/NAME if there is a mean on validation images; score/NAME/raw of the raw weights.
        """
        points = {f"score/{name}": score.mean for name, score in self.averaged.items()}
        on_valid = {name: score.on_valid for name, score in self.averaged.items()}
        points |= {f"valid/{name}": mean for name, mean in on_valid.items() if mean is not None}
        return points | {f"score/{name}/raw": score.mean for name, score in self.raw.items()}


def scores_on_the_way(metrics: dict[str, Component], subject: Subject) -> dict[str, Score]:
    """Return every metric's score of the subject, by name."""
    scores = build.scores(metrics, subject)
    return {name: _told(name, score) for name, score in scores.items()}


def scores_at_the_end(
    run: Run, metrics: dict[str, Component], subject: Subject, origin: dict[str, Any]
) -> dict[str, Score]:
    """Return every metric's score of the subject, by name. Each is kept as soon as it is taken.

    `origin` is what the scores follow from beside their metrics. A score that is kept already is not taken again. If a
    metric fails, its error is raised once the others are taken.
    """
    scores: dict[str, Score] = {}
    failures: list[Exception] = []
    for name, metric in metrics.items():
        kept = run.score(metric, origin["sampling"], origin["seed"], origin["step"])
        if kept is None:
            print(f"scoring by {name}", flush=True)
            try:
                kept = _told(name, build.score(name, metric, subject))
            except Exception as error:  # a metric from outside raises what it likes
                failures.append(error)
                continue
            evaluation = results.evaluation(metric, kept, **origin)
            results.record(run.results_file, {}, evaluation, run.refuse_if_moved)
        scores[name] = kept
    if failures:
        raise failures[0]
    return scores


def _told(name: str, score: Score) -> Score:
    if score.reason is not None:
        warn(f"{name} is not known: {score.reason}")
    return score
