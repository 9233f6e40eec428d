"""Generative adversarial nets (Goodfellow et al. 2014), fully connected."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genexp.data import DataSpec
from genexp.models import Model, Outcome, Update
from genexp.models.layers import Dropout, Maxout, uniform_weights
from genexp.noise import Corruption, draw_prior
from genexp.ranges import Fraction, PositiveFloat, PositiveInt, Widths
from genexp.samplers import ancestral


class GAN(Model):
    """A generator with ReLU units and sigmoid outputs against a discriminator with maxout units and dropout.

    `noise` corrupts what the discriminator sees, data and samples alike (instance noise).
    """

    sample_kind = "draw"

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        latent_dim: PositiveInt,
        prior: Literal["uniform", "gaussian", "spherical"],
        generator_hidden: Widths,
        generator_init: PositiveFloat,
        generator_bias: Literal["pixel_mean", "zero"],
        discriminator_hidden: Widths,
        discriminator_pieces: PositiveInt,
        discriminator_init: PositiveFloat,
        dropout_input: Fraction,
        dropout_hidden: Fraction,
        updates: Literal["simultaneous", "alternating"],
        discriminator_steps: PositiveInt,
        generator_loss: Literal["minimax", "non_saturating"],
    ) -> None:
        super().__init__()
        self.noise, self.prior, self.latent_dim = noise, prior, latent_dim
        self.simultaneous, self.k = updates == "simultaneous", discriminator_steps
        self.saturating = generator_loss == "minimax"

        layers: list[nn.Module] = []
        for inputs, units in pairwise([latent_dim, *generator_hidden]):
            layers += [nn.Linear(inputs, units), nn.ReLU()]
        output = nn.Linear(generator_hidden[-1], data.size)
        self.generator = nn.Sequential(*layers, output, nn.Sigmoid(), nn.Unflatten(1, data.shape))
        uniform_weights(self.generator, generator_init)
        if generator_bias == "pixel_mean":
            output.bias.data.copy_(data.pixel_mean.flatten().logit(eps=1e-7))

        layers = [nn.Flatten(), Dropout(dropout_input)]
        for inputs, units in pairwise([data.size, *discriminator_hidden]):
            layers += [Maxout(inputs, units, discriminator_pieces), Dropout(dropout_hidden)]
        self.discriminator = nn.Sequential(*layers, nn.Linear(discriminator_hidden[-1], 1), nn.Flatten(0))
        uniform_weights(self.discriminator, discriminator_init)

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
        """Both losses from one forward pass, through the same dropped-out discriminator, as the published code."""
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
        """n samples G(z) with z from the prior, (n, C, H, W) in [0, 1]."""
        samples: Tensor = self.generator(draw_prior(self.prior, n, self.latent_dim, self.device))
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

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Outputs of the generator itself, "not conditional means given samples of hidden units"."""
        return ancestral(
            self.generator,
            lambda count: draw_prior(self.prior, count, self.latent_dim, self.device, generator),
            n,
        )
