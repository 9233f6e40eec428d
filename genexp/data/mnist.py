"""MNIST and Fashion-MNIST, which share their format: read through torchvision, verified, downloaded once."""

import struct
from collections.abc import Callable
from pathlib import Path

import torch

from genexp.data import DataSet
from genexp.data.download import damaged, fetch, import_datasets, verify_md5

MD5 = {  # of MNIST's original distribution, uncompressed
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SIZES = {  # what each file holds, of either data set
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
TRAINING_IMAGES = 50_000  # as in Goodfellow et al. 2014; the last 10,000 of the 60,000 are the validation split


def mnist(data_dir: Path) -> DataSet:
    """50,000 / 10,000 / 10,000 images of 28×28 below data_dir/MNIST/raw, downloaded on first use.

    Raises DataError, naming the file and the remedy, when one is missing and cannot be had, or is damaged.
    """
    return _read("MNIST", "MNIST", data_dir, lambda file: verify_md5("MNIST", file, MD5[file.name]))


def fashion_mnist(data_dir: Path) -> DataSet:
    """50,000 / 10,000 / 10,000 images of clothes, 28×28, below data_dir/FashionMNIST/raw, downloaded on first use.

    torchvision checks the sums of what it downloads; of files that are there, the size and the header are checked.
    Raises DataError, naming the file and the remedy, when one is missing and cannot be had, or is damaged.
    Source: Xiao, Rasul and Vollgraf 2017. The last 10,000 of the 60,000 training images are the validation split.
    """
    return _read("Fashion-MNIST", "FashionMNIST", data_dir, _verify_header)


def _read(title: str, name: str, data_dir: Path, verify: Callable[[Path], None]) -> DataSet:
    """The data set that torchvision calls `name`."""
    folder = data_dir / name / "raw"

    def download() -> None:
        getattr(import_datasets(), name)(str(data_dir), download=True)

    fetch(title, data_dir, folder, SIZES, "the four uncompressed files", download)
    for file in SIZES:
        verify(folder / file)
    read = getattr(import_datasets(), name)
    train, test = read(str(data_dir), train=True), read(str(data_dir), train=False)
    images, labels = train.data.unsqueeze(1), train.targets.to(torch.int64)
    return DataSet(
        images[:TRAINING_IMAGES],
        images[TRAINING_IMAGES:],
        test.data.unsqueeze(1),
        labels={
            "train": labels[:TRAINING_IMAGES],
            "valid": labels[TRAINING_IMAGES:],
            "test": test.targets.to(torch.int64),
        },
    )


def _verify_header(file: Path) -> None:
    """IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, each as a big-endian int32; then values."""
    shape = SIZES[file.name]
    header = struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape)
    size = len(header) + torch.Size(shape).numel()
    if file.stat().st_size != size:
        raise damaged("Fashion-MNIST", file, f"where there should be {size:,}")
    with file.open("rb") as stream:
        found = stream.read(len(header))
    if found != header:
        raise damaged("Fashion-MNIST", file, f"that begin with {found.hex()}, which should be {header.hex()}")
