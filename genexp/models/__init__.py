"""The interface of a model: a differentiable game, with its players, their moves, and a sampler.

Models leave devices, files and logging to other modules, and no other module names a model.
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
    """The result of one forward pass of a game."""

    losses: dict[str, Tensor]  # a scalar loss in nats for each player that moves
    watched: dict[str, Tensor]  # further scalars to log as curves


@dataclass(frozen=True)
class Update:
    """A move: its players move simultaneously, on losses from one forward pass.

    Players that move in turn (Algorithm 1 of Goodfellow et al. 2014) have an update each.
    """

    players: tuple[str, ...]
    play: Callable[[Tensor], Outcome]  # images (n, C, H, W) in [0, 1] -> losses of exactly these players
    repeats: int = 1  # each time on another minibatch


class Model(nn.Module, ABC):
    """A game of one player (an autoencoder), two (a GAN) or more."""

    sample_kind: str  # "draw" or "mean"; scores of draws and of means are not comparable
    sampler_settings: ClassVar[tuple[str, ...]] = ()  # settings that `sample` uses and training does not

    @abstractmethod
    def players(self) -> dict[str, nn.Module]:
        """Return the module that holds each player's parameters, by the player's name."""

    @abstractmethod
    def updates(self) -> list[Update]:
        """Return the moves of one step, in order."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n samples, (n, C, H, W) float32 in [0, 1], on the model's device; call it through `draw`.

        Samplers may begin at training images of `data`, or fit a density to their codes.
        """

    def first_layers(self) -> dict[str, nn.Linear]:
        """Return the fully connected layers that receive whole images, by name, to show their weights as filters."""
        return {}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, without gradients, and back in training mode at the end."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


def draw(model: Model, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
    """Return n samples of the model, (n, C, H, W) float32 in [0, 1].

    Raises UsageError if their shape is not that of the data.
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
    """A model with a prior over codes, such as a GAN or a variational autoencoder."""

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n codes from the prior, (n, latent_dim)."""

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], of codes (n, latent_dim)."""


class Autoencoder(Model):
    """A model with an encoder and a decoder: a game of one player, which may receive corrupted images."""

    noise: Corruption

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the codes, (n, latent_dim), of images (n, C, H, W); for a random code, its posterior mean."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], of codes (n, latent_dim)."""

    @abstractmethod
    def play(self, images: Tensor) -> Outcome:
        """Return the loss of the player "autoencoder" on images (n, C, H, W) in [0, 1]."""

    def players(self) -> dict[str, nn.Module]:
        return {"autoencoder": self}

    def updates(self) -> list[Update]:
        return [Update(("autoencoder",), self.play)]
