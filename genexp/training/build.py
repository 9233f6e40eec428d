"""From checked components of a configuration to what they name: a data set, a model, scores."""

import importlib
import inspect
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genexp import rng
from genexp.config.schema import Component, nearest, settings_of
from genexp.data import DataSet, DataSpec
from genexp.errors import GenexpError, UsageError
from genexp.metrics import Subject
from genexp.models import Model
from genexp.score import Score


def target(component: Component) -> partial[Any]:
    """The component's `_target_` with its settings filled in, still to be given what the program provides.

    Raises UsageError when it cannot be imported, or cannot be called.
    """
    module, _, name = component["_target_"].rpartition(".")
    try:
        called = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"_target_={component['_target_']} cannot be imported: {error}") from error
    except Exception as error:  # a module from outside the package raises what it likes
        raise UsageError(f"_target_={component['_target_']} cannot be imported: {_told(error)}") from error
    if not callable(called):
        raise UsageError(f"_target_={component['_target_']} is neither a class nor a function")
    return partial(called, **settings_of(component))


def make(key: str, component: Component, *provided: Any) -> Any:
    """What the component's target makes of what the program provides; `key` is the setting that holds the component.

    Raises UsageError when the target does not take these arguments, and for whatever one from outside genexp raises.
    """
    call = target(component)
    _bind(key, component, call, *provided)
    try:
        return call(*provided)
    except (GenexpError, MemoryError):
        raise
    except Exception as error:
        if component["_target_"].startswith("genexp."):
            raise
        raise UsageError(f"{key}._target_={component['_target_']} failed: {_told(error)}") from error


def data_set(component: Component, data_dir: str) -> DataSet:
    """The data set, on the CPU."""
    data = make("dataset", component, Path(data_dir).expanduser())
    if not isinstance(data, DataSet):
        raise UsageError(f"dataset._target_={component['_target_']} gives a {type(data).__name__}, no DataSet")
    return data


def model(component: Component, noise: Component, spec: DataSpec, seed: int, device: torch.device) -> Model:
    """The model at the start of training; its initial weights follow from the seed."""
    rng.reseed(torch.device("cpu"), seed, "init")
    corruption = make("noise", noise)
    if not callable(corruption):
        raise UsageError(f"noise._target_={noise['_target_']} gives a {type(corruption).__name__}, no corruption")
    made = make("model", component, spec, corruption)
    wrong = _what_is_wrong(made)
    if wrong is not None:
        raise UsageError(f"model._target_={component['_target_']}: {wrong}")
    model: Model = made.to(device)
    return model


def _what_is_wrong(made: Any) -> str | None:
    """Why the loop could not train this, as far as can be said before its first step."""
    if not isinstance(made, Model):
        return f"it gives a {type(made).__name__}, no genexp.models.Model"
    if getattr(made, "sample_kind", None) not in ("draw", "mean"):
        return "sample_kind should be 'draw' or 'mean', what a sample of it is"
    players, updates = made.players(), made.updates()
    if not players or not updates:
        return f"{'updates()' if players else 'players()'} is empty, so there is nothing to train"
    for name in (name for update in updates for name in update.players):
        if name not in players:
            return f"updates() names a player '{name}'{nearest(name, players)}; players() has {', '.join(players)}"
    return None


def check_metrics(metrics: dict[str, Component], model: Model, data: DataSet) -> None:
    """Raise UsageError for a metric that cannot be had of this model or data set, or with its settings."""
    for name, metric in metrics.items():
        score = target(metric)
        _bind(f"metrics.{name}", metric, score, None)
        refusal = getattr(score.func, "refusal", lambda *_: None)(model, data, score.keywords)
        if refusal:
            raise UsageError(
                f"metrics.{name}: {refusal}\nSet metrics.{name} otherwise, or leave it out with ~metrics.{name}"
            )


def score(metrics: dict[str, Component], subject: Subject) -> dict[str, Any]:
    """Every metric's score of the subject, by name."""
    return {name: take(name, metric, subject).to_json() for name, metric in metrics.items()}


def take(name: str, metric: Component, subject: Subject) -> Score:
    """Return the metric's score of the subject; `name` is what the configuration calls the metric."""
    call = target(metric)
    return Score.of(call(subject), name, getattr(call.func, "lower_is_better", False))


def _bind(key: str, component: Component, call: partial[Any], *provided: Any) -> None:
    """Raise UsageError unless the target takes these arguments; a wrong metric would else be met after training."""
    try:
        signature = inspect.signature(call.func)
    except ValueError:  # some built-in functions have none
        return
    try:
        signature.bind(*provided, **call.keywords)
    except TypeError as error:
        raise UsageError(f"{key}._target_={component['_target_']} cannot be used there: {error}") from error


def _told(error: Exception) -> str:
    """What code from outside the package raised, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = (str(error).strip() or "no message").splitlines()[0]
    return f"{said} ({type(error).__name__} in {place.filename}, line {place.lineno})"
