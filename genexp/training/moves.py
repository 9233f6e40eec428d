"""The moves of one step of training: minibatches to losses, losses to gradients, gradients to new weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from genexp import rng
from genexp.device import autocast
from genexp.errors import UsageError
from genexp.models import Batch, Model, Outcome, Update
from genexp.optimizers import ScheduledOptimizer
from genexp.training.minibatches import Minibatches


class Moves:
    """The moves of the steps of one stage."""

    def __init__(
        self,
        model: Model,
        optimizers: Mapping[str, ScheduledOptimizer],
        minibatches: Minibatches,
        seed: int,
        precision: str,
    ) -> None:
        self.model, self.minibatches, self.seed, self.precision = model, minibatches, seed, precision
        self.optimizers = optimizers  # of the players that move in this stage
        self.stage = minibatches.stage
        self.names: list[str] = []  # of the losses and watched values of the last step

    def make(self, step: int, norms: dict[str, Tensor] | None = None) -> Tensor:
        """Make the step after `step` completed ones; return its losses and watched values, (len(self.names),).

        The norm of each player's gradient is put into `norms`, if given. Raises UsageError if a model's losses are not
        those of the players that move.
        """
        self.prepare(step)
        return self.make_prepared(self.minibatches.given(step), norms)

    def prepare(self, step: int) -> None:
        """Put the random generators and the optimizers' settings at the place of the step."""
        rng.reseed(self.model.device, self.seed, "step", step)
        for optimizer in self.optimizers.values():
            optimizer.prepare(*self.stage.place(step))

    def make_prepared(self, given: dict[str, Tensor], norms: dict[str, Tensor] | None = None) -> Tensor:
        """Make the step that was prepared, on the minibatches of `given`."""
        row: dict[str, Tensor] = {}
        for update, minibatch in self.stage.moves:
            row |= self._move(update, self.minibatches.batch(update, given, minibatch), norms)
        self.names = list(row)
        return torch.stack(list(row.values()))

    def _move(self, update: Update, batch: Batch, norms: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Make one update, and return its losses and watched values. All gradients are taken before a player moves."""
        with autocast(self.model.device, self.precision):
            outcome: Outcome = update.asking(batch)
        model = type(self.model).__name__
        if not isinstance(outcome, tuple) or len(outcome) != len(Outcome._fields):
            given = f"its update of {', '.join(update.players)} gives a {type(outcome).__name__}"
            raise UsageError(f"{model}: {given}; return an Outcome(losses, watched)")
        losses, watched = outcome
        if losses.keys() != set(update.players) or any(loss.ndim for loss in losses.values()):
            shapes = [f"{name} {tuple(loss.shape)}" if loss.ndim else name for name, loss in losses.items()]
            given = f"its update of {', '.join(update.players)} gives losses of {', '.join(shapes) or 'nobody'}"
            raise UsageError(f"{model}: {given}; give one number for each player that moves, under its name")
        for player, gradient in self._gradients(update, losses).items():
            if norms is not None:
                norms[f"grad_norm/{player}"] = torch.nn.utils.get_total_norm(gradient)
            self.optimizers[player].apply(gradient)
        return {f"loss/{player}": losses[player].detach() for player in update.players} | watched

    def _gradients(self, update: Update, losses: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        """Return the gradient of each player's loss for its own parameters.

        A generator's loss thus leaves the discriminator's weight gradients uncomputed. Players that share a loss get
        their gradients from one backward pass.
        """
        groups: dict[int, list[str]] = {}
        for player in update.players:
            groups.setdefault(id(losses[player]), []).append(player)
        gradients: dict[str, tuple[Tensor, ...]] = {}
        for index, players in enumerate(groups.values(), 1):
            parameters = [parameter for player in players for parameter in self.optimizers[player].parameters]
            flat = iter(torch.autograd.grad(losses[players[0]], parameters, retain_graph=index < len(groups)))
            for player in players:
                gradients[player] = tuple(next(flat) for _ in self.optimizers[player].parameters)
        return gradients
