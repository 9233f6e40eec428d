"""Samplers: plain functions from a trained network and a generator of random numbers to samples."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from genexp.data import DataSet

CHUNK = 1000  # images or codes taken at a time; fixed, so that samples do not depend on anything else


def ancestral(decoder: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
    """What the decoder makes of codes drawn from the prior, (n, dim)."""
    return torch.cat([decoder(chunk) for chunk in torch.split(codes, CHUNK)])


def markov_chain(
    step: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, n: int, *, burn_in: int, thinning: int
) -> Tensor:
    """n samples from len(start) chains that run side by side, `thinning` steps apart, after `burn_in` steps.

    `step` takes the chains' states to the next ones and to what is emitted there. The first sample of every chain
    comes before the second of any.
    """
    state, emitted = start, [start]
    for index in range(1, burn_in + thinning * -(-n // len(start)) + 1):
        state, sample = step(state)
        if index > burn_in and (index - burn_in) % thinning == 0:
            emitted.append(sample)
    return torch.cat(emitted[1:])[:n]


def code_density(codes: Tensor, components: int, n: int, generator: torch.Generator) -> Tensor:
    """n draws from a mixture of `components` Gaussians of full covariance fitted to (N, dim) codes; (n, dim) float32.

    One component is the maximum-likelihood Gaussian. Fitted by scikit-learn's `GaussianMixture`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture  # takes a second to import
    from threadpoolctl import threadpool_limits

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    # All cores would be taken otherwise, whatever device.threads says. A density that has not converged is one, too.
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        density = GaussianMixture(components, random_state=seed).fit(codes.double().cpu().numpy())
    drawn = torch.as_tensor(density.sample(n)[0], dtype=torch.float32, device=codes.device)
    return drawn[torch.randperm(n, generator=generator, device=generator.device)]  # they come one component at a time


def training_images(data: DataSet, n: int, generator: torch.Generator) -> Tensor:
    """n training images, (n, C, H, W) in [0, 1], drawn with repetition: where a chain may begin."""
    rows = torch.randint(len(data.train), (n,), generator=generator, device=generator.device)
    return data.images("train", rows)
