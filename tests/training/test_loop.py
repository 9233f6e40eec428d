"""The loop on games whose course is known in closed form, and its promises on stopping, order and divergence."""

import io
import math
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from conftest import assert_same_state
from torch import nn

from genexp.data import DataSet
from genexp.errors import DivergedError, UsageError
from genexp.models import Model, Outcome, Update
from genexp.optimizers import sgd
from genexp.training.loop import Plan, Training, train

PLAIN = {"lr_decay": 1.0, "lr_min": 0.0, "momentum_final": None, "momentum_ramp": [1, 250], "nesterov": False}


class Player(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))


class Saddle(Model):
    """min over x, max over y of x·y."""

    sample_kind = "draw"

    def __init__(self, simultaneous, repeats=1):
        super().__init__()
        self.x, self.y = Player(1.0), Player(0.5)
        self.simultaneous, self.repeats = simultaneous, repeats
        self.seen = []

    def players(self):
        return {"x": self.x, "y": self.y}

    def updates(self):
        if self.simultaneous:
            return [Update(("x", "y"), lambda images: self.play(images, "x", "y"))]
        return [
            Update(("x",), lambda images: self.play(images, "x"), repeats=self.repeats),
            Update(("y",), lambda images: self.play(images, "y")),
        ]

    def play(self, images, *players):
        self.seen.append(images.flatten().tolist())
        value = self.x.value * self.y.value
        losses = {"x": value, "y": -value}
        return Outcome({player: losses[player] for player in players}, {"noise": torch.rand(())})

    def sample(self, n, generator, data):
        raise NotImplementedError

    @property
    def point(self):
        return self.x.value.item(), self.y.value.item()


def data(n=20):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    return DataSet(images, images, images, labels={})


def play(model, steps=None, lr=0.1, momentum=0.0, training=None, seed=0, epochs=10**6, log_every=3):
    if training is None:
        make = lambda part: sgd(list(part.parameters()), lr=lr, momentum=momentum, weight_decay=0.0, **PLAIN)  # noqa: E731
        plan = Plan.of(model, batch_size=5, n_images=20)
        training = Training(model, plan, {name: make(part) for name, part in model.players().items()})
    log, device = SimpleNamespace(every_steps=log_every), SimpleNamespace(precision="float32", capture=False)
    config = SimpleNamespace(seed=seed, log=log, device=device)
    ticks = []
    for tick in train(config, training, data(), epochs):
        ticks.append(tick)
        if steps is not None and len(ticks) == steps:
            break
    return training, ticks


@pytest.mark.slow
def test_simultaneous_descent_on_a_saddle_spirals_out_at_the_known_rate():
    model = Saddle(simultaneous=True)
    start = math.hypot(*model.point)
    play(model, steps=1000)
    assert math.hypot(*model.point) / start == pytest.approx(math.sqrt(1.01) ** 1000, rel=1e-9)


@pytest.mark.slow
def test_alternating_descent_on_a_saddle_conserves_its_invariant():
    """x first: x² + y² − ηxy stays as it is, so the players circle for ever."""
    model = Saddle(simultaneous=False)
    invariant = lambda x, y: x * x + y * y - 0.1 * x * y  # noqa: E731
    before = invariant(*model.point)
    play(model, steps=1000)
    assert invariant(*model.point) == pytest.approx(before, rel=1e-12)


def test_repeats_move_that_player_more_often_and_each_sees_a_minibatch_of_its_own():
    model = Saddle(simultaneous=False, repeats=2)
    _, ticks = play(model, epochs=1)
    assert len(ticks) == 2  # 20 images, two minibatches of 5 a step
    first, second, third, *_ = model.seen
    assert set(first).isdisjoint(second)
    assert third == first  # the other player sees the first minibatch of the step
    x, y = 1.0, 0.5
    for _ in range(len(ticks)):
        x = x - 0.1 * y - 0.1 * y
        y = y + 0.1 * x
    assert model.point == pytest.approx((x, y))


