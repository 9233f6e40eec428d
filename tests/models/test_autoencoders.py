"""The autoencoders against PCA, automatic differentiation, and the stationary distributions that theory gives."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.stats import kstest, norm
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import nn

from genexp import noise
from genexp.data import DataSet, DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.figures import pictures
from genexp.models import ae, draw
from genexp.models.ae import AE
from genexp.models.cae import CAE
from genexp.models.dae import DAE
from genexp.models.samplers import code_density

LINEAR = {
    "hidden": [], "latent_dim": 1, "hidden_units": "linear", "code_units": "linear", "output_units": "linear",
    "tied": False, "reconstruction": "squared_error",
}  # fmt: skip
SIGMOID = LINEAR | {"code_units": "sigmoid", "output_units": "sigmoid", "reconstruction": "cross_entropy"}
CHAIN = {"chains": 1000, "burn_in": 200, "thinning": 5}
WALKBACK = {"walkback_steps": 1, "chain_state": "draw", "sample_kind": "draw"}
CONTRACTION = {"contraction": 0.1, "penalty": "exact", "walk_std": 1.0}
SPEC = DataSpec((1, 3, 4), torch.linspace(0.1, 0.9, 12).view(1, 3, 4), 0.3, 1000)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(points):
    """A data set of (n, d) points, as images of 1×1×d."""
    points = points.float().view(len(points), 1, 1, -1)
    return DataSet(points, points[:10], points[:10], labels={}, white=1)


def descend(model, images, steps, lr):
    """Adam on the model's own loss, all images at once, the rate falling to zero."""
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.001, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.play(images).losses["autoencoder"].backward()
        optimizer.step()
        schedule.step()
    return model


# The autoencoder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.slow
def test_linear_with_squared_error_is_pca(tmp_path, tied):
    data = digits(tmp_path)
    images = data.images("train")
    torch.manual_seed(0)
    model = AE(data.spec(), noise.none(), code_components=1, **LINEAR | {"latent_dim": 6, "tied": tied})
    descend(model, images, 1500, 0.02)
    pca = PCA(6).fit(images.flatten(1).numpy())
    made = pca.inverse_transform(pca.transform(images.flatten(1).numpy()))
    best = 0.5 * ((images.flatten(1).numpy() - made) ** 2).sum(1).mean()
    with torch.no_grad():
        reached = model.play(images).losses["autoencoder"].item()
    assert best <= reached + 1e-4 <= 1.01 * best
    weights = model.encoder[1][0].weight.T if tied else model.decoder[0].weight
    assert np.degrees(subspace_angles(weights.detach().numpy(), pca.components_.T)).max() < 5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("hidden", "latent_dim"), [([], 3), ([7], 20), ([9, 5], 2)])
def test_widths_are_mirrored_and_tied_weights_are_shared(hidden, latent_dim, tied):
    model = AE(
        SPEC, noise.none(), code_components=1, **SIGMOID | {"hidden": hidden, "latent_dim": latent_dim, "tied": tied}
    )
    assert model.encode(torch.rand(4, 1, 3, 4)).shape == (4, latent_dim)
    assert model.decode(torch.rand(4, latent_dim)).shape == (4, 1, 3, 4)
    widths = [12, *hidden, latent_dim]
    weights = sum(a * b for a, b in pairwise(widths))
    biases = sum(widths[1:]) + sum(widths[:-1])
    assert sum(p.numel() for p in model.parameters()) == (1 if tied else 2) * weights + biases
    assert len(model.state_dict()) == len(list(model.parameters()))
    if tied:
        first = model.encoder[1][0]
        h = torch.rand(2, widths[1])
        assert torch.allclose(model.decoder[-2](h), h @ first.weight + model.decoder[-2].bias, atol=1e-6)
    gradient = torch.autograd.grad(model.play(torch.rand(4, 1, 3, 4)).losses["autoencoder"], list(model.parameters()))
    assert all(g.isfinite().all() for g in gradient)


