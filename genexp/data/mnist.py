"""MNIST, read through torchvision, verified by checksum, downloaded once if it is not there."""

import hashlib
import socket
from pathlib import Path
from types import ModuleType

import filelock
import torch

from genexp.data import DataSet
from genexp.errors import DataError

MD5 = {  # of the original distribution's files, uncompressed
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
TRAINING_IMAGES = 50_000  # as in the paper; the last 10,000 of the 60,000 are the validation split
CONNECT_SECONDS = 30


def mnist(data_dir: Path) -> DataSet:
    """50,000 / 10,000 / 10,000 images of 28×28 below data_dir/MNIST/raw, downloaded on first use.

    Raises DataError, naming the file and the remedy, when one is missing and cannot be had, or is damaged.
    """
    folder = data_dir / "MNIST" / "raw"
    if not all((folder / name).is_file() for name in MD5):
        _download(data_dir, folder)
    for name, md5 in MD5.items():
        _verify(folder / name, md5)
    datasets = import_datasets()
    train = datasets.MNIST(str(data_dir), train=True)
    test = datasets.MNIST(str(data_dir), train=False)
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


def import_datasets() -> ModuleType:
    """torchvision.datasets, imported late since it takes seconds.

    Raises DataError when the installed torchvision was built for another torch.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise DataError(
            f"torchvision does not import beside torch {torch.__version__}: {str(error).splitlines()[0]}\n"
            "The two must be of one release: pip install --upgrade --force-reinstall torch torchvision"
        ) from error
    module: ModuleType = torchvision.datasets
    return module


def _download(data_dir: Path, folder: Path) -> None:
    """Fetch what is missing; a second process waits for the first and then finds the files there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(data_dir / ".mnist.lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that downloads MNIST to {data_dir}", flush=True)
        lock.acquire()
    except OSError as error:
        missing = next(name for name in MD5 if not (folder / name).is_file())
        raise DataError(
            f"MNIST is not in {folder} ({missing} is missing), and it cannot be downloaded there: {error.strerror}\n"
            "Set data_dir=FOLDER (or GENEXP_DATA_DIR) to the folder that holds MNIST/raw, or to one that can be written"
        ) from error
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(CONNECT_SECONDS)
        if not all((folder / name).is_file() for name in MD5):
            print(f"downloading MNIST to {folder}", flush=True)
            import_datasets().MNIST(str(data_dir), download=True)
    except (OSError, RuntimeError, EOFError) as error:
        missing = next((name for name in MD5 if not (folder / name).is_file()), "a file")
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"MNIST: {missing} is missing from {folder}, and the download failed: {reason}\n"
            f"Put the four uncompressed files ({', '.join(MD5)}) there, "
            "or set data_dir=FOLDER (or GENEXP_DATA_DIR) to the folder that holds MNIST/raw"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
        lock.release()


def _verify(file: Path, md5: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DataError(
            f"MNIST: {file} is damaged: {file.stat().st_size:,} bytes with MD5 {found}, which should be {md5}\n"
            "Delete it to have it downloaded again, or put a good copy in its place"
        )
