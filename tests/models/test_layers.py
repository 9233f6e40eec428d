"""Layers against their definitions."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genexp.models.layers import Dropout, Maxout, ReflectionPad


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


@pytest.mark.parametrize("width", [1, 3])
def test_reflection_is_that_of_torch_also_as_it_is_made_on_a_gpu(width):
    x = torch.rand(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 3, 4 + 2 * width, 6 + 2 * width, dtype=torch.float64)
    expected = nn.ReflectionPad2d(width)(x)
    wanted = torch.autograd.grad((expected * weights).sum(), x)[0]
    pad = ReflectionPad(width)
    for continued in (pad(x), pad.in_pieces(x)):
        assert torch.equal(continued, expected)
        assert torch.allclose(torch.autograd.grad((continued * weights).sum(), x)[0], wanted)
