"""Data sets as tensors: loaded once as uint8, kept on the device, converted to float32 a batch at a time."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from genexp import rng
from genexp.errors import UsageError
from genexp.ranges import Binarization

CHUNK = 5000  # images converted at a time by code that reads a whole split
CONTRAST = 1e-3  # in [0, 1]; the least pixel_std, so that a model can divide by it
SPLITS = ("train", "valid", "test")
FIXED = 0  # the seed of images that are binarized once; it is the data's own


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that a model is built from."""

    shape: tuple[int, ...]  # channels, height, width of images; (d,) for points
    pixel_mean: Tensor  # mean training image, of this shape, in [0, 1]
    pixel_std: float  # standard deviation of all training pixels around their common mean, at least CONTRAST
    n_train: int  # training images
    classes: tuple[str, ...] = ()  # the names of the labels' classes; () if no training image has a label
    second: "DataSpec | None" = None  # of the second data set, for models that are trained on two
    low: float = 0.0  # the least value of a training image
    high: float = 1.0  # the largest one

    @property
    def size(self) -> int:
        """Return the number of values in an image, C·H·W, or in a point, d."""
        return self.pixel_mean.numel()

    @property
    def points(self) -> bool:
        """True for points, whose values are coordinates and no shades of grey."""
        return len(self.shape) == 1

    def image_shape(self, model: str) -> tuple[int, int, int]:
        """Return channels, height and width. Raises UsageError for points, naming the model that needs images."""
        if self.points:
            raise UsageError(
                f"model={model} convolves images, and this data set has points in {self.size} "
                "dimensions\nUse a fully connected model, such as model=gan or model=vae"
            )
        channels, height, width = self.shape
        return channels, height, width


class Density(Protocol):
    """A density that is known."""

    def log_prob(self, points: Tensor) -> Tensor:
        """Return log p(x), (n,) float64 in nats, of points (n, d) in their own coordinates."""


@dataclass(frozen=True)
class Bounds:
    """The box that holds all points of a data set; a model sees it as [0, 1]ᵈ."""

    low: tuple[float, ...]  # the d coordinates that a model sees as 0
    high: tuple[float, ...]  # those that it sees as 1

    def coordinates(self, points: Tensor) -> Tensor:
        """Return points (n, d) in [0, 1] in their own coordinates, in float64 on the CPU."""
        low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (self.low, self.high))
        return low + points.cpu().double() * (high - low)


