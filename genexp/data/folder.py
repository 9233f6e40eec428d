"""Any folder of images: cropped square, resized, and cached decoded under a hash of the files' contents."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet, split_by_rows
from genexp.errors import DataError, UsageError
from genexp.ranges import AsBefore, Binarization, Fraction, PositiveInt
from genexp.storage.derived import derived
from genexp.storage.files import atomic
from genexp.text import first_line

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]
Decoded = tuple[Array, Array, list[str]]  # images, their places in the list of files, descriptions of broken files
Result = TypeVar("Result")

SPLITS = ("train", "valid", "test")
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # formats that Pillow recognises but does not decode
DECODING = 1  # raise it when `decode` returns other pixels for the same file, so that older caches are not used
LISTED = 10  # broken images that a message names


def folder(
    data_dir: Path,
    *,
    path: str | None,
    size: PositiveInt,
    channels: Literal[1, 3],
    crop: PositiveInt | None,
    valid_share: Fraction,
    test_share: Fraction,
    skip_broken: bool,
    binarize: Annotated[Binarization, AsBefore("none")] = "none",
) -> DataSet:
    """Return the images below `path`, `channels`×`size`×`size`, each made from its central square (see `decode`).

    Subfolders train, valid and test, if all three exist, are the splits, and nothing else is read. Otherwise one fixed
    permutation of all images, sorted by name, is cut by the two shares. Hidden files are not read. The classes are the
    subfolders (of the split's folder, or of `path`), sorted by name; an image in no subfolder has the label −1.

    Decoded images are kept in data_dir/cache. Raises UsageError for settings that contradict each other and for a
    missing folder, and DataError if a split is empty, or, without `skip_broken`, an image is broken or smaller than
    `crop`.
    """
    if path is None:
        raise UsageError("dataset=folder needs dataset.path=FOLDER, the folder that holds the images")
    root = Path(path).expanduser()
    if not root.is_dir():
        mistake = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(
            f"dataset.path={path}: {root.absolute()} {mistake}\nSet it to the folder that holds the images"
        )
    try:
        names, has_splits = _images_below(root)
        if not has_splits and not (valid_share > 0 and test_share > 0 and valid_share + test_share < 1):
            raise UsageError(
                f"dataset.valid_share={valid_share:g} and dataset.test_share={test_share:g}: "
                "both should be above 0, and their sum below 1"
            )
        images, usable, broken = _decoded(data_dir, root, names, size, channels, crop)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror}\n"
            f"Mend that, or set dataset.path to a folder other than {root}"
        ) from error
    if broken:
        more = [f"and {len(broken) - LISTED} more"] if len(broken) > LISTED else []
        listed = "; ".join(broken[:LISTED] + more)
        summary = f"{len(broken):,} of {len(names):,} images in {root}"
        if not skip_broken:
            raise DataError(f"{summary} cannot be used: {listed}\ndataset.skip_broken=true leaves them out")
        print(f"warning: {summary} are left out: {listed}", flush=True)
    labels, classes = _labels(names, has_splits)
    rows = _split(root, [names[index] for index in usable], has_splits, valid_share, test_share)
    data = split_by_rows(torch.from_numpy(images), torch.from_numpy(labels[usable]), rows, classes=classes)
    return data.binarized(binarize)


def _split(root: Path, names: list[str], has_splits: bool, valid_share: float, test_share: float) -> dict[str, Tensor]:
    """Return each split's rows among the images `names`. Raises DataError for an empty split."""
    if has_splits:
        split_of = np.array([name.partition("/")[0] for name in names], dtype=np.str_)
        rows = {split: torch.from_numpy(np.flatnonzero(split_of == split)) for split in SPLITS}
        remedy = f"each of the subfolders {', '.join(SPLITS)} needs some"
    else:
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
        valid, test = round(valid_share * len(names)), round(test_share * len(names))
        train = len(names) - valid - test
        rows = {"train": order[:train], "valid": order[train : train + valid], "test": order[train + valid :]}
        remedy = "add images, or set larger shares"
    if any(len(rows[split]) == 0 for split in SPLITS):
        counts = ", ".join(f"{len(rows[split])} {split}" for split in SPLITS)
        raise DataError(f"{root} has too few images for three splits: {counts}\nNone may be empty: {remedy}")
    return rows


def decode(content: bytes, size: int, channels: int, crop: int | None) -> Array:
    """Decode a file's bytes into a (channels, size, size) uint8 array.

    The image is turned upright by its EXIF data, 16-bit grey is divided by 257, and transparency is put on white; of
    several pictures the first is taken. The central square, `crop` pixels wide or as large as possible, is resized
    with Pillow's bicubic filter. Raises ValueError for an image smaller than `crop`; Pillow's errors for a broken one.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as opened:
        image = _eight_bit(ImageOps.exif_transpose(opened), channels)
    side = crop or min(image.size)
    if side > min(image.size):
        raise ValueError(f"{image.width}×{image.height}, smaller than dataset.crop={crop}")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    return pixels.reshape(size, size, channels).transpose(2, 0, 1)


def _eight_bit(image: "Image.Image", channels: int) -> "Image.Image":
    """Convert the image to mode L or RGB; 16-bit values are scaled first, since Pillow would clip them at 255."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels of 32 bits, whose white is not known")
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _images_below(root: Path) -> tuple[list[str], bool]:
    """Return the images' names, relative to `root` and sorted, and True if train, valid and test are subfolders of it.

    Links to folders are followed, and each folder is read once. Raises DataError if there are no images.
    """
    from PIL import Image

    Image.init()  # loads all formats into the tables below
    extensions = {extension for extension, name in Image.EXTENSION.items() if name in Image.OPEN.keys() - NOT_DECODED}
    split_folders = [split for split in SPLITS if (root / split).is_dir()]
    has_splits = len(split_folders) == len(SPLITS)
    if split_folders and not has_splits:
        present = " and ".join(split_folders)
        print(f"note: {root} has {present}, but not all of {', '.join(SPLITS)}; all of it is split anew")

    def fail(error: OSError) -> None:
        raise error

    names, seen = [], set()
    for start in [root / split for split in SPLITS] if has_splits else [root]:
        for parent, folders, files in os.walk(start, onerror=fail, followlinks=True):
            real_path = os.path.realpath(parent)
            if real_path in seen:
                folders.clear()
                continue
            seen.add(real_path)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            names += [
                Path(parent, name).relative_to(root).as_posix()
                for name in files
                if not name.startswith(".") and Path(name).suffix.lower() in extensions
            ]
    if not names:
        raise DataError(
            f"{root} holds no image: no file in it or below has an extension that Pillow reads (.jpg, .png, ...)\n"
            "Set dataset.path to the folder that holds the images"
        )
    return sorted(names), has_splits


