"""An average of a model's weights over the steps of training (Polyak and Juditsky 1992)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WINDOW = 1000  # steps that are taken, at least, within the length of an average
MOST = 4  # steps of which one is taken


class Average:
    """The averages of all parameters, taken after each step: exponential ones by `decay`, else those by `power`.

    The exponential average is θ̄ ← θ̄ + (1 − decay)·(θ − θ̄); over the first 1/(1 − decay) steps it is the plain mean.
    In an average by power, step s has a weight in proportion to s^power (Shamir and Zhang 2013; Karras et al. 2024). It
    grows with training: the weights in it are (steps so far)/(power + 2) steps old in the mean.

    Of an average over 2·WINDOW steps or more, only every second, third, and at last MOST-th step is taken, with so much
    more weight: the memory traffic of every step would cost the paper's GAN 8 % of its time, and neighbours among
    thousands of steps hardly differ. Buffers, such as the statistics of batch norm, are not averaged.
    """

    def __init__(self, model: nn.Module, decay: float | None = None, power: float = 0) -> None:
        self.decay, self.power = decay, power
        self.parameters = list(model.parameters())
        places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        named = model.named_parameters(remove_duplicate=False)  # a shared parameter has several names
        self.places = {name: places[id(parameter)] for name, parameter in named}
        self.means = [parameter.detach().clone() for parameter in self.parameters]

    def update(self, step: int) -> None:
        """Take in the weights after `step` steps, counted from 1."""
        length = step / (self.power + 1) if self.decay is None else min(step, 1 / (1 - self.decay))
        period = max(1, min(MOST, int(length / WINDOW)))
        if step % period == 0:
            share = 1 - (1 - period / step) ** (self.power + 1)
            if self.decay is not None:
                share = max(share, 1 - self.decay**period)
            weights = [parameter.detach() for parameter in self.parameters]
            torch._foreach_lerp_(self.means, weights, share)

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
