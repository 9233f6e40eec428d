"""Scores of samples from a known mixture of Gaussians: modes captured, and the share of high-quality samples."""

from typing import Annotated

import torch
from torch import Tensor

from genexp.data.mixtures import Mixture
from genexp.metrics import Subject, binomial_error, requires
from genexp.ranges import AsBefore, PositiveFloat, PositiveInt, Split
from genexp.score import Score
from genexp.text import count, percent

is_mixture = requires(
    lambda _model, data, _settings: (
        None if isinstance(data.density, Mixture) else "modes are known of mixtures only, such as dataset=ring"
    )
)


def nearest_modes(samples: Tensor, mixture: Mixture, within: float) -> tuple[Tensor, Tensor]:
    """Return the index of each sample's nearest mode, (n,), and a mask of the samples that are near it, (n,) bool.

    samples: (n, d), in their own coordinates. Near is within `within` of the mode's standard deviations.
    """
    distances, nearest = torch.cdist(samples.double(), mixture.means).min(1)
    return nearest, distances <= within * mixture.stds[nearest]


@is_mixture
def modes(
    subject: Subject,
    *,
    n_samples: PositiveInt,
    within: PositiveFloat,
    split: Annotated[Split, AsBefore("test")] = "test",
) -> Score:
    """Return the number of captured modes: those that are the nearest mode of a high-quality sample.

    A single sample captures a mode, so the share of all samples that the smallest mode has stands beside the number.
    It has no standard error. The modes are known, so `split` changes no value: with "valid" the score may choose among
    settings and checkpoints. Source: Srivastava et al. 2017, VEEGAN.
    """
    mixture, nearest, near = _nearest_modes(subject, n_samples, within)
    of_modes = torch.bincount(nearest[near], minlength=len(mixture.means)).tolist()
    captured, least = sum(n > 0 for n in of_modes), min(of_modes)
    smallest = f"the smallest with {100 * least / n_samples:.2g} % of {count(n_samples, 'sample')}, {least:,}"
    summary = f"{captured} of {len(mixture.means)} captured, {smallest} (within {within:g} σ)"
    details = {"within": within, "seed": subject.seed}
    details |= {"smallest_share": least / n_samples, "smallest_samples": least}
    return Score(float(captured), None, summary, split=split, n_samples=n_samples, details=details)


@is_mixture
def high_quality(
    subject: Subject,
    *,
    n_samples: PositiveInt,
    within: PositiveFloat,
    split: Annotated[Split, AsBefore("test")] = "test",
) -> Score:
    """Return the share, in [0, 1], of samples within `within` standard deviations of their nearest mode (ibid.).

    For samples of a mixture in the plane itself the share is 1 − exp(−within²/2), 98.9% for 3. `stderr` is binomial.
    `split` is as for `modes`.
    """
    _, _, near = _nearest_modes(subject, n_samples, within)
    share = near.double().mean().item()
    stderr = binomial_error(share, n_samples)
    summary = f"{percent(share, stderr, 1)} ({count(n_samples, 'sample')}, within {within:g} σ)"
    details = {"within": within, "seed": subject.seed}
    return Score(share, stderr, summary, split=split, n_samples=n_samples, details=details)


def _nearest_modes(subject: Subject, n: int, within: float) -> tuple[Mixture, Tensor, Tensor]:
    mixture, bounds = subject.data.density, subject.data.bounds
    assert isinstance(mixture, Mixture)
    assert bounds is not None
    return mixture, *nearest_modes(bounds.coordinates(subject.samples(n)), mixture, within)
