"""Finding the image files of a folder, and the splits that its subfolders name; what is left out is said.

It opens no image.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genexp.errors import DataError
from genexp.rundirs.directory import holds_run
from genexp.text import count

SPLIT_NAMES = {  # what a subfolder with the images of a split may be called, in any case
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # formats that Pillow recognises but does not decode
LISTED = 3  # folders that a note names


@dataclass
class LeftOut:
    """The files and folders that a walk through a folder did not read."""

    endings: Counter[str] = field(default_factory=Counter)  # files that are no images by their ending, "" for none
    runs: Counter[Path] = field(default_factory=Counter)  # images in each directory of a run
    again: list[Path] = field(default_factory=list)  # folders to which a link leads a second time
    unreadable: list[str] = field(default_factory=list)  # subfolders that cannot be listed, and why
    outside: int = 0  # images outside of the splits' subfolders

    def notes(self, root: Path, split_folders: Iterable[str]) -> list[str]:
        """Return a line for each reason for which something was left out."""
        notes = []
        if self.runs.total():
            images, runs = count(self.runs.total(), "image"), [run for run, n in self.runs.items() if n]
            notes.append(f"{images} left out, in directories of runs and exports: {_listed(runs)}")
        if self.outside:
            notes.append(f"{count(self.outside, 'image')} left out, outside of {', '.join(split_folders)}")
        if self.endings:
            endings = ", ".join(f"{n:,} {ending or 'without ending'}" for ending, n in self.endings.most_common())
            files = count(self.endings.total(), "file")
            notes.append(f"{files} passed over, without the ending of an image that Pillow reads: {endings}")
        if self.unreadable:
            folders = count(len(self.unreadable), "subfolder")
            notes.append(f"{folders} left out, which cannot be listed: {_listed(self.unreadable)}")
        if self.again:
            notes.append(f"read once only, though links lead there again: {_listed(self.again)}")
        return [f"note: {root}: {note}" for note in notes]


def find_images(
    root: Path, splits: Literal["auto", "exact"], skip_broken: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Return the images' names, relative to `root` and sorted, and the subfolder of each split; {} without splits.

    Links to folders are followed, and within a split each folder is read once. Hidden files and folders are not read,
    nor are directories of runs and exports below `root`. Prints notes on what is left out. Raises DataError if there
    are no images, or if the subfolders name only some of the splits; OSError for a folder that cannot be listed, unless
    `skip_broken` leaves it out.
    """
    split_folders = _split_folders(root, splits)
    left_out = LeftOut()
    if split_folders:
        starts = [root / folder for folder in split_folders.values()]
        names = [name for start in starts for name in _walk(root, start, left_out, skip_broken)]
        left_out.outside = len(_walk(root, root, left_out, None, excepted=split_folders.values()))
    else:
        names = _walk(root, root, left_out, skip_broken)
    for note in left_out.notes(root, split_folders.values()):
        print(note, flush=True)
    if not names:
        raise DataError(
            f"{root} holds no image: no file in it or below has an extension that Pillow reads (.jpg, .png, ...)\n"
            "Set dataset.path to the folder that holds the images"
        )
    return sorted(names), split_folders


def _split_folders(root: Path, splits: Literal["auto", "exact"]) -> dict[str, str]:
    """Return the subfolder of each split; {} if no subfolder is called like a split.

    With splits="exact" the names are train, valid and test; unless all three exist, there are no splits.
    """
    if all((root / split).is_dir() for split in SPLIT_NAMES):
        return {split: split for split in SPLIT_NAMES}
    if splits == "exact":
        return {}
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    of_split = {split: [name for name in folders if name.lower() in names] for split, names in SPLIT_NAMES.items()}
    if not any(of_split.values()):
        return {}
    remedy = f"or set dataset.splits=exact to read all of {root} as one, with its subfolders as classes"
    for split, found in of_split.items():
        if len(found) > 1:
            raise DataError(
                f"{root} has {' and '.join(found)}, which all name the {split} images\nLeave one of them, {remedy}"
            )
    missing = [f"{split} ({', '.join(SPLIT_NAMES[split][1:])})" for split, found in of_split.items() if not found]
    if missing:
        present = " and ".join(name for found in of_split.values() for name in found)
        raise DataError(f"{root} has {present}, but no {' and no '.join(missing)}\nAdd what is missing, {remedy}")
    return {split: found[0] for split, found in of_split.items()}


def _walk(
    root: Path, start: Path, left_out: LeftOut, skip_broken: bool | None, excepted: Collection[str] = ()
) -> list[str]:
    """Return the images at and below `start`, relative to `root`; the subfolders `excepted` are not read.

    Raises OSError for a folder that cannot be listed. With `skip_broken` subfolders may be such, and with None all.
    """

    def fail(error: OSError) -> None:
        if skip_broken is False or (skip_broken and error.filename == str(start)):
            raise error
        if skip_broken:
            left_out.unreadable.append(f"{error.filename} ({error.strerror})")

    names, seen = list[str](), set[str]()
    run: Path | None = None  # the run's directory that the walk is in
    extensions = _extensions()
    for parent, folders, files in os.walk(start, onerror=fail, followlinks=True):
        place = Path(parent)
        real_path = os.path.realpath(parent)
        if real_path in seen:
            left_out.again.append(place)
            folders.clear()
            continue
        seen.add(real_path)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (place == start and name in excepted)
        )
        if run is None or not place.is_relative_to(run):
            run = place if place != root and holds_run(files) else None
        files = [name for name in files if not name.startswith(".")]
        images = [name for name in files if Path(name).suffix.lower() in extensions]
        if run is not None:
            left_out.runs[run] += len(images)
            continue
        left_out.endings.update(Path(name).suffix.lower() for name in set(files) - set(images))
        names += [(place / name).relative_to(root).as_posix() for name in images]
    return names


def _extensions() -> set[str]:
    """Return the endings of the formats that Pillow decodes, as in ".png"."""
    from PIL import Image

    Image.init()  # loads all formats into the tables below
    return {extension for extension, name in Image.EXTENSION.items() if name in Image.OPEN.keys() - NOT_DECODED}


def _listed(places: Collection[Path | str]) -> str:
    """Return the first places, and how many more there are."""
    more = f" and {len(places) - LISTED} more" if len(places) > LISTED else ""
    return ", ".join(str(place) for place in list(places)[:LISTED]) + more
