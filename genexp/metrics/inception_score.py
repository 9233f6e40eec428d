"""Inception score: high if a classifier is sure of each sample's class, and the classes vary."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject
from genexp.metrics.features import extractor, features_refusal, of_features, real_features, sample_features
from genexp.ranges import AsBefore, AtMost, InceptionWeights, PositiveInt, Split
from genexp.score import Score
from genexp.text import count, with_decimals


def split_scores(logits: Tensor, splits: int, seed: int) -> tuple[float, float]:
    """Return the mean and population standard deviation over splits of exp E KL(p(y | x) ‖ p(y)), in float64.

    logits: (n, classes), shuffled by `seed` and cut into `splits` parts, each with its own p(y). A score lies
    between 1 and the number of classes. Source: Salimans et al. 2016, section 4.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric  # takes seconds to import

    shuffle = rng.address(seed, "inception score") % 2**32  # NumPy's seeds are shorter
    scores = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=shuffle)
    return scores["inception_score_mean"], scores["inception_score_std"]


def _refusal(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    split = settings.get("split", "train")
    n, splits = min(settings["n_samples"], len(getattr(data, split))), settings["splits"]
    if 2 * splits > n:
        return (
            f"splits={splits}: each has at least 2 of the samples, and of the {split} images, and there are {n} of one"
        )
    return features_refusal(model, data, settings)


@of_features(_refusal)
def inception_score(
    subject: Subject,
    *,
    n_samples: PositiveInt,
    splits: Annotated[PositiveInt, AtMost("n_samples", times=2)],
    features: Literal["classifier", "inception"],
    weights: InceptionWeights,
    split: Annotated[Split, AsBefore("train")] = "train",
) -> Score:
    """Return the inception score of the samples, by the classes of a classifier or of Inception; higher is better.

    `std` is over the splits, the spread that papers report; of a single split it is not known. `floor` is the score of
    as many images of `split`. With a classifier, a score above the floor means surer classes than those of real images,
    not better samples.
    """
    network = extractor(subject, features, weights)
    samples = sample_features(subject, network, n_samples)
    real = real_features(subject, network, split, n_samples)
    mean, std = split_scores(samples.logits, splits, subject.seed)
    spread = std if splits > 1 else None
    floor, _ = split_scores(real.logits, splits, subject.seed)
    sizes = f"{count(n_samples, 'sample')}, {count(splits, 'split')}"
    counts = f"{sizes}; {count(len(real.logits), f'{split} image')} score {floor:.3f}"
    return Score(
        mean,
        None,
        f"{with_decimals(mean, spread, 3)} by {network.name} ({counts})",
        split=split,
        n_samples=n_samples,
        sample_kind=subject.sample_kind,
        extractor=network.name,
        floor=floor,
        details={
            "std": spread,
            "features": features,
            "weights": weights,
            "extractor_accuracy": network.accuracy,
            "seed": subject.seed,
            "splits": splits,
            "classes": samples.logits.shape[1],
            "floor_split": split,
            "floor_n": len(real.logits),
        },
    )
