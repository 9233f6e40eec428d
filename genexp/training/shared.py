"""The moves of a step that several processes make together, each on its share of the minibatches."""

from typing import Any

from torch import Tensor

from genexp import rng
from genexp.models import Update
from genexp.training.moves import Moves
from genexp.training.world import World


class SharedMoves(Moves):
    """Moves on a share of each minibatch, whose gradients, losses and watched values are means over all shares.

    The process of rank r takes every `world.size`-th image from the r-th on. Its random draws follow from the seed, the
    step and r.
    """

    def __init__(self, world: World, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.world, self.is_checked = world, False

    def make(self, step: int, norms: dict[str, Tensor] | None = None) -> Tensor:
        with self.world.together():
            self.prepare(step)
            given = {name: self._share(tensor) for name, tensor in self.minibatches.given(step).items()}
            row = self.world.mean_of_step(self.make_prepared(given, norms))
            ends_epoch = (step + 1 - self.stage.first_step) % self.stage.steps_per_epoch == 0
            if ends_epoch or not self.is_checked:
                self.world.check_same_state(self.model)
                self.is_checked = True
        return row

    def _share(self, given: Tensor) -> Tensor:
        """Return this process's columns of rows (minibatches, batch_size, ...); a tensor of no images as it is."""
        return given[:, self.world.rank :: self.world.size] if given.ndim else given

    def prepare(self, step: int) -> None:
        super().prepare(step)
        if not self.world.leads:
            rng.reseed(self.model.device, self.seed, f"step of rank {self.world.rank}", step)

    def _gradients(self, update: Update, losses: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        own = super()._gradients(update, losses)
        of_all = iter(self.world.mean([tensor for gradients in own.values() for tensor in gradients]))
        return {player: tuple(next(of_all) for _ in gradients) for player, gradients in own.items()}
