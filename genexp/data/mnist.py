"""MNIST and Fashion-MNIST, which share a format: downloaded once through torchvision, verified, and read."""

import struct
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.data.download import damage_error, fetch, split, torchvision_reader, verify_md5
from genexp.ranges import AsBefore, Binarization

FILES = {  # the shape of the array that each file holds, in both data sets; MD5 of MNIST's original file, uncompressed
    "train-images-idx3-ubyte": ((60_000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((60_000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((10_000,), "27ae3e4e09519cfbb04c329615203637"),
}
TRAINING_IMAGES = 50_000  # as in Goodfellow et al. 2014; the last 10,000 of the 60,000 are the validation split
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip


def mnist(
    data_dir: Path,
    *,
    binarize: Annotated[Binarization, AsBefore("none")] = "none",
    train_on_valid: Annotated[bool, AsBefore(False)] = False,
) -> DataSet:
    """Return 50,000 / 10,000 / 10,000 images of 28×28 from data_dir/MNIST/raw, downloaded on first use.

    With `train_on_valid` the validation images are training images, too, as in the published script of GSNs.
    Raises DataError, naming the file and the remedy, for a file that cannot be downloaded or is damaged.
    """
    data = _read("MNIST", "MNIST", DIGITS, data_dir, lambda file: verify_md5("MNIST", file, FILES[file.name][1]))
    data = data.binarized(binarize)
    return data.with_valid_in_training() if train_on_valid else data


def fashion_mnist(data_dir: Path, *, binarize: Annotated[Binarization, AsBefore("none")] = "none") -> DataSet:
    """Return 50,000 / 10,000 / 10,000 images of 28×28 from data_dir/FashionMNIST/raw, downloaded on first use.

    torchvision verifies the checksums of its downloads; here each file's size and header are verified.
    Raises DataError, naming the file and the remedy, for a file that cannot be downloaded or is damaged.
    Source: Xiao, Rasul and Vollgraf 2017. The last 10,000 of the 60,000 training images are the validation split.
    """
    return _read("Fashion-MNIST", "FashionMNIST", CLOTHES, data_dir, _verify_header).binarized(binarize)


def _read(title: str, name: str, classes: Sequence[str], data_dir: Path, verify: Callable[[Path], None]) -> DataSet:
    """Return the data set that torchvision calls `name`, after `verify` has accepted each file.

    torchvision, which takes seconds to import, is needed for a download alone.
    """
    folder = data_dir / name / "raw"
    fetch(lambda: torchvision_reader(name), title, data_dir, folder, FILES, "the four uncompressed files")
    for file in FILES:
        verify(folder / file)
    images, labels, test_images, test_labels = (_array(folder / file) for file in FILES)
    return split(images, labels, test_images, test_labels, TRAINING_IMAGES, classes)


def _array(file: Path) -> Tensor:
    """Return an IDX file's labels, int64, or its images, uint8 (N, 1, H, W)."""
    shape, _ = FILES[file.name]
    array = torch.from_numpy(np.fromfile(file, np.uint8, offset=len(_header(shape))).reshape(shape))
    return array.to(torch.int64) if len(shape) == 1 else array.unsqueeze(1)


def _header(shape: Sequence[int]) -> bytes:
    """Return an IDX file's first bytes: 0, 0, 8 for unsigned bytes, the number of dimensions, then each as an int32."""
    return struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape)


def _verify_header(file: Path) -> None:
    """Raise DataError if the file's size or header is not that of an IDX file of its shape."""
    shape, _ = FILES[file.name]
    header = _header(shape)
    size = len(header) + prod(shape)
    if file.stat().st_size != size:
        raise damage_error("Fashion-MNIST", file, f"where there should be {size:,}")
    with file.open("rb") as stream:
        actual = stream.read(len(header))
    if actual != header:
        raise damage_error("Fashion-MNIST", file, f"that begin with {actual.hex()}, which should be {header.hex()}")
