"""Multi-scale structural similarity of pairs of samples: how alike they are. It says nothing of how good they are."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject, lower_is_better, requires
from genexp.metrics.features import real_images
from genexp.ranges import PositiveInt
from genexp.score import Score

WINDOW = 11  # pixels, a Gaussian of σ = 1.5
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003: the weight of each scale, the finest first
CHUNK = 500  # pairs at a time


def scales(side: int) -> int:
    """How many scales there are for images of that many pixels: a window must fit into the coarsest; 0 if into none.

    Each scale halves the side. torchmetrics wants side / (scales − 1)² to hold a window, too, which is stricter for
    sides of 88 to 98 alone.
    """
    fit = [m for m in range(1, len(BETAS) + 1) if min(side >> (m - 1), side // max(1, m - 1) ** 2) >= WINDOW]
    return max(fit, default=0)


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """The similarity, in [0, 1], of each of n pairs of images (n, C, H, W) in [0, 1]; (n,) float64 on the CPU.

    On `scales` scales, without resizing; the weights of those that there are add up to 1. Negative correlations
    count as 0. Source: Wang et al. 2003, equation 7.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # seconds to import

    kept = BETAS[: scales(min(one.shape[-2:]))]
    betas = tuple(beta / sum(kept) for beta in kept)
    parts = [
        multiscale_structural_similarity_index_measure(
            one[i : i + CHUNK], other[i : i + CHUNK], reduction="none", data_range=1.0, betas=betas
        )
        for i in range(0, len(one), CHUNK)
    ]
    return torch.cat(parts).cpu().double()


def _refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if not scales(min(data.train.shape[-2:])):
        return f"similarity is of windows of {WINDOW}×{WINDOW} pixels, and these images are smaller"
    return "n_samples=1: there are no pairs of one sample" if settings["n_samples"] < 2 else None


@lower_is_better
@requires(_refusal)
def ms_ssim(subject: Subject, *, n_samples: PositiveInt, n_pairs: PositiveInt) -> Score:
    """The mean similarity of random pairs of samples; lower is more diverse (Odena et al. 2017, section 4.2).

    There the two of a pair are of one class. These models have no classes, so pairs are of any two samples, and their
    similarity is lower. Images of less than 176 pixels have fewer scales than the five of the definition, so compare
    at equal `scales` only. `floor` is the similarity of as many pairs of training images.
    """
    data = subject.data
    samples = subject.samples(n_samples)
    one, other = _pairs(n_samples, n_pairs, subject.seed)
    values = similarity(samples[one.to(samples.device)], samples[other.to(samples.device)])
    chosen = real_images(subject, "train", n_samples)
    one, other = (rows.to(chosen.device) for rows in _pairs(len(chosen), n_pairs, subject.seed))
    real = similarity(data.images("train", chosen[one]), data.images("train", chosen[other])).mean().item()
    mean, std, used = values.mean().item(), values.std(correction=0).item(), scales(min(data.train.shape[-2:]))
    stderr = std / math.sqrt(n_pairs)
    counts = f"{n_pairs:,} pairs of {n_samples:,} samples, scales: {used}; pairs of train images score {real:.3f}"
    details = {"std": std, "n_pairs": n_pairs, "scales": used, "floor_split": "train", "floor_n": len(chosen)}
    return Score(
        mean,
        stderr,
        f"{mean:.3f} ± {stderr:.3f} ({counts})",
        n_samples=n_samples,
        sample_kind=subject.sample_kind,
        floor=real,
        details=details | {"seed": subject.seed},
    )


def _pairs(n: int, n_pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which of n images make up each pair; the two are never the same."""
    generator = rng.generator(torch.device("cpu"), seed, "pairs")
    one = torch.randint(n, (n_pairs,), generator=generator)
    return one, (one + torch.randint(1, n, (n_pairs,), generator=generator)) % n
