"""The one training loop: it walks a model's updates, and knows nothing of files, logging or any model by name."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genexp import rng
from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.device import autocast
from genexp.errors import DivergedError, UsageError
from genexp.models import Batch, Model, Outcome, Update, evaluating
from genexp.optimizers import ScheduledOptimizer
from genexp.training.average import Average
from genexp.training.minibatches import Minibatches
from genexp.training.plan import Plan, PlannedStage
from genexp.training.validation import loss_on_validation


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
    minibatches: Minibatches | None = None
    step_at_log, seconds_at_log = training.step, training.seconds
    while training.step < last_step:
        started = time.perf_counter()
        stage = training.stage
        if minibatches is None or minibatches.stage is not stage:
            minibatches = Minibatches(data, stage, plan.batch_size, seed, training.model)
            if training.step == stage.first_step:
                minibatches.begin()
        position = (training.step - stage.first_step) % stage.steps_per_epoch
        ends_epoch = position + 1 == stage.steps_per_epoch
        logged = ends_epoch or (training.step + 1) % config.log.every_steps == 0

        rows = minibatches.rows(training.step)
        rng.reseed(device, seed, "step", training.step)
        row: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        for update, minibatch in stage.moves:
            batch = minibatches.batch(update, rows, minibatch, training.step)
            row |= _move(training, stage, update, batch, config.device.precision, norms if logged else None)
        training.names = list(row)
        training.window.append(torch.stack(list(row.values())))
        training.step += 1
        if training.average is not None:
            training.average.update(training.step - stage.first_step)

        values = None
        if logged:
            values = _read_window(training, norms)
            moved = {player for update, _ in stage.moves for player in update.players}
            for player, optimizer in training.optimizers.items():
                if player in moved:
                    settings = optimizer.settings(
                        training.step - stage.first_step - 1, stage.progress(training.step - 1)
                    )
                    values |= {f"{name}/{player}": value for name, value in settings.items()}
        training.seconds += time.perf_counter() - started
        if values is not None:
            n_images = plan.images(training.step) - plan.images(step_at_log)
            values["images_per_second"] = n_images / max(training.seconds - seconds_at_log, 1e-9)
            step_at_log, seconds_at_log = training.step, training.seconds
        if ends_epoch and values is not None:
            with evaluating(training.model):
                values |= loss_on_validation(training.model, stage.stage, data, seed, training.step)
                values |= training.model.watch(data, rng.generator(device, seed, "watch", training.step))
        epoch = stage.first_epoch + stage.epoch(training.step)
        yield Tick(training.step, epoch, ends_epoch, values, stage, training.stage is not stage)


def _move(
    training: Training,
    stage: PlannedStage,
    update: Update,
    batch: Batch,
    precision: str,
    norms: dict[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Make one update, and return its losses and watched values. All gradients are taken before any player moves."""
    with autocast(training.model.device, precision):
        outcome: Outcome = update.asking(batch)
    if not isinstance(outcome, tuple) or len(outcome) != len(Outcome._fields):
        given = f"its update of {', '.join(update.players)} gives a {type(outcome).__name__}"
        raise UsageError(f"{type(training.model).__name__}: {given}; return an Outcome(losses, watched)")
    losses, watched = outcome
    if losses.keys() != set(update.players) or any(loss.ndim for loss in losses.values()):
        shapes = [f"{name} {tuple(loss.shape)}" if loss.ndim else name for name, loss in losses.items()]
        given = f"its update of {', '.join(update.players)} gives losses of {', '.join(shapes) or 'nobody'}"
        remedy = "give one number for each player that moves, under its name"
        raise UsageError(f"{type(training.model).__name__}: {given}; {remedy}")
    for player, gradient in _gradients(training, update, losses).items():
        if norms is not None:
            norms[f"grad_norm/{player}"] = torch.nn.utils.get_total_norm(gradient)
        step = training.step - stage.first_step
        training.optimizers[player].step(gradient, step, stage.progress(training.step))
    return {f"loss/{player}": losses[player].detach() for player in update.players} | watched


def _gradients(training: Training, update: Update, losses: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
    """Return the gradient of each player's loss for its own parameters.

    A generator's loss thus leaves the discriminator's weight gradients uncomputed. Players that share a loss get their
    gradients from one backward pass.
    """
    groups: dict[int, list[str]] = {}
    for player in update.players:
        groups.setdefault(id(losses[player]), []).append(player)
    gradients: dict[str, tuple[Tensor, ...]] = {}
    for index, players in enumerate(groups.values(), 1):
        parameters = [parameter for player in players for parameter in training.optimizers[player].parameters]
        flat = iter(torch.autograd.grad(losses[players[0]], parameters, retain_graph=index < len(groups)))
        for player in players:
            gradients[player] = tuple(next(flat) for _ in training.optimizers[player].parameters)
    return gradients


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
