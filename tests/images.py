"""Image files that tests of folders write."""

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
        scale, enlarged = int(picture.info["Scale"]), np.asarray(picture)
    pixels = enlarged[::scale, ::scale]
    assert np.array_equal(pixels.repeat(scale, 0).repeat(scale, 1), enlarged)
    return Image.fromarray(pixels)
