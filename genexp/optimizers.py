"""Optimizers with their schedules. A schedule is a function of (step, epoch), so it has no state to resume."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from genexp.errors import UsageError
from genexp.ranges import DecayFactor, Fraction, Interval, NonNegativeFloat, PositiveFloat

Schedule = Callable[[int, int], dict[str, float]]  # (steps, epochs completed) -> lr, and momentum where there is one


class ScheduledOptimizer:
    """A torch optimizer for one player, given gradients explicitly and its settings by a schedule."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.parameters: list[Parameter] = optimizer.param_groups[0]["params"]

    def step(self, gradients: Sequence[Tensor], step: int, epoch: int) -> None:
        """Move the parameters along `gradients`, one for each, with the settings of this step and epoch."""
        self.optimizer.param_groups[0].update(self.schedule(step, epoch))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def exponential_decay(lr: float, decay: float, lowest: float) -> Callable[[int], float]:
    """lr / decay^step, not below `lowest` (pylearn2 `ExponentialDecay`)."""
    log_decay = math.log(decay)
    return lambda step: max(lr * math.exp(-log_decay * step), lowest)


def linear_ramp(start: float, end: float | None, interval: Sequence[float]) -> Callable[[float], float]:
    """From `start` to `end`, linearly over the epochs of `interval` (pylearn2 `MomentumAdjustor`)."""
    if end is None:
        return lambda epoch: start
    first, last = interval
    length = max(last - first, 1e-9)  # an empty interval is a step
    return lambda epoch: start + (end - start) * min(max((epoch - first) / length, 0.0), 1.0)


def sgd(
    parameters: Iterable[Parameter],
    *,
    lr: PositiveFloat,
    lr_decay: DecayFactor,
    lr_min: NonNegativeFloat,
    momentum: Fraction,
    momentum_final: Fraction | None,
    momentum_ramp: Interval,
    nesterov: bool,
    weight_decay: NonNegativeFloat,
) -> ScheduledOptimizer:
    """v ← momentum·v + gradient; θ ← θ − lr·v.

    Raises UsageError for Nesterov's variant without momentum, and for a ramp that ends before it begins.
    """
    if nesterov and momentum == 0:
        raise UsageError("optimizer.nesterov=true needs a momentum; set optimizer.momentum above 0")
    if momentum_ramp[1] < momentum_ramp[0]:
        raise UsageError(f"optimizer.momentum_ramp={momentum_ramp} ends before it begins; write [first,last] epoch")
    rate = exponential_decay(lr, lr_decay, lr_min)
    ramp = linear_ramp(momentum, momentum_final, momentum_ramp)
    optimizer = torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True
    )
    return ScheduledOptimizer(optimizer, lambda step, epoch: {"lr": rate(step), "momentum": ramp(epoch)})


def adam(
    parameters: Iterable[Parameter],
    *,
    lr: PositiveFloat,
    lr_decay: DecayFactor,
    lr_min: NonNegativeFloat,
    beta1: Fraction,
    beta2: Fraction,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat,
) -> ScheduledOptimizer:
    """Kingma and Ba 2015, Algorithm 1."""
    rate = exponential_decay(lr, lr_decay, lr_min)
    optimizer = torch.optim.Adam(
        parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True
    )
    return ScheduledOptimizer(optimizer, lambda step, epoch: {"lr": rate(step)})


def rmsprop(
    parameters: Iterable[Parameter],
    *,
    lr: PositiveFloat,
    lr_decay: DecayFactor,
    lr_min: NonNegativeFloat,
    alpha: Fraction,
    momentum: Fraction,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat,
) -> ScheduledOptimizer:
    """Gradients divided by the root of their running mean square."""
    rate = exponential_decay(lr, lr_decay, lr_min)
    optimizer = torch.optim.RMSprop(
        parameters, lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=weight_decay
    )
    return ScheduledOptimizer(optimizer, lambda step, epoch: {"lr": rate(step), "momentum": momentum})
