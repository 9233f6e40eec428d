"""TensorBoard's log: what it shows, and that no failure of it costs a run."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, config_of, read_metrics
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from genexp.models import evaluating
from genexp.rundirs.directory import Run
from genexp.training import build
from genexp.training.loop import train
from genexp.training.tensorboard import SPRITE, EventLog, sprite
from genexp.training.validation import loss_on_validation

VAE = ["model=vae", "dataset=digits", "model.hidden=[32]", "model.latent_dim=5", "metrics.iwae.n_samples=5"]
VAE += ["metrics.parzen.n_samples=200", "log.every_steps=4"]


def shown(folder):
    return EventAccumulator(str(folder)).Reload()


def test_event_files_lie_in_the_run_with_tags_in_groups(genexp):
    run = genexp("train", *VAE, "epochs=2").run
    assert list(run.glob("events.out.tfevents.*"))
    assert not (run / "tensorboard").exists()
    tags = shown(run).Tags()
    assert all("/" in tag for tag in tags["scalars"])
    assert {"vae/kl", "vae/active_dims", "loss/autoencoder", "loss/valid", "speed/images_per_second"} <= set(
        tags["scalars"]
    )
    assert sorted(tags["images"]) == [
        "samples",
        "valid/reconstructions",
        "weights/encoder",
    ]  # as TensorBoard sorts them
    assert {"kl", "active_dims"} <= set(read_metrics(run)[0])  # where the names stay


def test_losses_and_scores_are_shown_over_epochs_too(genexp):
    curves = shown(genexp("train", *VAE, "epochs=3", "log.scores_every_epochs=1").run)
    for tag in ("loss/autoencoder", "loss/valid", "score/elbo"):
        over_steps, over_epochs = curves.Scalars(tag), curves.Scalars(f"epochs/{tag}")
        assert [point.step for point in over_epochs] == [1, 2, 3]
        ends = {point.step: point.value for point in over_steps}
        assert [point.value for point in over_epochs] == [ends[step] for step in (11, 22, 33)]


@pytest.mark.slow
def test_a_run_that_was_begun_with_its_event_files_elsewhere_goes_on_there(genexp, a_second_passes):
    run = genexp("train", *VAE, "epochs=1").run
    old = run / "tensorboard"
    old.mkdir()
    for file in run.glob("events.out.tfevents.*"):
        file.rename(old / file.name)
    a_second_passes()
    assert genexp("train", *VAE, "epochs=2").run == run
    assert not list(run.glob("events.out.tfevents.*"))
    scalars = shown(old)
    assert [point.step for point in scalars.Scalars("loss/autoencoder")] == [4, 8, 11, 12, 16, 20, 22]
    assert {"kl", "active_dims", "images_per_second"} <= set(scalars.Tags()["scalars"])


def hyperparameters(run):
    content = shown(run).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    return HParamsPluginData.FromString(content).session_start_info.hparams


@pytest.mark.slow
def test_the_table_of_hyperparameters_has_the_columns_of_all_runs_and_the_model_first(genexp):
    vae, gan = genexp("train", *VAE, "epochs=1").run, genexp("train", *SMALL, "epochs=1").run
    for run in (vae, gan):
        assert metadata.EXPERIMENT_TAG not in shown(run).summary_metadata  # it would hide the columns of other runs
        assert metadata.SESSION_END_INFO_TAG in shown(run).summary_metadata
    names = sorted({*hyperparameters(vae), *hyperparameters(gan)})  # TensorBoard sorts them
    assert names[0].strip() == "model.name"
    assert not any("_target_" in name for name in names)
    assert {"model.beta", "model.generator_hidden"} <= set(names)
    assert hyperparameters(vae)[names[0]].string_value == "vae"


@pytest.mark.parametrize(("n", "size"), [(5, (1, 8, 8)), (2500, (1, 176, 176)), (10, (3, 20, 4000))])
@pytest.mark.slow
def test_the_projector_s_sprite_is_no_larger_than_a_browser_shows(n, size):
    images = torch.rand(n, 1, 1, 1).expand(-1, *size)
    picture, (height, width) = sprite(images)
    assert max(picture.shape) <= SPRITE
    columns = picture.shape[1] // width
    for index in (0, n // 2, n - 1):
        top, left = index // columns * height, index % columns * width
        tile = picture[top : top + height, left : left + width]
        assert abs(tile - 255 * images[index, 0, 0, 0].item()).max() <= 1


def test_the_projector_s_files_name_each_other(genexp):
    run = genexp("train", *VAE, "epochs=1", "log.projector=true").run
    described = (run / "projector_config.pbtxt").read_text()
    named = [word.strip('"') for word in described.split() if word.startswith('"projector/')]
    assert len(named) == 3
    assert all((run / name).is_file() for name in named)
    assert np.loadtxt(run / "projector/tensors.tsv").shape == (300, 5)
    assert Image.open(run / "projector/sprite.png").size == (18 * 8, 18 * 8)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "place",
    [
        *(f"torch.utils.tensorboard.SummaryWriter.{name}" for name in ("add_scalar", "add_image", "flush", "close")),
        "genexp.training.tensorboard.SummaryWriter",
        "genexp.training.tensorboard.hparams",
        "genexp.training.tensorboard.sprite",
        "tensorboard.summary.writer.record_writer.RecordWriter.write",
    ],
)
def test_a_log_that_fails_is_a_warning_and_the_run_goes_on(genexp, monkeypatch, place):
    monkeypatch.setattr(place, full)
    answer = genexp("train", *VAE, "epochs=1", "log.projector=true")
    assert answer.code == 0, answer.err
    assert answer.out.count("warning: TensorBoard's log fails") == 1
    assert "No space left on device" in answer.out
    assert "Traceback" not in answer.out + answer.err
    assert json.loads((answer.run / "status.json").read_text())["status"] == "finished"
    assert "elbo" in json.loads((answer.run / "results.json").read_text())["scores"]
    assert len(read_metrics(answer.run)) == 3


def test_scores_are_recorded_before_anything_optional(genexp, monkeypatch):
    recorded = []

    def look(self, *_):
        recorded.extend(json.loads((self.folder / "results.json").read_text())["scores"])

    monkeypatch.setattr(EventLog, "hparams", look)
    genexp("train", *VAE, "epochs=1", "log.scores_every_epochs=1")
    assert "elbo" in recorded


def test_names_that_are_no_valid_unicode(genexp, tmp_path):
    photos = Path(os.fsdecode(os.fsencode(tmp_path) + b"/ph\xf6tos"))
    photos.mkdir()
    for index in range(60):
        pixels = np.random.default_rng(index).integers(256, size=(8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{index}.png")
    folder = ["dataset=folder", f"dataset.path='{photos}'", "dataset.size=8", "dataset.channels=1", "batch_size=4"]
    sizes = ["model=vae", "model.hidden=[8]", "metrics.parzen.n_samples=50", "metrics.iwae.n_samples=2", "epochs=1"]
    answer = genexp("train", *folder, *sizes)
    assert answer.code == 0, answer.err
    assert "warning: TensorBoard" not in answer.out
    assert "elbo" in json.loads((answer.run / "results.json").read_text())["scores"]


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
@pytest.mark.slow
def test_the_outputs_may_lie_where_the_name_is_no_valid_unicode(tmp_path, sweep):
    outputs = os.fsdecode(b"\xf6utputs")
    command = [sys.executable, "-m", "genexp", "train", *VAE, "epochs=1", f"outputs_dir='{outputs}'", *sweep]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most locales
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    assert b"Traceback" not in answer.stderr
    statuses = [json.loads(file.read_text())["status"] for file in (tmp_path / outputs).rglob("status.json")]
    assert statuses == ["finished"] * (2 if sweep else 1)


@pytest.mark.parametrize("model", ["vae", "dae", "cae", "gsn"])
@pytest.mark.slow
def test_the_validation_loss_costs_little_and_is_that_of_validation_images(model):
    config = config_of(f"model={model}", "dataset=digits", "epochs=20", "log.every_steps=100000")
    data = build.data_set(config.dataset, config.data_dir)
    training = build.training(config, data, torch.device("cpu"))
    stage = training.plan.last
    steps, shares = train(config, training, data, 20), []
    for _ in range(8):
        times = [time.process_time()]
        for _ in range(stage.steps_per_epoch - 1):
            next(steps)
        times.append(time.process_time())
        tick = next(steps)
        with evaluating(training.model):
            times.append(time.process_time())
            again = loss_on_validation(training.model, stage.stage, data, config.seed, tick.step)
            times.append(time.process_time())
        assert again["loss/valid"] == tick.values["loss/valid"]
        shares.append((times[3] - times[2]) / (times[1] - times[0]))
        if len(shares) >= 3 and min(shares) < 0.05:
            break
    assert np.isfinite(again["loss/valid"])
    assert min(shares) < 0.05, shares


def test_old_and_new_places_of_event_files(tmp_path):
    run = Run(tmp_path)
    assert run.tensorboard == tmp_path
    (tmp_path / "tensorboard").mkdir()
    assert run.tensorboard == tmp_path
    (tmp_path / "tensorboard" / "events.out.tfevents.1").touch()
    assert run.tensorboard == tmp_path / "tensorboard"
