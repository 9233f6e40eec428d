"""Opening a run, or an export of one: its model as a checkpoint has it, with the data that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genexp.config.components import Component, check_component, settings_of
from genexp.config.schema import ReopenedConfig, TrainConfig
from genexp.data import DataSet
from genexp.device import select
from genexp.errors import UsageError
from genexp.models import Model
from genexp.runs.directory import Run
from genexp.storage import weights
from genexp.storage.checkpoint import fitting, load, load_latest
from genexp.training import build
from genexp.training.loop import Plan

MOVABLE = "path"  # of a data set: its files may have moved; the digest says whether they are the same
ELSEWHERE = "set data_dir (or dataset.path) to where they are"


@dataclass(frozen=True)
class Trained:
    """A run's model at one of its checkpoints, with its data."""

    run: Run
    config: TrainConfig  # as it was trained
    model: Model
    data: DataSet
    step: int
    epoch: float  # whole at the end of an epoch
    seconds: float  # of training so far
    sampling: dict[str, Any]  # settings of the sampler that are not the run's own

    def changes(self) -> list[str]:
        """Return the settings of the sampler that are not the run's own, as parts of a file's name: burn_in9."""
        return [f"{key.partition('.')[2]}{value}" for key, value in self.sampling.items()]

    def __str__(self) -> str:
        changed = "".join(f", {key}={value}" for key, value in self.sampling.items())
        at = f"epoch {self.epoch:.4g} (step {self.step:,})"
        return f"{self.config.name} on {self.config.dataset['name']}, {at}{changed}"


def reopen(run: Run, config: ReopenedConfig) -> Trained:
    """Load the run's checkpoint that the configuration names.

    Raises UsageError if the run has no such checkpoint, images or settings; GenexpError if no checkpoint can be read.
    """
    if config.device.precision != "float32":
        raise UsageError("device.precision is for training: samples and scores are always computed in float32")
    device = select(config.device.kind, config.device.threads)
    file, state = _state(run, config.checkpoint)
    data = build.data_set(config.dataset, config.data_dir)
    run.refuse_other_images(data.digest(), config.dataset["name"], ELSEWHERE)
    data = data.to(device)
    model = build.model(config.model, config.noise, data.spec(), run.config.seed, device)
    sampling = _changed_settings(config, run, model)
    with fitting(file):
        model.load_state_dict(state["model"])
        step, seconds = int(state["step"]), float(state["seconds"])
    epoch = step / Plan.of(model, run.config.batch_size, len(data.train)).steps_per_epoch
    return Trained(run, run.config, model, data, step, epoch, seconds, sampling)


def _state(run: Run, checkpoint: str) -> tuple[Path, dict[str, Any]]:
    """Return the file of a checkpoint, and the state in it."""
    if run.is_export:
        if checkpoint == "best":
            raise UsageError(f"{run.path} is an export, which holds one checkpoint; leave checkpoint= out")
        tensors, about = weights.read(run.weights_file)
        return run.weights_file, {**about, "model": tensors}
    if checkpoint == "best":
        if not run.best_file.exists():
            raise UsageError(
                f"{run.path} keeps no best checkpoint: no epoch on the way was scored on validation images\n"
                "Train with log.scores_every_epochs=N, or take checkpoint=last"
            )
        return run.best_file, load(run.best_file)
    latest = load_latest(run.checkpoints, lambda message: print(f"warning: {message}", flush=True))
    if latest is None:
        status = run.status()
        failed = status.get("status") == "failed"
        why = f": it failed before its first ({status.get('error')})" if failed else " yet: the first is soon written"
        raise UsageError(f"{run.path} has no checkpoint{why}")
    return latest


def _changed_settings(config: ReopenedConfig, run: Run, model: Model) -> dict[str, Any]:
    """Return the settings that are not the run's own. Raises UsageError unless they concern sampling only."""
    allowed = {
        "model": list(model.sampler_settings),
        "dataset": [MOVABLE],
        "noise": list(settings_of(run.config.noise)),  # a chain corrupts, too
    }
    changed = {}
    for group, names in allowed.items():
        ours: Component = getattr(config, group)
        theirs = check_component(group, getattr(run.config, group))  # with settings that came later
        for name in {**theirs, **ours}:
            setting, value, trained = f"{group}.{name}", ours.get(name), theirs.get(name)
            if value != trained and name not in names:
                may = f"; of a {group} that is trained, {', '.join(names)} may be set" if names else ""
                raise UsageError(f"{setting}={value}: {run.path} was trained with {trained}{may}")
            if value != trained and name != MOVABLE:
                changed[setting] = value
    return changed
