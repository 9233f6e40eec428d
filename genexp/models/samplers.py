"""Samplers: they take a trained network and a random generator, and return samples."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.threads import one_for_blas

CHUNK = 1000  # images or codes in one pass; fixed, so that samples do not depend on a batch size


def ancestral(decoder: Callable[..., Tensor], codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the decoder's outputs for codes drawn from the prior, (n, dim); under labels (n,), if they are given."""
    if labels is None:
        return torch.cat([decoder(chunk) for chunk in torch.split(codes, CHUNK)])
    chunks = zip(torch.split(codes, CHUNK), torch.split(labels, CHUNK), strict=True)
    return torch.cat([decoder(chunk, of_chunk) for chunk, of_chunk in chunks])


# Maps the states of all chains to their next states and to samples, (chains, C, H, W) in [0, 1].
Transition = Callable[[Any], tuple[Any, Tensor]]


def markov_chain(step: Transition, state: Any, n: int, *, burn_in: int, thinning: int) -> Tensor:
    """Return n samples of parallel chains, `thinning` steps apart after `burn_in` steps.

    The result has the first sample of every chain, then the second of every chain, and so on.
    """
    samples: list[Tensor] = []
    steps = 0
    while sum(map(len, samples)) < n:
        state, sample = step(state)
        steps += 1
        if steps > burn_in and (steps - burn_in) % thinning == 0:
            samples.append(sample)
    return torch.cat(samples)[:n]


class ChainSampler(ABC):
    """The sampler of a model whose samples are states of Markov chains, begun at training images.

    A model derives from it beside `Model`; metrics and pictures then show how far its chains move.
    """

    sampler_settings: ClassVar[tuple[str, ...]] = ("chains", "burn_in", "thinning")
    chains: int  # side by side
    burn_in: int  # steps before the first sample of a chain
    thinning: int  # steps from one sample of a chain to its next

    @abstractmethod
    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Any, Transition]:
        """Return the states of chains that begin at images, (n, C, H, W) in [0, 1], and the step that they take."""

    def starts(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return the images at which the chains of n samples begin: the first draws from the sampler's generator."""
        return training_images(data, min(self.chains, n), generator)

    def walk(self, images: Tensor, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n samples, (n, C, H, W) in [0, 1], of chains that begin at images."""
        state, step = self.chain(images, generator, data)
        return markov_chain(step, state, n, burn_in=self.burn_in, thinning=self.thinning)

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        return self.walk(self.starts(n, generator, data), n, generator, data)


def code_density(codes: Tensor, components: int, n: int, generator: torch.Generator) -> Tensor:
    """Fit a mixture of `components` Gaussians with full covariance to (N, dim) codes; return n draws, (n, dim) float32.

    scikit-learn's `GaussianMixture` fits it. One component is the maximum-likelihood Gaussian.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture  # takes a second to import

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    with one_for_blas(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # without convergence it is a density, too
        density = GaussianMixture(components, random_state=seed).fit(codes.double().cpu().numpy())
    draws = torch.as_tensor(density.sample(n)[0], dtype=torch.float32, device=codes.device)
    return draws[torch.randperm(n, generator=generator, device=generator.device)]  # scikit-learn sorts by component


def training_images(data: DataSet, n: int, generator: torch.Generator) -> Tensor:
    """Draw n training images with repetition, (n, C, H, W) in [0, 1], for chains to begin at."""
    rows = torch.randint(len(data.train), (n,), generator=generator, device=generator.device)
    return data.images("train", rows)
