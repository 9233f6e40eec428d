"""Random streams, noise, optimizers and devices: each against its definition."""

import math

import numpy as np
import pytest
import torch
from conftest import config_of
from scipy.stats import kstest, norm
from torch import nn

from genexp import noise, optimizers, rng
from genexp.config.components import check_component
from genexp.data.digits import digits
from genexp.device import select
from genexp.errors import UsageError
from genexp.training import build
from genexp.training.build import target
from genexp.training.loop import train

CPU = torch.device("cpu")
SGD = {"lr_decay": 1.0, "lr_min": 0.0, "momentum_final": None, "momentum_ramp": [1, 250], "nesterov": False}
RATE = {"lr": 0.01, "lr_decay": 1.0, "lr_min": 0.0, "weight_decay": 0.1}
REFERENCES = {  # ours, and torch's with the same settings by its own names
    "sgd": (
        lambda p: optimizers.sgd(p, **RATE, momentum=0.5, nesterov=False, momentum_final=None, momentum_ramp=[1, 2]),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, weight_decay=0.1),
    ),
    "nesterov": (
        lambda p: optimizers.sgd(p, **RATE, momentum=0.5, nesterov=True, momentum_final=None, momentum_ramp=[1, 2]),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, nesterov=True, weight_decay=0.1),
    ),
    "adam": (
        lambda p: optimizers.adam(p, **RATE, beta1=0.5, beta2=0.99, eps=1e-3),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.99), eps=1e-3, weight_decay=0.1),
    ),
    "rmsprop": (
        lambda p: optimizers.rmsprop(p, **RATE, alpha=0.9, momentum=0.1, eps=1e-3),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.1, eps=1e-3, weight_decay=0.1),
    ),
    "adadelta": (
        lambda p: optimizers.adadelta(p, **RATE, rho=0.7, eps=1e-3),
        lambda p: torch.optim.Adadelta(p, lr=0.01, rho=0.7, eps=1e-3, weight_decay=0.1),
    ),
}


def test_streams_are_reproducible_and_apart():
    draw = lambda *address: torch.rand(4, generator=rng.generator(CPU, *address))  # noqa: E731
    assert torch.equal(draw(0, "order", 1), draw(0, "order", 1))
    others = [draw(0, "order", 2), draw(1, "order", 1), draw(0, "step", 1)]
    assert not any(torch.equal(draw(0, "order", 1), other) for other in others)


def test_reseed_addresses_the_default_generator():
    rng.reseed(CPU, 0, "step", 5)
    first = torch.rand(3)
    torch.rand(100)
    rng.reseed(CPU, 0, "step", 5)
    assert torch.equal(first, torch.rand(3))


@pytest.mark.parametrize("prior", ["uniform", "gaussian", "spherical"])
def test_priors_have_mean_0_and_variance_1(prior):
    z = noise.draw_prior(prior, 20_000, 10, CPU, torch.Generator().manual_seed(0))
    assert z.shape == (20_000, 10)
    assert z.mean(0).abs().max() < 4 / math.sqrt(20_000)
    assert (z.var(0) - 1).abs().max() < 0.05
    if prior == "uniform":
        assert z.abs().max() <= math.sqrt(3)
    if prior == "spherical":
        assert torch.allclose(z.norm(dim=1), torch.tensor(math.sqrt(10)))


def corrupted(corruption, value, generator=None):
    """200,000 pixels of one value, corrupted."""
    return corruption(torch.full((250, 1, 20, 40), value), generator or torch.Generator().manual_seed(0))


def test_no_noise_leaves_images_as_they_are():
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(noise.none()(images), images)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.2, 0.05), (-0.1, 1.0)])
def test_gaussian_noise_has_the_moments_it_states(mean, std):
    added = corrupted(noise.gaussian(mean=mean, std=std), 0.5) - 0.5
    assert added.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(200_000))
    assert added.std().item() == pytest.approx(std, rel=0.01)
    assert kstest(added.flatten().double().numpy(), norm(mean, std).cdf).statistic < 0.005


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.4, 1.0])
def test_masking_sets_the_stated_share_to_0_and_leaves_the_rest(probability):
    image = corrupted(noise.masking(probability=probability), 0.7)
    masked = image == 0
    assert masked.double().mean().item() == pytest.approx(probability, abs=0.005)
    assert (image[~masked] == torch.tensor(0.7)).all()


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.4, 1.0])
def test_salt_and_pepper_are_the_stated_share_half_each(probability):
    image = corrupted(noise.salt_and_pepper(probability=probability), 0.7)
    salt, pepper = image == 1, image == 0
    for share in (salt, pepper):
        assert share.double().mean().item() == pytest.approx(probability / 2, abs=0.005)
    assert (image[~salt & ~pepper] == torch.tensor(0.7)).all()


