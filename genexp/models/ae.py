"""The autoencoder as a generative model: a density is fitted to its codes, and draws from it are decoded."""

from typing import Unpack

import torch
from torch import Tensor

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Outcome
from genexp.models.autoencoder import Architecture, FullyConnectedAutoencoder
from genexp.models.samplers import CHUNK, ancestral, code_density
from genexp.noise import Corruption
from genexp.ranges import PositiveInt
from genexp.text import count

PREVIEWED = 50  # codes for each Gaussian of the mixture that draws a picture on the way
FITTED = 10_000  # training images, drawn without repetition, whose codes are fitted; more take minutes, change little


class AE(FullyConnectedAutoencoder):
    """Minimises the reconstruction error alone; with linear units and squared error it learns PCA's subspace."""

    sample_kind = "mean"
    sampler_settings = ("code_components",)

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        code_components: PositiveInt,
        **architecture: Unpack[Architecture],
    ) -> None:
        super().__init__(data, noise, **architecture)
        if code_components > min(FITTED, data.n_train):
            raise UsageError(
                f"model.code_components={code_components} is more than the {count(min(FITTED, data.n_train), 'code')} "
                "that the mixture is fitted to"
            )
        self.code_components = code_components

    def play(self, images: Tensor) -> Outcome:
        return Outcome({"autoencoder": self.reconstruction_error(self.encode(self.noise(images)), images)}, {})

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return g(h), with h drawn from a mixture of `code_components` Gaussians fitted to the training codes."""
        return self._draw(n, generator, data, FITTED)

    def preview(self, n: int, generator: torch.Generator, data: DataSet, **_: Tensor) -> Tensor:
        """Return the same, of a mixture that is fitted to PREVIEWED codes for each Gaussian.

        A fit to as many codes as for a score would take longer than the epochs between two pictures.
        """
        return self._draw(n, generator, data, min(FITTED, PREVIEWED * self.code_components))

    def _draw(self, n: int, generator: torch.Generator, data: DataSet, fitted: int) -> Tensor:
        rows = torch.randperm(len(data.train), generator=generator, device=generator.device)[:fitted]
        codes = torch.cat([self.encode(data.images("train", chunk)) for chunk in torch.split(rows, CHUNK)])
        return ancestral(self.decode, code_density(codes, self.code_components, n, generator)).clamp(0, 1)
