"""The figures of the papers, from a trained model and its data; and the curves of a run, from what it logged.

Pictures are (H, W, 3) uint8. They follow from the generator that is handed in, which is on the data's device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.errors import GenexpError, UsageError
from genexp.figures import pictures
from genexp.figures.nearest import nearest
from genexp.figures.pictures import Picture, grid, rendered
from genexp.models import Autoencoder, LatentVariableModel, Model, draw, evaluating
from genexp.models.samplers import CHUNK, ancestral
from genexp.storage.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 6  # pixels between samples and their neighbours, for a frame that is seen
MAPPED = 2500  # test images in a map of codes
FEWEST = 5  # images that a map is made of
DRAWS = 1_000_000  # codes whose quantiles stand for the prior's: those from 0.025 to 0.975 are then right to 0.003 σ
PERPLEXITY = 30  # of t-SNE, where there are images enough


def samples(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """A grid of samples; of points of the plane, a scatter over the data."""
    return pictures.of_samples(model, data, generator, rows * columns, columns)


def neighbours(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """Samples, and in the last column, framed, the nearest training image of the sample beside it.

    `columns` counts that column, too; at least 2. Source: Goodfellow et al. 2014, Figure 2, "to demonstrate that the
    model has not memorized the training set". Nearest is by Euclidean distance between pixels.
    """
    _refuse_points(data, "neighbours")
    drawn = draw(model, rows * (columns - 1), generator, data).view(rows, columns - 1, *data.train.shape[1:])
    found, _ = nearest(drawn[:, -1], data)
    tiles = torch.cat([drawn, data.images("train", found)[:, None]], 1)
    return grid(tiles.flatten(0, 1), columns, GAP, framed=range(columns - 1, rows * columns, columns))


def interpolation(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """In each row, decoded, `columns` equally spaced points of the straight line between two codes, ends included.

    The ends are draws from the prior; where there is none, codes of two test images of different classes (of any
    two, where there are no classes). Source: Goodfellow et al. 2014, Figure 3. Raises UsageError for a model without
    codes, and for points of the plane.
    """
    _refuse_points(data, "interpolation")
    with evaluating(model):
        if isinstance(model, LatentVariableModel):
            starts, ends = model.draw_codes(2 * rows, generator).chunk(2)
        elif isinstance(model, Autoencoder):
            starts, ends = (model.encode(data.images("test", shown)) for shown in _pairs(data, rows, generator))
        else:
            raise UsageError(
                "kind=interpolation: this model has neither a prior over codes nor an encoder, so there are no codes "
                "to go between\nUse kind=samples or kind=neighbours"
            )
        weights = torch.linspace(0, 1, columns, device=ends.device)[:, None]
        codes = torch.lerp(starts[:, None], ends[:, None], weights)  # (rows, columns, latent_dim)
        return grid(ancestral(model.decode, codes.flatten(0, 1)), columns)


def reconstructions(model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int) -> Picture:
    """`rows` rows of validation images; below each, what the encoder saw if that is corrupted, and what was made of it.

    Raises UsageError for a model without an encoder, and for points of the plane.
    """
    _refuse_points(data, "reconstructions")
    if not isinstance(model, Autoencoder):
        raise UsageError(
            "kind=reconstructions: this model has no encoder, so it reconstructs nothing\n"
            "Use kind=samples or kind=neighbours"
        )
    return pictures.of_reconstructions(model, data, generator, rows, columns)


def manifold(
    model: Model, data: DataSet, generator: torch.Generator, rows: int, columns: int, method: Literal["pca", "tsne"]
) -> Picture:
    """What the code space looks like.

    With a prior over two dimensions, decoded codes at the prior's quantiles (Kingma and Welling 2014, Figure 4; see
    `prior_quantiles`). Else, of a model with an encoder, a map of the codes of up to 2,500 test images, coloured by
    class: the codes themselves if they have two dimensions; otherwise `method` projects them on their first two
    principal components ("pca"), or embeds them (t-SNE, van der Maaten and Hinton 2008). `rows` and `columns` are
    those of the grid. Raises UsageError for a model that has neither, GenexpError for codes that are all the same.
    """
    with evaluating(model):
        if isinstance(model, LatentVariableModel) and model.draw_codes(1, generator).shape[1] == 2:
            _refuse_points(data, "manifold")
            return grid(ancestral(model.decode, prior_quantiles(model, generator, rows, columns)), columns)
        if not isinstance(model, Autoencoder):
            raise UsageError(
                "kind=manifold: this model has no encoder, so there are no codes to map, and no prior over two "
                "dimensions, of which a grid could be decoded\n"
                "Train one with model.latent_dim=2, or use kind=samples"
            )
        shown = torch.randperm(len(data.test), generator=generator, device=generator.device)[:MAPPED]
        codes = torch.cat([model.encode(data.images("test", chunk)) for chunk in torch.split(shown, CHUNK)])
    places, names = _plane(codes.double().cpu().numpy(), method, generator)
    return _map(places, data.labels["test"][shown].cpu().numpy(), names)


def prior_quantiles(model: LatentVariableModel, generator: torch.Generator, rows: int, columns: int) -> Tensor:
    """Codes (rows·columns, 2) in reading order: the first coordinate grows to the right, the second upwards.

    Each coordinate is at the quantiles (i + ½)/n of the prior: "linearly spaced coordinates on the unit square were
    transformed through the inverse CDF of the Gaussian" (Kingma and Welling 2014, Figure 4). They are the empirical
    quantiles of a million draws, so that the prior need not be known by name; those of a uniform prior are equally
    spaced. A prior on a circle has no such square: its codes are at equally spaced angles from 0, one after another.
    """
    drawn = model.draw_codes(DRAWS, generator)
    radii = drawn.norm(dim=1)
    if radii.max() - radii.min() < 1e-3 * radii.mean():
        angles = torch.arange(rows * columns, device=drawn.device) * (2 * torch.pi / (rows * columns))
        circle: Tensor = radii.mean() * torch.stack([angles.cos(), angles.sin()], 1)
        return circle
    x, y = (
        drawn[:, axis].quantile((torch.arange(n, device=drawn.device) + 0.5) / n)
        for axis, n in enumerate((columns, rows))
    )
    return torch.stack([x.repeat(rows), y.flip(0).repeat_interleave(columns)], 1)


def _refuse_points(data: DataSet, kind: str) -> None:
    if data.mixture is not None:
        raise UsageError(
            f"kind={kind}: points of the plane are no pictures to lay side by side\n"
            "Use kind=samples, which scatters them over the data, or kind=curves"
        )


def _pairs(data: DataSet, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of n test images, and of one of another class for each; of another image, if there is one class."""
    if len(data.test) < 2:
        raise UsageError("kind=interpolation: a line needs two test images, and the data set has fewer")
    labels = data.labels["test"]
    firsts = torch.randint(len(data.test), (n,), generator=generator, device=generator.device)
    seconds = []
    for first in firsts:
        others = (labels != labels[first]).nonzero()[:, 0]
        if len(others) == 0:
            others = (torch.arange(len(labels), device=labels.device) != first).nonzero()[:, 0]
        seconds.append(others[torch.randint(len(others), (), generator=generator, device=generator.device)])
    return firsts, torch.stack(seconds)


