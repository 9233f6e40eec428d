"""Multi-scale structural similarity of pairs of samples: it measures diversity, not quality."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject, lower_is_better, mean_and_errors, requires
from genexp.metrics.features import float64, real_rows
from genexp.ranges import AsBefore, AtLeastTwo, PositiveInt, Split
from genexp.score import Score
from genexp.text import count, with_decimals

WINDOW, SIGMA = 11, 1.5  # pixels: the side and the standard deviation of a Gaussian window
C1, C2 = 0.01**2, 0.03**2  # Wang et al. 2004: they keep the ratios finite, for a range of values of 1
Windows = Literal["inside", "reflected"]
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003: the weight of each scale, the finest first


def scales(side: int) -> int:
    """Return the number of scales for images of `side` pixels: a window must fit into the coarsest; 0 if into none.

    Each scale halves the side. torchmetrics also wants a window to fit into side / (scales − 1)², which is stricter
    only for sides of 88 to 98; both kinds of windows have its number of scales.
    """
    fitting = [m for m in range(1, len(BETAS) + 1) if min(side >> (m - 1), side // max(1, m - 1) ** 2) >= WINDOW]
    return max(fitting, default=0)


def similarity(x: Tensor, y: Tensor, windows: Windows = "inside") -> Tensor:
    """Return the similarity, in [0, 1], of n pairs of images (n, C, H, W) in [0, 1]; (n,) float64 on the CPU.

    With windows="inside" it is Π_{j<M} cs_j^β_j · (l·cs)_M^β_M over the scales j = 1 … M: contrast and structure of
    each, and luminance of the coarsest. Each factor is a mean over the windows that lie inside the image, and over
    channels; a negative one counts as 0. A pixel of a scale is the mean of 2×2 pixels of the one before. Images are not
    resized, and the weights of the `scales` that fit add up to 1. Source: Wang et al. 2003, equation 7.

    With "reflected" it is what torchmetrics has: the coarsest scale is averaged over windows across the border, too,
    beyond which the image is reflected.
    """
    weights = BETAS[: scales(min(x.shape[-2:]))]
    betas = [beta / sum(weights) for beta in weights]
    compare, chunk = (_inside, 100) if windows == "inside" else (_reflected, 500)  # pairs at a time
    return torch.cat([compare(x[i : i + chunk], y[i : i + chunk], betas).cpu() for i in range(0, len(x), chunk)])


def _inside(x: Tensor, y: Tensor, betas: list[float]) -> Tensor:
    x, y, value = float64(x), float64(y), torch.ones(len(x), dtype=torch.float64)
    for scale, beta in enumerate(betas, 1):
        luminance, contrast = of_windows(x, y)
        is_coarsest = scale == len(betas)
        part = luminance * contrast if is_coarsest else contrast
        value *= part.flatten(1).mean(1).clamp(min=0).cpu() ** beta
        x, y = (x, y) if is_coarsest else (avg_pool2d(x, 2), avg_pool2d(y, 2))
    return value


def of_windows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance, and contrast times structure, of each window of images, (n, C, H − 10, W − 10)."""
    n, channels, height, width = x.shape
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-places.square() / (2 * SIGMA**2))
    window /= window.sum()

    products = torch.stack([x, y, x * x, y * y, x * y]).view(-1, 1, height, width)
    means = conv2d(conv2d(products, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    mean_x, mean_y, xx, yy, xy = means.view(5, n, channels, *means.shape[-2:])
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    variances = xx - mean_x.square() + yy - mean_y.square()
    return luminance, (2 * (xy - mean_x * mean_y) + C2) / (variances + C2)


def _reflected(x: Tensor, y: Tensor, betas: list[float]) -> Tensor:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # seconds to import

    return multiscale_structural_similarity_index_measure(
        x, y, reduction="none", data_range=1.0, betas=tuple(betas)
    ).double()


def _refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if data.bounds is not None or not scales(min(data.train.shape[-2:])):
        return f"similarity is of windows of {WINDOW}×{WINDOW} pixels, and these images are smaller"
    n, split = settings["n_samples"], settings.get("split", "train")
    if min(n, len(getattr(data, split))) < 2:
        return f"pairs are of at least 2 samples and 2 {split} images; n_samples={n}, and there are " + count(
            len(getattr(data, split)), f"{split} image"
        )
    return None


@lower_is_better
@requires(_refusal)
def ms_ssim(
    subject: Subject,
    *,
    n_samples: AtLeastTwo,
    n_pairs: PositiveInt,
    split: Annotated[Split, AsBefore("train")] = "train",
    windows: Annotated[Literal["inside", "reflected"], AsBefore("reflected")] = "reflected",
) -> Score:
    """Return the mean similarity of random pairs of samples; lower is more diverse (Odena et al. 2017, section 4.2).

    Odena et al. pair samples of one class. Here pairs are of any two samples, so the similarity is lower. Images of
    fewer than 176 pixels have fewer than the five scales of the definition: compare at equal `scales` only. `floor` is
    the similarity of as many pairs of images of `split`. Scores by other `windows` do not compare, see `similarity`.
    """
    data, samples = subject.data, subject.samples(n_samples)
    first, second = _pairs(n_samples, n_pairs, subject.seed)
    mean, std, stderr = mean_and_errors(similarity(samples[first], samples[second], windows))
    real = real_rows(subject, split, n_samples)
    first, second = _pairs(len(real), n_pairs, subject.seed)
    floor = similarity(data.images(split, real[first]), data.images(split, real[second]), windows).mean().item()
    n_scales = scales(min(data.train.shape[-2:]))
    pairs = f"{count(n_pairs, 'pair')} of {count(n_samples, 'sample')}, scales: {n_scales}, windows: {windows}"
    counts = f"{pairs}; pairs of {split} images score {floor:.3f}"
    details: dict[str, Any] = {"std": std, "n_pairs": n_pairs, "scales": n_scales, "windows": windows}
    details |= {"floor_split": split, "floor_n": len(real)}
    return Score(
        mean,
        stderr,
        f"{with_decimals(mean, stderr, 3)} ({counts})",
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
