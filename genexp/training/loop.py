"""The one training loop: it walks a model's updates, and knows nothing of files, logging or any model by name."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genexp import rng
from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.errors import DivergedError
from genexp.models import Model, evaluating
from genexp.optimizers import ScheduledOptimizer
from genexp.training.average import Average
from genexp.training.captured import MovesAsGraph, MovesOnTape
from genexp.training.minibatches import Minibatches
from genexp.training.moves import Moves
from genexp.training.plan import Plan, PlannedStage
from genexp.training.shared import SharedMoves
from genexp.training.validation import loss_on_validation
from genexp.training.world import World


@dataclass
class Training:
    """Everything in training that has state; a checkpoint holds it, and a resumed run starts from it.

    The model's state is its parameters and its buffers. A model keeps further state, such as the chains of a sampler
    that training goes on with, as buffers.
    """

    model: Model
    plan: Plan
    optimizers: dict[str, ScheduledOptimizer]  # one for each player
    average: Average | None = None  # of the weights
    world: World | None = None  # the processes that train together, if there are several
    step: int = 0  # steps completed
    seconds: float = 0.0  # spent in steps so far, over all sessions
    window: list[Tensor] = field(default_factory=list)  # a row of losses and watched values for each unlogged step
    names: list[str] = field(default_factory=list)  # of the row's columns

    @property
    def stage(self) -> PlannedStage:
        """The stage in which training goes on."""
        return self.plan.stage(self.step)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def state_dict(self) -> dict[str, Any]:
        """Return the state in tensors and plain containers only, as torch's safe load demands."""
        average = {} if self.average is None else {"average": self.average.state_dict()}
        return {
            "model": self.model.state_dict(),
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            **average,
            "step": self.step,
            "seconds": self.seconds,
            "window": self.window,
            "names": self.names,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][player])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.window, self.names = [row.to(self.model.device) for row in state["window"]], list(state["names"])

    def take_leaders_state(self) -> None:
        """Take over the state of the process that leads, if several train together."""
        if self.world is not None:
            self.load_state_dict(self.world.from_leader(self.state_dict()))

    def check_finite(self) -> None:
        """Raise DivergedError if the unlogged losses or the weights are not finite: such a state is not saved."""
        for age, row in enumerate(reversed(self.window)):
            if not row.isfinite().all():
                raise DivergedError(f"training diverged at step {self.step - age} or before it")
        averages = {} if self.average is None else self.average.state_dict()
        averages = {f"the average of {name}": mean for name, mean in averages.items()}
        for name, value in {**self.model.state_dict(), **averages}.items():
            if not value.isfinite().all():
                raise DivergedError(f"training diverged at step {self.step}: {name} is not finite")


@dataclass(frozen=True)
class Tick:
    """One completed step."""

    step: int  # steps completed
    epoch: int  # epochs completed, of all stages
    ends_epoch: bool
    values: dict[str, float] | None  # at a logged step: means since the last one, values of this step, `Model.watch`
    stage: PlannedStage  # that the step belongs to
    ends_stage: bool = False  # True if another stage follows


