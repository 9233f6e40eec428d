"""Deep generative stochastic networks (Bengio et al. 2014), trained by walkback."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Model, Outcome, Update
from genexp.models.layers import GAINS, UNITS
from genexp.models.samplers import ChainSampler, Transition, training_images
from genexp.noise import Corruption
from genexp.ranges import Count, NonNegativeFloats, PositiveInt, Units, Widths
from genexp.text import count

State = tuple[Tensor, list[Tensor]]  # images x, and the hidden layers h_1 ... h_K, which begin at 0


class GSN(ChainSampler, Model):
    """A Markov chain of images and hidden layers whose stationary distribution learns to be the data's.

    A step corrupts the image x, updates the odd hidden layers from their neighbours, then the even ones, and draws the
    next x from P(x | h_1). Weights are tied: W_l leads up from layer l − 1 to l, and its transpose down.
    """

    sampler_settings = (*ChainSampler.sampler_settings, "chain_state", "sample_kind", "start", "keep_start")

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: Widths,
        units: Units,
        noise_before: NonNegativeFloats,
        noise_after: NonNegativeFloats,
        walkback_steps: PositiveInt,
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        chain_state: Literal["draw", "mean"],
        sample_kind: Literal["draw", "mean"],
        start: Literal["training_images", "first_test_image"],
        keep_start: bool,
    ) -> None:
        super().__init__()
        if data.points:
            raise UsageError("model=gsn takes values as shades of grey, and this data set has points")
        for name, stds in (("noise_before", noise_before), ("noise_after", noise_after)):
            if len(stds) != len(hidden):
                raise UsageError(
                    f"model.{name}={stds} is of {count(len(stds), 'layer')}, but "
                    f"model.hidden={hidden} has {len(hidden)}\n"
                    f"Give the noise of each layer, as in model.hidden=[500,500] model.{name}=[0,2]"
                )
        self.noise, self.shape, self.walkback_steps = noise, data.shape, walkback_steps
        self.noise_before, self.noise_after = noise_before, noise_after
        self.chains, self.burn_in, self.thinning = chains, burn_in, thinning
        self.chain_state, self.sample_kind, self.start, self.keep_start = chain_state, sample_kind, start, keep_start
        self.units = UNITS[units]()
        self.layers = nn.ModuleList(nn.Linear(*widths) for widths in pairwise([data.size, *hidden]))
        self.up: list[nn.Linear] = list(self.layers)  # type: ignore[arg-type]
        self.visible_bias = nn.Parameter(torch.zeros(data.size))
        for layer in self.up:
            nn.init.xavier_uniform_(layer.weight, GAINS[units])
            nn.init.zeros_(layer.bias)

    def players(self) -> dict[str, nn.Module]:
        return {"gsn": self}

    def updates(self) -> list[Update]:
        return [Update(("gsn",), self.play, validates=True)]

    def play(self, images: Tensor) -> Outcome:
        """Return the mean of −log P(x | h_1), in nats, over the steps of a chain that begins at the images x.

        Each step of the chain is trained to return to x (walkback), so the chain learns to correct its own errors.
        """
        x = images.flatten(1)
        state = self.first_state(x)
        errors = []
        for _ in range(self.walkback_steps):
            logits, hidden = self.step(state)
            errors.append(binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x))
            state = torch.bernoulli(logits.detach().sigmoid()), hidden
        return Outcome({"gsn": torch.stack(errors).mean()}, {"last_step": errors[-1].detach()})

    def first_state(self, x: Tensor) -> State:
        """Return the state of chains that begin at images, (n, C·H·W)."""
        return x, [x.new_zeros(len(x), layer.out_features) for layer in self.up]

    def step(self, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of P(x | h_1), (n, C·H·W) float32, and the hidden layers after one step of the chain."""
        x, hidden = state
        layers = [self.noise(x, generator), *hidden]
        for first in (1, 2):  # the odd layers, then the even ones
            for number in range(first, len(layers), 2):
                layers[number] = self.activate(number, layers, generator)
        return self.down(layers[1]), layers[1:]

    def activate(self, number: int, layers: list[Tensor], generator: torch.Generator | None) -> Tensor:
        """Return h_l = s(W_l h_{l−1} + W_{l+1}ᵀ h_{l+1} + b_l + noise) + noise, for the layer l = `number`."""
        a: Tensor = self.up[number - 1](layers[number - 1])
        if number < len(self.up):
            a = a + linear(layers[number + 1], self.up[number].weight.T)
        before, after = self.noise_before[number - 1], self.noise_after[number - 1]
        h: Tensor = self.units(a + before * torch.randn_like(a, generator=generator) if before else a)
        return h + after * torch.randn_like(h, generator=generator) if after else h

    def down(self, h: Tensor) -> Tensor:
        """Return the logits of the pixels, (n, C·H·W) float32, given the first hidden layer."""
        return linear(h, self.up[0].weight.T, self.visible_bias).float()

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the means of P(x | h_1) with h_1 = s(W_1 x + b_1): up to the first layer and down, without noise."""
        return self.down(self.units(self.up[0](images.flatten(1)))).sigmoid().view(-1, *self.shape)

    def first_layers(self) -> dict[str, nn.Linear]:
        return {"layer_1": self.up[0]}

    def starts(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return training images, or the first test image, where the published script begins its one chain."""
        if self.start == "first_test_image":
            return data.images("test", slice(0, 1))
        return training_images(data, min(self.chains, n), generator)

    def walk(self, images: Tensor, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n samples; with `keep_start` the first ones are the images at which the chains begin."""
        samples = super().walk(images, n, generator, data)
        return torch.cat([images, samples])[:n] if self.keep_start else samples

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[State, Transition]:
        """Return the chain of training, with its noise."""

        def step(state: State) -> tuple[State, Tensor]:
            logits, hidden = self.step(state, generator)
            mean = logits.sigmoid()
            drawn = torch.bernoulli(mean, generator=generator)
            kinds = {"mean": mean, "draw": drawn}
            return (kinds[self.chain_state], hidden), kinds[self.sample_kind].view(-1, *self.shape)

        return self.first_state(images.flatten(1)), step
