"""How long a training takes, from some of its steps: what happens once in a process is not counted at each epoch."""

import time

import pytest
from conftest import SMALL, config_of

from genexp.figures import pictures
from genexp.training import measure

RBM = ["model=rbm", "dataset=digits", "model.hidden=16", "model.chains=10", "model.burn_in=2", "model.thinning=1"]


@pytest.mark.parametrize("words", [["model=gan", *SMALL], RBM], ids=["gan", "rbm"])
@pytest.mark.slow
def test_what_the_first_picture_takes_longer_is_not_counted_at_each_epoch(monkeypatch, words):
    """A ratio within one process: with pictures that wait, the first one 40 times as long as the others."""
    waits = iter([0.8, *[0.02] * 100])

    def of_model(*_):
        time.sleep(next(waits))
        yield from ()

    monkeypatch.setattr(pictures, "of_model", of_model)
    config = config_of(*words, "epochs=10")
    (stage,) = measure.measure(config, {})
    steps_per_epoch = stage.steps // stage.epochs
    monkeypatch.setattr(measure, "_end_of_epoch", lambda *_: 0.0)
    (steps_alone,) = measure.measure(config, {})
    of_an_epoch = (stage.seconds - steps_alone.seconds) * steps_per_epoch
    assert of_an_epoch < 0.4  # the first one's share would make it 0.8


def test_what_takes_long_is_done_once(monkeypatch):
    calls = []

    def of_model(*_):
        calls.append(time.sleep(0.05))
        yield from ()

    monkeypatch.setattr(pictures, "of_model", of_model)
    monkeypatch.setattr(measure, "SECONDS", 0.04)
    measure.measure(config_of("model=gan", *SMALL), {})
    assert len(calls) == 1
