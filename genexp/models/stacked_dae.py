"""Stacked denoising autoencoders (Vincent et al. 2010), trained layer by layer and sampled in the top layer."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Autoencoder, Outcome, Stage, Update
from genexp.models.layers import BLACK, Transposed, fully_connected
from genexp.models.samplers import markov_chain, training_images
from genexp.noise import Corruption, masking, unchanged
from genexp.ranges import Count, PositiveInt, Shares, Widths


class DenoisingLayer(nn.Module):
    """h = sigmoid(Wx + b) and x̂ = sigmoid(Wᵀh + c), which learns to undo the masking of a share of x."""

    def __init__(self, inputs: int, units: int, probability: float) -> None:
        super().__init__()
        self.encoder = fully_connected([inputs, units], ["sigmoid"])
        self.decoder = Transposed(self.linear)
        self.corrupt = masking(probability=probability)

    @property
    def linear(self) -> nn.Linear:
        linear: nn.Linear = self.encoder[0]  # type: ignore[assignment]
        return linear

    def loss(self, x: Tensor) -> Tensor:
        """Return the cross-entropy of x and its reconstruction from a corrupted x, the mean over (n, inputs) rows."""
        logits = self.decoder(self.encoder(self.corrupt(x))).float()
        return binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class StackedDAE(Autoencoder):
    """Each layer is trained on the uncorrupted codes of the layers below it, which are frozen (section 3.1).

    With `fine_tuning` a last stage trains all layers together to reconstruct images, of which a share is masked. Images
    in [0, 1] and codes are taken as probabilities.
    """

    sampler_settings = ("chains", "burn_in", "thinning", "chain_state")
    sample_kind = "mean"

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
        super().__init__()
        if noise is not unchanged:
            raise UsageError("model=stacked_dae masks the input of each layer by model.masking: leave out noise")
        if data.points:
            raise UsageError("model=stacked_dae takes values as shades of grey, and this data set has points")
        if len(masking) != len(hidden):
            raise UsageError(
                f"model.masking={masking} is of {len(masking)} layers, but model.hidden={hidden} has {len(hidden)}\n"
                "Give the share of each layer, as in model.hidden=[500,500] model.masking=[0.1,0.2]"
            )
        self.noise, self.shape = noise, data.shape
        self.pretrain_epochs, self.fine_tuning = pretrain_epochs, fine_tuning
        self.chains, self.burn_in, self.thinning, self.chain_state = chains, burn_in, thinning, chain_state
        widths = zip([data.size, *hidden], hidden, masking, strict=False)
        self.stack = [DenoisingLayer(*layer) for layer in widths]
        self.stack[0].decoder.bias.data.copy_(data.pixel_mean.flatten().logit(eps=BLACK))
        self.layers = nn.ModuleList(self.stack)

    def players(self) -> dict[str, nn.Module]:
        layers = {f"layer_{number}": layer for number, layer in enumerate(self.stack, 1)}
        return layers | ({"autoencoder": self} if self.fine_tuning else {})

    def stages(self) -> list[Stage]:
        stages = [Stage("layer 1", [Update(("layer_1",), partial(self.play_layer, 0))], self.pretrain_epochs)]
        for below in range(1, len(self.stack)):
            player, play = f"layer_{below + 1}", partial(self.play_codes, below)
            codes = partial(self.encode, layers=below)
            stages.append(Stage(f"layer {below + 1}", [Update((player,), play)], self.pretrain_epochs, codes))
        if self.fine_tuning:
            return [*stages, Stage("fine-tuning", [Update(("autoencoder",), self.play)])]
        last = stages[-1]
        return [*stages[:-1], Stage(last.name, last.updates, None, last.codes)]

    def play_layer(self, layer: int, images: Tensor) -> Outcome:
        return self.play_codes(layer, images.flatten(1))

    def play_codes(self, layer: int, codes: Tensor) -> Outcome:
        loss: Tensor = self.stack[layer].loss(codes)
        return Outcome({f"layer_{layer + 1}": loss}, {})

    def play(self, images: Tensor) -> Outcome:
        """Return the cross-entropy of images and their reconstructions by all layers, from masked images."""
        x = images.flatten(1)
        logits = self.preactivations(self.encode(self.stack[0].corrupt(x)))
        return Outcome({"autoencoder": binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)}, {})

    def encode(self, images: Tensor, layers: int | None = None) -> Tensor:
        """Return the codes of the last layer, or of the given number of layers."""
        x = images.flatten(1)
        for layer in self.stack[:layers]:
            x = layer.encoder(x)
        return x

    def preactivations(self, codes: Tensor) -> Tensor:
        """Return the logits of the images' pixels, (n, C·H·W) float32."""
        for layer in reversed(self.stack[1:]):
            codes = layer.decoder(codes).sigmoid()
        logits: Tensor = self.stack[0].decoder(codes)
        return logits.float()

    def decode(self, codes: Tensor) -> Tensor:
        return self.preactivations(codes).sigmoid().view(-1, *self.shape)

    def filters(self) -> dict[str, Tensor]:
        """Return the weights of each layer in pixels: those of an upper layer weigh the filters of the layer below."""
        filters, below = {}, None
        for number, layer in enumerate(self.stack, 1):
            weights: Tensor = layer.linear.weight.detach()
            below = weights if below is None else weights @ below
            filters[f"layer_{number}"] = below
        return filters

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n images of a chain in the top layer, begun at the codes of training images, decoded by means.

        A step masks the state u, the code below the top layer, and reconstructs it: u ← g(f(ũ)), or a Bernoulli draw of
        it. A sample is the mean image of g(f(ũ)). Fine-tuned layers reconstruct images and no longer each its input, so
        their chain is one of images, through all layers.
        """
        images = training_images(data, min(self.chains, n), generator)
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

        start = self.encode(images, below)
        return markov_chain(step, start, n, burn_in=self.burn_in, thinning=self.thinning)
