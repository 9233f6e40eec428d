"""Layers against their definitions."""

import math

import numpy as np
import pytest
import torch

from genexp import optimizers
from genexp.models.layers import Dropout, Maxout

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
