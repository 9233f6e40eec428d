"""A tape's playing against the computation itself."""

import numpy as np
import pytest
import torch
from torch import nn

from genexp.models.layers import Dropout, Maxout
from genexp.training import tape
from genexp.training.tape import Tape

SHAPE = (8, 6)


def views_and_writing(x):
    y = x.t().unflatten(0, (2, 3)).clone()
    y[0].mul_(2).add_(x[:, :3].t())
    halves = torch.cat(y.sum(0, keepdim=True).flatten(1).chunk(2, 1), 0)
    return torch.where(halves > 0, halves, halves.exp() - 1).cumsum(1).to(torch.float64).flip(0)


def gradients(x):
    layers = nn.Sequential(Maxout(6, 4, 2), nn.ReLU(), nn.Linear(4, 3), nn.Softplus())
    for parameter in layers.parameters():  # the same at each call, as a model's are
        parameter.data.fill_(0.1).view(-1)[::2] = -0.3
    parameters = list(layers.parameters())
    loss = nn.functional.binary_cross_entropy_with_logits(layers(x), x[:, 3:].sigmoid())
    first = torch.autograd.grad(loss, parameters, create_graph=True)
    return torch.cat([each.flatten() for each in torch.autograd.grad(first[0].square().sum(), parameters[:1])])


def draws(x):
    dropped = Dropout(0.3)(x) + torch.randn_like(x) + torch.bernoulli(x.sigmoid())
    return dropped + torch.empty(x.shape).uniform_() * torch.rand(6)


def rows(x):
    return (x * 50).to(torch.uint8)[x[:, 0].argsort(), :2] / 255


@pytest.mark.parametrize("compute", [views_and_writing, gradients, draws, rows])
def test_playing_is_computing_again_on_new_values(compute):
    x = torch.rand(SHAPE)
    record = Tape()
    with record.recording():
        result = compute(x)
    assert record.why_not is None
    for seed in range(3):
        x.copy_(torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))
        torch.manual_seed(seed)
        expected = compute(x.clone())
        torch.manual_seed(seed)
        record.play()
        assert result.dtype == expected.dtype
        assert torch.equal(result.detach(), expected.detach())


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0, 0]),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: (x > 0).int().unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
    ],
)
def test_what_depends_on_values_cannot_be_repeated(compute):
    record = Tape()
    with record.recording():
        compute(torch.rand(SHAPE))
        torch.ones(3)
    assert record.why_not == "it reads a value back"
    assert not record.calls


def test_a_large_computation_is_not_held():
    for times, why_not in ((3, None), (4, "its results take more than 0 MiB")):
        record = Tape(4 * 48 * 3)
        with record.recording():
            x = torch.ones(SHAPE)
            for _ in range(times - 1):
                x = x * 2
            x.view(-1)  # no memory of its own
        assert record.why_not == why_not


def test_a_tape_keeps_no_graph():
    x = torch.rand(SHAPE, requires_grad=True)
    record = Tape()
    with record.recording():
        loss = x.square().exp().sum()
        torch.autograd.grad(loss, [x])
    assert record.calls
    for call in record.calls:
        assert [each for each in tape._tensors([call.args, call.keywords]) if each.grad_fn is not None] == []
