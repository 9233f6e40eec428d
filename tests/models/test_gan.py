"""The GAN's losses, gradients and initialisation against the paper's formulas, written out independently."""

import math

import pytest
import torch
from conftest import config_of
from torch import nn
from torch.nn.functional import binary_cross_entropy

from genexp import noise, rng
from genexp.data import DataSpec
from genexp.models.gan import GAN
from genexp.models.layers import Dropout, Maxout

SETTINGS = {
    "latent_dim": 6,
    "prior": "uniform",
    "generator_hidden": [12, 10],
    "generator_units": ["relu"],
    "generator_output": "sigmoid",
    "generator_init": 0.5,
    "generator_output_init": 0.5,
    "generator_bias": "zero",
    "discriminator_hidden": [8, 7],
    "discriminator_pieces": 3,
    "discriminator_init": 0.5,
    "dropout_input": 0.2,
    "dropout_hidden": 0.5,
    "updates": "simultaneous",
    "discriminator_steps": 1,
    "generator_loss": "non_saturating",
}
SPEC = DataSpec((1, 4, 4), torch.linspace(0, 1, 16).view(1, 4, 4), 0.3, 1000)


def build(corruption=None, **settings):
    torch.manual_seed(0)
    return GAN(SPEC, corruption or noise.none(), **SETTINGS | settings)


def images(n=5):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def gradients(loss, part):
    return torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_losses_are_the_papers_formulas(loss):
    model = build(generator_loss=loss, dropout_input=0.0, dropout_hidden=0.0)
    torch.manual_seed(2)
    outcome = model.updates()[0].play(images())
    torch.manual_seed(2)
    z = torch.empty(5, 6).uniform_(-math.sqrt(3), math.sqrt(3))
    on_data = model.discriminator(images()).sigmoid().double()
    on_samples = model.discriminator(model.generator(z)).sigmoid().double()
    one, zero = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    d_loss = 0.5 * (binary_cross_entropy(on_data, one) + binary_cross_entropy(on_samples, zero))
    g_loss = binary_cross_entropy(on_samples, one) if loss == "non_saturating" else (1 - on_samples).log().mean()
    assert outcome.losses["discriminator"].item() == pytest.approx(d_loss.item(), rel=1e-5)
    assert outcome.losses["generator"].item() == pytest.approx(g_loss.item(), rel=1e-5)
    assert outcome.watched["D(x)"].item() == pytest.approx(on_data.mean().item(), rel=1e-5)
    assert outcome.watched["D(G(z))"].item() == pytest.approx(on_samples.mean().item(), rel=1e-5)
    assert outcome.watched["error_rate/data"].item() == pytest.approx((on_data < 0.5).double().mean().item())
    assert outcome.watched["error_rate/samples"].item() == pytest.approx((on_samples > 0.5).double().mean().item())


