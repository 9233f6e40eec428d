"""Optimizers with schedules. A schedule is a function of (step, epoch), so resuming needs no state of it."""

import inspect
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn import Parameter

from genexp.device import never_compiled
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
    max_col_norm: Annotated[PositiveFloat | None, AsBefore(None)]


class ScheduledOptimizer:
    """A torch optimizer for one player that takes its gradients as arguments and its settings from a schedule.

    With `max_col_norm`, no row of a matrix has a larger norm after a step. This is pylearn2's constraint of that name:
    its columns are the rows of an `nn.Linear`, each unit's incoming weights. A maxout unit has a row for each piece.
    Biases and convolutions are no matrices, so they are not bounded; the weights of an `nn.Embedding` are a matrix.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule, rate: LearningRate | None = None) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.lr_epochs = None if rate is None else rate.get("lr_epochs")
        self.lr_min = 0.0 if rate is None else rate["lr_min"]
        self.max_col_norm = None if rate is None else rate.get("max_col_norm")
        self.parameters: list[Parameter] = optimizer.param_groups[0]["params"]
        self.plain_step = inspect.unwrap(type(optimizer).step)  # without hooks, of which one imports torch._dynamo
        # The learning rate is a tensor, so that a captured step reads it anew: float32 on an NVIDIA GPU. On the CPU
        # it is float64, as a Python number is, and fused optimizers read it in place.
        device, on_gpu = self.parameters[0].device, self.parameters[0].is_cuda
        in_tensor = on_gpu or (device.type == "cpu" and bool(optimizer.defaults.get("fused")))
        dtype = torch.float32 if on_gpu else torch.float64
        self.rate = torch.zeros((), dtype=dtype, device=device) if in_tensor else None
        self.capturable = {"capturable": on_gpu} if "capturable" in optimizer.defaults else {}
        setattr(optimizer, "_warned_capturable_if_run_uncaptured", True)  # noqa: B010 steps are made both ways

    def settings(self, step: int, epoch: float) -> dict[str, float]:
        """Return the settings after `step` steps and `epoch` epochs of the stage, with their fraction.

        The schedule's learning rate is multiplied by 1 − epoch / lr_epochs, which falls at each step, down to lr_min.
        """
        settings = self.schedule(step, int(epoch))
        if self.lr_epochs is not None:
            settings["lr"] = max(settings["lr"] * (1 - epoch / self.lr_epochs), self.lr_min)
        return settings

    def constants(self, step: int, epoch: float) -> dict[str, float]:
        """Return the settings that a captured step holds as numbers: all but a learning rate in a tensor."""
        return {k: value for k, value in self.settings(step, epoch).items() if k != "lr" or self.rate is None}

    def prepare(self, step: int, epoch: float) -> None:
        """Set the settings of this step and epoch."""
        group = self.optimizer.param_groups[0]
        group.update(self.settings(step, epoch) | self.capturable)
        if self.rate is not None:
            group["lr"] = self.rate.fill_(group["lr"])

    def step(self, gradients: Sequence[Tensor], step: int, epoch: float) -> None:
        """Update each parameter with its gradient and the settings of this step and epoch."""
        self.prepare(step, epoch)
        self.apply(gradients)

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Update each parameter with its gradient and the settings that were prepared."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = _laid_out_as(parameter, gradient)
        with torch.no_grad():
            self.plain_step(self.optimizer)
        for parameter in self.parameters:
            parameter.grad = None
        if self.max_col_norm is not None:
            for matrix in (parameter.detach() for parameter in self.parameters if parameter.ndim == 2):
                matrix.renorm_(2, 0, self.max_col_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, with numbers as settings."""
        state = self.optimizer.state_dict()
        groups = [
            {name: float(x) if isinstance(x, Tensor) else x for name, x in group.items()}
            for group in state["param_groups"]
        ]
        return {**state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


for _name in ("add_param_group", "state_dict", "load_state_dict"):
    never_compiled(getattr(torch.optim.Optimizer, _name))


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the parameter's strides, as fused optimizers take it without asking.

    They go through the memory of both in step, so that a transposed gradient would move the wrong weights.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def learning_rate(rate: LearningRate) -> Schedule:
    """Return the schedule max(lr / lr_decay^step · factor of the stage, lr_min).

    The first part is pylearn2's `ExponentialDecay`. `lr_stages` has the epochs and the factor of each stage, one stage
    after another; the last factor stays. Without it the factor is 1. With `lr_epochs`, too, `ScheduledOptimizer`
    multiplies the whole by its line: both settings have their effect.
    """
    log_decay = math.log(rate["lr_decay"])
    stages = rate.get("lr_stages") or [[math.inf, 1.0]]
    ends = list(accumulate(length for length, _ in stages))

    def schedule(step: int, epoch: int) -> dict[str, float]:
        _, factor = stages[min(bisect_right(ends, epoch), len(stages) - 1)]
        return {"lr": max(rate["lr"] * math.exp(-log_decay * step) * factor, rate["lr_min"])}

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

    return ScheduledOptimizer(optimizer, schedule, rate)


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
    return ScheduledOptimizer(optimizer, learning_rate(rate), rate)


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

    def schedule(step: int, epoch: int) -> dict[str, float]:
        return decay(step, epoch) | {"momentum": momentum}

    return ScheduledOptimizer(optimizer, schedule, rate)


def adadelta(
    parameters: Iterable[Parameter],
    *,
    rho: Fraction,
    eps: PositiveFloat,
    **rate: Unpack[LearningRate],
) -> ScheduledOptimizer:
    """Return Adadelta (Zeiler 2012, Algorithm 1, which has lr = 1)."""
    optimizer = torch.optim.Adadelta(parameters, rate["lr"], rho, eps, rate["weight_decay"])
    return ScheduledOptimizer(optimizer, learning_rate(rate), rate)
