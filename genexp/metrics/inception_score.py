"""Inception score: how surely a classifier names each sample, and how many names it uses."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject
from genexp.metrics.features import extractor, of_features, of_real_images, of_samples, refusal
from genexp.ranges import PositiveInt
from genexp.score import Score


def split_scores(logits: Tensor, splits: int, seed: int) -> tuple[float, float]:
    """The mean and population standard deviation over splits of exp E KL(p(y | x) ‖ p(y)), in float64.

    logits: (n, classes), shuffled by `seed` and cut into `splits` parts, each with a p(y) of its own. A score lies
    between 1 and the number of classes. Source: Salimans et al. 2016, section 4.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric  # takes seconds to import

    shuffle = rng.address(seed, "inception score") % 2**32  # NumPy's seeds are shorter
    found = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=shuffle)
    return found["inception_score_mean"], found["inception_score_std"]


def _refusal(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    least, splits = min(settings["n_samples"], len(data.train)), settings["splits"]
    if splits > least:
        return f"splits={splits} is more than the {least} samples or training images that are split"
    return refusal(model, data, settings)


@of_features(_refusal)
def inception_score(
    subject: Subject,
    *,
    n_samples: PositiveInt,
    splits: PositiveInt,
    features: Literal["classifier", "inception"],
    weights: str | None,
) -> Score:
    """The score of the model's samples by the classes of a classifier, or of Inception; higher is better.

    `std` is over the splits, the spread that the field reports. `floor` is what as many training images score: with
    a classifier, "more than that" means surer classes than real images have, and not better samples.
    """
    found = extractor(subject, features, weights)
    samples = of_samples(subject, found, n_samples)
    real = of_real_images(subject, found, "train", n_samples)
    mean, std = split_scores(samples.logits, splits, subject.seed)
    floor, _ = split_scores(real.logits, splits, subject.seed)
    counts = f"{n_samples:,} samples, {splits} splits; {len(real.logits):,} train images score {floor:.3f}"
    return Score(
        mean,
        None,
        f"{mean:.3f} ± {std:.3f} by {found.name} ({counts})",
        n_samples=n_samples,
        sample_kind=subject.sample_kind,
        extractor=found.name,
        floor=floor,
        details={
            "std": std,
            "features": features,
            "weights": weights,
            "extractor_accuracy": found.accuracy,
            "seed": subject.seed,
            "splits": splits,
            "classes": samples.logits.shape[1],
            "floor_split": "train",
            "floor_n": len(real.logits),
        },
    )
