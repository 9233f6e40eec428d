"""Numbers beside the published ones: scores of the runs that reproduce them, and yardsticks of the data set."""

import hashlib
import json
import math
import statistics
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genexp.config.command_line import CommandLine
from genexp.config.commands import TableConfig
from genexp.config.components import Component, defining
from genexp.config.composed import configuration
from genexp.config.schema import AVERAGES, TrainConfig
from genexp.errors import GenexpError
from genexp.rundirs.find import RunState
from genexp.rundirs.results import RAW, Evaluation
from genexp.score import Score
from genexp.storage.derived import derived
from genexp.storage.files import cache_folder, read_json, write_json


@dataclass(frozen=True)
class Answer:
    """The mean score of the runs of one experiment that differ in their seeds alone, or of images without a model."""

    mean: float  # over seeds
    stderr: float | None  # over what is scored, the mean of the runs' own
    scores: list[Score]  # of each run
    sigmas: list[float]  # each window width that a run, or one of its folds, chose
    runs: int = 1
    seed_spread: float | None = None  # standard deviation over seeds, n − 1; None for one run
    epoch: float | None = None  # of all stages
    recipe_epochs: int | None = None
    minutes: float | None = None  # of training, the mean of the runs
    left_out: int = 0  # other runs of the experiment, of fewer epochs, on other data, or whose score is not known
    exact: bool = True  # False if the metric was taken under other settings than asked
    otherwise: str = ""  # those other settings
    digest: str | None = None  # of the data

    @classmethod
    def alone(cls, score: Score) -> "Answer":
        """Return the score of images that no model drew."""
        return cls(score.mean, score.stderr, [score], _sigmas([score]))

    @property
    def score(self) -> Score:
        """The score of the first run, for what all runs have in common."""
        return self.scores[0]

    def detail(self, name: str) -> float | None:
        """Return the mean over runs of a value beside the score; None if it is missing in one of them."""
        values = [score.details.get(name) for score in self.scores]
        numbers = [value for value in values if value is not None]
        return statistics.fmean(numbers) if len(numbers) == len(values) else None

    @property
    def is_short(self) -> bool:
        """True if the runs have fewer epochs than the recipe."""
        return self.epoch is not None and self.recipe_epochs is not None and self.epoch < self.recipe_epochs

    def epochs(self) -> str:
        """Return the epochs of the runs beside those of the recipe."""
        return "" if self.epoch is None else f"{self.epoch:.4g}/{self.recipe_epochs}"

    def standard_error(self) -> float:
        """Return the standard error of the mean, over test images, and over seeds where there are several."""
        return math.hypot(self.stderr or 0, (self.seed_spread or 0) / math.sqrt(self.runs))


def _sigmas(scores: list[Score]) -> list[float]:
    """Return each window width of the scores once."""
    sigmas = [score.sigma for score in scores if score.sigma is not None]
    return sorted({value for sigma in sigmas for value in (sigma if isinstance(sigma, list) else [sigma])})


_configuration = cache(configuration)  # a table asks for the same experiment several times


def experiment(settings: list[str], folder: str | None) -> TrainConfig:
    """Return the configuration of a `genexp train` command line; `folder` holds the user's own configurations."""
    config: TrainConfig = _configuration(CommandLine("train", tuple(settings), folder))
    return config


def runs_of(config: TrainConfig, states: list[RunState]) -> list[RunState]:
    """Return the runs that are this experiment, whatever their seed, those that went furthest first.

    An average takes no part in training. So a run with one stands for its seed's run without, if that is not scored.
    """
    recipe = config.identity()
    same = [state for state in states if _but_for_seed(state.identity, recipe)]
    scored = {state.identity["seed"] for state in same if state.evaluations}
    averaged = [state for state in states if _stands_in(state.identity, recipe)]
    same += [state for state in averaged if state.identity["seed"] not in scored]
    return sorted(same, key=lambda state: -state.epoch)


def follow(recipes: list[TrainConfig], states: list[RunState]) -> list[RunState]:
    """Return the runs that are one of these experiments, or stand in for one, whatever their seed."""
    identities = [recipe.identity() for recipe in recipes]
    return [
        state
        for state in states
        if any(_but_for_seed(state.identity, recipe) or _stands_in(state.identity, recipe) for recipe in identities)
    ]


def identity_but_seed(config: TrainConfig) -> dict[str, Any]:
    """Return what makes the experiment, without its seed."""
    return _without_seed(config.identity())


def _without_seed(identity: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key != "seed"}


def stands_in(averaged: TrainConfig, plain: TrainConfig) -> bool:
    """Return True if a run's raw weights are those of another experiment, which has no average, whatever its seed."""
    return _stands_in(averaged.identity(), plain.identity())


def _stands_in(averaged: dict[str, Any], plain: dict[str, Any]) -> bool:
    """Return the same of two identities."""
    if averaged.keys().isdisjoint(AVERAGES) or not plain.keys().isdisjoint(AVERAGES):
        return False
    return _but_for_seed({key: value for key, value in averaged.items() if key not in AVERAGES}, plain)


