"""Multi-scale structural similarity of pairs of samples: it measures diversity, not quality."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject, lower_is_better, mean_and_errors, requires
from genexp.metrics.features import real_rows
from genexp.ranges import AsBefore, PositiveInt, Split
from genexp.score import Score

WINDOW = 11  # pixels, a Gaussian of σ = 1.5
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003: the weight of each scale, the finest first
CHUNK = 500  # pairs at a time


def scales(side: int) -> int:
    """Return the number of scales for images of `side` pixels: a window must fit into the coarsest; 0 if into none.

    Each scale halves the side. torchmetrics also wants a window to fit into side / (scales − 1)², which is stricter
    only for sides of 88 to 98.
    """
    fitting = [m for m in range(1, len(BETAS) + 1) if min(side >> (m - 1), side // max(1, m - 1) ** 2) >= WINDOW]
    return max(fitting, default=0)


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """Return the similarity, in [0, 1], of n pairs of images (n, C, H, W) in [0, 1]; (n,) float64 on the CPU.

    Images are not resized. The weights of the `scales` that fit add up to 1. Negative correlations count as 0.
    Source: Wang et al. 2003, equation 7.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # seconds to import

    weights = BETAS[: scales(min(x.shape[-2:]))]
    betas = tuple(beta / sum(weights) for beta in weights)
    parts = [
        multiscale_structural_similarity_index_measure(
            x[i : i + CHUNK], y[i : i + CHUNK], reduction="none", data_range=1.0, betas=betas
        )
        for i in range(0, len(x), CHUNK)
    ]
    return torch.cat(parts).cpu().double()


def _refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if not scales(min(data.train.shape[-2:])):
        return f"similarity is of windows of {WINDOW}×{WINDOW} pixels, and these images are smaller"
    return "n_samples=1: there are no pairs of one sample" if settings["n_samples"] < 2 else None


@lower_is_better
@requires(_refusal)
def ms_ssim(
    subject: Subject,
    *,
    n_samples: PositiveInt,
    n_pairs: PositiveInt,
    split: Annotated[Split, AsBefore("train")] = "train",
) -> Score:
    """Return the mean similarity of random pairs of samples; lower is more diverse (Odena et al. 2017, section 4.2).

    Odena et al. pair samples of one class. Here pairs are of any two samples, so the similarity is lower. Images of
    fewer than 176 pixels have fewer than the five scales of the definition: compare at equal `scales` only. `floor` is
    the similarity of as many pairs of images of `split`.
    """
    data, samples = subject.data, subject.samples(n_samples)
    first, second = _pairs(n_samples, n_pairs, subject.seed)
    mean, std, stderr = mean_and_errors(similarity(samples[first], samples[second]))
    real = real_rows(subject, split, n_samples)
    first, second = _pairs(len(real), n_pairs, subject.seed)
    floor = similarity(data.images(split, real[first]), data.images(split, real[second])).mean().item()
    n_scales = scales(min(data.train.shape[-2:]))
    counts = (
        f"{n_pairs:,} pairs of {n_samples:,} samples, scales: {n_scales}; pairs of {split} images score {floor:.3f}"
    )
    details = {"std": std, "n_pairs": n_pairs, "scales": n_scales, "floor_split": split, "floor_n": len(real)}
    return Score(
        mean,
        stderr,
        f"{mean:.3f} ± {stderr:.3f} ({counts})",
        split=split,
        n_samples=n_samples,
        sample_kind=subject.sample_kind,
        floor=floor,
        details=details | {"seed": subject.seed},
    )


def _pairs(n: int, n_pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of the first and the second image of each pair of n images; the two always differ."""
    generator = rng.generator(torch.device("cpu"), seed, "pairs")
    first = torch.randint(n, (n_pairs,), generator=generator)
    return first, (first + torch.randint(1, n, (n_pairs,), generator=generator)) % n
