"""Optimizers with schedules. A schedule is a function of (step, epoch), so resuming needs no state of it."""

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn import Parameter

from genexp.errors import UsageError
from genexp.ranges import (
    AsBefore,
    DecayFactor,
    Fraction,
    Interval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    RateStages,
)

# (steps, epochs completed) in this stage of training -> lr, and momentum if it has one
Schedule = Callable[[int, int], dict[str, float]]


class LearningRate(TypedDict):
    """The settings that all optimizers have in common."""

    lr: PositiveFloat
    lr_decay: DecayFactor
    lr_min: NonNegativeFloat
    lr_epochs: Annotated[PositiveInt | None, AsBefore(None)]
    lr_stages: Annotated[RateStages | None, AsBefore(None)]
    weight_decay: NonNegativeFloat


class ScheduledOptimizer:
    """A torch optimizer for one player that takes its gradients as arguments and its settings from a schedule."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.parameters: list[Parameter] = optimizer.param_groups[0]["params"]

    def step(self, gradients: Sequence[Tensor], step: int, epoch: int) -> None:
        """Update each parameter with its gradient and the settings of this step and epoch."""
        self.optimizer.param_groups[0].update(self.schedule(step, epoch))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def learning_rate(rate: LearningRate) -> Schedule:
    """Return the schedule max(lr / lr_decay^step · (1 − epoch / lr_epochs) · factor of the stage, lr_min).

    The first factor is pylearn2's `ExponentialDecay`. The second one, without `lr_epochs`, is 1. `lr_stages` has the
    epochs and the factor of each stage, one stage after another; the last factor stays. Without it the factor is 1.
    """
    log_decay, epochs = math.log(rate["lr_decay"]), rate.get("lr_epochs") or math.inf
    stages = rate.get("lr_stages") or [[math.inf, 1.0]]
    ends = list(accumulate(length for length, _ in stages))

    def schedule(step: int, epoch: int) -> dict[str, float]:
        _, factor = stages[min(bisect_right(ends, epoch), len(stages) - 1)]
        lr = rate["lr"] * math.exp(-log_decay * step) * max(0.0, 1 - epoch / epochs) * factor
        return {"lr": max(lr, rate["lr_min"])}

    return schedule


def linear_ramp(start: float, end: float | None, interval: Sequence[float]) -> Callable[[float], float]:
    """Return the schedule from `start` to `end`, linear over the epochs of `interval`."""
    if end is None:
        return lambda epoch: start
    first, last = interval
    length = max(last - first, 1e-9)  # an empty interval is a step
    return lambda epoch: start + (end - start) * min(max((epoch - first) / length, 0.0), 1.0)


def sgd(
    parameters: Iterable[Parameter],
    *,
    momentum: Fraction,
    momentum_final: Fraction | None,
    momentum_ramp: Interval,
    momentum_first_epoch: Annotated[Literal[0, 1], AsBefore(0, "momentum_final")] = 0,
    nesterov: bool,
    **rate: Unpack[LearningRate],
) -> ScheduledOptimizer:
    """Return SGD: v ← momentum·v + gradient; θ ← θ − lr·v, or with `nesterov` θ ← θ − lr·(gradient + momentum·v).

    The momentum goes from `momentum` to `momentum_final` in the epochs of `momentum_ramp`. The first epoch is number 1,
    as in pylearn2's `MomentumAdjustor`: [1, 5] from .5 to .7 is .5, .55, .6, .65, .7 by epoch. With
    `momentum_first_epoch` 0 it is number 0, and a momentum that begins at 0 forgets the gradients until it rises: so
    were runs made before there was the setting.
    Raises UsageError for `nesterov` without momentum, and for a ramp that ends before it begins.
    """
    if nesterov and momentum == 0:
        raise UsageError("optimizer.nesterov=true needs a momentum; set optimizer.momentum above 0")
    if momentum_ramp[1] < momentum_ramp[0]:
        raise UsageError(f"optimizer.momentum_ramp={momentum_ramp} ends before it begins; write [first,last] epoch")
    decay, ramp = learning_rate(rate), linear_ramp(momentum, momentum_final, momentum_ramp)
    optimizer = torch.optim.SGD(parameters, rate["lr"], momentum, 0, rate["weight_decay"], nesterov, fused=True)
    # torch keeps no v while the momentum is exactly 0; with this one it does, and 1e-308·v is 0 in float32.
    least = sys.float_info.min if momentum_first_epoch == 1 and momentum_final is not None else 0.0

    def schedule(step: int, epoch: int) -> dict[str, float]:
        return decay(step, epoch) | {"momentum": max(ramp(epoch + momentum_first_epoch), least)}

    return ScheduledOptimizer(optimizer, schedule)


def adam(
    parameters: Iterable[Parameter],
    *,
    beta1: Fraction,
    beta2: Fraction,
    eps: PositiveFloat,
    **rate: Unpack[LearningRate],
) -> ScheduledOptimizer:
    """Return Adam (Kingma and Ba 2015, Algorithm 1)."""
    optimizer = torch.optim.Adam(parameters, rate["lr"], (beta1, beta2), eps, rate["weight_decay"], fused=True)
    return ScheduledOptimizer(optimizer, learning_rate(rate))


def rmsprop(
    parameters: Iterable[Parameter],
    *,
    alpha: Fraction,
    momentum: Fraction,
    eps: PositiveFloat,
    **rate: Unpack[LearningRate],
) -> ScheduledOptimizer:
    """Return RMSprop: gradients divided by the root of their running mean square (Tieleman and Hinton 2012)."""
    decay = learning_rate(rate)
    optimizer = torch.optim.RMSprop(parameters, rate["lr"], alpha, eps, rate["weight_decay"], momentum)
    return ScheduledOptimizer(optimizer, lambda step, epoch: decay(step, epoch) | {"momentum": momentum})


def adadelta(
    parameters: Iterable[Parameter],
    *,
    rho: Fraction,
    eps: PositiveFloat,
    **rate: Unpack[LearningRate],
) -> ScheduledOptimizer:
    """Return Adadelta (Zeiler 2012, Algorithm 1, which has lr = 1)."""
    optimizer = torch.optim.Adadelta(parameters, rate["lr"], rho, eps, rate["weight_decay"])
    return ScheduledOptimizer(optimizer, learning_rate(rate))
