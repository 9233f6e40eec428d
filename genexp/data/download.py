"""Data sets that are downloaded once: by one process at a time, verified, with what to do when they cannot be had."""

import hashlib
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType

import filelock
import torch

from genexp.errors import DataError

CONNECT_SECONDS = 30


def fetch(
    title: str, data_dir: Path, folder: Path, names: Collection[str], files: str, download: Callable[[], object]
) -> None:
    """Call `download` unless all of `names` are in `folder`, a folder below `data_dir`.

    A second process waits for the first, and then finds the files there. `title` is what people call the data set and
    `files` what they would have to put there by hand. Raises DataError when a file is missing and cannot be had.
    """
    if _missing(folder, names) is None:
        return
    place = folder.relative_to(data_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(data_dir / f".{title.lower()}.lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that downloads {title} to {data_dir}", flush=True)
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"{title} is not in {folder} ({_missing(folder, names)} is missing), "
            f"and it cannot be downloaded there: {error.strerror}\n"
            f"Set data_dir=FOLDER (or GENEXP_DATA_DIR) to the folder that holds {place}, or to one that can be written"
        ) from error
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(CONNECT_SECONDS)
        if _missing(folder, names) is not None:
            print(f"downloading {title} to {folder}", flush=True)
            download()
    except (OSError, RuntimeError, EOFError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise DataError(
            f"{title}: {_missing(folder, names) or 'a file'} is missing from {folder}, "
            f"and the download failed: {reason}\n"
            f"Put {files} ({', '.join(names)}) there, "
            f"or set data_dir=FOLDER (or GENEXP_DATA_DIR) to the folder that holds {place}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
        lock.release()


def verify_md5(title: str, file: Path, md5: str) -> None:
    """Raise DataError unless the file is the original one."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise damaged(title, file, f"with MD5 {found}, which should be {md5}")


def damaged(title: str, file: Path, mistake: str) -> DataError:
    """The error of a file that is there and is not what it should be."""
    return DataError(
        f"{title}: {file} is damaged: {file.stat().st_size:,} bytes {mistake}\n"
        "Delete it to have it downloaded again, or put a good copy in its place"
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


def _missing(folder: Path, names: Collection[str]) -> str | None:
    return next((name for name in names if not (folder / name).is_file()), None)
