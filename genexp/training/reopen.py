"""A run, or an export of one, opened again: its model as a checkpoint has it, with the data that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genexp.config.schema import Component, ReopenedConfig, TrainConfig, settings_of
from genexp.data import DataSet
from genexp.device import select
from genexp.errors import UsageError
from genexp.models import Model
from genexp.runs import directory as run
from genexp.storage import weights
from genexp.storage.checkpoint import BEST, fitting, load, load_latest
from genexp.storage.files import Identity, identity, read_json
from genexp.training import build
from genexp.training.loop import steps_per_epoch

MOVABLE = "path"  # of a data set: where its files are now; the digest says whether they are the same


@dataclass(frozen=True)
class Trained:
    """What a run has come to at one of its checkpoints."""

    path: Path
    config: TrainConfig  # as it was trained
    model: Model
    data: DataSet
    step: int
    epoch: float  # whole at the end of an epoch
    seconds: float  # of training so far
    sampling: dict[str, Any]  # settings of the sampler that are not those of the run
    place: Identity  # of the directory: another run may come to have its name

    def changes(self) -> list[str]:
        """The settings of the sampler that are not those of the run, for the name of a file: burn_in9."""
        return [f"{key.partition('.')[2]}{value}" for key, value in self.sampling.items()]

    def __str__(self) -> str:
        changed = "".join(f", {key}={value}" for key, value in self.sampling.items())
        at = f"epoch {self.epoch:.4g} (step {self.step:,})"
        return f"{self.config.name} on {self.config.dataset['name']}, {at}{changed}"


def reopen(config: ReopenedConfig) -> Trained:
    """Load what the configuration names.

    Raises UsageError when it is no run, has no such checkpoint, was trained on other images, or was asked to be another
    model; GenexpError when no checkpoint can be read.
    """
    path = Path(config.run).expanduser()
    place = identity(path) if path.is_dir() else (0, 0)
    kept = run.read_config(path)
    if config.device.precision != "float32":
        raise UsageError("device.precision is for training: samples and scores are always computed in float32")
    device = select(config.device.kind, config.device.threads)
    file, state = _state(path, config.checkpoint)
    data = build.data_set(config.dataset, config.data_dir)
    refuse_other_images(path, config.dataset, data)
    data = data.to(device)
    model = build.model(config.model, config.noise, data.spec(), kept.seed, device)
    changed = _changed(config, kept, model)
    with fitting(file):
        model.load_state_dict(state["model"])
        step, seconds = int(state["step"]), float(state["seconds"])
    epoch = step / steps_per_epoch(model, len(data.train), kept.batch_size)
    return Trained(path, kept, model, data, step, epoch, seconds, changed, place)


def refuse_other_images(path: Path, component: Component, data: DataSet) -> None:
    """Raise UsageError when these are not the images that the run at `path` was trained on."""
    trained_on = read_json(path / "data.json").get("digest")
    if trained_on is not None and trained_on != data.digest():
        raise UsageError(
            f"dataset={component['name']}: these are not the images that {path} was trained on\n"
            "Put those back, or set data_dir (or dataset.path) to where they are"
        )


def _state(path: Path, checkpoint: str) -> tuple[Path, dict[str, Any]]:
    """The file of a checkpoint, and the state in it."""
    if run.is_export(path):
        if checkpoint == "best":
            raise UsageError(f"{path} is an export, which holds one checkpoint; leave checkpoint= out")
        tensors, about = weights.read(path / run.WEIGHTS)
        return path / run.WEIGHTS, {**about, "model": tensors}
    folder = path / "checkpoints"
    if checkpoint == "best":
        if not (folder / BEST).exists():
            raise UsageError(
                f"{path} keeps no best checkpoint: it is chosen by validation score among the epochs that were scored "
                "on the way\nTrain with log.scores_every_epochs=N, or take checkpoint=last"
            )
        return folder / BEST, load(folder / BEST)
    latest = load_latest(folder, lambda message: print(f"warning: {message}", flush=True))
    if latest is None:
        status = read_json(path / "status.json")
        failed = status.get("status") == "failed"
        why = f": it failed before its first ({status.get('error')})" if failed else " yet: the first is soon written"
        raise UsageError(f"{path} has no checkpoint{why}")
    return latest


def _changed(config: ReopenedConfig, kept: TrainConfig, model: Model) -> dict[str, Any]:
    """The settings that are not the run's own. Raises UsageError unless they concern sampling only."""
    allowed = {
        "model": list(model.sampler_settings),
        "dataset": [MOVABLE],
        "noise": list(settings_of(kept.noise)),  # a chain corrupts, too
    }
    changed = {}
    for group, names in allowed.items():
        ours: Component = getattr(config, group)
        theirs: Component = getattr(kept, group)
        for name in {**theirs, **ours}:
            if ours.get(name) == theirs.get(name):
                continue
            if name not in names:
                may = f"; of a {group} that is trained, {', '.join(names)} may be set" if names else ""
                raise UsageError(
                    f"{group}.{name}={ours.get(name)}: {config.run} was trained with {theirs.get(name)}{may}"
                )
            if name != MOVABLE:
                changed[f"{group}.{name}"] = ours.get(name)
    return changed
