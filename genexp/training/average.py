"""An exponential average of a model's weights over the steps of training (Polyak and Juditsky 1992)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WINDOW = 1000  # steps that are taken, at least, within the length of an average
MOST = 4  # steps of which one is taken


class Average:
    """The averages θ̄ ← θ̄ + (1 − decay)·(θ − θ̄) of all parameters, taken after each step.

    Over the first 1/(1 − decay) steps they are the plain mean. Of an average over 2·WINDOW steps or more, only every
    second, third, and at last MOST-th step is taken, with so much more weight: the memory traffic of every step would
    cost the paper's GAN 8 % of its time, and neighbours among thousands of steps hardly differ. Buffers, such as the
    statistics of batch norm, are not averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = list(model.parameters())
        places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        named = model.named_parameters(remove_duplicate=False)  # a shared parameter has several names
        self.places = {name: places[id(parameter)] for name, parameter in named}
        self.means = [parameter.detach().clone() for parameter in self.parameters]

    def update(self, step: int) -> None:
        """Take in the weights after `step` steps, counted from 1."""
        period = max(1, min(MOST, int(min(step, 1 / (1 - self.decay)) / WINDOW)))
        if step % period == 0:
            weights = [parameter.detach() for parameter in self.parameters]
            torch._foreach_lerp_(self.means, weights, max(1 - self.decay**period, period / step))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the place of the model's weights within it."""
        weights = [parameter.data for parameter in self.parameters]
        self._set(self.means)
        try:
            yield
        finally:
            self._set(weights)

    def _set(self, tensors: list[Tensor]) -> None:
        for parameter, tensor in zip(self.parameters, tensors, strict=True):
            parameter.data = tensor

    def state_dict(self) -> dict[str, Tensor]:
        return {name: self.means[place] for name, place in self.places.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, place in self.places.items():
            self.means[place].copy_(state[name])
