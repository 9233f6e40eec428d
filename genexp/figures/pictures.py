"""Pictures, as (H, W, 3) uint8 arrays: grids of images, scatters of points, and what a model shows of itself."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet, Mixture
from genexp.models import Autoencoder, Model, draw, evaluating
from genexp.noise import unchanged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

SMALLEST_TILE = 28  # pixels; smaller images are enlarged by a whole factor, or nobody could see them
TILES = 64  # samples or filters in a grid
POINTS = 2500  # samples in a scatter
RECONSTRUCTED = 10  # images above their reconstructions in a row
FRAME = (255, 221, 0)  # yellow


def grid(images: Tensor, columns: int | None = None, gap: int = 1, framed: Collection[int] = ()) -> Picture:
    """Tile (n, C, H, W) images in [0, 1] in reading order; into a square, unless `columns` says otherwise.

    The gaps are grey; the `framed` images have a yellow frame, half a gap wide.
    """
    n, channels, height, width = images.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    scale = max(1, -(-SMALLEST_TILE // min(height, width)))
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    pixels = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tile_height, tile_width = height * scale + gap, width * scale + gap
    picture = np.full((rows * tile_height + gap, columns * tile_width + gap, 3), 128, np.uint8)
    for index, image in enumerate(pixels.expand(n, 3 if channels == 1 else channels, -1, -1).numpy()):
        top, left = index // columns * tile_height + gap, index % columns * tile_width + gap
        if index in framed:
            width_of_frame = max(1, gap // 2)
            frame = slice(top - width_of_frame, top + height * scale + width_of_frame)
            picture[frame, left - width_of_frame : left + width * scale + width_of_frame] = FRAME
        picture[top : top + height * scale, left : left + width * scale] = image.transpose(1, 2, 0)
    return picture


def scatter(samples: Tensor, points: Tensor, mixture: Mixture) -> Picture:
    """(n, 2) samples in [0, 1]² over data points in grey, on the axes that the mixture is defined on."""
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(5, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot(
        aspect="equal", xlim=(-mixture.extent, mixture.extent), ylim=(-mixture.extent, mixture.extent)
    )
    for shown, colour, label in ((points, "0.75", "data"), (samples, "tab:blue", "samples")):
        x, y = ((2 * shown.cpu() - 1) * mixture.extent).T.numpy()
        axes.scatter(x, y, s=4, c=colour, label=label, linewidths=0)
    axes.legend(loc="upper right", markerscale=3)
    return rendered(figure)


def rendered(figure: "Figure") -> Picture:
    """A matplotlib figure in its own size and resolution."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def of_samples(
    model: Model, data: DataSet, generator: torch.Generator, n: int = TILES, columns: int | None = None
) -> Picture:
    """A grid of n of the model's samples; of points, a scatter of POINTS over the data."""
    return of_drawn(draw(model, n if data.mixture is None else POINTS, generator, data), data, columns)


def of_drawn(samples: Tensor, data: DataSet, columns: int | None = None) -> Picture:
    """The same of samples that are there, (n, C, H, W)."""
    if data.mixture is None:
        return grid(samples, columns)
    return scatter(samples.flatten(1), data.images("train", slice(0, POINTS)).flatten(1), data.mixture)


def of_reconstructions(
    model: Autoencoder, data: DataSet, generator: torch.Generator, rows: int = 2, columns: int = RECONSTRUCTED
) -> Picture:
    """Validation images, what the encoder was shown of them if it is corrupted, and what the decoder made of it.

    `rows` rows of images, with what belongs to each row below it.
    """
    images = data.images("valid", slice(0, rows * columns))
    seen = model.noise(images, generator)
    with evaluating(model):
        made = model.decode(model.encode(seen))
    kinds = [images, made] if model.noise is unchanged else [images, seen, made]
    groups = zip(*(torch.split(kind, columns) for kind in kinds), strict=True)
    whole = [row for group in groups for row in group if len(row) == min(columns, len(images))]
    return grid(torch.cat(whole), columns=len(whole[0]))


def of_filters(model: Model, data: DataSet) -> dict[str, Picture]:
    """The first filters of each layer that sees whole images: 0 is mid-grey, the largest weight black or white."""
    found = {}
    for name, layer in model.first_layers().items():
        weights = layer.weight.detach()[:TILES].view(-1, *data.train.shape[1:])
        found[name] = grid(0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    return found
