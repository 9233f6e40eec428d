"""CIFAR-10, downloaded once, verified by checksum before it is unpickled, and read through torchvision."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genexp.data import CHUNK, DataSet
from genexp.data.download import fetch, split, torchvision_reader, verify_md5
from genexp.ranges import AsBefore

TRAINING_IMAGES = 40_000  # as in Goodfellow et al. 2014; the last 10,000 of the 50,000 are the validation split
GCN_SCALE = 55.0  # ‖v‖ of each image; over its 3,072 values a standard deviation of 55/√3072 = 0.992
GCN_RANGE = 4.0  # |v| beyond which values are clipped: 4.03 standard deviations, 0.0056 % of a Gaussian's values


def cifar10(
    data_dir: Path, *, normalization: Literal["none", "gcn"], flip: Annotated[bool, AsBefore(False)] = False
) -> DataSet:
    """Return 40,000 / 10,000 / 10,000 images of 3×32×32 from data_dir/cifar-10-batches-py, downloaded on first use.

    With normalization="gcn" each image x is contrast-normalised over all of its 3,072 values, as pylearn2 did for the
    original GAN: v = 55·(x − mean(x)) / ‖x − mean(x)‖. It is stored as the image 0.5 + v/8 in [0, 1], in steps of
    1/255. The range is thus ±4 standard deviations of v, and values beyond it are clipped.

    Raises DataError, naming the file and the remedy, for a file that cannot be downloaded or is damaged.
    Source: Krizhevsky 2009.
    """
    reader = torchvision_reader("CIFAR10")
    folder = data_dir / reader.base_folder
    md5 = dict([*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])])
    fetch(lambda: reader, "CIFAR-10", data_dir, folder, md5, f"the files of {reader.filename}")
    for name in md5:
        verify_md5("CIFAR-10", folder / name, md5[name])

    train, test = (reader(str(data_dir), train=train) for train in (True, False))
    images, test_images = (_channels_first(part.data) for part in (train, test))
    if normalization == "gcn":
        images, test_images = contrast_normalized(images), contrast_normalized(test_images)
    labels, test_labels = (torch.as_tensor(part.targets, dtype=torch.int64) for part in (train, test))
    data = split(images, labels, test_images, test_labels, TRAINING_IMAGES, train.classes)
    return replace(data, flip=flip)


def _channels_first(images: NDArray[np.uint8]) -> Tensor:
    """Return (N, H, W, C) images as (N, C, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def contrast_normalized(images: Tensor) -> Tensor:
    """Normalise each of (N, C, H, W) uint8 images over all of its values, and return them as uint8; see `cifar10`.

    An image of one colour has no contrast, and becomes grey (v = 0).
    """
    normalized = torch.empty_like(images)
    for first in range(0, len(images), CHUNK):  # in float32, all of them would take 700 MB
        values = images[first : first + CHUNK].flatten(1).float()
        values -= values.mean(1, keepdim=True)
        norm = values.norm(dim=1, keepdim=True)
        values *= torch.where(norm > 0.5, GCN_SCALE / norm, 0)  # the least contrast, one step in one value, has norm 1
        pixels = values.div_(2 * GCN_RANGE).add_(0.5).clamp_(0, 1).mul_(255).round_()
        normalized[first : first + CHUNK] = pixels.to(torch.uint8).view_as(images[first : first + CHUNK])
    return normalized
