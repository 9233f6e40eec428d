"""Scores of samples from a known mixture of Gaussians: modes captured, and the share of high-quality samples."""

import math

import torch
from torch import Tensor

from genexp.data import Mixture
from genexp.metrics import Subject, requires
from genexp.ranges import PositiveFloat, PositiveInt
from genexp.score import Score

is_mixture = requires(
    lambda _model, data, _settings: None if data.mixture else "modes are known for dataset=ring and dataset=grid only"
)


def nearest_modes(samples: Tensor, mixture: Mixture, within: float) -> tuple[Tensor, Tensor]:
    """Return the index of each sample's nearest mode, (n,), and a mask of the samples that are near it, (n,) bool.

    samples: (n, 2), in the coordinates of the mixture's means. Near is within `within` standard deviations.
    """
    distances, nearest = torch.cdist(samples.double(), mixture.means.double().to(samples.device)).min(1)
    return nearest, distances <= within * mixture.std


@is_mixture
def modes(subject: Subject, *, n_samples: PositiveInt, within: PositiveFloat) -> Score:
    """Return the number of captured modes: those that are the nearest mode of a high-quality sample.

    It has no standard error. Source: Srivastava et al. 2017, VEEGAN.
    """
    mixture, nearest, near = _nearest_modes(subject, n_samples, within)
    captured = len(set(nearest[near].tolist()))
    summary = f"{captured} of {len(mixture.means)} captured ({n_samples:,} samples, within {within:g} σ)"
    return Score(float(captured), None, summary, n_samples=n_samples, details={"within": within, "seed": subject.seed})


@is_mixture
def high_quality(subject: Subject, *, n_samples: PositiveInt, within: PositiveFloat) -> Score:
    """Return the share, in [0, 1], of samples within `within` standard deviations of their nearest mode (ibid.).

    For samples of the mixture itself the share is 1 − exp(−within²/2), 98.9% for 3. `stderr` is binomial.
    """
    _, _, near = _nearest_modes(subject, n_samples, within)
    share = near.double().mean().item()
    stderr = math.sqrt(share * (1 - share) / n_samples)
    summary = f"{100 * share:.1f} ± {100 * stderr:.1f} % ({n_samples:,} samples, within {within:g} σ)"
    return Score(share, stderr, summary, n_samples=n_samples, details={"within": within, "seed": subject.seed})


def _nearest_modes(subject: Subject, n: int, within: float) -> tuple[Mixture, Tensor, Tensor]:
    mixture = subject.data.mixture
    assert mixture is not None
    return mixture, *nearest_modes(subject.samples(n).flatten(1), mixture, within)
