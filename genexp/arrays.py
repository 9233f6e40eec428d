"""Scores as functions of arrays, also of samples that genexp did not make.

Images are float32 tensors (n, C, H, W) in [0, 1], or NumPy arrays, without the axis of one channel, or uint8, of which
255 is white.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from genexp.config.command_line import CommandLine
from genexp.config.compose import configuration
from genexp.errors import UsageError
from genexp.score import Score

if TYPE_CHECKING:
    from torch import Tensor

    Array = Tensor | np.ndarray[Any, Any]


def parzen(
    samples: "Array",
    images: "Array",
    valid: "Array | None" = None,
    sigma: float | Sequence[float] | None = None,
) -> Score:
    """Return the Parzen-window log-likelihood of images under Gaussians around samples, in nats.

    σ is chosen from `sigma`, or the published grid, by the first 1,000 images of `valid`; without `valid`, `sigma` is
    one number. The protocol is that of Goodfellow et al. 2014; see `genexp.metrics.parzen`.
    """
    from genexp.data import DataSet
    from genexp.metrics.parzen import score_samples
    from genexp.training.given import as_images

    if valid is None and not isinstance(sigma, int | float):
        raise UsageError("give valid=IMAGES, by which σ is chosen, or one sigma=NUMBER")
    shipped = _shipped("parzen")
    grid = [float(sigma)] if isinstance(sigma, int | float) else list(sigma or shipped["sigma_grid"])
    x, test = as_images(samples, "samples"), as_images(images)
    data = DataSet(test[:0], test[:1] if valid is None else as_images(valid), test, white=1)
    if x.shape[1:] != test.shape[1:]:
        raise UsageError(f"the samples are {tuple(x.shape)} and the images {tuple(test.shape)}")
    score = score_samples(x, data, n_valid=int(shipped["n_valid"]), sigma_grid=grid, split="test")
    return score if len(grid) > 1 else replace(score, valid_mean=None)


def fid(
    samples: "Array",
    images: "Array",
    features: Callable[["Tensor"], "Tensor"] | str | Path | None = None,
) -> float:
    """Return the Fréchet distance between features of samples and of images (Heusel et al. 2017); lower is better.

    `features` is a function, (n, C, H, W) -> (n, d), or the path of torch-fidelity's Inception weights: the FID as
    published. Without it `samples` and `images` are features, (n, d).
    """
    from genexp.metrics.frechet import frechet_distance

    return frechet_distance(*_features(samples, images, features))


def prdc(
    samples: "Array",
    images: "Array",
    features: Callable[["Tensor"], "Tensor"] | str | Path | None = None,
    k: int = 5,
) -> dict[Literal["precision", "recall", "density", "coverage"], float]:
    """Return precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), k neighbours.

    `features` as in `fid`.
    """
    from genexp.metrics.precision_recall import prdc as of_features

    x, y = _features(samples, images, features)
    shares = of_features(y, x, k)
    return {name: getattr(shares, name).mean().item() for name in ("precision", "recall", "density", "coverage")}


def _features(samples: "Array", images: "Array", features: Any) -> "tuple[Tensor, Tensor]":
    from genexp.training.given import as_images, as_tensor

    if isinstance(features, str | Path):
        import torch

        from genexp.metrics.extractors import inception

        network = inception(Path(features).expanduser(), torch.device("cpu"))
        return network(as_images(samples, "samples")).vectors, network(as_images(images)).vectors
    if features is None:
        x, y = as_tensor(samples), as_tensor(images)
        if x.ndim != 2 or y.ndim != 2:
            raise UsageError("give features=FUNCTION, or features (n, d) in the place of samples and images")
        return x.float(), y.float()
    return features(as_images(samples, "samples")), features(as_images(images))


def _shipped(metric: str) -> dict[str, Any]:
    """Return the settings of a metric as shipped."""
    config = configuration(CommandLine("train", (f"metric@metrics.{metric}={metric}",)))
    return dict(config.metrics[metric])
