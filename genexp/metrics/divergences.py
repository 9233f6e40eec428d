"""Divergences of samples from a known density, in nats, by quadrature on a grid of cells."""

from collections.abc import Callable

import torch
from torch import Tensor

from genexp.data import Bounds, DataSet, Density
from genexp.errors import UsageError
from genexp.metrics import Subject, lower_is_better, requires
from genexp.ranges import PositiveInt, Split
from genexp.score import Score

NODES = 8  # of the Gauss-Legendre rule in each cell and dimension
DIMENSIONS = 2  # the most; a grid in more would have too many cells
TOLERANCE = 1e-3  # by which the mass of all cells may differ from 1
CHUNK = 2**20  # nodes at a time


def _refusal(_model: object, data: DataSet, _settings: object) -> str | None:
    if data.bounds is None or data.density is None:
        return "divergences need data whose density is known, such as dataset=mixture_1d or dataset=ring"
    if len(data.bounds.low) > DIMENSIONS:
        return f"divergences are taken on a grid in at most {DIMENSIONS} dimensions"
    return None


@lower_is_better
@requires(_refusal)
def kl(subject: Subject, *, n_samples: PositiveInt, bins: PositiveInt, split: Split) -> Score:
    """Return KL(samples ‖ truth) = Σ_c h_c log(h_c / P_c), in nats.

    The box of the data is cut into `bins` cells in each dimension; h_c is the share of samples in a cell, P_c the mass
    of the true density in it. With finitely many samples it is too high by about (cells with samples − 1) / 2n: `floor`
    is the value of as many points of `split`.
    """
    return _score(subject, n_samples, bins, split, lambda h, p: _relative_entropy(h, p))


@lower_is_better
@requires(_refusal)
def js(subject: Subject, *, n_samples: PositiveInt, bins: PositiveInt, split: Split) -> Score:
    """Return the Jensen–Shannon divergence ½ KL(h ‖ m) + ½ KL(P ‖ m), m = ½(h + P), in [0, log 2] nats.

    h and P are as for `kl`. A generator against the best discriminator has the value −log 4 + 2 JS (Goodfellow et al.
    2014, Theorem 1).
    """

    def jensen_shannon(h: Tensor, p: Tensor) -> Tensor:
        middle = 0.5 * (h + p)
        return 0.5 * _relative_entropy(h, middle) + 0.5 * _relative_entropy(p, middle)

    return _score(subject, n_samples, bins, split, jensen_shannon)


def _relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    """Return Σ p log(p / q), where a term with p = 0 is 0."""
    return torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log()), 0).sum()


def _score(subject: Subject, n: int, bins: int, split: str, divergence: Callable[[Tensor, Tensor], Tensor]) -> Score:
    data = subject.data
    assert data.bounds is not None
    assert data.density is not None
    density, bounds = data.density, data.bounds
    masses = subject.once(("masses", bins), lambda: cell_masses(density, bounds, bins))
    if abs(masses.sum().item() - 1) > TOLERANCE:
        raise UsageError(
            f"bins={bins} is too coarse for this density: its mass on the grid is {masses.sum().item():.3f}; "
            "set more bins"
        )
    value = divergence(shares(subject.samples(n), bins), masses).item()
    points = data.images(split, slice(0, n))
    floor = divergence(shares(points, bins), masses).item()
    summary = f"{value:.4f} nats ({n:,} samples, {bins} cells a dimension; {len(points):,} {split} points {floor:.4f})"
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


def cell_masses(density: Density, bounds: Bounds, bins: int) -> Tensor:
    """Return the mass of the density in each cell, (binsᵈ,) float64, by a Gauss-Legendre rule of NODES nodes a side."""
    nodes, weights = _gauss_legendre(NODES)
    dim = len(bounds.low)
    places = (torch.arange(bins)[:, None] + nodes).flatten() / bins  # in [0, 1], (bins·NODES,)
    points = torch.cartesian_prod(*[places] * dim).view(-1, dim)
    volume = torch.tensor([high - low for low, high in zip(bounds.low, bounds.high, strict=True)]).double().prod()
    densities = torch.cat([density.log_prob(bounds.coordinates(chunk)).exp() for chunk in torch.split(points, CHUNK)])
    masses: Tensor = densities.view([bins, NODES] * dim) * volume / bins**dim
    for axis in reversed(range(dim)):
        masses = torch.tensordot(masses, weights, dims=([2 * axis + 1], [0]))
    return masses.flatten()


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
