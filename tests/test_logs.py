"""Pictures and log files."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter

from genexp.figures.pictures import grid
from genexp.storage.files import atomic
from genexp.text import duration
from genexp.training.logs import Terminal, _cut_back, _cut_back_events
from genexp.training.loop import Tick


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


def test_metrics_are_cut_back_to_the_step_that_a_run_goes_on_from(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    file.write_text("\n".join(lines) + '\n{"step": 4, "lo')  # killed while writing
    _cut_back(file, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
    _cut_back(tmp_path / "none", 2)
    assert not (tmp_path / "none").exists()


def test_durations_read_like_a_clock():
    assert [duration(seconds) for seconds in (5, 65, 3665)] == ["0:05", "1:05", "1:01:05"]


@pytest.mark.parametrize("width", [80, 140])
def test_the_bar_shows_epoch_losses_speed_and_time_left(monkeypatch, width, capsys):
    console = Console(width=width, force_terminal=True)
    monkeypatch.setattr("genexp.training.logs.Console", lambda: console)
    values = {"loss/discriminator": 0.51234, "loss/generator": 1.2, "D(x)": 0.7, "images_per_second": 3456.7}
    with Terminal(epochs=25, steps_per_epoch=10, from_step=120) as terminal:
        terminal.show(Tick(step=125, epoch=12, ends_epoch=False, values=values))
    shown = capsys.readouterr().out.split("\r")[-1]
    for said in ("epoch 13/25", "left", "discriminator 0.51", "generator 1.2", "3,457 images/s"):
        assert said in shown, shown
    assert ("D(x) 0.700" in shown) == (width == 140)


def test_bytes_that_a_dying_disk_leaves_cost_only_their_own_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n\xff\xfe\n{"step": 2}\n{"step": 3}\n{"st')
    _cut_back(file, 2)
    assert file.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_tensorboard_is_cut_back_in_place_and_again_after_a_kill_on_the_way(tmp_path, monkeypatch):
    """Two sessions; the cut of the second file is killed, and done again."""
    for session, steps in enumerate([(1, 2, 3), (4, 5, 6)]):
        with SummaryWriter(str(tmp_path / "tensorboard"), filename_suffix=f".{session}") as writer:
            for step in steps:
                writer.add_scalar("loss", step, step)
                writer.add_scalar("score/parzen", step, step)

    def points(tag):
        files = sorted((tmp_path / "tensorboard").glob("events*"))
        events = [event for file in files for event in EventFileLoader(str(file)).Load()]
        return sorted(event.step for event in events for value in event.summary.value if value.tag == tag)

    cuts = []

    def dies(path):
        if cuts:
            raise KeyboardInterrupt
        cuts.append(path)
        return atomic(path)

    monkeypatch.setattr("genexp.training.logs.atomic", dies)
    with pytest.raises(KeyboardInterrupt):
        _cut_back_events(tmp_path / "tensorboard", 5, scored_again=True)
    monkeypatch.setattr("genexp.training.logs.atomic", atomic)
    _cut_back_events(tmp_path / "tensorboard", 5, scored_again=True)
    assert points("loss") == [1, 2, 3, 4, 5]
    assert points("score/parzen") == [1, 2, 3, 4]
    _cut_back_events(tmp_path / "tensorboard", 0, scored_again=False)
    assert not list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(("damage", "told"), [("a bit", True), ("the end", False)])
def test_a_damaged_file_of_tensorboard_is_named_and_kept_and_one_cut_short_is_not(tmp_path, capsys, damage, told):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 2, 3):
            writer.add_scalar("loss", step, step)
    (file,) = tmp_path.glob("events*")
    content = bytearray(file.read_bytes())
    if damage == "a bit":
        content[content.index(b"loss", content.index(b"loss") + 1)] ^= 1  # in the second of three
    else:
        del content[-3:]
    file.write_bytes(content)
    _cut_back_events(tmp_path, 3, scored_again=False)
    said = capsys.readouterr().out
    assert (f"{file} is damaged at byte" in said) == told
    assert [kept.read_bytes() for kept in tmp_path.glob("damaged-*")] == [content] * told
    steps = [event.step for event in EventFileLoader(str(file)).Load() if event.summary.value]
    assert steps == ([1] if told else [1, 2])
