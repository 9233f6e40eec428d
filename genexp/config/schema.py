"""The typed schema of each command's configuration: names, types and ranges. It does not import torch.

Each class has a field for each top-level key. `config.components` reads what a component takes from its own source;
`config.check` checks a composed configuration.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from genexp import ranges
from genexp.config import components
from genexp.config.components import Component, defining

# Inside the package when installed from a wheel, beside it in a checkout.
CONFIGS = next(folder for up in (1, 2) if (folder := Path(__file__).parents[up] / "configs").is_dir())

Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
# run_dir=2026 is a folder, though Hydra reads a number
Packages = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Place = Annotated[Text, Field(min_length=1)]  # a path; an empty one would be the current folder
Threads = Annotated[ranges.Int, Field(ge=1, le=4096)]  # torch aborts the process if it cannot start that many


class Schema(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Device(Schema):
    """The device of a run, and the arithmetic of its matrix products."""

    kind: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["float32", "bfloat16"]
    threads: Threads | None
    capture: bool = True  # record a step once and replay it


class Log(Schema):
    every_steps: ranges.PositiveInt
    samples_every_epochs: ranges.PositiveInt
    scores_every_epochs: ranges.PositiveInt | None
    projector: bool


class Checkpoint(Schema):
    """When a run is saved within an epoch, beside at its end, and by which score its best checkpoint is chosen."""

    every_minutes: ranges.PositiveFloat | None
    keep_best: Text | None = None


class Start(Schema):
    """The weights that a run starts from: those of another run after so many steps, or of an export of one."""

    run: str  # its directory
    step: int | None  # None for an export, which holds one state
    digest: str  # of what those weights follow from; it is part of the identity, and the place is not


class Sweep(Schema):
    jobs: ranges.PositiveInt
    retries: ranges.Count
    fail_fast: bool
    rank_by: Text | None = None


class Search(Schema):
    name: Literal["optuna"]
    trials: ranges.PositiveInt
    metric: Text
    sampler: Literal["tpe", "random"]
    seed: ranges.Seed
    prune: bool
    startup_trials: ranges.Count
    warmup_epochs: ranges.Count
    ranges: dict[str, Any]  # checked by `sweeps.ranges`


AVERAGES = ("ema", "ema_power")  # settings of an average of the weights, which takes no part in training


class TrainConfig(Schema):
    name: Text = Field(pattern=r"^[\w.+-]+$", max_length=100)
    seed: ranges.Seed
    epochs: ranges.PositiveInt
    batch_size: ranges.PositiveInt
    model: Component
    dataset: Component
    dataset_b: Component | None = None  # of models that are trained on two
    optimizer: Component
    optimizers: dict[str, Component]  # of single players, instead of `optimizer`
    noise: Component
    device: Device
    metrics: dict[str, Component] = {}
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    ema_power: ranges.NonNegativeFloat | None = None
    weights: bool = False  # True to start from the weights of the run of from=
    start: Start | None = None  # filled in by from=
    log: Log
    # The next three are missing in runs that were kept before there were these settings.
    checkpoint: Checkpoint = Checkpoint(every_minutes=1.0)
    sweep: Sweep = Sweep(jobs=1, retries=0, fail_fast=False, rank_by=None)
    search: Search | None = None
    data_dir: Place
    outputs_dir: Place
    run_dir: Place | None
    fresh: bool
    report: bool = True

    def identity(self, as_typed: bool = False) -> dict[str, Any]:
        """Return what makes the experiment. Epochs, device, places and logging are not part of it.

        The precision is, because bfloat16 products change the scores that a run reaches. `as_typed` is as it was
        before paths were normalised, see `components.defining`.
        """
        identity: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size}
        identity |= {group: defining(component, as_typed) for group, component in components.groups(self).items()}
        if self.optimizers:
            identity["optimizers"] = {player: defining(component) for player, component in self.optimizers.items()}
        if self.start is not None:
            identity["start"] = self.start.digest
        identity |= {name: value for name in AVERAGES if (value := getattr(self, name)) is not None}
        return identity | {"precision": self.device.precision}

    @property
    def average(self) -> str | None:
        """The average of the weights in words; None if there is none."""
        if self.ema is not None:
            return f"averaged, decay {self.ema:g}"
        return None if self.ema_power is None else f"averaged, power {self.ema_power:g}"

    def again(self) -> str:
        """Return how to go on with what a command of this configuration began."""
        return "the same command without fresh=true" if self.fresh else "the same command"

    def directory(self) -> Path:
        """Return the run's directory: the given one, else one that follows from the identity and not from the clock.

        A directory of an earlier version, which follows from the settings as they are typed, is taken if it exists.
        """
        if self.run_dir is not None:
            return Path(self.run_dir).expanduser()
        earlier, here = (self._directory(self.identity(as_typed)) for as_typed in (True, False))
        return earlier if os.path.exists(earlier) else here  # noqa: PTH110 (no error where the name is too long)

    def begins(self) -> bool:
        """Return True if a run of this configuration is a new one, and False if its directory holds it already."""
        return self.fresh or not os.path.exists(self.directory() / "config.yaml")  # noqa: PTH110 (as in `directory`)

    def _directory(self, identity: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        noise = [] if self.noise["name"] == "none" else [self.noise["name"]]
        folder = "-".join([self.name, self.optimizer["name"], *noise, f"seed{self.seed}", digest])
        return Path(self.outputs_dir).expanduser() / str(self.dataset["name"]) / folder


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"model.latent_dim": 100, ...} of a nested dictionary."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
