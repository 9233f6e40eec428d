"""Pictures of points: samples over the true density or the data, and beside them what a discriminator says."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genexp.data import Bounds, DataSet
from genexp.data.mixtures import Mixture
from genexp.figures.canvas import Picture, rendered, style
from genexp.models import HasDiscriminator, Model, evaluating

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 2500  # samples in a scatter
CELLS = 200  # of the grid, in each dimension, on which densities and D(x) are drawn
BINS = 100  # of a histogram of points on the line


def of_points(samples: Tensor, data: DataSet, model: object = None) -> Picture:
    """Draw samples, (n, d) in [0, 1], in the points' own coordinates; of more than two dimensions the first two.

    They lie over the true density, or over points of the data if it is not known, and are coloured by the nearest mode
    of a mixture. D(x) of a model with a discriminator stands beside, if there are one or two dimensions.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    assert data.bounds is not None
    dim = len(data.bounds.low)
    judge = model if dim <= 2 and isinstance(model, HasDiscriminator) else None
    figure = Figure(figsize=(12 if judge else 6, 6), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2 if judge else 1, squeeze=False)[0]
    own, points = data.bounds.coordinates(samples), data.bounds.coordinates(data.train[:POINTS])
    if dim == 1:
        _draw_on_line(panels[0], own, points, data)
    else:
        _draw_in_plane(panels[0], own, points, data)
    if judge is not None:
        _draw_discriminator(panels[1], judge, data)
    return rendered(figure)


def _draw_on_line(axes: "Axes", samples: Tensor, points: Tensor, data: DataSet) -> None:
    assert data.bounds is not None
    edges = torch.linspace(data.bounds.low[0], data.bounds.high[0], BINS + 1, dtype=torch.float64)
    axes.hist(samples[:, 0].numpy(), edges.tolist(), density=True, color="tab:blue", alpha=0.6, label="samples")
    if data.density is not None:
        x = torch.linspace(data.bounds.low[0], data.bounds.high[0], 5 * CELLS, dtype=torch.float64)
        axes.plot(x.numpy(), data.density.log_prob(x[:, None]).exp().numpy(), color="black", label="true density")
    else:
        axes.hist(points[:, 0].numpy(), edges.tolist(), density=True, histtype="step", color="black", label="data")
    axes.set(xlabel="x", ylabel="density")
    axes.legend(frameon=False)
    style(axes)


def _draw_in_plane(axes: "Axes", samples: Tensor, points: Tensor, data: DataSet) -> None:
    assert data.bounds is not None
    _limit(axes, data.bounds)
    density = data.density if len(data.bounds.low) == 2 else None
    if density is not None:
        values = density.log_prob(data.bounds.coordinates(_cells(2))).exp().view(CELLS, CELLS)
        # The square root, so that broad modes are seen beside sharp ones.
        axes.imshow(values.sqrt().T.numpy(), cmap="Greys", origin="lower", extent=_extent(data.bounds), vmin=0)
    else:
        axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=4, c="0.75", label="data", linewidths=0)
    x, y = samples[:, 0].numpy(), samples[:, 1].numpy()
    if isinstance(data.density, Mixture):
        modes = torch.cdist(samples, data.density.means).argmin(1).numpy()
        axes.scatter(x, y, s=4, c=modes, cmap="turbo", vmax=len(data.density.means) - 1, vmin=0, linewidths=0)
    else:
        axes.scatter(x, y, s=4, color="tab:blue", linewidths=0)
    by_mode = ", coloured by the nearest mode," if isinstance(data.density, Mixture) else ""
    axes.set_title(f"samples{by_mode} over {'the true density' if density is not None else 'data'}", fontsize="medium")


def _draw_discriminator(axes: "Axes", model: HasDiscriminator, data: DataSet) -> None:
    assert isinstance(model, Model)
    assert data.bounds is not None
    dim = len(data.bounds.low)
    with evaluating(model):
        judged = model.logits(_cells(dim).to(model.device)).sigmoid().cpu()
    if dim == 1:
        axes.plot(data.bounds.coordinates(_cells(1))[:, 0].numpy(), judged.numpy(), color="tab:orange")
        axes.set(xlabel="x", ylabel="D(x)", ylim=(0, 1))
        style(axes)
        return
    _limit(axes, data.bounds)
    image = judged.view(CELLS, CELLS).T.numpy()
    drawn = axes.imshow(image, cmap="RdBu_r", origin="lower", extent=_extent(data.bounds), vmin=0, vmax=1)
    axes.set_title("D(x): red is taken for data, blue for samples", fontsize="medium")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.7)


def _cells(dim: int) -> Tensor:
    """Return the centres of CELLS cells in each dimension of [0, 1]ᵈ, (CELLSᵈ, d) float32; the last runs fastest."""
    centres = (torch.arange(CELLS) + 0.5) / CELLS
    return torch.cartesian_prod(*[centres] * dim).view(-1, dim)


def _extent(bounds: Bounds) -> tuple[float, float, float, float]:
    return bounds.low[0], bounds.high[0], bounds.low[1], bounds.high[1]


def _limit(axes: "Axes", bounds: Bounds) -> None:
    axes.set(aspect="equal", xlim=(bounds.low[0], bounds.high[0]), ylim=(bounds.low[1], bounds.high[1]))
