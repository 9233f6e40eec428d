"""What the scores that compare features of images share: features of samples, of a split, and of a floor.

Scores of features compare within one extractor only, so its name holds the hash of its weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Refusal, Subject, requires
from genexp.metrics.classifier import classifier
from genexp.metrics.extractors import Extractor, Features, inception
from genexp.ranges import PositiveInt
from genexp.score import Score
from genexp.text import with_error

DEFINED = ("split", "n_samples", "sample_kind", "extractor")  # of what defines a score, the fields of Score
Metric = TypeVar("Metric", bound=Callable[..., Score])


class FeatureSettings(TypedDict):
    """The settings of every score that compares features of samples with those of a split."""

    n_samples: PositiveInt
    split: Literal["train", "valid", "test"]
    features: Literal["classifier", "inception"]
    weights: str | None


@dataclass(frozen=True)
class Compared:
    """The features of samples, of the split that they are scored on, and of real images in the samples' place.

    What the real images score is the floor, to hold a model's score against. They are drawn without repetition from
    the training images, or, when those are what is scored on, from the test images.
    """

    extractor: Extractor
    samples: Features
    points: Features
    floor: Features
    floor_split: str
    defined: dict[str, Any]  # all that defines a score of them

    def score(self, mean: float, stderr: float | None, floor: float, **details: Any) -> Score:
        """Return the score that a comparison gave; `floor` is the value of real images."""
        value = with_error(mean, stderr) if stderr else f"{mean:.3g}"
        on = f"{len(self.samples.vectors):,} samples on {len(self.points.vectors):,} {self.defined['split']} images"
        real = f"{len(self.floor.vectors):,} {self.floor_split} images score {floor:.3g}"
        summary = f"{value} by {self.extractor.name} ({on}; {real})"
        return Score(
            mean,
            stderr,
            summary,
            split=self.defined["split"],
            n_samples=self.defined["n_samples"],
            sample_kind=self.defined["sample_kind"],
            extractor=self.extractor.name,
            floor=floor,
            details={name: value for name, value in self.defined.items() if name not in DEFINED} | details,
        )


def compared(subject: Subject, settings: FeatureSettings) -> Compared:
    """What a score of features compares; each part is made once for all the scores of a subject."""
    n, split, data = settings["n_samples"], settings["split"], subject.data
    found = extractor(subject, settings["features"], settings["weights"])
    floor_split = _floor_split(split)
    points = subject.once(
        ("features", found.name, split),
        lambda: found.of(len(getattr(data, split)), lambda rows: data.images(split, rows)),
    )
    floor = of_real_images(subject, found, floor_split, n)
    defined = {
        "features": settings["features"],
        "weights": settings["weights"],
        "extractor": found.name,
        "extractor_accuracy": found.accuracy,
        "seed": subject.seed,
        "sample_kind": subject.sample_kind,
        "split": split,
        "n_samples": n,
        "n_points": len(points.vectors),
        "floor_split": floor_split,
        "floor_n": len(floor.vectors),
    }
    return Compared(found, of_samples(subject, found, n), points, floor, floor_split, defined)


def fewest(data: DataSet, settings: Mapping[str, Any]) -> int:
    """How many there will be in the smallest of the three sets that are compared."""
    split = settings["split"]
    least: int = min(settings["n_samples"], len(getattr(data, split)), len(getattr(data, _floor_split(split))))
    return least


def _floor_split(split: str) -> str:
    return "train" if split != "train" else "test"


def of_samples(subject: Subject, found: Extractor, n: int) -> Features:
    """The features of n samples of the model."""
    return subject.once(("features", found.name, "samples", n), lambda: found(subject.samples(n)))


def of_real_images(subject: Subject, found: Extractor, split: str, n: int) -> Features:
    """The features of n images of a split, drawn without repetition; of all of them where there are fewer."""
    data = subject.data

    def make() -> Features:
        chosen = real_images(subject, split, n)
        return found.of(len(chosen), lambda rows: data.images(split, chosen[rows]))

    return subject.once(("features", found.name, split, n), make)


def real_images(subject: Subject, split: str, n: int) -> Tensor:
    """The rows of n images of a split, drawn without repetition, that stand in the place of samples."""
    images: Tensor = getattr(subject.data, split)
    generator = rng.generator(torch.device("cpu"), subject.seed, "real images as samples")
    return torch.randperm(len(images), generator=generator)[:n].to(images.device)


def float64(vectors: Tensor) -> Tensor:
    """In float64, where it can be computed in: on the same device, but for Apple's."""
    return vectors.cpu().double() if vectors.device.type == "mps" else vectors.double()


def extractor(subject: Subject, features: str, weights: str | None) -> Extractor:
    """The extractor that the settings ask for, made once for a subject."""
    if weights is None:
        return subject.once(("extractor", features), lambda: classifier(subject.data))
    return subject.once(
        ("extractor", weights), lambda: inception(Path(weights).expanduser(), subject.data.train.device)
    )


def refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    """Why these features cannot be had of the data, or with these weights; None if they can."""
    features, weights = settings["features"], settings["weights"]
    if data.mixture is not None:
        return "features are of images, and dataset=ring and dataset=grid are points of the plane"
    if features == "inception":
        if weights is not None:
            return None
        return (
            "features=inception needs its weights: weights=FILE, "
            "such as weights-inception-2015-12-05-6726825d.pth of the releases of torch-fidelity"
        )
    if weights is not None:
        return f"weights={weights} is for features=inception; a classifier's weights are trained by genexp"
    labels = [data.labels[split].tolist() for split in ("train", "test") if split in data.labels]
    if len(labels) < 2 or any(len({*found} - {-1}) < 2 for found in labels):
        return (
            "features=classifier needs labels of training and test images, and this data set has none; "
            "features=inception and weights=FILE do without"
        )
    return None


def of_features(refusal: Refusal = refusal) -> Callable[[Metric], Metric]:
    """Mark a metric that compares features: `refusal` says when it cannot, and its extractor is part of its key."""

    def mark(metric: Metric) -> Metric:
        marked = requires(refusal)(metric)
        marked.extractor = _named_extractor  # type: ignore[attr-defined]
        return marked

    return mark


def _named_extractor(subject: Subject, settings: Mapping[str, Any]) -> str:
    return extractor(subject, settings["features"], settings["weights"]).name