def test_reconstruction_errors_are_their_formulas():
    x = torch.rand(5, 1, 3, 4)
    for architecture in (SIGMOID, SIGMOID | {"reconstruction": "squared_error"}, LINEAR):
        model = AE(SPEC, noise.none(), code_components=1, **architecture)
        made = model.decode(model.encode(x)).double()
        expected = (
            nn.functional.binary_cross_entropy(made, x.double(), reduction="sum")
            if architecture["reconstruction"] == "cross_entropy"
            else 0.5 * (x - made).square().sum()
        )
        assert model.play(x).losses["autoencoder"].item() == pytest.approx(expected.item() / 5, rel=1e-5)


def test_an_untrained_decoder_gives_the_mean_image_where_codes_are_zero():
    for architecture in (SIGMOID, LINEAR):
        model = AE(SPEC, noise.none(), code_components=1, **architecture)
        assert torch.allclose(model.decode(torch.zeros(1, 1))[0], SPEC.pixel_mean, atol=1e-5)


def test_cross_entropy_of_linear_outputs_is_refused():
    with pytest.raises(UsageError, match="output_units=sigmoid"):
        AE(SPEC, noise.none(), code_components=1, **LINEAR | {"reconstruction": "cross_entropy"})


def test_code_density_is_the_mixture_that_was_fitted():
    means = torch.tensor([[0.0, 0.0], [10.0, -5.0]])
    codes = torch.cat([means[0] + torch.randn(3000, 2), means[1] + torch.randn(1000, 2) * torch.tensor([0.5, 2.0])])
    drawn = code_density(codes, 2, 20_000, generator())
    assert (drawn - means[1]).norm(dim=1).lt(6).float().mean() == pytest.approx(0.25, abs=0.02)
    near = drawn[(drawn - means[1]).norm(dim=1) < 7]
    assert torch.allclose(near.std(0), torch.tensor([0.5, 2.0]), rtol=0.1)
    assert (drawn[:100] - means[1]).norm(dim=1).lt(6).sum() > 5  # not one component after the other
    assert torch.equal(drawn, code_density(codes, 2, 20_000, generator()))
    single = code_density(codes, 1, 50_000, generator())
    fitted = GaussianMixture(1).fit(codes.numpy())
    assert np.allclose(np.cov(single.numpy().T), fitted.covariances_[0], rtol=0.05, atol=0.1)
    assert torch.allclose(single.mean(0), codes.mean(0), atol=0.1)


@pytest.mark.slow
def test_samples_of_a_linear_autoencoder_have_the_datas_moments():
    """With as many codes as values the decoded Gaussian is the Gaussian fitted to the data."""
    torch.manual_seed(0)
    points = 0.5 + 0.08 * torch.randn(4000, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.5]])
    data = toy(points)
    model = AE(data.spec(), noise.none(), code_components=1, **LINEAR | {"latent_dim": 2})
    descend(model, data.images("train"), 800, 0.02)
    samples = draw(model, 20_000, generator(), data).view(-1, 2)
    assert torch.allclose(samples.mean(0), points.mean(0), atol=0.005)
    assert torch.allclose(samples.T.cov(), points.T.cov(), atol=4e-4)


# The denoising autoencoder


def denoiser(data, corruption, **settings):
    torch.manual_seed(1)
    return DAE(data.spec(), corruption, **CHAIN | WALKBACK | settings)


@pytest.fixture(scope="module")
def gaussian_denoiser():
    """A linear DAE on N(0.5, s²) with noise σ: the optimum is P(X | X̃) = N(a X̃ + c, v)."""
    torch.manual_seed(0)
    data = toy(0.5 + 0.1 * torch.randn(20_000, 1))
    return data, descend(denoiser(data, noise.gaussian(mean=0.0, std=0.1), **LINEAR), data.images("train"), 400, 0.05)


S2 = NOISE2 = 0.01
A = S2 / (S2 + NOISE2)


def test_a_denoiser_finds_the_posterior_mean_and_variance(gaussian_denoiser):
    data, model = gaussian_denoiser
    slope = (model.encoder[1][0].weight * model.decoder[0].weight.T).sum().item()
    assert slope == pytest.approx(A, rel=0.03)
    assert model.residual_variance(data, generator()).item() == pytest.approx(S2 * NOISE2 / (S2 + NOISE2), rel=0.1)


