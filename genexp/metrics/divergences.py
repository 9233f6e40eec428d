"""Divergences of samples from a known density, in nats, by quadrature on a grid of cells."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genexp.data import Bounds, DataSet, Density
from genexp.metrics import Subject, lower_is_better, requires
from genexp.ranges import Bins, PositiveInt, Split
from genexp.score import Score
from genexp.text import count

NODES = 8  # of the Gauss-Legendre rule in each part of a cell and dimension
DIMENSIONS = 2  # the most; a grid in more would have too many cells
MOST_NODES = 2**24  # in all
TOLERANCE = 1e-6  # by which the mass of all cells may differ from 1; the data lie within six standard deviations
CHUNK = 2**20  # nodes at a time


def _refusal(_model: object, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if data.bounds is None or data.density is None:
        return "divergences need data whose density is known, such as dataset=mixture_1d or dataset=ring"
    bins, dim = settings["bins"], len(data.bounds.low)
    if dim > DIMENSIONS:
        return f"divergences are taken on a grid in at most {DIMENSIONS} dimensions"
    if (bins * NODES) ** dim > MOST_NODES:
        return f"bins={bins} makes {bins**dim:,} cells, which are too many; set fewer bins"
    mass = log_masses(data.density, data.bounds, bins).exp().sum().item()
    if abs(mass - 1) > TOLERANCE:
        return f"bins={bins} is too coarse for so sharp a density: its mass on the grid is {mass:.4f}"
    return None


@lower_is_better
@requires(_refusal)
def kl(subject: Subject, *, n_samples: PositiveInt, bins: Bins, split: Split) -> Score:
    """Return KL(samples ‖ truth) = Σ_c h_c log(h_c / P_c), in nats.

    The box of the data is cut into `bins` cells in each dimension; h_c is the share of samples in a cell, P_c the mass
    of the true density in it. With finitely many samples it is too high by about (cells with samples − 1) / 2n: `floor`
    is the value of as many points of `split`.
    """
    return _score(subject, n_samples, bins, split, relative_entropy)


@lower_is_better
@requires(_refusal)
def js(subject: Subject, *, n_samples: PositiveInt, bins: Bins, split: Split) -> Score:
    """Return the Jensen–Shannon divergence ½ KL(h ‖ m) + ½ KL(P ‖ m), m = ½(h + P), in [0, log 2] nats.

    h and P are as for `kl`. A generator against the best discriminator has the value −log 4 + 2 JS (Goodfellow et al.
    2014, Theorem 1).
    """

    def jensen_shannon(log_h: Tensor, log_p: Tensor) -> Tensor:
        log_middle = torch.logaddexp(log_h, log_p) - math.log(2)
        return 0.5 * relative_entropy(log_h, log_middle) + 0.5 * relative_entropy(log_p, log_middle)

    return _score(subject, n_samples, bins, split, jensen_shannon)


def relative_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return Σ p log(p / q) of log probabilities, where a term with p = 0 is 0."""
    return torch.where(log_p.isfinite(), log_p.exp() * (log_p - log_q), 0).sum()


def _score(subject: Subject, n: int, bins: int, split: str, divergence: Callable[[Tensor, Tensor], Tensor]) -> Score:
    data = subject.data
    assert data.bounds is not None
    assert data.density is not None
    density, bounds = data.density, data.bounds
    truth = subject.once(("log masses", bins), lambda: log_masses(density, bounds, bins))
    value = divergence(shares(subject.samples(n), bins).log(), truth).item()
    points = data.images(split, slice(0, n))
    floor = divergence(shares(points, bins).log(), truth).item()
    of_points = f"{count(len(points), f'{split} point')} {floor:.4f}"
    summary = f"{value:.4f} nats ({count(n, 'sample')}, {bins} cells a dimension; {of_points})"
    return Score(
        value,
        None,
        summary,
        split=split,
        n_samples=n,
        sample_kind=subject.sample_kind,
        floor=floor,
        details={"bins": bins, "seed": subject.seed, "floor_n": len(points)},
    )


def log_masses(density: Density, bounds: Bounds, bins: int) -> Tensor:
    """Return the log of the density's mass in each cell, (binsᵈ,) float64.

    Each cell is integrated by a Gauss-Legendre rule of NODES nodes a side. As long as the mass of all cells is not 1,
    the cells are cut into twice as many parts a side, up to MOST_NODES nodes in all.
    """
    dim, parts = len(bounds.low), 1
    while True:
        masses = _integrated(density, bounds, bins, parts)
        if (2 * parts * bins * NODES) ** dim > MOST_NODES or abs(masses.exp().sum().item() - 1) < 0.1 * TOLERANCE:
            return masses
        parts *= 2


def _integrated(density: Density, bounds: Bounds, bins: int, parts: int) -> Tensor:
    nodes, weights = _gauss_legendre(NODES)
    dim, per_cell = len(bounds.low), parts * NODES
    places = ((torch.arange(bins * parts)[:, None] + nodes) / (bins * parts)).flatten()  # in [0, 1]
    points = torch.cartesian_prod(*[places] * dim).view(-1, dim)
    sides = [high - low for low, high in zip(bounds.low, bounds.high, strict=True)]
    log_densities = torch.cat([density.log_prob(bounds.coordinates(chunk)) for chunk in torch.split(points, CHUNK)])
    log_weights = (weights / (bins * parts)).log().repeat(parts)
    terms = log_densities.view([bins, per_cell] * dim) + math.log(math.prod(sides))
    for axis in range(dim):
        terms = terms + log_weights.view([-1 if place == 2 * axis + 1 else 1 for place in range(2 * dim)])
    return terms.logsumexp([2 * axis + 1 for axis in range(dim)]).flatten()


def _gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Return the nodes and weights of the rule on [0, 1], float64."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 + 0.5 * torch.from_numpy(nodes), 0.5 * torch.from_numpy(weights)


def shares(points: Tensor, bins: int) -> Tensor:
    """Return the share of points, (n, d) in [0, 1], in each cell, (binsᵈ,) float64."""
    cells = (points.cpu().double() * bins).long().clamp(0, bins - 1)
    index = torch.zeros(len(points), dtype=torch.int64)
    for dimension in range(points.shape[1]):
        index = index * bins + cells[:, dimension]
    return torch.bincount(index, minlength=bins ** points.shape[1]).double() / len(points)
