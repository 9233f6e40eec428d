"""The common part of undirected models: what they refuse, their samplers, and the curves of their training."""

from abc import abstractmethod
from functools import partial
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Autoencoder
from genexp.models.boltzmann import RBMLayer, Visible, bernoulli
from genexp.models.samplers import CHUNK, ChainSampler, Transition, training_images
from genexp.noise import Corruption, unchanged
from genexp.ranges import Count, PositiveInt


class Chains(TypedDict):
    """The settings of the sampler."""

    chains: PositiveInt
    burn_in: Count
    thinning: PositiveInt
    chain_start: Literal["images", "base_rates"]
    sample_kind: Literal["draw", "mean"]


class UndirectedModel(ChainSampler, Autoencoder):
    """p(x) = p*(x) / Z. Codes are the means of hidden units given an image; samples are block Gibbs chains.

    Bernoulli visible units take grey values as probabilities of white. Gaussian ones have the variance of all training
    pixels around their common mean; their density is one of pixels in [0, 1].
    """

    sampler_settings = (*ChainSampler.sampler_settings, "chain_start", "sample_kind")
    log_likelihood = "exact"  # what `log_unnormalized` gives: "exact", or "lower bound"
    mean: Tensor  # of the visible values of training images, (inputs,)

    def __init__(
        self, name: str, data: DataSpec, noise: Corruption, visible: Visible, **sampler: Unpack[Chains]
    ) -> None:
        super().__init__()
        _refuse_unsuitable(name, data, noise, visible)
        self.noise, self.shape, self.visible = noise, data.shape, visible
        self.chains, self.burn_in, self.thinning = sampler["chains"], sampler["burn_in"], sampler["thinning"]
        self.chain_start, self.sample_kind = sampler["chain_start"], sampler["sample_kind"]
        self.scale = data.pixel_std if visible == "gaussian" else 1.0  # of one visible unit, in pixel values
        self.register_buffer("mean", data.pixel_mean.flatten() / self.scale, persistent=False)

    @abstractmethod
    def machine(self) -> RBMLayer:
        """Return a restricted Boltzmann machine with the model's partition function, for metric=ais."""

    @abstractmethod
    def base_rates(self) -> tuple[Tensor, Tensor]:
        """Return visible field and hidden logits of the machine without weights from which metric=ais anneals."""

    @abstractmethod
    def log_unnormalized(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return log p*(x) = log p(x) + log Z of each image, (n,), or a lower bound of it, in nats.

        Grey images are drawn as binary ones.
        """

    @abstractmethod
    def first_states(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Return states of chains that begin at visible values v, (n, units of a state)."""

    @abstractmethod
    def next_states(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the chains' next states, and their images (n, C, H, W): means or draws, by `sample_kind`."""

    def starts(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return training images, or pixels drawn with their base rates; of Gaussian units they may leave [0, 1]."""
        n = min(n, self.chains)
        if self.chain_start == "images":
            return training_images(data, n, generator)
        if self.visible == "bernoulli":
            v = bernoulli(self.mean.expand(n, -1), generator)
        else:
            v = self.mean + torch.randn(n, len(self.mean), generator=generator, device=self.device)
        return (v * self.scale).view(-1, *self.shape)

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Tensor, Transition]:
        """Return block Gibbs sampling."""
        return self.first_states(self.visible_values(images), generator), partial(self.next_states, generator=generator)

    def visible_values(self, images: Tensor) -> Tensor:
        """Return the images, or points, as visible values, (n, inputs)."""
        return images.flatten(1) / self.scale

    def images_of(self, v: Tensor) -> Tensor:
        """Return visible values as images in [0, 1], (n, C, H, W)."""
        return (v * self.scale).clamp(0, 1).view(-1, *self.shape)

    def watch(self, data: DataSet, generator: torch.Generator) -> dict[str, float]:
        """Return the mean −log p*(x) of CHUNK training and validation images, and their reconstruction error, in nats.

        When free_energy/train falls below free_energy/valid, the model learns single training images (Hinton 2010,
        section 6). The error is that of E[x | code] on validation images: the cross-entropy, or without its constant
        the Gaussian's −log p.
        """
        splits = {split: data.images(split, slice(CHUNK)) for split in ("train", "valid")}
        energies = {split: -self.log_unnormalized(images, generator).mean() for split, images in splits.items()}
        v = self.visible_values(splits["valid"])
        means = self.visible_values(self.decode(self.encode(splits["valid"])))
        binary = self.visible == "bernoulli"
        errors = binary_cross_entropy(means, v, reduction="none") if binary else 0.5 * (means - v).square()
        watched = {f"free_energy/{split}": energy.item() for split, energy in energies.items()}
        return watched | {"reconstruction": errors.sum(1).mean().item()}


def _refuse_unsuitable(model: str, data: DataSpec, noise: Corruption, visible: Visible) -> None:
    """Raise UsageError for a corruption, and for data that Bernoulli visible units cannot take."""
    if noise is not unchanged:
        raise UsageError(f"model={model} has no corrupted input: leave out noise")
    if visible == "gaussian":
        return
    remedy = "set model.visible=gaussian" if model == "rbm" else "choose a data set of images"
    if data.points:
        raise UsageError(f"points of the plane are no shades of grey, which Bernoulli visible units need: {remedy}")
    if data.low < 0 or data.high > 1:
        raise UsageError(
            f"the training values of this data set go from {data.low:.3g} to {data.high:.3g}, and Bernoulli visible "
            f"units take values in [0, 1]: {remedy}"
        )