def test_the_chain_of_draws_has_the_datas_distribution(gaussian_denoiser):
    """Bengio et al. 2013, theorem 1."""
    data, model = gaussian_denoiser
    samples = draw(model, 20_000, generator(), data).flatten()
    assert samples.mean().item() == pytest.approx(0.5, abs=0.005)
    assert samples.std().item() == pytest.approx(0.1, rel=0.04)
    assert kstest(samples.numpy(), norm(0.5, 0.1).cdf).statistic < 0.03


def test_the_chain_of_means_has_its_own_distribution(gaussian_denoiser):
    """x ← a(x + σε) + c is autoregressive, of variance a²σ²/(1 − a²)."""
    data, model = gaussian_denoiser
    model.chain_state = model.sample_kind = "mean"
    try:
        samples = draw(model, 20_000, generator(), data).flatten()
    finally:
        model.chain_state = model.sample_kind = "draw"
    assert samples.std().item() == pytest.approx(math.sqrt(A**2 * NOISE2 / (1 - A**2)), rel=0.05)


@pytest.mark.parametrize("walkback_steps", [1, 4])
@pytest.mark.parametrize("corruption", [noise.salt_and_pepper(probability=0.6), noise.masking(probability=0.5)])
@pytest.mark.slow
def test_the_chain_on_a_binary_pixel_has_the_datas_distribution(corruption, walkback_steps):
    torch.manual_seed(0)
    data = toy((torch.arange(20_000) % 10 < 3).float().view(-1, 1))
    model = denoiser(data, corruption, **SIGMOID | {"code_units": "linear"}, walkback_steps=walkback_steps)
    descend(model, data.images("train"), 300, 0.1)
    samples = draw(model, 20_000, generator(), data)
    assert set(samples.unique().tolist()) == {0.0, 1.0}
    assert samples.mean().item() == pytest.approx(0.3, abs=0.02)


def test_walkback_leads_every_step_of_the_chain_back_to_the_image():
    seen = []

    def spy(images, generator=None):
        seen.append(images)
        return images

    model = DAE(SPEC, spy, **CHAIN | WALKBACK | SIGMOID | {"walkback_steps": 3})
    x = torch.rand(6, 1, 3, 4)
    loss = model.play(x).losses["autoencoder"]
    assert torch.equal(seen[0], x)
    assert all(set(state.unique().tolist()) <= {0.0, 1.0} for state in seen[1:])
    errors = [model.reconstruction_error(model.encode(state), x) for state in seen]
    assert len(errors) == 3
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-6)


def test_walkback_goes_on_from_a_draw_of_the_gaussian_that_fits_the_residuals():
    seen = []

    def spy(images, generator=None):
        seen.append(images)
        return images

    torch.manual_seed(0)
    architecture = SIGMOID | {"reconstruction": "squared_error"}
    model = DAE(SPEC, spy, **CHAIN | WALKBACK | architecture | {"walkback_steps": 2})
    x = torch.rand(2000, 1, 3, 4)
    model.play(x)
    mean = model.decode(model.encode(x))
    assert (seen[1] - mean).std().item() == pytest.approx((mean - x).square().mean().sqrt().item(), rel=0.02)


