"""Kernel (inception) distance: the squared maximum mean discrepancy of features, without bias."""

import math
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject, lower_is_better
from genexp.metrics.features import FeatureSettings, compared, fewest, float64, of_features, refusal
from genexp.ranges import PositiveInt
from genexp.score import Score


def squared_mmd(one: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimate of MMD² between (n, d) and (m, d) float64 features, by the kernel (xᵀy / d + 1)³.

    Negative values occur, for the estimate is 0 on average where the distributions are equal. n and m are at least 2.
    Source: Bińkowski et al. 2018.
    """

    def total(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3).sum()

    def within(x: Tensor) -> Tensor:
        diagonal = (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
        return (total(x, x) - diagonal) / (len(x) * (len(x) - 1))

    return within(one) + within(other) - 2 * total(one, other) / (len(one) * len(other))


def subset_distances(one: Tensor, other: Tensor, subsets: int, subset_size: int, seed: int) -> Tensor:
    """`squared_mmd` of `subset_size` rows of each, drawn without repetition; (subsets,) float64 on the CPU."""
    one, other = float64(one), float64(other)
    found = []
    for subset in range(subsets):
        generator = rng.generator(torch.device("cpu"), seed, "kid subset", subset)
        chosen = [x[torch.randperm(len(x), generator=generator)[:subset_size].to(x.device)] for x in (one, other)]
        found.append(squared_mmd(*chosen))
    return torch.stack(found).cpu()


def _refusal(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    size, said = settings["subset_size"], refusal(model, data, settings)
    if said is None and not 2 <= size <= fewest(data, settings):
        return (
            f"subset_size={size}: a subset has at least 2 features, and at most the {fewest(data, settings)} "
            f"that there are of samples, {settings['split']} images and training images"
        )
    return said


@lower_is_better
@of_features(_refusal)
def kid(
    subject: Subject, *, subsets: PositiveInt, subset_size: PositiveInt, **settings: Unpack[FeatureSettings]
) -> Score:
    """The distance of the model's samples from a split, a mean over subsets; lower is better.

    `std` is over the subsets; `stderr`, std / √subsets, is of the choice of subsets alone: other samples of the model
    move the score by more. `floor` is the distance of training images from the split.
    """
    seen = compared(subject, settings)
    points = seen.points.vectors
    distances, floors = (
        subset_distances(x, points, subsets, subset_size, subject.seed)
        for x in (seen.samples.vectors, seen.floor.vectors)
    )
    std = distances.std(correction=0).item()
    mean, stderr, floor = distances.mean().item(), std / math.sqrt(subsets), floors.mean().item()
    return seen.score(mean, stderr, floor, std=std, subsets=subsets, subset_size=subset_size)
