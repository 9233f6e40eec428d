"""Kernel (inception) distance: the unbiased squared maximum mean discrepancy of features."""

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject, lower_is_better, mean_and_errors
from genexp.metrics.features import FeatureSets, FeatureSettings, features_refusal, float64, of_features, smallest_size
from genexp.ranges import AtLeastTwo, AtMost, PositiveInt
from genexp.score import Score


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased estimate of MMD² between (n, d) and (m, d) float64 features, by the kernel (xᵀy / d + 1)³.

    n and m are at least 2. The estimate can be negative, since its mean is 0 for equal distributions.
    Source: Bińkowski et al. 2018.
    """

    def total(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T).div_(a.shape[1]).add_(1).pow_(3).sum()

    def within(a: Tensor) -> Tensor:
        diagonal = (a.square().sum(1) / a.shape[1] + 1).pow(3).sum()
        return (total(a, a) - diagonal) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * total(x, y) / (len(x) * len(y))


def subset_distances(x: Tensor, y: Tensor, subsets: int, subset_size: int, seed: int) -> Tensor:
    """Return `squared_mmd` of random subsets of x and y, (subsets,) float64 on the CPU.

    Each subset has `subset_size` rows, drawn without repetition. Where both sets have no more rows than that, all
    subsets are the whole sets, and their one distance is returned, (1,).
    """
    x, y = float64(x), float64(y)
    if subset_size >= max(len(x), len(y)):
        return squared_mmd(x, y)[None].cpu()
    distances = []
    for subset in range(subsets):
        generator = rng.generator(torch.device("cpu"), seed, "kid subset", subset)
        pair = [z[torch.randperm(len(z), generator=generator)[:subset_size]] for z in (x, y)]
        distances.append(squared_mmd(*pair))
    return torch.stack(distances).cpu()


def _refusal(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    size, reason = settings["subset_size"], features_refusal(model, data, settings)
    if reason is None and not 2 <= size <= smallest_size(data, settings):
        return (
            f"subset_size={size}: a subset has at least 2 features, and at most the {smallest_size(data, settings)} "
            f"that there are of samples, {settings['split']} images and training images"
        )
    return reason


@lower_is_better
@of_features(_refusal)
def kid(
    subject: Subject,
    *,
    subsets: PositiveInt,
    subset_size: Annotated[AtLeastTwo, AtMost("n_samples")],
    **settings: Unpack[FeatureSettings],
) -> Score:
    """Return the distance of the samples from a split, a mean over subsets; lower is better.

    `std` is over the subsets. `stderr` = std / √subsets covers the choice of subsets alone: other samples of the model
    change the score by more. Neither is known of one subset, nor of subsets that are the whole sets. `floor` is the
    distance of training images from the split.
    """
    sets = FeatureSets(subject, settings)
    points = sets.points.vectors
    distances, floors = (
        subset_distances(x, points, subsets, subset_size, subject.seed)
        for x in (sets.samples.vectors, sets.floor.vectors)
    )
    mean, std, stderr = mean_and_errors(distances)
    return sets.score(mean, stderr, floors.mean().item(), std=std, subsets=subsets, subset_size=subset_size)