@pytest.mark.parametrize("kind", ["ae", "cae"])
def test_noise_corrupts_what_the_encoder_sees_and_not_what_is_reconstructed(kind):
    white = lambda images, generator=None: torch.ones_like(images)  # noqa: E731
    if kind == "ae":
        model = AE(SPEC, white, code_components=1, **SIGMOID)
    else:
        model = CAE(SPEC, white, **CHAIN | CONTRACTION | SIGMOID | {"contraction": 0.0})
    x = torch.rand(4, 1, 3, 4)
    expected = model.reconstruction_error(model.encode(torch.ones_like(x)), x)
    assert model.play(x).losses["autoencoder"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_cross_entropy_of_points_is_refused():
    spec = DataSpec((2,), torch.full((2,), 0.5), 0.3, 1000)
    with pytest.raises(UsageError, match="reconstruction=squared_error"):
        AE(spec, noise.none(), code_components=1, **SIGMOID)


def test_more_components_than_codes_are_refused():
    with pytest.raises(UsageError, match="1,000 codes"):
        AE(SPEC, noise.none(), code_components=1001, **SIGMOID)


def test_a_denoiser_without_noise_is_refused():
    with pytest.raises(UsageError, match="noise=salt_and_pepper"):
        DAE(SPEC, noise.none(), **CHAIN | WALKBACK | SIGMOID)


def test_chains_begin_at_training_images_and_nowhere_else():
    """Training images are all black, the others all white; a chain that stays where it is shows where it began."""
    black, white = torch.zeros(50, 1, 3, 4), torch.ones(20, 1, 3, 4)
    data = DataSet(black, white, white, labels={}, white=1)
    for model in (
        denoiser(data, noise.masking(probability=0.1), **SIGMOID),
        CAE(data.spec(), noise.none(), **CHAIN | CONTRACTION | SIGMOID),
    ):
        model.encode, model.decode = lambda images: images.flatten(1), lambda codes: codes.view(-1, 1, 3, 4)
        model.walk_std, model.sample_kind, model.chain_state, model.burn_in = 1e-12, "mean", "mean", 0
        assert draw(model, 30, generator(), data).max() < 1e-6


@pytest.mark.parametrize(("n", "chains"), [(1, 7), (20, 7), (21, 7)])
def test_chains_are_thinned_after_burn_in_and_interleaved(n, chains):
    from genexp.models.samplers import markov_chain

    start = torch.arange(chains).float().view(chains, 1)
    samples = markov_chain(lambda state: (state + 100, state + 100), start, n, burn_in=3, thinning=2)
    expected = [100 * (3 + 2 * (1 + i // chains)) + i % chains for i in range(n)]
    assert samples.flatten().tolist() == expected


# The contractive autoencoder


def contractive(spec=SPEC, **settings):
    torch.manual_seed(0)
    return CAE(spec, noise.none(), **CHAIN | CONTRACTION | SIGMOID | settings)


def squared_norm_of_jacobian(model, images):
    """By one backward pass for each code unit, in float64."""
    total = torch.zeros(len(images), dtype=torch.float64)
    x = images.clone().requires_grad_()
    codes = model.encode(x)
    for unit in range(codes.shape[1]):
        (row,) = torch.autograd.grad(codes[:, unit].sum(), x, create_graph=True)
        total = total + row.flatten(1).square().sum(1)
    return total


CASES = [(units, hidden) for units in ("sigmoid", "tanh", "relu", "linear") for hidden in ([], [7], [8, 6])]


@pytest.mark.parametrize(("units", "hidden"), CASES)
def test_the_penalty_and_its_gradient_are_those_of_the_jacobian(units, hidden):
    model = contractive(code_units=units, hidden_units=units, hidden=hidden, latent_dim=5).double()
    x = torch.rand(4, 1, 3, 4, dtype=torch.float64)
    ours, expected = model.penalty(x), squared_norm_of_jacobian(model, x)
    assert torch.allclose(ours.double(), expected, rtol=1e-5)
    weights = [p for p in model.encoder.parameters() if p.ndim == 2]
    for a, b in zip(
        torch.autograd.grad(ours.sum(), weights), torch.autograd.grad(expected.sum(), weights), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_the_closed_form_is_used_for_one_layer_only():
    assert contractive().penalty.__name__ == "one_layer_penalty"
    assert contractive(hidden=[7]).penalty.__name__ == "jacobian_penalty"
    assert contractive(penalty="stochastic").penalty.__name__ == "stochastic_penalty"


@pytest.mark.parametrize("hidden", [[], [7]])
def test_the_stochastic_penalty_is_unbiased_and_so_is_its_gradient(hidden):
    model = contractive(hidden=hidden, latent_dim=5, penalty="stochastic")
    x = torch.rand(1, 1, 3, 4).expand(40_000, -1, -1, -1)
    exact = squared_norm_of_jacobian(model, x[:1])
    estimates = model.penalty(x)
    assert estimates.mean().item() == pytest.approx(exact.item(), rel=4 * estimates.std().item() / 200 / exact.item())
    weight = model.encoder[1][0].weight
    (ours,), (expected,) = torch.autograd.grad(estimates.mean(), weight), torch.autograd.grad(exact.sum(), weight)
    assert torch.allclose(ours, expected.float(), atol=0.05 * expected.abs().max().item())


def test_the_loss_is_reconstruction_plus_contraction():
    model = contractive(contraction=0.7, latent_dim=5)
    x = torch.rand(4, 1, 3, 4)
    outcome = model.play(x)
    penalty = squared_norm_of_jacobian(model, x).mean().item()
    reconstruction = model.reconstruction_error(model.encode(x), x).item()
    assert outcome.losses["autoencoder"].item() == pytest.approx(reconstruction + 0.7 * penalty, rel=1e-5)
    assert outcome.watched["penalty"].item() == pytest.approx(penalty, rel=1e-5)
    assert outcome.watched["reconstruction"].item() == pytest.approx(reconstruction, rel=1e-5)


def test_one_step_of_the_walk_is_the_formula():
    """x ← g(h + J Jᵀε), with J written out."""
    data = toy(torch.rand(50, 12))
    data = DataSet(*(getattr(data, split).view(-1, 1, 3, 4) for split in ("train", "valid", "test")), {}, white=1)
    model = contractive(latent_dim=5, chains=50, burn_in=0, thinning=1, walk_std=0.7)
    samples = draw(model, 50, generator(4), data)
    same = generator(4)
    start = data.images("train", torch.randint(50, (50,), generator=same))
    epsilon = 0.7 * torch.empty(50, 5).normal_(generator=same)
    with torch.no_grad():
        h = model.encode(start)
        jacobian = (h * (1 - h)).unsqueeze(2) * model.encoder[1][0].weight
        move = jacobian @ (jacobian.transpose(1, 2) @ epsilon.unsqueeze(2))
        assert torch.allclose(samples, model.decode(h + move.squeeze(2)), atol=1e-6)


@pytest.mark.slow
def test_the_walk_of_a_linear_contractive_autoencoder_has_the_distribution_of_theory():
    """Tied linear weights shrink the direction of variance λᵢ to sᵢ = 1 − λ/λᵢ; the walk's variance is σ²sᵢ³/(1 − sᵢ²).

    The first minimises ½λᵢ(1 − s)² + λs; the second is that of x ← s x + s^{3/2} σ ε in each direction.
    """
    torch.manual_seed(0)
    direction = torch.linalg.qr(torch.tensor([[2.0, 1.0], [-1.0, 2.0]])).Q
    variances = torch.tensor([0.02, 0.008])
    centred = torch.randn(5000, 2)
    centred -= centred.mean(0)
    whitened = torch.linalg.qr(centred).Q * math.sqrt(5000)
    points = 0.5 + (whitened * variances.sqrt()) @ direction.T
    data = toy(points)
    contraction, walk_std = 0.002, 0.1
    model = contractive(
        data.spec(), **LINEAR | {"latent_dim": 2, "tied": True}, contraction=contraction, walk_std=walk_std
    )
    descend(model, data.images("train"), 1500, 0.02)
    samples = draw(model, 20_000, generator(), data).view(-1, 2)
    s = 1 - contraction / variances
    expected = walk_std**2 * s**3 / (1 - s**2)
    found = ((samples - 0.5) @ direction).var(0)
    assert torch.allclose(found, expected, rtol=0.06)
    assert torch.allclose(samples.mean(0), torch.tensor([0.5, 0.5]), atol=0.02)


def test_pictures_on_the_way_fit_the_mixture_of_an_ae_to_few_codes(monkeypatch):
    """A fit to all codes takes longer than epochs; a score, and a picture that is asked for, still make it."""
    sizes = []
    density = ae.code_density
    monkeypatch.setattr(ae, "code_density", lambda codes, *rest: sizes.append(len(codes)) or density(codes, *rest))
    images = torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    data = DataSet(images, images, images)
    model = AE(data.spec(), noise.none(), code_components=2, **LINEAR)
    dict(pictures.of_model(model, data, torch.Generator().manual_seed(0)))
    pictures.of_samples(model, data, torch.Generator().manual_seed(0))
    assert sizes == [100, 1000]
