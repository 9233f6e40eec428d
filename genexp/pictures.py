"""Pictures, as (H, W, 3) uint8 arrays: grids of images, scatters of points, and what a model shows of itself."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet, Mixture
from genexp.models import Autoencoder, Model, draw, evaluating
from genexp.noise import unchanged

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

SMALLEST_TILE = 28  # pixels; smaller images are enlarged by a whole factor, or nobody could see them
TILES = 64  # samples or filters in a grid
POINTS = 2500  # samples in a scatter
RECONSTRUCTED = 10  # images beside their reconstructions in a group of rows, of which there are two


def grid(images: Tensor, columns: int | None = None, gap: int = 1) -> Picture:
    """Tile (n, C, H, W) images in [0, 1] in reading order; into a square, unless `columns` says otherwise."""
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
        picture[top : top + height * scale, left : left + width * scale] = image.transpose(1, 2, 0)
    return picture


def scatter(samples: Tensor, points: Tensor, mixture: Mixture) -> Picture:
    """(n, 2) samples in [0, 1]² over data points in grey, on the axes that the mixture is defined on."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot(
        aspect="equal", xlim=(-mixture.extent, mixture.extent), ylim=(-mixture.extent, mixture.extent)
    )
    for shown, colour, label in ((points, "0.75", "data"), (samples, "tab:blue", "samples")):
        x, y = ((2 * shown.cpu() - 1) * mixture.extent).T.numpy()
        axes.scatter(x, y, s=4, c=colour, label=label, linewidths=0)
    axes.legend(loc="upper right")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def of_samples(model: Model, data: DataSet, generator: torch.Generator) -> Picture:
    """A grid of the model's samples; of points, a scatter over the data."""
    if data.mixture is None:
        return grid(draw(model, TILES, generator, data))
    samples = draw(model, POINTS, generator, data).flatten(1)
    return scatter(samples, data.images("train", slice(0, POINTS)).flatten(1), data.mixture)


def of_reconstructions(model: Autoencoder, data: DataSet, generator: torch.Generator) -> Picture:
    """Validation images, what the encoder was shown of them if it is corrupted, and what the decoder made of it."""
    images = data.images("valid", slice(0, 2 * RECONSTRUCTED))
    seen = model.noise(images, generator)
    with evaluating(model):
        made = model.decode(model.encode(seen))
    kinds = [images, made] if model.noise is unchanged else [images, seen, made]
    groups = zip(*(torch.split(kind, RECONSTRUCTED) for kind in kinds), strict=True)
    whole = [rows for group in groups for rows in group if len(rows) == min(RECONSTRUCTED, len(images))]
    return grid(torch.cat(whole), columns=len(whole[0]))


def of_filters(model: Model, data: DataSet) -> dict[str, Picture]:
    """The first filters of each layer that sees whole images: 0 is mid-grey, the largest weight black or white."""
    found = {}
    for name, layer in model.first_layers().items():
        weights = layer.weight.detach()[:TILES].view(-1, *data.train.shape[1:])
        found[name] = grid(0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    return found