def _plane(
    codes: np.ndarray[Any, Any], method: Literal["pca", "tsne"], generator: torch.Generator
) -> tuple[np.ndarray[Any, Any], tuple[str, str]]:
    """Places (n, 2) of codes (n, latent_dim), and the names of the two axes."""
    if codes.shape[1] == 2:
        return codes, ("code, first dimension", "code, second dimension")
    if codes.shape[1] < 2 or len(codes) < FEWEST:
        raise UsageError(
            f"kind=manifold: a map needs {FEWEST} test images and codes of two dimensions or more; here are "
            f"{len(codes):,} images and codes of {codes.shape[1]}"
        )
    if (codes == codes[0]).all():
        raise GenexpError("kind=manifold: all test images have the same code; the encoder has learned nothing")

    from sklearn.decomposition import PCA  # takes a second to import
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(torch.get_num_threads()):  # all cores would be taken otherwise
        if method == "tsne":
            seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
            perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
            places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(codes)
            return places, ("t-SNE, first dimension", "t-SNE, second dimension")
        pca = PCA(2, svd_solver="covariance_eigh")
        places = pca.fit_transform(codes)
    first, second = (f"{100 * share:.1f} % of the variance" for share in pca.explained_variance_ratio_)
    return places, (f"first principal component: {first}", f"second principal component: {second}")


