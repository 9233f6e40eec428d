"""The interface of a model: a differentiable game, with its players, their moves, and a sampler.

Models leave devices, files and logging to other modules, and no other module names a model.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from genexp.data import DataSet
from genexp.device import why_not_in_memory
from genexp.errors import UsageError
from genexp.models.protocols import HasDiscriminator as HasDiscriminator
from genexp.models.protocols import LatentVariableModel as LatentVariableModel
from genexp.models.protocols import Reconstructs as Reconstructs
from genexp.models.protocols import Side as Side
from genexp.models.protocols import Translator as Translator
from genexp.noise import Corruption
from genexp.text import count

ROUNDING = 1e-4  # by which values in [0, 1] may miss it
Batch = dict[str, Tensor]  # the tensors of a minibatch by name, a row of each for each image
TENSORS = {  # what a minibatch may hold
    "images": "(n, C, H, W) in [0, 1], or points (n, d) in [0, 1]",
    "labels": "(n,) int64, classes, −1 for no label",
    "images_b": "of the second data set, unpaired",
    "labels_b": "of the second data set",
    "codes": "(n, d), what the stage's `codes` makes of the images",
    "epoch": "(), float32, epochs of the stage that are completed, with the fraction of the one that has begun",
}


class Outcome(NamedTuple):
    """The result of one forward pass of a game."""

    losses: dict[str, Tensor]  # a scalar loss in nats for each player that moves
    watched: dict[str, Tensor]  # further scalars to log as curves


class Asking:
    """A function that is called with those tensors of a minibatch that its parameters name.

    The first parameter gets the tensor `first`, unless it has the name of another one. A parameter with a default keeps
    it where the minibatch has no such tensor.
    """

    def __init__(self, function: Callable[..., Any], first: str = "images") -> None:
        self.function = function
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # some built-in functions have no signature
            parameters = []
        self.first = None if not parameters else parameters[0].name if parameters[0].name in TENSORS else first
        self.others = [parameter.name for parameter in parameters[1:] if parameter.name in TENSORS]
        required = [each for each in parameters[1:] if each.default is each.empty]
        needed = [each.name for each in required if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        self.needed = [name for name in (self.first, *needed) if name is not None]  # without these it cannot be called

    @property
    def names(self) -> list[str]:
        """The tensors that it takes if there are any."""
        return self.others if self.first is None else [self.first, *self.others]

    def __call__(self, batch: Mapping[str, Tensor], *more: Any) -> Any:
        """Call the function; it gets `more` behind the first tensor."""
        named = {name: batch[name] for name in self.others if name in batch}
        return self.function(*([] if self.first is None else [batch[self.first]]), *more, **named)


@dataclass(frozen=True)
class Update:
    """A move: its players move simultaneously, on losses from one forward pass.

    Players that move in turn (Algorithm 1 of Goodfellow et al. 2014) have an update each. `play` returns losses of
    exactly these players. It is given the tensors of a minibatch that its parameters name, see TENSORS and `Asking`.
    """

    players: tuple[str, ...]
    play: Callable[..., Outcome]
    repeats: int = 1  # each time on another minibatch
    validates: bool = False  # True if `play` has no state, so that it may be given validation images for their loss

    @cached_property
    def asking(self) -> Asking:
        return Asking(self.play)


@dataclass(frozen=True)
class Stage:
    """A part of a training that consists of several, one after another. What no update of a stage names is frozen."""

    name: str  # "" for the only stage of a model
    updates: list[Update]
    epochs: int | None = None  # None for the last stage, which has the run's `epochs`
    codes: Callable[[Tensor], Tensor] | None = None  # images -> codes (n, d), by frozen layers and without noise
    # Called before the first step, with the codes of up to 10,000 training images; with the images if there are none.
    begin: Callable[[Tensor], None] | None = None


class Model(nn.Module, ABC):
    """A game of one player (an autoencoder), two (a GAN) or more.

    A subclass gives `updates`, or `stages` if it is trained in several. State beyond parameters is a buffer
    (`register_buffer`), which a step changes in place: it is saved, restored, and checked to be finite, like
    parameters.
    """

    sample_kind: str  # "draw" or "mean"; scores of draws and of means are not comparable
    sampler_settings: ClassVar[tuple[str, ...]] = ()  # settings that `sample` uses and training does not
    # A model of one's own: True if each step makes the same operations and keeps results in buffers alone, so that it
    # is recorded once and then replayed without Python.
    replayed: bool = False
    conditional: bool = False  # True if it learns from labels; `sample` and `decode` then take `labels` (n,), too

    @property
    def shareable(self) -> bool:
        """False if it keeps something of single images from step to step: several processes cannot train it then."""
        return True

    @abstractmethod
    def players(self) -> dict[str, nn.Module]:
        """Return the module that holds each player's parameters, by the player's name."""

    def updates(self) -> list[Update]:
        """Return the moves of one step, in order, of a model with one stage."""
        raise NotImplementedError

    def stages(self) -> list[Stage]:
        """Return the stages of training, in order."""
        return [Stage("", self.updates())]

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n samples, (n, C, H, W) float32 in [0, 1], on the model's device; call it through `draw`.

        Samplers may begin at training images of `data`, or fit a density to their codes.
        """

    def preview(self, n: int, generator: torch.Generator, data: DataSet, **labels: Tensor) -> Tensor:
        """Return n samples for a picture on the way, like `sample`; a costly sampler may take less care."""
        return self.sample(n, generator, data, **labels)

    def watch(self, data: DataSet, generator: torch.Generator) -> dict[str, float]:
        """Return values to log as curves at an epoch's end, by name; here there may be a look at validation images."""
        return {}

    def first_layers(self) -> dict[str, nn.Linear]:
        """Return the fully connected layers that receive whole images, by name, to show their weights as filters."""
        return {}

    def filters(self) -> dict[str, Tensor]:
        """Return what each unit of a layer looks for, (units, C·H·W), by the layer's name."""
        return {name: layer.weight.detach() for name, layer in self.first_layers().items()}

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


