"""Building what the checked components of a configuration name: a data set, a model, a training, scores."""

import importlib
import inspect
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genexp import rng
from genexp.alive import doing
from genexp.config.components import Component, lower_is_better, settings_of
from genexp.config.schema import TrainConfig
from genexp.config.suited import unusable
from genexp.data import DataSet, DataSpec, Derived
from genexp.data.remarks import mistake as mistake_of
from genexp.device import why_not_in_memory
from genexp.errors import GenexpError, UsageError
from genexp.metrics import GivenSamples, Subject
from genexp.models import TENSORS, Autoencoder, Model
from genexp.optimizers import ScheduledOptimizer
from genexp.score import Score
from genexp.text import count, first_line, nearest
from genexp.training.average import Average
from genexp.training.loop import Training
from genexp.training.plan import Plan
from genexp.training.start import take_over


def target(component: Component) -> partial[Any]:
    """Return the component's `_target_` with its settings filled in. Raises UsageError if it cannot be imported."""
    module, _, name = component["_target_"].rpartition(".")
    try:
        called = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module from outside the package raises what it likes
        reason = error if isinstance(error, ImportError | AttributeError) else _origin(error)
        raise UsageError(f"_target_={component['_target_']} cannot be imported: {reason}") from error
    if not callable(called):
        raise UsageError(f"_target_={component['_target_']} is neither a class nor a function")
    return partial(called, **settings_of(component))


def make(key: str, component: Component, *provided: Any) -> Any:
    """Call the component's target with the provided arguments; `key` is the setting that holds the component.

    Raises UsageError if the target does not take these arguments, and for any error in code from outside genexp.
    """
    call = target(component)
    _bind(key, component, call, *provided)
    try:
        return call(*provided)
    except Exception as error:
        if isinstance(error, GenexpError | MemoryError) or component["_target_"].startswith("genexp."):
            raise
        raise UsageError(f"{key}._target_={component['_target_']} failed: {_origin(error)}") from error


def data_set(component: Component, data_dir: str, second: Component | None = None) -> DataSet:
    """Return the data set, on the CPU; with a second one, as its `second`."""
    data = _one_data_set("dataset", component, data_dir)
    if not isinstance(data, DataSet):
        raise UsageError(f"dataset={component['name']} is made of another data set: choose it by dataset@dataset_b=")
    if second is None:
        return data
    other = _one_data_set("dataset_b", second, data_dir)
    pair = replace(data, second=other) if isinstance(other, DataSet) else other.pair(data)
    if not isinstance(pair, DataSet) or pair.second is None:
        raise UsageError(f"dataset_b._target_={second['_target_']} gives no second data set")
    ours, theirs = pair.shape, pair.second.shape
    if len(ours) != 3 or len(theirs) != 3 or ours[1:] != theirs[1:]:
        shown = " and ".join("×".join(map(str, shape)) for shape in (ours, theirs))
        remedy = "choose images of the same height and width, as by dataset.size and dataset_b.size of a folder"
        raise UsageError(f"dataset={component['name']} and dataset_b={second['name']} are {shown}; {remedy}")
    return pair


def _one_data_set(key: str, component: Component, data_dir: str) -> DataSet | Derived:
    """Return what a data set's target gives: a data set, or a function of the first one that returns both."""
    with doing(f"reading {key}={component['name']}"):
        data = make(key, component, Path(data_dir).expanduser())
    if not isinstance(data, DataSet) and not isinstance(data, Derived):
        raise UsageError(f"{key}._target_={component['_target_']} gives a {type(data).__name__}, no DataSet")
    mistake = mistake_of(data) if isinstance(data, DataSet) else None
    if mistake is not None:
        raise UsageError(f"{key}._target_={component['_target_']}: {mistake}")
    return data


