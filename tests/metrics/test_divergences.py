"""Divergences on a grid against closed forms and exact cells."""

import math

import pytest
import torch
from conftest import Fixed
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from genexp.data.mixtures import gaussian_1d, grid, mixture_1d, ring
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.metrics.divergences import js, kl, log_masses, shares

SETTINGS = {"n_samples": 200_000, "bins": 60, "split": "test"}


def line():
    return gaussian_1d(None, n=200_000, mean=1.0, std=2.0, seed=0)


def subject(data, samples):
    """Samples in the data's own coordinates."""
    low, high = torch.tensor(data.bounds.low), torch.tensor(data.bounds.high)
    return Subject(Fixed(((samples - low) / (high - low)).float()), data, 0)


def test_masses_are_those_of_the_normal_distribution():
    data = line()
    edges = torch.linspace(data.bounds.low[0], data.bounds.high[0], 41, dtype=torch.float64)
    expected = torch.from_numpy(norm(1, 2).cdf(edges.numpy())).diff()
    assert torch.allclose(log_masses(data.density, data.bounds, 40).exp(), expected, atol=1e-10)


def test_masses_in_the_plane_are_products():
    data = ring(None, n=10, radius=1.0, std=0.05)
    masses = log_masses(data.density, data.bounds, 50).exp().view(50, 50)
    edges = torch.linspace(-1.5, 1.5, 51, dtype=torch.float64)
    expected = torch.zeros(50, 50, dtype=torch.float64)
    for x, y in data.density.means.tolist():
        along = [torch.from_numpy(norm(m, 0.05).cdf(edges.numpy())).diff() for m in (x, y)]
        expected += torch.outer(*along) / 8
    assert torch.allclose(masses, expected, atol=1e-7)


def test_divergence_of_two_gaussians_is_the_closed_form():
    data, samples = line(), 0.5 + 1.5 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(0.5, 1.5), Normal(1.0, 2.0)).item()
    score = kl(subject(data, samples), **SETTINGS)
    assert score.mean == pytest.approx(expected, abs=0.004)
    assert score.lower_is_better is False  # it is declared by the decorator, and set by `Score.of`
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    p, q = (Normal(m, s).log_prob(x).exp() for m, s in ((0.5, 1.5), (1.0, 2.0)))
    middle = (p + q) / 2
    term = lambda a: torch.where(a > 1e-300, a * (a / middle).log(), 0)  # noqa: E731
    jensen = 0.5 * torch.trapezoid(term(p) + term(q), x).item()
    assert js(subject(data, samples), **SETTINGS).mean == pytest.approx(jensen, abs=0.002)


def test_the_truth_scores_what_its_own_points_do():
    data = mixture_1d(None, n=200_000, means=[-2.0, 2.0], stds=[0.5, 0.5], weights=[1.0, 1.0], seed=0)
    score = kl(Subject(Fixed(data.train), data, 0), **SETTINGS)
    assert 0 < score.mean < 60 / (2 * 200_000) * 3
    small = kl(Subject(Fixed(data.train), data, 0), **SETTINGS | {"n_samples": 10_000})
    assert score.floor == pytest.approx(small.mean, rel=0.8)  # as many points of the test split as there are, 10,000
    assert "10,000 test points" in score.summary


def test_a_missing_mode_costs_log_two():
    data = mixture_1d(None, n=200_000, means=[-3.0, 3.0], stds=[0.5, 0.5], weights=[1.0, 1.0], seed=0)
    one = data.train[data.labels["train"] == 0]
    settings = SETTINGS | {"n_samples": len(one)}
    assert kl(Subject(Fixed(one), data, 0), **settings).mean == pytest.approx(math.log(2), abs=0.002)
    expected = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert js(Subject(Fixed(one), data, 0), **settings).mean == pytest.approx(expected, abs=0.002)


def test_samples_apart_from_the_truth_have_the_largest_divergence():
    data = line()
    far = torch.full((1000, 1), data.bounds.high[0])
    score = js(subject(data, far), **SETTINGS | {"n_samples": 1000})
    assert score.mean == pytest.approx(math.log(2), abs=1e-6)
    assert math.isfinite(kl(subject(data, far), **SETTINGS | {"n_samples": 1000}).mean)


def test_shares_are_counted_in_rows():
    points = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.6, 0.1], [1.0, 1.0]])
    assert shares(points, 2).tolist() == [0, 0.5, 0.25, 0.25]


@pytest.mark.slow
def test_a_grid_that_is_too_coarse_is_refused():
    data = grid(None, n=100, spacing=2.0, std=1e-4)
    with pytest.raises(UsageError, match="bins=20 is too coarse for so sharp a density: its mass on the grid is "):
        kl(Subject(Fixed(data.train), data, 0), n_samples=100, bins=20, split="test")


@pytest.mark.parametrize("std", [0.5, 0.02, 0.002])
def test_sharp_modes_are_integrated_by_finer_cells(std):
    data = mixture_1d(None, n=200_000, means=[-2.0, 2.0], stds=[std, std * 1.1], weights=[1.0, 1.0], seed=0)
    masses = log_masses(data.density, data.bounds, 50).exp()
    edges = torch.linspace(data.bounds.low[0], data.bounds.high[0], 51, dtype=torch.float64).numpy()
    expected = sum(torch.from_numpy(norm(m, s).cdf(edges)).diff() for m, s in ((-2, std), (2, 1.1 * std))) / 2
    assert torch.allclose(masses, expected, atol=1e-7)
    assert 0 < kl(Subject(Fixed(data.train), data, 0), **SETTINGS | {"bins": 50}).mean < 50 / (2 * 200_000) * 3


@pytest.mark.slow
def test_a_cell_of_hardly_any_mass_is_not_cut_off():
    """Samples at the middle of the ring, 100 deviations from each mode."""
    data = ring(None, n=1000, radius=1.0, std=0.01)
    middle = torch.full((1000, 2), 0.5)
    score = kl(Subject(Fixed(middle), data, 0), n_samples=1000, bins=51, split="test")
    side = 3.0 / 51
    nearest = (1.0 - side / math.sqrt(2)) / 0.01  # deviations from a mode to the nearest corner of the middle cell
    assert 0.5 * nearest**2 < score.mean < 0.5 * nearest**2 + 30


@pytest.mark.slow
def test_a_run_searches_by_them_and_lower_is_better(genexp):
    small = ["model.generator_hidden=[16]", "model.discriminator_hidden=[8]", "model.latent_dim=4", "dataset.n=500"]
    words = ["train", "model=gan", "dataset=gaussian_1d", *small, "epochs=2", "batch_size=100"]
    words += ["metrics.kl.split=valid", "log.scores_every_epochs=1", "checkpoint.keep_best=kl"]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    best = torch.load(answer.run / "checkpoints/best.pt", weights_only=True)
    lines = [line for line in (answer.run / "metrics.jsonl").read_text().splitlines() if "valid/kl" in line]
    import json

    values = [json.loads(line)["valid/kl"] for line in lines]
    assert (best["valid_of"], best["valid_mean"]) == ("kl", min(values))
    assert json.loads((answer.run / "results.json").read_text())["scores"]["kl"]["lower_is_better"] is True
