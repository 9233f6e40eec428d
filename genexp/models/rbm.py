"""Restricted Boltzmann machines (Hinton 2002), trained by contrastive divergence or with persistent chains."""

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from genexp.data import DataSet, DataSpec
from genexp.models import Autoencoder, Outcome, Update
from genexp.models.boltzmann import RBMLayer, bernoulli, refuse_unsuitable
from genexp.models.samplers import CHUNK, markov_chain, training_images
from genexp.noise import Corruption
from genexp.ranges import Count, PositiveInt


class RBM(Autoencoder):
    """p(v) = exp(−F(v)) / Z with binary hidden units; codes are p(h=1 | v), and a reconstruction is E[v | h = code].

    Bernoulli visible units take grey values as probabilities of white. Gaussian ones have the variance of all training
    pixels around their common mean; their density is one of pixels in [0, 1].
    """

    base: Tensor  # the visible bias with which units without hidden ones have the means of the training images
    persistent_states: Tensor | None  # the hidden states, (persistent_chains, hidden), that training goes on with

    log_likelihood = "exact"  # up to log Z, for metric=ais
    sampler_settings = ("chains", "burn_in", "thinning", "chain_start", "sample_kind")

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
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        chain_start: Literal["images", "base_rates"],
        sample_kind: Literal["draw", "mean"],
    ) -> None:
        super().__init__()
        refuse_unsuitable("rbm", data, noise, visible)
        self.noise, self.shape = noise, data.shape
        self.gibbs_steps, self.chain_end = gibbs_steps, chain_end
        self.chains, self.burn_in, self.thinning = chains, burn_in, thinning
        self.chain_start, self.sample_kind = chain_start, sample_kind
        self.scale = data.pixel_std if visible == "gaussian" else 1.0  # of one visible unit, in pixel values
        self.layer = RBMLayer(data.size, hidden, visible, data.pixel_mean.flatten() / self.scale)
        self.register_buffer("base", self.layer.visible_bias.detach().clone(), persistent=False)
        states = torch.zeros(persistent_chains, hidden) if persistent_chains else None
        self.register_buffer("persistent_states", states)

    def players(self) -> dict[str, nn.Module]:
        return {"rbm": self.layer}

    def updates(self) -> list[Update]:
        return [Update(("rbm",), self.play)]

    def play(self, images: Tensor) -> Outcome:
        """Return the mean F(images) − mean F(chain): CD-k, or PCD-k with `persistent_chains`."""
        v = self.visible_values(images)
        loss, states = self.layer.contrast(v, self.persistent_states, steps=self.gibbs_steps, end=self.chain_end)
        if self.persistent_states is not None:
            self.persistent_states = states
        return Outcome({"rbm": loss}, {})

    def visible_values(self, images: Tensor) -> Tensor:
        """Return the images, or points, as visible values, (n, inputs)."""
        return images.flatten(1) / self.scale

    def images_of(self, v: Tensor) -> Tensor:
        """Return visible values as images in [0, 1], (n, C, H, W)."""
        return (v * self.scale).clamp(0, 1).view(-1, *self.shape)

    def encode(self, images: Tensor) -> Tensor:
        return self.layer.hidden_means(self.visible_values(images))

    def decode(self, codes: Tensor) -> Tensor:
        return self.images_of(self.layer.visible_means(codes))

    def filters(self) -> dict[str, Tensor]:
        return {"hidden": self.layer.weight.detach()}

    def watch(self, data: DataSet, generator: torch.Generator) -> dict[str, float]:
        """Return means over CHUNK images, in nats: the free energy of training and of validation images, and more.

        When the first falls below the second the model learns single training images (Hinton 2010, section 6). The
        reconstruction error is −log p(v | h) with a draw of h, without its constant for Gaussian units. The
        pseudo-likelihood, of binary units only, is an estimate from one pixel of each image, drawn at random.
        """
        splits = {"train": data.images("train", slice(CHUNK)), "valid": data.images("valid", slice(CHUNK))}
        v = {split: self.visible_values(images) for split, images in splits.items()}
        means = self.layer.visible_means(self.layer.draw_hidden(v["valid"], generator))
        watched = {f"free_energy/{split}": self.layer.free_energy(values).mean() for split, values in v.items()}
        if self.layer.visible == "bernoulli":
            watched["reconstruction"] = binary_cross_entropy(means, v["valid"], reduction="sum") / len(means)
            watched["pseudo_likelihood"] = self.pseudo_likelihood(bernoulli(v["valid"], generator), generator).mean()
        else:
            watched["reconstruction"] = 0.5 * (means - v["valid"]).square().sum(1).mean()
        return {name: value.item() for name, value in watched.items()}

    def pseudo_likelihood(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Return Σ_i log p(v_i | all other v) of binary v, (n,), estimated without bias from one random i each."""
        rows = torch.arange(len(v), device=v.device)
        units = torch.randint(v.shape[1], (len(v),), generator=generator, device=v.device)
        flipped = v.clone()
        flipped[rows, units] = 1 - v[rows, units]
        gap = self.layer.free_energy(flipped) - self.layer.free_energy(v)
        return v.shape[1] * nn.functional.logsigmoid(gap)

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n samples of block Gibbs chains begun at training images, or at the base rates of pixels."""
        start = self.begin_chains(min(self.chains, n), generator, data)
        step = partial(self.next_states, generator=generator)
        return markov_chain(step, start, n, burn_in=self.burn_in, thinning=self.thinning)

    def begin_chains(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return the first states of n chains, visible values (n, inputs)."""
        if self.chain_start == "images":
            return self.visible_values(training_images(data, n, generator))
        return self.layer.draw_field(self.base.expand(n, -1), generator)

    def next_states(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the next states, v ~ p(v | h) with h ~ p(h | state), and the samples (n, C, H, W), v or E[v | h]."""
        h = self.layer.draw_hidden(state, generator)
        field = self.layer.visible_field(h)
        following = self.layer.draw_field(field, generator)
        return following, self.images_of(following if self.sample_kind == "draw" else self.layer.field_means(field))

    # What metric=ais needs: genexp.metrics.ais.HasPartition.

    def machine(self) -> RBMLayer:
        return self.layer

    def base_rates(self) -> tuple[Tensor, Tensor]:
        """Return the biases of the base-rate model (Salakhutdinov and Murray 2008): the data's base rates, and 0."""
        return self.base, torch.zeros_like(self.layer.hidden_bias)

    def log_unnormalized(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return log p(x) + log Z of each image, (n,), in nats. Grey images are drawn as binary ones."""
        v = self.visible_values(images)
        if self.layer.visible == "bernoulli":
            v = bernoulli(v, generator)
        return -self.layer.free_energy(v) - math.log(self.scale) * v.shape[1]
