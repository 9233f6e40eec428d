"""What codes are worth: errors against scikit-learn's own, and codes whose worth is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import config_of
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import one_hot

from genexp.data import DataSet
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.metrics.probe import _draws, _last_hidden, discriminator_probe, probe
from genexp.models import Autoencoder, evaluating
from genexp.training import build

SETTINGS = {"split": "test", "n_labels": 300, "draws": 4, "neighbours": 5}


class Given(Autoencoder):
    """An autoencoder whose codes are a function of the images."""

    sample_kind = "mean"

    def __init__(self, code):
        super().__init__()
        self.code, self.weight = code, torch.nn.Parameter(torch.zeros(1))

    def encode(self, images):
        return self.code(images)

    def decode(self, codes):
        raise NotImplementedError

    def sample(self, n, generator, data):
        raise NotImplementedError


@pytest.fixture(scope="module")
def data():
    return digits(Path())


@pytest.mark.slow
def test_codes_that_are_the_labels_make_no_errors_and_codes_of_nothing_only_errors(data):
    known = {image.numpy().tobytes(): int(label) for split in ("train", "test")
             for image, label in zip(data.images(split), data.labels[split], strict=True)}  # fmt: skip

    def labels(images):
        return one_hot(torch.tensor([known[image.numpy().tobytes()] for image in images]), 10).float()

    score = probe(Subject(Given(labels), data, 0), **SETTINGS)
    kinds = ("linear_codes_100", "linear_codes_300", "linear_codes_all", "nearest_codes_300", "nearest_codes_all")
    assert [score.details[kind] for kind in kinds] == [0] * 5
    assert score.mean == 0
    nothing = probe(Subject(Given(lambda images: torch.zeros(len(images), 2)), data, 0), **SETTINGS)
    most = torch.bincount(data.labels["test"]).max().item() / len(data.test)
    assert nothing.mean >= 1 - most - 1e-9


def test_the_yardsticks_and_the_errors_are_those_of_scikit_learn(data):
    score = probe(Subject(Given(lambda images: images.flatten(1)[:, 8:24] ** 2), data, 3), **SETTINGS)
    x, y = (data.images(split).flatten(1).numpy() for split in ("train", "test"))
    labels, wanted = (data.labels[split].numpy() for split in ("train", "test"))
    errors = {"pixels": [], "codes": [], "nearest": []}
    for rows in _draws(labels, 300, 4, 3):
        for name, columns in (("pixels", lambda a: a), ("codes", lambda a: a[:, 8:24] ** 2)):
            scaler = StandardScaler().fit(columns(x[rows]))
            fitted = LogisticRegression(max_iter=2000).fit(scaler.transform(columns(x[rows])), labels[rows])
            errors[name].append((fitted.predict(scaler.transform(columns(y))) != wanted).mean())
        nearest = KNeighborsClassifier(5).fit(x[rows], labels[rows])
        errors["nearest"].append((nearest.predict(y) != wanted).mean())
    assert score.details["linear_pixels_300"] == pytest.approx(np.mean(errors["pixels"]), abs=0.004)
    assert score.mean == score.details["linear_codes_300"] == pytest.approx(np.mean(errors["codes"]), abs=0.004)
    assert score.details["nearest_pixels_300"] == pytest.approx(np.mean(errors["nearest"]), abs=1e-9)
    assert score.details["linear_codes_300_spread"] == pytest.approx(np.std(errors["codes"], ddof=1), abs=0.004)
    assert score.stderr == pytest.approx(score.details["linear_codes_300_spread"] / 2)
    assert score.details["code_size"] == 16
    assert "% errors with 300 labels" in score.summary


def test_draws_differ_follow_from_the_seed_and_hold_every_class(data):
    labels = data.labels["train"].numpy()
    draws, again = (_draws(labels, 20, 3, 7) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(draws, again, strict=True))
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], _draws(labels, 20, 1, 8)[0])
    for rows in draws:
        assert len(set(rows)) == 20
        assert set(labels[rows]) == set(range(10))


def test_more_labels_than_there_are_images_are_all(data):
    few = DataSet(data.train[:150], data.valid, data.test, {k: v[:150] for k, v in data.labels.items()}, data.white)
    few.labels["test"], few.labels["valid"] = data.labels["test"], data.labels["valid"]
    score = probe(Subject(Given(lambda images: images.flatten(1)), few, 0), **SETTINGS)
    assert score.mean == score.details["linear_codes_all"]
    assert score.stderr is None
    assert "with all labels" in score.summary
    assert "linear_codes_300" not in score.details


def test_what_cannot_be_probed_is_refused(data, genexp):
    unlabelled = DataSet(data.train, data.valid, data.test, {}, data.white)
    with pytest.raises(UsageError, match="needs a label of each image"):
        probe(Subject(Given(lambda images: images.flatten(1)), unlabelled, 0), **SETTINGS)
    for model, said in (("gan", "this model has no encoder"), ("vae", "a conditional model is given them")):
        words = ["model.conditional=true"] if model == "vae" else []
        answer = genexp("train", f"model={model}", *words, "dataset=digits", "epochs=1", "metric@metrics.probe=probe")
        assert (answer.code, said in answer.err) == (2, True), answer.err


@pytest.mark.slow
def test_a_run_is_probed_by_the_command(genexp):
    words = ["model=ae", "dataset=digits", "epochs=2", "metrics.parzen.n_samples=50", "metric@metrics.probe=probe"]
    answer = genexp("train", *words, "metrics.probe.draws=2")
    assert "errors with 1000 labels" in answer.out, answer.err


def gan(*words):
    config = config_of("model=gan", "dataset=digits", "model.generator_hidden=[8]", *words)
    data = digits(Path())
    return build.training(config, data, torch.device("cpu")).model, data


def test_what_the_discriminator_s_last_layer_is_given():
    model, data = gan("model.discriminator_hidden=[16,12]")
    with evaluating(model):
        hidden, logits = _last_hidden(model, data.images("test")), model.logits(data.images("test"))
        last = [module for module in model.discriminator.modules() if isinstance(module, torch.nn.Linear)][-1]
        assert hidden.shape == (300, 12)
        assert torch.equal(last(hidden).flatten(), logits)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_discriminator_without_layers_that_can_be_probed_is_refused(monkeypatch):
    model, data = gan()
    monkeypatch.setattr(model, "logits", lambda images: images.flatten(1).sum(1))
    with pytest.raises(UsageError, match=r"GAN: its discriminator has no nn.Linear or nn.Conv2d to be probed"):
        discriminator_probe(Subject(model, data, 0), **SETTINGS)


@pytest.mark.slow
def test_a_discriminator_is_probed_by_its_last_hidden_layer(genexp):
    model, data = gan("model.discriminator_hidden=[16]")
    score = discriminator_probe(Subject(model, data, 0), **SETTINGS)
    with evaluating(model):  # without dropout
        codes = Given(lambda images: _last_hidden(model, images))
        assert score.mean == probe(Subject(codes, data, 0), **SETTINGS).mean
    assert score.details["code_size"] == 16
    answer = genexp("train", "model=vae", "dataset=digits", "metric@metrics.d=discriminator_probe")
    assert (answer.code, "it probes a discriminator, and this model has none" in answer.err) == (2, True), answer.err
