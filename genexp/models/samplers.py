"""Samplers: plain functions that take a trained network and a random generator, and return samples."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from genexp.data import DataSet

CHUNK = 1000  # images or codes in one pass; fixed, so that samples do not depend on a batch size


def ancestral(decoder: Callable[..., Tensor], codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the decoder's outputs for codes drawn from the prior, (n, dim); under labels (n,), if they are given."""
    if labels is None:
        return torch.cat([decoder(chunk) for chunk in torch.split(codes, CHUNK)])
    chunks = zip(torch.split(codes, CHUNK), torch.split(labels, CHUNK), strict=True)
    return torch.cat([decoder(chunk, of_chunk) for chunk, of_chunk in chunks])


def markov_chain(
    step: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, n: int, *, burn_in: int, thinning: int
) -> Tensor:
    """Return n samples of len(start) parallel chains, `thinning` steps apart after `burn_in` steps.

    `step` maps the states of all chains to their next states and samples. The result has the first sample of every
    chain, then the second of every chain, and so on.
    """
    state, samples = start, []
    for index in range(1, burn_in + thinning * math.ceil(n / len(start)) + 1):
        state, sample = step(state)
        if index > burn_in and (index - burn_in) % thinning == 0:
            samples.append(sample)
    return torch.cat(samples)[:n]


def code_density(codes: Tensor, components: int, n: int, generator: torch.Generator) -> Tensor:
    """Fit a mixture of `components` Gaussians with full covariance to (N, dim) codes; return n draws, (n, dim) float32.

    scikit-learn's `GaussianMixture` fits it. One component is the maximum-likelihood Gaussian.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture  # takes a second to import
    from threadpoolctl import threadpool_limits

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    # Without the limit the fit uses all cores, whatever device.threads is. Without convergence it is a density, too.
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        density = GaussianMixture(components, random_state=seed).fit(codes.double().cpu().numpy())
    draws = torch.as_tensor(density.sample(n)[0], dtype=torch.float32, device=codes.device)
    return draws[torch.randperm(n, generator=generator, device=generator.device)]  # scikit-learn sorts by component


def training_images(data: DataSet, n: int, generator: torch.Generator) -> Tensor:
    """Draw n training images with repetition, (n, C, H, W) in [0, 1], for chains to begin at."""
    rows = torch.randint(len(data.train), (n,), generator=generator, device=generator.device)
    return data.images("train", rows)
