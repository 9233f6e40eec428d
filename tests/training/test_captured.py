"""Steps as CUDA graphs against the same steps made as usual. All but the last test need an NVIDIA GPU."""

import pytest
import torch
from conftest import assert_same_state, config_of

from examples import DIGITS, FAST
from genexp.device import select
from genexp.models import Outcome
from genexp.training import build, loop
from genexp.training.captured import CapturedMoves

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WORDS = [*FAST, "dataset=digits", "epochs=3"]


def trained(monkeypatch, *words):
    """Train; return the training, the logged values without times, and the moves of each stage."""
    made = []

    class Recorded(CapturedMoves):
        def __init__(self, moves):
            super().__init__(moves)
            made.append(self)

    monkeypatch.setattr(loop, "CapturedMoves", Recorded)
    config = config_of("device=cuda", *words)
    device = select("cuda", None)
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


@NEEDS_GPU
@pytest.mark.parametrize("model", sorted({*DIGITS} - {"cyclegan"}))
def test_a_captured_training_equals_the_usual_one_bit_for_bit(monkeypatch, model):
    made = assert_same(monkeypatch, f"model={model}", *WORDS, *DIGITS[model])
    assert [moves.why_not for moves in made] == [None] * len(made)
    assert all(moves.graph is not None for moves in made)


@NEEDS_GPU
def test_the_pool_of_a_cyclegan_is_filled_by_the_cpu_so_its_steps_are_made_as_usual(monkeypatch):
    *_, (moves,) = trained(monkeypatch, "model=cyclegan", *WORDS, *DIGITS["cyclegan"])
    assert moves.why_not in ("it waits for the device", "it draws from the CPU's random generator")


@NEEDS_GPU
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
    ],
    ids=lambda words: words[0],
)
def test_so_it_does_with_schedules_optimizers_averages_and_fresh_draws(monkeypatch, words):
    (moves,) = assert_same(monkeypatch, "model=vae", *WORDS, *DIGITS["vae"], *words)
    assert moves.why_not is None
    assert moves.graph is not None


@NEEDS_GPU
@pytest.mark.parametrize(
    ("sabotage", "reason"),
    [
        (lambda model, images: images.sum().item(), "waits for the device"),
        (lambda model, images: torch.rand(()).item(), "CPU's random generator"),
        (lambda model, images: setattr(model, "kept", images.mean()), "replaces a tensor"),
    ],
)
def test_a_step_that_no_graph_repeats_is_made_as_usual(monkeypatch, sabotage, reason):
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
    (moves,) = assert_same(monkeypatch, "model=vae", *WORDS, *DIGITS["vae"])
    assert reason in moves.why_not
    assert moves.graph is None


@NEEDS_GPU
def test_a_step_that_remembers_in_python_is_found_by_the_check(monkeypatch):
    from genexp.models.vae import VAE

    play, calls = VAE.play, []

    def counting(self, images) -> Outcome:
        losses, watched = play(self, images)
        calls.append(1)
        return Outcome({name: loss * (1 + 0.01 * len(calls)) for name, loss in losses.items()}, watched)

    monkeypatch.setattr(VAE, "play", counting)
    *_, (moves,) = trained(monkeypatch, "model=vae", *WORDS, *DIGITS["vae"])
    assert moves.why_not == "its replay gives other numbers"


def test_on_the_cpu_nothing_is_captured(monkeypatch):
    monkeypatch.setattr(loop, "CapturedMoves", None)
    config = config_of("model=vae", *WORDS, *DIGITS["vae"], "epochs=1", "device=cpu")
    data = build.data_set(config.dataset, config.data_dir)
    training = build.training(config, data, torch.device("cpu"))
    assert sum(1 for _ in loop.train(config, training, data, 1)) == training.plan.last.steps_per_epoch
