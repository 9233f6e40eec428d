"""Images that a user gives: arrays, an .npz file, an image file or a folder of them, in the form of a model's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.data.decoding import Format, decoded
from genexp.data.image_files import find_images
from genexp.errors import DataError, UsageError
from genexp.models import in_unit_range
from genexp.text import count

if TYPE_CHECKING:
    Array = Tensor | np.ndarray[Any, Any]

LISTED = 5  # broken images that a message names
CONTRARY = 0.2  # by so much nearer to the training images' mean brightness, inverted images are probably meant


def given_images(
    key: str, place: str, data: DataSet, white: int | None = None, invert: bool = False
) -> tuple[list[str], Tensor]:
    """Return the names of images, and the images as a model of `data` takes them: (n, C, H, W) float32 in [0, 1].

    `key` is the setting that names them. `place` is a folder, an image file, or an .npz file with one array, or one
    called images or samples. Image files are cut to the largest central part of the model's shape, and resized; those
    that are broken are left out, and said. `white` is the value of white in the files; with `invert` black and white
    are exchanged. Prints what was read, and a warning if the inverse would look more like the training images. Raises
    DataError, UsageError.
    """
    file = Path(place).expanduser()
    if not file.exists():
        raise UsageError(f"{key}={place}: there is no such file or folder")
    if file.suffix in (".npz", ".npy"):
        names, images = _of_array(key, file, data)
    elif data.bounds is not None:
        raise UsageError(f"{key}={place}: the data are points of the plane; give FILE.npz with an array (n, 2)")
    else:
        names, images = _of_files(key, file, data, white)
    if invert:
        images = 1 - images
    if data.bounds is None:
        _remark(images, data)
    return names, images


def _of_array(key: str, file: Path, data: DataSet) -> tuple[list[str], Tensor]:
    try:
        content = np.load(file, allow_pickle=False)
        arrays = {key: content} if isinstance(content, np.ndarray) else {name: content[name] for name in content}
    except (OSError, ValueError) as error:
        raise DataError(f"{key}={file} cannot be read: {error}") from error
    large = [name for name in arrays if arrays[name].ndim > 1]
    named = [name for name in (key, "images", "samples") if name in arrays][:1] or large
    if len(named) != 1:
        raise UsageError(f"{key}={file} holds the arrays {', '.join(arrays)}: call the one that is meant {key}")
    images = as_images(arrays[named[0]], key) if data.bounds is None else as_tensor(arrays[named[0]]).float()
    if tuple(images.shape[1:]) != tuple(data.shape):
        ours, theirs = ("×".join(map(str, shape)) for shape in (data.shape, images.shape[1:]))
        raise UsageError(f"{key}={file} are {theirs}, and those of the data {ours}; image files are cut and resized")
    print(f"{count(len(images), 'image')} of {file}", flush=True)
    return [str(number) for number in range(len(images))], images


def _of_files(key: str, place: Path, data: DataSet, white: int | None) -> tuple[list[str], Tensor]:
    channels, height, width = data.shape
    root = place if place.is_dir() else place.parent
    names = find_images(root, "exact", skip_broken=True)[0] if place.is_dir() else [place.name]
    images, usable, broken = decoded(root, names, Format(height, width, channels, None, white))
    if broken:
        listed = "; ".join(broken[:LISTED]) + (f"; and {len(broken) - LISTED} more" if len(broken) > LISTED else "")
        if not len(usable):
            raise DataError(f"{key}={place}: none of them can be used: {listed}")
        print(f"warning: {len(broken):,} of {len(names):,} images are left out: {listed}", flush=True)
    shape = f"{height}×{width} {'grey' if channels == 1 else 'colour'}"
    print(f"{count(len(usable), 'image')} of {place}, each cut to its middle and resized to {shape}", flush=True)
    return [names[index] for index in usable], torch.from_numpy(images).float() / 255


def _remark(images: Tensor, data: DataSet) -> None:
    """Warn if the images are as light as the training images are dark, or the other way round."""
    ours, theirs = images.mean().item(), data.spec().pixel_mean.mean().item()
    if abs(ours - theirs) - abs(1 - ours - theirs) > CONTRARY:
        print(
            f"warning: the images' mean brightness is {ours:.2f}, that of the training images {theirs:.2f}; "
            "invert=true exchanges black and white",
            flush=True,
        )


def as_images(images: "Array", name: str = "images") -> Tensor:
    """Return images as float32 (n, C, H, W) in [0, 1]; points (n, d) stay as they are.

    uint8 is divided by 255, and (n, H, W) gets one channel. Raises UsageError for other values and shapes.
    """
    x = as_tensor(images)
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim not in (2, 4):
        raise UsageError(f"{name} are (n, C, H, W), and these are {tuple(x.shape)}")
    return in_unit_range(x, f"the {name} are")


def as_tensor(values: "Array") -> Tensor:
    """Return the values on the CPU."""
    return values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
