"""Deep belief networks: what each layer is trained on, and the sampler against exact enumeration."""

from itertools import product

import pytest
import torch

from genexp import noise
from genexp.data import DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.metrics.partition import exact_log_z
from genexp.models import draw, evaluating
from genexp.models.dbn import DBN

SETTINGS = {
    "hidden": [4, 3], "pretrain_epochs": 2, "gibbs_steps": 1, "persistent_chains": 5, "chains": 4, "burn_in": 2,
    "thinning": 1, "chain_start": "images", "decoded": "mean", "sample_kind": "mean",
}  # fmt: skip
SPEC = DataSpec((1, 2, 3), torch.linspace(0.1, 0.9, 6).view(1, 2, 3), 0.3, 1000)


def build(spec=SPEC, std=1.0, **settings):
    torch.manual_seed(0)
    model = DBN(spec, noise.none(), **SETTINGS | settings)
    for parameter in model.parameters():
        parameter.data += std * torch.randn_like(parameter)
    return model


def test_each_layer_is_trained_on_means_of_the_layer_below():
    model, images = build(hidden=[4, 3, 2]), torch.rand(6, 1, 2, 3)
    stages = model.stages()
    assert [(stage.name, stage.epochs) for stage in stages] == [("layer 1", 2), ("layer 2", 2), ("layer 3", None)]
    assert stages[0].codes is None
    first, second, _ = model.stack
    below = torch.sigmoid(images.flatten(1) @ first.weight.T + first.hidden_bias)
    assert torch.allclose(stages[1].codes(images), below)
    assert torch.allclose(stages[2].codes(images), torch.sigmoid(below @ second.weight.T + second.hidden_bias))


def test_an_upper_layer_begins_at_the_means_of_its_input_and_the_top_with_chains_of_it():
    model = build()
    codes = torch.rand(50, 4).mul(0.8).add(0.1)
    model.stages()[1].begin(codes)
    assert torch.allclose(model.top.visible_bias.sigmoid(), codes.mean(0), atol=1e-6)
    assert set(model.persistent_states.unique().tolist()) <= {0.0, 1.0}
    assert 0 < model.persistent_states.mean() < 1


def test_only_the_chains_of_the_top_layer_persist():
    model, codes = build(std=0.1), torch.rand(20, 4)
    before = model.persistent_states.clone()
    model.play_layer(1, torch.rand(20, 6))
    assert torch.equal(model.persistent_states, before)
    torch.manual_seed(1)
    model.play_layer(2, codes)
    assert not torch.equal(model.persistent_states, before)
    assert model.persistent_states.shape == (5, 3)


@pytest.mark.slow
def test_the_chain_has_the_distribution_of_the_top_rbm():
    """The visible units of the top RBM, after many steps, are as frequent as exact enumeration says."""
    data, model = digits(None), build(digits(None).spec(), std=0.7)
    states = torch.tensor(list(product([0.0, 1.0], repeat=4)))
    log_p = -model.top.free_energy(states).double()
    exact = (log_p - log_p.logsumexp(0)).exp()
    n, generator = 40_000, torch.Generator().manual_seed(0)
    with evaluating(model):
        state, step = model.chain(data.images("train", torch.zeros(n, dtype=torch.int64)), generator, data)
        for _ in range(60):
            state, _ = step(state)
    index = (state @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    frequencies = torch.bincount(index, minlength=16).double() / n
    chi_square = (n * (frequencies - exact).square() / exact).sum().item()
    assert chi_square < 37.7, "the 0.999 quantile of chi square with 15 degrees of freedom"
    assert exact.max() < 0.9, "a distribution that is worth the test"


def test_samples_go_down_by_means():
    data = digits(None)
    for decoded, kind in (("mean", "mean"), ("draw", "mean"), ("draw", "draw")):
        model = build(data.spec(), decoded=decoded, sample_kind=kind)
        samples = draw(model, 6, torch.Generator().manual_seed(0), data)
        assert samples.shape == (6, 1, 8, 8)
        if kind == "draw":
            assert set(samples.unique().tolist()) <= {0.0, 1.0}
        elif decoded == "draw":
            states = torch.tensor(list(product([0.0, 1.0], repeat=4)))
            possible = model.stack[0].visible_means(states)
            assert torch.cdist(samples.flatten(1), possible.detach()).amin(1).max() < 1e-3
    images = data.images("valid", slice(0, 5))
    first, top = model.stack
    h = torch.sigmoid(
        torch.sigmoid(images.flatten(1) @ first.weight.T + first.hidden_bias) @ top.weight.T + top.hidden_bias
    )
    down = torch.sigmoid(h @ top.weight + top.visible_bias)
    expected = torch.sigmoid(down @ first.weight + first.visible_bias)
    assert torch.allclose(model.reconstruct(images).flatten(1), expected, atol=1e-5)


def test_the_bound_is_below_the_exact_log_likelihood():
    """p(x) by enumeration of all states; the bound as the exact mean over q of what one draw estimates."""
    model = build(hidden=[4, 3, 2], std=0.8).double()
    first, second, top = model.stack
    x = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=torch.float64)
    h1, h2 = (torch.tensor(list(product([0.0, 1.0], repeat=n)), dtype=torch.float64) for n in (4, 3))

    def log_bernoulli(values, logits):
        return (values[None] * logits[:, None] - torch.nn.functional.softplus(logits)[:, None]).sum(2)

    below = log_bernoulli(x, first.visible_field(h1))  # (h1, x)
    middle = log_bernoulli(h1, second.visible_field(h2))  # (h2, h1)
    prior = -top.free_energy(h2) - exact_log_z(top)
    log_p = (prior[:, None] + middle).logsumexp(0)[:, None] + below
    log_p = log_p.logsumexp(0)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-9)

    q1 = log_bernoulli(h1, first.hidden_logits(x))  # (x, h1)
    q2 = log_bernoulli(h2, second.hidden_logits(h1))  # (h1, h2)
    inner = (q2.exp() * (prior[None] + middle.T - q2)).sum(1)
    bound = (q1.exp() * (inner[None] + below.T - q1)).sum(1)
    assert (bound < log_p).all()
    n = 4000
    generator = torch.Generator().manual_seed(0)
    with evaluating(model):
        estimates = model.log_unnormalized(x.repeat(n, 1).view(-1, 1, 2, 3), generator).view(n, 64) - exact_log_z(top)
    z = (estimates.mean(0) - bound) / (estimates.std(0) / n**0.5)
    assert z.abs().max() < 4.5


def test_what_it_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="two layers or more"):
        build(hidden=[4])
    with pytest.raises(UsageError, match="leave out noise"):
        DBN(SPEC, noise.masking(probability=0.1), **SETTINGS)
    with pytest.raises(UsageError, match="points of the plane"):
        build(DataSpec((2,), torch.full((2,), 0.5), 0.3, 10))
