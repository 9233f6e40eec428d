"""Restricted Boltzmann machines (Hinton 2002), trained by contrastive divergence or with persistent chains."""

import math
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from genexp.data import DataSet, DataSpec
from genexp.models import Outcome, Update
from genexp.models.boltzmann import RBMLayer, bernoulli
from genexp.models.samplers import CHUNK
from genexp.models.undirected import Chains, UndirectedModel
from genexp.noise import Corruption
from genexp.ranges import Count, PositiveInt


class RBM(UndirectedModel):
    """p(v) = exp(−F(v)) / Z with binary hidden units; codes are p(h=1 | v), and a reconstruction is E[v | h = code]."""

    persistent_states: Tensor | None  # the hidden states, (persistent_chains, hidden), that training goes on with

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        visible: Literal["bernoulli", "gaussian"],
        hidden: PositiveInt,
        gibbs_steps: PositiveInt,
        persistent_chains: Count,
        chain_end: Literal["draw", "mean"],
        **sampler: Unpack[Chains],
    ) -> None:
        super().__init__("rbm", data, noise, visible, **sampler)
        self.gibbs_steps, self.chain_end = gibbs_steps, chain_end
        self.layer = RBMLayer(data.size, hidden, visible, self.mean)
        states = torch.zeros(persistent_chains, hidden) if persistent_chains else None
        self.register_buffer("persistent_states", states)

    @property
    def shareable(self) -> bool:
        return self.persistent_states is None

    def players(self) -> dict[str, nn.Module]:
        return {"rbm": self.layer}

    def updates(self) -> list[Update]:
        return [Update(("rbm",), self.play)]

    def play(self, images: Tensor) -> Outcome:
        """Return the mean F(images) − mean F(chain): CD-k, or PCD-k with `persistent_chains`."""
        v = self.visible_values(images)
        loss, states = self.layer.contrast(v, self.persistent_states, steps=self.gibbs_steps, end=self.chain_end)
        if self.persistent_states is not None:
            self.persistent_states.copy_(states)
        return Outcome({"rbm": loss}, {})

    def encode(self, images: Tensor) -> Tensor:
        return self.layer.hidden_means(self.visible_values(images))

    def decode(self, codes: Tensor) -> Tensor:
        return self.images_of(self.layer.visible_means(codes))

    def filters(self) -> dict[str, Tensor]:
        return {"hidden": self.layer.weight.detach()}

    def first_states(self, v: Tensor, generator: torch.Generator) -> Tensor:
        return v

    def next_states(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return v ~ p(v | h) with h ~ p(h | state), and as images v or E[v | h]."""
        field = self.layer.visible_field(self.layer.draw_hidden(state, generator))
        v = self.layer.draw_field(field, generator)
        return v, self.images_of(v if self.sample_kind == "draw" else self.layer.field_means(field))

    def machine(self) -> RBMLayer:
        return self.layer

    def base_rates(self) -> tuple[Tensor, Tensor]:
        """Return the bias for the data's base rates, and 0 (Salakhutdinov and Murray 2008, section 4.1)."""
        return self.layer.bias_for(self.mean), torch.zeros_like(self.layer.hidden_bias)

    def log_unnormalized(self, images: Tensor, generator: torch.Generator) -> Tensor:
        v = self.visible_values(images)
        if self.visible == "bernoulli":
            v = bernoulli(v, generator)
        return -self.layer.free_energy(v) - math.log(self.scale) * v.shape[1]

    def watch(self, data: DataSet, generator: torch.Generator) -> dict[str, float]:
        """Return the curves of undirected models, and the pseudo-likelihood of CHUNK validation images, in nats."""
        watched = super().watch(data, generator)
        if self.visible == "bernoulli":
            v = bernoulli(self.visible_values(data.images("valid", slice(CHUNK))), generator)
            watched["pseudo_likelihood"] = self.pseudo_likelihood(v, generator).mean().item()
        return watched

    def pseudo_likelihood(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Return Σ_i log p(v_i | all other v) of binary v, (n,), estimated without bias from one random i each."""
        rows = torch.arange(len(v), device=v.device)
        units = torch.randint(v.shape[1], (len(v),), generator=generator, device=v.device)
        flipped = v.clone()
        flipped[rows, units] = 1 - v[rows, units]
        gap = self.layer.free_energy(flipped) - self.layer.free_energy(v)
        return v.shape[1] * nn.functional.logsigmoid(gap)
