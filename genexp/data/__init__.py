"""Data sets as tensors: loaded once as uint8, kept on the device, converted a batch at a time."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a model may know of the data that it is built for."""

    shape: tuple[int, int, int]  # channels, height, width
    pixel_mean: Tensor  # mean training image, shape (C, H, W), in [0, 1]

    @property
    def size(self) -> int:
        """Values in an image, C·H·W."""
        channels, height, width = self.shape
        return channels * height * width


@dataclass(frozen=True)
class DataSet:
    """Images of three explicit splits, each (N, C, H, W) uint8 with values from 0 to `white`, and their labels."""

    train: Tensor
    valid: Tensor
    test: Tensor
    labels: dict[str, Tensor]  # split -> (N,) int64
    white: int = 255

    def to(self, device: torch.device) -> "DataSet":
        """The same data on another device."""
        labels = {split: labels.to(device) for split, labels in self.labels.items()}
        return replace(
            self, train=self.train.to(device), valid=self.valid.to(device), test=self.test.to(device), labels=labels
        )

    def images(self, split: str, rows: Tensor | slice = slice(None)) -> Tensor:
        """The chosen images of a split as float32 in [0, 1], shape (n, C, H, W)."""
        chosen: Tensor = getattr(self, split)[rows]
        return chosen.to(torch.float32).div_(self.white)

    def spec(self) -> DataSpec:
        """The image shape and the mean training image."""
        channels, height, width = self.train.shape[1:]
        return DataSpec((channels, height, width), self.images("train").mean(0).cpu())
