"""Image files that tests of folders write."""

import numpy as np
from PIL import Image


def write(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(file, **options)
    return file


def plain(value, size=4):
    return np.full((size, size), value, np.uint8)
