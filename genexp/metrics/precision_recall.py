"""Precision and recall, density and coverage: which features lie in the balls around which.

A ball around a feature reaches to its k-th nearest neighbour of the same set. All four are of the same distances.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.metrics import Subject
from genexp.metrics.features import Compared, FeatureSettings, compared, fewest, float64, of_features, refusal
from genexp.ranges import PositiveInt
from genexp.score import Score

TILE = 2**22  # distances held at a time: 32 MiB of them
SLACK = 1e-12  # of the largest squared norm: what rounding can do to a squared distance


class Inside(NamedTuple):
    """What lies in which balls, for n samples and m points; the mean of each is its score. All float64, on the CPU."""

    precision: Tensor  # (n,) 1 for a sample in the ball of a point
    recall: Tensor  # (m,) 1 for a point in the ball of a sample
    density: Tensor  # (n,) in how many points' balls a sample is, divided by k
    coverage: Tensor  # (m,) 1 for a point in whose ball there is a sample


def inside(points: Tensor, samples: Tensor, k: int, point_radii: Tensor | None = None) -> Inside:
    """Compare samples (n, d) with points (m, d); `point_radii` may be given as `squared_radii(points, k)`.

    Balls are closed for precision and recall, as in equation 1 of Kynkäänniemi et al. 2019, and open for density and
    coverage, as in the code of Naeem et al. 2020: so samples that are copies of the points have a density of 1.
    Computed in float64, with ties, such as copies lead to, recognised in spite of rounding.
    """
    points, samples = float64(points), float64(samples)
    of_points = squared_radii(points, k) if point_radii is None else point_radii
    of_samples = squared_radii(samples, k)
    middle = points.mean(0)
    slack = SLACK * max((x - middle).square().sum(1).max().item() for x in (points, samples))
    closed, opened = of_points + slack, of_points - slack
    nearest = torch.full_like(of_points, math.inf)
    recall = torch.zeros_like(of_points, dtype=torch.bool)
    precision, density = [], []
    for rows, d2 in _squared_distances(samples, points):
        precision.append((d2 <= closed).any(1))
        density.append((d2 < opened).sum(1).double() / k)
        recall |= (d2 <= of_samples[rows, None] + slack).any(0)
        torch.minimum(nearest, d2.amin(0), out=nearest)
    found = torch.cat(precision), recall, torch.cat(density), nearest < opened
    return Inside(*(values.double().cpu() for values in found))


def squared_radii(x: Tensor, k: int) -> Tensor:
    """The squared distance of each of (n, d) float64 features to its k-th nearest other one, (n,); k < n."""
    kth = [d2.topk(k + 1, largest=False).values[:, k] for _, d2 in _squared_distances(x, x)]  # the nearest is itself
    return torch.cat(kth)


def _squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Tiles of ‖x_i − y_j‖², as ‖y‖² − 2xᵀy + ‖x‖² of features centred on the mean of y: rows, (len(rows), len(y))."""
    middle = y.mean(0)
    y = y - middle
    squares = y.square().sum(1)
    step = max(1, TILE // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        part = x[rows] - middle
        yield rows, torch.addmm(squares, part, y.T, alpha=-2).add_(part.square().sum(1, keepdim=True))


def _refusal(model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    k, said = settings["k"], refusal(model, data, settings)
    if said is None and k >= fewest(data, settings):
        return (
            f"k={k}: each sample, {settings['split']} image and training image needs {k} others beside it, "
            f"and there are {fewest(data, settings)} of one of them"
        )
    return said


@of_features(_refusal)
def precision(subject: Subject, *, k: PositiveInt, **settings: Unpack[FeatureSettings]) -> Score:
    """The share of samples that lie in the ball of an image of the split (Kynkäänniemi et al. 2019, equation 2)."""
    return _score(subject, "precision", k, settings)


@of_features(_refusal)
def recall(subject: Subject, *, k: PositiveInt, **settings: Unpack[FeatureSettings]) -> Score:
    """The share of images of the split that lie in the ball of a sample (Kynkäänniemi et al. 2019, equation 2)."""
    return _score(subject, "recall", k, settings)


@of_features(_refusal)
def density(subject: Subject, *, k: PositiveInt, **settings: Unpack[FeatureSettings]) -> Score:
    """How many images' balls a sample lies in, on average, divided by k (Naeem et al. 2020).

    About 1 for samples of the data's own distribution; more where samples crowd, and there is no upper end.
    """
    return _score(subject, "density", k, settings)


@of_features(_refusal)
def coverage(subject: Subject, *, k: PositiveInt, **settings: Unpack[FeatureSettings]) -> Score:
    """The share of images of the split in whose ball there is a sample (Naeem et al. 2020)."""
    return _score(subject, "coverage", k, settings)


def _score(subject: Subject, name: str, k: int, settings: FeatureSettings) -> Score:
    """`stderr` is std / √n over the samples or images that are counted, with the balls held fixed."""
    seen = compared(subject, settings)
    found, floor = subject.once(("balls", k, *sorted(settings.items())), lambda: _inside(seen, k))
    values: Tensor = getattr(found, name)
    stderr = values.std(correction=0).item() / math.sqrt(len(values))
    return seen.score(values.mean().item(), stderr, getattr(floor, name).mean().item(), k=k)


def _inside(seen: Compared, k: int) -> tuple[Inside, Inside]:
    points = seen.points.vectors
    radii = squared_radii(float64(points), k)
    return inside(points, seen.samples.vectors, k, radii), inside(points, seen.floor.vectors, k, radii)
