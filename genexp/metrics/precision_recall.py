"""Precision, recall, density and coverage: the shares of features that lie in balls around other features.

A ball around a feature reaches to its k-th nearest neighbour of the same set. All four scores share the distances.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.metrics import Subject, mean_and_errors
from genexp.metrics.features import FeatureSets, FeatureSettings, features_refusal, float64, of_features, smallest_size
from genexp.ranges import Neighbours
from genexp.score import Score

TILE = 2**22  # distances computed at a time: 32 MiB
SLACK = 1e-12  # rounding error of a squared distance, relative to the largest squared norm


class PRDC(NamedTuple):
    """The values whose means are the four scores, for n samples and m points; float64 on the CPU."""

    precision: Tensor  # (n,) 1 if the sample is in the ball of a point
    recall: Tensor  # (m,) 1 if the point is in the ball of a sample
    density: Tensor  # (n,) the number of points' balls that the sample is in, divided by k
    coverage: Tensor  # (m,) 1 if a sample is in the ball of the point


def prdc(points: Tensor, samples: Tensor, k: int, point_radii: Tensor | None = None) -> PRDC:
    """Compare samples (n, d) with points (m, d), in float64; `point_radii` may be given as `squared_radii(points, k)`.

    Balls are closed for precision and recall, as in equation 1 of Kynkäänniemi et al. 2019. They are open for density
    and coverage, as in the code of Naeem et al. 2020, so that copies of the points have a density of 1. Distances
    that differ by rounding alone count as equal.
    """
    points, samples = float64(points), float64(samples)
    point_radii = squared_radii(points, k) if point_radii is None else point_radii
    sample_radii = squared_radii(samples, k)
    mean = points.mean(0)
    slack = SLACK * max((x - mean).square().sum(1).max().item() for x in (points, samples))
    closed, opened = point_radii + slack, point_radii - slack
    nearest = torch.full_like(point_radii, math.inf)
    recall = torch.zeros_like(point_radii, dtype=torch.bool)
    precision, density = [], []
    for rows, d2 in _squared_distances(samples, points):
        precision.append((d2 <= closed).any(1))
        density.append((d2 < opened).sum(1).double() / k)
        recall |= (d2 <= sample_radii[rows, None] + slack).any(0)
        torch.minimum(nearest, d2.amin(0), out=nearest)
    values = torch.cat(precision), recall, torch.cat(density), nearest < opened
    return PRDC(*(value.double().cpu() for value in values))


def squared_radii(x: Tensor, k: int) -> Tensor:
    """Return the squared distance of each of (n, d) float64 features to its k-th nearest other one, (n,); k < n."""
    kth = [d2.topk(k + 1, largest=False).values[:, k] for _, d2 in _squared_distances(x, x)]  # the nearest is itself
    return torch.cat(kth)


def _squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of x and their ‖x_i − y_j‖², (len(rows), len(y)), tile by tile, as ‖y‖² − 2xᵀy + ‖x‖²."""
    mean = y.mean(0)  # centred features have smaller rounding errors
    y = y - mean
    squares = y.square().sum(1)
    step = max(1, TILE // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        part = x[rows] - mean
        yield rows, torch.addmm(squares, part, y.T, alpha=-2).add_(part.square().sum(1, keepdim=True))


def _refusal(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    k, reason = settings["k"], features_refusal(model, data, settings)
    if reason is None and k >= smallest_size(data, settings):
        return (
            f"k={k}: each sample, {settings['split']} image and training image needs {k} others beside it, "
            f"and there are {smallest_size(data, settings)} of one of them"
        )
    return reason


@of_features(_refusal)
def precision(subject: Subject, *, k: Neighbours, **settings: Unpack[FeatureSettings]) -> Score:
    """Return the share of samples in the ball of an image of the split (Kynkäänniemi et al. 2019, equation 2)."""
    return _score(subject, "precision", k, settings)


@of_features(_refusal)
def recall(subject: Subject, *, k: Neighbours, **settings: Unpack[FeatureSettings]) -> Score:
    """Return the share of images of the split in the ball of a sample (Kynkäänniemi et al. 2019, equation 2)."""
    return _score(subject, "recall", k, settings)


@of_features(_refusal)
def density(subject: Subject, *, k: Neighbours, **settings: Unpack[FeatureSettings]) -> Score:
    """Return the mean number of images' balls that a sample lies in, divided by k (Naeem et al. 2020).

    It is about 1 for samples of the data's own distribution, and larger where samples crowd; it has no upper limit.
    """
    return _score(subject, "density", k, settings)


@of_features(_refusal)
def coverage(subject: Subject, *, k: Neighbours, **settings: Unpack[FeatureSettings]) -> Score:
    """Return the share of images of the split whose ball contains a sample (Naeem et al. 2020)."""
    return _score(subject, "coverage", k, settings)


def _score(subject: Subject, name: str, k: int, settings: FeatureSettings) -> Score:
    """Return one of the four scores; `stderr` is std / √n over the values that are averaged, with fixed balls."""
    sets = FeatureSets(subject, settings)

    def compare() -> tuple[PRDC, PRDC]:
        points = sets.points.vectors
        radii = squared_radii(float64(points), k)
        return prdc(points, sets.samples.vectors, k, radii), prdc(points, sets.floor.vectors, k, radii)

    of_samples, of_floor = subject.once(("balls", k, *sorted(settings.items())), compare)
    mean, _, stderr = mean_and_errors(getattr(of_samples, name))
    return sets.score(mean, stderr, getattr(of_floor, name).mean().item(), k=k)
