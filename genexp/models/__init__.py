"""What a model is: a differentiable game, with its players, their moves, and a sampler.

A model knows nothing of devices, files, logging or progress bars, and no other module knows a model by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genexp.data import DataSet
from genexp.errors import UsageError
from genexp.noise import Corruption


class Outcome(NamedTuple):
    """What one forward pass of a game gives."""

    losses: dict[str, Tensor]  # one scalar for each player that moves on it, in nats
    watched: dict[str, Tensor]  # further scalars worth a curve


@dataclass(frozen=True)
class Update:
    """A move: the players that move at once from the same point, on losses from one forward pass.

    Players in turn (Algorithm 1 of Goodfellow et al. 2014) are several updates; k discriminator steps for each
    generator step are `repeats=k`, each on a minibatch of its own.
    """

    players: tuple[str, ...]
    play: Callable[[Tensor], Outcome]  # images (n, C, H, W) in [0, 1] -> losses of exactly these players
    repeats: int = 1


class Model(nn.Module, ABC):
    """A game of one player (an autoencoder), two (a GAN) or more."""

    sample_kind: str  # what a sample is, for it changes a score: "draw" or "mean"
    sampler_settings: ClassVar[tuple[str, ...]] = ()  # those that matter to `sample` only, not to training

    @abstractmethod
    def players(self) -> dict[str, nn.Module]:
        """Each player's name and the module that holds its parameters."""

    @abstractmethod
    def updates(self) -> list[Update]:
        """The moves of one step, in order."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """n samples, (n, C, H, W) float32 in [0, 1], on the model's device. `draw` calls it.

        `data` is for samplers that begin at training images or fit a density to their codes.
        """

    def first_layers(self) -> dict[str, nn.Linear]:
        """The fully connected layers that see whole images, by name; their weights are shown as filters."""
        return {}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is as it is when it is not training, and no gradients are kept."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


def draw(model: Model, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
    """n samples of the model, (n, C, H, W) in [0, 1]; in float32, whatever it trains in.

    Raises UsageError when they are not of the shape of the data.
    """
    with evaluating(model):
        samples = model.sample(n, generator, data)
    if samples.shape != (n, *data.train.shape[1:]):
        raise UsageError(
            f"{type(model).__name__}.sample makes {n:,} samples of shape {tuple(samples.shape)}; return them as "
            f"{(n, *data.train.shape[1:])}"
        )
    return samples


@runtime_checkable
class LatentVariableModel(Protocol):
    """What a model offers that has a prior over codes: a GAN, a variational autoencoder."""

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes from the prior, (n, latent_dim)."""

    def decode(self, codes: Tensor) -> Tensor:
        """The images, (n, C, H, W) in [0, 1], that codes (n, latent_dim) stand for."""


class Autoencoder(Model):
    """A model with an encoder and a decoder: a game of one player, who may see corrupted images."""

    noise: Corruption

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """The codes, (n, latent_dim), of images (n, C, H, W); the posterior's means where the code is random."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The images, (n, C, H, W) in [0, 1], that codes (n, latent_dim) stand for."""

    @abstractmethod
    def play(self, images: Tensor) -> Outcome:
        """The loss of the one player, "autoencoder", on images (n, C, H, W) in [0, 1]."""

    def players(self) -> dict[str, nn.Module]:
        return {"autoencoder": self}

    def updates(self) -> list[Update]:
        return [Update(("autoencoder",), self.play)]
