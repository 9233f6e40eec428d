"""Any folder of images: cut square, resized, and kept decoded in a cache that is named by the files' contents."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch

from genexp.data import DataSet
from genexp.errors import DataError, UsageError
from genexp.ranges import Fraction, PositiveInt
from genexp.storage.files import atomic

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

SPLITS = ("train", "valid", "test")
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # recognised by Pillow, left to other programs to read
DECODING = 1  # to be raised when `decode` changes what it makes of a file, so that older caches are not used
LISTED = 10  # broken images that are named


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
) -> DataSet:
    """The images below `path`, each `channels`×`size`×`size`, made from its central square (see `decode`).

    Hidden files are passed over. If there are subfolders train, valid and test, these are the splits, and nothing else
    is read; otherwise one fixed permutation of all images, in the order of their names, is cut by the two shares.
    Labels number the subfolders (of the split's folder, or of `path`) by name; an image in none of them has −1.

    Decoded images are kept in data_dir/cache. Raises UsageError for settings that contradict each other; DataError
    when the folder is missing, a split is empty, or images are broken, or smaller than `crop`, and are not to be
    skipped.
    """
    if path is None:
        raise UsageError("dataset=folder needs dataset.path=FOLDER, the folder that holds the images")
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"dataset.path={path}: {root.absolute()} {what}\nSet it to the folder that holds the images")
    try:
        names, given = _images_below(root)
        if not given and not (valid_share > 0 and test_share > 0 and valid_share + test_share < 1):
            raise UsageError(
                f"dataset.valid_share={valid_share:g} and dataset.test_share={test_share:g}: "
                "both should be above 0, and their sum below 1"
            )
        images, kept, broken = _decoded(data_dir, root, names, size, channels, crop)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror}\n"
            f"Mend that, or set dataset.path to a folder other than {root}"
        ) from error
    if broken:
        listed = "; ".join(broken[:LISTED]) + (f"; and {len(broken) - LISTED} more" * (len(broken) > LISTED))
        found = f"{len(broken):,} of {len(names):,} images in {root}"
        if not skip_broken:
            raise DataError(f"{found} cannot be used: {listed}\ndataset.skip_broken=true leaves them out")
        print(f"warning: {found} are left out: {listed}", flush=True)

    labels = torch.from_numpy(_labels(names, given)[kept])
    if given:
        place = np.array([SPLITS.index(name.partition("/")[0]) for name in names], dtype=np.int64)[kept]
        rows = {split: torch.from_numpy(np.flatnonzero(place == index)) for index, split in enumerate(SPLITS)}
    else:
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
        valid, test = round(valid_share * len(kept)), round(test_share * len(kept))
        train = len(kept) - valid - test
        rows = {"train": order[:train], "valid": order[train : train + valid], "test": order[train + valid :]}
    if not all(len(chosen) for chosen in rows.values()):
        counts = ", ".join(f"{len(chosen)} {split}" for split, chosen in rows.items())
        remedy = (
            f"each of the subfolders {', '.join(SPLITS)} needs some" if given else "add images, or set larger shares"
        )
        raise DataError(f"{root} has too few images for three splits: {counts}\nNone may be empty: {remedy}")
    pixels = torch.from_numpy(images)
    return DataSet(
        pixels[rows["train"]],
        pixels[rows["valid"]],
        pixels[rows["test"]],
        labels={split: labels[chosen] for split, chosen in rows.items()},
    )


def decode(content: bytes, size: int, channels: int, crop: int | None) -> Array:
    """A file's bytes as (channels, size, size) uint8.

    Turned upright by EXIF; 16-bit grey divided by 257; transparent parts on white; the first picture of several. The
    central square, of `crop` pixels or as large as it can be, is resized with Pillow's bicubic filter.

    Raises ValueError when it is smaller than `crop`; what Pillow raises when it is broken.
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
    """The image in the mode L or RGB; Pillow would cut values off at 255 where a pixel has 16 bits."""
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
    """The names of the images, relative to `root` with slashes and sorted; and whether it is split by subfolders.

    Links to folders are followed, and a folder that several lead to is read once. Raises DataError if there are none.
    """
    from PIL import Image

    Image.init()  # has Pillow list all its formats
    extensions = {extension for extension, name in Image.EXTENSION.items() if name in Image.OPEN.keys() - NOT_DECODED}
    there = [split for split in SPLITS if (root / split).is_dir()]
    given = len(there) == len(SPLITS)
    if there and not given:
        print(f"note: {root} has {' and '.join(there)}, but not all of {', '.join(SPLITS)}; all of it is split anew")

    def fail(error: OSError) -> None:
        raise error

    names, seen = [], set()
    for start in [root / split for split in SPLITS] if given else [root]:
        for place, folders, files in os.walk(start, onerror=fail, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            names += [
                Path(place, name).relative_to(root).as_posix()
                for name in files
                if not name.startswith(".") and Path(name).suffix.lower() in extensions
            ]
    if not names:
        raise DataError(
            f"{root} holds no image: no file in it or below has an extension that Pillow reads (.jpg, .png, ...)\n"
            "Set dataset.path to the folder that holds the images"
        )
    return sorted(names), given


def _labels(names: list[str], given: bool) -> Array:
    """The number of each image's subfolder; splits that are given share one numbering."""
    folders = [name.split("/")[given:-1][:1] for name in names]
    numbers = {found: number for number, found in enumerate(sorted({found[0] for found in folders if found}))}
    return np.array([numbers[found[0]] if found else -1 for found in folders], dtype=np.int64)


def _decoded(
    data_dir: Path, root: Path, names: list[str], size: int, channels: int, crop: int | None
) -> tuple[Array, Array, list[str]]:
    """The images that can be used (n, channels, size, size), their places in `names`, and what is wrong with the rest.

    Decoded once: a file in the cache belongs to these names, contents and settings. One that is damaged is replaced.
    """

    def digest(index: int) -> bytes:
        return hashlib.sha256((root / names[index]).read_bytes()).digest()

    key = hashlib.sha256(json.dumps([DECODING, size, channels, crop]).encode())
    for name, found in zip(names, _each(digest, len(names), f"reading {len(names):,} images in {root}"), strict=True):
        key.update(os.fsencode(name) + b"\0" + found)
    file = data_dir / "cache" / f"folder-{key.hexdigest()[:16]}.npz"
    try:
        with np.load(file, allow_pickle=False) as content:
            return content["images"], content["kept"], content["broken"].tolist()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        print(f"warning: {file} cannot be read ({type(error).__name__}); the images are decoded again", flush=True)

    images = np.empty((len(names), channels, size, size), np.uint8)

    def place(index: int) -> str | None:
        content = (root / names[index]).read_bytes()
        try:
            images[index] = decode(content, size, channels, crop)
        except MemoryError:
            raise
        except Exception as error:  # a broken image raises whatever its bytes lead to
            return _what_is_wrong(error)
        return None

    mistakes = list(_each(place, len(names), "decoding them"))
    kept = np.flatnonzero([mistake is None for mistake in mistakes])
    broken = [f"{_printable(name)} ({wrong})" for name, wrong in zip(names, mistakes, strict=True) if wrong is not None]
    images = images if len(kept) == len(names) else images[kept]
    try:
        with atomic(file) as stream:
            np.savez(stream, images=images, kept=kept, broken=np.array(broken, dtype=np.str_))
    except OSError as error:
        print(f"warning: no cache in {file.parent}: {error.strerror}; they are decoded again each time", flush=True)
    return images, kept, broken


def _each(work: Callable[[int], Result], n: int, doing: str) -> Iterator[Result]:
    """work(0), ..., work(n − 1), in this order, by several threads; with a bar on a terminal, a line elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console()
    if not console.is_terminal:
        print(doing, flush=True)
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(work, range(n))
        yield from track(results, doing, n, console=console, transient=True, disable=not console.is_terminal)
    finally:
        pool.shutdown(cancel_futures=True)  # or Ctrl-C would wait for all of them


def _what_is_wrong(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its own text names a place in memory
        return "not an image that Pillow can read"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _printable(name: str) -> str:
    """A file's name that may have been written in another encoding."""
    return os.fsencode(name).decode(errors="replace")