def test_one_forward_pass_gives_the_gradients_of_two():
    """The shared pass against each player's loss on a pass of its own (no dropout, the same z)."""
    model = build(dropout_input=0.0, dropout_hidden=0.0).double()
    x = images().double()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(3)
        together = model.play_both(x)
        torch.manual_seed(3)
        d_alone = model.play_discriminator(x)
        torch.manual_seed(3)
        g_alone = model.play_generator(x)
    finally:
        torch.set_default_dtype(torch.float32)
    pairs = [("discriminator", model.discriminator, d_alone), ("generator", model.generator, g_alone)]
    for player, part, alone in pairs:
        for a, b in zip(gradients(together.losses[player], part), gradients(alone.losses[player], part), strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_discriminator_that_knows_nothing_sits_at_log_2():
    model = build()
    for parameter in model.discriminator.parameters():
        nn.init.zeros_(parameter)
    outcome = model.play_both(images())
    assert outcome.losses["discriminator"].item() == pytest.approx(math.log(2))
    assert outcome.losses["generator"].item() == pytest.approx(math.log(2))


def test_extreme_logits_stay_finite():
    model = build()
    for scale in (1e4, -1e4):
        model.discriminator[-2].bias.data.fill_(scale)
        outcome = model.play_both(images())
        grads = [*gradients(outcome.losses["generator"], model.generator)]
        assert all(value.isfinite().all() for value in [*outcome.losses.values(), *grads])


def test_initialisation_is_the_published_one():
    model = build(
        generator_init=0.05, generator_output_init=0.05, discriminator_init=0.005, generator_bias="pixel_mean"
    )
    g = [layer for layer in model.generator if isinstance(layer, nn.Linear)]
    d = [layer for layer in model.discriminator.modules() if isinstance(layer, nn.Linear)]
    assert all(0.045 < layer.weight.abs().max() <= 0.05 for layer in g)
    assert all(layer.weight.abs().max() <= 0.005 for layer in d)
    assert all(layer.weight.abs().max() > 0.0045 for layer in d[:-1])
    assert torch.allclose(g[-1].bias.sigmoid(), SPEC.pixel_mean.flatten(), atol=1e-6)
    assert g[-1].bias.isfinite().all()
    assert all((layer.bias == 0).all() for layer in [*g[:-1], *d])


def test_the_published_architecture():
    settings = config_of("experiment=goodfellow2014/gan_mnist").model
    settings = {key: value for key, value in settings.items() if key not in ("name", "_target_")}
    model = GAN(DataSpec((1, 28, 28), torch.rand(1, 28, 28), 0.3, 1000), noise.none(), **settings)
    kinds = [type(layer).__name__ for layer in model.generator]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear", "Sigmoid", "Unflatten"]
    assert [tuple(layer.weight.shape) for layer in model.generator if isinstance(layer, nn.Linear)] == [
        (1200, 100), (1200, 1200), (784, 1200),
    ]  # fmt: skip
    layers = list(model.discriminator)
    assert [(m.units, m.pieces) for m in layers if isinstance(m, Maxout)] == [(240, 5), (240, 5)]
    assert [m.p for m in layers if isinstance(m, Dropout)] == [0.2, 0.5, 0.5]
    assert sum(p.numel() for p in model.generator.parameters()) == 100 * 1200 + 1200 + 1200**2 + 1200 + 1200 * 784 + 784
    assert sum(p.numel() for p in model.discriminator.parameters()) == 784 * 1200 + 1200 + 240 * 1200 + 1200 + 241


def test_updates_are_as_asked():
    moves = lambda **settings: [(u.players, u.repeats) for u in build(**settings).updates()]  # noqa: E731
    both = ("discriminator", "generator")
    assert moves() == [(both, 1)]
    assert moves(discriminator_steps=3) == [(("discriminator",), 2), (both, 1)]
    assert moves(updates="alternating", discriminator_steps=3) == [(("discriminator",), 3), (("generator",), 1)]


def test_each_discriminator_step_has_a_minibatch_of_its_own():
    from genexp.training.plan import Plan

    given = lambda **settings: [minibatch for _, minibatch in Plan.of(build(**settings), 10, 100).last.moves]  # noqa: E731
    assert given() == [0]
    assert given(discriminator_steps=3) == [0, 1, 2]
    assert given(updates="alternating", discriminator_steps=3) == [0, 1, 2, 0]
    assert Plan.of(build(updates="alternating", discriminator_steps=3), 10, 100).last.images_per_step == 30


def test_instance_noise_reaches_data_and_samples():
    seen = []

    def spy(x, generator=None):
        seen.append(len(x))
        return x

    for name in ("play_both", "play_discriminator", "play_generator"):
        getattr(build(spy), name)(images())
    assert seen == [10, 10, 5]


@pytest.mark.parametrize("prior", ["uniform", "gaussian", "spherical"])
def test_samples_are_images_and_follow_their_generator(prior):
    model = build(prior=prior).eval()
    draw = lambda seed: model.sample(7, rng.generator(torch.device("cpu"), seed, "samples"), None)  # noqa: E731
    with torch.no_grad():
        samples = draw(0)
        assert samples.shape == (7, 1, 4, 4)
        assert 0 <= samples.min() <= samples.max() <= 1
        assert torch.equal(samples, draw(0))
        assert not torch.equal(samples, draw(1))
        assert torch.equal(samples, model.sample(7, rng.generator(torch.device("cpu"), 0, "samples"), None))
