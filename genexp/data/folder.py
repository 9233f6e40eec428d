"""Any folder of images: its images cut out of the middle, resized, labelled by subfolders, and split."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from genexp.data import SPLITS, DataSet, split_by_rows
from genexp.data.decoding import Format, decoded
from genexp.data.image_files import find_images
from genexp.errors import DataError, UsageError
from genexp.ranges import AsBefore, Beside, Binarization, DataPath, Fraction, PositiveInt, Sides

Array = np.ndarray[Any, Any]

LISTED = 10  # broken images that a message names


def folder(
    data_dir: Path,
    *,
    path: Annotated[str | None, DataPath("known_as")],
    known_as: Annotated[str | None, AsBefore(None), Beside(None)] = None,
    size: Sides,
    channels: Literal[1, 3],
    crop: Sides | None,
    white: Annotated[PositiveInt | None, AsBefore(None)] = None,
    splits: Annotated[Literal["auto", "exact"], AsBefore("exact"), Beside("exact")] = "exact",
    valid_share: Fraction,
    test_share: Fraction,
    skip_broken: Annotated[bool, Beside(False)],
    flip: Annotated[bool, AsBefore(False)] = False,
    binarize: Annotated[Binarization, AsBefore("none")] = "none",
) -> DataSet:
    """Return the images below `path`, each made from its central part (see `decoding.decode`).

    They are `channels`×`size`×`size`, or with size=[height, width] of these sides. Subfolders for all three splits,
    called train, valid and test or alike (`image_files.SPLIT_NAMES`), are the splits, and nothing else is read.
    Otherwise one fixed permutation of all images, sorted by name, is cut by the two shares. Hidden files and what lies
    in directories of runs are not read. The classes are the subfolders (of the split's folder, or of `path`), sorted by
    name; an image in no subfolder has the label −1. `white` is the value of white in the files, by default the largest
    of 8 or 16 bits. With `known_as`, runs are the same wherever `path` is.

    Decoded images are kept in the cache folder. Raises UsageError for settings that contradict each other and for a
    missing folder, and DataError if the folder names only some of the splits, a split is empty, or, without
    `skip_broken`, an image is broken or smaller than `crop`.
    """
    if path is None:
        raise UsageError("dataset=folder needs dataset.path=FOLDER, the folder that holds the images")
    form = _format(size, channels, crop, white)
    root = Path(path).expanduser()
    if not root.is_dir():
        mistake = "is not a folder" if root.exists() else "does not exist"
        moved = "" if known_as else f"; if they moved from there, add dataset.known_as={path}, and their runs go on"
        raise UsageError(
            f"dataset.path={path}: {root.absolute()} {mistake}\nSet it to the folder that holds the images{moved}"
        )
    try:
        names, split_folders = find_images(root, splits, skip_broken)
        if not split_folders and not (valid_share > 0 and test_share > 0 and valid_share + test_share < 1):
            raise UsageError(
                f"dataset.valid_share={valid_share:g} and dataset.test_share={test_share:g}: "
                "both should be above 0, and their sum below 1"
            )
        images, usable, broken = decoded(root, names, form)
    except OSError as error:
        skipped = error.filename not in (None, path, str(root)) and not skip_broken
        remedy = (
            "dataset.skip_broken=true leaves it out" if skipped else f"set dataset.path to a folder other than {root}"
        )
        raise DataError(f"{error.filename or root} cannot be read: {error.strerror}\nMend that, or {remedy}") from error
    if broken:
        more = [f"and {len(broken) - LISTED} more"] if len(broken) > LISTED else []
        listed = "; ".join(broken[:LISTED] + more)
        summary = f"{len(broken):,} of {len(names):,} images in {root}"
        if not skip_broken:
            raise DataError(f"{summary} cannot be used: {listed}\ndataset.skip_broken=true leaves them out")
        print(f"warning: {summary} are left out: {listed}", flush=True)
    labels, classes = _labels(names, bool(split_folders))
    rows = _split(root, [names[index] for index in usable], split_folders, valid_share, test_share)
    data = split_by_rows(torch.from_numpy(images), torch.from_numpy(labels[usable]), rows, classes=classes)
    return replace(data, flip=flip).binarized(binarize)


def _format(size: int | list[int], channels: int, crop: int | list[int] | None, white: int | None) -> Format:
    """Return the form of the images. Raises UsageError if `crop` has another shape than they."""
    height, width = _height_and_width(size)
    part = None if crop is None else _height_and_width(crop)
    if part is not None and part[0] * width != part[1] * height:
        raise UsageError(
            f"dataset.crop={crop} and dataset.size={size} are of different shapes, so that images would be distorted\n"
            "Set both as one side of a square, or both as [height,width] of one shape"
        )
    return Format(height, width, channels, part, white)


def _height_and_width(sides: int | list[int]) -> tuple[int, int]:
    height, width = sides if isinstance(sides, list) else (sides, sides)
    return height, width


def _split(
    root: Path, names: list[str], split_folders: dict[str, str], valid_share: float, test_share: float
) -> dict[str, Tensor]:
    """Return each split's rows among the images `names`. Raises DataError for an empty split."""
    if split_folders:
        folders = np.array([name.partition("/")[0] for name in names], dtype=np.str_)
        rows = {split: torch.from_numpy(np.flatnonzero(folders == split_folders[split])) for split in SPLITS}
        remedy = f"each of the subfolders {', '.join(split_folders.values())} needs some"
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


def _labels(names: list[str], has_splits: bool) -> tuple[Array, tuple[str, ...]]:
    """Return the number of each image's subfolder, −1 for none, (n,) int64, and the subfolders' names.

    All splits share one numbering.
    """
    if has_splits:
        names = [name.partition("/")[2] for name in names]
    subfolders = ["", *(name.partition("/")[0] if "/" in name else "" for name in names)]  # "" is sorted first
    classes, numbers = np.unique(subfolders, return_inverse=True)
    return numbers[1:] - 1, tuple(classes[1:].tolist())