@dataclass(frozen=True)
class DataSet:
    """Images of three explicit splits, and their labels; or points.

    A split of images is (N, C, H, W), uint8 with values from 0 to `white`, or float32 in [0, 1] with `white` 1. A split
    of points is (N, d) float32 in [0, 1] with `white` 1, and comes with `bounds`.

    With `fresh`, the splits hold probabilities of white, and `images` returns binary draws from them. The seed `draws`
    decides the draws of a whole split, so that an image is the same whenever it is asked for; see `drawn`.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)  # split -> (N,) int64 classes, −1 for no label
    white: int = 255
    folds: tuple[tuple[Tensor, Tensor], ...] = ()  # validation and test images of each fold, for data sets with folds
    classes: tuple[str, ...] = ()  # the classes' names; numbers stand for those that have none
    bounds: Bounds | None = None  # of points; None for images
    density: Density | None = None  # that points were drawn from, if it is known
    second: "DataSet | None" = None  # the second data set of a run, for models that are trained on two
    truth: dict[str, Tensor] = field(default_factory=dict)  # split -> how each image should look in the other data set
    fresh: bool = False  # True: images are binary draws, anew at each use
    flip: bool = False  # True: half of the training images are mirrored left to right, drawn anew at each step
    draws: int | None = FIXED  # the seed of the draws of `fresh`; None: the default generators, in training

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one image, (C, H, W), or of one point, (d,)."""
        return tuple(self.train.shape[1:])

    @property
    def device(self) -> torch.device:
        """The device of the images that `images` returns, and of everything but training images that are `on_host`."""
        return self.valid.device

    @property
    def on_host(self) -> bool:
        """True if training images stay in the host's memory, since they would fill a GPU's."""
        return self.train.device != self.device

    def to(self, device: torch.device) -> "DataSet":
        """Return the same data on another device, but for training images that are too large for it."""
        return replace(
            self,
            train=self.train if too_large(self.train, device) else self.train.to(device),
            **{split: getattr(self, split).to(device) for split in ("valid", "test")},
            labels={split: labels.to(device) for split, labels in self.labels.items()},
            folds=tuple((valid.to(device), test.to(device)) for valid, test in self.folds),
            second=None if self.second is None else self.second.to(device),
            truth={split: images.to(device) for split, images in self.truth.items()},
        )

    def with_valid_in_training(self) -> "DataSet":
        """Return the same data with the validation images among the training images, behind them."""
        labels = {**self.labels, "train": torch.cat([self.labels_of("train"), self.labels_of("valid")])}
        return replace(self, train=torch.cat([self.train, self.valid]), labels=labels if self.labels else {})

    def of_folds(self) -> list["DataSet"]:
        """Return a data set for each fold, with the fold's validation and test images and without labels."""
        return [replace(self, valid=valid, test=test, labels={}, folds=()) for valid, test in self.folds]

    def images(self, split: str, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return the images of a split at `rows` as float32 in [0, 1], shape (n, C, H, W); or points, (n, d)."""
        if self.fresh and self.draws is not None:
            return self._at(self._drawn_split(split), rows).float()
        return self.seen(split, self._at(getattr(self, split), rows))

    def seen(self, split: str, stored: Tensor) -> Tensor:
        """Return stored images of a split as a model sees them: in [0, 1], mirrored and binary where that is asked."""
        images = stored / self.white
        if self.flip and self.draws is None and split == "train":
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
        return torch.bernoulli(images) if self.fresh else images

    def _at(self, stored: Tensor, rows: Tensor | slice) -> Tensor:
        if stored.device == self.device:
            return stored[rows]
        return stored[rows.to(stored.device) if isinstance(rows, Tensor) else rows].to(self.device)

    def binarized(self, how: Binarization) -> "DataSet":
        """Return the data set with binary images, made of grey ones in the way that `dataset.binarize` names.

        none: as they are. threshold: white where a pixel is at least ½. fixed: white with the probability of its grey,
        drawn once, the same in all runs. fresh: drawn anew at each use, as in Burda et al. 2016. Raises UsageError for
        points and colour images.
        """
        if how == "none":
            return self
        if self.bounds is not None or self.shape[0] != 1:
            kind = "points" if self.bounds is not None else f"images of {self.shape[0]} channels"
            raise UsageError(
                f"dataset.binarize={how} is for grey images, and these are {kind}\n"
                "Leave it out, or choose grey images, such as dataset=mnist or dataset=folder dataset.channels=1"
            )
        if how == "fresh":
            return replace(self, fresh=True)

        def binary(images: Tensor, split: str) -> Tensor:
            if how == "fixed":
                return _bernoulli(images, self.white, FIXED, split)
            return torch.cat([chunk / self.white >= 0.5 for chunk in torch.split(images, CHUNK)]).to(torch.uint8)

        train, valid, test = (binary(getattr(self, split), split) for split in SPLITS)
        folds = tuple((binary(valid, "valid"), binary(test, "test")) for valid, test in self.folds)
        return replace(self, train=train, valid=valid, test=test, folds=folds, white=1)

    def drawn(self, seed: int | None) -> "DataSet":
        """Return the data set with the draws of `seed`, by which a score is taken; itself if there is nothing to draw.

        With None each call of `images` draws from the default generators, which are seeded for each step of training,
        and mirrors training images with `flip`.
        """
        second = self.second
        if second is not None:
            second = second.drawn(None if seed is None else rng.address(seed, "second data set"))
        changes = ((self.fresh or self.flip) and seed != self.draws) or second is not self.second
        return replace(self, draws=seed, second=second) if changes else self

    def _drawn_split(self, split: str) -> Tensor:
        """Return the draws of all images of a split, uint8; they are made once."""
        assert self.draws is not None
        if split not in self._drawn_splits:
            self._drawn_splits[split] = _bernoulli(getattr(self, split), self.white, self.draws, split)
        return self._drawn_splits[split]

    @cached_property
    def _drawn_splits(self) -> dict[str, Tensor]:
        return {}

    def batch(self, split: str, rows: Tensor | slice = slice(None), stored: Tensor | None = None) -> dict[str, Tensor]:
        """Return `images`, and `labels` (n,) if there are any, of a split at `rows`; `stored` are its images there."""
        batch = {"images": self.images(split, rows) if stored is None else self.seen(split, stored)}
        return batch | {"labels": self.labels[split][rows].long()} if split in self.labels else batch

    @property
    def images_per_epoch(self) -> int:
        """The number of training images; of the larger one of two data sets."""
        return max(len(self.train), 0 if self.second is None else len(self.second.train))

    @property
    def has_labels(self) -> bool:
        """True if a training image has a label."""
        labels = self.labels.get("train")
        return labels is not None and bool((labels >= 0).any())

    def labels_of(self, split: str) -> Tensor:
        """Return the labels of a split, (N,) int64; −1 for all if it has none."""
        images: Tensor = getattr(self, split)
        return self.labels[split] if split in self.labels else torch.full((len(images),), -1, device=images.device)

    def class_names(self) -> tuple[str, ...]:
        """Return the name of each class; numbers, if they have no names."""
        largest = max((int(labels.max()) for labels in self.labels.values() if len(labels)), default=-1)
        return self.classes or tuple(map(str, range(largest + 1)))

    def spec(self) -> DataSpec:
        """Return the image shape, the moments and the range of the training images, and the classes."""
        mean, squares = torch.zeros(2, *self.shape, dtype=torch.float64)
        low, high = (end.item() / self.white for end in self.train.aminmax())
        for chunk in torch.split(self.train, CHUNK):  # a colour data set in float32 would take gigabytes
            images = chunk / self.white
            mean += images.sum(0).cpu()
            squares += (
                (images if self.fresh else images.square()).sum(0).cpu()
            )  # the mean square of draws is their mean
        mean, squares = mean / len(self.train), squares / len(self.train)
        std = (squares.mean() - mean.mean().square()).clamp(min=0).sqrt().item()
        second = None if self.second is None else self.second.spec()
        classes = self.class_names() if self.has_labels else ()
        return DataSpec(self.shape, mean.float(), max(std, CONTRAST), len(self.train), classes, second, low, high)

    def digest(self) -> str:
        """Return a hash of all images, labels and folds, and of how they are split; of the second data set, too."""
        digest = hashlib.sha256()
        labels = [self.labels[split] for split in sorted(self.labels)]
        folds = [images for fold in self.folds for images in fold]
        splits = [self.train, self.valid, self.test]
        if self.bounds is not None:
            splits = [points[:, None, None] for points in splits]  # 1×1×d, as runs were kept before points had a shape
        for tensor in (*splits, *labels, *folds):
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        if self.fresh:
            digest.update(b"fresh")
        if self.second is not None:
            digest.update(self.second.digest().encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Derived:
    """A second data set that is made of the first: what a data set's function may return instead of a DataSet."""

    pair: Callable[[DataSet], DataSet]  # the first data set -> the first data set of the run, with its `second`


def too_large(images: Tensor, device: torch.device) -> bool:
    """Return True if the images would take more than half of an NVIDIA GPU's memory."""
    return device.type == "cuda" and images.nbytes > torch.cuda.get_device_properties(device).total_memory / 2


def _bernoulli(images: Tensor, white: int, seed: int, split: str) -> Tensor:
    """Draw binary images, uint8, whose probabilities of white are the greys of all images of a split."""
    generator = rng.generator(images.device, seed, f"binary {split}")
    chunks = (torch.bernoulli(chunk / white, generator=generator) for chunk in torch.split(images, CHUNK))
    return torch.cat([chunk.to(torch.uint8) for chunk in chunks])


def split_by_rows(
    images: Tensor, labels: Tensor, rows: Mapping[str, Tensor], white: int = 255, classes: tuple[str, ...] = ()
) -> DataSet:
    """Return a data set whose splits are the given rows, or masks of rows, of all images."""
    train, valid, test = (images[rows[split]] for split in SPLITS)
    of_rows = {split: labels[rows[split]] for split in rows}
    return DataSet(train, valid, test, of_rows, white, classes=classes)
