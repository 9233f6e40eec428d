"""Captured steps, as CUDA graphs and on tape, against the same steps made as usual."""

from types import SimpleNamespace

import pytest
import torch
from conftest import assert_same_state, config_of

from examples import DIGITS, FAST
from genexp import data as data_module
from genexp.device import select
from genexp.models import Outcome
from genexp.training import build, loop
from genexp.training.captured import MovesAsGraph, MovesOnTape

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
KINDS = {"cpu": MovesOnTape, "cuda": MovesAsGraph}
READS = "it reads a value back"
ON_EACH = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
WORDS = [*FAST, "dataset=digits", "epochs=3"]


def trained(monkeypatch, device, *words):
    """Train; return the training, the logged values without times, and the captured moves of each stage."""
    made = []

    class Recorded(KINDS[device]):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(loop, KINDS[device].__name__, Recorded)
    config = config_of(f"device={device}", *words)
    device = select(device, 1)
    data = build.data_set(config.dataset, config.data_dir, config.dataset_b).to(device)
    training = build.training(config, data, device)
    values = [tick.values for tick in loop.train(config, training, data, config.epochs) if tick.values]
    return training, [{k: v for k, v in each.items() if k != "images_per_second"} for each in values], made


def assert_same(monkeypatch, *words):
    captured, values, made = trained(monkeypatch, *words)
    usual, expected, none = trained(monkeypatch, *words, "device.capture=false")
    assert not none
    assert values == expected
    assert_same_state(captured.state_dict(), usual.state_dict())
    return made


@pytest.mark.slow
@ON_EACH
@pytest.mark.parametrize("model", sorted(DIGITS))
def test_a_captured_training_equals_the_usual_one_bit_for_bit(monkeypatch, device, model):
    fewer = ["epochs=2"] if model == "cyclegan" else []  # of its large steps
    made = assert_same(monkeypatch, device, f"model={model}", *WORDS, *DIGITS[model], *fewer)
    assert [moves.why_not for moves in made] == [None] * len(made)
    assert all(moves.captured for moves in made)
    assert all(moves.checked == 2 for moves in made)


@pytest.mark.slow
@ON_EACH
@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=sgd", "optimizer.momentum=0.5", "optimizer.momentum_final=0.9", "optimizer.lr_decay=1.01"],
        ["optimizer=sgd", "optimizer.momentum=0", "optimizer.momentum_final=0.5", "optimizer.momentum_ramp=[1,3]"],
        ["optimizer=adam", "optimizer.lr_epochs=3", "optimizer.max_col_norm=1"],
        ["optimizer=rmsprop", "optimizer.momentum=0.5"],
        ["optimizer=adadelta"],
        ["device.precision=bfloat16", "ema=0.9"],
        ["dataset.binarize=fresh", "model.beta_warmup=2"],
        ["model.conditional=true"],
    ],
    ids=lambda words: words[0],
)
def test_so_it_does_with_schedules_optimizers_averages_and_fresh_draws(monkeypatch, device, words):
    (moves,) = assert_same(monkeypatch, device, "model=vae", *WORDS, *DIGITS["vae"], *words)
    assert moves.why_not is None
    assert moves.captured or (device == "cpu" and words[0] == "optimizer=rmsprop")  # its rate is a number


@pytest.mark.slow
@NEEDS_GPU
@pytest.mark.parametrize("capture", ["true", "false"])
@pytest.mark.parametrize(
    "words",
    [
        ["model=vae", *DIGITS["vae"], "model.conditional=true"],
        ["model=gan", *DIGITS["gan"], "model.discriminator_steps=2"],
        ["model=stacked_dae", *DIGITS["stacked_dae"]],
        ["model=vae", *DIGITS["vae"], "dataset.binarize=fixed"],
        ["model=cyclegan", *DIGITS["cyclegan"]],
    ],
    ids=lambda words: words[0],
)
def test_images_that_stay_on_the_host_are_trained_on_alike(monkeypatch, words, capture):
    usual, expected, _ = trained(monkeypatch, "cuda", *WORDS, *words, f"device.capture={capture}")
    monkeypatch.setattr(data_module, "too_large", lambda images, device: True)
    on_host, values, _ = trained(monkeypatch, "cuda", *WORDS, *words, f"device.capture={capture}")
    assert values == expected
    assert_same_state(on_host.state_dict(), usual.state_dict())


