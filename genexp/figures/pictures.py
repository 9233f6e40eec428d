"""Pictures of a model's samples, reconstructions, translations and filters."""

from collections.abc import Iterator
from math import ceil, sqrt

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.figures.canvas import Picture, grid, labelled
from genexp.figures.points import POINTS, of_points
from genexp.models import Autoencoder, Model, Reconstructs, Side, Translator, draw, evaluating, reconstructed
from genexp.models.samplers import ChainSampler, markov_chain, training_images
from genexp.noise import unchanged

TILES = 64  # samples or filters in a grid
CLASSES = 20  # the most classes of a conditional model that have a row
WALKS, WALKED = 8, 16  # chains in a picture, and images of each
RECONSTRUCTED = 10  # images in a row above their reconstructions


def of_model(model: Model, data: DataSet, generator: torch.Generator) -> Iterator[tuple[str, Picture]]:
    """Yield every picture that a model shows of itself while it is trained, by name."""
    yield "samples", of_samples(model, data, generator, preview=True)
    if data.bounds is not None:
        return
    for layer, picture in of_filters(model, data).items():
        yield f"filters/{layer}", picture
    if isinstance(model, Reconstructs):
        yield "reconstructions", of_reconstructions(model, data, generator)
    if isinstance(model, ChainSampler):
        yield "chains", of_chains(model, data, generator)
    if isinstance(model, Translator) and data.second is not None:
        yield "translations", of_translations(model, data)


def of_samples(
    model: Model,
    data: DataSet,
    generator: torch.Generator,
    n: int = TILES,
    columns: int | None = None,
    labels: Tensor | None = None,
    preview: bool = False,
) -> Picture:
    """Draw n samples of the model as a grid; points as a scatter of POINTS samples over the data.

    `labels`, (n,), are those of a conditional model's samples; without them each row has a class of its own.
    """
    if data.bounds is not None:
        n = POINTS
    elif model.conditional and labels is None:
        columns = columns or ceil(sqrt(n))
        labels = rows_of_classes(data, n, columns).to(data.device)
        n = len(labels)
    return of_drawn(draw(model, n, generator, data, labels, preview), data, columns, model)


def rows_of_classes(data: DataSet, n: int, columns: int) -> Tensor:
    """Return the labels of a grid with a row for each class, (rows·columns,); some n, but all classes up to CLASSES."""
    number = min(len(data.class_names()), CLASSES)
    rows = max(number, n // columns)
    return torch.arange(rows).remainder(number).sort().values.repeat_interleave(columns)


def of_drawn(samples: Tensor, data: DataSet, columns: int | None = None, model: Model | None = None) -> Picture:
    """Draw the given samples, (n, C, H, W), in the way of `of_samples`; `model` for what it says of all points."""
    return grid(samples, columns) if data.bounds is None else of_points(samples, data, model)


def of_reconstructions(
    model: Model, data: DataSet, generator: torch.Generator, rows: int = 2, columns: int = RECONSTRUCTED
) -> Picture:
    """Draw `rows` rows of validation images, and below each row its reconstructions.

    If an autoencoder corrupts its input, the corrupted images stand between the two, and are what is reconstructed.
    """
    batch = data.batch("valid", slice(0, rows * columns))
    images = batch["images"]
    seen = {}
    if isinstance(model, Autoencoder) and model.noise is not unchanged:
        seen = {"corrupted": model.noise(images, generator)}
    made = reconstructed(model, batch | {"images": seen.get("corrupted", images)})
    return rows_of_versions({"images": images, **seen, "reconstructed": made}, columns)


def of_chains(
    model: ChainSampler, data: DataSet, generator: torch.Generator, rows: int = WALKS, columns: int = WALKED
) -> Picture:
    """Draw a row for each of `rows` chains: the training image where it begins, then a sample each `thinning` steps.

    There is no burn-in, so the picture shows how a chain leaves its image, and how it mixes.
    """
    assert isinstance(model, Model)
    images = training_images(data, rows, generator)
    with evaluating(model):
        state, step = model.chain(images, generator, data)
        walked = markov_chain(step, state, rows * (columns - 1), burn_in=0, thinning=model.thinning)
    tiles = torch.cat([images, walked]).view(columns, rows, *data.shape).transpose(0, 1)
    return grid(tiles.flatten(0, 1), columns)


def of_translations(model: Translator, data: DataSet, rows: int = 1, columns: int = RECONSTRUCTED) -> Picture:
    """Draw validation images of the first data set, their translations, and these translated back; then of the second.

    Each of the three is a row; there are `rows` rows of images for each data set.
    """
    assert isinstance(model, Model)
    assert data.second is not None
    columns = min(columns, len(data.valid), len(data.second.valid))
    pictures: list[Picture] = []
    with evaluating(model):
        sides: list[tuple[DataSet, Side, Side]] = [(data, "b", "a"), (data.second, "a", "b")]
        for images, there, back in sides:
            x = images.images("valid", slice(0, rows * columns))
            translated = model.translate(x, there)
            versions = {"images": x, "translated": translated, "and back": model.translate(translated, back)}
            pictures.append(
                rows_of_versions({name: each.expand(-1, 3, -1, -1) for name, each in versions.items()}, columns)
            )
    return np.concatenate(pictures)


def rows_of_versions(versions: dict[str, Tensor], columns: int) -> Picture:
    """Draw a row of each version of the images, one below the other, then the next rows; leave out rows not full.

    The names of the versions stand on the left. The first row counts as full if there are fewer images.
    """
    row_groups = zip(*(torch.split(version, columns) for version in versions.values()), strict=True)
    full = min(columns, *map(len, versions.values()))
    full_rows = [row for group in row_groups for row in group if len(row) == full]
    return labelled(grid(torch.cat(full_rows), columns=full), [*versions] * (len(full_rows) // len(versions)))


def of_filters(model: Model, data: DataSet) -> dict[str, Picture]:
    """Draw up to TILES filters of each layer that shows its own, those of the largest norm, in the order of the norms.

    In each, 0 is grey, and the largest weight is black or white.
    """
    filters = {}
    for name, of_layer in model.filters().items():
        order = of_layer.norm(dim=1).argsort(descending=True, stable=True)
        weights = of_layer[order[:TILES]].view(-1, *data.shape)
        filters[name] = grid(0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    return filters
