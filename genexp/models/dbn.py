"""Deep belief networks (Hinton, Osindero and Teh 2006), trained layer by layer as restricted Boltzmann machines."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models import Outcome, Stage, Update
from genexp.models.boltzmann import RBMLayer, bernoulli
from genexp.models.layers import stacked_filters
from genexp.models.undirected import Chains, UndirectedModel
from genexp.noise import Corruption
from genexp.ranges import PositiveInt, Widths


class DBN(UndirectedModel):
    """A directed network whose top two layers are an RBM: p(x, h¹ … h^K) = p(x | h¹) … p(h^(K−1), h^K).

    The lower layers learn by contrastive divergence on the means of the layer below, and the top RBM by persistent
    chains on draws of these means.
    """

    sampler_settings = (*UndirectedModel.sampler_settings, "decoded")
    log_likelihood = "lower bound"
    persistent_states: (
        Tensor  # the hidden states, (persistent_chains, units), with which the top RBM's training goes on
    )

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: Widths,
        pretrain_epochs: PositiveInt,
        gibbs_steps: PositiveInt,
        persistent_chains: PositiveInt,
        decoded: Literal["draw", "mean"],
        **sampler: Unpack[Chains],
    ) -> None:
        if len(hidden) < 2:
            raise UsageError("model=dbn has two layers or more; model=rbm has one")
        super().__init__("dbn", data, noise, "bernoulli", **sampler)
        self.pretrain_epochs, self.gibbs_steps, self.decoded = pretrain_epochs, gibbs_steps, decoded
        first, *upper = pairwise([data.size, *hidden])
        self.stack = [RBMLayer(*first, mean=self.mean), *(RBMLayer(*widths) for widths in upper)]
        self.layers = nn.ModuleList(self.stack)
        self.register_buffer("persistent_states", torch.zeros(persistent_chains, hidden[-1]))

    @property
    def top(self) -> RBMLayer:
        return self.stack[-1]

    @property
    def shareable(self) -> bool:
        return False

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
            rows = torch.arange(len(self.persistent_states), device=codes.device) % len(codes)
            self.persistent_states.copy_(layer.draw_hidden(bernoulli(codes[rows])))

    def play_images(self, images: Tensor) -> Outcome:
        return self.play_layer(1, images.flatten(1))

    def play_layer(self, number: int, codes: Tensor) -> Outcome:
        """Return the contrastive loss of a layer on its input, (n, inputs) in [0, 1].

        A lower layer's chain begins at the input, and its last visible units are means. The chains of the top RBM are
        persistent, and its data are draws of the input.
        """
        layer = self.stack[number - 1]
        if layer is not self.top:
            return Outcome({f"layer_{number}": layer.contrast(codes, steps=self.gibbs_steps, end="mean")[0]}, {})
        loss, states = layer.contrast(bernoulli(codes), self.persistent_states, steps=self.gibbs_steps)
        self.persistent_states.copy_(states)
        return Outcome({f"layer_{number}": loss}, {})

    def encode(self, images: Tensor, layers: int | None = None) -> Tensor:
        """Return the means, (n, units), of the last layer, or of the layer of the given number; upwards by means."""
        codes = images.flatten(1)
        for layer in self.stack[:layers]:
            codes = layer.hidden_means(codes)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        return self.decode_below(self.top.visible_means(codes))

    def decode_below(self, codes: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], of the top RBM's visible units (n, units), by means."""
        for layer in reversed(self.stack[:-1]):
            codes = layer.visible_means(codes)
        return self.images_of(codes)

    def filters(self) -> dict[str, Tensor]:
        return stacked_filters([layer.weight for layer in self.stack])

    def first_states(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Return draws of the top RBM's visible units, given the means below them."""
        return bernoulli(self.encode(v, len(self.stack) - 1), generator)

    def next_states(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the top RBM's visible units after a Gibbs step, and their images: downwards by means.

        A sample goes down from the units' means given the hidden ones, or with `decoded` "draw" from their draws.
        """
        means = self.top.visible_means(self.top.draw_hidden(state, generator))
        drawn = bernoulli(means, generator)
        images = self.decode_below(means if self.decoded == "mean" else drawn)
        return drawn, images if self.sample_kind == "mean" else bernoulli(images, generator)

    def machine(self) -> RBMLayer:
        return self.top

    def base_rates(self) -> tuple[Tensor, Tensor]:
        """Return the top RBM's visible bias, and 0."""
        return self.top.visible_bias.detach(), torch.zeros_like(self.top.hidden_bias)

    def log_unnormalized(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return an unbiased estimate of the bound E_q[log p(x | h¹) … − F(h^(K−1)) − log q(h | x)] (section 6.1).

        q goes upwards layer by layer; each layer is drawn once. F is the top RBM's free energy.
        """
        x = bernoulli(self.visible_values(images), generator)
        total = torch.zeros(len(x), device=x.device)
        for layer in self.stack[:-1]:
            logits = layer.hidden_logits(x)
            h = bernoulli(logits.sigmoid(), generator)
            log_q = -binary_cross_entropy_with_logits(logits, h, reduction="none").sum(1)
            log_p = -binary_cross_entropy_with_logits(layer.visible_field(h), x, reduction="none").sum(1)
            total, x = total + log_p - log_q, h
        return total - self.top.free_energy(x)
