"""Grids of images, scatters of points, and pictures of a model's samples, reconstructions and filters.

A picture is an (H, W, 3) uint8 array.
"""

from collections.abc import Collection
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genexp.data import DataSet, Mixture
from genexp.models import Autoencoder, Model, draw, evaluating
from genexp.noise import unchanged
from genexp.storage.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

SMALLEST_TILE = 28  # pixels; smaller images are enlarged by a whole factor
TILES = 64  # samples or filters in a grid
POINTS = 2500  # samples in a scatter
RECONSTRUCTED = 10  # images in a row above their reconstructions
FRAME = (255, 221, 0)  # yellow


def grid(images: Tensor, columns: int | None = None, gap: int = 1, framed: Collection[int] = ()) -> Picture:
    """Tile (n, C, H, W) images in [0, 1] in reading order; without `columns`, as a square.

    The gaps are grey. The images at the indices `framed` have a yellow frame, half a gap wide.
    """
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


def scatter(samples: Tensor, points: Tensor, mixture: Mixture) -> Picture:
    """Draw (n, 2) samples in [0, 1]² over grey data points, in the mixture's own coordinates."""
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(5, 5), dpi=100, layout="constrained")
    limits = (-mixture.extent, mixture.extent)
    axes = figure.add_subplot(aspect="equal", xlim=limits, ylim=limits)
    for drawn, colour, label in ((points, "0.75", "data"), (samples, "tab:blue", "samples")):
        x, y = ((2 * drawn.cpu() - 1) * mixture.extent).T.numpy()
        axes.scatter(x, y, s=4, c=colour, label=label, linewidths=0)
    axes.legend(loc="upper right", markerscale=3)
    return rendered(figure)


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


def save_picture(picture: Picture, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    with atomic(path) as stream:
        Image.fromarray(picture).save(stream, format="PNG")


def of_samples(
    model: Model, data: DataSet, generator: torch.Generator, n: int = TILES, columns: int | None = None
) -> Picture:
    """Draw n samples of the model as a grid; points of the plane, as a scatter of POINTS samples over the data."""
    return of_drawn(draw(model, n if data.mixture is None else POINTS, generator, data), data, columns)


def of_drawn(samples: Tensor, data: DataSet, columns: int | None = None) -> Picture:
    """Draw the given samples, (n, C, H, W), in the way of `of_samples`."""
    if data.mixture is None:
        return grid(samples, columns)
    return scatter(samples.flatten(1), data.images("train", slice(0, POINTS)).flatten(1), data.mixture)


def of_reconstructions(
    model: Autoencoder, data: DataSet, generator: torch.Generator, rows: int = 2, columns: int = RECONSTRUCTED
) -> Picture:
    """Draw `rows` rows of validation images, and below each row its reconstructions.

    If the model corrupts its input, the corrupted images stand between the two.
    """
    images = data.images("valid", slice(0, rows * columns))
    corrupted = model.noise(images, generator)
    with evaluating(model):
        reconstructed = model.decode(model.encode(corrupted))
    stages = [images, reconstructed] if model.noise is unchanged else [images, corrupted, reconstructed]
    row_groups = zip(*(torch.split(stage, columns) for stage in stages), strict=True)
    full_rows = [row for group in row_groups for row in group if len(row) == min(columns, len(images))]
    return grid(torch.cat(full_rows), columns=len(full_rows[0]))


def of_filters(model: Model, data: DataSet) -> dict[str, Picture]:
    """Draw up to TILES filters of each layer that sees whole images: 0 is grey, the largest weight black or white."""
    filters = {}
    for name, layer in model.first_layers().items():
        weights = layer.weight.detach()[:TILES].view(-1, *data.train.shape[1:])
        filters[name] = grid(0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    return filters
