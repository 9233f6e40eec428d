"""Image files decoded into arrays of one size, and kept decoded in the cache folder under a hash of their contents."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from genexp.storage.caches import make_room, used
from genexp.storage.derived import derived
from genexp.storage.files import atomic, cache_folder
from genexp.text import first_line

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]
Decoded = tuple[Array, Array, list[str]]  # images, their places in the list of files, descriptions of broken files
Result = TypeVar("Result")

DECODING = 1  # raise it when `decode` returns other pixels for the same file, so that older caches are not used
TEXT_BYTES = 2**30  # of text in a PNG file


@dataclass(frozen=True)
class Format:
    """The form that images are decoded into."""

    height: int
    width: int
    channels: int
    crop: tuple[int, int] | None = None  # height and width of the central part that is cut out; None: the largest
    white: int | None = None  # the value of white in the files; None: the largest of 8 or 16 bits

    def key(self) -> list[Any]:
        """Return what the decoded images follow from, beside the files."""
        size: Any = self.height if self.height == self.width else [self.height, self.width]
        crop: Any = self.crop[0] if self.crop is not None and self.crop[0] == self.crop[1] else self.crop
        return [DECODING, size, self.channels, crop, *([] if self.white is None else [self.white])]


def decode(content: bytes, form: Format) -> Array:
    """Decode a file's bytes into a (channels, height, width) uint8 array.

    The image is turned upright by its EXIF data, values are scaled so that white is 255 (16-bit grey is divided by
    257), and transparency is put on white; of several pictures the first is taken. The central part, `crop` or the
    largest of the shape that is asked for, is resized with Pillow's bicubic filter. Raises ValueError for an image
    smaller than `crop` or with values above `white`; Pillow's errors for a broken one.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as opened:
        image = _eight_bit(ImageOps.exif_transpose(opened), form)
    height, width = form.crop or _largest(image.height, image.width, form)
    if height > image.height or width > image.width:
        crop = height if height == width else f"[{height},{width}]"
        raise ValueError(f"{image.width}×{image.height}, smaller than dataset.crop={crop}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image.resize((form.width, form.height), Image.Resampling.BICUBIC))
    return pixels.reshape(form.height, form.width, form.channels).transpose(2, 0, 1)


def _largest(height: int, width: int, form: Format) -> tuple[int, int]:
    """Return height and width of the largest part of an image that has the form's shape."""
    if form.height == form.width:
        return (min(height, width),) * 2
    scale = min(height / form.height, width / form.width)
    return max(1, min(height, round(scale * form.height))), max(1, min(width, round(scale * form.width)))


def _eight_bit(image: "Image.Image", form: Format) -> "Image.Image":
    """Convert the image to mode L or RGB, in which white is 255; Pillow itself would clip 16-bit values at 255."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_scaled(np.asarray(image), image.mode, form.white))
    elif form.white is not None and image.mode in ("L", "LA", "RGB", "RGBA"):
        image = _scaled_bands(image, form.white)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if form.channels == 1 else "RGB")


def _scaled(values: Array, mode: str, white: int | None) -> Array:
    """Return values of more than 8 bits as uint8."""
    if white is None:
        if mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels of 32 bits, whose white is not known: set dataset.white")
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not (values.min() >= 0 and values.max() <= white):  # not a number fails, too
        raise ValueError(f"values from {values.min():g} to {values.max():g}, outside of 0 to dataset.white={white}")
    return np.rint(values * (255 / white)).astype(np.uint8)


def _scaled_bands(image: "Image.Image", white: int) -> "Image.Image":
    """Return an image of 8 bits with its shades scaled, and its transparency as it is."""
    from PIL import Image

    if "transparency" in image.info:  # a shade that is transparent, and is not to be scaled
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    bands = list(image.split())
    shades = len(bands) - ("A" in image.mode)
    largest = max(int(np.asarray(band).max()) for band in bands[:shades])
    if white > 255 or largest > white:
        raise ValueError(f"values up to {largest} of 8 bits do not go with dataset.white={white}")
    table = [min(255, round(value * 255 / white)) for value in range(256)]
    bands[:shades] = [band.point(table) for band in bands[:shades]]
    return Image.merge(image.mode, bands)


def decoded(root: Path, names: list[str], form: Format) -> Decoded:
    """Return the images `names` below `root`, (n, channels, height, width) uint8, those that are not broken.

    They are read from the cache folder if they were decoded before.
    """

    unreadable: dict[int, str] = {}  # files that cannot be read at all, such as links that lead nowhere

    def digest(index: int) -> bytes:
        try:
            return hashlib.sha256((root / names[index]).read_bytes()).digest()
        except OSError as error:
            unreadable[index] = error.strerror or first_line(error)
            return b"cannot be read: " + unreadable[index].encode()

    key = hashlib.sha256(json.dumps(form.key()).encode())
    digests = _each(digest, len(names), f"reading {len(names):,} images in {root}")
    for name, content_digest in zip(names, digests, strict=True):
        key.update(os.fsencode(name) + b"\0" + content_digest)
    about = f"{root.absolute()}, {form.height}×{form.width}"

    def write(file: Path, content: Decoded) -> None:
        images, usable, broken = content
        if make_room(file.parent, images.nbytes, f"the decoded copy of {root}"):
            with atomic(file) as stream:
                broken_array, about_array = np.array(broken, dtype=np.str_), np.array(os.fsencode(about))
                np.savez(stream, images=images, kept=usable, broken=broken_array, about=about_array)

    return derived(
        cache_folder("folders") / f"folder-{key.hexdigest()[:16]}.npz",
        read=_read_cache,
        make=lambda: _decode_all(root, names, form, unreadable),
        write=write,
        what=f"the decoded copy of {root}",
    )


def _read_cache(file: Path) -> Decoded:
    with np.load(file, allow_pickle=False) as content:
        images_and_others = content["images"], content["kept"], content["broken"].tolist()
    used(file)
    return images_and_others


def _decode_all(root: Path, names: list[str], form: Format, unreadable: dict[int, str]) -> Decoded:
    """Decode all files, and return the images (n, channels, height, width) of those that are not broken."""
    from PIL import UnidentifiedImageError

    images = np.empty((len(names), form.channels, form.height, form.width), np.uint8)

    def decode_into_row(index: int) -> str | None:
        if index in unreadable:
            return unreadable[index]
        content = (root / names[index]).read_bytes()
        try:
            images[index] = decode(content, form)
        except MemoryError:
            raise
        except UnidentifiedImageError:  # its message contains a memory address
            return "not an image that Pillow can read"
        except Exception as error:  # a broken image raises whatever its bytes lead to
            return first_line(error)
        return None

    with _of_any_size():
        reasons = list(_each(decode_into_row, len(names), "decoding them"))
    usable = np.flatnonzero([reason is None for reason in reasons])
    broken = [
        f"{os.fsencode(name).decode(errors='replace')} ({reason})"  # a name may be in another encoding
        for name, reason in zip(names, reasons, strict=True)
        if reason
    ]
    return images if len(usable) == len(names) else images[usable], usable, broken


@contextmanager
def _of_any_size() -> Iterator[None]:
    """Lift Pillow's limits within it: they are for uploads of strangers, and these files are the user's own."""
    from PIL import Image, PngImagePlugin

    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT_BYTES
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


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
