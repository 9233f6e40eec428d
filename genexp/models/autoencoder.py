"""The encoder, decoder and reconstruction error that the fully connected autoencoders share."""

from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models import Autoencoder
from genexp.models.layers import BLACK, UNITS, Transposed, fully_connected
from genexp.noise import Corruption
from genexp.ranges import HiddenWidths, PositiveInt, Units


class Architecture(TypedDict):
    """The settings that ae, dae and cae have in common."""

    hidden: HiddenWidths
    latent_dim: PositiveInt
    hidden_units: Units
    code_units: Units
    output_units: Literal["sigmoid", "linear"]
    tied: bool
    reconstruction: Literal["squared_error", "cross_entropy"]


class FullyConnectedAutoencoder(Autoencoder):
    """Encoder h = f(x) and decoder x̂ = g(h) with mirrored widths; `noise` corrupts the encoder's input.

    A tied decoder uses the encoder's weights, transposed. The output biases start at the mean training image.
    """

    def __init__(self, data: DataSpec, noise: Corruption, **architecture: Unpack[Architecture]) -> None:
        super().__init__()
        self.noise, self.shape, self.reconstruction = noise, data.shape, architecture["reconstruction"]
        output_units: Units = architecture["output_units"]
        if self.reconstruction == "cross_entropy" and output_units != "sigmoid":
            raise UsageError("model.reconstruction=cross_entropy needs model.output_units=sigmoid")
        if self.reconstruction == "cross_entropy" and data.points:
            raise UsageError("points of the plane are no shades of grey: set model.reconstruction=squared_error")

        widths = [data.size, *architecture["hidden"], architecture["latent_dim"]]
        hidden_units = [architecture["hidden_units"]] * len(architecture["hidden"])
        encoder = fully_connected(widths, [*hidden_units, architecture["code_units"]])
        if architecture["tied"]:
            mirrored = reversed(encoder[:-1])  # without the code's units
            layers = [Transposed(layer) if isinstance(layer, nn.Linear) else layer for layer in mirrored]
            decoder = nn.Sequential(*layers, UNITS["linear"]())
        else:
            decoder = fully_connected(widths[::-1], [*hidden_units, "linear"])
        mean = data.pixel_mean.flatten()
        output: Transposed | nn.Linear = decoder[-2]  # type: ignore[assignment]
        output.bias.data.copy_(mean.logit(eps=BLACK) if output_units == "sigmoid" else mean)

        self.encoder = nn.Sequential(nn.Flatten(), encoder)
        self.decoder = decoder  # without the output units, so that cross-entropy is computed from logits
        self.output = UNITS[output_units]()

    def first_layers(self) -> dict[str, nn.Linear]:
        return {"encoder": self.encoder[1][0]}  # type: ignore[index]

    def encode(self, images: Tensor) -> Tensor:
        codes: Tensor = self.encoder(images)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        return torch.unflatten(self.output(self.decoder(codes)), 1, self.shape)

    def reconstruction_error(self, codes: Tensor, images: Tensor) -> Tensor:
        """Return the mean ½‖x − g(h)‖², or cross-entropy −Σ x log g(h) + (1 − x) log(1 − g(h)), per image in nats."""
        preactivations, x = self.decoder(codes).float(), images.flatten(1)
        if self.reconstruction == "cross_entropy":
            return binary_cross_entropy_with_logits(preactivations, x, reduction="sum") / len(x)
        return 0.5 * torch.square(x - self.output(preactivations)).sum() / len(x)

    def draw_given(self, mean: Tensor, variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw x ~ P(X | h): Bernoulli under cross-entropy, Gaussian with this variance under squared error."""
        if self.reconstruction == "cross_entropy":
            return torch.bernoulli(mean, generator=generator)
        return mean + variance.sqrt() * torch.randn_like(mean, generator=generator)