def model(component: Component, noise: Component, spec: DataSpec, seed: int, device: torch.device) -> Model:
    """Return the model at the start of training; its initial weights follow from the seed."""
    rng.reseed(torch.device("cpu"), seed, "init")
    corruption = make("noise", noise)
    if not callable(corruption):
        raise UsageError(f"noise._target_={noise['_target_']} gives a {type(corruption).__name__}, no corruption")
    built: Model = make("model", component, spec, corruption)
    mistake = _mistake(built)
    if mistake is not None:
        raise UsageError(f"model._target_={component['_target_']}: {mistake}")
    return built.to(device)


def training(
    config: TrainConfig,
    data: DataSet,
    device: torch.device,
    weights: dict[str, torch.Tensor] | None = None,
    begun_for: int = 0,
) -> Training:
    """Return the training of a configuration at its start, from the given `weights` of `config.start` if there are any.

    `begun_for` are the epochs of a run that goes on: with those it may end as it was begun. Raises UsageError for a
    player that the model has not, and for weights of other shapes.
    """
    built = model(config.model, config.noise, data.spec(), config.seed, device)
    if weights is not None and config.start is not None:
        take_over(built, weights, config.start)
    _check_batches(config.model["name"], built, data)
    plan = Plan.of(built, config.batch_size, data.images_per_epoch)
    for stage in plan.stages:
        if stage.steps_per_epoch == 0:
            allowed = f"the {count(data.images_per_epoch, 'training image')} of {config.dataset['name']} allow"
            step = f"one step takes {stage.images_per_step:,}"
            raise UsageError(
                f"batch_size={config.batch_size} is larger than {allowed}: {step}; set a smaller batch_size"
            )
    players = built.players()
    for player in config.optimizers:
        if player not in players:
            hint = f"'{player}'{nearest(player, players)}; it has {', '.join(players)}"
            raise UsageError(f"optimizers.{player}: {config.model['name']} has no player {hint}")
    optimizers = {
        player: make("optimizer", config.optimizers.get(player, config.optimizer), list(part.parameters()))
        for player, part in players.items()
    }
    if config.epochs > begun_for:
        _check_learning_rates(config, plan, optimizers)
    average = None if config.average is None else Average(built, config.ema, config.ema_power or 0)
    return Training(built, plan, optimizers, average)


def _check_learning_rates(config: TrainConfig, plan: Plan, optimizers: dict[str, ScheduledOptimizer]) -> None:
    """Raise UsageError if a stage has more epochs than its players' learning rates take to fall to 0."""
    for stage in plan.stages:
        epochs = stage.stage.epochs or config.epochs
        for player in {player for update, _ in stage.moves for player in update.players}:
            optimizer, key = optimizers[player], f"optimizers.{player}" if player in config.optimizers else "optimizer"
            if optimizer.lr_epochs is not None and optimizer.lr_epochs < epochs and optimizer.lr_min == 0:
                of_stage = f" of stage '{stage.name}'" if stage.name else ""
                asked = f"{count(epochs, 'epoch')}{of_stage} are asked for"
                raise UsageError(
                    f"{key}.lr_epochs={optimizer.lr_epochs}: the learning rate is 0 from then on, and {asked}\n"
                    f"Set {key}.lr_epochs={epochs}, which is another run, or fewer epochs"
                )


def _check_batches(name: str, built: Model, data: DataSet) -> None:
    """Raise UsageError if an update asks for tensors that no minibatch of these data holds."""
    asked = [(stage, update.asking) for stage in built.stages() for update in stage.updates]
    takes_second = any(tensor.endswith("_b") for _, asking in asked for tensor in asking.names)
    if data.second is not None and not takes_second:
        raise UsageError(f"model={name} is trained on one data set: leave out dataset_b")
    if data.second is None and any(tensor.endswith("_b") for _, asking in asked for tensor in asking.needed):
        raise UsageError(f"model={name} is trained on two data sets: choose the second one by dataset@dataset_b=NAME")
    for stage, asking in asked:
        for tensor in asking.needed:
            if tensor not in TENSORS:
                raise UsageError(
                    f"model={name}: an update's play asks for '{tensor}'; a minibatch may hold {', '.join(TENSORS)}"
                )
            if tensor == "codes" and stage.codes is None:
                raise UsageError(f"model={name}: play asks for codes, and its stage '{stage.name}' makes none")
            side = data.second if tensor.endswith("_b") else data
            if tensor.startswith("labels") and side is not None and not side.has_labels:
                raise UsageError(f"model={name} learns from labels, and this data set has none for training images")