@pytest.mark.parametrize(
    "corruption",
    [noise.gaussian(mean=0.0, std=0.2), noise.masking(probability=0.3), noise.salt_and_pepper(probability=0.3)],
)
def test_pixels_are_corrupted_independently_and_from_the_generator_that_is_given(corruption):
    changed = (corrupted(corruption, 0.7) - 0.7).view(250, -1)
    neighbours = np.corrcoef(changed[:, :-1].flatten(), changed[:, 1:].flatten())[0, 1]
    images = np.corrcoef(changed[:-1].flatten(), changed[1:].flatten())[0, 1]
    assert abs(neighbours) < 0.01
    assert abs(images) < 0.01
    torch.manual_seed(1)
    first = corrupted(corruption, 0.7)
    torch.manual_seed(2)
    assert torch.equal(first, corrupted(corruption, 0.7))
    torch.manual_seed(1)
    default = corruption(torch.full((3, 1, 4, 4), 0.7))
    torch.manual_seed(1)
    assert torch.equal(default, corruption(torch.full((3, 1, 4, 4), 0.7)))
    assert not torch.equal(default, corruption(torch.full((3, 1, 4, 4), 0.7)))
    image = torch.rand(2, 1, 4, 4, requires_grad=True)
    corruption(image).sum().backward()  # instance noise lets a generator's gradient through
    assert image.grad.abs().sum() > 0


def test_learning_rate_and_momentum_follow_the_published_schedules():
    made = optimizers.sgd(
        [nn.Parameter(torch.zeros(1))], lr=0.1, lr_decay=1.000004, lr_min=1e-6, momentum=0.5, momentum_final=0.7,
        momentum_ramp=[1, 250], nesterov=False, weight_decay=0.0,
    )  # fmt: skip
    assert made.schedule(0, 0) == {"lr": 0.1, "momentum": 0.5}
    halfway = made.schedule(125_000, 125)
    assert halfway["lr"] == pytest.approx(0.1 / 1.000004**125_000)
    assert halfway["momentum"] == pytest.approx(0.5 + 0.2 * 124 / 249)
    assert made.schedule(10**8, 400) == {"lr": 1e-6, "momentum": pytest.approx(0.7)}


def ramped(parameters, first_epoch, **settings):
    """SGD whose momentum rises in the epochs of `momentum_ramp`; the first epoch has the number `first_epoch`."""
    words = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.5, "momentum_final": 0.7, "momentum_ramp": [1, 5]}
    return optimizers.sgd(parameters, **SGD | words | settings, momentum_first_epoch=first_epoch)