def _map(places: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], names: tuple[str, str]) -> Picture:
    """A scatter of (n, 2) places; where there are labels, each in the colour of its own."""
    from matplotlib import color_sequences, colormaps
    from matplotlib.figure import Figure

    classes = np.unique(labels)
    if len(classes) <= 10:
        palette = np.array(color_sequences["tab10"])
    else:
        palette = colormaps["turbo"](np.linspace(0, 1, len(classes)))
    ranks = np.searchsorted(classes, labels)

    figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    # All at once, in the drawn order: class after class, the last would lie on all others.
    axes.scatter(places[:, 0], places[:, 1], s=9, c=palette[ranks], linewidths=0, alpha=0.8)
    if classes.tolist() != [-1]:
        for colour, label in zip(palette, classes, strict=False):
            axes.scatter([], [], s=25, color=colour, label="none" if label < 0 else str(label))
        figure.legend(title="class", loc="outside right center", ncols=ceil(len(classes) / 25), frameon=False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return rendered(figure)


@dataclass(frozen=True)
class Panel:
    """How values that belong together are shown."""

    title: str
    unit: str = ""  # the y axis's label
    log: bool = False  # on a logarithmic axis, if the values span more than SPAN
    limits: tuple[float | None, float | None] = (None, None)


SPAN = 10
PANELS: dict[str, Panel] = {  # in this order; of values named otherwise each group has a panel of its own name
    "loss": Panel("losses", "nats"),
    "reconstruction": Panel("reconstruction error", "nats"),
    "kl": Panel("divergence of the posterior from the prior", "nats"),
    "penalty": Panel("penalty"),
    "active_dims": Panel("dimensions of the code in use", "dimensions", limits=(0, None)),
    "D": Panel("discriminator's output", "probability of being data", limits=(0, 1)),
    "error_rate": Panel("discriminator's errors", "share of images", limits=(0, None)),
    "grad_norm": Panel("gradients", "ℓ₂ norm", log=True),
    "lr": Panel("learning rate", "step size", log=True, limits=(0, None)),
    "momentum": Panel("momentum", "coefficient", limits=(0, 1)),
    "images_per_second": Panel("speed", "training images per second", limits=(0, None)),
    "score/parzen": Panel("Parzen-window log-likelihood", "nats"),
    "score/elbo": Panel("lower bound of the log-likelihood", "nats"),
    "score/iwae": Panel("importance-weighted bound", "nats"),
    "score/modes": Panel("modes captured", "modes", limits=(0, None)),
    "score/high_quality": Panel("samples of high quality", "share of samples", limits=(0, 1)),
}
Series = dict[str, list[tuple[float, float]]]  # a curve's name -> (step, value)
POSITION = ("step", "epoch", "time")  # of a line; everything else in it is a value
STYLES = ("-", "--", ":", "-.")  # so that curves that lie on one another are seen
FEW = 10  # points of a curve that are marked


def curves(lines: Sequence[Mapping[str, float]], title: str, splits: Mapping[str, str] | None = None) -> "Figure":
    """The values of a run's metrics.jsonl over epochs: a panel for each group of them, scores with a mark at each.

    `splits` says on which images a score is, by its name. Of values that are means since the last line, those over
    less than half of the usual number of steps are left out: they would be noise among means. An epoch is as many steps
    as the lines say that have completed one; before that the axis is in steps. Values that are not finite are left out.
    Raises UsageError if there are none.
    """
    from matplotlib.figure import Figure

    lines = [line for line in lines if _is_logged(line)]
    panels = _series(_of_equal_windows(lines))
    if not panels:
        raise UsageError("kind=curves: there is nothing logged: the run has just begun, or failed at once")
    lengths = [line["step"] / line["epoch"] for line in lines if line["epoch"] > 0]  # exact at an epoch's end
    length, unit = (min(lengths), "epoch") if lengths else (1, "step")

    columns = min(3, len(panels))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(4.4 * columns, 0.4 + 2.9 * rows), dpi=120, layout="constrained")
    figure.suptitle(title)
    end = 1.02 * max(line["step"] for line in lines) / length  # the same for all, with room for the last mark
    for index, (group, series) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, index, xlabel=unit, xlim=(0, end))
        _draw_panel(axes, group, series, length, (splits or {}).get(group.removeprefix("score/")))
    return figure