def draw(
    model: Model,
    n: int,
    generator: torch.Generator,
    data: DataSet,
    labels: Tensor | None = None,
    preview: bool = False,
) -> Tensor:
    """Return n samples of the model, (n, C, H, W) float32 in [0, 1]; with `preview`, by `Model.preview`.

    A conditional model draws them under `labels`, (n,); without these, under labels drawn from the training data.
    Raises UsageError if their shape is not that of the data, if they are not in [0, 1], and for more samples than
    memory holds.
    """
    reason = why_not_in_memory(n, data.shape)
    if reason is not None:
        raise UsageError(reason)
    given = {} if not model.conditional else {"labels": data_labels(n, generator, data) if labels is None else labels}
    with evaluating(model):
        samples = (model.preview if preview else model.sample)(n, generator, data, **given)
    if samples.shape != (n, *data.shape):
        raise UsageError(
            f"{type(model).__name__}.sample makes {count(n, 'sample')} of shape {tuple(samples.shape)}; return them as "
            f"{(n, *data.shape)}"
        )
    return in_unit_range(samples, f"{type(model).__name__}.sample makes samples")


def in_unit_range(images: Tensor, what: str) -> Tensor:
    """Return images in [0, 1], rounding errors up to ROUNDING clipped; NaN is left for others to find.

    Raises UsageError, which begins with `what`, for values outside.
    """
    low, high = (end.item() for end in torch.aminmax(images))
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UsageError(f"{what} from {low:.3g} to {high:.3g}; values should be in [0, 1], as those of the data are")
    return images.clamp(0, 1) if low < 0 or high > 1 else images


def data_labels(n: int, generator: torch.Generator, data: DataSet) -> Tensor:
    """Draw n labels as often as they are in the training data, (n,) int64."""
    labels = data.labels["train"]
    return labels[torch.randint(len(labels), (n,), generator=generator, device=generator.device)]


class Autoencoder(Model):
    """A model with an encoder and a decoder: a game of one player, which may receive corrupted images.

    The methods of a conditional model take `labels`, (n,) int64, as well.
    """

    noise: Corruption

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the codes, (n, latent_dim), of images (n, C, H, W); for a random code, its posterior mean."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the images, (n, C, H, W) in [0, 1], of codes (n, latent_dim)."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the reconstructions, (n, C, H, W) in [0, 1], of images without noise; its codes are not drawn."""
        return self.decode(self.encode(images))

    def play(self, images: Tensor) -> Outcome:
        """Return the loss of the player "autoencoder" on images (n, C, H, W) in [0, 1].

        An autoencoder that is trained layer by layer has stages instead.
        """
        raise NotImplementedError

    def players(self) -> dict[str, nn.Module]:
        return {"autoencoder": self}

    def updates(self) -> list[Update]:
        return [Update(("autoencoder",), self.play, validates=True)]


def reconstructed(model: Model, batch: Batch) -> Tensor:
    """Return what a model that reconstructs makes of a minibatch's images, given its labels if it asks for them."""
    with evaluating(model):
        if not isinstance(model, Autoencoder):
            assert isinstance(model, Reconstructs)
            return model.reconstruct(batch["images"])
        images: Tensor = Asking(model.decode, "codes")(batch | {"codes": Asking(model.encode)(batch)})
        return images


def code_size(model: Model, batch: Batch) -> int | None:
    """Return how many numbers the code of a minibatch's image has; None for a model without an encoder."""
    with evaluating(model):
        return Asking(model.encode)(batch).shape[1] if isinstance(model, Autoencoder) else None
