"""Scores of few samples and few images: refused before training, or taken with errors that are unknown, never 0."""

import math
from dataclasses import replace

import pytest
import torch
import yaml
from conftest import Fixed, config_of

from genexp.config.components import check_component
from genexp.config.schema import CONFIGS
from genexp.data.digits import digits
from genexp.data.mixtures import ring
from genexp.errors import UsageError
from genexp.metrics import Subject, mean_and_errors
from genexp.metrics import classifier as classifier_module
from genexp.training import build

FEW = (1, 2, 3, 4, 7)
IMAGES = ("parzen", "inception_score", "fid", "kid", "precision", "recall", "density", "coverage", "ms_ssim")
POINTS = ("modes", "high_quality", "kl", "js")
SMALLEST = {"inception_score": {"splits": 1}, "kid": {"subsets": 3, "subset_size": 2}, "ms_ssim": {"n_pairs": 1}}
SMALLEST |= {name: {"bins": 10} for name in ("kl", "js")}
SMALLEST |= {name: {"k": 1} for name in ("precision", "recall", "density", "coverage")}


@pytest.fixture
def quick_classifier(monkeypatch, tmp_path):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_module, "STEPS", 20)


@pytest.fixture(scope="module")
def images():
    small = digits(None)
    larger = {name: getattr(small, name).repeat_interleave(2, 2).repeat_interleave(2, 3) for name in ("train", "valid")}
    return replace(small, **larger, test=small.test.repeat_interleave(2, 2).repeat_interleave(2, 3))


def metric_of(name, n):
    """Return a metric of so many samples, with its other settings as small as they may be."""
    metric = yaml.safe_load((CONFIGS / "metric" / f"{name}.yaml").read_text(encoding="utf-8"))
    return check_component(f"metrics.{name}", metric) | {"n_samples": n} | SMALLEST.get(name, {})


def refusal(name, metric, model, data):
    """Return how the metric is refused before training; "" if it is not."""
    try:
        build.check_metrics({name: metric}, model, data)
    except UsageError as error:
        return str(error)
    return ""


def with_split_of(data, n):
    """Return the data set with n test images, and n training images for the floor."""
    labels = {split: of_split[:n] if split == "test" else of_split for split, of_split in data.labels.items()}
    return replace(data, test=data.test[:n], labels=labels)


@pytest.mark.parametrize("few_images", [False, True], ids=["few samples", "few test images"])
@pytest.mark.parametrize("name", [*IMAGES, *POINTS])
@pytest.mark.slow
def test_what_is_not_refused_before_training_has_a_score(quick_classifier, images, name, few_images):
    whole = images if name in IMAGES else ring(None, n=500, radius=1.0, std=0.2)
    samples, taken = whole.images("valid"), 0
    for n in FEW:
        data = with_split_of(whole, n) if few_images else whole
        metric = metric_of(name, 200 if few_images else n)
        model = Fixed(samples)
        if refusal(name, metric, model, data):
            continue
        score = build.score(name, metric, Subject(model, data, 0))
        taken += 1
        assert math.isfinite(score.mean), (name, n)
        assert score.stderr is None or score.stderr > 1e-12 or score.mean in (0, 1), (name, n, score)
        assert "nan" not in score.summary
        assert " 1 test images" not in score.summary
        assert "(1 samples" not in score.summary
    assert taken >= 2


@pytest.mark.parametrize(
    ("name", "settings", "least"),
    [("fid", {}, 2), ("ms_ssim", {}, 2), ("inception_score", {"splits": 3}, 6), ("kid", {"subset_size": 5}, 5)],
)
def test_the_least_number_of_samples_is_said(images, name, settings, least):
    model = Fixed(images.images("valid"))
    assert not refusal(name, metric_of(name, least) | settings, model, images)
    refused = refusal(name, metric_of(name, least - 1) | settings, model, images)
    assert refused.startswith(f"metrics.{name}: ")
    assert "at least 2" in refused


def test_fid_of_one_sample_is_refused_before_training(genexp, tmp_path):
    answer = genexp(
        *("train", "model=vae", "dataset=digits", "epochs=1", "metric@metrics.fid=fid", "metrics.fid.n_samples=1")
    )
    assert answer.code == 2
    assert "metrics.fid.n_samples=1: should be greater than or equal to 2" in answer.err
    assert not list(tmp_path.glob("outputs/digits/*"))


def test_the_error_of_one_value_is_unknown():
    assert mean_and_errors(torch.tensor([3.0])) == (3.0, None, None)
    assert mean_and_errors(torch.tensor([3.0, 5.0])) == (4.0, 1.0, pytest.approx(math.sqrt(0.5)))


def test_the_distance_of_whole_sets_has_no_error(quick_classifier, images):
    data = with_split_of(images, 30)
    metric = metric_of("kid", 30) | {"subset_size": 30, "subsets": 20}
    score = build.score("kid", metric, Subject(Fixed(images.images("valid")), data, 0))
    assert (score.stderr, score.details["std"]) == (None, None)
    smaller = build.score("kid", metric | {"subset_size": 29}, Subject(Fixed(images.images("valid")), data, 0))
    assert smaller.stderr > 1e-6
    assert "±" not in score.summary


@pytest.mark.parametrize("model", ["vae", "rbm"])
def test_the_likelihood_of_a_single_test_image_has_no_error(images, model):
    small = digits(None)
    one = replace(small, test=small.test[:1], labels={})
    binary = [f"+metric@metrics.{name}={name}" for name in (["ais"] if model == "rbm" else [])]
    config = config_of(
        f"model={model}", "dataset=digits", "model.hidden=" + ("[8]" if model == "vae" else "8"), *binary
    )
    built = build.model(config.model, config.noise, one.spec(), 0, torch.device("cpu"))
    for name in ["ais"] if model == "rbm" else ["elbo", "iwae", "parzen"]:
        score = build.score(name, config.metrics[name], Subject(built, one, 0))
        assert math.isfinite(score.mean)
        assert score.stderr is None
        assert "on 1 test image (" in score.summary
        assert "±" not in score.summary.split("nats")[0]
