"""Corruption processes, as functions on images, and the priors that generators draw their codes from."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genexp.ranges import PositiveFloat

Corruption = Callable[[Tensor], Tensor]  # images in, images of the same shape out; draws from the default generator
Prior = Literal["uniform", "gaussian", "spherical"]


def none() -> Corruption:
    """Leaves images as they are."""
    return lambda images: images


def gaussian(*, std: PositiveFloat) -> Corruption:
    """Adds independent N(0, std²) to each pixel; the result may leave [0, 1]."""
    return lambda images: images + std * torch.randn_like(images)


def draw_prior(
    prior: Prior, n: int, dim: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """n codes, shape (n, dim), float32; each coordinate has mean 0 and variance 1 under all three priors.

    uniform: on [-√3, √3], as in the published GAN code. spherical: uniform on the sphere of radius √dim.
    """
    if prior == "uniform":
        bound = math.sqrt(3)
        return torch.empty(n, dim, device=device).uniform_(-bound, bound, generator=generator)
    codes = torch.randn(n, dim, device=device, generator=generator)
    if prior == "spherical":
        codes *= math.sqrt(dim) / codes.norm(dim=1, keepdim=True)
    return codes