def _labels(names: list[str], has_splits: bool) -> tuple[Array, tuple[str, ...]]:
    """Return the number of each image's subfolder, −1 for none, (n,) int64, and the subfolders' names.

    All splits share one numbering.
    """
    if has_splits:
        names = [name.partition("/")[2] for name in names]
    subfolders = ["", *(name.partition("/")[0] if "/" in name else "" for name in names)]  # "" is sorted first
    classes, numbers = np.unique(subfolders, return_inverse=True)
    return numbers[1:] - 1, tuple(classes[1:].tolist())


def _decoded(data_dir: Path, root: Path, names: list[str], size: int, channels: int, crop: int | None) -> Decoded:
    def digest(index: int) -> bytes:
        return hashlib.sha256((root / names[index]).read_bytes()).digest()

    key = hashlib.sha256(json.dumps([DECODING, size, channels, crop]).encode())
    digests = _each(digest, len(names), f"reading {len(names):,} images in {root}")
    for name, content_digest in zip(names, digests, strict=True):
        key.update(os.fsencode(name) + b"\0" + content_digest)
    return derived(
        data_dir / "cache" / f"folder-{key.hexdigest()[:16]}.npz",
        read=_read_cache,
        make=lambda: _decode_all(root, names, size, channels, crop),
        write=_write_cache,
        what=f"the decoded copy of {root}",
    )


def _read_cache(file: Path) -> Decoded:
    with np.load(file, allow_pickle=False) as content:
        return content["images"], content["kept"], content["broken"].tolist()


def _write_cache(file: Path, content: Decoded) -> None:
    images, usable, broken = content
    with atomic(file) as stream:
        np.savez(stream, images=images, kept=usable, broken=np.array(broken, dtype=np.str_))


def _decode_all(root: Path, names: list[str], size: int, channels: int, crop: int | None) -> Decoded:
    """Decode all files, and return the images (n, channels, size, size) of those that are not broken."""
    from PIL import UnidentifiedImageError

    images = np.empty((len(names), channels, size, size), np.uint8)

    def decode_into_row(index: int) -> str | None:
        content = (root / names[index]).read_bytes()
        try:
            images[index] = decode(content, size, channels, crop)
        except MemoryError:
            raise
        except UnidentifiedImageError:  # its message contains a memory address
            return "not an image that Pillow can read"
        except Exception as error:  # a broken image raises whatever its bytes lead to
            return first_line(error)
        return None

    reasons = list(_each(decode_into_row, len(names), "decoding them"))
    usable = np.flatnonzero([reason is None for reason in reasons])
    broken = [
        f"{os.fsencode(name).decode(errors='replace')} ({reason})"  # a name may be in another encoding
        for name, reason in zip(names, reasons, strict=True)
        if reason
    ]
    return images if len(usable) == len(names) else images[usable], usable, broken


def _each(work: Callable[[int], Result], n: int, description: str) -> Iterator[Result]:
    """Yield work(0), ..., work(n − 1), computed by several threads; show a bar on a terminal, a line elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console()
    if not console.is_terminal:
        print(description, flush=True)
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(work, range(n))
        yield from track(results, description, n, console=console, transient=True, disable=not console.is_terminal)
    finally:
        pool.shutdown(cancel_futures=True)  # without it, Ctrl-C would wait for all calls
