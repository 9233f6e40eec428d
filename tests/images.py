"""Image files that tests of folders write."""

from math import ceil

import numpy as np
from PIL import Image


def write(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(file, **options)
    return file


def plain(value, size=4):
    return np.full((size, size), value, np.uint8)


def unscaled(file):
    """Open a picture that genexp wrote, at the scale at which it was drawn; the file has each pixel several times."""
    with Image.open(file) as picture:
        scale, rows = int(picture.info["Scale"]), picture.height - int(picture.info["Caption"])
        enlarged = np.asarray(picture)[:rows]
    pixels = enlarged[::scale, ::scale]
    assert np.array_equal(pixels.repeat(scale, 0).repeat(scale, 1), enlarged)
    return Image.fromarray(pixels)


def unlabelled(picture, columns, tile=32):
    """Return a picture of labelled rows as the grid of its tiles was drawn: without names, and not enlarged."""
    width = columns * (tile + 1) + 1
    scale = ceil(600 / width)
    assert (picture[:, : -width * scale] == 255).mean() > 0.5  # letters on paper
    return np.asarray(picture)[::scale, -width * scale :: scale]
