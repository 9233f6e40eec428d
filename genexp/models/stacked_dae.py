"""Stacked denoising autoencoders (Vincent et al. 2010), trained layer by layer and sampled in the top layer."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Outcome, Stage, Update
from genexp.models.samplers import ChainSampler, Transition
from genexp.models.stacked import Stacked, TiedLayer
from genexp.noise import Corruption, masking, unchanged
from genexp.ranges import Count, PositiveInt, Shares, Widths
from genexp.text import count


class DenoisingLayer(TiedLayer):
    """A layer that learns to undo the masking of a share of its input."""

    def __init__(self, inputs: int, units: int, probability: float) -> None:
        super().__init__(inputs, units)
        self.corrupt = masking(probability=probability)

    def loss(self, x: Tensor) -> Tensor:
        """Return the cross-entropy of x and its reconstruction from a corrupted x, the mean over (n, inputs) rows."""
        logits = self.decoder(self.encoder(self.corrupt(x))).float()
        return binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class StackedDAE(Stacked[DenoisingLayer]):
    """Each layer is trained on the uncorrupted codes of the layers below it, which are frozen (section 3.1).

    With `fine_tuning` a last stage trains all layers together to reconstruct images, of which a share is masked.
    """

    sampler_settings = (*ChainSampler.sampler_settings, "chain_state")

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: Widths,
        masking: Shares,
        pretrain_epochs: PositiveInt,
        fine_tuning: bool,
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        chain_state: Literal["draw", "mean"],
    ) -> None:
        if noise is not unchanged:
            raise UsageError("model=stacked_dae masks the input of each layer by model.masking: leave out noise")
        if len(masking) != len(hidden):
            raise UsageError(
                f"model.masking={masking} is of {count(len(masking), 'layer')}, but "
                f"model.hidden={hidden} has {len(hidden)}\n"
                "Give the share of each layer, as in model.hidden=[500,500] model.masking=[0.1,0.2]"
            )
        widths = zip([data.size, *hidden], hidden, masking, strict=False)
        super().__init__("stacked_dae", data, [DenoisingLayer(*layer) for layer in widths], pretrain_epochs)
        self.noise, self.fine_tuning = noise, fine_tuning
        self.chains, self.burn_in, self.thinning, self.chain_state = chains, burn_in, thinning, chain_state

    def players(self) -> dict[str, nn.Module]:
        return super().players() | ({"autoencoder": self} if self.fine_tuning else {})

    def stages(self) -> list[Stage]:
        if not self.fine_tuning:
            return super().stages()
        *lower, top = super().stages()
        fine_tuning = Stage("fine-tuning", [Update(("autoencoder",), self.play, validates=True)])
        return [*lower, replace(top, epochs=self.pretrain_epochs), fine_tuning]

    def play(self, images: Tensor) -> Outcome:
        """Return the cross-entropy of images and their reconstructions by all layers, from masked images."""
        x = images.flatten(1)
        logits = self.preactivations(self.encode(self.stack[0].corrupt(x)))
        return Outcome({"autoencoder": binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)}, {})

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Tensor, Transition]:
        """Return a chain in the top layer, begun at the codes of images, and decoded by means.

        A step masks the state u, the code below the top layer, and reconstructs it: u ← g(f(ũ)), or a Bernoulli draw of
        it. A sample is the mean image of g(f(ũ)). Fine-tuned layers reconstruct images and no longer each its input, so
        their chain is one of images, through all layers.
        """
        below = 0 if self.fine_tuning else len(self.stack) - 1  # layers below the chain's state

        def step(state: Tensor) -> tuple[Tensor, Tensor]:
            codes = self.stack[below].corrupt(state, generator)
            for layer in self.stack[below:]:
                codes = layer.encoder(codes)
            mean = codes
            for layer in reversed(self.stack[below:]):
                mean = layer.decoder(mean).sigmoid()
            following = mean if self.chain_state == "mean" else torch.bernoulli(mean, generator=generator)
            return following, self.decode(codes)

        return self.encode(images, below), step