@ON_EACH
@pytest.mark.parametrize(
    ("sabotage", "reason"),
    [
        (lambda model, images: images.sum().item(), ("it waits for the device", READS)),
        (lambda model, images: images[images > 0], ("it waits for the device", READS)),
        (lambda model, images: torch.rand(()).item(), ("it draws from the CPU's random generator", READS)),
        (lambda model, images: setattr(model, "kept", images.mean()), ("it replaces a tensor of its state",) * 2),
    ],
)
def test_a_step_that_no_graph_repeats_is_made_as_usual(monkeypatch, device, sabotage, reason):
    from genexp.models.vae import VAE

    init, play = VAE.__init__, VAE.play

    def with_buffer(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.register_buffer("kept", torch.zeros(()))

    def sabotaged(self, images) -> Outcome:
        sabotage(self, images)
        return play(self, images)

    monkeypatch.setattr(VAE, "__init__", with_buffer)
    monkeypatch.setattr(VAE, "play", sabotaged)
    (moves,) = assert_same(monkeypatch, device, "model=vae", *WORDS, *DIGITS["vae"])
    assert moves.why_not == reason[device == "cpu"]


@ON_EACH
def test_a_step_that_remembers_in_python_is_found_by_the_check(monkeypatch, device):
    from genexp.models.vae import VAE

    play, calls = VAE.play, []

    def counting(self, images) -> Outcome:
        losses, watched = play(self, images)
        calls.append(1)
        return Outcome({name: loss * (1 + 0.01 * len(calls)) for name, loss in losses.items()}, watched)

    monkeypatch.setattr(VAE, "play", counting)
    *_, (moves,) = trained(monkeypatch, device, "model=vae", *WORDS, *DIGITS["vae"])
    assert moves.why_not == "its replay gives other numbers"


def test_a_step_whose_replay_fails_is_made_as_usual(monkeypatch):
    def fails(self):
        raise RuntimeError("Trying to resize storage that is not resizable")

    monkeypatch.setattr(MovesOnTape, "replay", fails)
    (moves,) = assert_same(monkeypatch, "cpu", "model=vae", *WORDS, *DIGITS["vae"])
    assert moves.why_not == "its replay fails"


@pytest.mark.parametrize("group", ["model", "noise", "optimizer"])
def test_steps_with_somebodys_own_components_are_made_as_usual_unless_the_model_allows_more(group):
    config, model = config_of("model=vae", *WORDS), SimpleNamespace(device=torch.device("cpu"), replayed=False)
    assert loop._kind_of_moves(config, model) is MovesOnTape
    own = config.model_copy(update={group: {**getattr(config, group), "_target_": "mine.own"}})
    assert loop._kind_of_moves(own, model) is loop.Moves
    model.replayed = True
    assert loop._kind_of_moves(own, model) is MovesOnTape
    off = own.model_copy(update={"device": own.device.model_copy(update={"capture": False})})
    assert loop._kind_of_moves(off, model) is loop.Moves


def test_a_training_that_stops_in_between_ends_as_one_that_does_not(monkeypatch):
    words = ("cpu", "model=gan", *WORDS, *DIGITS["gan"])
    whole, *_ = trained(monkeypatch, *words)
    config = config_of("device=cpu", *words[1:])
    data = build.data_set(config.dataset, config.data_dir)
    training = build.training(config, data, torch.device("cpu"))
    for tick in loop.train(config, training, data, config.epochs):
        if tick.step == 17:
            break
    again = build.training(config, data, torch.device("cpu"))
    again.load_state_dict(training.state_dict())
    assert sum(1 for _ in loop.train(config, again, data, config.epochs)) == training.plan.last_step(3) - 17
    assert_same_state(again.state_dict(), whole.state_dict())
