"""The layer of a restricted Boltzmann machine against enumeration, and its loss against the gradient by hand."""

import itertools

import pytest
import torch

from genexp.models.boltzmann import RBMLayer, energy_gap


def layer(visible="bernoulli", inputs=6, units=4, seed=0):
    torch.manual_seed(seed)
    made = RBMLayer(inputs, units, visible).double()
    for parameter in made.parameters():
        parameter.data.normal_()
    return made


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def energies(made, v, h):
    """E(v, h) of every pair, (visible states, hidden states), from its definition."""
    w, b, c = made.weight, made.hidden_bias, made.visible_bias
    of_v = -(v @ c) if made.visible == "bernoulli" else ((v - c) ** 2).sum(1) / 2
    return (of_v[:, None] - (h @ b) - v @ w.T @ h.T).detach()


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_free_energy_and_conditionals_follow_from_the_energy(visible):
    made, h = layer(visible), states(4)
    v = states(6) if visible == "bernoulli" else torch.randn(20, 6, dtype=torch.float64)
    weights = (-energies(made, v, h)).exp()
    assert torch.allclose(made.free_energy(v), -weights.sum(1).log(), atol=1e-10)
    assert torch.allclose(made.hidden_means(v), weights @ h / weights.sum(1, keepdim=True))
    where_flat = made.visible_bias + h @ made.weight  # the mean of a Gaussian: there its energy has no slope
    given_h = weights.T @ v / weights.sum(0)[:, None] if visible == "bernoulli" else where_flat
    assert torch.allclose(made.visible_means(h), given_h)


def test_draws_have_their_means():
    made, generator = layer().float(), torch.Generator().manual_seed(0)
    v = states(6)[37].float().expand(40_000, 6)
    h = made.draw_hidden(v, generator)
    assert torch.allclose(h.mean(0), made.hidden_means(v[:1])[0], atol=0.015)
    assert torch.allclose(made.draw_visible(h[:1].expand(40_000, 4), generator).mean(0), made.visible_means(h[:1])[0],
                          atol=0.015)  # fmt: skip
    gaussian = layer("gaussian").float()
    drawn = gaussian.draw_visible(h[:1].expand(40_000, 4), generator)
    assert torch.allclose(drawn.mean(0), gaussian.visible_means(h[:1])[0], atol=0.03)
    assert torch.allclose(drawn.T.cov(), torch.eye(6), atol=0.03)


def test_a_gibbs_chain_has_the_layer_s_distribution():
    made, generator = layer(inputs=3, units=2).float(), torch.Generator().manual_seed(0)
    v = torch.zeros(50_000, 3)
    for _ in range(30):
        v = made.gibbs(v, generator)
    expected = (-made.free_energy(states(3).float())).softmax(0)
    frequency = torch.bincount((v @ torch.tensor([4.0, 2, 1])).long(), minlength=8) / len(v)
    assert torch.allclose(frequency, expected, atol=0.01)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("steps", "end"), [(1, "draw"), (3, "mean")])
def test_the_gradient_is_the_statistic_of_data_minus_that_of_the_chain(visible, steps, end):
    made, data = layer(visible), torch.rand(8, 6, dtype=torch.float64)
    for hidden in (None, torch.randint(2, (5, 4)).double()):
        torch.manual_seed(3)
        loss, following = made.contrast(data, hidden, steps=steps, end=end)
        gradients = torch.autograd.grad(2 * loss, list(made.parameters()))
        torch.manual_seed(3)  # the same chain, step by step
        h = made.draw_hidden(data) if hidden is None else hidden
        for step in range(steps):
            if step:
                h = made.draw_hidden(v)  # noqa: F821
            v = (made.visible_means if (step, end) == (steps - 1, "mean") else made.draw_visible)(h).detach()
        free_energies = made.free_energy(data).mean() - made.free_energy(v).mean()
        assert loss.item() == pytest.approx(free_energies.item(), abs=1e-10)
        by_autograd = torch.autograd.grad(2 * free_energies, list(made.parameters()))
        p, q = (torch.sigmoid(x @ made.weight.T + made.hidden_bias) for x in (data, v))
        by_hand = (q.T @ v / len(v) - p.T @ data / 8, q.mean(0) - p.mean(0), v.mean(0) - data.mean(0))
        for gradient, expected, statistic in zip(gradients, by_autograd, by_hand, strict=True):
            assert torch.allclose(gradient, expected)
            assert torch.allclose(gradient, 2 * statistic.detach())
        assert following.shape == (8 if hidden is None else 5, 4)
        if hidden is not None:
            assert torch.equal(following, made.draw_hidden(v))


def test_a_new_layer_has_the_means_of_the_data():
    torch.manual_seed(0)
    mean = torch.tensor([0.0, 0.2, 0.9, 1.0])
    made = RBMLayer(4, 300, "bernoulli", mean)
    assert torch.allclose(made.visible_means(torch.zeros(1, 300))[0], mean.clamp(1e-3, 1 - 1e-3), atol=1e-6)
    assert made.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert torch.equal(RBMLayer(4, 3, "gaussian", mean).visible_bias, mean)


def test_the_centered_gradient_is_that_of_a_machine_whose_units_count_from_their_means():
    generator = torch.Generator().manual_seed(0)
    v, h, chain_v, chain_h = (
        torch.rand(n, k, generator=generator).double() for n, k in ((8, 6), (8, 4), (5, 6), (5, 4))
    )
    made = layer()
    made.weight.data[:2, 3:] = 0  # not connected
    parameters = list(made.parameters())
    gap = energy_gap(tuple(parameters), torch.zeros(()), (v, h), (chain_v, chain_h), centered=True)
    weight, hidden_bias, visible_bias = torch.autograd.grad(3 * gap, parameters)

    alpha, beta = (h.mean(0) + chain_h.mean(0)) / 2, (v.mean(0) + chain_v.mean(0)) / 2
    w = made.weight.detach().clone().requires_grad_()
    b = (made.hidden_bias + made.weight @ beta).detach().requires_grad_()  # of the centered machine
    c = (made.visible_bias + alpha @ made.weight).detach().requires_grad_()
    mask = (made.weight != 0).double()

    def energy(v, h):
        v, h = v - beta, h - alpha
        return (-(v @ c) - h @ b - ((v @ (w * mask).T) * h).sum(1)).mean()

    dw, db, dc = torch.autograd.grad(3 * (energy(v, h) - energy(chain_v, chain_h)), (w, b, c))
    assert torch.allclose(weight, dw)
    assert torch.allclose(hidden_bias, db - dw @ beta)
    assert torch.allclose(visible_bias, dc - alpha @ dw)
