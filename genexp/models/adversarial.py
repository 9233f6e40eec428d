"""The adversarial game (Goodfellow et al. 2014), whatever its two networks are."""

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
    """A generator G against a discriminator D, which sees data and samples through `noise` (instance noise).

    A subclass makes `generator`, codes (n, latent_dim) -> images in [0, 1], and `discriminator`, images -> logits
    (n,), of which both begin or end with the layer of `ranges`.
    """

    sample_kind = "draw"
    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, noise: Corruption, **game: Unpack[Game]) -> None:
        super().__init__()
        self.noise, self.prior, self.latent_dim = noise, game["prior"], game["latent_dim"]
        self.simultaneous, self.k = game["updates"] == "simultaneous", game["discriminator_steps"]
        self.saturating = game["generator_loss"] == "minimax"

    def players(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    def updates(self) -> list[Update]:
        if not self.simultaneous:
            return [
                Update(("discriminator",), self.play_discriminator, repeats=self.k),
                Update(("generator",), self.play_generator),
            ]
        together = Update(("discriminator", "generator"), self.play_both)
        if self.k == 1:
            return [together]
        return [Update(("discriminator",), self.play_discriminator, repeats=self.k - 1), together]

    def play_both(self, images: Tensor) -> Outcome:
        """Both losses from one forward pass, through the same discriminator, as the published code."""
        on_data, on_samples = self.judge(images, self.generate(len(images)))
        outcome = self.discriminator_outcome(on_data, on_samples)
        outcome.losses["generator"] = self.generator_loss(on_samples)
        return outcome

    def play_discriminator(self, images: Tensor) -> Outcome:
        with torch.no_grad():
            samples = self.generate(len(images))
        return self.discriminator_outcome(*self.judge(images, samples))

    def play_generator(self, images: Tensor) -> Outcome:
        return Outcome({"generator": self.generator_loss(self.logits(self.generate(len(images))))}, {})

    def generate(self, n: int) -> Tensor:
        """n samples G(z) with z from the prior, (n, C, H, W)."""
        samples: Tensor = self.generator(self.draw_codes(n))
        return samples

    def logits(self, images: Tensor) -> Tensor:
        """log D/(1 − D) of each image, (n,) float32."""
        logits: Tensor = self.discriminator(self.noise(images))
        return logits.float()

    def judge(self, images: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The logits on data and on samples, in one pass."""
        logits = self.logits(torch.cat([images, samples]))
        return logits[: len(images)], logits[len(images) :]

    def discriminator_outcome(self, on_data: Tensor, on_samples: Tensor) -> Outcome:
        """½ E[−log D(x)] + ½ E[−log(1 − D(G(z)))], the ½ as in the published code; log 2 at equilibrium."""
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
        """E[−log D(G(z))], or E[log(1 − D(G(z)))] for minimax (sections 3 and 4.1 of the paper)."""
        return -softplus(on_samples).mean() if self.saturating else softplus(-on_samples).mean()

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Outputs of the generator itself, "not conditional means given samples of hidden units"."""
        return ancestral(self.decode, self.draw_codes(n, generator))

    def draw_codes(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n codes z from the prior, (n, latent_dim)."""
        return draw_prior(self.prior, n, self.latent_dim, self.device, generator)

    def decode(self, codes: Tensor) -> Tensor:
        """G(z)"""
        images: Tensor = self.generator(codes)
        return images.clamp(0, 1)


def ranges(output: Literal["sigmoid", "tanh", "linear"], data: DataSpec) -> tuple[nn.Sequential, nn.Sequential, Tensor]:
    """How the generator's last layer becomes an image in [0, 1], and how the discriminator is shown images.

    sigmoid works in [0, 1], tanh in [−1, 1], linear on data of mean 0 and standard deviation 1 over all pixels. The
    third result is what the last layer has to give for the mean training image.
    """
    mean = data.pixel_mean.flatten()
    logit = mean.logit(eps=BLACK if output == "tanh" else 1e-7)  # 1e-7 as in the published code of the sigmoid
    if output == "sigmoid":
        return nn.Sequential(nn.Sigmoid()), nn.Sequential(), logit
    if output == "tanh":
        return nn.Sequential(nn.Tanh(), Affine(0.5, 0.5)), nn.Sequential(Affine(2, -1)), 0.5 * logit
    std, middle = data.pixel_std, mean.mean().item()
    to_unit, from_unit = Affine(std, middle), Affine(1 / std, -middle / std)
    return nn.Sequential(to_unit), nn.Sequential(from_unit), (mean - middle) / std