def _is_logged(line: Mapping[str, Any]) -> bool:
    """Whether training logs such a line; a file that was damaged may hold others."""
    return all(isinstance(value, int | float) for value in line.values()) and {"step", "epoch"} <= line.keys()


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the path's suffix, .svg or .png; the same bytes for the same figure."""
    from matplotlib import rc_context

    undated = {"Date": None} if path.suffix == ".svg" else {}
    with rc_context({"svg.hashsalt": "genexp"}), atomic(path) as stream:
        figure.savefig(stream, format=path.suffix.removeprefix("."), metadata=undated)


def _of_equal_windows(lines: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The lines, but of those soon after another one (as after an epoch's end) the scores alone."""
    widths = [line["step"] - before["step"] for before, line in zip([{"step": 0}, *lines], lines, strict=False)]
    usual = sorted(widths)[len(widths) // 2] if widths else 0
    return [
        line if 2 * width >= usual else {k: v for k, v in line.items() if k in POSITION or k.startswith("score/")}
        for width, line in zip(widths, lines, strict=True)
    ]


def _series(lines: Sequence[Mapping[str, float]]) -> dict[str, Series]:
    """The finite values of each panel, in the order of PANELS.

    Scores have a panel each, for they are in units of their own; `loss/generator` is in the panel "loss", `D(x)` in
    "D", and what has no such beginning stands alone.
    """
    panels: dict[str, Series] = {}
    for line in lines:
        for name, value in line.items():
            if name in POSITION or not isfinite(value):
                continue
            group, slash, player = name.partition("/")
            if group == "score":
                group, curve = name, name
            elif slash:
                curve = player
            else:
                group, curve = name.partition("(")[0], name
            panels.setdefault(group, {}).setdefault(curve, []).append((line["step"], value))
    order = [*(group for group in PANELS if group in panels), *(group for group in panels if group not in PANELS)]
    return {group: panels[group] for group in order}


def _draw_panel(axes: "Axes", group: str, series: Series, length: float, split: str | None) -> None:
    panel = PANELS.get(group, Panel(group.removeprefix("score/")))
    values = [value for points in series.values() for _, value in points]
    log = panel.log and min(values) > 0 and max(values) > SPAN * min(values)
    for index, (name, points) in enumerate(series.items()):
        x, y = [step / length for step, _ in points], [value for _, value in points]
        marker = "o" if group.startswith("score/") or len(points) <= FEW else ""
        style = STYLES[index % len(STYLES)]
        axes.plot(x, y, style, label=name, linewidth=1.2, marker=marker, markersize=3, clip_on=False)
    axes.set_ylabel(panel.unit)
    axes.set_title(panel.title + (f", {split} images" if split else ""), fontsize="medium")
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(*panel.limits)
    if list(series) != [group]:
        axes.legend(frameon=False, fontsize="small")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
