"""Scores of translations: the truth itself, translations that do nothing, and their classes."""

import pytest
import torch

from genexp.data.digits import digits
from genexp.data.halves import TRANSFORMS, other_half
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.metrics.translation import translation_accuracy, translation_error
from genexp.models import Model


class Translation(Model):
    """Translates by two given functions."""

    sample_kind = "draw"

    def __init__(self, there, back):
        super().__init__()
        self.functions, self.weight = {"b": there, "a": back}, torch.nn.Linear(1, 1)

    def players(self):
        return {"weight": self.weight}

    def updates(self):
        return []

    def translate(self, images, to):
        return self.functions[to](images)

    def sample(self, n, generator, data):
        raise NotImplementedError


@pytest.fixture
def pair():
    return other_half(None, transform="inverted").pair(digits(None))


def invert(images):
    return TRANSFORMS["inverted"](images)


def test_the_truth_has_no_error_but_that_of_eight_bits(pair):
    score = translation_error(Subject(Translation(invert, invert), pair, 0), split="test")
    assert score.mean < 0.5 / 255
    assert set(score.details["ways"]) == {"a to b", "b to a"}


def test_doing_nothing_and_a_known_gap(pair):
    same = lambda images: images  # noqa: E731
    expected = [(2 * data.images("valid") - 1).abs().mean().item() for data in (pair, pair.second)]
    score = translation_error(Subject(Translation(same, same), pair, 0), split="valid")
    assert score.mean == pytest.approx(sum(expected) / 2, abs=2e-3)
    off = lambda images: invert(images) + torch.where(images < 0.5, -0.1, 0.1)  # noqa: E731
    score = translation_error(Subject(Translation(off, invert), pair, 0), split="test")
    assert score.details["ways"]["a to b"] == pytest.approx(0.1, abs=0.003)
    assert score.mean == pytest.approx(0.05, abs=0.003)


@pytest.mark.slow
def test_accuracy_is_that_of_a_classifier_of_the_other_side(pair, monkeypatch, tmp_path):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path))
    score = translation_accuracy(Subject(Translation(invert, invert), pair, 0), split="test")
    assert score.mean > 0.9
    assert score.mean == pytest.approx(score.floor, abs=0.04)
    black = lambda images: torch.zeros_like(images)  # noqa: E731
    score = translation_accuracy(Subject(Translation(black, invert), pair, 0), split="test")
    assert score.details["ways"]["a to b"] < 0.2
    assert score.details["ways"]["b to a"] > 0.9
    assert score.extractor.count("classifier-") == 2


def test_where_the_truth_is_not_known_it_is_refused(pair):
    from dataclasses import replace

    unknown = replace(pair, truth={})
    with pytest.raises(UsageError, match="the true translations are known with dataset@dataset_b=other_half only"):
        translation_error(Subject(Translation(invert, invert), unknown, 0), split="test")
    with pytest.raises(UsageError, match="need two data sets"):
        translation_error(Subject(Translation(invert, invert), digits(None), 0), split="test")
    unlabelled = replace(pair, labels={})
    with pytest.raises(UsageError, match="which needs labels of training and test images"):
        translation_accuracy(Subject(Translation(invert, invert), unlabelled, 0), split="test")
