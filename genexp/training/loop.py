"""The one training loop: it walks a model's updates, and knows nothing of files, logging or any model by name."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genexp import rng
from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.device import autocast
from genexp.errors import DivergedError, UsageError
from genexp.models import Model, Update
from genexp.optimizers import ScheduledOptimizer


@dataclass(frozen=True)
class Plan:
    """The moves of one step, and the number of steps in an epoch."""

    moves: list[tuple[Update, int]]  # each update, repeats written out, and which minibatch of the step it is given
    batch_size: int
    n_images: int

    @classmethod
    def of(cls, model: Model, batch_size: int, n_images: int) -> "Plan":
        """Plan a step of the model on minibatches of `batch_size` of `n_images` training images.

        A player moves on minibatches that it has not seen, so a step takes as many as the busiest player moves.
        """
        times_moved: Counter[str] = Counter()
        moves = []
        for update in model.updates():
            for _ in range(update.repeats):
                moves.append((update, max(times_moved[player] for player in update.players)))
                times_moved.update(update.players)
        return cls(moves, batch_size, n_images)

    @property
    def images_per_step(self) -> int:
        """The training images that one step takes."""
        return self.batch_size * (1 + max(minibatch for _, minibatch in self.moves))

    @property
    def steps_per_epoch(self) -> int:
        """An epoch is one pass over the images; the last few, too few for a step, are left out."""
        return self.n_images // self.images_per_step


@dataclass
class Training:
    """Everything in training that has state; a checkpoint holds it, and a resumed run starts from it."""

    model: Model
    plan: Plan
    optimizers: dict[str, ScheduledOptimizer]  # one for each player
    step: int = 0  # steps completed
    seconds: float = 0.0  # spent in steps so far, over all sessions
    window: list[Tensor] = field(default_factory=list)  # a row of losses and watched values for each unlogged step
    names: list[str] = field(default_factory=list)  # of the row's columns

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.plan.steps_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the state in tensors and plain containers only, as torch's safe load demands."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
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
        self.step, self.seconds = state["step"], state["seconds"]
        self.window, self.names = [row.to(self.model.device) for row in state["window"]], list(state["names"])

    def check_finite(self) -> None:
        """Raise DivergedError if the unlogged losses or the weights are not finite: such a state is not saved."""
        for age, row in enumerate(reversed(self.window)):
            if not row.isfinite().all():
                raise DivergedError(f"training diverged at step {self.step - age} or before it")
        for name, value in self.model.state_dict().items():
            if not value.isfinite().all():
                raise DivergedError(f"training diverged at step {self.step}: {name} is not finite")


@dataclass(frozen=True)
class Tick:
    """One completed step."""

    step: int  # steps completed
    epoch: int  # epochs completed
    ends_epoch: bool
    values: dict[str, float] | None  # at a logged step: means since the last one, and values of this step


def train(config: TrainConfig, training: Training, data: DataSet, epochs: int) -> Iterator[Tick]:
    """Train to the end of `epochs`; yield a Tick a step. Stopping at any Tick and going on later changes nothing.

    Data order is a function of (seed, epoch), every other draw of (seed, step). Values are read back from the device
    at a logged step only. Raises DivergedError, naming the step, if a loss or gradient is not finite; UsageError if a
    model's losses are not those of the players that move.
    """
    plan, seed, device = training.plan, config.seed, training.model.device
    length, step_images = plan.steps_per_epoch, plan.images_per_step
    order, order_epoch = torch.empty(0), -1
    step_at_log, seconds_at_log = training.step, training.seconds
    while training.step < epochs * length:
        started = time.perf_counter()
        epoch, position = divmod(training.step, length)
        if order_epoch != epoch:
            shuffler = rng.generator(torch.device("cpu"), seed, "order", epoch)
            order, order_epoch = torch.randperm(len(data.train), generator=shuffler).to(device), epoch
        rows = order[position * step_images : (position + 1) * step_images].view(-1, plan.batch_size)
        ends_epoch = position + 1 == length
        logged = ends_epoch or (training.step + 1) % config.log.every_steps == 0

        rng.reseed(device, seed, "step", training.step)
        row: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        for update, minibatch in plan.moves:
            images = data.images("train", rows[minibatch])
            row |= _move(training, update, images, config.device.precision, norms if logged else None)
        training.names = list(row)
        training.window.append(torch.stack(list(row.values())))
        training.step += 1

        values = None
        if logged:
            values = _read_window(training, norms)
            for player, optimizer in training.optimizers.items():
                settings = optimizer.schedule(training.step - 1, epoch)
                values |= {f"{name}/{player}": value for name, value in settings.items()}
        training.seconds += time.perf_counter() - started
        if values is not None:
            n_images = (training.step - step_at_log) * step_images
            values["images_per_second"] = n_images / max(training.seconds - seconds_at_log, 1e-9)
            step_at_log, seconds_at_log = training.step, training.seconds
        yield Tick(training.step, training.epoch, ends_epoch, values)


def _move(
    training: Training, update: Update, images: Tensor, precision: str, norms: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    """Make one update, and return its losses and watched values. All gradients are taken before any player moves."""
    with autocast(images.device, precision):
        losses, watched = update.play(images)
    if losses.keys() != set(update.players) or any(loss.ndim for loss in losses.values()):
        shapes = [f"{name} {tuple(loss.shape)}" if loss.ndim else name for name, loss in losses.items()]
        given = f"its update of {', '.join(update.players)} gives losses of {', '.join(shapes) or 'nobody'}"
        remedy = "give one number for each player that moves, under its name"
        raise UsageError(f"{type(training.model).__name__}: {given}; {remedy}")
    gradients: dict[str, tuple[Tensor, ...]] = {}
    for player in update.players:
        # Only this player's parameters: a generator's loss leaves the discriminator's weight gradients uncomputed.
        gradients[player] = torch.autograd.grad(
            losses[player], training.optimizers[player].parameters, retain_graph=player != update.players[-1]
        )
    for player, gradient in gradients.items():
        if norms is not None:
            norms[f"grad_norm/{player}"] = torch.nn.utils.get_total_norm(gradient)
        training.optimizers[player].step(gradient, training.step, training.epoch)
    return {f"loss/{player}": losses[player].detach() for player in update.players} | watched


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
