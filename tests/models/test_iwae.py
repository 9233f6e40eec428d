"""The objectives of a VAE with k codes, beside closed forms and torch.distributions in float64."""

import math

import pytest
import torch
from conftest import config_of
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal
from torch.func import functional_call

from genexp import noise
from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.metrics import Subject, bounds
from genexp.metrics.bounds import iwae
from genexp.models.vae import VAE, kl_from_prior
from genexp.training.build import target

PIXELS, CODES = 12, 3
SPEC = DataSpec((1, 3, 4), torch.linspace(0.1, 0.9, PIXELS).view(1, 3, 4), 0.3, 1000)
SETTINGS = {"hidden": [7], "latent_dim": CODES, "hidden_units": "tanh", "beta": 1.0, "sample_kind": "mean"}
STD = 0.05  # of p(x | z) in the linear model


def build(**settings):
    torch.manual_seed(0)
    model = VAE(SPEC, noise.none(), **SETTINGS | {"likelihood": "bernoulli"} | settings)
    for parameter in model.decoder.parameters():  # so that the code matters
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model


def binary(n=6):
    return torch.rand(n, 1, 3, 4, generator=torch.Generator().manual_seed(1)).round()


def log_weights(model, x, seed):
    """Return log p(x, z) − log q(z | x), (n, k), of what `play` draws at the seed, and log p(x | z); in float64."""
    mean, log_variance = model.posterior(x)
    torch.manual_seed(seed)
    epsilon = torch.randn(len(x) * model.k, CODES).view(len(x), model.k, CODES).double()
    q = Normal(mean[:, None].double(), torch.exp(0.5 * log_variance[:, None].double()))
    codes = q.loc + q.scale * epsilon
    decoder = {name: parameter.double() for name, parameter in model.decoder.named_parameters()}
    logits = functional_call(model.decoder, decoder, (codes.flatten(0, 1),))
    means = torch.sigmoid(logits).view(len(x), model.k, PIXELS)
    log_likelihood = Bernoulli(means).log_prob(x.flatten(1)[:, None].double()).sum(2)
    return log_likelihood + Normal(0.0, 1.0).log_prob(codes).sum(2) - q.log_prob(codes).sum(2), log_likelihood


def play(model, x, seed):
    torch.manual_seed(seed)
    return model.play(x)


@pytest.mark.parametrize("k", [1, 4])
def test_the_importance_weighted_loss_is_that_of_torch_distributions(k):
    model, x = build(objective="iwae", k=k), binary()
    outcome = play(model, x, 5)
    weights, log_likelihood = log_weights(model, x, 5)
    expected = -(weights.logsumexp(1) - math.log(k)).mean().item()
    assert outcome.losses["autoencoder"].item() == pytest.approx(expected, rel=1e-5)
    assert outcome.watched["reconstruction"].item() == pytest.approx(-log_likelihood.mean().item(), rel=1e-5)