def _mistake(built: Any) -> str | None:
    """Return why the loop could not train this, as far as it shows before the first step."""
    if not isinstance(built, Model):
        return f"it gives a {type(built).__name__}, no genexp.models.Model"
    if getattr(built, "sample_kind", None) not in ("draw", "mean"):
        return "sample_kind should be 'draw' or 'mean', what a sample of it is"
    if type(built).updates is Model.updates and type(built).stages is Model.stages:
        return "it has neither updates() nor stages(), so there is nothing to train"
    if isinstance(built, Autoencoder) and type(built).play is Autoencoder.play and type(built).stages is Model.stages:
        return "it has neither play() nor stages(), so there is nothing to train"
    if built.conditional and "labels" not in inspect.signature(built.sample).parameters:
        return "it is conditional, so sample() should take `labels`: sample(self, n, generator, data, labels)"
    players, stages = built.players(), built.stages()
    if not players or not stages or not all(stage.updates for stage in stages):
        return f"{'updates()' if players else 'players()'} is empty, so there is nothing to train"
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names) or any("/" in name for name in names):
        return f"its stages are called {', '.join(names)}; give each a name of its own, without '/'"
    for stage in stages[:-1]:
        if not isinstance(stage.epochs, int) or stage.epochs < 1:
            return f"its stage '{stage.name}' has epochs={stage.epochs}; give each stage but the last one at least 1"
    if stages[-1].epochs is not None:
        return f"its last stage '{stages[-1].name}' has epochs of its own; it is trained for the run's `epochs`"
    for name in (name for stage in stages for update in stage.updates for name in update.players):
        if name not in players:
            return f"updates() names a player '{name}'{nearest(name, players)}; players() has {', '.join(players)}"
    return None


def check_metrics(metrics: dict[str, Component], model: Model | GivenSamples, data: DataSet) -> None:
    """Raise UsageError for a metric that cannot be taken of this model or data set, or with its settings."""
    for name, metric in metrics.items():
        score = target(metric)
        _bind(f"metrics.{name}", metric, score, None)
        if getattr(score.func, "lower_is_better", False) and not lower_is_better(metric):
            raise UsageError(f"metrics.{name}: write @lower_is_better above the metric's definition, where it is read")
        refusal = getattr(score.func, "refusal", lambda *_: None)(model, data, score.keywords)
        refusal = refusal or why_not_in_memory(score.keywords.get("n_samples", 0), data.shape)
        if refusal:
            raise unusable(name, refusal)


def scores(metrics: dict[str, Component], subject: Subject) -> dict[str, Score]:
    """Return every metric's score of the subject, by name."""
    return {name: score(name, metric, subject) for name, metric in metrics.items()}


def score(name: str, metric: Component, subject: Subject) -> Score:
    """Return the metric's score of the subject; `name` is the metric's name in the configuration."""
    with doing(f"scoring by {name}"):
        return Score.of(target(metric)(subject), name, lower_is_better(metric))


def extractor_of(metric: Component, subject: Subject) -> str | None:
    """Return the name of the network whose features the metric compares; None for a metric of no features."""
    call = target(metric)
    extractor = getattr(call.func, "extractor", None)
    return None if extractor is None else str(extractor(subject, call.keywords))


def _bind(key: str, component: Component, call: partial[Any], *provided: Any) -> None:
    """Raise UsageError unless the target takes these arguments. A wrong metric is then known before training."""
    try:
        with suppress(ValueError):  # some built-in functions have no signature
            inspect.signature(call.func).bind(*provided, **call.keywords)
    except TypeError as error:
        raise UsageError(f"{key}._target_={component['_target_']} cannot be used there: {error}") from error


def _origin(error: Exception) -> str:
    """Return what code from outside the package raised, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{first_line(error)} ({type(error).__name__} in {place.filename}, line {place.lineno})"
