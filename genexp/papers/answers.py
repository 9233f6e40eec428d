"""What this project's runs answer to a published number: found among the run directories, never typed in."""

import math
import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any

from genexp.config import schema
from genexp.config.compose import compose, own_folders
from genexp.config.schema import Component, TrainConfig, settings_of
from genexp.runs import results
from genexp.runs.find import Found


@dataclass(frozen=True)
class Answer:
    """The runs of one experiment that differ in their seeds alone, under one score."""

    runs: int
    mean: float  # over seeds
    stderr: float | None  # over what is scored, the mean of the runs' own
    seed_spread: float | None  # standard deviation over seeds, n − 1; None for one run
    epoch: float
    recipe_epochs: int | None  # None of what was not trained
    minutes: float  # of training, the mean of the runs
    left_out: int  # runs of the experiment that are not in it: of fewer epochs, or of other data
    exact: bool  # whether it was scored as asked
    digest: str | None  # of the data
    score: dict[str, Any]  # of the first run, with all that defines it
    sigmas: list[float]

    @classmethod
    def alone(cls, score: dict[str, Any]) -> "Answer":
        """A score of something that was not trained."""
        return cls(1, score["mean"], score["stderr"], None, 0, None, 0, 0, True, None, score, _flat([score["sigma"]]))

    def standard_error(self) -> float:
        """Of the mean: over test points, and over seeds where there are several."""
        seeds = (self.seed_spread or 0) / math.sqrt(self.runs)
        return math.hypot(self.stderr or 0, seeds)


def experiment(words: list[str]) -> TrainConfig:
    """The configuration of a `genexp train` command line."""
    return _composed(tuple(words), own_folders())


@cache
def _composed(words: tuple[str, ...], _folders: tuple[str, ...]) -> TrainConfig:
    config: TrainConfig = schema.load("train", compose("train", list(words)))
    return config


def of_experiment(wanted: TrainConfig, runs: list[Found]) -> list[Found]:
    """The runs that are this experiment, whatever their seed, those that went furthest first."""
    same = [found for found in runs if found.config is not None and _but_seed(found.config) == _but_seed(wanted)]
    return sorted(same, key=lambda found: -found.epoch)


def answer(wanted: TrainConfig, metric: Component, runs: list[Found]) -> Answer | None:
    """The runs of an experiment under `metric`, one for each seed; None if none is scored by it.

    Where none was scored as asked, the same metric under other settings is taken, and `exact` is false. Runs of fewer
    epochs than the longest, and of other data, are left out: a mean of unlike runs is the mean of nothing.
    """
    scored = [(found, entry) for found in runs if (entry := _evaluation(found, metric)) is not None]
    if not scored:
        return None
    exact = [pair for pair in scored if pair[1]["settings"] == settings_of(metric)]
    longest = max(exact or scored, key=lambda pair: pair[1]["epoch"])
    like = [pair for pair in exact or scored if _kind(*pair) == _kind(*longest)]
    kept = {entry["seed"]: entry for _, entry in reversed(like)}
    scores = [kept[seed]["score"] for seed in sorted(kept)]
    means = [score["mean"] for score in scores]
    stderrs = [score["stderr"] for score in scores if score["stderr"] is not None]
    return Answer(
        runs=len(kept),
        mean=statistics.fmean(means),
        stderr=statistics.fmean(stderrs) if stderrs else None,
        seed_spread=statistics.stdev(means) if len(means) > 1 else None,
        epoch=longest[1]["epoch"],
        recipe_epochs=wanted.epochs,
        minutes=statistics.fmean(entry["train_seconds"] for entry in kept.values()) / 60,
        left_out=len(runs) - len(kept),
        exact=bool(exact),
        digest=longest[0].data_digest,
        score=scores[0],
        sigmas=_flat([score["sigma"] for score in scores if "sigma" in score]),
    )


def _flat(sigmas: list[float | list[float]]) -> list[float]:
    """Each σ that was chosen, by a run or by one of its folds, once."""
    return sorted({value for sigma in sigmas for value in (sigma if isinstance(sigma, list) else [sigma])})


def _but_seed(config: TrainConfig) -> dict[str, Any]:
    return {key: value for key, value in config.identity().items() if key != "seed"}


def _evaluation(found: Found, metric: Component) -> dict[str, Any] | None:
    """The run's score by this metric from its own seed and sampler: as asked, if there is one; of the last step.

    There may still be several, by different extractors: the last that was taken.
    """
    entries = [
        entry
        for entry in results.evaluations(found.path).values()
        if entry["metric"] == metric["name"] and not entry["sampling"]
        if found.config is not None and entry["seed"] == found.config.seed
    ]

    def order(entry: dict[str, Any]) -> tuple[Any, ...]:
        return entry["settings"] == settings_of(metric), entry["step"], entry["provenance"].get("time", "")

    return max(entries, key=order, default=None)


def _kind(found: Found, entry: dict[str, Any]) -> tuple[Any, ...]:
    """What has to be the same for two runs to be averaged."""
    return entry["epoch"], found.data_digest, entry["settings"], entry["score"].get("extractor")
