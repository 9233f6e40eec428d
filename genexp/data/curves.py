"""Points around curves in the plane, toy data whose density is not known in closed form."""

import math
from pathlib import Path

import torch
from torch import Tensor

from genexp.data import Bounds, DataSet
from genexp.data.mixtures import REACH, Draw, points
from genexp.ranges import PositiveFloat, PositiveInt, Seed

TURNS = (1.5 * math.pi, 4.5 * math.pi)  # the angles at which the Swiss roll begins and ends


def two_moons(data_dir: Path, *, n: PositiveInt, std: PositiveFloat, seed: Seed) -> DataSet:
    """Return `n` training points of two interleaved half circles of radius 1, with N(0, std²) added; (n, 2).

    Label 0 is the upper half circle around (0, 0), label 1 the lower one around (1, ½). The seed is the data's own.
    Source: scikit-learn's `make_moons`, with random angles.
    """

    def moons(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        lower = torch.randint(2, (size,), generator=generator)
        angle = math.pi * torch.rand(size, generator=generator)
        sign = 1 - 2 * lower
        return torch.stack([lower + sign * angle.cos(), 0.5 * lower + sign * angle.sin()], 1), lower

    return _around(f"two_moons-{seed}", n, moons, std, Bounds((-1.0, -0.5), (2.0, 1.0)))


def swiss_roll(data_dir: Path, *, n: PositiveInt, std: PositiveFloat, seed: Seed) -> DataSet:
    """Return `n` training points of the spiral t·(cos t, sin t), t from 1.5 π to 4.5 π, with N(0, std²) added; (n, 2).

    It has no labels. The seed is the data's own. Source: scikit-learn's `make_swiss_roll`, in the plane, as in
    Sohl-Dickstein et al. 2015.
    """
    first, last = TURNS

    def spiral(size: int, generator: torch.Generator) -> tuple[Tensor, None]:
        t = first + (last - first) * torch.rand(size, generator=generator)
        return torch.stack([t * t.cos(), t * t.sin()], 1), None

    return _around(f"swiss_roll-{seed}", n, spiral, std, Bounds((-last, -last), (last, last)))


def _around(name: str, n: int, curve: Draw, std: float, within: Bounds) -> DataSet:
    """Return n / 10,000 / 10,000 points of a curve that lies `within` a box, with Gaussian noise added."""
    low, high = (torch.tensor(ends) for ends in (within.low, within.high))
    low, high = low - REACH * std, high + REACH * std

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        on_curve, classes = curve(size, generator)
        own = on_curve + std * torch.randn(size, 2, generator=generator)
        return (own - low) / (high - low), classes

    return points(name, n, draw, Bounds(tuple(low.tolist()), tuple(high.tolist())))
