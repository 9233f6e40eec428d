"""The runs that reproduce a published number, found among the run directories."""

import math
import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from genexp.config.command_line import CommandLine
from genexp.config.components import Component, settings_of
from genexp.config.compose import configuration
from genexp.config.schema import TrainConfig
from genexp.runs.find import RunState
from genexp.runs.results import Evaluation
from genexp.score import Score


@dataclass(frozen=True)
class Answer:
    """The mean score of the runs of one experiment that differ in their seeds alone, or of images without a model."""

    mean: float  # over seeds
    stderr: float | None  # over what is scored, the mean of the runs' own
    score: Score  # of the first run
    sigmas: list[float]  # each window width that a run, or one of its folds, chose
    runs: int = 1
    seed_spread: float | None = None  # standard deviation over seeds, n − 1; None for one run
    epoch: float | None = None
    recipe_epochs: int | None = None
    minutes: float | None = None  # of training, the mean of the runs
    left_out: int = 0  # other runs of the experiment, of fewer epochs or on other data
    exact: bool = True  # False if the metric was taken under other settings than asked
    digest: str | None = None  # of the data

    @classmethod
    def alone(cls, score: Score) -> "Answer":
        """Return the score of images that no model drew."""
        return cls(score.mean, score.stderr, score, _sigmas([score]))

    @property
    def is_short(self) -> bool:
        """True if the runs have fewer epochs than the recipe."""
        return self.epoch is not None and self.recipe_epochs is not None and self.epoch < self.recipe_epochs

    def epochs(self) -> str:
        """Return the epochs of the runs beside those of the recipe."""
        return "" if self.epoch is None else f"{self.epoch:.4g}/{self.recipe_epochs}"

    def seeds(self) -> str:
        """Return the spread over seeds and their number."""
        return "" if self.seed_spread is None else f"{self.seed_spread:.1f} (n = {self.runs})"

    def standard_error(self) -> float:
        """Return the standard error of the mean, over test images, and over seeds where there are several."""
        return math.hypot(self.stderr or 0, (self.seed_spread or 0) / math.sqrt(self.runs))


def _sigmas(scores: list[Score]) -> list[float]:
    """Return each window width of the scores once."""
    sigmas = [score.sigma for score in scores if score.sigma is not None]
    return sorted({value for sigma in sigmas for value in (sigma if isinstance(sigma, list) else [sigma])})


class Scored(NamedTuple):
    """A run with its score by the metric that is asked for."""

    state: RunState
    evaluation: Evaluation

    def kind(self) -> tuple[Any, ...]:
        """Return what has to be equal for two runs to be averaged."""
        evaluation = self.evaluation
        return evaluation.epoch, self.state.run.digest(), evaluation.settings, evaluation.score.extractor


def experiment(settings: list[str], folder: str | None) -> TrainConfig:
    """Return the configuration of a `genexp train` command line; `folder` holds the user's own configurations."""
    return _experiment(tuple(settings), folder)


@cache
def _experiment(settings: tuple[str, ...], folder: str | None) -> TrainConfig:
    config: TrainConfig = configuration(CommandLine("train", settings, folder))
    return config


def runs_of(config: TrainConfig, states: list[RunState]) -> list[RunState]:
    """Return the runs that are this experiment, whatever their seed, those that went furthest first."""
    identity = identity_but_seed(config)
    same = [state for state in states if state.config is not None and identity_but_seed(state.config) == identity]
    return sorted(same, key=lambda state: -state.epoch)


def identity_but_seed(config: TrainConfig) -> dict[str, Any]:
    """Return what makes the experiment, without its seed."""
    return {key: value for key, value in config.identity().items() if key != "seed"}


def answer(config: TrainConfig, metric: Component, states: list[RunState]) -> Answer | None:
    """Return the mean score by `metric` of the experiment's runs, one for each seed; None if none has such a score.

    Where none was scored as asked, the same metric under other settings is taken, and `exact` is False. Runs of fewer
    epochs than the longest, and on other data, are left out: unlike runs have no common mean.
    """
    scored = [Scored(state, entry) for state in states if (entry := _evaluation(state, metric)) is not None]
    if not scored:
        return None
    exact = [run for run in scored if run.evaluation.settings == settings_of(metric)]
    longest = max(exact or scored, key=lambda run: run.evaluation.epoch)
    alike = [run.evaluation for run in exact or scored if run.kind() == longest.kind()]
    by_seed = {evaluation.seed: evaluation for evaluation in reversed(alike)}
    scores = [by_seed[seed].score for seed in sorted(by_seed)]
    means = [score.mean for score in scores]
    stderrs = [score.stderr for score in scores if score.stderr is not None]
    return Answer(
        mean=statistics.fmean(means),
        stderr=statistics.fmean(stderrs) if stderrs else None,
        score=scores[0],
        sigmas=_sigmas(scores),
        runs=len(by_seed),
        seed_spread=statistics.stdev(means) if len(means) > 1 else None,
        epoch=longest.evaluation.epoch,
        recipe_epochs=config.epochs,
        minutes=statistics.fmean(evaluation.train_seconds for evaluation in by_seed.values()) / 60,
        left_out=len(states) - len(by_seed),
        exact=bool(exact),
        digest=longest.state.run.digest(),
    )


def _evaluation(state: RunState, metric: Component) -> Evaluation | None:
    """Return the run's score by this metric, of its last step, from its own seed and sampler; as asked if there is one.

    There may still be several, by different extractors: the newest is taken.
    """
    evaluations = [
        evaluation
        for evaluation in state.run.evaluations().values()
        if evaluation.metric == metric["name"] and not evaluation.sampling
        if state.config is not None and evaluation.seed == state.config.seed
    ]

    def order(evaluation: Evaluation) -> tuple[Any, ...]:
        exact = evaluation.settings == settings_of(metric)
        return exact, evaluation.step, evaluation.provenance.get("time", "")

    return max(evaluations, key=order, default=None)
