"""The figures of the papers, drawn from a trained model and its data.

Each function draws one kind, as (H, W, 3) uint8, with the random numbers of `generator`, which is on the data's device.
A grid of anything but samples raises UsageError for points.
"""

from math import ceil
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.errors import GenexpError, UsageError
from genexp.figures import pictures
from genexp.figures.canvas import Picture, grid, rendered, style
from genexp.figures.points import POINTS
from genexp.metrics.nearest import nearest
from genexp.models import (
    Asking,
    Autoencoder,
    LatentVariableModel,
    Model,
    Reconstructs,
    Translator,
    code_size,
    draw,
    evaluating,
)
from genexp.models.samplers import CHUNK, ChainSampler, ancestral
from genexp.text import count
from genexp.threads import one_for_blas

GAP = 6  # pixels between samples and their neighbours, enough for a visible frame
MAPPED = 2500  # the most test images in a map of codes
FEWEST = 5  # the fewest test images in a map of codes
DRAWS = 1_000_000  # codes that estimate the prior's quantiles: those from 0.025 to 0.975 are right to 0.003 σ
PERPLEXITY = 30  # of t-SNE, if there are enough images


def samples(
    model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int, label: int | None = None
) -> Picture:
    """Draw a grid of samples; for points, a scatter of samples over the data.

    Of a conditional model each row has a class of its own, unless all have the class `label`.
    """
    if data.bounds is None:
        labels = _labels_of_rows(model, data, rows, columns, label)
    else:
        labels = None if label is None else torch.full((POINTS,), label, device=data.device)
    return pictures.of_samples(model, data, generator, rows * columns, columns, labels)


def neighbours(
    model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int, label: int | None = None
) -> Picture:
    """Draw samples; the last column shows, framed, the training image nearest to the sample on its left.

    `columns` counts the last column and is at least 2. The distance is Euclidean, between pixels. Source: Goodfellow et
    al. 2014, Figure 2, "to demonstrate that the model has not memorized the training set".
    """
    _refuse_points(data, "neighbours")
    labels = _labels_of_rows(model, data, rows, columns - 1, label)
    drawn = draw(model, rows * (columns - 1), generator, data, labels).view(rows, columns - 1, *data.shape)
    nearest_rows, _ = nearest(drawn[:, -1], data)
    tiles = torch.cat([drawn, data.images("train", nearest_rows)[:, None]], 1)
    return grid(tiles.flatten(0, 1), columns, GAP, framed=range(columns - 1, rows * columns, columns))


def interpolation(
    model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int, label: int | None = None
) -> Picture:
    """Draw in each row the decoded images of `columns` equally spaced codes from one code, framed, to another.

    The two codes are draws from the prior; a conditional model decodes each row under a class of its own, or all under
    `label`. For a model without a prior, they are the codes of two test images of different classes (of any two, if
    there is one class). Source: Goodfellow et al. 2014, Figure 3. Raises UsageError for a model without codes.
    """
    _refuse_points(data, "interpolation")
    with evaluating(model):
        if isinstance(model, LatentVariableModel):
            starts, ends = model.draw_codes(2 * rows, generator).chunk(2)
        elif isinstance(model, Autoencoder):
            encode = Asking(model.encode)
            starts, ends = (encode(data.batch("test", chosen)) for chosen in _pairs(data, rows, generator))
        else:
            raise UsageError(
                "kind=interpolation: this model has neither a prior over codes nor an encoder, so it has no codes to "
                "interpolate\nUse kind=samples or kind=neighbours"
            )
        weights = torch.linspace(0, 1, columns, device=ends.device)[:, None]
        codes = torch.lerp(starts[:, None], ends[:, None], weights)  # (rows, columns, latent_dim)
        labels = _labels_of_rows(model, data, rows, columns, label)
        framed = [place for row in range(rows) for place in (row * columns, (row + 1) * columns - 1)]
        return grid(ancestral(model.decode, codes.flatten(0, 1), labels), columns, GAP, framed)


