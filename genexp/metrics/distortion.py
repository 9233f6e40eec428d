"""Distortion of reconstructions, beside the length of the code."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.metrics import GivenSamples, Subject, mean_and_errors, of_models, requires
from genexp.metrics.features import float64
from genexp.metrics.ms_ssim import WINDOW, of_windows
from genexp.models import Model, Reconstructs, code_size, reconstructed
from genexp.models.samplers import CHUNK
from genexp.ranges import Split
from genexp.score import Score
from genexp.text import count, with_error

LEAST_ERROR = (1 / 255) ** 2 / 12  # mean squared error of rounding to 8 bits; an exact copy counts as this
FEW = 100  # images compared at a time


def _of_images(model: Model | GivenSamples, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    return "it compares images, and these are points" if data.bounds is not None else None


def _large_enough(model: Model | GivenSamples, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if data.bounds is None and min(data.shape[-2:]) < WINDOW:
        return f"its windows have sides of {WINDOW} pixels, and these images are smaller"
    return None


@of_models(Reconstructs, "it compares images with their reconstructions, and this model makes none")
@requires(_of_images)
def psnr(subject: Subject, *, split: Split) -> Score:
    """Return the mean peak signal-to-noise ratio, 10 log₁₀(1 / mean squared error) in dB, of a split's reconstructions.

    The values of images are in [0, 1]. The length of the code stands beside it.
    """

    def decibels(x: Tensor, y: Tensor) -> Tensor:
        return -10 * (x - y).square().flatten(1).mean(1).clamp(LEAST_ERROR).log10()

    return _score(subject, split, " dB", decibels)


@of_models(Reconstructs, "it compares images with their reconstructions, and this model makes none")
@requires(_of_images)
@requires(_large_enough)
def ssim(subject: Subject, *, split: Split) -> Score:
    """Return the mean structural similarity, at most 1, of a split's images and their reconstructions.

    Windows are Gaussian, 11 pixels wide with σ = 1.5, and lie inside the image (Wang et al. 2004). The length of the
    code stands beside it.
    """

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        luminance, structure = of_windows(x, y)
        return (luminance * structure).flatten(1).mean(1)

    return _score(subject, split, "", similarity)


def _score(subject: Subject, split: str, unit: str, compare: Callable[[Tensor, Tensor], Tensor]) -> Score:
    model, data = subject.model, subject.data
    assert isinstance(model, Model)
    values, size = [], code_size(model, data.batch(split, slice(0, 1)))
    for start in range(0, len(getattr(data, split)), CHUNK):
        batch = data.batch(split, slice(start, start + CHUNK))
        for x, y in zip(torch.split(batch["images"], FEW), torch.split(reconstructed(model, batch), FEW), strict=True):
            values.append(compare(float64(x), float64(y)).cpu())
    mean, _, stderr = mean_and_errors(torch.cat(values))
    at = "" if size is None else f", codes of {count(size, 'number')}"
    summary = f"{with_error(mean, stderr)}{unit}{at}"
    return Score(mean, stderr, summary, split=split, details={"code_size": size, "n_points": sum(map(len, values))})
