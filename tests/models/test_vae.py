"""Compare the variational autoencoder and its bounds with torch.distributions and numerical integration."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from images import unscaled
from PIL import Image
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from genexp import noise
from genexp.api import load
from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.metrics import Subject, bounds
from genexp.metrics.bounds import elbo, iwae
from genexp.models import data_labels, draw
from genexp.models.vae import VAE, kl_from_prior

SETTINGS = {"hidden": [7], "latent_dim": 3, "hidden_units": "tanh", "beta": 1.0, "sample_kind": "mean"}
SPEC = DataSpec((1, 3, 4), torch.linspace(0.1, 0.9, 12).view(1, 3, 4), 0.3, 1000)
LIKELIHOODS = ["bernoulli", "gaussian"]


def build(likelihood="bernoulli", corruption=None, **settings):
    torch.manual_seed(0)
    model = VAE(SPEC, corruption or noise.none(), **SETTINGS | {"likelihood": likelihood} | settings)
    for parameter in model.decoder.parameters():  # so that the code matters
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model


def images(n=5):
    return torch.rand(n, 1, 3, 4, generator=torch.Generator().manual_seed(1)).round()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_kl_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 6, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * log_variance)), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(kl_from_prior(mean, log_variance), expected, rtol=1e-10)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_are_added_in_the_order_of_kept_runs(likelihood):
    """Another order rounds otherwise, and a run that goes on would not be the uninterrupted one."""
    model, x = build(likelihood), images(50)
    torch.manual_seed(2)
    gradients = torch.autograd.grad(model.play(x).losses["autoencoder"], list(model.parameters()))
    torch.manual_seed(2)
    mean, log_variance = model.posterior(x)
    codes = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    loss = -model.log_likelihood(x, codes).mean()
    loss = loss + model.beta * kl_from_prior(mean, log_variance).mean()
    for gradient, kept in zip(gradients, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        assert torch.equal(gradient, kept)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_log_likelihood_is_that_of_torch_distributions(likelihood):
    model, codes = build(likelihood), torch.randn(5, 3)
    mean = model.decode(codes)
    if likelihood == "bernoulli":
        expected = Bernoulli(mean.double()).log_prob(images().double())
    else:
        model.log_variance.data.fill_(-1.3)
        expected = Normal(mean.double(), math.exp(-0.65)).log_prob(images().double())
    assert torch.allclose(model.log_likelihood(images(), codes).double(), expected.sum((1, 2, 3)), rtol=1e-4)


def test_the_gaussian_deviation_begins_at_a_tenth_of_the_pixels():
    assert build("gaussian").log_variance.exp().item() == pytest.approx(0.03**2)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_loss_is_reconstruction_plus_beta_times_kl(likelihood):
    model = build(likelihood, beta=2.5)
    torch.manual_seed(5)
    outcome = model.play(images())
    torch.manual_seed(5)
    mean, log_variance = model.posterior(images())
    posterior = Normal(mean, torch.exp(0.5 * log_variance))
    codes = mean + posterior.scale * torch.randn_like(mean)
    reconstruction = -model.log_likelihood(images(), codes).mean().item()
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean().item()
    assert outcome.losses["autoencoder"].item() == pytest.approx(reconstruction + 2.5 * kl, rel=1e-5)
    assert outcome.watched["reconstruction"].item() == pytest.approx(reconstruction, rel=1e-5)
    assert outcome.watched["kl"].item() == pytest.approx(kl, rel=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(outcome.losses["autoencoder"], list(model.parameters())))


def test_a_dimension_that_ignores_the_image_is_not_active():
    model = build(latent_dim=4)
    weight = model.posterior_mean[0].weight.data
    weight[0] = 0
    weight[1:] = 3 * torch.randn_like(weight[1:])
    assert model.play(images(50)).watched["active_dims"].item() == 3


def test_noise_corrupts_what_the_encoder_sees_only():
    white = build(corruption=lambda images, generator=None: torch.ones_like(images))
    torch.manual_seed(5)
    loss = white.play(images()).losses["autoencoder"].item()
    torch.manual_seed(5)
    mean, log_variance = white.posterior(torch.ones(5, 1, 3, 4))
    codes = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    expected = -white.log_likelihood(images(), codes).mean() + kl_from_prior(mean, log_variance).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("likelihood", "kind"), [(a, b) for a in LIKELIHOODS for b in ("mean", "draw")])
def test_samples_are_the_mean_or_draws_of_the_likelihood(likelihood, kind):
    model = build(likelihood, sample_kind=kind)
    if likelihood == "gaussian":
        model.log_variance.data.fill_(2 * math.log(0.05))
    with torch.no_grad():
        samples = model.sample(4000, generator(), None)
        means = build(likelihood).sample(4000, generator(), None)
    assert samples.shape == (4000, 1, 3, 4)
    assert 0 <= samples.min() <= samples.max() <= 1
    if kind == "mean":
        assert torch.equal(samples, means)
    elif likelihood == "bernoulli":
        assert set(samples.unique().tolist()) == {0.0, 1.0}
        assert samples.mean().item() == pytest.approx(means.mean().item(), abs=0.01)
    else:
        inside = (means > 0.3) & (means < 0.7)
        assert (samples - means)[inside].std().item() == pytest.approx(0.05, rel=0.05)


def test_grey_values_give_the_expected_term_over_binary_images():
    """It is linear in x, so a bound on grey images bounds the expected log-likelihood of binary draws from them."""
    model, grey = build(), torch.rand(1, 1, 3, 4)
    codes = torch.randn(1, 3)
    binary = torch.bernoulli(grey.expand(40_000, -1, -1, -1), generator=generator())
    values = model.log_likelihood(binary, codes.expand(40_000, -1))
    exact = model.log_likelihood(grey, codes).item()
    assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / 200)


# The bounds


def log_likelihoods(model, x):
    """Return log p(x) of each image, by the trapezoidal rule over one latent dimension, in float64."""
    z = torch.linspace(-8, 8, 4001)
    prior = Normal(0.0, 1.0).log_prob(z.double())
    return torch.stack(
        [
            torch.logsumexp(model.log_likelihood(image.expand(len(z), -1, -1, -1), z[:, None]).double() + prior, 0)
            + math.log(16 / 4000)
            for image in x
        ]
    )


@pytest.fixture(scope="module", params=LIKELIHOODS)
def one_dimensional(request):
    """Return a VAE with one latent dimension whose posterior is fitted a little, its data and exact log-likelihoods."""
    model = build(request.param, latent_dim=1)
    if request.param == "gaussian":
        model.log_variance.data.fill_(2 * math.log(0.3))
    x = images(40)
    optimizer = torch.optim.Adam([*model.trunk.parameters(), *model.posterior_mean.parameters()], 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        model.play(x).losses["autoencoder"].backward()
        optimizer.step()
    bits = (x * 255).to(torch.uint8)
    with torch.no_grad():
        return model, DataSet(bits, bits, bits, labels={}), log_likelihoods(model, x)


def test_the_importance_weighted_bound_rises_to_the_log_likelihood(one_dimensional):
    model, data, exact = one_dimensional
    scores = [iwae(Subject(model, data, 0), n_samples=k, split="test") for k in (1, 10, 5000)]
    means = [score.mean for score in scores]
    assert means[0] < means[1] < means[2]
    assert means[2] == pytest.approx(exact.mean().item(), abs=0.01)
    assert scores[2].stderr == pytest.approx(exact.std(correction=0).item() / math.sqrt(40), rel=0.02)


def test_the_evidence_lower_bound_is_the_log_likelihood_less_the_posteriors_divergence(one_dimensional):
    """The bound is log p(x) − KL(q(z | x) ‖ p(z | x)); the divergence is computed by the trapezoidal rule."""
    model, data, exact = one_dimensional
    z = torch.linspace(-8, 8, 4001)
    with torch.no_grad():
        mean, log_variance = model.posterior(data.images("test"))
        gaps = []
        for image, row, total in zip(data.images("test"), zip(mean, log_variance, strict=True), exact, strict=True):
            q = Normal(row[0].double(), torch.exp(0.5 * row[1]).double()).log_prob(z.double())
            likelihood = model.log_likelihood(image.expand(len(z), -1, -1, -1), z[:, None]).double()
            posterior = likelihood + Normal(0.0, 1.0).log_prob(z.double()) - total
            gaps.append((q.exp() * (q - posterior)).sum() * 16 / 4000)
    expected = (exact - torch.stack(gaps)).mean().item()
    mean_bound = np.mean([elbo(Subject(model, data, seed), split="test").mean for seed in range(200)])
    assert mean_bound == pytest.approx(expected, abs=0.03)


def test_every_chunk_of_images_has_draws_of_its_own(one_dimensional, monkeypatch):
    """The data are one image twice, scored one at a time."""
    model, data, _ = one_dimensional
    same = DataSet(*(data.test[:1].expand(2, -1, -1, -1) for _ in range(3)), labels={})
    monkeypatch.setattr(bounds, "ROWS", 1)
    assert elbo(Subject(model, same, 0), split="test").stderr > 0
    assert iwae(Subject(model, same, 0), n_samples=1, split="test").stderr > 0


def test_a_bound_follows_from_its_seed_and_says_what_it_is(one_dimensional):
    model, data, _ = one_dimensional
    score = iwae(Subject(model, data, 3), n_samples=50, split="test")
    assert score == iwae(Subject(model, data, 3), n_samples=50, split="test")
    assert score.mean != iwae(Subject(model, data, 4), n_samples=50, split="test").mean
    assert (score.n_samples, score.details["n_points"], score.split) == (50, 40, "test")
    assert "nats on 40 test images (K = 50)" in score.summary
    assert model.training


def test_widths(tmp_path):
    model = build(hidden=[9, 8], latent_dim=20)
    assert [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)] == [9, 8, 20, 20, 8, 9, 12]


# The conditional autoencoder

CLASSES = ("cat", "dog", "cow")


def conditional(**settings):
    torch.manual_seed(0)
    spec = replace(SPEC, classes=CLASSES)
    model = VAE(spec, noise.none(), **SETTINGS | {"likelihood": "bernoulli", "conditional": True} | settings)
    for parameter in model.decoder.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model


def test_the_label_is_one_more_input_of_encoder_and_decoder():
    """Against an unconditional model of the images with a one-hot label beside them."""
    model, labels = conditional(), torch.tensor([0, 1, 2, -1, 1])
    one_hot = torch.zeros(5, 3)
    for row, label in enumerate(labels.tolist()):
        if label >= 0:
            one_hot[row, label] = 1
    h = model.trunk[1](torch.cat([images().flatten(1), one_hot], 1))
    mean, log_variance = model.posterior(images(), labels)
    assert torch.allclose(mean, model.posterior_mean(h))
    assert torch.allclose(log_variance, model.posterior_log_variance(h))
    codes = torch.randn(5, 3)
    expected = torch.sigmoid(model.decoder(torch.cat([codes, one_hot], 1))).view(5, 1, 3, 4)
    assert torch.allclose(model.decode(codes, labels), expected)
    assert torch.allclose(
        model.log_likelihood(images(), codes, labels), Bernoulli(expected).log_prob(images()).sum((1, 2, 3)), rtol=1e-4
    )
    assert model.filters()["encoder"].shape == (7, 12)


def test_bounds_of_a_conditional_model_are_of_log_p_x_given_y():
    model, x = conditional(latent_dim=1), images(40)
    bits = (x * 255).to(torch.uint8)
    labels = torch.arange(40) % 3
    data = DataSet(bits, bits, bits, dict.fromkeys(("train", "valid", "test"), labels), classes=CLASSES)
    z = torch.linspace(-8, 8, 4001)
    prior = Normal(0.0, 1.0).log_prob(z.double())
    with torch.no_grad():
        of_images = [
            model.log_likelihood(image.expand(4001, -1, -1, -1), z[:, None], label.expand(4001)).double()
            for image, label in zip(x, labels, strict=True)
        ]
    exact = [torch.logsumexp(terms + prior, 0).item() + math.log(16 / 4000) for terms in of_images]
    score = iwae(Subject(model, data, 0), n_samples=5000, split="test")
    assert score.mean == pytest.approx(np.mean(exact), abs=0.02)
    assert "log p(x | y), K = 5,000" in score.summary
    bound = elbo(Subject(model, data, 0), split="test")
    assert bound.mean < score.mean
    assert "log p(x | y)" in bound.summary
    wrong = DataSet(bits, bits, bits, dict.fromkeys(("train", "valid", "test"), (labels + 1) % 3))
    assert iwae(Subject(model, wrong, 0), n_samples=5000, split="test").mean != pytest.approx(score.mean, abs=0.02)


def test_samples_have_the_asked_class_or_those_of_the_data():
    model = conditional()
    bits = torch.zeros(40, 1, 3, 4, dtype=torch.uint8)
    labels = torch.tensor([0] * 10 + [1] * 30)
    data = DataSet(bits, bits, bits, {"train": labels}, classes=CLASSES)
    asked = torch.full((50,), 2)
    with torch.no_grad():
        codes = model.draw_codes(50, generator())
        assert torch.allclose(draw(model, 50, generator(), data, asked), model.decode(codes, asked))
    drawn = data_labels(4000, generator(), data)
    assert drawn.double().mean().item() == pytest.approx(0.75, abs=0.03)
    with torch.no_grad():
        state = generator()
        expected = data_labels(50, state, data)
        assert torch.equal(draw(model, 50, generator(), data), model.decode(model.draw_codes(50, state), expected))


@pytest.mark.slow
def test_a_conditional_run_draws_a_row_for_each_class_and_samples_by_label(genexp):
    words = ["train", "model=vae", "model.conditional=true", "dataset=digits", "epochs=2", "model.hidden=[32]"]
    words += ["model.latent_dim=2", "metrics.parzen.n_samples=100", "metrics.iwae.n_samples=2"]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert answer.out.count("log p(x | y)") == 2
    picture = unscaled(answer.run / "samples/epoch-0002.png")
    assert picture.size == (8 * 33 + 1, 10 * 33 + 1)  # ten classes
    for words in (["label=3"], ["label=3", "n=30", "out=three.npz"]):
        sampled = genexp("sample", f"run={answer.run}", *words)
        assert sampled.code == 0, sampled.err
    assert "label3" in genexp("sample", f"run={answer.run}", "label=3", "n=5").out
    for kind in ("samples", "neighbours", "interpolation", "manifold", "reconstructions"):
        given = [] if kind == "reconstructions" else ["label=7"]
        assert genexp("figure", f"run={answer.run}", f"kind={kind}", "rows=2", "columns=3", *given).code == 0
    for words, said in (
        (["sample", "label=12"], "label=12 is no class of digits"),
        (["sample", "label=-1"], "label=-1 is no class of digits"),
        (["sample", "label=three"], "label=three is no class of digits"),
        (["figure", "kind=manifold"], "kind=manifold: set label= to the class"),
        (["figure", "kind=reconstructions", "label=3"], "shows images of all classes; leave it out"),
    ):
        refused = genexp(*words, f"run={answer.run}")
        assert (refused.code, said in refused.err) == (2, True), refused.err
    run = load(answer.run)
    images = run.data.images("test", slice(0, 2))
    assert run.decode(torch.zeros(2, 2), labels=torch.tensor([9, -1])).shape == (2, 1, 8, 8)
    for labels in (torch.tensor([3, 10]), torch.tensor([-2, 3])):
        for method in (run.encode, run.log_prob):
            with pytest.raises(UsageError, match="the numbers of classes, from 0 to 9, or -1 for none"):
                method(images, labels=labels)


@pytest.mark.slow
def test_labels_where_there_are_none_are_refused(genexp, tmp_path):
    small = ["epochs=1", "model.hidden=[8]", "model.latent_dim=2", "metrics.parzen.n_samples=50"]
    plain = genexp("train", "model=vae", "dataset=digits", *small)
    refused = genexp("sample", f"run={plain.run}", "label=3")
    assert (refused.code, "is not trained with labels; leave it out, or train" in refused.err) == (2, True)
    words = ["train", "model=vae", "model.conditional=true", "model.likelihood=gaussian", "dataset=swiss_roll"]
    refused = genexp(*words)
    assert (refused.code, "model.conditional=true learns from labels" in refused.err) == (2, True)
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"pictures/{number}.png")
    folder = ["dataset=folder", "dataset.path=pictures", "dataset.size=8", "dataset.channels=1", "batch_size=4"]
    refused = genexp("train", "model=vae", "model.conditional=true", *folder)
    assert (refused.code, "a folder with a subfolder for each class" in refused.err) == (2, True)
    for name in ("night", "day"):
        (tmp_path / "pictures" / name).mkdir()
        for number in range(10):
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"pictures/{name}/{number}.png")
    answer = genexp("train", "model=vae", "model.conditional=true", *folder, *small[:-1], "metrics.parzen.n_samples=20")
    assert answer.code == 0, answer.err  # half of the images have no label
    assert genexp("sample", f"run={answer.run}", "n=5", "label=night").code == 0
    refused = genexp("sample", f"run={answer.run}", "n=5", "label=nigth")
    assert "label=nigth is no class of folder, did you mean 'night'?: day, night" in refused.err


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 128, 128)])
@pytest.mark.slow
def test_large_images_are_learned_as_small_ones_are(shape, likelihood):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(20, shape[0], 5, 5, generator=generator)
    x = nn.functional.interpolate(coarse, shape[1:], mode="bicubic").clamp(0, 1)
    settings = SETTINGS | {"hidden": [100], "latent_dim": 8, "hidden_units": "relu", "likelihood": likelihood}
    torch.manual_seed(0)
    model = VAE(DataSpec(shape, x.mean(0), x.std().item(), 20), noise.none(), **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    first = None
    for _ in range(5):
        outcome = model.play(x)
        first = first or outcome.losses["autoencoder"].item()
        assert outcome.watched["kl"] < 100  # from the second step on it was 10⁴ to 10¹¹
        optimizer.zero_grad()
        outcome.losses["autoencoder"].backward()
        optimizer.step()
    assert outcome.losses["autoencoder"].item() < first


def test_a_large_model_of_before_is_what_it_was():
    """Its state has no `pixel_scale`; and models of up to 64×64 grey pixels have none."""
    x = torch.rand(2, 1, 80, 80, generator=generator())
    model = VAE(
        replace(SPEC, shape=(1, 80, 80), pixel_mean=x[0]), noise.none(), **SETTINGS | {"likelihood": "bernoulli"}
    )
    now = model.encode(x)
    state = model.state_dict()
    model.load_state_dict(state)
    assert torch.equal(model.encode(x), now)
    scale = state.pop("pixel_scale")
    assert scale == pytest.approx(784 / 6400)
    state["trunk.1.0.weight"] = state["trunk.1.0.weight"] * scale
    model.load_state_dict(state)
    assert model.pixel_scale == 1
    assert torch.allclose(model.encode(x), now, atol=1e-5)
    assert "pixel_scale" not in build().state_dict()
