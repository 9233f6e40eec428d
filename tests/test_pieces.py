"""Random streams, noise, layers, optimizers and checkpoints: each against its definition."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genexp import checkpoint, noise, optimizers, random
from genexp.device import select
from genexp.errors import GenexpError, UsageError
from genexp.models.layers import Dropout, Maxout

CPU = torch.device("cpu")
SGD = {"lr_decay": 1.0, "lr_min": 0.0, "momentum_final": None, "momentum_ramp": [1, 250], "nesterov": False}


def test_streams_are_reproducible_and_apart():
    draw = lambda *address: torch.rand(4, generator=random.generator(CPU, *address))  # noqa: E731
    assert torch.equal(draw(0, "order", 1), draw(0, "order", 1))
    others = [draw(0, "order", 2), draw(1, "order", 1), draw(0, "step", 1)]
    assert not any(torch.equal(draw(0, "order", 1), other) for other in others)


def test_reseed_addresses_the_default_generator():
    random.reseed(CPU, 0, "step", 5)
    first = torch.rand(3)
    torch.rand(100)
    random.reseed(CPU, 0, "step", 5)
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


def test_gaussian_noise_has_the_moments_it_states():
    torch.manual_seed(0)
    added = noise.gaussian(mean=0.0, std=0.3)(torch.full((100, 1, 28, 28), 0.5)) - 0.5
    assert added.mean().abs() < 0.005
    assert added.std() == pytest.approx(0.3, rel=0.02)
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(noise.none()(images), images)


def test_maxout_is_the_maximum_of_its_pieces():
    layer = Maxout(6, 4, 3)
    x = torch.randn(5, 6)
    weight, bias = layer.linear.weight.view(3, 4, 6), layer.linear.bias.view(3, 4)
    expected = torch.stack(
        [torch.stack([(x @ weight[j, i] + bias[j, i]) for j in range(3)]).amax(0) for i in range(4)], 1
    )
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert torch.autograd.gradcheck(
        Maxout(3, 2, 4).double(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize("p", [1e-6, 0.2, 0.5, 0.9])
def test_dropout_keeps_the_stated_share_and_the_mean(p):
    torch.manual_seed(0)
    layer = Dropout(p)
    x = torch.ones(1000, 301, requires_grad=True)
    y = layer(x)
    kept = y != 0
    assert kept.float().mean() == pytest.approx(1 - p, abs=5 * math.sqrt(p * (1 - p) / x.numel()) + 2**-15)
    assert torch.allclose(y[kept], torch.tensor(1 / (1 - p)), rtol=1e-4)
    if p > 0.1:
        assert kept.float().mean(0).std() < 1.2 * math.sqrt(p * (1 - p) / 1000)  # columns are independent
        assert np.corrcoef(kept[:, :-1].flatten(), kept[:, 1:].flatten())[0, 1] == pytest.approx(0, abs=0.01)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(layer.eval()(x), x)


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


def test_sgd_step_is_the_formula():
    w = nn.Parameter(torch.tensor([1.0, -2.0]))
    made = optimizers.sgd([w], lr=0.1, momentum=0.5, weight_decay=0.0, **SGD)
    g = torch.tensor([1.0, 4.0])
    made.step([g], 0, 0)
    made.step([g], 1, 0)
    assert torch.allclose(w.detach(), torch.tensor([1.0, -2.0]) - 0.1 * g - 0.1 * 1.5 * g)
    assert w.grad is None


ADAM = {"beta1": 0.5, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
RMSPROP = {"lr": 0.01, "alpha": 0.9, "momentum": 0.1, "eps": 1e-8}


@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (lambda p: optimizers.adam(p, lr=0.01, lr_decay=1.0, lr_min=0.0, **ADAM),
         lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.99), eps=1e-8)),
        (lambda p: optimizers.rmsprop(p, lr_decay=1.0, lr_min=0.0, weight_decay=0.0, **RMSPROP),
         lambda p: torch.optim.RMSprop(p, **RMSPROP)),
    ],
)  # fmt: skip
def test_adam_and_rmsprop_are_torchs_and_their_rate_decays(make, reference):
    ours, theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    made, plain = make([ours]), reference([theirs])
    for step in range(5):
        gradient = torch.randn(3)
        made.step([gradient.clone()], step, 0)
        theirs.grad = gradient
        plain.step()
    assert torch.allclose(ours, theirs, atol=1e-6)
    decaying = optimizers.adam([ours], lr=0.01, lr_decay=1.1, lr_min=0.001, **ADAM)
    assert decaying.schedule(5, 0)["lr"] == pytest.approx(0.01 / 1.1**5)


def test_checkpoints_keep_two_and_pass_over_a_damaged_one(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step, "weights": torch.ones(1000)})
    newest, older = checkpoint.checkpoints(tmp_path)
    assert [newest.name, older.name] == ["step-000000003.pt", "step-000000002.pt"]
    newest.write_bytes(newest.read_bytes()[:-600])
    warnings = []
    state = checkpoint.load_latest(tmp_path, warnings.append)
    assert state["step"] == 2
    assert newest.name in warnings[0]
    checkpoint.save(tmp_path, 2, state)  # gone back behind the damaged one, which goes
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-000000002.pt"]


def test_checkpoints_never_execute_what_they_hold(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save({"step": Bomb()}, tmp_path / "step-000000001.pt", pickle_module=pickle)
    warnings = []
    with pytest.raises(GenexpError, match="fresh=true"):
        checkpoint.load_latest(tmp_path, warnings.append)
    assert len(warnings) == 1
    assert checkpoint.load_latest(tmp_path / "none", warnings.append) is None


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "status.json"
    file.write_text("old")

    def write_half():
        with checkpoint.atomic(file) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("status.json", "old")]


def test_a_missing_device_is_named():
    assert select("cpu", None).type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            select("cuda", None)
