"""log Z of a restricted Boltzmann machine: exact by enumeration, or estimated by annealed importance sampling."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from genexp.models.boltzmann import RBMLayer, bernoulli

ENUMERABLE = 25  # units of one side whose 2²⁵ states can be enumerated; each further unit doubles the time
ROWS = 2**13  # states enumerated at a time
KNOTS = ((0, 500 / 14_500, 4_500 / 14_500, 1), (0, 0.5, 0.9, 1))  # of β (Salakhutdinov and Murray 2008, section 6.1)


def is_enumerable(machine: RBMLayer) -> bool:
    """Return True if one side is of binary units, few enough for `exact_log_z`."""
    return machine.units <= ENUMERABLE or (machine.visible == "bernoulli" and machine.inputs <= ENUMERABLE)


def exact_log_z(machine: RBMLayer) -> float:
    """Return log Z in nats, a sum in float64 over all states of the smaller side of binary units."""
    total = torch.tensor(-math.inf, dtype=torch.float64)
    for _, log_weights in _enumerated(machine):
        total = torch.logaddexp(total, log_weights.logsumexp(0).cpu())
    return total.item()


def exact_draws(machine: RBMLayer, n: int, generator: torch.Generator) -> Tensor:
    """Draw n independent visible values, (n, inputs), of an enumerable machine."""
    cumulative = torch.cat([log_weights for _, log_weights in _enumerated(machine)]).softmax(0).cumsum(0)
    uniform = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
    rows = torch.searchsorted(cumulative, uniform * cumulative[-1]).clamp(max=len(cumulative) - 1)
    drawn = _states(rows, _enumerated_units(machine)).to(machine.weight.dtype)
    return machine.draw_visible(drawn, generator) if _by_hidden(machine) else drawn


def _enumerated_units(machine: RBMLayer) -> int:
    return machine.units if _by_hidden(machine) else machine.inputs


def _states(numbers: Tensor, units: int) -> Tensor:
    """Return the states of binary units, (rows, units) float64, that are the bits of the numbers, (rows,)."""
    powers = 2 ** torch.arange(units, device=numbers.device)
    return (numbers[:, None] & powers).ne(0).double()


def _by_hidden(machine: RBMLayer) -> bool:
    return machine.visible == "gaussian" or machine.units <= machine.inputs


def _enumerated(machine: RBMLayer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield states (rows, units of the side), and the logs of their unnormalised probabilities, (rows,) float64."""
    by_hidden, units = _by_hidden(machine), _enumerated_units(machine)
    weight, b, c = (p.detach().double() for p in (machine.weight, machine.hidden_bias, machine.visible_bias))
    for first in range(0, 2**units, ROWS):
        numbers = torch.arange(first, min(first + ROWS, 2**units), device=weight.device)
        states = _states(numbers, units)
        if not by_hidden:
            yield states, states @ c + softplus(linear(states, weight, b)).sum(1)
        elif machine.visible == "bernoulli":
            yield states, states @ b + softplus(linear(states, weight.T, c)).sum(1)
        else:  # the integral of a Gaussian with variance 1 for each visible unit
            inputs = states @ weight
            constant = machine.inputs / 2 * math.log(2 * math.pi)
            yield states, states @ b + (inputs * c + inputs.square() / 2).sum(1) + constant


@dataclass(frozen=True)
class BaseRates:
    """The machine without weights from which annealing starts: its visible field and its hidden logits."""

    visible: Tensor  # (inputs,)
    hidden: Tensor  # (units,)

    def log_z(self, machine: RBMLayer) -> float:
        """Return its log Z in nats, if its units are those of `machine`."""
        hidden = softplus(self.hidden.double()).sum().item()
        if machine.visible == "gaussian":
            return hidden + machine.inputs / 2 * math.log(2 * math.pi)
        return hidden + softplus(self.visible.double()).sum().item()

    def draw(self, machine: RBMLayer, n: int, generator: torch.Generator) -> Tensor:
        return machine.draw_field(self.visible.expand(n, -1), generator)