def test_an_epoch_is_a_permutation_and_epochs_differ():
    model = Saddle(simultaneous=True)
    play(model, epochs=2)
    first, second = chain(*model.seen[:4]), chain(*model.seen[4:])
    first, second = list(first), list(second)
    assert sorted(first) == sorted(second) == [pytest.approx(i / 255) for i in range(20)]
    assert first != second
    again, other = Saddle(simultaneous=True), Saddle(simultaneous=True)
    play(again, epochs=2)
    play(other, epochs=2, seed=1)
    assert again.seen == model.seen != other.seen


@pytest.mark.parametrize("stop", range(1, 12))
def test_stopping_anywhere_and_going_on_changes_nothing(stop):
    whole, ticks = play(Saddle(simultaneous=True), epochs=3, momentum=0.5)
    half, before = play(Saddle(simultaneous=True), steps=stop, epochs=3, momentum=0.5)
    state = torch.load(_saved(half.state_dict()), weights_only=True)
    resumed, _ = play(Saddle(simultaneous=True), steps=0, epochs=0, momentum=0.5)
    resumed.load_state_dict(state)
    _, after = play(None, epochs=3, training=resumed)
    assert_same_state(whole.state_dict(), resumed.state_dict())
    values = [{k: v for k, v in t.values.items() if k != "images_per_second"} for t in ticks if t.values]
    pieces = [{k: v for k, v in t.values.items() if k != "images_per_second"} for t in before + after if t.values]
    assert values == pieces


def _saved(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return stream


def test_logged_values_are_means_since_the_last_line():
    _, ticks = play(Saddle(simultaneous=True), epochs=1)
    assert [tick.step for tick in ticks if tick.values] == [3, 4]  # every third step, and the epoch's end
    _, each = play(Saddle(simultaneous=True), epochs=1, log_every=1)
    losses = [tick.values["loss/x"] for tick in each]
    assert ticks[2].values["loss/x"] == pytest.approx(sum(losses[:3]) / 3)
    assert ticks[3].values["loss/x"] == pytest.approx(losses[3])
    assert each[0].values["grad_norm/x"] == pytest.approx(0.5)  # d(xy)/dx = y
    assert each[0].values["lr/x"] == 0.1


def test_divergence_names_its_first_step():
    model = Saddle(simultaneous=True)
    with pytest.raises(DivergedError, match=r"step (2\d|3\d|4\d).*loss/x="):
        play(model, lr=1e8)
    clean = Saddle(simultaneous=True)
    clean.x.value.data.fill_(math.nan)
    with pytest.raises(DivergedError, match=r"step 1: loss/x=nan, loss/y=nan"):
        play(clean)


@pytest.mark.parametrize("named", [{"z": 1.0}, {}, {"x": 1.0, "y": 1.0}])
def test_losses_that_are_not_the_players_are_refused(named):
    model = Saddle(simultaneous=False)
    model.play = lambda images, *players: Outcome({name: value * model.x.value for name, value in named.items()}, {})
    with pytest.raises(UsageError, match=f"Saddle: its update of x gives losses of {', '.join(named) or 'nobody'};"):
        play(model)


def test_a_loss_that_is_no_number_is_refused():
    model = Saddle(simultaneous=False)
    model.play = lambda images, *players: Outcome({"x": model.x.value.expand(3)}, {})
    with pytest.raises(UsageError, match=r"gives losses of x \(3,\); give one number"):
        play(model)


def test_nothing_is_read_back_between_logged_steps(monkeypatch):
    reads = []
    original = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: reads.append("item") or original(self))
    for name in ("tolist", "cpu", "numpy", "__float__", "__bool__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, _r=real, _n=name: reads.append(_n) or _r(self, *a))
    model = Saddle(simultaneous=True)
    model.play = lambda images, *players: Outcome(
        {"x": model.x.value * model.y.value, "y": -model.x.value * model.y.value}, {}
    )
    play(model, steps=2, log_every=3)
    assert reads == []
    play(model, steps=3, log_every=3)
    assert reads != []
