"""Pictures, (H, W, 3) uint8 arrays: grids of images, matplotlib's figures, and their files."""

from collections.abc import Collection
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genexp import __version__
from genexp.storage.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

LEAST_WIDTH = 600  # pixels of a file
SMALLEST_TILE = 28  # pixels; smaller images are enlarged by a whole factor
FRAME = (255, 221, 0)  # yellow


def grid(images: "Tensor", columns: int | None = None, gap: int = 1, framed: Collection[int] = ()) -> Picture:
    """Tile (n, C, H, W) images in [0, 1] in reading order; without `columns`, as a square.

    The gaps are grey. The images at the indices `framed` have a yellow frame, half a gap wide.
    """
    import torch  # curves are drawn without it

    columns = columns or ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    scale = ceil(SMALLEST_TILE / min(images.shape[-2:]))
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    pixels = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3).expand(-1, 3, -1, -1)
    height, width = pixels.shape[-2:]
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 128, np.uint8)
    frame = max(1, gap // 2)
    for index, image in enumerate(pixels.numpy()):
        top, left = index // columns * (height + gap) + gap, index % columns * (width + gap) + gap
        bottom, right = top + height, left + width
        if index in framed:
            picture[top - frame : bottom + frame, left - frame : right + frame] = FRAME
        picture[top:bottom, left:right] = image.transpose(1, 2, 0)
    return picture


def style(axes: "Axes") -> None:
    """Put a light grid behind what is drawn, and remove the frame above and on the right."""
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def rendered(figure: "Figure") -> Picture:
    """Return a matplotlib figure as a picture, in the figure's own size and resolution."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_picture(picture: Picture, path: Path, title: str) -> None:
    """Write a PNG file, whole or not at all, with the title of what it shows in it.

    A picture narrower than LEAST_WIDTH is enlarged by a whole factor, which the file says as `Scale`.
    """
    scale = ceil(LEAST_WIDTH / picture.shape[1])
    about = PngInfo()
    for name, text in {"Title": title, "Software": f"genexp {__version__}", "Scale": str(scale)}.items():
        about.add_itxt(name, text.encode(errors="replace").decode())  # a name may be in another encoding
    with atomic(path) as stream:
        Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)).save(stream, format="PNG", pnginfo=about)
