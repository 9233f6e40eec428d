"""From checked components of a configuration to what they name: a data set, a model, scores."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genexp import random
from genexp.config import Component, settings_of
from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.models import Model


def target(component: Component) -> partial[Any]:
    """The component's `_target_` with its settings filled in, still to be given what the program provides."""
    module, _, name = component["_target_"].rpartition(".")
    try:
        return partial(getattr(importlib.import_module(module), name), **settings_of(component))
    except (ImportError, AttributeError) as error:
        raise UsageError(f"_target_={component['_target_']} cannot be imported: {error}") from error


def data_set(component: Component, data_dir: str) -> DataSet:
    """The data set, on the CPU."""
    data: DataSet = target(component)(Path(data_dir).expanduser())
    return data


def model(component: Component, noise: Component, spec: DataSpec, seed: int, device: torch.device) -> Model:
    """The model at the start of training; its initial weights follow from the seed."""
    random.reseed(torch.device("cpu"), seed, "init")
    made: Model = target(component)(spec, target(noise)())
    return made.to(device)


def check_metrics(metrics: dict[str, Component], model: Model, data: DataSet) -> None:
    """Raise UsageError for a metric that cannot be had of this model or data set, or with its settings."""
    for name, metric in metrics.items():
        score = target(metric)
        refusal = getattr(score.func, "refusal", lambda *_: None)(model, data, score.keywords)
        if refusal:
            raise UsageError(
                f"metrics.{name}: {refusal}\nSet metrics.{name} otherwise, or leave it out with ~metrics.{name}"
            )


def score(metrics: dict[str, Component], subject: Subject) -> dict[str, Any]:
    """Every metric's score of the subject, by name."""
    return {name: target(metric)(subject) for name, metric in metrics.items()}
