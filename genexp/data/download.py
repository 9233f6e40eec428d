"""Data sets that torchvision downloads once, by one process at a time; errors name the remedy."""

import hashlib
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.errors import DataError
from genexp.storage.derived import made_by_one
from genexp.text import first_line

CONNECT_SECONDS = 30


def torchvision_reader(name: str) -> Any:
    """Return the class torchvision.datasets.NAME, whose import takes seconds.

    Raises DataError if the installed torchvision was built for another torch.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise DataError(
            f"torchvision does not import beside torch {torch.__version__}: {first_line(error)}\n"
            "The two must be of one release: pip install --upgrade --force-reinstall torch torchvision"
        ) from error
    return getattr(torchvision.datasets, name)


def fetch(
    reader: Callable[[], Any], title: str, data_dir: Path, folder: Path, names: Collection[str], files: str
) -> None:
    """Download the data set if one of the files `names` is missing from `folder`, below `data_dir`.

    `reader` returns torchvision's class, and is called only then. A second process waits for the first one's download.
    Messages call the data set `title`, and the files that a user can put there by hand `files`.
    Raises DataError if a file is missing and cannot be downloaded; no empty folder and no lock is then left behind.
    """
    if _first_missing(folder, names) is None:
        return
    place, timeout = folder.relative_to(data_dir), socket.getdefaulttimeout()
    new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    lock_file = data_dir / f".{title.lower()}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with made_by_one(lock_file, f"downloads {title} to {data_dir}", must=True):
            try:
                socket.setdefaulttimeout(CONNECT_SECONDS)
                if _first_missing(folder, names) is not None:
                    print(f"downloading {title} to {folder}", flush=True)
                    reader()(str(data_dir), download=True)
            except (OSError, RuntimeError, EOFError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                raise DataError(
                    f"{title}: {_first_missing(folder, names) or 'a file'} is missing from {folder}, "
                    f"and the download failed: {reason}\n"
                    f"Put {files} ({', '.join(names)}) there, "
                    f"or set data_dir=FOLDER (or GENEXP_DATA_DIR) to the folder that holds {place}"
                ) from error
            finally:
                socket.setdefaulttimeout(timeout)
    except OSError as error:
        raise DataError(
            f"{title} is not in {folder} ({_first_missing(folder, names)} is missing), "
            f"and it cannot be downloaded there: {error.strerror}\n"
            f"Set data_dir=FOLDER (or GENEXP_DATA_DIR) to the folder that holds {place}, or to one that can be written"
        ) from error
    finally:
        if _first_missing(folder, names) is not None:
            with suppress(OSError):  # a folder that is not empty stays
                lock_file.unlink(missing_ok=True)
                for each in new_folders:
                    each.rmdir()


def verify_md5(title: str, file: Path, md5: str) -> None:
    """Raise DataError if the file's MD5 checksum is not `md5`."""
    with file.open("rb") as stream:
        actual = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if actual != md5:
        raise damage_error(title, file, f"with MD5 {actual}, which should be {md5}")


def damage_error(title: str, file: Path, difference: str) -> DataError:
    """Return the error for a damaged file; `difference` follows the number of its bytes in the message."""
    return DataError(
        f"{title}: {file} is damaged: {file.stat().st_size:,} bytes {difference}\n"
        "Delete it to have it downloaded again, or put a good copy in its place"
    )


def split(
    images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor, n_train: int, classes: Sequence[str]
) -> DataSet:
    """Return the data set whose validation split is the images from `n_train` on."""
    return DataSet(
        images[:n_train],
        images[n_train:],
        test_images,
        labels={"train": labels[:n_train], "valid": labels[n_train:], "test": test_labels},
        classes=tuple(classes),
    )


def _first_missing(folder: Path, names: Collection[str]) -> str | None:
    return next((name for name in names if not (folder / name).is_file()), None)
