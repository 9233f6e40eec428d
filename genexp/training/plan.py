"""The plan of a training: its stages, the moves of a step in each, and the number of steps in an epoch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from genexp.models import Model, Stage, Update


@dataclass(frozen=True)
class PlannedStage:
    """A stage and its place in the training."""

    stage: Stage
    moves: list[tuple[Update, int]]  # each update, repeats written out, and which minibatch of the step it is given
    images_per_step: int  # the training images that one step takes
    steps_per_epoch: int  # an epoch is one pass over the images; the last few, too few for a step, are left out
    first_step: int  # steps of the stages before it
    first_epoch: int  # epochs of the stages before it

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def players(self) -> list[str]:
        """The players that move in this stage."""
        return list(dict.fromkeys(player for update, _ in self.moves for player in update.players))

    def place(self, step: int) -> tuple[int, float]:
        """Return the steps of this stage, and its epochs with their fraction, after `step` steps of the training."""
        return step - self.first_step, self.progress(step)

    def epoch(self, step: int) -> int:
        """Return the epochs of this stage that are completed after `step` steps of the training."""
        return (step - self.first_step) // self.steps_per_epoch

    def progress(self, step: int) -> float:
        """Return the same with the fraction of the epoch that has begun."""
        return (step - self.first_step) / self.steps_per_epoch


@dataclass(frozen=True)
class Plan:
    """The stages of a training, in order; the last one has no end of its own."""

    stages: list[PlannedStage]
    batch_size: int

    @classmethod
    def of(cls, model: Model, batch_size: int, n_images: int) -> "Plan":
        """Plan the training of a model on minibatches of `batch_size`, with `n_images` training images an epoch.

        A player moves on minibatches that it has not seen, so a step takes as many as the busiest player moves.
        """
        stages: list[PlannedStage] = []
        step = epoch = 0
        for stage in model.stages():
            moves = _moves(stage.updates)
            images_per_step = batch_size * (1 + max(minibatch for _, minibatch in moves))
            length = n_images // images_per_step
            stages.append(PlannedStage(stage, moves, images_per_step, length, step, epoch))
            step, epoch = step + length * (stage.epochs or 0), epoch + (stage.epochs or 0)
        return cls(stages, batch_size)

    @property
    def last(self) -> PlannedStage:
        return self.stages[-1]

    def stage(self, step: int) -> PlannedStage:
        """Return the stage in which training goes on after `step` steps."""
        return max((each for each in self.stages if each.first_step <= step), key=self.stages.index)

    def last_step(self, epochs: int) -> int:
        """Return the number of steps with which `epochs` epochs of the last stage are completed."""
        return self.last.first_step + epochs * self.last.steps_per_epoch

    def epochs(self, step: int) -> float:
        """Return the epochs of the last stage after `step` steps; 0 before it."""
        return max(0, step - self.last.first_step) / self.last.steps_per_epoch

    def images(self, step: int) -> int:
        """Return the number of training images that `step` steps take."""
        ends = [*(each.first_step for each in self.stages[1:]), step]
        steps = [max(0, min(step, end) - each.first_step) for each, end in zip(self.stages, ends, strict=True)]
        return sum(n * each.images_per_step for n, each in zip(steps, self.stages, strict=True))


def _moves(updates: Iterable[Update]) -> list[tuple[Update, int]]:
    times_moved: Counter[str] = Counter()
    moves = []
    for update in updates:
        for _ in range(update.repeats):
            moves.append((update, max(times_moved[player] for player in update.players)))
            times_moved.update(update.players)
    return moves
