"""Generative adversarial nets (Goodfellow et al. 2014), fully connected."""

from itertools import pairwise
from typing import Literal, Unpack

from torch import nn

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models.adversarial import AdversarialNets, Game, ranges
from genexp.models.layers import UNITS, Dropout, Maxout, uniform_weights
from genexp.noise import Corruption
from genexp.ranges import Fraction, PositiveFloat, PositiveInt, UnitsOfLayers, Widths


class GAN(AdversarialNets):
    """The networks of section 5 of the paper: a ReLU generator against a maxout discriminator with dropout."""

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        generator_hidden: Widths,
        generator_units: UnitsOfLayers,
        generator_init: PositiveFloat,
        generator_output_init: PositiveFloat,
        generator_bias: Literal["pixel_mean", "zero"],
        discriminator_hidden: Widths,
        discriminator_pieces: PositiveInt,
        discriminator_init: PositiveFloat,
        dropout_input: Fraction,
        dropout_hidden: Fraction,
        **game: Unpack[Game],
    ) -> None:
        super().__init__(noise, **game)
        to_images, from_images, at_pixel_mean = ranges(game["generator_output"], data)
        units = generator_units * len(generator_hidden) if len(generator_units) == 1 else generator_units
        if len(units) != len(generator_hidden):
            raise UsageError(
                f"model.generator_units={generator_units} names {len(units)} layers, "
                f"but model.generator_hidden={generator_hidden} has {len(generator_hidden)}"
            )

        layers: list[nn.Module] = []
        for (inputs, outputs), kind in zip(pairwise([self.latent_dim, *generator_hidden]), units, strict=True):
            layers += [nn.Linear(inputs, outputs), UNITS[kind]()]
        output = nn.Linear(generator_hidden[-1], data.size)
        self.generator = nn.Sequential(*layers, output, *to_images, nn.Unflatten(1, data.shape))
        uniform_weights(self.generator[: len(layers)], generator_init)
        uniform_weights(output, generator_output_init)
        if generator_bias == "pixel_mean":
            output.bias.data.copy_(at_pixel_mean)

        layers = [*from_images, nn.Flatten(), Dropout(dropout_input)]
        for inputs, outputs in pairwise([data.size, *discriminator_hidden]):
            layers += [Maxout(inputs, outputs, discriminator_pieces), Dropout(dropout_hidden)]
        self.discriminator = nn.Sequential(*layers, nn.Linear(discriminator_hidden[-1], 1), nn.Flatten(0))
        uniform_weights(self.discriminator, discriminator_init)

    def first_layers(self) -> dict[str, nn.Linear]:
        maxout = next(layer for layer in self.discriminator.modules() if isinstance(layer, Maxout))
        return {"discriminator": maxout.linear}
