"""Gaussians in the plane, the toy data on which collapsed modes are counted: eight on a ring, 25 on a grid."""

import math
from pathlib import Path

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet, Mixture
from genexp.ranges import PositiveFloat, PositiveInt

HELD_OUT = 10_000  # points of the validation split, and of the test split


def ring(data_dir: Path, *, n: PositiveInt, radius: PositiveFloat, std: PositiveFloat) -> DataSet:
    """Return `n` training points of eight Gaussians, evenly on a circle; mode k lies at the angle k·π/4.

    `_mixture` describes shapes and units; `data_dir` is not used. Source: Metz et al. 2017 (unrolled GANs), with the
    values of PacGAN's code.
    """
    angles = torch.arange(8) * (math.pi / 4)  # linspace(0, 2π, 8) would put two modes in one place
    return _mixture("ring", n, radius * torch.stack([angles.cos(), angles.sin()], 1), std)


def grid(data_dir: Path, *, n: PositiveInt, spacing: PositiveFloat, std: PositiveFloat) -> DataSet:
    """Return `n` training points of 25 Gaussians, `spacing` apart; mode 5i + j is in column i and row j of a square.

    The square is centred on 0. `_mixture` describes shapes and units; `data_dir` is not used.
    Source: Dumoulin et al. 2017 (ALI), with the values of PacGAN's code.
    """
    coordinates = spacing * torch.arange(-2.0, 3.0)
    return _mixture("grid", n, torch.cartesian_prod(coordinates, coordinates), std)


def _mixture(name: str, n: int, means: Tensor, std: float) -> DataSet:
    """Return n / 10,000 / 10,000 points x of equally weighted Gaussians as float32 images of 1×1×2, 0.5 + x/(2·extent).

    `extent` is 1.5 times the outermost coordinate of a mean, or six standard deviations beyond it if that is more, so
    that all points lie in [0, 1]². Labels are modes. The points are the same in every run.
    """
    outermost = means.abs().max().item()
    extent = max(1.5 * outermost, outermost + 6 * std)  # float32 normals end at √(48·log 2) = 5.8
    mixture = Mixture(0.5 + means / (2 * extent), std / (2 * extent), extent)
    points: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    for split, size in (("train", n), ("valid", HELD_OUT), ("test", HELD_OUT)):
        generator = rng.generator(torch.device("cpu"), 0, f"{name}-{split}")
        labels[split] = torch.randint(len(means), (size,), generator=generator)
        noise = torch.randn(size, 2, generator=generator)
        points[split] = (mixture.means[labels[split]] + mixture.std * noise).view(size, 1, 1, 2)
    return DataSet(points["train"], points["valid"], points["test"], labels, white=1, mixture=mixture)