@dataclass(frozen=True)
class LogZ:
    """An estimate of log Z in nats."""

    value: float
    stderr: float  # by the delta method: the weights' standard error over their mean
    low: float  # log(mean − 3 standard errors of the weights); −∞ if that is negative
    high: float  # log(mean + 3 standard errors)
    effective_runs: float  # (Σw)² / Σw²: how many of the runs the estimate rests on

    @classmethod
    def of_weights(cls, log_weights: Tensor, log_z_of_base: float) -> "LogZ":
        """Return the estimate from importance weights (Salakhutdinov and Murray 2008, equations 8 and 9)."""
        n = len(log_weights)
        log_mean = log_weights.logsumexp(0).item() - math.log(n)
        ratios = (log_weights - log_mean).exp()  # their mean is 1
        stderr = ratios.std().item() / math.sqrt(n)
        value = log_mean + log_z_of_base
        low = value + math.log1p(-3 * stderr) if 3 * stderr < 1 else -math.inf
        effective = n / ratios.square().mean().item()
        return cls(value, stderr, low, value + math.log1p(3 * stderr), effective)


def inverse_temperatures(n: int) -> list[float]:
    """Return β from 0 to 1 in n steps; for 14,500 the published 500 to 0.5, 4,000 to 0.9 and 10,000 to 1."""
    betas: list[float] = np.interp(np.linspace(0, 1, n + 1), *KNOTS).tolist()
    return betas


def annealed(
    machine: RBMLayer, base: BaseRates, v: Tensor, betas: list[float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Anneal visible values v, (runs, inputs), along `betas`; return the last ones, and log weights (runs,) float64.

    At β the visible field is that of the base plus β times the difference to the machine's, given h, and the hidden
    logits likewise: p_β(v) ∝ p_base(v)^(1−β) p(v)^β but for h. From draws at β = 0 the mean weight is Z / Z_base; along
    the reversed list, from draws of the machine, it is Z_base / Z. A temperature costs two products.
    """
    weight, transposed = machine.weight.detach(), machine.weight.detach().T.contiguous()
    hidden_change = machine.hidden_bias.detach() - base.hidden
    visible_change = machine.visible_bias.detach() - base.visible
    half = 0.5 * (base.visible.square() - machine.visible_bias.detach().square())  # of Gaussian units, per unit of β
    constant = half.double().sum() if machine.visible == "gaussian" else 0.0
    log_weights = torch.zeros(len(v), dtype=torch.float64, device=v.device)
    for before, beta in pairwise(betas):
        change = torch.addmm(hidden_change, v, transposed)
        logits = torch.add(base.hidden, change, alpha=beta)
        gained = softplus(logits) - softplus(torch.add(base.hidden, change, alpha=before))
        log_weights += gained.sum(1, dtype=torch.float64) + (beta - before) * ((v @ visible_change).double() + constant)
        h = bernoulli(logits.sigmoid_(), generator)
        field = torch.add(base.visible, torch.addmm(visible_change, h, weight), alpha=beta)
        v = machine.draw_field(field, generator)
    return v, log_weights


def estimated_log_z(
    machine: RBMLayer, base: BaseRates, runs: int, temperatures: int, generator: torch.Generator
) -> tuple[LogZ, Tensor]:
    """Return log Z by annealed importance sampling, and visible values (runs, inputs) that follow the machine nearly.

    These are the runs' last values, resampled by their weights.
    """
    start = base.draw(machine, runs, generator)
    v, log_weights = annealed(machine, base, start, inverse_temperatures(temperatures), generator)
    resampled = torch.multinomial(log_weights.softmax(0), runs, replacement=True, generator=generator)
    return LogZ.of_weights(log_weights, base.log_z(machine)), v[resampled]


def reverse_log_z(machine: RBMLayer, base: BaseRates, v: Tensor, temperatures: int, generator: torch.Generator) -> LogZ:
    """Return log Z by annealing draws v of the machine, (runs, inputs), to the base rates.

    From exact draws, log Z is overestimated on average, and underestimated by annealing in the other direction: the two
    enclose it (Burda et al. 2015; Grosse et al. 2015).
    """
    _, log_weights = annealed(machine, base, v, inverse_temperatures(temperatures)[::-1], generator)
    inverse = LogZ.of_weights(log_weights, -base.log_z(machine))
    return LogZ(-inverse.value, inverse.stderr, -inverse.high, -inverse.low, inverse.effective_runs)