def test_the_gradient_is_that_of_each_weight_by_its_share():
    """Burda et al. 2016, equation 13: Σ_k w̃_k ∇ log w_k, with the shares w̃ = w / Σ w held fixed."""
    model, x = build(objective="iwae", k=5), binary()
    parameters = list(model.parameters())
    ours = torch.autograd.grad(play(model, x, 5).losses["autoencoder"], parameters)
    weights, _ = log_weights(model, x, 5)
    theirs = torch.autograd.grad(-(weights.softmax(1).detach() * weights).sum(1).mean(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert max(gradient.abs().max() for gradient in ours) > 0.01


def test_the_elbo_of_k_codes_has_the_mean_likelihood_and_the_exact_divergence():
    model, x = build(objective="elbo", k=4, beta=2.5), binary()
    outcome = play(model, x, 5)
    _, log_likelihood = log_weights(model, x, 5)
    expected = -log_likelihood.mean() + 2.5 * kl_from_prior(*model.posterior(x)).mean()
    assert outcome.losses["autoencoder"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_labels_are_those_of_each_of_the_codes():
    spec = DataSpec(SPEC.shape, SPEC.pixel_mean, SPEC.pixel_std, 1000, ("a", "b"))
    torch.manual_seed(0)
    model = VAE(spec, noise.none(), **SETTINGS, likelihood="bernoulli", conditional=True, objective="iwae", k=2)
    x, labels = binary(4), torch.tensor([0, 1, 1, -1])
    weights = model.log_weights(x, 2, torch.Generator().manual_seed(3), labels)
    mean, log_variance = model.posterior(x, labels)
    epsilon = torch.randn(8, CODES, generator=torch.Generator().manual_seed(3)).view(4, 2, CODES)
    for row in range(4):
        for k in range(2):
            code = mean[row] + torch.exp(0.5 * log_variance[row]) * epsilon[row, k]
            one_hot = torch.tensor([float(labels[row] == 0), float(labels[row] == 1)])
            means = torch.sigmoid(model.decoder(torch.cat([code, one_hot])[None]))
            expected = Bernoulli(means).log_prob(x[row].flatten()).sum() + Normal(0.0, 1.0).log_prob(code).sum()
            expected -= Normal(mean[row], torch.exp(0.5 * log_variance[row])).log_prob(code).sum()
            assert weights[row, k].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_divergence_of_no_weight_is_refused():
    with pytest.raises(UsageError, match=r"model\.beta=2 weighs the divergence of the elbo"):
        build(objective="iwae", beta=2.0)


# A linear-Gaussian model: x = ½ + Az + N(0, STD²), so p(x) and p(z | x) are Gaussians in closed form.


class Linear(nn.Module):
    """Return the logits of ½ + Az, whose sigmoid is linear in z."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, codes):
        return torch.logit(0.5 + codes @ self.matrix.T)


def linear(gap, **settings):
    """Return a linear model whose q(z | x) is p(z | x) with a mean that is off by `gap` standard deviations."""
    model = build(likelihood="gaussian", **settings)
    columns = torch.linalg.qr(torch.randn(PIXELS, CODES, generator=torch.Generator().manual_seed(2)))[0]
    matrix = columns * torch.tensor([0.05, 0.03, 0.02])  # orthogonal columns: p(z | x) is independent by dimension
    model.decoder = Linear(matrix)
    model.log_variance.data.fill_(2 * math.log(STD))
    variance = 1 / (1 + matrix.square().sum(0) / STD**2)

    def posterior(x, labels=None):
        mean = variance * ((x.flatten(1) - 0.5) @ matrix) / STD**2
        return mean + gap * variance.sqrt(), variance.log().expand(len(x), CODES)

    model.posterior = posterior
    covariance = matrix.double() @ matrix.double().T + STD**2 * torch.eye(PIXELS).double()
    marginal = MultivariateNormal(torch.full((PIXELS,), 0.5).double(), covariance)
    torch.manual_seed(4)
    x = marginal.sample((200,))
    return model, x.float().view(-1, 1, 3, 4), marginal.log_prob(x).mean().item()


@pytest.mark.parametrize("k", [1, 3])
def test_with_the_exact_posterior_the_loss_is_the_log_likelihood(k):
    model, x, exact = linear(0.0, objective="iwae", k=k)
    assert -play(model, x, 0).losses["autoencoder"].item() == pytest.approx(exact, abs=1e-3)


@pytest.mark.slow
def test_the_bound_rises_to_the_log_likelihood_with_k():
    """For k = 1 the gap is KL(q ‖ p(z | x)) = ½ · CODES · gap²."""
    values = {}
    for k in (1, 5, 50, 2000):
        model, x, exact = linear(1.0, objective="iwae", k=k)
        with torch.no_grad():
            losses = [-play(model, x, seed).losses["autoencoder"].item() for seed in range(max(1, 500 // k))]
        values[k] = sum(losses) / len(losses)
    assert values[1] == pytest.approx(exact - 1.5, abs=0.03)
    assert values[1] < values[5] < values[50] < values[2000]
    assert values[2000] == pytest.approx(exact, abs=0.02)
    elbo, x, _ = linear(1.0, objective="elbo", k=500)
    assert -play(elbo, x, 0).losses["autoencoder"].item() == pytest.approx(exact - 1.5, abs=0.02)


def test_a_score_of_many_draws_decodes_a_bounded_number_at_a_time(monkeypatch):
    model, x, exact = linear(1.0)
    bits = x[:20]
    exact = MultivariateNormal(
        torch.full((PIXELS,), 0.5).double(),
        model.decoder.matrix.double() @ model.decoder.matrix.double().T + STD**2 * torch.eye(PIXELS).double(),
    ).log_prob(bits.flatten(1).double())
    sizes = []
    decoder = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda codes: sizes.append(len(codes)) or decoder(codes))
    monkeypatch.setattr(bounds, "ROWS", 300)
    score = iwae(Subject(model, DataSet(bits, bits, bits, white=1), 0), n_samples=1000, split="test")
    assert set(sizes) == {300, 100}
    assert score.mean == pytest.approx(exact.mean().item(), abs=0.05)
    assert score.n_samples == 1000


# The recipes of Burda et al. 2016


def test_the_learning_rate_has_the_published_stages():
    config = config_of("experiment=burda2016/iwae")
    schedule = target(config.optimizer)([nn.Parameter(torch.zeros(1))]).schedule
    epoch = 0
    for i in range(1, 9):
        rate = 1e-4 * round(10 ** (1 - (i - 1) / 7), 1)
        for at in (epoch, epoch + 3 ** (i - 1) - 1):
            assert schedule(2500 * at, at)["lr"] == pytest.approx(rate)
        epoch += 3 ** (i - 1)
    assert epoch == 3280
    assert schedule(2500 * 10_000, 10_000)["lr"] == pytest.approx(1e-4)


def test_the_recipes_differ_in_their_objective_alone():
    one, other = (config_of(f"experiment=burda2016/{name}").identity() for name in ("vae", "iwae"))
    assert one["model"] | {"objective": "iwae", "k": 50} == other["model"]
    assert one | {"model": None} == other | {"model": None}
    assert one["dataset"]["binarize"] == "fresh"
    plain = config_of("model=vae").identity()
    assert not {"objective", "k"} & plain["model"].keys()
    assert "lr_stages" not in plain["optimizer"]
