"""Pictures and log files."""

import re

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genexp.figures.canvas import grid
from genexp.models import Stage
from genexp.rundirs.directory import Run
from genexp.text import duration
from genexp.training.logs import Logs
from genexp.training.loop import Tick
from genexp.training.plan import Plan, PlannedStage
from genexp.training.terminal import Line, Terminal


def test_a_grid_puts_images_in_reading_order():
    images = torch.stack([torch.full((1, 28, 28), value) for value in (0.0, 0.5, 1.0)])
    picture = grid(images)
    assert picture.shape == (59, 59, 3)
    assert [picture[15, 15, 0], picture[15, 44, 0], picture[44, 15, 0]] == [0, 128, 255]
    assert (picture[0] == 128).all()


def test_small_images_are_enlarged_by_whole_pixels_and_colour_is_kept():
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, 0, 0] = 1
    picture = grid(images)
    assert picture.shape == (34, 34, 3)
    assert (picture[1:5, 1:5] == np.array([255, 0, 0])).all()
    assert (picture[5:-1, 5:-1] == 0).all()


def test_values_outside_the_range_are_clamped():
    assert grid(torch.full((1, 1, 28, 28), -3.0))[1:-1, 1:-1].max() == 0


@pytest.mark.parametrize(
    ("content", "rest"),
    [
        (
            b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo',
            b'{"step": 1}\n{"step": 2}\n',
        ),  # killed while writing
        (b'{"step": 1}\n\xff\xfe\n{"step": 2}\n{"step": 3}\n{"st', b'{"step": 1}\n{"step": 2}\n'),  # a dying disk
    ],
)
def test_metrics_are_cut_back_to_the_step_that_a_run_goes_on_from(tmp_path, content, rest):
    run = Run(tmp_path)
    run.metrics_file.write_bytes(content)
    with Logs(run, 2):
        pass
    assert run.metrics_file.read_bytes() == rest


def test_durations_read_like_a_clock():
    assert [duration(seconds) for seconds in (5, 65, 3665)] == ["0:05", "1:05", "1:01:05"]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_bar_shows_epoch_losses_speed_and_time_left(monkeypatch, width, capsys):
    console = Console(width=width, force_terminal=True)
    monkeypatch.setattr("genexp.training.terminal.Console", lambda: console)
    values = {"loss/discriminator": 0.51234, "loss/generator": 1.2, "D(x)": 0.7, "images_per_second": 3456.7}
    stage = PlannedStage(Stage("", []), [], images_per_step=10, steps_per_epoch=10, first_step=0, first_epoch=0)
    terminal = Terminal(Plan([stage], batch_size=10), epochs=25, from_step=120)
    with terminal.progress:
        terminal.show(Tick(step=125, epoch=12, ends_epoch=False, values=values, stage=stage))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out).split("\r")[-1].strip()
    assert len(shown) < width
    losses = "loss 0.51 / 1.20" if width == 60 else "discriminator 0.51"
    for said in ("epoch 13/25", "━━━━", "left", losses, "3,457 im"):
        assert said in shown, shown
    assert ("D(x) 0.700" in shown) == (width == 140)


def test_a_pipe_gets_a_line_of_an_epoch_as_ever(monkeypatch, capsys):
    """Scripts read these lines; where there is no terminal, nothing moves and nothing is shortened."""
    monkeypatch.setenv("COLUMNS", "40")
    clock = iter([0.0, 60.0, 60.5, 100.0])
    monkeypatch.setattr("genexp.training.terminal.time.perf_counter", lambda: next(clock))
    values = {"loss/discriminator": 0.51234, "loss/generator": 1.2, "D(x)": 0.7, "images_per_second": 3456.7}
    stage = PlannedStage(
        Stage("layer_2", [], epochs=3), [], images_per_step=10, steps_per_epoch=10, first_step=0, first_epoch=0
    )
    terminal = Terminal(Plan([stage], batch_size=10), epochs=3, from_step=0)
    with terminal.progress:
        for step in (10, 20, 30):  # the second one comes within LINE_SECONDS
            terminal.show(Tick(step=step, epoch=step // 10, ends_epoch=True, values=values, stage=stage))
    numbers = "discriminator 0.512  generator 1.200  D(x) 0.700  3,457 images/s"
    lines = [f"layer_2, epoch 1/3  {numbers}  2:00 left", f"layer_2, epoch 3/3  {numbers}  0:00 left"]
    assert capsys.readouterr().out.splitlines() == lines


TWO = {"discriminator": 0.512, "generator": 1.234}
FOUR = {"generator_ab": 3.1, "generator_ba": 2.9, "discriminator_a": 0.25, "discriminator_b": 0.27}


@pytest.mark.parametrize("width", range(40, 161, 10))
@pytest.mark.parametrize("losses", [{}, {"autoencoder": 101.2}, TWO, FOUR], ids=len)
@pytest.mark.parametrize("place", ["epoch 3/25", "layer 2, epoch 103/1000, scoring by inception_score"])
def test_the_bar_is_one_line_whatever_the_width(width, losses, place):
    shown = Line(place, 0.5, "1:02:03 left", 123456.7, losses, {"D(x)": 0.7}).text(width).plain
    assert len(shown) <= width
    assert shown.startswith(place[:width])
    if place == "epoch 3/25" and width >= 60 and len(losses) < 3:
        for said in ("━", "1:02:03 left", "im", *(f"{value:.2f}" for value in losses.values())):
            assert said in shown
    if width >= 120 and place == "epoch 3/25":
        assert "123,457 images/s" in shown or "123k img/s" in shown
        assert all(f"{value:.2f}" in shown for value in losses.values())
    if width == 160 and place == "epoch 3/25":
        assert all(name in shown for name in losses)


def test_tensorboard_shows_what_was_logged_before_the_step_that_a_run_goes_on_from(tmp_path, a_second_passes):
    run = Run(tmp_path)
    run.config_file.touch()
    for from_step, steps in ((0, (1, 2, 3)), (2, (3, 4, 5)), (4, (5, 6))):
        with Logs(run, from_step) as logs:
            for step in steps:
                logs.tensorboard.points({"loss/a": step + 10 * from_step}, step)
        a_second_passes()
    shown = EventAccumulator(str(run.tensorboard)).Reload().Scalars("loss/a")
    assert [(event.step, event.value) for event in shown] == [(1, 1), (2, 2), (3, 23), (4, 24), (5, 45), (6, 46)]
    with Logs(run, 0):  # begun again from nothing
        pass
    assert "loss/a" not in EventAccumulator(str(run.tensorboard)).Reload().Tags()["scalars"]