def _but_for_seed(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return True if two identities are equal, but for their seeds. The model comes first, in which most differ."""
    return one.get("model") == other.get("model") and _without_seed(one) == _without_seed(other)


def answer(config: TrainConfig, metric: Component, states: list[RunState], raw: bool = False) -> Answer | None:
    """Return the mean score by `metric` of the experiment's runs, one for each seed; None if none has such a score.

    It is the score of the `raw` weights of runs with averaged ones, if asked, or if the experiment does not average.
    Where none was scored as asked, the same metric under other settings is taken, and `exact` is False. Runs of fewer
    epochs than the longest, and on other data, are left out: unlike runs have no common mean. So are runs whose score
    is not known, unless there are no others; the mean is then NaN, too.
    """

    recipe = config.identity()

    def evaluation(state: RunState) -> Evaluation | None:
        stand_in = _stands_in(state.identity, recipe)
        return _evaluation(state, metric, RAW if raw or stand_in else {})

    scored = [(state, entry) for state in states if (entry := evaluation(state)) is not None]
    scored = [(state, entry) for state, entry in scored if entry.score.is_known] or scored
    exact = [(state, entry) for state, entry in scored if entry.is_by(metric)]
    if not scored:
        return None

    def kind(state: RunState, entry: Evaluation) -> tuple[Any, ...]:
        return entry.epoch, state.digest, entry.settings_of(metric), entry.score.extractor

    longest_run, longest_entry = max(exact or scored, key=lambda run: run[1].epoch)
    longest = kind(longest_run, longest_entry)
    alike = [entry for state, entry in exact or scored if kind(state, entry) == longest]
    by_seed = {entry.seed: entry for entry in reversed(alike)}
    scores = [by_seed[seed].score for seed in sorted(by_seed)]
    means = [score.mean for score in scores]
    stderrs = [score.stderr for score in scores if score.stderr is not None]
    earlier = longest_run.earlier_epochs
    return Answer(
        mean=statistics.fmean(means),
        stderr=statistics.fmean(stderrs) if stderrs else None,
        scores=scores,
        sigmas=_sigmas(scores),
        runs=len(by_seed),
        seed_spread=statistics.stdev(means) if len(means) > 1 and all(map(math.isfinite, means)) else None,
        epoch=longest_entry.epoch + earlier,
        recipe_epochs=config.epochs + earlier,
        minutes=statistics.fmean(entry.train_seconds for entry in by_seed.values()) / 60,
        left_out=len(states) - len(by_seed),
        exact=bool(exact),
        otherwise="" if exact else _differing(alike[0].settings_of(metric), defining(metric)),
        digest=longest_run.digest,
    )


def _differing(taken: Component, asked: Component) -> str:
    """Return in words which settings of a score are not those asked for."""
    names = [name for name in {**taken, **asked} if taken.get(name) != asked.get(name) and name != "_target_"]
    return ", ".join(
        f"{name} {taken.get(name, 'as before there was this setting')}, not {asked.get(name, 'as before')}"
        for name in names
    )


def _evaluation(state: RunState, metric: Component, sampling: dict[str, Any]) -> Evaluation | None:
    """Return the run's score by this metric, of its last step, from its own seed; as asked if there is one.

    There may still be several, by different extractors: the newest is taken.
    """
    evaluations = [
        evaluation
        for evaluation in state.evaluations.values()
        if evaluation.metric == metric["name"] and evaluation.sampling == sampling
        if state.config is not None and evaluation.seed == state.config.seed
    ]

    def order(evaluation: Evaluation) -> tuple[Any, ...]:
        return evaluation.is_by(metric), evaluation.step, evaluation.provenance.get("time", "")

    return max(evaluations, key=order, default=None)


def common_digest(answers: Iterable[Answer]) -> str | None:
    """Return the digest of the images that all runs were trained on; None if there are no runs, or they differ."""
    digests = {answer.digest for answer in answers}
    return digests.pop() if len(digests) == 1 else None


def yardsticks(config: TableConfig, recipe: TrainConfig, digest: str | None) -> dict[str, Score]:
    """Return the Parzen score of each yardstick on the recipe's data set, by the yardstick's name.

    They are computed once and kept in the cache folder; with a `digest`, on images of that digest. Raises GenexpError
    if the data set is missing, or its images have another digest.
    """
    dataset, metric, file = recipe.dataset, recipe.metrics["parzen"], _yardsticks_file(recipe)

    def read(file: Path) -> dict[str, Any]:
        content = read_json(file)
        if not content or digest not in (None, content["digest"]):
            raise FileNotFoundError(file)
        return content

    def compute() -> dict[str, Any]:
        from genexp.device import select  # loads torch
        from genexp.papers.yardsticks import score_yardsticks
        from genexp.training import build

        data = build.data_set(dataset, config.data_dir).to(select(config.device.kind, config.device.threads))
        if digest not in (None, data.digest()):
            raise GenexpError(f"the runs were trained on other images than those of dataset={dataset['name']} now")
        print(f"computing yardsticks on {dataset['name']}, once, which may take minutes; kept in {file}", flush=True)
        scores = {name: score.to_json() for name, score in score_yardsticks(data, metric).items()}
        return {"digest": data.digest(), "scores": scores}

    with redirect_stdout(sys.stderr):  # a table may be going to a file
        content = derived(file, read=read, make=compute, write=write_json, what=f"yardsticks on {dataset['name']}")
    return {name: Score.from_json(score) for name, score in content["scores"].items()}


def kept_yardsticks(recipe: TrainConfig, digest: str | None) -> dict[str, Score]:
    """Return the same scores if they were computed before, on images of this digest; nothing else."""
    content = read_json(_yardsticks_file(recipe)) if "parzen" in recipe.metrics else {}
    if not content or content.get("digest") != digest:
        return {}
    return {name: Score.from_json(score) for name, score in content["scores"].items()}


def _yardsticks_file(recipe: TrainConfig) -> Path:
    dataset, metric = recipe.dataset, recipe.metrics["parzen"]
    key = hashlib.sha256(json.dumps([defining(dataset), defining(metric)], sort_keys=True).encode()).hexdigest()[:8]
    return cache_folder("yardsticks") / f"{dataset['name']}-{metric['name']}-{key}.json"
