"""Parzen-window log-likelihood of held-out images under isotropic Gaussians around samples.

The protocol is that of Goodfellow et al. 2014, credited there to Breuleux et al. 2011. The score favours smooth samples
and says little about a model's likelihood or the look of its samples (Theis et al. 2016). Compare only at equal numbers
of samples.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.metrics import Subject, mean_and_errors, requires
from genexp.ranges import Bandwidths, PositiveInt
from genexp.score import Score
from genexp.text import count, with_decimals

TILE = 2**22  # distances computed at a time: 16 MiB, which stay in the processor's caches
TILE_GPU = 2**26
EXACT_SIGMA = 0.1  # from here on rounding is negligible, see `log_likelihood`
ROUNDINGS = 8.0  # of ‖μ‖² in float32, at most, in a squared distance; the tests measure it
CENTRES = 2**14  # centres at a time, so that memory does not grow with their number


def log_likelihood(points: Tensor, centres: Tensor, sigmas: Sequence[float], tile: int | None = None) -> Tensor:
    """Return log p(x) in nats of each point under each σ, shape (len(sigmas), n_points), float64 on the CPU.

    log p(x) = logsumexp_j(−‖x − μ_j‖² / 2σ²) − log N − d·log(σ√(2π)), over N centres of d values.

    points: (n_points, d), centres: (N, d), float32 on one device. The squared distances are computed once for all σ,
    as ‖μ‖² − 2xᵀμ + ‖x‖² of data that are centred on the mean of the centres. A tile has at most `tile` distances, but
    those of at least one point. With pixels in [0, 1], d = 784 and σ ≥ 0.1, each log p(x) is within 0.01 nat of the
    formula in float64. With a smaller σ the error grows as 1/σ²; see `rounding_error`.
    """
    tile = tile or (TILE if points.device.type == "cpu" else TILE_GPU)
    n, dim = centres.shape
    middle = centres.mean(0)
    scales = torch.tensor([-0.5 / sigma**2 for sigma in sigmas], dtype=torch.float64)[:, None]
    closest = torch.full((len(points),), math.inf, dtype=torch.float64)  # squared distance to the nearest centre so far
    totals = torch.zeros(len(sigmas), len(points), dtype=torch.float64)  # Σ_j exp((closest − ‖x − μ_j‖²) / 2σ²)
    for first in range(0, n, CENTRES):
        block = centres[first : first + CENTRES] - middle
        squares = block.square().sum(1)
        n_rows = max(1, tile // len(block))
        buffers = torch.empty(2, min(n_rows, len(points)), len(block), device=points.device)
        for start in range(0, len(points), n_rows):
            rows = slice(start, start + n_rows)
            x = points[rows] - middle
            d2, weights = buffers[:, : len(x)]
            torch.addmm(squares, x, block.T, alpha=-2, out=d2)  # ‖x − μ‖² − ‖x‖²
            nearest = d2.amin(1, keepdim=True)
            d2 -= nearest  # so that the largest term is exp(0) whatever σ is
            nearest_d2 = (nearest[:, 0] + x.square().sum(1)).clamp_(min=0).cpu().double()
            sums = [torch.mul(d2, scale, out=weights).exp_().sum(1) for scale in scales[:, 0].tolist()]
            before, closest[rows] = closest[rows].clone(), torch.minimum(closest[rows], nearest_d2)
            totals[:, rows] *= torch.exp(scales * (before - closest[rows]))
            totals[:, rows] += torch.stack(sums).cpu().double() * torch.exp(scales * (nearest_d2 - closest[rows]))
    normalizers = [math.log(n) + dim * math.log(sigma * math.sqrt(2 * math.pi)) for sigma in sigmas]
    return scales * closest + totals.log() - torch.tensor(normalizers, dtype=torch.float64)[:, None]


def rounding_error(centres: Tensor, sigma: float) -> float:
    """Return how much rounding may change `log_likelihood`, in nats, of a point that nearly equals a centre.

    There ‖μ‖² − 2xᵀμ + ‖x‖² in float32 is the difference of numbers of the size of ‖μ‖², so it is wrong by a few
    roundings of that size, and log p(x) by that over 2σ².
    """
    largest = (centres - centres.mean(0)).square().sum(1).max().item()
    return ROUNDINGS * torch.finfo(torch.float32).eps * largest / (2 * sigma**2)


class SampleProtocol(TypedDict):
    """The number of samples that are scored, and the settings by which `score_samples` scores them."""

    n_samples: PositiveInt
    n_valid: PositiveInt
    sigma_grid: Bandwidths
    split: Literal["train", "valid", "test"]


def parzen(subject: Subject, **protocol: Unpack[SampleProtocol]) -> Score:
    """Return the Parzen score of a subject's samples, as `score_samples` computes it."""
    score = score_of(subject.samples(protocol["n_samples"]), subject.data, protocol)
    return replace(score, sample_kind=subject.sample_kind, details=score.details | {"seed": subject.seed})


