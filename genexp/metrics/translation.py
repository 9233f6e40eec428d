"""Scores of translations between two data sets whose true translations are known, both ways."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.metrics import Subject, binomial_error, lower_is_better, mean_and_errors, of_models, requires
from genexp.metrics.classifier import classifier
from genexp.metrics.extractors import Extractor
from genexp.metrics.features import has_classes
from genexp.models import Model, Translator, evaluating, in_unit_range
from genexp.models.samplers import CHUNK
from genexp.ranges import Split
from genexp.score import Score
from genexp.text import count, percent, with_decimals

is_translator = of_models(Translator, "translations need a model of two data sets, such as model=cyclegan")


def _refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if data.second is None:
        return "translations need two data sets: choose the second one by dataset@dataset_b=NAME"
    if settings["split"] not in data.truth or settings["split"] not in data.second.truth:
        return "the true translations are known with dataset@dataset_b=other_half only"
    return None


def _refusal_of_classes(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    reason = _refusal(model, data, settings)
    if reason is not None or data.second is None:
        return reason
    if not (has_classes(data) and has_classes(data.second)):
        return "it trains classifiers, which needs labels of training and test images, and there are none"
    if not all((side.labels_of(settings["split"]) >= 0).any() for side in (data, data.second)):
        return f"it compares classes, and the {settings['split']} images have no labels"
    return None


@lower_is_better
@is_translator
@requires(_refusal)
def translation_error(subject: Subject, *, split: Split) -> Score:
    """Return the mean |translation − truth| over all values of all images, in [0, 1], the mean of both ways.

    `stderr` is over the images of both ways.
    """
    errors = {}
    for name, there in (("a to b", "b"), ("b to a", "a")):
        source, target = _sides(subject.data, there)
        truth = source.truth[split] / target.white
        errors[name] = (_translations(subject, split, there) - truth).abs().flatten(1).mean(1).cpu().double()
    means = {name: error.mean().item() for name, error in errors.items()}
    mean, _, stderr = mean_and_errors(torch.cat(list(errors.values())))
    mean = sum(means.values()) / len(means)
    ways = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    n = sum(len(error) for error in errors.values())
    value, images = with_decimals(mean, stderr, 4), count(n, f"{split} image")
    summary = f"{value} of white, mean over values of {images} ({ways})"
    return Score(mean, stderr, summary, split=split, details={"ways": means, "n_points": n})


@is_translator
@requires(_refusal_of_classes)
def translation_accuracy(subject: Subject, *, split: Split) -> Score:
    """Return the share, in [0, 1], of translations that a classifier of their data set assigns to the true class.

    It is the mean of both ways; `stderr` is binomial. The classifiers are those of `metrics.classifier`, trained on the
    training images of each data set. `floor` is the mean accuracy on the real images of the split.
    """
    shares, real, n = {}, [], 0
    for name, there in (("a to b", "b"), ("b to a", "a")):
        source, target = _sides(subject.data, there)
        network = _classifier(subject, there)
        labels = source.labels[split]
        right = network(_translations(subject, split, there)).logits.argmax(1) == labels
        of_real = network.of_split(target, split).logits.argmax(1) == target.labels[split]
        shares[name] = right[labels >= 0].cpu().double().mean().item()
        real.append(of_real[target.labels[split] >= 0].cpu().double().mean().item())
        n += int((labels >= 0).sum())
    mean, floor = sum(shares.values()) / 2, sum(real) / 2
    stderr = binomial_error(mean, n)
    ways = ", ".join(f"{name} {100 * value:.2f} %" for name, value in shares.items())
    summary = f"{percent(mean, stderr, 2)} ({ways}; real {split} images {100 * floor:.2f} %)"
    details = {"ways": shares, "n_points": n}
    return Score(mean, stderr, summary, split=split, floor=floor, extractor=_classifiers(subject, {}), details=details)


def _classifier(subject: Subject, there: str) -> Extractor:
    """Return the classifier of the data set into which is translated."""
    _, target = _sides(subject.data, there)
    return subject.once(("classifier", there), lambda: classifier(target))


def _classifiers(subject: Subject, _settings: Mapping[str, Any]) -> str:
    return " and ".join(_classifier(subject, there).name for there in ("b", "a"))


translation_accuracy.extractor = _classifiers  # type: ignore[attr-defined]  # its name is part of a score's key


def _sides(data: DataSet, there: str) -> tuple[DataSet, DataSet]:
    """Return the data set that is translated, and that into which it is."""
    assert data.second is not None
    return (data, data.second) if there == "b" else (data.second, data)


def _translations(subject: Subject, split: str, there: Any) -> Tensor:
    """Return the translations of all images of a split, (n, C, H, W) in [0, 1]; each is made once for all scores."""
    model, (source, _) = subject.model, _sides(subject.data, there)
    assert isinstance(model, Model)
    assert isinstance(model, Translator)

    def translate() -> Tensor:
        with evaluating(model):
            chunks = range(0, len(getattr(source, split)), CHUNK)
            images = (source.images(split, slice(start, start + CHUNK)) for start in chunks)
            translations = torch.cat([model.translate(x, there) for x in images])
        return in_unit_range(translations, f"{type(model).__name__}.translate makes images")

    return subject.once(("translations", split, there), translate)