def reconstructions(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """Draw `rows` rows of validation images, each above its corrupted images, if there are any, and reconstructions.

    Raises UsageError for a model that reconstructs none.
    """
    _refuse_points(data, "reconstructions")
    if not isinstance(model, Reconstructs):
        raise UsageError(
            "kind=reconstructions: this model reconstructs no images, as one with an encoder does\n"
            "Use kind=samples or kind=neighbours"
        )
    return pictures.of_reconstructions(model, data, generator, rows, columns)


def chains(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """Draw consecutive samples of a chain in each row, from the training image where it begins.

    Raises UsageError for a model that samples without a Markov chain.
    """
    _refuse_points(data, "chains")
    if not isinstance(model, ChainSampler):
        raise UsageError("kind=chains: this model samples without a Markov chain\nUse kind=samples")
    return pictures.of_chains(model, data, generator, rows, columns)


def translations(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """Draw validation images of two data sets, their translations, and these translated back.

    Raises UsageError for a model that does not translate.
    """
    if not isinstance(model, Translator) or data.second is None:
        raise UsageError(
            "kind=translations: this model does not translate between two data sets, as model=cyclegan does\n"
            "Use kind=samples"
        )
    return pictures.of_translations(model, data, max(1, rows // 6), columns)


def manifold(
    model: Model,
    data: DataSet,
    generator: torch.Generator,
    rows: int,
    columns: int,
    method: Literal["pca", "tsne"],
    label: int | None = None,
) -> Picture:
    """Draw the code space, as a grid of decoded codes or as a map of the codes of test images.

    A model with a prior over two dimensions gets the grid, at the prior's quantiles (Kingma and Welling 2014, Figure 4;
    see `prior_quantiles`), a conditional one under the class `label`. Any other model with an encoder gets the map,
    coloured by class. Codes of two dimensions are shown as they are; more dimensions are reduced by `method`: to the
    first two principal components ("pca") or by t-SNE ("tsne", van der Maaten and Hinton 2008). Raises UsageError for a
    model with neither, GenexpError if all codes are equal.
    """
    with evaluating(model):
        if _has_prior_of_two(model, generator):
            assert isinstance(model, LatentVariableModel)
            _refuse_points(data, "manifold")
            if model.conditional and label is None:
                names = ", ".join(data.class_names()[:10])
                raise UsageError(f"kind=manifold: set label= to the class that the codes are decoded under: {names}")
            labels = _labels_of_rows(model, data, rows, columns, label)
            return grid(ancestral(model.decode, prior_quantiles(model, generator, rows, columns), labels), columns)
        if not isinstance(model, Autoencoder):
            raise UsageError(
                "kind=manifold: this model has no encoder that gives codes to map, and no prior over two dimensions "
                "that gives codes to decode\nTrain one with model.latent_dim=2, or use kind=samples"
            )
        test_rows = torch.randperm(len(data.test), generator=generator, device=generator.device)[:MAPPED]
        if label is not None:
            raise UsageError("kind=manifold: a map of codes shows images of all classes; leave out label=")
        encode = Asking(model.encode)
        codes = torch.cat([encode(data.batch("test", chunk)) for chunk in torch.split(test_rows, CHUNK)])
    points, axis_names = _project(codes.double().cpu().numpy(), method, generator)
    labels = data.labels_of("test")[test_rows]
    return _map(points, labels.cpu().numpy(), axis_names, data.class_names())


def code_space(model: Model, data: DataSet, method: str) -> str:
    """Return the name of what `manifold` draws: a grid of decoded codes, or a map by `method` or of the codes alone."""
    if _has_prior_of_two(model, torch.Generator(model.device)):
        return "manifold-grid"
    return "manifold-codes" if code_size(model, data.batch("test", slice(0, 1))) == 2 else f"manifold-{method}"


def _has_prior_of_two(model: Model, generator: torch.Generator) -> bool:
    return isinstance(model, LatentVariableModel) and model.draw_codes(1, generator).shape[1] == 2


def _labels_of_rows(model: object, data: DataSet, rows: int, columns: int, label: int | None) -> Tensor | None:
    """Return the labels of a grid of a conditional model, (rows·columns,): `label`, or a class for each row in turn."""
    if not isinstance(model, Model) or not model.conditional:
        return None
    classes = torch.arange(rows).remainder(len(data.class_names())) if label is None else torch.full((rows,), label)
    return classes.repeat_interleave(columns).to(data.device)


def prior_quantiles(model: LatentVariableModel, generator: torch.Generator, rows: int, columns: int) -> Tensor:
    """Return codes (rows·columns, 2) in reading order; the first coordinate grows to the right, the second upwards.

    Each coordinate is at the quantiles (i + ½)/n of the prior: "linearly spaced coordinates on the unit square were
    transformed through the inverse CDF of the Gaussian" (Kingma and Welling 2014, Figure 4). The quantiles are those of
    DRAWS draws, so any prior will do. A prior on a circle has no such square: its codes are at equally spaced angles.
    """
    drawn = model.draw_codes(DRAWS, generator)
    radii = drawn.norm(dim=1)
    if radii.max() - radii.min() < 1e-3 * radii.mean():
        angles = torch.arange(rows * columns, device=drawn.device) * (2 * torch.pi / (rows * columns))
        return torch.stack([angles.cos(), angles.sin()], 1).mul(radii.mean())
    x = drawn[:, 0].quantile((torch.arange(columns, device=drawn.device) + 0.5) / columns)
    y = drawn[:, 1].quantile((torch.arange(rows, device=drawn.device) + 0.5) / rows)
    return torch.stack([x.repeat(rows), y.flip(0).repeat_interleave(columns)], 1)


def _refuse_points(data: DataSet, kind: str) -> None:
    if data.bounds is not None:
        raise UsageError(
            f"kind={kind}: points cannot be shown as a grid of images\n"
            "Use kind=samples, which draws a scatter of points, or kind=curves"
        )


def _pairs(data: DataSet, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the rows of n test images, and for each that of an image of another class (any other, if there is one)."""
    if len(data.test) < 2:
        raise UsageError("kind=interpolation needs two test images, and the data set has fewer")
    labels = data.labels_of("test")
    firsts = torch.randint(len(data.test), (n,), generator=generator, device=generator.device)
    seconds = []
    for first in firsts:
        others = (labels != labels[first]).nonzero()[:, 0]
        if len(others) == 0:
            others = (torch.arange(len(labels), device=labels.device) != first).nonzero()[:, 0]
        seconds.append(others[torch.randint(len(others), (), generator=generator, device=generator.device)])
    return firsts, torch.stack(seconds)


def _project(
    codes: np.ndarray[Any, Any], method: Literal["pca", "tsne"], generator: torch.Generator
) -> tuple[np.ndarray[Any, Any], tuple[str, str]]:
    """Project codes (n, latent_dim) on the plane; return the points (n, 2) and the names of the two axes."""
    if codes.shape[1] == 2:
        return codes, ("code, first dimension", "code, second dimension")
    if codes.shape[1] < 2 or len(codes) < FEWEST:
        raise UsageError(
            f"kind=manifold: a map needs {FEWEST} test images and codes of two dimensions or more; here are "
            f"{count(len(codes), 'image')} and codes of {codes.shape[1]}"
        )
    if (codes == codes[0]).all():
        raise GenexpError("kind=manifold: all test images have the same code; the encoder has learned nothing")

    from sklearn.decomposition import PCA  # takes a second to import
    from sklearn.manifold import TSNE

    with one_for_blas():
        if method == "tsne":
            seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
            perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
            points = TSNE(perplexity=perplexity, random_state=seed).fit_transform(codes)
            return points, ("t-SNE, first dimension", "t-SNE, second dimension")
        pca = PCA(2, svd_solver="covariance_eigh")
        points = pca.fit_transform(codes)
    shares = [f"{100 * share:.1f} % of the variance" for share in pca.explained_variance_ratio_]
    return points, (f"first principal component: {shares[0]}", f"second principal component: {shares[1]}")


def _map(
    points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], axis_names: tuple[str, str], names: tuple[str, ...]
) -> Picture:
    """Draw a scatter of (n, 2) points, coloured by label, −1 for none; `names` are those of the classes."""
    from matplotlib import color_sequences, colormaps
    from matplotlib.figure import Figure

    classes, class_indices = np.unique(labels, return_inverse=True)
    if len(classes) <= 10:
        palette = np.array(color_sequences["tab10"])
    else:
        palette = colormaps["turbo"](np.linspace(0, 1, len(classes)))

    figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel=axis_names[0], ylabel=axis_names[1])
    axes.set_title(f"codes of {len(points):,} test images", fontsize="medium")
    axes.set_aspect("equal", adjustable="datalim")
    # One scatter in random order: drawn class by class, the last class would cover the others.
    axes.scatter(points[:, 0], points[:, 1], s=9, c=palette[class_indices], linewidths=0, alpha=0.8)
    if classes.tolist() != [-1]:
        for colour, label in zip(palette, classes, strict=False):
            axes.scatter([], [], s=25, color=colour, label="none" if label < 0 else names[label])
        figure.legend(title="class", loc="outside right center", ncols=ceil(len(classes) / 25), frameon=False)
    style(axes)
    return rendered(figure)
