"""Corruption processes, as functions on images, and the priors that generators draw their codes from."""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from genexp.ranges import Number, PositiveFloat, Share

Prior = Literal["uniform", "gaussian", "spherical"]


class Corruption(Protocol):
    """C(x̃ | x): images in, corrupted images of the same shape out, all pixels independently.

    Draws from `generator`, or from the default one of the images' device.
    """

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


def unchanged(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The corruption that leaves images as they are."""
    return images


def none() -> Corruption:
    """Leaves images as they are."""
    return unchanged


def gaussian(*, mean: Number, std: PositiveFloat) -> Corruption:
    """Adds independent N(mean, std²) to each pixel; the result may leave [0, 1]."""

    def corrupt(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images + torch.empty_like(images).normal_(mean, std, generator=generator)

    return corrupt


def masking(*, probability: Share) -> Corruption:
    """Sets each pixel to 0 with this probability (Vincent et al. 2010, section 3.3)."""

    def corrupt(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images * (_uniform(images, generator) >= probability)

    return corrupt


def salt_and_pepper(*, probability: Share) -> Corruption:
    """Sets each pixel, with this probability, to 0 or 1 by a fair coin (Vincent et al. 2010, section 3.3)."""

    def corrupt(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = _uniform(images, generator)
        return torch.where(u < probability, (u < probability / 2).to(images.dtype), images)

    return corrupt


def _uniform(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """One number from U[0, 1) for each pixel, outside any gradient."""
    return torch.empty_like(images, requires_grad=False).uniform_(generator=generator)


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
