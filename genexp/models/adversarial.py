"""The adversarial game (Goodfellow et al. 2014), for any two networks."""

from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genexp.data import DataSet, DataSpec
from genexp.models import Model, Outcome, Update
from genexp.models.layers import BLACK, Affine
from genexp.models.samplers import ancestral
from genexp.noise import Corruption, draw_prior
from genexp.ranges import PositiveInt


class Game(TypedDict):
    """The settings that all adversarial models have in common."""

    latent_dim: PositiveInt
    prior: Literal["uniform", "gaussian", "spherical"]
    generator_output: Literal["sigmoid", "tanh", "linear"]
    updates: Literal["simultaneous", "alternating"]
    discriminator_steps: PositiveInt
    generator_loss: Literal["minimax", "non_saturating"]


class AdversarialNets(Model):
    """A generator G plays against a discriminator D, which receives data and samples with `noise` (instance noise).

    A subclass sets `generator`, codes (n, latent_dim) -> images in [0, 1], and `discriminator`, images -> logits (n,).
    The function `ranges` makes the last layers of the former and the first layers of the latter.
    """

    sample_kind = "draw"
    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, noise: Corruption, **game: Unpack[Game]) -> None:
        super().__init__()
        self.noise, self.prior, self.latent_dim = noise, game["prior"], game["latent_dim"]
        self.discriminator_steps = game["discriminator_steps"]
        self.simultaneous, self.minimax = game["updates"] == "simultaneous", game["generator_loss"] == "minimax"

    def players(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    def updates(self) -> list[Update]:
        alone, last = self.discriminator_steps, Update(("generator",), self.play_generator)
        if self.simultaneous:
            alone, last = alone - 1, Update(("discriminator", "generator"), self.play_both)
        discriminator = Update(("discriminator",), self.play_discriminator, repeats=alone)
        return [discriminator, last] if alone else [last]

    def play_both(self, images: Tensor) -> Outcome:
        """Return both losses from one forward pass, through the same discriminator, as in the published code."""
        on_data, on_samples = self.judge(images, self.generate(self.draw_codes(len(images))))
        outcome = self.discriminator_outcome(on_data, on_samples)
        outcome.losses["generator"] = self.generator_loss(on_samples)
        return outcome

    def play_discriminator(self, images: Tensor) -> Outcome:
        with torch.no_grad():
            samples = self.generate(self.draw_codes(len(images)))
        return self.discriminator_outcome(*self.judge(images, samples))

    def play_generator(self, images: Tensor) -> Outcome:
        on_samples = self.logits(self.generate(self.draw_codes(len(images))))
        return Outcome({"generator": self.generator_loss(on_samples)}, {})

    def generate(self, codes: Tensor) -> Tensor:
        """Return the generator's output, (n, C, H, W), for codes (n, latent_dim)."""
        images: Tensor = self.generator(codes)
        return images

    def logits(self, images: Tensor) -> Tensor:
        """Return log D/(1 − D) of each image, (n,) float32."""
        logits: Tensor = self.discriminator(self.noise(images))
        return logits.float()

    def judge(self, images: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits on data and on samples, from one forward pass."""
        logits = self.logits(torch.cat([images, samples]))
        return logits[: len(images)], logits[len(images) :]

    def discriminator_outcome(self, on_data: Tensor, on_samples: Tensor) -> Outcome:
        """Return the loss ½ E[−log D(x)] + ½ E[−log(1 − D(G(z)))], ½ as in the published code; log 2 at equilibrium."""
        loss = 0.5 * (softplus(-on_data).mean() + softplus(on_samples).mean())
        with torch.no_grad():
            watched = {
                "D(x)": on_data.sigmoid().mean(),
                "D(G(z))": on_samples.sigmoid().mean(),
                "error_rate/data": (on_data < 0).float().mean(),
                "error_rate/samples": (on_samples > 0).float().mean(),
            }
        return Outcome({"discriminator": loss}, watched)

    def generator_loss(self, on_samples: Tensor) -> Tensor:
        """Return E[−log D(G(z))], or E[log(1 − D(G(z)))] for minimax (sections 3 and 4.1 of the paper)."""
        return -softplus(on_samples).mean() if self.minimax else softplus(-on_samples).mean()

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n outputs of the generator, which the paper calls "actual samples", not conditional means."""
        return ancestral(self.decode, self.draw_codes(n, generator))

    def draw_codes(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return draw_prior(self.prior, n, self.latent_dim, self.device, generator)

    def decode(self, codes: Tensor) -> Tensor:
        return torch.clamp(self.generate(codes), 0, 1)


def ranges(output: Literal["sigmoid", "tanh", "linear"], data: DataSpec) -> tuple[nn.Sequential, nn.Sequential, Tensor]:
    """Return output layers for the generator, input layers for the discriminator, and the mean image before the output.

    The layers convert between images in [0, 1] and the networks' range: [0, 1] for sigmoid, [−1, 1] for tanh, and mean
    0 and standard deviation 1 over all pixels for linear. The output layers map the third, (C·H·W,), to the mean image.
    """
    mean = data.pixel_mean.flatten()
    logit = mean.logit(eps=BLACK if output == "tanh" else 1e-7)  # 1e-7 as in the published code of the sigmoid
    if output == "sigmoid":
        return nn.Sequential(nn.Sigmoid()), nn.Sequential(), logit
    if output == "tanh":
        return nn.Sequential(nn.Tanh(), Affine(0.5, 0.5)), nn.Sequential(Affine(2, -1)), 0.5 * logit
    std, center = data.pixel_std, mean.mean().item()
    return nn.Sequential(Affine(std, center)), nn.Sequential(Affine(1 / std, -center / std)), (mean - center) / std
