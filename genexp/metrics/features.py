"""The common part of scores of features: the features of samples, of a split, and of real images in the samples' place.

Scores compare only under the same extractor, so an extractor's name holds the hash of its weights.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.errors import UsageError
from genexp.metrics import GivenSamples, Metric, Refusal, Subject, requires
from genexp.metrics.classifier import classifier
from genexp.metrics.extractors import Extractor, Features, inception
from genexp.models import Model
from genexp.ranges import AtLeastTwo, InceptionWeights, PositiveInt
from genexp.score import Score
from genexp.text import count, with_error

FEW_CLASSES = "features=classifier needs labels of training and test images, and this data set has none"


class NetworkSettings(TypedDict):
    """The settings of a network's features, and the split whose features samples are compared with."""

    split: Literal["train", "valid", "test"]
    features: Literal["classifier", "inception"]
    weights: InceptionWeights


class FeatureSettings(NetworkSettings):
    """The settings of a score that compares features of samples with those of a split."""

    n_samples: PositiveInt


class CovarianceSettings(NetworkSettings):
    """The settings of a score that compares the covariances of features, which one sample has not."""

    n_samples: AtLeastTwo


class FeatureSets:
    """The features of samples, of the split that they are compared with, and of real images.

    The score of the real images is the floor: a perfect model would score about the same. They are drawn without
    repetition from the training images, or from the test images if the split is the training images. Each set is
    computed once for all scores of a subject.
    """

    def __init__(self, subject: Subject, settings: FeatureSettings) -> None:
        self.subject, self.settings = subject, settings
        n, split = settings["n_samples"], settings["split"]
        self.extractor = extractor(subject, settings["features"], settings["weights"])
        self.samples = sample_features(subject, self.extractor, n)
        self.points = real_features(subject, self.extractor, split)
        self.floor = real_features(subject, self.extractor, _floor_split(split), n)

    def score(self, mean: float, stderr: float | None, floor: float, **details: Any) -> Score:
        """Return the Score for these sets; `floor` is the value for the real images."""
        n_points, n_floor, split = len(self.points.vectors), len(self.floor.vectors), self.settings["split"]
        value = with_error(mean, stderr)
        counts = f"{count(len(self.samples.vectors), 'sample')} on {count(n_points, f'{split} image')}"
        real = f"{count(n_floor, f'{_floor_split(split)} image')} score{'s' if n_floor == 1 else ''} {floor:.3g}"
        return Score(
            mean,
            stderr,
            f"{value} by {self.extractor.name} ({counts}; {real})",
            split=split,
            n_samples=self.settings["n_samples"],
            sample_kind=self.subject.sample_kind,
            extractor=self.extractor.name,
            floor=floor,
            details={
                "features": self.settings["features"],
                "weights": self.settings["weights"],
                "extractor_accuracy": self.extractor.accuracy,
                "seed": self.subject.seed,
                "n_points": n_points,
                "floor_split": _floor_split(split),
                "floor_n": n_floor,
                **details,
            },
        )


def smallest_size(data: DataSet, settings: Mapping[str, Any]) -> int:
    """Return the size of the smallest of the three sets that a score would compare."""
    split = settings["split"]
    return min(int(settings["n_samples"]), len(getattr(data, split)), len(getattr(data, _floor_split(split))))


def _floor_split(split: str) -> str:
    return "train" if split != "train" else "test"


def too_few(least: int, reason: str) -> Refusal:
    """Return a refusal of fewer than `least` samples, images of the split, or real images in the samples' place."""

    def refusal(model: Model | GivenSamples, data: DataSet, settings: Mapping[str, Any]) -> str | None:
        n = smallest_size(data, settings)
        if (unfit := features_refusal(model, data, settings)) is not None or n >= least:
            return unfit
        sets = (
            f"samples (n_samples={settings['n_samples']}), of {settings['split']} images, and of images for the floor"
        )
        return f"{reason}: at least {least} {sets}; here are {n} of one of them"

    return refusal


def sample_features(subject: Subject, network: Extractor, n: int) -> Features:
    """Return the features of the n samples that every metric gets."""
    return subject.once(("features", network.name, "samples", n), lambda: network(subject.samples(n)))


def real_features(subject: Subject, network: Extractor, split: str, n: int | None = None) -> Features:
    """Return the features of a split, or of the n images of it that `real_rows` draws."""
    rows = None if n is None else real_rows(subject, split, n)
    return subject.once(("features", network.name, split, n), lambda: network.of_split(subject.data, split, rows))


def real_rows(subject: Subject, split: str, n: int) -> Tensor:
    """Return the rows of n images of a split, drawn without repetition, on the CPU; all rows if it has fewer."""
    generator = rng.generator(torch.device("cpu"), subject.seed, "real images as samples")
    return torch.randperm(len(getattr(subject.data, split)), generator=generator)[:n]


def float64(vectors: Tensor) -> Tensor:
    """Return the vectors in float64; on the CPU if their device is Apple's, which has no float64."""
    return vectors.cpu().double() if vectors.device.type == "mps" else vectors.double()


def extractor(subject: Subject, features: str, weights: str | None) -> Extractor:
    """Return the extractor of these settings; it is loaded or trained once for a subject."""
    if weights is None:
        return subject.once(("extractor", features), lambda: classifier(subject.data))
    file = Path(weights).expanduser()
    return subject.once(("extractor", file), lambda: inception(file, subject.data.device))


def features_refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    """Return the reason why the data have no features under these settings, or None."""
    if data.bounds is not None:
        return "features are of images, and this data set has points"
    mistake: str | None = get_args(InceptionWeights)[1].mistake("weights", settings)
    if mistake is not None:
        return mistake
    if settings["features"] == "classifier":
        return None if has_classes(data) else f"{FEW_CLASSES}; features=inception and weights=FILE do without"
    try:  # a damaged file is known before training, and is not read again at its end
        inception(Path(settings["weights"]).expanduser(), data.device)
    except UsageError as error:
        return str(error)
    return None


def has_classes(data: DataSet) -> bool:
    """Return True if the labels of training and test images name several classes, for a classifier to learn."""
    labels = [data.labels[split].tolist() for split in ("train", "test") if split in data.labels]
    return len(labels) == 2 and all(len(set(of_split) - {-1}) >= 2 for of_split in labels)


def of_features(refusal: Refusal = features_refusal) -> Callable[[Metric], Metric]:
    """Mark a metric that compares features: it gets `refusal`, and its extractor's name is part of a score's key."""

    def mark(metric: Metric) -> Metric:
        marked = requires(refusal)(metric)
        marked.extractor = lambda subject, settings: (  # type: ignore[attr-defined]
            extractor(subject, settings["features"], settings["weights"]).name
        )
        return marked

    return mark
