"""Generative stochastic networks: a step and the loss by hand, the chain, and the published script's starts."""

import pytest
import torch

from genexp import noise
from genexp.data import DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.models import draw
from genexp.models.gsn import GSN

SETTINGS = {
    "hidden": [7, 6, 5], "units": "tanh", "noise_before": [0, 2, 0], "noise_after": [0, 0, 1], "walkback_steps": 3,
    "chains": 4, "burn_in": 2, "thinning": 1, "chain_state": "draw", "sample_kind": "mean",
    "start": "training_images", "keep_start": False,
}  # fmt: skip
SPEC = DataSpec((1, 3, 4), torch.full((1, 3, 4), 0.5), 0.3, 1000)


def build(spec=SPEC, corruption=None, **settings):
    torch.manual_seed(0)
    model = GSN(spec, corruption or noise.salt_and_pepper(probability=0.4), **SETTINGS | settings)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def step_by_hand(model, x, h1, h2, h3):
    """The odd layers, then the even one, each from its neighbours; noise in the order in which it is drawn."""
    w1, w2, w3 = (layer.weight for layer in model.up)
    b1, b2, b3 = (layer.bias for layer in model.up)
    x = model.noise(x)
    h1 = torch.tanh(x @ w1.T + h2 @ w2 + b1)
    h3 = torch.tanh(h2 @ w3.T + b3)
    h3 = h3 + torch.randn_like(h3)
    a = h1 @ w2.T + h3 @ w3 + b2
    h2 = torch.tanh(a + 2 * torch.randn_like(a))
    return torch.sigmoid(h1 @ w1 + model.visible_bias), h1, h2, h3


def test_the_loss_is_that_of_each_step_of_a_chain_that_begins_at_the_image():
    model, images = build(), torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    loss = model.play(images).losses["gsn"]
    torch.manual_seed(5)
    x = state = images.flatten(1)
    hidden = [torch.zeros(6, units) for units in (7, 6, 5)]
    errors = []
    for _ in range(3):
        p, *hidden = step_by_hand(model, state, *hidden)
        errors.append(-(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean())
        state = torch.bernoulli(p.detach())
    expected = sum(errors) / 3
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    by_hand = torch.autograd.grad(expected, list(model.parameters()))
    for gradient, other in zip(gradients, by_hand, strict=True):
        assert torch.allclose(gradient, other, atol=1e-5)
    assert all(gradient.abs().sum() > 0 for gradient in gradients), "walkback trains every layer"


def test_samples_are_means_of_a_chain_whose_state_is_drawn():
    data = digits(None)
    model = build(data.spec())
    samples = draw(model, 8, torch.Generator().manual_seed(3), data)
    assert samples.shape == (8, 1, 8, 8)
    assert len(samples.unique()) > 2
    drawn = draw(build(data.spec(), sample_kind="draw"), 8, torch.Generator().manual_seed(3), data)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(samples[:4], samples[4:])


def test_the_published_script_begins_at_the_first_test_image_and_keeps_it_as_a_sample():
    data = digits(None)
    published = {"chains": 1, "burn_in": 0, "start": "first_test_image", "keep_start": True}
    samples = draw(build(data.spec(), **published), 5, torch.Generator().manual_seed(0), data)
    assert torch.equal(samples[0], data.images("test", slice(0, 1))[0])
    without = draw(build(data.spec(), **published | {"keep_start": False}), 5, torch.Generator().manual_seed(0), data)
    assert torch.equal(samples[1:], without[:4])


def test_without_noise_and_at_the_mean_a_reconstruction_is_the_first_step_of_one_layer():
    model = build(hidden=[7], noise_before=[0], noise_after=[0], corruption=noise.none())
    images = torch.rand(6, 1, 3, 4)
    logits, _ = model.step(model.first_state(images.flatten(1)))
    assert torch.allclose(model.reconstruct(images).flatten(1), logits.sigmoid())


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match=r"model.noise_before=\[0\] is of 1 layer, but model.hidden=\[7, 6, 5\] has"):
        build(noise_before=[0])
    with pytest.raises(UsageError, match="this data set has points"):
        build(DataSpec((2,), torch.full((2,), 0.5), 0.3, 10))
