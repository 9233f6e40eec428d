"""The other half of a data set, transformed: a second data set for which the true translations are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genexp.data import CHUNK, SPLITS, DataSet, Derived
from genexp.errors import UsageError

GROUND, INK = (0.1, 0.1, 0.4), (1.0, 0.9, 0.2)  # the colours of black and white: blue and yellow
SHEAR = 0.4  # columns by which a row is moved for each row below the middle
Transform = Literal["inverted", "sheared", "coloured", "thick"]


def other_half(data_dir: Path, *, transform: Literal["inverted", "sheared", "coloured", "thick"]) -> Derived:
    """Return a second data set made of the first: one half of each split stays, the other one is transformed.

    One fixed permutation of each split draws the halves, so no image is in both. Both halves know the truth: how each
    of their images looks in the other one.

    inverted: black becomes white. sheared: rows are moved sideways. coloured: black becomes blue, and white yellow.
    thick: each pixel becomes the brightest one around it. Raises UsageError, when it is called, for points, for a split
    of one image, for colour images that are to be `coloured`, and for images that are drawn anew at each use.
    """
    return Derived(lambda first: _halves(first, transform))


def _halves(first: DataSet, name: Transform) -> DataSet:
    if first.bounds is not None or (name == "coloured" and first.shape[0] != 1):
        wanted = "grey images" if name == "coloured" else "images"
        raise UsageError(
            f"dataset_b.transform={name} is of {wanted}; choose such a data set, or another dataset@dataset_b"
        )
    if first.fresh:
        raise UsageError(
            "dataset@dataset_b=other_half transforms fixed images, and dataset.binarize=fresh draws them at each use\n"
            "Set dataset.binarize to fixed or threshold, or leave it out"
        )
    rows = {}
    for split in SPLITS:
        order = torch.randperm(len(getattr(first, split)), generator=torch.Generator().manual_seed(0))
        if len(order) < 2:
            raise UsageError(f"dataset@dataset_b=other_half: the {split} split has one image, which cannot be halved")
        rows[split] = order[: len(order) // 2], order[len(order) // 2 :]
    a, b = (_part(first, {split: halves[side] for split, halves in rows.items()}) for side in (0, 1))
    transform = TRANSFORMS[name]
    train, valid, test = (_quantized(b, split, transform) for split in SPLITS)
    of_b = {"valid": b.valid, "test": b.test}
    second = replace(b, train=train, valid=valid, test=test, white=255, truth=of_b)
    truth = {split: _quantized(a, split, transform) for split in ("valid", "test")}
    return replace(a, second=second, truth=truth)


def _part(data: DataSet, rows: dict[str, Tensor]) -> DataSet:
    """Return the given rows of each split, without folds."""
    train, valid, test = (getattr(data, split)[rows[split]] for split in SPLITS)
    labels = {split: labels[rows[split]] for split, labels in data.labels.items()}
    return replace(data, train=train, valid=valid, test=test, labels=labels, folds=(), classes=data.class_names())


def _quantized(data: DataSet, split: str, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the transformed images of a split, uint8, 255 for white."""
    starts = range(0, len(getattr(data, split)), CHUNK)
    chunks = (transform(data.images(split, slice(start, start + CHUNK))) for start in starts)
    return torch.cat([(255 * chunk).round().clamp(0, 255).to(torch.uint8) for chunk in chunks])


def _sheared(images: Tensor) -> Tensor:
    """Move each row by SHEAR times its distance from the middle row, with linear interpolation; outside is 0."""
    matrix = torch.tensor([[1.0, SHEAR * images.shape[2] / images.shape[3], 0.0], [0.0, 1.0, 0.0]])
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _coloured(images: Tensor) -> Tensor:
    ground, ink = (torch.tensor(colour).view(1, 3, 1, 1) for colour in (GROUND, INK))
    return ground + images * (ink - ground)


def _thick(images: Tensor) -> Tensor:
    """Replace each pixel by the largest of 3×3, or of 2×2 in images of less than 16 pixels."""
    if min(images.shape[2:]) < 16:
        return F.max_pool2d(F.pad(images, (1, 0, 1, 0)), 2, 1)
    return F.max_pool2d(images, 3, 1, padding=1)


TRANSFORMS: dict[Transform, Callable[[Tensor], Tensor]] = {
    "inverted": lambda images: 1 - images,
    "sheared": _sheared,
    "coloured": _coloured,
    "thick": _thick,
}