def train(config: TrainConfig, training: Training, data: DataSet, epochs: int) -> Iterator[Tick]:
    """Train to the end of `epochs` of the last stage; yield a Tick a step.

    Stopping at any Tick and going on later changes nothing: data order is a function of (seed, epoch), every other draw
    of (seed, step). Values are read back from the device at a logged step only. Raises DivergedError, naming the step,
    if a loss or gradient is not finite; UsageError if a model's losses are not those of the players that move.
    """
    plan, seed, device = training.plan, config.seed, training.model.device
    last_step = plan.last_step(epochs)
    training.take_leaders_state()
    moves: Moves | None = None
    step_at_log, seconds_at_log = training.step, training.seconds
    while training.step < last_step:
        started = time.perf_counter()
        stage = training.stage
        if moves is None or moves.stage is not stage:
            moves = _moves_of(stage, config, training, data)
        position = (training.step - stage.first_step) % stage.steps_per_epoch
        ends_epoch = position + 1 == stage.steps_per_epoch
        logged = ends_epoch or (training.step + 1) % config.log.every_steps == 0

        norms: dict[str, Tensor] = {}
        row = moves.make(training.step, norms if logged else None)
        training.names = moves.names
        training.window.append(row)
        training.step += 1
        if training.average is not None:
            training.average.update(training.step - stage.first_step)

        values = None
        if logged:
            values = _read_window(training, norms)
            for player in stage.players:
                settings = training.optimizers[player].settings(*stage.place(training.step - 1))
                values |= {f"{name}/{player}": value for name, value in settings.items()}
        training.seconds += time.perf_counter() - started
        if values is not None:
            n_images = plan.images(training.step) - plan.images(step_at_log)
            values["images_per_second"] = n_images / max(training.seconds - seconds_at_log, 1e-9)
            step_at_log, seconds_at_log = training.step, training.seconds
        if ends_epoch and values is not None and (training.world is None or training.world.leads):
            with evaluating(training.model):
                values |= loss_on_validation(training.model, stage.stage, data, seed, training.step)
                values |= training.model.watch(data, rng.generator(device, seed, "watch", training.step))
        epoch = stage.first_epoch + stage.epoch(training.step)
        yield Tick(training.step, epoch, ends_epoch, values, stage, training.stage is not stage)


def _moves_of(stage: PlannedStage, config: TrainConfig, training: Training, data: DataSet) -> Moves:
    """Return how the steps of a stage are made; begin the stage if none of them is made yet."""
    minibatches = Minibatches(data, stage, training.plan.batch_size, config.seed, training.model)
    if training.step == stage.first_step:
        minibatches.begin()
        training.take_leaders_state()  # what a stage prepares may differ between processes by rounding
    kind: Callable[..., Moves] = _kind_of_moves(config, training.model)
    if training.world is not None:
        kind = partial(SharedMoves, training.world)
    players = {player: training.optimizers[player] for player in stage.players}
    return kind(training.model, players, minibatches, config.seed, config.device.precision)


def _kind_of_moves(config: TrainConfig, model: Model) -> type[Moves]:
    """Return how steps are made. Those with somebody's own component are made as usual, unless its model allows more.

    Its Python may do something else at a later step, which the first replays do not show.
    """
    if not config.device.capture:
        return Moves
    components = [config.model, config.noise, config.optimizer, *config.optimizers.values()]
    ours = all(str(component["_target_"]).startswith("genexp.") for component in components)
    kinds = {"cuda": MovesAsGraph, "cpu": MovesOnTape}
    return kinds.get(model.device.type, Moves) if ours or model.replayed else Moves


def _read_window(training: Training, norms: dict[str, Tensor]) -> dict[str, float]:
    """Return the window's means and the values of `norms`, read back in one transfer, and start a new window."""
    window = torch.stack(training.window)
    flat = torch.cat([window.flatten(), *(norm.flatten() for norm in norms.values())]).cpu().double()
    rows, last = flat[: window.numel()].view(window.shape), flat[window.numel() :]
    bad = ~rows.isfinite().all(1)
    if bad.any() or not last.isfinite().all():
        first = int(bad.int().argmax()) if bad.any() else len(rows) - 1
        step = training.step - len(rows) + first + 1
        named = zip([*training.names, *norms], [*rows[first].tolist(), *last.tolist()], strict=True)
        telling = [(name, value) for name, value in named if name.startswith("loss/") or not math.isfinite(value)]
        shown = ", ".join(f"{name}={value:.4g}" for name, value in telling)
        raise DivergedError(f"training diverged at step {step}: {shown}")
    training.window = []
    means = rows.mean(0).tolist()
    return dict(zip(training.names, means, strict=True)) | dict(zip(norms, last.tolist(), strict=True))
