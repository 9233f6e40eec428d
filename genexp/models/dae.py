"""Denoising autoencoders (Vincent et al. 2010) as generative models (Bengio et al. 2013)."""

from typing import Literal, Unpack

import torch
from torch import Tensor

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Outcome
from genexp.models.autoencoder import Architecture, FullyConnectedAutoencoder
from genexp.models.samplers import CHUNK, ChainSampler, Transition, training_images
from genexp.noise import Corruption, unchanged
from genexp.ranges import Count, PositiveInt


class DAE(ChainSampler, FullyConnectedAutoencoder):
    """Learns P(X | X̃), the distribution of the clean image given a corrupted one, X̃ ~ C(X̃ | X).

    If P is exact, the stationary distribution of the chain that alternates C and P is the data's.
    """

    sampler_settings = (*ChainSampler.sampler_settings, "chain_state", "sample_kind")

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        walkback_steps: PositiveInt,
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        chain_state: Literal["draw", "mean"],
        sample_kind: Literal["draw", "mean"],
        **architecture: Unpack[Architecture],
    ) -> None:
        if noise is unchanged:
            raise UsageError("model=dae learns to undo a corruption: choose noise=salt_and_pepper, masking or gaussian")
        super().__init__(data, noise, **architecture)
        self.walkback_steps, self.chain_state, self.sample_kind = walkback_steps, chain_state, sample_kind
        self.chains, self.burn_in, self.thinning = chains, burn_in, thinning

    def play(self, images: Tensor) -> Outcome:
        """Return E[−log P(x | x̃)]; with walkback (Bengio et al. 2013, section 4) the mean over a chain begun at x.

        Each state of the chain is trained to return to x, so that P learns to correct its own errors. The chain has a
        fixed length, as in the authors' later code for GSNs, and not a geometric one as in their Algorithm 1.
        """
        state, errors = images, []
        for step in range(1, self.walkback_steps + 1):
            codes = self.encode(self.noise(state))
            errors.append(self.reconstruction_error(codes, images))
            if step < self.walkback_steps:
                with torch.no_grad():
                    mean = self.decode(codes).float()
                    state = self.draw_given(mean, (mean - images).square().mean())
        return Outcome({"autoencoder": torch.stack(errors).mean()}, {})

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Tensor, Transition]:
        """Return the chain X̃ ~ C(X̃ | X), X ~ P(X | X̃)."""
        variance = self.residual_variance(data, generator)

        def step(state: Tensor) -> tuple[Tensor, Tensor]:
            mean = self.decode(self.encode(self.noise(state, generator)))
            reconstructed = {"mean": mean, "draw": self.draw_given(mean, variance, generator)}
            return reconstructed[self.chain_state], reconstructed[self.sample_kind].clamp(0, 1)

        return images, step

    def residual_variance(self, data: DataSet, generator: torch.Generator) -> Tensor:
        """Return the maximum-likelihood variance of P(X | X̃) under squared error, on CHUNK training images."""
        images = training_images(data, CHUNK, generator)
        return (self.decode(self.encode(self.noise(images, generator))) - images).square().mean()
