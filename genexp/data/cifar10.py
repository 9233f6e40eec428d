"""CIFAR-10, read through torchvision, verified by checksum before it is unpickled, downloaded once."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genexp.data import CHUNK, DataSet
from genexp.data.download import fetch, import_datasets, verify_md5

TRAINING_IMAGES = 40_000  # as in Goodfellow et al. 2014; the last 10,000 of the 50,000 are the validation split
GCN_SCALE = 55.0  # ‖v‖ of each image; over its 3,072 values a standard deviation of 55/√3072 = 0.992
GCN_RANGE = 4.0  # |v| beyond which values are clipped: 4.03 standard deviations, 0.0056 % of a Gaussian's values


def cifar10(data_dir: Path, *, normalization: Literal["none", "gcn"]) -> DataSet:
    """40,000 / 10,000 / 10,000 images of 3×32×32 below data_dir/cifar-10-batches-py, downloaded on first use.

    With normalization="gcn" each image x is contrast-normalised over all of its 3,072 values, as pylearn2 did for the
    original GAN: v = 55·(x − mean(x)) / ‖x − mean(x)‖. It is kept as the image 0.5 + v/8 in [0, 1], in steps of 1/255
    like any other, so that ±4 standard deviations of v fill the range, and what lies beyond is clipped.

    Raises DataError, naming the file and the remedy, when one is missing and cannot be had, or is damaged.
    Source: Krizhevsky 2009.
    """
    read = import_datasets().CIFAR10
    folder = data_dir / read.base_folder
    md5 = dict([*read.train_list, *read.test_list, (read.meta["filename"], read.meta["md5"])])
    files = f"the files of {read.filename}"
    fetch("CIFAR-10", data_dir, folder, md5, files, lambda: read(str(data_dir), download=True))
    for name in md5:
        verify_md5("CIFAR-10", folder / name, md5[name])
    train, test = read(str(data_dir), train=True), read(str(data_dir), train=False)
    images, test_images = (
        torch.from_numpy(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)))  # torchvision puts the channels last
        for part in (train, test)
    )
    if normalization == "gcn":
        images, test_images = contrast_normalized(images), contrast_normalized(test_images)
    labels = torch.tensor(train.targets, dtype=torch.int64)
    return DataSet(
        images[:TRAINING_IMAGES],
        images[TRAINING_IMAGES:],
        test_images,
        labels={
            "train": labels[:TRAINING_IMAGES],
            "valid": labels[TRAINING_IMAGES:],
            "test": torch.tensor(test.targets, dtype=torch.int64),
        },
    )


def contrast_normalized(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 images, each normalised over all of its values and kept as uint8; see `cifar10`.

    An image of one colour has no contrast, and becomes grey (v = 0).
    """
    normalized = torch.empty_like(images)
    for first in range(0, len(images), CHUNK):  # in float32, all of them would take 700 MB
        values = images[first : first + CHUNK].flatten(1).float()
        values -= values.mean(1, keepdim=True)
        norm = values.norm(dim=1, keepdim=True)
        values *= torch.where(norm > 0.5, GCN_SCALE / norm, 0)  # the least contrast there is, one step, has norm 1
        kept = values.div_(2 * GCN_RANGE).add_(0.5).clamp_(0, 1).mul_(255).round_()
        normalized[first : first + CHUNK] = kept.to(torch.uint8).view_as(images[first : first + CHUNK])
    return normalized
