"""Data sets as tensors: loaded once as uint8, kept on the device, converted to float32 a batch at a time."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK = 5000  # images converted at a time by code that reads a whole split
CONTRAST = 1e-3  # in [0, 1]; the least pixel_std, so that a model can divide by it


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that a model is built from."""

    shape: tuple[int, int, int]  # channels, height, width
    pixel_mean: Tensor  # mean training image, shape (C, H, W), in [0, 1]
    pixel_std: float  # standard deviation of all training pixels around their common mean, at least CONTRAST
    n_train: int  # training images
    points: bool = False  # True for points of the plane, whose values are no shades of grey

    @property
    def size(self) -> int:
        """Return the number of values in an image, C·H·W."""
        return self.pixel_mean.numel()


@dataclass(frozen=True)
class Mixture:
    """The Gaussians that points of the plane were drawn from, with the square ±`extent` around 0 scaled to [0, 1]²."""

    means: Tensor  # (modes, 2), in [0, 1]² like the points
    std: float  # of each mode in each coordinate, in the same units
    extent: float


@dataclass(frozen=True)
class DataSet:
    """Images of three explicit splits, and their labels.

    A split is (N, C, H, W), uint8 with values from 0 to `white`, or float32 in [0, 1] with `white` 1. Points of the
    plane are images of 1×1×2, and come with the mixture that they were drawn from.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    labels: dict[str, Tensor]  # split -> (N,) int64, −1 for an image without a label
    white: int = 255
    mixture: Mixture | None = None
    folds: tuple[tuple[Tensor, Tensor], ...] = ()  # validation and test images of each fold, for data sets with folds

    def to(self, device: torch.device) -> "DataSet":
        """Return the same data on another device."""
        labels = {split: labels.to(device) for split, labels in self.labels.items()}
        folds = tuple((valid.to(device), test.to(device)) for valid, test in self.folds)
        splits = {split: getattr(self, split).to(device) for split in ("train", "valid", "test")}
        return replace(self, **splits, labels=labels, folds=folds)

    def of_folds(self) -> list["DataSet"]:
        """Return a data set for each fold, with the fold's validation and test images and without labels."""
        return [replace(self, valid=valid, test=test, labels={}, folds=()) for valid, test in self.folds]

    def images(self, split: str, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return the images of a split at `rows` as float32 in [0, 1], shape (n, C, H, W)."""
        images: Tensor = getattr(self, split)[rows]
        return images / self.white

    def spec(self) -> DataSpec:
        """Return the image shape and the moments of the training images."""
        channels, height, width = self.train.shape[1:]
        mean, squares = torch.zeros(2, channels, height, width, dtype=torch.float64)
        for first in range(0, len(self.train), CHUNK):  # a colour data set in float32 would take gigabytes
            images = self.images("train", slice(first, first + CHUNK))
            mean += images.sum(0).cpu()
            squares += images.square().sum(0).cpu()
        mean, squares = mean / len(self.train), squares / len(self.train)
        std = (squares.mean() - mean.mean().square()).clamp(min=0).sqrt().item()
        points = self.mixture is not None
        return DataSpec((channels, height, width), mean.float(), max(std, CONTRAST), len(self.train), points)

    def digest(self) -> str:
        """Return a hash of all images, labels and folds, and of how they are split."""
        digest = hashlib.sha256()
        labels = [self.labels[split] for split in sorted(self.labels)]
        folds = [images for fold in self.folds for images in fold]
        for tensor in (self.train, self.valid, self.test, *labels, *folds):
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]


def split_by_rows(images: Tensor, labels: Tensor, rows: dict[str, Tensor], white: int = 255) -> DataSet:
    """Return a data set whose splits are the given rows, or masks of rows, of all images."""
    train, valid, test = (images[rows[split]] for split in ("train", "valid", "test"))
    return DataSet(train, valid, test, {split: labels[rows[split]] for split in rows}, white)
