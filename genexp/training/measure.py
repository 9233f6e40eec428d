"""Estimates of how long a training will take, from a few of its steps. Nothing of what is trained here is kept."""

import math
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import torch

from genexp import rng
from genexp.config.components import Component
from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.device import select
from genexp.errors import DivergedError
from genexp.figures import pictures
from genexp.rundirs.pace import StagePace
from genexp.storage.checkpoint import save
from genexp.training import build
from genexp.training.loop import Training, train
from genexp.training.plan import PlannedStage

SECONDS = 1.0  # of steps in each stage
COMPARED = 0.2  # seconds of steps in each precision
REPEATS = 3  # of what is done at the end of an epoch
WARM = 3  # steps that are not counted: buffers are allocated in them, and codes of frozen layers computed


def measure(config: TrainConfig, further: dict[str, Component]) -> list[StagePace]:
    """Return the stages of the training that the configuration describes, each with the measured seconds of a step.

    Raises what training would raise before its first step: UsageError for a wrong setting, also of the `further`
    metrics that are taken after training; DataError for a missing data set.
    """
    data = build.data_set(config.dataset, config.data_dir, config.dataset_b)
    device = select(config.device.kind, config.device.threads)
    data = data.to(device)
    training = build.training(config, data, device)
    for metrics in (config.metrics, further):
        build.check_metrics(metrics, training.model, data)
    paces = []
    for stage in training.plan.stages:
        epochs = stage.stage.epochs or config.epochs
        seconds = _step(config, training, data, stage) + _end_of_epoch(config, training, data) / stage.steps_per_epoch
        paces.append(StagePace(stage.name, epochs, epochs * stage.steps_per_epoch, seconds))
    return paces


def bfloat16_against_float32(config: TrainConfig, data: DataSet, device: torch.device) -> float:
    """Return how many times as long as in float32 a step takes in bfloat16; NaN if the training has too few steps.

    These are the shortest of some first steps, since other work on the machine makes steps longer and never shorter.
    """
    shortest = []
    for precision in ("bfloat16", "float32"):
        changed = config.device.model_copy(update={"precision": precision, "capture": False})
        training, times = build.training(config, data, device), list[float]()
        steps = train(config.model_copy(update={"device": changed}), training, data, config.epochs)
        started = time.perf_counter()
        with suppress(DivergedError):  # the training itself says so
            for _ in steps:
                if training.window:  # wait for the device
                    training.window[-1].sum().item()
                times.append(time.perf_counter() - started)
                if len(times) > WARM + 1 and times[-1] - times[WARM] > COMPARED:
                    break
        lengths = [later - earlier for earlier, later in pairwise(times[WARM:])]
        shortest.append(min(lengths, default=math.nan))
    return shortest[0] / shortest[1]


def _step(config: TrainConfig, training: Training, data: DataSet, stage: PlannedStage) -> float:
    """Return the mean seconds of a step of the stage; NaN if it diverges at once."""
    training.step, training.window = stage.first_step, []
    times = [time.perf_counter()]
    with suppress(DivergedError):
        for tick in train(config, training, data, config.epochs):
            times.append(time.perf_counter())
            if tick.ends_stage or (len(times) > WARM + 1 and times[-1] - times[WARM] > SECONDS):
                break
        if training.window:  # wait for the device
            training.window[-1].sum().item()
            times[-1] = time.perf_counter()
    counted = times[min(WARM, max(0, len(times) - 2)) :]
    return (counted[-1] - counted[0]) / (len(counted) - 1) if len(counted) > 1 else math.nan


def _end_of_epoch(config: TrainConfig, training: Training, data: DataSet) -> float:
    """Return the seconds of a checkpoint, and of an epoch's share of the pictures.

    The least of several times counts, as far as SECONDS allow: the first one may load libraries and start the device,
    and a short training would seem to do so at each of its epochs.
    """
    times: list[float] = []
    begun = time.perf_counter()
    while not times or (len(times) < REPEATS and time.perf_counter() - begun < SECONDS):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), training.step, training.state_dict())
        saved = time.perf_counter()
        generator = rng.generator(training.model.device, config.seed, "picture")
        with training.averaged():
            for _ in pictures.of_model(training.model, data, generator):
                pass
        times.append(saved - started + (time.perf_counter() - saved) / config.log.samples_every_epochs)
    return min(times)
