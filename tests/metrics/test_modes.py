"""Test the scores of samples from a known mixture on samples at known places."""

import math

import pytest
import torch
from conftest import Fixed

from genexp.data.mixtures import grid, ring
from genexp.metrics import Subject
from genexp.metrics.modes import high_quality, modes, nearest_modes

RING = {"n": 3000, "radius": 1.0, "std": 0.01}
GRID = {"n": 3000, "spacing": 2.0, "std": 0.05}


def placed(data, spots):
    """Return a model of samples along the first axis; each spot is (mode, standard deviations from it, samples)."""
    mixture, extent = data.density, data.bounds.high[0]
    points = [
        (mixture.means[mode] + torch.tensor([deviations * mixture.stds[mode], 0.0])).expand(count, 2)
        for mode, deviations, count in spots
    ]
    return Fixed((0.5 + torch.cat(points) / (2 * extent)).float())


@pytest.mark.parametrize("make", [lambda: ring(None, **RING), lambda: grid(None, **GRID)], ids=["ring", "grid"])
def test_only_modes_with_a_sample_within_three_deviations_are_captured(make):
    data = make()
    model = placed(data, [(0, 0.0, 40), (1, 2.9, 10), (2, 3.1, 30), (3, -2.9, 20)])
    settings = {"n_samples": 100, "within": 3.0}
    assert modes(Subject(model, data, 0), **settings).mean == 3
    assert modes(Subject(model, data, 0), **settings).stderr is None
    score = high_quality(Subject(model, data, 0), **settings)
    assert score.mean == pytest.approx(0.7)
    assert score.stderr == pytest.approx(math.sqrt(0.7 * 0.3 / 100))
    assert high_quality(Subject(model, data, 0), n_samples=100, within=3.2).mean == 1
    assert modes(Subject(model, data, 0), n_samples=100, within=1.0).mean == 1
    total = len(data.density.means)
    captured = modes(Subject(model, data, 0), **settings)
    assert captured.summary == f"3 of {total} captured, the smallest with 0 % of 100 samples, 0 (within 3 σ)"
    assert (captured.details["smallest_share"], captured.details["smallest_samples"]) == (0, 0)


def test_a_mode_that_holds_almost_no_samples_is_told():
    data = ring(None, **RING)
    spots = [(mode, 0.0, 1 if mode == 5 else 57) for mode in range(8)]
    score = modes(Subject(placed(data, spots), data, 0), n_samples=400, within=3.0)
    assert score.mean == 8
    assert score.summary == "8 of 8 captured, the smallest with 0.25 % of 400 samples, 1 (within 3 σ)"
    assert (score.details["smallest_share"], score.details["smallest_samples"]) == (1 / 400, 1)


def test_the_mixture_itself_captures_all_with_the_share_of_theory():
    """A share of 1 − exp(−9/2) of a Gaussian in the plane lies within 3σ."""
    for data in (ring(None, **RING | {"n": 40_000}), grid(None, **GRID | {"n": 40_000})):
        model, settings = Fixed(data.train), {"n_samples": 40_000, "within": 3.0}
        assert modes(Subject(model, data, 0), **settings).mean == len(data.density.means)
        assert high_quality(Subject(model, data, 0), **settings).mean == pytest.approx(1 - math.exp(-4.5), abs=0.003)


def test_the_nearest_mode_is_the_label():
    data = grid(None, **GRID)
    nearest, near = nearest_modes(data.bounds.coordinates(data.train), data.density, 3.0)
    assert torch.equal(nearest, data.labels["train"])
    assert near.double().mean() > 0.97
