"""Stacks of autoencoders with tied weights that are trained layer by layer, each on the codes of the layers below."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from torch import Tensor, nn

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models import Autoencoder, Outcome, Stage, Update
from genexp.models.layers import BLACK, Transposed, fully_connected, stacked_filters
from genexp.models.samplers import ChainSampler


class TiedLayer(nn.Module):
    """h = sigmoid(Wx + b) and x̂ = sigmoid(Wᵀh + c)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.encoder = fully_connected([inputs, units], ["sigmoid"])
        self.decoder = Transposed(self.linear)

    @property
    def linear(self) -> nn.Linear:
        linear: nn.Linear = self.encoder[0]  # type: ignore[assignment]
        return linear

    def loss(self, x: Tensor) -> Tensor:
        """Return the loss of the layer on rows (n, inputs) in [0, 1]: the mean over rows, in nats."""
        raise NotImplementedError


Layer = TypeVar("Layer", bound=TiedLayer)


class Stacked(ChainSampler, Autoencoder, Generic[Layer]):
    """Each layer is trained on the codes of the layers below it, which are frozen; a chain in the top layer samples.

    Images in [0, 1] and codes are taken as probabilities. The decoder goes down through the means of all layers.
    """

    sample_kind = "mean"

    def __init__(self, name: str, data: DataSpec, layers: Sequence[Layer], pretrain_epochs: int) -> None:
        super().__init__()
        if data.points:
            raise UsageError(f"model={name} takes values as shades of grey, and this data set has points")
        self.shape, self.pretrain_epochs = data.shape, pretrain_epochs
        self.stack = list(layers)
        self.stack[0].decoder.bias.data.copy_(data.pixel_mean.flatten().logit(eps=BLACK))
        self.layers = nn.ModuleList(self.stack)

    def players(self) -> dict[str, nn.Module]:
        return {f"layer_{number}": layer for number, layer in enumerate(self.stack, 1)}

    def stages(self) -> list[Stage]:
        first = Update(("layer_1",), partial(self.play_layer, 0), validates=True)
        stages = [Stage("layer 1", [first], self.pretrain_epochs)]
        for below in range(1, len(self.stack)):
            update = Update((f"layer_{below + 1}",), partial(self.play_codes, below), validates=True)
            codes = partial(self.encode, layers=below)
            stages.append(Stage(f"layer {below + 1}", [update], self.pretrain_epochs, codes))
        return [*stages[:-1], replace(stages[-1], epochs=None)]

    def play_layer(self, layer: int, images: Tensor) -> Outcome:
        return self.play_codes(layer, images.flatten(1))

    def play_codes(self, layer: int, codes: Tensor) -> Outcome:
        return Outcome({f"layer_{layer + 1}": self.stack[layer].loss(codes)}, {})

    def encode(self, images: Tensor, layers: int | None = None) -> Tensor:
        """Return the codes of the last layer, or of the given number of layers."""
        x = images.flatten(1)
        for layer in self.stack[:layers]:
            x = layer.encoder(x)
        return x

    def preactivations(self, codes: Tensor) -> Tensor:
        """Return the logits of the images' pixels, (n, C·H·W) float32, of codes of the last layer."""
        for layer in reversed(self.stack[1:]):
            codes = layer.decoder(codes).sigmoid()
        logits: Tensor = self.stack[0].decoder(codes)
        return logits.float()

    def decode(self, codes: Tensor) -> Tensor:
        return self.preactivations(codes).sigmoid().view(-1, *self.shape)

    def filters(self) -> dict[str, Tensor]:
        return stacked_filters([layer.linear.weight for layer in self.stack])
