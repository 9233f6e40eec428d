"""Generative adversarial nets (Goodfellow et al. 2014), fully connected."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Unpack

from torch import nn

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models.adversarial import AdversarialNets, Game, ranges
from genexp.models.layers import UNITS, Dropout, Maxout, sparse_weights, uniform_weights
from genexp.noise import Corruption
from genexp.ranges import AsBefore, Fraction, Number, PositiveFloat, PositiveInt, Units, UnitsOfLayers, Widths
from genexp.text import count


class Networks(Game):
    """The settings of a fully connected generator and discriminator, beside those of their game."""

    generator_hidden: Widths
    generator_units: UnitsOfLayers
    generator_init: PositiveFloat
    generator_sigmoid_bias: Annotated[Number, AsBefore(0.0)]
    generator_output_init: PositiveFloat
    generator_output_sparse: Annotated[PositiveInt | None, AsBefore(None)]
    generator_bias: Literal["pixel_mean", "zero"]
    discriminator_hidden: Widths
    discriminator_pieces: PositiveInt
    discriminator_init: PositiveFloat
    dropout_input: Fraction
    dropout_hidden: Fraction


class GAN(AdversarialNets):
    """The networks of section 5 of the paper: a ReLU generator against a maxout discriminator with dropout.

    Each hidden sigmoid unit of the generator begins with the bias `generator_sigmoid_bias`. With
    `generator_output_sparse`, each output unit begins with so many incoming weights from N(0, 1) and the others at 0.
    """

    def __init__(self, data: DataSpec, noise: Corruption, **networks: Unpack[Networks]) -> None:
        super().__init__(noise, **game_of(networks))
        to_images, from_images, at_pixel_mean = ranges(networks["generator_output"], data)
        widths = networks["generator_hidden"]
        hidden = hidden_layers("generator", [self.latent_dim, *widths], networks["generator_units"])
        output = nn.Linear(widths[-1], data.size)
        self.generator = nn.Sequential(*hidden, output, *to_images, nn.Unflatten(1, data.shape))
        initialize(hidden, networks)
        sparse = networks.get("generator_output_sparse")
        if sparse is None:
            uniform_weights(output, networks["generator_output_init"])
        elif sparse <= widths[-1]:
            sparse_weights(output, sparse)
        else:
            raise UsageError(
                f"model.generator_output_sparse={sparse} is more than the {widths[-1]} units below the output layer"
            )
        if networks["generator_bias"] == "pixel_mean":
            output.bias.data.copy_(at_pixel_mean)
        self.discriminator = maxout_discriminator(data, from_images, networks)

    def first_layers(self) -> dict[str, nn.Linear]:
        return {"discriminator": first_maxout(self.discriminator)}


def game_of(networks: Networks) -> Game:
    """Return the settings of the game alone."""
    return Game(
        latent_dim=networks["latent_dim"],
        prior=networks["prior"],
        generator_output=networks["generator_output"],
        updates=networks["updates"],
        discriminator_steps=networks["discriminator_steps"],
        generator_loss=networks["generator_loss"],
    )


def hidden_layers(name: str, widths: Sequence[int], units: Sequence[Units]) -> nn.Sequential:
    """Return linear layers from each width to the next, each followed by its units, which may be given once for all.

    Raises UsageError, which speaks of the settings model.NAME_units and model.NAME_hidden, if their numbers differ.
    """
    kinds = [*units] * (len(widths) - 1) if len(units) == 1 else units
    if len(kinds) != len(widths) - 1:
        raise UsageError(
            f"model.{name}_units={units} names {count(len(units), 'layer')}, "
            f"but model.{name}_hidden={list(widths[1:])} has {len(widths) - 1}"
        )
    layers: list[nn.Module] = []
    for (inputs, outputs), kind in zip(pairwise(widths), kinds, strict=True):
        layers += [nn.Linear(inputs, outputs), UNITS[kind]()]
    return nn.Sequential(*layers)


def initialize(hidden: nn.Sequential, networks: Networks) -> None:
    """Draw the weights of a generator's hidden layers, and set their biases: those of sigmoid units, and 0."""
    uniform_weights(hidden, networks["generator_init"])
    for layer, units in pairwise(hidden):
        if isinstance(layer, nn.Linear) and isinstance(units, nn.Sigmoid):
            nn.init.constant_(layer.bias, networks.get("generator_sigmoid_bias", 0.0))


def maxout_discriminator(data: DataSpec, from_images: nn.Sequential, networks: Networks) -> nn.Sequential:
    """Return a discriminator, images -> logits (n,), at the start of training."""
    layers: list[nn.Module] = [*from_images, nn.Flatten(), Dropout(networks["dropout_input"])]
    widths, pieces = networks["discriminator_hidden"], networks["discriminator_pieces"]
    for inputs, outputs in pairwise([data.size, *widths]):
        layers += [Maxout(inputs, outputs, pieces), Dropout(networks["dropout_hidden"])]
    discriminator = nn.Sequential(*layers, nn.Linear(widths[-1], 1), nn.Flatten(0))
    uniform_weights(discriminator, networks["discriminator_init"])
    return discriminator


def first_maxout(discriminator: nn.Module) -> nn.Linear:
    """Return the layer of a maxout discriminator that receives images."""
    return next(layer.linear for layer in discriminator.modules() if isinstance(layer, Maxout))
