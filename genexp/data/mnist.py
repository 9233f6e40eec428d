"""MNIST and Fashion-MNIST, which share a format: downloaded once, verified, and read through torchvision."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch

from genexp.data import DataSet
from genexp.data.download import damage_error, fetch, read, torchvision_reader, verify_md5
from genexp.ranges import AsBefore, Binarization

FILES = {  # the shape of the array that each file holds, in both data sets; MD5 of MNIST's original file, uncompressed
    "train-images-idx3-ubyte": ((60_000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((60_000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((10_000,), "27ae3e4e09519cfbb04c329615203637"),
}
TRAINING_IMAGES = 50_000  # as in Goodfellow et al. 2014; the last 10,000 of the 60,000 are the validation split


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
    data = _read("MNIST", "MNIST", data_dir, lambda file: verify_md5("MNIST", file, FILES[file.name][1]))
    data = data.binarized(binarize)
    return data.with_valid_in_training() if train_on_valid else data


def fashion_mnist(data_dir: Path, *, binarize: Annotated[Binarization, AsBefore("none")] = "none") -> DataSet:
    """Return 50,000 / 10,000 / 10,000 images of 28×28 from data_dir/FashionMNIST/raw, downloaded on first use.

    torchvision verifies the checksums of its downloads; here each file's size and header are verified.
    Raises DataError, naming the file and the remedy, for a file that cannot be downloaded or is damaged.
    Source: Xiao, Rasul and Vollgraf 2017. The last 10,000 of the 60,000 training images are the validation split.
    """
    return _read("Fashion-MNIST", "FashionMNIST", data_dir, _verify_header).binarized(binarize)


def _read(title: str, name: str, data_dir: Path, verify: Callable[[Path], None]) -> DataSet:
    """Return the data set that torchvision calls `name`, after `verify` has accepted each file."""
    reader, folder = torchvision_reader(name), data_dir / name / "raw"
    fetch(reader, title, data_dir, folder, FILES, "the four uncompressed files")
    for file in FILES:
        verify(folder / file)
    return read(reader, data_dir, TRAINING_IMAGES, lambda images: images.unsqueeze(1))


def _verify_header(file: Path) -> None:
    """Raise DataError if the file's size or header is not that of an IDX file of its shape."""
    shape, _ = FILES[file.name]
    # Two zero bytes, 8 for unsigned bytes, the number of dimensions, then each dimension as a big-endian int32.
    header = struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape)
    size = len(header) + torch.Size(shape).numel()
    if file.stat().st_size != size:
        raise damage_error("Fashion-MNIST", file, f"where there should be {size:,}")
    with file.open("rb") as stream:
        actual = stream.read(len(header))
    if actual != header:
        raise damage_error("Fashion-MNIST", file, f"that begin with {actual.hex()}, which should be {header.hex()}")
