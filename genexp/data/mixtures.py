"""Mixtures of Gaussians, toy data whose density is known: on a line, eight on a ring, 25 on a grid."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genexp import rng
from genexp.data import SPLITS, Bounds, DataSet, Density
from genexp.errors import UsageError
from genexp.ranges import Number, Numbers, PositiveFloat, PositiveFloats, PositiveInt, Seed
from genexp.text import count

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]  # n -> points (n, d) in [0, 1], labels or None
HELD_OUT = 10_000  # points of the validation split, and of the test split
REACH = 6  # standard deviations from a mean that lie within the bounds; float32 normals end at √(48·log 2) = 5.8


@dataclass(frozen=True)
class Mixture:
    """A mixture of isotropic Gaussians, in the points' own coordinates."""

    means: Tensor  # (modes, d) float64
    stds: Tensor  # (modes,) float64, of each mode in each coordinate
    weights: Tensor  # (modes,) float64, with the sum 1

    def log_prob(self, points: Tensor) -> Tensor:
        """Return log p(x) = log Σ_k w_k N(x; μ_k, σ_k² I), (n,) float64 in nats, of points (n, d)."""
        d2 = torch.cdist(points.double(), self.means, compute_mode="donot_use_mm_for_euclid_dist").square()
        dim = self.means.shape[1]
        normalizers = self.weights.log() - dim * torch.log(self.stds * math.sqrt(2 * math.pi))
        return torch.logsumexp(normalizers - 0.5 * d2 / self.stds.square(), 1)


def gaussian_1d(data_dir: Path, *, n: PositiveInt, mean: Number, std: PositiveFloat, seed: Seed) -> DataSet:
    """Return `n` training points of N(mean, std²) on the line, (n, 1); the seed is the data's own."""
    mixture = _mixture([[mean]], [std], [1.0])
    return _drawn(f"gaussian_1d-{seed}", n, mixture, _bounds_around(mixture))


def mixture_1d(
    data_dir: Path, *, n: PositiveInt, means: Numbers, stds: PositiveFloats, weights: PositiveFloats, seed: Seed
) -> DataSet:
    """Return `n` training points of Gaussians on the line, (n, 1), mode k with `means[k]`, `stds[k]`, `weights[k]`.

    Labels are modes. Raises UsageError unless the three settings have one length.
    """
    if not len(means) == len(stds) == len(weights):
        raise UsageError(
            f"dataset.means has {count(len(means), 'mode')}, dataset.stds {len(stds)}, dataset.weights {len(weights)}: "
            "give each mode one of each"
        )
    mixture = _mixture([[mean] for mean in means], stds, weights)
    return _drawn(f"mixture_1d-{seed}", n, mixture, _bounds_around(mixture))


def ring(data_dir: Path, *, n: PositiveInt, radius: PositiveFloat, std: PositiveFloat) -> DataSet:
    """Return `n` training points of eight Gaussians, evenly on a circle; mode k lies at the angle k·π/4.

    Source: Metz et al. 2017 (unrolled GANs), with the values of PacGAN's code.
    """
    angles = torch.arange(8) * (math.pi / 4)  # linspace(0, 2π, 8) would put two modes in one place
    return _in_square("ring", n, radius * torch.stack([angles.cos(), angles.sin()], 1), std)


def grid(data_dir: Path, *, n: PositiveInt, spacing: PositiveFloat, std: PositiveFloat) -> DataSet:
    """Return `n` training points of 25 Gaussians, `spacing` apart; mode 5i + j is in column i and row j of a square.

    The square is centred on 0. Source: Dumoulin et al. 2017 (ALI), with the values of PacGAN's code.
    """
    coordinates = spacing * torch.arange(-2.0, 3.0)
    return _in_square("grid", n, torch.cartesian_prod(coordinates, coordinates), std)


def _mixture(means: list[list[float]], stds: list[float], weights: list[float]) -> Mixture:
    shares = torch.tensor(weights, dtype=torch.float64)
    return Mixture(
        torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64), shares / shares.sum()
    )


def _bounds_around(mixture: Mixture) -> Bounds:
    """Return the smallest box with all that lies within REACH standard deviations of a mean."""
    reach = REACH * mixture.stds[:, None]
    low, high = (mixture.means - reach).amin(0), (mixture.means + reach).amax(0)
    if not (high > low).all():
        raise UsageError("the points are all the same number: their std is too small beside their mean")
    return Bounds(tuple(low.tolist()), tuple(high.tolist()))


def _drawn(name: str, n: int, mixture: Mixture, bounds: Bounds) -> DataSet:
    """Return n / 10,000 / 10,000 points of the mixture; their labels are modes."""
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (bounds.low, bounds.high))

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        modes = torch.multinomial(mixture.weights, size, replacement=True, generator=generator)
        noise = torch.randn(size, len(low), generator=generator)
        own = mixture.means[modes] + mixture.stds[modes, None] * noise
        return ((own - low) / (high - low)).float(), modes

    return points(name, n, draw, bounds, mixture)


def _in_square(name: str, n: int, means: Tensor, std: float) -> DataSet:
    """Return n / 10,000 / 10,000 points of equally weighted Gaussians in a square around 0.

    The square reaches to 1.5 times the outermost coordinate of a mean, or REACH standard deviations beyond it if that
    is more. Labels are modes. The arithmetic is in float32 in the unit square, as it was when the first runs were kept.
    """
    outermost = means.abs().max().item()
    extent = max(1.5 * outermost, outermost + REACH * std)
    unit_means, unit_std = 0.5 + means / (2 * extent), std / (2 * extent)

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        modes = torch.randint(len(means), (size,), generator=generator)
        return unit_means[modes] + unit_std * torch.randn(size, 2, generator=generator), modes

    mixture = _mixture(means.tolist(), [std] * len(means), [1.0] * len(means))
    return points(name, n, draw, Bounds((-extent, -extent), (extent, extent)), mixture)


def points(name: str, n: int, draw: Draw, bounds: Bounds, density: Density | None = None) -> DataSet:
    """Return n training points and HELD_OUT of each other split, the same in every run of the same `name`."""
    splits, labels = [], {}
    for split, size in zip(SPLITS, (n, HELD_OUT, HELD_OUT), strict=True):
        drawn, classes = draw(size, rng.generator(torch.device("cpu"), 0, f"{name}-{split}"))
        splits.append(drawn)
        if classes is not None:
            labels[split] = classes
    train, valid, test = splits
    return DataSet(train, valid, test, labels, white=1, bounds=bounds, density=density)
