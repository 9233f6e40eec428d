"""Protocols of what only some models offer; `isinstance` asks for it. Autoencoders have a class, in `models`."""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Side = Literal["a", "b"]  # the first or the second data set


@runtime_checkable
class LatentVariableModel(Protocol):
    """A model with a prior over codes, such as a GAN or a variational autoencoder."""

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n codes from the prior, (n, latent_dim)."""

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], of codes (n, latent_dim); and of labels, if it is conditional."""


@runtime_checkable
class Translator(Protocol):
    """A model that translates images of each of two data sets into images of the other."""

    def translate(self, images: Tensor, to: Side) -> Tensor:
        """Return the translations, (n, C, H, W) in [0, 1], of images (n, C, H, W) in [0, 1] of the other data set."""


@runtime_checkable
class Reconstructs(Protocol):
    """A model that reconstructs images, such as an autoencoder or a Boltzmann machine."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], that the model makes of images, without noise or draws."""


@runtime_checkable
class HasDiscriminator(Protocol):
    """A model that judges whether images are data."""

    def logits(self, images: Tensor) -> Tensor:
        """Return log D/(1 − D) of each image, (n,)."""
