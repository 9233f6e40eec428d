"""Deep belief networks (Hinton, Osindero and Teh 2006), trained layer by layer as restricted Boltzmann machines."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Model, Outcome, Stage, Update
from genexp.models.boltzmann import RBMLayer, bernoulli
from genexp.models.samplers import ChainSampler, Transition
from genexp.noise import Corruption, unchanged
from genexp.ranges import Count, PositiveInt, Widths


class DBN(ChainSampler, Model):
    """A directed network whose top two layers are an RBM: p(x, h_1 ... h_K) = p(x | h_1) ... p(h_{K−1}, h_K).

    The lower layers learn by contrastive divergence on the means of the layer below, and the top RBM by persistent
    chains on draws of these means. Images in [0, 1] are taken as probabilities.
    """

    sampler_settings = (*ChainSampler.sampler_settings, "decoded", "sample_kind")

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: Widths,
        pretrain_epochs: PositiveInt,
        cd_steps: PositiveInt,
        persistent_chains: PositiveInt,
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        decoded: Literal["draw", "mean"],
        sample_kind: Literal["draw", "mean"],
    ) -> None:
        super().__init__()
        if noise is not unchanged:
            raise UsageError("model=dbn learns from images without noise: leave out noise")
        if len(hidden) < 2:
            raise UsageError("model=dbn has two layers or more; model=rbm has one")
        if data.points:
            raise UsageError("model=dbn takes values as shades of grey, and this data set has points")
        self.shape, self.pretrain_epochs, self.cd_steps = data.shape, pretrain_epochs, cd_steps
        self.chains, self.burn_in, self.thinning = chains, burn_in, thinning
        self.decoded, self.sample_kind = decoded, sample_kind
        first, *upper = pairwise([data.size, *hidden])
        self.stack = [RBMLayer(*first, mean=data.pixel_mean.flatten()), *(RBMLayer(*widths) for widths in upper)]
        self.layers = nn.ModuleList(self.stack)
        self.persistent: Tensor
        self.register_buffer("persistent", torch.zeros(persistent_chains, hidden[-1]))

    @property
    def top(self) -> RBMLayer:
        return self.stack[-1]

    def players(self) -> dict[str, nn.Module]:
        return {f"layer_{number}": layer for number, layer in enumerate(self.stack, 1)}

    def stages(self) -> list[Stage]:
        stages = [Stage("layer 1", [Update(("layer_1",), self.play_images)], self.pretrain_epochs)]
        for number in range(2, len(self.stack) + 1):
            update = Update((f"layer_{number}",), partial(self.play_layer, number))
            codes, begin = partial(self.encode, layers=number - 1), partial(self.begin, number)
            stages.append(Stage(f"layer {number}", [update], self.pretrain_epochs, codes, begin))
        return [*stages[:-1], replace(stages[-1], epochs=None)]

    def begin(self, number: int, codes: Tensor) -> None:
        """Set the visible biases of a layer to the means of its input, and persistent chains to codes of it."""
        layer = self.stack[number - 1]
        layer.visible_bias.data.copy_(layer.bias_for(codes.mean(0)))
        if layer is self.top:
            rows = torch.arange(len(self.persistent)) % len(codes)
            self.persistent.copy_(layer.draw_hidden(bernoulli(codes[rows])))

    def play_images(self, images: Tensor) -> Outcome:
        return self.play_layer(1, images.flatten(1))

    def play_layer(self, number: int, codes: Tensor) -> Outcome:
        """Return the contrastive loss of a layer on its input, (n, inputs) in [0, 1].

        A lower layer's chain begins at the input, and its last visible units are means. The chains of the top RBM are
        persistent, and its data are draws of the input.
        """
        layer = self.stack[number - 1]
        if layer is not self.top:
            return Outcome({f"layer_{number}": layer.contrast(codes, steps=self.cd_steps, end="mean")[0]}, {})
        loss, hidden = layer.contrast(bernoulli(codes), self.persistent, steps=self.cd_steps)
        self.persistent.copy_(hidden)
        return Outcome({f"layer_{number}": loss}, {})

    def encode(self, images: Tensor, layers: int | None = None) -> Tensor:
        """Return the means, (n, units), of the last layer, or of the layer of the given number; upwards by means."""
        codes = images.flatten(1)
        for layer in self.stack[:layers]:
            codes = layer.hidden_means(codes)
        return codes

    def decode_below(self, codes: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], of the top RBM's visible units (n, units), by means."""
        for layer in reversed(self.stack[:-1]):
            codes = layer.visible_means(codes)
        return codes.view(-1, *self.shape)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images of codes: up to the top layer and down again, by means."""
        return self.decode_below(self.top.visible_means(self.encode(images)))

    def filters(self) -> dict[str, Tensor]:
        """Return the weights of each layer in pixels: those of an upper layer weigh the filters of the layer below."""
        filters, below = {}, None
        for number, layer in enumerate(self.stack, 1):
            weight = layer.weight.detach()
            below = weight if below is None else weight @ below
            filters[f"layer_{number}"] = below
        return filters

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Tensor, Transition]:
        """Return Gibbs sampling in the top RBM, begun at draws of the codes of images.

        A sample goes down by means, from the means of the top RBM's visible units given its hidden ones, or from draws.
        """
        top = self.top

        def step(state: Tensor) -> tuple[Tensor, Tensor]:
            means = top.visible_means(top.draw_hidden(state, generator))
            drawn = bernoulli(means, generator)
            samples = self.decode_below({"mean": means, "draw": drawn}[self.decoded])
            return drawn, samples if self.sample_kind == "mean" else bernoulli(samples, generator)

        return bernoulli(self.encode(images, len(self.stack) - 1), generator), step