@requires(lambda _model, data, _settings: None if data.folds else "this data set has no folds; take metric parzen")
def parzen_folds(subject: Subject, *, n_samples: PositiveInt, sigma_grid: Bandwidths) -> Score:
    """Return the mean over folds of the score on a fold's test images, with σ chosen on all its validation images.

    Goodfellow et al. 2014 score the Toronto Face Database like this. `stderr` is the standard error across folds
    (population std / √folds).
    """
    samples = subject.samples(n_samples)
    folds = [
        score_samples(samples, fold, n_valid=len(fold.valid), sigma_grid=sigma_grid, split="test")
        for fold in subject.data.of_folds()
    ]
    means = torch.tensor([fold.mean for fold in folds], dtype=torch.float64)
    mean, _, stderr = mean_and_errors(means)
    sigmas = [sigma for fold in folds if isinstance(sigma := fold.sigma, float)]
    chosen = ", ".join(f"{sigma:.3g}" for sigma in sigmas)
    valid_means = [fold.valid_mean for fold in folds if fold.valid_mean is not None]
    return Score(
        mean,
        stderr,
        f"{with_decimals(mean, stderr, 1)} nats over {count(len(folds), 'fold')} "
        f"({count(n_samples, 'sample')}, σ = {chosen})",
        valid_mean=sum(valid_means) / len(folds),
        n_samples=n_samples,
        sample_kind=subject.sample_kind,
        sigma=sigmas,
        warning="; ".join(sorted({fold.warning for fold in folds if fold.warning})) or None,
        details={
            "fold_means": means.tolist(),
            "n_points": sum(fold.details["n_points"] for fold in folds),
            "sigma_grid": sorted(sigma_grid),
            "seed": subject.seed,
        },
    )


def score_of(samples: Tensor, data: DataSet, protocol: SampleProtocol) -> Score:
    """Return the score of samples, (n, C, H, W), by a protocol; their number may be another one."""
    n_valid, sigma_grid, split = protocol["n_valid"], protocol["sigma_grid"], protocol["split"]
    return score_samples(samples, data, n_valid=n_valid, sigma_grid=sigma_grid, split=split)


def score_samples(
    samples: Tensor,
    data: DataSet,
    *,
    n_valid: int,
    sigma_grid: Sequence[float],
    split: Literal["train", "valid", "test"],
) -> Score:
    """Choose σ by the mean over the first `n_valid` validation images, and return the score on all images of `split`.

    samples: (n, C, H, W). The mean is in nats, its standard error over the images (population std / √n, as in the
    paper). `warning` is set if σ was chosen on the scored images, lies at the grid's edge, or is less than EXACT_SIGMA.
    """
    samples, grid = samples.flatten(1).float(), sorted(sigma_grid)
    valid = log_likelihood(data.images("valid", slice(0, n_valid)).flatten(1), samples, grid).mean(1)
    best = int(valid.argmax())
    scores = log_likelihood(data.images(split).flatten(1), samples, [grid[best]])[0]
    mean, _, stderr = mean_and_errors(scores)
    warnings = []
    if split == "valid":
        warnings.append("σ was chosen on images that are scored: the score is a little too high")
    if len(grid) > 1 and best in (0, len(grid) - 1):
        end = "smallest" if best == 0 else "largest"
        warnings.append(f"σ = {grid[best]:.3g} is the {end} of the grid; the best may lie beyond it")
    if grid[best] < EXACT_SIGMA:
        error = rounding_error(samples, grid[best])
        warnings.append(
            f"σ = {grid[best]:.3g} is less than {EXACT_SIGMA}: distances in float32 may change log p(x) of an image "
            f"that is nearly a sample by up to {error:.2g} nats"
        )
    counts = f"{count(len(samples), 'sample')}, σ = {grid[best]:.3g}"
    return Score(
        mean,
        stderr,
        f"{with_decimals(mean, stderr, 1)} nats on {count(len(scores), f'{split} image')} ({counts})",
        split=split,
        valid_mean=valid[best].item(),
        n_samples=len(samples),
        sigma=grid[best],
        warning="; ".join(warnings) or None,
        details={"n_points": len(scores), "n_valid": min(n_valid, len(data.valid)), "sigma_grid": grid},
    )
