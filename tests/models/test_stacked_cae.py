"""Stacked contractive autoencoders: penalties and walk against Jacobians of automatic differentiation."""

import pytest
import torch
from torch.func import jacrev, vmap

from genexp import noise
from genexp.data import DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.models import draw, evaluating
from genexp.models.stacked_cae import StackedCAE

SETTINGS = {
    "hidden": [7, 5], "contraction": 0.3, "hessian": 0.0, "hessian_std": 0.2, "corruptions": 3, "pretrain_epochs": 2,
    "chains": 4, "burn_in": 1, "thinning": 1, "walk_std": 0.5,
}  # fmt: skip
SPEC = DataSpec((1, 3, 4), torch.linspace(0.1, 0.9, 12).view(1, 3, 4), 0.3, 1000)


def build(**settings):
    torch.manual_seed(0)
    model = StackedCAE(SPEC, noise.none(), **SETTINGS | settings).double()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def rows(n=6, size=12):
    return torch.rand(n, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def jacobians(layer, x):
    return vmap(jacrev(layer.encoder))(x)


def cross_entropy(layer, x):
    p = torch.sigmoid(layer.decoder(layer.encoder(x)))
    return -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean()


def test_the_penalty_is_the_frobenius_norm_of_the_jacobian():
    layer, x = build().stack[0], rows()
    penalty = jacobians(layer, x).square().sum((1, 2)).mean()
    assert layer.loss(x).item() == pytest.approx((cross_entropy(layer, x) + 0.3 * penalty).item(), rel=1e-6)


def test_the_hessian_term_is_the_change_of_the_jacobian_around_the_input():
    layer, x = build(hessian=2.0).stack[0], rows()
    torch.manual_seed(3)
    loss = layer.loss(x).item()
    torch.manual_seed(3)
    near = x.repeat(3, 1)
    near = near + 0.2 * torch.randn_like(near)
    change = (jacobians(layer, x).repeat(3, 1, 1) - jacobians(layer, near)).square().sum((1, 2)).mean()
    plain = build().stack[0].loss(x).item()
    assert loss == pytest.approx(plain + 2.0 * change.item(), rel=1e-6)
    assert change > 0.01


def test_the_walk_follows_the_jacobian_times_its_transpose():
    layer, u = build().stack[1], rows(size=7)
    epsilon = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    j = jacobians(layer, u)
    expected = (j @ j.transpose(1, 2) @ epsilon[:, :, None])[:, :, 0]
    assert torch.allclose(layer.tangent(layer.encoder(u), epsilon), expected, atol=1e-12)


def test_upper_layers_begin_at_the_mean_of_their_input():
    model, codes = build(), rows(50, 7)
    first, second = model.stages()
    assert first.begin is None
    assert (first.epochs, second.epochs) == (2, None)
    second.begin(codes)
    assert torch.allclose(torch.sigmoid(model.stack[1].decoder.bias), codes.mean(0))


def test_the_chain_walks_in_the_top_layer_and_decodes_by_means():
    data = digits(None)
    model = StackedCAE(data.spec(), noise.none(), **SETTINGS)
    samples = draw(model, 4, torch.Generator().manual_seed(0), data)
    generator = torch.Generator().manual_seed(0)
    with evaluating(model):
        images = data.images("train", torch.randint(len(data.train), (4,), generator=generator))
        first, top = model.stack
        u = first.encoder(images.flatten(1))
        for _ in range(2):
            h = top.encoder(u)
            epsilon = 0.5 * torch.randn(h.shape, generator=generator)
            j = vmap(jacrev(top.encoder))(u)
            h = h + (j @ j.transpose(1, 2) @ epsilon[:, :, None])[:, :, 0]
            u = torch.sigmoid(top.decoder(h))
        expected = torch.sigmoid(first.decoder(u)).view(-1, 1, 8, 8)
    assert torch.allclose(samples, expected, atol=1e-5)


def test_noise_and_points_are_refused():
    with pytest.raises(UsageError, match="leave out noise"):
        StackedCAE(SPEC, noise.masking(probability=0.1), **SETTINGS)
    with pytest.raises(UsageError, match="this data set has points"):
        StackedCAE(DataSpec((2,), torch.full((2,), 0.5), 0.3, 10), noise.none(), **SETTINGS)
