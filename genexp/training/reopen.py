"""Opening a run, or an export of one: its model as a checkpoint has it, with the data that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genexp.config.commands import ReopenedConfig, RerunConfig
from genexp.config.components import Component, check_component, data_sets, movable, settings_of
from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.device import select
from genexp.errors import UsageError
from genexp.models import Model
from genexp.rundirs.directory import Run
from genexp.rundirs.results import RAW
from genexp.score import in_brief
from genexp.storage import weights
from genexp.storage.checkpoint import fitting, load, load_latest
from genexp.text import nearest
from genexp.training import build
from genexp.training.plan import Plan

LISTED = 20  # classes that a message names
ELSEWHERE = "set data_dir (or dataset.path) to where they are"


@dataclass(frozen=True)
class Trained:
    """A run's model at one of its checkpoints, with its data."""

    run: Run
    config: TrainConfig  # as it was trained
    model: Model
    data: DataSet
    step: int
    epoch: float  # of the last stage; whole at the end of an epoch
    stage: str  # the name of the stage, if there are several
    seconds: float  # of training so far
    sampling: dict[str, Any]  # settings of the sampler that are not the run's own, and `weights` if they are raw

    def changes(self) -> list[str]:
        """Return the settings of the sampler that are not the run's own, as parts of a file's name: burn_in9."""
        return [f"{key.rpartition('.')[2]}{value}" for key, value in self.sampling.items()]

    def caption(self, shown: str) -> str:
        """Return what a picture shows: of which model, and how that scored, as far as the run keeps it."""
        seed, metrics = self.config.seed, self.config.metrics
        taken = {name: self.run.score(metrics[name], self.sampling, seed, self.step) for name in metrics}
        return f"{self}: {shown}{in_brief(taken)}"

    def __str__(self) -> str:
        changed = "".join(f", {key}={value}" for key, value in self.sampling.items())
        stage = f"{self.stage}, " if self.stage else ""
        at = f"{stage}epoch {self.epoch:.4g} (step {self.step:,})"
        return f"{self.config.name} on {self.config.dataset['name']}, {at}{changed}"


def reopen(run: Run, config: ReopenedConfig) -> Trained:
    """Load the run's checkpoint that the configuration names.

    Raises UsageError if the run has no such checkpoint, images or settings; GenexpError if no checkpoint can be read.
    """
    if config.device.precision != "float32":
        raise UsageError("device.precision is for training: samples and scores are always computed in float32")
    device = select(config.device.kind, config.device.threads)
    refuse_other_data(config, run)  # before their images are compared
    file, state = _state(run, config.checkpoint)
    data = build.data_set(config.dataset, config.data_dir, config.dataset_b)
    run.refuse_other_images(data.digest(), data_sets(config), ELSEWHERE)
    data = data.to(device)
    model = build.model(config.model, config.noise, data.spec(), run.config.seed, device)
    sampling = _changed_settings(config, run, model)
    if config.weights == "raw":
        sampling |= _raw(run)
    with fitting(file):
        averages = {} if config.weights == "raw" else state.get("average", {})
        model.load_state_dict(state["model"] | averages)
        step, seconds = int(state["step"]), float(state["seconds"])
    plan = Plan.of(model, run.config.batch_size, data.images_per_epoch)
    stage = plan.stage(max(step - 1, 0)).name
    return Trained(run, run.config, model, data, step, plan.epochs(step), stage, seconds, sampling)


def label_of(label: str | None, trained: Trained) -> int | None:
    """Return the number of the class that `label` names, by its name or its number; None without a label.

    Raises UsageError if there is no such class, or the model is not conditional.
    """
    if label is None:
        return None
    names = trained.data.class_names()
    if not trained.model.conditional:
        remedy = "leave it out, or train with labels, as by model=vae model.conditional=true"
        raise UsageError(f"label={label}: {trained.run.path} is not trained with labels; {remedy}")
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    shown = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    raise UsageError(f"label={label} is no class of {trained.config.dataset['name']}{nearest(label, names)}: {shown}")


def _raw(run: Run) -> dict[str, Any]:
    """Return what distinguishes raw weights. Raises UsageError for a run that has no averaged ones beside them."""
    if run.config.average is None:
        raise UsageError(f"weights=raw: {run.path} has no averaged weights beside them; leave it out")
    if run.is_export:
        raise UsageError(f"weights=raw: {run.path} is an export, which holds the averaged weights alone; take the run")
    return dict(RAW)


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


def refuse_other_data(config: ReopenedConfig | RerunConfig, run: Run) -> None:
    """Raise UsageError for a setting of a data set that is not the run's; its files may have moved."""
    _changes(config, run, {key: movable(getattr(config, key) or {}) for key in ("dataset", "dataset_b")})


def _changed_settings(config: ReopenedConfig, run: Run, model: Model) -> dict[str, Any]:
    """Return the settings that are not the run's own. Raises UsageError unless they concern sampling only."""
    of_noise = list(settings_of(run.config.noise))  # a chain corrupts, too
    return _changes(config, run, {"model": list(model.sampler_settings), "noise": of_noise})


def _changes(config: ReopenedConfig | RerunConfig, run: Run, allowed: dict[str, list[str]]) -> dict[str, Any]:
    """Return the changed settings of these components; `allowed` names those of each that may be changed.

    Raises UsageError for any other.
    """
    changed = {}
    for group, names in allowed.items():
        ours: Component = getattr(config, group) or {}
        kept: Component | None = getattr(run.config, group)
        theirs = {} if kept is None else check_component(group, kept)  # with settings that came later
        for name in {**theirs, **ours}:
            setting, value, trained = f"{group}.{name}", ours.get(name), theirs.get(name)
            if value != trained and name not in names:
                may = f"; of a {group} that is trained, {', '.join(names)} may be set" if names else ""
                raise UsageError(f"{setting}={value}: {run.path} was trained with {trained}{may}")
            if value != trained:
                changed[setting] = value
    return changed
