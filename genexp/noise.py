"""Corruption processes, which are functions on images, and the priors of codes."""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from genexp.ranges import Number, PositiveFloat, Share

Prior = Literal["uniform", "gaussian", "spherical"]


class Corruption(Protocol):
    """Draw from C(x̃ | x): return corrupted images of the same shape, with all pixels independent.

    Random numbers come from `generator`, or from the default one of the images' device.
    """

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


def unchanged(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the images without corruption."""
    return images


def none() -> Corruption:
    """Return the corruption that leaves images unchanged."""
    return unchanged


def gaussian(*, mean: Number, std: PositiveFloat) -> Corruption:
    """Return the corruption that adds independent N(mean, std²) to each pixel; the result may leave [0, 1]."""
    return lambda images, generator=None: images + torch.empty_like(images).normal_(mean, std, generator=generator)


def masking(*, probability: Share) -> Corruption:
    """Return the corruption that sets each pixel to 0 with `probability` (Vincent et al. 2010, section 3.3)."""
    return lambda images, generator=None: images * (torch.rand_like(images, generator=generator) >= probability)


def salt_and_pepper(*, probability: Share) -> Corruption:
    """Return the corruption that sets a pixel to 0 or 1, each with probability/2 (Vincent et al. 2010, section 3.3)."""

    def corrupt(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = torch.rand_like(images, generator=generator)
        return torch.where(u < probability, (u < probability / 2).to(images.dtype), images)

    return corrupt


def draw_prior(
    prior: Prior, n: int, dim: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw n codes, (n, dim) float32; each coordinate has mean 0 and variance 1 under all three priors.

    uniform: on [-√3, √3], as in the published GAN code. spherical: uniform on the sphere of radius √dim.
    """
    if prior == "uniform":
        return torch.empty(n, dim, device=device).uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)
    codes = torch.randn(n, dim, device=device, generator=generator)
    if prior == "spherical":
        codes *= math.sqrt(dim) / codes.norm(dim=1, keepdim=True)
    return codes