@pytest.mark.parametrize(
    ("first_epoch", "expected"),
    [(1, [0.5, 0.55, 0.6, 0.65, 0.7, 0.7]), (0, [0.5, 0.5, 0.55, 0.6, 0.65, 0.7])],
)
def test_the_first_epoch_of_a_momentum_ramp_has_the_stated_number(first_epoch, expected):
    made = ramped([nn.Parameter(torch.zeros(1))], first_epoch)
    assert [made.schedule(0, epoch)["momentum"] for epoch in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_a_momentum_that_rises_from_0_keeps_its_first_gradients_if_the_first_epoch_is_1(first_epoch):
    """v ← μv + g and w ← w − lr·v by hand, over three epochs of two steps; numbered from 0, v begins when μ > 0."""
    w = nn.Parameter(torch.tensor([1.0, -2.0]))
    made = ramped([w], first_epoch, momentum=0.0, momentum_final=0.6, momentum_ramp=[1, 3])
    gradients = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    x, v = w.detach().double().clone(), torch.zeros(2, dtype=torch.float64)
    for step, g in enumerate(gradients):
        made.step([g.clone()], step, step // 2)
        mu = ([0.0, 0.3, 0.6] if first_epoch == 1 else [0.0, 0.0, 0.3])[step // 2]
        begins = first_epoch == 0 and step == 4  # torch forgets v while μ is 0
        v = g.double() if begins else mu * v + g.double()
        x -= 0.1 * v
    assert torch.allclose(w.detach().double(), x, atol=1e-6)


@pytest.mark.slow
def test_the_number_of_the_first_epoch_makes_an_experiment_only_where_there_is_a_ramp():
    words = ["model=gan", "dataset=digits"]
    without, ramp = config_of(*words), config_of(*words, "optimizer.momentum_final=0.7")
    assert without.optimizer["momentum_first_epoch"] == ramp.optimizer["momentum_first_epoch"] == 1
    assert "momentum_first_epoch" not in without.identity()["optimizer"]
    assert without.identity() == config_of(*words, "optimizer.momentum_first_epoch=0").identity()
    assert ramp.identity()["optimizer"]["momentum_first_epoch"] == 1
    as_before = config_of(*words, "optimizer.momentum_final=0.7", "optimizer.momentum_first_epoch=0")
    assert "momentum_first_epoch" not in as_before.identity()["optimizer"]
    assert as_before.identity() != ramp.identity()
    kept = {key: value for key, value in ramp.optimizer.items() if key != "momentum_first_epoch"}
    assert check_component("optimizer", kept) == as_before.optimizer


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adadelta", "sgd"])
def test_a_learning_rate_falls_linearly_to_0(name):
    words = [f"optimizer={name}", "optimizer.lr=0.2", "optimizer.lr_epochs=4", "optimizer.lr_decay=1.01"]
    made = target(config_of(*words).optimizer)([nn.Parameter(torch.ones(3))])
    for step in (0, 1, 10, 25, 39, 40, 60):  # ten steps an epoch
        share = max(0, 1 - step / 40)
        assert made.settings(step, step / 10)["lr"] == pytest.approx(0.2 * share / 1.01**step)
    least = target(config_of(*words, "optimizer.lr_min=0.03").optimizer)([nn.Parameter(torch.ones(3))])
    assert least.settings(30, 3.0)["lr"] == pytest.approx(0.25 * 0.2 / 1.01**30)
    assert least.settings(39, 3.9)["lr"] == 0.03
    assert least.settings(60, 6.0)["lr"] == 0.03


def test_epochs_of_schedules_are_those_of_the_stage():
    data = digits(None)
    words = ["model=stacked_dae", "dataset=digits", "model.hidden=[8,4]", "model.masking=[0.1,0.1]", "batch_size=100"]
    config = config_of(
        *words, "model.pretrain_epochs=3", "epochs=3", "optimizer=sgd", "optimizer.lr=0.3", "optimizer.lr_epochs=3",
        "optimizer.momentum_final=0.7", "optimizer.momentum_ramp=[1,3]",
    )  # fmt: skip
    training = build.training(config, data, CPU)
    ticks = [tick for tick in train(config, training, data, 3) if tick.ends_epoch]
    for layer, epochs in ((1, ticks[:3]), (2, ticks[3:])):
        values = [(tick.values[f"lr/layer_{layer}"], tick.values[f"momentum/layer_{layer}"]) for tick in epochs]
        last_steps = [10 / 11, 21 / 11, 32 / 11]  # in epochs of 11 steps
        rates = [0.3 * (1 - epoch / 3) for epoch in last_steps]
        assert values == [pytest.approx(pair) for pair in zip(rates, (0.5, 0.6, 0.7), strict=True)]


@pytest.mark.slow
def test_more_epochs_than_a_falling_learning_rate_lasts_are_refused():
    data, words = digits(None), ["model=stacked_cae", "dataset=digits", "batch_size=100", "model.hidden=[8,4]"]
    settings = [*words, "model.pretrain_epochs=2", "optimizer.lr_epochs=2"]
    build.training(config_of(*settings, "epochs=2"), data, CPU)
    build.training(config_of(*settings, "epochs=3", "optimizer.lr_min=1e-5"), data, CPU)
    with pytest.raises(UsageError, match=r"optimizer.lr_epochs=2: .*3 epochs of stage 'layer 2'.*\n.*lr_epochs=3"):
        build.training(config_of(*settings, "epochs=3"), data, CPU)
    with pytest.raises(UsageError, match=r"3 epochs of stage 'layer 1'"):
        build.training(config_of(*words, "model.pretrain_epochs=3", "optimizer.lr_epochs=2", "epochs=2"), data, CPU)


def test_sgd_step_is_the_formula():
    w = nn.Parameter(torch.tensor([1.0, -2.0]))
    made = optimizers.sgd([w], lr=0.1, momentum=0.5, weight_decay=0.0, **SGD)
    g = torch.tensor([1.0, 4.0])
    made.step([g], 0, 0)
    made.step([g], 1, 0)
    assert torch.allclose(w.detach(), torch.tensor([1.0, -2.0]) - 0.1 * g - 0.1 * 1.5 * g)
    assert w.grad is None


@pytest.mark.parametrize("name", REFERENCES)
def test_optimizers_are_torchs_with_their_settings(name):
    make, reference = REFERENCES[name]
    ours, theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    made, plain = make([ours]), reference([theirs])
    for step in range(5):
        gradient = torch.randn(3)
        made.step([gradient.clone()], step, 0)
        theirs.grad = gradient
        plain.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adadelta", "sgd"])
def test_every_learning_rate_decays_as_asked(name):
    settings = config_of(f"optimizer={name}", "optimizer.lr=0.01", "optimizer.lr_decay=1.1", "optimizer.lr_min=0.001")
    make = target(settings.optimizer)
    made = make([nn.Parameter(torch.ones(3))])
    assert made.schedule(5, 0)["lr"] == pytest.approx(0.01 / 1.1**5)
    assert made.schedule(100, 0)["lr"] == 0.001


def test_the_published_adadelta_step():
    """Zeiler 2012, Algorithm 1, written out."""
    w = nn.Parameter(torch.tensor([1.0]))
    made = optimizers.adadelta([w], lr=1.0, lr_decay=1.0, lr_min=0.0, weight_decay=0.0, rho=0.9, eps=1e-2)
    x, squares, steps = 1.0, 0.0, 0.0
    for step, g in enumerate([0.5, -2.0, 1.0]):
        made.step([torch.tensor([g])], step, 0)
        squares = 0.9 * squares + 0.1 * g * g
        delta = -math.sqrt(steps + 1e-2) / math.sqrt(squares + 1e-2) * g
        steps = 0.9 * steps + 0.1 * delta * delta
        x += delta
    assert w.item() == pytest.approx(x, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adadelta", "sgd"])
def test_a_bound_on_column_norms_is_kept_after_every_step(name):
    """The bounded step is the free one, in float64, with each long row scaled to the bound."""
    bound = 0.8
    settings = config_of(f"optimizer={name}", "optimizer.lr=0.3").optimizer
    assert settings["max_col_norm"] is None
    shapes = [(6, 50), (1, 6), (6,), (3, 2, 5, 5)]  # two fully connected layers, a bias, a convolution
    torch.manual_seed(0)
    start = [0.1 * torch.randn(shape) for shape in shapes]
    start[0] *= torch.tensor([0.1, 2, 0, 0, 0.5, 4]).view(6, 1)  # short and long rows, and units without weights
    start[3] *= 3
    bounded, free = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    ours = target(settings | {"max_col_norm": bound})(bounded)
    theirs = target(settings)(free)
    touched = set()
    for step in range(4):
        gradients = [torch.randn(shape) for shape in shapes]
        gradients[0][3] = 0
        ours.step([g.clone() for g in gradients], step, 0)
        theirs.step([g.clone() for g in gradients], step, 0)
        for w, reference in zip(bounded, free, strict=True):
            expected = reference.detach().double()
            if w.ndim == 2:
                norms = expected.pow(2).sum(1, keepdim=True).sqrt()
                touched |= set((norms > bound).flatten().tolist())
                expected = torch.where(norms > bound, expected * (bound / norms), expected)
                assert w.detach().double().norm(dim=1).max() <= bound * (1 + 1e-6)
            assert torch.allclose(w.detach().double(), expected, rtol=1e-5, atol=1e-7)
            reference.data.copy_(w.data)
    assert touched == {True, False}
    assert (bounded[0][3] == 0).all()
    assert bounded[3].detach().flatten(1).norm(dim=1).min() > bound


def test_a_player_of_its_own_optimizer_has_its_own_bound():
    config = config_of(
        *("model=gan", "dataset=digits", "optimizer.max_col_norm=2", "optimizer@optimizers.generator=adam"),
        "optimizers.generator.max_col_norm=0.5",
    )
    assert (config.optimizer["max_col_norm"], config.optimizers["generator"]["max_col_norm"]) == (2.0, 0.5)


def test_without_a_bound_an_experiment_is_the_one_it_was_before_there_were_bounds():
    config = config_of("model=gan", "dataset=digits")
    kept = {key: value for key, value in config.optimizer.items() if key != "max_col_norm"}
    assert "max_col_norm" not in config.identity()["optimizer"]
    assert check_component("optimizer", kept)["max_col_norm"] is None
    assert config_of("model=gan", "dataset=digits", "optimizer.max_col_norm=2").identity() != config.identity()


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", "adadelta"])
def test_a_gradient_moves_the_same_weights_however_it_lies_in_memory(name):
    """torch's fused optimizers read a gradient in the order of its memory, whatever its strides are."""
    settings = config_of("model=gan", "dataset=digits", f"optimizer={name}").optimizer
    shapes = [(3, 5), (4, 2, 3, 3)]
    moved = []
    for layout in ("plain", "transposed"):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        optimizer = target(settings)(weights)
        for step in range(3):
            gradients = [torch.randn(shape, generator=generator) for shape in shapes]
            if layout == "transposed":
                gradients = [gradients[0].T.contiguous().T, gradients[1].to(memory_format=torch.channels_last)]
                assert not any(gradient.is_contiguous() for gradient in gradients)
            optimizer.step(gradients, step, 0)
        moved.append(weights)
    for one, other in zip(*moved, strict=True):
        assert torch.equal(one, other)


def test_a_missing_device_is_named():
    assert select("cpu", None).type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            select("cuda", None)
