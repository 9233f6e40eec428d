"""Restricted Boltzmann machines: what training keeps, the sampler, the curves, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import read_metrics

from genexp.data import DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.models import draw, evaluating
from genexp.models.rbm import RBM
from genexp.noise import masking, none

SETTINGS = {
    "visible": "bernoulli", "hidden": 6, "gibbs_steps": 2, "persistent_chains": 7, "chain_end": "draw",
    "chains": 4, "burn_in": 3, "thinning": 1, "chain_start": "images", "sample_kind": "draw",
}  # fmt: skip
RUN = ["train", "model=rbm", "dataset=digits", "epochs=2", "model.burn_in=5", "metrics.parzen.n_samples=100"]


@pytest.fixture(scope="module")
def data():
    return digits(None)


def build(data, **settings):
    torch.manual_seed(0)
    model = RBM(data.spec(), none(), **SETTINGS | settings)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def test_persistent_chains_go_on_from_where_they_were(data):
    model, images = build(data), data.images("train", slice(20))
    states = model.persistent_states.clone()
    for seed in (1, 2):
        torch.manual_seed(seed)
        loss = model.play(images).losses["rbm"]
        torch.manual_seed(seed)
        expected, states = model.layer.contrast(images.flatten(1), states, steps=2)
        assert loss.item() == expected.item()
        assert torch.equal(model.persistent_states, states)
    assert "persistent_states" in model.state_dict()
    contrastive = build(data, persistent_chains=0)
    contrastive.play(images)
    assert set(contrastive.state_dict()) == {"layer.weight", "layer.hidden_bias", "layer.visible_bias"}


def test_images_are_visible_values_of_variance_one_for_gaussian_units(data):
    model = build(data, visible="gaussian")
    v = model.visible_values(data.images("train"))
    assert (v - v.mean()).square().mean().item() == pytest.approx(1, rel=1e-4)
    assert torch.allclose(model.images_of(v), data.images("train"), atol=1e-6)
    assert torch.allclose(RBM(data.spec(), none(), **SETTINGS | {"visible": "gaussian"}).layer.visible_bias, v.mean(0))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("start", ["images", "base_rates"])
def test_chains_begin_where_they_are_told(data, visible, start):
    model = build(data, visible=visible, chain_start=start, chains=3000)
    images = model.starts(3000, torch.Generator().manual_seed(0), data)
    assert torch.allclose(images.mean(0).flatten(), data.spec().pixel_mean.flatten(), atol=0.04)
    flat = images.flatten(1)
    if start == "images":
        distances = torch.cdist(flat[:20], data.images("train").flatten(1))
        assert distances.amin(1).max() < 1e-3
    else:  # pixels are independent
        assert flat.T.corrcoef()[27, 28].abs() < 0.1


def test_a_mean_is_the_expectation_of_a_draw(data):
    means, draws = (build(data, sample_kind=kind, chains=2000, burn_in=0) for kind in ("mean", "draw"))
    mean, drawn = (draw(model, 2000, torch.Generator().manual_seed(5), data) for model in (means, draws))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert not set(mean.unique().tolist()) <= {0.0, 1.0}
    assert torch.allclose(mean.mean(0), drawn.mean(0), atol=0.05)


def test_the_pseudo_likelihood_is_the_sum_of_conditionals(data):
    model, v = build(data), data.images("valid", slice(5)).flatten(1).round()
    by_hand = torch.zeros(5)
    for unit in range(64):
        flipped = v.clone()
        flipped[:, unit] = 1 - flipped[:, unit]
        both = torch.stack([-model.layer.free_energy(v), -model.layer.free_energy(flipped)])
        by_hand += both.log_softmax(0)[0].detach()
    with evaluating(model):
        estimates = model.pseudo_likelihood(v.repeat_interleave(20_000, 0), torch.Generator().manual_seed(0))
    estimates = estimates.view(5, -1)
    assert ((estimates.mean(1) - by_hand).abs() < 4 * estimates.std(1) / 20_000**0.5).all()


@pytest.mark.slow
def test_training_raises_the_likelihood_and_logs_free_energies(genexp):
    scores = []
    for epochs in (1, 20):
        answer = genexp(
            *RUN,
            f"epochs={epochs}",
            "model.hidden=16",
            "+metric@metrics.ais=ais",
            "batch_size=20",
            "optimizer.lr=0.2",
            "optimizer.lr_epochs=null",
            "log.samples_every_epochs=100",
        )
        assert answer.code == 0, answer.err
        scores.append(json.loads((answer.run / "results.json").read_text())["scores"]["ais"]["mean"])
    assert scores[1] > scores[0] + 3
    lines = [line for line in read_metrics(answer.run) if "free_energy/train" in line]
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert {"free_energy/valid", "reconstruction", "pseudo_likelihood"} <= set(lines[-1])
    assert lines[-1]["reconstruction"] < lines[0]["reconstruction"]
    assert lines[-1]["pseudo_likelihood"] < 0
    assert len(list((answer.run / "filters" / "hidden").glob("*.png"))) > 0


def test_the_free_energies_are_those_of_the_first_images_of_each_split(data):
    model = build(data)
    binary = replace(data, **{split: (getattr(data, split) >= 8).to(torch.uint8) * 16 for split in ("train", "valid")})
    with evaluating(model):
        watched = model.watch(binary, torch.Generator().manual_seed(0))
    for split in ("train", "valid"):
        expected = model.layer.free_energy(binary.images(split, slice(1000)).flatten(1)).mean().item()
        assert watched[f"free_energy/{split}"] == pytest.approx(expected, rel=1e-5)
    assert watched["free_energy/train"] != watched["free_energy/valid"]


@pytest.mark.slow
def test_gaussian_units_learn_points(genexp):
    answer = genexp("train", "model=rbm", "dataset=two_moons", "model.visible=gaussian", "model.hidden=8", "epochs=1",
                    "model.burn_in=5")  # fmt: skip
    assert answer.code == 0, answer.err


def test_what_it_cannot_take_is_refused(genexp, data):
    with pytest.raises(UsageError, match="model=rbm has no corrupted input: leave out noise"):
        RBM(data.spec(), masking(probability=0.1), **SETTINGS)
    points = DataSpec((2,), torch.full((2,), 0.5), 0.3, 10)
    with pytest.raises(UsageError, match=r"points of the plane are no shades of grey.*set model.visible=gaussian"):
        RBM(points, none(), **SETTINGS)
    outside = replace(data, train=data.train.float() - 20, white=1, valid=data.valid.float(), test=data.test.float())
    with pytest.raises(UsageError, match=r"go from -20 to -4, and Bernoulli visible units take values in \[0, 1\]"):
        RBM(outside.spec(), none(), **SETTINGS)
    RBM(outside.spec(), none(), **SETTINGS | {"visible": "gaussian"})
    refused = genexp(*RUN, "model.gibbs_steps=0")
    assert (refused.code, "model.gibbs_steps=0" in refused.err) == (2, True)
